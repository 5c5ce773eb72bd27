
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_limit_req: the request side of rate limits.  Directives are in
 * ngx_http_coord_limit_req_conf.c.
 */


#include "ngx_http_coord_limit_req.h"


static ngx_int_t ngx_http_coord_limit_req_decide(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx);
static void ngx_http_coord_limit_req_answers(ngx_http_coord_ctx_t *ctx,
    ngx_http_coord_limit_req_state_t *state);
static void ngx_http_coord_limit_req_answer(ngx_http_coord_ctx_t *ctx,
    ngx_http_coord_limit_req_item_t *item);
static void ngx_http_coord_limit_req_peeked(ngx_http_coord_ctx_t *ctx,
    ngx_http_coord_limit_req_item_t *item);
static ngx_int_t ngx_http_coord_limit_req_report(ngx_http_request_t *r,
    ngx_http_coord_limit_req_state_t *state);
static void ngx_http_coord_limit_req_policy(
    ngx_http_coord_limit_req_item_t *item, ngx_http_coord_report_t *report);
static void ngx_http_coord_limit_req_taken(
    ngx_http_coord_limit_req_item_t *item, ngx_http_coord_report_t *report);
static ngx_int_t ngx_http_coord_limit_req_refuse(ngx_http_request_t *r,
    ngx_http_coord_limit_req_state_t *state,
    ngx_http_coord_limit_req_item_t *item);
static ngx_coord_cold void ngx_http_coord_limit_req_log_refused(
    ngx_http_request_t *r, ngx_http_coord_limiter_t *limiter,
    ngx_http_coord_limit_req_item_t *item);
static ngx_int_t ngx_http_coord_limit_req_pass(ngx_http_request_t *r,
    ngx_http_coord_limit_req_state_t *state);
static ngx_msec_t ngx_http_coord_limit_req_wait(
    ngx_http_coord_limit_req_item_t *item);
static ngx_coord_apart ngx_int_t ngx_http_coord_limit_req_delay(
    ngx_http_request_t *r, ngx_http_coord_limit_req_state_t *state,
    ngx_http_coord_limit_req_item_t *item);
static void ngx_http_coord_limit_req_delayed(ngx_event_t *ev);
static void ngx_http_coord_limit_req_count(
    ngx_http_coord_limit_req_state_t *state, ngx_uint_t refused);
static void ngx_http_coord_limit_req_give(
    ngx_http_coord_limit_req_state_t *state);
static void ngx_http_coord_limit_req_undo(ngx_http_coord_ctx_t *ctx,
    void *data);
static void ngx_http_coord_limit_req_end(ngx_http_coord_ctx_t *ctx,
    void *data);
static ngx_int_t ngx_http_coord_limit_req_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);


static ngx_http_variable_t  ngx_http_coord_limit_req_vars[] = {

    { ngx_string("coord_limit_req_status"), NULL,
      ngx_http_coord_limit_req_variable,
      NGX_HTTP_COORD_VAR_STATUS, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("coord_limit_req_zone"), NULL,
      ngx_http_coord_limit_req_variable,
      NGX_HTTP_COORD_VAR_ZONE, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("coord_limit_req_remaining"), NULL,
      ngx_http_coord_limit_req_variable,
      NGX_HTTP_COORD_VAR_REMAINING, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("coord_limit_req_limit"), NULL,
      ngx_http_coord_limit_req_variable,
      NGX_HTTP_COORD_VAR_LIMIT, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("coord_limit_req_reset"), NULL,
      ngx_http_coord_limit_req_variable,
      NGX_HTTP_COORD_VAR_RESET, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("coord_limit_req_source"), NULL,
      ngx_http_coord_limit_req_variable,
      NGX_HTTP_COORD_VAR_SOURCE, NGX_HTTP_VAR_NOCACHEABLE, 0 },

      ngx_http_null_variable
};


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
          ngx_http_coord_limit_req_undo,
          0 },

        { 30,                              /* precontent: "after_auth" */
          ngx_http_coord_limit_req_begin,
          ngx_http_coord_limit_req_decide,
          ngx_http_coord_limit_req_undo,
          NGX_HTTP_COORD_STEP_LATE }
    },

    ngx_http_coord_limit_req_end,
    ngx_http_coord_limit_req_vars,
    ngx_http_coord_limit_req_routes,
    0
};


