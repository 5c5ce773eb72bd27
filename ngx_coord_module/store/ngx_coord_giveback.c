
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Giving back: one list for each store, one timer for what is left over.
 */


#include "ngx_coord_giveback.h"
#include "ngx_coord_giveback_op.h"
#include "ngx_coord_batch.h"
#include "ngx_coord_lease.h"
#include "ngx_coord_timer.h"


/* operations of one batch: one reply has the answers to all of them */
#define NGX_COORD_GIVEBACK_BATCH   60

/* of a store; what is beyond ends by expiry, but not at a fast exit */
#define NGX_COORD_GIVEBACK_MAX     8192

/* entries that a worker keeps for reuse */
#define NGX_COORD_GIVEBACK_KEEP    256

/* milliseconds: the store is looked at so often */
#define NGX_COORD_GIVEBACK_TICK    100

/*
 * What is in doubt and not there is asked for again after 1, 2, 4, .. ticks:
 * what was sent on another connection may reach the server later.
 */
#define NGX_COORD_GIVEBACK_TRIES   5

/* a worker that exits stays for so long after it was to be given back */
#define NGX_COORD_GIVEBACK_STAY    (5 * NGX_COORD_NSEC_PER_SEC)


typedef struct {
    ngx_queue_t                queue;
    ngx_coord_op_t             op;        /* gives back */
    ngx_coord_nsec_t           since;     /* monotonic */
    ngx_coord_nsec_t           until;     /* it is over */
    ngx_coord_nsec_t           next;      /* not to be sent before */
    ngx_coord_giveback_wait_t *wait;      /* for the first answer; or NULL */
    ngx_uint_t                 tries;     /* answered: nothing was there */
    unsigned                   doubt:1;
} ngx_coord_giveback_entry_t;


struct ngx_coord_giveback_s {
    ngx_coord_store_t         *store;
    ngx_queue_t                due;       /* in this turn */
    ngx_queue_t                kept;      /* to be sent again */
    ngx_uint_t                 nentries;  /* with those in flight */
    ngx_event_t                post;
    ngx_coord_timer_t          timer;
    ngx_coord_nsec_t           stay;      /* a worker that exits, until then */
    time_t                     logged;    /* that it is full */
};


static ngx_coord_giveback_entry_t *ngx_coord_giveback_any(
    ngx_coord_op_t *op, ngx_coord_giveback_e how);
static ngx_coord_giveback_entry_t *ngx_coord_giveback_add(ngx_coord_op_t *op,
    const ngx_coord_op_type_t *type, ngx_coord_nsec_t life,
    ngx_coord_giveback_e how);
static ngx_coord_giveback_t *ngx_coord_giveback_get(ngx_coord_store_t *store);
static ngx_coord_giveback_entry_t *ngx_coord_giveback_alloc(
    ngx_coord_giveback_t *gb);
static void ngx_coord_giveback_end(ngx_coord_giveback_t *gb,
    ngx_coord_giveback_entry_t *entry);
static void ngx_coord_giveback_post(ngx_event_t *ev);
static void ngx_coord_giveback_tick(ngx_event_t *ev);
static void ngx_coord_giveback_schedule(ngx_coord_giveback_t *gb);
static void ngx_coord_giveback_send(ngx_coord_giveback_t *gb,
    ngx_queue_t *queue);
static void ngx_coord_giveback_batch(ngx_coord_giveback_t *gb,
    ngx_coord_batch_t *batch);
static ngx_int_t ngx_coord_giveback_push(ngx_coord_batch_t *batch,
    ngx_coord_giveback_entry_t *entry);
static void ngx_coord_giveback_answered(ngx_coord_batch_t *batch);
static void ngx_coord_giveback_answer(ngx_coord_giveback_t *gb,
    ngx_coord_giveback_entry_t *entry, ngx_coord_op_t *op);
