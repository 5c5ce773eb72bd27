
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_session: what is asked of the store before a request is decided, and
 * what it answers.  Decisions are made in ngx_http_coord_session.c.
 */


#include "ngx_http_coord_session_state.h"


static ngx_uint_t ngx_http_coord_session_to_write(
    ngx_http_coord_session_state_t *state);
static ngx_uint_t ngx_http_coord_session_to_move(
    ngx_http_coord_session_state_t *state);
static void ngx_http_coord_session_unasked(
    ngx_http_coord_session_state_t *state);
static ngx_int_t ngx_http_coord_session_read(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state);
static ngx_uint_t ngx_http_coord_session_to_seat(
    ngx_http_coord_session_state_t *state);
static ngx_uint_t ngx_http_coord_session_places(
    ngx_http_coord_session_state_t *state);
static ngx_int_t ngx_http_coord_session_tell_seat(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state);
static ngx_int_t ngx_http_coord_session_tell_user(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state);
static ngx_int_t ngx_http_coord_session_tell_add(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state);
static ngx_int_t ngx_http_coord_session_tell_bind(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state);
static ngx_int_t ngx_http_coord_session_tell_set(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state);
static ngx_int_t ngx_http_coord_session_was_read(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state);
static ngx_int_t ngx_http_coord_session_was_seated(
    ngx_http_coord_session_state_t *state);
static ngx_int_t ngx_http_coord_session_was_told(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state);
static void ngx_http_coord_session_evicted(
    ngx_http_coord_session_state_t *state);
static ngx_int_t ngx_http_coord_session_failed(
    ngx_http_coord_session_state_t *state, ngx_coord_op_t *op);


ngx_uint_t
ngx_http_coord_session_pending(ngx_http_coord_session_state_t *state)
{
    switch (state->step) {

    case NGX_COORD_SESSION_NAMED:
    case NGX_COORD_SESSION_UNSURE:
    case NGX_COORD_SESSION_SEATED:
        return 1;

    case NGX_COORD_SESSION_KNOWN:
        return ngx_http_coord_session_to_write(state);

    default:
        return 0;
    }
}


/* 1 if there is something to bind before the request goes on */

static ngx_uint_t
ngx_http_coord_session_to_write(ngx_http_coord_session_state_t *state)
{
    ngx_coord_session_t           *record;
    ngx_http_coord_session_use_t  *use;

    use = state->use;
    record = &state->record;

    if (!record->found) {

        if (use->unknown == NGX_HTTP_COORD_SESSION_REJECT) {
            return 0;
        }

        /* without anything to bind the response may bring a value */

        return state->bind.len || state->user.len || use->learn == NULL;
    }

    if (ngx_http_coord_session_differs(state)
        || ngx_http_coord_session_other_user(state))
    {
        if (use->mismatch == NGX_HTTP_COORD_SESSION_REJECT) {
            return 0;
        }

        if (ngx_http_coord_session_to_move(state)) {
            return 1;
        }
    }

    return (!record->bound && state->bind.len)
           || (record->user_len == 0 && state->user.len);
}


/* 1 if a mismatch rebinds; nothing is bound to a value that is left out */

static ngx_uint_t
ngx_http_coord_session_to_move(ngx_http_coord_session_state_t *state)
{
    return state->use->mismatch == NGX_HTTP_COORD_SESSION_REBIND
           && !state->conf->limiter.dry_run
           && (!ngx_http_coord_session_differs(state) || state->bind.len);
}


ngx_int_t
ngx_http_coord_session_ask(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state)
{
    if (!ngx_http_coord_session_pending(state)) {
        return NGX_OK;
    }

    return (state->step == NGX_COORD_SESSION_KNOWN
            || state->step == NGX_COORD_SESSION_SEATED)
           ? ngx_http_coord_session_tell(r, state)
           : ngx_http_coord_session_read(r, state);
}


/* nothing has been asked in this round */

static void
ngx_http_coord_session_unasked(ngx_http_coord_session_state_t *state)
{
    state->get.op = NGX_HTTP_COORD_SESSION_UNASKED;
    state->check.op = NGX_HTTP_COORD_SESSION_UNASKED;
    state->add.op = NGX_HTTP_COORD_SESSION_UNASKED;
}


/* asks for the record, and whether the user who may have it does */

