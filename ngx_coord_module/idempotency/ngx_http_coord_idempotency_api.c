
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * idempotency/<key> of coord_api.
 */


#include "ngx_http_coord_api.h"
#include "ngx_http_coord_idempotency.h"


static ngx_int_t ngx_http_coord_idempotency_api_ask(ngx_http_coord_api_t *api);


const ngx_http_coord_route_t  ngx_http_coord_idempotency_routes[] = {

    { ngx_string("idempotency"),
      NGX_HTTP_DELETE, 1,
      ngx_http_coord_idempotency_api_ask,
      ngx_http_coord_api_forgotten },

    { ngx_null_string, 0, 0, NULL, NULL }
};


/* ?scope= and ?server= as they were when the key was used */

static ngx_int_t
ngx_http_coord_idempotency_api_ask(ngx_http_coord_api_t *api)
{
    ngx_str_t                  scope, server, key;
    ngx_http_request_t        *r;
    ngx_http_core_srv_conf_t  *cscf;

    r = api->request;

    ngx_str_null(&scope);

    if (ngx_http_coord_api_arg(api, "scope", &scope) == NGX_ERROR) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    cscf = ngx_http_get_module_srv_conf(r, ngx_http_core_module);
    server = cscf->server_name;

    (void) ngx_http_arg(r, (u_char *) "server", 6, &server);

    key = api->key;

    if (ngx_http_coord_idempotency_name(r->pool, &server, &scope, &key,
                                        &api->key)
        != NGX_OK)
    {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_http_coord_api_forget(api, &ngx_coord_op_claim, 1, NULL)
           == NGX_OK ? NGX_OK : NGX_HTTP_INTERNAL_SERVER_ERROR;
}
