
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The near cache: what was read from keys that others own, in the shared
 * memory of a zone, for all workers of the node.  A value is fresh for its
 * time, and only as long as the worker that has read it would hear of a
 * change; what is no longer fresh is kept as the last value.
 *
 *   ngx_coord_near.c         the memory: get, keep, drop
 *   ngx_coord_near_memo.c    what this worker has just read there
 *   ngx_coord_near_word.c    whose word counts: who hears of changes
 *   ngx_coord_near_start.c   a worker begins, and is told of changes
 *   ngx_coord_near_fetch.c   reading from the store, once for all who ask
 *   ngx_coord_near_share.c   ... and once for all workers of the node
 *   ngx_coord_near_write.c   values that were made here, messages of changes
 */


#ifndef _NGX_COORD_NEAR_H_INCLUDED_
#define _NGX_COORD_NEAR_H_INCLUDED_


#include "ngx_coord_store.h"
#include "ngx_coord_log.h"


#define NGX_COORD_NEAR_VALUE_MAX  65536       /* bytes of a value */
#define NGX_COORD_NEAR_FIELDS     64

/* tags of entries, above those of operations: one for each field */
#define NGX_COORD_NEAR_TAG        64

/* of the note that there was no such key, which is about to be made */
#define NGX_COORD_NEAR_NOTE       (NGX_COORD_NEAR_TAG + NGX_COORD_NEAR_FIELDS)

/* the word of what nobody else can change: a memory store's */
#define NGX_COORD_NEAR_ALWAYS     1


/* of a zone; made by the configuration */
typedef struct {
    ngx_coord_zone_t          *zone;
    ngx_array_t                fields;        /* of ngx_str_t: of hashes; the
                                               * first, empty: a string */
} ngx_coord_near_t;


/* one that may be asked for; the strings are the caller's */
typedef struct {
    ngx_coord_near_t          *near;
    ngx_uint_t                 field;         /* index into near->fields */
    ngx_str_t                  key;           /* as it stands in the store */
    ngx_msec_t                 ttl;           /* of a value */
    ngx_msec_t                 negative_ttl;  /* of anything else */
    unsigned                   made:1;        /* what is absent will be made:
                                               * that it is is only noted */
    unsigned                   copy:1;        /* any bytes; kept only where
                                               * changes are told */
} ngx_coord_near_item_t;


typedef enum {
    NGX_COORD_NEAR_UNKNOWN = 0,
    NGX_COORD_NEAR_NONE,          /* there is no such key or field */
    NGX_COORD_NEAR_VALUE,
    NGX_COORD_NEAR_BAD            /* another type, too large, no text */
} ngx_coord_near_e;


typedef struct {
    ngx_coord_near_e           state;
    ngx_str_t                  value;         /* VALUE */
    unsigned                   late:1;        /* UNKNOWN: nothing, in time */
} ngx_coord_near_answer_t;


typedef struct ngx_coord_near_fetch_s  ngx_coord_near_fetch_t;
typedef struct ngx_coord_near_wait_s   ngx_coord_near_wait_t;


/* somebody who waits for an answer; the waiter's memory */
struct ngx_coord_near_wait_s {
    ngx_queue_t                queue;
    ngx_coord_near_fetch_t    *fetch;         /* NULL: does not wait */

    /*
     * Called once, from a posted event; the answer is valid during the call.
     * UNKNOWN: the store does not answer.
     */
    void                     (*handler)(ngx_coord_near_wait_t *wait,
                                        ngx_coord_near_answer_t *answer);
    void                      *data;
};


typedef struct ngx_coord_near_worker_s  ngx_coord_near_worker_t;


/*
 * For the configuration: a near cache in a zone, whose store is known later.
 * Lives in pool.  NULL: no memory.
 */
ngx_coord_near_t *ngx_coord_near_create(ngx_pool_t *pool,
    ngx_coord_zone_t *zone);

/* 1 if the store is elsewhere, and there is memory for what is read there */
ngx_uint_t ngx_coord_near_useful(ngx_coord_near_t *near);

/* the index of a field, empty: of strings; NGX_ERROR: no memory, too many */
ngx_int_t ngx_coord_near_field(ngx_coord_near_t *near, ngx_str_t *name);

/*
 * At the end of the configuration: changes of keys are told to the near cache,
 * once for each store.  NGX_ERROR: no memory.
 */
ngx_int_t ngx_coord_near_add(ngx_pool_t *pool, ngx_coord_near_t *near);

/* worker start and end of the near caches of a store, behind its own start */
ngx_int_t ngx_coord_near_start(ngx_coord_store_t *store, ngx_cycle_t *cycle);
void ngx_coord_near_stop(ngx_coord_store_t *store);


/*
 * Reads from memory; the value is copied to pool.  NGX_OK: the answer is
 * fresh; NGX_AGAIN: it is to be asked for, the answer is the last one that was
 * known; NGX_ERROR: no memory.
 */
ngx_int_t ngx_coord_near_get(ngx_coord_near_item_t *item, ngx_pool_t *pool,
    ngx_coord_near_answer_t *answer);

/*
 * Keeps an answer.  epoch: the worker's word when it was asked for; 0: nobody
 * would tell of a change, it is the last value and not fresh.  told: what was
 * told of changes by then (ngx_coord_near_news()); it is not fresh either if
 * another worker has heard of one since.
 */
void ngx_coord_near_keep(ngx_coord_near_item_t *item,
    ngx_coord_near_answer_t *answer, ngx_atomic_uint_t epoch,
    ngx_atomic_uint_t told);

/* a key was written: what is kept of it is not fresh; NULL: all of it */
void ngx_coord_near_changed(ngx_coord_near_worker_t *worker, ngx_str_t *key);

/* all that the worker has read is not fresh: it has another word now */
void ngx_coord_near_renew(ngx_coord_near_worker_t *worker);

/* forgets a key, with its last values; 1 if there was something */
ngx_uint_t ngx_coord_near_forget(ngx_coord_near_t *near, ngx_str_t *key);


/*
 * Has wait->handler called with what the store has; the same question of
 * others is not asked again.  The item is copied.  NGX_ERROR: no memory.
 */
ngx_int_t ngx_coord_near_fetch(ngx_coord_near_item_t *item,
    ngx_coord_near_wait_t *wait);

/* 1 without control characters but tabs: it may become a field of a request */
ngx_uint_t ngx_coord_near_text(ngx_str_t *value);

/*
 * Stores a value under the key for item->ttl, unless there is one; nobody
 * waits for that.  The item and the value are copied.
 */
void ngx_coord_near_write(ngx_coord_near_item_t *item, ngx_str_t *value);

/*
 * That there is no such key is known for item->negative_ttl, if it was noted
 * when the key was read, and nobody has written the key since then.
 */
void ngx_coord_near_absent(ngx_coord_near_item_t *item);

/* tells all nodes that a key has changed; it is copied */
void ngx_coord_near_tell_all(ngx_coord_store_t *store, ngx_str_t *key);

/* does not wait any more; may be called at any time */
void ngx_coord_near_leave(ngx_coord_near_wait_t *wait);


#endif /* _NGX_COORD_NEAR_H_INCLUDED_ */