static ngx_int_t
ngx_http_coord_session_read(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state)
{
    ngx_coord_op_t             *op;
    const ngx_coord_op_type_t  *type;

    ngx_http_coord_session_unasked(state);

    if (state->step == NGX_COORD_SESSION_UNSURE) {
        state->hint.len = state->record.user_len;
        ngx_memcpy(state->hint.key, state->record.user, state->hint.len);

    } else if (state->hint.len == 0) {
        ngx_http_coord_session_remember(state);
    }

    type = (state->step != NGX_COORD_SESSION_UNSURE
            && ngx_http_coord_session_known(state))
           ? &ngx_coord_op_session_peek : &ngx_coord_op_session_get;

    op = ngx_http_coord_session_op(r, state, type, &state->get);

    if (op == NULL
        || ngx_coord_op_blob(op, NGX_COORD_SESSION_VALUE_LEN) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (state->hint.len) {
        op = ngx_http_coord_session_user_op(r, state, &ngx_coord_op_user_check,
                                            state->hint.key, state->hint.len,
                                            &state->check);
        if (op == NULL) {
            return NGX_ERROR;
        }
    }

    return ngx_http_coord_session_step(state, NGX_COORD_SESSION_READING);
}


ngx_int_t
ngx_http_coord_session_tell(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state)
{
    ngx_int_t             rc;
    ngx_coord_session_t  *record;

    record = &state->record;

    ngx_http_coord_session_unasked(state);

    if (ngx_http_coord_session_to_seat(state)) {
        return ngx_http_coord_session_tell_seat(r, state);
    }

    /* the index first: a session whose user does not have it has ended */

    rc = ngx_http_coord_session_tell_user(r, state);

    if (rc == NGX_OK
        && (!record->found || (!record->bound && state->bind.len)))
    {
        rc = ngx_http_coord_session_tell_bind(r, state);

    } else if (rc == NGX_OK
               && ngx_http_coord_session_differs(state)
               && ngx_http_coord_session_to_move(state))
    {
        rc = ngx_http_coord_session_tell_set(r, state);
    }

    if (rc != NGX_OK) {
        return rc;
    }

    return ngx_http_coord_session_step(state, NGX_COORD_SESSION_WRITING);
}


/*
 * 1 if its user may have no place for it, or may not be told of it although it
 * is written: he is asked before.
 */

static ngx_uint_t
ngx_http_coord_session_to_seat(ngx_http_coord_session_state_t *state)
{
    return (state->use->over == NGX_HTTP_COORD_SESSION_REJECT
            || ngx_coord_store_apart(state->use->zone->store))
           && state->user.len
           && !state->seated
           && (state->record.user_len == 0
               || (ngx_http_coord_session_other_user(state)
                   && ngx_http_coord_session_to_move(state)));
}


/* one that moves has its old place as well until it is told that it has */

static ngx_uint_t
ngx_http_coord_session_places(ngx_http_coord_session_state_t *state)
{
    ngx_coord_session_t  *old;

    if (state->from == NULL || state->use->max_per_user == 0) {
        return state->use->max_per_user;
    }

    old = &state->from->record;

    return state->use->max_per_user
           + (old->user_len == state->user.len
              && ngx_memcmp(old->user, state->user.key, old->user_len) == 0);
}


static ngx_int_t
ngx_http_coord_session_tell_seat(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state)
{
    ngx_coord_op_t  *op;

    if (state->use->over == NGX_HTTP_COORD_SESSION_REJECT) {
        op = ngx_http_coord_session_user_op(r, state, &ngx_coord_op_user_seat,
                                            state->user.key, state->user.len,
                                            &state->add);
        if (op == NULL) {
            return NGX_ERROR;
        }

        op->u.session.max = ngx_http_coord_session_places(state);

    } else if (ngx_http_coord_session_tell_add(r, state) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_http_coord_session_step(state, NGX_COORD_SESSION_SEATING);
}


/*
 * Puts the session into the index of its user, and moves it there from that of
 * another one, which gives it up last; or slides its life there as the write
 * does.
 */

static ngx_int_t
ngx_http_coord_session_tell_user(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state)
{
    ngx_uint_t             other;
    ngx_coord_op_t        *op;
    ngx_coord_session_t   *record;
    ngx_http_coord_ref_t   ref;

    record = &state->record;

    other = ngx_http_coord_session_other_user(state)
            && ngx_http_coord_session_to_move(state);

    if (record->user_len && !other) {
        return ngx_http_coord_session_op_seen(r, state);
    }

    if (state->user.len == 0) {
        return NGX_OK;
    }

    /* one that is seated is bound now: its seat is not given back any more */

    if ((!state->seated || state->use->over == NGX_HTTP_COORD_SESSION_REJECT)
        && ngx_http_coord_session_tell_add(r, state) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (!record->found) {
        return NGX_OK;
    }

    op = ngx_http_coord_session_op(r, state, &ngx_coord_op_session_set, &ref);

    if (op == NULL
        || ngx_coord_op_blob(op, NGX_COORD_SESSION_VALUE_LEN) != NGX_OK)
    {
        return NGX_ERROR;
    }

    op->u.session.ttl = ngx_http_coord_session_life(state);

    ngx_http_coord_session_op_user(op, state);

    if (!other) {
        return NGX_OK;
    }

    op = ngx_http_coord_session_user_op(r, state, &ngx_coord_op_user_drop,
                                        record->user, record->user_len, &ref);

    return op ? NGX_OK : NGX_ERROR;
}


static ngx_int_t
ngx_http_coord_session_tell_add(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state)
{
    ngx_uint_t       max;
    ngx_coord_op_t  *op;

    max = (state->use->over == NGX_HTTP_COORD_SESSION_REJECT)
          ? 0 : ngx_http_coord_session_places(state);

    op = ngx_http_coord_session_user_op(r, state, &ngx_coord_op_user_add,
                                        state->user.key, state->user.len,
                                        &state->add);
    if (op == NULL
        || (max
            && ngx_coord_op_blob(op, NGX_COORD_SESSION_LIST
                                     * sizeof(ngx_coord_session_item_t))
               != NGX_OK))
    {
        return NGX_ERROR;
    }

    op->u.session.max = max;

    return NGX_OK;
}


static ngx_int_t
ngx_http_coord_session_tell_bind(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state)
{
    ngx_coord_op_t  *op;

    op = ngx_http_coord_session_op(r, state, &ngx_coord_op_session_bind,
                                   &state->get);

    if (op == NULL
        || ngx_http_coord_session_op_value(op, &state->bind) != NGX_OK)
    {
        return NGX_ERROR;
    }

    op->u.session.ttl = ngx_http_coord_session_life(state);
    op->u.session.age = state->carried;

    ngx_http_coord_session_op_user(op, state);

    return NGX_OK;
}


static ngx_int_t
ngx_http_coord_session_tell_set(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state)
{
    ngx_coord_op_t        *op;
    ngx_http_coord_ref_t   ref;

    op = ngx_http_coord_session_op(r, state, &ngx_coord_op_session_set, &ref);

    if (op == NULL
        || ngx_http_coord_session_op_value(op, &state->bind) != NGX_OK)
    {
        return NGX_ERROR;
    }

    op->u.session.ttl = ngx_http_coord_session_life(state);

    return NGX_OK;
}


ngx_int_t
ngx_http_coord_session_correct(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state)
{
    ngx_http_coord_session_unasked(state);

    if (ngx_http_coord_session_tell_set(r, state) != NGX_OK) {
        return NGX_ERROR;
    }

    state->value = state->bind;

    return ngx_http_coord_session_step(state, NGX_COORD_SESSION_WRITING);
}


ngx_int_t
ngx_http_coord_session_take(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state)
{
    switch (state->step) {

    case NGX_COORD_SESSION_READING:
        return ngx_http_coord_session_was_read(r, state);

    case NGX_COORD_SESSION_SEATING:
        return ngx_http_coord_session_was_seated(state);

    case NGX_COORD_SESSION_WRITING:
        return ngx_http_coord_session_was_told(r, state);

    default:
        return NGX_OK;
    }
}


static ngx_int_t
ngx_http_coord_session_was_read(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state)
{
    ngx_coord_op_t            *get, *check;
    ngx_coord_session_t       *record;
    ngx_coord_session_step_e   step;

    get = ngx_http_coord_session_result(state, state->get);
    check = ngx_http_coord_session_result(state, state->check);

    if (get->rc != NGX_OK) {
        return ngx_http_coord_session_failed(state, get);
    }

    if (check && check->rc != NGX_OK) {
        return ngx_http_coord_session_failed(state, check);
    }

    if (ngx_http_coord_session_record(r, state, get) != NGX_OK) {
        return NGX_ERROR;
    }

    record = &state->record;
    step = NGX_COORD_SESSION_KNOWN;

    if (record->damaged) {
        ngx_coord_metrics_decision(state->use->zone,
                                   NGX_COORD_OUTCOME_DAMAGED);
    }

    if (record->found && !record->revoked && record->user_len) {

        if (check == NULL
            || record->user_len != check->key_len
            || ngx_memcmp(record->user, check->key, check->key_len) != 0)
        {
            return ngx_http_coord_session_step(state,
                                               NGX_COORD_SESSION_UNSURE);
        }

        if (!check->u.session.found
            && get->type == &ngx_coord_op_session_peek)
        {
            /* it may have got another id between the two answers */

            return ngx_http_coord_session_step(state,
                                               NGX_COORD_SESSION_UNSURE);
        }

        if (!check->u.session.found) {
            record->revoked = 1;

            if (!ngx_http_coord_session_expired(state)) {
                ngx_http_coord_session_mark(state);
            }
        }
    }

    if (!ngx_http_coord_session_unchanged(state)) {
        ngx_http_coord_session_keep(state);

        if (record->unsent
            && ngx_http_coord_session_resend(r, state) != NGX_OK)
        {
            return NGX_ERROR;
        }

        ngx_http_coord_session_note(state);
    }

    if (record->revoked || ngx_http_coord_session_expired(state)) {
        step = NGX_COORD_SESSION_ENDED;
    }

    return ngx_http_coord_session_step(state, step);
}


static ngx_int_t
ngx_http_coord_session_was_seated(ngx_http_coord_session_state_t *state)
{
    ngx_coord_op_t  *add;

    add = ngx_http_coord_session_result(state, state->add);

    if (add->rc == NGX_ERROR) {
        return ngx_http_coord_session_failed(state, add);
    }

    ngx_http_coord_session_evicted(state);

    state->seated = (add->rc == NGX_OK);
    state->seated_at = add->u.session.seated;

    return ngx_http_coord_session_step(state, state->seated
                                              ? NGX_COORD_SESSION_SEATED
                                              : NGX_COORD_SESSION_FULL);
}


static ngx_int_t
ngx_http_coord_session_was_told(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state)
{
    ngx_uint_t                 differs, other, added;
    ngx_coord_op_t            *get, *add;
    ngx_coord_session_t       *record;
    ngx_coord_session_step_e   step;

    get = ngx_http_coord_session_result(state, state->get);
    add = ngx_http_coord_session_result(state, state->add);

    if (get && get->rc != NGX_OK) {

        /* one that may have been bound would have ended by that */

        if (state->seated_at && !get->gone) {
            ngx_http_coord_session_unseat(state);
        }

        return ngx_http_coord_session_failed(state, get);
    }

    if (add && add->rc != NGX_OK) {
        return ngx_http_coord_session_failed(state, add);
    }

    record = &state->record;
    step = NGX_COORD_SESSION_WRITTEN;
    added = (add || state->seated);

    differs = ngx_http_coord_session_differs(state);
    other = ngx_http_coord_session_other_user(state);

    if (get && ngx_http_coord_session_record(r, state, get) != NGX_OK) {
        return NGX_ERROR;
    }

    if (record->found
        && !record->created
        && (differs || other)
        && ngx_http_coord_session_to_move(state))
    {
        state->outcome = NGX_COORD_OUTCOME_MISMATCH;
    }

    if (differs && state->outcome == NGX_COORD_OUTCOME_MISMATCH) {
        state->value = state->bind;
    }

    if (added && get == NULL) {
        record->user_len = state->user.len;
        ngx_memcpy(record->user, state->user.key, state->user.len);
    }

    if (added && ngx_http_coord_session_other_user(state)) {

        /* another user was first */

        ngx_http_coord_session_withdraw(state);
    }

    ngx_http_coord_session_evicted(state);
    ngx_http_coord_session_keep(state);

    if (record->revoked) {
        step = NGX_COORD_SESSION_ENDED;
    }

    return ngx_http_coord_session_step(state, step);
}


/* those beyond max_per_user have ended: that is remembered as well */

static void
ngx_http_coord_session_evicted(ngx_http_coord_session_state_t *state)
{
    ngx_coord_op_t  *add;

    add = ngx_http_coord_session_result(state, state->add);

    if (add && add->u.session.count) {
        ngx_http_coord_session_mark_all(state->use->zone,
                                        (ngx_coord_session_item_t *) add->blob,
                                        add->u.session.count);
    }
}


static ngx_int_t
ngx_http_coord_session_failed(ngx_http_coord_session_state_t *state,
    ngx_coord_op_t *op)
{
    state->source = op->source;
    state->failure = op->failure;

    return ngx_http_coord_session_step(state, NGX_COORD_SESSION_FAILED);
}
