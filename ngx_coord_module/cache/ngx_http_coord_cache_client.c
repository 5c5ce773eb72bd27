
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Under what conditions a client wants a response.  The origin is not to know
 * of them: it has to send all of it, and they apply to that.
 */


#include "ngx_http_coord_cache.h"


static void ngx_http_coord_cache_client_field(ngx_table_elt_t *h,
    ngx_str_t *value);
static void ngx_http_coord_cache_client_modified(ngx_http_request_t *r);
static ngx_uint_t ngx_http_coord_cache_client_match(ngx_http_request_t *r,
    ngx_str_t line);
static ngx_uint_t ngx_http_coord_cache_client_has(ngx_http_request_t *r,
    ngx_http_coord_cache_client_t *client);
static ngx_uint_t ngx_http_coord_cache_client_since(ngx_http_request_t *r,
    ngx_str_t *since);


void
ngx_http_coord_cache_client_take(ngx_http_request_t *r,
    ngx_http_coord_cache_client_t *client)
{
    ngx_http_coord_cache_client_field(r->headers_in.if_none_match,
                                      &client->none_match);
    ngx_http_coord_cache_client_field(r->headers_in.if_modified_since,
                                      &client->since);

    ngx_http_coord_cache_client_field(r->headers_in.range,
                                      &client->range.value);
    ngx_http_coord_cache_client_field(r->headers_in.if_range,
                                      &client->if_range.value);

    ngx_http_coord_cache_client_field(r->headers_in.if_match,
                                      &client->match);
    ngx_http_coord_cache_client_field(r->headers_in.if_unmodified_since,
                                      &client->unmodified);

    ngx_http_coord_capture_whole(r);
}


/* the lines themselves are taken out, and others may stand in their place */

static void
ngx_http_coord_cache_client_field(ngx_table_elt_t *h, ngx_str_t *value)
{
    if (h) {
        *value = h->value;
    }
}


ngx_uint_t
ngx_http_coord_cache_client_apply(ngx_http_request_t *r,
    ngx_http_coord_cache_client_t *client)
{
    if (r->headers_out.status != NGX_HTTP_OK) {
        return 0;
    }

    ngx_http_coord_cache_client_modified(r);

    if (!ngx_http_coord_cache_client_has(r, client)) {
        return 0;
    }

    r->headers_out.status = NGX_HTTP_NOT_MODIFIED;
    r->headers_out.status_line.len = 0;
    r->headers_out.content_type.len = 0;

    ngx_http_clear_content_length(r);
    ngx_http_clear_accept_ranges(r);

    if (r->headers_out.content_encoding) {
        r->headers_out.content_encoding->hash = 0;
        r->headers_out.content_encoding = NULL;
    }

    return 1;
}


/* an origin tells the time as text */

static void
ngx_http_coord_cache_client_modified(ngx_http_request_t *r)
{
    if (r->headers_out.last_modified
        && r->headers_out.last_modified_time == -1)
    {
        r->headers_out.last_modified_time = ngx_parse_http_time(
                                   r->headers_out.last_modified->value.data,
                                   r->headers_out.last_modified->value.len);
    }
}


ngx_uint_t
ngx_http_coord_cache_client_refuses(ngx_http_request_t *r,
    ngx_http_coord_cache_client_t *client)
{
    time_t  time;

    if (r->headers_out.status != NGX_HTTP_OK) {
        return 0;
    }

    if (client->unmodified.len) {
        ngx_http_coord_cache_client_modified(r);

        time = ngx_parse_http_time(client->unmodified.data,
                                   client->unmodified.len);

        if (r->headers_out.last_modified_time == -1
            || time < r->headers_out.last_modified_time)
        {
            return 1;
        }
    }

    return client->match.len
           && !ngx_http_coord_cache_client_match(r, client->match);
}


/* the tags are the same, as nginx compares them for what is a hit */

static ngx_uint_t
ngx_http_coord_cache_client_match(ngx_http_request_t *r, ngx_str_t line)
{
    ngx_str_t  *etag, member;

    etag = r->headers_out.etag ? &r->headers_out.etag->value : NULL;

    while (ngx_http_coord_field_member(&line, &member) == NGX_OK) {

        if (member.len == 1 && member.data[0] == '*') {
            return 1;
        }

        if (etag
            && member.len == etag->len
            && ngx_memcmp(member.data, etag->data, etag->len) == 0)
        {
            return 1;
        }
    }

    return 0;
}


/* 1 if the client has what is sent; If-None-Match goes before the other */

static ngx_uint_t
ngx_http_coord_cache_client_has(ngx_http_request_t *r,
    ngx_http_coord_cache_client_t *client)
{
    if (client->none_match.len) {
        return r->headers_out.etag
               && ngx_http_coord_cache_client_etag(client->none_match,
                                             &r->headers_out.etag->value);
    }

    return client->since.len
           && ngx_http_coord_cache_client_since(r, &client->since);
}


ngx_uint_t
ngx_http_coord_cache_client_etag(ngx_str_t line, ngx_str_t *etag)
{
    ngx_str_t  own, member;

    own = *etag;

    if (ngx_http_coord_field_weak(&own)) {
        own.data += 2;
        own.len -= 2;
    }

    while (ngx_http_coord_field_member(&line, &member) == NGX_OK) {

        if (member.len == 1 && member.data[0] == '*') {
            return 1;
        }

        if (ngx_http_coord_field_weak(&member)) {
            member.data += 2;
            member.len -= 2;
        }

        if (member.len == own.len
            && ngx_memcmp(member.data, own.data, own.len) == 0)
        {
            return 1;
        }
    }

    return 0;
}


/* as the directive if_modified_since wants it */

static ngx_uint_t
ngx_http_coord_cache_client_since(ngx_http_request_t *r, ngx_str_t *since)
{
    time_t                     time;
    ngx_http_core_loc_conf_t  *clcf;

    clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);

    if (clcf->if_modified_since == NGX_HTTP_IMS_OFF
        || r->headers_out.last_modified_time == -1)
    {
        return 0;
    }

    time = ngx_parse_http_time(since->data, since->len);

    return time == r->headers_out.last_modified_time
           || (clcf->if_modified_since == NGX_HTTP_IMS_BEFORE
               && time > r->headers_out.last_modified_time);
}
