
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * For the files of buckets: a number of ngx_coord_tat.h, in Redis in a
 * BITFIELD, in memory in payload[0] of an entry.  Behind it stand the time of
 * the last caller and the largest capacity of all (what is above it cannot be
 * true), in Redis at the bits 64 and 96, the latter as a code, in memory in
 * the upper and lower half of payload[1].
 */


#ifndef _NGX_COORD_OP_BUCKET_H_INCLUDED_
#define _NGX_COORD_OP_BUCKET_H_INCLUDED_


#include "ngx_coord_op_arg.h"
#include "ngx_coord_tat.h"


/*
 * The clock of a TAT in Redis starts in 2020, so that it has enough bits until
 * 2091; a server whose clock was never set counts from its own start.
 */
#define NGX_COORD_BUCKET_EPOCH  (1577836800LL * NGX_COORD_NSEC_PER_SEC)

#define ngx_coord_bucket_clock(now)                                           \
    ((now) < NGX_COORD_BUCKET_EPOCH ? (now) : (now) - NGX_COORD_BUCKET_EPOCH)


/* a bucket that others keep changing is given up after so many questions */
#define NGX_COORD_BUCKET_TRIES  32

#define ngx_coord_bucket_int(v, n, i)                                         \
    ngx_coord_resp_integer(ngx_coord_resp_element(v, n), i)


/* a key is given so much more life than it needs, or twice what it needs */
#define NGX_COORD_BUCKET_SPARE  (7 * NGX_COORD_NSEC_PER_SEC)

/* what a bucket needs at any time: until it has drained, and a moment */
#define ngx_coord_bucket_need(bucket)                                         \
    ((bucket)->total                                                          \
     + (ngx_coord_nsec_t) NGX_COORD_OP_SLACK * NGX_COORD_NSEC_PER_MSEC)

/*
 * The life that the key of a bucket is given: what it needs and at least as
 * long again, in which it need not be given another.
 */

static ngx_inline ngx_coord_nsec_t
ngx_coord_bucket_life(const ngx_coord_bucket_t *bucket)
{
    ngx_coord_nsec_t  need;

    need = ngx_coord_bucket_need(bucket);

    return need + ngx_max(need, NGX_COORD_BUCKET_SPARE);
}


/*
 * 1 if a key had more life, in milliseconds as of PTTL, than the scripts have
 * just given it; then rate->life is that.
 */
ngx_uint_t ngx_coord_bucket_shortened(ngx_coord_rate_t *rate, int64_t left);


/*
 * What the bucket that was found holds for this caller: rate->found, capacity
 * and stamp say what is known of it; now and the clock of its TAT.  Above the
 * capacity of all callers it cannot be true: the clock of the store was set
 * back.
 */
ngx_coord_nsec_t ngx_coord_bucket_held(const ngx_coord_rate_t *rate,
    const ngx_coord_bucket_t *bucket, ngx_coord_nsec_t now,
    ngx_coord_nsec_t clock);

/*
 * known() of a take: NGX_OK or NGX_BUSY where the node decides by itself, from
 * a block of prefetch= or as before; NGX_AGAIN: Redis is to be asked, maybe for
 * a block along with it, which is in rate->cost then, and by bucket_steady
 * where the key is known to live long enough.
 */
ngx_int_t ngx_coord_bucket_take_known(ngx_coord_op_t *op,
    ngx_coord_nsec_t now);

/*
 * Where a block was asked for as well: puts it in its place, and answers for
 * what the request itself takes.  held: microseconds that the bucket held; rc:
 * that of both together.  NGX_AGAIN: without the block it may fit.
 */
ngx_int_t ngx_coord_bucket_block(ngx_coord_op_t *op, int64_t held,
    ngx_int_t rc, ngx_coord_nsec_t now);

/*
 * Notes a refusal: until the caller would be let in, but not beyond one
 * interval, for places may be given back.
 */
void ngx_coord_bucket_deny(ngx_coord_op_t *op, ngx_coord_nsec_t now);

/* callers of one kind need the same life of a key */
uint32_t ngx_coord_bucket_kind(const ngx_coord_rate_t *rate);

/* run() of a take, and of what a take becomes on its way */
ngx_int_t ngx_coord_bucket_take_run(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);


/*
 * What a take becomes: one of a single command, one that converts a bucket, and
 * one that is answered and sets the life u.rate.life of its key.
 */
extern const ngx_coord_op_type_t  ngx_coord_op_bucket_steady;
extern const ngx_coord_op_type_t  ngx_coord_op_bucket_swap;
extern const ngx_coord_op_type_t  ngx_coord_op_bucket_life;

/*
 * Twice is as good as once: gives a key the life of u.rate.life, and the same
 * for one that has none.
 */
extern const ngx_coord_op_type_t  ngx_coord_op_bucket_mend;
extern const ngx_coord_op_type_t  ngx_coord_op_bucket_left;


#endif /* _NGX_COORD_OP_BUCKET_H_INCLUDED_ */
