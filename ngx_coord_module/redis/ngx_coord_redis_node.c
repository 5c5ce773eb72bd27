
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * A node: the connection to its server, and what it comes and goes with.
 */


#include "ngx_coord_redis_conn.h"

#include <openssl/rand.h>


#define NGX_COORD_BREAKER_AUTH       10000    /* milliseconds */


static void ngx_coord_redis_node_ready(ngx_coord_redis_conn_t *conn,
    ngx_coord_resp_value_t *value, ngx_coord_nsec_t start);
static void ngx_coord_redis_node_up(ngx_coord_redis_node_t *node,
    ngx_int_t n);
static void ngx_coord_redis_node_version(ngx_coord_redis_node_t *node);
static void ngx_coord_redis_send_gated(ngx_coord_redis_node_t *node);


static const ngx_coord_conn_actions_t  ngx_coord_redis_node_actions = {
    ngx_coord_redis_node_ready,
    ngx_coord_redis_node_expect,
    ngx_coord_redis_node_reply,
    ngx_coord_redis_node_closed
};


ngx_int_t
ngx_coord_redis_node_init(ngx_coord_redis_t *redis,
    ngx_coord_redis_node_t *nodes, ngx_coord_lane_e lane,
    ngx_coord_endpoint_t *endpoint)
{
    ngx_coord_redis_node_t  *node;

    node = &nodes[lane];

    node->conn = ngx_coord_redis_conn_create(redis, endpoint,
                                             &ngx_coord_redis_node_actions,
                                             node);
    if (node->conn == NULL) {
        return NGX_ERROR;
    }

    node->redis = redis;
    node->nodes = nodes;
    node->lane = lane;
    node->stats = redis->stats;

    if (lane == NGX_COORD_LANE_DECISIONS) {

        /* who reads of its trouble reads of the end */

        node->conn->again = NGX_LOG_ERR;

    } else {
        node->stats = &redis->unseen;
        node->conn->log.action = "moving bulk data";
        node->conn->out_max = NGX_COORD_CONN_OUT_BULK;
    }

    ngx_queue_init(&node->calls);

    ngx_coord_timer_init(&node->deadline, ngx_coord_redis_deadline, node,
                         &node->conn->log);
    node->deadline.event.cancelable = 1;

    ngx_coord_redis_health_init(node);

    /* a server of a cluster, that was found by now */

    if (redis->tracking && lane == NGX_COORD_LANE_DECISIONS) {
        return ngx_coord_redis_track_node(node);
    }

    return NGX_OK;
}


void
ngx_coord_redis_node_destroy(ngx_coord_redis_node_t *node)
{
    ngx_queue_t  calls;

    if (node->conn == NULL) {
        return;
    }

    /* the events log to the connection's log */

    ngx_coord_timer_stop(&node->cooldown);
    ngx_coord_timer_stop(&node->deadline);

    if (node->conn->state == NGX_COORD_CONN_READY) {
        ngx_coord_redis_node_up(node, -1);
    }

    ngx_coord_redis_conn_destroy(node->conn);
    node->conn = NULL;

    ngx_queue_init(&calls);

    if (!ngx_queue_empty(&node->calls)) {
        ngx_queue_add(&calls, &node->calls);
        ngx_queue_init(&node->calls);
    }

    ngx_coord_redis_end_all(node, &calls, NGX_COORD_FAIL_CONNECT);

    if (node->breaker != NGX_COORD_BREAKER_CLOSED) {
        (void) ngx_atomic_fetch_add(&node->stats->breaker_open, -1);
    }

    ngx_coord_redis_track_free(node);
}


void
ngx_coord_redis_nodes_push(ngx_coord_redis_node_t *nodes)
{
    ngx_uint_t               lane;
    ngx_coord_redis_conn_t  *conn;

    for (lane = 0; lane < NGX_COORD_LANE_MAX; lane++) {
        conn = nodes[lane].conn;

        if (conn != NULL
            && conn->state == NGX_COORD_CONN_READY
            && conn->flush.posted)
        {
            ngx_delete_posted_event(&conn->flush);

            /* not behind what else is posted */

            conn->deferred = NGX_COORD_CONN_DEFER;
            ngx_coord_redis_conn_flush(&conn->flush);
        }
    }
}


