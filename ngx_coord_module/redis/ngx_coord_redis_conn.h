
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Private to the Redis client: one connection to one server.  A connection
 * knows addresses, states and bytes; what the replies mean is its owner's
 * matter: the client's node for calls, the subscriber for messages.
 */


#ifndef _NGX_COORD_REDIS_CONN_H_INCLUDED_
#define _NGX_COORD_REDIS_CONN_H_INCLUDED_


#include <ngx_event.h>
#include <ngx_event_connect.h>
#include "ngx_coord_redis.h"
#include "ngx_coord_redis_word.h"
#include "ngx_coord_log.h"
#include "ngx_coord_timer.h"


#define NGX_COORD_REDIS_NONCE_LEN    16      /* hex digits */
#define NGX_COORD_CONN_READ_SIZE     16384   /* bytes of one read */
#define NGX_COORD_CONN_OUT_MAX       4194304 /* soft cap of unsent output */
#define NGX_COORD_CONN_OUT_BULK      16777216   /* in the bulk lane */
#define NGX_COORD_CONN_DEFER         2       /* of a flush, times in a turn */
#define NGX_COORD_CONN_RUN_ID        40      /* bytes that name a process */


typedef struct ngx_coord_redis_conn_s   ngx_coord_redis_conn_t;
typedef struct ngx_coord_redis_node_s   ngx_coord_redis_node_t;
typedef struct ngx_coord_redis_sub_s    ngx_coord_redis_sub_t;
typedef struct ngx_coord_redis_cluster_s  ngx_coord_redis_cluster_t;
typedef struct ngx_coord_redis_sentinel_s  ngx_coord_redis_sentinel_t;
typedef struct ngx_coord_redis_track_s  ngx_coord_redis_track_t;


typedef enum {
    NGX_COORD_CONN_UNUSED = 0,        /* until it is asked for */
    NGX_COORD_CONN_DISCONNECTED,      /* the timer starts the next attempt */
    NGX_COORD_CONN_STARTING,          /* it does so at once */
    NGX_COORD_CONN_FINDING,           /* sentinels are asked for the master */
    NGX_COORD_CONN_RESOLVING,         /* as long as the resolver takes */
    NGX_COORD_CONN_CONNECTING,        /* the timer ends the attempt ... */
    NGX_COORD_CONN_SECURING,          /* TLS: nothing of ours is sent */
    NGX_COORD_CONN_HANDSHAKE,
    NGX_COORD_CONN_READY              /* ... no timer */
} ngx_coord_conn_state_e;


/* what keeps an outage from filling the log; shared by a client's conns. */
typedef struct {
    ngx_coord_log_limit_t      lines[NGX_COORD_FAIL_MAX];
    const char                *text[NGX_COORD_FAIL_MAX];   /* of the last */
    ngx_uint_t                 written;                    /* lines, of all */
} ngx_coord_redis_limits_t;


/* one step of the handshake, in the order of the replies */
typedef enum {
    NGX_COORD_STEP_AUTH = 0,
    NGX_COORD_STEP_SELECT,
    NGX_COORD_STEP_NAME,
    NGX_COORD_STEP_VERSION,
    NGX_COORD_STEP_ROLE,
    NGX_COORD_STEP_TIME,
    NGX_COORD_STEP_DONE
} ngx_coord_conn_step_e;


/*
 * The owner of a connection.  None of these may close the connection; reply
 * returns what is wrong, and then the connection closes itself.
 */

typedef struct {
    /*
     * The handshake is done; value: the reply to its question, TIME or, of a
     * sentinel, an address; start: when sent.
     */
    void                     (*ready)(ngx_coord_redis_conn_t *conn,
                                      ngx_coord_resp_value_t *value,
                                      ngx_coord_nsec_t start);

    /* how many replies the next value shall gather; 0: none is expected */
    ngx_uint_t               (*expect)(ngx_coord_redis_conn_t *conn);

    /* a reply; gathered if expect() has returned more than 1 */
    ngx_coord_fail_e         (*reply)(ngx_coord_redis_conn_t *conn,
                                      ngx_coord_resp_value_t *value);

    /* an attempt has failed, or a connection is lost; the state is set */
    void                     (*closed)(ngx_coord_redis_conn_t *conn,
                                       ngx_coord_fail_e failure,
                                       ngx_uint_t ready);
} ngx_coord_conn_actions_t;


