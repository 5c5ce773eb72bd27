
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The table in shared memory: against a model, full, and killed.
 */


#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdlib.h>
#include <signal.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "ngx_coord_table.h"


#define FOREVER  INT64_MAX

#define cell_of(t, n)  (&ngx_coord_table_cells(t)[n])


static const u_char   seed[] = "0123456789abcdef";
static ngx_str_t      name = ngx_string("rl:test");
static uint64_t       rnd = 0x2545f4914f6cdd1dULL;


static uint64_t
any(uint64_t n)
{
    rnd ^= rnd << 13;
    rnd ^= rnd >> 7;
    rnd ^= rnd << 17;

    return (rnd >> 11) % n;
}


/* every cell is in exactly one place, and all counts are right */

static void
check(ngx_coord_table_t *t)
{
    u_char             *seen;
    uint32_t            i, n, heads, data, nfree;
    ngx_coord_cell_t   *cell;

    seen = calloc(t->ncells + 1, 1);
    heads = data = nfree = 0;

    for (n = t->free; n; n = cell_of(t, n)->data.next) {
        assert_true(n <= t->ncells);
        assert_int_equal(seen[n], 0);
        assert_int_equal(cell_of(t, n)->data.state, NGX_COORD_CELL_FREE);
        seen[n] = 1;
        nfree++;
    }

    assert_int_equal(nfree + t->ncells - t->nused, t->nfree);

    for (i = 0; i < t->nbuckets; i++) {
        for (n = ngx_coord_table_buckets(t)[i]; n; n = cell->head.next) {
            assert_true(n <= t->ncells);
            assert_int_equal(seen[n], 0);
            seen[n] = 1;
            heads++;

            cell = cell_of(t, n);
            assert_int_equal(cell->head.state, NGX_COORD_CELL_HEAD);
            assert_int_equal(cell->head.hash & (t->nbuckets - 1), i);
        }
    }

    assert_int_equal(heads, t->nentries);

    for (i = 1; i <= t->nused; i++) {
        cell = cell_of(t, i);

        if (cell->head.state != NGX_COORD_CELL_HEAD) {
            continue;
        }

        assert_int_equal(seen[i], 1);

        for (n = cell->head.chain; n; n = cell_of(t, n)->data.next) {
            assert_true(n <= t->ncells);
            assert_int_equal(seen[n], 0);
            assert_int_equal(cell_of(t, n)->data.state,
                             NGX_COORD_CELL_DATA_USED);
            assert_int_equal(cell_of(t, n)->data.owner, i);
            seen[n] = 1;
            data++;
        }
    }

    assert_int_equal(heads + data + nfree, t->nused);

    free(seen);
}


static void
fill(u_char *p, size_t len, uint32_t key)
{
    size_t  i;

    for (i = 0; i < len; i++) {
        p[i] = (u_char) (key * 31 + i * 7 + (i >> 8) + len);
    }
}


static void
fixed_layout(void **state)
{
    assert_int_equal(sizeof(ngx_coord_cell_t), NGX_COORD_CELL_SIZE);
    assert_true(sizeof(ngx_coord_entry_t) <= NGX_COORD_CELL_SIZE);
    assert_int_equal(sizeof(ngx_coord_data_t), NGX_COORD_CELL_SIZE);
    assert_int_equal(sizeof(ngx_coord_table_t) % sizeof(uint32_t), 0);
}


static void
too_small_is_refused(void **state)
{
    size_t   size;
    u_char  *p;

    for (size = 0; size < 3000; size++) {
        p = calloc(1, size);

        if (ngx_coord_table_create(p, size, seed, &name)) {
            check((ngx_coord_table_t *) p);
            assert_true(size >= 3 * NGX_COORD_CELL_SIZE);
        } else {
            assert_true(size < 600);
        }

        free(p);
    }
}


static void
tags_lengths_and_bytes_make_keys_differ(void **state)
{
    void                *p;
    ngx_coord_table_t   *t;
    ngx_coord_entry_t   *e;

    p = calloc(1, 65536);
    t = ngx_coord_table_create(p, 65536, seed, &name);

    ngx_coord_table_enter(t);

    e = ngx_coord_table_insert(t, 1, 0, (u_char *) "ab", 2, NULL, FOREVER, 0);
    assert_non_null(e);

    assert_null(ngx_coord_table_find(t, 2, (u_char *) "ab", 2, 0));
    assert_null(ngx_coord_table_find(t, 1, (u_char *) "ab", 1, 0));
    assert_null(ngx_coord_table_find(t, 1, (u_char *) "abc", 3, 0));
    assert_null(ngx_coord_table_find(t, 1, (u_char *) "ac", 2, 0));
    assert_null(ngx_coord_table_find(t, 1, (u_char *) "ab\0", 3, 0));
    assert_ptr_equal(ngx_coord_table_find(t, 1, (u_char *) "ab", 2, 0), e);

    assert_null(ngx_coord_table_insert(t, 1, 0, p, NGX_COORD_KEY_LEN + 1,
                                       NULL, FOREVER, 0));

    ngx_coord_table_leave(t);
    check(t);
    free(p);
}


