
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Stored responses.  Each has the time at which it was asked for; a purge
 * notes its own time, under the key of a response or of a tag, and what was
 * asked for before that is not used, even if it is stored later.  Both are
 * the server's own, for a worker knows its clock as well as the last sample.
 */


#include "ngx_coord_op_arg.h"


/* what is noted for later than that after a purge is none of this moment */
#define NGX_COORD_CACHE_TOGETHER  (5 * NGX_COORD_NSEC_PER_SEC)


static void ngx_coord_cache_get_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_cache_get_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_cache_get_run(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static void ngx_coord_cache_put_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_cache_done_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_cache_put_run(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static void ngx_coord_cache_mark_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_cache_mark_run(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static void ngx_coord_cache_purge_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_cache_purge_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_cache_purge_run(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static void ngx_coord_cache_purged_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_cache_purged_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_cache_purged_run(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);


const ngx_coord_op_type_t  ngx_coord_op_cache_get = {
    ngx_string("cache_get"),
    NGX_COORD_OP_BULK,
    NGX_COORD_KIND_CACHED,
    NGX_COORD_SCRIPT_CACHE_GET,
    ngx_coord_cache_get_build,
    ngx_coord_cache_get_parse,
    NULL,
    ngx_coord_cache_get_run,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL
};


const ngx_coord_op_type_t  ngx_coord_op_cache_put = {
    ngx_string("cache_put"),
    NGX_COORD_OP_BULK,
    NGX_COORD_KIND_CACHED,
    NGX_COORD_SCRIPT_CACHE_PUT,
    ngx_coord_cache_put_build,
    ngx_coord_cache_done_parse,
    NULL,
    ngx_coord_cache_put_run,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL
};


const ngx_coord_op_type_t  ngx_coord_op_cache_mark = {
    ngx_string("cache_mark"),
    0,
    NGX_COORD_KIND_CACHED,
    NGX_COORD_SCRIPT_CACHE_MARK,
    ngx_coord_cache_mark_build,
    ngx_coord_cache_done_parse,
    NULL,
    ngx_coord_cache_mark_run,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL
};


const ngx_coord_op_type_t  ngx_coord_op_cache_purge = {
    ngx_string("cache_purge"),
    NGX_COORD_OP_TWICE,
    NGX_COORD_KIND_CACHED,
    NGX_COORD_SCRIPT_CACHE_PURGE,
    ngx_coord_cache_purge_build,
    ngx_coord_cache_purge_parse,
    NULL,
    ngx_coord_cache_purge_run,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL
};


const ngx_coord_op_type_t  ngx_coord_op_cache_purged = {
    ngx_string("cache_purged"),
    NGX_COORD_OP_TWICE,
    NGX_COORD_KIND_CACHED,
    NGX_COORD_SCRIPT_CACHE_PURGED,
    ngx_coord_cache_purged_build,
    ngx_coord_cache_purged_parse,
    NULL,
    ngx_coord_cache_purged_run,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL
};


static void
ngx_coord_cache_get_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_arg_key(cmd, NGX_COORD_CACHE_GET_R, op, "}:r");
    ngx_coord_arg_key(cmd, NGX_COORD_CACHE_GET_P, op, "}:p");
}


static ngx_int_t
ngx_coord_cache_get_parse(ngx_coord_op_t *op, ngx_coord_resp_value_t **values,
    ngx_coord_nsec_t now)
{
    ngx_int_t  rc;
    ngx_str_t  blob;

    if (ngx_coord_resp_time(ngx_coord_reply(CACHE_GET, TIME),
                            &op->u.cache.now)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    op->u.cache.purged = 0;

    rc = ngx_coord_time_parse(ngx_coord_reply(CACHE_GET, PURGED),
                              &op->u.cache.purged);

    if (rc == NGX_ERROR) {

        /* not ours: nothing can be said of what it is about */

        op->u.cache.purged = op->u.cache.now;
    }

    rc = ngx_coord_resp_string(ngx_coord_reply(CACHE_GET, RECORD), &blob);

    if (rc != NGX_OK || blob.len == 0) {
        return rc == NGX_ERROR ? NGX_ERROR : NGX_BUSY;
    }

    op->record.data = ngx_alloc(blob.len, ngx_cycle->log);

    if (op->record.data == NULL) {
        return NGX_ERROR;
    }

    op->record.len = blob.len;

    ngx_memcpy(op->record.data, blob.data, blob.len);

    return NGX_OK;
}


static ngx_int_t
ngx_coord_cache_get_run(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_entry_t  *entry;

    op->u.cache.now = now;
    op->u.cache.purged = 0;

    entry = ngx_coord_table_find(table, NGX_COORD_KIND_PURGED, op->key,
                                 op->key_len, now);
    if (entry) {
        op->u.cache.purged = (ngx_coord_nsec_t) entry->payload[0];
    }

    entry = ngx_coord_entry_find(table, op, now);

    if (entry == NULL || entry->length == 0) {
        return NGX_BUSY;
    }

    op->record.data = ngx_alloc(entry->length, ngx_cycle->log);

    if (op->record.data == NULL) {
        return NGX_BUSY;
    }

    op->record.len = ngx_coord_table_read(table, entry, op->record.data, 0,
                                          entry->length);

    return NGX_OK;
}


static void
ngx_coord_cache_put_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_arg_key(cmd, NGX_COORD_CACHE_PUT_R, op, "}:r");

    ngx_coord_arg_str(&cmd->args[NGX_COORD_CACHE_PUT_RECORD], op->record.data,
                      op->record.len);
    ngx_coord_arg_num(&cmd->args[NGX_COORD_CACHE_PUT_TTL],
                      ngx_coord_ttl(op->u.cache.ttl));
}


/* of a write: whatever was there */

static ngx_int_t
ngx_coord_cache_done_parse(ngx_coord_op_t *op, ngx_coord_resp_value_t **values,
    ngx_coord_nsec_t now)
{
    return NGX_OK;
}


static ngx_int_t
ngx_coord_cache_put_run(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_entry_t  *entry;

    if (op->record.len > (size_t) table->ncells * NGX_COORD_CELL_DATA / 2) {

        /* all others would have to go */

        return NGX_BUSY;
    }

    entry = ngx_coord_entry_find(table, op, now);

    if (entry == NULL) {
        entry = ngx_coord_entry_insert(table, op, NGX_COORD_ENTRY_EVICT, NULL,
                                       now + op->u.cache.ttl, now);
    }

    if (entry == NULL) {
        return NGX_ERROR;
    }

    entry->expires = now + op->u.cache.ttl;

    return ngx_coord_table_write(table, entry, op->record.data, op->record.len,
                                 now);
}


static void
ngx_coord_cache_mark_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_arg_key(cmd, NGX_COORD_CACHE_MARK_R, op, "}:r");

    ngx_coord_arg_str(&cmd->args[NGX_COORD_CACHE_MARK_RECORD], op->record.data,
                      op->record.len);
    ngx_coord_arg_num(&cmd->args[NGX_COORD_CACHE_MARK_TTL],
                      ngx_coord_ttl(op->u.cache.ttl));
}


static ngx_int_t
ngx_coord_cache_mark_run(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    if (ngx_coord_entry_find(table, op, now)) {
        return NGX_OK;
    }

    return ngx_coord_cache_put_run(table, op, now);
}


/*
 * The time is told twice: as the worker knows it, and then as the server has
 * answered.  What may have been stored in between stays.
 */

static void
ngx_coord_cache_purge_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    op->u.cache.purged = now;

    ngx_coord_arg_key(cmd, NGX_COORD_CACHE_PURGE_R, op, "}:r");
    ngx_coord_arg_key(cmd, NGX_COORD_CACHE_PURGE_P, op, "}:p");

    ngx_coord_arg_num(&cmd->args[NGX_COORD_CACHE_PURGE_NOW],
                      now / NGX_COORD_NSEC_PER_USEC);
    ngx_coord_arg_num(&cmd->args[NGX_COORD_CACHE_PURGE_TTL],
                      ngx_coord_ttl(op->u.cache.ttl));
}


static ngx_int_t
ngx_coord_cache_purge_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now)
{
    ngx_coord_nsec_t         time;
    ngx_coord_resp_value_t  *found;

    if (ngx_coord_resp_time(ngx_coord_reply(CACHE_PURGE, TIME), &time)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    found = ngx_coord_reply(CACHE_PURGE, FOUND);

    op->u.cache.now = time;

    if (found->type == NGX_COORD_RESP_INTEGER && found->integer > 0) {
        op->u.cache.found = 1;
    }

    if (op->u.cache.apart) {
        return NGX_OK;
    }

    op->type = &ngx_coord_op_cache_purged;

    return NGX_AGAIN;
}


static ngx_int_t
ngx_coord_cache_purge_run(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    uint64_t            payload[NGX_COORD_ENTRY_PAYLOAD / 8];
    ngx_coord_entry_t  *entry;

    entry = ngx_coord_entry_find(table, op, now);

    if (entry) {
        ngx_coord_table_remove(table, entry);
    }

    entry = ngx_coord_table_find(table, NGX_COORD_KIND_PURGED, op->key,
                                 op->key_len, now);

    if (entry) {
        entry->payload[0] = (uint64_t) now;
        entry->expires = now + op->u.cache.ttl;
        return NGX_OK;
    }

    payload[0] = (uint64_t) now;
    payload[1] = 0;

    entry = ngx_coord_table_insert(table, NGX_COORD_KIND_PURGED, 0, op->key,
                                   op->key_len, payload,
                                   now + op->u.cache.ttl, now);

    return entry ? NGX_OK : NGX_ERROR;
}


static void
ngx_coord_cache_purged_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_arg_key(cmd, NGX_COORD_CACHE_PURGED_P, op, "}:p");

    ngx_coord_arg_num(&cmd->args[NGX_COORD_CACHE_PURGED_TIME],
                      op->u.cache.now / NGX_COORD_NSEC_PER_USEC);
    ngx_coord_arg_num(&cmd->args[NGX_COORD_CACHE_PURGED_TTL],
                      ngx_coord_ttl(op->u.cache.ttl));
}


/* a later purge, of somebody else, is not taken back */

static ngx_int_t
ngx_coord_cache_purged_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now)
{
    ngx_int_t         rc;
    ngx_coord_nsec_t  was, own;

    rc = ngx_coord_time_parse(ngx_coord_reply(CACHE_PURGED, WAS), &was);

    own = op->u.cache.purged / NGX_COORD_NSEC_PER_USEC;

    if (rc != NGX_OK
        || was / NGX_COORD_NSEC_PER_USEC == own
        || was <= op->u.cache.now
        || was > op->u.cache.now + NGX_COORD_CACHE_TOGETHER)
    {
        return NGX_OK;
    }

    op->u.cache.now = was;

    return NGX_AGAIN;
}


/* in memory it is known */

static ngx_int_t
ngx_coord_cache_purged_run(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    return NGX_OK;
}
