
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The leases that this worker holds: one list, one timer for all of them.
 *
 * A granted ngx_coord_op_lease_acquire becomes a held lease.  It is renewed
 * before a third of its length is over; where the store does not know it any
 * more (it lost its state, or the worker slept) it is asked for again and,
 * if others have taken its place, lost.  It is given back once, for certain
 * (ngx_coord_giveback.h).
 *
 *     hold -> HELD <-> RENEWING -> ASKING -> LOST
 *              ^                     |
 *              +---------------------+
 *
 * and from each of them, by ngx_coord_lease_release(), ENDED.
 *
 * Each lease, each place in line and each claim also stands in the shared
 * memory of its zone, with its owner (ngx_coord_lease_journal.c): a worker that
 * starts gives back those of processes that are gone.
 */


#ifndef _NGX_COORD_LEASE_H_INCLUDED_
#define _NGX_COORD_LEASE_H_INCLUDED_


#include "ngx_coord_state.h"
#include "ngx_coord_store.h"


typedef struct ngx_coord_held_s  ngx_coord_held_t;


/* the lease is lost; it still has to be released.  From a posted event */
typedef void (*ngx_coord_lease_lost_pt)(void *data);


typedef enum {
    NGX_COORD_HELD = 0,            /* the store knows it */
    NGX_COORD_HELD_RENEWING,       /* a renewal is in flight */
    NGX_COORD_HELD_ASKING,         /* the store did not know it: asked again */
    NGX_COORD_HELD_LOST,           /* others have it; the owner was told */
    NGX_COORD_HELD_ENDED           /* released, to be freed */
} ngx_coord_held_e;


struct ngx_coord_held_s {
    ngx_queue_t                queue;     /* in a list unless lost or ended */
    ngx_coord_held_e           state;
    ngx_coord_op_t             op;        /* zone, key, id, lease, source */
    ngx_coord_nsec_t           asked;     /* when the store was last asked, */
    ngx_coord_nsec_t           renewed;   /* and with success; this clock */
    ngx_coord_lease_lost_pt    handler;
    void                      *data;
};


/* the ways of a held lease, by ngx_coord_held_e */
extern const ngx_coord_edges_t  ngx_coord_held_edges[];


/*
 * Gives op, which is going to ask for a lease or a place in line, an id that
 * nobody else has, and records it in the journal: from now on this process
 * may be granted it.  NGX_ERROR: OpenSSL failed.
 */
ngx_int_t ngx_coord_lease_name(ngx_coord_op_t *op);

/*
 * Takes over the lease that op, an acquire or a turn, was granted: what it
 * needs of op is copied, the record in the journal is that of its name.
 * handler may be NULL.  The result belongs to the caller until
 * ngx_coord_lease_release().  NULL: no memory, the lease has been given back.
 * For one that was refused call ngx_coord_journal_remove().
 */
ngx_coord_held_t *ngx_coord_lease_hold(ngx_coord_op_t *op,
    ngx_coord_lease_lost_pt handler, void *data);

/* ends a lease, lost or not; its memory is gone for the caller */
void ngx_coord_lease_release(ngx_coord_held_t *held);

/*
 * For init_process, when the stores are there: gives back what dead processes
 * held, or may have held, of a zone, and their places in line, and lets claims
 * lapse whose requests had begun; at once, and whenever another process of this
 * node dies.
 */
void ngx_coord_lease_watch(ngx_coord_zone_t *zone);

/*
 * For exit_process, before the stores end: gives back all leases that are
 * still held, and what this process may have been granted besides by an answer
 * that it will not read.  A claim whose request has begun is left alone: if a
 * successor does not let it lapse, it ends by its lease.
 */
void ngx_coord_lease_exit(void);


/*
 * --- ngx_coord_lease_journal.c: who holds what, in shared memory ---
 *
 * Best effort: what has no record ends by expiry.  Only zones with the flag
 * "journal" have one.
 */

/*
 * Records that this process holds, waits for, or may have been granted, what
 * op names: by its zone, key, id and source, of a claim also fingerprint and
 * ttl; a CLAIM_RENEW stands for one that is to lapse.  The record ends in life
 * nanoseconds; one that is there is moved.
 */
void ngx_coord_journal_add(ngx_coord_op_t *op, ngx_coord_nsec_t life);

/* ends the record; does nothing if there is none */
void ngx_coord_journal_remove(ngx_coord_op_t *op);

/* whose records are taken out of the journal */
typedef enum {
    NGX_COORD_JOURNAL_DEAD = 0,    /* of processes that are gone */
    NGX_COORD_JOURNAL_OWN          /* of this one: what has not begun */
} ngx_coord_journal_e;

/*
 * Takes at most n records of such owners out of the journal of a zone, from
 * cell *cell on, which is moved; returns how many.  Each op is an acquire, or
 * for a place in line an enter, or a claim, or a renewal for one that is to
 * lapse; zone, key, id, source and the time that is left (u.lease.lease or
 * u.claim.lease) are set, of a claim also fingerprint and ttl, all else is 0.
 */
ngx_uint_t ngx_coord_journal_take(ngx_coord_zone_t *zone,
    ngx_coord_journal_e whose, uint32_t *cell, ngx_coord_op_t *ops,
    ngx_uint_t n);


#endif /* _NGX_COORD_LEASE_H_INCLUDED_ */
