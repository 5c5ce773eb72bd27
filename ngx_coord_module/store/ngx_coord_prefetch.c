
/*
 * Copyright (C) ngx_coord_module contributors
 */


#include "ngx_coord_deny.h"
#include "ngx_coord_prefetch.h"
#include "ngx_coord_timer.h"


/* what is not used by then is given back, or about to lapse */
#define NGX_COORD_PREFETCH_DUE   (7 * NGX_COORD_NSEC_PER_SEC)

/* for so long it is there, should the worker that gives it back be held up */
#define NGX_COORD_PREFETCH_LIFE  (15 * NGX_COORD_NSEC_PER_SEC)

/* milliseconds: blocks are looked at so often */
#define NGX_COORD_PREFETCH_TICK  500

/* blocks of a worker that may have to be given back */
#define NGX_COORD_PREFETCH_KEPT  4096


/*
 * payload[0] is the time when the last place has drained, or, without a block,
 * when the key was last seen; payload[1] the rest: whose it is, whether the
 * next block is on its way, how many places it had, were used, and are left.
 */

#define NGX_COORD_BLOCK_MASK     0xfff
#define NGX_COORD_BLOCK_ASKED    ((uint64_t) 1 << 36)

#define ngx_coord_block_kind(w)  ((uint32_t) ((w) >> 37))
#define ngx_coord_block_size(w)  ((ngx_uint_t) ((w) >> 24 & 0xfff))
#define ngx_coord_block_used(w)  ((ngx_uint_t) ((w) >> 12 & 0xfff))
#define ngx_coord_block_left(w)  ((ngx_uint_t) ((w) & 0xfff))

#define ngx_coord_block_word(kind, size, used, left)                          \
    ((uint64_t) (kind) << 37 | (uint64_t) (size) << 24                        \
     | (uint64_t) (used) << 12 | (left))

/* a first block shall let in so many requests as are expected meanwhile */
#define NGX_COORD_PREFETCH_WORTH  8

/* of the largest block: the part that is left when the next one is asked for */
#define NGX_COORD_PREFETCH_AHEAD  4

/* cells that are looked at while the lock is held */
#define NGX_COORD_PREFETCH_CELLS  1024


/* the blob of a block: what giving it back needs to know of its caller */
typedef struct {
    ngx_coord_nsec_t           interval;
    ngx_uint_t                 burst;
} ngx_coord_prefetch_rate_t;


/* a block that takes long to lapse */
typedef struct {
    ngx_queue_t                queue;
    ngx_coord_op_t             op;            /* its mark: the block's */
    ngx_coord_nsec_t           due;           /* monotonic */
} ngx_coord_prefetch_kept_t;


static ngx_uint_t ngx_coord_prefetch_usable(uint64_t *payload,
    ngx_coord_nsec_t interval, ngx_coord_nsec_t now);
static ngx_uint_t ngx_coord_prefetch_size(ngx_coord_zone_t *zone,
    uint64_t *payload, ngx_coord_nsec_t interval, ngx_coord_nsec_t now);
static ngx_uint_t ngx_coord_prefetch_ask(ngx_coord_op_t *op,
    ngx_coord_entry_t *entry, uint32_t kind, ngx_coord_nsec_t now);
static ngx_uint_t ngx_coord_prefetch_grant(ngx_coord_op_t *op,
    ngx_coord_entry_t *entry, uint32_t kind, ngx_uint_t usable);
static ngx_coord_entry_t *ngx_coord_prefetch_write(ngx_coord_table_t *table,
    ngx_coord_entry_t *entry, ngx_coord_op_t *op, const uint64_t *payload,
    ngx_coord_nsec_t clock);
static void ngx_coord_prefetch_adopt(ngx_coord_table_t *table,
    ngx_coord_entry_t *entry, ngx_coord_zone_t *zone);
static void ngx_coord_prefetch_keep(ngx_coord_op_t *op, ngx_coord_nsec_t mark,
    ngx_coord_nsec_t due);
static void ngx_coord_prefetch_tick(ngx_event_t *ev);
static void ngx_coord_prefetch_give(ngx_coord_op_t *op);
static void ngx_coord_prefetch_return(ngx_coord_op_t *op,
    ngx_coord_nsec_t mark, ngx_uint_t left);


static ngx_queue_t        ngx_coord_prefetch_kept;
static ngx_uint_t         ngx_coord_prefetch_nkept;
static ngx_coord_timer_t  ngx_coord_prefetch_timer;


