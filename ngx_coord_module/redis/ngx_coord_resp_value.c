
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Typed access to the values of a reply, which trusts nothing the server says.
 */


#include "ngx_coord_resp.h"


static ngx_int_t ngx_coord_resp_parse_integer(ngx_str_t *s, int64_t *n);
static ngx_int_t ngx_coord_resp_parse_score(ngx_str_t *s, int64_t *n);
static u_char *ngx_coord_resp_parse_digits(u_char *p, u_char *last,
    uint64_t *value);


ngx_int_t
ngx_coord_resp_number(ngx_coord_resp_value_t *v, int64_t *n)
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
ngx_coord_resp_score(ngx_coord_resp_value_t *v, int64_t *n)
{
    switch (v->type) {

    case NGX_COORD_RESP_INTEGER:
        *n = v->integer;
        break;

    case NGX_COORD_RESP_STRING:

        if (ngx_coord_resp_parse_score(&v->str, n) != NGX_OK) {
            return NGX_ERROR;
        }

        break;

    case NGX_COORD_RESP_NIL:
        return NGX_DECLINED;

    default:
        return NGX_ERROR;
    }

    if (*n < -NGX_COORD_RESP_SCORE_MAX || *n > NGX_COORD_RESP_SCORE_MAX) {
        return NGX_ERROR;
    }

    return NGX_OK;
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
 * Scores are doubles, but we only store integers.  Servers print round ones
 * with an exponent ("1.7e+15").
 */

static ngx_int_t
ngx_coord_resp_parse_score(ngx_str_t *s, int64_t *n)
{
    u_char      *p, *last, *start;
    uint64_t     value;
    ngx_int_t    scale, exponent;
    ngx_uint_t   negative;

    p = s->data;
    last = s->data + s->len;

    negative = (p < last && *p == '-');
    start = p + negative;

    value = 0;
    scale = 0;

    p = ngx_coord_resp_parse_digits(start, last, &value);

    if (p == start) {
        return NGX_ERROR;
    }

    if (p < last && *p == '.') {
        start = p + 1;
        p = ngx_coord_resp_parse_digits(start, last, &value);

        if (p == start) {
            return NGX_ERROR;
        }

        scale = start - p;
    }

    if (p < last && (*p == 'e' || *p == 'E')) {
        p++;
        p += (p < last && *p == '+');

        exponent = ngx_atoi(p, last - p);

        if (exponent == NGX_ERROR || exponent > 18) {
            return NGX_ERROR;
        }

        scale += exponent;
        p = last;
    }

    for ( /* void */ ; scale < 0 && value % 10 == 0; scale++) {
        value /= 10;
    }

    for ( /* void */ ; scale > 0 && value <= NGX_COORD_RESP_SCORE_MAX; scale--)
    {
        value *= 10;
    }

    if (p != last || scale != 0 || value > NGX_COORD_RESP_SCORE_MAX) {
        return NGX_ERROR;
    }

    *n = negative ? -(int64_t) value : (int64_t) value;

    return NGX_OK;
}


/* stops where the value would be too large */

static u_char *
ngx_coord_resp_parse_digits(u_char *p, u_char *last, uint64_t *value)
{
    for ( /* void */ ; p < last && *p >= '0' && *p <= '9'; p++) {

        if (*value > NGX_COORD_RESP_SCORE_MAX) {
            break;
        }

        *value = *value * 10 + (*p - '0');
    }

    return p;
}


ngx_int_t
ngx_coord_resp_time(ngx_coord_resp_value_t *v, ngx_coord_nsec_t *time)
{
    int64_t                  sec, usec;
    ngx_coord_resp_value_t  *s, *u;

    s = ngx_coord_resp_element(v, 0);
    u = ngx_coord_resp_element(v, 1);

    if (s == NULL || u == NULL
        || ngx_coord_resp_integer(s, &sec) != NGX_OK
        || ngx_coord_resp_integer(u, &usec) != NGX_OK)
    {
        return NGX_ERROR;
    }

    /* no overflow of nanoseconds in 64 bits, with room for durations */

    if (sec < 0 || sec > 4294967295LL || usec < 0 || usec > 999999) {
        return NGX_ERROR;
    }

    *time = sec * NGX_COORD_NSEC_PER_SEC + usec * NGX_COORD_NSEC_PER_USEC;

    return NGX_OK;
}
