
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_idempotency: the request side.  One claim a request; who gets it runs,
 * who does not is replayed the result, told to wait, or refused.
 */


#include "ngx_http_coord_idempotency.h"


/* how often a waiting request asks for its twin */
#define NGX_HTTP_COORD_IDEMPOTENCY_POLL   100

/* claims asked again because of a bad record, at most */
#define NGX_HTTP_COORD_IDEMPOTENCY_TRIES  3


static ngx_int_t ngx_http_coord_idempotency_begin(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx);
static ngx_http_coord_idempotency_t *ngx_http_coord_idempotency_create(
    ngx_http_request_t *r, ngx_http_coord_ctx_t *ctx);
static ngx_int_t ngx_http_coord_idempotency_decide(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx);
static ngx_int_t ngx_http_coord_idempotency_take(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *state, ngx_coord_op_t *op);
static ngx_int_t ngx_http_coord_idempotency_check(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *state);
static ngx_int_t ngx_http_coord_idempotency_result(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *state);
static ngx_int_t ngx_http_coord_idempotency_twin(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *state);
static ngx_int_t ngx_http_coord_idempotency_run(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *state);
static ngx_int_t ngx_http_coord_idempotency_failed(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *state);
static ngx_int_t ngx_http_coord_idempotency_wait(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *state);
static ngx_int_t ngx_http_coord_idempotency_news(ngx_coord_waiter_t *waiter);
static void ngx_http_coord_idempotency_overdue(ngx_event_t *ev);
static ngx_int_t ngx_http_coord_idempotency_again(
    ngx_http_coord_idempotency_t *state, ngx_uint_t discard);
static void ngx_http_coord_idempotency_answered(ngx_coord_batch_t *batch);
static void ngx_http_coord_idempotency_free(void *data);
static void ngx_http_coord_idempotency_undo(ngx_http_coord_ctx_t *ctx,
    void *data);
static void ngx_http_coord_idempotency_end(ngx_http_coord_ctx_t *ctx,
    void *data);


ngx_http_coord_feature_t  ngx_http_coord_idempotency_feature = {

    { ngx_string("idempotency"),
      ngx_string("id"),
      ngx_coord_outcome_bit(NEW) | ngx_coord_outcome_bit(REPLAYED)
      | ngx_coord_outcome_bit(CONFLICT) | ngx_coord_outcome_bit(MISMATCH)
      | ngx_coord_outcome_bit(MISSING) | ngx_coord_outcome_bit(INVALID)
      | ngx_coord_outcome_bit(UNSCOPED)
      | ngx_coord_outcome_bit(REJECTED_DRY_RUN)
      | ngx_coord_outcome_bit(BYPASSED) | ngx_coord_outcome_bit(UNAVAILABLE)
      | ngx_coord_outcome_bit(DAMAGED),
      0,
      0 },

    {
        ngx_http_coord_no_step,            /* preaccess */

        { 40,                              /* precontent */
          ngx_http_coord_idempotency_begin,
          ngx_http_coord_idempotency_decide,
          ngx_http_coord_idempotency_undo }
    },

    ngx_http_coord_idempotency_end,
    ngx_http_coord_idempotency_vars,
    ngx_http_coord_idempotency_routes,
    0
};


ngx_http_coord_idempotency_t *
ngx_http_coord_idempotency_state(ngx_http_request_t *r)
{
    ngx_http_coord_ctx_t  *ctx;

    ctx = ngx_http_coord_get_ctx(r);

    return ctx ? ctx->state[ngx_http_coord_idempotency_feature.slot] : NULL;
}


static ngx_int_t
ngx_http_coord_idempotency_begin(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx)
{
    ngx_int_t                                rc;
    ngx_coord_op_t                          *op;
    ngx_http_coord_idempotency_t            *state;
    ngx_http_coord_idempotency_conf_t       *icf;
    ngx_http_coord_idempotency_main_conf_t  *imcf;

    icf = ngx_http_get_module_loc_conf(r, ngx_http_coord_idempotency_module);
    imcf = ngx_http_get_module_main_conf(r, ngx_http_coord_idempotency_module);

    if (!(r->method & icf->methods)) {
        return NGX_DECLINED;
    }

    state = ngx_http_coord_idempotency_create(r, ctx);
    if (state == NULL) {
        return NGX_ERROR;
    }

    if (imcf->digest && icf->header.len == 0) {
        rc = ngx_http_coord_idempotency_read(r, ctx);
        if (rc != NGX_OK) {
            return rc;
        }
    }

    rc = ngx_http_coord_idempotency_key(r, state);
    if (rc != NGX_OK) {
        return rc;
    }

    rc = ngx_http_coord_idempotency_scoped(r, state);
    if (rc != NGX_OK) {
        return rc;
    }

    rc = ngx_http_coord_idempotency_read(r, ctx);
    if (rc != NGX_OK) {
        return rc;
    }

    if (ngx_http_coord_idempotency_digest(r, 1, state->fingerprint) != NGX_OK
        || ngx_http_coord_idempotency_record_name(r, state) != NGX_OK)
    {
        return NGX_ERROR;
    }

    op = ngx_http_coord_add(r, ctx, NGX_COORD_OP_CLAIM, icf->zone,
                            &state->name, 1, icf->on_failure, &state->ref);
    if (op == NULL) {
        return NGX_ERROR;
    }

    ngx_http_coord_idempotency_ask(state, op);

    return ngx_coord_id(op->id);
}


