
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_lock: one request at a time for a key, with a fencing number.
 */


#include "ngx_http_coord_limiter.h"
#include "ngx_http_coord_lease.h"
#include "ngx_http_coord_lock.h"


#define NGX_HTTP_COORD_LOCK_VAR_TOKEN  NGX_HTTP_COORD_VAR_OTHER

#define NGX_HTTP_COORD_LOCKED          423


typedef struct {
    ngx_http_coord_limiter_conf_t  limiter;
    ngx_http_coord_lease_limit_t   limit;        /* no zone: no lock */
} ngx_http_coord_lock_conf_t;


typedef struct {
    ngx_http_coord_limiter_t       limiter;
    ngx_http_coord_leases_t        leases;
    int64_t                        token;        /* 0: none */
} ngx_http_coord_lock_state_t;


static ngx_int_t ngx_http_coord_lock_begin(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx);
static ngx_int_t ngx_http_coord_lock_decide(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx);
static ngx_int_t ngx_http_coord_lock_refuse(ngx_http_request_t *r,
    ngx_http_coord_lock_state_t *state);
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
      NGX_HTTP_COORD_VAR_STATUS, NGX_HTTP_VAR_NOCACHEABLE, 0 },

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
          ngx_http_coord_lock_release,
          0 }
    },

    ngx_http_coord_lock_release,
    ngx_http_coord_lock_vars,
    ngx_http_coord_lock_routes,
    0
};


