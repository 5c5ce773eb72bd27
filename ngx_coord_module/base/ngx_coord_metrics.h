
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
 *
 * What belongs to a store or a zone is in ngx_coord_store_metrics.h.
 */


#ifndef _NGX_COORD_METRICS_H_INCLUDED_
#define _NGX_COORD_METRICS_H_INCLUDED_


#include "ngx_coord.h"
#include "ngx_coord_key.h"
#include "ngx_coord_outcome.h"


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
    ngx_atomic_t               bypassed[NGX_COORD_RING_SECONDS];
    u_char                     padding[NGX_CPU_CACHE_LINE];
} ngx_coord_counts_shard_t;


/* of a zone, in shared memory */
struct ngx_coord_counts_s {
    ngx_coord_counts_shard_t   shards[NGX_COORD_COUNTS_SHARDS];
    ngx_atomic_t               gauges[NGX_COORD_METRICS_PROCS]
                                     [NGX_COORD_GAUGE_MAX];
    ngx_coord_keys_t          *keys;         /* NULL: nobody shows them */
};


/* the shared memory; lives until nginx is stopped */
typedef struct {
    ngx_atomic_t               procs[NGX_COORD_METRICS_PROCS];   /* pids */
    ngx_queue_t                blocks;
} ngx_coord_metrics_shm_t;


/* what a block counts: names are unique for each */
typedef enum {
    NGX_COORD_BLOCK_ZONE = 1,        /* an ngx_coord_counts_t */
    NGX_COORD_BLOCK_STORE
} ngx_coord_block_e;


/*
 * Finds the contents of the shared memory, or makes them where it is new.
 * NULL: no memory.
 */
ngx_coord_metrics_shm_t *ngx_coord_metrics_shm(ngx_shm_zone_t *shm_zone);

/*
 * Finds the counters of a name, or makes them: size bytes, zeroed, for ever.
 * Only while the configuration is read.  NULL: no memory, logged.
 */
void *ngx_coord_metrics_block(ngx_shm_zone_t *shm_zone,
    ngx_coord_block_e kind, const ngx_str_t *type, const ngx_str_t *name,
    size_t size);

/*
 * Worker start: takes a slot, in which no zone has a present state, and
 * returns its number; at the end: frees it.
 */
ngx_uint_t ngx_coord_metrics_enter(ngx_coord_metrics_shm_t *shm);
void ngx_coord_metrics_leave(ngx_coord_metrics_shm_t *shm);

/* 1 if the process that has a slot lives; behind the start of this worker */
ngx_uint_t ngx_coord_metrics_living(ngx_uint_t slot);

/*
 * Counts a decision, and its second.  No lock, no look-up; counts may be NULL.
 */
void ngx_coord_counts_decision(ngx_coord_counts_t *counts,
    ngx_coord_outcome_e outcome);

/* adds to a present state, in the slot of this process; counts may be NULL */
void ngx_coord_counts_gauge(ngx_coord_counts_t *counts,
    ngx_coord_gauge_e gauge, ngx_int_t n);


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
    NGX_COORD_METRIC_ZONE,           /* feature, zone */
    NGX_COORD_METRIC_MEMORY          /* the same */
} ngx_coord_metric_scope_e;


/* of the memory of a zone */
typedef enum {
    NGX_COORD_MEMORY_USED = 0,       /* in millionths */
    NGX_COORD_MEMORY_EVICTIONS,
    NGX_COORD_MEMORY_DENIED,         /* decisions without asking Redis */
    NGX_COORD_MEMORY_PREFETCHED,     /* the same */
    NGX_COORD_MEMORY_MAX
} ngx_coord_memory_e;


/*
 * The table that JSON, Prometheus text and docs/metrics.md come from.  usec:
 * microseconds that are shown as seconds, or other millionths.
 */

typedef struct {
    ngx_str_t                  name;
    ngx_str_t                  member;       /* in JSON */
    ngx_str_t                  help;
    ngx_coord_metric_type_e    type;
    ngx_coord_metric_scope_e   scope;
    ngx_uint_t                 offset;       /* in stats, or a number */
    unsigned                   usec:1;
} ngx_coord_metric_t;


extern const ngx_coord_metric_t  ngx_coord_metrics_table[];


/* who lives, at one moment */
typedef struct {
    ngx_uint_t                 workers;
    u_char                     living[NGX_COORD_METRICS_PROCS];
} ngx_coord_metrics_view_t;


/* which slots belong to living processes; shm NULL: none */
void ngx_coord_metrics_look(ngx_coord_metrics_shm_t *shm,
    ngx_coord_metrics_view_t *view);

/* how often there was an outcome, over all workers; counts may be NULL */
ngx_uint_t ngx_coord_counts_outcome(ngx_coord_counts_t *counts,
    ngx_coord_outcome_e outcome);

/* a present state, over all living workers; counts may be NULL */
ngx_uint_t ngx_coord_counts_state(ngx_coord_counts_t *counts,
    ngx_coord_metrics_view_t *view, ngx_coord_gauge_e gauge);


/* decisions in a second */
typedef struct {
    ngx_uint_t                 all;
    ngx_uint_t                 refused;      /* of them */
    ngx_uint_t                 bypassed;     /* of them: went on undecided */
} ngx_coord_second_t;

/*
 * Decisions in each of the last n full seconds (at most 60), the oldest
 * first; counts may be NULL.
 */
void ngx_coord_counts_history(ngx_coord_counts_t *counts,
    ngx_coord_second_t *seconds, ngx_uint_t n);


/* --- ngx_coord_metrics_keys.c --- */

/*
 * At configuration: gives counts room for keys, if there is memory and they
 * have none.
 */
void ngx_coord_keys_add(ngx_coord_counts_t *counts, ngx_slab_pool_t *shpool);

/*
 * Counts a refusal of a key of at most NGX_COORD_KEY_LEN bytes, in the words
 * that are to be shown.  Not for keys that are secrets.  Does nothing if there
 * is no room for keys, or another process is just at it.
 */
void ngx_coord_keys_refused(ngx_coord_counts_t *counts, u_char *key,
    size_t len);

/*
 * Copies at most n keys of the last minutes, the most refused ones first;
 * returns how many.  counts may be NULL.
 */
ngx_uint_t ngx_coord_keys_top(ngx_coord_counts_t *counts,
    ngx_coord_keys_entry_t *entries, ngx_uint_t n);


#endif /* _NGX_COORD_METRICS_H_INCLUDED_ */
