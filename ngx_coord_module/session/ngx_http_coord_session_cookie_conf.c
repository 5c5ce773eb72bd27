
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_session_cookie: the directive, and what browsers make of a cookie.
 */


#include "ngx_http_coord_conf.h"
#include "ngx_http_coord_session.h"


typedef struct {
    ngx_str_t                         text;
    ngx_uint_t                        flag;
} ngx_http_coord_session_flag_t;


static ngx_int_t ngx_http_coord_session_cookie_name(ngx_conf_t *cf,
    ngx_str_t *name);
static ngx_int_t ngx_http_coord_session_cookie_param(ngx_conf_t *cf,
    ngx_http_coord_session_cookie_t *cookie, ngx_str_t *value);
static ngx_int_t ngx_http_coord_session_cookie_flag(ngx_conf_t *cf,
    ngx_http_coord_session_cookie_t *cookie, ngx_str_t *value);
static ngx_int_t ngx_http_coord_session_cookie_expires(ngx_conf_t *cf,
    ngx_http_coord_session_cookie_t *cookie, ngx_str_t *value);
static ngx_int_t ngx_http_coord_session_cookie_attribute(ngx_conf_t *cf,
    ngx_http_coord_session_cookie_t *cookie, const char *name,
    ngx_str_t *value);
static ngx_int_t ngx_http_coord_session_cookie_check(ngx_conf_t *cf,
    ngx_str_t *value);
static ngx_uint_t ngx_http_coord_session_cookie_key(ngx_str_t *value,
    const char *key, ngx_str_t *rest);
static void ngx_http_coord_session_cookie_warn(ngx_conf_t *cf,
    ngx_http_coord_session_cookie_t *cookie);


static const ngx_http_coord_session_flag_t  ngx_http_coord_session_flags[] = {
    { ngx_string("secure"), NGX_HTTP_COORD_COOKIE_SECURE },
    { ngx_string("httponly"), NGX_HTTP_COORD_COOKIE_HTTPONLY },
    { ngx_string("samesite=strict"), NGX_HTTP_COORD_COOKIE_STRICT },
    { ngx_string("samesite=lax"), NGX_HTTP_COORD_COOKIE_LAX },
    { ngx_string("samesite=none"), NGX_HTTP_COORD_COOKIE_NONE },
    { ngx_string("partitioned"), NGX_HTTP_COORD_COOKIE_PARTITIONED },
    { ngx_string("rolling"), NGX_HTTP_COORD_COOKIE_ROLLING },
    { ngx_null_string, 0 }
};


