
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_idempotency: the claim of a running request, from the grant to its
 * end.
 */


#include "ngx_http_coord_idempotency.h"


static void ngx_http_coord_idempotency_over(
    ngx_http_coord_idempotency_t *state);
static void ngx_http_coord_idempotency_renew(ngx_event_t *ev);
static void ngx_http_coord_idempotency_renewed(ngx_coord_batch_t *batch);
static ngx_int_t ngx_http_coord_idempotency_send(
    ngx_http_coord_idempotency_t *state, ngx_coord_op_e type,
    ngx_coord_nsec_t lease);
static void ngx_http_coord_idempotency_push(ngx_coord_batch_t *batch);
static ngx_int_t ngx_http_coord_idempotency_blob(
    ngx_http_coord_idempotency_t *state, ngx_str_t *blob);
static void ngx_http_coord_idempotency_stored(ngx_coord_batch_t *batch);


void
ngx_http_coord_idempotency_ask(ngx_http_coord_idempotency_t *state,
    ngx_coord_op_t *op)
{
    ngx_coord_claim_t                  *claim;
    ngx_http_coord_idempotency_conf_t  *icf;

    claim = &op->u.claim;
    icf = state->conf;

    ngx_memcpy(claim->fingerprint, state->fingerprint,
               NGX_COORD_FINGERPRINT_LEN);

    claim->lease = (ngx_coord_nsec_t) icf->lease * NGX_COORD_NSEC_PER_MSEC;
    claim->ttl = (ngx_coord_nsec_t) icf->ttl * NGX_COORD_NSEC_PER_MSEC;
    claim->keep = (icf->on_unknown == NGX_HTTP_COORD_UNKNOWN_CONFLICT);
}


void
ngx_http_coord_idempotency_hold(ngx_http_coord_idempotency_t *state)
{
    state->timer.handler = ngx_http_coord_idempotency_renew;
    state->timer.data = state;
    state->timer.log = state->request->connection->log;

    ngx_add_timer(&state->timer, ngx_max(state->conf->lease / 3, 1));
}


/* an operation on the claim that is held; NGX_ERROR: no memory */

static ngx_int_t
ngx_http_coord_idempotency_send(ngx_http_coord_idempotency_t *state,
    ngx_coord_op_e type, ngx_coord_nsec_t lease)
{
    ngx_coord_op_t     *op;
    ngx_coord_batch_t  *batch;

    batch = ngx_coord_batch_create(state->conf->zone->store);
    if (batch == NULL) {
        return NGX_ERROR;
    }

    op = ngx_coord_batch_add(batch, type, state->conf->zone, state->op.key,
                             state->op.key_len);
    if (op == NULL) {
        ngx_coord_batch_done(batch);
        return NGX_ERROR;
    }

    ngx_http_coord_idempotency_ask(state, op);

    op->u.claim.lease = lease;
    op->source = state->op.source;

    ngx_memcpy(op->id, state->op.id, NGX_COORD_ID_LEN);

    if (type != NGX_COORD_OP_CLAIM_RENEW || lease == 0) {
        ngx_http_coord_idempotency_push(batch);
        return NGX_OK;
    }

    batch->handler = ngx_http_coord_idempotency_renewed;
    batch->data = state;

    state->renewal = batch;

    if (ngx_coord_batch_send(batch) == NGX_OK) {
        ngx_http_coord_idempotency_renewed(batch);
    }

    return NGX_OK;
}


static void
ngx_http_coord_idempotency_renew(ngx_event_t *ev)
{
    ngx_http_coord_idempotency_t *state = ev->data;

    ngx_add_timer(&state->timer, ngx_max(state->conf->lease / 3, 1));

    if (state->renewal == NULL) {
        (void) ngx_http_coord_idempotency_send(state,
                                               NGX_COORD_OP_CLAIM_RENEW,
                                               (ngx_coord_nsec_t)
                                               state->conf->lease
                                               * NGX_COORD_NSEC_PER_MSEC);
    }
}


static void
ngx_http_coord_idempotency_renewed(ngx_coord_batch_t *batch)
{
    ngx_int_t                      rc;
    ngx_http_coord_idempotency_t  *state;

    state = batch->data;
    rc = batch->ops[0].rc;

    state->renewal = NULL;

    ngx_coord_batch_done(batch);

    if (rc != NGX_BUSY || state->lost) {
        return;
    }

    state->lost = 1;

    ngx_http_coord_idempotency_log(state->request, state, NGX_LOG_WARN,
                                   "the claim was lost while running");
}


