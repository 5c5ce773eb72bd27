
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_idempotency: the header filter, in front of add_header and the like:
 * what is to become of the response, and its fields.
 */


#include "ngx_http_coord_idempotency.h"


static ngx_int_t ngx_http_coord_idempotency_header_filter(
    ngx_http_request_t *r);
static ngx_int_t ngx_http_coord_idempotency_send_header(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *state);
static ngx_int_t ngx_http_coord_idempotency_outcome(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *state);
static ngx_uint_t ngx_http_coord_idempotency_grpc(ngx_http_request_t *r);
static ngx_uint_t ngx_http_coord_idempotency_live(ngx_http_request_t *r);
static ngx_uint_t ngx_http_coord_idempotency_storable(
    ngx_http_coord_idempotency_conf_t *icf, ngx_uint_t status);
static ngx_uint_t ngx_http_coord_idempotency_stream(ngx_http_request_t *r);
static ngx_int_t ngx_http_coord_idempotency_headers(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *state);
static ngx_int_t ngx_http_coord_idempotency_header_list(
    ngx_http_coord_idempotency_t *state, ngx_list_t *headers);
static ngx_int_t ngx_http_coord_idempotency_modified(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *state);
static ngx_uint_t ngx_http_coord_idempotency_keep(
    ngx_http_coord_idempotency_conf_t *icf, ngx_str_t *name);
static ngx_uint_t ngx_http_coord_idempotency_listed(ngx_array_t *names,
    ngx_str_t *name);
static ngx_int_t ngx_http_coord_idempotency_field(
    ngx_http_coord_capture_t *capture, ngx_str_t *key, ngx_str_t *value);


/* never stored, unless passed: of this transfer, or of this client */

static const ngx_str_t  ngx_http_coord_idempotency_hidden[] = {
    ngx_string("date"),
    ngx_string("idempotency-replayed"),
    ngx_string("server"),
    ngx_string("set-cookie"),
    ngx_string("set-cookie2"),
    ngx_null_string
};


/* the same request may do better later: released in spite of 4xx */

static const ngx_uint_t  ngx_http_coord_idempotency_again[] = {
    401, 403, 407, 408, 409, 423, 425, 429, 0
};


/*
 * statuses of gRPC that are results: OK, INVALID_ARGUMENT, NOT_FOUND,
 * ALREADY_EXISTS, FAILED_PRECONDITION and OUT_OF_RANGE
 */

#define NGX_HTTP_COORD_GRPC_KEPT                                              \
    (1 << 0 | 1 << 3 | 1 << 5 | 1 << 6 | 1 << 9 | 1 << 11)


static ngx_str_t  ngx_http_coord_last_modified = ngx_string("Last-Modified");


static ngx_http_output_header_filter_pt  ngx_http_next_header_filter;


ngx_int_t
ngx_http_coord_idempotency_filter_init(ngx_conf_t *cf)
{
    ngx_http_next_header_filter = ngx_http_top_header_filter;
    ngx_http_top_header_filter = ngx_http_coord_idempotency_header_filter;

    return ngx_http_coord_idempotency_capture_init(cf);
}


static ngx_int_t
ngx_http_coord_idempotency_header_filter(ngx_http_request_t *r)
{
    ngx_int_t                      rc;
    ngx_http_coord_idempotency_t  *state;

    if (r != r->main) {
        return ngx_http_next_header_filter(r);
    }

    state = ngx_http_coord_idempotency_state(r);

    if (state == NULL || state->phase != NGX_HTTP_COORD_IDEMPOTENCY_RUNNING) {
        return ngx_http_next_header_filter(r);
    }

    rc = ngx_http_coord_idempotency_outcome(r, state);

    ngx_log_debug2(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                   "coord idempotency outcome of %ui: %i",
                   r->headers_out.status, rc);

    if (rc == NGX_AGAIN && !state->detached) {
        return ngx_http_next_header_filter(r);
    }

    if (rc != NGX_OK) {

        if (rc == NGX_DECLINED) {
            ngx_http_coord_idempotency_release(state);

        } else {
            ngx_http_coord_idempotency_unknown(state);
        }

        /* nobody reads it, nobody stores it */

        return state->detached ? NGX_ERROR : ngx_http_next_header_filter(r);
    }

    if (ngx_http_coord_idempotency_headers(r, state) != NGX_OK) {
        return NGX_ERROR;
    }

    if (ngx_http_coord_idempotency_stream(r)) {

        /* has no end to wait for when the client is gone */

        ngx_http_coord_idempotency_unguard(state);
    }

    rc = ngx_http_coord_idempotency_send_header(r, state);

    if (r->header_only) {
        ngx_http_coord_idempotency_finish(state);
    }

    return rc;
}


