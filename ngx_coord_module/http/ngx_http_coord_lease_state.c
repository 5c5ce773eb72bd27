
/*
 * Copyright (C) ngx_coord_module contributors
 */


#include "ngx_http_coord_lease_state.h"


#define edge(state)  ngx_coord_edge(NGX_HTTP_COORD_LEASES_##state)

const ngx_coord_edges_t
    ngx_http_coord_leases_edges[NGX_HTTP_COORD_LEASES_STATES] =
{
    /* ASKED */          edge(CHOOSE) | edge(SETTLED) | edge(FAILED),
    /* CHOOSE */         edge(LINE) | edge(SETTLED),
    /* LINE */           edge(TURN) | edge(SETTLED) | edge(FAILED),
    /* TURN */           edge(TURN_ASKED) | edge(TURN_ANSWERED) | edge(FAILED),
    /* TURN_ASKED */     edge(TURN_ANSWERED) | edge(SETTLED),
    /* TURN_ANSWERED */  edge(TURN) | edge(WAITING) | edge(REST)
                         | edge(SETTLED) | edge(FAILED),
    /* WAITING */        edge(TURN) | edge(SETTLED),
    /* REST */           edge(REST_ASKED) | edge(REST_ANSWERED) | edge(CHOOSE)
                         | edge(FAILED),
    /* REST_ASKED */     edge(REST_ANSWERED) | edge(SETTLED),
    /* REST_ANSWERED */  edge(REST) | edge(FAILED),
    /* SETTLED */        edge(SETTLED),
    /* FAILED */         edge(SETTLED)
};

#undef edge
