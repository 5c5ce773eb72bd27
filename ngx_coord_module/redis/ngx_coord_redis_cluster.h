
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Private to the Redis client: the servers of a cluster and which of them has
 * which slot.
 */


#ifndef _NGX_COORD_REDIS_CLUSTER_H_INCLUDED_
#define _NGX_COORD_REDIS_CLUSTER_H_INCLUDED_


#include "ngx_coord_redis_conn.h"
#include "ngx_coord_slot.h"


/* a server of the cluster, master or replica; connected when it is asked */
typedef struct {
    ngx_coord_redis_node_t     nodes[NGX_COORD_LANE_MAX];   /* first */
    ngx_queue_t                queue;         /* in servers, or in retired */
    ngx_coord_endpoint_t       endpoint;
    ngx_addr_t                 addr;
    ngx_sockaddr_t             sockaddr;
    ngx_str_t                  announced;     /* names by which it is moved */
    ngx_str_t                  ip;            /* ... to; empty: none */
    ngx_uint_t                 nslots;
    ngx_msec_t                 since;         /* retired */
    unsigned                   known:1;       /* it is in the newest map */
    u_char                     text[3 * (NGX_COORD_SLOT_HOST_LEN + 1)
                                    + NGX_SOCKADDR_STRLEN];
} ngx_coord_redis_server_t;


/*
 * Those who do not know where to go wait in the lobby: a node whose connection
 * asks one server after the other, those of the map and the lines "server",
 * for CLUSTER SLOTS, and is closed when it has got it.
 */

typedef enum {
    NGX_COORD_CLUSTER_IDLE = 0,
    NGX_COORD_CLUSTER_ASKED,         /* the timer ends it */
    NGX_COORD_CLUSTER_TOLD           /* the timer closes the connection */
} ngx_coord_cluster_state_e;


/* calls that are asked once more, each by its owner's time at the latest */
typedef void (*ngx_coord_redis_again_pt)(void *data,
    ngx_coord_redis_call_t *call);

typedef struct {
    ngx_coord_redis_again_pt   send;          /* the call is in no queue */
    void                      *data;
    ngx_queue_t                calls;
    ngx_uint_t                 ncalls;
    ngx_coord_timer_t          timer;
    ngx_uint_t                 slot;          /* of which none waits, */
    ngx_msec_t                 until;         /* so long */
} ngx_coord_redis_again_t;


struct ngx_coord_redis_cluster_s {
    ngx_coord_redis_t         *redis;
    ngx_coord_redis_node_t     lobby[NGX_COORD_LANE_MAX];   /* one is used */
    ngx_coord_cluster_state_e  state;
    ngx_coord_timer_t          timer;

    ngx_msec_t                 asked;         /* when */
    ngx_msec_t                 refreshed;     /* points in time; 0: never */
    ngx_msec_t                 failover;
    ngx_uint_t                 refreshes;
    ngx_uint_t                 redirects;
    ngx_uint_t                 next;          /* who is asked next, */
    ngx_uint_t                 tries;         /* left in this round */

    ngx_queue_t                servers;
    ngx_uint_t                 nservers;
    ngx_queue_t                retired;       /* not in the map any more */
    ngx_coord_timer_t          retire;

    ngx_coord_redis_again_t    again;

    ngx_coord_redis_server_t  *slots[NGX_COORD_SLOTS];
    unsigned                   up:1;          /* a server has told it */
    unsigned                   stale:1;       /* it is known to be old */
};


/* ngx_coord_redis_route.c */

/* the node that serves a slot, by its connection for such calls; never NULL */
ngx_coord_redis_node_t *ngx_coord_redis_node(ngx_coord_redis_t *redis,
    ngx_uint_t slot, ngx_coord_lane_e lane);


/* ngx_coord_redis_cluster.c */

/* creates it and asks for the map; NGX_ERROR: no memory */
ngx_int_t ngx_coord_redis_cluster_create(ngx_coord_redis_t *redis);

/* ends all calls, closes all connections, frees; may be half created */
void ngx_coord_redis_cluster_destroy(ngx_coord_redis_t *redis);

