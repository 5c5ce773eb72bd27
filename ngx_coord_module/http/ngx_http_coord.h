
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The private umbrella of the HTTP layer: what a feature file includes.
 *
 * A request walks its features in two stages.  In each stage every feature
 * first says what it wants to know (begin), the stores are asked once, in one
 * batch each, and then every feature decides (decide), in the order of the
 * stage.  The first that refuses ends the walk: what the others were granted
 * in this stage is given back (undo).
 */


#ifndef _NGX_HTTP_COORD_H_INCLUDED_
#define _NGX_HTTP_COORD_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>
#include "ngx_coord_store.h"
#include "ngx_coord_store_metrics.h"
#include "ngx_http_coord_hold.h"


typedef struct ngx_http_coord_ctx_s      ngx_http_coord_ctx_t;
typedef struct ngx_http_coord_feature_s  ngx_http_coord_feature_t;
typedef struct ngx_http_coord_route_s    ngx_http_coord_route_t;


/*
 * PREACCESS: limits, also for subrequests, as limit_req and limit_conn.
 * PRECONTENT: what is scoped to an identity, and limits of the authorized,
 * after the access phase; main requests only, but for the values of a supply.
 */
typedef enum {
    NGX_HTTP_COORD_PREACCESS = 0,
    NGX_HTTP_COORD_PRECONTENT,
    NGX_HTTP_COORD_STAGES
} ngx_http_coord_stage_e;


/* names one operation of the running stage; see ngx_http_coord_op() */
typedef struct {
    uint16_t                   batch;
    uint16_t                   op;
} ngx_http_coord_ref_t;


/*
 * What a feature does in a stage.
 *
 * order: who decides first in the stage, the lower the earlier; the features
 *     of this source are told in docs/architecture.md.
 * begin: adds operations with ngx_http_coord_add().  NGX_OK: decide() is to
 *     be called; NGX_DECLINED: nothing to do for this request; NGX_AGAIN:
 *     called again after ngx_http_coord_resume(); NGX_DONE: the feature reads
 *     the request body and runs the phases again itself; a status: refused
 *     already, as by decide(); NGX_ERROR: 500.  NULL: the feature is not in
 *     this stage.
 * decide: NGX_DECLINED: the request may go on; NGX_AGAIN: called again after
 *     ngx_http_coord_resume(); a status ends the walk: ngx_http_coord_refuse()
 *     gives one, and ctx->respond may be set to send a response with it.
 *     Results are read with ngx_http_coord_op() and are gone afterwards.
 * undo: gives back what the last decide() kept, because a feature behind it
 *     refused the request.  What a feature was granted before it could decide
 *     is given back by the walk.  May be NULL.  state: that of its slot.
 * flags: ANSWERS: decide() may answer the request from what is stored;
 *     LATE: not asked before such a one has decided, as what is asked is
 *     taken, and a stored answer takes nothing;
 *     FIRST: evaluates what the others may be in need of, which begin when
 *     that is there;
 *     HOLDS: may call ngx_http_coord_awaits().
 */
typedef struct {
    ngx_uint_t                 order;

    ngx_int_t                (*begin)(ngx_http_request_t *r,
                                      ngx_http_coord_ctx_t *ctx);
    ngx_int_t                (*decide)(ngx_http_request_t *r,
                                       ngx_http_coord_ctx_t *ctx);
    void                     (*undo)(ngx_http_coord_ctx_t *ctx, void *state);
    ngx_uint_t                 flags;
} ngx_http_coord_step_t;


#define NGX_HTTP_COORD_STEP_ANSWERS  0x0001
#define NGX_HTTP_COORD_STEP_LATE     0x0002
#define NGX_HTTP_COORD_STEP_FIRST    0x0004
#define NGX_HTTP_COORD_STEP_HOLDS    0x0008

#define ngx_http_coord_no_step       { 0, NULL, NULL, NULL, 0 }


