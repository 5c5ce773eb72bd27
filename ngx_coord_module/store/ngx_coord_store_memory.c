
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
 *   log, lease data cells with slots: see ngx_coord_store_memory_set.c
 */


#include "ngx_coord_store_memory.h"
#include "ngx_coord_rate.h"


static ngx_int_t ngx_coord_memory_send(ngx_coord_batch_t *batch);
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
static ngx_int_t ngx_coord_memory_create(ngx_shm_zone_t *shm_zone,
    ngx_coord_zone_t *zone, ngx_str_t *name);


const ngx_coord_store_actions_t  ngx_coord_store_memory_actions = {
    NULL,
    NULL,
    ngx_coord_memory_send
};


/* in the order of ngx_coord_op_e, up to LEASE_RELEASE */

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
    ngx_coord_memory_lease_release,
    ngx_coord_memory_lease_turn,
    ngx_coord_memory_wait_enter,
    ngx_coord_memory_wait_leave,
    ngx_coord_memory_lock_token
};


static ngx_int_t
ngx_coord_memory_send(ngx_coord_batch_t *batch)
{
    ngx_uint_t                i;
    ngx_coord_redis_stats_t  *stats;

    for (i = 0; i < batch->nops; i++) {
        ngx_coord_memory_run(&batch->ops[i]);
        batch->ops[i].source = NGX_COORD_SOURCE_MEMORY;
    }

    stats = batch->store->stats;

    (void) ngx_atomic_fetch_add(&stats->calls, 1);
    (void) ngx_atomic_fetch_add(&stats->commands, batch->nops);

    return NGX_OK;
}


void
ngx_coord_memory_run(ngx_coord_op_t *op)
{
    uint32_t                second;
    ngx_log_t              *log;
    ngx_uint_t              repaired;
    ngx_slab_pool_t        *shpool;
    ngx_coord_nsec_t        now;
    ngx_coord_table_t      *table;
    ngx_coord_memory_op_pt  run;

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

    if (op->type >= NGX_COORD_OP_BUCKET_PEEK) {
        run = ngx_coord_memory_peek;

    } else if (op->type >= NGX_COORD_OP_CLAIM) {
        run = ngx_coord_memory_claim_ops[op->type - NGX_COORD_OP_CLAIM];

    } else if (op->type >= NGX_COORD_OP_SESSION_GET) {
        run = ngx_coord_memory_session_ops[op->type
                                           - NGX_COORD_OP_SESSION_GET];

    } else {
        run = ngx_coord_memory_ops[op->type];
    }

    op->rc = run(table, op, now);

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


ngx_coord_entry_t *
ngx_coord_memory_find(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_uint_t  tag;

    tag = (op->type >= NGX_COORD_OP_LEASE_ACQUIRE)
          ? NGX_COORD_OP_LEASE_ACQUIRE : op->type & ~1;

    return ngx_coord_table_find(table, tag, op->key, op->key_len, now);
}


ngx_coord_entry_t *
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


int64_t
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
