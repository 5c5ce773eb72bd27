
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * lookups/<key> of coord_api.
 */


#include "ngx_http_coord_lookup.h"


static ngx_int_t ngx_http_coord_lookup_api_ask(ngx_http_coord_api_t *api);
static ngx_int_t ngx_http_coord_lookup_api_answer(ngx_http_coord_api_t *api,
    ngx_http_coord_out_t *out);


const ngx_http_coord_route_t  ngx_http_coord_lookup_routes[] = {

    { ngx_string("lookups"),
      NGX_HTTP_DELETE, 1,
      ngx_http_coord_lookup_api_ask,
      ngx_http_coord_lookup_api_answer },

    { ngx_null_string, 0, 0, NULL, NULL }
};


/* here at once, on the others by a message; and who loads it is forgotten */

static ngx_int_t
ngx_http_coord_lookup_api_ask(ngx_http_coord_api_t *api)
{
    ngx_uint_t                           i;
    ngx_coord_near_t                   **nears;
    ngx_http_coord_lookup_main_conf_t   *lmcf;

    lmcf = ngx_http_get_module_main_conf(api->request,
                                         ngx_http_coord_lookup_module);
    nears = lmcf->nears.elts;

    for (i = 0; i < lmcf->nears.nelts; i++) {

        if (ngx_coord_near_forget(nears[i], &api->key)) {
            api->session.found = 1;
        }

        ngx_coord_near_tell_all(nears[i]->zone->store, &api->key);
    }

    return ngx_http_coord_api_forget(api, &ngx_coord_op_lease_acquire, 0, NULL)
           == NGX_OK ? NGX_OK : NGX_HTTP_INTERNAL_SERVER_ERROR;
}


static ngx_int_t
ngx_http_coord_lookup_api_answer(ngx_http_coord_api_t *api,
    ngx_http_coord_out_t *out)
{
    ngx_http_coord_json_string(out, "key", &api->key);
    ngx_http_coord_json_bool(out, "deleted", api->session.found);

    return NGX_OK;
}
