
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The counters of zones and stores, and what is known of a store.
 *
 *   ngx_coord_store_metrics.c        memory, worker start and end, counting
 *   ngx_coord_store_metrics_read.c   stores: sums, latency, state
 */


#ifndef _NGX_COORD_STORE_METRICS_H_INCLUDED_
#define _NGX_COORD_STORE_METRICS_H_INCLUDED_


#include "ngx_coord_store.h"
#include "ngx_coord_metrics.h"
#include "ngx_coord_known.h"


#define NGX_COORD_INFO_STR       32
#define NGX_COORD_INFO_ADDR      64
#define NGX_COORD_INFO_REPLICAS  8


typedef struct {
    size_t                     len;
    u_char                     data[NGX_COORD_INFO_STR];
} ngx_coord_info_str_t;


typedef struct {
    size_t                     len;
    u_char                     data[NGX_COORD_INFO_ADDR];
} ngx_coord_info_addr_t;


/* a replica, as its master sees it */
typedef struct {
    ngx_coord_info_addr_t      address;
    ngx_uint_t                 online;       /* or still being filled */
    uint64_t                   lag;          /* seconds since it was heard */
    uint64_t                   behind;       /* bytes */
} ngx_coord_info_replica_t;


/* what a Redis server last said of itself */
typedef struct {
    ngx_coord_info_str_t       version;
    ngx_coord_info_str_t       role;
    ngx_coord_info_str_t       policy;       /* maxmemory-policy */
    ngx_coord_info_addr_t      address;      /* of the connection */
    uint64_t                   offset;       /* of its replication stream */
    ngx_uint_t                 nreplicas;
    ngx_coord_info_replica_t   replicas[NGX_COORD_INFO_REPLICAS];
    ngx_coord_info_addr_t      master;       /* as sentinels call it, or "" */
    ngx_uint_t                 sentinels;    /* of the configuration */
    ngx_coord_info_addr_t      sentinel;     /* who was asked last */
    time_t                     switched;     /* to another master; 0: never */
    uint64_t                   used_memory;
    uint64_t                   max_memory;
    uint64_t                   uncounted;     /* of used_memory, for that */
    uint64_t                   clients;
    uint64_t                   hits;
    uint64_t                   misses;
    uint64_t                   evicted;
    uint64_t                   uptime;       /* seconds */
    uint64_t                   loading;      /* its data, from disk */
    ngx_uint_t                 rtt_usec;
    ngx_msec_t                 taken;        /* 0: never */
    ngx_coord_fail_e           failure;      /* of the last question */
    ngx_msec_t                 failed;       /* when */
} ngx_coord_store_info_t;


#define NGX_COORD_STORE_SAMPLES  32

/* groups of keys of near caches */
#define NGX_COORD_STORE_CHANGES  32


/* the counters of a store at a moment */
typedef struct {
    ngx_msec_t                 time;
    ngx_coord_store_stats_t    stats;        /* over all processes */
} ngx_coord_store_sample_t;


/* a process that hears the channels of a store, or did when it was alive */
typedef struct {
    ngx_atomic_t               pid;          /* 0: nobody */
    ngx_atomic_t               where;        /* which channel of whom */
} ngx_coord_store_hearer_t;


/* of a store, in shared memory */
struct ngx_coord_store_counts_s {
    ngx_coord_store_stats_t    procs[NGX_COORD_METRICS_PROCS];

    /* a ring of one every two seconds, more than a minute */
    ngx_coord_store_sample_t   samples[NGX_COORD_STORE_SAMPLES];
    ngx_atomic_t               nsamples;     /* ever taken */

    /* what a worker has read is true while its word stands: ngx_coord_near.h */
    ngx_atomic_t               epochs[NGX_COORD_METRICS_PROCS];

    /* and it has heard of all changes until then: an ngx_current_msec */
    ngx_atomic_t               heard[NGX_COORD_METRICS_PROCS];

