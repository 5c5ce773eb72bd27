
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Requests that change what is kept: POST, PUT, DELETE and the like, after
 * which a cache has to forget what it has (RFC 9111, 4.4).
 */


#include "ngx_http_coord_cache.h"


#define NGX_HTTP_COORD_CACHE_SAFE                                             \
    (NGX_HTTP_GET|NGX_HTTP_HEAD|NGX_HTTP_OPTIONS|NGX_HTTP_TRACE               \
     |NGX_HTTP_PROPFIND)


ngx_uint_t
ngx_http_coord_cache_unsafe(ngx_http_request_t *r)
{
    return !(r->method & NGX_HTTP_COORD_CACHE_SAFE);
}


void
ngx_http_coord_cache_changed(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache)
{
    ngx_coord_op_t     *op;
    ngx_coord_batch_t  *batch;

    if (r->headers_out.status < NGX_HTTP_OK
        || r->headers_out.status >= NGX_HTTP_BAD_REQUEST
        || ngx_http_coord_cache_error_page(r, cache))
    {
        return;
    }

    batch = ngx_coord_batch_create(cache->conf->zone->store);
    if (batch == NULL) {
        return;
    }

    op = ngx_coord_batch_add(batch, &ngx_coord_op_cache_purge,
                             cache->conf->zone, cache->key, cache->key_len);
    if (op == NULL) {
        ngx_coord_batch_done(batch);
        return;
    }

    op->u.cache.ttl = NGX_HTTP_COORD_CACHE_LIFE;

    /* without a handler it releases itself */

    (void) ngx_coord_batch_send(batch);
}
