
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_session_cookie: session ids for applications that have none.  The
 * directive is in ngx_http_coord_session_cookie_conf.c.
 */


#include "ngx_http_coord_conf.h"
#include "ngx_http_coord_session.h"


#define NGX_HTTP_COORD_COOKIE_EXPIRES  "; expires="
#define NGX_HTTP_COORD_COOKIE_MAX_AGE  "; max-age="


static ngx_uint_t ngx_http_coord_session_cookie_unread(ngx_http_request_t *r);
static ngx_int_t ngx_http_coord_session_cookie_send(ngx_http_request_t *r,
    ngx_http_coord_session_cookie_t *cookie, ngx_str_t *known);
static ngx_int_t ngx_http_coord_session_cookie_new(ngx_http_request_t *r,
    ngx_str_t *id);
static ngx_int_t ngx_http_coord_session_cookie_set(ngx_http_request_t *r,
    ngx_http_coord_session_cookie_t *cookie, ngx_str_t *id, ngx_uint_t fresh);
static ngx_int_t ngx_http_coord_session_cookie_find(ngx_http_request_t *r,
    ngx_http_coord_session_cookie_t *cookie, ngx_str_t *id);
static ngx_int_t ngx_http_coord_session_cookie_pick(ngx_str_t *line,
    ngx_str_t *name, ngx_str_t *id);
static ngx_int_t ngx_http_coord_session_cookie_text(ngx_http_request_t *r,
    ngx_http_coord_session_cookie_t *cookie, ngx_str_t *id, ngx_str_t *value);


static ngx_str_t  ngx_http_coord_set_cookie = ngx_string("Set-Cookie");


ngx_int_t
ngx_http_coord_session_cookie_issue(ngx_http_request_t *r)
{
    ngx_str_t                       id;
    ngx_http_coord_session_conf_t  *scf;

    scf = ngx_http_get_module_loc_conf(r, ngx_http_coord_session_module);

    if (scf->cookie == NULL
        || ngx_http_coord_session_cookie_find(r, scf->cookie, &id) == NGX_OK
        || ngx_http_coord_session_cookie_unread(r))
    {
        return NGX_OK;
    }

    return ngx_http_coord_session_cookie_send(r, scf->cookie, NULL);
}


/*
 * 1 if nginx answers before it has the whole header (a URI or a header that is
 * too large, or none): the client may have a cookie that nobody has seen.
 */

static ngx_uint_t
ngx_http_coord_session_cookie_unread(ngx_http_request_t *r)
{
#if (NGX_STAT_STUB)

    return r->stat_reading;

#else

    /* both are the request's handler from then on */

    return r->connection->read->handler != r->connection->write->handler;

#endif
}


ngx_int_t
ngx_http_coord_session_cookie_replace(ngx_http_request_t *r, ngx_str_t *key)
{
    ngx_str_t                       id;
    ngx_http_coord_session_conf_t  *scf;

    scf = ngx_http_get_module_loc_conf(r, ngx_http_coord_session_module);

    if (scf->cookie == NULL
        || ngx_http_coord_session_cookie_find(r, scf->cookie, &id) != NGX_OK
        || ngx_http_coord_session_cookie_in(key, &id) == NULL)
    {
        return NGX_OK;
    }

    return ngx_http_coord_session_cookie_send(r, scf->cookie, NULL);
}


u_char *
ngx_http_coord_session_cookie_in(ngx_str_t *key, ngx_str_t *id)
{
    size_t  i;

    for (i = 0; i + id->len <= key->len; i++) {

        if (ngx_memcmp(key->data + i, id->data, id->len) == 0) {
            return key->data + i;
        }
    }

    return NULL;
}


ngx_uint_t
ngx_http_coord_session_cookie_fresh(ngx_http_coord_session_client_t *client,
    ngx_str_t *key)
{
    return client->fresh
           && ngx_http_coord_session_cookie_in(key, &client->issued) != NULL;
}


ngx_int_t
ngx_http_coord_session_cookie_next(ngx_http_request_t *r, ngx_str_t *old,
    ngx_str_t *id)
{
    ngx_str_t                         value;
    ngx_http_coord_ctx_t             *ctx;
    ngx_http_coord_session_conf_t    *scf;
    ngx_http_coord_session_client_t  *client;

    scf = ngx_http_get_module_loc_conf(r, ngx_http_coord_session_module);

    if (scf->cookie == NULL
        || scf->cookie->rotate == NULL
        || ngx_http_coord_session_cookie_find(r, scf->cookie, old) != NGX_OK)
    {
        return NGX_DECLINED;
    }

    ctx = ngx_http_coord_get_ctx(r);
    client = ctx ? ctx->state[ngx_http_coord_session_feature.slot] : NULL;

    if (client && client->fresh) {
        return NGX_DECLINED;
    }

    if (ngx_http_complex_value(r, scf->cookie->rotate, &value) != NGX_OK) {
        return NGX_ERROR;
    }

    if (value.len == 0) {
        return NGX_DECLINED;
    }

    return ngx_http_coord_session_cookie_new(r, id);
}


