
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The line "server" of coord_store: URLs, and the lookup of host names.
 */


#include "ngx_http_coord.h"
#include "ngx_http_coord_conf.h"


#define NGX_HTTP_COORD_RESOLVER_TIMEOUT  30000


static ngx_int_t ngx_http_coord_url_tcp(ngx_conf_t *cf,
    ngx_coord_store_t *store, ngx_str_t *url, ngx_str_t *rest);
static ngx_int_t ngx_http_coord_resolve(ngx_conf_t *cf,
    ngx_coord_store_t *store, ngx_str_t *host, in_port_t port);
static ngx_int_t ngx_http_coord_url_unix(ngx_conf_t *cf,
    ngx_coord_store_t *store, ngx_str_t *url);
static ngx_int_t ngx_http_coord_url_user(ngx_conf_t *cf,
    ngx_coord_store_t *store, ngx_str_t *user);
static ngx_int_t ngx_http_coord_url_db(ngx_conf_t *cf,
    ngx_coord_store_t *store, ngx_str_t *db);
static ngx_int_t ngx_http_coord_unescape(ngx_conf_t *cf, ngx_str_t *dst,
    u_char *data, size_t len);
static void ngx_http_coord_hide(ngx_conf_t *cf, u_char *data, size_t len);


char *
ngx_http_coord_store_server(ngx_conf_t *cf, ngx_coord_store_t *store,
    ngx_str_t *value, void *data)
{
    ngx_int_t  rc;
    ngx_str_t  rest;

    if (store->redis.naddrs || store->redis.host.len) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "store \"%V\" has a second \"server\": "
                           "\"mode standalone\" takes one", &store->name);
        return NGX_CONF_ERROR;
    }

    if (ngx_http_coord_param(&value[1], "redis://", &rest)) {
        rc = ngx_http_coord_url_tcp(cf, store, &value[1], &rest);

    } else if (ngx_http_coord_param(&value[1], "unix:", &rest)) {
        rc = ngx_http_coord_url_unix(cf, store, &value[1]);

    } else if (ngx_http_coord_param(&value[1], "rediss://", &rest)) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"rediss://\" (TLS) is not supported "
                           "by this version of ngx_coord_module");
        return NGX_CONF_ERROR;

    } else {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid server of store \"%V\": it must begin "
                           "with \"redis://\" or \"unix:\"", &store->name);
        return NGX_CONF_ERROR;
    }

    return (rc == NGX_OK) ? NGX_CONF_OK : NGX_CONF_ERROR;
}


/* redis://[user:password@]host[:port][/db] */

static ngx_int_t
ngx_http_coord_url_tcp(ngx_conf_t *cf, ngx_coord_store_t *store,
    ngx_str_t *url, ngx_str_t *rest)
{
    u_char      *p, *last, *at;
    ngx_str_t    user, db;
    ngx_url_t    u;
    ngx_addr_t   addr;

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

        if (ngx_http_coord_url_user(cf, store, &user) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    db.data = ngx_strlchr(p, last, '/');

    if (db.data) {
        db.data++;
        db.len = last - db.data;
        last = db.data - 1;

        if (db.len && ngx_http_coord_url_db(cf, store, &db) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    ngx_memzero(&u, sizeof(ngx_url_t));

    u.url.data = p;
    u.url.len = last - p;
    u.default_port = 6379;
    u.no_resolve = 1;

    if (ngx_parse_url(cf->pool, &u) != NGX_OK) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "%s in server \"%V\" of store \"%V\"",
                           u.err ? u.err : "no address", &u.url, &store->name);
        return NGX_ERROR;
    }

    if (ngx_parse_addr(cf->pool, &addr, u.host.data, u.host.len) == NGX_OK) {
        return ngx_http_coord_resolve(cf, store, &u.url, u.port);
    }

    /* a name: there may be a resolver, see ngx_http_coord_stores_resolve() */

    store->redis.host = u.host;
    store->redis.port = u.port;

    return NGX_OK;
}


/* looks the addresses up, as proxy_pass does at start */

static ngx_int_t
ngx_http_coord_resolve(ngx_conf_t *cf, ngx_coord_store_t *store,
    ngx_str_t *host, in_port_t port)
{
    ngx_url_t  u;

    ngx_memzero(&u, sizeof(ngx_url_t));

    u.url = *host;
    u.default_port = port;

    if (ngx_parse_url(cf->pool, &u) != NGX_OK || u.naddrs == 0) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "%s in server \"%V\" of store \"%V\"",
                      u.err ? u.err : "no address", host, &store->name);
        return NGX_ERROR;
    }

    store->redis.addrs = u.addrs;
    store->redis.naddrs = u.naddrs;

    return NGX_OK;
}


