
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_session: what needs no answer.  What this node remembers of sessions,
 * and what it tells the store of them.
 */


#include "ngx_http_coord_session_state.h"


/* the life is slid when this part of it has passed */
#define NGX_HTTP_COORD_SESSION_SLIDE   60


static void ngx_http_coord_session_memory_op(ngx_coord_op_t *op,
    ngx_http_coord_session_state_t *state, const ngx_coord_op_type_t *type,
    u_char *blob);
static ngx_int_t ngx_http_coord_session_seen(
    ngx_http_coord_session_state_t *state);


/* the session for an operation on the zone's memory; blob: its value */

static void
ngx_http_coord_session_memory_op(ngx_coord_op_t *op,
    ngx_http_coord_session_state_t *state, const ngx_coord_op_type_t *type,
    u_char *blob)
{
    ngx_memzero(op, sizeof(ngx_coord_op_t));

    op->type = type;
    op->zone = state->use->zone;
    op->key_len = NGX_COORD_DIGEST_HEX_LEN;
    op->blob = blob;

    ngx_memcpy(op->key, state->key, NGX_COORD_DIGEST_HEX_LEN);
}


void
ngx_http_coord_session_remember(ngx_http_coord_session_state_t *state)
{
    ngx_coord_op_t                  op;
    ngx_http_coord_session_zone_t  *sz;

    sz = state->use->zone->data;

    if (!sz->users || ngx_coord_store_is_memory(state->use->zone->store)) {
        return;
    }

    ngx_http_coord_session_memory_op(&op, state, &ngx_coord_op_session_get,
                                     NULL);
    ngx_coord_near_run(&op);

    if (op.rc == NGX_OK && op.u.session.found) {
        state->hint.len = op.u.session.user_len;
        ngx_memcpy(state->hint.key, op.u.session.user, state->hint.len);
    }
}


void
ngx_http_coord_session_keep(ngx_http_coord_session_state_t *state)
{
    ngx_coord_op_t  op;

    if (!state->known || ngx_coord_store_is_memory(state->use->zone->store)) {
        return;
    }

    ngx_http_coord_session_memory_op(&op, state, &ngx_coord_op_session_keep,
                                     state->value.data);

    op.u.session = state->record;
    op.u.session.value_len = state->value.len;

    if (state->ended) {
        op.u.session.revoked = 1;
    }

    ngx_coord_near_run(&op);

    state->record.left = op.u.session.left;
}


/* in the index of its user the session lives on as well */

static ngx_int_t
ngx_http_coord_session_seen(ngx_http_coord_session_state_t *state)
{
    ngx_coord_op_t        *op;
    ngx_coord_session_t   *record;
    ngx_http_coord_ref_t   ref;

    record = &state->record;

    if (record->user_len == 0) {
        return NGX_OK;
    }

    op = ngx_http_coord_session_user_op(NULL, state, &ngx_coord_op_user_seen,
                                        record->user, record->user_len, &ref);

    return op ? NGX_OK : NGX_ERROR;
}


void
ngx_http_coord_session_touch(ngx_http_coord_session_state_t *state)
{
    ngx_coord_op_t        *op;
    ngx_coord_nsec_t       life;
    ngx_coord_batch_t     *batch;
    ngx_coord_session_t   *record;
    ngx_http_coord_ref_t   ref;

    record = &state->record;
    life = ngx_http_coord_session_life(state);

    if (life - record->left < ((ngx_http_coord_session_zone_t *)
                               state->use->zone->data)->ttl
                              / NGX_HTTP_COORD_SESSION_SLIDE)
    {
        return;
    }

    batch = ngx_coord_batch_create(state->use->zone->store);
    if (batch == NULL) {
        return;
    }

    state->batch = batch;

    op = ngx_http_coord_session_op(NULL, state, &ngx_coord_op_session_touch,
                                   &ref);
    if (op) {
        op->u.session.ttl = life;
    }

    (void) ngx_http_coord_session_seen(state);

    state->batch = NULL;

    (void) ngx_coord_batch_send(batch);

    record->left = life;

    ngx_http_coord_session_keep(state);
}


void
ngx_http_coord_session_write(ngx_http_coord_session_state_t *state,
    ngx_str_t *value)
{
    ngx_coord_op_t             *op, memory;
    ngx_coord_nsec_t            life;
    ngx_coord_batch_t          *batch;
    ngx_http_coord_ref_t        ref;
    const ngx_coord_op_type_t  *type;
    u_char                      blob[NGX_COORD_SESSION_VALUE_LEN];

    type = state->record.bound ? &ngx_coord_op_session_set
                               : &ngx_coord_op_session_bind;
    life = ngx_http_coord_session_life(state);

    /* the memory at once: a request may come before the answer of Redis */

    ngx_http_coord_session_memory_op(&memory, state, type, blob);

    ngx_memcpy(blob, value->data, value->len);

    memory.u.session.bound = 1;
    memory.u.session.value_len = value->len;
    memory.u.session.user_len = state->user.len;
    memory.u.session.ttl = life;

    ngx_memcpy(memory.u.session.user, state->user.key, state->user.len);

    ngx_coord_near_run(&memory);

    if (state->failed || ngx_coord_store_is_memory(state->use->zone->store)) {
        return;
    }

    batch = ngx_coord_batch_create(state->use->zone->store);
    if (batch == NULL) {
        return;
    }

    state->batch = batch;

    op = (ngx_http_coord_session_seen(state) == NGX_OK)
         ? ngx_http_coord_session_op(NULL, state, type, &ref) : NULL;

    state->batch = NULL;

    if (op == NULL || ngx_http_coord_session_ask_value(op, value) != NGX_OK) {
        ngx_coord_batch_done(batch);
        return;
    }

    op->u.session.ttl = life;

    (void) ngx_coord_batch_send(batch);
}


ngx_int_t
ngx_http_coord_session_fallback(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state)
{
    ngx_coord_op_t  op;
    u_char          blob[NGX_COORD_SESSION_VALUE_LEN];

    if (state->on_failure == NGX_COORD_FAILURE_LOCAL
        && (state->bind.len || state->use->learn == NULL))
    {
        ngx_http_coord_session_memory_op(&op, state,
                                         &ngx_coord_op_session_bind, blob);

        ngx_memcpy(blob, state->bind.data, state->bind.len);

        op.u.session.bound = (state->bind.len != 0);
        op.u.session.value_len = state->bind.len;
        op.u.session.ttl = ngx_http_coord_session_life(state);

    } else {
        ngx_http_coord_session_memory_op(&op, state, &ngx_coord_op_session_get,
                                         blob);
    }

    ngx_coord_near_run(&op);

    if (op.rc != NGX_OK
        || (!op.u.session.found
            && state->on_failure != NGX_COORD_FAILURE_LOCAL))
    {
        return NGX_DECLINED;
    }

    op.source = NGX_COORD_SOURCE_FALLBACK;
    op.failure = state->failure;

    return ngx_http_coord_session_record(r, state, &op);
}