static const ngx_http_coord_problem_t  ngx_http_coord_limit_req_problem = {
    0,
    ngx_string("https://iana.org/assignments/http-problem-types"
               "#quota-exceeded"),
    ngx_string("Request cannot be satisfied as assigned quota has been "
               "exceeded"),
    ngx_string("Too many requests; the Retry-After field tells when the next "
               "one is admitted."),
    ngx_null_string,
    ngx_null_string,
    1
};


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

    ngx_http_coord_limit_req_answers(ctx, state);

    if (state->items.nelts == 0) {
        return NGX_DECLINED;
    }

    refused = NULL;
    item = state->items.elts;

    for (i = 0; i < state->items.nelts; i++) {
        op = &item[i].op;

        if (op->rc == NGX_ERROR
            && op->on_failure != NGX_COORD_FAILURE_CLOSED)
        {
            continue;
        }

        /* of those that refuse, the one that does so longest */

        if (op->rc != NGX_OK
            && (refused == NULL || op->u.rate.retry > refused->op.u.rate.retry))
        {
            refused = &item[i];
        }
    }

    if (ngx_http_coord_limit_req_report(r, state) != NGX_OK) {
        ngx_http_coord_limit_req_give(state);
        return NGX_ERROR;
    }

    if (refused) {
        return ngx_http_coord_limit_req_refuse(r, state, refused);
    }

    return ngx_http_coord_limit_req_pass(r, state);
}


/* those that stand limit the request, or refuse it */

static void
ngx_http_coord_limit_req_answers(ngx_http_coord_ctx_t *ctx,
    ngx_http_coord_limit_req_state_t *state)
{
    ngx_uint_t                        i, n;
    ngx_http_coord_limit_req_item_t  *item;

    n = 0;
    item = state->items.elts;

    for (i = 0; i < state->items.nelts; i++) {

        if (!item[i].known) {
            ngx_http_coord_limit_req_answer(ctx, &item[i]);

        } else if (item[i].peeks) {
            ngx_http_coord_limit_req_peeked(ctx, &item[i]);
        }

        if (item[i].peeks && item[i].op.rc == NGX_OK) {
            continue;
        }

        if (n != i) {
            item[n] = item[i];
        }

        n++;
    }

    state->items.nelts = n;
}


/* what the store says */

static void
ngx_http_coord_limit_req_answer(ngx_http_coord_ctx_t *ctx,
    ngx_http_coord_limit_req_item_t *item)
{
    ngx_coord_op_t                   *op;
    ngx_http_coord_limit_req_zone_t  *lrz;

    op = &item->op;
    lrz = item->limit->zone->data;

    *op = *ngx_http_coord_op(ctx, item->ref);

    if (item->over && op->rc == NGX_OK) {
        op->rc = NGX_BUSY;
    }

    item->held = (op->rc == NGX_OK);

    if (lrz->holds) {
        ngx_http_coord_limit_req_peeked(ctx, item);
    }
}


/* who is held is refused, whatever is left to him */

static void
ngx_http_coord_limit_req_peeked(ngx_http_coord_ctx_t *ctx,
    ngx_http_coord_limit_req_item_t *item)
{
    ngx_coord_op_t  *op, *hold;

    op = &item->op;
    hold = ngx_http_coord_op(ctx, item->hold);

    if (hold->rc == NGX_OK
        || (hold->rc == NGX_ERROR
            && (op->rc != NGX_OK
                || op->on_failure != NGX_COORD_FAILURE_CLOSED)))
    {
        return;
    }

    if (item->held) {
        item->held = 0;
        ngx_coord_op_undo(op);
    }

    op->rc = hold->rc;
    op->failure = hold->failure;
    op->u.rate.excess = 0;
    op->u.rate.remaining = 0;
    op->u.rate.retry = hold->u.rate.retry;
    op->u.rate.reset = hold->u.rate.retry;
    op->source = (hold->rc == NGX_BUSY) ? NGX_COORD_SOURCE_HOLD
                                        : NGX_COORD_SOURCE_NONE;
}


static ngx_int_t
ngx_http_coord_limit_req_report(ngx_http_request_t *r,
    ngx_http_coord_limit_req_state_t *state)
{
    ngx_uint_t                        i;
    ngx_http_coord_report_t          *report;
    ngx_http_coord_limit_req_item_t  *item;

    item = state->items.elts;

    for (i = 0; i < state->items.nelts; i++) {

        if (item[i].op.rc == NGX_ERROR) {
            continue;
        }

        report = ngx_http_coord_limiter_report(r, &state->limiter);
        if (report == NULL) {
            return NGX_ERROR;
        }

        ngx_http_coord_limit_req_policy(&item[i], report);
    }

    if (state->limiter.nreports == 0) {
        state->limiter.zone = item[0].limit->zone->name;
    }

    return NGX_OK;
}


