
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * What a worker keeps of a near cache by itself is used without a lock, and
 * only as long as it stands in the memory that all workers share.
 */


#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdlib.h>
#include <cmocka.h>

#include "ngx_stub.h"
#include "ngx_coord_near_worker.h"
#include "ngx_coord_store_metrics.h"


#define SEC    1000000000LL
#define EPOCH  (7 * NGX_COORD_METRICS_PROCS + 3)


static u_char                    room[4096];
static size_t                    used;
static ngx_shm_zone_t            shm;
static ngx_coord_zone_t          zone;
static ngx_coord_near_t          near;
static ngx_coord_store_t         store;
static ngx_coord_store_counts_t  counts;
static ngx_coord_near_answer_t   answer;
static ngx_coord_near_item_t     item;

/* two workers of one node; store.nearby is whose turn it is */
static ngx_coord_near_worker_t   a, b;

uint32_t  ngx_crc32_table256[256];


ngx_uint_t
ngx_coord_metrics_living(ngx_uint_t slot)
{
    return 1;
}


void *
ngx_pnalloc(ngx_pool_t *pool, size_t size)
{
    used += size;
    assert_true(used <= sizeof(room));

    return room + used - size;
}


void *
ngx_pcalloc(ngx_pool_t *pool, size_t size)
{
    abort();
}


void *
ngx_palloc(ngx_pool_t *pool, size_t size)
{
    abort();
}


ngx_array_t *
ngx_array_create(ngx_pool_t *pool, ngx_uint_t n, size_t size)
{
    abort();
}


void *
ngx_array_push(ngx_array_t *array)
{
    abort();
}


static int
begin(void **state)
{
    static ngx_str_t          field = ngx_null_string;
    static ngx_array_t        nears;
    static ngx_coord_near_t  *p = &near;

    ngx_memzero(&zone, sizeof(zone));
    ngx_memzero(&shm, sizeof(shm));
    ngx_memzero(&counts, sizeof(counts));
    ngx_memzero(&a, sizeof(a));
    ngx_memzero(&b, sizeof(b));

    ngx_str_set(&zone.name, "one");
    ngx_str_set(&zone.type, "lu");

    ngx_stub_shm(&shm, 65536);

    shm.data = &zone;
    zone.store = &store;
    ngx_stub_clock = 1000 * SEC;
    ngx_current_msec = 1000000;

    assert_int_equal(ngx_coord_zone_init(&shm, NULL), NGX_OK);

    near.zone = &zone;
    near.fields.elts = &field;
    near.fields.nelts = 1;

    nears.elts = &p;
    nears.nelts = 1;

    store.near = &nears;
    store.counts = &counts;
    store.nearby = &a;

    a.store = &store;
    b.store = &store;
    a.epoch = EPOCH;

    counts.epochs[3] = EPOCH;

    store.stats = &counts.procs[3];
    ngx_coord_near_heard(&a, ngx_current_msec);

    ngx_memzero(&item, sizeof(item));

    item.near = &near;
    item.ttl = 60000;
    item.negative_ttl = 300;
    ngx_str_set(&item.key, "key:1");

    used = 0;

    return 0;
}


static int
end(void **state)
{
    free(shm.shm.addr);
    ngx_stub_clock = 0;

    return 0;
}


/* the first worker keeps what it has asked for before that */

static void
keep_since(ngx_atomic_uint_t told, const char *value, ngx_coord_near_e is)
{
    ngx_coord_near_answer_t  kept;

    ngx_memzero(&kept, sizeof(kept));

    kept.state = is;
    kept.value.data = (u_char *) value;
    kept.value.len = ngx_strlen(value);

    ngx_coord_near_keep(&item, &kept, a.epoch, told);
}


static void
keep(const char *value, ngx_coord_near_e is)
{
    keep_since(ngx_coord_near_news(&item), value, is);
}


