
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * A response that is not fresh any more, and whose origin is asked whether it
 * has changed: with a 304 it is good for another life (RFC 9111, 4.3).
 */


#include "ngx_http_coord_cache.h"


static ngx_int_t ngx_http_coord_cache_condition(ngx_http_request_t *r,
    ngx_coord_record_t *record, const char *field, ngx_str_t *name,
    u_char *lowcase);
static ngx_int_t ngx_http_coord_cache_news(ngx_http_request_t *r,
    ngx_array_t *fields, ngx_str_t *age);
static ngx_uint_t ngx_http_coord_cache_is_news(ngx_table_elt_t *h);
static ngx_int_t ngx_http_coord_cache_body(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache);


static const ngx_str_t  ngx_http_coord_cache_of_body[] = {
    ngx_string("content-encoding"),
    ngx_string("content-length"),
    ngx_string("content-range"),
    ngx_string("content-type"),
    ngx_null_string
};


ngx_int_t
ngx_http_coord_cache_ask_origin(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache)
{
    ngx_int_t            etag, modified;
    ngx_coord_record_t  *record;

    static ngx_str_t  none_match = ngx_string("If-None-Match");
    static ngx_str_t  since = ngx_string("If-Modified-Since");

    record = &cache->stored.record;

    if (record->status != NGX_HTTP_OK) {
        return NGX_OK;
    }

    etag = ngx_http_coord_cache_condition(r, record, "ETag", &none_match,
                                          (u_char *) "if-none-match");

    modified = ngx_http_coord_cache_condition(r, record, "Last-Modified",
                                              &since,
                                              (u_char *) "if-modified-since");

    cache->conditional = (etag == NGX_OK || modified == NGX_OK);

    return (etag == NGX_ERROR || modified == NGX_ERROR) ? NGX_ERROR : NGX_OK;
}


/* into what an upstream is sent; filters of this nginx do not see it */

static ngx_int_t
ngx_http_coord_cache_condition(ngx_http_request_t *r,
    ngx_coord_record_t *record, const char *field, ngx_str_t *name,
    u_char *lowcase)
{
    ngx_str_t         line;
    ngx_table_elt_t  *h;

    if (ngx_http_coord_stored_field(record, field, &line, 1) == 0) {
        return NGX_DECLINED;
    }

    h = ngx_list_push(&r->headers_in.headers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    ngx_memzero(h, sizeof(ngx_table_elt_t));

    h->hash = ngx_hash_key(lowcase, name->len);
    h->key = *name;
    h->value = line;
    h->lowcase_key = lowcase;

    return NGX_OK;
}


/* RFC 9111, 4.3.4; a weak one may be told as a strong one */

ngx_uint_t
ngx_http_coord_cache_same(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache)
{
    ngx_str_t   stored, *told;
    ngx_uint_t  i;

    i = 0;
    told = ngx_http_coord_field_line(&r->headers_out.headers, "ETag", &i);

    return told == NULL
           || ngx_http_coord_stored_field(&cache->stored.record, "ETag",
                                          &stored, 1)
              == 0
           || ngx_http_coord_cache_client_etag(*told, &stored);
}


ngx_int_t
ngx_http_coord_cache_revalidate(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache, ngx_uint_t news)
{
    ngx_array_t   fields;
    ngx_keyval_t  age;

    if (ngx_array_init(&fields, r->pool, 8, sizeof(ngx_keyval_t)) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_str_set(&age.key, "Age");
    ngx_str_set(&age.value, "0");

    if (news) {
        if (ngx_http_coord_cache_dated(r) != NGX_OK
            || ngx_http_coord_cache_news(r, &fields, &age.value) != NGX_OK)
        {
            return NGX_ERROR;
        }

    } else if (ngx_http_coord_cache_age(r, cache, &age) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_http_clean_header(r);

    if (ngx_http_coord_replay_header(r, &cache->stored.record, &age) != NGX_OK
        || ngx_http_coord_replay_update(r, &fields) != NGX_OK
        || ngx_http_coord_cache_policy(r, &cache->policy) != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_http_coord_cache_body(r, cache);
}


/* what the 304 tells anew of the response */

static ngx_int_t
ngx_http_coord_cache_news(ngx_http_request_t *r, ngx_array_t *fields,
    ngx_str_t *age)
{
    ngx_uint_t        i;
    ngx_keyval_t     *field;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h;

    for (part = &r->headers_out.headers.part; part; part = part->next) {
        h = part->elts;

        for (i = 0; i < part->nelts; i++) {

            if (h[i].hash == 0) {
                continue;
            }

            if (h[i].key.len == sizeof("Age") - 1
                && ngx_strncasecmp(h[i].key.data, (u_char *) "Age", 3) == 0)
            {
                *age = h[i].value;
                continue;
            }

            if (!ngx_http_coord_cache_is_news(&h[i])) {
                continue;
            }

            field = ngx_array_push(fields);
            if (field == NULL) {
                return NGX_ERROR;
            }

            field->key = h[i].key;
            field->value = h[i].value;
        }
    }

    return NGX_OK;
}


/* not what describes the body, which is that of the stored one (3.2) */

static ngx_uint_t
ngx_http_coord_cache_is_news(ngx_table_elt_t *h)
{
    const ngx_str_t  *body;

    for (body = ngx_http_coord_cache_of_body; body->len; body++) {
        if (body->len == h->key.len
            && ngx_strncasecmp(body->data, h->key.data, h->key.len) == 0)
        {
            return 0;
        }
    }

    return !ngx_coord_record_hop(&h->key);
}


/* as if it had been captured */

static ngx_int_t
ngx_http_coord_cache_body(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache)
{
    ngx_buf_t                 *b;
    ngx_chain_t               *cl;
    ngx_coord_record_t        *record;
    ngx_http_coord_capture_t  *capture;

    record = &cache->stored.record;
    capture = &cache->capture;

    ngx_memzero(capture, sizeof(ngx_http_coord_capture_t));

    capture->keep = ngx_http_coord_cache_keep;
    capture->data = cache;

    if (ngx_http_coord_capture_start(r, capture) != NGX_OK) {
        return NGX_ERROR;
    }

    capture->received = record->body_len;

    if (record->body_len == 0) {
        return NGX_OK;
    }

    b = ngx_calloc_buf(r->pool);
    cl = ngx_alloc_chain_link(r->pool);

    if (b == NULL || cl == NULL) {
        return NGX_ERROR;
    }

    b->start = record->body;
    b->pos = record->body;
    b->last = record->body + record->body_len;
    b->end = b->last;
    b->memory = 1;

    cl->buf = b;
    cl->next = NULL;

    capture->first = cl;

    return NGX_OK;
}
