
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * DELETE cache/<zone>?key= or ?tag= of coord_api: what was asked for until now
 * is not used any more.
 */


#include "ngx_http_coord_cache.h"


static ngx_int_t ngx_http_coord_cache_api_ask(ngx_http_coord_api_t *api);


const ngx_http_coord_route_t  ngx_http_coord_cache_routes[] = {

    { ngx_string("cache"),
      NGX_HTTP_DELETE, NGX_HTTP_COORD_API_ALL_KEYS,
      ngx_http_coord_cache_api_ask,
      ngx_http_coord_api_forgotten },

    { ngx_null_string, 0, 0, NULL, NULL }
};


static ngx_int_t
ngx_http_coord_cache_api_ask(ngx_http_coord_api_t *api)
{
    u_char           key[NGX_COORD_KEY_LEN];
    size_t           len;
    ngx_int_t        rc;
    ngx_str_t        value;
    ngx_coord_op_t  *op;

    api->detail = "Ask for cache/<zone>?key=<key>, or ?tag=<tag> of up to "
                  "128 bytes.";

    rc = ngx_http_coord_api_arg(api, "tag", &value);

    if (rc == NGX_OK && value.len && value.len <= NGX_HTTP_COORD_CACHE_TAG) {
        len = ngx_http_coord_cache_tag_key(key, &value);

    } else if (rc == NGX_DECLINED) {
        rc = ngx_http_coord_api_arg(api, "key", &value);

        if (rc == NGX_DECLINED || (rc == NGX_OK && value.len == 0)) {
            return NGX_HTTP_BAD_REQUEST;
        }

        len = rc == NGX_OK ? ngx_coord_key_encode(key, &value) : 0;

    } else {
        return rc == NGX_OK ? NGX_HTTP_BAD_REQUEST
                            : NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    api->batch = ngx_coord_batch_create(api->zone->store);

    if (len == 0 || api->batch == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    op = ngx_coord_batch_add(api->batch, &ngx_coord_op_cache_purge, api->zone,
                             key, len);
    if (op == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    op->u.cache.ttl = NGX_HTTP_COORD_CACHE_LIFE;

    return NGX_OK;
}


size_t
ngx_http_coord_cache_tag_key(u_char *dst, ngx_str_t *tag)
{
    u_char      buf[sizeof("tag:") - 1 + NGX_HTTP_COORD_CACHE_TAG];
    ngx_str_t   name;

    if (tag->len > NGX_HTTP_COORD_CACHE_TAG) {
        return 0;
    }

    name.data = buf;
    name.len = ngx_sprintf(buf, "tag:%V", tag) - buf;

    /* no key of a response stands so: those that are plain are no digests */

    return ngx_coord_key_digest(dst, &name);
}
