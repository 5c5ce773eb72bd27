
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Sliding window counters: in Redis a key for each window, in memory
 * payload[index & 1]: index in the high half, count in the low one.
 */


#include "ngx_coord_op_arg.h"
#include "ngx_coord_deny.h"


/* above all that two counters, which are doubles, have exactly */
#define NGX_COORD_SLIDING_ANY  (1LL << 53)


static void ngx_coord_sliding_take_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_sliding_take_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_count_parse(ngx_coord_resp_value_t *value,
    int64_t *n);
static ngx_int_t ngx_coord_sliding_take_run(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static int64_t ngx_coord_sliding_count(uint64_t *payload, int64_t index);
static ngx_int_t ngx_coord_sliding_give_known(ngx_coord_op_t *op,
    ngx_coord_nsec_t now);
static void ngx_coord_sliding_give_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_sliding_give_run(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static void ngx_coord_sliding_peek_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_sliding_peek_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_sliding_peek_run(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static void ngx_coord_sliding_forget_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);


const ngx_coord_op_type_t  ngx_coord_op_sliding_take = {
    ngx_string("sliding_take"),
    NGX_COORD_OP_TAKES|NGX_COORD_OP_JOINS|NGX_COORD_OP_FULL_BUSY,
    NGX_COORD_KIND_SLIDING,
    NGX_COORD_SCRIPT_SLIDING_WINDOW_TAKE,
    ngx_coord_sliding_take_build,
    ngx_coord_sliding_take_parse,
    ngx_coord_window_take_known,
    ngx_coord_sliding_take_run,
    &ngx_coord_op_sliding_give,
    &ngx_coord_op_sliding_peek,
    &ngx_coord_op_sliding_forget,
    NULL,
    NULL
};


const ngx_coord_op_type_t  ngx_coord_op_sliding_give = {
    ngx_string("sliding_give"),
    NGX_COORD_OP_JOINS,
    NGX_COORD_KIND_SLIDING,
    NGX_COORD_SCRIPT_SLIDING_WINDOW_GIVE,
    ngx_coord_sliding_give_build,
    ngx_coord_window_give_parse,
    ngx_coord_sliding_give_known,
    ngx_coord_sliding_give_run,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL
};


const ngx_coord_op_type_t  ngx_coord_op_sliding_peek = {
    ngx_string("sliding_peek"),
    0,
    NGX_COORD_KIND_SLIDING,
    NGX_COORD_SCRIPT_SLIDING_WINDOW_PEEK,
    ngx_coord_sliding_peek_build,
    ngx_coord_sliding_peek_parse,
    NULL,
    ngx_coord_sliding_peek_run,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL
};


const ngx_coord_op_type_t  ngx_coord_op_sliding_forget = {
    ngx_string("sliding_forget"),
    NGX_COORD_OP_FREES,
    NGX_COORD_KIND_SLIDING,
    NGX_COORD_SCRIPT_WINDOW_FORGET,
    ngx_coord_sliding_forget_build,
    ngx_coord_window_forget_parse,
    NULL,
    ngx_coord_forget_run,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL
};


static void
ngx_coord_sliding_take_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    u_char               *p;
    ngx_coord_arg_t      *a;
    ngx_coord_window_t    window;
    ngx_coord_sliding_t   sliding;

    (void) ngx_coord_window_init(&window, &op->u.rate);
    ngx_coord_sliding_init(&sliding, &window, now);

    a = cmd->args;

    ngx_coord_arg_key(cmd, NGX_COORD_SLIDING_WINDOW_TAKE_TMP, op, "}:tmp");
    ngx_coord_arg_window(cmd, NGX_COORD_SLIDING_WINDOW_TAKE_PREV, op,
                         sliding.index - 1);
    ngx_coord_arg_window(cmd, NGX_COORD_SLIDING_WINDOW_TAKE_CUR, op,
                         sliding.index);

    p = ngx_sprintf(cmd->last, "%L.%09L",
                    sliding.weight / NGX_COORD_RATE_WEIGHT,
                    sliding.weight % NGX_COORD_RATE_WEIGHT);

    ngx_coord_arg_str(&a[NGX_COORD_SLIDING_WINDOW_TAKE_F], cmd->last,
                      p - cmd->last);
    cmd->last = p;

    ngx_coord_arg_num(&a[NGX_COORD_SLIDING_WINDOW_TAKE_FIT],
                      op->u.rate.force ? NGX_COORD_SLIDING_ANY : window.room);
    ngx_coord_arg_num(&a[NGX_COORD_SLIDING_WINDOW_TAKE_COST], window.take);
    ngx_coord_arg_num(&a[NGX_COORD_SLIDING_WINDOW_TAKE_TTL],
                      ngx_coord_ttl(2 * window.length));
}


static ngx_int_t
ngx_coord_sliding_take_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now)
{
    int64_t              granted, current, previous;
    ngx_int_t            rc;
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

    rc = ngx_coord_sliding_answer(&sliding, &window, &op->u.rate,
                                  granted ? NGX_OK : NGX_BUSY, current,
                                  previous);

    return ngx_coord_deny_window_keep(op, rc, now);
}


/* a counter: a score that may be missing */

static ngx_int_t
ngx_coord_count_parse(ngx_coord_resp_value_t *value, int64_t *n)
{
    ngx_int_t  rc;

    *n = 0;

    rc = ngx_coord_resp_score(value, n);

    return rc == NGX_DECLINED ? NGX_OK : rc;
}


