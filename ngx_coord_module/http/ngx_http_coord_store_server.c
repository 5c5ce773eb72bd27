
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The line "server" of coord_store: URLs, and the lookup of host names.
 */


#include "ngx_http_coord.h"
#include "ngx_http_coord_store_conf.h"


#define NGX_HTTP_COORD_RESOLVER_TIMEOUT  30000
#define NGX_HTTP_COORD_SENTINEL_PORT     26379

#define NGX_HTTP_COORD_NOT_UPSTREAM                                           \
    ", a store does not use \"upstream\" of that name, "                      \
    "write the address of the server, like \"redis://10.0.0.5:6379\","


static ngx_int_t ngx_http_coord_url_tcp(ngx_conf_t *cf,
    ngx_coord_store_t *store, ngx_http_coord_server_conf_t *server,
    ngx_str_t *rest);
static ngx_int_t ngx_http_coord_url_host(ngx_conf_t *cf,
    ngx_coord_store_t *store, ngx_http_coord_server_conf_t *server,
    ngx_str_t *host);
static ngx_int_t ngx_http_coord_resolve(ngx_conf_t *cf,
    ngx_coord_store_t *store, ngx_http_coord_server_conf_t *server);
static ngx_uint_t ngx_http_coord_is_upstream(ngx_conf_t *cf, ngx_str_t *host);
static ngx_int_t ngx_http_coord_url_unix(ngx_conf_t *cf,
    ngx_coord_store_t *store, ngx_http_coord_server_conf_t *server,
    ngx_str_t *url);
static ngx_int_t ngx_http_coord_url_user(ngx_conf_t *cf,
    ngx_coord_store_t *store, ngx_http_coord_server_conf_t *server,
    ngx_str_t *user);
static ngx_int_t ngx_http_coord_url_db(ngx_conf_t *cf,
    ngx_coord_store_t *store, ngx_http_coord_server_conf_t *server,
    ngx_str_t *db);
static ngx_int_t ngx_http_coord_unescape(ngx_conf_t *cf,
    ngx_coord_store_t *store, ngx_str_t *dst, u_char *data, size_t len);
static ngx_int_t ngx_http_coord_server_resolve(ngx_conf_t *cf,
    ngx_coord_store_t *store, ngx_http_coord_server_conf_t *server);


/* a line "server" without a user */
static ngx_coord_auth_t  ngx_http_coord_nobody;


char *
ngx_http_coord_store_server(ngx_conf_t *cf, ngx_coord_store_t *store,
    ngx_str_t *value, void *data)
{
    ngx_int_t                      rc;
    ngx_str_t                      rest;
    ngx_http_coord_store_conf_t   *scf;
    ngx_http_coord_server_conf_t  *server, **servers;

    scf = (ngx_http_coord_store_conf_t *) store;

    server = ngx_pcalloc(cf->pool, sizeof(ngx_http_coord_server_conf_t));
    servers = ngx_array_push(&scf->servers);

    if (server == NULL || servers == NULL) {
        return NGX_CONF_ERROR;
    }

    *servers = server;

    server->file = cf->conf_file->file.name.data;
    server->line = cf->conf_file->line;
    server->endpoint.auth = &ngx_http_coord_nobody;

    if (ngx_http_coord_param(&value[1], "redis://", &rest)) {
        rc = ngx_http_coord_url_tcp(cf, store, server, &rest);

    } else if (ngx_http_coord_param(&value[1], "rediss://", &rest)) {
        server->tls = 1;
        rc = ngx_http_coord_url_tcp(cf, store, server, &rest);

    } else if (ngx_http_coord_param(&value[1], "unix:", &rest)) {
        rc = ngx_http_coord_url_unix(cf, store, server, &value[1]);

    } else {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid server of store \"%V\": it must begin "
                           "with \"redis://\", \"rediss://\" or \"unix:\"",
                           &store->name);
        return NGX_CONF_ERROR;
    }

    return (rc == NGX_OK) ? NGX_CONF_OK : NGX_CONF_ERROR;
}


/* redis://[user:password@]host[:port][/db] */

