
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * A stored response: "cca3", two bytes of length, the times and tags, and the
 * record, whose fingerprint is the digest of the times and tags.
 */


#include "ngx_http_coord_cache.h"


#define NGX_HTTP_COORD_STORED_MAGIC  "cca3"
#define NGX_HTTP_COORD_STORED_HEAD   6

#define NGX_HTTP_COORD_STORED_MARK   "cca0"


static ngx_int_t ngx_http_coord_stored_times(ngx_http_coord_stored_t *stored,
    ngx_str_t *meta);
static ngx_int_t ngx_http_coord_stored_number(u_char **p, u_char *last,
    ngx_coord_nsec_t unit, ngx_coord_nsec_t *value);
static ngx_int_t ngx_http_coord_stored_digest(ngx_str_t *meta,
    u_char *digest);


/* the times, as they stand there */

static const struct {
    size_t                     offset;
    ngx_coord_nsec_t           unit;
} ngx_http_coord_stored_numbers[] = {
    { offsetof(ngx_http_coord_stored_t, started), NGX_COORD_NSEC_PER_USEC },
    { offsetof(ngx_http_coord_stored_t, stored), NGX_COORD_NSEC_PER_USEC },
    { offsetof(ngx_http_coord_stored_t, fresh), NGX_COORD_NSEC_PER_MSEC },
    { offsetof(ngx_http_coord_stored_t, stale), NGX_COORD_NSEC_PER_MSEC },
    { offsetof(ngx_http_coord_stored_t, error), NGX_COORD_NSEC_PER_MSEC },
    { offsetof(ngx_http_coord_stored_t, keep), NGX_COORD_NSEC_PER_MSEC },
    { offsetof(ngx_http_coord_stored_t, age), NGX_COORD_NSEC_PER_MSEC },
    { offsetof(ngx_http_coord_stored_t, allowed), 1 },
    { 0, 0 }
};


u_char *
ngx_http_coord_stored_meta(u_char *p, ngx_http_coord_stored_t *stored)
{
    ngx_uint_t  i;

    for (i = 0; ngx_http_coord_stored_numbers[i].unit; i++) {
        p = ngx_sprintf(p, "%L ",
                        (int64_t) (*(ngx_coord_nsec_t *) ((u_char *) stored
                                   + ngx_http_coord_stored_numbers[i].offset)
                                   / ngx_http_coord_stored_numbers[i].unit));
    }

    if (stored->unvaried) {
        *p++ = '*';
    }

    if (stored->varies) {
        p = ngx_hex_dump(p, stored->variant, NGX_COORD_DIGEST_LEN);

    } else {
        *p++ = '-';
    }

    *p++ = LF;

    return p;
}


ngx_int_t
ngx_http_coord_stored_join(ngx_str_t *meta, ngx_str_t *record,
    ngx_str_t *blob)
{
    u_char  *p;

    blob->len = NGX_HTTP_COORD_STORED_HEAD + meta->len + record->len;

    blob->data = ngx_alloc(blob->len, ngx_cycle->log);

    if (blob->data) {
        p = ngx_cpymem(blob->data, NGX_HTTP_COORD_STORED_MAGIC, 4);
        *p++ = (u_char) (meta->len >> 8);
        *p++ = (u_char) (meta->len & 0xff);
        p = ngx_cpymem(p, meta->data, meta->len);
        ngx_memcpy(p, record->data, record->len);
    }

    ngx_free(record->data);
    record->data = NULL;

    return blob->data ? NGX_OK : NGX_ERROR;
}


