
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * A stored response goes to the client, through the output filters like any
 * other.
 */


#include "ngx_http_coord_capture.h"
#include "ngx_http_coord_fields.h"


/* several lines of one field, as nginx has them */

#if (nginx_version >= 1023000)
typedef ngx_table_elt_t  *ngx_http_coord_replay_lines_t;
#else
typedef ngx_array_t       ngx_http_coord_replay_lines_t;
#endif


static ngx_int_t ngx_http_coord_replay_send(ngx_http_request_t *r,
    ngx_coord_record_t *record);
static ngx_int_t ngx_http_coord_replay_fields(ngx_http_request_t *r,
    ngx_coord_record_t *record);
static ngx_int_t ngx_http_coord_replay_known(ngx_http_request_t *r,
    ngx_coord_record_t *record, ngx_table_elt_t *h);
static ngx_http_coord_replay_lines_t *ngx_http_coord_replay_lines(
    ngx_http_request_t *r, ngx_str_t *name);
static ngx_int_t ngx_http_coord_replay_line(ngx_http_request_t *r,
    ngx_http_coord_replay_lines_t *lines, ngx_table_elt_t *h);
static void ngx_http_coord_replay_remove(ngx_http_request_t *r,
    ngx_str_t *name);
static ngx_int_t ngx_http_coord_replay_mark(ngx_http_request_t *r,
    ngx_keyval_t *mark);
static ngx_uint_t ngx_http_coord_replay_weak(ngx_table_elt_t *if_range);


/* fields that filters look for */

static const struct {
    ngx_str_t                  name;
    ngx_uint_t                 offset;
} ngx_http_coord_replay_pointers[] = {

    { ngx_string("accept-ranges"),
      offsetof(ngx_http_headers_out_t, accept_ranges) },

    { ngx_string("content-encoding"),
      offsetof(ngx_http_headers_out_t, content_encoding) },

    { ngx_string("date"),
      offsetof(ngx_http_headers_out_t, date) },

    { ngx_string("etag"),
      offsetof(ngx_http_headers_out_t, etag) },

    { ngx_string("expires"),
      offsetof(ngx_http_headers_out_t, expires) },

    { ngx_string("last-modified"),
      offsetof(ngx_http_headers_out_t, last_modified) },

    { ngx_string("refresh"),
      offsetof(ngx_http_headers_out_t, refresh) },

    { ngx_string("server"),
      offsetof(ngx_http_headers_out_t, server) },

    { ngx_string("www-authenticate"),
      offsetof(ngx_http_headers_out_t, www_authenticate) },

    { ngx_null_string, 0 }
};


