
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * A tracker, private to its two files: the connection over which a server tells
 * of keys that are written.
 *
 *   ngx_coord_redis_track.c        what it asks for, what it is told
 *   ngx_coord_redis_track_beat.c   whether it still hears that
 */


#ifndef _NGX_COORD_REDIS_TRACK_H_INCLUDED_
#define _NGX_COORD_REDIS_TRACK_H_INCLUDED_


#include "ngx_coord_redis_conn.h"


#define NGX_COORD_TRACK_OVERDUE  2000     /* milliseconds: an answer */


typedef enum {
    NGX_COORD_TRACK_OFF = 0,
    NGX_COORD_TRACK_LISTENING,
    NGX_COORD_TRACK_ASKED,
    NGX_COORD_TRACK_TRACKING,
    NGX_COORD_TRACK_REFUSED
} ngx_coord_track_state_e;


/* what the next reply is to, but for messages */
typedef enum {
    NGX_COORD_TRACK_ID = 0,
    NGX_COORD_TRACK_KEYS,
    NGX_COORD_TRACK_CHANNEL,
    NGX_COORD_TRACK_DONE
} ngx_coord_track_step_e;


struct ngx_coord_redis_track_s {
    ngx_queue_t                queue;         /* of tracking */
    ngx_coord_redis_node_t    *node;
    ngx_coord_redis_conn_t    *conn;
    ngx_coord_redis_tracking_t  *tracking;

    ngx_coord_track_state_e    state;
    ngx_coord_track_step_e     step;
    int64_t                    id;            /* of conn; 0: not told */
    ngx_coord_redis_call_t     call;          /* CLIENT TRACKING */

    ngx_coord_timer_t          ping;
    ngx_msec_t                 last;          /* something was received */
    ngx_msec_t                 asked;         /* of what is waited for */
    ngx_msec_t                 heard;         /* all that was told until then */
    unsigned                   waiting:1;     /* for a reply */
};


/*
 * What the tracker has asked for last, at track->asked, is answered: there is
 * something to wait for a second later.
 */
void ngx_coord_redis_track_heard(ngx_coord_redis_track_t *track);

/* tells how long all servers that keys are read from have been heard */
void ngx_coord_redis_track_tell(ngx_coord_redis_tracking_t *tracking);

/* the handler of track->ping */
void ngx_coord_redis_track_ping(ngx_event_t *ev);


#endif /* _NGX_COORD_REDIS_TRACK_H_INCLUDED_ */
