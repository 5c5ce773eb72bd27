
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_idempotency: the filters that capture a response.
 *
 * They stand before add_header, gzip and the like.  Buffers of the upstream
 * end here: they are copied, and the copy is what the client is sent and what
 * is stored.  So neither a slow nor a lost client holds up the upstream, up to
 * max_response; beyond that the response passes through a few buffers.
 */


#include "ngx_http_coord_idempotency.h"


/* buffers of the captured body grow up to this size */
#define NGX_HTTP_COORD_CAPTURE_MIN   4096
#define NGX_HTTP_COORD_CAPTURE_MAX   65536

/* what passes when the body is not kept */
#define NGX_HTTP_COORD_CAPTURE_BUFS  2
#define NGX_HTTP_COORD_CAPTURE_BUF   32768

/* of c->buffered: a bit that neither nginx nor a known module uses */
#define NGX_HTTP_COORD_BUFFERED      0x40


static ngx_int_t ngx_http_coord_idempotency_header_filter(
    ngx_http_request_t *r);
static ngx_int_t ngx_http_coord_idempotency_send_header(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *state);
static ngx_int_t ngx_http_coord_idempotency_outcome(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *state);
static ngx_uint_t ngx_http_coord_idempotency_live(ngx_http_request_t *r);
static ngx_uint_t ngx_http_coord_idempotency_storable(
    ngx_http_coord_idempotency_conf_t *icf, ngx_uint_t status);
static ngx_uint_t ngx_http_coord_idempotency_stream(ngx_http_request_t *r);
static ngx_int_t ngx_http_coord_idempotency_headers(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *state);
static ngx_int_t ngx_http_coord_idempotency_header_list(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *state);
static ngx_uint_t ngx_http_coord_idempotency_keep(
    ngx_http_coord_idempotency_conf_t *icf, ngx_str_t *name);
static ngx_uint_t ngx_http_coord_idempotency_listed(ngx_array_t *names,
    ngx_str_t *name);
static ngx_int_t ngx_http_coord_idempotency_field(
    ngx_http_coord_capture_t *capture, ngx_str_t *key, ngx_str_t *value);
static ngx_int_t ngx_http_coord_idempotency_body_filter(ngx_http_request_t *r,
    ngx_chain_t *in);
static ngx_int_t ngx_http_coord_idempotency_send_body(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *state, ngx_chain_t *out);
static ngx_int_t ngx_http_coord_idempotency_observe(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *state, ngx_chain_t *in);
static ngx_int_t ngx_http_coord_idempotency_capture(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *state, ngx_chain_t *in, ngx_chain_t **out);
static ngx_chain_t **ngx_http_coord_idempotency_store(ngx_http_request_t *r,
    ngx_http_coord_capture_t *capture, ngx_buf_t *b, ngx_chain_t **ll);
static ngx_buf_t *ngx_http_coord_idempotency_room(ngx_http_request_t *r,
    ngx_http_coord_capture_t *capture, size_t size);
static ngx_int_t ngx_http_coord_idempotency_pass(ngx_http_request_t *r,
    ngx_http_coord_capture_t *capture);
static ngx_int_t ngx_http_coord_idempotency_fill(ngx_http_request_t *r,
    ngx_http_coord_capture_t *capture, ngx_chain_t **out);
static ngx_int_t ngx_http_coord_idempotency_buf(ngx_http_request_t *r,
    ngx_http_coord_capture_t *capture, size_t size, ngx_chain_t **link);
static void ngx_http_coord_idempotency_drop(ngx_http_request_t *r,
    ngx_http_coord_capture_t *capture);
static void ngx_http_coord_idempotency_flags(ngx_buf_t *dst, ngx_buf_t *src);
static void ngx_http_coord_idempotency_finish(
    ngx_http_coord_idempotency_t *state);


/* never stored, unless passed: of this transfer, or of this client */

static const ngx_str_t  ngx_http_coord_idempotency_hidden[] = {
    ngx_string("date"),
    ngx_string("idempotency-replayed"),
    ngx_string("server"),
    ngx_string("set-cookie"),
    ngx_string("set-cookie2"),
    ngx_null_string
};


/* clients are told to come again: released in spite of 4xx */

static const ngx_uint_t  ngx_http_coord_idempotency_again[] = {
    408, 409, 423, 425, 429, 0
};


static ngx_str_t  ngx_http_coord_last_modified = ngx_string("Last-Modified");


static ngx_http_output_header_filter_pt  ngx_http_next_header_filter;
static ngx_http_output_body_filter_pt    ngx_http_next_body_filter;