static void
turn_of(ngx_coord_near_worker_t *worker)
{
    store.nearby = worker;
    store.stats = &counts.procs[worker == &a ? 3 : 4];
}


/* asks, and tells how often the zone was locked for that */

static ngx_uint_t
get(ngx_int_t rc)
{
    ngx_uint_t  locks;

    locks = ngx_stub_locks;

    /* the caller's memory is not clean */

    answer.late = 1;

    assert_int_equal(ngx_coord_near_get(&item, NULL, &answer), rc);
    assert_int_equal(answer.late, 0);
    assert_int_equal(ngx_stub_locked, 0);

    return ngx_stub_locks - locks;
}


static void
is(const char *value)
{
    assert_int_equal(answer.state, NGX_COORD_NEAR_VALUE);
    assert_int_equal(answer.value.len, ngx_strlen(value));
    assert_memory_equal(answer.value.data, value, ngx_strlen(value));
}


/* as time goes by on both clocks */

static void
later(ngx_msec_t ms)
{
    ngx_stub_clock += ms * 1000000LL;
    ngx_current_msec += ms;
}


static void
what_was_read_is_used_without_a_lock(void **state)
{
    assert_int_equal(get(NGX_AGAIN), 1);

    keep("gold", NGX_COORD_NEAR_VALUE);

    assert_int_equal(get(NGX_OK), 1);
    is("gold");
    assert_int_equal(get(NGX_OK), 0);
    is("gold");

    /* of the other worker */

    store.nearby = &b;
    assert_int_equal(get(NGX_OK), 1);
    assert_int_equal(get(NGX_OK), 0);
    is("gold");
}


static void
that_there_is_nothing_is_kept_as_well(void **state)
{
    keep("", NGX_COORD_NEAR_NONE);

    (void) get(NGX_OK);
    assert_int_equal(get(NGX_OK), 0);
    assert_int_equal(answer.state, NGX_COORD_NEAR_NONE);
    assert_int_equal(answer.value.len, 0);

    /* for its own time */

    later(299);
    assert_int_equal(get(NGX_OK), 0);
    later(1);
    assert_int_equal(get(NGX_AGAIN), 1);
}


static void
a_change_is_seen_by_all_at_once(void **state)
{
    keep("gold", NGX_COORD_NEAR_VALUE);

    (void) get(NGX_OK);
    store.nearby = &b;
    (void) get(NGX_OK);

    ngx_coord_near_changed(&a, &item.key);

    assert_int_equal(get(NGX_AGAIN), 1);
    store.nearby = &a;
    assert_int_equal(get(NGX_AGAIN), 1);
    is("gold");

    keep("silver", NGX_COORD_NEAR_VALUE);

    assert_int_equal(get(NGX_OK), 1);
    is("silver");
    store.nearby = &b;
    assert_int_equal(get(NGX_OK), 1);
    is("silver");

    /* a value that another worker has read later */

    keep("lead", NGX_COORD_NEAR_VALUE);

    assert_int_equal(get(NGX_OK), 1);
    is("lead");
}


static void
a_change_of_what_was_evicted_is_seen(void **state)
{
    u_char              key[NGX_COORD_KEY_LEN];
    size_t              len;
    ngx_coord_entry_t  *entry;
    ngx_coord_table_t  *table;

    keep("gold", NGX_COORD_NEAR_VALUE);
    (void) get(NGX_OK);

    len = ngx_coord_key_encode(key, &item.key);
    table = ngx_coord_zone_lock(&zone);
    entry = ngx_coord_table_find(table, NGX_COORD_NEAR_TAG, key, len,
                                 ngx_stub_clock);
    assert_non_null(entry);
    ngx_coord_table_remove(table, entry);
    ngx_coord_zone_unlock(&zone);

    assert_int_equal(get(NGX_OK), 0);

    ngx_coord_near_changed(&a, &item.key);

    assert_int_equal(get(NGX_AGAIN), 1);
    assert_int_equal(answer.state, NGX_COORD_NEAR_UNKNOWN);
}


