
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Tags of a response: Surrogate-Key, Cache-Tag, and the groups of RFC 9875.
 */


#include "ngx_http_coord_cache.h"


typedef struct {
    const char                *field;
    ngx_int_t                (*next)(ngx_str_t *value, ngx_str_t *member);
    ngx_uint_t                 groups;
} ngx_http_coord_cache_tagged_t;


static u_char *ngx_http_coord_cache_tags_of(ngx_list_t *headers,
    u_char *start, u_char *p, u_char *last);
static u_char *ngx_http_coord_cache_tags_line(
    const ngx_http_coord_cache_tagged_t *by, ngx_str_t *line, u_char *start,
    u_char *p, u_char *last);
static u_char *ngx_http_coord_cache_tags_hidden(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache, u_char *start, u_char *p, u_char *last);
static u_char *ngx_http_coord_cache_tags_shown(ngx_http_coord_cache_t *cache,
    u_char *p, u_char *last);
static ngx_uint_t ngx_http_coord_cache_tag_in(ngx_str_t *tag, u_char *p,
    u_char *last, ngx_uint_t *n);
static ngx_int_t ngx_http_coord_cache_word(ngx_str_t *value,
    ngx_str_t *member);
static u_char *ngx_http_coord_cache_tag(ngx_str_t *tag, u_char *start,
    u_char *p, u_char *last);


static const ngx_http_coord_cache_tagged_t  ngx_http_coord_cache_tagged_by[] = {
    { "Surrogate-Key", ngx_http_coord_cache_word, 0 },
    { "Cache-Tag", ngx_http_coord_field_member, 0 },
    { "Cache-Groups", ngx_http_coord_field_member, 1 },
    { NULL, NULL, 0 }
};


u_char *
ngx_http_coord_cache_tags(ngx_http_request_t *r, ngx_http_coord_cache_t *cache,
    u_char *p, u_char *last)
{
    u_char  *start;

    start = p;

    p = ngx_http_coord_cache_tags_of(&r->headers_out.headers, start, p, last);

    /* those that the client is not to see: proxy_hide_header and the like */

    if (p && ngx_http_coord_capture_live(r)) {
        p = ngx_http_coord_cache_tags_of(&r->upstream->headers_in.headers,
                                         start, p, last);
    }

    if (p && cache->same) {
        p = ngx_http_coord_cache_tags_hidden(r, cache, start, p, last);
    }

    return p;
}


static u_char *
ngx_http_coord_cache_tags_of(ngx_list_t *headers, u_char *start, u_char *p,
    u_char *last)
{
    ngx_str_t                            *line;
    ngx_uint_t                            i;
    const ngx_http_coord_cache_tagged_t  *by;

    for (by = ngx_http_coord_cache_tagged_by; by->field; by++) {

        for (i = 0; p; /* void */ ) {
            line = ngx_http_coord_field_line(headers, by->field, &i);

            if (line == NULL) {
                break;
            }

            p = ngx_http_coord_cache_tags_line(by, line, start, p, last);
        }
    }

    return p;
}


static u_char *
ngx_http_coord_cache_tags_line(const ngx_http_coord_cache_tagged_t *by,
    ngx_str_t *line, u_char *start, u_char *p, u_char *last)
{
    u_char     buf[NGX_HTTP_COORD_CACHE_TAG + 1];
    ngx_str_t  left, tag;

    left = *line;

    while (p && by->next(&left, &tag) == NGX_OK) {

        if (by->groups) {
            ngx_http_coord_cache_group(&tag, buf);
        }

        p = ngx_http_coord_cache_tag(&tag, start, p, last);
    }

    return p;
}


/*
 * A 304 without the fields leaves them as they were: those that the client sees
 * stand in the stored response, others only as its tags.
 */

static u_char *
ngx_http_coord_cache_tags_hidden(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache, u_char *start, u_char *p, u_char *last)
{
    u_char      *shown, *end, *one, *stop, *next;
    ngx_str_t    tag, *tags;
    ngx_uint_t   n;

    tags = &cache->stored.tags;

    if (tags->len == 0) {
        return p;
    }

    shown = ngx_pnalloc(r->pool, tags->len);
    if (shown == NULL) {
        return NULL;
    }

    end = ngx_http_coord_cache_tags_shown(cache, shown, shown + tags->len);
    stop = tags->data + tags->len;

    for (one = tags->data; p && one < stop; one = next + 1) {
        next = ngx_strlchr(one, stop, LF);

        if (next == NULL) {
            break;
        }

        tag.data = one;
        tag.len = next - one;

        if (end == NULL
            || !ngx_http_coord_cache_tag_in(&tag, shown, end, &n))
        {
            p = ngx_http_coord_cache_tag(&tag, start, p, last);
        }
    }

    return p;
}


static u_char *
ngx_http_coord_cache_tags_shown(ngx_http_coord_cache_t *cache, u_char *p,
    u_char *last)
{
    u_char                               *start;
    ngx_str_t                             lines[NGX_HTTP_COORD_CACHE_TAGS];
    ngx_uint_t                            i, n;
    const ngx_http_coord_cache_tagged_t  *by;

    start = p;

    for (by = ngx_http_coord_cache_tagged_by; by->field; by++) {
        n = ngx_http_coord_stored_field(&cache->stored.record, by->field,
                                        lines, NGX_HTTP_COORD_CACHE_TAGS);

        for (i = 0; p && i < n; i++) {
            p = ngx_http_coord_cache_tags_line(by, &lines[i], start, p, last);
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
    ngx_uint_t  n;

    if (tag->len == 0 || ngx_http_coord_cache_tag_in(tag, start, p, &n)) {
        return p;
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


/* 1 if it is among those from p to last; 0: n are all of them */

static ngx_uint_t
ngx_http_coord_cache_tag_in(ngx_str_t *tag, u_char *p, u_char *last,
    ngx_uint_t *n)
{
    u_char  *end;

    for (*n = 0; p < last; p = end + 1) {
        end = ngx_strlchr(p, last, LF);

        if ((size_t) (end - p) == tag->len
            && ngx_memcmp(p, tag->data, tag->len) == 0)
        {
            return 1;
        }

        (*n)++;
    }

    return 0;
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
