
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Claims and results in shared memory: two entries of one key.
 */


#include "ngx_coord_store_memory.h"


/* tags of the entries; other kinds have the numbers of operations */
#define NGX_COORD_MEMORY_CLAIM   0x40
#define NGX_COORD_MEMORY_RECORD  0x41


/* the blob of a claim */
typedef struct {
    ngx_coord_nsec_t           expires;   /* the lease */
    u_char                     fingerprint[NGX_COORD_FINGERPRINT_LEN];
    u_char                     id[NGX_COORD_ID_LEN];
} ngx_coord_memory_claim_t;


static ngx_int_t ngx_coord_memory_claim(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_memory_claim_renew(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_memory_claim_complete(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_memory_claim_release(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_memory_claim_discard(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_coord_entry_t *ngx_coord_memory_claim_get(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_memory_claim_t *stored,
    ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_memory_claim_set(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_entry_t *entry, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_memory_record_read(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);


const ngx_coord_memory_op_pt  ngx_coord_memory_claim_ops[] = {
    ngx_coord_memory_claim,
    ngx_coord_memory_claim_renew,
    ngx_coord_memory_claim_complete,
    ngx_coord_memory_claim_release,
    ngx_coord_memory_claim_discard
};


static ngx_int_t
ngx_coord_memory_claim(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_int_t                  rc;
    ngx_coord_nsec_t           gone;
    ngx_coord_claim_t         *claim;
    ngx_coord_entry_t         *entry;
    ngx_coord_memory_claim_t   stored;

    claim = &op->u.claim;
    claim->state = NGX_COORD_CLAIM_NONE;
    claim->lapsed = 0;

    rc = ngx_coord_memory_record_read(table, op, now);

    if (rc != NGX_DECLINED) {
        return rc;
    }

    entry = ngx_coord_memory_claim_get(table, op, &stored, now);

    if (entry && ngx_memcmp(stored.id, op->id, NGX_COORD_ID_LEN) != 0) {
        gone = claim->keep ? now - claim->ttl : now;

        if (stored.expires > gone) {
            claim->remaining = stored.expires - now;
            claim->state = (claim->remaining > 0) ? NGX_COORD_CLAIM_RUNNING
                                                  : NGX_COORD_CLAIM_LAPSED;

            ngx_memcpy(claim->twin, stored.fingerprint,
                       NGX_COORD_FINGERPRINT_LEN);

            return NGX_BUSY;
        }

        claim->lapsed = 1;
    }

    return ngx_coord_memory_claim_set(table, op, entry, now);
}


/* NGX_BUSY: here is the record; NGX_DECLINED: there is none */

static ngx_int_t
ngx_coord_memory_record_read(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_entry_t  *entry;

    entry = ngx_coord_table_find(table, NGX_COORD_MEMORY_RECORD, op->key,
                                 op->key_len, now);

    if (entry == NULL || entry->length == 0) {
        return NGX_DECLINED;
    }

    op->record.data = ngx_alloc(entry->length, ngx_cycle->log);

    if (op->record.data == NULL) {
        return NGX_ERROR;
    }

    op->record.len = ngx_coord_table_read(table, entry, op->record.data, 0,
                                        entry->length);

    op->u.claim.state = NGX_COORD_CLAIM_DONE;
    op->u.claim.remaining = entry->expires - now;

    return NGX_BUSY;
}


static ngx_coord_entry_t *
ngx_coord_memory_claim_get(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_memory_claim_t *stored, ngx_coord_nsec_t now)
{
    ngx_coord_entry_t  *entry;

    entry = ngx_coord_table_find(table, NGX_COORD_MEMORY_CLAIM, op->key,
                                 op->key_len, now);

    if (entry == NULL) {
        return NULL;
    }

    if (ngx_coord_table_read(table, entry, (u_char *) stored, 0,
                             sizeof(ngx_coord_memory_claim_t))
        != sizeof(ngx_coord_memory_claim_t))
    {
        ngx_coord_table_remove(table, entry);
        return NULL;
    }

    return entry;
}


/* the claim is op's, from now on */

static ngx_int_t
ngx_coord_memory_claim_set(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_entry_t *entry, ngx_coord_nsec_t now)
{
    ngx_coord_nsec_t           expires;
    ngx_coord_claim_t         *claim;
    ngx_coord_memory_claim_t   stored;

    claim = &op->u.claim;

    stored.expires = now + claim->lease;

    ngx_memcpy(stored.fingerprint, claim->fingerprint,
               NGX_COORD_FINGERPRINT_LEN);
    ngx_memcpy(stored.id, op->id, NGX_COORD_ID_LEN);

    /* a lapsed claim has to be seen as such */

    expires = claim->keep ? now + claim->lease + claim->ttl : stored.expires;

    if (entry == NULL) {
        entry = ngx_coord_table_insert(table, NGX_COORD_MEMORY_CLAIM, 0,
                                       op->key, op->key_len, NULL, expires,
                                       now);
        if (entry == NULL) {
            return NGX_ERROR;
        }
    }

    entry->expires = expires;

    return ngx_coord_table_write(table, entry, (u_char *) &stored,
                                 sizeof(ngx_coord_memory_claim_t), now);
}


static ngx_int_t
ngx_coord_memory_claim_renew(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_entry_t         *entry;
    ngx_coord_memory_claim_t   stored;

    entry = ngx_coord_memory_claim_get(table, op, &stored, now);

    if (entry == NULL || ngx_memcmp(stored.id, op->id, NGX_COORD_ID_LEN) != 0)
    {
        return NGX_BUSY;
    }

    return ngx_coord_memory_claim_set(table, op, entry, now);
}


/* results make room for others: retries come soon or never */

static ngx_int_t
ngx_coord_memory_claim_complete(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_entry_t  *entry;

    (void) ngx_coord_memory_claim_release(table, op, now);

    entry = ngx_coord_table_find(table, NGX_COORD_MEMORY_RECORD, op->key,
                                 op->key_len, now);

    if (entry) {
        return NGX_BUSY;
    }

    entry = ngx_coord_table_insert(table, NGX_COORD_MEMORY_RECORD,
                                   NGX_COORD_ENTRY_EVICT, op->key,
                                   op->key_len, NULL,
                                   now + op->u.claim.ttl, now);
    if (entry == NULL) {
        return NGX_ERROR;
    }

    return ngx_coord_table_write(table, entry, op->record.data, op->record.len,
                                 now);
}


static ngx_int_t
ngx_coord_memory_claim_release(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_entry_t         *entry;
    ngx_coord_memory_claim_t   stored;

    if (op->u.claim.done) {
        return ngx_coord_memory_claim_discard(table, op, now);
    }

    entry = ngx_coord_memory_claim_get(table, op, &stored, now);

    if (entry && ngx_memcmp(stored.id, op->id, NGX_COORD_ID_LEN) == 0) {
        ngx_coord_table_remove(table, entry);
    }

    return NGX_OK;
}


static ngx_int_t
ngx_coord_memory_claim_discard(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_entry_t  *entry;

    entry = ngx_coord_table_find(table, NGX_COORD_MEMORY_RECORD, op->key,
                                 op->key_len, now);

    if (entry) {
        ngx_coord_table_remove(table, entry);
    }

    return NGX_OK;
}


ngx_int_t
ngx_coord_memory_claim_forget(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_int_t           rc;
    ngx_uint_t          tag;
    ngx_coord_entry_t  *entry;

    rc = NGX_BUSY;

    for (tag = NGX_COORD_MEMORY_CLAIM; tag <= NGX_COORD_MEMORY_RECORD; tag++) {
        entry = ngx_coord_table_find(table, tag, op->key, op->key_len, now);

        if (entry) {
            ngx_coord_table_remove(table, entry);
            rc = NGX_OK;
        }
    }

    return rc;
}
