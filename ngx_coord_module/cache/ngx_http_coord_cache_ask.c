
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_cache: what a request asks the store behind the batch of its stage, and
 * the end of that.
 */


#include "ngx_http_coord_cache.h"
#include "ngx_coord_lease.h"


#define NGX_HTTP_COORD_CACHE_LEASE  30000    /* milliseconds: of a fill */


static ngx_int_t ngx_http_coord_cache_answer_near(
    ngx_http_coord_cache_t *cache);
static void ngx_http_coord_cache_answered(ngx_coord_batch_t *batch);


ngx_int_t
ngx_http_coord_cache_ask(ngx_http_coord_cache_t *cache,
    ngx_http_coord_cache_e state)
{
    cache->state = state;

    if (ngx_http_coord_cache_answer_near(cache) == NGX_OK) {
        return NGX_OK;
    }

    cache->near = 0;
    cache->missed = 1;

    cache->batch->handler = ngx_http_coord_cache_answered;
    cache->batch->data = cache;
    cache->batch->silent = ngx_http_coord_is_silent(cache->ctx,
                                                    cache->batch->store);

    return ngx_coord_batch_send(cache->batch) == NGX_OK ? NGX_OK : NGX_AGAIN;
}


/* all of its operations; after a wait, or for a claim, the store is asked */

static ngx_int_t
ngx_http_coord_cache_answer_near(ngx_http_coord_cache_t *cache)
{
    ngx_uint_t          i, tags;
    ngx_coord_batch_t  *batch;

    if (cache->far
        || (cache->state != NGX_HTTP_COORD_CACHE_VARIANT
            && cache->state != NGX_HTTP_COORD_CACHE_TAGS_ASKED))
    {
        return NGX_DECLINED;
    }

    batch = cache->batch;
    tags = (cache->state == NGX_HTTP_COORD_CACHE_TAGS_ASKED);

    for (i = 0; i < batch->nops; i++) {
        if (ngx_http_coord_cache_near_get(cache, &batch->ops[i], tags)
            != NGX_OK)
        {
            return NGX_DECLINED;
        }
    }

    cache->near = 1;

    return NGX_OK;
}


ngx_int_t
ngx_http_coord_cache_ask_near(ngx_http_coord_cache_t *cache)
{
    ngx_coord_op_t  op, *asked;

    op.zone = cache->conf->zone;
    op.key_len = cache->key_len;

    ngx_memcpy(op.key, cache->key, cache->key_len);

    if (ngx_http_coord_cache_near_get(cache, &op, 0) != NGX_OK) {
        return NGX_DECLINED;
    }

    if (ngx_http_coord_cache_ask_get(cache, cache->key, cache->key_len)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    asked = &cache->batch->ops[0];

    asked->rc = op.rc;
    asked->u.cache = op.u.cache;

    cache->near = 1;
    cache->state = NGX_HTTP_COORD_CACHE_AGAIN;

    return NGX_OK;
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

    if (op == NULL) {
        return NGX_ERROR;
    }

    op->u.lease.limit = 1;
    op->u.lease.lease = NGX_HTTP_COORD_CACHE_LEASE * NGX_COORD_NSEC_PER_MSEC;

    return ngx_coord_lease_name(op);
}


static void
ngx_http_coord_cache_answered(ngx_coord_batch_t *batch)
{
    ngx_http_coord_cache_t  *cache;

    cache = batch->data;

    ngx_http_coord_batch_answered(cache->ctx, batch);
    ngx_http_coord_resume(cache->ctx);
}


void
ngx_http_coord_cache_settle(ngx_http_coord_cache_t *cache)
{
    if (cache->state == NGX_HTTP_COORD_CACHE_SETTLED) {
        return;
    }

    cache->state = NGX_HTTP_COORD_CACHE_SETTLED;

    /* the words of proxy_cache are those of the others but for one */

    if (cache->status == NGX_COORD_OUTCOME_BYPASS) {
        ngx_coord_metrics_decision(cache->conf->zone,
                                   NGX_COORD_OUTCOME_BYPASSED);

    } else if (cache->status != NGX_COORD_OUTCOME_UNDECIDED) {
        ngx_coord_metrics_decision(cache->conf->zone, cache->status);
    }

    if (cache->claimed) {
        cache->claimed = 0;
        ngx_coord_op_undo(&cache->claim);
    }
}
