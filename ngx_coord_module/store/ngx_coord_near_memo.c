
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
 * of the key is touched: who finds it as it was when he read, under the lock,
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


static ngx_coord_near_memo_t *ngx_coord_near_memo(ngx_coord_near_item_t *item);
static ngx_atomic_t *ngx_coord_near_memo_counter(ngx_coord_near_t *near,
    ngx_str_t *key);


/* where an item is kept, if it is; NULL: it is of those that are not */

static ngx_coord_near_memo_t *
ngx_coord_near_memo(ngx_coord_near_item_t *item)
{
    uint32_t                  hash;
    ngx_coord_store_t        *store;
    ngx_coord_near_worker_t  *worker;

    store = item->near->zone->store;
    worker = store->nearby;

    if (item->copy || worker == NULL || store->counts == NULL
        || item->key.len > NGX_COORD_NEAR_MEMO_DATA)
    {
        return NULL;
    }

    hash = ngx_coord_key_hash(item->key.data, item->key.len) + item->field;

    return &worker->memos[hash % NGX_COORD_NEAR_MEMOS];
}


ngx_int_t
ngx_coord_near_memo_get(ngx_coord_near_item_t *item, ngx_pool_t *pool,
    ngx_coord_near_answer_t *answer)
{
    ngx_coord_near_memo_t  *memo;

    memo = ngx_coord_near_memo(item);

    if (memo == NULL
        || memo->near != item->near
        || memo->field != item->field
        || memo->key_len != item->key.len
        || ngx_memcmp(memo->data, item->key.data, item->key.len) != 0)
    {
        return NGX_DECLINED;
    }

    if ((ngx_msec_int_t) (memo->until - ngx_current_msec) <= 0
        || memo->changes != *memo->counter
        || !ngx_coord_near_trusted(item->near->zone->store, memo->epoch))
    {
        return NGX_DECLINED;
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


void
ngx_coord_near_memo_keep(ngx_coord_near_item_t *item,
    ngx_coord_near_answer_t *answer, ngx_atomic_uint_t epoch,
    ngx_coord_nsec_t left)
{
    u_char                 *p;
    ngx_coord_near_memo_t  *memo;

    memo = ngx_coord_near_memo(item);

    if (memo == NULL
        || answer->value.len > NGX_COORD_NEAR_MEMO_DATA - item->key.len)
    {
        return;
    }

    memo->near = item->near;
    memo->counter = ngx_coord_near_memo_counter(item->near, &item->key);
    memo->changes = *memo->counter;
    memo->epoch = epoch;
    memo->until = ngx_current_msec
                  + ngx_min(left / NGX_COORD_NSEC_PER_MSEC,
                            NGX_COORD_NEAR_MEMO_KEEP);
    memo->state = answer->state;
    memo->field = (uint16_t) item->field;
    memo->key_len = (uint16_t) item->key.len;
    memo->value_len = (uint16_t) answer->value.len;

    p = ngx_cpymem(memo->data, item->key.data, item->key.len);
    ngx_memcpy(p, answer->value.data, answer->value.len);
}


void
ngx_coord_near_memo_void(ngx_coord_near_t *near, ngx_str_t *key)
{
    if (near->zone->store->counts) {
        (void) ngx_atomic_fetch_add(ngx_coord_near_memo_counter(near, key), 1);
    }
}


static ngx_atomic_t *
ngx_coord_near_memo_counter(ngx_coord_near_t *near, ngx_str_t *key)
{
    return &near->zone->store->counts->changes[ngx_coord_near_group(key)];
}
