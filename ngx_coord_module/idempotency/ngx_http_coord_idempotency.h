
/*
 * Copyright (C) ngx_coord_module contributors
 *
 *   ngx_http_coord_idempotency.c           claim, decision
 *   ngx_http_coord_idempotency_answer.c    what a refused client sees
 *   ngx_http_coord_idempotency_body.c      reading the body, fingerprint
 *   ngx_http_coord_idempotency_capture.c   the body of the response
 *   ngx_http_coord_idempotency_claim.c     holding and ending a claim
 *   ngx_http_coord_idempotency_client.c    a client that goes away
 *   ngx_http_coord_idempotency_conf.c      directives
 *   ngx_http_coord_idempotency_filter.c    the header of the response
 *   ngx_http_coord_idempotency_key.c       the key, the name of the record
 *   ngx_http_coord_idempotency_replay.c    sending it again
 *   ngx_http_coord_idempotency_set.c       arguments of the directives
 *   ngx_http_coord_idempotency_var.c       variables
 */


#ifndef _NGX_HTTP_COORD_IDEMPOTENCY_H_INCLUDED_
#define _NGX_HTTP_COORD_IDEMPOTENCY_H_INCLUDED_


#include "ngx_http_coord.h"
#include "ngx_coord_metrics.h"
#include "ngx_coord_record.h"
#include "ngx_coord_timer.h"
#include "ngx_coord_wake.h"
#include "ngx_http_coord_api.h"


#define NGX_HTTP_COORD_IDEMPOTENCY_OFF       0
#define NGX_HTTP_COORD_IDEMPOTENCY_ON        1
#define NGX_HTTP_COORD_IDEMPOTENCY_REQUIRED  2

#define NGX_HTTP_COORD_UNKNOWN_RUN           0
#define NGX_HTTP_COORD_UNKNOWN_CONFLICT      1

/* bytes of a client's key */
#define NGX_HTTP_COORD_IDEMPOTENCY_KEY       255


/* the values of $coord_idempotency_status */
typedef enum {
    NGX_HTTP_COORD_IDEMPOTENCY_NONE = 0,
    NGX_HTTP_COORD_IDEMPOTENCY_NEW,
    NGX_HTTP_COORD_IDEMPOTENCY_REPLAYED,
    NGX_HTTP_COORD_IDEMPOTENCY_CONFLICT,
    NGX_HTTP_COORD_IDEMPOTENCY_MISMATCH,
    NGX_HTTP_COORD_IDEMPOTENCY_MISSING,
    NGX_HTTP_COORD_IDEMPOTENCY_INVALID,
    NGX_HTTP_COORD_IDEMPOTENCY_UNSCOPED,
    NGX_HTTP_COORD_IDEMPOTENCY_BYPASSED
} ngx_http_coord_idempotency_status_e;


/* one value of coord_idempotency_store_status: 201, or 2 for 2xx */
typedef ngx_uint_t  ngx_http_coord_idempotency_code_t;


typedef struct {
    ngx_uint_t                 mode;
    ngx_flag_t                 shadow;
    ngx_flag_t                 dry_run;
    ngx_uint_t                 on_failure;
    ngx_http_complex_value_t  *key;
    ngx_str_t                  header;        /* the key is this $http_ */
    ngx_http_complex_value_t  *scope;
    ngx_uint_t                 global;        /* coord_idempotency_scope off */
    ngx_uint_t                 methods;
    ngx_msec_t                 ttl;
    ngx_msec_t                 lease;
    ngx_msec_t                 wait;
    size_t                     max_response;
    ngx_array_t               *store_status;  /* of codes; NULL: default */
    ngx_uint_t                 on_unknown;
    ngx_array_t               *pass;          /* of ngx_str_t */
    ngx_array_t               *hide;          /* of ngx_str_t */
    ngx_str_t                  doc_url;
    ngx_coord_zone_t          *zone;
    u_char                    *file;
    ngx_uint_t                 line;
} ngx_http_coord_idempotency_conf_t;


typedef struct {
    ngx_uint_t                 digest;        /* $coord_request_digest used */
    ngx_array_t                zones;         /* of ngx_coord_zone_t * */
} ngx_http_coord_idempotency_main_conf_t;


typedef enum {
    NGX_HTTP_COORD_IDEMPOTENCY_IDLE = 0,
    NGX_HTTP_COORD_IDEMPOTENCY_WAITING,       /* for an answer or a twin */
    NGX_HTTP_COORD_IDEMPOTENCY_RUNNING,       /* the claim is held */
    NGX_HTTP_COORD_IDEMPOTENCY_DONE
} ngx_http_coord_idempotency_phase_e;


