
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * What the error log says of requests that went by on_failure: how many, once
 * a second while it lasts, and its end.  One of each store and worker.
 */


#ifndef _NGX_COORD_OUTAGE_H_INCLUDED_
#define _NGX_COORD_OUTAGE_H_INCLUDED_


#include "ngx_coord_store.h"


/*
 * For ngx_coord_outage_count(): counts a batch by the on_failure of the
 * operations that have no answer, and begins an outage if there are any.
 */
void ngx_coord_outage_add(ngx_coord_batch_t *batch);

/* a batch has its results, or never will; most often all was answered */

static ngx_inline void
ngx_coord_outage_count(ngx_coord_batch_t *batch)
{
    ngx_uint_t  i;

    if (batch->store->outage.silent) {
        ngx_coord_outage_add(batch);
        return;
    }

    for (i = 0; i < batch->nops; i++) {
        if (batch->ops[i].failure != NGX_COORD_FAIL_NONE) {
            ngx_coord_outage_add(batch);
            return;
        }
    }
}

/* worker end: tells what was not told yet, stops the timer of the store */
void ngx_coord_outage_stop(ngx_coord_store_t *store);


#endif /* _NGX_COORD_OUTAGE_H_INCLUDED_ */
