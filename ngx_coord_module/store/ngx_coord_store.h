
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
#include "ngx_coord_outcome.h"
#include "ngx_coord_redis.h"


typedef enum {
    NGX_COORD_OP_BUCKET_TAKE = 0,
    NGX_COORD_OP_BUCKET_GIVE,
    NGX_COORD_OP_WINDOW_TAKE,      /* fixed window */
    NGX_COORD_OP_WINDOW_GIVE,
    NGX_COORD_OP_SLIDING_TAKE,     /* sliding window counter */
    NGX_COORD_OP_SLIDING_GIVE,
    NGX_COORD_OP_LOG_TAKE,         /* sliding log */
    NGX_COORD_OP_LOG_GIVE,
    NGX_COORD_OP_LEASE_ACQUIRE,
    NGX_COORD_OP_LEASE_RENEW,
    NGX_COORD_OP_LEASE_RELEASE,
    NGX_COORD_OP_LEASE_TURN,       /* an acquire, if nobody else is ahead */
    NGX_COORD_OP_WAIT_ENTER,       /* stands in line for a lease */
    NGX_COORD_OP_WAIT_LEAVE,
    NGX_COORD_OP_LOCK_TOKEN,       /* the next fencing number */
    NGX_COORD_OP_SESSION_GET,      /* key: the session */
    NGX_COORD_OP_SESSION_BIND,
    NGX_COORD_OP_SESSION_SET,
    NGX_COORD_OP_SESSION_TOUCH,
    NGX_COORD_OP_SESSION_REVOKE,
    NGX_COORD_OP_USER_CHECK,       /* key: the user; id: the session */
    NGX_COORD_OP_USER_ADD,
    NGX_COORD_OP_USER_SEEN,
    NGX_COORD_OP_USER_DROP,
    NGX_COORD_OP_USER_LIST,
    NGX_COORD_OP_USER_REVOKE,
    NGX_COORD_OP_SESSION_KEEP,     /* memory only: a copy of Redis's answer */
    NGX_COORD_OP_CLAIM,            /* idempotency */
    NGX_COORD_OP_CLAIM_RENEW,
    NGX_COORD_OP_CLAIM_COMPLETE,
    NGX_COORD_OP_CLAIM_RELEASE,
    NGX_COORD_OP_CLAIM_DISCARD,
    NGX_COORD_OP_BUCKET_PEEK,      /* the answer of a take that is not done */
    NGX_COORD_OP_WINDOW_PEEK,
    NGX_COORD_OP_SLIDING_PEEK,
    NGX_COORD_OP_LOG_PEEK,
    NGX_COORD_OP_LEASE_PEEK,
    NGX_COORD_OP_FORGET,           /* drops the state of a key */
    NGX_COORD_OP_MAX
} ngx_coord_op_e;


/* what a feature does when its store has no answer: coord_on_failure */
typedef enum {
    NGX_COORD_FAILURE_OPEN = 0,
    NGX_COORD_FAILURE_CLOSED,
    NGX_COORD_FAILURE_LOCAL
} ngx_coord_failure_e;


/* where an answer came from */
typedef enum {
    NGX_COORD_SOURCE_NONE = 0,
    NGX_COORD_SOURCE_REDIS,
    NGX_COORD_SOURCE_MEMORY,
    NGX_COORD_SOURCE_FALLBACK      /* the zone's memory, in place of Redis */
} ngx_coord_source_e;


#define NGX_COORD_ID_LEN   16      /* bytes of a lease or log entry id */