static ngx_int_t
ngx_http_coord_url_tcp(ngx_conf_t *cf, ngx_coord_store_t *store,
    ngx_http_coord_server_conf_t *server, ngx_str_t *rest)
{
    u_char     *p, *last, *at;
    ngx_str_t   user, db, host;

    p = rest->data;
    last = rest->data + rest->len;
    at = NULL;

    for (db.data = p; db.data < last; db.data++) {
        if (*db.data == '@') {
            at = db.data;
        }
    }

    if (at) {
        user.data = p;
        user.len = at - p;
        p = at + 1;

        if (ngx_http_coord_url_user(cf, store, server, &user) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    db.data = ngx_strlchr(p, last, '/');

    if (db.data) {
        db.data++;
        db.len = last - db.data;
        last = db.data - 1;

        if (db.len
            && ngx_http_coord_url_db(cf, store, server, &db) != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    host.data = p;
    host.len = last - p;

    return ngx_http_coord_url_host(cf, store, server, &host);
}


static ngx_int_t
ngx_http_coord_url_host(ngx_conf_t *cf, ngx_coord_store_t *store,
    ngx_http_coord_server_conf_t *server, ngx_str_t *host)
{
    u_char                *p;
    ngx_str_t              name;
    ngx_url_t              u;
    ngx_coord_endpoint_t  *endpoint;

    endpoint = &server->endpoint;

    ngx_memzero(&u, sizeof(ngx_url_t));

    u.url = *host;
    u.default_port = 6379;
    u.no_resolve = 1;

    if (ngx_parse_url(cf->pool, &u) != NGX_OK) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "%s in server \"%V\" of store \"%V\"",
                           u.err ? u.err : "no address", &u.url, &store->name);
        return NGX_ERROR;
    }

    name = u.host;

    /* the brackets of IPv6 are of the URL, not of the address */

    if (name.len > 1 && name.data[0] == '[') {
        name.data++;
        name.len -= 2;
    }

    endpoint->port = u.port;
    server->no_port = u.no_port;

    p = ngx_pnalloc(cf->pool, name.len + 1);
    if (p == NULL) {
        return NGX_ERROR;
    }

    endpoint->host.data = p;
    endpoint->host.len = name.len;

    p = ngx_cpymem(p, name.data, name.len);
    *p = '\0';

    return NGX_OK;
}


/* an address needs no looking up; a name may be for the resolver */

ngx_int_t
ngx_http_coord_store_server_addr(ngx_conf_t *cf,
    ngx_http_coord_server_conf_t *server, ngx_coord_store_conf_t *conf)
{
    u_char                *text;
    ngx_addr_t            *addr;
    ngx_sockaddr_t        *sa;
    ngx_coord_endpoint_t  *endpoint;

    endpoint = &server->endpoint;

    if (endpoint->host.len == 0) {
        return NGX_OK;
    }

    if (server->no_port && conf->mode == NGX_COORD_MODE_SENTINEL) {
        endpoint->port = NGX_HTTP_COORD_SENTINEL_PORT;
    }

    addr = ngx_palloc(cf->pool, sizeof(ngx_addr_t));
    sa = ngx_palloc(cf->pool, sizeof(ngx_sockaddr_t));
    text = ngx_pnalloc(cf->pool, NGX_SOCKADDR_STRLEN);

    if (addr == NULL || sa == NULL || text == NULL) {
        return NGX_ERROR;
    }

    if (ngx_coord_endpoint_addr(&endpoint->host, endpoint->port, sa, text,
                                addr)
        != NGX_OK)
    {
        endpoint->named = 1;
        return NGX_OK;
    }

    endpoint->addrs = addr;
    endpoint->naddrs = 1;

    return NGX_OK;
}


/* looks the addresses up, as proxy_pass does at start */

static ngx_int_t
ngx_http_coord_resolve(ngx_conf_t *cf, ngx_coord_store_t *store,
    ngx_http_coord_server_conf_t *server)
{
    ngx_url_t              u;
    ngx_coord_endpoint_t  *endpoint;

    endpoint = &server->endpoint;

    ngx_memzero(&u, sizeof(ngx_url_t));

    u.url = endpoint->host;
    u.default_port = endpoint->port;

    if (ngx_parse_url(cf->pool, &u) != NGX_OK || u.naddrs == 0) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "%s in server \"%V\" of store \"%V\"%s in %s:%ui",
                      u.err ? u.err : "no address", &endpoint->host,
                      &store->name,
                      ngx_http_coord_is_upstream(cf, &endpoint->host)
                      ? NGX_HTTP_COORD_NOT_UPSTREAM : "",
                      server->file, server->line);
        return NGX_ERROR;
    }

    endpoint->addrs = u.addrs;
    endpoint->naddrs = u.naddrs;

    return NGX_OK;
}


/* 1 if there is a block upstream of that name, which a store cannot use */

static ngx_uint_t
ngx_http_coord_is_upstream(ngx_conf_t *cf, ngx_str_t *host)
{
    ngx_uint_t                       i;
    ngx_http_upstream_srv_conf_t   **uscfp;
    ngx_http_upstream_main_conf_t   *umcf;

    umcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_upstream_module);
    uscfp = umcf->upstreams.elts;

    for (i = 0; i < umcf->upstreams.nelts; i++) {
        if ((uscfp[i]->flags & NGX_HTTP_UPSTREAM_CREATE)
            && uscfp[i]->host.len == host->len
            && ngx_strncasecmp(uscfp[i]->host.data, host->data, host->len)
               == 0)
        {
            return 1;
        }
    }

    return 0;
}


/* unix:/path[:db] */