static ngx_http_coord_idempotency_t *
ngx_http_coord_idempotency_create(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx)
{
    ngx_pool_cleanup_t            *cln;
    ngx_http_coord_idempotency_t  *state;

    state = ctx->state[ngx_http_coord_idempotency_feature.slot];

    if (state) {
        /* the body has been read */
        return state;
    }

    cln = ngx_pool_cleanup_add(r->pool, sizeof(ngx_http_coord_idempotency_t));
    if (cln == NULL) {
        return NULL;
    }

    state = cln->data;
    cln->handler = ngx_http_coord_idempotency_free;

    ngx_memzero(state, sizeof(ngx_http_coord_idempotency_t));

    state->ctx = ctx;
    state->request = r;
    state->conf = ngx_http_get_module_loc_conf(r,
                                           ngx_http_coord_idempotency_module);
    state->shadow = state->conf->shadow || state->conf->dry_run;

    ctx->state[ngx_http_coord_idempotency_feature.slot] = state;

    return state;
}


static void
ngx_http_coord_idempotency_free(void *data)
{
    ngx_http_coord_idempotency_t *state = data;

    if (state->blob.data) {
        ngx_free(state->blob.data);
    }
}


static ngx_int_t
ngx_http_coord_idempotency_decide(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx)
{
    ngx_int_t                      rc;
    ngx_http_coord_idempotency_t  *state;

    state = ctx->state[ngx_http_coord_idempotency_feature.slot];

    if (state->phase == NGX_HTTP_COORD_IDEMPOTENCY_IDLE) {
        rc = ngx_http_coord_idempotency_take(r, state,
                                         ngx_http_coord_op(ctx, state->ref));
        if (rc != NGX_OK) {
            return rc;
        }
    }

    for ( ;; ) {

        if (!state->answered) {
            /* NGX_AGAIN, or NGX_OK: answered at once */

            rc = ngx_http_coord_idempotency_again(state, state->replace);

        } else {
            rc = ngx_http_coord_idempotency_check(r, state);
        }

        if (rc == NGX_AGAIN) {
            state->phase = NGX_HTTP_COORD_IDEMPOTENCY_WAITING;
            return NGX_AGAIN;
        }

        if (rc != NGX_OK) {
            return rc;
        }
    }
}


/* makes the answer the state's own, the record included */

static ngx_int_t
ngx_http_coord_idempotency_take(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *state, ngx_coord_op_t *op)
{
    if (state->blob.data) {
        ngx_free(state->blob.data);
    }

    state->op = *op;
    state->blob = op->record;
    state->answered = 1;

    ngx_str_null(&op->record);
    ngx_str_null(&state->op.record);

    return NGX_OK;
}


/* NGX_OK: the answer was no good, ask again */

static ngx_int_t
ngx_http_coord_idempotency_check(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *state)
{
    ngx_str_t        key;
    ngx_coord_op_t  *op;

    op = &state->op;

    if (op->rc == NGX_ERROR) {
        return ngx_http_coord_idempotency_failed(r, state);
    }

    if (state->blob.data) {
        key.data = op->key;
        key.len = op->key_len;

        if (ngx_coord_record_decode(&state->record, &state->blob, &key)
            == NGX_OK)
        {
            return ngx_http_coord_idempotency_result(r, state);
        }

        state->replace = 1;

        ngx_coord_metrics_decision(state->conf->zone,
                                   NGX_COORD_OUTCOME_DAMAGED);
        ngx_http_coord_idempotency_log(r, state, NGX_LOG_ERR,
                                       "ignoring a damaged record");
    }

    if (op->rc == NGX_OK) {
        return ngx_http_coord_idempotency_run(r, state);
    }

    if (op->u.claim.state != NGX_COORD_CLAIM_DONE) {
        return ngx_http_coord_idempotency_twin(r, state);
    }

    /* a result was stored, but there is none: the claim is for who asks */

    if (state->tries++ == NGX_HTTP_COORD_IDEMPOTENCY_TRIES) {
        op->rc = NGX_ERROR;
        return ngx_http_coord_idempotency_failed(r, state);
    }

    state->replace = 1;
    state->answered = 0;

    return NGX_OK;
}


