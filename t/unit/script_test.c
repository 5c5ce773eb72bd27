
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * What the table of operations encodes to.
 */


#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "ngx_coord_decimal.h"
#include "ngx_coord_script.h"


/* encodes into a buffer of exactly size() bytes, for the sanitizer to watch */

static u_char *
encode(ngx_uint_t n, const ngx_coord_arg_t *args, size_t *len)
{
    size_t                     size;
    u_char                    *buf, *end;
    const ngx_coord_script_t  *script;

    script = &ngx_coord_scripts[n];
    size = ngx_coord_script_bound(script, 100, 100);

    buf = malloc(size);
    assert_non_null(buf);

    end = ngx_coord_script_encode(buf, script, args);
    *len = end - buf;
    assert_true(*len <= size);

    return buf;
}


static void
check(ngx_uint_t n, const ngx_coord_arg_t *args, const char *expected,
    size_t expected_len)
{
    size_t   len;
    u_char  *buf;

    buf = encode(n, args, &len);

    assert_int_equal(len, expected_len);
    assert_memory_equal(buf, expected, len);

    free(buf);
}


static void
test_strings(void **state)
{
    ngx_coord_arg_t  args[NGX_COORD_LEASE_RELEASE_NARGS];

    ngx_coord_arg_str(&args[NGX_COORD_LEASE_RELEASE_K],
                      (u_char *) "coord:cc:z:{a}", 14);
    ngx_coord_arg_str(&args[NGX_COORD_LEASE_RELEASE_ID],
                      (u_char *) "\0\r\n$", 4);

    check(NGX_COORD_SCRIPT_LEASE_RELEASE, args,
          "*3\r\n$4\r\nZREM\r\n$14\r\ncoord:cc:z:{a}\r\n$4\r\n\0\r\n$\r\n",
          45);

    ngx_coord_arg_str(&args[NGX_COORD_LEASE_RELEASE_ID], (u_char *) "", 0);

    check(NGX_COORD_SCRIPT_LEASE_RELEASE, args,
          "*3\r\n$4\r\nZREM\r\n$14\r\ncoord:cc:z:{a}\r\n$0\r\n\r\n", 41);
}


/* as printf() writes it, and nothing before or behind it */

static void
test_decimal(void **state)
{
    u_char    *end, buf[NGX_INT64_LEN + 2];
    char       expected[32];
    uint64_t   i, n;

    for (i = 0; i < 200000; i++) {
        n = (i < 100000) ? i
                         : ((uint64_t) random() << 33 ^ (uint64_t) random())
                           >> i % 64;

        memset(buf, '#', sizeof(buf));

        end = ngx_coord_decimal(buf + 1, n);
        *end = '\0';

        snprintf(expected, sizeof(expected), "#%llu", (unsigned long long) n);
        assert_string_equal((char *) buf, expected);
    }

    memset(buf, '#', sizeof(buf));
    end = ngx_coord_decimal(buf + 1, UINT64_MAX);

    assert_ptr_equal(end, buf + sizeof(buf) - 1);
    assert_memory_equal(buf, "#18446744073709551615#", sizeof(buf));
}


static void
test_numbers(void **state)
{
    size_t           len;
    u_char          *buf;
    char             digits[32], expected[128];
    ngx_uint_t       i;
    ngx_coord_arg_t  args[NGX_COORD_SLIDING_WINDOW_GIVE_NARGS];

    static const int64_t  numbers[] = {
        0, 1, -1, 9, 10, -10, 99, 100, 999999999, -1000000000,
        1234567890123456789LL, INT64_MAX, INT64_MIN, INT64_MIN + 1
    };

    for (i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        ngx_coord_arg_str(&args[NGX_COORD_SLIDING_WINDOW_GIVE_CUR],
                          (u_char *) "k", 1);
        ngx_coord_arg_num(&args[NGX_COORD_SLIDING_WINDOW_GIVE_MINUS_COST],
                          numbers[i]);

        snprintf(digits, sizeof(digits), "%lld", (long long) numbers[i]);
        snprintf(expected, sizeof(expected),
                 "*6\r\n$4\r\nZADD\r\n$1\r\nk\r\n$2\r\nXX\r\n$4\r\nINCR\r\n"
                 "$%zu\r\n%s\r\n$1\r\nt\r\n", strlen(digits), digits);

        buf = encode(NGX_COORD_SCRIPT_SLIDING_WINDOW_GIVE, args, &len);

        assert_int_equal(len, strlen(expected));
        assert_memory_equal(buf, expected, len);

        free(buf);
    }
}


