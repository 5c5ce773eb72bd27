
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The store interface: what features ask for, and the two stores that answer,
 * Redis and the shared memory of a zone.  Same operations, same results.
 */


#ifndef _NGX_COORD_STORE_H_INCLUDED_
#define _NGX_COORD_STORE_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>

#include "ngx_coord.h"
#include "ngx_coord_key.h"
#include "ngx_coord_log.h"
#include "ngx_coord_op.h"
#include "ngx_coord_outcome.h"
#include "ngx_coord_stats.h"
#include "ngx_coord_timer.h"
#include "ngx_coord_topology.h"


/*
 * The operations of one request on one store: one round trip, one deadline.
 * Lives on the worker's heap, never in r->pool.
 */

#define NGX_COORD_BATCH_OPS  8            /* inline; more are allocated */

typedef struct ngx_coord_part_s  ngx_coord_part_t;

/* all operations of batch have their results; see its member */
typedef void (*ngx_coord_batch_handler_pt)(ngx_coord_batch_t *batch);

/*
 * The life of a batch; docs/architecture.md has it as a picture, and the ways
 * stand in ngx_coord_batch_edges[].
 */
typedef enum {
    NGX_COORD_BATCH_NEW = 0,      /* being filled */
    NGX_COORD_BATCH_IN_FLIGHT,    /* the client holds it, no results yet */
    NGX_COORD_BATCH_AGAIN,        /* queued: a part is to be asked again */
    NGX_COORD_BATCH_LATE,         /* expired and queued, the client holds it */
    NGX_COORD_BATCH_LATE_SEEN,    /* the same, its handler has been called */
    NGX_COORD_BATCH_POSTED,       /* results stand, queued for the handler */
    NGX_COORD_BATCH_COMPLETE,     /* results stand, the owner has them */
    NGX_COORD_BATCH_CANCELLED,    /* ended by its owner, who saw no results;
                                   * the client holds it */
    NGX_COORD_BATCH_LEFT,         /* expired, and nobody waits; the same */
    NGX_COORD_BATCH_ENDED,
    NGX_COORD_BATCH_STATES
} ngx_coord_batch_state_e;


struct ngx_coord_batch_s {
    ngx_coord_store_t         *store;
    ngx_coord_op_t            *ops;       /* valid until batch_done() */
    ngx_uint_t                 nops;
    ngx_uint_t                 nalloc;

    /*
     * Called from a posted event when all results stand, once, and never
     * before ngx_coord_batch_send() has returned.  NULL: nobody waits, the
     * batch releases itself.
     */
    ngx_coord_batch_handler_pt  handler;
    void                      *data;

    unsigned                   request:1;    /* a client waits: the caller's */
    unsigned                   silent:1;     /* it has waited before, in vain:
                                              * nothing is asked; the same */
    unsigned                   refused:1;    /* nothing is to be taken for it,
                                              * also late; the same */

    /* the store's */
    ngx_coord_batch_state_e    state;
    ngx_queue_t                queue;        /* in store->completed */
    ngx_uint_t                 waits;        /* parts without results, */
    ngx_uint_t                 held;         /* and those in flight */
    ngx_coord_part_t          *parts;        /* kept for the next batch */
    ngx_uint_t                 nparts;       /* room in parts */
    ngx_coord_op_t             inline_ops[NGX_COORD_BATCH_OPS];
};


/* 1 if results stand and the owner was told of them */
#define ngx_coord_batch_seen(batch)                                           \
    ((batch)->state == NGX_COORD_BATCH_COMPLETE                               \
     || (batch)->state == NGX_COORD_BATCH_LATE_SEEN)


typedef struct {
    /* starts and ends the store in a worker; NULL: nothing to do */
    ngx_int_t                (*init)(ngx_coord_store_t *store,
                                     ngx_cycle_t *cycle);
    void                     (*exit)(ngx_coord_store_t *store);

    /* NGX_OK: results stand; NGX_AGAIN: later */
    ngx_int_t                (*send)(ngx_coord_batch_t *batch);

    /* see ngx_coord_store_push(); NULL: nothing is ever held back */
    void                     (*push)(ngx_coord_store_t *store);

    /* see ngx_coord_store_ready(); NULL: always */
    ngx_uint_t               (*ready)(ngx_coord_store_t *store);

    /* see ngx_coord_store_topology(); NULL: there is none */
    ngx_int_t                (*topology)(ngx_coord_store_t *store,
                                         ngx_pool_t *pool,
                                         ngx_coord_topology_t *topology);

    /* see ngx_coord_store_now() */
    ngx_coord_nsec_t         (*now)(ngx_coord_op_t *op);

    /* see ngx_coord_store_apart(); NULL: never */
    ngx_uint_t               (*apart)(ngx_coord_store_t *store);
} ngx_coord_store_actions_t;


