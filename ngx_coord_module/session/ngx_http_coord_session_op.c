
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_session: the session of a request, and operations on sessions and on
 * indexes of users, for all who ask or tell the store something.
 */


#include "ngx_http_coord_session_state.h"


#define NGX_HTTP_COORD_SESSION_DIGEST    "sha256:"

/* requests with an id that has been replaced are on their way for so long */
#define NGX_HTTP_COORD_SESSION_FLIGHT  (60 * NGX_COORD_NSEC_PER_SEC)

/* how long an end is remembered where nothing says so */
#define NGX_HTTP_COORD_SESSION_REMEMBER  (86400 * NGX_COORD_NSEC_PER_SEC)


ngx_http_coord_session_client_t *
ngx_http_coord_session_client(ngx_http_request_t *r, ngx_http_coord_ctx_t *ctx)
{
    ngx_http_coord_session_client_t  *client;

    client = ctx->state[ngx_http_coord_session_feature.slot];

    if (client == NULL) {
        client = ngx_pcalloc(r->pool, sizeof(ngx_http_coord_session_client_t));
        ctx->state[ngx_http_coord_session_feature.slot] = client;
    }

    return client;
}


ngx_http_coord_session_state_t *
ngx_http_coord_session_state(ngx_http_coord_ctx_t *ctx)
{
    ngx_http_coord_session_client_t  *client;

    client = ctx->state[ngx_http_coord_session_feature.slot];

    return client ? client->state : NULL;
}


ngx_coord_nsec_t
ngx_http_coord_session_revoked(ngx_http_coord_session_zone_t *sz)
{
    if (sz->revoked) {
        return sz->revoked;
    }

    return sz->absolute ? sz->absolute : NGX_HTTP_COORD_SESSION_REMEMBER;
}


/*
 * Such a request was on its way while another one of its client was answered
 * with a new id, which another cookie would undo.
 */

ngx_coord_nsec_t
ngx_http_coord_session_flight(ngx_http_coord_session_zone_t *sz,
    ngx_coord_session_t *session)
{
    ngx_coord_nsec_t  since;

    if (!session->moved) {
        return 0;
    }

    since = ngx_http_coord_session_revoked(sz) - session->left;

    return ngx_max(NGX_HTTP_COORD_SESSION_FLIGHT - since, 0);
}


ngx_int_t
ngx_http_coord_session_step(ngx_http_coord_session_state_t *state,
    ngx_coord_session_step_e to)
{
    if (ngx_coord_session_step(&state->step, to) == NGX_OK) {
        return NGX_OK;
    }

    ngx_log_error(NGX_LOG_ALERT, ngx_cycle->log, 0,
                  "coord session: step %ui after %ui",
                  (ngx_uint_t) to, (ngx_uint_t) state->step);

    return NGX_ERROR;
}


ngx_int_t
ngx_http_coord_session_name(ngx_http_coord_session_state_t *state,
    ngx_str_t *text)
{
    if (ngx_coord_key_digest(state->key, text) != NGX_COORD_DIGEST_HEX_LEN) {
        return NGX_ERROR;
    }

    (void) ngx_coord_unhex(state->id, state->key + 1, NGX_COORD_ID_LEN);

    state->text = *text;

    return NGX_OK;
}


ngx_int_t
ngx_http_coord_session_user_key(ngx_http_coord_session_user_t *user)
{
    user->len = 0;

    if (user->text.len == 0) {
        return NGX_OK;
    }

    user->len = ngx_coord_key_digest(user->key, &user->text);

    return user->len ? NGX_OK : NGX_ERROR;
}


ngx_int_t
ngx_http_coord_session_value(ngx_http_request_t *r,
    ngx_http_complex_value_t *cv, ngx_str_t *value)
{
    u_char  *p, digest[NGX_COORD_DIGEST_LEN];

    if (ngx_http_complex_value(r, cv, value) != NGX_OK) {
        return NGX_ERROR;
    }

    if (ngx_coord_session_value_good(value)) {
        return NGX_OK;
    }

    if (ngx_coord_digest_init() != NGX_OK
        || ngx_coord_digest_update(value->data, value->len) != NGX_OK
        || ngx_coord_digest_final(digest) != NGX_OK)
    {
        return NGX_ERROR;
    }

    p = ngx_pnalloc(r->pool, sizeof(NGX_HTTP_COORD_SESSION_DIGEST) - 1
                             + 2 * NGX_COORD_DIGEST_LEN);
    if (p == NULL) {
        return NGX_ERROR;
    }

    value->data = p;

    p = ngx_cpymem(p, NGX_HTTP_COORD_SESSION_DIGEST,
                   sizeof(NGX_HTTP_COORD_SESSION_DIGEST) - 1);
    p = ngx_hex_dump(p, digest, NGX_COORD_DIGEST_LEN);

    value->len = p - value->data;

    return NGX_OK;
}


ngx_coord_nsec_t
ngx_http_coord_session_age(ngx_http_coord_session_state_t *state)
{
    return state->record.found
           ? state->record.age + ngx_coord_monotonic() - state->read_at
           : state->carried;
}


