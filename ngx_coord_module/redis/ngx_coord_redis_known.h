
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Private to the Redis client: servers that sentinels or a cluster have named,
 * kept for processes of this node that start when none of those that are
 * configured answers.
 */


#ifndef _NGX_COORD_REDIS_KNOWN_H_INCLUDED_
#define _NGX_COORD_REDIS_KNOWN_H_INCLUDED_


#include "ngx_coord_redis_conn.h"
#include "ngx_coord_slot.h"


/* servers as text, each a line */
typedef struct {
    ngx_str_t                  text;          /* in buf */
    u_char                     buf[NGX_COORD_KNOWN_SIZE];
} ngx_coord_redis_known_t;


/* begins an empty list */
#define ngx_coord_redis_known_init(list)                                      \
    ((list)->text.data = (list)->buf, (list)->text.len = 0)

/* adds a server, unless there is no room for it: others will do then */
void ngx_coord_redis_known_add(ngx_coord_redis_known_t *list,
    ngx_coord_slot_node_t *node);

/*
 * Takes the first server out of a list; its names stand in buf.  NGX_DONE: it
 * is empty, or what is left is no such list.
 */
ngx_int_t ngx_coord_redis_known_next(ngx_coord_redis_known_t *list,
    ngx_coord_slot_node_t *node);

/* keeps a list for later processes, in place of the last one */
void ngx_coord_redis_known_keep(ngx_coord_redis_t *redis,
    ngx_coord_redis_known_t *list);

/*
 * Reads the list that was kept last under the same lines "server" and "mode";
 * it is empty if there is none.
 */
void ngx_coord_redis_known_read(ngx_coord_redis_t *redis,
    ngx_coord_redis_known_t *list);


#endif /* _NGX_COORD_REDIS_KNOWN_H_INCLUDED_ */
