
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The status page: one look at the metrics in three forms.
 *
 *   ngx_http_coord_status.c        directives, which form, health
 *   ngx_http_coord_status_replication.c  servers, replicas, sentinels
 *   ngx_http_coord_status_view.c   what there is to show
 *   ngx_http_coord_status_html*.c  the page; its style and script are in
 *                                  ngx_http_coord_status_page.h
 *   ngx_http_coord_status_*.c      the forms
 */


#ifndef _NGX_HTTP_COORD_STATUS_H_INCLUDED_
#define _NGX_HTTP_COORD_STATUS_H_INCLUDED_


#include "ngx_http_coord.h"
#include "ngx_http_coord_api.h"
#include "ngx_http_coord_out.h"
#include "ngx_coord_summary.h"


#define NGX_HTTP_COORD_STATUS_HISTORY  60    /* seconds */
#define NGX_HTTP_COORD_STATUS_NOW      5     /* of them are "now" */
#define NGX_HTTP_COORD_STATUS_KEYS     10
#define NGX_HTTP_COORD_STATUS_TAG      16    /* digits that name a key */


/* what is known of a store */
typedef struct {
    ngx_coord_store_t             *store;
    ngx_coord_store_stats_t        stats;
    ngx_coord_store_stats_t        minute;   /* of the last one */
    ngx_coord_store_info_t         info;
    ngx_coord_store_state_e        state;
    const ngx_str_t               *refusal;      /* NULL: it does not refuse */
    ngx_coord_fail_e               reason;   /* of what failed lately */
} ngx_http_coord_status_store_t;


/*
 * Decisions on a zone in the last minute, in full seconds, the oldest first,
 * and the sums of all and of the last NGX_HTTP_COORD_STATUS_NOW ones.
 */
typedef struct {
    ngx_coord_second_t             seconds[NGX_HTTP_COORD_STATUS_HISTORY];
    ngx_coord_second_t             minute;
    ngx_coord_second_t             now;
} ngx_http_coord_status_rates_t;


/* what the nodes of the store have told */
typedef struct {
    ngx_array_t                    nodes;    /* of .._status_node_t */
    ngx_array_t                    lost;     /* the same, not there any more */
    ngx_array_t                    zones;    /* of .._status_shared_t */
    ngx_coord_summary_zone_t       sum;      /* of nodes that are not silent */
    ngx_uint_t                     alive;    /* how many those are */
    ngx_uint_t                     workers;  /* of them */
} ngx_http_coord_status_fleet_t;


/* what a response is made from */
typedef struct {
    ngx_http_request_t            *request;
    ngx_http_coord_main_conf_t    *conf;
    ngx_coord_metrics_view_t       view;
    ngx_http_coord_status_store_t  *stores;
    ngx_uint_t                     nstores;
    ngx_uint_t                     keys;     /* show refused keys */
    ngx_http_coord_status_fleet_t  fleet;

    /* of each zone, and of all together */
    ngx_http_coord_status_rates_t  *rates;
    ngx_http_coord_status_rates_t  all;
} ngx_http_coord_status_t;


extern ngx_module_t  ngx_http_coord_status_module;


/* --- ngx_http_coord_status_view.c --- */

/*
 * Looks at all for a request: fills st, but keys.  Its stores are those of the
 * configuration, then the built-in one if a zone uses it.  NGX_ERROR: no
 * memory.
 */
ngx_int_t ngx_http_coord_status_look(ngx_http_coord_status_t *st,
    ngx_http_request_t *r);

/* the store of a zone */
ngx_http_coord_status_store_t *ngx_http_coord_status_of(
    ngx_http_coord_status_t *st, ngx_coord_zone_t *zone);

/*
 * Sentences on what is wrong: stores that are away, requests that were let go
 * without a decision in the last minute.  An array of ngx_str_t, of the
 * request's pool; NULL: no memory.
 */
ngx_array_t *ngx_http_coord_status_trouble(ngx_http_coord_status_t *st);

/* the n-th zone, from 0; NULL: there are no more */
ngx_coord_zone_t *ngx_http_coord_status_zone(ngx_http_coord_status_t *st,
    ngx_uint_t n);

/*
 * 1 if an outcome of a zone is to be shown: it has happened, or it is one that
 * its feature always tells.  *count is how often, over all workers.
 */
ngx_uint_t ngx_http_coord_status_outcome(ngx_coord_zone_t *zone,
    ngx_uint_t outcome, ngx_uint_t *count);

/*
 * The value of a metric of a zone: of its present states or its memory.
 * NGX_DECLINED: the metric is about something else.
 */
ngx_int_t ngx_http_coord_status_metric(ngx_http_coord_status_t *st,
    ngx_coord_zone_t *zone, const ngx_coord_metric_t *metric,
    ngx_uint_t *value);

