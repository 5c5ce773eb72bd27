
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Asks the Redis servers every second how they are (INFO), so that the
 * status page and the health check can answer at once, whatever they do.  The
 * workers of a node share the answers, and one of them asks.
 */


#ifndef _NGX_COORD_PROBE_H_INCLUDED_
#define _NGX_COORD_PROBE_H_INCLUDED_


#include "ngx_coord_store_metrics.h"


/*
 * Worker start, after the stores: begins to ask.  NGX_ERROR: no memory.
 */
ngx_int_t ngx_coord_probe_start(ngx_coord_metrics_t *metrics,
    ngx_cycle_t *cycle);

/* worker end, after the stores */
void ngx_coord_probe_stop(void);

#endif /* _NGX_COORD_PROBE_H_INCLUDED_ */
