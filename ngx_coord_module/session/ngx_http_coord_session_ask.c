
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_session: what is asked of the store, and what it answers.  Decisions
 * are made in ngx_http_coord_session.c.
 */


#include "ngx_http_coord_session_state.h"


#define NGX_HTTP_COORD_SESSION_DIGEST  "sha256:"


static ngx_int_t ngx_http_coord_session_ask_get(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state);
static ngx_int_t ngx_http_coord_session_ask_write(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state);
static ngx_int_t ngx_http_coord_session_ask_user(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state);
static ngx_int_t ngx_http_coord_session_new_user(
    ngx_http_coord_session_state_t *state);
static ngx_coord_op_t *ngx_http_coord_session_result(
    ngx_http_coord_session_state_t *state, ngx_http_coord_ref_t ref);


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

    if (value->len <= NGX_COORD_SESSION_VALUE_LEN) {
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
ngx_http_coord_session_life(ngx_http_coord_session_state_t *state)
{
    ngx_coord_nsec_t                left;
    ngx_http_coord_session_zone_t  *sz;

    sz = state->use->zone->data;

    if (sz->absolute == 0) {
        return sz->ttl;
    }

    left = sz->absolute - (state->record.found ? state->record.age : 0);

    return ngx_min(sz->ttl, ngx_max(left, NGX_COORD_NSEC_PER_MSEC));
}


/* 1 if the session has to be put into the index of the user */

static ngx_int_t
ngx_http_coord_session_new_user(ngx_http_coord_session_state_t *state)
{
    return state->user.len
           && (state->user.len != state->record.user_len
               || ngx_memcmp(state->user.key, state->record.user,
                             state->user.len)
                  != 0);
}


ngx_http_coord_session_need_e
ngx_http_coord_session_plan(ngx_http_coord_session_state_t *state)
{
    ngx_uint_t            dry_run;
    ngx_coord_session_t  *record;

    if (state->failed || state->wrote) {
        return NGX_HTTP_COORD_SESSION_NOTHING;
    }

    if (!state->known) {
        return NGX_HTTP_COORD_SESSION_GET;
    }

    record = &state->record;
    dry_run = state->conf->dry_run;

    if (!record->found) {

        /* without anything to bind the response may bring a value */

        return (state->bind.len || state->user.len
                || state->use->learn == NULL)
               ? NGX_HTTP_COORD_SESSION_WRITE : NGX_HTTP_COORD_SESSION_NOTHING;
    }

    if (record->revoked) {
        return NGX_HTTP_COORD_SESSION_NOTHING;
    }

    if (record->user_len && !state->checked) {
        return NGX_HTTP_COORD_SESSION_CHECK;
    }

    if (state->ended) {
        return NGX_HTTP_COORD_SESSION_NOTHING;
    }

    if (!record->bound && state->bind.len) {
        return NGX_HTTP_COORD_SESSION_WRITE;
    }

    if (ngx_http_coord_session_differs(state)) {

        if (state->use->mismatch == NGX_HTTP_COORD_SESSION_REBIND) {
            return dry_run ? NGX_HTTP_COORD_SESSION_NOTHING
                           : NGX_HTTP_COORD_SESSION_WRITE;
        }

        if (state->use->mismatch == NGX_HTTP_COORD_SESSION_REJECT) {
            return NGX_HTTP_COORD_SESSION_NOTHING;
        }
    }

    return ngx_http_coord_session_new_user(state)
           ? NGX_HTTP_COORD_SESSION_WRITE : NGX_HTTP_COORD_SESSION_NOTHING;
}


ngx_int_t
ngx_http_coord_session_ask(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state)
{
    ngx_coord_op_t  *op;

    state->has_get = 0;
    state->has_check = 0;

    switch (state->need) {

    case NGX_HTTP_COORD_SESSION_GET:
        return ngx_http_coord_session_ask_get(r, state);

    case NGX_HTTP_COORD_SESSION_CHECK:
        op = ngx_http_coord_session_user_op(r, state,
                                            &ngx_coord_op_user_check,
                                            state->record.user,
                                            state->record.user_len,
                                            &state->check);
        if (op == NULL) {
            return NGX_ERROR;
        }

        state->has_check = 1;

        return NGX_OK;

    case NGX_HTTP_COORD_SESSION_WRITE:
        return ngx_http_coord_session_ask_write(r, state);

    default: /* NGX_HTTP_COORD_SESSION_NOTHING */
        return NGX_OK;
    }
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
    ngx_coord_op_t    *op;
    ngx_coord_zone_t  *zone;

    zone = state->use->zone;

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

    op->u.session.ttl = ((ngx_http_coord_session_zone_t *) zone->data)->ttl;

    ngx_memcpy(op->id, state->id, NGX_COORD_ID_LEN);

    return op;
}


static ngx_int_t
ngx_http_coord_session_ask_get(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state)
{
    ngx_coord_op_t  *op;

    op = ngx_http_coord_session_op(r, state, &ngx_coord_op_session_get,
                                   &state->get);

    if (op == NULL
        || ngx_coord_op_blob(op, NGX_COORD_SESSION_VALUE_LEN) != NGX_OK)
    {
        return NGX_ERROR;
    }

    state->has_get = 1;

    if (state->hint.len == 0) {
        ngx_http_coord_session_remember(state);
    }

    if (state->hint.len == 0) {
        return NGX_OK;
    }

    op = ngx_http_coord_session_user_op(r, state, &ngx_coord_op_user_check,
                                        state->hint.key, state->hint.len,
                                        &state->check);
    if (op == NULL) {
        return NGX_ERROR;
    }

    state->has_check = 1;

    return NGX_OK;
}


ngx_int_t
ngx_http_coord_session_ask_value(ngx_coord_op_t *op, ngx_str_t *value)
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


static ngx_int_t
ngx_http_coord_session_ask_write(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state)
{
    ngx_coord_op_t        *op;
    ngx_coord_session_t   *record;
    ngx_http_coord_ref_t   ref;

    record = &state->record;

    /* the index first: a session whose user does not have it has ended */

    if (ngx_http_coord_session_ask_user(r, state) != NGX_OK) {
        return NGX_ERROR;
    }

    if (!record->found || (!record->bound && state->bind.len)) {

        op = ngx_http_coord_session_op(r, state, &ngx_coord_op_session_bind,
                                       &state->get);

        if (op == NULL
            || ngx_http_coord_session_ask_value(op, &state->bind) != NGX_OK)
        {
            return NGX_ERROR;
        }

        op->u.session.ttl = ngx_http_coord_session_life(state);
        op->u.session.user_len = state->user.len;

        ngx_memcpy(op->u.session.user, state->user.key, state->user.len);

        state->has_get = 1;

        return NGX_OK;
    }

    if (!ngx_http_coord_session_differs(state)
        || state->use->mismatch != NGX_HTTP_COORD_SESSION_REBIND)
    {
        return NGX_OK;
    }

    op = ngx_http_coord_session_op(r, state, &ngx_coord_op_session_set, &ref);

    if (op == NULL
        || ngx_http_coord_session_ask_value(op, &state->bind) != NGX_OK)
    {
        return NGX_ERROR;
    }

    op->u.session.ttl = ngx_http_coord_session_life(state);

    state->differs = 1;

    return NGX_OK;
}


/*
 * Moves the session into the index of its user, from that of another one, or
 * slides its life there as the write does.
 */

static ngx_int_t
ngx_http_coord_session_ask_user(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state)
{
    ngx_coord_op_t        *op;
    ngx_coord_session_t   *record;
    ngx_http_coord_ref_t   ref;

    record = &state->record;

    if (!ngx_http_coord_session_new_user(state)) {

        if (record->user_len == 0) {
            return NGX_OK;
        }

        op = ngx_http_coord_session_user_op(r, state, &ngx_coord_op_user_seen,
                                            record->user, record->user_len,
                                            &ref);

        return op ? NGX_OK : NGX_ERROR;
    }

    op = ngx_http_coord_session_user_op(r, state, &ngx_coord_op_user_add,
                                        state->user.key, state->user.len,
                                        &ref);
    if (op == NULL) {
        return NGX_ERROR;
    }

    op->u.session.max = state->use->max_per_user;

    if (!record->found) {
        return NGX_OK;
    }

    if (record->user_len) {
        op = ngx_http_coord_session_user_op(r, state, &ngx_coord_op_user_drop,
                                            record->user, record->user_len,
                                            &ref);
        if (op == NULL) {
            return NGX_ERROR;
        }
    }

    op = ngx_http_coord_session_op(r, state, &ngx_coord_op_session_set, &ref);

    if (op == NULL
        || ngx_coord_op_blob(op, NGX_COORD_SESSION_VALUE_LEN) != NGX_OK)
    {
        return NGX_ERROR;
    }

    op->u.session.ttl = ngx_http_coord_session_life(state);
    op->u.session.user_len = state->user.len;

    ngx_memcpy(op->u.session.user, state->user.key, state->user.len);

    return NGX_OK;
}


static ngx_coord_op_t *
ngx_http_coord_session_result(ngx_http_coord_session_state_t *state,
    ngx_http_coord_ref_t ref)
{
    return state->batch ? &state->batch->ops[ref.op]
                        : ngx_http_coord_op(state->ctx, ref);
}


ngx_int_t
ngx_http_coord_session_take(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state)
{
    ngx_coord_op_t       *op;
    ngx_coord_session_t  *record;

    record = &state->record;

    if (state->has_get) {
        op = ngx_http_coord_session_result(state, state->get);

        if (ngx_http_coord_session_record(r, state, op) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    if (state->has_check && !state->failed) {
        op = ngx_http_coord_session_result(state, state->check);

        if (op->rc != NGX_OK) {
            state->failed = 1;
            state->failure = op->failure;

        } else if (record->found
                   && record->user_len == op->key_len
                   && ngx_memcmp(record->user, op->key, op->key_len) == 0)
        {
            state->checked = 1;
            state->ended = !op->u.session.found;
        }
    }

    if (state->need == NGX_HTTP_COORD_SESSION_WRITE && !state->failed) {
        state->wrote = 1;
        state->checked = 1;

        if (state->user.len) {
            record->user_len = state->user.len;
            ngx_memcpy(record->user, state->user.key, state->user.len);
        }

        if (state->differs) {
            state->value = state->bind;
        }
    }

    if (!state->failed) {
        ngx_http_coord_session_keep(state);
    }

    return NGX_OK;
}


/* copies the answer to GET or BIND */

ngx_int_t
ngx_http_coord_session_record(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state, ngx_coord_op_t *op)
{
    state->source = op->source;
    state->failure = op->failure;

    if (op->rc != NGX_OK) {
        state->failed = 1;
        return NGX_OK;
    }

    state->known = 1;
    state->record = op->u.session;

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
