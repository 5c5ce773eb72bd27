
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_session: what the response tells.  A session that it names, or whose
 * user it names, is stored before its header leaves: the next request of the
 * client may come to any node.
 */


#include "ngx_http_coord_session_state.h"


typedef ngx_int_t (*ngx_http_coord_session_round_pt)(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state);


static ngx_int_t ngx_http_coord_session_key(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state, ngx_str_t *key);
static ngx_int_t ngx_http_coord_session_next(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state, ngx_str_t *key, ngx_str_t *next);
static ngx_uint_t ngx_http_coord_session_same(
    ngx_http_coord_session_state_t *state, ngx_str_t *key);
static ngx_uint_t ngx_http_coord_session_tells(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state, ngx_uint_t named);
static ngx_http_coord_session_state_t *ngx_http_coord_session_named(
    ngx_http_request_t *r, ngx_http_coord_session_client_t *client,
    ngx_str_t *key, ngx_str_t *next);
static void ngx_http_coord_session_moved(
    ngx_http_coord_session_state_t *state,
    ngx_http_coord_session_state_t *old, ngx_str_t *next);
static ngx_int_t ngx_http_coord_session_store(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state);
static ngx_uint_t ngx_http_coord_session_wrong(
    ngx_http_coord_session_state_t *state);
static ngx_uint_t ngx_http_coord_session_leaves(
    ngx_http_coord_session_state_t *state);
static ngx_int_t ngx_http_coord_session_leave(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state);
static ngx_int_t ngx_http_coord_session_send(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state,
    ngx_http_coord_session_round_pt round);
static void ngx_http_coord_session_stored(ngx_coord_batch_t *batch);
static ngx_int_t ngx_http_coord_session_stands(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state);


