
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * sessions/<zone>/<key> and users/<zone>/<user> of coord_api.  These keys
 * are secrets: they stand as digests, and no answer repeats them.
 */


#include "ngx_http_coord_api.h"
#include "ngx_http_coord_session.h"
#include "ngx_coord_wake.h"


/* sessions that are ended in one batch: one reply has all answers */
#define NGX_HTTP_COORD_SESSION_PAGE    40


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
static void ngx_http_coord_session_api_items(ngx_http_coord_out_t *out,
    ngx_coord_session_item_t *items, ngx_uint_t n);
static ngx_int_t ngx_http_coord_session_api_user_end(
    ngx_http_coord_api_t *api, ngx_http_coord_out_t *out);
static ngx_int_t ngx_http_coord_session_api_end(ngx_http_coord_api_t *api,
    u_char *id, ngx_uint_t drop);


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
    n = (type == &ngx_coord_op_session_revoke
         && !ngx_coord_store_is_memory(api->zone->store)) ? 2 : 1;

    for (i = 0; i < n; i++) {
        op = ngx_http_coord_api_op(api, type, 1, 0);

        if (op == NULL || ngx_coord_op_blob(op, blob) != NGX_OK) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }

        op->u.session.ttl = (type == &ngx_coord_op_session_revoke)
                            ? ngx_http_coord_session_revoked(zone) : zone->ttl;

        if (i == 1) {
            op->source = NGX_COORD_SOURCE_MEMORY;
        }

        if (type == &ngx_coord_op_session_revoke
            && ngx_coord_store_is_memory(api->zone->store))
        {
            /* who is told hears of it when this has been done */

            ngx_coord_wake(api->zone, op->key, op->key_len);
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
    ngx_str_t                       user;
    ngx_coord_nsec_t                left;
    ngx_coord_session_t            *session;
    ngx_http_coord_session_zone_t  *zone;

    session = &api->session;
    zone = api->zone->data;

    ngx_http_coord_json_string(out, "zone", &api->zone->name);

    if (api->write) {
        ngx_http_coord_json_bool(out, "deleted", session->found);
        return;
    }

    left = session->left;

    if (zone->absolute && !session->revoked) {
        left = ngx_min(left, zone->absolute - session->age);
        session->revoked = (left <= 0);
        left = session->revoked ? session->left : left;
    }

    if (session->bound && !session->revoked) {
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
                                left / NGX_COORD_NSEC_PER_USEC);
}


static ngx_int_t
ngx_http_coord_session_api_user_ask(ngx_http_coord_api_t *api)
{
    return ngx_http_coord_session_api_op(api, &ngx_coord_op_user_list,
                                         NGX_COORD_SESSION_LIST
                                         * sizeof(ngx_coord_session_item_t));
}


static ngx_int_t
ngx_http_coord_session_api_user_answer(ngx_http_coord_api_t *api,
    ngx_http_coord_out_t *out)
{
    ngx_uint_t       count;
    ngx_coord_op_t  *op;

    op = &api->batch->ops[0];

    if (api->write) {
        return ngx_http_coord_session_api_user_end(api, out);
    }

    count = op->u.session.count;

    ngx_http_coord_json_string(out, "zone", &api->zone->name);
    ngx_http_coord_json_number(out, "count", count);
    ngx_http_coord_json_open(out, "sessions", '[');

    ngx_http_coord_session_api_items(out,
                                     (ngx_coord_session_item_t *) op->blob,
                                     ngx_min(count, NGX_COORD_SESSION_LIST));

    ngx_http_coord_json_close(out, ']');

    return NGX_OK;
}


static void
ngx_http_coord_session_api_items(ngx_http_coord_out_t *out,
    ngx_coord_session_item_t *items, ngx_uint_t n)
{
    u_char      hex[NGX_COORD_DIGEST_HEX_LEN];
    ngx_str_t   id;
    ngx_uint_t  i;

    hex[0] = '~';
    id.data = hex;
    id.len = NGX_COORD_DIGEST_HEX_LEN;

    for (i = 0; i < n; i++) {
        ngx_hex_dump(hex + 1, items[i].id, NGX_COORD_ID_LEN);

        ngx_http_coord_json_open(out, NULL, '{');
        ngx_http_coord_json_string(out, "session", &id);
        ngx_http_coord_json_seconds(out, "idle_seconds",
                                    items[i].idle / NGX_COORD_NSEC_PER_USEC);
        ngx_http_coord_json_close(out, '}');
    }
}


/*
 * In turn: the newest sessions of the user are listed, and they are ended.
 * The index goes last, so that a DELETE that failed may be repeated.
 */

static ngx_int_t
ngx_http_coord_session_api_user_end(ngx_http_coord_api_t *api,
    ngx_http_coord_out_t *out)
{
    ngx_int_t                  rc;
    ngx_uint_t                 i, n, count;
    ngx_coord_op_t            *op;
    ngx_coord_session_item_t  *items;

    op = &api->batch->ops[0];

    if (op->type != &ngx_coord_op_user_list) {

        op = &api->batch->ops[api->batch->nops - 1];

        if (op->type == &ngx_coord_op_user_revoke) {
            ngx_http_coord_json_string(out, "zone", &api->zone->name);
            ngx_http_coord_json_number(out, "ended", api->session.count);

            return NGX_OK;
        }

        ngx_http_coord_api_next(api);

        rc = ngx_http_coord_session_api_user_ask(api);

        return (rc == NGX_OK) ? NGX_AGAIN : rc;
    }

    count = op->u.session.count;
    n = ngx_min(count, NGX_HTTP_COORD_SESSION_PAGE);

    items = ngx_palloc(api->request->pool,
                       NGX_HTTP_COORD_SESSION_PAGE
                       * sizeof(ngx_coord_session_item_t));
    if (items == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ngx_memcpy(items, op->blob, n * sizeof(ngx_coord_session_item_t));

    ngx_http_coord_api_next(api);

    api->session.count += n;

    for (i = 0; i < n; i++) {
        if (ngx_http_coord_session_api_end(api, items[i].id, n < count)
            != NGX_OK)
        {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }
    }

    if (n == count
        && ngx_http_coord_api_op(api, &ngx_coord_op_user_revoke, 1, 0) == NULL)
    {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    return NGX_AGAIN;
}


/* ends a session of the user, in the memory of this node as well */

static ngx_int_t
ngx_http_coord_session_api_end(ngx_http_coord_api_t *api, u_char *id,
    ngx_uint_t drop)
{
    u_char           hex[NGX_COORD_DIGEST_HEX_LEN];
    ngx_int_t        rc;
    ngx_str_t        user;
    ngx_coord_op_t  *op;

    user = api->key;

    hex[0] = '~';
    ngx_hex_dump(hex + 1, id, NGX_COORD_ID_LEN);

    api->key.data = hex;
    api->key.len = NGX_COORD_DIGEST_HEX_LEN;

    rc = ngx_http_coord_session_api_op(api, &ngx_coord_op_session_revoke,
                                       NGX_COORD_SESSION_VALUE_LEN);

    api->key = user;

    if (rc != NGX_OK || !drop) {
        return rc;
    }

    op = ngx_http_coord_api_op(api, &ngx_coord_op_user_drop, 1, 0);
    if (op == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(op->id, id, NGX_COORD_ID_LEN);

    return NGX_OK;
}
