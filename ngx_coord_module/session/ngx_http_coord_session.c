
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_session: the request side.  The session is looked up with the limits,
 * before the access phase, and decided after it, when the identity of the
 * client is verified.  Directives are in ngx_http_coord_session_conf.c.
 */


#include "ngx_http_coord_session_state.h"


static ngx_int_t ngx_http_coord_session_lookup_begin(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx);
static ngx_int_t ngx_http_coord_session_lookup_decide(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx);
static ngx_int_t ngx_http_coord_session_begin(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx);
static ngx_int_t ngx_http_coord_session_decide(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx);
static void ngx_http_coord_session_end(ngx_http_coord_ctx_t *ctx,
    void *data);
static ngx_uint_t ngx_http_coord_session_made(ngx_http_coord_ctx_t *ctx,
    ngx_http_coord_session_use_t *use, ngx_str_t *key);
static ngx_http_coord_session_state_t *ngx_http_coord_session_looked_up(
    ngx_http_coord_ctx_t *ctx, ngx_http_coord_session_conf_t *scf,
    ngx_str_t *key);
static ngx_int_t ngx_http_coord_session_round(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state);
static void ngx_http_coord_session_answered(ngx_coord_batch_t *batch);
static ngx_int_t ngx_http_coord_session_conclude(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state);
static ngx_int_t ngx_http_coord_session_no_answer(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state);
static ngx_int_t ngx_http_coord_session_verdict(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state);
static ngx_int_t ngx_http_coord_session_refuse(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state, ngx_http_coord_session_why_e why);


ngx_http_coord_feature_t  ngx_http_coord_session_feature = {

    { ngx_string("session"),
      ngx_string("ss"),
      ngx_coord_outcome_bit(NEW) | ngx_coord_outcome_bit(BOUND)
      | ngx_coord_outcome_bit(NONE) | ngx_coord_outcome_bit(MISMATCH)
      | ngx_coord_outcome_bit(MISMATCH_PASSED)
      | ngx_coord_outcome_bit(MISMATCH_DRY_RUN)
      | ngx_coord_outcome_bit(REVOKED) | ngx_coord_outcome_bit(CUT)
      | ngx_coord_outcome_bit(REVOKED_DRY_RUN)
      | ngx_coord_outcome_bit(MISSING)
      | ngx_coord_outcome_bit(MISSING_DRY_RUN)
      | ngx_coord_outcome_bit(REJECTED)
      | ngx_coord_outcome_bit(REJECTED_DRY_RUN)
      | ngx_coord_outcome_bit(BYPASSED) | ngx_coord_outcome_bit(UNAVAILABLE)
      | ngx_coord_outcome_bit(DAMAGED),
      0,
      0 },

    {
        { 30,                              /* preaccess */
          ngx_http_coord_session_lookup_begin,
          ngx_http_coord_session_lookup_decide,
          NULL,
          0 },

        { 10,                              /* precontent */
          ngx_http_coord_session_begin,
          ngx_http_coord_session_decide,
          NULL,
          0 }
    },

    ngx_http_coord_session_end,
    ngx_http_coord_session_vars,
    ngx_http_coord_session_routes,
    0
};


/* what is known before the access phase is asked together with the limits */

