
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * One connection: addresses, sockets, attempts and what ends them.
 */


#include "ngx_coord_redis_conn.h"


#define NGX_COORD_CONN_BACKOFF       50       /* milliseconds */
#define NGX_COORD_CONN_BACKOFF_MAX   1000
#define NGX_COORD_CONN_BACKOFF_FIND  500      /* there may be a new master */
#define NGX_COORD_CONN_BACKOFF_AUTH  4000
#define NGX_COORD_CONN_DENIED        1000     /* looks for a new password */
#define NGX_COORD_CONN_STABLE        2000     /* lived so long: no back-off */


static void ngx_coord_redis_conn_timer(ngx_event_t *ev);
static ngx_uint_t ngx_coord_redis_conn_due(ngx_coord_redis_conn_t *conn);
static void ngx_coord_redis_conn_locate(ngx_coord_redis_conn_t *conn);
static void ngx_coord_redis_conn_connecting(ngx_coord_redis_conn_t *conn);
static void ngx_coord_redis_conn_try(ngx_coord_redis_conn_t *conn);
static ngx_int_t ngx_coord_redis_conn_open(ngx_coord_redis_conn_t *conn,
    ngx_addr_t *addr);
static void ngx_coord_redis_conn_options(ngx_coord_redis_conn_t *conn,
    ngx_connection_t *c);
static void ngx_coord_redis_conn_refused(ngx_coord_redis_conn_t *conn,
    ngx_err_t err);
static void ngx_coord_redis_conn_secure(ngx_coord_redis_conn_t *conn);
static void ngx_coord_redis_conn_secured(ngx_coord_redis_conn_t *conn,
    ngx_int_t rc);
static void ngx_coord_redis_conn_free(ngx_coord_redis_conn_t *conn);
static void ngx_coord_redis_conn_reset(ngx_coord_redis_conn_t *conn);
static void ngx_coord_redis_conn_drop(ngx_coord_redis_conn_t *conn);
static void ngx_coord_redis_conn_backoff(ngx_coord_redis_conn_t *conn,
    ngx_coord_fail_e failure, ngx_uint_t ready);


ngx_coord_redis_conn_t *
ngx_coord_redis_conn_create(ngx_coord_redis_t *redis,
    ngx_coord_endpoint_t *endpoint,
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

    conn->redis = redis;
    conn->conf = redis->conf;
    conn->endpoint = endpoint;
    conn->located = (endpoint == NULL);
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

    if (conn->member.next != NULL) {
        ngx_queue_remove(&conn->member);
    }

    ngx_free(conn);
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

    const char              *text;

    switch (conn->state) {

    case NGX_COORD_CONN_HANDSHAKE:
        text = "handshake failed";
        break;

    case NGX_COORD_CONN_SECURING:
        text = "TLS handshake failed";
        break;

    case NGX_COORD_CONN_CONNECTING:
        text = "connect() failed";
        break;

    default:

        if (conn->denied && !ngx_coord_redis_conn_due(conn)) {
            ngx_coord_timer_start(&conn->timer, NGX_COORD_CONN_DENIED);
            return;
        }

        ngx_coord_redis_conn_start(conn);
        return;
    }

    ngx_coord_redis_conn_log(conn, NGX_COORD_FAIL_CONNECT, NGX_ETIMEDOUT, text,
                             NULL);

    ngx_coord_redis_conn_close(conn, NGX_COORD_FAIL_CONNECT);
}


/* a server that refuses the password is left alone until there is another */

static ngx_uint_t
ngx_coord_redis_conn_due(ngx_coord_redis_conn_t *conn)
{
    return (ngx_msec_int_t) (conn->retry_at - ngx_current_msec) <= 0
           || ngx_coord_redis_auth_changed(conn);
}


void
ngx_coord_redis_conn_start(ngx_coord_redis_conn_t *conn)
{
    ngx_log_debug1(NGX_LOG_DEBUG_CORE, &conn->log, 0,
                   "coord redis: attempt %ui", conn->attempts + 1);

    if (conn->located) {
        conn->state = NGX_COORD_CONN_FINDING;
        conn->redis->find(conn);
        return;
    }

    ngx_coord_redis_conn_locate(conn);
}


