
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * One connection: addresses, sockets, attempts and what ends them.
 */


#include "ngx_coord_redis_conn.h"


#define NGX_COORD_CONN_BACKOFF       50       /* milliseconds */
#define NGX_COORD_CONN_BACKOFF_MAX   2000
#define NGX_COORD_CONN_BACKOFF_AUTH  10000
#define NGX_COORD_CONN_STABLE        2000     /* lived so long: no back-off */
#define NGX_COORD_CONN_LOG_SELDOM    60000


static u_char *ngx_coord_redis_conn_log_error(ngx_log_t *log, u_char *buf,
    size_t len);
static void ngx_coord_redis_conn_timer(ngx_event_t *ev);
static ngx_int_t ngx_coord_redis_conn_resolve(ngx_coord_redis_conn_t *conn);
static void ngx_coord_redis_conn_resolved(ngx_resolver_ctx_t *ctx);
static void ngx_coord_redis_conn_keep_addrs(ngx_coord_redis_conn_t *conn,
    ngx_resolver_ctx_t *ctx);
static void ngx_coord_redis_conn_connecting(ngx_coord_redis_conn_t *conn);
static void ngx_coord_redis_conn_try(ngx_coord_redis_conn_t *conn);
static ngx_int_t ngx_coord_redis_conn_open(ngx_coord_redis_conn_t *conn,
    ngx_addr_t *addr);
static void ngx_coord_redis_conn_options(ngx_coord_redis_conn_t *conn,
    ngx_connection_t *c);
static void ngx_coord_redis_conn_refused(ngx_coord_redis_conn_t *conn,
    ngx_err_t err);
static void ngx_coord_redis_conn_reset(ngx_coord_redis_conn_t *conn);
static void ngx_coord_redis_conn_drop(ngx_coord_redis_conn_t *conn);
static void ngx_coord_redis_conn_backoff(ngx_coord_redis_conn_t *conn,
    ngx_coord_fail_e failure, ngx_uint_t ready);


ngx_coord_redis_conn_t *
ngx_coord_redis_conn_create(ngx_coord_redis_t *redis,
    const ngx_coord_conn_actions_t *actions, void *data)
{
    ngx_coord_redis_conn_t  *conn;

    conn = ngx_calloc(sizeof(ngx_coord_redis_conn_t), redis->cycle->log);
    if (conn == NULL) {
        return NULL;
    }

    /*
     * set by ngx_calloc():
     *
     *     conn->state = NGX_COORD_CONN_UNUSED;
     *     conn->peer.connection = NULL;
     *     conn->out = NULL;
     */

    conn->conf = redis->conf;
    conn->limits = &redis->limits;
    conn->actions = actions;
    conn->data = data;

    conn->log = *redis->cycle->log;
    conn->log.handler = ngx_coord_redis_conn_log_error;
    conn->log.data = conn;
    conn->log.action = NULL;
    conn->again = NGX_LOG_NOTICE;
    conn->out_max = NGX_COORD_CONN_OUT_MAX;

    /* connect() errors are logged by us, once a second at most */

    conn->quiet = conn->log;

    if (conn->quiet.log_level < NGX_LOG_DEBUG) {
        conn->quiet.log_level = NGX_LOG_ALERT;
    }

    ngx_coord_timer_init(&conn->timer, ngx_coord_redis_conn_timer, conn,
                         &conn->log);
    conn->timer.event.cancelable = 1;

    conn->flush.handler = ngx_coord_redis_conn_flush;
    conn->flush.data = conn;
    conn->flush.log = &conn->log;

    conn->retry_at = ngx_current_msec;

    return conn;
}


void
ngx_coord_redis_conn_destroy(ngx_coord_redis_conn_t *conn)
{
    ssize_t            n;
    u_char             buf[4096];
    ngx_uint_t         i;
    ngx_connection_t  *c;

    c = conn->peer.connection;

    if (c != NULL && conn->state == NGX_COORD_CONN_READY) {

        if (conn->out_pos != conn->out_last) {
            (void) c->send(c, conn->out_pos, conn->out_last - conn->out_pos);
        }

        /* closing with unread input resets, and could undo the last write */

        c->read->ready = 1;

        for (i = 0; i < 64 && c->read->ready; i++) {
            n = c->recv(c, buf, sizeof(buf));

            if (n <= 0) {
                break;
            }
        }

        (void) ngx_shutdown_socket(c->fd, NGX_WRITE_SHUTDOWN);
    }

    ngx_coord_redis_conn_drop(conn);

    if (conn->resolved != NULL) {
        ngx_free(conn->resolved);
    }

    ngx_free(conn);
}


