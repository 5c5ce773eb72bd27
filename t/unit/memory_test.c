
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The memory store against naive models, on a clock that the test moves.
 */


#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdlib.h>
#include <cmocka.h>

#include "ngx_stub.h"
#include "ngx_coord_store.h"
#include "ngx_coord_rate.h"
#include "ngx_coord_table.h"
#include "ngx_coord_wake.h"


#define KEYS    12
#define PLACES  40
#define SEC     1000000000LL
#define SLACK  NGX_COORD_RATE_SLACK

/* coarse, so that times meet exactly */
#define TICK    (SEC / 200)


typedef struct {
    int64_t   level, at;                    /* bucket: a leaking level */
    int64_t   end, used;                    /* window */
    int64_t   count[20000];                  /* sliding, by index */
    int64_t   log[PLACES], nlog;
    uint32_t  log_id[PLACES];
    int64_t   lease[PLACES], nlease;
    uint32_t  lease_id[PLACES];
} model_t;


static uint32_t          ids;
static model_t           models[KEYS];
static ngx_shm_zone_t    shm;
static ngx_coord_zone_t  zone;

static ngx_coord_store_t  memory = {
    .actions = &ngx_coord_store_memory_actions
};

static ngx_coord_store_t  redis;


void
ngx_coord_wake(ngx_coord_zone_t *z, u_char *key, size_t len)
{
    /* nobody waits */
}


ngx_int_t
ngx_coord_id(u_char *id)
{
    memset(id, ++ids, NGX_COORD_ID_LEN);

    return NGX_OK;
}


static void
make_zone(size_t size)
{
    ngx_memzero(&zone, sizeof(zone));
    ngx_memzero(&shm, sizeof(shm));

    ngx_str_set(&zone.name, "one");
    ngx_str_set(&zone.type, "rl");

    ngx_stub_shm(&shm, size);

    shm.data = &zone;
    ngx_stub_clock = 1000 * SEC;

    assert_int_equal(ngx_coord_zone_init(&shm, NULL), NGX_OK);
    assert_non_null(zone.table);
}


static void
free_zone(void)
{
    free(shm.shm.addr);
    ngx_stub_clock = 0;
}


static ngx_int_t
run(ngx_coord_op_t *op, const ngx_coord_op_type_t *type, uint32_t key)
{
    op->type = type;
    op->zone = &zone;
    op->key_len = 4;
    ngx_memcpy(op->key, &key, 4);
    op->rc = 12345;

    ngx_coord_near_run(op);

    assert_int_equal(ngx_stub_locked, 0);
    assert_int_equal(((ngx_coord_table_t *) zone.table)->dirty, 0);

    return op->rc;
}


static void
set_id(ngx_coord_op_t *op, uint32_t id)
{
    ngx_memzero(op->id, NGX_COORD_ID_LEN);
    ngx_memcpy(op->id + 12, &id, 4);
}


/* the same rate for all turns: 10 per 1 s, burst 4, window 1 s, 6 places */

static void
step_bucket(model_t *m, uint32_t k)
{
    int64_t         now, cost;
    ngx_int_t       rc;
    ngx_coord_op_t  op;

    now = ngx_stub_clock;
    cost = 1 + any(3);

    ngx_memzero(&op, sizeof(op));
    op.u.rate.interval = SEC / 10;
    op.u.rate.burst = 4;
    op.u.rate.cost = cost;

    rc = run(&op, &ngx_coord_op_bucket_take, k);

    m->level = ngx_max(m->level - (now - m->at), 0);
    m->at = now;

    assert_int_equal(op.u.rate.excess, m->level * 1000 / (SEC / 10));

    if (m->level + cost * SEC / 10 > 5 * SEC / 10 + SLACK) {
        assert_int_equal(rc, NGX_BUSY);
        assert_int_equal(op.u.rate.retry,
                         m->level + cost * SEC / 10 - 5 * SEC / 10 - SLACK);
        assert_int_equal(op.u.rate.reset, m->level);
        return;
    }

    assert_int_equal(rc, NGX_OK);
    m->level += cost * SEC / 10;
    assert_int_equal(op.u.rate.reset, m->level);
    assert_int_equal(op.u.rate.remaining, (5 * SEC / 10 + SLACK - m->level)
                                          / (SEC / 10));

    if (any(3) == 0) {
        assert_int_equal(run(&op, &ngx_coord_op_bucket_give, k), NGX_OK);
        m->level -= cost * SEC / 10;
    }
}


