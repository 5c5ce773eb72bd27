
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The memory of near caches.  An entry has a tag for each field of a hash, so
 * that all of a key are found.  payload[0]: fresh until, on the clock of the
 * node; payload[1]: the word of the worker that has read it.  Blob: the state,
 * a sum of the name of the field, which may have another tag after a reload,
 * then the value.
 */


#include "ngx_coord_near_worker.h"


/* a last value is kept so long */
#define NGX_COORD_NEAR_KEEP    (86400 * NGX_COORD_NSEC_PER_SEC)

/* what stands before a value: the state and the sum */
#define NGX_COORD_NEAR_HEAD    (1 + sizeof(uint32_t))


static void ngx_coord_near_head(ngx_coord_near_item_t *item,
    ngx_coord_near_e state, u_char *head);
static ngx_coord_entry_t *ngx_coord_near_entry(ngx_coord_near_item_t *item,
    u_char *key, size_t len, ngx_coord_nsec_t now, ngx_coord_near_e *state);
static void ngx_coord_near_put(ngx_coord_near_item_t *item, u_char *key,
    size_t len, u_char *blob, size_t size, ngx_atomic_uint_t epoch);
static void ngx_coord_near_drop_note(ngx_coord_table_t *table, u_char *key,
    size_t len, ngx_coord_nsec_t now);


ngx_coord_near_t *
ngx_coord_near_create(ngx_pool_t *pool, ngx_coord_zone_t *zone)
{
    ngx_str_t         *field;
    ngx_coord_near_t  *near;

    near = ngx_pcalloc(pool, sizeof(ngx_coord_near_t));
    if (near == NULL) {
        return NULL;
    }

    if (ngx_array_init(&near->fields, pool, 4, sizeof(ngx_str_t)) != NGX_OK) {
        return NULL;
    }

    field = ngx_array_push(&near->fields);
    if (field == NULL) {
        return NULL;
    }

    ngx_str_null(field);

    near->zone = zone;

    return near;
}


ngx_uint_t
ngx_coord_near_useful(ngx_coord_near_t *near)
{
    return near->zone->table != NULL
           && !ngx_coord_store_is_memory(near->zone->store);
}


ngx_int_t
ngx_coord_near_field(ngx_coord_near_t *near, ngx_str_t *name)
{
    ngx_str_t   *field;
    ngx_uint_t   i;

    field = near->fields.elts;

    for (i = 0; i < near->fields.nelts; i++) {
        if (field[i].len == name->len
            && ngx_memcmp(field[i].data, name->data, name->len) == 0)
        {
            return i;
        }
    }

    if (i == NGX_COORD_NEAR_FIELDS) {
        return NGX_ERROR;
    }

    field = ngx_array_push(&near->fields);
    if (field == NULL) {
        return NGX_ERROR;
    }

    *field = *name;

    return i;
}


ngx_int_t
ngx_coord_near_add(ngx_pool_t *pool, ngx_coord_near_t *near)
{
    ngx_coord_near_t   **p;
    ngx_coord_store_t   *store;

    store = near->zone->store;

    if (store->near == NULL) {
        store->near = ngx_array_create(pool, 2, sizeof(ngx_coord_near_t *));
        if (store->near == NULL) {
            return NGX_ERROR;
        }
    }

    p = ngx_array_push(store->near);
    if (p == NULL) {
        return NGX_ERROR;
    }

    *p = near;

    return NGX_OK;
}


static void
ngx_coord_near_head(ngx_coord_near_item_t *item, ngx_coord_near_e state,
    u_char *head)
{
    uint32_t    sum;
    ngx_str_t  *field;

    field = item->near->fields.elts;
    field += item->field;

    sum = ngx_crc32_long(field->data, field->len);

    head[0] = (u_char) state;
    ngx_memcpy(&head[1], &sum, sizeof(uint32_t));
}


/* the entry of an item and its state; NULL: none, or one of another field */

static ngx_coord_entry_t *
ngx_coord_near_entry(ngx_coord_near_item_t *item, u_char *key, size_t len,
    ngx_coord_nsec_t now, ngx_coord_near_e *state)
{
    u_char              is[NGX_COORD_NEAR_HEAD], own[NGX_COORD_NEAR_HEAD];
    ngx_coord_table_t  *table;
    ngx_coord_entry_t  *entry;

    table = item->near->zone->table;

    entry = ngx_coord_table_find(table, NGX_COORD_NEAR_TAG + item->field, key,
                                 len, now);

    if (entry == NULL
        || ngx_coord_table_read(table, entry, is, 0, NGX_COORD_NEAR_HEAD)
           != NGX_COORD_NEAR_HEAD)
    {
        return NULL;
    }

    *state = is[0];

    ngx_coord_near_head(item, *state, own);

    return ngx_memcmp(is, own, NGX_COORD_NEAR_HEAD) == 0 ? entry : NULL;
}


