
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The channels of a store: fixed when the configuration is read, served by
 * one subscriber connection in each worker of a store that has any.
 */


#ifndef _NGX_COORD_CHANNEL_H_INCLUDED_
#define _NGX_COORD_CHANNEL_H_INCLUDED_


#include "ngx_coord_store.h"


/* a message, data is the store, the rest valid during the call */
typedef void (*ngx_coord_channel_message_pt)(void *data, ngx_str_t *channel,
    ngx_str_t *message);

/* subscribed, perhaps again: messages may be missing */
typedef void (*ngx_coord_channel_subscribed_pt)(void *data);


/*
 * Has the messages of channel "<prefix><name>" of a Redis store given to
 * message(), with the store as its data, and subscribed() (may be NULL)
 * called when messages may have been missed.  Both run inside the client and
 * must post whatever resumes a request.  One that is there already counts
 * once; a memory store has no channels.  *channel, if not NULL, is its name
 * with the prefix, which lives in pool.  NGX_ERROR: no memory.
 */
ngx_int_t ngx_coord_channel_add(ngx_pool_t *pool, ngx_coord_store_t *store,
    const char *name, ngx_coord_channel_message_pt message,
    ngx_coord_channel_subscribed_pt subscribed, ngx_str_t *channel);

/* from the store's init: subscribes; NGX_ERROR: no memory */
ngx_int_t ngx_coord_channel_init(ngx_coord_store_t *store);


#endif /* _NGX_COORD_CHANNEL_H_INCLUDED_ */
