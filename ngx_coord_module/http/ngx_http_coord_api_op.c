
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * What the routes of coord_api have in common: operations on the key of a
 * request, and the answer of a reset.
 */


#include "ngx_http_coord_api.h"
#include "ngx_coord_store_metrics.h"


/* the text of a problem, and the longest of the reasons and words */
#define NGX_HTTP_COORD_API_DETAIL  96


static ngx_int_t ngx_http_coord_api_name(ngx_http_coord_api_t *api,
    ngx_uint_t form, u_char *buf, ngx_str_t *name);


ngx_uint_t
ngx_http_coord_api_forms(ngx_http_coord_api_t *api)
{
    u_char     buf[NGX_COORD_ADDRESS_LEN];
    ngx_str_t  name;

    return ngx_http_coord_api_name(api, 1, buf, &name) == NGX_OK ? 2 : 1;
}


/*
 * The bytes that the key of the request stands for, of its first or second
 * form.  NGX_DECLINED: it has no second one.
 */

static ngx_int_t
ngx_http_coord_api_name(ngx_http_coord_api_t *api, ngx_uint_t form,
    u_char *buf, ngx_str_t *name)
{
    size_t     len;
    in_addr_t  addr;
    ngx_str_t  text;

    static const u_char  mapped[] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255 };

    text = api->key;
    len = 0;

    if (text.len > 2 && text.data[0] == '[' && text.data[text.len - 1] == ']') {
        text.data++;
        text.len -= 2;
    }

    if (api->zone->address) {
        addr = ngx_inet_addr(text.data, text.len);

        if (addr != INADDR_NONE) {
            len = sizeof(mapped) + sizeof(in_addr_t);
            ngx_memcpy(buf, mapped, sizeof(mapped));
            ngx_memcpy(buf + sizeof(mapped), &addr, sizeof(in_addr_t));
        }

#if (NGX_HAVE_INET6)
        if (len == 0 && ngx_inet6_addr(text.data, text.len, buf) == NGX_OK) {
            len = NGX_COORD_ADDRESS_LEN;
        }
#endif
    }

    if (len == 0) {
        *name = api->key;
        return form == 0 ? NGX_OK : NGX_DECLINED;
    }

    name->data = buf;
    name->len = len;

    /* a socket for both families knows an IPv4 client by its IPv6 form */

    if (ngx_memcmp(buf, mapped, sizeof(mapped)) == 0) {

        if (form == 0) {
            name->data += sizeof(mapped);
            name->len = sizeof(in_addr_t);
        }

        return NGX_OK;
    }

    return form == 0 ? NGX_OK : NGX_DECLINED;
}


ngx_coord_op_t *
ngx_http_coord_api_op(ngx_http_coord_api_t *api,
    const ngx_coord_op_type_t *type, ngx_uint_t secret, ngx_uint_t form)
{
    u_char     key[NGX_COORD_KEY_LEN], buf[NGX_COORD_ADDRESS_LEN];
    size_t     len;
    ngx_str_t  name;

    if (ngx_http_coord_api_name(api, form, buf, &name) != NGX_OK) {
        return NULL;
    }

    /* "~" and 32 digits are what the page shows of a key that is not plain */

    if (name.len == NGX_COORD_DIGEST_HEX_LEN
        && name.data[0] == '~'
        && ngx_coord_is_hex(name.data + 1, name.len - 1))
    {
        len = name.len;
        ngx_memcpy(key, name.data, len);

    } else {
        len = secret ? ngx_coord_key_digest(key, &name)
                     : ngx_coord_key_encode(key, &name);
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
    size_t      i;
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

    value->data = p;

    /* a space, as forms and most libraries send it */

    for (i = 0; i < arg.len; i++) {
        p[i] = (arg.data[i] == '+') ? ' ' : arg.data[i];
    }

    src = p;

    ngx_unescape_uri(&p, &src, arg.len, 0);

    value->len = p - value->data;

    return NGX_OK;
}


ngx_int_t
ngx_http_coord_api_forget(ngx_http_coord_api_t *api,
    const ngx_coord_op_type_t *taken, ngx_uint_t secret, ngx_coord_rate_t *rate)
{
    ngx_uint_t       i, n, local;
    ngx_coord_op_t  *op;

    n = ngx_http_coord_api_forms(api);
    local = !ngx_coord_store_is_memory(api->zone->store);

    for (i = 0; i < (local ? 2 * n : n); i++) {
        op = ngx_http_coord_api_op(api, taken->forget, secret, i % n);

        if (op == NULL) {
            return NGX_ERROR;
        }

        if (rate) {
            op->u.rate = *rate;
        }

        /* and what on_failure=local has left on this node */

        if (i >= n) {
            op->source = NGX_COORD_SOURCE_MEMORY;
        }
    }

    return NGX_OK;
}


ngx_uint_t
ngx_http_coord_api_was_there(ngx_http_coord_api_t *api)
{
    ngx_uint_t  i;

    for (i = 0; i < api->batch->nops; i++) {
        if (api->batch->ops[i].rc == NGX_OK) {
            return 1;
        }
    }

    return api->deleted;
}


ngx_int_t
ngx_http_coord_api_forgotten(ngx_http_coord_api_t *api,
    ngx_http_coord_out_t *out)
{
    ngx_http_coord_json_string(out, "zone", &api->zone->name);
    ngx_http_coord_json_bool(out, "deleted",
                             ngx_http_coord_api_was_there(api));

    return NGX_OK;
}


void
ngx_http_coord_api_next(ngx_http_coord_api_t *api)
{
    ngx_coord_batch_done(api->batch);
    api->batch = NULL;
}


ngx_int_t
ngx_http_coord_api_failed(ngx_http_coord_api_t *api)
{
    u_char            text[NGX_HTTP_COORD_API_DETAIL];
    u_char           *p, *last;
    ngx_uint_t        i;
    ngx_coord_op_t   *op;
    const ngx_str_t  *word;

    for (i = 0; api->batch && i < api->batch->nops; i++) {

        op = &api->batch->ops[i];

        if (op->rc != NGX_ERROR) {
            continue;
        }

        last = text + sizeof(text);
        word = ngx_coord_metrics_refusal(op->zone->store);

        p = ngx_slprintf(text, last, "The store does not answer, reason: %V",
                         &ngx_coord_fail_names[op->failure]);

        if (word) {
            p = ngx_slprintf(p, last, " (it refuses, %V)", word);
        }

        ngx_slprintf(p, last, ".%Z");

        return ngx_http_coord_out_problem(api->request,
                                          NGX_HTTP_SERVICE_UNAVAILABLE,
                                          (char *) text);
    }

    return NGX_DECLINED;
}
