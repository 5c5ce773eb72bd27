
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * What the operations of all topics share: arguments of scripts, replies, and
 * entries in memory.
 */


#include "ngx_coord_op_arg.h"


/* tags of entries above all kinds: a length of a window in seconds, modulo */
#define NGX_COORD_TAG_LENGTHS   64
#define NGX_COORD_TAG_NLENGTHS  127


static ngx_uint_t ngx_coord_entry_tag(const ngx_coord_op_t *op);


void
ngx_coord_arg_key(ngx_coord_command_t *cmd, ngx_uint_t n, ngx_coord_op_t *op,
    const char *suffix)
{
    u_char  *p;

    p = cmd->last;

    p = ngx_cpymem(p, op->zone->key_head.data, op->zone->key_head.len);
    p = ngx_cpymem(p, op->key, op->key_len);
    p = ngx_cpymem(p, suffix, ngx_strlen(suffix));

    ngx_coord_arg_str(&cmd->args[n], cmd->last, p - cmd->last);

    cmd->last = p;
}


void
ngx_coord_arg_wake(ngx_coord_command_t *cmd, ngx_uint_t n,
    ngx_coord_op_t *op)
{
    u_char     *p;
    ngx_str_t  *prefix;

    prefix = &op->zone->store->key_prefix;

    p = ngx_cpymem(cmd->last, prefix->data, prefix->len);
    p = ngx_cpymem(p, "wake", sizeof("wake") - 1);

    ngx_coord_arg_str(&cmd->args[n], cmd->last, p - cmd->last);

    cmd->last = p;
}


void
ngx_coord_arg_window(ngx_coord_command_t *cmd, ngx_uint_t n, ngx_coord_op_t *op,
    int64_t index)
{
    u_char  *p;

    ngx_coord_arg_key(cmd, n, op, "}:");

    p = ngx_sprintf(cmd->last, "%L", index);

    cmd->args[n].len += p - cmd->last;
    cmd->last = p;
}


void
ngx_coord_arg_id(ngx_coord_command_t *cmd, ngx_uint_t n, ngx_coord_op_t *op)
{
    u_char  *p;

    p = ngx_hex_dump(cmd->last, op->id, NGX_COORD_ID_LEN);

    ngx_coord_arg_str(&cmd->args[n], cmd->last, p - cmd->last);

    cmd->last = p;
}


void
ngx_coord_arg_entry(ngx_coord_command_t *cmd, ngx_uint_t n, ngx_coord_op_t *op)
{
    ngx_str_t  id, text;

    id.data = op->id;
    id.len = NGX_COORD_ID_LEN;

    text.data = cmd->last;

    ngx_encode_base64url(&text, &id);

    ngx_coord_arg_str(&cmd->args[n], text.data, text.len);

    cmd->last += text.len;
}


void
ngx_coord_arg_askers(ngx_coord_command_t *cmd, ngx_uint_t asks,
    ngx_uint_t entries, ngx_coord_op_t *op, int64_t score)
{
    u_char           text[NGX_COORD_ENTRY_LEN + 2], *start, *p, *q;
    int64_t          n;
    ngx_str_t        src, dst;
    ngx_coord_op_t  *first;

    first = op;
    p = cmd->last;
    start = p + (first->behind + 1) * NGX_COORD_OP_ASKER_LEN;
    q = start;

    for (n = 1; op; op = op->with, n++) {
        op->behind = first->behind;

        src.data = op->id;
        src.len = NGX_COORD_ID_LEN;
        dst.data = text;

        ngx_encode_base64url(&dst, &src);

        p = ngx_coord_script_number(p, -n);
        p = ngx_coord_script_string(p, text, dst.len);

        q = ngx_coord_script_number(q, score);
        q = ngx_coord_script_string(q, text, dst.len);
    }

    ngx_coord_arg_list(&cmd->args[asks], cmd->last, p - cmd->last, 2 * n - 2);
    ngx_coord_arg_list(&cmd->args[entries], start, q - start, 2 * n - 2);

    cmd->last = q;
}


