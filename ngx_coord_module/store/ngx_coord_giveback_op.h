
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The operation that gives another one back; for the list of them.
 */


#ifndef _NGX_COORD_GIVEBACK_OP_H_INCLUDED_
#define _NGX_COORD_GIVEBACK_OP_H_INCLUDED_


#include "ngx_coord_store.h"


/* for how long what op takes may be held by nobody */
ngx_coord_nsec_t ngx_coord_giveback_life(ngx_coord_op_t *op);

/* makes dst an operation of another type on what op is about */
void ngx_coord_giveback_copy(ngx_coord_op_t *dst, ngx_coord_op_t *op,
    const ngx_coord_op_type_t *type);

/* runs such an operation, on what lies in memory, at once */
void ngx_coord_giveback_local(ngx_coord_op_t *op,
    const ngx_coord_op_type_t *type);


#endif /* _NGX_COORD_GIVEBACK_OP_H_INCLUDED_ */
