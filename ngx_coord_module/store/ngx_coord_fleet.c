
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The summaries of the nodes, in shared memory.
 */


#include "ngx_coord_fleet_shm.h"


#define NGX_COORD_FLEET_SECONDS  60


static ngx_int_t ngx_coord_fleet_init(ngx_shm_zone_t *shm_zone, void *data);
static void ngx_coord_fleet_name(ngx_coord_fleet_shm_t *shm, ngx_str_t *host);
static ngx_uint_t ngx_coord_fleet_away(ngx_coord_metrics_t *metrics,
    ngx_coord_metrics_view_t *view);
static void ngx_coord_fleet_zone(ngx_coord_zone_t *zone,
    ngx_coord_summary_zone_t *sum);
static ngx_coord_fleet_slot_t *ngx_coord_fleet_slot(
    ngx_coord_fleet_shm_t *shm, ngx_str_t *name);
static ngx_int_t ngx_coord_fleet_copy(ngx_coord_fleet_slot_t *slot,
    ngx_coord_fleet_node_t *node);
static ngx_uint_t ngx_coord_fleet_lives(ngx_coord_fleet_slot_t *slot);


ngx_int_t
ngx_coord_fleet_add(ngx_conf_t *cf, ngx_coord_metrics_t *metrics, void *tag)
{
    ngx_str_t        name;
    ngx_shm_zone_t  *shm_zone;

    if (ngx_coord_fleet_store(metrics) == NULL) {
        return NGX_OK;
    }

    ngx_str_set(&name, "coord_fleet");

    shm_zone = ngx_shared_memory_add(cf, &name,
                                     ngx_align(sizeof(ngx_coord_fleet_shm_t),
                                               ngx_pagesize)
                                     + 8 * ngx_pagesize,
                                     tag);
    if (shm_zone == NULL) {
        return NGX_ERROR;
    }

    /* ngx_cycle has none yet when the memory is made */

    metrics->host = cf->cycle->hostname;

    shm_zone->init = ngx_coord_fleet_init;
    shm_zone->data = metrics;

    return NGX_OK;
}


static ngx_int_t
ngx_coord_fleet_init(ngx_shm_zone_t *shm_zone, void *data)
{
    ngx_slab_pool_t        *shpool;
    ngx_coord_metrics_t    *metrics;
    ngx_coord_fleet_shm_t  *shm;

    metrics = shm_zone->data;
    shpool = (ngx_slab_pool_t *) shm_zone->shm.addr;

    if (shpool->data == NULL) {

        /* the memory is new and zero: its pages are touched when used */

        shm = ngx_slab_alloc(shpool, sizeof(ngx_coord_fleet_shm_t));
        if (shm == NULL) {
            return NGX_ERROR;
        }

        ngx_coord_fleet_name(shm, &metrics->host);

        shpool->data = shm;
    }

    metrics->fleet = shpool->data;

    return NGX_OK;
}


/*
 * The host's name and a few random digits: two nodes may run on one host.  It
 * lasts as long as the shared memory: a reload keeps it, and an upgrade, which
 * runs beside what it upgrades, is another node.
 */

static void
ngx_coord_fleet_name(ngx_coord_fleet_shm_t *shm, ngx_str_t *host)
{
    u_char      *p, *last;
    ngx_uint_t   i;

    p = shm->name;
    last = shm->name + NGX_COORD_SUMMARY_WORD - sizeof("-12345678") + 1;

    for (i = 0; i < host->len && p < last; i++) {
        *p = host->data[i];

        if (*p <= ' ' || *p > '~') {
            *p = '_';
        }

        p++;
    }

    p = ngx_sprintf(p, "-%08xD", (uint32_t) (ngx_random() ^ ngx_pid << 16
                                             ^ ngx_coord_monotonic()));

    shm->name_len = p - shm->name;
    shm->start = ngx_current_msec;

    /* in the master, before it may become a daemon */

    shm->upgrades = ngx_inherited ? (ngx_uint_t) ngx_parent : 0;
}


ngx_coord_store_t *
ngx_coord_fleet_store(ngx_coord_metrics_t *metrics)
{
    ngx_uint_t           i;
    ngx_coord_store_t  **stores;

    stores = metrics->stores->elts;

    for (i = 0; i < metrics->stores->nelts; i++) {
        if (!ngx_coord_store_is_memory(stores[i])) {
            return stores[i];
        }
    }

    return NULL;
}


