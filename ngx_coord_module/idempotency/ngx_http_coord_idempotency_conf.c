
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_idempotency: directives and variables.
 */


#include "ngx_http_coord_idempotency.h"
#include "ngx_http_coord_conf.h"


/* a record has to fit in a reply of Redis */
#define NGX_HTTP_COORD_IDEMPOTENCY_MAX   (8 * 1024 * 1024)


static void *ngx_http_coord_idempotency_create_main_conf(ngx_conf_t *cf);
static void *ngx_http_coord_idempotency_create_conf(ngx_conf_t *cf);
static char *ngx_http_coord_idempotency_merge_conf(ngx_conf_t *cf,
    void *parent, void *child);
static void ngx_http_coord_idempotency_merge_values(
    ngx_http_coord_idempotency_conf_t *prev,
    ngx_http_coord_idempotency_conf_t *conf);
static ngx_int_t ngx_http_coord_idempotency_use_zone(ngx_conf_t *cf,
    ngx_http_coord_idempotency_conf_t *conf);
static char *ngx_http_coord_idempotency_check(ngx_conf_t *cf,
    ngx_http_coord_idempotency_conf_t *conf, ngx_uint_t inherited);
static ngx_int_t ngx_http_coord_idempotency_preconfiguration(ngx_conf_t *cf);
static ngx_int_t ngx_http_coord_idempotency_init(ngx_conf_t *cf);
static ngx_int_t ngx_http_coord_idempotency_begin_handler(
    ngx_http_request_t *r);


static ngx_str_t  ngx_http_coord_default_key =
    ngx_string("$http_idempotency_key");
static ngx_str_t  ngx_http_coord_default_scope =
    ngx_string("$http_authorization");
static ngx_str_t  ngx_http_coord_request_digest =
    ngx_string("coord_request_digest");


static ngx_conf_bitmask_t  ngx_http_coord_idempotency_methods[] = {
    { ngx_string("GET"), NGX_HTTP_GET },
    { ngx_string("POST"), NGX_HTTP_POST },
    { ngx_string("PUT"), NGX_HTTP_PUT },
    { ngx_string("DELETE"), NGX_HTTP_DELETE },
    { ngx_string("PATCH"), NGX_HTTP_PATCH },
    { ngx_null_string, 0 }
};


static ngx_conf_enum_t  ngx_http_coord_idempotency_on_unknown[] = {
    { ngx_string("run"), NGX_HTTP_COORD_UNKNOWN_RUN },
    { ngx_string("conflict"), NGX_HTTP_COORD_UNKNOWN_CONFLICT },
    { ngx_null_string, 0 }
};


