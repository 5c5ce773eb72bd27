
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The walk of a request: features begin, the stores are asked in one round
 * trip, features decide.  The only place where a request waits and resumes.
 */


#include "ngx_http_coord.h"
#include "ngx_http_coord_body.h"


/* how long an answer may take for who sends no more, milliseconds */
#define NGX_HTTP_COORD_GRACE  100


static ngx_int_t ngx_http_coord_walk(ngx_http_request_t *r,
    ngx_http_coord_stage_e stage, ngx_uint_t used);
static ngx_int_t ngx_http_coord_begin(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx, ngx_uint_t used);
static ngx_int_t ngx_http_coord_open(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx);
static ngx_int_t ngx_http_coord_fetch(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx);
static ngx_int_t ngx_http_coord_ask(ngx_http_coord_ctx_t *ctx);
static ngx_int_t ngx_http_coord_decide(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx);
static ngx_int_t ngx_http_coord_end_stage(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx, ngx_int_t rc);
static ngx_int_t ngx_http_coord_walk_start(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx, ngx_http_coord_stage_e stage,
    ngx_uint_t used);
static ngx_coord_apart ngx_int_t ngx_http_coord_begin_shown(
    ngx_http_request_t *r, ngx_http_coord_ctx_t *ctx, ngx_uint_t used);
static void ngx_http_coord_undo_passed(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx);
static ngx_int_t ngx_http_coord_wait(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx);
static void ngx_http_coord_test_reading(ngx_http_request_t *r);
static void ngx_http_coord_block_writing(ngx_http_request_t *r);
static void ngx_http_coord_answered(ngx_coord_batch_t *batch);


ngx_int_t
ngx_http_coord_preaccess_handler(ngx_http_request_t *r)
{
    ngx_http_coord_loc_conf_t  *lcf;

    lcf = ngx_http_get_module_loc_conf(r, ngx_http_coord_module);

    if (lcf->features[NGX_HTTP_COORD_PREACCESS] == 0) {
        return NGX_DECLINED;
    }

    return ngx_http_coord_walk(r, NGX_HTTP_COORD_PREACCESS,
                               lcf->features[NGX_HTTP_COORD_PREACCESS]);
}


ngx_int_t
ngx_http_coord_precontent_handler(ngx_http_request_t *r)
{
    ngx_uint_t                   used;
    ngx_http_coord_ctx_t        *ctx;
    ngx_http_coord_loc_conf_t   *lcf;
    ngx_http_coord_main_conf_t  *mcf;

    lcf = ngx_http_get_module_loc_conf(r, ngx_http_coord_module);
    mcf = ngx_http_get_module_main_conf(r, ngx_http_coord_module);

    used = lcf->features[NGX_HTTP_COORD_PRECONTENT];

    if (r != r->main) {
        /* decided with its client request, but its content may need values */
        used &= mcf->supply ? (ngx_uint_t) 1 << mcf->supply->feature->slot : 0;
    }

    if (used == 0) {
        return NGX_DECLINED;
    }

    /* with "after_body" nothing is evaluated before the body is there */

    if (mcf->supply
        && !ngx_http_coord_wants_body(r, lcf, NGX_HTTP_COORD_PRECONTENT))
    {
        ctx = ngx_http_coord_get_ctx(r);

        if (ctx == NULL || ctx->walk == NGX_HTTP_COORD_WALK_IDLE) {
            used &= ~mcf->supply->ready(r);
        }

        if (used == 0) {
            return NGX_DECLINED;
        }
    }

    return ngx_http_coord_walk(r, NGX_HTTP_COORD_PRECONTENT, used);
}


/*
 * With "after_body" the body is there before any feature begins: values that
 * one evaluates may be cached for all.  NGX_OK, or what the handler returns.
 */

