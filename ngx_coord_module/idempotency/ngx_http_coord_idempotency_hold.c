
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_idempotency: a response whose header frees the key waits until the
 * store knows that it is free, so that who asks again at once runs.  A filter
 * of its own, behind those of others whose response waits for the same time.
 * What frees it at its end waits where it is captured.
 */


#include "ngx_http_coord_idempotency.h"


static ngx_int_t ngx_http_coord_idempotency_hold_header_filter(
    ngx_http_request_t *r);
static ngx_int_t ngx_http_coord_idempotency_hold_body_filter(
    ngx_http_request_t *r, ngx_chain_t *in);
static ngx_int_t ngx_http_coord_idempotency_hold_init(ngx_conf_t *cf);


static ngx_http_module_t  ngx_http_coord_idempotency_hold_module_ctx = {
    NULL,                                  /* preconfiguration */
    ngx_http_coord_idempotency_hold_init,  /* postconfiguration */

    NULL,                                  /* create main configuration */
    NULL,                                  /* init main configuration */

    NULL,                                  /* create server configuration */
    NULL,                                  /* merge server configuration */

    NULL,                                  /* create location configuration */
    NULL                                   /* merge location configuration */
};


ngx_module_t  ngx_http_coord_idempotency_hold_module = {
    NGX_MODULE_V1,
    &ngx_http_coord_idempotency_hold_module_ctx, /* module context */
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
ngx_http_coord_idempotency_hold_header_filter(ngx_http_request_t *r)
{
    ngx_http_coord_idempotency_t  *run;

    run = (r == r->main) ? ngx_http_coord_run(r) : NULL;

    if (run == NULL) {
        return ngx_http_next_header_filter(r);
    }

    if (run->hold.state == NGX_HTTP_COORD_HOLD_KEPT) {
        ngx_http_coord_hold_drop(&run->hold);
        return ngx_http_next_header_filter(r);
    }

    if (run->freeing.entry == NULL || !ngx_http_coord_hold_can(r)) {
        return ngx_http_next_header_filter(r);
    }

    run->hold.next_header = ngx_http_next_header_filter;
    run->hold.next_body = ngx_http_next_body_filter;

    ngx_http_coord_hold_keep(r, &run->hold);

    return NGX_OK;
}


static ngx_int_t
ngx_http_coord_idempotency_hold_body_filter(ngx_http_request_t *r,
    ngx_chain_t *in)
{
    ngx_http_coord_idempotency_t  *run;

    run = (r == r->main) ? ngx_http_coord_run(r) : NULL;

    if (run == NULL || run->hold.state == NGX_HTTP_COORD_HOLD_NONE) {
        return ngx_http_next_body_filter(r, in);
    }

    return ngx_http_coord_hold_body(r, &run->hold, in);
}


void
ngx_http_coord_run_told(ngx_http_coord_idempotency_t *run)
{
    if (run->capture.held) {
        ngx_http_coord_capture_release(run->request, &run->capture);
    }

    ngx_http_coord_hold_release(&run->hold);
}


static ngx_int_t
ngx_http_coord_idempotency_hold_init(ngx_conf_t *cf)
{
    ngx_http_coord_main_conf_t  *mcf;

    mcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_coord_module);

    if (!(mcf->used & (1 << ngx_http_coord_idempotency_feature.slot))) {
        return NGX_OK;
    }

    ngx_http_next_header_filter = ngx_http_top_header_filter;
    ngx_http_top_header_filter = ngx_http_coord_idempotency_hold_header_filter;

    ngx_http_next_body_filter = ngx_http_top_body_filter;
    ngx_http_top_body_filter = ngx_http_coord_idempotency_hold_body_filter;

    return NGX_OK;
}
