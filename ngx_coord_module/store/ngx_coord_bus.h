
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Messages on channels: published in one place, heard by all workers, and,
 * where they are kept, read again by those who come back.  A channel is a name
 * of 1 to NGX_COORD_BUS_CHANNEL bytes.
 */


#ifndef _NGX_COORD_BUS_H_INCLUDED_
#define _NGX_COORD_BUS_H_INCLUDED_


#include "ngx_coord_event.h"
#include "ngx_coord_store.h"


#define NGX_COORD_BUS_CHANNEL  255
#define NGX_COORD_BUS_TEXT     131072     /* bytes of a message at most */
#define NGX_COORD_BUS_PAGE     16         /* messages of one read: some 2M */


/*
 * A message.  plain: it is for those who do not follow the history; kept: for
 * those who do.  id 0-0: it is not kept.  text is valid during the call.
 */
typedef struct {
    ngx_str_t                  text;
    ngx_coord_event_id_t       id;
    unsigned                   plain:1;
    unsigned                   kept:1;
} ngx_coord_event_t;


typedef struct ngx_coord_bus_listener_s  ngx_coord_bus_listener_t;
typedef struct ngx_coord_bus_read_s      ngx_coord_bus_read_t;


/*
 * Who listens to a channel.  The caller fills the upper part; memory and
 * channel are its own until ngx_coord_bus_leave().
 */

struct ngx_coord_bus_listener_s {
    ngx_str_t                  channel;

    /* a message; records and posts, and calls nothing of the bus */
    void                     (*event)(ngx_coord_bus_listener_t *listener,
                                      ngx_coord_event_t *ev);

    /*
     * It is heard from now on, and last is known if the history is followed;
     * posted, each time that this becomes true.
     */
    void                     (*ready)(ngx_coord_bus_listener_t *listener);
    void                      *data;

    /* the bus's */
    ngx_coord_store_t         *store;
    ngx_str_node_t             node;
    void                      *link;
    ngx_uint_t                 count;         /* as it was told */
    ngx_uint_t                 row;           /* of the count, from 1 */
    ngx_coord_event_id_t       last;          /* kept ones were told up to */
    unsigned                   history:1;     /* is followed */
    unsigned                   heard:1;       /* see ready() */
};


/*
 * A look back: messages of a channel behind "after", one page at a time.  The
 * memory is of ngx_coord_bus_read_create().
 */

struct ngx_coord_bus_read_s {
    ngx_coord_store_t         *store;
    ngx_str_t                  channel;
    ngx_coord_event_id_t       after;

    /* one of the page, in order, with kept set; records only */
    void                     (*event)(ngx_coord_bus_read_t *read,
                                      ngx_coord_event_t *ev);

    /*
     * The page is over: posted, never within ngx_coord_bus_read().  NGX_OK:
     * there was nothing more; NGX_AGAIN: there is; NGX_ERROR: no answer.  head
     * is the last message of all, 0-0: none.
     */
    void                     (*done)(ngx_coord_bus_read_t *read,
                                     ngx_int_t rc);
    void                      *data;

    ngx_coord_event_id_t       head;

    /* the bus's */
    ngx_event_t                post;
    ngx_int_t                  rc;
    unsigned                   busy:1;        /* done() is to come */
};


/*
 * At configuration: a store whose channels are used gets its shared memory,
 * once; tag is that of the memory.  NGX_ERROR: logged.
 */
ngx_int_t ngx_coord_bus_add(ngx_conf_t *cf, ngx_coord_store_t *store,
    void *tag);

/*
 * NULL if a channel may be used with the store, which may be NULL where it is
 * not known; or else why it may not.
 */
const char *ngx_coord_bus_check(ngx_coord_store_t *store,
    ngx_str_t *channel);

/*
 * Publishes a message; history is the number of messages to keep, 0: none, for
 * ttl milliseconds.  Both texts are copied.  What cannot be sent now is tried
 * again for some seconds, in order, and holds a worker that exits; what is lost
 * is counted and logged.
 */
void ngx_coord_bus_publish(ngx_coord_store_t *store, ngx_str_t *channel,
    ngx_str_t *text, ngx_uint_t history, ngx_msec_t ttl);

/* counts a message as lost that cannot be published; why: a constant text */
void ngx_coord_bus_reject(ngx_coord_store_t *store, const char *why);

/*
 * Starts to listen; one listener a channel in a worker.  NGX_OK: it is heard
 * now; NGX_AGAIN: ready() will tell; NGX_ERROR: no memory.
 */
ngx_int_t ngx_coord_bus_listen(ngx_coord_store_t *store,
    ngx_coord_bus_listener_t *listener);

/*
 * Follows the history as well, from what is the last message now.  Returns as
 * ngx_coord_bus_listen().
 */
ngx_int_t ngx_coord_bus_follow(ngx_coord_bus_listener_t *listener);

/* ends it; listener->event() and ready() are not called any more */
void ngx_coord_bus_leave(ngx_coord_bus_listener_t *listener);

/*
 * Tells how many there are behind a listener of this worker, for
 * ngx_coord_bus_listeners(): those of a channel on this node.
 */
void ngx_coord_bus_count(ngx_coord_bus_listener_t *listener, ngx_uint_t n);
ngx_uint_t ngx_coord_bus_listeners(ngx_coord_store_t *store,
    ngx_str_t *channel);

/* makes a read, its channel copied, or ends one at any time; NULL: no memory */
ngx_coord_bus_read_t *ngx_coord_bus_read_create(ngx_coord_store_t *store,
    ngx_str_t *channel);
void ngx_coord_bus_read_free(ngx_coord_bus_read_t *read);

/* asks for the page behind read->after; not while one is under way */
void ngx_coord_bus_read(ngx_coord_bus_read_t *read);

/* worker end, before the store's: what was not sent is given to the client */
void ngx_coord_bus_exit(ngx_coord_store_t *store);


#endif /* _NGX_COORD_BUS_H_INCLUDED_ */
