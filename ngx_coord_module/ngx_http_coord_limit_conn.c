
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_limit_conn: the request side of limits of concurrent requests.
 * Directives are in ngx_http_coord_limit_conn_conf.c.
 */


#include "ngx_http_coord.h"
#include "ngx_http_coord_lease.h"
#include "ngx_http_coord_limit_conn.h"
#include "ngx_coord_lease.h"
#include "ngx_coord_parse.h"


/* one limit as asked for this request */
typedef struct {
    ngx_http_coord_limit_conn_limit_t  *limit;
    ngx_http_coord_limit_conn_conf_t   *conf;
    ngx_http_request_t                 *request;
    ngx_http_coord_ref_t                ref;
    ngx_coord_op_t                      op;     /* as answered */
    ngx_coord_held_t                   *held;
} ngx_http_coord_limit_conn_item_t;


typedef struct {
    ngx_http_coord_limit_conn_conf_t   *conf;
    ngx_array_t                         items;

    ngx_http_coord_limit_conn_status_e  status;
    ngx_str_t                           zone;
    ngx_uint_t                          current;
    ngx_uint_t                          remaining;
    unsigned                            shown:1;  /* current is valid */
} ngx_http_coord_limit_conn_state_t;


static ngx_int_t ngx_http_coord_limit_conn_begin(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx);
static ngx_int_t ngx_http_coord_limit_conn_ask(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx, ngx_http_coord_limit_conn_state_t *state,
    ngx_http_coord_limit_conn_limit_t *limit);
static ngx_int_t ngx_http_coord_limit_conn_number(ngx_http_request_t *r,
    ngx_http_coord_limit_conn_limit_t *limit, ngx_uint_t *number);
static ngx_int_t ngx_http_coord_limit_conn_decide(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx);
static ngx_int_t ngx_http_coord_limit_conn_refuse(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx, ngx_http_coord_limit_conn_state_t *state,
    ngx_http_coord_limit_conn_item_t *item);
static ngx_int_t ngx_http_coord_limit_conn_pass(ngx_http_request_t *r,
    ngx_http_coord_limit_conn_state_t *state);
static ngx_int_t ngx_http_coord_limit_conn_report(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx, ngx_http_coord_limit_conn_state_t *state);
static void ngx_http_coord_limit_conn_lost(void *data);
static void ngx_http_coord_limit_conn_undo(ngx_http_coord_ctx_t *ctx);


const ngx_http_coord_feature_t  ngx_http_coord_limit_conn_feature = {
    ngx_string("limit_conn"),
    NGX_HTTP_COORD_LIMIT_CONN,
    1 << NGX_HTTP_COORD_PREACCESS,
    ngx_http_coord_limit_conn_begin,
    ngx_http_coord_limit_conn_decide,
    ngx_http_coord_limit_conn_undo,
    ngx_http_coord_limit_conn_undo
};


static const ngx_str_t  ngx_http_coord_limit_conn_statuses[] = {
    ngx_null_string,
    ngx_string("PASSED"),
    ngx_string("REJECTED"),
    ngx_string("REJECTED_DRY_RUN"),
    ngx_string("BYPASSED")
};


static ngx_str_t  ngx_http_coord_limit_conn_lost_name = ngx_string("LOST");


