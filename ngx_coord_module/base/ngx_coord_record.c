
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The layout of a record; numbers are big-endian.
 *
 *    0   4  "crd", version
 *    4   8  the beginning of the SHA-256 of everything behind it
 *   12   4  length of the record
 *   16   1  flags
 *   17   1  length of the key
 *   18   2  status
 *   20   1  length of the status line
 *   21   1  length of the charset
 *   22   2  length of Content-Type
 *   24   2  of these without parameters
 *   26   2  number of fields
 *   28   4  length of all fields
 *   32   4  length of the body
 *   36  32  fingerprint
 *   68      key, status line, Content-Type, charset, fields, body
 *
 * A field: 2 bytes length of the name, 2 of the value, name, value.
 */


#include "ngx_coord_record.h"


#define NGX_COORD_RECORD_SUM_POS   4
#define NGX_COORD_RECORD_SUM_LEN   8
#define NGX_COORD_RECORD_SUMMED    12
#define NGX_COORD_RECORD_OMITTED   0x01
#define NGX_COORD_RECORD_LOCATION  0x02
#define NGX_COORD_RECORD_OVERRIDE  0x04


static u_char *ngx_coord_record_put(u_char *p, uint64_t n, ngx_uint_t bytes);
static uint32_t ngx_coord_record_get(const u_char *p, ngx_uint_t bytes);
static u_char *ngx_coord_record_put_fields(u_char *p, ngx_keyval_t *fields,
    ngx_uint_t n);
static ngx_int_t ngx_coord_record_sum(u_char *sum, const u_char *p,
    size_t len);
static ngx_int_t ngx_coord_record_check(ngx_coord_record_t *record,
    ngx_str_t *key);
static ngx_int_t ngx_coord_record_check_fields(ngx_coord_record_t *record);
static u_char *ngx_coord_record_take(u_char *p, ngx_str_t *s, size_t len);


static const ngx_str_t  ngx_coord_record_hops[] = {
    ngx_string("connection"),
    ngx_string("content-length"),
    ngx_string("http2-settings"),
    ngx_string("keep-alive"),
    ngx_string("proxy-authenticate"),
    ngx_string("proxy-authentication-info"),
    ngx_string("proxy-authorization"),
    ngx_string("proxy-connection"),
    ngx_string("te"),
    ngx_string("trailer"),
    ngx_string("transfer-encoding"),
    ngx_string("upgrade"),
    ngx_null_string
};


/* characters of a token, a bit per character */

static const uint32_t  ngx_coord_record_token[] = {
    0x00000000, /* control characters */

                /* ?>=< ;:98 7654 3210  /.-, +*)( '&%$ #"!  */
    0x03ff6cfa, /* 0000 0011 1111 1111  0110 1100 1111 1010 */

                /* _^]\ [ZYX WVUT SRQP  ONML KJIH GFED CBA@ */
    0xc7fffffe, /* 1100 0111 1111 1111  1111 1111 1111 1110 */

                /*  ~}| {zyx wvut srqp  onml kjih gfed cba` */
    0x57ffffff, /* 0101 0111 1111 1111  1111 1111 1111 1111 */

    0x00000000,
    0x00000000,
    0x00000000,
    0x00000000
};


ngx_uint_t
ngx_coord_record_field(ngx_str_t *name, ngx_str_t *value)
{
    u_char  *p, *last;

    if (name->len == 0
        || name->len > NGX_COORD_RECORD_NAME
        || value->len > NGX_COORD_RECORD_VALUE
        || ngx_coord_record_hop(name))
    {
        return 0;
    }

    last = name->data + name->len;

    for (p = name->data; p < last; p++) {
        if (!(ngx_coord_record_token[*p >> 5] & (1U << (*p & 0x1f)))) {
            return 0;
        }
    }

    return ngx_coord_record_value(value);
}


ngx_uint_t
ngx_coord_record_value(ngx_str_t *value)
{
    u_char  *p, *last;

    last = value->data + value->len;

    for (p = value->data; p < last; p++) {
        if ((*p < 0x20 && *p != '\t') || *p == 0x7f) {
            return 0;
        }
    }

    return 1;
}


