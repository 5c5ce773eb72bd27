
/*
 * Copyright (C) ngx_coord_module contributors
 */


#ifndef _NGX_HTTP_COORD_API_GUARD_H_INCLUDED_
#define _NGX_HTTP_COORD_API_GUARD_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>


/*
 * Says why a request is not one of somebody on this host who means this
 * server: another client address, a Host that a name server may have pointed
 * here, a page from elsewhere, a proxy in between.  The words are those of a
 * problem document and live for ever; NULL: the request is welcome.
 */
const char *ngx_http_coord_api_stranger(ngx_http_request_t *r);


#endif /* _NGX_HTTP_COORD_API_GUARD_H_INCLUDED_ */
