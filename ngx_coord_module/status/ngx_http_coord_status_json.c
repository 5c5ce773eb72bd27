
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The status as JSON.
 */


#include "ngx_http_coord_status.h"
#include "ngx_http_coord_conf.h"


static void ngx_http_coord_status_json_node(ngx_http_coord_status_t *st,
    ngx_http_coord_out_t *out);
static void ngx_http_coord_status_json_api(ngx_http_coord_status_t *st,
    ngx_http_coord_out_t *out);
static void ngx_http_coord_status_json_metric(
    ngx_http_coord_status_store_t *s, ngx_http_coord_out_t *out,
    const ngx_coord_metric_t *metric);
static void ngx_http_coord_status_json_results(ngx_coord_store_stats_t *stats,
    ngx_http_coord_out_t *out, const char *name);
static void ngx_http_coord_status_json_latency(ngx_coord_store_stats_t *stats,
    ngx_http_coord_out_t *out, const char *name);
static void ngx_http_coord_status_json_quantiles(
    ngx_coord_store_stats_t *stats, ngx_http_coord_out_t *out);
static void ngx_http_coord_status_json_minute(
    ngx_http_coord_status_store_t *s, ngx_http_coord_out_t *out);
static void ngx_http_coord_status_json_topology(
    ngx_http_coord_status_store_t *s, ngx_http_coord_out_t *out);
static void ngx_http_coord_status_json_age(ngx_http_coord_out_t *out,
    const char *name, ngx_msec_t when);
static void ngx_http_coord_status_json_server(
    ngx_http_coord_status_store_t *s, ngx_http_coord_out_t *out);
static void ngx_http_coord_status_json_zone(ngx_http_coord_status_t *st,
    ngx_coord_zone_t *zone, ngx_http_coord_out_t *out,
    ngx_http_coord_status_rates_t *rates);
static void ngx_http_coord_status_json_text(ngx_coord_zone_t *zone,
    ngx_http_coord_out_t *out);
static void ngx_http_coord_status_json_decisions(ngx_coord_zone_t *zone,
    ngx_http_coord_out_t *out);
static void ngx_http_coord_status_json_rates(
    ngx_http_coord_status_rates_t *rates, ngx_http_coord_out_t *out);
static void ngx_http_coord_status_json_route(ngx_http_coord_status_t *st,
    ngx_coord_zone_t *zone, ngx_http_coord_out_t *out);
static void ngx_http_coord_status_json_keys(ngx_coord_zone_t *zone,
    ngx_http_coord_out_t *out);


ngx_int_t
ngx_http_coord_status_json(ngx_http_coord_status_t *st,
    ngx_http_coord_out_t *out)
{
    ngx_str_t         *words, loss;
    ngx_uint_t         i;
    ngx_array_t       *trouble;
    ngx_coord_zone_t  *zone;

    if (ngx_http_coord_status_gather(st) != NGX_OK) {
        return NGX_ERROR;
    }

    trouble = ngx_http_coord_status_trouble(st);

    if (trouble == NULL
        || ngx_http_coord_status_loss(st, &loss) != NGX_OK
        || ngx_http_coord_status_fleet_look(st) != NGX_OK)
    {
        return NGX_ERROR;
    }

    ngx_http_coord_json_open(out, NULL, '{');

    ngx_http_coord_status_json_node(st, out);
    ngx_http_coord_status_json_api(st, out);

    ngx_http_coord_status_json_rates(&st->all, out);

    if (loss.len) {
        ngx_http_coord_json_string(out, "unprotected", &loss);

    } else {
        ngx_http_coord_json_null(out, "unprotected");
    }

    ngx_http_coord_json_open(out, "trouble", '[');

    words = trouble->elts;

    for (i = 0; i < trouble->nelts; i++) {
        ngx_http_coord_json_string(out, NULL, &words[i]);
    }

    ngx_http_coord_json_close(out, ']');

    ngx_http_coord_json_open(out, "stores", '[');

    for (i = 0; i < st->nstores; i++) {
        ngx_http_coord_json_open(out, NULL, '{');
        ngx_http_coord_status_json_store(&st->stores[i], out);
        ngx_http_coord_json_close(out, '}');
    }

    ngx_http_coord_json_close(out, ']');

    ngx_http_coord_json_open(out, "zones", '[');

    for (i = 0; /* void */ ; i++) {
        zone = ngx_http_coord_status_zone(st, i);

        if (zone == NULL) {
            break;
        }

        ngx_http_coord_status_json_zone(st, zone, out, &st->rates[i]);
    }

    ngx_http_coord_json_close(out, ']');

    ngx_http_coord_status_fleet_json(st, out);

    ngx_http_coord_json_close(out, '}');
    ngx_http_coord_out_text(out, "\n");

    return NGX_OK;
}


