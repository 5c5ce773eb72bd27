
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Held leases: renewal, loss, release.  One timer serves them all, and what
 * is due leaves in as few transactions as the client takes.
 */


#include "ngx_coord_lease.h"
#include "ngx_coord_batch.h"
#include "ngx_coord_giveback.h"
#include "ngx_coord_store_metrics.h"
#include "ngx_coord_timer.h"

#include <ngx_channel.h>


/* operations of one batch: one reply has the answers to all of them */
#define NGX_COORD_LEASE_BATCH      60
#define NGX_COORD_LEASE_REASK      20

/* looked at so often in the length of the shortest lease */
#define NGX_COORD_LEASE_TICKS      12
#define NGX_COORD_LEASE_TICK_MIN   20     /* milliseconds */

/* renewed from this age on: a fourth, so that a tick later is in time */
#define NGX_COORD_LEASE_DUE        4

/* so long after its wait an arrival may still stand in line */
#define NGX_COORD_LEASE_LATE       (6 * NGX_COORD_NSEC_PER_SEC)

#define NGX_COORD_LEASE_KEEP       256
#define NGX_COORD_LEASE_ORPHANS    16

/* milliseconds: whether other processes live */
#define NGX_COORD_LEASE_WATCH      1000


typedef struct {
    ngx_queue_t                held;
    ngx_coord_timer_t          timer;
    ngx_msec_t                 period;    /* of the timer; 0: none */
    ngx_queue_t                spare;
    ngx_uint_t                 nspare;

    ngx_coord_zone_t          *zones;         /* with a journal */
    ngx_coord_timer_t          watch;
    ngx_pid_t                  gone[NGX_MAX_PROCESSES];

    /* the last id: a random half, and a number with a random start */
    u_char                     id[NGX_COORD_ID_LEN];
    unsigned                   started:1;
    unsigned                   named:1;   /* there is a last id */
} ngx_coord_lease_worker_t;


static ngx_coord_held_t *ngx_coord_lease_alloc(void);
static void ngx_coord_lease_start(void);
static void ngx_coord_lease_free(ngx_coord_held_t *held);
static void ngx_coord_lease_schedule(ngx_coord_held_t *held);
static void ngx_coord_lease_tick(ngx_event_t *ev);
static void ngx_coord_lease_ask(ngx_queue_t *queue,
    const ngx_coord_op_type_t *type, ngx_coord_held_e state, ngx_uint_t max);
static ngx_int_t ngx_coord_lease_op(ngx_coord_batch_t *batch,
    const ngx_coord_op_type_t *type, ngx_coord_held_t *held);
static void ngx_coord_lease_send(ngx_coord_batch_t *batch);
static void ngx_coord_lease_answered(ngx_coord_batch_t *batch);
static void ngx_coord_lease_renewed(ngx_coord_held_t *held, ngx_int_t rc,
    ngx_queue_t *gone);
static void ngx_coord_lease_asked(ngx_coord_held_t *held, ngx_int_t rc);
static void ngx_coord_lease_confirm(ngx_coord_held_t *held);
static void ngx_coord_lease_look(ngx_event_t *ev);
static ngx_uint_t ngx_coord_lease_deaths(void);
static void ngx_coord_lease_recover(ngx_coord_zone_t *zone,
    ngx_coord_journal_e whose);
static void ngx_coord_lease_orphan(ngx_coord_op_t *op);
static void ngx_coord_lease_set(ngx_coord_held_t *held,
    ngx_coord_held_e state);


const ngx_coord_edges_t  ngx_coord_held_edges[] = {

    /* NGX_COORD_HELD */
    ngx_coord_edge(NGX_COORD_HELD_RENEWING)
    |ngx_coord_edge(NGX_COORD_HELD_ENDED),

    /* NGX_COORD_HELD_RENEWING */
    ngx_coord_edge(NGX_COORD_HELD)
    |ngx_coord_edge(NGX_COORD_HELD_ASKING)
    |ngx_coord_edge(NGX_COORD_HELD_ENDED),

    /* NGX_COORD_HELD_ASKING */
    ngx_coord_edge(NGX_COORD_HELD)
    |ngx_coord_edge(NGX_COORD_HELD_LOST)
    |ngx_coord_edge(NGX_COORD_HELD_ENDED),

    /* NGX_COORD_HELD_LOST */
    ngx_coord_edge(NGX_COORD_HELD_ENDED),

    /* NGX_COORD_HELD_ENDED */
    0
};