ngx_int_t
ngx_http_coord_session_response(ngx_http_request_t *r,
    ngx_http_coord_session_client_t *client)
{
    ngx_int_t                        rc;
    ngx_str_t                        key, next;
    ngx_http_coord_session_state_t  *state;

    state = client->state;

    if (!ngx_http_coord_session_passed(state)) {
        return NGX_OK;
    }

    if (ngx_http_coord_session_key(r, state, &key) != NGX_OK
        || ngx_http_coord_session_next(r, state, &key, &next) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (key.len == 0) {
        ngx_http_coord_session_learn(r, state);
        return NGX_OK;
    }

    client->hold.request = r;

    state = ngx_http_coord_session_named(r, client, &key, &next);
    if (state == NULL) {
        return NGX_ERROR;
    }

    rc = ngx_http_coord_session_store(r, state);

    if (rc == NGX_AGAIN && !ngx_http_coord_hold_can(r)) {

        /* an upgraded connection: it is on its way before the response is */

        ngx_coord_store_push(state->use->zone->store);

        return NGX_OK;
    }

    return rc;
}


/*
 * The key of the session that the response creates, or of that of the request
 * if the response tells what has to be known of it; empty: neither.
 */

static ngx_int_t
ngx_http_coord_session_key(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state, ngx_str_t *key)
{
    ngx_uint_t  named;

    ngx_str_null(key);

    named = 0;

    if (state->use->create) {

        if (ngx_http_complex_value(r, state->use->create, key) != NGX_OK) {
            return NGX_ERROR;
        }

        named = (key->len != 0);

        if (named && !ngx_http_coord_session_same(state, key)) {
            return NGX_OK;
        }
    }

    if (ngx_http_coord_session_tells(r, state, named)) {
        *key = state->text;

    } else {
        ngx_str_null(key);
    }

    return NGX_OK;
}


/*
 * The id that the client gets in place of its own, and the key that moves with
 * it; one that the response names has nothing to do with it.
 */

static ngx_int_t
ngx_http_coord_session_next(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state, ngx_str_t *key, ngx_str_t *next)
{
    u_char     *p;
    ngx_int_t   rc;
    ngx_str_t   old;

    rc = ngx_http_coord_session_cookie_next(r, &old, next);

    if (rc != NGX_OK) {
        ngx_str_null(next);
        return (rc == NGX_DECLINED) ? NGX_OK : NGX_ERROR;
    }

    p = ngx_http_coord_session_cookie_in(&state->text, &old);

    if (p == NULL || (key->len && !ngx_http_coord_session_same(state, key))) {
        rc = ngx_http_coord_session_cookie_rotate(r, next);
        ngx_str_null(next);
        return rc;
    }

    if (!ngx_http_coord_hold_can(r)
        && !ngx_coord_store_is_memory(state->use->zone->store))
    {
        /* the header would be gone before it is known to have moved */

        ngx_str_null(next);
        return NGX_OK;
    }

    key->len = state->text.len;
    key->data = ngx_pstrdup(r->pool, &state->text);

    if (key->data == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(key->data + (p - state->text.data), next->data, next->len);

    return NGX_OK;
}


static ngx_uint_t
ngx_http_coord_session_same(ngx_http_coord_session_state_t *state,
    ngx_str_t *key)
{
    return state->text.len == key->len
           && ngx_memcmp(state->text.data, key->data, key->len) == 0;
}


/* 1 if the response tells the value, or the user, of the request's session */

static ngx_uint_t
ngx_http_coord_session_tells(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state, ngx_uint_t named)
{
    ngx_str_t  user;

    if (state->step != NGX_COORD_SESSION_PASSED
        || (state->outcome != NGX_COORD_OUTCOME_NEW
            && state->outcome != NGX_COORD_OUTCOME_BOUND)
        || (state->failure && state->on_failure != NGX_COORD_FAILURE_LOCAL)
        || r->headers_out.status >= NGX_HTTP_BAD_REQUEST)
    {
        return 0;
    }

    if (named && !state->record.bound) {
        return 1;
    }

    if (state->use->user == NULL
        || state->user.text.len
        || state->record.user_len)
    {
        return 0;
    }

    return ngx_http_complex_value(r, state->use->user, &user) == NGX_OK
           && user.len;
}


/* that session, as it is to be from now on */

static ngx_http_coord_session_state_t *
ngx_http_coord_session_named(ngx_http_request_t *r,
    ngx_http_coord_session_client_t *client, ngx_str_t *key, ngx_str_t *next)
{
    ngx_http_coord_session_state_t  *state, *old;

    old = client->state;

    state = ngx_http_coord_session_create(r, old->ctx, old->conf);

    if (state == NULL || ngx_http_coord_session_name(state, key) != NGX_OK) {
        return NULL;
    }

    state->on_failure = old->on_failure;

    if (ngx_http_coord_session_identity(r, state) != NGX_OK) {
        return NULL;
    }

    if (state->bind.len == 0
        && state->use->learn
        && ngx_http_coord_session_taught(r, state, &state->bind) != NGX_OK)
    {
        return NULL;
    }

    if (ngx_http_coord_session_same(old, key)) {
        state->record = old->record;
        state->value = old->value;
        state->read_at = old->read_at;

    } else {
        state->named = 1;
    }

    if (next->len) {
        ngx_http_coord_session_moved(state, old, next);
    }

    return (ngx_http_coord_session_step(state, NGX_COORD_SESSION_KNOWN)
            == NGX_OK)
           ? state : NULL;
}


/* what the session was under its old id it is under the new one */

static void
ngx_http_coord_session_moved(ngx_http_coord_session_state_t *state,
    ngx_http_coord_session_state_t *old, ngx_str_t *next)
{
    state->from = old;
    state->next = *next;
    state->carried = ngx_http_coord_session_age(old);

    if (old->value.len && old->step != NGX_COORD_SESSION_MOVING) {
        state->bind = old->value;
    }

    if (state->user.len == 0) {
        state->user.len = old->record.user_len;
        ngx_memcpy(state->user.key, old->record.user, old->record.user_len);
    }
}


/* NGX_OK: what stands is known; NGX_AGAIN: called again when it is */

static ngx_int_t
ngx_http_coord_session_store(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state)
{
    ngx_int_t  rc;

    for ( ;; ) {

        if (ngx_http_coord_session_take(r, state) != NGX_OK) {
            return NGX_ERROR;
        }

        if (state->batch) {
            ngx_coord_batch_done(state->batch);
            state->batch = NULL;
        }

        if (state->step == NGX_COORD_SESSION_KNOWN
            || state->step == NGX_COORD_SESSION_SEATED)
        {
            rc = ngx_http_coord_session_send(r, state,
                                             ngx_http_coord_session_tell);

        } else if (ngx_http_coord_session_wrong(state)) {
            rc = ngx_http_coord_session_send(r, state,
                                             ngx_http_coord_session_correct);

        } else if (ngx_http_coord_session_leaves(state)) {
            rc = ngx_http_coord_session_send(r, state,
                                             ngx_http_coord_session_leave);

        } else {
            return ngx_http_coord_session_stands(r, state);
        }

        if (rc != NGX_OK) {
            return rc;
        }
    }
}


/* 1 if another value stands: who names the session knows better */

static ngx_uint_t
ngx_http_coord_session_wrong(ngx_http_coord_session_state_t *state)
{
    return state->step == NGX_COORD_SESSION_WRITTEN
           && state->named
           && state->bind.len
           && (state->bind.len != state->value.len
               || ngx_memcmp(state->bind.data, state->value.data,
                             state->bind.len)
                  != 0);
}


/* 1 if the old id is still to be ended */

static ngx_uint_t
ngx_http_coord_session_leaves(ngx_http_coord_session_state_t *state)
{
    return state->step == NGX_COORD_SESSION_WRITTEN && state->from;
}


static ngx_int_t
ngx_http_coord_session_leave(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state)
{
    ngx_coord_op_t                  *op;
    ngx_coord_zone_t                *zone;
    ngx_http_coord_session_state_t  *from;

    from = state->from;
    state->from = NULL;

    if (ngx_http_coord_session_cookie_rotate(r, &state->next) != NGX_OK) {
        return NGX_ERROR;
    }

    /* an answer is waited for, and if there is none it is asked for again */

    ngx_http_coord_session_mark_moved(from);

    zone = state->use->zone;

    op = ngx_coord_batch_add(state->batch, &ngx_coord_op_session_revoke, zone,
                             from->key, NGX_COORD_DIGEST_HEX_LEN);
    if (op == NULL) {
        return NGX_ERROR;
    }

    op->u.session.ttl = ngx_http_coord_session_revoked(zone->data);
    op->u.session.moved = 1;

    return NGX_OK;
}


static ngx_int_t
ngx_http_coord_session_send(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state,
    ngx_http_coord_session_round_pt round)
{
    state->batch = ngx_coord_batch_create(state->use->zone->store);

    if (state->batch == NULL || round(r, state) != NGX_OK) {
        return NGX_ERROR;
    }

    state->batch->handler = ngx_http_coord_session_stored;
    state->batch->data = state;

    return ngx_coord_batch_send(state->batch);
}


static void
ngx_http_coord_session_stored(ngx_coord_batch_t *batch)
{
    ngx_http_coord_session_state_t *state = batch->data;

    ngx_http_coord_session_client_t  *client;

    client = state->ctx->state[ngx_http_coord_session_feature.slot];

    if (ngx_http_coord_session_store(client->hold.request, state)
        != NGX_AGAIN)
    {
        ngx_http_coord_hold_release(&client->hold);
    }
}


/* what the variables tell, and what the session is good for from now on */

static ngx_int_t
ngx_http_coord_session_stands(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state)
{
    switch (state->step) {

    case NGX_COORD_SESSION_ENDED:
        state->outcome = NGX_COORD_OUTCOME_REVOKED;
        break;

    case NGX_COORD_SESSION_FULL:

        /* it has begun, and must not go on */

        state->outcome = NGX_COORD_OUTCOME_NONE;

        ngx_http_coord_session_mark(state);
        ngx_http_coord_session_log(r, state, NGX_HTTP_COORD_SESSION_TOO_MANY);
        break;

    case NGX_COORD_SESSION_FAILED:

        /* the request has been served: this node at least remembers */

        state->outcome = NGX_COORD_OUTCOME_BYPASSED;
        state->value = state->bind;

        if (state->from) {

            /* nobody is told of its new id */

            if (state->user.len) {
                ngx_http_coord_session_withdraw(state);
            }

        } else if (state->bind.len) {
            ngx_http_coord_session_write(state, &state->bind);
        }

        ngx_coord_metrics_decision(state->use->zone, state->outcome);
        break;

    default: /* NGX_COORD_SESSION_WRITTEN */
        state->outcome = state->record.created ? NGX_COORD_OUTCOME_NEW
                                               : NGX_COORD_OUTCOME_BOUND;

        if (state->named) {
            ngx_coord_metrics_decision(state->use->zone, state->outcome);
        }

        break;
    }

    return (ngx_http_coord_session_pass(r, state) == NGX_ERROR) ? NGX_ERROR
                                                                : NGX_OK;
}
