
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The Redis client of a worker: multiplexed, implicitly pipelined connections
 * over ngx_connection_t.  It knows commands, replies, deadlines and the state
 * of the server; it knows nothing of rates or leases.
 *
 *   ngx_coord_redis.c         create, send, the node for a slot
 *   ngx_coord_redis_node.c    a node: its connection comes and goes
 *   ngx_coord_redis_cluster.c asking for the map of a cluster, redirected calls
 *   ngx_coord_redis_again.c   calls that are asked again while a slot moves
 *   ngx_coord_redis_map.c     the map of a cluster
 *   ngx_coord_redis_server.c  the servers of a cluster
 *   ngx_coord_redis_topology.c what is told of them
 *   ngx_coord_redis_call.c    calls go out: admitted, grouped, written
 *   ngx_coord_redis_health.c  breaker, server clock
 *   ngx_coord_redis_conn.c    socket, states, back-off
 *   ngx_coord_redis_lookup.c  addresses of a name
 *   ngx_coord_redis_sentinel.c  who the master is, _master.c who was
 *   ngx_coord_redis_known.c   servers, for processes that find nobody to ask
 *   ngx_coord_redis_tls.c     TLS of a connection
 *   ngx_coord_redis_auth.c    passwords that are rotated
 *   ngx_coord_redis_log.c     what a connection logs
 *   ngx_coord_redis_hello.c   the handshake
 *   ngx_coord_redis_io.c      reading, writing
 *   ngx_coord_redis_reply.c   replies come back, by _check.c those of a call
 *   ngx_coord_redis_deadline.c  calls that are late
 *   ngx_coord_redis_word.c    arguments, classes of error replies
 *   ngx_coord_redis_sub.c     the subscriber connection
 *   ngx_coord_redis_channel.c its channels that come and go
 *   ngx_coord_redis_track.c   key tracking
 */


#ifndef _NGX_COORD_REDIS_H_INCLUDED_
#define _NGX_COORD_REDIS_H_INCLUDED_


#include "ngx_coord.h"
#include "ngx_coord_endpoint.h"
#include "ngx_coord_known.h"
#include "ngx_coord_resp.h"
#include "ngx_coord_stats.h"
#include "ngx_coord_topology.h"


/* a message of the subscriber connection; data is valid during the call */
typedef void (*ngx_coord_redis_message_pt)(void *data, ngx_str_t *channel,
    ngx_str_t *message);

/* the subscriber connection is (again) subscribed: messages may be missing */
typedef void (*ngx_coord_redis_subscribed_pt)(void *data);


/*
 * Somebody who listens to a channel.  The caller fills the upper part; memory
 * and channel are the caller's until ngx_coord_redis_unlisten().  Both
 * handlers run inside the client: they post what they lead to, and neither
 * listen nor unlisten.
 */

typedef struct ngx_coord_redis_listener_s  ngx_coord_redis_listener_t;

struct ngx_coord_redis_listener_s {
    ngx_str_t                  channel;

    /* text is valid during the call */
    void                     (*message)(ngx_coord_redis_listener_t *listener,
                                        ngx_str_t *text);

    /* messages come from now on, those before may be missing; each time */
    void                     (*heard)(ngx_coord_redis_listener_t *listener);

    /* no more until heard(), after which it is called only; listens on */
    void                     (*lost)(ngx_coord_redis_listener_t *listener);
    void                      *data;

    /* the client's */
    void                      *entry;
    ngx_queue_t                queue;
};


/* what a server that is too old cannot do, for the log */
typedef struct {
    ngx_uint_t                 version;       /* that has it, as 602 for 6.2 */
    const char                *lacks;
} ngx_coord_redis_need_t;


/* what the lines "server" name */
typedef enum {
    NGX_COORD_MODE_STANDALONE = 0,   /* the server */
    NGX_COORD_MODE_SENTINEL,         /* sentinels, who know the master */
    NGX_COORD_MODE_CLUSTER           /* some nodes, who know the others */
} ngx_coord_redis_mode_e;


