
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * What both stores share: batches and their life, the failure policy, giving
 * back, and telling the features.
 */


#include "ngx_coord_store.h"
#include "ngx_coord_batch.h"
#include "ngx_coord_giveback.h"
#include "ngx_coord_lease.h"
#include "ngx_coord_lives.h"
#include "ngx_coord_outage.h"


/* batches that a worker keeps for reuse */
#define NGX_COORD_BATCH_KEEP  128


static void ngx_coord_op_share(ngx_coord_op_t *op);
static void ngx_coord_batch_free(ngx_coord_batch_t *batch);
static void ngx_coord_batch_destroy(ngx_coord_batch_t *batch);
static void ngx_coord_batch_enter(ngx_coord_batch_t *batch,
    ngx_coord_batch_state_e state);
static void ngx_coord_batch_post(ngx_coord_batch_t *batch,
    ngx_coord_batch_state_e state);
static void ngx_coord_store_done_handler(ngx_event_t *ev);


const ngx_coord_edges_t  ngx_coord_batch_edges[NGX_COORD_BATCH_STATES] = {

    /* NEW */
    ngx_coord_edge(NGX_COORD_BATCH_IN_FLIGHT)
    | ngx_coord_edge(NGX_COORD_BATCH_COMPLETE)
    | ngx_coord_edge(NGX_COORD_BATCH_ENDED),

    /* IN_FLIGHT */
    ngx_coord_edge(NGX_COORD_BATCH_AGAIN)
    | ngx_coord_edge(NGX_COORD_BATCH_LATE)
    | ngx_coord_edge(NGX_COORD_BATCH_POSTED)
    | ngx_coord_edge(NGX_COORD_BATCH_CANCELLED)
    | ngx_coord_edge(NGX_COORD_BATCH_LEFT)
    | ngx_coord_edge(NGX_COORD_BATCH_ENDED),

    /* AGAIN */
    ngx_coord_edge(NGX_COORD_BATCH_IN_FLIGHT)
    | ngx_coord_edge(NGX_COORD_BATCH_COMPLETE)
    | ngx_coord_edge(NGX_COORD_BATCH_ENDED),

    /* LATE */
    ngx_coord_edge(NGX_COORD_BATCH_LATE_SEEN)
    | ngx_coord_edge(NGX_COORD_BATCH_POSTED)
    | ngx_coord_edge(NGX_COORD_BATCH_CANCELLED),

    /* LATE_SEEN */
    ngx_coord_edge(NGX_COORD_BATCH_COMPLETE)
    | ngx_coord_edge(NGX_COORD_BATCH_LEFT),

    /* POSTED */
    ngx_coord_edge(NGX_COORD_BATCH_COMPLETE)
    | ngx_coord_edge(NGX_COORD_BATCH_ENDED),

    /* COMPLETE */
    ngx_coord_edge(NGX_COORD_BATCH_ENDED),

    /* CANCELLED */
    ngx_coord_edge(NGX_COORD_BATCH_ENDED),

    /* LEFT */
    ngx_coord_edge(NGX_COORD_BATCH_ENDED),

    /* ENDED */
    0
};


/* free batches, linked by their data */
static ngx_coord_batch_t  *ngx_coord_batches;
static ngx_uint_t          ngx_coord_nbatches;


ngx_int_t
ngx_coord_store_init(ngx_coord_store_t *store, ngx_cycle_t *cycle)
{
    store->cycle = cycle;
    store->ending = 0;
    store->giveback = NULL;

    ngx_coord_lives_reset();

    ngx_queue_init(&store->completed);

    ngx_memzero(&store->done, sizeof(ngx_event_t));

    store->done.handler = ngx_coord_store_done_handler;
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

    while (ngx_coord_batches) {
        batch = ngx_coord_batches;
        ngx_coord_batches = batch->data;
        ngx_coord_batch_destroy(batch);
    }

    ngx_coord_nbatches = 0;
    store->cycle = NULL;
}


