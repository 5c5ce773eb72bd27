
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * RESP2 replies: hiredis' reader with guards, decoded into a flat array
 * without an allocation per value.  The only file that includes hiredis is
 * ngx_coord_resp.c: another codec may take its place.
 */


#ifndef _NGX_COORD_RESP_H_INCLUDED_
#define _NGX_COORD_RESP_H_INCLUDED_


#include "ngx_coord.h"


#define NGX_COORD_RESP_MAX_VALUES    1024     /* values in one reply */
#define NGX_COORD_RESP_MAX_ELEMENTS  512      /* elements of one array */
#define NGX_COORD_RESP_MAX_DEPTH     4
#define NGX_COORD_RESP_MAX_LINE      16384    /* bytes of an unended line */
#define NGX_COORD_RESP_SCORE_MAX     9000000000000000LL


typedef enum {
    NGX_COORD_RESP_STATUS = 0,
    NGX_COORD_RESP_ERROR,
    NGX_COORD_RESP_INTEGER,
    NGX_COORD_RESP_STRING,
    NGX_COORD_RESP_NIL,
    NGX_COORD_RESP_ARRAY
} ngx_coord_resp_e;


/*
 * A reply is a run of values in document order: an array stands before its
 * elements, and next is the distance to the value after it and all of them.
 */

struct ngx_coord_resp_value_s {
    ngx_coord_resp_e           type;
    uint32_t                   next;
    int64_t                    integer;   /* INTEGER; number of elements */
    ngx_str_t                  str;       /* STATUS, ERROR, STRING */
};


/*
 * Creates a reader that refuses to hold more than max_reply unparsed bytes.
 * Lives on the heap until ngx_coord_resp_destroy(); NULL: no memory.
 */
ngx_coord_resp_t *ngx_coord_resp_create(size_t max_reply, ngx_log_t *log);
void ngx_coord_resp_destroy(ngx_coord_resp_t *resp);

/*
 * Other bounds than the usual ones of an array and of a reply, for a server's
 * list of what it has; before anything is read.
 */
void ngx_coord_resp_limits(ngx_coord_resp_t *resp, ngx_uint_t elements,
    ngx_uint_t values);

/*
 * Gives len bytes as read from the socket; they are copied.  NGX_ERROR: over
 * the limit or the stream is broken, the connection must be closed.
 */
ngx_int_t ngx_coord_resp_feed(ngx_coord_resp_t *resp, u_char *data,
    size_t len);

/* returns how many bytes were given and belong to no whole value yet */
size_t ngx_coord_resp_pending(ngx_coord_resp_t *resp);

/*
 * Makes one array of the next n replies (1 to NGX_COORD_RESP_MAX_ELEMENTS), as
 * if the server had sent it so; for ngx_coord_resp_next().  Only between two
 * replies.  Too many: the reader fails.
 */
void ngx_coord_resp_gather(ngx_coord_resp_t *resp, ngx_uint_t n);

/*
 * Takes the next whole reply.  NGX_OK: *value is its first value, valid until
 * the next call on this reader; NGX_AGAIN: more bytes are needed; NGX_ERROR:
 * protocol error or a guard (see ngx_coord_resp_error()), close.
 */
ngx_int_t ngx_coord_resp_next(ngx_coord_resp_t *resp,
    ngx_coord_resp_value_t **value);

/* what was wrong, for the log; a constant string without reply data */
const char *ngx_coord_resp_error(ngx_coord_resp_t *resp);

/*
 * Typed access that never trusts the server.  Each returns NGX_OK and stores
 * the value, NGX_DECLINED for a nil, NGX_ERROR for any other type or a number
 * out of range.  Bulk strings that hold a decimal number count as numbers.
 * A score is an integer of at most NGX_COORD_RESP_SCORE_MAX, as microseconds
 * are: a double holds it exactly.
 */
ngx_int_t ngx_coord_resp_number(ngx_coord_resp_value_t *v, int64_t *n);
ngx_int_t ngx_coord_resp_score(ngx_coord_resp_value_t *v, int64_t *n);
ngx_int_t ngx_coord_resp_string(ngx_coord_resp_value_t *v, ngx_str_t *s);

/* as ngx_coord_resp_number(), in place: most numbers are no strings */

static ngx_inline ngx_int_t
ngx_coord_resp_integer(ngx_coord_resp_value_t *v, int64_t *n)
{
    if (v->type == NGX_COORD_RESP_INTEGER) {
        *n = v->integer;
        return NGX_OK;
    }

    return ngx_coord_resp_number(v, n);
}


/* the reply to TIME in nanoseconds; NGX_ERROR: it is no such reply */
ngx_int_t ngx_coord_resp_time(ngx_coord_resp_value_t *v,
    ngx_coord_nsec_t *time);

/* the n-th element of an array, from 0; NULL: no array or out of range */

static ngx_inline ngx_coord_resp_value_t *
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

    if (array->next == (uint64_t) array->integer + 1) {
        /* no element has elements */
        return v + n;
    }

    for (i = 0; i < n; i++) {
        v += v->next;
    }

    return v;
}


#endif /* _NGX_COORD_RESP_H_INCLUDED_ */