ngx_uint_t
ngx_coord_record_hop(ngx_str_t *name)
{
    const ngx_str_t  *hop;

    for (hop = ngx_coord_record_hops; hop->len; hop++) {
        if (hop->len == name->len
            && ngx_strncasecmp(hop->data, name->data, name->len) == 0)
        {
            return 1;
        }
    }

    return 0;
}


static u_char *
ngx_coord_record_put(u_char *p, uint64_t n, ngx_uint_t bytes)
{
    ngx_uint_t  i;

    for (i = bytes; i > 0; i--) {
        p[i - 1] = (u_char) (n & 0xff);
        n >>= 8;
    }

    return p + bytes;
}


static uint32_t
ngx_coord_record_get(const u_char *p, ngx_uint_t bytes)
{
    uint32_t    n;
    ngx_uint_t  i;

    n = 0;

    for (i = 0; i < bytes; i++) {
        n = n << 8 | p[i];
    }

    return n;
}


static ngx_int_t
ngx_coord_record_sum(u_char *sum, const u_char *p, size_t len)
{
    u_char  digest[NGX_COORD_DIGEST_LEN];

    if (ngx_coord_digest_init() != NGX_OK
        || ngx_coord_digest_update(p, len) != NGX_OK
        || ngx_coord_digest_final(digest) != NGX_OK)
    {
        return NGX_ERROR;
    }

    ngx_memcpy(sum, digest, NGX_COORD_RECORD_SUM_LEN);

    return NGX_OK;
}


size_t
ngx_coord_record_length(ngx_str_t *blob)
{
    if (blob->len < NGX_COORD_RECORD_HEAD
        || ngx_memcmp(blob->data, "crd", 3) != 0
        || blob->data[3] != NGX_COORD_RECORD_VERSION)
    {
        return 0;
    }

    return ngx_coord_record_get(blob->data + 12, 4);
}


size_t
ngx_coord_record_size(ngx_coord_record_t *record, ngx_keyval_t *fields)
{
    size_t      size;
    ngx_uint_t  i;

    size = NGX_COORD_RECORD_HEAD + record->key.len + record->status_line.len
           + record->content_type.len + record->charset.len
           + record->body_len;

    for (i = 0; i < record->nfields; i++) {
        size += 4 + fields[i].key.len + fields[i].value.len;
    }

    return size;
}


ngx_int_t
ngx_coord_record_encode(u_char *p, ngx_coord_record_t *record,
    ngx_keyval_t *fields, ngx_chain_t *body)
{
    size_t   size, n;
    u_char  *start;

    start = p;
    size = ngx_coord_record_size(record, fields);
    n = size - NGX_COORD_RECORD_HEAD - record->key.len
        - record->status_line.len - record->content_type.len
        - record->charset.len - record->body_len;

    p = ngx_cpymem(p, "crd", 3);
    *p++ = NGX_COORD_RECORD_VERSION;
    p = start + NGX_COORD_RECORD_SUMMED;
    p = ngx_coord_record_put(p, size, 4);
    *p++ = (record->omitted ? NGX_COORD_RECORD_OMITTED : 0)
           | (record->location ? NGX_COORD_RECORD_LOCATION : 0)
           | (record->override ? NGX_COORD_RECORD_OVERRIDE : 0);
    *p++ = (u_char) record->key.len;
    p = ngx_coord_record_put(p, record->status, 2);
    *p++ = (u_char) record->status_line.len;
    *p++ = (u_char) record->charset.len;
    p = ngx_coord_record_put(p, record->content_type.len, 2);
    p = ngx_coord_record_put(p, record->content_type_len, 2);
    p = ngx_coord_record_put(p, record->nfields, 2);
    p = ngx_coord_record_put(p, n, 4);
    p = ngx_coord_record_put(p, record->body_len, 4);
    p = ngx_cpymem(p, record->fingerprint, NGX_COORD_DIGEST_LEN);
    p = ngx_cpymem(p, record->key.data, record->key.len);
    p = ngx_cpymem(p, record->status_line.data, record->status_line.len);
    p = ngx_cpymem(p, record->content_type.data, record->content_type.len);
    p = ngx_cpymem(p, record->charset.data, record->charset.len);
    p = ngx_coord_record_put_fields(p, fields, record->nfields);

    for ( /* void */ ; body && p < start + size; body = body->next) {
        n = ngx_min(body->buf->last - body->buf->start, start + size - p);
        p = ngx_cpymem(p, body->buf->start, n);
    }

    return ngx_coord_record_sum(start + NGX_COORD_RECORD_SUM_POS,
                                start + NGX_COORD_RECORD_SUMMED,
                                size - NGX_COORD_RECORD_SUMMED);
}


