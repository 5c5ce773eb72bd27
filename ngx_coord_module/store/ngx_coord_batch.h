
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * What a store that answers later asks of the batches; features do not
 * include this.
 */


#ifndef _NGX_COORD_BATCH_H_INCLUDED_
#define _NGX_COORD_BATCH_H_INCLUDED_


#include "ngx_coord_state.h"
#include "ngx_coord_store.h"


/* 1 if a granted operation of this kind holds something to give back */
#define ngx_coord_op_takes(op)                                                \
    ((op)->type->flags & NGX_COORD_OP_TAKES)

/* 1 if what the operation is about lies in memory, whatever the store */
#define ngx_coord_op_local(op)                                                \
    ((op)->source == NGX_COORD_SOURCE_MEMORY                                  \
     || (op)->source == NGX_COORD_SOURCE_FALLBACK)

#define ngx_coord_op_free_record(op)                                          \
    if ((op)->record.data) {                                                  \
        ngx_free((op)->record.data);                                          \
        (op)->record.data = NULL;                                             \
    }


/* --- ngx_coord_batch.c --- */

/* the ways of ngx_coord_batch_state_e, by state */
extern const ngx_coord_edges_t  ngx_coord_batch_edges[];

/* a step of one of those ways */

static ngx_inline void
ngx_coord_batch_enter(ngx_coord_batch_t *batch, ngx_coord_batch_state_e state)
{
    ngx_coord_edge_check(ngx_coord_batch_edges, batch->state, state, "batch");

    batch->state = state;
}


/* ends a batch that nobody holds: its memory is kept for others, or freed */
void ngx_coord_batch_free(ngx_coord_batch_t *batch);

/* worker end: frees what was kept */
void ngx_coord_batches_exit(void);


/* --- ngx_coord_store.c --- */

/*
 * Ends an operation of a batch that got no answer, by its on_failure; what
 * Redis may have granted is given back.
 */
void ngx_coord_op_fail(ngx_coord_batch_t *batch, ngx_coord_op_t *op,
    ngx_coord_fail_e failure);

/* the same for one that nobody waits for */
void ngx_coord_op_lost(ngx_coord_op_t *op, ngx_coord_fail_e failure);

/*
 * An answer that came when nobody waited for it any more: op is a copy of the
 * operation with that answer.  What a cancelled batch was granted is given
 * back.  What was named by an id and came late is being given back since the
 * deadline; a place of a rate stays taken then, unless the batch is refused.
 */
void ngx_coord_batch_answered(ngx_coord_batch_t *batch, ngx_coord_op_t *op);


/* --- ngx_coord_batch_send.c --- */

/*
 * The results of a batch in flight stand, some by its deadline, and the client
 * still holds it: its handler is posted.
 */
void ngx_coord_batch_expired(ngx_coord_batch_t *batch);

/*
 * The client has let the batch go, and some of its operations, those with
 * sent set, have to be asked once more: from the posted event.
 */
void ngx_coord_batch_again(ngx_coord_batch_t *batch);

/*
 * The client has let the batch go, and unless it expired before, its results
 * stand now.  The handler is posted, or the batch released.
 */
void ngx_coord_batch_released(ngx_coord_batch_t *batch);

/* the handler of store->done: tells of the batches that are posted */
void ngx_coord_batch_done_handler(ngx_event_t *ev);


#endif /* _NGX_COORD_BATCH_H_INCLUDED_ */
