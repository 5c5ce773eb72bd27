
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The subscriber connection: the channels of the store, then those that come
 * and go with who listens, and a PING where it is quiet, for a silent
 * connection looks like one without messages.
 */


#include "ngx_coord_redis_channel.h"


#define NGX_COORD_SUB_IDLE      1000     /* milliseconds without a message */
#define NGX_COORD_SUB_OVERDUE   2000
#define NGX_COORD_SUB_RETRY     10000    /* of channels that were refused */

#define NGX_COORD_PING          "*1" CRLF "$4" CRLF "PING" CRLF


struct ngx_coord_redis_sub_s {
    ngx_coord_redis_t         *redis;
    ngx_coord_redis_conn_t    *conn;

    ngx_coord_redis_message_pt  message;
    ngx_coord_redis_subscribed_pt  subscribed;
    void                      *data;

    ngx_coord_redis_channels_t  channels;     /* that come and go */

    ngx_coord_timer_t          ping;
    ngx_msec_t                 last;          /* something was received */
    ngx_msec_t                 retried;       /* channels that were refused */
    ngx_uint_t                 missing;       /* channels not yet confirmed */
    unsigned                   waiting:1;     /* for a confirmation, a pong */
};


static ngx_coord_redis_sub_t *ngx_coord_redis_sub_create(
    ngx_coord_redis_t *redis);
static ngx_uint_t ngx_coord_redis_sub_fixed(ngx_coord_redis_sub_t *sub);


static void ngx_coord_redis_sub_ready(ngx_coord_redis_conn_t *conn,
    ngx_coord_resp_value_t *value, ngx_coord_nsec_t start);
static u_char *ngx_coord_redis_sub_encode(ngx_coord_redis_sub_t *sub,
    ngx_coord_fail_e *failure);
static ngx_uint_t ngx_coord_redis_sub_expect(ngx_coord_redis_conn_t *conn);
static ngx_coord_fail_e ngx_coord_redis_sub_reply(
    ngx_coord_redis_conn_t *conn, ngx_coord_resp_value_t *value);
static ngx_int_t ngx_coord_redis_sub_take(ngx_coord_redis_sub_t *sub,
    ngx_coord_resp_value_t *value);
static ngx_int_t ngx_coord_redis_sub_heard(ngx_coord_redis_sub_t *sub,
    ngx_coord_resp_value_t *value);
static ngx_int_t ngx_coord_redis_sub_changed(ngx_coord_redis_sub_t *sub,
    ngx_coord_resp_value_t *value, ngx_uint_t subscribed);
static ngx_int_t ngx_coord_redis_sub_ponged(ngx_coord_redis_sub_t *sub);
static ngx_coord_fail_e ngx_coord_redis_sub_refused(
    ngx_coord_redis_sub_t *sub, ngx_str_t *text);
static void ngx_coord_redis_sub_confirmed(ngx_coord_redis_sub_t *sub);
static ngx_uint_t ngx_coord_redis_sub_is(ngx_coord_resp_value_t *array,
    ngx_int_t n, ngx_str_t *kind);
static void ngx_coord_redis_sub_closed(ngx_coord_redis_conn_t *conn,
    ngx_coord_fail_e failure, ngx_uint_t ready);
static void ngx_coord_redis_sub_watch(ngx_coord_redis_sub_t *sub);
static void ngx_coord_redis_sub_ping(ngx_event_t *ev);


static const ngx_coord_conn_actions_t  ngx_coord_redis_sub_actions = {
    ngx_coord_redis_sub_ready,
    ngx_coord_redis_sub_expect,
    ngx_coord_redis_sub_reply,
    ngx_coord_redis_sub_closed
};


static ngx_str_t  ngx_coord_sub_message = ngx_string("message");
static ngx_str_t  ngx_coord_sub_subscribe = ngx_string("subscribe");
static ngx_str_t  ngx_coord_sub_unsubscribe = ngx_string("unsubscribe");
static ngx_str_t  ngx_coord_sub_pong = ngx_string("pong");


ngx_int_t
ngx_coord_redis_subscribe(ngx_coord_redis_t *redis,
    ngx_coord_redis_message_pt message,
    ngx_coord_redis_subscribed_pt subscribed, void *data)
{
    ngx_coord_redis_sub_t  *sub;

    if (redis->conf->channels == NULL || redis->conf->channels->nelts == 0) {
        return NGX_OK;
    }

    sub = ngx_coord_redis_sub_create(redis);
    if (sub == NULL) {
        return NGX_ERROR;
    }

    sub->message = message;
    sub->subscribed = subscribed;
    sub->data = data;

    ngx_coord_redis_conn_start(sub->conn);

    return NGX_OK;
}


