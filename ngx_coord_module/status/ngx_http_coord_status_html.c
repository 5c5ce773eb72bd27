
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The status as a page.  It is complete as it is sent; its script fetches the
 * JSON form and writes the values again.  data-v is where a value stands in
 * the JSON, data-f how it is written.
 */


#include "ngx_http_coord_status.h"
#include "ngx_http_coord_status_page.h"

#include <openssl/rand.h>


#define NGX_HTTP_COORD_NONCE_LEN  32


static ngx_int_t ngx_http_coord_status_html_policy(
    ngx_http_coord_status_t *st, u_char *nonce);
static void ngx_http_coord_status_html_head(ngx_http_coord_status_t *st,
    ngx_http_coord_out_t *out, u_char *nonce);
static ngx_int_t ngx_http_coord_status_html_alarm(ngx_http_coord_status_t *st,
    ngx_http_coord_out_t *out);
static void ngx_http_coord_status_html_tiles(ngx_http_coord_status_t *st,
    ngx_http_coord_out_t *out);
static void ngx_http_coord_status_html_tile(ngx_http_coord_out_t *out,
    const char *attributes, const char *label, const char *fmt, ...);
static void ngx_http_coord_status_html_latency(ngx_http_coord_status_t *st,
    ngx_http_coord_out_t *out);
static void ngx_http_coord_status_html_zones(ngx_http_coord_status_t *st,
    ngx_http_coord_out_t *out);