/* the node that has the slot, as far as is known; never NULL */
ngx_coord_redis_node_t *ngx_coord_redis_cluster_node(
    ngx_coord_redis_cluster_t *cluster, ngx_uint_t slot,
    ngx_coord_lane_e lane);

/* 1 if there is a map and one of its servers would be asked now */
ngx_uint_t ngx_coord_redis_cluster_ready(ngx_coord_redis_cluster_t *cluster);

/* a slot of a server that would be asked now; 0: there is none */
ngx_uint_t ngx_coord_redis_cluster_live(ngx_coord_redis_cluster_t *cluster);

/* as ngx_coord_redis_push(), for all servers */
void ngx_coord_redis_cluster_push(ngx_coord_redis_cluster_t *cluster);


/* ngx_coord_redis_again.c */

/* send() gets the calls whose time has come; the log must live as long */
void ngx_coord_redis_again_init(ngx_coord_redis_again_t *again,
    ngx_coord_redis_again_pt send, void *data, ngx_log_t *log);

/*
 * Takes a call from a node that did not execute it, to ask again in a moment
 * whoever has its slot then.  NGX_DECLINED: there is no time left for that, or
 * it was in vain for others of the slot a while ago; the node keeps the call.
 */
ngx_int_t ngx_coord_redis_again(ngx_coord_redis_again_t *again,
    ngx_coord_redis_node_t *node, ngx_coord_redis_call_t *call);

/* ends all calls; node is who counts them */
void ngx_coord_redis_again_end(ngx_coord_redis_again_t *again,
    ngx_coord_redis_node_t *node);


/* ngx_coord_redis_map.c */

/*
 * Makes a reply to CLUSTER SLOTS the map; servers that it does not name retire.
 * NGX_DECLINED: it has no slots; NGX_ERROR: it is no such reply, or there is
 * no memory.  The map stays as it was then.
 */
ngx_int_t ngx_coord_redis_cluster_map(ngx_coord_redis_cluster_t *cluster,
    ngx_coord_resp_value_t *reply);

/*
 * The address that a connection goes to, as text in buf, which has room for
 * NGX_SOCKADDR_STRLEN: of nodes that do not tell theirs.
 */
void ngx_coord_redis_cluster_from(ngx_coord_redis_conn_t *conn, u_char *buf,
    ngx_str_t *from);


/* ngx_coord_redis_server.c */

/*
 * The server that a reply names, if it is in the list; a name that is empty is
 * that of from.  NULL: it is not there.
 */
ngx_coord_redis_server_t *ngx_coord_redis_server_find(
    ngx_coord_redis_cluster_t *cluster, ngx_coord_slot_node_t *node,
    ngx_str_t *from);

/*
 * The same, and adds it if it is not there.  NULL: no memory, or a host name
 * that nobody resolves, which is logged.
 */
ngx_coord_redis_server_t *ngx_coord_redis_server_get(
    ngx_coord_redis_cluster_t *cluster, ngx_coord_slot_node_t *node,
    ngx_str_t *from);

/*
 * Keeps the names of the servers for processes of this node, and adds those
 * that were kept, without slots: until there is a map they are only asked.
 */
void ngx_coord_redis_servers_keep(ngx_coord_redis_cluster_t *cluster);
void ngx_coord_redis_servers_recall(ngx_coord_redis_cluster_t *cluster);

/* it is no more in the map: goes when its calls have ended, from a timer */
void ngx_coord_redis_server_retire(ngx_coord_redis_cluster_t *cluster,
    ngx_coord_redis_server_t *server);

/* the handler of the timer of those */
void ngx_coord_redis_server_timer(ngx_event_t *ev);

/* closes its connections, ends its calls, frees it */
void ngx_coord_redis_server_destroy(ngx_coord_redis_cluster_t *cluster,
    ngx_coord_redis_server_t *server);

/* the n-th of the servers of the map and the lines "server", in a circle */
ngx_coord_endpoint_t *ngx_coord_redis_server_endpoint(
    ngx_coord_redis_cluster_t *cluster, ngx_uint_t n);


#endif /* _NGX_COORD_REDIS_CLUSTER_H_INCLUDED_ */
