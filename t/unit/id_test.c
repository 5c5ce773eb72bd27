
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Random ids.
 */


#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <sys/wait.h>

#include "ngx_stub.h"
#include "ngx_coord_id.h"


#define IDS  200


static u_char  ids[2 * IDS * NGX_COORD_ID_LEN];


static int
compare(const void *a, const void *b)
{
    return memcmp(a, b, NGX_COORD_ID_LEN);
}


static void
assert_all_different(size_t n)
{
    size_t  i;

    qsort(ids, n, NGX_COORD_ID_LEN, compare);

    for (i = 1; i < n; i++) {
        assert_memory_not_equal(&ids[(i - 1) * NGX_COORD_ID_LEN],
                                &ids[i * NGX_COORD_ID_LEN], NGX_COORD_ID_LEN);
    }
}


static void
no_id_comes_twice(void **state)
{
    size_t  i;

    for (i = 0; i < IDS; i++) {
        assert_int_equal(ngx_coord_id(&ids[i * NGX_COORD_ID_LEN]), NGX_OK);
    }

    assert_all_different(IDS);
}


static void
a_child_has_others(void **state)
{
    int     fd[2], status;
    pid_t   pid;
    size_t  i;

    assert_int_equal(pipe(fd), 0);
    assert_int_equal(ngx_coord_id(ids), NGX_OK);

    pid = fork();
    assert_int_not_equal(pid, -1);

    if (pid == 0) {
        ngx_pid = getpid();

        for (i = 0; i < IDS; i++) {
            if (ngx_coord_id(&ids[i * NGX_COORD_ID_LEN]) != NGX_OK) {
                _exit(1);
            }
        }

        _exit(write(fd[1], ids, sizeof(ids) / 2) != sizeof(ids) / 2);
    }

    for (i = 0; i < IDS; i++) {
        assert_int_equal(ngx_coord_id(&ids[i * NGX_COORD_ID_LEN]), NGX_OK);
    }

    assert_int_equal(read(fd[0], ids + sizeof(ids) / 2, sizeof(ids) / 2),
                     sizeof(ids) / 2);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);

    assert_all_different(2 * IDS);

    close(fd[0]);
    close(fd[1]);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(no_id_comes_twice),
        cmocka_unit_test(a_child_has_others)
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
