
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Buckets: what is given back and looked at, and the lives of their keys.
 */


#include "ngx_coord_deny.h"
#include "ngx_coord_op_bucket.h"


enum {
    NGX_COORD_PEEK_NUMBER = 0,
    NGX_COORD_PEEK_STAMP,
    NGX_COORD_PEEK_ELEMENTS
};


static ngx_int_t ngx_coord_bucket_give_known(ngx_coord_op_t *op,
    ngx_coord_nsec_t now);
static void ngx_coord_bucket_give_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_bucket_give_run(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static void ngx_coord_bucket_peek_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_bucket_peek_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_bucket_peek_run(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_bucket_give_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static void ngx_coord_bucket_forget_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_bucket_forget_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static void ngx_coord_bucket_mend_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_bucket_life_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static void ngx_coord_bucket_left_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_bucket_left_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_bucket_left_run(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);


const ngx_coord_op_type_t  ngx_coord_op_bucket_give = {
    ngx_string("bucket_give"),
    NGX_COORD_OP_JOINS,
    NGX_COORD_KIND_BUCKET,
    NGX_COORD_SCRIPT_GCRA_GIVE,
    ngx_coord_bucket_give_build,
    ngx_coord_bucket_give_parse,
    ngx_coord_bucket_give_known,
    ngx_coord_bucket_give_run,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL
};


const ngx_coord_op_type_t  ngx_coord_op_bucket_peek = {
    ngx_string("bucket_peek"),
    0,
    NGX_COORD_KIND_BUCKET,
    NGX_COORD_SCRIPT_GCRA_PEEK,
    ngx_coord_bucket_peek_build,
    ngx_coord_bucket_peek_parse,
    NULL,
    ngx_coord_bucket_peek_run,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL
};


const ngx_coord_op_type_t  ngx_coord_op_bucket_forget = {
    ngx_string("bucket_forget"),
    NGX_COORD_OP_FREES,
    NGX_COORD_KIND_BUCKET,
    NGX_COORD_SCRIPT_GCRA_FORGET,
    ngx_coord_bucket_forget_build,
    ngx_coord_bucket_forget_parse,
    NULL,
    ngx_coord_forget_run,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL
};


const ngx_coord_op_type_t  ngx_coord_op_bucket_mend = {
    ngx_string("bucket_mend"),
    NGX_COORD_OP_JOINS|NGX_COORD_OP_TWICE,
    NGX_COORD_KIND_BUCKET,
    NGX_COORD_SCRIPT_GCRA_LIFE,
    ngx_coord_bucket_mend_build,
    ngx_coord_give_parse,
    NULL,
    ngx_coord_bucket_left_run,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL
};


const ngx_coord_op_type_t  ngx_coord_op_bucket_life = {
    ngx_string("bucket_life"),
    NGX_COORD_OP_TAKES|NGX_COORD_OP_JOINS|NGX_COORD_OP_FULL_BUSY,
    NGX_COORD_KIND_BUCKET,
    NGX_COORD_SCRIPT_GCRA_LIFE,
    ngx_coord_bucket_mend_build,
    ngx_coord_bucket_life_parse,
    NULL,
    ngx_coord_bucket_take_run,
    &ngx_coord_op_bucket_mend,
    NULL,
    NULL,
    NULL,
    NULL
};


const ngx_coord_op_type_t  ngx_coord_op_bucket_left = {
    ngx_string("bucket_left"),
    NGX_COORD_OP_JOINS|NGX_COORD_OP_TWICE,
    NGX_COORD_KIND_BUCKET,
    NGX_COORD_SCRIPT_GCRA_LEFT,
    ngx_coord_bucket_left_build,
    ngx_coord_bucket_left_parse,
    NULL,
    ngx_coord_bucket_left_run,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL
};


ngx_uint_t
ngx_coord_bucket_shortened(ngx_coord_rate_t *rate, int64_t left)
{
    if (left <= (int64_t) ngx_coord_ceil_msec(rate->life)) {
        return 0;
    }

    left = ngx_min(left, INT64_MAX / NGX_COORD_NSEC_PER_MSEC);
    rate->life = left * NGX_COORD_NSEC_PER_MSEC;

    return 1;
}


static ngx_int_t
ngx_coord_bucket_give_known(ngx_coord_op_t *op, ngx_coord_nsec_t now)
{
    return ngx_coord_bucket_refund(&op->u.rate, now) ? NGX_AGAIN : NGX_OK;
}


static void
ngx_coord_bucket_give_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_arg_t     *a;
    ngx_coord_bucket_t   bucket;

    (void) ngx_coord_bucket_init(&bucket, &op->u.rate);

    op->u.rate.life = ngx_coord_bucket_life(&bucket);

    a = cmd->args;

    ngx_coord_arg_key(cmd, NGX_COORD_GCRA_GIVE_K, op, "}");
    ngx_coord_arg_num(&a[NGX_COORD_GCRA_GIVE_MINUS_REFUND],
                      -ngx_coord_tat_usec(ngx_coord_bucket_refund(&op->u.rate,
                                                                  now)));
    ngx_coord_arg_num(&a[NGX_COORD_GCRA_GIVE_TTL],
                      (int64_t) ngx_coord_ceil_msec(op->u.rate.life));
}


static ngx_int_t
ngx_coord_bucket_give_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now)
{
    ngx_coord_deny_drop(op->zone, op->key, op->key_len, 0);

    if (ngx_coord_bucket_shortened(&op->u.rate,
                                ngx_coord_reply(GCRA_GIVE, LEFT)->integer))
    {
        op->type = &ngx_coord_op_bucket_mend;
        return NGX_AGAIN;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_coord_bucket_give_run(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    int64_t              refund;
    ngx_coord_rate_t    *rate;
    ngx_coord_nsec_t     held;
    ngx_coord_entry_t   *entry;

    rate = &op->u.rate;
    entry = ngx_coord_entry_find(table, op, now);

    if (entry == NULL) {
        return NGX_OK;
    }

    refund = ngx_coord_bucket_refund(rate, now);
    held = ngx_coord_tat_backlog(entry->payload[0], rate->interval, now,
               ngx_coord_tat_idle((uint32_t) (entry->payload[1] >> 32), now));

    if (refund >= held) {
        ngx_coord_table_remove(table, entry);
        return NGX_OK;
    }

    /* of a bucket of another class the give is as exact as the class is */

    entry->payload[0] = ngx_coord_tat_empty(rate->interval, now)
                        + ngx_coord_tat_usec(held)
                        - ngx_coord_tat_usec(refund);
    entry->expires = now + held - refund + NGX_COORD_NSEC_PER_USEC;

    return NGX_OK;
}


static void
ngx_coord_bucket_peek_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_arg_key(cmd, NGX_COORD_GCRA_PEEK_K, op, "}");
}


static ngx_int_t
ngx_coord_bucket_peek_parse(ngx_coord_op_t *op, ngx_coord_resp_value_t **values,
    ngx_coord_nsec_t now)
{
    int64_t                  number, stamp;
    ngx_coord_rate_t        *rate;
    ngx_coord_resp_value_t  *v;

    rate = &op->u.rate;
    v = values[0];

    if (v->type != NGX_COORD_RESP_ARRAY
        || v->integer != NGX_COORD_PEEK_ELEMENTS
        || ngx_coord_bucket_int(v, NGX_COORD_PEEK_NUMBER, &number) != NGX_OK
        || ngx_coord_bucket_int(v, NGX_COORD_PEEK_STAMP, &stamp) != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_coord_peek_bucket(rate,
               ngx_coord_tat_backlog(number, rate->interval,
                                     ngx_coord_bucket_clock(now),
                                     ngx_coord_tat_idle((uint32_t) stamp,
                                                        now)));
}


static ngx_int_t
ngx_coord_bucket_peek_run(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_rate_t   *rate;
    ngx_coord_entry_t  *entry;

    rate = &op->u.rate;
    entry = ngx_coord_entry_find(table, op, now);

    if (entry == NULL) {
        return ngx_coord_peek_bucket(rate, 0);
    }

    return ngx_coord_peek_bucket(rate,
               ngx_coord_tat_backlog(entry->payload[0], rate->interval, now,
                   ngx_coord_tat_idle((uint32_t) (entry->payload[1] >> 32),
                                      now)));
}


static void
ngx_coord_bucket_forget_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_str_t        *channel;
    ngx_coord_arg_t  *a;

    a = cmd->args;
    channel = &op->zone->store->deny;

    ngx_coord_arg_key(cmd, NGX_COORD_GCRA_FORGET_K, op, "}");
    ngx_coord_arg_str(&a[NGX_COORD_GCRA_FORGET_CHANNEL],
                      channel->len ? channel->data : (u_char *) "",
                      channel->len);

    a[NGX_COORD_GCRA_FORGET_NAME] = a[NGX_COORD_GCRA_FORGET_K];
}


static ngx_int_t
ngx_coord_bucket_forget_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now)
{
    ngx_coord_deny_drop(op->zone, op->key, op->key_len, 1);

    return ngx_coord_reply(GCRA_FORGET, DROPPED)->integer ? NGX_OK : NGX_BUSY;
}


static void
ngx_coord_bucket_mend_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_arg_key(cmd, NGX_COORD_GCRA_LIFE_K, op, "}");
    ngx_coord_arg_num(&cmd->args[NGX_COORD_GCRA_LIFE_TTL],
                      (int64_t) ngx_coord_ceil_msec(op->u.rate.life));
}


/* the answer is that of the take; nothing is lost if the key is gone */

static ngx_int_t
ngx_coord_bucket_life_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now)
{
    op->type = &ngx_coord_op_bucket_take;

    return op->u.rate.retry ? NGX_BUSY : NGX_OK;
}


static void
ngx_coord_bucket_left_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_arg_key(cmd, NGX_COORD_GCRA_LEFT_K, op, "}");
}


static ngx_int_t
ngx_coord_bucket_left_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now)
{
    if (ngx_coord_reply(GCRA_LEFT, LEFT)->integer != -1) {
        return NGX_OK;
    }

    op->type = &ngx_coord_op_bucket_mend;

    return NGX_AGAIN;
}


/* what stands in memory has its life by itself */

static ngx_int_t
ngx_coord_bucket_left_run(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    return NGX_OK;
}