static u_char *
ngx_coord_record_put_fields(u_char *p, ngx_keyval_t *fields, ngx_uint_t n)
{
    ngx_uint_t  i;

    for (i = 0; i < n; i++) {
        p = ngx_coord_record_put(p, fields[i].key.len, 2);
        p = ngx_coord_record_put(p, fields[i].value.len, 2);
        p = ngx_cpymem(p, fields[i].key.data, fields[i].key.len);
        p = ngx_cpymem(p, fields[i].value.data, fields[i].value.len);
    }

    return p;
}


ngx_int_t
ngx_coord_record_decode(ngx_coord_record_t *record, ngx_str_t *blob,
    ngx_str_t *key)
{
    size_t   key_len, line_len, charset_len, type_len;
    u_char  *p, sum[NGX_COORD_RECORD_SUM_LEN];

    p = blob->data;

    if (blob->len < NGX_COORD_RECORD_HEAD
        || ngx_memcmp(p, "crd", 3) != 0
        || p[3] != NGX_COORD_RECORD_VERSION
        || ngx_coord_record_get(p + 12, 4) != blob->len
        || ngx_coord_record_sum(sum, p + NGX_COORD_RECORD_SUMMED,
                                blob->len - NGX_COORD_RECORD_SUMMED)
           != NGX_OK
        || ngx_memcmp(sum, p + NGX_COORD_RECORD_SUM_POS,
                      NGX_COORD_RECORD_SUM_LEN)
           != 0)
    {
        return NGX_ERROR;
    }

    ngx_memzero(record, sizeof(ngx_coord_record_t));

    record->omitted = (p[16] & NGX_COORD_RECORD_OMITTED) != 0;
    record->location = (p[16] & NGX_COORD_RECORD_LOCATION) != 0;
    record->override = (p[16] & NGX_COORD_RECORD_OVERRIDE) != 0;
    key_len = p[17];
    record->status = ngx_coord_record_get(p + 18, 2);
    line_len = p[20];
    charset_len = p[21];
    type_len = ngx_coord_record_get(p + 22, 2);
    record->content_type_len = ngx_coord_record_get(p + 24, 2);
    record->nfields = ngx_coord_record_get(p + 26, 2);
    record->fields.len = ngx_coord_record_get(p + 28, 4);
    record->body_len = ngx_coord_record_get(p + 32, 4);

    if ((uint64_t) key_len + line_len + charset_len + type_len
        + record->fields.len + record->body_len
        != blob->len - NGX_COORD_RECORD_HEAD)
    {
        return NGX_ERROR;
    }

    ngx_memcpy(record->fingerprint, p + NGX_COORD_RECORD_FINGERPRINT,
               NGX_COORD_DIGEST_LEN);

    p = ngx_coord_record_take(p + NGX_COORD_RECORD_HEAD, &record->key,
                              key_len);
    p = ngx_coord_record_take(p, &record->status_line, line_len);
    p = ngx_coord_record_take(p, &record->content_type, type_len);
    p = ngx_coord_record_take(p, &record->charset, charset_len);
    p = ngx_coord_record_take(p, &record->fields, record->fields.len);

    record->body = p;

    return ngx_coord_record_check(record, key);
}


