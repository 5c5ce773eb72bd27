
/*
 * Copyright (C) ngx_coord_module contributors
 */


#include "ngx_coord_stats.h"


const ngx_str_t  ngx_coord_fail_names[NGX_COORD_FAIL_MAX] = {
    ngx_string("none"),
    ngx_string("connect"),
    ngx_string("timeout"),
    ngx_string("overflow"),
    ngx_string("breaker"),
    ngx_string("protocol"),
    ngx_string("auth"),
    ngx_string("unavailable"),
    ngx_string("error"),
    ngx_string("full")
};


const ngx_uint_t  ngx_coord_latency_bounds[NGX_COORD_LATENCY_BUCKETS] = {
    100, 250, 500, 1000, 2500, 5000, 10000, 25000, 50000, 100000, 250000,
    1000000
};