static u_char *
ngx_coord_redis_conn_log_error(ngx_log_t *log, u_char *buf, size_t len)
{
    u_char                  *p;
    ngx_coord_redis_conn_t  *conn;

    p = buf;
    conn = log->data;

    if (log->action) {
        p = ngx_snprintf(buf, len, " while %s", log->action);
        len -= p - buf;
        buf = p;
    }

    p = ngx_snprintf(buf, len, ", coord store: \"%V\"", &conn->conf->store);
    len -= p - buf;
    buf = p;

    if (conn->peer.name != NULL) {
        p = ngx_snprintf(buf, len, ", server: %V", conn->peer.name);
    }

    return p;
}


void
ngx_coord_redis_conn_log(ngx_coord_redis_conn_t *conn,
    ngx_coord_fail_e failure, ngx_err_t err, const char *text,
    ngx_str_t *detail)
{
    u_char                    *p, more[NGX_INT_T_LEN + sizeof(",  more")];
    ngx_msec_t                 interval;
    ngx_uint_t                 n, level;
    ngx_coord_redis_limits_t  *limits;

    limits = conn->limits;

    level = NGX_LOG_ERR;
    interval = NGX_COORD_LOG_INTERVAL;

    if (failure == NGX_COORD_FAIL_AUTH) {
        level = NGX_LOG_EMERG;
        interval = NGX_COORD_CONN_LOG_SELDOM;

    } else if (conn->failed && limits->text[failure] == text) {

        /* the same as of the attempt before: its end is told, too */

        interval = NGX_COORD_CONN_LOG_SELDOM;
    }

    n = ngx_coord_log_due(&limits->lines[failure], interval);

    if (n == 0) {
        return;
    }

    limits->text[failure] = text;

    p = more;

    if (n > 1) {
        p = ngx_sprintf(more, ", %ui more", n - 1);
    }

    if (detail != NULL) {
        ngx_log_error(level, &conn->log, err, "coord redis: %s: %V%*s", text,
                      detail, (size_t) (p - more), more);
        return;
    }

    ngx_log_error(level, &conn->log, err, "coord redis: %s%*s", text,
                  (size_t) (p - more), more);
}


void
ngx_coord_redis_conn_connect(ngx_coord_redis_conn_t *conn)
{
    ngx_msec_int_t  delay;

    if (conn->state == NGX_COORD_CONN_UNUSED) {
        conn->state = NGX_COORD_CONN_STARTING;
        ngx_coord_timer_start(&conn->timer, 0);
        return;
    }

    if (conn->state != NGX_COORD_CONN_DISCONNECTED
        || conn->timer.event.timer_set)
    {
        return;
    }

    delay = (ngx_msec_int_t) (conn->retry_at - ngx_current_msec);

    ngx_coord_timer_start(&conn->timer, ngx_max(delay, 0));
}


static void
ngx_coord_redis_conn_timer(ngx_event_t *ev)
{
    ngx_coord_redis_conn_t  *conn = ngx_coord_timer_data(ev);

    if (conn->state <= NGX_COORD_CONN_STARTING) {
        ngx_coord_redis_conn_start(conn);
        return;
    }

    ngx_coord_redis_conn_log(conn, NGX_COORD_FAIL_CONNECT, NGX_ETIMEDOUT,
                             conn->state == NGX_COORD_CONN_HANDSHAKE
                             ? "handshake failed" : "connect() failed", NULL);

    ngx_coord_redis_conn_close(conn, NGX_COORD_FAIL_CONNECT);
}


