
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_cache: a request asks the store for its response, then, where there is
 * one, for the variant that it wants and for purges of its tags, and, before it
 * goes to the origin, whether another request is on that way already.
 */


#include "ngx_http_coord_cache.h"
#include "ngx_coord_lease.h"


#define NGX_HTTP_COORD_CACHE_POLL   100      /* ms: for what another fills */
#define NGX_HTTP_COORD_CACHE_WAIT   5000


static ngx_int_t ngx_http_coord_cache_step(ngx_http_coord_cache_t *cache,
    ngx_coord_op_t *ops, ngx_uint_t n);
static ngx_int_t ngx_http_coord_cache_got(ngx_http_coord_cache_t *cache,
    ngx_coord_op_t *op);
static ngx_uint_t ngx_http_coord_cache_before(ngx_http_coord_cache_t *cache,
    ngx_coord_nsec_t purged);
static ngx_int_t ngx_http_coord_cache_matches(ngx_http_coord_cache_t *cache);
static ngx_int_t ngx_http_coord_cache_tagged(ngx_http_coord_cache_t *cache,
    ngx_coord_op_t *ops, ngx_uint_t n);
static ngx_int_t ngx_http_coord_cache_usable(ngx_http_coord_cache_t *cache);
static ngx_int_t ngx_http_coord_cache_hit(ngx_http_coord_cache_t *cache,
    ngx_coord_outcome_e status);
static ngx_int_t ngx_http_coord_cache_miss(ngx_http_coord_cache_t *cache);
static ngx_int_t ngx_http_coord_cache_claimed(ngx_http_coord_cache_t *cache,
    ngx_coord_op_t *op);
static ngx_int_t ngx_http_coord_cache_fill(ngx_http_coord_cache_t *cache);
static ngx_int_t ngx_http_coord_cache_failed(ngx_http_coord_cache_t *cache,
    ngx_coord_op_t *op);
static void ngx_http_coord_cache_timer(ngx_event_t *ev);
static ngx_int_t ngx_http_coord_cache_respond(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx);
static void ngx_http_coord_cache_leave(ngx_http_coord_cache_t *cache);
static void ngx_http_coord_cache_drop(ngx_http_coord_cache_t *cache);
static void ngx_http_coord_cache_cleanup(void *data);


ngx_int_t
ngx_http_coord_cache_begin(ngx_http_request_t *r, ngx_http_coord_ctx_t *ctx)
{
    ngx_int_t                     rc;
    ngx_str_t                     key;
    ngx_uint_t                    unsafe;
    ngx_coord_op_t               *op;
    ngx_pool_cleanup_t           *cln;
    ngx_http_coord_cache_t       *cache;
    ngx_http_coord_loc_conf_t    *lcf;
    ngx_http_coord_cache_conf_t  *ccf;

    ccf = ngx_http_get_module_loc_conf(r, ngx_http_coord_cache_module);

    unsafe = ngx_http_coord_cache_unsafe(r);

    if (!unsafe && !(r->method & (NGX_HTTP_GET|NGX_HTTP_HEAD))) {
        return NGX_DECLINED;
    }

    if (ngx_http_complex_value(r, ccf->key, &key) != NGX_OK) {
        return NGX_ERROR;
    }

    if (key.len == 0) {
        return NGX_DECLINED;
    }

    if (ctx->state[ctx->slot]) {
        /* it begins anew: what it had in hand is for nobody */
        ngx_http_coord_cache_leave(ctx->state[ctx->slot]);
    }

    cache = ngx_pcalloc(r->pool, sizeof(ngx_http_coord_cache_t));
    cln = ngx_pool_cleanup_add(r->pool, 0);

    if (cache == NULL || cln == NULL) {
        return NGX_ERROR;
    }

    cln->handler = ngx_http_coord_cache_cleanup;
    cln->data = cache;

    lcf = ngx_http_get_module_loc_conf(r, ngx_http_coord_module);

    cache->request = r;
    cache->ctx = ctx;
    cache->conf = ccf;
    cache->on_failure = lcf->on_failure;

    ngx_http_coord_cache_arrived(r, cache);

    ngx_coord_timer_init(&cache->timer, ngx_http_coord_cache_timer, cache,
                         r->connection->log);

    ctx->state[ctx->slot] = cache;

    cache->key_len = ngx_coord_key_encode(cache->key, &key);

    if (cache->key_len == 0) {
        return NGX_ERROR;
    }

    if (unsafe) {
        cache->state = NGX_HTTP_COORD_CACHE_UNSAFE;
        return NGX_DECLINED;
    }

    rc = ngx_http_coord_cache_ask_near(cache);

    if (rc != NGX_DECLINED) {
        return rc;
    }

    cache->missed = 1;

    op = ngx_http_coord_add(r, ctx, &ngx_coord_op_cache_get, ccf->zone, &key,
                            0, NGX_COORD_FAILURE_OPEN, &cache->ref);

    return op ? NGX_OK : NGX_ERROR;
}


