
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * What several workers of a node want at the same time is asked by one of them.
 * It leaves its word in shared memory until it has the answer, which the others
 * find there.  payload[0]: until when it waits, on the clock of the node;
 * payload[1]: its word.
 */


#include "ngx_coord_near_worker.h"
#include "ngx_coord_store_redis.h"


#define ngx_coord_near_share_tag(item)                                        \
    (NGX_COORD_NEAR_NOTE + 1 + (item)->field)


static ngx_coord_entry_t *ngx_coord_near_share_find(
    ngx_coord_near_item_t *item, u_char *key, size_t len);
static ngx_int_t ngx_coord_near_share_read(ngx_coord_near_item_t *item,
    ngx_coord_near_answer_t *answer);


ngx_atomic_uint_t
ngx_coord_near_share_begin(ngx_coord_near_item_t *item)
{
    size_t                    len;
    u_char                    key[NGX_COORD_KEY_LEN];
    uint64_t                  payload[2];
    ngx_coord_nsec_t          now;
    ngx_coord_store_t        *store;
    ngx_coord_table_t        *table;
    ngx_coord_entry_t        *entry;
    ngx_coord_near_worker_t  *worker;

    store = item->near->zone->store;
    worker = store->nearby;

    len = ngx_coord_key_encode(key, &item->key);
    table = len ? ngx_coord_zone_lock(item->near->zone) : NULL;

    if (table == NULL) {
        return worker->epoch;
    }

    now = ngx_coord_monotonic();

    entry = ngx_coord_near_share_find(item, key, len);

    if (entry
        && now < (ngx_coord_nsec_t) entry->payload[0]
        && entry->payload[1] != worker->epoch
        && ngx_coord_near_stands(store, entry->payload[1]))
    {
        ngx_coord_zone_unlock(item->near->zone);
        return 0;
    }

    if (entry) {
        ngx_coord_table_remove(table, entry);
    }

    payload[0] = (uint64_t) now
                 + ngx_coord_store_conf(store)->timeout
                   * NGX_COORD_NSEC_PER_MSEC;
    payload[1] = worker->epoch;

    (void) ngx_coord_table_insert(table, ngx_coord_near_share_tag(item),
                                  NGX_COORD_ENTRY_EVICT, key, len, payload,
                                  (ngx_coord_nsec_t) payload[0]
                                  + NGX_COORD_NSEC_PER_SEC, now);

    ngx_coord_zone_unlock(item->near->zone);

    return worker->epoch;
}


void
ngx_coord_near_share_end(ngx_coord_near_item_t *item, ngx_atomic_uint_t epoch)
{
    size_t              len;
    u_char              key[NGX_COORD_KEY_LEN];
    ngx_coord_table_t  *table;
    ngx_coord_entry_t  *entry;

    len = ngx_coord_key_encode(key, &item->key);
    table = len ? ngx_coord_zone_lock(item->near->zone) : NULL;

    if (table == NULL) {
        return;
    }

    entry = ngx_coord_near_share_find(item, key, len);

    if (entry && entry->payload[1] == epoch) {
        ngx_coord_table_remove(table, entry);
    }

    ngx_coord_zone_unlock(item->near->zone);
}


ngx_int_t
ngx_coord_near_share_look(ngx_coord_near_item_t *item,
    ngx_coord_near_answer_t *answer)
{
    size_t              len;
    u_char              key[NGX_COORD_KEY_LEN];
    ngx_int_t           rc;
    ngx_coord_zone_t   *zone;
    ngx_coord_entry_t  *entry;

    zone = item->near->zone;
    len = ngx_coord_key_encode(key, &item->key);

    if (len == 0 || ngx_coord_zone_lock(zone) == NULL) {
        return NGX_DECLINED;
    }

    entry = ngx_coord_near_share_find(item, key, len);

    if (entry == NULL
        || !ngx_coord_near_stands(zone->store, entry->payload[1]))
    {
        rc = NGX_OK;

    } else if (ngx_coord_monotonic() < (ngx_coord_nsec_t) entry->payload[0]) {
        rc = NGX_AGAIN;

    } else {
        rc = NGX_BUSY;
    }

    ngx_coord_zone_unlock(zone);

    return rc == NGX_OK ? ngx_coord_near_share_read(item, answer) : rc;
}


/* in a table that is entered; NULL: nobody is about to ask */

static ngx_coord_entry_t *
ngx_coord_near_share_find(ngx_coord_near_item_t *item, u_char *key, size_t len)
{
    return ngx_coord_table_find(item->near->zone->table,
                                ngx_coord_near_share_tag(item), key, len,
                                ngx_coord_monotonic());
}


/* NGX_DECLINED: it is not there, or not to be trusted */

static ngx_int_t
ngx_coord_near_share_read(ngx_coord_near_item_t *item,
    ngx_coord_near_answer_t *answer)
{
    u_char                   *p;
    ngx_int_t                 rc;
    ngx_pool_t               *pool;
    ngx_coord_near_answer_t   found;

    pool = ngx_create_pool(NGX_MIN_POOL_SIZE, ngx_cycle->log);
    if (pool == NULL) {
        return NGX_DECLINED;
    }

    rc = ngx_coord_near_get(item, pool, &found);

    if (rc == NGX_OK && found.state == NGX_COORD_NEAR_VALUE) {
        p = ngx_alloc(found.value.len + 1, ngx_cycle->log);

        if (p) {
            ngx_memcpy(p, found.value.data, found.value.len);
            found.value.data = p;

        } else {
            rc = NGX_ERROR;
        }
    }

    ngx_destroy_pool(pool);

    if (rc != NGX_OK) {
        return NGX_DECLINED;
    }

    *answer = found;

    return NGX_OK;
}
