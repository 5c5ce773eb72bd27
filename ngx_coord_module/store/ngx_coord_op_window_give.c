
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Fixed windows: what is given back and looked at, and a window that may have
 * no end.
 */


#include "ngx_coord_deny.h"
#include "ngx_coord_op_window.h"


static ngx_int_t ngx_coord_window_give_known(ngx_coord_op_t *op,
    ngx_coord_nsec_t now);
static void ngx_coord_window_give_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_window_give_run(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_window_look_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_window_seen(ngx_coord_resp_value_t **values,
    int64_t *used, ngx_coord_nsec_t *left);
static ngx_int_t ngx_coord_window_peek_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_window_peek_run(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_window_left_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_window_left_run(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);


const ngx_coord_op_type_t  ngx_coord_op_window_give = {
    ngx_string("window_give"),
    NGX_COORD_OP_JOINS,
    NGX_COORD_KIND_WINDOW,
    NGX_COORD_SCRIPT_WINDOW_GIVE,
    ngx_coord_window_give_build,
    ngx_coord_window_give_parse,
    ngx_coord_window_give_known,
    ngx_coord_window_give_run,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL
};


const ngx_coord_op_type_t  ngx_coord_op_window_peek = {
    ngx_string("window_peek"),
    0,
    NGX_COORD_KIND_WINDOW,
    NGX_COORD_SCRIPT_WINDOW_PEEK,
    ngx_coord_window_peek_build,
    ngx_coord_window_peek_parse,
    NULL,
    ngx_coord_window_peek_run,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL
};


const ngx_coord_op_type_t  ngx_coord_op_window_look = {
    ngx_string("window_look"),
    NGX_COORD_OP_JOINS|NGX_COORD_OP_LOOKS,
    NGX_COORD_KIND_WINDOW,
    NGX_COORD_SCRIPT_WINDOW_PEEK,
    ngx_coord_window_peek_build,
    ngx_coord_window_look_parse,
    NULL,
    ngx_coord_window_take_run,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL
};


const ngx_coord_op_type_t  ngx_coord_op_window_forget = {
    ngx_string("window_forget"),
    NGX_COORD_OP_FREES,
    NGX_COORD_KIND_WINDOW,
    NGX_COORD_SCRIPT_WINDOW_FORGET,
    ngx_coord_window_forget_build,
    ngx_coord_window_forget_parse,
    NULL,
    ngx_coord_forget_run,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL
};


/* what somebody may have begun whose answer is lost */

const ngx_coord_op_type_t  ngx_coord_op_window_left = {
    ngx_string("window_left"),
    NGX_COORD_OP_JOINS|NGX_COORD_OP_TWICE,
    NGX_COORD_KIND_WINDOW,
    NGX_COORD_SCRIPT_WINDOW_PEEK,
    ngx_coord_window_peek_build,
    ngx_coord_window_left_parse,
    NULL,
    ngx_coord_window_left_run,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL
};


static const ngx_coord_op_type_t  ngx_coord_op_window_end = {
    ngx_string("window_end"),
    NGX_COORD_OP_JOINS|NGX_COORD_OP_TWICE,
    NGX_COORD_KIND_WINDOW,
    NGX_COORD_SCRIPT_WINDOW_CUT,
    ngx_coord_window_cut_build,
    ngx_coord_give_parse,
    NULL,
    ngx_coord_window_left_run,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL
};


static ngx_int_t
ngx_coord_window_give_known(ngx_coord_op_t *op, ngx_coord_nsec_t now)
{
    ngx_coord_nsec_t  left, least;

    if (op->u.rate.look || op->u.rate.cost == 0) {
        return NGX_OK;
    }

    left = op->u.rate.mark - now;
    least = (ngx_coord_nsec_t) op->zone->store->timeout
            * NGX_COORD_NSEC_PER_MSEC;

    return left > NGX_COORD_WINDOW_MARGIN && left > least ? NGX_AGAIN : NGX_OK;
}


static void
ngx_coord_window_give_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_arg_t     *a;
    ngx_coord_nsec_t     left;
    ngx_coord_window_t   window;

    (void) ngx_coord_window_init(&window, &op->u.rate);

    a = cmd->args;
    left = (op->u.rate.mark - now) / NGX_COORD_NSEC_PER_MSEC;

    ngx_coord_arg_key(cmd, NGX_COORD_WINDOW_GIVE_K, op, "}");
    ngx_coord_arg_str(&a[NGX_COORD_WINDOW_GIVE_ZERO], (u_char *) "\0\0\0", 4);
    ngx_coord_arg_num(&a[NGX_COORD_WINDOW_GIVE_REMAINING], ngx_max(left, 1));
    ngx_coord_arg_num(&a[NGX_COORD_WINDOW_GIVE_MINUS_COST],
                      left > 0 ? -window.take : 0);
}


static ngx_int_t
ngx_coord_window_give_run(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    int64_t              used;
    ngx_coord_entry_t   *entry;
    ngx_coord_window_t   window;

    entry = ngx_coord_entry_find(table, op, now);

    if (entry == NULL
        || (ngx_coord_nsec_t) entry->payload[0] != op->u.rate.mark)
    {
        return NGX_OK;
    }

    (void) ngx_coord_window_init(&window, &op->u.rate);

    used = (int64_t) entry->payload[1] - window.take;
    entry->payload[1] = (uint64_t) ngx_max(used, 0);

    return NGX_OK;
}


ngx_int_t
ngx_coord_window_give_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now)
{
    ngx_coord_deny_drop(op->zone, op->key, op->key_len, 0);

    return NGX_OK;
}


