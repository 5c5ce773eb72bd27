
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * A Redis Cluster: its map of slots, and calls that are sent elsewhere.  Only
 * servers of the map are ever connected to, whatever an error reply names.
 */


#include "ngx_coord_redis_cluster.h"


#define NGX_COORD_CLUSTER_THROTTLE   1000    /* milliseconds between maps */
#define NGX_COORD_CLUSTER_HOPS       4       /* of a call */
#define NGX_COORD_CLUSTER_VALUES     (24 * NGX_COORD_SLOTS)

#define NGX_COORD_CLUSTER_SLOTS                                               \
    "*2" CRLF "$7" CRLF "CLUSTER" CRLF "$5" CRLF "SLOTS" CRLF


static void ngx_coord_redis_lobby_ready(ngx_coord_redis_conn_t *conn,
    ngx_coord_resp_value_t *value, ngx_coord_nsec_t start);
static ngx_uint_t ngx_coord_redis_lobby_expect(ngx_coord_redis_conn_t *conn);
static ngx_coord_fail_e ngx_coord_redis_lobby_reply(
    ngx_coord_redis_conn_t *conn, ngx_coord_resp_value_t *value);
static void ngx_coord_redis_lobby_closed(ngx_coord_redis_conn_t *conn,
    ngx_coord_fail_e failure, ngx_uint_t ready);
static void ngx_coord_redis_lobby_timer(ngx_event_t *ev);
static void ngx_coord_redis_lobby_next(ngx_coord_redis_cluster_t *cluster);

static void ngx_coord_redis_cluster_up(ngx_coord_redis_cluster_t *cluster,
    ngx_uint_t up);
static void ngx_coord_redis_cluster_told(ngx_coord_redis_cluster_t *cluster);
static void ngx_coord_redis_cluster_refresh(
    ngx_coord_redis_cluster_t *cluster);
static void ngx_coord_redis_cluster_lost(ngx_coord_redis_node_t *node);
static ngx_int_t ngx_coord_redis_cluster_redirect(
    ngx_coord_redis_node_t *node, ngx_coord_redis_call_t *call,
    ngx_str_t *error);
static ngx_coord_redis_node_t *ngx_coord_redis_cluster_target(
    ngx_coord_redis_node_t *node, ngx_coord_redis_call_t *call,
    ngx_coord_slot_moved_t *moved);
static void ngx_coord_redis_cluster_again(void *data,
    ngx_coord_redis_call_t *call);
static void ngx_coord_redis_cluster_pass(ngx_coord_redis_node_t *node,
    ngx_coord_redis_call_t *call);
static ngx_coord_endpoint_t *ngx_coord_redis_cluster_any(
    ngx_coord_redis_t *redis);


static const ngx_coord_conn_actions_t  ngx_coord_redis_lobby_actions = {
    ngx_coord_redis_lobby_ready,
    ngx_coord_redis_lobby_expect,
    ngx_coord_redis_lobby_reply,
    ngx_coord_redis_lobby_closed
};


static const ngx_coord_redis_routing_t  ngx_coord_redis_cluster_routing = {
    ngx_coord_redis_cluster_lost,
    ngx_coord_redis_cluster_redirect,
    ngx_coord_redis_cluster_any
};


