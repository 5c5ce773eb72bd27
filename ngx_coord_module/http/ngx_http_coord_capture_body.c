
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * A response is kept while it goes to its client: its body.
 *
 * Buffers of the upstream end here: they are copied, and the copy is what the
 * client is sent and what is stored.  So neither a slow nor a lost client holds
 * up the upstream, up to a size; beyond that the response passes through a few
 * buffers.
 */


#include "ngx_http_coord_capture.h"


/* buffers of the captured body grow up to this size */
#define NGX_HTTP_COORD_CAPTURE_MIN   4096
#define NGX_HTTP_COORD_CAPTURE_MAX   65536

/* what passes when the body is not kept */
#define NGX_HTTP_COORD_CAPTURE_BUFS  2
#define NGX_HTTP_COORD_CAPTURE_BUF   32768

/* of c->buffered: a bit that neither nginx nor a known module uses */
#define NGX_HTTP_COORD_BUFFERED      0x40


static void ngx_http_coord_capture_seen(ngx_http_coord_capture_t *capture,
    ngx_uint_t last);
static ngx_chain_t **ngx_http_coord_capture_copy(ngx_http_request_t *r,
    ngx_http_coord_capture_t *capture, ngx_buf_t *b, ngx_chain_t **ll);
static ngx_buf_t *ngx_http_coord_capture_room(ngx_http_request_t *r,
    ngx_http_coord_capture_t *capture, size_t size);
static ngx_int_t ngx_http_coord_capture_pass(ngx_http_request_t *r,
    ngx_http_coord_capture_t *capture);
static ngx_int_t ngx_http_coord_capture_fill(ngx_http_request_t *r,
    ngx_http_coord_capture_t *capture, ngx_chain_t **out);
static ngx_int_t ngx_http_coord_capture_buf(ngx_http_request_t *r,
    ngx_http_coord_capture_t *capture, size_t size, ngx_chain_t **link);
static void ngx_http_coord_capture_flags(ngx_buf_t *dst, ngx_buf_t *src);


void
ngx_http_coord_capture_header_only(ngx_http_coord_capture_t *capture)
{
    capture->expected = 0;

    ngx_http_coord_capture_seen(capture, 1);
}


/* moves on when the end has come */

static void
ngx_http_coord_capture_seen(ngx_http_coord_capture_t *capture,
    ngx_uint_t last)
{
    if (ngx_http_coord_capture_over(capture->state)) {
        return;
    }

    if (capture->received == capture->expected) {

        if (last || !capture->trailers) {
            ngx_http_coord_capture_set(&capture->state,
                                       NGX_HTTP_COORD_CAPTURE_WHOLE);
        }

        return;
    }

    if (last) {
        ngx_http_coord_capture_set(&capture->state,
                                   (capture->expected == -1)
                                   ? NGX_HTTP_COORD_CAPTURE_WHOLE
                                   : NGX_HTTP_COORD_CAPTURE_CUT);
    }
}


