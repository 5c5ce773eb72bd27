
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The state of a client request: found, also after internal redirects, made,
 * filled with operations, and ended with the request.
 */


#include "ngx_http_coord.h"


/* places for reports that stand with the state */
#define NGX_HTTP_COORD_REPORTS      2


static ngx_coord_batch_t *ngx_http_coord_batch(ngx_http_coord_ctx_t *ctx,
    ngx_coord_store_t *store, uint16_t *n);
static void ngx_http_coord_op_address(ngx_coord_op_t *op, ngx_str_t *key);
static void ngx_http_coord_marker(void *data);
static void ngx_http_coord_cleanup(void *data);


ngx_http_coord_ctx_t *
ngx_http_coord_find_ctx(ngx_http_request_t *r)
{
    ngx_pool_cleanup_t    *cln;
    ngx_http_coord_ctx_t  *ctx;

    ctx = NULL;

    for (cln = r->pool->cleanup; cln; cln = cln->next) {
        if (cln->handler == ngx_http_coord_marker) {
            ctx = cln->data;
            ngx_http_set_ctx(r, ctx, ngx_http_coord_module);
            break;
        }
    }

    return ctx;
}


ngx_http_coord_ctx_t *
ngx_http_coord_ctx(ngx_http_request_t *r)
{
    size_t                       size;
    ngx_http_coord_ctx_t        *ctx;
    ngx_http_coord_main_conf_t  *mcf;

    ctx = ngx_http_coord_get_ctx(r);
    if (ctx) {
        return ctx;
    }

    r = r->main;

    mcf = ngx_http_get_module_main_conf(r, ngx_http_coord_module);

    size = sizeof(ngx_http_coord_ctx_t) + mcf->features.nelts * sizeof(void *);

    ctx = ngx_palloc(r->pool, size + NGX_HTTP_COORD_REPORTS
                                     * sizeof(ngx_http_coord_report_t));
    if (ctx == NULL) {
        return NULL;
    }

    /* reports are zeroed when there are any */

    ngx_memzero(ctx, size);

    ctx->state = (void **) (ctx + 1);

    ctx->batches.elts = &ctx->first_batch;
    ctx->batches.size = sizeof(ngx_coord_batch_t *);
    ctx->batches.nalloc = 1;
    ctx->batches.pool = r->pool;

    ctx->reports.elts = (u_char *) ctx + size;
    ctx->reports.size = sizeof(ngx_http_coord_report_t);
    ctx->reports.nalloc = NGX_HTTP_COORD_REPORTS;
    ctx->reports.pool = r->pool;

    ctx->marker.handler = ngx_http_coord_marker;
    ctx->marker.data = ctx;
    ctx->marker.next = r->pool->cleanup;
    r->pool->cleanup = &ctx->marker;

    ctx->cleanup.handler = ngx_http_coord_cleanup;
    ctx->cleanup.data = ctx;
    ctx->cleanup.next = r->cleanup;
    r->cleanup = &ctx->cleanup;

    ctx->request = r;

    ngx_http_set_ctx(r, ctx, ngx_http_coord_module);

    return ctx;
}


/*
 * Marks the pool of a request, so that its state is found after a redirect.
 * When the pool ends, a frame that resets a stream waits for the next one of
 * its connection if it was no frame of the client that ended the stream; the
 * others may be silent for long.
 */

static void
ngx_http_coord_marker(void *data)
{
#if (NGX_HTTP_V2)

    ngx_http_coord_ctx_t *ctx = data;

    ngx_http_v2_stream_t      *stream;
    ngx_http_v2_connection_t  *h2c;

    stream = ctx->request->main->stream;

    if (stream == NULL) {
        return;
    }

    h2c = stream->connection;

    if (h2c->last_out && h2c->processing > 1 && !h2c->blocked) {
        ngx_post_event(h2c->connection->write, &ngx_posted_events);
    }

#endif
}


static ngx_coord_batch_t *
ngx_http_coord_batch(ngx_http_coord_ctx_t *ctx, ngx_coord_store_t *store,
    uint16_t *n)
{
    ngx_uint_t           i;
    ngx_coord_batch_t   *batch, **batches;

    batches = ctx->batches.elts;

    for (i = 0; i < ctx->batches.nelts; i++) {
        if (batches[i]->store == store) {
            *n = i;
            return batches[i];
        }
    }

    batch = ngx_coord_batch_create(store);
    if (batch == NULL) {
        return NULL;
    }

    batches = ngx_array_push(&ctx->batches);
    if (batches == NULL) {
        ngx_coord_batch_done(batch);
        return NULL;
    }

    batch->request = 1;

    *batches = batch;
    *n = i;

    return batch;
}