/* the next step of an attempt */
typedef void (*ngx_coord_conn_handler_pt)(ngx_coord_redis_conn_t *conn);

/* the end of a TLS handshake: NGX_OK, or NGX_ERROR and it was logged */
typedef void (*ngx_coord_conn_secured_pt)(ngx_coord_redis_conn_t *conn,
    ngx_int_t rc);


struct ngx_coord_redis_conn_s {
    ngx_coord_redis_t         *redis;
    ngx_coord_redis_conf_t    *conf;
    ngx_coord_endpoint_t  *endpoint;
    const ngx_coord_conn_actions_t  *actions;
    void                      *data;          /* the owner */

    ngx_coord_conn_state_e     state;
    ngx_coord_conn_step_e      step;
    ngx_coord_resp_t          *resp;
    ngx_peer_connection_t      peer;          /* peer.connection */
    ngx_resolver_ctx_t        *resolving;
    ngx_coord_conn_handler_pt  looked_up;
    ngx_coord_conn_secured_pt  secured;

    ngx_addr_t                *resolved;      /* last good; one allocation */
    ngx_uint_t                 nresolved;
    ngx_uint_t                 next_addr;     /* addresses are tried in turn */
    ngx_uint_t                 tries;         /* left in this attempt */

    u_char                    *out;           /* output that is not sent: */
    u_char                    *out_pos;       /* ... from here */
    u_char                    *out_last;
    u_char                    *out_end;
    size_t                     out_max;       /* soft cap of it */
    ngx_uint_t                 writes;        /* attempts to send it */
    ngx_event_t                flush;         /* posted, never timed */
    ngx_uint_t                 deferred;      /* times it was put off */

    ngx_coord_timer_t          timer;
    ngx_msec_t                 retry_at;      /* disconnected: not before */
    ngx_uint_t                 attempts;      /* failed in a row */
    ngx_uint_t                 generation;    /* of the password it has sent */
    ngx_msec_t                 since;         /* ready */
    ngx_msec_t                 moved;         /* bytes, either way */
    ngx_coord_nsec_t           start;         /* of the handshake */
    ngx_uint_t                 version;       /* 602: 6.2; 0: not known */
    size_t                     run_id_len;    /* of the server; 0: the same */
    u_char                     run_id[NGX_COORD_CONN_RUN_ID];

    ngx_log_t                  log;           /* with store and address */
    ngx_log_t                  quiet;         /* for nginx's connect errors */
    ngx_log_t                  told;          /* takes what OpenSSL says */
    ngx_str_t                  reason;        /* ... the last of it */
    u_char                     text[NGX_COORD_LOG_TEXT];
    ngx_coord_redis_limits_t  *limits;

    ngx_msec_t                 failed;        /* when, since it was ready */
    ngx_uint_t                 again;         /* level of a line at its end */
    ngx_uint_t                 ended;         /* limits->written by then */

    /* of ngx_coord_redis_sentinel_t; next is NULL: in none */
    ngx_queue_t                wait;
    ngx_queue_t                member;

    unsigned                   located:1;     /* endpoint: whoever is master */
    unsigned                   sentinel:1;    /* the server is one */
    unsigned                   on_demand:1;   /* its owner starts attempts */
    unsigned                   denied:1;      /* by its password, at last */
    unsigned                   gathering:1;   /* some replies of several */
};


typedef enum {
    NGX_COORD_BREAKER_CLOSED = 0,
    NGX_COORD_BREAKER_OPEN,
    NGX_COORD_BREAKER_PROBING
} ngx_coord_breaker_e;


typedef struct {
    ngx_coord_nsec_t           offset;        /* server - CLOCK_MONOTONIC */
    ngx_coord_nsec_t           middle;        /* the same by the sample alone */
    ngx_coord_nsec_t           rtt;           /* of the best sample */
    ngx_coord_nsec_t           taken;         /* when, on our clock */
    ngx_msec_t                 asked;
    ngx_coord_redis_call_t     call;          /* TIME, also the probe */
    unsigned                   sampled:1;
} ngx_coord_redis_clock_t;


