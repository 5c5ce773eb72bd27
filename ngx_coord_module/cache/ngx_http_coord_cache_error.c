
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Whether a response is that of what was asked for, or of another location:
 * error_page and X-Accel-Redirect go there with the same request.
 */


#include "ngx_http_coord_cache.h"


static ngx_uint_t ngx_http_coord_cache_upstream(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache);


void
ngx_http_coord_cache_arrived(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache)
{
    cache->error_page = r->error_page;
    cache->err_status = r->err_status;
    cache->nstates = r->upstream_states ? r->upstream_states->nelts : 0;
}


ngx_uint_t
ngx_http_coord_cache_failure(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache)
{
    ngx_uint_t  status;

    if (!ngx_http_coord_cache_error_page(r, cache)) {
        return r->headers_out.status;
    }

    /* "error_page 502 =200" changes that of nginx */

    status = ngx_http_coord_cache_upstream(r, cache);

    return status >= NGX_HTTP_BAD_REQUEST ? status : r->err_status;
}


/* with recursive_error_pages and "=" only what upstreams have said tells */

ngx_uint_t
ngx_http_coord_cache_error_page(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache)
{
    ngx_uint_t  status;

    if (r->error_page != cache->error_page
        || r->err_status != cache->err_status)
    {
        return 1;
    }

    status = ngx_http_coord_cache_upstream(r, cache);

    return status >= NGX_HTTP_BAD_REQUEST && status != r->headers_out.status;
}


ngx_uint_t
ngx_http_coord_cache_redirected(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache)
{
    ngx_uint_t                  i;
    ngx_http_upstream_t        *u;
    ngx_http_upstream_state_t  *state;

    u = r->upstream;

    if (u == NULL) {
        return 0;
    }

    if (u->headers_in.x_accel_redirect && !ngx_http_coord_capture_live(r)) {
        return 1;
    }

    if (r->upstream_states == NULL) {
        return 0;
    }

    /* or another upstream was asked there */

    state = r->upstream_states->elts;

    i = cache->nstates ? cache->nstates + 1 : 0;

    for (i++; i < r->upstream_states->nelts; i++) {
        if (state[i].peer == NULL) {
            return 1;
        }
    }

    return 0;
}


/*
 * The last status of the upstream that was asked first; a state without a peer
 * is where another location begins.  0: none was.
 */

static ngx_uint_t
ngx_http_coord_cache_upstream(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache)
{
    ngx_uint_t                  i, status;
    ngx_http_upstream_state_t  *state;

    if (r->upstream_states == NULL) {
        return 0;
    }

    state = r->upstream_states->elts;
    status = 0;

    i = cache->nstates ? cache->nstates + 1 : 0;

    for ( /* void */ ; i < r->upstream_states->nelts; i++) {

        if (state[i].peer == NULL) {

            /* there was no name of one */

            return status ? status : NGX_HTTP_BAD_GATEWAY;
        }

        status = state[i].status ? state[i].status : status;
    }

    return status;
}