/* from coord_store {}; read-only once the configuration is read */
struct ngx_coord_redis_conf_s {
    ngx_str_t                  store;         /* name, for logs */
    ngx_coord_redis_mode_e     mode;
    ngx_str_t                  master;        /* as the sentinels call it */
    ngx_array_t               *servers;       /* ngx_coord_endpoint_t * */
    ngx_coord_auth_t    *auth;          /* of Redis; never NULL */
    ngx_coord_tls_t     *tls;           /* NULL: plain */
    ngx_uint_t                 db;
    ngx_msec_t                 timeout;       /* of a call */
    ngx_msec_t                 connect_timeout;  /* connect and handshake */
    ngx_uint_t                 max_pending;
    ngx_uint_t                 breaker_failures;
    ngx_msec_t                 breaker_cooldown;
    size_t                     max_reply;     /* bytes */
    const ngx_coord_redis_need_t  *need;      /* may be NULL */
    ngx_resolver_t            *resolver;      /* NULL: as at start */
    ngx_msec_t                 resolver_timeout;
    ngx_array_t               *channels;      /* of ngx_str_t; may be NULL */
};


/*
 * By which of the connections to a server a call goes.  A reply that is large
 * or slow makes all others wait that are behind it: no decision is.
 */

typedef enum {
    NGX_COORD_LANE_DECISIONS = 0,
    NGX_COORD_LANE_BULK,         /* records and lists; opened when needed */
    NGX_COORD_LANE_MAX
} ngx_coord_lane_e;


/* how the commands of a call are executed */
typedef enum {
    NGX_COORD_CALL_ALONE = 0,    /* in a transaction of their own */
    NGX_COORD_CALL_SHARED,       /* few values: with others of the turn */
    NGX_COORD_CALL_PLAIN,        /* without MULTI and EXEC */
    NGX_COORD_CALL_BARE          /* the same, each command by itself: with
                                  * others of the turn */
} ngx_coord_call_form_e;


/* how long what a call reads is true, as it is known when it is encoded */
typedef enum {
    NGX_COORD_TRUST_NONE = 0,    /* nobody would tell of a change */
    NGX_COORD_TRUST_TRACKED,     /* if CLIENT CACHING YES stands before it */
    NGX_COORD_TRUST_TTL          /* keys are not tracked here */
} ngx_coord_redis_trust_e;


/*
 *     IDLE -> WAITING -> SENT -> IDLE
 *      |         |       ^ |      ^
 *      |         |       | v      |
 *      +---------|-------+ LATE --+
 *                +-----------^
 *
 * A call is sent at once where the connection is ready.  LATE: expired() was
 * called; one that was sent stays in the queue as a tombstone, for its
 * replies are still to come, any other ends.
 */

typedef enum {
    NGX_COORD_CALL_IDLE = 0,     /* the caller's */
    NGX_COORD_CALL_WAITING,      /* for the connection */
    NGX_COORD_CALL_SENT,
    NGX_COORD_CALL_LATE
} ngx_coord_call_state_e;


/*
 * Commands on their way that are executed together.  The caller owns the
 * memory, fills the upper part, and keeps the call until handler() was
 * called: that comes exactly once, unless ngx_coord_redis_send() returned
 * NGX_ERROR.
 */

struct ngx_coord_redis_call_s {
    /*
     * encode() writes the commands in RESP at p, without MULTI and EXEC, in
     * room bytes at most, and returns the end.  It runs within
     * ngx_coord_redis_send() or when the handshake is done, and once more each
     * time that the call is sent on or asked again, so that arguments can hold
     * the server's clock, now.  Before it, where there is one, prepare() sets
     * ncommands by trust.
     */
    void                     (*prepare)(ngx_coord_redis_call_t *call);
    u_char                  *(*encode)(ngx_coord_redis_call_t *call,
                                       u_char *p);
    size_t                     room;
    ngx_uint_t                 ncommands;
    ngx_uint_t                 more;     /* who it is for beside its owner */
    ngx_uint_t                 slot;     /* of all its keys */
    ngx_coord_call_form_e      form;
    ngx_coord_lane_e           lane;

    /* what is refused is no trouble of the server: keys of others */
    unsigned                   foreign:1;

    /* it reads keys whose changes are to be told, and asks for trust */
    unsigned                   reads:1;

    /* who takes no writes refuses it */
    unsigned                   writes:1;

    /* the command of ngx_coord_redis_command() */
    const ngx_str_t           *command;

    /*
     * expired() tells that the deadline has passed; handler() still comes,
     * in SENT calls when the replies have.  May be NULL.  In the bulk lane
     * the time begins anew with every byte that moves, up to a bound.
     */
    void                     (*expired)(ngx_coord_redis_call_t *call);

