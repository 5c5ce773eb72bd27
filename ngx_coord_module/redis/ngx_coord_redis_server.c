
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The servers of a cluster: found, added, kept for others, and let go.
 */


#include "ngx_coord_redis_cluster.h"
#include "ngx_coord_redis_known.h"


#define NGX_COORD_SERVER_RETIRE  100     /* milliseconds between looks */
#define NGX_COORD_SERVER_STALL   8       /* times the timeout: not waited for */


static ngx_uint_t ngx_coord_redis_server_is(ngx_coord_redis_server_t *server,
    ngx_str_t *host);
static ngx_int_t ngx_coord_redis_server_address(ngx_str_t *text,
    in_port_t port, ngx_coord_redis_server_t *server);
static u_char *ngx_coord_redis_server_text(u_char *p, ngx_str_t *dst,
    ngx_str_t *src);
static void ngx_coord_redis_server_leave(ngx_coord_redis_cluster_t *cluster,
    ngx_coord_endpoint_t *endpoint);


ngx_coord_redis_server_t *
ngx_coord_redis_server_find(ngx_coord_redis_cluster_t *cluster,
    ngx_coord_slot_node_t *node, ngx_str_t *from)
{
    ngx_str_t                 *host;
    ngx_queue_t               *q;
    ngx_coord_redis_server_t  *server;

    host = node->host.len ? &node->host : from;

    for (q = ngx_queue_head(&cluster->servers);
         q != ngx_queue_sentinel(&cluster->servers);
         q = ngx_queue_next(q))
    {
        server = ngx_queue_data(q, ngx_coord_redis_server_t, queue);

        if (server->endpoint.port == node->port
            && ngx_coord_redis_server_is(server, host))
        {
            return server;
        }
    }

    return NULL;
}


static ngx_uint_t
ngx_coord_redis_server_is(ngx_coord_redis_server_t *server, ngx_str_t *host)
{
    ngx_uint_t   i;
    ngx_str_t   *names[3];

    names[0] = &server->announced;
    names[1] = &server->endpoint.host;
    names[2] = &server->ip;

    for (i = 0; i < 3; i++) {
        if (host->len
            && names[i]->len == host->len
            && ngx_strncasecmp(names[i]->data, host->data, host->len) == 0)
        {
            return 1;
        }
    }

    return 0;
}


ngx_coord_redis_server_t *
ngx_coord_redis_server_get(ngx_coord_redis_cluster_t *cluster,
    ngx_coord_slot_node_t *node, ngx_str_t *from)
{
    u_char                    *p;
    ngx_str_t                  host, name;
    ngx_uint_t                 lane;
    ngx_coord_redis_t         *redis;
    ngx_coord_endpoint_t      *endpoint;
    ngx_coord_redis_server_t  *server;

    server = ngx_coord_redis_server_find(cluster, node, from);

    if (server) {
        return server;
    }

    redis = cluster->redis;
    host = node->host.len ? node->host : *from;

    if (host.len == 0 || host.len > NGX_COORD_SLOT_HOST_LEN) {
        return NULL;
    }

    server = ngx_calloc(sizeof(ngx_coord_redis_server_t), redis->cycle->log);

    if (server == NULL) {
        return NULL;
    }

    endpoint = &server->endpoint;
    endpoint->port = node->port;
    endpoint->auth = redis->conf->auth;
    endpoint->tls = redis->conf->tls;

    /* certificates are for names, where there are any */

    name = node->hostname.len ? node->hostname : host;

    p = ngx_coord_redis_server_text(server->text, &server->announced, &host);
    p = ngx_coord_redis_server_text(p, &endpoint->host, &name);
    p = ngx_coord_redis_server_text(p, &server->ip, &node->ip);

    server->addr.name.data = p;

    if (ngx_coord_redis_server_address(&host, node->port, server) != NGX_OK
        && ngx_coord_redis_server_address(&server->ip, node->port, server)
           != NGX_OK)
    {
        endpoint->named = 1;

        if (redis->conf->resolver == NULL) {
            ngx_log_error(NGX_LOG_ERR, redis->cycle->log, 0,
                          "coord store \"%V\": the cluster names its node "
                          "\"%V\", \"resolver\" is needed to find it",
                          &redis->conf->store, &host);
            ngx_free(server);
            return NULL;
        }
    }

    for (lane = 0; lane < NGX_COORD_LANE_MAX; lane++) {

        if (ngx_coord_redis_node_init(redis, server->nodes, lane, endpoint)
            != NGX_OK)
        {
            while (lane) {
                ngx_coord_redis_node_destroy(&server->nodes[--lane]);
            }

            ngx_free(server);
            return NULL;
        }
    }

    ngx_queue_insert_tail(&cluster->servers, &server->queue);
    cluster->nservers++;

    return server;
}


