
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * hiredis' reader finds the values, this file bounds and keeps them.  Its
 * callbacks append to a flat array; strings go to an arena as offsets and
 * become pointers when the reply is whole, for the arena may move meanwhile.
 */


#include "ngx_coord_resp.h"

#include <hiredis/hiredis.h>


#define NGX_COORD_RESP_ARENA       4096     /* kept between replies */
#define NGX_COORD_RESP_MAX_LENGTH  24       /* digits of a length, CRLF */
#define NGX_COORD_RESP_QUEUED      "+QUEUED" CRLF


struct ngx_coord_resp_s {
    redisReader               *reader;
    size_t                     max_reply;
    ngx_log_t                 *log;
    const char                *error;

    u_char                    *arena;
    size_t                     size;
    size_t                     used;

    ngx_uint_t                 gather;    /* replies that are still to come */
    ngx_uint_t                 nvalues;
    unsigned                   whole:1;   /* the values were handed out */

    ngx_uint_t                 max_elements;
    ngx_uint_t                 max_values;
    ngx_uint_t                 nalloc;
    ngx_coord_resp_value_t    *values;    /* inlined, or more of them */
    ngx_coord_resp_value_t     inlined[NGX_COORD_RESP_MAX_VALUES];
};


#if (HIREDIS_MAJOR >= 1)

typedef size_t  ngx_coord_resp_count_t;

#define ngx_coord_resp_task(reader)  ((reader)->task[(reader)->ridx])

#else

typedef int     ngx_coord_resp_count_t;

#define ngx_coord_resp_task(reader)  (&(reader)->rstack[(reader)->ridx])

#endif


static void *ngx_coord_resp_create_string(const redisReadTask *task,
    char *data, size_t len);
static void *ngx_coord_resp_create_array(const redisReadTask *task,
    ngx_coord_resp_count_t n);
static void *ngx_coord_resp_create_integer(const redisReadTask *task,
    long long n);
static void *ngx_coord_resp_create_nil(const redisReadTask *task);
#if (HIREDIS_MAJOR >= 1)
static void *ngx_coord_resp_create_double(const redisReadTask *task,
    double d, char *data, size_t len);
static void *ngx_coord_resp_create_bool(const redisReadTask *task, int b);
#endif
static void *ngx_coord_resp_foreign(ngx_coord_resp_t *resp);
static void ngx_coord_resp_free_object(void *object);

static ngx_int_t ngx_coord_resp_grow(ngx_coord_resp_t *resp);
static ngx_coord_resp_value_t *ngx_coord_resp_push(ngx_coord_resp_t *resp,
    ngx_coord_resp_e type);
static void *ngx_coord_resp_keep(ngx_coord_resp_t *resp,
    ngx_coord_resp_e type, char *data, size_t len);
static ngx_int_t ngx_coord_resp_queued(ngx_coord_resp_t *resp);
static ngx_int_t ngx_coord_resp_reserve(ngx_coord_resp_t *resp, size_t len);
static void ngx_coord_resp_reset(ngx_coord_resp_t *resp);
static void ngx_coord_resp_measure(ngx_coord_resp_t *resp);
static ngx_int_t ngx_coord_resp_check_partial(ngx_coord_resp_t *resp);
static ngx_int_t ngx_coord_resp_check_length(ngx_coord_resp_t *resp,
    u_char *p, u_char *last);


static redisReplyObjectFunctions  ngx_coord_resp_functions = {
    ngx_coord_resp_create_string,
    ngx_coord_resp_create_array,
    ngx_coord_resp_create_integer,
#if (HIREDIS_MAJOR >= 1)
    ngx_coord_resp_create_double,
#endif
    ngx_coord_resp_create_nil,
#if (HIREDIS_MAJOR >= 1)
    ngx_coord_resp_create_bool,
#endif
    ngx_coord_resp_free_object
};


ngx_coord_resp_t *
ngx_coord_resp_create(size_t max_reply, ngx_log_t *log)
{
    ngx_coord_resp_t  *resp;

    resp = ngx_alloc(sizeof(ngx_coord_resp_t), log);
    if (resp == NULL) {
        return NULL;
    }

    ngx_memzero(resp, offsetof(ngx_coord_resp_t, inlined));

    resp->max_elements = NGX_COORD_RESP_MAX_ELEMENTS;
    resp->max_values = NGX_COORD_RESP_MAX_VALUES;
    resp->nalloc = NGX_COORD_RESP_MAX_VALUES;
    resp->values = resp->inlined;

    resp->max_reply = max_reply;
    resp->log = log;

    resp->reader = redisReaderCreateWithFunctions(&ngx_coord_resp_functions);
    if (resp->reader == NULL) {
        ngx_free(resp);
        return NULL;
    }

    resp->reader->privdata = resp;

    return resp;
}


