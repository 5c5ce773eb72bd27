
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The line "server" of coord_store: URLs, and the lookup of host names.
 */


#include "ngx_http_coord.h"
#include "ngx_http_coord_conf.h"
#include "ngx_coord_store_redis.h"


#define NGX_HTTP_COORD_RESOLVER_TIMEOUT  30000

#define NGX_HTTP_COORD_NOT_UPSTREAM                                           \
    ", a store does not use \"upstream\" of that name, "                      \
    "write the address of the server, like \"redis://10.0.0.5:6379\","


static ngx_int_t ngx_http_coord_url_tcp(ngx_conf_t *cf,
    ngx_coord_store_t *store, ngx_str_t *url, ngx_str_t *rest);
static ngx_int_t ngx_http_coord_resolve(ngx_conf_t *cf,
    ngx_coord_store_t *store, ngx_str_t *host, in_port_t port);
static ngx_uint_t ngx_http_coord_is_upstream(ngx_conf_t *cf, ngx_str_t *host);
static ngx_int_t ngx_http_coord_url_unix(ngx_conf_t *cf,
    ngx_coord_store_t *store, ngx_str_t *url);
static ngx_int_t ngx_http_coord_url_user(ngx_conf_t *cf,
    ngx_coord_store_t *store, ngx_str_t *user);
static ngx_int_t ngx_http_coord_url_db(ngx_conf_t *cf,
    ngx_coord_store_t *store, ngx_str_t *db);
static ngx_int_t ngx_http_coord_unescape(ngx_conf_t *cf,
    ngx_coord_store_t *store, ngx_str_t *dst, u_char *data, size_t len);
static void ngx_http_coord_hide(ngx_conf_t *cf, u_char *data, size_t len);
static size_t ngx_http_coord_quoted(u_char *p, u_char *last, u_char *data,
    size_t len);


char *
ngx_http_coord_store_server(ngx_conf_t *cf, ngx_coord_store_t *store,
    ngx_str_t *value, void *data)
{
    ngx_int_t                     rc;
    ngx_str_t                     rest;
    ngx_coord_store_conf_t       *sc;
    ngx_http_coord_store_conf_t  *scf;

    sc = ngx_coord_store_conf(store);
    scf = (ngx_http_coord_store_conf_t *) store;

    scf->file = cf->conf_file->file.name.data;
    scf->line = cf->conf_file->line;

    if (sc->naddrs || sc->host.len) {
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

    ngx_coord_store_conf(store)->host = u.host;
    ngx_coord_store_conf(store)->port = u.port;

    return NGX_OK;
}


/* looks the addresses up, as proxy_pass does at start */

static ngx_int_t
ngx_http_coord_resolve(ngx_conf_t *cf, ngx_coord_store_t *store,
    ngx_str_t *host, in_port_t port)
{
    ngx_url_t                     u;
    ngx_http_coord_store_conf_t  *scf;

    scf = (ngx_http_coord_store_conf_t *) store;

    ngx_memzero(&u, sizeof(ngx_url_t));

    u.url = *host;
    u.default_port = port;

    if (ngx_parse_url(cf->pool, &u) != NGX_OK || u.naddrs == 0) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "%s in server \"%V\" of store \"%V\"%s in %s:%ui",
                      u.err ? u.err : "no address", host, &store->name,
                      ngx_http_coord_is_upstream(cf, host)
                      ? NGX_HTTP_COORD_NOT_UPSTREAM : "",
                      scf->file, scf->line);
        return NGX_ERROR;
    }

    ngx_coord_store_conf(store)->addrs = u.addrs;
    ngx_coord_store_conf(store)->naddrs = u.naddrs;

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

    ngx_coord_store_conf(store)->addrs = u.addrs;
    ngx_coord_store_conf(store)->naddrs = u.naddrs;

    return NGX_OK;
}


/* user:password or :password, each percent-encoded */

