
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The leases that this worker holds: one list, one timer for all of them.
 *
 * A granted ngx_coord_op_lease_acquire becomes a held lease.  It is renewed
 * before a third of its length is over; where the store does not know it any
 * more (it lost its state, or the worker slept) it is asked for again and,
 * if others have taken its place, lost.  It is released once; a release that
 * the store did not answer is repeated until the lease is over anyway.
 *
 * Each lease also stands in the shared memory of its zone, with its owner
 * (see ngx_coord_lease_journal.c): a worker that starts releases those of
 * processes that are gone.
 */


#ifndef _NGX_COORD_LEASE_H_INCLUDED_
#define _NGX_COORD_LEASE_H_INCLUDED_


#include "ngx_coord_store.h"


typedef struct ngx_coord_held_s  ngx_coord_held_t;


/* the lease is lost; it still has to be released.  From a posted event */
typedef void (*ngx_coord_lease_lost_pt)(void *data);


struct ngx_coord_held_s {
    ngx_queue_t                queue;
    ngx_coord_zone_t          *zone;
    ngx_uint_t                 limit;
    ngx_coord_nsec_t           lease;
    ngx_coord_nsec_t           asked;     /* when the store was last asked, */
    ngx_coord_nsec_t           renewed;   /* and with success; this clock */
    ngx_coord_source_e         source;
    ngx_uint_t                 in_flight; /* operations */
    ngx_coord_lease_lost_pt    handler;
    void                      *data;
    unsigned                   lost:1;
    unsigned                   released:1;
    unsigned                   done:1;    /* free it, nothing in flight */
    size_t                     key_len;
    u_char                     key[NGX_COORD_KEY_LEN];
    u_char                     id[NGX_COORD_ID_LEN];
};


/* so many bytes of the ids of leases are those of a worker, and random */
#define NGX_COORD_LEASE_OWNER  8

/* a new id for a lease or for who waits for one; NGX_ERROR: OpenSSL failed */
ngx_int_t ngx_coord_lease_id(u_char *id);

/*
 * Takes over the lease that op was granted.  handler may be NULL.  The result
 * belongs to the caller until ngx_coord_lease_release().  NULL: no memory,
 * the lease has been given back.
 */
ngx_coord_held_t *ngx_coord_lease_hold(ngx_coord_op_t *op,
    ngx_coord_lease_lost_pt handler, void *data);

/*
 * For an acquire that got no answer: if it was sent, it may yet be granted, to
 * nobody.  Has it released as soon as the store answers again.
 */
void ngx_coord_lease_forget(ngx_coord_op_t *op);

/* ends a lease, lost or not; its memory is gone for the caller */
void ngx_coord_lease_release(ngx_coord_held_t *held);

/*
 * Sends the releases of this turn of the event loop now and not at its end;
 * for a caller that asks for a lease and may depend on one of them.
 */
void ngx_coord_lease_flush(void);

/* for init_process: takes up the leases of a zone whose owners are gone */
void ngx_coord_lease_recover(ngx_coord_zone_t *zone);

/*
 * For exit_process, before the stores end: sends the releases of all leases
 * that are still held.
 */
void ngx_coord_lease_exit(void);

/* how many leases of a zone this worker holds */
ngx_uint_t ngx_coord_lease_count(ngx_coord_zone_t *zone);


/* --- ngx_coord_lease_journal.c: who holds what, in shared memory --- */

/* records a lease with this process as its owner; best effort */
void ngx_coord_journal_add(ngx_coord_held_t *held);

/* the record is to outlive the lease as it is renewed now */
void ngx_coord_journal_renew(ngx_coord_held_t *held);

void ngx_coord_journal_remove(ngx_coord_held_t *held);

/*
 * Takes at most n leases of dead owners out of the records of a zone, from
 * cell *cell on, which is moved; returns how many.  Zone, key, id, source and
 * the time that is left (lease) are set.
 */
ngx_uint_t ngx_coord_journal_orphans(ngx_coord_zone_t *zone, uint32_t *cell,
    ngx_coord_held_t *held, ngx_uint_t n);


#endif /* _NGX_COORD_LEASE_H_INCLUDED_ */