void
ngx_coord_resp_destroy(ngx_coord_resp_t *resp)
{
    redisReaderFree(resp->reader);

    if (resp->arena != NULL) {
        ngx_free(resp->arena);
    }

    if (resp->values != resp->inlined) {
        ngx_free(resp->values);
    }

    ngx_free(resp);
}


ngx_int_t
ngx_coord_resp_feed(ngx_coord_resp_t *resp, u_char *data, size_t len)
{
    size_t  pending;

    if (resp->error != NULL) {
        return NGX_ERROR;
    }

    pending = ngx_coord_resp_pending(resp);

    if (len > resp->max_reply || pending > resp->max_reply - len) {
        resp->error = "reply too large";
        return NGX_ERROR;
    }

    if (redisReaderFeed(resp->reader, (char *) data, len) != REDIS_OK) {
        resp->error = "no memory for a reply";
        return NGX_ERROR;
    }

    return NGX_OK;
}


size_t
ngx_coord_resp_pending(ngx_coord_resp_t *resp)
{
    return resp->reader->len - resp->reader->pos;
}


void
ngx_coord_resp_gather(ngx_coord_resp_t *resp, ngx_uint_t n)
{
    ngx_coord_resp_value_t  *v;

    if (resp->error != NULL) {
        return;
    }

    ngx_coord_resp_reset(resp);

    if (n > NGX_COORD_RESP_MAX_ELEMENTS) {
        resp->error = "too many elements";
        return;
    }

    v = ngx_coord_resp_push(resp, NGX_COORD_RESP_ARRAY);
    v->integer = n;

    resp->gather = n;
}


ngx_int_t
ngx_coord_resp_next(ngx_coord_resp_t *resp, ngx_coord_resp_value_t **value)
{
    void       *reply;
    ngx_int_t   rc;

    if (resp->whole) {
        ngx_coord_resp_reset(resp);
    }

    do {
        if (resp->error != NULL) {
            return NGX_ERROR;
        }

        rc = (resp->gather > 1) ? ngx_coord_resp_queued(resp) : NGX_DECLINED;

        if (rc == NGX_OK) {
            resp->gather--;
            continue;
        }

        if (rc == NGX_ERROR) {
            return NGX_ERROR;
        }

        if (redisReaderGetReply(resp->reader, &reply) != REDIS_OK) {
            if (resp->error == NULL) {
                resp->error = "not a RESP2 reply";
            }

            return NGX_ERROR;
        }

        if (reply == NULL) {
            return ngx_coord_resp_check_partial(resp);
        }

        if (resp->gather) {
            resp->gather--;
        }

    } while (resp->gather);

    ngx_coord_resp_measure(resp);

    resp->whole = 1;

    *value = resp->values;

    return NGX_OK;
}


/*
 * Values in document order become a reply: each has the way to the next one,
 * and strings their data in place of an offset.
 */

static void
ngx_coord_resp_measure(ngx_coord_resp_t *resp)
{
    int64_t                  i;
    ngx_uint_t               n;
    ngx_coord_resp_value_t  *v;

    /* from the end: elements stand behind their array */

    for (n = resp->nvalues; n > 0; n--) {
        v = &resp->values[n - 1];

        if (v->type == NGX_COORD_RESP_ARRAY) {
            v->next = 1;

            for (i = 0; i < v->integer; i++) {
                v->next += v[v->next].next;
            }

        } else if (v->type == NGX_COORD_RESP_STRING
                   || v->type == NGX_COORD_RESP_STATUS
                   || v->type == NGX_COORD_RESP_ERROR)
        {
            v->str.data = resp->arena + v->integer;
            v->integer = 0;
        }
    }
}


const char *
ngx_coord_resp_error(ngx_coord_resp_t *resp)
{
    return resp->error != NULL ? resp->error : "no error";
}


