
/*
 * Copyright (C) ngx_coord_module contributors
 */


#include "ngx_coord_table_hash.h"


/* cells that an insertion looks at to free expired entries */
#define NGX_COORD_TABLE_SWEEP  4

/* cells that are looked at, at most, when there is no free one */
#define NGX_COORD_TABLE_SCAN   1024

/* as many of them at places of chance; entries that compete for eviction */
#define NGX_COORD_TABLE_SAMPLE      64
#define NGX_COORD_TABLE_CANDIDATES  8


#define ngx_coord_table_cell(t, n)  (&ngx_coord_table_cells(t)[n])

#define ngx_coord_table_number(t, c)                                          \
    ((uint32_t) ((ngx_coord_cell_t *) (c) - ngx_coord_table_cells(t)))

static uint32_t ngx_coord_table_alloc(ngx_coord_table_t *table,
    uint32_t keep, ngx_coord_nsec_t now);
static void ngx_coord_table_free(ngx_coord_table_t *table, uint32_t n);
static void ngx_coord_table_free_chain(ngx_coord_table_t *table, uint32_t n);
static ngx_coord_entry_t *ngx_coord_table_victim(ngx_coord_table_t *table,
    uint32_t keep, ngx_coord_nsec_t now);
static ngx_coord_entry_t *ngx_coord_table_tick(ngx_coord_table_t *table,
    uint32_t keep, ngx_coord_nsec_t now);
static ngx_coord_entry_t *ngx_coord_table_look(ngx_coord_table_t *table,
    uint32_t n, uint32_t keep, ngx_coord_nsec_t now);
static ngx_coord_apart void ngx_coord_table_repair(ngx_coord_table_t *table);
static ngx_uint_t ngx_coord_table_repair_head(ngx_coord_table_t *table,
    uint32_t n);


ngx_coord_table_t *
ngx_coord_table_create(void *addr, size_t size, const u_char *seed,
    const ngx_str_t *name)
{
    size_t              fixed, per_cell;
    ngx_coord_table_t  *table;

    table = addr;

    /* cell 0 is none; alignment may take another one */

    fixed = sizeof(ngx_coord_table_t) + 2 * NGX_COORD_CELL_SIZE;
    per_cell = NGX_COORD_CELL_SIZE + sizeof(uint32_t);

    if (size < fixed + per_cell) {
        return NULL;
    }

    table->ncells = ngx_min((size - fixed) / per_cell, 0x7fffffff);
    table->nbuckets = 1;

    while (table->nbuckets <= table->ncells / 2) {
        table->nbuckets *= 2;
    }

    ngx_memcpy(table->seed, seed, NGX_COORD_TABLE_SEED_LEN);
    ngx_memcpy(table->name, name->data,
               ngx_min(name->len, NGX_COORD_TABLE_NAME_LEN));

    table->version = NGX_COORD_TABLE_VERSION;
    table->nfree = table->ncells;

    ngx_coord_table_commit();

    table->magic = NGX_COORD_TABLE_MAGIC;

    return table;
}


ngx_uint_t
ngx_coord_table_enter(ngx_coord_table_t *table)
{
    ngx_uint_t  repaired;

    repaired = 0;

    if (table->dirty) {
        ngx_coord_table_repair(table);
        repaired = 1;
    }

    table->dirty = 1;

    ngx_coord_table_commit();

    return repaired;
}


void
ngx_coord_table_leave(ngx_coord_table_t *table)
{
    ngx_coord_table_commit();

    table->dirty = 0;

    ngx_coord_table_commit();
}


ngx_coord_entry_t *
ngx_coord_table_find(ngx_coord_table_t *table, ngx_uint_t tag,
    const u_char *key, size_t len, ngx_coord_nsec_t now)
{
    uint32_t            n, hash;
    ngx_coord_entry_t  *entry;

    hash = ngx_coord_table_hash(table, tag, key, len);
    n = ngx_coord_table_buckets(table)[hash & (table->nbuckets - 1)];

    while (n) {
        entry = &ngx_coord_table_cell(table, n)->head;

        if (entry->hash == hash
            && entry->tag == tag
            && entry->key_len == len
            && ngx_memcmp(entry->key, key, len) == 0)
        {
            if (entry->expires <= now && entry->kept <= now) {
                table->expirations++;
                ngx_coord_table_remove(table, entry);
                return NULL;
            }

            entry->used = now;

            return entry;
        }

        n = entry->next;
    }

    return NULL;
}


