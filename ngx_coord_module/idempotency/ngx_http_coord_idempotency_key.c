
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_idempotency: the key of the client, and the name of its record.
 */


#include "ngx_http_coord_idempotency.h"


static ngx_uint_t ngx_http_coord_idempotency_header(ngx_http_request_t *r,
    ngx_str_t *name, ngx_str_t *value);
static void ngx_http_coord_idempotency_trim(ngx_str_t *value);
static ngx_int_t ngx_http_coord_idempotency_parse(ngx_str_t *key,
    ngx_pool_t *pool);


ngx_int_t
ngx_http_coord_idempotency_key(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *state)
{
    ngx_uint_t                           lines;
    ngx_http_coord_idempotency_conf_t   *icf;
    ngx_http_coord_idempotency_status_e  status;

    icf = state->conf;

    if (icf->header.len) {
        lines = ngx_http_coord_idempotency_header(r, &icf->header,
                                                  &state->key);

    } else {
        if (ngx_http_complex_value(r, icf->key, &state->key) != NGX_OK) {
            return NGX_ERROR;
        }

        lines = (state->key.len > 0);
    }

    if (lines == 1
        && ngx_http_coord_idempotency_parse(&state->key, r->pool) == NGX_OK)
    {
        return NGX_OK;
    }

    if (lines == 0 && icf->mode != NGX_HTTP_COORD_IDEMPOTENCY_REQUIRED) {
        return NGX_DECLINED;
    }

    status = (lines == 0) ? NGX_HTTP_COORD_IDEMPOTENCY_MISSING
                          : NGX_HTTP_COORD_IDEMPOTENCY_INVALID;

    ngx_http_coord_settled(state->ctx);

    return ngx_http_coord_idempotency_refuse(r, state, status);
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


/*
 * Makes an sf-string of RFC 9651 what it means; anything else stands for
 * itself.  NGX_ERROR: not a key.
 */

static ngx_int_t
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
    ngx_http_coord_idempotency_t *state)
{
    ngx_http_coord_idempotency_conf_t  *icf;

    icf = state->conf;

    if (icf->global) {
        ngx_str_null(&state->scope);
        return NGX_OK;
    }

    if (ngx_http_complex_value(r, icf->scope, &state->scope) != NGX_OK) {
        return NGX_ERROR;
    }

    if (state->scope.len) {
        return NGX_OK;
    }

    ngx_http_coord_settled(state->ctx);

    if (icf->mode == NGX_HTTP_COORD_IDEMPOTENCY_REQUIRED) {
        return ngx_http_coord_idempotency_refuse(r, state,
                                        NGX_HTTP_COORD_IDEMPOTENCY_UNSCOPED);
    }

    state->status = NGX_HTTP_COORD_IDEMPOTENCY_UNSCOPED;
    state->phase = NGX_HTTP_COORD_IDEMPOTENCY_DONE;

    ngx_http_coord_idempotency_count(state, NGX_COORD_OUTCOME_UNSCOPED);
    ngx_http_coord_idempotency_log(r, state, NGX_LOG_ERR,
                          "request is not protected, its scope is empty,");

    return NGX_DECLINED;
}


ngx_int_t
ngx_http_coord_idempotency_record_name(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *state)
{
    ngx_http_core_srv_conf_t  *cscf;

    cscf = ngx_http_get_module_srv_conf(r, ngx_http_core_module);

    return ngx_http_coord_idempotency_name(r->pool, &cscf->server_name,
                                           &state->scope, &state->key,
                                           &state->name);
}


ngx_int_t
ngx_http_coord_idempotency_name(ngx_pool_t *pool, ngx_str_t *server,
    ngx_str_t *scope, ngx_str_t *key, ngx_str_t *name)
{
    u_char  *p;

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
