
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * What is known of refused keys: news of other nodes.
 */


#include "ngx_coord_deny.h"
#include "ngx_coord_channel.h"
#include "ngx_coord_store_metrics.h"


static void ngx_coord_deny_message(void *data, ngx_str_t *channel,
    ngx_str_t *message);
static void ngx_coord_deny_subscribed(void *data);
static ngx_uint_t ngx_coord_deny_begins(ngx_coord_store_t *store);


ngx_int_t
ngx_coord_deny_zone(ngx_pool_t *pool, ngx_coord_zone_t *zone)
{
    ngx_coord_store_t  *store;

    store = zone->store;

    if (ngx_coord_store_is_memory(store)) {
        return NGX_OK;
    }

    zone->denies = store->denying;
    store->denying = zone;

    return ngx_coord_channel_add(pool, store, "deny", ngx_coord_deny_message,
                                 ngx_coord_deny_subscribed, &store->deny);
}


/* 1 if it is the first time, and another worker has heard all until now */

static ngx_uint_t
ngx_coord_deny_begins(ngx_coord_store_t *store)
{
    ngx_uint_t     i, slot;
    ngx_atomic_t  *hears;

    if (store->counts == NULL) {
        return 0;
    }

    hears = store->counts->hears;
    slot = store->stats - store->counts->procs;

    if (hears[slot]) {
        return 0;
    }

    hears[slot] = 1;

    for (i = 0; i < NGX_COORD_METRICS_PROCS; i++) {
        if (i != slot && hears[i] && ngx_coord_metrics_living(i)) {
            return 1;
        }
    }

    return 0;
}


/* "<key in Redis>": its zone, and what stands in its braces */

static void
ngx_coord_deny_message(void *data, ngx_str_t *channel, ngx_str_t *message)
{
    ngx_coord_store_t *store = data;

    ngx_str_t         *head;
    ngx_coord_zone_t  *zone;

    for (zone = store->denying; zone; zone = zone->denies) {
        head = &zone->key_head;

        if (message->len > head->len
            && ngx_memcmp(message->data, head->data, head->len) == 0)
        {
            ngx_coord_deny_drop(zone, message->data + head->len,
                                message->len - head->len - 1, 1);
        }
    }
}


/*
 * What was told meanwhile is not known.  A worker that has just begun may have
 * missed what others of the node have heard: the memory is that of all.
 */

static void
ngx_coord_deny_subscribed(void *data)
{
    ngx_coord_store_t *store = data;

    ngx_coord_zone_t  *zone;

    if (ngx_coord_deny_begins(store)) {
        return;
    }

    for (zone = store->denying; zone; zone = zone->denies) {
        ngx_coord_deny_drop_all(zone);
    }
}