static ngx_int_t
ngx_http_coord_idempotency_send_header(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *state)
{
    ngx_int_t          rc;
    ngx_connection_t  *c;

    c = r->connection;

    if (c->error && state->guarded && !state->detached) {
        ngx_http_coord_idempotency_detach(state);
    }

    if (!state->detached) {

        if (r->headers_out.status == NGX_HTTP_NO_CONTENT) {
            ngx_http_coord_idempotency_finish(state);
        }

        rc = ngx_http_next_header_filter(r);

        if (rc != NGX_ERROR || !c->error || !state->guarded) {
            return rc;
        }

        ngx_http_coord_idempotency_detach(state);
    }

    r->header_sent = 1;

    if (r->headers_out.status == NGX_HTTP_NO_CONTENT) {
        r->header_only = 1;
    }

    return NGX_OK;
}


/*
 * NGX_OK: to be stored; NGX_DECLINED: the key is free; NGX_AGAIN: what is
 * passed on is no outcome; NGX_ERROR: unknown.
 */

static ngx_int_t
ngx_http_coord_idempotency_outcome(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *state)
{
    ngx_int_t   rc;
    ngx_uint_t  status;

    status = r->headers_out.status;

    if (!ngx_http_coord_idempotency_live(r)) {

        /* a response of nginx itself */

        rc = ngx_http_coord_idempotency_attempts(r);

        if (rc != NGX_OK) {
            return rc;
        }
    }

    if (status < 200 && status != NGX_HTTP_SWITCHING_PROTOCOLS) {

        /* what nginx takes for the response is not it */

        return NGX_AGAIN;
    }

    if (status == NGX_HTTP_PARTIAL_CONTENT
        || status == NGX_HTTP_NOT_MODIFIED)
    {
        /* nobody has asked for it */

        return NGX_ERROR;
    }

    if (status > 599
        || !ngx_http_coord_idempotency_storable(state->conf, status))
    {
        return NGX_DECLINED;
    }

    rc = ngx_http_coord_idempotency_grpc_status(r, &r->headers_out.headers);

    return (rc == NGX_DECLINED) ? NGX_DECLINED : NGX_OK;
}


/* 1 if the response has to have a grpc-status */

static ngx_uint_t
ngx_http_coord_idempotency_grpc(ngx_http_request_t *r)
{
    ngx_str_t  *type;

    type = &r->headers_out.content_type;

    return type->len >= sizeof("application/grpc") - 1
           && ngx_strncasecmp(type->data, (u_char *) "application/grpc",
                              sizeof("application/grpc") - 1)
              == 0
           && (type->len == sizeof("application/grpc") - 1
               || type->data[sizeof("application/grpc") - 1] == '+'
               || type->data[sizeof("application/grpc") - 1] == ';');
}


ngx_int_t
ngx_http_coord_idempotency_grpc_status(ngx_http_request_t *r,
    ngx_list_t *headers)
{
    ngx_int_t         status;
    ngx_uint_t        i;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h;

    part = &headers->part;
    h = part->elts;

    for (i = 0; /* void */ ; i++) {

        if (i >= part->nelts) {
            if (part->next == NULL) {
                return ngx_http_coord_idempotency_grpc(r) ? NGX_ERROR : NGX_OK;
            }

            part = part->next;
            h = part->elts;
            i = 0;
        }

        if (h[i].key.len == sizeof("grpc-status") - 1
            && ngx_strncasecmp(h[i].key.data, (u_char *) "grpc-status",
                               h[i].key.len)
               == 0)
        {
            break;
        }
    }

    status = ngx_atoi(h[i].value.data, h[i].value.len);

    if (status < 0 || status >= 32) {
        return NGX_DECLINED;
    }

    return (NGX_HTTP_COORD_GRPC_KEPT & (1 << status)) ? NGX_OK : NGX_DECLINED;
}


