
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Leases that are held, and giving back, with a store that answers when and
 * what the test says.
 */


#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdlib.h>
#include <cmocka.h>

#include "ngx_stub.h"
#include "ngx_coord_batch.h"
#include "ngx_coord_giveback.h"
#include "ngx_coord_lease.h"
#include "ngx_coord_store_metrics.h"
#include "ngx_coord_wake.h"


#define MSEC    1000000LL
#define SEC     (1000 * MSEC)
#define STATES  (NGX_COORD_HELD_ENDED + 1)


static ngx_coord_store_t   store;
static ngx_coord_zone_t    zone;
static ngx_coord_batch_t  *batches[64];       /* in flight */
static ngx_uint_t          nbatches;
static ngx_uint_t          ready;
static ngx_uint_t          lost;
static ngx_uint_t          walked[STATES][STATES];

const ngx_coord_store_actions_t  ngx_coord_store_memory_actions;
static ngx_uint_t          store_ready(ngx_coord_store_t *s);
static const ngx_coord_store_actions_t  actions = {
    .ready = store_ready
};


/* --- a store --- */

ngx_coord_batch_t *
ngx_coord_batch_create(ngx_coord_store_t *s)
{
    ngx_coord_batch_t  *batch;

    batch = calloc(1, sizeof(ngx_coord_batch_t));

    batch->store = s;
    batch->ops = calloc(64, sizeof(ngx_coord_op_t));

    return batch;
}


ngx_coord_op_t *
ngx_coord_batch_add(ngx_coord_batch_t *batch, const ngx_coord_op_type_t *type,
    ngx_coord_zone_t *z, u_char *key, size_t len)
{
    ngx_coord_op_t  *op;

    op = &batch->ops[batch->nops++];

    op->type = type;
    op->zone = z;
    op->key_len = len;
    ngx_memcpy(op->key, key, len);

    return op;
}


ngx_int_t
ngx_coord_batch_send(ngx_coord_batch_t *batch)
{
    batches[nbatches++] = batch;

    return NGX_AGAIN;
}


void
ngx_coord_batch_cancel(ngx_coord_batch_t *batch)
{
    free(batch->ops);
    free(batch);
}


void
ngx_coord_batch_leave(ngx_coord_batch_t *batch)
{
    ngx_coord_batch_cancel(batch);
}


void
ngx_coord_op_undo(ngx_coord_op_t *op)
{
    /* nothing is prefetched */
}


ngx_int_t
ngx_coord_id(u_char *id)
{
    memset(id, 7, NGX_COORD_ID_LEN);

    return NGX_OK;
}


static ngx_uint_t
store_ready(ngx_coord_store_t *s)
{
    return ready;
}


void
ngx_coord_near_run(ngx_coord_op_t *op)
{
    fail();
}


void
ngx_coord_wake(ngx_coord_zone_t *z, u_char *key, size_t len)
{
}


void
ngx_coord_metrics_gauge(ngx_coord_zone_t *z, ngx_coord_gauge_e gauge,
    ngx_int_t n)
{
}


/* the oldest batch in flight is answered; returns how many operations it had */

static ngx_uint_t
answer(const ngx_coord_op_type_t *type, ngx_int_t rc)
{
    ngx_uint_t          i, n;
    ngx_coord_batch_t  *batch;

    assert_true(nbatches > 0);

    batch = batches[0];
    n = batch->nops;

    memmove(batches, batches + 1, --nbatches * sizeof(batches[0]));

    for (i = 0; i < n; i++) {
        assert_ptr_equal(batch->ops[i].type, type);
        batch->ops[i].rc = rc;
    }

    batch->handler(batch);

    return n;
}


static int
setup(void **state)
{
    store.actions = &actions;
    zone.store = &store;

    ngx_str_set(&store.name, "main");
    ngx_str_set(&zone.name, "one");

    ngx_stub_clock = 1000 * SEC;
    ngx_stub_logged = 0;
    ((ngx_time_t *) ngx_cached_time)->sec = 1000;

    ready = 1;
    lost = 0;

    return 0;
}


static int
teardown(void **state)
{
    assert_int_equal(nbatches, 0);

    ngx_coord_lease_exit();
    ngx_coord_giveback_exit(&store);

    while (nbatches) {
        ngx_coord_batch_done(batches[--nbatches]);
    }

    assert_int_equal(ngx_stub_ntimers, 0);

    return 0;
}


static void
question(ngx_coord_op_t *op, const ngx_coord_op_type_t *type)
{
    ngx_memzero(op, sizeof(ngx_coord_op_t));

    op->type = type;
    op->zone = &zone;
    op->source = NGX_COORD_SOURCE_REDIS;
    op->key_len = 1;
    op->key[0] = 'k';
    op->u.lease.lease = 10 * SEC;
    op->u.lease.limit = 1;

    assert_int_equal(ngx_coord_lease_name(op), NGX_OK);

    op->source = NGX_COORD_SOURCE_REDIS;
    op->rc = NGX_OK;
}


static void
is_lost(void *data)
{
    lost++;
}


