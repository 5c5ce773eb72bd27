
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Whether what comes back is the answer to this very call.
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
static ngx_int_t ngx_coord_redis_check_refusal(ngx_coord_resp_value_t *echo);
static ngx_uint_t ngx_coord_redis_is_mute(ngx_coord_redis_call_t *call,
    ngx_coord_resp_value_t *gathered, ngx_coord_resp_value_t **error);
static ngx_uint_t ngx_coord_redis_is_nonce(ngx_coord_redis_call_t *call,
    ngx_coord_resp_value_t *v);
static ngx_uint_t ngx_coord_redis_is_status(ngx_coord_resp_value_t *v,
    const char *text, size_t len);


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
    ngx_coord_resp_value_t  *v, *echo;

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

    echo = v;
    v += v->next;

    if (v->type == NGX_COORD_RESP_ERROR) {
        *error = *error ? *error : v;
        return ngx_coord_redis_check_refusal(echo);
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

    if (ngx_coord_redis_is_mute(call, gathered, error)) {
        return NGX_ABORT;
    }

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
        return ngx_coord_redis_check_refusal(v);
    }

    if (ngx_coord_redis_check_echo(call, gathered) != NGX_OK) {
        return NGX_ERROR;
    }

    /* one that is refused for what it is leaves the others as they are */

    if (first != NULL
        && ngx_coord_redis_failure(first) == NGX_COORD_FAIL_UNAVAILABLE)
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
    ngx_coord_resp_value_t  *v, *echo;

    if (ngx_coord_redis_check_echo(call, gathered) == NGX_OK) {
        *reply = gathered + 1;
        return NGX_OK;
    }

    if (ngx_coord_redis_is_mute(call, gathered, error)) {
        return NGX_ABORT;
    }

    v = gathered + 1;
    echo = v;
    *error = v;

    for (i = 0; i < call->total + 1; i++) {

        if (v->type != NGX_COORD_RESP_ERROR) {
            return NGX_ERROR;
        }

        echo = v;
        v += v->next;
    }

    return ngx_coord_redis_check_refusal(echo);
}


/*
 * Every user may ECHO, if rules do not forbid it (NOPERM), and whatever the
 * state of a server is that has a word for it: an error without one comes from
 * who has no server, such as a proxy, or no such command.
 */

static ngx_int_t
ngx_coord_redis_check_refusal(ngx_coord_resp_value_t *echo)
{
    switch (ngx_coord_redis_failure(echo)) {

    case NGX_COORD_FAIL_ERROR:
    case NGX_COORD_FAIL_AUTH:
        return NGX_ABORT;

    default:
        return NGX_DECLINED;
    }
}


/* 1 if the user may not ECHO: whose replies the others are nobody knows */

static ngx_uint_t
ngx_coord_redis_is_mute(ngx_coord_redis_call_t *call,
    ngx_coord_resp_value_t *gathered, ngx_coord_resp_value_t **error)
{
    ngx_coord_resp_value_t  *echo;

    echo = ngx_coord_resp_element(gathered, call->total);

    if (echo == NULL || ngx_coord_redis_failure(echo) != NGX_COORD_FAIL_AUTH) {
        return 0;
    }

    *error = echo;

    return 1;
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
