
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * What processes tell each other in shared memory: as it was written, or not
 * at all; and the servers of Redis that are told so.
 */


#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "ngx_stub.h"
#include "ngx_coord_redis_known.h"


uint32_t                  ngx_crc32_table256[256];

static ngx_coord_known_t  known;
static u_char             buf[NGX_COORD_KNOWN_SIZE];


static ngx_str_t
text(const char *s)
{
    ngx_str_t  str;

    str.data = (u_char *) s;
    str.len = strlen(s);

    return str;
}


static void
put(uint32_t about, const char *s)
{
    ngx_str_t  str = text(s);

    ngx_coord_known_put(&known, about, &str);
}


/* 1 if that is what is known; NULL: nothing is */

static int
is(uint32_t about, const char *s)
{
    ngx_str_t  str;

    if (ngx_coord_known_get(&known, about, buf, &str) != NGX_OK) {
        return s == NULL;
    }

    return s && str.len == strlen(s) && memcmp(str.data, s, str.len) == 0;
}


static int
begin(void **state)
{
    memset(&known, 0, sizeof(known));

    return 0;
}


static void
a_text_is_read_as_it_was_written(void **state)
{
    char       large[NGX_COORD_KNOWN_SIZE + 2];
    ngx_str_t  str;

    assert_true(is(1, NULL));

    put(1, "one");
    assert_true(is(1, "one"));

    put(1, "another");
    assert_true(is(1, "another"));

    /* what is no text changes nothing */

    put(1, "");
    assert_true(is(1, "another"));

    memset(large, 'a', sizeof(large));
    large[NGX_COORD_KNOWN_SIZE + 1] = '\0';
    put(1, large);
    assert_true(is(1, "another"));

    large[NGX_COORD_KNOWN_SIZE] = '\0';
    put(1, large);
    assert_true(is(1, large));

    str = text("x");
    ngx_coord_known_put(NULL, 1, &str);
    assert_int_equal(ngx_coord_known_get(NULL, 1, buf, &str), NGX_DECLINED);
}


static void
of_something_else_nothing_is_known(void **state)
{
    put(1, "one");
    assert_true(is(2, NULL));

    put(2, "two");
    assert_true(is(2, "two"));
    assert_true(is(1, NULL));
}


/* a process was killed at any byte, or two have written at once */

static void
half_a_text_is_none(void **state)
{
    size_t             i;
    ngx_coord_known_t  before, after;

    put(1, "127.0.0.1 1");
    before = known;
    put(1, "127.0.0.22 2");
    after = known;

    for (i = 1; i < sizeof(uint32_t) * 2 + 12; i++) {
        known = before;
        memcpy(&known, &after, i);

        if (memcmp(&known, &before, sizeof(known)) == 0
            || memcmp(&known, &after, sizeof(known)) == 0)
        {
            continue;
        }

        assert_true(is(1, NULL));

        put(1, "127.0.0.22 2");
        assert_true(is(1, "127.0.0.22 2"));
    }

    known.len = (uint32_t) -1;
    assert_true(is(1, NULL));
}


