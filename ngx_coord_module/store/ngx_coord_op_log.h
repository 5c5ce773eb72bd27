
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * For the files of sliding logs: what takes of one and of several places have
 * in common.
 */


#ifndef _NGX_COORD_OP_LOG_H_INCLUDED_
#define _NGX_COORD_OP_LOG_H_INCLUDED_


#include "ngx_coord_op_arg.h"


/* as run() of the descriptors; they look at cost and look */
ngx_int_t ngx_coord_log_take_run(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now);
ngx_int_t ngx_coord_log_give_run(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now);

/* the id of the n-th of the places of op, from 0, in NGX_COORD_ID_LEN bytes */
void ngx_coord_log_id(ngx_coord_op_t *op, ngx_uint_t n, u_char *id);


#endif /* _NGX_COORD_OP_LOG_H_INCLUDED_ */
