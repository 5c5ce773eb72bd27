
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * What there is to show, whatever the form: stores, zones, outcomes, rates.
 */


#include "ngx_http_coord_status.h"
#include "ngx_http_coord_conf.h"


static void ngx_http_coord_status_sum(ngx_coord_second_t *sum,
    ngx_coord_second_t *second);


ngx_int_t
ngx_http_coord_status_store(ngx_http_coord_status_t *st, ngx_uint_t n,
    ngx_http_coord_status_store_t *store)
{
    ngx_uint_t                    i;
    ngx_coord_zone_t             *zone;
    ngx_coord_store_t           **stores;
    ngx_http_coord_main_conf_t   *cmcf;

    cmcf = st->conf;
    stores = cmcf->stores.elts;
    store->store = NULL;

    if (n < cmcf->stores.nelts) {
        store->store = stores[n];
    }

    for (i = 0; n == cmcf->stores.nelts && store->store == NULL; i++) {
        zone = ngx_http_coord_status_zone(st, i);

        if (zone == NULL) {
            break;
        }

        if (zone->store == cmcf->local) {
            store->store = cmcf->local;
        }
    }

    if (store->store == NULL) {
        return NGX_DECLINED;
    }

    ngx_coord_metrics_store(&st->view, store->store, &store->stats);
    ngx_coord_metrics_info(store->store, &store->info);

    store->state = ngx_coord_metrics_store_state(store->store, &st->view,
                                                 &store->stats, &store->info);

    return NGX_OK;
}


ngx_coord_zone_t *
ngx_http_coord_status_zone(ngx_http_coord_status_t *st, ngx_uint_t n)
{
    ngx_http_coord_zone_conf_t  **zones;

    if (n >= st->conf->zones.nelts) {
        return NULL;
    }

    zones = st->conf->zones.elts;

    return &zones[n]->zone;
}


ngx_uint_t
ngx_http_coord_status_outcome(ngx_coord_zone_t *zone, ngx_uint_t outcome,
    ngx_uint_t *count)
{
    *count = ngx_coord_counts_outcome(zone->counts, outcome);

    return *count || (zone->kind->outcomes & (1 << outcome));
}


void
ngx_http_coord_status_rates(ngx_coord_zone_t *zone,
    ngx_http_coord_status_rates_t *rates)
{
    ngx_uint_t           i;
    ngx_coord_second_t  *second;

    ngx_memzero(rates, sizeof(ngx_http_coord_status_rates_t));

    ngx_coord_counts_history(zone->counts, rates->seconds,
                             NGX_HTTP_COORD_STATUS_HISTORY);

    for (i = 0; i < NGX_HTTP_COORD_STATUS_HISTORY; i++) {
        second = &rates->seconds[i];

        ngx_http_coord_status_sum(&rates->minute, second);

        if (i >= NGX_HTTP_COORD_STATUS_HISTORY - NGX_HTTP_COORD_STATUS_NOW) {
            ngx_http_coord_status_sum(&rates->now, second);
        }
    }
}


static void
ngx_http_coord_status_sum(ngx_coord_second_t *sum, ngx_coord_second_t *second)
{
    sum->all += second->all;
    sum->refused += second->refused;
    sum->bypassed += second->bypassed;
}
