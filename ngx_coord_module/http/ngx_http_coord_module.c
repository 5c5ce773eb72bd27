
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The core module: stores, shared directives, phase handlers, worker start
 * and end.  Features are nginx modules of their own in the same file and
 * register with it.
 */


#include "ngx_http_coord.h"
#include "ngx_http_coord_client_net.h"
#include "ngx_http_coord_conf.h"
#include "ngx_coord_bus.h"
#include "ngx_coord_fleet.h"
#include "ngx_coord_probe.h"
#include "ngx_coord_lease.h"
#include "ngx_coord_near.h"
#include "ngx_coord_prefetch.h"


static void *ngx_http_coord_create_main_conf(ngx_conf_t *cf);
static char *ngx_http_coord_init_main_conf(ngx_conf_t *cf, void *conf);
static void *ngx_http_coord_create_loc_conf(ngx_conf_t *cf);
static char *ngx_http_coord_merge_loc_conf(ngx_conf_t *cf, void *parent,
    void *child);
static ngx_int_t ngx_http_coord_init(ngx_conf_t *cf);
static ngx_uint_t ngx_http_coord_stage_used(ngx_http_coord_main_conf_t *mcf,
    ngx_uint_t stage);
static ngx_int_t ngx_http_coord_step_add(ngx_array_t *steps,
    ngx_http_coord_feature_t *feature, ngx_uint_t stage);
static ngx_int_t ngx_http_coord_init_process(ngx_cycle_t *cycle);
static void ngx_http_coord_exit_process(ngx_cycle_t *cycle);


static ngx_conf_enum_t  ngx_http_coord_limit_headers_enum[] = {
    { ngx_string("off"), NGX_HTTP_COORD_HEADERS_OFF },
    { ngx_string("draft"), NGX_HTTP_COORD_HEADERS_DRAFT },
    { ngx_string("legacy"), NGX_HTTP_COORD_HEADERS_LEGACY },
    { ngx_null_string, 0 }
};


