
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The lines "server" of coord_store together: one user, one database, and TLS
 * for all of them or for none.
 */


#include "ngx_http_coord.h"
#include "ngx_http_coord_store_conf.h"


static ngx_int_t ngx_http_coord_servers_agree(ngx_conf_t *cf,
    ngx_http_coord_store_conf_t *scf);
static ngx_uint_t ngx_http_coord_same_user(ngx_http_coord_server_conf_t *one,
    ngx_http_coord_server_conf_t *two);
static void ngx_http_coord_servers_auth(ngx_http_coord_store_conf_t *scf);
static char *ngx_http_coord_servers_tls(ngx_conf_t *cf,
    ngx_http_coord_store_conf_t *scf, ngx_uint_t n);


char *
ngx_http_coord_store_servers(ngx_conf_t *cf, ngx_http_coord_store_conf_t *scf)
{
    ngx_uint_t                      i, tls;
    ngx_coord_store_t              *store;
    ngx_coord_store_conf_t         *conf;
    ngx_http_coord_server_conf_t  **servers;

    store = &scf->store;
    conf = &scf->redis.conf;
    servers = scf->servers.elts;

    if (conf->mode == NGX_COORD_MODE_STANDALONE
        && scf->servers.nelts > 1)
    {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "store \"%V\" has a second \"server\": "
                      "\"mode standalone\" takes one in %s:%ui",
                      &store->name, servers[1]->file, servers[1]->line);
        return NGX_CONF_ERROR;
    }

    if (ngx_http_coord_servers_agree(cf, scf) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    if (conf->mode == NGX_COORD_MODE_CLUSTER && conf->db) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "store \"%V\" has the database %ui: in "
                           "\"mode cluster\" there is only 0",
                           &store->name, conf->db);
        return NGX_CONF_ERROR;
    }

    for (i = 0, tls = 0; i < scf->servers.nelts; i++) {
        tls += servers[i]->tls;

        if (ngx_http_coord_store_server_addr(cf, servers[i], conf) != NGX_OK) {
            return NGX_CONF_ERROR;
        }
    }

    ngx_http_coord_servers_auth(scf);

    if ((scf->auth.username.len && scf->auth.password.len == 0)
        || (scf->sentinel.username.len && scf->sentinel.password.len == 0))
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "store \"%V\" has a user name but no password: "
                           "\"password_file\" is missing", &store->name);
        return NGX_CONF_ERROR;
    }

    conf->auth = &scf->auth;
    conf->servers = &scf->servers;

    return ngx_http_coord_servers_tls(cf, scf, tls);
}


/* there is one user and one database, and whoever tells them tells the same */

static ngx_int_t
ngx_http_coord_servers_agree(ngx_conf_t *cf, ngx_http_coord_store_conf_t *scf)
{
    ngx_uint_t                      i;
    ngx_http_coord_server_conf_t   *server, *db, *user, **servers;

    db = NULL;
    user = NULL;
    servers = scf->servers.elts;

    for (i = 0; i < scf->servers.nelts; i++) {
        server = servers[i];

        if (server->told && db && db->db != server->db) {
            ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                          "store \"%V\" has the database %ui in %s:%ui and "
                          "the database %ui in %s:%ui: there is one for all "
                          "of its servers", &scf->store.name, db->db, db->file,
                          db->line, server->db, server->file, server->line);
            return NGX_ERROR;
        }

        if (server->endpoint.auth->password.len
            && user
            && !ngx_http_coord_same_user(user, server))
        {
            ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                          "store \"%V\" has one user or password in %s:%ui "
                          "and another one in %s:%ui: there is one for all of "
                          "its servers", &scf->store.name, user->file,
                          user->line, server->file, server->line);
            return NGX_ERROR;
        }

        if (server->told) {
            db = server;
        }

        if (server->endpoint.auth->password.len) {
            user = server;
        }
    }

    return NGX_OK;
}


static ngx_uint_t
ngx_http_coord_same_user(ngx_http_coord_server_conf_t *one,
    ngx_http_coord_server_conf_t *two)
{
    ngx_coord_auth_t  *a, *b;

    a = one->endpoint.auth;
    b = two->endpoint.auth;

    return a->username.len == b->username.len
           && a->password.len == b->password.len
           && ngx_memcmp(a->username.data, b->username.data, a->username.len)
              == 0
           && ngx_memcmp(a->password.data, b->password.data, a->password.len)
              == 0;
}


/* n: of the servers are "rediss://" */

static char *
ngx_http_coord_servers_tls(ngx_conf_t *cf, ngx_http_coord_store_conf_t *scf,
    ngx_uint_t n)
{
    ngx_str_t                      *name;
    ngx_uint_t                      i;
    ngx_coord_store_conf_t         *conf;
    ngx_http_coord_server_conf_t  **servers;

    name = &scf->store.name;
    conf = &scf->redis.conf;
    servers = scf->servers.elts;

    if (n == 0) {

        if (scf->tls.used) {
            ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                               "store \"%V\" has \"ssl_...\" but no "
                               "\"rediss://\": it is used without TLS", name);
        }

        return NGX_CONF_OK;
    }

    if (n != scf->servers.nelts) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "the servers of store \"%V\" must all be "
                           "\"rediss://\", or none of them", name);
        return NGX_CONF_ERROR;
    }

    conf->tls = ngx_http_coord_store_tls(cf, scf);
    if (conf->tls == NULL) {
        return NGX_CONF_ERROR;
    }

    for (i = 0; i < scf->servers.nelts; i++) {
        servers[i]->endpoint.tls = conf->tls;
    }

    return NGX_CONF_OK;
}


/*
 * What stands in the URL holds where no line of its own says otherwise.  The
 * URL of a sentinel has the user of the sentinel.
 */

static void
ngx_http_coord_servers_auth(ngx_http_coord_store_conf_t *scf)
{
    ngx_uint_t                      i;
    ngx_coord_auth_t               *auth, *own;
    ngx_http_coord_server_conf_t  **servers;

    servers = scf->servers.elts;

    auth = scf->redis.conf.mode == NGX_COORD_MODE_SENTINEL ? &scf->sentinel
                                                           : &scf->auth;

    for (i = 0; i < scf->servers.nelts; i++) {
        own = servers[i]->endpoint.auth;

        if (auth->username.len == 0) {
            auth->username = own->username;
        }

        if (auth->password.len == 0) {
            auth->password = own->password;
        }

        servers[i]->endpoint.auth = auth;
    }
}
