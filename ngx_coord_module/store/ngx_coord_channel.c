
/*
 * Copyright (C) ngx_coord_module contributors
 */


#include "ngx_coord_channel.h"
#include "ngx_coord_store_redis.h"


typedef struct {
    ngx_str_t                        name;    /* with the prefix */
    ngx_coord_channel_message_pt     message;
    ngx_coord_channel_subscribed_pt  subscribed;
} ngx_coord_channel_t;


static void ngx_coord_channel_message(void *data, ngx_str_t *channel,
    ngx_str_t *message);
static void ngx_coord_channel_subscribed(void *data);


ngx_int_t
ngx_coord_channel_add(ngx_pool_t *pool, ngx_coord_store_t *store,
    const char *name, ngx_coord_channel_message_pt message,
    ngx_coord_channel_subscribed_pt subscribed, ngx_str_t *channel)
{
    size_t                    len;
    ngx_str_t                *s;
    ngx_uint_t                i;
    ngx_coord_channel_t      *ch;
    ngx_coord_store_redis_t  *redis;

    if (ngx_coord_store_is_memory(store)) {
        return NGX_OK;
    }

    redis = ngx_coord_store_redis(store);

    if (store->channels == NULL) {
        store->channels = ngx_array_create(pool, 2,
                                           sizeof(ngx_coord_channel_t));
        redis->conf.channels = ngx_array_create(pool, 2, sizeof(ngx_str_t));

        if (store->channels == NULL || redis->conf.channels == NULL) {
            return NGX_ERROR;
        }
    }

    len = store->key_prefix.len;
    ch = store->channels->elts;

    for (i = 0; i < store->channels->nelts; i++) {
        if (ch[i].name.len == len + ngx_strlen(name)
            && ngx_strncmp(ch[i].name.data + len, name, ngx_strlen(name)) == 0)
        {
            if (channel) {
                *channel = ch[i].name;
            }

            return NGX_OK;
        }
    }

    ch = ngx_array_push(store->channels);
    s = ngx_array_push(redis->conf.channels);

    if (ch == NULL || s == NULL) {
        return NGX_ERROR;
    }

    ch->message = message;
    ch->subscribed = subscribed;
    ch->name.len = len + ngx_strlen(name);

    ch->name.data = ngx_pnalloc(pool, ch->name.len);
    if (ch->name.data == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(ch->name.data, store->key_prefix.data, len);
    ngx_memcpy(ch->name.data + len, name, ngx_strlen(name));

    *s = ch->name;

    if (channel) {
        *channel = ch->name;
    }

    return NGX_OK;
}


ngx_int_t
ngx_coord_channel_init(ngx_coord_store_t *store)
{
    if (store->channels == NULL) {
        return NGX_OK;
    }

    return ngx_coord_redis_subscribe(ngx_coord_store_redis(store)->client,
                                     ngx_coord_channel_message,
                                     ngx_coord_channel_subscribed, store);
}


static void
ngx_coord_channel_message(void *data, ngx_str_t *channel, ngx_str_t *message)
{
    ngx_coord_store_t *store = data;

    ngx_uint_t            i;
    ngx_coord_channel_t  *ch;

    ch = store->channels->elts;

    for (i = 0; i < store->channels->nelts; i++) {
        if (ch[i].name.len == channel->len
            && ngx_strncmp(ch[i].name.data, channel->data, channel->len) == 0)
        {
            ch[i].message(store, channel, message);
            return;
        }
    }
}


static void
ngx_coord_channel_subscribed(void *data)
{
    ngx_coord_store_t *store = data;

    ngx_uint_t            i;
    ngx_coord_channel_t  *ch;

    ch = store->channels->elts;

    for (i = 0; i < store->channels->nelts; i++) {
        if (ch[i].subscribed) {
            ch[i].subscribed(store);
        }
    }
}