static void
ngx_http_coord_status_json_node(ngx_http_coord_status_t *st,
    ngx_http_coord_out_t *out)
{
    ngx_str_t    s;
    ngx_time_t  *tp;

    tp = ngx_timeofday();

    ngx_http_coord_json_number(out, "time_ms",
                               (int64_t) tp->sec * 1000 + tp->msec);

    s.data = ngx_cycle->hostname.data;
    s.len = ngx_cycle->hostname.len;
    ngx_http_coord_json_string(out, "node", &s);

    ngx_str_set(&s, NGINX_VERSION);
    ngx_http_coord_json_string(out, "nginx", &s);

    ngx_http_coord_json_number(out, "workers", st->view.workers);
}


/* where the page of this client may look at keys, and reset them */

static void
ngx_http_coord_status_json_api(ngx_http_coord_status_t *st,
    ngx_http_coord_out_t *out)
{
    ngx_str_t   path;
    ngx_uint_t  write;

    if (ngx_http_coord_api_place(st->request, &path, &write) != NGX_OK) {
        ngx_http_coord_json_null(out, "api");
        return;
    }

    ngx_http_coord_json_open(out, "api", '{');
    ngx_http_coord_json_string(out, "path", &path);
    ngx_http_coord_json_bool(out, "write", write);
    ngx_http_coord_json_close(out, '}');
}


void
ngx_http_coord_status_json_store(ngx_http_coord_status_store_t *s,
    ngx_http_coord_out_t *out)
{
    ngx_str_t                  type;
    ngx_uint_t                 memory;
    const ngx_coord_metric_t  *metric;

    memory = ngx_coord_store_is_memory(s->store);

    if (memory) {
        ngx_str_set(&type, "memory");

    } else {
        ngx_str_set(&type, "redis");
    }

    ngx_http_coord_json_string(out, "name", &s->store->name);
    ngx_http_coord_json_string(out, "type", &type);
    ngx_http_coord_json_string(out, "state",
                               &ngx_coord_store_states[s->state]);

    for (metric = ngx_coord_metrics_table; metric->name.len; metric++) {
        ngx_http_coord_status_json_metric(s, out, metric);
    }

    if (!memory) {

        if (s->refusal) {
            ngx_http_coord_json_string(out, "refuses",
                                       (ngx_str_t *) s->refusal);

        } else {
            ngx_http_coord_json_null(out, "refuses");
        }

        ngx_http_coord_status_json_minute(s, out);
        ngx_http_coord_status_json_server(s, out);
        ngx_http_coord_status_json_topology(s, out);
    }
}


static void
ngx_http_coord_status_json_metric(ngx_http_coord_status_store_t *s,
    ngx_http_coord_out_t *out, const ngx_coord_metric_t *metric)
{
    char          *name;
    ngx_uint_t     memory;
    ngx_atomic_t  *value;

    /* table strings end with zero */

    name = (char *) metric->member.data;
    memory = ngx_coord_store_is_memory(s->store);

    switch (metric->scope) {

    case NGX_COORD_METRIC_STORE:
        value = (ngx_atomic_t *) ((u_char *) &s->stats + metric->offset);

        if (metric->usec) {
            if (!memory) {
                ngx_http_coord_json_seconds(out, name, *value);
            }

        } else {
            ngx_http_coord_json_number(out, name, *value);
        }

        break;

    case NGX_COORD_METRIC_RESULTS:
        ngx_http_coord_status_json_results(&s->stats, out, name);
        break;

    case NGX_COORD_METRIC_LATENCY:
        if (!memory) {
            ngx_http_coord_status_json_latency(&s->stats, out, name);
        }

        break;

    default:
        break;
    }
}


static void
ngx_http_coord_status_json_results(ngx_coord_store_stats_t *stats,
    ngx_http_coord_out_t *out, const char *name)
{
    ngx_uint_t  i, failed;

    failed = 0;

    ngx_http_coord_json_open(out, name, '{');

    ngx_http_coord_json_number(out, "ok", stats->calls - stats->late);

    for (i = NGX_COORD_FAIL_NONE + 1; i < NGX_COORD_FAIL_MAX; i++) {
        ngx_http_coord_json_number(out,
                                   (char *) ngx_coord_fail_names[i].data,
                                   stats->failures[i]);
        failed += stats->failures[i];
    }

    ngx_http_coord_json_close(out, '}');

    ngx_http_coord_json_number(out, "failed", failed);
}


