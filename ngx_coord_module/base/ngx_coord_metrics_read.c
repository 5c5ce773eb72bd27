
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The metrics: their table, and their values over all processes.
 */


#include "ngx_coord_metrics.h"


#define NGX_COORD_INFO_FRESH  15000          /* milliseconds */


static void ngx_coord_metrics_sum(ngx_coord_store_stats_t *sum,
    ngx_coord_store_stats_t *stats, ngx_uint_t living);


#define ngx_coord_stat(field)  offsetof(ngx_coord_store_stats_t, field)


const ngx_coord_metric_t  ngx_coord_metrics_table[] = {

    { ngx_string("coord_workers"),
      ngx_string("workers"),
      ngx_string("Worker processes that are running."),
      NGX_COORD_METRIC_GAUGE, NGX_COORD_METRIC_NODE, 0, 0 },

    { ngx_string("coord_decisions_total"),
      ngx_string("decisions"),
      ngx_string("Decisions of a feature on the keys of a zone, by outcome."),
      NGX_COORD_METRIC_COUNTER, NGX_COORD_METRIC_DECISIONS, 0, 0 },

    { ngx_string("coord_leases"),
      ngx_string("leases"),
      ngx_string("Leases that requests on this node hold now."),
      NGX_COORD_METRIC_GAUGE, NGX_COORD_METRIC_ZONE,
      NGX_COORD_GAUGE_LEASES, 0 },

    { ngx_string("coord_waiters"),
      ngx_string("waiters"),
      ngx_string("Requests on this node that wait for a lease now."),
      NGX_COORD_METRIC_GAUGE, NGX_COORD_METRIC_ZONE,
      NGX_COORD_GAUGE_WAITERS, 0 },

    { ngx_string("coord_store_up"),
      ngx_string("state"),
      ngx_string("1 if the store is up or degraded, 0 if it is down."),
      NGX_COORD_METRIC_GAUGE, NGX_COORD_METRIC_STATE, 0, 0 },

    { ngx_string("coord_store_workers"),
      ngx_string("up"),
      ngx_string("Workers with a usable connection to the store."),
      NGX_COORD_METRIC_GAUGE, NGX_COORD_METRIC_STORE,
      ngx_coord_stat(up), 0 },

    { ngx_string("coord_store_pending"),
      ngx_string("pending"),
      ngx_string("Operations that wait for a reply now."),
      NGX_COORD_METRIC_GAUGE, NGX_COORD_METRIC_STORE,
      ngx_coord_stat(pending), 0 },

    { ngx_string("coord_breaker_open"),
      ngx_string("breaker_open"),
      ngx_string("Workers whose circuit breaker is open."),
      NGX_COORD_METRIC_GAUGE, NGX_COORD_METRIC_STORE,
      ngx_coord_stat(breaker_open), 0 },

    { ngx_string("coord_breaker_opens_total"),
      ngx_string("breaker_opens"),
      ngx_string("How often a circuit breaker has opened."),
      NGX_COORD_METRIC_COUNTER, NGX_COORD_METRIC_STORE,
      ngx_coord_stat(breaker_opens), 0 },

    { ngx_string("coord_store_reconnects_total"),
      ngx_string("reconnects"),
      ngx_string("Connections that replaced a lost one."),
      NGX_COORD_METRIC_COUNTER, NGX_COORD_METRIC_STORE,
      ngx_coord_stat(reconnects), 0 },

    { ngx_string("coord_store_rtt_seconds"),
      ngx_string("rtt_seconds"),
      ngx_string("Round trip of the last clock sample, of the slowest "
                 "worker."),
      NGX_COORD_METRIC_GAUGE, NGX_COORD_METRIC_STORE,
      ngx_coord_stat(rtt_usec), 1 },

    { ngx_string("coord_store_commands_total"),
      ngx_string("commands"),
      ngx_string("Commands in the operations that were answered."),
      NGX_COORD_METRIC_COUNTER, NGX_COORD_METRIC_STORE,
      ngx_coord_stat(commands), 0 },

    { ngx_string("coord_store_late_replies_total"),
      ngx_string("late_replies"),
      ngx_string("Replies that came after their operation had timed out."),
      NGX_COORD_METRIC_COUNTER, NGX_COORD_METRIC_STORE,
      ngx_coord_stat(late), 0 },

    { ngx_string("coord_store_operations_total"),
      ngx_string("operations"),
      ngx_string("Operations sent to the store, by result: ok, or the class "
                 "of the failure."),
      NGX_COORD_METRIC_COUNTER, NGX_COORD_METRIC_RESULTS, 0, 0 },

    { ngx_string("coord_store_latency_seconds"),
      ngx_string("latency"),
      ngx_string("Time from sending an operation to its reply."),
      NGX_COORD_METRIC_HISTOGRAM, NGX_COORD_METRIC_LATENCY, 0, 1 },

    { ngx_null_string, ngx_null_string, ngx_null_string, 0, 0, 0, 0 }
};


