
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Buckets: what is known of one in the memory of the node, before and after
 * Redis is asked.
 */


#include "ngx_coord_deny.h"
#include "ngx_coord_lives.h"
#include "ngx_coord_op_bucket.h"
#include "ngx_coord_prefetch.h"


static ngx_int_t ngx_coord_bucket_known(ngx_coord_op_t *op,
    const ngx_coord_bucket_t *bucket, ngx_coord_nsec_t now);
static ngx_coord_nsec_t ngx_coord_bucket_denied(ngx_coord_op_t *op,
    const ngx_coord_bucket_t *bucket, ngx_coord_nsec_t now);
static void ngx_coord_bucket_refuse(ngx_coord_op_t *op,
    const ngx_coord_bucket_t *bucket, ngx_coord_nsec_t now,
    ngx_coord_nsec_t held);
static ngx_uint_t ngx_coord_bucket_prefetched(ngx_coord_op_t *op,
    const ngx_coord_bucket_t *bucket, ngx_coord_nsec_t now, ngx_uint_t ask);


ngx_int_t
ngx_coord_bucket_take_known(ngx_coord_op_t *op, ngx_coord_nsec_t now)
{
    uint32_t             cap;
    ngx_int_t            rc;
    ngx_coord_rate_t    *rate;
    ngx_coord_bucket_t   bucket;

    rate = &op->u.rate;

    if (ngx_coord_bucket_init(&bucket, rate) != NGX_OK) {
        return ngx_coord_rate_never(rate);
    }

    rc = ngx_coord_bucket_known(op, &bucket, now);

    if (rc != NGX_AGAIN) {
        return rc;
    }

    /* who takes in any case has a life to set that nobody has foreseen */

    if (!rate->force
        && ngx_coord_lives_find(op, ngx_coord_bucket_kind(rate), now, &cap))
    {
        rate->capacity = ngx_coord_tat_places(cap);
        op->type = &ngx_coord_op_bucket_steady;
    }

    return NGX_AGAIN;
}


/*
 * NGX_OK: granted from a block of prefetch=; NGX_BUSY: refused as before; both
 * answer op as a reply does.  NGX_AGAIN: Redis is to be asked, maybe for a
 * block along with it, which is in rate->cost then.
 */

static ngx_int_t
ngx_coord_bucket_known(ngx_coord_op_t *op, const ngx_coord_bucket_t *bucket,
    ngx_coord_nsec_t now)
{
    ngx_coord_nsec_t  denied;

    /* what stands in a block is in the bucket, be that full */

    if (op->zone->prefetch && ngx_coord_bucket_prefetched(op, bucket, now, 0))
    {
        return NGX_OK;
    }

    denied = ngx_coord_bucket_denied(op, bucket, now);

    if (denied) {
        ngx_coord_bucket_refuse(op, bucket, now, denied);
        return NGX_BUSY;
    }

    if (op->zone->prefetch && ngx_coord_bucket_prefetched(op, bucket, now, 1))
    {
        return NGX_OK;
    }

    return NGX_AGAIN;
}


/* what is known to be in the bucket if the caller may not find as much, or 0 */

static ngx_coord_nsec_t
ngx_coord_bucket_denied(ngx_coord_op_t *op, const ngx_coord_bucket_t *bucket,
    ngx_coord_nsec_t now)
{
    ngx_coord_nsec_t  held;

    /* the common case: nothing is refused now */

    if (op->u.rate.force || !ngx_coord_deny_any(op->zone)) {
        return 0;
    }

    held = ngx_coord_tat_own_backlog(ngx_coord_deny_find(op, now),
                                     bucket->interval,
                                     ngx_coord_bucket_clock(now));

    return (held > bucket->limit) ? held : 0;
}


