
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * What there is to show, whatever the form: stores, zones, outcomes, rates.
 */


#include "ngx_http_coord_status.h"
#include "ngx_http_coord_conf.h"


#define NGX_HTTP_COORD_STATUS_WORDS  256      /* a sentence without names */


static void ngx_http_coord_status_store(ngx_http_coord_status_t *st,
    ngx_coord_store_t *store);
static ngx_int_t ngx_http_coord_status_away(ngx_http_coord_status_t *st,
    ngx_array_t *all, ngx_http_coord_status_store_t *s);
static ngx_int_t ngx_http_coord_status_open(ngx_http_coord_status_t *st,
    ngx_array_t *all, ngx_coord_zone_t *zone,
    ngx_http_coord_status_rates_t *rates);
static ngx_str_t *ngx_http_coord_status_words(ngx_http_coord_status_t *st,
    ngx_array_t *all, size_t names, u_char **last);
static ngx_http_coord_status_store_t *ngx_http_coord_status_culprit(
    ngx_http_coord_status_t *st, ngx_coord_zone_t *zone,
    ngx_http_coord_status_store_t *s);
static void ngx_http_coord_status_rates(ngx_coord_zone_t *zone,
    ngx_http_coord_status_rates_t *rates);
static void ngx_http_coord_status_sum(ngx_coord_second_t *sum,
    ngx_coord_second_t *second);


ngx_int_t
ngx_http_coord_status_look(ngx_http_coord_status_t *st, ngx_http_request_t *r)
{
    ngx_uint_t                    i;
    ngx_coord_zone_t             *zone;
    ngx_coord_store_t           **stores;
    ngx_http_coord_main_conf_t   *mcf;

    ngx_memzero(st, sizeof(ngx_http_coord_status_t));

    mcf = ngx_http_get_module_main_conf(r, ngx_http_coord_module);

    st->request = r;
    st->conf = mcf;

    ngx_coord_metrics_look(mcf->metrics.shm, &st->view);

    st->stores = ngx_pcalloc(r->pool, (mcf->stores.nelts + 1)
                                      * sizeof(ngx_http_coord_status_store_t));
    if (st->stores == NULL) {
        return NGX_ERROR;
    }

    stores = mcf->stores.elts;

    for (i = 0; i < mcf->stores.nelts; i++) {
        ngx_http_coord_status_store(st, stores[i]);
    }

    for (i = 0; /* void */ ; i++) {
        zone = ngx_http_coord_status_zone(st, i);

        if (zone == NULL) {
            return NGX_OK;
        }

        if (zone->store == mcf->local) {
            ngx_http_coord_status_store(st, mcf->local);
            return NGX_OK;
        }
    }
}


static void
ngx_http_coord_status_store(ngx_http_coord_status_t *st,
    ngx_coord_store_t *store)
{
    ngx_uint_t                      i;
    ngx_http_coord_status_store_t  *s;

    s = &st->stores[st->nstores++];

    s->store = store;

    ngx_coord_metrics_store(&st->view, store, &s->stats);
    ngx_coord_metrics_minute(store, &s->stats, &s->minute);
    ngx_coord_metrics_info(store, &s->info);

    s->state = ngx_coord_metrics_store_state(store, &st->view, &s->stats,
                                             &s->info);
    s->refusal = ngx_coord_metrics_refusal(store);

    /* an open breaker follows from what opened it */

    for (i = NGX_COORD_FAIL_NONE + 1; i < NGX_COORD_FAIL_MAX; i++) {
        if (i != NGX_COORD_FAIL_BREAKER
            && s->minute.failures[i] > s->minute.failures[s->reason])
        {
            s->reason = i;
        }
    }

    if (s->reason == NGX_COORD_FAIL_NONE) {
        s->reason = s->info.failure;
    }

    if (s->reason == NGX_COORD_FAIL_NONE
        && s->minute.failures[NGX_COORD_FAIL_BREAKER])
    {
        s->reason = NGX_COORD_FAIL_BREAKER;
    }
}


ngx_http_coord_status_store_t *
ngx_http_coord_status_of(ngx_http_coord_status_t *st, ngx_coord_zone_t *zone)
{
    ngx_uint_t  i;

    for (i = 0; st->stores[i].store != zone->store; i++) {
        /* void */
    }

    return &st->stores[i];
}


ngx_array_t *
ngx_http_coord_status_trouble(ngx_http_coord_status_t *st)
{
    ngx_uint_t                      i;
    ngx_array_t                    *all;
    ngx_coord_zone_t               *zone;
    ngx_http_coord_status_rates_t  *rates;

    all = ngx_array_create(st->request->pool, 4, sizeof(ngx_str_t));

    for (i = 0; all && i < st->nstores; i++) {
        if (st->stores[i].state != NGX_COORD_STORE_UP
            && ngx_http_coord_status_away(st, all, &st->stores[i]) != NGX_OK)
        {
            return NULL;
        }
    }

    for (i = 0; all; i++) {
        zone = ngx_http_coord_status_zone(st, i);

        if (zone == NULL) {
            break;
        }

        rates = &st->rates[i];

        if (rates->minute.bypassed
            && ngx_http_coord_status_open(st, all, zone, rates) != NGX_OK)
        {
            return NULL;
        }
    }

    return all;
}


