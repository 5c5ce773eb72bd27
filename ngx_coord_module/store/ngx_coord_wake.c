
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Waiters of a worker.  Keys that are waited for stand in a tree; each has a
 * queue of waiters, one posted event for news and one timer for the lack of
 * them.
 */


#include "ngx_coord_wake.h"
#include "ngx_coord_channel.h"
#include "ngx_coord_timer.h"


typedef struct {
    ngx_str_node_t             node;      /* must be first */
    ngx_queue_t                waiters;
    ngx_queue_t               *next;      /* to be called */
    ngx_uint_t                 nwaiters;
    ngx_event_t                news;
    ngx_coord_timer_t          poll;
    ngx_msec_t                 interval;
    ngx_coord_store_t         *store;
    unsigned                   running:1; /* handlers are being called */
} ngx_coord_wake_key_t;


/* of a worker */
typedef struct {
    ngx_rbtree_t               tree;          /* of ngx_coord_wake_key_t */
    ngx_rbtree_node_t          sentinel;
    u_char                    *name;          /* that is looked up */
    size_t                     size;
} ngx_coord_wake_worker_t;


static ngx_coord_wake_key_t *ngx_coord_wake_find(ngx_coord_zone_t *zone,
    u_char *key, size_t len);
static ngx_coord_wake_key_t *ngx_coord_wake_create(ngx_coord_zone_t *zone,
    u_char *key, size_t len);
static ngx_int_t ngx_coord_wake_name(ngx_coord_zone_t *zone, u_char *key,
    size_t len, ngx_str_t *name);
static ngx_coord_wake_key_t *ngx_coord_wake_lookup(ngx_str_t *name);
static void ngx_coord_wake_drop(ngx_coord_wake_key_t *wk);
static void ngx_coord_wake_news(ngx_event_t *ev);
static void ngx_coord_wake_schedule(ngx_coord_wake_key_t *wk);
static void ngx_coord_wake_message(void *data, ngx_str_t *channel,
    ngx_str_t *message);
static void ngx_coord_wake_subscribed(void *data);


static ngx_coord_wake_worker_t  ngx_coord_wakes;


ngx_int_t
ngx_coord_wake_zone(ngx_pool_t *pool, ngx_coord_zone_t *zone)
{
    return ngx_coord_channel_add(pool, zone->store, "wake",
                                 ngx_coord_wake_message,
                                 ngx_coord_wake_subscribed,
                                 &zone->store->wake);
}


ngx_int_t
ngx_coord_wait_add(ngx_coord_waiter_t *waiter, ngx_coord_zone_t *zone,
    u_char *key, size_t len, ngx_msec_t poll)
{
    ngx_coord_wake_key_t  *wk;

    wk = ngx_coord_wake_find(zone, key, len);

    if (wk == NULL) {
        wk = ngx_coord_wake_create(zone, key, len);

        if (wk == NULL) {
            return NGX_ERROR;
        }
    }

    waiter->zone = zone;
    waiter->wait = wk;
    waiter->active = 1;

    ngx_queue_insert_tail(&wk->waiters, &waiter->queue);
    wk->nwaiters++;

    if (!wk->poll.event.timer_set || poll < wk->interval) {
        wk->interval = ngx_max(poll, 2);

        if (!wk->running) {
            ngx_coord_wake_schedule(wk);
        }
    }

    return NGX_OK;
}


void
ngx_coord_wait_remove(ngx_coord_waiter_t *waiter)
{
    ngx_coord_wake_key_t  *wk;

    if (!waiter->active) {
        return;
    }

    wk = waiter->wait;

    waiter->active = 0;

    if (wk->next == &waiter->queue) {
        wk->next = ngx_queue_next(wk->next);
    }

    ngx_queue_remove(&waiter->queue);
    wk->nwaiters--;

    ngx_coord_wake_drop(wk);
}


ngx_coord_waiter_t *
ngx_coord_wait_first(ngx_coord_zone_t *zone, u_char *key, size_t len)
{
    ngx_coord_wake_key_t  *wk;

    wk = ngx_coord_wake_find(zone, key, len);

    if (wk == NULL || ngx_queue_empty(&wk->waiters)) {
        return NULL;
    }

    return ngx_queue_data(ngx_queue_head(&wk->waiters), ngx_coord_waiter_t,
                          queue);
}


void
ngx_coord_wait_hurry(ngx_coord_waiter_t *waiter, ngx_msec_t delay)
{
    ngx_msec_int_t         left;
    ngx_coord_wake_key_t  *wk;

    wk = waiter->wait;

    if (!waiter->active || wk->running || !wk->poll.event.timer_set) {
        return;
    }

    left = (ngx_msec_int_t) (wk->poll.event.timer.key - ngx_current_msec);

    if ((ngx_msec_int_t) delay < left) {
        ngx_coord_timer_stop(&wk->poll);
        ngx_coord_timer_start(&wk->poll, delay);
    }
}


void
ngx_coord_wake(ngx_coord_zone_t *zone, u_char *key, size_t len)
{
    ngx_coord_wake_key_t  *wk;

    wk = ngx_coord_wake_find(zone, key, len);

    if (wk && !wk->news.posted) {
        ngx_post_event(&wk->news, &ngx_posted_events);
    }
}


/* "<head><key>", valid until the next call */

