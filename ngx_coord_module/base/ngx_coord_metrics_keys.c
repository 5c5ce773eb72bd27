
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The keys of a zone that are refused most: a summary of bounded size.
 */


#include "ngx_coord_metrics.h"


#define NGX_COORD_KEYS_IDLE  600000          /* milliseconds */


static ngx_uint_t ngx_coord_keys_lock(ngx_coord_keys_t *keys);
static void ngx_coord_keys_unlock(ngx_coord_keys_t *keys);
static ngx_coord_keys_entry_t *ngx_coord_keys_place(ngx_coord_keys_t *keys,
    u_char *key, size_t len);
static int ngx_libc_cdecl ngx_coord_keys_cmp(const void *one,
    const void *two);


/* the time since a key was refused last */
#define ngx_coord_keys_idle(e)                                                \
    ((ngx_msec_int_t) (ngx_current_msec - (e)->last))


void
ngx_coord_keys_add(ngx_coord_counts_t *counts, ngx_slab_pool_t *shpool)
{
    ngx_coord_keys_t  *keys;

    if (counts->keys) {
        return;
    }

    keys = ngx_slab_calloc(shpool, sizeof(ngx_coord_keys_t));

    if (keys) {
        ngx_memory_barrier();
        counts->keys = keys;
    }
}


void
ngx_coord_keys_refused(ngx_coord_counts_t *counts, u_char *key, size_t len)
{
    ngx_coord_keys_t        *keys;
    ngx_coord_keys_entry_t  *entry;

    if (counts == NULL || len > NGX_COORD_KEY_LEN) {
        return;
    }

    keys = counts->keys;

    if (keys == NULL || !ngx_coord_keys_lock(keys)) {
        return;
    }

    entry = ngx_coord_keys_place(keys, key, len);

    entry->count++;
    entry->last = ngx_current_msec;

    ngx_coord_keys_unlock(keys);
}


/* the entry of a key, its own one or one that is taken from another key */

static ngx_coord_keys_entry_t *
ngx_coord_keys_place(ngx_coord_keys_t *keys, u_char *key, size_t len)
{
    ngx_uint_t               i;
    ngx_coord_keys_entry_t  *entry, *least;

    least = &keys->entries[0];

    for (i = 0; i < NGX_COORD_KEYS; i++) {
        entry = &keys->entries[i];

        if (entry->count
            && entry->len == len
            && ngx_memcmp(entry->key, key, len) == 0)
        {
            return entry;
        }

        if (entry->count && ngx_coord_keys_idle(entry) > NGX_COORD_KEYS_IDLE) {
            entry->count = 0;
        }

        if (entry->count < least->count) {
            least = entry;
        }
    }

    least->error = least->count;
    least->len = len;

    ngx_memcpy(least->key, key, len);

    return least;
}


ngx_uint_t
ngx_coord_keys_top(ngx_coord_counts_t *counts,
    ngx_coord_keys_entry_t *entries, ngx_uint_t n)
{
    ngx_uint_t               i, found;
    ngx_coord_keys_t        *keys;
    ngx_coord_keys_entry_t   all[NGX_COORD_KEYS];

    keys = counts ? counts->keys : NULL;

    /* an owner holds the lock for a microsecond */

    for (i = 0; keys && !ngx_coord_keys_lock(keys); i++) {
        if (i == 1000) {
            return 0;
        }

        ngx_cpu_pause();
    }

    if (keys == NULL) {
        return 0;
    }

    ngx_memcpy(all, keys->entries, sizeof(all));

    ngx_coord_keys_unlock(keys);

    ngx_qsort(all, NGX_COORD_KEYS, sizeof(ngx_coord_keys_entry_t),
              ngx_coord_keys_cmp);

    found = 0;

    for (i = 0; i < NGX_COORD_KEYS && found < n; i++) {
        if (all[i].count
            && all[i].len <= NGX_COORD_KEY_LEN
            && ngx_coord_keys_idle(&all[i]) <= NGX_COORD_KEYS_IDLE)
        {
            entries[found++] = all[i];
        }
    }

    return found;
}


static int ngx_libc_cdecl
ngx_coord_keys_cmp(const void *one, const void *two)
{
    const ngx_coord_keys_entry_t *a = one;
    const ngx_coord_keys_entry_t *b = two;

    if (a->count == b->count) {
        return 0;
    }

    return (a->count < b->count) ? 1 : -1;
}


/*
 * Never waits.  A process that died as the owner is found out, a half-written
 * entry cannot harm: lengths are checked when entries are read.
 */

static ngx_uint_t
ngx_coord_keys_lock(ngx_coord_keys_t *keys)
{
    ngx_atomic_uint_t  owner;

    owner = keys->lock;

    if (owner && ngx_coord_alive((ngx_pid_t) owner)) {
        return 0;
    }

    return ngx_atomic_cmp_set(&keys->lock, owner, (ngx_atomic_uint_t) ngx_pid);
}


static void
ngx_coord_keys_unlock(ngx_coord_keys_t *keys)
{
    ngx_memory_barrier();
    (void) ngx_atomic_cmp_set(&keys->lock, (ngx_atomic_uint_t) ngx_pid, 0);
}
