
/*
 * Copyright (C) ngx_coord_module contributors
 *
 *   WANTED -> ASKED -> HEARD -> UNWANTED -> LEAVING -> gone, or WANTED
 *               |        ^         |
 *               v        +---------+  somebody listens again
 *            REFUSED
 *
 * A lost connection makes all of them WANTED that somebody listens to.
 */


#include "ngx_coord_redis_channel.h"


/* commands in flight: what more is wanted waits for their replies */
#define NGX_COORD_CHANNEL_ASKED  256

#define NGX_COORD_SUBSCRIBE      "*2" CRLF "$9" CRLF "SUBSCRIBE" CRLF
#define NGX_COORD_UNSUBSCRIBE    "*2" CRLF "$11" CRLF "UNSUBSCRIBE" CRLF


typedef enum {
    NGX_COORD_CHANNEL_WANTED = 0,
    NGX_COORD_CHANNEL_ASKED_FOR,
    NGX_COORD_CHANNEL_HEARD,
    NGX_COORD_CHANNEL_UNWANTED,
    NGX_COORD_CHANNEL_LEAVING,
    NGX_COORD_CHANNEL_REFUSED
} ngx_coord_redis_channel_e;


typedef struct {
    ngx_str_node_t             node;          /* must be first */
    ngx_queue_t                queue;         /* unless it is heard */
    ngx_queue_t                listeners;
    ngx_coord_redis_channel_e  state;
} ngx_coord_redis_channel_t;


static ngx_coord_redis_channel_t *ngx_coord_redis_channel_find(
    ngx_coord_redis_channels_t *channels, ngx_str_t *name);
static ngx_coord_redis_channel_t *ngx_coord_redis_channel_create(
    ngx_coord_redis_channels_t *channels, ngx_str_t *name);
static void ngx_coord_redis_channel_free(ngx_coord_redis_channels_t *channels,
    ngx_coord_redis_channel_t *channel);
static void ngx_coord_redis_channel_want(ngx_coord_redis_channels_t *channels,
    ngx_coord_redis_channel_t *channel);
static void ngx_coord_redis_channel_unwant(
    ngx_coord_redis_channels_t *channels, ngx_coord_redis_channel_t *channel);
static ngx_coord_redis_channel_t *ngx_coord_redis_channel_answered(
    ngx_coord_redis_channels_t *channels);
static void ngx_coord_redis_channel_heard(
    ngx_coord_redis_channels_t *channels, ngx_coord_redis_channel_t *channel);
static void ngx_coord_redis_channel_lost(ngx_coord_redis_channel_t *channel);
static void ngx_coord_redis_channels_pump(
    ngx_coord_redis_channels_t *channels);
static ngx_int_t ngx_coord_redis_channel_ask(
    ngx_coord_redis_channels_t *channels, ngx_coord_redis_channel_t *channel);


void
ngx_coord_redis_channels_init(ngx_coord_redis_channels_t *channels,
    ngx_coord_redis_conn_t *conn)
{
    ngx_memzero(channels, sizeof(ngx_coord_redis_channels_t));

    channels->conn = conn;

    ngx_rbtree_init(&channels->tree, &channels->sentinel,
                    ngx_str_rbtree_insert_value);

    ngx_queue_init(&channels->wanted);
    ngx_queue_init(&channels->asked);
    ngx_queue_init(&channels->refused);
}


void
ngx_coord_redis_channels_done(ngx_coord_redis_channels_t *channels)
{
    ngx_rbtree_node_t  *node;

    while (channels->tree.root != &channels->sentinel) {
        node = ngx_rbtree_min(channels->tree.root, &channels->sentinel);

        ngx_rbtree_delete(&channels->tree, node);
        ngx_free(node);
    }
}


