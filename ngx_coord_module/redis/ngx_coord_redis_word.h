
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Private to the Redis client: arguments, and classes of error replies.
 */


#ifndef _NGX_COORD_REDIS_WORD_H_INCLUDED_
#define _NGX_COORD_REDIS_WORD_H_INCLUDED_


#include "ngx_coord.h"
#include "ngx_coord_stats.h"


/* writes one argument as a bulk string and returns the end */
u_char *ngx_coord_redis_bulk(u_char *p, u_char *data, size_t len);

/* bytes that ngx_coord_redis_bulk() may write */
#define ngx_coord_redis_bulk_size(len)                                        \
    (sizeof("$" CRLF CRLF) - 1 + NGX_SIZE_T_LEN + (len))


/* what has to be served that a call is answered; each of them what is before */
typedef enum {
    NGX_COORD_NEEDS_NOTHING = 0,      /* as TIME and INFO */
    NGX_COORD_NEEDS_DATA,
    NGX_COORD_NEEDS_WRITES
} ngx_coord_redis_needs_e;


typedef struct {
    ngx_str_t                  word;          /* the reply begins with it */
    ngx_coord_fail_e           failure;
    unsigned                   close:1;       /* of no use until reconnected */
    unsigned                   slot:1;        /* it is not about the server */
    unsigned                   again:1;       /* and is over in a moment */
    ngx_coord_redis_needs_e    needs;         /* who is refused so */
} ngx_coord_redis_error_t;

/* the class of an error reply; never NULL, static */
const ngx_coord_redis_error_t *ngx_coord_redis_error(ngx_str_t *text);

/* the number of a class, and the class of a number, whatever that is */
ngx_uint_t ngx_coord_redis_error_number(const ngx_coord_redis_error_t *e);
const ngx_coord_redis_error_t *ngx_coord_redis_error_of(ngx_uint_t number);


#endif /* _NGX_COORD_REDIS_WORD_H_INCLUDED_ */