ngx_coord_batch_t *
ngx_coord_batch_create(ngx_coord_store_t *store)
{
    ngx_uint_t          nparts;
    ngx_coord_part_t   *parts;
    ngx_coord_batch_t  *batch;

    batch = ngx_coord_batches;

    if (batch) {
        ngx_coord_batches = batch->data;
        ngx_coord_nbatches--;

    } else {
        batch = ngx_alloc(sizeof(ngx_coord_batch_t), ngx_cycle->log);

        if (batch == NULL) {
            return NULL;
        }

        batch->parts = NULL;
        batch->nparts = 0;
    }

    /* all but the operations, which ngx_coord_batch_add() clears */

    parts = batch->parts;
    nparts = batch->nparts;

    ngx_memzero(batch, offsetof(ngx_coord_batch_t, inline_ops));

    batch->parts = parts;
    batch->nparts = nparts;
    batch->store = store;
    batch->ops = batch->inline_ops;
    batch->nalloc = NGX_COORD_BATCH_OPS;

    return batch;
}


ngx_coord_op_t *
ngx_coord_batch_add(ngx_coord_batch_t *batch,
    const ngx_coord_op_type_t *type, ngx_coord_zone_t *zone, u_char *key,
    size_t len)
{
    ngx_coord_op_t  *op, *ops;

    if (len > NGX_COORD_KEY_LEN) {
        return NULL;
    }

    if (batch->nops == batch->nalloc) {
        ops = ngx_alloc(2 * batch->nalloc * sizeof(ngx_coord_op_t),
                        ngx_cycle->log);
        if (ops == NULL) {
            return NULL;
        }

        ngx_memcpy(ops, batch->ops, batch->nops * sizeof(ngx_coord_op_t));

        if (batch->ops != batch->inline_ops) {
            ngx_free(batch->ops);
        }

        batch->ops = ops;
        batch->nalloc *= 2;
    }

    op = &batch->ops[batch->nops++];

    ngx_memzero(op, sizeof(ngx_coord_op_t));

    op->type = type;
    op->zone = zone;
    op->key_len = len;

    ngx_memcpy(op->key, key, len);

    return op;
}


ngx_int_t
ngx_coord_op_blob(ngx_coord_op_t *op, size_t size)
{
    op->blob = ngx_alloc(size, ngx_cycle->log);

    return op->blob ? NGX_OK : NGX_ERROR;
}


ngx_int_t
ngx_coord_batch_send(ngx_coord_batch_t *batch)
{
    if (batch->store->actions->send(batch) == NGX_AGAIN) {
        ngx_coord_batch_enter(batch, NGX_COORD_BATCH_IN_FLIGHT);
        return NGX_AGAIN;
    }

    ngx_coord_outage_count(batch);

    ngx_coord_batch_enter(batch, NGX_COORD_BATCH_COMPLETE);

    if (batch->handler == NULL) {
        ngx_coord_batch_free(batch);
    }

    return NGX_OK;
}


