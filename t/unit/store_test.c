
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Batches and both stores.  The Redis client is played by the test, which
 * decides when an answer comes; the answers are those of a real Redis on a
 * unix socket.
 */


#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "test_redis.h"
#include "ngx_coord_batch.h"
#include "ngx_coord_deny.h"
#include "ngx_coord_giveback.h"
#include "ngx_coord_lives.h"
#include "ngx_coord_script.h"
#include "ngx_coord_store_redis.h"
#include "ngx_coord_channel.h"


#define SEC    1000000000LL
#define CALLS  64


typedef struct {
    ngx_coord_redis_call_t  *call;
    u_char                  *data;
    size_t                   len;
} pending_t;


static ngx_uint_t                refuse;       /* the client sends nothing */
static ngx_uint_t                by_slot;      /* the last byte of a key */
static pending_t                 pending[CALLS];
static ngx_uint_t                npending;
static ngx_uint_t                handled;
static ngx_coord_store_stats_t   stats;
static ngx_cycle_t               cycle;
static ngx_shm_zone_t            shm;
static ngx_coord_store_t         redis;
static ngx_coord_store_redis_t   data;
static ngx_coord_auth_t          auth;
static ngx_array_t               servers;    /* none */
static ngx_coord_store_t         memory;
static ngx_coord_zone_t          zone;         /* of redis */
static ngx_coord_zone_t          local;        /* of memory */


/* nobody subscribes here */

ngx_int_t
ngx_coord_channel_init(ngx_coord_store_t *store)
{
    return NGX_OK;
}


void
ngx_coord_wake(ngx_coord_zone_t *z, u_char *key, size_t len)
{
}


/* the client */

ngx_uint_t
ngx_coord_redis_ready(ngx_coord_redis_t *r)
{
    return 1;
}


ngx_uint_t
ngx_coord_redis_serves(ngx_coord_redis_t *r, ngx_uint_t slot)
{
    return 1;
}


void
ngx_coord_redis_open_bulk(ngx_coord_redis_t *r, ngx_uint_t slot)
{
}


ngx_coord_redis_t *
ngx_coord_redis_create(ngx_coord_redis_conf_t *conf,
    ngx_coord_store_stats_t *st, ngx_coord_known_t *known,
    ngx_coord_refusal_t *refusal, ngx_cycle_t *cy)
{
    return (ngx_coord_redis_t *) &redis;
}


void
ngx_coord_redis_destroy(ngx_coord_redis_t *r)
{
    pending_t  *p;

    while (npending) {
        p = &pending[--npending];
        p->call->failure = NGX_COORD_FAIL_CONNECT;
        p->call->handler(p->call, NGX_ERROR, NULL);
        free(p->data);
    }
}


void
ngx_coord_redis_push(ngx_coord_redis_t *r)
{
}


ngx_coord_nsec_t
ngx_coord_redis_now(ngx_coord_redis_t *r, ngx_uint_t slot)
{
    return ngx_stub_clock;
}


ngx_uint_t
ngx_coord_redis_slot(ngx_coord_redis_t *r, ngx_str_t *tag)
{
    return by_slot ? tag->data[tag->len - 1] : 0;
}


ngx_int_t
ngx_coord_redis_topology(ngx_coord_redis_t *r, ngx_pool_t *pool,
    ngx_coord_topology_t *topology)
{
    return NGX_DECLINED;
}


ngx_uint_t
ngx_coord_redis_apart(ngx_coord_redis_t *r)
{
    return 0;
}


ngx_int_t
ngx_coord_redis_send(ngx_coord_redis_t *r, ngx_coord_redis_call_t *call)
{
    size_t      size;
    u_char     *end;
    pending_t  *p;

    if (refuse) {
        call->failure = NGX_COORD_FAIL_BREAKER;
        return NGX_ERROR;
    }

    assert_true(npending < CALLS);
    p = &pending[npending++];
    size = call->room;
    call->now = ngx_coord_redis_now(r, call->slot);
    p->call = call;
    p->data = malloc(size);
    end = call->encode(call, p->data);
    p->len = end - p->data;

    assert_true(p->len <= size);

    call->sent = 1;

    return NGX_AGAIN;
}


static void
deliver_one(void)
{
    ngx_uint_t               i;
    pending_t                p;
    ngx_coord_resp_value_t  *v;

    p = pending[0];
    npending--;
    memmove(pending, pending + 1, npending * sizeof(pending_t));

    assert_int_equal(raw("MULTI")->type, NGX_COORD_RESP_STATUS);
    put(p.data, p.len);

    for (i = 0; i < p.call->ncommands; i++) {
        v = reply();
        assert_int_equal(v->type, NGX_COORD_RESP_STATUS);
    }

    v = raw("EXEC");
    assert_int_equal(v->type, NGX_COORD_RESP_ARRAY);
    assert_int_equal(v->integer, p.call->ncommands);

    p.call->handler(p.call, NGX_OK, v + 1);
    free(p.data);
}


static void
deliver(void)
{
    ngx_coord_store_push(&redis);

    while (npending) {
        deliver_one();
    }
}


/* a call that has no answer; without left it was refused, and to be moved */

static void
fail_one(ngx_coord_fail_e failure, ngx_uint_t left)
{
    pending_t  p;

    ngx_coord_store_push(&redis);

    p = pending[0];
    npending--;
    memmove(pending, pending + 1, npending * sizeof(pending_t));

    p.call->sent = left;
    p.call->failure = failure;
    p.call->handler(p.call, NGX_ERROR, NULL);
    free(p.data);
}


/* all that is to be given back, with the questions that it takes */

static void
settle(void)
{
    ngx_uint_t  i;

    for (i = 0; i < 8; i++) {
        ngx_stub_pass(100);
        ngx_stub_run_posted();
        deliver();
        ngx_stub_run_posted();
    }
}


static void
expire(void)
{
    ngx_uint_t  i;

    ngx_coord_store_push(&redis);

    for (i = 0; i < npending; i++) {
        pending[i].call->state = NGX_COORD_CALL_LATE;
        pending[i].call->expired(pending[i].call);
    }
}


/* all keys are gone, and this worker knows of none */

static void
flush(void)
{
    raw("FLUSHALL");
    ngx_coord_lives_reset();
}


