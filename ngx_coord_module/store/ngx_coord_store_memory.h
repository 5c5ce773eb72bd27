
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Inside the memory store: operations on a table whose lock is held.
 */


#ifndef _NGX_COORD_STORE_MEMORY_H_INCLUDED_
#define _NGX_COORD_STORE_MEMORY_H_INCLUDED_


#include "ngx_coord_store.h"
#include "ngx_coord_table.h"


/* runs an operation at now; returns its rc */
typedef ngx_int_t (*ngx_coord_memory_op_pt)(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);


/*
 * The state of an operation's key; kinds of operations have tags of their
 * own, so that one key may have several.  NULL: none, or expired.
 */
ngx_coord_entry_t *ngx_coord_memory_find(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);

/* a new state for a take or an acquire; NULL: the zone is full */
ngx_coord_entry_t *ngx_coord_memory_insert(ngx_coord_table_t *table,
    ngx_coord_op_t *op, uint64_t *payload, ngx_coord_nsec_t expires,
    ngx_coord_nsec_t now);

/* the operations on sets; each returns rc of the operation */
ngx_int_t ngx_coord_memory_log_take(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
ngx_int_t ngx_coord_memory_log_give(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
ngx_int_t ngx_coord_memory_lease_acquire(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
ngx_int_t ngx_coord_memory_lease_renew(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
ngx_int_t ngx_coord_memory_lease_release(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
ngx_int_t ngx_coord_memory_lease_turn(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
ngx_int_t ngx_coord_memory_wait_enter(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
ngx_int_t ngx_coord_memory_wait_leave(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
ngx_int_t ngx_coord_memory_lock_token(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);


/* from SESSION_GET to SESSION_KEEP; in ngx_coord_store_memory_session.c */
extern const ngx_coord_memory_op_pt  ngx_coord_memory_session_ops[];

/* from CLAIM to CLAIM_DISCARD; in ngx_coord_store_memory_claim.c */
extern const ngx_coord_memory_op_pt  ngx_coord_memory_claim_ops[];


/*
 * The operations that look or forget, from BUCKET_PEEK on; in
 * ngx_coord_store_memory_peek.c.  NGX_ERROR is never their result.
 */
ngx_int_t ngx_coord_memory_peek(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now);

/* FORGET of a claim and a record */
ngx_int_t ngx_coord_memory_claim_forget(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);

/* the count of a window in the payload of a sliding window counter */
int64_t ngx_coord_memory_count(uint64_t *payload, int64_t index);

/* how many slots of a log or of leases have a time after gone; the earliest */
ngx_uint_t ngx_coord_memory_set_count(ngx_coord_table_t *table,
    ngx_coord_entry_t *entry, ngx_coord_nsec_t gone, ngx_coord_nsec_t *first);


#endif /* _NGX_COORD_STORE_MEMORY_H_INCLUDED_ */