ngx_int_t
ngx_coord_redis_channels_add(ngx_coord_redis_channels_t *channels,
    ngx_coord_redis_listener_t *listener)
{
    ngx_coord_redis_channel_t  *channel;

    channel = ngx_coord_redis_channel_find(channels, &listener->channel);

    if (channel == NULL) {
        channel = ngx_coord_redis_channel_create(channels,
                                                 &listener->channel);
        if (channel == NULL) {
            return NGX_ERROR;
        }
    }

    listener->entry = channel;

    ngx_queue_insert_tail(&channel->listeners, &listener->queue);

    if (channel->state == NGX_COORD_CHANNEL_UNWANTED) {
        ngx_queue_remove(&channel->queue);
        channel->state = NGX_COORD_CHANNEL_HEARD;
    }

    if (channel->state == NGX_COORD_CHANNEL_REFUSED) {
        ngx_queue_remove(&channel->queue);
        ngx_coord_redis_channel_want(channels, channel);
    }

    ngx_coord_redis_channels_pump(channels);

    return channel->state == NGX_COORD_CHANNEL_HEARD ? NGX_OK : NGX_AGAIN;
}


void
ngx_coord_redis_channels_remove(ngx_coord_redis_channels_t *channels,
    ngx_coord_redis_listener_t *listener)
{
    ngx_coord_redis_channel_t  *channel;

    channel = listener->entry;

    if (channel == NULL) {
        return;
    }

    listener->entry = NULL;

    ngx_queue_remove(&listener->queue);

    if (ngx_queue_empty(&channel->listeners)) {
        ngx_coord_redis_channel_unwant(channels, channel);
        ngx_coord_redis_channels_pump(channels);
    }
}


static ngx_coord_redis_channel_t *
ngx_coord_redis_channel_find(ngx_coord_redis_channels_t *channels,
    ngx_str_t *name)
{
    return (ngx_coord_redis_channel_t *)
               ngx_str_rbtree_lookup(&channels->tree, name,
                                     ngx_crc32_long(name->data, name->len));
}


static ngx_coord_redis_channel_t *
ngx_coord_redis_channel_create(ngx_coord_redis_channels_t *channels,
    ngx_str_t *name)
{
    ngx_coord_redis_channel_t  *channel;

    channel = ngx_calloc(sizeof(ngx_coord_redis_channel_t) + name->len,
                         &channels->conn->log);
    if (channel == NULL) {
        return NULL;
    }

    ngx_queue_init(&channel->listeners);

    channel->node.str.data = (u_char *) channel
                             + sizeof(ngx_coord_redis_channel_t);
    channel->node.str.len = name->len;

    ngx_memcpy(channel->node.str.data, name->data, name->len);

    channel->node.node.key = ngx_crc32_long(name->data, name->len);

    ngx_rbtree_insert(&channels->tree, &channel->node.node);

    ngx_coord_redis_channel_want(channels, channel);

    return channel;
}


static void
ngx_coord_redis_channel_free(ngx_coord_redis_channels_t *channels,
    ngx_coord_redis_channel_t *channel)
{
    ngx_rbtree_delete(&channels->tree, &channel->node.node);

    ngx_free(channel);
}


static void
ngx_coord_redis_channel_want(ngx_coord_redis_channels_t *channels,
    ngx_coord_redis_channel_t *channel)
{
    channel->state = NGX_COORD_CHANNEL_WANTED;

    ngx_queue_insert_tail(&channels->wanted, &channel->queue);
}


/* nobody listens any more; a command that was sent has its reply first */

static void
ngx_coord_redis_channel_unwant(ngx_coord_redis_channels_t *channels,
    ngx_coord_redis_channel_t *channel)
{
    switch (channel->state) {

    case NGX_COORD_CHANNEL_WANTED:
    case NGX_COORD_CHANNEL_REFUSED:
        ngx_queue_remove(&channel->queue);
        ngx_coord_redis_channel_free(channels, channel);
        return;

    case NGX_COORD_CHANNEL_HEARD:
        channel->state = NGX_COORD_CHANNEL_UNWANTED;
        ngx_queue_insert_tail(&channels->wanted, &channel->queue);
        return;

    default:
        return;
    }
}


void
ngx_coord_redis_channels_ready(ngx_coord_redis_channels_t *channels)
{
    channels->ready = 1;

    ngx_coord_redis_channels_pump(channels);
}


