
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_limit_req_hold: a key that is refused for some time, because of what
 * became of a request.
 */


#include "ngx_http_coord_conf.h"
#include "ngx_http_coord_limit_req.h"
#include "ngx_coord_giveback.h"


/* for so long a store that does not answer is asked to take a hold */
#define NGX_HTTP_COORD_HOLD_LIFE  (60 * NGX_COORD_NSEC_PER_SEC)


static ngx_int_t ngx_http_coord_limit_req_hold_time(ngx_conf_t *cf,
    ngx_http_coord_limit_req_hold_t *hold, ngx_str_t *value);
static ngx_coord_nsec_t ngx_http_coord_limit_req_hold_cut(int64_t ms);
static void ngx_http_coord_limit_req_hold_place(ngx_http_request_t *r,
    ngx_http_coord_limit_req_hold_t *hold,
    ngx_http_coord_limit_req_state_t *state);
static ngx_int_t ngx_http_coord_limit_req_hold_length(ngx_http_request_t *r,
    ngx_http_coord_limit_req_hold_t *hold, ngx_coord_nsec_t *length);
static ngx_int_t ngx_http_coord_limit_req_hold_parse(ngx_str_t *value,
    ngx_coord_nsec_t *length);
static ngx_int_t ngx_http_coord_limit_req_hold_key(ngx_http_request_t *r,
    ngx_coord_zone_t *zone, ngx_http_coord_limit_req_state_t *state,
    ngx_coord_op_t *op);


char *
ngx_http_coord_limit_req_hold(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_coord_limit_req_conf_t *lrcf = conf;

    ngx_str_t                        *value, rest;
    ngx_uint_t                        i;
    ngx_http_coord_limit_req_hold_t  *hold;

    value = cf->args->elts;

    if (lrcf->holds_off
        || (lrcf->holds.elts && ngx_strcmp(value[1].data, "off") == 0))
    {
        return "is duplicate";
    }

    if (cf->args->nelts == 2 && ngx_strcmp(value[1].data, "off") == 0) {
        lrcf->holds_off = 1;
        return NGX_CONF_OK;
    }

    if (lrcf->holds.elts == NULL
        && ngx_array_init(&lrcf->holds, cf->pool, 1,
                          sizeof(ngx_http_coord_limit_req_hold_t))
           != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    hold = ngx_http_coord_limits_push(cf, &cmd->name, &lrcf->holds);
    if (hold == NULL) {
        return NGX_CONF_ERROR;
    }

    ngx_memzero(hold, sizeof(ngx_http_coord_limit_req_hold_t));

    for (i = 1; i < cf->args->nelts; i++) {

        if (ngx_http_coord_param(&value[i], "zone=", &rest)) {
            continue;
        }

        if (ngx_http_coord_param(&value[i], "for=", &rest)) {

            if (ngx_http_coord_limit_req_hold_time(cf, hold, &rest)
                != NGX_OK)
            {
                return NGX_CONF_ERROR;
            }

            continue;
        }

        if (ngx_http_coord_param(&value[i], "if=", &rest)) {
            hold->condition = ngx_http_coord_complex_value(cf, &rest);

            if (hold->condition == NULL) {
                return NGX_CONF_ERROR;
            }

            continue;
        }

        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid parameter \"%V\", allowed are \"zone=\", "
                           "\"for=\" and \"if=\"", &value[i]);
        return NGX_CONF_ERROR;
    }

    if (hold->time == NULL && hold->length == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%V\" must have \"for\" parameter", &cmd->name);
        return NGX_CONF_ERROR;
    }

    hold->zone = ngx_http_coord_zone_arg(cf, cmd,
                                      &ngx_http_coord_limit_req_feature.kind);

    return hold->zone ? NGX_CONF_OK : NGX_CONF_ERROR;
}


static ngx_int_t
ngx_http_coord_limit_req_hold_time(ngx_conf_t *cf,
    ngx_http_coord_limit_req_hold_t *hold, ngx_str_t *value)
{
    ngx_int_t  ms;

    if (ngx_http_script_variables_count(value)) {
        hold->time = ngx_http_coord_complex_value(cf, value);

        return hold->time ? NGX_OK : NGX_ERROR;
    }

    ms = ngx_http_coord_long_time(value);

    if (ms == NGX_ERROR || ms == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid value \"%V\" in \"for=\", it must be a "
                           "time above 0, such as \"15m\", or a variable",
                           value);
        return NGX_ERROR;
    }

    hold->length = ngx_http_coord_limit_req_hold_cut(ms);

    return NGX_OK;
}


/* milliseconds as nanoseconds, as many as a bucket may last */

static ngx_coord_nsec_t
ngx_http_coord_limit_req_hold_cut(int64_t ms)
{
    return ngx_min(ms, NGX_COORD_RATE_SPAN / NGX_COORD_NSEC_PER_MSEC)
           * NGX_COORD_NSEC_PER_MSEC;
}


void
ngx_http_coord_limit_req_holds(ngx_http_request_t *r,
    ngx_http_coord_limit_req_conf_t *conf,
    ngx_http_coord_limit_req_state_t *state)
{
    ngx_str_t                         value;
    ngx_uint_t                        i;
    ngx_http_coord_limit_req_hold_t  *hold;

    hold = conf->holds.elts;

    for (i = 0; i < conf->holds.nelts; i++) {

        if (hold[i].condition) {

            if (ngx_http_complex_value(r, hold[i].condition, &value)
                != NGX_OK)
            {
                continue;
            }

            if (value.len == 0 || (value.len == 1 && value.data[0] == '0')) {
                continue;
            }
        }

        ngx_http_coord_limit_req_hold_place(r, &hold[i], state);
    }
}


