
/*
 * Copyright (C) ngx_coord_module contributors
 */


#include "ngx_coord_event.h"


static ngx_int_t ngx_coord_event_number(u_char *p, u_char *last,
    uint64_t *n);


ngx_int_t
ngx_coord_event_id_parse(u_char *p, size_t len, ngx_coord_event_id_t *id)
{
    u_char                *dash, *last;
    ngx_coord_event_id_t   parsed;

    last = p + len;
    dash = ngx_strlchr(p, last, '-');

    parsed.seq = 0;

    if (ngx_coord_event_number(p, dash ? dash : last, &parsed.ms) != NGX_OK) {
        return NGX_ERROR;
    }

    if (dash
        && ngx_coord_event_number(dash + 1, last, &parsed.seq) != NGX_OK)
    {
        return NGX_ERROR;
    }

    *id = parsed;

    return NGX_OK;
}


static ngx_int_t
ngx_coord_event_number(u_char *p, u_char *last, uint64_t *n)
{
    uint64_t  value, digit;

    if (p == last) {
        return NGX_ERROR;
    }

    for (value = 0; p < last; p++) {

        if (*p < '0' || *p > '9') {
            return NGX_ERROR;
        }

        digit = *p - '0';

        if (value > (UINT64_MAX - digit) / 10) {
            return NGX_ERROR;
        }

        value = value * 10 + digit;
    }

    *n = value;

    return NGX_OK;
}


u_char *
ngx_coord_event_id_print(u_char *p, ngx_coord_event_id_t *id)
{
    return ngx_sprintf(p, "%uL-%uL", id->ms, id->seq);
}


ngx_int_t
ngx_coord_event_id_cmp(ngx_coord_event_id_t *a, ngx_coord_event_id_t *b)
{
    if (a->ms != b->ms) {
        return a->ms < b->ms ? -1 : 1;
    }

    if (a->seq != b->seq) {
        return a->seq < b->seq ? -1 : 1;
    }

    return 0;
}
