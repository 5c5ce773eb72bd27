
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * What keeps the error log in order: texts of others, and lines that would be
 * one a request.
 */


#ifndef _NGX_COORD_LOG_H_INCLUDED_
#define _NGX_COORD_LOG_H_INCLUDED_


#include "ngx_coord.h"


/* bytes that a text of others takes in a line at most */
#define NGX_COORD_LOG_TEXT       256

/* milliseconds: lines of one kind are so far apart at least */
#define NGX_COORD_LOG_INTERVAL   1000


/* lines of one kind; zeroed: none yet */
typedef struct {
    ngx_msec_t                 last;      /* one was written; 0: never */
    ngx_uint_t                 n;         /* came since then */
} ngx_coord_log_limit_t;


/*
 * Makes a text of a client or a server fit for a line: all but printable ASCII
 * stands as \xHH, quotes and backslashes too, and "..." stands for what is too
 * long.  buf has room for NGX_COORD_LOG_TEXT bytes; the result points into it.
 */
ngx_str_t ngx_coord_log_text(u_char *buf, ngx_str_t *text);

/*
 * Counts a line of a kind.  Returns how many there were since one was written,
 * this one included, if it is to be written now; 0: not now, the last one is
 * not interval milliseconds ago.
 */
ngx_uint_t ngx_coord_log_due(ngx_coord_log_limit_t *limit,
    ngx_msec_t interval);


#endif /* _NGX_COORD_LOG_H_INCLUDED_ */
