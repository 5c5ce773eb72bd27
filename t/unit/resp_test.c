
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The RESP reader: values, splits at each byte, each guard, and the same
 * stream through plain hiredis.  Needs no nginx at run time.
 */


#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <hiredis/hiredis.h>

#include "ngx_coord_resp.h"


#define MAX_REPLY    65536

#define lit(s)       (u_char *) s, sizeof(s) - 1


typedef struct {
    const char  *name;
    const char  *stream;
    size_t       len;
    const char  *error;
} guard_t;


/* what a stream holds, as text: two readers agree if their texts do */
typedef struct {
    char         data[65536];
    size_t       len;
} text_t;


static size_t  allocated;


/* what ngx_coord_resp.c needs of nginx */

void *
ngx_alloc(size_t size, ngx_log_t *log)
{
    allocated += size;

    return malloc(size);
}


ngx_int_t
ngx_atoi(u_char *line, size_t n)
{
    ngx_int_t  value;

    if (n == 0) {
        return NGX_ERROR;
    }

    for (value = 0; n--; line++) {

        if (*line < '0' || *line > '9' || value > 100000000) {
            return NGX_ERROR;
        }

        value = value * 10 + (*line - '0');
    }

    return value;
}


static void
text_add(text_t *t, const char *fmt, ...)
{
    va_list  args;

    va_start(args, fmt);
    t->len += vsnprintf(t->data + t->len, sizeof(t->data) - t->len, fmt, args);
    va_end(args);

    assert_true(t->len < sizeof(t->data));
}


static void
text_bytes(text_t *t, char type, const u_char *p, size_t len)
{
    text_add(t, "%c%zu:", type, len);

    while (len--) {
        text_add(t, "%02x", *p++);
    }
}


/* walks by next alone, and checks it against element() */

static void
text_value(text_t *t, ngx_coord_resp_value_t *v)
{
    int64_t                  i;
    ngx_coord_resp_value_t  *e;

    switch (v->type) {

    case NGX_COORD_RESP_STATUS:
        text_bytes(t, '+', v->str.data, v->str.len);
        break;

    case NGX_COORD_RESP_ERROR:
        text_bytes(t, '-', v->str.data, v->str.len);
        break;

    case NGX_COORD_RESP_STRING:
        text_bytes(t, '$', v->str.data, v->str.len);
        break;

    case NGX_COORD_RESP_INTEGER:
        text_add(t, ":%lld", (long long) v->integer);
        break;

    case NGX_COORD_RESP_NIL:
        text_add(t, "_");
        break;

    case NGX_COORD_RESP_ARRAY:
        text_add(t, "*%lld(", (long long) v->integer);

        e = v + 1;

        for (i = 0; i < v->integer; i++) {
            assert_ptr_equal(ngx_coord_resp_element(v, i), e);
            text_value(t, e);
            e += e->next;
        }

        assert_int_equal(e - v, v->next);
        assert_null(ngx_coord_resp_element(v, v->integer));

        text_add(t, ")");
        break;
    }
}


static void
text_reply(text_t *t, redisReply *r)
{
    size_t  i;

    switch (r->type) {

    case REDIS_REPLY_STATUS:
        text_bytes(t, '+', (u_char *) r->str, r->len);
        break;

    case REDIS_REPLY_ERROR:
        text_bytes(t, '-', (u_char *) r->str, r->len);
        break;

    case REDIS_REPLY_STRING:
        text_bytes(t, '$', (u_char *) r->str, r->len);
        break;

    case REDIS_REPLY_INTEGER:
        text_add(t, ":%lld", r->integer);
        break;

    case REDIS_REPLY_NIL:
        text_add(t, "_");
        break;

    case REDIS_REPLY_ARRAY:
        text_add(t, "*%zu(", r->elements);

        for (i = 0; i < r->elements; i++) {
            text_reply(t, r->element[i]);
        }

        text_add(t, ")");
        break;
    }
}