ngx_int_t
ngx_coord_redis_listen(ngx_coord_redis_t *redis,
    ngx_coord_redis_listener_t *listener)
{
    ngx_int_t               rc;
    ngx_coord_redis_sub_t  *sub;

    listener->entry = NULL;

    sub = redis->sub;

    if (sub == NULL) {
        sub = ngx_coord_redis_sub_create(redis);
        if (sub == NULL) {
            return NGX_ERROR;
        }

        ngx_coord_redis_conn_start(sub->conn);
    }

    rc = ngx_coord_redis_channels_add(&sub->channels, listener);

    ngx_coord_redis_sub_watch(sub);

    return rc;
}


void
ngx_coord_redis_unlisten(ngx_coord_redis_t *redis,
    ngx_coord_redis_listener_t *listener)
{
    if (redis->sub == NULL) {
        return;
    }

    ngx_coord_redis_channels_remove(&redis->sub->channels, listener);

    ngx_coord_redis_sub_watch(redis->sub);
}


static ngx_coord_redis_sub_t *
ngx_coord_redis_sub_create(ngx_coord_redis_t *redis)
{
    ngx_coord_redis_sub_t  *sub;

    sub = ngx_calloc(sizeof(ngx_coord_redis_sub_t), redis->cycle->log);
    if (sub == NULL) {
        return NULL;
    }

    sub->conn = ngx_coord_redis_conn_create(redis,
                                          ngx_coord_redis_first(redis->conf),
                                          &ngx_coord_redis_sub_actions, sub);
    if (sub->conn == NULL) {
        ngx_free(sub);
        return NULL;
    }

    sub->redis = redis;

    ngx_coord_redis_channels_init(&sub->channels, sub->conn);

    ngx_coord_timer_init(&sub->ping, ngx_coord_redis_sub_ping, sub,
                         &sub->conn->log);
    sub->ping.event.cancelable = 1;

    sub->conn->log.action = "subscribing";

    redis->sub = sub;

    return sub;
}


void
ngx_coord_redis_sub_destroy(ngx_coord_redis_sub_t *sub)
{
    ngx_coord_timer_stop(&sub->ping);

    ngx_coord_redis_channels_done(&sub->channels);

    ngx_coord_redis_conn_destroy(sub->conn);

    ngx_free(sub);
}


static void
ngx_coord_redis_sub_ready(ngx_coord_redis_conn_t *conn,
    ngx_coord_resp_value_t *value, ngx_coord_nsec_t start)
{
    u_char                 *last;
    ngx_coord_fail_e        failure;
    ngx_coord_redis_sub_t  *sub;

    sub = conn->data;

    sub->last = ngx_current_msec;
    sub->retried = ngx_current_msec;
    sub->missing = ngx_coord_redis_sub_fixed(sub);
    sub->waiting = (sub->missing != 0);

    if (sub->missing == 0) {
        ngx_coord_redis_channels_ready(&sub->channels);
        ngx_coord_timer_start(&sub->ping, NGX_COORD_SUB_OVERDUE);
        return;
    }

    last = ngx_coord_redis_sub_encode(sub, &failure);

    /* without memory nothing is sent, and the confirmation is overdue */

    if (last != NULL) {
        ngx_coord_redis_conn_queue(conn, last);
    }

    ngx_coord_timer_start(&sub->ping, NGX_COORD_SUB_OVERDUE);
}


/* the number of channels that are subscribed to for ever */

static ngx_uint_t
ngx_coord_redis_sub_fixed(ngx_coord_redis_sub_t *sub)
{
    return sub->redis->conf->channels ? sub->redis->conf->channels->nelts : 0;
}


static u_char *
ngx_coord_redis_sub_encode(ngx_coord_redis_sub_t *sub,
    ngx_coord_fail_e *failure)
{
    size_t        size;
    u_char       *p;
    ngx_str_t    *channel;
    ngx_uint_t    i;
    ngx_array_t  *channels;

    channels = sub->redis->conf->channels;
    channel = channels->elts;

    size = sizeof("*" CRLF "$9" CRLF "SUBSCRIBE" CRLF) - 1 + NGX_INT_T_LEN;

    for (i = 0; i < channels->nelts; i++) {
        size += ngx_coord_redis_bulk_size(channel[i].len);
    }

    p = ngx_coord_redis_conn_room(sub->conn, size, failure);
    if (p == NULL) {
        return NULL;
    }

    p = ngx_sprintf(p, "*%ui" CRLF "$9" CRLF "SUBSCRIBE" CRLF,
                    channels->nelts + 1);

    for (i = 0; i < channels->nelts; i++) {
        p = ngx_coord_redis_bulk(p, channel[i].data, channel[i].len);
    }

    return p;
}


