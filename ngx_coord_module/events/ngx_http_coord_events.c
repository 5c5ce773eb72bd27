
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_publish and coord_subscribe: the directives, and what a request
 * publishes when it is over.
 */


#include "ngx_http_coord_events.h"


#define NGX_HTTP_COORD_EVENTS_TTL        3600000    /* milliseconds */
#define NGX_HTTP_COORD_EVENTS_HEARTBEAT  15000
#define NGX_HTTP_COORD_EVENTS_HISTORY    1000000


typedef struct {
    ngx_array_t                uses;     /* ngx_http_coord_events_use_t * */
    ngx_uint_t                 publish;  /* somewhere */
} ngx_http_coord_events_main_conf_t;


static ngx_int_t ngx_http_coord_events_log_handler(ngx_http_request_t *r);
static ngx_int_t ngx_http_coord_events_publish(ngx_http_request_t *r,
    ngx_http_coord_publish_t *pub);

static ngx_int_t ngx_http_coord_events_preconfiguration(ngx_conf_t *cf);
static ngx_int_t ngx_http_coord_events_init(ngx_conf_t *cf);
static void *ngx_http_coord_events_create_main_conf(ngx_conf_t *cf);
static void *ngx_http_coord_events_create_conf(ngx_conf_t *cf);
static char *ngx_http_coord_events_merge_conf(ngx_conf_t *cf, void *parent,
    void *child);
static char *ngx_http_coord_events_publish_set(ngx_conf_t *cf,
    ngx_command_t *cmd, void *conf);
static ngx_http_coord_publish_t *ngx_http_coord_events_publish_add(
    ngx_conf_t *cf, ngx_http_coord_events_conf_t *ecf, ngx_str_t *value);
static ngx_int_t ngx_http_coord_events_publish_arg(ngx_conf_t *cf,
    ngx_http_coord_publish_t *pub, ngx_str_t *value);
static char *ngx_http_coord_events_subscribe_set(ngx_conf_t *cf,
    ngx_command_t *cmd, void *conf);
static ngx_int_t ngx_http_coord_events_subscribe_arg(ngx_conf_t *cf,
    ngx_http_coord_events_conf_t *conf, ngx_str_t *value);
static ngx_int_t ngx_http_coord_events_use(ngx_conf_t *cf,
    ngx_http_coord_events_use_t **use, ngx_str_t *name);
static ngx_int_t ngx_http_coord_events_resolve(ngx_conf_t *cf,
    ngx_http_coord_events_use_t *use);
static ngx_int_t ngx_http_coord_events_channel(ngx_conf_t *cf,
    ngx_str_t *value, ngx_http_complex_value_t **channel);


static ngx_http_coord_feature_t  ngx_http_coord_events_feature = {

    { ngx_string("events"),
      ngx_string("ev"),
      0,
      0,
      0 },

    {
        ngx_http_coord_no_step,            /* preaccess */
        ngx_http_coord_no_step             /* precontent */
    },

    NULL,
    NULL,
    ngx_http_coord_events_routes,
    0
};


