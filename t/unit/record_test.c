
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Records: whole, cut, altered, made up.  t/fuzz/record_fuzz.c asks the same
 * of any bytes.
 */


#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "ngx_stub.h"
#include "ngx_coord_record.h"


static u_char  key_data[] = "~0123456789abcdef0123456789abcdef";
static u_char  body_data[] = "body\0\r\n of the response";

static ngx_str_t  key = { sizeof(key_data) - 1, key_data };

static ngx_keyval_t  fields[] = {
    { ngx_string("Location"), ngx_string("/made/1") },
    { ngx_string("X-Empty"), ngx_string("") },
    { ngx_string("X-Tab"), ngx_string("a\tb \xc3\xa4") }
};


static void
prepare(ngx_coord_record_t *record)
{
    ngx_memzero(record, sizeof(ngx_coord_record_t));

    record->status = 201;
    record->key = key;
    record->nfields = 3;
    record->body_len = sizeof(body_data);
    record->content_type_len = 10;

    ngx_str_set(&record->status_line, "201 Made");
    ngx_str_set(&record->content_type, "text/plain; charset=utf-8");
    ngx_str_set(&record->charset, "utf-8");
    ngx_memset(record->fingerprint, 0xf1, NGX_COORD_DIGEST_LEN);
}


/* in memory of just that size, so that ASan sees what is read beyond */

static ngx_str_t
encode(ngx_coord_record_t *record, ngx_keyval_t *kv)
{
    ngx_buf_t    b[2];
    ngx_str_t    blob;
    ngx_chain_t  cl[2];

    ngx_memzero(b, sizeof(b));

    b[0].start = body_data;
    b[0].last = body_data + 3;
    b[1].start = body_data + 3;
    b[1].last = body_data + sizeof(body_data);

    cl[0].buf = &b[0];
    cl[0].next = &cl[1];
    cl[1].buf = &b[1];
    cl[1].next = NULL;

    blob.len = ngx_coord_record_size(record, kv);
    blob.data = malloc(blob.len);
    assert_non_null(blob.data);

    assert_int_equal(ngx_coord_record_encode(blob.data, record, kv,
                                             record->body_len ? cl : NULL),
                     NGX_OK);

    return blob;
}


static ngx_int_t
decode(ngx_str_t *blob, size_t len)
{
    ngx_int_t           rc;
    ngx_str_t           copy;
    ngx_coord_record_t  record;

    copy.len = len;
    copy.data = malloc(len ? len : 1);
    assert_non_null(copy.data);

    ngx_memcpy(copy.data, blob->data, ngx_min(len, blob->len));

    rc = ngx_coord_record_decode(&record, &copy, &key);

    free(copy.data);

    return rc;
}


static void
a_record_without_its_body(void **state)
{
    size_t               len;
    ngx_str_t            blob, left;
    ngx_uint_t           n;
    ngx_keyval_t         kv[5], field;
    ngx_coord_record_t   record, out;

    for (n = 0; n < 2; n++) {
        prepare(&record);

        ngx_memcpy(kv, fields, sizeof(fields));
        ngx_str_null(&kv[3].key);
        ngx_str_null(&kv[3].value);
        ngx_str_set(&kv[4].key, "X-Trailer");
        ngx_str_set(&kv[4].value, "t");

        record.nfields = n ? 5 : 3;

        blob = encode(&record, kv);
        len = blob.len;

        assert_int_equal(ngx_coord_record_omit(&blob), NGX_OK);
        assert_true(blob.len <= len - sizeof(body_data));
        assert_int_equal(ngx_coord_record_decode(&out, &blob, &key), NGX_OK);

        assert_int_equal(out.status, 201);
        assert_true(out.omitted);
        assert_int_equal(out.body_len, 0);
        assert_int_equal(out.nfields, 3);

        left = out.fields;
        assert_int_equal(ngx_coord_record_next(&left, &field), NGX_OK);
        assert_int_equal(field.value.len, sizeof("/made/1") - 1);

        assert_int_equal(ngx_coord_record_omit(&blob), NGX_DECLINED);

        blob.data[0] = 'x';
        assert_int_equal(ngx_coord_record_omit(&blob), NGX_DECLINED);

        free(blob.data);
    }
}


