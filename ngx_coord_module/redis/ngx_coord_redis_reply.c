
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * What comes back: what the answer to a call says, and the end of the call.
 */


#include "ngx_coord_redis_conn.h"


static ngx_coord_fail_e ngx_coord_redis_node_answered(
    ngx_coord_redis_node_t *node, ngx_coord_redis_call_t *call,
    ngx_coord_resp_value_t *reply);
static ngx_coord_fail_e ngx_coord_redis_node_refused(
    ngx_coord_redis_node_t *node, ngx_coord_redis_call_t *call,
    ngx_coord_resp_value_t *error, ngx_uint_t loose, ngx_int_t rc);
static ngx_uint_t ngx_coord_redis_loose(ngx_coord_redis_call_t *call,
    ngx_coord_resp_value_t *value, ngx_coord_resp_value_t *error,
    ngx_int_t rc);
static ngx_uint_t ngx_coord_redis_node_redirects(
    ngx_coord_redis_node_t *node, ngx_coord_redis_call_t *call,
    ngx_coord_resp_value_t *error);
static ngx_coord_redis_call_t *ngx_coord_redis_joined(
    ngx_coord_redis_node_t *node, ngx_coord_redis_call_t *call);
static void ngx_coord_redis_count(ngx_coord_redis_node_t *node,
    ngx_coord_redis_call_t *call, ngx_coord_fail_e failure, ngx_uint_t key);
static void ngx_coord_redis_node_error(ngx_coord_redis_node_t *node,
    ngx_coord_resp_value_t *error, ngx_coord_fail_e failure,
    ngx_uint_t all);


ngx_coord_fail_e
ngx_coord_redis_node_reply(ngx_coord_redis_conn_t *conn,
    ngx_coord_resp_value_t *value)
{
    ngx_int_t                rc;
    ngx_queue_t             *q;
    ngx_coord_redis_call_t  *call;
    ngx_coord_redis_node_t  *node;
    ngx_coord_resp_value_t  *reply, *error;

    node = conn->data;

    q = ngx_queue_head(&node->calls);
    call = ngx_queue_data(q, ngx_coord_redis_call_t, queue);

    rc = ngx_coord_redis_check(call, value, &reply, &error);

    if (rc == NGX_ERROR) {
        ngx_coord_redis_conn_log(conn, NGX_COORD_FAIL_PROTOCOL, 0,
                                 "a reply that is not of this call", NULL);
        return NGX_COORD_FAIL_PROTOCOL;
    }

    if (rc == NGX_OK) {
        return ngx_coord_redis_node_answered(node, call, reply);
    }

    return ngx_coord_redis_node_refused(node, call, error,
                                        ngx_coord_redis_loose(call, value,
                                                              error, rc),
                                        rc);
}


/*
 * A command can fail by itself in a transaction that is executed: for its key,
 * or for what holds of the server, whose rules may have changed meanwhile.
 */

static ngx_coord_fail_e
ngx_coord_redis_node_answered(ngx_coord_redis_node_t *node,
    ngx_coord_redis_call_t *call, ngx_coord_resp_value_t *reply)
{
    ngx_uint_t               i, key;
    ngx_coord_fail_e         failure, close;
    ngx_coord_redis_call_t  *next;
    ngx_coord_resp_value_t  *first, *error;

    close = NGX_COORD_FAIL_NONE;

    do {
        next = ngx_coord_redis_joined(node, call);
        first = reply;
        error = NULL;
        key = 0;

        for (i = 0; i < call->ncommands; i++) {

            if (reply->type == NGX_COORD_RESP_ERROR) {

                if (ngx_coord_redis_failure(reply) == NGX_COORD_FAIL_ERROR) {
                    key = 1;

                } else if (error == NULL) {
                    error = reply;
                }
            }

            reply += reply->next;
        }

        failure = NGX_COORD_FAIL_NONE;

        if (error != NULL
            && ngx_coord_redis_node_redirects(node, call, error))
        {
            call = next;
            continue;
        }

        if (error != NULL) {
            failure = ngx_coord_redis_failure(error);

            if (!call->foreign || failure != NGX_COORD_FAIL_AUTH) {
                ngx_coord_redis_node_error(node, error, failure, 0);
            }

            if (ngx_coord_redis_error(&error->str)->close) {
                close = failure;
            }
        }

        ngx_coord_redis_count(node, call, failure, key);
        ngx_coord_redis_end(node, call, NGX_OK, first);

        call = next;

    } while (call != NULL);

    return close;
}


/* loose: what was asked may have been done */

static ngx_coord_fail_e
ngx_coord_redis_node_refused(ngx_coord_redis_node_t *node,
    ngx_coord_redis_call_t *call, ngx_coord_resp_value_t *error,
    ngx_uint_t loose, ngx_int_t rc)
{
    ngx_coord_fail_e                failure;
    ngx_coord_redis_call_t         *next;
    const ngx_coord_redis_error_t  *e;

    e = ngx_coord_redis_error(&error->str);
    failure = e->failure;

    if (rc == NGX_ABORT && failure == NGX_COORD_FAIL_ERROR) {
        failure = NGX_COORD_FAIL_UNAVAILABLE;
    }

    if ((!e->slot || node->redis->routing == NULL)
        && (!call->foreign
            || e->failure == NGX_COORD_FAIL_UNAVAILABLE
            || e->close
            || rc == NGX_ABORT))
    {
        ngx_coord_redis_node_error(node, error, failure, rc == NGX_ABORT);
    }

    do {
        next = ngx_coord_redis_joined(node, call);

        if (ngx_coord_redis_node_redirects(node, call, error)) {
            call = next;
            continue;
        }

        /* a transaction that is not executed since the server serves nobody */

        call->refused = (e->failure == NGX_COORD_FAIL_UNAVAILABLE
                         && ngx_coord_redis_multi(call)
                         && !loose);

        call->failure = loose ? NGX_COORD_FAIL_PROTOCOL : failure;

        ngx_coord_redis_end(node, call, NGX_ERROR, NULL);

        call = next;

    } while (call != NULL);

    return e->close ? e->failure : NGX_COORD_FAIL_NONE;
}


