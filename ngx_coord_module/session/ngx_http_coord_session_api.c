
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * sessions/<zone>/<key> and users/<zone>/<user> of coord_api.  These keys
 * are secrets: they stand as digests, and no answer repeats them.
 */


#include "ngx_http_coord_api.h"
#include "ngx_http_coord_session.h"


static ngx_int_t ngx_http_coord_session_api_ask(ngx_http_coord_api_t *api);
static ngx_int_t ngx_http_coord_session_api_op(ngx_http_coord_api_t *api,
    const ngx_coord_op_type_t *type, size_t blob);
static ngx_int_t ngx_http_coord_session_api_answer(ngx_http_coord_api_t *api,
    ngx_http_coord_out_t *out);
static ngx_int_t ngx_http_coord_session_api_owner(ngx_http_coord_api_t *api);
static void ngx_http_coord_session_api_write(ngx_http_coord_api_t *api,
    ngx_http_coord_out_t *out);
static ngx_int_t ngx_http_coord_session_api_user_ask(
    ngx_http_coord_api_t *api);
static ngx_int_t ngx_http_coord_session_api_user_answer(
    ngx_http_coord_api_t *api, ngx_http_coord_out_t *out);


const ngx_http_coord_route_t  ngx_http_coord_session_routes[] = {

    { ngx_string("sessions"),
      NGX_HTTP_COORD_API_READ|NGX_HTTP_DELETE, 0,
      ngx_http_coord_session_api_ask,
      ngx_http_coord_session_api_answer },

    { ngx_string("users"),
      NGX_HTTP_COORD_API_READ|NGX_HTTP_DELETE, 0,
      ngx_http_coord_session_api_user_ask,
      ngx_http_coord_session_api_user_answer },

    { ngx_null_string, 0, 0, NULL, NULL }
};


static ngx_int_t
ngx_http_coord_session_api_ask(ngx_http_coord_api_t *api)
{
    return ngx_http_coord_session_api_op(api,
                                         api->write
                                         ? &ngx_coord_op_session_revoke
                                         : &ngx_coord_op_session_get,
                                         NGX_COORD_SESSION_VALUE_LEN);
}


/* what ends something ends it in the memory of this node as well */

