
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * What goes over a connection: the handshake, reading and writing.  Bytes go
 * through c->recv() and c->send() only, which may be those of TLS.
 */


#include "ngx_coord_redis_conn.h"


#define NGX_COORD_CONN_READ_BUDGET   65536    /* bytes per read event */
#define NGX_COORD_CONN_REPLY_BUDGET  256      /* replies per read event */
#define NGX_COORD_CONN_OUT_SIZE      16384
#define NGX_COORD_CONN_OUT_KEEP      262144   /* a larger buffer is freed */


static void ngx_coord_redis_conn_ready(ngx_coord_redis_conn_t *conn,
    ngx_coord_resp_value_t *value);
static ngx_coord_fail_e ngx_coord_redis_conn_recv(
    ngx_coord_redis_conn_t *conn, size_t *size);
static ngx_coord_fail_e ngx_coord_redis_conn_bad_reply(
    ngx_coord_redis_conn_t *conn);
static ngx_coord_fail_e ngx_coord_redis_conn_replies(
    ngx_coord_redis_conn_t *conn, ngx_uint_t *budget);
static void ngx_coord_redis_conn_send(ngx_coord_redis_conn_t *conn);


void
ngx_coord_redis_conn_handshake(ngx_coord_redis_conn_t *conn)
{
    u_char            *p;
    ngx_coord_fail_e   failure;

    ngx_log_debug0(NGX_LOG_DEBUG_CORE, &conn->log, 0,
                   "coord redis: connected, handshake");

    conn->state = NGX_COORD_CONN_HANDSHAKE;
    conn->step = ngx_coord_redis_conn_step(conn, NGX_COORD_STEP_AUTH);

    p = ngx_coord_redis_conn_room(conn, ngx_coord_redis_conn_hello_size(conn),
                                  &failure);
    if (p == NULL) {
        ngx_coord_redis_conn_close(conn, failure);
        return;
    }

    conn->run_id_len = 0;
    conn->start = ngx_coord_monotonic();
    conn->generation = conn->endpoint->auth->generation;

    ngx_coord_redis_conn_queue(conn, ngx_coord_redis_conn_hello(conn, p));
}


static void
ngx_coord_redis_conn_ready(ngx_coord_redis_conn_t *conn,
    ngx_coord_resp_value_t *value)
{
    ngx_coord_timer_stop(&conn->timer);

    conn->state = NGX_COORD_CONN_READY;
    conn->since = ngx_current_msec;

    /* AUTH was there; all of it is sent, or there were no replies */

    if (conn->out_pos == conn->out_last) {
        ngx_coord_redis_conn_free_out(conn);
    }

    if (conn->failed) {

        if (ngx_coord_redis_conn_log_ends(conn, &conn->ended)) {
            ngx_log_error(conn->again, &conn->log, 0,
                          "coord redis: connected again after %Mms",
                          ngx_current_msec - conn->failed);
        }

        conn->failed = 0;
    }

    conn->actions->ready(conn, value, conn->start);
}


void
ngx_coord_redis_conn_read(ngx_event_t *rev)
{
    size_t                   size;
    ngx_uint_t               budget;
    ngx_coord_fail_e         failure;
    ngx_connection_t        *c;
    ngx_coord_redis_conn_t  *conn;

    c = rev->data;
    conn = c->data;

    if (c->close) {
        ngx_coord_redis_conn_close(conn, NGX_COORD_FAIL_CONNECT);
        return;
    }

    if (conn->state == NGX_COORD_CONN_CONNECTING) {
        ngx_coord_redis_conn_established(conn);
        return;
    }

    budget = NGX_COORD_CONN_REPLY_BUDGET;
    size = NGX_COORD_CONN_READ_BUDGET;
    failure = NGX_COORD_FAIL_NONE;

    /* what the last event has left comes first */

    if (rev->ready && ngx_coord_resp_pending(conn->resp) == 0) {
        failure = ngx_coord_redis_conn_recv(conn, &size);
    }

    while (failure == NGX_COORD_FAIL_NONE) {
        failure = ngx_coord_redis_conn_replies(conn, &budget);

        if (failure != NGX_COORD_FAIL_NONE) {
            break;
        }

        if (budget == 0 || size == 0) {
            ngx_post_event(rev, &ngx_posted_next_events);
            return;
        }

        if (!rev->ready) {

            if (ngx_handle_read_event(rev, 0) == NGX_OK) {
                return;
            }

            failure = NGX_COORD_FAIL_CONNECT;
            break;
        }

        failure = ngx_coord_redis_conn_recv(conn, &size);
    }

    ngx_coord_redis_conn_close(conn, failure);
}