void
ngx_coord_redis_conn_start(ngx_coord_redis_conn_t *conn)
{
    ngx_log_debug1(NGX_LOG_DEBUG_CORE, &conn->log, 0,
                   "coord redis: attempt %ui", conn->attempts + 1);

    if (conn->conf->resolver != NULL && conn->conf->host.len) {
        conn->state = NGX_COORD_CONN_RESOLVING;

        if (ngx_coord_redis_conn_resolve(conn) == NGX_OK) {
            return;
        }
    }

    ngx_coord_redis_conn_connecting(conn);
}


static ngx_int_t
ngx_coord_redis_conn_resolve(ngx_coord_redis_conn_t *conn)
{
    ngx_resolver_ctx_t  *ctx, temp;

    ngx_memzero(&temp, sizeof(ngx_resolver_ctx_t));
    temp.name = conn->conf->host;

    ctx = ngx_resolve_start(conn->conf->resolver, &temp);

    if (ctx == NULL || ctx == NGX_NO_RESOLVER) {
        return NGX_ERROR;
    }

    ctx->name = conn->conf->host;
    ctx->handler = ngx_coord_redis_conn_resolved;
    ctx->data = conn;
    ctx->timeout = conn->conf->resolver_timeout;
    ctx->cancelable = 1;

    conn->resolving = ctx;

    /* may call the handler at once: touch nothing after NGX_OK */

    if (ngx_resolve_name(ctx) != NGX_OK) {
        conn->resolving = NULL;
        return NGX_ERROR;
    }

    return NGX_OK;
}


static void
ngx_coord_redis_conn_resolved(ngx_resolver_ctx_t *ctx)
{
    ngx_str_t                reason;
    ngx_coord_redis_conn_t  *conn;

    conn = ctx->data;

    if (ctx->state == NGX_OK && ctx->naddrs) {
        ngx_coord_redis_conn_keep_addrs(conn, ctx);

    } else {
        reason.data = (u_char *) ngx_resolver_strerror(ctx->state);
        reason.len = ngx_strlen(reason.data);

        ngx_coord_redis_conn_log(conn, NGX_COORD_FAIL_CONNECT, 0,
                                 "host name could not be resolved", &reason);
    }

    conn->resolving = NULL;
    ngx_resolve_name_done(ctx);

    ngx_coord_redis_conn_connecting(conn);
}


/* copies what was resolved; without memory the last good addresses stay */

static void
ngx_coord_redis_conn_keep_addrs(ngx_coord_redis_conn_t *conn,
    ngx_resolver_ctx_t *ctx)
{
    u_char          *text;
    ngx_uint_t       i, n;
    ngx_addr_t      *addrs;
    ngx_sockaddr_t  *sa;

    n = ctx->naddrs;

    addrs = ngx_calloc(n * (sizeof(ngx_addr_t) + sizeof(ngx_sockaddr_t)
                            + NGX_SOCKADDR_STRLEN), &conn->log);
    if (addrs == NULL) {
        return;
    }

    sa = (ngx_sockaddr_t *) &addrs[n];
    text = (u_char *) &sa[n];

    for (i = 0; i < n; i++) {
        ngx_memcpy(&sa[i], ctx->addrs[i].sockaddr, ctx->addrs[i].socklen);
        ngx_inet_set_port(&sa[i].sockaddr, conn->conf->port);

        addrs[i].sockaddr = &sa[i].sockaddr;
        addrs[i].socklen = ctx->addrs[i].socklen;
        addrs[i].name.data = text;
        addrs[i].name.len = ngx_sock_ntop(&sa[i].sockaddr, addrs[i].socklen,
                                          text, NGX_SOCKADDR_STRLEN, 1);

        text += NGX_SOCKADDR_STRLEN;
    }

    /* the name in the log context may point into the old ones */

    conn->peer.name = NULL;

    if (conn->resolved != NULL) {
        ngx_free(conn->resolved);
    }

    conn->resolved = addrs;
    conn->nresolved = n;
}


static void
ngx_coord_redis_conn_connecting(ngx_coord_redis_conn_t *conn)
{
    conn->state = NGX_COORD_CONN_CONNECTING;
    conn->tries = conn->nresolved ? conn->nresolved : conn->conf->naddrs;

    ngx_coord_timer_start(&conn->timer, conn->conf->connect_timeout);

    ngx_coord_redis_conn_try(conn);
}


