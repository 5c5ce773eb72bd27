
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Sliding logs: a set of times, each with an id; in Redis in microseconds,
 * since scores are doubles.
 */


#include "ngx_coord_op_arg.h"
#include "ngx_coord_op_set.h"


static ngx_int_t ngx_coord_log_take_known(ngx_coord_op_t *op,
    ngx_coord_nsec_t now);
static void ngx_coord_log_take_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_log_take_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_log_take_run(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static void ngx_coord_log_give_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_log_give_run(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static void ngx_coord_log_peek_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_log_peek_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_log_peek_run(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);


const ngx_coord_op_type_t  ngx_coord_op_log_take = {
    ngx_string("log_take"),
    NGX_COORD_OP_TAKES|NGX_COORD_OP_JOINS|NGX_COORD_OP_FULL_BUSY,
    NGX_COORD_KIND_LOG,
    NGX_COORD_SCRIPT_SLIDING_LOG_TAKE,
    ngx_coord_log_take_build,
    ngx_coord_log_take_parse,
    ngx_coord_log_take_known,
    ngx_coord_log_take_run,
    &ngx_coord_op_log_give,
    &ngx_coord_op_log_peek,
    &ngx_coord_op_log_forget,
    NULL
};


const ngx_coord_op_type_t  ngx_coord_op_log_give = {
    ngx_string("log_give"),
    NGX_COORD_OP_JOINS|NGX_COORD_OP_TWICE,
    NGX_COORD_KIND_LOG,
    NGX_COORD_SCRIPT_SLIDING_LOG_GIVE,
    ngx_coord_log_give_build,
    ngx_coord_give_parse,
    NULL,
    ngx_coord_log_give_run,
    NULL,
    NULL,
    NULL,
    NULL
};


const ngx_coord_op_type_t  ngx_coord_op_log_peek = {
    ngx_string("log_peek"),
    0,
    NGX_COORD_KIND_LOG,
    NGX_COORD_SCRIPT_SET_PEEK,
    ngx_coord_log_peek_build,
    ngx_coord_log_peek_parse,
    NULL,
    ngx_coord_log_peek_run,
    NULL,
    NULL,
    NULL,
    NULL
};


const ngx_coord_op_type_t  ngx_coord_op_log_forget = {
    ngx_string("log_forget"),
    0,
    NGX_COORD_KIND_LOG,
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
ngx_coord_log_take_known(ngx_coord_op_t *op, ngx_coord_nsec_t now)
{
    ngx_coord_window_t  window;

    return ngx_coord_window_init(&window, &op->u.rate) == NGX_OK
           ? NGX_AGAIN : ngx_coord_rate_never(&op->u.rate);
}


static void
ngx_coord_log_take_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_arg_t     *a;
    ngx_coord_window_t   window;

    (void) ngx_coord_window_init(&window, &op->u.rate);

    a = cmd->args;

    ngx_coord_arg_key(cmd, NGX_COORD_SLIDING_LOG_TAKE_K, op, "}");
    ngx_coord_arg_key(cmd, NGX_COORD_SLIDING_LOG_TAKE_TMP, op, "}:tmp");
    ngx_coord_arg_entry(cmd, NGX_COORD_SLIDING_LOG_TAKE_ID, op);
    ngx_coord_arg_num(&a[NGX_COORD_SLIDING_LOG_TAKE_OLD],
                      (now - window.length) / NGX_COORD_NSEC_PER_USEC);
    ngx_coord_arg_num(&a[NGX_COORD_SLIDING_LOG_TAKE_NOW],
                      now / NGX_COORD_NSEC_PER_USEC);
    ngx_coord_arg_num(&a[NGX_COORD_SLIDING_LOG_TAKE_LIMIT], window.limit);
    ngx_coord_arg_num(&a[NGX_COORD_SLIDING_LOG_TAKE_WINDOW],
                      ngx_coord_ttl(window.length));
}


static ngx_int_t
ngx_coord_log_take_parse(ngx_coord_op_t *op, ngx_coord_resp_value_t **values,
    ngx_coord_nsec_t now)
{
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

    if (v->integer == 2
        && ngx_coord_time_parse(ngx_coord_resp_element(v, 1), &first)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    (void) ngx_coord_window_init(&window, &op->u.rate);

    op->u.rate.mark = now;

    /* the newest entry is not told: now is the latest it can be */

    return ngx_coord_log_answer(&window, &op->u.rate, rc, used, first, now,
                                now);
}


static ngx_int_t
ngx_coord_log_take_run(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_rate_t    *rate;
    ngx_coord_slots_t    slots;
    ngx_coord_entry_t   *entry;
    ngx_coord_window_t   window;

    rate = &op->u.rate;

    if (ngx_coord_window_init(&window, rate) != NGX_OK) {
        return ngx_coord_rate_never(rate);
    }

    entry = ngx_coord_entry_find(table, op, now);

    if (entry == NULL) {
        entry = ngx_coord_entry_insert(table, op, NGX_COORD_ENTRY_EVICT, NULL,
                                       now + window.length, now);
        if (entry == NULL) {
            return NGX_ERROR;
        }
    }

    ngx_coord_slots(table, entry, op->id, now - window.length, &slots);

    rate->mark = now;

    if (slots.used >= (ngx_uint_t) window.limit) {
        return ngx_coord_log_answer(&window, rate, NGX_BUSY, slots.used,
                                    slots.first, slots.last, now);
    }

    /* the entry first: it must outlive what it holds */

    entry->expires = ngx_max(entry->expires, now + window.length);

    if (ngx_coord_slot_add(table, entry, op, &slots, now, now)
        != NGX_OK)
    {
        if (slots.used == 0) {
            ngx_coord_table_remove(table, entry);
        }

        return NGX_ERROR;
    }

    return ngx_coord_log_answer(&window, rate, NGX_OK, slots.used + 1,
                                slots.used ? slots.first : now, now, now);
}


static void
ngx_coord_log_give_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_arg_key(cmd, NGX_COORD_SLIDING_LOG_GIVE_K, op, "}");
    ngx_coord_arg_entry(cmd, NGX_COORD_SLIDING_LOG_GIVE_ID, op);
}


static ngx_int_t
ngx_coord_log_give_run(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_window_t  window;

    (void) ngx_coord_window_init(&window, &op->u.rate);
    (void) ngx_coord_slot_remove(table,
                                        ngx_coord_entry_find(table, op, now),
                                        op, now - window.length);

    return NGX_OK;
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


static ngx_int_t
ngx_coord_log_peek_parse(ngx_coord_op_t *op, ngx_coord_resp_value_t **values,
    ngx_coord_nsec_t now)
{
    int64_t           used;
    ngx_coord_nsec_t  first;

    first = now;

    if (ngx_coord_set_peek_parse(values, &used, &first) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_coord_peek_log(&op->u.rate, used, first, now);
}


static ngx_int_t
ngx_coord_log_peek_run(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_slots_t    slots;
    ngx_coord_entry_t   *entry;
    ngx_coord_window_t   window;

    (void) ngx_coord_window_init(&window, &op->u.rate);

    entry = ngx_coord_entry_find(table, op, now);

    if (entry == NULL) {
        return ngx_coord_peek_log(&op->u.rate, 0, now, now);
    }

    ngx_coord_slots(table, entry, op->id, now - window.length, &slots);

    return ngx_coord_peek_log(&op->u.rate, slots.used,
                              slots.used ? slots.first : now, now);
}
