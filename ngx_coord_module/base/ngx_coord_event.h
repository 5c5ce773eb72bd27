
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The id of a message that is kept: milliseconds and a number within them, as
 * Redis gives it to the entry of a stream.
 */


#ifndef _NGX_COORD_EVENT_H_INCLUDED_
#define _NGX_COORD_EVENT_H_INCLUDED_


#include "ngx_coord.h"


/* bytes of an id at most: two numbers and "-" */
#define NGX_COORD_EVENT_ID_LEN  (2 * (sizeof("18446744073709551615") - 1) + 1)


/* 0-0 is before all messages */
typedef struct {
    uint64_t                   ms;
    uint64_t                   seq;
} ngx_coord_event_id_t;


/*
 * Reads "ms-seq", or "ms", of decimal digits.  NGX_ERROR: it is no id, *id is
 * untouched.
 */
ngx_int_t ngx_coord_event_id_parse(u_char *p, size_t len,
    ngx_coord_event_id_t *id);

/* writes an id, NGX_COORD_EVENT_ID_LEN bytes at most; returns the end */
u_char *ngx_coord_event_id_print(u_char *p, ngx_coord_event_id_t *id);

/* less than, equal to or greater than 0 as a is before, is or is after b */
ngx_int_t ngx_coord_event_id_cmp(ngx_coord_event_id_t *a,
    ngx_coord_event_id_t *b);


#endif /* _NGX_COORD_EVENT_H_INCLUDED_ */
