
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The body of a request, before the content phase.
 */


#include "ngx_http_coord_body.h"
#include "ngx_coord_parse.h"

#include <sys/mman.h>


#define NGX_HTTP_COORD_BODY_CHUNK  16384


typedef struct {
    void                      *addr;
    size_t                     size;
} ngx_http_coord_body_map_t;


static void ngx_http_coord_body_handler(ngx_http_request_t *r);
static ngx_int_t ngx_http_coord_body_map(ngx_http_request_t *r,
    ngx_buf_t *b);
static void ngx_http_coord_body_unmap(void *data);
static ngx_int_t ngx_http_coord_body_load(ngx_http_request_t *r,
    ngx_buf_t *b);
static ngx_uint_t ngx_http_coord_body_followed(ngx_http_request_t *r,
    ngx_http_coord_body_t *body);
static ngx_int_t ngx_http_coord_body_file(ngx_http_coord_body_t *body,
    ngx_buf_t *b, off_t *left);
static ngx_uint_t ngx_http_coord_body_plain(ngx_str_t *name);


/* variables, and beginnings of names, that have nothing of the body */

static const ngx_str_t  ngx_http_coord_body_free_names[] = {
    ngx_string("args"),
    ngx_string("binary_remote_addr"),
    ngx_string("body_bytes_sent"),
    ngx_string("bytes_sent"),
    ngx_string("content_length"),
    ngx_string("content_type"),
    ngx_string("document_uri"),
    ngx_string("host"),
    ngx_string("hostname"),
    ngx_string("is_args"),
    ngx_string("query_string"),
    ngx_string("realip_remote_addr"),
    ngx_string("request_id"),
    ngx_string("request_method"),
    ngx_string("request_uri"),
    ngx_string("scheme"),
    ngx_string("status"),
    ngx_string("uri"),
    ngx_null_string
};


static const ngx_str_t  ngx_http_coord_body_free_prefixes[] = {
    ngx_string("arg_"),
    ngx_string("cookie_"),
    ngx_string("http_"),
    ngx_string("proxy_protocol_"),
    ngx_string("remote_"),
    ngx_string("sent_http_"),
    ngx_string("server_"),
    ngx_string("ssl_"),
    ngx_string("upstream_"),
    ngx_null_string
};


ngx_int_t
ngx_http_coord_body_read(ngx_http_request_t *r)
{
    ngx_int_t  rc;

    /* client_body_early_read, or what an error_page has left behind */

    if (r->request_body && (r->request_body_no_buffering || r->reading_body)) {
        return NGX_DECLINED;
    }

    if (r->request_body || r->discard_body) {
        r->preserve_body = 1;
        return NGX_OK;
    }

    rc = ngx_http_read_client_request_body(r, ngx_http_coord_body_handler);

    if (rc >= NGX_HTTP_SPECIAL_RESPONSE) {
        return rc;
    }

    ngx_http_finalize_request(r, NGX_DONE);

    return NGX_DONE;
}


static void
ngx_http_coord_body_handler(ngx_http_request_t *r)
{
    r->preserve_body = 1;

    r->write_event_handler = ngx_http_core_run_phases;
    ngx_http_core_run_phases(r);
}


ngx_int_t
ngx_http_coord_body_value(ngx_http_request_t *r, ngx_http_complex_value_t *cv,
    ngx_uint_t used, ngx_str_t *value)
{
    ngx_int_t                    rc;
    ngx_http_coord_body_shown_t  shown;

    if (!used) {
        return ngx_http_complex_value(r, cv, value);
    }

    if (ngx_http_coord_body_show(r, &shown) != NGX_OK) {
        return NGX_ERROR;
    }

    rc = ngx_http_complex_value(r, cv, value);

    ngx_http_coord_body_hide(r, &shown);

    return rc;
}


ngx_int_t
ngx_http_coord_body_show(ngx_http_request_t *r,
    ngx_http_coord_body_shown_t *shown)
{
    ngx_http_request_body_t  *rb;

    shown->shown = 0;

    rb = r->request_body;

    if (rb == NULL || rb->temp_file == NULL || rb->bufs == NULL) {
        return NGX_OK;
    }

    /* nginx has no value for a body in a file */

    if (ngx_http_coord_body_load(r, &shown->buf) != NGX_OK) {
        return NGX_ERROR;
    }

    shown->cl.buf = &shown->buf;
    shown->cl.next = NULL;

    shown->saved = *rb;
    shown->shown = 1;

    rb->temp_file = NULL;
    rb->bufs = &shown->cl;

    return NGX_OK;
}


