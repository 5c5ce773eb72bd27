
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Messages of a memory store: a ring in shared memory that the workers of a
 * node read when they are told, or several times a second where they cannot be.
 * What a worker is late for is gone, as is the oldest of what was kept.
 */


#include "ngx_coord_bus_store.h"


#define NGX_COORD_BUS_POLL     20         /* milliseconds */

#define ngx_coord_bus_align(n)  (((n) + 7) & ~(size_t) 7)


/* in the ring, never across its end; a gap before that has no channel */
typedef struct {
    uint32_t                   size;          /* with what follows */
    uint32_t                   hash;          /* of the channel */
    uint32_t                   channel_len;
    uint32_t                   text_len;
    uint32_t                   keep;          /* messages; 0: it is not kept */
    uint32_t                   unused;
    ngx_coord_event_id_t       id;
    uint64_t                   expires;       /* milliseconds, monotonic */
} ngx_coord_bus_entry_t;


/* copies of entries, made under the lock and looked at without it */
typedef struct {
    u_char                    *start;
    u_char                    *pos;
    u_char                    *end;
} ngx_coord_bus_copy_t;


static ngx_coord_bus_entry_t *ngx_coord_bus_entry(ngx_coord_bus_t *bus,
    ngx_atomic_uint_t position);
static ngx_coord_bus_entry_t *ngx_coord_bus_append(ngx_coord_bus_t *bus,
    size_t size);
static void ngx_coord_bus_next_id(ngx_coord_bus_t *bus,
    ngx_coord_event_id_t *id);
static ngx_coord_bus_listener_t *ngx_coord_bus_memory_find(
    ngx_coord_bus_t *bus, ngx_coord_bus_entry_t *entry);
static void ngx_coord_bus_memory_poll(ngx_event_t *ev);
static ngx_int_t ngx_coord_bus_memory_collect(ngx_coord_bus_t *bus,
    ngx_coord_bus_copy_t *copy);
static ngx_int_t ngx_coord_bus_copy(ngx_coord_bus_copy_t *copy,
    ngx_coord_bus_entry_t *entry);
static void ngx_coord_bus_memory_tell(ngx_coord_bus_t *bus,
    ngx_coord_bus_copy_t *copy);
static ngx_uint_t ngx_coord_bus_memory_is(ngx_coord_bus_entry_t *entry,
    ngx_str_t *channel, uint32_t hash);
static ngx_uint_t ngx_coord_bus_memory_skip(ngx_coord_bus_t *bus,
    ngx_coord_bus_read_t *read, uint32_t hash);
static ngx_int_t ngx_coord_bus_memory_page(ngx_coord_bus_t *bus,
    ngx_coord_bus_read_t *read, ngx_coord_bus_copy_t *copy);


void
ngx_coord_bus_memory_start(ngx_coord_bus_t *bus)
{
    ngx_rbtree_init(&bus->tree, &bus->sentinel, ngx_str_rbtree_insert_value);

    ngx_coord_timer_init(&bus->poll, ngx_coord_bus_memory_poll, bus,
                         ngx_cycle->log);
    bus->poll.event.cancelable = 1;
}


static ngx_coord_bus_entry_t *
ngx_coord_bus_entry(ngx_coord_bus_t *bus, ngx_atomic_uint_t position)
{
    u_char  *ring;

    ring = (u_char *) bus->shm + sizeof(ngx_coord_bus_shm_t);

    return (ngx_coord_bus_entry_t *)
               (ring + position % NGX_COORD_BUS_RING);
}


