
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * idempotency/<key> of coord_api.
 */


#include "ngx_http_coord_api.h"
#include "ngx_http_coord_idempotency.h"


static ngx_int_t ngx_http_coord_idempotency_api_ask(ngx_http_coord_api_t *api);
static ngx_int_t ngx_http_coord_idempotency_api_answer(
    ngx_http_coord_api_t *api, ngx_http_coord_out_t *out);
static ngx_coord_zone_t *ngx_http_coord_idempotency_api_next(
    ngx_http_coord_api_t *api, ngx_coord_zone_t *zone);
static ngx_int_t ngx_http_coord_idempotency_api_forget(
    ngx_http_coord_api_t *api);


const ngx_http_coord_route_t  ngx_http_coord_idempotency_routes[] = {

    { ngx_string("idempotency"),
      NGX_HTTP_DELETE, 1,
      ngx_http_coord_idempotency_api_ask,
      ngx_http_coord_idempotency_api_answer },

    { ngx_null_string, 0, 0, NULL, NULL }
};


/* key, ?scope= and ?server= as they were when the key was used */

static ngx_int_t
ngx_http_coord_idempotency_api_ask(ngx_http_coord_api_t *api)
{
    ngx_str_t                  scope, server, key;
    ngx_coord_zone_t          *zone;
    ngx_http_request_t        *r;
    ngx_http_core_srv_conf_t  *cscf;

    r = api->request;

    cscf = ngx_http_get_module_srv_conf(r, ngx_http_core_module);
    server = cscf->server_name;

    ngx_str_null(&scope);

    if (ngx_http_coord_api_arg(api, "scope", &scope) == NGX_ERROR
        || ngx_http_coord_api_arg(api, "server", &server) == NGX_ERROR)
    {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    key = api->key;

    if (ngx_http_coord_idempotency_parse(&key, r->pool) != NGX_OK) {

        /* nobody can have used it */

        key = api->key;
    }

    if (ngx_http_coord_idempotency_name(r->pool, &server, &scope, &key,
                                        &api->key)
        != NGX_OK)
    {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    zone = ngx_http_coord_idempotency_api_next(api, NULL);

    if (zone) {
        api->zone = zone;
    }

    return ngx_http_coord_idempotency_api_forget(api);
}


/* a key is known by its location, not by its store: all of them are asked */

static ngx_int_t
ngx_http_coord_idempotency_api_answer(ngx_http_coord_api_t *api,
    ngx_http_coord_out_t *out)
{
    ngx_coord_zone_t  *zone;

    zone = ngx_http_coord_idempotency_api_next(api, api->zone);

    if (zone == NULL) {
        return ngx_http_coord_api_forgotten(api, out);
    }

    api->deleted = ngx_http_coord_api_was_there(api);

    ngx_http_coord_api_next(api);
    api->zone = zone;

    return ngx_http_coord_idempotency_api_forget(api) == NGX_OK
           ? NGX_AGAIN : NGX_HTTP_INTERNAL_SERVER_ERROR;
}


/* the zone behind a given one, or the first, that a location uses; or NULL */

static ngx_coord_zone_t *
ngx_http_coord_idempotency_api_next(ngx_http_coord_api_t *api,
    ngx_coord_zone_t *zone)
{
    ngx_uint_t                               i;
    ngx_coord_zone_t                       **zones;
    ngx_http_coord_idempotency_main_conf_t  *imcf;

    imcf = ngx_http_get_module_main_conf(api->request,
                                         ngx_http_coord_idempotency_module);
    zones = imcf->zones.elts;

    for (i = 0; zone && i < imcf->zones.nelts; i++) {
        if (zones[i] == zone) {
            zone = NULL;
        }
    }

    for ( /* void */ ; i < imcf->zones.nelts; i++) {
        if (zones[i]->used) {
            return zones[i];
        }
    }

    return NULL;
}


static ngx_int_t
ngx_http_coord_idempotency_api_forget(ngx_http_coord_api_t *api)
{
    return ngx_http_coord_api_forget(api, &ngx_coord_op_claim, 1, NULL)
           == NGX_OK ? NGX_OK : NGX_HTTP_INTERNAL_SERVER_ERROR;
}