static void *
ngx_coord_resp_create_string(const redisReadTask *task, char *data,
    size_t len)
{
    ngx_coord_resp_t  *resp = task->privdata;

    ngx_coord_resp_e   type;

    switch (task->type) {

    case REDIS_REPLY_STRING:

        /* the reader calls with both bytes at hand, but without a look */

        if (len > resp->max_reply || data[len] != CR || data[len + 1] != LF) {
            resp->error = "bulk string without its end";
            return NULL;
        }

        type = NGX_COORD_RESP_STRING;
        break;

    case REDIS_REPLY_STATUS:
        type = NGX_COORD_RESP_STATUS;
        break;

    case REDIS_REPLY_ERROR:
        type = NGX_COORD_RESP_ERROR;
        break;

    default:
        return ngx_coord_resp_foreign(resp);
    }

    return ngx_coord_resp_keep(resp, type, data, len);
}


static void *
ngx_coord_resp_keep(ngx_coord_resp_t *resp, ngx_coord_resp_e type, char *data,
    size_t len)
{
    ngx_coord_resp_value_t  *v;

    if (ngx_coord_resp_reserve(resp, len) != NGX_OK) {
        return NULL;
    }

    v = ngx_coord_resp_push(resp, type);
    if (v == NULL) {
        return NULL;
    }

    ngx_memcpy(resp->arena + resp->used, data, len);

    v->integer = resp->used;
    v->str.len = len;

    resp->used += len;

    return resp;
}


/*
 * Most replies of a transaction are this one: takes it ahead of the reader,
 * between two replies.  NGX_DECLINED: it is another one, or not whole.
 */

static ngx_int_t
ngx_coord_resp_queued(ngx_coord_resp_t *resp)
{
    char         *p;
    size_t        len;
    redisReader  *reader;

    reader = resp->reader;
    p = reader->buf + reader->pos;
    len = sizeof(NGX_COORD_RESP_QUEUED) - 1;

    if (reader->ridx >= 0
        || reader->len - reader->pos < len
        || ngx_memcmp(p, NGX_COORD_RESP_QUEUED, len) != 0)
    {
        return NGX_DECLINED;
    }

    reader->pos += len;

    p = ngx_coord_resp_keep(resp, NGX_COORD_RESP_STATUS, p + 1,
                            sizeof("QUEUED") - 1);

    return p ? NGX_OK : NGX_ERROR;
}


static void *
ngx_coord_resp_create_array(const redisReadTask *task,
    ngx_coord_resp_count_t n)
{
    ngx_coord_resp_t        *resp = task->privdata;

    ngx_uint_t               depth;
    const redisReadTask     *parent;
    ngx_coord_resp_value_t  *v;

    if (task->type != REDIS_REPLY_ARRAY) {
        return ngx_coord_resp_foreign(resp);
    }

    if ((size_t) n > resp->max_elements) {
        resp->error = "too many elements";
        return NULL;
    }

    depth = 1;

    for (parent = task->parent; parent != NULL; parent = parent->parent) {
        depth++;
    }

    if (depth > NGX_COORD_RESP_MAX_DEPTH) {
        resp->error = "arrays too deep";
        return NULL;
    }

    v = ngx_coord_resp_push(resp, NGX_COORD_RESP_ARRAY);
    if (v == NULL) {
        return NULL;
    }

    v->integer = n;

    return resp;
}


static void *
ngx_coord_resp_create_integer(const redisReadTask *task, long long n)
{
    ngx_coord_resp_t        *resp = task->privdata;

    ngx_coord_resp_value_t  *v;

    v = ngx_coord_resp_push(resp, NGX_COORD_RESP_INTEGER);
    if (v == NULL) {
        return NULL;
    }

    v->integer = n;

    return resp;
}


static void *
ngx_coord_resp_create_nil(const redisReadTask *task)
{
    ngx_coord_resp_t  *resp = task->privdata;

    if (task->type != REDIS_REPLY_STRING && task->type != REDIS_REPLY_ARRAY) {
        return ngx_coord_resp_foreign(resp);
    }

    if (ngx_coord_resp_push(resp, NGX_COORD_RESP_NIL) == NULL) {
        return NULL;
    }

    return resp;
}


#if (HIREDIS_MAJOR >= 1)

static void *
ngx_coord_resp_create_double(const redisReadTask *task, double d, char *data,
    size_t len)
{
    return ngx_coord_resp_foreign(task->privdata);
}


static void *
ngx_coord_resp_create_bool(const redisReadTask *task, int b)
{
    return ngx_coord_resp_foreign(task->privdata);
}

#endif


static void *
ngx_coord_resp_foreign(ngx_coord_resp_t *resp)
{
    resp->error = "not a RESP2 type";

    return NULL;
}


void
ngx_coord_resp_limits(ngx_coord_resp_t *resp, ngx_uint_t elements,
    ngx_uint_t values)
{
    resp->max_elements = elements;
    resp->max_values = values;
}