void
ngx_http_coord_body_hide(ngx_http_request_t *r,
    ngx_http_coord_body_shown_t *shown)
{
    if (shown->shown) {
        r->request_body->temp_file = shown->saved.temp_file;
        r->request_body->bufs = shown->saved.bufs;
    }
}


/*
 * The body in a file, as memory: its pages are those of the file, and none of
 * them is read before it is looked at.  They stay as long as the pool, values
 * may point to them.  NGX_DECLINED: it does not lie in one file, or others may
 * cut that file, as one with a name.
 */

static ngx_int_t
ngx_http_coord_body_map(ngx_http_request_t *r, ngx_buf_t *b)
{
    ngx_buf_t                  *src;
    ngx_pool_cleanup_t         *cln;
    ngx_http_coord_body_map_t  *map;

    src = r->request_body->bufs->buf;

    if (r->request_body_in_persistent_file
        || r->request_body->bufs->next
        || ngx_buf_in_memory(src)
        || src->file_pos != 0
        || src->file_last == 0)
    {
        return NGX_DECLINED;
    }

    cln = ngx_pool_cleanup_add(r->pool, sizeof(ngx_http_coord_body_map_t));
    if (cln == NULL) {
        return NGX_ERROR;
    }

    map = cln->data;

    map->size = (size_t) src->file_last;
    map->addr = mmap(NULL, map->size, PROT_READ, MAP_PRIVATE, src->file->fd, 0);

    if (map->addr == MAP_FAILED) {
        return NGX_DECLINED;
    }

    cln->handler = ngx_http_coord_body_unmap;

    ngx_log_debug1(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                   "coord shows body in a file: %uz", map->size);

    b->start = map->addr;
    b->pos = b->start;
    b->last = b->start + map->size;
    b->end = b->last;

    return NGX_OK;
}


static void
ngx_http_coord_body_unmap(void *data)
{
    ngx_http_coord_body_map_t *map = data;

    (void) munmap(map->addr, map->size);
}


/* all of the body in memory, which is the pool's: values may point to it */

static ngx_int_t
ngx_http_coord_body_load(ngx_http_request_t *r, ngx_buf_t *b)
{
    size_t        size;
    ssize_t       n;
    ngx_int_t     rc;
    ngx_buf_t    *src;
    ngx_chain_t  *cl;

    ngx_memzero(b, sizeof(ngx_buf_t));

    b->memory = 1;

    rc = ngx_http_coord_body_map(r, b);

    if (rc != NGX_DECLINED) {
        return rc;
    }

    size = 0;

    for (cl = r->request_body->bufs; cl; cl = cl->next) {
        size += (size_t) ngx_buf_size(cl->buf);
    }

    b->start = ngx_pnalloc(r->pool, ngx_max(size, 1));
    if (b->start == NULL) {
        return NGX_ERROR;
    }

    b->pos = b->start;
    b->last = b->start;
    b->end = b->start + size;

    for (cl = r->request_body->bufs; cl; cl = cl->next) {
        src = cl->buf;

        if (ngx_buf_in_memory(src)) {
            b->last = ngx_cpymem(b->last, src->pos, src->last - src->pos);
            continue;
        }

        size = (size_t) ngx_buf_size(src);

        if (size == 0) {
            continue;
        }

        n = ngx_read_file(src->file, b->last, size, src->file_pos);

        if (n != (ssize_t) size) {
            return NGX_ERROR;
        }

        b->last += size;
    }

    return NGX_OK;
}


ngx_int_t
ngx_http_coord_body_follow(ngx_http_request_t *r, ngx_http_coord_body_t *body)
{
    if (r->request_body || r->discard_body || body->hash || body->done) {
        return NGX_OK;
    }

    body->hash = ngx_coord_hash_create();
    if (body->hash == NULL) {
        return NGX_ERROR;
    }

    body->follows = 1;
    body->seen = 0;

    return NGX_OK;
}