/* rate operations: what is asked and what is answered */
typedef struct {
    /* asked */
    ngx_coord_nsec_t           interval;  /* bucket: between two requests */
    ngx_uint_t                 burst;     /* bucket: requests above the rate */
    ngx_uint_t                 limit;     /* windows: requests per window */
    ngx_coord_nsec_t           window;    /* windows: length */
    ngx_uint_t                 cost;      /* places to take, 1 or more;
                                           * log: always 1 */

    /* answered, for NGX_OK and NGX_BUSY alike */
    ngx_uint_t                 excess;    /* bucket: before this request, in
                                           * 1/1000 request, as limit_req */
    ngx_uint_t                 remaining; /* places left after this request */
    ngx_coord_nsec_t           retry;     /* refused: until cost would fit */
    ngx_coord_nsec_t           reset;     /* until all places are free */

    /*
     * What the give operation needs of the take: bucket: the new theoretical
     * arrival time; fixed window: its end; sliding window: its index; on the
     * clock of the store that answered.
     */
    ngx_coord_nsec_t           mark;
} ngx_coord_rate_t;


/* lease operations */
typedef struct {
    ngx_uint_t                 limit;     /* leases that may be held at once;
                                           * ENTER: how many may wait */
    ngx_coord_nsec_t           lease;     /* length */
    ngx_coord_nsec_t           waited;    /* ENTER: since its arrival */

    /* answered */
    ngx_uint_t                 current;   /* leases held, this one included */
    ngx_coord_nsec_t           first;     /* PEEK: until the first is over */
    int64_t                    token;     /* LOCK_TOKEN */

    /* answered by TURN: who is first in line, unless nobody waits */
    ngx_uint_t                 waiting;
    u_char                     head[NGX_COORD_ID_LEN];
} ngx_coord_lease_t;


#define NGX_COORD_SESSION_VALUE_LEN  512  /* bytes of a bound value */
#define NGX_COORD_SESSION_LIST       100  /* sessions that a list tells */


/* one of the sessions of a user, as USER_LIST leaves them in the blob */
typedef struct {
    u_char                     id[NGX_COORD_ID_LEN];
    ngx_coord_nsec_t           idle;      /* since its last activity */
} ngx_coord_session_item_t;


/*
 * Session operations; the value stands in the blob, which has room for
 * NGX_COORD_SESSION_VALUE_LEN bytes (LIST: for NGX_COORD_SESSION_LIST items).
 *
 * GET: reads.  BIND: creates what is not there, value and user only where none
 * stand, and reads what stands then.  SET: replaces the value, or the user.
 * TOUCH: slides the life.  REVOKE: ends the session; answers found and user.
 * CHECK: found if the session is one of the user's.  ADD: makes it one, and
 * ends the least recently active beyond max.  SEEN: it was active.  DROP:
 * ends it.  LIST: its newest sessions; count: all of them.  REVOKE: ends all.
 * KEEP: copies an answer of GET or BIND into the memory of the zone, as it
 * stands in the operation; left may become longer, where the life was slid
 * from this node just now.
 */
typedef struct {
    ngx_coord_nsec_t           ttl;       /* asked: life from now on */
    ngx_uint_t                 max;       /* asked: ADD; 0: any number */

    size_t                     value_len; /* asked and answered */
    size_t                     user_len;
    u_char                     user[NGX_COORD_DIGEST_HEX_LEN];

    /* answered */
    ngx_coord_nsec_t           age;
    ngx_coord_nsec_t           left;      /* of its life */
    ngx_uint_t                 count;     /* LIST, REVOKE of a user */
    unsigned                   bound:1;   /* has a value; asked as well */
    unsigned                   found:1;
    unsigned                   created:1; /* by this operation */
    unsigned                   revoked:1;
} ngx_coord_session_t;


/* what stands at a key that was to be claimed */
typedef enum {
    NGX_COORD_CLAIM_NONE = 0,
    NGX_COORD_CLAIM_RUNNING,       /* another one holds the claim */
    NGX_COORD_CLAIM_LAPSED,        /* and did not end it: outcome unknown */
    NGX_COORD_CLAIM_DONE           /* there is a result */
} ngx_coord_claim_e;


#define NGX_COORD_FINGERPRINT_LEN  16


/*
 * Claims: one holder a key, named by id, and then one result.  CLAIM: NGX_OK
 * granted, NGX_BUSY refused; the record of a result comes as blob with either
 * answer.  RENEW: lease 0 lets the claim lapse in place; NGX_BUSY: it is lost.
 * COMPLETE stores blob; NGX_BUSY: another result stood there already.
 * RELEASE ends the claim, or with done removes the mark of a result that is
 * no good.  DISCARD removes a result.
 */