static ngx_uint_t
ngx_coord_redis_sub_expect(ngx_coord_redis_conn_t *conn)
{
    return 1;
}


static ngx_coord_fail_e
ngx_coord_redis_sub_reply(ngx_coord_redis_conn_t *conn,
    ngx_coord_resp_value_t *value)
{
    ngx_coord_redis_sub_t  *sub;

    sub = conn->data;
    sub->last = ngx_current_msec;

    if (value->type == NGX_COORD_RESP_ERROR) {
        return ngx_coord_redis_sub_refused(sub, &value->str);
    }

    if (ngx_coord_redis_sub_take(sub, value) == NGX_OK) {
        return NGX_COORD_FAIL_NONE;
    }

    ngx_coord_redis_conn_log(conn, NGX_COORD_FAIL_PROTOCOL, 0,
                             "unexpected message", NULL);

    return NGX_COORD_FAIL_PROTOCOL;
}


/* NGX_ERROR: nobody has asked for this */

static ngx_int_t
ngx_coord_redis_sub_take(ngx_coord_redis_sub_t *sub,
    ngx_coord_resp_value_t *value)
{
    if (ngx_coord_redis_sub_is(value, 3, &ngx_coord_sub_message)) {
        return ngx_coord_redis_sub_heard(sub, value);
    }

    if (ngx_coord_redis_sub_is(value, 3, &ngx_coord_sub_subscribe)) {
        return ngx_coord_redis_sub_changed(sub, value, 1);
    }

    if (ngx_coord_redis_sub_is(value, 3, &ngx_coord_sub_unsubscribe)) {
        return ngx_coord_redis_sub_changed(sub, value, 0);
    }

    /* without a channel the connection is one as any other */

    if (ngx_coord_redis_sub_is(value, 2, &ngx_coord_sub_pong)
        || value->type == NGX_COORD_RESP_STATUS)
    {
        return ngx_coord_redis_sub_ponged(sub);
    }

    return NGX_ERROR;
}


