
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * A client that listens, from its header to its end.
 */


#include "ngx_http_coord_events.h"


/* milliseconds */
#define NGX_HTTP_COORD_EVENTS_WAIT   500    /* for the channels to be heard */
#define NGX_HTTP_COORD_EVENTS_WATCH  200    /* for the end of the worker */
#define NGX_HTTP_COORD_EVENTS_COME   500    /* back, at the earliest ... */
#define NGX_HTTP_COORD_EVENTS_BACK   2500   /* ... and spread over so long */

/* clients that are sent to before others have their turn */
#define NGX_HTTP_COORD_EVENTS_SLICE  512


static void ngx_http_coord_client_init(void);
static void ngx_http_coord_client_cleanup(void *data);
static void ngx_http_coord_client_detach(ngx_http_coord_client_t *client);
static void ngx_http_coord_client_finalize(ngx_http_coord_client_t *client,
    ngx_int_t rc);
static void ngx_http_coord_client_due(ngx_event_t *ev);
static void ngx_http_coord_client_run(ngx_http_coord_client_t *client);
static ngx_int_t ngx_http_coord_client_open(ngx_http_coord_client_t *client);
static ngx_uint_t ngx_http_coord_client_heard(
    ngx_http_coord_client_t *client);
static void ngx_http_coord_client_cut(ngx_http_coord_client_t *client);
static void ngx_http_coord_client_end(ngx_http_coord_client_t *client);
static void ngx_http_coord_client_write(ngx_http_request_t *r);
static void ngx_http_coord_client_timer(ngx_event_t *ev);
static void ngx_http_coord_client_late(ngx_http_coord_client_t *client);
static void ngx_http_coord_client_watch(ngx_event_t *ev);


static const ngx_http_coord_problem_t  ngx_http_coord_client_unavailable = {
    NGX_HTTP_SERVICE_UNAVAILABLE,
    ngx_string("about:blank"),
    ngx_string("Service Unavailable"),
    ngx_string("The events cannot be heard now."),
    ngx_null_string,
    ngx_null_string,
    0
};


ngx_http_coord_client_t *
ngx_http_coord_client_create(ngx_http_request_t *r, ngx_uint_t n)
{
    ngx_uint_t                i;
    ngx_pool_cleanup_t       *pcln;
    ngx_http_cleanup_t       *cln;
    ngx_http_coord_client_t  *client;

    ngx_http_coord_client_init();

    client = ngx_pcalloc(r->pool, sizeof(ngx_http_coord_client_t));
    if (client == NULL) {
        return NULL;
    }

    client->links = ngx_pcalloc(r->pool, n * sizeof(ngx_http_coord_link_t));
    if (client->links == NULL) {
        return NULL;
    }

    for (i = 0; i < n; i++) {
        client->links[i].client = client;
    }

    /* the filters may hold buffers until the pool is destroyed */

    pcln = ngx_pool_cleanup_add(r->pool, 0);
    if (pcln == NULL) {
        return NULL;
    }

    pcln->handler = ngx_http_coord_events_drop;
    pcln->data = client;

    cln = ngx_http_cleanup_add(r, 0);
    if (cln == NULL) {
        return NULL;
    }

    cln->handler = ngx_http_coord_client_cleanup;
    cln->data = client;

    ngx_http_set_ctx(r, client, ngx_http_coord_events_module);

    client->request = r;
    client->nlinks = n;
    client->state = NGX_HTTP_COORD_CLIENT_WAITING;

    ngx_coord_timer_init(&client->timer, ngx_http_coord_client_timer, client,
                         r->connection->log);
    client->timer.event.cancelable = 1;

    ngx_queue_insert_tail(&ngx_http_coord_events_worker.clients,
                          &client->queue);

    return client;
}


static void
ngx_http_coord_client_init(void)
{
    ngx_http_coord_events_worker_t  *worker;

    worker = &ngx_http_coord_events_worker;

    if (!worker->started) {
        worker->started = 1;

        ngx_queue_init(&worker->clients);
        ngx_queue_init(&worker->due);

        ngx_rbtree_init(&worker->hubs, &worker->sentinel,
                        ngx_str_rbtree_insert_value);

        worker->post.handler = ngx_http_coord_client_due;
        worker->post.data = worker;
        worker->post.log = ngx_cycle->log;

        /* it holds a worker that exits, so that the streams are ended */

        ngx_coord_timer_init(&worker->watch, ngx_http_coord_client_watch,
                             worker, ngx_cycle->log);
    }

    if (!worker->watch.event.timer_set) {
        ngx_coord_timer_start(&worker->watch, NGX_HTTP_COORD_EVENTS_WATCH);
    }
}


