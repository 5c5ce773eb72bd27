
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * A hash table in shared memory that survives the death of a process at any
 * instruction.
 *
 * The table is one block: this header, an array of buckets, an array of cells
 * of one size.  Cells refer to each other by number, never by pointer.  A
 * cell is free, or the head of an entry (key, expiry, a small payload), or
 * data of an entry: heads and data cells of one entry form a chain.
 *
 * The caller holds a lock between ngx_coord_table_enter() and _leave(); every
 * other function may be called only there.  enter() marks the table dirty and
 * leave() unmarks it: whoever enters a table that is dirty already took the
 * lock over from a dead process, and rebuilds the hash chains, the free list
 * and the counts from the cells.  For that every change of a cell is ordered
 * so that one word commits it: a head counts when its state says so, a data
 * cell when it is linked.  Users keep the same rule for what they store: write
 * the fields first, call ngx_coord_table_commit(), then write the word that
 * makes them count.
 *
 * Pointers to entries and data cells are valid until leave() or until the
 * entry is removed; an insertion may evict or expire any other entry.
 */


#ifndef _NGX_COORD_TABLE_H_INCLUDED_
#define _NGX_COORD_TABLE_H_INCLUDED_


#include "ngx_coord.h"
#include "ngx_coord_key.h"


#define NGX_COORD_TABLE_MAGIC      0x31626174u
#define NGX_COORD_TABLE_VERSION    4

#define NGX_COORD_CELL_SIZE        128
#define NGX_COORD_CELL_DATA        112    /* bytes in a data cell */
#define NGX_COORD_ENTRY_PAYLOAD    16     /* bytes in a head */

#define NGX_COORD_TABLE_SEED_LEN   16
#define NGX_COORD_TABLE_NAME_LEN   32


/* states of a cell */
#define NGX_COORD_CELL_FREE        0
#define NGX_COORD_CELL_HEAD        1
#define NGX_COORD_CELL_DATA_USED   2


/* flags of an entry */
#define NGX_COORD_ENTRY_EVICT      0x01   /* may make room for others */
#define NGX_COORD_ENTRY_WRITING    0x02   /* its blob is being written */


/* the head of an entry */
typedef struct {
    uint32_t                   state;
    uint32_t                   next;      /* in the bucket */
    uint32_t                   hash;
    uint32_t                   chain;     /* the first data cell, or 0 */
    uint32_t                   length;    /* of the blob, in bytes */
    uint8_t                    tag;       /* the user's: kinds of entries */
    uint8_t                    flags;
    uint8_t                    key_len;
    uint8_t                    mark;      /* of a repair */
    ngx_coord_nsec_t           expires;   /* at this time it is gone, ... */
    ngx_coord_nsec_t           kept;      /* or later, if there is room */
    ngx_coord_nsec_t           used;      /* last found or inserted */
    uint64_t                   payload[NGX_COORD_ENTRY_PAYLOAD / 8];
    u_char                     key[NGX_COORD_KEY_LEN];
} ngx_coord_entry_t;


/* a data cell */
typedef struct {
    uint32_t                   state;
    uint32_t                   next;      /* in the chain or the free list */
    uint32_t                   owner;     /* the head */
    uint32_t                   mark;
    uint64_t                   data[NGX_COORD_CELL_DATA / 8];
} ngx_coord_data_t;


typedef union {
    ngx_coord_entry_t          head;
    ngx_coord_data_t           data;
    u_char                     size[NGX_COORD_CELL_SIZE];
} ngx_coord_cell_t;


typedef struct {
    uint32_t                   magic;
    uint32_t                   version;
    uint32_t                   dirty;
    uint32_t                   nbuckets;  /* a power of 2 */
    uint32_t                   ncells;    /* cells 1 to ncells; 0 is none */
    uint32_t                   nused;     /* those above were never touched */
    uint32_t                   free;      /* the first free cell, or 0 */
    uint32_t                   nfree;     /* and all that were never used */
    uint32_t                   nentries;
    uint32_t                   hand;      /* of the clock, a cell */
    uint32_t                   logged;    /* second of the last message */
    uint64_t                   evictions;
    uint64_t                   expirations;
    uint64_t                   repairs;
    uint64_t                   denied;    /* the user's: until when */
    ngx_atomic_t               near[2];   /* the user's: answers */
    uint64_t                   seed[NGX_COORD_TABLE_SEED_LEN / 8];
    u_char                     name[NGX_COORD_TABLE_NAME_LEN];
} ngx_coord_table_t;


