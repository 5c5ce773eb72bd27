
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The Redis store: a turn of the event loop.  Parts of a single operation that
 * others may ask as well are held until its end; those that ask the same of
 * one key are one call, of the first of them, whose reply is read by each.
 */


#include "ngx_coord_store_redis.h"
#include "ngx_coord_op_script.h"


/* calls that are looked at for one that asks the same, the last found first */
#define NGX_COORD_TURN_LOOKS  16


static ngx_coord_part_t *ngx_coord_turn_find(ngx_coord_part_t *part);
static void ngx_coord_turn_handler(ngx_event_t *ev);


void
ngx_coord_turn_init(ngx_coord_store_t *store)
{
    ngx_coord_store_redis_t  *redis;

    redis = ngx_coord_store_redis(store);

    ngx_queue_init(&redis->turn);
    ngx_memzero(&redis->turned, sizeof(ngx_event_t));

    redis->turned.handler = ngx_coord_turn_handler;
    redis->turned.data = store;
    redis->turned.log = store->cycle->log;
}


void
ngx_coord_turn_exit(ngx_coord_store_t *store)
{
    ngx_queue_t              *q;
    ngx_coord_part_t         *part;
    ngx_coord_store_redis_t  *redis;

    redis = ngx_coord_store_redis(store);

    if (redis->turned.posted) {
        ngx_delete_posted_event(&redis->turned);
    }

    while (!ngx_queue_empty(&redis->turn)) {
        q = ngx_queue_head(&redis->turn);
        part = ngx_queue_data(q, ngx_coord_part_t, turn);

        ngx_queue_remove(q);

        part->call.failure = NGX_COORD_FAIL_CONNECT;
        ngx_coord_part_handler(&part->call, NGX_ERROR, NULL);
    }
}


ngx_int_t
ngx_coord_turn_hold(ngx_coord_part_t *part)
{
    ngx_coord_op_t           *op;
    ngx_coord_part_t         *first;
    ngx_coord_store_redis_t  *redis;

    redis = ngx_coord_store_redis(part->batch->store);

    /* where there is no answer to be had that is told at once */

    if (part->nops != 1 || !ngx_coord_redis_ready(redis->client)) {
        return NGX_DECLINED;
    }

    op = ngx_coord_part_op(part);

    if (op->type->same == NULL) {
        return NGX_DECLINED;
    }

    part->last = part;

    first = ngx_coord_turn_find(part);

    if (first) {
        ngx_coord_part_op(first->last)->with = op;

        first->last->next = part;
        first->last = part;

        first->call.more++;
        first->call.room += ngx_coord_op_along(op);

        op->nth = ++ngx_coord_part_op(first)->behind;

        return NGX_OK;
    }

    ngx_queue_insert_head(&redis->turn, &part->turn);

    if (!redis->turned.posted) {
        ngx_post_event(&redis->turned, &ngx_posted_events);
    }

    return NGX_OK;
}


/* who is found is looked at first by the next one */

static ngx_coord_part_t *
ngx_coord_turn_find(ngx_coord_part_t *part)
{
    ngx_uint_t                i;
    ngx_queue_t              *q;
    ngx_coord_op_t           *op, *other;
    ngx_coord_part_t         *first;
    ngx_coord_store_redis_t  *redis;

    op = ngx_coord_part_op(part);
    redis = ngx_coord_store_redis(part->batch->store);

    for (q = ngx_queue_head(&redis->turn), i = 0;
         q != ngx_queue_sentinel(&redis->turn) && i < NGX_COORD_TURN_LOOKS;
         q = ngx_queue_next(q), i++)
    {
        first = ngx_queue_data(q, ngx_coord_part_t, turn);
        other = ngx_coord_part_op(first);

        if (other->type == op->type
            && other->zone == op->zone
            && other->key_len == op->key_len
            && ngx_memcmp(other->key, op->key, op->key_len) == 0
            && other->behind + 1 < NGX_COORD_OP_TOGETHER
            && op->type->same(other, op))
        {
            ngx_queue_remove(q);
            ngx_queue_insert_head(&redis->turn, q);

            return first;
        }
    }

    return NULL;
}


static void
ngx_coord_turn_handler(ngx_event_t *ev)
{
    ngx_coord_turn_send(ev->data);
}


void
ngx_coord_turn_send(ngx_coord_store_t *store)
{
    ngx_queue_t              *q;
    ngx_coord_part_t         *part;
    ngx_coord_store_redis_t  *redis;

    redis = ngx_coord_store_redis(store);

    while (!ngx_queue_empty(&redis->turn)) {
        q = ngx_queue_last(&redis->turn);
        part = ngx_queue_data(q, ngx_coord_part_t, turn);

        ngx_queue_remove(q);

        if (ngx_coord_redis_send(redis->client, &part->call) != NGX_AGAIN) {
            ngx_coord_part_handler(&part->call, NGX_ERROR, NULL);
        }
    }
}


ngx_coord_op_t *
ngx_coord_part_op(ngx_coord_part_t *part)
{
    ngx_uint_t       i;
    ngx_coord_op_t  *op;

    op = part->batch->ops;

    for (i = 0; i + 1 < part->batch->nops; i++, op++) {

        if (op->sent && op->part == part->index) {
            break;
        }
    }

    return op;
}