static u_char *
ngx_coord_redis_server_text(u_char *p, ngx_str_t *dst, ngx_str_t *src)
{
    dst->data = p;
    dst->len = src->len;

    p = ngx_cpymem(p, src->data, src->len);
    *p++ = '\0';

    return p;
}


/* NGX_DECLINED: the text is no address */

static ngx_int_t
ngx_coord_redis_server_address(ngx_str_t *text, in_port_t port,
    ngx_coord_redis_server_t *server)
{
    ngx_addr_t           *addr;
    struct sockaddr_in   *sin;
#if (NGX_HAVE_INET6)
    struct sockaddr_in6  *sin6;
#endif

    addr = &server->addr;
    addr->sockaddr = &server->sockaddr.sockaddr;

    sin = &server->sockaddr.sockaddr_in;
    sin->sin_addr.s_addr = ngx_inet_addr(text->data, text->len);

    if (text->len && sin->sin_addr.s_addr != INADDR_NONE) {
        sin->sin_family = AF_INET;
        addr->socklen = sizeof(struct sockaddr_in);
        goto found;
    }

#if (NGX_HAVE_INET6)

    sin6 = &server->sockaddr.sockaddr_in6;

    ngx_memzero(sin6, sizeof(struct sockaddr_in6));

    if (text->len
        && ngx_inet6_addr(text->data, text->len, sin6->sin6_addr.s6_addr)
           == NGX_OK)
    {
        sin6->sin6_family = AF_INET6;
        addr->socklen = sizeof(struct sockaddr_in6);
        goto found;
    }

#endif

    return NGX_DECLINED;

found:

    ngx_inet_set_port(addr->sockaddr, port);

    addr->name.len = ngx_sock_ntop(addr->sockaddr, addr->socklen,
                                   addr->name.data, NGX_SOCKADDR_STRLEN, 1);

    server->endpoint.addrs = addr;
    server->endpoint.naddrs = 1;

    return NGX_OK;
}


void
ngx_coord_redis_servers_keep(ngx_coord_redis_cluster_t *cluster)
{
    ngx_queue_t               *q;
    ngx_coord_slot_node_t      node;
    ngx_coord_redis_known_t    list;
    ngx_coord_redis_server_t  *server;

    ngx_coord_redis_known_init(&list);

    for (q = ngx_queue_head(&cluster->servers);
         q != ngx_queue_sentinel(&cluster->servers);
         q = ngx_queue_next(q))
    {
        server = ngx_queue_data(q, ngx_coord_redis_server_t, queue);

        node.host = server->announced;
        node.hostname = server->endpoint.host;
        node.ip = server->ip;
        node.port = server->endpoint.port;

        ngx_coord_redis_known_add(&list, &node);
    }

    ngx_coord_redis_known_keep(cluster->redis, &list);
}


void
ngx_coord_redis_servers_recall(ngx_coord_redis_cluster_t *cluster)
{
    ngx_str_t                from;
    ngx_coord_slot_node_t    node;
    ngx_coord_redis_known_t  list;

    ngx_str_null(&from);

    ngx_coord_redis_known_read(cluster->redis, &list);

    while (ngx_coord_redis_known_next(&list, &node) == NGX_OK) {
        (void) ngx_coord_redis_server_get(cluster, &node, &from);
    }
}


