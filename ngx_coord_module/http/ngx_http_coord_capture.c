
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * A response is kept while it goes to its client: its header and trailers,
 * and the record that all of it becomes.
 */


#include "ngx_http_coord_capture.h"
#include "ngx_http_coord_fields.h"


static void ngx_http_coord_capture_type(ngx_http_request_t *r,
    ngx_http_coord_capture_t *capture);
static ngx_int_t ngx_http_coord_capture_list(ngx_http_request_t *r,
    ngx_http_coord_capture_t *capture, ngx_list_t *headers);
static ngx_uint_t ngx_http_coord_capture_named(ngx_http_request_t *r,
    ngx_str_t *name);
static ngx_int_t ngx_http_coord_capture_modified(ngx_http_request_t *r,
    ngx_http_coord_capture_t *capture);
static ngx_int_t ngx_http_coord_capture_field(
    ngx_http_coord_capture_t *capture, ngx_str_t *name, ngx_str_t *value);


static ngx_str_t  ngx_http_coord_last_modified = ngx_string("Last-Modified");


ngx_uint_t
ngx_http_coord_capture_live(ngx_http_request_t *r)
{
    return r->upstream
           && r->upstream->cleanup
           && r->upstream->headers_in.status_n;
}


ngx_uint_t
ngx_http_coord_capture_sliced(ngx_http_request_t *r)
{
    /* nobody else asks for that */

    return r->subrequest_ranges
           && !(r->upstream
                && r->upstream->headers_in.content_length_n
                   == r->headers_out.content_length_n);
}


