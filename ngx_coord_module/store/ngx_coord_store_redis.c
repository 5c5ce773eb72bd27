
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The Redis store: what is sent, and what becomes of the replies.  How the
 * single operations look as commands stands in ngx_coord_op_*.c.
 */


#include "ngx_coord_batch.h"
#include "ngx_coord_channel.h"
#include "ngx_coord_log.h"
#include "ngx_coord_op_script.h"
#include "ngx_coord_outage.h"


static ngx_int_t ngx_coord_store_redis_init(ngx_coord_store_t *store,
    ngx_cycle_t *cycle);
static void ngx_coord_store_redis_exit(ngx_coord_store_t *store);
static void ngx_coord_store_redis_travels(ngx_coord_redis_call_t *call,
    ngx_coord_op_t *op);
static ngx_int_t ngx_coord_store_redis_send(ngx_coord_batch_t *batch);
static void ngx_coord_store_redis_push(ngx_coord_store_t *store);
static ngx_uint_t ngx_coord_store_redis_add(ngx_coord_batch_t *batch,
    ngx_coord_op_t *op);
static ngx_uint_t ngx_coord_store_redis_follows(ngx_coord_op_t *op);
static ngx_uint_t ngx_coord_store_redis_writes(ngx_coord_batch_t *batch);
static size_t ngx_coord_store_redis_size(ngx_coord_redis_call_t *call);
static u_char *ngx_coord_store_redis_encode(ngx_coord_redis_call_t *call,
    u_char *p);
static void ngx_coord_store_redis_expired(ngx_coord_redis_call_t *call);
static void ngx_coord_store_redis_handler(ngx_coord_redis_call_t *call,
    ngx_int_t rc, ngx_coord_resp_value_t *reply);
static void ngx_coord_store_redis_failed(ngx_coord_batch_t *batch);
static ngx_int_t ngx_coord_store_redis_decode(ngx_coord_op_t *op,
    ngx_coord_nsec_t now, ngx_coord_resp_value_t **reply, ngx_uint_t *left);
static void ngx_coord_store_redis_log(ngx_coord_op_t *op,
    ngx_coord_resp_value_t *error);


const ngx_coord_store_actions_t  ngx_coord_store_redis_actions = {
    ngx_coord_store_redis_init,
    ngx_coord_store_redis_exit,
    ngx_coord_store_redis_send,
    ngx_coord_store_redis_push
};


/* all other commands are older than what anybody runs */

#define NGX_COORD_STORE_NEWEST  "ZRANGESTORE"

static const ngx_coord_redis_need_t  ngx_coord_store_redis_need = {
    602,
    "without " NGX_COORD_STORE_NEWEST " coord_limit_conn, coord_lock and the "
    "algorithms sliding_window and sliding_log go by on_failure"
};


static ngx_int_t
ngx_coord_store_redis_init(ngx_coord_store_t *store, ngx_cycle_t *cycle)
{
    store->redis.need = &ngx_coord_store_redis_need;

    store->client = ngx_coord_redis_create(&store->redis, store->stats,
                                           cycle);

    if (store->client == NULL) {
        return NGX_ERROR;
    }

    return ngx_coord_channel_init(store);
}


static void
ngx_coord_store_redis_exit(ngx_coord_store_t *store)
{
    ngx_coord_redis_t  *client;

    client = store->client;

    /* the calls that end now find no client and start nothing new */

    store->client = NULL;

    if (client) {
        ngx_coord_redis_destroy(client);
    }
}


/* who travels with others, and who where nobody waits behind it */

static void
ngx_coord_store_redis_travels(ngx_coord_redis_call_t *call,
    ngx_coord_op_t *op)
{
    if (!(op->type->flags & NGX_COORD_OP_JOINS)) {
        call->form = NGX_COORD_CALL_ALONE;
    }

    if ((op->type->flags & NGX_COORD_OP_BULK)
        || op->record.len > NGX_COORD_RECORD_BULK
        || ngx_coord_store_redis_follows(op))
    {
        call->lane = NGX_COORD_LANE_BULK;
    }
}


