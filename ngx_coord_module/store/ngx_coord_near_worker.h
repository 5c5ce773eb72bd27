
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * What a worker knows of the near caches of a store; private to them.
 */


#ifndef _NGX_COORD_NEAR_WORKER_H_INCLUDED_
#define _NGX_COORD_NEAR_WORKER_H_INCLUDED_


#include "ngx_coord_near.h"
#include "ngx_coord_redis.h"
#include "ngx_coord_timer.h"


/* what stands around a string in a command */
#define NGX_COORD_NEAR_BULK  (sizeof("$" CRLF CRLF) - 1 + NGX_SIZE_T_LEN)


/* behind the prefix of keys: the channel of messages of changes */
#define NGX_COORD_NEAR_CHANNEL    "invalidate"

/* answers that a worker keeps by itself, and the bytes of key and value */
#define NGX_COORD_NEAR_MEMOS      64
#define NGX_COORD_NEAR_MEMO_DATA  200


/* one of them */
typedef struct {
    ngx_coord_near_t          *near;          /* NULL: none */
    ngx_atomic_t              *counter;       /* of changes of the key */
    ngx_atomic_uint_t          changes;       /* what it was */
    ngx_atomic_uint_t          epoch;         /* the word that it is under */
    ngx_msec_t                 until;         /* ngx_current_msec: at most */
    ngx_coord_near_e           state;
    uint16_t                   field;
    uint16_t                   key_len;
    uint16_t                   value_len;
    u_char                     data[NGX_COORD_NEAR_MEMO_DATA];
} ngx_coord_near_memo_t;


/* of a store with near caches, in a worker */
struct ngx_coord_near_worker_s {
    ngx_coord_store_t         *store;
    ngx_atomic_uint_t          epoch;         /* its word; 0: none */
    ngx_queue_t                fetches;       /* that may be joined */
    ngx_queue_t                done;          /* whose waiters are to hear */
    ngx_event_t                event;         /* posted */
    ngx_coord_timer_t          timer;         /* who has died */
    ngx_coord_log_limit_t      bad;
    ngx_coord_redis_tracking_t  tracking;
    ngx_coord_near_memo_t      memos[NGX_COORD_NEAR_MEMOS];
};


/*
 * Notes that there was no such key when it was read; what is known of it stays
 * as it is.  epoch and told: as for ngx_coord_near_keep().
 */
void ngx_coord_near_note(ngx_coord_near_item_t *item, ngx_atomic_uint_t epoch,
    ngx_atomic_uint_t told);

/*
 * An answer that this worker has read before, if it still is what stands in
 * memory; its value is copied to pool.  NGX_DECLINED: there is none, read it;
 * NGX_ERROR: no memory.
 */
ngx_int_t ngx_coord_near_memo_get(ngx_coord_near_item_t *item,
    ngx_pool_t *pool, ngx_coord_near_answer_t *answer);

/*
 * Keeps a fresh answer for that, for left nanoseconds at most.  epoch: the word
 * that it was read under.  In a table that is entered, as the next one.
 */
void ngx_coord_near_memo_keep(ngx_coord_near_item_t *item,
    ngx_coord_near_answer_t *answer, ngx_atomic_uint_t epoch,
    ngx_coord_nsec_t left);

/*
 * What is known of a key is about to change: what workers keep is void.  In a
 * table that is entered.
 */
void ngx_coord_near_memo_void(ngx_coord_near_t *near, ngx_str_t *key);

/* what is on its way was changed meanwhile; NULL: whatever it is */
void ngx_coord_near_taint(ngx_coord_near_worker_t *worker, ngx_str_t *key);

/* the event of a worker: those who wait for what has been answered hear it */
void ngx_coord_near_tell(ngx_event_t *ev);

/*
 * 1 if the worker with this word hears of changes: it has not lost what tells
 * it of them, and has heard all of them until some seconds ago.
 */
ngx_uint_t ngx_coord_near_trusted(ngx_coord_store_t *store,
    ngx_atomic_uint_t epoch);

/* 1 if the first of these holds: that worker is there, and may keep a value */
ngx_uint_t ngx_coord_near_stands(ngx_coord_store_t *store,
    ngx_atomic_uint_t epoch);

/*
 * All keys have changed, as this worker is the first to hear: whatever workers
 * of this node have read, or have asked for, is not fresh.
 */
void ngx_coord_near_revoke(ngx_coord_near_worker_t *worker);

/* changes are counted for each of a few groups of keys: that of a key */
ngx_uint_t ngx_coord_near_group(ngx_str_t *key);

/* grows when a worker hears that a key of the item's group has changed */
ngx_atomic_uint_t ngx_coord_near_news(ngx_coord_near_item_t *item);

/* this one has heard that; in a table that is entered */
void ngx_coord_near_note_news(ngx_coord_near_t *near, ngx_str_t *key);

/* this worker has heard of all changes until then, an ngx_current_msec */
void ngx_coord_near_heard(ngx_coord_near_worker_t *worker, ngx_msec_t when);

/*
 * Whether this worker, which hears of changes, is to ask for an item: its word,
 * for share_end() when it has kept the answer, or has none; 0: another worker
 * of the node asks.
 */
ngx_atomic_uint_t ngx_coord_near_share_begin(ngx_coord_near_item_t *item);
void ngx_coord_near_share_end(ngx_coord_near_item_t *item,
    ngx_atomic_uint_t epoch);

/*
 * What has become of that.  NGX_OK: the answer, its value on the heap;
 * NGX_AGAIN: it is still to come; NGX_BUSY: it did not come in time;
 * NGX_DECLINED: there is none that counts, ask.
 */
ngx_int_t ngx_coord_near_share_look(ngx_coord_near_item_t *item,
    ngx_coord_near_answer_t *answer);

/* what dead workers have read is not fresh: nobody hears of its changes */
void ngx_coord_near_bury(ngx_coord_store_t *store);

/* what decides the slot of a key of others: between its first braces, or all */
ngx_str_t ngx_coord_near_tag(ngx_str_t *key);


#endif /* _NGX_COORD_NEAR_WORKER_H_INCLUDED_ */
