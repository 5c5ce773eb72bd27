
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_limit_conn: the request side of limits of concurrent requests.
 * Directives are in ngx_http_coord_limit_conn_conf.c.
 */


#include "ngx_http_coord_limit_conn.h"
#include "ngx_coord_parse.h"


typedef struct ngx_http_coord_limit_conn_state_s
    ngx_http_coord_limit_conn_state_t;


struct ngx_http_coord_limit_conn_state_s {
    ngx_http_coord_leases_t             leases;
    ngx_http_coord_limit_conn_conf_t   *conf;
    ngx_http_coord_limit_conn_state_t  *previous;  /* of an earlier stage */

    ngx_http_coord_limit_conn_status_e  status;
    ngx_str_t                           zone;
    ngx_uint_t                          current;
    ngx_uint_t                          remaining;
    unsigned                            shown:1;  /* current is valid */
};


static ngx_int_t ngx_http_coord_limit_conn_begin(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx);
static ngx_int_t ngx_http_coord_limit_conn_ask(ngx_http_request_t *r,
    ngx_http_coord_limit_conn_state_t *state,
    ngx_http_coord_limit_conn_limit_t *limit);
static ngx_int_t ngx_http_coord_limit_conn_number(ngx_http_request_t *r,
    ngx_http_coord_limit_conn_limit_t *limit, ngx_uint_t *number);
static ngx_int_t ngx_http_coord_limit_conn_decide(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx);
static ngx_int_t ngx_http_coord_limit_conn_refuse(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx, ngx_http_coord_limit_conn_state_t *state);
static ngx_int_t ngx_http_coord_limit_conn_pass(ngx_http_request_t *r,
    ngx_http_coord_limit_conn_state_t *state);
static void ngx_http_coord_limit_conn_log(ngx_http_request_t *r,
    ngx_http_coord_limit_conn_state_t *state, ngx_http_coord_lease_t *lease);
static ngx_int_t ngx_http_coord_limit_conn_report(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx, ngx_http_coord_limit_conn_state_t *state);
static void ngx_http_coord_limit_conn_count(
    ngx_http_coord_limit_conn_state_t *state);
static void ngx_http_coord_limit_conn_lost(ngx_http_coord_lease_t *lease);
static void ngx_http_coord_limit_conn_release(ngx_http_coord_ctx_t *ctx,
    void *data);
static void ngx_http_coord_limit_conn_end(ngx_http_coord_ctx_t *ctx,
    void *data);


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
          ngx_http_coord_limit_conn_release },

        { 20,                              /* precontent: "after_auth" */
          ngx_http_coord_limit_conn_begin,
          ngx_http_coord_limit_conn_decide,
          ngx_http_coord_limit_conn_release }
    },

    ngx_http_coord_limit_conn_end,
    ngx_http_coord_limit_conn_vars,
    ngx_http_coord_limit_conn_routes,
    0
};


static const ngx_str_t  ngx_http_coord_limit_conn_statuses[] = {
    ngx_null_string,
    ngx_string("PASSED"),
    ngx_string("DELAYED"),
    ngx_string("REJECTED"),
    ngx_string("REJECTED_DRY_RUN"),
    ngx_string("BYPASSED")
};


static ngx_str_t  ngx_http_coord_limit_conn_lost_name = ngx_string("LOST");


static ngx_int_t
ngx_http_coord_limit_conn_begin(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx)
{
    ngx_uint_t                          i, after_auth;
    ngx_http_coord_limit_conn_conf_t   *lccf;
    ngx_http_coord_limit_conn_limit_t  *limits;
    ngx_http_coord_limit_conn_state_t  *state;

    lccf = ngx_http_get_module_loc_conf(r, ngx_http_coord_limit_conn_module);

    state = ngx_pcalloc(r->pool, sizeof(ngx_http_coord_limit_conn_state_t));
    if (state == NULL) {
        return NGX_ERROR;
    }

    if (ngx_http_coord_leases_init(r, ctx, &state->leases,
                                   lccf->limits.nelts)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    state->conf = lccf;
    state->leases.data = state;
    state->leases.lost = ngx_http_coord_limit_conn_lost;
    state->leases.nowait = lccf->dry_run;

    limits = lccf->limits.elts;
    after_auth = (ctx->stage == NGX_HTTP_COORD_PRECONTENT);

    for (i = 0; i < lccf->limits.nelts; i++) {

        if (limits[i].after_auth != after_auth) {
            continue;
        }

        if (ngx_http_coord_limit_conn_ask(r, state, &limits[i]) == NGX_ERROR) {
            return NGX_ERROR;
        }
    }

    if (state->leases.items.nelts == 0) {
        return NGX_DECLINED;
    }

    state->previous = ctx->state[ctx->slot];
    ctx->state[ctx->slot] = state;

    return NGX_OK;
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
    ngx_http_coord_lease_zone_t  *zone;

    zone = limit->limit.zone->data;

    if (ngx_http_complex_value(r, zone->key, &key) != NGX_OK) {
        return NGX_ERROR;
    }

    if (key.len == 0) {
        return NGX_DECLINED;
    }

    rc = ngx_http_coord_limit_conn_number(r, limit, &number);
    if (rc != NGX_OK) {
        return rc;
    }

    return ngx_http_coord_leases_add(r, &state->leases, &limit->limit, &key,
                                     number);
}


/* an empty number is none; what is invalid is logged, the limit not applied */

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
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "invalid number of connections \"%V\" in zone \"%V\", "
                      "the request is not limited by it",
                      &value, &limit->limit.zone->name);
        return NGX_DECLINED;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_coord_limit_conn_decide(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx)
{
    ngx_int_t                           rc;
    ngx_http_coord_limit_conn_state_t  *state;

    state = ctx->state[ctx->slot];

    rc = ngx_http_coord_leases_decide(&state->leases);

    if (rc == NGX_AGAIN) {
        state->status = NGX_HTTP_COORD_LIMIT_CONN_DELAYED;

        ngx_http_coord_limit_conn_log(r, state, state->leases.turn);

        return NGX_AGAIN;
    }

    if (rc != NGX_OK
        || ngx_http_coord_limit_conn_report(r, ctx, state) != NGX_OK)
    {
        ngx_http_coord_leases_release(&state->leases);
        return NGX_ERROR;
    }

    if (state->leases.refused) {
        return ngx_http_coord_limit_conn_refuse(r, ctx, state);
    }

    return ngx_http_coord_limit_conn_pass(r, state);
}