static ngx_int_t
ngx_coord_store_redis_send(ngx_coord_batch_t *batch)
{
    ngx_str_t                key;
    ngx_int_t                rc;
    ngx_uint_t               i;
    ngx_coord_op_t          *first;
    ngx_coord_redis_call_t  *call;

    first = NULL;

    call = &batch->call;

    ngx_memzero(call, sizeof(ngx_coord_redis_call_t));

    call->form = NGX_COORD_CALL_SHARED;
    call->lane = NGX_COORD_LANE_DECISIONS;

    if (batch->store->client) {
        batch->now = ngx_coord_redis_now(batch->store->client);
    }

    for (i = 0; i < batch->nops; i++) {
        if (ngx_coord_store_redis_add(batch, &batch->ops[i])
            && first == NULL)
        {
            first = &batch->ops[i];
        }
    }

    if (first == NULL) {
        ngx_coord_outage_count(batch);
        return NGX_OK;
    }

    call->failure = NGX_COORD_FAIL_CONNECT;

    if (batch->store->client == NULL
        || ngx_coord_op_prepare(batch, first, &key) != NGX_OK)
    {
        return NGX_ERROR;
    }

    call->size = ngx_coord_store_redis_size;
    call->encode = ngx_coord_store_redis_encode;
    call->expired = ngx_coord_store_redis_expired;
    call->handler = ngx_coord_store_redis_handler;
    call->data = batch;

    ngx_coord_batch_sent(batch);

    rc = ngx_coord_redis_send(batch->store->client, &key, call);

    if (rc != NGX_ERROR && ngx_coord_store_redis_writes(batch)) {
        ngx_queue_insert_tail(&batch->store->writes, &batch->write);
    }

    return rc;
}


static void
ngx_coord_store_redis_push(ngx_coord_store_t *store)
{
    if (store->client) {
        ngx_coord_redis_push(store->client);
    }
}


/* 1 if Redis is to be asked; otherwise the result of the operation stands */

static ngx_uint_t
ngx_coord_store_redis_add(ngx_coord_batch_t *batch, ngx_coord_op_t *op)
{
    ngx_coord_redis_call_t  *call;

    call = &batch->call;

    if (batch->state == NGX_COORD_BATCH_AGAIN && !op->sent) {
        return 0;
    }

    if (ngx_coord_op_local(op)) {
        ngx_coord_near_run(op);
        return 0;
    }

    op->rc = ngx_coord_op_known(op, batch->now);

    if (op->rc != NGX_AGAIN) {
        op->source = NGX_COORD_SOURCE_REDIS;
        return 0;
    }

    if (batch->store->client
        && !ngx_coord_redis_serves(batch->store->client)
        && ngx_coord_op_uses(op, NGX_COORD_STORE_NEWEST))
    {
        (void) ngx_atomic_fetch_add(
                   &batch->store->stats->failures[NGX_COORD_FAIL_UNAVAILABLE],
                   1);

        ngx_coord_op_fail(batch, op, NGX_COORD_FAIL_UNAVAILABLE);
        return 0;
    }

    /* who claims a key may have a large record to store soon */

    if (op->type->kind == NGX_COORD_KIND_CLAIM && batch->store->client) {
        ngx_coord_redis_open_bulk(batch->store->client);
    }

    op->sent = 1;
    call->ncommands += ngx_coord_op_ncommands(op);

    ngx_coord_store_redis_travels(call, op);

    return 1;
}


/*
 * 1 if a large record of the same key is on its way: who asks for the key, as
 * the client does that has just got the response, stays behind it.
 */

