
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Held leases: renewal, loss, release.  One timer serves them all, and what
 * is due leaves in as few transactions as the client takes.
 */


#include "ngx_coord_lease.h"
#include "ngx_coord_store_metrics.h"
#include "ngx_coord_timer.h"
#include "ngx_coord_wake.h"


/* operations of one transaction: a reply has at most 256 elements */
#define NGX_COORD_LEASE_BATCH      60
#define NGX_COORD_LEASE_REASK      20

/* looked at so often in the length of the shortest lease */
#define NGX_COORD_LEASE_TICKS      12
#define NGX_COORD_LEASE_TICK_MIN   20     /* milliseconds */

/* renewed from this age on: a fourth, so that a tick later is in time */
#define NGX_COORD_LEASE_DUE        4

#define NGX_COORD_LEASE_KEEP       256
#define NGX_COORD_LEASE_ORPHANS    16


static ngx_coord_held_t *ngx_coord_lease_alloc(void);
static void ngx_coord_lease_free(ngx_coord_held_t *held);
static void ngx_coord_lease_schedule(ngx_coord_held_t *held);
static void ngx_coord_lease_tick(ngx_event_t *ev);
static void ngx_coord_lease_renew(ngx_coord_nsec_t now);
static void ngx_coord_lease_ask(ngx_queue_t *queue,
    const ngx_coord_op_type_t *type, ngx_uint_t max);
static ngx_coord_op_t *ngx_coord_lease_op(ngx_coord_batch_t *batch,
    const ngx_coord_op_type_t *type, ngx_coord_held_t *held);
static void ngx_coord_lease_send(ngx_coord_batch_t *batch);
static void ngx_coord_lease_answered(ngx_coord_batch_t *batch);
static void ngx_coord_lease_answer(ngx_coord_op_t *op, ngx_coord_held_t *held,
    ngx_queue_t *gone);
static void ngx_coord_lease_lose(ngx_coord_held_t *held);
static void ngx_coord_lease_flush_handler(ngx_event_t *ev);
static void ngx_coord_lease_start(void);


/* of this worker */

static ngx_queue_t        ngx_coord_leases;     /* held */
static ngx_queue_t        ngx_coord_releases;   /* to be sent this turn */
static ngx_queue_t        ngx_coord_repeats;    /* to be sent next tick */
static ngx_coord_timer_t  ngx_coord_lease_timer;
static ngx_event_t        ngx_coord_lease_post;
static ngx_msec_t         ngx_coord_lease_period;
static ngx_coord_held_t  *ngx_coord_lease_spare;
static ngx_uint_t         ngx_coord_lease_nspare;

/* the id of the last lease: a random half, and a number with a random start */
static u_char             ngx_coord_lease_ids[NGX_COORD_ID_LEN];
static ngx_uint_t         ngx_coord_lease_nids;


ngx_coord_held_t *
ngx_coord_lease_hold(ngx_coord_op_t *op, ngx_coord_lease_lost_pt handler,
    void *data)
{
    ngx_coord_held_t  *held;

    held = ngx_coord_lease_alloc();

    if (held == NULL) {
        ngx_coord_op_undo(op);
        return NULL;
    }

    held->zone = op->zone;
    held->limit = op->u.lease.limit;
    held->lease = op->u.lease.lease;
    held->source = op->source;
    held->handler = handler;
    held->data = data;

    /* the store counts from an earlier time: at most its timeout */

    held->asked = ngx_coord_monotonic();
    held->renewed = held->asked;

    held->key_len = op->key_len;
    ngx_memcpy(held->key, op->key, op->key_len);
    ngx_memcpy(held->id, op->id, NGX_COORD_ID_LEN);

    ngx_queue_insert_tail(&ngx_coord_leases, &held->queue);

    ngx_coord_journal_add(held);
    ngx_coord_lease_schedule(held);
    ngx_coord_metrics_gauge(held->zone, NGX_COORD_GAUGE_LEASES, 1);

    return held;
}


void
ngx_coord_lease_release(ngx_coord_held_t *held)
{
    held->handler = NULL;
    held->released = 1;

    ngx_coord_metrics_gauge(held->zone, NGX_COORD_GAUGE_LEASES, -1);

    if (held->lost) {
        held->done = 1;
        ngx_coord_lease_free(held);
        return;
    }

    ngx_coord_journal_remove(held);

    ngx_queue_remove(&held->queue);
    ngx_queue_insert_tail(&ngx_coord_releases, &held->queue);

    /* what lies in memory costs no round trip that could be shared */

    if (held->source != NGX_COORD_SOURCE_REDIS) {
        ngx_coord_lease_flush();
        return;
    }

    if (!ngx_coord_lease_post.posted) {
        ngx_post_event(&ngx_coord_lease_post, &ngx_posted_events);
    }
}


