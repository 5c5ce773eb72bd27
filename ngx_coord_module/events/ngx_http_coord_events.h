
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Events, private to their folder: what clients hear, as server-sent events.
 *
 *   ngx_http_coord_events.c            directives, the publishing of requests
 *   ngx_http_coord_events_subscribe.c  a request to listen
 *   ngx_http_coord_events_client.c     a client that listens
 *   ngx_http_coord_events_hub.c        a channel and its clients in a worker
 *   ngx_http_coord_events_link.c       a channel of a client, and its history
 *   ngx_http_coord_events_out.c        what is on its way to a client
 *   ngx_http_coord_events_frame.c      the text of an event
 *   ngx_http_coord_events_api.c        the route of coord_api
 */


#ifndef _NGX_HTTP_COORD_EVENTS_H_INCLUDED_
#define _NGX_HTTP_COORD_EVENTS_H_INCLUDED_


#include "ngx_http_coord_api.h"
#include "ngx_http_coord_conf.h"
#include "ngx_coord_bus.h"


#define NGX_HTTP_COORD_EVENTS_CHANNELS  16        /* of one client */


typedef struct ngx_http_coord_client_s  ngx_http_coord_client_t;
typedef struct ngx_http_coord_hub_s     ngx_http_coord_hub_t;


/* a store that a directive names; found when all of them are known */
typedef struct {
    ngx_str_t                  name;          /* empty: the default store */
    ngx_coord_store_t         *store;
    u_char                    *file;
    ngx_uint_t                 line;
} ngx_http_coord_events_use_t;


/* coord_publish */
typedef struct {
    ngx_http_complex_value_t  *channel;
    ngx_http_complex_value_t  *message;
    ngx_http_complex_value_t  *condition;     /* NULL: always */
    ngx_uint_t                 history;       /* 0: it is not kept */
    ngx_msec_t                 ttl;
    ngx_http_coord_events_use_t  *use;
} ngx_http_coord_publish_t;


typedef struct {
    ngx_array_t               *publish;       /* ngx_http_coord_publish_t */
    unsigned                   off:1;

    /* coord_subscribe */
    ngx_array_t               *channels;      /* ngx_http_complex_value_t * */
    ngx_http_coord_events_use_t  *use;
    ngx_msec_t                 heartbeat;     /* 0: none */
    unsigned                   history:1;
} ngx_http_coord_events_conf_t;


/*
 * The text of an event; on the heap, shared by all clients that hear it, the
 * last of them frees it.
 */
typedef struct {
    ngx_uint_t                 refs;
    ngx_queue_t                queue;         /* of a hub */
    ngx_coord_event_id_t       id;            /* 0-0: none */
    size_t                     head;          /* bytes of the line "id" */
    size_t                     len;
    unsigned                   plain:1;       /* as of ngx_coord_event_t */
    unsigned                   kept:1;
    u_char                     data[1];
} ngx_http_coord_frame_t;


/* a frame on its way to a client; in the pool of the request */
typedef struct ngx_http_coord_events_out_s  ngx_http_coord_events_out_t;

struct ngx_http_coord_events_out_s {
    ngx_chain_t                chain;
    ngx_buf_t                  buf;
    ngx_http_coord_frame_t    *frame;
    ngx_http_coord_events_out_t  *next;
    size_t                     size;
};


/* a channel of a client */
typedef enum {
    NGX_HTTP_COORD_LINK_WAITING = 0,          /* until the channel is heard */
    NGX_HTTP_COORD_LINK_BEHIND,               /* reads what it missed */
    NGX_HTTP_COORD_LINK_LIVE
} ngx_http_coord_link_e;


typedef struct {
    ngx_http_coord_client_t   *client;
    ngx_http_coord_hub_t      *hub;
    ngx_queue_t                queue;         /* of the hub */
    ngx_http_coord_link_e      state;
    ngx_coord_event_id_t       position;      /* it has all up to this one */
    ngx_coord_event_id_t       joined;        /* the last one when it came */
    ngx_coord_bus_read_t      *read;
    ngx_uint_t                 reads;         /* that brought nothing new */
    unsigned                   returns:1;     /* it told where it was */
    unsigned                   more:1;        /* to be read when it can */
} ngx_http_coord_link_t;


typedef enum {
    NGX_HTTP_COORD_CLIENT_WAITING = 0,        /* its header is not sent yet */
    NGX_HTTP_COORD_CLIENT_OPEN,
    NGX_HTTP_COORD_CLIENT_CUT,                /* too slow, to be ended */
    NGX_HTTP_COORD_CLIENT_ENDED
} ngx_http_coord_client_e;


/* in the pool of the request */
struct ngx_http_coord_client_s {
    ngx_http_request_t        *request;
    ngx_http_coord_client_e    state;
    ngx_queue_t                queue;         /* of the worker */
    ngx_queue_t                due;           /* something is to be sent */
    ngx_coord_store_t         *store;
    ngx_http_coord_link_t     *links;
    ngx_uint_t                 nlinks;
    ngx_uint_t                 on_failure;

    ngx_coord_timer_t          timer;         /* heartbeat; at first: open */
    ngx_msec_t                 heartbeat;
    ngx_msec_t                 sent;          /* the last frame */