static ngx_uint_t
ngx_coord_store_redis_follows(ngx_coord_op_t *op)
{
    ngx_uint_t          i;
    ngx_queue_t        *q, *writes;
    ngx_coord_op_t     *other;
    ngx_coord_batch_t  *batch;

    writes = &op->zone->store->writes;

    for (q = ngx_queue_head(writes);
         q != ngx_queue_sentinel(writes);
         q = ngx_queue_next(q))
    {
        batch = ngx_queue_data(q, ngx_coord_batch_t, write);

        for (i = 0; i < batch->nops; i++) {
            other = &batch->ops[i];

            if (other->zone == op->zone
                && other->key_len == op->key_len
                && ngx_memcmp(other->key, op->key, op->key_len) == 0)
            {
                return 1;
            }
        }
    }

    return 0;
}


/* 1 if the batch carries a large record */

static ngx_uint_t
ngx_coord_store_redis_writes(ngx_coord_batch_t *batch)
{
    ngx_uint_t  i;

    if (batch->call.lane != NGX_COORD_LANE_BULK) {
        return 0;
    }

    for (i = 0; i < batch->nops; i++) {
        if (batch->ops[i].record.len > NGX_COORD_RECORD_BULK) {
            return 1;
        }
    }

    return 0;
}


static size_t
ngx_coord_store_redis_size(ngx_coord_redis_call_t *call)
{
    size_t              size;
    ngx_uint_t          i;
    ngx_coord_batch_t  *batch;

    batch = call->data;
    size = 0;

    for (i = 0; i < batch->nops; i++) {
        if (batch->ops[i].sent) {
            size += ngx_coord_op_bound(&batch->ops[i]);
        }
    }

    return size;
}


static u_char *
ngx_coord_store_redis_encode(ngx_coord_redis_call_t *call, u_char *p)
{
    ngx_uint_t          i;
    ngx_coord_batch_t  *batch;

    batch = call->data;

    /* one time for all operations and for reading the replies */

    batch->now = ngx_coord_redis_now(batch->store->client);

    for (i = 0; i < batch->nops; i++) {
        if (batch->ops[i].sent) {
            p = ngx_coord_op_encode(p, &batch->ops[i], batch->now);
        }
    }

    return p;
}


static void
ngx_coord_store_redis_expired(ngx_coord_redis_call_t *call)
{
    ngx_coord_batch_expired(call->data);
}


static void
ngx_coord_store_redis_handler(ngx_coord_redis_call_t *call, ngx_int_t rc,
    ngx_coord_resp_value_t *reply)
{
    ngx_int_t           answer;
    ngx_uint_t          i, left, again, awaited;
    ngx_coord_op_t     *op, copy;
    ngx_coord_batch_t  *batch;

    batch = call->data;

    if (ngx_coord_store_redis_writes(batch)) {
        ngx_queue_remove(&batch->write);
    }

    if (rc != NGX_OK) {
        ngx_coord_store_redis_failed(batch);
        return;
    }

    /* nobody waits for a batch that has expired or was given up */

    awaited = (batch->state == NGX_COORD_BATCH_IN_FLIGHT);

    left = call->ncommands;
    again = 0;

    for (i = 0; i < batch->nops; i++) {
        op = &batch->ops[i];

        if (!op->sent) {
            continue;
        }

        copy = *op;
        copy.source = NGX_COORD_SOURCE_REDIS;
        copy.failure = NGX_COORD_FAIL_NONE;

        answer = ngx_coord_store_redis_decode(&copy, batch->now, &reply,
                                              &left);

        if (!awaited) {

            if (answer == NGX_OK) {
                ngx_coord_batch_answered(batch, &copy);

            } else if (batch->state == NGX_COORD_BATCH_CANCELLED) {
                ngx_coord_op_lost(batch, op, copy.failure);
            }

            if (copy.record.data != op->record.data) {
                ngx_coord_op_free_record(&copy);
            }

            continue;
        }

        op->sent = 0;

        if (answer != NGX_OK) {
            ngx_coord_op_fail(batch, op, copy.failure);
            continue;
        }

        *op = copy;
        op->sent = (op->rc == NGX_AGAIN);
        again |= op->sent;
    }

    if (again) {
        ngx_coord_batch_again(batch);
        return;
    }

    if (awaited) {
        ngx_coord_outage_count(batch);
    }

    ngx_coord_batch_released(batch);
}