static int
is_list(const ngx_coord_script_t *script, ngx_uint_t arg)
{
    ngx_uint_t  i;

    for (i = 0; i < script->nparts; i++) {
        if (script->parts[i].arg == (int) NGX_COORD_SCRIPT_LIST(arg)) {
            return 1;
        }
    }

    return 0;
}


static void
test_lists(void **state)
{
    ngx_coord_arg_t  args[NGX_COORD_SLIDING_LOG_BACK_NARGS];

    ngx_coord_arg_str(&args[NGX_COORD_SLIDING_LOG_BACK_K], (u_char *) "k", 1);
    ngx_coord_arg_list(&args[NGX_COORD_SLIDING_LOG_BACK_IDS],
                       (u_char *) "$1\r\na\r\n$2\r\nbc\r\n", 15, 2);

    check(NGX_COORD_SCRIPT_SLIDING_LOG_BACK, args,
          "*4\r\n$4\r\nZREM\r\n$1\r\nk\r\n$1\r\na\r\n$2\r\nbc\r\n", 36);
}


/* the text of every script is well-formed RESP with the commands it claims */

static void
test_framing(void **state)
{
    long              n, argc;
    size_t            len;
    u_char           *buf, *p, *end;
    ngx_uint_t        i, j, ncommands;
    ngx_coord_arg_t   args[16];

    for (i = 0; i < NGX_COORD_SCRIPT_MAX; i++) {

        assert_true(ngx_coord_scripts[i].nargs >= 1);
        assert_true(ngx_coord_scripts[i].nargs <= 16);

        for (j = 0; j < ngx_coord_scripts[i].nargs; j++) {
            if (is_list(&ngx_coord_scripts[i], j)) {
                ngx_coord_arg_list(&args[j], (u_char *) "$1\r\na\r\n$0\r\n\r\n",
                                   13, 2);

            } else if (j % 2) {
                ngx_coord_arg_num(&args[j], INT64_MIN + (int64_t) j);

            } else {
                ngx_coord_arg_str(&args[j], (u_char *) "0123456789ab", 12);
            }
        }

        buf = encode(i, args, &len);
        p = buf;
        end = buf + len;
        ncommands = 0;

        while (p < end) {
            assert_int_equal(*p, '*');
            argc = strtol((char *) p + 1, (char **) &p, 10);
            assert_true(argc > 0);
            assert_memory_equal(p, "\r\n", 2);
            p += 2;
            ncommands++;

            while (argc--) {
                assert_int_equal(*p, '$');
                n = strtol((char *) p + 1, (char **) &p, 10);
                assert_memory_equal(p, "\r\n", 2);
                p += 2 + n;
                assert_true(p + 2 <= end);
                assert_memory_equal(p, "\r\n", 2);
                p += 2;
            }
        }

        assert_ptr_equal(p, end);
        assert_int_equal(ncommands, ngx_coord_scripts[i].ncommands);

        free(buf);
    }
}


/* each argument is used, and each index is one of an argument */

static void
test_arguments(void **state)
{
    ngx_uint_t                      i, j, used;
    const ngx_coord_script_t       *script;
    const ngx_coord_script_part_t  *part;

    for (i = 0; i < NGX_COORD_SCRIPT_MAX; i++) {
        script = &ngx_coord_scripts[i];
        used = 0;

        for (j = 0; j < script->nparts; j++) {
            part = &script->parts[j];

            assert_int_equal(part->len, strlen(part->text));
            assert_true((part->arg & 0xff) < (int) script->nargs
                        || part->arg == -1);

            if (part->arg >= 0) {
                used |= 1U << (part->arg & 0xff);
            }
        }

        assert_int_equal(used, (1U << script->nargs) - 1);
    }

    script = &ngx_coord_scripts[NGX_COORD_SCRIPT_GCRA_TAKE];
    assert_int_equal(script->name.len, 9);
    assert_memory_equal(script->name.data, "gcra_take", 9);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_strings),
        cmocka_unit_test(test_decimal),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_lists),
        cmocka_unit_test(test_framing),
        cmocka_unit_test(test_arguments)
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
