
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Waiting in line for a lease.
 *
 * A request that may wait asks in turn: it is granted a lease if there is
 * room and nobody is ahead.  If it is refused it enters the line and asks
 * again, in one transaction, so that no news can be missed in between; then
 * it asks whenever there are news.  It holds nothing while it waits.
 */


#include "ngx_http_coord_lease.h"


/* queue=, by default */
#define NGX_HTTP_COORD_QUEUE       1000

/* without news; who waits in memory is not told by other workers */
#define NGX_HTTP_COORD_POLL        1000
#define NGX_HTTP_COORD_POLL_LOCAL  40

/* who is first, and does not take a free place for so long, is dead */
#define NGX_HTTP_COORD_HEAD_DEAD   (2 * NGX_COORD_NSEC_PER_SEC)


static ngx_int_t ngx_http_coord_leases_ask(ngx_http_coord_leases_t *leases);
static ngx_coord_op_t *ngx_http_coord_leases_op(
    ngx_http_coord_leases_t *leases, const ngx_coord_op_type_t *type,
    ngx_http_coord_lease_t *lease);
static void ngx_http_coord_leases_answered(ngx_coord_batch_t *batch);
static ngx_int_t ngx_http_coord_leases_result(
    ngx_http_coord_leases_t *leases);
static ngx_int_t ngx_http_coord_leases_turn_result(
    ngx_http_coord_leases_t *leases);
static ngx_int_t ngx_http_coord_leases_rest(ngx_http_coord_leases_t *leases);
static void ngx_http_coord_leases_head(ngx_http_coord_leases_t *leases);
static ngx_uint_t ngx_http_coord_leases_dead(ngx_http_coord_leases_t *leases,
    u_char *id);
static void ngx_http_coord_leases_leave(ngx_http_coord_leases_t *leases,
    u_char *id);
static ngx_int_t ngx_http_coord_leases_news(ngx_coord_waiter_t *waiter);
static void ngx_http_coord_leases_deadline(ngx_event_t *ev);


ngx_int_t
ngx_http_coord_leases_wait(ngx_http_coord_leases_t *leases,
    ngx_http_coord_lease_t *turn)
{
    ngx_uint_t               i;
    ngx_coord_op_t          *op;
    ngx_msec_t               poll;
    ngx_http_coord_lease_t  *lease;

    lease = leases->items.elts;

    for (i = 0; i < leases->items.nelts; i++) {
        if (lease[i].held) {
            ngx_coord_lease_release(lease[i].held);
            lease[i].held = NULL;
        }
    }

    ngx_coord_lease_flush();

    op = &turn->op;

    leases->turn = turn;
    leases->phase = NGX_HTTP_COORD_LEASES_TURN;
    leases->head_since = 0;

    /* a place in line, in turn after turn, is that of the first arrival */

    if (!leases->delayed) {
        leases->delayed = 1;
        leases->since = ngx_coord_monotonic();

        ngx_coord_timer_init(&leases->deadline,
                             ngx_http_coord_leases_deadline, leases,
                             leases->ctx->request->connection->log);
        ngx_coord_timer_start(&leases->deadline, turn->limit->wait);
    }

    poll = ngx_coord_store_is_memory(op->zone->store)
           ? NGX_HTTP_COORD_POLL_LOCAL : NGX_HTTP_COORD_POLL;

    leases->waiter.handler = ngx_http_coord_leases_news;
    leases->waiter.data = leases;

    if (ngx_coord_wait_add(&leases->waiter, op->zone, op->key, op->key_len,
                           poll)
        != NGX_OK)
    {
        ngx_http_coord_leases_stop(leases);
        return NGX_ERROR;
    }

    ngx_coord_metrics_gauge(op->zone, NGX_COORD_GAUGE_WAITERS, 1);

    return ngx_http_coord_leases_ask(leases);
}


/* NGX_AGAIN: an answer will come, or news; else as ..._result() */

static ngx_int_t
ngx_http_coord_leases_ask(ngx_http_coord_leases_t *leases)
{
    ngx_uint_t               i;
    ngx_coord_op_t          *op;
    ngx_http_coord_lease_t  *lease, *turn;

    turn = leases->turn;

    leases->again = 0;

    if (leases->phase == NGX_HTTP_COORD_LEASES_TURN) {
        op = ngx_http_coord_leases_op(leases, &ngx_coord_op_wait_enter, turn);
        if (op == NULL) {
            goto failed;
        }

        op->u.lease.limit = turn->limit->queue ? turn->limit->queue
                                               : NGX_HTTP_COORD_QUEUE;
        op->u.lease.waited = ngx_coord_monotonic() - leases->since;

        if (leases->tokens
            && ngx_http_coord_leases_op(leases, &ngx_coord_op_lock_token, turn)
               == NULL)
        {
            goto failed;
        }

        if (ngx_http_coord_leases_op(leases, &ngx_coord_op_lease_turn, turn)
            == NULL)
        {
            goto failed;
        }

    } else {
        lease = leases->items.elts;

        for (i = 0; i < leases->items.nelts; i++) {
            if (&lease[i] != turn
                && ngx_http_coord_leases_op(leases, lease[i].op.type,
                                            &lease[i])
                   == NULL)
            {
                goto failed;
            }
        }
    }

    leases->batch->handler = ngx_http_coord_leases_answered;
    leases->batch->data = leases;

    if (ngx_coord_batch_send(leases->batch) == NGX_AGAIN) {
        return NGX_AGAIN;
    }

    return ngx_http_coord_leases_result(leases);

failed:

    ngx_http_coord_leases_stop(leases);

    return NGX_ERROR;
}