/* the route of coord_api to a key in a zone of a kind; NULL: there is none */
const ngx_http_coord_route_t *ngx_http_coord_status_route(
    ngx_http_coord_status_t *st, const ngx_coord_kind_t *kind);

/*
 * The digits that name a refused key of a zone in the log, at most
 * NGX_HTTP_COORD_STATUS_TAG at tag; returns their number.
 */
size_t ngx_http_coord_status_tag(ngx_coord_zone_t *zone,
    ngx_coord_keys_entry_t *entry, u_char *tag);

/*
 * Fills st->rates and st->all, before the others are called.  NGX_ERROR: no
 * memory.
 */
ngx_int_t ngx_http_coord_status_gather(ngx_http_coord_status_t *st);

/* 1 if a zone had nothing to decide in the last minute, and holds nothing */
ngx_uint_t ngx_http_coord_status_idle(ngx_http_coord_status_t *st,
    ngx_coord_zone_t *zone, ngx_http_coord_status_rates_t *rates);

/*
 * A sentence on what part of all decisions of the last minute went on without
 * one, and of how many zones; words->len 0: there was none.  NGX_ERROR: no
 * memory.
 */
ngx_int_t ngx_http_coord_status_loss(ngx_http_coord_status_t *st,
    ngx_str_t *words);


/* --- ngx_http_coord_api.c --- */

/*
 * The first location with coord_api of the server of a request that serves its
 * client: its path, and whether it may write.  NGX_DECLINED: there is none.
 */
ngx_int_t ngx_http_coord_api_place(ngx_http_request_t *r, ngx_str_t *path,
    ngx_uint_t *write);


/*
 * The three forms; each adds all of st to out, whose memory is checked when
 * it is sent.  NGX_ERROR: no memory, no random numbers.
 */
ngx_int_t ngx_http_coord_status_json(ngx_http_coord_status_t *st,
    ngx_http_coord_out_t *out);
ngx_int_t ngx_http_coord_status_prom(ngx_http_coord_status_t *st,
    ngx_http_coord_out_t *out);
ngx_int_t ngx_http_coord_status_html(ngx_http_coord_status_t *st,
    ngx_http_coord_out_t *out);


/* --- ngx_http_coord_status_fleet.c --- */

/* fills st->fleet, before the others are called; NGX_ERROR: no memory */
ngx_int_t ngx_http_coord_status_fleet_look(ngx_http_coord_status_t *st);

/* what all nodes have of a zone; NULL: no node has told of it */
ngx_coord_summary_zone_t *ngx_http_coord_status_fleet_of(
    ngx_http_coord_status_t *st, ngx_coord_zone_t *zone);

/* the seconds since the start of this node; 0 where there is no fleet */
uint64_t ngx_http_coord_status_uptime(ngx_http_coord_status_t *st);

/* the member "fleet" of the JSON, a part of the page */
void ngx_http_coord_status_fleet_json(ngx_http_coord_status_t *st,
    ngx_http_coord_out_t *out);
void ngx_http_coord_status_fleet_html(ngx_http_coord_status_t *st,
    ngx_http_coord_out_t *out);


/* --- ngx_http_coord_status_html*.c: parts of the page --- */

/* the n-th store, the n-th zone */
void ngx_http_coord_status_html_store(ngx_http_coord_status_store_t *s,
    ngx_http_coord_out_t *out, ngx_uint_t n);
void ngx_http_coord_status_html_zone(ngx_http_coord_status_t *st,
    ngx_coord_zone_t *zone, ngx_http_coord_out_t *out, ngx_uint_t n);

/*
 * A chart of the last minute; path: where its seconds stand in the JSON, with
 * "%ui" for n.
 */
void ngx_http_coord_status_html_chart(ngx_http_coord_out_t *out,
    ngx_http_coord_status_rates_t *rates, const char *path, ngx_uint_t n);

/* a term and its value; path as above, form as data-f, fmt as ngx_sprintf */
void ngx_http_coord_status_html_row(ngx_http_coord_out_t *out,
    const char *label, const char *path, const char *form, ngx_uint_t n,
    const char *fmt, ...);

/* seconds in words: "3 days" */
void ngx_http_coord_status_html_lasting(ngx_http_coord_out_t *out,
    uint64_t seconds);

/* ngx_http_coord_status_replication.c: of the server of a store */
void ngx_http_coord_status_json_replication(ngx_coord_store_info_t *info,
    ngx_http_coord_out_t *out);
void ngx_http_coord_status_html_replication(ngx_coord_store_info_t *info,
    ngx_http_coord_out_t *out);

/* the members of one store, also for coord_health */
void ngx_http_coord_status_json_store(ngx_http_coord_status_store_t *s,
    ngx_http_coord_out_t *out);


#endif /* _NGX_HTTP_COORD_STATUS_H_INCLUDED_ */
