
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The stores on the page.
 */


#include "ngx_http_coord_status.h"


static void ngx_http_coord_status_html_server(
    ngx_http_coord_status_store_t *s, ngx_http_coord_out_t *out,
    ngx_uint_t n);
static void ngx_http_coord_status_html_quantile(
    ngx_coord_store_stats_t *stats, ngx_http_coord_out_t *out,
    const char *label, const char *member, double quantile, ngx_uint_t n);


void
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
