
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * limits/<zone>/<key> of coord_api.
 */


#include "ngx_http_coord_api.h"
#include "ngx_http_coord_limit_req.h"
#include "ngx_coord_parse.h"


static ngx_int_t ngx_http_coord_limit_req_api_ask(ngx_http_coord_api_t *api);
static ngx_int_t ngx_http_coord_limit_req_api_quota(ngx_http_coord_api_t *api,
    ngx_coord_quota_t *quota, ngx_uint_t *burst);
static ngx_int_t ngx_http_coord_limit_req_api_answer(
    ngx_http_coord_api_t *api, ngx_http_coord_out_t *out);
static ngx_coord_op_t *ngx_http_coord_limit_req_api_known(
    ngx_http_coord_api_t *api, const ngx_coord_op_type_t *type);


const ngx_http_coord_route_t  ngx_http_coord_limit_req_routes[] = {

    { ngx_string("limits"),
      NGX_HTTP_COORD_API_READ|NGX_HTTP_DELETE, 0,
      ngx_http_coord_limit_req_api_ask,
      ngx_http_coord_limit_req_api_answer },

    { ngx_null_string, 0, 0, NULL, NULL }
};


static ngx_int_t
ngx_http_coord_limit_req_api_ask(ngx_http_coord_api_t *api)
{
    ngx_int_t                         rc;
    ngx_uint_t                        i, burst;
    ngx_coord_op_t                   *op;
    ngx_coord_rate_t                  rate;
    ngx_coord_quota_t                 quota;
    ngx_http_coord_limit_req_zone_t  *lrz;

    lrz = api->zone->data;

    rc = ngx_http_coord_limit_req_api_quota(api, &quota, &burst);

    if (rc != NGX_OK) {
        return rc;
    }

    ngx_memzero(&rate, sizeof(ngx_coord_rate_t));

    rate.cost = 1;
    rate.burst = burst;
    rate.interval = quota.period / (ngx_coord_nsec_t) quota.count;
    rate.limit = quota.count;
    rate.window = quota.period;
    rate.align = lrz->align;
    rate.tz = lrz->tz;

    if (api->write) {
        /* the end of the rate is told to all nodes: the hold is gone then */

        return ngx_http_coord_api_forget(api, &ngx_coord_op_hold_put, 0, NULL)
               == NGX_OK
               && ngx_http_coord_api_forget(api, lrz->op, 0, &rate) == NGX_OK
               ? NGX_OK : NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    for (i = 0; i < ngx_http_coord_api_forms(api); i++) {
        op = ngx_http_coord_api_op(api, lrz->op->peek, 0, i);

        if (op == NULL) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }

        op->u.rate = rate;

        op = ngx_http_coord_api_op(api, &ngx_coord_op_hold_peek, 0, i);

        if (op == NULL) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }
    }

    return NGX_OK;
}


/* of the zone, or as ?rate= and ?burst= say: they may depend on the request */

