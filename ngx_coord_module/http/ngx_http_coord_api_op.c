
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * What the routes of coord_api have in common: operations on the key of a
 * request, and the answer of a reset.
 */


#include "ngx_http_coord_api.h"


ngx_coord_op_t *
ngx_http_coord_api_op(ngx_http_coord_api_t *api,
    const ngx_coord_op_type_t *type, ngx_uint_t secret)
{
    u_char      key[NGX_COORD_KEY_LEN];
    size_t      len;
    ngx_str_t  *k;

    k = &api->key;

    /* "~" and 32 digits are what the page shows of a key that is not plain */

    if (k->len == NGX_COORD_DIGEST_HEX_LEN
        && k->data[0] == '~'
        && ngx_coord_is_hex(k->data + 1, k->len - 1))
    {
        len = k->len;
        ngx_memcpy(key, k->data, len);

    } else {
        len = secret ? ngx_coord_key_digest(key, k)
                     : ngx_coord_key_encode(key, k);
    }

    if (len == 0) {
        return NULL;
    }

    if (api->batch == NULL) {
        api->batch = ngx_coord_batch_create(api->zone->store);

        if (api->batch == NULL) {
            return NULL;
        }
    }

    return ngx_coord_batch_add(api->batch, type, api->zone, key, len);
}


ngx_int_t
ngx_http_coord_api_arg(ngx_http_coord_api_t *api, const char *name,
    ngx_str_t *value)
{
    u_char     *p, *src;
    ngx_str_t   arg;

    if (ngx_http_arg(api->request, (u_char *) name, ngx_strlen(name), &arg)
        != NGX_OK)
    {
        return NGX_DECLINED;
    }

    p = ngx_pnalloc(api->request->pool, arg.len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    src = arg.data;
    value->data = p;

    ngx_unescape_uri(&p, &src, arg.len, 0);

    value->len = p - value->data;

    return NGX_OK;
}


ngx_int_t
ngx_http_coord_api_forget(ngx_http_coord_api_t *api,
    const ngx_coord_op_type_t *taken, ngx_uint_t secret, ngx_coord_rate_t *rate)
{
    ngx_uint_t       i;
    ngx_coord_op_t  *op;

    for (i = 0; i < 2; i++) {
        op = ngx_http_coord_api_op(api, taken->forget, secret);

        if (op == NULL) {
            return NGX_ERROR;
        }

        if (rate) {
            op->u.rate = *rate;
        }

        if (ngx_coord_store_is_memory(api->zone->store)) {
            break;
        }

        /* and what on_failure=local has left on this node */

        if (i == 1) {
            op->source = NGX_COORD_SOURCE_MEMORY;
        }
    }

    return NGX_OK;
}


ngx_int_t
ngx_http_coord_api_forgotten(ngx_http_coord_api_t *api,
    ngx_http_coord_out_t *out)
{
    ngx_uint_t  i, deleted;

    deleted = 0;

    for (i = 0; i < api->batch->nops; i++) {
        if (api->batch->ops[i].rc == NGX_OK) {
            deleted = 1;
        }
    }

    ngx_http_coord_json_string(out, "zone", &api->zone->name);
    ngx_http_coord_json_bool(out, "deleted", deleted);

    return NGX_OK;
}


void
ngx_http_coord_api_next(ngx_http_coord_api_t *api)
{
    ngx_coord_batch_done(api->batch);
    api->batch = NULL;
}
