
/*
 * Copyright (C) ngx_coord_module contributors
 */


#ifndef _NGX_HTTP_COORD_SESSION_H_INCLUDED_
#define _NGX_HTTP_COORD_SESSION_H_INCLUDED_


#include "ngx_http_coord_limiter.h"
#include "ngx_http_coord_api.h"
#include "ngx_http_coord_hold.h"


#define NGX_HTTP_COORD_SESSION_REJECT     0
#define NGX_HTTP_COORD_SESSION_PASS       1
#define NGX_HTTP_COORD_SESSION_REBIND     2
#define NGX_HTTP_COORD_SESSION_EVICT      3
#define NGX_HTTP_COORD_SESSION_ACCEPT     4


/* the variables $coord_session_... */
#define NGX_HTTP_COORD_SESSION_VAR_STATUS  NGX_HTTP_COORD_VAR_STATUS
#define NGX_HTTP_COORD_SESSION_VAR_VALUE   NGX_HTTP_COORD_VAR_OTHER
#define NGX_HTTP_COORD_SESSION_VAR_AGE     (NGX_HTTP_COORD_VAR_OTHER + 1)


#define NGX_HTTP_COORD_SESSION_ID_LEN  (2 * NGX_COORD_ID_LEN)


typedef struct ngx_http_coord_session_note_s  ngx_http_coord_session_note_t;


/* coord_session_zone: the data of an ngx_coord_zone_t */
typedef struct {
    ngx_http_complex_value_t         *key;
    ngx_coord_nsec_t                  ttl;
    ngx_coord_nsec_t                  absolute;  /* 0: none */
    ngx_coord_nsec_t                  revoked;   /* of all uses; 0: unset */
    ngx_http_coord_session_note_t    *notes;     /* of this worker; or NULL */
    unsigned                          users:1;   /* some use has user= */
    unsigned                          by_id:1;   /* key: $coord_session_id */
} ngx_http_coord_session_zone_t;


/* coord_session */
typedef struct {
    ngx_coord_zone_t                 *zone;
    ngx_http_complex_value_t         *create;    /* NULL: none */
    ngx_http_complex_value_t         *bind;
    ngx_http_complex_value_t         *learn;
    ngx_http_complex_value_t         *user;
    ngx_uint_t                        max_per_user;
    ngx_uint_t                        over;
    ngx_uint_t                        mismatch;
    ngx_uint_t                        missing;
    ngx_uint_t                        unknown;   /* new= */
    ngx_uint_t                        on_failure;   /* or unset */
    unsigned                          learn_addr:1; /* a list of peers */
    unsigned                          client_cert:1; /* bind: $ssl_client_ */
    unsigned                          user_late:1; /* user: $upstream_ */
    unsigned                          cut:1;     /* when it ends */
    unsigned                          checked:1; /* warned of, if need be */
} ngx_http_coord_session_use_t;


/* flags of coord_session_cookie */
#define NGX_HTTP_COORD_COOKIE_SECURE       0x01
#define NGX_HTTP_COORD_COOKIE_HTTPONLY     0x02
#define NGX_HTTP_COORD_COOKIE_STRICT       0x04
#define NGX_HTTP_COORD_COOKIE_LAX          0x08
#define NGX_HTTP_COORD_COOKIE_NONE         0x10
#define NGX_HTTP_COORD_COOKIE_PARTITIONED  0x20
#define NGX_HTTP_COORD_COOKIE_ROLLING      0x40   /* no attribute */


/* coord_session_cookie */
typedef struct {
    ngx_str_t                         name;
    ngx_str_t                         path;
    ngx_str_t                         domain;       /* empty: none */
    ngx_str_t                         attributes;   /* all, from "; " on */
    ngx_uint_t                        flags;
    time_t                            expires;      /* 0: with the browser */
    ngx_http_complex_value_t         *rotate;       /* NULL: never */
} ngx_http_coord_session_cookie_t;


typedef struct {
    ngx_http_coord_limiter_conf_t     limiter;
    ngx_http_coord_session_use_t     *use;       /* NULL: off */
    ngx_http_coord_session_cookie_t  *cookie;    /* NULL: off */
    ngx_http_coord_session_use_t     *inner_use; /* of locations inside */
    ngx_http_coord_session_cookie_t  *inner_cookie;
} ngx_http_coord_session_conf_t;


extern ngx_module_t                    ngx_http_coord_session_module;
extern ngx_http_coord_feature_t        ngx_http_coord_session_feature;
extern ngx_http_variable_t             ngx_http_coord_session_vars[];


typedef struct ngx_http_coord_session_state_s  ngx_http_coord_session_state_t;


/* of a client request, at the slot of the feature */
typedef struct {
    ngx_str_t                         issued;    /* id; empty: none */
    ngx_uint_t                        field;     /* of ctx->fields, from 1 */
    ngx_uint_t                        fresh;     /* 1: the id is a new one */
    ngx_http_coord_session_state_t   *state;     /* NULL: no session */
    ngx_http_coord_hold_t             hold;      /* until that is stored */
} ngx_http_coord_session_client_t;