static void
ngx_http_coord_status_json_latency(ngx_coord_store_stats_t *stats,
    ngx_http_coord_out_t *out, const char *name)
{
    ngx_uint_t  i, n;

    ngx_http_coord_json_open(out, name, '{');

    ngx_http_coord_status_json_quantiles(stats, out);

    n = 0;

    for (i = 0; i <= NGX_COORD_LATENCY_BUCKETS; i++) {
        n += stats->latency[i];
    }

    ngx_http_coord_json_number(out, "count", n);
    ngx_http_coord_json_seconds(out, "sum_seconds", stats->latency_usec);

    ngx_http_coord_json_open(out, "buckets", '[');

    n = 0;

    for (i = 0; i <= NGX_COORD_LATENCY_BUCKETS; i++) {
        n += stats->latency[i];

        ngx_http_coord_json_open(out, NULL, '{');

        if (i < NGX_COORD_LATENCY_BUCKETS) {
            ngx_http_coord_json_seconds(out, "le",
                                        ngx_coord_latency_bounds[i]);

        } else {
            ngx_http_coord_json_null(out, "le");
        }

        ngx_http_coord_json_number(out, "count", n);
        ngx_http_coord_json_close(out, '}');
    }

    ngx_http_coord_json_close(out, ']');
    ngx_http_coord_json_close(out, '}');
}


static void
ngx_http_coord_status_json_quantiles(ngx_coord_store_stats_t *stats,
    ngx_http_coord_out_t *out)
{
    ngx_uint_t  usec;

    usec = ngx_coord_metrics_quantile(stats, 0.5);

    if (usec) {
        ngx_http_coord_json_seconds(out, "p50_seconds", usec);

    } else {
        ngx_http_coord_json_null(out, "p50_seconds");
    }

    usec = ngx_coord_metrics_quantile(stats, 0.99);

    if (usec) {
        ngx_http_coord_json_seconds(out, "p99_seconds", usec);

    } else {
        ngx_http_coord_json_null(out, "p99_seconds");
    }
}


static void
ngx_http_coord_status_json_minute(ngx_http_coord_status_store_t *s,
    ngx_http_coord_out_t *out)
{
    ngx_uint_t  i, failed;

    failed = 0;

    for (i = NGX_COORD_FAIL_NONE + 1; i < NGX_COORD_FAIL_MAX; i++) {
        failed += s->minute.failures[i];
    }

    ngx_http_coord_json_open(out, "minute", '{');

    ngx_http_coord_json_number(out, "ok", s->minute.calls - s->minute.late);
    ngx_http_coord_json_number(out, "failed", failed);

    if (failed) {
        ngx_http_coord_json_string(out, "reason",
                                   &ngx_coord_fail_names[s->reason]);

    } else {
        ngx_http_coord_json_null(out, "reason");
    }

    ngx_http_coord_status_json_quantiles(&s->minute, out);

    ngx_http_coord_json_close(out, '}');
}


/* the servers of a store that has several, as this worker sees them */

static void
ngx_http_coord_status_json_topology(ngx_http_coord_status_store_t *s,
    ngx_http_coord_out_t *out)
{
    ngx_uint_t                    i;
    ngx_coord_topology_t          topology;
    ngx_coord_topology_server_t  *server;

    if (ngx_coord_store_topology(s->store, out->pool, &topology) != NGX_OK) {
        return;
    }

    ngx_http_coord_json_open(out, "topology", '{');
    ngx_http_coord_json_string(out, "mode", &topology.mode);
    ngx_http_coord_json_number(out, "refreshes", topology.refreshes);
    ngx_http_coord_json_number(out, "redirects", topology.redirects);
    ngx_http_coord_status_json_age(out, "refreshed_ms", topology.refreshed);
    ngx_http_coord_status_json_age(out, "failover_ms", topology.failover);
    ngx_http_coord_json_open(out, "servers", '[');

    server = topology.servers.elts;

    for (i = 0; i < topology.servers.nelts; i++) {
        ngx_http_coord_json_open(out, NULL, '{');
        ngx_http_coord_json_string(out, "address", &server[i].address);
        ngx_http_coord_json_string(out, "role", &server[i].role);
        ngx_http_coord_json_string(out, "state", &server[i].state);
        ngx_http_coord_json_number(out, "slots", server[i].slots);
        ngx_http_coord_json_close(out, '}');
    }

    ngx_http_coord_json_close(out, ']');
    ngx_http_coord_json_close(out, '}');
}


/* milliseconds since then, null if it never was */

