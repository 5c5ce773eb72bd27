
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Requests that change what is kept: POST, PUT, DELETE and the like, after
 * which a cache has to forget what it has (RFC 9111, 4.4).
 */


#include "ngx_http_coord_cache.h"
#include "ngx_coord_giveback.h"


#define NGX_HTTP_COORD_CACHE_SAFE                                             \
    (NGX_HTTP_GET|NGX_HTTP_HEAD|NGX_HTTP_OPTIONS|NGX_HTTP_TRACE               \
     |NGX_HTTP_PROPFIND)


/* for so long a store that is away is tried again */
#define NGX_HTTP_COORD_CACHE_FORGET  (300 * NGX_COORD_NSEC_PER_SEC)


static void ngx_http_coord_cache_forget(ngx_http_coord_cache_t *cache,
    u_char *key, size_t len);
static void ngx_http_coord_cache_forget_groups(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache);


ngx_uint_t
ngx_http_coord_cache_unsafe(ngx_http_request_t *r)
{
    return !(r->method & NGX_HTTP_COORD_CACHE_SAFE);
}


void
ngx_http_coord_cache_changed(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache)
{
    if (r->headers_out.status < NGX_HTTP_OK
        || r->headers_out.status >= NGX_HTTP_BAD_REQUEST
        || ngx_http_coord_cache_error_page(r, cache))
    {
        return;
    }

    ngx_http_coord_cache_forget(cache, cache->key, cache->key_len);
    ngx_http_coord_cache_forget_groups(r, cache);

    /* before the client is told */

    ngx_coord_giveback_flush(cache->conf->zone->store);
    ngx_coord_store_push(cache->conf->zone->store);
}


/* nobody waits for it, and it is asked for again until it is done */

static void
ngx_http_coord_cache_forget(ngx_http_coord_cache_t *cache, u_char *key,
    size_t len)
{
    ngx_coord_op_t  op;

    ngx_memzero(&op, sizeof(ngx_coord_op_t));

    op.type = &ngx_coord_op_cache_purge;
    op.zone = cache->conf->zone;
    op.key_len = len;
    op.u.cache.ttl = NGX_HTTP_COORD_CACHE_LIFE;

    ngx_memcpy(op.key, key, len);

    ngx_coord_giveback_op(&op, NGX_HTTP_COORD_CACHE_FORGET);
    ngx_http_coord_cache_near_forget(cache, key, len);
}


/* as many as a response may be in */

static void
ngx_http_coord_cache_forget_groups(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache)
{
    u_char       buf[NGX_HTTP_COORD_CACHE_TAG + 1], key[NGX_COORD_KEY_LEN];
    size_t       len;
    ngx_str_t   *line, left, group;
    ngx_uint_t   i, n;

    n = 0;

    for (i = 0; /* void */ ; /* void */ ) {
        line = ngx_http_coord_field_line(&r->headers_out.headers,
                                         "Cache-Group-Invalidation", &i);
        if (line == NULL) {
            return;
        }

        left = *line;

        while (n < NGX_HTTP_COORD_CACHE_TAGS
               && ngx_http_coord_field_member(&left, &group) == NGX_OK)
        {
            ngx_http_coord_cache_group(&group, buf);
            len = ngx_http_coord_cache_tag_key(key, &group);

            if (len) {
                ngx_http_coord_cache_forget(cache, key, len);
                n++;
            }
        }
    }
}
