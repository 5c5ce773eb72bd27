
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Inside coord_session: what is known of the session of a request, and what
 * is asked of the store.
 *
 *   _op.c    operations on a session and on the index of a user
 *   _keep.c  what this node remembers, and what the store is told
 *   _known.c what this worker has just read
 *   _ask.c   what is asked before the decision, and the answers
 *   _pass.c  what becomes of a request that goes on
 *   _response.c  what the response tells, and its header that waits for that
 *   _why.c   why it is refused, and the line for it
 *   _cut.c   what becomes of a request whose session ends
 */


#ifndef _NGX_HTTP_COORD_SESSION_STATE_H_INCLUDED_
#define _NGX_HTTP_COORD_SESSION_STATE_H_INCLUDED_


#include "ngx_http_coord.h"
#include "ngx_http_coord_session.h"
#include "ngx_coord_session_step.h"
#include "ngx_coord_timer.h"


/* the life is slid when this part of it has passed */
#define NGX_HTTP_COORD_SESSION_SLIDE   60


typedef struct ngx_http_coord_session_watch_s  ngx_http_coord_session_watch_t;


/* a user as evaluated: the text, and its encoded form */
typedef struct {
    ngx_str_t                         text;
    size_t                            len;
    u_char                            key[NGX_COORD_DIGEST_HEX_LEN];
} ngx_http_coord_session_user_t;


/* an operation of the running round; op: NGX_HTTP_COORD_SESSION_UNASKED */
#define NGX_HTTP_COORD_SESSION_UNASKED  0xffff


struct ngx_http_coord_session_state_s {
    ngx_http_coord_ctx_t             *ctx;
    ngx_http_coord_session_conf_t    *conf;
    ngx_http_coord_session_use_t     *use;
    ngx_uint_t                        on_failure;

    ngx_str_t                         text;      /* the key as evaluated */
    u_char                            key[NGX_COORD_DIGEST_HEX_LEN];
    u_char                            id[NGX_COORD_ID_LEN];

    ngx_coord_session_t               record;    /* as the store told */
    ngx_coord_nsec_t                  read_at;   /* monotonic */
    ngx_str_t                         value;     /* of the record */
    ngx_coord_source_e                source;
    ngx_coord_fail_e                  failure;   /* the store had no answer */

    ngx_http_coord_session_user_t     hint;      /* who is asked first */
    ngx_http_coord_session_user_t     user;      /* after the access phase */
    ngx_str_t                         bind;

    ngx_http_coord_ref_t              get;       /* GET or BIND */
    ngx_http_coord_ref_t              check;
    ngx_http_coord_ref_t              add;
    ngx_coord_batch_t                *batch;     /* a round of our own */

    ngx_coord_session_step_e          step;
    ngx_coord_outcome_e               outcome;   /* as the variable says */

    ngx_coord_timer_t                 timer;     /* while it is in use */
    ngx_http_coord_session_watch_t   *watch;     /* NULL: it is not cut */

    /* of one that the response names, or moves to another id */
    ngx_http_coord_session_state_t   *from;      /* to be ended; NULL: none */
    ngx_str_t                         next;      /* id for the client */
    ngx_coord_nsec_t                  carried;   /* age of the old one */
    unsigned                          named:1;

    unsigned                          seated:1;  /* its user has a place */
    int64_t                           seated_at; /* over=reject: us, since */
};


/* --- ngx_http_coord_session_op.c --- */

/*
 * Goes to a step.  NGX_ERROR: it cannot follow; that is an error of this
 * module, and is logged.
 */
ngx_int_t ngx_http_coord_session_step(ngx_http_coord_session_state_t *state,
    ngx_coord_session_step_e to);

/*
 * For how long requests are still on their way with an ended session that lives
 * on under another id; 0: they are not, or it does not.
 */
ngx_coord_nsec_t ngx_http_coord_session_flight(
    ngx_http_coord_session_zone_t *sz, ngx_coord_session_t *session);

/*
 * Names the session: its digest and id from the text of its key.  NGX_ERROR:
 * OpenSSL failed.
 */
ngx_int_t ngx_http_coord_session_name(ngx_http_coord_session_state_t *state,
    ngx_str_t *text);

/* the digest of a user's text; an empty one: no user */
ngx_int_t ngx_http_coord_session_user_key(ngx_http_coord_session_user_t *user);

/*
 * The value of a complex value as it may be bound: one that is long, or that
 * could not stand in a header field, stands as its digest.
 */
