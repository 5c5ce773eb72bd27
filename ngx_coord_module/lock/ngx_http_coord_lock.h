
/*
 * Copyright (C) ngx_coord_module contributors
 */


#ifndef _NGX_HTTP_COORD_LOCK_H_INCLUDED_
#define _NGX_HTTP_COORD_LOCK_H_INCLUDED_


#include "ngx_http_coord_api.h"


/* --- ngx_http_coord_lock_api.c: routes of coord_api --- */

extern const ngx_http_coord_route_t  ngx_http_coord_lock_routes[];


#endif /* _NGX_HTTP_COORD_LOCK_H_INCLUDED_ */