static ngx_int_t
ngx_http_coord_walk_start(ngx_http_request_t *r, ngx_http_coord_ctx_t *ctx,
    ngx_http_coord_stage_e stage, ngx_uint_t used)
{
    ngx_int_t                   rc;
    ngx_http_coord_loc_conf_t  *lcf;

    if ((used & ~ctx->decided[stage]) == 0) {
        return NGX_DECLINED;
    }

    lcf = ngx_http_get_module_loc_conf(r, ngx_http_coord_module);

    if (ngx_http_coord_wants_body(r, lcf, stage)) {
        rc = ngx_http_coord_body_read(r);

        if (rc == NGX_DECLINED) {
            ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                          "\"after_body\": the body was sent to an upstream "
                          "without buffering, nothing is left of it");
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }

        if (rc != NGX_OK) {
            return rc;
        }
    }

    ctx->request = r;
    ctx->stage = stage;
    ctx->walk = NGX_HTTP_COORD_WALK_BEGIN;
    ctx->next = 0;

    return NGX_OK;
}


static ngx_int_t
ngx_http_coord_begin_shown(ngx_http_request_t *r, ngx_http_coord_ctx_t *ctx,
    ngx_uint_t used)
{
    ngx_int_t                    rc;
    ngx_http_coord_body_shown_t  shown;

    if (ngx_http_coord_body_show(r, &shown) != NGX_OK) {
        return NGX_ERROR;
    }

    rc = ngx_http_coord_begin(r, ctx, used);

    ngx_http_coord_body_hide(r, &shown);

    return rc;
}


