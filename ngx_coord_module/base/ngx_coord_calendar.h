
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Hours, days, weeks and months of the Gregorian calendar at a fixed distance
 * from UTC.  Pure functions: no clock, no zone files, no daylight saving.
 */


#ifndef _NGX_COORD_CALENDAR_H_INCLUDED_
#define _NGX_COORD_CALENDAR_H_INCLUDED_


#include "ngx_coord.h"


typedef enum {
    NGX_COORD_ALIGN_NONE = 0,
    NGX_COORD_ALIGN_HOUR,
    NGX_COORD_ALIGN_DAY,
    NGX_COORD_ALIGN_WEEK,          /* from Monday on */
    NGX_COORD_ALIGN_MONTH
} ngx_coord_align_e;


/* nanoseconds since 1970 in UTC; end is the beginning of the next one */
typedef struct {
    ngx_coord_nsec_t           begin;
    ngx_coord_nsec_t           end;
} ngx_coord_period_t;


/*
 * The period that now, nanoseconds since 1970 in UTC, is in; tz: how far its
 * clock is ahead of UTC, nanoseconds.  A time before 1970 is taken as 1970.
 */
void ngx_coord_period(ngx_coord_period_t *period, ngx_coord_align_e align,
    ngx_coord_nsec_t tz, ngx_coord_nsec_t now);

/* the length of the longest period of a kind */
ngx_coord_nsec_t ngx_coord_period_longest(ngx_coord_align_e align);

/*
 * Parses "+hh:mm" or "-hh:mm", at most 14 hours and 59 minutes.  NGX_ERROR: it
 * is not one, *tz is not changed.
 */
ngx_int_t ngx_coord_parse_tz(ngx_str_t *value, ngx_coord_nsec_t *tz);


#endif /* _NGX_COORD_CALENDAR_H_INCLUDED_ */
