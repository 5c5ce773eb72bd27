
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * What is said to any server, and what any server says: arguments, classes of
 * error replies.
 */


#include "ngx_coord_redis_conn.h"


#define NGX_COORD_EXECABORT  "EXECABORT Transaction discarded because of: "
#define NGX_COORD_WITH_ARGS  ", with args beginning with"


static ngx_uint_t ngx_coord_redis_tells(ngx_coord_redis_conf_t *conf,
    ngx_str_t *text);
static u_char *ngx_coord_redis_find(ngx_str_t *text, u_char *data,
    size_t len);


#define NGX_COORD_AUTH    NGX_COORD_FAIL_AUTH
#define NGX_COORD_AWAY    NGX_COORD_FAIL_UNAVAILABLE

#define NGX_COORD_ALL     NGX_COORD_NEEDS_NOTHING
#define NGX_COORD_DATA    NGX_COORD_NEEDS_DATA
#define NGX_COORD_WRITES  NGX_COORD_NEEDS_WRITES


static const ngx_coord_redis_error_t  ngx_coord_redis_errors[] = {
    { ngx_string("NOAUTH"), NGX_COORD_AUTH, 1, 0, 0, NGX_COORD_ALL },
    { ngx_string("WRONGPASS"), NGX_COORD_AUTH, 1, 0, 0, NGX_COORD_ALL },
    { ngx_string("NOPERM"), NGX_COORD_AUTH, 0, 0, 0, NGX_COORD_ALL },
    { ngx_string("READONLY"), NGX_COORD_AWAY, 1, 0, 0, NGX_COORD_WRITES },
    { ngx_string("LOADING"), NGX_COORD_AWAY, 0, 0, 0, NGX_COORD_DATA },
    { ngx_string("MASTERDOWN"), NGX_COORD_AWAY, 0, 0, 0, NGX_COORD_DATA },
    { ngx_string("BUSY"), NGX_COORD_AWAY, 0, 0, 0, NGX_COORD_ALL },
    { ngx_string("MISCONF"), NGX_COORD_AWAY, 0, 0, 0, NGX_COORD_WRITES },
    { ngx_string("OOM"), NGX_COORD_AWAY, 0, 0, 0, NGX_COORD_WRITES },
    { ngx_string("NOREPLICAS"), NGX_COORD_AWAY, 0, 0, 0, NGX_COORD_WRITES },
    { ngx_string("CLUSTERDOWN"), NGX_COORD_AWAY, 0, 1, 0, NGX_COORD_DATA },
    { ngx_string("TRYAGAIN"), NGX_COORD_AWAY, 0, 1, 1, NGX_COORD_DATA },
    { ngx_string("MOVED"), NGX_COORD_AWAY, 0, 1, 0, NGX_COORD_DATA },
    { ngx_string("ASK"), NGX_COORD_AWAY, 0, 1, 0, NGX_COORD_DATA },
    { ngx_string("ERR max number of clients"),
      NGX_COORD_AWAY, 1, 0, 0, NGX_COORD_ALL },
    { ngx_null_string, NGX_COORD_FAIL_ERROR, 0, 0, 0, NGX_COORD_ALL }
};


const ngx_coord_redis_error_t *
ngx_coord_redis_error(ngx_str_t *text)
{
    size_t                          skip;
    ngx_str_t                       s;
    const ngx_coord_redis_error_t  *e;

    s = *text;
    skip = sizeof(NGX_COORD_EXECABORT) - 1;

    /* refused at EXEC, not when it was queued: the cause stands inside */

    if (s.len > skip && ngx_memcmp(s.data, NGX_COORD_EXECABORT, skip) == 0) {
        s.data += skip;
        s.len -= skip;
    }

    for (e = ngx_coord_redis_errors; e->word.len; e++) {

        if (s.len < e->word.len
            || ngx_memcmp(s.data, e->word.data, e->word.len) != 0)
        {
            continue;
        }

        if (s.len == e->word.len
            || s.data[e->word.len] == ' '
            || ngx_strlchr(e->word.data, e->word.data + e->word.len, ' '))
        {
            return e;
        }
    }

    return e;
}


ngx_uint_t
ngx_coord_redis_error_number(const ngx_coord_redis_error_t *e)
{
    return e - ngx_coord_redis_errors;
}


const ngx_coord_redis_error_t *
ngx_coord_redis_error_of(ngx_uint_t number)
{
    ngx_uint_t  n;

    n = sizeof(ngx_coord_redis_errors) / sizeof(ngx_coord_redis_error_t);

    return &ngx_coord_redis_errors[ngx_min(number, n - 1)];
}


const ngx_str_t *
ngx_coord_redis_refuses(ngx_uint_t word)
{
    return &ngx_coord_redis_error_of(word)->word;
}


ngx_coord_fail_e
ngx_coord_redis_failure(ngx_coord_resp_value_t *value)
{
    return value->type == NGX_COORD_RESP_ERROR
           ? ngx_coord_redis_error(&value->str)->failure
           : NGX_COORD_FAIL_NONE;
}


ngx_str_t
ngx_coord_redis_error_text(ngx_coord_redis_conf_t *conf, u_char *buf,
    ngx_str_t *text)
{
    u_char     *p;
    ngx_str_t   s;

    s = *text;

    p = ngx_coord_redis_find(&s, (u_char *) NGX_COORD_WITH_ARGS,
                             sizeof(NGX_COORD_WITH_ARGS) - 1);
    if (p != NULL) {
        s.len = p - s.data;
    }

    if (ngx_coord_redis_tells(conf, &s)) {
        for (s.len = 0; s.len < text->len; s.len++) {
            if (s.data[s.len] < 'A' || s.data[s.len] > 'Z') {
                break;
            }
        }
    }

    return ngx_coord_log_text(buf, &s);
}


/* 1 if there is a password of the store in a text */

static ngx_uint_t
ngx_coord_redis_tells(ngx_coord_redis_conf_t *conf, ngx_str_t *text)
{
    ngx_str_t              *password;
    ngx_uint_t              i;
    ngx_coord_endpoint_t  **endpoints;

    endpoints = conf->servers->elts;

    for (i = 0; i <= conf->servers->nelts; i++) {

        password = i ? &endpoints[i - 1]->auth->password
                     : &conf->auth->password;

        if (password->len
            && ngx_coord_redis_find(text, password->data, password->len))
        {
            return 1;
        }
    }

    return 0;
}


static u_char *
ngx_coord_redis_find(ngx_str_t *text, u_char *data, size_t len)
{
    u_char  *p;

    for (p = text->data; len + (p - text->data) <= text->len; p++) {
        if (ngx_memcmp(p, data, len) == 0) {
            return p;
        }
    }

    return NULL;
}


u_char *
ngx_coord_redis_bulk(u_char *p, u_char *data, size_t len)
{
    p = ngx_sprintf(p, "$%uz" CRLF, len);
    p = ngx_cpymem(p, data, len);

    *p++ = CR;
    *p++ = LF;

    return p;
}
