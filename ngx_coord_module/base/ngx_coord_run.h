
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The life of a run: of a request that claims a key, runs once, and leaves its
 * result to who asks later.
 *
 *   IDLE --> ASKED <--> WAITING          for its twin
 *     |       |  ^          |
 *     |       |  +-> FETCHING            a result that is large
 *     |       |         |   |
 *     +-------+---------+---+-> BARRED   replayed, refused, not protected
 *             |
 *             v
 *            HELD -----------+           the request runs
 *             |              |
 *             v              v
 *          KEEPING ----> FREED, UNKNOWN  its response is on the way, or
 *             |                          another one in its place
 *             v
 *          STORED
 */


#ifndef _NGX_COORD_RUN_H_INCLUDED_
#define _NGX_COORD_RUN_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>


typedef enum {
    NGX_COORD_RUN_IDLE = 0,
    NGX_COORD_RUN_ASKED,           /* for the claim */
    NGX_COORD_RUN_WAITING,
    NGX_COORD_RUN_FETCHING,        /* a result that is large */
    NGX_COORD_RUN_HELD,
    NGX_COORD_RUN_KEEPING,
    NGX_COORD_RUN_BARRED,          /* the others are ends */
    NGX_COORD_RUN_FREED,
    NGX_COORD_RUN_UNKNOWN,
    NGX_COORD_RUN_STORED,
    NGX_COORD_RUN_STATES
} ngx_coord_run_e;


/* 1 if a run may go from one state to another */
ngx_uint_t ngx_coord_run_edge(ngx_coord_run_e from, ngx_coord_run_e to);


#endif /* _NGX_COORD_RUN_H_INCLUDED_ */
