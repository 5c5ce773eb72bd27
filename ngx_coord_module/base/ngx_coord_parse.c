
/*
 * Copyright (C) ngx_coord_module contributors
 */


#include "ngx_coord_parse.h"


#define NGX_COORD_PERIOD_MAX   (366 * 86400)   /* seconds */


static time_t ngx_coord_parse_unit(u_char c);


ngx_int_t
ngx_coord_parse_rate(ngx_str_t *value, ngx_coord_quota_t *quota)
{
    u_char     *p, *last;
    time_t      unit;
    ngx_int_t   count, n;

    last = value->data + value->len;

    for (p = value->data; p < last && *p >= '0' && *p <= '9'; p++) {
        /* void */
    }

    if (p == value->data
        || last - p < 3
        || p[0] != 'r'
        || p[1] != '/')
    {
        return NGX_ERROR;
    }

    count = ngx_atoi(value->data, p - value->data);

    p += 2;

    unit = ngx_coord_parse_unit(last[-1]);
    n = (p < last - 1) ? ngx_atoi(p, last - 1 - p) : 1;

    if (unit == 0 || n < 1 || n > NGX_COORD_PERIOD_MAX / unit) {
        return NGX_ERROR;
    }

    if (count == NGX_ERROR || count > NGX_COORD_COUNT_MAX) {
        return NGX_DECLINED;
    }

    quota->count = count;
    quota->period = (ngx_coord_nsec_t) n * unit * NGX_COORD_NSEC_PER_SEC;

    return NGX_OK;
}


static time_t
ngx_coord_parse_unit(u_char c)
{
    switch (c) {

    case 's':
        return 1;

    case 'm':
        return 60;

    case 'h':
        return 3600;

    case 'd':
        return 86400;

    default:
        return 0;
    }
}


ngx_int_t
ngx_coord_parse_count(ngx_str_t *value, ngx_uint_t min, ngx_uint_t *count)
{
    ngx_int_t  n;

    n = ngx_atoi(value->data, value->len);

    if (n == NGX_ERROR
        || (ngx_uint_t) n < min
        || n > NGX_COORD_COUNT_MAX)
    {
        return NGX_ERROR;
    }

    *count = n;

    return NGX_OK;
}


ngx_int_t
ngx_coord_parse_variable(ngx_str_t *text, ngx_str_t *name)
{
    u_char  *p, *last;

    last = text->data + text->len;

    p = ngx_strlchr(text->data, last, '$');

    if (p == NULL) {
        return NGX_DECLINED;
    }

    p++;

    if (p < last && *p == '{') {
        p++;
    }

    name->data = p;

    while (p < last
           && ((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z')
               || (*p >= '0' && *p <= '9') || *p == '_'))
    {
        p++;
    }

    name->len = p - name->data;

    text->data = p;
    text->len = last - p;

    return NGX_OK;
}