ngx_int_t
ngx_http_coord_replay(ngx_http_request_t *r, ngx_coord_record_t *record,
    ngx_keyval_t *mark)
{
    ngx_int_t  rc;

    rc = ngx_http_discard_request_body(r);

    if (rc != NGX_OK) {
        return rc;
    }

    /* conditions of the request were for the first run */

    r->disable_not_modified = 1;

    if (ngx_http_coord_replay_header(r, record, mark) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return ngx_http_coord_replay_send(r, record);
}


ngx_int_t
ngx_http_coord_replay_cached(ngx_http_request_t *r,
    ngx_coord_record_t *record, ngx_keyval_t *mark)
{
    time_t     modified;
    ngx_int_t  rc;

    rc = ngx_http_discard_request_body(r);

    if (rc != NGX_OK) {
        return rc;
    }

    if (ngx_http_coord_replay_header(r, record, mark) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (r->headers_out.last_modified) {
        modified = ngx_parse_http_time(
                                   r->headers_out.last_modified->value.data,
                                   r->headers_out.last_modified->value.len);
        if (modified != NGX_ERROR) {
            r->headers_out.last_modified_time = modified;
        }
    }

    /* the field is that of nginx then */

    ngx_http_clear_accept_ranges(r);

    r->allow_ranges = !ngx_http_coord_replay_weak(r->headers_in.if_range);

    /* nginx wants both to hold; only one counts (RFC 9110, 13.2.2) */

    if (r->headers_in.if_none_match) {
        r->headers_in.if_modified_since = NULL;
    }

    if (r->headers_in.if_match) {
        r->headers_in.if_unmodified_since = NULL;
    }

    return ngx_http_coord_replay_send(r, record);
}


ngx_int_t
ngx_http_coord_replay_header(ngx_http_request_t *r,
    ngx_coord_record_t *record, ngx_keyval_t *mark)
{
    ngx_str_t  *charset;

    r->headers_out.status = record->status;
    r->headers_out.status_line = record->status_line;
    r->headers_out.content_type = record->content_type;
    r->headers_out.content_type_len = record->content_type_len;
    r->headers_out.content_type_lowcase = NULL;
    charset = &r->headers_out.charset;

    if (record->override) {

        /* for the charset filter, where it is on */

        charset = ngx_palloc(r->pool, sizeof(ngx_str_t));
        if (charset == NULL) {
            return NGX_ERROR;
        }

        r->headers_out.override_charset = charset;
    }

    *charset = record->charset;

    r->headers_out.content_length_n = record->body_len;

    if (ngx_http_coord_replay_fields(r, record) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_http_coord_replay_mark(r, mark);
}


static ngx_int_t
ngx_http_coord_replay_send(ngx_http_request_t *r,
    ngx_coord_record_t *record)
{
    ngx_int_t     rc;
    ngx_buf_t    *b;
    ngx_chain_t   out;

    if (record->body_len == 0) {

        if (record->status == NGX_HTTP_NO_CONTENT) {
            r->header_only = 1;
            r->headers_out.content_length_n = -1;
        }

        rc = ngx_http_send_header(r);

        if (rc == NGX_ERROR || rc > NGX_OK || r->header_only) {
            return rc;
        }

        return ngx_http_send_special(r, NGX_HTTP_LAST);
    }

    b = ngx_calloc_buf(r->pool);
    if (b == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    b->start = record->body;
    b->pos = record->body;
    b->last = record->body + record->body_len;
    b->end = b->last;
    b->memory = 1;
    b->last_buf = 1;
    b->last_in_chain = 1;

    rc = ngx_http_send_header(r);

    if (rc == NGX_ERROR || rc > NGX_OK || r->header_only) {
        return rc;
    }

    out.buf = b;
    out.next = NULL;

    return ngx_http_output_filter(r, &out);
}


static ngx_int_t
ngx_http_coord_replay_fields(ngx_http_request_t *r,
    ngx_coord_record_t *record)
{
    ngx_str_t         left;
    ngx_list_t       *list;
    ngx_keyval_t      field;
    ngx_table_elt_t  *h;

    left = record->fields;
    list = &r->headers_out.headers;

    while (ngx_coord_record_next(&left, &field) == NGX_OK) {

        if (field.key.len == 0) {

            /* clients that know the length may not wait for trailers */

            ngx_http_clear_content_length(r);

            r->expect_trailers = 1;
            list = &r->headers_out.trailers;
            continue;
        }

        h = ngx_list_push(list);
        if (h == NULL) {
            return NGX_ERROR;
        }

        ngx_memzero(h, sizeof(ngx_table_elt_t));

        h->hash = 1;
        h->key = field.key;
        h->value = field.value;

        if (list == &r->headers_out.headers
            && ngx_http_coord_replay_known(r, record, h) != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


/* Location is one only where nginx was to work on it */

static ngx_int_t
ngx_http_coord_replay_known(ngx_http_request_t *r,
    ngx_coord_record_t *record, ngx_table_elt_t *h)
{
    ngx_uint_t                       i;
    ngx_table_elt_t                **ph;
    ngx_http_coord_replay_lines_t   *lines;

    if (ngx_http_coord_field_is(&h->key, "Location")) {
        if (record->location) {
            r->headers_out.location = h;
        }

        return NGX_OK;
    }

    lines = ngx_http_coord_replay_lines(r, &h->key);

    if (lines) {
        return ngx_http_coord_replay_line(r, lines, h);
    }

    for (i = 0; ngx_http_coord_replay_pointers[i].name.len; i++) {

        if (h->key.len == ngx_http_coord_replay_pointers[i].name.len
            && ngx_strncasecmp(h->key.data,
                               ngx_http_coord_replay_pointers[i].name.data,
                               h->key.len)
               == 0)
        {
            ph = (ngx_table_elt_t **) ((u_char *) &r->headers_out
                             + ngx_http_coord_replay_pointers[i].offset);
            *ph = h;
            break;
        }
    }

    return NGX_OK;
}


/* NULL: there is nothing that looks for the field */

static ngx_http_coord_replay_lines_t *
ngx_http_coord_replay_lines(ngx_http_request_t *r, ngx_str_t *name)
{
    if (ngx_http_coord_field_is(name, "cache-control")) {
        return &r->headers_out.cache_control;
    }

    if (ngx_http_coord_field_is(name, "link")) {
        return &r->headers_out.link;
    }

    return NULL;
}


/* one more of them */

static ngx_int_t
ngx_http_coord_replay_line(ngx_http_request_t *r,
    ngx_http_coord_replay_lines_t *lines, ngx_table_elt_t *h)
{
#if (nginx_version >= 1023000)

    for ( /* void */ ; *lines; lines = &(*lines)->next) { /* void */ }

    *lines = h;

#else

    ngx_table_elt_t  **line;

    if (lines->elts == NULL
        && ngx_array_init(lines, r->pool, 1, sizeof(ngx_table_elt_t *))
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    line = ngx_array_push(lines);
    if (line == NULL) {
        return NGX_ERROR;
    }

    *line = h;

#endif

    return NGX_OK;
}


static ngx_int_t
ngx_http_coord_replay_mark(ngx_http_request_t *r, ngx_keyval_t *mark)
{
    ngx_table_elt_t  *h;

    h = ngx_list_push(&r->headers_out.headers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    ngx_memzero(h, sizeof(ngx_table_elt_t));

    h->hash = 1;
    h->key = mark->key;
    h->value = mark->value;

    return NGX_OK;
}


/* nginx compares only strings; such a tag never matches (RFC 9110, 13.1.5) */

static ngx_uint_t
ngx_http_coord_replay_weak(ngx_table_elt_t *if_range)
{
    return if_range && ngx_http_coord_field_weak(&if_range->value);
}


ngx_int_t
ngx_http_coord_replay_update(ngx_http_request_t *r, ngx_array_t *fields)
{
    ngx_uint_t           i;
    ngx_keyval_t        *field;
    ngx_table_elt_t     *h;
    ngx_coord_record_t   record;

    ngx_memzero(&record, sizeof(ngx_coord_record_t));

    field = fields->elts;

    /* all of them first: several lines may have one name */

    for (i = 0; i < fields->nelts; i++) {
        ngx_http_coord_replay_remove(r, &field[i].key);
    }

    for (i = 0; i < fields->nelts; i++) {

        h = ngx_list_push(&r->headers_out.headers);
        if (h == NULL) {
            return NGX_ERROR;
        }

        ngx_memzero(h, sizeof(ngx_table_elt_t));

        h->hash = 1;
        h->key = field[i].key;
        h->value = field[i].value;

        if (ngx_http_coord_replay_known(r, &record, h) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


static void
ngx_http_coord_replay_remove(ngx_http_request_t *r, ngx_str_t *name)
{
    ngx_http_coord_replay_lines_t  *lines;

    lines = ngx_http_coord_replay_lines(r, name);

    if (lines) {
        ngx_memzero(lines, sizeof(ngx_http_coord_replay_lines_t));
    }

    ngx_http_coord_field_remove(&r->headers_out.headers, name);
}
