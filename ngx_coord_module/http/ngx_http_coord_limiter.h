
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * What features that may refuse a request have in common: settings, the state
 * of a request in a stage, refusing, and what the variables tell of it.
 */


#ifndef _NGX_HTTP_COORD_LIMITER_H_INCLUDED_
#define _NGX_HTTP_COORD_LIMITER_H_INCLUDED_


#include "ngx_http_coord.h"
#include "ngx_http_coord_conf.h"


/* the head of the location configuration of a feature */
typedef struct {
    ngx_uint_t                      log_level;
    ngx_uint_t                      delay_log_level;  /* one lower */
    ngx_uint_t                      status_code;
    ngx_flag_t                      dry_run;
    unsigned                        off:1;    /* ends inheritance */

    /* of a worker: the first document that told of one policy, and which */
    u_char                         *violated;
    ngx_str_t                       document;
} ngx_http_coord_limiter_conf_t;


/* its directives <name>_log_level and <name>_dry_run; and <name>_status */
#define ngx_http_coord_limiter_says(name)                                     \
                                                                              \
    { ngx_string(name "_log_level"),                                          \
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,  \
      ngx_conf_set_enum_slot,                                                 \
      NGX_HTTP_LOC_CONF_OFFSET,                                               \
      offsetof(ngx_http_coord_limiter_conf_t, log_level),                     \
      &ngx_http_coord_log_levels },                                           \
                                                                              \
    { ngx_string(name "_dry_run"),                                            \
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_FLAG,   \
      ngx_conf_set_flag_slot,                                                 \
      NGX_HTTP_LOC_CONF_OFFSET,                                               \
      offsetof(ngx_http_coord_limiter_conf_t, dry_run),                       \
      NULL }

#define ngx_http_coord_limiter_commands(name)                                 \
                                                                              \
    ngx_http_coord_limiter_says(name),                                        \
                                                                              \
    { ngx_string(name "_status"),                                             \
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,  \
      ngx_conf_set_num_slot,                                                  \
      NGX_HTTP_LOC_CONF_OFFSET,                                               \
      offsetof(ngx_http_coord_limiter_conf_t, status_code),                   \
      &ngx_http_coord_status_bounds }


typedef struct ngx_http_coord_limiter_s  ngx_http_coord_limiter_t;


/* the head of the state of a request in a stage of a feature */
struct ngx_http_coord_limiter_s {
    ngx_http_coord_ctx_t           *ctx;
    ngx_http_coord_limiter_conf_t  *conf;
    ngx_http_coord_limiter_t       *previous; /* of an earlier stage */
    ngx_http_coord_stage_e          stage;

    ngx_coord_outcome_e             status;
    ngx_str_t                       zone;     /* that decided; or empty */

    /* in ctx->reports */
    ngx_uint_t                      first;
    ngx_uint_t                      nreports;
};


/* --- configuration --- */

/* for create_loc_conf: all is unset */
void ngx_http_coord_limiter_conf_init(ngx_http_coord_limiter_conf_t *conf);

/* for merge_loc_conf; status: the default of <name>_status */
void ngx_http_coord_limiter_conf_merge(ngx_http_coord_limiter_conf_t *conf,
    ngx_http_coord_limiter_conf_t *prev, ngx_uint_t status);


/* the only argument of a directive is "off": notes that, and returns 1 */
ngx_uint_t ngx_http_coord_limiter_off(ngx_conf_t *cf,
    ngx_http_coord_limiter_conf_t *conf);

/*
 * One more in the array of the limits of a place, as ngx_array_push(); NULL:
 * no memory, or more than NGX_HTTP_COORD_LIMITS_MAX, which is logged.
 */
void *ngx_http_coord_limits_push(ngx_conf_t *cf, ngx_str_t *name,
    ngx_array_t *limits);


/* --- requests --- */

/*
 * For begin(): a zeroed state of size bytes with this head, in place at the
 * slot of the feature that is at it; the one of an earlier stage is its
 * previous.  NULL: no memory.
 */