/* adds an operation to the batch of a request that waits */

static ngx_coord_op_t *
ngx_http_coord_leases_op(ngx_http_coord_leases_t *leases,
    const ngx_coord_op_type_t *type, ngx_http_coord_lease_t *lease)
{
    ngx_coord_op_t  *op, *asked;

    asked = &lease->op;

    if (leases->batch == NULL) {
        leases->batch = ngx_coord_batch_create(asked->zone->store);

        if (leases->batch == NULL) {
            return NULL;
        }
    }

    op = ngx_coord_batch_add(leases->batch, type, asked->zone, asked->key,
                             asked->key_len);
    if (op == NULL) {
        return NULL;
    }

    op->u.lease.limit = asked->u.lease.limit;
    op->u.lease.lease = asked->u.lease.lease;
    op->on_failure = asked->on_failure;
    op->data = lease;

    ngx_memcpy(op->id, asked->id, NGX_COORD_ID_LEN);

    return op;
}


static void
ngx_http_coord_leases_answered(ngx_coord_batch_t *batch)
{
    ngx_http_coord_ctx_t     *ctx;
    ngx_http_coord_leases_t  *leases;

    leases = batch->data;
    ctx = leases->ctx;

    if (ngx_http_coord_leases_result(leases) != NGX_AGAIN) {
        ngx_http_coord_resume(ctx);
    }
}


/*
 * NGX_OK: settled; NGX_AGAIN: goes on waiting; NGX_ERROR: no memory, the
 * request goes on without its leases.
 */

static ngx_int_t
ngx_http_coord_leases_result(ngx_http_coord_leases_t *leases)
{
    ngx_int_t                rc;
    ngx_uint_t               i;
    ngx_coord_op_t          *op;
    ngx_coord_batch_t       *batch;
    ngx_http_coord_lease_t  *lease;

    batch = leases->batch;
    leases->batch = NULL;

    rc = NGX_OK;

    for (i = 0; i < batch->nops; i++) {
        op = &batch->ops[i];
        lease = op->data;

        if (op->type == &ngx_coord_op_wait_enter) {
            leases->full = (op->rc == NGX_BUSY);

            if (op->rc == NGX_OK) {
                leases->entered = 1;
                leases->source = op->source;
            }

        } else if (op->type == &ngx_coord_op_lock_token) {
            lease->token = op->u.lease.token;

        } else {
            lease->op = *op;

            if (ngx_http_coord_leases_take(leases, lease) != NGX_OK) {
                rc = NGX_ERROR;
            }
        }
    }

    ngx_coord_batch_done(batch);

    if (rc != NGX_OK) {
        ngx_http_coord_leases_stop(leases);
        return NGX_ERROR;
    }

    if (leases->phase == NGX_HTTP_COORD_LEASES_TURN) {
        return ngx_http_coord_leases_turn_result(leases);
    }

    return ngx_http_coord_leases_choose(leases);
}


static ngx_int_t
ngx_http_coord_leases_turn_result(ngx_http_coord_leases_t *leases)
{
    ngx_coord_op_t  *op;

    op = &leases->turn->op;

    if (op->rc == NGX_OK) {
        return ngx_http_coord_leases_rest(leases);
    }

    if (op->rc == NGX_ERROR) {

        if (op->on_failure == NGX_COORD_FAILURE_CLOSED) {
            leases->refused = leases->turn;
        }

        ngx_http_coord_leases_stop(leases);
        return NGX_OK;
    }

    if (leases->full) {
        leases->refused = leases->turn;

        ngx_http_coord_leases_stop(leases);
        return NGX_OK;
    }

    ngx_http_coord_leases_head(leases);

    if (leases->again) {
        return ngx_http_coord_leases_ask(leases);
    }

    return NGX_AGAIN;
}


/* its turn has come; other leases are asked for again */

static ngx_int_t
ngx_http_coord_leases_rest(ngx_http_coord_leases_t *leases)
{
    ngx_uint_t               i;
    ngx_http_coord_lease_t  *lease;

    ngx_coord_wait_remove(&leases->waiter);
    ngx_coord_metrics_gauge(leases->turn->op.zone, NGX_COORD_GAUGE_WAITERS,
                            -1);

    if (leases->entered) {
        leases->entered = 0;
        ngx_http_coord_leases_leave(leases, leases->turn->op.id);
    }

    if (leases->items.nelts == 1) {
        ngx_http_coord_leases_stop(leases);
        return NGX_OK;
    }

    lease = leases->items.elts;

    for (i = 0; i < leases->items.nelts; i++) {
        if (&lease[i] != leases->turn
            && ngx_coord_lease_id(lease[i].op.id) != NGX_OK)
        {
            ngx_http_coord_leases_stop(leases);
            return NGX_ERROR;
        }
    }

    leases->phase = NGX_HTTP_COORD_LEASES_REST;

    return ngx_http_coord_leases_ask(leases);
}


