
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Periods of the calendar against what the C library says.
 */


#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "ngx_stub.h"
#include "ngx_coord_rate.h"


#define SEC  NGX_COORD_NSEC_PER_SEC

/* a time_t of 32 bits ends in 2038 */
#define YEARS  (sizeof(time_t) == 8 ? 200LL : 67LL)


static int64_t
first_of(int year, int month)
{
    struct tm  tm;

    ngx_memzero(&tm, sizeof(struct tm));

    tm.tm_year = year;
    tm.tm_mon = month;
    tm.tm_mday = 1;

    return timegm(&tm);
}


static void
periods_are_those_of_the_library(void **state)
{
    int                 i;
    time_t              local;
    int64_t             now, tz;
    struct tm           tm;
    ngx_coord_period_t  p;

    for (i = 0; i < 200000; i++) {
        tz = (any(29 * 60) - 14 * 60) * 60;
        now = 86400 * 30 + any(YEARS * 366 * 86400);
        local = now + tz;

        gmtime_r(&local, &tm);

        ngx_coord_period(&p, NGX_COORD_ALIGN_HOUR, tz * SEC,
                         now * SEC + any(SEC));
        assert_int_equal(p.begin / SEC, now - tm.tm_min * 60 - tm.tm_sec);
        assert_int_equal(p.end - p.begin, 3600 * SEC);

        ngx_coord_period(&p, NGX_COORD_ALIGN_DAY, tz * SEC, now * SEC);
        assert_int_equal(p.begin / SEC, now - tm.tm_hour * 3600
                                        - tm.tm_min * 60 - tm.tm_sec);
        assert_int_equal(p.end - p.begin, 86400 * SEC);

        ngx_coord_period(&p, NGX_COORD_ALIGN_WEEK, tz * SEC, now * SEC);
        assert_int_equal(p.begin / SEC, now - (tm.tm_wday + 6) % 7 * 86400
                                        - tm.tm_hour * 3600
                                        - tm.tm_min * 60 - tm.tm_sec);
        assert_int_equal(p.end - p.begin, 7 * 86400 * SEC);

        ngx_coord_period(&p, NGX_COORD_ALIGN_MONTH, tz * SEC, now * SEC);
        assert_int_equal(p.begin / SEC + tz,
                         first_of(tm.tm_year, tm.tm_mon));
        assert_int_equal(p.end / SEC + tz,
                         first_of(tm.tm_year, tm.tm_mon + 1));
        assert_true(p.end - p.begin
                    <= ngx_coord_period_longest(NGX_COORD_ALIGN_MONTH));
    }
}


static void
borders_belong_to_what_begins(void **state)
{
    ngx_coord_period_t  p;

    /* 2024-03-01 00:00 UTC */

    ngx_coord_period(&p, NGX_COORD_ALIGN_MONTH, 0, 1709251200 * SEC);
    assert_int_equal(p.begin / SEC, 1709251200);
    assert_int_equal((p.end - p.begin) / SEC, 31 * 86400);

    ngx_coord_period(&p, NGX_COORD_ALIGN_MONTH, 0, 1709251200 * SEC - 1);
    assert_int_equal((p.end - p.begin) / SEC, 29 * 86400);

    ngx_coord_period(&p, NGX_COORD_ALIGN_DAY, 0, -5);
    assert_int_equal(p.begin, 0);
}


static void
a_window_that_is_nearly_over_is_the_next_one(void **state)
{
    ngx_coord_rate_t  rate;
    ngx_coord_nsec_t  left, most;

    ngx_memzero(&rate, sizeof(ngx_coord_rate_t));

    rate.limit = 10;
    rate.window = 3600 * SEC;
    rate.align = NGX_COORD_ALIGN_MONTH;

    left = ngx_coord_window_begins(&rate, 1709251200 * SEC - SEC, &most);

    assert_int_equal(left, SEC);
    assert_int_equal(rate.window / SEC, 29 * 86400);
    assert_true(most >= left);

    left = ngx_coord_window_begins(&rate, 1709251200 * SEC - SEC / 100, &most);

    assert_int_equal(left, 31 * 86400 * SEC + SEC / 100);
    assert_int_equal(rate.window / SEC, 31 * 86400);

    rate.align = NGX_COORD_ALIGN_NONE;
    rate.window = 3600 * SEC;

    left = ngx_coord_window_begins(&rate, 1709251200 * SEC - 1, &most);

    assert_int_equal(left, 3600 * SEC);
}


static void
zones_are_hours_and_minutes(void **state)
{
    size_t            i;
    ngx_str_t         s;
    ngx_coord_nsec_t  tz;

    static const struct {
        char    *text;
        int64_t  minutes;
    } good[] = {
        { "+00:00", 0 }, { "-00:30", -30 }, { "+05:30", 330 },
        { "-08:00", -480 }, { "+14:00", 840 }
    };

    static char  *bad[] = { "", "+5:30", "05:30", "+05.30", "+15:00", "+05:60",
                            "+05:3", "+05:300", "Z", "+ab:cd" };

    for (i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        s.data = (u_char *) good[i].text;
        s.len = ngx_strlen(s.data);

        assert_int_equal(ngx_coord_parse_tz(&s, &tz), NGX_OK);
        assert_int_equal(tz, good[i].minutes * 60 * SEC);
    }

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        s.data = (u_char *) bad[i];
        s.len = ngx_strlen(s.data);

        tz = 7;
        assert_int_equal(ngx_coord_parse_tz(&s, &tz), NGX_ERROR);
        assert_int_equal(tz, 7);
    }
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(periods_are_those_of_the_library),
        cmocka_unit_test(borders_belong_to_what_begins),
        cmocka_unit_test(a_window_that_is_nearly_over_is_the_next_one),
        cmocka_unit_test(zones_are_hours_and_minutes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