/* called again when what it has asked for is there */

ngx_int_t
ngx_http_coord_cache_decide(ngx_http_request_t *r, ngx_http_coord_ctx_t *ctx)
{
    ngx_int_t                rc;
    ngx_uint_t               n;
    ngx_coord_op_t          *ops;
    ngx_coord_batch_t       *batch;
    ngx_http_coord_cache_t  *cache;

    cache = ctx->state[ctx->slot];

    if (cache->state == NGX_HTTP_COORD_CACHE_ASKED) {
        ops = ngx_http_coord_op(ctx, cache->ref);
        rc = ngx_http_coord_cache_step(cache, ops, 1);

    } else if (cache->state == NGX_HTTP_COORD_CACHE_WAITING) {
        rc = ngx_http_coord_cache_ask_get(cache, cache->key, cache->key_len);

        if (rc == NGX_OK) {
            rc = ngx_http_coord_cache_ask(cache, NGX_HTTP_COORD_CACHE_AGAIN);
        }

    } else {
        rc = NGX_OK;
    }

    /* NGX_OK: the batch has its answers */

    while (rc == NGX_OK) {
        batch = cache->batch;
        ops = batch->ops;
        n = batch->nops;

        cache->batch = NULL;
        rc = ngx_http_coord_cache_step(cache, ops, n);

        ngx_coord_batch_done(batch);
    }

    if (rc == NGX_ERROR) {
        ngx_http_coord_cache_settle(cache);
    }

    return rc;
}


/* NGX_OK: another batch has its answers; else what decide() returns */

static ngx_int_t
ngx_http_coord_cache_step(ngx_http_coord_cache_t *cache, ngx_coord_op_t *ops,
    ngx_uint_t n)
{
    switch (cache->state) {

    case NGX_HTTP_COORD_CACHE_ASKED:
    case NGX_HTTP_COORD_CACHE_AGAIN:
    case NGX_HTTP_COORD_CACHE_VARIANT:
    case NGX_HTTP_COORD_CACHE_CHECKED:
        return ngx_http_coord_cache_got(cache, &ops[0]);

    case NGX_HTTP_COORD_CACHE_TAGS_ASKED:
        return ngx_http_coord_cache_tagged(cache, ops, n);

    default: /* NGX_HTTP_COORD_CACHE_CLAIMED */
        return ngx_http_coord_cache_claimed(cache, &ops[0]);
    }
}


static ngx_int_t
ngx_http_coord_cache_got(ngx_http_coord_cache_t *cache, ngx_coord_op_t *op)
{
    ngx_int_t                 rc;
    ngx_str_t                 key;
    ngx_http_coord_stored_t  *stored;

    if (op->rc == NGX_ERROR) {
        return ngx_http_coord_cache_failed(cache, op);
    }

    cache->now = op->u.cache.now;
    cache->taken = ngx_coord_monotonic();

    if (cache->state != NGX_HTTP_COORD_CACHE_VARIANT) {
        cache->purged = op->u.cache.purged;
    }

    cache->marked = 0;
    cache->asked_len = op->key_len;

    ngx_memcpy(cache->asked, op->key, op->key_len);

    if (op->rc != NGX_OK) {
        return ngx_http_coord_cache_miss(cache);
    }

    ngx_http_coord_cache_drop(cache);

    cache->blob = cache->near ? cache->lent : op->record;
    cache->pooled = cache->near;
    op->record.data = NULL;

    if (ngx_http_coord_stored_is_mark(&cache->blob)) {
        ngx_http_coord_cache_drop(cache);
        cache->marked = 1;
        return ngx_http_coord_cache_miss(cache);
    }

    stored = &cache->stored;

    key.data = cache->key;
    key.len = cache->key_len;

    rc = ngx_http_coord_stored_decode(stored, &cache->blob, &key);

    if (rc == NGX_ERROR) {
        ngx_log_error(NGX_LOG_ERR, cache->request->connection->log, 0,
                      "a stored response of cache zone \"%V\" is damaged, "
                      "it is not used", &cache->conf->zone->name);
    }

    if (rc != NGX_OK) {
        ngx_http_coord_cache_drop(cache);
        return ngx_http_coord_cache_miss(cache);
    }

    if (ngx_http_coord_cache_before(cache, cache->purged)) {
        ngx_http_coord_cache_drop(cache);
        return ngx_http_coord_cache_miss(cache);
    }

    return ngx_http_coord_cache_matches(cache);
}


