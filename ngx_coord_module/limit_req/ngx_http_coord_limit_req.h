
/*
 * Copyright (C) ngx_coord_module contributors
 */


#ifndef _NGX_HTTP_COORD_LIMIT_REQ_H_INCLUDED_
#define _NGX_HTTP_COORD_LIMIT_REQ_H_INCLUDED_


#include "ngx_http_coord_limiter.h"
#include "ngx_coord_parse.h"
#include "ngx_http_coord_api.h"


/* coord_limit_req_zone: the data of an ngx_coord_zone_t */
typedef struct {
    ngx_http_complex_value_t          *key;
    ngx_http_complex_value_t          *rate;     /* NULL: quota is constant */
    ngx_coord_quota_t                  quota;
    const ngx_coord_op_type_t         *op;       /* the algorithm */
    ngx_str_t                          algorithm;
    ngx_str_t                          layout;        /* type of its keys */
    ngx_uint_t                         burst;    /* the largest constant */
    ngx_coord_align_e                  align;
    ngx_coord_nsec_t                   tz;
    unsigned                           delay:1;  /* leaky bucket */
} ngx_http_coord_limit_req_zone_t;


/* coord_limit_req */
typedef struct {
    ngx_coord_zone_t                  *zone;
    ngx_http_complex_value_t          *burst_value;  /* NULL: constant */
    ngx_uint_t                         burst;
    ngx_uint_t                         delay;
    ngx_uint_t                         on_failure;   /* or unset */
    ngx_http_coord_stage_e             stage;
    unsigned                           nodelay:1;
    unsigned                           has_burst:1;
    unsigned                           has_delay:1;
    u_char                            *file;
    ngx_uint_t                         line;
} ngx_http_coord_limit_req_limit_t;


typedef struct {
    ngx_http_coord_limiter_conf_t      limiter;
    ngx_array_t                        limits;
} ngx_http_coord_limit_req_conf_t;


extern ngx_module_t                    ngx_http_coord_limit_req_module;
extern ngx_http_coord_feature_t        ngx_http_coord_limit_req_feature;


/* --- ngx_http_coord_limit_req_api.c: routes of coord_api --- */

extern const ngx_http_coord_route_t  ngx_http_coord_limit_req_routes[];


#endif /* _NGX_HTTP_COORD_LIMIT_REQ_H_INCLUDED_ */
