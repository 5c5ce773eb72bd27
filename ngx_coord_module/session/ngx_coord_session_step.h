
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * How far a request has come with its session: one state, and which may follow
 * which.
 */


#ifndef _NGX_COORD_SESSION_STEP_H_INCLUDED_
#define _NGX_COORD_SESSION_STEP_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>


typedef enum {
    NGX_COORD_SESSION_NAMED = 0,   /* its key is known, and nothing else */
    NGX_COORD_SESSION_ABSENT,      /* the request has no session */
    NGX_COORD_SESSION_READING,     /* the store is asked for its record */
    NGX_COORD_SESSION_UNSURE,      /* the record names a user not asked yet */
    NGX_COORD_SESSION_KNOWN,       /* the record stands, or there is none */
    NGX_COORD_SESSION_SEATING,     /* its user is asked for a place */
    NGX_COORD_SESSION_SEATED,      /* and has one */
    NGX_COORD_SESSION_FULL,        /* and has none: others exist */
    NGX_COORD_SESSION_WRITING,     /* the store is told what is to be bound */
    NGX_COORD_SESSION_WRITTEN,     /* what stands now is known */
    NGX_COORD_SESSION_ENDED,       /* revoked, or past its absolute life */
    NGX_COORD_SESSION_FAILED,      /* the store has no answer */
    NGX_COORD_SESSION_RECALLED,    /* and this node's memory has one */
    NGX_COORD_SESSION_PASSED,      /* decided: the request goes on */
    NGX_COORD_SESSION_REFUSED,     /* decided: it does not */
    NGX_COORD_SESSION_MOVING,      /* passed, and its peer was of no use */
    NGX_COORD_SESSION_LEARNED,     /* passed, and the response told a value */
    NGX_COORD_SESSION_STEPS
} ngx_coord_session_step_e;


/* bits of those that may follow */
extern const uint32_t  ngx_coord_session_steps[NGX_COORD_SESSION_STEPS];


/*
 * Goes to a step.  NGX_ERROR: it does not follow the one where *step stands,
 * which stays then.
 */
ngx_int_t ngx_coord_session_step(ngx_coord_session_step_e *step,
    ngx_coord_session_step_e to);


#endif /* _NGX_COORD_SESSION_STEP_H_INCLUDED_ */