void
ngx_coord_redis_channels_closed(ngx_coord_redis_channels_t *channels)
{
    ngx_rbtree_node_t          *node, *next;
    ngx_coord_redis_channel_t  *channel;

    channels->ready = 0;
    channels->nasked = 0;

    ngx_queue_init(&channels->wanted);
    ngx_queue_init(&channels->asked);
    ngx_queue_init(&channels->refused);

    if (channels->tree.root == &channels->sentinel) {
        return;
    }

    for (node = ngx_rbtree_min(channels->tree.root, &channels->sentinel);
         node;
         node = next)
    {
        next = ngx_rbtree_next(&channels->tree, node);
        channel = (ngx_coord_redis_channel_t *) node;

        if (ngx_queue_empty(&channel->listeners)) {
            ngx_coord_redis_channel_free(channels, channel);
            continue;
        }

        ngx_coord_redis_channel_lost(channel);
        ngx_coord_redis_channel_want(channels, channel);
    }
}


static void
ngx_coord_redis_channel_lost(ngx_coord_redis_channel_t *channel)
{
    ngx_queue_t                 *q;
    ngx_coord_redis_listener_t  *listener;

    if (channel->state != NGX_COORD_CHANNEL_HEARD) {
        return;
    }

    for (q = ngx_queue_head(&channel->listeners);
         q != ngx_queue_sentinel(&channel->listeners);
         q = ngx_queue_next(q))
    {
        listener = ngx_queue_data(q, ngx_coord_redis_listener_t, queue);
        listener->lost(listener);
    }
}


void
ngx_coord_redis_channels_retry(ngx_coord_redis_channels_t *channels)
{
    ngx_queue_t                *q;
    ngx_coord_redis_channel_t  *channel;

    while (!ngx_queue_empty(&channels->refused)) {
        q = ngx_queue_head(&channels->refused);
        channel = ngx_queue_data(q, ngx_coord_redis_channel_t, queue);

        ngx_queue_remove(q);
        ngx_coord_redis_channel_want(channels, channel);
    }

    ngx_coord_redis_channels_pump(channels);
}


ngx_int_t
ngx_coord_redis_channels_reply(ngx_coord_redis_channels_t *channels,
    ngx_str_t *name, ngx_uint_t subscribed)
{
    ngx_coord_redis_channel_t  *channel;

    channel = ngx_coord_redis_channel_answered(channels);

    if (channel == NULL
        || channel->node.str.len != name->len
        || ngx_memcmp(channel->node.str.data, name->data, name->len) != 0
        || subscribed != (channel->state == NGX_COORD_CHANNEL_ASKED_FOR))
    {
        return NGX_ERROR;
    }

    ngx_queue_remove(&channel->queue);
    channels->nasked--;

    if (subscribed) {
        ngx_coord_redis_channel_heard(channels, channel);

    } else if (ngx_queue_empty(&channel->listeners)) {
        ngx_coord_redis_channel_free(channels, channel);

    } else {
        ngx_coord_redis_channel_want(channels, channel);
    }

    ngx_coord_redis_channels_pump(channels);

    return NGX_OK;
}


/* the channel of the next reply; NULL: none is to come */

static ngx_coord_redis_channel_t *
ngx_coord_redis_channel_answered(ngx_coord_redis_channels_t *channels)
{
    ngx_queue_t  *q;

    if (ngx_queue_empty(&channels->asked)) {
        return NULL;
    }

    q = ngx_queue_head(&channels->asked);

    return ngx_queue_data(q, ngx_coord_redis_channel_t, queue);
}


static void
ngx_coord_redis_channel_heard(ngx_coord_redis_channels_t *channels,
    ngx_coord_redis_channel_t *channel)
{
    ngx_queue_t                 *q;
    ngx_coord_redis_listener_t  *listener;

    channel->state = NGX_COORD_CHANNEL_HEARD;

    if (ngx_queue_empty(&channel->listeners)) {
        ngx_coord_redis_channel_unwant(channels, channel);
        return;
    }

    for (q = ngx_queue_head(&channel->listeners);
         q != ngx_queue_sentinel(&channel->listeners);
         q = ngx_queue_next(q))
    {
        listener = ngx_queue_data(q, ngx_coord_redis_listener_t, queue);
        listener->heard(listener);
    }
}