static void
step_window(model_t *m, uint32_t k)
{
    int64_t         now, cost;
    ngx_int_t       rc;
    ngx_coord_op_t  op;

    now = ngx_stub_clock;
    cost = 1 + any(3);

    ngx_memzero(&op, sizeof(op));
    op.u.rate.window = SEC;
    op.u.rate.limit = 6;
    op.u.rate.cost = cost;

    rc = run(&op, &ngx_coord_op_window_take, k);

    if (m->end <= now) {
        m->end = now + SEC;
        m->used = 0;
    }

    assert_int_equal(rc, m->used + cost > 6 ? NGX_BUSY : NGX_OK);
    assert_int_equal(op.u.rate.retry, rc == NGX_BUSY ? m->end - now : 0);
    assert_int_equal(op.u.rate.reset, m->end - now);

    if (rc == NGX_OK) {
        m->used += cost;
    }

    assert_int_equal(op.u.rate.remaining, 6 - m->used);

    if (rc == NGX_OK && any(3) == 0) {
        ngx_stub_clock += TICK * any(50);
        run(&op, &ngx_coord_op_window_give, k);

        if (ngx_stub_clock < m->end) {
            m->used -= cost;
        }
    }
}


static void
step_sliding(model_t *m, uint32_t k)
{
    int64_t         now, cost, i, rest, weighed;
    ngx_int_t       rc;
    ngx_coord_op_t  op;

    now = ngx_stub_clock;
    cost = 1 + any(3);
    i = now / SEC - 1000 + 2;
    assert_true(i < 20000);

    ngx_memzero(&op, sizeof(op));
    op.u.rate.window = SEC;
    op.u.rate.limit = 6;
    op.u.rate.cost = cost;

    rc = run(&op, &ngx_coord_op_sliding_take, k);

    /* a window of one second makes the weight the nanoseconds left in it */

    rest = SEC - now % SEC;
    weighed = m->count[i - 1] * rest + (m->count[i] + cost) * SEC;

    assert_int_equal(rc, weighed > 6 * SEC ? NGX_BUSY : NGX_OK);

    if (rc == NGX_OK) {
        m->count[i] += cost;
        weighed = m->count[i - 1] * rest + m->count[i] * SEC;
        assert_int_equal(op.u.rate.remaining, (6 * SEC - weighed) / SEC);

        if (any(3) == 0) {
            ngx_stub_clock += TICK * any(300);
            run(&op, &ngx_coord_op_sliding_give, k);
            m->count[i] -= cost;
        }

    } else {
        assert_true(op.u.rate.retry > 0 && op.u.rate.retry <= 2 * SEC);
    }
}


static void
step_log(model_t *m, uint32_t k)
{
    int64_t         now, i, n, oldest;
    ngx_int_t       rc;
    ngx_coord_op_t  op;

    now = ngx_stub_clock;

    ngx_memzero(&op, sizeof(op));
    op.u.rate.window = SEC;
    op.u.rate.limit = 9;
    op.u.rate.cost = 1;
    set_id(&op, ++ids);

    rc = run(&op, &ngx_coord_op_log_take, k);

    oldest = now;

    for (i = 0, n = 0; i < m->nlog; i++) {
        if (m->log[i] > now - SEC) {
            m->log_id[n] = m->log_id[i];
            m->log[n++] = m->log[i];
            oldest = ngx_min(oldest, m->log[i]);
        }
    }

    m->nlog = n;

    assert_int_equal(rc, n >= 9 ? NGX_BUSY : NGX_OK);

    if (rc == NGX_BUSY) {
        assert_int_equal(op.u.rate.retry, oldest + SEC - now);
        assert_int_equal(op.u.rate.remaining, 0);
        return;
    }

    m->log_id[n] = ids;
    m->log[n++] = now;
    m->nlog = n;
    assert_int_equal(op.u.rate.remaining, 9 - n);

    if (any(4) == 0) {
        i = any(n);
        set_id(&op, m->log_id[i]);
        run(&op, &ngx_coord_op_log_give, k);
        m->nlog--;
        m->log[i] = m->log[m->nlog];
        m->log_id[i] = m->log_id[m->nlog];
    }
}


