
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The request: reading its body before the content phase, digesting it
 * wherever it lies, and what is taken out before it runs.
 */


#include "ngx_http_coord_idempotency.h"


#define NGX_HTTP_COORD_BODY_CHUNK  16384


static void ngx_http_coord_idempotency_remove(ngx_http_request_t *r,
    const char *name);
static void ngx_http_coord_idempotency_cut(ngx_http_request_t *r,
    ngx_list_part_t *part, ngx_uint_t i);
static void ngx_http_coord_idempotency_body_handler(ngx_http_request_t *r);
static ngx_int_t ngx_http_coord_idempotency_digest_body(ngx_http_request_t *r);
static ngx_int_t ngx_http_coord_idempotency_digest_file(ngx_buf_t *b);


ngx_int_t
ngx_http_coord_idempotency_read(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx)
{
    ngx_int_t                      rc;
    ngx_http_coord_idempotency_t  *state;

    /* client_body_early_read, or what an error_page has left behind */

    if (r->request_body && (r->request_body_no_buffering || r->reading_body)) {
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "idempotency: the body was sent to an upstream without "
                      "buffering, nothing is left of it");

        state = ctx->state[ngx_http_coord_idempotency_feature.slot];

        return state->shadow ? NGX_DECLINED
                             : NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (r->request_body || r->discard_body) {
        r->preserve_body = 1;
        return NGX_OK;
    }

    rc = ngx_http_read_client_request_body(r,
                                     ngx_http_coord_idempotency_body_handler);

    if (rc >= NGX_HTTP_SPECIAL_RESPONSE) {
        return rc;
    }

    ngx_http_finalize_request(r, NGX_DONE);

    return NGX_DONE;
}


static void
ngx_http_coord_idempotency_body_handler(ngx_http_request_t *r)
{
    r->preserve_body = 1;

    r->write_event_handler = ngx_http_core_run_phases;
    ngx_http_core_run_phases(r);
}


void
ngx_http_coord_idempotency_whole(ngx_http_request_t *r)
{
    r->disable_not_modified = 1;

    r->headers_in.range = NULL;
    r->headers_in.if_range = NULL;

    ngx_http_coord_idempotency_remove(r, "range");
    ngx_http_coord_idempotency_remove(r, "if-range");

    if (r->method != NGX_HTTP_GET) {

        /* a change may be asked for under a condition */

        return;
    }

    r->headers_in.if_modified_since = NULL;
    r->headers_in.if_unmodified_since = NULL;
    r->headers_in.if_match = NULL;
    r->headers_in.if_none_match = NULL;

    ngx_http_coord_idempotency_remove(r, "if-modified-since");
    ngx_http_coord_idempotency_remove(r, "if-unmodified-since");
    ngx_http_coord_idempotency_remove(r, "if-match");
    ngx_http_coord_idempotency_remove(r, "if-none-match");
}


/* takes all lines of a field out of the request */

static void
ngx_http_coord_idempotency_remove(ngx_http_request_t *r, const char *name)
{
    size_t            len;
    ngx_uint_t        i;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h;

    len = ngx_strlen(name);

    for (part = &r->headers_in.headers.part; part; part = part->next) {
        h = part->elts;

        for (i = part->nelts; i-- > 0; /* void */ ) {

            if (h[i].key.len == len
                && ngx_strncmp(h[i].lowcase_key, name, len) == 0)
            {
                ngx_http_coord_idempotency_cut(r, part, i);
            }
        }
    }
}


/* the others are pointed to, and stay where they are */

static void
ngx_http_coord_idempotency_cut(ngx_http_request_t *r, ngx_list_part_t *part,
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


ngx_int_t
ngx_http_coord_idempotency_digest(ngx_http_request_t *r, ngx_uint_t type,
    u_char *digest)
{
    ngx_str_t  empty;

    ngx_str_null(&empty);

    if (ngx_coord_digest_init() != NGX_OK
        || ngx_coord_digest_field(&r->method_name) != NGX_OK
        || ngx_coord_digest_field(&r->headers_in.server) != NGX_OK
        || ngx_coord_digest_field(&r->unparsed_uri) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (type
        && ngx_coord_digest_field(r->headers_in.content_type
                                  ? &r->headers_in.content_type->value
                                  : &empty)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    /* the body is the last field and needs no length */

    if (ngx_http_coord_idempotency_digest_body(r) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_coord_digest_final(digest);
}


static ngx_int_t
ngx_http_coord_idempotency_digest_body(ngx_http_request_t *r)
{
    ngx_buf_t    *b;
    ngx_int_t     rc;
    ngx_chain_t  *cl;

    if (r->request_body == NULL) {
        return NGX_OK;
    }

    for (cl = r->request_body->bufs; cl; cl = cl->next) {
        b = cl->buf;

        if (ngx_buf_in_memory(b)) {
            rc = ngx_coord_digest_update(b->pos, b->last - b->pos);

        } else if (b->in_file) {
            rc = ngx_http_coord_idempotency_digest_file(b);

        } else {
            continue;
        }

        if (rc != NGX_OK) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_coord_idempotency_digest_file(ngx_buf_t *b)
{
    u_char   buf[NGX_HTTP_COORD_BODY_CHUNK];
    off_t    offset;
    size_t   size;
    ssize_t  n;

    for (offset = b->file_pos; offset < b->file_last; offset += n) {
        size = (size_t) ngx_min(b->file_last - offset,
                                NGX_HTTP_COORD_BODY_CHUNK);

        n = ngx_read_file(b->file, buf, size, offset);

        if (n <= 0 || ngx_coord_digest_update(buf, n) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}