void
ngx_coord_lease_forget(ngx_coord_op_t *op)
{
    ngx_coord_held_t  *held;

    if (!op->sent
        || (op->failure != NGX_COORD_FAIL_TIMEOUT
            && op->failure != NGX_COORD_FAIL_CONNECT
            && op->failure != NGX_COORD_FAIL_PROTOCOL))
    {
        return;
    }

    held = ngx_coord_lease_alloc();

    if (held == NULL) {
        return;
    }

    held->zone = op->zone;
    held->limit = op->u.lease.limit;
    held->lease = op->u.lease.lease;
    held->source = NGX_COORD_SOURCE_REDIS;
    held->renewed = ngx_coord_monotonic();
    held->released = 1;

    held->key_len = op->key_len;
    ngx_memcpy(held->key, op->key, op->key_len);
    ngx_memcpy(held->id, op->id, NGX_COORD_ID_LEN);

    ngx_queue_insert_tail(&ngx_coord_repeats, &held->queue);
    ngx_coord_lease_schedule(held);
}


void
ngx_coord_lease_flush(void)
{
    if (ngx_coord_lease_period == 0 || ngx_queue_empty(&ngx_coord_releases)) {
        return;
    }

    ngx_coord_lease_ask(&ngx_coord_releases, &ngx_coord_op_lease_release,
                        NGX_COORD_LEASE_BATCH);
}


static void
ngx_coord_lease_flush_handler(ngx_event_t *ev)
{
    ngx_coord_lease_flush();
}


void
ngx_coord_lease_recover(ngx_coord_zone_t *zone)
{
    uint32_t           cell;
    ngx_uint_t         i, n, total;
    ngx_coord_held_t  *held, orphans[NGX_COORD_LEASE_ORPHANS];

    cell = 0;
    total = 0;

    do {
        n = ngx_coord_journal_orphans(zone, &cell, orphans,
                                      NGX_COORD_LEASE_ORPHANS);

        for (i = 0; i < n; i++) {
            held = ngx_coord_lease_alloc();

            if (held == NULL) {
                return;
            }

            *held = orphans[i];

            held->released = 1;

            ngx_queue_insert_tail(&ngx_coord_repeats, &held->queue);
            ngx_coord_lease_schedule(held);
        }

        total += n;

    } while (n == NGX_COORD_LEASE_ORPHANS);

    if (total == 0) {
        return;
    }

    ngx_log_error(NGX_LOG_NOTICE, ngx_cycle->log, 0,
                  "coord zone \"%V\": releasing %ui leases of processes "
                  "that are gone", &zone->name, total);

    ngx_coord_lease_ask(&ngx_coord_repeats, &ngx_coord_op_lease_release,
                        NGX_COORD_LEASE_BATCH);
}


void
ngx_coord_lease_exit(void)
{
    ngx_queue_t        *q, *all[3];
    ngx_uint_t          i;
    ngx_coord_held_t   *held;
    ngx_coord_batch_t  *batch;

    if (ngx_coord_lease_period == 0) {
        return;
    }

    all[0] = &ngx_coord_releases;
    all[1] = &ngx_coord_repeats;
    all[2] = &ngx_coord_leases;

    batch = NULL;

    for (i = 0; i < 3; i++) {

        while (!ngx_queue_empty(all[i])) {
            q = ngx_queue_head(all[i]);
            held = ngx_queue_data(q, ngx_coord_held_t, queue);

            ngx_queue_remove(q);

            if (!held->released) {
                ngx_coord_journal_remove(held);
            }

            if (batch && (batch->store != held->zone->store
                          || batch->nops == NGX_COORD_LEASE_BATCH))
            {
                (void) ngx_coord_batch_send(batch);
                batch = NULL;
            }

            if (batch == NULL) {
                batch = ngx_coord_batch_create(held->zone->store);
            }

            if (batch) {
                (void) ngx_coord_lease_op(batch, &ngx_coord_op_lease_release,
                                          held);
            }
        }
    }

    if (batch) {
        (void) ngx_coord_batch_send(batch);
    }

    ngx_coord_timer_stop(&ngx_coord_lease_timer);

    if (ngx_coord_lease_post.posted) {
        ngx_delete_posted_event(&ngx_coord_lease_post);
    }
}


ngx_uint_t
ngx_coord_lease_count(ngx_coord_zone_t *zone)
{
    ngx_uint_t         n;
    ngx_queue_t       *q;
    ngx_coord_held_t  *held;

    if (ngx_coord_lease_period == 0) {
        return 0;
    }

    n = 0;

    for (q = ngx_queue_head(&ngx_coord_leases);
         q != ngx_queue_sentinel(&ngx_coord_leases);
         q = ngx_queue_next(q))
    {
        held = ngx_queue_data(q, ngx_coord_held_t, queue);

        if (held->zone == zone) {
            n++;
        }
    }

    return n;
}