static ngx_command_t  ngx_http_coord_events_commands[] = {

    { ngx_string("coord_publish"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_HTTP_LIF_CONF
                        |NGX_CONF_1MORE,
      ngx_http_coord_events_publish_set,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("coord_subscribe"),
      NGX_HTTP_LOC_CONF|NGX_CONF_1MORE,
      ngx_http_coord_events_subscribe_set,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

      ngx_null_command
};


static ngx_http_module_t  ngx_http_coord_events_module_ctx = {
    ngx_http_coord_events_preconfiguration,   /* preconfiguration */
    ngx_http_coord_events_init,            /* postconfiguration */

    ngx_http_coord_events_create_main_conf,   /* create main configuration */
    NULL,                                  /* init main configuration */

    NULL,                                  /* create server configuration */
    NULL,                                  /* merge server configuration */

    ngx_http_coord_events_create_conf,     /* create location configuration */
    ngx_http_coord_events_merge_conf       /* merge location configuration */
};


ngx_module_t  ngx_http_coord_events_module = {
    NGX_MODULE_V1,
    &ngx_http_coord_events_module_ctx,     /* module context */
    ngx_http_coord_events_commands,        /* module directives */
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
ngx_http_coord_events_log_handler(ngx_http_request_t *r)
{
    ngx_uint_t                     i;
    ngx_http_coord_publish_t      *pub;
    ngx_http_coord_events_conf_t  *conf;

    conf = ngx_http_get_module_loc_conf(r, ngx_http_coord_events_module);

    /* with "log_subrequest on" subrequests come here, too */

    if (conf->publish == NULL || r != r->main) {
        return NGX_OK;
    }

    pub = conf->publish->elts;

    for (i = 0; i < conf->publish->nelts; i++) {

        if (ngx_http_coord_events_publish(r, &pub[i]) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_coord_events_publish(ngx_http_request_t *r,
    ngx_http_coord_publish_t *pub)
{
    ngx_str_t    value, channel, message;
    const char  *why;

    if (pub->condition) {

        if (ngx_http_complex_value(r, pub->condition, &value) != NGX_OK) {
            return NGX_ERROR;
        }

        if (value.len == 0 || (value.len == 1 && value.data[0] == '0')) {
            return NGX_OK;
        }
    }

    if (ngx_http_complex_value(r, pub->channel, &channel) != NGX_OK
        || ngx_http_complex_value(r, pub->message, &message) != NGX_OK)
    {
        return NGX_ERROR;
    }

    /* an empty channel: it is not for this request, as an empty key */

    if (channel.len == 0) {
        return NGX_OK;
    }

    why = ngx_coord_bus_check(pub->use->store, &channel);

    if (why) {
        ngx_coord_bus_reject(pub->use->store, why);
        return NGX_OK;
    }

    ngx_coord_bus_publish(pub->use->store, &channel, &message, pub->history,
                          pub->ttl);

    return NGX_OK;
}


static ngx_int_t
ngx_http_coord_events_preconfiguration(ngx_conf_t *cf)
{
    return ngx_http_coord_feature_add(cf, &ngx_http_coord_events_feature);
}


static ngx_int_t
ngx_http_coord_events_init(ngx_conf_t *cf)
{
    ngx_uint_t                           i;
    ngx_http_handler_pt                 *h;
    ngx_http_core_main_conf_t           *cmcf;
    ngx_http_coord_events_use_t        **uses;
    ngx_http_coord_events_main_conf_t   *emcf;

    emcf = ngx_http_conf_get_module_main_conf(cf,
                                              ngx_http_coord_events_module);
    uses = emcf->uses.elts;

    for (i = 0; i < emcf->uses.nelts; i++) {

        if (ngx_http_coord_events_resolve(cf, uses[i]) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    if (!emcf->publish) {
        return NGX_OK;
    }

    cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module);

    h = ngx_array_push(&cmcf->phases[NGX_HTTP_LOG_PHASE].handlers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    *h = ngx_http_coord_events_log_handler;

    return NGX_OK;
}


static void *
ngx_http_coord_events_create_main_conf(ngx_conf_t *cf)
{
    ngx_http_coord_events_main_conf_t  *emcf;

    emcf = ngx_pcalloc(cf->pool, sizeof(ngx_http_coord_events_main_conf_t));
    if (emcf == NULL) {
        return NULL;
    }

    /*
     * set by ngx_pcalloc():
     *
     *     emcf->publish = 0;
     */

    if (ngx_array_init(&emcf->uses, cf->pool, 4,
                       sizeof(ngx_http_coord_events_use_t *))
        != NGX_OK)
    {
        return NULL;
    }

    return emcf;
}


static void *
ngx_http_coord_events_create_conf(ngx_conf_t *cf)
{
    ngx_http_coord_events_conf_t  *conf;

    conf = ngx_pcalloc(cf->pool, sizeof(ngx_http_coord_events_conf_t));
    if (conf == NULL) {
        return NULL;
    }

    /*
     * set by ngx_pcalloc():
     *
     *     conf->publish = NULL;
     *     conf->off = 0;
     *     conf->channels = NULL;
     *     conf->use = NULL;
     *     conf->history = 0;
     */

    conf->heartbeat = NGX_CONF_UNSET_MSEC;

    return conf;
}


static char *
ngx_http_coord_events_merge_conf(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_http_coord_events_conf_t  *prev = parent;
    ngx_http_coord_events_conf_t  *conf = child;

    ngx_http_core_loc_conf_t  *clcf;

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    /* "if" in a location has its handler, and its lines */

    if (conf->publish == NULL
        && !conf->off
        && (clcf->noname || !ngx_http_coord_is_exempt(cf)))
    {
        conf->publish = prev->publish;
    }

    if (clcf->noname && conf->channels == NULL) {
        conf->channels = prev->channels;
        conf->use = prev->use;
        conf->history = prev->history;
        conf->heartbeat = prev->heartbeat;
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_coord_events_publish_set(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf)
{
    ngx_http_coord_events_conf_t *ecf = conf;

    ngx_str_t                          *value, store;
    ngx_uint_t                          i;
    ngx_http_coord_publish_t           *pub;
    ngx_http_coord_events_main_conf_t  *emcf;

    value = cf->args->elts;

    if (ecf->off) {
        return "is duplicate";
    }

    if (cf->args->nelts == 2) {

        if (ngx_strcmp(value[1].data, "off") != 0) {
            return "needs a channel and a message, or \"off\"";
        }

        if (ecf->publish) {
            return "is duplicate";
        }

        ecf->off = 1;
        return NGX_CONF_OK;
    }

    if (ngx_strcmp(value[1].data, "off") == 0) {
        return "takes no parameters with \"off\"";
    }

    pub = ngx_http_coord_events_publish_add(cf, ecf, value);
    if (pub == NULL) {
        return NGX_CONF_ERROR;
    }

    ngx_str_null(&store);

    for (i = 3; i < cf->args->nelts; i++) {

        if (ngx_http_coord_param(&value[i], "store=", &store)) {
            continue;
        }

        if (ngx_http_coord_events_publish_arg(cf, pub, &value[i]) != NGX_OK) {
            return NGX_CONF_ERROR;
        }
    }

    if (pub->ttl && pub->history == 0) {
        return "has \"ttl=\" without \"history=\"";
    }

    if (pub->ttl == 0) {
        pub->ttl = NGX_HTTP_COORD_EVENTS_TTL;
    }

    emcf = ngx_http_conf_get_module_main_conf(cf,
                                              ngx_http_coord_events_module);
    emcf->publish = 1;

    return ngx_http_coord_events_use(cf, &pub->use, &store) == NGX_OK
           ? NGX_CONF_OK : NGX_CONF_ERROR;
}


/* one more, with its channel and its message; NULL: logged, or no memory */

static ngx_http_coord_publish_t *
ngx_http_coord_events_publish_add(ngx_conf_t *cf,
    ngx_http_coord_events_conf_t *ecf, ngx_str_t *value)
{
    ngx_http_coord_publish_t  *pub;

    if (ecf->publish == NULL) {
        ecf->publish = ngx_array_create(cf->pool, 2,
                                        sizeof(ngx_http_coord_publish_t));
        if (ecf->publish == NULL) {
            return NULL;
        }
    }

    pub = ngx_array_push(ecf->publish);
    if (pub == NULL) {
        return NULL;
    }

    ngx_memzero(pub, sizeof(ngx_http_coord_publish_t));

    if (ngx_http_coord_events_channel(cf, &value[1], &pub->channel) != NGX_OK)
    {
        return NULL;
    }

    pub->message = ngx_http_coord_complex_value(cf, &value[2]);

    return pub->message ? pub : NULL;
}


static ngx_int_t
ngx_http_coord_events_publish_arg(ngx_conf_t *cf,
    ngx_http_coord_publish_t *pub, ngx_str_t *value)
{
    ngx_int_t  n;
    ngx_str_t  s;

    if (ngx_http_coord_param(value, "if=", &s)) {
        pub->condition = ngx_http_coord_complex_value(cf, &s);
        return pub->condition ? NGX_OK : NGX_ERROR;
    }

    if (ngx_http_coord_param(value, "history=", &s)) {
        n = ngx_atoi(s.data, s.len);

        if (n > 0 && n <= NGX_HTTP_COORD_EVENTS_HISTORY) {
            pub->history = n;
            return NGX_OK;
        }

    } else if (ngx_http_coord_param(value, "ttl=", &s)) {
        n = ngx_http_coord_long_time(&s);

        if (n > 0) {
            pub->ttl = n;
            return NGX_OK;
        }
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid parameter \"%V\", allowed are \"if=\", "
                       "\"history=\" with a number from 1 to %i, \"ttl=\" "
                       "with a time and \"store=\"", value,
                       (ngx_int_t) NGX_HTTP_COORD_EVENTS_HISTORY);

    return NGX_ERROR;
}


static char *
ngx_http_coord_events_subscribe_set(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf)
{
    ngx_http_coord_events_conf_t *ecf = conf;

    ngx_str_t                  *value, store;
    ngx_uint_t                  i;
    ngx_http_core_loc_conf_t   *clcf;

    if (ecf->channels) {
        return "is duplicate";
    }

    ecf->channels = ngx_array_create(cf->pool, 2,
                                     sizeof(ngx_http_complex_value_t *));
    if (ecf->channels == NULL) {
        return NGX_CONF_ERROR;
    }

    value = cf->args->elts;
    ngx_str_null(&store);

    for (i = 1; i < cf->args->nelts; i++) {

        if (ngx_http_coord_param(&value[i], "store=", &store)) {
            continue;
        }

        if (ngx_http_coord_events_subscribe_arg(cf, ecf, &value[i])
            != NGX_OK)
        {
            return NGX_CONF_ERROR;
        }
    }

    if (ecf->channels->nelts == 0) {
        return "needs a channel";
    }

    if (ecf->channels->nelts > NGX_HTTP_COORD_EVENTS_CHANNELS) {
        return "has more than 16 channels";
    }

    if (ecf->heartbeat == NGX_CONF_UNSET_MSEC) {
        ecf->heartbeat = NGX_HTTP_COORD_EVENTS_HEARTBEAT;
    }

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);
    clcf->handler = ngx_http_coord_events_handler;

    return ngx_http_coord_events_use(cf, &ecf->use, &store) == NGX_OK
           ? NGX_CONF_OK : NGX_CONF_ERROR;
}


static ngx_int_t
ngx_http_coord_events_subscribe_arg(ngx_conf_t *cf,
    ngx_http_coord_events_conf_t *conf, ngx_str_t *value)
{
    ngx_int_t                   ms;
    ngx_str_t                   s;
    ngx_http_complex_value_t  **cv;

    if (value->len == sizeof("history") - 1
        && ngx_strcmp(value->data, "history") == 0)
    {
        conf->history = 1;
        return NGX_OK;
    }

    if (ngx_http_coord_param(value, "heartbeat=", &s)) {

        if (s.len == 3 && ngx_strcmp(s.data, "off") == 0) {
            conf->heartbeat = 0;
            return NGX_OK;
        }

        ms = ngx_parse_time(&s, 0);

        if (ms == NGX_ERROR || ms < 100) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid parameter \"%V\", allowed are \"off\" "
                               "and a time of 100ms or more", value);
            return NGX_ERROR;
        }

        conf->heartbeat = ms;
        return NGX_OK;
    }

    cv = ngx_array_push(conf->channels);
    if (cv == NULL) {
        return NGX_ERROR;
    }

    return ngx_http_coord_events_channel(cf, value, cv);
}


static ngx_int_t
ngx_http_coord_events_channel(ngx_conf_t *cf, ngx_str_t *value,
    ngx_http_complex_value_t **channel)
{
    const char  *why;

    *channel = ngx_http_coord_complex_value(cf, value);

    if (*channel == NULL) {
        return NGX_ERROR;
    }

    /* one with variables is looked at when they have values */

    if ((*channel)->lengths) {
        return NGX_OK;
    }

    why = ngx_coord_bus_check(NULL, value);

    if (why) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "invalid channel \"%V\": %s",
                           value, why);
        return NGX_ERROR;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_coord_events_use(ngx_conf_t *cf, ngx_http_coord_events_use_t **use,
    ngx_str_t *name)
{
    ngx_http_coord_events_use_t        **u;
    ngx_http_coord_events_main_conf_t   *emcf;

    *use = ngx_pcalloc(cf->pool, sizeof(ngx_http_coord_events_use_t));
    if (*use == NULL) {
        return NGX_ERROR;
    }

    (*use)->name = *name;
    (*use)->file = cf->conf_file->file.name.data;
    (*use)->line = cf->conf_file->line;

    emcf = ngx_http_conf_get_module_main_conf(cf,
                                              ngx_http_coord_events_module);

    u = ngx_array_push(&emcf->uses);
    if (u == NULL) {
        return NGX_ERROR;
    }

    *u = *use;

    return NGX_OK;
}


static ngx_int_t
ngx_http_coord_events_resolve(ngx_conf_t *cf,
    ngx_http_coord_events_use_t *use)
{
    use->store = ngx_http_coord_store_find(cf, &use->name);

    if (use->store == NULL) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "unknown store \"%V\" in %s:%ui",
                      &use->name, use->file, use->line);
        return NGX_ERROR;
    }

    return ngx_coord_bus_add(cf, use->store, &ngx_http_coord_events_module);
}
