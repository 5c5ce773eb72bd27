
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The arithmetic of rates, by its promises: retry is exact to the nanosecond,
 * remaining is what is granted, reset empties, nothing overflows.
 */


#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdlib.h>
#include <cmocka.h>

#include "ngx_coord_rate.h"


static uint64_t  seed = 0x9e3779b97f4a7c15ULL;


static uint64_t
any(uint64_t n)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;

    return (seed >> 11) % n;
}


static int64_t
any_interval(void)
{
    static const int64_t  top[] = { 4, 1000, 1000000, 1000000000,
                                    86400000000000LL, 1LL << 50 };

    return 1 + any(top[any(6)]);
}


static void
bucket_first_is_free_of_excess(void **state)
{
    ngx_coord_rate_t    rate = { .interval = 100, .burst = 2, .cost = 1 };
    ngx_coord_bucket_t  b;

    assert_int_equal(ngx_coord_bucket_init(&b, &rate), NGX_OK);

    assert_int_equal(ngx_coord_bucket_answer(&b, &rate, 0), NGX_OK);
    assert_int_equal(rate.excess, 0);
    assert_int_equal(rate.remaining, 2);
    assert_int_equal(rate.reset, 100);

    assert_int_equal(ngx_coord_bucket_answer(&b, &rate, 150), NGX_OK);
    assert_int_equal(rate.excess, 1500);
    assert_int_equal(rate.remaining, 1);

    /* half an interval of slack: 200 is the limit of one clock, 250 of two */

    assert_int_equal(ngx_coord_bucket_answer(&b, &rate, 200), NGX_OK);
    assert_int_equal(rate.remaining, 0);
    assert_int_equal(ngx_coord_bucket_answer(&b, &rate, 250), NGX_OK);
    assert_int_equal(ngx_coord_bucket_answer(&b, &rate, 251), NGX_BUSY);
    assert_int_equal(rate.retry, 1);
    assert_int_equal(rate.reset, 251);
    assert_int_equal(rate.excess, 2510);

    rate.interval = NGX_COORD_NSEC_PER_SEC;
    assert_int_equal(ngx_coord_bucket_init(&b, &rate), NGX_OK);
    assert_int_equal(b.limit - 2 * rate.interval, NGX_COORD_RATE_SLACK);
}


static void
bucket_holds_its_promises(void **state)
{
    uint64_t            i, n;
    ngx_int_t           rc;
    ngx_coord_rate_t    rate, one;
    ngx_coord_nsec_t    backlog;
    ngx_coord_bucket_t  b, b1;

    for (i = 0; i < 200000; i++) {
        ngx_memzero(&rate, sizeof(rate));
        rate.interval = any_interval();
        rate.burst = any(50);
        rate.cost = 1 + any(rate.burst + 1);

        one = rate;
        one.cost = 1;

        assert_int_equal(ngx_coord_bucket_init(&b, &rate), NGX_OK);
        assert_int_equal(ngx_coord_bucket_init(&b1, &one), NGX_OK);

        backlog = any(b.total + b.interval + 2);

        rc = ngx_coord_bucket_answer(&b, &rate, backlog);

        if (rc == NGX_OK) {
            assert_int_equal(rate.retry, 0);
            assert_int_equal(rate.reset, backlog + b.charge);
            assert_true(rate.reset <= b.total + b.slack);
            backlog = rate.reset;

        } else {
            assert_int_equal(rc, NGX_BUSY);
            assert_true(rate.retry > 0 && rate.retry <= backlog);
            one = rate;
            assert_int_equal(ngx_coord_bucket_answer(&b, &one,
                                                     backlog - rate.retry),
                             NGX_OK);
            assert_int_equal(ngx_coord_bucket_answer(&b, &one,
                                                     backlog - rate.retry + 1),
                             NGX_BUSY);
            assert_int_equal(rate.reset, backlog);
        }

        for (n = 0; n < rate.remaining; n++) {
            assert_int_equal(ngx_coord_bucket_answer(&b1, &one, backlog),
                             NGX_OK);
            backlog = one.reset;
        }

        assert_int_equal(ngx_coord_bucket_answer(&b1, &one, backlog),
                         NGX_BUSY);
    }
}


