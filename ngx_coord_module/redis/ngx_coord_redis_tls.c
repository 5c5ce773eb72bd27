
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * TLS of a connection, by nginx's own means.  Certificate and name are checked
 * within the handshake, by OpenSSL: one that fails ends it, so that neither a
 * certificate of ours nor a password ever leaves for the wrong server.
 */


#include "ngx_coord_redis_conn.h"


#if (NGX_SSL)


static ngx_int_t ngx_coord_redis_tls_create(ngx_coord_redis_conn_t *conn,
    ngx_connection_t *c);
static ngx_int_t ngx_coord_redis_tls_name(ngx_coord_redis_conn_t *conn,
    ngx_connection_t *c);
static void ngx_coord_redis_tls_handler(ngx_connection_t *c);
static ngx_int_t ngx_coord_redis_tls_shaken(ngx_coord_redis_conn_t *conn,
    ngx_connection_t *c);
static void ngx_coord_redis_tls_save(ngx_connection_t *c);
static void ngx_coord_redis_tls_told(ngx_log_t *log, ngx_uint_t level,
    u_char *buf, size_t len);


void
ngx_coord_redis_tls_start(ngx_coord_redis_conn_t *conn,
    ngx_coord_conn_secured_pt handler)
{
    ngx_int_t          rc;
    ngx_connection_t  *c;

    c = conn->peer.connection;

    conn->secured = handler;

    if (ngx_coord_redis_tls_create(conn, c) != NGX_OK) {
        ngx_coord_redis_conn_log(conn, NGX_COORD_FAIL_CONNECT, 0,
                                 "TLS cannot be set up",
                                 ngx_coord_redis_tls_reason(conn));
        handler(conn, NGX_ERROR);
        return;
    }

    rc = ngx_ssl_handshake(c);

    if (rc == NGX_AGAIN) {
        c->ssl->handler = ngx_coord_redis_tls_handler;
        return;
    }

    ngx_coord_redis_tls_handler(c);
}


