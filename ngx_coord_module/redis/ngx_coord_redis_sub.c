
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The subscriber connection: the channels of the store, and a PING where it is
 * quiet, for a silent connection looks like one without messages.
 */


#include "ngx_coord_redis_conn.h"


#define NGX_COORD_SUB_IDLE      10000    /* milliseconds without a message */
#define NGX_COORD_SUB_OVERDUE   2000

#define NGX_COORD_PING          "*1" CRLF "$4" CRLF "PING" CRLF


struct ngx_coord_redis_sub_s {
    ngx_coord_redis_t         *redis;
    ngx_coord_redis_conn_t    *conn;

    ngx_coord_redis_message_pt  message;
    ngx_coord_redis_subscribed_pt  subscribed;
    void                      *data;

    ngx_coord_timer_t          ping;
    ngx_msec_t                 last;          /* something was received */
    ngx_uint_t                 missing;       /* channels not yet confirmed */
    unsigned                   waiting:1;     /* for a confirmation, a pong */
};


static void ngx_coord_redis_sub_ready(ngx_coord_redis_conn_t *conn,
    ngx_coord_resp_value_t *value, ngx_coord_nsec_t start);
static u_char *ngx_coord_redis_sub_encode(ngx_coord_redis_sub_t *sub,
    ngx_coord_fail_e *failure);
static ngx_uint_t ngx_coord_redis_sub_expect(ngx_coord_redis_conn_t *conn);
static ngx_coord_fail_e ngx_coord_redis_sub_reply(
    ngx_coord_redis_conn_t *conn, ngx_coord_resp_value_t *value);
static ngx_coord_fail_e ngx_coord_redis_sub_refused(
    ngx_coord_redis_sub_t *sub, ngx_str_t *text);
static void ngx_coord_redis_sub_confirmed(ngx_coord_redis_sub_t *sub);
static ngx_uint_t ngx_coord_redis_sub_is(ngx_coord_resp_value_t *array,
    ngx_int_t n, ngx_str_t *kind);
static void ngx_coord_redis_sub_closed(ngx_coord_redis_conn_t *conn,
    ngx_coord_fail_e failure, ngx_uint_t ready);
static void ngx_coord_redis_sub_ping(ngx_event_t *ev);


static const ngx_coord_conn_actions_t  ngx_coord_redis_sub_actions = {
    ngx_coord_redis_sub_ready,
    ngx_coord_redis_sub_expect,
    ngx_coord_redis_sub_reply,
    ngx_coord_redis_sub_closed
};


static ngx_str_t  ngx_coord_sub_message = ngx_string("message");
static ngx_str_t  ngx_coord_sub_subscribe = ngx_string("subscribe");
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

    sub = ngx_calloc(sizeof(ngx_coord_redis_sub_t), redis->cycle->log);
    if (sub == NULL) {
        return NGX_ERROR;
    }

    sub->conn = ngx_coord_redis_conn_create(redis,
                                          ngx_coord_redis_first(redis->conf),
                                          &ngx_coord_redis_sub_actions, sub);
    if (sub->conn == NULL) {
        ngx_free(sub);
        return NGX_ERROR;
    }

    sub->redis = redis;
    sub->message = message;
    sub->subscribed = subscribed;
    sub->data = data;

    ngx_coord_timer_init(&sub->ping, ngx_coord_redis_sub_ping, sub,
                         &sub->conn->log);
    sub->ping.event.cancelable = 1;

    sub->conn->log.action = "subscribing";

    redis->sub = sub;

    ngx_coord_redis_conn_start(sub->conn);

    return NGX_OK;
}


void
ngx_coord_redis_sub_destroy(ngx_coord_redis_sub_t *sub)
{
    ngx_coord_timer_stop(&sub->ping);

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
    sub->missing = sub->redis->conf->channels->nelts;
    sub->waiting = 1;

    last = ngx_coord_redis_sub_encode(sub, &failure);

    /* without memory nothing is sent, and the confirmation is overdue */

    if (last != NULL) {
        ngx_coord_redis_conn_queue(conn, last);
    }

    ngx_coord_timer_start(&sub->ping, NGX_COORD_SUB_OVERDUE);
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
    ngx_str_t               channel, text;
    ngx_coord_redis_sub_t  *sub;

    sub = conn->data;
    sub->last = ngx_current_msec;

    if (ngx_coord_redis_sub_is(value, 3, &ngx_coord_sub_message)) {

        if (sub->missing == 0
            && ngx_coord_resp_string(ngx_coord_resp_element(value, 1),
                                     &channel)
               == NGX_OK
            && ngx_coord_resp_string(ngx_coord_resp_element(value, 2), &text)
               == NGX_OK)
        {
            sub->message(sub->data, &channel, &text);
            return NGX_COORD_FAIL_NONE;
        }

        /* some channels are there, subscribed() has still to come */

        if (sub->missing) {
            return NGX_COORD_FAIL_NONE;
        }

    } else if (ngx_coord_redis_sub_is(value, 3, &ngx_coord_sub_subscribe)) {

        if (sub->missing) {
            ngx_coord_redis_sub_confirmed(sub);
            return NGX_COORD_FAIL_NONE;
        }

    } else if (ngx_coord_redis_sub_is(value, 2, &ngx_coord_sub_pong)) {

        if (sub->waiting && sub->missing == 0) {
            sub->waiting = 0;
            return NGX_COORD_FAIL_NONE;
        }

    } else if (value->type == NGX_COORD_RESP_ERROR) {
        return ngx_coord_redis_sub_refused(sub, &value->str);
    }

    ngx_coord_redis_conn_log(conn, NGX_COORD_FAIL_PROTOCOL, 0,
                             "unexpected message", NULL);

    return NGX_COORD_FAIL_PROTOCOL;
}


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
}


static void
ngx_coord_redis_sub_ping(ngx_event_t *ev)
{
    ngx_coord_redis_sub_t  *sub = ngx_coord_timer_data(ev);

    u_char                 *p;
    ngx_msec_t              quiet;
    ngx_coord_fail_e        failure;

    quiet = ngx_current_msec - sub->last;

    if (sub->waiting && quiet >= NGX_COORD_SUB_OVERDUE) {
        ngx_coord_redis_conn_log(sub->conn, NGX_COORD_FAIL_TIMEOUT, 0,
                                 "no reply, connection closed",
                                 NULL);
        ngx_coord_redis_conn_close(sub->conn, NGX_COORD_FAIL_TIMEOUT);
        return;
    }

    if (sub->waiting) {
        ngx_add_timer(ev, NGX_COORD_SUB_OVERDUE - quiet);
        return;
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