/*
 * The quota of a bucket is what the rate says, or the burst where that is
 * more: q requests in w seconds are the rate in both cases.
 */

static void
ngx_http_coord_limit_req_policy(ngx_http_coord_limit_req_item_t *item,
    ngx_http_coord_report_t *report)
{
    ngx_coord_rate_t  *rate;

    rate = &item->op.u.rate;

    report->policy = item->limit->zone->name;
    report->told = &item->limit->told;
    report->source = item->op.source;
    report->quota = item->quota.count;
    report->window = ngx_coord_ceil_sec(item->quota.period);

    if (rate->align) {
        /* this very hour or month */
        report->window = ngx_coord_ceil_sec(rate->window);
    }

    if (item->known && item->op.source == NGX_COORD_SOURCE_NONE) {
        /* a rate of 0 */
        report->refused = 1;
        report->reset = report->window;
        return;
    }

    if (item->op.type == &ngx_coord_op_bucket_take
        && rate->burst + 1 > item->quota.count)
    {
        report->quota = rate->burst + 1;
        report->window = ngx_coord_ceil_sec(rate->interval
                                            * (rate->burst + 1));
    }

    report->bytes = item->limit->bytes;

    if (item->over && item->op.source != NGX_COORD_SOURCE_HOLD) {
        report->refused = 1;
        report->never = 1;
        report->remaining = rate->remaining;
        report->reset = ngx_coord_ceil_sec(rate->reset);

    } else if (item->op.rc == NGX_BUSY) {
        report->refused = 1;
        report->remaining = rate->remaining;
        report->reset = ngx_max(ngx_coord_ceil_sec(rate->retry), 1);

    } else {
        report->remaining = rate->remaining;
        report->reset = ngx_coord_ceil_sec(rate->reset);

        ngx_http_coord_limit_req_taken(item, report);
    }
}


/* what is told if the request gives its places back */

static void
ngx_http_coord_limit_req_taken(ngx_http_coord_limit_req_item_t *item,
    ngx_http_coord_report_t *report)
{
    ngx_coord_nsec_t   left;
    ngx_coord_rate_t  *rate;

    rate = &item->op.u.rate;

    if (rate->look) {
        return;
    }

    report->taken = rate->cost;
    report->untaken = report->reset;

    if (item->op.type == &ngx_coord_op_bucket_take) {
        left = rate->reset - rate->interval * (ngx_coord_nsec_t) rate->cost;
        report->untaken = ngx_coord_ceil_sec(ngx_max(left, 0));
    }
}


static ngx_int_t
ngx_http_coord_limit_req_refuse(ngx_http_request_t *r,
    ngx_http_coord_limit_req_state_t *state,
    ngx_http_coord_limit_req_item_t *item)
{
    ngx_http_coord_limiter_t  *limiter;

    limiter = &state->limiter;
    limiter->status = ngx_http_coord_limiter_refused(limiter, &item->op);

    ngx_http_coord_limit_req_undo(limiter->ctx, state);
    ngx_http_coord_limit_req_count(state, 1);

    if (r->connection->log->log_level >= limiter->conf->log_level) {
        ngx_http_coord_limit_req_log_refused(r, limiter, item);
    }

    return ngx_http_coord_limiter_refuse(r, limiter,
                                         &ngx_http_coord_limit_req_problem);
}


static void
ngx_http_coord_limit_req_log_refused(ngx_http_request_t *r,
    ngx_http_coord_limiter_t *limiter, ngx_http_coord_limit_req_item_t *item)
{
    u_char                        cost[sizeof("cost: ") + NGX_INT_T_LEN];
    ngx_uint_t                    excess;
    ngx_http_coord_log_fields_t   fields;

    ngx_memzero(&fields, sizeof(ngx_http_coord_log_fields_t));

    fields.op = &item->op;
    fields.outcome = limiter->status;

    if (item->cost != 1) {
        ngx_sprintf(cost, "cost: %ui%Z", item->cost);
        fields.why = (const char *) cost;
    }

    excess = item->op.u.rate.excess;

    if (item->op.rc == NGX_BUSY) {
        ngx_http_coord_log(r, limiter->conf->log_level, &fields,
                           "limiting requests%s, excess: %ui.%03ui "
                           "by zone \"%V\"",
                           limiter->conf->dry_run ? ", dry run" : "",
                           excess / 1000, excess % 1000,
                           &item->limit->zone->name);

    } else {
        ngx_http_coord_limiter_log_failure(r, limiter, &fields);
    }
}


