
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * A response that is kept while it goes to its client, and one that is sent
 * again.  Who wants it, and under which key, is for the caller: his are the
 * filters, in front of add_header, gzip and the like.
 */


#ifndef _NGX_HTTP_COORD_CAPTURE_H_INCLUDED_
#define _NGX_HTTP_COORD_CAPTURE_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>
#include "ngx_coord_record.h"
#include "ngx_http_coord_capture_state.h"


/* 1 if a field of the response is to be kept */
typedef ngx_uint_t (*ngx_http_coord_capture_keep_pt)(void *data,
    ngx_str_t *name);


/* zeroed at first; in the pool of its request, or in what lives as long */
typedef struct {
    ngx_http_coord_capture_e   state;

    /* the caller's, before the start */
    size_t                     max;           /* bytes of a body to be kept */
    ngx_uint_t                 watch;         /* 1: bytes are only counted */
    ngx_http_coord_capture_keep_pt   keep;
    void                      *data;          /* of keep() */
    ngx_http_output_body_filter_pt   next;

    /* what has been seen */
    ngx_coord_record_t         record;        /* omitted: not the body */
    ngx_array_t                fields;        /* of ngx_keyval_t */
    off_t                      received;      /* bytes of the body */
    off_t                      expected;      /* by Content-Length, or -1 */
    ngx_uint_t                 unfit;         /* fields that cannot be kept */
    ngx_chain_t               *first;         /* the body */
    ngx_chain_t               *last;
    off_t                      room;          /* bytes of these buffers */

    /* what passes if it is not kept */
    ngx_chain_t               *in;
    ngx_chain_t               *free;
    ngx_chain_t               *busy;
    ngx_uint_t                 nbufs;

    ngx_chain_t               *tail;          /* what is held back */

    unsigned                   held:1;
    unsigned                   upstream:1;    /* there it comes from */
    unsigned                   trailers:1;    /* may follow the body */
    unsigned                   named:1;       /* Connection names fields */
} ngx_http_coord_capture_t;


/* --- ngx_http_coord_capture.c: header, trailers, record --- */

/* 1 if the response of r is being read from an upstream */
ngx_uint_t ngx_http_coord_capture_live(ngx_http_request_t *r);

/*
 * 1 if subrequests bring the rest of a response whose header is that of all of
 * it (slice): only its first part passes as its own, and must not wait.
 */
ngx_uint_t ngx_http_coord_capture_sliced(ngx_http_request_t *r);

/*
 * Begins with the header of a response, for a header filter.  Fields that
 * belong to a connection are not kept, nor are those that the upstream names as
 * such.  The body will have to come in memory, and as a whole.  NGX_ERROR: no
 * memory.
 */
ngx_int_t ngx_http_coord_capture_start(ngx_http_request_t *r,
    ngx_http_coord_capture_t *capture);

/*
 * The record of a whole response, with its trailers, as bytes on the heap,
 * the caller's to free.  key and fingerprint tell whose it is.  NGX_ERROR: no
 * memory, or OpenSSL failed.
 */
ngx_int_t ngx_http_coord_capture_encode(ngx_http_request_t *r,
    ngx_http_coord_capture_t *capture, ngx_str_t *key, u_char *fingerprint,
    ngx_str_t *blob);


/* --- ngx_http_coord_capture_body.c --- */

/*
 * Takes all of in, for a body filter: buffers of an upstream end here.  What
 * is copied becomes buffers for the client in out, the rest waits within for
 * ngx_http_coord_capture_send(); if only watched, out is in.  Afterwards the
 * state tells whether this was all.  NGX_ERROR: no memory.
 */
ngx_int_t ngx_http_coord_capture_body(ngx_http_request_t *r,
    ngx_http_coord_capture_t *capture, ngx_chain_t *in, ngx_chain_t **out);

/*
 * Sends out and what waits, unless it is held back; returns what a body filter
 * returns.
 */
ngx_int_t ngx_http_coord_capture_send(ngx_http_request_t *r,
    ngx_http_coord_capture_t *capture, ngx_chain_t *out);

/*
 * Sends what a subrequest of r->main has, to next: what is captured of the
 * response that it is a part of, and waits, is not its own.  Returns what next
 * does.
 */
ngx_int_t ngx_http_coord_capture_beside(ngx_http_request_t *r,
    ngx_http_output_body_filter_pt next, ngx_chain_t *in);

/*
 * Holds back what is still to be sent of a response that has come whole, until
 * ngx_http_coord_capture_release(): the client is not to have the end of it
 * before the caller says so.  Released from an event, not from a filter.
 */
void ngx_http_coord_capture_hold(ngx_http_coord_capture_t *capture);
void ngx_http_coord_capture_release(ngx_http_request_t *r,
    ngx_http_coord_capture_t *capture);

/* nobody reads what waits, or is still to come */
void ngx_http_coord_capture_drop(ngx_http_request_t *r,
    ngx_http_coord_capture_t *capture);

/* no body will come: the header was all */
void ngx_http_coord_capture_header_only(ngx_http_coord_capture_t *capture);


/* --- ngx_http_coord_capture_whole.c --- */

/*
 * Takes Range and conditions out of the request, which has not run yet, so that
 * its response is a whole one.  The conditions of a GET only go to no upstream.
 */
void ngx_http_coord_capture_whole(ngx_http_request_t *r);


/* --- ngx_http_coord_replay.c --- */

/*
 * Sends a decoded record through the output filters, with one more field,
 * mark; its bytes must live as long as the request.  Returns what a content
 * handler returns.
 */
ngx_int_t ngx_http_coord_replay(ngx_http_request_t *r,
    ngx_coord_record_t *record, ngx_keyval_t *mark);

/* the same for a cache: Range and conditions of the request apply to it */
ngx_int_t ngx_http_coord_replay_cached(ngx_http_request_t *r,
    ngx_coord_record_t *record, ngx_keyval_t *mark);

/* makes r->headers_out that of a record, which is not sent; the same mark */
ngx_int_t ngx_http_coord_replay_header(ngx_http_request_t *r,
    ngx_coord_record_t *record, ngx_keyval_t *mark);

/*
 * Fields, of ngx_keyval_t, in place of those of the same names in
 * r->headers_out, or beside the others; their bytes must live as long as the
 * request.  NGX_ERROR: no memory.
 */
ngx_int_t ngx_http_coord_replay_update(ngx_http_request_t *r,
    ngx_array_t *fields);


#endif /* _NGX_HTTP_COORD_CAPTURE_H_INCLUDED_ */
