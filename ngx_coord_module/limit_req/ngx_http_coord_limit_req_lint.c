
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_limit_req: warnings of a configuration that is allowed and will not do
 * what it looks like.
 */


#include "ngx_http_coord_limit_req.h"


/* a larger file is not looked at */
#define NGX_HTTP_COORD_LINT_SIZE  (1024 * 1024)


static void ngx_http_coord_limit_req_lint_geo(ngx_conf_t *cf, ngx_str_t *key);
static ngx_uint_t ngx_http_coord_limit_req_geo(ngx_str_t *text,
    ngx_str_t *name);
static ngx_int_t ngx_http_coord_limit_req_token(ngx_str_t *text,
    ngx_str_t *token);
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

    ngx_http_coord_limit_req_lint_geo(cf, key);

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


/*
 * What a "geo" has for values only it knows: those of the file of the zone are
 * read once more.
 */

static void
ngx_http_coord_limit_req_lint_geo(ngx_conf_t *cf, ngx_str_t *key)
{
    off_t        size, offset;
    ssize_t      n;
    ngx_str_t    text, rest, name;
    ngx_file_t  *file;

    rest = *key;

    if (cf->conf_file == NULL
        || cf->conf_file->file.fd == NGX_INVALID_FILE
        || ngx_coord_parse_variable(&rest, &name) != NGX_OK)
    {
        return;
    }

    file = &cf->conf_file->file;
    size = ngx_file_size(&file->info);

    if (size > NGX_HTTP_COORD_LINT_SIZE) {
        return;
    }

    text.data = ngx_alloc((size_t) size + 1, cf->log);
    if (text.data == NULL) {
        return;
    }

    /* the parser goes on where it was */

    offset = file->offset;
    n = ngx_read_file(file, text.data, (size_t) size, 0);
    file->offset = offset;

    if (n > 0) {
        text.len = n;
        text.data[n] = '\0';

        if (ngx_http_coord_limit_req_geo(&text, &name)) {
            ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                               "\"geo\" does not evaluate its values: those "
                               "of \"$%V\" that begin with \"$\" are one key "
                               "for all, use \"map\" on what it yields",
                               &name);
        }
    }

    ngx_free(text.data);
}


/* 1 if the text has a "geo" of that name with a value that is a variable */

static ngx_uint_t
ngx_http_coord_limit_req_geo(ngx_str_t *text, ngx_str_t *name)
{
    ngx_str_t   rest, token, first, last;
    ngx_uint_t  n, geo;

    n = 0;
    geo = 0;
    rest = *text;

    ngx_str_null(&first);
    ngx_str_null(&last);

    while (ngx_http_coord_limit_req_token(&rest, &token) == NGX_OK) {

        switch (token.data[0]) {

        case '{':
            geo = (first.len == 3
                   && ngx_strncmp(first.data, "geo", 3) == 0
                   && last.len == name->len + 1
                   && ngx_strncmp(last.data + 1, name->data, name->len) == 0);
            n = 0;
            break;

        case '}':
            geo = 0;
            n = 0;
            break;

        case ';':
            if (geo && n == 2 && last.data[0] == '$') {
                return 1;
            }

            n = 0;
            break;

        default:
            last = token;

            if (n++ == 0) {
                first = token;
            }

            break;
        }
    }

    return 0;
}


/* the next word, or one of ";{}", of a configuration; NGX_DECLINED: none */

static ngx_int_t
ngx_http_coord_limit_req_token(ngx_str_t *text, ngx_str_t *token)
{
    u_char  *p, *last, quote;

    p = text->data;
    last = text->data + text->len;

    for ( /* void */ ; p < last; p++) {

        if (*p == '#') {
            while (p < last && *p != LF) {
                p++;
            }

        } else if (*p > ' ') {
            break;
        }
    }

    if (p >= last) {
        return NGX_DECLINED;
    }

    quote = (*p == '"' || *p == '\'') ? *p++ : '\0';
    token->data = p;

    if (!quote && ngx_strchr(";{}", *p)) {
        p++;

    } else {
        while (p < last
               && (quote ? *p != quote : (*p > ' ' && *p != ';' && *p != '{')))
        {
            p += (*p == '\\') ? 2 : 1;
        }
    }

    p = ngx_min(p, last);

    token->len = p - token->data;

    if (quote && p < last) {
        p++;
    }

    text->data = p;
    text->len = last - p;

    return NGX_OK;
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
