
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Why a store has no answer, and the counters of a store: names that the
 * stores, the metrics and the log lines of features share.
 */


#ifndef _NGX_COORD_STATS_H_INCLUDED_
#define _NGX_COORD_STATS_H_INCLUDED_


#include "ngx_coord.h"


/* why a call got no reply; the order is that of the failure counters */
typedef enum {
    NGX_COORD_FAIL_NONE = 0,
    NGX_COORD_FAIL_CONNECT,      /* no connection, or it was lost */
    NGX_COORD_FAIL_TIMEOUT,      /* no reply before the deadline */
    NGX_COORD_FAIL_OVERFLOW,     /* max_pending calls are in flight */
    NGX_COORD_FAIL_BREAKER,      /* the breaker is open */
    NGX_COORD_FAIL_PROTOCOL,     /* the stream is in doubt and was closed */
    NGX_COORD_FAIL_AUTH,         /* NOAUTH WRONGPASS NOPERM */
    NGX_COORD_FAIL_UNAVAILABLE,  /* LOADING MASTERDOWN BUSY OOM READONLY ... */
    NGX_COORD_FAIL_ERROR,        /* any other error reply: WRONGTYPE ... */
    NGX_COORD_FAIL_FULL,         /* the memory of the zone */
    NGX_COORD_FAIL_MAX
} ngx_coord_fail_e;


/* the words for logs and metrics: "connect", "timeout", ... */
extern const ngx_str_t  ngx_coord_fail_names[NGX_COORD_FAIL_MAX];


#define NGX_COORD_LATENCY_BUCKETS  12

/*
 * Counters of one store, in shared memory where the caller has some: updated
 * with ngx_atomic_fetch_add() by all workers, without a lock.
 */

typedef struct {
    ngx_atomic_t               up;            /* workers with a ready conn. */
    ngx_atomic_t               pending;       /* calls in flight, all workers */
    ngx_atomic_t               reconnects;
    ngx_atomic_t               breaker_open;  /* workers with an open breaker */
    ngx_atomic_t               breaker_opens;
    ngx_atomic_t               calls;         /* answered */
    ngx_atomic_t               late;          /* answered past the deadline */
    ngx_atomic_t               commands;      /* sent, of answered calls */
    ngx_atomic_t               failures[NGX_COORD_FAIL_MAX];
    ngx_atomic_t               latency[NGX_COORD_LATENCY_BUCKETS + 1];
    ngx_atomic_t               latency_usec;  /* sum */
    ngx_atomic_t               rtt_usec;      /* last clock sample */

    /* messages of coord_publish and coord_subscribe */
    ngx_atomic_t               event_listeners;   /* clients, all workers */
    ngx_atomic_t               events_published;
    ngx_atomic_t               events_lost;       /* they may be */
    ngx_atomic_t               events_heard;
    ngx_atomic_t               events_sent;       /* to clients */
    ngx_atomic_t               events_cut;        /* clients: too slow */
} ngx_coord_store_stats_t;


/*
 * What a store refuses though it answers, in shared memory: what one worker is
 * told holds for all.
 */

typedef struct {
    ngx_atomic_t               when;   /* at last; 0: it does not */
    ngx_atomic_t               word;   /* see ngx_coord_redis_refuses() */
} ngx_coord_refusal_t;


/* upper bounds of the latency buckets in microseconds; one more is +Inf */
extern const ngx_uint_t  ngx_coord_latency_bounds[NGX_COORD_LATENCY_BUCKETS];


#endif /* _NGX_COORD_STATS_H_INCLUDED_ */
