
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The replies of the scripts.  Nothing here trusts their shape.
 */


#include "ngx_coord_store_op.h"
#include "ngx_coord_rate.h"


/* scores beyond this are no times */
#define NGX_COORD_STORE_USEC_MAX  9e15


static ngx_int_t ngx_coord_set_parse(ngx_coord_resp_value_t **values,
    int64_t *used);


/* whatever it gave back, it is not there any more */

ngx_int_t
ngx_coord_give_parse(ngx_coord_op_t *op, ngx_coord_resp_value_t **values,
    ngx_coord_nsec_t now)
{
    return NGX_OK;
}


ngx_int_t
ngx_coord_bucket_take_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now)
{
    int64_t                  backlog, sum, tat;
    ngx_int_t                opened, closed, rc;
    ngx_coord_rate_t        *rate;
    ngx_coord_bucket_t       bucket;
    ngx_coord_resp_value_t  *v;

    rate = &op->u.rate;
    v = values[0];

    if (v->type != NGX_COORD_RESP_ARRAY || v->integer != 4) {
        return NGX_ERROR;
    }

    opened = ngx_coord_resp_integer(ngx_coord_resp_element(v, 1), &sum);
    closed = ngx_coord_resp_integer(ngx_coord_resp_element(v, 2), &sum);

    if (opened == NGX_ERROR
        || opened != closed
        || ngx_coord_resp_integer(ngx_coord_resp_element(v, 0), &backlog)
           != NGX_OK
        || ngx_coord_resp_integer(ngx_coord_resp_element(v, 3), &tat)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    (void) ngx_coord_bucket_init(&bucket, rate);

    /* a caller with a larger burst was here: keep the key as long as it does */

    op->zone->longest = ngx_max(op->zone->longest,
                                ngx_min(backlog, NGX_COORD_RATE_SPAN));

    rc = ngx_coord_bucket_answer(&bucket, rate, backlog);

    rate->mark = tat;

    return (rc == NGX_OK) == (opened == NGX_OK) ? rc : NGX_ERROR;
}


ngx_int_t
ngx_coord_window_take_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now)
{
    int64_t                  used, pttl, sum;
    ngx_int_t                opened;
    ngx_coord_nsec_t         left;
    ngx_coord_window_t       window;
    ngx_coord_resp_value_t  *v;

    v = values[1];

    if (v->type != NGX_COORD_RESP_ARRAY || v->integer != 3) {
        return NGX_ERROR;
    }

    opened = ngx_coord_resp_integer(ngx_coord_resp_element(v, 0), &sum);

    if (opened == NGX_ERROR
        || ngx_coord_resp_integer(ngx_coord_resp_element(v, 2), &used)
           != NGX_OK
        || ngx_coord_resp_integer(values[2], &pttl) != NGX_OK)
    {
        return NGX_ERROR;
    }

    (void) ngx_coord_window_init(&window, &op->u.rate);

    /* an end that lies too early is safe: see NGX_COORD_STORE_OP_MARGIN */

    left = window.length;

    if (pttl >= 0) {
        left = ngx_min(pttl, NGX_COORD_RATE_SPAN / NGX_COORD_NSEC_PER_MSEC)
               * NGX_COORD_NSEC_PER_MSEC;
    }

    op->u.rate.mark = now + left;

    /* the key goes when its last millisecond is over */

    return ngx_coord_window_answer(&window, &op->u.rate,
                                   opened == NGX_OK ? NGX_OK : NGX_BUSY,
                                   used, left + NGX_COORD_NSEC_PER_MSEC);
}


/* a counter: a score that may be missing */

ngx_int_t
ngx_coord_count_parse(ngx_coord_resp_value_t *value, int64_t *n)
{
    double     d;
    ngx_int_t  rc;

    *n = 0;

    rc = ngx_coord_resp_double(value, &d);

    if (rc != NGX_OK) {
        return rc == NGX_DECLINED ? NGX_OK : NGX_ERROR;
    }

    if (!(d > -1e15 && d < 1e15)) {
        return NGX_ERROR;
    }

    *n = (int64_t) d;

    return NGX_OK;
}


ngx_int_t
ngx_coord_sliding_take_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now)
{
    int64_t              granted, current, previous;
    ngx_coord_window_t   window;
    ngx_coord_sliding_t  sliding;

    if (ngx_coord_resp_integer(values[3], &granted) != NGX_OK
        || ngx_coord_count_parse(values[6], &current) != NGX_OK
        || ngx_coord_count_parse(values[7], &previous) != NGX_OK)
    {
        return NGX_ERROR;
    }

    (void) ngx_coord_window_init(&window, &op->u.rate);
    ngx_coord_sliding_init(&sliding, &window, now);

    op->u.rate.mark = sliding.index;

    return ngx_coord_sliding_answer(&sliding, &window, &op->u.rate,
                                    granted ? NGX_OK : NGX_BUSY, current,
                                    previous);
}


/* what the scripts for logs and leases have in common */

static ngx_int_t
ngx_coord_set_parse(ngx_coord_resp_value_t **values, int64_t *used)
{
    int64_t  kept, dropped;

    if (ngx_coord_resp_integer(values[3], &kept) != NGX_OK
        || ngx_coord_resp_integer(values[4], &dropped) != NGX_OK
        || ngx_coord_resp_integer(values[7], used) != NGX_OK
        || (kept != 0) == (dropped != 0)
        || *used < 0)
    {
        return NGX_ERROR;
    }

    return dropped ? NGX_BUSY : NGX_OK;
}


ngx_int_t
ngx_coord_log_take_parse(ngx_coord_op_t *op, ngx_coord_resp_value_t **values,
    ngx_coord_nsec_t now)
{
    double                   score;
    int64_t                  used;
    ngx_int_t                rc;
    ngx_coord_nsec_t         first;
    ngx_coord_window_t       window;
    ngx_coord_resp_value_t  *v;

    rc = ngx_coord_set_parse(values, &used);
    v = values[8];

    if (rc == NGX_ERROR || v->type != NGX_COORD_RESP_ARRAY) {
        return NGX_ERROR;
    }

    first = now;

    if (v->integer == 2) {

        if (ngx_coord_resp_double(ngx_coord_resp_element(v, 1), &score)
            != NGX_OK
            || !(score >= 0 && score <= NGX_COORD_STORE_USEC_MAX))
        {
            return NGX_ERROR;
        }

        first = (int64_t) score * NGX_COORD_NSEC_PER_USEC;
    }

    (void) ngx_coord_window_init(&window, &op->u.rate);

    op->u.rate.mark = now;

    /* the newest entry is not told: now is the latest it can be */

    return ngx_coord_log_answer(&window, &op->u.rate, rc, used, first, now,
                                now);
}


ngx_int_t
ngx_coord_lease_acquire_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now)
{
    int64_t    used;
    ngx_int_t  rc;

    rc = ngx_coord_set_parse(values, &used);

    if (rc != NGX_ERROR) {
        op->u.lease.current = (ngx_uint_t) used;
    }

    return rc;
}


ngx_int_t
ngx_coord_lease_renew_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now)
{
    double     expires;
    ngx_int_t  rc;

    rc = ngx_coord_resp_double(values[1], &expires);

    return rc == NGX_DECLINED ? NGX_BUSY : rc;
}
