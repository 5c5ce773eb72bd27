
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * What comes back: whether it is the answer to this very call, what it says,
 * and the end of the call.
 */


#include "ngx_coord_redis_conn.h"


static ngx_uint_t ngx_coord_redis_replies(ngx_coord_redis_call_t *call);
static ngx_int_t ngx_coord_redis_check(ngx_coord_redis_call_t *call,
    ngx_coord_resp_value_t *gathered, ngx_coord_resp_value_t **reply,
    ngx_coord_resp_value_t **error);
static ngx_coord_resp_value_t *ngx_coord_redis_asked(
    ngx_coord_resp_value_t *gathered);
static ngx_int_t ngx_coord_redis_check_multi(ngx_coord_redis_call_t *call,
    ngx_coord_resp_value_t *gathered, ngx_coord_resp_value_t **reply,
    ngx_coord_resp_value_t **error);
static ngx_int_t ngx_coord_redis_check_plain(ngx_coord_redis_call_t *call,
    ngx_coord_resp_value_t *gathered, ngx_coord_resp_value_t **reply,
    ngx_coord_resp_value_t **error);
static ngx_int_t ngx_coord_redis_check_bare(ngx_coord_redis_call_t *call,
    ngx_coord_resp_value_t *gathered, ngx_coord_resp_value_t **reply,
    ngx_coord_resp_value_t **error);
static ngx_int_t ngx_coord_redis_check_echo(ngx_coord_redis_call_t *call,
    ngx_coord_resp_value_t *array);
static ngx_uint_t ngx_coord_redis_is_nonce(ngx_coord_redis_call_t *call,
    ngx_coord_resp_value_t *v);
static ngx_uint_t ngx_coord_redis_is_status(ngx_coord_resp_value_t *v,
    const char *text, size_t len);
static ngx_coord_fail_e ngx_coord_redis_node_answered(
    ngx_coord_redis_node_t *node, ngx_coord_redis_call_t *call,
    ngx_coord_resp_value_t *reply);
static ngx_coord_fail_e ngx_coord_redis_node_refused(
    ngx_coord_redis_node_t *node, ngx_coord_redis_call_t *call,
    ngx_coord_resp_value_t *error);
static ngx_uint_t ngx_coord_redis_node_redirects(
    ngx_coord_redis_node_t *node, ngx_coord_redis_call_t *call,
    ngx_coord_resp_value_t *error);
static ngx_coord_redis_call_t *ngx_coord_redis_joined(
    ngx_coord_redis_node_t *node, ngx_coord_redis_call_t *call);
static void ngx_coord_redis_count(ngx_coord_redis_node_t *node,
    ngx_coord_redis_call_t *call, ngx_coord_fail_e failure);
static void ngx_coord_redis_node_error(ngx_coord_redis_node_t *node,
    ngx_coord_resp_value_t *error);


ngx_uint_t
ngx_coord_redis_node_expect(ngx_coord_redis_conn_t *conn)
{
    ngx_queue_t             *q;
    ngx_coord_redis_node_t  *node;

    node = conn->data;

    if (ngx_queue_empty(&node->calls)) {
        return 0;
    }

    q = ngx_queue_head(&node->calls);

    return ngx_coord_redis_replies(ngx_queue_data(q, ngx_coord_redis_call_t,
                                                  queue));
}


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

    if (rc == NGX_DECLINED) {
        return ngx_coord_redis_node_refused(node, call, error);
    }

    return ngx_coord_redis_node_answered(node, call, reply);
}


static ngx_uint_t
ngx_coord_redis_replies(ngx_coord_redis_call_t *call)
{
    /* the commands and ECHO; MULTI and EXEC; ASKING */

    switch (call->form) {

    case NGX_COORD_CALL_PLAIN:
    case NGX_COORD_CALL_BARE:
        return call->total + 1 + call->ask;

    default: /* NGX_COORD_CALL_ALONE, NGX_COORD_CALL_SHARED */
        return call->total + 3 + call->ask;
    }
}


/*
 * NGX_OK: *reply is the first of call->total values, its own and those of who
 * joined it; NGX_DECLINED: refused, *error is the first error reply and the
 * stream is in order; NGX_ERROR: these are not the replies of the call.
 */

static ngx_int_t
ngx_coord_redis_check(ngx_coord_redis_call_t *call,
    ngx_coord_resp_value_t *gathered, ngx_coord_resp_value_t **reply,
    ngx_coord_resp_value_t **error)
{
    if (gathered->type != NGX_COORD_RESP_ARRAY
        || (ngx_uint_t) gathered->integer != ngx_coord_redis_replies(call))
    {
        return NGX_ERROR;
    }

    if (call->ask) {
        gathered = ngx_coord_redis_asked(gathered);

        if (gathered == NULL) {
            return NGX_ERROR;
        }
    }

    switch (call->form) {

    case NGX_COORD_CALL_PLAIN:
        return ngx_coord_redis_check_plain(call, gathered, reply, error);

    case NGX_COORD_CALL_BARE:
        return ngx_coord_redis_check_bare(call, gathered, reply, error);

    default: /* NGX_COORD_CALL_ALONE, NGX_COORD_CALL_SHARED */
        return ngx_coord_redis_check_multi(call, gathered, reply, error);
    }
}