/* 1 if what is stored was asked for before this purge; 0: there was none */

static ngx_uint_t
ngx_http_coord_cache_before(ngx_http_coord_cache_t *cache,
    ngx_coord_nsec_t purged)
{
    if (purged == 0) {
        return 0;
    }

    if (ngx_coord_store_apart(cache->conf->zone->store)) {
        purged += NGX_HTTP_COORD_CACHE_SLACK;
    }

    return cache->stored.started <= purged;
}


/* whether it is the variant that the request wants */

static ngx_int_t
ngx_http_coord_cache_matches(ngx_http_coord_cache_t *cache)
{
    u_char                    digest[NGX_COORD_DIGEST_LEN];
    u_char                    variant[NGX_COORD_KEY_LEN];
    size_t                    len;
    ngx_int_t                 rc;
    ngx_str_t                 lines[NGX_HTTP_COORD_CACHE_TAGS];
    ngx_uint_t                n;
    ngx_http_coord_stored_t  *stored;

    stored = &cache->stored;

    n = stored->unvaried ? 0
        : ngx_http_coord_stored_field(&stored->record, "Vary", lines,
                                      NGX_HTTP_COORD_CACHE_TAGS);

    rc = ngx_http_coord_cache_variant(cache->request, cache->conf, lines, n,
                                      digest);

    if (rc == NGX_OK
        && (!stored->varies
            || ngx_memcmp(digest, stored->variant, NGX_COORD_DIGEST_LEN) != 0))
    {
        ngx_http_coord_cache_drop(cache);

        if (cache->state == NGX_HTTP_COORD_CACHE_VARIANT) {
            return ngx_http_coord_cache_miss(cache);
        }

        len = ngx_http_coord_cache_variant_key(variant, cache, digest);

        if (len == 0
            || ngx_http_coord_cache_ask_get(cache, variant, len) != NGX_OK)
        {
            return NGX_ERROR;
        }

        return ngx_http_coord_cache_ask(cache, NGX_HTTP_COORD_CACHE_VARIANT);
    }

    /* it cannot be told, or another location has it for some only */

    if (rc != NGX_OK && (rc != NGX_DECLINED || stored->varies)) {
        ngx_http_coord_cache_drop(cache);
        return ngx_http_coord_cache_miss(cache);
    }

    if (stored->tags.len) {

        if (ngx_http_coord_cache_ask_tags(cache) != NGX_OK) {
            return NGX_ERROR;
        }

        return ngx_http_coord_cache_ask(cache,
                                        NGX_HTTP_COORD_CACHE_TAGS_ASKED);
    }

    return ngx_http_coord_cache_usable(cache);
}


/* of each tag the time of its last purge */

static ngx_int_t
ngx_http_coord_cache_tagged(ngx_http_coord_cache_t *cache,
    ngx_coord_op_t *ops, ngx_uint_t n)
{
    ngx_uint_t  i;

    for (i = 0; i < n; i++) {

        if (ops[i].rc == NGX_ERROR) {
            ngx_http_coord_cache_drop(cache);
            return ngx_http_coord_cache_failed(cache, &ops[i]);
        }

        if (ngx_http_coord_cache_before(cache, ops[i].u.cache.purged)) {
            ngx_http_coord_cache_drop(cache);
            return ngx_http_coord_cache_miss(cache);
        }
    }

    return ngx_http_coord_cache_usable(cache);
}


/* a response that is what the request asks for */

