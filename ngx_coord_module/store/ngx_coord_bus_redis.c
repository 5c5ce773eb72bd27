
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Listening over Redis.  A channel is subscribed to once in a worker.  Where
 * its history is followed, the channel that has the name of the stream is, too:
 * a mark on it comes right before a message that stands in the stream.  Such a
 * message is read from there, with its id, so that what comes twice or not at
 * all over the subscription is told once and in order; one without a mark is
 * told as it is heard.
 */


#include "ngx_coord_bus_store.h"


#define NGX_COORD_BUS_MARKS    64
#define NGX_COORD_BUS_RETRY    250        /* milliseconds */


typedef struct {
    ngx_coord_bus_listener_t    *owner;
    ngx_coord_redis_listener_t   channel;
    ngx_coord_redis_listener_t   stream;      /* its marks */
    ngx_coord_bus_read_t        *read;        /* NULL: not followed */
    ngx_event_t                  post;
    ngx_coord_timer_t            retry;

    /* of stored messages that are still to be heard, the oldest first */
    u_char                       marks[NGX_COORD_BUS_MARKS]
                                      [NGX_COORD_BUS_MARK_LEN];
    ngx_uint_t                   nmarks;

    unsigned                     heard:1;     /* the channel */
    unsigned                     marked:1;    /* the stream's */
    unsigned                     known:1;     /* where the stream ends */
    unsigned                     news:1;      /* the stream is to be read */
    unsigned                     tell:1;      /* ready() is to be called */
} ngx_coord_bus_link_t;


static void ngx_coord_bus_heard(ngx_coord_redis_listener_t *listener);
static void ngx_coord_bus_channel_lost(ngx_coord_redis_listener_t *listener);
static void ngx_coord_bus_message(ngx_coord_redis_listener_t *listener,
    ngx_str_t *text);
static ngx_uint_t ngx_coord_bus_marked(ngx_coord_bus_link_t *link,
    ngx_str_t *text);
static void ngx_coord_bus_stream_heard(ngx_coord_redis_listener_t *listener);
static void ngx_coord_bus_stream_lost(ngx_coord_redis_listener_t *listener);
static void ngx_coord_bus_stream_mark(ngx_coord_redis_listener_t *listener,
    ngx_str_t *text);
static void ngx_coord_bus_check_ready(ngx_coord_bus_link_t *link);
static void ngx_coord_bus_work(ngx_event_t *ev);
static void ngx_coord_bus_again(ngx_event_t *ev);
static void ngx_coord_bus_page_event(ngx_coord_bus_read_t *read,
    ngx_coord_event_t *ev);
static void ngx_coord_bus_page_done(ngx_coord_bus_read_t *read,
    ngx_int_t rc);


ngx_int_t
ngx_coord_bus_redis_listen(ngx_coord_bus_t *bus,
    ngx_coord_bus_listener_t *listener)
{
    ngx_int_t              rc;
    ngx_coord_redis_t     *client;
    ngx_coord_bus_link_t  *link;

    client = ngx_coord_bus_client(bus->store);

    if (client == NULL) {
        return NGX_ERROR;
    }

    link = ngx_calloc(sizeof(ngx_coord_bus_link_t), ngx_cycle->log);
    if (link == NULL) {
        return NGX_ERROR;
    }

    link->owner = listener;

    link->post.handler = ngx_coord_bus_work;
    link->post.data = link;
    link->post.log = ngx_cycle->log;

    ngx_coord_timer_init(&link->retry, ngx_coord_bus_again, link,
                         ngx_cycle->log);
    link->retry.event.cancelable = 1;

    link->channel.channel = listener->channel;
    link->channel.message = ngx_coord_bus_message;
    link->channel.heard = ngx_coord_bus_heard;
    link->channel.lost = ngx_coord_bus_channel_lost;
    link->channel.data = link;

    rc = ngx_coord_redis_listen(client, &link->channel);

    if (rc == NGX_ERROR) {
        ngx_free(link);
        return NGX_ERROR;
    }

    listener->link = link;

    link->heard = (rc == NGX_OK);
    listener->heard = link->heard;

    return rc;
}