static void ngx_coord_giveback_tell(ngx_coord_giveback_entry_t *entry);
static void ngx_coord_giveback_keep(ngx_coord_giveback_t *gb,
    ngx_coord_giveback_entry_t *entry, ngx_msec_t delay);


/* of this worker: entries that are free */

static ngx_queue_t  ngx_coord_giveback_spare = {
    &ngx_coord_giveback_spare, &ngx_coord_giveback_spare
};
static ngx_uint_t   ngx_coord_giveback_nspare;


void
ngx_coord_giveback(ngx_coord_op_t *op, ngx_coord_giveback_e how)
{
    (void) ngx_coord_giveback_any(op, how);
}


void
ngx_coord_giveback_told(ngx_coord_op_t *op, ngx_coord_giveback_e how,
    ngx_coord_giveback_wait_t *wait)
{
    ngx_coord_giveback_entry_t  *entry;

    entry = ngx_coord_giveback_any(op, how);

    wait->entry = entry;

    if (entry) {
        entry->wait = wait;
    }
}


void
ngx_coord_giveback_leave(ngx_coord_giveback_wait_t *wait)
{
    ngx_coord_giveback_entry_t  *entry;

    entry = wait->entry;

    if (entry) {
        entry->wait = NULL;
        wait->entry = NULL;
    }
}


/* NULL: it is done, or there is nothing to be sent */

static ngx_coord_giveback_entry_t *
ngx_coord_giveback_any(ngx_coord_op_t *op, ngx_coord_giveback_e how)
{
    const ngx_coord_op_type_t  *type;

    type = op->type->undo;

    if (type == NULL) {
        return NULL;
    }

    if (how == NGX_COORD_GIVEBACK_GRANTED && ngx_coord_op_local(op)) {
        ngx_coord_giveback_local(op, type);
        return NULL;
    }

    if (how != NGX_COORD_GIVEBACK_GRANTED
        && !(type->flags & NGX_COORD_OP_TWICE))
    {
        return NULL;
    }

    return ngx_coord_giveback_add(op, type, ngx_coord_giveback_life(op), how);
}


void
ngx_coord_giveback_op(ngx_coord_op_t *op, ngx_coord_nsec_t life)
{
    if (ngx_coord_op_local(op)) {
        ngx_coord_giveback_local(op, op->type);
        return;
    }

    (void) ngx_coord_giveback_add(op, op->type, life,
                                  NGX_COORD_GIVEBACK_GRANTED);
}


void
ngx_coord_giveback_flush(ngx_coord_store_t *store)
{
    ngx_coord_giveback_t  *gb;

    gb = store->giveback;

    if (gb == NULL) {
        return;
    }

    if (gb->post.posted) {
        ngx_delete_posted_event(&gb->post);
    }

    ngx_coord_giveback_send(gb, &gb->due);
}


/* NULL: nothing will be sent, or not now */

static ngx_coord_giveback_entry_t *
ngx_coord_giveback_add(ngx_coord_op_t *op, const ngx_coord_op_type_t *type,
    ngx_coord_nsec_t life, ngx_coord_giveback_e how)
{
    ngx_coord_giveback_t        *gb;
    ngx_coord_giveback_entry_t  *entry;

    gb = ngx_coord_giveback_get(op->zone->store);

    if (gb == NULL) {
        return NULL;
    }

    entry = ngx_coord_giveback_alloc(gb);

    if (entry == NULL) {
        return NULL;
    }

    ngx_coord_giveback_copy(&entry->op, op, type);

    entry->op.source = NGX_COORD_SOURCE_REDIS;
    entry->since = ngx_coord_monotonic();
    entry->until = entry->since + life;
    entry->next = entry->since;
    entry->wait = NULL;
    entry->tries = 0;
    entry->doubt = (how != NGX_COORD_GIVEBACK_GRANTED);

    /* a server that does not answer is not asked for more */

    if (how == NGX_COORD_GIVEBACK_LOST) {
        ngx_coord_giveback_keep(gb, entry, NGX_COORD_GIVEBACK_TICK);
        return NULL;
    }

    /* what is to become of it is known now, should this process be killed */

    if (entry->doubt || type->kind == NGX_COORD_KIND_CLAIM) {
        ngx_coord_journal_add(&entry->op, life);
    }

    ngx_queue_insert_tail(&gb->due, &entry->queue);

    if (!gb->post.posted) {
        ngx_post_event(&gb->post, &ngx_posted_events);
    }

    return entry;
}