const ngx_str_t  ngx_coord_store_states[] = {
    ngx_string("down"),
    ngx_string("degraded"),
    ngx_string("up")
};


void
ngx_coord_metrics_look(ngx_coord_metrics_t *metrics,
    ngx_coord_metrics_view_t *view)
{
    ngx_uint_t                i;
    ngx_coord_metrics_shm_t  *shm;

    ngx_memzero(view, sizeof(ngx_coord_metrics_view_t));

    shm = metrics->shm;

    if (shm == NULL) {
        return;
    }

    for (i = 0; i < NGX_COORD_METRICS_PROCS; i++) {
        if (ngx_coord_metrics_alive((ngx_pid_t) shm->procs[i])) {
            view->living[i] = 1;
            view->workers++;
        }
    }
}


ngx_uint_t
ngx_coord_metrics_outcome(ngx_coord_zone_t *zone, ngx_coord_outcome_e outcome)
{
    ngx_uint_t  i, n;

    n = 0;

    for (i = 0; zone->counts && i < NGX_COORD_COUNTS_SHARDS; i++) {
        n += zone->counts->shards[i].outcomes[outcome];
    }

    return n;
}


ngx_uint_t
ngx_coord_metrics_state(ngx_coord_metrics_view_t *view,
    ngx_coord_zone_t *zone, ngx_coord_gauge_e gauge)
{
    ngx_int_t   n;
    ngx_uint_t  i;

    n = 0;

    for (i = 0; zone->counts && i < NGX_COORD_METRICS_PROCS; i++) {
        if (view->living[i]) {
            n += (ngx_int_t) zone->counts->gauges[i][gauge];
        }
    }

    return ngx_max(n, 0);
}


void
ngx_coord_metrics_history(ngx_coord_zone_t *zone, ngx_uint_t *all,
    ngx_uint_t *refused, ngx_uint_t n)
{
    ngx_uint_t                 i, k, cell;
    ngx_atomic_uint_t          second, word;
    ngx_coord_counts_shard_t  *shard;

    for (i = 0; i < n; i++) {
        all[i] = 0;
        refused[i] = 0;

        second = ngx_current_msec / 1000 - n + i;
        cell = second % NGX_COORD_RING_SECONDS;
        second <<= NGX_COORD_RING_SHIFT;

        for (k = 0; zone->counts && k < NGX_COORD_COUNTS_SHARDS; k++) {
            shard = &zone->counts->shards[k];

            /* what differs in the low bits only is a count */

            word = shard->all[cell] ^ second;

            if (word >> NGX_COORD_RING_SHIFT == 0) {
                all[i] += word;
            }

            word = shard->refused[cell] ^ second;

            if (word >> NGX_COORD_RING_SHIFT == 0) {
                refused[i] += word;
            }
        }
    }
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
        sum->rtt_usec = ngx_max(sum->rtt_usec, stats->rtt_usec);
    }

    sum->reconnects += stats->reconnects;
    sum->breaker_opens += stats->breaker_opens;
    sum->calls += stats->calls;
    sum->late += stats->late;
    sum->commands += stats->commands;
    sum->latency_usec += stats->latency_usec;

    for (i = 0; i < NGX_COORD_FAIL_MAX; i++) {
        sum->failures[i] += stats->failures[i];
    }

    for (i = 0; i <= NGX_COORD_LATENCY_BUCKETS; i++) {
        sum->latency[i] += stats->latency[i];
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


ngx_coord_store_state_e
ngx_coord_metrics_store_state(ngx_coord_store_t *store,
    ngx_coord_metrics_view_t *view, ngx_coord_store_stats_t *sum,
    ngx_coord_store_info_t *info)
{
    if (ngx_coord_store_is_memory(store)) {
        return NGX_COORD_STORE_UP;
    }

    if (sum->up == 0 || sum->breaker_open >= view->workers) {
        return NGX_COORD_STORE_DOWN;
    }

    /* a server that hangs still has its connections */

    if (info->failure == NGX_COORD_FAIL_TIMEOUT
        && ngx_current_msec - info->failed < NGX_COORD_INFO_FRESH)
    {
        return NGX_COORD_STORE_DOWN;
    }

    if (sum->up < view->workers || sum->breaker_open) {
        return NGX_COORD_STORE_DEGRADED;
    }

    return NGX_COORD_STORE_UP;
}
