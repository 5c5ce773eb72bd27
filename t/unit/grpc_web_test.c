
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The status in the last frame of a body of gRPC-Web, however it is cut, and in
 * base64; what is cut short, damaged or compressed has none.
 */


#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdlib.h>
#include <cmocka.h>

#include "ngx_stub.h"
#include "ngx_coord_grpc_web.c"


#define NONE  NGX_CONF_UNSET

#define body(s)  s, sizeof(s) - 1


static const struct {
    const char  *body;
    size_t       len;
    ngx_int_t    status;              /* NONE: there is none */
} bodies[] = {
    { body("\x80\0\0\0\x0e" "grpc-status:0\n"), 0 },
    { body("\x80\0\0\0\x0f" "grpc-status:0\r\n"), 0 },
    { body("\x80\0\0\0\x0d" "grpc-status:5"), 5 },
    { body("\0\0\0\0\x03" "abc" "\x80\0\0\0\x12" "Grpc-Status : 14\r\n"),
      NONE },
    { body("\0\0\0\0\x03" "abc" "\x80\0\0\0\x12" "Grpc-Status:  14\r\n"), 14 },
    { body("\0\0\0\0\0" "\0\0\0\0\x05" "\x80\0\0\0\0" "\x80\0\0\0\x0f"
           "grpc-status:9\r\n"), 9 },
    { body("\x01\0\0\0\x02" "zz" "\x80\0\0\0\x30"
           "x-long: 0123456789012345678901\r\ngrpc-status: 3\r\n"), 3 },
    { body("\x80\0\0\0\x1e" "grpc-status:3\r\ngrpc-status:0\r\n"), 3 },

    /* a value that is none */

    { body("\x80\0\0\0\x0f" "grpc-status:x\r\n"), NGX_ERROR },
    { body("\x80\0\0\0\x0e" "grpc-status:\r\n"), NGX_ERROR },

    /* none */

    { body(""), NONE },
    { body("\0\0\0\0\x03" "abc"), NONE },
    { body("\x80\0\0\0\0"), NONE },
    { body("\x80\0\0\0\x10" "grpc-message:no\n"), NONE },
    { body("\x80\0\0\0\x10" "xgrpc-status:0\r\n"), NONE },

    /* cut short, not the last, compressed, no frames */

    { body("\x80\0\0\0\x10" "grpc-status:0\r\n"), NONE },
    { body("\x80\0\0\0"), NONE },
    { body("\0\0\0\0\x04" "abc"), NONE },
    { body("\x80\0\0\0\x0f" "grpc-status:0\r\n" "\0\0\0\0\0"), NONE },
    { body("\x80\0\0\0\x0f" "grpc-status:0\r\n" "\0"), NONE },
    { body("\x81\0\0\0\x0f" "grpc-status:0\r\n"), NONE },
    { body("{\"grpc-status\": 0}"), NONE }
};


static ngx_int_t
status_of(const char *p, size_t len, size_t piece, ngx_uint_t text)
{
    size_t                n;
    ngx_coord_grpc_web_t  web;

    ngx_memzero(&web, sizeof(web));
    web.text = text;

    for ( /* void */ ; len; len -= n, p += n) {
        n = ngx_min(piece, len);
        ngx_coord_grpc_web_read(&web, (u_char *) p, n);
    }

    return ngx_coord_grpc_web_status(&web) == NGX_OK ? web.status : NONE;
}


static size_t
encode(char *dst, const u_char *p, size_t len)
{
    char      *start;
    size_t     i, n;
    uint32_t   bits;

    static const char  digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                  "abcdefghijklmnopqrstuvwxyz0123456789+/";

    start = dst;

    for ( /* void */ ; len; len -= n, p += n) {
        n = ngx_min(len, 3);
        bits = 0;

        for (i = 0; i < 3; i++) {
            bits = bits << 8 | (i < n ? p[i] : 0);
        }

        for (i = 0; i < 4; i++) {
            *dst++ = (i <= n) ? digits[bits >> (18 - 6 * i) & 0x3f] : '=';
        }
    }

    return dst - start;
}


static void
however_it_is_cut(void **state)
{
    size_t      piece;
    ngx_uint_t  i;

    for (i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
        for (piece = 1; piece < 12; piece++) {
            if (status_of(bodies[i].body, bodies[i].len, piece, 0)
                != bodies[i].status)
            {
                fail_msg("body %d in pieces of %d", (int) i, (int) piece);
            }
        }

        assert_int_equal(status_of(bodies[i].body, bodies[i].len,
                                   bodies[i].len + 1, 0), bodies[i].status);
    }
}


/* as a whole, and each piece by itself, padded */

static void
in_base64(void **state)
{
    char           text[512], *p;
    size_t         len, piece, n, left;
    ngx_uint_t     i;
    const u_char  *src;

    for (i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++) {
        for (piece = 1; piece < 64; piece++) {
            p = text;
            src = (const u_char *) bodies[i].body;

            for (left = bodies[i].len; left; left -= n, src += n) {
                n = ngx_min(piece, left);
                p += encode(p, src, n);
            }

            len = p - text;

            if (status_of(text, len, piece, 1) != bodies[i].status) {
                fail_msg("body %d in pieces of %d", (int) i, (int) piece);
            }
        }
    }
}


static void
bad_base64_has_none(void **state)
{
    char    text[64];
    size_t  len;

    ngx_uint_t  i;

    static const char  *tails[] = { "A", "AA", "AAA", "=", "====", "A===",
                                    "AA=A", " ", "\n", "-AAA", "_AAA" };

    len = encode(text, (const u_char *) bodies[1].body, bodies[1].len);

    assert_int_equal(status_of(text, len, 5, 1), 0);
    assert_int_equal(status_of(text, len - 1, 5, 1), NONE);

    for (i = 0; i < sizeof(tails) / sizeof(tails[0]); i++) {
        strcpy(text + len, tails[i]);

        if (status_of(text, strlen(text), 5, 1) != NONE) {
            fail_msg("\"%s\" was taken", tails[i]);
        }
    }
}


static void
nothing_is_read_beyond(void **state)
{
    size_t      i, n;
    u_char     *p;
    ngx_uint_t  round;

    /* sanitizers look */

    for (round = 0; round < 2000; round++) {
        n = any(64) + 1;
        p = malloc(n);

        for (i = 0; i < n; i++) {
            p[i] = (u_char) (any(3) ? any(6) : any(256));
        }

        if (any(2)) {
            p[0] = 0x80;
        }

        (void) status_of((char *) p, n, any(8) + 1, any(2));
        free(p);
    }
}


int
main(void)
{
    static const struct CMUnitTest  tests[] = {
        cmocka_unit_test(however_it_is_cut),
        cmocka_unit_test(in_base64),
        cmocka_unit_test(bad_base64_has_none),
        cmocka_unit_test(nothing_is_read_beyond),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
