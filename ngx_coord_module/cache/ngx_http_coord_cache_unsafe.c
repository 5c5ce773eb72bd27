
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Requests that change what is kept: POST, PUT, DELETE and the like, after
 * which a cache has to forget what it has (RFC 9111, 4.4), on all nodes before
 * the client is told.
 */


#include "ngx_http_coord_cache.h"
#include "ngx_coord_giveback.h"


#define NGX_HTTP_COORD_CACHE_SAFE                                             \
    (NGX_HTTP_GET|NGX_HTTP_HEAD|NGX_HTTP_OPTIONS|NGX_HTTP_TRACE               \
     |NGX_HTTP_PROPFIND)


/* for so long a store that is away is tried again */
#define NGX_HTTP_COORD_CACHE_FORGET  (300 * NGX_COORD_NSEC_PER_SEC)


static ngx_int_t ngx_http_coord_cache_changed_ask(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache);
static ngx_int_t ngx_http_coord_cache_changed_groups(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache);
static ngx_int_t ngx_http_coord_cache_changed_send(
    ngx_http_coord_cache_t *cache);
static void ngx_http_coord_cache_changed_later(ngx_http_coord_cache_t *cache,
    ngx_uint_t all);
static void ngx_http_coord_cache_changed_answered(ngx_coord_batch_t *batch);
static void ngx_http_coord_cache_changed_told(ngx_http_coord_cache_t *cache);
static void ngx_http_coord_cache_changed_late(ngx_event_t *ev);
static void ngx_http_coord_cache_changed_log(ngx_http_coord_cache_t *cache,
    ngx_coord_op_t *op);


ngx_uint_t
ngx_http_coord_cache_unsafe(ngx_http_request_t *r)
{
    return !(r->method & NGX_HTTP_COORD_CACHE_SAFE);
}


void
ngx_http_coord_cache_changed(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache)
{
    ngx_coord_store_t  *store;

    if (r->headers_out.status < NGX_HTTP_OK
        || r->headers_out.status >= NGX_HTTP_BAD_REQUEST
        || ngx_http_coord_cache_error_page(r, cache)
        || ngx_http_coord_cache_changed_ask(r, cache) != NGX_OK)
    {
        return;
    }

    store = cache->conf->zone->store;

    if (ngx_http_coord_cache_changed_send(cache) != NGX_AGAIN) {
        return;
    }

    /* a response that cannot wait is not ahead of it, either */

    ngx_coord_store_push(store);

    cache->purging = 1;
    ngx_http_coord_awaits(cache->ctx);

    ngx_coord_timer_init(&cache->timer, ngx_http_coord_cache_changed_late,
                         cache, r->connection->log);
    ngx_coord_timer_start(&cache->timer, store->timeout);
}


