
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The directive coord_lookup.
 */


#include "ngx_http_coord_lookup.h"


static ngx_int_t ngx_http_coord_lookup_preconfiguration(ngx_conf_t *cf);
static ngx_int_t ngx_http_coord_lookup_init(ngx_conf_t *cf);
static void *ngx_http_coord_lookup_create_main_conf(ngx_conf_t *cf);
static void *ngx_http_coord_lookup_create_loc_conf(ngx_conf_t *cf);
static char *ngx_http_coord_lookup_merge_loc_conf(ngx_conf_t *cf,
    void *parent, void *child);
static char *ngx_http_coord_lookup_directive(ngx_conf_t *cf,
    ngx_command_t *cmd, void *conf);
static ngx_int_t ngx_http_coord_lookup_param(ngx_conf_t *cf,
    ngx_http_coord_lookup_t *lookup, ngx_str_t *value);
static ngx_int_t ngx_http_coord_lookup_time(ngx_conf_t *cf, ngx_str_t *param,
    ngx_str_t *value, ngx_msec_t *time);
static ngx_coord_near_t *ngx_http_coord_lookup_near(ngx_conf_t *cf,
    ngx_http_coord_lookup_main_conf_t *lmcf, ngx_str_t *value,
    ngx_str_t *store);
static ngx_int_t ngx_http_coord_lookup_index(ngx_conf_t *cf,
    ngx_str_t *name);