/* random operations on blobs, against arrays */

/* hashes are kept: those of other tables and tags are no others' */

static void
tables_do_not_share_hashes(void **state)
{
    u_char             *p[2], key[16];
    size_t              size;
    ngx_uint_t          i, n, tag;
    ngx_coord_entry_t  *entry;
    ngx_coord_table_t  *t[2];

    size = 64 * 1024;

    for (i = 0; i < 2; i++) {
        p[i] = calloc(size, 1);
        t[i] = ngx_coord_table_create(p[i], size, seed, &name);
        t[i]->seed[1] += i;

        ngx_coord_table_enter(t[i]);

        for (tag = 1; tag < 4; tag++) {
            entry = ngx_coord_table_insert(t[i], tag, 0, (u_char *) "a key", 5,
                                           NULL, FOREVER, 1);
            assert_non_null(entry);

            entry->payload[0] = i * 10 + tag;
        }
    }

    for (i = 0; i < 2; i++) {

        /* all that is kept is of other keys then */

        for (n = 0; n < 1000; n++) {
            fill(key, sizeof(key), n);
            assert_null(ngx_coord_table_find(t[i], 1 + n % 3, key,
                                             sizeof(key), 1));
        }

        for (tag = 1; tag < 4; tag++) {
            entry = ngx_coord_table_find(t[i], tag, (u_char *) "a key", 5, 1);

            assert_non_null(entry);
            assert_int_equal(entry->payload[0], i * 10 + tag);
        }

        ngx_coord_table_leave(t[i]);
        free(p[i]);
    }
}


static void
blobs_match_a_model(void **state)
{
    void                *p;
    size_t               len[200], n;
    u_char               key[8];
    u_char              *want, *got;
    int64_t              expires[200], now;
    uint64_t             i;
    uint32_t             k, off;
    ngx_coord_table_t   *t;
    ngx_coord_entry_t   *e;

    p = calloc(1, 2000000);
    want = malloc(20000);
    got = malloc(20000);
    t = ngx_coord_table_create(p, 2000000, seed, &name);
    now = 1;

    ngx_memzero(expires, sizeof(expires));

    for (i = 0; i < 60000; i++) {
        k = any(200);
        now += any(3);

        ngx_memzero(key, 8);
        ngx_memcpy(key, &k, 4);

        ngx_coord_table_enter(t);

        e = ngx_coord_table_find(t, 1, key, 8, now);

        assert_int_equal(e != NULL, expires[k] > now);

        switch (any(4)) {

        case 0:
            if (e) {
                ngx_coord_table_remove(t, e);
                expires[k] = 0;
            }

            break;

        case 1:
            if (e == NULL) {
                expires[k] = now + 1 + any(2000);
                e = ngx_coord_table_insert(t, 1, 0, key, 8, NULL, expires[k],
                                           now);
                assert_non_null(e);
                len[k] = 0;
            }

            len[k] = any(4) ? any(300) : any(20000);
            fill(want, len[k], k);
            assert_int_equal(ngx_coord_table_write(t, e, want, len[k], now),
                             NGX_OK);
            break;

        default:
            if (e) {
                fill(want, len[k], k);
                off = any(len[k] + 200);
                n = ngx_coord_table_read(t, e, got, off, 1 + any(20000 - 1));
                assert_true(off + n <= len[k] || n == 0);
                assert_memory_equal(got, want + (n ? off : 0), n);
                n = ngx_coord_table_read(t, e, got, 0, 20000);
                assert_int_equal(n, len[k]);
                assert_memory_equal(got, want, n);
            }
        }

        ngx_coord_table_leave(t);

        if (i % 1000 == 0) {
            check(t);
        }
    }

    assert_int_equal(t->evictions, 0);
    assert_true(t->expirations > 0);

    free(got);
    free(want);
    free(p);
}


