
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Copies in shared memory of what this node saw in Redis.
 */


#include "ngx_coord_op_session.h"


static ngx_int_t ngx_coord_session_keep_run(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);


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
    NULL
};


static ngx_int_t
ngx_coord_session_keep_run(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    u_char                buf[NGX_COORD_SESSION_BLOB];
    u_char                old[NGX_COORD_SESSION_BLOB + 1];
    size_t                len;
    ngx_coord_entry_t    *entry;
    ngx_coord_session_t  *session;

    session = &op->u.session;

    entry = ngx_coord_session_find(table, op, now);

    if (!session->found) {

        if (entry) {
            ngx_coord_table_remove(table, entry);
        }

        return NGX_OK;
    }

    if (entry == NULL) {
        return ngx_coord_session_save(table, op, NULL, now);
    }

    session->left = ngx_max(session->left, entry->expires - now);

    entry->payload[0] = (uint64_t) (now - session->age);
    entry->expires = now + session->left;

    len = ngx_coord_session_pack(op, buf);

    if (ngx_coord_table_read(table, entry, old, 0, sizeof(old)) == len
        && ngx_memcmp(old, buf, len) == 0)
    {
        return NGX_OK;
    }

    return ngx_coord_table_write(table, entry, buf, len, now);
}
