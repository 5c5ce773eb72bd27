
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Calls: alone or in groups, and their ends and deadlines.
 */


#include "ngx_coord_redis_conn.h"


#define NGX_COORD_STALL              4        /* times the timeout */
#define NGX_COORD_BULK_MAX           20       /* the same: life of a call */
#define NGX_COORD_STRAY              5        /* milliseconds between looks */

#define NGX_COORD_MULTI              "*1" CRLF "$5" CRLF "MULTI" CRLF
#define NGX_COORD_EXEC               "*1" CRLF "$4" CRLF "EXEC" CRLF
#define NGX_COORD_ECHO               "*2" CRLF "$4" CRLF "ECHO" CRLF          \
                                     "$16" CRLF

#define NGX_COORD_ASKING             "*1" CRLF "$6" CRLF "ASKING" CRLF

/* the nonce, with the end of a transaction, and with its begin */

#define NGX_COORD_CALL_NONCE                                                  \
    (sizeof(NGX_COORD_ECHO CRLF) - 1 + NGX_COORD_REDIS_NONCE_LEN)
#define NGX_COORD_CALL_END                                                    \
    (NGX_COORD_CALL_NONCE + sizeof(NGX_COORD_EXEC) - 1)
#define NGX_COORD_CALL_OVERHEAD                                               \
    (sizeof(NGX_COORD_ASKING NGX_COORD_MULTI) - 1 + NGX_COORD_CALL_END)

/* 1 if the commands of a call that begins a group are executed together */
#define ngx_coord_redis_multi(call)                                           \
    ((call)->form == NGX_COORD_CALL_ALONE                                     \
     || (call)->form == NGX_COORD_CALL_SHARED)

/* commands of a group that calls share */
#define NGX_COORD_CALL_SHARED_MAX    128


static ngx_coord_redis_call_t *ngx_coord_redis_join(
    ngx_coord_redis_node_t *node, ngx_coord_redis_call_t *call);
static ngx_uint_t ngx_coord_redis_joins(ngx_coord_redis_call_t *call,
    ngx_coord_redis_call_t *first);
static ngx_msec_t ngx_coord_redis_due(ngx_coord_redis_node_t *node,
    ngx_coord_redis_call_t *call);
static void ngx_coord_redis_expire(ngx_coord_redis_node_t *node,
    ngx_coord_redis_call_t *call);
static void ngx_coord_redis_expire_strays(ngx_coord_redis_node_t *node);
static void ngx_coord_redis_rearm(ngx_coord_redis_node_t *node);
static size_t ngx_coord_redis_command_size(ngx_coord_redis_call_t *call);
static u_char *ngx_coord_redis_command_encode(ngx_coord_redis_call_t *call,
    u_char *p);


ngx_coord_fail_e
ngx_coord_redis_encode(ngx_coord_redis_node_t *node,
    ngx_coord_redis_call_t *call)
{
    u_char                  *p;
    ngx_coord_fail_e         failure;
    ngx_coord_redis_call_t  *first;

    call->trust = node->trust;

    p = ngx_coord_redis_conn_room(node->conn,
                                  call->size(call) + NGX_COORD_CALL_OVERHEAD,
                                  &failure);
    if (p == NULL) {
        return failure;
    }

    first = ngx_coord_redis_join(node, call);

    if (call->ask) {

        /* it holds for the next command, or transaction */

        p = ngx_cpymem(p, NGX_COORD_ASKING, sizeof(NGX_COORD_ASKING) - 1);
    }

    if (first != call) {
        p -= ngx_coord_redis_multi(first) ? NGX_COORD_CALL_END
                                          : NGX_COORD_CALL_NONCE;

    } else if (ngx_coord_redis_multi(call)) {
        p = ngx_cpymem(p, NGX_COORD_MULTI, sizeof(NGX_COORD_MULTI) - 1);
    }

    p = call->encode(call, p);

    call->state = NGX_COORD_CALL_SENT;
    call->sent = 1;

    p = ngx_cpymem(p, NGX_COORD_ECHO, sizeof(NGX_COORD_ECHO) - 1);
    p = ngx_coord_redis_nonce(p, first->nonce);
    p = ngx_cpymem(p, CRLF, sizeof(CRLF) - 1);

    if (ngx_coord_redis_multi(first)) {
        p = ngx_cpymem(p, NGX_COORD_EXEC, sizeof(NGX_COORD_EXEC) - 1);
    }

    ngx_coord_redis_conn_queue(node->conn, p);

    return NGX_COORD_FAIL_NONE;
}