static ngx_command_t  ngx_http_coord_commands[] = {

    { ngx_string("coord_store"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_BLOCK|NGX_CONF_TAKE1,
      ngx_http_coord_store_block,
      NGX_HTTP_MAIN_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("coord_on_failure"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_enum_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_coord_loc_conf_t, on_failure),
      &ngx_http_coord_failure_enum },

    { ngx_string("coord_limit_headers"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE1,
      ngx_conf_set_enum_slot,
      NGX_HTTP_LOC_CONF_OFFSET,
      offsetof(ngx_http_coord_loc_conf_t, limit_headers),
      &ngx_http_coord_limit_headers_enum },

    { ngx_string("coord_client_net"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_TAKE2,
      ngx_http_coord_client_net,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

      ngx_null_command
};


static ngx_http_module_t  ngx_http_coord_module_ctx = {
    ngx_http_coord_client_net_add,         /* preconfiguration */
    ngx_http_coord_init,                   /* postconfiguration */

    ngx_http_coord_create_main_conf,       /* create main configuration */
    ngx_http_coord_init_main_conf,         /* init main configuration */

    NULL,                                  /* create server configuration */
    NULL,                                  /* merge server configuration */

    ngx_http_coord_create_loc_conf,        /* create location configuration */
    ngx_http_coord_merge_loc_conf          /* merge location configuration */
};


ngx_module_t  ngx_http_coord_module = {
    NGX_MODULE_V1,
    &ngx_http_coord_module_ctx,            /* module context */
    ngx_http_coord_commands,               /* module directives */
    NGX_HTTP_MODULE,                       /* module type */
    NULL,                                  /* init master */
    NULL,                                  /* init module */
    ngx_http_coord_init_process,           /* init process */
    NULL,                                  /* init thread */
    NULL,                                  /* exit thread */
    ngx_http_coord_exit_process,           /* exit process */
    NULL,                                  /* exit master */
    NGX_MODULE_V1_PADDING
};


ngx_int_t
ngx_http_coord_feature_add(ngx_conf_t *cf, ngx_http_coord_feature_t *feature)
{
    ngx_uint_t                    i;
    ngx_http_coord_feature_t    **f;
    ngx_http_coord_main_conf_t   *mcf;

    mcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_coord_module);

    f = ngx_array_push(&mcf->features);
    if (f == NULL) {
        return NGX_ERROR;
    }

    *f = feature;
    feature->slot = mcf->features.nelts - 1;

    for (i = 0; i < NGX_HTTP_COORD_STAGES; i++) {
        if (feature->steps[i].begin == NULL) {
            continue;
        }

        if (ngx_http_coord_step_add(&mcf->steps[i], feature, i) != NGX_OK) {
            return NGX_ERROR;
        }

        if (feature->steps[i].flags & NGX_HTTP_COORD_STEP_ANSWERS) {
            mcf->answers[i] |= 1 << feature->slot;
        }

        if (feature->steps[i].flags & NGX_HTTP_COORD_STEP_HOLDS) {
            mcf->holds |= 1 << feature->slot;
        }
    }

    if (feature->variables) {
        return ngx_http_coord_add_variables(cf, feature->variables);
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_coord_step_add(ngx_array_t *steps, ngx_http_coord_feature_t *feature,
    ngx_uint_t stage)
{
    ngx_uint_t                  i;
    ngx_http_coord_feature_t  **f;

    if (ngx_array_push(steps) == NULL) {
        return NGX_ERROR;
    }

    f = steps->elts;

    for (i = steps->nelts - 1; i > 0; i--) {

        if (f[i - 1]->steps[stage].order <= feature->steps[stage].order) {
            break;
        }

        f[i] = f[i - 1];
    }

    f[i] = feature;

    return NGX_OK;
}


void
ngx_http_coord_feature_enable(ngx_conf_t *cf,
    ngx_http_coord_feature_t *feature, ngx_http_coord_stage_e stage,
    ngx_uint_t inherited)
{
    ngx_http_coord_loc_conf_t   *lcf;
    ngx_http_coord_main_conf_t  *mcf;

    mcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_coord_module);
    lcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_coord_module);

    if (inherited
        && lcf->exempt
        && (lcf->outer == NULL
            || !(lcf->outer->features[stage] & (1 << feature->slot))))
    {
        return;
    }

    mcf->used |= 1 << feature->slot;
    lcf->features[stage] |= 1 << feature->slot;
}


void
ngx_http_coord_feature_body(ngx_conf_t *cf, ngx_uint_t inherited)
{
    ngx_http_coord_loc_conf_t  *lcf;

    lcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_coord_module);

    if (!inherited || !lcf->exempt || (lcf->outer && lcf->outer->body)) {
        lcf->body = 1;
    }
}


void
ngx_http_coord_exempt(ngx_conf_t *cf)
{
    ngx_http_coord_loc_conf_t  *lcf;

    lcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_coord_module);

    lcf->exempt = 1;
}


ngx_uint_t
ngx_http_coord_is_exempt(ngx_conf_t *cf)
{
    ngx_http_coord_loc_conf_t  *lcf;

    lcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_coord_module);

    return lcf->exempt;
}


static void *
ngx_http_coord_create_main_conf(ngx_conf_t *cf)
{
    ngx_uint_t                   i;
    ngx_coord_store_t           *store;
    ngx_http_coord_main_conf_t  *mcf;

    mcf = ngx_pcalloc(cf->pool, sizeof(ngx_http_coord_main_conf_t));
    if (mcf == NULL) {
        return NULL;
    }

    if (ngx_array_init(&mcf->stores, cf->pool, 2,
                       sizeof(ngx_coord_store_t *))
        != NGX_OK)
    {
        return NULL;
    }

    if (ngx_array_init(&mcf->variables, cf->pool, 32,
                       sizeof(ngx_http_variable_t *))
        != NGX_OK)
    {
        return NULL;
    }

    if (ngx_array_init(&mcf->zones, cf->pool, 4,
                       sizeof(ngx_http_coord_zone_conf_t *))
        != NGX_OK)
    {
        return NULL;
    }

    if (ngx_array_init(&mcf->features, cf->pool, 8,
                       sizeof(ngx_http_coord_feature_t *))
        != NGX_OK)
    {
        return NULL;
    }

    for (i = 0; i < NGX_HTTP_COORD_STAGES; i++) {
        if (ngx_array_init(&mcf->steps[i], cf->pool, 8,
                           sizeof(ngx_http_coord_feature_t *))
            != NGX_OK)
        {
            return NULL;
        }
    }

    store = ngx_pcalloc(cf->pool, sizeof(ngx_coord_store_t));
    if (store == NULL) {
        return NULL;
    }

    store->stats = ngx_pcalloc(cf->pool, sizeof(ngx_coord_store_stats_t));
    if (store->stats == NULL) {
        return NULL;
    }

    ngx_str_set(&store->name, "local");
    store->actions = &ngx_coord_store_memory_actions;

    mcf->local = store;

    mcf->metrics.zones = &mcf->zones;
    mcf->metrics.stores = &mcf->stores;
    mcf->metrics.local = store;

    return mcf;
}


