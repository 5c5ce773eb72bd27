
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * DELETE cache/<zone>?key= or ?tag= of coord_api: what was asked for until now
 * is not used any more.
 */


#include "ngx_http_coord_cache.h"


static ngx_int_t ngx_http_coord_cache_api_ask(ngx_http_coord_api_t *api);
static ngx_int_t ngx_http_coord_cache_api_answer(ngx_http_coord_api_t *api,
    ngx_http_coord_out_t *out);


const ngx_http_coord_route_t  ngx_http_coord_cache_routes[] = {

    { ngx_string("cache"),
      NGX_HTTP_DELETE, NGX_HTTP_COORD_API_ALL_KEYS,
      ngx_http_coord_cache_api_ask,
      ngx_http_coord_cache_api_answer },

    { ngx_null_string, 0, 0, NULL, NULL }
};


static ngx_int_t
ngx_http_coord_cache_api_ask(ngx_http_coord_api_t *api)
{
    u_char             dst[NGX_COORD_KEY_LEN];
    size_t             len;
    ngx_int_t          by_key, by_tag;
    ngx_str_t          key, tag;
    ngx_coord_near_t  *near;

    api->detail = "Ask for cache/<zone>?key=<key>, or ?tag=<tag> of up to "
                  "128 bytes.";

    by_key = ngx_http_coord_api_arg(api, "key", &key);
    by_tag = ngx_http_coord_api_arg(api, "tag", &tag);

    if (by_key == NGX_ERROR || by_tag == NGX_ERROR) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (by_key == by_tag) {
        return NGX_HTTP_BAD_REQUEST;
    }

    if (by_tag == NGX_OK) {

        if (tag.len == 0 || tag.len > NGX_HTTP_COORD_CACHE_TAG) {
            return NGX_HTTP_BAD_REQUEST;
        }

        len = ngx_http_coord_cache_tag_key(dst, &tag);

    } else {

        if (key.len == 0) {
            return NGX_HTTP_BAD_REQUEST;
        }

        len = ngx_coord_key_encode(dst, &key);
    }

    api->batch = ngx_coord_batch_create(api->zone->store);

    if (len == 0 || api->batch == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    near = ngx_http_coord_cache_near_of(api->request, api->zone);

    return ngx_http_coord_cache_purge_add(api->batch, api->zone, near, dst, len,
                                          by_tag == NGX_OK)
           == NGX_OK ? NGX_OK : NGX_HTTP_INTERNAL_SERVER_ERROR;
}


static ngx_int_t
ngx_http_coord_cache_api_answer(ngx_http_coord_api_t *api,
    ngx_http_coord_out_t *out)
{
    ngx_coord_batch_t  *next;

    next = ngx_http_coord_cache_purge_note(api->batch);

    if (next) {
        ngx_http_coord_api_next(api);
        api->batch = next;

        return NGX_AGAIN;
    }

    return ngx_http_coord_api_forgotten(api, out);
}
