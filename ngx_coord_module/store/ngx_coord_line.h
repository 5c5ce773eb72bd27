
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Lines of the dead.  Who waits for a lease and is killed stays in line, and
 * nobody behind is ever first.  What a worker sees of the lines is kept for
 * all its requests: one that finds room that nobody takes need not have
 * waited for it itself.
 */


#ifndef _NGX_COORD_LINE_H_INCLUDED_
#define _NGX_COORD_LINE_H_INCLUDED_


#include "ngx_coord_store.h"
#include "ngx_coord_wake.h"


/*
 * op is a turn that was refused.  Returns 1 if its line is to be cleared:
 * there has been room for longer than anyone alive leaves it, and the same one
 * was first all the time.  Those who are alive enter again, with the time of
 * their arrival.  Otherwise, if that may become so, waiter is woken then.
 */
ngx_uint_t ngx_coord_line_stuck(ngx_coord_op_t *op,
    ngx_coord_waiter_t *waiter);


#endif /* _NGX_COORD_LINE_H_INCLUDED_ */