static void
ngx_coord_redis_node_ready(ngx_coord_redis_conn_t *conn,
    ngx_coord_resp_value_t *value, ngx_coord_nsec_t start)
{
    ngx_coord_nsec_t          now;
    ngx_coord_redis_node_t   *node;
    ngx_coord_redis_conf_t   *conf;
    ngx_coord_store_stats_t  *stats;

    node = conn->data;
    conf = node->redis->conf;
    stats = node->stats;

    ngx_coord_redis_node_up(node, 1);

    if (node->was_ready) {
        (void) ngx_atomic_fetch_add(&stats->reconnects, 1);
    }

    node->was_ready = 1;

    /* no transaction goes over slots */

    node->apart = (node->redis->routing != NULL);

    ngx_coord_redis_node_version(node);

    if (RAND_bytes((u_char *) &node->nonce, sizeof(uint64_t)) != 1) {
        node->nonce = ((uint64_t) ngx_random() << 32)
                      ^ (uint64_t) ngx_coord_monotonic();
    }

    now = ngx_coord_monotonic();

    ngx_coord_redis_clock_first(node, value, start, now);

    if (node->breaker != NGX_COORD_BREAKER_CLOSED) {

        if (now - start
            <= (ngx_coord_nsec_t) conf->timeout * NGX_COORD_NSEC_PER_MSEC)
        {
            /* on probation: one more failure opens it again */

            ngx_coord_redis_breaker_close(node, conf->breaker_failures
                                                ? conf->breaker_failures - 1
                                                : 0);

        } else {
            ngx_coord_redis_breaker_reopen(node);
        }
    }

    ngx_coord_redis_send_gated(node);
    ngx_coord_redis_clock_refine(node);
    ngx_coord_redis_track_begin(node);
}


/* of a cluster, whether its map is known tells if a worker has it */

static void
ngx_coord_redis_node_up(ngx_coord_redis_node_t *node, ngx_int_t n)
{
    if (node->redis->cluster == NULL) {
        (void) ngx_atomic_fetch_add(&node->stats->up, n);
    }
}


/* what the server cannot do is told once, not at each connection */

static void
ngx_coord_redis_node_version(ngx_coord_redis_node_t *node)
{
    ngx_uint_t                     version;
    ngx_coord_redis_t             *redis;
    const ngx_coord_redis_need_t  *need;

    redis = node->redis;
    need = redis->conf->need;
    version = node->conn->version;

    if (node->lane != NGX_COORD_LANE_DECISIONS
        || need == NULL
        || version == redis->version)
    {
        return;
    }

    redis->version = version;

    if (ngx_coord_redis_node_serves(node)) {
        return;
    }

    ngx_log_error(NGX_LOG_ERR, &node->conn->log, 0,
                  "coord redis: the server is version %ui.%ui, "
                  "%ui.%ui is needed: %s",
                  version / 100, version % 100, need->version / 100,
                  need->version % 100, need->lacks);
}


void
ngx_coord_redis_node_closed(ngx_coord_redis_conn_t *conn,
    ngx_coord_fail_e failure, ngx_uint_t ready)
{
    ngx_queue_t              calls;
    ngx_coord_redis_node_t  *node;

    node = conn->data;
    node->open = NULL;

    ngx_coord_redis_track_end(node);

    if (ready) {
        ngx_coord_redis_node_up(node, -1);
    }

    /* what the calls have told about a ready connection was counted then */

    if (!ready
        || failure == NGX_COORD_FAIL_CONNECT
        || failure == NGX_COORD_FAIL_PROTOCOL)
    {
        ngx_coord_redis_node_failed(node);
    }

    if (failure == NGX_COORD_FAIL_AUTH) {
        ngx_coord_redis_breaker_open(node, NGX_COORD_BREAKER_AUTH);
    }

    ngx_queue_init(&calls);

    if (!ngx_queue_empty(&node->calls)) {
        ngx_queue_add(&calls, &node->calls);
        ngx_queue_init(&node->calls);
    }

    ngx_coord_redis_end_all(node, &calls, failure);

    if (node->redis->routing) {
        node->redis->routing->lost(node);
    }
}


/* ready: all that waits is encoded before any handler runs */

static void
ngx_coord_redis_send_gated(ngx_coord_redis_node_t *node)
{
    ngx_queue_t             *q, *next, failed;
    ngx_coord_redis_call_t  *call;

    ngx_queue_init(&failed);

    for (q = ngx_queue_head(&node->calls);
         q != ngx_queue_sentinel(&node->calls);
         q = next)
    {
        next = ngx_queue_next(q);
        call = ngx_queue_data(q, ngx_coord_redis_call_t, queue);

        if (ngx_coord_redis_encode(node, call) == NGX_COORD_FAIL_NONE) {
            continue;
        }

        ngx_coord_redis_skip_live(node, call);

        ngx_queue_remove(q);
        ngx_queue_insert_tail(&failed, q);
    }

    ngx_coord_redis_end_all(node, &failed, NGX_COORD_FAIL_OVERFLOW);
}
