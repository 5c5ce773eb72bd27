
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The core of all features that may refuse a request.
 */


#include "ngx_http_coord_limiter.h"
#include "ngx_coord_decimal.h"


static void ngx_http_coord_limiter_undo_earlier(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx);
static ngx_int_t ngx_http_coord_limiter_document(ngx_http_request_t *r,
    ngx_http_coord_limiter_t *limiter, const ngx_http_coord_problem_t *problem,
    ngx_uint_t status, ngx_str_t *document, time_t *retry_after);
static ngx_int_t ngx_http_coord_violated(ngx_http_request_t *r,
    ngx_http_coord_limiter_t *limiter, ngx_str_t *members);
static void ngx_http_coord_limiter_key(ngx_coord_op_t *op);


void
ngx_http_coord_limiter_conf_init(ngx_http_coord_limiter_conf_t *conf)
{
    conf->log_level = NGX_CONF_UNSET_UINT;
    conf->status_code = NGX_CONF_UNSET_UINT;
    conf->dry_run = NGX_CONF_UNSET;
}


void
ngx_http_coord_limiter_conf_merge(ngx_http_coord_limiter_conf_t *conf,
    ngx_http_coord_limiter_conf_t *prev, ngx_uint_t status)
{
    ngx_conf_merge_uint_value(conf->log_level, prev->log_level, NGX_LOG_ERR);

    conf->delay_log_level = (conf->log_level == NGX_LOG_INFO)
                            ? NGX_LOG_INFO : conf->log_level + 1;

    ngx_conf_merge_uint_value(conf->status_code, prev->status_code, status);
    ngx_conf_merge_value(conf->dry_run, prev->dry_run, 0);
}


ngx_uint_t
ngx_http_coord_limiter_off(ngx_conf_t *cf, ngx_http_coord_limiter_conf_t *conf)
{
    ngx_str_t  *value;

    value = cf->args->elts;

    if (cf->args->nelts != 2 || ngx_strcmp(value[1].data, "off") != 0) {
        return 0;
    }

    conf->off = 1;

    return 1;
}


void *
ngx_http_coord_limits_push(ngx_conf_t *cf, ngx_str_t *name,
    ngx_array_t *limits)
{
    if (limits->nelts == NGX_HTTP_COORD_LIMITS_MAX) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "too many \"%V\" in one place, at most %d",
                           name, NGX_HTTP_COORD_LIMITS_MAX);
        return NULL;
    }

    return ngx_array_push(limits);
}


void *
ngx_http_coord_limiter_create(ngx_http_request_t *r, ngx_http_coord_ctx_t *ctx,
    ngx_http_coord_limiter_conf_t *conf, size_t size)
{
    ngx_http_coord_limiter_t  *limiter, *previous;

    limiter = ngx_pcalloc(r->pool, size);
    if (limiter == NULL) {
        return NULL;
    }

    previous = ctx->state[ctx->slot];

    /* one that has not decided begins anew, after another feature's wait */

    if (previous && previous->status == NGX_COORD_OUTCOME_UNDECIDED) {
        previous = previous->previous;
    }

    limiter->ctx = ctx;
    limiter->conf = conf;
    limiter->previous = previous;
    limiter->stage = ctx->stage;

    ctx->state[ctx->slot] = limiter;

    return limiter;
}


void *
ngx_http_coord_limiter_state(ngx_http_request_t *r,
    ngx_http_coord_feature_t *feature)
{
    ngx_http_coord_ctx_t      *ctx;
    ngx_http_coord_limiter_t  *limiter;

    ctx = ngx_http_coord_get_ctx(r);
    if (ctx == NULL) {
        return NULL;
    }

    limiter = ctx->state[feature->slot];

    while (limiter && limiter->status == NGX_COORD_OUTCOME_UNDECIDED) {
        limiter = limiter->previous;
    }

    return limiter;
}


