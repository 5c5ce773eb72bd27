
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_idempotency: directives and variables.
 */


#include "ngx_http_coord_idempotency.h"
#include "ngx_http_coord_conf.h"


#define NGX_HTTP_COORD_IDEMPOTENCY_ZONE  "16m"

/* a record has to fit in a reply of Redis */
#define NGX_HTTP_COORD_IDEMPOTENCY_MAX   (8 * 1024 * 1024)


static ngx_int_t ngx_http_coord_idempotency_add_variables(ngx_conf_t *cf);
static ngx_int_t ngx_http_coord_idempotency_status_variable(
    ngx_http_request_t *r, ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_coord_request_digest_variable(
    ngx_http_request_t *r, ngx_http_variable_value_t *v, uintptr_t data);
static void *ngx_http_coord_idempotency_create_main_conf(ngx_conf_t *cf);
static void *ngx_http_coord_idempotency_create_conf(ngx_conf_t *cf);
static char *ngx_http_coord_idempotency_merge_conf(ngx_conf_t *cf,
    void *parent, void *child);
static char *ngx_http_coord_idempotency_check(ngx_conf_t *cf,
    ngx_http_coord_idempotency_conf_t *conf);
static ngx_int_t ngx_http_coord_idempotency_init(ngx_conf_t *cf);
static ngx_int_t ngx_http_coord_idempotency_guard_handler(
    ngx_http_request_t *r);
static ngx_coord_zone_t *ngx_http_coord_idempotency_zone(ngx_conf_t *cf,
    ngx_str_t *store, ngx_str_t *size);
static char *ngx_http_coord_idempotency(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_http_coord_idempotency_key_value(ngx_conf_t *cf,
    ngx_command_t *cmd, void *conf);
static char *ngx_http_coord_idempotency_scope(ngx_conf_t *cf,
    ngx_command_t *cmd, void *conf);
static char *ngx_http_coord_idempotency_store_status(ngx_conf_t *cf,
    ngx_command_t *cmd, void *conf);
static char *ngx_http_coord_idempotency_store(ngx_conf_t *cf,
    ngx_command_t *cmd, void *conf);
static char *ngx_http_coord_idempotency_names(ngx_conf_t *cf,
    ngx_command_t *cmd, void *conf);


static ngx_str_t  ngx_http_coord_idempotency_type = ngx_string("id");


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
      ngx_conf_set_msec_slot,
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

    { ngx_string("coord_idempotency_dry_run"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_FLAG,
      ngx_conf_set_flag_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_coord_idempotency_conf_t, dry_run),
      NULL },

      ngx_null_command
};


static ngx_http_module_t  ngx_http_coord_idempotency_module_ctx = {
    ngx_http_coord_idempotency_add_variables, /* preconfiguration */
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


static ngx_http_variable_t  ngx_http_coord_idempotency_vars[] = {

    { ngx_string("coord_idempotency_status"), NULL,
      ngx_http_coord_idempotency_status_variable,
      0, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("coord_request_digest"), NULL,
      ngx_http_coord_request_digest_variable,
      0, NGX_HTTP_VAR_NOCACHEABLE, 0 },

      ngx_http_null_variable
};


static ngx_int_t
ngx_http_coord_idempotency_add_variables(ngx_conf_t *cf)
{
    return ngx_http_coord_add_variables(cf, ngx_http_coord_idempotency_vars);
}


static ngx_int_t
ngx_http_coord_idempotency_status_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_http_coord_idempotency_t  *state;

    state = ngx_http_coord_idempotency_state(r);

    if (state == NULL || state->status == NGX_HTTP_COORD_IDEMPOTENCY_NONE) {
        v->not_found = 1;
        return NGX_OK;
    }

    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;
    v->data = ngx_http_coord_idempotency_statuses[state->status].data;
    v->len = ngx_http_coord_idempotency_statuses[state->status].len;

    return NGX_OK;
}


/* empty until the body has been read */

static ngx_int_t
ngx_http_coord_request_digest_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    u_char  digest[NGX_COORD_DIGEST_LEN];

    r = r->main;

    if (r->request_body == NULL) {
        v->not_found = 1;
        return NGX_OK;
    }

    v->data = ngx_pnalloc(r->pool, 2 * NGX_COORD_DIGEST_LEN);
    if (v->data == NULL) {
        return NGX_ERROR;
    }

    if (ngx_http_coord_idempotency_digest(r, 0, digest) != NGX_OK) {
        return NGX_ERROR;
    }

    (void) ngx_hex_dump(v->data, digest, NGX_COORD_DIGEST_LEN);

    v->len = 2 * NGX_COORD_DIGEST_LEN;
    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;

    return NGX_OK;
}


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
        != NGX_OK)
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
     *     conf->methods = 0;
     *     conf->doc_url = { 0, NULL };
     *     conf->zone = NULL;
     */

    conf->mode = NGX_CONF_UNSET_UINT;
    conf->shadow = NGX_CONF_UNSET;
    conf->dry_run = NGX_CONF_UNSET;
    conf->on_failure = NGX_CONF_UNSET_UINT;
    conf->ttl = NGX_CONF_UNSET_MSEC;
    conf->lease = NGX_CONF_UNSET_MSEC;
    conf->wait = NGX_CONF_UNSET_MSEC;
    conf->max_response = NGX_CONF_UNSET_SIZE;
    conf->store_status = NGX_CONF_UNSET_PTR;
    conf->on_unknown = NGX_CONF_UNSET_UINT;
    conf->pass = NGX_CONF_UNSET_PTR;
    conf->hide = NGX_CONF_UNSET_PTR;

    return conf;
}


