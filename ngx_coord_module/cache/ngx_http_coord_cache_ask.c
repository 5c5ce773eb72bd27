
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_cache: what a request asks the store behind the batch of its stage.
 */


#include "ngx_http_coord_cache.h"


#define NGX_HTTP_COORD_CACHE_LEASE  30000    /* milliseconds: of a fill */


static void ngx_http_coord_cache_answered(ngx_coord_batch_t *batch);


ngx_int_t
ngx_http_coord_cache_ask(ngx_http_coord_cache_t *cache,
    ngx_http_coord_cache_e state)
{
    cache->state = state;

    cache->batch->handler = ngx_http_coord_cache_answered;
    cache->batch->data = cache;

    return ngx_coord_batch_send(cache->batch) == NGX_OK ? NGX_OK : NGX_AGAIN;
}


ngx_int_t
ngx_http_coord_cache_ask_get(ngx_http_coord_cache_t *cache, u_char *key,
    size_t len)
{
    ngx_coord_op_t  *op;

    cache->batch = ngx_coord_batch_create(cache->conf->zone->store);
    if (cache->batch == NULL) {
        return NGX_ERROR;
    }

    op = ngx_coord_batch_add(cache->batch, &ngx_coord_op_cache_get,
                             cache->conf->zone, key, len);

    return op ? NGX_OK : NGX_ERROR;
}


ngx_int_t
ngx_http_coord_cache_ask_tags(ngx_http_coord_cache_t *cache)
{
    u_char      *p, *last, *end, key[NGX_COORD_KEY_LEN];
    size_t       len;
    ngx_str_t    tag;
    ngx_uint_t   n;

    cache->batch = ngx_coord_batch_create(cache->conf->zone->store);
    if (cache->batch == NULL) {
        return NGX_ERROR;
    }

    p = cache->stored.tags.data;
    last = p + cache->stored.tags.len;

    for (n = 0; p < last && n < NGX_HTTP_COORD_CACHE_TAGS; n++) {
        end = ngx_strlchr(p, last, LF);

        if (end == NULL) {
            break;
        }

        tag.data = p;
        tag.len = end - p;

        len = ngx_http_coord_cache_tag_key(key, &tag);

        if (len == 0
            || ngx_coord_batch_add(cache->batch, &ngx_coord_op_cache_get,
                                   cache->conf->zone, key, len)
               == NULL)
        {
            return NGX_ERROR;
        }

        p = end + 1;
    }

    return NGX_OK;
}


ngx_int_t
ngx_http_coord_cache_ask_claim(ngx_http_coord_cache_t *cache)
{
    ngx_coord_op_t  *op;

    cache->batch = ngx_coord_batch_create(cache->conf->zone->store);
    if (cache->batch == NULL) {
        return NGX_ERROR;
    }

    op = ngx_coord_batch_add(cache->batch, &ngx_coord_op_lease_acquire,
                             cache->conf->zone, cache->key, cache->key_len);

    if (op == NULL || ngx_coord_id(op->id) != NGX_OK) {
        return NGX_ERROR;
    }

    op->u.lease.limit = 1;
    op->u.lease.lease = NGX_HTTP_COORD_CACHE_LEASE * NGX_COORD_NSEC_PER_MSEC;

    return NGX_OK;
}


static void
ngx_http_coord_cache_answered(ngx_coord_batch_t *batch)
{
    ngx_http_coord_cache_t  *cache;

    cache = batch->data;

    ngx_http_coord_resume(cache->ctx);
}