typedef struct ngx_coord_giveback_s  ngx_coord_giveback_t;


/* requests that went by on_failure: ngx_coord_outage.h */
typedef struct {
    ngx_msec_t                 began;        /* 0: there is none */
    ngx_uint_t                 total;
    ngx_uint_t                 requests[NGX_COORD_FAILURE_MAX];  /* untold */
    ngx_coord_fail_e           reason;       /* of the last one */
    ngx_uint_t                 silent;       /* ready, but not heard since */
    ngx_coord_timer_t          timer;
} ngx_coord_outage_t;


struct ngx_coord_store_s {
    ngx_str_t                  name;
    const ngx_coord_store_actions_t  *actions;
    ngx_str_t                  key_prefix;
    ngx_msec_t                 timeout;      /* of a decision; not of memory */
    ngx_msec_t                 cooldown;     /* of its breaker; the same */
    ngx_uint_t                 number;       /* of all with a name, from 0 */
    void                      *data;         /* the kind's, or NULL */
    ngx_coord_store_counts_t  *counts;       /* in shm, or NULL */
    ngx_coord_store_stats_t   *stats;        /* of this process */

    /* ngx_coord_channel.h */
    ngx_array_t               *channels;
    ngx_str_t                  wake;         /* the channel of news */
    ngx_str_t                  deny;         /* that of dropped buckets */
    ngx_coord_zone_t          *denying;      /* the first of zones with it */

    ngx_atomic_t              *nodes;        /* in shm: how many share it, as
                                              * far as known; NULL: not */
    void                      *bus;          /* ngx_coord_bus.h; or NULL */
    ngx_array_t               *near;         /* of ngx_coord_near_t * */

    /* of this worker, set in init_process: */
    struct ngx_coord_near_worker_s  *nearby; /* NULL: nothing is kept */
    ngx_coord_outage_t         outage;
    ngx_queue_t                completed;    /* of ngx_coord_batch_t */
    ngx_event_t                done;         /* posted: runs the handlers */
    ngx_coord_giveback_t      *giveback;     /* NULL: nothing, so far */
    ngx_cycle_t               *cycle;        /* NULL: it is not running */
    unsigned                   ending:1;     /* takes nothing more */
    unsigned                   several:1;    /* servers: some may be away */
};


/*
 * A zone: a name for keys, and shared memory for the memory store and for
 * on_failure=local.  Every zone has memory.
 */

struct ngx_coord_zone_s {
    const ngx_coord_kind_t    *kind;
    ngx_str_t                  name;
    ngx_str_t                  type;         /* "rl", "cc", ... */
    ngx_str_t                  layout;       /* of its keys, if not type */
    ngx_coord_store_t         *store;        /* resolved after configuration */
    ngx_str_t                  store_name;   /* store=, or empty: default */
    ngx_str_t                  key_head;     /* "<prefix><layout>:<zone>:{" */
    ngx_shm_zone_t            *shm_zone;
    void                      *table;        /* ngx_coord_table_t, in shm */
    ngx_coord_nsec_t           rest;         /* of buckets: below 1 us */
    ngx_coord_counts_t        *counts;       /* in shm; NULL: not counted */
    ngx_uint_t                 keys;         /* refused keys are kept */
    void                      *data;         /* the feature's */
    ngx_coord_zone_t          *watched;      /* the next one with a journal */
    ngx_coord_zone_t          *denies;       /* and that knows of refusals */
    ngx_coord_log_limit_t      unanswered;   /* lines of this worker: */
    ngx_coord_log_limit_t      invalid;      /* values at run time */
    unsigned                   warned:1;     /* of a key, by this worker */
    unsigned                   leases:1;     /* its keys are leases */
    unsigned                   journal:1;    /* who holds them is noted */
    unsigned                   address:1;    /* keys are binary addresses */
    ngx_uint_t                 prefetch;     /* places at once; 0: none */
    unsigned                   deny:1;       /* refusals may be known */
    unsigned                   used:1;       /* by a location */
    unsigned                   wake:1;       /* its keys are waited for, */
    ngx_coord_nsec_t           wait;         /* at most so long */
};


extern const ngx_coord_store_actions_t  ngx_coord_store_redis_actions;
extern const ngx_coord_store_actions_t  ngx_coord_store_memory_actions;


/* worker start and end of a store; from init_process and exit_process */
ngx_int_t ngx_coord_store_init(ngx_coord_store_t *store, ngx_cycle_t *cycle);
void ngx_coord_store_exit(ngx_coord_store_t *store);

