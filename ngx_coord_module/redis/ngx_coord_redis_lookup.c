
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The addresses of an endpoint.
 */


#include "ngx_coord_redis_conn.h"


static void ngx_coord_redis_conn_resolved(ngx_resolver_ctx_t *ctx);
static void ngx_coord_redis_conn_keep_addrs(ngx_coord_redis_conn_t *conn,
    ngx_resolver_ctx_t *ctx);


ngx_int_t
ngx_coord_redis_conn_lookup(ngx_coord_redis_conn_t *conn,
    ngx_coord_conn_handler_pt handler)
{
    ngx_resolver_ctx_t  *ctx, temp;

    ngx_memzero(&temp, sizeof(ngx_resolver_ctx_t));
    temp.name = conn->endpoint->host;

    ctx = ngx_resolve_start(conn->conf->resolver, &temp);

    if (ctx == NULL || ctx == NGX_NO_RESOLVER) {
        return NGX_ERROR;
    }

    ctx->name = conn->endpoint->host;
    ctx->handler = ngx_coord_redis_conn_resolved;
    ctx->data = conn;
    ctx->timeout = conn->conf->resolver_timeout;
    ctx->cancelable = 1;

    if (conn->nresolved) {
        /* there is somewhere to go without an answer */
        ctx->timeout = ngx_min(ctx->timeout, conn->conf->connect_timeout);
    }

    conn->resolving = ctx;
    conn->looked_up = handler;

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

    conn->looked_up(conn);
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
        ngx_inet_set_port(&sa[i].sockaddr, conn->endpoint->port);

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


ngx_int_t
ngx_coord_endpoint_addr(ngx_str_t *host, in_port_t port, ngx_sockaddr_t *sa,
    u_char *text, ngx_addr_t *addr)
{
    in_addr_t  inaddr;

    ngx_memzero(sa, sizeof(ngx_sockaddr_t));

    inaddr = ngx_inet_addr(host->data, host->len);

    if (inaddr != INADDR_NONE) {
        sa->sockaddr_in.sin_family = AF_INET;
        sa->sockaddr_in.sin_addr.s_addr = inaddr;
        addr->socklen = sizeof(struct sockaddr_in);

#if (NGX_HAVE_INET6)

    } else if (ngx_inet6_addr(host->data, host->len,
                              sa->sockaddr_in6.sin6_addr.s6_addr)
               == NGX_OK)
    {
        sa->sockaddr_in6.sin6_family = AF_INET6;
        addr->socklen = sizeof(struct sockaddr_in6);

#endif

    } else {
        return NGX_DECLINED;
    }

    addr->sockaddr = &sa->sockaddr;
    ngx_inet_set_port(addr->sockaddr, port);

    addr->name.data = text;
    addr->name.len = ngx_sock_ntop(addr->sockaddr, addr->socklen, text,
                                   NGX_SOCKADDR_STRLEN, 1);

    return NGX_OK;
}
