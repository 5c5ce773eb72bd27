
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The origin has allowed to use a response while it is revalidated (RFC 5861,
 * 3): the request that was to ask it anew is sent what is stale as well, and a
 * subrequest in the background asks the origin and stores what it says.
 */


#include "ngx_http_coord_cache.h"


static ngx_int_t ngx_http_coord_cache_update_request(ngx_http_request_t *r,
    ngx_http_coord_cache_t *update);
static ngx_int_t ngx_http_coord_cache_update_headers(ngx_http_request_t *r,
    ngx_list_t *headers);
static ngx_int_t ngx_http_coord_cache_update_done(ngx_http_request_t *r,
    void *data, ngx_int_t rc);
static void ngx_http_coord_cache_update_cleanup(void *data);


ngx_int_t
ngx_http_coord_cache_update(ngx_http_coord_cache_t *cache)
{
    ngx_pool_t              *pool;
    ngx_pool_cleanup_t      *cln;
    ngx_http_coord_cache_t  *update;

    pool = cache->request->pool;

    update = ngx_pcalloc(pool, sizeof(ngx_http_coord_cache_t));
    cln = ngx_pool_cleanup_add(pool, 0);

    if (update == NULL || cln == NULL) {
        return NGX_ERROR;
    }

    cln->handler = ngx_http_coord_cache_update_cleanup;
    cln->data = update;

    update->ctx = cache->ctx;
    update->conf = cache->conf;
    update->on_failure = cache->on_failure;
    update->state = NGX_HTTP_COORD_CACHE_FILLING;

    update->key_len = cache->key_len;
    update->asked_len = cache->asked_len;
    ngx_memcpy(update->key, cache->key, cache->key_len);
    ngx_memcpy(update->asked, cache->asked, cache->asked_len);

    update->now = cache->now;
    update->taken = cache->taken;
    update->old = cache->old;

    /* it lives as long as the pool, in any case */

    update->blob = cache->blob;
    update->stored = cache->stored;
    update->pooled = 1;
    update->background = 1;

    update->claim = cache->claim;
    update->claimed = 1;
    cache->claimed = 0;

    cache->update = update;

    return NGX_OK;
}


void
ngx_http_coord_cache_update_start(ngx_http_request_t *r,
    ngx_http_coord_cache_t *update)
{
    if (ngx_http_coord_cache_update_request(r, update) != NGX_OK) {
        ngx_http_coord_cache_settle(update);
    }
}


/* it goes on where r is now, as of a location that has been found */

static ngx_int_t
ngx_http_coord_cache_update_request(ngx_http_request_t *r,
    ngx_http_coord_cache_t *update)
{
    ngx_list_t                   headers;
    ngx_http_request_t          *sr;
    ngx_http_post_subrequest_t  *ps;

    ps = ngx_palloc(r->pool, sizeof(ngx_http_post_subrequest_t));

    if (ps == NULL
        || ngx_http_coord_cache_update_headers(r, &headers) != NGX_OK)
    {
        return NGX_ERROR;
    }

    ps->handler = ngx_http_coord_cache_update_done;
    ps->data = update;

    if (ngx_http_subrequest(r, &r->uri, &r->args, &sr, ps,
                            NGX_HTTP_SUBREQUEST_CLONE
                            |NGX_HTTP_SUBREQUEST_BACKGROUND)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    sr->headers_in.headers = headers;

    /* a list knows its last part by address */

    if (headers.last == &headers.part) {
        sr->headers_in.headers.last = &sr->headers_in.headers.part;
    }

    update->request = sr;

    ngx_http_coord_capture_whole(sr);

    return ngx_http_coord_cache_ask_origin(sr, update);
}


/* those of r are still needed as they are */

static ngx_int_t
ngx_http_coord_cache_update_headers(ngx_http_request_t *r, ngx_list_t *headers)
{
    ngx_uint_t        i;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h, *copy;

    if (ngx_list_init(headers, r->pool, 20, sizeof(ngx_table_elt_t))
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    for (part = &r->headers_in.headers.part; part; part = part->next) {
        h = part->elts;

        for (i = 0; i < part->nelts; i++) {
            copy = ngx_list_push(headers);
            if (copy == NULL) {
                return NGX_ERROR;
            }

            *copy = h[i];
        }
    }

    return NGX_OK;
}


/* whatever became of it, the request itself is not to end by it */

static ngx_int_t
ngx_http_coord_cache_update_done(ngx_http_request_t *r, void *data,
    ngx_int_t rc)
{
    ngx_http_coord_cache_t *update = data;

    ngx_http_coord_cache_settle(update);

    return NGX_OK;
}


static void
ngx_http_coord_cache_update_cleanup(void *data)
{
    ngx_http_coord_cache_settle(data);
}
