
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_session: the directives.  Requests are decided in
 * ngx_http_coord_session.c.
 */


#include "ngx_http_coord_conf.h"
#include "ngx_http_coord_session.h"
#include "ngx_coord_parse.h"


#define NGX_HTTP_COORD_SESSION_TTL  (3600 * NGX_COORD_NSEC_PER_SEC)


static ngx_int_t ngx_http_coord_session_preconfiguration(ngx_conf_t *cf);
static void *ngx_http_coord_session_create_srv_conf(ngx_conf_t *cf);
static void *ngx_http_coord_session_create_conf(ngx_conf_t *cf);
static char *ngx_http_coord_session_merge_conf(ngx_conf_t *cf, void *parent,
    void *child);
static ngx_int_t ngx_http_coord_session_init(ngx_conf_t *cf);
static char *ngx_http_coord_session_zone(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static ngx_int_t ngx_http_coord_session_zone_param(ngx_conf_t *cf,
    ngx_http_coord_session_zone_t *sz, ngx_str_t *value);
static ngx_int_t ngx_http_coord_session_zone_time(ngx_conf_t *cf,
    ngx_str_t *value, const char *name, ngx_coord_nsec_t *ns);
static char *ngx_http_coord_session(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static ngx_int_t ngx_http_coord_session_use_zone(ngx_conf_t *cf,
    ngx_http_coord_session_use_t *use, ngx_coord_nsec_t revoked);
static ngx_int_t ngx_http_coord_session_param(ngx_conf_t *cf,
    ngx_http_coord_session_use_t *use, ngx_str_t *value,
    ngx_coord_nsec_t *revoked);
static ngx_http_complex_value_t *ngx_http_coord_session_bind_param(
    ngx_conf_t *cf, ngx_str_t *value);
static ngx_uint_t ngx_http_coord_session_names(ngx_str_t *text,
    const char *name);
static void ngx_http_coord_session_warn(ngx_conf_t *cf,
    ngx_http_coord_session_conf_t *conf);
static ngx_int_t ngx_http_coord_session_learn_param(ngx_conf_t *cf,
    ngx_http_coord_session_use_t *use, ngx_str_t *value);
static ngx_int_t ngx_http_coord_session_action(ngx_conf_t *cf,
    ngx_str_t *value, const char *name, ngx_uint_t rebind,
    ngx_uint_t *action);


static ngx_command_t  ngx_http_coord_session_commands[] = {

    { ngx_string("coord_session_zone"),
      NGX_HTTP_MAIN_CONF|NGX_CONF_2MORE,
      ngx_http_coord_session_zone,
      0,
      0,
      NULL },

    { ngx_string("coord_session"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_1MORE,
      ngx_http_coord_session,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("coord_session_cookie"),
      NGX_HTTP_MAIN_CONF|NGX_HTTP_SRV_CONF|NGX_HTTP_LOC_CONF|NGX_CONF_1MORE,
      ngx_http_coord_session_cookie,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    ngx_http_coord_limiter_commands("coord_session"),

    { ngx_string("coord_sticky"),
      NGX_HTTP_UPS_CONF|NGX_CONF_TAKE1,
      ngx_http_coord_sticky,
      NGX_HTTP_SRV_CONF_OFFSET,
      0,
      NULL },

      ngx_null_command
};


static ngx_http_module_t  ngx_http_coord_session_module_ctx = {
    ngx_http_coord_session_preconfiguration, /* preconfiguration */
    ngx_http_coord_session_init,           /* postconfiguration */

    NULL,                                  /* create main configuration */
    NULL,                                  /* init main configuration */

    ngx_http_coord_session_create_srv_conf, /* create server configuration */
    NULL,                                  /* merge server configuration */

    ngx_http_coord_session_create_conf,    /* create location configuration */
    ngx_http_coord_session_merge_conf      /* merge location configuration */
};


ngx_module_t  ngx_http_coord_session_module = {
    NGX_MODULE_V1,
    &ngx_http_coord_session_module_ctx,    /* module context */
    ngx_http_coord_session_commands,       /* module directives */
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


ngx_http_variable_t  ngx_http_coord_session_vars[] = {

    { ngx_string("coord_session_status"), NULL,
      ngx_http_coord_session_variable,
      NGX_HTTP_COORD_SESSION_VAR_STATUS, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("coord_session_value"), NULL,
      ngx_http_coord_session_variable,
      NGX_HTTP_COORD_SESSION_VAR_VALUE, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("coord_session_age"), NULL,
      ngx_http_coord_session_variable,
      NGX_HTTP_COORD_SESSION_VAR_AGE, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("coord_session_id"), NULL,
      ngx_http_coord_session_id_variable,
      0, NGX_HTTP_VAR_NOCACHEABLE, 0 },

      ngx_http_null_variable
};


static ngx_int_t
ngx_http_coord_session_preconfiguration(ngx_conf_t *cf)
{
    return ngx_http_coord_feature_add(cf, &ngx_http_coord_session_feature);
}


static void *
ngx_http_coord_session_create_srv_conf(ngx_conf_t *cf)
{
    /*
     * set by ngx_pcalloc():
     *
     *     conf->value = NULL;
     */

    return ngx_pcalloc(cf->pool, sizeof(ngx_http_coord_sticky_conf_t));
}


static void *
ngx_http_coord_session_create_conf(ngx_conf_t *cf)
{
    ngx_http_coord_session_conf_t  *conf;

    conf = ngx_pcalloc(cf->pool, sizeof(ngx_http_coord_session_conf_t));
    if (conf == NULL) {
        return NULL;
    }

    conf->use = NGX_CONF_UNSET_PTR;
    conf->cookie = NGX_CONF_UNSET_PTR;
    ngx_http_coord_limiter_conf_init(&conf->limiter);

    return conf;
}


static char *
ngx_http_coord_session_merge_conf(ngx_conf_t *cf, void *parent, void *child)
{
    ngx_http_coord_session_conf_t  *prev = parent;
    ngx_http_coord_session_conf_t  *conf = child;

    ngx_uint_t  inherited;

    inherited = (conf->use == NGX_CONF_UNSET_PTR
                 && conf->cookie == NGX_CONF_UNSET_PTR);

    ngx_conf_merge_ptr_value(conf->use, prev->use, NULL);
    ngx_conf_merge_ptr_value(conf->cookie, prev->cookie, NULL);

    ngx_http_coord_limiter_conf_merge(&conf->limiter, &prev->limiter,
                                      NGX_HTTP_FORBIDDEN);

    if (conf->use || conf->cookie) {
        ngx_http_coord_feature_enable(cf, &ngx_http_coord_session_feature,
                                      NGX_HTTP_COORD_PREACCESS, inherited);
    }

    if (conf->use) {
        ngx_http_coord_feature_enable(cf, &ngx_http_coord_session_feature,
                                      NGX_HTTP_COORD_PRECONTENT, inherited);

        ngx_http_coord_session_warn(cf, conf);
    }

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_coord_session_init(ngx_conf_t *cf)
{
    ngx_http_coord_sticky_check(cf);

    return NGX_OK;
}


static char *
ngx_http_coord_session_zone(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_str_t                      *value, name, store;
    ngx_uint_t                      i;
    ngx_coord_zone_t               *zone;
    ngx_http_coord_session_zone_t  *sz, *told;

    value = cf->args->elts;

    ngx_str_null(&name);
    ngx_str_null(&store);

    sz = ngx_pcalloc(cf->pool, sizeof(ngx_http_coord_session_zone_t));
    if (sz == NULL) {
        return NGX_CONF_ERROR;
    }

    sz->ttl = NGX_HTTP_COORD_SESSION_TTL;

    sz->key = ngx_http_coord_complex_value(cf, &value[1]);
    if (sz->key == NULL) {
        return NGX_CONF_ERROR;
    }

    sz->by_id = ngx_http_coord_session_names(&value[1], "coord_session_id");

    for (i = 2; i < cf->args->nelts; i++) {

        if (ngx_http_coord_param(&value[i], "zone=", &name)
            || ngx_http_coord_param(&value[i], "store=", &store))
        {
            continue;
        }

        if (ngx_http_coord_session_zone_param(cf, sz, &value[i]) != NGX_OK) {
            return NGX_CONF_ERROR;
        }
    }

    if (name.len == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"%V\" must have \"zone\" parameter", &cmd->name);
        return NGX_CONF_ERROR;
    }

    zone = ngx_http_coord_zone_declare(cf,
                                       &ngx_http_coord_session_feature.kind,
                                       &name);
    if (zone == NULL) {
        return NGX_CONF_ERROR;
    }

    /* what uses that came first have told */

    if (zone->data) {
        told = zone->data;
        sz->users = told->users;
        sz->revoked = told->revoked;
    }

    zone->store_name = store;
    zone->data = sz;

    ngx_http_coord_zone_named_by(zone, &value[1]);

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_coord_session_zone_param(ngx_conf_t *cf,
    ngx_http_coord_session_zone_t *sz, ngx_str_t *value)
{
    ngx_str_t  rest;

    if (ngx_http_coord_param(value, "ttl=", &rest)) {
        return ngx_http_coord_session_zone_time(cf, &rest, "ttl", &sz->ttl);
    }

    if (ngx_http_coord_param(value, "absolute=", &rest)) {
        return ngx_http_coord_session_zone_time(cf, &rest, "absolute",
                                                &sz->absolute);
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid parameter \"%V\", allowed are \"zone=\", "
                       "\"ttl=\", \"absolute=\" and \"store=\"", value);

    return NGX_ERROR;
}


static ngx_int_t
ngx_http_coord_session_zone_time(ngx_conf_t *cf, ngx_str_t *value,
    const char *name, ngx_coord_nsec_t *ns)
{
    ngx_int_t  ms;

    ms = ngx_parse_time(value, 0);

    if (ms == NGX_ERROR || ms == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid time \"%V\" in \"%s=\"", value, name);
        return NGX_ERROR;
    }

    *ns = ms;
    *ns = ngx_min(*ns, 315360000000LL) * NGX_COORD_NSEC_PER_MSEC;

    return NGX_OK;
}


static char *
ngx_http_coord_session(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_coord_session_conf_t *scf = conf;

    ngx_str_t                      *value, name;
    ngx_uint_t                      i;
    ngx_coord_nsec_t                revoked;
    ngx_http_coord_session_use_t   *use;

    if (scf->use != NGX_CONF_UNSET_PTR) {
        return "is duplicate";
    }

    value = cf->args->elts;

    if (ngx_http_coord_limiter_off(cf, &scf->limiter)) {
        scf->use = NULL;
        return NGX_CONF_OK;
    }

    revoked = 0;

    use = ngx_pcalloc(cf->pool, sizeof(ngx_http_coord_session_use_t));
    if (use == NULL) {
        return NGX_CONF_ERROR;
    }

    /*
     * set by ngx_pcalloc():
     *
     *     use->mismatch = NGX_HTTP_COORD_SESSION_REJECT;
     */

    use->missing = NGX_HTTP_COORD_SESSION_PASS;
    use->on_failure = NGX_CONF_UNSET_UINT;

    for (i = 1; i < cf->args->nelts; i++) {

        if (ngx_http_coord_param(&value[i], "zone=", &name)) {
            continue;
        }

        if (ngx_http_coord_session_param(cf, use, &value[i], &revoked)
            != NGX_OK)
        {
            return NGX_CONF_ERROR;
        }
    }

    use->zone = ngx_http_coord_zone_arg(cf, cmd,
                                        &ngx_http_coord_session_feature.kind);
    if (use->zone == NULL) {
        return NGX_CONF_ERROR;
    }

    if (use->max_per_user && use->user == NULL) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"max_per_user=\" needs \"user=\"");
        return NGX_CONF_ERROR;
    }

    if (ngx_http_coord_session_use_zone(cf, use, revoked) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    scf->use = use;

    return NGX_CONF_OK;
}


/* tells the zone, which may be declared later, how it is used */

static ngx_int_t
ngx_http_coord_session_use_zone(ngx_conf_t *cf,
    ngx_http_coord_session_use_t *use, ngx_coord_nsec_t revoked)
{
    ngx_http_coord_session_zone_t  *sz;

    if (use->zone->data == NULL) {
        use->zone->data = ngx_pcalloc(cf->pool,
                                      sizeof(ngx_http_coord_session_zone_t));
        if (use->zone->data == NULL) {
            return NGX_ERROR;
        }
    }

    sz = use->zone->data;

    sz->users |= (use->user != NULL);
    sz->revoked = ngx_max(sz->revoked, revoked);

    return NGX_OK;
}


static ngx_int_t
ngx_http_coord_session_param(ngx_conf_t *cf,
    ngx_http_coord_session_use_t *use, ngx_str_t *value,
    ngx_coord_nsec_t *revoked)
{
    ngx_str_t  rest;

    if (ngx_http_coord_param(value, "create=", &rest)) {
        use->create = ngx_http_coord_complex_value(cf, &rest);
        return use->create ? NGX_OK : NGX_ERROR;
    }

    if (ngx_http_coord_param(value, "bind=", &rest)) {
        use->bind = ngx_http_coord_session_bind_param(cf, &rest);
        use->client_cert = ngx_http_coord_session_names(&rest, "ssl_client_");
        return use->bind ? NGX_OK : NGX_ERROR;
    }

    if (ngx_http_coord_param(value, "learn=", &rest)) {
        return ngx_http_coord_session_learn_param(cf, use, &rest);
    }

    if (ngx_http_coord_param(value, "user=", &rest)) {
        use->user = ngx_http_coord_complex_value(cf, &rest);
        use->user_late = ngx_http_coord_session_names(&rest, "upstream_");
        return use->user ? NGX_OK : NGX_ERROR;
    }

    if (ngx_http_coord_param(value, "max_per_user=", &rest)) {

        if (ngx_coord_parse_count(&rest, 1, &use->max_per_user) == NGX_OK) {
            return NGX_OK;
        }

        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid value \"%V\" in \"max_per_user=\", "
                           "it must be a number from 1 to %d", &rest,
                           NGX_COORD_COUNT_MAX);
        return NGX_ERROR;
    }

    if (ngx_http_coord_param(value, "mismatch=", &rest)) {
        return ngx_http_coord_session_action(cf, &rest, "mismatch", 1,
                                             &use->mismatch);
    }

    if (ngx_http_coord_param(value, "missing=", &rest)) {
        return ngx_http_coord_session_action(cf, &rest, "missing", 0,
                                             &use->missing);
    }

    if (ngx_http_coord_param(value, "revoked=", &rest)) {
        return ngx_http_coord_session_zone_time(cf, &rest, "revoked", revoked);
    }

    if (ngx_http_coord_param(value, "on_failure=", &rest)) {
        return ngx_http_coord_parse_on_failure(cf, &rest, &use->on_failure);
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid parameter \"%V\", allowed are \"zone=\", "
                       "\"create=\", \"bind=\", \"learn=\", \"user=\", "
                       "\"max_per_user=\", \"mismatch=\", \"missing=\", "
                       "\"revoked=\" and \"on_failure=\"", value);

    return NGX_ERROR;
}


/* a value that is needed before there is a response */

static ngx_http_complex_value_t *
ngx_http_coord_session_bind_param(ngx_conf_t *cf, ngx_str_t *value)
{
    if (ngx_http_coord_session_names(value, "upstream_")) {
        ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                           "\"bind=%V\" is empty: it is evaluated before the "
                           "request goes to an upstream", value);
    }

    return ngx_http_coord_complex_value(cf, value);
}


/* 1 if a text has a variable whose name begins so */

static ngx_uint_t
ngx_http_coord_session_names(ngx_str_t *text, const char *name)
{
    u_char  *p, *last;
    size_t   len;

    len = ngx_strlen(name);
    last = text->data + text->len;

    for (p = text->data; p < last; p++) {

        if (*p != '$') {
            continue;
        }

        if (p + 1 < last && p[1] == '{') {
            p++;
        }

        if ((size_t) (last - p - 1) >= len
            && ngx_strncasecmp(p + 1, (u_char *) name, len) == 0)
        {
            return 1;
        }
    }

    return 0;
}


/* what would not do what it seems to; once for each directive */

static void
ngx_http_coord_session_warn(ngx_conf_t *cf,
    ngx_http_coord_session_conf_t *conf)
{
    ngx_http_coord_session_use_t   *use;
    ngx_http_coord_session_zone_t  *sz;
#if (NGX_HTTP_SSL)
    ngx_http_ssl_srv_conf_t        *sscf;
#endif

    use = conf->use;
    sz = use->zone->data;

    if (use->checked) {
        return;
    }

    if (use->user_late && use->create == NULL && use->learn == NULL) {
        use->checked = 1;
        ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                           "\"user=%V\" is empty: it is evaluated before the "
                           "request goes to an upstream, and nothing is "
                           "created or learned when it comes back",
                           &use->user->value);
    }

    if (sz->by_id && conf->cookie == NULL) {
        use->checked = 1;
        ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                           "no request has a session in zone \"%V\" of "
                           "$coord_session_id without "
                           "\"coord_session_cookie\"", &use->zone->name);
    }

#if (NGX_HTTP_SSL)

    sscf = ngx_http_conf_get_module_srv_conf(cf, ngx_http_ssl_module);

    if (use->client_cert && sscf->verify == 0) {
        use->checked = 1;
        ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                           "\"bind\" of \"coord_session\" in zone \"%V\" is "
                           "empty without \"ssl_verify_client\"",
                           &use->zone->name);
    }