/* 1 if the response is being read from an upstream */

static ngx_uint_t
ngx_http_coord_idempotency_live(ngx_http_request_t *r)
{
    return r->upstream
           && r->upstream->cleanup
           && r->upstream->headers_in.status_n;
}


ngx_int_t
ngx_http_coord_idempotency_attempts(ngx_http_request_t *r)
{
    ngx_uint_t                  i, tried, sent;
    ngx_http_upstream_state_t  *u;

    if (r->upstream_states == NULL) {
        return NGX_OK;
    }

    tried = 0;
    sent = 0;
    u = r->upstream_states->elts;

    for (i = 0; i < r->upstream_states->nelts; i++) {

        if (u[i].peer == NULL) {
            continue;
        }

        if (u[i].header_time != (ngx_msec_t) -1) {
            return NGX_OK;
        }

        tried = 1;
        sent |= (u[i].bytes_sent > 0);
    }

    if (!tried) {
        return NGX_OK;
    }

    return sent ? NGX_ERROR : NGX_DECLINED;
}


static ngx_uint_t
ngx_http_coord_idempotency_storable(ngx_http_coord_idempotency_conf_t *icf,
    ngx_uint_t status)
{
    ngx_uint_t                          i, class;
    ngx_http_coord_idempotency_code_t  *code;

    class = 0;

    if (icf->store_status == NULL) {
        class = (status < 500);

    } else {
        code = icf->store_status->elts;

        for (i = 0; i < icf->store_status->nelts; i++) {

            if (code[i] == status) {
                return 1;
            }

            class |= (code[i] == status / 100);
        }
    }

    for (i = 0; class && ngx_http_coord_idempotency_again[i]; i++) {
        if (ngx_http_coord_idempotency_again[i] == status) {
            return 0;
        }
    }

    return class;
}


static ngx_uint_t
ngx_http_coord_idempotency_stream(ngx_http_request_t *r)
{
    return r->headers_out.content_type.len >= sizeof("text/event-stream") - 1
           && ngx_strncasecmp(r->headers_out.content_type.data,
                              (u_char *) "text/event-stream",
                              sizeof("text/event-stream") - 1)
              == 0;
}