ngx_int_t ngx_http_coord_session_value(ngx_http_request_t *r,
    ngx_http_complex_value_t *cv, ngx_str_t *value);

/* the age of the session by now */
ngx_coord_nsec_t ngx_http_coord_session_age(
    ngx_http_coord_session_state_t *state);

/* 1 if the session is past its absolute life */
ngx_uint_t ngx_http_coord_session_expired(
    ngx_http_coord_session_state_t *state);

/*
 * How long the record of the session is to stand from now on: as long as the
 * session lives when it is not used any more, and one that its absolute life
 * ends is remembered as such.
 */
ngx_coord_nsec_t ngx_http_coord_session_life(
    ngx_http_coord_session_state_t *state);

/*
 * Operations on the session, or on the index of a user, in the batch of the
 * state, or where it has none in what the stage asks (r and the stage are not
 * looked at otherwise).  NULL: no memory.
 */
ngx_coord_op_t *ngx_http_coord_session_op(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state, const ngx_coord_op_type_t *type,
    ngx_http_coord_ref_t *ref);
ngx_coord_op_t *ngx_http_coord_session_user_op(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state, const ngx_coord_op_type_t *type,
    u_char *user, size_t len, ngx_http_coord_ref_t *ref);

/* the operation of the round that was added with ref; NULL: none was */
ngx_coord_op_t *ngx_http_coord_session_result(
    ngx_http_coord_session_state_t *state, ngx_http_coord_ref_t ref);

/* gives an operation a value to bind; an empty one: none */
ngx_int_t ngx_http_coord_session_op_value(ngx_coord_op_t *op,
    ngx_str_t *value);

/* gives it the user of the request to write */
void ngx_http_coord_session_op_user(ngx_coord_op_t *op,
    ngx_http_coord_session_state_t *state);

/* has the session in the index of the user of its record live on as well */
ngx_int_t ngx_http_coord_session_op_seen(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state);

/* copies an answer to GET or BIND into the state; NGX_ERROR: no memory */
ngx_int_t ngx_http_coord_session_record(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state, ngx_coord_op_t *op);

/* 1 if the request brings another value, or another user, than is bound */
ngx_uint_t ngx_http_coord_session_differs(
    ngx_http_coord_session_state_t *state);
ngx_uint_t ngx_http_coord_session_other_user(
    ngx_http_coord_session_state_t *state);


/* --- ngx_http_coord_session_why.c --- */

/* why a session is refused */
typedef enum {
    NGX_HTTP_COORD_SESSION_MISSING = 0,
    NGX_HTTP_COORD_SESSION_UNKNOWN,
    NGX_HTTP_COORD_SESSION_MISMATCH,
    NGX_HTTP_COORD_SESSION_ENDED,
    NGX_HTTP_COORD_SESSION_TOO_MANY,
    NGX_HTTP_COORD_SESSION_NO_ANSWER,
    NGX_HTTP_COORD_SESSION_CUT
} ngx_http_coord_session_why_e;

/* a row of ngx_http_coord_session_whys[] */
typedef struct {
    ngx_str_t                         code;      /* of the problem document */
    ngx_str_t                         what;      /* in the log */
    ngx_coord_outcome_e               refused;   /* for the metrics */
    ngx_coord_outcome_e               dry_run;
} ngx_http_coord_session_reason_t;


extern const ngx_http_coord_session_reason_t  ngx_http_coord_session_whys[];


/* the line for it, at the level of the location */
void ngx_http_coord_session_log(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state, ngx_http_coord_session_why_e why);


/* --- ngx_http_coord_session.c --- */

/*
 * The state of a session of a client request, in place of the one that it may
 * have; NULL: no memory.
 */
ngx_http_coord_session_state_t *ngx_http_coord_session_create(
    ngx_http_request_t *r, ngx_http_coord_ctx_t *ctx,
    ngx_http_coord_session_conf_t *scf);

/*
 * Evaluates who the client is, and what his session is to be bound to.
 * NGX_ERROR: no memory, or OpenSSL failed.
 */
ngx_int_t ngx_http_coord_session_identity(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state);


/* --- ngx_http_coord_session_known.c --- */

/* notes the record of a session in use, behind ngx_http_coord_session_keep() */
void ngx_http_coord_session_note(ngx_http_coord_session_state_t *state);

/* 1 if it was noted by this worker, and its life needs not to be asked for */
ngx_uint_t ngx_http_coord_session_known(
    ngx_http_coord_session_state_t *state);

