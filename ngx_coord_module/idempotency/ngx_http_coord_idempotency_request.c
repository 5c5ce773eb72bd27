
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_idempotency: the request: its key and scope, reading its body before
 * the content phase and digesting it wherever it lies; variables.
 */


#include "ngx_http_coord_idempotency.h"


static ngx_uint_t ngx_http_coord_idempotency_header(ngx_http_request_t *r,
    ngx_str_t *name, ngx_str_t *value);
static void ngx_http_coord_idempotency_trim(ngx_str_t *value);
static void ngx_http_coord_idempotency_turn(ngx_event_t *ev);
static ngx_int_t ngx_http_coord_idempotency_digest(ngx_http_request_t *r,
    const ngx_str_t *host, const ngx_str_t *type, u_char *body,
    u_char *digest);
static void ngx_http_coord_idempotency_media_type(ngx_http_request_t *r,
    ngx_str_t *type);
static ngx_int_t ngx_http_coord_idempotency_status_variable(
    ngx_http_request_t *r, ngx_http_variable_value_t *v, uintptr_t data);
static ngx_int_t ngx_http_coord_request_digest_variable(
    ngx_http_request_t *r, ngx_http_variable_value_t *v, uintptr_t data);


ngx_http_variable_t  ngx_http_coord_idempotency_vars[] = {

    { ngx_string("coord_idempotency_status"), NULL,
      ngx_http_coord_idempotency_status_variable,
      0, NGX_HTTP_VAR_NOCACHEABLE, 0 },

    { ngx_string("coord_request_digest"), NULL,
      ngx_http_coord_request_digest_variable,
      0, NGX_HTTP_VAR_NOCACHEABLE, 0 },

      ngx_http_null_variable
};


ngx_int_t
ngx_http_coord_idempotency_key(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *run)
{
    ngx_uint_t                          lines;
    ngx_http_coord_idempotency_conf_t  *icf;

    icf = run->conf;

    if (icf->header.len) {
        lines = ngx_http_coord_idempotency_header(r, &icf->header,
                                                  &run->key);

    } else {
        if (ngx_http_coord_body_value(r, icf->key, icf->key_body, &run->key)
            != NGX_OK)
        {
            return NGX_ERROR;
        }

        lines = (run->key.len > 0);
    }

    if (lines == 1
        && ngx_http_coord_idempotency_parse(&run->key, r->pool) == NGX_OK)
    {
        return NGX_OK;
    }

    if (lines == 0 && icf->mode != NGX_HTTP_COORD_IDEMPOTENCY_REQUIRED) {
        return NGX_DECLINED;
    }

    ngx_http_coord_settled(run->ctx);

    return ngx_http_coord_idempotency_refuse(r, run,
                                        lines ? NGX_COORD_OUTCOME_INVALID
                                              : NGX_COORD_OUTCOME_MISSING);
}


/* counts the lines of a header field, whose name is like that of a variable */

static ngx_uint_t
ngx_http_coord_idempotency_header(ngx_http_request_t *r, ngx_str_t *name,
    ngx_str_t *value)
{
    u_char            ch;
    ngx_uint_t        i, j, n;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h;

    n = 0;
    part = &r->headers_in.headers.part;
    h = part->elts;

    for (i = 0; /* void */ ; i++) {

        if (i >= part->nelts) {
            if (part->next == NULL) {
                return n;
            }

            part = part->next;
            h = part->elts;
            i = 0;
        }

        if (h[i].hash == 0 || h[i].key.len != name->len) {
            continue;
        }

        for (j = 0; j < name->len; j++) {
            ch = ngx_tolower(h[i].key.data[j]);

            if ((ch == '-' ? '_' : ch) != name->data[j]) {
                break;
            }
        }

        if (j == name->len) {
            *value = h[i].value;
            ngx_http_coord_idempotency_trim(value);
            n++;
        }
    }
}


/* white space around a field value is none of it, nginx leaves the tabs */

static void
ngx_http_coord_idempotency_trim(ngx_str_t *value)
{
    while (value->len && (*value->data == ' ' || *value->data == '\t')) {
        value->data++;
        value->len--;
    }

    while (value->len
           && (value->data[value->len - 1] == ' '
               || value->data[value->len - 1] == '\t'))
    {
        value->len--;
    }
}


