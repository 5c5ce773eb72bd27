
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Typed access to the values of a reply, which trusts nothing the server says.
 */


#include "ngx_coord_resp.h"

#include <math.h>


static ngx_int_t ngx_coord_resp_parse_integer(ngx_str_t *s, int64_t *n);
static ngx_int_t ngx_coord_resp_parse_double(ngx_str_t *s, double *d);
static u_char *ngx_coord_resp_parse_digits(u_char *p, u_char *last,
    uint64_t *mantissa, ngx_int_t *dropped);


ngx_int_t
ngx_coord_resp_integer(ngx_coord_resp_value_t *v, int64_t *n)
{
    switch (v->type) {

    case NGX_COORD_RESP_INTEGER:
        *n = v->integer;
        return NGX_OK;

    case NGX_COORD_RESP_STRING:
        return ngx_coord_resp_parse_integer(&v->str, n);

    case NGX_COORD_RESP_NIL:
        return NGX_DECLINED;

    default:
        return NGX_ERROR;
    }
}


ngx_int_t
ngx_coord_resp_double(ngx_coord_resp_value_t *v, double *d)
{
    switch (v->type) {

    case NGX_COORD_RESP_INTEGER:
        *d = (double) v->integer;
        return NGX_OK;

    case NGX_COORD_RESP_STRING:
        return ngx_coord_resp_parse_double(&v->str, d);

    case NGX_COORD_RESP_NIL:
        return NGX_DECLINED;

    default:
        return NGX_ERROR;
    }
}


ngx_int_t
ngx_coord_resp_string(ngx_coord_resp_value_t *v, ngx_str_t *s)
{
    switch (v->type) {

    case NGX_COORD_RESP_STRING:
    case NGX_COORD_RESP_STATUS:
        *s = v->str;
        return NGX_OK;

    case NGX_COORD_RESP_NIL:
        return NGX_DECLINED;

    default:
        return NGX_ERROR;
    }
}


ngx_coord_resp_value_t *
ngx_coord_resp_element(ngx_coord_resp_value_t *array, ngx_uint_t n)
{
    ngx_uint_t               i;
    ngx_coord_resp_value_t  *v;

    if (array->type != NGX_COORD_RESP_ARRAY
        || n >= (ngx_uint_t) array->integer)
    {
        return NULL;
    }

    v = array + 1;

    for (i = 0; i < n; i++) {
        v += v->next;
    }

    return v;
}


static ngx_int_t
ngx_coord_resp_parse_integer(ngx_str_t *s, int64_t *n)
{
    u_char      *p, *last;
    uint64_t     value, cutoff;
    ngx_uint_t   negative;

    p = s->data;
    last = s->data + s->len;

    negative = (p < last && *p == '-');
    p += negative;

    if (p == last) {
        return NGX_ERROR;
    }

    cutoff = (uint64_t) INT64_MAX + negative;

    for (value = 0; p < last; p++) {

        if (*p < '0' || *p > '9'
            || value > (cutoff - (*p - '0')) / 10)
        {
            return NGX_ERROR;
        }

        value = value * 10 + (*p - '0');
    }

    /* unsigned arithmetic: INT64_MIN has no positive counterpart */

    *n = (int64_t) (negative ? 0 - value : value);

    return NGX_OK;
}


/*
 * Not strtod(): its decimal point depends on the locale.  "inf" and "nan" are
 * refused: no caller can count with them.
 */

static ngx_int_t
ngx_coord_resp_parse_double(ngx_str_t *s, double *d)
{
    u_char       *p, *last, *start;
    uint64_t      mantissa;
    ngx_int_t     dropped, exponent, scale;
    ngx_uint_t    negative, minus;
    long double   value;

    p = s->data;
    last = s->data + s->len;

    negative = (p < last && *p == '-');
    p += negative;

    mantissa = 0;
    dropped = 0;
    scale = 0;

    start = p;
    p = ngx_coord_resp_parse_digits(p, last, &mantissa, &dropped);

    if (p == start) {
        return NGX_ERROR;
    }

    scale = dropped;

    if (p < last && *p == '.') {
        start = ++p;
        dropped = 0;
        p = ngx_coord_resp_parse_digits(p, last, &mantissa, &dropped);

        if (p == start) {
            return NGX_ERROR;
        }

        scale -= (p - start) - dropped;
    }

    if (p < last && (*p == 'e' || *p == 'E')) {
        p++;

        minus = (p < last && *p == '-');
        p += (p < last && (*p == '-' || *p == '+'));

        exponent = ngx_atoi(p, last - p);

        if (exponent == NGX_ERROR || exponent > 400) {
            return NGX_ERROR;
        }

        scale += minus ? -exponent : exponent;
        p = last;
    }

    if (p != last || scale > 400 || scale < -800) {
        return NGX_ERROR;
    }

    value = (long double) mantissa;

    for ( /* void */ ; scale > 0; scale--) {
        value *= 10;
    }

    for ( /* void */ ; scale < -18; scale += 18) {
        value /= 1e18L;
    }

    if (scale < 0) {
        mantissa = 1;

        for ( /* void */ ; scale < 0; scale++) {
            mantissa *= 10;
        }

        value /= mantissa;
    }

    *d = (double) (negative ? -value : value);

    return isfinite(*d) ? NGX_OK : NGX_ERROR;
}


/* digits beyond the 19th are dropped and counted */

static u_char *
ngx_coord_resp_parse_digits(u_char *p, u_char *last, uint64_t *mantissa,
    ngx_int_t *dropped)
{
    for ( /* void */ ; p < last && *p >= '0' && *p <= '9'; p++) {

        if (*mantissa >= 1000000000000000000ULL) {
            (*dropped)++;
            continue;
        }

        *mantissa = *mantissa * 10 + (*p - '0');
    }

    return p;
}
