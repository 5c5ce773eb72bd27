
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Whose word counts.  A word is a number that no other time of any worker has,
 * and its slot.  It stands in shared memory while that worker hears of changes;
 * when it stands there no more, all that was read under it is not fresh at
 * once.
 *
 * A worker that is stopped, or waits for a disk, hears nothing and does not
 * know, nor does one whose connection is dead.  So beside its word stands when
 * it was known to have heard all, which it tells once a second, and who has not
 * told for some seconds is not trusted until he does again.
 *
 * Workers hear of a change one after the other, and the first who does speaks
 * for all: what another one has asked for before that, and has the answer to
 * later, is not fresh.
 */


#include "ngx_coord_near_worker.h"
#include "ngx_coord_store_metrics.h"


void
ngx_coord_near_stop(ngx_coord_store_t *store)
{
    if (store->nearby
        && store->nearby->epoch != NGX_COORD_NEAR_ALWAYS
        && store->counts)
    {
        store->counts->epochs[store->stats - store->counts->procs] = 0;
    }

    if (store->nearby) {
        ngx_coord_timer_stop(&store->nearby->timer);
    }

    store->nearby = NULL;
}


void
ngx_coord_near_bury(ngx_coord_store_t *store)
{
    ngx_uint_t         slot;
    ngx_atomic_t      *epochs;
    ngx_atomic_uint_t  epoch;

    if (store->counts == NULL) {
        return;
    }

    epochs = store->counts->epochs;

    for (slot = 0; slot < NGX_COORD_METRICS_PROCS; slot++) {
        epoch = epochs[slot];

        /* a word that is new since then is that of a successor */

        if (epoch && !ngx_coord_metrics_living(slot)) {
            (void) ngx_atomic_cmp_set(&epochs[slot], epoch, 0);
        }
    }
}


void
ngx_coord_near_renew(ngx_coord_near_worker_t *worker)
{
    ngx_uint_t                 slot;
    ngx_atomic_uint_t          epoch;
    ngx_coord_store_counts_t  *counts;

    counts = worker->store->counts;

    if (counts == NULL) {
        return;
    }

    slot = worker->store->stats - counts->procs;

    epoch = (ngx_atomic_uint_t) (ngx_coord_monotonic()
                                 / NGX_COORD_NSEC_PER_USEC);
    epoch = epoch * NGX_COORD_METRICS_PROCS + slot;

    if (epoch == worker->epoch || epoch <= NGX_COORD_NEAR_ALWAYS) {
        epoch += NGX_COORD_METRICS_PROCS;
    }

    worker->epoch = epoch;
    counts->epochs[slot] = epoch;
}


void
ngx_coord_near_revoke(ngx_coord_near_worker_t *worker)
{
    ngx_uint_t                 slot;
    ngx_coord_store_counts_t  *counts;

    counts = worker->store->counts;

    if (counts == NULL) {
        return;
    }

    for (slot = 0; slot < NGX_COORD_METRICS_PROCS; slot++) {
        counts->epochs[slot] = 0;
    }

    ngx_coord_near_renew(worker);
}


ngx_uint_t
ngx_coord_near_group(ngx_str_t *key)
{
    return (ngx_coord_key_hash(key->data, key->len) >> 16)
           % NGX_COORD_STORE_CHANGES;
}


ngx_atomic_uint_t
ngx_coord_near_news(ngx_coord_near_item_t *item)
{
    ngx_coord_store_counts_t  *counts;

    counts = item->near->zone->store->counts;

    return counts ? counts->told[ngx_coord_near_group(&item->key)] : 0;
}


void
ngx_coord_near_note_news(ngx_coord_near_t *near, ngx_str_t *key)
{
    ngx_coord_store_counts_t  *counts;

    counts = near->zone->store->counts;

    if (counts) {
        (void) ngx_atomic_fetch_add(&counts->told[ngx_coord_near_group(key)],
                                    1);
    }
}


void
ngx_coord_near_heard(ngx_coord_near_worker_t *worker, ngx_msec_t when)
{
    ngx_coord_store_counts_t  *counts;

    counts = worker->store->counts;

    if (counts) {
        counts->heard[worker->store->stats - counts->procs] = when;
    }
}


void
ngx_coord_near_void(ngx_coord_near_t *near, ngx_str_t *key)
{
    ngx_coord_store_counts_t  *counts;

    counts = near->zone->store->counts;

    if (counts) {
        (void) ngx_atomic_fetch_add(&counts->changes[ngx_coord_near_group(key)],
                                    1);
    }
}