ngx_int_t
ngx_coord_near_get_shm(ngx_coord_near_item_t *item, ngx_pool_t *pool,
    ngx_coord_near_answer_t *answer, ngx_coord_near_fresh_t *fresh)
{
    size_t              len;
    u_char              key[NGX_COORD_KEY_LEN];
    ngx_int_t           rc;
    ngx_coord_near_e    state;
    ngx_coord_nsec_t    now;
    ngx_coord_zone_t   *zone;
    ngx_coord_table_t  *table;
    ngx_coord_entry_t  *entry;

    answer->state = NGX_COORD_NEAR_UNKNOWN;
    ngx_str_null(&answer->value);

    zone = item->near->zone;

    len = ngx_coord_key_encode(key, &item->key);

    if (len == 0) {
        return NGX_AGAIN;
    }

    table = ngx_coord_zone_lock(zone);

    if (table == NULL) {
        return NGX_AGAIN;
    }

    rc = NGX_AGAIN;
    now = ngx_coord_monotonic();

    entry = ngx_coord_near_entry(item, key, len, now, &state);

    if (entry) {
        answer->state = state;

        if (now < (ngx_coord_nsec_t) entry->payload[0]
            && ngx_coord_near_trusted(zone->store, entry->payload[1]))
        {
            rc = NGX_OK;
        }

        if (state == NGX_COORD_NEAR_VALUE
            && entry->length > NGX_COORD_NEAR_HEAD)
        {
            answer->value.len = entry->length - NGX_COORD_NEAR_HEAD;
            answer->value.data = ngx_pnalloc(pool, answer->value.len);

            if (answer->value.data == NULL) {
                ngx_coord_zone_unlock(zone);
                return NGX_ERROR;
            }

            answer->value.len = ngx_coord_table_read(table, entry,
                                                     answer->value.data,
                                                     NGX_COORD_NEAR_HEAD,
                                                     answer->value.len);
        }

        fresh->epoch = entry->payload[1];
        fresh->left = (ngx_coord_nsec_t) entry->payload[0] - now;
    }

    ngx_coord_zone_unlock(zone);

    return rc;
}


void
ngx_coord_near_keep(ngx_coord_near_item_t *item,
    ngx_coord_near_answer_t *answer, ngx_atomic_uint_t epoch,
    ngx_atomic_uint_t told)
{
    size_t   len, size;
    u_char  *p, key[NGX_COORD_KEY_LEN];

    len = ngx_coord_key_encode(key, &item->key);

    if (len == 0) {
        return;
    }

    size = NGX_COORD_NEAR_HEAD + answer->value.len;

    p = ngx_alloc(size, ngx_cycle->log);
    if (p == NULL) {
        return;
    }

    ngx_coord_near_head(item, answer->state, p);
    ngx_memcpy(p + NGX_COORD_NEAR_HEAD, answer->value.data,
               answer->value.len);

    if (ngx_coord_zone_lock(item->near->zone)) {

        if (told != ngx_coord_near_news(item)) {
            epoch = 0;
        }

        ngx_coord_near_put(item, key, len, p, size, epoch);
        ngx_coord_zone_unlock(item->near->zone);
    }

    ngx_free(p);
}


/* in a table that is entered: blob has the head and the value */

static void
ngx_coord_near_put(ngx_coord_near_item_t *item, u_char *key, size_t len,
    u_char *blob, size_t size, ngx_atomic_uint_t epoch)
{
    uint64_t            payload[2];
    ngx_uint_t          tag;
    ngx_msec_t          ttl;
    ngx_coord_nsec_t    now, expires;
    ngx_coord_table_t  *table;
    ngx_coord_entry_t  *entry;

    table = item->near->zone->table;
    tag = NGX_COORD_NEAR_TAG + item->field;

    ngx_coord_near_void(item->near, &item->key);

    ttl = (blob[0] == NGX_COORD_NEAR_VALUE) ? item->ttl : item->negative_ttl;

    now = ngx_coord_monotonic();
    expires = now + (ngx_coord_nsec_t) ttl * NGX_COORD_NSEC_PER_MSEC;

    payload[0] = epoch ? (uint64_t) expires : 0;
    payload[1] = epoch;

    entry = ngx_coord_table_find(table, tag, key, len, now);

    if (entry) {
        ngx_coord_table_remove(table, entry);
    }

    entry = ngx_coord_table_insert(table, tag, NGX_COORD_ENTRY_EVICT, key, len,
                                   payload, expires + NGX_COORD_NEAR_KEEP,
                                   now);
    if (entry) {
        (void) ngx_coord_table_write(table, entry, blob, size, now);
    }
}


void
ngx_coord_near_note(ngx_coord_near_item_t *item, ngx_atomic_uint_t epoch,
    ngx_atomic_uint_t told)
{
    size_t              len;
    u_char              key[NGX_COORD_KEY_LEN];
    uint64_t            payload[2];
    ngx_coord_nsec_t    now;
    ngx_coord_table_t  *table;
    ngx_coord_entry_t  *entry;

    len = ngx_coord_key_encode(key, &item->key);
    table = len ? ngx_coord_zone_lock(item->near->zone) : NULL;

    if (table == NULL) {
        return;
    }

    if (told != ngx_coord_near_news(item)) {
        epoch = 0;
    }

    now = ngx_coord_monotonic();

    entry = ngx_coord_table_find(table, NGX_COORD_NEAR_NOTE, key, len, now);

    if (entry) {
        entry->payload[1] = epoch;

    } else {
        payload[0] = 0;
        payload[1] = epoch;

        (void) ngx_coord_table_insert(table, NGX_COORD_NEAR_NOTE,
                                      NGX_COORD_ENTRY_EVICT, key, len, payload,
                                      now + NGX_COORD_NEAR_KEEP, now);
    }

    ngx_coord_zone_unlock(item->near->zone);
}