static ngx_int_t
ngx_http_coord_cache_changed_ask(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache)
{
    ngx_http_coord_cache_conf_t  *ccf;

    ccf = cache->conf;

    cache->batch = ngx_coord_batch_create(ccf->zone->store);
    if (cache->batch == NULL) {
        return NGX_ERROR;
    }

    if (ngx_http_coord_cache_purge_add(cache->batch, ccf->zone, ccf->near,
                                       cache->key, cache->key_len, 0)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_http_coord_cache_changed_groups(r, cache);
}


/* as many as a response may be in */

static ngx_int_t
ngx_http_coord_cache_changed_groups(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache)
{
    u_char       buf[NGX_HTTP_COORD_CACHE_TAG + 1], key[NGX_COORD_KEY_LEN];
    size_t       len;
    ngx_str_t   *line, left, group;
    ngx_list_t  *headers;
    ngx_uint_t   i, n;

    /* all of the upstream, as the client may not see them */

    headers = ngx_http_coord_capture_live(r) ? &r->upstream->headers_in.headers
                                             : &r->headers_out.headers;
    n = 0;

    for (i = 0; /* void */ ; /* void */ ) {
        line = ngx_http_coord_field_line(headers, "Cache-Group-Invalidation",
                                         &i);
        if (line == NULL) {
            return NGX_OK;
        }

        left = *line;

        while (n < NGX_HTTP_COORD_CACHE_TAGS
               && ngx_http_coord_field_member(&left, &group) == NGX_OK)
        {
            ngx_http_coord_cache_group(&group, buf);
            len = ngx_http_coord_cache_tag_key(key, &group);

            if (len == 0) {
                continue;
            }

            if (ngx_http_coord_cache_purge_add(cache->batch, cache->conf->zone,
                                               cache->conf->near, key, len, 1)
                != NGX_OK)
            {
                return NGX_ERROR;
            }

            n++;
        }
    }
}


/* NGX_OK: it is done, or not to be waited for; NGX_AGAIN: later */

static ngx_int_t
ngx_http_coord_cache_changed_send(ngx_http_coord_cache_t *cache)
{
    ngx_coord_batch_t  *batch;

    while (cache->batch) {
        batch = cache->batch;

        batch->handler = ngx_http_coord_cache_changed_answered;
        batch->data = cache;
        batch->silent = ngx_http_coord_is_silent(cache->ctx, batch->store);

        if (ngx_coord_batch_send(batch) == NGX_AGAIN) {
            return NGX_AGAIN;
        }

        ngx_http_coord_cache_changed_later(cache, 0);

        cache->batch = ngx_http_coord_cache_purge_note(batch);
        ngx_coord_batch_done(batch);
    }

    return NGX_OK;
}


/* what has failed, or all, is asked for again until it is done */

static void
ngx_http_coord_cache_changed_later(ngx_http_coord_cache_t *cache,
    ngx_uint_t all)
{
    ngx_uint_t       i;
    ngx_coord_op_t  *op, again;

    for (i = 0; i < cache->batch->nops; i++) {
        op = &cache->batch->ops[i];

        if (!all && op->rc != NGX_ERROR) {
            continue;
        }

        if (!all) {
            ngx_http_coord_cache_changed_log(cache, op);
        }

        again = *op;
        again.u.cache.apart = 0;

        ngx_coord_giveback_op(&again, NGX_HTTP_COORD_CACHE_FORGET);
    }
}


static void
ngx_http_coord_cache_changed_answered(ngx_coord_batch_t *batch)
{
    ngx_http_coord_cache_t *cache = batch->data;

    ngx_http_coord_cache_changed_later(cache, 0);

    cache->batch = ngx_http_coord_cache_purge_note(batch);
    ngx_coord_batch_done(batch);

    if (ngx_http_coord_cache_changed_send(cache) == NGX_AGAIN) {
        return;
    }

    ngx_coord_timer_stop(&cache->timer);

    ngx_http_coord_cache_changed_told(cache);
}


/* once: who was late answers yet */

static void
ngx_http_coord_cache_changed_told(ngx_http_coord_cache_t *cache)
{
    if (cache->purging) {
        cache->purging = 0;
        ngx_http_coord_certain(cache->ctx);
    }
}


/* its answers are of no interest to the client any more */

static void
ngx_http_coord_cache_changed_late(ngx_event_t *ev)
{
    ngx_http_coord_cache_t *cache = ngx_coord_timer_data(ev);

    ngx_http_coord_silence(cache->ctx, cache->batch->store);
    ngx_http_coord_cache_changed_log(cache, &cache->batch->ops[0]);

    ngx_http_coord_cache_changed_told(cache);
}


static void
ngx_http_coord_cache_changed_log(ngx_http_coord_cache_t *cache,
    ngx_coord_op_t *op)
{
    ngx_http_coord_log_fields_t  fields;

    if (cache->unpurged) {
        return;
    }

    cache->unpurged = 1;

    ngx_memzero(&fields, sizeof(ngx_http_coord_log_fields_t));

    fields.op = op;
    fields.outcome = NGX_COORD_OUTCOME_BYPASSED;

    ngx_http_coord_log(cache->request, NGX_LOG_ERR, &fields,
                       "what a request has changed is not known to be purged "
                       "from the cache zone \"%V\"",
                       &cache->conf->zone->name);
}


void
ngx_http_coord_cache_changed_end(ngx_http_coord_cache_t *cache)
{
    ngx_coord_timer_stop(&cache->timer);

    if (cache->batch == NULL) {
        return;
    }

    if (cache->batch->handler == ngx_http_coord_cache_changed_answered) {
        ngx_http_coord_cache_changed_later(cache, 1);
    }

    ngx_coord_batch_done(cache->batch);
    cache->batch = NULL;
}