/* places that have not begun to drain */

static ngx_uint_t
ngx_coord_prefetch_usable(uint64_t *payload, ngx_coord_nsec_t interval,
    ngx_coord_nsec_t now)
{
    ngx_uint_t        left;
    ngx_coord_nsec_t  n;

    left = ngx_coord_block_left(payload[1]);
    n = ((ngx_coord_nsec_t) payload[0] - now) / interval;

    if (n <= 0) {
        return 0;
    }

    return ngx_min(left, (ngx_uint_t) n);
}


/*
 * Of the next block, by what became of the last one.  A place lapses an
 * interval of the rate after the one before it, so a block that is to last for
 * some requests of a key that does not reach its rate has to be larger than
 * their number.  0: not worth it.
 */

static ngx_uint_t
ngx_coord_prefetch_size(ngx_coord_zone_t *zone, uint64_t *payload,
    ngx_coord_nsec_t interval, ngx_coord_nsec_t now)
{
    ngx_uint_t        size, used;
    ngx_coord_nsec_t  gap;

    size = ngx_coord_block_size(payload[1]);
    used = ngx_coord_block_used(payload[1]);

    if (size == 0) {
        gap = ngx_max(now - (ngx_coord_nsec_t) payload[0], 0);
        gap = ngx_min(gap, NGX_COORD_NSEC_PER_SEC);

        gap = NGX_COORD_PREFETCH_WORTH * gap / interval;

        return gap < (ngx_coord_nsec_t) zone->prefetch
               ? (ngx_uint_t) gap + 1 : 0;
    }

    /* a block may lapse on its way, where Redis is far or the node is busy */

    if (size >= zone->prefetch && used < 2) {
        return 0;
    }

    return ngx_min(2 * size + 1, zone->prefetch);
}


/* one request asks for the next block, with what it needs itself */

static ngx_uint_t
ngx_coord_prefetch_ask(ngx_coord_op_t *op, ngx_coord_entry_t *entry,
    uint32_t kind, ngx_coord_nsec_t now)
{
    ngx_uint_t        asked, size, usable;
    ngx_coord_nsec_t  expires;

    asked = (entry->payload[1] & NGX_COORD_BLOCK_ASKED) != 0;

    /* less than this request needs, and not less than another one may */

    usable = ngx_coord_prefetch_usable(entry->payload, op->u.rate.interval,
                                       now);

    /* should the answer be lost, all begins anew */

    if (usable == 0) {
        expires = ngx_coord_monotonic() + NGX_COORD_NSEC_PER_SEC;

        if (!asked || expires < entry->expires) {
            entry->expires = expires;
        }
    }

    if (asked) {
        return 0;
    }

    size = ngx_coord_prefetch_size(op->zone, entry->payload,
                                   op->u.rate.interval, now);

    if (size) {
        entry->payload[1] |= NGX_COORD_BLOCK_ASKED;
        return size;
    }

    if (usable) {
        return 0;
    }

    entry->payload[1] = ngx_coord_block_word(kind, 0, 0, 0);
    ngx_coord_table_commit();

    entry->payload[0] = (uint64_t) now;

    return 0;
}


/* takes the places of op from those that are usable: is the next block due */

static ngx_uint_t
ngx_coord_prefetch_grant(ngx_coord_op_t *op, ngx_coord_entry_t *entry,
    uint32_t kind, ngx_uint_t usable)
{
    uint64_t    asked;
    ngx_uint_t  left, size, used, due;

    asked = entry->payload[1] & NGX_COORD_BLOCK_ASKED;
    size = ngx_coord_block_size(entry->payload[1]);
    used = ngx_coord_block_used(entry->payload[1]) + op->u.rate.cost;
    left = usable - op->u.rate.cost;

    due = asked == 0
          && size == op->zone->prefetch
          && left < size / NGX_COORD_PREFETCH_AHEAD;

    if (due) {
        asked = NGX_COORD_BLOCK_ASKED;
    }

    entry->payload[1] = asked | ngx_coord_block_word(kind, size, used, left);

    return due ? size : 0;
}