static ngx_int_t
ngx_http_coord_url_user(ngx_conf_t *cf, ngx_coord_store_t *store,
    ngx_str_t *user)
{
    u_char                  *p, *last;
    ngx_coord_store_conf_t  *sc;

    last = user->data + user->len;
    p = ngx_strlchr(user->data, last, ':');

    if (p == NULL || p + 1 == last) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "no password after the user name in server "
                           "of store \"%V\"", &store->name);
        return NGX_ERROR;
    }

    sc = ngx_coord_store_conf(store);

    if (ngx_http_coord_unescape(cf, store, &sc->username, user->data,
                                p - user->data)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    p++;

    ngx_http_coord_hide(cf, p, last - p);

    return ngx_http_coord_unescape(cf, store, &sc->password, p, last - p);
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


/*
 * Blots the password of the line that is being read out of what "nginx -T"
 * prints; data is between ':' and '@'.
 */

static void
ngx_http_coord_hide(ngx_conf_t *cf, u_char *data, size_t len)
{
    u_char     *p, *last;
    size_t      n;
    ngx_buf_t  *b, *dump;

    b = cf->conf_file->buffer;
    dump = cf->conf_file->dump;

    if (dump == NULL) {
        return;
    }

    /* the file up to and including the line */

    last = dump->last - (b->last - b->pos);

    for (p = last; p > dump->start; /* void */ ) {
        p--;

        n = ngx_http_coord_quoted(p, last, data - 1, len + 2);

        if (n) {
            ngx_memset(p + 1, '*', n - 2);
            return;
        }
    }
}


/* the length of data as it is written at p in a configuration; 0: it is not */

static size_t
ngx_http_coord_quoted(u_char *p, u_char *last, u_char *data, size_t len)
{
    u_char   ch;
    u_char  *start;

    for (start = p; len; len--) {

        if (p == last) {
            return 0;
        }

        ch = *p++;

        if (ch == '\\' && p < last) {

            switch (*p) {

            case '"':
            case '\'':
            case '\\':
                ch = *p++;
                break;

            case 't':
                ch = '\t';
                p++;
                break;

            case 'r':
                ch = CR;
                p++;
                break;

            case 'n':
                ch = LF;
                p++;
                break;

            default:
                break;
            }
        }

        if (ch != *data++) {
            return 0;
        }
    }

    return p - start;
}


ngx_int_t
ngx_http_coord_stores_resolve(ngx_conf_t *cf)
{
    ngx_uint_t                    i;
    ngx_coord_store_t            *store, **stores;
    ngx_http_core_loc_conf_t     *clcf;
    ngx_coord_store_conf_t       *sc;
    ngx_http_coord_main_conf_t   *mcf;
    ngx_http_coord_store_conf_t  *scf;

    mcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_coord_module);
    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    stores = mcf->stores.elts;

    for (i = 0; i < mcf->stores.nelts; i++) {
        store = stores[i];
        sc = ngx_coord_store_conf(store);

        if (sc->host.len == 0) {
            continue;
        }

        if (clcf->resolver && clcf->resolver->connections.nelts) {
            sc->resolver = clcf->resolver;

            if (ngx_http_coord_is_upstream(cf, &sc->host)) {
                scf = (ngx_http_coord_store_conf_t *) store;

                ngx_log_error(NGX_LOG_WARN, cf->log, 0,
                              "server \"%V\" of store \"%V\" is a host name"
                              "%s in %s:%ui",
                              &sc->host, &store->name,
                              NGX_HTTP_COORD_NOT_UPSTREAM,
                              scf->file, scf->line);
            }

            /* http {} itself is never merged with the default */

            sc->resolver_timeout =
                (clcf->resolver_timeout == NGX_CONF_UNSET_MSEC)
                ? NGX_HTTP_COORD_RESOLVER_TIMEOUT : clcf->resolver_timeout;

            continue;
        }

        if (ngx_http_coord_resolve(cf, store, &sc->host, sc->port) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}