ngx_coord_op_t *
ngx_http_coord_add(ngx_http_request_t *r, ngx_http_coord_ctx_t *ctx,
    const ngx_coord_op_type_t *type, ngx_coord_zone_t *zone, ngx_str_t *key,
    ngx_uint_t secret, ngx_uint_t on_failure, ngx_http_coord_ref_t *ref)
{
    u_char           encoded[NGX_COORD_KEY_LEN];
    size_t           len;
    ngx_coord_op_t  *op;

    len = secret ? ngx_coord_key_digest(encoded, key)
                 : ngx_coord_key_encode(encoded, key);

    if (len == 0) {
        return NULL;
    }

    op = ngx_http_coord_add_encoded(r, ctx, type, zone, encoded, len,
                                    on_failure, ref);

    if (op) {
        ngx_http_coord_op_address(op, key);
    }

    return op;
}


/* where the key of a zone is an address, it is told as that */

static void
ngx_http_coord_op_address(ngx_coord_op_t *op, ngx_str_t *key)
{
    op->address_len = 0;

    if (op->zone->address
        && (key->len == sizeof(in_addr_t)
            || key->len == NGX_COORD_ADDRESS_LEN))
    {
        op->address_len = key->len;

        /* of lengths that the compiler knows: no call */

        if (key->len == sizeof(in_addr_t)) {
            ngx_memcpy(op->address, key->data, sizeof(in_addr_t));

        } else {
            ngx_memcpy(op->address, key->data, NGX_COORD_ADDRESS_LEN);
        }
    }
}


ngx_coord_op_t *
ngx_http_coord_add_encoded(ngx_http_request_t *r, ngx_http_coord_ctx_t *ctx,
    const ngx_coord_op_type_t *type, ngx_coord_zone_t *zone, u_char *key,
    size_t len, ngx_uint_t on_failure, ngx_http_coord_ref_t *ref)
{
    ngx_coord_op_t             *op;
    ngx_coord_batch_t          *batch;
    ngx_http_coord_loc_conf_t  *lcf;

    batch = ngx_http_coord_batch(ctx, zone->store, &ref->batch);
    if (batch == NULL) {
        return NULL;
    }

    ref->op = batch->nops;

    op = ngx_coord_batch_add(batch, type, zone, key, len);
    if (op == NULL) {
        return NULL;
    }

    if (on_failure == NGX_CONF_UNSET_UINT) {
        lcf = ngx_http_get_module_loc_conf(r, ngx_http_coord_module);
        on_failure = lcf->on_failure;
    }

    op->tag = ctx->slot;
    op->on_failure = on_failure;

    return op;
}


ngx_int_t
ngx_http_coord_known(ngx_http_request_t *r, ngx_coord_op_t *op,
    ngx_coord_zone_t *zone, ngx_str_t *key, ngx_uint_t on_failure,
    ngx_int_t rc)
{
    ngx_http_coord_loc_conf_t  *lcf;

    lcf = ngx_http_get_module_loc_conf(r, ngx_http_coord_module);

    op->rc = rc;
    op->zone = zone;
    op->key_len = ngx_coord_key_encode(op->key, key);

    ngx_http_coord_op_address(op, key);

    op->on_failure = (on_failure == NGX_CONF_UNSET_UINT) ? lcf->on_failure
                                                         : on_failure;

    return op->key_len ? NGX_OK : NGX_ERROR;
}


ngx_int_t
ngx_http_coord_value(ngx_http_request_t *r, ngx_http_complex_value_t *cv,
    ngx_str_t *value)
{
    ngx_http_script_code_pt      variable;
    ngx_http_variable_value_t   *v;
    ngx_http_script_var_code_t  *code;

    code = cv->lengths;

    if (code == NULL) {
        *value = cv->value;
        return NGX_OK;
    }

    variable = (ngx_http_script_code_pt) (void *)
                                             ngx_http_script_copy_var_len_code;

    if (code->code != variable || *(uintptr_t *) (code + 1) != 0) {
        return ngx_http_complex_value(r, cv, value);
    }

    /* nothing but a variable */

    v = ngx_http_get_flushed_variable(r, code->index);

    if (v == NULL || v->not_found) {
        ngx_str_set(value, "");
        return NGX_OK;
    }

    value->len = v->len;
    value->data = v->data;

    return NGX_OK;
}