static ngx_int_t
ngx_http_coord_limit_conn_refuse(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx, ngx_http_coord_limit_conn_state_t *state)
{
    ngx_http_coord_lease_t            *lease;
    ngx_http_coord_problem_t           problem;
    ngx_http_coord_limit_conn_conf_t  *lccf;

    lccf = state->conf;
    lease = state->leases.refused;

    state->status = lccf->dry_run ? NGX_HTTP_COORD_LIMIT_CONN_REJECTED_DRY_RUN
                                  : NGX_HTTP_COORD_LIMIT_CONN_REJECTED;

    ngx_http_coord_limit_conn_count(state);
    ngx_http_coord_leases_release(&state->leases);
    ngx_http_coord_limit_conn_log(r, state, lease);

    if (lccf->dry_run) {
        return NGX_DECLINED;
    }

    if (lease->op.rc == NGX_ERROR) {
        return ngx_http_coord_refuse_unavailable(r, ctx);
    }

    ngx_memzero(&problem, sizeof(ngx_http_coord_problem_t));

    problem.status = lccf->status_code;

    /* nobody knows when a request will end */

    problem.retry_after = 1;

    ngx_str_set(&problem.type,
                "https://iana.org/assignments/http-problem-types"
                "#temporary-reduced-capacity");
    ngx_str_set(&problem.title, "Request cannot be satisfied due to "
                                "temporary server capacity constraints");
    ngx_str_set(&problem.detail, "Too many requests at a time; try again "
                                 "when one of them has ended.");

    return ngx_http_coord_refuse(r, ctx, &problem);
}


static ngx_int_t
ngx_http_coord_limit_conn_pass(ngx_http_request_t *r,
    ngx_http_coord_limit_conn_state_t *state)
{
    ngx_uint_t               i;
    ngx_http_coord_lease_t  *lease;

    state->status = NGX_HTTP_COORD_LIMIT_CONN_BYPASSED;

    lease = state->leases.items.elts;

    for (i = 0; i < state->leases.items.nelts; i++) {
        if (lease[i].held) {
            state->status = state->leases.delayed
                            ? NGX_HTTP_COORD_LIMIT_CONN_DELAYED
                            : NGX_HTTP_COORD_LIMIT_CONN_PASSED;
            break;
        }
    }

    ngx_http_coord_limit_conn_count(state);

    return NGX_DECLINED;
}


/* a refusal, or, one level lower, the begin of a wait */

static void
ngx_http_coord_limit_conn_log(ngx_http_request_t *r,
    ngx_http_coord_limit_conn_state_t *state, ngx_http_coord_lease_t *lease)
{
    u_char                    buf[NGX_HTTP_COORD_LOG_TAIL];
    ngx_str_t                 tail, *zone;
    ngx_uint_t                level;
    ngx_http_coord_leases_t  *leases;

    leases = &state->leases;
    zone = &lease->limit->zone->name;

    level = (state->status == NGX_HTTP_COORD_LIMIT_CONN_DELAYED)
            ? state->conf->delay_log_level : state->conf->log_level;

    if (level > r->connection->log->log_level) {
        return;
    }

    tail = ngx_http_coord_log_tail(buf, &lease->op,
                           &ngx_http_coord_limit_conn_statuses[state->status]);

    if (state->status == NGX_HTTP_COORD_LIMIT_CONN_DELAYED) {
        ngx_log_error(level, r->connection->log, 0,
                      "delaying request by zone \"%V\"%V", zone, &tail);
        return;
    }

    ngx_log_error(level, r->connection->log, 0,
                  "limiting connections%s by zone \"%V\"%V%s",
                  state->conf->dry_run ? ", dry run," : "", zone, &tail,
                  leases->timedout ? ", waited too long"
                                   : leases->full ? ", queue is full" : "");
}


