
/*
 * Copyright (C) ngx_coord_module contributors
 */


#ifndef _NGX_HTTP_COORD_LIMIT_REQ_H_INCLUDED_
#define _NGX_HTTP_COORD_LIMIT_REQ_H_INCLUDED_


#include "ngx_http_coord_limiter.h"
#include "ngx_http_coord_body.h"
#include "ngx_coord_parse.h"
#include "ngx_coord_timer.h"
#include "ngx_http_coord_api.h"


/* coord_limit_req_zone: the data of an ngx_coord_zone_t */
typedef struct {
    ngx_http_complex_value_t          *key;
    ngx_str_t                          text;     /* of the key */
    ngx_http_complex_value_t          *rate;     /* NULL: quota is constant */
    ngx_coord_quota_t                  quota;
    const ngx_coord_op_type_t         *op;       /* the algorithm */
    ngx_str_t                          algorithm;
    ngx_str_t                          layout;        /* type of its keys */
    ngx_uint_t                         burst;    /* the largest constant */
    ngx_uint_t                         prefetch;
    ngx_coord_align_e                  align;
    ngx_coord_nsec_t                   tz;
    unsigned                           delay:1;  /* leaky bucket */
    unsigned                           holds:1;  /* its keys may be held */
} ngx_http_coord_limit_req_zone_t;


/* when what a request costs is known, and taken */
typedef enum {
    NGX_HTTP_COORD_CHARGE_BEFORE = 0,
    NGX_HTTP_COORD_CHARGE_AFTER,   /* looked for before */
    NGX_HTTP_COORD_CHARGE_RESERVE  /* so much before, the difference after */
} ngx_http_coord_charge_e;


/* places that a request takes: a number, or what a value says */
typedef struct {
    ngx_http_complex_value_t          *value;    /* NULL: constant */
    ngx_str_t                          text;
    ngx_uint_t                         n;
    unsigned                           set:1;
} ngx_http_coord_cost_t;


/* coord_limit_req */
typedef struct {
    ngx_coord_zone_t                  *zone;
    ngx_http_coord_cost_t              cost;
    ngx_http_coord_cost_t              reserve;
    ngx_http_coord_charge_e            charge;
    ngx_http_complex_value_t          *burst_value;  /* NULL: constant */
    ngx_uint_t                         burst;
    ngx_uint_t                         delay;
    ngx_uint_t                         on_failure;   /* or unset */
    ngx_http_coord_stage_e             stage;
    unsigned                           nodelay:1;
    unsigned                           has_burst:1;
    unsigned                           has_delay:1;
    unsigned                           bytes:1;  /* qu="content-bytes" */
    unsigned                           body:1;   /* after_body */
    unsigned                           cost_body:1;  /* the cost may be of it */
    u_char                            *file;
    ngx_uint_t                         line;
    ngx_http_coord_told_t              told;
} ngx_http_coord_limit_req_limit_t;


/* coord_limit_req_hold */
typedef struct {
    ngx_coord_zone_t                  *zone;
    ngx_http_complex_value_t          *time;     /* NULL: constant */
    ngx_coord_nsec_t                   length;
    ngx_http_complex_value_t          *condition;    /* NULL: always */
} ngx_http_coord_limit_req_hold_t;


typedef struct {
    ngx_http_coord_limiter_conf_t      limiter;
    ngx_array_t                        limits;
    ngx_array_t                        holds;
    ngx_uint_t                         holds_off;
} ngx_http_coord_limit_req_conf_t;


/* one limit as asked for this request */
typedef struct {
    ngx_http_coord_limit_req_limit_t  *limit;
    ngx_http_coord_ref_t               ref;
    ngx_http_coord_ref_t               hold;      /* if its zone holds */
    ngx_coord_quota_t                  quota;
    ngx_coord_op_t                     op;        /* as answered */
    ngx_uint_t                         cost;      /* asked for */
    ngx_msec_t                         wait;      /* for its place */
    unsigned                           known:1;   /* op was not asked: a rate
                                                   * of 0, a hold, a refusal,
                                                   * a place of a block */
    unsigned                           peeks:1;   /* known, but for a hold;
                                                   * NGX_OK: not limited */
    unsigned                           held:1;    /* op is to give back */
    unsigned                           over:1;    /* cost never fits */
    unsigned                           due:1;     /* to be charged, settled */
} ngx_http_coord_limit_req_item_t;


typedef struct {
    ngx_http_coord_limiter_t           limiter;   /* of the configuration */
    ngx_array_t                        items;     /* they stand behind this */
    ngx_coord_timer_t                  delay;
    unsigned                           delayed:1;
} ngx_http_coord_limit_req_state_t;


extern ngx_module_t                    ngx_http_coord_limit_req_module;
extern ngx_http_coord_feature_t        ngx_http_coord_limit_req_feature;


/* --- ngx_http_coord_limit_req_ask.c --- */

/* begin() of both stages */
ngx_int_t ngx_http_coord_limit_req_begin(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx);

/*
 * Evaluates a cost.  NGX_DECLINED: it is empty, *n is 1; NGX_ABORT: logged, it
 * is no number.
 */
ngx_int_t ngx_http_coord_limit_req_cost(ngx_http_request_t *r,
    ngx_http_coord_cost_t *cost, ngx_coord_zone_t *zone, ngx_uint_t *n);


/* --- ngx_http_coord_limit_req_lint.c --- */

/*
 * Forgets what was read of the files of an earlier configuration; called
 * before a new one is read.  NGX_ERROR: no memory.
 */
ngx_int_t ngx_http_coord_limit_req_lint_init(ngx_conf_t *cf);

/* warns of what is allowed and will not do what it looks like */
void ngx_http_coord_limit_req_lint(ngx_conf_t *cf,
    ngx_http_coord_limit_req_limit_t *limit);

/* the same of the key of a zone, which is declared here */
void ngx_http_coord_limit_req_lint_key(ngx_conf_t *cf, ngx_str_t *key);


/* --- ngx_http_coord_limit_req_zone.c, _hold.c: directives --- */

char *ngx_http_coord_limit_req_zone(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
char *ngx_http_coord_limit_req_hold(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);


/* --- ngx_http_coord_limit_req_hold.c --- */

/*
 * In the log phase: holds the keys of the request for whom the lines of conf
 * apply.  state: the last one of the request in this feature; may be NULL.
 */
void ngx_http_coord_limit_req_holds(ngx_http_request_t *r,
    ngx_http_coord_limit_req_conf_t *conf,
    ngx_http_coord_limit_req_state_t *state);


/* --- ngx_http_coord_limit_req_log.c --- */

/* a handler of the log phase */
ngx_int_t ngx_http_coord_limit_req_log(ngx_http_request_t *r);


/* --- ngx_http_coord_limit_req_api.c: routes of coord_api --- */

extern const ngx_http_coord_route_t  ngx_http_coord_limit_req_routes[];


#endif /* _NGX_HTTP_COORD_LIMIT_REQ_H_INCLUDED_ */
