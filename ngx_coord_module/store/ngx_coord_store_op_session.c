
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Sessions and the sessions of a user in Redis.  Times are in microseconds on
 * the clock of the server, lives in milliseconds.
 */


#include "ngx_coord_store_op.h"
#include "ngx_coord_key.h"


/* a life of more than ten years would overflow on the way */
#define NGX_COORD_SESSION_LIFE  (315360000 * NGX_COORD_NSEC_PER_SEC)


static void ngx_coord_arg_user(ngx_coord_command_t *cmd, ngx_uint_t n,
    ngx_coord_op_t *op);
static int64_t ngx_coord_session_ttl(ngx_coord_op_t *op);
static int64_t ngx_coord_user_ttl(ngx_coord_op_t *op);

static void ngx_coord_session_get_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static void ngx_coord_session_bind_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static void ngx_coord_session_set_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static void ngx_coord_session_touch_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static void ngx_coord_session_revoke_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static void ngx_coord_user_check_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static void ngx_coord_user_add_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static void ngx_coord_user_seen_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static void ngx_coord_user_drop_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static void ngx_coord_user_list_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static void ngx_coord_user_revoke_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);

static ngx_int_t ngx_coord_session_get_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_session_bind_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_session_revoke_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_user_check_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_user_drop_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_user_list_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_user_revoke_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);

static ngx_int_t ngx_coord_session_record(ngx_coord_op_t *op,
    ngx_coord_resp_value_t *record, ngx_coord_resp_value_t *pttl,
    ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_session_user(ngx_coord_session_t *session,
    ngx_coord_resp_value_t *value);
static ngx_int_t ngx_coord_session_item(ngx_coord_session_item_t *item,
    ngx_coord_resp_value_t *name, ngx_coord_resp_value_t *score,
    ngx_coord_nsec_t now);


const ngx_coord_store_op_t  ngx_coord_session_ops[] = {

    { NGX_COORD_SCRIPT_SESSION_GET,
      ngx_coord_session_get_build,
      ngx_coord_session_get_parse },

    { NGX_COORD_SCRIPT_SESSION_BIND,
      ngx_coord_session_bind_build,
      ngx_coord_session_bind_parse },

    { NGX_COORD_SCRIPT_SESSION_SET,
      ngx_coord_session_set_build,
      ngx_coord_give_parse },

    { NGX_COORD_SCRIPT_SESSION_TOUCH,
      ngx_coord_session_touch_build,
      ngx_coord_give_parse },

    { NGX_COORD_SCRIPT_SESSION_REVOKE,
      ngx_coord_session_revoke_build,
      ngx_coord_session_revoke_parse },

    { NGX_COORD_SCRIPT_USER_CHECK,
      ngx_coord_user_check_build,
      ngx_coord_user_check_parse },

    { NGX_COORD_SCRIPT_USER_ADD,
      ngx_coord_user_add_build,
      ngx_coord_give_parse },

    { NGX_COORD_SCRIPT_USER_SEEN,
      ngx_coord_user_seen_build,
      ngx_coord_give_parse },

    { NGX_COORD_SCRIPT_USER_DROP,
      ngx_coord_user_drop_build,
      ngx_coord_user_drop_parse },

    { NGX_COORD_SCRIPT_USER_LIST,
      ngx_coord_user_list_build,
      ngx_coord_user_list_parse },

    { NGX_COORD_SCRIPT_USER_REVOKE,
      ngx_coord_user_revoke_build,
      ngx_coord_user_revoke_parse }
};


/* users have keys of their own: "us" in place of the "ss" of the zone */

static void
ngx_coord_arg_user(ngx_coord_command_t *cmd, ngx_uint_t n, ngx_coord_op_t *op)
{
    ngx_coord_arg_key(cmd, n, op, "}");

    cmd->args[n].data[op->zone->store->key_prefix.len] = 'u';
}


static int64_t
ngx_coord_session_ttl(ngx_coord_op_t *op)
{
    ngx_msec_t  ttl;

    ttl = ngx_coord_ceil_msec(ngx_min(op->u.session.ttl,
                                      NGX_COORD_SESSION_LIFE));

    return ngx_max((int64_t) ttl, 1);
}


/* an index outlives its sessions, so that none of them seems to be ended */

static int64_t
ngx_coord_user_ttl(ngx_coord_op_t *op)
{
    return ngx_coord_session_ttl(op) + NGX_COORD_STORE_OP_SLACK;
}


static void
ngx_coord_session_get_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_arg_key(cmd, NGX_COORD_SESSION_GET_K, op, "}");
}


