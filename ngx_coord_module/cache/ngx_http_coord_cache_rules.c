
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * What may be kept, and how long: RFC 9111 for a shared cache.
 */


#include "ngx_http_coord_cache.h"


static ngx_uint_t ngx_http_coord_cache_forbidden(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache);
static ngx_int_t ngx_http_coord_cache_lifetime(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache);
static ngx_coord_nsec_t ngx_http_coord_cache_stale(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache);
static ngx_int_t ngx_http_coord_cache_varies(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache);


/* those that may be kept without a word of the origin have valid set */

static const struct {
    ngx_uint_t                 status;
    ngx_uint_t                 valid;
} ngx_http_coord_cache_statuses[] = {
    { 200, 1 },
    { 203, 0 },
    { 300, 0 },
    { 301, 1 },
    { 302, 1 },
    { 307, 0 },
    { 308, 0 },
    { 404, 0 },
    { 405, 0 },
    { 410, 0 },
    { 414, 0 },
    { 501, 0 },
    { 0, 0 }
};


ngx_int_t
ngx_http_coord_cache_rules(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache)
{
    u_char                   *p;
    ngx_int_t                 rc;
    ngx_http_coord_stored_t  *fill;

    fill = &cache->fill;

    ngx_memzero(fill, sizeof(ngx_http_coord_stored_t));

    if (ngx_http_coord_cache_forbidden(r, cache)) {
        return NGX_DECLINED;
    }

    rc = ngx_http_coord_cache_lifetime(r, cache);

    if (rc != NGX_OK) {
        return rc;
    }

    rc = ngx_http_coord_cache_varies(r, cache);

    if (rc != NGX_OK) {
        return rc;
    }

    fill->started = cache->now;
    fill->stored = ngx_http_coord_cache_now(cache);
    fill->stale = ngx_http_coord_cache_stale(r, cache);

    cache->meta = ngx_pnalloc(r->pool, NGX_HTTP_COORD_CACHE_META);
    if (cache->meta == NULL) {
        return NGX_ERROR;
    }

    p = ngx_http_coord_stored_meta(cache->meta, fill);

    fill->tags.data = p;

    p = ngx_http_coord_cache_tags(&r->headers_out.headers, p,
                                  cache->meta + NGX_HTTP_COORD_CACHE_META);

    /* what cannot be purged by all of its tags is not kept */

    if (p == NULL) {
        return NGX_DECLINED;
    }

    fill->tags.len = p - fill->tags.data;

    return NGX_OK;
}


static ngx_uint_t
ngx_http_coord_cache_forbidden(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache)
{
    ngx_str_t    value;
    ngx_uint_t   i;
    ngx_list_t  *in, *out;

    in = &r->headers_in.headers;
    out = &r->headers_out.headers;

    /* it stands under the key of another page */

    if (ngx_http_coord_cache_error_page(r, cache)) {
        return 1;
    }

    i = 0;

    if (ngx_http_coord_cache_directive(in, "no-store", &value)
        || ngx_http_coord_cache_directive(out, "no-store", &value)
        || ngx_http_coord_cache_directive(out, "no-cache", &value)
        || ngx_http_coord_cache_directive(out, "private", &value)
        || ngx_http_coord_cache_field(out, "Set-Cookie", &i))
    {
        return 1;
    }

    /* what is for one user is for others if the origin says so */

    return r->headers_in.authorization
           && !cache->conf->user
           && !cache->conf->credentials
           && !ngx_http_coord_cache_directive(out, "public", &value)
           && !ngx_http_coord_cache_directive(out, "s-maxage", &value)
           && !ngx_http_coord_cache_directive(out, "must-revalidate", &value);
}


static ngx_int_t
ngx_http_coord_cache_lifetime(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache)
{
    time_t                    n, age;
    ngx_str_t                *line;
    ngx_uint_t                i, k;
    ngx_list_t               *out;
    ngx_http_coord_stored_t  *fill;

    fill = &cache->fill;
    out = &r->headers_out.headers;

    for (k = 0; ngx_http_coord_cache_statuses[k].status; k++) {
        if (ngx_http_coord_cache_statuses[k].status
            == r->headers_out.status)
        {
            break;
        }
    }

    if (ngx_http_coord_cache_statuses[k].status == 0) {
        return NGX_DECLINED;
    }

    i = 0;
    age = 0;
    line = ngx_http_coord_cache_field(out, "Age", &i);

    if (line) {
        age = ngx_atotm(line->data, line->len);
        age = ngx_max(age, 0);
    }

    n = ngx_http_coord_cache_seconds(out, "s-maxage");

    if (n == -1) {
        n = ngx_http_coord_cache_seconds(out, "max-age");
    }

    i = 0;

    if (n == -1) {
        line = ngx_http_coord_cache_field(out, "Expires", &i);

        if (line) {
            n = ngx_parse_http_time(line->data, line->len);
            n = (n == NGX_ERROR) ? 0 : ngx_max(n - ngx_time(), 0);
        }
    }

    fill->age = (ngx_coord_nsec_t) age * NGX_COORD_NSEC_PER_SEC;
    fill->fresh = (ngx_coord_nsec_t) n * NGX_COORD_NSEC_PER_SEC;

    if (n == -1) {

        if (!ngx_http_coord_cache_statuses[k].valid) {
            return NGX_DECLINED;
        }

        fill->fresh = cache->conf->valid;
    }

    fill->fresh = ngx_min(fill->fresh, NGX_HTTP_COORD_CACHE_LIFE / 2);

    return fill->fresh > fill->age ? NGX_OK : NGX_DECLINED;
}


/* how long it is of use when it is not fresh any more */

static ngx_coord_nsec_t
ngx_http_coord_cache_stale(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache)
{
    ngx_str_t    value;
    ngx_list_t  *out;

    out = &r->headers_out.headers;

    if (ngx_http_coord_cache_directive(out, "must-revalidate", &value)
        || ngx_http_coord_cache_directive(out, "proxy-revalidate", &value)
        || ngx_http_coord_cache_directive(out, "s-maxage", &value))
    {
        return 0;
    }

    return ngx_min(cache->conf->stale, NGX_HTTP_COORD_CACHE_LIFE / 2);
}


static ngx_int_t
ngx_http_coord_cache_varies(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache)
{
    ngx_int_t    rc;
    ngx_str_t   *line, lines[NGX_HTTP_COORD_CACHE_TAGS];
    ngx_uint_t   i, n;

    i = 0;

    for (n = 0; n < NGX_HTTP_COORD_CACHE_TAGS; n++) {
        line = ngx_http_coord_cache_field(&r->headers_out.headers, "Vary",
                                          &i);
        if (line == NULL) {
            break;
        }

        lines[n] = *line;
    }

    rc = ngx_http_coord_cache_variant(r, cache->conf, lines, n,
                                      cache->fill.variant);

    if (rc == NGX_DECLINED) {
        return NGX_OK;
    }

    if (rc != NGX_OK) {
        return NGX_DECLINED;
    }

    cache->fill.varies = 1;

    return NGX_OK;
}