/*
 * The replies behind that to ASKING, whose place the array's takes.  A server
 * that refuses it refuses what is behind it by a MOVED.
 */

static ngx_coord_resp_value_t *
ngx_coord_redis_asked(ngx_coord_resp_value_t *gathered)
{
    ngx_coord_resp_value_t  *v;

    v = gathered + 1;

    if (v->type != NGX_COORD_RESP_STATUS && v->type != NGX_COORD_RESP_ERROR) {
        return NULL;
    }

    v->type = NGX_COORD_RESP_ARRAY;
    v->integer = gathered->integer - 1;
    v->next = gathered->next - 1;

    return v;
}


/*
 * +OK, +QUEUED for each command and ECHO, the array of EXEC.  An error at any
 * of them ends in an error from EXEC.  Where MULTI itself was refused the
 * commands have run, or were refused, one by one: ECHO still tells whose
 * replies these are.
 */

static ngx_int_t
ngx_coord_redis_check_multi(ngx_coord_redis_call_t *call,
    ngx_coord_resp_value_t *gathered, ngx_coord_resp_value_t **reply,
    ngx_coord_resp_value_t **error)
{
    ngx_uint_t               i, refused;
    ngx_coord_resp_value_t  *v;

    *error = NULL;

    v = gathered + 1;
    refused = (v->type == NGX_COORD_RESP_ERROR);

    if (refused) {
        *error = v;

    } else if (!ngx_coord_redis_is_status(v, "OK", sizeof("OK") - 1)) {
        return NGX_ERROR;
    }

    for (i = 0; i < call->total + 1; i++) {
        v += v->next;

        if (v->type == NGX_COORD_RESP_ERROR) {
            *error = *error ? *error : v;
            continue;
        }

        if (refused) {
            if (i == call->total && !ngx_coord_redis_is_nonce(call, v)) {
                return NGX_ERROR;
            }

            continue;
        }

        if (!ngx_coord_redis_is_status(v, "QUEUED", sizeof("QUEUED") - 1)) {
            return NGX_ERROR;
        }
    }

    v += v->next;

    if (v->type == NGX_COORD_RESP_ERROR) {
        *error = *error ? *error : v;
        return NGX_DECLINED;
    }

    if (*error != NULL || ngx_coord_redis_check_echo(call, v) != NGX_OK) {
        return NGX_ERROR;
    }

    *reply = v + 1;

    return NGX_OK;
}


static ngx_int_t
ngx_coord_redis_check_plain(ngx_coord_redis_call_t *call,
    ngx_coord_resp_value_t *gathered, ngx_coord_resp_value_t **reply,
    ngx_coord_resp_value_t **error)
{
    ngx_uint_t               i;
    ngx_coord_resp_value_t  *v, *first;

    first = NULL;
    v = gathered + 1;

    for (i = 0; i < call->total; i++) {

        if (first == NULL && v->type == NGX_COORD_RESP_ERROR) {
            first = v;
        }

        v += v->next;
    }

    /* a server that refuses everything refuses ECHO, too */

    if (first != NULL && v->type == NGX_COORD_RESP_ERROR) {
        *error = first;
        return NGX_DECLINED;
    }

    if (ngx_coord_redis_check_echo(call, gathered) != NGX_OK) {
        return NGX_ERROR;
    }

    if (first != NULL
        && ngx_coord_redis_error(&first->str)->failure != NGX_COORD_FAIL_ERROR)
    {
        *error = first;
        return NGX_DECLINED;
    }

    *reply = gathered + 1;

    return NGX_OK;
}


/*
 * A value a command, errors among them, and the nonce.  A server that refuses
 * everything refuses ECHO, too: then all are errors.
 */

static ngx_int_t
ngx_coord_redis_check_bare(ngx_coord_redis_call_t *call,
    ngx_coord_resp_value_t *gathered, ngx_coord_resp_value_t **reply,
    ngx_coord_resp_value_t **error)
{
    ngx_uint_t               i;
    ngx_coord_resp_value_t  *v;

    if (ngx_coord_redis_check_echo(call, gathered) == NGX_OK) {
        *reply = gathered + 1;
        return NGX_OK;
    }

    v = gathered + 1;
    *error = v;

    for (i = 0; i < call->total + 1; i++) {

        if (v->type != NGX_COORD_RESP_ERROR) {
            return NGX_ERROR;
        }

        v += v->next;
    }

    return NGX_DECLINED;
}


/* the array has a value a command, and ends with the nonce */

static ngx_int_t
ngx_coord_redis_check_echo(ngx_coord_redis_call_t *call,
    ngx_coord_resp_value_t *array)
{
    ngx_coord_resp_value_t  *v;

    v = ngx_coord_resp_element(array, call->total);

    if (v == NULL
        || (ngx_uint_t) array->integer != call->total + 1
        || !ngx_coord_redis_is_nonce(call, v))
    {
        return NGX_ERROR;
    }

    return NGX_OK;
}