static void
ngx_coord_session_bind_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_arg_t      *a;
    ngx_coord_session_t  *session;

    a = cmd->args;
    session = &op->u.session;

    ngx_coord_arg_key(cmd, NGX_COORD_SESSION_BIND_K, op, "}");
    ngx_coord_arg_num(&a[NGX_COORD_SESSION_BIND_NOW],
                      now / NGX_COORD_NSEC_PER_USEC);
    ngx_coord_arg_num(&a[NGX_COORD_SESSION_BIND_TTL],
                      ngx_coord_session_ttl(op));

    ngx_coord_arg_str(&a[NGX_COORD_SESSION_BIND_FIELD],
                      (u_char *) (session->bound ? "v" : "c"), 1);
    ngx_coord_arg_str(&a[NGX_COORD_SESSION_BIND_OWNER],
                      (u_char *) (session->user_len ? "u" : "c"), 1);

    a[NGX_COORD_SESSION_BIND_VALUE] = a[NGX_COORD_SESSION_BIND_NOW];
    a[NGX_COORD_SESSION_BIND_USER] = a[NGX_COORD_SESSION_BIND_NOW];

    if (session->bound) {
        ngx_coord_arg_str(&a[NGX_COORD_SESSION_BIND_VALUE], op->blob,
                          session->value_len);
    }

    if (session->user_len) {
        ngx_coord_arg_str(&a[NGX_COORD_SESSION_BIND_USER], session->user,
                          session->user_len);
    }
}


static void
ngx_coord_session_set_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_arg_t      *a;
    ngx_coord_session_t  *session;

    a = cmd->args;
    session = &op->u.session;

    ngx_coord_arg_key(cmd, NGX_COORD_SESSION_SET_K, op, "}");
    ngx_coord_arg_num(&a[NGX_COORD_SESSION_SET_NOW],
                      now / NGX_COORD_NSEC_PER_USEC);
    ngx_coord_arg_num(&a[NGX_COORD_SESSION_SET_TTL],
                      ngx_coord_session_ttl(op));

    ngx_coord_arg_str(&a[NGX_COORD_SESSION_SET_FIELD],
                      (u_char *) (session->bound ? "v" : "u"), 1);

    if (session->bound) {
        ngx_coord_arg_str(&a[NGX_COORD_SESSION_SET_VALUE], op->blob,
                          session->value_len);

    } else {
        ngx_coord_arg_str(&a[NGX_COORD_SESSION_SET_VALUE], session->user,
                          session->user_len);
    }
}


static void
ngx_coord_session_touch_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_arg_key(cmd, NGX_COORD_SESSION_TOUCH_K, op, "}");
    ngx_coord_arg_num(&cmd->args[NGX_COORD_SESSION_TOUCH_TTL],
                      ngx_coord_session_ttl(op));
}


static void
ngx_coord_session_revoke_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_arg_key(cmd, NGX_COORD_SESSION_REVOKE_K, op, "}");
    ngx_coord_arg_num(&cmd->args[NGX_COORD_SESSION_REVOKE_NOW],
                      now / NGX_COORD_NSEC_PER_USEC);
    ngx_coord_arg_num(&cmd->args[NGX_COORD_SESSION_REVOKE_TTL],
                      ngx_coord_session_ttl(op));
}


static void
ngx_coord_user_check_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_arg_user(cmd, NGX_COORD_USER_CHECK_I, op);
    ngx_coord_arg_id(cmd, NGX_COORD_USER_CHECK_ID, op);
}


