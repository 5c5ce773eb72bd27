
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Slots of a Redis Cluster: of a key, in the reply to CLUSTER SLOTS, and in
 * the error replies that name another node.  Pure functions, which trust
 * nothing that a server says.
 */


#ifndef _NGX_COORD_SLOT_H_INCLUDED_
#define _NGX_COORD_SLOT_H_INCLUDED_


#include "ngx_coord.h"
#include "ngx_coord_resp.h"


#define NGX_COORD_SLOTS           16384
#define NGX_COORD_SLOT_HOST_LEN   255      /* bytes of a name or an address */


/* a node as a server tells of it; strings are those of the reply */
typedef struct {
    ngx_str_t                  host;       /* empty: where it was asked */
    ngx_str_t                  ip;         /* empty: not told apart */
    ngx_str_t                  hostname;   /* the same */
    in_port_t                  port;
} ngx_coord_slot_node_t;


/* one element of CLUSTER SLOTS: slots from first to last, and who has them */
typedef struct {
    ngx_uint_t                 first;
    ngx_uint_t                 last;
    ngx_coord_resp_value_t    *master;
    ngx_uint_t                 nnodes;     /* the master and its replicas */
} ngx_coord_slot_range_t;


/* an error reply that sends a command to another node */
typedef struct {
    ngx_uint_t                 slot;
    ngx_coord_slot_node_t      node;
    unsigned                   ask:1;      /* this once; else for ever */
} ngx_coord_slot_moved_t;


/* the slot of a key: of what stands in its first braces, or of all of it */
ngx_uint_t ngx_coord_slot(ngx_str_t *key);

/*
 * Checks a whole reply to CLUSTER SLOTS: shapes, bounds, and that no slot is
 * there twice.  NGX_OK: its elements may be read by the functions below;
 * NGX_DECLINED: it has no slots at all; NGX_ERROR: it is no such reply.
 */
ngx_int_t ngx_coord_slots_check(ngx_coord_resp_value_t *reply);

/* an element of it; NGX_ERROR: it is none */
ngx_int_t ngx_coord_slot_range(ngx_coord_resp_value_t *v,
    ngx_coord_slot_range_t *range);

/*
 * A node of an element.  A host that is nil, empty or "?" is empty then.
 * NGX_ERROR: it is none, or its name is not fit for one.
 */
ngx_int_t ngx_coord_slot_node(ngx_coord_resp_value_t *v,
    ngx_coord_slot_node_t *node);

/* 1 if a name from a server is fit for a host: short, and of its characters */
ngx_uint_t ngx_coord_slot_host_good(ngx_str_t *host);

/* NGX_OK: the text is a MOVED or an ASK; NGX_DECLINED: it is not */
ngx_int_t ngx_coord_slot_moved(ngx_str_t *text,
    ngx_coord_slot_moved_t *moved);


#endif /* _NGX_COORD_SLOT_H_INCLUDED_ */