static ngx_int_t
ngx_coord_wake_name(ngx_coord_zone_t *zone, u_char *key, size_t len,
    ngx_str_t *name)
{
    name->len = zone->key_head.len + len;

    if (name->len > ngx_coord_wakes.size) {

        if (ngx_coord_wakes.name) {
            ngx_free(ngx_coord_wakes.name);
        }

        ngx_coord_wakes.size = 0;
        ngx_coord_wakes.name = ngx_alloc(name->len, ngx_cycle->log);

        if (ngx_coord_wakes.name == NULL) {
            return NGX_ERROR;
        }

        ngx_coord_wakes.size = name->len;
    }

    ngx_memcpy(ngx_coord_wakes.name, zone->key_head.data, zone->key_head.len);
    ngx_memcpy(ngx_coord_wakes.name + zone->key_head.len, key, len);

    name->data = ngx_coord_wakes.name;

    return NGX_OK;
}


static ngx_coord_wake_key_t *
ngx_coord_wake_lookup(ngx_str_t *name)
{
    if (ngx_coord_wakes.tree.root == NULL) {
        return NULL;
    }

    return (ngx_coord_wake_key_t *)
               ngx_str_rbtree_lookup(&ngx_coord_wakes.tree, name,
                                     ngx_crc32_long(name->data, name->len));
}


static ngx_coord_wake_key_t *
ngx_coord_wake_find(ngx_coord_zone_t *zone, u_char *key, size_t len)
{
    ngx_str_t  name;

    if (ngx_coord_wake_name(zone, key, len, &name) != NGX_OK) {
        return NULL;
    }

    return ngx_coord_wake_lookup(&name);
}


static ngx_coord_wake_key_t *
ngx_coord_wake_create(ngx_coord_zone_t *zone, u_char *key, size_t len)
{
    ngx_str_t              name;
    ngx_coord_wake_key_t  *wk;

    if (ngx_coord_wakes.tree.root == NULL) {
        ngx_rbtree_init(&ngx_coord_wakes.tree, &ngx_coord_wakes.sentinel,
                        ngx_str_rbtree_insert_value);
    }

    if (ngx_coord_wake_name(zone, key, len, &name) != NGX_OK) {
        return NULL;
    }

    wk = ngx_calloc(sizeof(ngx_coord_wake_key_t) + name.len, ngx_cycle->log);

    if (wk == NULL) {
        return NULL;
    }

    ngx_queue_init(&wk->waiters);

    wk->store = zone->store;

    wk->news.handler = ngx_coord_wake_news;
    wk->news.data = &wk->poll;
    wk->news.log = ngx_cycle->log;

    ngx_coord_timer_init(&wk->poll, ngx_coord_wake_news, wk, ngx_cycle->log);
    wk->poll.event.cancelable = 1;

    wk->node.str.data = (u_char *) wk + sizeof(ngx_coord_wake_key_t);
    wk->node.str.len = name.len;
    ngx_memcpy(wk->node.str.data, name.data, name.len);

    wk->node.node.key = ngx_crc32_long(name.data, name.len);

    ngx_rbtree_insert(&ngx_coord_wakes.tree, &wk->node.node);

    return wk;
}


static void
ngx_coord_wake_drop(ngx_coord_wake_key_t *wk)
{
    if (wk->nwaiters || wk->running) {
        return;
    }

    ngx_coord_timer_stop(&wk->poll);

    if (wk->news.posted) {
        ngx_delete_posted_event(&wk->news);
    }

    ngx_rbtree_delete(&ngx_coord_wakes.tree, &wk->node.node);

    ngx_free(wk);
}


/* news, or none for too long */

static void
ngx_coord_wake_news(ngx_event_t *ev)
{
    ngx_coord_waiter_t    *waiter;
    ngx_coord_wake_key_t  *wk;

    wk = ngx_coord_timer_data(ev);
    wk->running = 1;
    wk->next = ngx_queue_head(&wk->waiters);

    while (wk->next != ngx_queue_sentinel(&wk->waiters)) {
        waiter = ngx_queue_data(wk->next, ngx_coord_waiter_t, queue);

        wk->next = ngx_queue_next(wk->next);

        if (waiter->handler(waiter) == NGX_OK) {
            break;
        }
    }

    wk->running = 0;
    wk->next = NULL;

    if (wk->nwaiters) {
        ngx_coord_wake_schedule(wk);
    }

    ngx_coord_wake_drop(wk);
}


/* somewhere in the second half of the interval: workers do not ask in step */

static void
ngx_coord_wake_schedule(ngx_coord_wake_key_t *wk)
{
    ngx_msec_t  half;

    ngx_coord_timer_stop(&wk->poll);

    half = wk->interval / 2;

    ngx_coord_timer_start(&wk->poll,
                          half + (ngx_msec_t) ngx_random() % (half + 1));
}


/* the message is the Redis key: "<head><key>}" */

static void
ngx_coord_wake_message(void *data, ngx_str_t *channel, ngx_str_t *message)
{
    ngx_str_t              name;
    ngx_coord_wake_key_t  *wk;

    if (message->len == 0) {
        return;
    }

    name.data = message->data;
    name.len = message->len - 1;

    wk = ngx_coord_wake_lookup(&name);

    if (wk && wk->store == data && !wk->news.posted) {
        ngx_post_event(&wk->news, &ngx_posted_events);
    }
}


/* messages may have been missed: every key of the store looks again */

static void
ngx_coord_wake_subscribed(void *data)
{
    ngx_rbtree_node_t     *node;
    ngx_coord_wake_key_t  *wk;

    node = ngx_coord_wakes.tree.root;

    if (node == NULL || node == &ngx_coord_wakes.sentinel) {
        return;
    }

    for (node = ngx_rbtree_min(node, &ngx_coord_wakes.sentinel);
         node;
         node = ngx_rbtree_next(&ngx_coord_wakes.tree, node))
    {
        wk = (ngx_coord_wake_key_t *) node;

        if (wk->store == data && !wk->news.posted) {
            ngx_post_event(&wk->news, &ngx_posted_events);
        }
    }
}