static void
full_evicts_only_what_may_go(void **state)
{
    void                *p;
    uint32_t             i, kept;
    ngx_coord_table_t   *t;
    ngx_coord_entry_t   *e;

    p = calloc(1, 65536);
    t = ngx_coord_table_create(p, 65536, seed, &name);

    ngx_coord_table_enter(t);

    for (i = 0; i < t->ncells / 2; i++) {
        assert_non_null(ngx_coord_table_insert(t, 1, 0, (u_char *) &i, 4,
                                               NULL, FOREVER, 1 + i));
    }

    kept = i;

    for ( /* void */ ; i < 5000; i++) {
        assert_non_null(ngx_coord_table_insert(t, 1, NGX_COORD_ENTRY_EVICT,
                                               (u_char *) &i, 4, NULL,
                                               FOREVER, 1 + i));

        /* the one in use stays while others are older */

        assert_non_null(ngx_coord_table_find(t, 1, (u_char *) &kept, 4,
                                             1 + i));
    }

    assert_int_equal(t->evictions, 5000 - t->ncells);

    for (i = 0; i < kept; i++) {
        assert_non_null(ngx_coord_table_find(t, 1, (u_char *) &i, 4, 6000));
    }

    for (i = kept; i < 5000; i++) {
        e = ngx_coord_table_find(t, 1, (u_char *) &i, 4, 6000);

        if (e) {
            e->flags = 0;
        }
    }

    i = 7777;
    assert_null(ngx_coord_table_insert(t, 1, NGX_COORD_ENTRY_EVICT,
                                       (u_char *) &i, 4, NULL, FOREVER,
                                       6000));

    i = 0;
    e = ngx_coord_table_find(t, 1, (u_char *) &i, 4, 6000);
    assert_null(ngx_coord_table_add(t, e, NULL, 6000));
    assert_int_equal(ngx_coord_table_write(t, e, (u_char *) p, 5, 6000),
                     NGX_ERROR);
    assert_null(ngx_coord_table_find(t, 1, (u_char *) &i, 4, 6000));

    ngx_coord_table_leave(t);
    check(t);
    free(p);
}


static void
expired_entries_make_room(void **state)
{
    void                *p;
    uint32_t             i;
    ngx_coord_table_t   *t;

    p = calloc(1, 65536);
    t = ngx_coord_table_create(p, 65536, seed, &name);

    ngx_coord_table_enter(t);

    for (i = 0; i < 20000; i++) {
        assert_non_null(ngx_coord_table_insert(t, 1, 0, (u_char *) &i, 4,
                                               NULL, i + 100, i));
    }

    assert_true(t->nentries < 200);

    ngx_coord_table_leave(t);
    check(t);
    free(p);
}


/* found while there is room, gone where there is none; that evicts nothing */

static void
expired_entries_may_be_kept(void **state)
{
    void                *p;
    uint32_t             i, n;
    ngx_coord_table_t   *t;
    ngx_coord_entry_t   *e;

    p = calloc(1, 65536);
    t = ngx_coord_table_create(p, 65536, seed, &name);

    ngx_coord_table_enter(t);

    for (i = 0; i < 20000; i++) {
        e = ngx_coord_table_insert(t, 1, NGX_COORD_ENTRY_EVICT, (u_char *) &i,
                                   4, NULL, 10 * i + 5, 10 * i);
        assert_non_null(e);
        e->kept = 10 * i + 1000;

        n = i - ngx_min(i, 90);
        assert_non_null(ngx_coord_table_find(t, 1, (u_char *) &n, 4, 10 * i));

        n = i - ngx_min(i, 101);
        e = ngx_coord_table_find(t, 1, (u_char *) &n, 4, 10 * i);
        assert_true(e == NULL || i < 101);
    }

    for ( /* void */ ; i < 22000; i++) {
        e = ngx_coord_table_insert(t, 1, NGX_COORD_ENTRY_EVICT, (u_char *) &i,
                                   4, NULL, 10 * i + 5, 10 * i);
        assert_non_null(e);
        e->kept = FOREVER;
    }

    assert_int_equal(t->evictions, 0);
    assert_int_equal(t->nentries, t->ncells);

    ngx_coord_table_leave(t);
    check(t);
    free(p);
}


/* damage that no order of stores explains: repaired to something sound */

static void
garbage_is_repaired(void **state)
{
    void                *p;
    size_t               at;
    u_char               blob[900];
    uint32_t             i, round;
    ngx_coord_table_t   *t;
    ngx_coord_entry_t   *e;

    p = calloc(1, 65536);

    for (round = 0; round < 300; round++) {
        ngx_memzero(p, 65536);
        t = ngx_coord_table_create(p, 65536, seed, &name);

        ngx_coord_table_enter(t);

        for (i = 0; i < 60; i++) {
            e = ngx_coord_table_insert(t, 1, 0, (u_char *) &i, 4, NULL,
                                       FOREVER, 1);
            ngx_coord_table_write(t, e, blob, any(900), 1);
        }

        for (i = 0; i < 200; i++) {
            at = (u_char *) ngx_coord_table_buckets(t) - (u_char *) p;
            at += any(65536 - at);
            ((u_char *) p)[at] = (u_char) any(256);
        }

        t->free = (uint32_t) any(1u << 31);
        t->nfree = (uint32_t) any(1u << 31);

        assert_int_equal(ngx_coord_table_enter(t), 1);
        ngx_coord_table_leave(t);
        check(t);
    }

    free(p);
}