ngx_http_coord_report_t *
ngx_http_coord_limiter_report(ngx_http_request_t *r,
    ngx_http_coord_limiter_t *limiter)
{
    ngx_http_coord_ctx_t       *ctx;
    ngx_http_coord_report_t    *report;
    ngx_http_coord_loc_conf_t  *lcf;

    ctx = limiter->ctx;

    if (ctx->reports.nelts == 0) {

        /* as configured where the limits are, not where a redirect ends */

        lcf = ngx_http_get_module_loc_conf(r, ngx_http_coord_module);
        ctx->limit_headers = lcf->limit_headers;
    }

    report = ngx_array_push(&ctx->reports);
    if (report == NULL) {
        return NULL;
    }

    ngx_memzero(report, sizeof(ngx_http_coord_report_t));

    if (limiter->nreports++ == 0) {
        limiter->first = ctx->reports.nelts - 1;
    }

    return report;
}


void
ngx_http_coord_limiter_given_back(ngx_http_coord_limiter_t *limiter)
{
    ngx_uint_t                i;
    ngx_http_coord_report_t  *report;

    if (limiter->nreports == 0) {
        return;
    }

    report = limiter->ctx->reports.elts;
    report += limiter->first;

    for (i = 0; i < limiter->nreports; i++) {

        if (report[i].taken == 0) {
            continue;
        }

        /* more requests than places, after a failover: still none is left */

        if (report[i].current <= report[i].quota) {
            report[i].remaining += report[i].taken;
        }

        if (report[i].connections) {
            report[i].current -= report[i].taken;
        }

        report[i].reset = report[i].untaken;
        report[i].taken = 0;
    }
}


void
ngx_http_coord_limiter_invalid(ngx_http_request_t *r, const char *what,
    ngx_str_t *value, ngx_coord_zone_t *zone)
{
    u_char                 buf[NGX_COORD_LOG_TEXT];
    ngx_str_t              text;
    ngx_uint_t             n;
    ngx_http_coord_ctx_t  *ctx;

    /* a part of it may be yet to be fetched */

    ctx = ngx_http_coord_get_ctx(r);

    if (ctx && ctx->missing) {
        return;
    }

    /* it may be the client's, with every request */

    n = ngx_coord_log_due(&zone->invalid, NGX_COORD_LOG_INTERVAL);

    if (n == 0) {
        return;
    }

    text = ngx_coord_log_text(buf, value);

    ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                  "invalid %s \"%V\" in zone \"%V\", %ui requests",
                  what, &text, &zone->name, n);
}


ngx_coord_outcome_e
ngx_http_coord_limiter_refused(ngx_http_coord_limiter_t *limiter,
    ngx_coord_op_t *op)
{
    if (op->rc == NGX_ERROR) {
        return limiter->conf->dry_run ? NGX_COORD_OUTCOME_BYPASSED
                                      : NGX_COORD_OUTCOME_UNAVAILABLE;
    }

    return limiter->conf->dry_run ? NGX_COORD_OUTCOME_REJECTED_DRY_RUN
                                  : NGX_COORD_OUTCOME_REJECTED;
}


void
ngx_http_coord_limiter_log_failure(ngx_http_request_t *r,
    ngx_http_coord_limiter_t *limiter, ngx_http_coord_log_fields_t *fields)
{
    ngx_http_coord_log(r, limiter->conf->log_level, fields,
                       "refusing request%s, on_failure=closed, "
                       "by %V zone \"%V\"",
                       limiter->conf->dry_run ? ", dry run" : "",
                       &fields->op->zone->kind->name,
                       &fields->op->zone->name);
}


