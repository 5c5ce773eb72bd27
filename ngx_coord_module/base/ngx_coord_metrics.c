
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The shared memory of the counters, and counting.
 */


#include "ngx_coord_metrics.h"

#include <signal.h>


#define NGX_COORD_METRICS_SIZE   (512 * 1024)
#define NGX_COORD_METRICS_SPARE  8           /* zones a reload may add */

#define NGX_COORD_BLOCK_ZONE     1
#define NGX_COORD_BLOCK_STORE    2


/* counters of one zone or store; lives as long as the shared memory */
typedef struct {
    ngx_queue_t                queue;
    ngx_uint_t                 kind;
    size_t                     len;
    u_char                    *name;
    void                      *data;
} ngx_coord_metrics_block_t;


static size_t ngx_coord_metrics_size(ngx_coord_metrics_t *metrics);
static ngx_int_t ngx_coord_metrics_init(ngx_shm_zone_t *shm_zone, void *data);
static void ngx_coord_metrics_bind(ngx_coord_metrics_t *metrics,
    ngx_slab_pool_t *shpool, ngx_log_t *log);
static void ngx_coord_metrics_bind_store(ngx_coord_metrics_t *metrics,
    ngx_slab_pool_t *shpool, ngx_coord_store_t *store, ngx_log_t *log);
static void *ngx_coord_metrics_block(ngx_coord_metrics_shm_t *shm,
    ngx_slab_pool_t *shpool, ngx_uint_t kind, ngx_str_t *type,
    ngx_str_t *name, size_t size, ngx_log_t *log);
static void ngx_coord_metrics_start_store(ngx_coord_store_t *store);
static void ngx_coord_metrics_clear_slot(ngx_coord_metrics_t *metrics);
static void ngx_coord_metrics_tick(ngx_atomic_t *ring);


/* the slot of this process */
static ngx_uint_t  ngx_coord_metrics_slot;


ngx_int_t
ngx_coord_metrics_add(ngx_conf_t *cf, ngx_coord_metrics_t *metrics, void *tag)
{
    ngx_str_t        name;
    ngx_shm_zone_t  *shm_zone;

    ngx_str_set(&name, "coord_metrics");

    shm_zone = ngx_shared_memory_add(cf, &name,
                                     ngx_coord_metrics_size(metrics), tag);
    if (shm_zone == NULL) {
        return NGX_ERROR;
    }

    shm_zone->init = ngx_coord_metrics_init;
    shm_zone->data = metrics;

    metrics->shm_zone = shm_zone;

    return NGX_OK;
}


/*
 * Memory of another size would be new memory: sizes are far apart, so that a
 * reload that adds a few zones goes on counting.
 */

static size_t
ngx_coord_metrics_size(ngx_coord_metrics_t *metrics)
{
    size_t  size, need;

    need = sizeof(ngx_coord_metrics_shm_t)
           + (metrics->zones->nelts + NGX_COORD_METRICS_SPARE)
             * (sizeof(ngx_coord_counts_t) + NGX_COORD_KEYS_SIZE
                + 2 * ngx_pagesize)
           + (metrics->stores->nelts + 2)
             * (sizeof(ngx_coord_store_counts_t) + ngx_pagesize);

    for (size = NGX_COORD_METRICS_SIZE; size < need + need / 4; size *= 2) {
        /* void */
    }

    return size;
}


static ngx_int_t
ngx_coord_metrics_init(ngx_shm_zone_t *shm_zone, void *data)
{
    ngx_coord_metrics_t  *old = data;

    ngx_slab_pool_t          *shpool;
    ngx_coord_metrics_t      *metrics;
    ngx_coord_metrics_shm_t  *shm;

    metrics = shm_zone->data;
    shpool = (ngx_slab_pool_t *) shm_zone->shm.addr;

    if (old) {
        metrics->shm = old->shm;

    } else if (shm_zone->shm.exists) {
        metrics->shm = shpool->data;

    } else {
        shm = ngx_slab_calloc(shpool, sizeof(ngx_coord_metrics_shm_t));
        if (shm == NULL) {
            return NGX_ERROR;
        }

        ngx_queue_init(&shm->blocks);

        /* a lack of memory is logged once for each zone, below */
        shpool->log_nomem = 0;
        shpool->data = shm;

        metrics->shm = shm;
    }

    ngx_coord_metrics_bind(metrics, shpool, shm_zone->shm.log);

    return NGX_OK;
}