static ngx_coord_lease_worker_t  ngx_coord_leases;


ngx_coord_held_t *
ngx_coord_lease_hold(ngx_coord_op_t *op, ngx_coord_lease_lost_pt handler,
    void *data)
{
    ngx_coord_held_t  *held;

    held = ngx_coord_lease_alloc();

    if (held == NULL) {
        ngx_coord_giveback(op, NGX_COORD_GIVEBACK_GRANTED);
        return NULL;
    }

    held->state = NGX_COORD_HELD;
    held->op = *op;
    held->op.blob = NULL;
    held->handler = handler;
    held->data = data;

    /* the store counts from an earlier time: at most its timeout */

    held->asked = ngx_coord_monotonic();
    held->renewed = held->asked;

    ngx_queue_insert_tail(&ngx_coord_leases.held, &held->queue);

    /* the journal took it for the store's */

    if (op->source == NGX_COORD_SOURCE_FALLBACK) {
        ngx_coord_journal_add(&held->op, held->op.u.lease.lease);
    }

    ngx_coord_lease_schedule(held);
    ngx_coord_metrics_gauge(held->op.zone, NGX_COORD_GAUGE_LEASES, 1);

    return held;
}


void
ngx_coord_lease_release(ngx_coord_held_t *held)
{
    ngx_coord_held_e  state;

    state = held->state;

    held->handler = NULL;
    held->data = NULL;

    ngx_coord_metrics_gauge(held->op.zone, NGX_COORD_GAUGE_LEASES, -1);

    ngx_coord_lease_set(held, NGX_COORD_HELD_ENDED);

    if (state == NGX_COORD_HELD_LOST) {
        ngx_coord_lease_free(held);
        return;
    }

    /* one that is just asked for again may be granted yet */

    ngx_coord_giveback(&held->op, state == NGX_COORD_HELD_ASKING
                                  ? NGX_COORD_GIVEBACK_ASKED
                                  : NGX_COORD_GIVEBACK_GRANTED);

    if (state == NGX_COORD_HELD) {
        ngx_queue_remove(&held->queue);
        ngx_coord_lease_free(held);
    }
}


void
ngx_coord_lease_watch(ngx_coord_zone_t *zone)
{
    if (ngx_coord_leases.zones == NULL) {
        ngx_coord_timer_init(&ngx_coord_leases.watch, ngx_coord_lease_look,
                             NULL, ngx_cycle->log);
        ngx_coord_leases.watch.event.cancelable = 1;

        (void) ngx_coord_lease_deaths();

        ngx_coord_timer_start(&ngx_coord_leases.watch,
                              NGX_COORD_LEASE_WATCH);
    }

    zone->watched = ngx_coord_leases.zones;
    ngx_coord_leases.zones = zone;

    ngx_coord_lease_recover(zone, NGX_COORD_JOURNAL_DEAD);
}


static void
ngx_coord_lease_look(ngx_event_t *ev)
{
    ngx_coord_zone_t  *zone;

    if (ngx_coord_lease_deaths()) {
        for (zone = ngx_coord_leases.zones; zone; zone = zone->watched) {
            ngx_coord_lease_recover(zone, NGX_COORD_JOURNAL_DEAD);
        }
    }

    ngx_add_timer(ev, NGX_COORD_LEASE_WATCH);
}


/*
 * Processes of this master that have died since the last call: one that was to
 * exit has no successor.
 */

static ngx_uint_t
ngx_coord_lease_deaths(void)
{
    ngx_int_t   i;
    ngx_pid_t   pid;
    ngx_uint_t  n;

    n = 0;

    for (i = 0; i < ngx_last_process; i++) {
        pid = ngx_processes[i].pid;

        if (pid > 0
            && pid != ngx_pid
            && pid != ngx_coord_leases.gone[i]
            && !ngx_coord_alive(pid))
        {
            ngx_coord_leases.gone[i] = pid;
            n++;
        }
    }

    return n;
}


