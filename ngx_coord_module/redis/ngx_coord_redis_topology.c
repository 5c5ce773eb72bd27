
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * What a client tells of its servers.
 */


#include "ngx_coord_redis_cluster.h"


static ngx_int_t ngx_coord_redis_topology_server(ngx_array_t *servers,
    ngx_coord_redis_server_t *server);


ngx_int_t
ngx_coord_redis_topology(ngx_coord_redis_t *redis, ngx_pool_t *pool,
    ngx_coord_topology_t *topology)
{
    ngx_queue_t                *q;
    ngx_coord_redis_server_t   *server;
    ngx_coord_redis_cluster_t  *cluster;

    cluster = redis->cluster;

    if (cluster == NULL) {
        return NGX_DECLINED;
    }

    ngx_memzero(topology, sizeof(ngx_coord_topology_t));

    ngx_str_set(&topology->mode, "cluster");
    topology->refreshes = cluster->refreshes;
    topology->redirects = cluster->redirects;
    topology->refreshed = cluster->refreshed;
    topology->failover = cluster->failover;

    if (ngx_array_init(&topology->servers, pool, 8,
                       sizeof(ngx_coord_topology_server_t))
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    for (q = ngx_queue_head(&cluster->servers);
         q != ngx_queue_sentinel(&cluster->servers);
         q = ngx_queue_next(q))
    {
        server = ngx_queue_data(q, ngx_coord_redis_server_t, queue);

        if (ngx_coord_redis_topology_server(&topology->servers, server)
            != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_coord_redis_topology_server(ngx_array_t *servers,
    ngx_coord_redis_server_t *server)
{
    u_char                       *p;
    size_t                        len;
    ngx_coord_redis_node_t       *node;
    ngx_coord_topology_server_t  *s;

    s = ngx_array_push(servers);
    if (s == NULL) {
        return NGX_ERROR;
    }

    node = &server->nodes[NGX_COORD_LANE_DECISIONS];
    s->slots = server->nslots;

    len = server->announced.len + sizeof("[]:65535") - 1;

    p = ngx_pnalloc(servers->pool, len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    s->address.data = p;
    s->address.len = ngx_sprintf(p, ngx_strlchr(server->announced.data,
                                                server->announced.data
                                                + server->announced.len, ':')
                                    ? "[%V]:%ui" : "%V:%ui",
                                 &server->announced,
                                 (ngx_uint_t) server->endpoint.port)
                     - p;

    if (server->nslots) {
        ngx_str_set(&s->role, "master");

    } else {
        ngx_str_set(&s->role, "replica");
    }

    if (ngx_coord_redis_node_ok(node)) {
        ngx_str_set(&s->state, "up");

    } else if (node->conn->failed || node->breaker != NGX_COORD_BREAKER_CLOSED)
    {
        ngx_str_set(&s->state, "down");

    } else {
        ngx_str_set(&s->state, "unused");
    }

    return NGX_OK;
}
