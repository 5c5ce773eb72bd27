
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Private to the Redis store and to the directives that configure it: what
 * store->data is, and how a batch travels.  Features and operations do not
 * include this.
 */


#ifndef _NGX_COORD_STORE_REDIS_H_INCLUDED_
#define _NGX_COORD_STORE_REDIS_H_INCLUDED_


#include "ngx_coord_batch.h"
#include "ngx_coord_redis.h"


/* store->data of a store with a line "server" */
typedef struct {
    ngx_coord_redis_conf_t     conf;          /* filled by coord_store {} */

    /* of this worker, set in init_process: */
    ngx_coord_redis_t         *client;        /* NULL: not yet, no more */
    ngx_coord_log_limit_t      keyless;       /* keys without an answer */
    ngx_queue_t                writes;        /* of parts: bulk, in flight */
    ngx_queue_t                turn;          /* of parts: to be sent */
    ngx_event_t                turned;        /* posted: sends them */
} ngx_coord_store_redis_t;

#define ngx_coord_store_redis(store)                                          \
    ((ngx_coord_store_redis_t *) (store)->data)

/* for the directives of coord_store */
typedef ngx_coord_redis_conf_t  ngx_coord_store_conf_t;

#define ngx_coord_store_conf(store)  (&ngx_coord_store_redis(store)->conf)


/*
 * The operations of a batch that can be one transaction: those whose keys are
 * in one slot.  Its parts are sent in one turn, and all have one deadline.
 */

struct ngx_coord_part_s {
    ngx_coord_redis_call_t     call;
    ngx_coord_batch_t         *batch;
    ngx_uint_t                 index;         /* op->part of its operations */
    ngx_uint_t                 nops;          /* sent */
    ngx_queue_t                write;         /* in writes, if large */
    ngx_queue_t                turn;          /* in turn, until it is sent */
    ngx_coord_part_t          *next;          /* of those with the same call */
    ngx_coord_part_t          *last;          /* the first of them: the last */
    unsigned                   writes:1;      /* it is there */
    unsigned                   late:1;        /* its operations have ended */
};


/* all other commands are older than what anybody runs */
#define NGX_COORD_STORE_NEWEST  "ZRANGESTORE"


/* --- ngx_coord_store_part.c --- */

/* the action "send" of the store, see ngx_coord_store_actions_t */
ngx_int_t ngx_coord_parts_send(ngx_coord_batch_t *batch);

/* worker start, when there are no parts yet */
void ngx_coord_turn_init(ngx_coord_store_t *store);

/* nothing is sent any more: what is held ends without an answer */
void ngx_coord_turn_exit(ngx_coord_store_t *store);

/* sends all that is held */
void ngx_coord_turn_send(ngx_coord_store_t *store);


/* --- ngx_coord_store_reply.c --- */

/* expired() and handler() of the call of a part */
void ngx_coord_part_expired(ngx_coord_redis_call_t *call);
void ngx_coord_part_handler(ngx_coord_redis_call_t *call, ngx_int_t rc,
    ngx_coord_resp_value_t *reply);


#endif /* _NGX_COORD_STORE_REDIS_H_INCLUDED_ */