static void
step_lease(model_t *m, uint32_t k)
{
    int64_t         now, i, n;
    ngx_int_t       rc;
    ngx_coord_op_t  op;

    now = ngx_stub_clock;

    ngx_memzero(&op, sizeof(op));
    op.u.lease.limit = 7;
    op.u.lease.lease = SEC * (1 + any(3));

    if (any(3) == 0 && m->nlease) {
        i = any(m->nlease);
        set_id(&op, m->lease_id[i]);

        if (any(2)) {
            run(&op, &ngx_coord_op_lease_release, k);
            m->nlease--;
            m->lease[i] = m->lease[m->nlease];
            m->lease_id[i] = m->lease_id[m->nlease];
            return;
        }

        rc = run(&op, &ngx_coord_op_lease_renew, k);

        if (m->lease[i] > now) {
            assert_int_equal(rc, NGX_OK);
        }

        if (rc == NGX_OK) {
            m->lease[i] = now + op.u.lease.lease;
        }

        return;
    }

    set_id(&op, ++ids);
    rc = run(&op, &ngx_coord_op_lease_acquire, k);

    for (i = 0, n = 0; i < m->nlease; i++) {
        if (m->lease[i] > now) {
            m->lease_id[n] = m->lease_id[i];
            m->lease[n++] = m->lease[i];
        }
    }

    m->nlease = n;

    assert_int_equal(rc, n >= 7 ? NGX_BUSY : NGX_OK);

    if (rc == NGX_OK) {
        m->lease_id[n] = ids;
        m->lease[n++] = now + op.u.lease.lease;
        m->nlease = n;
    }

    assert_int_equal(op.u.lease.current, n);
}


static void
all_operations_match_naive_models(void **state)
{
    uint32_t            i, k;
    ngx_coord_op_t      op;
    ngx_coord_table_t  *t;

    make_zone(1 << 20);
    t = zone.table;
    ngx_memzero(models, sizeof(models));

    for (i = 0; i < 100000; i++) {
        k = any(KEYS);
        ngx_stub_clock += TICK * (any(20) ? any(3) : any(200));

        switch (any(5)) {
        case 0: step_bucket(&models[k], k); break;
        case 1: step_window(&models[k], k); break;
        case 2: step_sliding(&models[k], k); break;
        case 3: step_log(&models[k], k); break;
        case 4: step_lease(&models[k], k); break;
        }
    }

    /* what has expired is swept up as fast as new keys come */

    ngx_stub_clock += 10 * SEC;

    for (i = 0; i < 40000; i++) {
        ngx_memzero(&op, sizeof(op));
        op.u.rate.window = SEC / 1000;
        op.u.rate.limit = 1;
        op.u.rate.cost = 1;
        run(&op, &ngx_coord_op_window_take, 1000 + i);
        ngx_stub_clock += SEC / 100;
    }

    assert_true(t->nentries < t->ncells / 2);

    /* buckets that have drained are known for a while, and no loss */

    for (i = 0; i < 40000; i++) {
        ngx_memzero(&op, sizeof(op));
        op.u.rate.interval = 1;
        run(&op, &ngx_coord_op_bucket_take, 50000 + i);
        ngx_stub_clock += 10;
    }

    assert_int_equal(t->evictions, 0);

    ngx_stub_clock += 20 * SEC;

    for (i = 0; i < 2000; i++) {
        ngx_memzero(&op, sizeof(op));
        op.u.rate.interval = 1;
        run(&op, &ngx_coord_op_bucket_take, 100000 + i);
        ngx_stub_clock += SEC / 10;
    }

    assert_true(t->nentries < t->ncells / 2);
    assert_int_equal(t->evictions, 0);

    free_zone();
}


