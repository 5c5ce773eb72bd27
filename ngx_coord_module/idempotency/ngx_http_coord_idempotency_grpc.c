
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_idempotency: what a response of gRPC, or of gRPC-Web, says of its
 * outcome: in its header, in its trailers, or in the last frame of its body.
 */


#include "ngx_http_coord_idempotency.h"


/*
 * statuses of gRPC that are results: OK, INVALID_ARGUMENT, NOT_FOUND,
 * ALREADY_EXISTS, FAILED_PRECONDITION and OUT_OF_RANGE
 */

#define NGX_HTTP_COORD_GRPC_KEPT                                              \
    (1 << 0 | 1 << 3 | 1 << 5 | 1 << 6 | 1 << 9 | 1 << 11)


static ngx_uint_t ngx_http_coord_idempotency_is(ngx_http_request_t *r,
    const char *name);
static ngx_table_elt_t *ngx_http_coord_idempotency_grpc_field(
    ngx_list_t *headers);
static ngx_int_t ngx_http_coord_idempotency_grpc_judge(ngx_int_t status);


ngx_int_t
ngx_http_coord_idempotency_grpc_begin(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *run)
{
    ngx_uint_t        text;
    ngx_table_elt_t  *h;

    run->web = NULL;

    h = ngx_http_coord_idempotency_grpc_field(&r->headers_out.headers);

    if (h) {
        return ngx_http_coord_idempotency_grpc_judge(ngx_atoi(h->value.data,
                                                              h->value.len));
    }

    text = ngx_http_coord_idempotency_is(r, "application/grpc-web-text");

    if (!text && !ngx_http_coord_idempotency_is(r, "application/grpc-web")) {
        return NGX_OK;
    }

    run->web = ngx_pcalloc(r->pool, sizeof(ngx_coord_grpc_web_t));
    if (run->web == NULL) {
        return NGX_ERROR;
    }

    run->web->text = text;

    r->filter_need_in_memory = 1;

    return NGX_OK;
}


void
ngx_http_coord_idempotency_grpc_read(ngx_http_coord_idempotency_t *run,
    ngx_chain_t *in)
{
    ngx_buf_t  *b;

    for ( /* void */ ; in; in = in->next) {
        b = in->buf;

        if (ngx_buf_in_memory(b)) {
            ngx_coord_grpc_web_read(run->web, b->pos, b->last - b->pos);
        }
    }
}


ngx_int_t
ngx_http_coord_idempotency_grpc_end(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *run)
{
    ngx_table_elt_t  *h;

    if (run->web && ngx_coord_grpc_web_status(run->web) == NGX_OK) {
        return ngx_http_coord_idempotency_grpc_judge(run->web->status);
    }

    h = ngx_http_coord_idempotency_grpc_field(&r->headers_out.trailers);

    if (h == NULL) {
        h = ngx_http_coord_idempotency_grpc_field(&r->headers_out.headers);
    }

    if (h) {
        return ngx_http_coord_idempotency_grpc_judge(ngx_atoi(h->value.data,
                                                              h->value.len));
    }

    return (run->web || ngx_http_coord_idempotency_is(r, "application/grpc"))
           ? NGX_ERROR : NGX_OK;
}


/* 1 if the media type is that, also with a suffix or parameters */

static ngx_uint_t
ngx_http_coord_idempotency_is(ngx_http_request_t *r, const char *name)
{
    size_t      len;
    u_char      ch;
    ngx_str_t  *type;

    type = &r->headers_out.content_type;
    len = ngx_strlen(name);

    if (type->len < len
        || ngx_strncasecmp(type->data, (u_char *) name, len) != 0)
    {
        return 0;
    }

    if (type->len == len) {
        return 1;
    }

    ch = type->data[len];

    return ch == '+' || ch == ';' || ch == ' ';
}


static ngx_table_elt_t *
ngx_http_coord_idempotency_grpc_field(ngx_list_t *headers)
{
    ngx_uint_t        i;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h;

    part = &headers->part;
    h = part->elts;

    for (i = 0; /* void */ ; i++) {

        if (i >= part->nelts) {
            if (part->next == NULL) {
                return NULL;
            }

            part = part->next;
            h = part->elts;
            i = 0;
        }

        if (h[i].key.len == sizeof("grpc-status") - 1
            && ngx_strncasecmp(h[i].key.data, (u_char *) "grpc-status",
                               h[i].key.len)
               == 0)
        {
            return &h[i];
        }
    }
}


/* NGX_DECLINED: the same request may do better later */

static ngx_int_t
ngx_http_coord_idempotency_grpc_judge(ngx_int_t status)
{
    if (status < 0 || status >= 32) {
        return NGX_DECLINED;
    }

    return (NGX_HTTP_COORD_GRPC_KEPT & ((uint32_t) 1 << status))
           ? NGX_OK : NGX_DECLINED;
}
