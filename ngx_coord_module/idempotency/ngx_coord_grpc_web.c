
/*
 * Copyright (C) ngx_coord_module contributors
 */


#include "ngx_coord_grpc_web.h"


#define NGX_COORD_GRPC_WEB_IS_TRAILERS    0x80
#define NGX_COORD_GRPC_WEB_IS_COMPRESSED  0x01


static void ngx_coord_grpc_web_frames(ngx_coord_grpc_web_t *web, u_char *p,
    size_t len);
static void ngx_coord_grpc_web_frame(ngx_coord_grpc_web_t *web);
static void ngx_coord_grpc_web_trailers(ngx_coord_grpc_web_t *web, u_char *p,
    size_t len);
static void ngx_coord_grpc_web_line(ngx_coord_grpc_web_t *web);
static void ngx_coord_grpc_web_base64(ngx_coord_grpc_web_t *web, u_char ch);
static ngx_int_t ngx_coord_grpc_web_digit(u_char ch);


void
ngx_coord_grpc_web_read(ngx_coord_grpc_web_t *web, u_char *p, size_t len)
{
    if (!web->text) {
        ngx_coord_grpc_web_frames(web, p, len);
        return;
    }

    while (len--) {
        ngx_coord_grpc_web_base64(web, *p++);
    }
}


ngx_int_t
ngx_coord_grpc_web_status(ngx_coord_grpc_web_t *web)
{
    return (web->state == NGX_COORD_GRPC_WEB_END
            && web->nbits == 0
            && web->npad == 0
            && web->found)
           ? NGX_OK : NGX_ERROR;
}


static void
ngx_coord_grpc_web_frames(ngx_coord_grpc_web_t *web, u_char *p, size_t len)
{
    size_t  n;

    while (len) {

        switch (web->state) {

        case NGX_COORD_GRPC_WEB_BEGIN:
            web->head[web->nhead++] = *p;
            n = 1;

            if (web->nhead == NGX_COORD_GRPC_WEB_HEAD) {
                ngx_coord_grpc_web_frame(web);
            }

            break;

        case NGX_COORD_GRPC_WEB_MESSAGE:
            n = ngx_min(len, web->left);
            web->left -= n;

            if (web->left == 0) {
                web->state = NGX_COORD_GRPC_WEB_BEGIN;
            }

            break;

        case NGX_COORD_GRPC_WEB_TRAILERS:
            n = ngx_min(len, web->left);
            ngx_coord_grpc_web_trailers(web, p, n);
            break;

        default: /* NGX_COORD_GRPC_WEB_END, NGX_COORD_GRPC_WEB_BAD */
            web->state = NGX_COORD_GRPC_WEB_BAD;
            return;
        }

        p += n;
        len -= n;
    }
}


/* the head of a frame is there */

static void
ngx_coord_grpc_web_frame(ngx_coord_grpc_web_t *web)
{
    u_char  *head;

    head = web->head;

    web->nhead = 0;
    web->left = (size_t) head[1] << 24 | head[2] << 16 | head[3] << 8 | head[4];

    if (!(head[0] & NGX_COORD_GRPC_WEB_IS_TRAILERS)) {
        web->state = web->left ? NGX_COORD_GRPC_WEB_MESSAGE
                               : NGX_COORD_GRPC_WEB_BEGIN;

    } else if (head[0] & NGX_COORD_GRPC_WEB_IS_COMPRESSED) {
        web->state = NGX_COORD_GRPC_WEB_BAD;

    } else {
        web->state = web->left ? NGX_COORD_GRPC_WEB_TRAILERS
                               : NGX_COORD_GRPC_WEB_END;
    }
}


static void
ngx_coord_grpc_web_trailers(ngx_coord_grpc_web_t *web, u_char *p, size_t len)
{
    web->left -= len;

    for ( /* void */ ; len; len--, p++) {

        if (*p == LF) {
            ngx_coord_grpc_web_line(web);
            continue;
        }

        if (web->nline < NGX_COORD_GRPC_WEB_LINE) {
            web->line[web->nline++] = *p;
        }
    }

    if (web->left == 0) {
        ngx_coord_grpc_web_line(web);
        web->state = NGX_COORD_GRPC_WEB_END;
    }
}


static void
ngx_coord_grpc_web_line(ngx_coord_grpc_web_t *web)
{
    u_char  *p, *last;

    static const char  name[] = "grpc-status:";

    p = web->line;
    last = p + web->nline;

    web->nline = 0;

    if (web->found
        || (size_t) (last - p) < sizeof(name) - 1
        || ngx_strncasecmp(p, (u_char *) name, sizeof(name) - 1) != 0)
    {
        return;
    }

    p += sizeof(name) - 1;

    while (p < last && (*p == ' ' || *p == '\t')) {
        p++;
    }

    while (p < last
           && (last[-1] == CR || last[-1] == ' ' || last[-1] == '\t'))
    {
        last--;
    }

    web->found = 1;
    web->status = ngx_atoi(p, last - p);
}


/* a message may be encoded by itself: what is padded may be followed */

static void
ngx_coord_grpc_web_base64(ngx_coord_grpc_web_t *web, u_char ch)
{
    u_char      bytes[3];
    ngx_int_t   digit;
    ngx_uint_t  n;

    if (web->state == NGX_COORD_GRPC_WEB_BAD) {
        return;
    }

    if (ch == '=') {
        digit = (web->nbits >= 12) ? 0 : NGX_ERROR;
        web->npad++;

    } else {
        digit = web->npad ? NGX_ERROR : ngx_coord_grpc_web_digit(ch);
    }

    if (digit == NGX_ERROR) {
        web->state = NGX_COORD_GRPC_WEB_BAD;
        return;
    }

    web->bits = web->bits << 6 | (uint32_t) digit;
    web->nbits += 6;

    if (web->nbits < 24) {
        return;
    }

    bytes[0] = (u_char) (web->bits >> 16);
    bytes[1] = (u_char) (web->bits >> 8);
    bytes[2] = (u_char) web->bits;

    n = 3 - web->npad;

    web->bits = 0;
    web->nbits = 0;
    web->npad = 0;

    ngx_coord_grpc_web_frames(web, bytes, n);
}


static ngx_int_t
ngx_coord_grpc_web_digit(u_char ch)
{
    if (ch >= 'A' && ch <= 'Z') {
        return ch - 'A';
    }

    if (ch >= 'a' && ch <= 'z') {
        return ch - 'a' + 26;
    }

    if (ch >= '0' && ch <= '9') {
        return ch - '0' + 52;
    }

    if (ch == '+') {
        return 62;
    }

    return (ch == '/') ? 63 : NGX_ERROR;
}
