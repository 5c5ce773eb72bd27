
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * events/<channel> of coord_api: who listens on this node.
 */


#include "ngx_http_coord_events.h"


static ngx_int_t ngx_http_coord_events_api_ask(ngx_http_coord_api_t *api);
static ngx_int_t ngx_http_coord_events_api_answer(ngx_http_coord_api_t *api,
    ngx_http_coord_out_t *out);


const ngx_http_coord_route_t  ngx_http_coord_events_routes[] = {

    { ngx_string("events"),
      NGX_HTTP_COORD_API_READ, NGX_HTTP_COORD_API_NO_ZONE,
      ngx_http_coord_events_api_ask,
      ngx_http_coord_events_api_answer },

    { ngx_null_string, 0, 0, NULL, NULL }
};


/* nothing of a store */

static ngx_int_t
ngx_http_coord_events_api_ask(ngx_http_coord_api_t *api)
{
    return NGX_OK;
}


static ngx_int_t
ngx_http_coord_events_api_answer(ngx_http_coord_api_t *api,
    ngx_http_coord_out_t *out)
{
    ngx_uint_t                    i, n;
    ngx_coord_store_t           **stores;
    ngx_http_coord_main_conf_t   *mcf;

    mcf = ngx_http_get_module_main_conf(api->request, ngx_http_coord_module);
    stores = mcf->stores.elts;

    n = ngx_coord_bus_listeners(mcf->local, &api->key);

    for (i = 0; i < mcf->stores.nelts; i++) {
        n += ngx_coord_bus_listeners(stores[i], &api->key);
    }

    ngx_http_coord_json_string(out, "channel", &api->key);
    ngx_http_coord_json_number(out, "listeners", n);

    return NGX_OK;
}
