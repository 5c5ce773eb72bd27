
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * A channel in a worker: however many clients listen, it is listened to once,
 * and an event is made once.
 */


#include "ngx_http_coord_events.h"


static ngx_http_coord_hub_t *ngx_http_coord_hub_find(
    ngx_coord_store_t *store, ngx_str_t *channel);
static ngx_http_coord_hub_t *ngx_http_coord_hub_create(
    ngx_coord_store_t *store, ngx_str_t *channel);
static uint32_t ngx_http_coord_hub_hash(ngx_coord_store_t *store,
    ngx_str_t *channel);
static void ngx_http_coord_hub_free(ngx_http_coord_hub_t *hub);
static void ngx_http_coord_hub_event(ngx_coord_bus_listener_t *listener,
    ngx_coord_event_t *ev);
static void ngx_http_coord_hub_ready(ngx_coord_bus_listener_t *listener);
static void ngx_http_coord_hub_post(ngx_event_t *ev);
static void ngx_http_coord_hub_tell(ngx_http_coord_hub_t *hub,
    ngx_http_coord_frame_t *frame);
static void ngx_http_coord_hub_tell_link(ngx_http_coord_link_t *link,
    ngx_http_coord_frame_t *frame);


ngx_int_t
ngx_http_coord_hub_join(ngx_http_coord_link_t *link, ngx_str_t *channel)
{
    ngx_http_coord_hub_t     *hub;
    ngx_http_coord_client_t  *client;

    client = link->client;

    hub = ngx_http_coord_hub_find(client->store, channel);

    if (hub == NULL) {
        hub = ngx_http_coord_hub_create(client->store, channel);

        if (hub == NULL) {
            return NGX_ERROR;
        }
    }

    if (client->history
        && ngx_coord_bus_follow(&hub->listener) == NGX_ERROR)
    {
        if (hub->nlinks == 0) {
            ngx_http_coord_hub_free(hub);
        }

        return NGX_ERROR;
    }

    link->hub = hub;

    ngx_queue_insert_tail(&hub->links, &link->queue);
    hub->nlinks++;

    ngx_coord_bus_count(&hub->listener, hub->nlinks);

    return hub->listener.heard ? NGX_OK : NGX_AGAIN;
}


void
ngx_http_coord_hub_leave(ngx_http_coord_link_t *link)
{
    ngx_http_coord_hub_t  *hub;

    hub = link->hub;

    if (hub == NULL) {
        return;
    }

    link->hub = NULL;

    ngx_queue_remove(&link->queue);
    hub->nlinks--;

    if (hub->nlinks) {
        ngx_coord_bus_count(&hub->listener, hub->nlinks);
        return;
    }

    ngx_http_coord_hub_free(hub);
}


static ngx_http_coord_hub_t *
ngx_http_coord_hub_find(ngx_coord_store_t *store, ngx_str_t *channel)
{
    ngx_str_node_t  *node;

    node = ngx_str_rbtree_lookup(&ngx_http_coord_events_worker.hubs, channel,
                                 ngx_http_coord_hub_hash(store, channel));

    if (node == NULL) {
        return NULL;
    }

    return (ngx_http_coord_hub_t *)
               ((u_char *) node - offsetof(ngx_http_coord_hub_t, node));
}


/* channels of different stores differ here */

static uint32_t
ngx_http_coord_hub_hash(ngx_coord_store_t *store, ngx_str_t *channel)
{
    return ngx_crc32_long(channel->data, channel->len)
           ^ (uint32_t) ((uintptr_t) store / sizeof(ngx_coord_store_t));
}


static ngx_http_coord_hub_t *
ngx_http_coord_hub_create(ngx_coord_store_t *store, ngx_str_t *channel)
{
    u_char                *p;
    ngx_http_coord_hub_t  *hub;

    hub = ngx_calloc(sizeof(ngx_http_coord_hub_t) + channel->len,
                     ngx_cycle->log);
    if (hub == NULL) {
        return NULL;
    }

    p = (u_char *) hub + sizeof(ngx_http_coord_hub_t);
    ngx_memcpy(p, channel->data, channel->len);

    hub->store = store;

    hub->listener.channel.data = p;
    hub->listener.channel.len = channel->len;
    hub->listener.event = ngx_http_coord_hub_event;
    hub->listener.ready = ngx_http_coord_hub_ready;
    hub->listener.data = hub;

    ngx_queue_init(&hub->links);
    ngx_queue_init(&hub->frames);

    hub->post.handler = ngx_http_coord_hub_post;
    hub->post.data = hub;
    hub->post.log = ngx_cycle->log;

    if (ngx_coord_bus_listen(store, &hub->listener) == NGX_ERROR) {
        ngx_free(hub);
        return NULL;
    }

    hub->node.str = hub->listener.channel;
    hub->node.node.key = ngx_http_coord_hub_hash(store, channel);

    ngx_rbtree_insert(&ngx_http_coord_events_worker.hubs, &hub->node.node);

    return hub;
}


