
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * What both stores share: begin and end, what becomes of an operation without
 * an answer, and giving back what nobody waits for any more.
 */


#include "ngx_coord_store.h"
#include "ngx_coord_batch.h"
#include "ngx_coord_giveback.h"
#include "ngx_coord_lease.h"
#include "ngx_coord_lives.h"
#include "ngx_coord_outage.h"


static void ngx_coord_op_share(ngx_coord_op_t *op);


ngx_int_t
ngx_coord_store_init(ngx_coord_store_t *store, ngx_cycle_t *cycle)
{
    store->cycle = cycle;
    store->ending = 0;
    store->giveback = NULL;

    ngx_coord_lives_reset();

    ngx_queue_init(&store->completed);

    ngx_memzero(&store->done, sizeof(ngx_event_t));

    store->done.handler = ngx_coord_batch_done_handler;
    store->done.data = store;
    store->done.log = cycle->log;

    if (store->actions->init == NULL) {
        return NGX_OK;
    }

    return store->actions->init(store, cycle);
}


void
ngx_coord_store_exit(ngx_coord_store_t *store)
{
    ngx_queue_t        *q;
    ngx_coord_batch_t  *batch;

    if (store->cycle == NULL) {
        return;
    }

    ngx_coord_giveback_exit(store);
    ngx_coord_outage_stop(store);

    store->ending = 1;

    if (store->actions->exit) {
        store->actions->exit(store);
    }

    if (store->done.posted) {
        ngx_delete_posted_event(&store->done);
    }

    /* nobody is called any more: what the features hold dies with them */

    while (!ngx_queue_empty(&store->completed)) {
        q = ngx_queue_head(&store->completed);
        batch = ngx_queue_data(q, ngx_coord_batch_t, queue);

        ngx_queue_remove(q);

        if (batch->handler == NULL) {
            ngx_coord_batch_free(batch);
        }
    }

    ngx_coord_batches_exit();

    store->cycle = NULL;
}


void
ngx_coord_batch_cancel(ngx_coord_batch_t *batch)
{
    switch (batch->state) {

    case NGX_COORD_BATCH_IN_FLIGHT:

        /* some may be answered already: not those with rc NGX_AGAIN */

        ngx_coord_batch_undo(batch, 0, batch->nops);
        ngx_coord_batch_enter(batch, NGX_COORD_BATCH_CANCELLED);
        return;

    case NGX_COORD_BATCH_LATE:
    case NGX_COORD_BATCH_POSTED:
    case NGX_COORD_BATCH_AGAIN:

        /* results that nobody has seen are no results */

        ngx_queue_remove(&batch->queue);
        ngx_coord_batch_undo(batch, 0, batch->nops);

        if (batch->state == NGX_COORD_BATCH_LATE) {
            ngx_coord_batch_enter(batch, NGX_COORD_BATCH_CANCELLED);
            return;
        }

        break;

    default: /* NGX_COORD_BATCH_NEW */
        break;
    }

    ngx_coord_batch_free(batch);
}


void
ngx_coord_batch_undo(ngx_coord_batch_t *batch, ngx_uint_t first,
    ngx_uint_t last)
{
    ngx_uint_t       i;
    ngx_coord_op_t  *op;

    last = ngx_min(last, batch->nops);

    for (i = first; i < last; i++) {
        op = &batch->ops[i];

        if (!ngx_coord_op_takes(op) || op->again) {
            continue;
        }

        if (op->rc == NGX_OK) {
            ngx_coord_giveback(op, NGX_COORD_GIVEBACK_GRANTED);

        } else if (op->rc == NGX_AGAIN) {

            /* what is in flight ends by its answer, or without one */

            if (op->begun && !op->gone) {

                /* it was to be asked once more */

                ngx_coord_giveback(op, NGX_COORD_GIVEBACK_LOST);
            }

        } else if (!op->doubt) {
            ngx_coord_journal_remove(op);
        }
    }
}


void
ngx_coord_op_undo(ngx_coord_op_t *op)
{
    if (op->rc == NGX_OK && ngx_coord_op_takes(op)) {
        ngx_coord_giveback(op, NGX_COORD_GIVEBACK_GRANTED);
    }
}