/* unix:/path[:db] */

static ngx_int_t
ngx_http_coord_url_unix(ngx_conf_t *cf, ngx_coord_store_t *store,
    ngx_str_t *url)
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

        if (ngx_http_coord_url_db(cf, store, &db) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    if (ngx_parse_url(cf->pool, &u) != NGX_OK || u.naddrs == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "%s in server \"%V\" of store \"%V\"",
                           u.err ? u.err : "no path", &u.url, &store->name);
        return NGX_ERROR;
    }

    store->redis.addrs = u.addrs;
    store->redis.naddrs = u.naddrs;

    return NGX_OK;
}


/* user:password or :password, each percent-encoded */

static ngx_int_t
ngx_http_coord_url_user(ngx_conf_t *cf, ngx_coord_store_t *store,
    ngx_str_t *user)
{
    u_char  *p, *last;

    last = user->data + user->len;
    p = ngx_strlchr(user->data, last, ':');

    if (p == NULL || p + 1 == last) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "no password after the user name in server "
                           "of store \"%V\"", &store->name);
        return NGX_ERROR;
    }

    if (ngx_http_coord_unescape(cf, &store->redis.username, user->data,
                                p - user->data)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    p++;

    if (ngx_http_coord_unescape(cf, &store->redis.password, p, last - p)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    ngx_http_coord_hide(cf, p, last - p);

    return NGX_OK;
}


static ngx_int_t
ngx_http_coord_url_db(ngx_conf_t *cf, ngx_coord_store_t *store, ngx_str_t *db)
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

    store->redis.db = n;

    return NGX_OK;
}


static ngx_int_t
ngx_http_coord_unescape(ngx_conf_t *cf, ngx_str_t *dst, u_char *data,
    size_t len)
{
    u_char  *p;

    dst->data = ngx_pnalloc(cf->pool, len + 1);
    if (dst->data == NULL) {
        return NGX_ERROR;
    }

    p = dst->data;
    ngx_unescape_uri(&p, &data, len, 0);
    dst->len = p - dst->data;

    return NGX_OK;
}


/* blots a password out of what "nginx -T" prints */

static void
ngx_http_coord_hide(ngx_conf_t *cf, u_char *data, size_t len)
{
    u_char     *p;
    ngx_buf_t  *dump;

    dump = cf->conf_file->dump;

    if (dump == NULL || len == 0) {
        return;
    }

    for (p = dump->start; p + len <= dump->last; p++) {
        if (ngx_memcmp(p, data, len) == 0) {
            ngx_memset(p, '*', len);
        }
    }
}


ngx_int_t
ngx_http_coord_stores_resolve(ngx_conf_t *cf)
{
    ngx_uint_t                    i;
    ngx_coord_store_t            *store, **stores;
    ngx_http_core_loc_conf_t     *clcf;
    ngx_http_coord_main_conf_t   *cmcf;

    cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_coord_module);
    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    stores = cmcf->stores.elts;

    for (i = 0; i < cmcf->stores.nelts; i++) {
        store = stores[i];

        if (store->redis.host.len == 0) {
            continue;
        }

        if (clcf->resolver && clcf->resolver->connections.nelts) {
            store->redis.resolver = clcf->resolver;

            /* http {} itself is never merged with the default */

            store->redis.resolver_timeout =
                (clcf->resolver_timeout == NGX_CONF_UNSET_MSEC)
                ? NGX_HTTP_COORD_RESOLVER_TIMEOUT : clcf->resolver_timeout;

            continue;
        }

        if (ngx_http_coord_resolve(cf, store, &store->redis.host,
                                   store->redis.port)
            != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}
