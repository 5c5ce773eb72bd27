
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Giving back what was taken for nobody: leases, places in line, claims,
 * requests of a rate.
 *
 * What is to be given back leaves at the end of the turn of the event loop,
 * with all else of that turn.  It is asked for again until an answer tells
 * that it is done, or until what was taken is over by itself; meanwhile it is
 * kept in a list of the store, which has a bound.  While the store is away,
 * or its breaker open, nothing is sent, and all is when it answers again.  A
 * worker that exits stays for it, but not for long.
 *
 * The store itself gives back what its batches may have taken when their
 * callers do not wait any more: see ngx_coord_batch_done().
 */


#ifndef _NGX_COORD_GIVEBACK_H_INCLUDED_
#define _NGX_COORD_GIVEBACK_H_INCLUDED_


#include "ngx_coord_store.h"


/* what is known of the operation that is to be given back */
typedef enum {
    NGX_COORD_GIVEBACK_GRANTED = 0,
    NGX_COORD_GIVEBACK_ASKED,      /* it is in flight */
    NGX_COORD_GIVEBACK_LOST        /* its answer will not be known */
} ngx_coord_giveback_e;


/* who waits for something to be given back; zeroed at first */
typedef struct {
    void                     (*handler)(void *data);
    void                      *data;
    void                      *entry;      /* the list's; NULL: nothing is
                                            * under way */
} ngx_coord_giveback_wait_t;


/*
 * Gives back what op, an operation that takes, was granted by op->source, or
 * may be by Redis, now or later: then a first answer that there is nothing to
 * give back is not the last word.  Nothing of op is needed afterwards.  Does
 * nothing for what has no way back.
 *
 * Those of rates may not be given back twice: they are not asked for again when
 * it is not known whether they were done, and only given back when they were
 * granted; a request that was let through without an answer is counted, if it
 * was, and one that was refused is not.
 */
void ngx_coord_giveback(ngx_coord_op_t *op, ngx_coord_giveback_e how);

/*
 * The same, and wait->handler(wait->data) is called once, when the store has
 * answered, or has not in time: then it is asked for again, but nobody waits
 * for that.  Not called where wait->entry is NULL when this returns: it is done
 * already, or nothing is sent.  May be called from ngx_coord_giveback_flush(),
 * otherwise from a posted event.
 */
void ngx_coord_giveback_told(ngx_coord_op_t *op, ngx_coord_giveback_e how,
    ngx_coord_giveback_wait_t *wait);

/* the handler is not to be called any more; nothing if it has been */
void ngx_coord_giveback_leave(ngx_coord_giveback_wait_t *wait);

/*
 * Sends any operation that nobody waits for in the same way: a release, a hold,
 * a charge.  A copy of op is sent at the end of the turn and, where the store
 * has no answer, again, for as long as life (nanoseconds) from now on.  What
 * does harm when it is done twice, an op whose type has not NGX_COORD_OP_TWICE,
 * is not sent again once the server may have done it: a charge may be lost so,
 * and is never made twice.  op has neither a blob nor a record; one with the
 * source MEMORY or FALLBACK runs in the zone's memory at once.
 */
void ngx_coord_giveback_op(ngx_coord_op_t *op, ngx_coord_nsec_t life);

/*
 * Sends what is to be given back in this turn now and not at its end; for a
 * caller that asks for what may depend on it.
 */
void ngx_coord_giveback_flush(ngx_coord_store_t *store);

/*
 * For exit_process, before the connections of the store end: sends all that
 * is left, once, and leaves it in the journal for the other workers.
 */
void ngx_coord_giveback_exit(ngx_coord_store_t *store);


#endif /* _NGX_COORD_GIVEBACK_H_INCLUDED_ */
