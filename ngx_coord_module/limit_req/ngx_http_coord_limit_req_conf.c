
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_limit_req: the directives.  Requests are decided in
 * ngx_http_coord_limit_req.c.
 */


#include "ngx_http_coord_conf.h"
#include "ngx_http_coord_limit_req.h"
#include "ngx_coord_rate.h"


static ngx_int_t ngx_http_coord_limit_req_preconfiguration(ngx_conf_t *cf);
static ngx_int_t ngx_http_coord_limit_req_postconfiguration(ngx_conf_t *cf);
static void *ngx_http_coord_limit_req_create_conf(ngx_conf_t *cf);
static char *ngx_http_coord_limit_req_merge_conf(ngx_conf_t *cf, void *parent,
    void *child);
static ngx_int_t ngx_http_coord_limit_req_check(ngx_conf_t *cf,
    ngx_http_coord_limit_req_limit_t *limit);
static char *ngx_http_coord_limit_req(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static ngx_int_t ngx_http_coord_limit_req_param(ngx_conf_t *cf,
    ngx_http_coord_limit_req_limit_t *limit, ngx_str_t *value);
static ngx_int_t ngx_http_coord_limit_req_burst(ngx_conf_t *cf,
    ngx_http_coord_limit_req_limit_t *limit, ngx_str_t *value);
static ngx_int_t ngx_http_coord_limit_req_places(ngx_conf_t *cf,
    ngx_http_coord_cost_t *cost, const char *name, ngx_str_t *value);
static ngx_uint_t ngx_http_coord_limit_req_is_bytes(ngx_str_t *value);
static ngx_int_t ngx_http_coord_limit_req_charge(ngx_conf_t *cf,
    ngx_http_coord_limit_req_limit_t *limit);


/* of the configuration being read: a handler of the log phase is needed */
static ngx_uint_t  ngx_http_coord_limit_req_logs;


static ngx_command_t  ngx_http_coord_limit_req_commands[] = {

    { ngx_string("coord_limit_req_zone"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_2MORE,
      ngx_http_coord_limit_req_zone,
      0,
      0,
      NULL },

    { ngx_string("coord_limit_req"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_1MORE,
      ngx_http_coord_limit_req,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("coord_limit_req_hold"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_1MORE,
      ngx_http_coord_limit_req_hold,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    ngx_http_coord_limiter_commands("coord_limit_req"),

      ngx_null_command
};


static ngx_http_module_t  ngx_http_coord_limit_req_module_ctx = {
    ngx_http_coord_limit_req_preconfiguration, /* preconfiguration */
    ngx_http_coord_limit_req_postconfiguration, /* postconfiguration */

    NULL,                                  /* create main configuration */
    NULL,                                  /* init main configuration */

    NULL,                                  /* create server configuration */
    NULL,                                  /* merge server configuration */

    ngx_http_coord_limit_req_create_conf,  /* create location configuration */
    ngx_http_coord_limit_req_merge_conf    /* merge location configuration */
};


ngx_module_t  ngx_http_coord_limit_req_module = {
    NGX_MODULE_V1,
    &ngx_http_coord_limit_req_module_ctx,  /* module context */
    ngx_http_coord_limit_req_commands,     /* module directives */
    NGX_HTTP_MODULE,                       /* module type */
    NULL,                                  /* init master */
    NULL,                                  /* init module */
    NULL,                                  /* init process */
    NULL,                                  /* init thread */
    NULL,                                  /* exit thread */
    NULL,                                  /* exit process */
    NULL,                                  /* exit master */
    NGX_MODULE_V1_PADDING
};


static ngx_int_t
ngx_http_coord_limit_req_preconfiguration(ngx_conf_t *cf)
{
    ngx_http_coord_limit_req_logs = 0;

    if (ngx_http_coord_limit_req_lint_init(cf) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_http_coord_feature_add(cf, &ngx_http_coord_limit_req_feature);
}


static ngx_int_t
ngx_http_coord_limit_req_postconfiguration(ngx_conf_t *cf)
{
    ngx_http_handler_pt        *h;
    ngx_http_core_main_conf_t  *cmcf;

    if (!ngx_http_coord_limit_req_logs) {
        return NGX_OK;
    }

    cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module);

    h = ngx_array_push(&cmcf->phases[NGX_HTTP_LOG_PHASE].handlers);
    if (h == NULL) {
        return NGX_ERROR;
    }

    *h = ngx_http_coord_limit_req_log;

    return NGX_OK;
}


static void *
ngx_http_coord_limit_req_create_conf(ngx_conf_t *cf)
{
    ngx_http_coord_limit_req_conf_t  *conf;

    conf = ngx_pcalloc(cf->pool, sizeof(ngx_http_coord_limit_req_conf_t));
    if (conf == NULL) {
        return NULL;
    }

    /*
     * set by ngx_pcalloc():
     *
     *     conf->limits.elts = NULL;
     *     conf->holds.elts = NULL;
     *     conf->holds_off = 0;
     */

    ngx_http_coord_limiter_conf_init(&conf->limiter);

    return conf;
}


static char *
ngx_http_coord_limit_req_merge_conf(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_http_coord_limit_req_conf_t  *prev = parent;
    ngx_http_coord_limit_req_conf_t  *conf = child;

    ngx_uint_t                         i, inherited;
    ngx_http_core_loc_conf_t          *clcf;
    ngx_http_coord_limit_req_hold_t   *holds;
    ngx_http_coord_limit_req_zone_t   *lrz;
    ngx_http_coord_limit_req_limit_t  *limits;

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    ngx_http_coord_limiter_conf_merge(&conf->limiter, &prev->limiter,
                                      NGX_HTTP_TOO_MANY_REQUESTS);

    inherited = (conf->limits.elts == NULL && !conf->limiter.off);

    if (inherited) {
        conf->limits = prev->limits;
    }

    limits = conf->limits.elts;

    for (i = 0; i < conf->limits.nelts; i++) {
        if (ngx_http_coord_limit_req_check(cf, &limits[i]) != NGX_OK) {
            return NGX_CONF_ERROR;
        }

        if (limits[i].body) {
            ngx_http_coord_feature_body(cf, inherited);
        }

        if (!inherited) {
            ngx_http_coord_limit_req_lint(cf, &limits[i]);
        }
    }

    if (conf->holds.elts == NULL
        && !conf->holds_off
        && (clcf->noname || !ngx_http_coord_is_exempt(cf)))
    {
        conf->holds = prev->holds;
    }

    holds = conf->holds.elts;

    for (i = 0; i < conf->holds.nelts; i++) {
        lrz = holds[i].zone->data;
        lrz->holds = 1;

        ngx_http_coord_limit_req_logs = 1;
    }

    for (i = 0; i < conf->limits.nelts; i++) {
        ngx_http_coord_feature_enable(cf, &ngx_http_coord_limit_req_feature,
                                      limits[i].stage, inherited);
    }

    return NGX_CONF_OK;
}


/* what depends on the algorithm: the zone may be declared after its use */

static ngx_int_t
ngx_http_coord_limit_req_check(ngx_conf_t *cf,
    ngx_http_coord_limit_req_limit_t *limit)
{
    ngx_coord_nsec_t                  interval;
    ngx_http_coord_limit_req_zone_t  *lrz;

    lrz = limit->zone->data;

    if (limit->has_burst && lrz->op != &ngx_coord_op_bucket_take) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "\"burst=\" is not allowed with zone \"%V\" in %s:%ui: "
                      "a window algorithm admits \"rate\" per period",
                      &limit->zone->name, limit->file, limit->line);
        return NGX_ERROR;
    }

    if (limit->has_delay && !lrz->delay) {
        ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                      "\"delay=\" is not allowed with zone \"%V\" in %s:%ui: "
                      "only \"leaky_bucket\" delays requests",
                      &limit->zone->name, limit->file, limit->line);
        return NGX_ERROR;
    }

    lrz->burst = ngx_max(lrz->burst, limit->burst);

    if (!lrz->delay) {
        limit->nodelay = 1;
    }

    if (lrz->rate == NULL && lrz->op == &ngx_coord_op_bucket_take) {
        interval = ngx_max(lrz->quota.period
                           / (ngx_coord_nsec_t) lrz->quota.count, 1);

        if (limit->burst >= (ngx_uint_t) (NGX_COORD_RATE_SPAN / interval)
            || limit->burst >= NGX_COORD_RATE_LIMIT)
        {
            ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                          "\"burst=%ui\" is too much for zone \"%V\" in "
                          "%s:%ui: at its rate it takes more than 18 years, "
                          "the most is %L",
                          limit->burst, &limit->zone->name, limit->file,
                          limit->line,
                          ngx_min(NGX_COORD_RATE_SPAN / interval,
                                  NGX_COORD_RATE_LIMIT) - 1);
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


static char *
ngx_http_coord_limit_req(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_coord_limit_req_conf_t *lrcf = conf;

    ngx_str_t                         *value, rest;
    ngx_uint_t                         i;
    ngx_http_coord_limit_req_limit_t  *limit, *limits;

    value = cf->args->elts;

    if (lrcf->limiter.off
        || (lrcf->limits.elts && ngx_strcmp(value[1].data, "off") == 0))
    {
        return "is duplicate";
    }

    if (ngx_http_coord_limiter_off(cf, &lrcf->limiter)) {
        return NGX_CONF_OK;
    }

    if (lrcf->limits.elts == NULL) {
        if (ngx_array_init(&lrcf->limits, cf->pool, 1,
                           sizeof(ngx_http_coord_limit_req_limit_t))
            != NGX_OK)
        {
            return NGX_CONF_ERROR;
        }
    }

    limit = ngx_http_coord_limits_push(cf, &cmd->name, &lrcf->limits);
    if (limit == NULL) {
        return NGX_CONF_ERROR;
    }

    ngx_memzero(limit, sizeof(ngx_http_coord_limit_req_limit_t));

    limit->on_failure = NGX_CONF_UNSET_UINT;
    limit->cost.n = 1;
    limit->file = cf->conf_file->file.name.data;
    limit->line = cf->conf_file->line;

    for (i = 1; i < cf->args->nelts; i++) {

        if (ngx_http_coord_param(&value[i], "zone=", &rest)) {
            continue;
        }

        if (ngx_http_coord_limit_req_param(cf, limit, &value[i]) != NGX_OK) {
            return NGX_CONF_ERROR;
        }
    }

    if (limit->has_delay && limit->nodelay) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"delay=\" and \"nodelay\" exclude each other");
        return NGX_CONF_ERROR;
    }

    if (ngx_http_coord_limit_req_charge(cf, limit) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    limit->zone = ngx_http_coord_zone_arg(cf, cmd,
                                      &ngx_http_coord_limit_req_feature.kind);
    if (limit->zone == NULL) {
        return NGX_CONF_ERROR;
    }

    limits = lrcf->limits.elts;

    for (i = 0; i < lrcf->limits.nelts - 1; i++) {
        if (limits[i].zone == limit->zone) {
            return "is duplicate";
        }
    }

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_coord_limit_req_param(ngx_conf_t *cf,
    ngx_http_coord_limit_req_limit_t *limit, ngx_str_t *value)
{
    ngx_str_t  rest;

    if (ngx_http_coord_param(value, "burst=", &rest)) {
        return ngx_http_coord_limit_req_burst(cf, limit, &rest);
    }

    if (ngx_http_coord_param(value, "delay=", &rest)) {

        if (ngx_coord_parse_count(&rest, 1, &limit->delay) == NGX_OK) {
            limit->has_delay = 1;
            return NGX_OK;
        }

        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid delay value \"%V\", it must be a number "
                           "from 1 to %d", &rest, NGX_COORD_COUNT_MAX);
        return NGX_ERROR;
    }

    if (ngx_http_coord_param(value, "cost=", &rest)) {
        limit->bytes = ngx_http_coord_limit_req_is_bytes(&rest);

        return ngx_http_coord_limit_req_places(cf, &limit->cost, "cost",
                                               &rest);
    }

    if (ngx_http_coord_param(value, "reserve=", &rest)) {
        return ngx_http_coord_limit_req_places(cf, &limit->reserve, "reserve",
                                               &rest);
    }

    if (ngx_strcmp(value->data, "charge=before") == 0) {
        limit->charge = NGX_HTTP_COORD_CHARGE_BEFORE;
        return NGX_OK;
    }

    if (ngx_strcmp(value->data, "charge=after") == 0) {
        limit->charge = NGX_HTTP_COORD_CHARGE_AFTER;
        return NGX_OK;
    }

    if (ngx_http_coord_param(value, "charge=", &rest)) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid value \"%V\" in \"charge=\", it must be "
                           "\"before\" or \"after\"", &rest);
        return NGX_ERROR;
    }

    if (ngx_http_coord_param(value, "on_failure=", &rest)) {
        return ngx_http_coord_parse_on_failure(cf, &rest, &limit->on_failure);
    }

    if (ngx_strcmp(value->data, "nodelay") == 0) {
        limit->nodelay = 1;
        return NGX_OK;
    }

    if (ngx_strcmp(value->data, "after_auth") == 0) {
        limit->stage = NGX_HTTP_COORD_PRECONTENT;
        return NGX_OK;
    }

    if (ngx_strcmp(value->data, "after_body") == 0) {
        limit->stage = NGX_HTTP_COORD_PRECONTENT;
        limit->body = 1;
        return NGX_OK;
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid parameter \"%V\", allowed are \"zone=\", "
                       "\"burst=\", \"nodelay\", \"delay=\", \"cost=\", "
                       "\"reserve=\", \"charge=\", \"after_auth\", "
                       "\"after_body\" and \"on_failure=\"", value);

    return NGX_ERROR;
}


static ngx_int_t
ngx_http_coord_limit_req_burst(ngx_conf_t *cf,
    ngx_http_coord_limit_req_limit_t *limit, ngx_str_t *value)
{
    limit->has_burst = 1;

    if (ngx_http_script_variables_count(value)) {
        limit->burst_value = ngx_http_coord_complex_value(cf, value);

        return limit->burst_value ? NGX_OK : NGX_ERROR;
    }

    if (ngx_coord_parse_count(value, 0, &limit->burst) == NGX_OK) {
        return NGX_OK;
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid burst value \"%V\", it must be a number "
                       "from 0 to %d", value, NGX_COORD_COUNT_MAX);

    return NGX_ERROR;
}


/* "cost=" and "reserve=" */

static ngx_int_t
ngx_http_coord_limit_req_places(ngx_conf_t *cf, ngx_http_coord_cost_t *cost,
    const char *name, ngx_str_t *value)
{
    cost->set = 1;
    cost->text = *value;

    if (ngx_http_script_variables_count(value)) {
        cost->value = ngx_http_coord_complex_value(cf, value);

        return cost->value ? NGX_OK : NGX_ERROR;
    }

    if (ngx_coord_parse_count(value, 0, &cost->n) == NGX_OK) {
        return NGX_OK;
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid %s value \"%V\", it must be a number "
                       "from 0 to %d, or hold variables", name, value,
                       NGX_COORD_COUNT_MAX);

    return NGX_ERROR;
}


/* a quota of bytes is one of content, as the RateLimit fields call it */

static ngx_uint_t
ngx_http_coord_limit_req_is_bytes(ngx_str_t *value)
{
    ngx_uint_t  i;

    static const ngx_str_t  names[] = {
        ngx_string("$bytes_sent"),
        ngx_string("${bytes_sent}"),
        ngx_string("$body_bytes_sent"),
        ngx_string("${body_bytes_sent}")
    };

    for (i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (names[i].len == value->len
            && ngx_strncmp(names[i].data, value->data, value->len) == 0)
        {
            return 1;
        }
    }

    return 0;
}


/* what "cost=", "reserve=" and "charge=" say together */

static ngx_int_t
ngx_http_coord_limit_req_charge(ngx_conf_t *cf,
    ngx_http_coord_limit_req_limit_t *limit)
{
    if (limit->reserve.set) {

        if (limit->charge == NGX_HTTP_COORD_CHARGE_AFTER) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "\"reserve=\" and \"charge=after\" exclude "
                               "each other");
            return NGX_ERROR;
        }

        if (!limit->cost.set) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "\"reserve=\" needs \"cost=\", which tells "
                               "what was used of it");
            return NGX_ERROR;
        }

        limit->charge = NGX_HTTP_COORD_CHARGE_RESERVE;
    }

    limit->cost_body = limit->body
                       && ngx_http_coord_body_used(&limit->cost.text);

    if (limit->charge != NGX_HTTP_COORD_CHARGE_BEFORE) {
        ngx_http_coord_limit_req_logs = 1;
    }

    return NGX_OK;
}
