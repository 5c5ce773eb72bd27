
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_limit_conn: the directives.  Requests are decided in
 * ngx_http_coord_limit_conn.c.
 */


#include "ngx_http_coord_conf.h"
#include "ngx_http_coord_limit_conn.h"
#include "ngx_coord_parse.h"


/* as limit_conn */
#define NGX_HTTP_COORD_LIMIT_CONN_MAX  65535


static ngx_int_t ngx_http_coord_limit_conn_preconfiguration(ngx_conf_t *cf);
static void *ngx_http_coord_limit_conn_create_conf(ngx_conf_t *cf);
static char *ngx_http_coord_limit_conn_merge_conf(ngx_conf_t *cf,
    void *parent, void *child);
static char *ngx_http_coord_limit_conn_zone(ngx_conf_t *cf,
    ngx_command_t *cmd, void *conf);
static char *ngx_http_coord_limit_conn(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static ngx_int_t ngx_http_coord_limit_conn_args(ngx_conf_t *cf,
    ngx_command_t *cmd);
static ngx_int_t ngx_http_coord_limit_conn_number(ngx_conf_t *cf,
    ngx_http_coord_limit_conn_limit_t *limit, ngx_str_t *value);
static ngx_int_t ngx_http_coord_limit_conn_param(ngx_conf_t *cf,
    ngx_http_coord_limit_conn_limit_t *limit, ngx_str_t *value);


static ngx_command_t  ngx_http_coord_limit_conn_commands[] = {

    { ngx_string("coord_limit_conn_zone"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_2MORE,
      ngx_http_coord_limit_conn_zone,
      0,
      0,
      NULL },

    { ngx_string("coord_limit_conn"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_1MORE,
      ngx_http_coord_limit_conn,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    ngx_http_coord_limiter_commands("coord_limit_conn"),

      ngx_null_command
};


static ngx_http_module_t  ngx_http_coord_limit_conn_module_ctx = {
    ngx_http_coord_limit_conn_preconfiguration, /* preconfiguration */
    NULL,                                  /* postconfiguration */

    NULL,                                  /* create main configuration */
    NULL,                                  /* init main configuration */

    NULL,                                  /* create server configuration */
    NULL,                                  /* merge server configuration */

    ngx_http_coord_limit_conn_create_conf, /* create location configuration */
    ngx_http_coord_limit_conn_merge_conf   /* merge location configuration */
};


ngx_module_t  ngx_http_coord_limit_conn_module = {
    NGX_MODULE_V1,
    &ngx_http_coord_limit_conn_module_ctx, /* module context */
    ngx_http_coord_limit_conn_commands,    /* module directives */
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
ngx_http_coord_limit_conn_preconfiguration(ngx_conf_t *cf)
{
    return ngx_http_coord_feature_add(cf, &ngx_http_coord_limit_conn_feature);
}


static void *
ngx_http_coord_limit_conn_create_conf(ngx_conf_t *cf)
{
    ngx_http_coord_limit_conn_conf_t  *conf;

    conf = ngx_pcalloc(cf->pool, sizeof(ngx_http_coord_limit_conn_conf_t));
    if (conf == NULL) {
        return NULL;
    }

    /*
     * set by ngx_pcalloc():
     *
     *     conf->limits.elts = NULL;
     */

    ngx_http_coord_limiter_conf_init(&conf->limiter);

    return conf;
}


static char *
ngx_http_coord_limit_conn_merge_conf(ngx_conf_t *cf, void *parent,
    void *child)
{
    ngx_http_coord_limit_conn_conf_t  *prev = parent;
    ngx_http_coord_limit_conn_conf_t  *conf = child;

    ngx_uint_t                          i, inherited;
    ngx_http_coord_limit_conn_limit_t  *limits;

    ngx_http_coord_limiter_conf_merge(&conf->limiter, &prev->limiter,
                                      NGX_HTTP_TOO_MANY_REQUESTS);

    inherited = (conf->limits.elts == NULL && !conf->limiter.off);

    if (inherited) {
        conf->limits = prev->limits;
    }

    limits = conf->limits.elts;

    for (i = 0; i < conf->limits.nelts; i++) {
        ngx_http_coord_feature_enable(cf, &ngx_http_coord_limit_conn_feature,
                                      limits[i].stage, inherited);

        if (limits[i].body) {
            ngx_http_coord_feature_body(cf, inherited);
        }
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_coord_limit_conn_zone(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    return ngx_http_coord_lease_zone(cf, cmd,
                                     &ngx_http_coord_limit_conn_feature.kind);
}


static char *
ngx_http_coord_limit_conn(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_coord_limit_conn_conf_t *lccf = conf;

    ngx_str_t                          *value;
    ngx_uint_t                          i;
    ngx_http_coord_limit_conn_limit_t  *limit, *limits;

    value = cf->args->elts;

    if (lccf->limiter.off
        || (lccf->limits.elts
            && cf->args->nelts == 2
            && ngx_strcmp(value[1].data, "off") == 0))
    {
        return "is duplicate";
    }

    if (ngx_http_coord_limiter_off(cf, &lccf->limiter)) {
        return NGX_CONF_OK;
    }

    if (ngx_http_coord_limit_conn_args(cf, cmd) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    if (lccf->limits.elts == NULL) {
        if (ngx_array_init(&lccf->limits, cf->pool, 1,
                           sizeof(ngx_http_coord_limit_conn_limit_t))
            != NGX_OK)
        {
            return NGX_CONF_ERROR;
        }
    }

    limit = ngx_http_coord_limits_push(cf, &cmd->name, &lccf->limits);
    if (limit == NULL) {
        return NGX_CONF_ERROR;
    }

    ngx_memzero(limit, sizeof(ngx_http_coord_limit_conn_limit_t));

    limit->limit.on_failure = NGX_CONF_UNSET_UINT;

    limit->limit.zone = ngx_http_coord_zone_get(cf,
                                      &ngx_http_coord_limit_conn_feature.kind,
                                      &value[1]);
    if (limit->limit.zone == NULL) {
        return NGX_CONF_ERROR;
    }

    if (ngx_http_coord_limit_conn_number(cf, limit, &value[2]) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    for (i = 3; i < cf->args->nelts; i++) {
        if (ngx_http_coord_limit_conn_param(cf, limit, &value[i]) != NGX_OK) {
            return NGX_CONF_ERROR;
        }
    }

    if (limit->limit.queue && limit->limit.wait == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"queue=\" needs \"wait=\"");
        return NGX_CONF_ERROR;
    }

    limits = lccf->limits.elts;

    for (i = 0; i < lccf->limits.nelts - 1; i++) {
        if (limits[i].limit.zone == limit->limit.zone) {
            return "is duplicate";
        }
    }

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_coord_limit_conn_args(ngx_conf_t *cf, ngx_command_t *cmd)
{
    ngx_str_t  *value, name;

    value = cf->args->elts;

    if (ngx_http_coord_param(&value[1], "zone=", &name)) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "the zone of \"%V\" is its name alone, "
                           "as in \"%V %V 10\"",
                           &cmd->name, &cmd->name, &name);
        return NGX_ERROR;
    }

    if (cf->args->nelts < 3) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid number of arguments in \"%V\" directive",
                           &cmd->name);
        return NGX_ERROR;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_coord_limit_conn_number(ngx_conf_t *cf,
    ngx_http_coord_limit_conn_limit_t *limit, ngx_str_t *value)
{
    if (ngx_http_script_variables_count(value)) {
        limit->number_value = ngx_http_coord_complex_value(cf, value);

        return limit->number_value ? NGX_OK : NGX_ERROR;
    }

    if (ngx_coord_parse_count(value, 1, &limit->number) != NGX_OK) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid number of connections \"%V\"", value);
        return NGX_ERROR;
    }

    if (limit->number > NGX_HTTP_COORD_LIMIT_CONN_MAX) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "connection limit must be less than %d",
                           NGX_HTTP_COORD_LIMIT_CONN_MAX + 1);
        return NGX_ERROR;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_coord_limit_conn_param(ngx_conf_t *cf,
    ngx_http_coord_limit_conn_limit_t *limit, ngx_str_t *value)
{
    ngx_int_t  rc;

    rc = ngx_http_coord_lease_param(cf, &limit->limit, value);

    if (rc != NGX_DECLINED) {
        return rc;
    }

    if (ngx_strcmp(value->data, "after_auth") == 0) {
        limit->stage = NGX_HTTP_COORD_PRECONTENT;
        return NGX_OK;
    }

    if (ngx_strcmp(value->data, "after_body") == 0) {
        limit->stage = NGX_HTTP_COORD_PRECONTENT;
        limit->body = 1;
        return NGX_OK;
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid parameter \"%V\", allowed are \"wait=\", "
                       "\"queue=\", \"after_auth\", \"after_body\" and "
                       "\"on_failure=\"", value);

    return NGX_ERROR;
}
