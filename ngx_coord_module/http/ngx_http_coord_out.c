
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Text in a chain of buffers: JSON, HTML, Prometheus.
 */


#include "ngx_http_coord.h"
#include "ngx_http_coord_out.h"


#define NGX_HTTP_COORD_OUT_BUFFER  4096
#define NGX_HTTP_COORD_OUT_PRINT   512


/* how a status is called in a problem document */
typedef struct {
    ngx_uint_t                 status;
    ngx_str_t                  title;
} ngx_http_coord_out_problem_t;


static ngx_int_t ngx_http_coord_out_grow(ngx_http_coord_out_t *out);
static void ngx_http_coord_json_name(ngx_http_coord_out_t *out,
    const char *name);
static void ngx_http_coord_json_escape(ngx_http_coord_out_t *out,
    const ngx_str_t *s);


static const ngx_http_coord_out_problem_t  ngx_http_coord_out_problems[] = {
    { NGX_HTTP_BAD_REQUEST, ngx_string("Bad Request") },
    { NGX_HTTP_FORBIDDEN, ngx_string("Forbidden") },
    { NGX_HTTP_NOT_FOUND, ngx_string("Not Found") },
    { NGX_HTTP_NOT_ALLOWED, ngx_string("Method Not Allowed") },
    { NGX_HTTP_REQUEST_URI_TOO_LARGE, ngx_string("URI Too Long") },
    { NGX_HTTP_SERVICE_UNAVAILABLE, ngx_string("Service Unavailable") },
    { 0, ngx_null_string }
};


void
ngx_http_coord_out_init(ngx_http_coord_out_t *out, ngx_pool_t *pool)
{
    ngx_memzero(out, sizeof(ngx_http_coord_out_t));

    out->pool = pool;
}


void
ngx_http_coord_out(ngx_http_coord_out_t *out, const void *data, size_t len)
{
    size_t         n;
    ngx_buf_t     *b;
    const u_char  *p;

    p = data;

    while (len && !out->failed) {

        if (out->last == NULL
            || out->last->buf->last == out->last->buf->end)
        {
            if (ngx_http_coord_out_grow(out) != NGX_OK) {
                out->failed = 1;
                return;
            }
        }

        b = out->last->buf;
        n = ngx_min(len, (size_t) (b->end - b->last));

        b->last = ngx_cpymem(b->last, p, n);

        p += n;
        len -= n;
        out->size += n;
    }
}


static ngx_int_t
ngx_http_coord_out_grow(ngx_http_coord_out_t *out)
{
    ngx_chain_t  *cl;

    cl = ngx_alloc_chain_link(out->pool);
    if (cl == NULL) {
        return NGX_ERROR;
    }

    cl->buf = ngx_create_temp_buf(out->pool, NGX_HTTP_COORD_OUT_BUFFER);
    if (cl->buf == NULL) {
        return NGX_ERROR;
    }

    cl->next = NULL;

    if (out->last) {
        out->last->next = cl;

    } else {
        out->first = cl;
    }

    out->last = cl;

    return NGX_OK;
}


void
ngx_http_coord_out_join(ngx_http_coord_out_t *out,
    ngx_http_coord_out_t *other)
{
    if (other->failed) {
        out->failed = 1;
    }

    if (other->first == NULL) {
        return;
    }

    if (out->last) {
        out->last->next = other->first;

    } else {
        out->first = other->first;
    }

    out->last = other->last;
    out->size += other->size;
    out->comma = other->comma;
}


void
ngx_http_coord_out_printf(ngx_http_coord_out_t *out, const char *fmt, ...)
{
    u_char   buf[NGX_HTTP_COORD_OUT_PRINT], *p;
    va_list  args;

    va_start(args, fmt);
    p = ngx_vslprintf(buf, buf + NGX_HTTP_COORD_OUT_PRINT, fmt, args);
    va_end(args);

    ngx_http_coord_out(out, buf, p - buf);
}


void
ngx_http_coord_json_open(ngx_http_coord_out_t *out, const char *name,
    u_char bracket)
{
    ngx_http_coord_json_name(out, name);
    ngx_http_coord_out(out, &bracket, 1);

    out->comma = 0;
}


void
ngx_http_coord_json_close(ngx_http_coord_out_t *out, u_char bracket)
{
    ngx_http_coord_out(out, &bracket, 1);

    out->comma = 1;
}


static void
ngx_http_coord_json_name(ngx_http_coord_out_t *out, const char *name)
{
    ngx_str_t  s;

    if (out->comma) {
        ngx_http_coord_out_text(out, ",");
    }

    out->comma = 1;

    if (name) {
        s.data = (u_char *) name;
        s.len = ngx_strlen(name);

        ngx_http_coord_json_escape(out, &s);
        ngx_http_coord_out_text(out, ":");
    }
}


void
ngx_http_coord_json_string(ngx_http_coord_out_t *out, const char *name,
    const ngx_str_t *value)
{
    ngx_http_coord_json_name(out, name);
    ngx_http_coord_json_escape(out, value);
}


