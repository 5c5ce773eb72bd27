
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_cache: directives, and the variable.
 */


#include "ngx_http_coord_cache.h"


#define NGX_HTTP_COORD_CACHE_VALID  (300 * NGX_COORD_NSEC_PER_SEC)
#define NGX_HTTP_COORD_CACHE_MAX    (1024 * 1024)
#define NGX_HTTP_COORD_CACHE_LIMIT  (8 * 1024 * 1024)


typedef struct {
    ngx_array_t                nears;        /* of ngx_coord_near_t * */
} ngx_http_coord_cache_main_conf_t;


static ngx_int_t ngx_http_coord_cache_preconfiguration(ngx_conf_t *cf);
static ngx_int_t ngx_http_coord_cache_init(ngx_conf_t *cf);
static void *ngx_http_coord_cache_create_main_conf(ngx_conf_t *cf);
static void *ngx_http_coord_cache_create_conf(ngx_conf_t *cf);
static char *ngx_http_coord_cache_merge_conf(ngx_conf_t *cf, void *parent,
    void *child);
static char *ngx_http_coord_cache_zone(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_http_coord_cache(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static ngx_coord_near_t *ngx_http_coord_cache_near_find(
    ngx_http_coord_cache_main_conf_t *ccmcf, ngx_coord_zone_t *zone);
static ngx_coord_near_t *ngx_http_coord_cache_near(ngx_conf_t *cf,
    ngx_coord_zone_t *zone);
static ngx_int_t ngx_http_coord_cache_key(ngx_conf_t *cf,
    ngx_http_coord_cache_conf_t *ccf, ngx_str_t *value);
static ngx_uint_t ngx_http_coord_cache_names(ngx_str_t *value,
    const char *name);
static ngx_int_t ngx_http_coord_cache_param(ngx_conf_t *cf,
    ngx_http_coord_cache_conf_t *ccf, ngx_str_t *value);
static ngx_int_t ngx_http_coord_cache_time(ngx_str_t *value,
    ngx_coord_nsec_t *time);
static ngx_int_t ngx_http_coord_cache_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);


static ngx_http_variable_t  ngx_http_coord_cache_vars[] = {

    { ngx_string("coord_cache_status"), NULL,
      ngx_http_coord_cache_variable,
      0, NGX_HTTP_VAR_NOCACHEABLE, 0 },

      ngx_http_null_variable
};


ngx_http_coord_feature_t  ngx_http_coord_cache_feature = {

    { ngx_string("cache"),
      ngx_string("ca"),
      ngx_coord_outcome_bit(HIT) | ngx_coord_outcome_bit(MISS)
      | ngx_coord_outcome_bit(EXPIRED) | ngx_coord_outcome_bit(STALE)
      | ngx_coord_outcome_bit(UPDATING) | ngx_coord_outcome_bit(REVALIDATED)
      | ngx_coord_outcome_bit(BYPASSED),
      0,
      0 },

    {
        ngx_http_coord_no_step,            /* preaccess */

        { 25,                              /* precontent */
          ngx_http_coord_cache_begin,
          ngx_http_coord_cache_decide,
          NULL,
          NGX_HTTP_COORD_STEP_ANSWERS|NGX_HTTP_COORD_STEP_HOLDS }
    },

    ngx_http_coord_cache_end,
    ngx_http_coord_cache_vars,
    ngx_http_coord_cache_routes,
    0
};


static ngx_command_t  ngx_http_coord_cache_commands[] = {

    { ngx_string("coord_cache_zone"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_1MORE,
      ngx_http_coord_cache_zone,
      0,
      0,
      NULL },

    { ngx_string("coord_cache"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_1MORE,
      ngx_http_coord_cache,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

      ngx_null_command
};


static ngx_http_module_t  ngx_http_coord_cache_module_ctx = {
    ngx_http_coord_cache_preconfiguration, /* preconfiguration */
    ngx_http_coord_cache_init,             /* postconfiguration */

    ngx_http_coord_cache_create_main_conf, /* create main configuration */
    NULL,                                  /* init main configuration */

    NULL,                                  /* create server configuration */
    NULL,                                  /* merge server configuration */

    ngx_http_coord_cache_create_conf,      /* create location configuration */
    ngx_http_coord_cache_merge_conf        /* merge location configuration */
};


ngx_module_t  ngx_http_coord_cache_module = {
    NGX_MODULE_V1,
    &ngx_http_coord_cache_module_ctx,      /* module context */
    ngx_http_coord_cache_commands,         /* module directives */
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
ngx_http_coord_cache_preconfiguration(ngx_conf_t *cf)
{
    return ngx_http_coord_feature_add(cf, &ngx_http_coord_cache_feature);
}


/* without a line coord_cache no response passes the filters */

static ngx_int_t
ngx_http_coord_cache_init(ngx_conf_t *cf)
{
    ngx_uint_t                          i;
    ngx_coord_near_t                  **near;
    ngx_http_coord_main_conf_t         *mcf;
    ngx_http_coord_cache_main_conf_t   *ccmcf;

    mcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_coord_module);

    if (!(mcf->used & (1 << ngx_http_coord_cache_feature.slot))) {
        return NGX_OK;
    }

    ccmcf = ngx_http_conf_get_module_main_conf(cf,
                                               ngx_http_coord_cache_module);
    near = ccmcf->nears.elts;

    for (i = 0; i < ccmcf->nears.nelts; i++) {
        if (ngx_coord_near_add(cf->pool, near[i]) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    return ngx_http_coord_cache_filter_init(cf);
}


static void *
ngx_http_coord_cache_create_main_conf(ngx_conf_t *cf)
{
    ngx_http_coord_cache_main_conf_t  *ccmcf;

    ccmcf = ngx_pcalloc(cf->pool, sizeof(ngx_http_coord_cache_main_conf_t));
    if (ccmcf == NULL) {
        return NULL;
    }

    if (ngx_array_init(&ccmcf->nears, cf->pool, 4, sizeof(ngx_coord_near_t *))
        != NGX_OK)
    {
        return NULL;
    }

    return ccmcf;
}


static void *
ngx_http_coord_cache_create_conf(ngx_conf_t *cf)
{
    /*
     * set by ngx_pcalloc():
     *
     *     conf->zone = NULL;
     *     conf->key = NULL;
     *     conf->off = 0;
     */

    return ngx_pcalloc(cf->pool, sizeof(ngx_http_coord_cache_conf_t));
}


static char *
ngx_http_coord_cache_merge_conf(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_http_coord_cache_conf_t  *prev = parent;
    ngx_http_coord_cache_conf_t  *conf = child;

    ngx_uint_t  inherited;

    inherited = (conf->zone == NULL && !conf->off);

    if (inherited) {
        *conf = *prev;
    }

    if (conf->zone) {
        ngx_http_coord_feature_enable(cf, &ngx_http_coord_cache_feature,
                                      NGX_HTTP_COORD_PRECONTENT, inherited);
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_coord_cache_zone(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_str_t         *value, name, store;
    ngx_uint_t         i;
    ngx_coord_zone_t  *zone;

    value = cf->args->elts;

    ngx_str_null(&name);
    ngx_str_null(&store);

    for (i = 1; i < cf->args->nelts; i++) {

        if (ngx_http_coord_param(&value[i], "zone=", &name)
            || ngx_http_coord_param(&value[i], "store=", &store))
        {
            continue;
        }

        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid parameter \"%V\", allowed are \"zone=\" "
                           "and \"store=\"", &value[i]);
        return NGX_CONF_ERROR;
    }

    if (name.len == 0) {
        return "must have \"zone\" parameter";
    }

    zone = ngx_http_coord_zone_declare(cf, &ngx_http_coord_cache_feature.kind,
                                       &name);
    if (zone == NULL) {
        return NGX_CONF_ERROR;
    }

    zone->store_name = store;
    zone->journal = 1;

    return NGX_CONF_OK;
}


static char *
ngx_http_coord_cache(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_coord_cache_conf_t *ccf = conf;

    ngx_str_t   *value, name;
    ngx_uint_t   i;

    if (ccf->zone || ccf->off) {
        return "is duplicate";
    }

    value = cf->args->elts;

    if (cf->args->nelts == 2 && ngx_strcmp(value[1].data, "off") == 0) {
        ccf->off = 1;
        return NGX_CONF_OK;
    }

    ccf->zone = ngx_http_coord_zone_arg(cf, cmd,
                                        &ngx_http_coord_cache_feature.kind);
    if (ccf->zone == NULL) {
        return NGX_CONF_ERROR;
    }

    if (ngx_http_coord_cache_key(cf, ccf, &value[1]) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    ccf->near = ngx_http_coord_cache_near(cf, ccf->zone);
    if (ccf->near == NULL) {
        return NGX_CONF_ERROR;
    }

    ccf->valid = NGX_HTTP_COORD_CACHE_VALID;
    ccf->max = NGX_HTTP_COORD_CACHE_MAX;

    ccf->user = ngx_http_coord_cache_names(&value[1], "remote_user");
    ccf->credentials = ngx_http_coord_cache_names(&value[1],
                                                  "http_authorization");

    for (i = 2; i < cf->args->nelts; i++) {

        if (ngx_http_coord_param(&value[i], "zone=", &name)) {
            continue;
        }

        if (ngx_http_coord_cache_param(cf, ccf, &value[i]) != NGX_OK) {
            return NGX_CONF_ERROR;
        }
    }

    return NGX_CONF_OK;
}


/* a key that was left out is not to be one that all requests have */

static ngx_int_t
ngx_http_coord_cache_key(ngx_conf_t *cf, ngx_http_coord_cache_conf_t *ccf,
    ngx_str_t *value)
{
    ngx_str_t  s;

    if (ngx_http_coord_param(value, "zone=", &s)
        || ngx_http_coord_param(value, "valid=", &s)
        || ngx_http_coord_param(value, "stale=", &s)
        || ngx_http_coord_param(value, "max=", &s)
        || ngx_strcmp(value->data, "lock") == 0
        || ngx_strcmp(value->data, "off") == 0)
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"coord_cache\" must have a key in front of its "
                           "parameters, \"%V\" is none", value);
        return NGX_ERROR;
    }

    ccf->key = ngx_http_coord_complex_value(cf, value);
    if (ccf->key == NULL) {
        return NGX_ERROR;
    }

    if (ccf->key->lengths == NULL) {
        ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                           "the key of \"coord_cache\" is constant: all "
                           "requests have one response");
    }

    return NGX_OK;
}


/* whether a value has a variable of this name in it */

static ngx_uint_t
ngx_http_coord_cache_names(ngx_str_t *value, const char *name)
{
    u_char  *p, *last, c;
    size_t   len;

    p = value->data;
    last = p + value->len;
    len = ngx_strlen(name);

    for ( ;; ) {
        p = ngx_strlchr(p, last, '$');

        if (p == NULL) {
            return 0;
        }

        p++;
        p += (p < last && *p == '{');

        if ((size_t) (last - p) < len
            || ngx_strncasecmp(p, (u_char *) name, len) != 0)
        {
            continue;
        }

        c = (size_t) (last - p) == len ? '\0' : p[len];

        if (c == '_' || (c >= '0' && c <= '9')) {
            continue;
        }

        c |= 0x20;

        if (c < 'a' || c > 'z') {
            return 1;
        }
    }
}


ngx_coord_near_t *
ngx_http_coord_cache_near_of(ngx_http_request_t *r, ngx_coord_zone_t *zone)
{
    ngx_http_coord_cache_main_conf_t  *ccmcf;

    ccmcf = ngx_http_get_module_main_conf(r, ngx_http_coord_cache_module);

    return ngx_http_coord_cache_near_find(ccmcf, zone);
}


static ngx_coord_near_t *
ngx_http_coord_cache_near_find(ngx_http_coord_cache_main_conf_t *ccmcf,
    ngx_coord_zone_t *zone)
{
    ngx_uint_t          i;
    ngx_coord_near_t  **near;

    near = ccmcf->nears.elts;

    for (i = 0; i < ccmcf->nears.nelts; i++) {
        if (near[i]->zone == zone) {
            return near[i];
        }
    }

    return NULL;
}


/* that of a zone, made once; NULL: no memory */

static ngx_coord_near_t *
ngx_http_coord_cache_near(ngx_conf_t *cf, ngx_coord_zone_t *zone)
{
    ngx_coord_near_t                   *found, **near;
    ngx_http_coord_cache_main_conf_t   *ccmcf;

    ccmcf = ngx_http_conf_get_module_main_conf(cf,
                                               ngx_http_coord_cache_module);

    found = ngx_http_coord_cache_near_find(ccmcf, zone);
    if (found) {
        return found;
    }

    near = ngx_array_push(&ccmcf->nears);
    if (near == NULL) {
        return NULL;
    }

    *near = ngx_coord_near_create(cf->pool, zone);

    return *near;
}


static ngx_int_t
ngx_http_coord_cache_param(ngx_conf_t *cf, ngx_http_coord_cache_conf_t *ccf,
    ngx_str_t *value)
{
    ssize_t    size;
    ngx_str_t  s;

    if (ngx_http_coord_param(value, "valid=", &s)) {

        if (ngx_http_coord_cache_time(&s, &ccf->valid) == NGX_OK) {
            return NGX_OK;
        }

    } else if (ngx_http_coord_param(value, "stale=", &s)) {

        if (ngx_http_coord_cache_time(&s, &ccf->stale) == NGX_OK
            && ccf->stale)
        {
            return NGX_OK;
        }

    } else if (ngx_http_coord_param(value, "max=", &s)) {
        size = ngx_parse_size(&s);

        if (size > 0 && size <= NGX_HTTP_COORD_CACHE_LIMIT) {
            ccf->max = size;
            return NGX_OK;
        }

    } else if (ngx_strcmp(value->data, "lock") == 0) {
        ccf->lock = 1;
        return NGX_OK;
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid parameter \"%V\", allowed are \"zone=\", "
                       "\"valid=\" and \"stale=\" with a time, \"max=\" with a "
                       "size up to 8m, and \"lock\"", value);

    return NGX_ERROR;
}


static ngx_int_t
ngx_http_coord_cache_time(ngx_str_t *value, ngx_coord_nsec_t *time)
{
    ngx_int_t  ms;

    ms = ngx_http_coord_long_time(value);

    if (ms == NGX_ERROR) {
        return NGX_ERROR;
    }

    *time = ngx_coord_msec_cut(ms) * NGX_COORD_NSEC_PER_MSEC;

    return NGX_OK;
}


static ngx_int_t
ngx_http_coord_cache_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    const ngx_str_t         *word;
    ngx_http_coord_cache_t  *cache;

    cache = ngx_http_coord_cache_get(r);

    if (cache == NULL || cache->status == NGX_COORD_OUTCOME_UNDECIDED) {
        v->not_found = 1;
        return NGX_OK;
    }

    word = &ngx_coord_outcomes[cache->status].status;

    v->len = word->len;
    v->data = word->data;
    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;

    return NGX_OK;
}