/*
 * 1 if the record that was read is the one that was noted: nothing of it is to
 * be kept, and its life is at least the one that was known.
 */
ngx_uint_t ngx_http_coord_session_unchanged(
    ngx_http_coord_session_state_t *state);


/* --- ngx_http_coord_session_keep.c --- */

/* whose session it was when this node saw it last, into state->hint */
void ngx_http_coord_session_remember(ngx_http_coord_session_state_t *state);

/*
 * This node remembers what Redis said; of a session that Redis does not have
 * and this node knows to be ended, the record tells that from now on; of one
 * that Redis did not take it tells that: unsent.
 */
void ngx_http_coord_session_keep(ngx_http_coord_session_state_t *state);

/*
 * Sends the session once more, which the store did not take and does not have
 * (unsent of the record): the record is that of this node from now on.  If the
 * store does not take it again the next request does so.  NGX_ERROR: no memory.
 */
ngx_int_t ngx_http_coord_session_resend(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state);

/* tells the store that the session is used, if that is news */
void ngx_http_coord_session_touch(ngx_http_coord_session_state_t *state);

/* has the store bind, or rebind, the session to a value; nobody waits */
void ngx_http_coord_session_write(ngx_http_coord_session_state_t *state,
    ngx_str_t *value);

/* takes the session from the index of the request's user; nobody waits */
void ngx_http_coord_session_withdraw(ngx_http_coord_session_state_t *state);

/* gives its seat back, unless it has been bound since; nobody waits */
void ngx_http_coord_session_unseat(ngx_http_coord_session_state_t *state);

/*
 * Has the store remember that the session has ended, until it does; nobody
 * waits.
 */
void ngx_http_coord_session_mark(ngx_http_coord_session_state_t *state);

/*
 * The same of one that lives on under another id; it is not one of its user's
 * any more.
 */
void ngx_http_coord_session_mark_moved(ngx_http_coord_session_state_t *state);

/* the same for n sessions that an index of the zone gave up */
void ngx_http_coord_session_mark_all(ngx_coord_zone_t *zone,
    ngx_coord_session_item_t *items, ngx_uint_t n);

/*
 * The session as this node remembers it, or as it makes it where that is what
 * the failure policy says.  NGX_DECLINED: nothing is known of it.
 */
ngx_int_t ngx_http_coord_session_recall(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state);


/* --- ngx_http_coord_session_ask.c --- */

/* 1 if the store has to be asked, or told, before the decision */
ngx_uint_t ngx_http_coord_session_pending(
    ngx_http_coord_session_state_t *state);

/*
 * Adds what is to be asked to the batch of the state, or where it has none to
 * what the stage asks.  NGX_ERROR: no memory.
 */
ngx_int_t ngx_http_coord_session_ask(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state);

/*
 * Adds what is to be bound to the batch of the state, or, where the places of
 * a user are numbered, the question for one: the session is KNOWN or SEATED.
 * NGX_ERROR: no memory.
 */
ngx_int_t ngx_http_coord_session_tell(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state);

/*
 * The same for the value alone, which is set whatever stands: the session is
 * WRITTEN.
 */
ngx_int_t ngx_http_coord_session_correct(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state);

/* takes the answers, if any were asked for; NGX_ERROR: no memory */
ngx_int_t ngx_http_coord_session_take(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state);


/* --- ngx_http_coord_session_pass.c --- */

/* the request goes on, and its session is used; returns NGX_DECLINED */
ngx_int_t ngx_http_coord_session_pass(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state);

/* 1 if it does */
ngx_uint_t ngx_http_coord_session_passed(
    ngx_http_coord_session_state_t *state);

/*
 * The value that the response tells, without asking whether it is to be
 * learned: that of learn=, and of several peers the last one.  Empty: none, or
 * no peer has answered.  NGX_ERROR: no memory, or OpenSSL failed.
 */
ngx_int_t ngx_http_coord_session_taught(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state, ngx_str_t *value);

/* learns a value from the response if that is due; nobody waits */
void ngx_http_coord_session_learn(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state);


/* --- ngx_http_coord_session_cut.c --- */

/*
 * Has r, a main request that goes on, cut when its session ends, if the
 * location says so.
 */
void ngx_http_coord_session_watch(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state);

/* ends that; does nothing if there is nothing to end */
void ngx_http_coord_session_unwatch(ngx_http_coord_session_state_t *state);


#endif /* _NGX_HTTP_COORD_SESSION_STATE_H_INCLUDED_ */