/* reads once; subtracts from *size what the event may still read */

static ngx_coord_fail_e
ngx_coord_redis_conn_recv(ngx_coord_redis_conn_t *conn, size_t *size)
{
    u_char             buf[NGX_COORD_CONN_READ_SIZE];
    ssize_t            n;
    ngx_connection_t  *c;

    c = conn->peer.connection;

    n = c->recv(c, buf, ngx_min(*size, NGX_COORD_CONN_READ_SIZE));

    if (n == NGX_AGAIN) {
        c->read->ready = 0;
        return NGX_COORD_FAIL_NONE;
    }

    if (n == 0 || n == NGX_ERROR) {
        ngx_coord_redis_conn_log(conn, NGX_COORD_FAIL_CONNECT, 0,
                                 n ? "connection lost"
                                   : "connection closed by the server",
                                 ngx_coord_redis_tls_reason(conn));
        return NGX_COORD_FAIL_CONNECT;
    }

    *size -= n;
    conn->moved = ngx_current_msec;

    if (ngx_coord_resp_feed(conn->resp, buf, n) != NGX_OK) {
        return ngx_coord_redis_conn_bad_reply(conn);
    }

    return NGX_COORD_FAIL_NONE;
}


/* the parser's words in the log */

static ngx_coord_fail_e
ngx_coord_redis_conn_bad_reply(ngx_coord_redis_conn_t *conn)
{
    ngx_str_t  reason;

    reason.data = (u_char *) ngx_coord_resp_error(conn->resp);
    reason.len = ngx_strlen(reason.data);

    ngx_coord_redis_conn_log(conn, NGX_COORD_FAIL_PROTOCOL, 0, "bad reply",
                             &reason);

    return NGX_COORD_FAIL_PROTOCOL;
}


static ngx_coord_fail_e
ngx_coord_redis_conn_replies(ngx_coord_redis_conn_t *conn, ngx_uint_t *budget)
{
    ngx_int_t                rc;
    ngx_uint_t               n;
    ngx_coord_fail_e         failure;
    ngx_coord_resp_value_t  *value;

    while (*budget) {

        n = 1;

        if (conn->state == NGX_COORD_CONN_READY) {
            n = conn->actions->expect(conn);
        }

        if (n == 0) {

            if (ngx_coord_resp_pending(conn->resp) == 0) {
                return NGX_COORD_FAIL_NONE;
            }

            ngx_coord_redis_conn_log(conn, NGX_COORD_FAIL_PROTOCOL, 0,
                                     "unsolicited reply", NULL);
            return NGX_COORD_FAIL_PROTOCOL;
        }

        if (n > 1 && !conn->gathering) {
            ngx_coord_resp_gather(conn->resp, n);
            conn->gathering = 1;
        }

        rc = ngx_coord_resp_next(conn->resp, &value);

        if (rc == NGX_AGAIN) {
            return NGX_COORD_FAIL_NONE;
        }

        if (rc == NGX_ERROR) {
            return ngx_coord_redis_conn_bad_reply(conn);
        }

        conn->gathering = 0;
        *budget -= ngx_min(n, *budget);

        failure = conn->state == NGX_COORD_CONN_READY
                  ? conn->actions->reply(conn, value)
                  : ngx_coord_redis_conn_greeted(conn, value);

        if (failure != NGX_COORD_FAIL_NONE) {
            return failure;
        }

        if (conn->step == NGX_COORD_STEP_DONE
            && conn->state == NGX_COORD_CONN_HANDSHAKE)
        {
            ngx_coord_redis_conn_ready(conn, value);
        }
    }

    return NGX_COORD_FAIL_NONE;
}


