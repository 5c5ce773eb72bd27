
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * For the files of fixed windows: in Redis a count in a BITFIELD whose TTL is
 * the end of the window, in memory payload[0]: the end, payload[1]: used
 * places.
 */


#ifndef _NGX_COORD_OP_WINDOW_H_INCLUDED_
#define _NGX_COORD_OP_WINDOW_H_INCLUDED_


#include "ngx_coord_op_arg.h"


/* a window that has less left may end before a command arrives */
#define NGX_COORD_WINDOW_MARGIN  (100 * NGX_COORD_NSEC_PER_MSEC)


/* the build of window_peek, and of window_cut: the key may last a length */
void ngx_coord_window_peek_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now);
void ngx_coord_window_cut_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now);

/* run() of a take, and of what a take becomes on its way */
ngx_int_t ngx_coord_window_take_run(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);


/* a take that takes nothing, or of no places: it begins no window */
extern const ngx_coord_op_type_t  ngx_coord_op_window_look;

/*
 * Twice is as good as once: gives a window that has no end one, as if it began
 * then.
 */
extern const ngx_coord_op_type_t  ngx_coord_op_window_left;


#endif /* _NGX_COORD_OP_WINDOW_H_INCLUDED_ */
