
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * States and the ways between them: for each state of an object a word with
 * a bit for each state that may follow.  The table is the picture of the
 * object; builds with debugging check each step against it.
 */


#ifndef _NGX_COORD_STATE_H_INCLUDED_
#define _NGX_COORD_STATE_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>


typedef uint32_t  ngx_coord_edges_t;


#define ngx_coord_edge(state)  ((ngx_coord_edges_t) 1 << (state))


/* 1 if the table knows a way from one state to the other */
#define ngx_coord_edge_known(edges, from, to)                                 \
    (((edges)[from] & ngx_coord_edge(to)) != 0)


#if (NGX_DEBUG)

/*
 * ngx_coord_edge_check() logs a step that the table does not know; what it is
 * for is a fault of the program, and nothing that comes from outside.
 */

static ngx_inline void
ngx_coord_edge_check(const ngx_coord_edges_t *edges, ngx_uint_t from,
    ngx_uint_t to, const char *what)
{
    if (!ngx_coord_edge_known(edges, from, to)) {
        ngx_log_error(NGX_LOG_ALERT, ngx_cycle->log, 0,
                      "coord %s: no way from state %ui to %ui", what, from,
                      to);
        ngx_debug_point();
    }
}

#else

#define ngx_coord_edge_check(edges, from, to, what)

#endif


#endif /* _NGX_COORD_STATE_H_INCLUDED_ */