/* what is not used is not touched: a large zone costs what it holds */

static void
memory_is_taken_when_it_is_used(void **state)
{
    void               *p;
    size_t              size, i, taken;
    u_char             *resident;
    uint32_t            k;
    ngx_coord_table_t  *t;

    size = 64 << 20;
    p = mmap(NULL, size, PROT_READ|PROT_WRITE, MAP_SHARED|MAP_ANONYMOUS,
             -1, 0);
    assert_true(p != MAP_FAILED);

    t = ngx_coord_table_create(p, size, seed, &name);
    assert_true(t->ncells > 400000);

    for (k = 0; k < 100; k++) {
        ngx_coord_table_enter(t);
        assert_non_null(ngx_coord_table_insert(t, 1, 0, (u_char *) &k, 4, NULL,
                                               FOREVER, 1));
        ngx_coord_table_leave(t);
    }

    taken = 0;
    resident = malloc(size / (size_t) getpagesize());
    assert_int_equal(mincore(p, size, resident), 0);

    for (i = 0; i < size / (size_t) getpagesize(); i++) {
        taken += resident[i] & 1;
    }

    assert_true(taken < 120);

    free(resident);
    munmap(p, size);
}


/* a large entry makes room, wherever the hand stands, and the oldest does */

static void
large_entries_make_room(void **state)
{
    void               *p;
    u_char             *blob;
    uint32_t            k;
    ngx_coord_table_t  *t;
    ngx_coord_entry_t  *e;

    p = calloc(1, 1 << 20);
    blob = calloc(1, 1 << 20);
    t = ngx_coord_table_create(p, 1 << 20, seed, &name);

    ngx_coord_table_enter(t);

    for (k = 0; k < 40; k++) {
        e = ngx_coord_table_insert(t, 1, NGX_COORD_ENTRY_EVICT, (u_char *) &k,
                                   4, NULL, FOREVER, 1 + k);
        assert_non_null(e);
        assert_int_equal(ngx_coord_table_write(t, e, blob, 250000, 1 + k),
                         NGX_OK);
    }

    assert_int_equal(t->evictions, 37);

    for (k = 0; k < 40; k++) {
        e = ngx_coord_table_find(t, 1, (u_char *) &k, 4, 41 + k);
        assert_int_equal(e != NULL, k >= 37);
    }

    /* what never fits drops nobody */

    e = ngx_coord_table_insert(t, 1, NGX_COORD_ENTRY_EVICT, (u_char *) &k, 4,
                               NULL, FOREVER, 100);
    assert_int_equal(ngx_coord_table_write(t, e, blob, 1 << 20, 100),
                     NGX_ERROR);
    assert_int_equal(t->nentries, 3);

    ngx_coord_table_leave(t);
    check(t);

    free(blob);
    free(p);
}


typedef struct {
    volatile uint32_t          lock;
    volatile uint32_t          turns;
    char                       pad[120];
} shared_t;


static void
lock(shared_t *s)
{
    while (!__sync_bool_compare_and_swap(&s->lock, 0, getpid())) {
        sched_yield();
    }
}


static void
unlock(shared_t *s)
{
    __sync_bool_compare_and_swap(&s->lock, getpid(), 0);
}


/* what a worker does for ever: blobs under tag 1, pairs of slots under 2 */

