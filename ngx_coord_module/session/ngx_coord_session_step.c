
/*
 * Copyright (C) ngx_coord_module contributors
 */


#include "ngx_coord_session_step.h"


#define ngx_coord_step(name)  (1u << NGX_COORD_SESSION_##name)


const uint32_t  ngx_coord_session_steps[NGX_COORD_SESSION_STEPS] = {

    /* NAMED; by a response: it is known that there is none */
    ngx_coord_step(READING) | ngx_coord_step(KNOWN),

    /* ABSENT */
    ngx_coord_step(PASSED) | ngx_coord_step(REFUSED),

    /* READING */
    ngx_coord_step(UNSURE) | ngx_coord_step(KNOWN) | ngx_coord_step(ENDED)
    | ngx_coord_step(FAILED),

    /* UNSURE */
    ngx_coord_step(READING),

    /* KNOWN */
    ngx_coord_step(SEATING) | ngx_coord_step(WRITING) | ngx_coord_step(PASSED)
    | ngx_coord_step(REFUSED),

    /* SEATING */
    ngx_coord_step(SEATED) | ngx_coord_step(FULL) | ngx_coord_step(FAILED),

    /* SEATED */
    ngx_coord_step(WRITING),

    /* FULL: in a dry run it passes, and a response does */
    ngx_coord_step(PASSED) | ngx_coord_step(REFUSED),

    /* WRITING */
    ngx_coord_step(WRITTEN) | ngx_coord_step(ENDED) | ngx_coord_step(FAILED),

    /* WRITTEN; what stands may be wrong */
    ngx_coord_step(WRITING) | ngx_coord_step(PASSED) | ngx_coord_step(REFUSED),

    /* ENDED: in a dry run it passes */
    ngx_coord_step(PASSED) | ngx_coord_step(REFUSED),

    /* FAILED */
    ngx_coord_step(RECALLED) | ngx_coord_step(PASSED)
    | ngx_coord_step(REFUSED),

    /* RECALLED */
    ngx_coord_step(ENDED) | ngx_coord_step(PASSED) | ngx_coord_step(REFUSED),

    /* PASSED */
    ngx_coord_step(MOVING) | ngx_coord_step(LEARNED),

    /* REFUSED */
    0,

    /* MOVING */
    ngx_coord_step(LEARNED),

    /* LEARNED */
    0
};


ngx_int_t
ngx_coord_session_step(ngx_coord_session_step_e *step,
    ngx_coord_session_step_e to)
{
    if ((ngx_coord_session_steps[*step] & (1u << to)) == 0) {
        return NGX_ERROR;
    }

    *step = to;

    return NGX_OK;
}
