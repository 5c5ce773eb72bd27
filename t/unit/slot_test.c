
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Slots of keys, and what servers say of slots: good replies, hostile ones.
 */


#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "ngx_stub.h"
#include "ngx_coord_slot.h"


static ngx_coord_resp_t  *resp;


static ngx_uint_t
slot(const char *key)
{
    ngx_str_t  s;

    s.data = (u_char *) key;
    s.len = strlen(key);

    return ngx_coord_slot(&s);
}


/* the reply that a text is, with "|" for the end of a line */

static ngx_coord_resp_value_t *
reply(const char *text)
{
    size_t                   n;
    u_char                   buf[8192];
    ngx_coord_resp_value_t  *v;

    for (n = 0; *text; text++) {
        assert_true(n < sizeof(buf) - 2);

        if (*text == '|') {
            buf[n++] = CR;
            buf[n++] = LF;

        } else {
            buf[n++] = (u_char) *text;
        }
    }

    if (resp) {
        ngx_coord_resp_destroy(resp);
    }

    resp = ngx_coord_resp_create(1 << 20, ngx_cycle->log);
    assert_non_null(resp);
    assert_int_equal(ngx_coord_resp_feed(resp, buf, n), NGX_OK);
    assert_int_equal(ngx_coord_resp_next(resp, &v), NGX_OK);

    return v;
}


static void
slots_are_those_of_redis(void **state)
{
    assert_int_equal(slot("123456789"), 0x31c3);
    assert_int_equal(slot(""), 0);
    assert_int_equal(slot("foo"), 12182);
    assert_int_equal(slot("coord:rl:one:{foo}"), 12182);
    assert_int_equal(slot("coord:cc:one:{foo}:tmp"), 12182);
    assert_int_equal(slot("a{foo}{bar}"), 12182);
    assert_int_equal(slot("{}foo"), slot("{}foo"));
    assert_int_not_equal(slot("{}foo"), slot("foo"));
    assert_int_equal(slot("foo{{bar}}zap"), slot("{bar"));
    assert_int_equal(slot("foo{bar"), slot("foo{bar"));
    assert_int_not_equal(slot("foo{bar"), slot("bar"));
}


static void
a_map_is_read(void **state)
{
    ngx_coord_slot_node_t    node;
    ngx_coord_slot_range_t   range;
    ngx_coord_resp_value_t  *v;

    v = reply("*2|*4|:0|:5460|*3|$9|127.0.0.1|:7000|$2|id|"
              "*3|$0||:7003|$2|id|"
              "*3|:5461|:16383|*4|$5|redis|:7001|$2|id|"
              "*4|$2|ip|$8|10.0.0.1|$8|hostname|$5|redis|");

    assert_int_equal(ngx_coord_slots_check(v), NGX_OK);

    assert_int_equal(ngx_coord_slot_range(ngx_coord_resp_element(v, 0),
                                          &range), NGX_OK);
    assert_int_equal(range.first, 0);
    assert_int_equal(range.last, 5460);
    assert_int_equal(range.nnodes, 2);
    assert_int_equal(ngx_coord_slot_node(range.master, &node), NGX_OK);
    assert_int_equal(node.host.len, 9);
    assert_int_equal(node.port, 7000);
    assert_int_equal(ngx_coord_slot_node(range.master + range.master->next,
                                         &node), NGX_OK);
    assert_int_equal(node.host.len, 0);

    assert_int_equal(ngx_coord_slot_range(ngx_coord_resp_element(v, 1),
                                          &range), NGX_OK);
    assert_int_equal(range.nnodes, 1);
    assert_int_equal(ngx_coord_slot_node(range.master, &node), NGX_OK);
    assert_int_equal(node.ip.len, 8);
    assert_int_equal(node.hostname.len, 5);

    /* a host that is not known: that of the server that was asked */

    v = reply("*1|*3|:0|:16383|*3|$-1|:7000|$2|id|");
    assert_int_equal(ngx_coord_slots_check(v), NGX_OK);
    v = reply("*1|*3|:0|:16383|*3|$1|?|:7000|$2|id|");
    assert_int_equal(ngx_coord_slots_check(v), NGX_OK);

    assert_int_equal(ngx_coord_slots_check(reply("*0|")), NGX_DECLINED);
}


