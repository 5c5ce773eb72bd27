
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_limit_req: the directives.  Requests are decided in
 * ngx_http_coord_limit_req.c.
 */


#include "ngx_http_coord_conf.h"
#include "ngx_http_coord_limit_req.h"
#include "ngx_coord_rate.h"


typedef struct {
    ngx_str_t                   name;
    ngx_str_t                   layout;   /* of its keys in Redis */
    const ngx_coord_op_type_t  *op;
    unsigned                    delay:1;
} ngx_http_coord_algorithm_t;


static ngx_int_t ngx_http_coord_limit_req_preconfiguration(ngx_conf_t *cf);
static void *ngx_http_coord_limit_req_create_conf(ngx_conf_t *cf);
static char *ngx_http_coord_limit_req_merge_conf(ngx_conf_t *cf, void *parent,
    void *child);
static ngx_int_t ngx_http_coord_limit_req_check(ngx_conf_t *cf,
    ngx_http_coord_limit_req_limit_t *limit);
static char *ngx_http_coord_limit_req_zone(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static ngx_int_t ngx_http_coord_limit_req_zone_param(ngx_conf_t *cf,
    ngx_http_coord_limit_req_zone_t *lrz, ngx_str_t *value, ngx_str_t *zone,
    ngx_str_t *store);
static ngx_int_t ngx_http_coord_limit_req_zone_rate(ngx_conf_t *cf,
    ngx_http_coord_limit_req_zone_t *lrz, ngx_str_t *rate);
static ngx_int_t ngx_http_coord_limit_req_zone_algorithm(ngx_conf_t *cf,
    ngx_http_coord_limit_req_zone_t *lrz, ngx_str_t *name);
static ngx_int_t ngx_http_coord_limit_req_zone_align(ngx_conf_t *cf,
    ngx_http_coord_limit_req_zone_t *lrz, ngx_str_t *name);
static ngx_int_t ngx_http_coord_limit_req_zone_check(ngx_conf_t *cf,
    ngx_http_coord_limit_req_zone_t *lrz, ngx_uint_t tz);
static char *ngx_http_coord_limit_req(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static ngx_int_t ngx_http_coord_limit_req_param(ngx_conf_t *cf,
    ngx_http_coord_limit_req_limit_t *limit, ngx_str_t *value);
static ngx_int_t ngx_http_coord_limit_req_burst(ngx_conf_t *cf,
    ngx_http_coord_limit_req_limit_t *limit, ngx_str_t *value);


static ngx_http_coord_algorithm_t  ngx_http_coord_algorithms[] = {
    { ngx_string("leaky_bucket"), ngx_string("rl"),
      &ngx_coord_op_bucket_take, 1 },
    { ngx_string("token_bucket"), ngx_string("rl"),
      &ngx_coord_op_bucket_take, 0 },
    { ngx_string("sliding_window"), ngx_string("rw"),
      &ngx_coord_op_sliding_take, 0 },
    { ngx_string("sliding_log"), ngx_string("rg"),
      &ngx_coord_op_log_take, 0 },
    { ngx_string("fixed_window"), ngx_string("rf"),
      &ngx_coord_op_window_take, 0 },
    { ngx_null_string, ngx_null_string, NULL, 0 }
};


static ngx_conf_enum_t  ngx_http_coord_aligns[] = {
    { ngx_string("hour"), NGX_COORD_ALIGN_HOUR },
    { ngx_string("day"), NGX_COORD_ALIGN_DAY },
    { ngx_string("week"), NGX_COORD_ALIGN_WEEK },
    { ngx_string("month"), NGX_COORD_ALIGN_MONTH },
    { ngx_null_string, 0 }
};


static ngx_command_t  ngx_http_coord_limit_req_commands[] = {

    { ngx_string("coord_limit_req_zone"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_2MORE,
      ngx_http_coord_limit_req_zone,
      0,
      0,
      NULL },

    { ngx_string("coord_limit_req"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_1MORE,
      ngx_http_coord_limit_req,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    ngx_http_coord_limiter_commands("coord_limit_req"),

      ngx_null_command
};


static ngx_http_module_t  ngx_http_coord_limit_req_module_ctx = {
    ngx_http_coord_limit_req_preconfiguration, /* preconfiguration */
    NULL,                                  /* postconfiguration */

    NULL,                                  /* create main configuration */
    NULL,                                  /* init main configuration */

    NULL,                                  /* create server configuration */
    NULL,                                  /* merge server configuration */

    ngx_http_coord_limit_req_create_conf,  /* create location configuration */
    ngx_http_coord_limit_req_merge_conf    /* merge location configuration */
};


ngx_module_t  ngx_http_coord_limit_req_module = {
    NGX_MODULE_V1,
    &ngx_http_coord_limit_req_module_ctx,  /* module context */
    ngx_http_coord_limit_req_commands,     /* module directives */
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
ngx_http_coord_limit_req_preconfiguration(ngx_conf_t *cf)
{
    return ngx_http_coord_feature_add(cf, &ngx_http_coord_limit_req_feature);
}


static void *
ngx_http_coord_limit_req_create_conf(ngx_conf_t *cf)
{
    ngx_http_coord_limit_req_conf_t  *conf;

    conf = ngx_pcalloc(cf->pool, sizeof(ngx_http_coord_limit_req_conf_t));
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
ngx_http_coord_limit_req_merge_conf(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_http_coord_limit_req_conf_t  *prev = parent;
    ngx_http_coord_limit_req_conf_t  *conf = child;

    ngx_uint_t                         i, inherited;
    ngx_http_coord_limit_req_limit_t  *limits;

    ngx_http_coord_limiter_conf_merge(&conf->limiter, &prev->limiter,
                                      NGX_HTTP_TOO_MANY_REQUESTS);

    inherited = (conf->limits.elts == NULL && !conf->limiter.off);

    if (inherited) {
        conf->limits = prev->limits;
    }

    limits = conf->limits.elts;

    for (i = 0; i < conf->limits.nelts; i++) {
        if (ngx_http_coord_limit_req_check(cf, &limits[i]) != NGX_OK) {
            return NGX_CONF_ERROR;
        }
    }

    for (i = 0; i < conf->limits.nelts; i++) {
        ngx_http_coord_feature_enable(cf, &ngx_http_coord_limit_req_feature,
                                      limits[i].stage, inherited);
    }

    return NGX_CONF_OK;
}


/* what depends on the algorithm: the zone may be declared after its use */

static ngx_int_t
ngx_http_coord_limit_req_check(ngx_conf_t *cf,
    ngx_http_coord_limit_req_limit_t *limit)
{
    ngx_coord_nsec_t                  interval;
    ngx_http_coord_limit_req_zone_t  *lrz;

    lrz = limit->zone->data;

    if (limit->has_burst && lrz->op != &ngx_coord_op_bucket_take) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "\"burst=\" is not allowed with zone \"%V\" in %s:%ui: "
                      "a window algorithm admits \"rate\" per period",
                      &limit->zone->name, limit->file, limit->line);
        return NGX_ERROR;
    }

    if (limit->has_delay && !lrz->delay) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "\"delay=\" is not allowed with zone \"%V\" in %s:%ui: "
                      "only \"leaky_bucket\" delays requests",
                      &limit->zone->name, limit->file, limit->line);
        return NGX_ERROR;
    }

    lrz->burst = ngx_max(lrz->burst, limit->burst);

    if (!lrz->delay) {
        limit->nodelay = 1;
    }

    if (lrz->rate == NULL && lrz->op == &ngx_coord_op_bucket_take) {
        interval = ngx_max(lrz->quota.period
                           / (ngx_coord_nsec_t) lrz->quota.count, 1);

        if (limit->burst >= (ngx_uint_t) (NGX_COORD_RATE_SPAN / interval)
            || limit->burst >= NGX_COORD_RATE_LIMIT)
        {
            ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                          "\"burst=%ui\" is too much for zone \"%V\" in "
                          "%s:%ui: at its rate it takes more than 18 years, "
                          "the most is %L",
                          limit->burst, &limit->zone->name, limit->file,
                          limit->line,
                          ngx_min(NGX_COORD_RATE_SPAN / interval,
                                  NGX_COORD_RATE_LIMIT) - 1);
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


static char *
ngx_http_coord_limit_req_zone(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_str_t                        *value, name, store;
    ngx_uint_t                        i, tz;
    ngx_coord_zone_t                 *zone;
    ngx_http_coord_limit_req_zone_t  *lrz;

    value = cf->args->elts;

    ngx_str_null(&name);
    ngx_str_null(&store);

    lrz = ngx_pcalloc(cf->pool, sizeof(ngx_http_coord_limit_req_zone_t));
    if (lrz == NULL) {
        return NGX_CONF_ERROR;
    }

    lrz->op = &ngx_coord_op_bucket_take;
    lrz->delay = 1;
    ngx_str_set(&lrz->algorithm, "leaky_bucket");
    ngx_str_set(&lrz->layout, "rl");

    lrz->key = ngx_http_coord_complex_value(cf, &value[1]);
    if (lrz->key == NULL) {
        return NGX_CONF_ERROR;
    }

    tz = 0;

    for (i = 2; i < cf->args->nelts; i++) {
        tz |= (ngx_strncmp(value[i].data, "tz=", 3) == 0);

        if (ngx_http_coord_limit_req_zone_param(cf, lrz, &value[i], &name,
                                                &store)
            != NGX_OK)
        {
            return NGX_CONF_ERROR;
        }
    }

    if (name.len == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%V\" must have \"zone\" parameter", &cmd->name);
        return NGX_CONF_ERROR;
    }

    if (lrz->rate == NULL && lrz->quota.count == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%V\" must have \"rate\" parameter", &cmd->name);
        return NGX_CONF_ERROR;
    }

    if (ngx_http_coord_limit_req_zone_check(cf, lrz, tz) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    zone = ngx_http_coord_zone_declare(cf,
                                       &ngx_http_coord_limit_req_feature.kind,
                                       &name);
    if (zone == NULL) {
        return NGX_CONF_ERROR;
    }

    zone->store_name = store;
    zone->layout = lrz->layout;
    zone->data = lrz;

    ngx_http_coord_zone_named_by(zone, &value[1]);

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_coord_limit_req_zone_param(ngx_conf_t *cf,
    ngx_http_coord_limit_req_zone_t *lrz, ngx_str_t *value, ngx_str_t *zone,
    ngx_str_t *store)
{
    ngx_str_t  rest;

    if (ngx_http_coord_param(value, "zone=", zone)
        || ngx_http_coord_param(value, "store=", store))
    {
        return NGX_OK;
    }

    if (ngx_http_coord_param(value, "rate=", &rest)) {
        return ngx_http_coord_limit_req_zone_rate(cf, lrz, &rest);
    }

    if (ngx_http_coord_param(value, "algorithm=", &rest)) {
        return ngx_http_coord_limit_req_zone_algorithm(cf, lrz, &rest);
    }

    if (ngx_http_coord_param(value, "align=", &rest)) {
        return ngx_http_coord_limit_req_zone_align(cf, lrz, &rest);
    }

    if (ngx_http_coord_param(value, "tz=", &rest)) {

        if (ngx_coord_parse_tz(&rest, &lrz->tz) == NGX_OK) {
            return NGX_OK;
        }

        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid value \"%V\" in \"tz=\", it must be like "
                           "\"+05:30\" or \"-08:00\"", &rest);
        return NGX_ERROR;
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid parameter \"%V\", allowed are \"zone=\", "
                       "\"rate=\", \"algorithm=\", \"align=\", \"tz=\" and "
                       "\"store=\"", value);

    return NGX_ERROR;
}


static ngx_int_t
ngx_http_coord_limit_req_zone_rate(ngx_conf_t *cf,
    ngx_http_coord_limit_req_zone_t *lrz, ngx_str_t *rate)
{
    if (ngx_http_script_variables_count(rate)) {
        lrz->rate = ngx_http_coord_complex_value(cf, rate);

        return lrz->rate ? NGX_OK : NGX_ERROR;
    }

    if (ngx_coord_parse_rate(rate, &lrz->quota) == NGX_OK
        && lrz->quota.count)
    {
        return NGX_OK;
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid rate \"%V\", it must be like \"10r/s\", "
                       "\"30r/m\", \"1000r/h\", \"5000r/d\" or \"10r/5s\"",
                       rate);

    return NGX_ERROR;
}


static ngx_int_t
ngx_http_coord_limit_req_zone_algorithm(ngx_conf_t *cf,
    ngx_http_coord_limit_req_zone_t *lrz, ngx_str_t *name)
{
    ngx_http_coord_algorithm_t  *algorithm;

    for (algorithm = ngx_http_coord_algorithms;
         algorithm->name.len;
         algorithm++)
    {
        if (algorithm->name.len == name->len
            && ngx_strncmp(algorithm->name.data, name->data, name->len) == 0)
        {
            lrz->op = algorithm->op;
            lrz->algorithm = algorithm->name;
            lrz->layout = algorithm->layout;
            lrz->delay = algorithm->delay;

            return NGX_OK;
        }
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid algorithm \"%V\", it must be "
                       "\"leaky_bucket\", \"token_bucket\", "
                       "\"sliding_window\", \"sliding_log\" or "
                       "\"fixed_window\"", name);

    return NGX_ERROR;
}


static ngx_int_t
ngx_http_coord_limit_req_zone_align(ngx_conf_t *cf,
    ngx_http_coord_limit_req_zone_t *lrz, ngx_str_t *name)
{
    ngx_conf_enum_t  *e;

    for (e = ngx_http_coord_aligns; e->name.len; e++) {
        if (e->name.len == name->len
            && ngx_strncmp(e->name.data, name->data, name->len) == 0)
        {
            lrz->align = e->value;
            return NGX_OK;
        }
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid value \"%V\" in \"align=\", it must be "
                       "\"hour\", \"day\", \"week\" or \"month\"", name);

    return NGX_ERROR;
}


/* what parameters of a zone, in whatever order, say together */

static ngx_int_t
ngx_http_coord_limit_req_zone_check(ngx_conf_t *cf,
    ngx_http_coord_limit_req_zone_t *lrz, ngx_uint_t tz)
{
    ngx_str_t  *name;

    if (lrz->align == NGX_COORD_ALIGN_NONE) {

        if (tz) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "\"tz=\" is of use with \"align=\" only");
            return NGX_ERROR;
        }

        return NGX_OK;
    }

    name = &ngx_http_coord_aligns[lrz->align - NGX_COORD_ALIGN_HOUR].name;

    if (lrz->op != &ngx_coord_op_window_take) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"align=%V\" is not allowed with algorithm "
                           "\"%V\", only with \"fixed_window\"",
                           name, &lrz->algorithm);
        return NGX_ERROR;
    }

    if (lrz->rate == NULL
        && lrz->quota.period > ngx_coord_period_longest(lrz->align))
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "the period of the rate is longer than a %V of "
                           "\"align=%V\"", name, name);
        return NGX_ERROR;
    }

    return NGX_OK;
}