typedef struct {
    /* asked */
    u_char                     fingerprint[NGX_COORD_FINGERPRINT_LEN];
    ngx_coord_nsec_t           lease;
    ngx_coord_nsec_t           ttl;       /* of the result */
    unsigned                   keep:1;    /* CLAIM: lapsed claims block */
    unsigned                   done:1;    /* RELEASE: see above */

    /* answered by CLAIM */
    unsigned                   lapsed:1;  /* one that had lapsed is dropped */
    ngx_coord_claim_e          state;     /* of whom refused this one */
    u_char                     twin[NGX_COORD_FINGERPRINT_LEN];
    ngx_coord_nsec_t           remaining; /* of the lease or the result */
} ngx_coord_claim_t;


/*
 * One operation.  Result rc: NGX_OK granted (or done); NGX_BUSY refused,
 * nothing was consumed; NGX_ERROR no answer, failure says why.
 */

struct ngx_coord_op_s {
    ngx_coord_op_e             type;
    ngx_coord_zone_t          *zone;

    /* the encoded key: ngx_coord_key_encode() or ngx_coord_key_digest() */
    size_t                     key_len;
    u_char                     key[NGX_COORD_KEY_LEN];

    /* LOG and LEASE: names the entry; random, from ngx_coord_id() */
    u_char                     id[NGX_COORD_ID_LEN];

    ngx_coord_failure_e        on_failure;

    /* FORGET: what took the state; answered: rc NGX_OK or, none, NGX_BUSY */
    ngx_coord_op_e             taken;

    union {
        ngx_coord_rate_t       rate;
        ngx_coord_lease_t      lease;
        ngx_coord_session_t    session;
        ngx_coord_claim_t      claim;
    } u;

    /* strings of the question and the answer: ngx_coord_op_blob() */
    u_char                    *blob;

    /*
     * CLAIM: answered; COMPLETE: asked.  On the heap, freed with the batch;
     * whoever takes it sets data to NULL.
     */
    ngx_str_t                  record;

    ngx_int_t                  rc;
    ngx_coord_fail_e           failure;

    /*
     * Where the answer came from.  For GIVE, RENEW and RELEASE also asked:
     * the source of the take or the lease; MEMORY and FALLBACK are served by
     * the zone's memory whatever the store.
     */
    ngx_coord_source_e         source;

    ngx_uint_t                 tag;       /* the caller's: whose it is */
    void                      *data;      /* the caller's */

    unsigned                   sent:1;    /* the store's: it asked Redis */
};


/*
 * The operations of one request on one store: one transaction, one round
 * trip, one deadline.  Lives on the worker's heap, never in r->pool.
 */

#define NGX_COORD_BATCH_OPS  8            /* inline; more are allocated */

typedef void (*ngx_coord_batch_handler_pt)(ngx_coord_batch_t *batch);

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

    /* the store's */
    ngx_coord_redis_call_t     call;
    ngx_queue_t                queue;
    unsigned                   in_flight:1;  /* the client still holds it */
    unsigned                   complete:1;   /* results stand */
    unsigned                   abandoned:1;  /* ngx_coord_batch_done() came */
    unsigned                   queued:1;     /* in store->completed */
    unsigned                   unsent:1;     /* waits there to be sent */
    ngx_coord_nsec_t           now;          /* the server's, when encoded */
    ngx_coord_op_t             inline_ops[NGX_COORD_BATCH_OPS];
};


typedef struct {
    /* starts and ends the store in a worker; NULL: nothing to do */
    ngx_int_t                (*init)(ngx_coord_store_t *store,
                                     ngx_cycle_t *cycle);
    void                     (*exit)(ngx_coord_store_t *store);

    /* NGX_OK: results stand; NGX_AGAIN: later; NGX_ERROR: no answer */
    ngx_int_t                (*send)(ngx_coord_batch_t *batch);
} ngx_coord_store_actions_t;


