
/*
 * Copyright (C) ngx_coord_module contributors
 */


#include "ngx_coord_log.h"


ngx_str_t
ngx_coord_log_text(u_char *buf, ngx_str_t *text)
{
    u_char     *p, *end, ch;
    size_t      i;
    ngx_str_t   safe;

    p = buf;
    end = buf + NGX_COORD_LOG_TEXT - (sizeof("\\xHH...") - 1);

    for (i = 0; i < text->len; i++) {

        if (p > end) {
            p = ngx_cpymem(p, "...", sizeof("...") - 1);
            break;
        }

        ch = text->data[i];

        if (ch >= ' ' && ch < 0x7f && ch != '"' && ch != '\\') {
            *p++ = ch;
            continue;
        }

        p = ngx_sprintf(p, "\\x%02xd", (int) ch);
    }

    safe.data = buf;
    safe.len = p - buf;

    return safe;
}


ngx_uint_t
ngx_coord_log_due(ngx_coord_log_limit_t *limit, ngx_msec_t interval)
{
    ngx_uint_t  n;

    n = ++limit->n;

    if (limit->last != 0 && ngx_current_msec - limit->last < interval) {
        return 0;
    }

    limit->last = ngx_max(ngx_current_msec, 1);
    limit->n = 0;

    return n;
}