ngx_int_t
ngx_http_coord_zone_key(ngx_http_request_t *r, ngx_coord_zone_t *zone,
    ngx_http_complex_value_t *cv, ngx_str_t *key)
{
    if (ngx_http_coord_value(r, cv, key) != NGX_OK) {
        return NGX_ERROR;
    }

    if (key->len > 1 && key->data[0] == '$' && !zone->warned) {
        zone->warned = 1;

        ngx_log_error(NGX_LOG_WARN, r->connection->log, 0,
                      "the key in zone \"%V\" is the name of a variable, not "
                      "its value: \"geo\" does not evaluate what it yields",
                      &zone->name);
    }

    return NGX_OK;
}


void
ngx_http_coord_batch_answered(ngx_http_coord_ctx_t *ctx,
    ngx_coord_batch_t *batch)
{
    ngx_uint_t  i;

    for (i = 0; i < batch->nops; i++) {
        if (batch->ops[i].failure == NGX_COORD_FAIL_TIMEOUT) {
            ngx_http_coord_silence(ctx, batch->store);
            return;
        }
    }
}


void
ngx_http_coord_silence(ngx_http_coord_ctx_t *ctx, ngx_coord_store_t *store)
{
    /* of more stores than there are bits the rest is always asked */

    if (store->number < 64) {
        ctx->silent |= (uint64_t) 1 << store->number;
        ctx->silent_since = ngx_current_msec;
    }
}


ngx_uint_t
ngx_http_coord_is_silent(ngx_http_coord_ctx_t *ctx, ngx_coord_store_t *store)
{
    return store->number < 64
           && (ctx->silent >> store->number) & 1
           && ngx_current_msec - ctx->silent_since < store->cooldown;
}


void
ngx_http_coord_undo_begun(ngx_http_coord_ctx_t *ctx)
{
    ngx_uint_t           i, j, first;
    ngx_coord_batch_t   *batch, **batches;

    if (ctx->begun == 0) {
        return;
    }

    batches = ctx->batches.elts;

    for (i = 0; i < ctx->batches.nelts; i++) {
        batch = batches[i];

        if (!ngx_coord_batch_seen(batch)) {
            /* cancelled by ngx_coord_batch_done() */
            continue;
        }

        /* operations stand in the order of steps: the undecided are last */

        for (first = 0; first < batch->nops; first++) {
            if (ctx->begun & (1 << batch->ops[first].tag)) {
                break;
            }
        }

        for (j = first; j < batch->nops; j++) {
            if ((ctx->begun & (1 << batch->ops[j].tag)) == 0) {
                break;
            }
        }

        if (first < j) {
            ngx_coord_batch_undo(batch, first, j);
        }
    }
}


void
ngx_http_coord_drop_batches(ngx_http_coord_ctx_t *ctx, ngx_uint_t refused)
{
    ngx_uint_t           i;
    ngx_coord_batch_t  **batches;

    if (ctx->batches.nelts == 0) {
        return;
    }

    batches = ctx->batches.elts;

    for (i = 0; i < ctx->batches.nelts; i++) {
        batches[i]->refused = refused;
        ngx_coord_batch_done(batches[i]);
    }

    ctx->batches.nelts = 0;
    ctx->in_flight = 0;
}


ngx_int_t
ngx_http_coord_behind(ngx_http_request_t *r, ngx_http_coord_ctx_t *ctx)
{
    if (r != r->main) {
        return NGX_DECLINED;
    }

    r->read_event_handler = ngx_http_block_reading;
    r->write_event_handler = ngx_http_request_empty_handler;

    ctx->behind = 1;

    return NGX_AGAIN;
}


ngx_int_t
ngx_http_coord_behind_goes(ngx_http_coord_ctx_t *ctx, ngx_int_t rc)
{
    ngx_http_request_t  *r;

    if (!ctx->behind) {
        return rc;
    }

    ctx->behind = 0;

    r = ctx->request->main;
    r->write_event_handler = ngx_http_core_run_phases;

    return ngx_http_post_request(r, NULL) == NGX_OK ? rc : NGX_ERROR;
}


static void
ngx_http_coord_cleanup(void *data)
{
    ngx_http_coord_ctx_t *ctx = data;

    ngx_uint_t                    i;
    ngx_http_coord_feature_t    **features;
    ngx_http_coord_main_conf_t   *mcf;

    ctx->waiting = 0;

    ngx_http_coord_undo_begun(ctx);
    ngx_http_coord_drop_batches(ctx, 0);

    if (ctx->ending == 0) {
        return;
    }

    mcf = ngx_http_get_module_main_conf(ctx->request, ngx_http_coord_module);

    features = mcf->features.elts;

    /* the last one first */

    while (ctx->ending) {
        i = 63 - __builtin_clzll((uint64_t) ctx->ending);
        ctx->ending &= ~((ngx_uint_t) 1 << i);

        if (features[i]->end) {
            features[i]->end(ctx, ctx->state[i]);
        }
    }
}
