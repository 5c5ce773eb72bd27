
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Counters in shared memory.  All workers add to them without a lock; they
 * are found by name when the configuration is read, so that a reload goes on
 * with them.  What tells a present state (connections, calls in flight,
 * leases) stands in a slot of each process and is summed over the living, so
 * that a killed worker leaves nothing behind.
 *
 *   ngx_coord_metrics.c        memory, slots, counting
 *   ngx_coord_metrics_read.c   the table of metrics, reading them
 *   ngx_coord_metrics_keys.c   the keys that are refused most
 */


#ifndef _NGX_COORD_METRICS_H_INCLUDED_
#define _NGX_COORD_METRICS_H_INCLUDED_


#include "ngx_coord_store.h"


#define NGX_COORD_COUNTS_SHARDS   4
#define NGX_COORD_RING_SECONDS    64         /* a power of 2, over a minute */
#define NGX_COORD_METRICS_PROCS   256

/* a second of a ring: which one in the high bits, a count in the low ones */
#define NGX_COORD_RING_SHIFT      (NGX_PTR_SIZE == 4 ? 22 : 40)


#define NGX_COORD_KEYS            32

/*
 * The keys of a zone that are refused most, as the "space saving" algorithm
 * keeps them: a key that is not among them takes the place, and the count, of
 * the one with the fewest refusals.  The true count of a key lies between
 * count - error and count.
 */

typedef struct {
    uint64_t                   count;
    uint64_t                   error;
    ngx_msec_t                 last;
    size_t                     len;
    u_char                     key[NGX_COORD_KEY_LEN];   /* encoded */
} ngx_coord_keys_entry_t;


typedef struct {
    ngx_atomic_t               lock;         /* pid of its owner */
    ngx_coord_keys_entry_t     entries[NGX_COORD_KEYS];
} ngx_coord_keys_t;


#define NGX_COORD_KEYS_SIZE       sizeof(ngx_coord_keys_t)


/* counters that a part of the workers share: less traffic between caches */
typedef struct {
    ngx_atomic_t               outcomes[NGX_COORD_OUTCOME_MAX];
    ngx_atomic_t               all[NGX_COORD_RING_SECONDS];
    ngx_atomic_t               refused[NGX_COORD_RING_SECONDS];
    u_char                     padding[NGX_CPU_CACHE_LINE];
} ngx_coord_counts_shard_t;


/* of a zone, in shared memory */
struct ngx_coord_counts_s {
    ngx_coord_counts_shard_t   shards[NGX_COORD_COUNTS_SHARDS];
    ngx_atomic_t               gauges[NGX_COORD_METRICS_PROCS]
                                     [NGX_COORD_GAUGE_MAX];
    ngx_coord_keys_t          *keys;         /* NULL: nobody shows them */
};


#define NGX_COORD_INFO_STR  32


typedef struct {
    size_t                     len;
    u_char                     data[NGX_COORD_INFO_STR];
} ngx_coord_info_str_t;


/* what a Redis server last said of itself */
typedef struct {
    ngx_coord_info_str_t       version;
    ngx_coord_info_str_t       role;
    uint64_t                   used_memory;
    uint64_t                   max_memory;
    uint64_t                   clients;
    uint64_t                   hits;
    uint64_t                   misses;
    uint64_t                   evicted;
    uint64_t                   uptime;       /* seconds */
    ngx_uint_t                 rtt_usec;
    ngx_msec_t                 taken;        /* 0: never */
    ngx_coord_fail_e           failure;      /* of the last question */
    ngx_msec_t                 failed;       /* when */
} ngx_coord_store_info_t;


/* of a store, in shared memory */
struct ngx_coord_store_counts_s {
    ngx_coord_store_stats_t    procs[NGX_COORD_METRICS_PROCS];
    ngx_atomic_t               asked;        /* second of the last INFO */
    ngx_atomic_t               version;      /* odd: info is being written */
    ngx_coord_store_info_t     info;
};


/*
 * Counts a decision of a feature: one call per zone and request, where the
 * status of the feature is settled.  No lock, no look-up; a zone without
 * counters is skipped.
 */
void ngx_coord_metrics_decision(ngx_coord_zone_t *zone,
    ngx_coord_outcome_e outcome);

/*
 * The same for an operation that limits: passed, rejected, bypassed or
 * unavailable by its result; refused tells that the request was refused.
 * Operations that were granted in a refused request do not count.
 */
void ngx_coord_metrics_limit(ngx_coord_op_t *op, ngx_uint_t refused,
    ngx_uint_t dry_run);

/*
 * Adds to a present state of a zone, in the slot of this process: +1 when a
 * lease is granted, -1 when it ends.
 */
void ngx_coord_metrics_gauge(ngx_coord_zone_t *zone, ngx_coord_gauge_e gauge,
    ngx_int_t n);


/* what the configuration has: lists that grow until its end */
typedef struct {
    ngx_atomic_t               procs[NGX_COORD_METRICS_PROCS];   /* pids */
    ngx_queue_t                blocks;
} ngx_coord_metrics_shm_t;


typedef struct {
    ngx_array_t               *zones;        /* of ngx_coord_zone_t * */
    ngx_array_t               *stores;       /* of ngx_coord_store_t * */
    ngx_coord_store_t         *local;        /* the built-in store */
    ngx_shm_zone_t            *shm_zone;
    ngx_coord_metrics_shm_t   *shm;
    ngx_uint_t                 keys;         /* refused keys are to be kept */
} ngx_coord_metrics_t;


