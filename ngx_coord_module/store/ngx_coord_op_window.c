
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Fixed windows: in Redis a count in a BITFIELD whose TTL is the end of the
 * window, in memory payload[0]: the end, payload[1]: used places.
 */


#include "ngx_coord_op_arg.h"
#include "ngx_coord_deny.h"


/* a window that has less left may end before a give arrives */
#define NGX_COORD_WINDOW_MARGIN  (100 * NGX_COORD_NSEC_PER_MSEC)


static void ngx_coord_window_take_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_window_take_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_window_found(ngx_coord_resp_value_t *v,
    ngx_uint_t nth, int64_t *used);
static void ngx_coord_window_fill_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_window_fill_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_window_take_run(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static void ngx_coord_window_cut_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_window_cut_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_window_give_known(ngx_coord_op_t *op,
    ngx_coord_nsec_t now);
static void ngx_coord_window_give_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_window_give_run(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static void ngx_coord_window_peek_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_window_peek_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_window_peek_run(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);


const ngx_coord_op_type_t  ngx_coord_op_window_take = {
    ngx_string("window_take"),
    NGX_COORD_OP_TAKES|NGX_COORD_OP_JOINS|NGX_COORD_OP_FULL_BUSY,
    NGX_COORD_KIND_WINDOW,
    NGX_COORD_SCRIPT_WINDOW_TAKE,
    ngx_coord_window_take_build,
    ngx_coord_window_take_parse,
    ngx_coord_window_take_known,
    ngx_coord_window_take_run,
    &ngx_coord_op_window_give,
    &ngx_coord_op_window_peek,
    &ngx_coord_op_window_forget,
    NULL,
    ngx_coord_take_same
};


/* behind a take in any case, which was more than can be counted */

static const ngx_coord_op_type_t  ngx_coord_op_window_fill = {
    ngx_string("window_fill"),
    NGX_COORD_OP_TAKES|NGX_COORD_OP_JOINS,
    NGX_COORD_KIND_WINDOW,
    NGX_COORD_SCRIPT_WINDOW_FILL,
    ngx_coord_window_fill_build,
    ngx_coord_window_fill_parse,
    NULL,
    ngx_coord_window_take_run,
    &ngx_coord_op_window_give,
    NULL,
    NULL,
    NULL,
    NULL
};


/* behind a take: the window that it has found cannot last so long */

static const ngx_coord_op_type_t  ngx_coord_op_window_cut = {
    ngx_string("window_cut"),
    NGX_COORD_OP_TAKES|NGX_COORD_OP_JOINS,
    NGX_COORD_KIND_WINDOW,
    NGX_COORD_SCRIPT_WINDOW_CUT,
    ngx_coord_window_cut_build,
    ngx_coord_window_cut_parse,
    NULL,
    ngx_coord_window_take_run,
    &ngx_coord_op_window_give,
    NULL,
    NULL,
    NULL,
    NULL
};


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


const ngx_coord_op_type_t  ngx_coord_op_window_forget = {
    ngx_string("window_forget"),
    0,
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


ngx_int_t
ngx_coord_window_take_known(ngx_coord_op_t *op, ngx_coord_nsec_t now)
{
    ngx_coord_window_t  window;

    if (ngx_coord_window_init(&window, &op->u.rate) != NGX_OK) {
        return ngx_coord_rate_never(&op->u.rate);
    }

    return ngx_coord_deny_window(op, now) ? NGX_BUSY : NGX_AGAIN;
}


static void
ngx_coord_window_take_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    u_char              *p;
    ngx_uint_t           i, n;
    ngx_coord_arg_t     *a;
    ngx_coord_nsec_t     length, most;
    ngx_coord_window_t   window;

    length = ngx_coord_window_begins(&op->u.rate, now, &most);

    (void) ngx_coord_window_init(&window, &op->u.rate);

    a = cmd->args;

    ngx_coord_arg_key(cmd, NGX_COORD_WINDOW_TAKE_K, op, "}");

    n = op->behind + 1;
    p = cmd->last;

    for (i = 0; i < n; i++) {
        p = ngx_coord_arg_step(p, "u32", 0xffffffffLL - window.room);
        p = ngx_coord_arg_step(p, "u32",
                               window.room + window.take - 0xffffffffLL);
    }

    ngx_coord_arg_list(&a[NGX_COORD_WINDOW_TAKE_STEPS], cmd->last,
                       p - cmd->last, 2 * NGX_COORD_OP_STEP_WORDS * n);
    cmd->last = p;

    ngx_coord_arg_str(&a[NGX_COORD_WINDOW_TAKE_ZERO], (u_char *) "\0\0\0", 4);
    ngx_coord_arg_num(&a[NGX_COORD_WINDOW_TAKE_WINDOW],
                      ngx_coord_ceil_msec(length));
}


static ngx_int_t
ngx_coord_window_take_parse(ngx_coord_op_t *op, ngx_coord_resp_value_t **values,
    ngx_coord_nsec_t now)
{
    int64_t             used, pttl;
    ngx_int_t           rc, opened;
    ngx_coord_nsec_t    left, most;
    ngx_coord_window_t  window;

    opened = ngx_coord_window_found(values[1], op->nth, &used);

    if (opened == NGX_ERROR
        || ngx_coord_resp_integer(values[2], &pttl) != NGX_OK)
    {
        return NGX_ERROR;
    }

    /* an end that lies too early is safe: see NGX_COORD_WINDOW_MARGIN */

    left = ngx_coord_window_begins(&op->u.rate, now, &most);

    (void) ngx_coord_window_init(&window, &op->u.rate);

    if (pttl >= 0) {
        left = ngx_min(pttl, NGX_COORD_RATE_SPAN / NGX_COORD_NSEC_PER_MSEC)
               * NGX_COORD_NSEC_PER_MSEC;

    } else if (pttl == -1) {
        /* somebody else has made it last for ever */
        left = NGX_COORD_RATE_SPAN;
    }

    /*
     * The length was changed, or the clock of the store set back.  What was
     * used stays used, in a window of this caller's length.
     */

    if (left > most) {
        op->u.rate.found = used;
        op->u.rate.tries = (opened == NGX_OK);
        op->type = &ngx_coord_op_window_cut;

        return NGX_AGAIN;
    }

    op->u.rate.mark = now + left;

    if (op->u.rate.force && opened != NGX_OK) {
        op->type = &ngx_coord_op_window_fill;
        return NGX_AGAIN;
    }

    /* the key goes when its last millisecond is over */

    rc = ngx_coord_window_answer(&window, &op->u.rate,
                                 opened == NGX_OK ? NGX_OK : NGX_BUSY,
                                 used, left + NGX_COORD_NSEC_PER_MSEC);

    return ngx_coord_deny_window_keep(op, rc, now);
}


/*
 * What the request nth of those that were asked for together has found:
 * NGX_OK, and the count with it; NGX_DECLINED: it is refused as all behind it
 * are, and the count is that behind all of them.
 */

static ngx_int_t
ngx_coord_window_found(ngx_coord_resp_value_t *v, ngx_uint_t nth,
    int64_t *used)
{
    int64_t     sum;
    ngx_int_t   opened, closed;
    ngx_uint_t  step;

    step = 2 * nth;

    if (v->type != NGX_COORD_RESP_ARRAY
        || v->integer % 2 != 1
        || v->integer < (int64_t) step + 3)
    {
        return NGX_ERROR;
    }

    opened = ngx_coord_resp_integer(ngx_coord_resp_element(v, step), &sum);
    closed = ngx_coord_resp_integer(ngx_coord_resp_element(v, step + 1), used);

    if (opened != closed) {
        return NGX_ERROR;
    }

    if (opened != NGX_DECLINED) {
        return opened;
    }

    return ngx_coord_resp_integer(ngx_coord_resp_element(v, v->integer - 1),
                                  used) == NGX_OK
           ? NGX_DECLINED : NGX_ERROR;
}


static void
ngx_coord_window_cut_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_nsec_t  length, most;

    length = ngx_coord_window_begins(&op->u.rate, now, &most);

    ngx_coord_arg_key(cmd, NGX_COORD_WINDOW_CUT_K, op, "}");
    ngx_coord_arg_num(&cmd->args[NGX_COORD_WINDOW_CUT_WINDOW],
                      ngx_coord_ceil_msec(length));
}


static ngx_int_t
ngx_coord_window_cut_parse(ngx_coord_op_t *op, ngx_coord_resp_value_t **values,
    ngx_coord_nsec_t now)
{
    ngx_coord_nsec_t    left, most;
    ngx_coord_window_t  window;

    left = ngx_coord_window_begins(&op->u.rate, now, &most);

    (void) ngx_coord_window_init(&window, &op->u.rate);

    op->u.rate.mark = now + left;

    if (op->u.rate.force && !op->u.rate.tries) {
        op->type = &ngx_coord_op_window_fill;
        return NGX_AGAIN;
    }

    op->type = &ngx_coord_op_window_take;

    return ngx_coord_window_answer(&window, &op->u.rate,
                                   op->u.rate.tries ? NGX_OK : NGX_BUSY,
                                   op->u.rate.found, left);
}


/* what a forced take cannot count any more makes the window full for good */

static void
ngx_coord_window_fill_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_arg_t     *a;
    ngx_coord_nsec_t     length, most;
    ngx_coord_window_t   window;

    length = ngx_coord_window_begins(&op->u.rate, now, &most);

    (void) ngx_coord_window_init(&window, &op->u.rate);

    a = cmd->args;

    ngx_coord_arg_key(cmd, NGX_COORD_WINDOW_FILL_K, op, "}");
    ngx_coord_arg_str(&a[NGX_COORD_WINDOW_FILL_ZERO], (u_char *) "\0\0\0", 4);
    ngx_coord_arg_num(&a[NGX_COORD_WINDOW_FILL_WINDOW],
                      ngx_coord_ceil_msec(length));
    ngx_coord_arg_num(&a[NGX_COORD_WINDOW_FILL_COST], window.take);
}