static ngx_command_t  ngx_http_coord_lookup_commands[] = {

    { ngx_string("coord_lookup"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_2MORE,
      ngx_http_coord_lookup_directive,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

      ngx_null_command
};


static ngx_http_module_t  ngx_http_coord_lookup_module_ctx = {
    ngx_http_coord_lookup_preconfiguration,  /* preconfiguration */
    ngx_http_coord_lookup_init,            /* postconfiguration */

    ngx_http_coord_lookup_create_main_conf,  /* create main configuration */
    NULL,                                  /* init main configuration */

    NULL,                                  /* create server configuration */
    NULL,                                  /* merge server configuration */

    ngx_http_coord_lookup_create_loc_conf,  /* create location configuration */
    ngx_http_coord_lookup_merge_loc_conf   /* merge location configuration */
};


ngx_module_t  ngx_http_coord_lookup_module = {
    NGX_MODULE_V1,
    &ngx_http_coord_lookup_module_ctx,     /* module context */
    ngx_http_coord_lookup_commands,        /* module directives */
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
ngx_http_coord_lookup_preconfiguration(ngx_conf_t *cf)
{
    return ngx_http_coord_feature_add(cf, &ngx_http_coord_lookup_feature);
}


static void *
ngx_http_coord_lookup_create_main_conf(ngx_conf_t *cf)
{
    ngx_http_coord_lookup_main_conf_t  *lmcf;

    lmcf = ngx_pcalloc(cf->pool, sizeof(ngx_http_coord_lookup_main_conf_t));
    if (lmcf == NULL) {
        return NULL;
    }

    if (ngx_array_init(&lmcf->lookups, cf->pool, 4,
                       sizeof(ngx_http_coord_lookup_t *))
        != NGX_OK
        || ngx_array_init(&lmcf->nears, cf->pool, 2,
                          sizeof(ngx_coord_near_t *))
           != NGX_OK)
    {
        return NULL;
    }

    return lmcf;
}


/* a location has nothing of its own, but has to be merged */

static void *
ngx_http_coord_lookup_create_loc_conf(ngx_conf_t *cf)
{
    return ngx_pcalloc(cf->pool, sizeof(ngx_uint_t));
}


static char *
ngx_http_coord_lookup_merge_loc_conf(ngx_conf_t *cf, void *parent,
    void *child)
{
    ngx_http_coord_lookup_main_conf_t  *lmcf;

    lmcf = ngx_http_conf_get_module_main_conf(cf,
                                              ngx_http_coord_lookup_module);

    if (lmcf->lookups.nelts) {
        ngx_http_coord_feature_enable(cf, &ngx_http_coord_lookup_feature,
                                      NGX_HTTP_COORD_PRECONTENT, 1);
    }

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_coord_lookup_init(ngx_conf_t *cf)
{
    ngx_uint_t                           i;
    ngx_coord_near_t                   **nears;
    ngx_http_coord_lookup_t            **lookups;
    ngx_http_coord_main_conf_t          *mcf;
    ngx_http_coord_lookup_main_conf_t   *lmcf;

    lmcf = ngx_http_conf_get_module_main_conf(cf,
                                              ngx_http_coord_lookup_module);

    if (lmcf->lookups.nelts == 0) {
        return NGX_OK;
    }

    nears = lmcf->nears.elts;

    for (i = 0; i < lmcf->nears.nelts; i++) {
        if (ngx_coord_near_add(cf->pool, nears[i]) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    lookups = lmcf->lookups.elts;

    for (i = 0; i < lmcf->lookups.nelts; i++) {
        lookups[i]->index = ngx_http_coord_lookup_index(cf,
                                                        &lookups[i]->name);
    }

    mcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_coord_module);

    mcf->supply = &ngx_http_coord_lookup_supply;

    ngx_http_coord_lookup_load_init();

    return NGX_OK;
}


/* -1: nothing in the configuration refers to the variable */

static ngx_int_t
ngx_http_coord_lookup_index(ngx_conf_t *cf, ngx_str_t *name)
{
    ngx_uint_t                  i;
    ngx_http_variable_t        *v;
    ngx_http_core_main_conf_t  *cmcf;

    cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module);

    v = cmcf->variables.elts;

    for (i = 0; i < cmcf->variables.nelts; i++) {
        if (v[i].name.len == name->len
            && ngx_strncasecmp(v[i].name.data, name->data, name->len) == 0)
        {
            return i;
        }
    }

    return -1;
}


static char *
ngx_http_coord_lookup_directive(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf)
{
    ngx_http_coord_lookup_main_conf_t *lmcf = conf;

    ngx_int_t                  rc;
    ngx_str_t                 *value, zone, store, field;
    ngx_uint_t                 i;
    ngx_http_variable_t       *var;
    ngx_http_coord_lookup_t   *lookup, **p;

    value = cf->args->elts;

    if (value[1].len < 2 || value[1].data[0] != '$') {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid variable name \"%V\"", &value[1]);
        return NGX_CONF_ERROR;
    }

    lookup = ngx_pcalloc(cf->pool, sizeof(ngx_http_coord_lookup_t));
    p = ngx_array_push(&lmcf->lookups);

    if (lookup == NULL || p == NULL) {
        return NGX_CONF_ERROR;
    }

    *p = lookup;

    lookup->name.len = value[1].len - 1;
    lookup->name.data = value[1].data + 1;
    lookup->ttl = 300000;
    lookup->negative_ttl = 5000;

    lookup->key = ngx_http_coord_complex_value(cf, &value[2]);
    if (lookup->key == NULL) {
        return NGX_CONF_ERROR;
    }

    ngx_str_null(&zone);
    ngx_str_null(&store);
    ngx_str_null(&field);

    for (i = 3; i < cf->args->nelts; i++) {

        if (ngx_http_coord_param(&value[i], "zone=", &zone)
            || ngx_http_coord_param(&value[i], "store=", &store)
            || ngx_http_coord_param(&value[i], "field=", &field))
        {
            continue;
        }

        if (ngx_http_coord_lookup_param(cf, lookup, &value[i]) != NGX_OK) {
            return NGX_CONF_ERROR;
        }
    }

    lookup->near = ngx_http_coord_lookup_near(cf, lmcf, &zone, &store);
    if (lookup->near == NULL) {
        return NGX_CONF_ERROR;
    }

    rc = ngx_coord_near_field(lookup->near, &field);

    if (rc == NGX_ERROR) {
        return "has too many different fields in one zone";
    }

    lookup->field = rc;

    if (lookup->field && lookup->load) {
        return "cannot have both \"field=\" and \"load=\"";
    }

    var = ngx_http_add_variable(cf, &lookup->name, 0);
    if (var == NULL) {
        return NGX_CONF_ERROR;
    }

    var->get_handler = ngx_http_coord_lookup_variable;
    var->data = (uintptr_t) lookup;

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_coord_lookup_param(ngx_conf_t *cf, ngx_http_coord_lookup_t *lookup,
    ngx_str_t *value)
{
    ngx_str_t  s;

    if (ngx_http_coord_param(value, "ttl=", &s)) {
        return ngx_http_coord_lookup_time(cf, value, &s, &lookup->ttl);
    }

    if (ngx_http_coord_param(value, "negative_ttl=", &s)) {
        return ngx_http_coord_lookup_time(cf, value, &s,
                                          &lookup->negative_ttl);
    }

    if (ngx_http_coord_param(value, "default=", &s)) {
        lookup->value = ngx_http_coord_complex_value(cf, &s);
        return lookup->value ? NGX_OK : NGX_ERROR;
    }

    if (ngx_http_coord_param(value, "load=", &s) && s.len) {
        lookup->load = ngx_http_coord_complex_value(cf, &s);
        return lookup->load ? NGX_OK : NGX_ERROR;
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid parameter \"%V\", allowed are \"field=\", "
                       "\"ttl=\", \"negative_ttl=\", \"default=\", "
                       "\"load=\", \"zone=\" and \"store=\"", value);

    return NGX_ERROR;
}


static ngx_int_t
ngx_http_coord_lookup_time(ngx_conf_t *cf, ngx_str_t *param, ngx_str_t *value,
    ngx_msec_t *time)
{
    ngx_int_t  ms;

    ms = ngx_http_coord_long_time(value);

    if (ms == NGX_ERROR || ms == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "invalid value \"%V\"",
                           param);
        return NGX_ERROR;
    }

    *time = ngx_coord_msec_cut(ms);

    return NGX_OK;
}


/* the near cache of a zone, of which the first who names it tells the size */

static ngx_coord_near_t *
ngx_http_coord_lookup_near(ngx_conf_t *cf,
    ngx_http_coord_lookup_main_conf_t *lmcf, ngx_str_t *value,
    ngx_str_t *store)
{
    u_char             *p;
    ngx_str_t           name;
    ngx_uint_t          i;
    ngx_coord_zone_t   *zone;
    ngx_coord_near_t  **near;

    name = *value;

    if (name.len == 0) {
        name.len = sizeof("lookup_") - 1 + store->len;

        name.data = ngx_pnalloc(cf->pool, name.len);
        if (name.data == NULL) {
            return NULL;
        }

        ngx_sprintf(name.data, "lookup_%V", store);

        if (store->len == 0) {
            name.len--;
        }
    }

    p = (u_char *) ngx_strlchr(name.data, name.data + name.len, ':');

    near = lmcf->nears.elts;

    for (i = 0; p == NULL && i < lmcf->nears.nelts; i++) {
        zone = near[i]->zone;

        if (zone->name.len != name.len
            || ngx_strncmp(zone->name.data, name.data, name.len) != 0)
        {
            continue;
        }

        if (store->len
            && (zone->store_name.len != store->len
                || ngx_strncmp(zone->store_name.data, store->data, store->len)
                   != 0))
        {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "zone \"%V\" is of another store", &name);
            return NULL;
        }

        return near[i];
    }

    zone = ngx_http_coord_zone_declare(cf, &ngx_http_coord_lookup_feature.kind,
                                       &name);
    if (zone == NULL) {
        return NULL;
    }

    zone->store_name = *store;
    zone->journal = 1;

    near = ngx_array_push(&lmcf->nears);
    if (near == NULL) {
        return NULL;
    }

    *near = ngx_coord_near_create(cf->pool, zone);

    return *near;
}