void
ngx_coord_redis_conn_again(ngx_coord_redis_conn_t *conn)
{
    if (conn->state <= NGX_COORD_CONN_STARTING) {
        ngx_coord_timer_stop(&conn->timer);
        ngx_coord_redis_conn_start(conn);
    }
}


void
ngx_coord_redis_conn_soon(ngx_coord_redis_conn_t *conn)
{
    conn->attempts = 0;
    conn->retry_at = ngx_current_msec;

    if (conn->state == NGX_COORD_CONN_DISCONNECTED
        && !ngx_exiting && !ngx_terminate)
    {
        ngx_coord_timer_start(&conn->timer, ngx_random() % 10);
    }
}


void
ngx_coord_redis_conn_found(ngx_coord_redis_conn_t *conn,
    ngx_coord_endpoint_t *endpoint)
{
    if (endpoint == NULL) {
        ngx_coord_redis_conn_close(conn, NGX_COORD_FAIL_CONNECT);
        return;
    }

    ngx_coord_redis_conn_move(conn, endpoint);
    ngx_coord_redis_conn_locate(conn);
}


/* from a name to addresses */

static void
ngx_coord_redis_conn_locate(ngx_coord_redis_conn_t *conn)
{
    if (conn->conf->resolver != NULL && conn->endpoint->named) {
        conn->state = NGX_COORD_CONN_RESOLVING;

        if (ngx_coord_redis_conn_lookup(conn, ngx_coord_redis_conn_connecting)
            == NGX_OK)
        {
            return;
        }
    }

    ngx_coord_redis_conn_connecting(conn);
}


static void
ngx_coord_redis_conn_connecting(ngx_coord_redis_conn_t *conn)
{
    conn->state = NGX_COORD_CONN_CONNECTING;
    conn->tries = conn->nresolved ? conn->nresolved : conn->endpoint->naddrs;

    ngx_coord_timer_start(&conn->timer, conn->conf->connect_timeout);

    ngx_coord_redis_conn_try(conn);
}


