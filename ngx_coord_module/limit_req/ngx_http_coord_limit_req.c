
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_limit_req: the request side of rate limits.  Directives are in
 * ngx_http_coord_limit_req_conf.c, fields and variables in ..._report.c.
 */


#include "ngx_http_coord.h"
#include "ngx_http_coord_conf.h"
#include "ngx_http_coord_limit_req.h"


static ngx_int_t ngx_http_coord_limit_req_begin(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx);
static ngx_int_t ngx_http_coord_limit_req_ask(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx, ngx_http_coord_limit_req_state_t *state,
    ngx_http_coord_limit_req_limit_t *limit);
static ngx_int_t ngx_http_coord_limit_req_quota(ngx_http_request_t *r,
    ngx_http_coord_limit_req_limit_t *limit, ngx_coord_quota_t *quota,
    ngx_uint_t *burst);
static ngx_int_t ngx_http_coord_limit_req_decide(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx);
static ngx_int_t ngx_http_coord_limit_req_refuse(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx, ngx_http_coord_limit_req_state_t *state,
    ngx_http_coord_limit_req_item_t *item);
static ngx_int_t ngx_http_coord_limit_req_pass(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx, ngx_http_coord_limit_req_state_t *state);
static ngx_int_t ngx_http_coord_limit_req_delay(ngx_http_request_t *r,
    ngx_http_coord_limit_req_state_t *state, ngx_msec_t delay,
    ngx_http_coord_limit_req_item_t *item);
static void ngx_http_coord_limit_req_delayed(ngx_event_t *ev);
static void ngx_http_coord_limit_req_give(
    ngx_http_coord_limit_req_state_t *state);
static void ngx_http_coord_limit_req_undo(ngx_http_coord_ctx_t *ctx,
    void *data);
static void ngx_http_coord_limit_req_end(ngx_http_coord_ctx_t *ctx,
    void *data);


ngx_http_coord_feature_t  ngx_http_coord_limit_req_feature = {

    { ngx_string("limit_req"),
      ngx_string("rl"),
      NGX_COORD_OUTCOMES_LIMIT
      | ngx_coord_outcome_bit(PASSED)
      | ngx_coord_outcome_bit(DELAYED_DRY_RUN),
      0,
      1 },

    {
        { 10,                              /* preaccess */
          ngx_http_coord_limit_req_begin,
          ngx_http_coord_limit_req_decide,
          ngx_http_coord_limit_req_undo },

        { 10,                              /* precontent: "after_auth" */
          ngx_http_coord_limit_req_begin,
          ngx_http_coord_limit_req_decide,
          ngx_http_coord_limit_req_undo }
    },

    ngx_http_coord_limit_req_end,
    ngx_http_coord_limit_req_vars,
    ngx_http_coord_limit_req_routes,
    0
};