ngx_coord_entry_t *
ngx_coord_table_insert(ngx_coord_table_t *table, ngx_uint_t tag,
    ngx_uint_t flags, const u_char *key, size_t len, const void *payload,
    ngx_coord_nsec_t expires, ngx_coord_nsec_t now)
{
    uint32_t            n, *bucket;
    ngx_uint_t          i;
    ngx_coord_entry_t  *entry;

    if (len > NGX_COORD_KEY_LEN) {
        return NULL;
    }

    for (i = 0; i < NGX_COORD_TABLE_SWEEP; i++) {
        (void) ngx_coord_table_tick(table, 0, now);
    }

    n = ngx_coord_table_alloc(table, 0, now);

    if (n == 0) {
        return NULL;
    }

    entry = &ngx_coord_table_cell(table, n)->head;

    ngx_memzero(entry, sizeof(ngx_coord_entry_t));

    entry->hash = ngx_coord_table_hash(table, tag, key, len);
    entry->tag = (uint8_t) tag;
    entry->flags = (uint8_t) flags;
    entry->key_len = (uint8_t) len;
    entry->expires = expires;
    entry->used = now;

    ngx_memcpy(entry->key, key, len);

    if (payload) {
        ngx_memcpy(entry->payload, payload, NGX_COORD_ENTRY_PAYLOAD);
    }

    bucket = ngx_coord_table_buckets(table)
             + (entry->hash & (table->nbuckets - 1));

    entry->next = *bucket;

    ngx_coord_table_commit();

    entry->state = NGX_COORD_CELL_HEAD;
    *bucket = n;
    table->nentries++;

    return entry;
}


void
ngx_coord_table_remove(ngx_coord_table_t *table, ngx_coord_entry_t *entry)
{
    uint32_t  n, chain, *link;

    n = ngx_coord_table_number(table, entry);
    chain = entry->chain;

    entry->state = NGX_COORD_CELL_FREE;

    ngx_coord_table_commit();

    link = ngx_coord_table_buckets(table)
           + (entry->hash & (table->nbuckets - 1));

    while (*link != n) {
        link = &ngx_coord_table_cell(table, *link)->head.next;
    }

    *link = entry->next;
    table->nentries--;

    ngx_coord_table_free(table, n);
    ngx_coord_table_free_chain(table, chain);
}


ngx_coord_data_t *
ngx_coord_table_first(ngx_coord_table_t *table, ngx_coord_entry_t *entry)
{
    return entry->chain ? &ngx_coord_table_cell(table, entry->chain)->data
                        : NULL;
}


ngx_coord_data_t *
ngx_coord_table_next(ngx_coord_table_t *table, ngx_coord_data_t *data)
{
    return data->next ? &ngx_coord_table_cell(table, data->next)->data : NULL;
}


ngx_coord_data_t *
ngx_coord_table_add(ngx_coord_table_t *table, ngx_coord_entry_t *entry,
    ngx_coord_data_t *after, ngx_coord_nsec_t now)
{
    uint32_t           n, owner, *link;
    ngx_coord_data_t  *data;

    owner = ngx_coord_table_number(table, entry);

    n = ngx_coord_table_alloc(table, owner, now);

    if (n == 0) {
        return NULL;
    }

    link = after ? &after->next : &entry->chain;

    data = &ngx_coord_table_cell(table, n)->data;

    ngx_memzero(data, sizeof(ngx_coord_data_t));

    data->owner = owner;
    data->next = *link;
    data->state = NGX_COORD_CELL_DATA_USED;

    ngx_coord_table_commit();

    *link = n;

    return data;
}


