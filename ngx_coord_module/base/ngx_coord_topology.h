
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The servers behind a store, as a worker sees them: for pages and health.
 */


#ifndef _NGX_COORD_TOPOLOGY_H_INCLUDED_
#define _NGX_COORD_TOPOLOGY_H_INCLUDED_


#include "ngx_coord.h"


typedef struct {
    ngx_str_t                  address;       /* of the server, host:port */
    ngx_str_t                  role;          /* "master", "replica" */
    ngx_str_t                  state;         /* "up", "down", "unused" */
    ngx_uint_t                 slots;         /* that it has, in a cluster */
} ngx_coord_topology_server_t;


typedef struct {
    ngx_str_t                  mode;          /* "cluster", "sentinel" */
    ngx_array_t                servers;       /* ngx_coord_topology_server_t */
    ngx_uint_t                 refreshes;     /* by this worker */
    ngx_uint_t                 redirects;     /* of its calls, the same */
    ngx_msec_t                 refreshed;     /* points in time; 0: never */
    ngx_msec_t                 failover;
} ngx_coord_topology_t;


#endif /* _NGX_COORD_TOPOLOGY_H_INCLUDED_ */
