
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Results: reading and removing them; a claim that ends with one is in
 * ngx_coord_op_claim.c.
 */


#include "ngx_coord_op_claim.h"
#include "ngx_coord_record.h"


static ngx_int_t ngx_coord_record_load(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_entry_t *entry);
static void ngx_coord_record_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_record_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_record_run(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static void ngx_coord_claim_discard_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);


const ngx_coord_op_type_t  ngx_coord_op_claim_record = {
    ngx_string("claim_record"),
    NGX_COORD_OP_BULK,
    NGX_COORD_KIND_RECORD,
    NGX_COORD_SCRIPT_IDEMPOTENCY_RECORD,
    ngx_coord_record_build,
    ngx_coord_record_parse,
    NULL,
    ngx_coord_record_run,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL
};


const ngx_coord_op_type_t  ngx_coord_op_claim_discard = {
    ngx_string("claim_discard"),
    0,
    NGX_COORD_KIND_CLAIM,
    NGX_COORD_SCRIPT_IDEMPOTENCY_DISCARD,
    ngx_coord_claim_discard_build,
    ngx_coord_give_parse,
    NULL,
    ngx_coord_claim_discard_run,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL
};


void
ngx_coord_arg_mark(ngx_coord_command_t *cmd, ngx_uint_t n, ngx_coord_op_t *op)
{
    u_char  *p;

    p = ngx_hex_dump(cmd->last, op->u.claim.fingerprint,
                     NGX_COORD_FINGERPRINT_LEN);
    *p++ = 'd';

    ngx_coord_arg_str(&cmd->args[n], cmd->last, p - cmd->last);

    cmd->last = p;
}


ngx_int_t
ngx_coord_record_keep(ngx_coord_op_t *op, ngx_str_t *blob)
{
    if (blob->len == 0 || ngx_coord_record_length(blob) > blob->len) {
        return NGX_OK;
    }

    op->record.data = ngx_alloc(blob->len, ngx_cycle->log);

    if (op->record.data == NULL) {
        return NGX_ERROR;
    }

    op->record.len = blob->len;

    ngx_memcpy(op->record.data, blob->data, blob->len);

    return NGX_OK;
}


ngx_int_t
ngx_coord_record_find(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    u_char              head[NGX_COORD_RECORD_HEAD];
    ngx_coord_claim_t  *claim;
    ngx_coord_entry_t  *entry;

    claim = &op->u.claim;

    entry = ngx_coord_table_find(table, NGX_COORD_KIND_RECORD, op->key,
                                 op->key_len, now);

    if (entry == NULL || entry->length == 0) {
        return NGX_DECLINED;
    }

    claim->state = NGX_COORD_CLAIM_DONE;
    claim->remaining = entry->expires - now;

    if (ngx_coord_table_read(table, entry, head, 0, NGX_COORD_RECORD_HEAD)
        == NGX_COORD_RECORD_HEAD)
    {
        ngx_memcpy(claim->twin, head + NGX_COORD_RECORD_FINGERPRINT,
                   NGX_COORD_FINGERPRINT_LEN);

        if (ngx_memcmp(claim->twin, claim->fingerprint,
                       NGX_COORD_FINGERPRINT_LEN)
            != 0)
        {
            return NGX_BUSY;
        }
    }

    return (ngx_coord_record_load(table, op, entry) == NGX_OK) ? NGX_BUSY
                                                               : NGX_ERROR;
}


static ngx_int_t
ngx_coord_record_load(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_entry_t *entry)
{
    op->record.data = ngx_alloc(entry->length, ngx_cycle->log);

    if (op->record.data == NULL) {
        return NGX_ERROR;
    }

    op->record.len = ngx_coord_table_read(table, entry, op->record.data, 0,
                                          entry->length);

    return NGX_OK;
}


ngx_int_t
ngx_coord_record_store(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_entry_t  *entry;

    if (op->record.len > (size_t) table->ncells * NGX_COORD_CELL_DATA / 2) {

        /* all others would have to go */

        return NGX_ERROR;
    }

    entry = ngx_coord_table_find(table, NGX_COORD_KIND_RECORD, op->key,
                                 op->key_len, now);

    if (entry == NULL) {
        entry = ngx_coord_table_insert(table, NGX_COORD_KIND_RECORD,
                                       NGX_COORD_ENTRY_EVICT, op->key,
                                       op->key_len, NULL,
                                       now + op->u.claim.ttl, now);
    }

    if (entry == NULL) {
        return NGX_ERROR;
    }

    return ngx_coord_table_write(table, entry, op->record.data, op->record.len,
                                 now);
}


static void
ngx_coord_record_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_arg_key(cmd, NGX_COORD_IDEMPOTENCY_RECORD_R, op, "}:r");
}


static ngx_int_t
ngx_coord_record_parse(ngx_coord_op_t *op, ngx_coord_resp_value_t **values,
    ngx_coord_nsec_t now)
{
    ngx_int_t  rc;
    ngx_str_t  blob;

    rc = ngx_coord_resp_string(values[0], &blob);

    if (rc == NGX_OK && blob.len) {
        return ngx_coord_record_keep(op, &blob);
    }

    return (rc == NGX_ERROR) ? NGX_ERROR : NGX_BUSY;
}


static ngx_int_t
ngx_coord_record_run(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_entry_t  *entry;

    entry = ngx_coord_table_find(table, NGX_COORD_KIND_RECORD, op->key,
                                 op->key_len, now);

    if (entry == NULL || entry->length == 0) {
        return NGX_BUSY;
    }

    return ngx_coord_record_load(table, op, entry);
}


static void
ngx_coord_claim_discard_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_arg_key(cmd, NGX_COORD_IDEMPOTENCY_DISCARD_R, op, "}:r");
    ngx_coord_arg_key(cmd, NGX_COORD_IDEMPOTENCY_DISCARD_K, op, "}");
    ngx_coord_arg_mark(cmd, NGX_COORD_IDEMPOTENCY_DISCARD_DONE, op);
}


ngx_int_t
ngx_coord_claim_discard_run(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_entry_t  *entry;

    entry = ngx_coord_table_find(table, NGX_COORD_KIND_RECORD, op->key,
                                 op->key_len, now);

    if (entry) {
        ngx_coord_table_remove(table, entry);
    }

    return NGX_OK;
}