static void
ngx_http_coord_client_cleanup(void *data)
{
    ngx_http_coord_client_detach(data);
}


/* it hears nothing any more; what is queued stays until its pool goes */

static void
ngx_http_coord_client_detach(ngx_http_coord_client_t *client)
{
    ngx_uint_t              i;
    ngx_http_coord_link_t  *link;

    if (client->state == NGX_HTTP_COORD_CLIENT_ENDED) {
        return;
    }

    client->state = NGX_HTTP_COORD_CLIENT_ENDED;

    ngx_coord_timer_stop(&client->timer);

    ngx_queue_remove(&client->queue);

    if (client->posted) {
        client->posted = 0;
        ngx_queue_remove(&client->due);
    }

    for (i = 0; i < client->nlinks; i++) {
        link = &client->links[i];

        if (link->read) {
            ngx_coord_bus_read_free(link->read);
            link->read = NULL;
        }

        ngx_http_coord_hub_leave(link);
    }
}


/* ends the request, which may be gone then */

static void
ngx_http_coord_client_finalize(ngx_http_coord_client_t *client, ngx_int_t rc)
{
    ngx_connection_t    *c;
    ngx_http_request_t  *r;

    r = client->request;
    c = r->connection;

    ngx_http_coord_client_detach(client);

    ngx_http_finalize_request(r, rc);
    ngx_http_run_posted_requests(c);
}


void
ngx_http_coord_client_start(ngx_http_coord_client_t *client)
{
    ngx_event_t         *rev;
    ngx_http_request_t  *r;

    r = client->request;
    rev = r->connection->read;

    /* what it has ended before is not told again */

    if (rev->ready) {
        ngx_post_event(rev, &ngx_posted_events);
    }

    r->read_event_handler = ngx_http_test_reading;
    r->write_event_handler = ngx_http_request_empty_handler;
    r->main->count++;

    if (ngx_http_coord_client_heard(client)) {
        ngx_http_coord_events_due(client);
        return;
    }

    ngx_coord_timer_start(&client->timer, NGX_HTTP_COORD_EVENTS_WAIT);
}


/* 1 if all of its channels are */

static ngx_uint_t
ngx_http_coord_client_heard(ngx_http_coord_client_t *client)
{
    ngx_uint_t  i;

    for (i = 0; i < client->nlinks; i++) {

        if (client->links[i].state == NGX_HTTP_COORD_LINK_WAITING) {
            return 0;
        }
    }

    return 1;
}


/* clients with something to be sent; other events have their turn between */

static void
ngx_http_coord_client_due(ngx_event_t *ev)
{
    ngx_uint_t                       n;
    ngx_queue_t                     *q;
    ngx_http_coord_client_t         *client;
    ngx_http_coord_events_worker_t  *worker;

    worker = ev->data;

    for (n = 0; !ngx_queue_empty(&worker->due); n++) {

        if (n == NGX_HTTP_COORD_EVENTS_SLICE) {
            ngx_post_event(ev, &ngx_posted_next_events);
            return;
        }

        q = ngx_queue_head(&worker->due);
        client = ngx_queue_data(q, ngx_http_coord_client_t, due);

        ngx_queue_remove(q);
        client->posted = 0;

        ngx_http_coord_client_run(client);
    }
}


