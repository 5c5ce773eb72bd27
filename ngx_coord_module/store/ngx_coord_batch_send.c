
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * A batch on its way: sent, answered in time or late, and told of.
 */


#include "ngx_coord_batch.h"
#include "ngx_coord_outage.h"


static void ngx_coord_batch_post(ngx_coord_batch_t *batch,
    ngx_coord_batch_state_e state);


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


void
ngx_coord_batch_done_handler(ngx_event_t *ev)
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
