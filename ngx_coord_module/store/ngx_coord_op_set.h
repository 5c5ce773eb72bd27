
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Sets of times, each with an id: what logs, leases, lines and the sessions of
 * a user have in common, in both stores.
 */


#ifndef _NGX_COORD_OP_SET_H_INCLUDED_
#define _NGX_COORD_OP_SET_H_INCLUDED_


#include "ngx_coord_op_arg.h"


/*
 * In memory the data cells of an entry hold slots: a time and an id.  at
 * counts, 0 is free, and is therefore written last.
 */
typedef struct {
    ngx_coord_nsec_t           at;
    u_char                     id[NGX_COORD_ID_LEN];
} ngx_coord_slot_t;


#define NGX_COORD_SLOTS  (NGX_COORD_CELL_DATA / sizeof(ngx_coord_slot_t))


/* what a walk over the slots of an entry found */
typedef struct {
    ngx_uint_t                 used;
    ngx_coord_nsec_t           first;     /* the earliest time */
    ngx_coord_nsec_t           last;      /* the latest time */
    ngx_coord_slot_t          *own;       /* the slot with the id */
    ngx_coord_slot_t          *head;      /* the slot of the earliest time */
    ngx_coord_slot_t          *other;     /* the same among all but own */
    ngx_coord_slot_t          *free;      /* a free slot */
    ngx_coord_data_t          *tail;
} ngx_coord_slots_t;


/*
 * Walks the slots of an entry, frees those whose time is gone or before, and
 * the data cells in which no slot is left.
 */
void ngx_coord_slots(ngx_coord_table_t *table, ngx_coord_entry_t *entry,
    const u_char *id, ngx_coord_nsec_t gone, ngx_coord_slots_t *slots);

/* adds the id of op at a time, after a walk; NGX_ERROR: the zone is full */
ngx_int_t ngx_coord_slot_add(ngx_coord_table_t *table,
    ngx_coord_entry_t *entry, ngx_coord_op_t *op, ngx_coord_slots_t *slots,
    ngx_coord_nsec_t at, ngx_coord_nsec_t now);

/*
 * Removes the id of op, and an entry that is empty then; entry may be NULL.
 * NGX_DECLINED: it was not there.
 */
ngx_int_t ngx_coord_slot_remove(ngx_coord_table_t *table,
    ngx_coord_entry_t *entry, ngx_coord_op_t *op, ngx_coord_nsec_t gone);


/*
 * In Redis: what the two replies say of which one is 0, where RENAMENX was the
 * condition of a place in a set: NGX_OK or NGX_BUSY; NGX_ERROR: nothing.
 */
ngx_int_t ngx_coord_set_parse(ngx_coord_resp_value_t *granted,
    ngx_coord_resp_value_t *refused);

/*
 * What set_peek answers, how many are in the set; first, the earliest time,
 * stays as it is where the set is empty.  NGX_ERROR: no such reply.
 */
ngx_int_t ngx_coord_set_peek_parse(ngx_coord_resp_value_t **values,
    int64_t *used, ngx_coord_nsec_t *first);


/* leases: the length within its bounds; the known and the runs of an acquire */
ngx_coord_nsec_t ngx_coord_lease_span(ngx_coord_op_t *op);
ngx_int_t ngx_coord_lease_known(ngx_coord_op_t *op, ngx_coord_nsec_t now);
ngx_int_t ngx_coord_lease_acquire_run(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);


#endif /* _NGX_COORD_OP_SET_H_INCLUDED_ */
