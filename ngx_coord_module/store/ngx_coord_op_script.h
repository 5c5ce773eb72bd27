
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * An operation of the store as a script of lua-free-scripts/: what it takes to
 * write it, and whether a reply may be its.
 */


#ifndef _NGX_COORD_OP_SCRIPT_H_INCLUDED_
#define _NGX_COORD_OP_SCRIPT_H_INCLUDED_


#include "ngx_coord_store.h"
#include "ngx_coord_resp.h"
#include "ngx_coord_script.h"


/* the replies of one operation, at most */
#define NGX_COORD_OP_VALUES  20


/* the descriptor that goes for an operation in its zone, and what it sends */

#define ngx_coord_op_type(op)                                                 \
    (((op)->zone->wake && (op)->type->wake) ? (op)->type->wake : (op)->type)

#define ngx_coord_op_script(op)                                               \
    (&ngx_coord_scripts[ngx_coord_op_type(op)->script])

/* the commands, and so the replies, of an operation */
#define ngx_coord_op_ncommands(op)  ngx_coord_op_script(op)->ncommands

/*
 * 1 if a command, in capitals, is among those of an operation, or of what is
 * asked in its place where a zone is waited for.
 */
ngx_uint_t ngx_coord_op_uses(ngx_coord_op_t *op, const char *command);

/*
 * Makes room for what the encoding of the operations of a batch needs.
 * NGX_ERROR: no memory.
 */
ngx_int_t ngx_coord_op_prepare(ngx_coord_batch_t *batch);

/*
 * How many bytes its encoding may have, and how many more where another one
 * takes it along; quick, for they look at nothing.
 */
size_t ngx_coord_op_bound(ngx_coord_op_t *op);
size_t ngx_coord_op_along(ngx_coord_op_t *op);

/* that room, for the keys and words of the operation that is being encoded */
u_char *ngx_coord_op_words(void);

/*
 * 1 if replies, none of which is an error reply, are of the kinds that the
 * script of the operation answers: before they are parsed.
 */
ngx_uint_t ngx_coord_op_fits(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values);


#endif /* _NGX_COORD_OP_SCRIPT_H_INCLUDED_ */
