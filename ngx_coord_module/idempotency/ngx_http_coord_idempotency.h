
/*
 * Copyright (C) ngx_coord_module contributors
 *
 *   ngx_http_coord_idempotency.c           claim, decision, waiting
 *   ngx_http_coord_idempotency_answer.c    what a refused client sees
 *   ngx_http_coord_idempotency_api.c       routes of coord_api
 *   ngx_http_coord_idempotency_client.c    a client that goes away
 *   ngx_http_coord_idempotency_conf.c      directives
 *   ngx_http_coord_idempotency_filter.c    what a response means
 *   ngx_http_coord_idempotency_grpc.c      ... if it is one of gRPC
 *   ngx_http_coord_idempotency_lint.c      what nginx -t says
 *   ngx_http_coord_idempotency_request.c   key, scope, body, fingerprint
 *   ngx_http_coord_idempotency_result.c    a result, on its way to the store
 *   ngx_http_coord_idempotency_run.c       a run, from its claim to its end
 *   ngx_http_coord_idempotency_set.c       arguments of the directives
 *   ngx_http_coord_idempotency_wait.c      asking again, waiting for a twin
 */


#ifndef _NGX_HTTP_COORD_IDEMPOTENCY_H_INCLUDED_
#define _NGX_HTTP_COORD_IDEMPOTENCY_H_INCLUDED_


#include "ngx_http_coord.h"
#include "ngx_http_coord_body.h"
#include "ngx_http_coord_capture.h"
#include "ngx_http_coord_limiter.h"
#include "ngx_coord_giveback.h"
#include "ngx_coord_grpc_web.h"
#include "ngx_coord_record.h"
#include "ngx_coord_run.h"
#include "ngx_coord_timer.h"
#include "ngx_coord_wake.h"
#include "ngx_http_coord_api.h"


#define NGX_HTTP_COORD_IDEMPOTENCY_OFF       0
#define NGX_HTTP_COORD_IDEMPOTENCY_ON        1
#define NGX_HTTP_COORD_IDEMPOTENCY_REQUIRED  2

#define NGX_HTTP_COORD_UNKNOWN_RUN           0
#define NGX_HTTP_COORD_UNKNOWN_CONFLICT      1

/* coord_idempotency_fingerprint */
#define NGX_HTTP_COORD_FINGERPRINT_DEFAULT   0
#define NGX_HTTP_COORD_FINGERPRINT_OFF       1
#define NGX_HTTP_COORD_FINGERPRINT_VALUE     2

/* bytes of a body that are digested in one turn of the event loop */
#define NGX_HTTP_COORD_IDEMPOTENCY_SLICE     (1024 * 1024)

/* how often a request whose client is gone looks whether it is to end */
#define NGX_HTTP_COORD_CLIENT_LOOK           1000

/* bytes of a scope; a longer one, a body, stands as its digest */
#define NGX_HTTP_COORD_IDEMPOTENCY_SCOPE     65536

/* bytes of a client's key */
#define NGX_HTTP_COORD_IDEMPOTENCY_KEY       255


/* lines that are told once a second and zone; zone->data has one limit each */
typedef enum {
    NGX_HTTP_COORD_TROUBLE_UNKNOWN = 0,
    NGX_HTTP_COORD_TROUBLE_LOST,
    NGX_HTTP_COORD_TROUBLE_DAMAGED,
    NGX_HTTP_COORD_TROUBLES
} ngx_http_coord_trouble_e;


/* one value of coord_idempotency_store_status: 201, or 2 for 2xx */
typedef ngx_uint_t  ngx_http_coord_idempotency_code_t;


typedef struct {
    ngx_http_coord_limiter_conf_t  limiter;       /* first: its directives */

    ngx_uint_t                     mode;
    ngx_flag_t                     shadow;
    ngx_uint_t                     on_failure;
    ngx_http_complex_value_t      *key;
    ngx_str_t                      header;        /* the key is this $http_ */
    ngx_http_complex_value_t      *scope;
    ngx_uint_t                     global;        /* _scope off */
    unsigned                       key_body:1;    /* the key may look at the */
    unsigned                       scope_body:1;  /* body; so may the scope */
    unsigned                       fingerprint_body:1;
    unsigned                       key_constant:1;
    ngx_uint_t                     methods;
    ngx_msec_t                     ttl;
    ngx_msec_t                     lease;
    ngx_msec_t                     wait;
    size_t                         max_response;
    ngx_array_t                   *store_status;  /* of codes; NULL: default */
    ngx_uint_t                     on_unknown;
    ngx_http_complex_value_t      *fingerprint;   /* in place of the default */
    ngx_uint_t                     check;         /* of fingerprints */
    ngx_array_t                   *no_store;      /* of complex values */
    ngx_array_t                   *pass;          /* of ngx_str_t */
    ngx_array_t                   *hide;          /* of ngx_str_t */
    ngx_str_t                      doc_url;
    ngx_coord_zone_t              *zone;
    size_t                         size;          /* of its memory, if given */
    u_char                        *file;
    ngx_uint_t                     line;
} ngx_http_coord_idempotency_conf_t;


