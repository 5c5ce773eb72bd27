
/*
 * Copyright (C) ngx_coord_module contributors
 */


#include "ngx_coord_tat.h"


/* parts of an octave that a class tells, as a power of two */
#define NGX_COORD_TAT_PARTS  5

/* bits of a code that are a number, below its power of two */
#define NGX_COORD_TAT_DIGITS  11

/* the power of two in n, which is at least 1 */
#define ngx_coord_tat_power(n)  (63 - __builtin_clzll((uint64_t) (n)))


static ngx_coord_nsec_t ngx_coord_tat_interval(int64_t number);


/*
 * The power of two and the five bits behind the highest one, as in a floating
 * point number.
 */

int64_t
ngx_coord_tat_class(ngx_coord_nsec_t interval)
{
    int64_t  power, part;

    interval = ngx_max(interval, 1);
    interval = ngx_min(interval, NGX_COORD_RATE_SPAN - 1);

    power = ngx_coord_tat_power(interval);

    part = power > NGX_COORD_TAT_PARTS
           ? interval >> (power - NGX_COORD_TAT_PARTS)
           : interval << (NGX_COORD_TAT_PARTS - power);

    return (power << NGX_COORD_TAT_PARTS)
           + (part & ((1 << NGX_COORD_TAT_PARTS) - 1)) + 1;
}


/* the smallest interval of a number's class; 0: it has none */

static ngx_coord_nsec_t
ngx_coord_tat_interval(int64_t number)
{
    int64_t  class, power, part;

    class = number >> NGX_COORD_TAT_BITS;

    if (class < 1 || class > ngx_coord_tat_class(NGX_COORD_RATE_SPAN)) {
        return 0;
    }

    power = (class - 1) >> NGX_COORD_TAT_PARTS;
    part = (class - 1) & ((1 << NGX_COORD_TAT_PARTS) - 1);
    part += 1 << NGX_COORD_TAT_PARTS;

    return power > NGX_COORD_TAT_PARTS
           ? part << (power - NGX_COORD_TAT_PARTS)
           : part >> (NGX_COORD_TAT_PARTS - power);
}


int64_t
ngx_coord_tat_empty(ngx_coord_nsec_t interval, ngx_coord_nsec_t now)
{
    int64_t  tat;

    tat = ngx_min(ngx_coord_tat_usec(now), 2 * NGX_COORD_TAT_HALF - 1);

    return (ngx_coord_tat_class(interval) << NGX_COORD_TAT_BITS) + tat;
}


ngx_uint_t
ngx_coord_tat_fits(int64_t number, ngx_coord_nsec_t interval)
{
    return number >> NGX_COORD_TAT_BITS == ngx_coord_tat_class(interval);
}


ngx_coord_nsec_t
ngx_coord_tat_own_backlog(int64_t number, ngx_coord_nsec_t interval,
    ngx_coord_nsec_t now)
{
    int64_t  empty;

    empty = ngx_coord_tat_empty(interval, now);

    if (number >> NGX_COORD_TAT_BITS != empty >> NGX_COORD_TAT_BITS
        || number <= empty)
    {
        return 0;
    }

    return ngx_min((number - empty) * NGX_COORD_NSEC_PER_USEC,
                   NGX_COORD_RATE_SPAN);
}


ngx_coord_nsec_t
ngx_coord_tat_backlog(int64_t number, ngx_coord_nsec_t interval,
    ngx_coord_nsec_t now, ngx_coord_nsec_t idle)
{
    double            backlog;
    int64_t           empty, mask;
    ngx_coord_nsec_t  own, charged;

    mask = 2 * NGX_COORD_TAT_HALF - 1;
    number = ngx_max(number, 0);
    empty = ngx_coord_tat_empty(interval, now);

    backlog = (double) ((number & mask) - (empty & mask))
              * NGX_COORD_NSEC_PER_USEC;

    if (number >> NGX_COORD_TAT_BITS != empty >> NGX_COORD_TAT_BITS) {
        charged = ngx_coord_tat_interval(number);

        if (charged == 0) {
            return 0;
        }

        own = ngx_coord_tat_interval(empty);

        backlog = (backlog + idle) * ((double) own / charged) - idle;
    }

    if (backlog <= 0) {
        return 0;
    }

    return backlog < NGX_COORD_RATE_SPAN ? (ngx_coord_nsec_t) backlog
                                         : NGX_COORD_RATE_SPAN;
}


ngx_coord_nsec_t
ngx_coord_tat_idle(uint32_t stamp, ngx_coord_nsec_t now)
{
    int32_t  idle;

    idle = (int32_t) (ngx_coord_tat_stamp(now) - stamp);

    return (stamp && idle > 0) ? idle * NGX_COORD_NSEC_PER_MSEC : 0;
}


/*
 * Below 2^12 a code is the number itself.  Above, the first twelve bits of a
 * number, 2^11 and more, are added to 2^11 times the bits that are dropped: a
 * number that is rounded up to the next power of two goes on as that.
 */

int64_t
ngx_coord_tat_code(int64_t places)
{
    int64_t  drop;

    places = ngx_max(places, 0);
    places = ngx_min(places, NGX_COORD_RATE_LIMIT);

    drop = ngx_coord_tat_power(places | 1) - NGX_COORD_TAT_DIGITS;
    drop = ngx_max(drop, 0);

    return (drop << NGX_COORD_TAT_DIGITS)
           + ((places + ((int64_t) 1 << drop) - 1) >> drop);
}


int64_t
ngx_coord_tat_places(int64_t code)
{
    int64_t  drop;

    code = ngx_max(code, 0);
    code = ngx_min(code, 0xffff);

    drop = code >> NGX_COORD_TAT_DIGITS;
    drop = drop ? drop - 1 : 0;

    return (code - (drop << NGX_COORD_TAT_DIGITS)) << drop;
}