/* what is sent again */
typedef struct {
    ngx_chain_t               *first;         /* captured body, in buffers */
    ngx_chain_t               *last;
    off_t                      received;      /* bytes of the body */
    off_t                      expected;      /* by Content-Length, or -1 */
    off_t                      captured;      /* room in the buffers */
    ngx_array_t                fields;        /* of ngx_keyval_t */
    ngx_coord_record_t         record;

    /* what goes to the client when the body is too large to be kept */
    ngx_chain_t               *in;
    ngx_chain_t               *free;
    ngx_chain_t               *busy;
    ngx_uint_t                 nbufs;

    unsigned                   on:1;
    unsigned                   over:1;        /* beyond max_response */
    unsigned                   ended:1;       /* the last buffer was seen */
    unsigned                   upstream:1;    /* there it comes from */
    unsigned                   trailers:1;    /* may follow the body */
} ngx_http_coord_capture_t;


typedef struct {
    ngx_http_coord_ctx_t      *ctx;
    ngx_http_request_t        *request;       /* the main request */
    ngx_http_coord_idempotency_conf_t  *conf;

    ngx_http_coord_idempotency_phase_e   phase;
    ngx_http_coord_idempotency_status_e  status;

    ngx_str_t                  key;           /* the client's */
    ngx_str_t                  scope;
    ngx_str_t                  name;          /* server, scope, key */
    u_char                     fingerprint[NGX_COORD_DIGEST_LEN];

    ngx_http_coord_ref_t       ref;
    ngx_coord_op_t             op;            /* the last answer to a claim */
    ngx_str_t                  blob;          /* freed with the pool */
    ngx_coord_record_t         record;

    ngx_coord_batch_t         *batch;         /* asked outside of the walk */
    ngx_coord_batch_t         *renewal;
    ngx_coord_timer_t          timer;         /* waiting: ends it; running:
                                               * renews the lease */
    ngx_coord_waiter_t         waiter;
    ngx_msec_t                 deadline;      /* of the wait */
    ngx_uint_t                 tries;

    ngx_http_coord_capture_t   capture;

    unsigned                   answered:1;    /* op is what to decide on */
    unsigned                   waited:1;
    unsigned                   replace:1;     /* a bad record is in the way */
    unsigned                   shadow:1;
    unsigned                   lost:1;        /* the claim is another's */
    unsigned                   guarded:1;     /* the handlers are ours */
    unsigned                   detached:1;    /* nobody reads any more */
} ngx_http_coord_idempotency_t;


extern ngx_module_t  ngx_http_coord_idempotency_module;
extern ngx_http_coord_feature_t  ngx_http_coord_idempotency_feature;
extern const ngx_str_t  ngx_http_coord_idempotency_statuses[];


/* --- ngx_http_coord_idempotency.c --- */

/* the state of the client request r belongs to, or NULL */
ngx_http_coord_idempotency_t *ngx_http_coord_idempotency_state(
    ngx_http_request_t *r);


/* --- ngx_http_coord_idempotency_answer.c --- */

/* one line in the error log about what was decided */
void ngx_http_coord_idempotency_log(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *state, ngx_uint_t level, const char *what);

/* counts the decision for the metrics */
void ngx_http_coord_idempotency_count(ngx_http_coord_idempotency_t *state,
    ngx_coord_outcome_e outcome);

/*
 * Refuses, or in shadow mode only logs.  What decide() has to return:
 * NGX_DECLINED in shadow mode.
 */
ngx_int_t ngx_http_coord_idempotency_refuse(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *state,
    ngx_http_coord_idempotency_status_e status);


/* --- ngx_http_coord_idempotency_body.c --- */

/*
 * Reads the body if nobody has done so.  NGX_OK: it is there; NGX_DONE: the
 * phases run again when it is, the request may be gone; or a status, or in
 * shadow mode NGX_DECLINED, if another upstream has already consumed it.
 */
ngx_int_t ngx_http_coord_idempotency_read(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx);

/*
 * The request runs as a whole, and so does its result become one: ranges are
 * taken out of it, and of a GET also the conditions.
 */
void ngx_http_coord_idempotency_whole(ngx_http_request_t *r);

/*
 * SHA-256 of method, host, URI with arguments, with type also Content-Type,
 * and the body, which has been read.
 */
ngx_int_t ngx_http_coord_idempotency_digest(ngx_http_request_t *r,
    ngx_uint_t type, u_char *digest);


/* --- ngx_http_coord_idempotency_capture.c --- */

