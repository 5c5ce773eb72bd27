
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * How a session comes into the index of its user: the least recently active
 * one makes room, or nobody does.
 */


#include "ngx_coord_op_arg.h"
#include "ngx_coord_op_session.h"
#include "ngx_coord_op_set.h"


static void ngx_coord_user_add_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_user_add_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static void ngx_coord_user_ended(ngx_coord_op_t *op,
    ngx_coord_resp_value_t *name);
static ngx_int_t ngx_coord_user_add_run(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static void ngx_coord_user_seat_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_user_seat_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_user_seat_run(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static void ngx_coord_user_unseat_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_user_unseat_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_user_unseat_run(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);


const ngx_coord_op_type_t  ngx_coord_op_user_add = {
    ngx_string("user_add"),
    0,
    NGX_COORD_KIND_USER,
    NGX_COORD_SCRIPT_USER_ADD,
    ngx_coord_user_add_build,
    ngx_coord_user_add_parse,
    NULL,
    ngx_coord_user_add_run,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL
};


const ngx_coord_op_type_t  ngx_coord_op_user_seat = {
    ngx_string("user_seat"),
    NGX_COORD_OP_TAKES|NGX_COORD_OP_JOINS,
    NGX_COORD_KIND_USER,
    NGX_COORD_SCRIPT_USER_SEAT,
    ngx_coord_user_seat_build,
    ngx_coord_user_seat_parse,
    NULL,
    ngx_coord_user_seat_run,
    &ngx_coord_op_user_unseat,
    NULL,
    NULL,
    NULL,
    NULL
};


const ngx_coord_op_type_t  ngx_coord_op_user_unseat = {
    ngx_string("user_unseat"),
    NGX_COORD_OP_JOINS|NGX_COORD_OP_TWICE,
    NGX_COORD_KIND_USER,
    NGX_COORD_SCRIPT_USER_UNSEAT,
    ngx_coord_user_unseat_build,
    ngx_coord_user_unseat_parse,
    NULL,
    ngx_coord_user_unseat_run,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL
};


static void
ngx_coord_user_add_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    int64_t           ttl, max;
    ngx_coord_arg_t  *a;

    a = cmd->args;
    ttl = ngx_coord_user_ttl(op);
    max = op->u.session.max ? (int64_t) op->u.session.max
                            : NGX_COORD_SESSION_ANY;

    ngx_coord_arg_user(cmd, NGX_COORD_USER_ADD_I, op, "}");
    ngx_coord_arg_id(cmd, NGX_COORD_USER_ADD_ID, op);
    ngx_coord_arg_num(&a[NGX_COORD_USER_ADD_NOW],
                      now / NGX_COORD_NSEC_PER_USEC);
    ngx_coord_arg_num(&a[NGX_COORD_USER_ADD_OLD],
                      now / NGX_COORD_NSEC_PER_USEC - ttl * 1000);
    ngx_coord_arg_num(&a[NGX_COORD_USER_ADD_FIRST], max);
    ngx_coord_arg_num(&a[NGX_COORD_USER_ADD_LAST],
                      max + NGX_COORD_SESSION_LIST - 1);
    ngx_coord_arg_num(&a[NGX_COORD_USER_ADD_BEYOND], -(max + 1));
    ngx_coord_arg_num(&a[NGX_COORD_USER_ADD_TTL], ttl);
}


static ngx_int_t
ngx_coord_user_add_parse(ngx_coord_op_t *op, ngx_coord_resp_value_t **values,
    ngx_coord_nsec_t now)
{
    ngx_uint_t               i, n;
    ngx_coord_resp_value_t  *list;

    list = ngx_coord_reply(USER_ADD, EVICTED);

    op->u.session.count = 0;

    if (list->type != NGX_COORD_RESP_ARRAY
        || list->integer > NGX_COORD_SESSION_LIST)
    {
        return NGX_ERROR;
    }

    n = (op->u.session.max && op->blob) ? (ngx_uint_t) list->integer : 0;

    for (i = 0; i < n; i++) {
        ngx_coord_user_ended(op, ngx_coord_resp_element(list, i));
    }

    return NGX_OK;
}


/* one that is beyond max; who wrote another name there is not told */

static void
ngx_coord_user_ended(ngx_coord_op_t *op, ngx_coord_resp_value_t *name)
{
    ngx_str_t                  s;
    ngx_coord_session_item_t  *item;

    item = (ngx_coord_session_item_t *) op->blob + op->u.session.count;

    if (ngx_coord_resp_string(name, &s) == NGX_OK
        && s.len == 2 * NGX_COORD_ID_LEN
        && ngx_coord_unhex(item->id, s.data, NGX_COORD_ID_LEN) == NGX_OK)
    {
        item->idle = 0;
        op->u.session.count++;
    }
}


static ngx_int_t
ngx_coord_user_add_run(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_nsec_t           expires;
    ngx_coord_slots_t          slots;
    ngx_coord_entry_t         *entry;
    ngx_coord_session_t       *session;
    ngx_coord_session_item_t  *items;

    session = &op->u.session;
    items = (ngx_coord_session_item_t *) op->blob;
    expires = now + session->ttl + NGX_COORD_USER_SLACK;

    session->count = 0;

    entry = ngx_coord_user_slots(table, op, &slots, now);

    if (entry == NULL) {

        /* not to be evicted: its sessions would seem to be ended */

        entry = ngx_coord_entry_insert(table, op, 0, NULL, expires, now);

        if (entry == NULL) {
            return NGX_ERROR;
        }
    }

    entry->expires = ngx_max(entry->expires, expires);

    if (slots.own) {
        slots.own->at = now;

    } else {

        if (ngx_coord_slot_add(table, entry, op, &slots, now, now) != NGX_OK) {
            return NGX_ERROR;
        }

        slots.used++;
    }

    while (session->max && slots.used > session->max) {

        (void) ngx_coord_user_slots(table, op, &slots, now);

        if (slots.used <= session->max || slots.other == NULL) {
            break;
        }

        if (items && session->count < NGX_COORD_SESSION_LIST) {
            ngx_memcpy(items[session->count++].id, slots.other->id,
                       NGX_COORD_ID_LEN);
        }

        slots.other->at = 0;
        slots.used--;
    }

    return NGX_OK;
}


static void
ngx_coord_user_seat_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    int64_t           ttl;
    ngx_coord_arg_t  *a;

    a = cmd->args;
    ttl = ngx_coord_user_ttl(op);

    op->u.session.seated = now / NGX_COORD_NSEC_PER_USEC;

    ngx_coord_arg_user(cmd, NGX_COORD_USER_SEAT_I, op, "}");
    ngx_coord_arg_user(cmd, NGX_COORD_USER_SEAT_TMP, op, "}:t");
    ngx_coord_arg_id(cmd, NGX_COORD_USER_SEAT_ID, op);
    ngx_coord_arg_num(&a[NGX_COORD_USER_SEAT_NOW], op->u.session.seated);
    ngx_coord_arg_num(&a[NGX_COORD_USER_SEAT_OLD],
                      now / NGX_COORD_NSEC_PER_USEC - ttl * 1000);
    ngx_coord_arg_num(&a[NGX_COORD_USER_SEAT_LIMIT],
                      (int64_t) op->u.session.max);
    ngx_coord_arg_num(&a[NGX_COORD_USER_SEAT_TTL], ttl);
}