static void
ngx_http_coord_limit_req_hold_place(ngx_http_request_t *r,
    ngx_http_coord_limit_req_hold_t *hold,
    ngx_http_coord_limit_req_state_t *state)
{
    ngx_coord_op_t    op;
    ngx_coord_nsec_t  length;

    if (ngx_http_coord_limit_req_hold_length(r, hold, &length) != NGX_OK) {
        return;
    }

    ngx_memzero(&op, sizeof(ngx_coord_op_t));

    if (ngx_http_coord_limit_req_hold_key(r, hold->zone, state, &op)
        != NGX_OK)
    {
        return;
    }

    op.type = &ngx_coord_op_hold_put;
    op.zone = hold->zone;
    op.u.rate.mark = ngx_coord_monotonic() + length;

    ngx_log_error(NGX_LOG_NOTICE, r->connection->log, 0,
                  "holding a key of zone \"%V\" for %Lms",
                  &hold->zone->name, ngx_coord_ceil_msec(length));

    /* in memory, or a copy for on_failure=local */

    ngx_coord_near_run(&op);

    if (ngx_coord_store_is_memory(hold->zone->store)) {
        return;
    }

    ngx_coord_giveback_op(&op, ngx_min(length, NGX_HTTP_COORD_HOLD_LIFE));
}


/* NGX_DECLINED: no hold */

static ngx_int_t
ngx_http_coord_limit_req_hold_length(ngx_http_request_t *r,
    ngx_http_coord_limit_req_hold_t *hold, ngx_coord_nsec_t *length)
{
    ngx_str_t  value;

    if (hold->time == NULL) {
        *length = hold->length;
        return NGX_OK;
    }

    if (ngx_http_complex_value(r, hold->time, &value) != NGX_OK) {
        return NGX_ERROR;
    }

    if (value.len == 0) {
        return NGX_DECLINED;
    }

    if (ngx_http_coord_limit_req_hold_parse(&value, length) != NGX_OK) {
        ngx_http_coord_limiter_invalid(r, "time of a hold", &value,
                                       hold->zone);
        return NGX_ERROR;
    }

    return *length > 0 ? NGX_OK : NGX_DECLINED;
}


/* seconds, or a date, as of Retry-After (RFC 9110, 10.2.3), or as in nginx */

static ngx_int_t
ngx_http_coord_limit_req_hold_parse(ngx_str_t *value,
    ngx_coord_nsec_t *length)
{
    size_t     i;
    time_t     date;
    ngx_int_t  ms;

    for (i = 0; i < value->len; i++) {
        if (value->data[i] < '0' || value->data[i] > '9') {
            break;
        }
    }

    if (i == value->len) {
        ms = ngx_atoi(value->data, value->len);

        /* more digits than a number has are a long time */

        if (ms == NGX_ERROR
            || ms >= NGX_COORD_RATE_SPAN / NGX_COORD_NSEC_PER_SEC)
        {
            *length = NGX_COORD_RATE_SPAN;
            return NGX_OK;
        }

        *length = (ngx_coord_nsec_t) ms * NGX_COORD_NSEC_PER_SEC;

        return NGX_OK;
    }

    date = ngx_parse_http_time(value->data, value->len);

    if (date != NGX_ERROR) {
        date = ngx_max(date - ngx_time(), 0);

        *length = (ngx_coord_nsec_t) ngx_min(date,
                                             NGX_COORD_RATE_SPAN
                                             / NGX_COORD_NSEC_PER_SEC)
                  * NGX_COORD_NSEC_PER_SEC;
        return NGX_OK;
    }

    ms = ngx_parse_time(value, 0);

    if (ms == NGX_ERROR) {
        return NGX_ERROR;
    }

    *length = ngx_http_coord_limit_req_hold_cut(ms);

    return NGX_OK;
}


/*
 * The key that the request was decided by, or else the one that it has now.
 * NGX_DECLINED: the zone is not for it.
 */

static ngx_int_t
ngx_http_coord_limit_req_hold_key(ngx_http_request_t *r,
    ngx_coord_zone_t *zone, ngx_http_coord_limit_req_state_t *state,
    ngx_coord_op_t *op)
{
    ngx_str_t                          key;
    ngx_uint_t                         i;
    ngx_http_coord_limit_req_item_t   *item;
    ngx_http_coord_limit_req_zone_t   *lrz;

    for ( /* void */ ;
         state;
         state = (ngx_http_coord_limit_req_state_t *) state->limiter.previous)
    {
        item = state->items.elts;

        for (i = 0; i < state->items.nelts; i++) {

            if (item[i].limit->zone == zone && item[i].op.key_len) {
                op->key_len = item[i].op.key_len;
                ngx_memcpy(op->key, item[i].op.key, op->key_len);

                return NGX_OK;
            }
        }
    }

    lrz = zone->data;

    if (ngx_http_coord_zone_key(r, zone, lrz->key, &key) != NGX_OK) {
        return NGX_ERROR;
    }

    if (key.len == 0) {
        return NGX_DECLINED;
    }

    op->key_len = ngx_coord_key_encode(op->key, &key);

    return op->key_len ? NGX_OK : NGX_ERROR;
}