/*
 * Ends an operation for which Redis has no answer.  Only what takes a place
 * may take it in memory instead: a lease that lies in Redis cannot be renewed
 * or released there.
 */

void
ngx_coord_op_fail(ngx_coord_batch_t *batch, ngx_coord_op_t *op,
    ngx_coord_fail_e failure)
{
    ngx_coord_op_lost(op, failure);

    if (op->on_failure == NGX_COORD_FAILURE_LOCAL
        && (op->type->flags & (NGX_COORD_OP_TAKES|NGX_COORD_OP_LOOKS)))
    {
        ngx_coord_op_share(op);
        ngx_coord_near_run(op);

        op->source = NGX_COORD_SOURCE_FALLBACK;
        op->failure = failure;
        return;
    }

    op->rc = NGX_ERROR;
    op->source = NGX_COORD_SOURCE_NONE;
    op->failure = failure;
}


/* while each node decides by itself, it has its share of a limit */

static void
ngx_coord_op_share(ngx_coord_op_t *op)
{
    ngx_uint_t  nodes;

    nodes = op->zone->store->nodes ? *op->zone->store->nodes : 1;

    if (nodes <= 1) {
        return;
    }

    switch (op->type->kind) {

    case NGX_COORD_KIND_BUCKET:
    case NGX_COORD_KIND_WINDOW:
    case NGX_COORD_KIND_SLIDING:
    case NGX_COORD_KIND_LOG:
        ngx_coord_rate_share(&op->u.rate, nodes);
        break;

    case NGX_COORD_KIND_LEASE:
        op->u.lease.limit = (op->u.lease.limit + nodes - 1) / nodes;
        break;

    default: /* nothing that can be shared */
        break;
    }
}


void
ngx_coord_op_lost(ngx_coord_op_t *op, ngx_coord_fail_e failure)
{
    if (!ngx_coord_op_takes(op)) {
        return;
    }

    if (op->begun) {

        /* what its first question has left is to be mended in any case */

        failure = NGX_COORD_FAIL_TIMEOUT;

    } else if (!op->gone) {
        failure = NGX_COORD_FAIL_NONE;
    }

    switch (failure) {

    case NGX_COORD_FAIL_TIMEOUT:
    case NGX_COORD_FAIL_CONNECT:
    case NGX_COORD_FAIL_PROTOCOL:
        op->doubt = 1;

        if (!op->again) {
            ngx_coord_giveback(op, NGX_COORD_GIVEBACK_LOST);
        }

        break;

    default: /* it was not sent, or was refused, or told so */

        if (!op->again) {
            ngx_coord_journal_remove(op);
        }

        break;
    }
}


void
ngx_coord_batch_answered(ngx_coord_batch_t *batch, ngx_coord_op_t *op)
{
    /* it was to be asked once more, and will not be */

    if (op->rc == NGX_AGAIN) {
        ngx_coord_giveback(op, NGX_COORD_GIVEBACK_LOST);
        return;
    }

    if (op->again || !ngx_coord_op_takes(op)) {
        return;
    }

    if (batch->state != NGX_COORD_BATCH_CANCELLED) {

        /* what has a name and came late is given back since it was late */

        if (batch->state == NGX_COORD_BATCH_LEFT
            && batch->refused
            && op->rc == NGX_OK
            && op->type->undo
            && !(op->type->undo->flags & NGX_COORD_OP_TWICE))
        {
            ngx_coord_giveback(op, NGX_COORD_GIVEBACK_GRANTED);
        }

        return;
    }

    if (op->rc == NGX_OK) {
        ngx_coord_giveback(op, NGX_COORD_GIVEBACK_GRANTED);

    } else {
        ngx_coord_journal_remove(op);
    }
}


void
ngx_coord_store_push(ngx_coord_store_t *store)
{
    if (store->actions->push) {
        store->actions->push(store);
    }
}


ngx_uint_t
ngx_coord_store_apart(ngx_coord_store_t *store)
{
    return store->actions->apart ? store->actions->apart(store) : 0;
}