static void
ngx_http_coord_idempotency_over(ngx_http_coord_idempotency_t *state)
{
    state->phase = NGX_HTTP_COORD_IDEMPOTENCY_DONE;

    if (state->timer.timer_set) {
        ngx_del_timer(&state->timer);
    }

    if (state->renewal) {
        ngx_coord_batch_done(state->renewal);
        state->renewal = NULL;
    }

    ngx_http_coord_idempotency_unguard(state);
}


void
ngx_http_coord_idempotency_release(ngx_http_coord_idempotency_t *state)
{
    ngx_http_coord_idempotency_over(state);

    (void) ngx_http_coord_idempotency_send(state, NGX_COORD_OP_CLAIM_RELEASE,
                                           0);
}


void
ngx_http_coord_idempotency_unknown(ngx_http_coord_idempotency_t *state)
{
    ngx_http_coord_idempotency_over(state);

    ngx_http_coord_idempotency_log(state->request, state, NGX_LOG_WARN,
                                   "the outcome is unknown");

    (void) ngx_http_coord_idempotency_send(state,
                    state->conf->on_unknown == NGX_HTTP_COORD_UNKNOWN_RUN
                    ? NGX_COORD_OP_CLAIM_RELEASE : NGX_COORD_OP_CLAIM_RENEW,
                    0);
}


void
ngx_http_coord_idempotency_complete(ngx_http_coord_idempotency_t *state)
{
    ngx_uint_t          i;
    ngx_coord_op_t     *op;
    ngx_coord_batch_t  *batch;

    ngx_http_coord_idempotency_over(state);

    batch = ngx_coord_batch_create(state->conf->zone->store);
    if (batch == NULL) {
        return;
    }

    for (i = !state->replace; i < 2; i++) {
        op = ngx_coord_batch_add(batch, i ? NGX_COORD_OP_CLAIM_COMPLETE
                                          : NGX_COORD_OP_CLAIM_DISCARD,
                                 state->conf->zone, state->op.key,
                                 state->op.key_len);
        if (op == NULL) {
            ngx_coord_batch_done(batch);
            return;
        }

        ngx_http_coord_idempotency_ask(state, op);

        op->source = state->op.source;

        ngx_memcpy(op->id, state->op.id, NGX_COORD_ID_LEN);

        if (i
            && ngx_http_coord_idempotency_blob(state, &op->record) != NGX_OK)
        {
            ngx_coord_batch_done(batch);
            return;
        }
    }

    batch->handler = ngx_http_coord_idempotency_stored;

    ngx_http_coord_idempotency_push(batch);
}


/* sends before the client gets the last of its response, and may ask again */

static void
ngx_http_coord_idempotency_push(ngx_coord_batch_t *batch)
{
    ngx_coord_store_t           *store;
    ngx_coord_batch_handler_pt   handler;

    store = batch->store;
    handler = batch->handler;

    if (ngx_coord_batch_send(batch) == NGX_OK) {

        if (handler) {
            handler(batch);
        }

        return;
    }

    if (store->client) {
        ngx_coord_redis_push(store->client);
    }
}


static ngx_int_t
ngx_http_coord_idempotency_blob(ngx_http_coord_idempotency_t *state,
    ngx_str_t *blob)
{
    ngx_coord_record_t        *record;
    ngx_http_coord_capture_t  *capture;

    capture = &state->capture;
    record = &capture->record;

    record->key.data = state->op.key;
    record->key.len = state->op.key_len;
    record->nfields = capture->fields.nelts;
    record->omitted = capture->over;
    record->body_len = capture->over ? 0 : (size_t) capture->received;

    ngx_memcpy(record->fingerprint, state->fingerprint, NGX_COORD_DIGEST_LEN);

    blob->len = ngx_coord_record_size(record, capture->fields.elts);

    blob->data = ngx_alloc(blob->len, ngx_cycle->log);
    if (blob->data == NULL) {
        return NGX_ERROR;
    }

    return ngx_coord_record_encode(blob->data, record, capture->fields.elts,
                                   capture->over ? NULL : capture->first);
}


static void
ngx_http_coord_idempotency_stored(ngx_coord_batch_t *batch)
{
    ngx_coord_op_t  *op;

    op = &batch->ops[batch->nops - 1];

    if (op->rc == NGX_ERROR) {
        ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0,
                      "idempotency: a response could not be stored "
                      "in zone \"%V\": %V", &op->zone->name,
                      &ngx_coord_fail_names[op->failure]);

    } else if (op->rc == NGX_BUSY) {
        ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, 0,
                      "idempotency: another run has stored its response "
                      "before in zone \"%V\"", &op->zone->name);
    }

    ngx_coord_batch_done(batch);
}
