
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_idempotency: problem documents.
 */


#include "ngx_http_coord_idempotency.h"


typedef struct {
    ngx_coord_outcome_e        outcome;
    ngx_uint_t                 status;
    ngx_str_t                  code;
    ngx_str_t                  title;
    ngx_str_t                  detail;
    const char                *log;
} ngx_http_coord_idempotency_answer_t;


static void ngx_http_coord_idempotency_problem(
    ngx_http_coord_idempotency_t *run,
    const ngx_http_coord_idempotency_answer_t *answer,
    ngx_http_coord_problem_t *problem);
static ngx_int_t ngx_http_coord_idempotency_link(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *run);


static const ngx_http_coord_idempotency_answer_t
    ngx_http_coord_idempotency_answers[] = {

    { NGX_COORD_OUTCOME_CONFLICT,
      NGX_HTTP_CONFLICT,
      ngx_string("conflict"),
      ngx_string("A request is outstanding for this Idempotency-Key"),
      ngx_string("A request with the same key is being processed; retry "
                 "when the Retry-After field says."),
      "refusing request, its twin is running" },

    { NGX_COORD_OUTCOME_MISMATCH,
      422,
      ngx_string("fingerprint-mismatch"),
      ngx_string("Idempotency-Key is already used"),
      ngx_string("The key was used with a different request; use a new key "
                 "for a new request."),
      "refusing request, its key was used for another one" },

    { NGX_COORD_OUTCOME_MISSING,
      NGX_HTTP_BAD_REQUEST,
      ngx_string("missing-key"),
      ngx_string("Idempotency-Key is missing"),
      ngx_string("This operation requires the Idempotency-Key field."),
      "refusing request without a key" },

    { NGX_COORD_OUTCOME_INVALID,
      NGX_HTTP_BAD_REQUEST,
      ngx_string("invalid-key"),
      ngx_string("Idempotency-Key is invalid"),
      ngx_string("The key must be one field line with 1 to 255 printable "
                 "ASCII characters, quoted or not."),
      "refusing request with an invalid key" },

    { NGX_COORD_OUTCOME_UNSCOPED,
      NGX_HTTP_BAD_REQUEST,
      ngx_string("missing-scope"),
      ngx_string("Idempotency-Key without a scope"),
      ngx_string("The key is only good together with what tells whose it is, "
                 "which this request leaves out."),
      "refusing request without a scope" },

    { NGX_COORD_OUTCOME_UNDECIDED, 0, ngx_null_string, ngx_null_string,
      ngx_null_string, NULL }
};


static ngx_str_t  ngx_http_coord_idempotency_link_name = ngx_string("Link");


ngx_int_t
ngx_http_coord_idempotency_refuse(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *run, ngx_coord_outcome_e outcome)
{
    ngx_http_coord_problem_t                    problem;
    const ngx_http_coord_idempotency_answer_t  *answer;

    answer = ngx_http_coord_idempotency_answers;

    while (answer->outcome != outcome) {
        answer++;
    }

    ngx_http_coord_run_set(run, NGX_COORD_RUN_BARRED);
    ngx_http_coord_run_outcome(run, outcome);
    ngx_http_coord_run_log(r, run, run->conf->limiter.log_level, answer->log);

    if (run->shadow) {
        return NGX_DECLINED;
    }

    if (ngx_http_coord_idempotency_link(r, run) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_http_coord_idempotency_problem(run, answer, &problem);

    return ngx_http_coord_refuse(r, run->ctx, &problem);
}


static void
ngx_http_coord_idempotency_problem(ngx_http_coord_idempotency_t *run,
    const ngx_http_coord_idempotency_answer_t *answer,
    ngx_http_coord_problem_t *problem)
{
    ngx_coord_nsec_t    left;
    ngx_coord_claim_t  *claim;

    ngx_memzero(problem, sizeof(ngx_http_coord_problem_t));

    problem->status = answer->status;
    problem->code = answer->code;
    problem->title = answer->title;
    problem->detail = answer->detail;

    if (run->conf->doc_url.len) {
        problem->type = run->conf->doc_url;

    } else {
        ngx_str_set(&problem->type, "about:blank");
    }

    if (answer->outcome != NGX_COORD_OUTCOME_CONFLICT) {
        return;
    }

    claim = &run->op.u.claim;

    if (claim->state == NGX_COORD_CLAIM_LAPSED) {
        ngx_str_set(&problem->detail, "An earlier request with the same key "
                                      "ended without a known outcome; find "
                                      "out what became of it.");
        return;
    }

    /*
     * As long again as the twin has run so far, within its lease: that is by
     * the clock of another worker.
     */

    left = claim->remaining - NGX_COORD_RATE_SLACK;

    if (claim->ran) {
        left = ngx_min(left, claim->ran);
    }

    problem->retry_after = ngx_max(ngx_coord_ceil_sec(left), 1);
}


static ngx_int_t
ngx_http_coord_idempotency_link(ngx_http_request_t *r,
    ngx_http_coord_idempotency_t *run)
{
    ngx_str_t   value;
    ngx_str_t  *url;

    url = &run->conf->doc_url;

    if (url->len == 0) {
        return NGX_OK;
    }

    value.len = sizeof("<>; rel=\"describedby\"") - 1 + url->len;

    value.data = ngx_pnalloc(r->pool, value.len);
    if (value.data == NULL) {
        return NGX_ERROR;
    }

    ngx_sprintf(value.data, "<%V>; rel=\"describedby\"", url);

    return ngx_http_coord_field(r, run->ctx,
                                &ngx_http_coord_idempotency_link_name,
                                &value);
}
