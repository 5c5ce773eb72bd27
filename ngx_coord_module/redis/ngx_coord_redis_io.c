
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

#define NGX_COORD_CONN_INFO          "*2" CRLF "$4" CRLF "INFO" CRLF          \
                                     "$6" CRLF "server" CRLF
#define NGX_COORD_CONN_VERSION       "redis_version:"


static size_t ngx_coord_redis_conn_hello_size(ngx_coord_redis_conn_t *conn);
static u_char *ngx_coord_redis_conn_hello(ngx_coord_redis_conn_t *conn,
    u_char *p);
static ngx_coord_conn_step_e ngx_coord_redis_conn_step(
    ngx_coord_redis_conn_t *conn, ngx_uint_t step);
static ngx_coord_fail_e ngx_coord_redis_conn_greeted(
    ngx_coord_redis_conn_t *conn, ngx_coord_resp_value_t *value);
static void ngx_coord_redis_conn_version(ngx_coord_redis_conn_t *conn,
    ngx_coord_resp_value_t *value);
static ngx_coord_fail_e ngx_coord_redis_conn_rejected(
    ngx_coord_redis_conn_t *conn, ngx_coord_resp_value_t *value);
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

    conn->start = ngx_coord_monotonic();
    conn->generation = conn->endpoint->auth->generation;

    ngx_coord_redis_conn_queue(conn, ngx_coord_redis_conn_hello(conn, p));
}


static size_t
ngx_coord_redis_conn_hello_size(ngx_coord_redis_conn_t *conn)
{
    ngx_coord_redis_conf_t  *conf;
    ngx_coord_auth_t  *auth;

    conf = conn->conf;
    auth = conn->endpoint->auth;

    return sizeof("*3" CRLF "$4" CRLF "AUTH" CRLF) - 1
           + ngx_coord_redis_bulk_size(auth->username.len)
           + ngx_coord_redis_bulk_size(auth->password.len)
           + sizeof("*2" CRLF "$6" CRLF "SELECT" CRLF) - 1
           + ngx_coord_redis_bulk_size(NGX_INT_T_LEN)
           + sizeof("*3" CRLF "$6" CRLF "CLIENT" CRLF
                    "$7" CRLF "SETNAME" CRLF) - 1
           + ngx_coord_redis_bulk_size(sizeof("ngx_coord::") - 1
                                       + conf->store.len + NGX_INT64_LEN)
           + sizeof(NGX_COORD_CONN_INFO) - 1
           + sizeof("*1" CRLF "$4" CRLF "TIME" CRLF) - 1;
}


static u_char *
ngx_coord_redis_conn_hello(ngx_coord_redis_conn_t *conn, u_char *p)
{
    u_char                  *last, number[NGX_INT_T_LEN];
    u_char                   pid[NGX_INT64_LEN];
    ngx_coord_redis_conf_t  *conf;
    ngx_coord_auth_t  *auth;

    conf = conn->conf;
    auth = conn->endpoint->auth;

    if (auth->password.len) {
        p = ngx_sprintf(p, "*%d" CRLF "$4" CRLF "AUTH" CRLF,
                        auth->username.len ? 3 : 2);

        if (auth->username.len) {
            p = ngx_coord_redis_bulk(p, auth->username.data,
                                     auth->username.len);
        }

        p = ngx_coord_redis_bulk(p, auth->password.data, auth->password.len);
    }

    if (conf->db) {
        last = ngx_sprintf(number, "%ui", conf->db);

        p = ngx_cpymem(p, "*2" CRLF "$6" CRLF "SELECT" CRLF,
                       sizeof("*2" CRLF "$6" CRLF "SELECT" CRLF) - 1);
        p = ngx_coord_redis_bulk(p, number, last - number);
    }

    last = ngx_sprintf(pid, "%P", ngx_pid);

    p = ngx_sprintf(p, "*3" CRLF "$6" CRLF "CLIENT" CRLF
                    "$7" CRLF "SETNAME" CRLF
                    "$%uz" CRLF "ngx_coord:%V:%*s" CRLF,
                    sizeof("ngx_coord::") - 1 + conf->store.len
                    + (last - pid),
                    &conf->store, (size_t) (last - pid), pid);

    p = ngx_cpymem(p, NGX_COORD_CONN_INFO, sizeof(NGX_COORD_CONN_INFO) - 1);

    return ngx_cpymem(p, "*1" CRLF "$4" CRLF "TIME" CRLF,
                      sizeof("*1" CRLF "$4" CRLF "TIME" CRLF) - 1);
}


/* the first step from the given one on that was sent to this server */