static void
ngx_coord_store_redis_failed(ngx_coord_batch_t *batch)
{
    ngx_uint_t       i;
    ngx_coord_op_t  *op;

    if (batch->state != NGX_COORD_BATCH_IN_FLIGHT
        && batch->state != NGX_COORD_BATCH_CANCELLED)
    {
        /* its operations have ended with the deadline */

        ngx_coord_batch_released(batch);
        return;
    }

    for (i = 0; i < batch->nops; i++) {
        op = &batch->ops[i];

        if (!op->sent) {
            continue;
        }

        if (batch->state == NGX_COORD_BATCH_CANCELLED) {
            ngx_coord_op_lost(batch, op, batch->call.failure);

        } else if (batch->store->client) {
            ngx_coord_op_fail(batch, op, batch->call.failure);

        } else {

            /* the worker exits: nothing may be taken for nobody */

            op->rc = NGX_ERROR;
            op->failure = batch->call.failure;
        }

        ngx_coord_outage_count(batch);
    }

    ngx_coord_batch_released(batch);
}


/*
 * Takes the replies of one operation off the transaction's.  NGX_ERROR: no
 * answer, op->failure is set; the replies of the next one still follow.
 */

static ngx_int_t
ngx_coord_store_redis_decode(ngx_coord_op_t *op, ngx_coord_nsec_t now,
    ngx_coord_resp_value_t **reply, ngx_uint_t *left)
{
    ngx_uint_t               i, n;
    ngx_coord_resp_value_t  *error;
    ngx_coord_resp_value_t  *values[NGX_COORD_OP_VALUES];

    n = ngx_coord_op_ncommands(op);

    if (n > *left || n > NGX_COORD_OP_VALUES) {
        *left = 0;
        op->failure = NGX_COORD_FAIL_PROTOCOL;
        return NGX_ERROR;
    }

    error = NULL;

    for (i = 0; i < n; i++) {
        values[i] = *reply;

        if (values[i]->type == NGX_COORD_RESP_ERROR && error == NULL) {
            error = values[i];
        }

        *reply += values[i]->next;
    }

    *left -= n;

    if (error) {
        op->failure = ngx_coord_redis_failure(error);

        /* the client has told of what is not about this key */

        if (op->failure == NGX_COORD_FAIL_ERROR) {
            ngx_coord_store_redis_log(op, error);
        }

        return NGX_ERROR;
    }

    op->rc = ngx_coord_op_parse(op, values, now);

    if (op->rc == NGX_ERROR) {
        ngx_coord_store_redis_log(op, NULL);

        op->failure = NGX_COORD_FAIL_PROTOCOL;
        return NGX_ERROR;
    }

    return NGX_OK;
}


/* once a second: a client may come back to such a key at will */

static void
ngx_coord_store_redis_log(ngx_coord_op_t *op, ngx_coord_resp_value_t *error)
{
    u_char              buf[NGX_COORD_LOG_TEXT];
    ngx_str_t           key, text;
    ngx_uint_t          n;
    ngx_coord_store_t  *store;

    store = op->zone->store;

    n = ngx_coord_log_due(&store->keyless, NGX_COORD_LOG_INTERVAL);

    if (n == 0) {
        return;
    }

    ngx_str_set(&text, "not the reply of a script");

    if (error) {
        text = ngx_coord_redis_error_text(&store->redis, buf, &error->str);
    }

    key.data = op->key;
    key.len = op->key_len;

    /* as it stands in Redis, where somebody else may have written it */

    ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0,
                  "coord store \"%V\": no answer for the key \"%V%V}\" "
                  "of zone \"%V\": %V (%ui times)",
                  &store->name, &op->zone->key_head, &key, &op->zone->name,
                  &text, n);
}