/*
 * A connection to a server and the calls that wait for it.  A server has one
 * for each lane; ngx_coord_redis_node() chooses.  A lane's troubles are its
 * own: what is told of the server (stats) is what the decisions see.
 */

struct ngx_coord_redis_node_s {
    ngx_coord_redis_t         *redis;
    ngx_coord_redis_node_t    *nodes;         /* of the same server, by lane */
    ngx_coord_redis_conn_t    *conn;
    ngx_coord_store_stats_t   *stats;
    ngx_coord_lane_e           lane;

    /*
     * All calls have the same timeout, so this is the order of deadlines, too.
     * Until the connection is ready none is sent, afterwards all are.
     */
    ngx_queue_t                calls;
    ngx_coord_redis_call_t    *first_live;    /* the first that is not late */
    ngx_uint_t                 pending;
    ngx_coord_timer_t          deadline;
    uint64_t                   nonce;

    /* a call whose group ends the output, and may take others in */
    ngx_coord_redis_call_t    *open;
    ngx_uint_t                 writes;        /* conn->writes by then */
    unsigned                   apart:1;       /* one call a transaction */
    unsigned                   lobby:1;       /* its calls wait, see cluster */
    unsigned                   refuses:1;     /* the refusal is of its server */
    ngx_uint_t                 strays;        /* calls from other nodes */

    ngx_coord_breaker_e        breaker;
    ngx_uint_t                 failures;      /* in a row */
    ngx_coord_timer_t          cooldown;
    ngx_uint_t                 ended;         /* as conn->ended, its end */
    unsigned                   ending:1;      /* it is told by an answer */
    unsigned                   was_ready:1;

    ngx_coord_redis_clock_t    clock;
    ngx_coord_redis_track_t   *track;         /* NULL: keys are not tracked */
    ngx_coord_redis_trust_e    trust;         /* of what is read now */
};


/* what a client with several servers makes of what its nodes see */
typedef struct {
    /* an attempt has failed, or a connection is lost */
    void                     (*lost)(ngx_coord_redis_node_t *node);

    /*
     * An error reply to a call which was not executed.  NGX_OK: the call is
     * taken to another node; NGX_DECLINED: it ends.
     */
    ngx_int_t                (*redirect)(ngx_coord_redis_node_t *node,
                                         ngx_coord_redis_call_t *call,
                                         ngx_str_t *error);

    /* a server for a connection that may go to any; lives as long as that */
    ngx_coord_endpoint_t    *(*any)(ngx_coord_redis_t *redis);
} ngx_coord_redis_routing_t;


struct ngx_coord_redis_s {
    ngx_coord_redis_conf_t    *conf;
    ngx_coord_store_stats_t   *stats;
    ngx_coord_known_t         *known;         /* in shm; or NULL */
    ngx_coord_refusal_t       *refusal;       /* the same */
    ngx_cycle_t               *cycle;
    ngx_coord_redis_limits_t   limits;
    ngx_uint_t                 version;       /* of which was told */
    ngx_coord_store_stats_t    unseen;        /* of other lanes */
    ngx_coord_redis_node_t     nodes[NGX_COORD_LANE_MAX];   /* of one server */
    ngx_coord_redis_cluster_t *cluster;       /* in place of it; or NULL */
    const ngx_coord_redis_routing_t  *routing;  /* NULL: one server */
    ngx_coord_redis_sub_t     *sub;           /* NULL: not subscribed */

    /* who knows the master; NULL: the servers are known */
    ngx_coord_redis_sentinel_t  *sentinel;
    ngx_coord_conn_handler_pt  find;          /* conn_found() will be called */
    ngx_coord_conn_handler_pt  distrust;      /* it is no master */
    time_t                     switched;      /* at last; 0: never */
    ngx_coord_redis_tracking_t  *tracking;    /* NULL: nobody asks for it */
};


/* the endpoint of the first line "server"; NULL: sentinels know it */
#define ngx_coord_redis_first(conf)                                           \
    ((conf)->mode == NGX_COORD_MODE_SENTINEL                                  \
     ? NULL : ((ngx_coord_endpoint_t **) (conf)->servers->elts)[0])


/* ngx_coord_redis_conn.c */

/*
 * Creates a connection to an endpoint, which must outlive it, or, with NULL, to
 * the master that the sentinels name; the owner starts it.  NULL: no memory.
 */