static int
setup(void **state)
{
    ngx_memzero(&redis, sizeof(redis));
    ngx_memzero(&data, sizeof(data));
    ngx_memzero(&memory, sizeof(memory));
    ngx_memzero(&zone, sizeof(zone));
    ngx_memzero(&shm, sizeof(shm));

    ngx_stub_clock = 1700000000 * SEC;
    cycle.log = ngx_cycle->log;
    refuse = 0;
    by_slot = 0;
    handled = 0;

    redis.actions = &ngx_coord_store_redis_actions;
    redis.stats = &stats;
    redis.data = &data;
    redis.timeout = 50;
    data.conf.auth = &auth;
    data.conf.servers = &servers;
    ngx_str_set(&redis.name, "main");
    memory.actions = &ngx_coord_store_memory_actions;
    memory.stats = &stats;

    ngx_str_set(&zone.name, "z");
    ngx_str_set(&zone.type, "rl");
    ngx_str_set(&zone.key_head, "t:rl:z:{");
    zone.store = &redis;

    ngx_stub_shm(&shm, 1 << 20);
    shm.data = &zone;

    assert_int_equal(ngx_coord_zone_init(&shm, NULL), NGX_OK);

    local = zone;
    local.store = &memory;

    assert_int_equal(ngx_coord_store_init(&redis, &cycle), NGX_OK);
    assert_int_equal(ngx_coord_store_init(&memory, &cycle), NGX_OK);

    flush();

    return 0;
}


static int
teardown(void **state)
{
    ngx_coord_store_exit(&redis);
    ngx_coord_store_exit(&memory);

    assert_int_equal(npending, 0);

    free(shm.shm.addr);
    ngx_stub_clock = 0;

    return 0;
}


static void
handler(ngx_coord_batch_t *batch)
{
    handled++;
}


static ngx_coord_batch_t *
batch_of(ngx_coord_zone_t *z)
{
    ngx_coord_batch_t  *batch;

    batch = ngx_coord_batch_create(z->store);
    batch->handler = handler;

    return batch;
}


static ngx_coord_op_t *
add(ngx_coord_batch_t *batch, const ngx_coord_op_type_t *type,
    ngx_coord_zone_t *z, const char *key)
{
    ngx_coord_op_t  *op;

    op = ngx_coord_batch_add(batch, type, z, (u_char *) key, strlen(key));

    if (type->kind == NGX_COORD_KIND_LEASE) {
        op->u.lease.limit = 1;
        op->u.lease.lease = 10 * SEC;

    } else {
        op->u.rate.interval = SEC;
        op->u.rate.limit = 1;
        op->u.rate.window = 100 * SEC;
        op->u.rate.cost = 1;
    }

    assert_int_equal(ngx_coord_id(op->id), NGX_OK);

    return op;
}


/* one operation with limit 1, waited for */

static ngx_int_t
take(const ngx_coord_op_type_t *type, ngx_coord_zone_t *z, const char *key)
{
    ngx_int_t           rc;
    ngx_coord_batch_t  *batch;

    batch = batch_of(z);
    add(batch, type, z, key);

    if (ngx_coord_batch_send(batch) == NGX_AGAIN) {

        do {
            deliver();
            ngx_stub_run_posted();
        } while (batch->ops[0].rc == NGX_AGAIN);
    }

    rc = batch->ops[0].rc;
    ngx_coord_batch_done(batch);

    return rc;
}


static void
results_come_from_a_posted_event(void **state)
{
    ngx_coord_batch_t  *batch;

    batch = batch_of(&zone);
    add(batch, &ngx_coord_op_bucket_take, &zone, "a");
    add(batch, &ngx_coord_op_lease_acquire, &zone, "a2");
    add(batch, &ngx_coord_op_window_take, &zone, "a3");

    assert_int_equal(ngx_coord_batch_send(batch), NGX_AGAIN);

    deliver();
    assert_int_equal(handled, 0);

    ngx_stub_run_posted();
    assert_int_equal(handled, 1);

    assert_int_equal(batch->ops[0].rc, NGX_OK);
    assert_int_equal(batch->ops[0].source, NGX_COORD_SOURCE_REDIS);
    assert_int_equal(batch->ops[1].rc, NGX_OK);
    assert_int_equal(batch->ops[1].u.lease.current, 1);
    assert_int_equal(batch->ops[2].rc, NGX_OK);

    /* and giving back frees all of it */

    assert_int_equal(take(&ngx_coord_op_lease_acquire, &zone, "a2"), NGX_BUSY);
    ngx_coord_batch_undo(batch, 0, 3);
    ngx_stub_run_posted();
    deliver();
    ngx_coord_batch_done(batch);

    assert_int_equal(take(&ngx_coord_op_bucket_take, &zone, "a"), NGX_OK);
    assert_int_equal(take(&ngx_coord_op_bucket_take, &zone, "a"), NGX_BUSY);
    assert_int_equal(take(&ngx_coord_op_lease_acquire, &zone, "a2"), NGX_OK);
    assert_int_equal(take(&ngx_coord_op_window_take, &zone, "a3"), NGX_OK);
}


static void
places_of_the_dead_are_free(void **state)
{
    ngx_uint_t          i;
    ngx_coord_batch_t  *batch;

    raw("ZADD t:rl:z:{f} 1 a 2 b");

    assert_int_equal(take(&ngx_coord_op_lease_acquire, &zone, "f"), NGX_OK);
    assert_int_equal(take(&ngx_coord_op_lease_acquire, &zone, "f"), NGX_BUSY);
    assert_int_equal(raw("ZCARD t:rl:z:{f}")->integer, 1);

    /* its place is found to be over each time, and taken by somebody else */

    raw("ZADD t:rl:z:{f} +inf other");

    batch = batch_of(&zone);
    add(batch, &ngx_coord_op_lease_acquire, &zone, "f");
    assert_int_equal(ngx_coord_batch_send(batch), NGX_AGAIN);

    for (i = 0; batch->ops[0].rc == NGX_AGAIN || i == 0; i++) {
        assert_true(i < 20);
        raw("ZADD t:rl:z:{f} 1 dead");
        deliver();
        ngx_stub_run_posted();
    }

    assert_int_equal(batch->ops[0].rc, NGX_ERROR);
    ngx_coord_batch_done(batch);
    settle();
    assert_int_equal(raw("ZCARD t:rl:z:{f}")->integer, 2);
}


