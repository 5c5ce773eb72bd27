
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * What is on its way to a client: buffers of its own for frames that it shares
 * with others.  The output filters have them in order, so the first ones are
 * done first.
 */


#include "ngx_http_coord_events.h"


/* a client that has not taken so many bytes is cut off */
#define NGX_HTTP_COORD_EVENTS_PENDING  (1024 * 1024)


static ngx_http_coord_events_out_t *ngx_http_coord_events_get(
    ngx_http_coord_client_t *client);
static void ngx_http_coord_events_reap(ngx_http_coord_client_t *client);
static void ngx_http_coord_events_cut(ngx_http_coord_client_t *client);


ngx_http_coord_events_worker_t  ngx_http_coord_events_worker;


void
ngx_http_coord_events_out(ngx_http_coord_client_t *client,
    ngx_http_coord_frame_t *frame, size_t from, ngx_uint_t force)
{
    ngx_buf_t                    *b;
    ngx_http_coord_events_out_t  *out;

    if (client->state == NGX_HTTP_COORD_CLIENT_CUT) {
        return;
    }

    if (!force
        && client->pending
        && client->pending + frame->len > NGX_HTTP_COORD_EVENTS_PENDING)
    {
        ngx_http_coord_events_cut(client);
        return;
    }

    out = ngx_http_coord_events_get(client);

    if (out == NULL) {
        ngx_http_coord_events_cut(client);
        return;
    }

    b = &out->buf;

    ngx_memzero(b, sizeof(ngx_buf_t));

    b->start = frame->data;
    b->pos = frame->data + from;
    b->last = frame->data + frame->len;
    b->end = b->last;
    b->memory = 1;
    b->tag = (ngx_buf_tag_t) &ngx_http_coord_events_module;

    out->chain.buf = b;
    out->chain.next = NULL;
    out->next = NULL;
    out->frame = frame;
    out->size = b->last - b->pos;

    frame->refs++;

    if (client->last) {
        client->last->next = out;

    } else {
        client->first = out;
    }

    client->last = out;

    if (client->next == NULL) {
        client->next = out;
    }

    client->pending += out->size;

    if (frame->plain || frame->kept) {
        (void) ngx_atomic_fetch_add(&client->store->stats->events_sent, 1);
    }

    ngx_http_coord_events_due(client);
}


static ngx_http_coord_events_out_t *
ngx_http_coord_events_get(ngx_http_coord_client_t *client)
{
    ngx_http_coord_events_out_t  *out;

    out = client->free;

    if (out) {
        client->free = out->next;
        return out;
    }

    return ngx_palloc(client->request->pool,
                      sizeof(ngx_http_coord_events_out_t));
}


static void
ngx_http_coord_events_cut(ngx_http_coord_client_t *client)
{
    client->state = NGX_HTTP_COORD_CLIENT_CUT;

    ngx_http_coord_events_due(client);
}


void
ngx_http_coord_events_due(ngx_http_coord_client_t *client)
{
    if (client->posted) {
        return;
    }

    client->posted = 1;

    ngx_queue_insert_tail(&ngx_http_coord_events_worker.due, &client->due);

    if (!ngx_http_coord_events_worker.post.posted) {
        ngx_post_event(&ngx_http_coord_events_worker.post,
                       &ngx_posted_events);
    }
}


ngx_int_t
ngx_http_coord_events_send(ngx_http_coord_client_t *client)
{
    ngx_int_t                     rc;
    ngx_chain_t                  *chain, **ll;
    ngx_connection_t             *c;
    ngx_http_request_t           *r;
    ngx_http_core_loc_conf_t     *clcf;
    ngx_http_coord_events_out_t  *out;

    if (client->blocked) {
        return NGX_OK;
    }

    r = client->request;
    c = r->connection;

    chain = NULL;
    ll = &chain;

    for (out = client->next; out; out = out->next) {
        *ll = &out->chain;
        ll = &out->chain.next;

        out->buf.flush = (out->next == NULL);
    }

    *ll = NULL;

    client->next = NULL;

    rc = ngx_http_output_filter(r, chain);

    ngx_http_coord_events_reap(client);

    if (rc == NGX_ERROR) {
        return NGX_ERROR;
    }

    if (client->first == NULL && !r->buffered && !c->buffered) {

        if (c->write->timer_set) {
            ngx_del_timer(c->write);
        }

        return NGX_OK;
    }

    client->blocked = 1;

    clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);

    if (!c->write->delayed) {
        ngx_add_timer(c->write, clcf->send_timeout);
    }

    return ngx_handle_write_event(c->write, clcf->send_lowat);
}


/* what the filters are done with */

static void
ngx_http_coord_events_reap(ngx_http_coord_client_t *client)
{
    ngx_http_coord_events_out_t  *out;

    while (client->first && client->first != client->next
           && ngx_buf_size(&client->first->buf) == 0)
    {
        out = client->first;

        client->first = out->next;

        if (client->first == NULL) {
            client->last = NULL;
        }

        client->pending -= out->size;

        ngx_http_coord_frame_release(out->frame);

        out->next = client->free;
        client->free = out;
    }
}


void
ngx_http_coord_events_drop(void *data)
{
    ngx_http_coord_client_t *client = data;

    ngx_http_coord_events_out_t  *out;

    for (out = client->first; out; out = out->next) {
        ngx_http_coord_frame_release(out->frame);
    }

    client->first = NULL;
}