static ngx_int_t
ngx_http_coord_limit_conn_begin(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx)
{
    ngx_uint_t                          i;
    ngx_http_coord_limit_conn_conf_t   *lccf;
    ngx_http_coord_limit_conn_limit_t  *limits;
    ngx_http_coord_limit_conn_state_t  *state;

    lccf = ngx_http_get_module_loc_conf(r, ngx_http_coord_limit_conn_module);

    state = ngx_pcalloc(r->pool, sizeof(ngx_http_coord_limit_conn_state_t));
    if (state == NULL) {
        return NGX_ERROR;
    }

    if (ngx_array_init(&state->items, r->pool, lccf->limits.nelts,
                       sizeof(ngx_http_coord_limit_conn_item_t))
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    state->conf = lccf;

    limits = lccf->limits.elts;

    for (i = 0; i < lccf->limits.nelts; i++) {
        if (ngx_http_coord_limit_conn_ask(r, ctx, state, &limits[i])
            == NGX_ERROR)
        {
            return NGX_ERROR;
        }
    }

    if (state->items.nelts == 0) {
        return NGX_DECLINED;
    }

    ctx->state[NGX_HTTP_COORD_LIMIT_CONN] = state;

    /* a request that has just ended frees its place before this one asks */

    ngx_coord_lease_flush();

    return NGX_OK;
}


/* NGX_DECLINED: this limit does not apply to the request */

static ngx_int_t
ngx_http_coord_limit_conn_ask(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx, ngx_http_coord_limit_conn_state_t *state,
    ngx_http_coord_limit_conn_limit_t *limit)
{
    ngx_str_t                          key;
    ngx_int_t                          rc;
    ngx_uint_t                         number;
    ngx_coord_op_t                    *op;
    ngx_http_coord_ref_t               ref;
    ngx_http_coord_lease_zone_t       *zone;
    ngx_http_coord_limit_conn_item_t  *item;

    zone = limit->zone->data;

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

    op = ngx_http_coord_add(r, ctx, NGX_COORD_OP_LEASE_ACQUIRE, limit->zone,
                            &key, 0, limit->on_failure, &ref);
    if (op == NULL) {
        return NGX_ERROR;
    }

    op->u.lease.limit = number;
    op->u.lease.lease = zone->lease;

    if (ngx_coord_id(op->id) != NGX_OK) {
        return NGX_ERROR;
    }

    item = ngx_array_push(&state->items);
    if (item == NULL) {
        return NGX_ERROR;
    }

    item->limit = limit;
    item->conf = state->conf;
    item->request = r->main;
    item->ref = ref;
    item->held = NULL;

    return NGX_OK;
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
                      &value, &limit->zone->name);
        return NGX_DECLINED;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_coord_limit_conn_decide(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx)
{
    ngx_uint_t                          i;
    ngx_coord_op_t                     *op;
    ngx_http_coord_limit_conn_item_t   *item, *refused;
    ngx_http_coord_limit_conn_state_t  *state;

    state = ctx->state[NGX_HTTP_COORD_LIMIT_CONN];

    refused = NULL;
    item = state->items.elts;

    for (i = 0; i < state->items.nelts; i++) {
        op = ngx_http_coord_op(ctx, item[i].ref);

        item[i].op = *op;

        if (op->rc == NGX_OK) {
            item[i].held = ngx_coord_lease_hold(op,
                                                ngx_http_coord_limit_conn_lost,
                                                &item[i]);
            if (item[i].held == NULL) {
                item[i].op.rc = NGX_ERROR;
            }

            continue;
        }

        if (op->rc == NGX_ERROR
            && op->on_failure != NGX_COORD_FAILURE_CLOSED)
        {
            continue;
        }

        if (refused == NULL) {
            refused = &item[i];
        }
    }

    if (ngx_http_coord_limit_conn_report(r, ctx, state) != NGX_OK) {
        ngx_http_coord_limit_conn_undo(ctx);
        return NGX_ERROR;
    }

    for (i = 0; i < state->items.nelts; i++) {
        ngx_coord_metrics_limit(&item[i].op, refused != NULL,
                                state->conf->dry_run);
    }

    if (refused) {
        return ngx_http_coord_limit_conn_refuse(r, ctx, state, refused);
    }

    return ngx_http_coord_limit_conn_pass(r, state);
}


static ngx_int_t
ngx_http_coord_limit_conn_refuse(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx, ngx_http_coord_limit_conn_state_t *state,
    ngx_http_coord_limit_conn_item_t *item)
{
    u_char                             buf[NGX_HTTP_COORD_LOG_TAIL];
    ngx_str_t                          tail;
    ngx_uint_t                         dry_run;
    ngx_http_coord_problem_t           problem;
    ngx_http_coord_limit_conn_conf_t  *lccf;

    lccf = state->conf;
    dry_run = lccf->dry_run;

    state->status = dry_run ? NGX_HTTP_COORD_LIMIT_CONN_REJECTED_DRY_RUN
                            : NGX_HTTP_COORD_LIMIT_CONN_REJECTED;

    ngx_http_coord_limit_conn_undo(ctx);

    if (lccf->log_level <= r->connection->log->log_level) {
        tail = ngx_http_coord_log_tail(buf, &item->op,
                           &ngx_http_coord_limit_conn_statuses[state->status]);

        ngx_log_error(lccf->log_level, r->connection->log, 0,
                      "limiting connections%s by zone \"%V\"%V",
                      dry_run ? ", dry run," : "",
                      &item->limit->zone->name, &tail);
    }

    if (dry_run) {
        return NGX_DECLINED;
    }

    if (item->op.rc == NGX_ERROR) {
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
    ngx_uint_t                         i;
    ngx_http_coord_limit_conn_item_t  *item;

    state->status = NGX_HTTP_COORD_LIMIT_CONN_BYPASSED;

    item = state->items.elts;

    for (i = 0; i < state->items.nelts; i++) {
        if (item[i].held) {
            state->status = NGX_HTTP_COORD_LIMIT_CONN_PASSED;
        }
    }

    return NGX_DECLINED;
}


/* fills the RateLimit fields and the variables: the tightest limit counts */

static ngx_int_t
ngx_http_coord_limit_conn_report(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx, ngx_http_coord_limit_conn_state_t *state)
{
    ngx_uint_t                         i, refused;
    ngx_coord_lease_t                 *lease;
    ngx_http_coord_report_t           *report;
    ngx_http_coord_limit_conn_item_t  *item;

    refused = 0;
    item = state->items.elts;

    for (i = 0; i < state->items.nelts; i++) {
        lease = &item[i].op.u.lease;

        if (state->zone.len == 0) {
            state->zone = item[i].limit->zone->name;
        }

        if (item[i].op.rc == NGX_ERROR) {
            continue;
        }

        report = ngx_http_coord_report(r, ctx);
        if (report == NULL) {
            return NGX_ERROR;
        }

        report->policy = item[i].limit->zone->name;
        report->quota = lease->limit;
        report->connections = 1;
        report->refused = (item[i].op.rc == NGX_BUSY);
        report->remaining = lease->limit
                            - ngx_min(lease->current, lease->limit);

        if (report->refused) {
            report->remaining = 0;
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
        state->current = lease->current;
        state->remaining = report->remaining;
    }

    return NGX_OK;
}


/* others have the place now: the request goes on beyond the limit */

static void
ngx_http_coord_limit_conn_lost(void *data)
{
    ngx_http_coord_limit_conn_item_t *item = data;

    u_char     buf[NGX_HTTP_COORD_LOG_TAIL];
    ngx_str_t  tail;

    tail = ngx_http_coord_log_tail(buf, &item->op,
                                   &ngx_http_coord_limit_conn_lost_name);

    ngx_log_error(item->conf->log_level, item->request->connection->log, 0,
                  "connection lost its place in zone \"%V\"%V",
                  &item->limit->zone->name, &tail);
}


/* when a feature behind refuses, and at the end of the request */

static void
ngx_http_coord_limit_conn_undo(ngx_http_coord_ctx_t *ctx)
{
    ngx_uint_t                          i;
    ngx_http_coord_limit_conn_item_t   *item;
    ngx_http_coord_limit_conn_state_t  *state;

    state = ctx->state[NGX_HTTP_COORD_LIMIT_CONN];

    item = state->items.elts;

    for (i = 0; i < state->items.nelts; i++) {
        if (item[i].held) {
            ngx_coord_lease_release(item[i].held);
            item[i].held = NULL;
        }
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
    state = ctx ? ctx->state[NGX_HTTP_COORD_LIMIT_CONN] : NULL;

    if (state == NULL || state->status == 0) {
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

    if (!state->shown) {
        v->valid = 0;
        v->not_found = 1;
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