ngx_uint_t
ngx_http_coord_session_expired(ngx_http_coord_session_state_t *state)
{
    ngx_http_coord_session_zone_t  *sz;

    sz = state->use->zone->data;

    return sz->absolute
           && ngx_http_coord_session_age(state) >= sz->absolute;
}


ngx_coord_nsec_t
ngx_http_coord_session_life(ngx_http_coord_session_state_t *state)
{
    ngx_coord_nsec_t                left;
    ngx_http_coord_session_zone_t  *sz;

    sz = state->use->zone->data;

    if (sz->absolute == 0) {
        return sz->ttl;
    }

    left = ngx_max(sz->absolute - ngx_http_coord_session_age(state), 0);

    return (left > sz->ttl) ? sz->ttl
                            : left + ngx_http_coord_session_revoked(sz);
}


ngx_coord_op_t *
ngx_http_coord_session_op(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state, const ngx_coord_op_type_t *type,
    ngx_http_coord_ref_t *ref)
{
    return ngx_http_coord_session_user_op(r, state, type, state->key,
                                          NGX_COORD_DIGEST_HEX_LEN, ref);
}


ngx_coord_op_t *
ngx_http_coord_session_user_op(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state, const ngx_coord_op_type_t *type,
    u_char *user, size_t len, ngx_http_coord_ref_t *ref)
{
    ngx_coord_op_t                 *op;
    ngx_coord_zone_t               *zone;
    ngx_http_coord_session_zone_t  *sz;

    zone = state->use->zone;
    sz = zone->data;

    if (state->batch) {
        ref->batch = 0;
        ref->op = state->batch->nops;

        op = ngx_coord_batch_add(state->batch, type, zone, user, len);

        if (op) {
            op->on_failure = state->on_failure;
        }

    } else {
        op = ngx_http_coord_add_encoded(r, state->ctx, type, zone, user, len,
                                        state->on_failure, ref);
    }

    if (op == NULL) {
        return NULL;
    }

    op->u.session.ttl = sz->ttl;

    ngx_memcpy(op->id, state->id, NGX_COORD_ID_LEN);

    return op;
}


ngx_coord_op_t *
ngx_http_coord_session_result(ngx_http_coord_session_state_t *state,
    ngx_http_coord_ref_t ref)
{
    if (ref.op == NGX_HTTP_COORD_SESSION_UNASKED) {
        return NULL;
    }

    return state->batch ? &state->batch->ops[ref.op]
                        : ngx_http_coord_op(state->ctx, ref);
}


ngx_int_t
ngx_http_coord_session_op_value(ngx_coord_op_t *op, ngx_str_t *value)
{
    if (ngx_coord_op_blob(op, NGX_COORD_SESSION_VALUE_LEN) != NGX_OK) {
        return NGX_ERROR;
    }

    if (value->len) {
        ngx_memcpy(op->blob, value->data, value->len);

        op->u.session.bound = 1;
        op->u.session.value_len = value->len;
    }

    return NGX_OK;
}


void
ngx_http_coord_session_op_user(ngx_coord_op_t *op,
    ngx_http_coord_session_state_t *state)
{
    op->u.session.user_len = state->user.len;

    ngx_memcpy(op->u.session.user, state->user.key, state->user.len);
}


ngx_int_t
ngx_http_coord_session_op_seen(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state)
{
    ngx_coord_op_t        *op;
    ngx_coord_session_t   *record;
    ngx_http_coord_ref_t   ref;

    record = &state->record;

    if (record->user_len == 0) {
        return NGX_OK;
    }

    op = ngx_http_coord_session_user_op(r, state, &ngx_coord_op_user_seen,
                                        record->user, record->user_len, &ref);

    return op ? NGX_OK : NGX_ERROR;
}


ngx_int_t
ngx_http_coord_session_record(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state, ngx_coord_op_t *op)
{
    state->source = op->source;
    state->record = op->u.session;
    state->read_at = ngx_coord_monotonic();

    ngx_str_null(&state->value);

    if (!op->u.session.bound) {
        return NGX_OK;
    }

    state->value.data = ngx_pnalloc(r->pool,
                                    ngx_max(op->u.session.value_len, 1));
    if (state->value.data == NULL) {
        return NGX_ERROR;
    }

    state->value.len = op->u.session.value_len;

    ngx_memcpy(state->value.data, op->blob, state->value.len);

    return NGX_OK;
}


ngx_uint_t
ngx_http_coord_session_differs(ngx_http_coord_session_state_t *state)
{
    /* a value that is left out is another one than that which is bound */

    return state->use->bind
           && state->record.bound
           && (state->bind.len != state->value.len
               || ngx_memcmp(state->bind.data, state->value.data,
                             state->bind.len)
                  != 0);
}


ngx_uint_t
ngx_http_coord_session_other_user(ngx_http_coord_session_state_t *state)
{
    /* none: a location without a log-in */

    return state->user.len
           && state->record.user_len
           && (state->user.len != state->record.user_len
               || ngx_memcmp(state->user.key, state->record.user,
                             state->user.len)
                  != 0);
}