static ngx_int_t
ngx_coord_sliding_take_run(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    int64_t               current, previous;
    uint64_t              slot, payload[2];
    ngx_int_t             rc;
    ngx_coord_nsec_t      expires;
    ngx_coord_rate_t     *rate;
    ngx_coord_entry_t    *entry;
    ngx_coord_window_t    window;
    ngx_coord_sliding_t   sliding;

    rate = &op->u.rate;

    if (ngx_coord_window_init(&window, rate) != NGX_OK) {
        return ngx_coord_rate_never(rate);
    }

    ngx_coord_sliding_init(&sliding, &window, now);

    rate->mark = sliding.index;

    entry = ngx_coord_entry_find(table, op, now);

    current = 0;
    previous = 0;

    if (entry) {
        current = ngx_coord_sliding_count(entry->payload, sliding.index);
        previous = ngx_coord_sliding_count(entry->payload, sliding.index - 1);
    }

    rc = rate->force ? NGX_OK
                     : ngx_coord_sliding_decide(&sliding, &window, current,
                                                previous);

    if (rc == NGX_OK && window.take) {
        current = ngx_min(current + window.take, NGX_COORD_RATE_LIMIT);

        slot = (uint64_t) (uint32_t) sliding.index << 32
               | (uint64_t) current;
        expires = now - sliding.elapsed + 2 * window.length;

        if (entry) {
            entry->expires = expires;
            entry->payload[sliding.index & 1] = slot;

        } else {
            ngx_memzero(payload, sizeof(payload));
            payload[sliding.index & 1] = slot;

            entry = ngx_coord_entry_insert(table, op, NGX_COORD_ENTRY_EVICT,
                                           payload, expires, now);

            if (entry == NULL) {
                return NGX_ERROR;
            }
        }
    }

    return ngx_coord_sliding_answer(&sliding, &window, rate, rc, current,
                                    previous);
}


static int64_t
ngx_coord_sliding_count(uint64_t *payload, int64_t index)
{
    uint64_t  slot;

    slot = payload[index & 1];

    return (slot >> 32 == (uint32_t) index) ? (int64_t) (slot & 0xffffffff)
                                            : 0;
}


static ngx_int_t
ngx_coord_sliding_give_known(ngx_coord_op_t *op, ngx_coord_nsec_t now)
{
    ngx_coord_window_t   window;
    ngx_coord_sliding_t  sliding;

    (void) ngx_coord_window_init(&window, &op->u.rate);

    if (window.take == 0) {
        return NGX_OK;
    }

    ngx_coord_sliding_init(&sliding, &window, now);

    return op->u.rate.mark >= sliding.index - 1 ? NGX_AGAIN : NGX_OK;
}


static void
ngx_coord_sliding_give_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_window_t  window;

    (void) ngx_coord_window_init(&window, &op->u.rate);

    ngx_coord_arg_window(cmd, NGX_COORD_SLIDING_WINDOW_GIVE_CUR, op,
                         op->u.rate.mark);
    ngx_coord_arg_num(&cmd->args[NGX_COORD_SLIDING_WINDOW_GIVE_MINUS_COST],
                      -window.take);
}


static ngx_int_t
ngx_coord_sliding_give_run(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    int64_t              count, index;
    ngx_coord_entry_t   *entry;
    ngx_coord_window_t   window;

    entry = ngx_coord_entry_find(table, op, now);

    if (entry == NULL) {
        return NGX_OK;
    }

    index = op->u.rate.mark;

    (void) ngx_coord_window_init(&window, &op->u.rate);

    count = ngx_coord_sliding_count(entry->payload, index);
    count -= ngx_min(count, window.take);

    if ((uint32_t) index == entry->payload[index & 1] >> 32) {
        entry->payload[index & 1] = (uint64_t) (uint32_t) index << 32
                                    | (uint64_t) count;
    }

    return NGX_OK;
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
ngx_coord_sliding_peek_run(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    int64_t              current, previous;
    ngx_coord_entry_t   *entry;
    ngx_coord_window_t   window;
    ngx_coord_sliding_t  sliding;

    entry = ngx_coord_entry_find(table, op, now);

    if (entry == NULL) {
        return ngx_coord_peek_sliding(&op->u.rate, 0, 0, now);
    }

    (void) ngx_coord_window_init(&window, &op->u.rate);
    ngx_coord_sliding_init(&sliding, &window, now);

    current = ngx_coord_sliding_count(entry->payload, sliding.index);
    previous = ngx_coord_sliding_count(entry->payload, sliding.index - 1);

    return ngx_coord_peek_sliding(&op->u.rate, current, previous, now);
}


/* the counts of both windows */

static void
ngx_coord_sliding_forget_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_window_t   window;
    ngx_coord_sliding_t  sliding;

    (void) ngx_coord_window_init(&window, &op->u.rate);
    ngx_coord_sliding_init(&sliding, &window, now);

    ngx_coord_window_forget_build(cmd, op, now);

    ngx_coord_arg_window(cmd, NGX_COORD_WINDOW_FORGET_B, op, sliding.index);
    ngx_coord_arg_window(cmd, NGX_COORD_WINDOW_FORGET_C, op,
                         sliding.index - 1);
}