static char *
ngx_http_coord_init_main_conf(ngx_conf_t *cf, void *conf)
{
    if (ngx_http_coord_zones_resolve(cf) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


static void *
ngx_http_coord_create_loc_conf(ngx_conf_t *cf)
{
    ngx_http_coord_loc_conf_t  *lcf;

    lcf = ngx_pcalloc(cf->pool, sizeof(ngx_http_coord_loc_conf_t));
    if (lcf == NULL) {
        return NULL;
    }

    /*
     * set by ngx_pcalloc():
     *
     *     lcf->features[] = { 0 };
     */

    lcf->on_failure = NGX_CONF_UNSET_UINT;
    lcf->limit_headers = NGX_CONF_UNSET_UINT;
    lcf->net = NGX_CONF_UNSET_UINT;
    lcf->net6 = NGX_CONF_UNSET_UINT;

    return lcf;
}


static char *
ngx_http_coord_merge_loc_conf(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_http_coord_loc_conf_t  *prev = parent;
    ngx_http_coord_loc_conf_t  *conf = child;

    ngx_http_core_loc_conf_t  *clcf;

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    if (clcf->noname) {
        /* "if" in a location has its handler, and its lines */
        conf->exempt |= prev->exempt;
        conf->outer = prev;
    }

    ngx_conf_merge_uint_value(conf->on_failure, prev->on_failure,
                              NGX_COORD_FAILURE_OPEN);
    ngx_conf_merge_uint_value(conf->limit_headers, prev->limit_headers,
                              NGX_HTTP_COORD_HEADERS_DRAFT);
    ngx_conf_merge_uint_value(conf->net, prev->net, NGX_HTTP_COORD_NET_INET);
    ngx_conf_merge_uint_value(conf->net6, prev->net6,
                              NGX_HTTP_COORD_NET_INET6);

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_coord_init(ngx_conf_t *cf)
{
    ngx_http_coord_main_conf_t  *mcf;

    mcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_coord_module);

    if (ngx_http_coord_stores_resolve(cf) != NGX_OK) {
        return NGX_ERROR;
    }

    if ((mcf->zones.nelts || mcf->stores.nelts || mcf->metrics.status)
        && ngx_coord_metrics_add(cf, &mcf->metrics, &ngx_http_coord_module)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (mcf->metrics.status
        && ngx_coord_fleet_add(cf, &mcf->metrics, &ngx_http_coord_module)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    /* a module that is not used costs a request nothing, here as in filters */

    if (mcf->used == 0) {
        return NGX_OK;
    }

    ngx_http_coord_hash_variables(cf);

    /*
     * Behind all others of the phase: keys see the address that realip has
     * found, and what the stock limits refuse never reaches a store.
     */

    if (ngx_http_coord_stage_used(mcf, NGX_HTTP_COORD_PREACCESS)
        && ngx_http_coord_phase_handler(cf, NGX_HTTP_PREACCESS_PHASE,
                                        ngx_http_coord_preaccess_handler, 1)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    /* before the others: what is replayed is neither mirrored nor tried */

    return ngx_http_coord_phase_handler(cf, NGX_HTTP_PRECONTENT_PHASE,
                                        ngx_http_coord_precontent_handler, 0);
}


static ngx_uint_t
ngx_http_coord_stage_used(ngx_http_coord_main_conf_t *mcf, ngx_uint_t stage)
{
    ngx_uint_t                  i;
    ngx_http_coord_feature_t  **features;

    features = mcf->steps[stage].elts;

    for (i = 0; i < mcf->steps[stage].nelts; i++) {
        if (mcf->used & (1 << features[i]->slot)) {
            return 1;
        }
    }

    return 0;
}


/*
 * The handlers of a phase run from the last in its array to the first
 * (ngx_http_init_phase_handlers() in src/http/ngx_http.c).
 */

ngx_int_t
ngx_http_coord_phase_handler(ngx_conf_t *cf, ngx_http_phases phase,
    ngx_http_handler_pt handler, ngx_uint_t last)
{
    ngx_array_t                *handlers;
    ngx_http_handler_pt        *h;
    ngx_http_core_main_conf_t  *cmcf;

    cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module);

    handlers = &cmcf->phases[phase].handlers;

    h = ngx_array_push(handlers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    if (last) {
        h = handlers->elts;
        ngx_memmove(h + 1, h,
                    (handlers->nelts - 1) * sizeof(ngx_http_handler_pt));
    }

    *h = handler;

    return NGX_OK;
}


static ngx_int_t
ngx_http_coord_init_process(ngx_cycle_t *cycle)
{
    ngx_uint_t                    i;
    ngx_coord_store_t           **stores;
    ngx_http_coord_main_conf_t   *mcf;
    ngx_http_coord_zone_conf_t  **zones;

    mcf = ngx_http_cycle_get_module_main_conf(cycle, ngx_http_coord_module);

    if (mcf == NULL
        || (ngx_process != NGX_PROCESS_WORKER
            && ngx_process != NGX_PROCESS_SINGLE))
    {
        return NGX_OK;
    }

    /* the master's time is that before it has read the configuration */

    ngx_time_update();

    ngx_coord_metrics_start(&mcf->metrics);

    ngx_coord_prefetch_init(cycle);

    if (ngx_coord_store_init(mcf->local, cycle) != NGX_OK
        || ngx_coord_near_start(mcf->local, cycle) != NGX_OK)
    {
        return NGX_ERROR;
    }

    stores = mcf->stores.elts;

    for (i = 0; i < mcf->stores.nelts; i++) {
        if (ngx_coord_store_init(stores[i], cycle) != NGX_OK
            || ngx_coord_near_start(stores[i], cycle) != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    zones = mcf->zones.elts;

    for (i = 0; i < mcf->zones.nelts; i++) {
        if (zones[i]->zone.journal) {
            ngx_coord_lease_watch(&zones[i]->zone);
        }

        if (zones[i]->zone.prefetch) {
            ngx_coord_prefetch_watch(&zones[i]->zone);
        }
    }

    if (mcf->metrics.status
        && (ngx_coord_probe_start(&mcf->metrics, cycle) != NGX_OK
            || ngx_coord_fleet_start(&mcf->metrics, cycle) != NGX_OK))
    {
        return NGX_ERROR;
    }

    return NGX_OK;
}


static void
ngx_http_coord_exit_process(ngx_cycle_t *cycle)
{
    ngx_uint_t                    i;
    ngx_coord_store_t           **stores;
    ngx_http_coord_main_conf_t   *mcf;

    mcf = ngx_http_cycle_get_module_main_conf(cycle, ngx_http_coord_module);

    if (mcf == NULL
        || (ngx_process != NGX_PROCESS_WORKER
            && ngx_process != NGX_PROCESS_SINGLE))
    {
        return;
    }

    /* what requests still hold: a fast exit does not end them */

    ngx_coord_lease_exit();
    ngx_coord_prefetch_exit();

    stores = mcf->stores.elts;

    for (i = 0; i < mcf->stores.nelts; i++) {
        ngx_coord_bus_exit(stores[i]);
        ngx_coord_near_stop(stores[i]);
        ngx_coord_store_exit(stores[i]);
    }

    ngx_coord_bus_exit(mcf->local);
    ngx_coord_store_exit(mcf->local);

    ngx_coord_fleet_stop();
    ngx_coord_probe_stop();
    ngx_coord_metrics_stop(&mcf->metrics);
}