static void
ngx_coord_metrics_bind(ngx_coord_metrics_t *metrics, ngx_slab_pool_t *shpool,
    ngx_log_t *log)
{
    ngx_uint_t           i;
    ngx_coord_zone_t   **zones;
    ngx_coord_store_t  **stores;

    ngx_coord_metrics_bind_store(metrics, shpool, metrics->local, log);

    stores = metrics->stores->elts;

    for (i = 0; i < metrics->stores->nelts; i++) {
        ngx_coord_metrics_bind_store(metrics, shpool, stores[i], log);
    }

    zones = metrics->zones->elts;

    for (i = 0; i < metrics->zones->nelts; i++) {
        zones[i]->counts = ngx_coord_metrics_block(metrics->shm, shpool,
                                                   NGX_COORD_BLOCK_ZONE,
                                                   &zones[i]->type,
                                                   &zones[i]->name,
                                                   sizeof(ngx_coord_counts_t),
                                                   log);

        zones[i]->keys = metrics->keys;

        if (zones[i]->counts && metrics->keys) {
            ngx_coord_keys_add(zones[i], shpool);
        }
    }
}


static void
ngx_coord_metrics_bind_store(ngx_coord_metrics_t *metrics,
    ngx_slab_pool_t *shpool, ngx_coord_store_t *store, ngx_log_t *log)
{
    ngx_str_t  type;

    ngx_str_set(&type, "store");

    store->counts = ngx_coord_metrics_block(metrics->shm, shpool,
                                            NGX_COORD_BLOCK_STORE, &type,
                                            &store->name,
                                            sizeof(ngx_coord_store_counts_t),
                                            log);
}


/* finds the counters of a name or makes them; NULL: no memory, logged */

static void *
ngx_coord_metrics_block(ngx_coord_metrics_shm_t *shm,
    ngx_slab_pool_t *shpool, ngx_uint_t kind, ngx_str_t *type,
    ngx_str_t *name, size_t size, ngx_log_t *log)
{
    size_t                      len;
    u_char                     *p;
    ngx_queue_t                *q;
    ngx_coord_metrics_block_t  *block;

    len = type->len + 1 + name->len;

    for (q = ngx_queue_head(&shm->blocks);
         q != ngx_queue_sentinel(&shm->blocks);
         q = ngx_queue_next(q))
    {
        block = ngx_queue_data(q, ngx_coord_metrics_block_t, queue);

        if (block->kind == kind
            && block->len == len
            && ngx_memcmp(block->name, type->data, type->len) == 0
            && ngx_memcmp(block->name + type->len + 1, name->data, name->len)
               == 0)
        {
            return block->data;
        }
    }

    block = ngx_slab_alloc(shpool, sizeof(ngx_coord_metrics_block_t) + len);

    if (block == NULL) {
        goto failed;
    }

    block->data = ngx_slab_calloc(shpool, size);

    if (block->data == NULL) {
        ngx_slab_free(shpool, block);
        goto failed;
    }

    block->kind = kind;
    block->len = len;
    block->name = (u_char *) block + sizeof(ngx_coord_metrics_block_t);

    p = ngx_cpymem(block->name, type->data, type->len);
    *p++ = ':';
    ngx_memcpy(p, name->data, name->len);

    ngx_queue_insert_tail(&shm->blocks, &block->queue);

    return block->data;

failed:

    ngx_log_error(NGX_LOG_WARN, log, 0,
                  "no memory for the counters of \"%V\", they are left out "
                  "until nginx is restarted", name);

    return NULL;
}


void
ngx_coord_metrics_start(ngx_coord_metrics_t *metrics)
{
    ngx_pid_t                 pid;
    ngx_uint_t                i;
    ngx_coord_store_t       **stores;
    ngx_coord_metrics_shm_t  *shm;

    shm = metrics->shm;

    if (shm == NULL) {
        return;
    }

    /*
     * The last slot is shared by those for which there is no other one: what
     * they count is right, present states may be off until they have left.
     */

    for (i = 0; i < NGX_COORD_METRICS_PROCS - 1; i++) {
        pid = (ngx_pid_t) shm->procs[i];

        if (pid == ngx_pid) {
            break;
        }

        if (!ngx_coord_metrics_alive(pid)
            && ngx_atomic_cmp_set(&shm->procs[i], (ngx_atomic_uint_t) pid,
                                  (ngx_atomic_uint_t) ngx_pid))
        {
            break;
        }
    }

    if (i == NGX_COORD_METRICS_PROCS - 1) {
        shm->procs[i] = (ngx_atomic_uint_t) ngx_pid;
    }

    ngx_coord_metrics_slot = i;

    ngx_coord_metrics_start_store(metrics->local);

    stores = metrics->stores->elts;

    for (i = 0; i < metrics->stores->nelts; i++) {
        ngx_coord_metrics_start_store(stores[i]);
    }

    ngx_coord_metrics_clear_slot(metrics);
}


