
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_limit_req: what a request asks for.  Its answers are read in
 * ngx_http_coord_limit_req.c.
 */


#include "ngx_http_coord_limit_req.h"
#include "ngx_coord_deny.h"
#include "ngx_coord_prefetch.h"


static ngx_int_t ngx_http_coord_limit_req_ask_all(ngx_http_request_t *r,
    ngx_http_coord_limit_req_state_t *state, ngx_array_t *limits);
static ngx_int_t ngx_http_coord_limit_req_ask(ngx_http_request_t *r,
    ngx_http_coord_limit_req_state_t *state,
    ngx_http_coord_limit_req_limit_t *limit);
static ngx_int_t ngx_http_coord_limit_req_settled(ngx_http_request_t *r,
    ngx_http_coord_limit_req_state_t *state,
    ngx_http_coord_limit_req_item_t *item, ngx_str_t *key, ngx_int_t rc);
static ngx_uint_t ngx_http_coord_limit_req_knows(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx, ngx_coord_zone_t *zone);
static ngx_int_t ngx_http_coord_limit_req_known(ngx_http_request_t *r,
    ngx_http_coord_limit_req_item_t *item, ngx_str_t *key, ngx_uint_t burst);
static ngx_int_t ngx_http_coord_limit_req_add(ngx_http_request_t *r,
    ngx_http_coord_limit_req_state_t *state,
    ngx_http_coord_limit_req_item_t *item, ngx_str_t *key, ngx_uint_t burst);
static ngx_int_t ngx_http_coord_limit_req_peek(ngx_http_request_t *r,
    ngx_http_coord_limit_req_state_t *state,
    ngx_http_coord_limit_req_item_t *item, ngx_str_t *key);
static void ngx_http_coord_limit_req_rate(
    ngx_http_coord_limit_req_item_t *item, ngx_coord_rate_t *rate);
static ngx_int_t ngx_http_coord_limit_req_quota(ngx_http_request_t *r,
    ngx_http_coord_limit_req_limit_t *limit, ngx_coord_quota_t *quota,
    ngx_uint_t *burst);
static ngx_int_t ngx_http_coord_limit_req_before(ngx_http_request_t *r,
    ngx_http_coord_limit_req_limit_t *limit, ngx_uint_t *n);
static ngx_uint_t ngx_http_coord_limit_req_capacity(ngx_coord_rate_t *rate,
    ngx_http_coord_limit_req_zone_t *lrz);


ngx_int_t
ngx_http_coord_limit_req_begin(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx)
{
    size_t                             size;
    ngx_http_coord_limit_req_conf_t   *lrcf;
    ngx_http_coord_limit_req_state_t  *state;

    lrcf = ngx_http_get_module_loc_conf(r, ngx_http_coord_limit_req_module);

    size = sizeof(ngx_http_coord_limit_req_item_t);

    state = ngx_http_coord_limiter_create(r, ctx, &lrcf->limiter,
                                      sizeof(ngx_http_coord_limit_req_state_t)
                                      + lrcf->limits.nelts * size);
    if (state == NULL) {
        return NGX_ERROR;
    }

    state->items.elts = state + 1;
    state->items.size = size;
    state->items.nalloc = lrcf->limits.nelts;
    state->items.pool = r->pool;

    return ngx_http_coord_limit_req_ask_all(r, state, &lrcf->limits);
}


static ngx_int_t
ngx_http_coord_limit_req_ask_all(ngx_http_request_t *r,
    ngx_http_coord_limit_req_state_t *state, ngx_array_t *limits)
{
    ngx_uint_t                         i;
    ngx_http_coord_limit_req_limit_t  *limit;

    limit = limits->elts;

    for (i = 0; i < limits->nelts; i++) {

        if (limit[i].stage != state->limiter.ctx->stage) {
            continue;
        }

        if (ngx_http_coord_limit_req_ask(r, state, &limit[i]) == NGX_ERROR) {
            return NGX_ERROR;
        }
    }

    return state->items.nelts ? NGX_OK : NGX_DECLINED;
}


/* NGX_DECLINED: this limit does not apply to the request */

