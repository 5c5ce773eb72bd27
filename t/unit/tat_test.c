
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * A bucket as a number: what was charged is found again, at the same rate to
 * the microsecond, at another one in requests.
 */


#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "ngx_stub.h"
#include "ngx_coord_tat.h"


#define NOW  (30000000 * NGX_COORD_NSEC_PER_SEC)


static int64_t
any_interval(void)
{
    static const int64_t  top[] = { 4, 1000, 1000000, 1000000000,
                                    86400000000000LL, 1LL << 50 };

    return 1 + any(top[any(6)]);
}


static void
an_empty_bucket_holds_nothing(void **state)
{
    int       i;
    int64_t   number, interval;

    for (i = 0; i < 100000; i++) {
        interval = any_interval();
        number = ngx_coord_tat_empty(interval, NOW);

        assert_true(number > 0);
        assert_true(number < 1LL << 62);
        assert_true(ngx_coord_tat_fits(number, interval));
        assert_int_equal(ngx_coord_tat_backlog(number, interval, NOW, 0), 0);
        assert_int_equal(ngx_coord_tat_backlog(number, any_interval(),
                                               NOW + any(1LL << 50), 0), 0);
    }

    assert_int_equal(ngx_coord_tat_backlog(0, 1000, NOW, 0), 0);
    assert_int_equal(ngx_coord_tat_backlog(0, 1000, NOW, 1LL << 62), 0);
}


static void
time_counts_at_the_same_rate(void **state)
{
    int      i;
    int64_t  number, interval, held, backlog;

    for (i = 0; i < 100000; i++) {
        interval = any_interval();
        held = any(NGX_COORD_RATE_SPAN - 1);
        number = ngx_coord_tat_empty(interval, NOW)
                 + ngx_coord_tat_usec(held);

        backlog = ngx_coord_tat_backlog(number, interval, NOW, 0);

        assert_true(backlog <= held);
        assert_true(held - backlog < 2 * NGX_COORD_NSEC_PER_USEC);

        backlog = ngx_coord_tat_own_backlog(number, interval, NOW);

        assert_true(backlog <= held);
        assert_true(held - backlog < 2 * NGX_COORD_NSEC_PER_USEC);
    }
}


static void
requests_count_at_another_rate(void **state)
{
    int      i;
    double   requests, seen;
    int64_t  number, from, to;

    for (i = 0; i < 100000; i++) {

        /* no rounding to microseconds: that is what the other test is about */

        from = 1000000 + any(86400000000000LL);
        to = 1000000 + any(86400000000000LL);
        requests = 1 + any(100);

        number = ngx_coord_tat_empty(from, NOW)
                 + ngx_coord_tat_usec(from * requests);

        if (ngx_coord_tat_fits(number, to)) {
            continue;
        }

        assert_int_equal(ngx_coord_tat_own_backlog(number, to, NOW), 0);

        seen = (double) ngx_coord_tat_backlog(number, to, NOW, 0) / to;

        assert_true(seen > requests * 0.968);
        assert_true(seen < requests * 1.033);

        /* two requests have drained at the new rate since the last one */

        number -= ngx_coord_tat_usec(2 * to);
        seen = (double) ngx_coord_tat_backlog(number, to, NOW, 2 * to) / to;

        assert_true(seen > requests * 0.968 - 2.1 || seen == 0);
        assert_true(seen < requests * 1.033 - 1.9 || seen == 0);
    }
}


static void
a_stamp_that_is_ahead_is_none(void **state)
{
    uint32_t  stamp;

    stamp = ngx_coord_tat_stamp(NOW);

    assert_int_equal(ngx_coord_tat_idle(stamp - 5, NOW),
                     5 * NGX_COORD_NSEC_PER_MSEC);
    assert_int_equal(ngx_coord_tat_idle(stamp, NOW), 0);
    assert_int_equal(ngx_coord_tat_idle(stamp + 1, NOW), 0);
    assert_int_equal(ngx_coord_tat_idle(0, NOW), 0);
}


static void
nothing_overflows(void **state)
{
    int              i, j, k;
    static int64_t  edges[] = { INT64_MIN, -1, 0, 1, 1LL << 50, 1LL << 51,
                                1LL << 62, INT64_MAX };

    for (i = 0; i < 8; i++) {
        for (j = 0; j < 8; j++) {
            for (k = 0; k < 8; k++) {
                if (edges[k] == INT64_MIN) {
                    continue;
                }

                (void) ngx_coord_tat_backlog(edges[i], edges[j], edges[k],
                                             edges[k]);
                (void) ngx_coord_tat_own_backlog(edges[i], edges[j],
                                                 edges[k]);
                (void) ngx_coord_tat_empty(edges[j], edges[k]);
            }
        }
    }
}


static void
a_code_is_at_least_its_number(void **state)
{
    int      i;
    int64_t  n, places, code, last;

    last = -1;

    for (n = 0; n <= NGX_COORD_RATE_LIMIT; n += 1 + n / 5000) {
        code = ngx_coord_tat_code(n);
        places = ngx_coord_tat_places(code);

        assert_true(code >= last && code <= 0xffff);
        assert_true(places >= n && places <= n + n / 2000);

        last = code;
    }

    for (i = 1; i <= 0xffff; i++) {
        assert_true(ngx_coord_tat_places(i) > ngx_coord_tat_places(i - 1));
    }

    assert_int_equal(ngx_coord_tat_places(ngx_coord_tat_code(1000)), 1000);
    assert_true(ngx_coord_tat_code(INT64_MAX) <= 0xffff);
    assert_int_equal(ngx_coord_tat_code(-1), 0);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(an_empty_bucket_holds_nothing),
        cmocka_unit_test(time_counts_at_the_same_rate),
        cmocka_unit_test(requests_count_at_another_rate),
        cmocka_unit_test(a_stamp_that_is_ahead_is_none),
        cmocka_unit_test(a_code_is_at_least_its_number),
        cmocka_unit_test(nothing_overflows)
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