ngx_int_t
ngx_coord_record_omit(ngx_str_t *blob)
{
    size_t        body_len;
    u_char       *p, *start, *last;
    ngx_str_t     left;
    ngx_uint_t    n;
    ngx_keyval_t  field;

    if (ngx_coord_record_length(blob) != blob->len) {
        return NGX_DECLINED;
    }

    p = blob->data;

    left.len = ngx_coord_record_get(p + 28, 4);
    body_len = ngx_coord_record_get(p + 32, 4);

    if (body_len == 0
        || left.len + body_len > blob->len - NGX_COORD_RECORD_HEAD)
    {
        return NGX_DECLINED;
    }

    start = p + blob->len - body_len - left.len;
    left.data = start;

    n = 0;
    last = start;

    /* trailers go with the body */

    while (ngx_coord_record_next(&left, &field) == NGX_OK && field.key.len) {
        last = left.data;
        n++;
    }

    blob->len = last - p;

    p[16] |= NGX_COORD_RECORD_OMITTED;

    (void) ngx_coord_record_put(p + 12, blob->len, 4);
    (void) ngx_coord_record_put(p + 26, n, 2);
    (void) ngx_coord_record_put(p + 28, last - start, 4);
    (void) ngx_coord_record_put(p + 32, 0, 4);

    return ngx_coord_record_sum(p + NGX_COORD_RECORD_SUM_POS,
                                p + NGX_COORD_RECORD_SUMMED,
                                blob->len - NGX_COORD_RECORD_SUMMED);
}


static u_char *
ngx_coord_record_take(u_char *p, ngx_str_t *s, size_t len)
{
    s->data = p;
    s->len = len;

    return p + len;
}


/* a sum can be made up as well: what is replayed has to be a response */

static ngx_int_t
ngx_coord_record_check(ngx_coord_record_t *record, ngx_str_t *key)
{
    ngx_str_t  *line;

    if (record->key.len != key->len
        || ngx_memcmp(record->key.data, key->data, key->len) != 0
        || record->status < 200
        || record->status > 599
        || record->status == 206
        || record->status == 304
        || record->content_type_len > record->content_type.len
        || record->content_type.len > NGX_COORD_RECORD_VALUE
        || record->nfields > NGX_COORD_RECORD_FIELDS
        || (record->body_len && (record->omitted || record->status == 204))
        || !ngx_coord_record_value(&record->content_type)
        || !ngx_coord_record_value(&record->charset))
    {
        return NGX_ERROR;
    }

    line = &record->status_line;

    if (line->len
        && (line->len < 3
            || ngx_atoi(line->data, 3) != (ngx_int_t) record->status
            || (line->len > 3 && line->data[3] != ' ')
            || !ngx_coord_record_value(line)))
    {
        return NGX_ERROR;
    }

    return ngx_coord_record_check_fields(record);
}


static ngx_int_t
ngx_coord_record_check_fields(ngx_coord_record_t *record)
{
    ngx_int_t     rc;
    ngx_str_t     left;
    ngx_uint_t    n, trailers;
    ngx_keyval_t  field;

    n = 0;
    trailers = 0;
    left = record->fields;

    for ( ;; ) {
        rc = ngx_coord_record_next(&left, &field);

        if (rc == NGX_DONE) {
            return (n == record->nfields) ? NGX_OK : NGX_ERROR;
        }

        n++;

        if (rc == NGX_OK
            && field.key.len == 0
            && field.value.len == 0
            && trailers++ == 0)
        {
            continue;
        }

        if (rc == NGX_ERROR
            || !ngx_coord_record_field(&field.key, &field.value))
        {
            return NGX_ERROR;
        }
    }
}


ngx_int_t
ngx_coord_record_next(ngx_str_t *left, ngx_keyval_t *field)
{
    size_t   name, value;
    u_char  *p;

    if (left->len == 0) {
        return NGX_DONE;
    }

    if (left->len < 4) {
        return NGX_ERROR;
    }

    p = left->data;
    name = ngx_coord_record_get(p, 2);
    value = ngx_coord_record_get(p + 2, 2);

    if (name + value > left->len - 4) {
        return NGX_ERROR;
    }

    p = ngx_coord_record_take(p + 4, &field->key, name);
    p = ngx_coord_record_take(p, &field->value, value);

    left->len -= p - left->data;
    left->data = p;

    return NGX_OK;
}
