
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The text of an event.  A message is told line by line, whatever ends its
 * lines; what is not UTF-8, and NUL, stands as U+FFFD.
 */


#include "ngx_http_coord_events.h"


#define NGX_HTTP_COORD_EVENTS_DATA  "data: "
#define NGX_HTTP_COORD_EVENTS_BAD   "\xef\xbf\xbd"


static ngx_http_coord_frame_t *ngx_http_coord_frame_alloc(size_t len);
static size_t ngx_http_coord_frame_size(ngx_str_t *text);
static u_char *ngx_http_coord_frame_write(u_char *p, ngx_str_t *text);
static size_t ngx_http_coord_frame_char(u_char *p, u_char *last);


ngx_http_coord_frame_t *
ngx_http_coord_frame(ngx_str_t *channel, ngx_coord_event_t *ev)
{
    u_char                  *p, id[NGX_COORD_EVENT_ID_LEN];
    size_t                   head, len;
    ngx_http_coord_frame_t  *frame;

    head = 0;

    if (ev->id.ms || ev->id.seq) {
        p = ngx_coord_event_id_print(id, &ev->id);
        head = sizeof("id: \n") - 1 + (p - id);
    }

    len = head + sizeof("event: \n\n") - 1 + channel->len
          + ngx_http_coord_frame_size(&ev->text);

    frame = ngx_http_coord_frame_alloc(len);
    if (frame == NULL) {
        return NULL;
    }

    frame->id = ev->id;
    frame->head = head;
    frame->plain = ev->plain;
    frame->kept = ev->kept;

    p = frame->data;

    if (head) {
        p = ngx_cpymem(p, "id: ", sizeof("id: ") - 1);
        p = ngx_cpymem(p, id, head - (sizeof("id: \n") - 1));
        *p++ = LF;
    }

    p = ngx_cpymem(p, "event: ", sizeof("event: ") - 1);
    p = ngx_cpymem(p, channel->data, channel->len);
    *p++ = LF;

    p = ngx_http_coord_frame_write(p, &ev->text);
    *p++ = LF;

    return frame;
}


ngx_http_coord_frame_t *
ngx_http_coord_frame_text(const u_char *text, size_t len)
{
    ngx_http_coord_frame_t  *frame;

    frame = ngx_http_coord_frame_alloc(len);
    if (frame == NULL) {
        return NULL;
    }

    ngx_memcpy(frame->data, text, len);

    return frame;
}


static ngx_http_coord_frame_t *
ngx_http_coord_frame_alloc(size_t len)
{
    ngx_http_coord_frame_t  *frame;

    frame = ngx_alloc(offsetof(ngx_http_coord_frame_t, data) + len,
                      ngx_cycle->log);
    if (frame == NULL) {
        return NULL;
    }

    ngx_memzero(frame, offsetof(ngx_http_coord_frame_t, data));

    frame->refs = 1;
    frame->len = len;

    return frame;
}


void
ngx_http_coord_frame_release(ngx_http_coord_frame_t *frame)
{
    if (--frame->refs == 0) {
        ngx_free(frame);
    }
}


/* bytes that ngx_http_coord_frame_write() writes */

static size_t
ngx_http_coord_frame_size(ngx_str_t *text)
{
    u_char  *p, *last;
    size_t   n, size;

    size = sizeof(NGX_HTTP_COORD_EVENTS_DATA "\n") - 1;
    last = text->data + text->len;

    for (p = text->data; p < last; p += n) {

        if (*p == CR || *p == LF) {
            n = (*p == CR && p + 1 < last && p[1] == LF) ? 2 : 1;
            size += sizeof(NGX_HTTP_COORD_EVENTS_DATA "\n") - 1;
            continue;
        }

        n = ngx_http_coord_frame_char(p, last);

        if (n) {
            size += n;

        } else {
            n = 1;
            size += sizeof(NGX_HTTP_COORD_EVENTS_BAD) - 1;
        }
    }

    return size;
}


static u_char *
ngx_http_coord_frame_write(u_char *p, ngx_str_t *text)
{
    size_t   n;
    u_char  *src, *last;

    p = ngx_cpymem(p, NGX_HTTP_COORD_EVENTS_DATA,
                   sizeof(NGX_HTTP_COORD_EVENTS_DATA) - 1);

    last = text->data + text->len;

    for (src = text->data; src < last; src += n) {

        if (*src == CR || *src == LF) {
            n = (*src == CR && src + 1 < last && src[1] == LF) ? 2 : 1;
            *p++ = LF;
            p = ngx_cpymem(p, NGX_HTTP_COORD_EVENTS_DATA,
                           sizeof(NGX_HTTP_COORD_EVENTS_DATA) - 1);
            continue;
        }

        n = ngx_http_coord_frame_char(src, last);

        if (n) {
            p = ngx_cpymem(p, src, n);

        } else {
            n = 1;
            p = ngx_cpymem(p, NGX_HTTP_COORD_EVENTS_BAD,
                           sizeof(NGX_HTTP_COORD_EVENTS_BAD) - 1);
        }
    }

    *p++ = LF;

    return p;
}


/* bytes of the character at p; 0: it is none */

static size_t
ngx_http_coord_frame_char(u_char *p, u_char *last)
{
    u_char    *start;
    uint32_t   c;

    if (*p < 0x80) {
        return *p ? 1 : 0;
    }

    start = p;
    c = ngx_utf8_decode(&p, last - p);

    if (c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff)) {
        return 0;
    }

    return p - start;
}