    /* and this grows before it is changed: ngx_coord_near_memo.c */
    ngx_atomic_t               changes[NGX_COORD_STORE_CHANGES];

    /* and this as soon as one worker has heard of a change of it */
    ngx_atomic_t               told[NGX_COORD_STORE_CHANGES];

    /* those who hear the channels: ngx_coord_deny_news.c */
    ngx_coord_store_hearer_t   hearers[NGX_COORD_METRICS_PROCS];

    /* servers that others have named: ngx_coord_redis_known.c */
    ngx_coord_known_t          known;

    /* what it answers by a refusal: ngx_coord_redis_health.c */
    ngx_coord_refusal_t        refusal;

    ngx_atomic_t               asked;        /* second of the last INFO */
    ngx_atomic_t               version;      /* odd: info is being written */
    ngx_coord_store_info_t     info;
};


/*
 * Counts a decision of a feature: one call per zone and request, where the
 * status of the feature is settled.  No lock, no look-up; a zone without
 * counters is skipped.
 */
#define ngx_coord_metrics_decision(zone, outcome)                             \
    ngx_coord_counts_decision((zone)->counts, outcome)

/*
 * Adds to a present state of a zone, in the slot of this process: +1 when a
 * lease is granted, -1 when it ends.
 */
void ngx_coord_metrics_gauge(ngx_coord_zone_t *zone, ngx_coord_gauge_e gauge,
    ngx_int_t n);


typedef struct ngx_coord_fleet_shm_s  ngx_coord_fleet_shm_t;


/* what the configuration has: lists that grow until its end */
typedef struct {
    ngx_array_t               *zones;        /* of ngx_coord_zone_t * */
    ngx_array_t               *stores;       /* of ngx_coord_store_t * */
    ngx_coord_store_t         *local;        /* the built-in store */
    ngx_shm_zone_t            *shm_zone;
    ngx_coord_metrics_shm_t   *shm;
    ngx_coord_fleet_shm_t     *fleet;        /* in shm; NULL: not told */
    ngx_str_t                  host;         /* its name */
    ngx_uint_t                 keys;         /* refused keys are to be kept */
    ngx_uint_t                 status;       /* there is a page for it */
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


/* --- ngx_coord_store_metrics_read.c --- */

/*
 * Tells how the memory of a zone is used: values, by ngx_coord_memory_e.  No
 * lock is taken.
 */
void ngx_coord_metrics_memory(ngx_coord_zone_t *zone,
    ngx_uint_t values[NGX_COORD_MEMORY_MAX]);

/* the counters of a store over all workers, present states of the living */
void ngx_coord_metrics_store(ngx_coord_metrics_view_t *view,
    ngx_coord_store_t *store, ngx_coord_store_stats_t *sum);

/*
 * Takes a sample of the counters of a store, if the last one is two seconds
 * old; by one process at a time.
 */
void ngx_coord_metrics_sample(ngx_coord_store_t *store);

/*
 * What of sum, as ngx_coord_metrics_store() gives it, was counted in the last
 * minute; present states are 0.
 */
void ngx_coord_metrics_minute(ngx_coord_store_t *store,
    ngx_coord_store_stats_t *sum, ngx_coord_store_stats_t *minute);

/* a copy of what the server of a store last said; taken 0: nothing yet */
void ngx_coord_metrics_info(ngx_coord_store_t *store,
    ngx_coord_store_info_t *info);

/*
 * A quantile (0.5, 0.99) of the latencies as the upper bound of its bucket,
 * in microseconds; 0: no calls, or beyond the last bound.
 */
ngx_uint_t ngx_coord_metrics_quantile(ngx_coord_store_stats_t *stats,
    double quantile);

/*
 * The word by which a store refuses what it is asked, as the server says it
 * ("OOM"), until it takes such a thing, or is not asked for 15 seconds; NULL:
 * it does not.
 */
const ngx_str_t *ngx_coord_metrics_refusal(ngx_coord_store_t *store);

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


#endif /* _NGX_COORD_STORE_METRICS_H_INCLUDED_ */