ngx_int_t
ngx_coord_prefetch_take(ngx_coord_op_t *op, uint32_t kind,
    ngx_coord_nsec_t now, ngx_uint_t ask, ngx_coord_nsec_t *held,
    ngx_uint_t *extra)
{
    uint64_t            payload[2], word;
    ngx_uint_t          usable;
    ngx_coord_rate_t   *rate;
    ngx_coord_nsec_t    clock;
    ngx_coord_entry_t  *entry;
    ngx_coord_table_t  *table;

    rate = &op->u.rate;
    table = ngx_coord_zone_lock(op->zone);

    if (table == NULL) {
        return NGX_AGAIN;
    }

    clock = ngx_coord_turn_time();

    entry = ngx_coord_table_find(table, NGX_COORD_KIND_BLOCK, op->key,
                                 op->key_len, clock);

    if (entry == NULL && !ask) {
        ngx_coord_zone_unlock(op->zone);
        return NGX_AGAIN;
    }

    if (entry == NULL) {

        /* the first request of the key */

        payload[0] = (uint64_t) now;
        payload[1] = ngx_coord_block_word(kind, 0, 0, 0);

        (void) ngx_coord_table_insert(table, NGX_COORD_KIND_BLOCK,
                                      NGX_COORD_ENTRY_EVICT, op->key,
                                      op->key_len, payload,
                                      clock + NGX_COORD_NSEC_PER_SEC, clock);

        ngx_coord_zone_unlock(op->zone);
        return NGX_AGAIN;
    }

    word = entry->payload[1];

    if (ngx_coord_block_kind(word) != kind) {
        ngx_coord_zone_unlock(op->zone);
        return NGX_AGAIN;
    }

    usable = ngx_coord_prefetch_usable(entry->payload, rate->interval, now);

    if (usable >= rate->cost) {
        *held = (ngx_coord_nsec_t) entry->payload[0] - now
                - (ngx_coord_nsec_t) usable * rate->interval;

        *extra = ngx_coord_prefetch_grant(op, entry, kind, usable);

        table->near[1]++;

        ngx_coord_zone_unlock(op->zone);
        return NGX_OK;
    }

    if (ask) {
        *extra = ngx_coord_prefetch_ask(op, entry, kind, now);
    }

    ngx_coord_zone_unlock(op->zone);

    return NGX_AGAIN;
}


void
ngx_coord_prefetch_put(ngx_coord_op_t *op, uint32_t kind, ngx_coord_nsec_t now,
    ngx_coord_nsec_t mark, ngx_uint_t extra)
{
    uint64_t            payload[2];
    ngx_uint_t          left;
    ngx_coord_nsec_t    clock, old;
    ngx_coord_entry_t  *entry;
    ngx_coord_table_t  *table;

    table = ngx_coord_zone_lock(op->zone);

    if (table == NULL) {
        return;
    }

    old = 0;
    left = 0;
    clock = ngx_coord_monotonic();

    entry = ngx_coord_table_find(table, NGX_COORD_KIND_BLOCK, op->key,
                                 op->key_len, clock);
    if (entry) {
        old = (ngx_coord_nsec_t) entry->payload[0];
        left = ngx_coord_prefetch_usable(entry->payload, op->u.rate.interval,
                                         now);
    }

    if (left && mark == 0) {
        entry->payload[1] = ngx_coord_block_word(kind, extra / 4,
                                 ngx_coord_block_used(entry->payload[1]),
                                 ngx_coord_block_left(entry->payload[1]));

        ngx_coord_zone_unlock(op->zone);
        return;
    }

    /* what is given back has stood before this: the bucket drains earlier */

    if (left) {
        mark -= (ngx_coord_nsec_t) left * op->u.rate.interval;
    }

    /* where there was no room the next one is half as large */

    payload[0] = (uint64_t) (mark ? mark : now);
    payload[1] = mark ? ngx_coord_block_word(kind, extra, 0, extra)
                      : ngx_coord_block_word(kind, extra / 4, extra / 4, 0);

    entry = ngx_coord_prefetch_write(table, entry, op, payload, clock);

    ngx_coord_zone_unlock(op->zone);

    if (left) {
        ngx_coord_prefetch_return(op, old, left);
    }

    if (mark == 0) {
        return;
    }

    if (entry == NULL) {
        ngx_coord_prefetch_return(op, mark, extra);

    } else if (mark - now > NGX_COORD_PREFETCH_DUE + NGX_COORD_NSEC_PER_SEC) {
        ngx_coord_prefetch_keep(op, mark, clock + NGX_COORD_PREFETCH_DUE);
    }
}