ngx_coord_redis_conn_t *ngx_coord_redis_conn_create(ngx_coord_redis_t *redis,
    ngx_coord_endpoint_t *endpoint,
    const ngx_coord_conn_actions_t *actions, void *data);

/*
 * Starts the first attempt, whose failure closed() may tell before this
 * returns.  Further ones follow by themselves, until the worker is exiting.
 */
void ngx_coord_redis_conn_start(ngx_coord_redis_conn_t *conn);

/*
 * Somebody needs the connection: one that was not used yet is started, from a
 * timer.  In an exiting worker, which starts none by itself, that holds for
 * one that was lost, too, as soon as the back-off allows it.
 */
void ngx_coord_redis_conn_connect(ngx_coord_redis_conn_t *conn);

/* points a connection that is not open to another endpoint */
void ngx_coord_redis_conn_move(ngx_coord_redis_conn_t *conn,
    ngx_coord_endpoint_t *endpoint);

/*
 * Closes a connection that is not needed, without a failure, until
 * ngx_coord_redis_conn_connect(), but not before the given time.  Not from
 * within the actions.
 */
void ngx_coord_redis_conn_rest(ngx_coord_redis_conn_t *conn, ngx_msec_t until);

/* starts an attempt now, if there is none and no connection */
void ngx_coord_redis_conn_again(ngx_coord_redis_conn_t *conn);

/* the same, within milliseconds, and as if none had failed */
void ngx_coord_redis_conn_soon(ngx_coord_redis_conn_t *conn);

/* where an attempt in state FINDING goes on; NULL: nobody knows, it ends */
void ngx_coord_redis_conn_found(ngx_coord_redis_conn_t *conn,
    ngx_coord_endpoint_t *endpoint);


/* sends what it can without waiting, closes quietly, frees */
void ngx_coord_redis_conn_destroy(ngx_coord_redis_conn_t *conn);

/*
 * Ends an attempt or a connection for the given reason: tells the owner,
 * arms the back-off.  Not from within the actions.
 */
void ngx_coord_redis_conn_close(ngx_coord_redis_conn_t *conn,
    ngx_coord_fail_e failure);

/* the socket of an attempt has become writable or readable */
void ngx_coord_redis_conn_established(ngx_coord_redis_conn_t *conn);


/* ngx_coord_redis_log.c */

/*
 * Logs "text: detail" with the store and its address, at most once a second
 * per class of failure, and counts what it leaves out.  AUTH, and that an
 * attempt to connect has failed again, are told once a minute.
 */
void ngx_coord_redis_conn_log(ngx_coord_redis_conn_t *conn,
    ngx_coord_fail_e failure, ngx_err_t err, const char *text,
    ngx_str_t *detail);

/*
 * The end of what was told of: 1 if the client's connections have written a
 * line since *ended, which is then set anew.  0: there is nothing to end, as
 * where a server comes and goes faster than it is told.
 */
ngx_uint_t ngx_coord_redis_conn_log_ends(ngx_coord_redis_conn_t *conn,
    ngx_uint_t *ended);

/* the handler of conn->log: store and address */
u_char *ngx_coord_redis_conn_log_error(ngx_log_t *log, u_char *buf,
    size_t len);


/* ngx_coord_redis_lookup.c */

/*
 * Asks the resolver for the addresses of the endpoint.  NGX_OK: handler()
 * comes exactly once, maybe before this returns, unless the connection is
 * closed; without an answer the last good addresses stay.  NGX_ERROR: it does
 * not come.
 */
ngx_int_t ngx_coord_redis_conn_lookup(ngx_coord_redis_conn_t *conn,
    ngx_coord_conn_handler_pt handler);


/* ngx_coord_redis_auth.c */

/*
 * The server has refused the password that the connection has sent: 1 if there
 * is another one by now.
 */
ngx_uint_t ngx_coord_redis_auth_changed(ngx_coord_redis_conn_t *conn);


/* ngx_coord_redis_tls.c */

/*
 * Begins TLS on a connected socket; handler() comes exactly once, maybe before
 * this returns, unless the connection is closed: NGX_OK, or NGX_ERROR, logged.
 */
void ngx_coord_redis_tls_start(ngx_coord_redis_conn_t *conn,
    ngx_coord_conn_secured_pt handler);