/*
 * There is room, but somebody else is first and does not take it: a process
 * that was killed while it waited.  Others of that process are then known to
 * be dead as well.  One that is only slow enters the line again.
 */

static void
ngx_http_coord_leases_head(ngx_http_coord_leases_t *leases)
{
    ngx_coord_op_t     *op;
    ngx_coord_nsec_t    now;
    ngx_coord_lease_t  *lease;

    op = &leases->turn->op;
    lease = &op->u.lease;

    if (lease->waiting == 0
        || lease->current >= lease->limit
        || ngx_memcmp(lease->head, op->id, NGX_COORD_ID_LEN) == 0)
    {
        leases->head_since = 0;
        return;
    }

    now = ngx_coord_monotonic();

    if (!ngx_http_coord_leases_dead(leases, lease->head)) {

        if (leases->head_since == 0
            || ngx_memcmp(lease->head, leases->head, NGX_COORD_ID_LEN) != 0)
        {
            leases->head_since = now;
            ngx_memcpy(leases->head, lease->head, NGX_COORD_ID_LEN);
            return;
        }

        if (now - leases->head_since < NGX_HTTP_COORD_HEAD_DEAD) {
            return;
        }

        ngx_memcpy(leases->dead[leases->ndead++ % NGX_HTTP_COORD_LEASES_DEAD],
                   lease->head, NGX_COORD_LEASE_OWNER);
    }

    leases->head_since = 0;

    ngx_log_error(NGX_LOG_NOTICE, ngx_cycle->log, 0,
                  "coord zone \"%V\": removing a waiter that is gone",
                  &op->zone->name);

    ngx_http_coord_leases_leave(leases, lease->head);
}


static ngx_uint_t
ngx_http_coord_leases_dead(ngx_http_coord_leases_t *leases, u_char *id)
{
    ngx_uint_t  i, n;

    n = ngx_min(leases->ndead, NGX_HTTP_COORD_LEASES_DEAD);

    for (i = 0; i < n; i++) {
        if (ngx_memcmp(leases->dead[i], id, NGX_COORD_LEASE_OWNER) == 0) {
            return 1;
        }
    }

    return 0;
}


/* takes an id out of the line; those behind are told, here too */

static void
ngx_http_coord_leases_leave(ngx_http_coord_leases_t *leases, u_char *id)
{
    ngx_coord_op_t     *op, *asked;
    ngx_coord_batch_t  *batch;

    asked = &leases->turn->op;

    batch = ngx_coord_batch_create(asked->zone->store);

    if (batch == NULL) {
        return;
    }

    op = ngx_coord_batch_add(batch, &ngx_coord_op_wait_leave, asked->zone,
                             asked->key, asked->key_len);
    if (op == NULL) {
        ngx_coord_batch_done(batch);
        return;
    }

    op->source = leases->source;
    ngx_memcpy(op->id, id, NGX_COORD_ID_LEN);

    (void) ngx_coord_batch_send(batch);

    if (leases->source != NGX_COORD_SOURCE_REDIS) {
        ngx_coord_wake(asked->zone, asked->key, asked->key_len);
    }
}


static ngx_int_t
ngx_http_coord_leases_news(ngx_coord_waiter_t *waiter)
{
    ngx_http_coord_ctx_t     *ctx;
    ngx_http_coord_leases_t  *leases;

    leases = waiter->data;
    ctx = leases->ctx;

    if (leases->batch) {
        leases->again = 1;
        return NGX_OK;
    }

    if (ngx_http_coord_leases_ask(leases) != NGX_AGAIN) {
        ngx_http_coord_resume(ctx);
    }

    return NGX_OK;
}


static void
ngx_http_coord_leases_deadline(ngx_event_t *ev)
{
    ngx_http_coord_leases_t *leases = ngx_coord_timer_data(ev);

    leases->timedout = 1;
    leases->refused = leases->turn;

    ngx_http_coord_leases_stop(leases);

    ngx_http_coord_resume(leases->ctx);
}


void
ngx_http_coord_leases_stop(ngx_http_coord_leases_t *leases)
{
    ngx_coord_timer_stop(&leases->deadline);

    if (leases->delayed && leases->phase != NGX_HTTP_COORD_LEASES_SETTLED) {
        leases->waited = ngx_coord_monotonic() - leases->since;
    }

    leases->phase = NGX_HTTP_COORD_LEASES_SETTLED;

    if (leases->batch) {
        ngx_coord_batch_done(leases->batch);
        leases->batch = NULL;
    }

    if (leases->waiter.active) {
        ngx_coord_wait_remove(&leases->waiter);
        ngx_coord_metrics_gauge(leases->turn->op.zone,
                                NGX_COORD_GAUGE_WAITERS, -1);
    }

    if (leases->entered) {
        leases->entered = 0;
        ngx_http_coord_leases_leave(leases, leases->turn->op.id);
    }
}
