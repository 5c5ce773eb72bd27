
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_cache: what is asked for often is kept in the shared memory of its
 * zone, with all that is read for it: when its key and its tags were purged.
 * The store tells of a change of any of them (ngx_coord_near.h).
 */


#include "ngx_http_coord_cache.h"


#define NGX_HTTP_COORD_CACHE_HOTS   1024     /* a power of 2 */

/* milliseconds */
#define NGX_HTTP_COORD_CACHE_OFTEN  10000    /* between two requests, at most */
#define NGX_HTTP_COORD_CACHE_COPY   1000     /* a copy is tried so often */
#define NGX_HTTP_COORD_CACHE_KEEP   3600000

#define NGX_HTTP_COORD_CACHE_NAME   512      /* bytes of a key with its zone */


/* what this worker has found in the store, by the hash of its key */
typedef struct {
    uint32_t                   hash;
    ngx_msec_t                 found;
    ngx_msec_t                 copied;       /* 0: never */
} ngx_http_coord_cache_hot_t;


static ngx_int_t ngx_http_coord_cache_near_item(ngx_coord_near_t *near,
    u_char *key, size_t len, const char *suffix, u_char *name,
    ngx_coord_near_item_t *item);
static size_t ngx_http_coord_cache_near_name(ngx_coord_zone_t *zone,
    u_char *key, size_t len, const char *suffix, u_char *name);
static ngx_int_t ngx_http_coord_cache_near_purged(
    ngx_http_coord_cache_t *cache, ngx_coord_op_t *op);
static ngx_uint_t ngx_http_coord_cache_near_often(
    ngx_http_coord_cache_t *cache);
static void ngx_http_coord_cache_near_fetch(ngx_http_coord_cache_t *cache,
    u_char *key, size_t len, const char *suffix);


static ngx_http_coord_cache_hot_t
                        ngx_http_coord_cache_hots[NGX_HTTP_COORD_CACHE_HOTS];


ngx_int_t
ngx_http_coord_cache_near_get(ngx_http_coord_cache_t *cache,
    ngx_coord_op_t *op, ngx_uint_t tag)
{
    u_char                   name[NGX_HTTP_COORD_CACHE_NAME];
    ngx_coord_near_item_t    item;
    ngx_coord_near_answer_t  answer;

    if (ngx_http_coord_cache_near_purged(cache, op) != NGX_OK) {
        return NGX_DECLINED;
    }

    if (tag) {
        op->rc = NGX_BUSY;
        return NGX_OK;
    }

    if (ngx_http_coord_cache_near_item(cache->conf->near, op->key, op->key_len,
                                       "}:r", name, &item)
        != NGX_OK
        || ngx_coord_near_get(&item, cache->request->pool, &answer) != NGX_OK
        || answer.state != NGX_COORD_NEAR_VALUE)
    {
        return NGX_DECLINED;
    }

    op->rc = NGX_OK;
    cache->lent = answer.value;

    return NGX_OK;
}


/* when it was, as the operation itself reads it */

static ngx_int_t
ngx_http_coord_cache_near_purged(ngx_http_coord_cache_t *cache,
    ngx_coord_op_t *op)
{
    off_t                    n;
    u_char                   name[NGX_HTTP_COORD_CACHE_NAME];
    ngx_coord_near_item_t    item;
    ngx_coord_near_answer_t  answer;

    if (ngx_http_coord_cache_near_item(cache->conf->near, op->key, op->key_len,
                                       "}:p", name, &item)
        != NGX_OK
        || ngx_coord_near_get(&item, cache->request->pool, &answer) != NGX_OK)
    {
        return NGX_DECLINED;
    }

    op->u.cache.now = ngx_coord_store_now(op);
    op->u.cache.purged = 0;

    if (answer.state == NGX_COORD_NEAR_NONE) {
        return NGX_OK;
    }

    n = ngx_atoof(answer.value.data, answer.value.len);

    if (n == NGX_ERROR
        || n > (INT64_MAX - NGX_HTTP_COORD_CACHE_SLACK)
               / NGX_COORD_NSEC_PER_USEC)
    {
        return NGX_DECLINED;
    }

    op->u.cache.purged = (ngx_coord_nsec_t) n * NGX_COORD_NSEC_PER_USEC;

    return NGX_OK;
}


static ngx_int_t
ngx_http_coord_cache_near_item(ngx_coord_near_t *near, u_char *key, size_t len,
    const char *suffix, u_char *name, ngx_coord_near_item_t *item)
{
    if (!ngx_coord_near_useful(near)) {
        return NGX_DECLINED;
    }

    ngx_memzero(item, sizeof(ngx_coord_near_item_t));

    item->near = near;
    item->key.data = name;
    item->key.len = ngx_http_coord_cache_near_name(near->zone, key, len,
                                                   suffix, name);
    item->ttl = NGX_HTTP_COORD_CACHE_KEEP;
    item->negative_ttl = NGX_HTTP_COORD_CACHE_KEEP;
    item->copy = 1;

    return item->key.len ? NGX_OK : NGX_DECLINED;
}