/* NULL: there is no room for it, and no entry any more */

static ngx_coord_entry_t *
ngx_coord_prefetch_write(ngx_coord_table_t *table, ngx_coord_entry_t *entry,
    ngx_coord_op_t *op, const uint64_t *payload, ngx_coord_nsec_t clock)
{
    ngx_coord_nsec_t           expires;
    ngx_coord_prefetch_rate_t  rate;

    expires = clock + NGX_COORD_PREFETCH_LIFE;

    rate.interval = op->u.rate.interval;
    rate.burst = op->u.rate.burst;

    if (entry) {
        entry->payload[1] &= ~(uint64_t) NGX_COORD_BLOCK_MASK;
        ngx_coord_table_commit();

        entry->payload[0] = payload[0];
        entry->expires = expires;

    } else {
        entry = ngx_coord_table_insert(table, NGX_COORD_KIND_BLOCK,
                                       NGX_COORD_ENTRY_EVICT, op->key,
                                       op->key_len, NULL, expires, clock);
        if (entry == NULL) {
            return NULL;
        }

        entry->payload[0] = payload[0];
    }

    if (ngx_coord_table_write(table, entry, (u_char *) &rate, sizeof(rate),
                              clock)
        != NGX_OK)
    {
        return NULL;
    }

    ngx_coord_table_commit();

    entry->payload[1] = payload[1];

    if (table->denied < (uint64_t) expires) {
        table->denied = (uint64_t) expires;
    }

    return entry;
}


void
ngx_coord_prefetch_watch(ngx_coord_zone_t *zone)
{
    uint32_t            cell, last, ncells;
    ngx_coord_nsec_t    now;
    ngx_coord_entry_t  *entry;
    ngx_coord_table_t  *table;

    cell = 0;

    do {
        table = ngx_coord_zone_lock(zone);

        if (table == NULL) {
            return;
        }

        now = ngx_coord_monotonic();
        ncells = table->nused;
        last = ngx_min(ncells, cell + NGX_COORD_PREFETCH_CELLS);

        while (cell < last) {

            entry = &ngx_coord_table_cells(table)[++cell].head;

            if (entry->state == NGX_COORD_CELL_HEAD
                && entry->tag == NGX_COORD_KIND_BLOCK
                && entry->expires > now
                && ngx_coord_block_left(entry->payload[1]))
            {
                ngx_coord_prefetch_adopt(table, entry, zone);
            }
        }

        ngx_coord_zone_unlock(zone);

    } while (cell < ncells);
}


static void
ngx_coord_prefetch_adopt(ngx_coord_table_t *table, ngx_coord_entry_t *entry,
    ngx_coord_zone_t *zone)
{
    ngx_coord_op_t             op;
    ngx_coord_bucket_t         bucket;
    ngx_coord_prefetch_rate_t  rate;

    if (ngx_coord_table_read(table, entry, (u_char *) &rate, 0, sizeof(rate))
        != sizeof(rate))
    {
        return;
    }

    ngx_memzero(&op, sizeof(ngx_coord_op_t));

    op.type = &ngx_coord_op_bucket_take;
    op.zone = zone;
    op.key_len = entry->key_len;
    op.u.rate.interval = rate.interval;
    op.u.rate.burst = rate.burst;

    ngx_memcpy(op.key, entry->key, op.key_len);

    (void) ngx_coord_bucket_init(&bucket, &op.u.rate);

    op.u.rate.reset = bucket.total;

    ngx_coord_prefetch_keep(&op, (ngx_coord_nsec_t) entry->payload[0],
                            entry->expires - NGX_COORD_PREFETCH_LIFE
                            + NGX_COORD_PREFETCH_DUE);
}


/* to be given back when it is due; they stand in this order */