static void
ngx_http_coord_json_escape(ngx_http_coord_out_t *out, const ngx_str_t *s)
{
    u_char    *p, *last, *start;
    uint32_t   ch;

    ngx_http_coord_out_text(out, "\"");

    p = s->data;
    last = s->data + s->len;

    while (p < last) {
        start = p;

        if (*p >= ' ' && *p < 0x7f && *p != '"' && *p != '\\') {
            p++;
            ngx_http_coord_out(out, start, 1);
            continue;
        }

        if (*p < 0x80) {
            ngx_http_coord_out_printf(out, "\\u%04xd", (u_int) *p++);
            continue;
        }

        ch = ngx_utf8_decode(&p, last - p);

        if (ch > 0x10ffff || (ch >= 0xd800 && ch <= 0xdfff)) {
            ngx_http_coord_out_text(out, "\\ufffd");
            p = start + 1;
            continue;
        }

        ngx_http_coord_out(out, start, p - start);
    }

    ngx_http_coord_out_text(out, "\"");
}


void
ngx_http_coord_json_number(ngx_http_coord_out_t *out, const char *name,
    int64_t value)
{
    ngx_http_coord_json_name(out, name);
    ngx_http_coord_out_printf(out, "%L", value);
}


void
ngx_http_coord_json_seconds(ngx_http_coord_out_t *out, const char *name,
    uint64_t usec)
{
    ngx_http_coord_json_name(out, name);
    ngx_http_coord_out_printf(out, "%uL.%06uL", usec / 1000000,
                              usec % 1000000);
}


void
ngx_http_coord_json_bool(ngx_http_coord_out_t *out, const char *name,
    ngx_uint_t value)
{
    ngx_http_coord_json_name(out, name);

    if (value) {
        ngx_http_coord_out_text(out, "true");
        return;
    }

    ngx_http_coord_out_text(out, "false");
}


void
ngx_http_coord_json_null(ngx_http_coord_out_t *out, const char *name)
{
    ngx_http_coord_json_name(out, name);
    ngx_http_coord_out_text(out, "null");
}


void
ngx_http_coord_out_html(ngx_http_coord_out_t *out, const ngx_str_t *s)
{
    size_t  i;

    for (i = 0; i < s->len; i++) {

        switch (s->data[i]) {

        case '<':
            ngx_http_coord_out_text(out, "&lt;");
            break;

        case '>':
            ngx_http_coord_out_text(out, "&gt;");
            break;

        case '&':
            ngx_http_coord_out_text(out, "&amp;");
            break;

        case '"':
            ngx_http_coord_out_text(out, "&quot;");
            break;

        default:
            ngx_http_coord_out(out, &s->data[i], 1);
            break;
        }
    }
}


void
ngx_http_coord_out_label(ngx_http_coord_out_t *out, const ngx_str_t *s)
{
    size_t  i;

    for (i = 0; i < s->len; i++) {

        switch (s->data[i]) {

        case '"':
            ngx_http_coord_out_text(out, "\\\"");
            break;

        case '\\':
            ngx_http_coord_out_text(out, "\\\\");
            break;

        case LF:
            ngx_http_coord_out_text(out, "\\n");
            break;

        default:
            ngx_http_coord_out(out, &s->data[i], 1);
            break;
        }
    }
}


ngx_int_t
ngx_http_coord_out_send(ngx_http_request_t *r, ngx_http_coord_out_t *out,
    ngx_uint_t status, ngx_str_t *type)
{
    ngx_int_t  rc;
    ngx_str_t  value;

    if (out->failed || out->last == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ngx_str_set(&value, "no-store");

    if (ngx_http_coord_out_header(r, "Cache-Control", &value) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ngx_str_set(&value, "nosniff");

    if (ngx_http_coord_out_header(r, "X-Content-Type-Options", &value)
        != NGX_OK)
    {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    out->last->buf->last_buf = (r == r->main) ? 1 : 0;
    out->last->buf->last_in_chain = 1;

    r->headers_out.status = status;
    r->headers_out.content_length_n = out->size;
    r->headers_out.content_type = *type;
    r->headers_out.content_type_len = type->len;
    r->headers_out.content_type_lowcase = NULL;

    rc = ngx_http_send_header(r);

    if (rc == NGX_ERROR || rc > NGX_OK || r->header_only) {
        return rc;
    }

    return ngx_http_output_filter(r, out->first);
}


ngx_int_t
ngx_http_coord_out_header(ngx_http_request_t *r, const char *name,
    const ngx_str_t *value)
{
    ngx_table_elt_t  *h;

    h = ngx_list_push(&r->headers_out.headers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    h->hash = 1;
    h->key.data = (u_char *) name;
    h->key.len = ngx_strlen(name);
    h->value = *value;

#if (nginx_version >= 1023000)
    h->next = NULL;
#endif

    return NGX_OK;
}


ngx_int_t
ngx_http_coord_out_problem(ngx_http_request_t *r, ngx_uint_t status,
    const char *detail)
{
    ngx_http_coord_problem_t             problem;
    const ngx_http_coord_out_problem_t  *p;

    for (p = ngx_http_coord_out_problems; p->status != status; p++) {
        if (p->status == 0) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }
    }

    ngx_memzero(&problem, sizeof(ngx_http_coord_problem_t));

    problem.status = status;
    problem.title = p->title;

    ngx_str_set(&problem.type, "about:blank");

    if (detail) {
        problem.detail.data = (u_char *) detail;
        problem.detail.len = ngx_strlen(detail);
    }

    return ngx_http_coord_problem(r, &problem);
}


ngx_int_t
ngx_http_coord_out_not_allowed(ngx_http_request_t *r, const char *methods)
{
    ngx_str_t  value;

    value.data = (u_char *) methods;
    value.len = ngx_strlen(methods);

    if (ngx_http_coord_out_header(r, "Allow", &value) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_http_coord_out_problem(r, NGX_HTTP_NOT_ALLOWED, NULL);
}
