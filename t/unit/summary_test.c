
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Summaries of nodes: what is written is read; anything else is refused.
 */


#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "ngx_stub.h"
#include "ngx_coord_summary.h"


static u_char  text[NGX_COORD_SUMMARY_SIZE];


static ngx_str_t
written(ngx_uint_t zones)
{
    u_char                    *p, *last;
    ngx_str_t                  s;
    ngx_uint_t                 i;
    ngx_coord_summary_t        summary;
    ngx_coord_summary_zone_t   zone;

    ngx_memzero(&summary, sizeof(summary));
    ngx_str_set(&summary.node, "web-1-0a1b2c3d");
    ngx_str_set(&summary.nginx, "1.22.1");
    summary.time = 1764100000123ULL;
    summary.uptime = 5;
    summary.workers = 2;
    summary.trouble = 1;
    summary.master = 17;
    summary.upgrades = 16;

    last = text + sizeof(text);
    p = ngx_coord_summary_write(text, last, &summary);

    ngx_memzero(&zone, sizeof(zone));
    ngx_str_set(&zone.feature, "limit_req");
    ngx_str_set(&zone.name, "a zone");
    zone.total = 100;
    zone.minute_bypassed = 7;

    for (i = 0; i < zones; i++) {
        p = ngx_coord_summary_write_zone(p, last, &zone);
    }

    s.data = text;
    s.len = p - text;

    return s;
}


static void
what_is_written_is_read(void **state)
{
    ngx_str_t                  s;
    ngx_uint_t                 n;
    ngx_coord_summary_t        summary;
    ngx_coord_summary_zone_t   zone;

    s = written(3);

    assert_int_equal(ngx_coord_summary_read(&s, &summary), NGX_OK);
    assert_int_equal(summary.node.len, 14);
    assert_memory_equal(summary.node.data, "web-1-0a1b2c3d", 14);
    assert_int_equal(summary.time, 1764100000123ULL);
    assert_int_equal(summary.uptime, 5);
    assert_int_equal(summary.workers, 2);
    assert_int_equal(summary.trouble, 1);
    assert_int_equal(summary.master, 17);
    assert_int_equal(summary.upgrades, 16);

    for (n = 0; ngx_coord_summary_zone(&summary, &zone) == NGX_OK; n++) {
        assert_int_equal(zone.total, 100);
        assert_int_equal(zone.minute_bypassed, 7);
        assert_int_equal(zone.name.len, 6);
        assert_memory_equal(zone.name.data, "a zone", 6);
    }

    assert_int_equal(n, 3);
}


static void
an_earlier_version_tells_no_processes(void **state)
{
    ngx_str_t            s;
    ngx_uint_t           i;
    ngx_coord_summary_t  summary;

    static const char  *heads[] = {
        "coord 1 n v 1 1 1 1", "coord 1 n v 1 1 1 1\n",
        "coord 1 n v 1 1 1 1 5\n", "coord 1 n v 1 1 1 1 5 x\n", NULL
    };

    for (i = 0; heads[i]; i++) {
        s.data = (u_char *) heads[i];
        s.len = ngx_strlen(heads[i]);

        assert_int_equal(ngx_coord_summary_read(&s, &summary), NGX_OK);
        assert_int_equal(summary.trouble, 1);
        assert_int_equal(summary.master, 0);
        assert_int_equal(summary.upgrades, 0);
    }
}


static void
zones_without_room_are_left_out(void **state)
{
    ngx_int_t                  rc;
    ngx_str_t                  s;
    ngx_uint_t                 n;
    ngx_coord_summary_t        summary;
    ngx_coord_summary_zone_t   zone;

    s = written(1000);

    assert_true(s.len <= sizeof(text));
    assert_int_equal(ngx_coord_summary_read(&s, &summary), NGX_OK);

    n = 0;

    while ((rc = ngx_coord_summary_zone(&summary, &zone)) == NGX_OK) {
        n++;
    }

    assert_int_equal(rc, NGX_DONE);
    assert_true(n > 100);
}


static void
anything_else_is_refused(void **state)
{
    u_char                    *copy;
    size_t                     len;
    ngx_str_t                  s;
    ngx_uint_t                 i, c;
    ngx_coord_summary_t        summary;
    ngx_coord_summary_zone_t   zone;

    static const char  *bad[] = {
        "", "\n", "coord", "coord 1", "coord 2 n v 1 1 1 1",
        "coord 1 n v 1 1 1", "coord 1 n v 1 1 1 x", "coord 1  v 1 1 1 1",
        "coord 1 n v -1 1 1 1", "coord 1 n v 1234567890123456789 1 1 1",
        "Coord 1 n v 1 1 1 1", "coord 1 n\tx v 1 1 1 1",
        "coord 1 n\x80 v 1 1 1 1",
        "coord 1 0123456789012345678901234567890123456789012345678901234567890"
        "1234 v 1 1 1 1", NULL
    };

    for (i = 0; bad[i]; i++) {
        s.data = (u_char *) bad[i];
        s.len = ngx_strlen(bad[i]);
        assert_int_equal(ngx_coord_summary_read(&s, &summary), NGX_ERROR);
    }

    /* cut anywhere, or with any byte in any place, in memory of its size */

    s = written(2);
    len = s.len;

    for (i = 0; i <= len; i++) {
        for (c = 0; c < 256; c += 5) {
            copy = malloc(i + 1);
            memcpy(copy, text, i);

            if (i) {
                copy[any(i)] = c;
            }

            s.data = copy;
            s.len = i;

            if (ngx_coord_summary_read(&s, &summary) == NGX_OK) {
                while (ngx_coord_summary_zone(&summary, &zone) == NGX_OK) {
                    assert_true(zone.name.len > 0);
                    assert_true(zone.name.data + zone.name.len <= copy + i);
                }
            }

            free(copy);
        }
    }
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(an_earlier_version_tells_no_processes),
        cmocka_unit_test(zones_without_room_are_left_out),
        cmocka_unit_test(anything_else_is_refused)
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