ngx_coord_data_t *
ngx_coord_table_drop(ngx_coord_table_t *table, ngx_coord_entry_t *entry,
    ngx_coord_data_t *after)
{
    uint32_t  n, *link;

    link = after ? &after->next : &entry->chain;
    n = *link;

    *link = ngx_coord_table_cell(table, n)->data.next;

    ngx_coord_table_commit();

    ngx_coord_table_free(table, n);

    return *link ? &ngx_coord_table_cell(table, *link)->data : NULL;
}


/*
 * Takes a cell from the free list, or one that was never used; where there is
 * none, frees what has expired or evicts an entry.  The entry keep stays.
 */

static uint32_t
ngx_coord_table_alloc(ngx_coord_table_t *table, uint32_t keep,
    ngx_coord_nsec_t now)
{
    uint32_t            n;
    ngx_coord_entry_t  *victim;

    if (table->free == 0 && table->nused < table->ncells) {
        table->nfree--;

        return ++table->nused;
    }

    if (table->free == 0) {
        victim = ngx_coord_table_victim(table, keep, now);

        if (victim) {
            table->evictions++;
            ngx_coord_table_remove(table, victim);
        }

        if (table->free == 0) {
            return 0;
        }
    }

    n = table->free;
    table->free = ngx_coord_table_cell(table, n)->data.next;
    table->nfree--;

    return n;
}


/*
 * Of a few entries that may be evicted the one that was not used for the
 * longest time.  Cells are picked by chance, and data stands for its entry, so
 * that a large one is as easily found as it takes room.  NULL: none is needed,
 * since something has expired, or none was found.
 */

static ngx_coord_entry_t *
ngx_coord_table_victim(ngx_coord_table_t *table, uint32_t keep,
    ngx_coord_nsec_t now)
{
    uint64_t            chance;
    uint32_t            n;
    ngx_uint_t          i, candidates;
    ngx_coord_entry_t  *entry, *victim;

    victim = NULL;
    candidates = 0;
    chance = (uint64_t) now ^ table->seed[0] ^ table->evictions;

    for (i = 0; i < NGX_COORD_TABLE_SAMPLE + NGX_COORD_TABLE_SCAN; i++) {

        if (i < NGX_COORD_TABLE_SAMPLE) {
            chance = chance * 6364136223846793005ULL + 1442695040888963407ULL;
            n = 1 + (uint32_t) ((chance >> 32) * table->nused >> 32);

            entry = ngx_coord_table_look(table, n, keep, now);

        } else if (victim) {
            break;

        } else {
            entry = ngx_coord_table_tick(table, keep, now);
        }

        if (table->free) {
            return NULL;
        }

        if (entry == NULL || entry == victim) {
            continue;
        }

        if (victim == NULL || entry->used < victim->used) {
            victim = entry;
        }

        if (++candidates == NGX_COORD_TABLE_CANDIDATES) {
            break;
        }
    }

    return victim;
}


static void
ngx_coord_table_free(ngx_coord_table_t *table, uint32_t n)
{
    ngx_coord_data_t  *data;

    data = &ngx_coord_table_cell(table, n)->data;

    data->state = NGX_COORD_CELL_FREE;
    data->next = table->free;

    table->free = n;
    table->nfree++;
}


static void
ngx_coord_table_free_chain(ngx_coord_table_t *table, uint32_t n)
{
    uint32_t  next;

    while (n) {
        next = ngx_coord_table_cell(table, n)->data.next;
        ngx_coord_table_free(table, n);
        n = next;
    }
}


/* moves the hand one cell on and looks at it */

static ngx_coord_entry_t *
ngx_coord_table_tick(ngx_coord_table_t *table, uint32_t keep,
    ngx_coord_nsec_t now)
{
    if (table->nused == 0) {
        return NULL;
    }

    table->hand = (table->hand >= table->nused) ? 1 : table->hand + 1;

    return ngx_coord_table_look(table, table->hand, keep, now);
}


/*
 * The entry that a cell belongs to, if it may be evicted; one that has expired
 * is removed, and where there is no room also one that would be kept.
 */

