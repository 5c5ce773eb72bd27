
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The fleet on the page and in the JSON: each node that tells of itself in the
 * store, and the sum of those that do so now.
 */


#include "ngx_http_coord_status.h"
#include "ngx_coord_fleet.h"


/* zones of all nodes together that are summed up */
#define NGX_HTTP_COORD_FLEET_ZONES  512


typedef struct {
    ngx_coord_fleet_node_t    *node;
    ngx_coord_summary_t        summary;
    ngx_coord_summary_zone_t   sum;          /* of its zones */
} ngx_http_coord_status_node_t;


typedef struct {
    ngx_coord_summary_zone_t   sum;          /* over the nodes */
    ngx_uint_t                 nodes;        /* that have it */
} ngx_http_coord_status_shared_t;


static ngx_int_t ngx_http_coord_status_fleet_lost(ngx_http_coord_status_t *st);
static void ngx_http_coord_status_fleet_missed(ngx_http_coord_status_t *st);
static ngx_uint_t ngx_http_coord_status_fleet_anew(ngx_array_t *array,
    ngx_coord_summary_t *lost);
static ngx_http_coord_status_shared_t *ngx_http_coord_status_fleet_find(
    ngx_http_coord_status_fleet_t *fleet, const ngx_str_t *feature,
    const ngx_str_t *name);
static ngx_int_t ngx_http_coord_status_fleet_zone(
    ngx_http_coord_status_fleet_t *fleet, ngx_coord_summary_zone_t *zone);
static void ngx_http_coord_status_fleet_add(ngx_coord_summary_zone_t *sum,
    ngx_coord_summary_zone_t *zone);
static ngx_uint_t ngx_http_coord_status_heard(ngx_http_coord_status_t *st);
static void ngx_http_coord_status_fleet_json_node(
    ngx_http_coord_status_node_t *n, ngx_http_coord_out_t *out);
static void ngx_http_coord_status_fleet_json_sum(
    ngx_coord_summary_zone_t *sum, ngx_http_coord_out_t *out);
static void ngx_http_coord_status_fleet_html_others(
    ngx_http_coord_status_t *st, ngx_http_coord_out_t *out);
static void ngx_http_coord_status_fleet_html_node(
    ngx_http_coord_status_node_t *n, ngx_http_coord_out_t *out);
static void ngx_http_coord_status_fleet_html_sum(
    ngx_coord_summary_zone_t *sum, ngx_http_coord_out_t *out);


/* what cannot be read is left out: it may be of a later version */

