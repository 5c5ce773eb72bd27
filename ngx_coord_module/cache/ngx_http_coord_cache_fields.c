
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Fields of a message: directives of Cache-Control, what Vary names, the Date.
 */


#include "ngx_http_coord_cache.h"


#define NGX_HTTP_COORD_CACHE_NAMES  32       /* in Vary */


static ngx_int_t ngx_http_coord_cache_vary_by(ngx_http_request_t *r,
    ngx_str_t *name);


ngx_int_t
ngx_http_coord_cache_argument(ngx_str_t *line, ngx_str_t *name,
    ngx_str_t *value)
{
    u_char  *equals;

    if (ngx_http_coord_field_member(line, name) != NGX_OK) {
        return NGX_DONE;
    }

    ngx_str_null(value);

    equals = ngx_strlchr(name->data, name->data + name->len, '=');

    if (equals == NULL) {
        return NGX_OK;
    }

    value->data = equals + 1;
    value->len = name->data + name->len - value->data;
    name->len = equals - name->data;

    if (value->len >= 2
        && value->data[0] == '"'
        && value->data[value->len - 1] == '"')
    {
        value->data++;
        value->len -= 2;
    }

    return NGX_OK;
}


ngx_uint_t
ngx_http_coord_cache_asked(ngx_http_request_t *r, const char *directive)
{
    ngx_str_t   *line, left, name, value;
    ngx_uint_t   i;

    for (i = 0; /* void */ ; /* void */ ) {
        line = ngx_http_coord_field_line(&r->headers_in.headers,
                                         "Cache-Control", &i);
        if (line == NULL) {
            return 0;
        }

        left = *line;

        while (ngx_http_coord_cache_argument(&left, &name, &value) == NGX_OK) {
            if (ngx_http_coord_field_is(&name, directive)) {
                return 1;
            }
        }
    }
}


time_t
ngx_http_coord_cache_number(ngx_str_t *value)
{
    size_t  i;
    time_t  n;

    /* what is no number is none, what is too large is large */

    for (i = 0; i < value->len; i++) {
        if (value->data[i] < '0' || value->data[i] > '9') {
            return 0;
        }
    }

    if (value->len == 0) {
        return 0;
    }

    n = ngx_atotm(value->data, value->len);

    return n == NGX_ERROR ? NGX_HTTP_COORD_CACHE_YEAR
                          : ngx_min(n, NGX_HTTP_COORD_CACHE_YEAR);
}


ngx_int_t
ngx_http_coord_cache_variant(ngx_http_request_t *r,
    ngx_http_coord_cache_conf_t *ccf, ngx_str_t *lines, ngx_uint_t nlines,
    u_char *digest)
{
    ngx_str_t   left, name;
    ngx_uint_t  i, n;

    n = 0;

    if (nlines == 0 && !ccf->user) {
        return NGX_DECLINED;
    }

    if (ngx_coord_digest_init() != NGX_OK) {
        return NGX_ERROR;
    }

    for (i = 0; i < nlines; i++) {
        left = lines[i];

        while (ngx_http_coord_field_member(&left, &name) == NGX_OK) {

            if (n++ == NGX_HTTP_COORD_CACHE_NAMES
                || ngx_http_coord_field_is(&name, "*"))
            {
                return NGX_BUSY;
            }

            if (ngx_http_coord_cache_vary_by(r, &name) != NGX_OK) {
                return NGX_ERROR;
            }
        }
    }

    /* a name is no proof: only the same credentials are those of the user */

    if (ccf->user) {
        ngx_str_set(&name, "Authorization");

        return ngx_http_coord_cache_vary_by(r, &name) == NGX_OK
               ? ngx_coord_digest_final(digest) : NGX_ERROR;
    }

    if (n == 0) {
        return NGX_DECLINED;
    }

    return ngx_coord_digest_final(digest);
}


/*
 * The name in lower case, and each member of its lines in the request, with its
 * length: blanks around them, and how many lines they are, change nothing
 * (RFC 9111, 4.1).
 */

static ngx_int_t
ngx_http_coord_cache_vary_by(ngx_http_request_t *r, ngx_str_t *name)
{
    u_char      buf[256];
    ngx_str_t   lower, *line, left, member;
    ngx_uint_t  i, n;

    if (name->len >= sizeof(buf)) {
        return NGX_ERROR;
    }

    lower.data = buf;
    lower.len = name->len;

    ngx_strlow(buf, name->data, name->len);
    buf[name->len] = '\0';

    if (ngx_coord_digest_field(&lower) != NGX_OK) {
        return NGX_ERROR;
    }

    n = 0;

    for (i = 0; /* void */ ; /* void */ ) {
        line = ngx_http_coord_field_line(&r->headers_in.headers, (char *) buf,
                                         &i);
        if (line == NULL) {
            break;
        }

        left = *line;

        while (ngx_http_coord_field_member(&left, &member) == NGX_OK) {
            if (ngx_coord_digest_field(&member) != NGX_OK) {
                return NGX_ERROR;
            }

            n++;
        }
    }

    /* an empty field is not an absent one */

    ngx_str_null(&member);

    if (i && n == 0 && ngx_coord_digest_field(&member) != NGX_OK) {
        return NGX_ERROR;
    }

    /* the end of the members, which no member looks like */

    return ngx_coord_digest_update("\377", 1);
}


ngx_table_elt_t *
ngx_http_coord_cache_dated_by(ngx_http_request_t *r)
{
    /* that of an upstream is not passed on, by default */

    return r->headers_out.date ? r->headers_out.date
           : r->upstream ? r->upstream->headers_in.date
           : NULL;
}


ngx_int_t
ngx_http_coord_cache_dated(ngx_http_request_t *r)
{
    u_char           *p;
    ngx_str_t         value;
    ngx_table_elt_t  *h;

    if (r->headers_out.date) {
        return NGX_OK;
    }

    h = ngx_http_coord_cache_dated_by(r);
    value = h ? h->value : ngx_cached_http_time;

    p = ngx_pstrdup(r->pool, &value);
    if (p == NULL) {
        return NGX_ERROR;
    }

    h = ngx_list_push(&r->headers_out.headers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    ngx_memzero(h, sizeof(ngx_table_elt_t));

    h->hash = 1;
    ngx_str_set(&h->key, "Date");
    h->value.len = value.len;
    h->value.data = p;

    r->headers_out.date = h;

    return NGX_OK;
}


size_t
ngx_http_coord_cache_variant_key(u_char *dst, ngx_http_coord_cache_t *cache,
    u_char *variant)
{
    u_char     *p, buf[NGX_COORD_KEY_LEN + NGX_COORD_DIGEST_LEN];
    ngx_str_t   name;

    p = ngx_cpymem(buf, cache->key, cache->key_len);
    p = ngx_cpymem(p, variant, NGX_COORD_DIGEST_LEN);

    name.data = buf;
    name.len = p - buf;

    return ngx_coord_key_digest(dst, &name);
}
