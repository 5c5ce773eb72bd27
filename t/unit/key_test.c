
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Client keys in Redis keys, and digests.
 */


#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "ngx_stub.h"
#include "ngx_coord_key.h"


static void
check(const char *data, size_t len, const char *expected)
{
    size_t      n;
    u_char     *buf;
    ngx_str_t   key;

    key.data = (u_char *) data;
    key.len = len;

    buf = malloc(NGX_COORD_KEY_LEN);
    assert_non_null(buf);

    n = ngx_coord_key_encode(buf, &key);

    assert_int_equal(n, strlen(expected));
    assert_memory_equal(buf, expected, n);

    free(buf);
}


static void
test_plain(void **state)
{
    char  key[66];

    check("192.0.2.1", 9, "192.0.2.1");
    check("2001:db8::/64", 13, "2001:db8::/64");
    check("a_B-c@d.e/f:0", 13, "a_B-c@d.e/f:0");

    memset(key, 'z', 64);
    key[64] = '\0';
    check(key, 64, key);
}


/* digests from sha256sum */

static void
test_digest(void **state)
{
    char  key[66];

    check("", 0, "~e3b0c44298fc1c149afbf4c8996fb924");
    check("a b", 3, "~c8687a08aa5d6ed2044328fa6a697ab8");
    check("a}", 2, "~0fa7ca4dfdeb7fefde235a0ce50ae59c");

    memset(key, 'z', 65);
    key[65] = '\0';
    check(key, 65, "~57685f5e43ddac1567f4d404c357c44b");
}


/* each byte alone: plain if and only if it is in the set */

static void
test_every_byte(void **state)
{
    char        c;
    size_t      n;
    u_char      buf[NGX_COORD_KEY_LEN];
    ngx_int_t   i;
    ngx_str_t   key;

    static const char  plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                 "abcdefghijklmnopqrstuvwxyz"
                                 "0123456789._@:/-";

    for (i = 0; i < 256; i++) {
        c = (char) i;
        key.data = (u_char *) &c;
        key.len = 1;

        n = ngx_coord_key_encode(buf, &key);

        if (i && strchr(plain, c)) {
            assert_int_equal(n, 1);
            assert_int_equal(buf[0], (u_char) c);

        } else {
            assert_int_equal(n, NGX_COORD_DIGEST_HEX_LEN);
            assert_int_equal(buf[0], '~');
        }
    }
}


/* short keys are kept, more than there is room for: none is another's */

static void
test_kept(void **state)
{
    u_char     expected[NGX_COORD_KEY_LEN], buf[NGX_COORD_KEY_LEN];
    uint32_t   i, n, words[5];
    ngx_str_t  key;

    key.data = (u_char *) words;

    for (n = 0; n < 3 * 5000; n++) {
        i = n % 5000;

        words[0] = i * 2654435761U | 0x80;
        words[1] = i & 1;
        words[2] = i & 2;
        words[3] = i & 4;
        words[4] = i & 8;

        key.len = 1 + i % 17;

        assert_int_equal(ngx_coord_key_digest(expected, &key),
                         NGX_COORD_DIGEST_HEX_LEN);
        assert_int_equal(ngx_coord_key_encode(buf, &key),
                         NGX_COORD_DIGEST_HEX_LEN);
        assert_memory_equal(buf, expected, NGX_COORD_DIGEST_HEX_LEN);

        /* what is kept is found */

        assert_int_equal(ngx_coord_key_encode(buf, &key),
                         NGX_COORD_DIGEST_HEX_LEN);
        assert_memory_equal(buf, expected, NGX_COORD_DIGEST_HEX_LEN);
    }
}


static void
test_secret(void **state)
{
    u_char     buf[NGX_COORD_KEY_LEN];
    ngx_str_t  key = ngx_string("abc");

    assert_int_equal(ngx_coord_key_digest(buf, &key),
                     NGX_COORD_DIGEST_HEX_LEN);
    assert_memory_equal(buf, "~ba7816bf8f01cfea414140de5dae2223", 33);

    assert_int_equal(ngx_coord_key_tag(buf, &key), 8);
    assert_memory_equal(buf, "ba7816bf", 8);

    /* the same digits where it stands as its digest */

    ngx_str_set(&key, "~ba7816bf8f01cfea414140de5dae2223");

    assert_int_equal(ngx_coord_key_tag(buf, &key), 8);
    assert_memory_equal(buf, "ba7816bf", 8);
}