static void
ngx_coord_redis_conn_try(ngx_coord_redis_conn_t *conn)
{
    ngx_int_t    rc;
    ngx_uint_t   n;
    ngx_addr_t  *addrs;

    addrs = conn->nresolved ? conn->resolved : conn->endpoint->addrs;
    n = conn->nresolved ? conn->nresolved : conn->endpoint->naddrs;

    while (conn->tries) {
        conn->tries--;

        rc = ngx_coord_redis_conn_open(conn, &addrs[conn->next_addr++ % n]);

        if (rc == NGX_AGAIN) {
            return;
        }

        if (rc == NGX_OK) {
            ngx_coord_redis_conn_secure(conn);
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
        ngx_coord_redis_conn_secure(conn);
        return;
    }

    ngx_coord_redis_conn_refused(conn, err);

    ngx_coord_redis_conn_free(conn);

    ngx_coord_redis_conn_try(conn);
}


/* TLS, where there is to be some, and then Redis */

static void
ngx_coord_redis_conn_secure(ngx_coord_redis_conn_t *conn)
{
    if (conn->endpoint->tls == NULL) {
        ngx_coord_redis_conn_handshake(conn);
        return;
    }

    conn->state = NGX_COORD_CONN_SECURING;

    ngx_coord_redis_tls_start(conn, ngx_coord_redis_conn_secured);
}


static void
ngx_coord_redis_conn_secured(ngx_coord_redis_conn_t *conn, ngx_int_t rc)
{
    ngx_connection_t  *c;

    if (rc != NGX_OK) {
        ngx_coord_redis_conn_close(conn, NGX_COORD_FAIL_CONNECT);
        return;
    }

    c = conn->peer.connection;

    c->read->handler = ngx_coord_redis_conn_read;
    c->write->handler = ngx_coord_redis_conn_write;

    ngx_coord_redis_conn_handshake(conn);
}


void
ngx_coord_redis_conn_move(ngx_coord_redis_conn_t *conn,
    ngx_coord_endpoint_t *endpoint)
{
    if (conn->endpoint == endpoint) {
        return;
    }

    conn->endpoint = endpoint;
    conn->peer.name = NULL;
    conn->next_addr = 0;

    if (conn->resolved != NULL) {
        ngx_free(conn->resolved);
        conn->resolved = NULL;
        conn->nresolved = 0;
    }
}


void
ngx_coord_redis_conn_rest(ngx_coord_redis_conn_t *conn, ngx_msec_t until)
{
    ngx_coord_redis_conn_drop(conn);

    conn->attempts = 0;
    conn->retry_at = until;
}


void
ngx_coord_redis_conn_close(ngx_coord_redis_conn_t *conn,
    ngx_coord_fail_e failure)
{
    ngx_uint_t  ready, doubt;

    ngx_log_debug2(NGX_LOG_DEBUG_CORE, &conn->log, 0,
                   "coord redis: close, state:%d reason:%V", (int) conn->state,
                   &ngx_coord_fail_names[failure]);

    ready = (conn->state == NGX_COORD_CONN_READY);

    /* who is not there may not be the master any more, as others know */

    doubt = (conn->located
             && conn->state >= NGX_COORD_CONN_CONNECTING
             && conn->state < NGX_COORD_CONN_READY
             && failure != NGX_COORD_FAIL_AUTH);

    if (ready && failure != NGX_COORD_FAIL_CONNECT) {
        ngx_coord_redis_conn_reset(conn);
    }

    ngx_coord_redis_conn_drop(conn);
    ngx_coord_redis_conn_backoff(conn, failure, ready);

    if (conn->failed == 0) {
        conn->failed = ngx_max(ngx_current_msec, 1);
    }

    if (doubt) {
        conn->redis->distrust(conn);
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

    if (conn->wait.next != NULL) {
        ngx_queue_remove(&conn->wait);
        conn->wait.next = NULL;
    }

    ngx_coord_timer_stop(&conn->timer);

    if (conn->flush.posted) {
        ngx_delete_posted_event(&conn->flush);
    }

    ngx_coord_redis_conn_free(conn);
    ngx_coord_redis_conn_free_out(conn);

    conn->gathering = 0;
    conn->state = NGX_COORD_CONN_DISCONNECTED;
}


/* the socket, its TLS and its parser */

static void
ngx_coord_redis_conn_free(ngx_coord_redis_conn_t *conn)
{
    ngx_pool_t        *pool;
    ngx_connection_t  *c;

    c = conn->peer.connection;

    if (c != NULL) {
        ngx_coord_redis_tls_end(c);

        pool = c->pool;
        ngx_close_connection(c);
        conn->peer.connection = NULL;

        if (pool != NULL) {
            ngx_destroy_pool(pool);
        }
    }

    if (conn->resp != NULL) {
        ngx_coord_resp_destroy(conn->resp);
        conn->resp = NULL;
    }
}


static void
ngx_coord_redis_conn_backoff(ngx_coord_redis_conn_t *conn,
    ngx_coord_fail_e failure, ngx_uint_t ready)
{
    ngx_msec_t  delay, most;

    if (ready && ngx_current_msec - conn->since > NGX_COORD_CONN_STABLE) {
        conn->attempts = 0;
    }

    conn->denied = (failure == NGX_COORD_FAIL_AUTH);

    if (conn->denied) {
        delay = NGX_COORD_CONN_BACKOFF_AUTH / 2
                + ngx_random() % NGX_COORD_CONN_BACKOFF_AUTH;

    } else if (ready && conn->attempts == 0
               && failure == NGX_COORD_FAIL_CONNECT)
    {
        delay = ngx_random() % 10;

    } else {
        delay = NGX_COORD_CONN_BACKOFF << ngx_min(conn->attempts, 6);
        delay = delay / 2 + ngx_random() % delay;
        most = conn->located ? NGX_COORD_CONN_BACKOFF_FIND
                             : NGX_COORD_CONN_BACKOFF_MAX;
        delay = ngx_min(delay, most);
    }

    conn->attempts++;
    conn->retry_at = ngx_current_msec + delay;

    if (!conn->on_demand && !ngx_exiting && !ngx_terminate) {
        ngx_coord_timer_start(&conn->timer,
                              conn->denied ? NGX_COORD_CONN_DENIED : delay);
    }
}
