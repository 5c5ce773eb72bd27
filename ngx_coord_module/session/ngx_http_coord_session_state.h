
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Inside coord_session: what is known of the session of a request, and what
 * is asked of the store.
 */


#ifndef _NGX_HTTP_COORD_SESSION_STATE_H_INCLUDED_
#define _NGX_HTTP_COORD_SESSION_STATE_H_INCLUDED_


#include "ngx_http_coord.h"
#include "ngx_http_coord_session.h"


/* what has to be asked next */
typedef enum {
    NGX_HTTP_COORD_SESSION_NOTHING = 0,
    NGX_HTTP_COORD_SESSION_GET,
    NGX_HTTP_COORD_SESSION_CHECK,
    NGX_HTTP_COORD_SESSION_WRITE
} ngx_http_coord_session_need_e;


/* a user as evaluated: the text, and its encoded form */
typedef struct {
    ngx_str_t                         text;
    size_t                            len;
    u_char                            key[NGX_COORD_DIGEST_HEX_LEN];
} ngx_http_coord_session_user_t;


struct ngx_http_coord_session_state_s {
    ngx_http_coord_ctx_t             *ctx;
    ngx_http_coord_session_conf_t    *conf;
    ngx_http_coord_session_use_t     *use;
    ngx_uint_t                        on_failure;

    ngx_str_t                         text;      /* the key as evaluated */
    u_char                            key[NGX_COORD_DIGEST_HEX_LEN];
    u_char                            id[NGX_COORD_ID_LEN];

    ngx_coord_session_t               record;    /* as the store told */
    ngx_str_t                         value;     /* of the record */
    ngx_coord_source_e                source;
    ngx_coord_fail_e                  failure;

    ngx_http_coord_session_user_t     hint;      /* who was checked first */
    ngx_http_coord_session_user_t     user;      /* after the access phase */
    ngx_str_t                         bind;

    ngx_http_coord_session_need_e     need;      /* is being asked */
    ngx_http_coord_ref_t              get;       /* GET or BIND */
    ngx_http_coord_ref_t              check;
    ngx_coord_batch_t                *batch;     /* a round of our own */

    ngx_http_coord_session_status_e   status;

    unsigned                          has_get:1;
    unsigned                          has_check:1;
    unsigned                          waiting:1; /* for batch */
    unsigned                          known:1;   /* record is valid */
    unsigned                          checked:1; /* its user was asked */
    unsigned                          ended:1;   /* and does not have it */
    unsigned                          wrote:1;
    unsigned                          differs:1; /* bind did, before SET */
    unsigned                          failed:1;  /* the store has no answer */
    unsigned                          learned:1;
    unsigned                          relearn:1;
};


/* 1 if the value to bind is not the one that is bound */
#define ngx_http_coord_session_differs(state)                                 \
    ((state)->record.bound && (state)->bind.len                               \
     && ((state)->bind.len != (state)->value.len                              \
         || ngx_memcmp((state)->bind.data, (state)->value.data,               \
                       (state)->bind.len) != 0))


/* --- ngx_http_coord_session_ask.c --- */

/*
 * Names the session: its digest and id from the text of its key.  NGX_ERROR:
 * OpenSSL failed.
 */
ngx_int_t ngx_http_coord_session_name(ngx_http_coord_session_state_t *state,
    ngx_str_t *text);

/* the digest of a user's text; an empty one: no user */
ngx_int_t ngx_http_coord_session_user_key(ngx_http_coord_session_user_t *user);

/*
 * The value of a complex value as it may be bound: a long one stands as its
 * digest.
 */
ngx_int_t ngx_http_coord_session_value(ngx_http_request_t *r,
    ngx_http_complex_value_t *cv, ngx_str_t *value);

/* what has to be asked before the request can be decided */
ngx_http_coord_session_need_e ngx_http_coord_session_plan(
    ngx_http_coord_session_state_t *state);

/*
 * Adds the operations for state->need to the batch of the state, or where it
 * has none to what the stage asks.  NGX_ERROR: no memory.
 */
ngx_int_t ngx_http_coord_session_ask(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state);

/* reads their results; state->failed is set if there is none */
ngx_int_t ngx_http_coord_session_take(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state);

/* the life of the session from now on */
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

/* gives an operation a value to bind; an empty one: none */
ngx_int_t ngx_http_coord_session_ask_value(ngx_coord_op_t *op,
    ngx_str_t *value);

/* copies an answer to GET or BIND into the state; NGX_ERROR: no memory */
ngx_int_t ngx_http_coord_session_record(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state, ngx_coord_op_t *op);


/* --- ngx_http_coord_session_keep.c --- */

/* whose session it was when this node saw it last, into state->hint */
void ngx_http_coord_session_remember(ngx_http_coord_session_state_t *state);

/* this node remembers what Redis said */
void ngx_http_coord_session_keep(ngx_http_coord_session_state_t *state);

/* tells the store that the session was used, if that is news */
void ngx_http_coord_session_touch(ngx_http_coord_session_state_t *state);

/* has the store bind, or rebind, the session to a value; nobody waits */
void ngx_http_coord_session_write(ngx_http_coord_session_state_t *state,
    ngx_str_t *value);

/*
 * The session as this node remembers it, or as it makes it where that is what
 * the failure policy says.  NGX_DECLINED: nothing is known of it.
 */
ngx_int_t ngx_http_coord_session_fallback(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state);


#endif /* _NGX_HTTP_COORD_SESSION_STATE_H_INCLUDED_ */