static void
ngx_coord_redis_conn_try(ngx_coord_redis_conn_t *conn)
{
    ngx_int_t    rc;
    ngx_uint_t   n;
    ngx_addr_t  *addrs;

    addrs = conn->nresolved ? conn->resolved : conn->conf->addrs;
    n = conn->nresolved ? conn->nresolved : conn->conf->naddrs;

    while (conn->tries) {
        conn->tries--;

        rc = ngx_coord_redis_conn_open(conn, &addrs[conn->next_addr++ % n]);

        if (rc == NGX_AGAIN) {
            return;
        }

        if (rc == NGX_OK) {
            ngx_coord_redis_conn_handshake(conn);
            return;
        }
    }

    ngx_coord_redis_conn_close(conn, NGX_COORD_FAIL_CONNECT);
}


/* NGX_OK: connected; NGX_AGAIN: in progress; NGX_ERROR: no connection */

static ngx_int_t
ngx_coord_redis_conn_open(ngx_coord_redis_conn_t *conn, ngx_addr_t *addr)
{
    ngx_int_t               rc;
    ngx_connection_t       *c;
    ngx_peer_connection_t  *pc;

    pc = &conn->peer;

    ngx_memzero(pc, sizeof(ngx_peer_connection_t));

    pc->sockaddr = addr->sockaddr;
    pc->socklen = addr->socklen;
    pc->name = &addr->name;
    pc->get = ngx_event_get_peer;
    pc->log = &conn->quiet;
    pc->log_error = NGX_ERROR_INFO;
    pc->so_keepalive = 1;

    ngx_set_errno(0);

    rc = ngx_event_connect_peer(pc);

    if (rc != NGX_OK && rc != NGX_AGAIN) {
        ngx_coord_redis_conn_refused(conn, ngx_socket_errno);
        pc->connection = NULL;
        return NGX_ERROR;
    }

    c = pc->connection;

    c->data = conn;
    c->log = &conn->log;
    c->read->log = c->log;
    c->write->log = c->log;
    c->read->handler = ngx_coord_redis_conn_read;
    c->write->handler = ngx_coord_redis_conn_write;

    ngx_coord_redis_conn_options(conn, c);

    conn->resp = ngx_coord_resp_create(conn->conf->max_reply
                                       + NGX_COORD_CONN_READ_SIZE, c->log);
    if (conn->resp == NULL) {
        ngx_close_connection(c);
        pc->connection = NULL;
        return NGX_ERROR;
    }

    return rc;
}


static void
ngx_coord_redis_conn_options(ngx_coord_redis_conn_t *conn, ngx_connection_t *c)
{
    int  value;

    (void) fcntl(c->fd, F_SETFD, FD_CLOEXEC);

    if (conn->peer.sockaddr->sa_family == AF_UNIX) {
        return;
    }

    (void) ngx_tcp_nodelay(c);

#if (NGX_HAVE_KEEPALIVE_TUNABLE)

    value = 30;
    (void) setsockopt(c->fd, IPPROTO_TCP, TCP_KEEPIDLE, &value, sizeof(int));

    value = 10;
    (void) setsockopt(c->fd, IPPROTO_TCP, TCP_KEEPINTVL, &value, sizeof(int));

    value = 3;
    (void) setsockopt(c->fd, IPPROTO_TCP, TCP_KEEPCNT, &value, sizeof(int));

#endif

#ifdef TCP_USER_TIMEOUT

    /* data that nobody acknowledges: keepalive alone would not notice */

    value = ngx_max(conn->conf->timeout * 10, 5000);
    (void) setsockopt(c->fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &value,
                      sizeof(int));

#endif

    (void) value;
}


static void
ngx_coord_redis_conn_refused(ngx_coord_redis_conn_t *conn, ngx_err_t err)
{
    if (conn->tries) {
        ngx_log_error(NGX_LOG_INFO, &conn->log, err,
                      "coord redis: connect() failed, trying another address");
        return;
    }

    ngx_coord_redis_conn_log(conn, NGX_COORD_FAIL_CONNECT, err,
                             "connect() failed", NULL);
}


