
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_idempotency: a run, from the grant of its claim to its end.  Filters
 * and the guard of the client only tell what they see; what becomes of the
 * claim is decided here.
 */


#include "ngx_http_coord_idempotency.h"
#include "ngx_coord_claim.h"
#include "ngx_coord_lease.h"


static void ngx_http_coord_run_line(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *run, ngx_uint_t level, const char *what,
    ngx_coord_log_limit_t *limit);
static void ngx_http_coord_run_over(ngx_http_coord_idempotency_t *run,
    ngx_coord_run_e state);
static void ngx_http_coord_run_release(ngx_http_coord_idempotency_t *run);
static void ngx_http_coord_run_freed(void *data);
static void ngx_http_coord_run_unknown(ngx_http_coord_idempotency_t *run);
static void ngx_http_coord_run_flush(ngx_http_coord_idempotency_t *run);
static void ngx_http_coord_run_complete(ngx_http_coord_idempotency_t *run);
static ngx_coord_batch_t *ngx_http_coord_run_batch(
    ngx_http_coord_idempotency_t *run, const ngx_coord_op_type_t *type);
static void ngx_http_coord_run_ask_again(
    ngx_http_coord_idempotency_t *run, const ngx_coord_op_type_t *type);
static ngx_coord_op_t *ngx_http_coord_run_op(
    ngx_http_coord_idempotency_t *run, ngx_coord_batch_t *batch,
    const ngx_coord_op_type_t *type);
static void ngx_http_coord_run_renew(ngx_event_t *ev);
static void ngx_http_coord_run_renewed(ngx_coord_batch_t *batch);


static const struct {
    ngx_uint_t                 level;
    const char                *text;
} ngx_http_coord_troubles[NGX_HTTP_COORD_TROUBLES] = {
    { NGX_LOG_WARN, "the outcome is unknown" },
    { NGX_LOG_WARN, "the claim was lost while running" },
    { NGX_LOG_ERR, "ignoring a damaged record" }
};


void
ngx_http_coord_run_set(ngx_http_coord_idempotency_t *run,
    ngx_coord_run_e state)
{
#if (NGX_DEBUG)

    if (!ngx_coord_run_edge(run->state, state)) {
        ngx_log_error(NGX_LOG_ALERT, run->request->connection->log, 0,
                      "idempotency: a run went from state %d to %d",
                      run->state, state);
    }

#endif

    run->state = state;
}


void
ngx_http_coord_run_log(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *run, ngx_uint_t level, const char *what)
{
    ngx_http_coord_run_line(r, run, level, what, NULL);
}


void
ngx_http_coord_run_trouble(ngx_http_coord_idempotency_t *run,
    ngx_http_coord_trouble_e kind)
{
    ngx_coord_log_limit_t  *limits;

    limits = run->conf->zone->data;

    ngx_http_coord_run_line(run->request, run,
                            ngx_http_coord_troubles[kind].level,
                            ngx_http_coord_troubles[kind].text, &limits[kind]);
}


static void
ngx_http_coord_run_line(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *run, ngx_uint_t level, const char *what,
    ngx_coord_log_limit_t *limit)
{
    ngx_http_coord_log_fields_t  fields;

    ngx_memzero(&fields, sizeof(ngx_http_coord_log_fields_t));

    fields.op = &run->op;
    fields.outcome = run->outcome;
    fields.limit = limit;

    ngx_http_coord_log(r, level, &fields,
                       "idempotency: %s%s by zone \"%V\"", what,
                       run->shadow ? ", shadow," : "",
                       &run->conf->zone->name);
}


void
ngx_http_coord_run_outcome(ngx_http_coord_idempotency_t *run,
    ngx_coord_outcome_e outcome)
{
    run->outcome = outcome;

    /* a request that is only watched is not refused */

    if (run->shadow && ngx_coord_outcomes[outcome].refused) {
        outcome = NGX_COORD_OUTCOME_REJECTED_DRY_RUN;
    }

    ngx_coord_metrics_decision(run->conf->zone, outcome);
}


void
ngx_http_coord_run_ask(ngx_http_coord_idempotency_t *run,
    ngx_coord_op_t *op)
{
    ngx_coord_claim_t                  *claim;
    ngx_http_coord_idempotency_conf_t  *icf;

    claim = &op->u.claim;
    icf = run->conf;

    ngx_memcpy(claim->fingerprint, run->fingerprint,
               NGX_COORD_FINGERPRINT_LEN);

    claim->lease = (ngx_coord_nsec_t) icf->lease * NGX_COORD_NSEC_PER_MSEC;
    claim->ttl = (ngx_coord_nsec_t) icf->ttl * NGX_COORD_NSEC_PER_MSEC;
    claim->keep = (icf->on_unknown == NGX_HTTP_COORD_UNKNOWN_CONFLICT);
}