ngx_int_t
ngx_coord_redis_channels_error(ngx_coord_redis_channels_t *channels)
{
    ngx_coord_redis_channel_t  *channel;

    channel = ngx_coord_redis_channel_answered(channels);

    if (channel == NULL || channel->state != NGX_COORD_CHANNEL_ASKED_FOR) {
        return NGX_ERROR;
    }

    ngx_queue_remove(&channel->queue);
    channels->nasked--;

    if (ngx_queue_empty(&channel->listeners)) {
        ngx_coord_redis_channel_free(channels, channel);

    } else {
        channel->state = NGX_COORD_CHANNEL_REFUSED;
        ngx_queue_insert_tail(&channels->refused, &channel->queue);
    }

    ngx_coord_redis_channels_pump(channels);

    return NGX_OK;
}


ngx_int_t
ngx_coord_redis_channels_message(ngx_coord_redis_channels_t *channels,
    ngx_str_t *name, ngx_str_t *text)
{
    ngx_queue_t                 *q;
    ngx_coord_redis_channel_t   *channel;
    ngx_coord_redis_listener_t  *listener;

    channel = ngx_coord_redis_channel_find(channels, name);

    if (channel == NULL) {
        return NGX_ERROR;
    }

    switch (channel->state) {

    case NGX_COORD_CHANNEL_HEARD:
        break;

    case NGX_COORD_CHANNEL_UNWANTED:
    case NGX_COORD_CHANNEL_LEAVING:
        return NGX_OK;

    default: /* not subscribed */
        return NGX_ERROR;
    }

    for (q = ngx_queue_head(&channel->listeners);
         q != ngx_queue_sentinel(&channel->listeners);
         q = ngx_queue_next(q))
    {
        listener = ngx_queue_data(q, ngx_coord_redis_listener_t, queue);
        listener->message(listener, text);
    }

    return NGX_OK;
}


static void
ngx_coord_redis_channels_pump(ngx_coord_redis_channels_t *channels)
{
    ngx_queue_t                *q;
    ngx_coord_redis_channel_t  *channel;

    while (channels->ready
           && channels->nasked < NGX_COORD_CHANNEL_ASKED
           && !ngx_queue_empty(&channels->wanted))
    {
        q = ngx_queue_head(&channels->wanted);
        channel = ngx_queue_data(q, ngx_coord_redis_channel_t, queue);

        /* without room: with the next reply, or the next connection */

        if (ngx_coord_redis_channel_ask(channels, channel) != NGX_OK) {
            return;
        }

        ngx_queue_remove(q);
        ngx_queue_insert_tail(&channels->asked, q);
        channels->nasked++;
    }
}


static ngx_int_t
ngx_coord_redis_channel_ask(ngx_coord_redis_channels_t *channels,
    ngx_coord_redis_channel_t *channel)
{
    size_t             size;
    u_char            *p;
    ngx_str_t         *name;
    ngx_coord_fail_e   failure;

    name = &channel->node.str;

    size = sizeof(NGX_COORD_UNSUBSCRIBE) - 1
           + ngx_coord_redis_bulk_size(name->len);

    p = ngx_coord_redis_conn_room(channels->conn, size, &failure);
    if (p == NULL) {
        return NGX_ERROR;
    }

    if (channel->state == NGX_COORD_CHANNEL_WANTED) {
        channel->state = NGX_COORD_CHANNEL_ASKED_FOR;
        p = ngx_cpymem(p, NGX_COORD_SUBSCRIBE,
                       sizeof(NGX_COORD_SUBSCRIBE) - 1);

    } else {
        channel->state = NGX_COORD_CHANNEL_LEAVING;
        p = ngx_cpymem(p, NGX_COORD_UNSUBSCRIBE,
                       sizeof(NGX_COORD_UNSUBSCRIBE) - 1);
    }

    p = ngx_coord_redis_bulk(p, name->data, name->len);

    ngx_coord_redis_conn_queue(channels->conn, p);

    return NGX_OK;
}
