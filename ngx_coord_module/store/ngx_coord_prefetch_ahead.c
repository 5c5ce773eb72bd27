
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Blocks of places that no request waits for.
 */


#include "ngx_coord_prefetch.h"


static void ngx_coord_prefetch_answered(ngx_coord_batch_t *batch);


void
ngx_coord_prefetch_ahead(ngx_coord_op_t *op, uint32_t kind, ngx_uint_t extra)
{
    ngx_coord_op_t     *take;
    ngx_coord_batch_t  *batch;

    batch = ngx_coord_batch_create(op->zone->store);

    if (batch == NULL) {
        return;
    }

    take = ngx_coord_batch_add(batch, &ngx_coord_op_bucket_take, op->zone,
                               op->key, op->key_len);
    if (take == NULL) {
        ngx_coord_batch_done(batch);
        return;
    }

    take->tag = kind;
    take->u.rate.interval = op->u.rate.interval;
    take->u.rate.burst = op->u.rate.burst;
    take->u.rate.cost = extra;
    take->u.rate.extra = extra;

    /* asked once more, as it were: not for what the node has itself */

    take->u.rate.tries = 1;

    batch->handler = ngx_coord_prefetch_answered;

    if (ngx_coord_batch_send(batch) == NGX_OK) {
        ngx_coord_prefetch_answered(batch);
    }
}


/* the block of a reply stands already */

static void
ngx_coord_prefetch_answered(ngx_coord_batch_t *batch)
{
    ngx_coord_op_t  *op;

    op = batch->ops;

    if (op->u.rate.extra) {
        ngx_coord_prefetch_put(op, (uint32_t) op->tag, ngx_coord_store_now(op),
                               0, op->u.rate.extra);
    }

    ngx_coord_batch_done(batch);
}