static void
what_is_forgotten_is_gone(void **state)
{
    keep("gold", NGX_COORD_NEAR_VALUE);
    (void) get(NGX_OK);

    store.nearby = &b;
    assert_int_equal(ngx_coord_near_forget(&near, &item.key), 1);

    store.nearby = &a;
    (void) get(NGX_AGAIN);
    assert_int_equal(answer.state, NGX_COORD_NEAR_UNKNOWN);
}


static void
who_hears_no_more_is_not_trusted(void **state)
{
    keep("gold", NGX_COORD_NEAR_VALUE);
    (void) get(NGX_OK);
    assert_int_equal(get(NGX_OK), 0);

    counts.epochs[3] = EPOCH + NGX_COORD_METRICS_PROCS;

    assert_int_equal(get(NGX_AGAIN), 1);
}


static void
who_has_not_heard_lately_is_not_trusted(void **state)
{
    ngx_msec_t  now;

    keep("gold", NGX_COORD_NEAR_VALUE);
    now = ngx_current_msec;

    later(2999);
    (void) get(NGX_OK);
    assert_int_equal(get(NGX_OK), 0);

    later(1);
    assert_int_equal(get(NGX_AGAIN), 1);
    assert_int_equal(ngx_coord_near_stands(&store, EPOCH), 1);

    /* who is late himself may find that another worker has heard later */

    ngx_coord_near_heard(&a, ngx_current_msec + 1000);
    (void) get(NGX_OK);

    ngx_coord_near_heard(&a, now);
    assert_int_equal(get(NGX_AGAIN), 1);
}


static void
all_is_void_as_soon_as_one_has_heard_of_it(void **state)
{
    keep("gold", NGX_COORD_NEAR_VALUE);
    (void) get(NGX_OK);

    turn_of(&b);
    (void) get(NGX_OK);
    ngx_coord_near_changed(&b, NULL);

    assert_int_equal(get(NGX_AGAIN), 1);
    turn_of(&a);
    assert_int_equal(get(NGX_AGAIN), 1);

    /* what the first has asked for before */

    keep("gold", NGX_COORD_NEAR_VALUE);
    assert_int_equal(get(NGX_AGAIN), 1);

    /* and what it asks for now */

    assert_int_equal(ngx_coord_near_stands(&store, a.epoch), 0);
    ngx_coord_near_renew(&a);
    assert_int_equal(ngx_coord_near_stands(&store, b.epoch), 1);

    keep("silver", NGX_COORD_NEAR_VALUE);
    (void) get(NGX_OK);
    turn_of(&b);
    (void) get(NGX_OK);
    is("silver");

    turn_of(&a);
}


static void
what_was_asked_for_before_a_change_is_not_fresh(void **state)
{
    ngx_atomic_uint_t  told;

    told = ngx_coord_near_news(&item);
    ngx_coord_near_changed(&b, &item.key);

    keep_since(told, "gold", NGX_COORD_NEAR_VALUE);
    (void) get(NGX_AGAIN);
    is("gold");

    /* nor that there is no such key */

    ngx_coord_near_note(&item, EPOCH, told);
    ngx_coord_near_absent(&item);
    (void) get(NGX_AGAIN);
    is("gold");

    told = ngx_coord_near_news(&item);

    ngx_coord_near_note(&item, EPOCH, told);
    ngx_coord_near_absent(&item);
    (void) get(NGX_OK);
    assert_int_equal(answer.state, NGX_COORD_NEAR_NONE);
}


static void
for_its_time_and_a_second_at_most(void **state)
{
    keep("gold", NGX_COORD_NEAR_VALUE);
    (void) get(NGX_OK);

    later(999);
    assert_int_equal(get(NGX_OK), 0);
    later(1);
    assert_int_equal(get(NGX_OK), 1);

    later(58500);
    ngx_coord_near_heard(&a, ngx_current_msec);
    assert_int_equal(get(NGX_OK), 1);
    later(499);
    assert_int_equal(get(NGX_OK), 0);
    later(1);
    assert_int_equal(get(NGX_AGAIN), 1);
}