typedef struct {
    ngx_uint_t                 digest;        /* $coord_request_digest used */
    ngx_array_t                zones;         /* of ngx_coord_zone_t * */
    size_t                     size;          /* given for the first one */
    ngx_array_t                lint;          /* to be looked at when all of
                                               * the configuration is merged */
} ngx_http_coord_idempotency_main_conf_t;


/* the client of a request that runs */
typedef enum {
    NGX_HTTP_COORD_CLIENT_OWN = 0,            /* as nginx has it */
    NGX_HTTP_COORD_CLIENT_GUARDED,            /* its events come here first */
    NGX_HTTP_COORD_CLIENT_GONE,               /* nobody reads any more */
    NGX_HTTP_COORD_CLIENT_LEFT                /* and the run has ended */
} ngx_http_coord_client_e;


/* a stored response, of all requests that are to get it */
typedef struct {
    ngx_uint_t                 refs;
    ngx_str_t                  blob;          /* on the heap */
    ngx_coord_record_t         record;        /* points into it */
    ngx_int_t                  rc;            /* NGX_ERROR: it is damaged */
} ngx_http_coord_result_t;


/* a request with a key: one for the main request and all its redirects */
typedef struct {
    ngx_http_coord_ctx_t      *ctx;
    ngx_http_request_t        *request;       /* the main request */
    ngx_http_coord_idempotency_conf_t  *conf;

    ngx_coord_run_e            state;         /* ngx_http_coord_run_set() */
    ngx_coord_outcome_e        outcome;
    ngx_http_coord_client_e    client;

    ngx_str_t                  key;           /* the client's */
    ngx_str_t                  scope;
    ngx_str_t                  name;          /* server, scope, key */
    ngx_http_coord_body_t      body;
    u_char                     fingerprint[NGX_COORD_DIGEST_LEN];

    ngx_http_coord_ref_t       ref;
    ngx_coord_op_t             op;            /* the last answer to a claim */
    ngx_http_coord_result_t   *result;        /* that came with it, or NULL */

    ngx_coord_batch_t         *batch;         /* asked outside of the walk */
    ngx_coord_batch_t         *renewal;
    ngx_coord_batch_t         *storing;       /* a large result, in flight */
    ngx_coord_giveback_wait_t  freeing;       /* the claim, on its way back */
    ngx_coord_timer_t          timer;         /* WAITING: ends it; HELD:
                                               * renews the lease */
    ngx_msec_t                 renewed;       /* when it was asked for */
    ngx_coord_waiter_t         waiter;
    ngx_msec_t                 deadline;      /* of the wait; 0: none yet */
    ngx_uint_t                 tries;

    ngx_http_coord_capture_t   capture;
    ngx_coord_grpc_web_t      *web;           /* of the response; or NULL */

    unsigned                   shadow:1;
    unsigned                   replace:1;     /* a bad record is in the way */
    unsigned                   lost:1;        /* the claim is another's */
    unsigned                   begun:1;       /* nginx runs the request */
} ngx_http_coord_idempotency_t;


extern ngx_module_t  ngx_http_coord_idempotency_module;
extern ngx_http_coord_feature_t  ngx_http_coord_idempotency_feature;
extern ngx_http_variable_t  ngx_http_coord_idempotency_vars[];


/* the run of the client request that r belongs to, or NULL */

static ngx_inline ngx_http_coord_idempotency_t *
ngx_http_coord_run(ngx_http_request_t *r)
{
    ngx_http_coord_ctx_t  *ctx;

    ctx = ngx_http_coord_get_ctx(r);

    return ctx ? ctx->state[ngx_http_coord_idempotency_feature.slot] : NULL;
}


/* 1 if the request runs by a claim that is not ended yet */
#define ngx_http_coord_running(run)                                           \
    ((run)->state == NGX_COORD_RUN_HELD                                       \
     || (run)->state == NGX_COORD_RUN_KEEPING)


/* --- ngx_http_coord_idempotency_answer.c --- */

/*
 * Refuses, or in shadow mode only logs.  What decide() has to return:
 * NGX_DECLINED in shadow mode.
 */
