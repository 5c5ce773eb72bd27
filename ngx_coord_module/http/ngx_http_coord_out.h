
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Text of unknown length as a chain of buffers of one size, taken from the
 * request's pool while it grows.
 */


#ifndef _NGX_HTTP_COORD_OUT_H_INCLUDED_
#define _NGX_HTTP_COORD_OUT_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>


typedef struct {
    ngx_pool_t                *pool;
    ngx_chain_t               *first;
    ngx_chain_t               *last;
    off_t                      size;         /* bytes in the chain */
    unsigned                   comma:1;      /* JSON: not the first member */
    unsigned                   failed:1;     /* no memory: sent as 500 */
} ngx_http_coord_out_t;


/* an empty text; its buffers come from pool, which has to outlive the chain */
void ngx_http_coord_out_init(ngx_http_coord_out_t *out, ngx_pool_t *pool);

/* adds bytes as they are */
void ngx_http_coord_out(ngx_http_coord_out_t *out, const void *data,
    size_t len);

#define ngx_http_coord_out_str(out, s)                                        \
    ngx_http_coord_out(out, (s)->data, (s)->len)

#define ngx_http_coord_out_text(out, text)                                    \
    ngx_http_coord_out(out, (u_char *) text, sizeof(text) - 1)

/* moves all of another text to the end */
void ngx_http_coord_out_join(ngx_http_coord_out_t *out,
    ngx_http_coord_out_t *other);

/* adds formatted text of at most 512 bytes; for numbers and short words */
void ngx_http_coord_out_printf(ngx_http_coord_out_t *out, const char *fmt,
    ...);

/*
 * JSON.  Members and elements get their commas; a string is escaped, and
 * bytes that are not UTF-8 are replaced.  name NULL: an element of an array.
 */
void ngx_http_coord_json_open(ngx_http_coord_out_t *out, const char *name,
    u_char bracket);
void ngx_http_coord_json_close(ngx_http_coord_out_t *out, u_char bracket);
void ngx_http_coord_json_string(ngx_http_coord_out_t *out, const char *name,
    const ngx_str_t *value);
void ngx_http_coord_json_number(ngx_http_coord_out_t *out, const char *name,
    int64_t value);
void ngx_http_coord_json_seconds(ngx_http_coord_out_t *out, const char *name,
    uint64_t usec);
void ngx_http_coord_json_bool(ngx_http_coord_out_t *out, const char *name,
    ngx_uint_t value);
void ngx_http_coord_json_null(ngx_http_coord_out_t *out, const char *name);

/* adds text with < > & " escaped, for HTML */
void ngx_http_coord_out_html(ngx_http_coord_out_t *out, const ngx_str_t *s);

/* adds the value of a label, for Prometheus */
void ngx_http_coord_out_label(ngx_http_coord_out_t *out, const ngx_str_t *s);

/*
 * Sends the chain as the response, with a status and a type that lives as
 * long as the request.  Not to be cached.  Returns what a content handler
 * returns.
 */
ngx_int_t ngx_http_coord_out_send(ngx_http_request_t *r,
    ngx_http_coord_out_t *out, ngx_uint_t status, ngx_str_t *type);

/* adds a response header; NGX_ERROR: no memory */
ngx_int_t ngx_http_coord_out_header(ngx_http_request_t *r, const char *name,
    const ngx_str_t *value);

/*
 * Sends a problem document of no special type, with the title that its status
 * has and, unless NULL, a detail that needs no escapes.  Returns what a
 * content handler returns; 500 for a status that has no title here.
 */
ngx_int_t ngx_http_coord_out_problem(ngx_http_request_t *r, ngx_uint_t status,
    const char *detail);

/* the same with status 405; methods: the field Allow, lives as the request */
ngx_int_t ngx_http_coord_out_not_allowed(ngx_http_request_t *r,
    const char *methods);


#endif /* _NGX_HTTP_COORD_OUT_H_INCLUDED_ */