static ngx_int_t
ngx_coord_redis_tls_create(ngx_coord_redis_conn_t *conn, ngx_connection_t *c)
{
    conn->reason.len = 0;

    /* what OpenSSL says is told by us, once a second at most */

    if (conn->log.log_level < NGX_LOG_DEBUG) {
        conn->told = conn->log;
        conn->told.log_level = NGX_LOG_INFO;
        conn->told.connection = 0;
        conn->told.handler = NULL;
        conn->told.next = NULL;
        conn->told.writer = ngx_coord_redis_tls_told;
        conn->told.wdata = conn;

        c->log = &conn->told;
    }

    c->pool = ngx_create_pool(1024, &conn->log);
    if (c->pool == NULL) {
        return NGX_ERROR;
    }

    if (ngx_ssl_create_connection(conn->endpoint->tls->ssl, c,
                                  NGX_SSL_BUFFER|NGX_SSL_CLIENT)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    /* a record that waits for the socket may move with the output */

    SSL_set_mode(c->ssl->connection, SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);

    if (ngx_coord_redis_tls_name(conn, c) != NGX_OK) {
        return NGX_ERROR;
    }

    /* a server may send more sessions while the connection is used */

    c->ssl->save_session = ngx_coord_redis_tls_save;

    return ngx_ssl_set_session(c, conn->endpoint->session);
}


/* the name to ask for, and to find in the certificate */

static ngx_int_t
ngx_coord_redis_tls_name(ngx_coord_redis_conn_t *conn, ngx_connection_t *c)
{
    char               *name;
    ngx_str_t          *s;
    ngx_uint_t          address;
    ngx_coord_tls_t    *tls;
    struct in6_addr     in6;
    X509_VERIFY_PARAM  *param;

    tls = conn->endpoint->tls;

    s = tls->name.len ? &tls->name : &conn->endpoint->host;
    name = (char *) s->data;

    address = ngx_inet_addr(s->data, s->len) != INADDR_NONE
              || inet_pton(AF_INET6, name, &in6) == 1;

    if (!address && SSL_set_tlsext_host_name(c->ssl->connection, name) == 0) {
        return NGX_ERROR;
    }

    if (!tls->verify) {
        return NGX_OK;
    }

    param = SSL_get0_param(c->ssl->connection);

    if (address) {
        return X509_VERIFY_PARAM_set1_ip_asc(param, name) == 1 ? NGX_OK
                                                               : NGX_ERROR;
    }

    X509_VERIFY_PARAM_set_hostflags(param,
                                    X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);

    return X509_VERIFY_PARAM_set1_host(param, name, s->len) == 1 ? NGX_OK
                                                                 : NGX_ERROR;
}


static void
ngx_coord_redis_tls_handler(ngx_connection_t *c)
{
    ngx_coord_redis_conn_t *conn = c->data;

    conn->secured(conn, ngx_coord_redis_tls_shaken(conn, c));
}


static ngx_int_t
ngx_coord_redis_tls_shaken(ngx_coord_redis_conn_t *conn, ngx_connection_t *c)
{
    long       rc;
    ngx_str_t  reason;

    if (c->ssl->handshaked) {
        ngx_log_debug2(NGX_LOG_DEBUG_CORE, &conn->log, 0,
                       "coord redis: TLS %s, resumed:%d",
                       SSL_get_version(c->ssl->connection),
                       SSL_session_reused(c->ssl->connection));
        return NGX_OK;
    }

    rc = SSL_get_verify_result(c->ssl->connection);

    if (conn->endpoint->tls->verify && rc != X509_V_OK) {
        reason.data = (u_char *) X509_verify_cert_error_string(rc);
        reason.len = ngx_strlen(reason.data);

        ngx_coord_redis_conn_log(conn, NGX_COORD_FAIL_CONNECT, 0,
                                 "certificate of the server refused",
                                 &reason);
        return NGX_ERROR;
    }

    ngx_coord_redis_conn_log(conn, NGX_COORD_FAIL_CONNECT, 0,
                             "TLS handshake failed",
                             ngx_coord_redis_tls_reason(conn));

    return NGX_ERROR;
}


static void
ngx_coord_redis_tls_save(ngx_connection_t *c)
{
    ngx_ssl_session_t       *session;
    ngx_coord_endpoint_t    *endpoint;
    ngx_coord_redis_conn_t  *conn;

    conn = c->data;
    endpoint = conn->endpoint;

    session = ngx_ssl_get_session(c);

    if (session != NULL) {
        ngx_coord_redis_tls_forget(endpoint);
        endpoint->session = session;
    }
}


void
ngx_coord_redis_tls_forget(ngx_coord_endpoint_t *endpoint)
{
    if (endpoint->session != NULL) {
        ngx_ssl_free_session(endpoint->session);
        endpoint->session = NULL;
    }
}


void
ngx_coord_redis_tls_refused(ngx_coord_redis_conn_t *conn)
{
    u_char             buf[1];
    ngx_connection_t  *c;

    c = conn->peer.connection;

    if (c->ssl != NULL && conn->state == NGX_COORD_CONN_HANDSHAKE) {
        (void) c->recv(c, buf, 1);
    }
}


void
ngx_coord_redis_tls_end(ngx_connection_t *c)
{
    if (c->ssl != NULL) {
        c->ssl->no_wait_shutdown = 1;
        c->ssl->no_send_shutdown = 1;

        (void) ngx_ssl_shutdown(c);
    }
}


/* a log of its own: keeps the text of a message, without what is before it */

static void
ngx_coord_redis_tls_told(ngx_log_t *log, ngx_uint_t level, u_char *buf,
    size_t len)
{
    u_char                  *p, *last;
    ngx_str_t                text;
    ngx_coord_redis_conn_t  *conn;

    conn = log->wdata;
    last = buf + len;

    /* date, level, "pid#tid: " */

    p = ngx_strlchr(buf, last, '#');
    p = p ? ngx_strlchr(p, last, ' ') : NULL;

    text.data = p ? p + 1 : buf;
    text.len = last - text.data;

    while (text.len && text.data[text.len - 1] <= ' ') {
        text.len--;
    }

    conn->reason = ngx_coord_log_text(conn->text, &text);
}


ngx_str_t *
ngx_coord_redis_tls_reason(ngx_coord_redis_conn_t *conn)
{
    return conn->reason.len ? &conn->reason : NULL;
}


#else


void
ngx_coord_redis_tls_start(ngx_coord_redis_conn_t *conn,
    ngx_coord_conn_secured_pt handler)
{
    handler(conn, NGX_ERROR);
}


void
ngx_coord_redis_tls_refused(ngx_coord_redis_conn_t *conn)
{
    /* there is none */
}


void
ngx_coord_redis_tls_end(ngx_connection_t *c)
{
    /* there is none */
}


void
ngx_coord_redis_tls_forget(ngx_coord_endpoint_t *endpoint)
{
    /* there is none */
}


ngx_str_t *
ngx_coord_redis_tls_reason(ngx_coord_redis_conn_t *conn)
{
    return NULL;
}


#endif
