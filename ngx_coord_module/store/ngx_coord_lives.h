
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * What this worker knows of the keys of buckets and fixed windows in Redis:
 * until when a key is there for certain, unless somebody removes it, and has a
 * life that covers what a caller puts in.  A table of fixed size; what does not
 * fit is not known.
 */


#ifndef _NGX_COORD_LIVES_H_INCLUDED_
#define _NGX_COORD_LIVES_H_INCLUDED_


#include "ngx_coord_store.h"


/*
 * Until when, on the clock of the server, the key of op is known to live long
 * enough for a caller of this kind, a number that the caller chooses; then
 * *note is what was noted with it.  0: it is not known to at now.
 */
ngx_coord_nsec_t ngx_coord_lives_find(ngx_coord_op_t *op, uint32_t kind,
    ngx_coord_nsec_t now, uint32_t *note);

/* it will, until a time on the same clock */
void ngx_coord_lives_keep(ngx_coord_op_t *op, uint32_t kind,
    ngx_coord_nsec_t until, uint32_t note);

/* nothing is known of the key of op any more */
void ngx_coord_lives_drop(ngx_coord_op_t *op, uint32_t kind);

/* nor of any key: zones may have changed */
void ngx_coord_lives_reset(void);


#endif /* _NGX_COORD_LIVES_H_INCLUDED_ */
