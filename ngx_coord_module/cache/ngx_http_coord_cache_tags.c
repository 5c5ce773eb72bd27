
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Tags of a response: Surrogate-Key, Cache-Tag, and the groups of RFC 9875.
 */


#include "ngx_http_coord_cache.h"


static ngx_int_t ngx_http_coord_cache_word(ngx_str_t *value,
    ngx_str_t *member);
static u_char *ngx_http_coord_cache_tag(ngx_str_t *tag, u_char *start,
    u_char *p, u_char *last);


static const struct {
    const char                *field;
    ngx_int_t                (*next)(ngx_str_t *value, ngx_str_t *member);
    ngx_uint_t                 groups;
} ngx_http_coord_cache_tagged_by[] = {
    { "Surrogate-Key", ngx_http_coord_cache_word, 0 },
    { "Cache-Tag", ngx_http_coord_field_member, 0 },
    { "Cache-Groups", ngx_http_coord_field_member, 1 },
    { NULL, NULL, 0 }
};


u_char *
ngx_http_coord_cache_tags(ngx_list_t *headers, u_char *p, u_char *last)
{
    u_char      *start, buf[NGX_HTTP_COORD_CACHE_TAG + 1];
    ngx_str_t   *line, left, tag;
    ngx_uint_t   i, k;

    start = p;

    for (k = 0; ngx_http_coord_cache_tagged_by[k].field; k++) {

        for (i = 0; /* void */ ; /* void */ ) {
            line = ngx_http_coord_field_line(headers,
                                  ngx_http_coord_cache_tagged_by[k].field, &i);
            if (line == NULL) {
                break;
            }

            left = *line;

            while (ngx_http_coord_cache_tagged_by[k].next(&left, &tag)
                   == NGX_OK)
            {
                if (ngx_http_coord_cache_tagged_by[k].groups) {
                    ngx_http_coord_cache_group(&tag, buf);
                }

                p = ngx_http_coord_cache_tag(&tag, start, p, last);
                if (p == NULL) {
                    return NULL;
                }
            }
        }
    }

    return p;
}


/* as ngx_http_coord_field_member(), for what stands between blanks */

static ngx_int_t
ngx_http_coord_cache_word(ngx_str_t *value, ngx_str_t *member)
{
    u_char  *p, *last;

    p = value->data;
    last = p + value->len;

    while (p < last && (*p == ' ' || *p == '\t')) {
        p++;
    }

    if (p == last) {
        return NGX_DONE;
    }

    member->data = p;

    while (p < last && *p != ' ' && *p != '\t') {
        p++;
    }

    member->len = p - member->data;

    value->data = p;
    value->len = last - p;

    return NGX_OK;
}


void
ngx_http_coord_cache_group(ngx_str_t *member, u_char *buf)
{
    u_char  *p, *last, *dst;

    p = member->data;
    last = p + member->len;

    if (p == last || *p != '"') {

        /* no string: what stands before its parameters */

        dst = ngx_strlchr(p, last, ';');
        member->len = dst ? (size_t) (dst - p) : member->len;

        return;
    }

    dst = buf;

    /* one byte more than a tag may have tells that it is too long */

    for (p++; p < last && *p != '"' && dst <= buf + NGX_HTTP_COORD_CACHE_TAG;
         p++)
    {
        if (*p == '\\' && p + 1 < last) {
            p++;
        }

        *dst++ = *p;
    }

    member->data = buf;
    member->len = dst - buf;
}


/* one that stands in several fields is one; from start to p: those before */

static u_char *
ngx_http_coord_cache_tag(ngx_str_t *tag, u_char *start, u_char *p,
    u_char *last)
{
    u_char      *end, *one;
    ngx_uint_t   n;

    if (tag->len == 0) {
        return p;
    }

    n = 0;

    for (one = start; one < p; one = end + 1) {
        end = ngx_strlchr(one, p, LF);

        if ((size_t) (end - one) == tag->len
            && ngx_memcmp(one, tag->data, tag->len) == 0)
        {
            return p;
        }

        n++;
    }

    if (n == NGX_HTTP_COORD_CACHE_TAGS
        || tag->len > NGX_HTTP_COORD_CACHE_TAG
        || (size_t) (last - p) < tag->len + 1
        || !ngx_coord_record_value(tag))
    {
        return NULL;
    }

    p = ngx_cpymem(p, tag->data, tag->len);
    *p++ = LF;

    return p;
}


size_t
ngx_http_coord_cache_tag_key(u_char *dst, ngx_str_t *tag)
{
    u_char      buf[sizeof("tag:") - 1 + NGX_HTTP_COORD_CACHE_TAG];
    ngx_str_t   name;

    if (tag->len > NGX_HTTP_COORD_CACHE_TAG) {
        return 0;
    }

    name.data = buf;
    name.len = ngx_sprintf(buf, "tag:%V", tag) - buf;

    /* no key of a response stands so: those that are plain are no digests */

    return ngx_coord_key_digest(dst, &name);
}
