
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The zones on the page: a line each, which opens.
 */


#include "ngx_http_coord_status.h"
#include "ngx_http_coord_conf.h"


static void ngx_http_coord_status_html_summary(ngx_http_coord_status_t *st,
    ngx_coord_zone_t *zone, ngx_http_coord_status_rates_t *rates,
    ngx_http_coord_out_t *out, ngx_uint_t n);
static void ngx_http_coord_status_html_terms(ngx_coord_zone_t *zone,
    ngx_http_coord_out_t *out);
static void ngx_http_coord_status_html_words(ngx_coord_zone_t *zone,
    ngx_http_coord_out_t *out, ngx_str_t *text);
static void ngx_http_coord_status_html_rates(ngx_http_coord_status_t *st,
    ngx_coord_zone_t *zone, ngx_http_coord_status_rates_t *rates,
    ngx_http_coord_out_t *out, ngx_uint_t n);
static void ngx_http_coord_status_html_share(ngx_http_coord_out_t *out,
    const char *label, const char *member, ngx_uint_t part, ngx_uint_t all,
    ngx_uint_t bad, ngx_uint_t n);
static void ngx_http_coord_status_html_text(ngx_coord_zone_t *zone,
    ngx_http_coord_out_t *out);
static void ngx_http_coord_status_html_counts(ngx_http_coord_status_t *st,
    ngx_coord_zone_t *zone, ngx_http_coord_out_t *out, ngx_uint_t n);
static void ngx_http_coord_status_html_keys(ngx_coord_zone_t *zone,
    ngx_http_coord_out_t *out, ngx_uint_t n);


void
ngx_http_coord_status_html_zone(ngx_http_coord_status_t *st,
    ngx_coord_zone_t *zone, ngx_http_coord_out_t *out, ngx_uint_t n)
{
    const char                     *class;
    ngx_http_coord_status_rates_t  *rates;

    rates = &st->rates[n];

    if (ngx_http_coord_status_idle(st, zone, rates)) {
        class = "idle";

    } else if (rates->minute.bypassed
               || ngx_http_coord_status_of(st, zone)->state
                  != NGX_COORD_STORE_UP)
    {
        class = "first";

    } else {
        class = "";
    }

    ngx_http_coord_out_printf(out, "<article data-o=\"zones.%ui\" class=\"%s\">"
                              "<details class=\"zone\">", n, class);

    ngx_http_coord_status_html_summary(st, zone, rates, out, n);

    ngx_http_coord_out_text(out, "<div class=\"body\">");

    ngx_http_coord_status_html_text(zone, out);
    ngx_http_coord_status_html_counts(st, zone, out, n);

    if (st->keys && zone->kind->keys) {
        ngx_http_coord_status_html_keys(zone, out, n);
    }

    ngx_http_coord_out_printf(out, "<div class=\"tools\" data-a=\"zones.%ui\" "
                              "hidden></div></div></details></article>", n);
}


static void
ngx_http_coord_status_html_summary(ngx_http_coord_status_t *st,
    ngx_coord_zone_t *zone, ngx_http_coord_status_rates_t *rates,
    ngx_http_coord_out_t *out, ngx_uint_t n)
{
    const ngx_str_t                *state;
    ngx_http_coord_status_store_t  *s;

    s = ngx_http_coord_status_of(st, zone);
    state = &ngx_coord_store_states[s->state];

    ngx_http_coord_out_text(out, "<summary><span class=\"name\">");
    ngx_http_coord_out_html(out, &zone->name);
    ngx_http_coord_out_printf(out, "<small>%V, store ", &zone->kind->name);
    ngx_http_coord_out_html(out, &zone->store->name);
    ngx_http_coord_out_printf(out, " <span class=\"state %V\" data-f="
                              "\"state\" data-v=\"zones.%ui.store_state\">%V"
                              "</span></small></span><span class=\"terms\">",
                              state, n, state);

    ngx_http_coord_status_html_terms(zone, out);

    ngx_http_coord_out_text(out, "</span>");

    ngx_http_coord_status_html_rates(st, zone, rates, out, n);
    ngx_http_coord_status_html_chart(out, rates, "zones.%ui.history", n);

    ngx_http_coord_out_text(out, "</summary>");
}


/* the directives in short: key and rate, then burst or number */

static void
ngx_http_coord_status_html_terms(ngx_coord_zone_t *zone,
    ngx_http_coord_out_t *out)
{
    ngx_http_coord_zone_conf_t  *zcf;

    zcf = (ngx_http_coord_zone_conf_t *) zone;

    ngx_http_coord_status_html_words(zone, out, &zcf->text);

    if (zcf->nuses) {
        ngx_http_coord_out_text(out, "&nbsp; ");
        ngx_http_coord_status_html_words(zone, out, &zcf->uses[0]);
    }

    if (zcf->nuses > 1) {
        ngx_http_coord_out_text(out, " &hellip;");
    }
}


