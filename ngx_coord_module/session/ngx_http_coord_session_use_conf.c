
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_session: the directive itself.
 */


#include "ngx_http_coord_conf.h"
#include "ngx_http_coord_session.h"
#include "ngx_coord_parse.h"


/* a parameter that takes one of some words */
typedef struct {
    const char                       *name;
    ngx_uint_t                        offset;    /* in the use */
    const char                       *allowed;
    ngx_conf_enum_t                   actions[4];
} ngx_http_coord_session_word_t;


static ngx_int_t ngx_http_coord_session_use_check(ngx_conf_t *cf,
    ngx_http_coord_session_use_t *use);
static ngx_int_t ngx_http_coord_session_use_zone(ngx_conf_t *cf,
    ngx_http_coord_session_use_t *use, ngx_coord_nsec_t revoked);
static ngx_int_t ngx_http_coord_session_param(ngx_conf_t *cf,
    ngx_http_coord_session_use_t *use, ngx_str_t *value,
    ngx_coord_nsec_t *revoked);
static ngx_http_complex_value_t *ngx_http_coord_session_bind_param(
    ngx_conf_t *cf, ngx_str_t *value);
static ngx_int_t ngx_http_coord_session_learn_param(ngx_conf_t *cf,
    ngx_http_coord_session_use_t *use, ngx_str_t *value);
static ngx_int_t ngx_http_coord_session_action(ngx_conf_t *cf,
    const ngx_http_coord_session_word_t *word, ngx_str_t *value,
    ngx_uint_t *action);


static const ngx_http_coord_session_word_t  ngx_http_coord_session_words[] = {

    { "mismatch=", offsetof(ngx_http_coord_session_use_t, mismatch),
      "\"reject\", \"rebind\" or \"pass\"",
      { { ngx_string("reject"), NGX_HTTP_COORD_SESSION_REJECT },
        { ngx_string("rebind"), NGX_HTTP_COORD_SESSION_REBIND },
        { ngx_string("pass"), NGX_HTTP_COORD_SESSION_PASS },
        { ngx_null_string, 0 } } },

    { "missing=", offsetof(ngx_http_coord_session_use_t, missing),
      "\"reject\" or \"pass\"",
      { { ngx_string("reject"), NGX_HTTP_COORD_SESSION_REJECT },
        { ngx_string("pass"), NGX_HTTP_COORD_SESSION_PASS },
        { ngx_null_string, 0 } } },

    { "new=", offsetof(ngx_http_coord_session_use_t, unknown),
      "\"accept\" or \"reject\"",
      { { ngx_string("accept"), NGX_HTTP_COORD_SESSION_ACCEPT },
        { ngx_string("reject"), NGX_HTTP_COORD_SESSION_REJECT },
        { ngx_null_string, 0 } } },

    { "over=", offsetof(ngx_http_coord_session_use_t, over),
      "\"evict\" or \"reject\"",
      { { ngx_string("evict"), NGX_HTTP_COORD_SESSION_EVICT },
        { ngx_string("reject"), NGX_HTTP_COORD_SESSION_REJECT },
        { ngx_null_string, 0 } } },

    { NULL, 0, NULL, { { ngx_null_string, 0 } } }
};


char *
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

    use->over = NGX_CONF_UNSET_UINT;
    use->missing = NGX_CONF_UNSET_UINT;
    use->unknown = NGX_HTTP_COORD_SESSION_ACCEPT;
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

    if (use->cut) {
        use->zone->wake = 1;
    }

    if (ngx_http_coord_session_use_check(cf, use) != NGX_OK
        || ngx_http_coord_session_use_zone(cf, use, revoked) != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    scf->use = use;

    return NGX_CONF_OK;
}


/* what goes with what, and the defaults that follow from it */

