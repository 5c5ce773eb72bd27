
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_session: a request that goes on.  Its session is used until the
 * request is over, the response may tell a value to bind, and the variables
 * tell what is bound.
 */


#include "ngx_http_coord_session_state.h"


/* a part of ttl after which a long request uses its session anew */
#define NGX_HTTP_COORD_SESSION_IN_USE  3


static void ngx_http_coord_session_use(ngx_http_coord_session_state_t *state);
static void ngx_http_coord_session_in_use(ngx_event_t *ev);
static ngx_uint_t ngx_http_coord_session_learns(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state);
static void ngx_http_coord_session_last_peer(ngx_str_t *value);


ngx_int_t
ngx_http_coord_session_pass(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state)
{
    ngx_coord_session_step_e  from;

    from = state->step;

    if (ngx_http_coord_session_step(state, NGX_COORD_SESSION_PASSED)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (from == NGX_COORD_SESSION_ENDED) {
        ngx_str_null(&state->value);

    } else if (from != NGX_COORD_SESSION_FULL) {
        ngx_http_coord_session_watch(r, state);
    }

    if (ngx_http_coord_session_cookie_roll(r) != NGX_OK) {
        return NGX_ERROR;
    }

    if (from == NGX_COORD_SESSION_KNOWN || from == NGX_COORD_SESSION_WRITTEN) {

        if (state->outcome == NGX_COORD_OUTCOME_MISMATCH
            && state->use->mismatch == NGX_HTTP_COORD_SESSION_REJECT)
        {
            /* a dry run: it would not have been used */
            return NGX_DECLINED;
        }

        if (from == NGX_COORD_SESSION_KNOWN) {
            ngx_http_coord_session_touch(state);
        }

        ngx_http_coord_session_use(state);
    }

    return NGX_DECLINED;
}


ngx_uint_t
ngx_http_coord_session_passed(ngx_http_coord_session_state_t *state)
{
    return state->step == NGX_COORD_SESSION_PASSED
           || state->step == NGX_COORD_SESSION_MOVING
           || state->step == NGX_COORD_SESSION_LEARNED;
}


/* streams and upgraded connections last longer than a session may be idle */

static void
ngx_http_coord_session_use(ngx_http_coord_session_state_t *state)
{
    ngx_msec_t                      delay;
    ngx_http_coord_session_zone_t  *sz;

    if (state->timer.event.handler == NULL) {
        ngx_coord_timer_init(&state->timer, ngx_http_coord_session_in_use,
                             state, ngx_cycle->log);

        state->timer.event.cancelable = 1;
    }

    sz = state->use->zone->data;
    delay = ngx_coord_ceil_msec(sz->ttl / NGX_HTTP_COORD_SESSION_IN_USE);

    ngx_coord_timer_start(&state->timer, ngx_min(delay, 3600000));
}


static void
ngx_http_coord_session_in_use(ngx_event_t *ev)
{
    ngx_http_coord_session_state_t *state = ngx_coord_timer_data(ev);

    ngx_http_coord_session_touch(state);
    ngx_http_coord_session_use(state);
}


void
ngx_http_coord_session_learn(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state)
{
    ngx_str_t  value;

    if (!ngx_http_coord_session_learns(r, state)
        || ngx_http_coord_session_taught(r, state, &value) != NGX_OK
        || value.len == 0)
    {
        return;
    }

    if (ngx_http_coord_session_step(state, NGX_COORD_SESSION_LEARNED)
        != NGX_OK)
    {
        return;
    }

    ngx_http_coord_session_write(state, &value);

    state->value = value;
}


ngx_int_t
ngx_http_coord_session_taught(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state, ngx_str_t *value)
{
    ngx_http_upstream_state_t  *us;

    ngx_str_null(value);

    if (r->upstream_states && r->upstream_states->nelts) {
        us = r->upstream_states->elts;

        if (us[r->upstream_states->nelts - 1].header_time == (ngx_msec_t) -1) {
            /* no peer has answered */
            return NGX_OK;
        }
    }

    if (ngx_http_coord_session_value(r, state->use->learn, value) != NGX_OK) {
        return NGX_ERROR;
    }

    if (state->use->learn_addr) {
        ngx_http_coord_session_last_peer(value);
    }

    return NGX_OK;
}


static ngx_uint_t
ngx_http_coord_session_learns(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state)
{
    if (state->use->learn == NULL
        || (state->outcome != NGX_COORD_OUTCOME_NEW
            && state->outcome != NGX_COORD_OUTCOME_BOUND)
        || (state->failure && state->on_failure != NGX_COORD_FAILURE_LOCAL))
    {
        return 0;
    }

    if (state->step != NGX_COORD_SESSION_MOVING
        && (state->step != NGX_COORD_SESSION_PASSED || state->record.bound))
    {
        return 0;
    }

    return r->headers_out.status < NGX_HTTP_BAD_REQUEST;
}


/* $upstream_addr lists all peers that were tried: "a, b : c" */

static void
ngx_http_coord_session_last_peer(ngx_str_t *value)
{
    size_t  i;

    for (i = value->len; i > 0; i--) {
        if (value->data[i - 1] == ' ') {
            break;
        }
    }

    value->data += i;
    value->len -= i;
}


void
ngx_http_coord_session_unusable(ngx_http_request_t *r)
{
    ngx_http_coord_ctx_t            *ctx;
    ngx_http_coord_session_state_t  *state;

    if (r != r->main) {
        return;
    }

    ctx = ngx_http_coord_get_ctx(r);
    state = ctx ? ngx_http_coord_session_state(ctx) : NULL;

    if (state && state->step == NGX_COORD_SESSION_PASSED) {
        (void) ngx_http_coord_session_step(state, NGX_COORD_SESSION_MOVING);
    }
}


ngx_int_t
ngx_http_coord_session_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_http_coord_ctx_t            *ctx;
    ngx_http_coord_session_state_t  *state;

    ctx = ngx_http_coord_get_ctx(r);
    state = ctx ? ngx_http_coord_session_state(ctx) : NULL;

    if (state && data == NGX_HTTP_COORD_SESSION_VAR_STATUS) {
        return ngx_http_coord_variable_text(v,
                                   &ngx_coord_outcomes[state->outcome].status);
    }

    /* nothing of the session is seen before the decision */

    if (state && ngx_http_coord_session_passed(state)) {

        if (data == NGX_HTTP_COORD_SESSION_VAR_VALUE) {
            return ngx_http_coord_variable_text(v, &state->value);
        }

        if (state->record.found) {
            return ngx_http_coord_variable_number(r, v,
                                              ngx_http_coord_session_age(state)
                                              / NGX_COORD_NSEC_PER_SEC);
        }
    }

    v->not_found = 1;

    return NGX_OK;
}
