
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * A channel of a client.  Who returns with the id of the last message that it
 * has is behind: what it missed is read for it, page by page, until it has all
 * that was told to the others; from then on it is told with them.
 */


#include "ngx_http_coord_events.h"


/* milliseconds until a store that had no answer is asked again */
#define NGX_HTTP_COORD_EVENTS_RETRY  500

/* reads that bring nothing while others were told more */
#define NGX_HTTP_COORD_EVENTS_READS  3


static void ngx_http_coord_link_id(ngx_http_coord_client_t *client,
    ngx_uint_t alone, ngx_uint_t force);
static void ngx_http_coord_link_read(ngx_http_coord_link_t *link);
static void ngx_http_coord_link_event(ngx_coord_bus_read_t *read,
    ngx_coord_event_t *ev);
static void ngx_http_coord_link_done(ngx_coord_bus_read_t *read,
    ngx_int_t rc);


void
ngx_http_coord_link_ready(ngx_http_coord_link_t *link)
{
    ngx_uint_t                i, returns;
    ngx_http_coord_client_t  *client;

    client = link->client;

    if (link->state != NGX_HTTP_COORD_LINK_WAITING) {
        ngx_http_coord_link_more(client);
        return;
    }

    if (!client->history) {
        link->state = NGX_HTTP_COORD_LINK_LIVE;
        ngx_http_coord_events_due(client);
        return;
    }

    link->joined = link->hub->listener.last;

    if (link->returns) {
        link->state = NGX_HTTP_COORD_LINK_BEHIND;
        link->more = 1;

    } else {
        link->state = NGX_HTTP_COORD_LINK_LIVE;
        link->position = link->joined;
    }

    returns = 0;

    for (i = 0; i < client->nlinks; i++) {

        if (client->links[i].state == NGX_HTTP_COORD_LINK_WAITING) {
            return;
        }

        returns |= client->links[i].returns;
    }

    /* where it is, should it be gone before the first message */

    if (!returns) {
        ngx_http_coord_link_id(client, 1, 1);
    }

    ngx_http_coord_events_due(client);
}


void
ngx_http_coord_link_tell(ngx_http_coord_link_t *link,
    ngx_http_coord_frame_t *frame, ngx_uint_t force)
{
    ngx_http_coord_client_t  *client;

    client = link->client;

    link->position = frame->id;

    if (client->nlinks == 1) {
        ngx_http_coord_events_out(client, frame, 0, force);
        return;
    }

    /* several channels: its id names the position in each of them */

    ngx_http_coord_link_id(client, 0, force);
    ngx_http_coord_events_out(client, frame, frame->head, force);
}


/* alone: no event follows, and none is told by it */

static void
ngx_http_coord_link_id(ngx_http_coord_client_t *client, ngx_uint_t alone,
    ngx_uint_t force)
{
    u_char                  *p;
    ngx_uint_t               i;
    ngx_http_coord_frame_t  *frame;
    u_char                   text[sizeof("id: \n\n")
                                  + NGX_HTTP_COORD_EVENTS_CHANNELS
                                    * (NGX_COORD_EVENT_ID_LEN + 1)];

    p = ngx_cpymem(text, "id: ", sizeof("id: ") - 1);

    for (i = 0; i < client->nlinks; i++) {

        if (i) {
            *p++ = ',';
        }

        p = ngx_coord_event_id_print(p, &client->links[i].position);
    }

    *p++ = LF;

    if (alone) {
        *p++ = LF;
    }

    frame = ngx_http_coord_frame_text(text, p - text);

    if (frame == NULL) {
        return;
    }

    ngx_http_coord_events_out(client, frame, 0, force);
    ngx_http_coord_frame_release(frame);
}


void
ngx_http_coord_link_more(ngx_http_coord_client_t *client)
{
    ngx_uint_t  i;

    if (client->pending || client->state != NGX_HTTP_COORD_CLIENT_OPEN) {
        return;
    }

    for (i = 0; i < client->nlinks; i++) {

        if (client->links[i].more) {
            ngx_http_coord_link_read(&client->links[i]);
        }
    }
}


static void
ngx_http_coord_link_read(ngx_http_coord_link_t *link)
{
    ngx_coord_bus_read_t  *read;

    link->more = 0;

    read = link->read;

    if (read == NULL) {
        read = ngx_coord_bus_read_create(link->client->store,
                                         &link->hub->listener.channel);
        if (read == NULL) {
            link->client->state = NGX_HTTP_COORD_CLIENT_CUT;
            ngx_http_coord_events_due(link->client);
            return;
        }

        read->event = ngx_http_coord_link_event;
        read->done = ngx_http_coord_link_done;
        read->data = link;

        link->read = read;
    }

    read->after = link->position;

    ngx_coord_bus_read(read);
}


/* inside the store */

static void
ngx_http_coord_link_event(ngx_coord_bus_read_t *read, ngx_coord_event_t *ev)
{
    ngx_http_coord_link_t *link = read->data;

    ngx_http_coord_frame_t  *frame;

    frame = ngx_http_coord_frame(&read->channel, ev);

    if (frame == NULL) {
        link->client->state = NGX_HTTP_COORD_CLIENT_CUT;
        ngx_http_coord_events_due(link->client);
        return;
    }

    link->reads = 0;

    ngx_http_coord_link_tell(link, frame, 1);
    ngx_http_coord_frame_release(frame);
}


static void
ngx_http_coord_link_done(ngx_coord_bus_read_t *read, ngx_int_t rc)
{
    ngx_http_coord_link_t *link = read->data;

    ngx_coord_event_id_t     *told;
    ngx_http_coord_client_t  *client;

    client = link->client;

    if (rc == NGX_ERROR) {
        link->more = 1;
        ngx_coord_timer_start(&client->timer, NGX_HTTP_COORD_EVENTS_RETRY);
        return;
    }

    told = &link->hub->listener.last;

    /* an id of another stream, or of nobody: it has what was there before it */

    if (ngx_coord_event_id_cmp(&link->position, &read->head) > 0
        && ngx_coord_event_id_cmp(&link->position, &link->joined) > 0)
    {
        link->position = link->joined;
        rc = NGX_AGAIN;
    }

    if (rc == NGX_AGAIN
        || (ngx_coord_event_id_cmp(&link->position, told) < 0
            && link->reads++ < NGX_HTTP_COORD_EVENTS_READS))
    {
        link->more = 1;
        ngx_http_coord_link_more(client);
        return;
    }

    link->state = NGX_HTTP_COORD_LINK_LIVE;

    ngx_coord_bus_read_free(read);
    link->read = NULL;
}
