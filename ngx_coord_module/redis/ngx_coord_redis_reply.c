
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * What replies mean: classes of error replies, and whether what has arrived
 * is the answer to this very call.
 */


#include "ngx_coord_redis_conn.h"


static ngx_coord_resp_value_t *ngx_coord_redis_asked(
    ngx_coord_resp_value_t *gathered);
static ngx_int_t ngx_coord_redis_check_multi(ngx_coord_redis_call_t *call,
    ngx_coord_resp_value_t *gathered, ngx_coord_resp_value_t **reply,
    ngx_coord_resp_value_t **error);
static ngx_int_t ngx_coord_redis_check_plain(ngx_coord_redis_call_t *call,
    ngx_coord_resp_value_t *gathered, ngx_coord_resp_value_t **reply,
    ngx_coord_resp_value_t **error);
static ngx_int_t ngx_coord_redis_check_bare(ngx_coord_redis_call_t *call,
    ngx_coord_resp_value_t *gathered, ngx_coord_resp_value_t **reply,
    ngx_coord_resp_value_t **error);
static ngx_int_t ngx_coord_redis_check_echo(ngx_coord_redis_call_t *call,
    ngx_coord_resp_value_t *array);
static ngx_uint_t ngx_coord_redis_tells(ngx_coord_redis_conf_t *conf,
    ngx_str_t *text);
static u_char *ngx_coord_redis_find(ngx_str_t *text, u_char *data,
    size_t len);
static ngx_uint_t ngx_coord_redis_is_nonce(ngx_coord_redis_call_t *call,
    ngx_coord_resp_value_t *v);
static ngx_uint_t ngx_coord_redis_is_status(ngx_coord_resp_value_t *v,
    const char *text, size_t len);


#define NGX_COORD_EXECABORT  "EXECABORT Transaction discarded because of: "
#define NGX_COORD_WITH_ARGS  ", with args beginning with"