ngx_int_t ngx_http_coord_idempotency_refuse(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *run, ngx_coord_outcome_e outcome);


/* --- ngx_http_coord_idempotency_client.c --- */

/* from now on a client that goes away does not end the request */
void ngx_http_coord_run_guard(ngx_http_coord_idempotency_t *run);

/* back to what nginx does */
void ngx_http_coord_run_unguard(ngx_http_coord_idempotency_t *run);

/*
 * The client is gone, as far as it was guarded: the request goes on without
 * it.  1: nobody reads any more.
 */
ngx_uint_t ngx_http_coord_run_gone(ngx_http_coord_idempotency_t *run);

/*
 * Ends the request if the process does not wait for it any longer; from a
 * timer.  The request may be gone when this returns.
 */
void ngx_http_coord_run_leave(ngx_http_coord_idempotency_t *run);


/* --- ngx_http_coord_idempotency_filter.c --- */

/* for postconfiguration: takes the places in the chains of filters */
ngx_int_t ngx_http_coord_idempotency_filter_init(ngx_conf_t *cf);

/*
 * What the attempts to reach an upstream tell about a response that none of
 * them has given, or about none: NGX_OK: they do not matter; NGX_DECLINED:
 * nothing was executed; NGX_ERROR: it is not known.
 */
ngx_int_t ngx_http_coord_idempotency_attempts(ngx_http_request_t *r);


/* --- ngx_http_coord_idempotency_grpc.c --- */

/*
 * With the header of a response.  NGX_OK: it may be a result, or is none of
 * gRPC; NGX_DECLINED: by its grpc-status the same request may do better later;
 * NGX_ERROR: no memory.  run->web is set if its body tells that.
 */
ngx_int_t ngx_http_coord_idempotency_grpc_begin(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *run);

/* takes a part of its body as it passes, where run->web is set */
void ngx_http_coord_idempotency_grpc_read(ngx_http_coord_idempotency_t *run,
    ngx_chain_t *in);

/*
 * With all of it.  As above; NGX_ERROR: it is one of gRPC without a
 * grpc-status.
 */
ngx_int_t ngx_http_coord_idempotency_grpc_end(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *run);


/* --- ngx_http_coord_idempotency_lint.c --- */

/*
 * For merging: warns of what others' directives do to protected requests, or
 * notes what is not known before all modules are merged.  NGX_ERROR: no memory.
 */
ngx_int_t ngx_http_coord_idempotency_lint(ngx_conf_t *cf,
    ngx_http_coord_idempotency_conf_t *conf);

/* for the creation of imcf; NGX_ERROR: no memory */
ngx_int_t ngx_http_coord_idempotency_lint_create(ngx_conf_t *cf,
    ngx_http_coord_idempotency_main_conf_t *imcf);

/* for postconfiguration: warns of what was noted */
void ngx_http_coord_idempotency_lint_merged(ngx_conf_t *cf,
    ngx_http_coord_idempotency_main_conf_t *imcf);


/* --- ngx_http_coord_idempotency_request.c --- */

/*
 * The client's key.  NGX_OK: run->key is a good one; or what begin() has to
 * return.
 */
ngx_int_t ngx_http_coord_idempotency_key(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *run);

/*
 * run->scope, which is nobody's if it is empty.  NGX_OK: go on; or what
 * begin() has to return.
 */
ngx_int_t ngx_http_coord_idempotency_scoped(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *run);

/*
 * Makes a key as it was sent what it means: an sf-string of RFC 9651, from the
 * pool, or what it is.  NGX_ERROR: not a key, key may be anything then; or no
 * memory.
 */
ngx_int_t ngx_http_coord_idempotency_parse(ngx_str_t *key, ngx_pool_t *pool);

/* run->name, from key and scope; NGX_ERROR: no memory */
ngx_int_t ngx_http_coord_idempotency_record_name(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *run);

/*
 * What a record is stored under, before it is digested: server, scope and
 * key, each with its length; from the pool.  NGX_ERROR: no memory, or OpenSSL
 * failed.
 */
ngx_int_t ngx_http_coord_idempotency_name(ngx_pool_t *pool, ngx_str_t *server,
    ngx_str_t *scope, ngx_str_t *key, ngx_str_t *name);

/*
 * Reads the body, and digests it where that is needed.  NGX_OK: done; else
 * what begin() has to return.
 */
ngx_int_t ngx_http_coord_idempotency_body(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *run);

/* run->fingerprint, of a body that has been read; NGX_ERROR: OpenSSL failed */
ngx_int_t ngx_http_coord_idempotency_fingerprint(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *run);


