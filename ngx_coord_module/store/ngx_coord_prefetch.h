
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Places of buckets that are taken in advance: a block of them for a key, in
 * the memory of the zone, for all workers of the node.
 *
 * A block is taken from Redis together with the place of a request, so that
 * what it lets in is in the bucket already.  Its places lapse as they drain: a
 * place may be used until it would begin to, in the order in which they were
 * taken.  So what was let in at any time is in the bucket at that time, and
 * never more than the bucket may hold, whoever takes beside it, and whatever
 * becomes of this node.  What would take longer than ten seconds to lapse is
 * given back before, by the worker that took it or, once that has ended, by
 * those that began after it.
 *
 * A block is as large as the demand: none for a key that comes once; then so
 * large that some requests come before it has lapsed, or none if that would be
 * more than zone->prefetch, the most; then twice as large as the last one,
 * until the largest is of no use.  Behind the largest one the next is asked for
 * while the last quarter is left.
 */


#ifndef _NGX_COORD_PREFETCH_H_INCLUDED_
#define _NGX_COORD_PREFETCH_H_INCLUDED_


#include "ngx_coord_store.h"


/* the most that a zone may take in advance */
#define NGX_COORD_PREFETCH_MAX  4095


/*
 * Asks the block of a key for what op, a take, needs, for callers of its kind.
 * NGX_OK: it is granted, and *held is what was in the bucket before it, in
 * nanoseconds; where *extra is set, the next block of so many is due:
 * ngx_coord_prefetch_ahead().  NGX_AGAIN: ask Redis, and for *extra places
 * more; without ask it is not going to, and nothing is noted.  *extra is 0
 * before.
 */
ngx_int_t ngx_coord_prefetch_take(ngx_coord_op_t *op, uint32_t kind,
    ngx_coord_nsec_t now, ngx_uint_t ask, ngx_coord_nsec_t *held,
    ngx_uint_t *extra);

/*
 * Asks Redis for the next block of the key of op, of so many places, while the
 * last ones of the block before let requests in; none waits for it.
 */
void ngx_coord_prefetch_ahead(ngx_coord_op_t *op, uint32_t kind,
    ngx_uint_t extra);

/*
 * For a feature, before it asks the store: 1 if the block of the key grants op,
 * a take; then op has its result, as if it had been asked.
 */
ngx_uint_t ngx_coord_prefetch_grants(ngx_coord_op_t *op);

/*
 * What came of extra places: they were granted, and mark is the time when the
 * last of them has drained; or, mark 0, they were not.  What a block of before
 * still has is given back where there is a new one, which drains earlier then.
 */
void ngx_coord_prefetch_put(ngx_coord_op_t *op, uint32_t kind,
    ngx_coord_nsec_t now, ngx_coord_nsec_t mark, ngx_uint_t extra);

/*
 * At the start of a worker, and at its end, while the stores still run: what it
 * would have given back later is given back now.
 */
void ngx_coord_prefetch_init(ngx_cycle_t *cycle);
void ngx_coord_prefetch_exit(void);

/*
 * For init_process, after init(): blocks of the zone that others have taken are
 * given back by this worker, too, whoever comes first.
 */
void ngx_coord_prefetch_watch(ngx_coord_zone_t *zone);


#endif /* _NGX_COORD_PREFETCH_H_INCLUDED_ */