static const ngx_coord_redis_error_t  ngx_coord_redis_errors[] = {
    { ngx_string("NOAUTH"), NGX_COORD_FAIL_AUTH, 1, 0 },
    { ngx_string("WRONGPASS"), NGX_COORD_FAIL_AUTH, 1, 0 },
    { ngx_string("NOPERM"), NGX_COORD_FAIL_AUTH, 0, 0 },
    { ngx_string("READONLY"), NGX_COORD_FAIL_UNAVAILABLE, 1, 0 },
    { ngx_string("LOADING"), NGX_COORD_FAIL_UNAVAILABLE, 0, 0 },
    { ngx_string("MASTERDOWN"), NGX_COORD_FAIL_UNAVAILABLE, 0, 0 },
    { ngx_string("BUSY"), NGX_COORD_FAIL_UNAVAILABLE, 0, 0 },
    { ngx_string("MISCONF"), NGX_COORD_FAIL_UNAVAILABLE, 0, 0 },
    { ngx_string("OOM"), NGX_COORD_FAIL_UNAVAILABLE, 0, 0 },
    { ngx_string("NOREPLICAS"), NGX_COORD_FAIL_UNAVAILABLE, 0, 0 },
    { ngx_string("CLUSTERDOWN"), NGX_COORD_FAIL_UNAVAILABLE, 0, 1 },
    { ngx_string("TRYAGAIN"), NGX_COORD_FAIL_UNAVAILABLE, 0, 1 },
    { ngx_string("MOVED"), NGX_COORD_FAIL_UNAVAILABLE, 0, 1 },
    { ngx_string("ASK"), NGX_COORD_FAIL_UNAVAILABLE, 0, 1 },
    { ngx_string("ERR max number of clients"),
      NGX_COORD_FAIL_UNAVAILABLE, 1, 0 },
    { ngx_null_string, NGX_COORD_FAIL_ERROR, 0, 0 }
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


ngx_uint_t
ngx_coord_redis_replies(ngx_coord_redis_call_t *call)
{
    /* the commands and ECHO; MULTI and EXEC; ASKING */

    switch (call->form) {

    case NGX_COORD_CALL_PLAIN:
    case NGX_COORD_CALL_BARE:
        return call->total + 1 + call->ask;

    default: /* NGX_COORD_CALL_ALONE, NGX_COORD_CALL_SHARED */
        return call->total + 3 + call->ask;
    }
}


ngx_int_t
ngx_coord_redis_check(ngx_coord_redis_call_t *call,
    ngx_coord_resp_value_t *gathered, ngx_coord_resp_value_t **reply,
    ngx_coord_resp_value_t **error)
{
    if (gathered->type != NGX_COORD_RESP_ARRAY
        || (ngx_uint_t) gathered->integer != ngx_coord_redis_replies(call))
    {
        return NGX_ERROR;
    }

    if (call->ask) {
        gathered = ngx_coord_redis_asked(gathered);

        if (gathered == NULL) {
            return NGX_ERROR;
        }
    }

    switch (call->form) {

    case NGX_COORD_CALL_PLAIN:
        return ngx_coord_redis_check_plain(call, gathered, reply, error);

    case NGX_COORD_CALL_BARE:
        return ngx_coord_redis_check_bare(call, gathered, reply, error);

    default: /* NGX_COORD_CALL_ALONE, NGX_COORD_CALL_SHARED */
        return ngx_coord_redis_check_multi(call, gathered, reply, error);
    }
}


/*
 * The replies behind that to ASKING, whose place the array's takes.  A server
 * that refuses it refuses what is behind it by a MOVED.
 */

static ngx_coord_resp_value_t *
ngx_coord_redis_asked(ngx_coord_resp_value_t *gathered)
{
    ngx_coord_resp_value_t  *v;

    v = gathered + 1;

    if (v->type != NGX_COORD_RESP_STATUS && v->type != NGX_COORD_RESP_ERROR) {
        return NULL;
    }

    v->type = NGX_COORD_RESP_ARRAY;
    v->integer = gathered->integer - 1;
    v->next = gathered->next - 1;

    return v;
}


/*
 * +OK, +QUEUED for each command and ECHO, the array of EXEC.  An error at any
 * of them ends in an error from EXEC.  Where MULTI itself was refused the
 * commands have run, or were refused, one by one: ECHO still tells whose
 * replies these are.
 */

static ngx_int_t
ngx_coord_redis_check_multi(ngx_coord_redis_call_t *call,
    ngx_coord_resp_value_t *gathered, ngx_coord_resp_value_t **reply,
    ngx_coord_resp_value_t **error)
{
    ngx_uint_t               i, refused;
    ngx_coord_resp_value_t  *v;

    *error = NULL;

    v = gathered + 1;
    refused = (v->type == NGX_COORD_RESP_ERROR);

    if (refused) {
        *error = v;

    } else if (!ngx_coord_redis_is_status(v, "OK", sizeof("OK") - 1)) {
        return NGX_ERROR;
    }

    for (i = 0; i < call->total + 1; i++) {
        v += v->next;

        if (v->type == NGX_COORD_RESP_ERROR) {
            *error = *error ? *error : v;
            continue;
        }

        if (refused) {
            if (i == call->total && !ngx_coord_redis_is_nonce(call, v)) {
                return NGX_ERROR;
            }

            continue;
        }

        if (!ngx_coord_redis_is_status(v, "QUEUED", sizeof("QUEUED") - 1)) {
            return NGX_ERROR;
        }
    }

    v += v->next;

    if (v->type == NGX_COORD_RESP_ERROR) {
        *error = *error ? *error : v;
        return NGX_DECLINED;
    }

    if (*error != NULL || ngx_coord_redis_check_echo(call, v) != NGX_OK) {
        return NGX_ERROR;
    }

    *reply = v + 1;

    return NGX_OK;
}


static ngx_int_t
ngx_coord_redis_check_plain(ngx_coord_redis_call_t *call,
    ngx_coord_resp_value_t *gathered, ngx_coord_resp_value_t **reply,
    ngx_coord_resp_value_t **error)
{
    ngx_uint_t               i;
    ngx_coord_resp_value_t  *v, *first;

    first = NULL;
    v = gathered + 1;

    for (i = 0; i < call->total; i++) {

        if (first == NULL && v->type == NGX_COORD_RESP_ERROR) {
            first = v;
        }

        v += v->next;
    }

    /* a server that refuses everything refuses ECHO, too */

    if (first != NULL && v->type == NGX_COORD_RESP_ERROR) {
        *error = first;
        return NGX_DECLINED;
    }

    if (ngx_coord_redis_check_echo(call, gathered) != NGX_OK) {
        return NGX_ERROR;
    }

    if (first != NULL
        && ngx_coord_redis_error(&first->str)->failure != NGX_COORD_FAIL_ERROR)
    {
        *error = first;
        return NGX_DECLINED;
    }

    *reply = gathered + 1;

    return NGX_OK;
}


/*
 * A value a command, errors among them, and the nonce.  A server that refuses
 * everything refuses ECHO, too: then all are errors.
 */

static ngx_int_t
ngx_coord_redis_check_bare(ngx_coord_redis_call_t *call,
    ngx_coord_resp_value_t *gathered, ngx_coord_resp_value_t **reply,
    ngx_coord_resp_value_t **error)
{
    ngx_uint_t               i;
    ngx_coord_resp_value_t  *v;

    if (ngx_coord_redis_check_echo(call, gathered) == NGX_OK) {
        *reply = gathered + 1;
        return NGX_OK;
    }

    v = gathered + 1;
    *error = v;

    for (i = 0; i < call->total + 1; i++) {

        if (v->type != NGX_COORD_RESP_ERROR) {
            return NGX_ERROR;
        }

        v += v->next;
    }

    return NGX_DECLINED;
}


/* the array has a value a command, and ends with the nonce */

static ngx_int_t
ngx_coord_redis_check_echo(ngx_coord_redis_call_t *call,
    ngx_coord_resp_value_t *array)
{
    ngx_coord_resp_value_t  *v;

    v = ngx_coord_resp_element(array, call->total);

    if (v == NULL
        || (ngx_uint_t) array->integer != call->total + 1
        || !ngx_coord_redis_is_nonce(call, v))
    {
        return NGX_ERROR;
    }

    return NGX_OK;
}


static ngx_uint_t
ngx_coord_redis_is_nonce(ngx_coord_redis_call_t *call,
    ngx_coord_resp_value_t *v)
{
    u_char  nonce[NGX_COORD_REDIS_NONCE_LEN];

    (void) ngx_coord_redis_nonce(nonce, call->nonce);

    return v->type == NGX_COORD_RESP_STRING
           && v->str.len == NGX_COORD_REDIS_NONCE_LEN
           && ngx_memcmp(v->str.data, nonce, NGX_COORD_REDIS_NONCE_LEN) == 0;
}


static ngx_uint_t
ngx_coord_redis_is_status(ngx_coord_resp_value_t *v, const char *text,
    size_t len)
{
    return v->type == NGX_COORD_RESP_STATUS
           && v->str.len == len
           && ngx_memcmp(v->str.data, text, len) == 0;
}


u_char *
ngx_coord_redis_nonce(u_char *p, uint64_t nonce)
{
    return ngx_hex_dump(p, (u_char *) &nonce, sizeof(uint64_t));
}


ngx_int_t
ngx_coord_redis_time(ngx_coord_resp_value_t *v, ngx_coord_nsec_t *time)
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


u_char *
ngx_coord_redis_bulk(u_char *p, u_char *data, size_t len)
{
    p = ngx_sprintf(p, "$%uz" CRLF, len);
    p = ngx_cpymem(p, data, len);

    *p++ = CR;
    *p++ = LF;

    return p;
}
