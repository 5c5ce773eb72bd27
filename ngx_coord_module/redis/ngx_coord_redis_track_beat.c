
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The heartbeat of a tracker.  A connection that is dead looks like one without
 * news, so once a second it is asked for a sign of life: what the server has
 * told before it answers is heard by then.  The connection of the calls, for
 * which the server tracks, is asked as well where nothing else does that, now
 * and then.
 */


#include "ngx_coord_redis_track.h"


#define NGX_COORD_TRACK_BEAT     1000     /* milliseconds between two PINGs */

/*
 * The same for the connection of the calls: their time is short, and a server
 * that takes a breath longer than that is no reason to distrust all.
 */
#define NGX_COORD_TRACK_CALLS    10000

#define NGX_COORD_TRACK_PING     "*1" CRLF "$4" CRLF "PING" CRLF


static void ngx_coord_redis_track_ask_calls(ngx_coord_redis_node_t *node);


void
ngx_coord_redis_track_heard(ngx_coord_redis_track_t *track)
{
    track->waiting = 0;
    track->heard = track->asked;

    ngx_coord_timer_stop(&track->ping);
    ngx_coord_timer_start(&track->ping, NGX_COORD_TRACK_BEAT);
}


/* the server that was heard least lately counts, of those that are read */

void
ngx_coord_redis_track_tell(ngx_coord_redis_tracking_t *tracking)
{
    ngx_msec_t                heard;
    ngx_queue_t              *q;
    ngx_coord_redis_track_t  *track;

    heard = ngx_current_msec;

    for (q = ngx_queue_head(&tracking->tracks);
         q != ngx_queue_sentinel(&tracking->tracks);
         q = ngx_queue_next(q))
    {
        track = ngx_queue_data(q, ngx_coord_redis_track_t, queue);

        if (track->node->trust != NGX_COORD_TRUST_NONE
            && (ngx_msec_int_t) (track->heard - heard) < 0)
        {
            heard = track->heard;
        }
    }

    tracking->heard(tracking->data, heard);
}


void
ngx_coord_redis_track_ping(ngx_event_t *ev)
{
    ngx_coord_redis_track_t  *track = ngx_coord_timer_data(ev);

    u_char            *p;
    ngx_msec_t         quiet;
    ngx_coord_fail_e   failure;

    quiet = ngx_current_msec - track->last;

    if (track->waiting && quiet >= NGX_COORD_TRACK_OVERDUE) {
        ngx_coord_redis_conn_log(track->conn, NGX_COORD_FAIL_TIMEOUT, 0,
                                 "no reply, connection closed", NULL);
        ngx_coord_redis_conn_close(track->conn, NGX_COORD_FAIL_TIMEOUT);
        return;
    }

    if (track->waiting) {
        ngx_add_timer(ev, NGX_COORD_TRACK_OVERDUE - quiet);
        return;
    }

    p = ngx_coord_redis_conn_room(track->conn,
                                  sizeof(NGX_COORD_TRACK_PING) - 1, &failure);
    if (p != NULL) {
        p = ngx_cpymem(p, NGX_COORD_TRACK_PING,
                       sizeof(NGX_COORD_TRACK_PING) - 1);
        ngx_coord_redis_conn_queue(track->conn, p);
    }

    track->last = ngx_current_msec;
    track->asked = ngx_current_msec;
    track->waiting = 1;

    ngx_coord_redis_track_ask_calls(track->node);

    ngx_add_timer(ev, NGX_COORD_TRACK_OVERDUE);
}


/*
 * A server that has lost that connection tracks nothing any more, and where all
 * is found in memory nobody would find out.
 */

static void
ngx_coord_redis_track_ask_calls(ngx_coord_redis_node_t *node)
{
    if (node->trust == NGX_COORD_TRUST_TRACKED
        && node->breaker == NGX_COORD_BREAKER_CLOSED
        && ngx_current_msec - node->clock.asked >= NGX_COORD_TRACK_CALLS)
    {
        ngx_coord_redis_clock_ask(node);
    }
}
