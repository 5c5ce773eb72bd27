
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_idempotency: the result outlives the client.
 *
 * While a request holds its claim the events of the client connection come
 * here first.  News of a client that closes are kept from the upstream module,
 * as proxy_ignore_client_abort would.  When nothing can be sent any more (a
 * write error, a stalled client, a reset stream) the request is detached: it
 * goes on as if the client read everything, and the body filter, behind which
 * nobody is, takes the response to its end.
 */


#include "ngx_http_coord_idempotency.h"


static void ngx_http_coord_idempotency_read_event(ngx_event_t *rev);
static void ngx_http_coord_idempotency_write_event(ngx_event_t *wev);
static ngx_http_coord_idempotency_t *ngx_http_coord_idempotency_guarding(
    ngx_connection_t *c);
static void ngx_http_coord_idempotency_kick(ngx_connection_t *c);


/* ngx_http_request_handler(), which is not for others to see */
static ngx_event_handler_pt  ngx_http_coord_request_handler;


void
ngx_http_coord_idempotency_guard(ngx_http_coord_idempotency_t *state)
{
    ngx_connection_t  *c;

    c = state->request->connection;

    if (c->read->handler == ngx_http_coord_idempotency_read_event) {
        return;
    }

    state->guarded = 1;

    ngx_http_coord_request_handler = c->read->handler;

    c->read->handler = ngx_http_coord_idempotency_read_event;
    c->write->handler = ngx_http_coord_idempotency_write_event;
}


void
ngx_http_coord_idempotency_unguard(ngx_http_coord_idempotency_t *state)
{
    ngx_connection_t  *c;

    c = state->request->connection;

    if (state->guarded) {
        state->guarded = 0;

        /* nginx may have set its own again */

        if (c->read->handler == ngx_http_coord_idempotency_read_event) {
            c->read->handler = ngx_http_coord_request_handler;
        }

        if (c->write->handler == ngx_http_coord_idempotency_write_event) {
            c->write->handler = ngx_http_coord_request_handler;
        }

        if (ngx_event_flags & NGX_USE_LEVEL_EVENT) {
            (void) ngx_handle_read_event(c->read, 0);
        }
    }

    if (state->detached) {

        /* whatever comes next ends the request */

        c->error = 1;
    }
}


/* NULL: nothing to keep from nginx */

static ngx_http_coord_idempotency_t *
ngx_http_coord_idempotency_guarding(ngx_connection_t *c)
{
    ngx_http_request_t            *r;
    ngx_http_coord_idempotency_t  *state;

    r = c->data;
    state = ngx_http_coord_idempotency_state(r);

    if (state == NULL
        || state->phase != NGX_HTTP_COORD_IDEMPOTENCY_RUNNING
        || state->ctx->waiting
        || c->close)
    {
        return NULL;
    }

    return state;
}


static void
ngx_http_coord_idempotency_read_event(ngx_event_t *rev)
{
    ngx_connection_t              *c;
    ngx_http_coord_idempotency_t  *state;

    c = rev->data;

    state = ngx_http_coord_idempotency_guarding(c);

    if (state == NULL) {
        ngx_http_coord_request_handler(rev);
        return;
    }

    ngx_log_debug2(NGX_LOG_DEBUG_HTTP, c->log, 0,
                   "coord idempotency client read event, e:%d eof:%d",
                   c->error, rev->pending_eof);

    if ((ngx_event_flags & NGX_USE_LEVEL_EVENT) && rev->active) {
        (void) ngx_del_event(rev, NGX_READ_EVENT, 0);
    }

    if (c->error && !state->detached) {
        ngx_http_coord_idempotency_detach(state);
        ngx_http_coord_idempotency_kick(c);
    }
}


static void
ngx_http_coord_idempotency_write_event(ngx_event_t *wev)
{
    ngx_connection_t              *c;
    ngx_http_request_t            *r;
    ngx_http_coord_idempotency_t  *state;

    c = wev->data;
    r = c->data;

    state = ngx_http_coord_idempotency_guarding(c);

    if (state == NULL) {
        ngx_http_coord_request_handler(wev);
        return;
    }

    if (!state->detached
        && (c->error || (wev->timedout && !wev->delayed)))
    {
        ngx_log_error(NGX_LOG_INFO, c->log, 0,
                      "idempotency: client does not read any more, "
                      "its response is read to the end");

        ngx_http_coord_idempotency_detach(state);
    }

    if (r->upstream && r->upstream->cleanup && !r->upstream->header_sent) {
        /* the only thing to be found is that the client has gone */
        return;
    }

    ngx_http_coord_request_handler(wev);
}


void
ngx_http_coord_idempotency_detach(ngx_http_coord_idempotency_t *state)
{
    ngx_event_t         *wev;
    ngx_connection_t    *c;
    ngx_http_request_t  *r;

    r = state->request;
    c = r->connection;
    wev = c->write;

    ngx_log_debug1(NGX_LOG_DEBUG_HTTP, c->log, 0,
                   "coord idempotency detach \"%V\"", &r->uri);

    state->detached = 1;

    /* nginx goes on with the upstream, and always may write */

    r->keepalive = 0;
    c->error = 0;
    c->timedout = 0;
    c->buffered = 0;

    wev->timedout = 0;
    wev->delayed = 0;
    wev->ready = 1;

    if (wev->timer_set) {
        ngx_del_timer(wev);
    }
}


/* an upstream that was blocked by the client has to be read on */

static void
ngx_http_coord_idempotency_kick(ngx_connection_t *c)
{
    ngx_post_event(c->write, &ngx_posted_events);
}