static ngx_int_t
ngx_coord_redis_sub_heard(ngx_coord_redis_sub_t *sub,
    ngx_coord_resp_value_t *value)
{
    ngx_int_t     rc;
    ngx_str_t     channel, text, *fixed;
    ngx_uint_t    i;

    if (ngx_coord_resp_string(ngx_coord_resp_element(value, 1), &channel)
        != NGX_OK
        || ngx_coord_resp_string(ngx_coord_resp_element(value, 2), &text)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    /* some channels are there, subscribed() has still to come */

    if (sub->missing) {
        return NGX_OK;
    }

    rc = ngx_coord_redis_channels_message(&sub->channels, &channel, &text);

    fixed = sub->redis->conf->channels ? sub->redis->conf->channels->elts
                                       : NULL;

    for (i = 0; i < ngx_coord_redis_sub_fixed(sub); i++) {

        if (fixed[i].len == channel.len
            && ngx_memcmp(fixed[i].data, channel.data, channel.len) == 0)
        {
            sub->message(sub->data, &channel, &text);
            return NGX_OK;
        }
    }

    return rc;
}


static ngx_int_t
ngx_coord_redis_sub_changed(ngx_coord_redis_sub_t *sub,
    ngx_coord_resp_value_t *value, ngx_uint_t subscribed)
{
    ngx_str_t  channel;

    if (sub->missing) {

        if (!subscribed) {
            return NGX_ERROR;
        }

        ngx_coord_redis_sub_confirmed(sub);
        return NGX_OK;
    }

    if (ngx_coord_resp_string(ngx_coord_resp_element(value, 1), &channel)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_coord_redis_channels_reply(&sub->channels, &channel,
                                          subscribed);
}


static ngx_int_t
ngx_coord_redis_sub_ponged(ngx_coord_redis_sub_t *sub)
{
    if (!sub->waiting || sub->missing) {
        return NGX_ERROR;
    }

    sub->waiting = 0;

    return NGX_OK;
}


/* of a channel that comes and goes: it is asked for again some time later */

static ngx_coord_fail_e
ngx_coord_redis_sub_refused(ngx_coord_redis_sub_t *sub, ngx_str_t *text)
{
    u_char                          buf[NGX_COORD_LOG_TEXT];
    ngx_str_t                       reason;
    const ngx_coord_redis_error_t  *e;

    e = ngx_coord_redis_error(text);
    reason = ngx_coord_redis_error_text(sub->conn->conf, buf, text);

    ngx_coord_redis_conn_log(sub->conn, e->failure, 0, "SUBSCRIBE failed",
                             &reason);

    if (sub->missing == 0
        && !e->close
        && ngx_coord_redis_channels_error(&sub->channels) == NGX_OK)
    {
        return NGX_COORD_FAIL_NONE;
    }

    return e->failure;
}


static void
ngx_coord_redis_sub_confirmed(ngx_coord_redis_sub_t *sub)
{
    sub->missing--;

    if (sub->missing) {
        return;
    }

    sub->waiting = 0;

    ngx_log_debug0(NGX_LOG_DEBUG_CORE, &sub->conn->log, 0,
                   "coord redis: subscribed");

    if (sub->subscribed != NULL) {
        sub->subscribed(sub->data);
    }

    ngx_coord_redis_channels_ready(&sub->channels);
}


static ngx_uint_t
ngx_coord_redis_sub_is(ngx_coord_resp_value_t *array, ngx_int_t n,
    ngx_str_t *kind)
{
    ngx_coord_resp_value_t  *v;

    v = ngx_coord_resp_element(array, 0);

    return v != NULL
           && array->integer == n
           && v->type == NGX_COORD_RESP_STRING
           && v->str.len == kind->len
           && ngx_memcmp(v->str.data, kind->data, kind->len) == 0;
}


static void
ngx_coord_redis_sub_closed(ngx_coord_redis_conn_t *conn,
    ngx_coord_fail_e failure, ngx_uint_t ready)
{
    ngx_coord_redis_sub_t  *sub;

    sub = conn->data;

    ngx_coord_timer_stop(&sub->ping);

    ngx_coord_redis_channels_closed(&sub->channels);

    /* any server of a cluster will do: the next one */

    if (sub->redis->routing) {
        ngx_coord_redis_conn_move(conn, sub->redis->routing->any(sub->redis));
    }
}


void
ngx_coord_redis_sub_leave(ngx_coord_redis_sub_t *sub,
    ngx_coord_endpoint_t *endpoint)
{
    if (sub->conn->endpoint != endpoint) {
        return;
    }

    if (sub->conn->state > NGX_COORD_CONN_DISCONNECTED) {
        ngx_coord_redis_conn_close(sub->conn, NGX_COORD_FAIL_CONNECT);
        return;
    }

    ngx_coord_redis_conn_move(sub->conn, sub->redis->routing->any(sub->redis));
}


/* commands may have been sent: their replies are due sooner than a PING */

static void
ngx_coord_redis_sub_watch(ngx_coord_redis_sub_t *sub)
{
    ngx_event_t  *ev;

    ev = &sub->ping.event;

    if (!sub->channels.ready || sub->channels.nasked == 0 || sub->waiting) {
        return;
    }

    if (ev->timer_set
        && (ngx_msec_int_t) (ev->timer.key - ngx_current_msec)
           <= NGX_COORD_SUB_OVERDUE)
    {
        return;
    }

    sub->last = ngx_current_msec;

    ngx_coord_timer_stop(&sub->ping);
    ngx_coord_timer_start(&sub->ping, NGX_COORD_SUB_OVERDUE);
}


static void
ngx_coord_redis_sub_ping(ngx_event_t *ev)
{
    ngx_coord_redis_sub_t  *sub = ngx_coord_timer_data(ev);

    u_char                 *p;
    ngx_msec_t              quiet;
    ngx_uint_t              waiting;
    ngx_coord_fail_e        failure;

    quiet = ngx_current_msec - sub->last;
    waiting = (sub->waiting || sub->channels.nasked);

    if (waiting && quiet >= NGX_COORD_SUB_OVERDUE) {
        ngx_coord_redis_conn_log(sub->conn, NGX_COORD_FAIL_TIMEOUT, 0,
                                 "no reply, connection closed",
                                 NULL);
        ngx_coord_redis_conn_close(sub->conn, NGX_COORD_FAIL_TIMEOUT);
        return;
    }

    if (waiting) {
        ngx_add_timer(ev, NGX_COORD_SUB_OVERDUE - quiet);
        return;
    }

    if (ngx_current_msec - sub->retried >= NGX_COORD_SUB_RETRY) {
        sub->retried = ngx_current_msec;
        ngx_coord_redis_channels_retry(&sub->channels);
    }

    if (quiet < NGX_COORD_SUB_IDLE) {
        ngx_add_timer(ev, NGX_COORD_SUB_IDLE - quiet);
        return;
    }

    p = ngx_coord_redis_conn_room(sub->conn, sizeof(NGX_COORD_PING) - 1,
                                  &failure);
    if (p != NULL) {
        p = ngx_cpymem(p, NGX_COORD_PING, sizeof(NGX_COORD_PING) - 1);
        ngx_coord_redis_conn_queue(sub->conn, p);
    }

    /* a pong that cannot be asked for is overdue as well */

    sub->last = ngx_current_msec;
    sub->waiting = 1;

    ngx_add_timer(ev, NGX_COORD_SUB_OVERDUE);
}