/*
 * All that a feature is; static, registered by ngx_http_coord_feature_add().
 *
 * end: the request is over, whatever ended it; called once for each request
 *     in which a begin() returned NGX_OK or NGX_AGAIN.  A walk that was still
 *     waiting has been cancelled.  May be NULL.
 * variables: up to ngx_http_null_variable; may be NULL.
 * routes: of coord_api, up to one without a name; may be NULL.
 * slot: where ctx->state has the feature's own, and its bit; it is given at
 *     registration.
 */
struct ngx_http_coord_feature_s {
    ngx_coord_kind_t               kind;
    ngx_http_coord_step_t          steps[NGX_HTTP_COORD_STAGES];
    void                         (*end)(ngx_http_coord_ctx_t *ctx,
                                        void *state);
    ngx_http_variable_t           *variables;
    const ngx_http_coord_route_t  *routes;
    ngx_uint_t                     slot;
};


/*
 * Who has values that the features evaluate in begin() and that may have to be
 * fetched before, for the content of subrequests as well.
 *
 * feature: who begins for these alone; decides nothing.
 * ready: no walk is under way, and the stage behind the access phase would
 *     begin; returns bits, 1 << slot, of who needs not to begin, as what it
 *     would have fetched is at hand.
 * open: the features begin; what they evaluate from now on is void if
 *     something is missing.  NGX_ERROR: no memory.
 * fetch: something was missing (ctx->missing), nothing of this stage has been
 *     asked.  NGX_OK: it is there now; NGX_AGAIN: ngx_http_coord_resume()
 *     follows; then all features begin anew.  NGX_ERROR: 500.
 */
typedef struct {
    ngx_http_coord_feature_t  *feature;
    ngx_uint_t               (*ready)(ngx_http_request_t *r);
    ngx_int_t                (*open)(ngx_http_request_t *r,
                                     ngx_http_coord_ctx_t *ctx);
    ngx_int_t                (*fetch)(ngx_http_request_t *r,
                                      ngx_http_coord_ctx_t *ctx);
} ngx_http_coord_supply_t;


/* what a stage had before its features began */
typedef struct {
    ngx_uint_t                 decided;
    ngx_uint_t                 nreports;
    time_t                     retry_after;
} ngx_http_coord_mark_t;


/* a policy as the RateLimit-Policy field has told it first; mostly it stays */
typedef struct {
    ngx_uint_t                 quota;
    time_t                     window;
    ngx_str_t                  text;          /* empty: not told yet */
} ngx_http_coord_told_t;


/* one limit as the RateLimit fields tell it */
typedef struct {
    ngx_str_t                  policy;        /* zone name */
    ngx_http_coord_told_t     *told;          /* of the limit, or NULL */
    ngx_uint_t                 quota;         /* q */
    time_t                     window;        /* w, seconds; 0: none */
    ngx_uint_t                 remaining;     /* r */
    time_t                     reset;         /* t, seconds */
    ngx_uint_t                 taken;         /* by the request, not of r */
    time_t                     untaken;       /* t without that */
    ngx_uint_t                 current;       /* requests at a time */
    ngx_coord_source_e         source;
    unsigned                   connections:1; /* qu="concurrent-requests" */
    unsigned                   bytes:1;       /* qu="content-bytes" */
    unsigned                   refused:1;
    unsigned                   never:1;       /* refused, whenever it comes */
} ngx_http_coord_report_t;


typedef enum {
    NGX_HTTP_COORD_WALK_IDLE = 0,
    NGX_HTTP_COORD_WALK_BEGIN,
    NGX_HTTP_COORD_WALK_ASKED,                /* batches are in flight */
    NGX_HTTP_COORD_WALK_DECIDE
} ngx_http_coord_walk_e;


/*
 * Sends a response and returns what ngx_http_finalize_request() takes; runs
 * last in the walk, when everything has been given back.
 */
typedef ngx_int_t (*ngx_http_coord_respond_pt)(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx);