static ngx_int_t
ngx_http_coord_limit_req_api_quota(ngx_http_coord_api_t *api,
    ngx_coord_quota_t *quota, ngx_uint_t *burst)
{
    ngx_int_t                         rc;
    ngx_str_t                         value;
    ngx_http_coord_limit_req_zone_t  *lrz;

    lrz = api->zone->data;

    *quota = lrz->quota;
    *burst = lrz->burst;

    rc = ngx_http_coord_api_arg(api, "rate", &value);

    if (rc == NGX_ERROR) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (rc == NGX_OK) {

        if (ngx_coord_parse_rate(&value, quota) != NGX_OK
            || quota->count == 0)
        {
            api->detail = "The argument rate is invalid.";
            return NGX_HTTP_BAD_REQUEST;
        }

    } else if (lrz->rate) {

        if (!api->write || lrz->op == &ngx_coord_op_sliding_take) {
            api->detail = "The rate of this zone depends on the request: "
                          "say it with the argument rate.";
            return NGX_HTTP_BAD_REQUEST;
        }

        quota->count = 1;
        quota->period = NGX_COORD_NSEC_PER_SEC;
    }

    rc = ngx_http_coord_api_arg(api, "burst", &value);

    if (rc == NGX_ERROR) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (rc == NGX_OK
        && ngx_coord_parse_count(&value, 0, burst) != NGX_OK)
    {
        api->detail = "The argument burst is invalid.";
        return NGX_HTTP_BAD_REQUEST;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_coord_limit_req_api_answer(ngx_http_coord_api_t *api,
    ngx_http_coord_out_t *out)
{
    ngx_uint_t                        known, refused;
    ngx_coord_op_t                   *op, *hold;
    ngx_coord_rate_t                 *rate;
    ngx_coord_nsec_t                  retry;
    ngx_http_coord_limit_req_zone_t  *lrz;

    if (api->write) {
        return ngx_http_coord_api_forgotten(api, out);
    }

    lrz = api->zone->data;
    op = ngx_http_coord_limit_req_api_known(api, lrz->op->peek);
    hold = ngx_http_coord_limit_req_api_known(api, &ngx_coord_op_hold_peek);
    rate = &op->u.rate;

    /* a key of which nothing stands in the store is not one that is let in */

    refused = (op->rc == NGX_BUSY || hold->rc == NGX_BUSY);
    known = (refused || rate->reset > 0);

    retry = (hold->rc == NGX_BUSY) ? hold->u.rate.retry : 0;
    retry = (op->rc == NGX_BUSY) ? ngx_max(retry, rate->retry) : retry;

    ngx_http_coord_json_string(out, "zone", &api->zone->name);
    ngx_http_coord_json_string(out, "key", &api->key);
    ngx_http_coord_json_string(out, "algorithm", &lrz->algorithm);
    ngx_http_coord_json_number(out, "limit", rate->limit);
    ngx_http_coord_json_seconds(out, "window_seconds",
                                rate->window / NGX_COORD_NSEC_PER_USEC);

    if (lrz->op == &ngx_coord_op_bucket_take) {
        ngx_http_coord_json_number(out, "burst", rate->burst);
    }

    ngx_http_coord_json_bool(out, "known", known);

    if (known) {
        ngx_http_coord_json_bool(out, "refused", refused);

    } else {
        ngx_http_coord_json_null(out, "refused");
    }

    ngx_http_coord_json_bool(out, "held", hold->rc == NGX_BUSY);
    ngx_http_coord_json_seconds(out, "hold_seconds",
                                hold->rc == NGX_BUSY
                                ? hold->u.rate.retry / NGX_COORD_NSEC_PER_USEC
                                : 0);

    ngx_http_coord_json_number(out, "remaining",
                               refused ? 0 : rate->remaining);
    ngx_http_coord_json_seconds(out, "retry_after_seconds",
                                retry / NGX_COORD_NSEC_PER_USEC);
    ngx_http_coord_json_seconds(out, "reset_seconds",
                                rate->reset / NGX_COORD_NSEC_PER_USEC);
    ngx_http_coord_json_string(out, "source",
                               &ngx_coord_source_names[op->source]);

    return NGX_OK;
}


/* of two forms of a key the one that has used more, or is held longer */

static ngx_coord_op_t *
ngx_http_coord_limit_req_api_known(ngx_http_coord_api_t *api,
    const ngx_coord_op_type_t *type)
{
    ngx_uint_t       i;
    ngx_coord_op_t  *op, *ops;

    op = NULL;
    ops = api->batch->ops;

    for (i = 0; i < api->batch->nops; i++) {

        if (ops[i].type != type) {
            continue;
        }

        if (op == NULL
            || ops[i].u.rate.reset > op->u.rate.reset
            || ops[i].u.rate.retry > op->u.rate.retry)
        {
            op = &ops[i];
        }
    }

    return op;
}
