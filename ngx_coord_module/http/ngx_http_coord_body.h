
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The body of a request, before the content phase: reading it, values that
 * hold it, and its digest, wherever it lies.
 */


#ifndef _NGX_HTTP_COORD_BODY_H_INCLUDED_
#define _NGX_HTTP_COORD_BODY_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>
#include "ngx_coord_key.h"


/* a digest under way; zeroed at first */
typedef struct {
    ngx_coord_hash_t          *hash;
    ngx_chain_t               *cl;            /* what comes next */
    off_t                      offset;        /* within its file */
    off_t                      seen;          /* bytes, as they came */
    unsigned                   follows:1;     /* it is read just now */
    unsigned                   done:1;        /* digest is valid */
    u_char                     digest[NGX_COORD_DIGEST_LEN];
} ngx_http_coord_body_t;


/* 1 if a stage in the location wants the body, which is that of the client */
#define ngx_http_coord_wants_body(r, lcf, stage)                              \
    ((lcf)->body && (r) == (r)->main && (stage) == NGX_HTTP_COORD_PRECONTENT)

/*
 * Reads the body of the main request r if nobody has done so.  NGX_OK: it is
 * there; NGX_DONE: the phases run again when it is, the request may be gone;
 * NGX_DECLINED: it was sent to an upstream without buffering, nothing is left
 * of it; or a status.
 */
ngx_int_t ngx_http_coord_body_read(ngx_http_request_t *r);

/* a body in a file, as it was before it was shown in memory */
typedef struct {
    ngx_http_request_body_t    saved;
    ngx_chain_t                cl;
    ngx_buf_t                  buf;
    ngx_uint_t                 shown;
} ngx_http_coord_body_shown_t;

/*
 * Has $request_body hold the body, which has been read, also where it lies in
 * a file, until ngx_http_coord_body_hide(); what has been seen of it may be
 * pointed to as long as the request lives.  NGX_ERROR: no memory, or the file
 * cannot be read.
 */
ngx_int_t ngx_http_coord_body_show(ngx_http_request_t *r,
    ngx_http_coord_body_shown_t *shown);
void ngx_http_coord_body_hide(ngx_http_request_t *r,
    ngx_http_coord_body_shown_t *shown);

/*
 * A complex value; used: it may use $request_body, which then holds the body
 * also where it lies in a file, in the request's pool.  NGX_ERROR: no memory,
 * or the file cannot be read.
 */
ngx_int_t ngx_http_coord_body_value(ngx_http_request_t *r,
    ngx_http_complex_value_t *cv, ngx_uint_t used, ngx_str_t *value);

/*
 * Has the digest of a body that has not been read yet go along with its
 * reading, if the caller's filter of request bodies hands on what comes.
 * NGX_ERROR: no memory, or OpenSSL failed.
 */
ngx_int_t ngx_http_coord_body_follow(ngx_http_request_t *r,
    ngx_http_coord_body_t *body);

/* for that filter: what has come, if the digest goes along */
void ngx_http_coord_body_seen(ngx_http_coord_body_t *body, ngx_chain_t *in);

/*
 * Digests the body, which has been read, up to bytes of it at a time.  NGX_OK:
 * body->digest is its SHA-256; NGX_AGAIN: there is more, call again in another
 * turn of the event loop; NGX_ERROR: no memory, or the file cannot be read.
 */
ngx_int_t ngx_http_coord_body_digest(ngx_http_request_t *r,
    ngx_http_coord_body_t *body, off_t bytes);

/* releases a digest that is not wanted any more */
void ngx_http_coord_body_free(ngx_http_coord_body_t *body);

/*
 * For a configuration: 1 unless all variables of a text are known not to look
 * at the body.
 */
ngx_uint_t ngx_http_coord_body_used(ngx_str_t *text);


#endif /* _NGX_HTTP_COORD_BODY_H_INCLUDED_ */
