
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The status as a page.  It is complete as it is sent; its script fetches the
 * JSON form and writes the values again.  data-v is where a value stands in
 * the JSON, data-f how it is written.
 */


#include "ngx_http_coord_status.h"
#include "ngx_http_coord_conf.h"
#include "ngx_http_coord_status_page.h"

#include <openssl/rand.h>


#define NGX_HTTP_COORD_NONCE_LEN  32


/* a number of a store: where it stands in the JSON */
typedef struct {
    const char                *label;
    const char                *path;
    const char                *form;
} ngx_http_coord_status_row_t;


static ngx_int_t ngx_http_coord_status_html_policy(
    ngx_http_coord_status_t *st, u_char *nonce);
static ngx_int_t ngx_http_coord_status_html_trouble(
    ngx_http_coord_status_t *st, ngx_http_coord_out_t *out);
static void ngx_http_coord_status_html_head(ngx_http_coord_status_t *st,
    ngx_http_coord_out_t *out, u_char *nonce);
static void ngx_http_coord_status_html_store(
    ngx_http_coord_status_store_t *s, ngx_http_coord_out_t *out,
    ngx_uint_t n);
static void ngx_http_coord_status_html_server(
    ngx_http_coord_status_store_t *s, ngx_http_coord_out_t *out,
    ngx_uint_t n);
static void ngx_http_coord_status_html_quantile(
    ngx_coord_store_stats_t *stats, ngx_http_coord_out_t *out,
    const char *label, const char *member, double quantile, ngx_uint_t n);
static void ngx_http_coord_status_html_zone(ngx_http_coord_status_t *st,
    ngx_coord_zone_t *zone, ngx_http_coord_out_t *out, ngx_uint_t n);
static void ngx_http_coord_status_html_name(ngx_http_coord_status_t *st,
    ngx_coord_zone_t *zone, ngx_http_coord_status_rates_t *rates,
    ngx_http_coord_out_t *out, ngx_uint_t n);
static void ngx_http_coord_status_html_text(ngx_coord_zone_t *zone,
    ngx_http_coord_out_t *out);
static void ngx_http_coord_status_html_rates(
    ngx_http_coord_status_rates_t *rates, ngx_http_coord_out_t *out,
    ngx_uint_t n);
static void ngx_http_coord_status_html_share(ngx_http_coord_out_t *out,
    const char *label, const char *member, ngx_uint_t part, ngx_uint_t all,
    ngx_uint_t bad, ngx_uint_t n);
static void ngx_http_coord_status_html_line(ngx_http_coord_out_t *out,
    const char *class, ngx_coord_second_t *seconds, ngx_uint_t refused,
    ngx_uint_t most);
static void ngx_http_coord_status_html_keys(ngx_coord_zone_t *zone,
    ngx_http_coord_out_t *out, ngx_uint_t n);
static void ngx_http_coord_status_html_row(ngx_http_coord_out_t *out,
    const char *label, const char *path, const char *form, ngx_uint_t n,
    const char *fmt, ...);


