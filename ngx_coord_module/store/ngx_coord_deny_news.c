
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * What is known of refused keys: news of other nodes.
 */


#include "ngx_coord_deny.h"
#include "ngx_coord_channel.h"
#include "ngx_coord_store_metrics.h"
#include "ngx_coord_store_redis.h"


static void ngx_coord_deny_message(void *data, ngx_str_t *channel,
    ngx_str_t *message);
static void ngx_coord_deny_subscribed(void *data);
static ngx_uint_t ngx_coord_deny_heard(ngx_coord_store_t *store);
static ngx_atomic_uint_t ngx_coord_deny_where(ngx_coord_store_t *store);


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


/* what was told meanwhile is not known, unless others of the node have heard */

static void
ngx_coord_deny_subscribed(void *data)
{
    ngx_coord_store_t *store = data;

    ngx_coord_zone_t  *zone;

    if (ngx_coord_deny_heard(store)) {
        return;
    }

    for (zone = store->denying; zone; zone = zone->denies) {
        ngx_coord_deny_drop_all(zone);
    }
}


/*
 * 1 if this process has only begun to listen, and another one of this node did
 * before, to the same.  What that one may have missed without knowing it, it
 * forgets when it listens again.
 */

static ngx_uint_t
ngx_coord_deny_heard(ngx_coord_store_t *store)
{
    ngx_uint_t                 i, heard, again;
    ngx_atomic_uint_t          where;
    ngx_coord_store_hearer_t  *h, *own;

    if (store->counts == NULL) {
        return 0;
    }

    heard = 0;
    where = ngx_coord_deny_where(store);

    h = store->counts->hearers;
    own = &h[store->stats - store->counts->procs];

    for (i = 0; i < NGX_COORD_METRICS_PROCS; i++) {
        if (h[i].pid
            && h[i].pid != (ngx_atomic_uint_t) ngx_pid
            && h[i].where == where
            && ngx_coord_alive((ngx_pid_t) h[i].pid))
        {
            heard = 1;
            break;
        }
    }

    again = (own->pid == (ngx_atomic_uint_t) ngx_pid);

    own->where = where;
    own->pid = (ngx_atomic_uint_t) ngx_pid;

    return heard && !again;
}


/* a reload may have a store of this name speak to others */

static ngx_atomic_uint_t
ngx_coord_deny_where(ngx_coord_store_t *store)
{
    ngx_coord_redis_conf_t  *conf;

    conf = &ngx_coord_store_redis(store)->conf;

    return ngx_coord_redis_conf_sum(conf)
           ^ ngx_crc32_long(store->deny.data, store->deny.len);
}
