
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The lines "ssl_..." of coord_store, in the words of proxy_ssl_...: one TLS
 * context for all servers of a store.
 */


#include "ngx_http_coord.h"
#include "ngx_http_coord_store_conf.h"


#if (NGX_HTTP_SSL)

#define NGX_HTTP_COORD_CIPHERS  "DEFAULT"

static ngx_int_t ngx_http_coord_tls_create(ngx_conf_t *cf,
    ngx_http_coord_store_tls_t *conf, ngx_ssl_t *ssl);
static ngx_int_t ngx_http_coord_tls_trust(ngx_conf_t *cf,
    ngx_http_coord_store_tls_t *conf, ngx_ssl_t *ssl);


static ngx_conf_bitmask_t  ngx_http_coord_tls_protocols[] = {
    { ngx_string("TLSv1"), NGX_SSL_TLSv1 },
    { ngx_string("TLSv1.1"), NGX_SSL_TLSv1_1 },
    { ngx_string("TLSv1.2"), NGX_SSL_TLSv1_2 },
    { ngx_string("TLSv1.3"), NGX_SSL_TLSv1_3 },
    { ngx_null_string, 0 }
};

#endif


char *
ngx_http_coord_store_tls_verify(ngx_conf_t *cf, ngx_coord_store_t *store,
    ngx_str_t *value, void *data)
{
    ngx_http_coord_store_tls_t *conf = data;

    if (ngx_strcmp(value[1].data, "on") == 0) {
        conf->verify = 1;

    } else if (ngx_strcmp(value[1].data, "off") == 0) {
        conf->verify = 0;

    } else {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid ssl_verify \"%V\" of store \"%V\", "
                           "it must be \"on\" or \"off\"",
                           &value[1], &store->name);
        return NGX_CONF_ERROR;
    }

    conf->used = 1;

    return NGX_CONF_OK;
}


char *
ngx_http_coord_store_tls_depth(ngx_conf_t *cf, ngx_coord_store_t *store,
    ngx_str_t *value, void *data)
{
    ngx_http_coord_store_tls_t *conf = data;

    conf->depth = ngx_atoi(value[1].data, value[1].len);

    if (conf->depth < 0 || conf->depth > 100) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid ssl_verify_depth \"%V\" of store \"%V\", "
                           "it must be from 0 to 100",
                           &value[1], &store->name);
        return NGX_CONF_ERROR;
    }

    conf->used = 1;

    return NGX_CONF_OK;
}


char *
ngx_http_coord_store_tls_str(ngx_conf_t *cf, ngx_coord_store_t *store,
    ngx_str_t *value, void *data)
{
    ngx_str_t *field = data;

    ngx_http_coord_store_conf_t  *scf;

    scf = (ngx_http_coord_store_conf_t *) store;

    *field = value[1];
    scf->tls.used = 1;

    return NGX_CONF_OK;
}


#if (NGX_HTTP_SSL)


char *
ngx_http_coord_store_tls_protocols(ngx_conf_t *cf, ngx_coord_store_t *store,
    ngx_str_t *value, void *data)
{
    ngx_http_coord_store_tls_t *conf = data;

    ngx_uint_t           i;
    ngx_conf_bitmask_t  *mask;

    conf->used = 1;
    conf->protocols = 0;

    for (i = 1; i < cf->args->nelts; i++) {

        for (mask = ngx_http_coord_tls_protocols; mask->name.len; mask++) {
            if (ngx_strcasecmp(mask->name.data, value[i].data) == 0) {
                break;
            }
        }

        if (mask->name.len == 0) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid ssl_protocols \"%V\" of store \"%V\"",
                               &value[i], &store->name);
            return NGX_CONF_ERROR;
        }

        conf->protocols |= mask->mask;
    }

    return NGX_CONF_OK;
}


ngx_coord_tls_t *
ngx_http_coord_store_tls(ngx_conf_t *cf, ngx_http_coord_store_conf_t *scf)
{
    ngx_ssl_t                   *ssl;
    ngx_coord_tls_t             *tls;
    ngx_pool_cleanup_t          *cln;
    ngx_http_coord_store_tls_t  *conf;

    conf = &scf->tls;

    tls = ngx_pcalloc(cf->pool, sizeof(ngx_coord_tls_t));
    ssl = ngx_pcalloc(cf->pool, sizeof(ngx_ssl_t));

    if (tls == NULL || ssl == NULL) {
        return NULL;
    }

    ssl->log = cf->log;

    cln = ngx_pool_cleanup_add(cf->pool, 0);
    if (cln == NULL) {
        return NULL;
    }

    if (ngx_ssl_create(ssl, conf->protocols ? conf->protocols
                                            : NGX_SSL_TLSv1_2|NGX_SSL_TLSv1_3,
                       NULL)
        != NGX_OK)
    {
        return NULL;
    }

    cln->handler = ngx_ssl_cleanup_ctx;
    cln->data = ssl;

    if (ngx_http_coord_tls_create(cf, conf, ssl) != NGX_OK) {
        return NULL;
    }

    tls->ssl = ssl;
    tls->name = conf->name;
    tls->verify = conf->verify;

    return tls;
}


static ngx_int_t
ngx_http_coord_tls_create(ngx_conf_t *cf, ngx_http_coord_store_tls_t *conf,
    ngx_ssl_t *ssl)
{
    if (conf->ciphers.len == 0) {
        ngx_str_set(&conf->ciphers, NGX_HTTP_COORD_CIPHERS);
    }

    if (ngx_ssl_ciphers(cf, ssl, &conf->ciphers, 0) != NGX_OK) {
        return NGX_ERROR;
    }

    if (conf->certificate.len || conf->key.len) {

        if (conf->certificate.len == 0 || conf->key.len == 0) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "\"ssl_certificate\" and "
                               "\"ssl_certificate_key\" go together");
            return NGX_ERROR;
        }

        if (ngx_ssl_certificate(cf, ssl, &conf->certificate, &conf->key, NULL)
            != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    if (conf->verify && ngx_http_coord_tls_trust(cf, conf, ssl) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_ssl_client_session_cache(cf, ssl, 1);
}


static ngx_int_t
ngx_http_coord_tls_trust(ngx_conf_t *cf, ngx_http_coord_store_tls_t *conf,
    ngx_ssl_t *ssl)
{
    if (ngx_ssl_trusted_certificate(cf, ssl, &conf->trusted, conf->depth)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (conf->trusted.len == 0
        && SSL_CTX_set_default_verify_paths(ssl->ctx) == 0)
    {
        ngx_ssl_error(NGX_LOG_EMERG, cf->log, 0,
                      "SSL_CTX_set_default_verify_paths() failed");
        return NGX_ERROR;
    }

    if (ngx_ssl_crl(cf, ssl, &conf->crl) != NGX_OK) {
        return NGX_ERROR;
    }

    /* nginx lets the handshake pass and looks afterwards; this one ends it */

    SSL_CTX_set_verify(ssl->ctx, SSL_VERIFY_PEER, NULL);

    return NGX_OK;
}


#else


char *
ngx_http_coord_store_tls_protocols(ngx_conf_t *cf, ngx_coord_store_t *store,
    ngx_str_t *value, void *data)
{
    return NGX_CONF_OK;
}


ngx_coord_tls_t *
ngx_http_coord_store_tls(ngx_conf_t *cf, ngx_http_coord_store_conf_t *scf)
{
    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "\"rediss://\" in store \"%V\": "
                       "this nginx was built without SSL", &scf->store.name);
    return NULL;
}


#endif
