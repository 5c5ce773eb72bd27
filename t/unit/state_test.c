
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The states of a request with its leases, and of a response that is captured,
 * walked.
 */


#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "ngx_http_coord_capture_state.c"
#include "ngx_http_coord_lease_state.c"


#define bit(state)  ngx_coord_edge(NGX_HTTP_COORD_LEASES_##state)
#define seen(state)  ngx_coord_edge(NGX_HTTP_COORD_CAPTURE_##state)


/* all that can be reached from a set of states without one of those barred */

static ngx_coord_edges_t
walked(const ngx_coord_edges_t *edges, ngx_uint_t n, ngx_coord_edges_t set,
    ngx_coord_edges_t barred)
{
    ngx_uint_t         i;
    ngx_coord_edges_t  before;

    do {
        before = set;

        for (i = 0; i < n; i++) {

            if (set & ngx_coord_edge(i)) {
                set |= edges[i] & ~barred;
            }
        }

    } while (set != before);

    return set;
}


static ngx_coord_edges_t
reached(ngx_coord_edges_t set, ngx_coord_edges_t barred)
{
    return walked(ngx_http_coord_leases_edges, NGX_HTTP_COORD_LEASES_STATES,
                  set, barred);
}


static ngx_coord_edges_t
captured(ngx_coord_edges_t set)
{
    return walked(ngx_http_coord_capture_edges, NGX_HTTP_COORD_CAPTURE_STATES,
                  set, 0);
}


static void
each_is_reached_and_ends(void **state)
{
    ngx_uint_t  i;

    assert_int_equal(reached(bit(ASKED), 0),
                     ngx_coord_edge(NGX_HTTP_COORD_LEASES_STATES) - 1);

    for (i = 0; i < NGX_HTTP_COORD_LEASES_STATES; i++) {
        assert_true(reached(ngx_coord_edge(i), 0) & bit(SETTLED));
    }
}


/* what is in flight is waited for, whatever comes behind it */

static void
who_has_asked_waits_for_the_answer(void **state)
{
    assert_false(reached(bit(TURN_ASKED), bit(TURN_ANSWERED))
                 & ~(bit(TURN_ASKED) | bit(SETTLED)));
    assert_false(reached(bit(REST_ASKED), bit(REST_ANSWERED))
                 & ~(bit(REST_ASKED) | bit(SETTLED)));
}


/* the others are asked for by who has its turn, and it has stood in line */

static void
who_waits_has_stood_in_line(void **state)
{
    assert_false(reached(bit(ASKED), bit(LINE))
                 & (bit(TURN) | bit(WAITING) | bit(REST)));
    assert_false(reached(bit(ASKED), bit(TURN_ANSWERED))
                 & (bit(WAITING) | bit(REST)));
}


/* the end is the end: who has settled or failed begins nothing any more */

static void
the_end_is_the_end(void **state)
{
    assert_int_equal(reached(bit(SETTLED), 0), bit(SETTLED));
    assert_int_equal(reached(bit(FAILED), 0), bit(FAILED) | bit(SETTLED));
}


/* what has an end, whole or cut, has one; what passes is not copied again */

static void
a_response_ends_once(void **state)
{
    ngx_uint_t  i, over;

    assert_int_equal(captured(seen(NONE)),
                     ngx_coord_edge(NGX_HTTP_COORD_CAPTURE_STATES) - 1);
    assert_int_equal(captured(seen(PASSING)),
                     seen(PASSING) | seen(WHOLE) | seen(CUT));
    assert_int_equal(captured(seen(WATCHING)),
                     seen(WATCHING) | seen(WHOLE) | seen(CUT));

    for (i = 0; i < NGX_HTTP_COORD_CAPTURE_STATES; i++) {
        over = (i == NGX_HTTP_COORD_CAPTURE_WHOLE
                || i == NGX_HTTP_COORD_CAPTURE_CUT);

        assert_int_equal(ngx_http_coord_capture_over(i), over);
    }
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(each_is_reached_and_ends),
        cmocka_unit_test(who_has_asked_waits_for_the_answer),
        cmocka_unit_test(who_waits_has_stood_in_line),
        cmocka_unit_test(the_end_is_the_end),
        cmocka_unit_test(a_response_ends_once)
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
