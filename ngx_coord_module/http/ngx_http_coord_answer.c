
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * What a client sees of a decision: problem documents (RFC 9457), and the
 * fields that the header filter adds.
 */


#include "ngx_http_coord.h"
#include "ngx_coord_decimal.h"


static ngx_uint_t ngx_http_coord_special(ngx_uint_t status);
static ngx_uint_t ngx_http_coord_error_page(ngx_http_request_t *r,
    ngx_uint_t status);
static ngx_int_t ngx_http_coord_respond_refused(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx);
static ngx_int_t ngx_http_coord_send_document(ngx_http_request_t *r,
    ngx_uint_t status, ngx_str_t *document);
static void ngx_http_coord_reason(ngx_http_request_t *r, ngx_uint_t status);
static size_t ngx_http_coord_problem_size(ngx_http_coord_problem_t *problem);
static u_char *ngx_http_coord_problem_body(u_char *p,
    ngx_http_coord_problem_t *problem);


ngx_int_t
ngx_http_coord_refuse(ngx_http_request_t *r, ngx_http_coord_ctx_t *ctx,
    ngx_http_coord_problem_t *problem)
{
    ngx_str_t  document;

    if (ngx_http_coord_document(r->pool, problem, &document) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_http_coord_refuse_by(r, ctx, problem->status,
                                    problem->retry_after, &document);
}


ngx_int_t
ngx_http_coord_refuse_by(ngx_http_request_t *r, ngx_http_coord_ctx_t *ctx,
    ngx_uint_t status, time_t retry_after, ngx_str_t *document)
{
    if (r == r->main) {
        /* a page with a part that was refused is not */
        ctx->retry_after = retry_after;
    }

    if (ngx_http_coord_special(status)
        || ngx_http_coord_error_page(r, status))
    {
        return status;
    }

    ctx->status = status;
    ctx->document = *document;
    ctx->respond = ngx_http_coord_respond_refused;

    return status;
}


ngx_int_t
ngx_http_coord_refuse_unavailable(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx)
{
    ngx_http_coord_problem_t  problem;

    ngx_memzero(&problem, sizeof(ngx_http_coord_problem_t));

    problem.status = NGX_HTTP_SERVICE_UNAVAILABLE;
    problem.retry_after = 1;

    ngx_str_set(&problem.type, "about:blank");
    ngx_str_set(&problem.title, "Service Unavailable");
    ngx_str_set(&problem.detail, "The store that this request depends on does "
                                 "not answer; try again later.");
    ngx_str_set(&problem.code, "store-unavailable");

    return ngx_http_coord_refuse(r, ctx, &problem);
}


/* statuses that are not sent: nginx closes the connection, or maps them */

static ngx_uint_t
ngx_http_coord_special(ngx_uint_t status)
{
    return status == NGX_HTTP_REQUEST_TIME_OUT
           || status == NGX_HTTP_CLOSE
           || (status >= NGX_HTTP_NGINX_CODES
               && status <= NGX_HTTP_CLIENT_CLOSED_REQUEST);
}


/* the question that ngx_http_special_response_handler() will ask */

static ngx_uint_t
ngx_http_coord_error_page(ngx_http_request_t *r, ngx_uint_t status)
{
    ngx_uint_t                 i;
    ngx_http_err_page_t       *err_page;
    ngx_http_core_loc_conf_t  *clcf;

    clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);

    if (r->error_page || clcf->error_pages == NULL || r->uri_changes == 0) {
        return 0;
    }

    err_page = clcf->error_pages->elts;

    for (i = 0; i < clcf->error_pages->nelts; i++) {
        if (err_page[i].status == (ngx_int_t) status) {
            return 1;
        }
    }

    return 0;
}


static ngx_int_t
ngx_http_coord_respond_refused(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx)
{
    return ngx_http_coord_send_document(r, ctx->status, &ctx->document);
}