static ngx_coord_giveback_t *
ngx_coord_giveback_get(ngx_coord_store_t *store)
{
    ngx_coord_giveback_t  *gb;

    gb = store->giveback;

    if (gb) {
        return gb;
    }

    /* a store that has ended takes nothing back */

    if (store->ending) {
        return NULL;
    }

    gb = ngx_calloc(sizeof(ngx_coord_giveback_t), ngx_cycle->log);

    if (gb == NULL) {
        return NULL;
    }

    gb->store = store;

    ngx_queue_init(&gb->due);
    ngx_queue_init(&gb->kept);

    gb->post.handler = ngx_coord_giveback_post;
    gb->post.data = gb;
    gb->post.log = ngx_cycle->log;

    ngx_coord_timer_init(&gb->timer, ngx_coord_giveback_tick, gb,
                         ngx_cycle->log);

    store->giveback = gb;

    return gb;
}


static ngx_coord_giveback_entry_t *
ngx_coord_giveback_alloc(ngx_coord_giveback_t *gb)
{
    ngx_queue_t                 *q;
    ngx_coord_giveback_entry_t  *entry;

    if (gb->nentries >= NGX_COORD_GIVEBACK_MAX && !ngx_terminate) {

        if (gb->logged != ngx_time()) {
            gb->logged = ngx_time();

            ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, 0,
                          "coord store \"%V\": %ui places are still to be "
                          "given back, others end by expiry",
                          &gb->store->name, gb->nentries);
        }

        return NULL;
    }

    if (ngx_coord_giveback_nspare) {
        q = ngx_queue_head(&ngx_coord_giveback_spare);
        entry = ngx_queue_data(q, ngx_coord_giveback_entry_t, queue);

        ngx_queue_remove(q);
        ngx_coord_giveback_nspare--;

    } else {
        entry = ngx_alloc(sizeof(ngx_coord_giveback_entry_t), ngx_cycle->log);

        if (entry == NULL) {
            return NULL;
        }
    }

    gb->nentries++;

    return entry;
}


/* it is certain, or over */

static void
ngx_coord_giveback_end(ngx_coord_giveback_t *gb,
    ngx_coord_giveback_entry_t *entry)
{
    ngx_coord_journal_remove(&entry->op);

    gb->nentries--;

    if (ngx_coord_giveback_nspare >= NGX_COORD_GIVEBACK_KEEP) {
        ngx_free(entry);
        return;
    }

    ngx_queue_insert_head(&ngx_coord_giveback_spare, &entry->queue);
    ngx_coord_giveback_nspare++;
}


static void
ngx_coord_giveback_post(ngx_event_t *ev)
{
    ngx_coord_giveback_t *gb = ev->data;

    ngx_coord_giveback_send(gb, &gb->due);
}


/* the next try of what is left over; what is over by now is dropped */

