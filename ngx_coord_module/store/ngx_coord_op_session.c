
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Sessions: in Redis a hash, and a key of its own for the end of one; times in
 * microseconds.  In memory: ngx_coord_op_keep.c.
 */


#include "ngx_coord_op_arg.h"
#include "ngx_coord_op_session.h"
#include "ngx_coord_record.h"


static void ngx_coord_session_get_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_session_get_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static void ngx_coord_session_peek_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_session_peek_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_session_record(ngx_coord_op_t *op,
    ngx_coord_resp_value_t *record, ngx_coord_resp_value_t *ended,
    ngx_coord_resp_value_t *ms, ngx_coord_nsec_t now);
static ngx_uint_t ngx_coord_session_ended(ngx_coord_session_t *session,
    ngx_coord_resp_value_t *mark, ngx_coord_nsec_t now);
static void ngx_coord_session_value(ngx_coord_op_t *op,
    ngx_coord_resp_value_t *value);
static void ngx_coord_session_user(ngx_coord_session_t *session,
    ngx_coord_resp_value_t *value);
static ngx_int_t ngx_coord_session_get_run(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static void ngx_coord_session_bind_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_session_bind_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_session_bind_run(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static void ngx_coord_session_set_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_session_set_run(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static void ngx_coord_session_touch_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_session_touch_run(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static void ngx_coord_session_revoke_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_session_revoke_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_session_revoke_run(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);


const ngx_coord_op_type_t  ngx_coord_op_session_get = {
    ngx_string("session_get"),
    NGX_COORD_OP_JOINS,
    NGX_COORD_KIND_SESSION,
    NGX_COORD_SCRIPT_SESSION_GET,
    ngx_coord_session_get_build,
    ngx_coord_session_get_parse,
    NULL,
    ngx_coord_session_get_run,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL
};


const ngx_coord_op_type_t  ngx_coord_op_session_peek = {
    ngx_string("session_peek"),
    NGX_COORD_OP_JOINS,
    NGX_COORD_KIND_SESSION,
    NGX_COORD_SCRIPT_SESSION_PEEK,
    ngx_coord_session_peek_build,
    ngx_coord_session_peek_parse,
    NULL,
    ngx_coord_session_get_run,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL
};


const ngx_coord_op_type_t  ngx_coord_op_session_bind = {
    ngx_string("session_bind"),
    NGX_COORD_OP_JOINS,
    NGX_COORD_KIND_SESSION,
    NGX_COORD_SCRIPT_SESSION_BIND,
    ngx_coord_session_bind_build,
    ngx_coord_session_bind_parse,
    NULL,
    ngx_coord_session_bind_run,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL
};


const ngx_coord_op_type_t  ngx_coord_op_session_set = {
    ngx_string("session_set"),
    NGX_COORD_OP_JOINS,
    NGX_COORD_KIND_SESSION,
    NGX_COORD_SCRIPT_SESSION_SET,
    ngx_coord_session_set_build,
    ngx_coord_give_parse,
    NULL,
    ngx_coord_session_set_run,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL
};


const ngx_coord_op_type_t  ngx_coord_op_session_touch = {
    ngx_string("session_touch"),
    NGX_COORD_OP_JOINS,
    NGX_COORD_KIND_SESSION,
    NGX_COORD_SCRIPT_SESSION_TOUCH,
    ngx_coord_session_touch_build,
    ngx_coord_give_parse,
    NULL,
    ngx_coord_session_touch_run,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL
};


const ngx_coord_op_type_t  ngx_coord_op_session_revoke = {
    ngx_string("session_revoke"),
    NGX_COORD_OP_JOINS|NGX_COORD_OP_TWICE,
    NGX_COORD_KIND_SESSION,
    NGX_COORD_SCRIPT_SESSION_REVOKE,
    ngx_coord_session_revoke_build,
    ngx_coord_session_revoke_parse,
    NULL,
    ngx_coord_session_revoke_run,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL
};


int64_t
ngx_coord_session_ttl(ngx_coord_op_t *op)
{
    ngx_msec_t  ttl;

    ttl = ngx_coord_ceil_msec(ngx_min(op->u.session.ttl,
                                      NGX_COORD_SESSION_LIFE));

    return ngx_max((int64_t) ttl, 1);
}


static void
ngx_coord_session_get_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_arg_key(cmd, NGX_COORD_SESSION_GET_K, op, "}");
    ngx_coord_arg_key(cmd, NGX_COORD_SESSION_GET_X, op, "}:x");
}


static ngx_int_t
ngx_coord_session_get_parse(ngx_coord_op_t *op, ngx_coord_resp_value_t **values,
    ngx_coord_nsec_t now)
{
    return ngx_coord_session_record(op, ngx_coord_reply(SESSION_GET, RECORD),
                                    ngx_coord_reply(SESSION_GET, ENDED),
                                    ngx_coord_reply(SESSION_GET, LEFT), now);
}


static void
ngx_coord_session_peek_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_arg_key(cmd, NGX_COORD_SESSION_PEEK_K, op, "}");
    ngx_coord_arg_key(cmd, NGX_COORD_SESSION_PEEK_X, op, "}:x");
}


static ngx_int_t
ngx_coord_session_peek_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now)
{
    return ngx_coord_session_record(op, ngx_coord_reply(SESSION_PEEK, RECORD),
                                    ngx_coord_reply(SESSION_PEEK, ENDED),
                                    NULL, now);
}


/*
 * The replies of HMGET c v u, GET of the mark of the end, and PTTL, or NULL.
 * Anybody may have written there: what cannot have been written by this module
 * is absent, and told.
 */

static ngx_int_t
ngx_coord_session_record(ngx_coord_op_t *op, ngx_coord_resp_value_t *record,
    ngx_coord_resp_value_t *ended, ngx_coord_resp_value_t *ms,
    ngx_coord_nsec_t now)
{
    int64_t               created, left;
    ngx_int_t             rc;
    ngx_coord_session_t  *session;

    session = &op->u.session;

    session->found = 0;
    session->bound = 0;
    session->revoked = 0;
    session->moved = 0;
    session->damaged = 0;
    session->unsent = 0;
    session->user_len = 0;
    session->value_len = 0;

    left = 0;

    if (record->type != NGX_COORD_RESP_ARRAY
        || record->integer != 3
        || (ms != NULL && ngx_coord_resp_integer(ms, &left) != NGX_OK))
    {
        return NGX_ERROR;
    }

    if (ngx_coord_session_ended(session, ended, now)) {
        return NGX_OK;
    }

    rc = ngx_coord_resp_integer(ngx_coord_resp_element(record, 0), &created);

    if (rc == NGX_DECLINED) {
        return NGX_OK;
    }

    if (rc != NGX_OK
        || created < 0
        || created > INT64_MAX / NGX_COORD_NSEC_PER_USEC)
    {
        session->damaged = 1;
        return NGX_OK;
    }

    ngx_coord_session_value(op, ngx_coord_resp_element(record, 1));
    ngx_coord_session_user(session, ngx_coord_resp_element(record, 2));

    left = ngx_max(left, 0);

    session->age = ngx_max(now - created * NGX_COORD_NSEC_PER_USEC, 0);
    session->left = ngx_min(left, NGX_COORD_SESSION_LIFE
                                  / NGX_COORD_NSEC_PER_MSEC)
                    * NGX_COORD_NSEC_PER_MSEC;
    session->found = 1;

    return NGX_OK;
}


static ngx_uint_t
ngx_coord_session_ended(ngx_coord_session_t *session,
    ngx_coord_resp_value_t *mark, ngx_coord_nsec_t now)
{
    int64_t    until;
    ngx_int_t  rc;

    rc = ngx_coord_resp_integer(mark, &until);

    if (rc == NGX_DECLINED) {
        return 0;
    }

    session->found = 1;
    session->revoked = 1;
    session->age = 0;
    session->left = session->ttl;

    if (rc == NGX_OK && until < 0 && until > INT64_MIN) {
        session->moved = 1;
        until = -until;
    }

    if (rc != NGX_OK || until < 0
        || until > INT64_MAX / NGX_COORD_NSEC_PER_USEC)
    {
        session->damaged = 1;

    } else {
        session->left = ngx_max(until * NGX_COORD_NSEC_PER_USEC - now, 0);
    }

    return 1;
}


static void
ngx_coord_session_value(ngx_coord_op_t *op, ngx_coord_resp_value_t *value)
{
    ngx_int_t             rc;
    ngx_str_t             text;
    ngx_coord_session_t  *session;

    session = &op->u.session;

    rc = ngx_coord_resp_string(value, &text);

    if (rc == NGX_DECLINED) {
        return;
    }

    if (rc != NGX_OK || !ngx_coord_session_value_good(&text)) {
        session->damaged = 1;
        return;
    }

    ngx_memcpy(op->blob, text.data, text.len);

    session->value_len = text.len;
    session->bound = 1;
}


ngx_uint_t
ngx_coord_session_value_good(ngx_str_t *value)
{
    return value->len <= NGX_COORD_SESSION_VALUE_LEN
           && ngx_coord_record_value(value);
}


static void
ngx_coord_session_user(ngx_coord_session_t *session,
    ngx_coord_resp_value_t *value)
{
    ngx_int_t  rc;
    ngx_str_t  user;

    session->user_len = 0;

    rc = ngx_coord_resp_string(value, &user);

    if (rc == NGX_DECLINED) {
        return;
    }

    if (rc != NGX_OK
        || user.len != NGX_COORD_DIGEST_HEX_LEN
        || user.data[0] != '~'
        || !ngx_coord_is_hex(user.data + 1, user.len - 1))
    {
        session->damaged = 1;
        return;
    }

    ngx_memcpy(session->user, user.data, user.len);
    session->user_len = user.len;
}


static ngx_int_t
ngx_coord_session_get_run(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    (void) ngx_coord_session_load(table, op, now);

    return NGX_OK;
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
    ngx_coord_arg_key(cmd, NGX_COORD_SESSION_BIND_X, op, "}:x");
    ngx_coord_arg_num(&a[NGX_COORD_SESSION_BIND_NOW],
                      (now - session->age) / NGX_COORD_NSEC_PER_USEC);
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


static ngx_int_t
ngx_coord_session_bind_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now)
{
    int64_t  created;

    if (ngx_coord_resp_integer(ngx_coord_reply(SESSION_BIND, CREATED), &created)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (ngx_coord_session_record(op, ngx_coord_reply(SESSION_BIND, RECORD),
                                 ngx_coord_reply(SESSION_BIND, ENDED),
                                 ngx_coord_reply(SESSION_BIND, LEFT), now)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    op->u.session.created = (created != 0 && !op->u.session.revoked);

    return NGX_OK;
}


static ngx_int_t
ngx_coord_session_bind_run(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    u_char                value[NGX_COORD_SESSION_VALUE_LEN];
    ngx_uint_t            changed;
    ngx_coord_entry_t    *entry;
    ngx_coord_session_t  *session, asked;

    session = &op->u.session;
    asked = *session;

    if (asked.bound) {
        ngx_memcpy(value, op->blob, asked.value_len);
    }

    entry = ngx_coord_session_load(table, op, now);

    changed = 0;

    if (entry == NULL) {
        session->created = 1;
        session->found = 1;
        session->age = asked.age;
        session->left = asked.ttl;
        changed = 1;

    } else if (session->revoked) {
        return NGX_OK;

    } else {
        entry->expires = now + asked.ttl;
        session->left = asked.ttl;
    }

    if (asked.unsent && !session->unsent) {
        session->unsent = 1;
        changed = 1;
    }

    if (asked.bound && !session->bound) {
        session->bound = 1;
        session->value_len = asked.value_len;
        ngx_memcpy(op->blob, value, asked.value_len);
        changed = 1;
    }

    if (asked.user_len && session->user_len == 0) {
        session->user_len = asked.user_len;
        ngx_memcpy(session->user, asked.user, asked.user_len);
        changed = 1;
    }

    return changed ? ngx_coord_session_save(table, op, entry, now) : NGX_OK;
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


static ngx_int_t
ngx_coord_session_set_run(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    u_char                value[NGX_COORD_SESSION_VALUE_LEN];
    ngx_coord_entry_t    *entry;
    ngx_coord_session_t  *session, asked;

    session = &op->u.session;
    asked = *session;

    if (asked.bound) {
        ngx_memcpy(value, op->blob, asked.value_len);
    }

    entry = ngx_coord_session_load(table, op, now);

    if (entry == NULL) {
        session->age = 0;

    } else if (session->revoked) {
        return NGX_OK;

    } else {
        entry->expires = now + asked.ttl;
    }

    session->left = asked.ttl;

    if (asked.bound) {
        session->bound = 1;
        session->value_len = asked.value_len;
        ngx_memcpy(op->blob, value, asked.value_len);

    } else {
        session->user_len = asked.user_len;
        ngx_memcpy(session->user, asked.user, asked.user_len);
    }

    return ngx_coord_session_save(table, op, entry, now);
}


static void
ngx_coord_session_touch_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_arg_key(cmd, NGX_COORD_SESSION_TOUCH_K, op, "}");
    ngx_coord_arg_num(&cmd->args[NGX_COORD_SESSION_TOUCH_TTL],
                      ngx_coord_session_ttl(op));
}


static ngx_int_t
ngx_coord_session_touch_run(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_entry_t  *entry;

    entry = ngx_coord_session_find(table, op, now);

    if (entry && !ngx_coord_session_is_ended(table, entry)) {
        entry->expires = now + op->u.session.ttl;
    }

    return NGX_OK;
}


static void
ngx_coord_session_revoke_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    int64_t  ttl, until;

    ttl = ngx_coord_session_ttl(op);
    until = now / NGX_COORD_NSEC_PER_USEC + ttl * 1000;

    ngx_coord_arg_key(cmd, NGX_COORD_SESSION_REVOKE_K, op, "}");
    ngx_coord_arg_key(cmd, NGX_COORD_SESSION_REVOKE_X, op, "}:x");
    ngx_coord_arg_num(&cmd->args[NGX_COORD_SESSION_REVOKE_UNTIL],
                      op->u.session.moved ? -until : until);
    ngx_coord_arg_num(&cmd->args[NGX_COORD_SESSION_REVOKE_TTL], ttl);
    ngx_coord_arg_wake(cmd, NGX_COORD_SESSION_REVOKE_CHANNEL, op);
}


static ngx_int_t
ngx_coord_session_revoke_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now)
{
    int64_t                  found;
    ngx_coord_session_t     *session;
    ngx_coord_resp_value_t  *before;

    session = &op->u.session;
    before = ngx_coord_reply(SESSION_REVOKE, BEFORE);

    if (ngx_coord_resp_integer(ngx_coord_reply(SESSION_REVOKE, FOUND), &found)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    session->found = (found != 0 && before->type == NGX_COORD_RESP_NIL);

    if (session->found) {
        ngx_coord_session_user(session, ngx_coord_reply(SESSION_REVOKE, USER));
    }

    return NGX_OK;
}


static ngx_int_t
ngx_coord_session_revoke_run(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    size_t                user_len;
    ngx_int_t             rc;
    ngx_uint_t            found, moved;
    ngx_coord_nsec_t      ttl;
    ngx_coord_entry_t    *entry;
    ngx_coord_session_t  *session;

    session = &op->u.session;
    ttl = session->ttl;
    moved = session->moved;

    entry = ngx_coord_session_load(table, op, now);

    found = session->found && !session->revoked;
    user_len = session->user_len;

    if (entry == NULL) {
        session->age = 0;

    } else {
        entry->expires = now + ttl;
    }

    session->left = ttl;
    session->bound = 0;
    session->value_len = 0;
    session->user_len = 0;
    session->revoked = 1;
    session->moved = moved;

    rc = ngx_coord_session_save(table, op, entry, now);

    session->found = found;
    session->user_len = user_len;

    return rc;
}
