
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_cache: the filters, in front of add_header, gzip and the like.  A
 * response is captured on its way and stored when all of it was there; an error
 * is replaced by what is stale.
 */


#include "ngx_http_coord_cache.h"


static ngx_int_t ngx_http_coord_cache_header_filter(ngx_http_request_t *r);
static ngx_int_t ngx_http_coord_cache_fill_header(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache);
static ngx_http_coord_cache_t *ngx_http_coord_cache_updating(
    ngx_http_request_t *r);
static ngx_int_t ngx_http_coord_cache_update_header(ngx_http_request_t *r,
    ngx_http_coord_cache_t *update);
static ngx_int_t ngx_http_coord_cache_send_header(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache);
static ngx_int_t ngx_http_coord_cache_sink(ngx_http_request_t *r,
    ngx_chain_t *in);
static ngx_int_t ngx_http_coord_cache_cut(ngx_http_request_t *r,
    ngx_chain_t *in);
static ngx_int_t ngx_http_coord_cache_capture(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache);
static ngx_uint_t ngx_http_coord_cache_replaces(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache);
static ngx_int_t ngx_http_coord_cache_replace(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache);
static ngx_int_t ngx_http_coord_cache_unchanged(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache);
static ngx_int_t ngx_http_coord_cache_serve(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache);
static ngx_int_t ngx_http_coord_cache_body_filter(ngx_http_request_t *r,
    ngx_chain_t *in);
static ngx_int_t ngx_http_coord_cache_update_body(ngx_http_request_t *r,
    ngx_http_coord_cache_t *update, ngx_chain_t *in);
static ngx_int_t ngx_http_coord_cache_swallow(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache, ngx_chain_t *in);
static void ngx_http_coord_cache_seen(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache);


static ngx_http_output_header_filter_pt  ngx_http_next_header_filter;
static ngx_http_output_body_filter_pt    ngx_http_next_body_filter;


ngx_int_t
ngx_http_coord_cache_filter_init(ngx_conf_t *cf)
{
    ngx_http_next_header_filter = ngx_http_top_header_filter;
    ngx_http_top_header_filter = ngx_http_coord_cache_header_filter;

    ngx_http_next_body_filter = ngx_http_top_body_filter;
    ngx_http_top_body_filter = ngx_http_coord_cache_body_filter;

    return NGX_OK;
}