static void
servers_are_read_as_they_were_added(void **state)
{
    char                     name[200];
    size_t                   n, left;
    ngx_coord_slot_node_t    node;
    ngx_coord_redis_known_t  list;

    ngx_coord_redis_known_init(&list);

    node.host = text("10.0.0.1");
    node.hostname = text("redis-0.example");
    node.ip = text("");
    node.port = 6379;
    ngx_coord_redis_known_add(&list, &node);

    node.host = text("::1");
    node.hostname = text("");
    node.ip = text("::1");
    node.port = 65535;
    ngx_coord_redis_known_add(&list, &node);

    assert_int_equal(ngx_coord_redis_known_next(&list, &node), NGX_OK);
    assert_int_equal(node.port, 6379);
    assert_int_equal(node.host.len, 8);
    assert_memory_equal(node.hostname.data, "redis-0.example", 15);
    assert_int_equal(node.hostname.len, 15);
    assert_int_equal(node.ip.len, 0);

    assert_int_equal(ngx_coord_redis_known_next(&list, &node), NGX_OK);
    assert_int_equal(node.port, 65535);
    assert_memory_equal(node.host.data, "::1", 3);
    assert_int_equal(node.hostname.len, 0);
    assert_int_equal(node.ip.len, 3);

    assert_int_equal(ngx_coord_redis_known_next(&list, &node), NGX_DONE);

    /* as many as there is room for */

    memset(name, 'h', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';

    ngx_coord_redis_known_init(&list);

    for (n = 0; n < 20; n++) {
        node.host = text(name);
        node.hostname = text("");
        node.ip = text("");
        ngx_coord_redis_known_add(&list, &node);
    }

    assert_true(list.text.len <= NGX_COORD_KNOWN_SIZE);

    for (left = 0; ngx_coord_redis_known_next(&list, &node) == NGX_OK; left++) {
        assert_int_equal(node.host.len, sizeof(name) - 1);
    }

    assert_int_equal(left, NGX_COORD_KNOWN_SIZE / (sizeof(name) + 10));
}


static void
what_is_no_list_has_no_servers(void **state)
{
    size_t                   i;
    ngx_coord_slot_node_t    node;
    ngx_coord_redis_known_t  list;

    static const char  *bad[] = {
        "", "\n", "6379\n", "6379 h\n", "6379 h -\n", "0 h - -\n",
        "65536 h - -\n", "x h - -\n", "6379 - - -\n", "6379  - -\n",
        "6379 h/ - -\n", "6379 h - -", " 6379 h - -\n"
    };

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        ngx_coord_redis_known_init(&list);
        list.text.len = strlen(bad[i]);
        memcpy(list.buf, bad[i], list.text.len);

        assert_int_equal(ngx_coord_redis_known_next(&list, &node), NGX_DONE);
    }
}


static void
who_is_asked_has_a_number(void **state)
{
    uint32_t                 host, path;
    ngx_addr_t               addr;
    ngx_array_t              servers;
    ngx_coord_endpoint_t     endpoint, *elts[1];
    ngx_coord_redis_conf_t   conf;

    memset(&addr, 0, sizeof(addr));
    memset(&conf, 0, sizeof(conf));
    memset(&servers, 0, sizeof(servers));
    memset(&endpoint, 0, sizeof(endpoint));

    elts[0] = &endpoint;
    servers.elts = elts;
    servers.nelts = 1;
    conf.servers = &servers;

    endpoint.addrs = &addr;
    endpoint.host = text("redis");
    host = ngx_coord_redis_conf_sum(&conf);
    assert_int_equal(ngx_coord_redis_conf_sum(&conf), host);

    endpoint.port = 1;
    assert_int_not_equal(ngx_coord_redis_conf_sum(&conf), host);

    conf.master = text("another");
    path = ngx_coord_redis_conf_sum(&conf);
    endpoint.host = text("");
    addr.name = text("unix:/a");
    assert_int_not_equal(ngx_coord_redis_conf_sum(&conf), path);

    path = ngx_coord_redis_conf_sum(&conf);
    addr.name = text("unix:/b");
    assert_int_not_equal(ngx_coord_redis_conf_sum(&conf), path);
}


/* that of ngx_crc32.c */

static void
crc_table(void)
{
    uint32_t    c;
    ngx_uint_t  i, bit;

    for (i = 0; i < 256; i++) {

        for (c = i, bit = 0; bit < 8; bit++) {
            c = (c & 1) ? (c >> 1) ^ 0xedb88320 : c >> 1;
        }

        ngx_crc32_table256[i] = c;
    }
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test_setup(a_text_is_read_as_it_was_written, begin),
        cmocka_unit_test_setup(of_something_else_nothing_is_known, begin),
        cmocka_unit_test_setup(half_a_text_is_none, begin),
        cmocka_unit_test(servers_are_read_as_they_were_added),
        cmocka_unit_test(what_is_no_list_has_no_servers),
        cmocka_unit_test(who_is_asked_has_a_number)
    };

    crc_table();

    return cmocka_run_group_tests(tests, NULL, NULL);
}
