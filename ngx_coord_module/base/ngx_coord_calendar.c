
/*
 * Copyright (C) ngx_coord_module contributors
 */


#include "ngx_coord_calendar.h"


#define NGX_COORD_HOUR         3600LL           /* seconds */
#define NGX_COORD_DAY          86400LL
#define NGX_COORD_WEEK         (7 * NGX_COORD_DAY)

/* 400 years of the calendar have so many days, whole weeks */
#define NGX_COORD_ERA          146097LL

/* 1970 began on a Thursday */
#define NGX_COORD_MONDAY       (3 * NGX_COORD_DAY)


static int64_t ngx_coord_month_begin(int64_t year, int64_t month);
static void ngx_coord_month(ngx_coord_period_t *period, int64_t day);


void
ngx_coord_period(ngx_coord_period_t *period, ngx_coord_align_e align,
    ngx_coord_nsec_t tz, ngx_coord_nsec_t now)
{
    int64_t  local;

    local = (ngx_max(now, 0) + tz) / NGX_COORD_NSEC_PER_SEC;
    local = ngx_max(local, 0);

    switch (align) {

    case NGX_COORD_ALIGN_HOUR:
        period->begin = local - local % NGX_COORD_HOUR;
        period->end = period->begin + NGX_COORD_HOUR;
        break;

    case NGX_COORD_ALIGN_WEEK:
        period->begin = local - (local + NGX_COORD_MONDAY) % NGX_COORD_WEEK;
        period->end = period->begin + NGX_COORD_WEEK;
        break;

    case NGX_COORD_ALIGN_MONTH:
        ngx_coord_month(period, local / NGX_COORD_DAY);
        break;

    default: /* NGX_COORD_ALIGN_DAY */
        period->begin = local - local % NGX_COORD_DAY;
        period->end = period->begin + NGX_COORD_DAY;
        break;
    }

    period->begin = period->begin * NGX_COORD_NSEC_PER_SEC - tz;
    period->end = period->end * NGX_COORD_NSEC_PER_SEC - tz;
}


/* the days from 1970-01-01 to the first of a month, 1 to 12 */

static int64_t
ngx_coord_month_begin(int64_t year, int64_t month)
{
    /* a year that begins in March has its leap day at its end */

    if (month <= 2) {
        year--;
        month += 12;
    }

    return 365 * year + year / 4 - year / 100 + year / 400
           + (153 * (month - 3) + 2) / 5 - 719468;
}


static void
ngx_coord_month(ngx_coord_period_t *period, int64_t day)
{
    int64_t  year, month;

    /* the year may be one too large at first */

    year = 1970 + day * 400 / NGX_COORD_ERA + 1;

    while (ngx_coord_month_begin(year, 1) > day) {
        year--;
    }

    for (month = 12; ngx_coord_month_begin(year, month) > day; month--) {
        /* void */
    }

    period->begin = ngx_coord_month_begin(year, month) * NGX_COORD_DAY;

    period->end = (month == 12) ? ngx_coord_month_begin(year + 1, 1)
                                : ngx_coord_month_begin(year, month + 1);
    period->end *= NGX_COORD_DAY;
}


ngx_coord_nsec_t
ngx_coord_period_longest(ngx_coord_align_e align)
{
    switch (align) {

    case NGX_COORD_ALIGN_HOUR:
        return NGX_COORD_HOUR * NGX_COORD_NSEC_PER_SEC;

    case NGX_COORD_ALIGN_WEEK:
        return NGX_COORD_WEEK * NGX_COORD_NSEC_PER_SEC;

    case NGX_COORD_ALIGN_MONTH:
        return 31 * NGX_COORD_DAY * NGX_COORD_NSEC_PER_SEC;

    default: /* NGX_COORD_ALIGN_DAY */
        return NGX_COORD_DAY * NGX_COORD_NSEC_PER_SEC;
    }
}


ngx_int_t
ngx_coord_parse_tz(ngx_str_t *value, ngx_coord_nsec_t *tz)
{
    u_char     *p;
    ngx_int_t   hours, minutes;

    p = value->data;

    if (value->len != sizeof("+hh:mm") - 1
        || (p[0] != '+' && p[0] != '-')
        || p[3] != ':')
    {
        return NGX_ERROR;
    }

    hours = ngx_atoi(p + 1, 2);
    minutes = ngx_atoi(p + 4, 2);

    if (hours < 0 || hours > 14 || minutes < 0 || minutes > 59) {
        return NGX_ERROR;
    }

    *tz = (hours * NGX_COORD_HOUR + minutes * 60) * NGX_COORD_NSEC_PER_SEC;

    if (p[0] == '-') {
        *tz = -*tz;
    }

    return NGX_OK;
}