static void
ngx_coord_prefetch_keep(ngx_coord_op_t *op, ngx_coord_nsec_t mark,
    ngx_coord_nsec_t due)
{
    ngx_queue_t                *q;
    ngx_coord_prefetch_kept_t  *kept, *other;

    if (ngx_coord_prefetch_timer.event.handler == NULL
        || ngx_coord_prefetch_nkept >= NGX_COORD_PREFETCH_KEPT)
    {
        return;
    }

    kept = ngx_alloc(sizeof(ngx_coord_prefetch_kept_t), ngx_cycle->log);

    if (kept == NULL) {
        return;
    }

    kept->op = *op;
    kept->op.u.rate.mark = mark;
    kept->op.blob = NULL;
    kept->op.record.data = NULL;
    kept->due = due;

    for (q = ngx_queue_last(&ngx_coord_prefetch_kept);
         q != ngx_queue_sentinel(&ngx_coord_prefetch_kept);
         q = ngx_queue_prev(q))
    {
        other = ngx_queue_data(q, ngx_coord_prefetch_kept_t, queue);

        if (other->due <= kept->due) {
            break;
        }
    }

    ngx_queue_insert_after(q, &kept->queue);
    ngx_coord_prefetch_nkept++;

    if (!ngx_coord_prefetch_timer.event.timer_set) {
        ngx_coord_timer_start(&ngx_coord_prefetch_timer,
                              NGX_COORD_PREFETCH_TICK);
    }
}


static void
ngx_coord_prefetch_tick(ngx_event_t *ev)
{
    ngx_queue_t                *q;
    ngx_coord_nsec_t            now;
    ngx_coord_prefetch_kept_t  *kept;

    now = ngx_coord_monotonic();

    while (!ngx_queue_empty(&ngx_coord_prefetch_kept)) {
        q = ngx_queue_head(&ngx_coord_prefetch_kept);
        kept = ngx_queue_data(q, ngx_coord_prefetch_kept_t, queue);

        if (kept->due > now) {
            ngx_coord_timer_start(&ngx_coord_prefetch_timer,
                                  NGX_COORD_PREFETCH_TICK);
            return;
        }

        ngx_queue_remove(q);
        ngx_coord_prefetch_nkept--;

        ngx_coord_prefetch_give(&kept->op);

        ngx_free(kept);
    }
}


/* what is left of the block, if it is still that one */

static void
ngx_coord_prefetch_give(ngx_coord_op_t *op)
{
    ngx_uint_t          left;
    ngx_coord_entry_t  *entry;
    ngx_coord_table_t  *table;

    left = 0;
    table = ngx_coord_zone_lock(op->zone);

    if (table == NULL) {
        return;
    }

    entry = ngx_coord_table_find(table, NGX_COORD_KIND_BLOCK, op->key,
                                 op->key_len, ngx_coord_monotonic());

    if (entry && (ngx_coord_nsec_t) entry->payload[0] == op->u.rate.mark) {
        left = ngx_coord_block_left(entry->payload[1]);
        entry->payload[1] &= ~(uint64_t) NGX_COORD_BLOCK_MASK;
    }

    ngx_coord_zone_unlock(op->zone);

    if (left) {
        ngx_coord_prefetch_return(op, op->u.rate.mark, left);
    }
}


/* the last left places of those that have drained at mark */

static void
ngx_coord_prefetch_return(ngx_coord_op_t *op, ngx_coord_nsec_t mark,
    ngx_uint_t left)
{
    ngx_coord_op_t  give;

    give = *op;

    give.rc = NGX_OK;
    give.source = NGX_COORD_SOURCE_REDIS;
    give.u.rate.mark = mark;
    give.u.rate.cost = left;

    ngx_coord_op_undo(&give);
}


void
ngx_coord_prefetch_init(ngx_cycle_t *cycle)
{
    ngx_queue_init(&ngx_coord_prefetch_kept);
    ngx_coord_prefetch_nkept = 0;

    ngx_coord_timer_init(&ngx_coord_prefetch_timer, ngx_coord_prefetch_tick,
                         NULL, cycle->log);
    ngx_coord_prefetch_timer.event.cancelable = 1;
}


/* nobody else knows when what is left is to be given back */

void
ngx_coord_prefetch_exit(void)
{
    ngx_queue_t                *q;
    ngx_coord_prefetch_kept_t  *kept;

    if (ngx_coord_prefetch_timer.event.handler == NULL) {
        return;
    }

    ngx_coord_timer_stop(&ngx_coord_prefetch_timer);
    ngx_coord_prefetch_timer.event.handler = NULL;

    while (!ngx_queue_empty(&ngx_coord_prefetch_kept)) {
        q = ngx_queue_head(&ngx_coord_prefetch_kept);
        kept = ngx_queue_data(q, ngx_coord_prefetch_kept_t, queue);

        ngx_queue_remove(q);

        ngx_coord_prefetch_give(&kept->op);

        ngx_free(kept);
    }
}
