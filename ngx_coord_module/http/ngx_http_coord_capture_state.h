
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * How far the capture of a response has come.
 *
 *   NONE -> COPYING -> PASSING -> WHOLE, CUT      too large to be kept
 *   NONE -> COPYING -> WHOLE, CUT
 *   NONE -> WATCHING -> WHOLE, CUT                nobody wants the bytes
 */


#ifndef _NGX_HTTP_COORD_CAPTURE_STATE_H_INCLUDED_
#define _NGX_HTTP_COORD_CAPTURE_STATE_H_INCLUDED_


#include "ngx_coord_state.h"


typedef enum {
    NGX_HTTP_COORD_CAPTURE_NONE = 0,
    NGX_HTTP_COORD_CAPTURE_COPYING,
    NGX_HTTP_COORD_CAPTURE_PASSING,
    NGX_HTTP_COORD_CAPTURE_WATCHING,
    NGX_HTTP_COORD_CAPTURE_WHOLE,             /* its end has been seen */
    NGX_HTTP_COORD_CAPTURE_CUT,               /* it ended before its end */
    NGX_HTTP_COORD_CAPTURE_STATES
} ngx_http_coord_capture_e;


/* those that may follow, from each state */
extern const ngx_coord_edges_t
    ngx_http_coord_capture_edges[NGX_HTTP_COORD_CAPTURE_STATES];


/* goes to a state that follows; another one is a fault of the program */
static ngx_inline void
ngx_http_coord_capture_set(ngx_http_coord_capture_e *state,
    ngx_http_coord_capture_e to)
{
    ngx_coord_edge_check(ngx_http_coord_capture_edges, *state, to, "capture");

    *state = to;
}


/* 1 if nothing of the response is to come: none follows */
static ngx_inline ngx_uint_t
ngx_http_coord_capture_over(ngx_http_coord_capture_e state)
{
    return ngx_http_coord_capture_edges[state] == 0;
}


#endif /* _NGX_HTTP_COORD_CAPTURE_STATE_H_INCLUDED_ */
