
/*
 * Copyright (C) ngx_coord_module contributors
 */


#ifndef _NGX_HTTP_COORD_LIMIT_CONN_H_INCLUDED_
#define _NGX_HTTP_COORD_LIMIT_CONN_H_INCLUDED_


#include "ngx_http_coord_lease.h"
#include "ngx_http_coord_api.h"


typedef enum {
    NGX_HTTP_COORD_LIMIT_CONN_PASSED = 1,
    NGX_HTTP_COORD_LIMIT_CONN_DELAYED,
    NGX_HTTP_COORD_LIMIT_CONN_REJECTED,
    NGX_HTTP_COORD_LIMIT_CONN_REJECTED_DRY_RUN,
    NGX_HTTP_COORD_LIMIT_CONN_BYPASSED
} ngx_http_coord_limit_conn_status_e;


/* the variables $coord_limit_conn_... */
#define NGX_HTTP_COORD_LIMIT_CONN_VAR_STATUS   0
#define NGX_HTTP_COORD_LIMIT_CONN_VAR_ZONE     1
#define NGX_HTTP_COORD_LIMIT_CONN_VAR_CURRENT  2


/* coord_limit_conn */
typedef struct {
    ngx_http_coord_lease_limit_t       limit;         /* must be first */
    ngx_http_complex_value_t          *number_value;  /* NULL: constant */
    ngx_uint_t                         number;
    unsigned                           after_auth:1;
} ngx_http_coord_limit_conn_limit_t;


typedef struct {
    ngx_array_t                        limits;
    ngx_uint_t                         log_level;
    ngx_uint_t                         delay_log_level;
    ngx_uint_t                         status_code;
    ngx_flag_t                         dry_run;
} ngx_http_coord_limit_conn_conf_t;


extern ngx_module_t                    ngx_http_coord_limit_conn_module;
extern ngx_http_coord_feature_t        ngx_http_coord_limit_conn_feature;
extern ngx_http_variable_t             ngx_http_coord_limit_conn_vars[];


/* the getter of all $coord_limit_conn_ variables; data: which one */
ngx_int_t ngx_http_coord_limit_conn_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);


/* --- ngx_http_coord_limit_conn_api.c: routes of coord_api --- */

extern const ngx_http_coord_route_t  ngx_http_coord_limit_conn_routes[];


#endif /* _NGX_HTTP_COORD_LIMIT_CONN_H_INCLUDED_ */
