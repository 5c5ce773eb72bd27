
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The Redis store: what becomes of the replies to the parts of a batch.
 */


#include "ngx_coord_store_redis.h"
#include "ngx_coord_op_script.h"
#include "ngx_coord_outage.h"


static void ngx_coord_part_late(ngx_coord_part_t *part, ngx_uint_t sent);
static void ngx_coord_part_done(ngx_coord_part_t *part, ngx_int_t rc,
    ngx_coord_resp_value_t *reply);
static void ngx_coord_part_answered(ngx_coord_part_t *part,
    ngx_coord_resp_value_t *reply);
static void ngx_coord_part_failed(ngx_coord_part_t *part);
static void ngx_coord_part_ended(ngx_coord_batch_t *batch);
static ngx_uint_t ngx_coord_part_again(ngx_coord_batch_t *batch);
static ngx_int_t ngx_coord_part_decode(ngx_coord_op_t *op,
    ngx_coord_nsec_t now, ngx_coord_resp_value_t **reply, ngx_uint_t *left);
static void ngx_coord_part_log(ngx_coord_op_t *op,
    ngx_coord_resp_value_t *error);


void
ngx_coord_part_expired(ngx_coord_redis_call_t *call)
{
    ngx_coord_part_t  *part;

    for (part = call->data; part; part = part->next) {
        ngx_coord_part_late(part, call->sent);
    }
}


static void
ngx_coord_part_late(ngx_coord_part_t *part, ngx_uint_t sent)
{
    ngx_uint_t          i;
    ngx_coord_op_t     *op;
    ngx_coord_batch_t  *batch;

    batch = part->batch;

    part->late = 1;
    batch->waits--;

    if (batch->state != NGX_COORD_BATCH_IN_FLIGHT) {
        return;
    }

    for (i = 0; i < batch->nops; i++) {
        op = &batch->ops[i];

        if (op->sent && op->part == part->index) {
            op->gone = sent;
            ngx_coord_op_fail(batch, op, NGX_COORD_FAIL_TIMEOUT);
        }
    }

    ngx_coord_part_ended(batch);
}


void
ngx_coord_part_handler(ngx_coord_redis_call_t *call, ngx_int_t rc,
    ngx_coord_resp_value_t *reply)
{
    ngx_uint_t         sent;
    ngx_coord_fail_e   failure;
    ngx_coord_part_t  *part, *next;

    /* with its part the call may be gone */

    failure = call->failure;
    sent = call->sent;

    for (part = call->data; part; part = next) {
        next = part->next;

        part->call.failure = failure;
        part->call.sent = sent;

        ngx_coord_part_done(part, rc, reply);
    }
}


static void
ngx_coord_part_done(ngx_coord_part_t *part, ngx_int_t rc,
    ngx_coord_resp_value_t *reply)
{
    ngx_coord_batch_t  *batch;

    batch = part->batch;

    if (part->writes) {
        part->writes = 0;
        ngx_queue_remove(&part->write);
    }

    if (rc == NGX_OK) {
        ngx_coord_part_answered(part, reply);

    } else {
        ngx_coord_part_failed(part);
    }

    batch->held--;

    if (!part->late) {
        batch->waits--;
    }

    ngx_coord_part_ended(batch);
}


static void
ngx_coord_part_answered(ngx_coord_part_t *part, ngx_coord_resp_value_t *reply)
{
    ngx_int_t           answer;
    ngx_uint_t          i, left, awaited;
    ngx_coord_op_t     *op, copy;
    ngx_coord_batch_t  *batch;

    batch = part->batch;

    /* nobody waits for what has expired or was given up */

    awaited = (batch->state == NGX_COORD_BATCH_IN_FLIGHT && !part->late);

    left = part->call.ncommands;

    for (i = 0; i < batch->nops; i++) {
        op = &batch->ops[i];

        if (!op->sent || op->part != part->index) {
            continue;
        }

        op->sent = 0;

        copy = *op;
        copy.type = op->asked;
        copy.source = NGX_COORD_SOURCE_REDIS;
        copy.failure = NGX_COORD_FAIL_NONE;

        answer = ngx_coord_part_decode(&copy, part->call.now, &reply, &left);

        if (!awaited) {

            if (answer == NGX_OK) {
                ngx_coord_batch_answered(batch, &copy);

            } else if (batch->state == NGX_COORD_BATCH_CANCELLED) {
                ngx_coord_op_lost(op, copy.failure);
            }

            if (copy.record.data != op->record.data) {
                ngx_coord_op_free_record(&copy);
            }

            continue;
        }

        if (answer != NGX_OK) {
            ngx_coord_op_fail(batch, op, copy.failure);
            continue;
        }

        *op = copy;

        if (op->rc == NGX_AGAIN) {
            op->sent = 1;
            op->gone = 0;
            op->begun = 1;
        }
    }
}