static ngx_int_t
try(ngx_coord_record_t *record, ngx_keyval_t *kv)
{
    ngx_int_t  rc;
    ngx_str_t  blob;

    blob = encode(record, kv);
    rc = decode(&blob, blob.len);

    free(blob.data);

    return rc;
}


static void
test_whole(void **state)
{
    ngx_uint_t          i;
    ngx_str_t           blob, left;
    ngx_keyval_t        field;
    ngx_coord_record_t  in, out;

    prepare(&in);
    blob = encode(&in, fields);

    assert_int_equal(ngx_coord_record_decode(&out, &blob, &key), NGX_OK);
    assert_int_equal(out.status, 201);
    assert_int_equal(out.omitted, 0);
    assert_int_equal(out.nfields, 3);
    assert_int_equal(out.content_type_len, 10);
    assert_int_equal(out.body_len, sizeof(body_data));
    assert_memory_equal(out.body, body_data, sizeof(body_data));
    assert_memory_equal(out.status_line.data, "201 Made", 8);
    assert_memory_equal(out.charset.data, "utf-8", 5);
    assert_memory_equal(out.fingerprint, in.fingerprint,
                        NGX_COORD_DIGEST_LEN);

    left = out.fields;

    for (i = 0; i < 3; i++) {
        assert_int_equal(ngx_coord_record_next(&left, &field), NGX_OK);
        assert_int_equal(field.key.len, fields[i].key.len);
        assert_int_equal(field.value.len, fields[i].value.len);
        assert_memory_equal(field.key.data, fields[i].key.data,
                            field.key.len);
        assert_memory_equal(field.value.data, fields[i].value.data,
                            field.value.len);
    }

    assert_int_equal(ngx_coord_record_next(&left, &field), NGX_DONE);

    free(blob.data);
}


static void
test_cut(void **state)
{
    size_t              len;
    ngx_str_t           blob;
    ngx_coord_record_t  record;

    prepare(&record);
    blob = encode(&record, fields);

    for (len = 0; len < blob.len; len++) {
        assert_int_equal(decode(&blob, len), NGX_ERROR);
    }

    assert_int_equal(decode(&blob, blob.len), NGX_OK);

    free(blob.data);
}


static void
test_altered(void **state)
{
    size_t              i;
    ngx_str_t           blob;
    ngx_uint_t          bit;
    ngx_coord_record_t  record;

    prepare(&record);
    blob = encode(&record, fields);

    for (i = 0; i < blob.len; i++) {
        for (bit = 0; bit < 8; bit++) {
            blob.data[i] ^= 1 << bit;
            assert_int_equal(decode(&blob, blob.len), NGX_ERROR);
            blob.data[i] ^= 1 << bit;
        }
    }

    assert_int_equal(decode(&blob, blob.len), NGX_OK);

    free(blob.data);
}


static void
test_other_key(void **state)
{
    ngx_str_t           blob, other;
    ngx_coord_record_t  record;

    prepare(&record);
    blob = encode(&record, fields);

    other = key;
    other.len--;
    assert_int_equal(ngx_coord_record_decode(&record, &blob, &other),
                     NGX_ERROR);

    ngx_str_set(&other, "~0123456789abcdef0123456789abcdee");
    assert_int_equal(ngx_coord_record_decode(&record, &blob, &other),
                     NGX_ERROR);

    free(blob.data);
}


/* with a sum that is right: who writes into the store is not trusted */

