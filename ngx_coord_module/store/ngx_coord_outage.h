
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
 * A batch of a client's request has its results, or never will: counts it by
 * the on_failure of the operations that have no answer, and begins an outage
 * if there are any.
 */
void ngx_coord_outage_count(ngx_coord_batch_t *batch);

/* worker end: tells what was not told yet, stops the timer of the store */
void ngx_coord_outage_stop(ngx_coord_store_t *store);


#endif /* _NGX_COORD_OUTAGE_H_INCLUDED_ */