static ngx_int_t
ngx_http_coord_session_api_op(ngx_http_coord_api_t *api,
    const ngx_coord_op_type_t *type, size_t blob)
{
    ngx_uint_t                      i, n;
    ngx_coord_op_t                 *op;
    ngx_http_coord_session_zone_t  *zone;

    zone = api->zone->data;
    n = (api->write && !ngx_coord_store_is_memory(api->zone->store)) ? 2 : 1;

    for (i = 0; i < n; i++) {
        op = ngx_http_coord_api_op(api, type, 1, 0);

        if (op == NULL || ngx_coord_op_blob(op, blob) != NGX_OK) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }

        op->u.session.ttl = ngx_max(zone->ttl, zone->absolute);

        if (i == 1) {
            op->source = NGX_COORD_SOURCE_MEMORY;
        }

        if (type == &ngx_coord_op_user_check
            || type == &ngx_coord_op_user_drop)
        {

            /* the id of a session is its digest */

            (void) ngx_coord_unhex(op->id, api->value.data + 1,
                                   NGX_COORD_ID_LEN);
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_coord_session_api_answer(ngx_http_coord_api_t *api,
    ngx_http_coord_out_t *out)
{
    ngx_coord_op_t  *op;

    op = &api->batch->ops[0];

    if (api->stage == 2) {

        /* a session that is not among those of its user has been ended */

        if (!api->write && !op->u.session.found) {
            api->session.revoked = 1;
        }

        ngx_http_coord_session_api_write(api, out);

        return NGX_OK;
    }

    api->session = op->u.session;

    if (!api->session.found) {

        if (!api->write) {
            api->detail = "There is no such session.";
            return NGX_HTTP_NOT_FOUND;
        }

        ngx_http_coord_session_api_write(api, out);

        return NGX_OK;
    }

    if (api->session.user_len == NGX_COORD_DIGEST_HEX_LEN) {
        return ngx_http_coord_session_api_owner(api);
    }

    api->value.data = op->blob;
    api->value.len = api->session.value_len;

    ngx_http_coord_session_api_write(api, out);

    return NGX_OK;
}


/* asks about the user of the session, or takes the session from it */

static ngx_int_t
ngx_http_coord_session_api_owner(ngx_http_coord_api_t *api)
{
    u_char          *p;
    ngx_int_t        rc;
    ngx_str_t        value;
    ngx_coord_op_t  *op;

    op = &api->batch->ops[0];

    p = ngx_pnalloc(api->request->pool,
                    op->key_len + api->session.user_len
                    + api->session.value_len);
    if (p == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    api->value.data = p;
    api->value.len = op->key_len;
    p = ngx_cpymem(p, op->key, op->key_len);

    api->key.data = p;
    api->key.len = api->session.user_len;
    p = ngx_cpymem(p, api->session.user, api->session.user_len);

    value.data = p;
    value.len = api->session.value_len;
    ngx_memcpy(p, op->blob, value.len);

    ngx_http_coord_api_next(api);

    rc = ngx_http_coord_session_api_op(api,
                                       api->write ? &ngx_coord_op_user_drop
                                                  : &ngx_coord_op_user_check,
                                       NGX_COORD_SESSION_VALUE_LEN);

    api->value = value;

    return (rc == NGX_OK) ? NGX_AGAIN : rc;
}


static void
ngx_http_coord_session_api_write(ngx_http_coord_api_t *api,
    ngx_http_coord_out_t *out)
{
    ngx_str_t             user;
    ngx_coord_session_t  *session;

    session = &api->session;

    ngx_http_coord_json_string(out, "zone", &api->zone->name);

    if (api->write) {
        ngx_http_coord_json_bool(out, "deleted", session->found);
        return;
    }

    if (session->bound) {
        ngx_http_coord_json_string(out, "value", &api->value);

    } else {
        ngx_http_coord_json_null(out, "value");
    }

    if (session->user_len) {
        user.data = session->user;
        user.len = session->user_len;
        ngx_http_coord_json_string(out, "user", &user);
    }

    ngx_http_coord_json_bool(out, "revoked", session->revoked);
    ngx_http_coord_json_seconds(out, "age_seconds",
                                session->age / NGX_COORD_NSEC_PER_USEC);
    ngx_http_coord_json_seconds(out, "expires_seconds",
                                session->left / NGX_COORD_NSEC_PER_USEC);
}


static ngx_int_t
ngx_http_coord_session_api_user_ask(ngx_http_coord_api_t *api)
{
    return ngx_http_coord_session_api_op(api,
                                         api->write
                                         ? &ngx_coord_op_user_revoke
                                         : &ngx_coord_op_user_list,
                                         NGX_COORD_SESSION_LIST
                                         * sizeof(ngx_coord_session_item_t));
}


static ngx_int_t
ngx_http_coord_session_api_user_answer(ngx_http_coord_api_t *api,
    ngx_http_coord_out_t *out)
{
    u_char                     hex[NGX_COORD_DIGEST_HEX_LEN];
    ngx_str_t                  id;
    ngx_uint_t                 i, n;
    ngx_coord_op_t            *op;
    ngx_coord_session_item_t  *items;

    op = &api->batch->ops[0];

    ngx_http_coord_json_string(out, "zone", &api->zone->name);

    if (api->write) {
        ngx_http_coord_json_number(out, "ended", op->u.session.count);
        return NGX_OK;
    }

    ngx_http_coord_json_number(out, "count", op->u.session.count);
    ngx_http_coord_json_open(out, "sessions", '[');

    hex[0] = '~';
    id.data = hex;
    id.len = NGX_COORD_DIGEST_HEX_LEN;

    items = (ngx_coord_session_item_t *) op->blob;
    n = ngx_min(op->u.session.count, NGX_COORD_SESSION_LIST);

    for (i = 0; i < n; i++) {
        ngx_hex_dump(hex + 1, items[i].id, NGX_COORD_ID_LEN);

        ngx_http_coord_json_open(out, NULL, '{');
        ngx_http_coord_json_string(out, "session", &id);
        ngx_http_coord_json_seconds(out, "idle_seconds",
                                    items[i].idle / NGX_COORD_NSEC_PER_USEC);
        ngx_http_coord_json_close(out, '}');
    }

    ngx_http_coord_json_close(out, ']');

    return NGX_OK;
}
