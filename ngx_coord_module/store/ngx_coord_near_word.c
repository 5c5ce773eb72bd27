
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Whose word counts.  A word is a number that no other time of any worker has,
 * and its slot.  It stands in shared memory while that worker hears of changes;
 * when it stands there no more, all that was read under it is not fresh at
 * once.
 */


#include "ngx_coord_near_worker.h"
#include "ngx_coord_store_metrics.h"


#define ngx_coord_near_slot(epoch)  ((epoch) & (NGX_COORD_METRICS_PROCS - 1))


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


ngx_uint_t
ngx_coord_near_trusted(ngx_coord_store_t *store, ngx_atomic_uint_t epoch)
{
    if (epoch == NGX_COORD_NEAR_ALWAYS) {
        return 1;
    }

    return epoch != 0
           && store->counts != NULL
           && store->counts->epochs[ngx_coord_near_slot(epoch)] == epoch;
}