static ngx_int_t
ngx_coord_window_fill_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now)
{
    ngx_coord_window_t  window;

    (void) ngx_coord_window_init(&window, &op->u.rate);

    op->type = &ngx_coord_op_window_take;

    return ngx_coord_window_answer(&window, &op->u.rate, NGX_OK,
                                   NGX_COORD_RATE_LIMIT,
                                   op->u.rate.mark - now);
}


static ngx_int_t
ngx_coord_window_take_run(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    int64_t              used;
    uint64_t             payload[2];
    ngx_coord_rate_t    *rate;
    ngx_coord_nsec_t     length, most;
    ngx_coord_entry_t   *entry;
    ngx_coord_window_t   window;

    rate = &op->u.rate;
    length = ngx_coord_window_begins(rate, ngx_coord_realtime(), &most);

    if (ngx_coord_window_init(&window, rate) != NGX_OK) {
        return ngx_coord_rate_never(rate);
    }

    entry = ngx_coord_entry_find(table, op, now);

    if (entry == NULL) {
        rate->mark = now + length;

        if (window.take == 0) {
            return ngx_coord_window_answer(&window, rate, NGX_OK, 0, 0);
        }

        payload[0] = (uint64_t) rate->mark;
        payload[1] = (uint64_t) window.take;

        entry = ngx_coord_entry_insert(table, op, NGX_COORD_ENTRY_EVICT,
                                       payload, rate->mark, now);

        if (entry == NULL) {
            return NGX_ERROR;
        }

        return ngx_coord_window_answer(&window, rate, NGX_OK, window.take,
                                       length);
    }

    used = (int64_t) entry->payload[1];
    rate->mark = (ngx_coord_nsec_t) entry->payload[0];

    /* the length was changed */

    if (rate->mark - now > most) {
        rate->mark = now + length;
        entry->payload[0] = (uint64_t) rate->mark;
        entry->expires = rate->mark;
    }

    if (used > window.room && !rate->force) {
        return ngx_coord_window_answer(&window, rate, NGX_BUSY, used,
                                       rate->mark - now);
    }

    used = ngx_min(used + window.take, NGX_COORD_RATE_LIMIT);
    entry->payload[1] = (uint64_t) used;

    return ngx_coord_window_answer(&window, rate, NGX_OK, used,
                                   rate->mark - now);
}


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


static void
ngx_coord_window_peek_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_arg_key(cmd, NGX_COORD_WINDOW_PEEK_K, op, "}");
}


static ngx_int_t
ngx_coord_window_peek_parse(ngx_coord_op_t *op, ngx_coord_resp_value_t **values,
    ngx_coord_nsec_t now)
{
    int64_t                  used, pttl;
    ngx_coord_nsec_t         most;
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

    (void) ngx_coord_window_begins(&op->u.rate, now, &most);

    return ngx_coord_peek_window(&op->u.rate, used,
                                 pttl * NGX_COORD_NSEC_PER_MSEC);
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