void *ngx_http_coord_limiter_create(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx, ngx_http_coord_limiter_conf_t *conf,
    size_t size);

/*
 * The state of the last stage in which the feature has decided on the client
 * request that r belongs to; NULL: in none.
 */
void *ngx_http_coord_limiter_state(ngx_http_request_t *r,
    ngx_http_coord_feature_t *feature);

/*
 * Adds what a limit has answered to the RateLimit fields and to what the
 * variables tell.  Valid until the next call; NULL: no memory.
 */
ngx_http_coord_report_t *ngx_http_coord_limiter_report(ngx_http_request_t *r,
    ngx_http_coord_limiter_t *limiter);

/*
 * What the limits of a stage let the request have is given back, since it is
 * refused: its reports, and so the variables, tell what there is then.
 */
void ngx_http_coord_limiter_given_back(ngx_http_coord_limiter_t *limiter);

/*
 * Logs that a value which a request has given, "rate", is none; of its bytes
 * only what is printable.
 */
void ngx_http_coord_limiter_invalid(ngx_http_request_t *r, const char *what,
    ngx_str_t *value, ngx_coord_zone_t *zone);

/*
 * What becomes of a request because of op: REJECTED, UNAVAILABLE, or in dry
 * run REJECTED_DRY_RUN, BYPASSED.
 */
ngx_coord_outcome_e ngx_http_coord_limiter_refused(
    ngx_http_coord_limiter_t *limiter, ngx_coord_op_t *op);

/*
 * Counts an operation that limits in the metrics of its zone: passed, rejected,
 * bypassed or unavailable, by its result.  refused tells that the request was
 * refused, whose operations that were granted do not count.
 */
void ngx_http_coord_limiter_count(ngx_coord_op_t *op, ngx_uint_t refused,
    ngx_uint_t dry_run);

/*
 * The log line of a request that is refused, or in dry run would be, because
 * fields->op has no answer: it never reads as a limit that was exceeded.
 */
void ngx_http_coord_limiter_log_failure(ngx_http_request_t *r,
    ngx_http_coord_limiter_t *limiter, ngx_http_coord_log_fields_t *fields);

/*
 * Refuses with a problem document, whose status is the one configured if it
 * has none; it tells the policies that were violated, and the client to come
 * back when all of them admit it again, unless one never does.  What
 * limiters of an earlier stage let the request have is given back by their
 * undo(): steps of that stage that have one are limiters'.  A feature has one
 * problem: its document may be kept.  What decide() has to return: in dry run
 * NGX_DECLINED, if limiter->status is UNAVAILABLE a 503.
 */
ngx_int_t ngx_http_coord_limiter_refuse(ngx_http_request_t *r,
    ngx_http_coord_limiter_t *limiter,
    const ngx_http_coord_problem_t *problem);


/* --- variables --- */

typedef enum {
    NGX_HTTP_COORD_VAR_STATUS = 0,
    NGX_HTTP_COORD_VAR_ZONE,
    NGX_HTTP_COORD_VAR_SOURCE,
    NGX_HTTP_COORD_VAR_LIMIT,
    NGX_HTTP_COORD_VAR_REMAINING,
    NGX_HTTP_COORD_VAR_RESET,
    NGX_HTTP_COORD_VAR_CURRENT,
    NGX_HTTP_COORD_VAR_OTHER         /* and up: the feature's own */
} ngx_http_coord_variable_e;

/* a variable of a feature by ngx_http_coord_variable_e, not its own ones */
ngx_int_t ngx_http_coord_limiter_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, ngx_http_coord_feature_t *feature,
    uintptr_t data);

/* the value of a variable: a text that stays; an empty one: not found */
ngx_int_t ngx_http_coord_variable_text(ngx_http_variable_value_t *v,
    const ngx_str_t *text);

/* the same, a number; NGX_ERROR: no memory */
ngx_int_t ngx_http_coord_variable_number(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, int64_t number);


#endif /* _NGX_HTTP_COORD_LIMITER_H_INCLUDED_ */
