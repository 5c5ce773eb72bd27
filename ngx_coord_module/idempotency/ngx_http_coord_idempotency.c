
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_idempotency: the request side.  One claim a request; who gets it runs,
 * who does not is replayed the result, told to wait, or refused.
 */


#include "ngx_http_coord_idempotency.h"
#include "ngx_coord_claim.h"


/* claims asked again because of a bad record, at most */
#define NGX_HTTP_COORD_IDEMPOTENCY_TRIES  3


static ngx_int_t ngx_http_coord_idempotency_begin(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx);
static ngx_int_t ngx_http_coord_idempotency_prepare(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *run);
static ngx_http_coord_idempotency_t *ngx_http_coord_idempotency_create(
    ngx_http_request_t *r, ngx_http_coord_ctx_t *ctx);
static ngx_http_coord_idempotency_t *ngx_http_coord_idempotency_configure(
    ngx_http_request_t *r, ngx_http_coord_idempotency_t *run);
static ngx_int_t ngx_http_coord_idempotency_decide(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx);
static ngx_int_t ngx_http_coord_idempotency_check(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *run);
static ngx_int_t ngx_http_coord_idempotency_fetched(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *run);
static void ngx_http_coord_idempotency_damaged(
    ngx_http_coord_idempotency_t *run);
static ngx_int_t ngx_http_coord_idempotency_replace(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *run);
static ngx_uint_t ngx_http_coord_idempotency_differs(
    ngx_http_coord_idempotency_t *run, u_char *fingerprint, size_t len);
static ngx_int_t ngx_http_coord_idempotency_result(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *run);
static ngx_int_t ngx_http_coord_idempotency_twin(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *run);
static ngx_int_t ngx_http_coord_idempotency_granted(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *run);
static ngx_int_t ngx_http_coord_idempotency_failed(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *run);
static ngx_int_t ngx_http_coord_idempotency_replay(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx);
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

        { 20,                              /* precontent */
          ngx_http_coord_idempotency_begin,
          ngx_http_coord_idempotency_decide,
          ngx_http_coord_idempotency_undo,
          NGX_HTTP_COORD_STEP_ANSWERS|NGX_HTTP_COORD_STEP_HOLDS }
    },

    ngx_http_coord_idempotency_end,
    ngx_http_coord_idempotency_vars,
    ngx_http_coord_idempotency_routes,
    0
};


static ngx_int_t
ngx_http_coord_idempotency_begin(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx)
{
    u_char                              key[NGX_COORD_KEY_LEN];
    size_t                              len;
    ngx_int_t                           rc;
    ngx_coord_op_t                     *op;
    ngx_http_coord_idempotency_t       *run;
    ngx_http_coord_idempotency_conf_t  *icf;

    icf = ngx_http_get_module_loc_conf(r, ngx_http_coord_idempotency_module);

    if (!(r->method & icf->methods)) {
        return NGX_DECLINED;
    }

    run = ngx_http_coord_idempotency_create(r, ctx);
    if (run == NULL) {
        return NGX_ERROR;
    }

    rc = ngx_http_coord_idempotency_prepare(r, run);

    if (rc != NGX_OK) {
        return rc;
    }

    /* it may begin anew, before it has decided */

    run->op.zone = NULL;

    if (run->state == NGX_COORD_RUN_IDLE) {
        ngx_http_coord_run_set(run, NGX_COORD_RUN_ASKED);
    }

    len = ngx_coord_key_digest(key, &run->name);
    if (len == 0) {
        return NGX_ERROR;
    }

    if (icf->wait
        && !run->shadow
        && ngx_http_coord_run_join(run, key, len) == NGX_OK)
    {
        return NGX_OK;
    }

    op = ngx_http_coord_add_encoded(r, ctx, &ngx_coord_op_claim, icf->zone,
                                    key, len, icf->on_failure, &run->ref);
    if (op == NULL) {
        return NGX_ERROR;
    }

    ngx_http_coord_run_ask(run, op);

    return ngx_coord_claim_name(op);
}


/* what names the request: key, scope and fingerprint; or what to return */