static void
text_drain(text_t *t, ngx_coord_resp_t *resp)
{
    ngx_int_t                rc;
    ngx_coord_resp_value_t  *v;

    for ( ;; ) {
        rc = ngx_coord_resp_next(resp, &v);

        if (rc != NGX_OK) {
            assert_int_equal(rc, NGX_AGAIN);
            return;
        }

        text_value(t, v);
    }
}


/* the given stream through hiredis alone, in one piece */

static void
text_hiredis(text_t *t, const u_char *data, size_t len)
{
    void         *reply;
    redisReader  *reader;

    reader = redisReaderCreate();
    assert_int_equal(redisReaderFeed(reader, (const char *) data, len), 0);

    for ( ;; ) {
        assert_int_equal(redisReaderGetReply(reader, &reply), REDIS_OK);

        if (reply == NULL) {
            break;
        }

        text_reply(t, reply);
        freeReplyObject(reply);
    }

    redisReaderFree(reader);
}


/* feeds a stream and returns what the first reply is */

static ngx_int_t
first(ngx_coord_resp_t *resp, u_char *data, size_t len,
    ngx_coord_resp_value_t **v)
{
    if (ngx_coord_resp_feed(resp, data, len) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_coord_resp_next(resp, v);
}


static u_char  stream[] =
    "+OK\r\n"
    "+\r\n"
    "-ERR no such key\r\n"
    ":0\r\n:-1\r\n:9223372036854775807\r\n:-9223372036854775808\r\n"
    "$0\r\n\r\n"
    "$5\r\nhello\r\n"
    "$4\r\n\r\n\r\n\r\n"
    "$3\r\n\0\1\2\r\n"
    "$-1\r\n"
    "*-1\r\n"
    "*0\r\n"
    "*3\r\n:1\r\n$1\r\na\r\n+QUEUED\r\n"
    "*2\r\n*2\r\n:1\r\n*1\r\n$-1\r\n*3\r\n*0\r\n*-1\r\n*1\r\n*1\r\n-E\r\n"
    "*5\r\n:1\r\n*4\r\n$2\r\nab\r\n$1\r\n1\r\n$0\r\n\r\n$3\r\n1.5\r\n:2\r\n"
    "*0\r\n$16\r\n0123456789abcdef\r\n"
    "+last\r\n";


static void
test_splits(void **state)
{
    size_t             i, step, len;
    text_t             expected, got;
    ngx_coord_resp_t  *resp;

    len = sizeof(stream) - 1;

    expected.len = 0;
    text_hiredis(&expected, stream, len);

    /* in two pieces, split at each byte */

    for (i = 0; i <= len; i++) {
        resp = ngx_coord_resp_create(MAX_REPLY, NULL);
        got.len = 0;

        assert_int_equal(ngx_coord_resp_feed(resp, stream, i), NGX_OK);
        text_drain(&got, resp);
        assert_int_equal(ngx_coord_resp_feed(resp, stream + i, len - i),
                         NGX_OK);
        text_drain(&got, resp);

        assert_string_equal(got.data, expected.data);
        assert_int_equal(ngx_coord_resp_pending(resp), 0);

        ngx_coord_resp_destroy(resp);
    }

    /* in equal pieces, from one byte on, many times over one reader */

    resp = ngx_coord_resp_create(MAX_REPLY, NULL);

    for (step = 1; step < 64; step++) {
        got.len = 0;

        for (i = 0; i < len; i += step) {
            assert_int_equal(ngx_coord_resp_feed(resp, stream + i,
                                                 ngx_min(step, len - i)),
                             NGX_OK);
            text_drain(&got, resp);
        }

        assert_string_equal(got.data, expected.data);
    }

    ngx_coord_resp_destroy(resp);
}


/* a random value of at most the given depth, as RESP */

static u_char *
random_value(u_char *p, ngx_uint_t depth)
{
    int  i, n;

    switch (random() % (depth ? 6 : 5)) {

    case 0:
        return p + sprintf((char *) p, "+S%ld\r\n", random() % 1000);

    case 1:
        return p + sprintf((char *) p, "-E%ld\r\n", random() % 1000);

    case 2:
        return p + sprintf((char *) p, ":%ld\r\n", random() - random());

    case 3:
        return p + sprintf((char *) p, random() % 2 ? "$-1\r\n" : "*-1\r\n");

    case 4:
        n = random() % 100;
        p += sprintf((char *) p, "$%d\r\n", n);

        for (i = 0; i < n; i++) {
            *p++ = "\r\n$*+-:x"[random() % 8];
        }

        return p + sprintf((char *) p, "\r\n");

    default:
        n = random() % 6;
        p += sprintf((char *) p, "*%d\r\n", n);

        for (i = 0; i < n; i++) {
            p = random_value(p, depth - 1);
        }

        return p;
    }
}


static void
test_differential(void **state)
{
    size_t             i, n, len;
    u_char            *data, *p;
    text_t             expected, got;
    ngx_uint_t         round;
    ngx_coord_resp_t  *resp;

    srandom(20240521);

    data = malloc(1 << 20);

    for (round = 0; round < 400; round++) {

        for (p = data, i = 0; i < 4; i++) {
            p = random_value(p, 3);
        }

        len = p - data;

        expected.len = 0;
        text_hiredis(&expected, data, len);

        resp = ngx_coord_resp_create(MAX_REPLY, NULL);
        got.len = 0;

        for (i = 0; i < len; i += n) {
            n = 1 + random() % 40;
            n = ngx_min(n, len - i);

            assert_int_equal(ngx_coord_resp_feed(resp, data + i, n), NGX_OK);
            text_drain(&got, resp);
        }

        assert_string_equal(got.data, expected.data);

        ngx_coord_resp_destroy(resp);
    }

    free(data);
}


#define G(name, s, error)  { name, s, sizeof(s) - 1, error }

static guard_t  guards[] = {
    /* where a long has 32 bits hiredis says it in its own words */
    G("bulk of 2^63", "$9223372036854775807\r\n",
      NGX_PTR_SIZE == 8 ? "bulk string too large" : NULL),
    G("bulk over the limit", "$65537\r\nx", "bulk string too large"),
    G("bulk, unended length", "$99999999", "bulk string too large"),
    G("bulk, endless length", "$00000000000000000000000000000000",
      "bad length of a bulk string"),
    G("bulk of -2", "$-2\r\n", "not a RESP2 reply"),
    G("bulk, letters", "$5x\r\nhello\r\n", "not a RESP2 reply"),
    G("bulk longer than said", "$3\r\nabcd\r\n",
      "bulk string without its end"),
    G("bulk shorter than said", "$5\r\nabc\r\n:1\r\n",
      "bulk string without its end"),
    G("bulk, CR lost", "$3\r\nabc\n:\r\n", "bulk string without its end"),
    G("bulk, CR replaced", "$3\r\nabcd\n", "bulk string without its end"),
    G("bulk, LF lost", "$3\r\nabc\r:1\r\n", "bulk string without its end"),
    G("bulk, CRLF lost", "$3\r\nabc+X:7\r\n", "bulk string without its end"),
    G("array of 2^31", "*2147483647\r\n", "too many elements"),
    G("array over the cap", "*513\r\n", "too many elements"),
    G("array of -2", "*-2\r\n", "not a RESP2 reply"),
    G("depth 5", "*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n", "arrays too deep"),
    G("integer, letters", ":1a\r\n", "not a RESP2 reply"),
    G("integer of 2^63", ":9223372036854775808\r\n", "not a RESP2 reply"),
    G("garbage", "HTTP/1.1 400 Bad Request\r\n", "not a RESP2 reply"),
    G("RESP3 push", ">2\r\n+a\r\n+b\r\n", NULL),
    G("RESP3 map", "%1\r\n+a\r\n+b\r\n", NULL),
    G("RESP3 set", "~1\r\n+a\r\n", NULL),
    G("RESP3 null", "_\r\n", NULL),
    G("RESP3 boolean", "#t\r\n", NULL),
    G("RESP3 double", ",1.5\r\n", NULL),
    G("RESP3 big number", "(12345\r\n", NULL),
    G("RESP3 verbatim", "=7\r\ntxt:abc\r\n", NULL)
};


/* each guard, in one piece and byte by byte; after it the reader is dead */

static void
test_guards(void **state)
{
    size_t                   i;
    guard_t                 *g;
    ngx_int_t                rc;
    ngx_uint_t               n, whole;
    ngx_coord_resp_t        *resp;
    ngx_coord_resp_value_t  *v;

    for (n = 0; n < 2 * sizeof(guards) / sizeof(guard_t); n++) {
        g = &guards[n / 2];
        whole = n % 2;

        allocated = 0;
        resp = ngx_coord_resp_create(MAX_REPLY, NULL);
        rc = NGX_AGAIN;

        if (whole) {
            rc = first(resp, (u_char *) g->stream, g->len, &v);
        }

        for (i = 0; !whole && i < g->len && rc == NGX_AGAIN; i++) {
            rc = first(resp, (u_char *) g->stream + i, 1, &v);
        }

        if (rc != NGX_ERROR) {
            fail_msg("%s: passed", g->name);
        }

        if (g->error != NULL
            && strcmp(ngx_coord_resp_error(resp), g->error) != 0)
        {
            fail_msg("%s: %s", g->name, ngx_coord_resp_error(resp));
        }

        assert_true(allocated < 65536);

        (void) ngx_coord_resp_feed(resp, lit("+OK\r\n"));
        assert_int_equal(ngx_coord_resp_next(resp, &v), NGX_ERROR);

        ngx_coord_resp_destroy(resp);
    }
}


static void
test_line(void **state)
{
    u_char                   x[1024];
    ngx_int_t                rc;
    ngx_uint_t               i;
    ngx_coord_resp_t        *resp;
    ngx_coord_resp_value_t  *v;

    ngx_memset(x, 'x', sizeof(x));

    resp = ngx_coord_resp_create(MAX_REPLY, NULL);
    rc = first(resp, lit("+"), &v);

    for (i = 0; rc == NGX_AGAIN && i < 64; i++) {
        rc = first(resp, x, sizeof(x), &v);
    }

    assert_int_equal(rc, NGX_ERROR);
    assert_string_equal(ngx_coord_resp_error(resp), "line too long");
    assert_int_equal(i, NGX_COORD_RESP_MAX_LINE / sizeof(x) + 1);

    ngx_coord_resp_destroy(resp);
}


static void
test_max_reply(void **state)
{
    u_char                  *x;
    ngx_int_t                rc;
    ngx_uint_t               i;
    ngx_coord_resp_t        *resp;
    ngx_coord_resp_value_t  *v;

    x = calloc(1, MAX_REPLY + 1);

    /* in one piece */

    resp = ngx_coord_resp_create(MAX_REPLY, NULL);
    assert_int_equal(ngx_coord_resp_feed(resp, x, MAX_REPLY + 1), NGX_ERROR);
    assert_string_equal(ngx_coord_resp_error(resp), "reply too large");
    ngx_coord_resp_destroy(resp);

    /* in pieces that are not taken */

    resp = ngx_coord_resp_create(MAX_REPLY, NULL);
    assert_int_equal(ngx_coord_resp_feed(resp, lit("$65000\r\n")), NGX_OK);
    assert_int_equal(ngx_coord_resp_next(resp, &v), NGX_AGAIN);
    assert_int_equal(ngx_coord_resp_feed(resp, x, 60000), NGX_OK);
    assert_int_equal(ngx_coord_resp_feed(resp, x, 60000), NGX_ERROR);
    ngx_coord_resp_destroy(resp);

    /* in elements, each of them small enough */

    resp = ngx_coord_resp_create(MAX_REPLY, NULL);
    rc = first(resp, lit("*100\r\n"), &v);

    for (i = 0; rc == NGX_AGAIN && i < 100; i++) {
        assert_int_equal(ngx_coord_resp_feed(resp, lit("$1000\r\n")), NGX_OK);
        assert_int_equal(ngx_coord_resp_feed(resp, x, 1000), NGX_OK);
        rc = first(resp, lit("\r\n"), &v);
    }

    assert_int_equal(rc, NGX_ERROR);
    assert_string_equal(ngx_coord_resp_error(resp), "reply too large");
    assert_int_equal(i, MAX_REPLY / 1000 + 1);
    ngx_coord_resp_destroy(resp);

    free(x);
}


/* an arena that was grown for one reply moves, and is given back */

static void
test_arena(void **state)
{
    size_t                   size;
    u_char                  *x;
    ngx_str_t                s;
    ngx_coord_resp_t        *resp;
    ngx_coord_resp_value_t  *v;

    size = 50000;
    x = malloc(size);
    ngx_memset(x, 'y', size);

    resp = ngx_coord_resp_create(MAX_REPLY, NULL);

    assert_int_equal(first(resp, lit("*2\r\n$2\r\nab\r\n$50000\r\n"), &v),
                     NGX_AGAIN);
    assert_int_equal(first(resp, x, size, &v), NGX_AGAIN);
    assert_int_equal(first(resp, lit("\r\n"), &v), NGX_OK);

    assert_int_equal(ngx_coord_resp_string(ngx_coord_resp_element(v, 0), &s),
                     NGX_OK);
    assert_memory_equal(s.data, "ab", 2);
    assert_int_equal(ngx_coord_resp_string(ngx_coord_resp_element(v, 1), &s),
                     NGX_OK);
    assert_int_equal(s.len, size);
    assert_memory_equal(s.data, x, size);

    allocated = 0;

    assert_int_equal(first(resp, lit("$1\r\nz\r\n"), &v), NGX_OK);
    assert_int_equal(allocated, 4096);

    assert_int_equal(first(resp, lit("$1\r\nz\r\n"), &v), NGX_OK);
    assert_int_equal(allocated, 4096);

    ngx_coord_resp_destroy(resp);
    free(x);
}


static void
test_values(void **state)
{
    ngx_int_t                rc;
    ngx_uint_t               i, n;
    ngx_coord_resp_t        *resp;
    ngx_coord_resp_value_t  *v;

    /* 1 + 16 * (1 + n) values: 1009 fit, 1025 do not */

    for (n = 62; n < 64; n++) {
        resp = ngx_coord_resp_create(MAX_REPLY, NULL);
        rc = first(resp, lit("*16\r\n"), &v);

        for (i = 0; rc == NGX_AGAIN && i < 16 * (n + 1); i++) {

            if (i % (n + 1)) {
                rc = first(resp, lit(":1\r\n"), &v);

            } else if (n == 62) {
                rc = first(resp, lit("*62\r\n"), &v);

            } else {
                rc = first(resp, lit("*63\r\n"), &v);
            }
        }

        assert_int_equal(rc, n == 62 ? NGX_OK : NGX_ERROR);

        if (rc == NGX_ERROR) {
            assert_string_equal(ngx_coord_resp_error(resp), "too many values");
        }

        ngx_coord_resp_destroy(resp);
    }
}


static void
test_gather(void **state)
{
    size_t                   i, len;
    text_t                   got;
    ngx_int_t                rc;
    ngx_coord_resp_t        *resp;
    ngx_coord_resp_value_t  *v;

    static u_char  replies[] =
        "+OK\r\n*2\r\n:1\r\n$1\r\na\r\n$-1\r\n+next\r\n";

    len = sizeof(replies) - 1;

    for (i = 0; i <= len; i++) {
        resp = ngx_coord_resp_create(MAX_REPLY, NULL);
        got.len = 0;

        ngx_coord_resp_gather(resp, 3);

        rc = first(resp, replies, i, &v);

        if (rc == NGX_AGAIN) {
            rc = first(resp, replies + i, len - i, &v);

        } else {
            text_value(&got, v);
            assert_int_equal(rc, NGX_OK);
            rc = first(resp, replies + i, len - i, &v);
        }

        while (rc == NGX_OK) {
            text_value(&got, v);
            rc = ngx_coord_resp_next(resp, &v);
        }

        assert_int_equal(rc, NGX_AGAIN);
        assert_string_equal(got.data,
                            "*3(+2:4f4b*2(:1$1:61)_)+4:6e657874");

        ngx_coord_resp_destroy(resp);
    }

    resp = ngx_coord_resp_create(MAX_REPLY, NULL);
    ngx_coord_resp_gather(resp, NGX_COORD_RESP_MAX_ELEMENTS + 1);
    assert_int_equal(first(resp, lit("+OK\r\n"), &v), NGX_ERROR);
    ngx_coord_resp_destroy(resp);
}


/* what a transaction answers most is taken by a way of its own */

static void
test_queued(void **state)
{
    size_t                   i, len;
    text_t                   got;
    ngx_int_t                rc;
    ngx_coord_resp_t        *resp;
    ngx_coord_resp_value_t  *v;

    static u_char  replies[] =
        "+OK\r\n+QUEUED\r\n+QUEUED \r\n+QUEUED\r\n"
        "*1\r\n+QUEUED\r\n+QUEUED\r\n";

    len = sizeof(replies) - 1;
    resp = ngx_coord_resp_create(MAX_REPLY, NULL);

    /* in two pieces, split at each byte, many of them over one reader */

    for (i = 0; i < 100 * len; i++) {
        got.len = 0;

        ngx_coord_resp_gather(resp, 6);

        rc = first(resp, replies, i % len, &v);
        assert_int_equal(rc, NGX_AGAIN);

        rc = first(resp, replies + i % len, len - i % len, &v);
        assert_int_equal(rc, NGX_OK);
        text_value(&got, v);

        assert_string_equal(got.data,
                            "*6(+2:4f4b+6:515545554544+7:51554555454420"
                            "+6:515545554544*1(+6:515545554544)"
                            "+6:515545554544)");
        assert_int_equal(ngx_coord_resp_pending(resp), 0);
    }

    ngx_coord_resp_destroy(resp);
}


static ngx_int_t
parse_integer(const char *s, int64_t *n)
{
    ngx_coord_resp_value_t  v;

    v.type = NGX_COORD_RESP_STRING;
    v.str.data = (u_char *) s;
    v.str.len = strlen(s);

    return ngx_coord_resp_integer(&v, n);
}


static void
test_integers(void **state)
{
    int64_t                  n;
    ngx_str_t                s;
    ngx_coord_resp_value_t   v;

    assert_int_equal(parse_integer("0", &n), NGX_OK);
    assert_true(n == 0);
    assert_int_equal(parse_integer("-42", &n), NGX_OK);
    assert_true(n == -42);
    assert_int_equal(parse_integer("9223372036854775807", &n), NGX_OK);
    assert_true(n == INT64_MAX);
    assert_int_equal(parse_integer("-9223372036854775808", &n), NGX_OK);
    assert_true(n == INT64_MIN);

    assert_int_equal(parse_integer("9223372036854775808", &n), NGX_ERROR);
    assert_int_equal(parse_integer("-9223372036854775809", &n), NGX_ERROR);
    assert_int_equal(parse_integer("99999999999999999999", &n), NGX_ERROR);
    assert_int_equal(parse_integer("", &n), NGX_ERROR);
    assert_int_equal(parse_integer("-", &n), NGX_ERROR);
    assert_int_equal(parse_integer("+1", &n), NGX_ERROR);
    assert_int_equal(parse_integer("1 ", &n), NGX_ERROR);
    assert_int_equal(parse_integer("0x1", &n), NGX_ERROR);

    v.type = NGX_COORD_RESP_NIL;
    assert_int_equal(ngx_coord_resp_integer(&v, &n), NGX_DECLINED);
    assert_int_equal(ngx_coord_resp_string(&v, &s), NGX_DECLINED);

    v.type = NGX_COORD_RESP_ERROR;
    assert_int_equal(ngx_coord_resp_integer(&v, &n), NGX_ERROR);
    assert_int_equal(ngx_coord_resp_string(&v, &s), NGX_ERROR);
    assert_null(ngx_coord_resp_element(&v, 0));

    v.type = NGX_COORD_RESP_ARRAY;
    v.integer = 0;
    assert_int_equal(ngx_coord_resp_integer(&v, &n), NGX_ERROR);
    assert_int_equal(ngx_coord_resp_string(&v, &s), NGX_ERROR);

    v.type = NGX_COORD_RESP_INTEGER;
    v.integer = 7;
    assert_int_equal(ngx_coord_resp_integer(&v, &n), NGX_OK);
    assert_true(n == 7);
    assert_int_equal(ngx_coord_resp_string(&v, &s), NGX_ERROR);
}


static ngx_int_t
parse_score(const char *s, int64_t *n)
{
    ngx_coord_resp_value_t  v;

    v.type = NGX_COORD_RESP_STRING;
    v.str.data = (u_char *) s;
    v.str.len = strlen(s);

    return ngx_coord_resp_score(&v, n);
}


static void
test_scores(void **state)
{
    char                    text[64];
    int64_t                 n, m;
    ngx_uint_t              i;
    ngx_coord_resp_value_t  v;

    static const struct {
        const char  *text;
        int64_t      n;
    } good[] = {
        { "0", 0 }, { "-0", 0 }, { "1", 1 }, { "-17", -17 },
        { "1763688885123456", 1763688885123456 },
        { "1.763688e+15", 1763688000000000 }, { "1E5", 100000 },
        { "-1.5e1", -15 }, { "12.0", 12 }, { "000012.50e2", 1250 },
        { "9000000000000000", 9000000000000000 }, { "9e15", 9000000000000000 }
    };

    static const char  *bad[] = {
        "", "-", ".", "1.", ".5", "inf", "-inf", "+inf", "nan", "1e", "1e+",
        "1e999", "1,5", "0x10", " 1", "1 ", "--1", "1e5x", "1.5.2", "1.5",
        "1e-1", "1e--1", "0.10000000000000001", "9000000000000001", "9.1e15",
        "90000000000000000000000000000000000000000", "1e18", "1e19",
        "1763688885123456789", "-9000000000000001"
    };

    for (i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        assert_int_equal(parse_score(good[i].text, &n), NGX_OK);
        assert_true(n == good[i].n);
    }

    for (i = 0; i < sizeof(bad) / sizeof(char *); i++) {

        if (parse_score(bad[i], &n) != NGX_ERROR) {
            fail_msg("\"%s\" passed", bad[i]);
        }
    }

    v.type = NGX_COORD_RESP_INTEGER;
    v.integer = INT64_MIN;
    assert_int_equal(ngx_coord_resp_score(&v, &n), NGX_ERROR);

    v.type = NGX_COORD_RESP_NIL;
    assert_int_equal(ngx_coord_resp_score(&v, &n), NGX_DECLINED);

    /* as the servers print them */

    for (i = 0; i < 100000; i++) {
        m = (int64_t) (random() % 2000000000) * 4096;
        snprintf(text, sizeof(text), "%.17g", (double) m);
        assert_int_equal(parse_score(text, &n), NGX_OK);
        assert_true(n == m);
    }
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(test_splits),
        cmocka_unit_test(test_differential),
        cmocka_unit_test(test_guards),
        cmocka_unit_test(test_line),
        cmocka_unit_test(test_max_reply),
        cmocka_unit_test(test_arena),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_gather),
        cmocka_unit_test(test_queued),
        cmocka_unit_test(test_integers),
        cmocka_unit_test(test_scores)
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