static ngx_coord_held_t *
hold(void)
{
    ngx_coord_op_t     op;
    ngx_coord_held_t  *held;

    question(&op, &ngx_coord_op_lease_acquire);

    held = ngx_coord_lease_hold(&op, is_lost, NULL);

    assert_non_null(held);
    assert_int_equal(held->state, NGX_COORD_HELD);

    return held;
}


/* --- held leases --- */

static void
goes(ngx_coord_held_t *held, ngx_coord_held_e from, ngx_coord_held_e to)
{
    assert_int_equal(held->state, to);
    assert_true(ngx_coord_edge_known(ngx_coord_held_edges, from, to));

    walked[from][to] = 1;
}


/* its memory is the worker's until another lease is held */

static void
release(ngx_coord_held_t *held)
{
    ngx_coord_held_e  from;

    from = held->state;

    ngx_coord_lease_release(held);
    goes(held, from, NGX_COORD_HELD_ENDED);
}


static void
renewing(ngx_coord_held_t *held)
{
    while (nbatches == 0) {
        ngx_stub_pass(900);
    }

    goes(held, NGX_COORD_HELD, NGX_COORD_HELD_RENEWING);
}


static void
asking(ngx_coord_held_t *held)
{
    renewing(held);
    answer(&ngx_coord_op_lease_renew, NGX_BUSY);
    goes(held, NGX_COORD_HELD_RENEWING, NGX_COORD_HELD_ASKING);
}


static void
a_lease_goes_all_its_ways(void **state)
{
    ngx_uint_t         i, j;
    ngx_coord_held_t  *held;

    /* renewed, with an answer and without one; forgotten, and asked again */

    held = hold();

    renewing(held);
    answer(&ngx_coord_op_lease_renew, NGX_OK);
    goes(held, NGX_COORD_HELD_RENEWING, NGX_COORD_HELD);

    renewing(held);
    answer(&ngx_coord_op_lease_renew, NGX_ERROR);
    goes(held, NGX_COORD_HELD_RENEWING, NGX_COORD_HELD);

    asking(held);
    answer(&ngx_coord_op_lease_acquire, NGX_OK);
    goes(held, NGX_COORD_HELD_ASKING, NGX_COORD_HELD);

    asking(held);
    answer(&ngx_coord_op_lease_acquire, NGX_ERROR);
    goes(held, NGX_COORD_HELD_ASKING, NGX_COORD_HELD);

    release(held);
    ngx_stub_pass(0);
    assert_int_equal(answer(&ngx_coord_op_lease_release, NGX_OK), 1);

    /* lost */

    held = hold();
    asking(held);
    answer(&ngx_coord_op_lease_acquire, NGX_BUSY);
    goes(held, NGX_COORD_HELD_ASKING, NGX_COORD_HELD_LOST);
    assert_int_equal(lost, 1);
    release(held);
    ngx_stub_pass(0);
    assert_int_equal(nbatches, 0);

    /* released while an answer is outstanding */

    held = hold();
    renewing(held);
    release(held);
    answer(&ngx_coord_op_lease_renew, NGX_BUSY);
    ngx_stub_pass(0);
    answer(&ngx_coord_op_lease_release, NGX_OK);

    held = hold();
    asking(held);
    release(held);
    answer(&ngx_coord_op_lease_acquire, NGX_OK);
    ngx_stub_pass(0);
    answer(&ngx_coord_op_lease_release, NGX_OK);

    for (i = 0; i < STATES; i++) {
        for (j = 0; j < STATES; j++) {
            assert_int_equal(walked[i][j],
                             ngx_coord_edge_known(ngx_coord_held_edges, i, j));
        }
    }

    assert_int_equal(ngx_stub_logged, 0);
}


/* --- giving back --- */

static void
all_of_a_turn_goes_in_one_batch(void **state)
{
    ngx_uint_t         i;
    ngx_coord_held_t  *held[5];

    for (i = 0; i < 5; i++) {
        held[i] = hold();
    }

    for (i = 0; i < 5; i++) {
        ngx_coord_lease_release(held[i]);
    }

    assert_int_equal(nbatches, 0);
    ngx_stub_pass(0);
    assert_int_equal(nbatches, 1);
    assert_int_equal(answer(&ngx_coord_op_lease_release, NGX_OK), 5);
    ngx_stub_pass(10000);
}


static void
no_answer_and_it_is_sent_again(void **state)
{
    ngx_uint_t  i;

    ngx_coord_lease_release(hold());
    ngx_stub_pass(0);

    for (i = 0; i < 3; i++) {
        answer(&ngx_coord_op_lease_release, NGX_ERROR);
        assert_int_equal(nbatches, 0);
        ngx_stub_pass(200);
        assert_int_equal(nbatches, 1);
    }

    /* not while the store is away */

    ready = 0;
    answer(&ngx_coord_op_lease_release, NGX_ERROR);

    for (i = 0; i < 30; i++) {
        ngx_stub_pass(200);
        assert_int_equal(nbatches, 0);
    }

    ready = 1;
    ngx_stub_pass(200);
    answer(&ngx_coord_op_lease_release, NGX_DECLINED);
    ngx_stub_pass(1000);
    assert_int_equal(nbatches, 0);
}