ngx_int_t
ngx_http_coord_idempotency_parse(ngx_str_t *key, ngx_pool_t *pool)
{
    u_char     *p, *last, *dst;
    ngx_uint_t  quoted;

    last = key->data + key->len;
    quoted = (key->len && key->data[0] == '"');

    for (p = key->data; p < last; p++) {
        if (*p < 0x20 || *p >= 0x7f) {
            return NGX_ERROR;
        }
    }

    if (quoted) {
        dst = ngx_pnalloc(pool, key->len);
        if (dst == NULL) {
            return NGX_ERROR;
        }

        p = key->data + 1;
        key->data = dst;

        for ( /* void */ ; p < last && *p != '"'; p++) {

            if (*p == '\\') {
                p++;

                if (p == last || (*p != '"' && *p != '\\')) {
                    return NGX_ERROR;
                }
            }

            *dst++ = *p;
        }

        /* nothing behind the string: parameters mean nothing here */

        if (p + 1 != last) {
            return NGX_ERROR;
        }

        key->len = dst - key->data;
    }

    return (key->len && key->len <= NGX_HTTP_COORD_IDEMPOTENCY_KEY)
           ? NGX_OK : NGX_ERROR;
}


ngx_int_t
ngx_http_coord_idempotency_scoped(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *run)
{
    ngx_http_coord_idempotency_conf_t  *icf;

    icf = run->conf;

    if (icf->global) {
        ngx_str_null(&run->scope);
        return NGX_OK;
    }

    if (ngx_http_coord_body_value(r, icf->scope, icf->scope_body, &run->scope)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (run->scope.len) {
        return NGX_OK;
    }

    ngx_http_coord_settled(run->ctx);

    if (icf->mode == NGX_HTTP_COORD_IDEMPOTENCY_REQUIRED) {
        return ngx_http_coord_idempotency_refuse(r, run,
                                                 NGX_COORD_OUTCOME_UNSCOPED);
    }

    ngx_http_coord_run_set(run, NGX_COORD_RUN_BARRED);
    ngx_http_coord_run_outcome(run, NGX_COORD_OUTCOME_UNSCOPED);
    ngx_http_coord_run_log(r, run, icf->limiter.log_level,
                           "request is not protected, its scope is empty,");

    return NGX_DECLINED;
}


ngx_int_t
ngx_http_coord_idempotency_record_name(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *run)
{
    ngx_http_core_srv_conf_t  *cscf;

    cscf = ngx_http_get_module_srv_conf(r, ngx_http_core_module);

    return ngx_http_coord_idempotency_name(r->pool, &cscf->server_name,
                                           &run->scope, &run->key,
                                           &run->name);
}


ngx_int_t
ngx_http_coord_idempotency_name(ngx_pool_t *pool, ngx_str_t *server,
    ngx_str_t *scope, ngx_str_t *key, ngx_str_t *name)
{
    u_char     *p, digest[NGX_COORD_DIGEST_LEN];
    ngx_str_t   shorter;

    if (scope->len > NGX_HTTP_COORD_IDEMPOTENCY_SCOPE) {

        /* a body: it may lie in a file, and is not to be copied */

        if (ngx_coord_digest_init() != NGX_OK
            || ngx_coord_digest_field(scope) != NGX_OK
            || ngx_coord_digest_final(digest) != NGX_OK)
        {
            return NGX_ERROR;
        }

        shorter.data = digest;
        shorter.len = NGX_COORD_DIGEST_LEN;

        return ngx_http_coord_idempotency_name(pool, server, &shorter, key,
                                               name);
    }

    p = ngx_pnalloc(pool, server->len + scope->len + key->len
                          + 2 * (NGX_SIZE_T_LEN + 1));
    if (p == NULL) {
        return NGX_ERROR;
    }

    name->data = p;
    name->len = ngx_sprintf(p, "%uz:%V%uz:%V%V", server->len, server,
                            scope->len, scope, key)
                - p;

    return NGX_OK;
}


ngx_int_t
ngx_http_coord_idempotency_body(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *run)
{
    ngx_int_t                                rc;
    ngx_uint_t                               digest;
    ngx_http_coord_idempotency_main_conf_t  *imcf;

    imcf = ngx_http_get_module_main_conf(r, ngx_http_coord_idempotency_module);

    digest = (run->conf->check == NGX_HTTP_COORD_FINGERPRINT_DEFAULT
              || imcf->digest);

    if (digest && ngx_http_coord_body_follow(r, &run->body) != NGX_OK) {
        return NGX_ERROR;
    }

    rc = ngx_http_coord_body_read(r);

    if (rc == NGX_DECLINED) {
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "idempotency: the body was sent to an upstream without "
                      "buffering, nothing is left of it");

        return run->shadow ? NGX_DECLINED : NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (rc != NGX_OK) {
        /* NGX_DONE: the request may be gone */
        return rc;
    }

    if (!digest) {
        return NGX_OK;
    }

    rc = ngx_http_coord_body_digest(r, &run->body,
                                    NGX_HTTP_COORD_IDEMPOTENCY_SLICE);

    if (rc == NGX_AGAIN) {

        /* others come to their turn meanwhile */

        ngx_coord_timer_init(&run->timer, ngx_http_coord_idempotency_turn,
                             run, r->connection->log);

        ngx_post_event(&run->timer.event, &ngx_posted_next_events);
    }

    return rc;
}


static void
ngx_http_coord_idempotency_turn(ngx_event_t *ev)
{
    ngx_http_coord_idempotency_t *run = ngx_coord_timer_data(ev);

    ngx_http_coord_resume(run->ctx);
}


ngx_int_t
ngx_http_coord_idempotency_fingerprint(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *run)
{
    ngx_str_t                  value;
    ngx_http_core_srv_conf_t  *cscf;

    switch (run->conf->check) {

    case NGX_HTTP_COORD_FINGERPRINT_OFF:
        ngx_memzero(run->fingerprint, NGX_COORD_DIGEST_LEN);
        return NGX_OK;

    case NGX_HTTP_COORD_FINGERPRINT_VALUE:

        if (ngx_http_coord_body_value(r, run->conf->fingerprint,
                                      run->conf->fingerprint_body, &value)
            != NGX_OK
            || ngx_coord_digest_init() != NGX_OK
            || ngx_coord_digest_field(&value) != NGX_OK)
        {
            return NGX_ERROR;
        }

        return ngx_coord_digest_final(run->fingerprint);

    default: /* NGX_HTTP_COORD_FINGERPRINT_DEFAULT */
        break;
    }

    cscf = ngx_http_get_module_srv_conf(r, ngx_http_core_module);

    ngx_http_coord_idempotency_media_type(r, &value);

    return ngx_http_coord_idempotency_digest(r, &cscf->server_name, &value,
                                             run->body.digest,
                                             run->fingerprint);
}


/* Content-Type without its parameters, of which some change with each try */

static void
ngx_http_coord_idempotency_media_type(ngx_http_request_t *r, ngx_str_t *type)
{
    size_t   len;
    u_char  *p;

    ngx_str_null(type);

    if (r->headers_in.content_type == NULL) {
        return;
    }

    p = r->headers_in.content_type->value.data;

    for (len = 0; len < r->headers_in.content_type->value.len; len++) {
        if (p[len] == ';') {
            break;
        }
    }

    while (len && (p[len - 1] == ' ' || p[len - 1] == '\t')) {
        len--;
    }

    type->data = ngx_pnalloc(r->pool, len);

    if (type->data) {
        type->len = len;
        ngx_strlow(type->data, p, len);
    }
}


static ngx_int_t
ngx_http_coord_idempotency_digest(ngx_http_request_t *r, const ngx_str_t *host,
    const ngx_str_t *type, u_char *body, u_char *digest)
{
    if (ngx_coord_digest_init() != NGX_OK
        || ngx_coord_digest_field(&r->method_name) != NGX_OK
        || ngx_coord_digest_field(host) != NGX_OK
        || ngx_coord_digest_field(&r->unparsed_uri) != NGX_OK
        || ngx_coord_digest_field(type) != NGX_OK
        || ngx_coord_digest_update(body, NGX_COORD_DIGEST_LEN) != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_coord_digest_final(digest);
}


static ngx_int_t
ngx_http_coord_idempotency_status_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_http_coord_idempotency_t  *run;

    run = ngx_http_coord_run(r);

    if (run == NULL || run->outcome == NGX_COORD_OUTCOME_UNDECIDED) {
        v->not_found = 1;
        return NGX_OK;
    }

    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;
    v->data = ngx_coord_outcomes[run->outcome].status.data;
    v->len = ngx_coord_outcomes[run->outcome].status.len;

    return NGX_OK;
}


/* empty until the body has been read */

static ngx_int_t
ngx_http_coord_request_digest_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    u_char                         digest[NGX_COORD_DIGEST_LEN];
    ngx_str_t                      none;
    ngx_http_coord_body_t          own, *body;
    ngx_http_coord_idempotency_t  *run;

    r = r->main;

    if (r->request_body == NULL) {
        v->not_found = 1;
        return NGX_OK;
    }

    v->data = ngx_pnalloc(r->pool, 2 * NGX_COORD_DIGEST_LEN);
    if (v->data == NULL) {
        return NGX_ERROR;
    }

    run = ngx_http_coord_run(r);
    body = &own;

    ngx_memzero(&own, sizeof(ngx_http_coord_body_t));

    if (run && run->body.done) {
        body = &run->body;
    }

    ngx_str_null(&none);

    if (ngx_http_coord_body_digest(r, body, NGX_MAX_OFF_T_VALUE) != NGX_OK
        || ngx_http_coord_idempotency_digest(r, &r->headers_in.server, &none,
                                             body->digest, digest)
           != NGX_OK)
    {
        ngx_http_coord_body_free(&own);
        return NGX_ERROR;
    }

    (void) ngx_hex_dump(v->data, digest, NGX_COORD_DIGEST_LEN);

    v->len = 2 * NGX_COORD_DIGEST_LEN;
    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;

    return NGX_OK;
}
