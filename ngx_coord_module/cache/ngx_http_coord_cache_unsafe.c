
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


static ngx_int_t ngx_http_coord_cache_forget(ngx_http_coord_cache_t *cache,
    ngx_coord_batch_t *batch, u_char *key, size_t len);
static ngx_int_t ngx_http_coord_cache_forget_groups(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache, ngx_coord_batch_t *batch);


ngx_uint_t
ngx_http_coord_cache_unsafe(ngx_http_request_t *r)
{
    return !(r->method & NGX_HTTP_COORD_CACHE_SAFE);
}


void
ngx_http_coord_cache_changed(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache)
{
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

    if (ngx_http_coord_cache_forget(cache, batch, cache->key, cache->key_len)
        != NGX_OK
        || ngx_http_coord_cache_forget_groups(r, cache, batch) != NGX_OK)
    {
        ngx_coord_batch_done(batch);
        return;
    }

    /* without a handler it releases itself */

    (void) ngx_coord_batch_send(batch);

    /* before the client is told */

    ngx_coord_store_push(cache->conf->zone->store);
}


static ngx_int_t
ngx_http_coord_cache_forget(ngx_http_coord_cache_t *cache,
    ngx_coord_batch_t *batch, u_char *key, size_t len)
{
    ngx_coord_op_t  *op;

    op = ngx_coord_batch_add(batch, &ngx_coord_op_cache_purge,
                             cache->conf->zone, key, len);
    if (op == NULL) {
        return NGX_ERROR;
    }

    op->u.cache.ttl = NGX_HTTP_COORD_CACHE_LIFE;

    return NGX_OK;
}


/* as many as a response may be in */

static ngx_int_t
ngx_http_coord_cache_forget_groups(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache, ngx_coord_batch_t *batch)
{
    u_char       buf[NGX_HTTP_COORD_CACHE_TAG + 1], key[NGX_COORD_KEY_LEN];
    size_t       len;
    ngx_str_t   *line, left, group;
    ngx_uint_t   i;

    for (i = 0; /* void */ ; /* void */ ) {
        line = ngx_http_coord_field_line(&r->headers_out.headers,
                                         "Cache-Group-Invalidation", &i);
        if (line == NULL) {
            return NGX_OK;
        }

        left = *line;

        while (batch->nops <= NGX_HTTP_COORD_CACHE_TAGS
               && ngx_http_coord_field_member(&left, &group) == NGX_OK)
        {
            ngx_http_coord_cache_group(&group, buf);
            len = ngx_http_coord_cache_tag_key(key, &group);

            if (len
                && ngx_http_coord_cache_forget(cache, batch, key, len)
                   != NGX_OK)
            {
                return NGX_ERROR;
            }
        }
    }
}