static void
ngx_coord_lease_recover(ngx_coord_zone_t *zone, ngx_coord_journal_e whose)
{
    uint32_t        cell;
    ngx_uint_t      i, n, total;
    ngx_coord_op_t  ops[NGX_COORD_LEASE_ORPHANS];

    cell = 0;
    total = 0;

    do {
        n = ngx_coord_journal_take(zone, whose, &cell, ops,
                                   NGX_COORD_LEASE_ORPHANS);

        for (i = 0; i < n; i++) {
            ngx_coord_lease_orphan(&ops[i]);
        }

        total += n;

    } while (n == NGX_COORD_LEASE_ORPHANS);

    /* what is its own leaves with all else that the process gives back */

    if (total == 0 || whose == NGX_COORD_JOURNAL_OWN) {
        return;
    }

    ngx_log_error(NGX_LOG_NOTICE, ngx_cycle->log, 0,
                  "coord zone \"%V\": releasing %ui leases of processes "
                  "that are gone", &zone->name, total);

    ngx_coord_giveback_flush(zone->store);
}


static void
ngx_coord_lease_orphan(ngx_coord_op_t *op)
{
    ngx_coord_nsec_t  left;

    if (op->type == &ngx_coord_op_claim_renew) {

        /* nobody knows what became of its request: it lapses */

        left = op->u.claim.lease;
        op->u.claim.lease = 0;

        ngx_coord_giveback_op(op, left);
        return;
    }

    if (ngx_coord_op_local(op)) {
        ngx_coord_giveback(op, NGX_COORD_GIVEBACK_GRANTED);
        return;
    }

    /* its last question may yet be read, and answered well */

    ngx_coord_giveback(op, NGX_COORD_GIVEBACK_ASKED);

    if (op->type == &ngx_coord_op_wait_enter) {
        op->type = &ngx_coord_op_lease_turn;
        ngx_coord_giveback(op, NGX_COORD_GIVEBACK_ASKED);
    }
}


void
ngx_coord_lease_exit(void)
{
    ngx_queue_t       *q;
    ngx_coord_held_t  *held;
    ngx_coord_zone_t  *zone;

    if (ngx_coord_leases.started) {
        ngx_coord_timer_stop(&ngx_coord_leases.timer);

        while (!ngx_queue_empty(&ngx_coord_leases.held)) {
            q = ngx_queue_head(&ngx_coord_leases.held);
            held = ngx_queue_data(q, ngx_coord_held_t, queue);

            ngx_queue_remove(q);

            /* the list of what is given back has it from now on */

            ngx_coord_journal_remove(&held->op);
            ngx_coord_giveback(&held->op, NGX_COORD_GIVEBACK_GRANTED);
        }
    }

    if (ngx_coord_leases.zones == NULL) {
        return;
    }

    ngx_coord_timer_stop(&ngx_coord_leases.watch);

    /* what was asked for: the request is not there to give it back */

    for (zone = ngx_coord_leases.zones; zone; zone = zone->watched) {
        ngx_coord_lease_recover(zone, NGX_COORD_JOURNAL_OWN);
    }

    ngx_coord_leases.zones = NULL;
}


