
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The deadlines of calls: who waits is told, the replies are waited for.
 */


#include "ngx_coord_redis_conn.h"


#define NGX_COORD_STALL              4        /* times the timeout */
#define NGX_COORD_BULK_MAX           20       /* the same: life of a call */
#define NGX_COORD_STRAY              5        /* milliseconds between looks */


static ngx_msec_t ngx_coord_redis_due(ngx_coord_redis_node_t *node,
    ngx_coord_redis_call_t *call);
static void ngx_coord_redis_expire(ngx_coord_redis_node_t *node,
    ngx_coord_redis_call_t *call);
static void ngx_coord_redis_expire_strays(ngx_coord_redis_node_t *node);
static void ngx_coord_redis_rearm(ngx_coord_redis_node_t *node);


void
ngx_coord_redis_deadline(ngx_event_t *ev)
{
    ngx_coord_redis_node_t  *node = ngx_coord_timer_data(ev);

    ngx_msec_t               age;
    ngx_queue_t             *q;
    ngx_coord_redis_call_t  *call;

    while (node->first_live != NULL) {
        call = node->first_live;

        if (call->state == NGX_COORD_CALL_LATE) {

            /* a stray */

            ngx_coord_redis_skip_live(node, call);
            continue;
        }

        if ((ngx_msec_int_t) (ngx_coord_redis_due(node, call)
                              - ngx_current_msec)
            > 0)
        {
            break;
        }

        ngx_coord_redis_expire(node, call);
    }

    if (node->strays) {
        ngx_coord_redis_expire_strays(node);
    }

    if (ngx_queue_empty(&node->calls)) {
        return;
    }

    q = ngx_queue_head(&node->calls);
    call = ngx_queue_data(q, ngx_coord_redis_call_t, queue);

    age = ngx_current_msec - call->deadline + node->redis->conf->timeout;

    if (call->state == NGX_COORD_CALL_LATE
        && age >= NGX_COORD_STALL * node->redis->conf->timeout)
    {
        ngx_coord_redis_conn_log(node->conn, NGX_COORD_FAIL_TIMEOUT, 0,
                                 "no reply, connection closed",
                                 NULL);
        ngx_coord_redis_conn_close(node->conn, NGX_COORD_FAIL_TIMEOUT);
        return;
    }

    ngx_coord_redis_rearm(node);
}


/*
 * When the time of a call is over.  In the bulk lane large replies wait for
 * each other: while bytes move nothing is late, until it is very late.
 */

static ngx_msec_t
ngx_coord_redis_due(ngx_coord_redis_node_t *node,
    ngx_coord_redis_call_t *call)
{
    ngx_msec_t  due, last, timeout;

    if (node->lane == NGX_COORD_LANE_DECISIONS) {
        return call->deadline;
    }

    timeout = node->redis->conf->timeout;

    due = node->conn->moved + timeout;
    last = call->deadline + (NGX_COORD_BULK_MAX - 1) * timeout;

    if ((ngx_msec_int_t) (due - call->deadline) < 0) {
        return call->deadline;
    }

    return (ngx_msec_int_t) (due - last) < 0 ? due : last;
}


static void
ngx_coord_redis_expire(ngx_coord_redis_node_t *node,
    ngx_coord_redis_call_t *call)
{
    ngx_uint_t                waiting;
    ngx_coord_store_stats_t  *stats;

    ngx_coord_redis_skip_live(node, call);

    waiting = (call->state == NGX_COORD_CALL_WAITING);

    call->state = NGX_COORD_CALL_LATE;
    call->failure = NGX_COORD_FAIL_TIMEOUT;

    if (call != &node->clock.call) {
        stats = node->redis->stats;

        (void) ngx_atomic_fetch_add(&stats->failures[NGX_COORD_FAIL_TIMEOUT],
                                    1 + call->more);

        ngx_coord_redis_conn_log(node->conn, NGX_COORD_FAIL_TIMEOUT, 0,
                                 "no reply in time", NULL);
        ngx_coord_redis_node_failed(node);
    }

    if (call->expired != NULL) {
        call->expired(call);
    }

    if (waiting) {
        ngx_coord_redis_end(node, call, NGX_ERROR, NULL);
    }
}


/* those who come from other nodes stand behind calls with more time */

static void
ngx_coord_redis_expire_strays(ngx_coord_redis_node_t *node)
{
    ngx_queue_t             *q, *next;
    ngx_coord_redis_call_t  *call;

    for (q = ngx_queue_head(&node->calls);
         q != ngx_queue_sentinel(&node->calls);
         q = next)
    {
        next = ngx_queue_next(q);
        call = ngx_queue_data(q, ngx_coord_redis_call_t, queue);

        if (call->stray
            && call->state != NGX_COORD_CALL_LATE
            && (ngx_msec_int_t) (ngx_coord_redis_due(node, call)
                                 - ngx_current_msec)
               <= 0)
        {
            ngx_coord_redis_expire(node, call);
        }
    }
}


/* for the next deadline, or for the tombstone that stalls */

static void
ngx_coord_redis_rearm(ngx_coord_redis_node_t *node)
{
    ngx_msec_t               when, due;
    ngx_queue_t             *q;
    ngx_msec_int_t           delay;
    ngx_coord_redis_call_t  *call;

    q = ngx_queue_head(&node->calls);
    call = ngx_queue_data(q, ngx_coord_redis_call_t, queue);

    if (call->state == NGX_COORD_CALL_LATE) {
        when = call->deadline
               + (NGX_COORD_STALL - 1) * node->redis->conf->timeout;

        if (node->first_live != NULL) {
            due = ngx_coord_redis_due(node, node->first_live);

            if ((ngx_msec_int_t) (due - when) < 0) {
                when = due;
            }
        }

    } else {
        when = ngx_coord_redis_due(node, call);
    }

    if (node->strays) {
        when = ngx_min(when, ngx_current_msec + NGX_COORD_STRAY);
    }

    delay = (ngx_msec_int_t) (when - ngx_current_msec);

    ngx_coord_timer_stop(&node->deadline);
    ngx_coord_timer_start(&node->deadline, ngx_max(delay, 1));
}
