
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The Redis store: its client, and what it does as a store.
 */


#include "ngx_coord_store_redis.h"
#include "ngx_coord_store_metrics.h"
#include "ngx_coord_channel.h"


static ngx_int_t ngx_coord_store_redis_init(ngx_coord_store_t *store,
    ngx_cycle_t *cycle);
static void ngx_coord_store_redis_exit(ngx_coord_store_t *store);
static void ngx_coord_store_redis_push(ngx_coord_store_t *store);
static ngx_uint_t ngx_coord_store_redis_ready(ngx_coord_store_t *store);
static ngx_int_t ngx_coord_store_redis_topology(ngx_coord_store_t *store,
    ngx_pool_t *pool, ngx_coord_topology_t *topology);
static ngx_coord_nsec_t ngx_coord_store_redis_now(ngx_coord_op_t *op);
static ngx_uint_t ngx_coord_store_redis_apart(ngx_coord_store_t *store);


const ngx_coord_store_actions_t  ngx_coord_store_redis_actions = {
    ngx_coord_store_redis_init,
    ngx_coord_store_redis_exit,
    ngx_coord_parts_send,
    ngx_coord_store_redis_push,
    ngx_coord_store_redis_ready,
    ngx_coord_store_redis_topology,
    ngx_coord_store_redis_now,
    ngx_coord_store_redis_apart
};


static const ngx_coord_redis_need_t  ngx_coord_store_redis_need = {
    602,
    "without " NGX_COORD_STORE_NEWEST " coord_limit_conn, coord_lock and the "
    "algorithms sliding_window and sliding_log go by on_failure"
};


static ngx_int_t
ngx_coord_store_redis_init(ngx_coord_store_t *store, ngx_cycle_t *cycle)
{
    ngx_coord_store_redis_t  *redis;

    redis = ngx_coord_store_redis(store);

    ngx_queue_init(&redis->writes);
    ngx_coord_turn_init(store);

    redis->conf.need = &ngx_coord_store_redis_need;
    store->several = (redis->conf.mode == NGX_COORD_MODE_CLUSTER);

    redis->client = ngx_coord_redis_create(&redis->conf, store->stats,
                        store->counts ? &store->counts->known : NULL,
                        store->counts ? &store->counts->refusal : NULL, cycle);

    if (redis->client == NULL) {
        return NGX_ERROR;
    }

    return ngx_coord_channel_init(store);
}


static void
ngx_coord_store_redis_exit(ngx_coord_store_t *store)
{
    ngx_coord_redis_t        *client;
    ngx_coord_store_redis_t  *redis;

    redis = ngx_coord_store_redis(store);
    client = redis->client;

    /* the calls that end now find no client and start nothing new */

    redis->client = NULL;

    ngx_coord_turn_exit(store);

    if (client) {
        ngx_coord_redis_destroy(client);
    }
}


static void
ngx_coord_store_redis_push(ngx_coord_store_t *store)
{
    ngx_coord_store_redis_t  *redis;

    redis = ngx_coord_store_redis(store);

    if (redis->client) {
        ngx_coord_turn_send(store);
        ngx_coord_redis_push(redis->client);
    }
}


static ngx_uint_t
ngx_coord_store_redis_ready(ngx_coord_store_t *store)
{
    ngx_coord_store_redis_t  *redis;

    redis = ngx_coord_store_redis(store);

    return redis->client && ngx_coord_redis_ready(redis->client);
}


static ngx_int_t
ngx_coord_store_redis_topology(ngx_coord_store_t *store, ngx_pool_t *pool,
    ngx_coord_topology_t *topology)
{
    ngx_coord_store_redis_t  *redis;

    redis = ngx_coord_store_redis(store);

    if (redis->client == NULL) {
        return NGX_DECLINED;
    }

    return ngx_coord_redis_topology(redis->client, pool, topology);
}


static ngx_uint_t
ngx_coord_store_redis_apart(ngx_coord_store_t *store)
{
    ngx_coord_store_redis_t  *redis;

    redis = ngx_coord_store_redis(store);

    return redis->client && ngx_coord_redis_apart(redis->client);
}


static ngx_coord_nsec_t
ngx_coord_store_redis_now(ngx_coord_op_t *op)
{
    ngx_str_t           tag;
    ngx_coord_redis_t  *client;

    client = ngx_coord_store_redis(op->zone->store)->client;

    if (client == NULL) {
        return ngx_coord_monotonic();
    }

    tag.data = op->key;
    tag.len = op->key_len;

    return ngx_coord_redis_now(client, ngx_coord_redis_slot(client, &tag));
}
