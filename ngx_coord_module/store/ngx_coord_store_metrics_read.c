
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * What is known of a store, over all processes.
 */


#include "ngx_coord_store_metrics.h"
#include "ngx_coord_redis.h"
#include "ngx_coord_table.h"


#define NGX_COORD_INFO_FRESH       15000     /* milliseconds */
#define NGX_COORD_SAMPLE_INTERVAL  1950


static void ngx_coord_metrics_sum(ngx_coord_store_stats_t *sum,
    ngx_coord_store_stats_t *stats, ngx_uint_t living);
static void ngx_coord_metrics_subtract(ngx_coord_store_stats_t *stats,
    ngx_coord_store_stats_t *before);


const ngx_str_t  ngx_coord_store_states[] = {
    ngx_string("down"),
    ngx_string("degraded"),
    ngx_string("up")
};


void
ngx_coord_metrics_memory(ngx_coord_zone_t *zone,
    ngx_uint_t values[NGX_COORD_MEMORY_MAX])
{
    uint64_t            used;
    ngx_coord_table_t  *table;

    ngx_memzero(values, NGX_COORD_MEMORY_MAX * sizeof(ngx_uint_t));

    table = zone->table;

    if (table == NULL || table->ncells == 0) {
        return;
    }

    used = table->ncells - ngx_min(table->nfree, table->ncells);

    values[NGX_COORD_MEMORY_USED] = used * 1000000 / table->ncells;
    values[NGX_COORD_MEMORY_EVICTIONS] = table->evictions;
    values[NGX_COORD_MEMORY_DENIED] = table->near[0];
    values[NGX_COORD_MEMORY_PREFETCHED] = table->near[1];
}


void
ngx_coord_metrics_store(ngx_coord_metrics_view_t *view,
    ngx_coord_store_t *store, ngx_coord_store_stats_t *sum)
{
    ngx_uint_t  i;

    ngx_memzero(sum, sizeof(ngx_coord_store_stats_t));

    if (store->counts == NULL) {
        return;
    }

    for (i = 0; i < NGX_COORD_METRICS_PROCS; i++) {
        ngx_coord_metrics_sum(sum, &store->counts->procs[i],
                              view->living[i]);
    }

    if (ngx_coord_store_is_memory(store)) {
        sum->up = view->workers;
    }
}


static void
ngx_coord_metrics_sum(ngx_coord_store_stats_t *sum,
    ngx_coord_store_stats_t *stats, ngx_uint_t living)
{
    ngx_uint_t  i;

    if (living) {
        sum->up += stats->up;
        sum->pending += stats->pending;
        sum->breaker_open += stats->breaker_open;
        sum->event_listeners += stats->event_listeners;
        sum->rtt_usec = ngx_max(sum->rtt_usec, stats->rtt_usec);
    }

    sum->reconnects += stats->reconnects;
    sum->breaker_opens += stats->breaker_opens;
    sum->calls += stats->calls;
    sum->late += stats->late;
    sum->commands += stats->commands;
    sum->latency_usec += stats->latency_usec;
    sum->events_published += stats->events_published;
    sum->events_lost += stats->events_lost;
    sum->events_heard += stats->events_heard;
    sum->events_sent += stats->events_sent;
    sum->events_cut += stats->events_cut;

    for (i = 0; i < NGX_COORD_FAIL_MAX; i++) {
        sum->failures[i] += stats->failures[i];
    }

    for (i = 0; i <= NGX_COORD_LATENCY_BUCKETS; i++) {
        sum->latency[i] += stats->latency[i];
    }
}


void
ngx_coord_metrics_sample(ngx_coord_store_t *store)
{
    ngx_uint_t                 i;
    ngx_coord_store_counts_t  *counts;
    ngx_coord_store_sample_t  *sample;

    counts = store->counts;

    sample = &counts->samples[(counts->nsamples - 1)
                              % NGX_COORD_STORE_SAMPLES];

    if (counts->nsamples
        && ngx_current_msec - sample->time < NGX_COORD_SAMPLE_INTERVAL)
    {
        return;
    }

    sample = &counts->samples[counts->nsamples % NGX_COORD_STORE_SAMPLES];

    ngx_memzero(&sample->stats, sizeof(ngx_coord_store_stats_t));

    for (i = 0; i < NGX_COORD_METRICS_PROCS; i++) {
        ngx_coord_metrics_sum(&sample->stats, &counts->procs[i], 0);
    }

    sample->time = ngx_current_msec;

    (void) ngx_atomic_fetch_add(&counts->nsamples, 1);
}