static void
bucket_cost_above_capacity_never_fits(void **state)
{
    ngx_coord_rate_t    rate = { .interval = 100, .burst = 2, .cost = 4 };
    ngx_coord_bucket_t  b;

    assert_int_equal(ngx_coord_bucket_init(&b, &rate), NGX_DECLINED);

    rate.cost = 3;
    assert_int_equal(ngx_coord_bucket_init(&b, &rate), NGX_OK);

    rate.retry = 7;
    assert_int_equal(ngx_coord_rate_never(&rate), NGX_BUSY);
    assert_int_equal(rate.retry, 0);
}


static void
what_is_not_taken_is_not_charged(void **state)
{
    ngx_coord_rate_t    rate = { .interval = 100, .burst = 2, .cost = 2 };
    ngx_coord_bucket_t  b;

    /* a look decides as the take would */

    rate.look = 1;
    assert_int_equal(ngx_coord_bucket_init(&b, &rate), NGX_OK);
    assert_int_equal(ngx_coord_bucket_answer(&b, &rate, 150), NGX_OK);
    assert_int_equal(rate.reset, 150);
    assert_int_equal(rate.remaining, 2);
    assert_int_equal(ngx_coord_bucket_answer(&b, &rate, 151), NGX_BUSY);
    assert_int_equal(rate.retry, 1);

    /* no place at all is there until more than all are taken */

    rate.look = 0;
    rate.cost = 0;
    assert_int_equal(ngx_coord_bucket_init(&b, &rate), NGX_OK);
    assert_int_equal(ngx_coord_bucket_answer(&b, &rate, 300), NGX_OK);
    assert_int_equal(rate.reset, 300);
    assert_int_equal(ngx_coord_bucket_answer(&b, &rate, 351), NGX_BUSY);

    /* in any case */

    rate.force = 1;
    rate.cost = 7;
    assert_int_equal(ngx_coord_bucket_init(&b, &rate), NGX_OK);
    assert_int_equal(ngx_coord_bucket_answer(&b, &rate, 100000), NGX_OK);
    assert_int_equal(rate.reset, 100700);
    assert_int_equal(rate.remaining, 0);
}


/* with the last whole interval below the longest span, as by a division */

static void
spans_are_cut(void **state)
{
    int64_t             i, n, most;
    ngx_coord_bucket_t  b = { 0 };

    for (i = 0; i < 100000; i++) {
        b.interval = any_interval();
        most = NGX_COORD_RATE_SPAN / b.interval;

        for (n = most > 3 ? most - 3 : 0; n < most + 3; n++) {
            assert_int_equal(ngx_coord_bucket_span(&b, n),
                             n < most ? n * b.interval : NGX_COORD_RATE_SPAN);
        }
    }

    /* products of more than 64 bits; an interval that no bucket has */

    b.interval = 1LL << 58;

    for (n = 64; n < INT64_MAX / 2; n *= 2) {
        assert_int_equal(ngx_coord_bucket_span(&b, n), NGX_COORD_RATE_SPAN);
    }

    assert_int_equal(ngx_coord_bucket_span(&b, INT64_MAX),
                     NGX_COORD_RATE_SPAN);

    b.interval = NGX_COORD_RATE_SPAN + 1;

    assert_int_equal(ngx_coord_bucket_span(&b, 0), NGX_COORD_RATE_SPAN);
    assert_int_equal(ngx_coord_bucket_span(&b, 1), NGX_COORD_RATE_SPAN);
}


/* UBSan is the judge of most of this */