static ngx_command_t  ngx_http_coord_idempotency_commands[] = {

    { ngx_string("coord_idempotency"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE123,
      ngx_http_coord_idempotency,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("coord_idempotency_key"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_http_coord_idempotency_key_value,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("coord_idempotency_scope"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_http_coord_idempotency_scope,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("coord_idempotency_methods"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_1MORE,
      ngx_conf_set_bitmask_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_coord_idempotency_conf_t, methods),
      &ngx_http_coord_idempotency_methods },

    { ngx_string("coord_idempotency_ttl"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_http_coord_long_time_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_coord_idempotency_conf_t, ttl),
      NULL },

    { ngx_string("coord_idempotency_lease"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_msec_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_coord_idempotency_conf_t, lease),
      NULL },

    { ngx_string("coord_idempotency_wait"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_msec_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_coord_idempotency_conf_t, wait),
      NULL },

    { ngx_string("coord_idempotency_max_response"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_size_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_coord_idempotency_conf_t, max_response),
      NULL },

    { ngx_string("coord_idempotency_store_status"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_1MORE,
      ngx_http_coord_idempotency_store_status,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("coord_idempotency_on_unknown"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_enum_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_coord_idempotency_conf_t, on_unknown),
      &ngx_http_coord_idempotency_on_unknown },

    { ngx_string("coord_idempotency_store"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE12,
      ngx_http_coord_idempotency_store,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("coord_idempotency_no_store"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_1MORE,
      ngx_http_set_predicate_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_coord_idempotency_conf_t, no_store),
      NULL },

    { ngx_string("coord_idempotency_fingerprint"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_http_coord_idempotency_check_value,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("coord_idempotency_pass_header"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_1MORE,
      ngx_http_coord_idempotency_names,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_coord_idempotency_conf_t, pass),
      NULL },

    { ngx_string("coord_idempotency_hide_header"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_1MORE,
      ngx_http_coord_idempotency_names,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_coord_idempotency_conf_t, hide),
      NULL },

    { ngx_string("coord_idempotency_doc_url"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_str_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_coord_idempotency_conf_t, doc_url),
      NULL },

    ngx_http_coord_limiter_says("coord_idempotency"),

      ngx_null_command
};


static ngx_http_module_t  ngx_http_coord_idempotency_module_ctx = {
    ngx_http_coord_idempotency_preconfiguration, /* preconfiguration */
    ngx_http_coord_idempotency_init,       /* postconfiguration */

    ngx_http_coord_idempotency_create_main_conf, /* create main conf */
    NULL,                                  /* init main configuration */

    NULL,                                  /* create server configuration */
    NULL,                                  /* merge server configuration */

    ngx_http_coord_idempotency_create_conf, /* create location configuration */
    ngx_http_coord_idempotency_merge_conf  /* merge location configuration */
};


ngx_module_t  ngx_http_coord_idempotency_module = {
    NGX_MODULE_V1,
    &ngx_http_coord_idempotency_module_ctx, /* module context */
    ngx_http_coord_idempotency_commands,   /* module directives */
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


static void *
ngx_http_coord_idempotency_create_main_conf(ngx_conf_t *cf)
{
    ngx_http_coord_idempotency_main_conf_t  *imcf;

    imcf = ngx_pcalloc(cf->pool,
                       sizeof(ngx_http_coord_idempotency_main_conf_t));
    if (imcf == NULL) {
        return NULL;
    }

    if (ngx_array_init(&imcf->zones, cf->pool, 2, sizeof(ngx_coord_zone_t *))
        != NGX_OK
        || ngx_http_coord_idempotency_lint_create(cf, imcf) != NGX_OK)
    {
        return NULL;
    }

    return imcf;
}


static void *
ngx_http_coord_idempotency_create_conf(ngx_conf_t *cf)
{
    ngx_http_coord_idempotency_conf_t  *conf;

    conf = ngx_pcalloc(cf->pool, sizeof(ngx_http_coord_idempotency_conf_t));
    if (conf == NULL) {
        return NULL;
    }

    /*
     * set by ngx_pcalloc():
     *
     *     conf->key = NULL;
     *     conf->header = { 0, NULL };
     *     conf->scope = NULL;
     *     conf->global = 0;
     *     conf->key_body = 0;
     *     conf->scope_body = 0;
     *     conf->fingerprint_body = 0;
     *     conf->key_constant = 0;
     *     conf->fingerprint = NULL;
     *     conf->methods = 0;
     *     conf->doc_url = { 0, NULL };
     *     conf->zone = NULL;
     */

    ngx_http_coord_limiter_conf_init(&conf->limiter);

    conf->mode = NGX_CONF_UNSET_UINT;
    conf->shadow = NGX_CONF_UNSET;
    conf->on_failure = NGX_CONF_UNSET_UINT;
    conf->ttl = NGX_CONF_UNSET_MSEC;
    conf->lease = NGX_CONF_UNSET_MSEC;
    conf->wait = NGX_CONF_UNSET_MSEC;
    conf->max_response = NGX_CONF_UNSET_SIZE;
    conf->store_status = NGX_CONF_UNSET_PTR;
    conf->on_unknown = NGX_CONF_UNSET_UINT;
    conf->check = NGX_CONF_UNSET_UINT;
    conf->no_store = NGX_CONF_UNSET_PTR;
    conf->pass = NGX_CONF_UNSET_PTR;
    conf->hide = NGX_CONF_UNSET_PTR;

    return conf;
}


/* what goes together is inherited together */

static void
ngx_http_coord_idempotency_merge_values(
    ngx_http_coord_idempotency_conf_t *prev,
    ngx_http_coord_idempotency_conf_t *conf)
{
    if (conf->key == NULL) {
        conf->key = prev->key;
        conf->header = prev->header;
        conf->key_body = prev->key_body;
        conf->key_constant = prev->key_constant;
    }

    if (conf->scope == NULL && !conf->global) {
        conf->scope = prev->scope;
        conf->global = prev->global;
        conf->scope_body = prev->scope_body;
    }

    if (conf->check == NGX_CONF_UNSET_UINT) {
        conf->fingerprint = prev->fingerprint;
        conf->fingerprint_body = prev->fingerprint_body;
    }

    if (conf->zone == NULL) {
        conf->zone = prev->zone;
        conf->size = prev->size;
    }
}


static char *
ngx_http_coord_idempotency_merge_conf(ngx_conf_t *cf, void *parent,
    void *child)
{
    ngx_http_coord_idempotency_conf_t  *prev = parent;
    ngx_http_coord_idempotency_conf_t  *conf = child;

    ngx_uint_t  inherited;

    /* a refusal has the status of what is wrong */

    ngx_http_coord_limiter_conf_merge(&conf->limiter, &prev->limiter, 0);

    inherited = (conf->mode == NGX_CONF_UNSET_UINT);

    if (inherited) {
        conf->shadow = prev->shadow;
        conf->on_failure = prev->on_failure;
        conf->file = prev->file;
        conf->line = prev->line;
    }

    ngx_conf_merge_uint_value(conf->mode, prev->mode,
                              NGX_HTTP_COORD_IDEMPOTENCY_OFF);
    ngx_conf_merge_value(conf->shadow, conf->shadow, 0);

    ngx_http_coord_idempotency_merge_values(prev, conf);

    ngx_conf_merge_uint_value(conf->check, prev->check,
                              NGX_HTTP_COORD_FINGERPRINT_DEFAULT);
    ngx_conf_merge_ptr_value(conf->no_store, prev->no_store, NULL);

    ngx_conf_merge_bitmask_value(conf->methods, prev->methods,
                                 (NGX_CONF_BITMASK_SET
                                  |NGX_HTTP_POST|NGX_HTTP_PATCH));
    ngx_conf_merge_msec_value(conf->ttl, prev->ttl, 24 * 3600 * 1000);
    ngx_conf_merge_msec_value(conf->lease, prev->lease, 30000);
    ngx_conf_merge_msec_value(conf->wait, prev->wait, 0);

    conf->ttl = ngx_coord_msec_cut(conf->ttl);
    conf->lease = ngx_coord_msec_cut(conf->lease);
    conf->wait = ngx_coord_msec_cut(conf->wait);

    ngx_conf_merge_size_value(conf->max_response, prev->max_response,
                              1024 * 1024);
    ngx_conf_merge_ptr_value(conf->store_status, prev->store_status, NULL);
    ngx_conf_merge_uint_value(conf->on_unknown, prev->on_unknown,
                              NGX_HTTP_COORD_UNKNOWN_RUN);
    ngx_conf_merge_ptr_value(conf->pass, prev->pass, NULL);
    ngx_conf_merge_ptr_value(conf->hide, prev->hide, NULL);
    ngx_conf_merge_str_value(conf->doc_url, prev->doc_url, "");

    if (conf->mode == NGX_HTTP_COORD_IDEMPOTENCY_OFF) {
        return NGX_CONF_OK;
    }

    if (conf->key == NULL) {
        ngx_str_set(&conf->header, "idempotency_key");

        conf->key = ngx_http_coord_complex_value(cf,
                                          &ngx_http_coord_default_key);
        if (conf->key == NULL) {
            return NGX_CONF_ERROR;
        }
    }

    if (conf->scope == NULL && !conf->global) {
        conf->scope = ngx_http_coord_complex_value(cf,
                                          &ngx_http_coord_default_scope);
        if (conf->scope == NULL) {
            return NGX_CONF_ERROR;
        }
    }

    return ngx_http_coord_idempotency_check(cf, conf, inherited);
}


/* the zone of the default store, under whatever name it was asked for */

static ngx_int_t
ngx_http_coord_idempotency_use_zone(ngx_conf_t *cf,
    ngx_http_coord_idempotency_conf_t *conf)
{
    ngx_coord_zone_t                       **zones;
    ngx_http_coord_idempotency_main_conf_t  *imcf;

    imcf = ngx_http_conf_get_module_main_conf(cf,
                                           ngx_http_coord_idempotency_module);
    zones = imcf->zones.elts;

    if (conf->zone == NULL || conf->zone->store == zones[0]->store) {
        conf->zone = zones[0];

        if (conf->size) {
            imcf->size = ngx_max(imcf->size, conf->size);
            conf->zone->shm_zone->shm.size = imcf->size;
        }
    }

    conf->zone->used = 1;

    if (conf->wait && !conf->zone->wake) {
        conf->zone->wake = 1;

        return ngx_coord_wake_zone(cf->pool, conf->zone);
    }

    return NGX_OK;
}


static char *
ngx_http_coord_idempotency_check(ngx_conf_t *cf,
    ngx_http_coord_idempotency_conf_t *conf, ngx_uint_t inherited)
{
    size_t  i;

    if (ngx_http_coord_idempotency_use_zone(cf, conf) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    if (conf->lease < 1000 || conf->ttl < 1000) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "\"coord_idempotency_lease\" and "
                      "\"coord_idempotency_ttl\" must be at least one second "
                      "for \"coord_idempotency\" in %s:%ui",
                      conf->file, conf->line);
        return NGX_CONF_ERROR;
    }

    if (conf->max_response > NGX_HTTP_COORD_IDEMPOTENCY_MAX) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "\"coord_idempotency_max_response\" must be at most 8m "
                      "for \"coord_idempotency\" in %s:%ui",
                      conf->file, conf->line);
        return NGX_CONF_ERROR;
    }

    for (i = 0; i < conf->doc_url.len; i++) {
        if (conf->doc_url.data[i] <= 0x20
            || conf->doc_url.data[i] >= 0x7f
            || ngx_strchr("\"<>\\", conf->doc_url.data[i]))
        {
            ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                          "invalid URL \"%V\" in "
                          "\"coord_idempotency_doc_url\"", &conf->doc_url);
            return NGX_CONF_ERROR;
        }
    }

    if (conf->key_constant) {
        ngx_log_error(NGX_LOG_WARN, cf->log, 0,
                      "\"coord_idempotency_key\" is constant for "
                      "\"coord_idempotency\" in %s:%ui: all requests of a "
                      "scope have one key, the field of a request is "
                      "\"$http_<name>\"", conf->file, conf->line);
    }

    if (conf->scope && conf->scope->lengths == NULL) {
        ngx_log_error(NGX_LOG_WARN, cf->log, 0,
                      "\"coord_idempotency_scope\" is constant for "
                      "\"coord_idempotency\" in %s:%ui: who sends the key and "
                      "the request of another client gets its response",
                      conf->file, conf->line);
    }

    if (ngx_http_coord_idempotency_lint(cf, conf) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    ngx_http_coord_feature_enable(cf, &ngx_http_coord_idempotency_feature,
                                  NGX_HTTP_COORD_PRECONTENT, inherited);

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_coord_idempotency_preconfiguration(ngx_conf_t *cf)
{
    return ngx_http_coord_feature_add(cf, &ngx_http_coord_idempotency_feature);
}


static ngx_int_t
ngx_http_coord_idempotency_init(ngx_conf_t *cf)
{
    ngx_uint_t                               i;
    ngx_http_variable_t                     *v;
    ngx_http_core_main_conf_t               *cmcf;
    ngx_http_coord_idempotency_main_conf_t  *imcf;

    imcf = ngx_http_conf_get_module_main_conf(cf,
                                           ngx_http_coord_idempotency_module);

    if (imcf->zones.nelts == 0) {
        return NGX_OK;
    }

    ngx_http_coord_idempotency_lint_merged(cf, imcf);

    cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module);

    v = cmcf->variables.elts;

    for (i = 0; i < cmcf->variables.nelts; i++) {
        if (v[i].name.len == ngx_http_coord_request_digest.len
            && ngx_strncmp(v[i].name.data, ngx_http_coord_request_digest.data,
                           v[i].name.len)
               == 0)
        {
            imcf->digest = 1;
        }
    }

    if (ngx_http_coord_phase_handler(cf, NGX_HTTP_PRECONTENT_PHASE,
                                     ngx_http_coord_idempotency_begin_handler,
                                     1)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_http_coord_idempotency_filter_init(cf);
}


/* behind all other handlers; an error page may run the request once more */

static ngx_int_t
ngx_http_coord_idempotency_begin_handler(ngx_http_request_t *r)
{
    ngx_http_coord_idempotency_t  *run;

    if (r != r->main) {
        return NGX_DECLINED;
    }

    run = ngx_http_coord_run(r);

    if (run && ngx_http_coord_running(run)) {
        ngx_http_coord_run_begin(run);
    }

    return NGX_DECLINED;
}