ngx_int_t
ngx_http_coord_capture_body(ngx_http_request_t *r,
    ngx_http_coord_capture_t *capture, ngx_chain_t *in, ngx_chain_t **out)
{
    off_t         size;
    ngx_buf_t    *b;
    ngx_uint_t    last;
    ngx_chain_t  *cl, *ln, **ll, **li;

    *out = capture->watch ? in : NULL;

    last = 0;
    ll = out;

    for (li = &capture->in; *li; li = &(*li)->next) { /* void */ }

    for (cl = in; cl; cl = cl->next) {
        b = cl->buf;
        size = ngx_buf_size(b);

        capture->received += size;
        last |= b->last_buf;

        if (capture->watch) {
            continue;
        }

        if (size && !ngx_buf_in_memory(b)) {
            ngx_log_error(NGX_LOG_ALERT, r->connection->log, 0,
                          "coord: a response is not in memory");
            return NGX_ERROR;
        }

        if (capture->state == NGX_HTTP_COORD_CAPTURE_COPYING
            && capture->received > (off_t) capture->max)
        {
            ngx_http_coord_capture_set(&capture->state,
                                       NGX_HTTP_COORD_CAPTURE_PASSING);
            capture->record.omitted = 1;
        }

        if (!capture->record.omitted) {
            ll = ngx_http_coord_capture_copy(r, capture, b, ll);
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

    ngx_http_coord_capture_seen(capture, last);

    return NGX_OK;
}


/* copies a buffer and adds the copy to the chain that ends at ll */

static ngx_chain_t **
ngx_http_coord_capture_copy(ngx_http_request_t *r,
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
            room = ngx_http_coord_capture_room(r, capture, n);
            if (room == NULL) {
                return NULL;
            }

            n = ngx_min(n, (size_t) (room->end - room->last));
            p = room->last;

            room->last = ngx_cpymem(p, b->pos, n);
            b->pos += n;

            copy->memory = 1;
            copy->recycled = b->recycled;

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
            ngx_http_coord_capture_flags(copy, b);
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
ngx_http_coord_capture_room(ngx_http_request_t *r,
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

    if (capture->expected > capture->room) {
        last = capture->expected - capture->room;
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
    capture->room += size;

    return b;
}


static void
ngx_http_coord_capture_flags(ngx_buf_t *dst, ngx_buf_t *src)
{
    dst->flush = src->flush;
    dst->sync = src->sync;
    dst->last_buf = src->last_buf;
    dst->last_in_chain = src->last_in_chain;
}


ngx_int_t
ngx_http_coord_capture_send(ngx_http_request_t *r,
    ngx_http_coord_capture_t *capture, ngx_chain_t *out)
{
    ngx_int_t     rc;
    ngx_uint_t    passing;
    ngx_chain_t  *cl, **ll;

    if (capture->held || capture->tail) {
        for (ll = &capture->tail; *ll; ll = &(*ll)->next) { /* void */ }

        for ( /* void */ ; out; out = cl) {
            cl = out->next;
            out->next = NULL;

            *ll = out;
            ll = &out->next;
        }
    }

    if (capture->held) {
        r->connection->buffered |= NGX_HTTP_COORD_BUFFERED;
        return NGX_AGAIN;
    }

    if (capture->tail) {
        r->connection->buffered &= ~NGX_HTTP_COORD_BUFFERED;

        out = capture->tail;
        capture->tail = NULL;
    }

    rc = NGX_OK;
    passing = (capture->in || capture->busy);

    if (out || !passing) {
        rc = capture->next(r, out);
    }

    if (rc != NGX_ERROR && passing) {
        rc = ngx_http_coord_capture_pass(r, capture);
    }

    return rc;
}


ngx_int_t
ngx_http_coord_capture_beside(ngx_http_request_t *r,
    ngx_http_output_body_filter_pt next, ngx_chain_t *in)
{
    ngx_int_t          rc;
    ngx_uint_t         buffered;
    ngx_connection_t  *c;

    c = r->connection;

    buffered = c->buffered & NGX_HTTP_COORD_BUFFERED;
    c->buffered &= ~NGX_HTTP_COORD_BUFFERED;

    rc = next(r, in);

    c->buffered |= buffered;

    return rc;
}


void
ngx_http_coord_capture_hold(ngx_http_coord_capture_t *capture)
{
    capture->held = 1;
}


void
ngx_http_coord_capture_release(ngx_http_request_t *r,
    ngx_http_coord_capture_t *capture)
{
    ngx_event_t  *wev;

    capture->held = 0;

    wev = r->connection->write;

    if ((capture->tail || capture->in) && !wev->posted) {
        ngx_post_event(wev, &ngx_posted_events);
    }
}


/* what is not kept passes through a few buffers of its own */

static ngx_int_t
ngx_http_coord_capture_pass(ngx_http_request_t *r,
    ngx_http_coord_capture_t *capture)
{
    ngx_int_t     rc;
    ngx_chain_t  *out;

    /* what was kept back behind is sent by whom has kept it */

    out = NULL;

    ngx_chain_update_chains(r->pool, &capture->free, &capture->busy, &out,
                            (ngx_buf_tag_t) &ngx_http_coord_capture_start);

    for ( ;; ) {
        out = NULL;

        if (ngx_http_coord_capture_fill(r, capture, &out) != NGX_OK) {
            return NGX_ERROR;
        }

        rc = capture->next(r, out);

        ngx_chain_update_chains(r->pool, &capture->free, &capture->busy, &out,
                                (ngx_buf_tag_t) &ngx_http_coord_capture_start);

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
ngx_http_coord_capture_fill(ngx_http_request_t *r,
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
            rc = ngx_http_coord_capture_buf(r, capture, n, &cl);

            if (rc != NGX_OK) {
                return (rc == NGX_DECLINED) ? NGX_OK : NGX_ERROR;
            }

            copy = cl->buf;

            if (n) {
                copy->pos = copy->start;
                copy->last = ngx_cpymem(copy->start, b->pos, n);
                copy->recycled = 1;
                copy->flush = 0;
                copy->sync = 0;
                copy->last_buf = 0;
                copy->last_in_chain = 0;

                b->pos += n;
            }

            if (b->pos == b->last) {
                ngx_http_coord_capture_flags(copy, b);
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
ngx_http_coord_capture_buf(ngx_http_request_t *r,
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
        cl->buf->tag = (ngx_buf_tag_t) &ngx_http_coord_capture_start;
    }

    *link = cl;

    return NGX_OK;
}


void
ngx_http_coord_capture_drop(ngx_http_request_t *r,
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

    capture->tail = NULL;

    r->connection->buffered &= ~NGX_HTTP_COORD_BUFFERED;
}