static void
ngx_http_coord_status_json_age(ngx_http_coord_out_t *out, const char *name,
    ngx_msec_t when)
{
    if (when == 0) {
        ngx_http_coord_json_null(out, name);
        return;
    }

    ngx_http_coord_json_number(out, name,
                               (ngx_msec_int_t) (ngx_current_msec - when));
}


/* what INFO has said, and how long ago */

static void
ngx_http_coord_status_json_server(ngx_http_coord_status_store_t *s,
    ngx_http_coord_out_t *out)
{
    ngx_str_t                text;
    ngx_coord_store_info_t  *info;

    info = &s->info;

    if (info->failure != NGX_COORD_FAIL_NONE) {
        ngx_http_coord_json_string(out, "trouble",
                                   &ngx_coord_fail_names[info->failure]);
    }

    if (info->taken == 0) {
        ngx_http_coord_json_null(out, "server");
        return;
    }

    ngx_http_coord_json_open(out, "server", '{');

    text.data = info->version.data;
    text.len = info->version.len;
    ngx_http_coord_json_string(out, "version", &text);

    text.data = info->role.data;
    text.len = info->role.len;
    ngx_http_coord_json_string(out, "role", &text);

    ngx_http_coord_status_json_replication(info, out);

    ngx_http_coord_json_seconds(out, "rtt_seconds", info->rtt_usec);
    ngx_http_coord_json_number(out, "used_memory", info->used_memory);
    ngx_http_coord_json_number(out, "max_memory", info->max_memory);
    ngx_http_coord_json_number(out, "clients", info->clients);
    ngx_http_coord_json_number(out, "hits", info->hits);
    ngx_http_coord_json_number(out, "misses", info->misses);
    ngx_http_coord_json_number(out, "evicted", info->evicted);
    ngx_http_coord_json_number(out, "uptime_seconds", info->uptime);
    ngx_http_coord_json_number(out, "age_ms",
                               (ngx_msec_int_t) (ngx_current_msec
                                                 - info->taken));
    ngx_http_coord_json_close(out, '}');
}


static void
ngx_http_coord_status_json_zone(ngx_http_coord_status_t *st,
    ngx_coord_zone_t *zone, ngx_http_coord_out_t *out,
    ngx_http_coord_status_rates_t *rates)
{
    ngx_uint_t                      value;
    const ngx_coord_kind_t         *kind;
    const ngx_coord_metric_t       *metric;
    ngx_http_coord_status_store_t  *s;

    kind = zone->kind;
    s = ngx_http_coord_status_of(st, zone);

    ngx_http_coord_json_open(out, NULL, '{');

    ngx_http_coord_json_string(out, "feature", &kind->name);
    ngx_http_coord_json_string(out, "zone", &zone->name);
    ngx_http_coord_json_string(out, "store", &zone->store->name);
    ngx_http_coord_json_string(out, "store_state",
                               &ngx_coord_store_states[s->state]);

    ngx_http_coord_status_json_text(zone, out);
    ngx_http_coord_status_json_route(st, zone, out);
    ngx_http_coord_status_json_decisions(zone, out);

    ngx_http_coord_status_json_rates(rates, out);

    for (metric = ngx_coord_metrics_table; metric->name.len; metric++) {
        if (ngx_http_coord_status_metric(st, zone, metric, &value) != NGX_OK) {
            continue;
        }

        if (metric->usec) {
            ngx_http_coord_json_seconds(out, (char *) metric->member.data,
                                        value);

        } else {
            ngx_http_coord_json_number(out, (char *) metric->member.data,
                                       value);
        }
    }

    if (st->keys && kind->keys) {
        ngx_http_coord_status_json_keys(zone, out);
    }

    ngx_http_coord_json_close(out, '}');
}


/* the directives, as they are written */

static void
ngx_http_coord_status_json_text(ngx_coord_zone_t *zone,
    ngx_http_coord_out_t *out)
{
    ngx_uint_t                   i;
    ngx_http_coord_zone_conf_t  *zcf;

    zcf = (ngx_http_coord_zone_conf_t *) zone;

    ngx_http_coord_json_string(out, "directive", &zcf->text);
    ngx_http_coord_json_open(out, "uses", '[');

    for (i = 0; i < zcf->nuses; i++) {
        ngx_http_coord_json_string(out, NULL, &zcf->uses[i]);
    }

    ngx_http_coord_json_close(out, ']');
}


