
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
static ngx_uint_t ngx_http_coord_cache_status(ngx_uint_t status);
static time_t ngx_http_coord_cache_told_age(ngx_list_t *headers);
static time_t ngx_http_coord_cache_date(ngx_http_request_t *r);
static time_t ngx_http_coord_cache_told_life(ngx_http_request_t *r,
    ngx_http_coord_cache_policy_t *policy, time_t date);
static time_t ngx_http_coord_cache_time(ngx_str_t *line);
static void ngx_http_coord_cache_stale(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache);
static ngx_coord_nsec_t ngx_http_coord_cache_told_stale(
    ngx_http_coord_cache_t *cache, time_t told);
static ngx_uint_t ngx_http_coord_cache_validator(ngx_http_request_t *r);
static ngx_int_t ngx_http_coord_cache_varies(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache);


/*
 * What may not be kept whatever the origin says: it is not whole, or an answer
 * to one client (RFC 9110; RFC 6585).
 */

static const ngx_uint_t  ngx_http_coord_cache_never[] = {
    206, 304, 401, 407, 412, 416, 428, 429, 431, 0
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

    if (ngx_http_coord_cache_policy(r, &cache->policy) != NGX_OK) {
        return NGX_ERROR;
    }

    if (ngx_http_coord_cache_forbidden(r, cache)) {
        return NGX_DECLINED;
    }

    fill->started = cache->now;
    fill->stored = ngx_http_coord_cache_now(cache);

    if (ngx_http_coord_cache_lifetime(r, cache) != NGX_OK) {
        return NGX_DECLINED;
    }

    ngx_http_coord_cache_stale(r, cache);

    if (fill->keep <= fill->age) {
        return NGX_DECLINED;
    }

    rc = ngx_http_coord_cache_varies(r, cache);

    if (rc != NGX_OK) {
        return rc;
    }

    cache->meta = ngx_pnalloc(r->pool, NGX_HTTP_COORD_CACHE_META);
    if (cache->meta == NULL) {
        return NGX_ERROR;
    }

    p = ngx_http_coord_stored_meta(cache->meta, fill);

    fill->tags.data = p;

    p = ngx_http_coord_cache_tags(r, cache, p,
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
    ngx_uint_t                      i;
    ngx_http_coord_cache_policy_t  *policy;

    static ngx_str_t  cookie = ngx_string("Set-Cookie");

    policy = &cache->policy;

    /* it stands under the key of another page, or was let through for once */

    if (ngx_http_coord_cache_error_page(r, cache)
        || ngx_http_coord_cache_redirected(r, cache))
    {
        return 1;
    }

    i = 0;

    if (ngx_http_coord_cache_asked(r, "no-store")
        || policy->no_store
        || policy->private
        || (ngx_http_coord_field_line(&r->headers_out.headers, "Set-Cookie",
                                      &i)
            && !(policy->ignored & NGX_HTTP_UPSTREAM_IGN_SET_COOKIE)
            && !ngx_http_coord_cache_withheld(policy, &cookie)))
    {
        return 1;
    }

    /* what is for one user is for others if the origin says so */

    return r->headers_in.authorization
           && !cache->conf->user
           && !cache->conf->credentials
           && !policy->public
           && policy->s_maxage == -1
           && !policy->must_revalidate;
}


static ngx_int_t
ngx_http_coord_cache_lifetime(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache)
{
    time_t                    n, age, date;
    ngx_uint_t                status;
    ngx_http_coord_stored_t  *fill;

    fill = &cache->fill;
    status = r->headers_out.status;

    if (!ngx_http_coord_cache_status(status)) {
        return NGX_DECLINED;
    }

    age = ngx_http_coord_cache_told_age(&r->headers_out.headers);
    date = ngx_http_coord_cache_date(r);

    fill->age = (ngx_coord_nsec_t) ngx_max(age, 0) * NGX_COORD_NSEC_PER_SEC;

    n = ngx_http_coord_cache_told_life(r, &cache->policy, date);

    if (cache->policy.accel) {
        fill->fresh = (ngx_coord_nsec_t) n * NGX_COORD_NSEC_PER_SEC;

    } else if (n == -1) {

        if (status != NGX_HTTP_OK
            && status != NGX_HTTP_MOVED_PERMANENTLY
            && status != NGX_HTTP_MOVED_TEMPORARILY)
        {
            return NGX_DECLINED;
        }

        fill->fresh = cache->conf->valid;

    } else {
        fill->fresh = (ngx_coord_nsec_t) n * NGX_COORD_NSEC_PER_SEC;

        /* it was on its way, and may have been under way before (4.2.3) */

        if (age != -1) {
            fill->age += ngx_max(fill->stored - fill->started, 0);
        }

        age = ngx_min(ngx_time() - date, NGX_HTTP_COORD_CACHE_YEAR);
        age = ngx_max(age, 0);
        fill->age = ngx_max(fill->age, age * NGX_COORD_NSEC_PER_SEC);
    }

    fill->fresh = ngx_min(fill->fresh, NGX_HTTP_COORD_CACHE_LIFE / 2);

    return NGX_OK;
}


/* 1 if a response with this status may be kept */

static ngx_uint_t
ngx_http_coord_cache_status(ngx_uint_t status)
{
    const ngx_uint_t  *never;

    if (status >= NGX_HTTP_INTERNAL_SERVER_ERROR) {
        return status == NGX_HTTP_NOT_IMPLEMENTED;
    }

    for (never = ngx_http_coord_cache_never; *never; never++) {
        if (*never == status) {
            return 0;
        }
    }

    return status >= NGX_HTTP_OK;
}


/* the field Age, at most a year; -1: there is none */

static time_t
ngx_http_coord_cache_told_age(ngx_list_t *headers)
{
    ngx_str_t   *line, left, age;
    ngx_uint_t   i;

    i = 0;
    line = ngx_http_coord_field_line(headers, "Age", &i);

    if (line == NULL) {
        return -1;
    }

    /* of a list the first one counts (RFC 9111, 5.1) */

    left = *line;

    return ngx_http_coord_field_member(&left, &age) == NGX_OK
           ? ngx_http_coord_cache_number(&age)
           : 0;
}


/* when the origin made the response; now, if it does not tell */

static time_t
ngx_http_coord_cache_date(ngx_http_request_t *r)
{
    time_t            date;
    ngx_table_elt_t  *h;

    h = ngx_http_coord_cache_dated_by(r);

    date = h ? ngx_parse_http_time(h->value.data, h->value.len) : NGX_ERROR;

    return date == NGX_ERROR ? ngx_time() : date;
}


/* seconds that the origin gives, at most a year; -1: it tells of none */

static time_t
ngx_http_coord_cache_told_life(ngx_http_request_t *r,
    ngx_http_coord_cache_policy_t *policy, time_t date)
{
    time_t       n;
    ngx_str_t   *line;
    ngx_uint_t   i;

    n = policy->s_maxage != -1 ? policy->s_maxage : policy->max_age;

    if (n != -1
        || policy->targeted
        || (policy->ignored & NGX_HTTP_UPSTREAM_IGN_EXPIRES))
    {
        return n;
    }

    i = 0;
    line = ngx_http_coord_field_line(&r->headers_out.headers, "Expires", &i);

    if (line == NULL) {
        return -1;
    }

    n = ngx_http_coord_cache_time(line);

    if (n == NGX_ERROR || n <= date) {
        return 0;
    }

    return ngx_min(n - date, NGX_HTTP_COORD_CACHE_YEAR);
}


/* nginx reads times of any zone as GMT; NGX_ERROR: it is no HTTP-date */

static time_t
ngx_http_coord_cache_time(ngx_str_t *line)
{
    static ngx_str_t  zone = ngx_string(" GMT");

    if (ngx_strlchr(line->data, line->data + line->len, ',')
        && (line->len < zone.len
            || ngx_strncasecmp(line->data + line->len - zone.len, zone.data,
                               zone.len)
               != 0))
    {
        return NGX_ERROR;
    }

    return ngx_parse_http_time(line->data, line->len);
}


/*
 * How long it is of use when it is not fresh any more.  What must not be used
 * then can be revalidated; what must never be used without that has no life.
 */

static void
ngx_http_coord_cache_stale(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache)
{
    ngx_http_coord_stored_t        *fill;
    ngx_http_coord_cache_policy_t  *policy;

    fill = &cache->fill;
    policy = &cache->policy;

    if (policy->no_cache) {
        fill->keep = ngx_http_coord_cache_validator(r) ? fill->fresh : 0;
        fill->fresh = 0;
        return;
    }

    if (policy->must_revalidate
        || policy->proxy_revalidate
        || policy->s_maxage != -1)
    {
        fill->keep = fill->fresh;

        if (ngx_http_coord_cache_validator(r)) {
            fill->keep += ngx_http_coord_cache_told_stale(cache, -1);
        }

        return;
    }

    fill->stale = ngx_http_coord_cache_told_stale(cache, policy->stale_while);
    fill->allowed = (policy->stale_while != -1);
    fill->error = ngx_http_coord_cache_told_stale(cache,
                                                  policy->stale_if_error);

    fill->keep = fill->fresh + ngx_max(fill->stale, fill->error);
}


/* what came without a life is stale by the word of its origin only */

static ngx_coord_nsec_t
ngx_http_coord_cache_told_stale(ngx_http_coord_cache_t *cache, time_t told)
{
    ngx_coord_nsec_t  stale;

    if (told != -1) {
        stale = (ngx_coord_nsec_t) told * NGX_COORD_NSEC_PER_SEC;

    } else if (cache->fill.fresh > cache->fill.age) {
        stale = cache->conf->stale;

    } else {
        stale = 0;
    }

    return ngx_min(stale, NGX_HTTP_COORD_CACHE_LIFE / 2);
}


/* 1 if its origin can be asked whether it has changed */

static ngx_uint_t
ngx_http_coord_cache_validator(ngx_http_request_t *r)
{
    return r->headers_out.status == NGX_HTTP_OK
           && (r->headers_out.etag
               || r->headers_out.last_modified
               || r->headers_out.last_modified_time != -1);
}


static ngx_int_t
ngx_http_coord_cache_varies(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache)
{
    ngx_int_t    rc;
    ngx_str_t   *line, lines[NGX_HTTP_COORD_CACHE_TAGS];
    ngx_uint_t   i, n;

    cache->fill.unvaried = (cache->policy.ignored
                            & NGX_HTTP_UPSTREAM_IGN_VARY) != 0;
    i = 0;

    for (n = 0; n < NGX_HTTP_COORD_CACHE_TAGS; n++) {

        if (cache->fill.unvaried) {
            break;
        }

        line = ngx_http_coord_field_line(&r->headers_out.headers, "Vary",
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
