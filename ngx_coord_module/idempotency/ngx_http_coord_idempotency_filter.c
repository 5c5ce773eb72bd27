
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_idempotency: the filters, in front of add_header, gzip and the like.
 * They see the response, capture it, and tell the run what it means.
 */


#include "ngx_http_coord_idempotency.h"


static ngx_int_t ngx_http_coord_idempotency_header_filter(
    ngx_http_request_t *r);
static ngx_int_t ngx_http_coord_idempotency_request_filter(
    ngx_http_request_t *r, ngx_chain_t *in);
static ngx_int_t ngx_http_coord_idempotency_begin_capture(
    ngx_http_request_t *r, ngx_http_coord_idempotency_t *run);
static ngx_int_t ngx_http_coord_idempotency_send_header(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *run);
static ngx_int_t ngx_http_coord_idempotency_body_filter(ngx_http_request_t *r,
    ngx_chain_t *in);
static void ngx_http_coord_idempotency_seen(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *run);
static ngx_int_t ngx_http_coord_idempotency_trailers(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *run);
static ngx_int_t ngx_http_coord_idempotency_meaning(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *run);
static ngx_uint_t ngx_http_coord_idempotency_storable(
    ngx_http_coord_idempotency_conf_t *icf, ngx_uint_t status);
static ngx_uint_t ngx_http_coord_idempotency_stream(ngx_http_request_t *r);
static ngx_uint_t ngx_http_coord_idempotency_keep(void *data,
    ngx_str_t *name);
static ngx_uint_t ngx_http_coord_idempotency_listed(ngx_array_t *names,
    ngx_str_t *name);


/* never stored, unless passed: of this transfer, or of this client */

static const ngx_str_t  ngx_http_coord_idempotency_hidden[] = {
    ngx_string("date"),
    ngx_string("idempotency-replayed"),
    ngx_string("server"),
    ngx_string("set-cookie"),
    ngx_string("set-cookie2"),
    ngx_null_string
};


/* the same request may do better later: released in spite of 4xx */

static const ngx_uint_t  ngx_http_coord_idempotency_again[] = {
    401, 403, 407, 408, 409, 423, 425, 429, 0
};


static ngx_http_output_header_filter_pt  ngx_http_next_header_filter;
static ngx_http_output_body_filter_pt    ngx_http_next_body_filter;
static ngx_http_request_body_filter_pt   ngx_http_next_request_body_filter;


ngx_int_t
ngx_http_coord_idempotency_filter_init(ngx_conf_t *cf)
{
    ngx_http_next_header_filter = ngx_http_top_header_filter;
    ngx_http_top_header_filter = ngx_http_coord_idempotency_header_filter;

    ngx_http_next_body_filter = ngx_http_top_body_filter;
    ngx_http_top_body_filter = ngx_http_coord_idempotency_body_filter;

    ngx_http_next_request_body_filter = ngx_http_top_request_body_filter;
    ngx_http_top_request_body_filter =
                                    ngx_http_coord_idempotency_request_filter;

    return NGX_OK;
}


/* the body of a request is digested as it comes, not when all of it is there */

static ngx_int_t
ngx_http_coord_idempotency_request_filter(ngx_http_request_t *r,
    ngx_chain_t *in)
{
    ngx_http_coord_idempotency_t  *run;

    run = ngx_http_coord_run(r);

    if (run) {
        ngx_http_coord_body_seen(&run->body, in);
    }

    return ngx_http_next_request_body_filter(r, in);
}


static ngx_int_t
ngx_http_coord_idempotency_header_filter(ngx_http_request_t *r)
{
    ngx_int_t                      rc;
    ngx_http_coord_idempotency_t  *run;

    if (r != r->main) {
        return ngx_http_next_header_filter(r);
    }

    run = ngx_http_coord_run(r);

    if (run == NULL || !ngx_http_coord_running(run)) {
        return ngx_http_next_header_filter(r);
    }

    rc = ngx_http_coord_idempotency_meaning(r, run);

    ngx_log_debug2(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                   "coord idempotency outcome of %ui: %i",
                   r->headers_out.status, rc);

    if (rc != NGX_OK) {

        if (rc != NGX_AGAIN) {
            ngx_http_coord_run_end(run, rc);
        }

        /* nobody reads it, nobody stores it */

        return ngx_http_coord_run_gone(run) ? NGX_ERROR
                                            : ngx_http_next_header_filter(r);
    }

    if (ngx_http_coord_idempotency_begin_capture(r, run) != NGX_OK) {
        return NGX_ERROR;
    }

    if (ngx_http_coord_idempotency_stream(r)) {

        /* has no end to wait for when the client is gone */

        ngx_http_coord_run_unguard(run);
    }

    rc = ngx_http_coord_idempotency_send_header(r, run);

    if (r->header_only) {
        ngx_http_coord_capture_header_only(&run->capture);
        ngx_http_coord_idempotency_seen(r, run);
    }

    return rc;
}