ngx_int_t
ngx_http_coord_status_html(ngx_http_coord_status_t *st,
    ngx_http_coord_out_t *out)
{
    u_char      nonce[NGX_HTTP_COORD_NONCE_LEN + 1];
    ngx_uint_t  i;

    if (ngx_http_coord_status_html_policy(st, nonce) != NGX_OK
        || ngx_http_coord_status_gather(st) != NGX_OK
        || ngx_http_coord_status_fleet_look(st) != NGX_OK)
    {
        return NGX_ERROR;
    }

    ngx_http_coord_status_html_head(st, out, nonce);

    if (ngx_http_coord_status_html_alarm(st, out) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_http_coord_status_html_tiles(st, out);
    ngx_http_coord_status_fleet_html(st, out);

    ngx_http_coord_out_text(out, "<h2 class=\"title\">Stores, this node</h2>"
                            "<div class=\"cards\">");

    for (i = 0; i < st->nstores; i++) {
        ngx_http_coord_status_html_store(&st->stores[i], out, i);
    }

    ngx_http_coord_out_text(out, "</div>");

    ngx_http_coord_status_html_zones(st, out);

    ngx_http_coord_out_printf(out, "</main><script nonce=\"%s\">", nonce);
    ngx_http_coord_out_text(out, ngx_http_coord_status_script);
    ngx_http_coord_out_text(out, "</script></body></html>\n");

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

    ngx_http_coord_out_printf(out, "</h1><span class=\"dim\">nginx %s, "
                              "<span data-v=\"workers\">%ui</span> worker%s"
                              "</span>", NGINX_VERSION, st->view.workers,
                              st->view.workers == 1 ? "" : "s");

    if (st->fleet.nodes.nelts) {
        ngx_http_coord_out_text(out, "<span class=\"dim\">running for <span "
                                "data-f=\"lasting\" data-v=\"fleet.nodes.0."
                                "uptime_seconds\">");
        ngx_http_coord_status_html_lasting(out,
                                           ngx_http_coord_status_uptime(st));
        ngx_http_coord_out_text(out, "</span></span>");
    }

    /* the time is for those without the script, which writes an age */

    ngx_http_coord_out_printf(out, "<span class=\"dim\" id=\"age\">as of %V"
                              "</span><span id=\"late\" role=\"status\"></span>"
                              "</header><main class=\"%s\">",
                              &ngx_cached_http_time,
                              st->fleet.nodes.nelts > 1 ? "" : "alone");
}


/* what is wrong; five sentences, the others when they are asked for */

static ngx_int_t
ngx_http_coord_status_html_alarm(ngx_http_coord_status_t *st,
    ngx_http_coord_out_t *out)
{
    ngx_str_t    *words, loss;
    ngx_uint_t    i;
    ngx_array_t  *trouble;

    trouble = ngx_http_coord_status_trouble(st);

    if (trouble == NULL || ngx_http_coord_status_loss(st, &loss) != NGX_OK) {
        return NGX_ERROR;
    }

    words = trouble->elts;

    ngx_http_coord_out_printf(out, "<section id=\"alarm\" role=\"alert\" "
                              "class=\"%s\"><p id=\"loss\">",
                              trouble->nelts ? "" : "calm");
    ngx_http_coord_out_html(out, &loss);
    ngx_http_coord_out_text(out, "</p><input class=\"fold\" type=\"checkbox\" "
                            "id=\"long\" aria-label=\"show all\">"
                            "<ul id=\"trouble\">");

    for (i = 0; i < trouble->nelts; i++) {
        ngx_http_coord_out_text(out, "<li>");
        ngx_http_coord_out_html(out, &words[i]);
        ngx_http_coord_out_text(out, "</li>");
    }

    ngx_http_coord_out_printf(out, "</ul><label id=\"more\" for=\"long\" "
                              "class=\"button%s\">all or five of these"
                              "</label></section>",
                              trouble->nelts > 5 ? "" : " rest");

    return NGX_OK;
}


/* the node in a few numbers */

static void
ngx_http_coord_status_html_tiles(ngx_http_coord_status_t *st,
    ngx_http_coord_out_t *out)
{
    ngx_uint_t                      all, share;
    ngx_http_coord_status_rates_t  *rates;

    rates = &st->all;

    all = ngx_max(rates->minute.all, 1);

    ngx_http_coord_out_text(out, "<section class=\"card tiles\">");

    ngx_http_coord_status_html_tile(out, "data-f=\"rate\" "
                                    "data-v=\"rate.now\"",
                                    "decisions a second", "%ui.%ui",
                                    rates->now.all / 5, rates->now.all % 5 * 2);

    share = rates->minute.refused * 1000 / all;
    ngx_http_coord_status_html_tile(out, "data-f=\"share\" "
                                    "data-v=\"rate.refused_share\"",
                                    "refused, last minute", "%ui.%ui%%",
                                    share / 10, share % 10);

    share = rates->minute.bypassed * 1000 / all;
    ngx_http_coord_status_html_tile(out, rates->minute.bypassed
                                    ? "data-f=\"share\" data-b=\"1\" class="
                                      "\"bad\" data-v=\"rate.bypassed_share\""
                                    : "data-f=\"share\" data-b=\"1\" "
                                      "data-v=\"rate.bypassed_share\"",
                                    "unprotected, last minute", "%ui.%ui%%",
                                    share / 10, share % 10);

    ngx_http_coord_status_html_latency(st, out);

    ngx_http_coord_status_html_chart(out, rates, "history", 0);

    ngx_http_coord_out_text(out, "</section>");
}


static void
ngx_http_coord_status_html_tile(ngx_http_coord_out_t *out,
    const char *attributes, const char *label, const char *fmt, ...)
{
    u_char   buf[NGX_INT64_LEN * 2], *p;
    va_list  args;

    va_start(args, fmt);
    p = ngx_vslprintf(buf, buf + sizeof(buf), fmt, args);
    va_end(args);

    ngx_http_coord_out_printf(out, "<span><b %s>%*s</b><small>%s</small>"
                              "</span>", attributes, p - buf, buf, label);
}


/* of the first store that has one */

static void
ngx_http_coord_status_html_latency(ngx_http_coord_status_t *st,
    ngx_http_coord_out_t *out)
{
    ngx_uint_t  i, usec;

    for (i = 0; i < st->nstores; i++) {

        if (ngx_coord_store_is_memory(st->stores[i].store)) {
            continue;
        }

        usec = ngx_coord_metrics_quantile(&st->stores[i].minute, 0.99);

        ngx_http_coord_out_printf(out, "<span><b data-f=\"ms\" data-v=\"stores."
                                  "%ui.minute.p99_seconds\">", i);

        if (usec) {
            ngx_http_coord_out_printf(out, "%ui.%02ui ms", usec / 1000,
                                      usec % 1000 / 10);

        } else {
            ngx_http_coord_out_text(out, "&ndash;");
        }

        ngx_http_coord_out_text(out, "</b><small>p99, store ");
        ngx_http_coord_out_html(out, &st->stores[i].store->name);
        ngx_http_coord_out_text(out, "</small></span>");

        return;
    }
}


/* idle zones come last, and are folded away */

static void
ngx_http_coord_status_html_zones(ngx_http_coord_status_t *st,
    ngx_http_coord_out_t *out)
{
    ngx_uint_t             i, idle;
    ngx_coord_zone_t      *zone;
    ngx_http_coord_out_t   list;

    ngx_http_coord_out_init(&list, st->request->pool);

    idle = 0;

    for (i = 0; /* void */ ; i++) {
        zone = ngx_http_coord_status_zone(st, i);

        if (zone == NULL) {
            break;
        }

        idle += ngx_http_coord_status_idle(st, zone, &st->rates[i]);

        ngx_http_coord_status_html_zone(st, zone, &list, i);
    }

    ngx_http_coord_out_text(out, "<section><input class=\"fold\" "
                            "type=\"checkbox\" id=\"quiet\" "
                            "aria-label=\"show idle zones\">"
                            "<div class=\"title\"><h2>Zones, this node, "
                            "last minute</h2>");

    ngx_http_coord_out_printf(out, "<label id=\"idle\" for=\"quiet\" class="
                              "\"button%s\">show or hide %ui idle zones"
                              "</label>", idle ? "" : " rest", idle);

    ngx_http_coord_out_text(out, "<input id=\"filter\" type=\"search\" hidden "
                            "aria-label=\"show zones whose name has\" "
                            "placeholder=\"name of a zone\"></div>"
                            "<div class=\"card zones\"><div class=\"head\">"
                            "<span>zone</span><span>limit</span>"
                            "<span class=\"n\">a second</span>"
                            "<span class=\"n fleet\">all nodes</span>"
                            "<span class=\"n\">refused</span>"
                            "<span class=\"n\">unprotected</span>"
                            "<span>last minute</span></div>");
    ngx_http_coord_out_join(out, &list);
    ngx_http_coord_out_text(out, "</div></section>");
}
