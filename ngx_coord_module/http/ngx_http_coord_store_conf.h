
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Private to the files that read coord_store { ... }.
 */


#ifndef _NGX_HTTP_COORD_STORE_CONF_H_INCLUDED_
#define _NGX_HTTP_COORD_STORE_CONF_H_INCLUDED_


#include "ngx_http_coord_conf.h"
#include "ngx_coord_store_redis.h"


/* a line "server" as the configuration knows it */
typedef struct {
    ngx_coord_endpoint_t       endpoint;      /* first: read as its pointer */
    u_char                    *file;
    ngx_uint_t                 line;
    ngx_uint_t                 db;            /* of the URL, where told */
    unsigned                   told:1;
    unsigned                   tls:1;         /* rediss:// */
    unsigned                   no_port:1;     /* that of its kind */
} ngx_http_coord_server_conf_t;


/* the lines "ssl_..." of a store */
typedef struct {
    ngx_str_t                  trusted;       /* empty: those of the system */
    ngx_str_t                  certificate;
    ngx_str_t                  key;
    ngx_str_t                  name;
    ngx_str_t                  ciphers;
    ngx_str_t                  crl;
    ngx_uint_t                 protocols;     /* 0: TLS 1.2 and 1.3 */
    ngx_int_t                  depth;
    ngx_flag_t                 verify;
    ngx_flag_t                 used;          /* there is such a line */
} ngx_http_coord_store_tls_t;


/* a store as the configuration knows it */
typedef struct {
    ngx_coord_store_t          store;         /* first: read as its pointer */
    ngx_coord_store_redis_t    redis;         /* store.data */
    ngx_array_t                servers;       /* of the next, as pointers */
    ngx_coord_auth_t           auth;          /* "username", .. */
    ngx_coord_auth_t           sentinel;      /* "sentinel_username", .. */
    ngx_http_coord_store_tls_t  tls;
    ngx_uint_t                 lines;         /* a bit for each, not "server" */
} ngx_http_coord_store_conf_t;


/* --- ngx_http_coord_store_server.c --- */

/* the line "server" in coord_store; NGX_CONF_ERROR: logged */
char *ngx_http_coord_store_server(ngx_conf_t *cf, ngx_coord_store_t *store,
    ngx_str_t *value, void *data);

/*
 * Sets the address of a line "server" that has one, and the port of its kind.
 * NGX_ERROR: no memory.
 */
ngx_int_t ngx_http_coord_store_server_addr(ngx_conf_t *cf,
    ngx_http_coord_server_conf_t *server, ngx_coord_store_conf_t *conf);


/* --- ngx_http_coord_store_servers.c --- */

/*
 * Settles what the lines "server" of a store mean, which depends on other
 * lines.  NGX_CONF_ERROR: logged.
 */
char *ngx_http_coord_store_servers(ngx_conf_t *cf,
    ngx_http_coord_store_conf_t *scf);


/* --- ngx_http_coord_store_hide.c --- */

/*
 * Blots the password of the line that is being read out of what "nginx -T"
 * prints; data is between ':' and '@'.
 */
void ngx_http_coord_store_hide(ngx_conf_t *cf, u_char *data, size_t len);


/* --- ngx_http_coord_store_tls.c --- */

/* the lines "ssl_..." in coord_store; NGX_CONF_ERROR: logged */
char *ngx_http_coord_store_tls_str(ngx_conf_t *cf, ngx_coord_store_t *store,
    ngx_str_t *value, void *data);
char *ngx_http_coord_store_tls_verify(ngx_conf_t *cf,
    ngx_coord_store_t *store, ngx_str_t *value, void *data);
char *ngx_http_coord_store_tls_depth(ngx_conf_t *cf, ngx_coord_store_t *store,
    ngx_str_t *value, void *data);
char *ngx_http_coord_store_tls_protocols(ngx_conf_t *cf,
    ngx_coord_store_t *store, ngx_str_t *value, void *data);

/*
 * Makes the TLS context that these lines describe; it lives as long as the
 * configuration.  NULL: logged.
 */
ngx_coord_tls_t *ngx_http_coord_store_tls(ngx_conf_t *cf,
    ngx_http_coord_store_conf_t *scf);


#endif /* _NGX_HTTP_COORD_STORE_CONF_H_INCLUDED_ */
