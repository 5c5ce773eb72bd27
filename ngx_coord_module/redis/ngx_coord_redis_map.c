
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The map of a cluster, from a reply to CLUSTER SLOTS.
 */


#include "ngx_coord_redis_cluster.h"


static ngx_int_t ngx_coord_redis_cluster_servers(
    ngx_coord_redis_cluster_t *cluster, ngx_coord_resp_value_t *reply,
    ngx_str_t *from);
static void ngx_coord_redis_cluster_assign(
    ngx_coord_redis_cluster_t *cluster, ngx_coord_resp_value_t *reply,
    ngx_str_t *from);


ngx_int_t
ngx_coord_redis_cluster_map(ngx_coord_redis_cluster_t *cluster,
    ngx_coord_resp_value_t *reply)
{
    u_char                  buf[NGX_SOCKADDR_STRLEN];
    ngx_int_t               rc;
    ngx_str_t               from;
    ngx_coord_redis_node_t  *lobby;

    rc = ngx_coord_slots_check(reply);

    if (rc != NGX_OK) {
        return rc;
    }

    lobby = &cluster->lobby[NGX_COORD_LANE_DECISIONS];

    ngx_coord_redis_cluster_from(lobby->conn, buf, &from);

    if (ngx_coord_redis_cluster_servers(cluster, reply, &from) != NGX_OK) {
        return NGX_DECLINED;
    }

    ngx_coord_redis_cluster_assign(cluster, reply, &from);

    return NGX_OK;
}


/* the servers of a good reply are there then, and are marked */

static ngx_int_t
ngx_coord_redis_cluster_servers(ngx_coord_redis_cluster_t *cluster,
    ngx_coord_resp_value_t *reply, ngx_str_t *from)
{
    ngx_int_t                  i;
    ngx_uint_t                 n, found;
    ngx_queue_t               *q;
    ngx_coord_slot_node_t      node;
    ngx_coord_slot_range_t     range;
    ngx_coord_resp_value_t    *v, *e;
    ngx_coord_redis_server_t  *server;

    for (q = ngx_queue_head(&cluster->servers);
         q != ngx_queue_sentinel(&cluster->servers);
         q = ngx_queue_next(q))
    {
        server = ngx_queue_data(q, ngx_coord_redis_server_t, queue);

        server->known = 0;
    }

    found = 0;
    v = reply + 1;

    for (i = 0; i < reply->integer; i++, v += v->next) {
        (void) ngx_coord_slot_range(v, &range);

        e = range.master;

        for (n = 0; n < range.nnodes; n++, e += e->next) {
            (void) ngx_coord_slot_node(e, &node);

            server = ngx_coord_redis_server_get(cluster, &node, from);

            if (server) {
                server->known = 1;
                found = 1;
            }
        }
    }

    return found ? NGX_OK : NGX_ERROR;
}


static void
ngx_coord_redis_cluster_assign(ngx_coord_redis_cluster_t *cluster,
    ngx_coord_resp_value_t *reply, ngx_str_t *from)
{
    u_char                     named[NGX_COORD_SLOTS / 8];
    ngx_int_t                  i;
    ngx_uint_t                 slot, lost;
    ngx_queue_t               *q, *next;
    ngx_coord_slot_node_t      node;
    ngx_coord_slot_range_t     range;
    ngx_coord_resp_value_t    *v;
    ngx_coord_redis_server_t  *server, *before;

    ngx_memzero(named, sizeof(named));

    for (q = ngx_queue_head(&cluster->servers);
         q != ngx_queue_sentinel(&cluster->servers);
         q = ngx_queue_next(q))
    {
        server = ngx_queue_data(q, ngx_coord_redis_server_t, queue);
        server->nslots = 0;
    }

    lost = 0;
    v = reply + 1;

    for (i = 0; i < reply->integer; i++, v += v->next) {
        (void) ngx_coord_slot_range(v, &range);
        (void) ngx_coord_slot_node(range.master, &node);

        server = ngx_coord_redis_server_find(cluster, &node, from);

        if (server == NULL) {
            continue;
        }

        server->nslots += range.last - range.first + 1;

        for (slot = range.first; slot <= range.last; slot++) {
            before = cluster->slots[slot];
            cluster->slots[slot] = server;
            named[slot / 8] |= (u_char) (1 << (slot % 8));

            if (before && before != server
                && before->nodes[NGX_COORD_LANE_DECISIONS].conn->failed)
            {
                lost = 1;
            }
        }
    }

    if (lost) {
        cluster->failover = ngx_max(ngx_current_msec, 1);

        ngx_log_error(NGX_LOG_NOTICE, cluster->redis->cycle->log, 0,
                      "coord store \"%V\": slots of a lost server of the "
                      "cluster have another one", &cluster->redis->conf->store);
    }

    /* those that the map does not name are nobody's */

    for (slot = 0; slot < NGX_COORD_SLOTS; slot++) {
        if (!(named[slot / 8] & (1 << (slot % 8)))) {
            cluster->slots[slot] = NULL;
        }
    }

    for (q = ngx_queue_head(&cluster->servers);
         q != ngx_queue_sentinel(&cluster->servers);
         q = next)
    {
        next = ngx_queue_next(q);
        server = ngx_queue_data(q, ngx_coord_redis_server_t, queue);

        if (!server->known) {
            ngx_coord_redis_server_retire(cluster, server);
        }
    }
}


/* the address that a connection goes to, for nodes that do not tell theirs */

void
ngx_coord_redis_cluster_from(ngx_coord_redis_conn_t *conn, u_char *buf,
    ngx_str_t *from)
{
    ngx_str_null(from);

    if (conn->peer.sockaddr == NULL
        || conn->peer.sockaddr->sa_family == AF_UNIX)
    {
        return;
    }

    from->data = buf;
    from->len = ngx_sock_ntop(conn->peer.sockaddr, conn->peer.socklen, buf,
                              NGX_SOCKADDR_STRLEN, 0);

    /* [::1] */

    if (from->len > 2 && from->data[0] == '[') {
        from->data++;
        from->len -= 2;
    }
}