static void
ngx_http_coord_client_run(ngx_http_coord_client_t *client)
{
    ngx_int_t            rc;
    ngx_http_request_t  *r;

    r = client->request;

    ngx_http_set_log_request(r->connection->log, r);

    switch (client->state) {

    case NGX_HTTP_COORD_CLIENT_WAITING:

        if (!ngx_http_coord_client_heard(client)) {
            return;
        }

        rc = ngx_http_coord_client_open(client);

        if (rc != NGX_AGAIN) {
            ngx_http_coord_client_finalize(client, rc);
        }

        return;

    case NGX_HTTP_COORD_CLIENT_OPEN:

        if (ngx_http_coord_events_send(client) != NGX_OK) {
            ngx_http_coord_client_finalize(client, NGX_ERROR);
            return;
        }

        client->sent = ngx_current_msec;
        ngx_http_coord_link_more(client);
        return;

    case NGX_HTTP_COORD_CLIENT_CUT:
        ngx_http_coord_client_cut(client);
        return;

    default: /* NGX_HTTP_COORD_CLIENT_ENDED */
        return;
    }
}


/* NGX_AGAIN: the stream is open; else what the request ends with */

static ngx_int_t
ngx_http_coord_client_open(ngx_http_coord_client_t *client)
{
    ngx_int_t            rc;
    ngx_http_request_t  *r;

    r = client->request;

    client->state = NGX_HTTP_COORD_CLIENT_OPEN;

    rc = ngx_http_coord_client_header(r);

    if (rc == NGX_ERROR || rc > NGX_OK || r->header_only) {
        return rc;
    }

    r->write_event_handler = ngx_http_coord_client_write;

    /* a client waits for the header, not for the first message */

    if (client->next == NULL
        && ngx_http_send_special(r, NGX_HTTP_FLUSH) == NGX_ERROR)
    {
        return NGX_ERROR;
    }

    if (ngx_http_coord_events_send(client) != NGX_OK) {
        return NGX_ERROR;
    }

    client->sent = ngx_current_msec;

    ngx_coord_timer_stop(&client->timer);

    if (client->heartbeat) {
        ngx_coord_timer_start(&client->timer, client->heartbeat);
    }

    ngx_http_coord_link_more(client);

    return NGX_AGAIN;
}


