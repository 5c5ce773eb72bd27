
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_session: the directives.  Requests are decided in
 * ngx_http_coord_session.c.
 */


#include "ngx_http_coord_conf.h"
#include "ngx_http_coord_session.h"
#include "ngx_coord_parse.h"


#define NGX_HTTP_COORD_SESSION_TTL  (3600 * NGX_COORD_NSEC_PER_SEC)


static ngx_int_t ngx_http_coord_session_preconfiguration(ngx_conf_t *cf);
static void *ngx_http_coord_session_create_srv_conf(ngx_conf_t *cf);
static void *ngx_http_coord_session_create_conf(ngx_conf_t *cf);
static char *ngx_http_coord_session_merge_conf(ngx_conf_t *cf, void *parent,
    void *child);
static ngx_int_t ngx_http_coord_session_init(ngx_conf_t *cf);
static ngx_int_t ngx_http_coord_session_header_filter(ngx_http_request_t *r);
static char *ngx_http_coord_session_zone(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static ngx_int_t ngx_http_coord_session_zone_time(ngx_conf_t *cf,
    ngx_str_t *value, const char *name, ngx_coord_nsec_t *ns);
static char *ngx_http_coord_session(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static ngx_int_t ngx_http_coord_session_param(ngx_conf_t *cf,
    ngx_http_coord_session_use_t *use, ngx_str_t *value);
static ngx_int_t ngx_http_coord_session_learn_param(ngx_conf_t *cf,
    ngx_http_coord_session_use_t *use, ngx_str_t *value);
static ngx_int_t ngx_http_coord_session_action(ngx_conf_t *cf,
    ngx_str_t *value, const char *name, ngx_uint_t rebind,
    ngx_uint_t *action);


static ngx_command_t  ngx_http_coord_session_commands[] = {

    { ngx_string("coord_session_zone"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_2MORE,
      ngx_http_coord_session_zone,
      0,
      0,
      NULL },

    { ngx_string("coord_session"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_1MORE,
      ngx_http_coord_session,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("coord_session_cookie"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_1MORE,
      ngx_http_coord_session_cookie,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("coord_session_log_level"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_enum_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_coord_session_conf_t, log_level),
      &ngx_http_coord_log_levels },

    { ngx_string("coord_session_status"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_num_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_coord_session_conf_t, status_code),
      &ngx_http_coord_status_bounds },

    { ngx_string("coord_session_dry_run"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_FLAG,
      ngx_conf_set_flag_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_coord_session_conf_t, dry_run),
      NULL },

    { ngx_string("coord_sticky"),
      NGX_HTTP_UPS_CONF|NGX_CONF_TAKE1,
      ngx_http_coord_sticky,
      NGX_HTTP_SRV_CONF_OFFSET,
      0,
      NULL },

      ngx_null_command
};


static ngx_http_module_t  ngx_http_coord_session_module_ctx = {
    ngx_http_coord_session_preconfiguration, /* preconfiguration */
    ngx_http_coord_session_init,           /* postconfiguration */

    NULL,                                  /* create main configuration */
    NULL,                                  /* init main configuration */

    ngx_http_coord_session_create_srv_conf, /* create server configuration */
    NULL,                                  /* merge server configuration */

    ngx_http_coord_session_create_conf,    /* create location configuration */
    ngx_http_coord_session_merge_conf      /* merge location configuration */
};


ngx_module_t  ngx_http_coord_session_module = {
    NGX_MODULE_V1,
    &ngx_http_coord_session_module_ctx,    /* module context */
    ngx_http_coord_session_commands,       /* module directives */
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


ngx_http_variable_t  ngx_http_coord_session_vars[] = {

    { ngx_string("coord_session_status"), NULL,
      ngx_http_coord_session_variable,
      NGX_HTTP_COORD_SESSION_VAR_STATUS, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("coord_session_value"), NULL,
      ngx_http_coord_session_variable,
      NGX_HTTP_COORD_SESSION_VAR_VALUE, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("coord_session_age"), NULL,
      ngx_http_coord_session_variable,
      NGX_HTTP_COORD_SESSION_VAR_AGE, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("coord_session_id"), NULL,
      ngx_http_coord_session_id_variable,
      0, NGX_HTTP_VAR_NOCACHEABLE, 0 },

      ngx_http_null_variable
};


static ngx_http_output_header_filter_pt  ngx_http_next_header_filter;


static ngx_int_t
ngx_http_coord_session_preconfiguration(ngx_conf_t *cf)
{
    return ngx_http_coord_feature_add(cf, &ngx_http_coord_session_feature);
}


static void *
ngx_http_coord_session_create_srv_conf(ngx_conf_t *cf)
{
    /*
     * set by ngx_pcalloc():
     *
     *     conf->value = NULL;
     */

    return ngx_pcalloc(cf->pool, sizeof(ngx_http_coord_sticky_conf_t));
}


static void *
ngx_http_coord_session_create_conf(ngx_conf_t *cf)
{
    ngx_http_coord_session_conf_t  *conf;

    conf = ngx_pcalloc(cf->pool, sizeof(ngx_http_coord_session_conf_t));
    if (conf == NULL) {
        return NULL;
    }

    /*
     * set by ngx_pcalloc():
     *
     *     conf->use = NULL;
     */

    conf->cookie = NGX_CONF_UNSET_PTR;
    conf->log_level = NGX_CONF_UNSET_UINT;
    conf->status_code = NGX_CONF_UNSET_UINT;
    conf->dry_run = NGX_CONF_UNSET;

    return conf;
}


static char *
ngx_http_coord_session_merge_conf(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_http_coord_session_conf_t  *prev = parent;
    ngx_http_coord_session_conf_t  *conf = child;

    ngx_uint_t  inherited;

    inherited = (conf->use == NULL && conf->cookie == NULL);

    if (conf->use == NULL) {
        conf->use = prev->use;
    }

    ngx_conf_merge_ptr_value(conf->cookie, prev->cookie, NULL);

    ngx_conf_merge_uint_value(conf->log_level, prev->log_level, NGX_LOG_ERR);
    ngx_conf_merge_uint_value(conf->status_code, prev->status_code,
                              NGX_HTTP_FORBIDDEN);
    ngx_conf_merge_value(conf->dry_run, prev->dry_run, 0);

    if (conf->use || conf->cookie) {
        ngx_http_coord_feature_enable(cf, &ngx_http_coord_session_feature,
                                      NGX_HTTP_COORD_PREACCESS, inherited);
    }

    if (conf->use) {
        ngx_http_coord_feature_enable(cf, &ngx_http_coord_session_feature,
                                      NGX_HTTP_COORD_PRECONTENT, inherited);
    }

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_coord_session_init(ngx_conf_t *cf)
{
    ngx_http_coord_main_conf_t  *cmcf;

    cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_coord_module);

    if ((cmcf->used & (1 << ngx_http_coord_session_feature.slot)) == 0) {
        return NGX_OK;
    }

    ngx_http_next_header_filter = ngx_http_top_header_filter;
    ngx_http_top_header_filter = ngx_http_coord_session_header_filter;

    return NGX_OK;
}


static ngx_int_t
ngx_http_coord_session_header_filter(ngx_http_request_t *r)
{
    ngx_http_coord_ctx_t  *ctx;

    if (r == r->main) {
        ctx = ngx_http_coord_get_ctx(r);

        if (ctx && ngx_http_coord_session_state(ctx)) {
            ngx_http_coord_session_learn(r, ctx);
        }
    }

    return ngx_http_next_header_filter(r);
}


static char *
ngx_http_coord_session_zone(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_str_t                      *value, name, store, rest;
    ngx_uint_t                      i;
    ngx_coord_zone_t               *zone;
    ngx_http_coord_session_zone_t  *sz;

    value = cf->args->elts;

    ngx_str_null(&name);
    ngx_str_null(&store);

    sz = ngx_pcalloc(cf->pool, sizeof(ngx_http_coord_session_zone_t));
    if (sz == NULL) {
        return NGX_CONF_ERROR;
    }

    sz->ttl = NGX_HTTP_COORD_SESSION_TTL;

    sz->key = ngx_http_coord_complex_value(cf, &value[1]);
    if (sz->key == NULL) {
        return NGX_CONF_ERROR;
    }

    for (i = 2; i < cf->args->nelts; i++) {

        if (ngx_http_coord_param(&value[i], "zone=", &name)
            || ngx_http_coord_param(&value[i], "store=", &store))
        {
            continue;
        }

        if (ngx_http_coord_param(&value[i], "ttl=", &rest)) {
            if (ngx_http_coord_session_zone_time(cf, &rest, "ttl", &sz->ttl)
                != NGX_OK)
            {
                return NGX_CONF_ERROR;
            }

            continue;
        }

        if (ngx_http_coord_param(&value[i], "absolute=", &rest)) {
            if (ngx_http_coord_session_zone_time(cf, &rest, "absolute",
                                                 &sz->absolute)
                != NGX_OK)
            {
                return NGX_CONF_ERROR;
            }

            continue;
        }

        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid parameter \"%V\", allowed are \"zone=\", "
                           "\"ttl=\", \"absolute=\" and \"store=\"",
                           &value[i]);
        return NGX_CONF_ERROR;
    }

    if (name.len == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%V\" must have \"zone\" parameter", &cmd->name);
        return NGX_CONF_ERROR;
    }

    zone = ngx_http_coord_zone_declare(cf,
                                       &ngx_http_coord_session_feature.kind,
                                       &name);
    if (zone == NULL) {
        return NGX_CONF_ERROR;
    }

    /* a coord_session that came first may have told that there are users */

    if (zone->data) {
        sz->users = ((ngx_http_coord_session_zone_t *) zone->data)->users;
    }

    zone->store_name = store;
    zone->data = sz;

    ngx_http_coord_zone_named_by(zone, &value[1]);

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_coord_session_zone_time(ngx_conf_t *cf, ngx_str_t *value,
    const char *name, ngx_coord_nsec_t *ns)
{
    ngx_int_t  ms;

    ms = ngx_parse_time(value, 0);

    if (ms == NGX_ERROR || ms == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid time \"%V\" in \"%s=\"", value, name);
        return NGX_ERROR;
    }

    *ns = (ngx_coord_nsec_t) ngx_min(ms, 315360000000LL)
          * NGX_COORD_NSEC_PER_MSEC;

    return NGX_OK;
}


static char *
ngx_http_coord_session(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_coord_session_conf_t *scf = conf;

    ngx_str_t                      *value, name;
    ngx_uint_t                      i;
    ngx_http_coord_session_use_t   *use;
    ngx_http_coord_session_zone_t  *sz;

    if (scf->use) {
        return "is duplicate";
    }

    value = cf->args->elts;

    ngx_str_null(&name);

    use = ngx_pcalloc(cf->pool, sizeof(ngx_http_coord_session_use_t));
    if (use == NULL) {
        return NGX_CONF_ERROR;
    }

    /*
     * set by ngx_pcalloc():
     *
     *     use->mismatch = NGX_HTTP_COORD_SESSION_REJECT;
     */

    use->missing = NGX_HTTP_COORD_SESSION_PASS;
    use->on_failure = NGX_CONF_UNSET_UINT;

    for (i = 1; i < cf->args->nelts; i++) {

        if (ngx_http_coord_param(&value[i], "zone=", &name)) {
            continue;
        }

        if (ngx_http_coord_session_param(cf, use, &value[i]) != NGX_OK) {
            return NGX_CONF_ERROR;
        }
    }

    if (name.len == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%V\" must have \"zone\" parameter", &cmd->name);
        return NGX_CONF_ERROR;
    }

    if (use->max_per_user && use->user == NULL) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"max_per_user=\" needs \"user=\"");
        return NGX_CONF_ERROR;
    }

    use->zone = ngx_http_coord_zone_get(cf,
                                        &ngx_http_coord_session_feature.kind,
                                        &name);
    if (use->zone == NULL) {
        return NGX_CONF_ERROR;
    }

    if (use->user) {

        if (use->zone->data == NULL) {
            sz = ngx_pcalloc(cf->pool, sizeof(ngx_http_coord_session_zone_t));
            if (sz == NULL) {
                return NGX_CONF_ERROR;
            }

            use->zone->data = sz;
        }

        sz = use->zone->data;
        sz->users = 1;
    }

    scf->use = use;

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_coord_session_param(ngx_conf_t *cf,
    ngx_http_coord_session_use_t *use, ngx_str_t *value)
{
    ngx_str_t  rest;

    if (ngx_http_coord_param(value, "bind=", &rest)) {
        use->bind = ngx_http_coord_complex_value(cf, &rest);
        return use->bind ? NGX_OK : NGX_ERROR;
    }

    if (ngx_http_coord_param(value, "learn=", &rest)) {
        return ngx_http_coord_session_learn_param(cf, use, &rest);
    }

    if (ngx_http_coord_param(value, "user=", &rest)) {
        use->user = ngx_http_coord_complex_value(cf, &rest);
        return use->user ? NGX_OK : NGX_ERROR;
    }

    if (ngx_http_coord_param(value, "max_per_user=", &rest)) {

        if (ngx_coord_parse_count(&rest, 1, &use->max_per_user) == NGX_OK) {
            return NGX_OK;
        }

        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid value \"%V\" in \"max_per_user=\", "
                           "it must be a number from 1 to %d", &rest,
                           NGX_COORD_COUNT_MAX);
        return NGX_ERROR;
    }

    if (ngx_http_coord_param(value, "mismatch=", &rest)) {
        return ngx_http_coord_session_action(cf, &rest, "mismatch", 1,
                                             &use->mismatch);
    }

    if (ngx_http_coord_param(value, "missing=", &rest)) {
        return ngx_http_coord_session_action(cf, &rest, "missing", 0,
                                             &use->missing);
    }

    if (ngx_http_coord_param(value, "on_failure=", &rest)) {
        return ngx_http_coord_parse_on_failure(cf, &rest, &use->on_failure);
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid parameter \"%V\", allowed are \"zone=\", "
                       "\"bind=\", \"learn=\", \"user=\", "
                       "\"max_per_user=\", \"mismatch=\", \"missing=\" and "
                       "\"on_failure=\"", value);

    return NGX_ERROR;
}


static ngx_int_t
ngx_http_coord_session_learn_param(ngx_conf_t *cf,
    ngx_http_coord_session_use_t *use, ngx_str_t *value)
{
    if ((value->len == sizeof("$upstream_addr") - 1
         && ngx_strncmp(value->data, "$upstream_addr", value->len) == 0)
        || (value->len == sizeof("${upstream_addr}") - 1
            && ngx_strncmp(value->data, "${upstream_addr}", value->len) == 0))
    {
        use->learn_addr = 1;
    }

    use->learn = ngx_http_coord_complex_value(cf, value);

    return use->learn ? NGX_OK : NGX_ERROR;
}


static ngx_int_t
ngx_http_coord_session_action(ngx_conf_t *cf, ngx_str_t *value,
    const char *name, ngx_uint_t rebind, ngx_uint_t *action)
{
    if (ngx_strcmp(value->data, "reject") == 0) {
        *action = NGX_HTTP_COORD_SESSION_REJECT;
        return NGX_OK;
    }

    if (ngx_strcmp(value->data, "pass") == 0) {
        *action = NGX_HTTP_COORD_SESSION_PASS;
        return NGX_OK;
    }

    if (rebind && ngx_strcmp(value->data, "rebind") == 0) {
        *action = NGX_HTTP_COORD_SESSION_REBIND;
        return NGX_OK;
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid value \"%V\" in \"%s=\", it must be "
                       "\"reject\"%s or \"pass\"", value, name,
                       rebind ? ", \"rebind\"" : "");

    return NGX_ERROR;
}