ngx_int_t
ngx_http_coord_status_html(ngx_http_coord_status_t *st,
    ngx_http_coord_out_t *out)
{
    u_char             nonce[NGX_HTTP_COORD_NONCE_LEN + 1];
    ngx_uint_t         i;
    ngx_coord_zone_t  *zone;

    if (ngx_http_coord_status_html_policy(st, nonce) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_http_coord_status_html_head(st, out, nonce);

    if (ngx_http_coord_status_html_trouble(st, out) != NGX_OK) {
        return NGX_ERROR;
    }

    if (ngx_http_coord_status_fleet_html(st, out) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_http_coord_out_text(out, "<h2>Stores, this node</h2>"
                            "<div class=\"cards\">");

    for (i = 0; i < st->nstores; i++) {
        ngx_http_coord_status_html_store(&st->stores[i], out, i);
    }

    ngx_http_coord_out_text(out, "</div><h2>Zones, this node</h2>"
                            "<div class=\"cards\">");

    for (i = 0; /* void */ ; i++) {
        zone = ngx_http_coord_status_zone(st, i);

        if (zone == NULL) {
            break;
        }

        ngx_http_coord_status_html_zone(st, zone, out, i);
    }

    ngx_http_coord_out_printf(out, "</div></main><script nonce=\"%s\">",
                              nonce);
    ngx_http_coord_out_text(out, ngx_http_coord_status_script);
    ngx_http_coord_out_text(out, "</script></body></html>\n");

    return NGX_OK;
}


static ngx_int_t
ngx_http_coord_status_html_trouble(ngx_http_coord_status_t *st,
    ngx_http_coord_out_t *out)
{
    ngx_str_t    *words;
    ngx_uint_t    i;
    ngx_array_t  *trouble;

    trouble = ngx_http_coord_status_trouble(st);
    if (trouble == NULL) {
        return NGX_ERROR;
    }

    words = trouble->elts;

    ngx_http_coord_out_text(out, "<ul id=\"trouble\" role=\"alert\">");

    for (i = 0; i < trouble->nelts; i++) {
        ngx_http_coord_out_text(out, "<li>");
        ngx_http_coord_out_html(out, &words[i]);
        ngx_http_coord_out_text(out, "</li>");
    }

    ngx_http_coord_out_text(out, "</ul>");

    return NGX_OK;
}


/* nothing may be loaded, only this style and this script count */

static ngx_int_t
ngx_http_coord_status_html_policy(ngx_http_coord_status_t *st, u_char *nonce)
{
    u_char               random[NGX_HTTP_COORD_NONCE_LEN / 2];
    ngx_str_t            value;
    ngx_http_request_t  *r;

    static const char  policy[] = "default-src 'none'; connect-src 'self'; "
                                  "img-src data:; style-src 'nonce-%s'; "
                                  "script-src 'nonce-%s'; "
                                  "base-uri 'none'; form-action 'none'; "
                                  "frame-ancestors 'none'";

    r = st->request;

    if (RAND_bytes(random, sizeof(random)) != 1) {
        return NGX_ERROR;
    }

    *ngx_hex_dump(nonce, random, sizeof(random)) = '\0';

    value.data = ngx_pnalloc(r->pool, sizeof(policy)
                                      + 2 * NGX_HTTP_COORD_NONCE_LEN);
    if (value.data == NULL) {
        return NGX_ERROR;
    }

    value.len = ngx_sprintf(value.data, policy, nonce, nonce) - value.data;

    if (ngx_http_coord_out_header(r, "Content-Security-Policy", &value)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    ngx_str_set(&value, "no-referrer");

    return ngx_http_coord_out_header(r, "Referrer-Policy", &value);
}


static void
ngx_http_coord_status_html_head(ngx_http_coord_status_t *st,
    ngx_http_coord_out_t *out, u_char *nonce)
{
    ngx_str_t  host;

    host.data = ngx_cycle->hostname.data;
    host.len = ngx_cycle->hostname.len;

    ngx_http_coord_out_text(out, "<!DOCTYPE html><html lang=\"en\"><head>"
                            "<meta charset=\"utf-8\"><meta name=\"viewport\" "
                            "content=\"width=device-width,initial-scale=1\">"
                            "<link rel=\"icon\" href=\"data:,\"><title>");
    ngx_http_coord_out_html(out, &host);
    ngx_http_coord_out_text(out, " - coord status</title><noscript><meta "
                            "http-equiv=\"refresh\" content=\"5\"></noscript>");

    ngx_http_coord_out_printf(out, "<style nonce=\"%s\">", nonce);
    ngx_http_coord_out_text(out, ngx_http_coord_status_style);
    ngx_http_coord_out_text(out, "</style></head><body><header><h1>");
    ngx_http_coord_out_html(out, &host);

    /* the time is for those without the script, which writes an age */

    ngx_http_coord_out_printf(out, "</h1><span class=\"dim\">"
                              "<span data-v=\"workers\">%ui</span> workers"
                              "</span><span class=\"dim\" id=\"age\">as of %V"
                              "</span><span id=\"late\" role=\"status\"></span>"
                              "</header><main>", st->view.workers,
                              &ngx_cached_http_time);
}


static void
ngx_http_coord_status_html_store(ngx_http_coord_status_store_t *s,
    ngx_http_coord_out_t *out, ngx_uint_t n)
{
    ngx_uint_t                i, failed;
    ngx_coord_store_stats_t  *stats;

    stats = &s->stats;

    ngx_http_coord_out_printf(out, "<article data-o=\"stores.%ui\" "
                              "class=\"%s\"><h3>", n,
                              s->state == NGX_COORD_STORE_UP ? "" : "first");
    ngx_http_coord_out_html(out, &s->store->name);
    ngx_http_coord_out_printf(out, "<span class=\"state %V\" data-f=\"state\" "
                              "data-v=\"stores.%ui.state\">%V</span></h3><dl>",
                              &ngx_coord_store_states[s->state], n,
                              &ngx_coord_store_states[s->state]);

    ngx_http_coord_status_html_row(out, "operations", "stores.%ui.operations."
                                   "ok", "", n, "%ui",
                                   stats->calls - stats->late);

    if (ngx_coord_store_is_memory(s->store)) {
        ngx_http_coord_out_text(out, "<dt>kind</dt><dd>shared memory</dd>"
                                     "</dl></article>");
        return;
    }

    failed = 0;

    for (i = 0; i < NGX_COORD_FAIL_MAX; i++) {
        failed += stats->failures[i];
    }

    ngx_http_coord_status_html_row(out, "failed", "stores.%ui.failed", "", n,
                                   "%ui", failed);
    ngx_http_coord_status_html_row(out, "in flight", "stores.%ui.pending", "",
                                   n, "%ui", stats->pending);
    ngx_http_coord_status_html_row(out, "connected workers", "stores.%ui.up",
                                   "", n, "%ui", stats->up);
    ngx_http_coord_status_html_row(out, "open breakers",
                                   "stores.%ui.breaker_open", "", n, "%ui",
                                   stats->breaker_open);
    ngx_http_coord_status_html_row(out, "reconnects", "stores.%ui.reconnects",
                                   "", n, "%ui", stats->reconnects);

    ngx_http_coord_status_html_server(s, out, n);

    ngx_http_coord_out_text(out, "</dl></article>");
}


static void
ngx_http_coord_status_html_server(ngx_http_coord_status_store_t *s,
    ngx_http_coord_out_t *out, ngx_uint_t n)
{
    ngx_str_t                text;
    ngx_uint_t               mib;
    ngx_coord_store_info_t  *info;

    ngx_http_coord_status_html_quantile(&s->minute, out, "half below",
                                        "p50_seconds", 0.5, n);
    ngx_http_coord_status_html_quantile(&s->minute, out, "99% below",
                                        "p99_seconds", 0.99, n);

    info = &s->info;

    ngx_http_coord_status_html_row(out, "round trip",
                                   "stores.%ui.server.rtt_seconds", "ms", n,
                                   "%ui.%02ui ms", info->rtt_usec / 1000,
                                   info->rtt_usec % 1000 / 10);

    text.data = info->version.data;
    text.len = info->version.len;

    ngx_http_coord_out_printf(out, "<dt>version</dt><dd data-v=\"stores.%ui."
                              "server.version\">", n);
    ngx_http_coord_out_html(out, &text);

    text.data = info->role.data;
    text.len = info->role.len;

    ngx_http_coord_out_printf(out, "</dd><dt>role</dt><dd data-v=\"stores.%ui."
                              "server.role\">", n);
    ngx_http_coord_out_html(out, &text);
    ngx_http_coord_out_text(out, "</dd>");

    ngx_http_coord_status_html_replication(info, out);

    mib = info->used_memory * 10 / 1048576;

    ngx_http_coord_status_html_row(out, "memory",
                                   "stores.%ui.server.used_memory", "mib", n,
                                   "%ui.%ui MiB", mib / 10, mib % 10);
    ngx_http_coord_status_html_row(out, "hits", "stores.%ui.server.hits", "",
                                   n, "%uL", info->hits);
    ngx_http_coord_status_html_row(out, "misses", "stores.%ui.server.misses",
                                   "", n, "%uL", info->misses);
}


static void
ngx_http_coord_status_html_quantile(ngx_coord_store_stats_t *stats,
    ngx_http_coord_out_t *out, const char *label, const char *member,
    double quantile, ngx_uint_t n)
{
    ngx_uint_t  usec;

    usec = ngx_coord_metrics_quantile(stats, quantile);

    ngx_http_coord_out_printf(out, "<dt>latency, last minute, %s</dt><dd "
                              "data-f=\"ms\" data-v=\"stores.%ui.minute.%s\">",
                              label, n, member);

    if (usec) {
        ngx_http_coord_out_printf(out, "%ui.%02ui ms</dd>", usec / 1000,
                                  usec % 1000 / 10);

    } else {
        ngx_http_coord_out_text(out, "&ndash;</dd>");
    }
}


static void
ngx_http_coord_status_html_zone(ngx_http_coord_status_t *st,
    ngx_coord_zone_t *zone, ngx_http_coord_out_t *out, ngx_uint_t n)
{
    u_char                         path[64];
    ngx_uint_t                     i, count;
    const ngx_coord_kind_t        *kind;
    const ngx_coord_metric_t      *metric;
    ngx_http_coord_status_rates_t  rates;

    kind = zone->kind;

    ngx_http_coord_status_rates(zone, &rates);

    ngx_http_coord_status_html_name(st, zone, &rates, out, n);
    ngx_http_coord_status_html_rates(&rates, out, n);
    ngx_http_coord_status_html_text(zone, out);

    ngx_http_coord_out_text(out, "<dl>");

    for (i = 0; i < NGX_COORD_OUTCOME_MAX; i++) {

        if (!ngx_http_coord_status_outcome(zone, i, &count)) {
            continue;
        }

        ngx_sprintf(path, "zones.%%ui.decisions.%V%Z",
                    &ngx_coord_outcomes[i].name);

        ngx_http_coord_status_html_row(out,
                                     (char *) ngx_coord_outcomes[i].name.data,
                                     (char *) path, "", n, "%ui", count);
    }

    for (metric = ngx_coord_metrics_table; metric->name.len; metric++) {

        if (ngx_http_coord_status_metric(st, zone, metric, &count) != NGX_OK) {
            continue;
        }

        ngx_sprintf(path, "zones.%%ui.%V%Z", &metric->member);

        if (metric->usec) {
            ngx_http_coord_status_html_row(out, "memory used", (char *) path,
                                           "share", n, "%ui.%ui%%",
                                           count / 10000,
                                           count % 10000 / 1000);
            continue;
        }

        ngx_http_coord_status_html_row(out, (char *) metric->member.data,
                                       (char *) path, "", n, "%ui", count);
    }

    ngx_http_coord_out_text(out, "</dl>");

    if (st->keys && kind->keys) {
        ngx_http_coord_status_html_keys(zone, out, n);
    }

    ngx_http_coord_out_text(out, "</article>");
}


static void
ngx_http_coord_status_html_name(ngx_http_coord_status_t *st,
    ngx_coord_zone_t *zone, ngx_http_coord_status_rates_t *rates,
    ngx_http_coord_out_t *out, ngx_uint_t n)
{
    const ngx_str_t                *state;
    ngx_http_coord_status_store_t  *s;

    s = ngx_http_coord_status_of(st, zone);
    state = &ngx_coord_store_states[s->state];

    ngx_http_coord_out_printf(out, "<article data-o=\"zones.%ui\" "
                              "class=\"%s\"><h3>", n,
                              s->state == NGX_COORD_STORE_UP
                              && rates->minute.bypassed == 0 ? "" : "first");
    ngx_http_coord_out_html(out, &zone->name);
    ngx_http_coord_out_printf(out, "<small>%V, store ", &zone->kind->name);
    ngx_http_coord_out_html(out, &zone->store->name);
    ngx_http_coord_out_printf(out, "</small><span class=\"state %V\" data-f="
                              "\"state\" data-v=\"zones.%ui.store_state\">%V"
                              "</span></h3>", state, n, state);
}


/* the directives: key, rate, number, burst, failure policy as written */

static void
ngx_http_coord_status_html_text(ngx_coord_zone_t *zone,
    ngx_http_coord_out_t *out)
{
    ngx_uint_t                   i;
    ngx_http_coord_zone_conf_t  *zcf;

    zcf = (ngx_http_coord_zone_conf_t *) zone;

    ngx_http_coord_out_text(out, "<pre>");
    ngx_http_coord_out_html(out, &zcf->text);

    for (i = 0; i < zcf->nuses; i++) {
        ngx_http_coord_out_text(out, "\n");
        ngx_http_coord_out_html(out, &zcf->uses[i]);
    }

    ngx_http_coord_out_text(out, "</pre>");
}


static void
ngx_http_coord_status_html_rates(ngx_http_coord_status_rates_t *rates,
    ngx_http_coord_out_t *out, ngx_uint_t n)
{
    ngx_uint_t  i, most;

    most = 1;

    for (i = 0; i < NGX_HTTP_COORD_STATUS_HISTORY; i++) {
        most = ngx_max(most, rates->seconds[i].all);
    }

    ngx_http_coord_out_printf(out, "<div class=\"big\"><span><b data-f="
                              "\"rate\" data-v=\"zones.%ui.rate.now\">"
                              "%ui.%ui</b><small>a second now</small></span>",
                              n, rates->now.all / 5, rates->now.all % 5 * 2);
    ngx_http_coord_out_printf(out, "<span><b data-f=\"rate\" "
                              "data-v=\"zones.%ui.rate.minute\">%ui.%ui</b>"
                              "<small>last minute</small></span>",
                              n, rates->minute.all / 60,
                              rates->minute.all % 60 / 6);

    ngx_http_coord_status_html_share(out, "refused", "refused_share",
                                     rates->minute.refused, rates->minute.all,
                                     0, n);
    ngx_http_coord_status_html_share(out, "unprotected", "bypassed_share",
                                     rates->minute.bypassed, rates->minute.all,
                                     1, n);

    ngx_http_coord_out_printf(out, "</div><svg data-s=\"zones.%ui.history\" "
                              "viewBox=\"0 0 59 31\" role=\"img\" "
                              "preserveAspectRatio=\"none\" aria-label="
                              "\"decisions in each second of the last "
                              "minute, and refused ones\">", n);

    ngx_http_coord_status_html_line(out, "all", rates->seconds, 0, most);
    ngx_http_coord_status_html_line(out, "no", rates->seconds, 1, most);

    ngx_http_coord_out_text(out, "</svg>");
}


/* bad: one that is not zero is trouble */

static void
ngx_http_coord_status_html_share(ngx_http_coord_out_t *out, const char *label,
    const char *member, ngx_uint_t part, ngx_uint_t all, ngx_uint_t bad,
    ngx_uint_t n)
{
    ngx_uint_t  share;

    share = part * 1000 / ngx_max(all, 1);

    ngx_http_coord_out_printf(out, "<span><b data-f=\"share\" %sclass=\"%s\" "
                              "data-v=\"zones.%ui.rate.%s\">%ui.%ui%%</b>"
                              "<small>%s</small></span>",
                              bad ? "data-b=\"1\" " : "",
                              bad && part ? "bad" : "", n, member, share / 10,
                              share % 10, label);
}


static void
ngx_http_coord_status_html_line(ngx_http_coord_out_t *out, const char *class,
    ngx_coord_second_t *seconds, ngx_uint_t refused, ngx_uint_t most)
{
    ngx_uint_t  i, n, y;

    ngx_http_coord_out_printf(out, "<polyline class=\"%s\" points=\"", class);

    for (i = 0; i < NGX_HTTP_COORD_STATUS_HISTORY; i++) {
        n = refused ? seconds[i].refused : seconds[i].all;
        y = 300 - n * 290 / most;

        ngx_http_coord_out_printf(out, "%s%ui,%ui.%ui", i ? " " : "", i,
                                  y / 10, y % 10);
    }

    ngx_http_coord_out_text(out, "\"/>");
}


static void
ngx_http_coord_status_html_keys(ngx_coord_zone_t *zone,
    ngx_http_coord_out_t *out, ngx_uint_t n)
{
    ngx_str_t               key;
    ngx_uint_t              i, found;
    ngx_coord_keys_entry_t  entries[NGX_HTTP_COORD_STATUS_KEYS];

    found = ngx_coord_keys_top(zone->counts, entries,
                               NGX_HTTP_COORD_STATUS_KEYS);

    ngx_http_coord_out_printf(out, "<table><thead><tr><th>key</th><th>refused"
                              "</th></tr></thead><tbody "
                              "data-k=\"zones.%ui.keys\">", n);

    for (i = 0; i < found; i++) {
        key.data = entries[i].key;
        key.len = entries[i].len;

        ngx_http_coord_out_text(out, "<tr><td>");
        ngx_http_coord_out_html(out, &key);
        ngx_http_coord_out_printf(out, "</td><td>%uL</td></tr>",
                                  entries[i].count);
    }

    ngx_http_coord_out_text(out, "</tbody></table>");
}


static void
ngx_http_coord_status_html_row(ngx_http_coord_out_t *out, const char *label,
    const char *path, const char *form, ngx_uint_t n, const char *fmt, ...)
{
    u_char      buf[NGX_INT64_LEN * 2], *p;
    va_list     args;
    ngx_uint_t  fold;

    va_start(args, fmt);
    p = ngx_vslprintf(buf, buf + sizeof(buf), fmt, args);
    va_end(args);

    /* a count of nothing is folded away, but a store without workers is not */

    fold = (form[0] == '\0' && ngx_strstr(path, ".up") == NULL);

    ngx_http_coord_out_printf(out, "<dt>%s</dt><dd data-f=\"%s\" %s%sdata-v=\"",
                              label, form, fold ? "data-z=\"1\" " : "",
                              fold && p - buf == 1 && buf[0] == '0'
                              ? "class=\"zero\" " : "");
    ngx_http_coord_out_printf(out, path, n);
    ngx_http_coord_out_printf(out, "\">%*s</dd>", p - buf, buf);
}