ngx_int_t
ngx_http_coord_client_header(ngx_http_request_t *r)
{
    ngx_str_t  value;

    ngx_str_set(&value, "no-store");

    if (ngx_http_coord_out_header(r, "Cache-Control", &value) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    /* a proxy of nginx's before this one */

    ngx_str_set(&value, "no");

    if (ngx_http_coord_out_header(r, "X-Accel-Buffering", &value) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

#if (NGX_HTTP_GZIP)

    /* an event is of use when it comes */

    r->gzip_tested = 1;
    r->gzip_ok = 0;

#endif

    r->headers_out.status = NGX_HTTP_OK;
    ngx_str_set(&r->headers_out.content_type, "text/event-stream");
    r->headers_out.content_type_len = r->headers_out.content_type.len;
    r->headers_out.content_type_lowcase = NULL;

    return ngx_http_send_header(r);
}


static void
ngx_http_coord_client_cut(ngx_http_coord_client_t *client)
{
    ngx_uint_t  n;

    (void) ngx_atomic_fetch_add(&client->store->stats->events_cut, 1);

    n = ngx_coord_log_due(&ngx_http_coord_events_worker.cut,
                          NGX_COORD_LOG_INTERVAL);
    if (n) {
        ngx_log_error(NGX_LOG_INFO, client->request->connection->log, 0,
                      "a client of coord_subscribe is too slow, %uz bytes are "
                      "unsent, connection closed (%ui times)",
                      client->pending, n);
    }

    ngx_http_coord_client_finalize(client, NGX_ERROR);
}


/* the worker ends: a browser comes back, to another one, and not with all */

static void
ngx_http_coord_client_end(ngx_http_coord_client_t *client)
{
    u_char                  *p, text[sizeof("retry: \n\n") + NGX_INT_T_LEN];
    ngx_int_t                rc;
    ngx_http_request_t      *r;
    ngx_http_coord_frame_t  *frame;

    r = client->request;

    ngx_http_set_log_request(r->connection->log, r);

    if (client->state == NGX_HTTP_COORD_CLIENT_WAITING
        || client->blocked)
    {
        ngx_http_coord_client_finalize(client, NGX_ERROR);
        return;
    }

    p = ngx_sprintf(text, "retry: %ui\n\n",
                    NGX_HTTP_COORD_EVENTS_COME
                    + (ngx_uint_t) ngx_random() % NGX_HTTP_COORD_EVENTS_BACK);

    frame = ngx_http_coord_frame_text(text, p - text);

    if (frame) {
        ngx_http_coord_events_out(client, frame, 0, 1);
        ngx_http_coord_frame_release(frame);
    }

    rc = ngx_http_coord_events_send(client);

    if (rc == NGX_OK) {
        rc = ngx_http_send_special(r, NGX_HTTP_LAST);
    }

    ngx_http_coord_client_finalize(client, rc);
}


static void
ngx_http_coord_client_write(ngx_http_request_t *r)
{
    ngx_event_t              *wev;
    ngx_connection_t         *c;
    ngx_http_coord_client_t  *client;

    c = r->connection;
    wev = c->write;

    client = ngx_http_get_module_ctx(r, ngx_http_coord_events_module);

    if (client == NULL || client->state == NGX_HTTP_COORD_CLIENT_ENDED) {
        return;
    }

    if (wev->timedout) {
        ngx_log_error(NGX_LOG_INFO, c->log, NGX_ETIMEDOUT,
                      "client timed out");
        c->timedout = 1;
        ngx_http_coord_client_finalize(client, NGX_HTTP_REQUEST_TIME_OUT);
        return;
    }

    if (wev->delayed) {

        if (ngx_handle_write_event(wev, 0) != NGX_OK) {
            ngx_http_coord_client_finalize(client, NGX_ERROR);
        }

        return;
    }

    client->blocked = 0;

    if (client->state == NGX_HTTP_COORD_CLIENT_OPEN) {
        ngx_http_coord_client_run(client);
    }
}


static void
ngx_http_coord_client_timer(ngx_event_t *ev)
{
    ngx_http_coord_client_t *client = ngx_coord_timer_data(ev);

    ngx_msec_t               quiet;
    ngx_http_coord_frame_t  *frame;

    if (client->state == NGX_HTTP_COORD_CLIENT_WAITING) {
        ngx_http_coord_client_late(client);
        return;
    }

    ngx_http_coord_link_more(client);

    if (client->heartbeat == 0) {
        return;
    }

    quiet = ngx_current_msec - client->sent;

    if (quiet < client->heartbeat) {
        ngx_coord_timer_start(&client->timer, client->heartbeat - quiet);
        return;
    }

    /* one that is blocked has its time to send */

    if (client->first == NULL) {
        frame = ngx_http_coord_frame_text((u_char *) ":\n\n", 3);

        if (frame) {
            ngx_http_coord_events_out(client, frame, 0, 1);
            ngx_http_coord_frame_release(frame);
        }
    }

    ngx_coord_timer_start(&client->timer, client->heartbeat);
}


/* the store does not answer: the stream begins all the same, or not */

static void
ngx_http_coord_client_late(ngx_http_coord_client_t *client)
{
    ngx_int_t                 rc;
    ngx_str_t                 value;
    ngx_http_request_t       *r;
    ngx_http_coord_problem_t  problem;

    r = client->request;

    ngx_http_set_log_request(r->connection->log, r);

    if (client->on_failure == NGX_COORD_FAILURE_CLOSED) {
        ngx_str_set(&value, "1");
        problem = ngx_http_coord_client_unavailable;

        rc = ngx_http_coord_out_header(r, "Retry-After", &value) == NGX_OK
             ? ngx_http_coord_problem(r, &problem)
             : NGX_HTTP_INTERNAL_SERVER_ERROR;

    } else {
        rc = ngx_http_coord_client_open(client);

        if (rc == NGX_AGAIN) {
            return;
        }
    }

    ngx_http_coord_client_finalize(client, rc);
}


static void
ngx_http_coord_client_watch(ngx_event_t *ev)
{
    ngx_queue_t                     *q;
    ngx_http_coord_events_worker_t  *worker;

    worker = ngx_coord_timer_data(ev);

    while (ngx_exiting && !ngx_queue_empty(&worker->clients)) {
        q = ngx_queue_head(&worker->clients);

        ngx_http_coord_client_end(
                        ngx_queue_data(q, ngx_http_coord_client_t, queue));
    }

    if (!ngx_queue_empty(&worker->clients)) {
        ngx_add_timer(ev, NGX_HTTP_COORD_EVENTS_WATCH);
    }
}
