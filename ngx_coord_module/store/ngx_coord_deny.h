
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Keys of buckets that Redis has refused: while what is known to be in a
 * bucket is more than a caller may find there, it is refused without asking.
 * Known is a number of ngx_coord_tat.h, which only grows while the key is
 * there, so each caller decides by its own burst and cost.  Places that were
 * given back, and a bucket that somebody removed from Redis itself, are seen
 * after one interval of the rate at the latest.
 *
 * It stands in the memory of the zone, for all workers of the node.  What the
 * module removes is told to all nodes on a channel of the store.
 */


#ifndef _NGX_COORD_DENY_H_INCLUDED_
#define _NGX_COORD_DENY_H_INCLUDED_


#include "ngx_coord_store.h"


/*
 * At configuration, when the store of a zone of buckets is known: has it know
 * what is refused.  Does nothing for a memory store.  NGX_ERROR: no memory.
 */
ngx_int_t ngx_coord_deny_zone(ngx_pool_t *pool, ngx_coord_zone_t *zone);

/*
 * What the bucket of op holds at least, as it stands in Redis; 0: not known.
 * now is on the clock of the server.
 */
int64_t ngx_coord_deny_find(ngx_coord_op_t *op, ngx_coord_nsec_t now);

/* notes that for a time in nanoseconds from now on */
void ngx_coord_deny_keep(ngx_coord_op_t *op, int64_t number,
    ngx_coord_nsec_t now, ngx_coord_nsec_t time);

/*
 * Nothing is known of the key any more, and, with blocks set, places that were
 * taken in advance (ngx_coord_prefetch.h) are void; of the zone: the same for
 * all of its keys.
 */
void ngx_coord_deny_drop(ngx_coord_zone_t *zone, u_char *key, size_t len,
    ngx_uint_t blocks);
void ngx_coord_deny_drop_all(ngx_coord_zone_t *zone);


/*
 * Locks and enters the table of a zone; unlock() leaves it.  NULL: the zone
 * has none, and is not locked.
 */
ngx_coord_table_t *ngx_coord_zone_lock(ngx_coord_zone_t *zone);
void ngx_coord_zone_unlock(ngx_coord_zone_t *zone);


#endif /* _NGX_COORD_DENY_H_INCLUDED_ */