static void
ngx_coord_user_add_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    int64_t           ttl, max;
    ngx_coord_arg_t  *a;

    a = cmd->args;
    ttl = ngx_coord_user_ttl(op);
    max = op->u.session.max ? (int64_t) op->u.session.max : 0x7fffffff;

    ngx_coord_arg_user(cmd, NGX_COORD_USER_ADD_I, op);
    ngx_coord_arg_id(cmd, NGX_COORD_USER_ADD_ID, op);
    ngx_coord_arg_num(&a[NGX_COORD_USER_ADD_NOW],
                      now / NGX_COORD_NSEC_PER_USEC);
    ngx_coord_arg_num(&a[NGX_COORD_USER_ADD_OLD],
                      now / NGX_COORD_NSEC_PER_USEC - ttl * 1000);
    ngx_coord_arg_num(&a[NGX_COORD_USER_ADD_BEYOND], -(max + 1));
    ngx_coord_arg_num(&a[NGX_COORD_USER_ADD_TTL], ttl);
}


static void
ngx_coord_user_seen_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_arg_user(cmd, NGX_COORD_USER_SEEN_I, op);
    ngx_coord_arg_id(cmd, NGX_COORD_USER_SEEN_ID, op);
    ngx_coord_arg_num(&cmd->args[NGX_COORD_USER_SEEN_NOW],
                      now / NGX_COORD_NSEC_PER_USEC);
    ngx_coord_arg_num(&cmd->args[NGX_COORD_USER_SEEN_TTL],
                      ngx_coord_user_ttl(op));
}


static void
ngx_coord_user_drop_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_arg_user(cmd, NGX_COORD_USER_DROP_I, op);
    ngx_coord_arg_id(cmd, NGX_COORD_USER_DROP_ID, op);
}


static void
ngx_coord_user_list_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_arg_user(cmd, NGX_COORD_USER_LIST_I, op);
    ngx_coord_arg_num(&cmd->args[NGX_COORD_USER_LIST_OLD],
                      now / NGX_COORD_NSEC_PER_USEC
                      - ngx_coord_user_ttl(op) * 1000);
    ngx_coord_arg_num(&cmd->args[NGX_COORD_USER_LIST_LAST],
                      NGX_COORD_SESSION_LIST - 1);
}


static void
ngx_coord_user_revoke_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_arg_user(cmd, NGX_COORD_USER_REVOKE_I, op);
}


/* the reply of HMGET c v u x, and that of PTTL */

static ngx_int_t
ngx_coord_session_record(ngx_coord_op_t *op, ngx_coord_resp_value_t *record,
    ngx_coord_resp_value_t *pttl, ngx_coord_nsec_t now)
{
    int64_t               created, left;
    ngx_int_t             rc;
    ngx_str_t             value;
    ngx_coord_session_t  *session;

    session = &op->u.session;

    session->found = 0;
    session->bound = 0;
    session->revoked = 0;
    session->value_len = 0;

    if (record->type != NGX_COORD_RESP_ARRAY || record->integer != 4) {
        return NGX_ERROR;
    }

    rc = ngx_coord_resp_integer(ngx_coord_resp_element(record, 0), &created);

    if (rc != NGX_OK) {
        return (rc == NGX_DECLINED) ? NGX_OK : NGX_ERROR;
    }

    rc = ngx_coord_resp_string(ngx_coord_resp_element(record, 1), &value);

    if (rc == NGX_OK) {

        if (value.len > NGX_COORD_SESSION_VALUE_LEN) {
            return NGX_ERROR;
        }

        ngx_memcpy(op->blob, value.data, value.len);

        session->value_len = value.len;
        session->bound = 1;
    }

    if (rc == NGX_ERROR
        || ngx_coord_session_user(session, ngx_coord_resp_element(record, 2))
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    session->revoked = ngx_coord_resp_element(record, 3)->type
                       != NGX_COORD_RESP_NIL;

    if (created < 0
        || created > INT64_MAX / NGX_COORD_NSEC_PER_USEC
        || ngx_coord_resp_integer(pttl, &left) != NGX_OK)
    {
        return NGX_ERROR;
    }

    left = ngx_max(left, 0);

    session->age = ngx_max(now - created * NGX_COORD_NSEC_PER_USEC, 0);
    session->left = ngx_min(left, NGX_COORD_SESSION_LIFE
                                  / NGX_COORD_NSEC_PER_MSEC)
                    * NGX_COORD_NSEC_PER_MSEC;
    session->found = 1;

    return NGX_OK;
}


static ngx_int_t
ngx_coord_session_user(ngx_coord_session_t *session,
    ngx_coord_resp_value_t *value)
{
    ngx_int_t  rc;
    ngx_str_t  user;

    session->user_len = 0;

    rc = ngx_coord_resp_string(value, &user);

    if (rc != NGX_OK) {
        return (rc == NGX_DECLINED) ? NGX_OK : NGX_ERROR;
    }

    if (user.len > NGX_COORD_DIGEST_HEX_LEN) {
        return NGX_ERROR;
    }

    ngx_memcpy(session->user, user.data, user.len);
    session->user_len = user.len;

    return NGX_OK;
}


static ngx_int_t
ngx_coord_session_get_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now)
{
    return ngx_coord_session_record(op, values[0], values[1], now);
}