static void
ngx_coord_bucket_refuse(ngx_coord_op_t *op, const ngx_coord_bucket_t *bucket,
    ngx_coord_nsec_t now, ngx_coord_nsec_t held)
{
    ngx_coord_rate_t   *rate;
    ngx_coord_table_t  *table;

    rate = &op->u.rate;

    (void) ngx_coord_bucket_answer(bucket, rate, held);

    rate->mark = now + rate->reset;
    op->source = NGX_COORD_SOURCE_DENY_CACHE;

    table = op->zone->table;

    (void) ngx_atomic_fetch_add(&table->near[0], 1);
}


/*
 * 1 if the block of the key grants what op takes.  Where it does not and op is
 * going to ask, it may be made to take the next one along, unless so many never
 * fit.
 */

static ngx_uint_t
ngx_coord_bucket_prefetched(ngx_coord_op_t *op,
    const ngx_coord_bucket_t *bucket, ngx_coord_nsec_t now, ngx_uint_t ask)
{
    uint32_t           kind;
    ngx_uint_t         extra;
    ngx_coord_rate_t  *rate;
    ngx_coord_nsec_t   held;

    extra = 0;
    rate = &op->u.rate;

    if (rate->cost == 0 || rate->look || rate->force || rate->tries
        || !op->zone->deny)
    {
        return 0;
    }

    kind = ngx_coord_bucket_kind(rate);

    if (ngx_coord_prefetch_take(op, kind, now, ask, &held, &extra) == NGX_OK) {

        if (extra) {
            ngx_coord_prefetch_ahead(op, kind, extra);
        }

        if (ngx_coord_bucket_answer(bucket, rate, held) != NGX_OK) {
            return 0;
        }

        rate->mark = now + rate->reset;
        op->source = NGX_COORD_SOURCE_PREFETCH;

        return 1;
    }

    rate->extra = ngx_min(extra, (ngx_uint_t)
                                 ngx_coord_bucket_capacity(rate) - rate->cost);
    rate->cost += rate->extra;

    return 0;
}


ngx_uint_t
ngx_coord_prefetch_grants(ngx_coord_op_t *op)
{
    ngx_coord_bucket_t  bucket;

    if (ngx_coord_bucket_init(&bucket, &op->u.rate) != NGX_OK
        || !ngx_coord_bucket_prefetched(op, &bucket, ngx_coord_store_now(op),
                                        0))
    {
        return 0;
    }

    op->rc = NGX_OK;

    return 1;
}


ngx_int_t
ngx_coord_bucket_block(ngx_coord_op_t *op, int64_t held, ngx_int_t rc,
    ngx_coord_nsec_t now)
{
    ngx_int_t            own;
    ngx_uint_t           extra;
    ngx_coord_rate_t    *rate;
    ngx_coord_nsec_t     mark;
    ngx_coord_bucket_t   bucket;

    rate = &op->u.rate;
    extra = rate->extra;
    mark = (rc == NGX_OK) ? rate->mark : 0;

    rate->cost -= extra;
    rate->extra = 0;

    ngx_coord_prefetch_put(op, ngx_coord_bucket_kind(rate), now, mark, extra);

    (void) ngx_coord_bucket_init(&bucket, rate);

    own = ngx_coord_bucket_answer(&bucket, rate,
                                  held * NGX_COORD_NSEC_PER_USEC);

    rate->mark = now + rate->reset;

    /* nobody waits for a block alone */

    if (rc == own || rate->cost == 0) {
        return own;
    }

    rate->tries++;

    return NGX_AGAIN;
}


void
ngx_coord_bucket_deny(ngx_coord_op_t *op, ngx_coord_nsec_t now)
{
    ngx_coord_rate_t  *rate;

    rate = &op->u.rate;

    if (op->zone->deny) {
        ngx_coord_deny_keep(op, rate->found, now,
                            ngx_min(rate->retry, rate->interval));
    }
}


uint32_t
ngx_coord_bucket_kind(const ngx_coord_rate_t *rate)
{
    return (ngx_coord_tat_class(rate->interval) << 16)
           | ngx_coord_tat_code(ngx_coord_bucket_capacity(rate));
}
