
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Private to the Redis client: the channels of its subscriber connection that
 * come and go with those who listen.  Each is asked for by a command of its
 * own, whose reply is the next one in the order of the commands.
 */


#ifndef _NGX_COORD_REDIS_CHANNEL_H_INCLUDED_
#define _NGX_COORD_REDIS_CHANNEL_H_INCLUDED_


#include "ngx_coord_redis_conn.h"


typedef struct {
    ngx_coord_redis_conn_t    *conn;
    ngx_rbtree_t               tree;          /* by name */
    ngx_rbtree_node_t          sentinel;
    ngx_queue_t                wanted;        /* commands still to be sent */
    ngx_queue_t                asked;         /* whose replies are to come */
    ngx_queue_t                refused;
    ngx_uint_t                 nasked;
    unsigned                   ready:1;       /* commands may be sent */
} ngx_coord_redis_channels_t;


/* an empty set on a connection, which is not ready */
void ngx_coord_redis_channels_init(ngx_coord_redis_channels_t *channels,
    ngx_coord_redis_conn_t *conn);

/* frees all; nobody is told */
void ngx_coord_redis_channels_done(ngx_coord_redis_channels_t *channels);

/* as ngx_coord_redis_listen() and ngx_coord_redis_unlisten() */
ngx_int_t ngx_coord_redis_channels_add(ngx_coord_redis_channels_t *channels,
    ngx_coord_redis_listener_t *listener);
void ngx_coord_redis_channels_remove(ngx_coord_redis_channels_t *channels,
    ngx_coord_redis_listener_t *listener);

/* the connection takes commands from now on: all channels are asked for */
void ngx_coord_redis_channels_ready(ngx_coord_redis_channels_t *channels);

/* the connection is lost: nothing is heard until it is ready again */
void ngx_coord_redis_channels_closed(ngx_coord_redis_channels_t *channels);

/* asks once more for those that the server has refused */
void ngx_coord_redis_channels_retry(ngx_coord_redis_channels_t *channels);

/*
 * The reply to the first command that has none, subscribed or not any more.
 * NGX_ERROR: it is not of that channel.
 */
ngx_int_t ngx_coord_redis_channels_reply(ngx_coord_redis_channels_t *channels,
    ngx_str_t *name, ngx_uint_t subscribed);

/* the same, an error; NGX_ERROR: no reply is to come */
ngx_int_t ngx_coord_redis_channels_error(ngx_coord_redis_channels_t *channels);

/* a message; NGX_ERROR: nobody has asked for that channel */
ngx_int_t ngx_coord_redis_channels_message(
    ngx_coord_redis_channels_t *channels, ngx_str_t *name, ngx_str_t *text);


#endif /* _NGX_COORD_REDIS_CHANNEL_H_INCLUDED_ */