static ngx_coord_entry_t *
ngx_coord_table_look(ngx_coord_table_t *table, uint32_t n, uint32_t keep,
    ngx_coord_nsec_t now)
{
    ngx_coord_cell_t   *cell;
    ngx_coord_entry_t  *entry;

    cell = ngx_coord_table_cell(table, n);

    if (cell->head.state == NGX_COORD_CELL_DATA_USED) {
        n = cell->data.owner;

        if (n == 0 || n > table->nused) {
            return NULL;
        }

        cell = ngx_coord_table_cell(table, n);
    }

    entry = &cell->head;

    if (entry->state != NGX_COORD_CELL_HEAD || n == keep) {
        return NULL;
    }

    if (entry->expires <= now
        && (entry->kept <= now
            || (table->free == 0 && table->nused == table->ncells)))
    {
        table->expirations++;
        ngx_coord_table_remove(table, entry);
        return NULL;
    }

    return (entry->flags & NGX_COORD_ENTRY_EVICT) ? entry : NULL;
}


/*
 * Rebuilds everything that is not in the cells themselves.  Safe to be cut
 * short at any point: it only depends on the cells and leaves what it found
 * good as good.
 */

static void
ngx_coord_table_repair(ngx_coord_table_t *table)
{
    uint32_t           i, *bucket, *buckets;
    ngx_coord_cell_t  *cell;

    buckets = ngx_coord_table_buckets(table);

    ngx_memzero(buckets, table->nbuckets * sizeof(uint32_t));

    table->free = 0;
    table->nfree = table->ncells - table->nused;
    table->nentries = 0;
    table->hand = 0;
    table->repairs++;

    for (i = 1; i <= table->nused; i++) {
        cell = ngx_coord_table_cell(table, i);

        if (cell->head.state != NGX_COORD_CELL_HEAD) {
            cell->data.mark = 0;
        }
    }

    for (i = 1; i <= table->nused; i++) {
        cell = ngx_coord_table_cell(table, i);

        if (cell->head.state != NGX_COORD_CELL_HEAD) {
            continue;
        }

        if (!ngx_coord_table_repair_head(table, i)) {
            cell->head.state = NGX_COORD_CELL_FREE;
            continue;
        }

        bucket = &buckets[cell->head.hash & (table->nbuckets - 1)];

        cell->head.next = *bucket;
        *bucket = i;
        table->nentries++;
    }

    for (i = table->nused; i; i--) {
        cell = ngx_coord_table_cell(table, i);

        if (cell->head.state == NGX_COORD_CELL_HEAD) {
            continue;
        }

        /* a mark is only set once the owner was checked */

        if (cell->data.state == NGX_COORD_CELL_DATA_USED
            && cell->data.mark
            && ngx_coord_table_cell(table, cell->data.owner)->head.state
               == NGX_COORD_CELL_HEAD)
        {
            continue;
        }

        ngx_coord_table_free(table, i);
    }
}


/*
 * Tells whether a head can stay and marks its data cells.  A chain ends at
 * the first cell that is not its own.
 */

static ngx_uint_t
ngx_coord_table_repair_head(ngx_coord_table_t *table, uint32_t n)
{
    size_t              room;
    uint32_t           *link;
    ngx_coord_data_t   *data;
    ngx_coord_entry_t  *entry;

    entry = &ngx_coord_table_cell(table, n)->head;

    if (entry->key_len > NGX_COORD_KEY_LEN
        || (entry->flags & NGX_COORD_ENTRY_WRITING)
        || entry->hash != ngx_coord_table_hash(table, entry->tag, entry->key,
                                               entry->key_len))
    {
        return 0;
    }

    room = 0;
    link = &entry->chain;

    while (*link) {

        if (*link > table->nused) {
            *link = 0;
            break;
        }

        data = &ngx_coord_table_cell(table, *link)->data;

        if (data->state != NGX_COORD_CELL_DATA_USED
            || data->owner != n
            || data->mark)
        {
            *link = 0;
            break;
        }

        data->mark = 1;
        room += NGX_COORD_CELL_DATA;
        link = &data->next;
    }

    return entry->length <= room;
}