    /*
     * The end.  rc NGX_OK: reply is the first of ncommands values (the next
     * one is reply + reply->next), valid during the call, their nonce already
     * checked; single values may be error replies.  NGX_ERROR: no reply,
     * call->failure says why.  Runs inside the client: it records and posts,
     * and must not resume a request.
     */
    void                     (*handler)(ngx_coord_redis_call_t *call,
                                        ngx_int_t rc,
                                        ngx_coord_resp_value_t *reply);
    void                      *data;

    /* the client's */
    ngx_coord_call_state_e     state;
    ngx_coord_fail_e           failure;
    ngx_coord_redis_trust_e    trust;    /* from prepare() on, */
    ngx_coord_nsec_t           now;      /* as is the clock of its server */
    unsigned                   sent:1;   /* the server may have done it, */
    unsigned                   refused:1;  /* and says that it has not */
    unsigned                   ask:1;    /* behind ASKING */
    unsigned                   stray:1;  /* its deadline may be out of order */
    unsigned                   hops:4;   /* from node to node */
    unsigned                   tries:4;  /* of them all, before this one */

    /*
     * Commands of the group that the call begins, a transaction or what is
     * between two nonces; 0: it is in that of the call before it.
     */
    ngx_uint_t                 total;
    uint64_t                   nonce;
    ngx_msec_t                 deadline;
    ngx_msec_t                 when;     /* it is asked again */
    ngx_coord_nsec_t           start;
    ngx_queue_t                queue;
};


/*
 * Creates the client of this worker and starts to connect; only from
 * init_process.  conf, stats, known and refusal must outlive it; stats is never
 * NULL.  In shared memory, or NULL, are known, where stands who was named by
 * sentinels or a cluster, and refusal.  NULL: no memory.
 */
ngx_coord_redis_t *ngx_coord_redis_create(ngx_coord_redis_conf_t *conf,
    ngx_coord_store_stats_t *stats, ngx_coord_known_t *known,
    ngx_coord_refusal_t *refusal, ngx_cycle_t *cycle);

/* a number for who is asked: the same for the same servers, mode, database */
uint32_t ngx_coord_redis_conf_sum(ngx_coord_redis_conf_t *conf);

/*
 * For exit_process: makes one last attempt to write what is queued, ends all
 * calls with NGX_ERROR, closes the connections, frees the client.
 */
void ngx_coord_redis_destroy(ngx_coord_redis_t *redis);

/*
 * The slot of the keys that have the hash tag, which decides what server has
 * them; where there is one server alone all keys are in slot 0.
 */
ngx_uint_t ngx_coord_redis_slot(ngx_coord_redis_t *redis, ngx_str_t *tag);

/*
 * A slot whose server would answer now, if there is one: for what any server
 * can tell.
 */
ngx_uint_t ngx_coord_redis_live_slot(ngx_coord_redis_t *redis);

/*
 * 1 if each operation has to be a call of its own: one may be sent on to
 * another server where others are not.
 */
ngx_uint_t ngx_coord_redis_apart(ngx_coord_redis_t *redis);

/*
 * Sends a call to the node that serves its slot.  Never blocks: the bytes
 * leave with those of all other calls of this turn of the event loop.  While a
 * connection is being made the call waits for it, within its deadline.
 * Returns NGX_AGAIN: handler() will come, not before this returns; or
 * NGX_ERROR: nothing was sent and nothing will be called, call->failure says
 * why (breaker open, not connected, too many calls in flight, no memory).
 */
ngx_int_t ngx_coord_redis_send(ngx_coord_redis_t *redis,
    ngx_coord_redis_call_t *call);

/*
 * Makes a call of one command that never changes: resp is its RESP text and
 * outlives the call.  Sets encode(), ncommands and form; the rest is zeroed.
 */
void ngx_coord_redis_command(ngx_coord_redis_call_t *call,
    const ngx_str_t *resp);

/*
 * Connects the bulk lane of a slot, from a timer, unless it is or was: there
 * will be something to send, whose time shall not begin with that.
 */
void ngx_coord_redis_open_bulk(ngx_coord_redis_t *redis, ngx_uint_t slot);

/*
 * What is to be told of keys that were read with trust TRACKED.  All run
 * inside the client: they record, and must not resume a request.
 */