static void
hostile_maps_are_refused(void **state)
{
    ngx_uint_t  i;

    static const char  *bad[] = {
        "$2|OK|",
        "+OK|",
        ":1|",
        "$-1|",
        "-ERR no|",
        "*1|:1|",
        "*1|*0|",
        "*1|*2|:0|:16383|",
        "*1|*3|:0|:16383|*0|",
        "*1|*3|:0|:16383|*1|$1|h|",
        "*1|*3|:0|:16383|$9|127.0.0.1|",
        "*1|*3|:0|:16384|*2|$1|h|:1|",
        "*1|*3|:-1|:5|*2|$1|h|:1|",
        "*1|*3|:6|:5|*2|$1|h|:1|",
        "*1|*3|:0|:99999999999|*2|$1|h|:1|",
        "*1|*3|$1|x|:5|*2|$1|h|:1|",
        "*1|*3|$-1|:5|*2|$1|h|:1|",
        "*2|*3|:0|:9|*2|$1|h|:1|*3|:9|:10|*2|$1|i|:1|",
        "*1|*3|:0|:9|*2|$1|h|:0|",
        "*1|*3|:0|:9|*2|$1|h|:65536|",
        "*1|*3|:0|:9|*2|$1|h|:-5|",
        "*1|*3|:0|:9|*2|$1|h|$-1|",
        "*1|*3|:0|:9|*2|:5|:1|",
        "*1|*3|:0|:9|*2|$1| |:1|",
        "*1|*3|:0|:9|*2|$4|h/..|:1|",
        "*1|*4|:0|:9|*2|$1|h|:1|*2|$1|h|:0|",
        "*1|*3|:0|:9|*4|$1|h|:1|$1|i|*2|$2|ip|$1| |"
    };

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(ngx_coord_slots_check(reply(bad[i])), NGX_ERROR);
    }
}


/* a cluster whose slots were moved about has more than a usual reply may */

static void
a_large_map_is_read(void **state)
{
    char                    *text;
    size_t                   n;
    ngx_uint_t               i;
    ngx_coord_slot_range_t   range;
    ngx_coord_resp_value_t  *v;

    text = malloc(1 << 20);
    n = sprintf(text, "*%d\r\n", NGX_COORD_SLOTS / 4);

    for (i = 0; i < NGX_COORD_SLOTS; i += 4) {
        n += sprintf(text + n, "*3\r\n:%d\r\n:%d\r\n*2\r\n$1\r\nh\r\n:%d\r\n",
                     (int) i, (int) i + 3, (int) i + 1);
    }

    if (resp) {
        ngx_coord_resp_destroy(resp);
    }

    resp = ngx_coord_resp_create(1 << 20, ngx_cycle->log);
    assert_non_null(resp);
    assert_int_equal(ngx_coord_resp_feed(resp, (u_char *) text, n), NGX_OK);
    assert_int_equal(ngx_coord_resp_next(resp, &v), NGX_ERROR);
    ngx_coord_resp_destroy(resp);

    resp = ngx_coord_resp_create(1 << 20, ngx_cycle->log);
    assert_non_null(resp);
    ngx_coord_resp_limits(resp, NGX_COORD_SLOTS, 24 * NGX_COORD_SLOTS);
    assert_int_equal(ngx_coord_resp_feed(resp, (u_char *) text, n), NGX_OK);
    assert_int_equal(ngx_coord_resp_next(resp, &v), NGX_OK);
    free(text);

    assert_int_equal(ngx_coord_slots_check(v), NGX_OK);

    v += v->next - 6;
    assert_int_equal(ngx_coord_slot_range(v, &range), NGX_OK);
    assert_int_equal(range.last, NGX_COORD_SLOTS - 1);
}


static ngx_int_t
moved(const char *text, ngx_coord_slot_moved_t *m)
{
    ngx_str_t  s;

    s.data = (u_char *) text;
    s.len = strlen(text);

    return ngx_coord_slot_moved(&s, m);
}


static void
another_node_is_named(void **state)
{
    char                    text[2048];
    ngx_uint_t              i;
    ngx_coord_slot_moved_t  m;

    static const char  *bad[] = {
        "", "MOVED", "MOVED ", "MOVED 1", "MOVED 1 ", "MOVED 1 h",
        "MOVED 1 h:", "MOVED 1 h:0", "MOVED 1 h:65536", "MOVED 1 h:1x",
        "MOVED 16384 h:1", "MOVED -1 h:1", "MOVED  h:1", "MOVED x h:1",
        "MOVED 1 h h:1", "MOVED 1 /etc:1", "ASKING", "ASK 1", "ASK x h:1",
        "moved 1 h:1", "ERR MOVED 1 h:1"
    };

    assert_int_equal(moved("MOVED 3999 127.0.0.1:6381", &m), NGX_OK);
    assert_int_equal(m.slot, 3999);
    assert_int_equal(m.ask, 0);
    assert_int_equal(m.node.port, 6381);
    assert_int_equal(m.node.host.len, 9);

    assert_int_equal(moved("ASK 16383 ::1:6381", &m), NGX_OK);
    assert_int_equal(m.ask, 1);
    assert_int_equal(m.node.host.len, 3);

    assert_int_equal(moved("MOVED 0 :6381", &m), NGX_OK);
    assert_int_equal(m.node.host.len, 0);
    assert_int_equal(moved("MOVED 0 ?:6381", &m), NGX_OK);
    assert_int_equal(m.node.host.len, 0);

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(moved(bad[i], &m), NGX_DECLINED);
    }

    sprintf(text, "MOVED 1 %01000d:1", 0);
    assert_int_equal(moved(text, &m), NGX_DECLINED);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(slots_are_those_of_redis),
        cmocka_unit_test(a_map_is_read),
        cmocka_unit_test(hostile_maps_are_refused),
        cmocka_unit_test(a_large_map_is_read),
        cmocka_unit_test(another_node_is_named)
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