/*
 * Calls of one turn of the event loop share MULTI, ECHO and EXEC, which cost
 * the server as much as what is between; those of single commands share ECHO.
 * Returns the first call of the group that call is in: itself, if it begins
 * one.  All keys of a transaction have to be in one slot: in a cluster the
 * nodes are apart.
 */

static ngx_coord_redis_call_t *
ngx_coord_redis_join(ngx_coord_redis_node_t *node,
    ngx_coord_redis_call_t *call)
{
    ngx_coord_redis_call_t  *first;

    first = node->open;

    /* it is there until it was written */

    if (first != NULL
        && node->writes == node->conn->writes
        && !call->ask
        && ngx_coord_redis_joins(call, first)
        && first->total + call->ncommands <= NGX_COORD_CALL_SHARED_MAX)
    {
        call->total = 0;
        first->total += call->ncommands;

        return first;
    }

    call->total = call->ncommands;
    call->nonce = node->nonce++;

    node->open = NULL;
    node->writes = node->conn->writes;

    if (!call->ask
        && (call->form == NGX_COORD_CALL_BARE
            || (call->form == NGX_COORD_CALL_SHARED && !node->apart)))
    {
        node->open = call;
    }

    return call;
}


/* in a transaction that is there a single command costs less than a nonce */

static ngx_uint_t
ngx_coord_redis_joins(ngx_coord_redis_call_t *call,
    ngx_coord_redis_call_t *first)
{
    return call->form == first->form
           || (call->form == NGX_COORD_CALL_BARE
               && first->form == NGX_COORD_CALL_SHARED);
}


ngx_coord_redis_call_t *
ngx_coord_redis_joined(ngx_coord_redis_node_t *node,
    ngx_coord_redis_call_t *call)
{
    ngx_queue_t             *q;
    ngx_coord_redis_call_t  *next;

    q = ngx_queue_next(&call->queue);

    if (q == ngx_queue_sentinel(&node->calls)) {
        return NULL;
    }

    next = ngx_queue_data(q, ngx_coord_redis_call_t, queue);

    if (next->state == NGX_COORD_CALL_WAITING || next->total != 0) {
        return NULL;
    }

    return next;
}


void
ngx_coord_redis_enqueue(ngx_coord_redis_node_t *node,
    ngx_coord_redis_call_t *call)
{
    ngx_event_t  *ev;

    if (node->pending == 0) {
        node->conn->moved = ngx_current_msec;
    }

    ngx_queue_insert_tail(&node->calls, &call->queue);
    node->pending++;

    if (node->first_live == NULL) {
        node->first_live = call;
    }

    ev = &node->deadline.event;
    ev->cancelable = 0;

    /* set for a stalled tombstone it may be later than this deadline */

    if (ev->timer_set) {

        if ((ngx_msec_int_t) (ev->timer.key - call->deadline) <= 0) {
            return;
        }

        ngx_del_timer(ev);
    }

    ngx_add_timer(ev, call->deadline - ngx_current_msec);
}