static void
no_answer_ends_by_the_policy(void **state)
{
    ngx_coord_op_t     *op;
    ngx_coord_batch_t  *batch;

    refuse = 1;

    batch = batch_of(&zone);
    add(batch, &ngx_coord_op_bucket_take, &zone, "b");
    op = add(batch, &ngx_coord_op_bucket_take, &zone, "b2");
    op->on_failure = NGX_COORD_FAILURE_LOCAL;
    op = add(batch, &ngx_coord_op_lease_renew, &zone, "b3");
    op->on_failure = NGX_COORD_FAILURE_LOCAL;

    assert_int_equal(ngx_coord_batch_send(batch), NGX_OK);

    op = batch->ops;
    assert_int_equal(op[0].rc, NGX_ERROR);
    assert_int_equal(op[0].failure, NGX_COORD_FAIL_BREAKER);
    assert_int_equal(op[1].rc, NGX_OK);
    assert_int_equal(op[1].source, NGX_COORD_SOURCE_FALLBACK);
    assert_int_equal(op[2].rc, NGX_ERROR);

    /* what memory gave goes back to memory, also while Redis is well */

    assert_int_equal(take(&ngx_coord_op_bucket_take, &local, "b2"), NGX_BUSY);
    refuse = 0;
    ngx_coord_op_undo(&op[1]);
    assert_int_equal(npending, 0);
    assert_int_equal(take(&ngx_coord_op_bucket_take, &local, "b2"), NGX_OK);

    ngx_coord_batch_done(batch);
    assert_int_equal(handled, 0);

    data.client = NULL;
    assert_int_equal(take(&ngx_coord_op_bucket_take, &zone, "b"), NGX_ERROR);
    data.client = (ngx_coord_redis_t *) &redis;
}


static void
a_late_lease_goes_back_a_late_place_stays(void **state)
{
    ngx_uint_t          early;
    ngx_coord_op_t     *op;
    ngx_coord_batch_t  *batch;

    for (early = 0; early < 2; early++) {
        flush();
        handled = 0;

        batch = batch_of(&zone);
        op = add(batch, &ngx_coord_op_bucket_take, &zone, "c");
        op = add(batch, &ngx_coord_op_lease_acquire, &zone, "c2");
        op->on_failure = NGX_COORD_FAILURE_LOCAL;
        op->u.lease.limit = 2;

        assert_int_equal(ngx_coord_batch_send(batch), NGX_AGAIN);

        expire();
        assert_int_equal(handled, 0);
        ngx_stub_run_posted();
        assert_int_equal(handled, 1);

        op = batch->ops;
        assert_int_equal(op[0].rc, NGX_ERROR);
        assert_int_equal(op[0].failure, NGX_COORD_FAIL_TIMEOUT);
        assert_int_equal(op[1].rc, NGX_OK);
        assert_int_equal(op[1].source, NGX_COORD_SOURCE_FALLBACK);

        if (early) {
            ngx_coord_batch_done(batch);
        }

        deliver();
        ngx_stub_pass(100);
        assert_int_equal(handled, 1);
        deliver();

        if (!early) {
            assert_int_equal(op[1].source, NGX_COORD_SOURCE_FALLBACK);
            ngx_coord_batch_done(batch);
        }

        assert_int_equal(take(&ngx_coord_op_bucket_take, &zone, "c"),
                         NGX_BUSY);
        assert_int_equal(take(&ngx_coord_op_lease_acquire, &zone, "c2"),
                         NGX_OK);
    }
}


/* a key that somebody has removed is made anew, and never without a life */

static void
a_key_that_is_gone_is_made_anew(void **state)
{
    ngx_uint_t               when;
    ngx_coord_batch_t       *batch;

    assert_int_equal(take(&ngx_coord_op_bucket_take, &zone, "l"), NGX_OK);
    assert_int_equal(take(&ngx_coord_op_bucket_take, &zone, "l"), NGX_BUSY);

    raw("FLUSHALL");

    assert_int_equal(take(&ngx_coord_op_bucket_take, &zone, "l"), NGX_OK);
    assert_true(raw("PTTL t:rl:z:{l}")->integer > 0);

    /* the caller has gone, before the one command is answered or behind it */

    for (when = 0; when < 3; when++) {
        flush();
        (void) take(&ngx_coord_op_bucket_take, &zone, "l");
        raw("FLUSHALL");

        batch = batch_of(&zone);
        add(batch, &ngx_coord_op_bucket_take, &zone, "l");
        assert_int_equal(ngx_coord_batch_send(batch), NGX_AGAIN);

        if (when == 0) {
            expire();
            ngx_stub_run_posted();
        }

        if (when == 1) {
            ngx_coord_batch_done(batch);
        }

        deliver();

        assert_int_equal(raw("PTTL t:rl:z:{l}")->integer, -1);

        if (when != 1) {
            ngx_coord_batch_done(batch);
        }

        ngx_stub_run_posted();
        ngx_stub_pass(100);
        deliver();
        ngx_stub_run_posted();
        deliver();
        ngx_stub_run_posted();

        assert_true(raw("PTTL t:rl:z:{l}")->integer > 0);
    }
}


/* what is left to ask does not leave, or is refused */

static void
a_take_that_has_begun_is_mended(void **state)
{
    ngx_uint_t          when;
    ngx_coord_batch_t  *batch;

    for (when = 0; when < 4; when++) {
        flush();
        (void) take(&ngx_coord_op_bucket_take, &zone, "m");
        raw("FLUSHALL");

        batch = batch_of(&zone);
        add(batch, &ngx_coord_op_bucket_take, &zone, "m");
        assert_int_equal(ngx_coord_batch_send(batch), NGX_AGAIN);
        deliver();

        assert_int_equal(batch->ops[0].rc, NGX_AGAIN);
        assert_int_equal(raw("PTTL t:rl:z:{m}")->integer, -1);

        if (when == 0) {
            refuse = 1;
            ngx_stub_run_posted();
            refuse = 0;

        } else {
            ngx_stub_run_posted();
            assert_int_equal(npending, 1);

            if (when == 1) {
                fail_one(NGX_COORD_FAIL_CONNECT, 0);

            } else if (when == 2) {
                fail_one(NGX_COORD_FAIL_TIMEOUT, 0);

            } else {
                fail_one(NGX_COORD_FAIL_ERROR, 1);
            }

            ngx_stub_run_posted();
        }

        assert_int_equal(batch->ops[0].rc, NGX_ERROR);
        ngx_coord_batch_done(batch);

        settle();

        assert_true(raw("PTTL t:rl:z:{m}")->integer > 0);
    }
}


