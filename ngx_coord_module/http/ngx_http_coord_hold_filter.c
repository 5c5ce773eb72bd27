
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The response of a client request is kept back until all that features have
 * asked for, and that its client may count on, is certain.  A filter of its
 * own, behind that of sessions, whose response waits for the same time.
 */


#include "ngx_http_coord.h"


static ngx_int_t ngx_http_coord_hold_header_filter(ngx_http_request_t *r);
static ngx_int_t ngx_http_coord_hold_body_filter(ngx_http_request_t *r,
    ngx_chain_t *in);
static ngx_int_t ngx_http_coord_hold_filter_init(ngx_conf_t *cf);


static ngx_http_module_t  ngx_http_coord_hold_filter_module_ctx = {
    NULL,                                  /* preconfiguration */
    ngx_http_coord_hold_filter_init,        /* postconfiguration */

    NULL,                                  /* create main configuration */
    NULL,                                  /* init main configuration */

    NULL,                                  /* create server configuration */
    NULL,                                  /* merge server configuration */

    NULL,                                  /* create location configuration */
    NULL                                   /* merge location configuration */
};


ngx_module_t  ngx_http_coord_hold_filter_module = {
    NGX_MODULE_V1,
    &ngx_http_coord_hold_filter_module_ctx, /* module context */
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
ngx_http_coord_hold_header_filter(ngx_http_request_t *r)
{
    ngx_http_coord_ctx_t  *ctx;

    ctx = (r == r->main) ? ngx_http_coord_get_ctx(r) : NULL;

    if (ctx == NULL) {
        return ngx_http_next_header_filter(r);
    }

    if (ctx->hold.state == NGX_HTTP_COORD_HOLD_KEPT) {
        ngx_http_coord_hold_drop(&ctx->hold);
        return ngx_http_next_header_filter(r);
    }

    if (ctx->awaited == 0 || !ngx_http_coord_hold_can(r)) {
        return ngx_http_next_header_filter(r);
    }

    ctx->hold.next_header = ngx_http_next_header_filter;
    ctx->hold.next_body = ngx_http_next_body_filter;

    ngx_http_coord_hold_keep(r, &ctx->hold);

    return NGX_OK;
}


static ngx_int_t
ngx_http_coord_hold_body_filter(ngx_http_request_t *r, ngx_chain_t *in)
{
    ngx_http_coord_ctx_t  *ctx;

    ctx = (r == r->main) ? ngx_http_coord_get_ctx(r) : NULL;

    if (ctx == NULL || ctx->hold.state == NGX_HTTP_COORD_HOLD_NONE) {
        return ngx_http_next_body_filter(r, in);
    }

    return ngx_http_coord_hold_body(r, &ctx->hold, in);
}


void
ngx_http_coord_awaits(ngx_http_coord_ctx_t *ctx)
{
    ctx->awaited++;
}


void
ngx_http_coord_certain(ngx_http_coord_ctx_t *ctx)
{
    if (--ctx->awaited == 0) {
        ngx_http_coord_hold_release(&ctx->hold);
    }
}


static ngx_int_t
ngx_http_coord_hold_filter_init(ngx_conf_t *cf)
{
    ngx_http_coord_main_conf_t  *mcf;

    mcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_coord_module);

    if (!(mcf->used & mcf->holds)) {
        return NGX_OK;
    }

    ngx_http_next_header_filter = ngx_http_top_header_filter;
    ngx_http_top_header_filter = ngx_http_coord_hold_header_filter;

    ngx_http_next_body_filter = ngx_http_top_body_filter;
    ngx_http_top_body_filter = ngx_http_coord_hold_body_filter;

    return NGX_OK;
}
