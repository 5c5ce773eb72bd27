
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_api without "public": only for clients on this host.
 */


#include "ngx_http_coord_api_guard.h"


static ngx_uint_t ngx_http_coord_api_local(struct sockaddr *sa);
static ngx_uint_t ngx_http_coord_api_local_addr(in_addr_t addr);
#if (NGX_HAVE_INET6)
static ngx_uint_t ngx_http_coord_api_local_addr6(struct in6_addr *addr);
#endif
static ngx_uint_t ngx_http_coord_api_loopback(ngx_str_t *host);
static ngx_uint_t ngx_http_coord_api_loopback_address(ngx_str_t *host);
static ngx_uint_t ngx_http_coord_api_authority(ngx_str_t *value);
static ngx_uint_t ngx_http_coord_api_own(ngx_http_request_t *r,
    ngx_str_t *origin);
static ngx_table_elt_t *ngx_http_coord_api_header(ngx_http_request_t *r,
    ngx_list_part_t **part, ngx_uint_t *i);
static ngx_uint_t ngx_http_coord_api_proxied(ngx_str_t *name);


/* what proxies add; "-" at the end: whatever begins so */

static const ngx_str_t  ngx_http_coord_api_proxy_fields[] = {
    ngx_string("forwarded"),
    ngx_string("via"),
    ngx_string("x-forwarded-"),
    ngx_string("x-real-ip"),
    ngx_null_string
};


const char *
ngx_http_coord_api_stranger(ngx_http_request_t *r)
{
    ngx_uint_t        i;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h;

    if (!ngx_http_coord_api_local(r->connection->sockaddr)) {
        return "Clients on this host only.";
    }

    if (!ngx_http_coord_api_loopback(&r->headers_in.server)) {
        return "The host of the request has to be localhost or a loopback "
               "address.";
    }

    if (r->http_connection->addr_conf->proxy_protocol) {
        return "Not through a proxy.";
    }

    part = &r->headers_in.headers.part;
    i = 0;

    for ( ;; ) {
        h = ngx_http_coord_api_header(r, &part, &i);

        if (h == NULL) {
            return NULL;
        }

        if (ngx_http_coord_api_proxied(&h->key)) {
            return "Not through a proxy.";
        }

        if (h->key.len == 4
            && ngx_strncasecmp(h->key.data, (u_char *) "host", 4) == 0
            && !ngx_http_coord_api_authority(&h->value))
        {
            return "The field Host has to be localhost or a loopback "
                   "address.";
        }

        if (h->key.len == 6
            && ngx_strncasecmp(h->key.data, (u_char *) "origin", 6) == 0
            && !ngx_http_coord_api_own(r, &h->value))
        {
            return "Not for pages of another origin.";
        }
    }
}


static ngx_uint_t
ngx_http_coord_api_local(struct sockaddr *sa)
{
    switch (sa->sa_family) {

#if (NGX_HAVE_UNIX_DOMAIN)
    case AF_UNIX:
        return 1;
#endif

    case AF_INET:
        return ngx_http_coord_api_local_addr(
                              ((struct sockaddr_in *) sa)->sin_addr.s_addr);

#if (NGX_HAVE_INET6)
    case AF_INET6:
        return ngx_http_coord_api_local_addr6(
                            &((struct sockaddr_in6 *) sa)->sin6_addr);
#endif
    }

    return 0;
}


static ngx_uint_t
ngx_http_coord_api_local_addr(in_addr_t addr)
{
    return ntohl(addr) >> 24 == 127;
}


#if (NGX_HAVE_INET6)

static ngx_uint_t
ngx_http_coord_api_local_addr6(struct in6_addr *addr)
{
    return IN6_IS_ADDR_LOOPBACK(addr)
           || (IN6_IS_ADDR_V4MAPPED(addr) && addr->s6_addr[12] == 127);
}

#endif


/* "localhost", "x.localhost", "127.0.0.1", "[::1]"; without a port */

static ngx_uint_t
ngx_http_coord_api_loopback(ngx_str_t *host)
{
    size_t   len;
    u_char  *p;

    static const char  name[] = "localhost";

    len = sizeof(name) - 1;

    if (host->len >= len) {
        p = host->data + host->len - len;

        if (ngx_strncasecmp(p, (u_char *) name, len) == 0
            && (host->len == len || p[-1] == '.'))
        {
            return 1;
        }
    }

    return ngx_http_coord_api_loopback_address(host);
}


static ngx_uint_t
ngx_http_coord_api_loopback_address(ngx_str_t *host)
{
    in_addr_t        addr;
#if (NGX_HAVE_INET6)
    struct in6_addr  addr6;

    if (host->len > 2 && host->data[0] == '[') {
        return host->data[host->len - 1] == ']'
               && ngx_inet6_addr(host->data + 1, host->len - 2, addr6.s6_addr)
                  == NGX_OK
               && ngx_http_coord_api_local_addr6(&addr6);
    }
#endif

    addr = ngx_inet_addr(host->data, host->len);

    return addr != INADDR_NONE && ngx_http_coord_api_local_addr(addr);
}


/* the same with or without a port, and the dot that ends a full name */

static ngx_uint_t
ngx_http_coord_api_authority(ngx_str_t *value)
{
    size_t     i;
    ngx_str_t  host;

    host = *value;

    for (i = host.len; i > 0; i--) {

        if (host.data[i - 1] == ':') {
            host.len = i - 1;
            break;
        }

        if (host.data[i - 1] < '0' || host.data[i - 1] > '9') {
            break;
        }
    }

    if (host.len > 1 && host.data[host.len - 1] == '.') {
        host.len--;
    }

    return ngx_http_coord_api_loopback(&host);
}


/* a page that came from this server: its origin ends with the field Host */

static ngx_uint_t
ngx_http_coord_api_own(ngx_http_request_t *r, ngx_str_t *origin)
{
    u_char     *p;
    ngx_str_t   host;

    p = ngx_strlchr(origin->data, origin->data + origin->len, '/');

    if (p == NULL || r->headers_in.host == NULL) {
        return 0;
    }

    host = r->headers_in.host->value;

    return origin->data + origin->len - p == (ssize_t) host.len + 2
           && p[1] == '/'
           && ngx_strncasecmp(p + 2, host.data, host.len) == 0;
}


/* the next header field of the request; NULL: there are no more */

static ngx_table_elt_t *
ngx_http_coord_api_header(ngx_http_request_t *r, ngx_list_part_t **part,
    ngx_uint_t *i)
{
    ngx_table_elt_t  *h;

    while (*i >= (*part)->nelts) {

        if ((*part)->next == NULL) {
            return NULL;
        }

        *part = (*part)->next;
        *i = 0;
    }

    h = (*part)->elts;

    return &h[(*i)++];
}


static ngx_uint_t
ngx_http_coord_api_proxied(ngx_str_t *name)
{
    const ngx_str_t  *field;

    for (field = ngx_http_coord_api_proxy_fields; field->len; field++) {

        if (name->len < field->len
            || ngx_strncasecmp(name->data, field->data, field->len) != 0)
        {
            continue;
        }

        if (name->len == field->len || field->data[field->len - 1] == '-') {
            return 1;
        }
    }

    return 0;
}
