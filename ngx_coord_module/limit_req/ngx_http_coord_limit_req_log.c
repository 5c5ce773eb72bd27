
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_limit_req: what is done when it is known what became of a request.
 */


#include "ngx_http_coord_limit_req.h"
#include "ngx_coord_giveback.h"


/* for so long a store that does not answer is asked to take a charge */
#define NGX_HTTP_COORD_CHARGE_LIFE  (60 * NGX_COORD_NSEC_PER_SEC)


static void ngx_http_coord_limit_req_settle_all(ngx_http_request_t *r,
    ngx_http_coord_limit_req_state_t *state);
static ngx_uint_t ngx_http_coord_limit_req_body_due(
    ngx_http_coord_limit_req_state_t *state);
static void ngx_http_coord_limit_req_settle(ngx_http_request_t *r,
    ngx_http_coord_limit_req_item_t *item);
static void ngx_http_coord_limit_req_charged(
    ngx_http_coord_limit_req_item_t *item, ngx_uint_t n);


ngx_int_t
ngx_http_coord_limit_req_log(ngx_http_request_t *r)
{
    ngx_http_coord_ctx_t              *ctx;
    ngx_http_coord_limiter_t          *limiter;
    ngx_http_coord_limit_req_conf_t   *lrcf, *conf;
    ngx_http_coord_limit_req_state_t  *state;

    if (r != r->main) {
        return NGX_OK;
    }

    ctx = ngx_http_coord_get_ctx(r);
    state = ctx ? ctx->state[ngx_http_coord_limit_req_feature.slot] : NULL;

    /* where the request ended, and where it was decided */

    lrcf = ngx_http_get_module_loc_conf(r, ngx_http_coord_limit_req_module);

    ngx_http_coord_limit_req_holds(r, lrcf, state);

    limiter = (ngx_http_coord_limiter_t *) state;

    for ( /* void */ ; limiter; limiter = limiter->previous) {
        conf = (ngx_http_coord_limit_req_conf_t *) limiter->conf;

        if (conf->holds.elts != lrcf->holds.elts) {
            ngx_http_coord_limit_req_holds(r, conf, state);
            break;
        }
    }

    ngx_http_coord_limit_req_settle_all(r, state);

    return NGX_OK;
}


/* all that is due of a request, in each of its stages */

static void
ngx_http_coord_limit_req_settle_all(ngx_http_request_t *r,
    ngx_http_coord_limit_req_state_t *state)
{
    ngx_uint_t                        i;
    ngx_http_coord_body_shown_t       shown;
    ngx_http_coord_limit_req_item_t  *item;

    shown.shown = 0;

    if (ngx_http_coord_limit_req_body_due(state)
        && ngx_http_coord_body_show(r, &shown) != NGX_OK)
    {
        return;
    }

    for ( /* void */ ;
         state;
         state = (ngx_http_coord_limit_req_state_t *) state->limiter.previous)
    {
        item = state->items.elts;

        for (i = 0; i < state->items.nelts; i++) {
            if (item[i].due) {
                item[i].due = 0;
                ngx_http_coord_limit_req_settle(r, &item[i]);
            }
        }
    }

    ngx_http_coord_body_hide(r, &shown);
}


/* 1 if a cost that is due may be of the body */

static ngx_uint_t
ngx_http_coord_limit_req_body_due(ngx_http_coord_limit_req_state_t *state)
{
    ngx_uint_t                        i;
    ngx_http_coord_limit_req_item_t  *item;

    for ( /* void */ ;
         state;
         state = (ngx_http_coord_limit_req_state_t *) state->limiter.previous)
    {
        item = state->items.elts;

        for (i = 0; i < state->items.nelts; i++) {
            if (item[i].due && item[i].limit->cost_body) {
                return 1;
            }
        }
    }

    return 0;
}


/* charges what the request has cost, or what of it was not reserved */

static void
ngx_http_coord_limit_req_settle(ngx_http_request_t *r,
    ngx_http_coord_limit_req_item_t *item)
{
    ngx_int_t                          rc;
    ngx_uint_t                         n;
    ngx_coord_op_t                     op;
    ngx_http_coord_limit_req_limit_t  *limit;

    limit = item->limit;

    rc = ngx_http_coord_limit_req_cost(r, &limit->cost, limit->zone, &n);

    if (limit->charge == NGX_HTTP_COORD_CHARGE_AFTER) {

        if (rc != NGX_ERROR) {
            ngx_http_coord_limit_req_charged(item, n);
        }

        return;
    }

    /* what is not told in the end stands as it was reserved */

    if (rc != NGX_OK || n == item->cost) {
        return;
    }

    if (n > item->cost) {
        ngx_http_coord_limit_req_charged(item, n - item->cost);
        return;
    }

    op = item->op;
    op.u.rate.cost = item->cost - n;

    ngx_coord_op_undo(&op);
}


/* n places more, whether there are so many or not */

static void
ngx_http_coord_limit_req_charged(ngx_http_coord_limit_req_item_t *item,
    ngx_uint_t n)
{
    ngx_coord_op_t                    op;
    ngx_http_coord_limit_req_zone_t  *lrz;

    if (n == 0) {
        return;
    }

    op = item->op;

    op.u.rate.cost = n;
    op.u.rate.look = 0;
    op.u.rate.force = 1;
    op.u.rate.tries = 0;

    lrz = item->limit->zone->data;
    op.type = lrz->op;

    if (lrz->op == &ngx_coord_op_log_take) {
        op.u.rate.cost = ngx_min(n, NGX_COORD_LOG_COST);
        op.type = ngx_coord_op_log(&op.u.rate);

        if (ngx_coord_id(op.id) != NGX_OK) {
            return;
        }
    }

    ngx_coord_giveback_op(&op, NGX_HTTP_COORD_CHARGE_LIFE);
}
