
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The leases of a request: asking, deciding, releasing.  How it waits for one
 * is in ngx_http_coord_lease_wait.c.
 */


#include "ngx_http_coord_lease.h"


static void ngx_http_coord_leases_lost(void *data);


ngx_int_t
ngx_http_coord_leases_init(ngx_http_request_t *r, ngx_http_coord_ctx_t *ctx,
    ngx_http_coord_leases_t *leases, ngx_uint_t n)
{
    leases->ctx = ctx;

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

    op = ngx_http_coord_add(r, leases->ctx,
                            limit->wait ? &ngx_coord_op_lease_turn
                                        : &ngx_coord_op_lease_acquire,
                            limit->zone, key, 0, limit->on_failure, &ref);
    if (op == NULL) {
        return NGX_ERROR;
    }

    op->u.lease.limit = number;
    op->u.lease.lease = zone->lease;

    if (ngx_coord_lease_id(op->id) != NGX_OK) {
        return NGX_ERROR;
    }

    lease = ngx_array_push(&leases->items);
    if (lease == NULL) {
        return NGX_ERROR;
    }

    ngx_memzero(lease, sizeof(ngx_http_coord_lease_t));

    lease->leases = leases;
    lease->limit = limit;
    lease->ref = ref;
    lease->token_ref = token;

    /* a request that has just ended frees its place before this one asks */

    ngx_coord_lease_flush();

    return NGX_OK;
}


ngx_int_t
ngx_http_coord_leases_decide(ngx_http_coord_leases_t *leases)
{
    ngx_uint_t               i;
    ngx_coord_op_t          *op;
    ngx_http_coord_lease_t  *lease;

    if (leases->phase == NGX_HTTP_COORD_LEASES_SETTLED) {
        return NGX_OK;
    }

    lease = leases->items.elts;

    for (i = 0; i < leases->items.nelts; i++) {
        lease[i].op = *ngx_http_coord_op(leases->ctx, lease[i].ref);

        if (leases->tokens) {
            op = ngx_http_coord_op(leases->ctx, lease[i].token_ref);
            lease[i].token = op->u.lease.token;
        }

        if (ngx_http_coord_leases_take(leases, &lease[i]) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    return ngx_http_coord_leases_choose(leases);
}


ngx_int_t
ngx_http_coord_leases_take(ngx_http_coord_leases_t *leases,
    ngx_http_coord_lease_t *lease)
{
    /* one that waits goes on with its id, and finds what it was granted */

    if (lease->op.failure && lease->op.rc != NGX_BUSY) {
        ngx_coord_lease_forget(&lease->op);
    }

    if (lease->op.rc != NGX_OK) {
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


ngx_int_t
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
        break;
    }

    if (turn && leases->refused == NULL) {
        return ngx_http_coord_leases_wait(leases, turn);
    }

    ngx_http_coord_leases_stop(leases);

    return NGX_OK;
}


void
ngx_http_coord_leases_release(ngx_http_coord_leases_t *leases)
{
    ngx_uint_t               i;
    ngx_http_coord_lease_t  *lease;

    ngx_http_coord_leases_stop(leases);

    lease = leases->items.elts;

    for (i = 0; i < leases->items.nelts; i++) {
        if (lease[i].held) {
            ngx_coord_lease_release(lease[i].held);
            lease[i].held = NULL;
        }
    }
}


static void
ngx_http_coord_leases_lost(void *data)
{
    ngx_http_coord_lease_t *lease = data;

    lease->leases->lost(lease);
}


const char *
ngx_http_coord_leases_reason(ngx_http_coord_leases_t *leases)
{
    if (leases->timedout) {
        return "waited too long";
    }

    return leases->full ? "queue is full" : NULL;
}
