
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_lookup: variables whose values stand in keys of the application.
 *
 *   ngx_http_coord_lookup.c        the variable, what is missing, fetching it
 *   ngx_http_coord_lookup_want.c   what was answered
 *   ngx_http_coord_lookup_conf.c   the directive
 *   ngx_http_coord_lookup_load.c   load=: asking a location for a value
 *   ngx_http_coord_lookup_subrequest.c  how it is asked
 *   ngx_http_coord_lookup_api.c    lookups/<key> of coord_api
 */


#ifndef _NGX_HTTP_COORD_LOOKUP_H_INCLUDED_
#define _NGX_HTTP_COORD_LOOKUP_H_INCLUDED_


#include "ngx_http_coord_api.h"
#include "ngx_http_coord_limiter.h"
#include "ngx_coord_near.h"


typedef struct {
    ngx_str_t                    name;        /* of the variable */
    ngx_http_complex_value_t    *key;
    ngx_coord_near_t            *near;
    ngx_uint_t                   field;
    ngx_msec_t                   ttl;
    ngx_msec_t                   negative_ttl;
    ngx_http_complex_value_t    *value;       /* the default; NULL: none */
    ngx_http_complex_value_t    *load;        /* a location; NULL: none */
    ngx_int_t                    index;       /* of the variable; or -1:
                                               * nothing refers to it */
} ngx_http_coord_lookup_t;


typedef struct {
    ngx_array_t                  lookups;     /* of ngx_http_coord_lookup_t * */
    ngx_array_t                  nears;       /* of ngx_coord_near_t * */
    ngx_http_variable_value_t   *saved;       /* of a request, for a moment */
} ngx_http_coord_lookup_main_conf_t;


typedef struct ngx_http_coord_lookup_state_s  ngx_http_coord_lookup_state_t;
typedef struct ngx_http_coord_lookup_load_s   ngx_http_coord_lookup_load_t;


/* one that this request was in need of; lives in r->pool */
typedef struct ngx_http_coord_lookup_want_s  ngx_http_coord_lookup_want_t;

struct ngx_http_coord_lookup_want_s {
    ngx_http_coord_lookup_state_t  *state;
    ngx_http_coord_lookup_t        *lookup;
    ngx_coord_near_item_t           item;
    ngx_coord_near_answer_t         answer;   /* the value: in r->pool */
    ngx_coord_near_wait_t           wait;
    ngx_http_coord_lookup_load_t   *load;     /* NULL: not loading */
    ngx_queue_t                     queue;    /* in load->wants */
    ngx_http_coord_lookup_want_t   *next;
    unsigned                        asked:1;
    unsigned                        done:1;   /* answered; or UNKNOWN */
};


/* of a client request */
struct ngx_http_coord_lookup_state_s {
    ngx_http_coord_ctx_t           *ctx;
    ngx_http_coord_lookup_want_t   *wants;
    ngx_http_request_t             *request;  /* in this stage: */
    ngx_http_coord_stage_e          stage;
    ngx_uint_t                      rounds;
    ngx_uint_t                      waiting;  /* wants that are asked */
    u_char                         *valid;    /* variables, before begin */
};


extern ngx_module_t               ngx_http_coord_lookup_module;
extern ngx_http_coord_feature_t   ngx_http_coord_lookup_feature;
extern const ngx_http_coord_supply_t  ngx_http_coord_lookup_supply;
extern const ngx_http_coord_route_t   ngx_http_coord_lookup_routes[];


/* the handler of the variables; data: an ngx_http_coord_lookup_t * */
ngx_int_t ngx_http_coord_lookup_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);

/* counts what a look-up was; near: it was in shared memory */
void ngx_http_coord_lookup_count(ngx_http_coord_lookup_t *lookup,
    ngx_coord_near_e state, ngx_uint_t near);

/* an answer has come, whoever gave it; resumes the request after the last */
void ngx_http_coord_lookup_answered(ngx_http_coord_lookup_want_t *want,
    ngx_coord_near_answer_t *answer);

/* the request has waited for the store in vain before: it is not asked */
void ngx_http_coord_lookup_unasked(ngx_http_coord_lookup_want_t *want);

/*
 * The store has no value: has one made, by one request of all nodes for each
 * key; ngx_http_coord_lookup_answered() follows.  NGX_ERROR: no memory.
 */
ngx_int_t ngx_http_coord_lookup_load(ngx_http_coord_lookup_want_t *want);

/* at configuration: responses of locations of load= are filtered */
void ngx_http_coord_lookup_load_init(void);

/* the request is over and does not wait for a value that is made */
void ngx_http_coord_lookup_load_leave(ngx_http_coord_lookup_want_t *want);

/*
 * Asks the location of load for r, by a subrequest in memory without a body,
 * conditions, ranges and codings; handler(sr, data, ..) is called at its end.
 * NGX_ERROR: no memory, or the value of load cannot be had; it may be called
 * still.
 */
ngx_int_t ngx_http_coord_lookup_subrequest(ngx_http_request_t *r,
    ngx_http_complex_value_t *load, ngx_http_post_subrequest_pt handler,
    void *data);


#endif /* _NGX_HTTP_COORD_LOOKUP_H_INCLUDED_ */
