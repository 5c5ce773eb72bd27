
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * What a worker has just read from the memory of near caches is kept by itself,
 * and used without the lock of the zone, without a clock and without decoding.
 *
 * It counts as long as what stands in shared memory would: until the worker
 * that has read it from the store hears of changes no more, or its time is
 * over, or the key has changed.  The latter is a number in shared memory, for
 * each of a few groups of keys.  It grows under the lock, before what is known
 * of the key is touched: who finds it as it was before he read, under the lock,
 * has what stood there until now.  A worker that is killed in between
 * has at worst had others read once more; that it does not hear of changes any
 * more is seen by its word.
 *
 * Nothing is kept for more than a second, so that an entry that is used here
 * shows there as one that is used.
 */


#include "ngx_coord_near_worker.h"
#include "ngx_coord_store_metrics.h"


/* milliseconds */
#define NGX_COORD_NEAR_MEMO_KEEP  1000


static ngx_coord_apart ngx_int_t ngx_coord_near_memo_read(
    ngx_coord_near_item_t *item, ngx_pool_t *pool,
    ngx_coord_near_answer_t *answer);


/* where an item is kept, if it is */

static ngx_inline ngx_coord_near_memo_t *
ngx_coord_near_memo(ngx_coord_near_worker_t *worker,
    ngx_coord_near_item_t *item)
{
    uint32_t  hash;

    hash = ngx_coord_key_hash(item->key.data, item->key.len) + item->field;

    return &worker->memos[hash % NGX_COORD_NEAR_MEMOS];
}


ngx_int_t
ngx_coord_near_get(ngx_coord_near_item_t *item, ngx_pool_t *pool,
    ngx_coord_near_answer_t *answer)
{
    ngx_coord_store_t        *store;
    ngx_coord_near_memo_t    *memo;
    ngx_coord_near_worker_t  *worker;

    answer->late = 0;

    store = item->near->zone->store;
    worker = store->nearby;

    if (worker == NULL || item->copy) {
        return ngx_coord_near_memo_read(item, pool, answer);
    }

    memo = ngx_coord_near_memo(worker, item);

    if (memo->near != item->near
        || memo->field != item->field
        || memo->key_len != item->key.len
        || ngx_memcmp(memo->data, item->key.data, item->key.len) != 0
        || (ngx_msec_int_t) (memo->until - ngx_current_msec) <= 0
        || memo->changes != *memo->counter
        || !ngx_coord_near_trusted(store, memo->epoch))
    {
        return ngx_coord_near_memo_read(item, pool, answer);
    }

    answer->state = memo->state;
    answer->value.len = memo->value_len;
    answer->value.data = NULL;

    if (memo->value_len == 0) {
        return NGX_OK;
    }

    answer->value.data = ngx_pnalloc(pool, memo->value_len);
    if (answer->value.data == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(answer->value.data, memo->data + memo->key_len,
               memo->value_len);

    return NGX_OK;
}


static ngx_int_t
ngx_coord_near_memo_read(ngx_coord_near_item_t *item, ngx_pool_t *pool,
    ngx_coord_near_answer_t *answer)
{
    u_char                  *p;
    ngx_int_t                rc;
    ngx_atomic_t            *counter;
    ngx_coord_store_t       *store;
    ngx_atomic_uint_t        changes;
    ngx_coord_near_memo_t   *memo;
    ngx_coord_near_fresh_t   fresh;

    store = item->near->zone->store;

    if (store->nearby == NULL || store->counts == NULL || item->copy) {
        return ngx_coord_near_get_shm(item, pool, answer, &fresh);
    }

    counter = &store->counts->changes[ngx_coord_near_group(&item->key)];
    changes = *counter;

    rc = ngx_coord_near_get_shm(item, pool, answer, &fresh);

    if (rc != NGX_OK
        || item->key.len + answer->value.len > NGX_COORD_NEAR_MEMO_DATA)
    {
        return rc;
    }

    memo = ngx_coord_near_memo(store->nearby, item);

    memo->near = item->near;
    memo->counter = counter;
    memo->changes = changes;
    memo->epoch = fresh.epoch;
    memo->until = ngx_current_msec
                  + ngx_min(fresh.left / NGX_COORD_NSEC_PER_MSEC,
                            NGX_COORD_NEAR_MEMO_KEEP);
    memo->state = answer->state;
    memo->field = (uint16_t) item->field;
    memo->key_len = (uint16_t) item->key.len;
    memo->value_len = (uint16_t) answer->value.len;

    p = ngx_cpymem(memo->data, item->key.data, item->key.len);
    ngx_memcpy(p, answer->value.data, answer->value.len);

    return NGX_OK;
}
