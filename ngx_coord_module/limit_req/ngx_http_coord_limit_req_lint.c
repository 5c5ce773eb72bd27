
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_limit_req: warnings of a configuration that is allowed and will not do
 * what it looks like.
 */


#include "ngx_http_coord_limit_req.h"


/* a larger file is not looked at */
#define NGX_HTTP_COORD_LINT_SIZE  (1024 * 1024)


typedef struct {
    u_char       *file;         /* the name: of one that is being read */
    ngx_array_t   names;        /* of ngx_str_t, see ..._collect() */
} ngx_http_coord_limit_req_geos_t;


static void ngx_http_coord_limit_req_lint_geo(ngx_conf_t *cf, ngx_str_t *key);
static ngx_http_coord_limit_req_geos_t *ngx_http_coord_limit_req_geos(
    ngx_conf_t *cf);
static ngx_int_t ngx_http_coord_limit_req_read(ngx_conf_t *cf,
    ngx_str_t *text);
static void ngx_http_coord_limit_req_collect(ngx_conf_t *cf, ngx_str_t *text,
    ngx_array_t *names);
static ngx_int_t ngx_http_coord_limit_req_token(ngx_str_t *text,
    ngx_str_t *token);
static ngx_str_t *ngx_http_coord_limit_req_names(ngx_str_t *text,
    ngx_str_t *names);


/* of this configuration */

static ngx_array_t  ngx_http_coord_limit_req_files;


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


ngx_int_t
ngx_http_coord_limit_req_lint_init(ngx_conf_t *cf)
{
    return ngx_array_init(&ngx_http_coord_limit_req_files, cf->pool, 1,
                          sizeof(ngx_http_coord_limit_req_geos_t));
}


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
    ngx_str_t                         rest, name, *names;
    ngx_uint_t                        i;
    ngx_http_coord_limit_req_geos_t  *geos;

    rest = *key;

    if (cf->conf_file == NULL
        || cf->conf_file->file.fd == NGX_INVALID_FILE
        || ngx_coord_parse_variable(&rest, &name) != NGX_OK)
    {
        return;
    }

    geos = ngx_http_coord_limit_req_geos(cf);
    if (geos == NULL) {
        return;
    }

    names = geos->names.elts;

    for (i = 0; i < geos->names.nelts; i++) {
        if (names[i].len == name.len
            && ngx_strncmp(names[i].data, name.data, name.len) == 0)
        {
            ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                               "\"geo\" does not evaluate its values: those "
                               "of \"$%V\" that begin with \"$\" are one key "
                               "for all, use \"map\" on what it yields",
                               &name);
            return;
        }
    }
}


/* a file with many zones is read once; NULL: it cannot, which is no error */

static ngx_http_coord_limit_req_geos_t *
ngx_http_coord_limit_req_geos(ngx_conf_t *cf)
{
    ngx_str_t                         text;
    ngx_uint_t                        i;
    ngx_http_coord_limit_req_geos_t  *geos;

    geos = ngx_http_coord_limit_req_files.elts;

    for (i = 0; i < ngx_http_coord_limit_req_files.nelts; i++) {
        if (geos[i].file == cf->conf_file->file.name.data) {
            return &geos[i];
        }
    }

    geos = ngx_array_push(&ngx_http_coord_limit_req_files);
    if (geos == NULL) {
        return NULL;
    }

    geos->file = cf->conf_file->file.name.data;

    if (ngx_array_init(&geos->names, cf->pool, 1, sizeof(ngx_str_t))
        != NGX_OK)
    {
        geos->file = NULL;
        return NULL;
    }

    if (ngx_http_coord_limit_req_read(cf, &text) == NGX_OK) {
        ngx_http_coord_limit_req_collect(cf, &text, &geos->names);
        ngx_free(text.data);
    }

    return geos;
}


/* the whole file that is being read, from ngx_alloc() */

static ngx_int_t
ngx_http_coord_limit_req_read(ngx_conf_t *cf, ngx_str_t *text)
{
    off_t        size, offset;
    ssize_t      n;
    ngx_file_t  *file;

    file = &cf->conf_file->file;
    size = ngx_file_size(&file->info);

    if (size > NGX_HTTP_COORD_LINT_SIZE) {
        return NGX_DECLINED;
    }

    text->data = ngx_alloc((size_t) size + 1, cf->log);
    if (text->data == NULL) {
        return NGX_ERROR;
    }

    /* the parser goes on where it was */

    offset = file->offset;
    n = ngx_read_file(file, text->data, (size_t) size, 0);
    file->offset = offset;

    if (n <= 0) {
        ngx_free(text->data);
        return NGX_ERROR;
    }

    text->len = n;
    text->data[n] = '\0';

    return NGX_OK;
}


/* the names of each "geo" of the text with a value that is a variable */

static void
ngx_http_coord_limit_req_collect(ngx_conf_t *cf, ngx_str_t *text,
    ngx_array_t *names)
{
    ngx_str_t   rest, token, first, last, geo, *name;
    ngx_uint_t  n;

    n = 0;
    rest = *text;

    ngx_str_null(&first);
    ngx_str_null(&last);
    ngx_str_null(&geo);

    while (ngx_http_coord_limit_req_token(&rest, &token) == NGX_OK) {

        switch (token.data[0]) {

        case '{':
            if (first.len == 3 && ngx_strncmp(first.data, "geo", 3) == 0
                && last.len > 1 && last.data[0] == '$')
            {
                geo.len = last.len - 1;
                geo.data = last.data + 1;
            }

            n = 0;
            break;

        case '}':
            geo.len = 0;
            n = 0;
            break;

        case ';':
            if (geo.len && n == 2 && last.data[0] == '$') {
                name = ngx_array_push(names);
                if (name == NULL) {
                    return;
                }

                name->len = geo.len;
                name->data = ngx_pstrdup(cf->pool, &geo);
                if (name->data == NULL) {
                    names->nelts--;
                    return;
                }

                geo.len = 0;
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