size_t
ngx_coord_fleet_write(ngx_coord_metrics_t *metrics, u_char *text)
{
    u_char                     line[NGX_COORD_SUMMARY_HEAD], *p, *last;
    ngx_uint_t                 i;
    ngx_time_t                *tp;
    ngx_coord_zone_t         **zones;
    ngx_coord_summary_t        s;
    ngx_coord_metrics_view_t   view;
    ngx_coord_summary_zone_t   sum;

    ngx_memzero(&s, sizeof(ngx_coord_summary_t));

    ngx_coord_metrics_look(metrics->shm, &view);

    tp = ngx_timeofday();

    s.node.data = metrics->fleet->name;
    s.node.len = metrics->fleet->name_len;
    ngx_str_set(&s.nginx, NGINX_VERSION);
    s.time = (uint64_t) tp->sec * 1000 + tp->msec;
    s.uptime = (ngx_current_msec - metrics->fleet->start) / 1000;
    s.workers = view.workers;
    s.trouble = ngx_coord_fleet_away(metrics, &view);
    s.master = (ngx_process == NGX_PROCESS_SINGLE) ? ngx_pid : ngx_parent;
    s.upgrades = metrics->fleet->upgrades;

    /* the zones are looked at first: they tell whether there is trouble */

    p = text + sizeof(line);
    last = text + NGX_COORD_SUMMARY_SIZE;

    zones = metrics->zones->elts;

    for (i = 0; i < metrics->zones->nelts; i++) {
        ngx_coord_fleet_zone(zones[i], &sum);

        p = ngx_coord_summary_write_zone(p, last, &sum);
        s.trouble += sum.minute_bypassed ? 1 : 0;
    }

    last = ngx_coord_summary_write(line, line + sizeof(line), &s);

    ngx_memmove(text + (last - line), text + sizeof(line),
                p - text - sizeof(line));
    ngx_memcpy(text, line, last - line);

    return p - text - sizeof(line) + (last - line);
}


/* how many stores are not up */

static ngx_uint_t
ngx_coord_fleet_away(ngx_coord_metrics_t *metrics,
    ngx_coord_metrics_view_t *view)
{
    ngx_uint_t                i, n;
    ngx_coord_store_t       **stores;
    ngx_coord_store_info_t    info;
    ngx_coord_store_stats_t   stats;

    n = 0;
    stores = metrics->stores->elts;

    for (i = 0; i < metrics->stores->nelts; i++) {
        ngx_coord_metrics_store(view, stores[i], &stats);
        ngx_coord_metrics_info(stores[i], &info);

        if (ngx_coord_metrics_store_state(stores[i], view, &stats, &info)
            != NGX_COORD_STORE_UP)
        {
            n++;
        }
    }

    return n;
}


static void
ngx_coord_fleet_zone(ngx_coord_zone_t *zone, ngx_coord_summary_zone_t *sum)
{
    ngx_uint_t          i, n;
    ngx_coord_second_t  seconds[NGX_COORD_FLEET_SECONDS];

    ngx_memzero(sum, sizeof(ngx_coord_summary_zone_t));

    sum->feature = zone->kind->name;
    sum->name = zone->name;

    for (i = 0; i < NGX_COORD_OUTCOME_MAX; i++) {
        n = ngx_coord_counts_outcome(zone->counts, i);

        sum->total += n;
        sum->refused += ngx_coord_outcomes[i].refused ? n : 0;
    }

    sum->bypassed = ngx_coord_counts_outcome(zone->counts,
                                             NGX_COORD_OUTCOME_BYPASSED);

    ngx_coord_counts_history(zone->counts, seconds, NGX_COORD_FLEET_SECONDS);

    for (i = 0; i < NGX_COORD_FLEET_SECONDS; i++) {
        sum->minute += seconds[i].all;
        sum->minute_refused += seconds[i].refused;
        sum->minute_bypassed += seconds[i].bypassed;
    }
}


/* the version is as in ngx_coord_probe_publish() */

void
ngx_coord_fleet_keep(ngx_coord_fleet_shm_t *shm, ngx_str_t *name,
    ngx_str_t *text, uint64_t time)
{
    ngx_atomic_uint_t        version;
    ngx_coord_fleet_slot_t  *slot;

    slot = ngx_coord_fleet_slot(shm, name);

    if (slot == NULL) {
        return;
    }

    version = slot->version | 1;
    slot->version = version;

    ngx_memory_barrier();

    if (slot->name_len != name->len
        || ngx_memcmp(slot->name, name->data, name->len) != 0
        || slot->time != time)
    {
        slot->heard = ngx_current_msec;
    }

    slot->time = time;
    slot->len = text->len;
    ngx_memcpy(slot->text, text->data, text->len);

    slot->name_len = name->len;
    ngx_memcpy(slot->name, name->data, name->len);

    ngx_memory_barrier();

    slot->version = version + 1;
}


