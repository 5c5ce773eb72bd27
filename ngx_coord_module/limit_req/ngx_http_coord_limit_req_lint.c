
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_limit_req: warnings of a configuration that is allowed and will not do
 * what it looks like.
 */


#include "ngx_http_coord_limit_req.h"


static ngx_str_t *ngx_http_coord_limit_req_names(ngx_str_t *text,
    ngx_str_t *names);


/*
 * Variables: names, or beginnings of names where they end with "_".  These are
 * known behind the access phase.
 */

static ngx_str_t  ngx_http_coord_limit_req_auth[] = {
    ngx_string("remote_user"),
    ngx_string("auth_"),
    ngx_string("jwt_"),
    ngx_string("oidc_"),
    ngx_null_string
};

/* known when the response is */

static ngx_str_t  ngx_http_coord_limit_req_late[] = {
    ngx_string("status"),
    ngx_string("bytes_sent"),
    ngx_string("body_bytes_sent"),
    ngx_string("upstream_"),
    ngx_string("request_time"),
    ngx_string("sent_http_"),
    ngx_null_string
};

/* what a client may write himself */

static ngx_str_t  ngx_http_coord_limit_req_client[] = {
    ngx_string("http_x_forwarded_for"),
    ngx_string("http_x_real_ip"),
    ngx_string("http_forwarded"),
    ngx_string("http_cf_connecting_ip"),
    ngx_string("http_true_client_ip"),
    ngx_string("proxy_add_x_forwarded_for"),
    ngx_null_string
};

static ngx_str_t  ngx_http_coord_limit_req_body[] = {
    ngx_string("request_body"),
    ngx_null_string
};


void
ngx_http_coord_limit_req_lint_key(ngx_conf_t *cf, ngx_str_t *key)
{
    ngx_str_t  *name;

    name = ngx_http_coord_limit_req_names(key,
                                          ngx_http_coord_limit_req_client);
    if (name == NULL) {
        return;
    }

    ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                       "a client writes \"$%V\" as he likes: key by "
                       "\"$binary_remote_addr\" or \"$coord_client_net\", and "
                       "trust a proxy by \"set_real_ip_from\"", name);
}


void
ngx_http_coord_limit_req_lint(ngx_conf_t *cf,
    ngx_http_coord_limit_req_limit_t *limit)
{
    ngx_str_t                        *name;
    ngx_http_coord_limit_req_zone_t  *lrz;

    lrz = limit->zone->data;

    name = ngx_http_coord_limit_req_names(&lrz->text,
                                          ngx_http_coord_limit_req_auth);

    if (name && limit->stage == NGX_HTTP_COORD_PREACCESS) {
        ngx_log_error(NGX_LOG_WARN, cf->log, 0,
                      "the key of zone \"%V\" in %s:%ui is not known before "
                      "the access phase: \"$%V\" needs \"after_auth\"",
                      &limit->zone->name, limit->file, limit->line, name);
    }

    name = ngx_http_coord_limit_req_names(&lrz->text,
                                          ngx_http_coord_limit_req_body);

    if (name == NULL && limit->charge == NGX_HTTP_COORD_CHARGE_BEFORE) {
        name = ngx_http_coord_limit_req_names(&limit->cost.text,
                                              ngx_http_coord_limit_req_body);
    }

    if (name && !limit->body) {
        ngx_log_error(NGX_LOG_WARN, cf->log, 0,
                      "zone \"%V\" in %s:%ui uses \"$request_body\", which "
                      "is empty before the body is read: say \"after_body\"",
                      &limit->zone->name, limit->file, limit->line);
    }

    name = ngx_http_coord_limit_req_names(&limit->cost.text,
                                          ngx_http_coord_limit_req_late);

    if (name && limit->charge == NGX_HTTP_COORD_CHARGE_BEFORE) {
        ngx_log_error(NGX_LOG_WARN, cf->log, 0,
                      "the cost in zone \"%V\" in %s:%ui is not known before "
                      "the response: \"$%V\" needs \"charge=after\" or "
                      "\"reserve=\"",
                      &limit->zone->name, limit->file, limit->line, name);
    }
}


/* the first of names that is a variable in text; NULL: none */

static ngx_str_t *
ngx_http_coord_limit_req_names(ngx_str_t *text, ngx_str_t *names)
{
    ngx_str_t  *name, rest, var;

    rest = *text;

    while (ngx_coord_parse_variable(&rest, &var) == NGX_OK) {

        for (name = names; name->len; name++) {
            if (var.len >= name->len
                && ngx_strncasecmp(var.data, name->data, name->len) == 0
                && (var.len == name->len
                    || name->data[name->len - 1] == '_'))
            {
                return name;
            }
        }
    }

    return NULL;
}