/* "store main is down: timeout" */

static ngx_int_t
ngx_http_coord_status_away(ngx_http_coord_status_t *st, ngx_array_t *all,
    ngx_http_coord_status_store_t *s)
{
    u_char     *last;
    ngx_str_t  *words;

    words = ngx_http_coord_status_words(st, all, s->store->name.len, &last);

    if (words == NULL) {
        return NGX_ERROR;
    }

    last = ngx_slprintf(words->data, last, "store %V is %V", &s->store->name,
                        &ngx_coord_store_states[s->state]);

    if (s->refusal) {
        last = ngx_sprintf(last, ": it refuses, %V", s->refusal);

    } else if (s->state == NGX_COORD_STORE_DEGRADED) {
        last = ngx_sprintf(last, ": %uA of %ui workers reach it", s->stats.up,
                           st->view.workers);

    } else if (s->reason != NGX_COORD_FAIL_NONE) {
        last = ngx_sprintf(last, ": %V", &ngx_coord_fail_names[s->reason]);
    }

    words->len = last - words->data;

    return NGX_OK;
}


/* "limit_req one: 97.3% of the last minute's requests went on undecided .." */

static ngx_int_t
ngx_http_coord_status_open(ngx_http_coord_status_t *st, ngx_array_t *all,
    ngx_coord_zone_t *zone, ngx_http_coord_status_rates_t *rates)
{
    u_char                         *last;
    ngx_str_t                      *words;
    ngx_uint_t                      share;
    ngx_http_coord_status_store_t  *s;

    s = ngx_http_coord_status_of(st, zone);

    words = ngx_http_coord_status_words(st, all,
                                        zone->name.len + s->store->name.len,
                                        &last);
    if (words == NULL) {
        return NGX_ERROR;
    }

    share = rates->minute.bypassed * 1000 / ngx_max(rates->minute.all, 1);

    last = ngx_slprintf(words->data, last,
                        "%V %V: %ui.%ui%% of the requests of the last minute "
                        "(%ui of %ui) passed unprotected, store %V",
                        &zone->kind->name, &zone->name, share / 10, share % 10,
                        rates->minute.bypassed, rates->minute.all,
                        &s->store->name);

    if (s->reason != NGX_COORD_FAIL_NONE) {
        last = ngx_sprintf(last, ": %V", &ngx_coord_fail_names[s->reason]);
    }

    words->len = last - words->data;

    return NGX_OK;
}


ngx_int_t
ngx_http_coord_status_loss(ngx_http_coord_status_t *st, ngx_str_t *words)
{
    size_t                          size;
    u_char                         *p;
    ngx_uint_t                      i, n, all, lost, share;
    ngx_coord_zone_t               *zone;
    ngx_http_coord_status_store_t  *s;

    words->len = 0;

    n = 0;
    s = NULL;

    for (i = 0; /* void */ ; i++) {
        zone = ngx_http_coord_status_zone(st, i);

        if (zone == NULL) {
            break;
        }

        if (st->rates[i].minute.bypassed) {
            n++;
            s = ngx_http_coord_status_culprit(st, zone, s);
        }
    }

    if (n == 0) {
        return NGX_OK;
    }

    size = s->store->name.len + NGX_HTTP_COORD_STATUS_WORDS;

    words->data = ngx_pnalloc(st->request->pool, size);
    if (words->data == NULL) {
        return NGX_ERROR;
    }

    all = st->all.minute.all;
    lost = st->all.minute.bypassed;
    share = lost * 1000 / all;

    p = ngx_slprintf(words->data, words->data + size,
                     "%ui.%ui%% of the decisions of the last minute (%ui of "
                     "%ui) were not made: requests passed %ui zone%s "
                     "unprotected, store %V", share / 10, share % 10, lost,
                     all, n, n == 1 ? "" : "s", &s->store->name);

    if (s->reason != NGX_COORD_FAIL_NONE) {
        p = ngx_sprintf(p, ": %V", &ngx_coord_fail_names[s->reason]);
    }

    words->len = p - words->data;

    return NGX_OK;
}


/* s, or the store of a zone if that is worse */

static ngx_http_coord_status_store_t *
ngx_http_coord_status_culprit(ngx_http_coord_status_t *st,
    ngx_coord_zone_t *zone, ngx_http_coord_status_store_t *s)
{
    ngx_http_coord_status_store_t  *of;

    of = ngx_http_coord_status_of(st, zone);

    return (s && s->state <= of->state) ? s : of;
}


/* room for a sentence with names of so many bytes */

