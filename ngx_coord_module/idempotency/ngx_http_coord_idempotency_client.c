
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
static ngx_uint_t ngx_http_coord_idempotency_closing(ngx_http_request_t *r);
static ngx_uint_t ngx_http_coord_idempotency_lost(ngx_connection_t *c);
static void ngx_http_coord_idempotency_detach(
    ngx_http_coord_idempotency_t *run);


/* ngx_http_request_handler(), which is not for others to see */
static ngx_event_handler_pt  ngx_http_coord_request_handler;


void
ngx_http_coord_run_guard(ngx_http_coord_idempotency_t *run)
{
    ngx_connection_t  *c;

    c = run->request->connection;

    if (c->read->handler == ngx_http_coord_idempotency_read_event) {
        return;
    }

    if (run->client == NGX_HTTP_COORD_CLIENT_OWN) {
        run->client = NGX_HTTP_COORD_CLIENT_GUARDED;
    }

    ngx_http_coord_request_handler = c->read->handler;

    c->read->handler = ngx_http_coord_idempotency_read_event;
    c->write->handler = ngx_http_coord_idempotency_write_event;
}


void
ngx_http_coord_run_unguard(ngx_http_coord_idempotency_t *run)
{
    ngx_connection_t  *c;

    c = run->request->connection;

    if (run->client == NGX_HTTP_COORD_CLIENT_OWN
        || run->client == NGX_HTTP_COORD_CLIENT_LEFT)
    {
        return;
    }

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

    if (run->client == NGX_HTTP_COORD_CLIENT_GUARDED) {
        run->client = NGX_HTTP_COORD_CLIENT_OWN;
        return;
    }

    /* whatever comes next ends the request */

    run->client = NGX_HTTP_COORD_CLIENT_LEFT;
    c->error = 1;
}


/* NULL: nothing to keep from nginx */

static ngx_http_coord_idempotency_t *
ngx_http_coord_idempotency_guarding(ngx_connection_t *c)
{
    ngx_http_request_t            *r;
    ngx_http_coord_idempotency_t  *run;

    r = c->data;
    run = ngx_http_coord_run(r);

    if (run == NULL
        || !ngx_http_coord_running(run)
        || run->ctx->waiting
        || ngx_http_coord_idempotency_closing(r))
    {
        return NULL;
    }

    return run;
}


/*
 * The process ends and does not wait any longer: worker_shutdown_timeout.  A
 * stream hears of that as it does of a lost connection, if at all; but the
 * connection to the upstream is told.
 */

static ngx_uint_t
ngx_http_coord_idempotency_closing(ngx_http_request_t *r)
{
    ngx_connection_t  *c, *pc;

    c = r->connection;
    pc = r->upstream ? r->upstream->peer.connection : NULL;

    if (ngx_exiting && pc && pc->close) {
        c->close = 1;
        return 1;
    }

    if (r->http_version > NGX_HTTP_VERSION_20) {
        /* the client has closed its connection of QUIC */
        return 0;
    }

    return c->close;
}


/* a stream of QUIC has its errors in its events */

static ngx_uint_t
ngx_http_coord_idempotency_lost(ngx_connection_t *c)
{
    ngx_http_request_t  *r;

    r = c->data;

    return c->error
           || (r->http_version > NGX_HTTP_VERSION_20
               && (c->read->error || c->write->error));
}


void
ngx_http_coord_run_leave(ngx_http_coord_idempotency_t *run)
{
    ngx_connection_t  *c;

    c = run->request->connection;

    if (run->client != NGX_HTTP_COORD_CLIENT_OWN
        && ngx_http_coord_idempotency_closing(run->request))
    {
        ngx_http_coord_request_handler(c->read);
    }
}


static void
ngx_http_coord_idempotency_read_event(ngx_event_t *rev)
{
    ngx_connection_t              *c;
    ngx_http_coord_idempotency_t  *run;

    c = rev->data;

    run = ngx_http_coord_idempotency_guarding(c);

    if (run == NULL) {
        ngx_http_coord_request_handler(rev);
        return;
    }

    ngx_log_debug2(NGX_LOG_DEBUG_HTTP, c->log, 0,
                   "coord idempotency client read event, e:%d eof:%d",
                   c->error, rev->pending_eof);

    if ((ngx_event_flags & NGX_USE_LEVEL_EVENT) && rev->active) {
        (void) ngx_del_event(rev, NGX_READ_EVENT, 0);
    }

    if (run->client == NGX_HTTP_COORD_CLIENT_GUARDED
        && ngx_http_coord_idempotency_lost(c))
    {
        ngx_http_coord_idempotency_detach(run);

        /* an upstream that was blocked by the client has to be read on */

        ngx_post_event(c->write, &ngx_posted_events);
    }
}


static void
ngx_http_coord_idempotency_write_event(ngx_event_t *wev)
{
    ngx_connection_t              *c;
    ngx_http_request_t            *r;
    ngx_http_coord_idempotency_t  *run;

    c = wev->data;
    r = c->data;

    run = ngx_http_coord_idempotency_guarding(c);

    if (run == NULL) {
        ngx_http_coord_request_handler(wev);
        return;
    }

    if (run->client == NGX_HTTP_COORD_CLIENT_GUARDED
        && (ngx_http_coord_idempotency_lost(c)
            || (wev->timedout && !wev->delayed)))
    {
        ngx_log_error(NGX_LOG_INFO, c->log, 0,
                      "idempotency: client does not read any more, "
                      "its response is read to the end");

        ngx_http_coord_idempotency_detach(run);
    }

    if (r->upstream && r->upstream->cleanup && !r->upstream->header_sent) {
        /* the only thing to be found is that the client has gone */
        return;
    }

    ngx_http_coord_request_handler(wev);
}


ngx_uint_t
ngx_http_coord_run_gone(ngx_http_coord_idempotency_t *run)
{
    if (run->client == NGX_HTTP_COORD_CLIENT_GUARDED
        && ngx_http_coord_idempotency_lost(run->request->connection))
    {
        ngx_http_coord_idempotency_detach(run);
    }

    return run->client == NGX_HTTP_COORD_CLIENT_GONE
           || run->client == NGX_HTTP_COORD_CLIENT_LEFT;
}


static void
ngx_http_coord_idempotency_detach(ngx_http_coord_idempotency_t *run)
{
    ngx_event_t         *wev;
    ngx_connection_t    *c;
    ngx_http_request_t  *r;

    r = run->request;
    c = r->connection;
    wev = c->write;

    ngx_log_debug1(NGX_LOG_DEBUG_HTTP, c->log, 0,
                   "coord idempotency detach \"%V\"", &r->uri);

    run->client = NGX_HTTP_COORD_CLIENT_GONE;

    /* nginx goes on with the upstream, and always may write */

    r->keepalive = 0;
    c->close = 0;
    c->error = 0;
    c->timedout = 0;
    c->buffered = 0;

    c->read->error = 0;

    wev->error = 0;
    wev->timedout = 0;
    wev->delayed = 0;
    wev->ready = 1;

    if (wev->timer_set) {
        ngx_del_timer(wev);
    }

    ngx_coord_timer_start(&run->timer, ngx_min(run->conf->lease / 3,
                                               NGX_HTTP_COORD_CLIENT_LOOK));
}