ngx_int_t
ngx_http_coord_session_cookie_rotate(ngx_http_request_t *r, ngx_str_t *id)
{
    ngx_http_coord_session_conf_t  *scf;

    scf = ngx_http_get_module_loc_conf(r, ngx_http_coord_session_module);

    return ngx_http_coord_session_cookie_set(r, scf->cookie, id, 1);
}


ngx_int_t
ngx_http_coord_session_cookie_roll(ngx_http_request_t *r)
{
    ngx_str_t                       id;
    ngx_http_coord_session_conf_t  *scf;

    scf = ngx_http_get_module_loc_conf(r, ngx_http_coord_session_module);

    if (scf->cookie == NULL
        || scf->cookie->expires == 0
        || (scf->cookie->flags & NGX_HTTP_COORD_COOKIE_ROLLING) == 0
        || ngx_http_coord_session_cookie_find(r, scf->cookie, &id) != NGX_OK)
    {
        return NGX_OK;
    }

    return ngx_http_coord_session_cookie_send(r, scf->cookie, &id);
}


/* sends the cookie with an id, or with a new one; once per client request */

static ngx_int_t
ngx_http_coord_session_cookie_send(ngx_http_request_t *r,
    ngx_http_coord_session_cookie_t *cookie, ngx_str_t *known)
{
    ngx_str_t                         id;
    ngx_http_coord_ctx_t             *ctx;
    ngx_http_coord_session_client_t  *client;

    if (r != r->main || r->header_sent) {
        return NGX_OK;
    }

    ctx = ngx_http_coord_get_ctx(r);
    client = ctx ? ctx->state[ngx_http_coord_session_feature.slot] : NULL;

    if (client && client->issued.len) {
        return NGX_OK;
    }

    if (known) {
        return ngx_http_coord_session_cookie_set(r, cookie, known, 0);
    }

    if (ngx_http_coord_session_cookie_new(r, &id) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_http_coord_session_cookie_set(r, cookie, &id, 1);
}


static ngx_int_t
ngx_http_coord_session_cookie_new(ngx_http_request_t *r, ngx_str_t *id)
{
    u_char  random[NGX_COORD_ID_LEN];

    id->len = NGX_HTTP_COORD_SESSION_ID_LEN;
    id->data = ngx_pnalloc(r->pool, id->len);

    if (id->data == NULL || ngx_coord_id(random) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_hex_dump(id->data, random, NGX_COORD_ID_LEN);

    return NGX_OK;
}


/* in place of the one that this response sends already, if it does */

static ngx_int_t
ngx_http_coord_session_cookie_set(ngx_http_request_t *r,
    ngx_http_coord_session_cookie_t *cookie, ngx_str_t *id, ngx_uint_t fresh)
{
    ngx_str_t                         value;
    ngx_keyval_t                     *field;
    ngx_http_coord_ctx_t             *ctx;
    ngx_http_coord_session_client_t  *client;

    ctx = ngx_http_coord_ctx(r);
    if (ctx == NULL) {
        return NGX_ERROR;
    }

    client = ngx_http_coord_session_client(r, ctx);
    if (client == NULL) {
        return NGX_ERROR;
    }

    if (ctx->headers_done) {
        return NGX_OK;
    }

    if (ngx_http_coord_session_cookie_text(r, cookie, id, &value) != NGX_OK) {
        return NGX_ERROR;
    }

    if (client->field) {
        field = ctx->fields->elts;
        field[client->field - 1].value = value;

    } else {

        if (ngx_http_coord_field(r, ctx, &ngx_http_coord_set_cookie, &value)
            != NGX_OK)
        {
            return NGX_ERROR;
        }

        client->field = ctx->fields->nelts;
    }

    client->issued = *id;
    client->fresh = fresh;

    return NGX_OK;
}


/*
 * The id that the client has.  nginx's own parser takes the first cookie of a
 * name, in whatever case, and its separators depend on the version: here only
 * what looks like one of our ids is taken.
 */

static ngx_int_t
ngx_http_coord_session_cookie_find(ngx_http_request_t *r,
    ngx_http_coord_session_cookie_t *cookie, ngx_str_t *id)
{
#if (nginx_version >= 1023000)

    ngx_table_elt_t  *h;

    for (h = r->headers_in.cookie; h; h = h->next) {

        if (ngx_http_coord_session_cookie_pick(&h->value, &cookie->name, id)
            == NGX_OK)
        {
            return NGX_OK;
        }
    }

#else

    ngx_uint_t         i;
    ngx_table_elt_t  **h;

    h = r->headers_in.cookies.elts;

    for (i = 0; i < r->headers_in.cookies.nelts; i++) {

        if (ngx_http_coord_session_cookie_pick(&h[i]->value, &cookie->name, id)
            == NGX_OK)
        {
            return NGX_OK;
        }
    }

#endif

    return NGX_DECLINED;
}


/* RFC 6265, 4.2.1: pairs that a semicolon separates */

static ngx_int_t
ngx_http_coord_session_cookie_pick(ngx_str_t *line, ngx_str_t *name,
    ngx_str_t *id)
{
    u_char  *p, *end, *last;

    last = line->data + line->len;

    for (p = line->data; p < last; p = end + 1) {

        end = ngx_strlchr(p, last, ';');
        if (end == NULL) {
            end = last;
        }

        while (p < end && (*p == ' ' || *p == '\t')) {
            p++;
        }

        if ((size_t) (end - p) <= name->len
            || ngx_memcmp(p, name->data, name->len) != 0
            || p[name->len] != '=')
        {
            continue;
        }

        id->data = p + name->len + 1;
        id->len = end - id->data;

        while (id->len
               && (id->data[id->len - 1] == ' '
                   || id->data[id->len - 1] == '\t'))
        {
            id->len--;
        }

        if (id->len == NGX_HTTP_COORD_SESSION_ID_LEN
            && ngx_coord_is_hex(id->data, id->len))
        {
            return NGX_OK;
        }
    }

    return NGX_DECLINED;
}


static ngx_int_t
ngx_http_coord_session_cookie_text(ngx_http_request_t *r,
    ngx_http_coord_session_cookie_t *cookie, ngx_str_t *id, ngx_str_t *value)
{
    u_char  *p;

    value->data = ngx_pnalloc(r->pool,
                              cookie->name.len + 1 + id->len
                              + sizeof(NGX_HTTP_COORD_COOKIE_EXPIRES) - 1
                              + sizeof("Thu, 31-Dec-37 23:55:55 GMT") - 1
                              + sizeof(NGX_HTTP_COORD_COOKIE_MAX_AGE) - 1
                              + NGX_TIME_T_LEN + cookie->attributes.len);
    if (value->data == NULL) {
        return NGX_ERROR;
    }

    p = ngx_cpymem(value->data, cookie->name.data, cookie->name.len);
    *p++ = '=';
    p = ngx_cpymem(p, id->data, id->len);

    if (cookie->expires) {
        p = ngx_cpymem(p, NGX_HTTP_COORD_COOKIE_EXPIRES,
                       sizeof(NGX_HTTP_COORD_COOKIE_EXPIRES) - 1);
        p = ngx_http_cookie_time(p, ngx_time() + cookie->expires);
        p = ngx_sprintf(p, NGX_HTTP_COORD_COOKIE_MAX_AGE "%T",
                        cookie->expires);
    }

    p = ngx_cpymem(p, cookie->attributes.data, cookie->attributes.len);

    value->len = p - value->data;

    return NGX_OK;
}


ngx_int_t
ngx_http_coord_session_id_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_str_t                         id;
    ngx_http_request_t               *main;
    ngx_http_coord_ctx_t             *ctx;
    ngx_http_coord_session_conf_t    *scf;
    ngx_http_coord_session_client_t  *client;

    main = r->main;

    /* it may be asked for before the phase that issues it */

    if (r == main && ngx_http_coord_session_cookie_issue(r) != NGX_OK) {
        return NGX_ERROR;
    }

    ctx = ngx_http_coord_get_ctx(main);
    client = ctx ? ctx->state[ngx_http_coord_session_feature.slot] : NULL;

    if (client && client->issued.len) {
        id = client->issued;

    } else {
        scf = ngx_http_get_module_loc_conf(main, ngx_http_coord_session_module);

        if (scf->cookie == NULL
            || ngx_http_coord_session_cookie_find(main, scf->cookie, &id)
               != NGX_OK)
        {
            v->not_found = 1;
            return NGX_OK;
        }
    }

    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;
    v->len = id.len;
    v->data = id.data;

    return NGX_OK;
}
