
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The table of metrics, and the counters of zones over all processes.
 */


#include "ngx_coord_metrics.h"
#include "ngx_coord_stats.h"


static ngx_uint_t ngx_coord_counts_second(ngx_atomic_t *ring,
    ngx_atomic_uint_t second);


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

    { ngx_string("coord_zone_used_ratio"),
      ngx_string("used_ratio"),
      ngx_string("Part of the memory of a zone that is taken, by what has "
                 "expired as well."),
      NGX_COORD_METRIC_GAUGE, NGX_COORD_METRIC_MEMORY,
      NGX_COORD_MEMORY_USED, 1 },

    { ngx_string("coord_zone_evictions_total"),
      ngx_string("evictions"),
      ngx_string("Keys that were forgotten before their time, because the "
                 "memory of a zone was full."),
      NGX_COORD_METRIC_COUNTER, NGX_COORD_METRIC_MEMORY,
      NGX_COORD_MEMORY_EVICTIONS, 0 },

    { ngx_string("coord_zone_deny_cache_total"),
      ngx_string("deny_cache"),
      ngx_string("Requests that were refused without asking Redis, because "
                 "it had just refused their key."),
      NGX_COORD_METRIC_COUNTER, NGX_COORD_METRIC_MEMORY,
      NGX_COORD_MEMORY_DENIED, 0 },

    { ngx_string("coord_zone_prefetch_total"),
      ngx_string("prefetch"),
      ngx_string("Requests that were let in by places that had been taken "
                 "from Redis in advance."),
      NGX_COORD_METRIC_COUNTER, NGX_COORD_METRIC_MEMORY,
      NGX_COORD_MEMORY_PREFETCHED, 0 },

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

    { ngx_string("coord_events_listeners"),
      ngx_string("event_listeners"),
      ngx_string("Clients of this node that listen to channels of the store, "
                 "counted for each channel."),
      NGX_COORD_METRIC_GAUGE, NGX_COORD_METRIC_STORE,
      ngx_coord_stat(event_listeners), 0 },

    { ngx_string("coord_events_published_total"),
      ngx_string("events_published"),
      ngx_string("Messages of coord_publish that the store has taken."),
      NGX_COORD_METRIC_COUNTER, NGX_COORD_METRIC_STORE,
      ngx_coord_stat(events_published), 0 },

    { ngx_string("coord_events_lost_total"),
      ngx_string("events_lost"),
      ngx_string("Messages of coord_publish that the store may not have "
                 "taken."),
      NGX_COORD_METRIC_COUNTER, NGX_COORD_METRIC_STORE,
      ngx_coord_stat(events_lost), 0 },

    { ngx_string("coord_events_heard_total"),
      ngx_string("events_heard"),
      ngx_string("Messages that workers heard for their clients, once for "
                 "each worker and channel."),
      NGX_COORD_METRIC_COUNTER, NGX_COORD_METRIC_STORE,
      ngx_coord_stat(events_heard), 0 },

    { ngx_string("coord_events_sent_total"),
      ngx_string("events_sent"),
      ngx_string("Messages sent to clients of coord_subscribe."),
      NGX_COORD_METRIC_COUNTER, NGX_COORD_METRIC_STORE,
      ngx_coord_stat(events_sent), 0 },

    { ngx_string("coord_events_cut_total"),
      ngx_string("events_cut"),
      ngx_string("Clients of coord_subscribe that were too slow and were "
                 "cut off."),
      NGX_COORD_METRIC_COUNTER, NGX_COORD_METRIC_STORE,
      ngx_coord_stat(events_cut), 0 },

    { ngx_null_string, ngx_null_string, ngx_null_string, 0, 0, 0, 0 }
};


void
ngx_coord_metrics_look(ngx_coord_metrics_shm_t *shm,
    ngx_coord_metrics_view_t *view)
{
    ngx_uint_t  i;

    ngx_memzero(view, sizeof(ngx_coord_metrics_view_t));

    for (i = 0; shm && i < NGX_COORD_METRICS_PROCS; i++) {
        if (ngx_coord_alive((ngx_pid_t) shm->procs[i])) {
            view->living[i] = 1;
            view->workers++;
        }
    }
}


ngx_uint_t
ngx_coord_counts_outcome(ngx_coord_counts_t *counts,
    ngx_coord_outcome_e outcome)
{
    ngx_uint_t  i, n;

    n = 0;

    for (i = 0; counts && i < NGX_COORD_COUNTS_SHARDS; i++) {
        n += counts->shards[i].outcomes[outcome];
    }

    return n;
}


ngx_uint_t
ngx_coord_counts_state(ngx_coord_counts_t *counts,
    ngx_coord_metrics_view_t *view, ngx_coord_gauge_e gauge)
{
    ngx_int_t   n;
    ngx_uint_t  i;

    n = 0;

    for (i = 0; counts && i < NGX_COORD_METRICS_PROCS; i++) {
        if (view->living[i]) {
            n += (ngx_int_t) counts->gauges[i][gauge];
        }
    }

    return ngx_max(n, 0);
}


void
ngx_coord_counts_history(ngx_coord_counts_t *counts,
    ngx_coord_second_t *seconds, ngx_uint_t n)
{
    ngx_uint_t                 i, k;
    ngx_atomic_uint_t          second;
    ngx_coord_counts_shard_t  *shard;

    ngx_memzero(seconds, n * sizeof(ngx_coord_second_t));

    for (i = 0; i < n; i++) {
        second = ngx_current_msec / 1000 - n + i;

        for (k = 0; counts && k < NGX_COORD_COUNTS_SHARDS; k++) {
            shard = &counts->shards[k];

            seconds[i].all += ngx_coord_counts_second(shard->all, second);
            seconds[i].refused += ngx_coord_counts_second(shard->refused,
                                                          second);
            seconds[i].bypassed += ngx_coord_counts_second(shard->bypassed,
                                                           second);
        }
    }
}


static ngx_uint_t
ngx_coord_counts_second(ngx_atomic_t *ring, ngx_atomic_uint_t second)
{
    ngx_atomic_uint_t  word;

    /* what differs in the low bits only is a count */

    word = ring[second % NGX_COORD_RING_SECONDS]
           ^ (second << NGX_COORD_RING_SHIFT);

    return (word >> NGX_COORD_RING_SHIFT == 0) ? word : 0;
}