void
ngx_coord_window_forget_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_str_t        *channel;
    ngx_coord_arg_t  *a;

    a = cmd->args;
    channel = &op->zone->store->deny;

    ngx_coord_arg_key(cmd, NGX_COORD_WINDOW_FORGET_A, op, "}");

    a[NGX_COORD_WINDOW_FORGET_B] = a[NGX_COORD_WINDOW_FORGET_A];
    a[NGX_COORD_WINDOW_FORGET_C] = a[NGX_COORD_WINDOW_FORGET_A];
    a[NGX_COORD_WINDOW_FORGET_NAME] = a[NGX_COORD_WINDOW_FORGET_A];

    ngx_coord_arg_str(&a[NGX_COORD_WINDOW_FORGET_CHANNEL],
                      channel->len ? channel->data : (u_char *) "",
                      channel->len);
}


ngx_int_t
ngx_coord_window_forget_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now)
{
    ngx_coord_deny_drop(op->zone, op->key, op->key_len, 1);

    return ngx_coord_reply(WINDOW_FORGET, DROPPED)->integer ? NGX_OK
                                                            : NGX_BUSY;
}


void
ngx_coord_window_peek_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_arg_key(cmd, NGX_COORD_WINDOW_PEEK_K, op, "}");
}


static ngx_int_t
ngx_coord_window_peek_parse(ngx_coord_op_t *op, ngx_coord_resp_value_t **values,
    ngx_coord_nsec_t now)
{
    int64_t           used;
    ngx_coord_nsec_t  left, most;

    if (ngx_coord_window_seen(values, &used, &left) != NGX_OK) {
        return NGX_ERROR;
    }

    (void) ngx_coord_window_begins(&op->u.rate, now, &most);

    return ngx_coord_peek_window(&op->u.rate, used, left);
}


static ngx_int_t
ngx_coord_window_look_parse(ngx_coord_op_t *op, ngx_coord_resp_value_t **values,
    ngx_coord_nsec_t now)
{
    int64_t             used;
    ngx_int_t           rc;
    ngx_coord_nsec_t    left, most;
    ngx_coord_window_t  window;

    if (ngx_coord_window_seen(values, &used, &left) != NGX_OK) {
        return NGX_ERROR;
    }

    (void) ngx_coord_window_begins(&op->u.rate, now, &most);
    (void) ngx_coord_window_init(&window, &op->u.rate);

    op->u.rate.mark = now + left;

    rc = ngx_coord_window_answer(&window, &op->u.rate,
                                 used > window.room ? NGX_BUSY : NGX_OK,
                                 used, left);

    return ngx_coord_deny_window_keep(op, rc, now);
}


/* what a window has counted, and what is left of it; 0: there is none */

static ngx_int_t
ngx_coord_window_seen(ngx_coord_resp_value_t **values, int64_t *used,
    ngx_coord_nsec_t *left)
{
    int64_t                  pttl;
    ngx_coord_resp_value_t  *v;

    v = values[0];
    pttl = ngx_coord_reply(WINDOW_PEEK, LEFT)->integer;

    if (v->type != NGX_COORD_RESP_ARRAY
        || v->integer != 1
        || ngx_coord_resp_integer(ngx_coord_resp_element(v, 0), used) != NGX_OK
        || *used < 0)
    {
        return NGX_ERROR;
    }

    /* -2: no key; -1: whoever has begun it has not given it an end */

    pttl = (pttl == -1) ? INT64_MAX : ngx_max(pttl + 1, 0);
    pttl = ngx_min(pttl, NGX_COORD_RATE_SPAN / NGX_COORD_NSEC_PER_MSEC);

    *left = pttl * NGX_COORD_NSEC_PER_MSEC;

    return NGX_OK;
}


static ngx_int_t
ngx_coord_window_peek_run(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_nsec_t    end, most;
    ngx_coord_entry_t  *entry;

    entry = ngx_coord_entry_find(table, op, now);

    (void) ngx_coord_window_begins(&op->u.rate, ngx_coord_realtime(), &most);

    if (entry == NULL) {
        return ngx_coord_peek_window(&op->u.rate, 0, 0);
    }

    end = (ngx_coord_nsec_t) entry->payload[0];

    return ngx_coord_peek_window(&op->u.rate, (int64_t) entry->payload[1],
                                 end - now);
}


static ngx_int_t
ngx_coord_window_left_parse(ngx_coord_op_t *op, ngx_coord_resp_value_t **values,
    ngx_coord_nsec_t now)
{
    if (ngx_coord_reply(WINDOW_PEEK, LEFT)->integer != -1) {
        return NGX_OK;
    }

    op->type = &ngx_coord_op_window_end;

    return NGX_AGAIN;
}


/* what stands in memory has its end by itself */

static ngx_int_t
ngx_coord_window_left_run(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    return NGX_OK;
}
