
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Claims and the journal of owners: a claim is noted when it is asked for, and
 * again when what it is for has begun.
 */


#include "ngx_coord_claim.h"
#include "ngx_coord_lease.h"
#include "ngx_coord_op_claim.h"


ngx_int_t
ngx_coord_claim_name(ngx_coord_op_t *op)
{
    if (ngx_coord_id(op->id) != NGX_OK) {
        return NGX_ERROR;
    }

    /* what memory is asked it answers at once */

    if (ngx_coord_store_is_memory(op->zone->store)) {
        return NGX_OK;
    }

    op->source = NGX_COORD_SOURCE_REDIS;

    ngx_coord_claim_stamp(op, ngx_coord_store_now(op));
    ngx_coord_claim_note(op, 0);

    op->source = NGX_COORD_SOURCE_NONE;

    return NGX_OK;
}


void
ngx_coord_claim_note(ngx_coord_op_t *op, ngx_uint_t begun)
{
    ngx_coord_nsec_t            life;
    const ngx_coord_op_type_t  *type;

    life = op->u.claim.lease;

    /* who has begun is over when the lease is, as far as can be known */

    if (!begun && op->u.claim.keep) {
        life += op->u.claim.ttl;
    }

    type = op->type;

    op->type = begun ? &ngx_coord_op_claim_renew : &ngx_coord_op_claim;
    ngx_coord_journal_add(op, life);

    op->type = type;
}
