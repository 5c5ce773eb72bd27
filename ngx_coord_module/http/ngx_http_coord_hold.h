
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * A response that is kept back until something else is certain: its header is
 * not sent, and what follows of its body waits with it, as for a client that
 * reads nothing.
 *
 *   NONE -> KEPT -> SENT
 *   NONE -> KEPT -> NONE        another response has taken its place
 */


#ifndef _NGX_HTTP_COORD_HOLD_H_INCLUDED_
#define _NGX_HTTP_COORD_HOLD_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>


typedef enum {
    NGX_HTTP_COORD_HOLD_NONE = 0,
    NGX_HTTP_COORD_HOLD_KEPT,
    NGX_HTTP_COORD_HOLD_SENT
} ngx_http_coord_hold_e;


/* zeroed at first; in the pool of its request, which is a main request */
typedef struct {
    ngx_http_coord_hold_e              state;
    ngx_http_request_t                *request;
    ngx_chain_t                       *first;   /* of the body, so far */
    ngx_chain_t                      **last;

    /* the caller's, before the start: where the response goes on */
    ngx_http_output_header_filter_pt   next_header;
    ngx_http_output_body_filter_pt     next_body;
} ngx_http_coord_hold_t;


/*
 * 1 if the response of r can be kept back, asked by a header filter.  Not so
 * what ends HTTP, after whose header the upstream writes to the connection
 * itself; a 1xx that nginx takes for a response; one whose header has left; and
 * that of a subrequest or of post_action, which has no header of its own.
 */
ngx_uint_t ngx_http_coord_hold_can(ngx_http_request_t *r);

/* keeps the response of r back; for a header filter, which returns NGX_OK */
void ngx_http_coord_hold_keep(ngx_http_request_t *r,
    ngx_http_coord_hold_t *hold);

/*
 * For the body filter of the same module: takes in while the response is kept,
 * and passes it on otherwise.  Returns what a body filter returns.
 */
ngx_int_t ngx_http_coord_hold_body(ngx_http_request_t *r,
    ngx_http_coord_hold_t *hold, ngx_chain_t *in);

/*
 * Sends what is kept, and has the request go on.  Only from a posted event or
 * a timer; the request may be gone when this returns.
 */
void ngx_http_coord_hold_release(ngx_http_coord_hold_t *hold);

/* forgets what is kept: another response is about to be sent */
void ngx_http_coord_hold_drop(ngx_http_coord_hold_t *hold);


#endif /* _NGX_HTTP_COORD_HOLD_H_INCLUDED_ */