static void
ngx_http_coord_hub_free(ngx_http_coord_hub_t *hub)
{
    ngx_queue_t  *q;

    ngx_coord_bus_leave(&hub->listener);

    if (hub->post.posted) {
        ngx_delete_posted_event(&hub->post);
    }

    while (!ngx_queue_empty(&hub->frames)) {
        q = ngx_queue_head(&hub->frames);
        ngx_queue_remove(q);

        ngx_http_coord_frame_release(
                         ngx_queue_data(q, ngx_http_coord_frame_t, queue));
    }

    ngx_rbtree_delete(&ngx_http_coord_events_worker.hubs, &hub->node.node);

    ngx_free(hub);
}


/* inside the store */

static void
ngx_http_coord_hub_event(ngx_coord_bus_listener_t *listener,
    ngx_coord_event_t *ev)
{
    ngx_http_coord_hub_t *hub = listener->data;

    ngx_http_coord_frame_t  *frame;

    frame = ngx_http_coord_frame(&listener->channel, ev);
    if (frame == NULL) {
        return;
    }

    (void) ngx_atomic_fetch_add(&hub->store->stats->events_heard, 1);

    ngx_queue_insert_tail(&hub->frames, &frame->queue);
    ngx_post_event(&hub->post, &ngx_posted_events);
}


static void
ngx_http_coord_hub_ready(ngx_coord_bus_listener_t *listener)
{
    ngx_http_coord_hub_t *hub = listener->data;

    ngx_queue_t            *q, *next;
    ngx_http_coord_link_t  *link;

    /* what was heard before is told before */

    ngx_http_coord_hub_post(&hub->post);

    for (q = ngx_queue_head(&hub->links);
         q != ngx_queue_sentinel(&hub->links);
         q = next)
    {
        next = ngx_queue_next(q);
        link = ngx_queue_data(q, ngx_http_coord_link_t, queue);

        ngx_http_coord_link_ready(link);
    }
}


static void
ngx_http_coord_hub_post(ngx_event_t *ev)
{
    ngx_http_coord_hub_t *hub = ev->data;

    ngx_queue_t             *q;
    ngx_http_coord_frame_t  *frame;

    while (!ngx_queue_empty(&hub->frames)) {
        q = ngx_queue_head(&hub->frames);
        frame = ngx_queue_data(q, ngx_http_coord_frame_t, queue);

        ngx_queue_remove(q);

        ngx_http_coord_hub_tell(hub, frame);
        ngx_http_coord_frame_release(frame);
    }
}


static void
ngx_http_coord_hub_tell(ngx_http_coord_hub_t *hub,
    ngx_http_coord_frame_t *frame)
{
    ngx_queue_t  *q;

    /* nothing is sent here, so nobody leaves */

    for (q = ngx_queue_head(&hub->links);
         q != ngx_queue_sentinel(&hub->links);
         q = ngx_queue_next(q))
    {
        ngx_http_coord_hub_tell_link(ngx_queue_data(q, ngx_http_coord_link_t,
                                                    queue),
                                     frame);
    }
}


static void
ngx_http_coord_hub_tell_link(ngx_http_coord_link_t *link,
    ngx_http_coord_frame_t *frame)
{
    ngx_http_coord_client_t  *client;

    client = link->client;

    if (!client->history) {

        if (frame->plain && link->state == NGX_HTTP_COORD_LINK_LIVE) {
            ngx_http_coord_events_out(client, frame, frame->head, 0);
        }

        return;
    }

    if (!frame->kept || link->state == NGX_HTTP_COORD_LINK_WAITING) {
        return;
    }

    if (frame->head == 0) {
        ngx_http_coord_events_out(client, frame, 0, 0);
        return;
    }

    /* who is behind reads it from the history */

    if (link->state == NGX_HTTP_COORD_LINK_LIVE
        && ngx_coord_event_id_cmp(&frame->id, &link->position) > 0)
    {
        ngx_http_coord_link_tell(link, frame, 0);
    }
}
