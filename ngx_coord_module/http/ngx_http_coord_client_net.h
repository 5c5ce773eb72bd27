
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * $coord_client_net: the network of a client, for the keys of limits.  Who has
 * an IPv6 network has as many addresses as he likes.
 */


#ifndef _NGX_HTTP_COORD_CLIENT_NET_H_INCLUDED_
#define _NGX_HTTP_COORD_CLIENT_NET_H_INCLUDED_


#include "ngx_http_coord.h"


#define NGX_HTTP_COORD_NET_INET   32
#define NGX_HTTP_COORD_NET_INET6  64


/* the directive coord_client_net ipv4 ipv6 */
char *ngx_http_coord_client_net(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);

/* defines the variable; for a preconfiguration.  NGX_ERROR: logged */
ngx_int_t ngx_http_coord_client_net_add(ngx_conf_t *cf);


#endif /* _NGX_HTTP_COORD_CLIENT_NET_H_INCLUDED_ */