void
ngx_coord_metrics_minute(ngx_coord_store_t *store,
    ngx_coord_store_stats_t *sum, ngx_coord_store_stats_t *minute)
{
    ngx_uint_t                 i, n;
    ngx_coord_store_counts_t  *counts;
    ngx_coord_store_sample_t  *sample, *before;

    counts = store->counts;
    before = NULL;

    n = counts ? ngx_min(counts->nsamples, NGX_COORD_STORE_SAMPLES) : 0;

    /* the latest one that is a minute old; none: all of sum is later */

    for (i = 0; i < n; i++) {
        sample = &counts->samples[i];

        if (ngx_current_msec - sample->time >= 60000
            && (before == NULL
                || (ngx_msec_int_t) (sample->time - before->time) > 0))
        {
            before = sample;
        }
    }

    *minute = *sum;

    minute->up = 0;
    minute->pending = 0;
    minute->breaker_open = 0;
    minute->rtt_usec = 0;
    minute->event_listeners = 0;

    if (before) {
        ngx_coord_metrics_subtract(minute, &before->stats);
    }
}


static void
ngx_coord_metrics_subtract(ngx_coord_store_stats_t *stats,
    ngx_coord_store_stats_t *before)
{
    ngx_uint_t  i;

    stats->reconnects -= before->reconnects;
    stats->breaker_opens -= before->breaker_opens;
    stats->calls -= before->calls;
    stats->late -= before->late;
    stats->commands -= before->commands;
    stats->latency_usec -= before->latency_usec;
    stats->events_published -= before->events_published;
    stats->events_lost -= before->events_lost;
    stats->events_heard -= before->events_heard;
    stats->events_sent -= before->events_sent;
    stats->events_cut -= before->events_cut;

    for (i = 0; i < NGX_COORD_FAIL_MAX; i++) {
        stats->failures[i] -= before->failures[i];
    }

    for (i = 0; i <= NGX_COORD_LATENCY_BUCKETS; i++) {
        stats->latency[i] -= before->latency[i];
    }
}


void
ngx_coord_metrics_info(ngx_coord_store_t *store, ngx_coord_store_info_t *info)
{
    ngx_uint_t                 i;
    ngx_atomic_uint_t          version;
    ngx_coord_store_counts_t  *counts;

    counts = store->counts;

    if (counts == NULL) {
        ngx_memzero(info, sizeof(ngx_coord_store_info_t));
        return;
    }

    /* a writer that died has left half a copy: better than none */

    for (i = 0; i < 100; i++) {
        version = counts->version;
        ngx_memory_barrier();

        *info = counts->info;

        ngx_memory_barrier();

        if (!(version & 1) && version == counts->version) {
            break;
        }

        ngx_cpu_pause();
    }

    info->version.len = ngx_min(info->version.len, NGX_COORD_INFO_STR);
    info->role.len = ngx_min(info->role.len, NGX_COORD_INFO_STR);

    if ((ngx_uint_t) info->failure >= NGX_COORD_FAIL_MAX) {
        info->failure = NGX_COORD_FAIL_NONE;
    }
}


ngx_uint_t
ngx_coord_metrics_quantile(ngx_coord_store_stats_t *stats, double quantile)
{
    ngx_uint_t  i, n, all;

    all = 0;

    for (i = 0; i <= NGX_COORD_LATENCY_BUCKETS; i++) {
        all += stats->latency[i];
    }

    n = 0;

    for (i = 0; all && i < NGX_COORD_LATENCY_BUCKETS; i++) {
        n += stats->latency[i];

        if ((double) n >= quantile * (double) all) {
            return ngx_coord_latency_bounds[i];
        }
    }

    return 0;
}


const ngx_str_t *
ngx_coord_metrics_refusal(ngx_coord_store_t *store)
{
    ngx_msec_t            when;
    ngx_coord_refusal_t  *refusal;

    if (store->counts == NULL) {
        return NULL;
    }

    refusal = &store->counts->refusal;
    when = refusal->when;

    if (when == 0 || ngx_current_msec - when >= NGX_COORD_INFO_FRESH) {
        return NULL;
    }

    return ngx_coord_redis_refuses(refusal->word);
}


ngx_coord_store_state_e
ngx_coord_metrics_store_state(ngx_coord_store_t *store,
    ngx_coord_metrics_view_t *view, ngx_coord_store_stats_t *sum,
    ngx_coord_store_info_t *info)
{
    if (ngx_coord_store_is_memory(store)) {
        return NGX_COORD_STORE_UP;
    }

    if (sum->up == 0
        || (sum->breaker_open >= view->workers && !store->several))
    {
        return NGX_COORD_STORE_DOWN;
    }

    /* who hangs, refuses, or is too old, still has its connections */

    if (((info->failure == NGX_COORD_FAIL_TIMEOUT
          || info->failure == NGX_COORD_FAIL_UNAVAILABLE)
         && ngx_current_msec - info->failed < NGX_COORD_INFO_FRESH)
        || ngx_coord_metrics_refusal(store))
    {
        return store->several ? NGX_COORD_STORE_DEGRADED
                              : NGX_COORD_STORE_DOWN;
    }

    if (sum->up < view->workers || sum->breaker_open) {
        return NGX_COORD_STORE_DEGRADED;
    }

    return NGX_COORD_STORE_UP;
}
