
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Holds: a key of a rate that is refused until a time, whatever it has used.
 * In Redis a key beside that of the rate, whose life is the hold; in memory an
 * entry that expires with it.
 */


#include "ngx_coord_op_arg.h"
#include "ngx_coord_deny.h"


/* what takes the place of the layout in the name of its keys */
#define NGX_COORD_HOLD_LAYOUT  "rh:"


static void ngx_coord_hold_arg(ngx_coord_command_t *cmd, ngx_uint_t n,
    ngx_coord_op_t *op, const char *suffix);
static ngx_coord_nsec_t ngx_coord_hold_left(ngx_coord_op_t *op);
static void ngx_coord_hold_put_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_hold_put_run(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static void ngx_coord_hold_peek_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_hold_peek_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_hold_peek_run(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static void ngx_coord_hold_forget_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);


const ngx_coord_op_type_t  ngx_coord_op_hold_put = {
    ngx_string("hold_put"),
    NGX_COORD_OP_JOINS|NGX_COORD_OP_TWICE,
    NGX_COORD_KIND_HOLD,
    NGX_COORD_SCRIPT_HOLD_PUT,
    ngx_coord_hold_put_build,
    ngx_coord_give_parse,
    NULL,
    ngx_coord_hold_put_run,
    NULL,
    &ngx_coord_op_hold_peek,
    &ngx_coord_op_hold_forget,
    NULL,
    NULL
};


const ngx_coord_op_type_t  ngx_coord_op_hold_peek = {
    ngx_string("hold_peek"),
    NGX_COORD_OP_JOINS|NGX_COORD_OP_LOOKS,
    NGX_COORD_KIND_HOLD,
    NGX_COORD_SCRIPT_HOLD_PEEK,
    ngx_coord_hold_peek_build,
    ngx_coord_hold_peek_parse,
    NULL,
    ngx_coord_hold_peek_run,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL
};


const ngx_coord_op_type_t  ngx_coord_op_hold_forget = {
    ngx_string("hold_forget"),
    NGX_COORD_OP_FREES,
    NGX_COORD_KIND_HOLD,
    NGX_COORD_SCRIPT_FORGET,
    ngx_coord_hold_forget_build,
    ngx_coord_forget_parse,
    NULL,
    ngx_coord_forget_run,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL
};


/* "<prefix>rh:<zone>:{<key>", and suffix */

static void
ngx_coord_hold_arg(ngx_coord_command_t *cmd, ngx_uint_t n, ngx_coord_op_t *op,
    const char *suffix)
{
    u_char            *p;
    ngx_coord_zone_t  *zone;

    zone = op->zone;
    p = cmd->last;

    p = ngx_cpymem(p, zone->store->key_prefix.data,
                   zone->store->key_prefix.len);
    p = ngx_cpymem(p, NGX_COORD_HOLD_LAYOUT,
                   sizeof(NGX_COORD_HOLD_LAYOUT) - 1);
    p = ngx_cpymem(p, zone->name.data, zone->name.len);
    p = ngx_cpymem(p, ":{", 2);
    p = ngx_cpymem(p, op->key, op->key_len);
    p = ngx_cpymem(p, suffix, ngx_strlen(suffix));

    ngx_coord_arg_str(&cmd->args[n], cmd->last, p - cmd->last);

    cmd->last = p;
}


/* it may be sent later than it was placed, and is over at the same time */

static ngx_coord_nsec_t
ngx_coord_hold_left(ngx_coord_op_t *op)
{
    ngx_coord_nsec_t  left;

    left = op->u.rate.mark - ngx_coord_monotonic();

    return ngx_max(left, NGX_COORD_NSEC_PER_MSEC);
}


static void
ngx_coord_hold_put_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_arg_t   *a;
    ngx_coord_nsec_t   left;

    a = cmd->args;
    left = ngx_coord_hold_left(op);

    ngx_coord_hold_arg(cmd, NGX_COORD_HOLD_PUT_K, op, "}");
    ngx_coord_hold_arg(cmd, NGX_COORD_HOLD_PUT_TMP, op, "}:tmp");
    ngx_coord_arg_num(&a[NGX_COORD_HOLD_PUT_END],
                      (now + left) / NGX_COORD_NSEC_PER_MSEC);
    ngx_coord_arg_num(&a[NGX_COORD_HOLD_PUT_LEFT], ngx_coord_ceil_msec(left));
}


static ngx_int_t
ngx_coord_hold_put_run(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_entry_t  *entry;

    entry = ngx_coord_entry_find(table, op, now);

    if (entry) {
        entry->expires = ngx_max(entry->expires, op->u.rate.mark);
        return NGX_OK;
    }

    entry = ngx_coord_entry_insert(table, op, NGX_COORD_ENTRY_EVICT, NULL,
                                   op->u.rate.mark, now);

    return entry ? NGX_OK : NGX_ERROR;
}


static void
ngx_coord_hold_peek_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_hold_arg(cmd, NGX_COORD_HOLD_PEEK_K, op, "}");
}


static ngx_int_t
ngx_coord_hold_peek_parse(ngx_coord_op_t *op, ngx_coord_resp_value_t **values,
    ngx_coord_nsec_t now)
{
    int64_t  left;

    left = ngx_coord_reply(HOLD_PEEK, LEFT)->integer;

    if (left < 0) {
        return NGX_OK;
    }

    left = ngx_min(left, NGX_COORD_RATE_SPAN / NGX_COORD_NSEC_PER_MSEC);

    op->u.rate.retry = ngx_max(left, 1) * NGX_COORD_NSEC_PER_MSEC;

    ngx_coord_deny_held_keep(op, op->u.rate.retry);

    return NGX_BUSY;
}


static ngx_int_t
ngx_coord_hold_peek_run(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_entry_t  *entry;

    entry = ngx_coord_entry_find(table, op, now);

    if (entry == NULL) {
        return NGX_OK;
    }

    op->u.rate.retry = entry->expires - now;

    return NGX_BUSY;
}


static void
ngx_coord_hold_forget_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_arg_t  *a;

    a = cmd->args;

    ngx_coord_hold_arg(cmd, NGX_COORD_FORGET_A, op, "}");

    a[NGX_COORD_FORGET_B] = a[NGX_COORD_FORGET_A];
    a[NGX_COORD_FORGET_C] = a[NGX_COORD_FORGET_A];
}