static ngx_int_t
ngx_http_coord_cache_usable(ngx_http_coord_cache_t *cache)
{
    ngx_http_coord_stored_t  *stored;

    stored = &cache->stored;

    cache->old = cache->now - stored->stored;
    cache->old = stored->age + ngx_max(cache->old, 0);

    if (cache->old < stored->fresh) {

        if (cache->missed) {
            ngx_http_coord_cache_near_found(cache);
        }

        return ngx_http_coord_cache_hit(cache, NGX_COORD_OUTCOME_HIT);
    }

    if (cache->old >= stored->keep) {
        ngx_http_coord_cache_drop(cache);
        return ngx_http_coord_cache_miss(cache);
    }

    /* for a 304, or an error */

    if (!ngx_http_coord_stored_while(cache)) {
        return ngx_http_coord_cache_miss(cache);
    }

    if (ngx_http_coord_cache_asked(cache->request, "only-if-cached")) {
        return ngx_http_coord_cache_hit(cache, NGX_COORD_OUTCOME_STALE);
    }

    if (cache->claimed) {

        if (stored->allowed
            && cache->request->method == NGX_HTTP_GET
            && ngx_http_coord_cache_update(cache) == NGX_OK)
        {
            return ngx_http_coord_cache_hit(cache, NGX_COORD_OUTCOME_STALE);
        }

        return ngx_http_coord_cache_fill(cache);
    }

    /* one request asks the origin, others need not wait for it */

    if (ngx_http_coord_cache_ask_claim(cache) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_http_coord_cache_ask(cache, NGX_HTTP_COORD_CACHE_CLAIMED);
}


static ngx_int_t
ngx_http_coord_cache_hit(ngx_http_coord_cache_t *cache,
    ngx_coord_outcome_e status)
{
    cache->status = status;

    ngx_http_coord_cache_settle(cache);

    cache->ctx->respond = ngx_http_coord_cache_respond;

    return cache->stored.record.status;
}


static ngx_int_t
ngx_http_coord_cache_miss(ngx_http_coord_cache_t *cache)
{
    if (cache->near) {

        /*
         * A response is stored with the time that only the store knows, and
         * what has been of no use in memory is of none the next time.
         */

        cache->far = 1;

        ngx_http_coord_cache_drop(cache);

        if (ngx_http_coord_cache_ask_get(cache, cache->key, cache->key_len)
            != NGX_OK)
        {
            return NGX_ERROR;
        }

        return ngx_http_coord_cache_ask(cache, NGX_HTTP_COORD_CACHE_AGAIN);
    }

    if (ngx_http_coord_cache_asked(cache->request, "only-if-cached")) {
        cache->status = NGX_COORD_OUTCOME_MISS;
        ngx_http_coord_cache_settle(cache);

        return NGX_HTTP_GATEWAY_TIME_OUT;
    }

    /* what is revalidated at each use is not waited for, either */

    if (cache->claimed
        || cache->marked
        || (cache->blob.data && cache->stored.fresh == 0)
        || !cache->conf->lock
        || ngx_http_coord_cache_asked(cache->request, "no-store")
        || cache->request->method != NGX_HTTP_GET
        || (cache->waited
            && ngx_current_msec - cache->waited >= NGX_HTTP_COORD_CACHE_WAIT))
    {
        return ngx_http_coord_cache_fill(cache);
    }

    if (ngx_http_coord_cache_ask_claim(cache) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_http_coord_cache_ask(cache, NGX_HTTP_COORD_CACHE_CLAIMED);
}


static ngx_int_t
ngx_http_coord_cache_claimed(ngx_http_coord_cache_t *cache,
    ngx_coord_op_t *op)
{
    if (op->rc == NGX_ERROR) {
        return ngx_http_coord_cache_failed(cache, op);
    }

    if (op->rc == NGX_OK) {
        cache->claim = *op;
        cache->claimed = 1;

        /* who had it may have stored a response since this one has looked */

        if (ngx_http_coord_cache_ask_get(cache, cache->key, cache->key_len)
            != NGX_OK)
        {
            return NGX_ERROR;
        }

        return ngx_http_coord_cache_ask(cache, NGX_HTTP_COORD_CACHE_CHECKED);
    }

    ngx_coord_journal_remove(op);

    if (ngx_http_coord_stored_while(cache)) {
        return ngx_http_coord_cache_hit(cache, NGX_COORD_OUTCOME_UPDATING);
    }

    ngx_http_coord_cache_drop(cache);

    cache->state = NGX_HTTP_COORD_CACHE_WAITING;

    if (cache->waited == 0) {
        cache->waited = ngx_current_msec;
    }

    ngx_coord_timer_start(&cache->timer, NGX_HTTP_COORD_CACHE_POLL);

    return NGX_AGAIN;
}


/* the request goes to the origin, and its response will be kept */

static ngx_int_t
ngx_http_coord_cache_fill(ngx_http_coord_cache_t *cache)
{
    /* what was never to be used without its origin has not expired */

    cache->status = (cache->blob.data
                     && cache->stored.fresh + cache->stored.stale)
                    ? NGX_COORD_OUTCOME_EXPIRED : NGX_COORD_OUTCOME_MISS;

    if (cache->request->method != NGX_HTTP_GET) {
        ngx_http_coord_cache_settle(cache);
        return NGX_DECLINED;
    }

    cache->state = NGX_HTTP_COORD_CACHE_FILLING;

    ngx_http_coord_cache_client_take(cache->request, &cache->client);

    if (cache->blob.data
        && ngx_http_coord_cache_ask_origin(cache->request, cache) != NGX_OK)
    {
        return NGX_ERROR;
    }

    return NGX_DECLINED;
}


/* as if there were no cache */

static ngx_int_t
ngx_http_coord_cache_failed(ngx_http_coord_cache_t *cache, ngx_coord_op_t *op)
{
    ngx_http_coord_log_fields_t  fields;

    cache->status = NGX_COORD_OUTCOME_BYPASS;

    ngx_http_coord_cache_settle(cache);

    ngx_memzero(&fields, sizeof(ngx_http_coord_log_fields_t));

    fields.op = op;
    fields.outcome = NGX_COORD_OUTCOME_BYPASSED;

    ngx_http_coord_log(cache->request, NGX_LOG_ERR, &fields,
                       "request goes past the cache zone \"%V\"",
                       &cache->conf->zone->name);

    return NGX_DECLINED;
}


static void
ngx_http_coord_cache_timer(ngx_event_t *ev)
{
    ngx_http_coord_cache_t *cache = ngx_coord_timer_data(ev);

    ngx_http_coord_resume(cache->ctx);
}


/* a ngx_http_coord_respond_pt */

static ngx_int_t
ngx_http_coord_cache_respond(ngx_http_request_t *r, ngx_http_coord_ctx_t *ctx)
{
    ngx_keyval_t             mark;
    ngx_http_coord_cache_t  *cache;

    cache = ctx->state[ngx_http_coord_cache_feature.slot];

    if (cache->update) {
        ngx_http_coord_cache_update_start(r, cache->update);
    }

    if (ngx_http_coord_cache_age(r, cache, &mark) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_http_coord_replay_cached(r, &cache->stored.record, &mark);
}


ngx_http_coord_cache_t *
ngx_http_coord_cache_get(ngx_http_request_t *r)
{
    ngx_http_coord_ctx_t  *ctx;

    ctx = ngx_http_coord_get_ctx(r);

    return ctx ? ctx->state[ngx_http_coord_cache_feature.slot] : NULL;
}


void
ngx_http_coord_cache_end(ngx_http_coord_ctx_t *ctx, void *data)
{
    ngx_http_coord_cache_t *cache = data;

    if (cache == NULL) {
        return;
    }

    ngx_http_coord_cache_leave(cache);
    ngx_http_coord_cache_settle(cache);
}


static void
ngx_http_coord_cache_leave(ngx_http_coord_cache_t *cache)
{
    ngx_coord_timer_stop(&cache->timer);

    if (cache->batch) {
        ngx_coord_batch_done(cache->batch);
        cache->batch = NULL;
    }
}


static void
ngx_http_coord_cache_drop(ngx_http_coord_cache_t *cache)
{
    if (cache->blob.data && !cache->pooled) {
        ngx_free(cache->blob.data);
    }

    ngx_str_null(&cache->blob);
}


/*
 * What is sent from the blob lives as long as the pool; and of a request that
 * the cache has nothing to decide about nobody else tells the end.
 */

static void
ngx_http_coord_cache_cleanup(void *data)
{
    ngx_http_coord_cache_changed_end(data);
    ngx_http_coord_cache_drop(data);
}