/* the state of a client request: one for the main request and all others */
struct ngx_http_coord_ctx_s {
    ngx_http_request_t        *request;       /* that walks, main or sub */
    ngx_http_coord_walk_e      walk;
    ngx_http_coord_stage_e     stage;
    ngx_uint_t                 next;          /* step of the stage */
    ngx_uint_t                 slot;          /* of whom is at it */

    /* bits: 1 << slot */
    ngx_uint_t                 begun;         /* in this stage: to decide */
    ngx_uint_t                 deciding;      /* decide() returned AGAIN */
    ngx_uint_t                 passed;        /* in this stage: decided */
    ngx_uint_t                 ending;        /* end() is due */

    /* once per client request */
    ngx_uint_t                 decided[NGX_HTTP_COORD_STAGES];

    ngx_array_t                batches;       /* of ngx_coord_batch_t * */
    ngx_uint_t                 in_flight;
    uint64_t                   silent;        /* bits: 1 << store->number */
    ngx_msec_t                 silent_since;

    void                     **state;         /* by slot: the features' */

    ngx_http_coord_respond_pt  respond;
    ngx_uint_t                 status;        /* of a refusal */
    ngx_str_t                  document;

    ngx_array_t                reports;       /* ngx_http_coord_report_t */
    ngx_uint_t                 limit_headers;
    time_t                     retry_after;   /* seconds; 0: no field */
    ngx_array_t               *fields;        /* of ngx_keyval_t, to add */
    ngx_http_coord_mark_t      mark;

    ngx_uint_t                 awaited;       /* see hold_filter.c */
    ngx_http_coord_hold_t      hold;

    unsigned                   waiting:1;     /* out of the phases */
    unsigned                   again:1;       /* others are yet to begin */
    unsigned                   missing:1;     /* values: see the supply */
    unsigned                   behind:1;      /* the client request waits */
    unsigned                   headers_done:1;

    ngx_pool_cleanup_t         marker;        /* finds it after a redirect */
    ngx_http_cleanup_t         cleanup;

    /* where batches begin; the states, and the first reports, stand behind */
    ngx_coord_batch_t         *first_batch;
};


typedef struct {
    ngx_array_t                stores;        /* of ngx_coord_store_t * */
    ngx_array_t                zones;         /* ngx_http_coord_zone_conf_t */
    ngx_array_t                variables;     /* ngx_http_variable_t *, ours */
    ngx_coord_store_t         *local;         /* the built-in memory store */
    ngx_coord_metrics_t        metrics;
    ngx_array_t                features;      /* by slot: pointers */
    ngx_array_t                steps[NGX_HTTP_COORD_STAGES];   /* in order */
    ngx_uint_t                 answers[NGX_HTTP_COORD_STAGES]; /* bits */
    ngx_uint_t                 used;          /* bits: 1 << slot, anywhere */
    ngx_uint_t                 holds;         /* bits: responses may wait */
    const ngx_http_coord_supply_t  *supply;   /* NULL: none */
} ngx_http_coord_main_conf_t;


/*
 * Limits of one feature in one place: what one request asks is one transaction
 * whose replies have to fit into NGX_COORD_RESP_MAX_ELEMENTS.
 */
#define NGX_HTTP_COORD_LIMITS_MAX      16

#define NGX_HTTP_COORD_HEADERS_OFF     0
#define NGX_HTTP_COORD_HEADERS_DRAFT   1
#define NGX_HTTP_COORD_HEADERS_LEGACY  2


typedef struct ngx_http_coord_loc_conf_s  ngx_http_coord_loc_conf_t;

struct ngx_http_coord_loc_conf_s {
    ngx_http_coord_loc_conf_t  *outer;        /* of an "if"; NULL: none */
    ngx_uint_t                  features[NGX_HTTP_COORD_STAGES];  /* bits */
    ngx_uint_t                  on_failure;
    ngx_uint_t                  limit_headers;
    ngx_uint_t                  net;          /* bits of coord_client_net */
    ngx_uint_t                  net6;
    unsigned                    exempt:1;     /* from what is inherited */
    unsigned                    body:1;       /* "after_body" is used */
};


