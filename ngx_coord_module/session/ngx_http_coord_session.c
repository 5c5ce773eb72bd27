
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
static ngx_http_coord_session_state_t *ngx_http_coord_session_create(
    ngx_http_request_t *r, ngx_http_coord_ctx_t *ctx,
    ngx_http_coord_session_conf_t *scf);
static ngx_int_t ngx_http_coord_session_identity(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state);
static ngx_int_t ngx_http_coord_session_round(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state);
static void ngx_http_coord_session_answered(ngx_coord_batch_t *batch);
static ngx_int_t ngx_http_coord_session_conclude(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx, ngx_http_coord_session_state_t *state);
static ngx_int_t ngx_http_coord_session_verdict(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx, ngx_http_coord_session_state_t *state);
static ngx_int_t ngx_http_coord_session_refuse(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx, ngx_http_coord_session_state_t *state,
    const char *code, const char *what);
static void ngx_http_coord_session_log(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state, const char *what);
static void ngx_http_coord_session_last_peer(ngx_str_t *value);


ngx_http_coord_feature_t  ngx_http_coord_session_feature = {

    { ngx_string("session"),
      ngx_string("ss"),
      ngx_coord_outcome_bit(NEW) | ngx_coord_outcome_bit(BOUND)
      | ngx_coord_outcome_bit(MISMATCH) | ngx_coord_outcome_bit(REVOKED)
      | ngx_coord_outcome_bit(NONE) | ngx_coord_outcome_bit(BYPASSED)
      | ngx_coord_outcome_bit(UNAVAILABLE),
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


static const ngx_str_t  ngx_http_coord_session_statuses[] = {
    ngx_null_string,
    ngx_string("NEW"),
    ngx_string("BOUND"),
    ngx_string("MISMATCH"),
    ngx_string("REVOKED"),
    ngx_string("NONE"),
    ngx_string("BYPASSED")
};


static const ngx_coord_outcome_e  ngx_http_coord_session_outcomes[] = {
    NGX_COORD_OUTCOME_BYPASSED,
    NGX_COORD_OUTCOME_NEW,
    NGX_COORD_OUTCOME_BOUND,
    NGX_COORD_OUTCOME_MISMATCH,
    NGX_COORD_OUTCOME_REVOKED,
    NGX_COORD_OUTCOME_NONE,
    NGX_COORD_OUTCOME_BYPASSED
};


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
        return NGX_DECLINED;
    }

    sz = use->zone->data;

    if (ngx_http_complex_value(r, sz->key, &key) != NGX_OK) {
        return NGX_ERROR;
    }

    if (key.len == 0) {
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

    state->need = NGX_HTTP_COORD_SESSION_GET;

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

    state->need = NGX_HTTP_COORD_SESSION_NOTHING;

    return NGX_DECLINED;
}


static ngx_http_coord_session_state_t *
ngx_http_coord_session_create(ngx_http_request_t *r, ngx_http_coord_ctx_t *ctx,
    ngx_http_coord_session_conf_t *scf)
{
    ngx_http_coord_loc_conf_t        *clcf;
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

    clcf = ngx_http_get_module_loc_conf(r, ngx_http_coord_module);

    state->ctx = ctx;
    state->conf = scf;
    state->use = scf->use;
    state->on_failure = (scf->use->on_failure == NGX_CONF_UNSET_UINT)
                        ? clcf->on_failure : scf->use->on_failure;

    client->state = state;

    return state;
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

    if (ngx_http_complex_value(r, sz->key, &key) != NGX_OK) {
        return NGX_ERROR;
    }

    state = ngx_http_coord_session_state(ctx);

    if (state == NULL
        || state->conf != scf
        || state->need != NGX_HTTP_COORD_SESSION_NOTHING
        || state->text.len != key.len
        || ngx_memcmp(state->text.data, key.data, key.len) != 0)
    {
        state = ngx_http_coord_session_create(r, ctx, scf);

        if (state == NULL) {
            return NGX_ERROR;
        }

        if (key.len && ngx_http_coord_session_name(state, &key) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    if (key.len == 0) {
        state->status = NGX_HTTP_COORD_SESSION_NONE;
        return NGX_OK;
    }

    if (ngx_http_coord_session_identity(r, state) != NGX_OK) {
        return NGX_ERROR;
    }

    state->need = ngx_http_coord_session_plan(state);

    return ngx_http_coord_session_ask(r, state);
}


/* who the client is, and what it is to be bound to */

static ngx_int_t
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

    if (state->status == NGX_HTTP_COORD_SESSION_NONE) {
        return ngx_http_coord_session_conclude(r, ctx, state);
    }

    for ( ;; ) {

        if (state->need != NGX_HTTP_COORD_SESSION_NOTHING) {

            if (ngx_http_coord_session_take(r, state) != NGX_OK) {
                return NGX_ERROR;
            }

            if (state->batch) {
                ngx_coord_batch_done(state->batch);
                state->batch = NULL;
            }
        }

        state->need = ngx_http_coord_session_plan(state);

        if (state->need == NGX_HTTP_COORD_SESSION_NOTHING) {
            return ngx_http_coord_session_conclude(r, ctx, state);
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
    ngx_http_coord_ctx_t *ctx, ngx_http_coord_session_state_t *state)
{
    ngx_int_t            rc;
    ngx_coord_outcome_e  outcome;

    rc = ngx_http_coord_session_verdict(r, ctx, state);

    outcome = ngx_http_coord_session_outcomes[state->status];

    if (state->status == NGX_HTTP_COORD_SESSION_BYPASSED
        && rc != NGX_DECLINED)
    {
        outcome = NGX_COORD_OUTCOME_UNAVAILABLE;
    }

    ngx_coord_metrics_decision(state->use->zone, outcome);

    return rc;
}


static ngx_int_t
ngx_http_coord_session_verdict(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx, ngx_http_coord_session_state_t *state)
{
    ngx_coord_session_t           *record;
    ngx_http_coord_session_use_t  *use;

    use = state->use;
    record = &state->record;

    if (state->status == NGX_HTTP_COORD_SESSION_NONE) {
        return (use->missing == NGX_HTTP_COORD_SESSION_PASS)
               ? NGX_DECLINED
               : ngx_http_coord_session_refuse(r, ctx, state,
                                               "missing-session", "missing");
    }

    if (state->failed) {
        state->status = NGX_HTTP_COORD_SESSION_BYPASSED;

        if (state->on_failure == NGX_COORD_FAILURE_CLOSED) {
            ngx_http_coord_session_log(r, state, "unavailable");

            return state->conf->dry_run
                   ? NGX_DECLINED : ngx_http_coord_refuse_unavailable(r, ctx);
        }

        if (ngx_http_coord_session_fallback(r, state) != NGX_OK) {
            ngx_str_null(&state->value);
            return NGX_DECLINED;
        }
    }

    if (record->revoked || state->ended) {
        state->status = NGX_HTTP_COORD_SESSION_REVOKED;

        ngx_str_null(&state->value);

        return ngx_http_coord_session_refuse(r, ctx, state, "session-revoked",
                                             "revoked");
    }

    if (!record->found || record->created) {
        state->status = NGX_HTTP_COORD_SESSION_NEW;
        return NGX_DECLINED;
    }

    if (!state->differs && !ngx_http_coord_session_differs(state)) {
        state->status = NGX_HTTP_COORD_SESSION_BOUND;

    } else {
        state->status = NGX_HTTP_COORD_SESSION_MISMATCH;

        if (use->mismatch == NGX_HTTP_COORD_SESSION_REJECT) {

            /* and whoever it was has not kept the session alive */

            return ngx_http_coord_session_refuse(r, ctx, state,
                                                 "session-mismatch",
                                                 "mismatch");
        }

        ngx_http_coord_session_log(r, state, "mismatch");
    }

    if (!state->failed && !state->wrote) {
        ngx_http_coord_session_touch(state);
    }

    return NGX_DECLINED;
}


static ngx_int_t
ngx_http_coord_session_refuse(ngx_http_request_t *r, ngx_http_coord_ctx_t *ctx,
    ngx_http_coord_session_state_t *state, const char *code, const char *what)
{
    ngx_http_coord_problem_t  problem;

    ngx_http_coord_session_log(r, state, what);

    if (state->conf->dry_run) {
        return NGX_DECLINED;
    }

    ngx_memzero(&problem, sizeof(ngx_http_coord_problem_t));

    problem.status = state->conf->status_code;
    problem.code.data = (u_char *) code;
    problem.code.len = ngx_strlen(code);

    ngx_str_set(&problem.type, "about:blank");
    ngx_str_set(&problem.title, "The session is not accepted");

    return ngx_http_coord_refuse(r, ctx, &problem);
}


static void
ngx_http_coord_session_log(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state, const char *what)
{
    ngx_coord_op_t               op;
    ngx_http_coord_log_fields_t  fields;

    if (state->conf->log_level > r->connection->log->log_level) {
        return;
    }

    ngx_memzero(&fields, sizeof(ngx_http_coord_log_fields_t));
    ngx_memzero(&op, sizeof(ngx_coord_op_t));
    op.zone = state->use->zone;
    op.source = state->source;
    op.failure = state->failure;

    if (state->text.len) {
        op.key_len = NGX_COORD_DIGEST_HEX_LEN;
        ngx_memcpy(op.key, state->key, NGX_COORD_DIGEST_HEX_LEN);
    }

    fields.op = &op;
    fields.outcome = ngx_http_coord_session_outcomes[state->status];

    ngx_http_coord_log(r, state->conf->log_level, &fields,
                       "session %s%s, by zone \"%V\"", what,
                       state->conf->dry_run ? ", dry run" : "",
                       &state->use->zone->name);
}


static void
ngx_http_coord_session_end(ngx_http_coord_ctx_t *ctx, void *data)
{
    ngx_http_coord_session_client_t *client = data;

    ngx_http_coord_session_state_t  *state;

    state = client->state;

    if (state && state->batch) {
        ngx_coord_batch_done(state->batch);
        state->batch = NULL;
    }
}


void
ngx_http_coord_session_learn(ngx_http_request_t *r, ngx_http_coord_ctx_t *ctx)
{
    ngx_str_t                        value;
    ngx_http_upstream_state_t       *us;
    ngx_http_coord_session_use_t    *use;
    ngx_http_coord_session_state_t  *state;

    state = ngx_http_coord_session_state(ctx);
    use = state->use;

    if (use->learn == NULL
        || state->learned
        || (state->status != NGX_HTTP_COORD_SESSION_NEW
            && state->status != NGX_HTTP_COORD_SESSION_BOUND)
        || (state->failed && state->on_failure != NGX_COORD_FAILURE_LOCAL)
        || (state->record.bound && !state->relearn))
    {
        return;
    }

    if (r->upstream_states && r->upstream_states->nelts) {
        us = r->upstream_states->elts;

        if (us[r->upstream_states->nelts - 1].header_time == (ngx_msec_t) -1) {
            /* no peer has answered */
            return;
        }
    }

    if (ngx_http_coord_session_value(r, use->learn, &value) != NGX_OK
        || value.len == 0)
    {
        return;
    }

    if (use->learn_addr) {
        ngx_http_coord_session_last_peer(&value);
    }

    state->learned = 1;

    ngx_http_coord_session_write(state, &value);

    state->value = value;
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

    if (state) {
        state->relearn = 1;
    }
}


ngx_int_t
ngx_http_coord_session_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    u_char                          *p;
    const ngx_str_t                 *s;
    ngx_http_coord_ctx_t            *ctx;
    ngx_http_coord_session_state_t  *state;

    ctx = ngx_http_coord_get_ctx(r);
    state = ctx ? ngx_http_coord_session_state(ctx) : NULL;

    v->not_found = 1;

    if (state == NULL) {
        return NGX_OK;
    }

    if (data == NGX_HTTP_COORD_SESSION_VAR_AGE) {

        if (!state->known || !state->record.found) {
            return NGX_OK;
        }

        p = ngx_pnalloc(r->pool, NGX_INT64_LEN);
        if (p == NULL) {
            return NGX_ERROR;
        }

        v->len = ngx_sprintf(p, "%L", state->record.age
                                      / NGX_COORD_NSEC_PER_SEC)
                 - p;
        v->data = p;

    } else {
        s = (data == NGX_HTTP_COORD_SESSION_VAR_STATUS)
            ? &ngx_http_coord_session_statuses[state->status] : &state->value;

        if (s->len == 0) {
            return NGX_OK;
        }

        v->len = s->len;
        v->data = s->data;
    }

    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;

    return NGX_OK;
}