/* one place of a bucket, waited for */

static ngx_int_t
take_of(const char *key, ngx_uint_t burst)
{
    ngx_int_t           rc;
    ngx_coord_op_t     *op;
    ngx_coord_batch_t  *batch;

    batch = batch_of(&zone);
    op = add(batch, &ngx_coord_op_bucket_take, &zone, key);
    op->u.rate.burst = burst;

    assert_int_equal(ngx_coord_batch_send(batch), NGX_AGAIN);

    do {
        deliver();
        ngx_stub_run_posted();
    } while (batch->ops[0].rc == NGX_AGAIN);

    rc = batch->ops[0].rc;
    ngx_coord_batch_done(batch);

    return rc;
}


/* a block does not fit, the request itself does */

static void
a_block_that_does_not_fit_shortens_no_life(void **state)
{
    ngx_uint_t  i;

    for (i = 0; i < 3; i++) {
        assert_int_equal(take_of("s", 9), NGX_OK);
    }

    zone.deny = 1;
    zone.prefetch = 50;

    assert_int_equal(take_of("s", 5), NGX_OK);
    assert_true(raw("PTTL t:rl:z:{s}")->integer > 15000);

    ngx_coord_lives_reset();
    ngx_stub_clock += SEC / 4;

    raw("CONFIG RESETSTAT");
    assert_int_equal(take_of("s", 5), NGX_OK);

    /* with the block and without it, and the life in between */

    assert_non_null(strstr((char *) raw("INFO commandstats")->str.data,
                           "cmdstat_bitfield:calls=2,"));
    settle();
    assert_true(raw("PTTL t:rl:z:{s}")->integer > 15000);
}


/* what stands in a bucket of ten places */

static ngx_int_t
places(const char *key)
{
    ngx_coord_op_t     *op;
    ngx_uint_t          free;
    ngx_coord_batch_t  *batch;

    batch = batch_of(&zone);
    op = add(batch, &ngx_coord_op_bucket_peek, &zone, key);
    op->u.rate.burst = 9;

    assert_int_equal(ngx_coord_batch_send(batch), NGX_AGAIN);
    deliver();
    ngx_stub_run_posted();

    assert_int_equal(batch->ops[0].rc, NGX_OK);
    free = batch->ops[0].u.rate.remaining;
    ngx_coord_batch_done(batch);

    return 10 - free;
}


/* the last question, the life of the key, is not answered */

static void
a_place_is_given_back_once(void **state)
{
    ngx_uint_t          when, i;
    ngx_coord_op_t     *op, one;
    ngx_coord_batch_t  *batch;

    for (when = 0; when < 4; when++) {
        flush();

        for (i = 0; i < 3; i++) {
            assert_int_equal(take_of("o", 9), NGX_OK);
        }

        batch = batch_of(&zone);
        op = add(batch, &ngx_coord_op_bucket_take, &zone, "o");
        op->u.rate.burst = 9;
        assert_int_equal(ngx_coord_batch_send(batch), NGX_AGAIN);
        deliver();
        ngx_stub_run_posted();
        assert_int_equal(batch->ops[0].rc, NGX_OK);
        one = batch->ops[0];
        ngx_coord_batch_done(batch);

        assert_true(raw("PTTL t:rl:z:{o}")->integer > 15000);

        /* by a caller who knows of a smaller burst: a give, or a charge */

        one.u.rate.burst = 2;

        if (when < 2) {
            ngx_coord_op_undo(&one);

        } else {
            one.u.rate.force = 1;
            one.u.rate.life = 0;
            ngx_coord_giveback_op(&one, 10 * SEC);
        }

        ngx_stub_run_posted();
        assert_int_equal(npending, 1);
        deliver_one();

        i = places("o");
        assert_int_equal(i, when < 2 ? 3 : 5);
        assert_true(raw("PTTL t:rl:z:{o}")->integer < 15000);

        ngx_stub_run_posted();
        assert_int_equal(npending, 1);
        fail_one(NGX_COORD_FAIL_CONNECT, when & 1);

        settle();

        assert_int_equal(places("o"), i);
        assert_true(raw("PTTL t:rl:z:{o}")->integer > 15000);
    }
}


static void
a_cancelled_batch_gives_all_back(void **state)
{
    ngx_uint_t          when;
    ngx_coord_batch_t  *batch;

    for (when = 0; when < 4; when++) {
        flush();
        handled = 0;

        batch = batch_of(&zone);
        add(batch, &ngx_coord_op_bucket_take, &zone, "d");
        add(batch, &ngx_coord_op_lease_acquire, &zone, "d2");
        add(batch, &ngx_coord_op_sliding_take, &zone, "d3");
        add(batch, &ngx_coord_op_log_take, &zone, "d4");

        assert_int_equal(ngx_coord_batch_send(batch), NGX_AGAIN);

        if (when == 1) {
            deliver();              /* answered, not told yet */

        } else if (when == 2) {
            expire();               /* expired, not told yet */
        }

        ngx_coord_batch_done(batch);

        if (when == 3) {
            expire();               /* expired after it was given up */
        }

        deliver();
        ngx_stub_run_posted();
        deliver();

        assert_int_equal(handled, 0);
        assert_int_equal(take(&ngx_coord_op_bucket_take, &zone, "d"), NGX_OK);
        assert_int_equal(take(&ngx_coord_op_lease_acquire, &zone, "d2"),
                         NGX_OK);
        assert_int_equal(take(&ngx_coord_op_sliding_take, &zone, "d3"),
                         NGX_OK);
        assert_int_equal(take(&ngx_coord_op_log_take, &zone, "d4"), NGX_OK);
    }
}


/* and it does so once, when there is an answer */

