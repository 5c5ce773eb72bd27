
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The status in the text format of Prometheus, 0.0.4.
 */


#include "ngx_http_coord_status.h"


static void ngx_http_coord_status_prom_metric(ngx_http_coord_status_t *st,
    ngx_http_coord_out_t *out, const ngx_coord_metric_t *metric);
static void ngx_http_coord_status_prom_stores(ngx_http_coord_status_t *st,
    ngx_http_coord_out_t *out, const ngx_coord_metric_t *metric);
static void ngx_http_coord_status_prom_results(
    ngx_http_coord_status_store_t *s, ngx_http_coord_out_t *out,
    const ngx_coord_metric_t *metric);
static void ngx_http_coord_status_prom_latency(
    ngx_http_coord_status_store_t *s, ngx_http_coord_out_t *out,
    const ngx_coord_metric_t *metric);
static void ngx_http_coord_status_prom_zones(ngx_http_coord_status_t *st,
    ngx_http_coord_out_t *out, const ngx_coord_metric_t *metric);
static void ngx_http_coord_status_prom_zone(ngx_coord_zone_t *zone,
    ngx_http_coord_out_t *out, const ngx_coord_metric_t *metric,
    const ngx_str_t *outcome, ngx_uint_t value);
static void ngx_http_coord_status_prom_value(ngx_http_coord_out_t *out,
    const ngx_coord_metric_t *metric, ngx_uint_t value);


static const ngx_str_t  ngx_http_coord_prom_types[] = {
    ngx_string("counter"),
    ngx_string("gauge"),
    ngx_string("histogram")
};


ngx_int_t
ngx_http_coord_status_prom(ngx_http_coord_status_t *st,
    ngx_http_coord_out_t *out)
{
    const ngx_coord_metric_t  *metric;

    for (metric = ngx_coord_metrics_table; metric->name.len; metric++) {

        ngx_http_coord_out_printf(out, "# HELP %V %V\n# TYPE %V %V\n",
                                  &metric->name, &metric->help, &metric->name,
                                  &ngx_http_coord_prom_types[metric->type]);

        ngx_http_coord_status_prom_metric(st, out, metric);
    }

    return NGX_OK;
}


static void
ngx_http_coord_status_prom_metric(ngx_http_coord_status_t *st,
    ngx_http_coord_out_t *out, const ngx_coord_metric_t *metric)
{
    switch (metric->scope) {

    case NGX_COORD_METRIC_NODE:
        ngx_http_coord_out_printf(out, "%V %ui\n", &metric->name,
                                  st->view.workers);
        break;

    case NGX_COORD_METRIC_DECISIONS:
    case NGX_COORD_METRIC_ZONE:
    case NGX_COORD_METRIC_MEMORY:
        ngx_http_coord_status_prom_zones(st, out, metric);
        break;

    default:
        ngx_http_coord_status_prom_stores(st, out, metric);
        break;
    }
}


static void
ngx_http_coord_status_prom_stores(ngx_http_coord_status_t *st,
    ngx_http_coord_out_t *out, const ngx_coord_metric_t *metric)
{
    ngx_uint_t                      i, n;
    ngx_http_coord_status_store_t  *s;

    for (i = 0; i < st->nstores; i++) {
        s = &st->stores[i];

        if (metric->scope == NGX_COORD_METRIC_RESULTS) {
            ngx_http_coord_status_prom_results(s, out, metric);
            continue;
        }

        /* a store in memory answers at once */

        if (metric->usec && ngx_coord_store_is_memory(s->store)) {
            continue;
        }

        if (metric->scope == NGX_COORD_METRIC_LATENCY) {
            ngx_http_coord_status_prom_latency(s, out, metric);
            continue;
        }

        if (metric->scope == NGX_COORD_METRIC_STATE) {
            n = (s->state != NGX_COORD_STORE_DOWN);

        } else {
            n = *(ngx_atomic_t *) ((u_char *) &s->stats + metric->offset);
        }

        ngx_http_coord_out_str(out, &metric->name);
        ngx_http_coord_out_text(out, "{store=\"");
        ngx_http_coord_out_label(out, &s->store->name);
        ngx_http_coord_out_text(out, "\"} ");
        ngx_http_coord_status_prom_value(out, metric, n);
    }
}