static void
ngx_coord_part_failed(ngx_coord_part_t *part)
{
    ngx_uint_t          i;
    ngx_coord_op_t     *op;
    ngx_coord_fail_e    failure;
    ngx_coord_batch_t  *batch;

    batch = part->batch;
    failure = part->call.failure;

    for (i = 0; i < batch->nops; i++) {
        op = &batch->ops[i];

        if (!op->sent || op->part != part->index) {
            continue;
        }

        op->sent = 0;

        /*
         * It was refused by one server, and has not left for another one; or
         * not executed.
         */

        op->gone = part->call.sent && !part->call.refused;

        if (batch->state == NGX_COORD_BATCH_CANCELLED) {

            /* what was given up after its deadline is in doubt since then */

            if (!op->doubt) {
                ngx_coord_op_lost(op, failure);
            }

        } else if (part->late) {

            /* it has ended with the deadline */

            continue;

        } else if (ngx_coord_store_redis(batch->store)->client) {
            ngx_coord_op_fail(batch, op, failure);

        } else {

            /* the worker exits: nothing may be taken for nobody */

            op->rc = NGX_ERROR;
            op->failure = failure;
        }
    }
}


/* one part less that is waited for, or that the client holds */

static void
ngx_coord_part_ended(ngx_coord_batch_t *batch)
{
    if (batch->waits) {
        return;
    }

    if (batch->state == NGX_COORD_BATCH_IN_FLIGHT) {

        if (ngx_coord_part_again(batch)) {
            ngx_coord_batch_again(batch);
            return;
        }

        ngx_coord_outage_count(batch);
    }

    if (batch->held == 0) {
        ngx_coord_batch_released(batch);
        return;
    }

    /* some replies are still to come */

    ngx_coord_batch_expired(batch);
}


/*
 * 1 if an operation is to be asked once more.  Beside a part whose time is over
 * there is no time for that.
 */

static ngx_uint_t
ngx_coord_part_again(ngx_coord_batch_t *batch)
{
    ngx_uint_t       i, again;
    ngx_coord_op_t  *op;

    again = 0;

    for (i = 0; i < batch->nops; i++) {
        op = &batch->ops[i];

        if (!op->sent || op->rc != NGX_AGAIN) {
            continue;
        }

        if (batch->held == 0) {
            again = 1;
            continue;
        }

        op->sent = 0;
        ngx_coord_op_fail(batch, op, NGX_COORD_FAIL_TIMEOUT);
    }

    return again;
}


/*
 * Takes the replies of one operation off the transaction's.  NGX_ERROR: no
 * answer, op->failure is set; the replies of the next one still follow.
 */

static ngx_int_t
ngx_coord_part_decode(ngx_coord_op_t *op, ngx_coord_nsec_t now,
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
            ngx_coord_part_log(op, error);
        }

        return NGX_ERROR;
    }

    op->rc = ngx_coord_op_fits(op, values)
             ? op->type->parse(op, values, now) : NGX_ERROR;

    if (op->rc == NGX_ERROR) {
        ngx_coord_part_log(op, NULL);

        op->failure = NGX_COORD_FAIL_PROTOCOL;
        return NGX_ERROR;
    }

    return NGX_OK;
}


/* once a second: a client may come back to such a key at will */

static void
ngx_coord_part_log(ngx_coord_op_t *op, ngx_coord_resp_value_t *error)
{
    u_char                    buf[NGX_COORD_LOG_TEXT];
    ngx_str_t                 key, text;
    ngx_uint_t                n;
    ngx_coord_store_t        *store;
    ngx_coord_store_redis_t  *redis;

    store = op->zone->store;
    redis = ngx_coord_store_redis(store);

    n = ngx_coord_log_due(&redis->keyless, NGX_COORD_LOG_INTERVAL);

    if (n == 0) {
        return;
    }

    ngx_str_set(&text, "not the reply of a script");

    if (error) {
        text = ngx_coord_redis_error_text(&redis->conf, buf, &error->str);
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