static ngx_int_t
ngx_coord_session_bind_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now)
{
    int64_t  created;

    if (ngx_coord_resp_integer(values[0], &created) != NGX_OK) {
        return NGX_ERROR;
    }

    op->u.session.created = (created != 0);

    return ngx_coord_session_record(op, values[4], values[5], now);
}


static ngx_int_t
ngx_coord_session_revoke_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now)
{
    int64_t  created;

    if (ngx_coord_session_user(&op->u.session, values[0]) != NGX_OK
        || ngx_coord_resp_integer(values[1], &created) != NGX_OK)
    {
        return NGX_ERROR;
    }

    op->u.session.found = (created == 0);

    return NGX_OK;
}


static ngx_int_t
ngx_coord_user_check_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now)
{
    double     score;
    ngx_int_t  rc;

    rc = ngx_coord_resp_double(values[0], &score);

    op->u.session.found = (rc == NGX_OK);

    return (rc == NGX_ERROR) ? NGX_ERROR : NGX_OK;
}


static ngx_int_t
ngx_coord_user_drop_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now)
{
    int64_t  n;

    if (ngx_coord_resp_integer(values[0], &n) != NGX_OK) {
        return NGX_ERROR;
    }

    op->u.session.found = (n != 0);

    return NGX_OK;
}


static ngx_int_t
ngx_coord_user_list_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now)
{
    int64_t                    n;
    ngx_uint_t                 i;
    ngx_coord_resp_value_t    *list;
    ngx_coord_session_item_t  *items;

    list = values[2];
    items = (ngx_coord_session_item_t *) op->blob;

    if (ngx_coord_resp_integer(values[1], &n) != NGX_OK
        || n < 0
        || list->type != NGX_COORD_RESP_ARRAY
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
ngx_coord_session_item(ngx_coord_session_item_t *item,
    ngx_coord_resp_value_t *name, ngx_coord_resp_value_t *score,
    ngx_coord_nsec_t now)
{
    double     seen;
    ngx_str_t  s;

    if (ngx_coord_resp_string(name, &s) != NGX_OK
        || s.len != 2 * NGX_COORD_ID_LEN
        || ngx_coord_unhex(item->id, s.data, NGX_COORD_ID_LEN) != NGX_OK
        || ngx_coord_resp_double(score, &seen) != NGX_OK
        || !(seen >= 0 && seen < 9e15))
    {
        return NGX_ERROR;
    }

    item->idle = ngx_max(now - (int64_t) seen * NGX_COORD_NSEC_PER_USEC, 0);

    return NGX_OK;
}


static ngx_int_t
ngx_coord_user_revoke_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now)
{
    int64_t  n;

    if (ngx_coord_resp_integer(values[0], &n) != NGX_OK || n < 0) {
        return NGX_ERROR;
    }

    op->u.session.count = (ngx_uint_t) n;

    return NGX_OK;
}
