
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Passwords of coord_store { } in what "nginx -T" prints.
 */


#include "ngx_http_coord.h"
#include "ngx_http_coord_store_conf.h"


static size_t ngx_http_coord_quoted(u_char *p, u_char *last, u_char *data,
    size_t len);


void
ngx_http_coord_store_hide(ngx_conf_t *cf, u_char *data, size_t len)
{
    u_char     *p, *last;
    size_t      n;
    ngx_buf_t  *b, *dump;

    b = cf->conf_file->buffer;
    dump = cf->conf_file->dump;

    if (dump == NULL) {
        return;
    }

    /* the file up to and including the line */

    last = dump->last - (b->last - b->pos);

    for (p = last; p > dump->start; /* void */ ) {
        p--;

        n = ngx_http_coord_quoted(p, last, data - 1, len + 2);

        if (n) {
            ngx_memset(p + 1, '*', n - 2);
            return;
        }
    }
}


/* the length of data as it is written at p in a configuration; 0: it is not */

static size_t
ngx_http_coord_quoted(u_char *p, u_char *last, u_char *data, size_t len)
{
    u_char   ch;
    u_char  *start;

    for (start = p; len; len--) {

        if (p == last) {
            return 0;
        }

        ch = *p++;

        if (ch == '\\' && p < last) {

            switch (*p) {

            case '"':
            case '\'':
            case '\\':
                ch = *p++;
                break;

            case 't':
                ch = '\t';
                p++;
                break;

            case 'r':
                ch = CR;
                p++;
                break;

            case 'n':
                ch = LF;
                p++;
                break;

            default:
                break;
            }
        }

        if (ch != *data++) {
            return 0;
        }
    }

    return p - start;
}
