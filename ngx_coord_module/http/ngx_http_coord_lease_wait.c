
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
#include "ngx_coord_giveback.h"
#include "ngx_coord_line.h"


/* queue=, by default */
#define NGX_HTTP_COORD_QUEUE       1000

/* without news; who waits in memory is not told by other workers */
#define NGX_HTTP_COORD_POLL        1000
#define NGX_HTTP_COORD_POLL_LOCAL  40


static ngx_http_coord_leases_e ngx_http_coord_leases_send(
    ngx_http_coord_leases_t *leases, ngx_http_coord_leases_e asked,
    ngx_http_coord_leases_e answered);
static ngx_coord_op_t *ngx_http_coord_leases_op(
    ngx_http_coord_leases_t *leases, const ngx_coord_op_type_t *type,
    ngx_http_coord_lease_t *lease);
static ngx_int_t ngx_http_coord_leases_read(ngx_http_coord_leases_t *leases);
static void ngx_http_coord_leases_entered(ngx_http_coord_leases_t *leases,
    ngx_coord_op_t *op);
static ngx_http_coord_leases_e ngx_http_coord_leases_turn_failed(
    ngx_http_coord_leases_t *leases);
static void ngx_http_coord_leases_leave(ngx_http_coord_leases_t *leases);
static void ngx_http_coord_leases_lost(void *data);


ngx_http_coord_leases_e
ngx_http_coord_leases_line(ngx_http_coord_leases_t *leases)
{
    ngx_uint_t               i;
    ngx_msec_t               poll;
    ngx_coord_op_t          *op;
    ngx_http_coord_lease_t  *turn, *lease;

    turn = leases->turn;
    op = &turn->op;

    ngx_http_coord_leases_give(leases);
    ngx_coord_giveback_flush(op->zone->store);

    lease = leases->items.elts;

    for (i = 0; i < leases->items.nelts; i++) {
        lease[i].rest = (&lease[i] != turn);
    }

    /* a place in line, in turn after turn, is that of the first arrival */

    if (!leases->delayed) {
        leases->delayed = 1;
        leases->since = ngx_coord_monotonic();

        ngx_coord_timer_start(&leases->deadline, turn->limit->wait);
    }

    /* what became of the last id may not be certain */

    leases->place = *op;
    leases->place.type = &ngx_coord_op_wait_enter;

    if (ngx_coord_lease_name(&leases->place) != NGX_OK) {
        return NGX_HTTP_COORD_LEASES_FAILED;
    }

    ngx_memcpy(op->id, leases->place.id, NGX_COORD_ID_LEN);

    poll = ngx_coord_store_is_memory(op->zone->store)
           ? NGX_HTTP_COORD_POLL_LOCAL : NGX_HTTP_COORD_POLL;

    if (ngx_coord_wait_add(&leases->waiter, op->zone, op->key, op->key_len,
                           poll)
        != NGX_OK)
    {
        return NGX_HTTP_COORD_LEASES_FAILED;
    }

    ngx_coord_metrics_gauge(op->zone, NGX_COORD_GAUGE_WAITERS, 1);

    return NGX_HTTP_COORD_LEASES_TURN;
}


ngx_http_coord_leases_e
ngx_http_coord_leases_turn(ngx_http_coord_leases_t *leases)
{
    ngx_coord_op_t          *op;
    ngx_http_coord_lease_t  *turn;

    turn = leases->turn;

    leases->again = 0;

    if (leases->clear) {
        leases->clear = 0;

        if (ngx_http_coord_leases_op(leases, &ngx_coord_op_wait_clear, turn)
            == NULL)
        {
            return NGX_HTTP_COORD_LEASES_FAILED;
        }
    }

    op = ngx_http_coord_leases_op(leases, &ngx_coord_op_wait_enter, turn);
    if (op == NULL) {
        return NGX_HTTP_COORD_LEASES_FAILED;
    }

    op->again = 1;
    op->u.lease.limit = turn->limit->queue ? turn->limit->queue
                                           : NGX_HTTP_COORD_QUEUE;
    op->u.lease.waited = ngx_coord_monotonic() - leases->since;

    if (leases->tokens
        && ngx_http_coord_leases_op(leases, &ngx_coord_op_lock_token, turn)
           == NULL)
    {
        return NGX_HTTP_COORD_LEASES_FAILED;
    }

    op = ngx_http_coord_leases_op(leases, &ngx_coord_op_lease_turn, turn);
    if (op == NULL) {
        return NGX_HTTP_COORD_LEASES_FAILED;
    }

    op->again = 1;

    return ngx_http_coord_leases_send(leases,
                                      NGX_HTTP_COORD_LEASES_TURN_ASKED,
                                      NGX_HTTP_COORD_LEASES_TURN_ANSWERED);
}


