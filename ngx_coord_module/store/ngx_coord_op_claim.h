
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Between the operations on claims and those on their results.
 */


#ifndef _NGX_COORD_OP_CLAIM_H_INCLUDED_
#define _NGX_COORD_OP_CLAIM_H_INCLUDED_


#include "ngx_coord_op_arg.h"


/* digits of the mark of a result: its fingerprint and "d" */
#define NGX_COORD_CLAIM_MARK  (2 * NGX_COORD_FINGERPRINT_LEN + 1)


/*
 * Puts the time into the id of a claim, where it has none of that clock: now
 * is that of its store.
 */
void ngx_coord_claim_stamp(ngx_coord_op_t *op, ngx_coord_nsec_t now);

/* sets the nth argument to the mark of a result of op's fingerprint */
void ngx_coord_arg_mark(ngx_coord_command_t *cmd, ngx_uint_t n,
    ngx_coord_op_t *op);

/*
 * Keeps a reply that is a whole record, or is none and in the way, in
 * op->record.  NGX_ERROR: no memory.
 */
ngx_int_t ngx_coord_record_keep(ngx_coord_op_t *op, ngx_str_t *blob);

/*
 * In memory: NGX_BUSY: the key has a result, which is op->record if it is of
 * op's fingerprint; NGX_DECLINED: it has none; NGX_ERROR: no memory.
 */
ngx_int_t ngx_coord_record_find(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now);

/*
 * In memory: stores op->record as the result of the key; results make room for
 * others: retries come soon or never.  NGX_ERROR: there is no room.
 */
ngx_int_t ngx_coord_record_store(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now);

/* in memory: removes the result of the key, if it has one; NGX_OK */
ngx_int_t ngx_coord_claim_discard_run(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);


#endif /* _NGX_COORD_OP_CLAIM_H_INCLUDED_ */