extern ngx_module_t            ngx_http_coord_module;
extern ngx_module_t            ngx_http_coord_filter_module;
extern const ngx_str_t         ngx_coord_source_names[];


/* --- ngx_http_coord_module.c --- */

/*
 * For a feature's preconfiguration: gives it a slot and a place in its stages,
 * and defines its variables.  NGX_ERROR: logged.
 */
ngx_int_t ngx_http_coord_feature_add(ngx_conf_t *cf,
    ngx_http_coord_feature_t *feature);

/*
 * For a feature's merge_loc_conf: the location being merged uses it there.
 * What is only inherited does not limit a location with coord_status,
 * coord_health or coord_api; its "if" has its lines.
 */
void ngx_http_coord_feature_enable(ngx_conf_t *cf,
    ngx_http_coord_feature_t *feature, ngx_http_coord_stage_e stage,
    ngx_uint_t inherited);

/*
 * For the same: the body is read, and $request_body holds it, before any
 * feature of the stage behind the access phase begins.
 */
void ngx_http_coord_feature_body(ngx_conf_t *cf, ngx_uint_t inherited);

/* for the directive of such a location */
void ngx_http_coord_exempt(ngx_conf_t *cf);

/* 1 if the location being merged is such a one */
ngx_uint_t ngx_http_coord_is_exempt(ngx_conf_t *cf);

/*
 * For a postconfiguration: a handler that runs before the others of its phase
 * that are there, or behind all of them (last), whenever and from wherever
 * their modules were loaded.  NGX_ERROR: no memory.
 */
ngx_int_t ngx_http_coord_phase_handler(ngx_conf_t *cf, ngx_http_phases phase,
    ngx_http_handler_pt handler, ngx_uint_t last);


/* --- ngx_http_coord_walk.c: the walk --- */

ngx_int_t ngx_http_coord_preaccess_handler(ngx_http_request_t *r);
ngx_int_t ngx_http_coord_precontent_handler(ngx_http_request_t *r);

/*
 * Continues the walk of a request whose begin() or decide() returned
 * NGX_AGAIN.  Only from a posted event or a timer, never from a feature's own
 * begin() or decide(); the request may be gone when this returns.
 */
void ngx_http_coord_resume(ngx_http_coord_ctx_t *ctx);


/* --- ngx_http_coord_ctx.c: the state of a client request --- */

/*
 * The state of a main request whose contexts an internal redirect has wiped;
 * NULL: there is none.
 */
ngx_http_coord_ctx_t *ngx_http_coord_find_ctx(ngx_http_request_t *r);

/*
 * The state of the client request that r belongs to, found also after an
 * internal redirect; NULL: no feature has looked at it yet.
 */

static ngx_inline ngx_http_coord_ctx_t *
ngx_http_coord_get_ctx(ngx_http_request_t *r)
{
    ngx_http_coord_ctx_t  *ctx;

    r = r->main;

    ctx = ngx_http_get_module_ctx(r, ngx_http_coord_module);

    if (ctx || !(r->internal || r->filter_finalize)) {
        return ctx;
    }

    return ngx_http_coord_find_ctx(r);
}


/* the same, created if there is none; NULL: no memory */
ngx_http_coord_ctx_t *ngx_http_coord_ctx(ngx_http_request_t *r);

/*
 * Adds an operation on key in zone to what this stage asks, and tells where
 * its result will be.  The key is the client's: it is encoded here, as digest
 * if secret is set.  on_failure NGX_CONF_UNSET_UINT: the location's.  The
 * returned pointer is valid until the next call.  NULL: no memory.
 */
ngx_coord_op_t *ngx_http_coord_add(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx, const ngx_coord_op_type_t *type,
    ngx_coord_zone_t *zone, ngx_str_t *key, ngx_uint_t secret,
    ngx_uint_t on_failure, ngx_http_coord_ref_t *ref);