ngx_int_t
ngx_http_coord_limiter_refuse(ngx_http_request_t *r,
    ngx_http_coord_limiter_t *limiter, const ngx_http_coord_problem_t *problem)
{
    time_t      retry_after;
    ngx_str_t   document;
    ngx_uint_t  status;

    if (limiter->conf->dry_run) {
        return NGX_DECLINED;
    }

    ngx_http_coord_limiter_undo_earlier(r, limiter->ctx);

    if (limiter->status == NGX_COORD_OUTCOME_UNAVAILABLE) {
        return ngx_http_coord_refuse_unavailable(r, limiter->ctx);
    }

    status = problem->status ? problem->status : limiter->conf->status_code;

    if (ngx_http_coord_limiter_document(r, limiter, problem, status, &document,
                                        &retry_after)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_http_coord_refuse_by(r, limiter->ctx, status, retry_after,
                                    &document);
}


/* who has passed a request in a stage before the one that refuses it */

static void
ngx_http_coord_limiter_undo_earlier(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx)
{
    ngx_uint_t                    i;
    ngx_http_coord_step_t        *step;
    ngx_http_coord_limiter_t     *limiter;
    ngx_http_coord_feature_t    **features;
    ngx_http_coord_main_conf_t   *mcf;

    if (ctx->stage == NGX_HTTP_COORD_PREACCESS) {
        return;
    }

    mcf = ngx_http_get_module_main_conf(r, ngx_http_coord_module);

    features = mcf->features.elts;

    for (i = 0; i < mcf->features.nelts; i++) {
        step = &features[i]->steps[NGX_HTTP_COORD_PREACCESS];

        if (step->undo == NULL) {
            continue;
        }

        for (limiter = ctx->state[i]; limiter; limiter = limiter->previous) {
            if (limiter->stage < ctx->stage) {
                step->undo(ctx, limiter);
            }
        }
    }
}


/*
 * What a client is told, and the longest time of those to wait, 0 if it is no
 * use.  Of one limit it is the same each time, and is kept.
 */

static ngx_int_t
ngx_http_coord_limiter_document(ngx_http_request_t *r,
    ngx_http_coord_limiter_t *limiter, const ngx_http_coord_problem_t *problem,
    ngx_uint_t status, ngx_str_t *document, time_t *retry_after)
{
    ngx_uint_t                      i, n, keep, never;
    ngx_http_coord_report_t        *report, *refused;
    ngx_http_coord_problem_t        p;
    ngx_http_coord_limiter_conf_t  *conf;

    n = 0;
    never = 0;
    refused = NULL;
    conf = limiter->conf;

    report = limiter->ctx->reports.elts;
    report += limiter->first;

    *retry_after = problem->retry_after;

    for (i = 0; i < limiter->nreports; i++) {

        if (report[i].refused) {
            n++;
            refused = &report[i];
            never |= refused->never;
            *retry_after = ngx_max(*retry_after, refused->reset);
        }
    }

    if (never) {
        *retry_after = 0;
    }

    if (n == 1 && !never && conf->violated == refused->policy.data) {
        *document = conf->document;
        return NGX_OK;
    }

    p = *problem;
    p.status = status;

    if (never) {
        ngx_str_set(&p.detail, "The request takes more than there ever is.");
    }

    if (limiter->nreports
        && ngx_http_coord_violated(r, limiter, &p.members) != NGX_OK)
    {
        return NGX_ERROR;
    }

    keep = (n == 1 && !never && conf->violated == NULL);

    if (ngx_http_coord_document(keep ? ngx_cycle->pool : r->pool, &p, document)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (keep) {
        conf->violated = refused->policy.data;
        conf->document = *document;
    }

    return NGX_OK;
}


/* the member "violated-policies" */

static ngx_int_t
ngx_http_coord_violated(ngx_http_request_t *r,
    ngx_http_coord_limiter_t *limiter, ngx_str_t *members)
{
    u_char                   *p;
    size_t                    len;
    ngx_uint_t                i, n;
    ngx_http_coord_report_t  *report;

    report = limiter->ctx->reports.elts;
    report += limiter->first;

    len = sizeof(",\"violated-policies\":[]") - 1;

    for (i = 0; i < limiter->nreports; i++) {
        len += report[i].policy.len + sizeof("\"\",") - 1;
    }

    p = ngx_pnalloc(r->pool, len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    n = 0;
    members->data = p;

    p = ngx_coord_literal(p, ",\"violated-policies\":[");

    for (i = 0; i < limiter->nreports; i++) {

        if (!report[i].refused) {
            continue;
        }

        if (n++) {
            *p++ = ',';
        }

        *p++ = '"';
        p = ngx_cpymem(p, report[i].policy.data, report[i].policy.len);
        *p++ = '"';
    }

    *p++ = ']';

    members->len = p - members->data;

    return NGX_OK;
}


ngx_int_t
ngx_http_coord_limiter_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, ngx_http_coord_feature_t *feature,
    uintptr_t data)
{
    ngx_str_t                 *zone;
    ngx_http_coord_report_t   *report;
    ngx_http_coord_limiter_t  *limiter;

    limiter = ngx_http_coord_limiter_state(r, feature);

    if (limiter == NULL) {
        v->not_found = 1;
        return NGX_OK;
    }

    report = ngx_http_coord_tightest(limiter->ctx, limiter->first,
                                     limiter->nreports);

    switch (data) {

    case NGX_HTTP_COORD_VAR_STATUS:
        return ngx_http_coord_variable_text(v,
                                 &ngx_coord_outcomes[limiter->status].status);

    case NGX_HTTP_COORD_VAR_ZONE:
        zone = (limiter->zone.len || report == NULL) ? &limiter->zone
                                                     : &report->policy;
        return ngx_http_coord_variable_text(v, zone);
    }

    if (report == NULL) {
        v->not_found = 1;
        return NGX_OK;
    }

    switch (data) {

    case NGX_HTTP_COORD_VAR_SOURCE:
        return ngx_http_coord_variable_text(v,
                                     &ngx_coord_source_names[report->source]);

    case NGX_HTTP_COORD_VAR_LIMIT:
        return ngx_http_coord_variable_number(r, v, report->quota);

    case NGX_HTTP_COORD_VAR_REMAINING:
        return ngx_http_coord_variable_number(r, v, report->remaining);

    case NGX_HTTP_COORD_VAR_RESET:
        return ngx_http_coord_variable_number(r, v, report->reset);

    default: /* NGX_HTTP_COORD_VAR_CURRENT */
        return ngx_http_coord_variable_number(r, v, report->current);
    }
}


ngx_int_t
ngx_http_coord_variable_text(ngx_http_variable_value_t *v,
    const ngx_str_t *text)
{
    if (text->len == 0) {
        v->not_found = 1;
        return NGX_OK;
    }

    v->data = text->data;
    v->len = text->len;
    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;

    return NGX_OK;
}


ngx_int_t
ngx_http_coord_variable_number(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, int64_t number)
{
    u_char  *p;

    p = ngx_pnalloc(r->pool, NGX_INT64_LEN);
    if (p == NULL) {
        return NGX_ERROR;
    }

    v->data = p;
    v->len = ngx_sprintf(p, "%L", number) - p;
    v->valid = 1;
    v->no_cacheable = 0;
    v->not_found = 0;

    return NGX_OK;
}


void
ngx_http_coord_limiter_count(ngx_coord_op_t *op, ngx_uint_t refused,
    ngx_uint_t dry_run)
{
    ngx_coord_outcome_e  outcome;

    if (op->rc == NGX_BUSY) {
        outcome = dry_run ? NGX_COORD_OUTCOME_REJECTED_DRY_RUN
                          : NGX_COORD_OUTCOME_REJECTED;

        if (op->zone->keys) {
            ngx_http_coord_limiter_key(op);
        }

    } else if (op->rc == NGX_ERROR) {
        outcome = (op->on_failure == NGX_COORD_FAILURE_CLOSED && !dry_run)
                  ? NGX_COORD_OUTCOME_UNAVAILABLE
                  : NGX_COORD_OUTCOME_BYPASSED;

    } else if (refused) {
        return;

    } else {
        outcome = NGX_COORD_OUTCOME_PASSED;
    }

    ngx_coord_metrics_decision(op->zone, outcome);
}


/* shown are addresses, or the keys as they stand in the store */

static void
ngx_http_coord_limiter_key(ngx_coord_op_t *op)
{
    size_t  len;
    u_char  text[NGX_INET6_ADDRSTRLEN];

    switch (op->address_len) {

    case sizeof(in_addr_t):
        len = ngx_inet_ntop(AF_INET, op->address, text, sizeof(text));
        break;

#if (NGX_HAVE_INET6)
    case NGX_COORD_ADDRESS_LEN:
        len = ngx_inet_ntop(AF_INET6, op->address, text, sizeof(text));
        break;
#endif

    default:
        ngx_coord_keys_refused(op->zone->counts, op->key, op->key_len);
        return;
    }

    ngx_coord_keys_refused(op->zone->counts, text, len);
}