static void
extremes_do_not_overflow(void **state)
{
    ngx_int_t            rc;
    ngx_uint_t           i, j, k, l;
    ngx_coord_rate_t     rate;
    ngx_coord_bucket_t   b;
    ngx_coord_window_t   w;
    ngx_coord_sliding_t  s;

    static const int64_t  times[] = { INT64_MIN, -1, 0, 1, 999999,
                                      1000000000, 1LL << 58, 1LL << 59,
                                      1LL << 60, 1LL << 62, INT64_MAX };
    static const ngx_uint_t  counts[] = { 0, 1, 1000, 0x7fffffff, 0xffffffff,
                                          NGX_MAX_INT_T_VALUE,
                                          (ngx_uint_t) -1 };

    for (i = 0; i < 11; i++) {
        for (j = 0; j < 7; j++) {
            for (k = 0; k < 7; k++) {
                for (l = 0; l < 11; l++) {
                    ngx_memzero(&rate, sizeof(rate));
                    rate.interval = times[i];
                    rate.window = times[i];
                    rate.burst = counts[j];
                    rate.limit = counts[j];
                    rate.cost = counts[k];
                    rate.mark = times[l];

                    (void) ngx_coord_bucket_init(&b, &rate);

                    assert_true(b.charge >= (counts[k] != 0) && b.limit >= 0);
                    assert_true(b.limit <= b.slack
                                || b.charge + b.limit == b.total + b.slack);
                    assert_true(b.total <= NGX_COORD_RATE_SPAN);

                    (void) ngx_coord_bucket_answer(&b, &rate, times[l]);
                    assert_true(rate.reset >= 0 && rate.retry >= 0);

                    (void) ngx_coord_bucket_refund(&rate, times[i]);

                    rc = ngx_coord_window_init(&w, &rate);
                    assert_true(w.length > 0 && w.cost >= 0 && w.limit >= 0);
                    assert_true(w.take == (rate.look ? 0 : w.cost));

                    (void) ngx_coord_window_answer(&w, &rate, NGX_BUSY,
                                                   times[i], times[l]);

                    ngx_coord_sliding_init(&s, &w, times[l]);
                    assert_true(s.weight > 0
                                && s.weight <= NGX_COORD_RATE_WEIGHT);

                    if (rc == NGX_OK) {
                        rc = ngx_coord_sliding_decide(&s, &w, 5, times[i] < 0
                                                      ? 0 : times[i]);
                    }

                    (void) ngx_coord_sliding_answer(&s, &w, &rate, rc,
                                                    times[i], times[l]);
                    assert_true(rate.reset >= 0 && rate.retry >= 0);

                    (void) ngx_coord_log_answer(&w, &rate, NGX_BUSY, times[l],
                                                times[l] / 2, times[i],
                                                times[l]);
                    assert_true(rate.reset >= 0 && rate.retry > 0);
                }
            }
        }
    }
}


static void
refund_is_what_has_not_drained(void **state)
{
    ngx_coord_rate_t  rate = { .interval = 100, .burst = 9, .cost = 3 };

    rate.mark = 1000;

    assert_int_equal(ngx_coord_bucket_refund(&rate, 500), 300);
    assert_int_equal(ngx_coord_bucket_refund(&rate, 700), 300);
    assert_int_equal(ngx_coord_bucket_refund(&rate, 701), 299);
    assert_int_equal(ngx_coord_bucket_refund(&rate, 999), 1);
    assert_int_equal(ngx_coord_bucket_refund(&rate, 1000), 0);
    assert_int_equal(ngx_coord_bucket_refund(&rate, 2000), 0);
}


/* a take that is given back never leaves more room than no take at all */

