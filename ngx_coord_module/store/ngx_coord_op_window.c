
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Fixed windows: what is taken.  In Redis a take is one command while the
 * window is known to last (ngx_coord_lives.h), and another script where it is
 * not; both may find that there is more to do.
 *
 *            +-- lasts ------> STEADY -- it may have begun --> UNTIL
 *   TAKE ----+                   |                              |
 *            +-- not known ------|--> answered <---- CUT <------+
 *                                v     ^               too long, or for ever
 *                             answered +--- FILL
 */


#include "ngx_coord_deny.h"
#include "ngx_coord_lives.h"
#include "ngx_coord_op_window.h"


/* callers of all rates know the same of a window: see ngx_coord_lives.h */
#define NGX_COORD_WINDOW_ANY  0


static ngx_int_t ngx_coord_window_known(ngx_coord_op_t *op,
    ngx_coord_nsec_t now);
static void ngx_coord_window_steps(ngx_coord_command_t *cmd, ngx_uint_t n,
    ngx_coord_op_t *op);
static void ngx_coord_window_take_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_window_take_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static void ngx_coord_window_steady_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_window_steady_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_window_until_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_window_judge(ngx_coord_op_t *op, ngx_int_t opened,
    int64_t used, int64_t pttl, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_window_found(ngx_coord_resp_value_t *v,
    ngx_uint_t nth, int64_t *used);
static void ngx_coord_window_fill_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_window_fill_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_window_cut_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);


const ngx_coord_op_type_t  ngx_coord_op_window_take = {
    ngx_string("window_take"),
    NGX_COORD_OP_TAKES|NGX_COORD_OP_JOINS|NGX_COORD_OP_FULL_BUSY,
    NGX_COORD_KIND_WINDOW,
    NGX_COORD_SCRIPT_WINDOW_TAKE,
    ngx_coord_window_take_build,
    ngx_coord_window_take_parse,
    ngx_coord_window_known,
    ngx_coord_window_take_run,
    &ngx_coord_op_window_give,
    &ngx_coord_op_window_peek,
    &ngx_coord_op_window_forget,
    NULL,
    ngx_coord_take_same
};


/* a take of one command, and what follows if it may have begun a window */

static const ngx_coord_op_type_t  ngx_coord_op_window_steady = {
    ngx_string("window_steady"),
    NGX_COORD_OP_TAKES|NGX_COORD_OP_JOINS|NGX_COORD_OP_FULL_BUSY,
    NGX_COORD_KIND_WINDOW,
    NGX_COORD_SCRIPT_WINDOW_MORE,
    ngx_coord_window_steady_build,
    ngx_coord_window_steady_parse,
    NULL,
    ngx_coord_window_take_run,
    &ngx_coord_op_window_left,
    NULL,
    NULL,
    NULL,
    ngx_coord_take_same
};


static const ngx_coord_op_type_t  ngx_coord_op_window_until = {
    ngx_string("window_until"),
    NGX_COORD_OP_TAKES|NGX_COORD_OP_JOINS|NGX_COORD_OP_FULL_BUSY,
    NGX_COORD_KIND_WINDOW,
    NGX_COORD_SCRIPT_WINDOW_PEEK,
    ngx_coord_window_peek_build,
    ngx_coord_window_until_parse,
    NULL,
    ngx_coord_window_take_run,
    &ngx_coord_op_window_left,
    NULL,
    NULL,
    NULL,
    NULL
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
    &ngx_coord_op_window_left,
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


/* who takes in any case may have a window to begin */

static ngx_int_t
ngx_coord_window_known(ngx_coord_op_t *op, ngx_coord_nsec_t now)
{
    uint32_t           note;
    ngx_int_t          rc;
    ngx_coord_rate_t  *rate;
    ngx_coord_nsec_t   until;

    rate = &op->u.rate;
    rc = ngx_coord_window_take_known(op, now);

    if (rc != NGX_AGAIN || rate->force) {
        return rc;
    }

    if (rate->look || rate->cost == 0) {
        op->type = &ngx_coord_op_window_look;
        return NGX_AGAIN;
    }

    until = ngx_coord_lives_find(op, NGX_COORD_WINDOW_ANY, now, &note);

    if (until) {
        rate->mark = until + NGX_COORD_WINDOW_MARGIN;
        op->type = &ngx_coord_op_window_steady;
    }

    return NGX_AGAIN;
}


/* the steps of each of those that travel as one */

static void
ngx_coord_window_steps(ngx_coord_command_t *cmd, ngx_uint_t arg,
    ngx_coord_op_t *op)
{
    u_char              *p;
    ngx_uint_t           i, n;
    ngx_coord_window_t   window;

    (void) ngx_coord_window_init(&window, &op->u.rate);

    n = op->behind + 1;
    p = cmd->last;

    for (i = 0; i < n; i++) {
        p = ngx_coord_arg_step(p, "u32", 0xffffffffLL - window.room);
        p = ngx_coord_arg_step(p, "u32",
                               window.room + window.take - 0xffffffffLL);
    }

    ngx_coord_arg_list(&cmd->args[arg], cmd->last, p - cmd->last,
                       2 * NGX_COORD_OP_STEP_WORDS * n);
    cmd->last = p;
}


static void
ngx_coord_window_take_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_arg_t   *a;
    ngx_coord_nsec_t   length, most;

    length = ngx_coord_window_begins(&op->u.rate, now, &most);

    a = cmd->args;

    ngx_coord_arg_key(cmd, NGX_COORD_WINDOW_TAKE_K, op, "}");
    ngx_coord_window_steps(cmd, NGX_COORD_WINDOW_TAKE_STEPS, op);
    ngx_coord_arg_str(&a[NGX_COORD_WINDOW_TAKE_ZERO], (u_char *) "\0\0\0", 4);
    ngx_coord_arg_num(&a[NGX_COORD_WINDOW_TAKE_WINDOW],
                      ngx_coord_ceil_msec(length));
}


