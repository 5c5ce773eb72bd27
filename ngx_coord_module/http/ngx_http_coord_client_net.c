
/*
 * Copyright (C) ngx_coord_module contributors
 */


#include "ngx_http_coord_client_net.h"
#include "ngx_http_coord_conf.h"


#define NGX_HTTP_COORD_NET_LEN   (NGX_INET6_ADDRSTRLEN + sizeof("/128") - 1)


static ngx_int_t ngx_http_coord_client_net_bits(ngx_conf_t *cf,
    ngx_str_t *value, ngx_int_t max, ngx_uint_t *bits);
static ngx_int_t ngx_http_coord_client_net_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data);
static void ngx_http_coord_client_net_cut(u_char *addr, size_t len,
    ngx_uint_t bits);
static size_t ngx_http_coord_client_net_text(ngx_http_request_t *r,
    u_char *text);


static ngx_http_variable_t  ngx_http_coord_client_net_vars[] = {

    { ngx_string("coord_client_net"), NULL,
      ngx_http_coord_client_net_variable, 0, 0, 0 },

      ngx_http_null_variable
};


ngx_int_t
ngx_http_coord_client_net_add(ngx_conf_t *cf)
{
    return ngx_http_coord_add_variables(cf, ngx_http_coord_client_net_vars);
}


char *
ngx_http_coord_client_net(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_coord_loc_conf_t *lcf = conf;

    ngx_str_t  *value;

    if (lcf->net != NGX_CONF_UNSET_UINT) {
        return "is duplicate";
    }

    value = cf->args->elts;

    if (ngx_http_coord_client_net_bits(cf, &value[1], 32, &lcf->net) != NGX_OK
        || ngx_http_coord_client_net_bits(cf, &value[2], 128, &lcf->net6)
           != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_coord_client_net_bits(ngx_conf_t *cf, ngx_str_t *value, ngx_int_t max,
    ngx_uint_t *bits)
{
    ngx_int_t  n;

    n = ngx_atoi(value->data, value->len);

    if (n < 1 || n > max) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid prefix length \"%V\", that of %s is a "
                           "number from 1 to %i", value,
                           max == 32 ? "IPv4" : "IPv6", max);
        return NGX_ERROR;
    }

    *bits = n;

    return NGX_OK;
}


/* an address of all its bits stands as $remote_addr has it */

static ngx_int_t
ngx_http_coord_client_net_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    u_char  *p;

    p = ngx_pnalloc(r->pool, NGX_HTTP_COORD_NET_LEN);
    if (p == NULL) {
        return NGX_ERROR;
    }

    v->len = ngx_http_coord_client_net_text(r, p);
    v->data = p;

    if (v->len == 0) {
        v->len = r->connection->addr_text.len;
        v->data = r->connection->addr_text.data;
    }

    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;

    return NGX_OK;
}


/* 0: neither an IPv4 nor an IPv6 address */

static size_t
ngx_http_coord_client_net_text(ngx_http_request_t *r, u_char *text)
{
    u_char                      addr[NGX_COORD_ADDRESS_LEN], *p;
    size_t                      len;
    ngx_uint_t                  bits, whole;
    struct sockaddr_in         *sin;
    ngx_http_coord_loc_conf_t  *lcf;
#if (NGX_HAVE_INET6)
    struct sockaddr_in6        *sin6;
#endif

    lcf = ngx_http_get_module_loc_conf(r, ngx_http_coord_module);

    bits = lcf->net;
    len = sizeof(in_addr_t);

    switch (r->connection->sockaddr->sa_family) {

#if (NGX_HAVE_INET6)
    case AF_INET6:
        sin6 = (struct sockaddr_in6 *) r->connection->sockaddr;

        if (IN6_IS_ADDR_V4MAPPED(&sin6->sin6_addr)) {
            ngx_memcpy(addr, sin6->sin6_addr.s6_addr + 12, len);
            break;
        }

        bits = lcf->net6;
        len = NGX_COORD_ADDRESS_LEN;
        ngx_memcpy(addr, sin6->sin6_addr.s6_addr, len);

        break;
#endif

    case AF_INET:
        sin = (struct sockaddr_in *) r->connection->sockaddr;
        ngx_memcpy(addr, &sin->sin_addr.s_addr, len);

        break;

    default:
        return 0;
    }

    whole = (bits == 8 * len);

    ngx_http_coord_client_net_cut(addr, len, bits);

    if (len == sizeof(in_addr_t)) {
        p = ngx_sprintf(text, "%ud.%ud.%ud.%ud",
                        addr[0], addr[1], addr[2], addr[3]);

    } else {
#if (NGX_HAVE_INET6)
        p = text + ngx_inet6_ntop(addr, text, NGX_INET6_ADDRSTRLEN);
#else
        p = text;
#endif
    }

    if (!whole) {
        p = ngx_sprintf(p, "/%ui", bits);
    }

    return p - text;
}


static void
ngx_http_coord_client_net_cut(u_char *addr, size_t len, ngx_uint_t bits)
{
    size_t  i;

    for (i = 0; i < len; i++) {

        if (bits >= 8) {
            bits -= 8;
            continue;
        }

        addr[i] &= (u_char) (0xff00 >> bits);
        bits = 0;
    }
}
