
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_limit_conn: the request side of limits of concurrent requests.
 * Directives are in ngx_http_coord_limit_conn_conf.c.
 */


#include "ngx_http_coord_body.h"
#include "ngx_http_coord_limit_conn.h"
#include "ngx_coord_parse.h"


typedef struct {
    ngx_http_coord_limiter_t            limiter;
    ngx_http_coord_leases_t             leases;
    ngx_coord_op_t                      known;    /* asks nobody: 0, or bad */
} ngx_http_coord_limit_conn_state_t;


static ngx_int_t ngx_http_coord_limit_conn_begin(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx);
static ngx_int_t ngx_http_coord_limit_conn_ask_all(ngx_http_request_t *r,
    ngx_http_coord_limit_conn_state_t *state, ngx_array_t *limits);
static ngx_int_t ngx_http_coord_limit_conn_ask(ngx_http_request_t *r,
    ngx_http_coord_limit_conn_state_t *state,
    ngx_http_coord_limit_conn_limit_t *limit);
static ngx_uint_t ngx_http_coord_limit_conn_refuses(ngx_coord_op_t *op);
static ngx_int_t ngx_http_coord_limit_conn_number(ngx_http_request_t *r,
    ngx_http_coord_limit_conn_limit_t *limit, ngx_uint_t *number);
static ngx_int_t ngx_http_coord_limit_conn_decide(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx);
static ngx_int_t ngx_http_coord_limit_conn_report(ngx_http_request_t *r,
    ngx_http_coord_limit_conn_state_t *state);
static ngx_int_t ngx_http_coord_limit_conn_policy(ngx_http_request_t *r,
    ngx_http_coord_limit_conn_state_t *state, ngx_coord_op_t *op);
static ngx_int_t ngx_http_coord_limit_conn_refuse(ngx_http_request_t *r,
    ngx_http_coord_limit_conn_state_t *state, ngx_coord_op_t *op);
static ngx_int_t ngx_http_coord_limit_conn_pass(
    ngx_http_coord_limit_conn_state_t *state);
static void ngx_http_coord_limit_conn_count(
    ngx_http_coord_limit_conn_state_t *state, ngx_uint_t refused);
static void ngx_http_coord_limit_conn_lost(ngx_http_coord_lease_t *lease);
static void ngx_http_coord_limit_conn_undo(ngx_http_coord_ctx_t *ctx,
    void *data);
static void ngx_http_coord_limit_conn_end(ngx_http_coord_ctx_t *ctx,
    void *data);
static ngx_int_t ngx_http_coord_limit_conn_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);


static ngx_http_variable_t  ngx_http_coord_limit_conn_vars[] = {

    { ngx_string("coord_limit_conn_status"), NULL,
      ngx_http_coord_limit_conn_variable,
      NGX_HTTP_COORD_VAR_STATUS, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("coord_limit_conn_zone"), NULL,
      ngx_http_coord_limit_conn_variable,
      NGX_HTTP_COORD_VAR_ZONE, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("coord_limit_conn_current"), NULL,
      ngx_http_coord_limit_conn_variable,
      NGX_HTTP_COORD_VAR_CURRENT, NGX_HTTP_VAR_NOCACHEABLE, 0 },

      ngx_http_null_variable
};


ngx_http_coord_feature_t  ngx_http_coord_limit_conn_feature = {

    { ngx_string("limit_conn"),
      ngx_string("cc"),
      NGX_COORD_OUTCOMES_LIMIT | ngx_coord_outcome_bit(PASSED),
      NGX_COORD_GAUGES_LEASE,
      1 },

    {
        { 20,                              /* preaccess */
          ngx_http_coord_limit_conn_begin,
          ngx_http_coord_limit_conn_decide,
          ngx_http_coord_limit_conn_undo,
          0 },

        { 40,                              /* precontent: "after_auth" */
          ngx_http_coord_limit_conn_begin,
          ngx_http_coord_limit_conn_decide,
          ngx_http_coord_limit_conn_undo,
          NGX_HTTP_COORD_STEP_LATE }
    },

    ngx_http_coord_limit_conn_end,
    ngx_http_coord_limit_conn_vars,
    ngx_http_coord_limit_conn_routes,
    0
};


