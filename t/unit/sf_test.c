
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Dictionaries of RFC 9651, and what is none.
 */


#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "ngx_coord_sf.h"


/* the members as text: key, the letter of the type, number or string */

static const char *
read_all(const char *text)
{
    int              n;
    size_t           len;
    ngx_int_t        rc;
    ngx_str_t        left;
    ngx_coord_sf_t   member;

    static char      out[512], copy[256];

    /* a copy without the terminating zero: nothing behind it is read */

    left.len = strlen(text);
    left.data = (u_char *) copy + sizeof(copy) - left.len;
    memcpy(left.data, text, left.len);

    len = 0;
    out[0] = '\0';

    for ( ;; ) {
        rc = ngx_coord_sf_next(&left, &member);

        if (rc == NGX_DONE) {
            return out;
        }

        if (rc != NGX_OK) {
            return "error";
        }

        n = snprintf(out + len, sizeof(out) - len, "%s%.*s:%c",
                     len ? " " : "", (int) member.key.len, member.key.data,
                     "bidstBDxl"[member.type]);
        len += n;

        if (member.type == NGX_COORD_SF_STRING
            || member.type == NGX_COORD_SF_TOKEN)
        {
            n = snprintf(out + len, sizeof(out) - len, "%.*s",
                         (int) member.value.len, member.value.data);

        } else if (member.type == NGX_COORD_SF_BOOLEAN
                   || member.type == NGX_COORD_SF_INTEGER
                   || member.type == NGX_COORD_SF_DATE)
        {
            n = snprintf(out + len, sizeof(out) - len, "%lld",
                         (long long) member.number);
        } else {
            n = 0;
        }

        len += n;
    }
}


static void
dictionaries(void **state)
{
    size_t  i;

    static const struct {
        const char  *text;
        const char  *members;
    } cases[] = {
        { "", "" },
        { "   ", "" },
        { "max-age=60", "max-age:i60" },
        { "  a=1 ", "a:i1" },
        { "a, b=?0 ,\tc=-15", "a:b1 b:b0 c:i-15" },
        { "a=999999999999999", "a:i999999999999999" },
        { "a=1.5, b=123456789012.123", "a:d b:d" },
        { "a=\"x, y\", b", "a:sx, y b:b1" },
        { "a=\"q\\\"\\\\\"", "a:sq\\\"\\\\" },
        { "a=tok:en/*, b=*x", "a:ttok:en/* b:t*x" },
        { "a=:aGk=:, b=::", "a:B b:B" },
        { "a=:aGk:, b=:aGkh:, c=:aA==:, d=:aA=:", "a:B b:B c:B d:B" },
        { "a=@12, b=%\"f%c3%bc\"", "a:D12 b:x" },
        { "a=%\"%e0%a0%80%ed%9f%bf%ee%80%80\"", "a:x" },
        { "a=%\"%f0%90%80%80x%f4%8f%bf%bf\"", "a:x" },
        { "a=(), b=(1  \"x\";p tok ), c", "a:l b:l c:b1" },
        { "a;p;q=1; r=\"s\", b=2;t", "a:b1 b:i2" },
        { "*a_-.9=1", "*a_-.9:i1" },
        { "a=1, a=2", "a:i1 a:i2" }
    };

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_string_equal(read_all(cases[i].text), cases[i].members);
    }
}


static void
none(void **state)
{
    size_t  i;

    static const char  *cases[] = {
        "Max-Age=60", "1a", "=1", "&", "\ta", "a=", "a =1", "a= 1", "a=&",
        "a,", "a, ", "a,,b", ", a", "a b", "a;", "a;P", "a;p=", "a=1x",
        "a=-", "a=--1", "a=1000000000000000", "a=1.", "a=1.2345",
        "a=1234567890123.1", "a=\"x", "a=\"x\\", "a=\"\\x\"", "a=\"\t\"",
        "a=\"\xfc\"", "a=:a", "a=:a-:", "a=?", "a=?2", "a=@", "a=@1.5",
        "a=:=aGk:", "a=:a=Gk:", "a=:aGk==:", "a=:aGkh=:", "a=:a:",
        "a=:aA===:", "a=%\"%80\"", "a=%\"%c0%80\"", "a=%\"%c1%bf\"",
        "a=%\"%c3(\"", "a=%\"%c3\"", "a=%\"%c3%28\"",
        "a=%\"%e0%9f%bf\"", "a=%\"%e2%28%a1\"", "a=%\"%ed%a0%80\"",
        "a=%\"%f0%8f%bf%bf\"", "a=%\"%f4%90%80%80\"", "a=%\"%f5%80%80%80\"",
        "a=%", "a=%\"", "a=%\"%C3\"", "a=%\"%c\"", "a=%x", "a=(", "a=(1",
        "a=(1\"x\")", "a=(1,2)", "a=((1))"
    };

    for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_string_equal(read_all(cases[i]), "error");
    }
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(dictionaries),
        cmocka_unit_test(none)
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
