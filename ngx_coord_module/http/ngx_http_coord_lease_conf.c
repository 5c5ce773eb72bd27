
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * What features that hold leases have in common: zones and parameters.
 */


#include "ngx_http_coord_conf.h"
#include "ngx_http_coord_lease.h"
#include "ngx_coord_parse.h"


#define NGX_HTTP_COORD_LEASE      30000       /* lease=, milliseconds */
#define NGX_HTTP_COORD_LEASE_MIN  500
#define NGX_HTTP_COORD_LEASE_MAX  86400000

#define NGX_HTTP_COORD_WAIT_MAX   3600000     /* wait= */
#define NGX_HTTP_COORD_QUEUE_MAX  100000      /* queue= */


static ngx_int_t ngx_http_coord_lease_time(ngx_conf_t *cf, ngx_str_t *value,
    ngx_coord_nsec_t *lease);


char *
ngx_http_coord_lease_zone(ngx_conf_t *cf, ngx_command_t *cmd,
    const ngx_coord_kind_t *kind)
{
    ngx_str_t                    *value, name, store, rest;
    ngx_uint_t                    i;
    ngx_coord_zone_t             *zone;
    ngx_http_coord_lease_zone_t  *lz;

    value = cf->args->elts;

    ngx_str_null(&name);
    ngx_str_null(&store);

    lz = ngx_pcalloc(cf->pool, sizeof(ngx_http_coord_lease_zone_t));
    if (lz == NULL) {
        return NGX_CONF_ERROR;
    }

    lz->lease = NGX_HTTP_COORD_LEASE * NGX_COORD_NSEC_PER_MSEC;

    lz->key = ngx_http_coord_complex_value(cf, &value[1]);
    if (lz->key == NULL) {
        return NGX_CONF_ERROR;
    }

    for (i = 2; i < cf->args->nelts; i++) {

        if (ngx_http_coord_param(&value[i], "zone=", &name)
            || ngx_http_coord_param(&value[i], "store=", &store))
        {
            continue;
        }

        if (ngx_http_coord_param(&value[i], "lease=", &rest)) {

            if (ngx_http_coord_lease_time(cf, &rest, &lz->lease) != NGX_OK) {
                return NGX_CONF_ERROR;
            }

            continue;
        }

        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid parameter \"%V\", allowed are \"zone=\", "
                           "\"lease=\" and \"store=\"", &value[i]);
        return NGX_CONF_ERROR;
    }

    if (name.len == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%V\" must have \"zone\" parameter", &cmd->name);
        return NGX_CONF_ERROR;
    }

    zone = ngx_http_coord_zone_declare(cf, kind, &name);
    if (zone == NULL) {
        return NGX_CONF_ERROR;
    }

    zone->store_name = store;
    zone->data = lz;

    ngx_http_coord_zone_named_by(zone, &value[1]);
    zone->leases = 1;
    zone->journal = 1;

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_coord_lease_time(ngx_conf_t *cf, ngx_str_t *value,
    ngx_coord_nsec_t *lease)
{
    ngx_int_t  ms;

    ms = ngx_parse_time(value, 0);

    if (ms == NGX_ERROR
        || ms < NGX_HTTP_COORD_LEASE_MIN
        || ms > NGX_HTTP_COORD_LEASE_MAX)
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid lease \"%V\", it must be a time from "
                           "%dms to 1d", value, NGX_HTTP_COORD_LEASE_MIN);
        return NGX_ERROR;
    }

    *lease = ms * NGX_COORD_NSEC_PER_MSEC;

    return NGX_OK;
}


ngx_int_t
ngx_http_coord_lease_param(ngx_conf_t *cf, ngx_http_coord_lease_limit_t *limit,
    ngx_str_t *value)
{
    ngx_int_t  ms;
    ngx_str_t  rest;

    if (ngx_http_coord_param(value, "on_failure=", &rest)) {
        return ngx_http_coord_parse_on_failure(cf, &rest, &limit->on_failure);
    }

    if (ngx_http_coord_param(value, "wait=", &rest)) {
        ms = ngx_parse_time(&rest, 0);

        if (ms == NGX_ERROR || ms == 0 || ms > NGX_HTTP_COORD_WAIT_MAX) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid time in \"%V\", it must be from 1ms "
                               "to 1h", value);
            return NGX_ERROR;
        }

        limit->wait = ms;
        limit->zone->wake = 1;
        limit->zone->wait = ngx_max(limit->zone->wait,
                                    ms * NGX_COORD_NSEC_PER_MSEC);
        return NGX_OK;
    }

    if (ngx_http_coord_param(value, "queue=", &rest)) {

        if (ngx_coord_parse_count(&rest, 1, &limit->queue) != NGX_OK
            || limit->queue > NGX_HTTP_COORD_QUEUE_MAX)
        {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid number in \"%V\", it must be from 1 "
                               "to %d", value, NGX_HTTP_COORD_QUEUE_MAX);
            return NGX_ERROR;
        }

        return NGX_OK;
    }

    return NGX_DECLINED;
}