static ngx_int_t
ngx_http_coord_url_unix(ngx_conf_t *cf, ngx_coord_store_t *store,
    ngx_http_coord_server_conf_t *server, ngx_str_t *url)
{
    u_char     *p;
    ngx_str_t   db;
    ngx_url_t   u;

    ngx_memzero(&u, sizeof(ngx_url_t));

    u.url = *url;

    p = ngx_strlchr(url->data + sizeof("unix:") - 1, url->data + url->len,
                    ':');

    if (p) {
        db.data = p + 1;
        db.len = url->data + url->len - db.data;
        u.url.len = p - url->data;

        if (ngx_http_coord_url_db(cf, store, server, &db) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    if (ngx_parse_url(cf->pool, &u) != NGX_OK || u.naddrs == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "%s in server \"%V\" of store \"%V\"",
                           u.err ? u.err : "no path", &u.url, &store->name);
        return NGX_ERROR;
    }

    server->endpoint.addrs = u.addrs;
    server->endpoint.naddrs = u.naddrs;

    return NGX_OK;
}


/* user:password or :password, each percent-encoded */

static ngx_int_t
ngx_http_coord_url_user(ngx_conf_t *cf, ngx_coord_store_t *store,
    ngx_http_coord_server_conf_t *server, ngx_str_t *user)
{
    u_char            *p, *last;
    ngx_coord_auth_t  *auth;

    last = user->data + user->len;
    p = ngx_strlchr(user->data, last, ':');

    if (p == NULL || p + 1 == last) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "no password after the user name in server "
                           "of store \"%V\"", &store->name);
        return NGX_ERROR;
    }

    auth = ngx_pcalloc(cf->pool, sizeof(ngx_coord_auth_t));
    if (auth == NULL) {
        return NGX_ERROR;
    }

    server->endpoint.auth = auth;

    if (ngx_http_coord_unescape(cf, store, &auth->username, user->data,
                                p - user->data)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    p++;

    ngx_http_coord_store_hide(cf, p, last - p);

    return ngx_http_coord_unescape(cf, store, &auth->password, p, last - p);
}


static ngx_int_t
ngx_http_coord_url_db(ngx_conf_t *cf, ngx_coord_store_t *store,
    ngx_http_coord_server_conf_t *server, ngx_str_t *db)
{
    ngx_int_t  n;

    n = ngx_atoi(db->data, db->len);

    if (n == NGX_ERROR || n > 65535) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid database \"%V\" in server of store "
                           "\"%V\": it must be a number from 0 to 65535",
                           db, &store->name);
        return NGX_ERROR;
    }

    server->db = n;
    server->told = 1;

    ngx_coord_store_conf(store)->db = n;

    return NGX_OK;
}


static ngx_int_t
ngx_http_coord_unescape(ngx_conf_t *cf, ngx_coord_store_t *store,
    ngx_str_t *dst, u_char *data, size_t len)
{
    u_char  *p, *last;

    last = data + len;

    for (p = data; p < last; p++) {
        if (*p == '%' && (last - p < 3 || ngx_hextoi(p + 1, 2) == NGX_ERROR)) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid percent-encoding of user or password "
                               "in server of store \"%V\", "
                               "\"%%25\" stands for \"%%\"", &store->name);
            return NGX_ERROR;
        }
    }

    dst->data = ngx_pnalloc(cf->pool, len + 1);
    if (dst->data == NULL) {
        return NGX_ERROR;
    }

    p = dst->data;
    ngx_unescape_uri(&p, &data, len, 0);
    dst->len = p - dst->data;

    return NGX_OK;
}


ngx_int_t
ngx_http_coord_stores_resolve(ngx_conf_t *cf)
{
    ngx_uint_t                      i, n;
    ngx_coord_store_t             **stores;
    ngx_http_coord_main_conf_t     *mcf;
    ngx_http_coord_store_conf_t    *scf;
    ngx_http_coord_server_conf_t  **servers;

    mcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_coord_module);

    stores = mcf->stores.elts;

    for (i = 0; i < mcf->stores.nelts; i++) {

        scf = (ngx_http_coord_store_conf_t *) stores[i];
        servers = scf->servers.elts;

        for (n = 0; n < scf->servers.nelts; n++) {

            if (ngx_http_coord_server_resolve(cf, stores[i], servers[n])
                != NGX_OK)
            {
                return NGX_ERROR;
            }
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_coord_server_resolve(ngx_conf_t *cf, ngx_coord_store_t *store,
    ngx_http_coord_server_conf_t *server)
{
    ngx_str_t                 *host;
    ngx_coord_store_conf_t    *conf;
    ngx_http_core_loc_conf_t  *clcf;

    conf = ngx_coord_store_conf(store);
    host = &server->endpoint.host;
    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    if (clcf->resolver && clcf->resolver->connections.nelts) {
        conf->resolver = clcf->resolver;

        /* http {} itself is never merged with the default */

        conf->resolver_timeout =
            (clcf->resolver_timeout == NGX_CONF_UNSET_MSEC)
            ? NGX_HTTP_COORD_RESOLVER_TIMEOUT : clcf->resolver_timeout;
    }

    if (!server->endpoint.named) {
        return NGX_OK;
    }

    if (conf->resolver == NULL) {
        return ngx_http_coord_resolve(cf, store, server);
    }

    if (ngx_http_coord_is_upstream(cf, host)) {
        ngx_log_error(NGX_LOG_WARN, cf->log, 0,
                      "server \"%V\" of store \"%V\" is a host name"
                      "%s in %s:%ui",
                      host, &store->name, NGX_HTTP_COORD_NOT_UPSTREAM,
                      server->file, server->line);
    }

    return NGX_OK;
}