static ngx_int_t
ngx_http_coord_limit_req_begin(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx)
{
    ngx_uint_t                         i, after_auth;
    ngx_http_coord_limit_req_conf_t   *lrcf;
    ngx_http_coord_limit_req_limit_t  *limits;
    ngx_http_coord_limit_req_state_t  *state;

    lrcf = ngx_http_get_module_loc_conf(r, ngx_http_coord_limit_req_module);

    state = ngx_pcalloc(r->pool, sizeof(ngx_http_coord_limit_req_state_t));
    if (state == NULL) {
        return NGX_ERROR;
    }

    if (ngx_array_init(&state->items, r->pool, lrcf->limits.nelts,
                       sizeof(ngx_http_coord_limit_req_item_t))
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    state->ctx = ctx;
    state->conf = lrcf;

    limits = lrcf->limits.elts;
    after_auth = (ctx->stage == NGX_HTTP_COORD_PRECONTENT);

    for (i = 0; i < lrcf->limits.nelts; i++) {

        if (limits[i].after_auth != after_auth) {
            continue;
        }

        if (ngx_http_coord_limit_req_ask(r, ctx, state, &limits[i])
            == NGX_ERROR)
        {
            return NGX_ERROR;
        }
    }

    if (state->items.nelts == 0) {
        return NGX_DECLINED;
    }

    state->previous = ctx->state[ctx->slot];
    ctx->state[ctx->slot] = state;

    return NGX_OK;
}


/* NGX_DECLINED: this limit does not apply to the request */

static ngx_int_t
ngx_http_coord_limit_req_ask(ngx_http_request_t *r, ngx_http_coord_ctx_t *ctx,
    ngx_http_coord_limit_req_state_t *state,
    ngx_http_coord_limit_req_limit_t *limit)
{
    ngx_str_t                         key;
    ngx_int_t                         rc;
    ngx_uint_t                        burst;
    ngx_coord_op_t                   *op;
    ngx_coord_quota_t                 quota;
    ngx_http_coord_ref_t              ref;
    ngx_http_coord_limit_req_item_t  *item;
    ngx_http_coord_limit_req_zone_t  *zone;

    zone = limit->zone->data;

    if (ngx_http_complex_value(r, zone->key, &key) != NGX_OK) {
        return NGX_ERROR;
    }

    if (key.len == 0) {
        return NGX_DECLINED;
    }

    rc = ngx_http_coord_limit_req_quota(r, limit, &quota, &burst);
    if (rc != NGX_OK) {
        return rc;
    }

    op = ngx_http_coord_add(r, ctx, zone->op, limit->zone, &key, 0,
                            limit->on_failure, &ref);
    if (op == NULL) {
        return NGX_ERROR;
    }

    op->u.rate.cost = 1;
    op->u.rate.burst = burst;
    op->u.rate.interval = quota.period / (ngx_coord_nsec_t) quota.count;
    op->u.rate.limit = quota.count;
    op->u.rate.window = quota.period;

    if (zone->op == &ngx_coord_op_log_take && ngx_coord_id(op->id) != NGX_OK) {
        return NGX_ERROR;
    }

    item = ngx_array_push(&state->items);
    if (item == NULL) {
        return NGX_ERROR;
    }

    item->limit = limit;
    item->ref = ref;
    item->quota = quota;
    item->held = 0;

    return NGX_OK;
}


/* evaluates rate and burst; what is invalid is logged, the limit not applied */

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

        if (ngx_coord_parse_rate(&value, quota) != NGX_OK) {
            ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                          "invalid rate \"%V\" in zone \"%V\", "
                          "the request is not limited by it",
                          &value, &limit->zone->name);
            return NGX_DECLINED;
        }
    }

    if (limit->burst_value) {
        if (ngx_http_complex_value(r, limit->burst_value, &value) != NGX_OK) {
            return NGX_ERROR;
        }

        if (ngx_coord_parse_count(&value, 0, burst) != NGX_OK) {
            ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                          "invalid burst \"%V\" in zone \"%V\", "
                          "the request is not limited by it",
                          &value, &limit->zone->name);
            return NGX_DECLINED;
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_coord_limit_req_decide(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx)
{
    ngx_uint_t                         i;
    ngx_coord_op_t                    *op;
    ngx_http_coord_limit_req_item_t   *item, *refused;
    ngx_http_coord_limit_req_state_t  *state;

    state = ctx->state[ctx->slot];

    if (state->delayed) {
        state->delayed = 0;
        return NGX_DECLINED;
    }

    refused = NULL;
    item = state->items.elts;

    for (i = 0; i < state->items.nelts; i++) {
        op = ngx_http_coord_op(ctx, item[i].ref);

        item[i].op = *op;
        item[i].held = (op->rc == NGX_OK);

        if (op->rc == NGX_ERROR
            && op->on_failure != NGX_COORD_FAILURE_CLOSED)
        {
            continue;
        }

        if (op->rc != NGX_OK && refused == NULL) {
            refused = &item[i];
        }
    }

    if (ngx_http_coord_limit_req_report(r, ctx, state) != NGX_OK) {
        ngx_http_coord_limit_req_give(state);
        return NGX_ERROR;
    }

    if (refused) {
        return ngx_http_coord_limit_req_refuse(r, ctx, state, refused);
    }

    return ngx_http_coord_limit_req_pass(r, ctx, state);
}


static ngx_int_t
ngx_http_coord_limit_req_refuse(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx, ngx_http_coord_limit_req_state_t *state,
    ngx_http_coord_limit_req_item_t *item)
{
    u_char                            buf[NGX_HTTP_COORD_LOG_TAIL];
    ngx_str_t                         tail;
    ngx_uint_t                        excess, dry_run;
    ngx_http_coord_problem_t          problem;
    ngx_http_coord_limit_req_conf_t  *lrcf;

    lrcf = state->conf;
    dry_run = lrcf->dry_run;
    excess = item->op.u.rate.excess;

    state->status = dry_run ? NGX_HTTP_COORD_LIMIT_REQ_REJECTED_DRY_RUN
                            : NGX_HTTP_COORD_LIMIT_REQ_REJECTED;

    ngx_http_coord_limit_req_give(state);
    ngx_http_coord_limit_req_count(state);

    if (lrcf->log_level <= r->connection->log->log_level) {
        tail = ngx_http_coord_log_tail(buf, &item->op,
                             &ngx_http_coord_limit_req_statuses[state->status]);

        ngx_log_error(lrcf->log_level, r->connection->log, 0,
                      "limiting requests%s, excess: %ui.%03ui "
                      "by zone \"%V\"%V",
                      dry_run ? ", dry run" : "", excess / 1000, excess % 1000,
                      &item->limit->zone->name, &tail);
    }

    if (dry_run) {
        return NGX_DECLINED;
    }

    if (item->op.rc == NGX_ERROR) {
        return ngx_http_coord_refuse_unavailable(r, ctx);
    }

    ngx_memzero(&problem, sizeof(ngx_http_coord_problem_t));

    problem.status = lrcf->status_code;
    problem.retry_after = ngx_max(state->reset, 1);
    problem.members = ngx_http_coord_limit_req_members(r, state);

    ngx_str_set(&problem.type,
                "https://iana.org/assignments/http-problem-types"
                "#quota-exceeded");
    ngx_str_set(&problem.title, "Request cannot be satisfied as assigned "
                                "quota has been exceeded");
    ngx_str_set(&problem.detail, "Too many requests; the Retry-After field "
                                 "tells when the next one is admitted.");

    return ngx_http_coord_refuse(r, ctx, &problem);
}


static ngx_int_t
ngx_http_coord_limit_req_pass(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx, ngx_http_coord_limit_req_state_t *state)
{
    ngx_uint_t                        i;
    ngx_msec_t                        delay, max;
    ngx_http_coord_limit_req_item_t  *item, *longest;

    state->status = NGX_HTTP_COORD_LIMIT_REQ_BYPASSED;

    max = 0;
    longest = NULL;
    item = state->items.elts;

    for (i = 0; i < state->items.nelts; i++) {

        if (!item[i].held) {
            continue;
        }

        state->status = NGX_HTTP_COORD_LIMIT_REQ_PASSED;

        delay = ngx_http_coord_limit_req_wait(&item[i]);

        if (delay > max) {
            max = delay;
            longest = &item[i];
        }
    }

    if (max == 0) {
        ngx_http_coord_limit_req_count(state);
        return NGX_DECLINED;
    }

    return ngx_http_coord_limit_req_delay(r, state, max, longest);
}


/* how long a granted request has to wait: excess above "delay", as limit_req */

ngx_msec_t
ngx_http_coord_limit_req_wait(ngx_http_coord_limit_req_item_t *item)
{
    ngx_uint_t                         excess;
    ngx_coord_rate_t                  *rate;
    ngx_http_coord_limit_req_limit_t  *limit;

    limit = item->limit;
    rate = &item->op.u.rate;
    excess = rate->excess;

    /* without a burst there is nothing to wait in: excess is clock slack */

    if (item->op.type != &ngx_coord_op_bucket_take
        || limit->nodelay
        || rate->burst == 0
        || excess / 1000 < limit->delay
        || excess <= limit->delay * 1000)
    {
        return 0;
    }

    excess -= limit->delay * 1000;

    return ngx_coord_ceil_msec(rate->interval / 1000 * excess
                               + rate->interval % 1000 * excess / 1000);
}


static ngx_int_t
ngx_http_coord_limit_req_delay(ngx_http_request_t *r,
    ngx_http_coord_limit_req_state_t *state, ngx_msec_t delay,
    ngx_http_coord_limit_req_item_t *item)
{
    u_char       buf[NGX_HTTP_COORD_LOG_TAIL];
    ngx_str_t    tail;
    ngx_uint_t   excess, dry_run, level;

    dry_run = state->conf->dry_run;
    level = state->conf->delay_log_level;
    excess = item->op.u.rate.excess;

    state->status = dry_run ? NGX_HTTP_COORD_LIMIT_REQ_DELAYED_DRY_RUN
                            : NGX_HTTP_COORD_LIMIT_REQ_DELAYED;
    state->zone = item->limit->zone->name;

    ngx_http_coord_limit_req_count(state);

    if (level <= r->connection->log->log_level) {
        tail = ngx_http_coord_log_tail(buf, &item->op,
                             &ngx_http_coord_limit_req_statuses[state->status]);

        ngx_log_error(level, r->connection->log, 0,
                      "delaying request%s, excess: %ui.%03ui, "
                      "by zone \"%V\", wait: %Mms%V",
                      dry_run ? ", dry run" : "", excess / 1000, excess % 1000,
                      &item->limit->zone->name, delay, &tail);
    }

    if (dry_run) {
        return NGX_DECLINED;
    }

    state->delayed = 1;

    ngx_coord_timer_init(&state->delay, ngx_http_coord_limit_req_delayed,
                         state, r->connection->log);
    ngx_coord_timer_start(&state->delay, delay);

    return NGX_AGAIN;
}


static void
ngx_http_coord_limit_req_delayed(ngx_event_t *ev)
{
    ngx_http_coord_limit_req_state_t *state = ngx_coord_timer_data(ev);

    ngx_http_coord_resume(state->ctx);
}


static void
ngx_http_coord_limit_req_give(ngx_http_coord_limit_req_state_t *state)
{
    ngx_uint_t                        i;
    ngx_http_coord_limit_req_item_t  *item;

    item = state->items.elts;

    for (i = 0; i < state->items.nelts; i++) {
        if (item[i].held) {
            item[i].held = 0;
            ngx_coord_op_undo(&item[i].op);
        }
    }
}


static void
ngx_http_coord_limit_req_undo(ngx_http_coord_ctx_t *ctx, void *data)
{
    ngx_http_coord_limit_req_give(data);
}


/* a request that ends while it is delayed gives its place back */

static void
ngx_http_coord_limit_req_end(ngx_http_coord_ctx_t *ctx, void *data)
{
    ngx_http_coord_limit_req_state_t *state = data;

    ngx_coord_timer_stop(&state->delay);

    if (state->delayed) {
        ngx_http_coord_limit_req_give(state);
    }
}
