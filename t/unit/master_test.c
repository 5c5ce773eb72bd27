
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The masters that sentinels name: as many as are in use, however often they
 * change.
 */


#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdio.h>
#include <cmocka.h>

#include "ngx_stub.h"
#include "ngx_coord_redis_master.h"


static ngx_uint_t              forgotten;
static ngx_uint_t              told;
static ngx_queue_t             masters;
static ngx_queue_t             members;
static ngx_coord_redis_conf_t  conf;
static ngx_coord_redis_conn_t  conn;        /* to a sentinel */


void
ngx_coord_redis_tls_forget(ngx_coord_endpoint_t *endpoint)
{
    forgotten++;
}


void
ngx_coord_redis_conn_log(ngx_coord_redis_conn_t *c, ngx_coord_fail_e failure,
    ngx_err_t err, const char *text, ngx_str_t *detail)
{
    told++;
}


ngx_int_t
ngx_coord_endpoint_addr(ngx_str_t *host, in_port_t port, ngx_sockaddr_t *sa,
    u_char *text, ngx_addr_t *addr)
{
    return (host->data[0] >= '0' && host->data[0] <= '9') ? NGX_OK
                                                          : NGX_DECLINED;
}


static ngx_coord_redis_master_t *
named(const char *host)
{
    ngx_str_t  s;

    s.data = (u_char *) host;
    s.len = strlen(host);

    return ngx_coord_redis_master_get(&masters, &conn, &s, 6379);
}


static ngx_uint_t
count(void)
{
    ngx_uint_t    n;
    ngx_queue_t  *q;

    n = 0;

    for (q = ngx_queue_head(&masters);
         q != ngx_queue_sentinel(&masters);
         q = ngx_queue_next(q))
    {
        n++;
    }

    return n;
}


static int
setup(void **state)
{
    ngx_memzero(&conf, sizeof(conf));
    ngx_memzero(&conn, sizeof(conn));

    conn.conf = &conf;
    conn.log = *ngx_cycle->log;
    forgotten = 0;
    told = 0;

    ngx_queue_init(&masters);
    ngx_queue_init(&members);

    return 0;
}


static int
teardown(void **state)
{
    ngx_coord_redis_masters_drop(&masters, NULL, NULL);

    assert_true(ngx_queue_empty(&masters));

    return 0;
}


static void
an_address_is_one_endpoint(void **state)
{
    ngx_coord_redis_master_t  *master;

    master = named("127.0.0.1");

    assert_non_null(master);
    assert_int_equal(master->endpoint.naddrs, 1);
    assert_int_equal(master->endpoint.named, 0);
    assert_ptr_equal(named("127.0.0.1"), master);
    assert_ptr_not_equal(named("127.0.0.2"), master);

    /* a name is for the resolver */

    assert_null(named("redis.example"));
    assert_int_equal(told, 1);

    conf.resolver = (ngx_resolver_t *) &conf;
    master = named("redis.example");

    assert_non_null(master);
    assert_int_equal(master->endpoint.named, 1);
    assert_int_equal(count(), 3);
}


static void
who_was_master_is_forgotten(void **state)
{
    char                       host[16];
    ngx_uint_t                 i;
    ngx_coord_redis_conn_t     one, two;
    ngx_coord_redis_master_t  *master;

    ngx_memzero(&one, sizeof(one));
    ngx_memzero(&two, sizeof(two));

    ngx_queue_insert_tail(&members, &one.member);
    ngx_queue_insert_tail(&members, &two.member);

    master = named("10.0.0.1");
    two.endpoint = &master->endpoint;

    for (i = 2; i < 200; i++) {
        sprintf(host, "10.0.0.%d", (int) i);

        master = named(host);
        one.endpoint = &master->endpoint;

        ngx_coord_redis_masters_drop(&masters, &members, master);

        /* a connection that has not asked since then has the first one */

        assert_int_equal(count(), 2);
        assert_ptr_equal(&named("10.0.0.1")->endpoint, two.endpoint);
    }

    assert_int_equal(forgotten, 197);

    two.endpoint = &master->endpoint;
    ngx_coord_redis_masters_drop(&masters, &members, master);

    assert_int_equal(count(), 1);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test_setup_teardown(an_address_is_one_endpoint,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(who_was_master_is_forgotten,
                                        setup, teardown)
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