ngx_int_t
ngx_http_coord_idempotency_filter_init(ngx_conf_t *cf)
{
    ngx_http_next_header_filter = ngx_http_top_header_filter;
    ngx_http_top_header_filter = ngx_http_coord_idempotency_header_filter;

    ngx_http_next_body_filter = ngx_http_top_body_filter;
    ngx_http_top_body_filter = ngx_http_coord_idempotency_body_filter;

    return NGX_OK;
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


/* NGX_OK: to be stored; NGX_DECLINED: the key is free; NGX_ERROR: unknown */

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

    /* parts and "not modified" answer a condition that others may not have */

    if (status < 200
        || status > 599
        || status == NGX_HTTP_PARTIAL_CONTENT
        || status == NGX_HTTP_NOT_MODIFIED)
    {
        return NGX_DECLINED;
    }

    return ngx_http_coord_idempotency_storable(state->conf, status)
           ? NGX_OK : NGX_DECLINED;
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
    capture->expected = ho->content_length_n;

    if (!state->shadow) {
        r->filter_need_in_memory = 1;
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

    return ngx_http_coord_idempotency_header_list(r, state);
}


static ngx_int_t
ngx_http_coord_idempotency_header_list(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *state)
{
    ngx_str_t         value;
    ngx_uint_t        i;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h;

    part = &r->headers_out.headers.part;
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


static ngx_int_t
ngx_http_coord_idempotency_body_filter(ngx_http_request_t *r, ngx_chain_t *in)
{
    ngx_chain_t                   *out;
    ngx_http_coord_capture_t      *capture;
    ngx_http_coord_idempotency_t  *state;

    if (r != r->main) {
        return ngx_http_next_body_filter(r, in);
    }

    state = ngx_http_coord_idempotency_state(r);

    if (state == NULL || !state->capture.on) {
        return ngx_http_next_body_filter(r, in);
    }

    if (state->shadow) {
        return ngx_http_coord_idempotency_observe(r, state, in);
    }

    capture = &state->capture;
    out = NULL;

    if (ngx_http_coord_idempotency_capture(r, state, in, &out) != NGX_OK) {
        return NGX_ERROR;
    }

    if (capture->ended || capture->received == capture->expected) {
        ngx_http_coord_idempotency_finish(state);

    } else if (capture->upstream
               && r->upstream->cleanup == NULL
               && state->phase == NGX_HTTP_COORD_IDEMPOTENCY_RUNNING)
    {
        /* the upstream has ended, its response has not */

        ngx_http_coord_idempotency_unknown(state);
    }

    return ngx_http_coord_idempotency_send_body(r, state, out);
}


static ngx_int_t
ngx_http_coord_idempotency_send_body(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *state, ngx_chain_t *out)
{
    ngx_int_t                  rc;
    ngx_uint_t                 passing;
    ngx_connection_t          *c;
    ngx_http_coord_capture_t  *capture;

    c = r->connection;
    capture = &state->capture;

    if (c->error && state->guarded && !state->detached) {
        ngx_http_coord_idempotency_detach(state);
    }

    if (!state->detached) {
        rc = NGX_OK;
        passing = (capture->in || capture->busy);

        if (out || !passing) {
            rc = ngx_http_next_body_filter(r, out);
        }

        if (rc != NGX_ERROR && passing) {
            rc = ngx_http_coord_idempotency_pass(r, capture);
        }

        if (rc != NGX_ERROR || !c->error || !state->guarded) {
            return rc;
        }

        ngx_http_coord_idempotency_detach(state);
    }

    ngx_http_coord_idempotency_drop(r, capture);

    return NGX_OK;
}


/* shadow mode: only looks */

static ngx_int_t
ngx_http_coord_idempotency_observe(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *state, ngx_chain_t *in)
{
    ngx_chain_t               *cl;
    ngx_http_coord_capture_t  *capture;

    capture = &state->capture;

    for (cl = in; cl; cl = cl->next) {
        capture->received += ngx_buf_size(cl->buf);
        capture->ended |= cl->buf->last_buf;
    }

    if (capture->ended) {
        ngx_http_coord_idempotency_finish(state);
    }

    return ngx_http_next_body_filter(r, in);
}


/*
 * Takes all of in: what is kept becomes buffers for the client in out, the
 * rest waits in capture->in.
 */

static ngx_int_t
ngx_http_coord_idempotency_capture(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *state, ngx_chain_t *in, ngx_chain_t **out)
{
    off_t                      size;
    ngx_buf_t                 *b;
    ngx_chain_t               *ln, **ll, **li;
    ngx_http_coord_capture_t  *capture;

    capture = &state->capture;
    ll = out;

    for (li = &capture->in; *li; li = &(*li)->next) { /* void */ }

    for ( /* void */ ; in; in = in->next) {
        b = in->buf;
        size = ngx_buf_size(b);

        if (size && !ngx_buf_in_memory(b)) {
            ngx_log_error(NGX_LOG_ALERT, r->connection->log, 0,
                          "idempotency: a response is not in memory");
            return NGX_ERROR;
        }

        capture->received += size;
        capture->ended |= b->last_buf;

        if (capture->received > (off_t) state->conf->max_response) {
            capture->over = 1;
        }

        if (!capture->over) {
            ll = ngx_http_coord_idempotency_store(r, capture, b, ll);
            if (ll == NULL) {
                return NGX_ERROR;
            }

            continue;
        }

        ln = ngx_alloc_chain_link(r->pool);
        if (ln == NULL) {
            return NGX_ERROR;
        }

        ln->buf = b;
        ln->next = NULL;

        *li = ln;
        li = &ln->next;
    }

    return NGX_OK;
}


/* copies a buffer and adds the copy to the chain that ends at ll */

static ngx_chain_t **
ngx_http_coord_idempotency_store(ngx_http_request_t *r,
    ngx_http_coord_capture_t *capture, ngx_buf_t *b, ngx_chain_t **ll)
{
    size_t        n;
    u_char       *p;
    ngx_buf_t    *room, *copy;
    ngx_chain_t  *cl;

    do {
        copy = ngx_calloc_buf(r->pool);
        cl = ngx_alloc_chain_link(r->pool);

        if (copy == NULL || cl == NULL) {
            return NULL;
        }

        n = b->last - b->pos;

        if (n) {
            room = ngx_http_coord_idempotency_room(r, capture, n);
            if (room == NULL) {
                return NULL;
            }

            n = ngx_min(n, (size_t) (room->end - room->last));
            p = room->last;

            room->last = ngx_cpymem(p, b->pos, n);
            b->pos += n;

            copy->memory = 1;

            if (r->filter_need_temporary) {

                /* a filter writes into what it is given */

                copy->memory = 0;
                copy->temporary = 1;

                p = ngx_pnalloc(r->pool, n);
                if (p == NULL) {
                    return NULL;
                }

                ngx_memcpy(p, room->last - n, n);
            }

            copy->start = p;
            copy->pos = p;
            copy->last = p + n;
            copy->end = p + n;
        }

        if (b->pos == b->last) {
            ngx_http_coord_idempotency_flags(copy, b);
        }

        if (n == 0 && !ngx_buf_special(copy)) {
            continue;
        }

        cl->buf = copy;
        cl->next = NULL;

        *ll = cl;
        ll = &cl->next;

    } while (b->pos < b->last);

    b->file_pos = b->file_last;

    return ll;
}


static ngx_buf_t *
ngx_http_coord_idempotency_room(ngx_http_request_t *r,
    ngx_http_coord_capture_t *capture, size_t size)
{
    size_t        last;
    ngx_buf_t    *b;
    ngx_chain_t  *cl;

    last = NGX_HTTP_COORD_CAPTURE_MIN / 2;

    if (capture->last) {
        b = capture->last->buf;

        if (b->last < b->end) {
            return b;
        }

        last = b->end - b->start;
    }

    if (capture->expected > capture->captured) {
        last = capture->expected - capture->captured;
        size = ngx_max(last, NGX_HTTP_COORD_CAPTURE_MIN / 4);

    } else {
        size = ngx_max(size, 2 * last);
    }

    size = ngx_min(size, NGX_HTTP_COORD_CAPTURE_MAX);

    b = ngx_create_temp_buf(r->pool, size);
    cl = ngx_alloc_chain_link(r->pool);

    if (b == NULL || cl == NULL) {
        return NULL;
    }

    cl->buf = b;
    cl->next = NULL;

    if (capture->last) {
        capture->last->next = cl;

    } else {
        capture->first = cl;
    }

    capture->last = cl;
    capture->captured += size;

    return b;
}


static void
ngx_http_coord_idempotency_flags(ngx_buf_t *dst, ngx_buf_t *src)
{
    dst->flush = src->flush;
    dst->sync = src->sync;
    dst->last_buf = src->last_buf;
    dst->last_in_chain = src->last_in_chain;
}


/* what is not kept passes through a few buffers of its own */

static ngx_int_t
ngx_http_coord_idempotency_pass(ngx_http_request_t *r,
    ngx_http_coord_capture_t *capture)
{
    ngx_int_t     rc;
    ngx_chain_t  *out;

    for ( ;; ) {
        out = NULL;

        if (ngx_http_coord_idempotency_fill(r, capture, &out) != NGX_OK) {
            return NGX_ERROR;
        }

        rc = ngx_http_next_body_filter(r, out);

        ngx_chain_update_chains(r->pool, &capture->free, &capture->busy, &out,
                     (ngx_buf_tag_t) &ngx_http_coord_idempotency_module);

        if (rc == NGX_ERROR) {
            return NGX_ERROR;
        }

        if (capture->in == NULL) {
            r->connection->buffered &= ~NGX_HTTP_COORD_BUFFERED;
            return rc;
        }

        if (capture->free == NULL
            && capture->nbufs == NGX_HTTP_COORD_CAPTURE_BUFS)
        {
            r->connection->buffered |= NGX_HTTP_COORD_BUFFERED;
            return NGX_AGAIN;
        }
    }
}


static ngx_int_t
ngx_http_coord_idempotency_fill(ngx_http_request_t *r,
    ngx_http_coord_capture_t *capture, ngx_chain_t **out)
{
    size_t        n;
    ngx_buf_t    *b, *copy;
    ngx_int_t     rc;
    ngx_chain_t  *cl, *ln, **ll;

    ll = out;

    while (capture->in) {
        b = capture->in->buf;

        n = b->last - b->pos;
        n = ngx_min(n, NGX_HTTP_COORD_CAPTURE_BUF);

        if (n || b->flush || b->sync || b->last_buf || b->last_in_chain) {
            rc = ngx_http_coord_idempotency_buf(r, capture, n, &cl);

            if (rc != NGX_OK) {
                return (rc == NGX_DECLINED) ? NGX_OK : NGX_ERROR;
            }

            copy = cl->buf;

            if (n) {
                copy->pos = copy->start;
                copy->last = ngx_cpymem(copy->start, b->pos, n);
                copy->flush = 0;
                copy->sync = 0;
                copy->last_buf = 0;
                copy->last_in_chain = 0;

                b->pos += n;
            }

            if (b->pos == b->last) {
                ngx_http_coord_idempotency_flags(copy, b);
            }

            *ll = cl;
            ll = &cl->next;
        }

        if (b->pos == b->last) {
            b->file_pos = b->file_last;

            ln = capture->in;
            capture->in = ln->next;
            ngx_free_chain(r->pool, ln);
        }
    }

    return NGX_OK;
}


/* a link with a buffer; NGX_DECLINED: all of them are on their way */

static ngx_int_t
ngx_http_coord_idempotency_buf(ngx_http_request_t *r,
    ngx_http_coord_capture_t *capture, size_t size, ngx_chain_t **link)
{
    ngx_chain_t  *cl;

    if (size && capture->free) {
        cl = capture->free;
        capture->free = cl->next;
        cl->next = NULL;

        *link = cl;

        return NGX_OK;
    }

    if (size && capture->nbufs == NGX_HTTP_COORD_CAPTURE_BUFS) {
        return NGX_DECLINED;
    }

    cl = ngx_alloc_chain_link(r->pool);
    if (cl == NULL) {
        return NGX_ERROR;
    }

    cl->next = NULL;

    if (size == 0) {

        /* only flags: it cannot be told when they have been seen */

        cl->buf = ngx_calloc_buf(r->pool);

    } else {
        cl->buf = ngx_create_temp_buf(r->pool, NGX_HTTP_COORD_CAPTURE_BUF);
        capture->nbufs++;
    }

    if (cl->buf == NULL) {
        return NGX_ERROR;
    }

    if (size) {
        cl->buf->tag = (ngx_buf_tag_t) &ngx_http_coord_idempotency_module;
    }

    *link = cl;

    return NGX_OK;
}


/* nobody reads it any more */

static void
ngx_http_coord_idempotency_drop(ngx_http_request_t *r,
    ngx_http_coord_capture_t *capture)
{
    ngx_buf_t    *b;
    ngx_chain_t  *ln;

    while (capture->in) {
        ln = capture->in;
        b = ln->buf;

        b->pos = b->last;
        b->file_pos = b->file_last;

        capture->in = ln->next;
        ngx_free_chain(r->pool, ln);
    }

    r->connection->buffered &= ~NGX_HTTP_COORD_BUFFERED;
}


/* all of the response has been seen */

static void
ngx_http_coord_idempotency_finish(ngx_http_coord_idempotency_t *state)
{
    ngx_http_coord_capture_t  *capture;

    if (state->phase != NGX_HTTP_COORD_IDEMPOTENCY_RUNNING) {
        return;
    }

    capture = &state->capture;

    if (capture->ended
        && capture->expected != -1
        && capture->expected != capture->received)
    {
        ngx_http_coord_idempotency_unknown(state);
        return;
    }

    ngx_http_coord_idempotency_complete(state);
}