static char *
ngx_http_coord_idempotency_merge_conf(ngx_conf_t *cf, void *parent,
    void *child)
{
    ngx_http_coord_idempotency_conf_t  *prev = parent;
    ngx_http_coord_idempotency_conf_t  *conf = child;

    static ngx_str_t  key = ngx_string("$http_idempotency_key");
    static ngx_str_t  scope = ngx_string("$http_authorization");

    if (conf->mode == NGX_CONF_UNSET_UINT) {
        conf->shadow = prev->shadow;
        conf->on_failure = prev->on_failure;
        conf->file = prev->file;
        conf->line = prev->line;
    }

    ngx_conf_merge_uint_value(conf->mode, prev->mode,
                              NGX_HTTP_COORD_IDEMPOTENCY_OFF);
    ngx_conf_merge_value(conf->shadow, conf->shadow, 0);
    ngx_conf_merge_value(conf->dry_run, prev->dry_run, 0);

    if (conf->key == NULL) {
        conf->key = prev->key;
        conf->header = prev->header;
    }

    if (conf->scope == NULL) {
        conf->scope = prev->scope;
    }

    ngx_conf_merge_bitmask_value(conf->methods, prev->methods,
                                 (NGX_CONF_BITMASK_SET
                                  |NGX_HTTP_POST|NGX_HTTP_PATCH));
    ngx_conf_merge_msec_value(conf->ttl, prev->ttl, 24 * 3600 * 1000);
    ngx_conf_merge_msec_value(conf->lease, prev->lease, 30000);
    ngx_conf_merge_msec_value(conf->wait, prev->wait, 0);
    ngx_conf_merge_size_value(conf->max_response, prev->max_response,
                              1024 * 1024);
    ngx_conf_merge_ptr_value(conf->store_status, prev->store_status, NULL);
    ngx_conf_merge_uint_value(conf->on_unknown, prev->on_unknown,
                              NGX_HTTP_COORD_UNKNOWN_RUN);
    ngx_conf_merge_ptr_value(conf->pass, prev->pass, NULL);
    ngx_conf_merge_ptr_value(conf->hide, prev->hide, NULL);
    ngx_conf_merge_str_value(conf->doc_url, prev->doc_url, "");

    if (conf->zone == NULL) {
        conf->zone = prev->zone;
    }

    if (conf->mode == NGX_HTTP_COORD_IDEMPOTENCY_OFF) {
        return NGX_CONF_OK;
    }

    if (conf->key == NULL) {
        ngx_str_set(&conf->header, "idempotency_key");

        conf->key = ngx_http_coord_complex_value(cf, &key);
        if (conf->key == NULL) {
            return NGX_CONF_ERROR;
        }
    }

    if (conf->scope == NULL) {
        conf->scope = ngx_http_coord_complex_value(cf, &scope);
        if (conf->scope == NULL) {
            return NGX_CONF_ERROR;
        }
    }

    return ngx_http_coord_idempotency_check(cf, conf);
}