static ngx_coord_conn_step_e
ngx_coord_redis_conn_step(ngx_coord_redis_conn_t *conn, ngx_uint_t step)
{
    if (step == NGX_COORD_STEP_AUTH
        && conn->endpoint->auth->password.len == 0)
    {
        step = NGX_COORD_STEP_SELECT;
    }

    if (step == NGX_COORD_STEP_SELECT && conn->conf->db == 0) {
        step = NGX_COORD_STEP_NAME;
    }

    return step;
}


static ngx_coord_fail_e
ngx_coord_redis_conn_greeted(ngx_coord_redis_conn_t *conn,
    ngx_coord_resp_value_t *value)
{
    ngx_coord_fail_e  failure;
    ngx_coord_nsec_t  time;

    if (value->type == NGX_COORD_RESP_ERROR) {
        failure = ngx_coord_redis_conn_rejected(conn, value);

        if (failure != NGX_COORD_FAIL_NONE) {
            return failure;
        }

    } else if (conn->step == NGX_COORD_STEP_VERSION) {
        ngx_coord_redis_conn_version(conn, value);

    } else if (conn->step == NGX_COORD_STEP_TIME) {

        if (ngx_coord_redis_time(value, &time) != NGX_OK) {
            goto unexpected;
        }

        ngx_coord_redis_conn_ready(conn, value);

    } else if (value->type != NGX_COORD_RESP_STATUS) {
        goto unexpected;
    }

    conn->step = ngx_coord_redis_conn_step(conn, conn->step + 1);

    return NGX_COORD_FAIL_NONE;

unexpected:

    ngx_coord_redis_conn_log(conn, NGX_COORD_FAIL_PROTOCOL, 0,
                             "unexpected reply in the handshake", NULL);

    return NGX_COORD_FAIL_PROTOCOL;
}


/* what is no version is none: all is tried */

static void
ngx_coord_redis_conn_version(ngx_coord_redis_conn_t *conn,
    ngx_coord_resp_value_t *value)
{
    u_char      *p, *last;
    ngx_int_t    major, minor;
    ngx_uint_t   dots;

    conn->version = 0;

    if (value->type != NGX_COORD_RESP_STRING) {
        return;
    }

    p = ngx_strnstr(value->str.data, NGX_COORD_CONN_VERSION, value->str.len);
    if (p == NULL) {
        return;
    }

    last = value->str.data + value->str.len;
    p += sizeof(NGX_COORD_CONN_VERSION) - 1;

    major = 0;
    minor = 0;

    for (dots = 0; p < last && dots < 2; p++) {

        if (*p == '.') {
            dots++;

        } else if (*p >= '0' && *p <= '9' && minor < 100 && major < 100) {

            if (dots) {
                minor = minor * 10 + (*p - '0');

            } else {
                major = major * 10 + (*p - '0');
            }

        } else {
            break;
        }
    }

    if (dots) {
        conn->version = major * 100 + ngx_min(minor, 99);
    }
}


/* an error reply in the handshake; NONE: one that does not matter */

static ngx_coord_fail_e
ngx_coord_redis_conn_rejected(ngx_coord_redis_conn_t *conn,
    ngx_coord_resp_value_t *value)
{
    u_char                          buf[NGX_COORD_LOG_TEXT];
    ngx_str_t                       reason;
    const char                     *text;
    ngx_coord_fail_e                failure;
    const ngx_coord_redis_error_t  *e;

    e = ngx_coord_redis_error(&value->str);
    reason = ngx_coord_redis_error_text(conn->conf, buf, &value->str);
    failure = e->failure;

    switch (conn->step) {

    case NGX_COORD_STEP_AUTH:
        text = "AUTH failed";

        if (failure == NGX_COORD_FAIL_UNAVAILABLE) {
            break;
        }

        if (ngx_coord_redis_auth_changed(conn)) {
            return NGX_COORD_FAIL_CONNECT;
        }

        failure = NGX_COORD_FAIL_AUTH;
        break;

    case NGX_COORD_STEP_SELECT:
        text = "SELECT failed";
        break;

    case NGX_COORD_STEP_NAME:
    case NGX_COORD_STEP_VERSION:
        text = "connection refused by the server";

        if (!e->close) {
            return NGX_COORD_FAIL_NONE;
        }

        break;

    default:
        text = "TIME failed";
        break;
    }

    ngx_coord_redis_conn_log(conn, failure, 0, text, &reason);

    return failure;
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
        ngx_log_error(conn->again, &conn->log, 0,
                      "coord redis: connected again after %Mms",
                      ngx_current_msec - conn->failed);
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

    for ( ;; ) {
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

        if (failure != NGX_COORD_FAIL_NONE) {
            break;
        }
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
