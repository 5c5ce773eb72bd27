
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * A client wants a part of a response that the origin sends as a whole, since
 * it is to be kept.  Which part, and whether, is decided by the range filter of
 * nginx; its body filter stands in front of the filters of this module, which
 * have to see all of the body, so that these cut it themselves.
 */


#include "ngx_http_coord_cache.h"


extern ngx_module_t  ngx_http_range_body_filter_module;


static ngx_uint_t ngx_http_coord_cache_range_cut_buf(
    ngx_http_coord_cache_client_t *client, ngx_buf_t *b);


void
ngx_http_coord_cache_range_allow(ngx_http_request_t *r,
    ngx_http_coord_cache_client_t *client, ngx_uint_t whole)
{
    if (client->range.value.len == 0
        || ngx_http_coord_field_weak(&client->if_range.value)
        || r->headers_out.status != NGX_HTTP_OK)
    {
        return;
    }

    r->headers_in.range = &client->range;
    r->headers_in.if_range = client->if_range.value.len ? &client->if_range
                                                        : NULL;

    ngx_http_clear_accept_ranges(r);

    /* several are sent of what is in one buffer only */

    r->allow_ranges = 1;
    r->single_range = !whole;
}


ngx_uint_t
ngx_http_coord_cache_range_take(ngx_http_request_t *r,
    ngx_http_coord_cache_client_t *client)
{
    off_t      last;
    u_char    *p, *end;
    ngx_str_t  range;

    if (client->range.value.len == 0
        || r->headers_out.status != NGX_HTTP_PARTIAL_CONTENT)
    {
        return 0;
    }

    if (r->headers_out.content_range == NULL) {
        client->several = ngx_http_get_module_ctx(r,
                                          ngx_http_range_body_filter_module);

        ngx_http_set_ctx(r, NULL, ngx_http_range_body_filter_module);

        return 0;
    }

    /* with trailers the length is gone by now */

    range = r->headers_out.content_range->value;
    end = range.data + range.len;

    p = ngx_strlchr(range.data, end, '-');
    if (p == NULL) {
        return 0;
    }

    end = ngx_strlchr(++p, end, '/');
    last = end ? ngx_atoof(p, end - p) : NGX_ERROR;

    if (last == NGX_ERROR) {
        return 0;
    }

    client->begin = r->headers_out.content_offset;
    client->end = last + 1;

    ngx_http_set_ctx(r, NULL, ngx_http_range_body_filter_module);

    return 1;
}


/*
 * Several parts have text between them, which the filter of nginx writes: it is
 * in front of this module, so that such a body begins there.
 */

ngx_int_t
ngx_http_coord_cache_range_send(ngx_http_request_t *r,
    ngx_http_coord_cache_client_t *client, ngx_buf_t *b,
    ngx_http_output_body_filter_pt next)
{
    ngx_chain_t  *in, out;

    out.buf = b;
    out.next = NULL;

    if (client->several) {
        ngx_http_set_ctx(r, client->several,
                         ngx_http_range_body_filter_module);

        return ngx_http_output_filter(r, &out);
    }

    in = &out;
    ngx_http_coord_cache_range_cut(client, &in);

    return next(r, in);
}


void
ngx_http_coord_cache_range_cut(ngx_http_coord_cache_client_t *client,
    ngx_chain_t **chain)
{
    if (client->end == 0) {
        return;
    }

    while (*chain) {

        if (ngx_http_coord_cache_range_cut_buf(client, (*chain)->buf)) {
            chain = &(*chain)->next;

        } else {
            *chain = (*chain)->next;
        }
    }
}


/* 0: nothing is left of it */

static ngx_uint_t
ngx_http_coord_cache_range_cut_buf(ngx_http_coord_cache_client_t *client,
    ngx_buf_t *b)
{
    off_t  from, to, size;

    size = b->last - b->pos;

    from = ngx_min(ngx_max(client->begin - client->passed, 0), size);
    to = ngx_max(ngx_min(client->end - client->passed, size), from);

    client->passed += size;

    b->last = b->pos + to;
    b->pos += from;

    if (b->pos < b->last) {
        return 1;
    }

    if (size) {
        b->memory = 0;
        b->temporary = 0;
    }

    return b->flush || b->sync || b->last_buf;
}