/* 1 if the store is a memory store: its answers never need a wait */
#define ngx_coord_store_is_memory(s)                                          \
    ((s)->actions == &ngx_coord_store_memory_actions)


/*
 * 1 if operations of one batch on different keys may come to different servers:
 * what has to stand before another one begins needs a batch of its own.
 */
ngx_uint_t ngx_coord_store_apart(ngx_coord_store_t *store);


/* an empty batch for a store; NULL: no memory */
ngx_coord_batch_t *ngx_coord_batch_create(ngx_coord_store_t *store);

/*
 * Adds an operation: zeroed, with type, zone and a copy of the encoded key.
 * The pointer is valid until the next add.  NULL: no memory.
 */
ngx_coord_op_t *ngx_coord_batch_add(ngx_coord_batch_t *batch,
    const ngx_coord_op_type_t *type, ngx_coord_zone_t *zone, u_char *key,
    size_t len);

/*
 * Gives an operation of a batch size bytes that live as long as the batch,
 * also when its caller is gone.  NGX_ERROR: no memory.
 */
ngx_int_t ngx_coord_op_blob(ngx_coord_op_t *op, size_t size);

/*
 * Sends a batch.  NGX_OK: all results stand now, handler will not be called;
 * NGX_AGAIN: handler is called later.  It cannot fail: where the store gives
 * no answer the operations end by their on_failure, "local" ones with the
 * answer of the zone's memory, the others with NGX_ERROR.
 */
ngx_int_t ngx_coord_batch_send(ngx_coord_batch_t *batch);

/*
 * For ngx_coord_batch_done(): ends a batch that was not sent or whose results
 * have been seen, of which nothing is given back; and one whose results nobody
 * has seen yet.
 */
void ngx_coord_batch_leave(ngx_coord_batch_t *batch);
void ngx_coord_batch_cancel(ngx_coord_batch_t *batch);

/*
 * Ends a batch: its memory is released now, or, if it is in flight, when the
 * client lets it go.  A batch that is ended before its results stood is
 * cancelled: the handler is not called, and whatever it is granted, or may
 * have been, is given back (ngx_coord_giveback.h); not so what was asked for
 * with op->again.
 */

static ngx_inline void
ngx_coord_batch_done(ngx_coord_batch_t *batch)
{
    if (ngx_coord_batch_seen(batch)) {
        ngx_coord_batch_leave(batch);

    } else {
        ngx_coord_batch_cancel(batch);
    }
}

/*
 * Gives back what the granted operations of the batch from first to last - 1
 * took, at the end of the turn.
 */
void ngx_coord_batch_undo(ngx_coord_batch_t *batch, ngx_uint_t first,
    ngx_uint_t last);

/*
 * Gives back one granted operation, whose batch may be long gone; op->source
 * says which store answered it.
 */
void ngx_coord_op_undo(ngx_coord_op_t *op);

/*
 * Sends what is queued for the store now, not at the end of this turn: for a
 * write that has to be ahead of what the client is told.
 */
void ngx_coord_store_push(ngx_coord_store_t *store);

/*
 * The servers behind the store, as this worker sees them; strings live in
 * pool.  NGX_DECLINED: there is one server, or none; NGX_ERROR: no memory.
 */
#define ngx_coord_store_topology(s, pool, told)                               \
    ((s)->actions->topology ? (s)->actions->topology(s, pool, told)           \
                            : NGX_DECLINED)

/* 1 if the store would be asked now, for all that is known */
#define ngx_coord_store_ready(s)                                              \
    ((s)->actions->ready == NULL || (s)->actions->ready(s))

/* the time where the key of an operation is, on the clock of its store */
#define ngx_coord_store_now(op)  ((op)->zone->store->actions->now(op))


/*
 * Locks and enters the table of a zone; unlock() leaves it.  NULL: the zone
 * has none, and is not locked.
 */
ngx_coord_table_t *ngx_coord_zone_lock(ngx_coord_zone_t *zone);
void ngx_coord_zone_unlock(ngx_coord_zone_t *zone);

/* the initializer of a zone's shared memory, as ngx_shm_zone_init_pt */
ngx_int_t ngx_coord_zone_init(ngx_shm_zone_t *shm_zone, void *data);

/*
 * Runs one operation on the memory of its zone, whatever its store: for copies
 * of what the store told and what was done to it from this node.  Sets rc and
 * the answer, but not source.  Never blocks longer than the zone's mutex is
 * held; rc is NGX_ERROR when the zone is full and nothing in it may go.
 */
void ngx_coord_near_run(ngx_coord_op_t *op);


#endif /* _NGX_COORD_STORE_H_INCLUDED_ */
