
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Giving back: the operation that does it, and for how long that makes sense.
 */


#include "ngx_coord_giveback_op.h"
#include "ngx_coord_lease.h"
#include "ngx_coord_wake.h"


/* an arrival in line is dropped so much later than it is over */
#define NGX_COORD_GIVEBACK_SLACK   (6 * NGX_COORD_NSEC_PER_SEC)


ngx_coord_nsec_t
ngx_coord_giveback_life(ngx_coord_op_t *op)
{
    switch (op->type->kind) {

    case NGX_COORD_KIND_LEASE:
        return op->u.lease.lease;

    case NGX_COORD_KIND_LINE:
        return op->zone->wait + NGX_COORD_GIVEBACK_SLACK;

    case NGX_COORD_KIND_CLAIM:
        return op->u.claim.lease + (op->u.claim.keep ? op->u.claim.ttl : 0);

    case NGX_COORD_KIND_USER:
        return op->u.session.ttl;

    default: /* a rate */
        return ngx_max(op->u.rate.reset, op->u.rate.life);
    }
}


void
ngx_coord_giveback_copy(ngx_coord_op_t *dst, ngx_coord_op_t *op,
    const ngx_coord_op_type_t *type)
{
    ngx_memzero(dst, sizeof(ngx_coord_op_t));

    dst->type = type;
    dst->zone = op->zone;
    dst->source = op->source;
    dst->u = op->u;
    dst->key_len = op->key_len;

    ngx_memcpy(dst->key, op->key, op->key_len);
    ngx_memcpy(dst->id, op->id, NGX_COORD_ID_LEN);
}


void
ngx_coord_giveback_local(ngx_coord_op_t *op, const ngx_coord_op_type_t *type)
{
    ngx_coord_op_t  give;

    ngx_coord_giveback_copy(&give, op, type);
    ngx_coord_near_run(&give);
    ngx_coord_journal_remove(&give);

    /* nobody else tells who waits for it */

    ngx_coord_wake(give.zone, give.key, give.key_len);
}