ngx_int_t
ngx_http_coord_problem(ngx_http_request_t *r,
    ngx_http_coord_problem_t *problem)
{
    ngx_str_t  document;

    if (ngx_http_coord_document(r->pool, problem, &document) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_http_coord_send_document(r, problem->status, &document);
}


static ngx_int_t
ngx_http_coord_send_document(ngx_http_request_t *r, ngx_uint_t status,
    ngx_str_t *document)
{
    ngx_str_t                 type;
    ngx_http_complex_value_t  cv;

    ngx_memzero(&cv, sizeof(ngx_http_complex_value_t));

    cv.value = *document;

    ngx_str_set(&type, "application/problem+json");

    ngx_http_coord_reason(r, status);

    /* a page for an error of before, that is refused, is none any more */

    r->err_status = 0;

    /* what was known of another response, as with special responses */

    ngx_http_clear_accept_ranges(r);
    ngx_http_clear_last_modified(r);
    ngx_http_clear_etag(r);

    /* no body is asked for that nobody reads, as with special responses */

    r->expect_tested = 1;

    /*
     * The connection may go on if the rest of the request is discarded; a body
     * that is none changes no status, as with special responses.
     */

    if (ngx_http_discard_request_body(r) != NGX_OK) {
        r->keepalive = 0;
        r->headers_in.content_length_n = 0;
        r->headers_in.chunked = 0;
    }

    return ngx_http_send_response(r, status, &type, &cv);
}


/* the reason phrases that nginx has not */

static void
ngx_http_coord_reason(ngx_http_request_t *r, ngx_uint_t status)
{
    switch (status) {

    case 422:
        ngx_str_set(&r->headers_out.status_line, "422 Unprocessable Content");
        break;

    case 423:
        ngx_str_set(&r->headers_out.status_line, "423 Locked");
        break;
    }
}


ngx_int_t
ngx_http_coord_document(ngx_pool_t *pool, ngx_http_coord_problem_t *problem,
    ngx_str_t *document)
{
    document->data = ngx_pnalloc(pool, ngx_http_coord_problem_size(problem));
    if (document->data == NULL) {
        return NGX_ERROR;
    }

    document->len = ngx_http_coord_problem_body(document->data, problem)
                    - document->data;

    return NGX_OK;
}


static size_t
ngx_http_coord_problem_size(ngx_http_coord_problem_t *problem)
{
    return sizeof("{\"type\":\"\",\"title\":\"\",\"status\":,\"detail\":\"\","
                  "\"code\":\"\"}\n") + NGX_INT_T_LEN
           + problem->type.len + problem->title.len + problem->detail.len
           + problem->code.len + problem->members.len;
}


static u_char *
ngx_http_coord_problem_body(u_char *p, ngx_http_coord_problem_t *problem)
{
    p = ngx_coord_literal(p, "{\"type\":\"");
    p = ngx_cpymem(p, problem->type.data, problem->type.len);
    p = ngx_coord_literal(p, "\",\"title\":\"");
    p = ngx_cpymem(p, problem->title.data, problem->title.len);
    p = ngx_coord_literal(p, "\",\"status\":");
    p = ngx_coord_decimal(p, problem->status);

    if (problem->detail.len) {
        p = ngx_coord_literal(p, ",\"detail\":\"");
        p = ngx_cpymem(p, problem->detail.data, problem->detail.len);
        *p++ = '"';
    }

    if (problem->code.len) {
        p = ngx_coord_literal(p, ",\"code\":\"");
        p = ngx_cpymem(p, problem->code.data, problem->code.len);
        *p++ = '"';
    }

    p = ngx_cpymem(p, problem->members.data, problem->members.len);

    *p++ = '}';
    *p++ = LF;

    return p;
}


ngx_int_t
ngx_http_coord_field(ngx_http_request_t *r, ngx_http_coord_ctx_t *ctx,
    ngx_str_t *name, ngx_str_t *value)
{
    ngx_keyval_t  *field;

    if (ctx->fields == NULL) {
        ctx->fields = ngx_array_create(r->pool, 2, sizeof(ngx_keyval_t));
        if (ctx->fields == NULL) {
            return NGX_ERROR;
        }
    }

    field = ngx_array_push(ctx->fields);
    if (field == NULL) {
        return NGX_ERROR;
    }

    field->key = *name;
    field->value = *value;

    return NGX_OK;
}


ngx_http_coord_report_t *
ngx_http_coord_tightest(ngx_http_coord_ctx_t *ctx, ngx_uint_t first,
    ngx_uint_t n)
{
    ngx_uint_t                i;
    ngx_http_coord_report_t  *report, *tightest;

    if (n == 0) {
        return NULL;
    }

    report = ctx->reports.elts;
    report += first;
    tightest = report;

    for (i = 1; i < n; i++) {

        if (report[i].refused != tightest->refused) {
            tightest = report[i].refused ? &report[i] : tightest;
            continue;
        }

        if (report[i].connections != tightest->connections) {
            tightest = report[i].connections ? tightest : &report[i];
            continue;
        }

        if (tightest->refused ? report[i].reset > tightest->reset
                              : report[i].remaining < tightest->remaining)
        {
            tightest = &report[i];
        }
    }

    return tightest;
}