static void
until_it_is_over_by_itself(void **state)
{
    ngx_uint_t  i;

    ngx_coord_lease_release(hold());
    ngx_stub_pass(0);

    ready = 0;
    answer(&ngx_coord_op_lease_release, NGX_ERROR);

    for (i = 0; i < 51; i++) {
        ngx_stub_pass(200);
    }

    ready = 1;
    ngx_stub_pass(1000);
    assert_int_equal(nbatches, 0);
    assert_int_equal(ngx_stub_ntimers, 0);
}


static void
what_is_in_doubt_is_asked_for_more_than_once(void **state)
{
    ngx_uint_t      i, n;
    ngx_coord_op_t  op;

    question(&op, &ngx_coord_op_claim);
    op.u.claim.lease = 30 * SEC;

    /* not at once: it does not answer */

    ngx_coord_giveback(&op, NGX_COORD_GIVEBACK_LOST);
    ngx_stub_pass(0);
    assert_int_equal(nbatches, 0);

    for (i = 0, n = 0; i < 60; i++) {
        ngx_stub_pass(100);

        if (nbatches) {
            answer(&ngx_coord_op_claim_release, NGX_DECLINED);
            n++;
        }
    }

    assert_int_equal(n, 6);
    assert_int_equal(ngx_stub_ntimers, 0);

    /* once it was there it is certain */

    ngx_coord_giveback(&op, NGX_COORD_GIVEBACK_ASKED);
    ngx_stub_pass(0);
    answer(&ngx_coord_op_claim_release, NGX_DECLINED);
    ngx_stub_pass(100);
    answer(&ngx_coord_op_claim_release, NGX_OK);
    ngx_stub_pass(5000);
    assert_int_equal(nbatches, 0);
}


static void
a_count_is_not_given_back_twice(void **state)
{
    ngx_coord_op_t  op;

    question(&op, &ngx_coord_op_bucket_take);
    ngx_memzero(&op.u, sizeof(op.u));
    op.u.rate.reset = 60 * SEC;

    ngx_coord_giveback(&op, NGX_COORD_GIVEBACK_LOST);
    ngx_stub_pass(1000);
    assert_int_equal(nbatches, 0);

    ngx_coord_giveback(&op, NGX_COORD_GIVEBACK_GRANTED);
    ngx_stub_pass(0);
    batches[0]->ops[0].gone = 0;
    answer(&ngx_coord_op_bucket_give, NGX_ERROR);
    ngx_stub_pass(200);
    assert_int_equal(nbatches, 1);

    batches[0]->ops[0].gone = 1;
    answer(&ngx_coord_op_bucket_give, NGX_ERROR);
    ngx_stub_pass(1000);
    assert_int_equal(nbatches, 0);
}


static void
the_list_has_a_bound(void **state)
{
    ngx_uint_t      i;
    ngx_coord_op_t  op;

    ready = 0;

    for (i = 0; i < 8192; i++) {
        question(&op, &ngx_coord_op_lease_acquire);
        ngx_coord_giveback(&op, NGX_COORD_GIVEBACK_LOST);
    }

    assert_int_equal(ngx_stub_logged, 0);

    ngx_coord_giveback(&op, NGX_COORD_GIVEBACK_LOST);
    assert_int_equal(ngx_stub_logged, 1);

    /* what is left at a fast exit has no other way to leave */

    ngx_terminate = 1;
    ((ngx_time_t *) ngx_cached_time)->sec++;

    ngx_coord_giveback(&op, NGX_COORD_GIVEBACK_LOST);
    assert_int_equal(ngx_stub_logged, 1);

    ngx_terminate = 0;

    for (i = 0; i < 60; i++) {
        ngx_stub_pass(200);
    }

    assert_int_equal(ngx_stub_ntimers, 0);
}


static void
a_worker_that_exits_stays_for_a_while(void **state)
{
    ngx_uint_t  i;

    ready = 0;

    ngx_coord_lease_release(hold());
    ngx_stub_pass(0);
    answer(&ngx_coord_op_lease_release, NGX_ERROR);

    for (i = 0; i < ngx_stub_ntimers; i++) {
        if (!ngx_stub_timer(i)->cancelable) {
            break;
        }
    }

    assert_true(i < ngx_stub_ntimers);

    for (i = 0; i < 27; i++) {
        ngx_stub_pass(200);
    }

    for (i = 0; i < ngx_stub_ntimers; i++) {
        assert_int_equal(ngx_stub_timer(i)->cancelable, 1);
    }
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test_setup_teardown(a_lease_goes_all_its_ways,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(all_of_a_turn_goes_in_one_batch,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(no_answer_and_it_is_sent_again,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(until_it_is_over_by_itself,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(
            what_is_in_doubt_is_asked_for_more_than_once, setup, teardown),
        cmocka_unit_test_setup_teardown(a_count_is_not_given_back_twice,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(the_list_has_a_bound,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(
            a_worker_that_exits_stays_for_a_while, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