static void
twin_next(u_char *digits)
{
    ngx_int_t  i;

    for (i = 3; digits[i] == '9'; i--) {
        assert_int_not_equal(i, 0);
        digits[i] = '0';
    }

    digits[i]++;
}


/* of some thousand keys there is one that a worker would keep there, too */

static ngx_str_t
twin_of(ngx_str_t *key)
{
    uint32_t       hash, other;
    ngx_str_t      twin;
    static u_char  text[] = "key:0000";

    twin.data = text;
    twin.len = sizeof(text) - 1;

    hash = ngx_coord_key_hash(key->data, key->len);

    do {
        twin_next(text + sizeof("key:") - 1);
        other = ngx_coord_key_hash(text, twin.len);
    } while (other % NGX_COORD_NEAR_MEMOS != hash % NGX_COORD_NEAR_MEMOS);

    return twin;
}


static void
others_are_apart(void **state)
{
    keep("gold", NGX_COORD_NEAR_VALUE);
    (void) get(NGX_OK);

    /* another key at the same place */

    item.key = twin_of(&item.key);
    assert_int_equal(get(NGX_AGAIN), 1);
    keep("silver", NGX_COORD_NEAR_VALUE);
    (void) get(NGX_OK);
    is("silver");

    ngx_str_set(&item.key, "key:1");
    assert_int_equal(get(NGX_OK), 1);
    is("gold");

    /* a change of a key of another group is none of this one */

    ngx_coord_near_changed(&a, &(ngx_str_t) ngx_string("other"));
    assert_int_equal(get(NGX_OK), 0);
    is("gold");
}


static void
what_is_long_is_read_each_time(void **state)
{
    char  value[NGX_COORD_NEAR_MEMO_DATA];

    memset(value, 'x', sizeof(value) - 1);
    value[sizeof(value) - 1] = '\0';

    keep(value, NGX_COORD_NEAR_VALUE);
    assert_int_equal(get(NGX_OK), 1);
    assert_int_equal(get(NGX_OK), 1);
    is(value);

    /* as long as there is room */

    value[NGX_COORD_NEAR_MEMO_DATA - item.key.len] = '\0';

    keep(value, NGX_COORD_NEAR_VALUE);
    assert_int_equal(get(NGX_OK), 1);
    assert_int_equal(get(NGX_OK), 0);
    is(value);
}


int
main(void)
{
    static const struct CMUnitTest  tests[] = {
        cmocka_unit_test_setup_teardown(what_was_read_is_used_without_a_lock,
                                        begin, end),
        cmocka_unit_test_setup_teardown(that_there_is_nothing_is_kept_as_well,
                                        begin, end),
        cmocka_unit_test_setup_teardown(a_change_is_seen_by_all_at_once,
                                        begin, end),
        cmocka_unit_test_setup_teardown(a_change_of_what_was_evicted_is_seen,
                                        begin, end),
        cmocka_unit_test_setup_teardown(what_is_forgotten_is_gone, begin, end),
        cmocka_unit_test_setup_teardown(who_hears_no_more_is_not_trusted,
                                        begin, end),
        cmocka_unit_test_setup_teardown(who_has_not_heard_lately_is_not_trusted,
                                        begin, end),
        cmocka_unit_test_setup_teardown(
                               all_is_void_as_soon_as_one_has_heard_of_it,
                                        begin, end),
        cmocka_unit_test_setup_teardown(
                          what_was_asked_for_before_a_change_is_not_fresh,
                                        begin, end),
        cmocka_unit_test_setup_teardown(for_its_time_and_a_second_at_most,
                                        begin, end),
        cmocka_unit_test_setup_teardown(others_are_apart, begin, end),
        cmocka_unit_test_setup_teardown(what_is_long_is_read_each_time,
                                        begin, end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