static ngx_int_t
ngx_http_coord_idempotency_result(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *state)
{
    if (state->op.rc == NGX_OK) {

        /* the mark of the result had expired an instant earlier */

        ngx_coord_op_undo(&state->op);
    }

    if (ngx_memcmp(state->record.fingerprint, state->fingerprint,
                   NGX_COORD_DIGEST_LEN)
        != 0)
    {
        return ngx_http_coord_idempotency_refuse(r, state,
                                        NGX_HTTP_COORD_IDEMPOTENCY_MISMATCH);
    }

    state->status = NGX_HTTP_COORD_IDEMPOTENCY_REPLAYED;
    state->phase = NGX_HTTP_COORD_IDEMPOTENCY_DONE;

    ngx_http_coord_idempotency_count(state, NGX_COORD_OUTCOME_REPLAYED);

    ngx_http_coord_idempotency_log(r, state, NGX_LOG_INFO,
                                   "replaying response");

    if (state->shadow) {
        return NGX_DECLINED;
    }

    state->ctx->respond = ngx_http_coord_idempotency_replay;

    return state->record.status;
}


static ngx_int_t
ngx_http_coord_idempotency_twin(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *state)
{
    ngx_coord_claim_t  *claim;

    claim = &state->op.u.claim;

    if (ngx_memcmp(claim->twin, state->fingerprint, NGX_COORD_FINGERPRINT_LEN)
        != 0)
    {
        return ngx_http_coord_idempotency_refuse(r, state,
                                        NGX_HTTP_COORD_IDEMPOTENCY_MISMATCH);
    }

    if (claim->state == NGX_COORD_CLAIM_RUNNING
        && !state->shadow
        && ngx_http_coord_idempotency_wait(r, state) == NGX_AGAIN)
    {
        return NGX_AGAIN;
    }

    return ngx_http_coord_idempotency_refuse(r, state,
                                        NGX_HTTP_COORD_IDEMPOTENCY_CONFLICT);
}


static ngx_int_t
ngx_http_coord_idempotency_run(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *state)
{
    state->status = NGX_HTTP_COORD_IDEMPOTENCY_NEW;
    state->phase = NGX_HTTP_COORD_IDEMPOTENCY_RUNNING;

    ngx_http_coord_idempotency_count(state, NGX_COORD_OUTCOME_NEW);

    if (state->op.u.claim.lapsed) {
        ngx_http_coord_idempotency_log(r, state, NGX_LOG_WARN,
                             "running again, an earlier run has not ended");

    } else {
        ngx_http_coord_idempotency_log(r, state, NGX_LOG_INFO, "running");
    }

    ngx_http_coord_idempotency_hold(state);

    if (!state->shadow) {
        ngx_http_coord_idempotency_whole(r);
        ngx_http_coord_idempotency_guard(state);
    }

    return NGX_DECLINED;
}


static ngx_int_t
ngx_http_coord_idempotency_failed(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *state)
{
    state->status = NGX_HTTP_COORD_IDEMPOTENCY_BYPASSED;
    state->phase = NGX_HTTP_COORD_IDEMPOTENCY_DONE;

    ngx_http_coord_idempotency_count(state,
                             state->op.on_failure == NGX_COORD_FAILURE_CLOSED
                             ? NGX_COORD_OUTCOME_UNAVAILABLE
                             : NGX_COORD_OUTCOME_BYPASSED);

    ngx_http_coord_idempotency_log(r, state, NGX_LOG_ERR,
                    state->op.on_failure == NGX_COORD_FAILURE_CLOSED
                    ? "refusing request" : "request is not protected");

    if (state->op.on_failure == NGX_COORD_FAILURE_CLOSED && !state->shadow) {
        return ngx_http_coord_refuse_unavailable(r, state->ctx);
    }

    return NGX_DECLINED;
}


/* NGX_DECLINED: it has waited long enough */

static ngx_int_t
ngx_http_coord_idempotency_wait(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *state)
{
    ngx_msec_int_t  left;

    if (!state->waited) {
        state->waited = 1;
        state->deadline = ngx_current_msec + state->conf->wait;
    }

    left = (ngx_msec_int_t) (state->deadline - ngx_current_msec);

    if (left <= 0) {
        return NGX_DECLINED;
    }

    state->waiter.handler = ngx_http_coord_idempotency_news;
    state->waiter.data = state;

    if (ngx_coord_wait_add(&state->waiter, state->conf->zone, state->op.key,
                           state->op.key_len, NGX_HTTP_COORD_IDEMPOTENCY_POLL)
        != NGX_OK)
    {
        return NGX_DECLINED;
    }

    state->answered = 0;

    ngx_coord_timer_init(&state->timer, ngx_http_coord_idempotency_overdue,
                         state, r->connection->log);
    ngx_coord_timer_start(&state->timer, (ngx_msec_t) left);

    return NGX_AGAIN;
}