static const ngx_http_coord_problem_t  ngx_http_coord_limit_conn_problem = {
    0,
    ngx_string("https://iana.org/assignments/http-problem-types"
               "#temporary-reduced-capacity"),
    ngx_string("Request cannot be satisfied due to temporary server capacity "
               "constraints"),
    ngx_string("Too many requests at a time; try again when one of them has "
               "ended."),
    ngx_null_string,
    ngx_null_string,
    1                                      /* nobody knows when that is */
};


static ngx_int_t
ngx_http_coord_limit_conn_begin(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx)
{
    ngx_http_coord_limit_conn_conf_t   *lccf;
    ngx_http_coord_limit_conn_state_t  *state;

    lccf = ngx_http_get_module_loc_conf(r, ngx_http_coord_limit_conn_module);

    state = ngx_http_coord_limiter_create(r, ctx, &lccf->limiter,
                                    sizeof(ngx_http_coord_limit_conn_state_t));
    if (state == NULL) {
        return NGX_ERROR;
    }

    if (ngx_http_coord_leases_init(r, ctx, &state->leases,
                                   lccf->limits.nelts)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    state->leases.data = state;
    state->leases.lost = ngx_http_coord_limit_conn_lost;
    state->leases.nowait = lccf->limiter.dry_run;

    return ngx_http_coord_limit_conn_ask_all(r, state, &lccf->limits);
}


static ngx_int_t
ngx_http_coord_limit_conn_ask_all(ngx_http_request_t *r,
    ngx_http_coord_limit_conn_state_t *state, ngx_array_t *limits)
{
    ngx_uint_t                          i;
    ngx_http_coord_limit_conn_limit_t  *limit;

    limit = limits->elts;

    for (i = 0; i < limits->nelts; i++) {

        if (limit[i].stage != state->limiter.ctx->stage) {
            continue;
        }

        if (ngx_http_coord_limit_conn_ask(r, state, &limit[i]) == NGX_ERROR) {
            return NGX_ERROR;
        }
    }

    return (state->leases.items.nelts || state->known.zone) ? NGX_OK
                                                              : NGX_DECLINED;
}


/* NGX_DECLINED: this limit does not apply to the request */

static ngx_int_t
ngx_http_coord_limit_conn_ask(ngx_http_request_t *r,
    ngx_http_coord_limit_conn_state_t *state,
    ngx_http_coord_limit_conn_limit_t *limit)
{
    ngx_str_t                     key;
    ngx_int_t                     rc;
    ngx_uint_t                    number;
    ngx_coord_zone_t             *zone;
    ngx_http_coord_lease_zone_t  *lz;

    zone = limit->limit.zone;
    lz = zone->data;

    if (ngx_http_coord_zone_key(r, zone, lz->key, &key) != NGX_OK) {
        return NGX_ERROR;
    }

    if (key.len == 0) {
        return NGX_DECLINED;
    }

    rc = ngx_http_coord_limit_conn_number(r, limit, &number);

    if (rc == NGX_ERROR || rc == NGX_DECLINED) {
        return rc;
    }

    if (rc == NGX_OK && number) {
        return ngx_http_coord_leases_add(r, &state->leases, &limit->limit,
                                         &key, number);
    }

    if (state->known.zone && ngx_http_coord_limit_conn_refuses(&state->known))
    {
        return NGX_OK;
    }

    /* rc == NGX_ABORT, or nobody is admitted: there is nothing to wait for */

    state->leases.nowait = 1;

    return ngx_http_coord_known(r, &state->known, zone, &key,
                                limit->limit.on_failure,
                                (rc == NGX_ABORT) ? NGX_ERROR : NGX_BUSY);
}


static ngx_uint_t
ngx_http_coord_limit_conn_refuses(ngx_coord_op_t *op)
{
    return op->rc == NGX_BUSY
           || (op->rc == NGX_ERROR
               && op->on_failure == NGX_COORD_FAILURE_CLOSED);
}


/* NGX_DECLINED: empty, no limit; NGX_ABORT: logged, not a number */

static ngx_int_t
ngx_http_coord_limit_conn_number(ngx_http_request_t *r,
    ngx_http_coord_limit_conn_limit_t *limit, ngx_uint_t *number)
{
    ngx_str_t  value;

    *number = limit->number;

    if (limit->number_value == NULL) {
        return NGX_OK;
    }

    if (ngx_http_complex_value(r, limit->number_value, &value) != NGX_OK) {
        return NGX_ERROR;
    }

    if (value.len == 0) {
        return NGX_DECLINED;
    }

    if (ngx_coord_parse_count(&value, 0, number) != NGX_OK) {
        ngx_http_coord_limiter_invalid(r, "number of connections", &value,
                                       limit->limit.zone);
        return NGX_ABORT;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_coord_limit_conn_decide(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx)
{
    ngx_int_t                           rc;
    ngx_http_coord_lease_t             *turn;
    ngx_http_coord_log_fields_t         fields;
    ngx_http_coord_limit_conn_state_t  *state;

    state = ctx->state[ctx->slot];

    rc = ngx_http_coord_leases_decide(&state->leases);

    if (rc == NGX_AGAIN) {
        state->limiter.status = NGX_COORD_OUTCOME_DELAYED;

        turn = state->leases.turn;

        ngx_memzero(&fields, sizeof(ngx_http_coord_log_fields_t));

        fields.op = &turn->op;
        fields.outcome = NGX_COORD_OUTCOME_DELAYED;

        ngx_http_coord_log(r, state->limiter.conf->delay_log_level, &fields,
                           "delaying request by zone \"%V\"",
                           &turn->op.zone->name);

        return NGX_AGAIN;
    }

    if (rc != NGX_OK || ngx_http_coord_limit_conn_report(r, state) != NGX_OK) {
        ngx_http_coord_leases_release(&state->leases);
        return NGX_ERROR;
    }

    if (state->leases.refused) {
        return ngx_http_coord_limit_conn_refuse(r, state,
                                                &state->leases.refused->op);
    }

    if (state->known.zone && ngx_http_coord_limit_conn_refuses(&state->known))
    {
        return ngx_http_coord_limit_conn_refuse(r, state, &state->known);
    }

    return ngx_http_coord_limit_conn_pass(state);
}


/* for the RateLimit fields and the variables */

static ngx_int_t
ngx_http_coord_limit_conn_report(ngx_http_request_t *r,
    ngx_http_coord_limit_conn_state_t *state)
{
    ngx_uint_t               i;
    ngx_coord_op_t          *op;
    ngx_http_coord_lease_t  *lease;

    op = &state->known;

    if (op->zone
        && op->rc == NGX_BUSY
        && ngx_http_coord_limit_conn_policy(r, state, op) != NGX_OK)
    {
        return NGX_ERROR;
    }

    lease = state->leases.items.elts;

    for (i = 0; i < state->leases.items.nelts; i++) {
        op = &lease[i].op;

        if (op->rc != NGX_ERROR
            && ngx_http_coord_limit_conn_policy(r, state, op) != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    if (state->limiter.nreports == 0) {
        state->limiter.zone = op->zone->name;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_coord_limit_conn_policy(ngx_http_request_t *r,
    ngx_http_coord_limit_conn_state_t *state, ngx_coord_op_t *op)
{
    ngx_http_coord_report_t  *report;

    report = ngx_http_coord_limiter_report(r, &state->limiter);
    if (report == NULL) {
        return NGX_ERROR;
    }

    report->policy = op->zone->name;
    report->source = op->source;
    report->quota = op->u.lease.limit;
    report->current = op->u.lease.current;
    report->connections = 1;
    report->refused = (op->rc == NGX_BUSY);

    if (!report->refused) {
        report->remaining = report->quota
                            - ngx_min(report->current, report->quota);
        report->taken = 1;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_coord_limit_conn_refuse(ngx_http_request_t *r,
    ngx_http_coord_limit_conn_state_t *state, ngx_coord_op_t *op)
{
    ngx_http_coord_limiter_t     *limiter;
    ngx_http_coord_log_fields_t   fields;

    limiter = &state->limiter;
    limiter->status = ngx_http_coord_limiter_refused(limiter, op);

    ngx_http_coord_limit_conn_count(state, 1);
    ngx_http_coord_limit_conn_undo(limiter->ctx, state);

    ngx_memzero(&fields, sizeof(ngx_http_coord_log_fields_t));

    fields.op = op;
    fields.outcome = limiter->status;
    fields.why = ngx_http_coord_leases_reason(&state->leases);

    if (op->rc == NGX_BUSY) {
        ngx_http_coord_log(r, limiter->conf->log_level, &fields,
                           "limiting connections%s by zone \"%V\"",
                           limiter->conf->dry_run ? ", dry run," : "",
                           &op->zone->name);

    } else {
        ngx_http_coord_limiter_log_failure(r, limiter, &fields);
    }

    return ngx_http_coord_limiter_refuse(r, limiter,
                                         &ngx_http_coord_limit_conn_problem);
}


static ngx_int_t
ngx_http_coord_limit_conn_pass(ngx_http_coord_limit_conn_state_t *state)
{
    ngx_uint_t               i;
    ngx_http_coord_lease_t  *lease;

    state->limiter.status = NGX_COORD_OUTCOME_BYPASSED;

    lease = state->leases.items.elts;

    for (i = 0; i < state->leases.items.nelts; i++) {
        if (lease[i].held) {
            state->limiter.status = state->leases.delayed
                                    ? NGX_COORD_OUTCOME_DELAYED
                                    : NGX_COORD_OUTCOME_PASSED;
            break;
        }
    }

    ngx_http_coord_limit_conn_count(state, 0);

    return NGX_DECLINED;
}


/* for the metrics */

static void
ngx_http_coord_limit_conn_count(ngx_http_coord_limit_conn_state_t *state,
    ngx_uint_t refused)
{
    ngx_uint_t                i, dry_run;
    ngx_http_coord_lease_t   *lease;
    ngx_http_coord_leases_t  *leases;

    leases = &state->leases;
    lease = leases->items.elts;
    dry_run = state->limiter.conf->dry_run;

    for (i = 0; i < leases->items.nelts; i++) {

        if (leases->turn == &lease[i] && lease[i].op.rc == NGX_OK && !refused)
        {
            ngx_coord_metrics_decision(lease[i].op.zone,
                                       NGX_COORD_OUTCOME_DELAYED);
            continue;
        }

        ngx_http_coord_limiter_count(&lease[i].op, refused, dry_run);
    }

    if (state->known.zone) {
        ngx_http_coord_limiter_count(&state->known, refused, dry_run);
    }
}


/* others have the place now: the request goes on beyond the limit */

static void
ngx_http_coord_limit_conn_lost(ngx_http_coord_lease_t *lease)
{
    ngx_http_request_t                 *r;
    ngx_http_coord_log_fields_t         fields;
    ngx_http_coord_limit_conn_state_t  *state;

    r = lease->leases->ctx->request->main;
    state = lease->leases->data;

    state->limiter.status = NGX_COORD_OUTCOME_LOST;

    ngx_memzero(&fields, sizeof(ngx_http_coord_log_fields_t));

    fields.op = &lease->op;
    fields.outcome = NGX_COORD_OUTCOME_LOST;

    ngx_http_coord_log(r, state->limiter.conf->log_level, &fields,
                       "connection lost its place in zone \"%V\"",
                       &lease->op.zone->name);
}


/* when something refuses the request */

static void
ngx_http_coord_limit_conn_undo(ngx_http_coord_ctx_t *ctx, void *data)
{
    ngx_http_coord_limit_conn_state_t *state = data;

    ngx_http_coord_leases_release(&state->leases);
    ngx_http_coord_limiter_given_back(&state->limiter);
}


static void
ngx_http_coord_limit_conn_end(ngx_http_coord_ctx_t *ctx, void *data)
{
    ngx_http_coord_limit_conn_state_t  *state;

    for (state = data;
         state;
         state = (ngx_http_coord_limit_conn_state_t *) state->limiter.previous)
    {
        ngx_http_coord_leases_release(&state->leases);
    }
}


static ngx_int_t
ngx_http_coord_limit_conn_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    return ngx_http_coord_limiter_variable(r, v,
                                           &ngx_http_coord_limit_conn_feature,
                                           data);
}