/*
 * 1 if a call that was refused, and those that joined it, may have been done:
 * without MULTI each command is executed by itself, and so it is before ECHO.
 */

static ngx_uint_t
ngx_coord_redis_loose(ngx_coord_redis_call_t *call,
    ngx_coord_resp_value_t *value, ngx_coord_resp_value_t *error, ngx_int_t rc)
{
    ngx_uint_t               i;
    ngx_coord_resp_value_t  *v;

    if (!ngx_coord_redis_multi(call)) {
        return rc == NGX_ABORT
               && ngx_coord_redis_failure(error) == NGX_COORD_FAIL_AUTH;
    }

    v = value + 1 + call->ask;

    if (v != error) {
        return 0;
    }

    for (i = 0; i < call->total; i++) {
        v += v->next;

        if (v->type != NGX_COORD_RESP_ERROR) {
            return 1;
        }
    }

    return 0;
}


/* 1 if another node has the call now, which was not executed here */

static ngx_uint_t
ngx_coord_redis_node_redirects(ngx_coord_redis_node_t *node,
    ngx_coord_redis_call_t *call, ngx_coord_resp_value_t *error)
{
    if (node->redis->routing == NULL
        || !ngx_coord_redis_error(&error->str)->slot)
    {
        return 0;
    }

    if (node->redis->routing->redirect(node, call, &error->str) == NGX_OK) {
        return 1;
    }

    ngx_coord_redis_node_error(node, error, ngx_coord_redis_failure(error), 0);

    return 0;
}


/* the next call of the same group; NULL: this is the last */

static ngx_coord_redis_call_t *
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


/*
 * failure: what replies that are in order say of the server, or NONE; key: one
 * of them is an error that is about a key.
 */

static void
ngx_coord_redis_count(ngx_coord_redis_node_t *node,
    ngx_coord_redis_call_t *call, ngx_coord_fail_e failure, ngx_uint_t key)
{
    ngx_uint_t                n, usec, count;
    ngx_coord_store_stats_t  *stats;

    if (failure == NGX_COORD_FAIL_NONE && call->state != NGX_COORD_CALL_LATE) {
        node->failures = 0;
    }

    if (failure == NGX_COORD_FAIL_NONE && ngx_coord_redis_refuses_now(node)) {
        ngx_coord_redis_answered(node, call);
    }

    if (call == &node->clock.call) {
        return;
    }

    count = 1 + call->more;
    stats = node->redis->stats;

    if (failure != NGX_COORD_FAIL_NONE) {

        /* a late one was counted as a timeout */

        if (call->state != NGX_COORD_CALL_LATE) {
            (void) ngx_atomic_fetch_add(&stats->failures[failure], count);
        }

        return;
    }

    if (node->ending) {
        ngx_coord_redis_breaker_ends(node);
    }

    (void) ngx_atomic_fetch_add(&stats->commands, call->ncommands);

    if (call->state == NGX_COORD_CALL_LATE) {
        (void) ngx_atomic_fetch_add(&stats->late, count);
        key = 0;
    }

    if (key) {
        (void) ngx_atomic_fetch_add(&stats->failures[NGX_COORD_FAIL_ERROR],
                                    count);

    } else {
        (void) ngx_atomic_fetch_add(&stats->calls, count);
    }

    /* latency is that of decisions */

    stats = node->stats;
    usec = (ngx_coord_monotonic() - call->start) / NGX_COORD_NSEC_PER_USEC;

    for (n = 0; n < NGX_COORD_LATENCY_BUCKETS; n++) {

        if (usec <= ngx_coord_latency_bounds[n]) {
            break;
        }
    }

    (void) ngx_atomic_fetch_add(&stats->latency[n], count);
    (void) ngx_atomic_fetch_add(&stats->latency_usec, count * usec);
}


/* all: the server refuses whatever it is asked */

static void
ngx_coord_redis_node_error(ngx_coord_redis_node_t *node,
    ngx_coord_resp_value_t *error, ngx_coord_fail_e failure,
    ngx_uint_t all)
{
    u_char                          buf[NGX_COORD_LOG_TEXT];
    ngx_str_t                       text;
    const ngx_coord_redis_error_t  *e;

    e = ngx_coord_redis_error(&error->str);
    text = ngx_coord_redis_error_text(node->redis->conf, buf, &error->str);

    ngx_coord_redis_conn_log(node->conn, failure, 0, "error reply", &text);

    ngx_coord_redis_refused(node, e);

    if (failure == NGX_COORD_FAIL_ERROR
        || (failure == NGX_COORD_FAIL_AUTH && !e->close && !all)
        || e->needs == NGX_COORD_NEEDS_WRITES)
    {
        /* of a command, for what it is: others are served */
        node->failures = 0;

    } else if (!e->slot) {
        ngx_coord_redis_node_failed(node);
    }

    /* a command that is refused for what it is takes no others along again */

    if (failure == NGX_COORD_FAIL_ERROR
        || failure == NGX_COORD_FAIL_AUTH)
    {
        node->apart = 1;
    }
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
            (void) ngx_atomic_fetch_add(&stats->failures[call->failure],
                                        1 + call->more);
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