/* the twin has ended, or may have: all who wait for it ask */

static ngx_int_t
ngx_http_coord_idempotency_news(ngx_coord_waiter_t *waiter)
{
    ngx_http_coord_idempotency_t *state = waiter->data;

    ngx_coord_wait_remove(&state->waiter);

    ngx_coord_timer_stop(&state->timer);

    /* not from here: who asks in vain waits again, behind all others */

    ngx_post_event(&state->timer.event, &ngx_posted_events);

    return NGX_DECLINED;
}


static void
ngx_http_coord_idempotency_overdue(ngx_event_t *ev)
{
    ngx_http_coord_idempotency_t *state = ngx_coord_timer_data(ev);

    ngx_coord_wait_remove(&state->waiter);

    ngx_http_coord_resume(state->ctx);
}


/*
 * Asks for the claim once more, outside of the walk, and with discard removes
 * the mark of a result that is no good before.
 */

static ngx_int_t
ngx_http_coord_idempotency_again(ngx_http_coord_idempotency_t *state,
    ngx_uint_t discard)
{
    ngx_int_t           rc;
    ngx_coord_op_t     *op;
    ngx_coord_batch_t  *batch;

    batch = ngx_coord_batch_create(state->conf->zone->store);
    if (batch == NULL) {
        return NGX_ERROR;
    }

    if (discard) {
        op = ngx_coord_batch_add(batch, NGX_COORD_OP_CLAIM_RELEASE,
                                 state->conf->zone, state->op.key,
                                 state->op.key_len);
        if (op == NULL) {
            ngx_coord_batch_done(batch);
            return NGX_ERROR;
        }

        ngx_http_coord_idempotency_ask(state, op);

        op->u.claim.done = 1;
        op->source = state->op.source;

        ngx_memcpy(op->u.claim.fingerprint,
                   state->op.u.claim.twin, NGX_COORD_FINGERPRINT_LEN);
    }

    op = ngx_coord_batch_add(batch, NGX_COORD_OP_CLAIM, state->conf->zone,
                             state->op.key, state->op.key_len);
    if (op == NULL) {
        ngx_coord_batch_done(batch);
        return NGX_ERROR;
    }

    ngx_http_coord_idempotency_ask(state, op);

    op->on_failure = state->op.on_failure;

    ngx_memcpy(op->id, state->op.id, NGX_COORD_ID_LEN);

    batch->handler = ngx_http_coord_idempotency_answered;
    batch->data = state;

    rc = ngx_coord_batch_send(batch);

    if (rc == NGX_AGAIN) {
        state->batch = batch;
        return NGX_AGAIN;
    }

    op = &batch->ops[batch->nops - 1];

    rc = ngx_http_coord_idempotency_take(state->request, state, op);

    ngx_coord_batch_done(batch);

    return rc;
}


static void
ngx_http_coord_idempotency_answered(ngx_coord_batch_t *batch)
{
    ngx_http_coord_idempotency_t *state = batch->data;

    state->batch = NULL;

    (void) ngx_http_coord_idempotency_take(state->request, state,
                                           &batch->ops[batch->nops - 1]);

    ngx_coord_batch_done(batch);

    ngx_http_coord_resume(state->ctx);
}


/* a feature behind this one has refused the request */

static void
ngx_http_coord_idempotency_undo(ngx_http_coord_ctx_t *ctx, void *data)
{
    ngx_http_coord_idempotency_t *state = data;

    if (state->phase == NGX_HTTP_COORD_IDEMPOTENCY_RUNNING) {
        ngx_http_coord_idempotency_release(state);
    }
}


static void
ngx_http_coord_idempotency_end(ngx_http_coord_ctx_t *ctx, void *data)
{
    ngx_http_coord_idempotency_t *state = data;

    if (state == NULL) {
        return;
    }

    ngx_coord_wait_remove(&state->waiter);

    if (state->batch) {
        ngx_coord_batch_done(state->batch);
        state->batch = NULL;
    }

    if (state->phase == NGX_HTTP_COORD_IDEMPOTENCY_RUNNING) {

        /* the response did not come to its end */

        if (ngx_http_coord_idempotency_attempts(state->request)
            == NGX_DECLINED)
        {
            ngx_http_coord_idempotency_release(state);

        } else {
            ngx_http_coord_idempotency_unknown(state);
        }
    }

    ngx_coord_timer_stop(&state->timer);

    if (state->timer.event.posted) {
        ngx_delete_posted_event(&state->timer.event);
    }

    if (state->renewal) {
        ngx_coord_batch_done(state->renewal);
        state->renewal = NULL;
    }
}