static ngx_int_t
ngx_coord_window_take_parse(ngx_coord_op_t *op, ngx_coord_resp_value_t **values,
    ngx_coord_nsec_t now)
{
    int64_t    used, pttl;
    ngx_int_t  opened;

    opened = ngx_coord_window_found(values[1], op->nth, &used);

    if (opened == NGX_ERROR
        || ngx_coord_resp_integer(values[2], &pttl) != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_coord_window_judge(op, opened, used, pttl, now);
}


static void
ngx_coord_window_steady_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_nsec_t  most;

    /* should it begin a window: for so long that is looked for */

    op->u.rate.life = ngx_coord_window_begins(&op->u.rate, now, &most);

    ngx_coord_arg_key(cmd, NGX_COORD_WINDOW_MORE_K, op, "}");
    ngx_coord_window_steps(cmd, NGX_COORD_WINDOW_MORE_STEPS, op);
}


/*
 * The end of the window is that which was known, unless this was the first to
 * count in it: it has gone, and another may have begun, without an end.
 */

static ngx_int_t
ngx_coord_window_steady_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now)
{
    int64_t             used, left;
    ngx_int_t           opened;
    ngx_coord_window_t  window;

    opened = ngx_coord_window_found(values[0], op->nth, &used);

    if (opened == NGX_ERROR) {
        return NGX_ERROR;
    }

    (void) ngx_coord_window_init(&window, &op->u.rate);

    if (opened == NGX_OK && op->nth == 0 && used == window.take) {
        op->u.rate.found = used;

        ngx_coord_lives_drop(op, NGX_COORD_WINDOW_ANY);

        op->type = &ngx_coord_op_window_until;

        return NGX_AGAIN;
    }

    left = (op->u.rate.mark - now) / NGX_COORD_NSEC_PER_MSEC;

    return ngx_coord_window_judge(op, opened, used, ngx_max(left, 0), now);
}


static ngx_int_t
ngx_coord_window_until_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now)
{
    return ngx_coord_window_judge(op, NGX_OK, op->u.rate.found,
                                  ngx_coord_reply(WINDOW_PEEK, LEFT)->integer,
                                  now);
}


/*
 * The answer to one who has found a count, with his own places if opened is
 * NGX_OK, and the milliseconds to the end of the window, as of PTTL.
 */

static ngx_int_t
ngx_coord_window_judge(ngx_coord_op_t *op, ngx_int_t opened, int64_t used,
    int64_t pttl, ngx_coord_nsec_t now)
{
    ngx_int_t           rc;
    ngx_coord_nsec_t    left, most;
    ngx_coord_window_t  window;

    /* an end that lies too early is safe: see NGX_COORD_WINDOW_MARGIN */

    left = ngx_coord_window_begins(&op->u.rate, now, &most);

    (void) ngx_coord_window_init(&window, &op->u.rate);

    if (pttl >= 0) {
        left = ngx_min(pttl, NGX_COORD_RATE_SPAN / NGX_COORD_NSEC_PER_MSEC)
               * NGX_COORD_NSEC_PER_MSEC;

    } else if (pttl == -1) {
        /* whoever has begun it has not given it an end */
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

    if (pttl >= 0 && op->type != &ngx_coord_op_window_steady) {
        ngx_coord_lives_keep(op, NGX_COORD_WINDOW_ANY,
                             op->u.rate.mark - NGX_COORD_WINDOW_MARGIN, 0);
    }

    op->type = &ngx_coord_op_window_take;

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


void
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


ngx_int_t
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
    op->type = &ngx_coord_op_window_take;

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