static ngx_int_t
ngx_http_coord_cache_header_filter(ngx_http_request_t *r)
{
    ngx_http_coord_cache_t  *cache;

    if (r != r->main) {
        cache = ngx_http_coord_cache_updating(r);

        return cache ? ngx_http_coord_cache_update_header(r, cache)
                     : ngx_http_next_header_filter(r);
    }

    cache = ngx_http_coord_cache_get(r);

    if (cache && cache->state == NGX_HTTP_COORD_CACHE_UNSAFE) {
        ngx_http_coord_cache_changed(r, cache);
        ngx_http_coord_cache_settle(cache);
    }

    if (cache == NULL
        || cache->state != NGX_HTTP_COORD_CACHE_FILLING
        || (r->headers_out.status < 200
            && r->headers_out.status != NGX_HTTP_SWITCHING_PROTOCOLS))
    {
        return ngx_http_next_header_filter(r);
    }

    if (ngx_http_coord_cache_replaces(r, cache)) {
        return ngx_http_coord_cache_replace(r, cache);
    }

    if (r->headers_out.status == NGX_HTTP_NOT_MODIFIED && cache->conditional) {
        cache->status = NGX_COORD_OUTCOME_REVALIDATED;

        return ngx_http_coord_cache_unchanged(r, cache) == NGX_OK
               ? ngx_http_coord_cache_serve(r, cache) : NGX_ERROR;
    }

    if (ngx_http_coord_cache_fill_header(r, cache) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_http_coord_cache_send_header(r, cache);
}


/* the response is kept from now on, or never */

static ngx_int_t
ngx_http_coord_cache_fill_header(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache)
{
    ngx_int_t  rc;

    rc = ngx_http_coord_cache_rules(r, cache);

    if (rc == NGX_OK) {
        rc = ngx_http_coord_cache_capture(r, cache);
    }

    if (rc == NGX_ERROR) {
        return NGX_ERROR;
    }

    if (rc == NGX_DECLINED) {
        ngx_http_coord_cache_mark(r, cache);
        ngx_http_coord_cache_settle(cache);
    }

    return NGX_OK;
}


/* the update that r is the subrequest of, or NULL */

static ngx_http_coord_cache_t *
ngx_http_coord_cache_updating(ngx_http_request_t *r)
{
    ngx_http_coord_cache_t  *cache;

    cache = ngx_http_coord_cache_get(r);

    return (cache && cache->update && cache->update->request == r)
           ? cache->update : NULL;
}


/* nobody is sent that; what is not kept need not come */

static ngx_int_t
ngx_http_coord_cache_update_header(ngx_http_request_t *r,
    ngx_http_coord_cache_t *update)
{
    ngx_int_t  rc;

    rc = NGX_OK;

    if (update->state == NGX_HTTP_COORD_CACHE_FILLING) {

        rc = (r->headers_out.status == NGX_HTTP_NOT_MODIFIED
              && update->conditional)
             ? ngx_http_coord_cache_unchanged(r, update)
             : ngx_http_coord_cache_fill_header(r, update);
    }

    if (update->state == NGX_HTTP_COORD_CACHE_KEEPING
        && ngx_http_coord_take(r) != NGX_OK)
    {
        rc = NGX_ERROR;
    }

    /* what is not buffered cannot be ended on its way */

    if (update->state == NGX_HTTP_COORD_CACHE_KEEPING
        && update->capture.expected == -1
        && r->upstream
        && !r->upstream->buffering)
    {
        ngx_http_coord_cache_mark(r, update);
        ngx_http_coord_cache_settle(update);
    }

    if (rc != NGX_OK || update->state != NGX_HTTP_COORD_CACHE_KEEPING) {
        ngx_http_coord_cache_settle(update);
        r->header_only = 1;
    }

    r->header_sent = 1;

    return NGX_OK;
}


/* to a client that has the response already no body is sent */

static ngx_int_t
ngx_http_coord_cache_send_header(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache)
{
    ngx_int_t   rc;
    ngx_uint_t  has;

    if (ngx_http_coord_cache_client_refuses(r, &cache->client)) {
        ngx_memzero(&cache->capture, sizeof(ngx_http_coord_capture_t));
        ngx_http_coord_cache_settle(cache);

        return ngx_http_filter_finalize_request(r, NULL,
                                                NGX_HTTP_PRECONDITION_FAILED);
    }

    has = ngx_http_coord_cache_client_apply(r, &cache->client);

    ngx_http_coord_cache_range_allow(r, &cache->client, 0);

    rc = ngx_http_next_header_filter(r);

    if (cache->state != NGX_HTTP_COORD_CACHE_KEEPING) {
        return rc;
    }

    if (rc == NGX_ERROR || rc > NGX_OK) {

        /* what is sent in its place is another one, and not kept */

        ngx_memzero(&cache->capture, sizeof(ngx_http_coord_capture_t));
        ngx_http_coord_cache_settle(cache);

        return rc;
    }

    if (has) {

        /* all of it is to be read nevertheless, also if the client goes */

        r->header_only = 0;
        r->read_event_handler = ngx_http_block_reading;
        cache->capture.next = ngx_http_coord_cache_sink;

    } else if (ngx_http_coord_cache_range_take(r, &cache->client)) {
        r->read_event_handler = ngx_http_block_reading;
        cache->capture.next = ngx_http_coord_cache_cut;

    } else if (r->header_only) {
        ngx_http_coord_capture_header_only(&cache->capture);
        ngx_http_coord_cache_seen(r, cache);
    }

    return rc;
}


/* the body filter behind this one, for a client that is sent none */

static ngx_int_t
ngx_http_coord_cache_sink(ngx_http_request_t *r, ngx_chain_t *in)
{
    for ( /* void */ ; in; in = in->next) {
        in->buf->pos = in->buf->last;
        in->buf->file_pos = in->buf->file_last;
    }

    return NGX_OK;
}


/* the same for one that is sent a part */

static ngx_int_t
ngx_http_coord_cache_cut(ngx_http_request_t *r, ngx_chain_t *in)
{
    ngx_chain_t             *out;
    ngx_http_coord_cache_t  *cache;

    out = in;
    cache = ngx_http_coord_cache_get(r);

    ngx_http_coord_cache_range_cut(&cache->client, &out);

    if (in && out == NULL) {
        return NGX_OK;
    }

    return ngx_http_next_body_filter(r, out);
}


/* NGX_DECLINED: it is too large, or comes in parts of subrequests */

static ngx_int_t
ngx_http_coord_cache_capture(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache)
{
    ngx_http_coord_capture_t  *capture;

    capture = &cache->capture;

    if (r->headers_out.content_length_n > (off_t) cache->conf->max
        || ngx_http_coord_capture_sliced(r))
    {
        return NGX_DECLINED;
    }

    ngx_memzero(capture, sizeof(ngx_http_coord_capture_t));

    capture->max = cache->conf->max;
    capture->keep = ngx_http_coord_cache_keep;
    capture->data = cache;
    capture->next = ngx_http_next_body_filter;

    cache->state = NGX_HTTP_COORD_CACHE_KEEPING;

    if (ngx_http_coord_cache_dated(r) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_http_coord_capture_start(r, capture);
}


/* 1 if what is stale is better than this */

static ngx_uint_t
ngx_http_coord_cache_replaces(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache)
{
    ngx_uint_t  status;

    if (cache->blob.len == 0
        || cache->old >= cache->stored.fresh + cache->stored.error)
    {
        return 0;
    }

    status = ngx_http_coord_cache_failure(r, cache);

    return status == NGX_HTTP_INTERNAL_SERVER_ERROR
           || status == NGX_HTTP_BAD_GATEWAY
           || status == NGX_HTTP_SERVICE_UNAVAILABLE
           || status == NGX_HTTP_GATEWAY_TIME_OUT;
}


/* the header of the stale response; its body takes the place of the other's */

static ngx_int_t
ngx_http_coord_cache_replace(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache)
{
    ngx_keyval_t  mark;

    cache->status = NGX_COORD_OUTCOME_STALE;

    ngx_http_coord_cache_settle(cache);

    ngx_http_clean_header(r);

    if (ngx_http_coord_cache_age(r, cache, &mark) != NGX_OK
        || ngx_http_coord_replay_header(r, &cache->stored.record, &mark)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_http_coord_cache_serve(r, cache);
}


/* a 304: the stored response is stored anew, and is that of r */

static ngx_int_t
ngx_http_coord_cache_unchanged(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache)
{
    ngx_int_t                 rc;
    ngx_http_coord_stored_t  *stored;

    stored = &cache->stored;

    cache->same = ngx_http_coord_cache_same(r, cache);

    if (ngx_http_coord_cache_revalidate(r, cache, cache->same) != NGX_OK) {
        return NGX_ERROR;
    }

    rc = cache->same ? ngx_http_coord_cache_rules(r, cache) : NGX_DECLINED;

    if (rc == NGX_ERROR) {
        return NGX_ERROR;
    }

    /* what is revalidated at each use is stored anew now and then */

    if (rc == NGX_OK
        && (stored->fresh
            || cache->fill.fresh
            || cache->old > stored->keep / 2))
    {
        ngx_http_coord_cache_store(r, cache);
    }

    ngx_http_coord_cache_settle(cache);

    ngx_memzero(&cache->capture, sizeof(ngx_http_coord_capture_t));

    return NGX_OK;
}


static ngx_int_t
ngx_http_coord_cache_serve(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache)
{
    ngx_int_t  rc;

    /* $status is that of what is sent */

    r->err_status = 0;

    if (ngx_http_coord_cache_client_refuses(r, &cache->client)) {
        return ngx_http_filter_finalize_request(r, NULL,
                                                NGX_HTTP_PRECONDITION_FAILED);
    }

    (void) ngx_http_coord_cache_client_apply(r, &cache->client);

    ngx_http_coord_cache_range_allow(r, &cache->client, 1);

    r->filter_need_in_memory = 1;
    cache->serving = 1;

    rc = ngx_http_next_header_filter(r);

    if (rc == NGX_ERROR || rc > NGX_OK) {

        /* another one is sent in its place: there is no such range */

        cache->serving = 0;
        return rc;
    }

    (void) ngx_http_coord_cache_range_take(r, &cache->client);

    return rc;
}


static ngx_int_t
ngx_http_coord_cache_body_filter(ngx_http_request_t *r, ngx_chain_t *in)
{
    ngx_chain_t             *out;
    ngx_http_coord_cache_t  *cache;

    if (r != r->main) {
        cache = ngx_http_coord_cache_updating(r);

        return cache ? ngx_http_coord_cache_update_body(r, cache, in)
                     : ngx_http_coord_capture_beside(r,
                                             ngx_http_next_body_filter, in);
    }

    cache = ngx_http_coord_cache_get(r);

    if (cache == NULL) {
        return ngx_http_next_body_filter(r, in);
    }

    if (cache->serving) {
        return ngx_http_coord_cache_swallow(r, cache, in);
    }

    if (cache->capture.state == NGX_HTTP_COORD_CAPTURE_NONE) {
        return ngx_http_next_body_filter(r, in);
    }

    if (ngx_http_coord_capture_body(r, &cache->capture, in, &out) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_http_coord_cache_seen(r, cache);

    return ngx_http_coord_capture_send(r, &cache->capture, out);
}


/* an error would be one of the connection */

static ngx_int_t
ngx_http_coord_cache_update_body(ngx_http_request_t *r,
    ngx_http_coord_cache_t *update, ngx_chain_t *in)
{
    ngx_chain_t  *cl, *out;

    if (update->state != NGX_HTTP_COORD_CACHE_KEEPING) {
        return ngx_http_coord_cache_sink(r, in);
    }

    /* of a subrequest this is the end */

    for (cl = in; cl; cl = cl->next) {
        if (cl->buf->sync && cl->buf->last_in_chain) {
            cl->buf->last_buf = 1;
        }
    }

    if (ngx_http_coord_capture_body(r, &update->capture, in, &out) != NGX_OK) {
        ngx_http_coord_cache_settle(update);
        return ngx_http_coord_cache_sink(r, in);
    }

    ngx_http_coord_cache_seen(r, update);

    if (update->capture.state == NGX_HTTP_COORD_CAPTURE_PASSING) {
        ngx_http_coord_capture_drop(r, &update->capture);

        if (r->upstream && r->upstream->pipe) {
            r->upstream->pipe->downstream_error = 1;
        }
    }

    return NGX_OK;
}


/* the stale body when that of the error ends */

static ngx_int_t
ngx_http_coord_cache_swallow(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache, ngx_chain_t *in)
{
    ngx_buf_t           *b;
    ngx_uint_t           last;
    ngx_chain_t         *cl;
    ngx_coord_record_t  *record;

    last = 0;

    for (cl = in; cl; cl = cl->next) {
        cl->buf->pos = cl->buf->last;
        cl->buf->file_pos = cl->buf->file_last;
        last |= cl->buf->last_buf;
    }

    if (!last) {
        return ngx_http_next_body_filter(r, NULL);
    }

    cache->serving = 0;
    record = &cache->stored.record;

    b = ngx_calloc_buf(r->pool);
    if (b == NULL) {
        return NGX_ERROR;
    }

    if (record->body_len) {
        b->start = record->body;
        b->pos = record->body;
        b->last = record->body + record->body_len;
        b->end = b->last;
        b->memory = 1;
    }

    b->last_buf = 1;
    b->last_in_chain = 1;

    return ngx_http_coord_cache_range_send(r, &cache->client, b,
                                           ngx_http_next_body_filter);
}


static void
ngx_http_coord_cache_seen(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache)
{
    if (cache->state != NGX_HTTP_COORD_CACHE_KEEPING) {
        return;
    }

    switch (cache->capture.state) {

    case NGX_HTTP_COORD_CAPTURE_WHOLE:

        if (!cache->capture.record.omitted) {
            ngx_http_coord_cache_store(r, cache);
        }

        ngx_http_coord_cache_settle(cache);
        return;

    case NGX_HTTP_COORD_CAPTURE_PASSING:
        ngx_http_coord_cache_mark(r, cache);

        /* fall through */

    case NGX_HTTP_COORD_CAPTURE_CUT:
        ngx_http_coord_cache_settle(cache);
        return;

    default:
        return;
    }
}
