
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_idempotency: asking for a claim outside of the walk, alone or as one of
 * many who wait for the same twin.
 */


#include "ngx_http_coord_idempotency.h"
#include "ngx_coord_claim.h"
#include "ngx_coord_lease.h"


/* how often one of those who wait asks, if nobody tells */
#define NGX_HTTP_COORD_IDEMPOTENCY_POLL        100
#define NGX_HTTP_COORD_IDEMPOTENCY_POLL_REDIS  500


static ngx_int_t ngx_http_coord_run_news(ngx_coord_waiter_t *waiter);
static void ngx_http_coord_run_overdue(ngx_event_t *ev);
static ngx_int_t ngx_http_coord_run_send(ngx_http_coord_idempotency_t *run,
    ngx_coord_batch_t *batch);
static ngx_coord_batch_t *ngx_http_coord_run_question(
    ngx_http_coord_idempotency_t *run);
static void ngx_http_coord_run_answered(ngx_coord_batch_t *batch);


void
ngx_http_coord_run_take(ngx_http_coord_idempotency_t *run, ngx_coord_op_t *op)
{
    ngx_str_t                 key;
    ngx_http_coord_result_t  *result;

    ngx_http_coord_run_forget(run);

    run->op = *op;

    if (op->rc == NGX_BUSY) {
        ngx_coord_journal_remove(op);

    } else if (op->rc == NGX_OK && op->source != NGX_COORD_SOURCE_REDIS) {
        ngx_coord_claim_note(op, 0);
    }

    if (op->record.data == NULL) {
        return;
    }

    ngx_str_null(&run->op.record);

    result = ngx_calloc(sizeof(ngx_http_coord_result_t), ngx_cycle->log);

    if (result == NULL) {
        run->op.rc = NGX_ERROR;
        return;
    }

    result->refs = 1;
    result->blob = op->record;

    ngx_str_null(&op->record);

    key.data = run->op.key;
    key.len = run->op.key_len;

    result->rc = ngx_coord_record_decode(&result->record, &result->blob, &key);

    run->result = result;
}


void
ngx_http_coord_run_forget(ngx_http_coord_idempotency_t *run)
{
    ngx_http_coord_result_t  *result;

    result = run->result;
    run->result = NULL;

    if (result && --result->refs == 0) {
        ngx_free(result->blob.data);
        ngx_free(result);
    }
}


void
ngx_http_coord_run_share(ngx_http_coord_idempotency_t *run)
{
    ngx_coord_op_t                *op;
    ngx_coord_waiter_t            *waiter;
    ngx_http_coord_idempotency_t  *other;

    op = &run->op;

    if (run->state == NGX_COORD_RUN_ASKED
        && (op->rc != NGX_BUSY
            || op->u.claim.state == NGX_COORD_CLAIM_RUNNING
            || (op->u.claim.state == NGX_COORD_CLAIM_DONE
                && run->result == NULL)))
    {
        /* nothing to tell, or not yet */

        return;
    }

    for ( ;; ) {
        waiter = ngx_coord_wait_first(run->conf->zone, op->key, op->key_len);

        if (waiter == NULL) {
            return;
        }

        other = waiter->data;

        ngx_coord_wait_remove(waiter);
        ngx_coord_timer_stop(&other->timer);

        /* what it asks by is its own */

        other->op.rc = NGX_BUSY;
        other->op.failure = op->failure;
        other->op.source = op->source;
        other->op.u.claim = op->u.claim;

        ngx_http_coord_run_forget(other);

        other->result = run->result;

        if (run->result) {
            run->result->refs++;
        }

        ngx_http_coord_run_set(other, NGX_COORD_RUN_ASKED);

        ngx_post_event(&other->timer.event, &ngx_posted_events);
    }
}


ngx_int_t
ngx_http_coord_run_join(ngx_http_coord_idempotency_t *run, u_char *key,
    size_t len)
{
    ngx_coord_waiter_t            *waiter;
    ngx_http_coord_loc_conf_t     *lcf;
    ngx_http_coord_idempotency_t  *other;

    waiter = ngx_coord_wait_first(run->conf->zone, key, len);

    if (waiter == NULL) {
        return NGX_DECLINED;
    }

    other = waiter->data;
    lcf = ngx_http_get_module_loc_conf(run->request, ngx_http_coord_module);

    run->op = other->op;
    run->op.on_failure = (run->conf->on_failure == NGX_CONF_UNSET_UINT)
                         ? lcf->on_failure : run->conf->on_failure;

    return NGX_OK;
}


/* NGX_DECLINED: it has waited long enough */

ngx_int_t
ngx_http_coord_run_wait(ngx_http_coord_idempotency_t *run)
{
    ngx_msec_int_t  left;

    if (run->deadline == 0) {
        run->deadline = ngx_max(ngx_current_msec + run->conf->wait, 1);
    }

    left = (ngx_msec_int_t) (run->deadline - ngx_current_msec);

    if (left <= 0) {
        return NGX_DECLINED;
    }

    run->waiter.handler = ngx_http_coord_run_news;
    run->waiter.data = run;

    if (ngx_coord_wait_add(&run->waiter, run->conf->zone, run->op.key,
                           run->op.key_len,
                           run->op.source == NGX_COORD_SOURCE_REDIS
                           ? NGX_HTTP_COORD_IDEMPOTENCY_POLL_REDIS
                           : NGX_HTTP_COORD_IDEMPOTENCY_POLL)
        != NGX_OK)
    {
        return NGX_DECLINED;
    }

    ngx_http_coord_run_set(run, NGX_COORD_RUN_WAITING);

    ngx_coord_timer_init(&run->timer, ngx_http_coord_run_overdue,
                         run, run->request->connection->log);
    ngx_coord_timer_start(&run->timer, (ngx_msec_t) left);

    return NGX_AGAIN;
}