static void
ngx_coord_giveback_tick(ngx_event_t *ev)
{
    ngx_coord_giveback_t *gb = ngx_coord_timer_data(ev);

    ngx_uint_t                   ready;
    ngx_queue_t                 *q, *next, again;
    ngx_coord_nsec_t             now;
    ngx_coord_giveback_entry_t  *entry;

    ngx_queue_init(&again);

    now = ngx_coord_monotonic();
    ready = ngx_coord_store_ready(gb->store);

    for (q = ngx_queue_head(&gb->kept);
         q != ngx_queue_sentinel(&gb->kept);
         q = next)
    {
        next = ngx_queue_next(q);
        entry = ngx_queue_data(q, ngx_coord_giveback_entry_t, queue);

        if (now >= entry->until) {
            ngx_queue_remove(q);
            ngx_coord_giveback_end(gb, entry);

        } else if (ready && now >= entry->next) {
            ngx_queue_remove(q);
            ngx_queue_insert_tail(&again, q);
        }
    }

    ngx_coord_giveback_send(gb, &again);
    ngx_coord_giveback_schedule(gb);
}


static void
ngx_coord_giveback_schedule(ngx_coord_giveback_t *gb)
{
    if (ngx_queue_empty(&gb->kept)) {
        return;
    }

    gb->timer.event.cancelable = (ngx_coord_monotonic() > gb->stay);

    if (!gb->timer.event.timer_set) {
        ngx_coord_timer_start(&gb->timer, NGX_COORD_GIVEBACK_TICK);
    }
}


/* sends all of a queue, which is empty afterwards */

static void
ngx_coord_giveback_send(ngx_coord_giveback_t *gb, ngx_queue_t *queue)
{
    ngx_queue_t                 *q, sending;
    ngx_coord_batch_t           *batch;
    ngx_coord_giveback_entry_t  *entry;

    if (ngx_queue_empty(queue)) {
        return;
    }

    /* an answer that comes at once may lead to more */

    ngx_queue_init(&sending);
    ngx_queue_add(&sending, queue);
    ngx_queue_init(queue);

    batch = NULL;

    while (!ngx_queue_empty(&sending)) {
        q = ngx_queue_head(&sending);
        entry = ngx_queue_data(q, ngx_coord_giveback_entry_t, queue);

        ngx_queue_remove(q);

        if (batch && batch->nops == NGX_COORD_GIVEBACK_BATCH) {
            ngx_coord_giveback_batch(gb, batch);
            batch = NULL;
        }

        if (batch == NULL) {
            batch = ngx_coord_batch_create(gb->store);
        }

        if (batch == NULL || ngx_coord_giveback_push(batch, entry) != NGX_OK) {
            ngx_coord_giveback_tell(entry);
            ngx_coord_giveback_keep(gb, entry, NGX_COORD_GIVEBACK_TICK);
        }
    }

    if (batch) {
        ngx_coord_giveback_batch(gb, batch);
    }
}


static void
ngx_coord_giveback_batch(ngx_coord_giveback_t *gb, ngx_coord_batch_t *batch)
{
    if (batch->nops == 0) {
        ngx_coord_batch_leave(batch);
        return;
    }

    batch->handler = ngx_coord_giveback_answered;
    batch->data = gb;

    if (ngx_coord_batch_send(batch) == NGX_OK) {
        ngx_coord_giveback_answered(batch);
    }
}


static ngx_int_t
ngx_coord_giveback_push(ngx_coord_batch_t *batch,
    ngx_coord_giveback_entry_t *entry)
{
    ngx_coord_op_t  *op, *give;

    give = &entry->op;

    op = ngx_coord_batch_add(batch, give->type, give->zone, give->key,
                             give->key_len);
    if (op == NULL) {
        return NGX_ERROR;
    }

    op->u = give->u;
    op->source = give->source;
    op->data = entry;

    ngx_memcpy(op->id, give->id, NGX_COORD_ID_LEN);

    return NGX_OK;
}


static void
ngx_coord_giveback_answered(ngx_coord_batch_t *batch)
{
    ngx_uint_t             i;
    ngx_coord_giveback_t  *gb;

    gb = batch->data;

    for (i = 0; i < batch->nops; i++) {
        ngx_coord_giveback_answer(gb, batch->ops[i].data, &batch->ops[i]);
    }

    ngx_coord_batch_leave(batch);
}


