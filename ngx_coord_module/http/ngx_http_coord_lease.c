
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The leases of a request: asking, deciding, releasing.  How it waits for one
 * is in ngx_http_coord_lease_wait.c; one loop goes from state to state here.
 */


#include "ngx_http_coord_lease.h"
#include "ngx_coord_giveback.h"


static ngx_http_coord_leases_e ngx_http_coord_leases_asked(
    ngx_http_coord_leases_t *leases);
static ngx_http_coord_leases_e ngx_http_coord_leases_choose(
    ngx_http_coord_leases_t *leases);
static ngx_int_t ngx_http_coord_leases_go(ngx_http_coord_leases_t *leases,
    ngx_http_coord_leases_e state);
static void ngx_http_coord_leases_set(ngx_http_coord_leases_t *leases,
    ngx_http_coord_leases_e state);
static void ngx_http_coord_leases_answered(ngx_coord_batch_t *batch);
static ngx_int_t ngx_http_coord_leases_news(ngx_coord_waiter_t *waiter);
static void ngx_http_coord_leases_deadline(ngx_event_t *ev);


/* NULL: waits for an event, or has come to the end */

static const ngx_http_coord_leases_step_pt  ngx_http_coord_leases_steps[] = {
    ngx_http_coord_leases_asked,
    ngx_http_coord_leases_choose,
    ngx_http_coord_leases_line,
    ngx_http_coord_leases_turn,
    NULL,
    ngx_http_coord_leases_turn_answered,
    NULL,
    ngx_http_coord_leases_rest,
    NULL,
    ngx_http_coord_leases_rest_answered,
    NULL,
    NULL
};


ngx_int_t
ngx_http_coord_leases_init(ngx_http_request_t *r, ngx_http_coord_ctx_t *ctx,
    ngx_http_coord_leases_t *leases, ngx_uint_t n)
{
    leases->ctx = ctx;

    /* the events that a wait is for */

    leases->answered = ngx_http_coord_leases_answered;
    leases->waiter.handler = ngx_http_coord_leases_news;
    leases->waiter.data = leases;

    ngx_coord_timer_init(&leases->deadline, ngx_http_coord_leases_deadline,
                         leases, r->connection->log);

    return ngx_array_init(&leases->items, r->pool, n,
                          sizeof(ngx_http_coord_lease_t));
}


ngx_int_t
ngx_http_coord_leases_add(ngx_http_request_t *r,
    ngx_http_coord_leases_t *leases, ngx_http_coord_lease_limit_t *limit,
    ngx_str_t *key, ngx_uint_t number)
{
    ngx_coord_op_t               *op;
    ngx_http_coord_ref_t          ref, token;
    ngx_http_coord_lease_t       *lease;
    ngx_http_coord_lease_zone_t  *zone;

    zone = limit->zone->data;

    ngx_memzero(&token, sizeof(ngx_http_coord_ref_t));

    if (leases->tokens) {
        op = ngx_http_coord_add(r, leases->ctx, &ngx_coord_op_lock_token,
                                limit->zone, key, 0, limit->on_failure,
                                &token);
        if (op == NULL) {
            return NGX_ERROR;
        }
    }

    lease = ngx_array_push(&leases->items);
    if (lease == NULL) {
        return NGX_ERROR;
    }

    ngx_memzero(lease, sizeof(ngx_http_coord_lease_t));

    op = ngx_http_coord_add(r, leases->ctx,
                            limit->wait ? &ngx_coord_op_lease_turn
                                        : &ngx_coord_op_lease_acquire,
                            limit->zone, key, 0, limit->on_failure, &ref);
    if (op == NULL) {
        return NGX_ERROR;
    }

    op->u.lease.limit = number;
    op->u.lease.lease = zone->lease;

    if (ngx_coord_lease_name(op) != NGX_OK) {
        return NGX_ERROR;
    }

    lease->leases = leases;
    lease->limit = limit;
    lease->number = number;
    lease->ref = ref;
    lease->token_ref = token;

    /* a request that has just ended frees its place before this one asks */

    ngx_coord_giveback_flush(limit->zone->store);

    return NGX_OK;
}


ngx_int_t
ngx_http_coord_leases_decide(ngx_http_coord_leases_t *leases)
{
    return ngx_http_coord_leases_go(leases, leases->state);
}


/*
 * Goes on from a state that waited for an event, to the next one that does;
 * what it returns is that of ngx_http_coord_leases_decide().
 */

static ngx_int_t
ngx_http_coord_leases_go(ngx_http_coord_leases_t *leases,
    ngx_http_coord_leases_e state)
{
    ngx_http_coord_leases_step_pt  step;

    if (leases->state != state) {
        ngx_http_coord_leases_set(leases, state);
    }

    for ( ;; ) {
        step = ngx_http_coord_leases_steps[leases->state];

        if (step == NULL) {
            break;
        }

        ngx_http_coord_leases_set(leases, step(leases));
    }

    switch (leases->state) {

    case NGX_HTTP_COORD_LEASES_SETTLED:
        return NGX_OK;

    case NGX_HTTP_COORD_LEASES_FAILED:
        return NGX_ERROR;

    default:
        return NGX_AGAIN;
    }
}