static void
mutate(shared_t *s, ngx_coord_table_t *t)
{
    size_t              len;
    u_char              blob[3000];
    int64_t             now;
    uint32_t            k, tag;
    uint64_t           *slot;
    ngx_coord_data_t   *data, *last;
    ngx_coord_entry_t  *e;

    for ( ;; ) {
        lock(s);
        ngx_coord_table_enter(t);

        s->turns++;
        now = s->turns;

        k = any(100);
        tag = 1 + any(2);

        e = ngx_coord_table_find(t, tag, (u_char *) &k, 4, now);

        if (e && any(4) == 0) {
            ngx_coord_table_remove(t, e);
            e = NULL;
        }

        if (e == NULL) {
            e = ngx_coord_table_insert(t, tag, any(2), (u_char *) &k, 4, NULL,
                                       now + 50 + any(500), now);
        }

        if (e && tag == 1) {
            len = 1 + any(2999);
            fill(blob, len, k);

            if (ngx_coord_table_write(t, e, blob, len, now) == NGX_OK) {
                e->payload[0] = 1;
            }
        }

        if (e && tag == 2) {
            last = NULL;
            data = ngx_coord_table_first(t, e);

            while (data && any(3)) {
                last = data;
                data = ngx_coord_table_next(t, data);
            }

            if (data && any(3) == 0) {
                ngx_coord_table_drop(t, e, last);

            } else {
                data = ngx_coord_table_add(t, e, last, now);

                if (data) {
                    slot = data->data;
                    slot[1] = ~(uint64_t) now;
                    ngx_coord_table_commit();
                    slot[0] = now;
                }
            }
        }

        ngx_coord_table_leave(t);
        unlock(s);
    }
}


static void
check_content(ngx_coord_table_t *t)
{
    u_char             want[3000], got[3000];
    uint32_t           i, k;
    ngx_coord_data_t  *data;
    ngx_coord_cell_t  *cell;

    for (i = 1; i <= t->ncells; i++) {
        cell = cell_of(t, i);

        if (cell->head.state != NGX_COORD_CELL_HEAD) {
            continue;
        }

        ngx_memcpy(&k, cell->head.key, 4);
        assert_true(k < 100);

        if (cell->head.tag == 1) {

            /* one that was written is whole, or it is not there */

            assert_true(cell->head.length || !cell->head.payload[0]);

            fill(want, cell->head.length, k);
            assert_int_equal(ngx_coord_table_read(t, &cell->head, got, 0,
                                                  3000),
                             cell->head.length);
            assert_memory_equal(got, want, cell->head.length);
            continue;
        }

        assert_int_equal(cell->head.tag, 2);

        for (data = ngx_coord_table_first(t, &cell->head);
             data;
             data = ngx_coord_table_next(t, data))
        {
            if (data->data[0]) {
                assert_true(data->data[0] == ~data->data[1]);
            }
        }
    }
}


static pid_t
start(shared_t *s, ngx_coord_table_t *t, uint64_t r)
{
    pid_t  pid;

    pid = fork();

    if (pid == 0) {
        rnd = r | 1;
        mutate(s, t);
        _exit(0);
    }

    assert_true(pid > 0);

    return pid;
}


static void
end_worker(shared_t *s, pid_t pid)
{
    int  status;

    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);

    /* as the master does for a dead worker */

    __sync_bool_compare_and_swap(&s->lock, pid, 0);
}


static void
a_killed_worker_leaves_a_sound_table(void **state)
{
    void               *p;
    pid_t               one, two;
    size_t              size;
    shared_t           *s;
    uint32_t            i, repaired;
    ngx_coord_table_t  *t;

    size = 120000;
    p = mmap(NULL, size, PROT_READ|PROT_WRITE, MAP_SHARED|MAP_ANONYMOUS,
             -1, 0);
    assert_true(p != MAP_FAILED);

    s = p;
    s->lock = 0;
    s->turns = 1;
    t = ngx_coord_table_create(s + 1, size - sizeof(shared_t), seed, &name);
    repaired = 0;

    one = start(s, t, any(1ULL << 50));

    for (i = 0; i < 400; i++) {
        two = start(s, t, any(1ULL << 50));

        usleep(200 + any(3000));

        /* the other one goes on, with whatever it finds */

        end_worker(s, one);

        if (i % 3) {
            one = two;
            continue;
        }

        usleep(any(500));
        end_worker(s, two);

        repaired += ngx_coord_table_enter(t);
        ngx_coord_table_leave(t);

        check(t);
        check_content(t);

        one = start(s, t, any(1ULL << 50));
    }

    end_worker(s, one);

    assert_true(s->turns > 1000);
    assert_true(t->repairs > 10);
    assert_true(repaired > 5);

    munmap(p, size);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(fixed_layout),
        cmocka_unit_test(too_small_is_refused),
        cmocka_unit_test(tags_lengths_and_bytes_make_keys_differ),
        cmocka_unit_test(tables_do_not_share_hashes),
        cmocka_unit_test(blobs_match_a_model),
        cmocka_unit_test(full_evicts_only_what_may_go),
        cmocka_unit_test(expired_entries_make_room),
        cmocka_unit_test(expired_entries_may_be_kept),
        cmocka_unit_test(garbage_is_repaired),
        cmocka_unit_test(memory_is_taken_when_it_is_used),
        cmocka_unit_test(large_entries_make_room),
        cmocka_unit_test(a_killed_worker_leaves_a_sound_table)
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