void
ngx_coord_redis_server_retire(ngx_coord_redis_cluster_t *cluster,
    ngx_coord_redis_server_t *server)
{
    ngx_queue_remove(&server->queue);
    ngx_queue_insert_tail(&cluster->retired, &server->queue);
    cluster->nservers--;

    server->since = ngx_current_msec;

    if (!cluster->retire.event.timer_set) {
        ngx_coord_timer_start(&cluster->retire, NGX_COORD_SERVER_RETIRE);
    }
}


void
ngx_coord_redis_server_timer(ngx_event_t *ev)
{
    ngx_coord_redis_cluster_t *cluster = ngx_coord_timer_data(ev);

    ngx_uint_t                 lane, pending;
    ngx_msec_t                 most;
    ngx_queue_t               *q, *next;
    ngx_coord_redis_server_t  *server;

    most = NGX_COORD_SERVER_STALL * cluster->redis->conf->timeout;

    for (q = ngx_queue_head(&cluster->retired);
         q != ngx_queue_sentinel(&cluster->retired);
         q = next)
    {
        next = ngx_queue_next(q);
        server = ngx_queue_data(q, ngx_coord_redis_server_t, queue);

        pending = 0;

        for (lane = 0; lane < NGX_COORD_LANE_MAX; lane++) {
            pending += server->nodes[lane].pending;
        }

        if (pending == 0 || ngx_current_msec - server->since > most) {
            ngx_queue_remove(q);
            ngx_coord_redis_server_destroy(cluster, server);
        }
    }

    if (!ngx_queue_empty(&cluster->retired)) {
        ngx_coord_timer_start(&cluster->retire, NGX_COORD_SERVER_RETIRE);
    }
}


void
ngx_coord_redis_server_destroy(ngx_coord_redis_cluster_t *cluster,
    ngx_coord_redis_server_t *server)
{
    ngx_uint_t  lane;

    ngx_coord_redis_server_leave(cluster, &server->endpoint);

    for (lane = 0; lane < NGX_COORD_LANE_MAX; lane++) {
        ngx_coord_redis_node_destroy(&server->nodes[lane]);
    }

    ngx_coord_redis_tls_forget(&server->endpoint);

    ngx_free(server);
}


/* the connections that may go to any server go to another one */

static void
ngx_coord_redis_server_leave(ngx_coord_redis_cluster_t *cluster,
    ngx_coord_endpoint_t *endpoint)
{
    ngx_coord_redis_t       *redis;
    ngx_coord_redis_conn_t  *conn;

    redis = cluster->redis;
    conn = cluster->lobby[NGX_COORD_LANE_DECISIONS].conn;

    if (conn && conn->endpoint == endpoint) {

        if (conn->state > NGX_COORD_CONN_DISCONNECTED) {
            ngx_coord_redis_conn_close(conn, NGX_COORD_FAIL_CONNECT);
        }

        ngx_coord_redis_conn_move(conn, ngx_coord_redis_first(redis->conf));
    }

    if (redis->sub) {
        ngx_coord_redis_sub_leave(redis->sub, endpoint);
    }
}


ngx_coord_endpoint_t *
ngx_coord_redis_server_endpoint(ngx_coord_redis_cluster_t *cluster,
    ngx_uint_t n)
{
    ngx_queue_t                *q;
    ngx_array_t                *seeds;
    ngx_coord_endpoint_t      **endpoints;
    ngx_coord_redis_server_t   *server;

    seeds = cluster->redis->conf->servers;

    n %= cluster->nservers + seeds->nelts;

    if (n >= cluster->nservers) {
        endpoints = seeds->elts;
        return endpoints[n - cluster->nservers];
    }

    q = ngx_queue_head(&cluster->servers);

    while (n--) {
        q = ngx_queue_next(q);
    }

    server = ngx_queue_data(q, ngx_coord_redis_server_t, queue);

    return &server->endpoint;
}
