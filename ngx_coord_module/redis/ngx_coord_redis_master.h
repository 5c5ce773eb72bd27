
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Private to the Redis client: the endpoints of masters that sentinels have
 * named.
 */


#ifndef _NGX_COORD_REDIS_MASTER_H_INCLUDED_
#define _NGX_COORD_REDIS_MASTER_H_INCLUDED_


#include "ngx_coord_redis_conn.h"


/* an address that a master has, or had */
typedef struct {
    ngx_coord_endpoint_t       endpoint;
    ngx_addr_t                 addr;
    ngx_sockaddr_t             sockaddr;
    u_char                     name[NGX_SOCKADDR_STRLEN];
    ngx_queue_t                queue;
    u_char                     host[1];
} ngx_coord_redis_master_t;


/*
 * The one of a list with that host and port, a new one if there is none; conn
 * is to the sentinel that has named it.  NULL: no memory, or a name without a
 * resolver, logged.
 */
ngx_coord_redis_master_t *ngx_coord_redis_master_get(ngx_queue_t *masters,
    ngx_coord_redis_conn_t *conn, ngx_str_t *host, in_port_t port);

/*
 * Frees all of a list but keep and those whose endpoint a connection of the
 * queue members has.  Both may be NULL.
 */
void ngx_coord_redis_masters_drop(ngx_queue_t *masters, ngx_queue_t *members,
    ngx_coord_redis_master_t *keep);


#endif /* _NGX_COORD_REDIS_MASTER_H_INCLUDED_ */