ngx_int_t ngx_http_coord_idempotency_capture_init(ngx_conf_t *cf);

/* all of the response has been seen: the end of the run */
void ngx_http_coord_idempotency_finish(ngx_http_coord_idempotency_t *state);


/* --- ngx_http_coord_idempotency_claim.c --- */

/* fills the asked part of a CLAIM and of what follows one */
void ngx_http_coord_idempotency_ask(ngx_http_coord_idempotency_t *state,
    ngx_coord_op_t *op);

/* the claim was granted and is held: renews it while the request runs */
void ngx_http_coord_idempotency_hold(ngx_http_coord_idempotency_t *state);

/* ends the claim: the key is free */
void ngx_http_coord_idempotency_release(ngx_http_coord_idempotency_t *state);

/* ends the run with a result; the record is stored in the background */
void ngx_http_coord_idempotency_complete(ngx_http_coord_idempotency_t *state);

/* ends the run with an outcome that is not known: by on_unknown */
void ngx_http_coord_idempotency_unknown(ngx_http_coord_idempotency_t *state);


/* --- ngx_http_coord_idempotency_client.c --- */

/* from now on a client that goes away does not end the request */
void ngx_http_coord_idempotency_guard(ngx_http_coord_idempotency_t *state);

/* back to what nginx does */
void ngx_http_coord_idempotency_unguard(ngx_http_coord_idempotency_t *state);

/* the client is gone: the request goes on without it */
void ngx_http_coord_idempotency_detach(ngx_http_coord_idempotency_t *state);


/* --- ngx_http_coord_idempotency_filter.c --- */

ngx_int_t ngx_http_coord_idempotency_filter_init(ngx_conf_t *cf);

/* adds the trailers of the response, all of which has been seen */
ngx_int_t ngx_http_coord_idempotency_trailers(
    ngx_http_coord_idempotency_t *state);

/*
 * What a response of gRPC tells in its header or its trailers.  NGX_OK: a
 * result, or no gRPC; NGX_DECLINED: the same request may do better later;
 * NGX_ERROR: nothing.
 */
ngx_int_t ngx_http_coord_idempotency_grpc_status(ngx_http_request_t *r,
    ngx_list_t *headers);

/*
 * What the attempts to reach an upstream tell about a response that none of
 * them has given, or about none: NGX_OK: they do not matter; NGX_DECLINED:
 * nothing was executed; NGX_ERROR: it is not known.
 */
ngx_int_t ngx_http_coord_idempotency_attempts(ngx_http_request_t *r);


/* --- ngx_http_coord_idempotency_key.c --- */

/*
 * The client's key.  NGX_OK: state->key is a good one; or what begin() has to
 * return.
 */
ngx_int_t ngx_http_coord_idempotency_key(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *state);

/*
 * state->scope, which is nobody's if it is empty.  NGX_OK: go on; or what
 * begin() has to return.
 */
ngx_int_t ngx_http_coord_idempotency_scoped(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *state);

/* state->name, from key and scope; NGX_ERROR: no memory */
ngx_int_t ngx_http_coord_idempotency_record_name(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *state);

/*
 * What a record is stored under, before it is digested: server, scope and
 * key, each with its length.  NGX_ERROR: no memory.
 */
ngx_int_t ngx_http_coord_idempotency_name(ngx_pool_t *pool, ngx_str_t *server,
    ngx_str_t *scope, ngx_str_t *key, ngx_str_t *name);


/* --- ngx_http_coord_idempotency_replay.c --- */

/* a ngx_http_coord_respond_pt: sends the record of the request */
ngx_int_t ngx_http_coord_idempotency_replay(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx);


/* --- ngx_http_coord_idempotency_set.c --- */

char *ngx_http_coord_idempotency(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_http_coord_idempotency_key_value(ngx_conf_t *cf,
    ngx_command_t *cmd, void *conf);
char *ngx_http_coord_idempotency_scope(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_http_coord_idempotency_store_status(ngx_conf_t *cf,
    ngx_command_t *cmd, void *conf);
char *ngx_http_coord_idempotency_store(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_http_coord_idempotency_names(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);


/* --- ngx_http_coord_idempotency_var.c --- */

extern ngx_http_variable_t  ngx_http_coord_idempotency_vars[];


/* --- ngx_http_coord_idempotency_api.c: routes of coord_api --- */

extern const ngx_http_coord_route_t  ngx_http_coord_idempotency_routes[];


#endif /* _NGX_HTTP_COORD_IDEMPOTENCY_H_INCLUDED_ */