static ngx_int_t
ngx_http_coord_session_use_check(ngx_conf_t *cf,
    ngx_http_coord_session_use_t *use)
{
    if (use->missing == NGX_CONF_UNSET_UINT) {
        use->missing = (use->unknown == NGX_HTTP_COORD_SESSION_REJECT)
                       ? NGX_HTTP_COORD_SESSION_REJECT
                       : NGX_HTTP_COORD_SESSION_PASS;
    }

    if (use->over != NGX_CONF_UNSET_UINT && use->max_per_user == 0) {
        ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                           "\"over=\" of \"coord_session\" does nothing "
                           "without \"max_per_user=\"");
        use->over = NGX_HTTP_COORD_SESSION_EVICT;
    }

    if (use->max_per_user && use->user == NULL) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "\"max_per_user=\" needs \"user=\"");
        return NGX_ERROR;
    }

    return NGX_OK;
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
    ngx_str_t                             rest;
    ngx_uint_t                            i, *action;
    const ngx_http_coord_session_word_t  *word;

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

    for (i = 0; ngx_http_coord_session_words[i].name; i++) {
        word = &ngx_http_coord_session_words[i];

        if (ngx_http_coord_param(value, word->name, &rest)) {
            action = (ngx_uint_t *) ((u_char *) use + word->offset);
            return ngx_http_coord_session_action(cf, word, &rest, action);
        }
    }

    if (ngx_http_coord_param(value, "revoked=", &rest)) {
        return ngx_http_coord_session_time(cf, &rest, "revoked", revoked);
    }

    if (ngx_http_coord_param(value, "on_failure=", &rest)) {
        return ngx_http_coord_parse_on_failure(cf, &rest, &use->on_failure);
    }

    if (value->len == 3 && ngx_strncmp(value->data, "cut", 3) == 0) {
        use->cut = 1;
        return NGX_OK;
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid parameter \"%V\", allowed are \"zone=\", "
                       "\"create=\", \"bind=\", \"learn=\", \"user=\", "
                       "\"max_per_user=\", \"over=\", \"mismatch=\", "
                       "\"missing=\", \"new=\", \"revoked=\", \"cut\" and "
                       "\"on_failure=\"", value);

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


ngx_uint_t
ngx_http_coord_session_names(ngx_str_t *text, const char *name)
{
    size_t     len;
    ngx_str_t  rest, var;

    len = ngx_strlen(name);
    rest = *text;

    while (ngx_coord_parse_variable(&rest, &var) == NGX_OK) {
        if (var.len >= len
            && ngx_strncasecmp(var.data, (u_char *) name, len) == 0)
        {
            return 1;
        }
    }

    return 0;
}


void
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

    if (use->user_late
        && use->create == NULL
        && use->learn == NULL
        && (conf->cookie == NULL || conf->cookie->rotate == NULL))
    {
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


/* what is done with a session; see ngx_http_coord_session_words[] */

static ngx_int_t
ngx_http_coord_session_action(ngx_conf_t *cf,
    const ngx_http_coord_session_word_t *word, ngx_str_t *value,
    ngx_uint_t *action)
{
    ngx_uint_t  i;

    for (i = 0; word->actions[i].name.len; i++) {

        if (word->actions[i].name.len == value->len
            && ngx_strncmp(word->actions[i].name.data, value->data, value->len)
               == 0)
        {
            *action = word->actions[i].value;
            return NGX_OK;
        }
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid value \"%V\" in \"%s\", it must be %s", value,
                       word->name, word->allowed);

    return NGX_ERROR;
}


ngx_int_t
ngx_http_coord_session_time(ngx_conf_t *cf, ngx_str_t *value,
    const char *name, ngx_coord_nsec_t *ns)
{
    ngx_int_t  ms;

    ms = ngx_http_coord_long_time(value);

    if (ms == NGX_ERROR || ms == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid time \"%V\" in \"%s=\"", value, name);
        return NGX_ERROR;
    }

    *ns = ngx_coord_msec_cut(ms) * NGX_COORD_NSEC_PER_MSEC;

    return NGX_OK;
}