void
ngx_http_coord_run_hold(ngx_http_coord_idempotency_t *run)
{
    ngx_http_coord_run_set(run, NGX_COORD_RUN_HELD);

    ngx_coord_timer_init(&run->timer, ngx_http_coord_run_renew,
                         run, run->request->connection->log);
    ngx_coord_timer_start(&run->timer, ngx_max(run->conf->lease / 3, 1));

    run->renewed = ngx_current_msec;
}


void
ngx_http_coord_run_begin(ngx_http_coord_idempotency_t *run)
{
    if (!run->begun) {
        run->begun = 1;
        ngx_coord_claim_note(&run->op, 1);
    }

    if (!run->shadow) {
        ngx_http_coord_run_guard(run);
    }
}


/* a batch with one operation on the claim that is held; NULL: no memory */

static ngx_coord_batch_t *
ngx_http_coord_run_batch(ngx_http_coord_idempotency_t *run,
    const ngx_coord_op_type_t *type)
{
    ngx_coord_batch_t  *batch;

    batch = ngx_coord_batch_create(run->conf->zone->store);
    if (batch == NULL) {
        return NULL;
    }

    if (ngx_http_coord_run_op(run, batch, type) == NULL) {
        ngx_coord_batch_done(batch);
        return NULL;
    }

    return batch;
}


static ngx_coord_op_t *
ngx_http_coord_run_op(ngx_http_coord_idempotency_t *run,
    ngx_coord_batch_t *batch, const ngx_coord_op_type_t *type)
{
    ngx_coord_op_t  *op;

    op = ngx_coord_batch_add(batch, type, run->conf->zone, run->op.key,
                             run->op.key_len);
    if (op == NULL) {
        return NULL;
    }

    ngx_http_coord_run_ask(run, op);

    op->source = run->op.source;

    ngx_memcpy(op->id, run->op.id, NGX_COORD_ID_LEN);

    return op;
}


static void
ngx_http_coord_run_renew(ngx_event_t *ev)
{
    ngx_http_coord_idempotency_t *run = ngx_coord_timer_data(ev);

    ngx_msec_t  third;

    third = ngx_max(run->conf->lease / 3, 1);

    ngx_coord_timer_start(&run->timer,
                          run->client == NGX_HTTP_COORD_CLIENT_GONE
                          ? ngx_min(third, NGX_HTTP_COORD_CLIENT_LOOK)
                          : third);

    if (run->renewal == NULL && ngx_current_msec - run->renewed >= third) {
        run->renewed = ngx_current_msec;
        ngx_http_coord_run_ask_again(run, &ngx_coord_op_claim_renew);
    }

    /* the request may be gone then */

    ngx_http_coord_run_leave(run);
}


/* asks for the claim that is held, or was */

static void
ngx_http_coord_run_ask_again(ngx_http_coord_idempotency_t *run,
    const ngx_coord_op_type_t *type)
{
    ngx_coord_batch_t  *batch;

    batch = ngx_http_coord_run_batch(run, type);
    if (batch == NULL) {
        return;
    }

    /* what comes of it is given back with the claim, not by the store */

    batch->ops[0].again = 1;

    batch->handler = ngx_http_coord_run_renewed;
    batch->data = run;

    run->renewal = batch;

    if (ngx_coord_batch_send(batch) == NGX_OK) {
        ngx_http_coord_run_renewed(batch);
    }
}


static void
ngx_http_coord_run_renewed(ngx_coord_batch_t *batch)
{
    ngx_int_t                      rc;
    ngx_coord_op_t                *op;
    const ngx_coord_op_type_t     *type;
    ngx_http_coord_idempotency_t  *run;

    run = batch->data;
    op = &batch->ops[0];

    type = op->type;
    rc = op->rc;

    run->renewal = NULL;

    ngx_coord_batch_done(batch);

    if (rc == NGX_OK) {
        ngx_coord_claim_note(&run->op, run->begun);
        return;
    }

    if (run->lost) {
        return;
    }

    /* the store may have lost all it knew: then there is room again */

    if (rc == NGX_BUSY && type == &ngx_coord_op_claim_renew) {
        ngx_http_coord_run_ask_again(run, &ngx_coord_op_claim);
        return;
    }

    if (rc == NGX_BUSY) {
        run->lost = 1;

        ngx_http_coord_run_trouble(run, NGX_HTTP_COORD_TROUBLE_LOST);
    }
}


