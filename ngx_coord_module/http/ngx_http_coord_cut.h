
/*
 * Copyright (C) ngx_coord_module contributors
 */


#ifndef _NGX_HTTP_COORD_CUT_H_INCLUDED_
#define _NGX_HTTP_COORD_CUT_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>


/*
 * Ends the connection of the client of r, a main request, or of HTTP/2 and
 * later its stream alone, as if the client had left at this moment.  May be
 * called from anywhere: the request ends by an event that follows, and, where
 * the configuration says so, goes on without its client.
 */
void ngx_http_coord_cut(ngx_http_request_t *r);


#endif /* _NGX_HTTP_COORD_CUT_H_INCLUDED_ */