ngx_int_t
ngx_http_coord_capture_start(ngx_http_request_t *r,
    ngx_http_coord_capture_t *capture)
{
    ngx_str_t               *line;
    ngx_coord_record_t      *record;
    ngx_http_headers_out_t  *ho;

    ho = &r->headers_out;
    record = &capture->record;

    if (ngx_array_init(&capture->fields, r->pool, 8, sizeof(ngx_keyval_t))
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    ngx_http_coord_capture_set(&capture->state,
                               capture->watch ? NGX_HTTP_COORD_CAPTURE_WATCHING
                                            : NGX_HTTP_COORD_CAPTURE_COPYING);

    capture->upstream = ngx_http_coord_capture_live(r);
    capture->trailers = capture->upstream && r->upstream->conf->pass_trailers;
    capture->expected = ho->content_length_n;

    if (!capture->watch) {
        r->filter_need_in_memory = 1;
        r->allow_ranges = 0;
    }

    record->status = ho->status;
    record->location = (ho->location != NULL);
    record->omitted = (capture->watch != 0);

    line = &ho->status_line;

    if (line->len >= 3
        && line->len <= 255
        && ngx_atoi(line->data, 3) == (ngx_int_t) record->status
        && (line->len == 3 || line->data[3] == ' ')
        && ngx_coord_record_value(line))
    {
        record->status_line = *line;
    }

    ngx_http_coord_capture_type(r, capture);

    capture->named = ngx_http_coord_capture_named(r, NULL);

    if (ngx_http_coord_capture_list(r, capture, &ho->headers) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_http_coord_capture_modified(r, capture);
}


static void
ngx_http_coord_capture_type(ngx_http_request_t *r,
    ngx_http_coord_capture_t *capture)
{
    ngx_str_t               *charset;
    ngx_coord_record_t      *record;
    ngx_http_headers_out_t  *ho;

    ho = &r->headers_out;
    record = &capture->record;

    /* X-Accel-Charset tells more than Content-Type */

    charset = ho->override_charset ? ho->override_charset : &ho->charset;

    if (ho->content_type.len > NGX_COORD_RECORD_VALUE
        || ho->content_type_len > ho->content_type.len
        || charset->len > 255
        || !ngx_coord_record_value(&ho->content_type)
        || !ngx_coord_record_value(charset))
    {
        capture->unfit++;
        return;
    }

    record->content_type = ho->content_type;
    record->content_type_len = ho->content_type_len;
    record->charset = *charset;
    record->override = (ho->override_charset != NULL);
}


static ngx_int_t
ngx_http_coord_capture_list(ngx_http_request_t *r,
    ngx_http_coord_capture_t *capture, ngx_list_t *headers)
{
    ngx_uint_t        i;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h;

    part = &headers->part;
    h = part->elts;

    for (i = 0; /* void */ ; i++) {

        if (i >= part->nelts) {
            if (part->next == NULL) {
                return NGX_OK;
            }

            part = part->next;
            h = part->elts;
            i = 0;
        }

        if (h[i].hash == 0
            || (capture->named && ngx_http_coord_capture_named(r, &h[i].key)))
        {
            continue;
        }

        if (ngx_http_coord_capture_field(capture, &h[i].key, &h[i].value)
            != NGX_OK)
        {
            return NGX_ERROR;
        }
    }
}


/*
 * 1 if the upstream names a field in Connection (RFC 9110, 7.6.1); without a
 * name: if it may name any.
 */

static ngx_uint_t
ngx_http_coord_capture_named(ngx_http_request_t *r, ngx_str_t *name)
{
    ngx_str_t   *line, left, member;
    ngx_uint_t   i;

    if (r->upstream == NULL) {
        return 0;
    }

    i = 0;

    for ( ;; ) {
        line = ngx_http_coord_field_line(&r->upstream->headers_in.headers,
                                         "Connection", &i);
        if (line == NULL) {
            return 0;
        }

        left = *line;

        while (ngx_http_coord_field_member(&left, &member) == NGX_OK) {

            if (name ? (member.len == name->len
                        && ngx_strncasecmp(member.data, name->data, name->len)
                           == 0)
                     : !(ngx_http_coord_field_is(&member, "close")
                         || ngx_http_coord_field_is(&member, "keep-alive")))
            {
                return 1;
            }
        }
    }
}


static ngx_int_t
ngx_http_coord_capture_modified(ngx_http_request_t *r,
    ngx_http_coord_capture_t *capture)
{
    ngx_str_t  value;

    if (r->headers_out.last_modified
        || r->headers_out.last_modified_time == -1)
    {
        return NGX_OK;
    }

    value.data = ngx_pnalloc(r->pool, sizeof("Mon, 28 Sep 1970 06:00:00 GMT"));
    if (value.data == NULL) {
        return NGX_ERROR;
    }

    value.len = ngx_http_time(value.data, r->headers_out.last_modified_time)
                - value.data;

    return ngx_http_coord_capture_field(capture, &ngx_http_coord_last_modified,
                                        &value);
}


static ngx_int_t
ngx_http_coord_capture_field(ngx_http_coord_capture_t *capture,
    ngx_str_t *name, ngx_str_t *value)
{
    ngx_keyval_t  *field;

    if (ngx_coord_record_hop(name) || !capture->keep(capture->data, name)) {
        return NGX_OK;
    }

    if (!ngx_coord_record_field(name, value)
        || capture->fields.nelts >= NGX_COORD_RECORD_FIELDS - 1)
    {
        capture->unfit++;
        return NGX_OK;
    }

    field = ngx_array_push(&capture->fields);
    if (field == NULL) {
        return NGX_ERROR;
    }

    field->key = *name;
    field->value = *value;

    return NGX_OK;
}


ngx_int_t
ngx_http_coord_capture_encode(ngx_http_request_t *r,
    ngx_http_coord_capture_t *capture, ngx_str_t *key, u_char *fingerprint,
    ngx_str_t *blob)
{
    ngx_uint_t           n;
    ngx_keyval_t        *field;
    ngx_coord_record_t  *record;

    record = &capture->record;
    n = capture->fields.nelts;

    /* trailers without the body they belong to would mislead */

    if (r->headers_out.trailers.part.nelts && !record->omitted) {
        field = ngx_array_push(&capture->fields);
        if (field == NULL) {
            return NGX_ERROR;
        }

        ngx_str_null(&field->key);
        ngx_str_null(&field->value);

        if (ngx_http_coord_capture_list(r, capture, &r->headers_out.trailers)
            != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    if (capture->unfit) {
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "coord: %ui fields of a response cannot be kept, "
                      "its body is omitted", capture->unfit);

        record->omitted = 1;
        capture->fields.nelts = n;
    }

    record->key = *key;
    record->nfields = capture->fields.nelts;
    record->body_len = record->omitted ? 0 : (size_t) capture->received;

    ngx_memcpy(record->fingerprint, fingerprint, NGX_COORD_DIGEST_LEN);

    blob->len = ngx_coord_record_size(record, capture->fields.elts);

    blob->data = ngx_alloc(blob->len, ngx_cycle->log);
    if (blob->data == NULL) {
        return NGX_ERROR;
    }

    if (ngx_coord_record_encode(blob->data, record, capture->fields.elts,
                                record->omitted ? NULL : capture->first)
        != NGX_OK)
    {
        ngx_free(blob->data);
        ngx_str_null(blob);
        return NGX_ERROR;
    }

    return NGX_OK;
}