/*
 * Adds the shared memory "coord_metrics", owned by the module tag; at the end
 * of configuration.  metrics, zones and stores live as long as cf->cycle.
 * NGX_ERROR: logged.
 */
ngx_int_t ngx_coord_metrics_add(ngx_conf_t *cf, ngx_coord_metrics_t *metrics,
    void *tag);

/*
 * Worker start: takes a slot, and gives the stores their counters in it; at
 * the end: frees it, the counters stay.
 */
void ngx_coord_metrics_start(ngx_coord_metrics_t *metrics);
void ngx_coord_metrics_stop(ngx_coord_metrics_t *metrics);

/* 1 if a process lives; pid 0 does not */
ngx_uint_t ngx_coord_metrics_alive(ngx_pid_t pid);


/* --- ngx_coord_metrics_read.c --- */

typedef enum {
    NGX_COORD_METRIC_COUNTER = 0,
    NGX_COORD_METRIC_GAUGE,
    NGX_COORD_METRIC_HISTOGRAM
} ngx_coord_metric_type_e;


/* what a metric is about, and with it its labels */
typedef enum {
    NGX_COORD_METRIC_NODE = 0,       /* none */
    NGX_COORD_METRIC_STATE,          /* store */
    NGX_COORD_METRIC_STORE,          /* the same */
    NGX_COORD_METRIC_RESULTS,        /* store, result */
    NGX_COORD_METRIC_LATENCY,        /* store, le */
    NGX_COORD_METRIC_DECISIONS,      /* feature, zone, outcome */
    NGX_COORD_METRIC_ZONE            /* feature, zone */
} ngx_coord_metric_scope_e;


/*
 * The table that JSON, Prometheus text and docs/metrics.md come from.  usec:
 * microseconds that are shown as seconds.
 */

typedef struct {
    ngx_str_t                  name;
    ngx_str_t                  member;       /* in JSON */
    ngx_str_t                  help;
    ngx_coord_metric_type_e    type;
    ngx_coord_metric_scope_e   scope;
    ngx_uint_t                 offset;       /* in stats, or a gauge */
    unsigned                   usec:1;
} ngx_coord_metric_t;


extern const ngx_coord_metric_t  ngx_coord_metrics_table[];


/* one look at everything: who lives, and the sums of a store */
typedef struct {
    ngx_uint_t                 workers;
    u_char                     living[NGX_COORD_METRICS_PROCS];
} ngx_coord_metrics_view_t;


/* which slots belong to living processes; other reads take it */
void ngx_coord_metrics_look(ngx_coord_metrics_t *metrics,
    ngx_coord_metrics_view_t *view);

/* how often a zone had an outcome, over all workers */
ngx_uint_t ngx_coord_metrics_outcome(ngx_coord_zone_t *zone,
    ngx_coord_outcome_e outcome);

/* a present state of a zone, over all living workers */
ngx_uint_t ngx_coord_metrics_state(ngx_coord_metrics_view_t *view,
    ngx_coord_zone_t *zone, ngx_coord_gauge_e gauge);

/*
 * Decisions in each of the last n full seconds (at most 60), the oldest
 * first; refused ones among them.
 */
void ngx_coord_metrics_history(ngx_coord_zone_t *zone, ngx_uint_t *all,
    ngx_uint_t *refused, ngx_uint_t n);

/* the counters of a store over all workers, present states of the living */
void ngx_coord_metrics_store(ngx_coord_metrics_view_t *view,
    ngx_coord_store_t *store, ngx_coord_store_stats_t *sum);

/* a copy of what the server of a store last said; taken 0: nothing yet */
void ngx_coord_metrics_info(ngx_coord_store_t *store,
    ngx_coord_store_info_t *info);

/*
 * A quantile (0.5, 0.99) of the latencies as the upper bound of its bucket,
 * in microseconds; 0: no calls, or beyond the last bound.
 */
ngx_uint_t ngx_coord_metrics_quantile(ngx_coord_store_stats_t *stats,
    double quantile);

typedef enum {
    NGX_COORD_STORE_DOWN = 0,
    NGX_COORD_STORE_DEGRADED,        /* some workers reach it */
    NGX_COORD_STORE_UP
} ngx_coord_store_state_e;

extern const ngx_str_t  ngx_coord_store_states[];

/* what is known of a store without asking it */
ngx_coord_store_state_e ngx_coord_metrics_store_state(
    ngx_coord_store_t *store, ngx_coord_metrics_view_t *view,
    ngx_coord_store_stats_t *sum, ngx_coord_store_info_t *info);


/* --- ngx_coord_metrics_keys.c --- */

/* at configuration: gives a zone room for its keys, if there is memory */
void ngx_coord_keys_add(ngx_coord_zone_t *zone, ngx_slab_pool_t *shpool);

/*
 * Counts a refusal of a key, encoded.  Not for keys that are secrets.  Does
 * nothing if the page does not show keys, or another process is just at it.
 */
void ngx_coord_keys_refused(ngx_coord_zone_t *zone, u_char *key, size_t len);

/*
 * Copies at most n keys of the last minutes, the most refused ones first;
 * returns how many.
 */
ngx_uint_t ngx_coord_keys_top(ngx_coord_zone_t *zone,
    ngx_coord_keys_entry_t *entries, ngx_uint_t n);


#endif /* _NGX_COORD_METRICS_H_INCLUDED_ */