static ngx_int_t
ngx_http_coord_idempotency_begin_capture(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *run)
{
    ngx_http_coord_capture_t  *capture;

    capture = &run->capture;

    ngx_memzero(capture, sizeof(ngx_http_coord_capture_t));

    capture->max = run->conf->max_response;
    capture->watch = run->shadow;
    capture->keep = ngx_http_coord_idempotency_keep;
    capture->data = run->conf;
    capture->next = ngx_http_next_body_filter;

    ngx_http_coord_run_set(run, NGX_COORD_RUN_KEEPING);

    return ngx_http_coord_capture_start(r, capture);
}


static ngx_int_t
ngx_http_coord_idempotency_send_header(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *run)
{
    ngx_int_t  rc;

    if (!ngx_http_coord_run_gone(run)) {

        if (r->headers_out.status == NGX_HTTP_NO_CONTENT) {
            ngx_http_coord_capture_header_only(&run->capture);
            ngx_http_coord_idempotency_seen(r, run);
        }

        rc = ngx_http_next_header_filter(r);

        if (rc != NGX_ERROR || !ngx_http_coord_run_gone(run)) {
            return rc;
        }
    }

    r->header_sent = 1;

    if (r->headers_out.status == NGX_HTTP_NO_CONTENT) {
        r->header_only = 1;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_coord_idempotency_body_filter(ngx_http_request_t *r, ngx_chain_t *in)
{
    ngx_int_t                      rc;
    ngx_chain_t                   *out;
    ngx_http_coord_capture_t      *capture;
    ngx_http_coord_idempotency_t  *run;

    if (r != r->main) {
        return ngx_http_coord_capture_beside(r, ngx_http_next_body_filter, in);
    }

    run = ngx_http_coord_run(r);

    if (run == NULL || run->capture.state == NGX_HTTP_COORD_CAPTURE_NONE) {
        return ngx_http_next_body_filter(r, in);
    }

    capture = &run->capture;

    if (run->web) {
        ngx_http_coord_idempotency_grpc_read(run, in);
    }

    if (ngx_http_coord_capture_body(r, capture, in, &out) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_http_coord_idempotency_seen(r, run);

    if (!ngx_http_coord_run_gone(run)) {
        rc = ngx_http_coord_capture_send(r, capture, out);

        if (rc != NGX_ERROR || !ngx_http_coord_run_gone(run)) {
            return rc;
        }
    }

    ngx_http_coord_capture_drop(r, capture);

    return NGX_OK;
}


/* tells the run if the response has come to its end, or will not */

static void
ngx_http_coord_idempotency_seen(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *run)
{
    switch (run->capture.state) {

    case NGX_HTTP_COORD_CAPTURE_WHOLE:
        ngx_http_coord_run_end(run,
                               ngx_http_coord_idempotency_trailers(r, run));
        break;

    case NGX_HTTP_COORD_CAPTURE_CUT:
        ngx_http_coord_run_end(run, NGX_ERROR);
        break;

    default:

        if (run->capture.upstream
            && !run->shadow
            && r->upstream->cleanup == NULL
            && !(r->buffered & NGX_HTTP_COPY_BUFFERED))
        {
            /* the upstream has ended, its response has not */

            ngx_http_coord_run_end(run, NGX_ERROR);
        }

        break;
    }
}


/* as ngx_http_coord_idempotency_meaning(), when trailers are known as well */

static ngx_int_t
ngx_http_coord_idempotency_trailers(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *run)
{
    ngx_int_t  rc;

    rc = ngx_http_coord_idempotency_grpc_end(r, run);

    if (rc != NGX_OK || !run->capture.trailers) {
        return rc;
    }

    return ngx_http_test_predicates(r, run->conf->no_store);
}


/*
 * NGX_OK: to be stored; NGX_DECLINED: the key is free; NGX_AGAIN: what is
 * passed on is no outcome; NGX_ERROR: unknown.
 */

static ngx_int_t
ngx_http_coord_idempotency_meaning(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *run)
{
    ngx_int_t   rc;
    ngx_uint_t  status;

    status = r->headers_out.status;

    if (!ngx_http_coord_capture_live(r)) {

        /* a response of nginx itself */

        rc = ngx_http_coord_idempotency_attempts(r);

        if (rc != NGX_OK) {
            return rc;
        }
    }

    if (status < 200 && status != NGX_HTTP_SWITCHING_PROTOCOLS) {

        /* what nginx takes for the response is not it */

        return NGX_AGAIN;
    }

    if (status == NGX_HTTP_PARTIAL_CONTENT
        || status == NGX_HTTP_NOT_MODIFIED)
    {
        /* nobody has asked for it */

        return NGX_ERROR;
    }

    if (ngx_http_coord_capture_sliced(r)) {

        /* it cannot be kept; what is safe may run again */

        return (r->method == NGX_HTTP_GET) ? NGX_DECLINED : NGX_ERROR;
    }

    if (status > 599
        || !ngx_http_coord_idempotency_storable(run->conf, status))
    {
        return NGX_DECLINED;
    }

    rc = ngx_http_test_predicates(r, run->conf->no_store);

    if (rc != NGX_OK) {
        return rc;
    }

    return ngx_http_coord_idempotency_grpc_begin(r, run);
}


ngx_int_t
ngx_http_coord_idempotency_attempts(ngx_http_request_t *r)
{
    ngx_uint_t                  i, tried, sent;
    ngx_http_upstream_state_t  *u;

    if (r->upstream_states == NULL) {
        return NGX_OK;
    }

    tried = 0;
    sent = 0;
    u = r->upstream_states->elts;

    for (i = 0; i < r->upstream_states->nelts; i++) {

        if (u[i].peer == NULL) {
            continue;
        }

        if (u[i].header_time != (ngx_msec_t) -1) {
            return NGX_OK;
        }

        tried = 1;
        sent |= (u[i].bytes_sent > 0);
    }

    if (!tried) {
        return NGX_OK;
    }

    return sent ? NGX_ERROR : NGX_DECLINED;
}


static ngx_uint_t
ngx_http_coord_idempotency_storable(ngx_http_coord_idempotency_conf_t *icf,
    ngx_uint_t status)
{
    ngx_uint_t                          i, class;
    ngx_http_coord_idempotency_code_t  *code;

    class = 0;

    if (icf->store_status == NULL) {
        class = (status >= 200 && status < 500);

    } else {
        code = icf->store_status->elts;

        for (i = 0; i < icf->store_status->nelts; i++) {

            if (code[i] == status) {
                return 1;
            }

            class |= (code[i] == status / 100);
        }
    }

    for (i = 0; class && ngx_http_coord_idempotency_again[i]; i++) {
        if (ngx_http_coord_idempotency_again[i] == status) {
            return 0;
        }
    }

    return class;
}


static ngx_uint_t
ngx_http_coord_idempotency_stream(ngx_http_request_t *r)
{
    return r->headers_out.content_type.len >= sizeof("text/event-stream") - 1
           && ngx_strncasecmp(r->headers_out.content_type.data,
                              (u_char *) "text/event-stream",
                              sizeof("text/event-stream") - 1)
              == 0;
}


/* a ngx_http_coord_capture_keep_pt */

static ngx_uint_t
ngx_http_coord_idempotency_keep(void *data, ngx_str_t *name)
{
    ngx_http_coord_idempotency_conf_t *icf = data;

    const ngx_str_t  *hidden;

    if (ngx_http_coord_idempotency_listed(icf->hide, name)) {
        return 0;
    }

    for (hidden = ngx_http_coord_idempotency_hidden; hidden->len; hidden++) {
        if (hidden->len == name->len
            && ngx_strncasecmp(hidden->data, name->data, name->len) == 0)
        {
            return ngx_http_coord_idempotency_listed(icf->pass, name);
        }
    }

    return 1;
}


static ngx_uint_t
ngx_http_coord_idempotency_listed(ngx_array_t *names, ngx_str_t *name)
{
    ngx_str_t   *s;
    ngx_uint_t   i;

    if (names == NULL) {
        return 0;
    }

    s = names->elts;

    for (i = 0; i < names->nelts; i++) {
        if (s[i].len == name->len
            && ngx_strncasecmp(s[i].data, name->data, name->len) == 0)
        {
            return 1;
        }
    }

    return 0;
}