/* as it stands in the store; 0: too long to be here */

static size_t
ngx_http_coord_cache_near_name(ngx_coord_zone_t *zone, u_char *key, size_t len,
    const char *suffix, u_char *name)
{
    u_char     *p;
    ngx_str_t  *head;

    head = &zone->key_head;

    if (head->len + len + ngx_strlen(suffix) > NGX_HTTP_COORD_CACHE_NAME) {
        return 0;
    }

    p = ngx_cpymem(name, head->data, head->len);
    p = ngx_cpymem(p, key, len);
    p = ngx_cpymem(p, suffix, ngx_strlen(suffix));

    return p - name;
}


void
ngx_http_coord_cache_near_forget(ngx_coord_near_t *near, u_char *key,
    size_t len)
{
    u_char                 name[NGX_HTTP_COORD_CACHE_NAME];
    ngx_coord_near_item_t  item;

    if (ngx_http_coord_cache_near_item(near, key, len, "}:p", name, &item)
        == NGX_OK)
    {
        (void) ngx_coord_near_forget(near, &item.key);
    }
}


void
ngx_http_coord_cache_near_tell(ngx_coord_zone_t *zone, u_char *key, size_t len)
{
    u_char     name[NGX_HTTP_COORD_CACHE_NAME];
    ngx_str_t  text;

    text.data = name;
    text.len = ngx_http_coord_cache_near_name(zone, key, len, "}:p", name);

    if (text.len) {
        ngx_coord_near_tell_all(zone->store, &text);
    }
}


void
ngx_http_coord_cache_near_found(ngx_http_coord_cache_t *cache)
{
    u_char     *p, *last, *end, key[NGX_COORD_KEY_LEN];
    size_t      len;
    ngx_str_t   tag;

    if (!ngx_coord_near_useful(cache->conf->near)
        || cache->blob.len > NGX_COORD_NEAR_VALUE_MAX
        || !ngx_http_coord_cache_near_often(cache))
    {
        return;
    }

    ngx_http_coord_cache_near_fetch(cache, cache->key, cache->key_len, "}:r");
    ngx_http_coord_cache_near_fetch(cache, cache->key, cache->key_len, "}:p");

    if (cache->stored.varies) {
        len = ngx_http_coord_cache_variant_key(key, cache,
                                               cache->stored.variant);

        ngx_http_coord_cache_near_fetch(cache, key, len, "}:r");
        ngx_http_coord_cache_near_fetch(cache, key, len, "}:p");
    }

    p = cache->stored.tags.data;
    last = p + cache->stored.tags.len;

    while (p < last) {
        end = ngx_strlchr(p, last, LF);

        if (end == NULL) {
            break;
        }

        tag.data = p;
        tag.len = end - p;

        len = ngx_http_coord_cache_tag_key(key, &tag);
        ngx_http_coord_cache_near_fetch(cache, key, len, "}:p");

        p = end + 1;
    }
}


/* the second time within some seconds, and not copied just now */

static ngx_uint_t
ngx_http_coord_cache_near_often(ngx_http_coord_cache_t *cache)
{
    uint32_t                     hash, variant;
    ngx_msec_t                   found;
    ngx_http_coord_cache_hot_t  *hot;

    hash = ngx_murmur_hash2(cache->key, cache->key_len);

    if (cache->stored.varies) {
        ngx_memcpy(&variant, cache->stored.variant, sizeof(uint32_t));
        hash ^= variant;
    }

    hot = &ngx_http_coord_cache_hots[hash & (NGX_HTTP_COORD_CACHE_HOTS - 1)];

    if (hot->hash != hash || hot->found == 0) {
        hot->hash = hash;
        hot->found = ngx_current_msec;
        hot->copied = 0;
        return 0;
    }

    found = hot->found;
    hot->found = ngx_current_msec;

    if (ngx_current_msec - found > NGX_HTTP_COORD_CACHE_OFTEN
        || (hot->copied
            && ngx_current_msec - hot->copied < NGX_HTTP_COORD_CACHE_COPY))
    {
        return 0;
    }

    hot->copied = ngx_current_msec;

    return 1;
}


/* nobody waits for it */

static void
ngx_http_coord_cache_near_fetch(ngx_http_coord_cache_t *cache, u_char *key,
    size_t len, const char *suffix)
{
    u_char                 name[NGX_HTTP_COORD_CACHE_NAME];
    ngx_coord_near_wait_t  wait;
    ngx_coord_near_item_t  item;

    if (len == 0
        || ngx_http_coord_cache_near_item(cache->conf->near, key, len, suffix,
                                          name, &item)
           != NGX_OK
        || ngx_coord_near_fetch(&item, &wait) != NGX_OK)
    {
        return;
    }

    ngx_coord_near_leave(&wait);
}
