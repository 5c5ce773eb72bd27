
/*
 * Copyright (C) ngx_coord_module contributors
 */


#include "ngx_coord_bus_store.h"


static ngx_coord_bus_t *ngx_coord_bus_get(ngx_coord_store_t *store);


ngx_int_t
ngx_coord_bus_add(ngx_conf_t *cf, ngx_coord_store_t *store, void *tag)
{
    size_t            size;
    ngx_str_t         name;
    ngx_coord_bus_t  *bus;

    if (store->bus) {
        return NGX_OK;
    }

    bus = ngx_pcalloc(cf->pool, sizeof(ngx_coord_bus_t));
    if (bus == NULL) {
        return NGX_ERROR;
    }

    /* another kind of store is another memory */

    name.data = ngx_pnalloc(cf->pool, sizeof("coord_events_redis_") - 1
                                      + store->name.len);
    if (name.data == NULL) {
        return NGX_ERROR;
    }

    size = sizeof(ngx_coord_bus_shm_t) + 16 * ngx_pagesize;

    if (ngx_coord_store_is_memory(store)) {
        size += NGX_COORD_BUS_RING + NGX_COORD_BUS_RING / 64;
        name.len = ngx_sprintf(name.data, "coord_events_%V", &store->name)
                   - name.data;

    } else {
        name.len = ngx_sprintf(name.data, "coord_events_redis_%V",
                               &store->name)
                   - name.data;
    }

    bus->store = store;
    bus->pool = cf->pool;
    bus->bell = -1;

    bus->shm_zone = ngx_shared_memory_add(cf, &name, size, tag);
    if (bus->shm_zone == NULL) {
        return NGX_ERROR;
    }

    bus->shm_zone->init = ngx_coord_bus_shm_init;
    bus->shm_zone->data = bus;

    store->bus = bus;

    return NGX_OK;
}


const char *
ngx_coord_bus_check(ngx_coord_store_t *store, ngx_str_t *channel)
{
    size_t      i;
    ngx_str_t  *prefix;

    if (channel->len == 0) {
        return "channel is empty";
    }

    if (channel->len > NGX_COORD_BUS_CHANNEL) {
        return "channel is longer than 255 bytes";
    }

    for (i = 0; i < channel->len; i++) {

        if (channel->data[i] <= ' ' || channel->data[i] == 0x7f) {
            return "channel has a space or a control character";
        }
    }

    if (ngx_utf8_length(channel->data, channel->len) > channel->len) {
        return "channel is not UTF-8";
    }

    if (store == NULL) {
        return NULL;
    }

    /* there the module tells itself of keys */

    prefix = &store->key_prefix;

    if (prefix->len
        && channel->len >= prefix->len
        && ngx_memcmp(channel->data, prefix->data, prefix->len) == 0)
    {
        return "channel begins with the key_prefix of the store";
    }

    return NULL;
}


/* the bus of a store, started in this worker; NULL: it has none */

static ngx_coord_bus_t *
ngx_coord_bus_get(ngx_coord_store_t *store)
{
    ngx_coord_bus_t  *bus;

    bus = store->bus;

    if (bus == NULL || bus->shm == NULL) {
        return NULL;
    }

    if (!bus->started) {
        bus->started = 1;

        ngx_coord_bus_publish_start(bus);
        ngx_coord_bus_memory_start(bus);
    }

    return bus;
}


void
ngx_coord_bus_publish(ngx_coord_store_t *store, ngx_str_t *channel,
    ngx_str_t *text, ngx_uint_t history, ngx_msec_t ttl)
{
    ngx_coord_bus_t  *bus;

    bus = ngx_coord_bus_get(store);

    if (bus == NULL) {
        return;
    }

    if (text->len > NGX_COORD_BUS_TEXT) {
        ngx_coord_bus_lost(bus, 1, "a message is longer than 128k");
        return;
    }

    if (ngx_coord_store_is_memory(store)) {
        ngx_coord_bus_memory_publish(bus, channel, text, history, ttl);
        return;
    }

    ngx_coord_bus_publish_message(bus, channel, text, history, ttl);
}


void
ngx_coord_bus_reject(ngx_coord_store_t *store, const char *why)
{
    ngx_coord_bus_t  *bus;

    bus = ngx_coord_bus_get(store);

    if (bus) {
        ngx_coord_bus_lost(bus, 1, why);
    }
}


ngx_int_t
ngx_coord_bus_listen(ngx_coord_store_t *store,
    ngx_coord_bus_listener_t *listener)
{
    ngx_coord_bus_t  *bus;

    bus = ngx_coord_bus_get(store);

    if (bus == NULL) {
        return NGX_ERROR;
    }

    listener->store = store;
    listener->link = NULL;
    listener->count = 0;
    listener->row = 0;
    listener->history = 0;
    listener->heard = 0;

    ngx_memzero(&listener->last, sizeof(ngx_coord_event_id_t));

    if (ngx_coord_store_is_memory(store)) {
        ngx_coord_bus_memory_listen(bus, listener);
        return NGX_OK;
    }

    return ngx_coord_bus_redis_listen(bus, listener);
}


ngx_int_t
ngx_coord_bus_follow(ngx_coord_bus_listener_t *listener)
{
    ngx_coord_store_t  *store;

    store = listener->store;

    if (listener->history) {
        return listener->heard ? NGX_OK : NGX_AGAIN;
    }

    listener->history = 1;

    if (ngx_coord_store_is_memory(store)) {
        ngx_coord_bus_memory_follow(store->bus, listener);
        return NGX_OK;
    }

    return ngx_coord_bus_redis_follow(store->bus, listener);
}


void
ngx_coord_bus_leave(ngx_coord_bus_listener_t *listener)
{
    ngx_coord_store_t  *store;

    store = listener->store;

    ngx_coord_bus_row(store->bus, listener, 0);

    if (ngx_coord_store_is_memory(store)) {
        ngx_coord_bus_memory_leave(store->bus, listener);
        return;
    }

    ngx_coord_bus_redis_leave(store->bus, listener);
}


void
ngx_coord_bus_count(ngx_coord_bus_listener_t *listener, ngx_uint_t n)
{
    ngx_coord_bus_row(listener->store->bus, listener, n);
}


ngx_uint_t
ngx_coord_bus_listeners(ngx_coord_store_t *store, ngx_str_t *channel)
{
    ngx_coord_bus_t  *bus;

    bus = store->bus;

    if (bus == NULL || bus->shm == NULL) {
        return 0;
    }

    return ngx_coord_bus_rows(bus, channel);
}


void
ngx_coord_bus_exit(ngx_coord_store_t *store)
{
    ngx_coord_bus_t  *bus;

    bus = store->bus;

    if (bus == NULL || !bus->started) {
        return;
    }

    ngx_coord_timer_stop(&bus->poll);
    ngx_coord_bus_bell_leave(bus);

    ngx_coord_bus_publish_exit(bus);
}