/* fills the RateLimit fields and the variables: the tightest limit counts */

static ngx_int_t
ngx_http_coord_limit_conn_report(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx, ngx_http_coord_limit_conn_state_t *state)
{
    ngx_uint_t                i, refused;
    ngx_coord_op_t           *op;
    ngx_http_coord_lease_t   *lease;
    ngx_http_coord_report_t  *report;

    refused = 0;
    lease = state->leases.items.elts;

    for (i = 0; i < state->leases.items.nelts; i++) {
        op = &lease[i].op;

        if (state->zone.len == 0) {
            state->zone = op->zone->name;
        }

        if (op->rc == NGX_ERROR) {
            continue;
        }

        report = ngx_http_coord_report(r, ctx);
        if (report == NULL) {
            return NGX_ERROR;
        }

        report->policy = op->zone->name;
        report->quota = op->u.lease.limit;
        report->connections = 1;
        report->refused = (op->rc == NGX_BUSY);

        if (!report->refused) {
            report->remaining = op->u.lease.limit
                                - ngx_min(op->u.lease.current,
                                          op->u.lease.limit);
        }

        if (state->shown
            && (refused || (report->remaining >= state->remaining
                            && !report->refused)))
        {
            continue;
        }

        refused = report->refused;

        state->shown = 1;
        state->zone = report->policy;
        state->current = op->u.lease.current;
        state->remaining = report->remaining;
    }

    return NGX_OK;
}


/* for the metrics */

static void
ngx_http_coord_limit_conn_count(ngx_http_coord_limit_conn_state_t *state)
{
    ngx_uint_t                i;
    ngx_http_coord_lease_t   *lease;
    ngx_http_coord_leases_t  *leases;

    leases = &state->leases;
    lease = leases->items.elts;

    for (i = 0; i < leases->items.nelts; i++) {

        if (leases->turn == &lease[i] && lease[i].op.rc == NGX_OK
            && leases->refused == NULL)
        {
            ngx_coord_metrics_decision(lease[i].op.zone,
                                       NGX_COORD_OUTCOME_DELAYED);
            continue;
        }

        ngx_coord_metrics_limit(&lease[i].op, leases->refused != NULL,
                                state->conf->dry_run);
    }
}


/* others have the place now: the request goes on beyond the limit */

static void
ngx_http_coord_limit_conn_lost(ngx_http_coord_lease_t *lease)
{
    u_char                              buf[NGX_HTTP_COORD_LOG_TAIL];
    ngx_str_t                           tail;
    ngx_http_request_t                 *r;
    ngx_http_coord_limit_conn_state_t  *state;

    r = lease->leases->ctx->request->main;
    state = lease->leases->data;

    tail = ngx_http_coord_log_tail(buf, &lease->op,
                                   &ngx_http_coord_limit_conn_lost_name);

    ngx_log_error(state->conf->log_level, r->connection->log, 0,
                  "connection lost its place in zone \"%V\"%V",
                  &lease->limit->zone->name, &tail);
}


/* when a feature behind refuses */

static void
ngx_http_coord_limit_conn_release(ngx_http_coord_ctx_t *ctx, void *data)
{
    ngx_http_coord_limit_conn_state_t *state = data;

    ngx_http_coord_leases_release(&state->leases);
}


static void
ngx_http_coord_limit_conn_end(ngx_http_coord_ctx_t *ctx, void *data)
{
    ngx_http_coord_limit_conn_state_t  *state;

    for (state = data; state; state = state->previous) {
        ngx_http_coord_leases_release(&state->leases);
    }
}


ngx_int_t
ngx_http_coord_limit_conn_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    u_char                             *p;
    const ngx_str_t                    *s;
    ngx_http_coord_ctx_t               *ctx;
    ngx_http_coord_limit_conn_state_t  *state;

    ctx = ngx_http_coord_get_ctx(r);
    state = ctx ? ctx->state[ngx_http_coord_limit_conn_feature.slot] : NULL;

    if (state && state->status == 0) {
        state = state->previous;
    }

    if (state == NULL
        || state->status == 0
        || (data == NGX_HTTP_COORD_LIMIT_CONN_VAR_CURRENT && !state->shown))
    {
        v->not_found = 1;
        return NGX_OK;
    }

    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;

    if (data != NGX_HTTP_COORD_LIMIT_CONN_VAR_CURRENT) {
        s = (data == NGX_HTTP_COORD_LIMIT_CONN_VAR_STATUS)
            ? &ngx_http_coord_limit_conn_statuses[state->status]
            : &state->zone;

        v->data = s->data;
        v->len = s->len;
        return NGX_OK;
    }

    p = ngx_pnalloc(r->pool, NGX_INT_T_LEN);
    if (p == NULL) {
        return NGX_ERROR;
    }

    v->data = p;
    v->len = ngx_sprintf(p, "%ui", state->current) - p;

    return NGX_OK;
}
