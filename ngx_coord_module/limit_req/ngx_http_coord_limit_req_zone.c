
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_limit_req_zone: the directive.
 */


#include "ngx_http_coord_conf.h"
#include "ngx_http_coord_limit_req.h"
#include "ngx_coord_prefetch.h"


typedef struct {
    ngx_str_t                   name;
    ngx_str_t                   layout;   /* of its keys in Redis */
    const ngx_coord_op_type_t  *op;
    unsigned                    delay:1;
} ngx_http_coord_algorithm_t;


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


char *
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

    lrz->text = value[1];

    ngx_http_coord_limit_req_lint_key(cf, &value[1]);

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
    zone->prefetch = lrz->prefetch;
    zone->deny = 1;
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

    if (ngx_http_coord_param(value, "prefetch=", &rest)) {

        if (ngx_coord_parse_count(&rest, 1, &lrz->prefetch) == NGX_OK
            && lrz->prefetch <= NGX_COORD_PREFETCH_MAX)
        {
            return NGX_OK;
        }

        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid number in \"%V\", it must be from 1 to "
                           "%d", value, NGX_COORD_PREFETCH_MAX);
        return NGX_ERROR;
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
                       "\"rate=\", \"algorithm=\", \"align=\", \"tz=\", "
                       "\"prefetch=\" and \"store=\"", value);

    return NGX_ERROR;
}


static ngx_int_t
ngx_http_coord_limit_req_zone_rate(ngx_conf_t *cf,
    ngx_http_coord_limit_req_zone_t *lrz, ngx_str_t *rate)
{
    ngx_int_t  rc;

    if (ngx_http_script_variables_count(rate)) {
        lrz->rate = ngx_http_coord_complex_value(cf, rate);

        return lrz->rate ? NGX_OK : NGX_ERROR;
    }

    rc = ngx_coord_parse_rate(rate, &lrz->quota);

    if (rc == NGX_OK && lrz->quota.count) {
        return NGX_OK;
    }

    if (rc == NGX_DECLINED) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "too large rate \"%V\", it must be of at most %d, "
                           "in a shorter period if need be",
                           rate, NGX_COORD_COUNT_MAX);
        return NGX_ERROR;
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid rate \"%V\", it must be like \"10r/s\", "
                       "\"30r/m\", \"1000r/h\", \"5000r/d\" or \"10r/5s\", "
                       "of at most %d in at most 366 days",
                       rate, NGX_COORD_COUNT_MAX);

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

    if (lrz->prefetch && lrz->op != &ngx_coord_op_bucket_take) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"prefetch=\" is not allowed with algorithm "
                           "\"%V\", only with \"leaky_bucket\" and "
                           "\"token_bucket\"", &lrz->algorithm);
        return NGX_ERROR;
    }

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