typedef struct {
    ngx_str_t                  channel;       /* where others name keys */

    /* key was written; NULL: all of them may have been */
    void                     (*changed)(void *data, ngx_str_t *key);

    /* changes may have gone untold: what was read before is not known */
    void                     (*lost)(void *data);

    /*
     * Every server has been heard with all that it had to tell until then, an
     * ngx_current_msec: once a second, and before what is read may be kept.
     */
    void                     (*heard)(void *data, ngx_msec_t when);

    void                      *data;
    ngx_queue_t                tracks;        /* the client's own */
    unsigned                   told:1;        /* in the log, that it cannot */
} ngx_coord_redis_tracking_t;


/*
 * Has the server tell of keys that are written, from init_process; tracking
 * must outlive the client.  NGX_ERROR: no memory.
 */
ngx_int_t ngx_coord_redis_track(ngx_coord_redis_t *redis,
    ngx_coord_redis_tracking_t *tracking);

/*
 * The clock of the server of a slot: CLOCK_MONOTONIC plus the offset of the
 * best TIME sample.  Meaningful once there was a connection to it.
 */
ngx_coord_nsec_t ngx_coord_redis_now(ngx_coord_redis_t *redis,
    ngx_uint_t slot);

/* 0 if the server of a slot is known to be older than conf->need */
ngx_uint_t ngx_coord_redis_serves(ngx_coord_redis_t *redis, ngx_uint_t slot);

/* the word by which a server has refused, as "OOM", by its number in refusal */
const ngx_str_t *ngx_coord_redis_refuses(ngx_uint_t word);

/* why a command failed whose reply is an error; NONE: it is none */
ngx_coord_fail_e ngx_coord_redis_failure(ngx_coord_resp_value_t *value);

/*
 * An error reply for the log, without arguments that it quotes, in buf, which
 * is that of ngx_coord_log_text().  One that holds the password is cut down to
 * its code.
 */
ngx_str_t ngx_coord_redis_error_text(ngx_coord_redis_conf_t *conf,
    u_char *buf, ngx_str_t *text);

/*
 * Sends what is queued now, not at the end of this turn: for a write that has
 * to be ahead of what the client is told.
 */
void ngx_coord_redis_push(ngx_coord_redis_t *redis);

/*
 * The servers of a client that has several, as it sees them now; strings live
 * in pool.  NGX_DECLINED: there is one server; NGX_ERROR: no memory.
 */
ngx_int_t ngx_coord_redis_topology(ngx_coord_redis_t *redis, ngx_pool_t *pool,
    ngx_coord_topology_t *topology);

typedef struct {
    ngx_str_t                  address;       /* empty: none at the moment */
    ngx_str_t                  sentinel;      /* the one that was asked last */
    time_t                     switched;      /* to another master; 0: never */
} ngx_coord_redis_where_t;

/* tells which server has a slot, and who has named it; valid in this turn */
void ngx_coord_redis_where(ngx_coord_redis_t *redis, ngx_uint_t slot,
    ngx_coord_redis_where_t *where);

/* 1 if the connection is ready and the breaker closed */
ngx_uint_t ngx_coord_redis_ready(ngx_coord_redis_t *redis);

/*
 * Opens a second connection for conf->channels and keeps it subscribed, with
 * the same back-off as the first.  Handlers run inside the client and must
 * post whatever resumes a request.  NGX_ERROR: no memory.
 */
ngx_int_t ngx_coord_redis_subscribe(ngx_coord_redis_t *redis,
    ngx_coord_redis_message_pt message,
    ngx_coord_redis_subscribed_pt subscribed, void *data);

/*
 * Subscribes to one more channel over the same connection, which is opened if
 * there is none, and over each that replaces it.  NGX_OK: it is heard already,
 * for somebody else; NGX_AGAIN: heard() will tell; NGX_ERROR: no memory.  A
 * channel that the server refuses is asked for again every ten seconds.
 */
ngx_int_t ngx_coord_redis_listen(ngx_coord_redis_t *redis,
    ngx_coord_redis_listener_t *listener);

/* ends it; does nothing if it never listened */
void ngx_coord_redis_unlisten(ngx_coord_redis_t *redis,
    ngx_coord_redis_listener_t *listener);


#endif /* _NGX_COORD_REDIS_H_INCLUDED_ */
