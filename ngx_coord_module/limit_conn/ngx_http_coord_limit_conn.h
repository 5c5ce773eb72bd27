
/*
 * Copyright (C) ngx_coord_module contributors
 */


#ifndef _NGX_HTTP_COORD_LIMIT_CONN_H_INCLUDED_
#define _NGX_HTTP_COORD_LIMIT_CONN_H_INCLUDED_


#include "ngx_http_coord_limiter.h"
#include "ngx_http_coord_lease.h"
#include "ngx_http_coord_api.h"


/* coord_limit_conn */
typedef struct {
    ngx_http_coord_lease_limit_t       limit;         /* must be first */
    ngx_http_complex_value_t          *number_value;  /* NULL: constant */
    ngx_uint_t                         number;
    ngx_http_coord_stage_e             stage;
    unsigned                           body:1;        /* after_body */
} ngx_http_coord_limit_conn_limit_t;


typedef struct {
    ngx_http_coord_limiter_conf_t      limiter;
    ngx_array_t                        limits;
} ngx_http_coord_limit_conn_conf_t;


extern ngx_module_t                    ngx_http_coord_limit_conn_module;
extern ngx_http_coord_feature_t        ngx_http_coord_limit_conn_feature;


/* --- ngx_http_coord_limit_conn_api.c: routes of coord_api --- */

extern const ngx_http_coord_route_t  ngx_http_coord_limit_conn_routes[];


#endif /* _NGX_HTTP_COORD_LIMIT_CONN_H_INCLUDED_ */