struct ngx_coord_store_s {
    ngx_str_t                  name;
    const ngx_coord_store_actions_t  *actions;
    ngx_str_t                  key_prefix;
    ngx_coord_redis_conf_t     redis;        /* Redis stores only */
    ngx_coord_store_counts_t  *counts;       /* in shm, or NULL */
    ngx_coord_redis_stats_t   *stats;        /* of this process */

    /* ngx_coord_channel.h */
    ngx_array_t               *channels;
    ngx_str_t                  wake;         /* the channel of news */

    /* of this worker, set in init_process: */
    ngx_coord_redis_t         *client;
    ngx_coord_log_limit_t      keyless;      /* keys without an answer */
    ngx_queue_t                completed;    /* of ngx_coord_batch_t */
    ngx_event_t                done;         /* posted: runs the handlers */
    ngx_cycle_t               *cycle;
};


/*
 * A zone: a name for keys, and shared memory for the memory store and for
 * on_failure=local.  Every zone has memory.
 */

struct ngx_coord_zone_s {
    const ngx_coord_kind_t    *kind;
    ngx_str_t                  name;
    ngx_str_t                  type;         /* "rl", "cc", ... of the key */
    ngx_coord_store_t         *store;        /* resolved after configuration */
    ngx_str_t                  store_name;   /* store=, or empty: default */
    ngx_str_t                  key_head;     /* "<prefix><type>:<zone>:{" */
    ngx_shm_zone_t            *shm_zone;
    void                      *table;        /* ngx_coord_table_t, in shm */
    ngx_coord_nsec_t           longest;      /* life of its keys in Redis */
    ngx_coord_counts_t        *counts;       /* in shm; NULL: not counted */
    ngx_uint_t                 keys;         /* refused keys are kept */
    void                      *data;         /* the feature's */
    unsigned                   leases:1;     /* its leases have a journal */
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


/* an empty batch for a store; NULL: no memory */
ngx_coord_batch_t *ngx_coord_batch_create(ngx_coord_store_t *store);

/*
 * Adds an operation: zeroed, with type, zone and a copy of the encoded key.
 * The pointer is valid until the next add.  NULL: no memory.
 */
ngx_coord_op_t *ngx_coord_batch_add(ngx_coord_batch_t *batch,
    ngx_coord_op_e type, ngx_coord_zone_t *zone, u_char *key, size_t len);

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
 * Ends a batch: its memory is released now, or, if it is in flight, when the
 * client lets it go.  A batch that is ended before its results stood is
 * cancelled: the handler is not called, and whatever is granted late is given
 * back.
 */
void ngx_coord_batch_done(ngx_coord_batch_t *batch);

/*
 * Gives back what the granted operations of the batch from first to last - 1
 * took, in one batch of its own that nobody waits for.
 */
void ngx_coord_batch_undo(ngx_coord_batch_t *batch, ngx_uint_t first,
    ngx_uint_t last);

/*
 * Gives back one granted operation, whose batch may be long gone; op->source
 * says which store answered it.
 */
void ngx_coord_op_undo(ngx_coord_op_t *op);

/* fills id with NGX_COORD_ID_LEN random bytes; NGX_ERROR: OpenSSL failed */
ngx_int_t ngx_coord_id(u_char *id);


/* --- the memory store, also behind on_failure=local --- */

/* the initializer of a zone's shared memory, as ngx_shm_zone_init_pt */
ngx_int_t ngx_coord_memory_init_zone(ngx_shm_zone_t *shm_zone, void *data);

/*
 * Runs one operation on the memory of its zone, sets rc and the answer, but
 * not source.  Never blocks longer than the zone's mutex is held; rc is
 * NGX_ERROR when the zone is full and nothing in it may be evicted.
 */
void ngx_coord_memory_run(ngx_coord_op_t *op);


#endif /* _NGX_COORD_STORE_H_INCLUDED_ */