static ngx_int_t
ngx_http_coord_idempotency_headers(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *state)
{
    ngx_str_t                 *line;
    ngx_coord_record_t        *record;
    ngx_http_headers_out_t    *ho;
    ngx_http_coord_capture_t  *capture;

    ho = &r->headers_out;
    capture = &state->capture;
    record = &capture->record;

    ngx_memzero(capture, sizeof(ngx_http_coord_capture_t));

    if (ngx_array_init(&capture->fields, r->pool, 8, sizeof(ngx_keyval_t))
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    capture->on = 1;
    capture->over = state->shadow;
    capture->upstream = ngx_http_coord_idempotency_live(r);
    capture->trailers = capture->upstream && r->upstream->conf->pass_trailers;
    capture->expected = ho->content_length_n;

    if (!state->shadow) {
        r->filter_need_in_memory = 1;
        r->allow_ranges = 0;
    }

    record->status = ho->status;
    record->location = (ho->location != NULL);

    line = &ho->status_line;

    if (line->len >= 3
        && line->len <= 255
        && ngx_atoi(line->data, 3) == (ngx_int_t) record->status
        && (line->len == 3 || line->data[3] == ' ')
        && ngx_coord_record_value(line))
    {
        record->status_line = *line;
    }

    if (ho->content_type.len <= NGX_COORD_RECORD_VALUE
        && ho->content_type_len <= ho->content_type.len
        && ho->charset.len <= 255
        && ngx_coord_record_value(&ho->content_type)
        && ngx_coord_record_value(&ho->charset))
    {
        record->content_type = ho->content_type;
        record->content_type_len = ho->content_type_len;
        record->charset = ho->charset;
    }

    if (ngx_http_coord_idempotency_header_list(state, &ho->headers)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_http_coord_idempotency_modified(r, state);
}


ngx_int_t
ngx_http_coord_idempotency_trailers(ngx_http_coord_idempotency_t *state)
{
    ngx_list_t                *trailers;
    ngx_keyval_t              *field;
    ngx_http_coord_capture_t  *capture;

    capture = &state->capture;
    trailers = &state->request->headers_out.trailers;

    /* without the body they belong to they would mislead */

    if (trailers->part.nelts == 0
        || capture->over
        || capture->fields.nelts == NGX_COORD_RECORD_FIELDS)
    {
        return NGX_OK;
    }

    field = ngx_array_push(&capture->fields);
    if (field == NULL) {
        return NGX_ERROR;
    }

    ngx_str_null(&field->key);
    ngx_str_null(&field->value);

    return ngx_http_coord_idempotency_header_list(state, trailers);
}


static ngx_int_t
ngx_http_coord_idempotency_header_list(ngx_http_coord_idempotency_t *state,
    ngx_list_t *headers)
{
    ngx_uint_t        i;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h;

    part = &headers->part;
    h = part->elts;

    for (i = 0; /* void */ ; i++) {

        if (i >= part->nelts) {
            if (part->next == NULL) {
                break;
            }

            part = part->next;
            h = part->elts;
            i = 0;
        }

        if (h[i].hash == 0
            || !ngx_http_coord_idempotency_keep(state->conf, &h[i].key))
        {
            continue;
        }

        if (ngx_http_coord_idempotency_field(&state->capture, &h[i].key,
                                             &h[i].value)
            != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_coord_idempotency_modified(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *state)
{
    ngx_str_t  value;

    if (r->headers_out.last_modified
        || r->headers_out.last_modified_time == -1
        || !ngx_http_coord_idempotency_keep(state->conf,
                                            &ngx_http_coord_last_modified))
    {
        return NGX_OK;
    }

    value.data = ngx_pnalloc(r->pool, sizeof("Mon, 28 Sep 1970 06:00:00 GMT"));
    if (value.data == NULL) {
        return NGX_ERROR;
    }

    value.len = ngx_http_time(value.data, r->headers_out.last_modified_time)
                - value.data;

    return ngx_http_coord_idempotency_field(&state->capture,
                                            &ngx_http_coord_last_modified,
                                            &value);
}


static ngx_uint_t
ngx_http_coord_idempotency_keep(ngx_http_coord_idempotency_conf_t *icf,
    ngx_str_t *name)
{
    const ngx_str_t  *hidden;

    if (ngx_http_coord_idempotency_listed(icf->hide, name)) {
        return 0;
    }

    for (hidden = ngx_http_coord_idempotency_hidden; hidden->len; hidden++) {
        if (hidden->len == name->len
            && ngx_strncasecmp(hidden->data, name->data, name->len) == 0)
        {
            return ngx_http_coord_idempotency_listed(icf->pass, name);
        }
    }

    return 1;
}


static ngx_uint_t
ngx_http_coord_idempotency_listed(ngx_array_t *names, ngx_str_t *name)
{
    ngx_str_t   *s;
    ngx_uint_t   i;

    if (names == NULL) {
        return 0;
    }

    s = names->elts;

    for (i = 0; i < names->nelts; i++) {
        if (s[i].len == name->len
            && ngx_strncasecmp(s[i].data, name->data, name->len) == 0)
        {
            return 1;
        }
    }

    return 0;
}


static ngx_int_t
ngx_http_coord_idempotency_field(ngx_http_coord_capture_t *capture,
    ngx_str_t *key, ngx_str_t *value)
{
    ngx_keyval_t  *field;

    if (!ngx_coord_record_field(key, value)
        || capture->fields.nelts == NGX_COORD_RECORD_FIELDS)
    {
        return NGX_OK;
    }

    field = ngx_array_push(&capture->fields);
    if (field == NULL) {
        return NGX_ERROR;
    }

    field->key = *key;
    field->value = *value;

    return NGX_OK;
}

