
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * A call on its way out: admitted, alone or in a group, written, queued.
 */


#include "ngx_coord_redis_conn.h"


#define NGX_COORD_CLOCK_INTERVAL     1000     /* milliseconds */

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

/* commands of a group that calls share */
#define NGX_COORD_CALL_SHARED_MAX    128


static ngx_coord_fail_e ngx_coord_redis_admit(ngx_coord_redis_node_t *node);
static ngx_coord_redis_call_t *ngx_coord_redis_join(
    ngx_coord_redis_node_t *node, ngx_coord_redis_call_t *call);
static ngx_uint_t ngx_coord_redis_joins(ngx_coord_redis_call_t *call,
    ngx_coord_redis_call_t *first);
static u_char *ngx_coord_redis_command_encode(ngx_coord_redis_call_t *call,
    u_char *p);


ngx_int_t
ngx_coord_redis_node_send(ngx_coord_redis_node_t *node,
    ngx_coord_redis_call_t *call)
{
    ngx_coord_redis_t  *redis;

    redis = node->redis;

    call->state = NGX_COORD_CALL_WAITING;
    call->sent = 0;
    call->start = ngx_coord_monotonic();
    call->deadline = ngx_current_msec + redis->conf->timeout;

    call->failure = ngx_coord_redis_admit(node);

    call->refused = 0;
    call->ask = 0;
    call->stray = 0;
    call->hops = 0;
    call->tries = 0;

    if (call->failure == NGX_COORD_FAIL_NONE
        && node->conn->state == NGX_COORD_CONN_READY
        && !node->lobby)
    {
        call->failure = ngx_coord_redis_encode(node, call);
    }

    if (call->failure != NGX_COORD_FAIL_NONE) {
        call->state = NGX_COORD_CALL_IDLE;
        (void) ngx_atomic_fetch_add(&redis->stats->failures[call->failure],
                                    1 + call->more);
        return NGX_ERROR;
    }

    ngx_coord_redis_enqueue(node, call);
    (void) ngx_atomic_fetch_add(&redis->stats->pending, 1);

    if (call->state == NGX_COORD_CALL_SENT
        && call->lane == NGX_COORD_LANE_DECISIONS
        && ngx_current_msec - node->clock.asked >= NGX_COORD_CLOCK_INTERVAL)
    {
        ngx_coord_redis_clock_ask(node);
    }

    return NGX_AGAIN;
}


void
ngx_coord_redis_node_pass(ngx_coord_redis_node_t *node,
    ngx_coord_redis_call_t *call)
{
    ngx_coord_fail_e  failure;

    call->state = NGX_COORD_CALL_WAITING;
    call->sent = 0;

    failure = ngx_coord_redis_admit(node);

    if (failure == NGX_COORD_FAIL_NONE
        && node->conn->state == NGX_COORD_CONN_READY
        && !node->lobby)
    {
        failure = ngx_coord_redis_encode(node, call);
    }

    if (failure != NGX_COORD_FAIL_NONE) {
        ngx_coord_redis_node_drop(node, call, failure);
        return;
    }

    call->stray = 1;
    node->strays++;

    ngx_coord_redis_enqueue(node, call);
}


void
ngx_coord_redis_node_drop(ngx_coord_redis_node_t *node,
    ngx_coord_redis_call_t *call, ngx_coord_fail_e failure)
{
    ngx_coord_store_stats_t  *stats;

    stats = node->redis->stats;

    (void) ngx_atomic_fetch_add(&stats->pending, -1);
    (void) ngx_atomic_fetch_add(&stats->failures[failure], 1 + call->more);

    call->state = NGX_COORD_CALL_IDLE;
    call->failure = failure;

    call->handler(call, NGX_ERROR, NULL);
}


static ngx_coord_fail_e
ngx_coord_redis_admit(ngx_coord_redis_node_t *node)
{
    if (node->conn == NULL) {
        return NGX_COORD_FAIL_CONNECT;
    }

    if (node->conn->state != NGX_COORD_CONN_READY) {
        ngx_coord_redis_conn_connect(node->conn);
    }

    if (node->breaker != NGX_COORD_BREAKER_CLOSED) {
        return NGX_COORD_FAIL_BREAKER;
    }

    if (node->conn->state == NGX_COORD_CONN_DISCONNECTED) {
        return NGX_COORD_FAIL_CONNECT;
    }

    if (node->pending >= node->redis->conf->max_pending) {
        ngx_coord_redis_conn_log(node->conn, NGX_COORD_FAIL_OVERFLOW, 0,
                                 "\"max_pending\" calls are in flight", NULL);
        return NGX_COORD_FAIL_OVERFLOW;
    }

    return NGX_COORD_FAIL_NONE;
}


ngx_coord_fail_e
ngx_coord_redis_encode(ngx_coord_redis_node_t *node,
    ngx_coord_redis_call_t *call)
{
    u_char                  *p;
    ngx_coord_fail_e         failure;
    ngx_coord_redis_call_t  *first;

    call->trust = node->trust;
    call->now = ngx_coord_monotonic()
                + node->nodes[NGX_COORD_LANE_DECISIONS].clock.offset;

    if (call->prepare) {
        call->prepare(call);
    }

    p = ngx_coord_redis_conn_room(node->conn,
                                  call->room + NGX_COORD_CALL_OVERHEAD,
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
ngx_coord_redis_command(ngx_coord_redis_call_t *call, const ngx_str_t *resp)
{
    ngx_memzero(call, sizeof(ngx_coord_redis_call_t));

    call->encode = ngx_coord_redis_command_encode;
    call->room = resp->len;
    call->ncommands = 1;
    call->form = NGX_COORD_CALL_PLAIN;
    call->command = resp;
}


static u_char *
ngx_coord_redis_command_encode(ngx_coord_redis_call_t *call, u_char *p)
{
    return ngx_cpymem(p, call->command->data, call->command->len);
}
