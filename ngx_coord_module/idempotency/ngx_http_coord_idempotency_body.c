
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The request body: reading it before the content phase, and digesting it
 * wherever it lies.
 */


#include "ngx_http_coord_idempotency.h"


#define NGX_HTTP_COORD_BODY_CHUNK  16384


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

        state = ctx->state[NGX_HTTP_COORD_IDEMPOTENCY];

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