static void
cost_above_the_limit_never_fits(void **state)
{
    ngx_coord_op_t  op;

    make_zone(65536);

    ngx_memzero(&op, sizeof(op));
    op.u.rate.interval = SEC;
    op.u.rate.burst = 2;
    op.u.rate.window = SEC;
    op.u.rate.limit = 3;
    op.u.rate.cost = 4;

    assert_int_equal(run(&op, &ngx_coord_op_bucket_take, 1), NGX_BUSY);
    assert_int_equal(op.u.rate.retry, 0);
    assert_int_equal(run(&op, &ngx_coord_op_window_take, 1), NGX_BUSY);
    assert_int_equal(run(&op, &ngx_coord_op_sliding_take, 1), NGX_BUSY);

    ngx_memzero(&op, sizeof(op));
    assert_int_equal(run(&op, &ngx_coord_op_lease_acquire, 1), NGX_BUSY);

    assert_int_equal(((ngx_coord_table_t *) zone.table)->nentries, 0);

    free_zone();
}


static void
full_of_leases_refuses_logged_once_a_second(void **state)
{
    uint32_t            i, granted;
    ngx_coord_op_t      op;
    ngx_coord_table_t  *t;

    make_zone(65536);
    t = zone.table;
    ngx_stub_logged = 0;
    granted = 0;

    for (i = 0; i < 2000; i++) {
        ngx_memzero(&op, sizeof(op));
        op.u.lease.limit = 3;
        op.u.lease.lease = 100 * SEC;
        set_id(&op, i + 1);
        ngx_stub_clock += 1000000;

        if (run(&op, &ngx_coord_op_lease_acquire, i) == NGX_OK) {
            granted++;
            continue;
        }

        assert_int_equal(op.rc, NGX_BUSY);
        assert_int_equal(op.failure, NGX_COORD_FAIL_FULL);
    }

    assert_int_equal(granted, t->ncells / 2);
    assert_int_equal(t->evictions, 0);
    assert_true(ngx_stub_logged >= 1 && ngx_stub_logged <= 3);

    /* and none of them was lost */

    for (i = 0; i < granted; i++) {
        set_id(&op, i + 1);
        assert_int_equal(run(&op, &ngx_coord_op_lease_renew, i), NGX_OK);
    }

    free_zone();
}


static void
full_of_rates_evicts(void **state)
{
    uint32_t        i, n;
    ngx_coord_op_t  op;

    /* what Redis knows may be forgotten; the only copy is worth a line */

    for (n = 0; n < 2; n++) {
        make_zone(65536);
        zone.store = n ? &memory : &redis;
        ngx_stub_logged = 0;

        for (i = 0; i < 5000; i++) {
            ngx_memzero(&op, sizeof(op));
            op.u.rate.interval = 100 * SEC;
            op.u.rate.cost = 1;

            assert_int_equal(run(&op, &ngx_coord_op_bucket_take, i), NGX_OK);
        }

        assert_int_equal(ngx_stub_logged, n);
        assert_true(((ngx_coord_table_t *) zone.table)->evictions > 0);

        free_zone();
    }
}


static void
reload_keeps_the_table(void **state)
{
    ngx_coord_op_t    op;
    ngx_shm_zone_t    shm2;
    ngx_coord_zone_t  zone2;

    make_zone(65536);

    ngx_memzero(&op, sizeof(op));
    op.u.rate.interval = 100 * SEC;
    op.u.rate.cost = 1;
    assert_int_equal(run(&op, &ngx_coord_op_bucket_take, 5), NGX_OK);

    shm2 = shm;
    zone2 = zone;
    zone2.table = NULL;
    shm2.data = &zone2;

    assert_int_equal(ngx_coord_zone_init(&shm2, &zone), NGX_OK);
    assert_ptr_equal(zone2.table, zone.table);
    assert_int_equal(run(&op, &ngx_coord_op_bucket_take, 5), NGX_BUSY);

    ngx_stub_logged = 0;
    ngx_str_set(&zone2.type, "cc");
    assert_int_equal(ngx_coord_zone_init(&shm2, &zone), NGX_ERROR);
    assert_int_equal(ngx_stub_logged, 1);

    /* the same name and type are recognized in memory that is there */

    zone2.table = NULL;
    shm2.shm.exists = 1;
    assert_int_equal(ngx_coord_zone_init(&shm2, NULL), NGX_ERROR);

    ngx_str_set(&zone2.type, "rl");
    assert_int_equal(ngx_coord_zone_init(&shm2, NULL), NGX_OK);
    assert_ptr_equal(zone2.table, zone.table);

    free_zone();
}