/*
 * A write has failed: with TLS 1.3 a server refuses a certificate of ours when
 * the handshake is done, and has said why.
 */
void ngx_coord_redis_tls_refused(ngx_coord_redis_conn_t *conn);

/* ends TLS quietly: nothing is sent, nothing is waited for */
void ngx_coord_redis_tls_end(ngx_connection_t *c);

/* frees the session of an endpoint */
void ngx_coord_redis_tls_forget(ngx_coord_endpoint_t *endpoint);

/*
 * What OpenSSL has said last, for the log; NULL: nothing.  Valid until it says
 * more.
 */
ngx_str_t *ngx_coord_redis_tls_reason(ngx_coord_redis_conn_t *conn);


/* ngx_coord_redis_hello.c */

/* the bytes that the handshake may take, and its end, written at p */
size_t ngx_coord_redis_conn_hello_size(ngx_coord_redis_conn_t *conn);
u_char *ngx_coord_redis_conn_hello(ngx_coord_redis_conn_t *conn, u_char *p);

/* the first step from the given one on that is taken with this server */
ngx_coord_conn_step_e ngx_coord_redis_conn_step(ngx_coord_redis_conn_t *conn,
    ngx_uint_t step);

/* takes a reply: conn->step is the next one.  NONE, or why it ends here */
ngx_coord_fail_e ngx_coord_redis_conn_greeted(ngx_coord_redis_conn_t *conn,
    ngx_coord_resp_value_t *value);

/*
 * Whether two connections that are ready are to one server.  NGX_DECLINED: to
 * different ones; NGX_ERROR: they do not tell.
 */
ngx_int_t ngx_coord_redis_conn_same(ngx_coord_redis_conn_t *a,
    ngx_coord_redis_conn_t *b);

/*
 * What ends the handshake, for owners that ask it again: the bytes that it may
 * take, and the end of what was written at p.
 */
size_t ngx_coord_redis_question_size(ngx_coord_redis_conn_t *conn);
u_char *ngx_coord_redis_question(ngx_coord_redis_conn_t *conn, u_char *p);


/* ngx_coord_redis_io.c */

/* queues AUTH, SELECT and the rest for a connected socket */
void ngx_coord_redis_conn_handshake(ngx_coord_redis_conn_t *conn);

/* event handlers: of the connection, and of conn->flush */
void ngx_coord_redis_conn_read(ngx_event_t *rev);
void ngx_coord_redis_conn_write(ngx_event_t *wev);
void ngx_coord_redis_conn_flush(ngx_event_t *ev);

/*
 * Returns room for size bytes of output, or NULL: over the soft cap
 * (*failure OVERFLOW), or no memory.  The caller writes, then calls
 * ngx_coord_redis_conn_queue() with the end of what it wrote.
 */
u_char *ngx_coord_redis_conn_room(ngx_coord_redis_conn_t *conn, size_t size,
    ngx_coord_fail_e *failure);
void ngx_coord_redis_conn_queue(ngx_coord_redis_conn_t *conn, u_char *last);

/* wipes and frees the output buffer */
void ngx_coord_redis_conn_free_out(ngx_coord_redis_conn_t *conn);


/* 1 if the commands of a call that begins a group are executed together */
#define ngx_coord_redis_multi(call)                                           \
    ((call)->form == NGX_COORD_CALL_ALONE                                     \
     || (call)->form == NGX_COORD_CALL_SHARED)

/* writes the nonce, a variable, in hex; gives the end */
#define ngx_coord_redis_nonce(p, nonce)                                       \
    ngx_hex_dump(p, (u_char *) &(nonce), sizeof(uint64_t))


/* ngx_coord_redis_node.c */

/*
 * Sets up a lane of a server's nodes, not connected; the endpoint outlives it.
 * NGX_ERROR: no memory.
 */
ngx_int_t ngx_coord_redis_node_init(ngx_coord_redis_t *redis,
    ngx_coord_redis_node_t *nodes, ngx_coord_lane_e lane,
    ngx_coord_endpoint_t *endpoint);

/* closes its connection and ends its calls */
void ngx_coord_redis_node_destroy(ngx_coord_redis_node_t *node);

/*
 * 0 if its server is known to be older than conf->need; not if it is not
 * connected yet, or does not tell.
 */