static ngx_int_t
ngx_http_coord_limit_req_ask(ngx_http_request_t *r,
    ngx_http_coord_limit_req_state_t *state,
    ngx_http_coord_limit_req_limit_t *limit)
{
    ngx_int_t                         rc;
    ngx_str_t                         key;
    ngx_uint_t                        burst, cost;
    ngx_coord_quota_t                 quota;
    ngx_http_coord_limit_req_item_t  *item;
    ngx_http_coord_limit_req_zone_t  *zone;

    zone = limit->zone->data;

    if (ngx_http_coord_zone_key(r, limit->zone, zone->key, &key) != NGX_OK) {
        return NGX_ERROR;
    }

    if (key.len == 0) {
        return NGX_DECLINED;
    }

    rc = ngx_http_coord_limit_req_quota(r, limit, &quota, &burst);

    if (rc == NGX_ERROR || (rc == NGX_DECLINED && !zone->holds)) {
        return rc;
    }

    cost = 1;

    if (rc == NGX_OK) {
        rc = ngx_http_coord_limit_req_before(r, limit, &cost);

        if (rc == NGX_ERROR) {
            return NGX_ERROR;
        }
    }

    /* there is room for all limits, zeroed with the state */

    item = state->items.elts;
    item += state->items.nelts++;

    item->limit = limit;
    item->quota = quota;
    item->cost = cost;

    if (rc != NGX_OK) {
        return ngx_http_coord_limit_req_settled(r, state, item, &key, rc);
    }

    if (ngx_http_coord_limit_req_knows(r, state->limiter.ctx, limit->zone)) {
        rc = ngx_http_coord_limit_req_known(r, item, &key, burst);

        if (rc != NGX_DECLINED) {
            return rc;
        }
    }

    return ngx_http_coord_limit_req_add(r, state, item, &key, burst);
}


/*
 * What a rate of 0 (NGX_BUSY), an empty one (NGX_DECLINED) or one that is none
 * (NGX_ABORT) makes of a request, whose key may be held all the same.
 */