ngx_int_t
ngx_coord_lease_id(u_char *id)
{
    uint64_t  n;

    if (ngx_coord_lease_nids == 0
        && ngx_coord_id(ngx_coord_lease_ids) != NGX_OK)
    {
        return NGX_ERROR;
    }

    ngx_coord_lease_nids = 1;

    ngx_memcpy(&n, ngx_coord_lease_ids + NGX_COORD_LEASE_OWNER, sizeof(n));
    n++;
    ngx_memcpy(ngx_coord_lease_ids + NGX_COORD_LEASE_OWNER, &n, sizeof(n));

    ngx_memcpy(id, ngx_coord_lease_ids, NGX_COORD_ID_LEN);

    return NGX_OK;
}


static ngx_coord_held_t *
ngx_coord_lease_alloc(void)
{
    ngx_coord_held_t  *held;

    if (ngx_coord_lease_period == 0) {
        ngx_coord_lease_start();
    }

    held = ngx_coord_lease_spare;

    if (held) {
        ngx_coord_lease_spare = held->data;
        ngx_coord_lease_nspare--;

    } else {
        held = ngx_alloc(sizeof(ngx_coord_held_t), ngx_cycle->log);

        if (held == NULL) {
            return NULL;
        }
    }

    ngx_memzero(held, sizeof(ngx_coord_held_t));

    return held;
}


/* the leases of a worker begin with the first one */

static void
ngx_coord_lease_start(void)
{
    ngx_queue_init(&ngx_coord_leases);
    ngx_queue_init(&ngx_coord_releases);
    ngx_queue_init(&ngx_coord_repeats);

    ngx_coord_timer_init(&ngx_coord_lease_timer, ngx_coord_lease_tick, NULL,
                         ngx_cycle->log);
    ngx_coord_lease_timer.event.cancelable = 1;

    ngx_coord_lease_post.handler = ngx_coord_lease_flush_handler;
    ngx_coord_lease_post.log = ngx_cycle->log;

    ngx_coord_lease_period = NGX_MAX_INT32_VALUE;
}


static void
ngx_coord_lease_free(ngx_coord_held_t *held)
{
    if (!held->done || held->in_flight) {
        return;
    }

    if (ngx_coord_lease_nspare >= NGX_COORD_LEASE_KEEP) {
        ngx_free(held);
        return;
    }

    held->data = ngx_coord_lease_spare;
    ngx_coord_lease_spare = held;
    ngx_coord_lease_nspare++;
}


static void
ngx_coord_lease_schedule(ngx_coord_held_t *held)
{
    ngx_msec_t  period;

    period = (ngx_msec_t) (held->lease / NGX_COORD_NSEC_PER_MSEC
                           / NGX_COORD_LEASE_TICKS);
    period = ngx_max(period, NGX_COORD_LEASE_TICK_MIN);

    if (period < ngx_coord_lease_period) {
        ngx_coord_lease_period = period;

        ngx_coord_timer_stop(&ngx_coord_lease_timer);
    }

    if (!ngx_coord_lease_timer.event.timer_set) {
        ngx_coord_timer_start(&ngx_coord_lease_timer, ngx_coord_lease_period);
    }
}


static void
ngx_coord_lease_tick(ngx_event_t *ev)
{
    ngx_coord_lease_renew(ngx_coord_monotonic());

    ngx_coord_lease_ask(&ngx_coord_repeats, &ngx_coord_op_lease_release,
                        NGX_COORD_LEASE_BATCH);

    if (!ngx_queue_empty(&ngx_coord_leases)
        || !ngx_queue_empty(&ngx_coord_repeats))
    {
        ngx_add_timer(ev, ngx_coord_lease_period);
        return;
    }

    ngx_coord_lease_period = NGX_MAX_INT32_VALUE;
}


static void
ngx_coord_lease_renew(ngx_coord_nsec_t now)
{
    ngx_queue_t        *q, *next, due;
    ngx_coord_held_t   *held;

    ngx_queue_init(&due);

    for (q = ngx_queue_head(&ngx_coord_leases);
         q != ngx_queue_sentinel(&ngx_coord_leases);
         q = next)
    {
        next = ngx_queue_next(q);
        held = ngx_queue_data(q, ngx_coord_held_t, queue);

        if (held->in_flight
            || now - held->renewed < held->lease / NGX_COORD_LEASE_DUE)
        {
            continue;
        }

        ngx_queue_remove(q);
        ngx_queue_insert_tail(&due, q);
    }

    ngx_coord_lease_ask(&due, &ngx_coord_op_lease_renew,
                        NGX_COORD_LEASE_BATCH);
}