static void
ngx_coord_giveback_answer(ngx_coord_giveback_t *gb,
    ngx_coord_giveback_entry_t *entry, ngx_coord_op_t *op)
{
    ngx_coord_giveback_tell(entry);

    if (op->rc == NGX_ERROR) {

        /* of several questions those that were answered are not asked again */

        entry->op.type = op->type;
        entry->op.u = op->u;

        /* it may have been done */

        if (op->gone && !(op->type->flags & NGX_COORD_OP_TWICE)) {
            ngx_coord_giveback_end(gb, entry);
            return;
        }

        ngx_coord_giveback_keep(gb, entry, NGX_COORD_GIVEBACK_TICK);
        return;
    }

    if (op->rc == NGX_DECLINED
        && entry->doubt
        && entry->tries < NGX_COORD_GIVEBACK_TRIES)
    {
        ngx_coord_giveback_keep(gb, entry,
                                NGX_COORD_GIVEBACK_TICK << entry->tries++);
        return;
    }

    ngx_coord_giveback_end(gb, entry);
}


/* to who waits for it, once */

static void
ngx_coord_giveback_tell(ngx_coord_giveback_entry_t *entry)
{
    ngx_coord_giveback_wait_t  *wait;

    wait = entry->wait;

    if (wait) {
        entry->wait = NULL;
        wait->entry = NULL;

        wait->handler(wait->data);
    }
}


/* to be sent in delay milliseconds, when the store answers then */

static void
ngx_coord_giveback_keep(ngx_coord_giveback_t *gb,
    ngx_coord_giveback_entry_t *entry, ngx_msec_t delay)
{
    ngx_coord_nsec_t  now, left;

    now = ngx_coord_monotonic();
    left = entry->until - now;

    if (left <= 0) {
        ngx_coord_giveback_end(gb, entry);
        return;
    }

    entry->next = now + (ngx_coord_nsec_t) delay * NGX_COORD_NSEC_PER_MSEC;

    /* should this process be killed, its successor does it */

    ngx_coord_journal_add(&entry->op, left);

    gb->stay = ngx_max(gb->stay, entry->since + NGX_COORD_GIVEBACK_STAY);

    ngx_queue_insert_tail(&gb->kept, &entry->queue);
    ngx_coord_giveback_schedule(gb);
}


void
ngx_coord_giveback_exit(ngx_coord_store_t *store)
{
    ngx_queue_t                 *q;
    ngx_coord_nsec_t             now;
    ngx_coord_batch_t           *batch;
    ngx_coord_giveback_t        *gb;
    ngx_coord_giveback_entry_t  *entry;

    gb = store->giveback;

    if (gb == NULL) {
        return;
    }

    store->giveback = NULL;

    ngx_coord_timer_stop(&gb->timer);

    if (gb->post.posted) {
        ngx_delete_posted_event(&gb->post);
    }

    ngx_queue_add(&gb->due, &gb->kept);

    now = ngx_coord_monotonic();
    batch = NULL;

    while (!ngx_queue_empty(&gb->due)) {
        q = ngx_queue_head(&gb->due);
        entry = ngx_queue_data(q, ngx_coord_giveback_entry_t, queue);

        ngx_queue_remove(q);

        if (batch && batch->nops == NGX_COORD_GIVEBACK_BATCH) {
            (void) ngx_coord_batch_send(batch);
            batch = NULL;
        }

        if (batch == NULL) {
            batch = ngx_coord_batch_create(store);
        }

        if (batch) {
            (void) ngx_coord_giveback_push(batch, entry);
        }

        /* no answer will tell that it is done: a successor sends it, too */

        if (entry->until > now) {
            ngx_coord_journal_add(&entry->op, entry->until - now);
        }

        ngx_free(entry);
    }

    if (batch) {
        (void) ngx_coord_batch_send(batch);
    }

    ngx_free(gb);
}
