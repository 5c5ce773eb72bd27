
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The shared memory of the counters, and counting.
 */


#include "ngx_coord_metrics.h"


/* counters of one name; lives as long as the shared memory */
typedef struct {
    ngx_queue_t                queue;
    ngx_coord_block_e          kind;
    size_t                     len;
    u_char                    *name;
    void                      *data;
} ngx_coord_metrics_block_t;


static ngx_coord_metrics_block_t *ngx_coord_metrics_find(
    ngx_coord_metrics_shm_t *shm, ngx_coord_block_e kind,
    const ngx_str_t *type, const ngx_str_t *name);
static void ngx_coord_metrics_clear_slot(ngx_coord_metrics_shm_t *shm);
static void ngx_coord_metrics_tick(ngx_atomic_t *ring);


/* the slot of this process, and those of all */
static ngx_uint_t     ngx_coord_metrics_slot;
static ngx_atomic_t  *ngx_coord_metrics_procs;


ngx_coord_metrics_shm_t *
ngx_coord_metrics_shm(ngx_shm_zone_t *shm_zone)
{
    ngx_slab_pool_t          *shpool;
    ngx_coord_metrics_shm_t  *shm;

    shpool = (ngx_slab_pool_t *) shm_zone->shm.addr;

    if (shpool->data) {
        return shpool->data;
    }

    shm = ngx_slab_calloc(shpool, sizeof(ngx_coord_metrics_shm_t));
    if (shm == NULL) {
        return NULL;
    }

    ngx_queue_init(&shm->blocks);

    /* a lack of memory is logged once for each name, below */
    shpool->log_nomem = 0;
    shpool->data = shm;

    return shm;
}


void *
ngx_coord_metrics_block(ngx_shm_zone_t *shm_zone, ngx_coord_block_e kind,
    const ngx_str_t *type, const ngx_str_t *name, size_t size)
{
    size_t                      len;
    u_char                     *p;
    ngx_slab_pool_t            *shpool;
    ngx_coord_metrics_shm_t    *shm;
    ngx_coord_metrics_block_t  *block;

    shpool = (ngx_slab_pool_t *) shm_zone->shm.addr;
    shm = shpool->data;

    block = ngx_coord_metrics_find(shm, kind, type, name);

    if (block) {
        return block->data;
    }

    len = type->len + 1 + name->len;

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

    ngx_log_error(NGX_LOG_WARN, shm_zone->shm.log, 0,
                  "no memory for the counters of \"%V\", they are left out "
                  "until nginx is restarted", name);

    return NULL;
}


static ngx_coord_metrics_block_t *
ngx_coord_metrics_find(ngx_coord_metrics_shm_t *shm, ngx_coord_block_e kind,
    const ngx_str_t *type, const ngx_str_t *name)
{
    ngx_queue_t                *q;
    ngx_coord_metrics_block_t  *block;

    for (q = ngx_queue_head(&shm->blocks);
         q != ngx_queue_sentinel(&shm->blocks);
         q = ngx_queue_next(q))
    {
        block = ngx_queue_data(q, ngx_coord_metrics_block_t, queue);

        if (block->kind == kind
            && block->len == type->len + 1 + name->len
            && ngx_memcmp(block->name, type->data, type->len) == 0
            && ngx_memcmp(block->name + type->len + 1, name->data, name->len)
               == 0)
        {
            return block;
        }
    }

    return NULL;
}


ngx_uint_t
ngx_coord_metrics_enter(ngx_coord_metrics_shm_t *shm)
{
    ngx_pid_t   pid;
    ngx_uint_t  i;

    /*
     * The last slot is shared by those for which there is no other one: what
     * they count is right, present states may be off until they have left.
     */

    for (i = 0; i < NGX_COORD_METRICS_PROCS - 1; i++) {
        pid = (ngx_pid_t) shm->procs[i];

        if (pid == ngx_pid) {
            break;
        }

        if (!ngx_coord_alive(pid)
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
    ngx_coord_metrics_procs = shm->procs;
    ngx_coord_metrics_clear_slot(shm);

    return i;
}


/* the leases that a dead process held have ended with it */

static void
ngx_coord_metrics_clear_slot(ngx_coord_metrics_shm_t *shm)
{
    ngx_uint_t                  n;
    ngx_queue_t                *q;
    ngx_coord_counts_t         *counts;
    ngx_coord_metrics_block_t  *block;

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
ngx_coord_metrics_leave(ngx_coord_metrics_shm_t *shm)
{
    (void) ngx_atomic_cmp_set(&shm->procs[ngx_coord_metrics_slot],
                              (ngx_atomic_uint_t) ngx_pid, 0);
}


ngx_uint_t
ngx_coord_metrics_living(ngx_uint_t slot)
{
    return ngx_coord_metrics_procs
           && ngx_coord_alive((ngx_pid_t) ngx_coord_metrics_procs[slot]);
}


void
ngx_coord_counts_decision(ngx_coord_counts_t *counts,
    ngx_coord_outcome_e outcome)
{
    ngx_coord_counts_shard_t  *shard;

    if (counts == NULL) {
        return;
    }

    shard = &counts->shards[ngx_worker % NGX_COORD_COUNTS_SHARDS];

    (void) ngx_atomic_fetch_add(&shard->outcomes[outcome], 1);

    ngx_coord_metrics_tick(shard->all);

    if (ngx_coord_outcomes[outcome].refused) {
        ngx_coord_metrics_tick(shard->refused);
    }

    if (outcome == NGX_COORD_OUTCOME_BYPASSED) {
        ngx_coord_metrics_tick(shard->bypassed);
    }
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
ngx_coord_counts_gauge(ngx_coord_counts_t *counts, ngx_coord_gauge_e gauge,
    ngx_int_t n)
{
    if (counts) {
        (void) ngx_atomic_fetch_add(
                           &counts->gauges[ngx_coord_metrics_slot][gauge], n);
    }
}
