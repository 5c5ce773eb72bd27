
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * A response that was captured goes to the store, or the mark that there is
 * none to wait for.
 */


#include "ngx_http_coord_cache.h"


/* for so long nobody waits for a response that could not be kept */
#define NGX_HTTP_COORD_CACHE_MARK  (30 * NGX_COORD_NSEC_PER_SEC)


/* what outlives the request that has filled the cache */
typedef struct {
    ngx_coord_op_t             claim;
} ngx_http_coord_cache_put_t;


static ngx_int_t ngx_http_coord_cache_add(ngx_http_coord_cache_t *cache,
    ngx_coord_batch_t *batch, u_char *key, size_t len, ngx_str_t *blob);
static ngx_int_t ngx_http_coord_cache_blob(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache, ngx_str_t *key, ngx_str_t *blob);
static void ngx_http_coord_cache_put(ngx_http_coord_cache_t *cache,
    ngx_coord_batch_t *batch);
static void ngx_http_coord_cache_put_done(ngx_coord_batch_t *batch);


/* under its key, and where there are others as well under its variant */

void
ngx_http_coord_cache_store(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache)
{
    size_t              len;
    u_char              variant[NGX_COORD_KEY_LEN];
    ngx_str_t           key, blob;
    ngx_coord_batch_t  *batch;

    batch = ngx_coord_batch_create(cache->conf->zone->store);
    if (batch == NULL) {
        return;
    }

    key.data = cache->key;
    key.len = cache->key_len;

    if (ngx_http_coord_cache_blob(r, cache, &key, &blob) != NGX_OK
        || ngx_http_coord_cache_add(cache, batch, key.data, key.len, &blob)
           != NGX_OK)
    {
        ngx_coord_batch_done(batch);
        return;
    }

    if (cache->fill.varies) {
        len = ngx_http_coord_cache_variant_key(variant, cache,
                                               cache->fill.variant);
        blob.data = ngx_alloc(blob.len, r->connection->log);

        if (len && blob.data) {
            ngx_memcpy(blob.data, batch->ops[0].record.data, blob.len);
            (void) ngx_http_coord_cache_add(cache, batch, variant, len, &blob);
        }
    }

    ngx_http_coord_cache_put(cache, batch);
}


void
ngx_http_coord_cache_mark(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache)
{
    ngx_str_t           mark;
    ngx_coord_op_t     *op;
    ngx_coord_batch_t  *batch;

    /*
     * Who waits for what is stale is sent that, unless it must not be used,
     * and then the mark takes its place.  So it does if the origin has answered
     * in the background: without, all would be sent what is stale until the end
     * of that.  An error may be over.
     */

    if (!cache->claimed
        || (ngx_http_coord_stored_while(cache) && !cache->background)
        || r->headers_out.status >= NGX_HTTP_INTERNAL_SERVER_ERROR
        || (cache->background
            && r->headers_out.status == NGX_HTTP_TOO_MANY_REQUESTS)
        || ngx_http_coord_cache_error_page(r, cache)
        || ngx_http_coord_cache_asked(r, "no-store"))
    {
        return;
    }

    batch = ngx_coord_batch_create(cache->conf->zone->store);
    if (batch == NULL) {
        return;
    }

    if (ngx_http_coord_stored_mark(&mark) != NGX_OK) {
        ngx_coord_batch_done(batch);
        return;
    }

    op = ngx_coord_batch_add(batch, cache->blob.data
                                    ? &ngx_coord_op_cache_put
                                    : &ngx_coord_op_cache_mark,
                             cache->conf->zone, cache->asked,
                             cache->asked_len);
    if (op == NULL) {
        ngx_free(mark.data);
        ngx_coord_batch_done(batch);
        return;
    }

    op->record = mark;
    op->u.cache.ttl = NGX_HTTP_COORD_CACHE_MARK;

    ngx_http_coord_cache_put(cache, batch);
}


/* takes the blob, whatever becomes of it */

static ngx_int_t
ngx_http_coord_cache_add(ngx_http_coord_cache_t *cache,
    ngx_coord_batch_t *batch, u_char *key, size_t len, ngx_str_t *blob)
{
    ngx_coord_op_t           *op;
    ngx_http_coord_stored_t  *fill;

    op = ngx_coord_batch_add(batch, &ngx_coord_op_cache_put,
                             cache->conf->zone, key, len);
    if (op == NULL) {
        ngx_free(blob->data);
        return NGX_ERROR;
    }

    fill = &cache->fill;

    op->record = *blob;
    op->u.cache.ttl = fill->keep - fill->age + NGX_COORD_NSEC_PER_SEC;

    return NGX_OK;
}


static ngx_int_t
ngx_http_coord_cache_blob(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache, ngx_str_t *key, ngx_str_t *blob)
{
    u_char     digest[NGX_COORD_DIGEST_LEN];
    ngx_str_t  meta, record;

    meta.data = cache->meta;
    meta.len = cache->fill.tags.data + cache->fill.tags.len - cache->meta;

    if (ngx_coord_digest_init() != NGX_OK
        || ngx_coord_digest_update(meta.data, meta.len) != NGX_OK
        || ngx_coord_digest_final(digest) != NGX_OK
        || ngx_http_coord_capture_encode(r, &cache->capture, key, digest,
                                         &record)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (cache->capture.record.omitted) {
        ngx_free(record.data);
        return NGX_DECLINED;
    }

    return ngx_http_coord_stored_join(&meta, &record, blob);
}


/*
 * The claim ends when it is stored: who waits for it finds it then.  So does
 * who asks another node for it as soon as this client has all of it.
 */

static void
ngx_http_coord_cache_put(ngx_http_coord_cache_t *cache,
    ngx_coord_batch_t *batch)
{
    ngx_http_coord_cache_put_t  *put;

    put = NULL;

    if (cache->claimed) {
        put = ngx_alloc(sizeof(ngx_http_coord_cache_put_t), ngx_cycle->log);

        if (put) {
            put->claim = cache->claim;
            cache->claimed = 0;

            batch->handler = ngx_http_coord_cache_put_done;
            batch->data = put;
        }
    }

    /* without a handler it releases itself */

    if (ngx_coord_batch_send(batch) == NGX_OK && put) {
        ngx_http_coord_cache_put_done(batch);
    }

    ngx_coord_store_push(cache->conf->zone->store);
}


static void
ngx_http_coord_cache_put_done(ngx_coord_batch_t *batch)
{
    ngx_http_coord_cache_put_t  *put;

    put = batch->data;

    ngx_coord_op_undo(&put->claim);
    ngx_free(put);

    ngx_coord_batch_done(batch);
}
