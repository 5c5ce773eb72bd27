
/*
 * Copyright (C) ngx_coord_module contributors
 */


#include "ngx_coord_deny.h"


/* cells that are looked at while the lock is held */
#define NGX_COORD_DENY_CELLS  1024


static void ngx_coord_deny_void(ngx_coord_table_t *table, uint32_t first,
    uint32_t last);


ngx_coord_table_t *
ngx_coord_zone_lock(ngx_coord_zone_t *zone)
{
    ngx_slab_pool_t    *shpool;
    ngx_coord_table_t  *table;

    table = zone->table;

    if (table == NULL) {
        return NULL;
    }

    shpool = (ngx_slab_pool_t *) zone->shm_zone->shm.addr;

    ngx_shmtx_lock(&shpool->mutex);

    (void) ngx_coord_table_enter(table);

    return table;
}


void
ngx_coord_zone_unlock(ngx_coord_zone_t *zone)
{
    ngx_slab_pool_t  *shpool;

    shpool = (ngx_slab_pool_t *) zone->shm_zone->shm.addr;

    ngx_coord_table_leave(zone->table);

    ngx_shmtx_unlock(&shpool->mutex);
}


int64_t
ngx_coord_deny_find(ngx_coord_op_t *op, ngx_coord_nsec_t now)
{
    int64_t             number;
    ngx_coord_entry_t  *entry;
    ngx_coord_table_t  *table;

    table = op->zone->table;

    /* the common case: nothing is refused now */

    if (table == NULL
        || table->denied <= (uint64_t) ngx_coord_monotonic())
    {
        return 0;
    }

    number = 0;
    table = ngx_coord_zone_lock(op->zone);

    entry = ngx_coord_table_find(table, NGX_COORD_KIND_DENY, op->key,
                                 op->key_len, ngx_coord_monotonic());

    if (entry && (ngx_coord_nsec_t) entry->payload[1] > now) {
        number = (int64_t) entry->payload[0];
    }

    ngx_coord_zone_unlock(op->zone);

    return number;
}


void
ngx_coord_deny_keep(ngx_coord_op_t *op, int64_t number, ngx_coord_nsec_t now,
    ngx_coord_nsec_t time)
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
    payload[1] = (uint64_t) (now + time);

    entry = ngx_coord_table_find(table, NGX_COORD_KIND_DENY, op->key,
                                 op->key_len, clock);
    if (entry) {
        entry->payload[1] = 0;
        ngx_coord_table_commit();

        entry->payload[0] = payload[0];
        entry->expires = expires;
        ngx_coord_table_commit();

        entry->payload[1] = payload[1];

    } else {
        entry = ngx_coord_table_insert(table, NGX_COORD_KIND_DENY,
                                       NGX_COORD_ENTRY_EVICT, op->key,
                                       op->key_len, payload, expires, clock);
    }

    if (entry && table->denied < (uint64_t) expires) {
        table->denied = (uint64_t) expires;
    }

    ngx_coord_zone_unlock(op->zone);
}


void
ngx_coord_deny_drop(ngx_coord_zone_t *zone, u_char *key, size_t len,
    ngx_uint_t blocks)
{
    ngx_coord_nsec_t    now;
    ngx_coord_entry_t  *entry;
    ngx_coord_table_t  *table;

    now = ngx_coord_monotonic();
    table = zone->table;

    if (table == NULL || table->denied <= (uint64_t) now) {
        return;
    }

    table = ngx_coord_zone_lock(zone);

    entry = ngx_coord_table_find(table, NGX_COORD_KIND_DENY, key, len, now);

    if (entry) {
        ngx_coord_table_remove(table, entry);
    }

    if (blocks) {
        entry = ngx_coord_table_find(table, NGX_COORD_KIND_BLOCK, key, len,
                                     now);
        if (entry) {
            ngx_coord_table_remove(table, entry);
        }
    }

    ngx_coord_zone_unlock(zone);
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

        if (entry->tag == NGX_COORD_KIND_DENY) {
            entry->payload[1] = 0;

        } else if (entry->tag == NGX_COORD_KIND_BLOCK) {
            entry->payload[0] = 0;
        }
    }
}
