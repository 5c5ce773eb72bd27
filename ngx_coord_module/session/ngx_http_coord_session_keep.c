
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_session: what needs no answer.  What this node remembers of sessions,
 * and what it tells the store of them.
 */


#include "ngx_http_coord_session_state.h"
#include "ngx_coord_giveback.h"
#include "ngx_coord_wake.h"


static void ngx_http_coord_session_memory_op(ngx_coord_op_t *op,
    ngx_http_coord_session_state_t *state, const ngx_coord_op_type_t *type,
    u_char *blob);
static void ngx_http_coord_session_give_up(
    ngx_http_coord_session_state_t *state, const ngx_coord_op_type_t *type,
    u_char *user, size_t len);
static void ngx_http_coord_session_mark_id(ngx_coord_zone_t *zone, u_char *id,
    ngx_uint_t moved);


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
    ngx_uint_t       found;
    ngx_coord_op_t   op;

    if (ngx_coord_store_is_memory(state->use->zone->store)) {
        return;
    }

    found = state->record.found;

    ngx_http_coord_session_memory_op(&op, state, &ngx_coord_op_session_keep,
                                     state->value.data);

    op.u.session = state->record;
    op.u.session.value_len = state->value.len;

    ngx_coord_near_run(&op);

    state->record.left = op.u.session.left;
    state->record.unsent = op.u.session.unsent;

    if (!found && op.u.session.revoked) {

        /* Redis has forgotten it */

        state->record = op.u.session;
        ngx_http_coord_session_mark(state);
    }
}


void
ngx_http_coord_session_touch(ngx_http_coord_session_state_t *state)
{
    ngx_coord_op_t                 *op;
    ngx_coord_nsec_t                life, now;
    ngx_coord_batch_t              *batch;
    ngx_http_coord_ref_t            ref;
    ngx_http_coord_session_zone_t  *sz;

    if (ngx_http_coord_session_known(state)) {
        return;
    }

    sz = state->use->zone->data;
    now = ngx_coord_monotonic();
    life = ngx_http_coord_session_life(state);

    if (ngx_http_coord_session_expired(state)
        || life - (state->record.left - (now - state->read_at))
           < sz->ttl / NGX_HTTP_COORD_SESSION_SLIDE)
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

    (void) ngx_http_coord_session_op_seen(NULL, state);

    state->batch = NULL;

    (void) ngx_coord_batch_send(batch);

    state->record.age = ngx_http_coord_session_age(state);
    state->record.left = life;
    state->read_at = now;

    ngx_http_coord_session_keep(state);
    ngx_http_coord_session_note(state);
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
    memory.u.session.ttl = life;

    /* the place in the index of a user may be another one's by then */

    memory.u.session.unsent = (state->named
                               && state->failure
                               && state->user.len == 0);

    ngx_http_coord_session_op_user(&memory, state);

    ngx_coord_near_run(&memory);

    if (state->failure || ngx_coord_store_is_memory(state->use->zone->store)) {
        return;
    }

    batch = ngx_coord_batch_create(state->use->zone->store);
    if (batch == NULL) {
        return;
    }

    state->batch = batch;

    op = (ngx_http_coord_session_op_seen(NULL, state) == NGX_OK)
         ? ngx_http_coord_session_op(NULL, state, type, &ref) : NULL;

    state->batch = NULL;

    if (op == NULL || ngx_http_coord_session_op_value(op, value) != NGX_OK) {
        ngx_coord_batch_done(batch);
        return;
    }

    op->u.session.ttl = life;

    (void) ngx_coord_batch_send(batch);

    /* it stands for a request that comes after the response */

    ngx_coord_store_push(state->use->zone->store);
}


ngx_int_t
ngx_http_coord_session_resend(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state)
{
    u_char                 blob[NGX_COORD_SESSION_VALUE_LEN];
    ngx_coord_op_t        *op, memory;
    ngx_coord_batch_t     *batch;
    ngx_http_coord_ref_t   ref;

    ngx_http_coord_session_memory_op(&memory, state, &ngx_coord_op_session_get,
                                     blob);
    ngx_coord_near_run(&memory);

    if (memory.rc != NGX_OK || !memory.u.session.found) {
        return NGX_OK;
    }

    memory.source = state->source;

    if (ngx_http_coord_session_record(r, state, &memory) != NGX_OK) {
        return NGX_ERROR;
    }

    batch = ngx_coord_batch_create(state->use->zone->store);
    if (batch == NULL) {
        return NGX_ERROR;
    }

    state->batch = batch;

    op = ngx_http_coord_session_op(NULL, state, &ngx_coord_op_session_bind,
                                   &ref);

    state->batch = NULL;

    if (op == NULL
        || ngx_http_coord_session_op_value(op, &state->value) != NGX_OK)
    {
        ngx_coord_batch_done(batch);
        return NGX_ERROR;
    }

    op->u.session.ttl = ngx_http_coord_session_life(state);
    op->u.session.age = ngx_http_coord_session_age(state);

    (void) ngx_coord_batch_send(batch);

    return NGX_OK;
}


