
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * A response that is to be kept has to be a whole one: what the client has
 * asked of it beyond that is taken out of the request.
 */


#include "ngx_http_coord_capture.h"


static void ngx_http_coord_capture_remove(ngx_http_request_t *r,
    const char *name);
static void ngx_http_coord_capture_cut(ngx_http_request_t *r,
    ngx_list_part_t *part, ngx_uint_t i);
static void ngx_http_coord_capture_unlink(ngx_list_t *headers,
    ngx_list_part_t *prev, ngx_list_part_t *part);


void
ngx_http_coord_capture_whole(ngx_http_request_t *r)
{
    /* what nginx looks at, in what it serves itself, from a cache as well */

    r->disable_not_modified = 1;

    r->headers_in.range = NULL;
    r->headers_in.if_range = NULL;
    r->headers_in.if_modified_since = NULL;
    r->headers_in.if_unmodified_since = NULL;
    r->headers_in.if_match = NULL;
    r->headers_in.if_none_match = NULL;

    ngx_http_coord_capture_remove(r, "range");
    ngx_http_coord_capture_remove(r, "if-range");

    if (r->method != NGX_HTTP_GET) {

        /* an upstream may be asked for a change under a condition */

        return;
    }

    ngx_http_coord_capture_remove(r, "if-modified-since");
    ngx_http_coord_capture_remove(r, "if-unmodified-since");
    ngx_http_coord_capture_remove(r, "if-match");
    ngx_http_coord_capture_remove(r, "if-none-match");
}


/* takes all lines of a field out of the request */

static void
ngx_http_coord_capture_remove(ngx_http_request_t *r, const char *name)
{
    size_t            len;
    ngx_uint_t        i;
    ngx_list_part_t  *part, *prev;
    ngx_table_elt_t  *h;

    len = ngx_strlen(name);
    prev = NULL;

    for (part = &r->headers_in.headers.part; part; part = part->next) {
        h = part->elts;

        for (i = part->nelts; i-- > 0; /* void */ ) {

            if (h[i].key.len == len
                && ngx_strncmp(h[i].lowcase_key, name, len) == 0)
            {
                ngx_http_coord_capture_cut(r, part, i);
            }
        }

        if (part->nelts == 0 && prev) {
            ngx_http_coord_capture_unlink(&r->headers_in.headers, prev, part);

        } else {
            prev = part;
        }
    }
}


/* the others are pointed to, and stay where they are */

static void
ngx_http_coord_capture_cut(ngx_http_request_t *r, ngx_list_part_t *part,
    ngx_uint_t i)
{
    ngx_list_t       *headers;
    ngx_list_part_t  *rest;
    ngx_table_elt_t  *h;

    h = part->elts;
    headers = &r->headers_in.headers;

    if (i == part->nelts - 1) {
        part->nelts--;
        return;
    }

    rest = ngx_palloc(r->pool, sizeof(ngx_list_part_t));
    if (rest == NULL) {
        return;
    }

    rest->elts = &h[i + 1];
    rest->nelts = part->nelts - i - 1;
    rest->next = part->next;

    part->nelts = i;
    part->next = rest;

    if (headers->last == part) {
        headers->last = rest;
        headers->nalloc -= i + 1;
    }
}


/* who walks a list takes any part but the first one for one with elements */

static void
ngx_http_coord_capture_unlink(ngx_list_t *headers, ngx_list_part_t *prev,
    ngx_list_part_t *part)
{
    prev->next = part->next;

    if (headers->last == part) {
        headers->last = prev;
        headers->nalloc = ngx_max(prev->nelts, 1);
    }
}
