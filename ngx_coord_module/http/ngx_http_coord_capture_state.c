
/*
 * Copyright (C) ngx_coord_module contributors
 */


#include "ngx_http_coord_capture_state.h"


#define edge(state)  ngx_coord_edge(NGX_HTTP_COORD_CAPTURE_##state)

const ngx_coord_edges_t
    ngx_http_coord_capture_edges[NGX_HTTP_COORD_CAPTURE_STATES] =
{
    /* NONE */      edge(COPYING) | edge(WATCHING),
    /* COPYING */   edge(PASSING) | edge(WHOLE) | edge(CUT),
    /* PASSING */   edge(WHOLE) | edge(CUT),
    /* WATCHING */  edge(WHOLE) | edge(CUT),
    /* WHOLE */     0,
    /* CUT */       0
};

#undef edge
