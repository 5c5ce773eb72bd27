
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_session: the filters, in front of that which adds fields, and behind
 * those that capture responses.
 */


#include "ngx_http_coord.h"
#include "ngx_http_coord_session.h"


static ngx_int_t ngx_http_coord_session_header_filter(ngx_http_request_t *r);
static ngx_int_t ngx_http_coord_session_filter_cookie(ngx_http_request_t *r);
static ngx_int_t ngx_http_coord_session_body_filter(ngx_http_request_t *r,
    ngx_chain_t *in);
static ngx_http_coord_session_client_t *ngx_http_coord_session_of(
    ngx_http_request_t *r);
static ngx_int_t ngx_http_coord_session_filter_init(ngx_conf_t *cf);


static ngx_http_module_t  ngx_http_coord_session_filter_module_ctx = {
    NULL,                                  /* preconfiguration */
    ngx_http_coord_session_filter_init,    /* postconfiguration */

    NULL,                                  /* create main configuration */
    NULL,                                  /* init main configuration */

    NULL,                                  /* create server configuration */
    NULL,                                  /* merge server configuration */

    NULL,                                  /* create location configuration */
    NULL                                   /* merge location configuration */
};


ngx_module_t  ngx_http_coord_session_filter_module = {
    NGX_MODULE_V1,
    &ngx_http_coord_session_filter_module_ctx, /* module context */
    NULL,                                  /* module directives */
    NGX_HTTP_MODULE,                       /* module type */
    NULL,                                  /* init master */
    NULL,                                  /* init module */
    NULL,                                  /* init process */
    NULL,                                  /* init thread */
    NULL,                                  /* exit thread */
    NULL,                                  /* exit process */
    NULL,                                  /* exit master */
    NGX_MODULE_V1_PADDING
};


static ngx_http_output_header_filter_pt  ngx_http_next_header_filter;
static ngx_http_output_body_filter_pt    ngx_http_next_body_filter;


static ngx_int_t
ngx_http_coord_session_header_filter(ngx_http_request_t *r)
{
    ngx_int_t                         rc;
    ngx_http_coord_session_client_t  *client;

    client = ngx_http_coord_session_of(r);

    if (client == NULL || client->state == NULL) {
        return (ngx_http_coord_session_filter_cookie(r) == NGX_OK)
               ? ngx_http_next_header_filter(r) : NGX_ERROR;
    }

    if (client->hold.state == NGX_HTTP_COORD_HOLD_KEPT) {
        ngx_http_coord_hold_drop(&client->hold);
        return ngx_http_next_header_filter(r);
    }

    client->hold.next_header = ngx_http_next_header_filter;
    client->hold.next_body = ngx_http_next_body_filter;

    rc = ngx_http_coord_session_response(r, client);

    if (rc == NGX_ERROR) {
        return NGX_ERROR;
    }

    if (rc == NGX_AGAIN) {
        ngx_http_coord_hold_keep(r, &client->hold);
        return NGX_OK;
    }

    return ngx_http_next_header_filter(r);
}


/* a cookie that names no session here, or of an answer of the rewrite phase */

static ngx_int_t
ngx_http_coord_session_filter_cookie(ngx_http_request_t *r)
{
    ngx_int_t  rc;
    ngx_str_t  old, next;

    if (r != r->main) {
        return NGX_OK;
    }

    if (ngx_http_coord_session_cookie_issue(r) != NGX_OK) {
        return NGX_ERROR;
    }

    rc = ngx_http_coord_session_cookie_next(r, &old, &next);

    if (rc != NGX_OK) {
        return (rc == NGX_DECLINED) ? NGX_OK : NGX_ERROR;
    }

    return ngx_http_coord_session_cookie_rotate(r, &next);
}


static ngx_int_t
ngx_http_coord_session_body_filter(ngx_http_request_t *r, ngx_chain_t *in)
{
    ngx_http_coord_session_client_t  *client;

    client = ngx_http_coord_session_of(r);

    if (client == NULL || client->hold.state == NGX_HTTP_COORD_HOLD_NONE) {
        return ngx_http_next_body_filter(r, in);
    }

    return ngx_http_coord_hold_body(r, &client->hold, in);
}


/* what the feature has of a client request; NULL: nothing, or a subrequest */

static ngx_http_coord_session_client_t *
ngx_http_coord_session_of(ngx_http_request_t *r)
{
    ngx_http_coord_ctx_t  *ctx;

    if (r != r->main) {
        return NULL;
    }

    ctx = ngx_http_coord_get_ctx(r);

    return ctx ? ctx->state[ngx_http_coord_session_feature.slot] : NULL;
}


static ngx_int_t
ngx_http_coord_session_filter_init(ngx_conf_t *cf)
{
    ngx_http_coord_main_conf_t  *mcf;

    mcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_coord_module);

    if ((mcf->used & (1 << ngx_http_coord_session_feature.slot)) == 0) {
        return NGX_OK;
    }

    ngx_http_next_header_filter = ngx_http_top_header_filter;
    ngx_http_top_header_filter = ngx_http_coord_session_header_filter;

    ngx_http_next_body_filter = ngx_http_top_body_filter;
    ngx_http_top_body_filter = ngx_http_coord_session_body_filter;

    return NGX_OK;
}