static void
refund_never_over_admits(void **state)
{
    int64_t             now, tat, with, mark;
    uint64_t            i;
    ngx_uint_t          n;
    ngx_coord_rate_t    rate;
    ngx_coord_bucket_t  b;

    for (i = 0; i < 20000; i++) {
        ngx_memzero(&rate, sizeof(rate));
        rate.interval = 1 + any(100);
        rate.burst = any(10);
        rate.cost = 1;

        (void) ngx_coord_bucket_init(&b, &rate);

        /* others ask both buckets the same; one has a take more */

        now = 1000000;
        tat = now + any(b.total + 1);

        if (tat - now > b.limit) {
            continue;
        }

        mark = tat + b.charge;
        with = mark;

        for (n = any(5); n; n--) {
            now += any(rate.interval * 2);

            if (ngx_max(with - now, 0) <= b.limit) {
                with = ngx_max(with, now) + b.charge;
                tat = ngx_max(tat, now) + b.charge;
            }
        }

        now += any(rate.interval * 2);

        rate.mark = mark;
        with -= ngx_coord_bucket_refund(&rate, now);

        assert_true(ngx_max(with, now) >= ngx_max(tat, now));
    }
}


static void
fixed_window_answer(void **state)
{
    ngx_coord_rate_t    rate = { .limit = 5, .window = 60000000000LL,
                                 .cost = 2 };
    ngx_coord_window_t  w;

    assert_int_equal(ngx_coord_window_init(&w, &rate), NGX_OK);

    assert_int_equal(ngx_coord_window_answer(&w, &rate, NGX_OK, 4, 77),
                     NGX_OK);
    assert_int_equal(rate.remaining, 1);
    assert_int_equal(rate.retry, 0);
    assert_int_equal(rate.reset, 77);

    assert_int_equal(ngx_coord_window_answer(&w, &rate, NGX_BUSY, 6, 77),
                     NGX_BUSY);
    assert_int_equal(rate.remaining, 0);
    assert_int_equal(rate.retry, 77);

    rate.cost = 6;
    assert_int_equal(ngx_coord_window_init(&w, &rate), NGX_DECLINED);
}


/* counts as they stand after a wait in which nobody asked */

static void
sliding_at(ngx_coord_sliding_t *s, ngx_coord_window_t *w, int64_t now,
    int64_t index, int64_t *cur, int64_t *prev)
{
    ngx_coord_sliding_init(s, w, now);

    if (s->index == index + 1) {
        *prev = *cur;
        *cur = 0;

    } else if (s->index > index + 1) {
        *prev = 0;
        *cur = 0;
    }
}


static void
sliding_window_holds_its_promises(void **state)
{
    int64_t              now, cur, prev, c, p, index, before;
    uint64_t             i, n, refused;
    ngx_int_t            rc;
    ngx_coord_rate_t     rate, one;
    ngx_coord_window_t   w, w1;
    ngx_coord_sliding_t  s, s1;

    refused = 0;

    for (i = 0; i < 200000; i++) {
        ngx_memzero(&rate, sizeof(rate));
        rate.limit = 1 + any(40);
        rate.window = NGX_COORD_NSEC_PER_MSEC + any_interval();
        rate.cost = 1 + any(rate.limit);

        one = rate;
        one.cost = 1;

        assert_int_equal(ngx_coord_window_init(&w, &rate), NGX_OK);
        (void) ngx_coord_window_init(&w1, &one);

        now = 5 * w.length + any(w.length);
        cur = any(rate.limit + 3);
        prev = any(rate.limit + 3);

        ngx_coord_sliding_init(&s, &w, now);
        index = s.index;

        rc = ngx_coord_sliding_decide(&s, &w, cur, prev);

        if (rc == NGX_OK) {
            cur += rate.cost;
        }

        assert_int_equal(ngx_coord_sliding_answer(&s, &w, &rate, rc, cur,
                                                  prev), rc);

        if (rc == NGX_BUSY) {
            refused++;
            assert_true(rate.retry > 0);

            c = cur;
            p = prev;
            sliding_at(&s1, &w, now + rate.retry, index, &c, &p);
            assert_int_equal(ngx_coord_sliding_decide(&s1, &w, c, p), NGX_OK);

            c = cur;
            p = prev;
            before = now + rate.retry - 1;
            sliding_at(&s1, &w, before, index, &c, &p);
            assert_int_equal(ngx_coord_sliding_decide(&s1, &w, c, p),
                             NGX_BUSY);
        }

        c = cur;
        p = prev;
        sliding_at(&s1, &w, now + rate.reset, index, &c, &p);
        assert_int_equal(c, 0);
        assert_int_equal(p, 0);

        for (n = 0; n < rate.remaining; n++) {
            assert_int_equal(ngx_coord_sliding_decide(&s, &w1, cur, prev),
                             NGX_OK);
            cur++;
        }

        assert_int_equal(ngx_coord_sliding_decide(&s, &w1, cur, prev),
                         NGX_BUSY);
    }

    assert_true(refused > 1000);
}