void
ngx_coord_bus_memory_publish(ngx_coord_bus_t *bus, ngx_str_t *channel,
    ngx_str_t *text, ngx_uint_t history, ngx_msec_t ttl)
{
    u_char                 *p;
    size_t                  size;
    ngx_slab_pool_t        *shpool;
    ngx_coord_bus_entry_t  *entry;

    size = ngx_coord_bus_align(sizeof(ngx_coord_bus_entry_t) + channel->len
                               + text->len);

    shpool = (ngx_slab_pool_t *) bus->shm_zone->shm.addr;

    ngx_shmtx_lock(&shpool->mutex);

    entry = ngx_coord_bus_append(bus, size);

    ngx_memzero(entry, sizeof(ngx_coord_bus_entry_t));

    entry->size = size;
    entry->hash = ngx_crc32_long(channel->data, channel->len);
    entry->channel_len = channel->len;
    entry->text_len = text->len;
    entry->keep = history;

    if (history) {
        ngx_coord_bus_next_id(bus, &entry->id);
        entry->expires = (uint64_t) ngx_current_msec + ttl;
    }

    p = (u_char *) entry + sizeof(ngx_coord_bus_entry_t);
    p = ngx_cpymem(p, channel->data, channel->len);
    ngx_memcpy(p, text->data, text->len);

    ngx_memory_barrier();

    if (history) {
        bus->shm->last = entry->id;
    }

    bus->shm->head += size;

    ngx_shmtx_unlock(&shpool->mutex);

    (void) ngx_atomic_fetch_add(&bus->store->stats->events_published, 1);

    if (bus->nlisteners) {
        ngx_post_event(&bus->poll.event, &ngx_posted_events);
    }

    ngx_coord_bus_bell_ring(bus);
}


/* room at the head; the oldest make it */

static ngx_coord_bus_entry_t *
ngx_coord_bus_append(ngx_coord_bus_t *bus, size_t size)
{
    size_t                  rest, need;
    ngx_coord_bus_shm_t    *shm;
    ngx_coord_bus_entry_t  *gap;

    shm = bus->shm;

    rest = NGX_COORD_BUS_RING - shm->head % NGX_COORD_BUS_RING;
    need = rest < size ? rest + size : size;

    while (shm->head - shm->tail + need > NGX_COORD_BUS_RING) {
        shm->tail += ngx_coord_bus_entry(bus, shm->tail)->size;
    }

    if (rest < size) {
        gap = ngx_coord_bus_entry(bus, shm->head);

        /* a gap may be shorter than an entry: no more than its begin */

        gap->size = rest;
        gap->hash = 0;

        if (rest > 8) {
            gap->channel_len = 0;
            gap->text_len = 0;
        }

        ngx_memory_barrier();

        shm->head += rest;
    }

    return ngx_coord_bus_entry(bus, shm->head);
}


static void
ngx_coord_bus_next_id(ngx_coord_bus_t *bus, ngx_coord_event_id_t *id)
{
    uint64_t     ms;
    ngx_time_t  *tp;

    tp = ngx_timeofday();
    ms = (uint64_t) tp->sec * 1000 + tp->msec;

    if (ms > bus->shm->last.ms) {
        id->ms = ms;
        id->seq = 0;
        return;
    }

    id->ms = bus->shm->last.ms;
    id->seq = bus->shm->last.seq + 1;
}


void
ngx_coord_bus_memory_listen(ngx_coord_bus_t *bus,
    ngx_coord_bus_listener_t *listener)
{
    if (bus->nlisteners++ == 0) {
        bus->position = bus->shm->head;

        if (ngx_coord_bus_bell_watch(bus) != NGX_OK) {
            ngx_coord_timer_start(&bus->poll, NGX_COORD_BUS_POLL);
        }
    }

    listener->node.str = listener->channel;
    listener->node.node.key = ngx_crc32_long(listener->channel.data,
                                             listener->channel.len);
    listener->heard = 1;

    ngx_rbtree_insert(&bus->tree, &listener->node.node);
}


void
ngx_coord_bus_memory_follow(ngx_coord_bus_t *bus,
    ngx_coord_bus_listener_t *listener)
{
    ngx_uint_t        n;
    ngx_slab_pool_t  *shpool;

    shpool = (ngx_slab_pool_t *) bus->shm_zone->shm.addr;

    /* what is still to be told has ids that are not behind "last" */

    for (n = 0; n < 8; n++) {
        ngx_coord_bus_memory_poll(&bus->poll.event);

        ngx_shmtx_lock(&shpool->mutex);

        listener->last = bus->shm->last;

        if (bus->position == bus->shm->head) {
            n = 8;
        }

        ngx_shmtx_unlock(&shpool->mutex);
    }
}


void
ngx_coord_bus_memory_leave(ngx_coord_bus_t *bus,
    ngx_coord_bus_listener_t *listener)
{
    ngx_rbtree_delete(&bus->tree, &listener->node.node);

    if (--bus->nlisteners == 0) {
        ngx_coord_timer_stop(&bus->poll);
        ngx_coord_bus_bell_leave(bus);
    }
}


