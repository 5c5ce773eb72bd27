
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Waiting for news on a key without asking all the time.  A worker keeps its
 * waiters in the order of arrival; they are woken by a message on the channel
 * "<prefix>wake" (any node), by ngx_coord_wake() (this worker), and, lest a
 * message is lost, by a jittered poll of the first one.
 */


#ifndef _NGX_COORD_WAKE_H_INCLUDED_
#define _NGX_COORD_WAKE_H_INCLUDED_


#include "ngx_coord_store.h"


typedef struct ngx_coord_waiter_s  ngx_coord_waiter_t;


/*
 * Called from a posted event or a timer.  NGX_OK: the news are taken, waiters
 * behind this one need not hear them; NGX_DECLINED: tell the next one too.
 * May remove its own waiter, not others.
 */
typedef ngx_int_t (*ngx_coord_waiter_handler_pt)(ngx_coord_waiter_t *waiter);


struct ngx_coord_waiter_s {
    ngx_queue_t                  queue;
    ngx_coord_zone_t            *zone;
    void                        *wait;        /* of ngx_coord_wake.c */
    ngx_coord_waiter_handler_pt  handler;     /* the caller's, and data */
    void                        *data;
    unsigned                     active:1;
};


/*
 * At configuration time, for each zone whose keys are waited for, when its
 * store is known: has the store's workers listen for news; store->wake is the
 * channel, and a message is the Redis key, up to and with the "}".  Setting
 * zone->wake early in the configuration does the same.  NGX_ERROR: no memory.
 */
ngx_int_t ngx_coord_wake_zone(ngx_pool_t *pool, ngx_coord_zone_t *zone);


/*
 * Starts to wait for news on an encoded key of a zone; the memory is the
 * caller's and stays until ngx_coord_wait_remove().  handler and data are set
 * by the caller.  poll: after at most so many milliseconds without news the
 * first waiter of the key is woken all the same.  NGX_ERROR: no memory.
 */
ngx_int_t ngx_coord_wait_add(ngx_coord_waiter_t *waiter, ngx_coord_zone_t *zone,
    u_char *key, size_t len, ngx_msec_t poll);

/* ends a wait; does nothing if the waiter is not active */
void ngx_coord_wait_remove(ngx_coord_waiter_t *waiter);

/*
 * Has the first waiter of the key woken in delay milliseconds at the latest,
 * once; does nothing if the waiter is not active.
 */
void ngx_coord_wait_hurry(ngx_coord_waiter_t *waiter, ngx_msec_t delay);

/* news on a key, heard in this worker: its waiters hear of it, posted */
void ngx_coord_wake(ngx_coord_zone_t *zone, u_char *key, size_t len);

/* the first waiter of this worker for the key, or NULL */
ngx_coord_waiter_t *ngx_coord_wait_first(ngx_coord_zone_t *zone, u_char *key,
    size_t len);


#endif /* _NGX_COORD_WAKE_H_INCLUDED_ */
