
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * What a request was in need of is answered: kept for the request, counted,
 * and told where there was no answer.
 */


#include "ngx_http_coord_lookup.h"


static void ngx_http_coord_lookup_unanswered(ngx_http_request_t *r,
    ngx_http_coord_lookup_want_t *want);


void
ngx_http_coord_lookup_count(ngx_http_coord_lookup_t *lookup,
    ngx_coord_near_e state, ngx_uint_t near)
{
    ngx_coord_outcome_e  outcome;

    switch (state) {

    case NGX_COORD_NEAR_VALUE:
        outcome = near ? NGX_COORD_OUTCOME_HIT : NGX_COORD_OUTCOME_MISS;
        break;

    case NGX_COORD_NEAR_BAD:
        outcome = NGX_COORD_OUTCOME_INVALID;
        break;

    default: /* NGX_COORD_NEAR_NONE */
        outcome = NGX_COORD_OUTCOME_NONE;
        break;
    }

    ngx_coord_metrics_decision(lookup->near->zone, outcome);
}


void
ngx_http_coord_lookup_answered(ngx_http_coord_lookup_want_t *want,
    ngx_coord_near_answer_t *answer)
{
    ngx_http_request_t             *r;
    ngx_http_coord_lookup_state_t  *state;

    state = want->state;
    r = state->ctx->request;

    want->done = 1;
    want->answer.state = answer->state;

    if (answer->late) {
        ngx_http_coord_silence(state->ctx, want->lookup->near->zone->store);
    }

    if (answer->state == NGX_COORD_NEAR_UNKNOWN) {
        ngx_http_coord_lookup_unanswered(r, want);

    } else {
        ngx_http_coord_lookup_count(want->lookup, answer->state, 0);
    }

    if (answer->state == NGX_COORD_NEAR_VALUE) {
        want->answer.value.len = answer->value.len;
        want->answer.value.data = ngx_pstrdup(r->pool, &answer->value);

        if (want->answer.value.data == NULL) {
            want->answer.state = NGX_COORD_NEAR_UNKNOWN;
        }
    }

    if (--state->waiting == 0) {
        ngx_http_coord_resume(state->ctx);
    }
}


void
ngx_http_coord_lookup_unasked(ngx_http_coord_lookup_want_t *want)
{
    want->done = 1;
    want->answer.state = NGX_COORD_NEAR_UNKNOWN;

    ngx_http_coord_lookup_unanswered(want->state->ctx->request, want);
}


/* the last value, however old, or the default */

static void
ngx_http_coord_lookup_unanswered(ngx_http_request_t *r,
    ngx_http_coord_lookup_want_t *want)
{
    u_char               buf[NGX_COORD_LOG_TEXT];
    ngx_int_t            rc;
    ngx_str_t            key;
    ngx_uint_t           n, last;
    ngx_coord_zone_t    *zone;

    zone = want->lookup->near->zone;

    rc = ngx_coord_near_get(&want->item, r->pool, &want->answer);
    last = (rc != NGX_ERROR && want->answer.state != NGX_COORD_NEAR_UNKNOWN);

    ngx_coord_metrics_decision(zone, last ? NGX_COORD_OUTCOME_STALE
                                          : NGX_COORD_OUTCOME_BYPASSED);

    n = ngx_coord_log_due(&zone->unanswered, NGX_COORD_LOG_INTERVAL);

    if (n == 0) {
        return;
    }

    key = ngx_coord_log_text(buf, &want->item.key);

    ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                  "no answer for look-up \"$%V\" of \"%V\", the %s is used, "
                  "%ui requests, store: %V",
                  &want->lookup->name, &key,
                  last ? "last value" : "default", n, &zone->store->name);
}