void
ngx_http_coord_session_withdraw(ngx_http_coord_session_state_t *state)
{
    ngx_http_coord_session_give_up(state, &ngx_coord_op_user_drop,
                                   state->user.key, state->user.len);
}


void
ngx_http_coord_session_unseat(ngx_http_coord_session_state_t *state)
{
    ngx_http_coord_session_give_up(state, &ngx_coord_op_user_unseat,
                                   state->user.key, state->user.len);
}


static void
ngx_http_coord_session_give_up(ngx_http_coord_session_state_t *state,
    const ngx_coord_op_type_t *type, u_char *user, size_t len)
{
    ngx_coord_op_t                  op;
    ngx_http_coord_session_zone_t  *sz;

    sz = state->use->zone->data;

    ngx_memzero(&op, sizeof(ngx_coord_op_t));

    op.type = type;
    op.zone = state->use->zone;
    op.u.session.ttl = sz->ttl;
    op.u.session.seated = state->seated_at;
    op.key_len = len;

    ngx_memcpy(op.key, user, len);
    ngx_memcpy(op.id, state->id, NGX_COORD_ID_LEN);

    if (ngx_coord_store_is_memory(op.zone->store)) {
        ngx_coord_near_run(&op);
        return;
    }

    ngx_coord_giveback_op(&op, sz->ttl);
}


void
ngx_http_coord_session_mark(ngx_http_coord_session_state_t *state)
{
    ngx_http_coord_session_mark_id(state->use->zone, state->id, 0);
}


void
ngx_http_coord_session_mark_moved(ngx_http_coord_session_state_t *state)
{
    ngx_http_coord_session_mark_id(state->use->zone, state->id, 1);

    if (state->record.user_len) {
        ngx_http_coord_session_give_up(state, &ngx_coord_op_user_drop,
                                       state->record.user,
                                       state->record.user_len);
    }
}


void
ngx_http_coord_session_mark_all(ngx_coord_zone_t *zone,
    ngx_coord_session_item_t *items, ngx_uint_t n)
{
    ngx_uint_t  i;

    for (i = 0; i < n; i++) {
        ngx_http_coord_session_mark_id(zone, items[i].id, 0);
    }
}


/* an end has to be known, whatever becomes of the store just now */

static void
ngx_http_coord_session_mark_id(ngx_coord_zone_t *zone, u_char *id,
    ngx_uint_t moved)
{
    ngx_coord_op_t  op, memory;

    ngx_memzero(&op, sizeof(ngx_coord_op_t));

    op.type = &ngx_coord_op_session_revoke;
    op.zone = zone;
    op.u.session.ttl = ngx_http_coord_session_revoked(zone->data);
    op.u.session.moved = moved;
    op.key_len = NGX_COORD_DIGEST_HEX_LEN;

    op.key[0] = '~';
    ngx_hex_dump(op.key + 1, id, NGX_COORD_ID_LEN);

    /* what this node remembers ends as well */

    memory = op;
    ngx_coord_near_run(&memory);

    if (ngx_coord_store_is_memory(zone->store)) {
        ngx_coord_wake(zone, op.key, op.key_len);
        return;
    }

    ngx_coord_giveback_op(&op, op.u.session.ttl);
}


ngx_int_t
ngx_http_coord_session_recall(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state)
{
    u_char          blob[NGX_COORD_SESSION_VALUE_LEN];
    ngx_uint_t      local;
    ngx_coord_op_t  op;

    local = (state->on_failure == NGX_COORD_FAILURE_LOCAL
             && state->use->unknown != NGX_HTTP_COORD_SESSION_REJECT);

    if (local && (state->bind.len || state->use->learn == NULL)) {
        ngx_http_coord_session_memory_op(&op, state,
                                         &ngx_coord_op_session_bind, blob);

        ngx_memcpy(blob, state->bind.data, state->bind.len);

        op.u.session.bound = (state->bind.len != 0);
        op.u.session.value_len = state->bind.len;
        op.u.session.ttl = ngx_http_coord_session_life(state);

    } else {
        ngx_http_coord_session_memory_op(&op, state,
                                         &ngx_coord_op_session_get, blob);
    }

    ngx_coord_near_run(&op);

    if (op.rc != NGX_OK || (!op.u.session.found && !local)) {
        return NGX_DECLINED;
    }

    op.source = NGX_COORD_SOURCE_FALLBACK;

    if (ngx_http_coord_session_record(r, state, &op) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_http_coord_session_step(state, NGX_COORD_SESSION_RECALLED);
}
