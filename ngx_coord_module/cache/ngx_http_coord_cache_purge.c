
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The rounds of a purge, of a request that changes what is kept and of
 * coord_api.
 */


#include "ngx_http_coord_cache.h"


static ngx_uint_t ngx_http_coord_cache_purge_goes_on(ngx_coord_op_t *op);


ngx_int_t
ngx_http_coord_cache_purge_add(ngx_coord_batch_t *batch,
    ngx_coord_zone_t *zone, ngx_coord_near_t *near, u_char *key, size_t len,
    ngx_uint_t tag)
{
    ngx_coord_op_t  *op;

    op = ngx_coord_batch_add(batch, &ngx_coord_op_cache_purge, zone, key, len);
    if (op == NULL) {
        return NGX_ERROR;
    }

    op->u.cache.ttl = NGX_HTTP_COORD_CACHE_LIFE;
    op->u.cache.apart = 1;

    /* of a tag nothing is stored that could be found */

    op->u.cache.found = tag;

    if (near) {
        ngx_http_coord_cache_near_forget(near, key, len);
    }

    return NGX_OK;
}


ngx_coord_batch_t *
ngx_http_coord_cache_purge_note(ngx_coord_batch_t *batch)
{
    ngx_uint_t          i;
    ngx_coord_op_t     *op, *last;
    ngx_coord_batch_t  *next;

    next = NULL;

    for (i = 0; i < batch->nops; i++) {
        last = &batch->ops[i];

        if (!ngx_http_coord_cache_purge_goes_on(last)) {
            continue;
        }

        if (next == NULL) {
            next = ngx_coord_batch_create(batch->store);

            if (next == NULL) {
                return NULL;
            }
        }

        op = ngx_coord_batch_add(next, &ngx_coord_op_cache_purged, last->zone,
                                 last->key, last->key_len);
        if (op == NULL) {
            continue;
        }

        op->u.cache = last->u.cache;

        if (last->type == &ngx_coord_op_cache_purged) {
            op->u.cache.apart = 0;
        }
    }

    return next;
}


/* what was found was told, and another answer tells that this has left */

static ngx_uint_t
ngx_http_coord_cache_purge_goes_on(ngx_coord_op_t *op)
{
    if (op->rc != NGX_OK || op->u.cache.now == 0) {
        return 0;
    }

    if (op->type == &ngx_coord_op_cache_purged) {
        return op->u.cache.found && op->u.cache.apart;
    }

    /* what is not there any more may have been copied only if it was */

    if (op->u.cache.found) {
        ngx_http_coord_cache_near_tell(op->zone, op->key, op->key_len);
    }

    return 1;
}