#define ngx_coord_redis_node_serves(node)                                     \
    ((node)->redis->conf->need == NULL                                        \
     || (node)->conn == NULL                                                  \
     || (node)->conn->version == 0                                            \
     || (node)->conn->version >= (node)->redis->conf->need->version)

/* 1 if its connection is ready and its breaker closed */
#define ngx_coord_redis_node_ok(node)                                         \
    ((node)->conn != NULL                                                     \
     && (node)->conn->state == NGX_COORD_CONN_READY                           \
     && (node)->breaker == NGX_COORD_BREAKER_CLOSED)

/* closed() of a node's connection: ends its calls */
void ngx_coord_redis_node_closed(ngx_coord_redis_conn_t *conn,
    ngx_coord_fail_e failure, ngx_uint_t ready);

/* sends what is queued for the nodes of a server now */
void ngx_coord_redis_nodes_push(ngx_coord_redis_node_t *nodes);


/* ngx_coord_redis_call.c */

/*
 * Admits a call to a node, and writes it, if the connection is ready; else it
 * is to wait for that.  NONE, or why it cannot be sent.
 */
ngx_coord_fail_e ngx_coord_redis_submit(ngx_coord_redis_node_t *node,
    ngx_coord_redis_call_t *call);

/* sends a call that was taken from another node, and ends it */
void ngx_coord_redis_node_pass(ngx_coord_redis_node_t *node,
    ngx_coord_redis_call_t *call);
void ngx_coord_redis_node_drop(ngx_coord_redis_node_t *node,
    ngx_coord_redis_call_t *call, ngx_coord_fail_e failure);

/* writes a call into the output; NONE, or why it cannot be sent */
ngx_coord_fail_e ngx_coord_redis_encode(ngx_coord_redis_node_t *node,
    ngx_coord_redis_call_t *call);

/* from now on the call has a deadline, and replies if it is sent */
void ngx_coord_redis_enqueue(ngx_coord_redis_node_t *node,
    ngx_coord_redis_call_t *call);

/*
 * expect() of a node's connection, see ngx_coord_conn_actions_t: the replies
 * that its first call and those who joined it will have.
 */
ngx_uint_t ngx_coord_redis_node_expect(ngx_coord_redis_conn_t *conn);

/*
 * Takes the array of all replies to a call.  NGX_OK: *reply is the first of
 * call->total values, its own and those of who joined it; NGX_DECLINED:
 * refused, *error is the first error reply and the stream is in order;
 * NGX_ABORT: the same, and the server refuses whatever it is asked;
 * NGX_ERROR: these are not the replies of the call.
 */
ngx_int_t ngx_coord_redis_check(ngx_coord_redis_call_t *call,
    ngx_coord_resp_value_t *gathered, ngx_coord_resp_value_t **reply,
    ngx_coord_resp_value_t **error);


/* ngx_coord_redis_reply.c */

/*
 * reply() of a node's connection, see ngx_coord_conn_actions_t: what the
 * replies to its first call and those who joined it are.  A stream that is in
 * doubt is closed by what this returns.
 */
ngx_coord_fail_e ngx_coord_redis_node_reply(ngx_coord_redis_conn_t *conn,
    ngx_coord_resp_value_t *value);

/* unlinks a call, then tells its owner; rc NGX_ERROR: call->failure is set */
void ngx_coord_redis_end(ngx_coord_redis_node_t *node,
    ngx_coord_redis_call_t *call, ngx_int_t rc,
    ngx_coord_resp_value_t *reply);

/* unlinks a call, which does not end */
void ngx_coord_redis_take(ngx_coord_redis_node_t *node,
    ngx_coord_redis_call_t *call);

/* ends all calls of a queue that is not the node's any more */
void ngx_coord_redis_end_all(ngx_coord_redis_node_t *node, ngx_queue_t *calls,
    ngx_coord_fail_e failure);

/* the call is no longer among those whose deadline is ahead */
void ngx_coord_redis_skip_live(ngx_coord_redis_node_t *node,
    ngx_coord_redis_call_t *call);


/* ngx_coord_redis_deadline.c */

/* the handler of the timer of deadlines */
void ngx_coord_redis_deadline(ngx_event_t *ev);


/* ngx_coord_redis_health.c */

