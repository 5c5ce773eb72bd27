
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_session: why a session is refused, and the line for it.
 */


#include "ngx_http_coord_session_state.h"


const ngx_http_coord_session_reason_t  ngx_http_coord_session_whys[] = {

    { ngx_string("missing-session"), ngx_string("missing"),
      NGX_COORD_OUTCOME_MISSING, NGX_COORD_OUTCOME_MISSING_DRY_RUN },

    { ngx_string("unknown-session"), ngx_string("unknown"),
      NGX_COORD_OUTCOME_MISSING, NGX_COORD_OUTCOME_MISSING_DRY_RUN },

    { ngx_string("session-mismatch"), ngx_string("mismatch"),
      NGX_COORD_OUTCOME_MISMATCH, NGX_COORD_OUTCOME_MISMATCH_DRY_RUN },

    { ngx_string("session-revoked"), ngx_string("revoked"),
      NGX_COORD_OUTCOME_REVOKED, NGX_COORD_OUTCOME_REVOKED_DRY_RUN },

    { ngx_string("too-many-sessions"), ngx_string("over max_per_user"),
      NGX_COORD_OUTCOME_REJECTED, NGX_COORD_OUTCOME_REJECTED_DRY_RUN },

    { ngx_string("store-unavailable"),
      ngx_string("unavailable, on_failure=closed"),
      NGX_COORD_OUTCOME_UNAVAILABLE, NGX_COORD_OUTCOME_BYPASSED },

    { ngx_string("session-revoked"), ngx_string("revoked, request cut"),
      NGX_COORD_OUTCOME_CUT, NGX_COORD_OUTCOME_REVOKED_DRY_RUN }
};


void
ngx_http_coord_session_log(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state, ngx_http_coord_session_why_e why)
{
    ngx_coord_op_t               op;
    ngx_http_coord_log_fields_t  fields;

    if (state->conf->limiter.log_level > r->connection->log->log_level) {
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
    fields.outcome = state->outcome;

    ngx_http_coord_log(r, state->conf->limiter.log_level, &fields,
                       "session %V%s, by zone \"%V\"",
                       &ngx_http_coord_session_whys[why].what,
                       state->conf->limiter.dry_run ? ", dry run" : "",
                       &state->use->zone->name);
}
