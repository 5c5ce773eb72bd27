
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The sessions of a user: a set of the times of their last activity.
 */


#include "ngx_coord_op_arg.h"
#include "ngx_coord_op_session.h"
#include "ngx_coord_op_set.h"


static void ngx_coord_user_check_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_user_check_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_user_check_run(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static void ngx_coord_user_seen_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_user_seen_run(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static void ngx_coord_user_drop_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_user_drop_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_user_drop_run(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static void ngx_coord_user_list_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_user_list_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_user_list_run(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static void ngx_coord_user_revoke_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_user_revoke_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_user_revoke_run(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_session_item(ngx_coord_session_item_t *item,
    ngx_coord_resp_value_t *name, ngx_coord_resp_value_t *score,
    ngx_coord_nsec_t now);
static void ngx_coord_user_item(ngx_coord_session_item_t *items, ngx_uint_t n,
    ngx_coord_slot_t *slot, ngx_coord_nsec_t now);


const ngx_coord_op_type_t  ngx_coord_op_user_check = {
    ngx_string("user_check"),
    NGX_COORD_OP_JOINS,
    NGX_COORD_KIND_USER,
    NGX_COORD_SCRIPT_USER_CHECK,
    ngx_coord_user_check_build,
    ngx_coord_user_check_parse,
    NULL,
    ngx_coord_user_check_run,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL
};


const ngx_coord_op_type_t  ngx_coord_op_user_seen = {
    ngx_string("user_seen"),
    NGX_COORD_OP_JOINS,
    NGX_COORD_KIND_USER,
    NGX_COORD_SCRIPT_USER_SEEN,
    ngx_coord_user_seen_build,
    ngx_coord_give_parse,
    NULL,
    ngx_coord_user_seen_run,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL
};


const ngx_coord_op_type_t  ngx_coord_op_user_drop = {
    ngx_string("user_drop"),
    NGX_COORD_OP_JOINS|NGX_COORD_OP_TWICE,
    NGX_COORD_KIND_USER,
    NGX_COORD_SCRIPT_USER_DROP,
    ngx_coord_user_drop_build,
    ngx_coord_user_drop_parse,
    NULL,
    ngx_coord_user_drop_run,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL
};


const ngx_coord_op_type_t  ngx_coord_op_user_list = {
    ngx_string("user_list"),
    NGX_COORD_OP_BULK,
    NGX_COORD_KIND_USER,
    NGX_COORD_SCRIPT_USER_LIST,
    ngx_coord_user_list_build,
    ngx_coord_user_list_parse,
    NULL,
    ngx_coord_user_list_run,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL
};


const ngx_coord_op_type_t  ngx_coord_op_user_revoke = {
    ngx_string("user_revoke"),
    NGX_COORD_OP_JOINS,
    NGX_COORD_KIND_USER,
    NGX_COORD_SCRIPT_USER_REVOKE,
    ngx_coord_user_revoke_build,
    ngx_coord_user_revoke_parse,
    NULL,
    ngx_coord_user_revoke_run,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL
};


void
ngx_coord_arg_user(ngx_coord_command_t *cmd, ngx_uint_t n, ngx_coord_op_t *op,
    const char *suffix)
{
    ngx_coord_arg_key(cmd, n, op, suffix);

    cmd->args[n].data[op->zone->store->key_prefix.len] = 'u';
}


int64_t
ngx_coord_user_ttl(ngx_coord_op_t *op)
{
    return ngx_coord_session_ttl(op) + NGX_COORD_OP_SLACK;
}


ngx_coord_entry_t *
ngx_coord_user_slots(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_slots_t *slots, ngx_coord_nsec_t now)
{
    ngx_coord_nsec_t    gone;
    ngx_coord_entry_t  *entry;

    ngx_memzero(slots, sizeof(ngx_coord_slots_t));

    entry = ngx_coord_entry_find(table, op, now);

    if (entry == NULL) {
        return NULL;
    }

    gone = op->u.session.ttl
           ? now - op->u.session.ttl - NGX_COORD_USER_SLACK : 0;

    ngx_coord_slots(table, entry, op->id, gone, slots);

    return entry;
}


static void
ngx_coord_user_check_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_arg_user(cmd, NGX_COORD_USER_CHECK_I, op, "}");
    ngx_coord_arg_id(cmd, NGX_COORD_USER_CHECK_ID, op);
}


static ngx_int_t
ngx_coord_user_check_parse(ngx_coord_op_t *op, ngx_coord_resp_value_t **values,
    ngx_coord_nsec_t now)
{
    int64_t    score;
    ngx_int_t  rc;

    rc = ngx_coord_resp_score(ngx_coord_reply(USER_CHECK, SEEN), &score);

    op->u.session.found = (rc == NGX_OK);

    return (rc == NGX_ERROR) ? NGX_ERROR : NGX_OK;
}


static ngx_int_t
ngx_coord_user_check_run(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_slots_t  slots;

    (void) ngx_coord_user_slots(table, op, &slots, now);

    op->u.session.found = (slots.own != NULL);

    return NGX_OK;
}


static void
ngx_coord_user_seen_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_arg_user(cmd, NGX_COORD_USER_SEEN_I, op, "}");
    ngx_coord_arg_id(cmd, NGX_COORD_USER_SEEN_ID, op);
    ngx_coord_arg_num(&cmd->args[NGX_COORD_USER_SEEN_NOW],
                      now / NGX_COORD_NSEC_PER_USEC);
    ngx_coord_arg_num(&cmd->args[NGX_COORD_USER_SEEN_TTL],
                      ngx_coord_user_ttl(op));
}


static ngx_int_t
ngx_coord_user_seen_run(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_slots_t   slots;
    ngx_coord_entry_t  *entry;

    entry = ngx_coord_user_slots(table, op, &slots, now);

    if (entry && slots.own) {
        slots.own->at = now;
        entry->expires = ngx_max(entry->expires, now + op->u.session.ttl
                                                 + NGX_COORD_USER_SLACK);
    }

    return NGX_OK;
}


static void
ngx_coord_user_drop_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_arg_user(cmd, NGX_COORD_USER_DROP_I, op, "}");
    ngx_coord_arg_id(cmd, NGX_COORD_USER_DROP_ID, op);
}


static ngx_int_t
ngx_coord_user_drop_parse(ngx_coord_op_t *op, ngx_coord_resp_value_t **values,
    ngx_coord_nsec_t now)
{
    op->u.session.found = ngx_coord_reply(USER_DROP, DROPPED)->integer != 0;

    return NGX_OK;
}


static ngx_int_t
ngx_coord_user_drop_run(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_slots_t  slots;

    (void) ngx_coord_user_slots(table, op, &slots, now);

    op->u.session.found = (slots.own != NULL);

    if (slots.own) {
        slots.own->at = 0;
    }

    return NGX_OK;
}


static void
ngx_coord_user_list_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_arg_user(cmd, NGX_COORD_USER_LIST_I, op, "}");
    ngx_coord_arg_num(&cmd->args[NGX_COORD_USER_LIST_OLD],
                      now / NGX_COORD_NSEC_PER_USEC
                      - ngx_coord_user_ttl(op) * 1000);
    ngx_coord_arg_num(&cmd->args[NGX_COORD_USER_LIST_LAST],
                      NGX_COORD_SESSION_LIST - 1);
}


static ngx_int_t
ngx_coord_user_list_parse(ngx_coord_op_t *op, ngx_coord_resp_value_t **values,
    ngx_coord_nsec_t now)
{
    int64_t                    n;
    ngx_uint_t                 i;
    ngx_coord_resp_value_t    *list;
    ngx_coord_session_item_t  *items;

    list = ngx_coord_reply(USER_LIST, LIST);
    items = (ngx_coord_session_item_t *) op->blob;

    n = ngx_coord_reply(USER_LIST, COUNT)->integer;

    if (n < 0
        || list->integer % 2
        || list->integer > 2 * NGX_COORD_SESSION_LIST)
    {
        return NGX_ERROR;
    }

    for (i = 0; i < (ngx_uint_t) list->integer / 2; i++) {
        if (ngx_coord_session_item(&items[i],
                                   ngx_coord_resp_element(list, 2 * i),
                                   ngx_coord_resp_element(list, 2 * i + 1),
                                   now)
            != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    op->u.session.count = (ngx_uint_t) ngx_max(n, list->integer / 2);

    return NGX_OK;
}


static ngx_int_t
ngx_coord_user_list_run(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_uint_t                 i;
    ngx_coord_data_t          *data;
    ngx_coord_slot_t          *slot;
    ngx_coord_slots_t          slots;
    ngx_coord_entry_t         *entry;
    ngx_coord_session_t       *session;
    ngx_coord_session_item_t  *items;

    session = &op->u.session;
    items = (ngx_coord_session_item_t *) op->blob;

    session->count = 0;

    entry = ngx_coord_user_slots(table, op, &slots, now);

    if (entry == NULL) {
        return NGX_OK;
    }

    for (data = ngx_coord_table_first(table, entry);
         data;
         data = ngx_coord_table_next(table, data))
    {
        slot = (ngx_coord_slot_t *) data->data;

        for (i = 0; i < NGX_COORD_SLOTS; i++, slot++) {
            if (slot->at) {
                ngx_coord_user_item(items, session->count++, slot, now);
            }
        }
    }

    return NGX_OK;
}


static void
ngx_coord_user_revoke_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_arg_user(cmd, NGX_COORD_USER_REVOKE_I, op, "}");
}


static ngx_int_t
ngx_coord_user_revoke_parse(ngx_coord_op_t *op, ngx_coord_resp_value_t **values,
    ngx_coord_nsec_t now)
{
    int64_t  n;

    n = ngx_coord_reply(USER_REVOKE, COUNT)->integer;

    if (n < 0) {
        return NGX_ERROR;
    }

    op->u.session.count = (ngx_uint_t) n;

    return NGX_OK;
}


static ngx_int_t
ngx_coord_user_revoke_run(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_slots_t   slots;
    ngx_coord_entry_t  *entry;

    entry = ngx_coord_user_slots(table, op, &slots, now);

    op->u.session.count = slots.used;

    if (entry) {
        ngx_coord_table_remove(table, entry);
    }

    return NGX_OK;
}


static ngx_int_t
ngx_coord_session_item(ngx_coord_session_item_t *item,
    ngx_coord_resp_value_t *name, ngx_coord_resp_value_t *score,
    ngx_coord_nsec_t now)
{
    ngx_str_t         s;
    ngx_coord_nsec_t  seen;

    if (ngx_coord_resp_string(name, &s) != NGX_OK
        || s.len != 2 * NGX_COORD_ID_LEN
        || ngx_coord_unhex(item->id, s.data, NGX_COORD_ID_LEN) != NGX_OK
        || ngx_coord_time_parse(score, &seen) != NGX_OK)
    {
        return NGX_ERROR;
    }

    item->idle = ngx_max(now - seen, 0);

    return NGX_OK;
}


/* keeps the newest ones in order */

static void
ngx_coord_user_item(ngx_coord_session_item_t *items, ngx_uint_t n,
    ngx_coord_slot_t *slot, ngx_coord_nsec_t now)
{
    ngx_uint_t        i;
    ngx_coord_nsec_t  idle;

    idle = ngx_max(now - slot->at, 0);

    i = ngx_min(n, NGX_COORD_SESSION_LIST);

    if (i == NGX_COORD_SESSION_LIST && items[i - 1].idle <= idle) {
        return;
    }

    i -= (i == NGX_COORD_SESSION_LIST);

    for ( /* void */ ; i > 0 && items[i - 1].idle > idle; i--) {
        items[i] = items[i - 1];
    }

    ngx_memcpy(items[i].id, slot->id, NGX_COORD_ID_LEN);
    items[i].idle = idle;
}
