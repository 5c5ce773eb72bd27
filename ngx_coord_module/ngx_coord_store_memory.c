
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The operations of the store in the shared memory of a zone: the memory
 * store, and what on_failure=local falls back to.
 *
 * How each kind of state lies in a table entry:
 *
 *   bucket     payload[0]: the theoretical arrival time
 *   window     payload[0]: the end; payload[1]: used places
 *   sliding    payload[index & 1]: index in the high half, count in the low
 *   log, lease data cells with slots: a time and an id; time 0: free slot
 */


#include "ngx_coord_store.h"
#include "ngx_coord_rate.h"
#include "ngx_coord_table.h"


/* a log entry or a lease; at counts, and is therefore written last */
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
    ngx_coord_slot_t          *free;      /* a free slot */
    ngx_coord_data_t          *tail;
} ngx_coord_slots_t;


typedef ngx_int_t (*ngx_coord_memory_op_pt)(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);


static ngx_int_t ngx_coord_memory_send(ngx_coord_batch_t *batch);
static ngx_coord_entry_t *ngx_coord_memory_find(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_coord_entry_t *ngx_coord_memory_insert(ngx_coord_table_t *table,
    ngx_coord_op_t *op, uint64_t *payload, ngx_coord_nsec_t expires,
    ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_memory_bucket_take(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_memory_bucket_give(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_memory_window_take(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_memory_window_give(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_memory_sliding_take(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_memory_sliding_give(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static int64_t ngx_coord_memory_count(uint64_t *payload, int64_t index);
static void ngx_coord_memory_slots(ngx_coord_table_t *table,
    ngx_coord_entry_t *entry, const u_char *id, ngx_coord_nsec_t gone,
    ngx_coord_slots_t *slots);
static ngx_int_t ngx_coord_memory_slot_add(ngx_coord_table_t *table,
    ngx_coord_entry_t *entry, ngx_coord_op_t *op, ngx_coord_slots_t *slots,
    ngx_coord_nsec_t at, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_memory_slot_remove(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t gone, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_memory_log_take(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_memory_log_give(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_memory_lease_acquire(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_memory_lease_renew(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_memory_lease_release(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_memory_create(ngx_shm_zone_t *shm_zone,
    ngx_coord_zone_t *zone, ngx_str_t *name);


const ngx_coord_store_actions_t  ngx_coord_store_memory_actions = {
    NULL,
    NULL,
    ngx_coord_memory_send
};


/* in the order of ngx_coord_op_e */

static const ngx_coord_memory_op_pt  ngx_coord_memory_ops[] = {
    ngx_coord_memory_bucket_take,
    ngx_coord_memory_bucket_give,
    ngx_coord_memory_window_take,
    ngx_coord_memory_window_give,
    ngx_coord_memory_sliding_take,
    ngx_coord_memory_sliding_give,
    ngx_coord_memory_log_take,
    ngx_coord_memory_log_give,
    ngx_coord_memory_lease_acquire,
    ngx_coord_memory_lease_renew,
    ngx_coord_memory_lease_release
};


static ngx_int_t
ngx_coord_memory_send(ngx_coord_batch_t *batch)
{
    ngx_uint_t  i;

    for (i = 0; i < batch->nops; i++) {
        ngx_coord_memory_run(&batch->ops[i]);
        batch->ops[i].source = NGX_COORD_SOURCE_MEMORY;
    }

    return NGX_OK;
}


void
ngx_coord_memory_run(ngx_coord_op_t *op)
{
    uint32_t            second;
    ngx_log_t          *log;
    ngx_uint_t          repaired;
    ngx_slab_pool_t    *shpool;
    ngx_coord_nsec_t    now;
    ngx_coord_table_t  *table;

    table = op->zone->table;
    log = ngx_cycle->log;

    if (table == NULL) {
        op->rc = NGX_ERROR;
        return;
    }

    shpool = (ngx_slab_pool_t *) op->zone->shm_zone->shm.addr;

    ngx_shmtx_lock(&shpool->mutex);

    repaired = ngx_coord_table_enter(table);

    /* under the lock, so that the clock never runs back */

    now = ngx_coord_monotonic();

    op->rc = ngx_coord_memory_ops[op->type](table, op, now);

    second = 0;

    if (op->rc == NGX_ERROR) {
        second = (uint32_t) (now / NGX_COORD_NSEC_PER_SEC) + 1;
        second = (table->logged == second) ? 0 : second;

        if (second) {
            table->logged = second;
        }
    }

    ngx_coord_table_leave(table);

    ngx_shmtx_unlock(&shpool->mutex);

    if (repaired) {
        ngx_log_error(NGX_LOG_WARN, log, 0,
                      "coord zone \"%V\" was left locked by a dead process "
                      "and has been repaired", &op->zone->name);
    }

    if (second) {
        ngx_log_error(NGX_LOG_ERR, log, 0,
                      "could not allocate an entry in coord zone \"%V\"",
                      &op->zone->name);
    }
}


/* kinds of state have tags of their own: a key may have several */

static ngx_coord_entry_t *
ngx_coord_memory_find(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_uint_t  tag;

    tag = (op->type >= NGX_COORD_OP_LEASE_ACQUIRE)
          ? NGX_COORD_OP_LEASE_ACQUIRE : op->type & ~1;

    return ngx_coord_table_find(table, tag, op->key, op->key_len, now);
}


static ngx_coord_entry_t *
ngx_coord_memory_insert(ngx_coord_table_t *table, ngx_coord_op_t *op,
    uint64_t *payload, ngx_coord_nsec_t expires, ngx_coord_nsec_t now)
{
    ngx_uint_t  flags;

    flags = (op->type == NGX_COORD_OP_LEASE_ACQUIRE) ? 0
                                                     : NGX_COORD_ENTRY_EVICT;

    return ngx_coord_table_insert(table, op->type, flags, op->key,
                                  op->key_len, payload, expires, now);
}


static ngx_int_t
ngx_coord_memory_bucket_take(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    uint64_t             payload[2];
    ngx_int_t            rc;
    ngx_coord_rate_t    *rate;
    ngx_coord_nsec_t     tat;
    ngx_coord_entry_t   *entry;
    ngx_coord_bucket_t   bucket;

    rate = &op->u.rate;

    if (ngx_coord_bucket_init(&bucket, rate) != NGX_OK) {
        return ngx_coord_rate_never(rate);
    }

    entry = ngx_coord_memory_find(table, op, now);
    tat = entry ? (ngx_coord_nsec_t) entry->payload[0] : now;

    rc = ngx_coord_bucket_answer(&bucket, rate, tat - now);

    if (rc != NGX_OK) {
        rate->mark = tat;
        return rc;
    }

    rate->mark = now + rate->reset;

    if (entry) {
        entry->expires = rate->mark;
        entry->payload[0] = (uint64_t) rate->mark;
        return NGX_OK;
    }

    payload[0] = (uint64_t) rate->mark;
    payload[1] = 0;

    entry = ngx_coord_memory_insert(table, op, payload, rate->mark, now);

    return entry ? NGX_OK : NGX_ERROR;
}


static ngx_int_t
ngx_coord_memory_bucket_give(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_nsec_t    tat, refund;
    ngx_coord_entry_t  *entry;

    entry = ngx_coord_memory_find(table, op, now);

    if (entry == NULL) {
        return NGX_OK;
    }

    refund = ngx_coord_bucket_refund(&op->u.rate, now);
    tat = (ngx_coord_nsec_t) entry->payload[0] - refund;

    if (tat <= now) {
        ngx_coord_table_remove(table, entry);
        return NGX_OK;
    }

    entry->payload[0] = (uint64_t) tat;
    entry->expires = tat;

    return NGX_OK;
}


static ngx_int_t
ngx_coord_memory_window_take(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    int64_t              used;
    uint64_t             payload[2];
    ngx_coord_rate_t    *rate;
    ngx_coord_entry_t   *entry;
    ngx_coord_window_t   window;

    rate = &op->u.rate;

    if (ngx_coord_window_init(&window, rate) != NGX_OK) {
        return ngx_coord_rate_never(rate);
    }

    entry = ngx_coord_memory_find(table, op, now);

    if (entry == NULL) {
        rate->mark = now + window.length;

        payload[0] = (uint64_t) rate->mark;
        payload[1] = (uint64_t) window.cost;

        entry = ngx_coord_memory_insert(table, op, payload, rate->mark, now);

        if (entry == NULL) {
            return NGX_ERROR;
        }

        return ngx_coord_window_answer(&window, rate, NGX_OK, window.cost,
                                       window.length);
    }

    used = (int64_t) entry->payload[1];
    rate->mark = (ngx_coord_nsec_t) entry->payload[0];

    if (used > window.limit - window.cost) {
        return ngx_coord_window_answer(&window, rate, NGX_BUSY, used,
                                       rate->mark - now);
    }

    used += window.cost;
    entry->payload[1] = (uint64_t) used;

    return ngx_coord_window_answer(&window, rate, NGX_OK, used,
                                   rate->mark - now);
}


static ngx_int_t
ngx_coord_memory_window_give(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    int64_t              used;
    ngx_coord_entry_t   *entry;
    ngx_coord_window_t   window;

    entry = ngx_coord_memory_find(table, op, now);

    if (entry == NULL
        || (ngx_coord_nsec_t) entry->payload[0] != op->u.rate.mark)
    {
        return NGX_OK;
    }

    (void) ngx_coord_window_init(&window, &op->u.rate);

    used = (int64_t) entry->payload[1] - window.cost;
    entry->payload[1] = (uint64_t) ngx_max(used, 0);

    return NGX_OK;
}


static int64_t
ngx_coord_memory_count(uint64_t *payload, int64_t index)
{
    uint64_t  slot;

    slot = payload[index & 1];

    return (slot >> 32 == (uint32_t) index) ? (int64_t) (slot & 0xffffffff)
                                            : 0;
}


static ngx_int_t
ngx_coord_memory_sliding_take(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    int64_t               current, previous;
    uint64_t              slot, payload[2];
    ngx_int_t             rc;
    ngx_coord_nsec_t      expires;
    ngx_coord_rate_t     *rate;
    ngx_coord_entry_t    *entry;
    ngx_coord_window_t    window;
    ngx_coord_sliding_t   sliding;

    rate = &op->u.rate;

    if (ngx_coord_window_init(&window, rate) != NGX_OK) {
        return ngx_coord_rate_never(rate);
    }

    ngx_coord_sliding_init(&sliding, &window, now);

    rate->mark = sliding.index;

    entry = ngx_coord_memory_find(table, op, now);

    current = 0;
    previous = 0;

    if (entry) {
        current = ngx_coord_memory_count(entry->payload, sliding.index);
        previous = ngx_coord_memory_count(entry->payload, sliding.index - 1);
    }

    rc = ngx_coord_sliding_decide(&sliding, &window, current, previous);

    if (rc == NGX_OK) {
        current += window.cost;

        slot = (uint64_t) (uint32_t) sliding.index << 32
               | (uint64_t) current;
        expires = now - sliding.elapsed + 2 * window.length;

        if (entry) {
            entry->expires = expires;
            entry->payload[sliding.index & 1] = slot;

        } else {
            ngx_memzero(payload, sizeof(payload));
            payload[sliding.index & 1] = slot;

            entry = ngx_coord_memory_insert(table, op, payload, expires, now);

            if (entry == NULL) {
                return NGX_ERROR;
            }
        }
    }

    return ngx_coord_sliding_answer(&sliding, &window, rate, rc, current,
                                    previous);
}


static ngx_int_t
ngx_coord_memory_sliding_give(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    int64_t              count, index;
    ngx_coord_entry_t   *entry;
    ngx_coord_window_t   window;

    entry = ngx_coord_memory_find(table, op, now);

    if (entry == NULL) {
        return NGX_OK;
    }

    index = op->u.rate.mark;

    (void) ngx_coord_window_init(&window, &op->u.rate);

    count = ngx_coord_memory_count(entry->payload, index);
    count -= ngx_min(count, window.cost);

    if ((uint32_t) index == entry->payload[index & 1] >> 32) {
        entry->payload[index & 1] = (uint64_t) (uint32_t) index << 32
                                    | (uint64_t) count;
    }

    return NGX_OK;
}


/*
 * Walks the slots of an entry, frees those whose time is gone or before, and
 * the data cells in which no slot is left.
 */

static void
ngx_coord_memory_slots(ngx_coord_table_t *table, ngx_coord_entry_t *entry,
    const u_char *id, ngx_coord_nsec_t gone, ngx_coord_slots_t *slots)
{
    ngx_uint_t         i, used;
    ngx_coord_data_t  *data;
    ngx_coord_slot_t  *slot, *free;

    ngx_memzero(slots, sizeof(ngx_coord_slots_t));

    data = ngx_coord_table_first(table, entry);

    while (data) {
        slot = (ngx_coord_slot_t *) data->data;
        free = NULL;
        used = 0;

        for (i = 0; i < NGX_COORD_SLOTS; i++, slot++) {

            if (slot->at <= gone) {
                slot->at = 0;
            }

            if (slot->at == 0) {
                free = slot;
                continue;
            }

            if (slots->used + used == 0 || slot->at < slots->first) {
                slots->first = slot->at;
            }

            slots->last = ngx_max(slots->last, slot->at);

            if (ngx_memcmp(slot->id, id, NGX_COORD_ID_LEN) == 0) {
                slots->own = slot;
            }

            used++;
        }

        if (used == 0) {
            data = ngx_coord_table_drop(table, entry, slots->tail);
            continue;
        }

        if (free) {
            slots->free = free;
        }

        slots->used += used;
        slots->tail = data;

        data = ngx_coord_table_next(table, data);
    }
}


static ngx_int_t
ngx_coord_memory_slot_add(ngx_coord_table_t *table, ngx_coord_entry_t *entry,
    ngx_coord_op_t *op, ngx_coord_slots_t *slots, ngx_coord_nsec_t at,
    ngx_coord_nsec_t now)
{
    ngx_coord_data_t  *data;
    ngx_coord_slot_t  *slot;

    slot = slots->free;

    if (slot == NULL) {
        data = ngx_coord_table_add(table, entry, slots->tail, now);

        if (data == NULL) {
            return NGX_ERROR;
        }

        slot = (ngx_coord_slot_t *) data->data;
    }

    ngx_memcpy(slot->id, op->id, NGX_COORD_ID_LEN);

    ngx_coord_table_commit();

    slot->at = at;

    return NGX_OK;
}


static ngx_int_t
ngx_coord_memory_slot_remove(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t gone, ngx_coord_nsec_t now)
{
    ngx_coord_entry_t  *entry;
    ngx_coord_slots_t   slots;

    entry = ngx_coord_memory_find(table, op, now);

    if (entry == NULL) {
        return NGX_DECLINED;
    }

    ngx_coord_memory_slots(table, entry, op->id, gone, &slots);

    if (slots.own) {
        slots.own->at = 0;
        slots.used--;
    }

    if (slots.used == 0) {
        ngx_coord_table_remove(table, entry);
    }

    return slots.own ? NGX_OK : NGX_DECLINED;
}


static ngx_int_t
ngx_coord_memory_log_take(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_rate_t    *rate;
    ngx_coord_slots_t    slots;
    ngx_coord_entry_t   *entry;
    ngx_coord_window_t   window;

    rate = &op->u.rate;

    if (ngx_coord_window_init(&window, rate) != NGX_OK) {
        return ngx_coord_rate_never(rate);
    }

    entry = ngx_coord_memory_find(table, op, now);

    if (entry == NULL) {
        entry = ngx_coord_memory_insert(table, op, NULL, now + window.length,
                                        now);
        if (entry == NULL) {
            return NGX_ERROR;
        }
    }

    ngx_coord_memory_slots(table, entry, op->id, now - window.length, &slots);

    rate->mark = now;

    if (slots.used >= (ngx_uint_t) window.limit) {
        return ngx_coord_log_answer(&window, rate, NGX_BUSY, slots.used,
                                    slots.first, slots.last, now);
    }

    /* the entry first: it must outlive what it holds */

    entry->expires = ngx_max(entry->expires, now + window.length);

    if (ngx_coord_memory_slot_add(table, entry, op, &slots, now, now)
        != NGX_OK)
    {
        if (slots.used == 0) {
            ngx_coord_table_remove(table, entry);
        }

        return NGX_ERROR;
    }

    return ngx_coord_log_answer(&window, rate, NGX_OK, slots.used + 1,
                                slots.used ? slots.first : now, now, now);
}


static ngx_int_t
ngx_coord_memory_log_give(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_window_t  window;

    (void) ngx_coord_window_init(&window, &op->u.rate);
    (void) ngx_coord_memory_slot_remove(table, op, now - window.length, now);

    return NGX_OK;
}


static ngx_int_t
ngx_coord_memory_lease_acquire(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_nsec_t    expires;
    ngx_coord_lease_t  *lease;
    ngx_coord_slots_t   slots;
    ngx_coord_entry_t  *entry;

    lease = &op->u.lease;
    lease->current = 0;
    lease->retry = 0;

    if (lease->limit == 0) {
        return NGX_BUSY;
    }

    expires = now + ngx_min(ngx_max(lease->lease, NGX_COORD_NSEC_PER_MSEC),
                            NGX_COORD_RATE_SPAN);

    entry = ngx_coord_memory_find(table, op, now);

    if (entry == NULL) {
        entry = ngx_coord_memory_insert(table, op, NULL, expires, now);

        if (entry == NULL) {
            return NGX_ERROR;
        }
    }

    ngx_coord_memory_slots(table, entry, op->id, now, &slots);

    if (slots.used - (slots.own != NULL) >= lease->limit) {

        /* a limit that has been lowered may end the lease of who asks again */

        if (slots.own) {
            slots.own->at = 0;
            slots.used--;
        }

        lease->current = slots.used;
        lease->retry = ngx_max(slots.first - now, 1);
        return NGX_BUSY;
    }

    entry->expires = ngx_max(entry->expires, expires);

    ngx_coord_table_commit();

    if (slots.own) {
        slots.own->at = expires;
        lease->current = slots.used;
        return NGX_OK;
    }

    if (ngx_coord_memory_slot_add(table, entry, op, &slots, expires, now)
        != NGX_OK)
    {
        if (slots.used == 0) {
            ngx_coord_table_remove(table, entry);
        }

        return NGX_ERROR;
    }

    lease->current = slots.used + 1;

    return NGX_OK;
}


static ngx_int_t
ngx_coord_memory_lease_renew(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_nsec_t    expires;
    ngx_coord_slots_t   slots;
    ngx_coord_entry_t  *entry;

    entry = ngx_coord_memory_find(table, op, now);

    if (entry == NULL) {
        return NGX_BUSY;
    }

    /* a lease that has run out goes on if nobody has dropped it yet */

    ngx_coord_memory_slots(table, entry, op->id, 0, &slots);

    if (slots.own == NULL) {
        return NGX_BUSY;
    }

    expires = now + ngx_min(ngx_max(op->u.lease.lease,
                                    NGX_COORD_NSEC_PER_MSEC),
                            NGX_COORD_RATE_SPAN);

    entry->expires = ngx_max(entry->expires, expires);

    ngx_coord_table_commit();

    slots.own->at = expires;

    return NGX_OK;
}


static ngx_int_t
ngx_coord_memory_lease_release(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    (void) ngx_coord_memory_slot_remove(table, op, now, now);

    return NGX_OK;
}


ngx_int_t
ngx_coord_memory_init_zone(ngx_shm_zone_t *shm_zone, void *data)
{
    u_char             *p;
    ngx_str_t           name;
    ngx_slab_pool_t    *shpool;
    ngx_coord_zone_t   *zone, *ozone;
    ngx_coord_table_t  *table;
    u_char              buf[NGX_COORD_TABLE_NAME_LEN];

    zone = shm_zone->data;
    zone->shm_zone = shm_zone;
    ozone = data;

    if (ozone) {

        if (ozone->type.len != zone->type.len
            || ngx_strncmp(ozone->type.data, zone->type.data, zone->type.len)
               != 0)
        {
            ngx_log_error(NGX_LOG_EMERG, shm_zone->shm.log, 0,
                          "coord zone \"%V\" is of type \"%V\" while it was "
                          "previously of type \"%V\"",
                          &zone->name, &zone->type, &ozone->type);
            return NGX_ERROR;
        }

        zone->table = ozone->table;

        return NGX_OK;
    }

    ngx_memzero(buf, sizeof(buf));

    p = ngx_snprintf(buf, sizeof(buf), "%V:%V", &zone->type, &zone->name);

    name.len = p - buf;
    name.data = buf;

    if (!shm_zone->shm.exists) {
        return ngx_coord_memory_create(shm_zone, zone, &name);
    }

    shpool = (ngx_slab_pool_t *) shm_zone->shm.addr;
    table = shpool->data;

    if (table == NULL
        || table->magic != NGX_COORD_TABLE_MAGIC
        || table->version != NGX_COORD_TABLE_VERSION
        || ngx_memcmp(table->name, buf, NGX_COORD_TABLE_NAME_LEN) != 0)
    {
        ngx_log_error(NGX_LOG_EMERG, shm_zone->shm.log, 0,
                      "shared memory of coord zone \"%V\" holds something "
                      "else", &zone->name);
        return NGX_ERROR;
    }

    zone->table = table;

    return NGX_OK;
}


static ngx_int_t
ngx_coord_memory_create(ngx_shm_zone_t *shm_zone, ngx_coord_zone_t *zone,
    ngx_str_t *name)
{
    void             *addr;
    size_t            len, size;
    ngx_slab_pool_t  *shpool;
    u_char            seed[NGX_COORD_TABLE_SEED_LEN];

    shpool = (ngx_slab_pool_t *) shm_zone->shm.addr;

    if (ngx_coord_id(seed) != NGX_OK) {
        ngx_log_error(NGX_LOG_EMERG, shm_zone->shm.log, 0,
                      "no random bytes for coord zone \"%V\"", &zone->name);
        return NGX_ERROR;
    }

    len = sizeof(" in coord zone \"\"") + zone->name.len;

    shpool->log_ctx = ngx_slab_alloc(shpool, len);

    if (shpool->log_ctx == NULL) {
        return NGX_ERROR;
    }

    ngx_sprintf(shpool->log_ctx, " in coord zone \"%V\"%Z", &zone->name);

    /* what is left is one run of pages, and the table takes all of it */

    size = shpool->pfree * ngx_pagesize;

    addr = ngx_slab_alloc(shpool, size);

    if (addr == NULL) {
        return NGX_ERROR;
    }

    zone->table = ngx_coord_table_create(addr, size, seed, name);

    if (zone->table == NULL) {
        ngx_log_error(NGX_LOG_EMERG, shm_zone->shm.log, 0,
                      "coord zone \"%V\" is too small", &zone->name);
        return NGX_ERROR;
    }

    shpool->data = zone->table;

    return NGX_OK;
}