ngx_int_t
ngx_http_coord_status_fleet_look(ngx_http_coord_status_t *st)
{
    ngx_int_t                       rc;
    ngx_str_t                       text;
    ngx_uint_t                      i;
    ngx_coord_summary_t             rest;
    ngx_coord_fleet_node_t         *node;
    ngx_coord_summary_zone_t        zone;
    ngx_http_coord_status_node_t   *n;
    ngx_http_coord_status_fleet_t  *fleet;

    fleet = &st->fleet;

    if (ngx_array_init(&fleet->nodes, st->request->pool, 4,
                       sizeof(ngx_http_coord_status_node_t))
        != NGX_OK
        || ngx_array_init(&fleet->lost, st->request->pool, 1,
                          sizeof(ngx_http_coord_status_node_t))
           != NGX_OK
        || ngx_array_init(&fleet->zones, st->request->pool, 16,
                          sizeof(ngx_http_coord_status_shared_t))
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    for (i = 0; /* void */ ; i++) {
        node = ngx_palloc(st->request->pool, sizeof(ngx_coord_fleet_node_t));
        if (node == NULL) {
            return NGX_ERROR;
        }

        if (ngx_coord_fleet_node(&st->conf->metrics, i, node) != NGX_OK) {
            return ngx_http_coord_status_fleet_lost(st);
        }

        text.data = node->text;
        text.len = node->len;

        if (ngx_coord_summary_read(&text, &rest) != NGX_OK) {
            continue;
        }

        n = ngx_array_push(&fleet->nodes);
        if (n == NULL) {
            return NGX_ERROR;
        }

        n->node = node;
        n->summary = rest;
        ngx_memzero(&n->sum, sizeof(ngx_coord_summary_zone_t));

        for ( ;; ) {
            rc = ngx_coord_summary_zone(&rest, &zone);

            if (rc != NGX_OK) {
                break;
            }

            ngx_http_coord_status_fleet_add(&n->sum, &zone);

            if (!node->silent
                && ngx_http_coord_status_fleet_zone(fleet, &zone) != NGX_OK)
            {
                return NGX_ERROR;
            }
        }

        if (!node->silent) {
            fleet->alive++;
            fleet->workers += n->summary.workers;
            ngx_http_coord_status_fleet_add(&fleet->sum, &n->sum);
        }
    }
}


/* who is not there any more, but for those that were started anew */

static ngx_int_t
ngx_http_coord_status_fleet_lost(ngx_http_coord_status_t *st)
{
    ngx_str_t                      text;
    ngx_uint_t                     i;
    ngx_coord_summary_t            rest;
    ngx_coord_fleet_node_t        *node;
    ngx_http_coord_status_node_t  *n;

    for (i = 0; /* void */ ; i++) {
        node = ngx_palloc(st->request->pool, sizeof(ngx_coord_fleet_node_t));
        if (node == NULL) {
            return NGX_ERROR;
        }

        if (ngx_coord_fleet_lost(&st->conf->metrics, i, node) != NGX_OK) {
            ngx_http_coord_status_fleet_missed(st);
            return NGX_OK;
        }

        text.data = node->text;
        text.len = node->len;

        if (ngx_coord_summary_read(&text, &rest) != NGX_OK) {
            continue;
        }

        n = ngx_array_push(&st->fleet.lost);
        if (n == NULL) {
            return NGX_ERROR;
        }

        n->node = node;
        n->summary = rest;
        ngx_memzero(&n->sum, sizeof(ngx_coord_summary_zone_t));
    }
}


/* leaves those whose place nobody has taken, be he gone as well */

static void
ngx_http_coord_status_fleet_missed(ngx_http_coord_status_t *st)
{
    ngx_uint_t                     i, n;
    ngx_http_coord_status_node_t  *nodes;

    nodes = st->fleet.lost.elts;
    n = 0;

    for (i = 0; i < st->fleet.lost.nelts; i++) {
        if (!ngx_http_coord_status_fleet_anew(&st->fleet.nodes,
                                              &nodes[i].summary)
            && !ngx_http_coord_status_fleet_anew(&st->fleet.lost,
                                                 &nodes[i].summary))
        {
            nodes[n++] = nodes[i];
        }
    }

    st->fleet.lost.nelts = n;
}


/*
 * 1 if a node of the same host has taken the place of another one: it began
 * after that had its last news, by the clock that both have, or one of them
 * upgrades the binary of the other.
 */

static ngx_uint_t
ngx_http_coord_status_fleet_anew(ngx_array_t *array, ngx_coord_summary_t *lost)
{
    size_t                         len;
    ngx_uint_t                     i;
    ngx_coord_summary_t           *s;
    ngx_http_coord_status_node_t  *nodes;

    nodes = array->elts;

    /* the name of the host, "-", and digits of the node */

    len = lost->node.len - ngx_min(lost->node.len, 8);

    for (i = 0; i < array->nelts; i++) {
        s = &nodes[i].summary;

        if (s->node.len != lost->node.len
            || ngx_memcmp(s->node.data, lost->node.data, len) != 0
            || ngx_memcmp(s->node.data, lost->node.data, lost->node.len) == 0)
        {
            continue;
        }

        if (lost->time + s->uptime * 1000 <= s->time
            || (s->upgrades && s->upgrades == lost->master)
            || (lost->upgrades && lost->upgrades == s->master))
        {
            return 1;
        }
    }

    return 0;
}


static ngx_int_t
ngx_http_coord_status_fleet_zone(ngx_http_coord_status_fleet_t *fleet,
    ngx_coord_summary_zone_t *zone)
{
    ngx_http_coord_status_shared_t  *shared;

    shared = ngx_http_coord_status_fleet_find(fleet, &zone->feature,
                                              &zone->name);
    if (shared) {
        shared->nodes++;
        ngx_http_coord_status_fleet_add(&shared->sum, zone);

        return NGX_OK;
    }

    if (fleet->zones.nelts == NGX_HTTP_COORD_FLEET_ZONES) {
        return NGX_OK;
    }

    shared = ngx_array_push(&fleet->zones);
    if (shared == NULL) {
        return NGX_ERROR;
    }

    shared->sum = *zone;
    shared->nodes = 1;

    return NGX_OK;
}


static ngx_http_coord_status_shared_t *
ngx_http_coord_status_fleet_find(ngx_http_coord_status_fleet_t *fleet,
    const ngx_str_t *feature, const ngx_str_t *name)
{
    ngx_uint_t                       i;
    ngx_coord_summary_zone_t        *sum;
    ngx_http_coord_status_shared_t  *shared;

    shared = fleet->zones.elts;

    for (i = 0; i < fleet->zones.nelts; i++) {
        sum = &shared[i].sum;

        if (sum->name.len == name->len
            && sum->feature.len == feature->len
            && ngx_memcmp(sum->name.data, name->data, name->len) == 0
            && ngx_memcmp(sum->feature.data, feature->data, feature->len) == 0)
        {
            return &shared[i];
        }
    }

    return NULL;
}


ngx_coord_summary_zone_t *
ngx_http_coord_status_fleet_of(ngx_http_coord_status_t *st,
    ngx_coord_zone_t *zone)
{
    ngx_http_coord_status_shared_t  *shared;

    shared = ngx_http_coord_status_fleet_find(&st->fleet, &zone->kind->name,
                                              &zone->name);

    return shared ? &shared->sum : NULL;
}


uint64_t
ngx_http_coord_status_uptime(ngx_http_coord_status_t *st)
{
    ngx_uint_t                     i;
    ngx_http_coord_status_node_t  *nodes;

    nodes = st->fleet.nodes.elts;

    for (i = 0; i < st->fleet.nodes.nelts; i++) {
        if (nodes[i].node->self) {
            return nodes[i].summary.uptime;
        }
    }

    return 0;
}


static void
ngx_http_coord_status_fleet_add(ngx_coord_summary_zone_t *sum,
    ngx_coord_summary_zone_t *zone)
{
    sum->total += zone->total;
    sum->refused += zone->refused;
    sum->bypassed += zone->bypassed;
    sum->minute += zone->minute;
    sum->minute_refused += zone->minute_refused;
    sum->minute_bypassed += zone->minute_bypassed;
}


/* by their first Redis store the nodes hear of one another */

static ngx_uint_t
ngx_http_coord_status_heard(ngx_http_coord_status_t *st)
{
    ngx_uint_t  i;

    for (i = 0; i < st->nstores; i++) {
        if (!ngx_coord_store_is_memory(st->stores[i].store)) {
            return st->stores[i].state != NGX_COORD_STORE_DOWN;
        }
    }

    return 1;
}


void
ngx_http_coord_status_fleet_json(ngx_http_coord_status_t *st,
    ngx_http_coord_out_t *out)
{
    ngx_uint_t                       i;
    ngx_http_coord_status_node_t    *nodes;
    ngx_http_coord_status_shared_t  *zones;

    ngx_http_coord_json_open(out, "fleet", '{');
    ngx_http_coord_json_open(out, "nodes", '[');

    nodes = st->fleet.nodes.elts;

    for (i = 0; i < st->fleet.nodes.nelts; i++) {
        ngx_http_coord_status_fleet_json_node(&nodes[i], out);
    }

    ngx_http_coord_json_close(out, ']');

    ngx_http_coord_json_open(out, "lost", '[');

    nodes = st->fleet.lost.elts;

    for (i = 0; i < st->fleet.lost.nelts; i++) {
        ngx_http_coord_json_open(out, NULL, '{');
        ngx_http_coord_json_string(out, "node", &nodes[i].summary.node);
        ngx_http_coord_json_number(out, "age_ms", nodes[i].node->age);
        ngx_http_coord_json_close(out, '}');
    }

    ngx_http_coord_json_close(out, ']');

    ngx_http_coord_json_bool(out, "heard", ngx_http_coord_status_heard(st));

    ngx_http_coord_json_open(out, "sum", '{');
    ngx_http_coord_json_number(out, "nodes", st->fleet.alive);
    ngx_http_coord_json_number(out, "workers", st->fleet.workers);
    ngx_http_coord_status_fleet_json_sum(&st->fleet.sum, out);
    ngx_http_coord_json_close(out, '}');

    ngx_http_coord_json_open(out, "zones", '[');

    zones = st->fleet.zones.elts;

    for (i = 0; i < st->fleet.zones.nelts; i++) {
        ngx_http_coord_json_open(out, NULL, '{');
        ngx_http_coord_json_string(out, "feature", &zones[i].sum.feature);
        ngx_http_coord_json_string(out, "zone", &zones[i].sum.name);
        ngx_http_coord_json_number(out, "nodes", zones[i].nodes);
        ngx_http_coord_status_fleet_json_sum(&zones[i].sum, out);
        ngx_http_coord_json_close(out, '}');
    }

    ngx_http_coord_json_close(out, ']');
    ngx_http_coord_json_close(out, '}');
}


static void
ngx_http_coord_status_fleet_json_node(ngx_http_coord_status_node_t *n,
    ngx_http_coord_out_t *out)
{
    ngx_http_coord_json_open(out, NULL, '{');
    ngx_http_coord_json_string(out, "node", &n->summary.node);
    ngx_http_coord_json_bool(out, "self", n->node->self);
    ngx_http_coord_json_bool(out, "silent", n->node->silent);
    ngx_http_coord_json_number(out, "age_ms", n->node->age);
    ngx_http_coord_json_string(out, "nginx", &n->summary.nginx);
    ngx_http_coord_json_number(out, "workers", n->summary.workers);
    ngx_http_coord_json_number(out, "uptime_seconds", n->summary.uptime);
    ngx_http_coord_json_number(out, "trouble", n->summary.trouble);
    ngx_http_coord_status_fleet_json_sum(&n->sum, out);
    ngx_http_coord_json_close(out, '}');
}


static void
ngx_http_coord_status_fleet_json_sum(ngx_coord_summary_zone_t *sum,
    ngx_http_coord_out_t *out)
{
    ngx_http_coord_json_number(out, "total", sum->total);
    ngx_http_coord_json_number(out, "refused", sum->refused);
    ngx_http_coord_json_number(out, "bypassed", sum->bypassed);

    ngx_http_coord_json_open(out, "rate", '{');
    ngx_http_coord_json_seconds(out, "minute", sum->minute * 1000000 / 60);
    ngx_http_coord_json_seconds(out, "minute_refused",
                                sum->minute_refused * 1000000 / 60);
    ngx_http_coord_json_seconds(out, "minute_bypassed",
                                sum->minute_bypassed * 1000000 / 60);
    ngx_http_coord_json_close(out, '}');
}


/* shown where there is more than one; the script writes the rows again */

void
ngx_http_coord_status_fleet_html(ngx_http_coord_status_t *st,
    ngx_http_coord_out_t *out)
{
    ngx_uint_t                     i;
    ngx_http_coord_status_node_t  *nodes;

    ngx_http_coord_out_printf(out, "<section id=\"fleet\"%s><h2 "
                              "class=\"title\">Fleet, last minute<small "
                              "id=\"deaf\"%s>others are not heard while their "
                              "store is down</small></h2>",
                              st->fleet.nodes.nelts + st->fleet.lost.nelts > 1
                              ? "" : " hidden",
                              ngx_http_coord_status_heard(st) ? " hidden"
                                                              : "");
    ngx_http_coord_out_text(out, "<div class=\"card wide\"><table><thead>"
                            "<tr><th>node</th><th>nginx</th><th>workers</th>"
                            "<th>running for</th><th>a second</th>"
                            "<th>refused</th><th>unprotected</th></tr>"
                            "</thead><tbody id=\"nodes\">");

    nodes = st->fleet.nodes.elts;

    for (i = 0; i < st->fleet.nodes.nelts; i++) {
        ngx_http_coord_status_fleet_html_node(&nodes[i], out);
    }

    ngx_http_coord_out_printf(out, "<tr class=\"sum\"><td>all that answer: "
                              "%ui</td><td></td><td>%ui</td><td></td>",
                              st->fleet.alive, st->fleet.workers);
    ngx_http_coord_status_fleet_html_sum(&st->fleet.sum, out);
    ngx_http_coord_out_text(out, "</tr></tbody></table>"
                            "<p id=\"lost\" class=\"degraded\">");

    nodes = st->fleet.lost.elts;

    for (i = 0; i < st->fleet.lost.nelts; i++) {
        ngx_http_coord_out_printf(out, "%s", i ? ", " : "not there any more: ");
        ngx_http_coord_out_html(out, &nodes[i].summary.node);
        ngx_http_coord_out_text(out, " (last heard of ");
        ngx_http_coord_status_html_lasting(out, nodes[i].node->age / 1000);
        ngx_http_coord_out_text(out, " ago)");
    }

    ngx_http_coord_out_text(out, "</p></div>");

    ngx_http_coord_status_fleet_html_others(st, out);

    ngx_http_coord_out_text(out, "</section>");
}


/* zones that this node has not */

static void
ngx_http_coord_status_fleet_html_others(ngx_http_coord_status_t *st,
    ngx_http_coord_out_t *out)
{
    ngx_uint_t                       i, n;
    ngx_coord_zone_t                *zone;
    ngx_http_coord_out_t             rows;
    ngx_http_coord_status_shared_t  *zones;

    ngx_http_coord_out_init(&rows, st->request->pool);

    zones = st->fleet.zones.elts;

    for (i = 0; i < st->fleet.zones.nelts; i++) {

        for (n = 0; /* void */ ; n++) {
            zone = ngx_http_coord_status_zone(st, n);

            if (zone == NULL
                || ngx_http_coord_status_fleet_of(st, zone) == &zones[i].sum)
            {
                break;
            }
        }

        if (zone == NULL) {
            ngx_http_coord_out_text(&rows, "<tr><td>");
            ngx_http_coord_out_html(&rows, &zones[i].sum.name);
            ngx_http_coord_out_text(&rows, "</td><td>");
            ngx_http_coord_out_html(&rows, &zones[i].sum.feature);
            ngx_http_coord_out_printf(&rows, "</td><td>%ui</td>",
                                      zones[i].nodes);
            ngx_http_coord_status_fleet_html_sum(&zones[i].sum, &rows);
            ngx_http_coord_out_text(&rows, "</tr>");
        }
    }

    ngx_http_coord_out_printf(out, "<div id=\"elsewhere\" class=\"card "
                              "wide\"%s>", rows.size ? "" : " hidden");
    ngx_http_coord_out_text(out, "<table><thead><tr><th>zone of other nodes "
                            "only</th><th>feature</th><th>nodes</th>"
                            "<th>a second</th><th>refused</th>"
                            "<th>unprotected</th></tr></thead>"
                            "<tbody id=\"shared\">");
    ngx_http_coord_out_join(out, &rows);
    ngx_http_coord_out_text(out, "</tbody></table></div>");
}


static void
ngx_http_coord_status_fleet_html_node(ngx_http_coord_status_node_t *n,
    ngx_http_coord_out_t *out)
{
    ngx_http_coord_out_printf(out, "<tr class=\"%s\"><td>",
                              n->node->silent ? "silent" : "");
    ngx_http_coord_out_html(out, &n->summary.node);

    if (n->node->self) {
        ngx_http_coord_out_text(out, " <small>this node</small>");

    } else if (n->node->silent) {
        ngx_http_coord_out_printf(out, " <small>silent for %ui s</small>",
                                  n->node->age / 1000);
    }

    if (n->summary.trouble) {
        ngx_http_coord_out_printf(out, " <small class=\"bad\">trouble: %ui"
                                  "</small>", n->summary.trouble);
    }

    ngx_http_coord_out_text(out, "</td><td>");
    ngx_http_coord_out_html(out, &n->summary.nginx);
    ngx_http_coord_out_printf(out, "</td><td>%ui</td><td>",
                              n->summary.workers);
    ngx_http_coord_status_html_lasting(out, n->summary.uptime);
    ngx_http_coord_out_text(out, "</td>");
    ngx_http_coord_status_fleet_html_sum(&n->sum, out);
    ngx_http_coord_out_text(out, "</tr>");
}


/* a second, and shares of the last minute */

static void
ngx_http_coord_status_fleet_html_sum(ngx_coord_summary_zone_t *sum,
    ngx_http_coord_out_t *out)
{
    uint64_t  all;

    all = ngx_max(sum->minute, 1);

    ngx_http_coord_out_printf(out, "<td>%uL.%uL</td><td>%uL.%uL%%</td>"
                              "<td>%uL.%uL%%</td>",
                              sum->minute / 60, sum->minute % 60 / 6,
                              sum->minute_refused * 100 / all,
                              sum->minute_refused * 1000 / all % 10,
                              sum->minute_bypassed * 100 / all,
                              sum->minute_bypassed * 1000 / all % 10);
}