ngx_int_t
ngx_coord_bus_redis_follow(ngx_coord_bus_t *bus,
    ngx_coord_bus_listener_t *listener)
{
    ngx_int_t              rc;
    ngx_coord_redis_t     *client;
    ngx_coord_bus_link_t  *link;

    link = listener->link;
    client = ngx_coord_bus_client(bus->store);

    listener->heard = 0;

    link->read = ngx_coord_bus_read_create(bus->store, &listener->channel);

    if (link->read == NULL) {
        listener->history = 0;
        return NGX_ERROR;
    }

    link->read->event = ngx_coord_bus_page_event;
    link->read->done = ngx_coord_bus_page_done;
    link->read->data = link;

    /* nothing of what is there: only where it ends */

    link->read->after.ms = UINT64_MAX;
    link->read->after.seq = UINT64_MAX;

    ngx_coord_bus_read_key(link->read, &link->stream.channel);

    link->stream.message = ngx_coord_bus_stream_mark;
    link->stream.heard = ngx_coord_bus_stream_heard;
    link->stream.lost = ngx_coord_bus_stream_lost;
    link->stream.data = link;

    rc = client ? ngx_coord_redis_listen(client, &link->stream) : NGX_ERROR;

    if (rc == NGX_ERROR) {
        ngx_coord_bus_read_free(link->read);
        link->read = NULL;
        listener->history = 0;
        return NGX_ERROR;
    }

    if (rc == NGX_OK) {
        ngx_coord_bus_stream_heard(&link->stream);
    }

    return NGX_AGAIN;
}


void
ngx_coord_bus_redis_leave(ngx_coord_bus_t *bus,
    ngx_coord_bus_listener_t *listener)
{
    ngx_coord_redis_t     *client;
    ngx_coord_bus_link_t  *link;

    link = listener->link;
    client = ngx_coord_bus_client(bus->store);

    if (client) {
        ngx_coord_redis_unlisten(client, &link->channel);
        ngx_coord_redis_unlisten(client, &link->stream);
    }

    if (link->post.posted) {
        ngx_delete_posted_event(&link->post);
    }

    ngx_coord_timer_stop(&link->retry);

    if (link->read) {
        ngx_coord_bus_read_free(link->read);
    }

    ngx_free(link);

    listener->link = NULL;
}


static void
ngx_coord_bus_heard(ngx_coord_redis_listener_t *listener)
{
    ngx_coord_bus_link_t *link = listener->data;

    /* whose messages were missed */

    link->nmarks = 0;
    link->heard = 1;

    ngx_coord_bus_check_ready(link);
}


/* those who come now wait; those who are there hear again by themselves */

static void
ngx_coord_bus_channel_lost(ngx_coord_redis_listener_t *listener)
{
    ngx_coord_bus_link_t *link = listener->data;

    link->heard = 0;
    link->tell = 0;
    link->owner->heard = 0;
}


/*
 * Before the marks are heard nobody knows whether a message is in the stream:
 * who follows that has it from there.
 */

static void
ngx_coord_bus_message(ngx_coord_redis_listener_t *listener, ngx_str_t *text)
{
    ngx_coord_bus_link_t *link = listener->data;

    ngx_coord_event_t          ev;
    ngx_coord_bus_listener_t  *owner;

    owner = link->owner;

    ngx_memzero(&ev, sizeof(ngx_coord_event_t));

    ev.text = *text;
    ev.plain = 1;
    ev.kept = (owner->history && link->marked
               && !ngx_coord_bus_marked(link, text));

    owner->event(owner, &ev);
}


/*
 * 1 if a mark is for this text; an empty one is for the next text of all.  In
 * a cluster messages of other nodes may come between the two.
 */

static ngx_uint_t
ngx_coord_bus_marked(ngx_coord_bus_link_t *link, ngx_str_t *text)
{
    u_char      mark[NGX_COORD_BUS_MARK_LEN];
    ngx_uint_t  i;

    if (link->nmarks == 0) {
        return 0;
    }

    (void) ngx_coord_bus_mark(mark, text);

    for (i = 0; i < link->nmarks; i++) {

        if (link->marks[i][0] == '\0'
            || ngx_memcmp(link->marks[i], mark, NGX_COORD_BUS_MARK_LEN) == 0)
        {
            link->nmarks--;
            ngx_memmove(link->marks[i], link->marks[i + 1],
                        (link->nmarks - i) * NGX_COORD_BUS_MARK_LEN);
            return 1;
        }
    }

    return 0;
}


