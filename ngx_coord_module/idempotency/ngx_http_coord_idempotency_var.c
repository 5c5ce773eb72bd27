
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_idempotency: variables.
 */


#include "ngx_http_coord_idempotency.h"


static ngx_int_t ngx_http_coord_idempotency_status_variable(
    ngx_http_request_t *r, ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_coord_request_digest_variable(
    ngx_http_request_t *r, ngx_http_variable_value_t *v, uintptr_t data);


ngx_http_variable_t  ngx_http_coord_idempotency_vars[] = {

    { ngx_string("coord_idempotency_status"), NULL,
      ngx_http_coord_idempotency_status_variable,
      0, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("coord_request_digest"), NULL,
      ngx_http_coord_request_digest_variable,
      0, NGX_HTTP_VAR_NOCACHEABLE, 0 },

      ngx_http_null_variable
};


static ngx_int_t
ngx_http_coord_idempotency_status_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_http_coord_idempotency_t  *state;

    state = ngx_http_coord_idempotency_state(r);

    if (state == NULL || state->status == NGX_HTTP_COORD_IDEMPOTENCY_NONE) {
        v->not_found = 1;
        return NGX_OK;
    }

    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;
    v->data = ngx_http_coord_idempotency_statuses[state->status].data;
    v->len = ngx_http_coord_idempotency_statuses[state->status].len;

    return NGX_OK;
}


/* empty until the body has been read */

static ngx_int_t
ngx_http_coord_request_digest_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    u_char  digest[NGX_COORD_DIGEST_LEN];

    r = r->main;

    if (r->request_body == NULL) {
        v->not_found = 1;
        return NGX_OK;
    }

    v->data = ngx_pnalloc(r->pool, 2 * NGX_COORD_DIGEST_LEN);
    if (v->data == NULL) {
        return NGX_ERROR;
    }

    if (ngx_http_coord_idempotency_digest(r, 0, digest) != NGX_OK) {
        return NGX_ERROR;
    }

    (void) ngx_hex_dump(v->data, digest, NGX_COORD_DIGEST_LEN);

    v->len = 2 * NGX_COORD_DIGEST_LEN;
    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;

    return NGX_OK;
}