static void
a_cancelled_batch_costs_one_release(void **state)
{
    ngx_uint_t          i;
    ngx_coord_batch_t  *batch;

    for (i = 0; i < 2; i++) {
        batch = batch_of(&zone);
        add(batch, &ngx_coord_op_lease_acquire, &zone, "r");

        assert_int_equal(ngx_coord_batch_send(batch), NGX_AGAIN);
        ngx_coord_batch_done(batch);

        if (i == 0) {
            deliver();

        } else {
            fail_one(NGX_COORD_FAIL_CONNECT, 0);    /* it has not left */
        }

        ngx_stub_run_posted();

        assert_int_equal(npending, 1 - i);
        deliver();
        ngx_stub_run_posted();
        assert_int_equal(raw("EXISTS t:rl:z:{r}")->integer, 0);

        /* nothing is left to be done */

        ngx_stub_pass(100);
        assert_int_equal(npending, 0);
        assert_int_equal(ngx_stub_ntimers, 0);
    }
}


/* those who ask for leases of one key are one call, a holder by itself */

static void
who_asks_again_asks_alone(void **state)
{
    ngx_uint_t          i;
    ngx_coord_op_t     *op[3];
    ngx_coord_batch_t  *batch[3];

    for (i = 0; i < 3; i++) {
        batch[i] = batch_of(&zone);
        op[i] = add(batch[i], &ngx_coord_op_lease_acquire, &zone, "h");
        op[i]->u.lease.limit = 2;
        op[i]->again = (i == 1);

        assert_int_equal(ngx_coord_batch_send(batch[i]), NGX_AGAIN);
    }

    ngx_stub_run_posted();
    assert_int_equal(npending, 2);

    deliver();
    ngx_stub_run_posted();

    /* what was found last is sent last */

    assert_int_equal(op[1]->rc, NGX_OK);
    assert_int_equal(op[1]->u.lease.current, 1);
    assert_int_equal(op[0]->rc, NGX_OK);
    assert_int_equal(op[0]->u.lease.current, 2);
    assert_int_equal(op[2]->rc, NGX_BUSY);

    for (i = 0; i < 3; i++) {
        op[i]->again = 0;
        ngx_coord_batch_undo(batch[i], 0, 1);
        ngx_coord_batch_done(batch[i]);
    }

    ngx_stub_run_posted();
    deliver();
    ngx_stub_pass(100);
    deliver();

    assert_int_equal(raw("EXISTS t:rl:z:{h}")->integer, 0);
}


/* whatever numbers a server tells of those who have asked together */

static void
numbers_that_cannot_be_true(void **state)
{
    ngx_int_t                rc;
    ngx_uint_t               i, n, nth;
    ngx_coord_op_t           op;
    ngx_coord_resp_value_t   value[8], *values[8];

    static const int64_t  numbers[] = { INT64_MIN, -1, 0, 1, 2, 3, INT64_MAX };

    static const ngx_uint_t  told[2][4] = {
        { NGX_COORD_LEASE_ACQUIRE_ROOM_REPLY,
          NGX_COORD_LEASE_ACQUIRE_GRANTED_REPLY,
          NGX_COORD_LEASE_ACQUIRE_DROPPED_REPLY,
          NGX_COORD_LEASE_ACQUIRE_USED_REPLY },
        { NGX_COORD_SLIDING_LOG_TAKE_ROOM_REPLY,
          NGX_COORD_SLIDING_LOG_TAKE_GRANTED_REPLY,
          NGX_COORD_SLIDING_LOG_TAKE_REFUSED_REPLY,
          NGX_COORD_SLIDING_LOG_TAKE_USED_REPLY }
    };

    for (i = 0; i < 2 * 2 * 7 * 7 * 7 * 7; i++) {
        memset(&op, 0, sizeof(op));
        memset(value, 0, sizeof(value));

        for (n = 0; n < 8; n++) {
            value[n].type = NGX_COORD_RESP_INTEGER;
            values[n] = &value[n];
        }

        nth = i / 2 % 2;
        op.zone = &zone;
        op.type = i % 2 ? &ngx_coord_op_log_take : &ngx_coord_op_lease_acquire;
        op.nth = nth;
        op.behind = 1;

        if (i % 2) {
            op.u.rate.interval = SEC;
            op.u.rate.limit = 2;
            op.u.rate.window = 100 * SEC;
            op.u.rate.cost = 1;
            value[NGX_COORD_SLIDING_LOG_TAKE_FIRST_REPLY].type =
                                                        NGX_COORD_RESP_ARRAY;
        } else {
            op.u.lease.limit = 2;
            op.u.lease.lease = 10 * SEC;
        }

        value[told[i % 2][0]].integer = numbers[i / 4 % 7];
        value[told[i % 2][1]].integer = numbers[i / 4 / 7 % 7];
        value[told[i % 2][2]].integer = numbers[i / 4 / 49 % 7];
        value[told[i % 2][3]].integer = numbers[i / 4 / 343 % 7];

        rc = op.type->parse(&op, values, 1000 * SEC);

        /* granted is who is among the first ones, and nobody else */

        if (rc == NGX_OK) {
            assert_true(value[told[i % 2][1]].integer > (int64_t) nth);
            assert_true(value[told[i % 2][1]].integer <= 2);

        } else if (rc != NGX_ERROR) {
            assert_true(value[told[i % 2][1]].integer <= (int64_t) nth);
            assert_true(value[told[i % 2][1]].integer >= 0);
        }
    }
}


/* what is in other slots is another call, but of the same batch */

