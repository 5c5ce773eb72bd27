
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * How a bucket stands in Redis: one number of 63 bits, the class of its
 * interval above and its theoretical arrival time (TAT) below.
 *
 *     62          51 50                                  0
 *     +-------------+------------------------------------+
 *     |    class    |         TAT, microseconds          |
 *     +-------------+------------------------------------+
 *
 * What a bucket holds counts in requests, so the time in it is worth nothing
 * without the interval that it was charged with: after a change of the rate
 * the backlog is converted, not reinterpreted.  The class tells the interval
 * to within a thirty-second part, and so exact is a conversion.  It goes from
 * class to class, so that callers with two rates who take turns on one key do
 * not add up its errors.  Rates of one class are not converted.
 *
 * Pure functions: no clock, no memory, no overflow for any argument.
 */


#ifndef _NGX_COORD_TAT_H_INCLUDED_
#define _NGX_COORD_TAT_H_INCLUDED_


#include "ngx_coord_rate.h"


#define NGX_COORD_TAT_BITS     51

/* a TAT is at most so many microseconds from now; see gcra_take.redis */
#define NGX_COORD_TAT_HALF     ((int64_t) 1 << (NGX_COORD_TAT_BITS - 1))


/* a duration in microseconds, rounded down; negative: 0 */

static ngx_inline int64_t
ngx_coord_tat_usec(ngx_coord_nsec_t ns)
{
    return ngx_max(ns, 0) / NGX_COORD_NSEC_PER_USEC;
}


/* the class of an interval: 1 to 1888 */
int64_t ngx_coord_tat_class(ngx_coord_nsec_t interval);

/*
 * The number of an empty bucket with this interval at now, nanoseconds of a
 * clock that has run for less than 71 years: below 2^62, never 0.
 */
int64_t ngx_coord_tat_empty(ngx_coord_nsec_t interval, ngx_coord_nsec_t now);

/* 1 if a number counts in intervals of the class of this one */
ngx_uint_t ngx_coord_tat_fits(int64_t number, ngx_coord_nsec_t interval);

/*
 * What a number holds at now, in nanoseconds at this interval, at most
 * NGX_COORD_RATE_SPAN.  If it was charged with an interval of another class,
 * it is converted: what it held idle nanoseconds ago counts in requests, and
 * since then they drain at this interval, as in limit_req.  A bucket that has
 * drained, or that was never seen (number 0), holds 0.
 */
ngx_coord_nsec_t ngx_coord_tat_backlog(int64_t number,
    ngx_coord_nsec_t interval, ngx_coord_nsec_t now, ngx_coord_nsec_t idle);

/*
 * The same of a number that counts in intervals of the class of this one; one
 * of another class holds 0.
 */
ngx_coord_nsec_t ngx_coord_tat_own_backlog(int64_t number,
    ngx_coord_nsec_t interval, ngx_coord_nsec_t now);

/*
 * A number of places, 0 to NGX_COORD_RATE_LIMIT, in 16 bits: rounded up, by
 * less than a two-thousandth, and in the order of the numbers.  places() is
 * at least what was coded, and something for any code.
 */
int64_t ngx_coord_tat_code(int64_t places);
int64_t ngx_coord_tat_places(int64_t code);

/* a time in milliseconds modulo 2^32 */
#define ngx_coord_tat_stamp(now)                                              \
    ((uint32_t) ((now) / NGX_COORD_NSEC_PER_MSEC))

/*
 * How long before now a stamp was taken, up to 24 days; 0 for one that is not
 * known (0), or that a clock took which is ahead.
 */
ngx_coord_nsec_t ngx_coord_tat_idle(uint32_t stamp, ngx_coord_nsec_t now);


#endif /* _NGX_COORD_TAT_H_INCLUDED_ */