static void
ngx_coord_metrics_start_store(ngx_coord_store_t *store)
{
    ngx_coord_store_stats_t  *stats;

    if (store->counts == NULL) {
        return;
    }

    stats = &store->counts->procs[ngx_coord_metrics_slot];

    stats->up = 0;
    stats->pending = 0;
    stats->breaker_open = 0;
    stats->rtt_usec = 0;

    store->stats = stats;
}


/* the leases that a dead process held have ended with it */

static void
ngx_coord_metrics_clear_slot(ngx_coord_metrics_t *metrics)
{
    ngx_uint_t                  n;
    ngx_queue_t                *q;
    ngx_coord_counts_t         *counts;
    ngx_coord_metrics_shm_t    *shm;
    ngx_coord_metrics_block_t  *block;

    shm = metrics->shm;

    for (q = ngx_queue_head(&shm->blocks);
         q != ngx_queue_sentinel(&shm->blocks);
         q = ngx_queue_next(q))
    {
        block = ngx_queue_data(q, ngx_coord_metrics_block_t, queue);

        if (block->kind != NGX_COORD_BLOCK_ZONE) {
            continue;
        }

        counts = block->data;

        for (n = 0; n < NGX_COORD_GAUGE_MAX; n++) {
            counts->gauges[ngx_coord_metrics_slot][n] = 0;
        }
    }
}


void
ngx_coord_metrics_stop(ngx_coord_metrics_t *metrics)
{
    ngx_coord_metrics_shm_t  *shm;

    shm = metrics->shm;

    if (shm) {
        (void) ngx_atomic_cmp_set(&shm->procs[ngx_coord_metrics_slot],
                                  (ngx_atomic_uint_t) ngx_pid, 0);
    }
}


ngx_uint_t
ngx_coord_metrics_alive(ngx_pid_t pid)
{
    if (pid == 0) {
        return 0;
    }

    return (kill(pid, 0) == 0 || ngx_errno != ESRCH);
}


void
ngx_coord_metrics_decision(ngx_coord_zone_t *zone,
    ngx_coord_outcome_e outcome)
{
    ngx_coord_counts_shard_t  *shard;

    if (zone->counts == NULL) {
        return;
    }

    shard = &zone->counts->shards[ngx_worker % NGX_COORD_COUNTS_SHARDS];

    (void) ngx_atomic_fetch_add(&shard->outcomes[outcome], 1);

    ngx_coord_metrics_tick(shard->all);

    if (ngx_coord_outcomes[outcome].refused) {
        ngx_coord_metrics_tick(shard->refused);
    }
}


void
ngx_coord_metrics_limit(ngx_coord_op_t *op, ngx_uint_t refused,
    ngx_uint_t dry_run)
{
    ngx_coord_outcome_e  outcome;

    if (op->rc == NGX_BUSY) {
        outcome = dry_run ? NGX_COORD_OUTCOME_REJECTED_DRY_RUN
                          : NGX_COORD_OUTCOME_REJECTED;

        ngx_coord_keys_refused(op->zone, op->key, op->key_len);

    } else if (op->rc == NGX_ERROR) {
        outcome = (op->on_failure == NGX_COORD_FAILURE_CLOSED && !dry_run)
                  ? NGX_COORD_OUTCOME_UNAVAILABLE
                  : NGX_COORD_OUTCOME_BYPASSED;

    } else if (refused) {
        return;

    } else {
        outcome = NGX_COORD_OUTCOME_PASSED;
    }

    ngx_coord_metrics_decision(op->zone, outcome);
}


static void
ngx_coord_metrics_tick(ngx_atomic_t *ring)
{
    ngx_atomic_t       *cell;
    ngx_atomic_uint_t   word, second;

    /* of a monotonic clock that all processes share */
    second = ngx_current_msec / 1000;

    cell = &ring[second % NGX_COORD_RING_SECONDS];
    second <<= NGX_COORD_RING_SHIFT;

    word = *cell;

    if ((word >> NGX_COORD_RING_SHIFT) << NGX_COORD_RING_SHIFT != second
        && ngx_atomic_cmp_set(cell, word, second + 1))
    {
        return;
    }

    /* somebody else may have begun this second meanwhile */

    (void) ngx_atomic_fetch_add(cell, 1);
}


void
ngx_coord_metrics_gauge(ngx_coord_zone_t *zone, ngx_coord_gauge_e gauge,
    ngx_int_t n)
{
    if (zone->counts) {
        (void) ngx_atomic_fetch_add(
                    &zone->counts->gauges[ngx_coord_metrics_slot][gauge], n);
    }
}
