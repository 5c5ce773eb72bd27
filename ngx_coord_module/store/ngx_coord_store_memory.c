
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The operations of the store in the shared memory of a zone: the memory
 * store, and what on_failure=local falls back to.
 */


#include "ngx_coord_store.h"
#include "ngx_coord_table.h"


static ngx_int_t ngx_coord_memory_send(ngx_coord_batch_t *batch);
static ngx_int_t ngx_coord_memory_create(ngx_shm_zone_t *shm_zone,
    ngx_coord_zone_t *zone, ngx_str_t *name);


const ngx_coord_store_actions_t  ngx_coord_store_memory_actions = {
    NULL,
    NULL,
    ngx_coord_memory_send,
    NULL
};


static ngx_int_t
ngx_coord_memory_send(ngx_coord_batch_t *batch)
{
    ngx_uint_t                i;
    ngx_coord_store_stats_t  *stats;

    for (i = 0; i < batch->nops; i++) {
        ngx_coord_near_run(&batch->ops[i]);
        batch->ops[i].source = NGX_COORD_SOURCE_MEMORY;
    }

    stats = batch->store->stats;

    (void) ngx_atomic_fetch_add(&stats->calls, 1);
    (void) ngx_atomic_fetch_add(&stats->commands, batch->nops);

    return NGX_OK;
}


void
ngx_coord_near_run(ngx_coord_op_t *op)
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

    op->rc = op->type->run(table, op, now);

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

    zone->table = ngx_coord_table_create(addr, size, seed, name);

    if (zone->table == NULL) {
        ngx_log_error(NGX_LOG_EMERG, shm_zone->shm.log, 0,
                      "coord zone \"%V\" is too small", &zone->name);
        return NGX_ERROR;
    }

    shpool->data = zone->table;

    return NGX_OK;
}