static void
test_made_up(void **state)
{
    ngx_uint_t          i;
    ngx_keyval_t        kv, trailers[3];
    ngx_coord_record_t  record;

    static ngx_uint_t   statuses[] = { 0, 99, 100, 101, 199, 206, 304, 600,
                                       999, 65535 };
    static ngx_keyval_t bad[] = {
        { ngx_string(""), ngx_string("v") },
        { ngx_string("A B"), ngx_string("v") },
        { ngx_string("A:"), ngx_string("v") },
        { ngx_string("A\r\nB"), ngx_string("v") },
        { ngx_string("A\xc3"), ngx_string("v") },
        { ngx_string("A"), ngx_string("v\r\nSet-Cookie: a") },
        { ngx_string("A"), ngx_string("v\nw") },
        { ngx_string("A"), ngx_string("v\0w") },
        { ngx_string("A"), ngx_string("v\x7f") },
        { ngx_string("Content-Length"), ngx_string("5") },
        { ngx_string("transfer-ENCODING"), ngx_string("chunked") },
        { ngx_string("Connection"), ngx_string("close") },
        { ngx_string("Trailer"), ngx_string("x") },
        { ngx_string("Upgrade"), ngx_string("h2c") },
        { ngx_string("TE"), ngx_string("trailers") }
    };

    for (i = 0; i < sizeof(statuses) / sizeof(statuses[0]); i++) {
        prepare(&record);
        record.status = statuses[i];
        ngx_str_null(&record.status_line);
        assert_int_equal(try(&record, fields), NGX_ERROR);
    }

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        prepare(&record);
        record.nfields = 1;
        kv = bad[i];
        assert_int_equal(try(&record, &kv), NGX_ERROR);
    }

    prepare(&record);
    record.nfields = 1;
    assert_int_equal(try(&record, fields), NGX_OK);

    /* trailers begin once */

    for (i = 0; i < 3; i++) {
        trailers[i].key = fields[0].key;
        trailers[i].value = fields[0].value;
    }

    ngx_str_null(&trailers[1].key);
    ngx_str_null(&trailers[1].value);

    prepare(&record);
    record.nfields = 3;
    assert_int_equal(try(&record, trailers), NGX_OK);

    trailers[0] = trailers[1];

    prepare(&record);
    record.nfields = 3;
    assert_int_equal(try(&record, trailers), NGX_ERROR);

    prepare(&record);
    ngx_str_set(&record.status_line, "200 Made");
    assert_int_equal(try(&record, fields), NGX_ERROR);

    ngx_str_set(&record.status_line, "201 Made\r\nA: b");
    assert_int_equal(try(&record, fields), NGX_ERROR);

    ngx_str_set(&record.status_line, "201Made");
    assert_int_equal(try(&record, fields), NGX_ERROR);

    prepare(&record);
    ngx_str_set(&record.content_type, "text/plain\r\nA: b");
    assert_int_equal(try(&record, fields), NGX_ERROR);

    prepare(&record);
    record.content_type_len = record.content_type.len + 1;
    assert_int_equal(try(&record, fields), NGX_ERROR);

    prepare(&record);
    record.omitted = 1;
    assert_int_equal(try(&record, fields), NGX_ERROR);
    record.body_len = 0;
    assert_int_equal(try(&record, fields), NGX_OK);

    prepare(&record);
    record.status = 204;
    ngx_str_null(&record.status_line);
    assert_int_equal(try(&record, fields), NGX_ERROR);
    record.body_len = 0;
    assert_int_equal(try(&record, fields), NGX_OK);
}


/* lengths that lie, with a sum that is right */

static void
test_lengths(void **state)
{
    size_t              i, at;
    u_char              old, sum[NGX_COORD_DIGEST_LEN];
    ngx_str_t           blob;
    ngx_coord_record_t  record, out;

    prepare(&record);
    blob = encode(&record, fields);

    srandom(1);

    for (i = 0; i < 200000; i++) {
        at = 12 + random() % (blob.len - 12);
        old = blob.data[at];
        blob.data[at] = (u_char) random();

        assert_int_equal(ngx_coord_digest_init(), NGX_OK);
        assert_int_equal(ngx_coord_digest_update(blob.data + 12,
                                                 blob.len - 12), NGX_OK);
        assert_int_equal(ngx_coord_digest_final(sum), NGX_OK);
        ngx_memcpy(blob.data + 4, sum, 8);

        if (ngx_coord_record_decode(&out, &blob, &key) == NGX_OK) {
            assert_true(out.status >= 200 && out.status <= 599);
            assert_true(out.body + out.body_len == blob.data + blob.len);
            assert_true(out.nfields <= NGX_COORD_RECORD_FIELDS);
        }

        blob.data[at] = old;
    }

    free(blob.data);
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test(a_record_without_its_body),
        cmocka_unit_test(test_whole),
        cmocka_unit_test(test_cut),
        cmocka_unit_test(test_altered),
        cmocka_unit_test(test_other_key),
        cmocka_unit_test(test_made_up),
        cmocka_unit_test(test_lengths)
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
