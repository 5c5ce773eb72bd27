
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * A response that is kept back.  To nginx it is one whose client reads slowly:
 * r->buffered keeps the request, a delayed write event keeps whoever reads an
 * upstream from trying again and again, and its buffers stay as they are.
 */


#include "ngx_http_coord_hold.h"


/* a bit of r->buffered that nginx itself does not use for requests */
#define NGX_HTTP_COORD_BUFFERED  0x08


static void ngx_http_coord_hold_end(ngx_http_coord_hold_t *hold,
    ngx_http_coord_hold_e state);
static ngx_int_t ngx_http_coord_hold_send(ngx_http_coord_hold_t *hold);


ngx_uint_t
ngx_http_coord_hold_can(ngx_http_request_t *r)
{
    return r == r->main
           && !r->header_sent
           && !r->post_action
           && r->headers_out.status >= NGX_HTTP_OK
           && !(r->upstream && r->upstream->upgrade);
}


void
ngx_http_coord_hold_keep(ngx_http_request_t *r, ngx_http_coord_hold_t *hold)
{
    ngx_log_debug0(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                   "coord keeps response back");

    hold->state = NGX_HTTP_COORD_HOLD_KEPT;
    hold->request = r;
    hold->first = NULL;
    hold->last = &hold->first;

    /* what the filters behind would have told the sender of the body */

    if (r->method == NGX_HTTP_HEAD
        || r->headers_out.status == NGX_HTTP_NO_CONTENT
        || r->headers_out.status == NGX_HTTP_NOT_MODIFIED)
    {
        r->header_only = 1;
    }

    r->allow_ranges = 0;

    /* they cannot tell the copy filter any more */
    r->filter_need_in_memory = 1;

    r->buffered |= NGX_HTTP_COORD_BUFFERED;
    r->connection->write->delayed = 1;
}


ngx_int_t
ngx_http_coord_hold_body(ngx_http_request_t *r, ngx_http_coord_hold_t *hold,
    ngx_chain_t *in)
{
    ngx_chain_t  *cl;

    if (hold->state == NGX_HTTP_COORD_HOLD_KEPT) {

        if (ngx_chain_add_copy(r->pool, hold->last, in) != NGX_OK) {
            return NGX_ERROR;
        }

        while (*hold->last) {
            cl = *hold->last;
            hold->last = &cl->next;
        }

        /* a timer of limit_rate may have ended it */
        r->connection->write->delayed = 1;

        return NGX_AGAIN;
    }

    if (in == NULL
        && hold->state == NGX_HTTP_COORD_HOLD_SENT
        && !r->buffered
        && !r->postponed
        && !r->connection->buffered)
    {
        /* who comes to send what was kept finds it sent */

        return NGX_OK;
    }

    return hold->next_body(r, in);
}


void
ngx_http_coord_hold_release(ngx_http_coord_hold_t *hold)
{
    ngx_connection_t    *c;
    ngx_http_request_t  *r;

    if (hold->state != NGX_HTTP_COORD_HOLD_KEPT) {
        return;
    }

    r = hold->request;
    c = r->connection;

    ngx_http_set_log_request(c->log, r);

    ngx_log_debug0(NGX_LOG_DEBUG_HTTP, c->log, 0, "coord sends response");

    ngx_http_coord_hold_end(hold, NGX_HTTP_COORD_HOLD_SENT);

    if (ngx_http_coord_hold_send(hold) != NGX_OK) {

        /*
         * Who sends the response, or reads it on, learns that it is lost: the
         * postpone filter stops who has nothing more to send, unless something
         * is buffered.
         */

        c->error = 1;
        c->buffered |= NGX_HTTP_WRITE_BUFFERED;
        ngx_post_event(c->read, &ngx_posted_events);
    }

    r->write_event_handler(r);

    ngx_http_run_posted_requests(c);
}


void
ngx_http_coord_hold_drop(ngx_http_coord_hold_t *hold)
{
    hold->first = NULL;
    hold->last = &hold->first;

    ngx_http_coord_hold_end(hold, NGX_HTTP_COORD_HOLD_NONE);
}


static void
ngx_http_coord_hold_end(ngx_http_coord_hold_t *hold,
    ngx_http_coord_hold_e state)
{
    hold->state = state;

    hold->request->buffered &= ~NGX_HTTP_COORD_BUFFERED;
    hold->request->connection->write->delayed = 0;
}


static ngx_int_t
ngx_http_coord_hold_send(ngx_http_coord_hold_t *hold)
{
    ngx_int_t            rc;
    ngx_chain_t         *in, *cl;
    ngx_http_request_t  *r;

    r = hold->request;

    rc = hold->next_header(r);

    if (rc == NGX_ERROR || rc > NGX_OK) {
        return NGX_ERROR;
    }

    in = hold->first;

    if (in == NULL) {
        return NGX_OK;
    }

    rc = hold->next_body(r, in);

    while (in) {
        cl = in;
        in = in->next;
        ngx_free_chain(r->pool, cl);
    }

    hold->first = NULL;

    return (rc == NGX_ERROR) ? NGX_ERROR : NGX_OK;
}
