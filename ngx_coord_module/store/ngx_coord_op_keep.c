
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Sessions in shared memory: those of the memory store, and copies of what this
 * node saw in Redis.  payload[0]: created; blob: flags, length of user, user,
 * value.
 */


#include "ngx_coord_op_session.h"


#define NGX_COORD_SESSION_BOUND    0x01
#define NGX_COORD_SESSION_REVOKED  0x02
#define NGX_COORD_SESSION_MOVED    0x04
#define NGX_COORD_SESSION_UNSENT   0x08


static ngx_int_t ngx_coord_session_keep_run(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_uint_t ngx_coord_session_is_unsent(ngx_coord_table_t *table,
    ngx_coord_entry_t *entry);
static ngx_uint_t ngx_coord_session_flag(ngx_coord_table_t *table,
    ngx_coord_entry_t *entry, u_char flag);


const ngx_coord_op_type_t  ngx_coord_op_session_keep = {
    ngx_string("session_keep"),
    0,
    NGX_COORD_KIND_SESSION,
    0,
    NULL,
    NULL,
    NULL,
    ngx_coord_session_keep_run,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL
};


static ngx_int_t
ngx_coord_session_keep_run(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    u_char                buf[NGX_COORD_SESSION_BLOB];
    u_char                old[NGX_COORD_SESSION_BLOB + 1];
    size_t                len;
    ngx_uint_t            ended;
    ngx_coord_entry_t    *entry;
    ngx_coord_session_t  *session;

    session = &op->u.session;

    entry = ngx_coord_session_find(table, op, now);
    ended = entry && ngx_coord_session_is_ended(table, entry);

    if (!session->found) {

        if (ended) {

            /* an end is not undone by a store that has lost it */

            session->found = 1;
            session->revoked = 1;
            session->left = entry->expires - now;

        } else if (entry) {
            session->unsent = ngx_coord_session_is_unsent(table, entry);

            if (!session->unsent) {
                ngx_coord_table_remove(table, entry);
            }
        }

        return NGX_OK;
    }

    if (entry == NULL) {
        return ngx_coord_session_save(table, op, NULL, now);
    }

    if (!ended) {
        session->left = ngx_max(session->left, entry->expires - now);
    }

    entry->payload[0] = (uint64_t) (now - session->age);
    entry->expires = now + session->left;

    len = ngx_coord_session_pack(op, buf);

    if (ngx_coord_table_read(table, entry, old, 0, sizeof(old)) == len
        && ngx_memcmp(old, buf, len) == 0)
    {
        return NGX_OK;
    }

    return ngx_coord_session_save(table, op, entry, now);
}


ngx_coord_entry_t *
ngx_coord_session_find(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    return ngx_coord_table_find(table, NGX_COORD_KIND_SESSION, op->key,
                                op->key_len, now);
}


ngx_uint_t
ngx_coord_session_is_ended(ngx_coord_table_t *table, ngx_coord_entry_t *entry)
{
    return ngx_coord_session_flag(table, entry, NGX_COORD_SESSION_REVOKED);
}


static ngx_uint_t
ngx_coord_session_is_unsent(ngx_coord_table_t *table, ngx_coord_entry_t *entry)
{
    return ngx_coord_session_flag(table, entry, NGX_COORD_SESSION_UNSENT);
}


static ngx_uint_t
ngx_coord_session_flag(ngx_coord_table_t *table, ngx_coord_entry_t *entry,
    u_char flag)
{
    u_char  flags;

    return ngx_coord_table_read(table, entry, &flags, 0, 1) == 1
           && (flags & flag);
}


ngx_coord_entry_t *
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
    session->moved = 0;
    session->unsent = 0;
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
    session->moved = (head[0] & NGX_COORD_SESSION_MOVED) != 0;
    session->unsent = (head[0] & NGX_COORD_SESSION_UNSENT) != 0;

    session->user_len = ngx_coord_table_read(table, entry, session->user,
                                             sizeof(head), head[1]);

    if (op->blob) {
        session->value_len = ngx_coord_table_read(table, entry, op->blob,
                                                  sizeof(head) + head[1],
                                                  NGX_COORD_SESSION_VALUE_LEN);
    }

    session->age = session->revoked
                   ? 0
                   : ngx_max(now - (ngx_coord_nsec_t) entry->payload[0], 0);
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
                     | (session->revoked ? NGX_COORD_SESSION_REVOKED : 0)
                     | (session->moved ? NGX_COORD_SESSION_MOVED : 0)
                     | (session->unsent ? NGX_COORD_SESSION_UNSENT : 0));
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

    /* others do not push out that a session has ended */

    if (session->revoked) {
        entry->flags &= ~NGX_COORD_ENTRY_EVICT;

    } else {
        entry->flags |= NGX_COORD_ENTRY_EVICT;
    }

    return ngx_coord_table_write(table, entry, buf, len, now);
}