    /* frames, in order: those before next are with the output filters */
    ngx_http_coord_events_out_t  *first;
    ngx_http_coord_events_out_t  *next;
    ngx_http_coord_events_out_t  *last;
    ngx_http_coord_events_out_t  *free;
    size_t                     pending;       /* bytes of all of them */

    unsigned                   history:1;
    unsigned                   blocked:1;     /* until it can be written to */
    unsigned                   posted:1;      /* stands in the queue of due */
};


/* a channel in a worker, while somebody listens */
struct ngx_http_coord_hub_s {
    ngx_coord_bus_listener_t   listener;
    ngx_str_node_t             node;
    ngx_coord_store_t         *store;
    ngx_queue_t                links;         /* ngx_http_coord_link_t */
    ngx_uint_t                 nlinks;
    ngx_queue_t                frames;        /* heard, to be handed on */
    ngx_event_t                post;
};


/* of the worker */
typedef struct {
    ngx_queue_t                clients;
    ngx_queue_t                due;
    ngx_event_t                post;          /* sends to those */
    ngx_coord_timer_t          watch;         /* for the end of the worker */
    ngx_rbtree_t               hubs;
    ngx_rbtree_node_t          sentinel;
    ngx_coord_log_limit_t      cut;
    unsigned                   started:1;
} ngx_http_coord_events_worker_t;


extern ngx_module_t            ngx_http_coord_events_module;


/* --- ngx_http_coord_events_subscribe.c --- */

/* the content handler of coord_subscribe */
ngx_int_t ngx_http_coord_events_handler(ngx_http_request_t *r);


/* --- ngx_http_coord_events_client.c --- */

/*
 * Makes a client of a request, with room for n channels, that ends with the
 * request.  NULL: no memory.
 */
ngx_http_coord_client_t *ngx_http_coord_client_create(ngx_http_request_t *r,
    ngx_uint_t n);

/*
 * Has the stream begin as soon as all channels are heard, or some time later
 * by on_failure.  From the content handler, which returns NGX_DONE then.
 */
void ngx_http_coord_client_start(ngx_http_coord_client_t *client);

/* sends the fields of the header; rc as of ngx_http_send_header() */
ngx_int_t ngx_http_coord_client_header(ngx_http_request_t *r);


/* --- ngx_http_coord_events_link.c --- */

/*
 * A channel of a client is heard: it is told of news from now on.  Does nothing
 * for one that is told already.
 */
void ngx_http_coord_link_ready(ngx_http_coord_link_t *link);

/* tells a client of a kept message, whose id is its position from now on */
void ngx_http_coord_link_tell(ngx_http_coord_link_t *link,
    ngx_http_coord_frame_t *frame, ngx_uint_t force);

/* goes on with what a client has missed, if there is room */
void ngx_http_coord_link_more(ngx_http_coord_client_t *client);


/* --- ngx_http_coord_events_hub.c --- */

/*
 * Adds a link to the hub of a channel, which is made if there is none; link's
 * client is set.  NGX_OK: heard now; NGX_AGAIN: ngx_http_coord_link_ready()
 * will be called; NGX_ERROR: no memory.
 */
ngx_int_t ngx_http_coord_hub_join(ngx_http_coord_link_t *link,
    ngx_str_t *channel);

/* takes it out again; does nothing if it is in none */
void ngx_http_coord_hub_leave(ngx_http_coord_link_t *link);


/* --- ngx_http_coord_events_out.c --- */

extern ngx_http_coord_events_worker_t  ngx_http_coord_events_worker;

/*
 * Queues a frame for a client, from its byte "from" on, and has it sent at the
 * end of the turn.  Without memory, or if it has too much queued that is not
 * its own fault (force), the client is cut.
 */
void ngx_http_coord_events_out(ngx_http_coord_client_t *client,
    ngx_http_coord_frame_t *frame, size_t from, ngx_uint_t force);

/* sends what is queued; NGX_ERROR: the request is to be ended */
ngx_int_t ngx_http_coord_events_send(ngx_http_coord_client_t *client);

/* has ngx_http_coord_events_send() run for the client, posted */
void ngx_http_coord_events_due(ngx_http_coord_client_t *client);

/* lets go of all frames: a cleanup of the pool of the request */
void ngx_http_coord_events_drop(void *data);


/* --- ngx_http_coord_events_frame.c --- */

/*
 * Makes the frame of an event, or one of a given text; one reference is the
 * caller's.  NULL: no memory.
 */
ngx_http_coord_frame_t *ngx_http_coord_frame(ngx_str_t *channel,
    ngx_coord_event_t *ev);
ngx_http_coord_frame_t *ngx_http_coord_frame_text(const u_char *text,
    size_t len);

/* gives a reference back */
void ngx_http_coord_frame_release(ngx_http_coord_frame_t *frame);


/* --- ngx_http_coord_events_api.c: routes of coord_api --- */

extern const ngx_http_coord_route_t  ngx_http_coord_events_routes[];


#endif /* _NGX_HTTP_COORD_EVENTS_H_INCLUDED_ */
