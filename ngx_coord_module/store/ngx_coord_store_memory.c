
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The operations of the store in the shared memory of a zone: the memory
 * store, and what on_failure=local falls back to.
 */


#include "ngx_coord_store.h"
#include "ngx_coord_table.h"


static ngx_coord_nsec_t ngx_coord_memory_now(ngx_coord_op_t *op);
static ngx_int_t ngx_coord_memory_send(ngx_coord_batch_t *batch);
static void ngx_coord_memory_log(ngx_coord_op_t *op);
static ngx_int_t ngx_coord_memory_create(ngx_shm_zone_t *shm_zone,
    ngx_coord_zone_t *zone, ngx_str_t *name);


const ngx_coord_store_actions_t  ngx_coord_store_memory_actions = {
    NULL,
    NULL,
    ngx_coord_memory_send,
    NULL,
    NULL,
    NULL,
    ngx_coord_memory_now,
    NULL
};


/* one clock for all memory */

static ngx_coord_nsec_t
ngx_coord_memory_now(ngx_coord_op_t *op)
{
    return ngx_coord_monotonic();
}


static ngx_int_t
ngx_coord_memory_send(ngx_coord_batch_t *batch)
{
    ngx_uint_t                i;
    ngx_coord_store_stats_t  *stats;

    stats = batch->store->stats;

    for (i = 0; i < batch->nops; i++) {
        ngx_coord_near_run(&batch->ops[i]);
        batch->ops[i].source = NGX_COORD_SOURCE_MEMORY;

        if (batch->ops[i].failure) {
            (void) ngx_atomic_fetch_add(
                               &stats->failures[batch->ops[i].failure], 1);
        }
    }

    (void) ngx_atomic_fetch_add(&stats->calls, 1);
    (void) ngx_atomic_fetch_add(&stats->commands, batch->nops);

    return NGX_OK;
}


void
ngx_coord_near_run(ngx_coord_op_t *op)
{
    uint32_t            second;
    uint64_t            evictions;
    ngx_uint_t          full;
    ngx_coord_nsec_t    now;
    ngx_coord_table_t  *table;

    table = ngx_coord_zone_lock(op->zone);

    if (table == NULL) {
        op->rc = NGX_ERROR;
        return;
    }

    /* under the lock, so that the clock never runs back */

    now = ngx_coord_monotonic();

    evictions = table->evictions;

    op->rc = op->type->run(table, op, now);

    if (op->rc == NGX_ERROR) {
        op->failure = NGX_COORD_FAIL_FULL;

        if (op->type->flags & NGX_COORD_OP_FULL_BUSY) {
            op->rc = NGX_BUSY;
        }
    }

    /* a copy of what Redis has may be forgotten, and a note in a journal */

    full = (op->failure == NGX_COORD_FAIL_FULL
            || (table->evictions != evictions
                && !op->zone->leases
                && ngx_coord_store_is_memory(op->zone->store)));

    if (full) {
        second = (uint32_t) (now / NGX_COORD_NSEC_PER_SEC) + 1;
        full = (table->logged != second);
        table->logged = second;
    }

    ngx_coord_zone_unlock(op->zone);

    if (full) {
        ngx_coord_memory_log(op);
    }
}


/* once a second and zone: what it had to drop, or could not take */

static void
ngx_coord_memory_log(ngx_coord_op_t *op)
{
    size_t      size;
    ngx_uint_t  refused, level;

    size = op->zone->shm_zone->shm.size;
    refused = (op->failure == NGX_COORD_FAIL_FULL);
    level = refused ? NGX_LOG_ERR : NGX_LOG_WARN;

    ngx_log_error(level, ngx_cycle->log, 0,
                  "coord zone \"%V\" is full, %s: "
                  "try a size of %uzk, it has %uzk",
                  &op->zone->name,
                  refused ? "there is no room for a key"
                          : "a key that was in use is forgotten",
                  2 * size / 1024, size / 1024);
}


ngx_int_t
ngx_coord_zone_init(ngx_shm_zone_t *shm_zone, void *data)
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

#if (defined NGX_DEBUG_MALLOC || defined NGX_HAVE_DEBUG_MALLOC)

    /* there the slab allocator may fill its pages with junk */

    ngx_memzero(addr, size);

#endif

    zone->table = ngx_coord_table_create(addr, size, seed, name);

    if (zone->table == NULL) {
        ngx_log_error(NGX_LOG_EMERG, shm_zone->shm.log, 0,
                      "coord zone \"%V\" is too small", &zone->name);
        return NGX_ERROR;
    }

    shpool->data = zone->table;

    return NGX_OK;
}
