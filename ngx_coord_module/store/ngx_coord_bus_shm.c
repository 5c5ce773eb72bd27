
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The shared memory of the bus.  A worker has a row for each channel that it
 * listens to; rows of processes that are gone are free.
 */


#include "ngx_coord_bus_store.h"


static ngx_uint_t ngx_coord_bus_row_take(ngx_coord_bus_t *bus,
    ngx_str_t *channel);


ngx_int_t
ngx_coord_bus_shm_init(ngx_shm_zone_t *shm_zone, void *data)
{
    size_t            size;
    ngx_slab_pool_t  *shpool;
    ngx_coord_bus_t  *bus, *obus;

    bus = shm_zone->data;
    obus = data;

    shpool = (ngx_slab_pool_t *) shm_zone->shm.addr;

    if (ngx_coord_store_is_memory(bus->store)
        && ngx_coord_bus_bell_init(bus, obus) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (obus) {
        bus->shm = obus->shm;
        return NGX_OK;
    }

    if (shm_zone->shm.exists) {
        bus->shm = shpool->data;
        return NGX_OK;
    }

    size = sizeof(ngx_coord_bus_shm_t);

    if (ngx_coord_store_is_memory(bus->store)) {
        size += NGX_COORD_BUS_RING;
    }

    bus->shm = ngx_slab_alloc(shpool, size);

    if (bus->shm == NULL) {
        return NGX_ERROR;
    }

    ngx_memzero(bus->shm, sizeof(ngx_coord_bus_shm_t));

    shpool->data = bus->shm;

    return NGX_OK;
}


uint64_t
ngx_coord_bus_name(ngx_str_t *channel)
{
    return ((uint64_t) ngx_crc32_long(channel->data, channel->len) << 32)
           | (uint32_t) ngx_hash_key(channel->data, channel->len);
}


void
ngx_coord_bus_row(ngx_coord_bus_t *bus, ngx_coord_bus_listener_t *listener,
    ngx_uint_t n)
{
    ngx_coord_bus_row_t  *row;

    (void) ngx_atomic_fetch_add(&bus->store->stats->event_listeners,
                                (ngx_int_t) n - (ngx_int_t) listener->count);
    listener->count = n;

    if (n && listener->row == 0) {
        listener->row = ngx_coord_bus_row_take(bus, &listener->channel);
    }

    if (listener->row == 0) {
        return;
    }

    row = &bus->shm->rows[listener->row - 1];
    row->count = n;

    if (n == 0) {
        ngx_memory_barrier();
        row->pid = 0;
        listener->row = 0;
    }
}


/* its number from 1; 0: none is free */

static ngx_uint_t
ngx_coord_bus_row_take(ngx_coord_bus_t *bus, ngx_str_t *channel)
{
    uint64_t              name;
    ngx_uint_t            i, n;
    ngx_slab_pool_t      *shpool;
    ngx_coord_bus_row_t  *row;

    name = ngx_coord_bus_name(channel);
    shpool = (ngx_slab_pool_t *) bus->shm_zone->shm.addr;

    ngx_shmtx_lock(&shpool->mutex);

    for (i = 0; i < NGX_COORD_BUS_ROWS; i++) {
        n = (name + i) % NGX_COORD_BUS_ROWS;
        row = &bus->shm->rows[n];

        if (row->pid == 0 || !ngx_coord_alive((ngx_pid_t) row->pid)) {
            row->count = 0;
            row->name = name;
            ngx_memory_barrier();
            row->pid = ngx_pid;

            ngx_shmtx_unlock(&shpool->mutex);

            return n + 1;
        }
    }

    ngx_shmtx_unlock(&shpool->mutex);

    return 0;
}


ngx_uint_t
ngx_coord_bus_rows(ngx_coord_bus_t *bus, ngx_str_t *channel)
{
    uint64_t              name;
    ngx_uint_t            i, n;
    ngx_coord_bus_row_t  *row;

    n = 0;
    name = ngx_coord_bus_name(channel);

    for (i = 0; i < NGX_COORD_BUS_ROWS; i++) {
        row = &bus->shm->rows[i];

        if (row->pid
            && row->name == name
            && ngx_coord_alive((ngx_pid_t) row->pid))
        {
            n += row->count;
        }
    }

    return n;
}


size_t
ngx_coord_bus_stream(ngx_coord_store_t *store, ngx_str_t *channel, u_char *p)
{
    size_t   len;
    u_char  *last;

    last = ngx_cpymem(p, store->key_prefix.data, store->key_prefix.len);
    last = ngx_cpymem(last, "ev:{", sizeof("ev:{") - 1);

    len = ngx_coord_key_encode(last, channel);

    if (len == 0) {
        return 0;
    }

    last += len;
    *last++ = '}';

    return last - p;
}


ngx_uint_t
ngx_coord_bus_slot(ngx_coord_store_t *store, u_char *key, size_t len)
{
    ngx_str_t  tag;

    tag.data = key + store->key_prefix.len + sizeof("ev:{") - 1;
    tag.len = key + len - 1 - tag.data;

    return ngx_coord_redis_slot(ngx_coord_bus_client(store), &tag);
}
