
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The header filter: Retry-After, the RateLimit fields, fields of features.
 * It runs on the way to the client, so proxy_cache never stores any of them.
 */


#include "ngx_http_coord.h"
#include "ngx_http_coord_fields.h"
#include "ngx_coord_decimal.h"


#define NGX_HTTP_COORD_ITEM_LEN                                               \
    (sizeof(", \"\";q=;qu=\"concurrent-requests\";w=") - 1                    \
     + 2 * NGX_INT64_LEN)


typedef u_char *(*ngx_http_coord_item_pt)(u_char *p,
    ngx_http_coord_report_t *report);


static ngx_int_t ngx_http_coord_header_filter(ngx_http_request_t *r);
static ngx_coord_apart ngx_int_t ngx_http_coord_add_fields(
    ngx_http_request_t *r, ngx_http_coord_ctx_t *ctx);
static ngx_int_t ngx_http_coord_add_draft(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx);
static ngx_int_t ngx_http_coord_add_legacy(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx);
static ngx_uint_t ngx_http_coord_legacy_told(ngx_http_request_t *r,
    ngx_http_coord_report_t *report);
static ngx_int_t ngx_http_coord_policy_list(ngx_http_request_t *r,
    ngx_array_t *reports, ngx_str_t *list);
static ngx_int_t ngx_http_coord_list(ngx_pool_t *pool, ngx_array_t *reports,
    ngx_http_coord_item_pt item, ngx_str_t *list);
static u_char *ngx_http_coord_item_name(u_char *p,
    ngx_http_coord_report_t *report);
static u_char *ngx_http_coord_policy_item(u_char *p,
    ngx_http_coord_report_t *report);
static u_char *ngx_http_coord_limit_item(u_char *p,
    ngx_http_coord_report_t *report);
static ngx_int_t ngx_http_coord_add_field(ngx_http_request_t *r,
    const ngx_str_t *name, ngx_str_t *value);
static ngx_int_t ngx_http_coord_set_number(ngx_http_request_t *r,
    const ngx_str_t *name, ngx_uint_t number);
static ngx_int_t ngx_http_coord_filter_init(ngx_conf_t *cf);


static ngx_http_module_t  ngx_http_coord_filter_module_ctx = {
    NULL,                                  /* preconfiguration */
    ngx_http_coord_filter_init,            /* postconfiguration */

    NULL,                                  /* create main configuration */
    NULL,                                  /* init main configuration */

    NULL,                                  /* create server configuration */
    NULL,                                  /* merge server configuration */

    NULL,                                  /* create location configuration */
    NULL                                   /* merge location configuration */
};