/* who comes to an end does not stand in line any more */

static void
ngx_http_coord_leases_set(ngx_http_coord_leases_t *leases,
    ngx_http_coord_leases_e state)
{
    ngx_coord_edge_check(ngx_http_coord_leases_edges, leases->state, state,
                         "leases");

    if (state == NGX_HTTP_COORD_LEASES_SETTLED
        || state == NGX_HTTP_COORD_LEASES_FAILED)
    {
        ngx_http_coord_leases_stop(leases);
    }

    leases->state = state;
}


static ngx_http_coord_leases_e
ngx_http_coord_leases_asked(ngx_http_coord_leases_t *leases)
{
    ngx_uint_t               i;
    ngx_coord_op_t          *op;
    ngx_http_coord_lease_t  *lease;

    lease = leases->items.elts;

    for (i = 0; i < leases->items.nelts; i++) {
        lease[i].op = *ngx_http_coord_op(leases->ctx, lease[i].ref);

        if (leases->tokens) {
            op = ngx_http_coord_op(leases->ctx, lease[i].token_ref);
            lease[i].token = op->u.lease.token;
        }

        if (ngx_http_coord_leases_take(leases, &lease[i]) != NGX_OK) {
            return NGX_HTTP_COORD_LEASES_FAILED;
        }
    }

    return NGX_HTTP_COORD_LEASES_CHOOSE;
}


static ngx_http_coord_leases_e
ngx_http_coord_leases_choose(ngx_http_coord_leases_t *leases)
{
    ngx_uint_t               i;
    ngx_coord_op_t          *op;
    ngx_http_coord_lease_t  *lease, *turn;

    turn = NULL;
    lease = leases->items.elts;

    for (i = 0; i < leases->items.nelts; i++) {
        op = &lease[i].op;

        if (op->rc == NGX_OK
            || (op->rc == NGX_ERROR
                && op->on_failure != NGX_COORD_FAILURE_CLOSED))
        {
            continue;
        }

        if (op->rc == NGX_BUSY && lease[i].limit->wait && !leases->nowait) {

            if (turn == NULL) {
                turn = &lease[i];
            }

            continue;
        }

        leases->refused = &lease[i];

        return NGX_HTTP_COORD_LEASES_SETTLED;
    }

    if (turn == NULL) {
        return NGX_HTTP_COORD_LEASES_SETTLED;
    }

    leases->turn = turn;

    return NGX_HTTP_COORD_LEASES_LINE;
}


void
ngx_http_coord_leases_release(ngx_http_coord_leases_t *leases)
{
    ngx_http_coord_leases_stop(leases);
    ngx_http_coord_leases_give(leases);

    leases->state = NGX_HTTP_COORD_LEASES_SETTLED;
}


const char *
ngx_http_coord_leases_reason(ngx_http_coord_leases_t *leases)
{
    if (leases->timedout) {
        return "waited too long";
    }

    return leases->full ? "queue is full" : NULL;
}


/* from a posted event */

static void
ngx_http_coord_leases_answered(ngx_coord_batch_t *batch)
{
    ngx_http_coord_ctx_t     *ctx;
    ngx_http_coord_leases_e   answered;
    ngx_http_coord_leases_t  *leases;

    leases = batch->data;
    ctx = leases->ctx;

    answered = (leases->state == NGX_HTTP_COORD_LEASES_TURN_ASKED)
               ? NGX_HTTP_COORD_LEASES_TURN_ANSWERED
               : NGX_HTTP_COORD_LEASES_REST_ANSWERED;

    if (ngx_http_coord_leases_go(leases, answered) != NGX_AGAIN) {
        ngx_http_coord_resume(ctx);
    }
}


static ngx_int_t
ngx_http_coord_leases_news(ngx_coord_waiter_t *waiter)
{
    ngx_http_coord_ctx_t     *ctx;
    ngx_http_coord_leases_t  *leases;

    leases = waiter->data;
    ctx = leases->ctx;

    if (leases->state != NGX_HTTP_COORD_LEASES_WAITING) {
        leases->again = 1;
        return NGX_OK;
    }

    if (ngx_http_coord_leases_go(leases, NGX_HTTP_COORD_LEASES_TURN)
        != NGX_AGAIN)
    {
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

    /* it may have been granted while the others were asked: too late */
    leases->turn->op.rc = NGX_BUSY;

    (void) ngx_http_coord_leases_go(leases, NGX_HTTP_COORD_LEASES_SETTLED);

    ngx_http_coord_resume(leases->ctx);
}
