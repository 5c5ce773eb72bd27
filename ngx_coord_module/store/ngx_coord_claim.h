
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The names of claims, and what is to become of one whose worker is killed:
 * what has not begun is given back, what has lapses, for nobody knows what
 * became of it (ngx_coord_lease.h).
 */


#ifndef _NGX_COORD_CLAIM_H_INCLUDED_
#define _NGX_COORD_CLAIM_H_INCLUDED_


#include "ngx_coord_store.h"


/*
 * Gives op, a CLAIM that is going to be asked, an id that nobody else has.
 * From now on this process may be granted it, and the journal knows.
 * NGX_ERROR: OpenSSL failed.
 */
ngx_int_t ngx_coord_claim_name(ngx_coord_op_t *op);

/*
 * Records the claim that op was granted by its source, or has asked for; again
 * with each renewal.  begun: its request has begun to run.
 */
void ngx_coord_claim_note(ngx_coord_op_t *op, ngx_uint_t begun);


#endif /* _NGX_COORD_CLAIM_H_INCLUDED_ */
