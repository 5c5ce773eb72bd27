
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Logs and leases in shared memory: sets of times, each with an id, in the
 * data cells of an entry.
 */


#include "ngx_coord_store_memory.h"
#include "ngx_coord_rate.h"


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
    ngx_coord_slot_t          *head;      /* the slot of the earliest time */
    ngx_coord_slot_t          *free;      /* a free slot */
    ngx_coord_data_t          *tail;
} ngx_coord_slots_t;


static void ngx_coord_memory_slots(ngx_coord_table_t *table,
    ngx_coord_entry_t *entry, const u_char *id, ngx_coord_nsec_t gone,
    ngx_coord_slots_t *slots);
static ngx_int_t ngx_coord_memory_slot_add(ngx_coord_table_t *table,
    ngx_coord_entry_t *entry, ngx_coord_op_t *op, ngx_coord_slots_t *slots,
    ngx_coord_nsec_t at, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_memory_slot_remove(ngx_coord_table_t *table,
    ngx_coord_entry_t *entry, ngx_coord_op_t *op, ngx_coord_nsec_t gone);
static ngx_coord_entry_t *ngx_coord_memory_line(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);


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
                slots->head = slot;
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
ngx_coord_memory_slot_remove(ngx_coord_table_t *table,
    ngx_coord_entry_t *entry, ngx_coord_op_t *op, ngx_coord_nsec_t gone)
{
    ngx_coord_slots_t  slots;

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


ngx_int_t
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


ngx_int_t
ngx_coord_memory_log_give(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_window_t  window;

    (void) ngx_coord_window_init(&window, &op->u.rate);
    (void) ngx_coord_memory_slot_remove(table,
                                        ngx_coord_memory_find(table, op, now),
                                        op, now - window.length);

    return NGX_OK;
}


ngx_int_t
ngx_coord_memory_lease_acquire(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_nsec_t    expires;
    ngx_coord_lease_t  *lease;
    ngx_coord_slots_t   slots;
    ngx_coord_entry_t  *entry;

    lease = &op->u.lease;
    lease->current = 0;

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


ngx_int_t
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


ngx_int_t
ngx_coord_memory_lease_release(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    (void) ngx_coord_memory_slot_remove(table,
                                        ngx_coord_memory_find(table, op, now),
                                        op, now);

    return NGX_OK;
}


/* who waits for leases of a key, by arrival; beside the entry of the leases */

static ngx_coord_entry_t *
ngx_coord_memory_line(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    return ngx_coord_table_find(table, NGX_COORD_OP_WAIT_ENTER, op->key,
                                op->key_len, now);
}


ngx_int_t
ngx_coord_memory_lease_turn(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_int_t           rc;
    ngx_coord_slots_t   slots;
    ngx_coord_lease_t  *lease;
    ngx_coord_entry_t  *entry;

    lease = &op->u.lease;
    lease->waiting = 0;

    entry = ngx_coord_memory_line(table, op, now);

    if (entry) {
        ngx_coord_memory_slots(table, entry, op->id, now - op->zone->wait,
                               &slots);

        if (slots.used == 0) {
            ngx_coord_table_remove(table, entry);

        } else {
            lease->waiting = slots.used;
            ngx_memcpy(lease->head, slots.head->id, NGX_COORD_ID_LEN);
        }
    }

    if (lease->waiting == 0
        || ngx_memcmp(lease->head, op->id, NGX_COORD_ID_LEN) == 0)
    {
        op->type = NGX_COORD_OP_LEASE_ACQUIRE;
        rc = ngx_coord_memory_lease_acquire(table, op, now);
        op->type = NGX_COORD_OP_LEASE_TURN;

        return rc;
    }

    lease->current = 0;

    entry = ngx_coord_memory_find(table, op, now);

    if (entry) {
        ngx_coord_memory_slots(table, entry, op->id, now, &slots);

        lease->current = slots.used;

        if (slots.used == 0) {
            ngx_coord_table_remove(table, entry);
        }
    }

    return NGX_BUSY;
}


ngx_int_t
ngx_coord_memory_wait_enter(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_nsec_t    expires;
    ngx_coord_slots_t   slots;
    ngx_coord_entry_t  *entry;

    expires = now + op->zone->wait;

    entry = ngx_coord_memory_line(table, op, now);

    if (entry == NULL) {
        entry = ngx_coord_table_insert(table, NGX_COORD_OP_WAIT_ENTER, 0,
                                       op->key, op->key_len, NULL, expires,
                                       now);
        if (entry == NULL) {
            return NGX_ERROR;
        }
    }

    ngx_coord_memory_slots(table, entry, op->id, now - op->zone->wait, &slots);

    entry->expires = ngx_max(entry->expires, expires);

    if (slots.own) {
        return NGX_OK;
    }

    if (slots.used >= op->u.lease.limit) {
        return NGX_BUSY;
    }

    if (ngx_coord_memory_slot_add(table, entry, op, &slots,
                                  ngx_max(now - op->u.lease.waited, 1), now)
        != NGX_OK)
    {
        if (slots.used == 0) {
            ngx_coord_table_remove(table, entry);
        }

        return NGX_ERROR;
    }

    return NGX_OK;
}


ngx_int_t
ngx_coord_memory_wait_leave(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    (void) ngx_coord_memory_slot_remove(table,
                                        ngx_coord_memory_line(table, op, now),
                                        op, now - op->zone->wait);

    return NGX_OK;
}


/* from the wall clock on, so that a restart of the node does not go back */

ngx_int_t
ngx_coord_memory_lock_token(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    int64_t             token;
    uint64_t            payload[2];
    ngx_time_t         *tp;
    ngx_coord_nsec_t    expires;
    ngx_coord_entry_t  *entry;

    tp = ngx_timeofday();

    token = (int64_t) tp->sec * 1000000 + tp->msec * 1000;
    expires = now + 86400 * NGX_COORD_NSEC_PER_SEC;

    entry = ngx_coord_table_find(table, NGX_COORD_OP_LOCK_TOKEN, op->key,
                                 op->key_len, now);

    if (entry) {
        token = ngx_max(token, (int64_t) entry->payload[0] + 1);

        entry->payload[0] = (uint64_t) token;
        entry->expires = expires;

    } else {
        payload[0] = (uint64_t) token;
        payload[1] = 0;

        (void) ngx_coord_table_insert(table, NGX_COORD_OP_LOCK_TOKEN,
                                      NGX_COORD_ENTRY_EVICT, op->key,
                                      op->key_len, payload, expires, now);
    }

    op->u.lease.token = token;

    return NGX_OK;
}


ngx_uint_t
ngx_coord_memory_set_count(ngx_coord_table_t *table, ngx_coord_entry_t *entry,
    ngx_coord_nsec_t gone, ngx_coord_nsec_t *first)
{
    u_char             none[NGX_COORD_ID_LEN];
    ngx_coord_slots_t  slots;

    ngx_memzero(none, sizeof(none));

    ngx_coord_memory_slots(table, entry, none, gone, &slots);

    *first = slots.first;

    return slots.used;
}
