
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Near caches of a worker: its start, and what it is told of changes.
 */


#include "ngx_coord_near_worker.h"
#include "ngx_coord_store_redis.h"


/* milliseconds: it is looked for workers that have died */
#define NGX_COORD_NEAR_LOOK  1000


static void ngx_coord_near_look(ngx_event_t *ev);
static void ngx_coord_near_told(void *data, ngx_str_t *key);
static void ngx_coord_near_lost(void *data);
static void ngx_coord_near_all_told(void *data, ngx_msec_t when);


ngx_int_t
ngx_coord_near_start(ngx_coord_store_t *store, ngx_cycle_t *cycle)
{
    u_char                   *p;
    ngx_coord_near_worker_t  *worker;

    store->nearby = NULL;

    if (store->near == NULL) {
        return NGX_OK;
    }

    worker = ngx_pcalloc(cycle->pool, sizeof(ngx_coord_near_worker_t));
    if (worker == NULL) {
        return NGX_ERROR;
    }

    worker->store = store;
    store->nearby = worker;

    ngx_queue_init(&worker->fetches);
    ngx_queue_init(&worker->done);

    worker->event.handler = ngx_coord_near_tell;
    worker->event.data = worker;
    worker->event.log = cycle->log;

    if (ngx_coord_store_is_memory(store)) {
        worker->epoch = NGX_COORD_NEAR_ALWAYS;
        return NGX_OK;
    }

    ngx_coord_near_renew(worker);
    ngx_coord_near_bury(store);

    ngx_coord_timer_init(&worker->timer, ngx_coord_near_look, worker,
                         cycle->log);
    worker->timer.event.cancelable = 1;

    ngx_coord_timer_start(&worker->timer, NGX_COORD_NEAR_LOOK);

    p = ngx_pnalloc(cycle->pool, store->key_prefix.len
                                 + sizeof(NGX_COORD_NEAR_CHANNEL) - 1);
    if (p == NULL) {
        return NGX_ERROR;
    }

    worker->tracking.channel.data = p;
    p = ngx_cpymem(p, store->key_prefix.data, store->key_prefix.len);
    p = ngx_cpymem(p, NGX_COORD_NEAR_CHANNEL,
                   sizeof(NGX_COORD_NEAR_CHANNEL) - 1);
    worker->tracking.channel.len = p - worker->tracking.channel.data;

    worker->tracking.changed = ngx_coord_near_told;
    worker->tracking.lost = ngx_coord_near_lost;
    worker->tracking.heard = ngx_coord_near_all_told;
    worker->tracking.data = worker;

    return ngx_coord_redis_track(ngx_coord_store_redis(store)->client,
                                 &worker->tracking);
}


/* one that dies while it exits has no successor that would do it */

static void
ngx_coord_near_look(ngx_event_t *ev)
{
    ngx_coord_near_worker_t *worker = ngx_coord_timer_data(ev);

    ngx_coord_near_bury(worker->store);
    ngx_coord_timer_start(&worker->timer, NGX_COORD_NEAR_LOOK);
}


static void
ngx_coord_near_told(void *data, ngx_str_t *key)
{
    ngx_coord_near_taint(data, key);
    ngx_coord_near_changed(data, key);
}


static void
ngx_coord_near_lost(void *data)
{
    ngx_coord_near_worker_t *worker = data;

    if (worker->store->nearby == NULL) {
        /* the worker exits */
        return;
    }

    ngx_coord_near_taint(worker, NULL);
    ngx_coord_near_renew(worker);
}


static void
ngx_coord_near_all_told(void *data, ngx_msec_t when)
{
    ngx_coord_near_worker_t *worker = data;

    if (worker->store->nearby) {
        ngx_coord_near_heard(worker, when);
    }
}