static char *
ngx_http_coord_limit_req(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_coord_limit_req_conf_t *lrcf = conf;

    ngx_str_t                         *value, rest;
    ngx_uint_t                         i;
    ngx_http_coord_limit_req_limit_t  *limit, *limits;

    value = cf->args->elts;

    if (lrcf->limiter.off
        || (lrcf->limits.elts && ngx_strcmp(value[1].data, "off") == 0))
    {
        return "is duplicate";
    }

    if (ngx_http_coord_limiter_off(cf, &lrcf->limiter)) {
        return NGX_CONF_OK;
    }

    if (lrcf->limits.elts == NULL) {
        if (ngx_array_init(&lrcf->limits, cf->pool, 1,
                           sizeof(ngx_http_coord_limit_req_limit_t))
            != NGX_OK)
        {
            return NGX_CONF_ERROR;
        }
    }

    limit = ngx_http_coord_limits_push(cf, &cmd->name, &lrcf->limits);
    if (limit == NULL) {
        return NGX_CONF_ERROR;
    }

    ngx_memzero(limit, sizeof(ngx_http_coord_limit_req_limit_t));

    limit->on_failure = NGX_CONF_UNSET_UINT;
    limit->file = cf->conf_file->file.name.data;
    limit->line = cf->conf_file->line;

    for (i = 1; i < cf->args->nelts; i++) {

        if (ngx_http_coord_param(&value[i], "zone=", &rest)) {
            continue;
        }

        if (ngx_http_coord_limit_req_param(cf, limit, &value[i]) != NGX_OK) {
            return NGX_CONF_ERROR;
        }
    }

    if (limit->has_delay && limit->nodelay) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"delay=\" and \"nodelay\" exclude each other");
        return NGX_CONF_ERROR;
    }

    limit->zone = ngx_http_coord_zone_arg(cf, cmd,
                                      &ngx_http_coord_limit_req_feature.kind);
    if (limit->zone == NULL) {
        return NGX_CONF_ERROR;
    }

    limits = lrcf->limits.elts;

    for (i = 0; i < lrcf->limits.nelts - 1; i++) {
        if (limits[i].zone == limit->zone) {
            return "is duplicate";
        }
    }

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_coord_limit_req_param(ngx_conf_t *cf,
    ngx_http_coord_limit_req_limit_t *limit, ngx_str_t *value)
{
    ngx_str_t  rest;

    if (ngx_http_coord_param(value, "burst=", &rest)) {
        return ngx_http_coord_limit_req_burst(cf, limit, &rest);
    }

    if (ngx_http_coord_param(value, "delay=", &rest)) {

        if (ngx_coord_parse_count(&rest, 1, &limit->delay) == NGX_OK) {
            limit->has_delay = 1;
            return NGX_OK;
        }

        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid delay value \"%V\", it must be a number "
                           "from 1 to %d", &rest, NGX_COORD_COUNT_MAX);
        return NGX_ERROR;
    }

    if (ngx_http_coord_param(value, "on_failure=", &rest)) {
        return ngx_http_coord_parse_on_failure(cf, &rest, &limit->on_failure);
    }

    if (ngx_strcmp(value->data, "nodelay") == 0) {
        limit->nodelay = 1;
        return NGX_OK;
    }

    if (ngx_strcmp(value->data, "after_auth") == 0) {
        limit->stage = NGX_HTTP_COORD_PRECONTENT;
        return NGX_OK;
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid parameter \"%V\", allowed are \"zone=\", "
                       "\"burst=\", \"nodelay\", \"delay=\", "
                       "\"after_auth\" and \"on_failure=\"", value);

    return NGX_ERROR;
}


static ngx_int_t
ngx_http_coord_limit_req_burst(ngx_conf_t *cf,
    ngx_http_coord_limit_req_limit_t *limit, ngx_str_t *value)
{
    limit->has_burst = 1;

    if (ngx_http_script_variables_count(value)) {
        limit->burst_value = ngx_http_coord_complex_value(cf, value);

        return limit->burst_value ? NGX_OK : NGX_ERROR;
    }

    if (ngx_coord_parse_count(value, 0, &limit->burst) == NGX_OK) {
        return NGX_OK;
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid burst value \"%V\", it must be a number "
                       "from 0 to %d", value, NGX_COORD_COUNT_MAX);

    return NGX_ERROR;
}
