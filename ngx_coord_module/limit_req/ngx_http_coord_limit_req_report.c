
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_limit_req: how a decision is told, in fields, variables, the problem
 * document and metrics.
 */


#include "ngx_http_coord_limit_req.h"


static void ngx_http_coord_limit_req_policy(
    ngx_http_coord_limit_req_item_t *item, ngx_coord_rate_t *rate,
    ngx_http_coord_report_t *report);


const ngx_str_t  ngx_http_coord_limit_req_statuses[] = {
    ngx_null_string,
    ngx_string("PASSED"),
    ngx_string("DELAYED"),
    ngx_string("REJECTED"),
    ngx_string("DELAYED_DRY_RUN"),
    ngx_string("REJECTED_DRY_RUN"),
    ngx_string("BYPASSED")
};


ngx_int_t
ngx_http_coord_limit_req_report(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx, ngx_http_coord_limit_req_state_t *state)
{
    ngx_uint_t                        i, refused;
    ngx_coord_op_t                   *op;
    ngx_http_coord_report_t          *report;
    ngx_http_coord_limit_req_item_t  *item;

    refused = 0;
    item = state->items.elts;

    for (i = 0; i < state->items.nelts; i++) {
        op = &item[i].op;

        if (state->zone.len == 0) {
            state->zone = item[i].limit->zone->name;
        }

        if (op->rc == NGX_ERROR) {
            continue;
        }

        report = ngx_http_coord_report(r, ctx);
        if (report == NULL) {
            return NGX_ERROR;
        }

        ngx_http_coord_limit_req_policy(&item[i], &op->u.rate, report);

        if (state->shown
            && (refused || (report->remaining >= state->remaining
                            && !report->refused)))
        {
            continue;
        }

        refused = report->refused;

        state->shown = 1;
        state->zone = report->policy;
        state->source = op->source;
        state->limit = report->quota;
        state->remaining = report->remaining;
        state->reset = report->reset;
    }

    return NGX_OK;
}


/*
 * The quota of a bucket is what the rate says, or the burst where that is
 * more: q requests in w seconds are the rate in both cases.
 */

static void
ngx_http_coord_limit_req_policy(ngx_http_coord_limit_req_item_t *item,
    ngx_coord_rate_t *rate, ngx_http_coord_report_t *report)
{
    report->policy = item->limit->zone->name;
    report->quota = item->quota.count;
    report->window = ngx_coord_ceil_sec(item->quota.period);

    if (item->op.type == &ngx_coord_op_bucket_take
        && rate->burst + 1 > item->quota.count)
    {
        report->quota = rate->burst + 1;
        report->window = ngx_coord_ceil_sec(rate->interval
                                            * (rate->burst + 1));
    }

    report->remaining = rate->remaining;

    if (item->op.rc == NGX_BUSY) {
        report->refused = 1;
        report->remaining = 0;
        report->reset = ngx_max(ngx_coord_ceil_sec(rate->retry), 1);

    } else {
        report->reset = ngx_coord_ceil_sec(rate->reset);
    }
}


ngx_str_t
ngx_http_coord_limit_req_members(ngx_http_request_t *r,
    ngx_http_coord_limit_req_state_t *state)
{
    u_char                           *p;
    size_t                            len;
    ngx_str_t                         members;
    ngx_uint_t                        i, n;
    ngx_http_coord_limit_req_item_t  *item;

    ngx_str_null(&members);

    len = sizeof(",\"violated-policies\":[]") - 1;
    item = state->items.elts;

    for (i = 0; i < state->items.nelts; i++) {
        len += item[i].limit->zone->name.len + sizeof("\"\",") - 1;
    }

    members.data = ngx_pnalloc(r->pool, len);
    if (members.data == NULL) {
        return members;
    }

    n = 0;
    p = ngx_cpymem(members.data, ",\"violated-policies\":[",
                   sizeof(",\"violated-policies\":[") - 1);

    for (i = 0; i < state->items.nelts; i++) {
        if (item[i].op.rc == NGX_BUSY) {
            p = ngx_sprintf(p, "%s\"%V\"", n++ ? "," : "",
                            &item[i].limit->zone->name);
        }
    }

    *p++ = ']';

    members.len = p - members.data;

    return members;
}


void
ngx_http_coord_limit_req_count(ngx_http_coord_limit_req_state_t *state)
{
    ngx_uint_t                        i, refused, dry_run;
    ngx_coord_op_t                   *op;
    ngx_http_coord_limit_req_item_t  *item;

    dry_run = state->conf->dry_run;
    refused = (state->status == NGX_HTTP_COORD_LIMIT_REQ_REJECTED
               || state->status == NGX_HTTP_COORD_LIMIT_REQ_REJECTED_DRY_RUN);

    item = state->items.elts;

    for (i = 0; i < state->items.nelts; i++) {
        op = &item[i].op;

        if (op->rc == NGX_OK
            && !refused
            && ngx_http_coord_limit_req_wait(&item[i]))
        {
            ngx_coord_metrics_decision(op->zone,
                                       dry_run
                                       ? NGX_COORD_OUTCOME_DELAYED_DRY_RUN
                                       : NGX_COORD_OUTCOME_DELAYED);
            continue;
        }

        ngx_coord_metrics_limit(op, refused, dry_run);
    }
}


ngx_int_t
ngx_http_coord_limit_req_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    u_char                            *p;
    ngx_uint_t                         n;
    const ngx_str_t                   *s;
    ngx_http_coord_ctx_t              *ctx;
    ngx_http_coord_limit_req_state_t  *state;

    ctx = ngx_http_coord_get_ctx(r);
    state = ctx ? ctx->state[ngx_http_coord_limit_req_feature.slot] : NULL;

    if (state && state->status == 0) {
        state = state->previous;
    }

    if (state == NULL || state->status == 0) {
        v->not_found = 1;
        return NGX_OK;
    }

    s = NULL;
    n = 0;

    switch (data) {

    case NGX_HTTP_COORD_LIMIT_REQ_VAR_STATUS:
        s = &ngx_http_coord_limit_req_statuses[state->status];
        break;

    case NGX_HTTP_COORD_LIMIT_REQ_VAR_ZONE:
        s = &state->zone;
        break;

    case NGX_HTTP_COORD_LIMIT_REQ_VAR_SOURCE:
        s = &ngx_coord_source_names[state->source];
        break;

    case NGX_HTTP_COORD_LIMIT_REQ_VAR_LIMIT:
        n = state->limit;
        break;

    case NGX_HTTP_COORD_LIMIT_REQ_VAR_REMAINING:
        n = state->remaining;
        break;

    default: /* NGX_HTTP_COORD_LIMIT_REQ_VAR_RESET */
        n = state->reset;
        break;
    }

    if ((s && s->len == 0) || (s == NULL && !state->shown)) {
        v->not_found = 1;
        return NGX_OK;
    }

    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;

    if (s) {
        v->data = s->data;
        v->len = s->len;
        return NGX_OK;
    }

    p = ngx_pnalloc(r->pool, NGX_INT_T_LEN);
    if (p == NULL) {
        return NGX_ERROR;
    }

    v->data = p;
    v->len = ngx_sprintf(p, "%ui", n) - p;

    return NGX_OK;
}