void
ngx_coord_redis_conn_established(ngx_coord_redis_conn_t *conn)
{
    int                err;
    socklen_t          len;
    ngx_connection_t  *c;

    c = conn->peer.connection;

    err = 0;
    len = sizeof(int);

    if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, (void *) &err, &len) == -1) {
        err = ngx_socket_errno;
    }

    if (err == 0) {
        ngx_coord_redis_conn_handshake(conn);
        return;
    }

    ngx_coord_redis_conn_refused(conn, err);

    ngx_close_connection(c);
    conn->peer.connection = NULL;

    ngx_coord_resp_destroy(conn->resp);
    conn->resp = NULL;

    ngx_coord_redis_conn_try(conn);
}


void
ngx_coord_redis_conn_close(ngx_coord_redis_conn_t *conn,
    ngx_coord_fail_e failure)
{
    ngx_uint_t  ready;

    ngx_log_debug2(NGX_LOG_DEBUG_CORE, &conn->log, 0,
                   "coord redis: close, state:%d reason:%V", (int) conn->state,
                   &ngx_coord_fail_names[failure]);

    ready = (conn->state == NGX_COORD_CONN_READY);

    if (ready && failure != NGX_COORD_FAIL_CONNECT) {
        ngx_coord_redis_conn_reset(conn);
    }

    ngx_coord_redis_conn_drop(conn);
    ngx_coord_redis_conn_backoff(conn, failure, ready);

    if (conn->failed == 0) {
        conn->failed = ngx_max(ngx_current_msec, 1);
    }

    conn->actions->closed(conn, failure, ready);
}


/* what the server has not taken yet is not to be executed later */

static void
ngx_coord_redis_conn_reset(ngx_coord_redis_conn_t *conn)
{
    struct linger  linger;

    linger.l_onoff = 1;
    linger.l_linger = 0;

    (void) setsockopt(conn->peer.connection->fd, SOL_SOCKET, SO_LINGER,
                      (const void *) &linger, sizeof(struct linger));
}


/* frees all that belongs to an attempt or a connection */

static void
ngx_coord_redis_conn_drop(ngx_coord_redis_conn_t *conn)
{
    if (conn->resolving != NULL) {
        ngx_resolve_name_done(conn->resolving);
        conn->resolving = NULL;
    }

    ngx_coord_timer_stop(&conn->timer);

    if (conn->flush.posted) {
        ngx_delete_posted_event(&conn->flush);
    }

    if (conn->peer.connection != NULL) {
        ngx_close_connection(conn->peer.connection);
        conn->peer.connection = NULL;
    }

    if (conn->resp != NULL) {
        ngx_coord_resp_destroy(conn->resp);
        conn->resp = NULL;
    }

    ngx_coord_redis_conn_free_out(conn);

    conn->gathering = 0;
    conn->state = NGX_COORD_CONN_DISCONNECTED;
}


static void
ngx_coord_redis_conn_backoff(ngx_coord_redis_conn_t *conn,
    ngx_coord_fail_e failure, ngx_uint_t ready)
{
    ngx_msec_t  delay;

    if (ready && ngx_current_msec - conn->since > NGX_COORD_CONN_STABLE) {
        conn->attempts = 0;
    }

    if (failure == NGX_COORD_FAIL_AUTH) {
        delay = NGX_COORD_CONN_BACKOFF_AUTH / 2
                + ngx_random() % NGX_COORD_CONN_BACKOFF_AUTH;

    } else if (ready && conn->attempts == 0
               && failure == NGX_COORD_FAIL_CONNECT)
    {
        delay = ngx_random() % 10;

    } else {
        delay = NGX_COORD_CONN_BACKOFF << ngx_min(conn->attempts, 6);
        delay = delay / 2 + ngx_random() % delay;
        delay = ngx_min(delay, NGX_COORD_CONN_BACKOFF_MAX);
    }

    conn->attempts++;
    conn->retry_at = ngx_current_msec + delay;

    if (!ngx_exiting && !ngx_terminate) {
        ngx_coord_timer_start(&conn->timer, delay);
    }
}
