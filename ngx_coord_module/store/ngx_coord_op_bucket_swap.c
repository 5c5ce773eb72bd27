
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Buckets: one that has to be converted before it can be used.
 */


#include "ngx_coord_op_bucket.h"


enum {
    NGX_COORD_SWAP_PUT = 4,
    NGX_COORD_SWAP_NUMBER,
    NGX_COORD_SWAP_ELEMENTS
};


static void ngx_coord_bucket_swap_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_bucket_swap_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_bucket_swap_answer(ngx_coord_rate_t *rate,
    ngx_coord_nsec_t now);


const ngx_coord_op_type_t  ngx_coord_op_bucket_swap = {
    ngx_string("bucket_swap"),
    NGX_COORD_OP_TAKES|NGX_COORD_OP_JOINS|NGX_COORD_OP_FULL_BUSY,
    NGX_COORD_KIND_BUCKET,
    NGX_COORD_SCRIPT_GCRA_SWAP,
    ngx_coord_bucket_swap_build,
    ngx_coord_bucket_swap_parse,
    NULL,
    ngx_coord_bucket_take_run,
    &ngx_coord_op_bucket_give,
    NULL,
    NULL,
    NULL,
    NULL
};


ngx_coord_nsec_t
ngx_coord_bucket_held(const ngx_coord_rate_t *rate,
    const ngx_coord_bucket_t *bucket, ngx_coord_nsec_t now,
    ngx_coord_nsec_t clock)
{
    ngx_coord_nsec_t  held, most;

    held = ngx_coord_tat_backlog(rate->found, bucket->interval, clock,
                                 ngx_coord_tat_idle(rate->stamp, now));

    most = ngx_coord_bucket_span(bucket, rate->capacity) + bucket->slack;

    return ngx_min(held, most);
}


static ngx_int_t
ngx_coord_bucket_swap_answer(ngx_coord_rate_t *rate, ngx_coord_nsec_t now)
{
    ngx_int_t           rc;
    ngx_coord_bucket_t  bucket;

    (void) ngx_coord_bucket_init(&bucket, rate);

    rc = ngx_coord_bucket_answer(&bucket, rate,
              ngx_coord_bucket_held(rate, &bucket, now,
                                    ngx_coord_bucket_clock(now)));

    rate->mark = now + rate->reset;

    return rc;
}


static void
ngx_coord_bucket_swap_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    int64_t              put;
    ngx_coord_arg_t     *a;
    ngx_coord_rate_t    *rate;
    ngx_coord_bucket_t   bucket;

    a = cmd->args;
    rate = &op->u.rate;

    (void) ngx_coord_bucket_swap_answer(rate, now);

    (void) ngx_coord_bucket_init(&bucket, rate);

    rate->life = ngx_max(ngx_coord_bucket_life(&bucket),
                         rate->reset + ngx_coord_bucket_need(&bucket)
                         - bucket.total);

    put = ngx_coord_tat_empty(rate->interval, ngx_coord_bucket_clock(now))
          + ngx_coord_tat_usec(rate->reset);

    ngx_coord_arg_key(cmd, NGX_COORD_GCRA_SWAP_K, op, "}");
    ngx_coord_arg_num(&a[NGX_COORD_GCRA_SWAP_ABOVE], INT64_MAX - rate->found);
    ngx_coord_arg_num(&a[NGX_COORD_GCRA_SWAP_BELOW], rate->found - INT64_MAX);
    ngx_coord_arg_num(&a[NGX_COORD_GCRA_SWAP_PLACE], put - INT64_MAX);
    ngx_coord_arg_num(&a[NGX_COORD_GCRA_SWAP_TTL],
                      (int64_t) ngx_coord_ceil_msec(rate->life));
}


static ngx_int_t
ngx_coord_bucket_swap_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now)
{
    int64_t                  put, number;
    ngx_int_t                rc;
    ngx_coord_rate_t        *rate;
    ngx_coord_resp_value_t  *v;

    rate = &op->u.rate;
    v = ngx_coord_reply(GCRA_SWAP, BUCKET);

    if (v->type != NGX_COORD_RESP_ARRAY
        || v->integer != NGX_COORD_SWAP_ELEMENTS)
    {
        return NGX_ERROR;
    }

    rc = ngx_coord_bucket_int(v, NGX_COORD_SWAP_PUT, &put);

    if (rc == NGX_ERROR
        || ngx_coord_bucket_int(v, NGX_COORD_SWAP_NUMBER, &number) != NGX_OK
        || number < 0)
    {
        return NGX_ERROR;
    }

    if (rc == NGX_OK) {
        op->type = &ngx_coord_op_bucket_take;
        rc = ngx_coord_bucket_swap_answer(rate, now);

        /* of a bucket that could not be true the life is not, either */

        if (!ngx_coord_tat_fits(rate->found, rate->interval)
            && ngx_coord_bucket_shortened(rate,
                                ngx_coord_reply(GCRA_SWAP, LEFT)->integer))
        {
            op->type = &ngx_coord_op_bucket_life;
            return NGX_AGAIN;
        }

        return rc;
    }

    /* somebody else was faster */

    if (++rate->tries > NGX_COORD_BUCKET_TRIES) {
        return NGX_ERROR;
    }

    if (ngx_coord_tat_fits(number, rate->interval)) {
        op->type = &ngx_coord_op_bucket_take;
    }

    rate->found = number;

    return NGX_AGAIN;
}