static ngx_http_coord_leases_e
ngx_http_coord_leases_send(ngx_http_coord_leases_t *leases,
    ngx_http_coord_leases_e asked, ngx_http_coord_leases_e answered)
{
    leases->batch->handler = leases->answered;
    leases->batch->data = leases;

    return ngx_coord_batch_send(leases->batch) == NGX_AGAIN ? asked : answered;
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

    op->u.lease.limit = lease->number;
    op->u.lease.lease = asked->u.lease.lease;
    op->on_failure = asked->on_failure;
    op->data = lease;

    ngx_memcpy(op->id, asked->id, NGX_COORD_ID_LEN);

    return op;
}


/* takes the answers of a batch and ends it; NGX_ERROR: no memory */

static ngx_int_t
ngx_http_coord_leases_read(ngx_http_coord_leases_t *leases)
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
            ngx_http_coord_leases_entered(leases, op);

        } else if (op->type == &ngx_coord_op_lock_token) {
            lease->token = op->u.lease.token;

        } else if (op->type != &ngx_coord_op_wait_clear) {
            lease->op = *op;

            if (ngx_http_coord_leases_take(leases, lease) != NGX_OK) {
                rc = NGX_ERROR;
            }
        }
    }

    ngx_coord_batch_done(batch);

    return rc;
}


static void
ngx_http_coord_leases_entered(ngx_http_coord_leases_t *leases,
    ngx_coord_op_t *op)
{
    leases->full = (op->rc == NGX_BUSY);

    if (op->rc == NGX_OK) {
        leases->places |= 1 << op->source;
    }
}


ngx_http_coord_leases_e
ngx_http_coord_leases_turn_answered(ngx_http_coord_leases_t *leases)
{
    ngx_coord_op_t  *op;

    if (ngx_http_coord_leases_read(leases) != NGX_OK) {
        return NGX_HTTP_COORD_LEASES_FAILED;
    }

    op = &leases->turn->op;

    /* an answer from Redis tells what became of the questions before it */

    if (op->doubt || op->source == NGX_COORD_SOURCE_REDIS) {
        leases->doubt = op->doubt;
    }

    if (op->rc == NGX_OK) {
        ngx_coord_journal_add(op, op->u.lease.lease);

        return NGX_HTTP_COORD_LEASES_REST;
    }

    if (op->rc == NGX_ERROR) {
        return ngx_http_coord_leases_turn_failed(leases);
    }

    if (ngx_coord_line_stuck(op, &leases->waiter)) {
        leases->clear = 1;

        return NGX_HTTP_COORD_LEASES_TURN;
    }

    if (leases->full) {
        leases->refused = leases->turn;

        return NGX_HTTP_COORD_LEASES_SETTLED;
    }

    return leases->again ? NGX_HTTP_COORD_LEASES_TURN
                         : NGX_HTTP_COORD_LEASES_WAITING;
}


static ngx_http_coord_leases_e
ngx_http_coord_leases_turn_failed(ngx_http_coord_leases_t *leases)
{
    if (leases->turn->op.on_failure == NGX_COORD_FAILURE_CLOSED) {
        leases->refused = leases->turn;
    }

    return NGX_HTTP_COORD_LEASES_SETTLED;
}


/* its turn has come; others are asked for again, store after store */