static const ngx_http_coord_problem_t  ngx_http_coord_lock_problem = {
    0,
    ngx_string("about:blank"),
    ngx_string("Locked"),
    ngx_string("Another request is working on this; try again when it has "
               "ended."),
    ngx_null_string,
    ngx_null_string,
    1
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

    ngx_http_coord_limiter_commands("coord_lock"),

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
    ngx_http_coord_lock_conf_t   *lkcf;
    ngx_http_coord_lock_state_t  *state;
    ngx_http_coord_lease_zone_t  *zone;

    lkcf = ngx_http_get_module_loc_conf(r, ngx_http_coord_lock_module);

    zone = lkcf->limit.zone->data;

    if (ngx_http_coord_zone_key(r, lkcf->limit.zone, zone->key, &key)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (key.len == 0) {
        return NGX_DECLINED;
    }

    state = ngx_http_coord_limiter_create(r, ctx, &lkcf->limiter,
                                          sizeof(ngx_http_coord_lock_state_t));

    if (state == NULL
        || ngx_http_coord_leases_init(r, ctx, &state->leases, 1) != NGX_OK)
    {
        return NGX_ERROR;
    }

    state->limiter.zone = lkcf->limit.zone->name;
    state->leases.data = state;
    state->leases.lost = ngx_http_coord_lock_lost;
    state->leases.nowait = lkcf->limiter.dry_run;
    state->leases.tokens = 1;

    return ngx_http_coord_leases_add(r, &state->leases, &lkcf->limit, &key, 1);
}


static ngx_int_t
ngx_http_coord_lock_decide(ngx_http_request_t *r, ngx_http_coord_ctx_t *ctx)
{
    ngx_int_t                     rc;
    ngx_http_coord_lease_t       *lease;
    ngx_http_coord_limiter_t     *limiter;
    ngx_http_coord_lock_state_t  *state;

    state = ctx->state[ctx->slot];
    limiter = &state->limiter;
    lease = state->leases.items.elts;

    rc = ngx_http_coord_leases_decide(&state->leases);

    if (rc == NGX_AGAIN) {
        limiter->status = NGX_COORD_OUTCOME_DELAYED;
        ngx_http_coord_lock_log(r, state, lease);
        return NGX_AGAIN;
    }

    if (rc != NGX_OK) {
        ngx_http_coord_leases_release(&state->leases);
        return NGX_ERROR;
    }

    if (state->leases.refused) {
        return ngx_http_coord_lock_refuse(r, state);
    }

    if (lease->held == NULL) {
        limiter->status = NGX_COORD_OUTCOME_BYPASSED;

    } else {
        state->token = lease->token;
        limiter->status = state->leases.delayed ? NGX_COORD_OUTCOME_DELAYED
                                                : NGX_COORD_OUTCOME_ACQUIRED;
    }

    ngx_coord_metrics_decision(lease->op.zone, limiter->status);

    return NGX_DECLINED;
}


static ngx_int_t
ngx_http_coord_lock_refuse(ngx_http_request_t *r,
    ngx_http_coord_lock_state_t *state)
{
    ngx_http_coord_lease_t    *lease;
    ngx_http_coord_limiter_t  *limiter;

    limiter = &state->limiter;
    lease = state->leases.refused;

    limiter->status = ngx_http_coord_limiter_refused(limiter, &lease->op);

    ngx_http_coord_limiter_count(&lease->op, 1, limiter->conf->dry_run);

    ngx_http_coord_leases_release(&state->leases);
    ngx_http_coord_lock_log(r, state, lease);

    return ngx_http_coord_limiter_refuse(r, limiter,
                                         &ngx_http_coord_lock_problem);
}


/* a refusal, or, one level lower, the begin of a wait */

static void
ngx_http_coord_lock_log(ngx_http_request_t *r,
    ngx_http_coord_lock_state_t *state, ngx_http_coord_lease_t *lease)
{
    ngx_uint_t                      delayed;
    ngx_http_coord_log_fields_t     fields;
    ngx_http_coord_limiter_conf_t  *conf;

    conf = state->limiter.conf;
    delayed = (state->limiter.status == NGX_COORD_OUTCOME_DELAYED);

    ngx_memzero(&fields, sizeof(ngx_http_coord_log_fields_t));

    fields.op = &lease->op;
    fields.outcome = state->limiter.status;
    fields.why = ngx_http_coord_leases_reason(&state->leases);

    if (!delayed && lease->op.rc != NGX_BUSY) {
        ngx_http_coord_limiter_log_failure(r, &state->limiter, &fields);
        return;
    }

    ngx_http_coord_log(r, delayed ? conf->delay_log_level : conf->log_level,
                       &fields, "%s%s by lock zone \"%V\"",
                       delayed ? "delaying request" : "refusing request",
                       conf->dry_run ? ", dry run," : "",
                       &lease->op.zone->name);
}


/* another request may have the lock by now: only the token tells them apart */

static void
ngx_http_coord_lock_lost(ngx_http_coord_lease_t *lease)
{
    ngx_http_request_t           *r;
    ngx_http_coord_lock_state_t  *state;
    ngx_http_coord_log_fields_t   fields;

    r = lease->leases->ctx->request->main;
    state = lease->leases->data;

    state->limiter.status = NGX_COORD_OUTCOME_LOST;

    ngx_memzero(&fields, sizeof(ngx_http_coord_log_fields_t));

    fields.op = &lease->op;
    fields.outcome = NGX_COORD_OUTCOME_LOST;

    ngx_http_coord_log(r, state->limiter.conf->log_level, &fields,
                       "request lost its lock in zone \"%V\", token: %L",
                       &lease->op.zone->name, state->token);
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
    ngx_http_coord_lock_state_t  *state;

    if (data != NGX_HTTP_COORD_LOCK_VAR_TOKEN) {
        return ngx_http_coord_limiter_variable(r, v,
                                               &ngx_http_coord_lock_feature,
                                               data);
    }

    state = ngx_http_coord_limiter_state(r, &ngx_http_coord_lock_feature);

    if (state == NULL || state->token == 0) {
        v->not_found = 1;
        return NGX_OK;
    }

    return ngx_http_coord_variable_number(r, v, state->token);
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

    ngx_http_coord_limiter_conf_init(&conf->limiter);

    return conf;
}


static char *
ngx_http_coord_lock_merge_conf(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_http_coord_lock_conf_t  *prev = parent;
    ngx_http_coord_lock_conf_t  *conf = child;

    ngx_uint_t  inherited;

    ngx_http_coord_limiter_conf_merge(&conf->limiter, &prev->limiter,
                                      NGX_HTTP_COORD_LOCKED);

    inherited = (conf->limit.zone == NULL && !conf->limiter.off);

    if (inherited) {
        conf->limit = prev->limit;
    }

    if (conf->limit.zone) {
        ngx_http_coord_feature_enable(cf, &ngx_http_coord_lock_feature,
                                      NGX_HTTP_COORD_PRECONTENT, inherited);
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
    ngx_http_coord_lock_conf_t *lkcf = conf;

    ngx_int_t    rc;
    ngx_str_t   *value, name;
    ngx_uint_t   i;

    if (lkcf->limit.zone || lkcf->limiter.off) {
        return "is duplicate";
    }

    value = cf->args->elts;

    if (ngx_http_coord_limiter_off(cf, &lkcf->limiter)) {
        return NGX_CONF_OK;
    }

    lkcf->limit.on_failure = NGX_CONF_UNSET_UINT;
    lkcf->limit.zone = ngx_http_coord_zone_arg(cf, cmd,
                                           &ngx_http_coord_lock_feature.kind);
    if (lkcf->limit.zone == NULL) {
        return NGX_CONF_ERROR;
    }

    for (i = 1; i < cf->args->nelts; i++) {

        if (ngx_http_coord_param(&value[i], "zone=", &name)) {
            continue;
        }

        rc = ngx_http_coord_lease_param(cf, &lkcf->limit, &value[i]);

        if (rc == NGX_ERROR) {
            return NGX_CONF_ERROR;
        }

        if (rc == NGX_DECLINED || lkcf->limit.queue) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid parameter \"%V\", allowed are "
                               "\"zone=\", \"wait=\" and \"on_failure=\"",
                               &value[i]);
            return NGX_CONF_ERROR;
        }
    }

    return NGX_CONF_OK;
}