static ngx_uint_t
ngx_coord_redis_is_nonce(ngx_coord_redis_call_t *call,
    ngx_coord_resp_value_t *v)
{
    u_char  nonce[NGX_COORD_REDIS_NONCE_LEN];

    (void) ngx_coord_redis_nonce(nonce, call->nonce);

    return v->type == NGX_COORD_RESP_STRING
           && v->str.len == NGX_COORD_REDIS_NONCE_LEN
           && ngx_memcmp(v->str.data, nonce, NGX_COORD_REDIS_NONCE_LEN) == 0;
}


static ngx_uint_t
ngx_coord_redis_is_status(ngx_coord_resp_value_t *v, const char *text,
    size_t len)
{
    return v->type == NGX_COORD_RESP_STATUS
           && v->str.len == len
           && ngx_memcmp(v->str.data, text, len) == 0;
}


/*
 * A command can fail by itself in a transaction that is executed: for its key,
 * or for what holds of the server, whose rules may have changed meanwhile.
 */

static ngx_coord_fail_e
ngx_coord_redis_node_answered(ngx_coord_redis_node_t *node,
    ngx_coord_redis_call_t *call, ngx_coord_resp_value_t *reply)
{
    ngx_uint_t               i;
    ngx_coord_fail_e         failure, close;
    ngx_coord_redis_call_t  *next;
    ngx_coord_resp_value_t  *first, *error;

    close = NGX_COORD_FAIL_NONE;

    do {
        next = ngx_coord_redis_joined(node, call);
        first = reply;
        error = NULL;

        for (i = 0; i < call->ncommands; i++) {

            if (reply->type == NGX_COORD_RESP_ERROR
                && error == NULL
                && ngx_coord_redis_failure(reply) != NGX_COORD_FAIL_ERROR)
            {
                error = reply;
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
            ngx_coord_redis_node_error(node, error);

            if (ngx_coord_redis_error(&error->str)->close) {
                close = failure;
            }
        }

        ngx_coord_redis_count(node, call, failure);
        ngx_coord_redis_end(node, call, NGX_OK, first);

        call = next;

    } while (call != NULL);

    return close;
}


static ngx_coord_fail_e
ngx_coord_redis_node_refused(ngx_coord_redis_node_t *node,
    ngx_coord_redis_call_t *call, ngx_coord_resp_value_t *error)
{
    ngx_coord_redis_call_t         *next;
    const ngx_coord_redis_error_t  *e;

    e = ngx_coord_redis_error(&error->str);

    if ((!e->slot || node->redis->routing == NULL)
        && (!call->foreign || e->close))
    {
        ngx_coord_redis_node_error(node, error);
    }

    do {
        next = ngx_coord_redis_joined(node, call);

        if (ngx_coord_redis_node_redirects(node, call, error)) {
            call = next;
            continue;
        }

        /* a transaction that is not executed since the server serves nobody */

        call->refused = (e->failure == NGX_COORD_FAIL_UNAVAILABLE
                         && ngx_coord_redis_multi(call));

        call->failure = e->failure;
        ngx_coord_redis_end(node, call, NGX_ERROR, NULL);

        call = next;

    } while (call != NULL);

    return e->close ? e->failure : NGX_COORD_FAIL_NONE;
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

    ngx_coord_redis_node_error(node, error);

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


/* failure: what replies that are in order say of the server, or NONE */

static void
ngx_coord_redis_count(ngx_coord_redis_node_t *node,
    ngx_coord_redis_call_t *call, ngx_coord_fail_e failure)
{
    ngx_uint_t                n, usec, count;
    ngx_coord_store_stats_t  *stats;

    if (failure == NGX_COORD_FAIL_NONE && call->state != NGX_COORD_CALL_LATE) {
        node->failures = 0;
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

    (void) ngx_atomic_fetch_add(&stats->calls, count);
    (void) ngx_atomic_fetch_add(&stats->commands, call->ncommands);

    if (call->state == NGX_COORD_CALL_LATE) {
        (void) ngx_atomic_fetch_add(&stats->late, count);
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


static void
ngx_coord_redis_node_error(ngx_coord_redis_node_t *node,
    ngx_coord_resp_value_t *error)
{
    u_char                          buf[NGX_COORD_LOG_TEXT];
    ngx_str_t                       text;
    const ngx_coord_redis_error_t  *e;

    e = ngx_coord_redis_error(&error->str);
    text = ngx_coord_redis_error_text(node->redis->conf, buf, &error->str);

    ngx_coord_redis_conn_log(node->conn, e->failure, 0, "error reply", &text);

    if (e->failure == NGX_COORD_FAIL_ERROR) {
        node->failures = 0;

    } else if (!e->slot) {
        ngx_coord_redis_node_failed(node);
    }

    /* a command that is refused for what it is takes no others along again */

    if (e->failure == NGX_COORD_FAIL_ERROR
        || e->failure == NGX_COORD_FAIL_AUTH)
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