/*
 * Sends one operation for each lease of a queue, which is empty afterwards:
 * leases that are held go back to theirs, released ones wait for the answer.
 */

static void
ngx_coord_lease_ask(ngx_queue_t *queue, const ngx_coord_op_type_t *type,
    ngx_uint_t max)
{
    ngx_queue_t        *q, asked;
    ngx_coord_held_t   *held;
    ngx_coord_batch_t  *batch;

    if (ngx_queue_empty(queue)) {
        return;
    }

    /* an answer that comes at once may put a lease back into the queue */

    ngx_queue_init(&asked);
    ngx_queue_add(&asked, queue);
    ngx_queue_init(queue);

    batch = NULL;

    while (!ngx_queue_empty(&asked)) {
        q = ngx_queue_head(&asked);
        held = ngx_queue_data(q, ngx_coord_held_t, queue);

        ngx_queue_remove(q);

        if (!held->released) {
            ngx_queue_insert_tail(&ngx_coord_leases, q);
        }

        if (batch && (batch->store != held->zone->store
                      || batch->nops == max))
        {
            ngx_coord_lease_send(batch);
            batch = NULL;
        }

        if (batch == NULL) {
            batch = ngx_coord_batch_create(held->zone->store);
        }

        if (batch == NULL || ngx_coord_lease_op(batch, type, held) == NULL) {

            if (held->released) {
                ngx_queue_insert_tail(&ngx_coord_repeats, q);
                ngx_coord_lease_schedule(held);
            }
        }
    }

    if (batch) {
        ngx_coord_lease_send(batch);
    }
}


static ngx_coord_op_t *
ngx_coord_lease_op(ngx_coord_batch_t *batch, const ngx_coord_op_type_t *type,
    ngx_coord_held_t *held)
{
    ngx_coord_op_t  *op;

    op = ngx_coord_batch_add(batch, type, held->zone, held->key,
                             held->key_len);
    if (op == NULL) {
        return NULL;
    }

    op->u.lease.limit = held->limit;
    op->u.lease.lease = held->lease;
    op->source = held->source;
    op->data = held;

    ngx_memcpy(op->id, held->id, NGX_COORD_ID_LEN);

    held->asked = ngx_coord_monotonic();
    held->in_flight++;

    return op;
}


static void
ngx_coord_lease_send(ngx_coord_batch_t *batch)
{
    batch->handler = ngx_coord_lease_answered;

    if (ngx_coord_batch_send(batch) == NGX_OK) {
        ngx_coord_lease_answered(batch);
    }
}


static void
ngx_coord_lease_answered(ngx_coord_batch_t *batch)
{
    ngx_uint_t         i;
    ngx_queue_t        gone;
    ngx_coord_held_t  *held;

    ngx_queue_init(&gone);

    for (i = 0; i < batch->nops; i++) {
        held = batch->ops[i].data;

        ngx_coord_lease_answer(&batch->ops[i], held, &gone);

        held->in_flight--;

        ngx_coord_lease_free(held);
    }

    ngx_coord_batch_done(batch);

    ngx_coord_lease_ask(&gone, &ngx_coord_op_lease_acquire,
                        NGX_COORD_LEASE_REASK);
}


static void
ngx_coord_lease_answer(ngx_coord_op_t *op, ngx_coord_held_t *held,
    ngx_queue_t *gone)
{
    if (op->type == &ngx_coord_op_lease_release) {

        if (op->rc == NGX_ERROR
            && ngx_coord_monotonic() - held->renewed < held->lease)
        {
            ngx_queue_insert_tail(&ngx_coord_repeats, &held->queue);
            ngx_coord_lease_schedule(held);
            return;
        }

        held->done = 1;

        /* nobody else tells who waits for what lies in memory */

        if (held->zone->wake && held->source != NGX_COORD_SOURCE_REDIS) {
            ngx_coord_wake(held->zone, held->key, held->key_len);
        }

        return;
    }

    if (held->released || op->rc == NGX_ERROR) {
        return;
    }

    if (op->rc == NGX_OK) {
        held->renewed = held->asked;
        ngx_coord_journal_renew(held);
        return;
    }

    if (op->type == &ngx_coord_op_lease_renew) {
        ngx_queue_remove(&held->queue);
        ngx_queue_insert_tail(gone, &held->queue);
        return;
    }

    ngx_coord_lease_lose(held);
}


static void
ngx_coord_lease_lose(ngx_coord_held_t *held)
{
    ngx_queue_remove(&held->queue);

    held->lost = 1;

    ngx_coord_journal_remove(held);

    if (held->handler) {
        held->handler(held->data);
    }
}