ngx_int_t
ngx_coord_lease_name(ngx_coord_op_t *op)
{
    u_char            *last;
    uint64_t           n;
    ngx_coord_nsec_t   life;

    last = ngx_coord_leases.id;

    if (!ngx_coord_leases.named && ngx_coord_id(last) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_coord_leases.named = 1;

    ngx_memcpy(&n, last + NGX_COORD_ID_LEN - sizeof(n), sizeof(n));
    n++;
    ngx_memcpy(last + NGX_COORD_ID_LEN - sizeof(n), &n, sizeof(n));

    ngx_memcpy(op->id, last, NGX_COORD_ID_LEN);

    life = op->u.lease.lease;

    if (op->type == &ngx_coord_op_wait_enter) {
        life = op->zone->wait + NGX_COORD_LEASE_LATE;
    }

    op->source = ngx_coord_store_is_memory(op->zone->store)
                 ? NGX_COORD_SOURCE_MEMORY : NGX_COORD_SOURCE_REDIS;

    ngx_coord_journal_add(op, life);

    op->source = NGX_COORD_SOURCE_NONE;

    return NGX_OK;
}


static ngx_coord_held_t *
ngx_coord_lease_alloc(void)
{
    ngx_queue_t       *q;
    ngx_coord_held_t  *held;

    if (!ngx_coord_leases.started) {
        ngx_coord_lease_start();
    }

    if (ngx_coord_leases.nspare == 0) {
        return ngx_alloc(sizeof(ngx_coord_held_t), ngx_cycle->log);
    }

    q = ngx_queue_head(&ngx_coord_leases.spare);
    held = ngx_queue_data(q, ngx_coord_held_t, queue);

    ngx_queue_remove(q);
    ngx_coord_leases.nspare--;

    return held;
}


/* the leases of a worker begin with the first one */

static void
ngx_coord_lease_start(void)
{
    ngx_queue_init(&ngx_coord_leases.held);
    ngx_queue_init(&ngx_coord_leases.spare);

    ngx_coord_timer_init(&ngx_coord_leases.timer, ngx_coord_lease_tick, NULL,
                         ngx_cycle->log);

    /* leases belong to requests, which hold a worker that exits */

    ngx_coord_leases.timer.event.cancelable = 1;
    ngx_coord_leases.started = 1;
}


static void
ngx_coord_lease_free(ngx_coord_held_t *held)
{
    if (ngx_coord_leases.nspare >= NGX_COORD_LEASE_KEEP) {
        ngx_free(held);
        return;
    }

    ngx_queue_insert_head(&ngx_coord_leases.spare, &held->queue);
    ngx_coord_leases.nspare++;
}


/* the timer ticks for the shortest lease since there were none */

static void
ngx_coord_lease_schedule(ngx_coord_held_t *held)
{
    ngx_msec_t  period;

    period = (ngx_msec_t) (held->op.u.lease.lease / NGX_COORD_NSEC_PER_MSEC
                           / NGX_COORD_LEASE_TICKS);
    period = ngx_max(period, NGX_COORD_LEASE_TICK_MIN);

    if (ngx_coord_leases.timer.event.timer_set) {

        if (period >= ngx_coord_leases.period) {
            return;
        }

        ngx_coord_timer_stop(&ngx_coord_leases.timer);
    }

    ngx_coord_leases.period = period;
    ngx_coord_timer_start(&ngx_coord_leases.timer, period);
}


/* renews what is due */

static void
ngx_coord_lease_tick(ngx_event_t *ev)
{
    ngx_queue_t       *q, *next, due;
    ngx_coord_held_t  *held;
    ngx_coord_nsec_t   now;

    ngx_queue_init(&due);

    now = ngx_coord_monotonic();

    for (q = ngx_queue_head(&ngx_coord_leases.held);
         q != ngx_queue_sentinel(&ngx_coord_leases.held);
         q = next)
    {
        next = ngx_queue_next(q);
        held = ngx_queue_data(q, ngx_coord_held_t, queue);

        if (held->state == NGX_COORD_HELD
            && now - held->renewed
               >= held->op.u.lease.lease / NGX_COORD_LEASE_DUE)
        {
            ngx_queue_remove(q);
            ngx_queue_insert_tail(&due, q);
        }
    }

    ngx_coord_lease_ask(&due, &ngx_coord_op_lease_renew,
                        NGX_COORD_HELD_RENEWING, NGX_COORD_LEASE_BATCH);

    if (!ngx_queue_empty(&ngx_coord_leases.held)) {
        ngx_add_timer(ev, ngx_coord_leases.period);
    }
}


/*
 * Asks for each lease of a queue, which is empty afterwards: they are in the
 * list of those that are held, in the new state until they are answered.
 */

static void
ngx_coord_lease_ask(ngx_queue_t *queue, const ngx_coord_op_type_t *type,
    ngx_coord_held_e state, ngx_uint_t max)
{
    ngx_queue_t        *q;
    ngx_coord_held_t   *held;
    ngx_coord_batch_t  *batch;

    batch = NULL;

    while (!ngx_queue_empty(queue)) {
        q = ngx_queue_head(queue);
        held = ngx_queue_data(q, ngx_coord_held_t, queue);

        ngx_queue_remove(q);

        if (held->state == NGX_COORD_HELD_ENDED) {
            ngx_coord_lease_free(held);
            continue;
        }

        ngx_queue_insert_tail(&ngx_coord_leases.held, q);

        if (batch && (batch->store != held->op.zone->store
                      || batch->nops == max))
        {
            ngx_coord_lease_send(batch);
            batch = NULL;
        }

        if (batch == NULL) {
            batch = ngx_coord_batch_create(held->op.zone->store);
        }

        /* without memory it is asked for next time */

        if (batch && ngx_coord_lease_op(batch, type, held) == NGX_OK) {
            ngx_coord_lease_set(held, state);

        } else if (held->state != NGX_COORD_HELD) {
            ngx_coord_lease_set(held, NGX_COORD_HELD);
        }
    }

    if (batch) {
        ngx_coord_lease_send(batch);
    }
}


static ngx_int_t
ngx_coord_lease_op(ngx_coord_batch_t *batch, const ngx_coord_op_type_t *type,
    ngx_coord_held_t *held)
{
    ngx_coord_op_t  *op;

    op = ngx_coord_batch_add(batch, type, held->op.zone, held->op.key,
                             held->op.key_len);
    if (op == NULL) {
        return NGX_ERROR;
    }

    op->u.lease.limit = held->op.u.lease.limit;
    op->u.lease.lease = held->op.u.lease.lease;
    op->source = held->op.source;
    op->again = 1;
    op->data = held;

    ngx_memcpy(op->id, held->op.id, NGX_COORD_ID_LEN);

    held->asked = ngx_coord_monotonic();

    return NGX_OK;
}


static void
ngx_coord_lease_send(ngx_coord_batch_t *batch)
{
    if (batch->nops == 0) {
        ngx_coord_batch_done(batch);
        return;
    }

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

        switch (held->state) {

        case NGX_COORD_HELD_RENEWING:
            ngx_coord_lease_renewed(held, batch->ops[i].rc, &gone);
            break;

        case NGX_COORD_HELD_ASKING:
            ngx_coord_lease_asked(held, batch->ops[i].rc);
            break;

        default: /* NGX_COORD_HELD_ENDED */
            ngx_queue_remove(&held->queue);
            ngx_coord_lease_free(held);
        }
    }

    ngx_coord_batch_done(batch);

    ngx_coord_lease_ask(&gone, &ngx_coord_op_lease_acquire,
                        NGX_COORD_HELD_ASKING, NGX_COORD_LEASE_REASK);
}