/*
 * That of the node, or one that is free, or that of who is gone for longest;
 * NULL: all are taken.
 */

static ngx_coord_fleet_slot_t *
ngx_coord_fleet_slot(ngx_coord_fleet_shm_t *shm, ngx_str_t *name)
{
    ngx_uint_t               i;
    ngx_coord_fleet_slot_t  *slot, *found;

    found = NULL;

    for (i = 0; i < NGX_COORD_FLEET_NODES; i++) {
        slot = &shm->slots[i];

        if (slot->name_len == name->len
            && ngx_memcmp(slot->name, name->data, name->len) == 0)
        {
            return slot;
        }

        if (!ngx_coord_fleet_lives(slot)
            && (found == NULL
                || (found->name_len
                    && (slot->name_len == 0
                        || (ngx_msec_int_t) (slot->heard - found->heard) < 0))))
        {
            found = slot;
        }
    }

    return found;
}


static ngx_uint_t
ngx_coord_fleet_lives(ngx_coord_fleet_slot_t *slot)
{
    return slot->name_len
           && (ngx_msec_int_t) (ngx_current_msec - slot->heard)
              < NGX_COORD_FLEET_GONE;
}


ngx_int_t
ngx_coord_fleet_node(ngx_coord_metrics_t *metrics, ngx_uint_t n,
    ngx_coord_fleet_node_t *node)
{
    ngx_uint_t               i;
    ngx_coord_fleet_slot_t  *slot;

    if (metrics->fleet == NULL) {
        return NGX_DECLINED;
    }

    if (n == 0) {
        node->age = 0;
        node->self = 1;
        node->silent = 0;
        node->len = ngx_coord_fleet_write(metrics, node->text);

        return NGX_OK;
    }

    for (i = 0; i < NGX_COORD_FLEET_NODES; i++) {
        slot = &metrics->fleet->slots[i];

        if (ngx_coord_fleet_lives(slot) && --n == 0) {
            return ngx_coord_fleet_copy(slot, node);
        }
    }

    return NGX_DECLINED;
}


ngx_int_t
ngx_coord_fleet_lost(ngx_coord_metrics_t *metrics, ngx_uint_t n,
    ngx_coord_fleet_node_t *node)
{
    ngx_uint_t               i;
    ngx_coord_fleet_slot_t  *slot;

    if (metrics->fleet == NULL) {
        return NGX_DECLINED;
    }

    for (i = 0; i < NGX_COORD_FLEET_NODES; i++) {
        slot = &metrics->fleet->slots[i];

        if (slot->name_len
            && !ngx_coord_fleet_lives(slot)
            && ngx_current_msec - slot->heard < NGX_COORD_FLEET_LOST
            && n-- == 0)
        {
            return ngx_coord_fleet_copy(slot, node);
        }
    }

    return NGX_DECLINED;
}


/*
 * A slot that a worker was killed over stays as it is until the next one writes
 * it: its node has no text until then.
 */

static ngx_int_t
ngx_coord_fleet_copy(ngx_coord_fleet_slot_t *slot,
    ngx_coord_fleet_node_t *node)
{
    ngx_uint_t         i;
    ngx_atomic_uint_t  version;

    for (i = 0; i < 100; i++) {
        version = slot->version;

        ngx_memory_barrier();

        node->self = 0;
        node->age = ngx_current_msec - slot->heard;
        node->silent = (node->age >= NGX_COORD_FLEET_SILENT);
        node->len = ngx_min(slot->len, NGX_COORD_SUMMARY_SIZE);

        ngx_memcpy(node->text, slot->text, node->len);

        ngx_memory_barrier();

        if ((version & 1) == 0 && version == slot->version) {
            return NGX_OK;
        }

        ngx_cpu_pause();
    }

    node->len = 0;

    return NGX_OK;
}


void
ngx_coord_fleet_count(ngx_coord_fleet_shm_t *shm)
{
    ngx_uint_t               i, n;
    ngx_coord_fleet_slot_t  *slot;

    n = 1;

    for (i = 0; i < NGX_COORD_FLEET_NODES; i++) {
        slot = &shm->slots[i];

        if (ngx_coord_fleet_lives(slot)
            && ngx_current_msec - slot->heard < NGX_COORD_FLEET_SILENT)
        {
            n++;
        }
    }

    shm->nodes = n;
}
