
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * A short text that the processes of a node tell each other, those of the next
 * configuration as well: it stands in shared memory, is written and read
 * without a lock, and survives a process that is killed while it writes.
 */


#ifndef _NGX_COORD_KNOWN_H_INCLUDED_
#define _NGX_COORD_KNOWN_H_INCLUDED_


#include "ngx_coord.h"


#define NGX_COORD_KNOWN_SIZE  1024           /* bytes of the text, at most */


/* in shared memory; all zero: nothing was written yet */
typedef struct {
    uint32_t                   len;
    uint32_t                   sum;          /* of it and what it is about */
    u_char                     text[NGX_COORD_KNOWN_SIZE];
} ngx_coord_known_t;


/*
 * Writes what is known about something, which a number stands for.  Does
 * nothing if known is NULL, if it stands there already, or if the text is
 * empty or too long.
 */
void ngx_coord_known_put(ngx_coord_known_t *known, uint32_t about,
    ngx_str_t *text);

/*
 * Copies what was written last into buf, which has NGX_COORD_KNOWN_SIZE bytes;
 * text is in buf then.  NGX_DECLINED: nothing, or about something else, or not
 * as a whole: two have written at once, or one was killed.
 */
ngx_int_t ngx_coord_known_get(ngx_coord_known_t *known, uint32_t about,
    u_char *buf, ngx_str_t *text);


#endif /* _NGX_COORD_KNOWN_H_INCLUDED_ */
