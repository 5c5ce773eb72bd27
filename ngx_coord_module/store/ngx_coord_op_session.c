
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Sessions: in Redis a hash, times in microseconds; in memory payload[0]:
 * created; blob: flags, length of user, user, value.
 */


#include "ngx_coord_op_arg.h"
#include "ngx_coord_op_session.h"


#define NGX_COORD_SESSION_BOUND    0x01
#define NGX_COORD_SESSION_REVOKED  0x02


static void ngx_coord_session_get_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_session_get_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_session_record(ngx_coord_op_t *op,
    ngx_coord_resp_value_t *record, ngx_coord_resp_value_t *pttl,
    ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_session_user(ngx_coord_session_t *session,
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
static ngx_coord_entry_t *ngx_coord_session_load(ngx_coord_table_t *table,
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
    NULL
};


const ngx_coord_op_type_t  ngx_coord_op_session_revoke = {
    ngx_string("session_revoke"),
    NGX_COORD_OP_JOINS,
    NGX_COORD_KIND_SESSION,
    NGX_COORD_SCRIPT_SESSION_REVOKE,
    ngx_coord_session_revoke_build,
    ngx_coord_session_revoke_parse,
    NULL,
    ngx_coord_session_revoke_run,
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
}


static ngx_int_t
ngx_coord_session_get_parse(ngx_coord_op_t *op, ngx_coord_resp_value_t **values,
    ngx_coord_nsec_t now)
{
    return ngx_coord_session_record(op, values[0], values[1], now);
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
        session->age = 0;
        session->left = asked.ttl;
        changed = 1;

    } else {
        entry->expires = now + asked.ttl;
        session->left = asked.ttl;
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

    if (entry) {
        entry->expires = now + op->u.session.ttl;
    }

    return NGX_OK;
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
ngx_coord_session_revoke_run(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_int_t             rc;
    ngx_coord_nsec_t      ttl;
    ngx_coord_entry_t    *entry;
    ngx_coord_session_t  *session;

    session = &op->u.session;
    ttl = session->ttl;

    entry = ngx_coord_session_load(table, op, now);

    if (entry == NULL) {
        session->age = 0;

    } else {
        entry->expires = now + ttl;
    }

    session->left = ttl;
    session->bound = 0;
    session->value_len = 0;
    session->revoked = 1;

    rc = ngx_coord_session_save(table, op, entry, now);

    session->found = (entry != NULL);

    return rc;
}


ngx_coord_entry_t *
ngx_coord_session_find(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    return ngx_coord_table_find(table, NGX_COORD_KIND_SESSION, op->key,
                                op->key_len, now);
}


/* finds a session and reads it into the operation */

static ngx_coord_entry_t *
ngx_coord_session_load(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    u_char                head[NGX_COORD_SESSION_HEAD];
    ngx_coord_entry_t    *entry;
    ngx_coord_session_t  *session;

    session = &op->u.session;

    session->found = 0;
    session->bound = 0;
    session->revoked = 0;
    session->user_len = 0;
    session->value_len = 0;

    entry = ngx_coord_session_find(table, op, now);

    if (entry == NULL
        || ngx_coord_table_read(table, entry, head, 0, sizeof(head))
           != sizeof(head)
        || head[1] > NGX_COORD_DIGEST_HEX_LEN)
    {
        return NULL;
    }

    session->found = 1;
    session->bound = (head[0] & NGX_COORD_SESSION_BOUND) != 0;
    session->revoked = (head[0] & NGX_COORD_SESSION_REVOKED) != 0;

    session->user_len = ngx_coord_table_read(table, entry, session->user,
                                             sizeof(head), head[1]);

    if (op->blob) {
        session->value_len = ngx_coord_table_read(table, entry, op->blob,
                                                  sizeof(head) + head[1],
                                                  NGX_COORD_SESSION_VALUE_LEN);
    }

    session->age = ngx_max(now - (ngx_coord_nsec_t) entry->payload[0], 0);
    session->left = entry->expires - now;

    return entry;
}


size_t
ngx_coord_session_pack(ngx_coord_op_t *op, u_char *buf)
{
    u_char               *p;
    ngx_coord_session_t  *session;

    session = &op->u.session;

    p = buf;

    *p++ = (u_char) ((session->bound ? NGX_COORD_SESSION_BOUND : 0)
                     | (session->revoked ? NGX_COORD_SESSION_REVOKED : 0));
    *p++ = (u_char) session->user_len;

    p = ngx_cpymem(p, session->user, session->user_len);

    if (session->bound) {
        p = ngx_cpymem(p, op->blob, session->value_len);
    }

    return p - buf;
}


/* writes what the operation holds to an entry, or to a new one */

ngx_int_t
ngx_coord_session_save(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_entry_t *entry, ngx_coord_nsec_t now)
{
    u_char                buf[NGX_COORD_SESSION_BLOB];
    size_t                len;
    uint64_t              payload[2];
    ngx_coord_session_t  *session;

    session = &op->u.session;

    len = ngx_coord_session_pack(op, buf);

    if (entry == NULL) {
        payload[0] = (uint64_t) (now - session->age);
        payload[1] = 0;

        entry = ngx_coord_table_insert(table, NGX_COORD_KIND_SESSION,
                                       NGX_COORD_ENTRY_EVICT, op->key,
                                       op->key_len, payload,
                                       now + session->left, now);
        if (entry == NULL) {
            return NGX_ERROR;
        }
    }

    return ngx_coord_table_write(table, entry, buf, len, now);
}