char *
ngx_http_coord_session_cookie(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_coord_session_conf_t *scf = conf;

    ngx_str_t                        *value;
    ngx_uint_t                        i;
    ngx_http_coord_session_cookie_t  *cookie;

    if (scf->cookie != NGX_CONF_UNSET_PTR) {
        return "is duplicate";
    }

    value = cf->args->elts;

    if (ngx_strcmp(value[1].data, "off") == 0) {

        if (cf->args->nelts > 2) {
            return "takes no parameters with \"off\"";
        }

        scf->cookie = NULL;

        return NGX_CONF_OK;
    }

    if (ngx_http_coord_session_cookie_name(cf, &value[1]) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    cookie = ngx_pcalloc(cf->pool, sizeof(ngx_http_coord_session_cookie_t));
    if (cookie == NULL) {
        return NGX_CONF_ERROR;
    }

    cookie->name = value[1];
    ngx_str_set(&cookie->path, "/");

    for (i = 2; i < cf->args->nelts; i++) {
        if (ngx_http_coord_session_cookie_param(cf, cookie, &value[i])
            != NGX_OK)
        {
            return NGX_CONF_ERROR;
        }
    }

    if (ngx_http_coord_session_cookie_attribute(cf, cookie, "path=",
                                                &cookie->path)
        != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    ngx_http_coord_session_cookie_warn(cf, cookie);

    scf->cookie = cookie;

    return NGX_CONF_OK;
}


/* RFC 6265, 4.1.1: a token */

static ngx_int_t
ngx_http_coord_session_cookie_name(ngx_conf_t *cf, ngx_str_t *name)
{
    size_t  i;

    for (i = 0; i < name->len; i++) {

        if (name->data[i] <= ' '
            || name->data[i] >= 0x7f
            || ngx_strchr("()<>@,;:\\\"/[]?={}", name->data[i]))
        {
            break;
        }
    }

    if (name->len && i == name->len) {
        return NGX_OK;
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "\"%V\" cannot stand in a cookie as its name", name);

    return NGX_ERROR;
}


static ngx_int_t
ngx_http_coord_session_cookie_param(ngx_conf_t *cf,
    ngx_http_coord_session_cookie_t *cookie, ngx_str_t *value)
{
    ngx_str_t  rest;

    if (ngx_http_coord_session_cookie_check(cf, value) != NGX_OK) {
        return NGX_ERROR;
    }

    if (ngx_http_coord_session_cookie_key(value, "path=", &cookie->path)) {
        return NGX_OK;
    }

    if (ngx_http_coord_session_cookie_key(value, "domain=", &cookie->domain)) {
        return ngx_http_coord_session_cookie_attribute(cf, cookie, "domain=",
                                                       &cookie->domain);
    }

    if (ngx_http_coord_session_cookie_key(value, "rotate=", &rest)) {
        cookie->rotate = ngx_http_coord_complex_value(cf, &rest);
        return cookie->rotate ? NGX_OK : NGX_ERROR;
    }

    if (ngx_http_coord_session_cookie_key(value, "expires=", &rest)) {
        return ngx_http_coord_session_cookie_expires(cf, cookie, &rest);
    }

    return ngx_http_coord_session_cookie_flag(cf, cookie, value);
}


static ngx_int_t
ngx_http_coord_session_cookie_flag(ngx_conf_t *cf,
    ngx_http_coord_session_cookie_t *cookie, ngx_str_t *value)
{
    ngx_str_t                             text;
    const ngx_http_coord_session_flag_t  *flag;

    for (flag = ngx_http_coord_session_flags; flag->text.len; flag++) {

        if (flag->text.len != value->len
            || ngx_strncasecmp(flag->text.data, value->data, value->len) != 0)
        {
            continue;
        }

        cookie->flags |= flag->flag;

        if (flag->flag == NGX_HTTP_COORD_COOKIE_ROLLING) {
            return NGX_OK;
        }

        text = flag->text;

        return ngx_http_coord_session_cookie_attribute(cf, cookie, "", &text);
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid parameter \"%V\", allowed are "
                       "\"path=\", \"domain=\", \"secure\", \"httponly\", "
                       "\"samesite=strict|lax|none\", \"partitioned\", "
                       "\"expires=\", \"rolling\" and \"rotate=\"", value);

    return NGX_ERROR;
}


/* nothing in a cookie may end it or begin another field */

static ngx_int_t
ngx_http_coord_session_cookie_check(ngx_conf_t *cf, ngx_str_t *value)
{
    size_t  i;

    for (i = 0; i < value->len; i++) {

        if (value->data[i] <= ' '
            || value->data[i] >= 0x7f
            || value->data[i] == ';'
            || value->data[i] == ',')
        {
            break;
        }
    }

    if (value->len && i == value->len) {
        return NGX_OK;
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "\"%V\" cannot stand in a cookie", value);

    return NGX_ERROR;
}


/* the names of attributes are written in any case */

static ngx_uint_t
ngx_http_coord_session_cookie_key(ngx_str_t *value, const char *key,
    ngx_str_t *rest)
{
    size_t  len;

    len = ngx_strlen(key);

    if (value->len < len
        || ngx_strncasecmp(value->data, (u_char *) key, len) != 0)
    {
        return 0;
    }

    rest->data = value->data + len;
    rest->len = value->len - len;

    return 1;
}


static ngx_int_t
ngx_http_coord_session_cookie_expires(ngx_conf_t *cf,
    ngx_http_coord_session_cookie_t *cookie, ngx_str_t *value)
{
    cookie->expires = ngx_parse_time(value, 1);

    if (cookie->expires != (time_t) NGX_ERROR && cookie->expires != 0) {
        return NGX_OK;
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid time \"%V\" in \"expires=\"", value);

    return NGX_ERROR;
}


static ngx_int_t
ngx_http_coord_session_cookie_attribute(ngx_conf_t *cf,
    ngx_http_coord_session_cookie_t *cookie, const char *name,
    ngx_str_t *value)
{
    u_char  *p, *last;

    p = ngx_pnalloc(cf->pool, cookie->attributes.len + sizeof("; ") - 1
                              + ngx_strlen(name) + value->len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    last = ngx_sprintf(p, "%V; %s%V", &cookie->attributes, name, value);

    cookie->attributes.data = p;
    cookie->attributes.len = last - p;

    return NGX_OK;
}


/* what browsers drop without a word (RFC 6265bis) */

static void
ngx_http_coord_session_cookie_warn(ngx_conf_t *cf,
    ngx_http_coord_session_cookie_t *cookie)
{
    const char  *what;
    ngx_uint_t   secure;

    what = NULL;
    secure = cookie->flags & NGX_HTTP_COORD_COOKIE_SECURE;

    if (cookie->name.len >= sizeof("__Host-") - 1
        && ngx_strncasecmp(cookie->name.data, (u_char *) "__Host-",
                           sizeof("__Host-") - 1)
           == 0)
    {
        if (!secure
            || cookie->domain.len
            || cookie->path.len != 1
            || cookie->path.data[0] != '/')
        {
            what = "a name that begins with \"__Host-\" takes \"secure\", "
                   "\"path=/\" and no \"domain=\"";
        }

    } else if (secure) {
        /* the rest is about "secure" */

    } else if (cookie->name.len >= sizeof("__Secure-") - 1
               && ngx_strncasecmp(cookie->name.data, (u_char *) "__Secure-",
                                  sizeof("__Secure-") - 1)
                  == 0)
    {
        what = "a name that begins with \"__Secure-\" takes \"secure\"";

    } else if (cookie->flags & NGX_HTTP_COORD_COOKIE_NONE) {
        what = "\"samesite=none\" takes \"secure\"";

    } else if (cookie->flags & NGX_HTTP_COORD_COOKIE_PARTITIONED) {
        what = "\"partitioned\" takes \"secure\"";
    }

    if (what) {
        ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                           "browsers drop the cookie \"%V\": %s",
                           &cookie->name, what);
    }

    if ((cookie->flags & NGX_HTTP_COORD_COOKIE_ROLLING)
        && cookie->expires == 0)
    {
        ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                           "\"rolling\" of the cookie \"%V\" does nothing "
                           "without \"expires=\"", &cookie->name);
    }
}
