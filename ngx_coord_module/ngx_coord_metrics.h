
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


/*
 * What became of a request in a zone; the words are those of the variables
 * $coord_*_status in lower case.
 */

typedef enum {
    NGX_COORD_OUTCOME_PASSED = 0,
    NGX_COORD_OUTCOME_DELAYED,
    NGX_COORD_OUTCOME_REJECTED,
    NGX_COORD_OUTCOME_DELAYED_DRY_RUN,
    NGX_COORD_OUTCOME_REJECTED_DRY_RUN,
    NGX_COORD_OUTCOME_BYPASSED,      /* no answer: the request went on */
    NGX_COORD_OUTCOME_NEW,
    NGX_COORD_OUTCOME_REPLAYED,
    NGX_COORD_OUTCOME_CONFLICT,
    NGX_COORD_OUTCOME_MISMATCH,
    NGX_COORD_OUTCOME_MISSING,
    NGX_COORD_OUTCOME_INVALID,
    NGX_COORD_OUTCOME_BOUND,
    NGX_COORD_OUTCOME_REVOKED,
    NGX_COORD_OUTCOME_NONE,
    NGX_COORD_OUTCOME_HIT,
    NGX_COORD_OUTCOME_MISS,
    NGX_COORD_OUTCOME_STALE,
    NGX_COORD_OUTCOME_EXPIRED,
    NGX_COORD_OUTCOME_UNAVAILABLE,   /* no answer: 503 */
    NGX_COORD_OUTCOME_MAX
} ngx_coord_outcome_e;


typedef struct {
    ngx_str_t                  name;
    unsigned                   refused:1;
} ngx_coord_outcome_t;


extern const ngx_coord_outcome_t  ngx_coord_outcomes[NGX_COORD_OUTCOME_MAX];


#define NGX_COORD_COUNTS_SHARDS   4
#define NGX_COORD_RING_SECONDS    64         /* a power of 2, over a minute */
#define NGX_COORD_METRICS_PROCS   256

/* a second of a ring: which one in the high bits, a count in the low ones */
#define NGX_COORD_RING_SHIFT      (NGX_PTR_SIZE == 4 ? 22 : 40)


/* present states of a zone, one set per process */
typedef enum {
    NGX_COORD_GAUGE_LEASES = 0,
    NGX_COORD_GAUGE_WAITERS,
    NGX_COORD_GAUGE_MAX
} ngx_coord_gauge_e;


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


/* of a store, in shared memory */
struct ngx_coord_store_counts_s {
    ngx_coord_redis_stats_t    procs[NGX_COORD_METRICS_PROCS];
};


/*
 * Counts a decision of a feature: one call per zone and request, where the
 * status of the feature is settled.  No lock, no look-up; a zone without
 * counters is skipped.
 */
void ngx_coord_metrics_decision(ngx_coord_zone_t *zone,
    ngx_coord_outcome_e outcome);

/*
 * Adds to a present state of a zone, in the slot of this process: +1 when a
 * lease is granted, -1 when it ends.
 */
void ngx_coord_metrics_gauge(ngx_coord_zone_t *zone, ngx_coord_gauge_e gauge,
    ngx_int_t n);


/* what the configuration has: lists that grow until its end */
typedef struct ngx_coord_metrics_shm_s  ngx_coord_metrics_shm_t;

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

/*
 * Marks the slots of living processes in NGX_COORD_METRICS_PROCS bytes and
 * returns their number.
 */
ngx_uint_t ngx_coord_metrics_living(ngx_coord_metrics_t *metrics,
    u_char *living);


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