static ngx_int_t
ngx_http_coord_walk(ngx_http_request_t *r, ngx_http_coord_stage_e stage,
    ngx_uint_t used)
{
    ngx_int_t                   rc;
    ngx_http_coord_ctx_t       *ctx;
    ngx_http_coord_loc_conf_t  *lcf;

    ctx = ngx_http_coord_ctx(r);
    if (ctx == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    lcf = ngx_http_get_module_loc_conf(r, ngx_http_coord_module);

    if (ctx->walk == NGX_HTTP_COORD_WALK_IDLE) {
        rc = ngx_http_coord_walk_start(r, ctx, stage, used);

        if (rc != NGX_OK) {
            return rc;
        }

    } else if (ctx->request != r) {
        return ngx_http_coord_behind(r, ctx);
    }

    for ( ;; ) {

        switch (ctx->walk) {

        case NGX_HTTP_COORD_WALK_BEGIN:
            rc = ngx_http_coord_wants_body(r, lcf, ctx->stage)
                 ? ngx_http_coord_begin_shown(r, ctx, used)
                 : ngx_http_coord_begin(r, ctx, used);

            if (rc == NGX_OK) {
                rc = ctx->missing ? ngx_http_coord_fetch(r, ctx)
                                  : ngx_http_coord_ask(ctx);
            }

            break;

        case NGX_HTTP_COORD_WALK_ASKED:

            if (ctx->in_flight) {
                rc = NGX_AGAIN;
                break;
            }

            ctx->walk = NGX_HTTP_COORD_WALK_DECIDE;
            ctx->next = 0;

            /* fall through */

        default: /* NGX_HTTP_COORD_WALK_DECIDE */
            rc = ngx_http_coord_decide(r, ctx);
            break;
        }

        if (rc == NGX_OK) {
            continue;
        }

        if (rc == NGX_AGAIN) {
            return ngx_http_coord_wait(r, ctx);
        }

        if (rc == NGX_DONE) {
            return NGX_DONE;
        }

        if (rc == NGX_DECLINED && ctx->again) {
            ctx->again = 0;
            ctx->walk = NGX_HTTP_COORD_WALK_BEGIN;
            ctx->next = 0;

            ngx_http_coord_drop_batches(ctx, 0);

            continue;
        }

        return ngx_http_coord_end_stage(r, ctx, rc);
    }
}


static ngx_int_t
ngx_http_coord_end_stage(ngx_http_request_t *r, ngx_http_coord_ctx_t *ctx,
    ngx_int_t rc)
{
    ngx_http_coord_respond_pt  respond;

    if (rc != NGX_DECLINED) {
        ngx_http_coord_undo_passed(r, ctx);
        ngx_http_coord_undo_begun(ctx);
    }

    ngx_http_coord_drop_batches(ctx, rc != NGX_DECLINED);

    ctx->walk = NGX_HTTP_COORD_WALK_IDLE;
    ctx->begun = 0;
    ctx->deciding = 0;
    ctx->passed = 0;
    ctx->again = 0;

    rc = ngx_http_coord_behind_goes(ctx, rc);

    if (rc == NGX_DECLINED) {
        return NGX_DECLINED;
    }

    if (rc == NGX_ERROR) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    respond = ctx->respond;

    if (respond == NULL) {
        return rc;
    }

    ctx->respond = NULL;

    ngx_http_finalize_request(r, respond(r, ctx));

    return NGX_DONE;
}


static ngx_int_t
ngx_http_coord_begin(ngx_http_request_t *r, ngx_http_coord_ctx_t *ctx,
    ngx_uint_t used)
{
    ngx_int_t                    rc;
    ngx_uint_t                   bit;
    ngx_array_t                 *steps;
    ngx_http_coord_step_t       *step;
    ngx_http_coord_feature_t    *feature, **features;
    ngx_http_coord_main_conf_t  *mcf;

    mcf = ngx_http_get_module_main_conf(r, ngx_http_coord_module);

    if (mcf->supply && ctx->next == 0
        && ngx_http_coord_open(r, ctx) != NGX_OK)
    {
        return NGX_ERROR;
    }

    steps = &mcf->steps[ctx->stage];
    features = steps->elts;

    used &= ~ctx->decided[ctx->stage];

    for ( /* void */ ; used && ctx->next < steps->nelts; ctx->next++) {
        feature = features[ctx->next];
        bit = 1 << feature->slot;

        if ((used & bit) == 0) {
            continue;
        }

        used &= ~bit;
        ctx->slot = feature->slot;

        step = &feature->steps[ctx->stage];

        if ((step->flags & NGX_HTTP_COORD_STEP_LATE)
            && (ctx->begun & mcf->answers[ctx->stage]))
        {
            ctx->again = 1;
            break;
        }

        rc = step->begin(r, ctx);

        if (rc == NGX_DONE) {
            /* the request may be gone */
            return NGX_DONE;
        }

        ngx_log_debug2(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                       "coord %V begin: %i", &feature->kind.name, rc);

        if (ctx->missing && (step->flags & NGX_HTTP_COORD_STEP_FIRST)) {
            break;
        }

        if (rc == NGX_DECLINED) {
            continue;
        }

        if (rc == NGX_OK) {
            ctx->begun |= bit;
            ctx->ending |= bit;
            continue;
        }

        if (ctx->missing && rc != NGX_AGAIN) {
            /* it begins anew, and others may miss more */
            continue;
        }

        if (rc == NGX_AGAIN) {
            ctx->ending |= bit;

        } else {
            ngx_http_coord_settled(ctx);
        }

        return rc;
    }

    return NGX_OK;
}


/* the features of the stage begin: notes what is to be as it was then */

static ngx_int_t
ngx_http_coord_open(ngx_http_request_t *r, ngx_http_coord_ctx_t *ctx)
{
    ngx_http_coord_main_conf_t  *mcf;

    mcf = ngx_http_get_module_main_conf(r, ngx_http_coord_module);

    ctx->missing = 0;

    ctx->mark.decided = ctx->decided[ctx->stage];
    ctx->mark.nreports = ctx->reports.nelts;
    ctx->mark.retry_after = ctx->retry_after;

    return mcf->supply->open(r, ctx);
}


/* values are missing: nothing was asked, and nothing of it has happened */

static ngx_int_t
ngx_http_coord_fetch(ngx_http_request_t *r, ngx_http_coord_ctx_t *ctx)
{
    ngx_http_coord_main_conf_t  *mcf;

    mcf = ngx_http_get_module_main_conf(r, ngx_http_coord_module);

    ngx_http_coord_drop_batches(ctx, 0);

    ctx->next = 0;
    ctx->begun = 0;
    ctx->again = 0;
    ctx->missing = 0;
    ctx->respond = NULL;

    /* ctx->fields stay: an id that was issued is not issued again */

    ctx->decided[ctx->stage] = ctx->mark.decided;
    ctx->retry_after = ctx->mark.retry_after;

    ctx->reports.nelts = ctx->mark.nreports;

    return mcf->supply->fetch(r, ctx);
}


/* NGX_OK: answered or nothing to ask; NGX_AGAIN: answers will come */

static ngx_int_t
ngx_http_coord_ask(ngx_http_coord_ctx_t *ctx)
{
    ngx_uint_t           i;
    ngx_coord_batch_t  **batches;

    ctx->walk = NGX_HTTP_COORD_WALK_ASKED;

    batches = ctx->batches.elts;

    for (i = 0; i < ctx->batches.nelts; i++) {
        batches[i]->handler = ngx_http_coord_answered;
        batches[i]->data = ctx;
        batches[i]->silent = ngx_http_coord_is_silent(ctx, batches[i]->store);

        if (ngx_coord_batch_send(batches[i]) == NGX_AGAIN) {
            ctx->in_flight++;
        }
    }

    return ctx->in_flight ? NGX_AGAIN : NGX_OK;
}


static void
ngx_http_coord_answered(ngx_coord_batch_t *batch)
{
    ngx_http_coord_ctx_t *ctx = batch->data;

    ngx_http_coord_batch_answered(ctx, batch);

    if (--ctx->in_flight == 0) {
        ngx_http_coord_resume(ctx);
    }
}


static ngx_int_t
ngx_http_coord_decide(ngx_http_request_t *r, ngx_http_coord_ctx_t *ctx)
{
    ngx_int_t                    rc;
    ngx_uint_t                   bit, due;
    ngx_array_t                 *steps;
    ngx_http_coord_feature_t    *feature, **features;
    ngx_http_coord_main_conf_t  *mcf;

    mcf = ngx_http_get_module_main_conf(r, ngx_http_coord_module);

    steps = &mcf->steps[ctx->stage];
    features = steps->elts;

    for ( /* void */ ; ctx->next < steps->nelts; ctx->next++) {

        due = ctx->begun | ctx->deciding;

        if (due == 0) {
            break;
        }

        feature = features[ctx->next];
        bit = 1 << feature->slot;

        if ((due & bit) == 0) {
            continue;
        }

        ctx->slot = feature->slot;

        ctx->decided[ctx->stage] |= bit;
        ctx->begun &= ~bit;
        ctx->deciding = 0;

        rc = feature->steps[ctx->stage].decide(r, ctx);

        ngx_log_debug2(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                       "coord %V decide: %i", &feature->kind.name, rc);

        if (rc == NGX_DECLINED) {
            ctx->passed |= bit;
            continue;
        }

        if (rc == NGX_AGAIN) {

            /*
             * The request waits for this feature; meanwhile it holds nothing
             * of those behind it, which begin anew when it goes on.
             */

            if (ctx->begun) {
                ngx_http_coord_undo_begun(ctx);
                ctx->again = 1;
            }

            ctx->begun = 0;
            ctx->deciding = bit;
        }

        return rc;
    }

    return NGX_DECLINED;
}


/* has features give back what they kept before another one refused */

static void
ngx_http_coord_undo_passed(ngx_http_request_t *r, ngx_http_coord_ctx_t *ctx)
{
    ngx_uint_t                    i;
    ngx_array_t                  *steps;
    ngx_http_coord_step_t        *step;
    ngx_http_coord_feature_t    **features;
    ngx_http_coord_main_conf_t   *mcf;

    if (ctx->passed == 0) {
        return;
    }

    mcf = ngx_http_get_module_main_conf(r, ngx_http_coord_module);

    steps = &mcf->steps[ctx->stage];
    features = steps->elts;

    for (i = steps->nelts; i-- > 0; /* void */ ) {

        if ((ctx->passed & (1 << features[i]->slot)) == 0) {
            continue;
        }

        step = &features[i]->steps[ctx->stage];

        if (step->undo) {
            step->undo(ctx, ctx->state[features[i]->slot]);
        }
    }
}


/*
 * Waits as ngx_http_limit_req_handler() does: the read side watches for a
 * client that leaves, the write side is quiet.  While the stores are asked who
 * has only ended what he sends may not have left, as with handlers that do not
 * wait at all.
 */

static ngx_int_t
ngx_http_coord_wait(ngx_http_request_t *r, ngx_http_coord_ctx_t *ctx)
{
    ngx_event_t  *rev;

    rev = r->connection->read;

    if (rev->ready) {
        ngx_post_event(rev, &ngx_posted_events);

    } else if (ngx_handle_read_event(rev, 0) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    r->read_event_handler = ngx_http_test_reading;
    r->write_event_handler = ngx_http_coord_block_writing;

    if (ctx->walk != NGX_HTTP_COORD_WALK_DECIDE
        && r->http_version < NGX_HTTP_VERSION_20)
    {
        r->read_event_handler = ngx_http_coord_test_reading;
    }

    ctx->waiting = 1;

    return NGX_AGAIN;
}


/* of HTTP/1, where the end of what is sent may be that of the client or not */

static void
ngx_http_coord_test_reading(ngx_http_request_t *r)
{
    ngx_event_t  *rev;

    rev = r->connection->read;

    if (rev->timedout) {
        rev->timedout = 0;
        ngx_http_test_reading(r);
        return;
    }

#if (NGX_HAVE_EPOLLRDHUP)

    if ((ngx_event_flags & NGX_USE_EPOLL_EVENT)
        && ngx_use_epoll_rdhup
        && !rev->pending_eof)
    {
        return;
    }

#endif

    if (!rev->timer_set) {
        ngx_add_timer(rev, NGX_HTTP_COORD_GRACE);
    }

    if ((ngx_event_flags & NGX_USE_LEVEL_EVENT)
        && rev->active
        && ngx_del_event(rev, NGX_READ_EVENT, 0) != NGX_OK)
    {
        ngx_http_finalize_request(r, NGX_HTTP_INTERNAL_SERVER_ERROR);
    }
}


static void
ngx_http_coord_block_writing(ngx_http_request_t *r)
{
    ngx_log_debug0(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                   "coord waits, write event");

    if (ngx_handle_write_event(r->connection->write, 0) != NGX_OK) {
        ngx_http_finalize_request(r, NGX_HTTP_INTERNAL_SERVER_ERROR);
    }
}


void
ngx_http_coord_resume(ngx_http_coord_ctx_t *ctx)
{
    ngx_connection_t    *c;
    ngx_http_request_t  *r;

    if (!ctx->waiting) {
        return;
    }

    ctx->waiting = 0;

    r = ctx->request;
    c = r->connection;

    ngx_http_set_log_request(c->log, r);

    /* as ngx_http_handler(): others of the connection were at work meanwhile */

    c->log->action = NULL;

    if (r->read_event_handler == ngx_http_coord_test_reading
        && c->read->timer_set)
    {
        ngx_del_timer(c->read);
    }

    ngx_log_debug1(NGX_LOG_DEBUG_HTTP, c->log, 0,
                   "coord resume \"%V\"", &r->uri);

    if (ngx_handle_read_event(c->read, 0) != NGX_OK) {
        ngx_http_finalize_request(r, NGX_HTTP_INTERNAL_SERVER_ERROR);
        ngx_http_run_posted_requests(c);
        return;
    }

    r->read_event_handler = ngx_http_block_reading;
    r->write_event_handler = ngx_http_core_run_phases;

    ngx_http_core_run_phases(r);

    ngx_http_run_posted_requests(c);
}
