
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * A batch: its memory, its operations, its states.
 */


#include "ngx_coord_batch.h"


/* batches that a worker keeps for reuse */
#define NGX_COORD_BATCH_KEEP  128


static void ngx_coord_batch_destroy(ngx_coord_batch_t *batch);


const ngx_coord_edges_t  ngx_coord_batch_edges[NGX_COORD_BATCH_STATES] = {

    /* NEW */
    ngx_coord_edge(NGX_COORD_BATCH_IN_FLIGHT)
    | ngx_coord_edge(NGX_COORD_BATCH_COMPLETE)
    | ngx_coord_edge(NGX_COORD_BATCH_ENDED),

    /* IN_FLIGHT */
    ngx_coord_edge(NGX_COORD_BATCH_AGAIN)
    | ngx_coord_edge(NGX_COORD_BATCH_LATE)
    | ngx_coord_edge(NGX_COORD_BATCH_POSTED)
    | ngx_coord_edge(NGX_COORD_BATCH_CANCELLED)
    | ngx_coord_edge(NGX_COORD_BATCH_LEFT)
    | ngx_coord_edge(NGX_COORD_BATCH_ENDED),

    /* AGAIN */
    ngx_coord_edge(NGX_COORD_BATCH_IN_FLIGHT)
    | ngx_coord_edge(NGX_COORD_BATCH_COMPLETE)
    | ngx_coord_edge(NGX_COORD_BATCH_ENDED),

    /* LATE */
    ngx_coord_edge(NGX_COORD_BATCH_LATE_SEEN)
    | ngx_coord_edge(NGX_COORD_BATCH_POSTED)
    | ngx_coord_edge(NGX_COORD_BATCH_CANCELLED),

    /* LATE_SEEN */
    ngx_coord_edge(NGX_COORD_BATCH_COMPLETE)
    | ngx_coord_edge(NGX_COORD_BATCH_LEFT),

    /* POSTED */
    ngx_coord_edge(NGX_COORD_BATCH_COMPLETE)
    | ngx_coord_edge(NGX_COORD_BATCH_ENDED),

    /* COMPLETE */
    ngx_coord_edge(NGX_COORD_BATCH_ENDED),

    /* CANCELLED */
    ngx_coord_edge(NGX_COORD_BATCH_ENDED),

    /* LEFT */
    ngx_coord_edge(NGX_COORD_BATCH_ENDED),

    /* ENDED */
    0
};


/* free batches, linked by their data */
static ngx_coord_batch_t  *ngx_coord_batches;
static ngx_uint_t          ngx_coord_nbatches;


ngx_coord_batch_t *
ngx_coord_batch_create(ngx_coord_store_t *store)
{
    ngx_uint_t          nparts;
    ngx_coord_part_t   *parts;
    ngx_coord_batch_t  *batch;

    batch = ngx_coord_batches;

    if (batch) {
        ngx_coord_batches = batch->data;
        ngx_coord_nbatches--;

    } else {
        batch = ngx_alloc(sizeof(ngx_coord_batch_t), ngx_cycle->log);

        if (batch == NULL) {
            return NULL;
        }

        batch->parts = NULL;
        batch->nparts = 0;
    }

    /* all but the operations, which ngx_coord_batch_add() clears */

    parts = batch->parts;
    nparts = batch->nparts;

    ngx_memzero(batch, offsetof(ngx_coord_batch_t, inline_ops));

    batch->parts = parts;
    batch->nparts = nparts;
    batch->store = store;
    batch->ops = batch->inline_ops;
    batch->nalloc = NGX_COORD_BATCH_OPS;

    return batch;
}


ngx_coord_op_t *
ngx_coord_batch_add(ngx_coord_batch_t *batch,
    const ngx_coord_op_type_t *type, ngx_coord_zone_t *zone, u_char *key,
    size_t len)
{
    ngx_coord_op_t  *op, *ops;

    if (len > NGX_COORD_KEY_LEN) {
        return NULL;
    }

    if (batch->nops == batch->nalloc) {
        ops = ngx_alloc(2 * batch->nalloc * sizeof(ngx_coord_op_t),
                        ngx_cycle->log);
        if (ops == NULL) {
            return NULL;
        }

        ngx_memcpy(ops, batch->ops, batch->nops * sizeof(ngx_coord_op_t));

        if (batch->ops != batch->inline_ops) {
            ngx_free(batch->ops);
        }

        batch->ops = ops;
        batch->nalloc *= 2;
    }

    op = &batch->ops[batch->nops++];

    ngx_memzero(op, sizeof(ngx_coord_op_t));

    op->type = type;
    op->zone = zone;
    op->key_len = len;

    ngx_memcpy(op->key, key, len);

    return op;
}


ngx_int_t
ngx_coord_op_blob(ngx_coord_op_t *op, size_t size)
{
    op->blob = ngx_alloc(size, ngx_cycle->log);

    return op->blob ? NGX_OK : NGX_ERROR;
}


void
ngx_coord_batch_leave(ngx_coord_batch_t *batch)
{
    if (batch->state == NGX_COORD_BATCH_LATE_SEEN) {
        ngx_coord_batch_enter(batch, NGX_COORD_BATCH_LEFT);
        return;
    }

    ngx_coord_batch_free(batch);
}


void
ngx_coord_batch_free(ngx_coord_batch_t *batch)
{
    ngx_uint_t  i;

    ngx_coord_batch_enter(batch, NGX_COORD_BATCH_ENDED);

    for (i = 0; i < batch->nops; i++) {
        if (batch->ops[i].blob) {
            ngx_free(batch->ops[i].blob);
        }

        ngx_coord_op_free_record(&batch->ops[i]);
    }

    if (batch->ops != batch->inline_ops) {
        ngx_free(batch->ops);
    }

    if (ngx_coord_nbatches >= NGX_COORD_BATCH_KEEP) {
        ngx_coord_batch_destroy(batch);
        return;
    }

    batch->data = ngx_coord_batches;
    ngx_coord_batches = batch;
    ngx_coord_nbatches++;
}


static void
ngx_coord_batch_destroy(ngx_coord_batch_t *batch)
{
    if (batch->parts) {
        ngx_free(batch->parts);
    }

    ngx_free(batch);
}


void
ngx_coord_batches_exit(void)
{
    ngx_coord_batch_t  *batch;

    while (ngx_coord_batches) {
        batch = ngx_coord_batches;
        ngx_coord_batches = batch->data;
        ngx_coord_batch_destroy(batch);
    }

    ngx_coord_nbatches = 0;
}
