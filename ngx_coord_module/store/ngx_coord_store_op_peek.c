
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Looking at the state of a key, and dropping it, in Redis.
 */


#include "ngx_coord_store_op.h"
#include "ngx_coord_rate.h"


static void ngx_coord_bucket_peek_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static void ngx_coord_window_peek_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static void ngx_coord_sliding_peek_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static void ngx_coord_log_peek_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static void ngx_coord_lease_peek_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static void ngx_coord_forget_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);

static ngx_int_t ngx_coord_bucket_peek_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_window_peek_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_sliding_peek_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_log_peek_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_lease_peek_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_forget_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_peek_set(ngx_coord_resp_value_t **values,
    int64_t *used, ngx_coord_nsec_t *first);


const ngx_coord_store_op_t  ngx_coord_peek_ops[] = {

    { NGX_COORD_SCRIPT_GCRA_PEEK,
      ngx_coord_bucket_peek_build,
      ngx_coord_bucket_peek_parse },

    { NGX_COORD_SCRIPT_WINDOW_PEEK,
      ngx_coord_window_peek_build,
      ngx_coord_window_peek_parse },

    { NGX_COORD_SCRIPT_SLIDING_WINDOW_PEEK,
      ngx_coord_sliding_peek_build,
      ngx_coord_sliding_peek_parse },

    { NGX_COORD_SCRIPT_SET_PEEK,
      ngx_coord_log_peek_build,
      ngx_coord_log_peek_parse },

    { NGX_COORD_SCRIPT_SET_PEEK,
      ngx_coord_lease_peek_build,
      ngx_coord_lease_peek_parse },

    { NGX_COORD_SCRIPT_FORGET,
      ngx_coord_forget_build,
      ngx_coord_forget_parse }
};


static void
ngx_coord_bucket_peek_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_arg_key(cmd, NGX_COORD_GCRA_PEEK_K, op, "}");
}


static void
ngx_coord_window_peek_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_arg_key(cmd, NGX_COORD_WINDOW_PEEK_K, op, "}");
}


static void
ngx_coord_sliding_peek_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_window_t   window;
    ngx_coord_sliding_t  sliding;

    (void) ngx_coord_window_init(&window, &op->u.rate);
    ngx_coord_sliding_init(&sliding, &window, now);

    ngx_coord_arg_window(cmd, NGX_COORD_SLIDING_WINDOW_PEEK_CUR, op,
                         sliding.index);
    ngx_coord_arg_window(cmd, NGX_COORD_SLIDING_WINDOW_PEEK_PREV, op,
                         sliding.index - 1);
}


static void
ngx_coord_log_peek_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_window_t  window;

    (void) ngx_coord_window_init(&window, &op->u.rate);

    ngx_coord_arg_key(cmd, NGX_COORD_SET_PEEK_K, op, "}");
    ngx_coord_arg_num(&cmd->args[NGX_COORD_SET_PEEK_FROM],
                      (now - window.length) / NGX_COORD_NSEC_PER_USEC + 1);
}


static void
ngx_coord_lease_peek_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_arg_key(cmd, NGX_COORD_SET_PEEK_K, op, "}");
    ngx_coord_arg_num(&cmd->args[NGX_COORD_SET_PEEK_FROM],
                      now / NGX_COORD_NSEC_PER_USEC + 1);
}


/* a sliding window counter and a claim have more than one key */

static void
ngx_coord_forget_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_window_t   window;
    ngx_coord_sliding_t  sliding;

    ngx_coord_arg_key(cmd, NGX_COORD_FORGET_A, op, "}");

    if (op->taken != NGX_COORD_OP_SLIDING_TAKE) {
        cmd->args[NGX_COORD_FORGET_B] = cmd->args[NGX_COORD_FORGET_A];

        if (op->taken == NGX_COORD_OP_CLAIM) {
            ngx_coord_arg_key(cmd, NGX_COORD_FORGET_B, op, "}:r");
        }

        cmd->args[NGX_COORD_FORGET_C] = cmd->args[NGX_COORD_FORGET_A];
        return;
    }

    (void) ngx_coord_window_init(&window, &op->u.rate);
    ngx_coord_sliding_init(&sliding, &window, now);

    ngx_coord_arg_window(cmd, NGX_COORD_FORGET_B, op, sliding.index);
    ngx_coord_arg_window(cmd, NGX_COORD_FORGET_C, op, sliding.index - 1);
}


static ngx_int_t
ngx_coord_bucket_peek_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now)
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
ngx_coord_window_peek_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now)
{
    int64_t                  used, pttl;
    ngx_coord_resp_value_t  *v;

    v = values[0];

    if (v->type != NGX_COORD_RESP_ARRAY
        || v->integer != 1
        || ngx_coord_resp_integer(ngx_coord_resp_element(v, 0), &used)
           != NGX_OK
        || ngx_coord_resp_integer(values[1], &pttl) != NGX_OK
        || used < 0)
    {
        return NGX_ERROR;
    }

    pttl = ngx_min(ngx_max(pttl, 0),
                   NGX_COORD_RATE_SPAN / NGX_COORD_NSEC_PER_MSEC);

    return ngx_coord_peek_window(&op->u.rate, used,
                                 pttl * NGX_COORD_NSEC_PER_MSEC);
}


static ngx_int_t
ngx_coord_sliding_peek_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now)
{
    int64_t  current, previous;

    if (ngx_coord_count_parse(values[0], &current) != NGX_OK
        || ngx_coord_count_parse(values[1], &previous) != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_coord_peek_sliding(&op->u.rate, current, previous, now);
}


static ngx_int_t
ngx_coord_log_peek_parse(ngx_coord_op_t *op, ngx_coord_resp_value_t **values,
    ngx_coord_nsec_t now)
{
    int64_t           used;
    ngx_coord_nsec_t  first;

    first = now;

    if (ngx_coord_peek_set(values, &used, &first) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_coord_peek_log(&op->u.rate, used, first, now);
}


static ngx_int_t
ngx_coord_lease_peek_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now)
{
    int64_t           used;
    ngx_coord_nsec_t  first;

    first = now;

    if (ngx_coord_peek_set(values, &used, &first) != NGX_OK) {
        return NGX_ERROR;
    }

    op->u.lease.current = (ngx_uint_t) used;
    op->u.lease.first = ngx_max(first - now, 0);

    return NGX_OK;
}


static ngx_int_t
ngx_coord_peek_set(ngx_coord_resp_value_t **values, int64_t *used,
    ngx_coord_nsec_t *first)
{
    double                   score;
    ngx_coord_resp_value_t  *v;

    v = values[1];

    if (ngx_coord_resp_integer(values[0], used) != NGX_OK
        || *used < 0
        || v->type != NGX_COORD_RESP_ARRAY)
    {
        return NGX_ERROR;
    }

    if (v->integer != 2) {
        return NGX_OK;
    }

    if (ngx_coord_resp_double(ngx_coord_resp_element(v, 1), &score) != NGX_OK
        || !(score >= 0 && score <= 9e15))
    {
        return NGX_ERROR;
    }

    *first = (int64_t) score * NGX_COORD_NSEC_PER_USEC;

    return NGX_OK;
}


static ngx_int_t
ngx_coord_forget_parse(ngx_coord_op_t *op, ngx_coord_resp_value_t **values,
    ngx_coord_nsec_t now)
{
    int64_t  n;

    if (ngx_coord_resp_integer(values[0], &n) != NGX_OK) {
        return NGX_ERROR;
    }

    return n ? NGX_OK : NGX_BUSY;
}
