
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Masters that sentinels have named: each address is one endpoint, for as long
 * as it is the master's or a connection has it.
 */


#include "ngx_coord_redis_master.h"


static ngx_int_t ngx_coord_redis_master_addr(ngx_coord_redis_master_t *master,
    ngx_coord_redis_conn_t *conn);
static ngx_uint_t ngx_coord_redis_master_used(
    ngx_coord_redis_master_t *master, ngx_queue_t *members);


ngx_coord_redis_master_t *
ngx_coord_redis_master_get(ngx_queue_t *masters, ngx_coord_redis_conn_t *conn,
    ngx_str_t *host, in_port_t port)
{
    ngx_queue_t               *q;
    ngx_coord_endpoint_t      *e;
    ngx_coord_redis_master_t  *master;

    for (q = ngx_queue_head(masters);
         q != ngx_queue_sentinel(masters);
         q = ngx_queue_next(q))
    {
        master = ngx_queue_data(q, ngx_coord_redis_master_t, queue);
        e = &master->endpoint;

        if (e->port == port && e->host.len == host->len
            && ngx_memcmp(e->host.data, host->data, host->len) == 0)
        {
            return master;
        }
    }

    master = ngx_calloc(sizeof(ngx_coord_redis_master_t) + host->len,
                        &conn->log);
    if (master == NULL) {
        return NULL;
    }

    ngx_memcpy(master->host, host->data, host->len);

    e = &master->endpoint;

    e->host.data = master->host;
    e->host.len = host->len;
    e->port = port;
    e->auth = conn->conf->auth;
    e->tls = conn->conf->tls;
    e->named = 1;

    if (ngx_coord_redis_master_addr(master, conn) != NGX_OK) {
        ngx_free(master);
        return NULL;
    }

    ngx_queue_insert_tail(masters, &master->queue);

    return master;
}


static ngx_int_t
ngx_coord_redis_master_addr(ngx_coord_redis_master_t *master,
    ngx_coord_redis_conn_t *conn)
{
    ngx_coord_endpoint_t  *e;

    e = &master->endpoint;

    master->addr.name = e->host;

    if (ngx_coord_endpoint_addr(&e->host, e->port, &master->sockaddr,
                                master->name, &master->addr)
        == NGX_OK)
    {
        e->addrs = &master->addr;
        e->naddrs = 1;
        e->named = 0;

        return NGX_OK;
    }

    if (conn->conf->resolver != NULL) {
        return NGX_OK;
    }

    ngx_coord_redis_conn_log(conn, NGX_COORD_FAIL_UNAVAILABLE, 0,
                             "the master has a name, which needs a "
                             "\"resolver\"", NULL);

    return NGX_ERROR;
}


void
ngx_coord_redis_masters_drop(ngx_queue_t *masters, ngx_queue_t *members,
    ngx_coord_redis_master_t *keep)
{
    ngx_queue_t               *q, *next;
    ngx_coord_redis_master_t  *master;

    for (q = ngx_queue_head(masters);
         q != ngx_queue_sentinel(masters);
         q = next)
    {
        next = ngx_queue_next(q);
        master = ngx_queue_data(q, ngx_coord_redis_master_t, queue);

        if (master == keep || ngx_coord_redis_master_used(master, members)) {
            continue;
        }

        ngx_queue_remove(q);

        ngx_coord_redis_tls_forget(&master->endpoint);
        ngx_free(master);
    }
}


static ngx_uint_t
ngx_coord_redis_master_used(ngx_coord_redis_master_t *master,
    ngx_queue_t *members)
{
    ngx_queue_t             *q;
    ngx_coord_redis_conn_t  *conn;

    if (members == NULL) {
        return 0;
    }

    for (q = ngx_queue_head(members);
         q != ngx_queue_sentinel(members);
         q = ngx_queue_next(q))
    {
        conn = ngx_queue_data(q, ngx_coord_redis_conn_t, member);

        if (conn->endpoint == &master->endpoint) {
            return 1;
        }
    }

    return 0;
}