static void
the_parts_of_a_batch_end_together(void **state)
{
    ngx_uint_t          when;
    ngx_coord_op_t     *op;
    ngx_coord_batch_t  *batch;

    by_slot = 1;

    for (when = 0; when < 5; when++) {
        raw("FLUSHALL");
        handled = 0;

        batch = batch_of(&zone);
        add(batch, &ngx_coord_op_lease_acquire, &zone, "p1");
        add(batch, &ngx_coord_op_lease_acquire, &zone, "p2");
        add(batch, &ngx_coord_op_lease_acquire, &zone, "q1");
        add(batch, &ngx_coord_op_lease_acquire, &zone, "p3");

        assert_int_equal(ngx_coord_batch_send(batch), NGX_AGAIN);
        ngx_stub_run_posted();          /* the turn ends */
        assert_int_equal(npending, 3);
        assert_int_equal(pending[0].call->ncommands,
                         2 * pending[1].call->ncommands);

        op = batch->ops;

        if (when == 0) {
            deliver();

        } else if (when == 1) {
            deliver_one();          /* one part in time */
            ngx_stub_run_posted();
            assert_int_equal(handled, 0);
            expire();

        } else if (when == 2) {
            deliver_one();          /* and nobody waits for the others */
            ngx_coord_batch_done(batch);

        } else if (when == 3) {
            expire();
            ngx_stub_run_posted();
            deliver_one();
            ngx_coord_batch_done(batch);

        } else {
            pending[0].call->state = NGX_COORD_CALL_LATE;
            pending[0].call->expired(pending[0].call);
            deliver_one();          /* late, but before the others */
            ngx_stub_run_posted();
            assert_int_equal(handled, 0);
            deliver();
        }

        ngx_stub_run_posted();

        assert_int_equal(handled, when != 2);

        if (when == 0) {
            assert_int_equal(op[0].rc, NGX_OK);
            assert_int_equal(op[1].rc, NGX_OK);
            assert_int_equal(op[2].rc, NGX_OK);
            assert_int_equal(op[3].rc, NGX_OK);

        } else if (when == 1) {
            assert_int_equal(op[0].rc, NGX_OK);
            assert_int_equal(op[1].failure, NGX_COORD_FAIL_TIMEOUT);
            assert_int_equal(op[2].rc, NGX_OK);
            assert_int_equal(op[3].failure, NGX_COORD_FAIL_TIMEOUT);

        } else if (when == 4) {
            assert_int_equal(op[0].failure, NGX_COORD_FAIL_TIMEOUT);
            assert_int_equal(op[1].rc, NGX_OK);
            assert_int_equal(op[2].failure, NGX_COORD_FAIL_TIMEOUT);
            assert_int_equal(op[3].rc, NGX_OK);
        }

        if (when == 0 || when == 1 || when == 4) {
            ngx_coord_batch_undo(batch, 0, 4);
            ngx_coord_batch_done(batch);
        }

        deliver();
        ngx_stub_pass(100);
        deliver();

        assert_int_equal(take(&ngx_coord_op_lease_acquire, &zone, "p1"),
                         NGX_OK);
        assert_int_equal(take(&ngx_coord_op_lease_acquire, &zone, "p2"),
                         NGX_OK);
        assert_int_equal(take(&ngx_coord_op_lease_acquire, &zone, "q1"),
                         NGX_OK);
        assert_int_equal(take(&ngx_coord_op_lease_acquire, &zone, "p3"),
                         NGX_OK);
    }
}


static void
a_wrong_key_only_fails_its_own_operation(void **state)
{
    ngx_coord_op_t     *op;
    ngx_coord_batch_t  *batch;

    raw("SET t:rl:z:{e} something");
    raw("LPUSH t:rl:z:{e2} something");

    batch = batch_of(&zone);
    add(batch, &ngx_coord_op_lease_acquire, &zone, "e");
    add(batch, &ngx_coord_op_lease_acquire, &zone, "e1");
    op = add(batch, &ngx_coord_op_bucket_take, &zone, "e2");
    op->on_failure = NGX_COORD_FAILURE_LOCAL;

    assert_int_equal(ngx_coord_batch_send(batch), NGX_AGAIN);
    deliver();
    ngx_stub_run_posted();

    op = batch->ops;
    assert_int_equal(op[0].rc, NGX_ERROR);
    assert_int_equal(op[0].failure, NGX_COORD_FAIL_ERROR);
    assert_int_equal(op[1].rc, NGX_OK);
    assert_int_equal(op[1].source, NGX_COORD_SOURCE_REDIS);
    assert_int_equal(op[2].rc, NGX_OK);
    assert_int_equal(op[2].source, NGX_COORD_SOURCE_FALLBACK);

    ngx_coord_batch_done(batch);
}


static void
many_operations_and_no_handler(void **state)
{
    char                key[16];
    ngx_uint_t          i;
    ngx_coord_batch_t  *batch;

    batch = ngx_coord_batch_create(&redis);

    for (i = 0; i < 30; i++) {
        sprintf(key, "f%d", (int) i);
        add(batch, &ngx_coord_op_bucket_take, &zone, key);
    }

    assert_int_equal(ngx_coord_batch_send(batch), NGX_AGAIN);
    deliver();
    ngx_stub_run_posted();

    assert_int_equal(take(&ngx_coord_op_bucket_take, &zone, "f0"), NGX_BUSY);
    assert_int_equal(take(&ngx_coord_op_bucket_take, &zone, "f29"), NGX_BUSY);
    assert_int_equal(take(&ngx_coord_op_bucket_take, &zone, "f30"), NGX_OK);

    /* left in flight for the exit */

    batch = ngx_coord_batch_create(&redis);
    add(batch, &ngx_coord_op_bucket_take, &zone, "f31");
    assert_int_equal(ngx_coord_batch_send(batch), NGX_AGAIN);
}


/* what is known of many refused keys is dropped without holding others up */

static void
all_refusals_are_dropped_in_steps(void **state)
{
    char             key[16];
    ngx_uint_t       i, locks;
    ngx_coord_op_t   op;

    ngx_memzero(&op, sizeof(op));
    op.zone = &zone;
    ngx_str_set(&redis.deny, "t:deny");

    for (i = 0; i < 3000; i++) {
        op.key_len = sprintf(key, "n%d", (int) i);
        ngx_memcpy(op.key, key, op.key_len);
        ngx_coord_deny_keep(&op, 7, ngx_stub_clock, 60 * SEC);
        assert_int_equal(ngx_coord_deny_find(&op, ngx_stub_clock), 7);
    }

    locks = ngx_stub_locks;
    ngx_coord_deny_drop_all(&zone);
    assert_int_equal(ngx_stub_locks - locks, 3);

    /* one that comes later is found, and no other with it */

    for (i = 3000; i > 0; i--) {
        op.key_len = sprintf(key, "n%d", (int) i);
        ngx_memcpy(op.key, key, op.key_len);

        if (i == 3000) {
            ngx_coord_deny_keep(&op, 8, ngx_stub_clock, 60 * SEC);
        }

        assert_int_equal(ngx_coord_deny_find(&op, ngx_stub_clock),
                         i == 3000 ? 8 : 0);
    }
}