void
ngx_http_coord_run_end(ngx_http_coord_idempotency_t *run, ngx_int_t rc)
{
    if (!ngx_http_coord_running(run)) {
        return;
    }

    switch (rc) {

    case NGX_OK:
        ngx_http_coord_run_complete(run);
        break;

    case NGX_DECLINED:
        ngx_http_coord_run_release(run);
        break;

    default: /* NGX_ERROR */
        ngx_http_coord_run_unknown(run);
        break;
    }
}


static void
ngx_http_coord_run_over(ngx_http_coord_idempotency_t *run,
    ngx_coord_run_e state)
{
    ngx_http_coord_run_set(run, state);

    ngx_coord_timer_stop(&run->timer);

    if (run->renewal) {
        ngx_coord_batch_done(run->renewal);
        run->renewal = NULL;
    }

    ngx_http_coord_run_unguard(run);
}


static void
ngx_http_coord_run_release(ngx_http_coord_idempotency_t *run)
{
    ngx_coord_giveback_e  how;

    /* a claim that is just asked for again may be granted yet */

    how = run->renewal ? NGX_COORD_GIVEBACK_ASKED
                       : NGX_COORD_GIVEBACK_GRANTED;

    if (run->op.source != NGX_COORD_SOURCE_REDIS) {
        how = NGX_COORD_GIVEBACK_GRANTED;
    }

    ngx_http_coord_run_over(run, NGX_COORD_RUN_FREED);

    if (run->shadow) {
        ngx_coord_giveback(&run->op, how);

    } else {
        run->freeing.handler = ngx_http_coord_run_freed;
        run->freeing.data = run;

        ngx_coord_giveback_told(&run->op, how, &run->freeing);

        if (run->freeing.entry) {
            ngx_http_coord_awaits(run->ctx);
        }
    }

    ngx_http_coord_run_flush(run);

    if (run->freeing.entry
        && run->capture.state == NGX_HTTP_COORD_CAPTURE_WHOLE)
    {
        /* its trailers have told that it is no result */

        ngx_http_coord_capture_hold(&run->capture);
    }
}


/* the store knows that the key is free, or gave no answer in time */

static void
ngx_http_coord_run_freed(void *data)
{
    ngx_http_coord_idempotency_t *run = data;

    if (run->capture.held) {
        ngx_http_coord_capture_release(run->request, &run->capture);
    }

    ngx_http_coord_certain(run->ctx);
}


static void
ngx_http_coord_run_unknown(ngx_http_coord_idempotency_t *run)
{
    ngx_coord_op_t  op;

    ngx_http_coord_run_trouble(run, NGX_HTTP_COORD_TROUBLE_UNKNOWN);

    if (run->conf->on_unknown == NGX_HTTP_COORD_UNKNOWN_RUN) {
        ngx_http_coord_run_release(run);
        return;
    }

    ngx_http_coord_run_over(run, NGX_COORD_RUN_UNKNOWN);

    op = run->op;
    op.type = &ngx_coord_op_claim_renew;
    op.u.claim.lease = 0;

    ngx_coord_giveback_op(&op, run->op.u.claim.lease);
    ngx_http_coord_run_flush(run);
}


/* what was given back leaves before the client gets the last of its response */

static void
ngx_http_coord_run_flush(ngx_http_coord_idempotency_t *run)
{
    ngx_coord_giveback_flush(run->conf->zone->store);
    ngx_coord_store_push(run->conf->zone->store);
}


/* a record that is no good goes first */

static void
ngx_http_coord_run_complete(ngx_http_coord_idempotency_t *run)
{
    ngx_coord_batch_t  *batch;

    ngx_http_coord_run_over(run, NGX_COORD_RUN_STORED);

    batch = ngx_coord_batch_create(run->conf->zone->store);
    if (batch == NULL) {
        return;
    }

    if ((run->replace
         && ngx_http_coord_run_op(run, batch, &ngx_coord_op_claim_discard)
            == NULL)
        || ngx_http_coord_run_op(run, batch, &ngx_coord_op_claim_complete)
           == NULL)
    {
        ngx_coord_batch_done(batch);
        return;
    }

    ngx_http_coord_run_store(run, batch);
}
