
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Buckets: in Redis a theoretical arrival time in a BITFIELD, in memory in
 * payload[0] of an entry; both in nanoseconds.
 */


#include "ngx_coord_op_arg.h"


static ngx_int_t ngx_coord_bucket_take_known(ngx_coord_op_t *op,
    ngx_coord_nsec_t now);
static void ngx_coord_bucket_take_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_bucket_take_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_bucket_take_run(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
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


const ngx_coord_op_type_t  ngx_coord_op_bucket_take = {
    ngx_string("bucket_take"),
    NGX_COORD_OP_TAKES|NGX_COORD_OP_JOINS,
    NGX_COORD_KIND_BUCKET,
    NGX_COORD_SCRIPT_GCRA_TAKE,
    ngx_coord_bucket_take_build,
    ngx_coord_bucket_take_parse,
    ngx_coord_bucket_take_known,
    ngx_coord_bucket_take_run,
    &ngx_coord_op_bucket_give,
    &ngx_coord_op_bucket_peek,
    &ngx_coord_op_bucket_forget,
    NULL
};


const ngx_coord_op_type_t  ngx_coord_op_bucket_give = {
    ngx_string("bucket_give"),
    NGX_COORD_OP_JOINS,
    NGX_COORD_KIND_BUCKET,
    NGX_COORD_SCRIPT_GCRA_GIVE,
    ngx_coord_bucket_give_build,
    ngx_coord_give_parse,
    ngx_coord_bucket_give_known,
    ngx_coord_bucket_give_run,
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
    NULL
};


const ngx_coord_op_type_t  ngx_coord_op_bucket_forget = {
    ngx_string("bucket_forget"),
    0,
    NGX_COORD_KIND_BUCKET,
    NGX_COORD_SCRIPT_FORGET,
    ngx_coord_forget_build,
    ngx_coord_forget_parse,
    NULL,
    ngx_coord_forget_run,
    NULL,
    NULL,
    NULL,
    NULL
};


static ngx_int_t
ngx_coord_bucket_take_known(ngx_coord_op_t *op, ngx_coord_nsec_t now)
{
    ngx_coord_bucket_t  bucket;

    return ngx_coord_bucket_init(&bucket, &op->u.rate) == NGX_OK
           ? NGX_AGAIN : ngx_coord_rate_never(&op->u.rate);
}


static void
ngx_coord_bucket_take_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_arg_t     *a;
    ngx_coord_nsec_t     open;
    ngx_coord_bucket_t   bucket;

    (void) ngx_coord_bucket_init(&bucket, &op->u.rate);

    a = cmd->args;
    open = INT64_MAX - bucket.limit;

    ngx_coord_arg_key(cmd, NGX_COORD_GCRA_TAKE_K, op, "}");
    ngx_coord_arg_num(&a[NGX_COORD_GCRA_TAKE_MINUS_NOW], -now);
    ngx_coord_arg_num(&a[NGX_COORD_GCRA_TAKE_OPEN], open);
    ngx_coord_arg_num(&a[NGX_COORD_GCRA_TAKE_CLOSE], bucket.charge - open);
    ngx_coord_arg_num(&a[NGX_COORD_GCRA_TAKE_NOW], now);
    ngx_coord_arg_num(&a[NGX_COORD_GCRA_TAKE_TTL],
                      ngx_coord_ttl(op, bucket.total));
}


static ngx_int_t
ngx_coord_bucket_take_parse(ngx_coord_op_t *op, ngx_coord_resp_value_t **values,
    ngx_coord_nsec_t now)
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


static ngx_int_t
ngx_coord_bucket_take_run(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    uint64_t             payload[2];
    ngx_int_t            rc;
    ngx_coord_rate_t    *rate;
    ngx_coord_nsec_t     tat;
    ngx_coord_entry_t   *entry;
    ngx_coord_bucket_t   bucket;

    rate = &op->u.rate;

    if (ngx_coord_bucket_init(&bucket, rate) != NGX_OK) {
        return ngx_coord_rate_never(rate);
    }

    entry = ngx_coord_entry_find(table, op, now);
    tat = entry ? (ngx_coord_nsec_t) entry->payload[0] : now;

    rc = ngx_coord_bucket_answer(&bucket, rate, tat - now);

    if (rc != NGX_OK) {
        rate->mark = tat;
        return rc;
    }

    rate->mark = now + rate->reset;

    if (entry) {
        entry->expires = rate->mark;
        entry->payload[0] = (uint64_t) rate->mark;
        return NGX_OK;
    }

    payload[0] = (uint64_t) rate->mark;
    payload[1] = 0;

    entry = ngx_coord_entry_insert(table, op, NGX_COORD_ENTRY_EVICT, payload,
                                   rate->mark, now);

    return entry ? NGX_OK : NGX_ERROR;
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

    a = cmd->args;

    ngx_coord_arg_key(cmd, NGX_COORD_GCRA_GIVE_K, op, "}");
    ngx_coord_arg_num(&a[NGX_COORD_GCRA_GIVE_MINUS_REFUND],
                      -ngx_coord_bucket_refund(&op->u.rate, now));
    ngx_coord_arg_num(&a[NGX_COORD_GCRA_GIVE_TTL],
                      ngx_coord_ttl(op, bucket.total));
}


static ngx_int_t
ngx_coord_bucket_give_run(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_nsec_t    tat, refund;
    ngx_coord_entry_t  *entry;

    entry = ngx_coord_entry_find(table, op, now);

    if (entry == NULL) {
        return NGX_OK;
    }

    refund = ngx_coord_bucket_refund(&op->u.rate, now);
    tat = (ngx_coord_nsec_t) entry->payload[0] - refund;

    if (tat <= now) {
        ngx_coord_table_remove(table, entry);
        return NGX_OK;
    }

    entry->payload[0] = (uint64_t) tat;
    entry->expires = tat;

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
    int64_t                  tat;
    ngx_coord_resp_value_t  *v;

    v = values[0];

    if (v->type != NGX_COORD_RESP_ARRAY
        || v->integer != 1
        || ngx_coord_resp_integer(ngx_coord_resp_element(v, 0), &tat)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_coord_peek_bucket(&op->u.rate, tat - now);
}


static ngx_int_t
ngx_coord_bucket_peek_run(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_nsec_t    tat;
    ngx_coord_entry_t  *entry;

    entry = ngx_coord_entry_find(table, op, now);
    tat = entry ? (ngx_coord_nsec_t) entry->payload[0] : now;

    return ngx_coord_peek_bucket(&op->u.rate, tat - now);
}
