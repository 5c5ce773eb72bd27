
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The client: its nodes, and what is sent to them.
 */


#include "ngx_coord_redis_cluster.h"


#define NGX_COORD_CLOCK_INTERVAL  1000        /* milliseconds */


ngx_coord_redis_t *
ngx_coord_redis_create(ngx_coord_redis_conf_t *conf,
    ngx_coord_store_stats_t *stats, ngx_coord_known_t *known,
    ngx_coord_refusal_t *refusal, ngx_cycle_t *cycle)
{
    ngx_uint_t          lane;
    ngx_coord_redis_t  *redis;

    redis = ngx_calloc(sizeof(ngx_coord_redis_t), cycle->log);
    if (redis == NULL) {
        return NULL;
    }

    redis->conf = conf;
    redis->stats = stats;
    redis->known = known;
    redis->refusal = refusal;
    redis->cycle = cycle;

    if (conf->mode == NGX_COORD_MODE_CLUSTER) {

        if (ngx_coord_redis_cluster_create(redis) != NGX_OK) {
            ngx_coord_redis_destroy(redis);
            return NULL;
        }

        return redis;
    }

    if (conf->mode == NGX_COORD_MODE_SENTINEL) {
        redis->sentinel = ngx_coord_redis_sentinel_create(redis);

        if (redis->sentinel == NULL) {
            ngx_coord_redis_destroy(redis);
            return NULL;
        }

        redis->find = ngx_coord_redis_sentinel_find;
        redis->distrust = ngx_coord_redis_sentinel_distrust;
    }

    for (lane = 0; lane < NGX_COORD_LANE_MAX; lane++) {

        if (ngx_coord_redis_node_init(redis, redis->nodes, lane,
                                      ngx_coord_redis_first(conf))
            != NGX_OK)
        {
            ngx_coord_redis_destroy(redis);
            return NULL;
        }
    }

    ngx_coord_redis_conn_start(redis->nodes[NGX_COORD_LANE_DECISIONS].conn);

    return redis;
}


void
ngx_coord_redis_destroy(ngx_coord_redis_t *redis)
{
    ngx_uint_t              i, lane;
    ngx_coord_endpoint_t  **endpoints;

    if (redis->sub != NULL) {
        ngx_coord_redis_sub_destroy(redis->sub);
        redis->sub = NULL;
    }

    ngx_coord_redis_cluster_destroy(redis);

    for (lane = 0; lane < NGX_COORD_LANE_MAX; lane++) {
        ngx_coord_redis_node_destroy(&redis->nodes[lane]);
    }

    if (redis->sentinel != NULL) {
        ngx_coord_redis_sentinel_destroy(redis->sentinel);
    }

    endpoints = redis->conf->servers->elts;

    for (i = 0; i < redis->conf->servers->nelts; i++) {
        ngx_coord_redis_tls_forget(endpoints[i]);
        ngx_coord_auth_forget(endpoints[i]->auth);
    }

    ngx_coord_auth_forget(redis->conf->auth);

    ngx_free(redis);
}


ngx_int_t
ngx_coord_redis_send(ngx_coord_redis_t *redis, ngx_coord_redis_call_t *call)
{
    ngx_coord_redis_node_t  *node;

    node = ngx_coord_redis_node(redis, call->slot, call->lane);

    if (call->reads) {
        ngx_coord_redis_track_use(node);
    }

    call->start = ngx_coord_monotonic();
    call->deadline = ngx_current_msec + redis->conf->timeout;

    call->refused = 0;
    call->ask = 0;
    call->stray = 0;
    call->hops = 0;
    call->tries = 0;

    call->failure = ngx_coord_redis_submit(node, call);

    if (call->failure != NGX_COORD_FAIL_NONE) {
        call->state = NGX_COORD_CALL_IDLE;
        (void) ngx_atomic_fetch_add(&redis->stats->failures[call->failure],
                                    1 + call->more);
        return NGX_ERROR;
    }

    ngx_coord_redis_enqueue(node, call);
    (void) ngx_atomic_fetch_add(&redis->stats->pending, 1);

    if (call->state == NGX_COORD_CALL_SENT
        && call->lane == NGX_COORD_LANE_DECISIONS
        && ngx_current_msec - node->clock.asked >= NGX_COORD_CLOCK_INTERVAL)
    {
        ngx_coord_redis_clock_ask(node);
    }

    return NGX_AGAIN;
}


void
ngx_coord_redis_open_bulk(ngx_coord_redis_t *redis, ngx_uint_t slot)
{
    ngx_coord_redis_conn_t  *conn;

    conn = ngx_coord_redis_node(redis, slot, NGX_COORD_LANE_BULK)->conn;

    if (conn != NULL && conn->state == NGX_COORD_CONN_UNUSED) {
        ngx_coord_redis_conn_connect(conn);
    }
}


void
ngx_coord_redis_where(ngx_coord_redis_t *redis, ngx_uint_t slot,
    ngx_coord_redis_where_t *where)
{
    ngx_str_t               *name;
    ngx_coord_redis_conn_t  *conn;

    ngx_memzero(where, sizeof(ngx_coord_redis_where_t));

    conn = ngx_coord_redis_node(redis, slot, NGX_COORD_LANE_DECISIONS)->conn;

    if (conn != NULL && conn->state == NGX_COORD_CONN_READY) {
        where->address = *conn->peer.name;
    }

    if (redis->sentinel != NULL) {
        name = ngx_coord_redis_sentinel_asked(redis->sentinel);

        if (name != NULL) {
            where->sentinel = *name;
        }

        where->switched = redis->switched;
    }
}


void
ngx_coord_redis_push(ngx_coord_redis_t *redis)
{
    if (redis->cluster) {
        ngx_coord_redis_cluster_push(redis->cluster);
        return;
    }

    ngx_coord_redis_nodes_push(redis->nodes);
}