static ngx_int_t
ngx_http_coord_session_lookup_begin(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx)
{
    ngx_str_t                        key;
    ngx_http_coord_session_use_t    *use;
    ngx_http_coord_session_conf_t   *scf;
    ngx_http_coord_session_zone_t   *sz;
    ngx_http_coord_session_state_t  *state;

    if (r != r->main) {
        return NGX_DECLINED;
    }

    if (ngx_http_coord_session_cookie_issue(r) != NGX_OK) {
        return NGX_ERROR;
    }

    scf = ngx_http_get_module_loc_conf(r, ngx_http_coord_session_module);
    use = scf->use;

    if (use == NULL) {
        return (ngx_http_coord_session_cookie_roll(r) == NGX_OK)
               ? NGX_DECLINED : NGX_ERROR;
    }

    if (ctx->decided[NGX_HTTP_COORD_PRECONTENT]
        & (1 << ngx_http_coord_session_feature.slot))
    {
        /* an internal redirect: the access phase had named the session */

        return NGX_DECLINED;
    }

    sz = use->zone->data;

    if (ngx_http_coord_zone_key(r, scf->use->zone, sz->key, &key) != NGX_OK) {
        return NGX_ERROR;
    }

    if (key.len == 0 || ngx_http_coord_session_made(ctx, use, &key)) {
        return NGX_DECLINED;
    }

    state = ngx_http_coord_session_create(r, ctx, scf);

    if (state == NULL || ngx_http_coord_session_name(state, &key) != NGX_OK) {
        return NGX_ERROR;
    }

    if (use->user) {

        /* not verified yet: good enough to know whom to ask about */

        if (ngx_http_complex_value(r, use->user, &state->hint.text) != NGX_OK
            || ngx_http_coord_session_user_key(&state->hint) != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    return ngx_http_coord_session_ask(r, state);
}


static ngx_int_t
ngx_http_coord_session_lookup_decide(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx)
{
    ngx_http_coord_session_state_t  *state;

    state = ngx_http_coord_session_state(ctx);

    if (ngx_http_coord_session_take(r, state) != NGX_OK) {
        return NGX_ERROR;
    }

    return NGX_DECLINED;
}


ngx_http_coord_session_state_t *
ngx_http_coord_session_create(ngx_http_request_t *r, ngx_http_coord_ctx_t *ctx,
    ngx_http_coord_session_conf_t *scf)
{
    ngx_http_coord_loc_conf_t        *lcf;
    ngx_http_coord_session_state_t   *state;
    ngx_http_coord_session_client_t  *client;

    client = ngx_http_coord_session_client(r, ctx);
    if (client == NULL) {
        return NULL;
    }

    state = ngx_pcalloc(r->pool, sizeof(ngx_http_coord_session_state_t));
    if (state == NULL) {
        return NULL;
    }

    lcf = ngx_http_get_module_loc_conf(r, ngx_http_coord_module);

    state->ctx = ctx;
    state->conf = scf;
    state->use = scf->use;
    state->on_failure = (scf->use->on_failure == NGX_CONF_UNSET_UINT)
                        ? lcf->on_failure : scf->use->on_failure;

    if (client->state) {
        ngx_coord_timer_stop(&client->state->timer);
        ngx_http_coord_session_unwatch(client->state);
    }

    client->state = state;

    return state;
}


/* 1 if only sessions that exist are accepted, and key is that of a new id */

static ngx_uint_t
ngx_http_coord_session_made(ngx_http_coord_ctx_t *ctx,
    ngx_http_coord_session_use_t *use, ngx_str_t *key)
{
    ngx_http_coord_session_client_t  *client;

    client = ctx->state[ngx_http_coord_session_feature.slot];

    return client
           && use->unknown == NGX_HTTP_COORD_SESSION_REJECT
           && ngx_http_coord_session_cookie_fresh(client, key);
}


static ngx_int_t
ngx_http_coord_session_begin(ngx_http_request_t *r, ngx_http_coord_ctx_t *ctx)
{
    ngx_str_t                        key;
    ngx_http_coord_session_conf_t   *scf;
    ngx_http_coord_session_zone_t   *sz;
    ngx_http_coord_session_state_t  *state;

    scf = ngx_http_get_module_loc_conf(r, ngx_http_coord_session_module);
    sz = scf->use->zone->data;

    if (ngx_http_coord_zone_key(r, scf->use->zone, sz->key, &key) != NGX_OK) {
        return NGX_ERROR;
    }

    state = ngx_http_coord_session_looked_up(ctx, scf, &key);

    if (state == NULL) {
        state = ngx_http_coord_session_create(r, ctx, scf);

        if (state == NULL) {
            return NGX_ERROR;
        }

        if (key.len == 0 || ngx_http_coord_session_made(ctx, scf->use, &key)) {
            state->step = NGX_COORD_SESSION_ABSENT;
            return NGX_OK;
        }

        if (ngx_http_coord_session_name(state, &key) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    if (ngx_http_coord_session_identity(r, state) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_http_coord_session_ask(r, state);
}


/* the session that was asked for before the access phase, if it is the one */

static ngx_http_coord_session_state_t *
ngx_http_coord_session_looked_up(ngx_http_coord_ctx_t *ctx,
    ngx_http_coord_session_conf_t *scf, ngx_str_t *key)
{
    ngx_http_coord_session_state_t  *state;

    state = ngx_http_coord_session_state(ctx);

    /* of a stage that begins anew nothing was asked */

    if (state == NULL
        || state->conf != scf
        || state->step == NGX_COORD_SESSION_READING
        || state->step == NGX_COORD_SESSION_SEATING
        || state->step == NGX_COORD_SESSION_WRITING
        || state->text.len != key->len
        || ngx_memcmp(state->text.data, key->data, key->len) != 0)
    {
        return NULL;
    }

    return state;
}


ngx_int_t
ngx_http_coord_session_identity(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state)
{
    ngx_http_coord_session_use_t  *use;

    use = state->use;

    if (use->bind
        && ngx_http_coord_session_value(r, use->bind, &state->bind) != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (use->user == NULL) {
        return NGX_OK;
    }

    if (ngx_http_complex_value(r, use->user, &state->user.text) != NGX_OK) {
        return NGX_ERROR;
    }

    if (state->hint.text.len
        && state->hint.text.len == state->user.text.len
        && ngx_memcmp(state->hint.text.data, state->user.text.data,
                      state->hint.text.len)
           == 0)
    {
        state->user = state->hint;
        return NGX_OK;
    }

    return ngx_http_coord_session_user_key(&state->user);
}


static ngx_int_t
ngx_http_coord_session_decide(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx)
{
    ngx_int_t                        rc;
    ngx_http_coord_session_state_t  *state;

    state = ngx_http_coord_session_state(ctx);

    for ( ;; ) {

        if (ngx_http_coord_session_take(r, state) != NGX_OK) {
            return NGX_ERROR;
        }

        if (state->batch) {
            ngx_coord_batch_done(state->batch);
            state->batch = NULL;
        }

        if (!ngx_http_coord_session_pending(state)) {
            return ngx_http_coord_session_conclude(r, state);
        }

        rc = ngx_http_coord_session_round(r, state);

        if (rc != NGX_OK) {
            return rc;
        }
    }
}


/* asks once more: NGX_OK: answered; NGX_AGAIN: decide() will be called */

static ngx_int_t
ngx_http_coord_session_round(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state)
{
    state->batch = ngx_coord_batch_create(state->use->zone->store);
    if (state->batch == NULL) {
        return NGX_ERROR;
    }

    if (ngx_http_coord_session_ask(r, state) != NGX_OK) {
        return NGX_ERROR;
    }

    state->batch->handler = ngx_http_coord_session_answered;
    state->batch->data = state;

    return ngx_coord_batch_send(state->batch);
}


static void
ngx_http_coord_session_answered(ngx_coord_batch_t *batch)
{
    ngx_http_coord_session_state_t *state = batch->data;

    ngx_http_coord_resume(state->ctx);
}


static ngx_int_t
ngx_http_coord_session_conclude(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state)
{
    switch (state->step) {

    case NGX_COORD_SESSION_ABSENT:
        state->outcome = NGX_COORD_OUTCOME_NONE;

        if (state->use->missing == NGX_HTTP_COORD_SESSION_REJECT) {
            return ngx_http_coord_session_refuse(r, state,
                                               NGX_HTTP_COORD_SESSION_MISSING);
        }

        ngx_coord_metrics_decision(state->use->zone, NGX_COORD_OUTCOME_NONE);

        return ngx_http_coord_session_pass(r, state);

    case NGX_COORD_SESSION_FAILED:
        return ngx_http_coord_session_no_answer(r, state);

    default:
        return ngx_http_coord_session_verdict(r, state);
    }
}


/* the failure policy */

static ngx_int_t
ngx_http_coord_session_no_answer(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state)
{
    ngx_int_t  rc;

    state->outcome = NGX_COORD_OUTCOME_BYPASSED;

    if (state->on_failure == NGX_COORD_FAILURE_CLOSED) {

        if (!state->conf->limiter.dry_run) {
            state->outcome = NGX_COORD_OUTCOME_UNAVAILABLE;
        }

        ngx_http_coord_session_log(r, state,
                                   NGX_HTTP_COORD_SESSION_NO_ANSWER);

    } else {
        rc = ngx_http_coord_session_recall(r, state);

        if (rc != NGX_DECLINED) {
            return (rc == NGX_OK) ? ngx_http_coord_session_verdict(r, state)
                                  : rc;
        }
    }

    ngx_str_null(&state->value);

    ngx_coord_metrics_decision(state->use->zone, state->outcome);

    if (state->outcome == NGX_COORD_OUTCOME_BYPASSED) {
        return ngx_http_coord_session_pass(r, state);
    }

    if (ngx_http_coord_session_step(state, NGX_COORD_SESSION_REFUSED)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_http_coord_refuse_unavailable(r, state->ctx);
}


/* of a record that stands, or of what has become of it */

static ngx_int_t
ngx_http_coord_session_verdict(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state)
{
    ngx_coord_outcome_e   outcome;
    ngx_coord_session_t  *record;

    record = &state->record;

    if (state->step == NGX_COORD_SESSION_RECALLED
        && (record->revoked || ngx_http_coord_session_expired(state))
        && ngx_http_coord_session_step(state, NGX_COORD_SESSION_ENDED)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (state->step == NGX_COORD_SESSION_ENDED) {
        state->outcome = NGX_COORD_OUTCOME_REVOKED;

        return ngx_http_coord_session_refuse(r, state,
                                             NGX_HTTP_COORD_SESSION_ENDED);
    }

    if (state->step == NGX_COORD_SESSION_FULL) {
        state->outcome = NGX_COORD_OUTCOME_NONE;

        return ngx_http_coord_session_refuse(r, state,
                                             NGX_HTTP_COORD_SESSION_TOO_MANY);
    }

    if (!record->found
        && state->use->unknown == NGX_HTTP_COORD_SESSION_REJECT)
    {
        state->outcome = NGX_COORD_OUTCOME_NONE;

        return ngx_http_coord_session_refuse(r, state,
                                             NGX_HTTP_COORD_SESSION_UNKNOWN);
    }

    if (!record->found || record->created) {
        outcome = NGX_COORD_OUTCOME_NEW;
        state->outcome = outcome;

    } else if (state->outcome != NGX_COORD_OUTCOME_MISMATCH
               && !ngx_http_coord_session_differs(state)
               && !ngx_http_coord_session_other_user(state))
    {
        outcome = NGX_COORD_OUTCOME_BOUND;
        state->outcome = outcome;

    } else {
        outcome = NGX_COORD_OUTCOME_MISMATCH_PASSED;
        state->outcome = NGX_COORD_OUTCOME_MISMATCH;

        if (state->use->mismatch == NGX_HTTP_COORD_SESSION_REJECT) {

            /* and whoever it was has not kept the session alive */

            return ngx_http_coord_session_refuse(r, state,
                                              NGX_HTTP_COORD_SESSION_MISMATCH);
        }

        ngx_http_coord_session_log(r, state, NGX_HTTP_COORD_SESSION_MISMATCH);
    }

    ngx_coord_metrics_decision(state->use->zone, outcome);

    return ngx_http_coord_session_pass(r, state);
}


static ngx_int_t
ngx_http_coord_session_refuse(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state, ngx_http_coord_session_why_e why)
{
    ngx_http_coord_problem_t  problem;

    ngx_http_coord_session_log(r, state, why);

    if (state->conf->limiter.dry_run) {
        ngx_coord_metrics_decision(state->use->zone,
                                  ngx_http_coord_session_whys[why].dry_run);

        return ngx_http_coord_session_pass(r, state);
    }

    ngx_coord_metrics_decision(state->use->zone,
                               ngx_http_coord_session_whys[why].refused);

    /* whoever is refused sees nothing of the session */

    ngx_str_null(&state->value);

    if (ngx_http_coord_session_step(state, NGX_COORD_SESSION_REFUSED)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (why == NGX_HTTP_COORD_SESSION_ENDED
        && ngx_http_coord_session_flight(state->use->zone->data, &state->record)
           == 0
        && ngx_http_coord_session_cookie_replace(r, &state->text) != NGX_OK)
    {
        return NGX_ERROR;
    }

    ngx_memzero(&problem, sizeof(ngx_http_coord_problem_t));

    problem.status = state->conf->limiter.status_code;
    problem.code = ngx_http_coord_session_whys[why].code;

    ngx_str_set(&problem.type, "about:blank");
    ngx_str_set(&problem.title, "The session is not accepted");

    return ngx_http_coord_refuse(r, state->ctx, &problem);
}


static void
ngx_http_coord_session_end(ngx_http_coord_ctx_t *ctx, void *data)
{
    ngx_http_coord_session_client_t *client = data;

    ngx_http_coord_session_state_t  *state;

    state = client->state;

    if (state == NULL) {
        return;
    }

    ngx_coord_timer_stop(&state->timer);
    ngx_http_coord_session_unwatch(state);

    client->hold.state = NGX_HTTP_COORD_HOLD_NONE;

    if (state->batch) {
        ngx_coord_batch_done(state->batch);
        state->batch = NULL;
    }
}
