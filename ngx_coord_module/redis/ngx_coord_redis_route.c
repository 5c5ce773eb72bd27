
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Which node has a key, and what is known of it without asking: the only place
 * that knows which server has which slot.
 */


#include "ngx_coord_redis_cluster.h"


ngx_uint_t
ngx_coord_redis_slot(ngx_coord_redis_t *redis, ngx_str_t *tag)
{
    return redis->cluster ? ngx_coord_slot(tag) : 0;
}


ngx_uint_t
ngx_coord_redis_live_slot(ngx_coord_redis_t *redis)
{
    return redis->cluster ? ngx_coord_redis_cluster_live(redis->cluster) : 0;
}


ngx_uint_t
ngx_coord_redis_apart(ngx_coord_redis_t *redis)
{
    return redis->cluster != NULL;
}


ngx_coord_redis_node_t *
ngx_coord_redis_node(ngx_coord_redis_t *redis, ngx_uint_t slot,
    ngx_coord_lane_e lane)
{
    if (redis->cluster) {
        return ngx_coord_redis_cluster_node(redis->cluster, slot, lane);
    }

    return &redis->nodes[lane];
}


ngx_coord_nsec_t
ngx_coord_redis_now(ngx_coord_redis_t *redis, ngx_uint_t slot)
{
    ngx_coord_redis_node_t  *node;

    node = ngx_coord_redis_node(redis, slot, NGX_COORD_LANE_DECISIONS);

    return ngx_coord_monotonic() + node->clock.offset;
}


ngx_uint_t
ngx_coord_redis_serves(ngx_coord_redis_t *redis, ngx_uint_t slot)
{
    ngx_coord_redis_node_t  *node;

    node = ngx_coord_redis_node(redis, slot, NGX_COORD_LANE_DECISIONS);

    return ngx_coord_redis_node_serves(node);
}


ngx_uint_t
ngx_coord_redis_ready(ngx_coord_redis_t *redis)
{
    ngx_coord_redis_node_t  *node;

    if (redis->cluster) {
        return ngx_coord_redis_cluster_ready(redis->cluster);
    }

    node = &redis->nodes[NGX_COORD_LANE_DECISIONS];

    return ngx_coord_redis_node_ok(node);
}