static ngx_coord_bus_listener_t *
ngx_coord_bus_memory_find(ngx_coord_bus_t *bus, ngx_coord_bus_entry_t *entry)
{
    ngx_str_t        name;
    ngx_str_node_t  *node;

    name.data = (u_char *) entry + sizeof(ngx_coord_bus_entry_t);
    name.len = entry->channel_len;

    node = ngx_str_rbtree_lookup(&bus->tree, &name, entry->hash);

    if (node == NULL) {
        return NULL;
    }

    return (ngx_coord_bus_listener_t *)
               ((u_char *) node - offsetof(ngx_coord_bus_listener_t, node));
}


static void
ngx_coord_bus_memory_poll(ngx_event_t *ev)
{
    ngx_coord_bus_t *bus = ngx_coord_timer_data(ev);

    ngx_int_t             rc;
    ngx_coord_bus_copy_t  copy;

    while (bus->nlisteners && bus->position != bus->shm->head) {

        ngx_memzero(&copy, sizeof(ngx_coord_bus_copy_t));

        rc = ngx_coord_bus_memory_collect(bus, &copy);

        ngx_coord_bus_memory_tell(bus, &copy);

        if (copy.start) {
            ngx_free(copy.start);
        }

        if (rc != NGX_AGAIN) {
            break;
        }
    }

    if (bus->nlisteners
        && !ev->timer_set
        && (bus->watch == NULL || bus->position != bus->shm->head))
    {
        ngx_add_timer(ev, NGX_COORD_BUS_POLL);
    }
}


/* NGX_AGAIN: there may be more */

static ngx_int_t
ngx_coord_bus_memory_collect(ngx_coord_bus_t *bus, ngx_coord_bus_copy_t *copy)
{
    ngx_int_t               rc;
    ngx_slab_pool_t        *shpool;
    ngx_coord_bus_shm_t    *shm;
    ngx_coord_bus_entry_t  *entry;

    shm = bus->shm;
    shpool = (ngx_slab_pool_t *) bus->shm_zone->shm.addr;
    rc = NGX_OK;

    ngx_shmtx_lock(&shpool->mutex);

    if (bus->position - shm->tail > shm->head - shm->tail) {
        bus->position = shm->tail;
    }

    while (bus->position != shm->head) {
        entry = ngx_coord_bus_entry(bus, bus->position);

        if (entry->size >= sizeof(ngx_coord_bus_entry_t)
            && entry->channel_len
            && ngx_coord_bus_memory_find(bus, entry))
        {
            rc = ngx_coord_bus_copy(copy, entry);

            if (rc != NGX_OK) {
                break;
            }
        }

        bus->position += entry->size;
    }

    ngx_shmtx_unlock(&shpool->mutex);

    return rc;
}


/* NGX_AGAIN: the copy is full; NGX_ERROR: no memory */

static ngx_int_t
ngx_coord_bus_copy(ngx_coord_bus_copy_t *copy, ngx_coord_bus_entry_t *entry)
{
    if (copy->start == NULL) {
        copy->start = ngx_alloc(NGX_COORD_BUS_COPY, ngx_cycle->log);

        if (copy->start == NULL) {
            return NGX_ERROR;
        }

        copy->pos = copy->start;
        copy->end = copy->start + NGX_COORD_BUS_COPY;
    }

    if ((size_t) (copy->end - copy->pos) < entry->size) {
        return NGX_AGAIN;
    }

    copy->pos = ngx_cpymem(copy->pos, entry, entry->size);

    return NGX_OK;
}


static void
ngx_coord_bus_memory_tell(ngx_coord_bus_t *bus, ngx_coord_bus_copy_t *copy)
{
    u_char                    *p;
    ngx_coord_event_t          ev;
    ngx_coord_bus_entry_t     *entry;
    ngx_coord_bus_listener_t  *listener;

    for (p = copy->start; p < copy->pos; p += entry->size) {
        entry = (ngx_coord_bus_entry_t *) p;

        listener = ngx_coord_bus_memory_find(bus, entry);

        if (listener == NULL) {
            continue;
        }

        ev.text.data = p + sizeof(ngx_coord_bus_entry_t) + entry->channel_len;
        ev.text.len = entry->text_len;
        ev.id = entry->id;
        ev.plain = 1;
        ev.kept = listener->history;

        if (entry->keep) {
            listener->last = entry->id;
        }

        listener->event(listener, &ev);
    }
}