static void
sliding_log_answer(void **state)
{
    ngx_coord_rate_t    rate = { .limit = 3, .window = 10000000, .cost = 1 };
    ngx_coord_window_t  w;

    assert_int_equal(ngx_coord_window_init(&w, &rate), NGX_OK);

    (void) ngx_coord_log_answer(&w, &rate, NGX_OK, 2, 5000000, 9000000,
                                9000000);
    assert_int_equal(rate.remaining, 1);
    assert_int_equal(rate.retry, 0);
    assert_int_equal(rate.reset, 10000000);

    (void) ngx_coord_log_answer(&w, &rate, NGX_BUSY, 3, 5000000, 8000000,
                                9000000);
    assert_int_equal(rate.remaining, 0);
    assert_int_equal(rate.retry, 6000000);
    assert_int_equal(rate.reset, 9000000);
}


static void
a_share_is_a_part_and_never_nothing(void **state)
{
    size_t            i;
    ngx_coord_rate_t  rate;

    static const struct {
        ngx_uint_t  nodes, burst, limit, cost;     /* asked */
        ngx_uint_t  places, window;                /* of the share */
    } cases[] = {
        { 1, 9, 10, 1, 10, 10 },
        { 0, 9, 10, 1, 10, 10 },
        { 2, 9, 10, 1, 5, 5 },
        { 3, 9, 10, 1, 4, 4 },
        { 64, 9, 10, 1, 1, 1 },
        { 2, 0, 1, 1, 1, 1 },
        { 2, 9, 10, 7, 7, 7 },
        { 2, 9, 10, 11, 5, 5 },
        { 2, 9, 10, 0, 5, 5 }
    };

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        memset(&rate, 0, sizeof(rate));

        rate.interval = 1000;
        rate.burst = cases[i].burst;
        rate.limit = cases[i].limit;
        rate.cost = cases[i].cost;

        ngx_coord_rate_share(&rate, cases[i].nodes);

        assert_int_equal(rate.burst + 1, cases[i].places);
        assert_int_equal(rate.limit, cases[i].window);
        assert_int_equal(rate.interval,
                         1000 * (cases[i].nodes ? cases[i].nodes : 1));
    }

    rate.interval = NGX_COORD_RATE_SPAN - 1;
    ngx_coord_rate_share(&rate, 64);
    assert_int_equal(rate.interval, NGX_COORD_RATE_SPAN);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(bucket_first_is_free_of_excess),
        cmocka_unit_test(bucket_holds_its_promises),
        cmocka_unit_test(bucket_cost_above_capacity_never_fits),
        cmocka_unit_test(what_is_not_taken_is_not_charged),
        cmocka_unit_test(spans_are_cut),
        cmocka_unit_test(extremes_do_not_overflow),
        cmocka_unit_test(refund_is_what_has_not_drained),
        cmocka_unit_test(refund_never_over_admits),
        cmocka_unit_test(fixed_window_answer),
        cmocka_unit_test(sliding_window_holds_its_promises),
        cmocka_unit_test(sliding_log_answer),
        cmocka_unit_test(a_share_is_a_part_and_never_nothing)
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