static ngx_int_t
ngx_http_coord_limit_req_settled(ngx_http_request_t *r,
    ngx_http_coord_limit_req_state_t *state,
    ngx_http_coord_limit_req_item_t *item, ngx_str_t *key, ngx_int_t rc)
{
    ngx_coord_op_t                    *op;
    ngx_coord_nsec_t                   left;
    ngx_http_coord_limit_req_zone_t   *zone;
    ngx_http_coord_limit_req_limit_t  *limit;

    limit = item->limit;
    zone = limit->zone->data;
    op = &item->op;

    item->known = 1;

    if (ngx_http_coord_known(r, op, limit->zone, key, limit->on_failure,
                             (rc == NGX_DECLINED) ? NGX_OK : NGX_BUSY)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (rc == NGX_ABORT) {
        op->rc = NGX_ERROR;
    }

    if (rc == NGX_ABORT || !zone->holds) {
        return NGX_OK;
    }

    left = ngx_coord_deny_held(op);

    if (left == 0) {
        item->peeks = 1;

        return ngx_http_coord_limit_req_peek(r, state, item, key);
    }

    op->rc = NGX_BUSY;
    op->source = NGX_COORD_SOURCE_HOLD;
    op->u.rate.retry = left;
    op->u.rate.reset = left;

    return NGX_OK;
}


/*
 * 1 if the node may know what becomes of the request.  A place of a block is
 * taken here where nothing can hold the request up or refuse it afterwards, and
 * otherwise when the store is asked, which gives it back then.
 */

static ngx_uint_t
ngx_http_coord_limit_req_knows(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx, ngx_coord_zone_t *zone)
{
    ngx_http_coord_loc_conf_t        *lcf;
    ngx_http_coord_limit_req_conf_t  *lrcf;
    ngx_http_coord_limit_req_zone_t  *lrz;

    lrz = zone->data;

    if (lrz->holds || lrz->prefetch == 0) {
        return ngx_coord_deny_any(zone);
    }

    lcf = ngx_http_get_module_loc_conf(r, ngx_http_coord_module);
    lrcf = ngx_http_get_module_loc_conf(r, ngx_http_coord_limit_req_module);

    return lrcf->limits.nelts == 1
           && lcf->features[ctx->stage] == (ngx_uint_t) 1 << ctx->slot
           && !ctx->missing
           && !ngx_coord_store_is_memory(zone->store);
}


/*
 * NGX_OK: the node knows of a hold, of a refusal, or has a place; NGX_DECLINED:
 * it does not, the store is to be asked.
 */

static ngx_int_t
ngx_http_coord_limit_req_known(ngx_http_request_t *r,
    ngx_http_coord_limit_req_item_t *item, ngx_str_t *key, ngx_uint_t burst)
{
    ngx_coord_op_t                    *op;
    ngx_coord_nsec_t                   left, most;
    ngx_http_coord_limit_req_zone_t   *zone;
    ngx_http_coord_limit_req_limit_t  *limit;

    limit = item->limit;
    zone = limit->zone->data;
    op = &item->op;

    if (ngx_http_coord_known(r, op, limit->zone, key, limit->on_failure,
                             NGX_BUSY)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    op->type = zone->op;
    op->u.rate.burst = burst;

    ngx_http_coord_limit_req_rate(item, &op->u.rate);

    if (!zone->holds) {

        if (zone->prefetch) {
            item->known = ngx_coord_prefetch_grants(op);
            item->held = item->known;

        } else {
            item->known = ngx_coord_deny_refuses(op);
        }

        return item->known ? NGX_OK : NGX_DECLINED;
    }

    left = ngx_coord_deny_held(op);

    if (left == 0) {
        return NGX_DECLINED;
    }

    item->known = 1;

    op->source = NGX_COORD_SOURCE_HOLD;

    (void) ngx_coord_window_begins(&op->u.rate, ngx_coord_store_now(op),
                                   &most);

    op->u.rate.retry = left;
    op->u.rate.reset = left;

    return NGX_OK;
}


static ngx_int_t
ngx_http_coord_limit_req_add(ngx_http_request_t *r,
    ngx_http_coord_limit_req_state_t *state,
    ngx_http_coord_limit_req_item_t *item, ngx_str_t *key, ngx_uint_t burst)
{
    ngx_coord_op_t                    *op;
    ngx_http_coord_limit_req_zone_t   *zone;
    ngx_http_coord_limit_req_limit_t  *limit;

    limit = item->limit;
    zone = limit->zone->data;

    op = ngx_http_coord_add(r, state->limiter.ctx, zone->op, limit->zone, key,
                            0, limit->on_failure, &item->ref);
    if (op == NULL) {
        return NGX_ERROR;
    }

    op->u.rate.burst = burst;

    ngx_http_coord_limit_req_rate(item, &op->u.rate);

    if (zone->op == &ngx_coord_op_log_take) {
        op->type = ngx_coord_op_log(&op->u.rate);

        if (ngx_coord_id(op->id) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    return zone->holds ? ngx_http_coord_limit_req_peek(r, state, item, key)
                       : NGX_OK;
}


/* asks whether the key is held */

static ngx_int_t
ngx_http_coord_limit_req_peek(ngx_http_request_t *r,
    ngx_http_coord_limit_req_state_t *state,
    ngx_http_coord_limit_req_item_t *item, ngx_str_t *key)
{
    return ngx_http_coord_add(r, state->limiter.ctx, &ngx_coord_op_hold_peek,
                              item->limit->zone, key, 0,
                              item->limit->on_failure, &item->hold)
           ? NGX_OK : NGX_ERROR;
}


/* fills what is asked for, but for the burst, which stands */

static void
ngx_http_coord_limit_req_rate(ngx_http_coord_limit_req_item_t *item,
    ngx_coord_rate_t *rate)
{
    ngx_http_coord_limit_req_zone_t  *zone;

    zone = item->limit->zone->data;

    rate->cost = item->cost;
    rate->look = (item->limit->charge == NGX_HTTP_COORD_CHARGE_AFTER);
    rate->interval = item->quota.period
                     / (ngx_coord_nsec_t) item->quota.count;
    rate->limit = item->quota.count;
    rate->window = item->quota.period;
    rate->align = zone->align;
    rate->tz = zone->tz;

    /* one fits always */

    if (rate->cost > 1
        && rate->cost > ngx_http_coord_limit_req_capacity(rate, zone))
    {

        /* refused, and what is left to it is told as it is */

        item->over = 1;
        rate->cost = 1;
        rate->look = 1;
    }
}


/*
 * Evaluates rate and burst.  NGX_DECLINED: an empty rate, no limit; NGX_BUSY:
 * a rate of 0, nobody is admitted; NGX_ABORT: logged, not a rate, or a burst.
 */

static ngx_int_t
ngx_http_coord_limit_req_quota(ngx_http_request_t *r,
    ngx_http_coord_limit_req_limit_t *limit, ngx_coord_quota_t *quota,
    ngx_uint_t *burst)
{
    ngx_str_t                         value;
    ngx_http_coord_limit_req_zone_t  *zone;

    zone = limit->zone->data;

    *quota = zone->quota;
    *burst = limit->burst;

    if (zone->rate) {
        if (ngx_http_complex_value(r, zone->rate, &value) != NGX_OK) {
            return NGX_ERROR;
        }

        if (value.len == 0) {
            return NGX_DECLINED;
        }

        if (ngx_coord_parse_rate(&value, quota) != NGX_OK
            || (zone->align
                && quota->period > ngx_coord_period_longest(zone->align)))
        {
            ngx_http_coord_limiter_invalid(r, "rate", &value, limit->zone);
            return NGX_ABORT;
        }
    }

    if (limit->burst_value) {
        if (ngx_http_complex_value(r, limit->burst_value, &value) != NGX_OK) {
            return NGX_ERROR;
        }

        *burst = 0;

        if (value.len && ngx_coord_parse_count(&value, 0, burst) != NGX_OK) {
            ngx_http_coord_limiter_invalid(r, "burst", &value, limit->zone);
            return NGX_ABORT;
        }
    }

    return quota->count ? NGX_OK : NGX_BUSY;
}


/* what a request takes, or looks for, before it goes on */

static ngx_int_t
ngx_http_coord_limit_req_before(ngx_http_request_t *r,
    ngx_http_coord_limit_req_limit_t *limit, ngx_uint_t *n)
{
    ngx_int_t               rc;
    ngx_http_coord_cost_t  *cost;

    if (limit->charge == NGX_HTTP_COORD_CHARGE_AFTER) {
        return NGX_OK;
    }

    cost = (limit->charge == NGX_HTTP_COORD_CHARGE_RESERVE) ? &limit->reserve
                                                            : &limit->cost;

    if (cost->value == NULL) {
        *n = cost->n;
        return NGX_OK;
    }

    rc = ngx_http_coord_limit_req_cost(r, cost, limit->zone, n);

    return (rc == NGX_DECLINED) ? NGX_OK : rc;
}


ngx_int_t
ngx_http_coord_limit_req_cost(ngx_http_request_t *r,
    ngx_http_coord_cost_t *cost, ngx_coord_zone_t *zone, ngx_uint_t *n)
{
    size_t     i;
    ngx_str_t  value;

    *n = cost->n;

    if (cost->value == NULL) {
        return NGX_OK;
    }

    *n = 1;

    if (ngx_http_complex_value(r, cost->value, &value) != NGX_OK) {
        return NGX_ERROR;
    }

    if (value.len == 0) {
        return NGX_DECLINED;
    }

    *n = 0;

    for (i = 0; i < value.len; i++) {

        if (value.data[i] < '0' || value.data[i] > '9') {
            *n = 1;
            ngx_http_coord_limiter_invalid(r, "cost", &value, zone);
            return NGX_ABORT;
        }

        *n = ngx_min(*n * 10 + (value.data[i] - '0'), NGX_COORD_RATE_LIMIT);
    }

    return NGX_OK;
}


static ngx_uint_t
ngx_http_coord_limit_req_capacity(ngx_coord_rate_t *rate,
    ngx_http_coord_limit_req_zone_t *lrz)
{
    if (lrz->op == &ngx_coord_op_log_take) {

        /* so many entries are made by one command */

        return ngx_min(rate->limit, NGX_COORD_LOG_COST);
    }

    return (lrz->op == &ngx_coord_op_bucket_take)
           ? (ngx_uint_t) ngx_coord_bucket_capacity(rate) : rate->limit;
}