/* every way that a batch goes is one of the table, and no other is */

static void
a_batch_goes_the_ways_of_the_table(void **state)
{
    ngx_uint_t  from, to, ways;

    static const struct {
        ngx_coord_batch_state_e  from, to;
    } known[] = {
        { NGX_COORD_BATCH_NEW, NGX_COORD_BATCH_IN_FLIGHT },
        { NGX_COORD_BATCH_NEW, NGX_COORD_BATCH_COMPLETE },
        { NGX_COORD_BATCH_NEW, NGX_COORD_BATCH_ENDED },
        { NGX_COORD_BATCH_IN_FLIGHT, NGX_COORD_BATCH_AGAIN },
        { NGX_COORD_BATCH_IN_FLIGHT, NGX_COORD_BATCH_LATE },
        { NGX_COORD_BATCH_IN_FLIGHT, NGX_COORD_BATCH_POSTED },
        { NGX_COORD_BATCH_IN_FLIGHT, NGX_COORD_BATCH_CANCELLED },
        { NGX_COORD_BATCH_IN_FLIGHT, NGX_COORD_BATCH_LEFT },
        { NGX_COORD_BATCH_IN_FLIGHT, NGX_COORD_BATCH_ENDED },
        { NGX_COORD_BATCH_AGAIN, NGX_COORD_BATCH_IN_FLIGHT },
        { NGX_COORD_BATCH_AGAIN, NGX_COORD_BATCH_COMPLETE },
        { NGX_COORD_BATCH_AGAIN, NGX_COORD_BATCH_ENDED },
        { NGX_COORD_BATCH_LATE, NGX_COORD_BATCH_LATE_SEEN },
        { NGX_COORD_BATCH_LATE, NGX_COORD_BATCH_POSTED },
        { NGX_COORD_BATCH_LATE, NGX_COORD_BATCH_CANCELLED },
        { NGX_COORD_BATCH_LATE_SEEN, NGX_COORD_BATCH_COMPLETE },
        { NGX_COORD_BATCH_LATE_SEEN, NGX_COORD_BATCH_LEFT },
        { NGX_COORD_BATCH_POSTED, NGX_COORD_BATCH_COMPLETE },
        { NGX_COORD_BATCH_POSTED, NGX_COORD_BATCH_ENDED },
        { NGX_COORD_BATCH_COMPLETE, NGX_COORD_BATCH_ENDED },
        { NGX_COORD_BATCH_CANCELLED, NGX_COORD_BATCH_ENDED },
        { NGX_COORD_BATCH_LEFT, NGX_COORD_BATCH_ENDED }
    };

    for (ways = 0; ways < sizeof(known) / sizeof(known[0]); ways++) {
        assert_true(ngx_coord_edge_known(ngx_coord_batch_edges,
                                         known[ways].from, known[ways].to));
    }

    for (from = 0; from < NGX_COORD_BATCH_STATES; from++) {
        for (to = 0; to < NGX_COORD_BATCH_STATES; to++) {
            ways -= ngx_coord_edge_known(ngx_coord_batch_edges, from, to);
        }
    }

    assert_int_equal(ways, 0);
}


static void
both_stores_answer_the_same(void **state)
{
    char                key[16];
    uint64_t            i, undo;
    ngx_coord_op_t             *a, *b;
    ngx_coord_batch_t          *one, *two;
    const ngx_coord_op_type_t  *type;

    static ngx_coord_op_t  held[50];
    static ngx_uint_t      nheld;

    static const ngx_coord_op_type_t  *types[] = {
        &ngx_coord_op_bucket_take,
        &ngx_coord_op_window_take,
        &ngx_coord_op_sliding_take,
        &ngx_coord_op_log_take,
        &ngx_coord_op_lease_acquire
    };

    for (i = 0; i < 6000; i++) {
        ngx_stub_clock += any(10) ? any(50000) * 1000 : any(2000000) * 1000;

        type = types[any(5)];
        sprintf(key, "%d.%d", (int) type->kind, (int) any(4));

        one = batch_of(&zone);
        two = batch_of(&local);

        a = add(one, type, &zone, key);
        b = add(two, type, &local, key);

        if (type == &ngx_coord_op_lease_acquire) {
            a->u.lease.limit = 3 + any(2);
            a->u.lease.lease = (1 + any(3)) * SEC / 4;

            if (nheld && any(3) == 0) {
                *a = held[any(nheld)];
                a->rc = 0;
                a->source = 0;
                a->sent = 0;
                a->type = any(2) ? &ngx_coord_op_lease_renew
                                 : &ngx_coord_op_lease_release;
            }

        } else {
            a->u.rate.interval = SEC / 10;
            a->u.rate.burst = 3;
            a->u.rate.limit = 5;
            a->u.rate.window = (type == &ngx_coord_op_window_take)
                               ? 100000 * SEC : SEC;
            a->u.rate.cost = (type == &ngx_coord_op_log_take) ? 1 : 1 + any(4);
        }

        if (type == &ngx_coord_op_bucket_take) {
            a->u.rate.cost = any(5);
            a->u.rate.look = (any(5) == 0);
            a->u.rate.force = (any(8) == 0);

        } else if (type == &ngx_coord_op_window_take) {
            a->u.rate.cost = any(5);
            a->u.rate.look = (any(5) == 0);
        }

        *b = *a;
        b->zone = &local;

        assert_int_equal(ngx_coord_batch_send(two), NGX_OK);

        if (ngx_coord_batch_send(one) == NGX_AGAIN) {
            deliver();
            ngx_stub_run_posted();

            /* questions more: a key that is gone, the life of a debt */

            while (a->rc == NGX_AGAIN) {
                deliver();
                ngx_stub_run_posted();
            }
        }

        if (a->type == &ngx_coord_op_lease_renew && a->rc != b->rc) {

            /* either may have dropped a lease that has run out */

            assert_true(b->rc == NGX_BUSY);
            a->type = &ngx_coord_op_lease_acquire;
            a->rc = NGX_OK;
            ngx_coord_op_undo(a);
            ngx_stub_run_posted();
            deliver();
            goto next;
        }

        if (a->type != &ngx_coord_op_lease_release) {
            assert_int_equal(a->rc, b->rc);
        }

        if (a->type == &ngx_coord_op_lease_acquire) {
            assert_int_equal(a->u.lease.current, b->u.lease.current);

            if (a->rc == NGX_OK) {
                held[nheld < 50 ? nheld++ : any(50)] = *a;
            }

        } else if (a->type->kind != NGX_COORD_KIND_LEASE) {
            assert_int_equal(a->u.rate.remaining, b->u.rate.remaining);
            assert_int_equal(a->u.rate.excess, b->u.rate.excess);

            if (type != &ngx_coord_op_window_take) {
                assert_int_equal(a->u.rate.retry, b->u.rate.retry);

                if (type != &ngx_coord_op_log_take || a->rc == NGX_OK) {
                    assert_int_equal(a->u.rate.reset, b->u.rate.reset);
                }

            } else {
                /* a window has begun, or none has */
                assert_true(!a->u.rate.reset == !b->u.rate.reset);
            }

            undo = any(type == &ngx_coord_op_window_take ? 2 : 4);

            if (undo == 0) {
                ngx_stub_clock += any(100000) * 1000;
                ngx_coord_op_undo(a);
                ngx_coord_op_undo(b);
                ngx_stub_run_posted();
                deliver();
            }
        }

    next:

        ngx_coord_batch_done(one);
        ngx_coord_batch_done(two);
    }
}