/*
 * The twin has ended, or may have: of those who wait for it in this worker
 * one asks, and the others hear what he is told.
 */

static ngx_int_t
ngx_http_coord_run_news(ngx_coord_waiter_t *waiter)
{
    ngx_http_coord_idempotency_t *run = waiter->data;

    ngx_coord_wait_remove(&run->waiter);

    ngx_coord_timer_stop(&run->timer);

    /* not from here: who asks in vain waits again, behind all others */

    ngx_post_event(&run->timer.event, &ngx_posted_events);

    return NGX_OK;
}


static void
ngx_http_coord_run_overdue(ngx_event_t *ev)
{
    ngx_http_coord_idempotency_t *run = ngx_coord_timer_data(ev);

    ngx_coord_wait_remove(&run->waiter);

    ngx_http_coord_resume(run->ctx);
}


ngx_int_t
ngx_http_coord_run_again(ngx_http_coord_idempotency_t *run)
{
    if (run->state != NGX_COORD_RUN_ASKED) {
        ngx_http_coord_run_set(run, NGX_COORD_RUN_ASKED);
    }

    return ngx_http_coord_run_send(run, ngx_http_coord_run_question(run));
}


ngx_int_t
ngx_http_coord_run_fetch(ngx_http_coord_idempotency_t *run)
{
    ngx_coord_op_t     *op;
    ngx_coord_batch_t  *batch;

    if (run->state != NGX_COORD_RUN_FETCHING) {
        ngx_http_coord_run_set(run, NGX_COORD_RUN_FETCHING);
    }

    batch = ngx_coord_batch_create(run->conf->zone->store);
    if (batch == NULL) {
        return NGX_ERROR;
    }

    op = ngx_coord_batch_add(batch, &ngx_coord_op_claim_record,
                             run->conf->zone, run->op.key, run->op.key_len);
    if (op == NULL) {
        ngx_coord_batch_done(batch);
        return NGX_ERROR;
    }

    op->source = run->op.source;

    /* what is known of the result stays known */

    op->u.claim = run->op.u.claim;
    ngx_memcpy(op->id, run->op.id, NGX_COORD_ID_LEN);

    return ngx_http_coord_run_send(run, batch);
}


/* NGX_OK: answered; NGX_AGAIN: it will be */

static ngx_int_t
ngx_http_coord_run_send(ngx_http_coord_idempotency_t *run,
    ngx_coord_batch_t *batch)
{
    if (batch == NULL) {
        return NGX_ERROR;
    }

    batch->handler = ngx_http_coord_run_answered;
    batch->data = run;

    if (ngx_coord_batch_send(batch) == NGX_AGAIN) {
        run->batch = batch;
        return NGX_AGAIN;
    }

    ngx_http_coord_run_take(run, &batch->ops[batch->nops - 1]);

    ngx_coord_batch_done(batch);

    return NGX_OK;
}


/* a claim, behind the removal of a mark whose result is no good */

static ngx_coord_batch_t *
ngx_http_coord_run_question(ngx_http_coord_idempotency_t *run)
{
    ngx_coord_op_t     *op;
    ngx_coord_batch_t  *batch;

    batch = ngx_coord_batch_create(run->conf->zone->store);
    if (batch == NULL) {
        return NULL;
    }

    if (run->replace) {
        op = ngx_coord_batch_add(batch, &ngx_coord_op_claim_release,
                                 run->conf->zone, run->op.key,
                                 run->op.key_len);
        if (op == NULL) {
            ngx_coord_batch_done(batch);
            return NULL;
        }

        ngx_http_coord_run_ask(run, op);

        op->u.claim.done = 1;
        op->source = run->op.source;

        ngx_memcpy(op->u.claim.fingerprint, run->op.u.claim.twin,
                   NGX_COORD_FINGERPRINT_LEN);
    }

    op = ngx_coord_batch_add(batch, &ngx_coord_op_claim, run->conf->zone,
                             run->op.key, run->op.key_len);
    if (op == NULL) {
        ngx_coord_batch_done(batch);
        return NULL;
    }

    ngx_http_coord_run_ask(run, op);

    op->on_failure = run->op.on_failure;

    /* what the last id was granted, unheard, is being given back */

    if (ngx_coord_claim_name(op) != NGX_OK) {
        ngx_coord_batch_done(batch);
        return NULL;
    }

    return batch;
}


static void
ngx_http_coord_run_answered(ngx_coord_batch_t *batch)
{
    ngx_http_coord_idempotency_t *run = batch->data;

    run->batch = NULL;

    ngx_http_coord_run_take(run, &batch->ops[batch->nops - 1]);

    ngx_coord_batch_done(batch);

    ngx_http_coord_resume(run->ctx);
}
