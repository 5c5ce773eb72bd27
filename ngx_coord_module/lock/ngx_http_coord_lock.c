
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_lock: one request at a time for a key, with a fencing number.
 */


#include "ngx_http_coord_conf.h"
#include "ngx_http_coord_lease.h"
#include "ngx_http_coord_lock.h"


typedef enum {
    NGX_HTTP_COORD_LOCK_ACQUIRED = 1,
    NGX_HTTP_COORD_LOCK_DELAYED,
    NGX_HTTP_COORD_LOCK_REJECTED,
    NGX_HTTP_COORD_LOCK_REJECTED_DRY_RUN,
    NGX_HTTP_COORD_LOCK_BYPASSED,
    NGX_HTTP_COORD_LOCK_LOST
} ngx_http_coord_lock_status_e;


#define NGX_HTTP_COORD_LOCK_VAR_STATUS  0
#define NGX_HTTP_COORD_LOCK_VAR_TOKEN   1


typedef struct {
    ngx_http_coord_lease_limit_t   limit;        /* no zone: no lock */
    ngx_uint_t                     log_level;
    ngx_uint_t                     delay_log_level;
    ngx_uint_t                     status_code;
    ngx_flag_t                     dry_run;
} ngx_http_coord_lock_conf_t;


typedef struct {
    ngx_http_coord_leases_t        leases;
    ngx_http_coord_lock_conf_t    *conf;
    ngx_http_coord_lock_status_e   status;
    int64_t                        token;        /* 0: none */
} ngx_http_coord_lock_state_t;


static ngx_int_t ngx_http_coord_lock_begin(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx);
static ngx_int_t ngx_http_coord_lock_decide(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx);
static ngx_int_t ngx_http_coord_lock_refuse(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx, ngx_http_coord_lock_state_t *state);
static void ngx_http_coord_lock_log(ngx_http_request_t *r,
    ngx_http_coord_lock_state_t *state, ngx_http_coord_lease_t *lease);
static void ngx_http_coord_lock_lost(ngx_http_coord_lease_t *lease);
static void ngx_http_coord_lock_release(ngx_http_coord_ctx_t *ctx,
    void *data);
static ngx_int_t ngx_http_coord_lock_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);

static ngx_int_t ngx_http_coord_lock_preconfiguration(ngx_conf_t *cf);
static void *ngx_http_coord_lock_create_conf(ngx_conf_t *cf);
static char *ngx_http_coord_lock_merge_conf(ngx_conf_t *cf, void *parent,
    void *child);