int64_t
ngx_coord_ttl(ngx_coord_nsec_t ns)
{
    return ngx_coord_ceil_msec(ns) + NGX_COORD_OP_SLACK;
}


ngx_uint_t
ngx_coord_take_same(const ngx_coord_op_t *a, const ngx_coord_op_t *b)
{
    return ngx_coord_rate_same(&a->u.rate, &b->u.rate);
}


/* whatever it gave back, it is not there any more */

ngx_int_t
ngx_coord_give_parse(ngx_coord_op_t *op, ngx_coord_resp_value_t **values,
    ngx_coord_nsec_t now)
{
    return NGX_OK;
}


ngx_int_t
ngx_coord_score_parse(ngx_coord_op_t *op, ngx_coord_resp_value_t **values,
    ngx_coord_nsec_t now)
{
    int64_t    expires;
    ngx_int_t  rc;

    rc = ngx_coord_resp_score(ngx_coord_reply(LEASE_RENEW, SCORE), &expires);

    return rc == NGX_DECLINED ? NGX_BUSY : rc;
}


ngx_int_t
ngx_coord_time_parse(ngx_coord_resp_value_t *value, ngx_coord_nsec_t *time)
{
    int64_t    score;
    ngx_int_t  rc;

    rc = ngx_coord_resp_score(value, &score);

    if (rc != NGX_OK) {
        return rc;
    }

    if (score < 0) {
        return NGX_ERROR;
    }

    *time = score * NGX_COORD_NSEC_PER_USEC;

    return NGX_OK;
}


ngx_int_t
ngx_coord_removed_parse(ngx_coord_op_t *op, ngx_coord_resp_value_t **values,
    ngx_coord_nsec_t now)
{
    int64_t  n;

    if (ngx_coord_resp_integer(values[0], &n) != NGX_OK) {
        return NGX_ERROR;
    }

    return n ? NGX_OK : NGX_DECLINED;
}


void
ngx_coord_forget_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_arg_t  *a;

    a = cmd->args;

    ngx_coord_arg_key(cmd, NGX_COORD_FORGET_A, op, "}");

    a[NGX_COORD_FORGET_B] = a[NGX_COORD_FORGET_A];
    a[NGX_COORD_FORGET_C] = a[NGX_COORD_FORGET_A];
}


ngx_int_t
ngx_coord_forget_parse(ngx_coord_op_t *op, ngx_coord_resp_value_t **values,
    ngx_coord_nsec_t now)
{
    return ngx_coord_reply(FORGET, DROPPED)->integer ? NGX_OK : NGX_BUSY;
}


ngx_int_t
ngx_coord_forget_run(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_entry_t  *entry;

    entry = ngx_coord_entry_find(table, op, now);

    if (entry == NULL) {
        return NGX_BUSY;
    }

    ngx_coord_table_remove(table, entry);

    return NGX_OK;
}


/*
 * Counters of windows of one length say nothing of another: as in Redis, where
 * the number of the window is part of the key, each length has its own.
 */

static ngx_uint_t
ngx_coord_entry_tag(const ngx_coord_op_t *op)
{
    if (op->type->kind != NGX_COORD_KIND_SLIDING) {
        return op->type->kind;
    }

    return NGX_COORD_TAG_LENGTHS
           + op->u.rate.window / NGX_COORD_NSEC_PER_SEC
             % NGX_COORD_TAG_NLENGTHS;
}


ngx_coord_entry_t *
ngx_coord_entry_find(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    return ngx_coord_table_find(table, ngx_coord_entry_tag(op), op->key,
                                op->key_len, now);
}


ngx_coord_entry_t *
ngx_coord_entry_insert(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_uint_t flags, uint64_t *payload, ngx_coord_nsec_t expires,
    ngx_coord_nsec_t now)
{
    return ngx_coord_table_insert(table, ngx_coord_entry_tag(op), flags,
                                  op->key, op->key_len, payload, expires, now);
}
