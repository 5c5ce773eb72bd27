
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * How far a request has come with its leases: one state, and which may follow
 * which.
 */


#ifndef _NGX_HTTP_COORD_LEASE_STATE_H_INCLUDED_
#define _NGX_HTTP_COORD_LEASE_STATE_H_INCLUDED_


#include "ngx_coord_state.h"


/*
 *   ASKED -> CHOOSE -> SETTLED
 *              |  ^
 *              v  +---------------------------------------------+
 *            LINE -> TURN -> TURN_ASKED -> TURN_ANSWERED ---> REST <----+
 *                     ^                      |                  |       |
 *                     +------ WAITING <------+              REST_ASKED  |
 *                                                               |       |
 *                                                         REST_ANSWERED +
 *
 * and from each of them FAILED, for the lack of memory.
 */

typedef enum {
    NGX_HTTP_COORD_LEASES_ASKED = 0,      /* by the walk, and answered */
    NGX_HTTP_COORD_LEASES_CHOOSE,         /* all have answered */
    NGX_HTTP_COORD_LEASES_LINE,           /* gives back, stands in line */
    NGX_HTTP_COORD_LEASES_TURN,           /* asks whether its turn has come */
    NGX_HTTP_COORD_LEASES_TURN_ASKED,     /* in flight */
    NGX_HTTP_COORD_LEASES_TURN_ANSWERED,
    NGX_HTTP_COORD_LEASES_WAITING,        /* in line, for news */
    NGX_HTTP_COORD_LEASES_REST,           /* has it, asks for the others, */
    NGX_HTTP_COORD_LEASES_REST_ASKED,     /* those of a store in flight */
    NGX_HTTP_COORD_LEASES_REST_ANSWERED,
    NGX_HTTP_COORD_LEASES_SETTLED,
    NGX_HTTP_COORD_LEASES_FAILED,         /* no memory */
    NGX_HTTP_COORD_LEASES_STATES
} ngx_http_coord_leases_e;


/* those that may follow, from each state */
extern const ngx_coord_edges_t
    ngx_http_coord_leases_edges[NGX_HTTP_COORD_LEASES_STATES];


#endif /* _NGX_HTTP_COORD_LEASE_STATE_H_INCLUDED_ */