static char *ngx_http_coord_lock_zone(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_http_coord_lock(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);


extern ngx_module_t  ngx_http_coord_lock_module;


static ngx_http_variable_t  ngx_http_coord_lock_vars[] = {

    { ngx_string("coord_lock_status"), NULL,
      ngx_http_coord_lock_variable,
      NGX_HTTP_COORD_LOCK_VAR_STATUS, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("coord_lock_token"), NULL,
      ngx_http_coord_lock_variable,
      NGX_HTTP_COORD_LOCK_VAR_TOKEN, NGX_HTTP_VAR_NOCACHEABLE, 0 },

      ngx_http_null_variable
};


static ngx_http_coord_feature_t  ngx_http_coord_lock_feature = {

    { ngx_string("lock"),
      ngx_string("lk"),
      NGX_COORD_OUTCOMES_LIMIT | ngx_coord_outcome_bit(ACQUIRED),
      NGX_COORD_GAUGES_LEASE,
      1 },

    {
        ngx_http_coord_no_step,            /* preaccess */

        { 50,                              /* precontent */
          ngx_http_coord_lock_begin,
          ngx_http_coord_lock_decide,
          ngx_http_coord_lock_release }
    },

    ngx_http_coord_lock_release,
    ngx_http_coord_lock_vars,
    ngx_http_coord_lock_routes,
    0
};


static const ngx_str_t  ngx_http_coord_lock_statuses[] = {
    ngx_null_string,
    ngx_string("ACQUIRED"),
    ngx_string("DELAYED"),
    ngx_string("REJECTED"),
    ngx_string("REJECTED_DRY_RUN"),
    ngx_string("BYPASSED"),
    ngx_string("LOST")
};


static ngx_command_t  ngx_http_coord_lock_commands[] = {

    { ngx_string("coord_lock_zone"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_2MORE,
      ngx_http_coord_lock_zone,
      0,
      0,
      NULL },

    { ngx_string("coord_lock"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_1MORE,
      ngx_http_coord_lock,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("coord_lock_log_level"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_enum_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_coord_lock_conf_t, log_level),
      &ngx_http_coord_log_levels },

    { ngx_string("coord_lock_status"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_num_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_coord_lock_conf_t, status_code),
      &ngx_http_coord_status_bounds },

    { ngx_string("coord_lock_dry_run"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_FLAG,
      ngx_conf_set_flag_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_coord_lock_conf_t, dry_run),
      NULL },

      ngx_null_command
};


static ngx_http_module_t  ngx_http_coord_lock_module_ctx = {
    ngx_http_coord_lock_preconfiguration,  /* preconfiguration */
    NULL,                                  /* postconfiguration */

    NULL,                                  /* create main configuration */
    NULL,                                  /* init main configuration */

    NULL,                                  /* create server configuration */
    NULL,                                  /* merge server configuration */

    ngx_http_coord_lock_create_conf,       /* create location configuration */
    ngx_http_coord_lock_merge_conf         /* merge location configuration */
};


ngx_module_t  ngx_http_coord_lock_module = {
    NGX_MODULE_V1,
    &ngx_http_coord_lock_module_ctx,       /* module context */
    ngx_http_coord_lock_commands,          /* module directives */
    NGX_HTTP_MODULE,                       /* module type */
    NULL,                                  /* init master */
    NULL,                                  /* init module */
    NULL,                                  /* init process */
    NULL,                                  /* init thread */
    NULL,                                  /* exit thread */
    NULL,                                  /* exit process */
    NULL,                                  /* exit master */
    NGX_MODULE_V1_PADDING
};


static ngx_int_t
ngx_http_coord_lock_begin(ngx_http_request_t *r, ngx_http_coord_ctx_t *ctx)
{
    ngx_str_t                     key;
    ngx_http_coord_lock_conf_t   *lcf;
    ngx_http_coord_lock_state_t  *state;
    ngx_http_coord_lease_zone_t  *zone;

    lcf = ngx_http_get_module_loc_conf(r, ngx_http_coord_lock_module);

    zone = lcf->limit.zone->data;

    if (ngx_http_complex_value(r, zone->key, &key) != NGX_OK) {
        return NGX_ERROR;
    }

    if (key.len == 0) {
        return NGX_DECLINED;
    }

    state = ngx_pcalloc(r->pool, sizeof(ngx_http_coord_lock_state_t));
    if (state == NULL) {
        return NGX_ERROR;
    }

    if (ngx_http_coord_leases_init(r, ctx, &state->leases, 1) != NGX_OK) {
        return NGX_ERROR;
    }

    state->conf = lcf;
    state->leases.data = state;
    state->leases.lost = ngx_http_coord_lock_lost;
    state->leases.nowait = lcf->dry_run;
    state->leases.tokens = 1;

    if (ngx_http_coord_leases_add(r, &state->leases, &lcf->limit, &key, 1)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    ctx->state[ngx_http_coord_lock_feature.slot] = state;

    return NGX_OK;
}


static ngx_int_t
ngx_http_coord_lock_decide(ngx_http_request_t *r, ngx_http_coord_ctx_t *ctx)
{
    ngx_int_t                     rc;
    ngx_http_coord_lease_t       *lease;
    ngx_http_coord_lock_state_t  *state;

    state = ctx->state[ngx_http_coord_lock_feature.slot];
    lease = state->leases.items.elts;

    rc = ngx_http_coord_leases_decide(&state->leases);

    if (rc == NGX_AGAIN) {
        state->status = NGX_HTTP_COORD_LOCK_DELAYED;
        ngx_http_coord_lock_log(r, state, lease);
        return NGX_AGAIN;
    }

    if (rc != NGX_OK) {
        ngx_http_coord_leases_release(&state->leases);
        return NGX_ERROR;
    }

    if (state->leases.refused) {
        return ngx_http_coord_lock_refuse(r, ctx, state);
    }

    if (lease->held == NULL) {
        state->status = NGX_HTTP_COORD_LOCK_BYPASSED;

        ngx_coord_metrics_limit(&lease->op, 0, state->conf->dry_run);

        return NGX_DECLINED;
    }

    state->token = lease->token;
    state->status = state->leases.delayed ? NGX_HTTP_COORD_LOCK_DELAYED
                                          : NGX_HTTP_COORD_LOCK_ACQUIRED;

    ngx_coord_metrics_decision(lease->op.zone,
                               state->leases.delayed
                               ? NGX_COORD_OUTCOME_DELAYED
                               : NGX_COORD_OUTCOME_ACQUIRED);

    return NGX_DECLINED;
}


static ngx_int_t
ngx_http_coord_lock_refuse(ngx_http_request_t *r, ngx_http_coord_ctx_t *ctx,
    ngx_http_coord_lock_state_t *state)
{
    ngx_http_coord_lease_t    *lease;
    ngx_http_coord_problem_t   problem;

    lease = state->leases.refused;

    state->status = state->conf->dry_run
                    ? NGX_HTTP_COORD_LOCK_REJECTED_DRY_RUN
                    : NGX_HTTP_COORD_LOCK_REJECTED;

    ngx_coord_metrics_limit(&lease->op, 1, state->conf->dry_run);

    ngx_http_coord_leases_release(&state->leases);
    ngx_http_coord_lock_log(r, state, lease);

    if (state->conf->dry_run) {
        return NGX_DECLINED;
    }

    if (lease->op.rc == NGX_ERROR) {
        return ngx_http_coord_refuse_unavailable(r, ctx);
    }

    ngx_memzero(&problem, sizeof(ngx_http_coord_problem_t));

    problem.status = state->conf->status_code;
    problem.retry_after = 1;

    ngx_str_set(&problem.type, "about:blank");
    ngx_str_set(&problem.title, "Locked");
    ngx_str_set(&problem.detail, "Another request is working on this; try "
                                 "again when it has ended.");

    return ngx_http_coord_refuse(r, ctx, &problem);
}


static void
ngx_http_coord_lock_log(ngx_http_request_t *r,
    ngx_http_coord_lock_state_t *state, ngx_http_coord_lease_t *lease)
{
    u_char       buf[NGX_HTTP_COORD_LOG_TAIL];
    ngx_str_t    tail;
    ngx_uint_t   delayed, level;
    const char  *why;

    delayed = (state->status == NGX_HTTP_COORD_LOCK_DELAYED);
    level = delayed ? state->conf->delay_log_level : state->conf->log_level;

    if (level > r->connection->log->log_level) {
        return;
    }

    tail = ngx_http_coord_log_tail(buf, &lease->op,
                                 &ngx_http_coord_lock_statuses[state->status]);

    why = state->leases.timedout ? ", waited too long"
                                 : state->leases.full ? ", queue is full" : "";

    ngx_log_error(level, r->connection->log, 0,
                  "%s%s by lock zone \"%V\"%V%s",
                  delayed ? "delaying request" : "refusing request",
                  state->conf->dry_run ? ", dry run," : "",
                  &lease->limit->zone->name, &tail, why);
}


/* another request may have the lock by now: only the token tells them apart */

static void
ngx_http_coord_lock_lost(ngx_http_coord_lease_t *lease)
{
    u_char                        buf[NGX_HTTP_COORD_LOG_TAIL];
    ngx_str_t                     tail;
    ngx_http_request_t           *r;
    ngx_http_coord_lock_state_t  *state;

    r = lease->leases->ctx->request->main;
    state = lease->leases->data;

    state->status = NGX_HTTP_COORD_LOCK_LOST;

    tail = ngx_http_coord_log_tail(buf, &lease->op,
                                 &ngx_http_coord_lock_statuses[state->status]);

    ngx_log_error(state->conf->log_level, r->connection->log, 0,
                  "request lost its lock in zone \"%V\", token: %L%V",
                  &lease->limit->zone->name, state->token, &tail);
}


static void
ngx_http_coord_lock_release(ngx_http_coord_ctx_t *ctx, void *data)
{
    ngx_http_coord_lock_state_t *state = data;

    ngx_http_coord_leases_release(&state->leases);
}


static ngx_int_t
ngx_http_coord_lock_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    u_char                       *p;
    const ngx_str_t              *s;
    ngx_http_coord_ctx_t         *ctx;
    ngx_http_coord_lock_state_t  *state;

    ctx = ngx_http_coord_get_ctx(r);
    state = ctx ? ctx->state[ngx_http_coord_lock_feature.slot] : NULL;

    if (state == NULL
        || state->status == 0
        || (data == NGX_HTTP_COORD_LOCK_VAR_TOKEN && state->token == 0))
    {
        v->not_found = 1;
        return NGX_OK;
    }

    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;

    if (data == NGX_HTTP_COORD_LOCK_VAR_STATUS) {
        s = &ngx_http_coord_lock_statuses[state->status];

        v->data = s->data;
        v->len = s->len;
        return NGX_OK;
    }

    p = ngx_pnalloc(r->pool, NGX_INT64_LEN);
    if (p == NULL) {
        return NGX_ERROR;
    }

    v->data = p;
    v->len = ngx_sprintf(p, "%L", state->token) - p;

    return NGX_OK;
}


static ngx_int_t
ngx_http_coord_lock_preconfiguration(ngx_conf_t *cf)
{
    return ngx_http_coord_feature_add(cf, &ngx_http_coord_lock_feature);
}


static void *
ngx_http_coord_lock_create_conf(ngx_conf_t *cf)
{
    ngx_http_coord_lock_conf_t  *conf;

    conf = ngx_pcalloc(cf->pool, sizeof(ngx_http_coord_lock_conf_t));
    if (conf == NULL) {
        return NULL;
    }

    /*
     * set by ngx_pcalloc():
     *
     *     conf->limit.zone = NULL;
     */

    conf->log_level = NGX_CONF_UNSET_UINT;
    conf->status_code = NGX_CONF_UNSET_UINT;
    conf->dry_run = NGX_CONF_UNSET;

    return conf;
}


static char *
ngx_http_coord_lock_merge_conf(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_http_coord_lock_conf_t  *prev = parent;
    ngx_http_coord_lock_conf_t  *conf = child;

    if (conf->limit.zone == NULL) {
        conf->limit = prev->limit;
    }

    ngx_conf_merge_uint_value(conf->log_level, prev->log_level, NGX_LOG_ERR);

    conf->delay_log_level = (conf->log_level == NGX_LOG_INFO)
                            ? NGX_LOG_INFO : conf->log_level + 1;

    ngx_conf_merge_uint_value(conf->status_code, prev->status_code, 423);
    ngx_conf_merge_value(conf->dry_run, prev->dry_run, 0);

    if (conf->limit.zone) {
        ngx_http_coord_feature_enable(cf, &ngx_http_coord_lock_feature,
                                      NGX_HTTP_COORD_PRECONTENT);
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_coord_lock_zone(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    return ngx_http_coord_lease_zone(cf, cmd,
                                     &ngx_http_coord_lock_feature.kind);
}


static char *
ngx_http_coord_lock(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_coord_lock_conf_t *lcf = conf;

    ngx_int_t    rc;
    ngx_str_t   *value, name;
    ngx_uint_t   i;

    if (lcf->limit.zone) {
        return "is duplicate";
    }

    value = cf->args->elts;

    ngx_str_null(&name);

    for (i = 1; i < cf->args->nelts; i++) {
        if (ngx_http_coord_param(&value[i], "zone=", &name)) {
            break;
        }
    }

    if (name.len == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%V\" must have \"zone\" parameter", &cmd->name);
        return NGX_CONF_ERROR;
    }

    lcf->limit.on_failure = NGX_CONF_UNSET_UINT;
    lcf->limit.zone = ngx_http_coord_zone_get(cf,
                                            &ngx_http_coord_lock_feature.kind,
                                            &name);
    if (lcf->limit.zone == NULL) {
        return NGX_CONF_ERROR;
    }

    for (i = 1; i < cf->args->nelts; i++) {

        if (ngx_http_coord_param(&value[i], "zone=", &name)) {
            continue;
        }

        rc = ngx_http_coord_lease_param(cf, &lcf->limit, &value[i]);

        if (rc == NGX_ERROR) {
            return NGX_CONF_ERROR;
        }

        if (rc == NGX_DECLINED || lcf->limit.queue) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid parameter \"%V\", allowed are "
                               "\"zone=\", \"wait=\" and \"on_failure=\"",
                               &value[i]);
            return NGX_CONF_ERROR;
        }
    }

    return NGX_CONF_OK;
}