#endif
}


static ngx_int_t
ngx_http_coord_session_learn_param(ngx_conf_t *cf,
    ngx_http_coord_session_use_t *use, ngx_str_t *value)
{
    if ((value->len == sizeof("$upstream_addr") - 1
         && ngx_strncmp(value->data, "$upstream_addr", value->len) == 0)
        || (value->len == sizeof("${upstream_addr}") - 1
            && ngx_strncmp(value->data, "${upstream_addr}", value->len) == 0))
    {
        use->learn_addr = 1;
    }

    use->learn = ngx_http_coord_complex_value(cf, value);

    return use->learn ? NGX_OK : NGX_ERROR;
}


static ngx_int_t
ngx_http_coord_session_action(ngx_conf_t *cf, ngx_str_t *value,
    const char *name, ngx_uint_t rebind, ngx_uint_t *action)
{
    if (ngx_strcmp(value->data, "reject") == 0) {
        *action = NGX_HTTP_COORD_SESSION_REJECT;
        return NGX_OK;
    }

    if (ngx_strcmp(value->data, "pass") == 0) {
        *action = NGX_HTTP_COORD_SESSION_PASS;
        return NGX_OK;
    }

    if (rebind && ngx_strcmp(value->data, "rebind") == 0) {
        *action = NGX_HTTP_COORD_SESSION_REBIND;
        return NGX_OK;
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid value \"%V\" in \"%s=\", it must be "
                       "\"reject\"%s or \"pass\"", value, name,
                       rebind ? ", \"rebind\"" : "");

    return NGX_ERROR;
}
