
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * An endpoint: where a connection goes, how it is protected, and as whom it
 * speaks there.  Those of a configuration stand in coord_store {}; those that
 * are found at run time (by Sentinel, in a cluster) take auth and tls of it.
 */


#ifndef _NGX_COORD_ENDPOINT_H_INCLUDED_
#define _NGX_COORD_ENDPOINT_H_INCLUDED_


#include "ngx_coord.h"


/* who speaks; shared by all endpoints of a store */
typedef struct {
    ngx_str_t                  username;      /* empty: AUTH password only */
    ngx_str_t                  password;      /* empty: no AUTH */
    ngx_str_t                  file;          /* of it; empty: in the URL */
    ngx_uint_t                 generation;    /* of it, in this worker */
    unsigned                   again:1;       /* read again, in the worker */
} ngx_coord_auth_t;


/* how TLS is spoken; shared by all endpoints of a store */
typedef struct {
    ngx_ssl_t                 *ssl;
    ngx_str_t                  name;          /* empty: that of the endpoint */
    ngx_flag_t                 verify;
} ngx_coord_tls_t;


typedef struct {
    ngx_str_t                  host;          /* ends with a zero; or empty */
    in_port_t                  port;
    ngx_addr_t                *addrs;         /* known at start */
    ngx_uint_t                 naddrs;
    ngx_coord_auth_t    *auth;          /* never NULL */
    ngx_coord_tls_t     *tls;           /* NULL: plain */

    /* the last TLS session, of this worker: ngx_ssl_session_t */
    void                      *session;

    unsigned                   named:1;       /* host is no address */
} ngx_coord_endpoint_t;


/*
 * Makes the address of a host that is one, with sa and NGX_SOCKADDR_STRLEN
 * bytes of text as memory.  NGX_DECLINED: host is no address.
 */
ngx_int_t ngx_coord_endpoint_addr(ngx_str_t *host, in_port_t port,
    ngx_sockaddr_t *sa, u_char *text, ngx_addr_t *addr);

/*
 * Reads the first line of a file into buf, *len bytes.  NGX_DECLINED: it is
 * empty or longer than size; NGX_ERROR: see ngx_errno.
 */
ngx_int_t ngx_coord_auth_read(ngx_str_t *file, u_char *buf, size_t size,
    size_t *len);

/* wipes a password that the worker has read; at its end */
void ngx_coord_auth_forget(ngx_coord_auth_t *auth);


#endif /* _NGX_COORD_ENDPOINT_H_INCLUDED_ */