static void
test_incremental(void **state)
{
    u_char  digest[NGX_COORD_DIGEST_LEN];

    static const u_char  abc[] = {
        0xba, 0x78, 0x16, 0xbf, 0x8f, 0x01, 0xcf, 0xea,
        0x41, 0x41, 0x40, 0xde, 0x5d, 0xae, 0x22, 0x23,
        0xb0, 0x03, 0x61, 0xa3, 0x96, 0x17, 0x7a, 0x9c,
        0xb4, 0x10, 0xff, 0x61, 0xf2, 0x00, 0x15, 0xad
    };

    assert_int_equal(ngx_coord_digest_init(), NGX_OK);
    assert_int_equal(ngx_coord_digest_update("a", 1), NGX_OK);
    assert_int_equal(ngx_coord_digest_update("", 0), NGX_OK);
    assert_int_equal(ngx_coord_digest_update("bc", 2), NGX_OK);
    assert_int_equal(ngx_coord_digest_final(digest), NGX_OK);
    assert_memory_equal(digest, abc, NGX_COORD_DIGEST_LEN);
}


static void
fields(u_char *digest, const char *a, const char *b)
{
    ngx_str_t  field;

    assert_int_equal(ngx_coord_digest_init(), NGX_OK);

    field.data = (u_char *) a;
    field.len = strlen(a);
    assert_int_equal(ngx_coord_digest_field(&field), NGX_OK);

    field.data = (u_char *) b;
    field.len = strlen(b);
    assert_int_equal(ngx_coord_digest_field(&field), NGX_OK);

    assert_int_equal(ngx_coord_digest_final(digest), NGX_OK);
}


static void
test_fields(void **state)
{
    u_char     one[NGX_COORD_DIGEST_LEN], two[NGX_COORD_DIGEST_LEN];
    ngx_str_t  raw = ngx_string("\0\0\0\0\0\0\0\2ab\0\0\0\0\0\0\0\1c");

    fields(one, "ab", "c");
    fields(two, "a", "bc");
    assert_memory_not_equal(one, two, NGX_COORD_DIGEST_LEN);

    assert_int_equal(ngx_coord_digest_init(), NGX_OK);
    assert_int_equal(ngx_coord_digest_update(raw.data, raw.len), NGX_OK);
    assert_int_equal(ngx_coord_digest_final(two), NGX_OK);
    assert_memory_equal(one, two, NGX_COORD_DIGEST_LEN);
}


static void
test_hex(void **state)
{
    int      c;
    u_char  *text, bytes[4], dumped[8];

    text = malloc(8);
    assert_non_null(text);

    ngx_memcpy(text, "09afbc7e", 8);

    assert_int_equal(ngx_coord_unhex(bytes, text, 4), NGX_OK);
    (void) ngx_hex_dump(dumped, bytes, 4);
    assert_memory_equal(dumped, text, 8);
    assert_true(ngx_coord_is_hex(text, 8));
    assert_true(ngx_coord_is_hex(text, 0));

    /* each byte as the last digit */

    for (c = 0; c < 256; c++) {
        text[7] = c;

        assert_int_equal(ngx_coord_unhex(bytes, text, 4),
                         c && strchr("0123456789abcdefABCDEF", c)
                         ? NGX_OK : NGX_ERROR);
        assert_int_equal(ngx_coord_is_hex(text, 8),
                         c && strchr("0123456789abcdef", c) ? 1 : 0);
    }

    free(text);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_plain),
        cmocka_unit_test(test_digest),
        cmocka_unit_test(test_every_byte),
        cmocka_unit_test(test_kept),
        cmocka_unit_test(test_secret),
        cmocka_unit_test(test_incremental),
        cmocka_unit_test(test_fields),
        cmocka_unit_test(test_hex)
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
