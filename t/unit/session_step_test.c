
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The steps of a request with its session.
 */


#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "ngx_coord_session_step.c"


/* the steps of a request: those that may follow do, and no others */

static void
steps_follow_their_edges(void **state)
{
    uint32_t                  reached;
    ngx_uint_t                from, to, ends;
    ngx_coord_session_step_e  step;

    reached = 1u << NGX_COORD_SESSION_NAMED | 1u << NGX_COORD_SESSION_ABSENT;
    ends = 0;

    for (from = 0; from < NGX_COORD_SESSION_STEPS; from++) {
        reached |= ngx_coord_session_steps[from];
        ends += (ngx_coord_session_steps[from] == 0);

        for (to = 0; to < NGX_COORD_SESSION_STEPS; to++) {
            step = from;

            if (ngx_coord_session_steps[from] & (1u << to)) {
                assert_int_equal(ngx_coord_session_step(&step, to), NGX_OK);
                assert_int_equal(step, to);

            } else {
                assert_int_equal(ngx_coord_session_step(&step, to), NGX_ERROR);
                assert_int_equal(step, from);
            }
        }
    }

    assert_int_equal(reached, (1u << NGX_COORD_SESSION_STEPS) - 1);
    assert_int_equal(ends, 2);

    /* nobody who was refused goes on, and nobody is let in unread */

    assert_int_equal(ngx_coord_session_steps[NGX_COORD_SESSION_REFUSED], 0);

    for (from = 0; from < NGX_COORD_SESSION_STEPS; from++) {
        if (from == NGX_COORD_SESSION_NAMED
            || from == NGX_COORD_SESSION_READING
            || from == NGX_COORD_SESSION_UNSURE
            || from == NGX_COORD_SESSION_WRITING)
        {
            assert_false(ngx_coord_session_steps[from]
                         & (1u << NGX_COORD_SESSION_PASSED));
        }
    }
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(steps_follow_their_edges)
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
