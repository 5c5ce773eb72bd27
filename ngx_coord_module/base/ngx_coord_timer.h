
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * A timer of ours.  nginx reads the data of an event with a timer as a
 * connection, whose descriptor its debug log tells: it must never be NULL or
 * anything shorter than the head of one.
 */


#ifndef _NGX_COORD_TIMER_H_INCLUDED_
#define _NGX_COORD_TIMER_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>


typedef struct {
    void                      *data;          /* the owner's */

    /* the descriptor is behind three pointers, as in ngx_connection_t */

    void                      *unused[2];
    ngx_socket_t               fd;            /* none */

    ngx_event_t                event;
} ngx_coord_timer_t;


/*
 * ngx_coord_timer_init() makes a timer that calls handler(); there,
 * ngx_coord_timer_data() is what was given here as data.  The log must live
 * as long as the timer.  The event may be posted as well, and is cancelable
 * if its owner says so.
 */

static ngx_inline void
ngx_coord_timer_init(ngx_coord_timer_t *timer, ngx_event_handler_pt handler,
    void *data, ngx_log_t *log)
{
    ngx_memzero(timer, sizeof(ngx_coord_timer_t));

    timer->data = data;
    timer->fd = (ngx_socket_t) -1;

    timer->event.handler = handler;
    timer->event.data = timer;
    timer->event.log = log;
}


#define ngx_coord_timer_data(ev)  ((ngx_coord_timer_t *) (ev)->data)->data


/*
 * ngx_coord_timer_start() sets or moves a timer, in milliseconds from now; one
 * of 32 bits fires after 24 days at the latest.
 */

static ngx_inline void
ngx_coord_timer_start(ngx_coord_timer_t *timer, int64_t delay)
{
    if (sizeof(ngx_msec_t) == sizeof(int32_t)) {
        delay = ngx_min(delay, NGX_MAX_INT32_VALUE);
    }

    /* ngx_add_timer() leaves one that is to fire about then where it is */

    if (timer->event.timer_set) {
        ngx_del_timer(&timer->event);
    }

    ngx_add_timer(&timer->event, delay);
}


/* ngx_coord_timer_stop() ends a timer, which may not be set or initialized */

static ngx_inline void
ngx_coord_timer_stop(ngx_coord_timer_t *timer)
{
    if (timer->event.timer_set) {
        ngx_del_timer(&timer->event);
    }
}


#endif /* _NGX_COORD_TIMER_H_INCLUDED_ */