ngx_int_t
ngx_http_coord_stored_mark(ngx_str_t *blob)
{
    blob->len = sizeof(NGX_HTTP_COORD_STORED_MARK) - 1;

    blob->data = ngx_alloc(blob->len, ngx_cycle->log);
    if (blob->data == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(blob->data, NGX_HTTP_COORD_STORED_MARK, blob->len);

    return NGX_OK;
}


ngx_uint_t
ngx_http_coord_stored_is_mark(ngx_str_t *blob)
{
    return blob->len == sizeof(NGX_HTTP_COORD_STORED_MARK) - 1
           && ngx_memcmp(blob->data, NGX_HTTP_COORD_STORED_MARK, blob->len)
              == 0;
}


ngx_int_t
ngx_http_coord_stored_decode(ngx_http_coord_stored_t *stored, ngx_str_t *blob,
    ngx_str_t *key)
{
    u_char     *p, digest[NGX_COORD_DIGEST_LEN];
    ngx_str_t   meta, record;

    p = blob->data;

    if (blob->len < NGX_HTTP_COORD_STORED_HEAD
        || ngx_memcmp(p, NGX_HTTP_COORD_STORED_MAGIC, 3) != 0)
    {
        return NGX_ERROR;
    }

    if (p[3] != NGX_HTTP_COORD_STORED_MAGIC[3]) {
        return NGX_DECLINED;
    }

    meta.data = p + NGX_HTTP_COORD_STORED_HEAD;
    meta.len = (p[4] << 8) | p[5];

    if (meta.len > blob->len - NGX_HTTP_COORD_STORED_HEAD) {
        return NGX_ERROR;
    }

    record.data = meta.data + meta.len;
    record.len = blob->len - NGX_HTTP_COORD_STORED_HEAD - meta.len;

    if (ngx_coord_record_decode(&stored->record, &record, key) != NGX_OK
        || stored->record.omitted
        || ngx_http_coord_stored_digest(&meta, digest) != NGX_OK
        || ngx_memcmp(digest, stored->record.fingerprint,
                      NGX_COORD_DIGEST_LEN)
           != 0)
    {
        return NGX_ERROR;
    }

    return ngx_http_coord_stored_times(stored, &meta);
}


static ngx_int_t
ngx_http_coord_stored_times(ngx_http_coord_stored_t *stored, ngx_str_t *meta)
{
    u_char      *p, *last, *line;
    ngx_uint_t   i;

    p = meta->data;
    last = p + meta->len;

    line = ngx_strlchr(p, last, LF);

    if (line == NULL) {
        return NGX_ERROR;
    }

    for (i = 0; ngx_http_coord_stored_numbers[i].unit; i++) {

        if (ngx_http_coord_stored_number(&p, line,
                                   ngx_http_coord_stored_numbers[i].unit,
                                   (ngx_coord_nsec_t *) ((u_char *) stored
                                   + ngx_http_coord_stored_numbers[i].offset))
            != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    stored->unvaried = (p < line && *p == '*');
    p += stored->unvaried;

    stored->varies = (line - p == 2 * NGX_COORD_DIGEST_LEN);

    if (stored->varies
        && ngx_coord_unhex(stored->variant, p, NGX_COORD_DIGEST_LEN)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    stored->tags.data = line + 1;
    stored->tags.len = last - line - 1;

    return NGX_OK;
}


static ngx_int_t
ngx_http_coord_stored_number(u_char **p, u_char *last, ngx_coord_nsec_t unit,
    ngx_coord_nsec_t *value)
{
    off_t    n;
    u_char  *end;

    end = ngx_strlchr(*p, last, ' ');

    if (end == NULL) {
        return NGX_ERROR;
    }

    n = ngx_atoof(*p, end - *p);

    if (n == NGX_ERROR || n > (off_t) (NGX_MAX_OFF_T_VALUE / unit)) {
        return NGX_ERROR;
    }

    *p = end + 1;
    *value = (ngx_coord_nsec_t) n * unit;

    return NGX_OK;
}


static ngx_int_t
ngx_http_coord_stored_digest(ngx_str_t *meta, u_char *digest)
{
    if (ngx_coord_digest_init() != NGX_OK
        || ngx_coord_digest_update(meta->data, meta->len) != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_coord_digest_final(digest);
}


ngx_uint_t
ngx_http_coord_stored_field(ngx_coord_record_t *record, const char *name,
    ngx_str_t *lines, ngx_uint_t max)
{
    size_t        len;
    ngx_str_t     left;
    ngx_uint_t    n;
    ngx_keyval_t  field;

    n = 0;
    len = ngx_strlen(name);
    left = record->fields;

    while (n < max && ngx_coord_record_next(&left, &field) == NGX_OK) {

        if (field.key.len == 0) {
            break;
        }

        if (field.key.len == len
            && ngx_strncasecmp(field.key.data, (u_char *) name, len) == 0)
        {
            lines[n++] = field.value;
        }
    }

    return n;
}


ngx_int_t
ngx_http_coord_cache_age(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache, ngx_keyval_t *field)
{
    ngx_coord_nsec_t  age;

    field->value.data = ngx_pnalloc(r->pool, NGX_TIME_T_LEN);
    if (field->value.data == NULL) {
        return NGX_ERROR;
    }

    age = ngx_http_coord_cache_now(cache) - cache->stored.stored;
    age = cache->stored.age + ngx_max(age, 0);

    ngx_str_set(&field->key, "Age");

    field->value.len = ngx_sprintf(field->value.data, "%T",
                                   (time_t) (age / NGX_COORD_NSEC_PER_SEC))
                       - field->value.data;

    return NGX_OK;
}


ngx_uint_t
ngx_http_coord_stored_while(ngx_http_coord_cache_t *cache)
{
    return cache->blob.data
           && cache->old < cache->stored.fresh + cache->stored.stale;
}


ngx_coord_nsec_t
ngx_http_coord_cache_now(ngx_http_coord_cache_t *cache)
{
    return cache->now + ngx_coord_monotonic() - cache->taken;
}