/* what the store does not know any more is to be asked for: it joins gone */

static void
ngx_coord_lease_renewed(ngx_coord_held_t *held, ngx_int_t rc,
    ngx_queue_t *gone)
{
    if (rc == NGX_BUSY) {
        ngx_queue_remove(&held->queue);
        ngx_queue_insert_tail(gone, &held->queue);
        return;
    }

    ngx_coord_lease_set(held, NGX_COORD_HELD);

    if (rc == NGX_OK) {
        ngx_coord_lease_confirm(held);
    }
}


static void
ngx_coord_lease_asked(ngx_coord_held_t *held, ngx_int_t rc)
{
    if (rc != NGX_BUSY) {
        ngx_coord_lease_set(held, NGX_COORD_HELD);

        if (rc == NGX_OK) {
            ngx_coord_lease_confirm(held);
        }

        return;
    }

    ngx_coord_lease_set(held, NGX_COORD_HELD_LOST);
    ngx_queue_remove(&held->queue);
    ngx_coord_journal_remove(&held->op);

    if (held->handler) {
        held->handler(held->data);
    }
}


static void
ngx_coord_lease_confirm(ngx_coord_held_t *held)
{
    held->renewed = held->asked;

    ngx_coord_journal_add(&held->op, held->op.u.lease.lease);
}


static void
ngx_coord_lease_set(ngx_coord_held_t *held, ngx_coord_held_e state)
{
    ngx_coord_edge_check(ngx_coord_held_edges, held->state, state, "lease");

    held->state = state;
}
