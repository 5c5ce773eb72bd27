
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The life of a run: every edge of its picture, and no other.
 */


#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <string.h>
#include <cmocka.h>

#include "ngx_coord_run.h"


static const char  states[] = "IAWGHKBFUS";

/* as ngx_coord_run.h draws them */
static const char  *edges[] = {
    "IA", "IB", "AW", "AG", "AH", "AB", "WA", "WB", "GA", "GB",
    "HK", "HF", "HU", "KK", "KS", "KF", "KU", NULL
};


static int
drawn(int from, int to)
{
    const char  **e;

    for (e = edges; *e; e++) {
        if ((*e)[0] == states[from] && (*e)[1] == states[to]) {
            return 1;
        }
    }

    return 0;
}


static void
every_edge_and_no_other(void **state)
{
    int  from, to;

    assert_int_equal(strlen(states), NGX_COORD_RUN_STATES);

    for (from = 0; from < NGX_COORD_RUN_STATES; from++) {
        for (to = 0; to < NGX_COORD_RUN_STATES; to++) {
            assert_int_equal(ngx_coord_run_edge(from, to), drawn(from, to));
        }
    }
}


/* nothing runs without a claim, and every life ends once */

static void
walk(int from, unsigned seen, int *ends)
{
    int  to, left;

    left = 0;

    for (to = 0; to < NGX_COORD_RUN_STATES; to++) {

        if (!ngx_coord_run_edge(from, to)) {
            continue;
        }

        left = 1;

        if (!(seen & (1u << to))) {
            walk(to, seen | 1u << to, ends);
        }
    }

    if (!left) {
        ends[from]++;

        if (from != NGX_COORD_RUN_BARRED) {
            assert_true(seen & (1u << NGX_COORD_RUN_ASKED));
            assert_true(seen & (1u << NGX_COORD_RUN_HELD));
        }

        if (from == NGX_COORD_RUN_STORED) {
            assert_true(seen & (1u << NGX_COORD_RUN_KEEPING));
        }
    }
}


static void
every_life_has_an_end(void **state)
{
    int  n, ends[NGX_COORD_RUN_STATES];

    memset(ends, 0, sizeof(ends));

    walk(NGX_COORD_RUN_IDLE, 1u << NGX_COORD_RUN_IDLE, ends);

    for (n = 0; n < NGX_COORD_RUN_STATES; n++) {
        assert_int_equal(ends[n] > 0, n >= NGX_COORD_RUN_BARRED);
    }
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(every_edge_and_no_other),
        cmocka_unit_test(every_life_has_an_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