/* marks may have been missed: the stream tells */

static void
ngx_coord_bus_stream_heard(ngx_coord_redis_listener_t *listener)
{
    ngx_coord_bus_link_t *link = listener->data;

    link->nmarks = 0;
    link->marked = 1;
    link->news = 1;

    ngx_post_event(&link->post, &ngx_posted_events);

    ngx_coord_bus_check_ready(link);
}


static void
ngx_coord_bus_stream_lost(ngx_coord_redis_listener_t *listener)
{
    ngx_coord_bus_link_t *link = listener->data;

    link->marked = 0;
    link->tell = 0;
    link->owner->heard = 0;
}


static void
ngx_coord_bus_stream_mark(ngx_coord_redis_listener_t *listener,
    ngx_str_t *text)
{
    ngx_coord_bus_link_t *link = listener->data;

    if (link->nmarks == NGX_COORD_BUS_MARKS) {
        link->nmarks--;
        ngx_memmove(link->marks[0], link->marks[1],
                    link->nmarks * NGX_COORD_BUS_MARK_LEN);
    }

    if (text->len == NGX_COORD_BUS_MARK_LEN) {
        ngx_memcpy(link->marks[link->nmarks++], text->data,
                   NGX_COORD_BUS_MARK_LEN);

    } else {
        link->marks[link->nmarks++][0] = '\0';
    }

    link->news = 1;

    ngx_post_event(&link->post, &ngx_posted_events);
}


static void
ngx_coord_bus_check_ready(ngx_coord_bus_link_t *link)
{
    ngx_coord_bus_listener_t  *owner;

    owner = link->owner;

    if (link->heard
        && (!owner->history || (link->marked && link->known)))
    {
        link->tell = 1;
        ngx_post_event(&link->post, &ngx_posted_events);
    }
}


static void
ngx_coord_bus_work(ngx_event_t *ev)
{
    ngx_coord_bus_link_t *link = ev->data;

    ngx_coord_bus_listener_t  *owner;

    owner = link->owner;

    if (link->news && link->read && !link->read->busy) {
        link->news = 0;
        ngx_coord_bus_read(link->read);
    }

    if (link->tell) {
        link->tell = 0;
        owner->heard = 1;

        /* the owner may leave */

        owner->ready(owner);
    }
}


static void
ngx_coord_bus_again(ngx_event_t *ev)
{
    ngx_coord_bus_link_t *link = ngx_coord_timer_data(ev);

    ngx_post_event(&link->post, &ngx_posted_events);
}


static void
ngx_coord_bus_page_event(ngx_coord_bus_read_t *read, ngx_coord_event_t *ev)
{
    ngx_coord_bus_link_t *link = read->data;

    ngx_coord_bus_listener_t  *owner;

    owner = link->owner;

    owner->last = ev->id;
    owner->event(owner, ev);
}


static void
ngx_coord_bus_page_done(ngx_coord_bus_read_t *read, ngx_int_t rc)
{
    ngx_coord_bus_link_t *link = read->data;

    ngx_coord_bus_listener_t  *owner;

    owner = link->owner;

    if (rc == NGX_ERROR) {
        link->news = 1;

        if (!link->retry.event.timer_set) {
            ngx_coord_timer_start(&link->retry, NGX_COORD_BUS_RETRY);
        }

        return;
    }

    /*
     * A stream that ends before what was told is another one: a replica that
     * had not got all of it, or new after a flush.
     */

    if (!link->known
        || (read->head.ms
            && ngx_coord_event_id_cmp(&read->head, &owner->last) < 0))
    {
        owner->last = read->head;
    }

    read->after = owner->last;

    if (!link->known) {
        link->known = 1;
        ngx_coord_bus_check_ready(link);
    }

    if (rc == NGX_AGAIN) {
        link->news = 1;
    }

    if (link->news) {
        ngx_post_event(&link->post, &ngx_posted_events);
    }
}