void
ngx_coord_batch_done(ngx_coord_batch_t *batch)
{
    switch (batch->state) {

    case NGX_COORD_BATCH_IN_FLIGHT:

        /* some may be answered already: not those with rc NGX_AGAIN */

        ngx_coord_batch_undo(batch, 0, batch->nops);
        ngx_coord_batch_enter(batch, NGX_COORD_BATCH_CANCELLED);
        return;

    case NGX_COORD_BATCH_LATE_SEEN:
        ngx_coord_batch_enter(batch, NGX_COORD_BATCH_LEFT);
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

    default: /* NGX_COORD_BATCH_NEW, NGX_COORD_BATCH_COMPLETE */
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


static void
ngx_coord_batch_free(ngx_coord_batch_t *batch)
{
    ngx_uint_t  i;

    ngx_coord_batch_enter(batch, NGX_COORD_BATCH_ENDED);

    for (i = 0; i < batch->nops; i++) {
        if (batch->ops[i].blob) {
            ngx_free(batch->ops[i].blob);
        }

        ngx_coord_op_free_record(&batch->ops[i]);
    }

    if (batch->ops != batch->inline_ops) {
        ngx_free(batch->ops);
    }

    if (ngx_coord_nbatches >= NGX_COORD_BATCH_KEEP) {
        ngx_coord_batch_destroy(batch);
        return;
    }

    batch->data = ngx_coord_batches;
    ngx_coord_batches = batch;
    ngx_coord_nbatches++;
}


static void
ngx_coord_batch_destroy(ngx_coord_batch_t *batch)
{
    if (batch->parts) {
        ngx_free(batch->parts);
    }

    ngx_free(batch);
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


static void
ngx_coord_batch_enter(ngx_coord_batch_t *batch, ngx_coord_batch_state_e state)
{
    ngx_coord_edge_check(ngx_coord_batch_edges, batch->state, state, "batch");

    batch->state = state;
}


/* runs inside the client: handlers wait for the posted event */

static void
ngx_coord_batch_post(ngx_coord_batch_t *batch, ngx_coord_batch_state_e state)
{
    ngx_coord_store_t  *store;

    store = batch->store;

    ngx_coord_batch_enter(batch, state);
    ngx_queue_insert_tail(&store->completed, &batch->queue);

    if (!store->done.posted) {
        ngx_post_event(&store->done, &ngx_posted_events);
    }
}


void
ngx_coord_batch_expired(ngx_coord_batch_t *batch)
{
    if (batch->state != NGX_COORD_BATCH_IN_FLIGHT) {
        return;
    }

    if (batch->handler == NULL) {
        ngx_coord_batch_enter(batch, NGX_COORD_BATCH_LEFT);
        return;
    }

    ngx_coord_batch_post(batch, NGX_COORD_BATCH_LATE);
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
ngx_coord_batch_again(ngx_coord_batch_t *batch)
{
    ngx_coord_batch_post(batch, NGX_COORD_BATCH_AGAIN);
}


void
ngx_coord_batch_released(ngx_coord_batch_t *batch)
{
    switch (batch->state) {

    case NGX_COORD_BATCH_IN_FLIGHT:

        if (batch->handler) {
            ngx_coord_batch_post(batch, NGX_COORD_BATCH_POSTED);
            return;
        }

        break;

    case NGX_COORD_BATCH_LATE:

        /* queued already */

        ngx_coord_batch_enter(batch, NGX_COORD_BATCH_POSTED);
        return;

    case NGX_COORD_BATCH_LATE_SEEN:
        ngx_coord_batch_enter(batch, NGX_COORD_BATCH_COMPLETE);
        return;

    default: /* NGX_COORD_BATCH_CANCELLED, NGX_COORD_BATCH_LEFT */
        break;
    }

    ngx_coord_batch_free(batch);
}


static void
ngx_coord_store_done_handler(ngx_event_t *ev)
{
    ngx_queue_t                *q;
    ngx_coord_batch_t          *batch;
    ngx_coord_store_t          *store;
    ngx_coord_batch_handler_pt  handler;

    store = ev->data;

    while (!ngx_queue_empty(&store->completed)) {
        q = ngx_queue_head(&store->completed);
        batch = ngx_queue_data(q, ngx_coord_batch_t, queue);

        ngx_queue_remove(q);

        /* without a handler the batch may be gone when it is sent */

        handler = batch->handler;

        switch (batch->state) {

        case NGX_COORD_BATCH_AGAIN:

            if (ngx_coord_batch_send(batch) == NGX_AGAIN || handler == NULL) {
                continue;
            }

            break;

        case NGX_COORD_BATCH_LATE:
            ngx_coord_batch_enter(batch, NGX_COORD_BATCH_LATE_SEEN);
            break;

        default: /* NGX_COORD_BATCH_POSTED */
            ngx_coord_batch_enter(batch, NGX_COORD_BATCH_COMPLETE);
            break;
        }

        /* the handler may end the batch */

        handler(batch);
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