static void
ngx_http_coord_status_json_decisions(ngx_coord_zone_t *zone,
    ngx_http_coord_out_t *out)
{
    ngx_uint_t  i, n, all, refused;

    all = 0;
    refused = 0;

    ngx_http_coord_json_open(out, "decisions", '{');

    for (i = 0; i < NGX_COORD_OUTCOME_MAX; i++) {
        if (ngx_http_coord_status_outcome(zone, i, &n)) {
            ngx_http_coord_json_number(out,
                                     (char *) ngx_coord_outcomes[i].name.data,
                                     n);
            all += n;
            refused += ngx_coord_outcomes[i].refused ? n : 0;
        }
    }

    ngx_http_coord_json_close(out, '}');

    ngx_http_coord_json_number(out, "total", all);
    ngx_http_coord_json_number(out, "refused", refused);
}


/* "now" is the mean of the last five seconds */

static void
ngx_http_coord_status_json_rates(ngx_http_coord_status_rates_t *rates,
    ngx_http_coord_out_t *out)
{
    ngx_uint_t           i;
    ngx_coord_second_t  *second;

    ngx_http_coord_json_open(out, "rate", '{');
    ngx_http_coord_json_seconds(out, "now", (uint64_t) rates->now.all * 200000);
    ngx_http_coord_json_seconds(out, "now_refused",
                                (uint64_t) rates->now.refused * 200000);
    ngx_http_coord_json_seconds(out, "minute",
                                (uint64_t) rates->minute.all * 1000000 / 60);
    ngx_http_coord_json_seconds(out, "minute_refused",
                                (uint64_t) rates->minute.refused * 1000000
                                / 60);
    ngx_http_coord_json_seconds(out, "refused_share",
                                (uint64_t) rates->minute.refused * 1000000
                                / ngx_max(rates->minute.all, 1));
    ngx_http_coord_json_seconds(out, "now_bypassed",
                                (uint64_t) rates->now.bypassed * 200000);
    ngx_http_coord_json_seconds(out, "minute_bypassed",
                                (uint64_t) rates->minute.bypassed * 1000000
                                / 60);
    ngx_http_coord_json_seconds(out, "bypassed_share",
                                (uint64_t) rates->minute.bypassed * 1000000
                                / ngx_max(rates->minute.all, 1));
    ngx_http_coord_json_close(out, '}');

    ngx_http_coord_json_open(out, "history", '[');

    for (i = 0; i < NGX_HTTP_COORD_STATUS_HISTORY; i++) {
        second = &rates->seconds[i];

        if (i) {
            ngx_http_coord_out_text(out, ",");
        }

        /* most of what there is */

        if (second->all == 0) {
            ngx_http_coord_out_text(out, "[0,0,0]");
            continue;
        }

        ngx_http_coord_out_printf(out, "[%ui,%ui,%ui]", second->all,
                                  second->refused, second->bypassed);
    }

    ngx_http_coord_json_close(out, ']');
}


/* of coord_api: where a key of the zone is looked at */

static void
ngx_http_coord_status_json_route(ngx_http_coord_status_t *st,
    ngx_coord_zone_t *zone, ngx_http_coord_out_t *out)
{
    const ngx_http_coord_route_t  *route;

    route = ngx_http_coord_status_route(st, zone->kind);

    if (route == NULL) {
        ngx_http_coord_json_null(out, "api");
        return;
    }

    ngx_http_coord_json_open(out, "api", '{');
    ngx_http_coord_json_string(out, "route", &route->name);
    ngx_http_coord_json_bool(out, "look", !!(route->methods & NGX_HTTP_GET));
    ngx_http_coord_json_bool(out, "reset",
                             !!(route->methods & NGX_HTTP_DELETE));
    ngx_http_coord_json_close(out, '}');
}


static void
ngx_http_coord_status_json_keys(ngx_coord_zone_t *zone,
    ngx_http_coord_out_t *out)
{
    u_char                  tag[NGX_HTTP_COORD_STATUS_TAG];
    ngx_str_t               key, digest;
    ngx_uint_t              i, n;
    ngx_coord_keys_entry_t  entries[NGX_HTTP_COORD_STATUS_KEYS];

    n = ngx_coord_keys_top(zone->counts, entries, NGX_HTTP_COORD_STATUS_KEYS);

    ngx_http_coord_json_open(out, "keys", '[');

    for (i = 0; i < n; i++) {
        key.data = entries[i].key;
        key.len = entries[i].len;

        ngx_http_coord_json_open(out, NULL, '{');
        digest.data = tag;
        digest.len = ngx_http_coord_status_tag(zone, &entries[i], tag);

        ngx_http_coord_json_string(out, "key", &key);
        ngx_http_coord_json_string(out, "digest", &digest);
        ngx_http_coord_json_number(out, "refused", entries[i].count);
        ngx_http_coord_json_number(out, "error", entries[i].error);
        ngx_http_coord_json_close(out, '}');
    }

    ngx_http_coord_json_close(out, ']');
}
