
/*
 * Copyright (C) ngx_coord_module contributors
 */


#include "ngx_coord_outage.h"


#define NGX_COORD_OUTAGE_INTERVAL  1000      /* milliseconds between lines */


static void ngx_coord_outage_tick(ngx_event_t *ev);
static ngx_uint_t ngx_coord_outage_tell(ngx_coord_store_t *store);


static const ngx_str_t  ngx_coord_outage_names[NGX_COORD_FAILURE_MAX] = {
    ngx_string("open"),
    ngx_string("closed"),
    ngx_string("local")
};


void
ngx_coord_outage_add(ngx_coord_batch_t *batch)
{
    ngx_uint_t           i, by;
    ngx_coord_op_t      *op;
    ngx_coord_store_t   *store;
    ngx_coord_outage_t  *outage;

    store = batch->store;
    outage = &store->outage;

    if (!batch->request
        || ngx_coord_store_is_memory(store)
        || store->ending)
    {
        return;
    }

    by = 0;

    for (i = 0; i < batch->nops; i++) {
        op = &batch->ops[i];

        if (op->failure != NGX_COORD_FAIL_NONE) {
            by |= (ngx_uint_t) 1 << op->on_failure;
            outage->reason = op->failure;
        }
    }

    /* who is not ready is so again when he has answered */

    outage->silent = (by && ngx_coord_store_ready(store));

    if (by == 0) {
        return;
    }

    for (i = 0; i < NGX_COORD_FAILURE_MAX; i++) {
        outage->requests[i] += (by >> i) & 1;
    }

    if (outage->began != 0) {
        outage->total++;
        return;
    }

    outage->began = ngx_max(ngx_current_msec, 1);
    outage->total = 1;

    (void) ngx_coord_outage_tell(store);

    ngx_coord_timer_init(&outage->timer, ngx_coord_outage_tick, store,
                         store->cycle->log);
    outage->timer.event.cancelable = 1;

    ngx_coord_timer_start(&outage->timer, NGX_COORD_OUTAGE_INTERVAL);
}


void
ngx_coord_outage_stop(ngx_coord_store_t *store)
{
    if (store->outage.began != 0) {
        (void) ngx_coord_outage_tell(store);

        ngx_coord_timer_stop(&store->outage.timer);
        store->outage.began = 0;
    }
}


/* a second in which all was answered, after an answer, is the end */

static void
ngx_coord_outage_tick(ngx_event_t *ev)
{
    ngx_coord_store_t *store = ngx_coord_timer_data(ev);

    ngx_uint_t           ready;
    ngx_coord_outage_t  *outage;

    outage = &store->outage;
    ready = ngx_coord_store_ready(store);

    if (!ready) {
        outage->silent = 0;
    }

    if (ngx_coord_outage_tell(store) || !ready || outage->silent) {
        ngx_coord_timer_start(&outage->timer, NGX_COORD_OUTAGE_INTERVAL);
        return;
    }

    ngx_log_error(NGX_LOG_ERR, store->cycle->log, 0,
                  "coord store \"%V\" answers again, "
                  "%ui requests went by on_failure in %Mms",
                  &store->name, outage->total,
                  ngx_current_msec - outage->began);

    outage->began = 0;
}


/* 1 if there was something to tell since the last time */

static ngx_uint_t
ngx_coord_outage_tell(ngx_coord_store_t *store)
{
    ngx_uint_t           i, told;
    ngx_coord_outage_t  *outage;

    told = 0;
    outage = &store->outage;

    for (i = 0; i < NGX_COORD_FAILURE_MAX; i++) {

        if (outage->requests[i] == 0) {
            continue;
        }

        ngx_log_error(NGX_LOG_ERR, store->cycle->log, 0,
                      "coord store \"%V\" has no answer: "
                      "%ui requests went by on_failure=%V, reason: %V",
                      &store->name, outage->requests[i],
                      &ngx_coord_outage_names[i],
                      &ngx_coord_fail_names[outage->reason]);

        outage->requests[i] = 0;
        told = 1;
    }

    return told;
}
