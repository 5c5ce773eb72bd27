
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Values that operators write: in nginx.conf, or in a variable at run time.
 */


#ifndef _NGX_COORD_PARSE_H_INCLUDED_
#define _NGX_COORD_PARSE_H_INCLUDED_


#include "ngx_coord.h"


/* the largest count of requests or connections in any directive */
#define NGX_COORD_COUNT_MAX    2000000000


typedef struct {
    ngx_uint_t                 count;
    ngx_coord_nsec_t           period;
} ngx_coord_quota_t;


/*
 * Parses a rate: "10r/s", "30r/m", "1000r/h", "5000r/d", "10r/5s".  Both
 * numbers are whole and positive; the period is at most 366 days.
 * NGX_ERROR: not a rate; NGX_DECLINED: one of more than NGX_COORD_COUNT_MAX.
 * Then *quota is not changed.
 */
ngx_int_t ngx_coord_parse_rate(ngx_str_t *value, ngx_coord_quota_t *quota);

/*
 * Parses a whole number from min to NGX_COORD_COUNT_MAX.  NGX_ERROR: not one.
 */
ngx_int_t ngx_coord_parse_count(ngx_str_t *value, ngx_uint_t min,
    ngx_uint_t *count);

/*
 * Finds the next variable of a text of nginx.conf, as in "$name" or "${name}":
 * name points into the text, which begins behind it afterwards.  NGX_DECLINED:
 * there is none.
 */
ngx_int_t ngx_coord_parse_variable(ngx_str_t *text, ngx_str_t *name);


#endif /* _NGX_COORD_PARSE_H_INCLUDED_ */