static ngx_int_t
ngx_http_coord_limit_req_pass(ngx_http_request_t *r,
    ngx_http_coord_limit_req_state_t *state)
{
    ngx_uint_t                        i;
    ngx_http_coord_limit_req_item_t  *item, *longest;

    state->limiter.status = NGX_COORD_OUTCOME_BYPASSED;

    longest = NULL;
    item = state->items.elts;

    for (i = 0; i < state->items.nelts; i++) {

        if (!item[i].held) {
            continue;
        }

        state->limiter.status = NGX_COORD_OUTCOME_PASSED;

        item[i].due = (item[i].limit->charge != NGX_HTTP_COORD_CHARGE_BEFORE);

        item[i].wait = ngx_http_coord_limit_req_wait(&item[i]);

        if (item[i].wait && (longest == NULL || item[i].wait > longest->wait))
        {
            longest = &item[i];
        }
    }

    ngx_http_coord_limit_req_count(state, 0);

    if (longest == NULL) {
        return NGX_DECLINED;
    }

    return ngx_http_coord_limit_req_delay(r, state, longest);
}


/* how long a granted request has to wait: excess above "delay", as limit_req */

static ngx_msec_t
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
    ngx_http_coord_limit_req_state_t *state,
    ngx_http_coord_limit_req_item_t *item)
{
    ngx_uint_t                    excess, dry_run;
    ngx_http_coord_limiter_t     *limiter;
    ngx_http_coord_log_fields_t   fields;

    limiter = &state->limiter;
    dry_run = limiter->conf->dry_run;
    excess = item->op.u.rate.excess;

    limiter->status = dry_run ? NGX_COORD_OUTCOME_DELAYED_DRY_RUN
                              : NGX_COORD_OUTCOME_DELAYED;
    limiter->zone = item->limit->zone->name;

    ngx_memzero(&fields, sizeof(ngx_http_coord_log_fields_t));

    fields.op = &item->op;
    fields.outcome = limiter->status;
    fields.wait = item->wait;

    ngx_http_coord_log(r, limiter->conf->delay_log_level, &fields,
                       "delaying request%s, excess: %ui.%03ui, by zone \"%V\"",
                       dry_run ? ", dry run" : "",
                       excess / 1000, excess % 1000, &item->limit->zone->name);

    if (dry_run) {
        return NGX_DECLINED;
    }

    state->delayed = 1;

    ngx_coord_timer_init(&state->delay, ngx_http_coord_limit_req_delayed,
                         state, r->connection->log);
    ngx_coord_timer_start(&state->delay, item->wait);

    return NGX_AGAIN;
}


static void
ngx_http_coord_limit_req_delayed(ngx_event_t *ev)
{
    ngx_http_coord_limit_req_state_t  *state;

    state = ngx_coord_timer_data(ev);

    ngx_http_coord_resume(state->limiter.ctx);
}


/*
 * For the metrics.  In a refused request the zones that refused it count, not
 * those that got their places back.
 */

static void
ngx_http_coord_limit_req_count(ngx_http_coord_limit_req_state_t *state,
    ngx_uint_t refused)
{
    ngx_uint_t                        i, dry_run;
    ngx_http_coord_limit_req_item_t  *item;

    dry_run = state->limiter.conf->dry_run;
    item = state->items.elts;

    for (i = 0; i < state->items.nelts; i++) {

        if (item[i].wait) {
            ngx_coord_metrics_decision(item[i].op.zone,
                                       dry_run
                                       ? NGX_COORD_OUTCOME_DELAYED_DRY_RUN
                                       : NGX_COORD_OUTCOME_DELAYED);
            continue;
        }

        ngx_http_coord_limiter_count(&item[i].op, refused, dry_run);
    }
}


static void
ngx_http_coord_limit_req_give(ngx_http_coord_limit_req_state_t *state)
{
    ngx_uint_t                        i;
    ngx_http_coord_limit_req_item_t  *item;

    item = state->items.elts;

    for (i = 0; i < state->items.nelts; i++) {
        item[i].due = 0;

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
    ngx_http_coord_limiter_given_back(data);
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


static ngx_int_t
ngx_http_coord_limit_req_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    return ngx_http_coord_limiter_variable(r, v,
                                           &ngx_http_coord_limit_req_feature,
                                           data);
}