#define ngx_coord_table_buckets(t)                                            \
    ((uint32_t *) ((u_char *) (t) + sizeof(ngx_coord_table_t)))

#define ngx_coord_table_cells(t)                                              \
    ((ngx_coord_cell_t *) ((u_char *) (t)                                     \
                           + ngx_align(sizeof(ngx_coord_table_t)              \
                                       + (size_t) (t)->nbuckets               \
                                         * sizeof(uint32_t),                  \
                                       NGX_COORD_CELL_SIZE)))

/*
 * Keeps the compiler from moving stores across it.  Those of a process that
 * died in between have been made in the order of its instructions when another
 * one takes the lock, so that the processor needs no barrier.
 */
#define ngx_coord_table_commit()  __atomic_signal_fence(__ATOMIC_SEQ_CST)


/*
 * Lays out an empty table in size bytes of zeros at addr, aligned to 8.  They
 * are touched when they are needed, so that a table takes the memory that it
 * uses and not what it may use.  seed keys the hash: secret random bytes; name
 * is for the caller to recognize the table.  NULL: size is too small for even
 * one cell.
 */
ngx_coord_table_t *ngx_coord_table_create(void *addr, size_t size,
    const u_char *seed, const ngx_str_t *name);

/* after taking the lock; returns 1 if a repair was needed */
ngx_uint_t ngx_coord_table_enter(ngx_coord_table_t *table);

/* before releasing the lock */
void ngx_coord_table_leave(ngx_coord_table_t *table);

/*
 * Finds the entry of a tag and a key of at most NGX_COORD_KEY_LEN bytes.
 * One that has expired, and is not to be kept, is removed; NULL: there is
 * none.
 */
ngx_coord_entry_t *ngx_coord_table_find(ngx_coord_table_t *table,
    ngx_uint_t tag, const u_char *key, size_t len, ngx_coord_nsec_t now);

/*
 * Inserts an entry that ngx_coord_table_find() did not find, with payload
 * (may be NULL: zeros) and no data.  Frees a few expired entries on the way.
 * Who sets entry->kept behind expires finds it until then, unless the room was
 * needed.  A full table evicts one entry among those flagged
 * NGX_COORD_ENTRY_EVICT.  NULL: full, nothing could be evicted, or the key is
 * too long.
 */
ngx_coord_entry_t *ngx_coord_table_insert(ngx_coord_table_t *table,
    ngx_uint_t tag, ngx_uint_t flags, const u_char *key, size_t len,
    const void *payload, ngx_coord_nsec_t expires, ngx_coord_nsec_t now);

/* removes an entry and its data */
void ngx_coord_table_remove(ngx_coord_table_t *table,
    ngx_coord_entry_t *entry);


/* the data cells of an entry in their order; NULL: no more */
ngx_coord_data_t *ngx_coord_table_first(ngx_coord_table_t *table,
    ngx_coord_entry_t *entry);
ngx_coord_data_t *ngx_coord_table_next(ngx_coord_table_t *table,
    ngx_coord_data_t *data);

/*
 * Adds a data cell of zeros behind after, or as the first one where after is
 * NULL.  May evict other entries; NULL: full.
 */
ngx_coord_data_t *ngx_coord_table_add(ngx_coord_table_t *table,
    ngx_coord_entry_t *entry, ngx_coord_data_t *after, ngx_coord_nsec_t now);

/*
 * Removes the data cell behind after, or the first one where after is NULL.
 * Returns the one that takes its place, or NULL.
 */
ngx_coord_data_t *ngx_coord_table_drop(ngx_coord_table_t *table,
    ngx_coord_entry_t *entry, ngx_coord_data_t *after);


/*
 * Replaces the blob of an entry, kept in its data cells.  NGX_ERROR: full;
 * the entry is removed.  A process that dies meanwhile leaves no entry.
 */
ngx_int_t ngx_coord_table_write(ngx_coord_table_t *table,
    ngx_coord_entry_t *entry, const u_char *src, size_t len,
    ngx_coord_nsec_t now);

/*
 * Copies at most len bytes of the blob from offset to dst; returns how many
 * there were.
 */
size_t ngx_coord_table_read(ngx_coord_table_t *table,
    ngx_coord_entry_t *entry, u_char *dst, size_t offset, size_t len);


#endif /* _NGX_COORD_TABLE_H_INCLUDED_ */
