
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The two rounds of a purge, of a request that changes what is kept and of
 * coord_api.
 */


#include "ngx_http_coord_cache.h"


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
    ngx_coord_op_t     *op, *purged;
    ngx_coord_batch_t  *next;

    next = NULL;

    for (i = 0; i < batch->nops; i++) {
        purged = &batch->ops[i];

        if (purged->type != &ngx_coord_op_cache_purge
            || purged->rc != NGX_OK
            || purged->u.cache.now == 0)
        {
            continue;
        }

        /* what is not there any more may have been copied only if it was */

        if (purged->u.cache.found) {
            ngx_http_coord_cache_near_tell(purged->zone, purged->key,
                                           purged->key_len);
        }

        if (next == NULL) {
            next = ngx_coord_batch_create(batch->store);

            if (next == NULL) {
                return NULL;
            }
        }

        op = ngx_coord_batch_add(next, &ngx_coord_op_cache_purged,
                                 purged->zone, purged->key, purged->key_len);
        if (op) {
            op->u.cache = purged->u.cache;
        }
    }

    return next;
}
