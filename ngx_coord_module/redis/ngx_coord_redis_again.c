
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Calls that are asked once more, a moment later: while a slot moves its keys
 * are with two servers, and a transaction that has keys with both, or new ones,
 * is executed by neither of them.
 *
 * They are asked after 2 ms, 4 ms, .., as long as that is within their time,
 * each time anew of whoever has the slot then.  Where that was in vain the slot
 * moves for long: for a while its calls do not wait any more.
 */


#include "ngx_coord_redis_cluster.h"


/* milliseconds until the first time; each later one is twice as long */
#define NGX_COORD_AGAIN_DELAY  2


static void ngx_coord_redis_again_timer(ngx_event_t *ev);
static void ngx_coord_redis_again_arm(ngx_coord_redis_again_t *again);


void
ngx_coord_redis_again_init(ngx_coord_redis_again_t *again,
    ngx_coord_redis_again_pt send, void *data, ngx_log_t *log)
{
    ngx_queue_init(&again->calls);

    again->send = send;
    again->data = data;
    again->slot = NGX_COORD_SLOTS;

    ngx_coord_timer_init(&again->timer, ngx_coord_redis_again_timer, again,
                         log);
}


ngx_int_t
ngx_coord_redis_again(ngx_coord_redis_again_t *again,
    ngx_coord_redis_node_t *node, ngx_coord_redis_call_t *call)
{
    ngx_msec_t               when;
    ngx_coord_redis_conf_t  *conf;

    conf = node->redis->conf;

    /* what is for this very server, or was in vain for others */

    if (call->slot >= NGX_COORD_SLOTS
        || (again->slot == call->slot
            && (ngx_msec_int_t) (again->until - ngx_current_msec) > 0))
    {
        return NGX_DECLINED;
    }

    when = ngx_current_msec + (NGX_COORD_AGAIN_DELAY << call->tries);

    if ((ngx_msec_int_t) (call->deadline - when) <= 0) {
        again->slot = call->slot;
        again->until = ngx_current_msec + conf->breaker_cooldown;

        return NGX_DECLINED;
    }

    if (again->ncalls >= conf->max_pending) {
        return NGX_DECLINED;
    }

    ngx_coord_redis_take(node, call);

    call->state = NGX_COORD_CALL_WAITING;
    call->sent = 0;
    call->ask = 0;
    call->hops = 0;
    call->when = when;
    call->tries++;

    ngx_queue_insert_tail(&again->calls, &call->queue);
    again->ncalls++;

    if (!again->timer.event.timer_set
        || (ngx_msec_int_t) (again->timer.event.timer.key - when) > 0)
    {
        ngx_coord_timer_start(&again->timer, when - ngx_current_msec);
    }

    return NGX_OK;
}


static void
ngx_coord_redis_again_timer(ngx_event_t *ev)
{
    ngx_coord_redis_again_t *again = ngx_coord_timer_data(ev);

    ngx_queue_t             *q, *next, due;
    ngx_coord_redis_call_t  *call;

    ngx_queue_init(&due);

    for (q = ngx_queue_head(&again->calls);
         q != ngx_queue_sentinel(&again->calls);
         q = next)
    {
        next = ngx_queue_next(q);
        call = ngx_queue_data(q, ngx_coord_redis_call_t, queue);

        if ((ngx_msec_int_t) (call->when - ngx_current_msec) <= 0) {
            ngx_queue_remove(q);
            ngx_queue_insert_tail(&due, q);
            again->ncalls--;
        }
    }

    while (!ngx_queue_empty(&due)) {
        q = ngx_queue_head(&due);
        ngx_queue_remove(q);

        again->send(again->data,
                    ngx_queue_data(q, ngx_coord_redis_call_t, queue));
    }

    ngx_coord_redis_again_arm(again);
}


static void
ngx_coord_redis_again_arm(ngx_coord_redis_again_t *again)
{
    ngx_msec_t               when;
    ngx_queue_t             *q;
    ngx_coord_redis_call_t  *call;

    if (ngx_queue_empty(&again->calls)) {
        return;
    }

    q = ngx_queue_head(&again->calls);
    call = ngx_queue_data(q, ngx_coord_redis_call_t, queue);
    when = call->when;

    for ( /* void */ ;
         q != ngx_queue_sentinel(&again->calls);
         q = ngx_queue_next(q))
    {
        call = ngx_queue_data(q, ngx_coord_redis_call_t, queue);

        if ((ngx_msec_int_t) (call->when - when) < 0) {
            when = call->when;
        }
    }

    ngx_coord_timer_start(&again->timer, when - ngx_current_msec);
}


void
ngx_coord_redis_again_end(ngx_coord_redis_again_t *again,
    ngx_coord_redis_node_t *node)
{
    ngx_queue_t             *q;
    ngx_coord_redis_call_t  *call;

    ngx_coord_timer_stop(&again->timer);

    while (!ngx_queue_empty(&again->calls)) {
        q = ngx_queue_head(&again->calls);
        call = ngx_queue_data(q, ngx_coord_redis_call_t, queue);

        ngx_queue_remove(q);
        again->ncalls--;

        ngx_coord_redis_node_drop(node, call, NGX_COORD_FAIL_CONNECT);
    }
}