/* the same with a key that is encoded already */
ngx_coord_op_t *ngx_http_coord_add_encoded(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx, const ngx_coord_op_type_t *type,
    ngx_coord_zone_t *zone, u_char *key, size_t len, ngx_uint_t on_failure,
    ngx_http_coord_ref_t *ref);

/*
 * Makes op, zeroed or used for this before, the operation on key in zone that
 * nobody asks, as its result, rc, stands: to be counted and logged as the
 * others.  NGX_ERROR: OpenSSL failed.
 */
ngx_int_t ngx_http_coord_known(ngx_http_request_t *r, ngx_coord_op_t *op,
    ngx_coord_zone_t *zone, ngx_str_t *key, ngx_uint_t on_failure,
    ngx_int_t rc);

/*
 * As ngx_http_complex_value(), without a copy of what is only a variable: the
 * bytes are those of the variable, and as good as long as these are.
 * NGX_ERROR: no memory.
 */
ngx_int_t ngx_http_coord_value(ngx_http_request_t *r,
    ngx_http_complex_value_t *cv, ngx_str_t *value);

/*
 * The key of a request in a zone; empty: the feature is not for it.  Warns
 * once of a key that is the name of a variable.  NGX_ERROR: no memory.
 */
ngx_int_t ngx_http_coord_zone_key(ngx_http_request_t *r,
    ngx_coord_zone_t *zone, ngx_http_complex_value_t *cv, ngx_str_t *key);

/* an operation of the running stage, in decide() with its result */
#define ngx_http_coord_op(ctx, ref)                                           \
    (&((ngx_coord_batch_t **) (ctx)->batches.elts)[(ref).batch]->ops[(ref).op])


/*
 * For a begin() that has its answer without a decide(): it is not called once
 * more where an internal redirect, such as that of an error page, leads to.
 */
#define ngx_http_coord_settled(ctx)                                           \
    (ctx)->decided[(ctx)->stage] |= 1 << (ctx)->slot

/*
 * Gives back what the stage was granted for features that did not come to
 * decide.
 */
void ngx_http_coord_undo_begun(ngx_http_coord_ctx_t *ctx);

/*
 * A client request waits once for a store that gives no answer: while the
 * breaker of a store would be open after that, nothing more is asked for it.
 * is_silent: 1 if it is not to be asked, for batch->silent.  answered: for the
 * handler of such a batch.  silence: a store had no answer in time.
 */
void ngx_http_coord_batch_answered(ngx_http_coord_ctx_t *ctx,
    ngx_coord_batch_t *batch);
void ngx_http_coord_silence(ngx_http_coord_ctx_t *ctx,
    ngx_coord_store_t *store);
ngx_uint_t ngx_http_coord_is_silent(ngx_http_coord_ctx_t *ctx,
    ngx_coord_store_t *store);

/*
 * Another request of the same client request is being decided.  A subrequest
 * goes on without (NGX_DECLINED); the client request, which an internal
 * redirect has brought here beside its mirrored copy, waits (NGX_AGAIN).
 */
ngx_int_t ngx_http_coord_behind(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx);

/* a stage is decided: the client request goes on; rc, or NGX_ERROR */
ngx_int_t ngx_http_coord_behind_goes(ngx_http_coord_ctx_t *ctx, ngx_int_t rc);

/*
 * Ends the batches of the stage; what is granted late is given back, and where
 * the request is refused so is what is counted late.
 */
void ngx_http_coord_drop_batches(ngx_http_coord_ctx_t *ctx,
    ngx_uint_t refused);


/* --- ngx_http_coord_hold_filter.c: a filter, a module of its own --- */

/*
 * The response of the client request, if its header has not left yet, is kept
 * back until ngx_http_coord_certain() was called as often as this was.  For a
 * feature with a step that HOLDS, in a header filter at the latest.
 */
void ngx_http_coord_awaits(ngx_http_coord_ctx_t *ctx);

/*
 * What was awaited is certain, or nobody waits for it any more.  Only from a
 * posted event or a timer, unless nothing is kept back so far; the request may
 * be gone when this returns.
 */