/* --- ngx_http_coord_idempotency_result.c --- */

/*
 * Stores the captured response of a run by the last operation of batch, a
 * COMPLETE, and holds back the end of a large one until the store has it.  The
 * batch belongs to this function.
 */
void ngx_http_coord_run_store(ngx_http_coord_idempotency_t *run,
    ngx_coord_batch_t *batch);

/* the request is over, its result may still be on its way to the store */
void ngx_http_coord_run_leaves(ngx_http_coord_idempotency_t *run);


/* --- ngx_http_coord_idempotency_run.c --- */

/* the only way to another state; a debug build logs one that is not drawn */
void ngx_http_coord_run_set(ngx_http_coord_idempotency_t *run,
    ngx_coord_run_e state);

/*
 * One line in the error log, at a level of nginx, about what was decided on
 * the key; what is text without the client's bytes.
 */
void ngx_http_coord_run_log(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *run, ngx_uint_t level, const char *what);

/* the same, once a second for each kind, with the number of requests */
void ngx_http_coord_run_trouble(ngx_http_coord_idempotency_t *run,
    ngx_http_coord_trouble_e kind);

/* what became of the request, for $coord_idempotency_status and metrics */
void ngx_http_coord_run_outcome(ngx_http_coord_idempotency_t *run,
    ngx_coord_outcome_e outcome);

/* fills the asked part of a CLAIM and of what follows one */
void ngx_http_coord_run_ask(ngx_http_coord_idempotency_t *run,
    ngx_coord_op_t *op);

/* the claim was granted: renews it while the request runs */
void ngx_http_coord_run_hold(ngx_http_coord_idempotency_t *run);

/*
 * All features have let the request pass: from now on it may have effects, and
 * a client that goes away does not end it.  May be called again, where an
 * error page runs the request once more.
 */
void ngx_http_coord_run_begin(ngx_http_coord_idempotency_t *run);

/*
 * The end of a request that runs; nothing happens to one that does not.
 * NGX_OK: its response, which was captured, is its result; NGX_DECLINED:
 * nothing was done, or the same request may do better later: the key is free;
 * NGX_ERROR: nobody knows what became of it: by on_unknown.
 */
void ngx_http_coord_run_end(ngx_http_coord_idempotency_t *run, ngx_int_t rc);


/* --- ngx_http_coord_idempotency_wait.c --- */

/* makes an answer to a claim the run's own, the record included */
void ngx_http_coord_run_take(ngx_http_coord_idempotency_t *run,
    ngx_coord_op_t *op);

/* releases the record of the run, if it has one */
void ngx_http_coord_run_forget(ngx_http_coord_idempotency_t *run);

/* tells an answer that ends the wait to all who wait for it in this worker */
void ngx_http_coord_run_share(ngx_http_coord_idempotency_t *run);

/*
 * Where others of this worker wait for the twin of the request already, what
 * they were told is the answer to its claim: NGX_OK, nobody is asked.  The
 * encoded key names its record.  NGX_DECLINED: nobody waits.
 */
ngx_int_t ngx_http_coord_run_join(ngx_http_coord_idempotency_t *run,
    u_char *key, size_t len);

/*
 * Waits for the twin that is running.  NGX_AGAIN: decide() will be called
 * again; NGX_DECLINED: it has waited long enough.
 */
ngx_int_t ngx_http_coord_run_wait(ngx_http_coord_idempotency_t *run);

/* asks for a record that did not come with the answer; as run_again() */
ngx_int_t ngx_http_coord_run_fetch(ngx_http_coord_idempotency_t *run);

/*
 * Asks for the claim once more.  NGX_OK: run->op is the answer; NGX_AGAIN:
 * decide() will be called again, with it; NGX_ERROR: no memory.
 */
ngx_int_t ngx_http_coord_run_again(ngx_http_coord_idempotency_t *run);


/* --- ngx_http_coord_idempotency_set.c --- */

/*
 * Setters of commands, as ngx_conf_set_str_slot() is one.  _names: an array of
 * field names at cmd->offset, which may be given more than once.
 */
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
char *ngx_http_coord_idempotency_check_value(ngx_conf_t *cf,
    ngx_command_t *cmd, void *conf);
char *ngx_http_coord_idempotency_names(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);


/* --- ngx_http_coord_idempotency_api.c: routes of coord_api --- */

extern const ngx_http_coord_route_t  ngx_http_coord_idempotency_routes[];


#endif /* _NGX_HTTP_COORD_IDEMPOTENCY_H_INCLUDED_ */