ngx_int_t
ngx_coord_redis_cluster_create(ngx_coord_redis_t *redis)
{
    ngx_coord_redis_node_t     *lobby;
    ngx_coord_redis_cluster_t  *cluster;

    cluster = ngx_calloc(sizeof(ngx_coord_redis_cluster_t), redis->cycle->log);
    if (cluster == NULL) {
        return NGX_ERROR;
    }

    redis->cluster = cluster;
    redis->routing = &ngx_coord_redis_cluster_routing;

    cluster->redis = redis;
    cluster->next = ngx_random();

    ngx_queue_init(&cluster->servers);
    ngx_queue_init(&cluster->retired);

    lobby = &cluster->lobby[NGX_COORD_LANE_DECISIONS];

    if (ngx_coord_redis_node_init(redis, cluster->lobby,
                                  NGX_COORD_LANE_DECISIONS,
                                  ngx_coord_redis_cluster_any(redis))
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    lobby->stats = &redis->unseen;
    lobby->lobby = 1;

    lobby->conn->actions = &ngx_coord_redis_lobby_actions;
    lobby->conn->log.action = "asking for the slots of the cluster";

    ngx_coord_timer_init(&cluster->timer, ngx_coord_redis_lobby_timer, cluster,
                         &lobby->conn->log);
    cluster->timer.event.cancelable = 1;

    ngx_coord_timer_init(&cluster->retire, ngx_coord_redis_server_timer,
                         cluster, &lobby->conn->log);
    cluster->retire.event.cancelable = 1;

    ngx_coord_redis_again_init(&cluster->again, ngx_coord_redis_cluster_again,
                               cluster, &lobby->conn->log);

    cluster->tries = redis->conf->servers->nelts;

    ngx_coord_redis_conn_start(lobby->conn);

    return NGX_OK;
}


void
ngx_coord_redis_cluster_destroy(ngx_coord_redis_t *redis)
{
    ngx_queue_t                *q;
    ngx_coord_redis_node_t     *lobby;
    ngx_coord_redis_server_t   *server;
    ngx_coord_redis_cluster_t  *cluster;

    cluster = redis->cluster;

    if (cluster == NULL) {
        return;
    }

    ngx_coord_timer_stop(&cluster->timer);
    ngx_coord_timer_stop(&cluster->retire);

    ngx_coord_redis_cluster_up(cluster, 0);

    lobby = &cluster->lobby[NGX_COORD_LANE_DECISIONS];

    ngx_coord_redis_again_end(&cluster->again, lobby);
    ngx_coord_redis_node_destroy(lobby);

    ngx_queue_add(&cluster->servers, &cluster->retired);

    while (!ngx_queue_empty(&cluster->servers)) {
        q = ngx_queue_head(&cluster->servers);
        server = ngx_queue_data(q, ngx_coord_redis_server_t, queue);

        ngx_queue_remove(q);
        ngx_coord_redis_server_destroy(cluster, server);
    }

    redis->cluster = NULL;

    ngx_free(cluster);
}


ngx_coord_redis_node_t *
ngx_coord_redis_cluster_node(ngx_coord_redis_cluster_t *cluster,
    ngx_uint_t slot, ngx_coord_lane_e lane)
{
    ngx_coord_redis_server_t  *server;

    server = cluster->slots[slot];

    return server ? &server->nodes[lane]
                  : &cluster->lobby[NGX_COORD_LANE_DECISIONS];
}


ngx_uint_t
ngx_coord_redis_cluster_ready(ngx_coord_redis_cluster_t *cluster)
{
    ngx_queue_t               *q;
    ngx_coord_redis_server_t  *server;

    for (q = ngx_queue_head(&cluster->servers);
         q != ngx_queue_sentinel(&cluster->servers);
         q = ngx_queue_next(q))
    {
        server = ngx_queue_data(q, ngx_coord_redis_server_t, queue);

        if (server->nslots
            && ngx_coord_redis_node_ok(
                   &server->nodes[NGX_COORD_LANE_DECISIONS]))
        {
            return 1;
        }
    }

    return 0;
}


ngx_uint_t
ngx_coord_redis_cluster_live(ngx_coord_redis_cluster_t *cluster)
{
    ngx_uint_t                 slot;
    ngx_coord_redis_server_t  *server;

    for (slot = 0; slot < NGX_COORD_SLOTS; slot++) {
        server = cluster->slots[slot];

        if (server
            && ngx_coord_redis_node_ok(
                   &server->nodes[NGX_COORD_LANE_DECISIONS]))
        {
            return slot;
        }
    }

    return 0;
}


void
ngx_coord_redis_cluster_push(ngx_coord_redis_cluster_t *cluster)
{
    ngx_queue_t               *q;
    ngx_coord_redis_server_t  *server;

    for (q = ngx_queue_head(&cluster->servers);
         q != ngx_queue_sentinel(&cluster->servers);
         q = ngx_queue_next(q))
    {
        server = ngx_queue_data(q, ngx_coord_redis_server_t, queue);

        ngx_coord_redis_nodes_push(server->nodes);
    }
}


/* --- the lobby --- */

static void
ngx_coord_redis_lobby_ready(ngx_coord_redis_conn_t *conn,
    ngx_coord_resp_value_t *value, ngx_coord_nsec_t start)
{
    u_char                     *p;
    ngx_coord_fail_e            failure;
    ngx_coord_redis_node_t     *lobby;
    ngx_coord_redis_cluster_t  *cluster;

    lobby = conn->data;
    cluster = lobby->redis->cluster;

    cluster->state = NGX_COORD_CLUSTER_ASKED;
    cluster->asked = ngx_current_msec;

    ngx_coord_resp_limits(conn->resp, NGX_COORD_SLOTS,
                          NGX_COORD_CLUSTER_VALUES);

    p = ngx_coord_redis_conn_room(conn, sizeof(NGX_COORD_CLUSTER_SLOTS) - 1,
                                  &failure);

    /* without memory nothing is sent, and the reply is overdue */

    if (p != NULL) {
        p = ngx_cpymem(p, NGX_COORD_CLUSTER_SLOTS,
                       sizeof(NGX_COORD_CLUSTER_SLOTS) - 1);
        ngx_coord_redis_conn_queue(conn, p);
    }

    ngx_coord_timer_start(&cluster->timer, conn->conf->connect_timeout);
}


static ngx_uint_t
ngx_coord_redis_lobby_expect(ngx_coord_redis_conn_t *conn)
{
    ngx_coord_redis_node_t  *lobby = conn->data;

    return lobby->redis->cluster->state == NGX_COORD_CLUSTER_ASKED;
}


static ngx_coord_fail_e
ngx_coord_redis_lobby_reply(ngx_coord_redis_conn_t *conn,
    ngx_coord_resp_value_t *value)
{
    u_char                      buf[NGX_COORD_LOG_TEXT];
    ngx_int_t                   rc;
    ngx_str_t                   text;
    ngx_coord_redis_node_t     *lobby;
    ngx_coord_redis_cluster_t  *cluster;

    lobby = conn->data;
    cluster = lobby->redis->cluster;

    if (value->type == NGX_COORD_RESP_ERROR) {
        text = ngx_coord_redis_error_text(conn->conf, buf, &value->str);

        ngx_coord_redis_conn_log(conn, NGX_COORD_FAIL_UNAVAILABLE, 0,
                                 "CLUSTER SLOTS failed", &text);
        return NGX_COORD_FAIL_UNAVAILABLE;
    }

    rc = ngx_coord_redis_cluster_map(cluster, value);

    if (rc == NGX_DECLINED) {
        ngx_coord_redis_conn_log(conn, NGX_COORD_FAIL_UNAVAILABLE, 0,
                                 "the server knows of no slots", NULL);
        return NGX_COORD_FAIL_UNAVAILABLE;
    }

    if (rc != NGX_OK) {
        ngx_coord_redis_conn_log(conn, NGX_COORD_FAIL_PROTOCOL, 0,
                                 "not the slots of a cluster", NULL);
        return NGX_COORD_FAIL_PROTOCOL;
    }

    cluster->state = NGX_COORD_CLUSTER_TOLD;

    ngx_coord_redis_cluster_told(cluster);
    ngx_coord_timer_start(&cluster->timer, 0);

    return NGX_COORD_FAIL_NONE;
}


/* tries the next one at once; when all have been tried those who wait end */

static void
ngx_coord_redis_lobby_closed(ngx_coord_redis_conn_t *conn,
    ngx_coord_fail_e failure, ngx_uint_t ready)
{
    ngx_coord_redis_node_t     *lobby;
    ngx_coord_redis_cluster_t  *cluster;

    lobby = conn->data;
    cluster = lobby->redis->cluster;

    cluster->state = NGX_COORD_CLUSTER_IDLE;

    ngx_coord_timer_stop(&cluster->timer);

    if (cluster->tries <= 1 && cluster->nservers == 0) {

        /* none of the lines "server" was any use, since the start */

        ngx_coord_redis_servers_recall(cluster);

        cluster->tries = cluster->nservers + 1;
        cluster->next = 0;
    }

    ngx_coord_redis_lobby_next(cluster);

    if (cluster->tries > 1 && !ngx_exiting && !ngx_terminate) {
        cluster->tries--;

        ngx_coord_timer_stop(&conn->timer);

        conn->state = NGX_COORD_CONN_UNUSED;
        ngx_coord_redis_conn_connect(conn);

        return;
    }

    cluster->tries = cluster->nservers
                     + cluster->redis->conf->servers->nelts;

    ngx_coord_redis_cluster_up(cluster, 0);
    ngx_coord_redis_node_closed(conn, failure, 0);
}


/* whether one of the servers has told the map when it was asked last */

static void
ngx_coord_redis_cluster_up(ngx_coord_redis_cluster_t *cluster, ngx_uint_t up)
{
    if (cluster->up != up) {
        cluster->up = up;

        (void) ngx_atomic_fetch_add(&cluster->redis->stats->up, up ? 1 : -1);
    }
}


static void
ngx_coord_redis_lobby_next(ngx_coord_redis_cluster_t *cluster)
{
    ngx_coord_redis_conn_t  *conn;

    conn = cluster->lobby[NGX_COORD_LANE_DECISIONS].conn;

    ngx_coord_redis_conn_move(conn,
                              ngx_coord_redis_cluster_any(cluster->redis));
}


static void
ngx_coord_redis_lobby_timer(ngx_event_t *ev)
{
    ngx_coord_redis_cluster_t *cluster = ngx_coord_timer_data(ev);

    ngx_coord_redis_conn_t  *conn;

    conn = cluster->lobby[NGX_COORD_LANE_DECISIONS].conn;

    if (cluster->state == NGX_COORD_CLUSTER_ASKED) {
        ngx_coord_redis_conn_log(conn, NGX_COORD_FAIL_TIMEOUT, 0,
                                 "no reply, connection closed", NULL);
        ngx_coord_redis_conn_close(conn, NGX_COORD_FAIL_TIMEOUT);
        return;
    }

    /* who has told the map is needed no more */

    cluster->state = NGX_COORD_CLUSTER_IDLE;
    cluster->tries = cluster->nservers
                     + cluster->redis->conf->servers->nelts;

    ngx_coord_redis_conn_rest(conn, cluster->asked
                                    + NGX_COORD_CLUSTER_THROTTLE);
    ngx_coord_redis_lobby_next(cluster);

    if (cluster->stale) {
        ngx_coord_redis_cluster_refresh(cluster);
    }
}


/* there is a new map: those who wait for it go on */

static void
ngx_coord_redis_cluster_told(ngx_coord_redis_cluster_t *cluster)
{
    ngx_queue_t                waiting, *q;
    ngx_coord_redis_call_t    *call;
    ngx_coord_redis_node_t    *lobby, *node;
    ngx_coord_redis_server_t  *server;

    lobby = &cluster->lobby[NGX_COORD_LANE_DECISIONS];

    ngx_coord_redis_cluster_up(cluster, 1);
    ngx_coord_redis_servers_keep(cluster);

    cluster->stale = 0;
    cluster->refreshed = ngx_max(ngx_current_msec, 1);
    cluster->refreshes++;

    if (lobby->breaker != NGX_COORD_BREAKER_CLOSED) {
        ngx_coord_redis_breaker_close(lobby, 0);
    }

    lobby->failures = 0;

    /* a server that was lost: its slots will have another one, or itself */

    for (q = ngx_queue_head(&cluster->servers);
         q != ngx_queue_sentinel(&cluster->servers);
         q = ngx_queue_next(q))
    {
        server = ngx_queue_data(q, ngx_coord_redis_server_t, queue);
        node = &server->nodes[NGX_COORD_LANE_DECISIONS];

        if (server->nslots && node->conn->failed) {
            cluster->stale = 1;
        }
    }

    ngx_queue_init(&waiting);

    while (!ngx_queue_empty(&lobby->calls)) {
        q = ngx_queue_head(&lobby->calls);
        call = ngx_queue_data(q, ngx_coord_redis_call_t, queue);

        ngx_coord_redis_take(lobby, call);
        ngx_queue_insert_tail(&waiting, &call->queue);
    }

    while (!ngx_queue_empty(&waiting)) {
        q = ngx_queue_head(&waiting);
        call = ngx_queue_data(q, ngx_coord_redis_call_t, queue);

        ngx_queue_remove(q);

        node = ngx_coord_redis_cluster_node(cluster, call->slot, call->lane);

        if (node == lobby) {

            /* nobody has the slot */

            ngx_coord_redis_node_drop(node, call, NGX_COORD_FAIL_UNAVAILABLE);

        } else {
            ngx_coord_redis_cluster_pass(node, call);
        }
    }
}


/* the map is old: asks for a new one, not more often than is good */

static void
ngx_coord_redis_cluster_refresh(ngx_coord_redis_cluster_t *cluster)
{
    ngx_coord_redis_conn_t  *conn;

    conn = cluster->lobby[NGX_COORD_LANE_DECISIONS].conn;

    if (conn->state != NGX_COORD_CONN_DISCONNECTED) {

        /* it is under way; what was told just now may be old, too */

        if (cluster->state == NGX_COORD_CLUSTER_TOLD) {
            cluster->stale = 1;
        }

        return;
    }

    if (conn->timer.event.timer_set) {
        return;
    }

    if ((ngx_msec_int_t) (conn->retry_at - ngx_current_msec) <= 0) {

        /* at once: calls may wait for it */

        conn->state = NGX_COORD_CONN_UNUSED;
    }

    ngx_coord_redis_conn_connect(conn);
}


/* --- what nodes tell --- */

static void
ngx_coord_redis_cluster_lost(ngx_coord_redis_node_t *node)
{
    if (!node->lobby) {
        ngx_coord_redis_cluster_refresh(node->redis->cluster);
    }
}


static ngx_int_t
ngx_coord_redis_cluster_redirect(ngx_coord_redis_node_t *node,
    ngx_coord_redis_call_t *call, ngx_str_t *error)
{
    ngx_int_t                   rc;
    ngx_coord_slot_moved_t      moved;
    ngx_coord_redis_node_t     *target;
    ngx_coord_redis_cluster_t  *cluster;

    cluster = node->redis->cluster;

    rc = ngx_coord_slot_moved(error, &moved);

    /* while a slot is moving, which ASK tells, the map does not change */

    if (rc != NGX_OK || !moved.ask) {
        ngx_coord_redis_cluster_refresh(cluster);
    }

    if (call->state != NGX_COORD_CALL_SENT) {
        return NGX_DECLINED;
    }

    if (rc != NGX_OK) {
        return ngx_coord_redis_error(error)->again
               ? ngx_coord_redis_again(&cluster->again, node, call)
               : NGX_DECLINED;
    }

    if (moved.slot != call->slot || call->hops == NGX_COORD_CLUSTER_HOPS) {
        return NGX_DECLINED;
    }

    target = ngx_coord_redis_cluster_target(node, call, &moved);

    cluster->redirects++;

    call->hops++;
    call->ask = moved.ask;

    /* ASKING holds for one command, or for a transaction */

    if (call->ask && call->ncommands > 1) {
        call->form = NGX_COORD_CALL_ALONE;
    }

    ngx_coord_redis_take(node, call);
    ngx_coord_redis_cluster_pass(target, call);

    return NGX_OK;
}


static ngx_coord_redis_node_t *
ngx_coord_redis_cluster_target(ngx_coord_redis_node_t *node,
    ngx_coord_redis_call_t *call, ngx_coord_slot_moved_t *moved)
{
    u_char                      buf[NGX_SOCKADDR_STRLEN];
    ngx_str_t                   from;
    ngx_coord_redis_server_t   *server;
    ngx_coord_redis_cluster_t  *cluster;

    cluster = node->redis->cluster;

    ngx_coord_redis_cluster_from(node->conn, buf, &from);

    server = ngx_coord_redis_server_find(cluster, &moved->node, &from);

    if (server == NULL) {

        /* not to be connected to before the map has it */

        return &cluster->lobby[NGX_COORD_LANE_DECISIONS];
    }

    if (!moved->ask && cluster->slots[moved->slot] != server) {

        if (cluster->slots[moved->slot]) {
            cluster->slots[moved->slot]->nslots--;
        }

        cluster->slots[moved->slot] = server;
        server->nslots++;
    }

    return &server->nodes[call->lane];
}


/* whoever has the slot by now */

static void
ngx_coord_redis_cluster_again(void *data, ngx_coord_redis_call_t *call)
{
    ngx_coord_redis_cluster_t *cluster = data;

    ngx_coord_redis_cluster_pass(ngx_coord_redis_cluster_node(cluster,
                                                              call->slot,
                                                              call->lane),
                                 call);
}


/* a call that comes to a node from another one */

static void
ngx_coord_redis_cluster_pass(ngx_coord_redis_node_t *node,
    ngx_coord_redis_call_t *call)
{
    if (call->reads) {
        ngx_coord_redis_track_use(node);
    }

    ngx_coord_redis_node_pass(node, call);
}


/* another one each time, of all that are known */

static ngx_coord_endpoint_t *
ngx_coord_redis_cluster_any(ngx_coord_redis_t *redis)
{
    ngx_coord_redis_cluster_t  *cluster;

    cluster = redis->cluster;

    return ngx_coord_redis_server_endpoint(cluster, cluster->next++);
}
