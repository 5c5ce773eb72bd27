
/*
 * Copyright (C) ngx_coord_module contributors
 */


#include "ngx_coord_deny.h"


/* cells that are looked at while the lock is held */
#define NGX_COORD_DENY_CELLS  1024


static int64_t ngx_coord_deny_get(ngx_coord_op_t *op, ngx_coord_kind_e kind,
    ngx_coord_nsec_t *until);
static void ngx_coord_deny_set(ngx_coord_op_t *op, ngx_coord_kind_e kind,
    int64_t number, ngx_coord_nsec_t until, ngx_coord_nsec_t time);
static int64_t ngx_coord_deny_rate(const ngx_coord_rate_t *rate);
static void ngx_coord_deny_remove(ngx_coord_zone_t *zone,
    ngx_coord_kind_e kind, u_char *key, size_t len);
static void ngx_coord_deny_void(ngx_coord_table_t *table, uint32_t first,
    uint32_t last);


int64_t
ngx_coord_deny_find(ngx_coord_op_t *op, ngx_coord_nsec_t now)
{
    int64_t           number;
    ngx_coord_nsec_t  until;

    number = ngx_coord_deny_get(op, NGX_COORD_KIND_DENY, &until);

    return (until > now) ? number : 0;
}


/* what is known of the key of op, and until when; 0: nothing */

static int64_t
ngx_coord_deny_get(ngx_coord_op_t *op, ngx_coord_kind_e kind,
    ngx_coord_nsec_t *until)
{
    int64_t             number;
    ngx_coord_entry_t  *entry;
    ngx_coord_table_t  *table;

    *until = 0;

    number = 0;
    table = ngx_coord_zone_lock(op->zone);

    entry = ngx_coord_table_find(table, kind, op->key, op->key_len,
                                 ngx_coord_turn_time());
    if (entry) {
        number = (int64_t) entry->payload[0];
        *until = (ngx_coord_nsec_t) entry->payload[1];
    }

    ngx_coord_zone_unlock(op->zone);

    return number;
}


void
ngx_coord_deny_keep(ngx_coord_op_t *op, int64_t number, ngx_coord_nsec_t now,
    ngx_coord_nsec_t time)
{
    ngx_coord_deny_set(op, NGX_COORD_KIND_DENY, number, now + time, time);
}


/* for a time from now on; until is what it is known to last */

static void
ngx_coord_deny_set(ngx_coord_op_t *op, ngx_coord_kind_e kind, int64_t number,
    ngx_coord_nsec_t until, ngx_coord_nsec_t time)
{
    uint64_t            payload[2];
    ngx_coord_nsec_t    expires, clock;
    ngx_coord_entry_t  *entry;
    ngx_coord_table_t  *table;

    if (op->zone->store->deny.len == 0) {
        return;
    }

    table = ngx_coord_zone_lock(op->zone);

    if (table == NULL) {
        return;
    }

    clock = ngx_coord_monotonic();
    expires = clock + time;

    payload[0] = (uint64_t) number;
    payload[1] = (uint64_t) until;

    entry = ngx_coord_table_find(table, kind, op->key, op->key_len, clock);

    if (entry) {
        entry->payload[1] = 0;
        ngx_coord_table_commit();

        entry->payload[0] = payload[0];
        entry->expires = expires;
        ngx_coord_table_commit();

        entry->payload[1] = payload[1];

    } else {
        entry = ngx_coord_table_insert(table, kind, NGX_COORD_ENTRY_EVICT,
                                       op->key, op->key_len, payload, expires,
                                       clock);
    }

    if (entry && table->denied < (uint64_t) expires) {
        table->denied = (uint64_t) expires;
    }

    ngx_coord_zone_unlock(op->zone);
}


/*
 * Of which rate a refusal is: its count, its calendar and its length in
 * seconds, of which the longest, 366 days, has 25 bits.
 */

static int64_t
ngx_coord_deny_rate(const ngx_coord_rate_t *rate)
{
    return (int64_t) ngx_min(rate->limit, NGX_COORD_RATE_LIMIT) << 28
           | (int64_t) rate->align << 25
           | (rate->window / NGX_COORD_NSEC_PER_SEC & 0x1ffffff);
}


ngx_uint_t
ngx_coord_deny_refuses(ngx_coord_op_t *op)
{
    return op->type->known(op, ngx_coord_store_now(op)) == NGX_BUSY
           && op->source == NGX_COORD_SOURCE_DENY_CACHE;
}


