
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * locks/<zone>/<key> of coord_api.
 */


#include "ngx_http_coord_api.h"
#include "ngx_http_coord_lock.h"


static ngx_int_t ngx_http_coord_lock_api_ask(ngx_http_coord_api_t *api);


const ngx_http_coord_route_t  ngx_http_coord_lock_routes[] = {

    { ngx_string("locks"),
      NGX_HTTP_DELETE, 0,
      ngx_http_coord_lock_api_ask,
      ngx_http_coord_api_forgotten },

    { ngx_null_string, 0, 0, NULL, NULL }
};


static ngx_int_t
ngx_http_coord_lock_api_ask(ngx_http_coord_api_t *api)
{
    return ngx_http_coord_api_forget(api, &ngx_coord_op_lease_acquire, 0, NULL)
           == NGX_OK ? NGX_OK : NGX_HTTP_INTERNAL_SERVER_ERROR;
}