/* asks the memory for what travels with a call */

static void
order(ngx_coord_part_t *part, ngx_coord_batch_t **one, ngx_coord_batch_t **two,
    ngx_uint_t n)
{
    ngx_uint_t  j;

    for ( /* void */ ; part; part = part->next) {
        for (j = 0; one[j] != part->batch; j++) {
            assert_true(j < n);
        }

        assert_int_equal(ngx_coord_batch_send(two[j]), NGX_OK);
    }
}


/*
 * Takes of one turn from one bucket, each a batch of its own: the answers are
 * those of the memory, which is asked one after the other; some have gone
 * before they are answered.
 */

#define TURN  40

static void
a_turn_is_as_one_after_the_other(void **state)
{
    ngx_uint_t          i, j, n, calls, asked, sent;
    ngx_coord_op_t     *a, *b, first;
    ngx_coord_batch_t  *one[TURN], *two[TURN];

    asked = 0;
    sent = 0;

    for (i = 0; i < 1000; i++) {
        ngx_stub_clock += any(10) ? any(500) * 1000000 : any(2000000) * 1000;

        n = 1 + any(any(10) ? 6 : TURN);

        if (any(50) == 0) {
            flush();
            ngx_coord_near_run(&(ngx_coord_op_t) {
                                   .type = &ngx_coord_op_bucket_forget,
                                   .zone = &local, .key_len = 1,
                                   .key = { 't' } });
        }

        for (j = 0; j < n; j++) {
            one[j] = batch_of(&zone);
            two[j] = batch_of(&local);

            a = add(one[j], &ngx_coord_op_bucket_take, &zone, "t");
            b = add(two[j], &ngx_coord_op_bucket_take, &local, "t");

            a->u.rate.interval = SEC / 10;
            a->u.rate.burst = 9;
            a->u.rate.cost = 1 + any(3);
            a->u.rate.look = (any(5) == 0);

            if (j && any(10)) {
                a->u.rate = first.u.rate;
            }

            first = *a;
            b->u.rate = a->u.rate;
        }

        for (j = 0; j < n; j++) {
            assert_int_equal(ngx_coord_batch_send(one[j]), NGX_AGAIN);
        }

        ngx_coord_store_push(&redis);
        calls = npending;
        asked += n;
        sent += calls;

        /* in the order of their calls */

        for (j = 0; j < calls; j++) {
            order(pending[j].call->data, one, two, n);
        }

        for (j = 0; j < n; j++) {
            if (any(20) == 0) {
                ngx_coord_batch_done(one[j]);
                one[j] = NULL;
            }
        }

        for ( ;; ) {
            deliver();
            ngx_stub_run_posted();

            if (npending == 0 && ngx_queue_empty(&data.turn)) {
                break;
            }
        }

        for (j = 0; j < n; j++) {
            b = two[j]->ops;

            if (one[j] == NULL) {
                ngx_coord_op_undo(b);
                continue;
            }

            a = one[j]->ops;

            assert_int_equal(a->rc, b->rc);
            assert_int_equal(a->u.rate.excess, b->u.rate.excess);
            assert_int_equal(a->u.rate.remaining, b->u.rate.remaining);
            assert_int_equal(a->u.rate.retry, b->u.rate.retry);
            assert_int_equal(a->u.rate.reset, b->u.rate.reset);
            assert_int_equal(a->u.rate.mark, b->u.rate.mark);

            if (any(4) == 0) {
                ngx_coord_op_undo(a);
                ngx_coord_op_undo(b);
            }
        }

        ngx_stub_run_posted();
        deliver();

        for (j = 0; j < n; j++) {
            ngx_coord_batch_done(two[j]);

            if (one[j]) {
                ngx_coord_batch_done(one[j]);
            }
        }
    }

    assert_true(2 * sent < asked);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(a_batch_goes_the_ways_of_the_table),
        cmocka_unit_test_setup_teardown(results_come_from_a_posted_event,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(places_of_the_dead_are_free,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(no_answer_ends_by_the_policy,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(
                                   a_late_lease_goes_back_a_late_place_stays,
                                   setup, teardown),
        cmocka_unit_test_setup_teardown(a_key_that_is_gone_is_made_anew,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(a_take_that_has_begun_is_mended,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(
                                   a_block_that_does_not_fit_shortens_no_life,
                                   setup, teardown),
        cmocka_unit_test_setup_teardown(a_place_is_given_back_once,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(a_cancelled_batch_gives_all_back,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(a_cancelled_batch_costs_one_release,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(numbers_that_cannot_be_true,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(who_asks_again_asks_alone,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(the_parts_of_a_batch_end_together,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(
                                    a_wrong_key_only_fails_its_own_operation,
                                    setup, teardown),
        cmocka_unit_test_setup_teardown(many_operations_and_no_handler,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(all_refusals_are_dropped_in_steps,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(a_turn_is_as_one_after_the_other,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(both_stores_answer_the_same,
                                        setup, teardown)
    };

    return cmocka_run_group_tests(tests, start_redis, stop_redis);
}