static ngx_int_t
ngx_http_coord_idempotency_prepare(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *run)
{
    ngx_int_t                           rc;
    ngx_http_coord_idempotency_conf_t  *icf;

    icf = run->conf;

    /* the body comes as late as it may, but before what looks at it */

    rc = icf->key_body ? ngx_http_coord_idempotency_body(r, run) : NGX_OK;

    if (rc == NGX_OK) {
        rc = ngx_http_coord_idempotency_key(r, run);
    }

    if (rc == NGX_OK && icf->scope_body) {
        rc = ngx_http_coord_idempotency_body(r, run);
    }

    if (rc == NGX_OK) {
        rc = ngx_http_coord_idempotency_scoped(r, run);
    }

    if (rc == NGX_OK) {
        rc = ngx_http_coord_idempotency_body(r, run);
    }

    if (rc != NGX_OK) {
        return rc;
    }

    if (ngx_http_coord_idempotency_fingerprint(r, run) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_http_coord_idempotency_record_name(r, run);
}


static ngx_http_coord_idempotency_t *
ngx_http_coord_idempotency_create(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx)
{
    ngx_pool_cleanup_t            *cln;
    ngx_http_coord_idempotency_t  *run;

    run = ctx->state[ngx_http_coord_idempotency_feature.slot];

    if (run && run->state == NGX_COORD_RUN_IDLE) {

        /* the body has been read, or a redirect has led here */

        return ngx_http_coord_idempotency_configure(r, run);
    }

    if (run) {
        return run;
    }

    cln = ngx_pool_cleanup_add(r->pool, sizeof(ngx_http_coord_idempotency_t));
    if (cln == NULL) {
        return NULL;
    }

    run = cln->data;
    cln->handler = ngx_http_coord_idempotency_free;

    ngx_memzero(run, sizeof(ngx_http_coord_idempotency_t));

    run->ctx = ctx;
    run->request = r;

    ctx->state[ngx_http_coord_idempotency_feature.slot] = run;

    return ngx_http_coord_idempotency_configure(r, run);
}


static ngx_http_coord_idempotency_t *
ngx_http_coord_idempotency_configure(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *run)
{
    run->conf = ngx_http_get_module_loc_conf(r,
                                           ngx_http_coord_idempotency_module);
    run->shadow = run->conf->shadow || run->conf->limiter.dry_run;

    return run;
}


static void
ngx_http_coord_idempotency_free(void *data)
{
    ngx_http_coord_idempotency_t *run = data;

    ngx_http_coord_run_forget(run);
    ngx_http_coord_body_free(&run->body);
}


static ngx_int_t
ngx_http_coord_idempotency_decide(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx)
{
    ngx_int_t                      rc;
    ngx_http_coord_idempotency_t  *run;

    run = ctx->state[ngx_http_coord_idempotency_feature.slot];

    if (run->op.zone == NULL) {
        ngx_http_coord_run_take(run, ngx_http_coord_op(ctx, run->ref));
    }

    do {

        switch (run->state) {

        case NGX_COORD_RUN_WAITING:
            rc = ngx_http_coord_run_again(run);
            break;

        case NGX_COORD_RUN_FETCHING:
            rc = ngx_http_coord_idempotency_fetched(r, run);
            break;

        default: /* NGX_COORD_RUN_ASKED */
            rc = ngx_http_coord_idempotency_check(r, run);
            break;
        }

    } while (rc == NGX_OK);

    return rc;
}


/* NGX_OK: there is another answer to look at */

static ngx_int_t
ngx_http_coord_idempotency_check(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *run)
{
    ngx_coord_op_t           *op;
    ngx_http_coord_result_t  *result;

    op = &run->op;
    result = run->result;

    ngx_http_coord_run_share(run);

    if (op->rc == NGX_ERROR) {
        return ngx_http_coord_idempotency_failed(r, run);
    }

    if (result) {

        if (result->rc == NGX_OK) {
            return ngx_http_coord_idempotency_result(r, run);
        }

        ngx_http_coord_idempotency_damaged(run);
    }

    if (op->rc == NGX_OK) {
        return ngx_http_coord_idempotency_granted(r, run);
    }

    if (op->u.claim.state != NGX_COORD_CLAIM_DONE) {
        return ngx_http_coord_idempotency_twin(r, run);
    }

    if (result) {

        /* it was no good: the claim is for who asks */

        return ngx_http_coord_idempotency_replace(r, run);
    }

    /* the record of another request would be in vain */

    if (ngx_http_coord_idempotency_differs(run, op->u.claim.twin,
                                           NGX_COORD_FINGERPRINT_LEN))
    {
        return ngx_http_coord_idempotency_refuse(r, run,
                                                 NGX_COORD_OUTCOME_MISMATCH);
    }

    return ngx_http_coord_run_fetch(run);
}


/* the answer to the question for a large record */

static ngx_int_t
ngx_http_coord_idempotency_fetched(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *run)
{
    if (run->op.rc == NGX_ERROR) {

        if (run->tries++ == 0) {
            return ngx_http_coord_run_fetch(run);
        }

        /* the request has run: whatever on_failure says, it does not again */

        run->op.on_failure = NGX_COORD_FAILURE_CLOSED;

        return ngx_http_coord_idempotency_failed(r, run);
    }

    /* of the claim, that is: it was refused */

    run->op.rc = NGX_BUSY;

    ngx_http_coord_run_share(run);

    if (run->result && run->result->rc == NGX_OK) {
        return ngx_http_coord_idempotency_result(r, run);
    }

    if (run->result) {
        ngx_http_coord_idempotency_damaged(run);
    }

    return ngx_http_coord_idempotency_replace(r, run);
}


static void
ngx_http_coord_idempotency_damaged(ngx_http_coord_idempotency_t *run)
{
    run->replace = 1;

    ngx_coord_metrics_decision(run->conf->zone, NGX_COORD_OUTCOME_DAMAGED);

    ngx_http_coord_run_trouble(run, NGX_HTTP_COORD_TROUBLE_DAMAGED);
}


/* a result was stored, but there is none: the claim is for who asks */

static ngx_int_t
ngx_http_coord_idempotency_replace(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *run)
{
    if (run->tries++ == NGX_HTTP_COORD_IDEMPOTENCY_TRIES) {
        run->op.rc = NGX_ERROR;
        return ngx_http_coord_idempotency_failed(r, run);
    }

    run->replace = 1;

    return ngx_http_coord_run_again(run);
}


/* 1 if the fingerprint of who was here before is another one */

static ngx_uint_t
ngx_http_coord_idempotency_differs(ngx_http_coord_idempotency_t *run,
    u_char *fingerprint, size_t len)
{
    return run->conf->check != NGX_HTTP_COORD_FINGERPRINT_OFF
           && ngx_memcmp(fingerprint, run->fingerprint, len) != 0;
}


static ngx_int_t
ngx_http_coord_idempotency_result(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *run)
{
    if (run->op.rc == NGX_OK) {

        /* the mark of the result had expired an instant earlier */

        ngx_coord_op_undo(&run->op);
    }

    if (ngx_http_coord_idempotency_differs(run,
                                           run->result->record.fingerprint,
                                           NGX_COORD_DIGEST_LEN))
    {
        return ngx_http_coord_idempotency_refuse(r, run,
                                                 NGX_COORD_OUTCOME_MISMATCH);
    }

    ngx_http_coord_run_set(run, NGX_COORD_RUN_BARRED);
    ngx_http_coord_run_outcome(run, NGX_COORD_OUTCOME_REPLAYED);

    ngx_http_coord_run_log(r, run, NGX_LOG_INFO,
                           "replaying response");

    if (run->shadow) {
        return NGX_DECLINED;
    }

    run->ctx->respond = ngx_http_coord_idempotency_replay;

    return run->result->record.status;
}


static ngx_int_t
ngx_http_coord_idempotency_twin(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *run)
{
    ngx_coord_claim_t  *claim;

    claim = &run->op.u.claim;

    if (ngx_http_coord_idempotency_differs(run, claim->twin,
                                           NGX_COORD_FINGERPRINT_LEN))
    {
        return ngx_http_coord_idempotency_refuse(r, run,
                                                 NGX_COORD_OUTCOME_MISMATCH);
    }

    if (claim->state == NGX_COORD_CLAIM_RUNNING
        && !run->shadow
        && ngx_http_coord_run_wait(run) == NGX_AGAIN)
    {
        return NGX_AGAIN;
    }

    return ngx_http_coord_idempotency_refuse(r, run,
                                             NGX_COORD_OUTCOME_CONFLICT);
}


static ngx_int_t
ngx_http_coord_idempotency_granted(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *run)
{
    ngx_http_coord_run_hold(run);
    ngx_http_coord_run_outcome(run, NGX_COORD_OUTCOME_NEW);

    if (run->op.u.claim.lapsed) {
        ngx_http_coord_run_log(r, run, NGX_LOG_WARN,
                               "running again, an earlier run has not ended");

    } else {
        ngx_http_coord_run_log(r, run, NGX_LOG_INFO, "running");
    }

    if (!run->shadow) {
        ngx_http_coord_capture_whole(r);
    }

    return NGX_DECLINED;
}


static ngx_int_t
ngx_http_coord_idempotency_failed(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *run)
{
    ngx_uint_t          closed;
    static const char  *unprotected[NGX_COORD_FAILURE_MAX] = {
        "request is not protected, on_failure=open",
        "request is not protected, on_failure=closed",
        "request is not protected, on_failure=local"
    };

    closed = (run->op.on_failure == NGX_COORD_FAILURE_CLOSED && !run->shadow);

    ngx_http_coord_run_set(run, NGX_COORD_RUN_BARRED);
    ngx_http_coord_run_outcome(run,
                               closed ? NGX_COORD_OUTCOME_UNAVAILABLE
                                      : NGX_COORD_OUTCOME_BYPASSED);

    ngx_http_coord_run_log(r, run, NGX_LOG_ERR,
                           closed ? "refusing request, on_failure=closed"
                                  : unprotected[run->op.on_failure]);

    if (closed) {
        return ngx_http_coord_refuse_unavailable(r, run->ctx);
    }

    return NGX_DECLINED;
}


/* a ngx_http_coord_respond_pt: sends the record of the request */

static ngx_int_t
ngx_http_coord_idempotency_replay(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx)
{
    ngx_keyval_t                   mark;
    ngx_http_coord_idempotency_t  *run;

    run = ctx->state[ngx_http_coord_idempotency_feature.slot];

    ngx_str_set(&mark.key, "Idempotency-Replayed");

    if (run->result->record.omitted) {
        ngx_str_set(&mark.value, "omitted");

    } else {
        ngx_str_set(&mark.value, "true");
    }

    return ngx_http_coord_replay(r, &run->result->record, &mark);
}


/* a feature behind this one has refused the request */

static void
ngx_http_coord_idempotency_undo(ngx_http_coord_ctx_t *ctx, void *data)
{
    ngx_http_coord_run_end(data, NGX_DECLINED);
}


static void
ngx_http_coord_idempotency_end(ngx_http_coord_ctx_t *ctx, void *data)
{
    ngx_http_coord_idempotency_t *run = data;

    if (run == NULL) {
        return;
    }

    ngx_coord_wait_remove(&run->waiter);

    if (run->batch) {
        ngx_coord_batch_done(run->batch);
        run->batch = NULL;
    }

    if (ngx_http_coord_running(run)) {

        /* the response did not come to its end */

        ngx_http_coord_run_end(run,
                               ngx_http_coord_idempotency_attempts(run->request)
                               == NGX_DECLINED ? NGX_DECLINED : NGX_ERROR);
    }

    ngx_http_coord_run_leaves(run);

    ngx_coord_timer_stop(&run->timer);

    if (run->timer.event.posted) {
        ngx_delete_posted_event(&run->timer.event);
    }

    if (run->renewal) {
        ngx_coord_batch_done(run->renewal);
        run->renewal = NULL;
    }
}
