
/*
 * Copyright (C) ngx_coord_module contributors
 */


#ifndef _NGX_HTTP_COORD_LIMIT_REQ_H_INCLUDED_
#define _NGX_HTTP_COORD_LIMIT_REQ_H_INCLUDED_


#include "ngx_http_coord.h"
#include "ngx_coord_parse.h"
#include "ngx_coord_timer.h"
#include "ngx_http_coord_api.h"


typedef enum {
    NGX_HTTP_COORD_LIMIT_REQ_PASSED = 1,
    NGX_HTTP_COORD_LIMIT_REQ_DELAYED,
    NGX_HTTP_COORD_LIMIT_REQ_REJECTED,
    NGX_HTTP_COORD_LIMIT_REQ_DELAYED_DRY_RUN,
    NGX_HTTP_COORD_LIMIT_REQ_REJECTED_DRY_RUN,
    NGX_HTTP_COORD_LIMIT_REQ_BYPASSED
} ngx_http_coord_limit_req_status_e;


/* the variables $coord_limit_req_... */
#define NGX_HTTP_COORD_LIMIT_REQ_VAR_STATUS     0
#define NGX_HTTP_COORD_LIMIT_REQ_VAR_ZONE       1
#define NGX_HTTP_COORD_LIMIT_REQ_VAR_REMAINING  2
#define NGX_HTTP_COORD_LIMIT_REQ_VAR_LIMIT      3
#define NGX_HTTP_COORD_LIMIT_REQ_VAR_RESET      4
#define NGX_HTTP_COORD_LIMIT_REQ_VAR_SOURCE     5


/* coord_limit_req_zone: the data of an ngx_coord_zone_t */
typedef struct {
    ngx_http_complex_value_t          *key;
    ngx_http_complex_value_t          *rate;     /* NULL: quota is constant */
    ngx_coord_quota_t                  quota;
    const ngx_coord_op_type_t         *op;       /* the algorithm */
    ngx_str_t                          algorithm;
    ngx_uint_t                         burst;    /* the largest constant */
    unsigned                           delay:1;  /* leaky bucket */
} ngx_http_coord_limit_req_zone_t;


/* coord_limit_req */
typedef struct {
    ngx_coord_zone_t                  *zone;
    ngx_http_complex_value_t          *burst_value;  /* NULL: constant */
    ngx_uint_t                         burst;
    ngx_uint_t                         delay;
    ngx_uint_t                         on_failure;   /* or unset */
    unsigned                           nodelay:1;
    unsigned                           has_burst:1;
    unsigned                           has_delay:1;
    unsigned                           after_auth:1;
    u_char                            *file;
    ngx_uint_t                         line;
} ngx_http_coord_limit_req_limit_t;


typedef struct {
    ngx_array_t                        limits;
    ngx_uint_t                         log_level;
    ngx_uint_t                         delay_log_level;
    ngx_uint_t                         status_code;
    ngx_flag_t                         dry_run;
} ngx_http_coord_limit_req_conf_t;


/* one limit as asked for this request */
typedef struct {
    ngx_http_coord_limit_req_limit_t  *limit;
    ngx_http_coord_ref_t               ref;
    ngx_coord_quota_t                  quota;
    ngx_coord_op_t                     op;        /* granted: to give back */
    unsigned                           held:1;    /* op is valid */
} ngx_http_coord_limit_req_item_t;


typedef struct ngx_http_coord_limit_req_state_s
    ngx_http_coord_limit_req_state_t;


struct ngx_http_coord_limit_req_state_s {
    ngx_http_coord_ctx_t              *ctx;
    ngx_http_coord_limit_req_conf_t   *conf;
    ngx_http_coord_limit_req_state_t  *previous;  /* of an earlier stage */
    ngx_array_t                        items;
    ngx_coord_timer_t                  delay;

    ngx_http_coord_limit_req_status_e  status;
    ngx_str_t                          zone;
    ngx_coord_source_e                 source;
    ngx_uint_t                         limit;
    ngx_uint_t                         remaining;
    time_t                             reset;
    unsigned                           delayed:1;
    unsigned                           shown:1;   /* limit, ... are valid */
};


extern ngx_module_t                    ngx_http_coord_limit_req_module;
extern ngx_http_coord_feature_t        ngx_http_coord_limit_req_feature;
extern ngx_http_variable_t             ngx_http_coord_limit_req_vars[];


/* --- ngx_http_coord_limit_req.c --- */

/* how long a request that was granted a place has to wait for it */
ngx_msec_t ngx_http_coord_limit_req_wait(
    ngx_http_coord_limit_req_item_t *item);


/* --- ngx_http_coord_limit_req_report.c --- */

/* the words of $coord_limit_req_status */
extern const ngx_str_t  ngx_http_coord_limit_req_statuses[];

/*
 * For decide(), when all have answered: fills the RateLimit fields and the
 * variables; the tightest limit counts.  NGX_ERROR: no memory.
 */
ngx_int_t ngx_http_coord_limit_req_report(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx, ngx_http_coord_limit_req_state_t *state);

/*
 * The member "violated-policies" of the problem document, in r->pool; empty:
 * no memory.
 */
ngx_str_t ngx_http_coord_limit_req_members(ngx_http_request_t *r,
    ngx_http_coord_limit_req_state_t *state);

/*
 * For the metrics.  In a refused request the zones that refused it count, not
 * those that got their places back.
 */
void ngx_http_coord_limit_req_count(ngx_http_coord_limit_req_state_t *state);


/* the getter of all $coord_limit_req_ variables; data: which one */
ngx_int_t ngx_http_coord_limit_req_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);


/* --- ngx_http_coord_limit_req_api.c: routes of coord_api --- */

extern const ngx_http_coord_route_t  ngx_http_coord_limit_req_routes[];


#endif /* _NGX_HTTP_COORD_LIMIT_REQ_H_INCLUDED_ */