/* sets up the breaker and the clock of a node that has a connection */
void ngx_coord_redis_health_init(ngx_coord_redis_node_t *node);

/* one more failure in a row: too many open the breaker */
void ngx_coord_redis_node_failed(ngx_coord_redis_node_t *node);

/* opens a closed breaker; after cooldown the client probes */
void ngx_coord_redis_breaker_open(ngx_coord_redis_node_t *node,
    ngx_msec_t cooldown);

/* closes it; failures: how many in a row it shall have had already */
void ngx_coord_redis_breaker_close(ngx_coord_redis_node_t *node,
    ngx_uint_t failures);

/*
 * The first call is answered after that, which tells that it is over: a server
 * that tells the time may refuse all else.
 */
void ngx_coord_redis_breaker_ends(ngx_coord_redis_node_t *node);

/* a probe has failed: another cooldown */
void ngx_coord_redis_breaker_reopen(ngx_coord_redis_node_t *node);

/* 1 if it is told of the store that it refuses what it is asked */
#define ngx_coord_redis_refuses_now(node)                                     \
    ((node)->redis->refusal != NULL && (node)->redis->refusal->when != 0)

/*
 * The server has refused a call by such a reply; and has answered one, while
 * ngx_coord_redis_refuses_now().
 */
void ngx_coord_redis_refused(ngx_coord_redis_node_t *node,
    const ngx_coord_redis_error_t *e);
void ngx_coord_redis_answered(ngx_coord_redis_node_t *node,
    ngx_coord_redis_call_t *call);

/* sends TIME, unless one is in flight */
void ngx_coord_redis_clock_ask(ngx_coord_redis_node_t *node);

/*
 * A handshake told the server's time, value, maybe that of another one than
 * before; asked at start and received at end of our clock.
 */
void ngx_coord_redis_clock_first(ngx_coord_redis_node_t *node,
    ngx_coord_resp_value_t *value, ngx_coord_nsec_t start,
    ngx_coord_nsec_t end);

/* asks once more where that took long, behind the calls that waited for it */
void ngx_coord_redis_clock_refine(ngx_coord_redis_node_t *node);


/* ngx_coord_redis_sentinel.c */

/*
 * Begins to know the master of a client in mode sentinel: redis->find and
 * redis->distrust.  Its connections must end before it.  NULL: no memory.
 */
ngx_coord_redis_sentinel_t *ngx_coord_redis_sentinel_create(
    ngx_coord_redis_t *redis);
void ngx_coord_redis_sentinel_destroy(ngx_coord_redis_sentinel_t *sentinel);

/* asks for the master; conn_found() is called, maybe before this returns */
void ngx_coord_redis_sentinel_find(ngx_coord_redis_conn_t *conn);

/* the server that was named is no master: another sentinel is asked next */
void ngx_coord_redis_sentinel_distrust(ngx_coord_redis_conn_t *conn);

/* the address of the sentinel that was asked last; NULL: none was */
ngx_str_t *ngx_coord_redis_sentinel_asked(
    ngx_coord_redis_sentinel_t *sentinel);


/* ngx_coord_redis_track.c */

/*
 * Has keys of a node tracked, as redis->tracking says, by a connection of its
 * own to the same server, in a cluster when the first key is read from it; and
 * ends that.  NGX_ERROR: no memory.
 */
ngx_int_t ngx_coord_redis_track_node(ngx_coord_redis_node_t *node);
void ngx_coord_redis_track_use(ngx_coord_redis_node_t *node);
void ngx_coord_redis_track_free(ngx_coord_redis_node_t *node);

/* the connection of the node's calls is ready, what waited is sent; is lost */
void ngx_coord_redis_track_begin(ngx_coord_redis_node_t *node);
void ngx_coord_redis_track_end(ngx_coord_redis_node_t *node);


/* ngx_coord_redis_sub.c */

/* the server at the endpoint is not to be used any more */
void ngx_coord_redis_sub_leave(ngx_coord_redis_sub_t *sub,
    ngx_coord_endpoint_t *endpoint);

/* closes the connection of a subscriber and frees it; nobody is told */
void ngx_coord_redis_sub_destroy(ngx_coord_redis_sub_t *sub);


#endif /* _NGX_COORD_REDIS_CONN_H_INCLUDED_ */