ngx_module_t  ngx_http_coord_filter_module = {
    NGX_MODULE_V1,
    &ngx_http_coord_filter_module_ctx,     /* module context */
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


static const ngx_str_t  ngx_http_coord_retry_after =
    ngx_string("Retry-After");
static const ngx_str_t  ngx_http_coord_policy = ngx_string("RateLimit-Policy");
static const ngx_str_t  ngx_http_coord_limit = ngx_string("RateLimit");
static const ngx_str_t  ngx_http_coord_x_limit =
    ngx_string("X-RateLimit-Limit");
static const ngx_str_t  ngx_http_coord_x_remaining =
    ngx_string("X-RateLimit-Remaining");
static const ngx_str_t  ngx_http_coord_x_reset =
    ngx_string("X-RateLimit-Reset");


static ngx_http_output_header_filter_pt  ngx_http_next_header_filter;


static ngx_int_t
ngx_http_coord_header_filter(ngx_http_request_t *r)
{
    ngx_http_coord_ctx_t  *ctx;

    if (r != r->main) {
        return ngx_http_next_header_filter(r);
    }

    ctx = ngx_http_coord_get_ctx(r);

    if (ctx && !ctx->headers_done) {
        ctx->headers_done = 1;

        if (ngx_http_coord_add_fields(r, ctx) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    return ngx_http_next_header_filter(r);
}


static ngx_int_t
ngx_http_coord_add_fields(ngx_http_request_t *r, ngx_http_coord_ctx_t *ctx)
{
    ngx_uint_t     i;
    ngx_keyval_t  *field;

    /* an error_page may have made something else of a refusal */

    if (ctx->retry_after
        && r->headers_out.status >= NGX_HTTP_BAD_REQUEST
        && ngx_http_coord_set_number(r, &ngx_http_coord_retry_after,
                                     ctx->retry_after)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (ctx->fields) {
        field = ctx->fields->elts;

        for (i = 0; i < ctx->fields->nelts; i++) {
            if (ngx_http_coord_add_field(r, &field[i].key, &field[i].value)
                != NGX_OK)
            {
                return NGX_ERROR;
            }
        }
    }

    /* a redirect is followed at once: the draft advises against the fields */

    if (ctx->reports.nelts
        && (r->headers_out.status < NGX_HTTP_SPECIAL_RESPONSE
            || r->headers_out.status >= NGX_HTTP_BAD_REQUEST))
    {
        if (ctx->limit_headers == NGX_HTTP_COORD_HEADERS_DRAFT) {
            return ngx_http_coord_add_draft(r, ctx);
        }

        if (ctx->limit_headers == NGX_HTTP_COORD_HEADERS_LEGACY) {
            return ngx_http_coord_add_legacy(r, ctx);
        }
    }

    return NGX_OK;
}


/* draft-ietf-httpapi-ratelimit-headers-11, lists of RFC 9651 */

static ngx_int_t
ngx_http_coord_add_draft(ngx_http_request_t *r, ngx_http_coord_ctx_t *ctx)
{
    ngx_str_t  policy, limit;

    if (ngx_http_coord_policy_list(r, &ctx->reports, &policy) != NGX_OK
        || ngx_http_coord_list(r->pool, &ctx->reports,
                               ngx_http_coord_limit_item, &limit)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (ngx_http_coord_add_field(r, &ngx_http_coord_policy, &policy)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_http_coord_add_field(r, &ngx_http_coord_limit, &limit);
}


/* of one limit it is mostly as it was told before */

static ngx_int_t
ngx_http_coord_policy_list(ngx_http_request_t *r, ngx_array_t *reports,
    ngx_str_t *list)
{
    ngx_http_coord_told_t    *told;
    ngx_http_coord_report_t  *report;

    report = reports->elts;
    told = (reports->nelts == 1) ? report->told : NULL;

    if (told == NULL) {
        return ngx_http_coord_list(r->pool, reports,
                                   ngx_http_coord_policy_item, list);
    }

    if (told->text.len == 0) {

        if (ngx_http_coord_list(ngx_cycle->pool, reports,
                                ngx_http_coord_policy_item, &told->text)
            != NGX_OK)
        {
            return NGX_ERROR;
        }

        told->quota = report->quota;
        told->window = report->window;
    }

    if (told->quota != report->quota || told->window != report->window) {
        return ngx_http_coord_list(r->pool, reports,
                                   ngx_http_coord_policy_item, list);
    }

    *list = told->text;

    return NGX_OK;
}


static ngx_int_t
ngx_http_coord_list(ngx_pool_t *pool, ngx_array_t *reports,
    ngx_http_coord_item_pt item, ngx_str_t *list)
{
    u_char                   *p;
    size_t                    size;
    ngx_uint_t                i;
    ngx_http_coord_report_t  *report;

    size = 0;
    report = reports->elts;

    for (i = 0; i < reports->nelts; i++) {
        size += NGX_HTTP_COORD_ITEM_LEN + report[i].policy.len;
    }

    p = ngx_pnalloc(pool, size);
    if (p == NULL) {
        return NGX_ERROR;
    }

    list->data = p;

    for (i = 0; i < reports->nelts; i++) {

        if (i) {
            *p++ = ',';
            *p++ = ' ';
        }

        p = item(p, &report[i]);
    }

    list->len = p - list->data;

    return NGX_OK;
}


static u_char *
ngx_http_coord_item_name(u_char *p, ngx_http_coord_report_t *report)
{
    *p++ = '"';
    p = ngx_cpymem(p, report->policy.data, report->policy.len);
    *p++ = '"';

    return p;
}


static u_char *
ngx_http_coord_policy_item(u_char *p, ngx_http_coord_report_t *report)
{
    p = ngx_http_coord_item_name(p, report);
    p = ngx_coord_literal(p, ";q=");
    p = ngx_coord_decimal(p, report->quota);

    if (report->connections) {
        p = ngx_coord_literal(p, ";qu=\"concurrent-requests\"");
    }

    if (report->bytes) {
        p = ngx_coord_literal(p, ";qu=\"content-bytes\"");
    }

    if (report->window) {
        p = ngx_coord_literal(p, ";w=");
        p = ngx_coord_decimal(p, report->window);
    }

    return p;
}


static u_char *
ngx_http_coord_limit_item(u_char *p, ngx_http_coord_report_t *report)
{
    p = ngx_http_coord_item_name(p, report);
    p = ngx_coord_literal(p, ";r=");
    p = ngx_coord_decimal(p, report->remaining);

    if (!report->connections) {
        p = ngx_coord_literal(p, ";t=");
        p = ngx_coord_decimal(p, report->reset);
    }

    return p;
}


/* the legacy fields tell one limit: the one that refused, or is nearest to */

static ngx_int_t
ngx_http_coord_add_legacy(ngx_http_request_t *r, ngx_http_coord_ctx_t *ctx)
{
    ngx_http_coord_report_t  *report;

    report = ngx_http_coord_tightest(ctx, 0, ctx->reports.nelts);

    if (ngx_http_coord_legacy_told(r, report)) {
        return NGX_OK;
    }

    if (ngx_http_coord_set_number(r, &ngx_http_coord_x_limit, report->quota)
        != NGX_OK
        || ngx_http_coord_set_number(r, &ngx_http_coord_x_remaining,
                                     report->remaining)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (report->connections) {
        ngx_http_coord_field_remove(&r->headers_out.headers,
                                    &ngx_http_coord_x_reset);
        return NGX_OK;
    }

    return ngx_http_coord_set_number(r, &ngx_http_coord_x_reset, report->reset);
}


/* an upstream has a limit of its own, of which less is left */

static ngx_uint_t
ngx_http_coord_legacy_told(ngx_http_request_t *r,
    ngx_http_coord_report_t *report)
{
    ngx_int_t   left;
    ngx_str_t  *value;
    ngx_uint_t  i;

    i = 0;
    value = ngx_http_coord_field_line(&r->headers_out.headers,
                                      "X-RateLimit-Remaining", &i);

    if (value == NULL || report->refused) {
        return 0;
    }

    left = ngx_atoi(value->data, value->len);

    return left != NGX_ERROR && (ngx_uint_t) left < report->remaining;
}


static ngx_int_t
ngx_http_coord_add_field(ngx_http_request_t *r, const ngx_str_t *name,
    ngx_str_t *value)
{
    ngx_table_elt_t  *h;

    h = ngx_list_push(&r->headers_out.headers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    ngx_memzero(h, sizeof(ngx_table_elt_t));

    h->hash = 1;
    h->key = *name;
    h->value = *value;

    return NGX_OK;
}


/* a field that has one value: what an upstream has sent gives way */

static ngx_int_t
ngx_http_coord_set_number(ngx_http_request_t *r, const ngx_str_t *name,
    ngx_uint_t number)
{
    ngx_str_t  value;

    ngx_http_coord_field_remove(&r->headers_out.headers, name);

    value.data = ngx_pnalloc(r->pool, NGX_INT_T_LEN);
    if (value.data == NULL) {
        return NGX_ERROR;
    }

    value.len = ngx_coord_decimal(value.data, number) - value.data;

    return ngx_http_coord_add_field(r, name, &value);
}


static ngx_int_t
ngx_http_coord_filter_init(ngx_conf_t *cf)
{
    ngx_uint_t                   used;
    ngx_http_coord_main_conf_t  *mcf;

    mcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_coord_module);

    used = mcf->used;

    /* variables alone add no field */

    if (mcf->supply) {
        used &= ~((ngx_uint_t) 1 << mcf->supply->feature->slot);
    }

    if (used == 0) {
        return NGX_OK;
    }

    ngx_http_next_header_filter = ngx_http_top_header_filter;
    ngx_http_top_header_filter = ngx_http_coord_header_filter;

    return NGX_OK;
}
