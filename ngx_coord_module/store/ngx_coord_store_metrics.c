
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Gives zones and stores their counters; counting what becomes of a request.
 */


#include "ngx_coord_store_metrics.h"


#define NGX_COORD_METRICS_SIZE   (512 * 1024)
#define NGX_COORD_METRICS_SPARE  8           /* zones a reload may add */


static size_t ngx_coord_metrics_size(ngx_coord_metrics_t *metrics);
static ngx_int_t ngx_coord_metrics_init(ngx_shm_zone_t *shm_zone, void *data);
static void ngx_coord_metrics_bind_zone(ngx_coord_metrics_t *metrics,
    ngx_coord_zone_t *zone);
static void ngx_coord_metrics_bind_store(ngx_coord_metrics_t *metrics,
    ngx_coord_store_t *store);
static void ngx_coord_metrics_start_store(ngx_coord_store_t *store,
    ngx_uint_t slot);


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
    ngx_uint_t            i;
    ngx_coord_zone_t    **zones;
    ngx_coord_store_t   **stores;
    ngx_coord_metrics_t  *metrics;

    metrics = shm_zone->data;

    metrics->shm = ngx_coord_metrics_shm(shm_zone);

    if (metrics->shm == NULL) {
        return NGX_ERROR;
    }

    ngx_coord_metrics_bind_store(metrics, metrics->local);

    stores = metrics->stores->elts;

    for (i = 0; i < metrics->stores->nelts; i++) {
        ngx_coord_metrics_bind_store(metrics, stores[i]);
    }

    zones = metrics->zones->elts;

    for (i = 0; i < metrics->zones->nelts; i++) {
        ngx_coord_metrics_bind_zone(metrics, zones[i]);
    }

    return NGX_OK;
}


static void
ngx_coord_metrics_bind_zone(ngx_coord_metrics_t *metrics,
    ngx_coord_zone_t *zone)
{
    zone->counts = ngx_coord_metrics_block(metrics->shm_zone,
                                           NGX_COORD_BLOCK_ZONE,
                                           &zone->kind->type, &zone->name,
                                           sizeof(ngx_coord_counts_t));

    zone->keys = metrics->keys;

    if (zone->counts && metrics->keys) {
        ngx_coord_keys_add(zone->counts,
                           (ngx_slab_pool_t *) metrics->shm_zone->shm.addr);
    }
}


static void
ngx_coord_metrics_bind_store(ngx_coord_metrics_t *metrics,
    ngx_coord_store_t *store)
{
    ngx_str_t  type;

    ngx_str_set(&type, "store");

    store->counts = ngx_coord_metrics_block(metrics->shm_zone,
                                            NGX_COORD_BLOCK_STORE, &type,
                                            &store->name,
                                            sizeof(ngx_coord_store_counts_t));
}


void
ngx_coord_metrics_start(ngx_coord_metrics_t *metrics)
{
    ngx_uint_t           i, slot;
    ngx_coord_store_t  **stores;

    if (metrics->shm == NULL) {
        return;
    }

    slot = ngx_coord_metrics_enter(metrics->shm);

    ngx_coord_metrics_start_store(metrics->local, slot);

    stores = metrics->stores->elts;

    for (i = 0; i < metrics->stores->nelts; i++) {
        ngx_coord_metrics_start_store(stores[i], slot);
    }
}


static void
ngx_coord_metrics_start_store(ngx_coord_store_t *store, ngx_uint_t slot)
{
    ngx_coord_store_stats_t  *stats;

    if (store->counts == NULL) {
        return;
    }

    stats = &store->counts->procs[slot];

    stats->up = 0;
    stats->pending = 0;
    stats->breaker_open = 0;
    stats->rtt_usec = 0;
    stats->event_listeners = 0;

    /* whoever had the slot before hears of nothing any more */

    store->counts->epochs[slot] = 0;
    store->counts->hearers[slot].pid = 0;

    store->stats = stats;
}


void
ngx_coord_metrics_stop(ngx_coord_metrics_t *metrics)
{
    if (metrics->shm) {
        ngx_coord_metrics_leave(metrics->shm);
    }
}


void
ngx_coord_metrics_gauge(ngx_coord_zone_t *zone, ngx_coord_gauge_e gauge,
    ngx_int_t n)
{
    ngx_coord_counts_gauge(zone->counts, gauge, n);
}
