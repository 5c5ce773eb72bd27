
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_session: the module and its zones.  Requests are decided in
 * ngx_http_coord_session.c.
 */


#include "ngx_http_coord_conf.h"
#include "ngx_http_coord_session.h"


#define NGX_HTTP_COORD_SESSION_TTL  (3600 * NGX_COORD_NSEC_PER_SEC)


static ngx_int_t ngx_http_coord_session_preconfiguration(ngx_conf_t *cf);
static void *ngx_http_coord_session_create_srv_conf(ngx_conf_t *cf);
static void *ngx_http_coord_session_create_conf(ngx_conf_t *cf);
static char *ngx_http_coord_session_merge_conf(ngx_conf_t *cf, void *parent,
    void *child);
static void ngx_http_coord_session_inherit(ngx_conf_t *cf,
    ngx_http_coord_session_conf_t *prev, ngx_http_coord_session_conf_t *conf);
static ngx_int_t ngx_http_coord_session_init(ngx_conf_t *cf);
static char *ngx_http_coord_session_zone(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static ngx_int_t ngx_http_coord_session_zone_param(ngx_conf_t *cf,
    ngx_http_coord_session_zone_t *sz, ngx_str_t *value);


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

    ngx_http_coord_limiter_commands("coord_session"),

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

    conf->use = NGX_CONF_UNSET_PTR;
    conf->cookie = NGX_CONF_UNSET_PTR;
    conf->inner_use = NGX_CONF_UNSET_PTR;
    conf->inner_cookie = NGX_CONF_UNSET_PTR;
    ngx_http_coord_limiter_conf_init(&conf->limiter);

    return conf;
}


static char *
ngx_http_coord_session_merge_conf(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_http_coord_session_conf_t  *prev = parent;
    ngx_http_coord_session_conf_t  *conf = child;

    ngx_http_coord_session_inherit(cf, prev, conf);

    ngx_http_coord_limiter_conf_merge(&conf->limiter, &prev->limiter,
                                      NGX_HTTP_FORBIDDEN);

    if (conf->use || conf->cookie) {
        ngx_http_coord_feature_enable(cf, &ngx_http_coord_session_feature,
                                      NGX_HTTP_COORD_PREACCESS, 0);
    }

    if (conf->use) {
        ngx_http_coord_feature_enable(cf, &ngx_http_coord_session_feature,
                                      NGX_HTTP_COORD_PRECONTENT, 0);

        ngx_http_coord_session_warn(cf, conf);
    }

    return NGX_CONF_OK;
}


/*
 * A location that is exempt has no session of an outer level, and its cookie
 * for one of its own only; those inside it have both.
 */

static void
ngx_http_coord_session_inherit(ngx_conf_t *cf,
    ngx_http_coord_session_conf_t *prev, ngx_http_coord_session_conf_t *conf)
{
    ngx_uint_t                 exempt;
    ngx_http_core_loc_conf_t  *clcf;

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    /* "if" in a location has its handler, and its lines */

    if (clcf->noname) {
        ngx_conf_merge_ptr_value(conf->use, prev->use, NULL);
        ngx_conf_merge_ptr_value(conf->cookie, prev->cookie, NULL);
        return;
    }

    exempt = ngx_http_coord_is_exempt(cf);

    conf->inner_use = conf->use;
    conf->inner_cookie = conf->cookie;

    ngx_conf_merge_ptr_value(conf->inner_use, prev->inner_use, prev->use);
    ngx_conf_merge_ptr_value(conf->inner_cookie, prev->inner_cookie,
                             prev->cookie);

    if (exempt) {
        ngx_conf_init_ptr_value(conf->use, NULL);
    }

    ngx_conf_merge_ptr_value(conf->use, conf->inner_use, NULL);

    if (exempt && conf->use == NULL) {
        ngx_conf_init_ptr_value(conf->cookie, NULL);
    }

    ngx_conf_merge_ptr_value(conf->cookie, conf->inner_cookie, NULL);
}


static ngx_int_t
ngx_http_coord_session_init(ngx_conf_t *cf)
{
    ngx_http_coord_sticky_check(cf);

    return NGX_OK;
}


static char *
ngx_http_coord_session_zone(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_str_t                      *value, name, store;
    ngx_uint_t                      i;
    ngx_coord_zone_t               *zone;
    ngx_http_coord_session_zone_t  *sz, *told;

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

    if (sz->key->lengths == NULL) {
        ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                           "the key \"%V\" of \"%V\" is constant: all "
                           "clients have one session", &value[1], &cmd->name);
    }

    sz->by_id = ngx_http_coord_session_names(&value[1], "coord_session_id");

    for (i = 2; i < cf->args->nelts; i++) {

        if (ngx_http_coord_param(&value[i], "zone=", &name)
            || ngx_http_coord_param(&value[i], "store=", &store))
        {
            continue;
        }

        if (ngx_http_coord_session_zone_param(cf, sz, &value[i]) != NGX_OK) {
            return NGX_CONF_ERROR;
        }
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

    /* what uses that came first have told */

    if (zone->data) {
        told = zone->data;
        sz->users = told->users;
        sz->revoked = told->revoked;
    }

    zone->store_name = store;
    zone->data = sz;

    ngx_http_coord_zone_named_by(zone, &value[1]);

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_coord_session_zone_param(ngx_conf_t *cf,
    ngx_http_coord_session_zone_t *sz, ngx_str_t *value)
{
    ngx_str_t  rest;

    if (ngx_http_coord_param(value, "ttl=", &rest)) {
        return ngx_http_coord_session_time(cf, &rest, "ttl", &sz->ttl);
    }

    if (ngx_http_coord_param(value, "absolute=", &rest)) {
        return ngx_http_coord_session_time(cf, &rest, "absolute",
                                                &sz->absolute);
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid parameter \"%V\", allowed are \"zone=\", "
                       "\"ttl=\", \"absolute=\" and \"store=\"", value);

    return NGX_ERROR;
}
