
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_idempotency: the result of a run, on its way to the store, where it is
 * offered again until it is taken; the request may be long gone.
 */


#include "ngx_http_coord_idempotency.h"
#include "ngx_coord_lease.h"


/* bytes of results that wait for their store, in a worker */
#define NGX_HTTP_COORD_UNSTORED_MAX   (16 * 1024 * 1024)

/* they are offered for so long, and by a worker that exits; milliseconds */
#define NGX_HTTP_COORD_UNSTORED_LIFE  (10 * 60 * 1000)
#define NGX_HTTP_COORD_UNSTORED_STAY  (30 * 1000)


/* a result that is to be stored, with its bytes behind it */
typedef struct {
    ngx_coord_op_t             op;
    ngx_coord_timer_t          timer;
    ngx_msec_t                 since;
    ngx_msec_t                 life;
    ngx_uint_t                 replace;
} ngx_http_coord_unstored_t;


static ngx_int_t ngx_http_coord_run_push(ngx_coord_batch_t *batch);
static void ngx_http_coord_run_stored(ngx_coord_batch_t *batch);
static ngx_int_t ngx_http_coord_run_retry(ngx_coord_batch_t *batch,
    ngx_coord_op_t *op);
static void ngx_http_coord_run_store_again(ngx_event_t *ev);
static void ngx_http_coord_run_unstored_free(
    ngx_http_coord_unstored_t *unstored);


static size_t  ngx_http_coord_unstored_size;


void
ngx_http_coord_run_store(ngx_http_coord_idempotency_t *run,
    ngx_coord_batch_t *batch)
{
    ngx_str_t        key;
    ngx_coord_op_t  *op;

    key.data = run->op.key;
    key.len = run->op.key_len;

    op = &batch->ops[batch->nops - 1];

    if (ngx_http_coord_capture_encode(run->request, &run->capture, &key,
                                      run->fingerprint, &op->record)
        != NGX_OK)
    {
        ngx_coord_batch_done(batch);
        return;
    }

    batch->handler = ngx_http_coord_run_stored;

    if (ngx_http_coord_run_push(batch) == NGX_AGAIN
        && op->record.len > NGX_COORD_RECORD_INLINE
        && !run->shadow)
    {
        /*
         * It need not be there before others' claims: who has all of the
         * response and asks again, elsewhere, is to find it.
         */

        op->data = run;
        run->storing = batch;

        ngx_http_coord_capture_hold(&run->capture);
    }
}


/*
 * Sends before the client gets the last of its response, and may ask again.
 * NGX_OK: the handler has been called; NGX_AGAIN: it will be.
 */

static ngx_int_t
ngx_http_coord_run_push(ngx_coord_batch_t *batch)
{
    ngx_coord_op_t              *op;
    ngx_coord_store_t           *store;
    ngx_coord_batch_handler_pt   handler;

    store = batch->store;
    handler = batch->handler;

    /* waiters of this worker; others hear of it by the store, or ask */

    op = &batch->ops[batch->nops - 1];

    if (ngx_coord_store_is_memory(store)) {
        ngx_coord_wake(op->zone, op->key, op->key_len);
    }

    if (ngx_coord_batch_send(batch) == NGX_OK) {

        if (handler) {
            handler(batch);
        }

        return NGX_OK;
    }

    ngx_coord_store_push(store);

    return NGX_AGAIN;
}


void
ngx_http_coord_run_leaves(ngx_http_coord_idempotency_t *run)
{
    ngx_coord_batch_t  *batch;

    batch = run->storing;

    if (batch) {
        batch->ops[batch->nops - 1].data = NULL;
        run->storing = NULL;
    }

    ngx_coord_giveback_leave(&run->freeing);
}


static void
ngx_http_coord_run_stored(ngx_coord_batch_t *batch)
{
    ngx_coord_op_t                *op;
    ngx_http_coord_unstored_t     *unstored;
    ngx_http_coord_idempotency_t  *run;

    unstored = batch->data;
    op = &batch->ops[batch->nops - 1];
    run = op->data;

    if (run) {
        op->data = NULL;
        run->storing = NULL;

        ngx_http_coord_capture_release(run->request, &run->capture);
    }

    if (op->rc == NGX_ERROR
        && ngx_http_coord_run_retry(batch, op) == NGX_OK)
    {
        ngx_coord_batch_done(batch);
        return;
    }

    if (op->rc == NGX_ERROR) {
        ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0,
                      "idempotency: a response could not be stored "
                      "in zone \"%V\": %V", &op->zone->name,
                      &ngx_coord_fail_names[op->failure]);

    } else if (op->rc == NGX_BUSY && unstored == NULL) {
        ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, 0,
                      "idempotency: another run has stored its response "
                      "before in zone \"%V\"", &op->zone->name);
    }

    ngx_coord_journal_remove(op);

    if (unstored) {
        ngx_http_coord_run_unstored_free(unstored);
    }

    ngx_coord_batch_done(batch);
}


