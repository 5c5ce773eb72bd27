
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The edges of a run's life, as ngx_coord_run.h draws them.
 */


#include "ngx_coord_run.h"


#define ngx_coord_run_bit(name)  (1 << NGX_COORD_RUN_##name)


static const ngx_uint_t  ngx_coord_run_edges[NGX_COORD_RUN_STATES] = {

    /* IDLE */
    ngx_coord_run_bit(ASKED) | ngx_coord_run_bit(BARRED),

    /* ASKED */
    ngx_coord_run_bit(WAITING) | ngx_coord_run_bit(FETCHING)
    | ngx_coord_run_bit(HELD) | ngx_coord_run_bit(BARRED),

    /* WAITING */
    ngx_coord_run_bit(ASKED) | ngx_coord_run_bit(BARRED),

    /* FETCHING */
    ngx_coord_run_bit(ASKED) | ngx_coord_run_bit(BARRED),

    /* HELD */
    ngx_coord_run_bit(KEEPING) | ngx_coord_run_bit(FREED)
    | ngx_coord_run_bit(UNKNOWN),

    /* KEEPING */
    ngx_coord_run_bit(KEEPING) | ngx_coord_run_bit(STORED)
    | ngx_coord_run_bit(FREED) | ngx_coord_run_bit(UNKNOWN),

    /* BARRED, FREED, UNKNOWN, STORED */
    0, 0, 0, 0
};


ngx_uint_t
ngx_coord_run_edge(ngx_coord_run_e from, ngx_coord_run_e to)
{
    return (ngx_coord_run_edges[from] & (1 << to)) != 0;
}