void
ngx_coord_near_changed(ngx_coord_near_worker_t *worker, ngx_str_t *key)
{
    size_t               len;
    u_char               encoded[NGX_COORD_KEY_LEN];
    ngx_uint_t           i, n;
    ngx_coord_near_t   **near;
    ngx_coord_table_t   *table;
    ngx_coord_entry_t   *entry;
    ngx_coord_nsec_t     now;

    len = key ? ngx_coord_key_encode(encoded, key) : 0;

    /* all, or one that cannot be named */

    if (len == 0) {

        if (worker->epoch != NGX_COORD_NEAR_ALWAYS) {
            ngx_coord_near_revoke(worker);
        }

        return;
    }

    near = worker->store->near->elts;
    now = ngx_coord_monotonic();

    for (i = 0; i < worker->store->near->nelts; i++) {

        table = ngx_coord_zone_lock(near[i]->zone);

        if (table == NULL) {
            continue;
        }

        ngx_coord_near_void(near[i], key);
        ngx_coord_near_note_news(near[i], key);

        for (n = 0; n < near[i]->fields.nelts; n++) {
            entry = ngx_coord_table_find(table, NGX_COORD_NEAR_TAG + n,
                                         encoded, len, now);
            if (entry) {
                entry->payload[0] = 0;
            }
        }

        ngx_coord_near_drop_note(table, encoded, len, now);

        ngx_coord_zone_unlock(near[i]->zone);
    }
}


static void
ngx_coord_near_drop_note(ngx_coord_table_t *table, u_char *key, size_t len,
    ngx_coord_nsec_t now)
{
    ngx_coord_entry_t  *entry;

    entry = ngx_coord_table_find(table, NGX_COORD_NEAR_NOTE, key, len, now);

    if (entry) {
        ngx_coord_table_remove(table, entry);
    }
}


ngx_uint_t
ngx_coord_near_forget(ngx_coord_near_t *near, ngx_str_t *key)
{
    size_t              len;
    u_char              encoded[NGX_COORD_KEY_LEN];
    ngx_uint_t          n, found;
    ngx_coord_nsec_t    now;
    ngx_coord_table_t  *table;
    ngx_coord_entry_t  *entry;

    len = ngx_coord_key_encode(encoded, key);
    table = len ? ngx_coord_zone_lock(near->zone) : NULL;

    if (table == NULL) {
        return 0;
    }

    found = 0;
    now = ngx_coord_monotonic();

    ngx_coord_near_void(near, key);

    for (n = 0; n < near->fields.nelts; n++) {
        entry = ngx_coord_table_find(table, NGX_COORD_NEAR_TAG + n, encoded,
                                     len, now);
        if (entry) {
            ngx_coord_table_remove(table, entry);
            found = 1;
        }
    }

    ngx_coord_near_drop_note(table, encoded, len, now);

    ngx_coord_zone_unlock(near->zone);

    return found;
}


ngx_str_t
ngx_coord_near_tag(ngx_str_t *key)
{
    u_char     *p, *end, *last;
    ngx_str_t   tag;

    last = key->data + key->len;

    p = ngx_strlchr(key->data, last, '{');
    end = p ? ngx_strlchr(p, last, '}') : NULL;

    if (end == NULL || end == p + 1) {
        return *key;
    }

    tag.data = p + 1;
    tag.len = end - tag.data;

    return tag;
}


void
ngx_coord_near_absent(ngx_coord_near_item_t *item)
{
    size_t              len;
    u_char              key[NGX_COORD_KEY_LEN], head[NGX_COORD_NEAR_HEAD];
    ngx_coord_store_t  *store;
    ngx_atomic_uint_t   epoch;
    ngx_coord_table_t  *table;
    ngx_coord_entry_t  *entry;

    store = item->near->zone->store;
    epoch = ngx_coord_store_is_memory(store) ? NGX_COORD_NEAR_ALWAYS : 0;

    len = ngx_coord_key_encode(key, &item->key);
    table = len ? ngx_coord_zone_lock(item->near->zone) : NULL;

    if (table == NULL) {
        return;
    }

    entry = ngx_coord_table_find(table, NGX_COORD_NEAR_NOTE, key, len,
                                 ngx_coord_monotonic());

    if (entry) {
        epoch = entry->payload[1];
        ngx_coord_table_remove(table, entry);
    }

    if (ngx_coord_near_trusted(store, epoch)) {
        ngx_coord_near_head(item, NGX_COORD_NEAR_NONE, head);
        ngx_coord_near_put(item, key, len, head, sizeof(head), epoch);
    }

    ngx_coord_zone_unlock(item->near->zone);
}