static ngx_str_t *
ngx_http_coord_status_words(ngx_http_coord_status_t *st, ngx_array_t *all,
    size_t names, u_char **last)
{
    size_t      size;
    ngx_str_t  *words;

    words = ngx_array_push(all);
    if (words == NULL) {
        return NULL;
    }

    size = names + NGX_HTTP_COORD_STATUS_WORDS;

    words->data = ngx_pnalloc(st->request->pool, size);
    if (words->data == NULL) {
        return NULL;
    }

    *last = words->data + size;

    return words;
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

    return *count || ((zone->kind->outcomes >> outcome) & 1);
}


ngx_int_t
ngx_http_coord_status_metric(ngx_http_coord_status_t *st,
    ngx_coord_zone_t *zone, const ngx_coord_metric_t *metric,
    ngx_uint_t *value)
{
    ngx_uint_t  values[NGX_COORD_MEMORY_MAX];

    switch (metric->scope) {

    case NGX_COORD_METRIC_ZONE:

        if (!(zone->kind->gauges & (1 << metric->offset))) {
            return NGX_DECLINED;
        }

        *value = ngx_coord_counts_state(zone->counts, &st->view,
                                        metric->offset);
        return NGX_OK;

    case NGX_COORD_METRIC_MEMORY:

        ngx_coord_metrics_memory(zone, values);

        *value = values[metric->offset];
        return NGX_OK;

    default:
        return NGX_DECLINED;
    }
}


const ngx_http_coord_route_t *
ngx_http_coord_status_route(ngx_http_coord_status_t *st,
    const ngx_coord_kind_t *kind)
{
    ngx_uint_t                      i;
    ngx_http_coord_feature_t      **features;
    const ngx_http_coord_route_t   *route;

    features = st->conf->features.elts;

    for (i = 0; i < st->conf->features.nelts; i++) {
        if (&features[i]->kind != kind) {
            continue;
        }

        for (route = features[i]->routes; route && route->name.len; route++) {
            if (route->any_zone == 0) {
                return route;
            }
        }
    }

    return NULL;
}


size_t
ngx_http_coord_status_tag(ngx_coord_zone_t *zone,
    ngx_coord_keys_entry_t *entry, u_char *tag)
{
    u_char     encoded[NGX_COORD_KEY_LEN];
    in_addr_t  addr;
    ngx_str_t  key, binary;
#if (NGX_HAVE_INET6)
    u_char     addr6[NGX_COORD_ADDRESS_LEN];
#endif

    key.data = entry->key;
    key.len = entry->len;

    if (!zone->address) {
        return ngx_coord_key_tag(tag, &key);
    }

    /* what is shown is an address, the key has its bytes */

    ngx_str_null(&binary);

    addr = ngx_inet_addr(key.data, key.len);

    if (addr != INADDR_NONE) {
        binary.data = (u_char *) &addr;
        binary.len = sizeof(in_addr_t);
    }

#if (NGX_HAVE_INET6)
    if (binary.len == 0 && ngx_inet6_addr(key.data, key.len, addr6) == NGX_OK) {
        binary.data = addr6;
        binary.len = NGX_COORD_ADDRESS_LEN;
    }
#endif

    if (binary.len) {
        key.len = ngx_coord_key_encode(encoded, &binary);
        key.data = encoded;
    }

    return ngx_coord_key_tag(tag, &key);
}


ngx_int_t
ngx_http_coord_status_gather(ngx_http_coord_status_t *st)
{
    ngx_uint_t                      i, n;
    ngx_coord_zone_t               *zone;
    ngx_http_coord_status_rates_t  *rates;

    st->rates = ngx_palloc(st->request->pool,
                           (st->conf->zones.nelts + 1)
                           * sizeof(ngx_http_coord_status_rates_t));
    if (st->rates == NULL) {
        return NGX_ERROR;
    }

    for (n = 0; /* void */ ; n++) {
        zone = ngx_http_coord_status_zone(st, n);

        if (zone == NULL) {
            return NGX_OK;
        }

        rates = &st->rates[n];

        ngx_http_coord_status_rates(zone, rates);

        ngx_http_coord_status_sum(&st->all.minute, &rates->minute);
        ngx_http_coord_status_sum(&st->all.now, &rates->now);

        for (i = 0; i < NGX_HTTP_COORD_STATUS_HISTORY; i++) {
            ngx_http_coord_status_sum(&st->all.seconds[i], &rates->seconds[i]);
        }
    }
}


/* what a zone has decided in the last minute */

static void
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


ngx_uint_t
ngx_http_coord_status_idle(ngx_http_coord_status_t *st, ngx_coord_zone_t *zone,
    ngx_http_coord_status_rates_t *rates)
{
    return rates->minute.all == 0
           && ngx_coord_counts_state(zone->counts, &st->view,
                                     NGX_COORD_GAUGE_LEASES)
              == 0
           && ngx_coord_counts_state(zone->counts, &st->view,
                                     NGX_COORD_GAUGE_WAITERS)
              == 0;
}


static void
ngx_http_coord_status_sum(ngx_coord_second_t *sum, ngx_coord_second_t *second)
{
    sum->all += second->all;
    sum->refused += second->refused;
    sum->bypassed += second->bypassed;
}