void
ngx_http_coord_body_seen(ngx_http_coord_body_t *body, ngx_chain_t *in)
{
    ngx_buf_t  *b;

    if (!body->follows) {
        return;
    }

    for ( /* void */ ; in; in = in->next) {
        b = in->buf;

        if (!ngx_buf_in_memory(b)) {
            continue;
        }

        if (ngx_coord_hash_update(body->hash, b->pos, b->last - b->pos)
            != NGX_OK)
        {
            /* it is digested when it has been read */

            body->follows = 0;
            ngx_http_coord_body_free(body);
            return;
        }

        body->seen += b->last - b->pos;
    }
}


/* 1 if the digest has gone along with all of the body */

static ngx_uint_t
ngx_http_coord_body_followed(ngx_http_request_t *r,
    ngx_http_coord_body_t *body)
{
    off_t         size;
    ngx_chain_t  *cl;

    size = 0;

    for (cl = r->request_body ? r->request_body->bufs : NULL;
         cl;
         cl = cl->next)
    {
        size += ngx_buf_size(cl->buf);
    }

    return body->seen == size;
}


ngx_int_t
ngx_http_coord_body_digest(ngx_http_request_t *r, ngx_http_coord_body_t *body,
    off_t bytes)
{
    ngx_buf_t  *b;
    ngx_int_t   rc;

    if (body->done) {
        return NGX_OK;
    }

    if (body->follows) {
        body->follows = 0;

        if (!ngx_http_coord_body_followed(r, body)) {
            ngx_http_coord_body_free(body);
        }
    }

    if (body->hash == NULL) {
        body->hash = ngx_coord_hash_create();
        if (body->hash == NULL) {
            return NGX_ERROR;
        }

        body->cl = r->request_body ? r->request_body->bufs : NULL;
        body->offset = 0;
    }

    for ( /* void */ ; body->cl; body->cl = body->cl->next) {
        b = body->cl->buf;

        if (ngx_buf_in_memory(b)) {
            rc = ngx_coord_hash_update(body->hash, b->pos, b->last - b->pos);
            bytes -= b->last - b->pos;

        } else {
            rc = ngx_http_coord_body_file(body, b, &bytes);
        }

        if (rc != NGX_OK) {
            return rc;
        }
    }

    rc = ngx_coord_hash_final(body->hash, body->digest);

    body->hash = NULL;
    body->done = (rc == NGX_OK);

    return rc;
}


/* NGX_AGAIN: not yet all of it */

static ngx_int_t
ngx_http_coord_body_file(ngx_http_coord_body_t *body, ngx_buf_t *b,
    off_t *left)
{
    u_char   buf[NGX_HTTP_COORD_BODY_CHUNK];
    size_t   size;
    ssize_t  n;

    if (!b->in_file) {
        return NGX_OK;
    }

    while (b->file_pos + body->offset < b->file_last) {

        if (*left <= 0) {
            return NGX_AGAIN;
        }

        size = (size_t) ngx_min(b->file_last - b->file_pos - body->offset,
                                NGX_HTTP_COORD_BODY_CHUNK);

        n = ngx_read_file(b->file, buf, size, b->file_pos + body->offset);

        if (n <= 0 || ngx_coord_hash_update(body->hash, buf, n) != NGX_OK) {
            return NGX_ERROR;
        }

        body->offset += n;
        *left -= n;
    }

    body->offset = 0;

    return NGX_OK;
}


void
ngx_http_coord_body_free(ngx_http_coord_body_t *body)
{
    if (body->hash) {
        ngx_coord_hash_free(body->hash);
        body->hash = NULL;
    }
}


ngx_uint_t
ngx_http_coord_body_used(ngx_str_t *text)
{
    ngx_str_t  rest, name;

    rest = *text;

    while (ngx_coord_parse_variable(&rest, &name) == NGX_OK) {
        if (!ngx_http_coord_body_plain(&name)) {
            return 1;
        }
    }

    return 0;
}


static ngx_uint_t
ngx_http_coord_body_plain(ngx_str_t *name)
{
    const ngx_str_t  *s;

    for (s = ngx_http_coord_body_free_names; s->len; s++) {
        if (s->len == name->len
            && ngx_strncasecmp(s->data, name->data, s->len) == 0)
        {
            return 1;
        }
    }

    for (s = ngx_http_coord_body_free_prefixes; s->len; s++) {
        if (s->len < name->len
            && ngx_strncasecmp(s->data, name->data, s->len) == 0)
        {
            return 1;
        }
    }

    return 0;
}
