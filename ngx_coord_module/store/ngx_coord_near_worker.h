
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * What a worker knows of the near caches of a store; private to them.
 */


#ifndef _NGX_COORD_NEAR_WORKER_H_INCLUDED_
#define _NGX_COORD_NEAR_WORKER_H_INCLUDED_


#include "ngx_coord_near.h"
#include "ngx_coord_redis.h"
#include "ngx_coord_store_metrics.h"
#include "ngx_coord_timer.h"


/* what stands around a string in a command */
#define NGX_COORD_NEAR_BULK  (sizeof("$" CRLF CRLF) - 1 + NGX_SIZE_T_LEN)


/* behind the prefix of keys: the channel of messages of changes */
#define NGX_COORD_NEAR_CHANNEL    "invalidate"

/* answers that a worker keeps by itself, and the bytes of key and value */
#define NGX_COORD_NEAR_MEMOS      64
#define NGX_COORD_NEAR_MEMO_DATA  200

/* milliseconds: for so long it counts that a worker has heard all */
#define NGX_COORD_NEAR_BELIEF     3000

/* where the word of a worker stands */
#define ngx_coord_near_slot(epoch)  ((epoch) & (NGX_COORD_METRICS_PROCS - 1))


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


/* why an answer is fresh */
typedef struct {
    ngx_atomic_uint_t          epoch;         /* the word that it is under */
    ngx_coord_nsec_t           left;          /* until its time is over */
} ngx_coord_near_fresh_t;


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
 * As ngx_coord_near_get(), from shared memory, whatever this worker keeps; with
 * NGX_OK fresh tells why it is.
 */
ngx_int_t ngx_coord_near_get_shm(ngx_coord_near_item_t *item,
    ngx_pool_t *pool, ngx_coord_near_answer_t *answer,
    ngx_coord_near_fresh_t *fresh);

/*
 * What is known of a key is about to change: what workers keep is void.  In a
 * table that is entered.
 */
void ngx_coord_near_void(ngx_coord_near_t *near, ngx_str_t *key);

/* what is on its way was changed meanwhile; NULL: whatever it is */
void ngx_coord_near_taint(ngx_coord_near_worker_t *worker, ngx_str_t *key);

/* the event of a worker: those who wait for what has been answered hear it */
void ngx_coord_near_tell(ngx_event_t *ev);

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


/* 1 if the worker with this word is there, and may keep a value */

static ngx_inline ngx_uint_t
ngx_coord_near_stands(ngx_coord_store_t *store, ngx_atomic_uint_t epoch)
{
    return epoch != 0
           && store->counts != NULL
           && store->counts->epochs[ngx_coord_near_slot(epoch)] == epoch;
}


/*
 * 1 if it hears of changes: it stands, thus has not lost what tells it of them,
 * and has heard all of them until some seconds ago.
 */

static ngx_inline ngx_uint_t
ngx_coord_near_trusted(ngx_coord_store_t *store, ngx_atomic_uint_t epoch)
{
    ngx_msec_t  when;

    if (epoch == NGX_COORD_NEAR_ALWAYS) {
        return 1;
    }

    if (!ngx_coord_near_stands(store, epoch)) {
        return 0;
    }

    /* this worker may not know yet how late it is for that one */

    when = store->counts->heard[ngx_coord_near_slot(epoch)];

    return (ngx_msec_int_t) (ngx_current_msec - when) < NGX_COORD_NEAR_BELIEF;
}


#endif /* _NGX_COORD_NEAR_WORKER_H_INCLUDED_ */