void
ngx_coord_redis_answered(ngx_coord_redis_node_t *node,
    ngx_coord_redis_call_t *call, ngx_coord_fail_e failure)
{
    ngx_uint_t                n, usec;
    ngx_coord_store_stats_t  *stats;

    if (failure == NGX_COORD_FAIL_NONE && call->state != NGX_COORD_CALL_LATE) {
        node->failures = 0;
    }

    if (call == &node->clock.call) {
        return;
    }

    stats = node->redis->stats;

    if (failure != NGX_COORD_FAIL_NONE) {

        /* a late one was counted as a timeout */

        if (call->state != NGX_COORD_CALL_LATE) {
            (void) ngx_atomic_fetch_add(&stats->failures[failure], 1);
        }

        return;
    }

    (void) ngx_atomic_fetch_add(&stats->calls, 1);
    (void) ngx_atomic_fetch_add(&stats->commands, call->ncommands);

    if (call->state == NGX_COORD_CALL_LATE) {
        (void) ngx_atomic_fetch_add(&stats->late, 1);
    }

    /* latency is that of decisions */

    stats = node->stats;
    usec = (ngx_coord_monotonic() - call->start) / NGX_COORD_NSEC_PER_USEC;

    for (n = 0; n < NGX_COORD_LATENCY_BUCKETS; n++) {

        if (usec <= ngx_coord_latency_bounds[n]) {
            break;
        }
    }

    (void) ngx_atomic_fetch_add(&stats->latency[n], 1);
    (void) ngx_atomic_fetch_add(&stats->latency_usec, usec);
}


void
ngx_coord_redis_end(ngx_coord_redis_node_t *node,
    ngx_coord_redis_call_t *call, ngx_int_t rc, ngx_coord_resp_value_t *reply)
{
    ngx_coord_store_stats_t  *stats;

    ngx_coord_redis_take(node, call);

    if (call != &node->clock.call) {
        stats = node->redis->stats;

        (void) ngx_atomic_fetch_add(&stats->pending, -1);

        /* a late one was counted as a timeout */

        if (rc != NGX_OK && call->state != NGX_COORD_CALL_LATE) {
            (void) ngx_atomic_fetch_add(&stats->failures[call->failure], 1);
        }
    }

    call->state = NGX_COORD_CALL_IDLE;

    call->handler(call, rc, reply);
}


void
ngx_coord_redis_take(ngx_coord_redis_node_t *node,
    ngx_coord_redis_call_t *call)
{
    ngx_coord_redis_skip_live(node, call);

    ngx_queue_remove(&call->queue);
    node->pending--;

    if (call->stray) {
        call->stray = 0;
        node->strays--;
    }

    if (node->pending == 0) {
        node->deadline.event.cancelable = 1;
    }
}


void
ngx_coord_redis_end_all(ngx_coord_redis_node_t *node, ngx_queue_t *calls,
    ngx_coord_fail_e failure)
{
    ngx_queue_t             *q;
    ngx_coord_redis_call_t  *call;

    if (ngx_queue_empty(&node->calls)) {
        node->first_live = NULL;
    }

    while (!ngx_queue_empty(calls)) {
        q = ngx_queue_head(calls);
        call = ngx_queue_data(q, ngx_coord_redis_call_t, queue);

        call->failure = failure;
        ngx_coord_redis_end(node, call, NGX_ERROR, NULL);
    }
}


void
ngx_coord_redis_skip_live(ngx_coord_redis_node_t *node,
    ngx_coord_redis_call_t *call)
{
    ngx_queue_t  *q;

    if (node->first_live != call) {
        return;
    }

    q = ngx_queue_next(&call->queue);

    if (q == ngx_queue_sentinel(&node->calls)) {
        node->first_live = NULL;
        return;
    }

    node->first_live = ngx_queue_data(q, ngx_coord_redis_call_t, queue);
}


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
                                    1);

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


void
ngx_coord_redis_command(ngx_coord_redis_call_t *call, const ngx_str_t *resp)
{
    ngx_memzero(call, sizeof(ngx_coord_redis_call_t));

    call->size = ngx_coord_redis_command_size;
    call->encode = ngx_coord_redis_command_encode;
    call->ncommands = 1;
    call->form = NGX_COORD_CALL_PLAIN;
    call->command = resp;
}


static size_t
ngx_coord_redis_command_size(ngx_coord_redis_call_t *call)
{
    return call->command->len;
}


static u_char *
ngx_coord_redis_command_encode(ngx_coord_redis_call_t *call, u_char *p)
{
    return ngx_cpymem(p, call->command->data, call->command->len);
}