static ngx_int_t
ngx_coord_user_seat_parse(ngx_coord_op_t *op, ngx_coord_resp_value_t **values,
    ngx_coord_nsec_t now)
{
    return ngx_coord_reply(USER_SEAT, GRANTED)->integer ? NGX_OK : NGX_BUSY;
}


static ngx_int_t
ngx_coord_user_seat_run(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_slots_t  slots;

    (void) ngx_coord_user_slots(table, op, &slots, now);

    op->u.session.seated = now / NGX_COORD_NSEC_PER_USEC;

    if (slots.own) {
        return NGX_OK;
    }

    if (slots.used >= op->u.session.max) {
        return NGX_BUSY;
    }

    return ngx_coord_user_add_run(table, op, now);
}


static void
ngx_coord_user_unseat_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_arg_t  *a;

    a = cmd->args;

    ngx_coord_arg_user(cmd, NGX_COORD_USER_UNSEAT_I, op, "}");
    ngx_coord_arg_id(cmd, NGX_COORD_USER_UNSEAT_ID, op);
    ngx_coord_arg_num(&a[NGX_COORD_USER_UNSEAT_AT], op->u.session.seated);
    ngx_coord_arg_num(&a[NGX_COORD_USER_UNSEAT_TAKEN], -op->u.session.seated);
}


static ngx_int_t
ngx_coord_user_unseat_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now)
{
    return ngx_coord_reply(USER_UNSEAT, DROPPED)->integer ? NGX_OK
                                                          : NGX_DECLINED;
}


static ngx_int_t
ngx_coord_user_unseat_run(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_slots_t  slots;

    (void) ngx_coord_user_slots(table, op, &slots, now);

    if (slots.own == NULL
        || slots.own->at / NGX_COORD_NSEC_PER_USEC != op->u.session.seated)
    {
        return NGX_DECLINED;
    }

    slots.own->at = 0;

    return NGX_OK;
}