static void
a_dead_holder_is_noticed_and_repaired(void **state)
{
    ngx_coord_op_t      op;
    ngx_coord_table_t  *t;

    make_zone(65536);
    t = zone.table;

    ngx_memzero(&op, sizeof(op));
    op.u.rate.interval = 100 * SEC;
    op.u.rate.cost = 1;
    assert_int_equal(run(&op, &ngx_coord_op_bucket_take, 5), NGX_OK);

    ngx_memset(ngx_coord_table_buckets(t), 0xee,
               t->nbuckets * sizeof(uint32_t));
    t->free = 0xeeeeeeee;
    t->dirty = 1;
    ngx_stub_logged = 0;

    assert_int_equal(run(&op, &ngx_coord_op_bucket_take, 5), NGX_BUSY);
    assert_int_equal(ngx_stub_logged, 1);
    assert_int_equal(run(&op, &ngx_coord_op_bucket_take, 6), NGX_OK);
    assert_int_equal(ngx_stub_logged, 1);

    free_zone();
}


/* a result for which there is no room leaves the key as its run left it */

static void
a_result_without_room_frees_no_key(void **state)
{
    ngx_coord_op_t  op;

    make_zone(1 << 16);

    ngx_memzero(&op, sizeof(op));
    set_id(&op, 1);
    op.u.claim.lease = 10 * SEC;
    op.u.claim.ttl = 100 * SEC;
    op.u.claim.keep = 1;

    assert_int_equal(run(&op, &ngx_coord_op_claim, 7), NGX_OK);

    op.record.len = 1 << 20;
    op.record.data = calloc(1, op.record.len);

    assert_int_equal(run(&op, &ngx_coord_op_claim_complete, 7), NGX_ERROR);

    free(op.record.data);
    ngx_str_null(&op.record);

    set_id(&op, 2);
    assert_int_equal(run(&op, &ngx_coord_op_claim, 7), NGX_BUSY);
    assert_int_equal(op.u.claim.state, NGX_COORD_CLAIM_RUNNING);

    ngx_stub_clock += 11 * SEC;

    assert_int_equal(run(&op, &ngx_coord_op_claim, 7), NGX_BUSY);
    assert_int_equal(op.u.claim.state, NGX_COORD_CLAIM_LAPSED);

    free_zone();
}


/* a request costs the same however long the log is */

static void
a_long_log_is_not_walked(void **state)
{
    uint32_t         i;
    ngx_coord_op_t   op;
    clock_t          a, b, c;

    make_zone(4 << 20);

    a = b = clock();

    ngx_memzero(&op, sizeof(op));
    op.u.rate.limit = 60000;
    op.u.rate.window = 1000 * SEC;
    op.u.rate.cost = 1;

    for (i = 0; i < 60000; i++) {

        if (i == 2000) {
            b = clock();
        }

        ngx_stub_clock += 1000;
        set_id(&op, i);
        assert_int_equal(run(&op, &ngx_coord_op_log_take, 9), NGX_OK);
        assert_int_equal(op.u.rate.remaining, 59999 - i);
    }

    c = clock();

    assert_int_equal(run(&op, &ngx_coord_op_log_take, 9), NGX_BUSY);

    /* 58000 requests, not 58000 walks of a growing log */

    assert_true(c - b < 300 * (b - a) + CLOCKS_PER_SEC / 2);

    free_zone();
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(a_result_without_room_frees_no_key),
        cmocka_unit_test(a_long_log_is_not_walked),
        cmocka_unit_test(all_operations_match_naive_models),
        cmocka_unit_test(cost_above_the_limit_never_fits),
        cmocka_unit_test(full_of_leases_refuses_logged_once_a_second),
        cmocka_unit_test(full_of_rates_evicts),
        cmocka_unit_test(reload_keeps_the_table),
        cmocka_unit_test(a_dead_holder_is_noticed_and_repaired)
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