static ngx_uint_t
ngx_coord_bus_memory_is(ngx_coord_bus_entry_t *entry, ngx_str_t *channel,
    uint32_t hash)
{
    return entry->size >= sizeof(ngx_coord_bus_entry_t)
           && entry->hash == hash
           && entry->keep
           && entry->channel_len == channel->len
           && ngx_memcmp((u_char *) entry + sizeof(ngx_coord_bus_entry_t),
                         channel->data, channel->len)
              == 0;
}


ngx_int_t
ngx_coord_bus_memory_read(ngx_coord_bus_t *bus, ngx_coord_bus_read_t *read)
{
    u_char                 *p;
    ngx_int_t               rc;
    ngx_slab_pool_t        *shpool;
    ngx_coord_event_t       ev;
    ngx_coord_bus_copy_t    copy;
    ngx_coord_bus_entry_t  *entry;

    shpool = (ngx_slab_pool_t *) bus->shm_zone->shm.addr;

    ngx_memzero(&copy, sizeof(ngx_coord_bus_copy_t));

    ngx_shmtx_lock(&shpool->mutex);

    rc = ngx_coord_bus_memory_page(bus, read, &copy);

    ngx_shmtx_unlock(&shpool->mutex);

    for (p = copy.start; p < copy.pos; p += entry->size) {
        entry = (ngx_coord_bus_entry_t *) p;

        ev.text.data = p + sizeof(ngx_coord_bus_entry_t) + entry->channel_len;
        ev.text.len = entry->text_len;
        ev.id = entry->id;
        ev.plain = 0;
        ev.kept = 1;

        read->event(read, &ev);
    }

    if (copy.start) {
        ngx_free(copy.start);
    }

    return rc;
}


static ngx_int_t
ngx_coord_bus_memory_page(ngx_coord_bus_t *bus, ngx_coord_bus_read_t *read,
    ngx_coord_bus_copy_t *copy)
{
    uint32_t                hash;
    ngx_int_t               rc;
    ngx_uint_t              skip, n;
    ngx_atomic_uint_t       position;
    ngx_coord_bus_entry_t  *entry;

    hash = ngx_crc32_long(read->channel.data, read->channel.len);

    skip = ngx_coord_bus_memory_skip(bus, read, hash);
    n = 0;

    for (position = bus->shm->tail;
         position != bus->shm->head;
         position += entry->size)
    {
        entry = ngx_coord_bus_entry(bus, position);

        if (!ngx_coord_bus_memory_is(entry, &read->channel, hash)) {
            continue;
        }

        if (skip) {
            skip--;
            continue;
        }

        if (ngx_coord_event_id_cmp(&entry->id, &read->after) <= 0) {
            continue;
        }

        rc = (n++ < NGX_COORD_BUS_PAGE) ? ngx_coord_bus_copy(copy, entry)
                                        : NGX_AGAIN;

        if (rc != NGX_OK) {
            return rc;
        }
    }

    return NGX_OK;
}


/*
 * How many of a channel are more than it keeps: all, when the last one is over.
 * Finds that one.
 */

static ngx_uint_t
ngx_coord_bus_memory_skip(ngx_coord_bus_t *bus, ngx_coord_bus_read_t *read,
    uint32_t hash)
{
    ngx_uint_t              n;
    ngx_atomic_uint_t       position;
    ngx_coord_bus_entry_t  *entry, *last;

    n = 0;
    last = NULL;

    ngx_memzero(&read->head, sizeof(ngx_coord_event_id_t));

    for (position = bus->shm->tail;
         position != bus->shm->head;
         position += entry->size)
    {
        entry = ngx_coord_bus_entry(bus, position);

        if (ngx_coord_bus_memory_is(entry, &read->channel, hash)) {
            n++;
            last = entry;
        }
    }

    if (last == NULL || last->expires <= (uint64_t) ngx_current_msec) {
        return n;
    }

    read->head = last->id;

    return n > last->keep ? n - last->keep : 0;
}
