
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The lock of the memory of a zone.
 */


#include "ngx_coord_store.h"


ngx_coord_table_t *
ngx_coord_zone_lock(ngx_coord_zone_t *zone)
{
    ngx_slab_pool_t  *shpool;

    if (zone->table == NULL) {
        return NULL;
    }

    shpool = (ngx_slab_pool_t *) zone->shm_zone->shm.addr;

    ngx_shmtx_lock(&shpool->mutex);

    if (ngx_coord_table_enter(zone->table)) {
        ngx_log_error(NGX_LOG_WARN, ngx_cycle->log, 0,
                      "coord zone \"%V\" was left locked by a dead process "
                      "and has been repaired", &zone->name);
    }

    return zone->table;
}


void
ngx_coord_zone_unlock(ngx_coord_zone_t *zone)
{
    ngx_slab_pool_t  *shpool;

    shpool = (ngx_slab_pool_t *) zone->shm_zone->shm.addr;

    ngx_coord_table_leave(zone->table);

    ngx_shmtx_unlock(&shpool->mutex);
}
