
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * A call as it is written, alone or in a group, and whether what comes back is
 * the answer to this very call.
 */


#include "ngx_coord_redis_conn.h"


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
static ngx_uint_t ngx_coord_redis_replies(ngx_coord_redis_call_t *call);
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
static ngx_int_t ngx_coord_redis_check_refusal(ngx_coord_resp_value_t *echo);
static ngx_uint_t ngx_coord_redis_is_mute(ngx_coord_redis_call_t *call,
    ngx_coord_resp_value_t *gathered, ngx_coord_resp_value_t **error);
static ngx_uint_t ngx_coord_redis_is_nonce(ngx_coord_redis_call_t *call,
    ngx_coord_resp_value_t *v);
static ngx_uint_t ngx_coord_redis_is_status(ngx_coord_resp_value_t *v,
    const char *text, size_t len);


ngx_coord_fail_e
ngx_coord_redis_submit(ngx_coord_redis_node_t *node,
    ngx_coord_redis_call_t *call)
{
    ngx_coord_fail_e  failure;

    call->state = NGX_COORD_CALL_WAITING;
    call->sent = 0;

    failure = ngx_coord_redis_admit(node);

    if (failure != NGX_COORD_FAIL_NONE
        || node->conn->state != NGX_COORD_CONN_READY
        || node->lobby)
    {
        return failure;
    }

    return ngx_coord_redis_encode(node, call);
}


void
ngx_coord_redis_node_pass(ngx_coord_redis_node_t *node,
    ngx_coord_redis_call_t *call)
{
    ngx_coord_fail_e  failure;

    failure = ngx_coord_redis_submit(node, call);

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


ngx_uint_t
ngx_coord_redis_node_expect(ngx_coord_redis_conn_t *conn)
{
    ngx_queue_t             *q;
    ngx_coord_redis_call_t  *call;
    ngx_coord_redis_node_t  *node;

    node = conn->data;

    if (ngx_queue_empty(&node->calls)) {
        return 0;
    }

    q = ngx_queue_head(&node->calls);
    call = ngx_queue_data(q, ngx_coord_redis_call_t, queue);

    /* a group that others still join is not written: how many is not known */

    if (call == node->open && node->writes == conn->writes) {
        return 0;
    }

    return ngx_coord_redis_replies(call);
}


/* with those who joined it */

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


ngx_int_t
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
    ngx_coord_resp_value_t  *v, *echo;

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

    echo = v;
    v += v->next;

    if (v->type == NGX_COORD_RESP_ERROR) {
        *error = *error ? *error : v;
        return ngx_coord_redis_check_refusal(echo);
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

    if (ngx_coord_redis_is_mute(call, gathered, error)) {
        return NGX_ABORT;
    }

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
        return ngx_coord_redis_check_refusal(v);
    }

    if (ngx_coord_redis_check_echo(call, gathered) != NGX_OK) {
        return NGX_ERROR;
    }

    /* one that is refused for what it is leaves the others as they are */

    if (first != NULL
        && ngx_coord_redis_failure(first) == NGX_COORD_FAIL_UNAVAILABLE)
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
    ngx_coord_resp_value_t  *v, *echo;

    if (ngx_coord_redis_check_echo(call, gathered) == NGX_OK) {
        *reply = gathered + 1;
        return NGX_OK;
    }

    if (ngx_coord_redis_is_mute(call, gathered, error)) {
        return NGX_ABORT;
    }

    v = gathered + 1;
    echo = v;
    *error = v;

    for (i = 0; i < call->total + 1; i++) {

        if (v->type != NGX_COORD_RESP_ERROR) {
            return NGX_ERROR;
        }

        echo = v;
        v += v->next;
    }

    return ngx_coord_redis_check_refusal(echo);
}


/*
 * Every user may ECHO, if rules do not forbid it (NOPERM), and whatever the
 * state of a server is that has a word for it: an error without one comes from
 * who has no server, such as a proxy, or no such command.
 */

static ngx_int_t
ngx_coord_redis_check_refusal(ngx_coord_resp_value_t *echo)
{
    switch (ngx_coord_redis_failure(echo)) {

    case NGX_COORD_FAIL_ERROR:
    case NGX_COORD_FAIL_AUTH:
        return NGX_ABORT;

    default:
        return NGX_DECLINED;
    }
}


/* 1 if the user may not ECHO: whose replies the others are nobody knows */

static ngx_uint_t
ngx_coord_redis_is_mute(ngx_coord_redis_call_t *call,
    ngx_coord_resp_value_t *gathered, ngx_coord_resp_value_t **error)
{
    ngx_coord_resp_value_t  *echo;

    echo = ngx_coord_resp_element(gathered, call->total);

    if (echo == NULL || ngx_coord_redis_failure(echo) != NGX_COORD_FAIL_AUTH) {
        return 0;
    }

    *error = echo;

    return 1;
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
