
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The fleet: the nodes that share a store.  Each leaves a summary of itself
 * there every few seconds, "<prefix>st:<node>", and reads those of the others
 * into shared memory, so that the status page of any node can show all of
 * them at once, whatever Redis does.
 */


#ifndef _NGX_COORD_FLEET_H_INCLUDED_
#define _NGX_COORD_FLEET_H_INCLUDED_


#include "ngx_coord_store_metrics.h"
#include "ngx_coord_summary.h"


#define NGX_COORD_FLEET_NODES   64           /* others are not shown */


/* a node as it was last heard of, copied out of the shared memory */
typedef struct {
    ngx_msec_t                 age;          /* ms since its last news */
    unsigned                   self:1;
    unsigned                   silent:1;     /* it should have told more */
    size_t                     len;
    u_char                     text[NGX_COORD_SUMMARY_SIZE];
} ngx_coord_fleet_node_t;


/*
 * At the end of configuration: adds the shared memory "coord_fleet", owned by
 * the module tag, if one of the stores is a Redis store.  NGX_ERROR: logged.
 */
ngx_int_t ngx_coord_fleet_add(ngx_conf_t *cf, ngx_coord_metrics_t *metrics,
    void *tag);

/*
 * Worker start, after the stores: begins to tell and to listen, in the first
 * Redis store, and has that store know how many nodes share it.  NGX_ERROR: no
 * memory.
 */
ngx_int_t ngx_coord_fleet_start(ngx_coord_metrics_t *metrics,
    ngx_cycle_t *cycle);

/* worker end, after the stores */
void ngx_coord_fleet_stop(void);

/*
 * Copies the n-th node, from 0; this one is always the first, as it is now,
 * though nothing was sent.  NGX_DECLINED: there is no n-th one.
 */
ngx_int_t ngx_coord_fleet_node(ngx_coord_metrics_t *metrics, ngx_uint_t n,
    ngx_coord_fleet_node_t *node);

/*
 * The same of nodes that are not there any more, but were within the last
 * hour.
 */
ngx_int_t ngx_coord_fleet_lost(ngx_coord_metrics_t *metrics, ngx_uint_t n,
    ngx_coord_fleet_node_t *node);


#endif /* _NGX_COORD_FLEET_H_INCLUDED_ */