void ngx_http_coord_certain(ngx_http_coord_ctx_t *ctx);


/* --- ngx_http_coord_take.c --- */

/*
 * The response of r, a subrequest in the background whose header has come, is
 * taken from its upstream as it comes, and can be ended on its way, where the
 * upstream has a pipe.  For a header filter.  NGX_ERROR: no memory.
 */
ngx_int_t ngx_http_coord_take(ngx_http_request_t *r);


/* --- ngx_http_coord_answer.c: what the client sees --- */

typedef struct {
    ngx_uint_t                 status;
    ngx_str_t                  type;          /* problem type, a URI */
    ngx_str_t                  title;
    ngx_str_t                  detail;
    ngx_str_t                  code;          /* member "code" if not empty */
    ngx_str_t                  members;       /* more JSON, from "," on */
    time_t                     retry_after;   /* seconds; 0: no field */
} ngx_http_coord_problem_t;

/*
 * Has the walk answer with a problem document (RFC 9457), or leaves that to
 * error_page where one covers the status.  Strings are not copied and must
 * live in r->pool or longer.  Returns what decide() has to return.
 */
ngx_int_t ngx_http_coord_refuse(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx, ngx_http_coord_problem_t *problem);

/* the document of a problem, made in a pool; NGX_ERROR: no memory */
ngx_int_t ngx_http_coord_document(ngx_pool_t *pool,
    ngx_http_coord_problem_t *problem, ngx_str_t *document);

/* refuses as ngx_http_coord_refuse() does, where there is a document already */
ngx_int_t ngx_http_coord_refuse_by(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx, ngx_uint_t status, time_t retry_after,
    ngx_str_t *document);

/* refuses with 503 because a store has no answer: on_failure=closed */
ngx_int_t ngx_http_coord_refuse_unavailable(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx);

/*
 * Sends a problem document; for content handlers, after the body of the
 * request was read or discarded.  Returns what a content handler returns.
 */
ngx_int_t ngx_http_coord_problem(ngx_http_request_t *r,
    ngx_http_coord_problem_t *problem);

/*
 * Of the n reports from the first one on: the one that refused, and does so
 * longest, or else is nearest to; a rate goes before a number of connections.
 * NULL: n is 0.
 */
ngx_http_coord_report_t *ngx_http_coord_tightest(ngx_http_coord_ctx_t *ctx,
    ngx_uint_t first, ngx_uint_t n);

/* a response field that survives internal redirects; NGX_ERROR: no memory */
ngx_int_t ngx_http_coord_field(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx, ngx_str_t *name, ngx_str_t *value);


/* --- ngx_http_coord_log.c: the log line of a decision --- */

typedef struct {
    ngx_coord_op_t            *op;            /* key, store; NULL: none */
    ngx_coord_outcome_e        outcome;
    ngx_msec_t                 wait;          /* 0: none */
    const char                *why;           /* if op has no reason; NULL */
    ngx_coord_log_limit_t     *limit;         /* of lines like this; NULL */
    ngx_uint_t                 requests;      /* set by ngx_http_coord_log() */
} ngx_http_coord_log_fields_t;

#define ngx_http_coord_log(r, level, ...)                                     \
    if ((r)->connection->log->log_level >= (level))                           \
        ngx_http_coord_log_core(r, level, __VA_ARGS__)

/*
 * Writes a line at its level, if that is logged: the text, what nginx appends
 * to it, and behind that ", key: 1a2b3c4d, outcome: REJECTED, store: main
 * (redis)".  The text is that of the stock directive, where there is one.  What
 * has a limit is told once a second, with the number of requests; so is what
 * has no answer, by zone.  Call it as ngx_http_coord_log().
 */
ngx_coord_cold void ngx_http_coord_log_core(ngx_http_request_t *r,
    ngx_uint_t level, ngx_http_coord_log_fields_t *fields, const char *fmt,
    ...);


#endif /* _NGX_HTTP_COORD_H_INCLUDED_ */