ngx_http_coord_leases_e
ngx_http_coord_leases_rest(ngx_http_coord_leases_t *leases)
{
    ngx_uint_t               i;
    ngx_coord_op_t          *op;
    ngx_http_coord_lease_t  *lease;

    ngx_http_coord_leases_leave(leases);

    lease = leases->items.elts;

    for (i = 0; i < leases->items.nelts; i++) {

        if (!lease[i].rest
            || (leases->batch
                && leases->batch->store != lease[i].op.zone->store))
        {
            continue;
        }

        op = ngx_http_coord_leases_op(leases, lease[i].op.type, &lease[i]);

        if (op == NULL || ngx_coord_lease_name(op) != NGX_OK) {
            return NGX_HTTP_COORD_LEASES_FAILED;
        }

        lease[i].rest = 0;
    }

    if (leases->batch == NULL) {
        return NGX_HTTP_COORD_LEASES_CHOOSE;
    }

    return ngx_http_coord_leases_send(leases,
                                      NGX_HTTP_COORD_LEASES_REST_ASKED,
                                      NGX_HTTP_COORD_LEASES_REST_ANSWERED);
}


ngx_http_coord_leases_e
ngx_http_coord_leases_rest_answered(ngx_http_coord_leases_t *leases)
{
    if (ngx_http_coord_leases_read(leases) != NGX_OK) {
        return NGX_HTTP_COORD_LEASES_FAILED;
    }

    return NGX_HTTP_COORD_LEASES_REST;
}


/* ends the wait for a turn, granted or not; those behind are told */

static void
ngx_http_coord_leases_leave(ngx_http_coord_leases_t *leases)
{
    ngx_uint_t       source;
    ngx_coord_op_t  *place;

    if (!leases->waiter.active) {
        return;
    }

    ngx_coord_wait_remove(&leases->waiter);
    ngx_coord_metrics_gauge(leases->turn->op.zone, NGX_COORD_GAUGE_WAITERS,
                            -1);

    place = &leases->place;

    if (leases->doubt) {
        leases->places &= ~(1 << NGX_COORD_SOURCE_REDIS);

        ngx_coord_giveback(place, NGX_COORD_GIVEBACK_ASKED);
        ngx_coord_giveback(&leases->turn->op, NGX_COORD_GIVEBACK_ASKED);
    }

    for (source = NGX_COORD_SOURCE_REDIS;
         source <= NGX_COORD_SOURCE_FALLBACK;
         source++)
    {
        if (leases->places & (1 << source)) {
            place->source = source;
            ngx_coord_giveback(place, NGX_COORD_GIVEBACK_GRANTED);
        }
    }

    if (leases->places == 0 && !leases->doubt) {
        ngx_coord_journal_remove(place);
    }

    leases->places = 0;
    leases->doubt = 0;
}


void
ngx_http_coord_leases_stop(ngx_http_coord_leases_t *leases)
{
    ngx_coord_timer_stop(&leases->deadline);

    if (leases->batch) {

        /* what is asked for with the id of the place is ours to give back */

        if (leases->state == NGX_HTTP_COORD_LEASES_TURN_ASKED) {
            leases->doubt = 1;
        }

        ngx_coord_batch_done(leases->batch);
        leases->batch = NULL;
    }

    ngx_http_coord_leases_leave(leases);
}


ngx_int_t
ngx_http_coord_leases_take(ngx_http_coord_leases_t *leases,
    ngx_http_coord_lease_t *lease)
{
    if (lease->op.rc != NGX_OK) {

        /* what Redis may have granted all the same is given back first */

        if (!lease->op.doubt) {
            ngx_coord_journal_remove(&lease->op);
        }

        return NGX_OK;
    }

    lease->held = ngx_coord_lease_hold(&lease->op, ngx_http_coord_leases_lost,
                                       lease);
    if (lease->held) {
        return NGX_OK;
    }

    lease->op.rc = NGX_ERROR;

    return NGX_ERROR;
}


static void
ngx_http_coord_leases_lost(void *data)
{
    ngx_http_coord_lease_t *lease = data;

    lease->leases->lost(lease);
}


void
ngx_http_coord_leases_give(ngx_http_coord_leases_t *leases)
{
    ngx_uint_t               i;
    ngx_http_coord_lease_t  *lease;

    lease = leases->items.elts;

    for (i = 0; i < leases->items.nelts; i++) {
        if (lease[i].held) {
            ngx_coord_lease_release(lease[i].held);
            lease[i].held = NULL;
        }
    }
}