/*
 * A result that a store did not take is offered again: the first one stands,
 * also where the claim is over meanwhile.  The request may be long gone.
 */

static ngx_int_t
ngx_http_coord_run_retry(ngx_coord_batch_t *batch,
    ngx_coord_op_t *op)
{
    ngx_msec_t                  lease, age;
    ngx_http_coord_unstored_t  *unstored;

    unstored = batch->data;
    lease = (ngx_msec_t) (op->u.claim.lease / NGX_COORD_NSEC_PER_MSEC);

    if (op->failure == NGX_COORD_FAIL_NONE || ngx_terminate) {
        return NGX_DECLINED;
    }

    if (unstored == NULL) {

        if (ngx_http_coord_unstored_size + op->record.len
            > NGX_HTTP_COORD_UNSTORED_MAX)
        {
            return NGX_DECLINED;
        }

        unstored = ngx_calloc(sizeof(ngx_http_coord_unstored_t)
                              + op->record.len, ngx_cycle->log);
        if (unstored == NULL) {
            return NGX_DECLINED;
        }

        /* the batch may still be in flight */

        unstored->op = *op;
        unstored->op.record.data = (u_char *) (unstored + 1);

        ngx_memcpy(unstored->op.record.data, op->record.data, op->record.len);

        unstored->replace = (batch->nops > 1);
        unstored->since = ngx_current_msec;
        unstored->life = ngx_min((ngx_msec_t) (op->u.claim.ttl
                                               / NGX_COORD_NSEC_PER_MSEC),
                                 NGX_HTTP_COORD_UNSTORED_LIFE);
        unstored->life = ngx_max(unstored->life, lease);

        ngx_coord_timer_init(&unstored->timer,
                             ngx_http_coord_run_store_again, unstored,
                             ngx_cycle->log);

        ngx_http_coord_unstored_size += op->record.len;
    }

    age = ngx_current_msec - unstored->since;

    if (age >= unstored->life) {
        return NGX_DECLINED;
    }

    unstored->timer.event.cancelable = (age >= NGX_HTTP_COORD_UNSTORED_STAY);

    ngx_coord_timer_start(&unstored->timer, ngx_min(lease / 6, 1000));

    return NGX_OK;
}


static void
ngx_http_coord_run_store_again(ngx_event_t *ev)
{
    ngx_http_coord_unstored_t *unstored = ngx_coord_timer_data(ev);

    ngx_uint_t          i;
    ngx_coord_op_t     *op;
    ngx_coord_batch_t  *batch;

    batch = ngx_coord_batch_create(unstored->op.zone->store);

    for (i = !unstored->replace; batch && i < 2; i++) {
        op = ngx_coord_batch_add(batch, i ? &ngx_coord_op_claim_complete
                                          : &ngx_coord_op_claim_discard,
                                 unstored->op.zone, unstored->op.key,
                                 unstored->op.key_len);
        if (op == NULL) {
            ngx_coord_batch_done(batch);
            batch = NULL;
            break;
        }

        op->u = unstored->op.u;
        ngx_memcpy(op->id, unstored->op.id, NGX_COORD_ID_LEN);
    }

    if (batch == NULL) {
        ngx_http_coord_run_unstored_free(unstored);
        return;
    }

    op = &batch->ops[batch->nops - 1];

    op->record.len = unstored->op.record.len;
    op->record.data = ngx_alloc(op->record.len, ngx_cycle->log);

    if (op->record.data == NULL) {
        ngx_coord_batch_done(batch);
        ngx_http_coord_run_unstored_free(unstored);
        return;
    }

    ngx_memcpy(op->record.data, unstored->op.record.data, op->record.len);

    batch->handler = ngx_http_coord_run_stored;
    batch->data = unstored;

    if (ngx_coord_batch_send(batch) == NGX_OK) {
        ngx_http_coord_run_stored(batch);
    }
}


static void
ngx_http_coord_run_unstored_free(ngx_http_coord_unstored_t *unstored)
{
    ngx_http_coord_unstored_size -= unstored->op.record.len;

    ngx_free(unstored);
}