void
ngx_coord_redis_conn_write(ngx_event_t *wev)
{
    ngx_connection_t        *c;
    ngx_coord_redis_conn_t  *conn;

    c = wev->data;
    conn = c->data;

    if (c->close) {
        ngx_coord_redis_conn_close(conn, NGX_COORD_FAIL_CONNECT);
        return;
    }

    if (conn->state == NGX_COORD_CONN_CONNECTING) {
        ngx_coord_redis_conn_established(conn);
        return;
    }

    ngx_coord_redis_conn_send(conn);
}


void
ngx_coord_redis_conn_flush(ngx_event_t *ev)
{
    ngx_coord_redis_conn_t  *conn = ev->data;

    /* what is still to run this turn has more to send: ends, then releases */

    if (conn->deferred < NGX_COORD_CONN_DEFER
        && !ngx_queue_empty(&ngx_posted_events))
    {
        conn->deferred++;
        ngx_post_event(ev, &ngx_posted_events);
        return;
    }

    conn->deferred = 0;

    if (conn->peer.connection->write->ready) {
        ngx_coord_redis_conn_send(conn);
    }
}


static void
ngx_coord_redis_conn_send(ngx_coord_redis_conn_t *conn)
{
    ssize_t            n;
    ngx_connection_t  *c;

    c = conn->peer.connection;

    conn->writes++;

    while (conn->out_pos != conn->out_last) {

        n = c->send(c, conn->out_pos, conn->out_last - conn->out_pos);

        if (n > 0) {
            conn->out_pos += n;
            conn->moved = ngx_current_msec;
            continue;
        }

        if (n == NGX_AGAIN) {
            break;
        }

        ngx_coord_redis_tls_refused(conn);

        ngx_coord_redis_conn_log(conn, NGX_COORD_FAIL_CONNECT, 0,
                                 "connection lost",
                                 ngx_coord_redis_tls_reason(conn));
        ngx_coord_redis_conn_close(conn, NGX_COORD_FAIL_CONNECT);
        return;
    }

    if (conn->out_pos == conn->out_last) {
        conn->out_pos = conn->out;
        conn->out_last = conn->out;

        if (conn->out_end - conn->out > NGX_COORD_CONN_OUT_KEEP) {
            ngx_coord_redis_conn_free_out(conn);
        }
    }

    if (ngx_handle_write_event(c->write, 0) != NGX_OK) {
        ngx_coord_redis_conn_close(conn, NGX_COORD_FAIL_CONNECT);
    }
}


u_char *
ngx_coord_redis_conn_room(ngx_coord_redis_conn_t *conn, size_t size,
    ngx_coord_fail_e *failure)
{
    size_t   used, total;
    u_char  *p;

    if ((size_t) (conn->out_end - conn->out_last) >= size) {
        return conn->out_last;
    }

    used = conn->out_last - conn->out_pos;
    *failure = NGX_COORD_FAIL_OVERFLOW;

    if (used && used + size > conn->out_max) {
        return NULL;
    }

    total = ngx_max((size_t) (conn->out_end - conn->out) * 2,
                    NGX_COORD_CONN_OUT_SIZE);
    total = ngx_min(total, conn->out_max);
    total = ngx_max(total, used + size);

    p = ngx_alloc(total, &conn->log);
    if (p == NULL) {
        return NULL;
    }

    if (used) {
        ngx_memcpy(p, conn->out_pos, used);
    }

    ngx_coord_redis_conn_free_out(conn);

    conn->out = p;
    conn->out_pos = p;
    conn->out_last = p + used;
    conn->out_end = p + total;

    return conn->out_last;
}


void
ngx_coord_redis_conn_queue(ngx_coord_redis_conn_t *conn, u_char *last)
{
    conn->out_last = last;

    ngx_post_event(&conn->flush, &ngx_posted_events);
}


void
ngx_coord_redis_conn_free_out(ngx_coord_redis_conn_t *conn)
{
    if (conn->out != NULL) {

        /* there may be a password */

        ngx_explicit_memzero(conn->out, conn->out_end - conn->out);
        ngx_free(conn->out);
    }

    conn->out = NULL;
    conn->out_pos = NULL;
    conn->out_last = NULL;
    conn->out_end = NULL;
}