static void
ngx_http_coord_status_prom_results(ngx_http_coord_status_store_t *s,
    ngx_http_coord_out_t *out, const ngx_coord_metric_t *metric)
{
    ngx_uint_t  i;

    for (i = NGX_COORD_FAIL_NONE; i < NGX_COORD_FAIL_MAX; i++) {
        ngx_http_coord_out_str(out, &metric->name);
        ngx_http_coord_out_text(out, "{store=\"");
        ngx_http_coord_out_label(out, &s->store->name);
        ngx_http_coord_out_text(out, "\",result=\"");

        if (i == NGX_COORD_FAIL_NONE) {
            ngx_http_coord_out_printf(out, "ok\"} %ui\n",
                                      s->stats.calls - s->stats.late);
            continue;
        }

        ngx_http_coord_out_printf(out, "%V\"} %ui\n",
                                  &ngx_coord_fail_names[i],
                                  s->stats.failures[i]);
    }
}


static void
ngx_http_coord_status_prom_latency(ngx_http_coord_status_store_t *s,
    ngx_http_coord_out_t *out, const ngx_coord_metric_t *metric)
{
    ngx_uint_t  i, n, usec;

    n = 0;

    for (i = 0; i <= NGX_COORD_LATENCY_BUCKETS; i++) {
        n += s->stats.latency[i];

        ngx_http_coord_out_printf(out, "%V_bucket{store=\"", &metric->name);
        ngx_http_coord_out_label(out, &s->store->name);

        if (i == NGX_COORD_LATENCY_BUCKETS) {
            ngx_http_coord_out_printf(out, "\",le=\"+Inf\"} %ui\n", n);
            break;
        }

        usec = ngx_coord_latency_bounds[i];

        ngx_http_coord_out_printf(out, "\",le=\"%ui.%06ui\"} %ui\n",
                                  usec / 1000000, usec % 1000000, n);
    }

    ngx_http_coord_out_printf(out, "%V_sum{store=\"", &metric->name);
    ngx_http_coord_out_label(out, &s->store->name);
    ngx_http_coord_out_text(out, "\"} ");
    ngx_http_coord_status_prom_value(out, metric, s->stats.latency_usec);

    /* the sum of the buckets, so that both agree while others count */

    ngx_http_coord_out_printf(out, "%V_count{store=\"", &metric->name);
    ngx_http_coord_out_label(out, &s->store->name);
    ngx_http_coord_out_printf(out, "\"} %ui\n", n);
}


static void
ngx_http_coord_status_prom_zones(ngx_http_coord_status_t *st,
    ngx_http_coord_out_t *out, const ngx_coord_metric_t *metric)
{
    ngx_uint_t         i, n, count;
    ngx_coord_zone_t  *zone;

    for (i = 0; /* void */ ; i++) {
        zone = ngx_http_coord_status_zone(st, i);

        if (zone == NULL) {
            break;
        }

        if (metric->scope != NGX_COORD_METRIC_DECISIONS) {

            if (ngx_http_coord_status_metric(st, zone, metric, &count)
                == NGX_OK)
            {
                ngx_http_coord_status_prom_zone(zone, out, metric, NULL,
                                                count);
            }

            continue;
        }

        for (n = 0; n < NGX_COORD_OUTCOME_MAX; n++) {
            if (ngx_http_coord_status_outcome(zone, n, &count)) {
                ngx_http_coord_status_prom_zone(zone, out, metric,
                                                &ngx_coord_outcomes[n].name,
                                                count);
            }
        }
    }
}


static void
ngx_http_coord_status_prom_zone(ngx_coord_zone_t *zone,
    ngx_http_coord_out_t *out, const ngx_coord_metric_t *metric,
    const ngx_str_t *outcome, ngx_uint_t value)
{
    ngx_http_coord_out_printf(out, "%V{feature=\"%V\",zone=\"", &metric->name,
                              &zone->kind->name);
    ngx_http_coord_out_label(out, &zone->name);

    if (outcome) {
        ngx_http_coord_out_printf(out, "\",outcome=\"%V", outcome);
    }

    ngx_http_coord_out_text(out, "\"} ");
    ngx_http_coord_status_prom_value(out, metric, value);
}


static void
ngx_http_coord_status_prom_value(ngx_http_coord_out_t *out,
    const ngx_coord_metric_t *metric, ngx_uint_t value)
{
    if (metric->usec) {
        ngx_http_coord_out_printf(out, "%ui.%06ui\n", value / 1000000,
                                  value % 1000000);
        return;
    }

    ngx_http_coord_out_printf(out, "%ui\n", value);
}