/* --- ngx_http_coord_session_op.c --- */

/* how long an ended session of a zone is remembered */
ngx_coord_nsec_t ngx_http_coord_session_revoked(
    ngx_http_coord_session_zone_t *sz);

/* what the feature has of a client request, made if need be; NULL: no memory */
ngx_http_coord_session_client_t *ngx_http_coord_session_client(
    ngx_http_request_t *r, ngx_http_coord_ctx_t *ctx);

/* the session of a client request; NULL: none was looked up */
ngx_http_coord_session_state_t *ngx_http_coord_session_state(
    ngx_http_coord_ctx_t *ctx);


/* --- ngx_http_coord_session_pass.c --- */

/* the getter of $coord_session_status, _value and _age; data: which one */
ngx_int_t ngx_http_coord_session_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);

/*
 * The peer that the request was to go to cannot be used: if the session of r,
 * a main request, has learned its value, it learns it again.
 */
void ngx_http_coord_session_unusable(ngx_http_request_t *r);


/* --- ngx_http_coord_session_response.c --- */

/*
 * The header of the response of r, a main request, is about to be sent: what
 * it tells of a session is stored.  NGX_OK: it may be sent; NGX_AGAIN: not
 * before client->hold is released, which is done from here.
 */
ngx_int_t ngx_http_coord_session_response(ngx_http_request_t *r,
    ngx_http_coord_session_client_t *client);


/* --- ngx_http_coord_session_cookie.c --- */

/*
 * Issues an id to a client that has none, once per client request; not where
 * its header was not read to the end.  NGX_ERROR: no memory or no random bytes.
 */
ngx_int_t ngx_http_coord_session_cookie_issue(ngx_http_request_t *r);

/*
 * The session that key names has ended: a client whose cookie names it gets a
 * new id with this response.  NGX_ERROR: as above.
 */
ngx_int_t ngx_http_coord_session_cookie_replace(ngx_http_request_t *r,
    ngx_str_t *key);

/* where a key holds an id; NULL: it does not */
u_char *ngx_http_coord_session_cookie_in(ngx_str_t *key, ngx_str_t *id);

/* 1 if key holds an id that the client gets with this response */
ngx_uint_t ngx_http_coord_session_cookie_fresh(
    ngx_http_coord_session_client_t *client, ngx_str_t *key);

/*
 * The id that is to be in place of the one that the client of r has, once its
 * response is sent; old is that one.  NGX_DECLINED: it is to stay; NGX_ERROR:
 * as above.
 */
ngx_int_t ngx_http_coord_session_cookie_next(ngx_http_request_t *r,
    ngx_str_t *old, ngx_str_t *id);

/* sends it; NGX_ERROR: no memory */
ngx_int_t ngx_http_coord_session_cookie_rotate(ngx_http_request_t *r,
    ngx_str_t *id);

/* sends the cookie of the client anew if it is rolling; NGX_ERROR: no memory */
ngx_int_t ngx_http_coord_session_cookie_roll(ngx_http_request_t *r);

/* the getter of $coord_session_id: the id of the client, or the one issued */
ngx_int_t ngx_http_coord_session_id_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);


/* --- ngx_http_coord_session_use_conf.c --- */

/* the setter of coord_session */
char *ngx_http_coord_session(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);

/* 1 if a text has a variable whose name begins so */
ngx_uint_t ngx_http_coord_session_names(ngx_str_t *text, const char *name);

/*
 * A time that is not 0, the text after "name=", in nanoseconds.  NGX_ERROR:
 * logged.
 */
ngx_int_t ngx_http_coord_session_time(ngx_conf_t *cf, ngx_str_t *value,
    const char *name, ngx_coord_nsec_t *ns);

/* warns of what does not do what it seems to; once for each directive */
void ngx_http_coord_session_warn(ngx_conf_t *cf,
    ngx_http_coord_session_conf_t *conf);


/* --- ngx_http_coord_session_cookie_conf.c --- */

/* the setter of coord_session_cookie */
char *ngx_http_coord_session_cookie(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);


/* --- ngx_http_coord_session_sticky.c --- */

/* coord_sticky in upstream {} */
typedef struct {
    ngx_http_complex_value_t           *value;
    ngx_http_upstream_init_pt           original_init_upstream;
    ngx_http_upstream_init_peer_pt      original_init_peer;
    ngx_uint_t                          no_hints;   /* told by the balancer */
} ngx_http_coord_sticky_conf_t;

/* the setter of coord_sticky */
char *ngx_http_coord_sticky(ngx_conf_t *cf, ngx_command_t *cmd, void *conf);

/* warns of each coord_sticky that a balancer behind it has replaced */
void ngx_http_coord_sticky_check(ngx_conf_t *cf);


/* --- ngx_http_coord_session_api.c: routes of coord_api --- */

extern const ngx_http_coord_route_t  ngx_http_coord_session_routes[];


#endif /* _NGX_HTTP_COORD_SESSION_H_INCLUDED_ */