ngx_uint_t
ngx_coord_deny_window(ngx_coord_op_t *op, ngx_coord_nsec_t now)
{
    ngx_coord_rate_t   *rate;
    ngx_coord_nsec_t    until, most;
    ngx_coord_table_t  *table;

    rate = &op->u.rate;

    if (rate->cost != 1 || rate->force || !ngx_coord_deny_any(op->zone)) {
        return 0;
    }

    /* of the calendar: the period that this is */

    (void) ngx_coord_window_begins(rate, now, &most);

    if (ngx_coord_deny_get(op, NGX_COORD_KIND_DENY, &until)
        != ngx_coord_deny_rate(rate)
        || until <= now)
    {
        return 0;
    }

    rate->excess = 0;
    rate->remaining = 0;
    rate->retry = until - now;
    rate->reset = rate->retry;

    op->source = NGX_COORD_SOURCE_DENY_CACHE;

    table = op->zone->table;

    (void) ngx_atomic_fetch_add(&table->near[0], 1);

    return 1;
}


ngx_int_t
ngx_coord_deny_window_keep(ngx_coord_op_t *op, ngx_int_t rc,
    ngx_coord_nsec_t now)
{
    ngx_coord_rate_t  *rate;
    ngx_coord_nsec_t   interval;

    rate = &op->u.rate;

    if (rc != NGX_BUSY
        || rate->cost != 1
        || rate->force
        || rate->retry <= 0
        || rate->limit == 0)
    {
        return rc;
    }

    interval = rate->window / (ngx_coord_nsec_t) rate->limit;

    ngx_coord_deny_set(op, NGX_COORD_KIND_DENY, ngx_coord_deny_rate(rate),
                       now + rate->retry, ngx_min(rate->retry, interval));
    return rc;
}


ngx_coord_nsec_t
ngx_coord_deny_held(ngx_coord_op_t *op)
{
    ngx_coord_nsec_t    left, until;
    ngx_coord_table_t  *table;

    (void) ngx_coord_deny_get(op, NGX_COORD_KIND_DENY_HOLD, &until);

    left = until - ngx_coord_monotonic();

    if (left <= 0) {
        return 0;
    }

    table = op->zone->table;

    (void) ngx_atomic_fetch_add(&table->near[0], 1);

    return left;
}


void
ngx_coord_deny_held_keep(ngx_coord_op_t *op, ngx_coord_nsec_t left)
{
    ngx_coord_deny_set(op, NGX_COORD_KIND_DENY_HOLD, 0,
                       ngx_coord_monotonic() + left,
                       ngx_min(left, NGX_COORD_DENY_HOLD));
}


void
ngx_coord_deny_drop(ngx_coord_zone_t *zone, u_char *key, size_t len,
    ngx_uint_t all)
{
    if (!ngx_coord_deny_any(zone)) {
        return;
    }

    (void) ngx_coord_zone_lock(zone);

    ngx_coord_deny_remove(zone, NGX_COORD_KIND_DENY, key, len);

    if (all) {
        ngx_coord_deny_remove(zone, NGX_COORD_KIND_DENY_HOLD, key, len);
        ngx_coord_deny_remove(zone, NGX_COORD_KIND_BLOCK, key, len);
    }

    ngx_coord_zone_unlock(zone);
}


/* with the table of the zone locked */

static void
ngx_coord_deny_remove(ngx_coord_zone_t *zone, ngx_coord_kind_e kind,
    u_char *key, size_t len)
{
    ngx_coord_entry_t  *entry;

    entry = ngx_coord_table_find(zone->table, kind, key, len,
                                 ngx_coord_monotonic());
    if (entry) {
        ngx_coord_table_remove(zone->table, entry);
    }
}


/*
 * Entries end with the number that says whether there are any.  What is noted
 * from now on may stay, or go as well.
 */

void
ngx_coord_deny_drop_all(ngx_coord_zone_t *zone)
{
    uint32_t            cell, ncells;
    ngx_coord_table_t  *table;

    table = zone->table;

    if (table == NULL || table->denied == 0) {
        return;
    }

    table = ngx_coord_zone_lock(zone);

    table->denied = 0;
    ncells = table->nused;

    for (cell = 1; cell <= ncells; cell += NGX_COORD_DENY_CELLS) {

        if (cell > 1) {

            /* others of the node have work to do */

            ngx_coord_zone_unlock(zone);
            table = ngx_coord_zone_lock(zone);
        }

        ngx_coord_deny_void(table, cell,
                            ngx_min(ncells, cell + NGX_COORD_DENY_CELLS - 1));
    }

    ngx_coord_zone_unlock(zone);
}


static void
ngx_coord_deny_void(ngx_coord_table_t *table, uint32_t first, uint32_t last)
{
    uint32_t            i;
    ngx_coord_entry_t  *entry;

    for (i = first; i <= last; i++) {
        entry = &ngx_coord_table_cells(table)[i].head;

        if (entry->state != NGX_COORD_CELL_HEAD) {
            continue;
        }

        if (entry->tag == NGX_COORD_KIND_DENY
            || entry->tag == NGX_COORD_KIND_DENY_HOLD)
        {
            entry->payload[1] = 0;

        } else if (entry->tag == NGX_COORD_KIND_BLOCK) {
            entry->payload[0] = 0;
        }
    }
}