/* all but the name of the directive, and that of the zone */

static void
ngx_http_coord_status_html_words(ngx_coord_zone_t *zone,
    ngx_http_coord_out_t *out, ngx_str_t *text)
{
    u_char      *p, *last, *end;
    ngx_str_t    word;

    last = text->data + text->len;
    p = ngx_strlchr(text->data, last, ' ');

    while (p && p < last) {
        word.data = ++p;

        end = ngx_strlchr(p, last, ' ');
        end = end ? end : last;
        p = end;

        if (end > word.data && end[-1] == ';') {
            end--;
        }

        word.len = end - word.data;

        if (word.len == 0
            || (word.len > 5 && ngx_strncmp(word.data, "zone=", 5) == 0)
            || (word.len == zone->name.len
                && ngx_memcmp(word.data, zone->name.data, word.len) == 0))
        {
            continue;
        }

        ngx_http_coord_out_html(out, &word);
        ngx_http_coord_out_text(out, " ");
    }
}


static void
ngx_http_coord_status_html_rates(ngx_http_coord_status_t *st,
    ngx_coord_zone_t *zone, ngx_http_coord_status_rates_t *rates,
    ngx_http_coord_out_t *out, ngx_uint_t n)
{
    uint64_t                   all;
    ngx_coord_summary_zone_t  *sum;

    ngx_http_coord_out_printf(out, "<span class=\"n\"><b data-f=\"rate\" "
                              "data-v=\"zones.%ui.rate.minute\">%ui.%ui</b>"
                              "<small>a second</small></span>", n,
                              rates->minute.all / 60,
                              rates->minute.all % 60 / 6);

    sum = ngx_http_coord_status_fleet_of(st, zone);
    all = sum ? sum->minute : 0;

    ngx_http_coord_out_printf(out, "<span class=\"n fleet\"><b "
                              "data-f=\"rate\" data-v=\"zones.%ui.all.rate."
                              "minute\">%uL.%uL</b><small>all nodes</small>"
                              "</span>", n, all / 60, all % 60 / 6);

    ngx_http_coord_status_html_share(out, "refused", "refused_share",
                                     rates->minute.refused, rates->minute.all,
                                     0, n);
    ngx_http_coord_status_html_share(out, "unprotected", "bypassed_share",
                                     rates->minute.bypassed, rates->minute.all,
                                     1, n);
}


/* bad: one that is not zero is trouble */

static void
ngx_http_coord_status_html_share(ngx_http_coord_out_t *out, const char *label,
    const char *member, ngx_uint_t part, ngx_uint_t all, ngx_uint_t bad,
    ngx_uint_t n)
{
    ngx_uint_t  share;

    share = part * 1000 / ngx_max(all, 1);

    ngx_http_coord_out_printf(out, "<span class=\"n\"><b data-f=\"share\" "
                              "%sclass=\"%s\" "
                              "data-v=\"zones.%ui.rate.%s\">%ui.%ui%%</b>"
                              "<small>%s</small></span>",
                              bad ? "data-b=\"1\" " : "",
                              bad && part ? "bad" : "", n, member, share / 10,
                              share % 10, label);
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
ngx_http_coord_status_html_counts(ngx_http_coord_status_t *st,
    ngx_coord_zone_t *zone, ngx_http_coord_out_t *out, ngx_uint_t n)
{
    u_char                     path[64];
    ngx_uint_t                 i, count;
    const ngx_coord_metric_t  *metric;

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
}


static void
ngx_http_coord_status_html_keys(ngx_coord_zone_t *zone,
    ngx_http_coord_out_t *out, ngx_uint_t n)
{
    u_char                  tag[NGX_HTTP_COORD_STATUS_TAG];
    size_t                  len;
    ngx_str_t               key;
    ngx_uint_t              i, found;
    ngx_coord_keys_entry_t  entries[NGX_HTTP_COORD_STATUS_KEYS];

    found = ngx_coord_keys_top(zone->counts, entries,
                               NGX_HTTP_COORD_STATUS_KEYS);

    ngx_http_coord_out_printf(out, "<table><thead><tr><th>key</th><th>refused"
                              "</th><th>in the log</th><th></th></tr></thead>"
                              "<tbody data-k=\"zones.%ui\">", n);

    for (i = 0; i < found; i++) {
        key.data = entries[i].key;
        key.len = entries[i].len;

        ngx_http_coord_out_text(out, "<tr><td>");
        ngx_http_coord_out_html(out, &key);

        len = ngx_http_coord_status_tag(zone, &entries[i], tag);

        ngx_http_coord_out_printf(out, "</td><td>%uL</td><td>%*s</td></tr>",
                                  entries[i].count, len, tag);
    }

    ngx_http_coord_out_text(out, "</tbody></table>");
}