static ngx_int_t
ngx_coord_resp_grow(ngx_coord_resp_t *resp)
{
    ngx_coord_resp_value_t  *values;

    values = ngx_alloc(2 * resp->nalloc * sizeof(ngx_coord_resp_value_t),
                       resp->log);
    if (values == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(values, resp->values,
               resp->nvalues * sizeof(ngx_coord_resp_value_t));

    if (resp->values != resp->inlined) {
        ngx_free(resp->values);
    }

    resp->values = values;
    resp->nalloc *= 2;

    return NGX_OK;
}


static void
ngx_coord_resp_free_object(void *object)
{
    /* values belong to the ngx_coord_resp_t */
}


static ngx_coord_resp_value_t *
ngx_coord_resp_push(ngx_coord_resp_t *resp, ngx_coord_resp_e type)
{
    ngx_coord_resp_value_t  *v;

    if (resp->nvalues == resp->max_values) {
        resp->error = "too many values";
        return NULL;
    }

    if (resp->nvalues == resp->nalloc && ngx_coord_resp_grow(resp) != NGX_OK) {
        resp->error = "no memory";
        return NULL;
    }

    v = &resp->values[resp->nvalues++];

    v->type = type;
    v->next = 1;
    v->integer = 0;
    v->str.len = 0;
    v->str.data = NULL;

    return v;
}


static ngx_int_t
ngx_coord_resp_reserve(ngx_coord_resp_t *resp, size_t len)
{
    size_t   size;
    u_char  *p;

    if (resp->arena != NULL && len <= resp->size - resp->used) {
        return NGX_OK;
    }

    if (len > resp->max_reply || resp->used > resp->max_reply - len) {
        resp->error = "reply too large";
        return NGX_ERROR;
    }

    size = ngx_max(resp->size * 2, NGX_COORD_RESP_ARENA);
    size = ngx_max(size, resp->used + len);

    p = ngx_alloc(size, resp->log);
    if (p == NULL) {
        resp->error = "no memory for a reply";
        return NGX_ERROR;
    }

    if (resp->arena != NULL) {
        ngx_memcpy(p, resp->arena, resp->used);
        ngx_free(resp->arena);
    }

    resp->arena = p;
    resp->size = size;

    return NGX_OK;
}


static void
ngx_coord_resp_reset(ngx_coord_resp_t *resp)
{
    resp->whole = 0;
    resp->nvalues = 0;
    resp->used = 0;

    if (resp->size > NGX_COORD_RESP_ARENA) {
        ngx_free(resp->arena);
        resp->arena = NULL;
        resp->size = 0;
    }
}


/* the reader waits for more: is what it has got the start of something sane */

static ngx_int_t
ngx_coord_resp_check_partial(ngx_coord_resp_t *resp)
{
    u_char       *p, *last, *end;
    redisReader  *reader;

    reader = resp->reader;

    if (reader->ridx < 0) {
        return NGX_AGAIN;
    }

    p = (u_char *) reader->buf + reader->pos;
    last = (u_char *) reader->buf + reader->len;

    if (ngx_coord_resp_task(reader)->type == REDIS_REPLY_STRING) {
        return ngx_coord_resp_check_length(resp, p, last);
    }

    if (last - p <= NGX_COORD_RESP_MAX_LINE) {
        return NGX_AGAIN;
    }

    for (end = p; end < last - 1; end++) {

        end = ngx_strlchr(end, last - 1, CR);

        if (end == NULL) {
            break;
        }

        if (end[1] == LF) {
            return NGX_AGAIN;
        }
    }

    resp->error = "line too long";

    return NGX_ERROR;
}


static ngx_int_t
ngx_coord_resp_check_length(ngx_coord_resp_t *resp, u_char *p, u_char *last)
{
    size_t   size;
    u_char  *end;

    end = ngx_strlchr(p, last, CR);

    if (end == NULL) {
        end = last;
    }

    if (end - p > NGX_COORD_RESP_MAX_LENGTH) {
        resp->error = "bad length of a bulk string";
        return NGX_ERROR;
    }

    /* digits that the reader has accepted, or their start */

    for (size = 0; p < end; p++) {

        if (*p < '0' || *p > '9') {
            continue;
        }

        size = size * 10 + (*p - '0');

        if (size > resp->max_reply) {
            resp->error = "bulk string too large";
            return NGX_ERROR;
        }
    }

    return NGX_AGAIN;
}
