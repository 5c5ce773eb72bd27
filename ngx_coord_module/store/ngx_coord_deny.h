
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Keys that Redis has refused: they are refused without asking for as long as
 * that is certain.  Of a bucket is known what it holds at least, a number of
 * ngx_coord_tat.h, which only grows while the key is there, so each caller
 * decides by its own burst and cost.  Of a window is known when the next place
 * is free, which holds for who asks for one place of the same rate.  Places
 * that were given back, and a key that somebody removed from Redis itself, are
 * seen after one interval of the rate at the latest.  Of a hold is known how
 * long it lasts; one that somebody removed from Redis itself is seen to be gone
 * after NGX_COORD_DENY_HOLD.
 *
 * It stands in the memory of the zone, for all workers of the node.  What the
 * module removes is told to all nodes on a channel of the store.
 */


#ifndef _NGX_COORD_DENY_H_INCLUDED_
#define _NGX_COORD_DENY_H_INCLUDED_


#include "ngx_coord_store.h"


#define NGX_COORD_DENY_HOLD    (5 * NGX_COORD_NSEC_PER_SEC)


/* 1 if something is known of a zone: before the look at one of its keys */

static ngx_inline ngx_uint_t
ngx_coord_deny_any(ngx_coord_zone_t *zone)
{
    ngx_coord_table_t  *table;

    table = zone->table;

    /* a memory store has what was known when its zone was in Redis */

    return table && table->denied > (uint64_t) ngx_coord_turn_time()
           && zone->store->deny.len;
}


/*
 * At configuration, when the store of a zone of rates is known: has it know
 * what is refused.  Does nothing for a memory store.  NGX_ERROR: no memory.
 */
ngx_int_t ngx_coord_deny_zone(ngx_pool_t *pool, ngx_coord_zone_t *zone);

/*
 * What the bucket of op holds at least, as it stands in Redis, in a zone of
 * which something is known; 0: not known.  now is on the clock of the server.
 */
int64_t ngx_coord_deny_find(ngx_coord_op_t *op, ngx_coord_nsec_t now);

/* notes that for a time in nanoseconds from now on */
void ngx_coord_deny_keep(ngx_coord_op_t *op, int64_t number,
    ngx_coord_nsec_t now, ngx_coord_nsec_t time);

/*
 * 1 if op, a take or a look of any rate in such a zone, is refused, as far as
 * is known: then it has its answer, and its source.
 */
ngx_uint_t ngx_coord_deny_refuses(ngx_coord_op_t *op);

/*
 * For windows: 1 if op, which takes or looks, is refused, as far as is known:
 * then it has its answer, and its source.  now is on the clock of the server.
 */
ngx_uint_t ngx_coord_deny_window(ngx_coord_op_t *op, ngx_coord_nsec_t now);

/* notes the answer rc of Redis to op if it is one that will be given again */
ngx_int_t ngx_coord_deny_window_keep(ngx_coord_op_t *op, ngx_int_t rc,
    ngx_coord_nsec_t now);

/* the same: for how long the key of op is held; 0: not known */
ngx_coord_nsec_t ngx_coord_deny_held(ngx_coord_op_t *op);

/* notes that its hold lasts for so long from now on */
void ngx_coord_deny_held_keep(ngx_coord_op_t *op, ngx_coord_nsec_t left);

/*
 * No refusal is known of the key any more, and, with all set, no hold either,
 * and places that were taken in advance (ngx_coord_prefetch.h) are void.  Of
 * the zone: the same for all of its keys.
 */
void ngx_coord_deny_drop(ngx_coord_zone_t *zone, u_char *key, size_t len,
    ngx_uint_t all);
void ngx_coord_deny_drop_all(ngx_coord_zone_t *zone);


#endif /* _NGX_COORD_DENY_H_INCLUDED_ */