static char *
ngx_http_coord_idempotency_check(ngx_conf_t *cf,
    ngx_http_coord_idempotency_conf_t *conf)
{
    size_t                                   i;
    ngx_coord_zone_t                       **zones;
    ngx_http_coord_idempotency_main_conf_t  *imcf;

    imcf = ngx_http_conf_get_module_main_conf(cf,
                                           ngx_http_coord_idempotency_module);

    /* the zone of the default store, under whatever name it was asked for */

    zones = imcf->zones.elts;

    if (conf->zone == NULL || conf->zone->store == zones[0]->store) {
        conf->zone = zones[0];
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

    if (conf->scope->lengths == NULL) {
        ngx_log_error(NGX_LOG_WARN, cf->log, 0,
                      "\"coord_idempotency_scope\" is constant for "
                      "\"coord_idempotency\" in %s:%ui: who sends the key and "
                      "the request of another client gets its response",
                      conf->file, conf->line);
    }

    ngx_http_coord_feature_enable(cf,
                                  ngx_http_coord_idempotency_feature.stages,
                                  NGX_HTTP_COORD_IDEMPOTENCY);

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_coord_idempotency_init(ngx_conf_t *cf)
{
    ngx_uint_t                               i;
    ngx_http_handler_pt                     *h;
    ngx_http_variable_t                     *v;
    ngx_http_core_main_conf_t               *cmcf;
    ngx_http_coord_idempotency_main_conf_t  *imcf;

    static ngx_str_t  digest = ngx_string("coord_request_digest");

    imcf = ngx_http_conf_get_module_main_conf(cf,
                                           ngx_http_coord_idempotency_module);

    ngx_http_coord_feature_add(cf, &ngx_http_coord_idempotency_feature);

    if (imcf->zones.nelts == 0) {
        return NGX_OK;
    }

    cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module);

    v = cmcf->variables.elts;

    for (i = 0; i < cmcf->variables.nelts; i++) {
        if (v[i].name.len == digest.len
            && ngx_strncmp(v[i].name.data, digest.data, digest.len) == 0)
        {
            imcf->digest = 1;
        }
    }

    h = ngx_array_push(&cmcf->phases[NGX_HTTP_PRECONTENT_PHASE].handlers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    *h = ngx_http_coord_idempotency_guard_handler;

    return ngx_http_coord_idempotency_filter_init(cf);
}


/* an error page may run the request once more, elsewhere */

static ngx_int_t
ngx_http_coord_idempotency_guard_handler(ngx_http_request_t *r)
{
    ngx_http_coord_idempotency_t  *state;

    if (!r->internal || r != r->main) {
        return NGX_DECLINED;
    }

    state = ngx_http_coord_idempotency_state(r);

    if (state
        && state->phase == NGX_HTTP_COORD_IDEMPOTENCY_RUNNING
        && !state->shadow)
    {
        ngx_http_coord_idempotency_guard(state);
    }

    return NGX_DECLINED;
}


/* the zone of a store, by its name; one for all locations that use it */

static ngx_coord_zone_t *
ngx_http_coord_idempotency_zone(ngx_conf_t *cf, ngx_str_t *store,
    ngx_str_t *size)
{
    u_char                                  *p;
    ngx_str_t                                value;
    ngx_uint_t                               i;
    ngx_coord_zone_t                        *zone, **zones;
    ngx_http_coord_idempotency_main_conf_t  *imcf;

    imcf = ngx_http_conf_get_module_main_conf(cf,
                                           ngx_http_coord_idempotency_module);

    zones = imcf->zones.elts;

    for (i = 0; i < imcf->zones.nelts; i++) {
        if (zones[i]->store_name.len == store->len
            && ngx_strncmp(zones[i]->store_name.data, store->data, store->len)
               == 0)
        {
            return zones[i];
        }
    }

    value.data = ngx_pnalloc(cf->pool, sizeof("idempotency_:") + store->len
                                       + size->len);
    if (value.data == NULL) {
        return NULL;
    }

    p = ngx_sprintf(value.data, "idempotency%s%V:%V", store->len ? "_" : "",
                    store, size);

    value.len = p - value.data;

    zone = ngx_http_coord_zone_declare(cf, &ngx_http_coord_idempotency_type,
                                       &value);
    if (zone == NULL) {
        return NULL;
    }

    zone->store_name = *store;

    zones = ngx_array_push(&imcf->zones);
    if (zones == NULL) {
        return NULL;
    }

    *zones = zone;

    return zone;
}


static char *
ngx_http_coord_idempotency(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_coord_idempotency_conf_t *icf = conf;

    ngx_str_t  *value, rest, store, size;
    ngx_uint_t  i;

    if (icf->mode != NGX_CONF_UNSET_UINT) {
        return "is duplicate";
    }

    value = cf->args->elts;

    icf->file = cf->conf_file->file.name.data;
    icf->line = cf->conf_file->line;

    if (ngx_strcmp(value[1].data, "off") == 0) {
        icf->mode = NGX_HTTP_COORD_IDEMPOTENCY_OFF;

    } else if (ngx_strcmp(value[1].data, "on") == 0) {
        icf->mode = NGX_HTTP_COORD_IDEMPOTENCY_ON;

    } else if (ngx_strcmp(value[1].data, "required") == 0) {
        icf->mode = NGX_HTTP_COORD_IDEMPOTENCY_REQUIRED;

    } else {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid value \"%V\" in \"%V\", it must be "
                           "\"off\", \"on\" or \"required\"",
                           &value[1], &cmd->name);
        return NGX_CONF_ERROR;
    }

    for (i = 2; i < cf->args->nelts; i++) {

        if (ngx_strcmp(value[i].data, "shadow") == 0) {
            icf->shadow = 1;
            continue;
        }

        if (ngx_http_coord_param(&value[i], "on_failure=", &rest)) {

            if (ngx_http_coord_parse_on_failure(cf, &rest, &icf->on_failure)
                != NGX_OK)
            {
                return NGX_CONF_ERROR;
            }

            continue;
        }

        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid parameter \"%V\", allowed are \"shadow\" "
                           "and \"on_failure=\"", &value[i]);
        return NGX_CONF_ERROR;
    }

    ngx_str_null(&store);
    ngx_str_set(&size, NGX_HTTP_COORD_IDEMPOTENCY_ZONE);

    if (icf->mode != NGX_HTTP_COORD_IDEMPOTENCY_OFF
        && ngx_http_coord_idempotency_zone(cf, &store, &size) == NULL)
    {
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_coord_idempotency_key_value(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf)
{
    ngx_http_coord_idempotency_conf_t *icf = conf;

    size_t      i;
    ngx_str_t  *value, name;

    if (icf->key) {
        return "is duplicate";
    }

    value = cf->args->elts;

    icf->key = ngx_http_coord_complex_value(cf, &value[1]);
    if (icf->key == NULL) {
        return NGX_CONF_ERROR;
    }

    /* of a header field alone all lines are looked at */

    if (!ngx_http_coord_param(&value[1], "$http_", &name)) {
        return NGX_CONF_OK;
    }

    for (i = 0; i < name.len; i++) {
        if (!((name.data[i] >= 'a' && name.data[i] <= 'z')
              || (name.data[i] >= '0' && name.data[i] <= '9')
              || name.data[i] == '_'))
        {
            return NGX_CONF_OK;
        }
    }

    icf->header = name;

    return NGX_CONF_OK;
}


static char *
ngx_http_coord_idempotency_scope(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf)
{
    ngx_http_coord_idempotency_conf_t *icf = conf;

    ngx_str_t  *value;

    if (icf->scope) {
        return "is duplicate";
    }

    value = cf->args->elts;

    icf->scope = ngx_http_coord_complex_value(cf, &value[1]);

    return icf->scope ? NGX_CONF_OK : NGX_CONF_ERROR;
}


static char *
ngx_http_coord_idempotency_store_status(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf)
{
    ngx_http_coord_idempotency_conf_t *icf = conf;

    ngx_int_t                           n;
    ngx_str_t                          *value;
    ngx_uint_t                          i;
    ngx_http_coord_idempotency_code_t  *code;

    if (icf->store_status != NGX_CONF_UNSET_PTR) {
        return "is duplicate";
    }

    icf->store_status = ngx_array_create(cf->pool, 4,
                                   sizeof(ngx_http_coord_idempotency_code_t));
    if (icf->store_status == NULL) {
        return NGX_CONF_ERROR;
    }

    value = cf->args->elts;

    for (i = 1; i < cf->args->nelts; i++) {

        if (value[i].len == 3 && ngx_strcmp(value[i].data + 1, "xx") == 0) {
            n = ngx_atoi(value[i].data, 1);
            n = (n >= 2 && n <= 5) ? n : NGX_ERROR;

        } else {
            n = ngx_atoi(value[i].data, value[i].len);
            n = (n >= 200 && n <= 599 && n != 206 && n != 304) ? n : NGX_ERROR;
        }

        if (n == NGX_ERROR) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid status \"%V\", it must be like "
                               "\"2xx\" or \"201\", and not 206 or 304",
                               &value[i]);
            return NGX_CONF_ERROR;
        }

        code = ngx_array_push(icf->store_status);
        if (code == NULL) {
            return NGX_CONF_ERROR;
        }

        *code = n;
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_coord_idempotency_store(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf)
{
    ngx_http_coord_idempotency_conf_t *icf = conf;

    ngx_str_t  *value, size, none;

    if (icf->zone) {
        return "is duplicate";
    }

    value = cf->args->elts;

    ngx_str_null(&none);
    ngx_str_set(&size, NGX_HTTP_COORD_IDEMPOTENCY_ZONE);

    if (cf->args->nelts == 3
        && !ngx_http_coord_param(&value[2], "size=", &size))
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid parameter \"%V\", allowed is \"size=\"",
                           &value[2]);
        return NGX_CONF_ERROR;
    }

    /* that of the default store is the first */

    if (ngx_http_coord_idempotency_zone(cf, &none, &size) == NULL) {
        return NGX_CONF_ERROR;
    }

    icf->zone = ngx_http_coord_idempotency_zone(cf, &value[1], &size);

    return icf->zone ? NGX_CONF_OK : NGX_CONF_ERROR;
}


static char *
ngx_http_coord_idempotency_names(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf)
{
    char *p = conf;

    ngx_str_t    *value, *name;
    ngx_uint_t    i;
    ngx_array_t  **names;

    names = (ngx_array_t **) (p + cmd->offset);

    if (*names == NGX_CONF_UNSET_PTR) {
        *names = ngx_array_create(cf->pool, 4, sizeof(ngx_str_t));
        if (*names == NULL) {
            return NGX_CONF_ERROR;
        }
    }

    value = cf->args->elts;

    for (i = 1; i < cf->args->nelts; i++) {

        if (ngx_coord_record_hop(&value[i])) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "field \"%V\" belongs to a connection and is "
                               "never stored", &value[i]);
            return NGX_CONF_ERROR;
        }

        name = ngx_array_push(*names);
        if (name == NULL) {
            return NGX_CONF_ERROR;
        }

        *name = value[i];
    }

    return NGX_CONF_OK;
}
