
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The walk of a request: features begin, the stores are asked in one round
 * trip, features decide.  The only place where a request waits and resumes.
 */


#include "ngx_http_coord.h"


static ngx_int_t ngx_http_coord_walk(ngx_http_request_t *r,
    ngx_http_coord_stage_e stage, ngx_uint_t features);
static ngx_int_t ngx_http_coord_begin(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx, ngx_uint_t features);
static ngx_int_t ngx_http_coord_ask(ngx_http_coord_ctx_t *ctx);
static ngx_int_t ngx_http_coord_decide(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx);
static ngx_int_t ngx_http_coord_end_stage(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx, ngx_int_t rc);
static void ngx_http_coord_undo_begun(ngx_http_coord_ctx_t *ctx);
static void ngx_http_coord_undo_passed(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx);
static void ngx_http_coord_drop_batches(ngx_http_coord_ctx_t *ctx);
static ngx_int_t ngx_http_coord_wait(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx);
static void ngx_http_coord_block_writing(ngx_http_request_t *r);
static void ngx_http_coord_answered(ngx_coord_batch_t *batch);


ngx_int_t
ngx_http_coord_preaccess_handler(ngx_http_request_t *r)
{
    ngx_http_coord_loc_conf_t  *clcf;

    clcf = ngx_http_get_module_loc_conf(r, ngx_http_coord_module);

    if (clcf->features[NGX_HTTP_COORD_PREACCESS] == 0) {
        return NGX_DECLINED;
    }

    return ngx_http_coord_walk(r, NGX_HTTP_COORD_PREACCESS,
                               clcf->features[NGX_HTTP_COORD_PREACCESS]);
}


ngx_int_t
ngx_http_coord_precontent_handler(ngx_http_request_t *r)
{
    ngx_http_coord_loc_conf_t  *clcf;

    clcf = ngx_http_get_module_loc_conf(r, ngx_http_coord_module);

    if (clcf->features[NGX_HTTP_COORD_PRECONTENT] == 0 || r != r->main) {
        return NGX_DECLINED;
    }

    return ngx_http_coord_walk(r, NGX_HTTP_COORD_PRECONTENT,
                               clcf->features[NGX_HTTP_COORD_PRECONTENT]);
}


static ngx_int_t
ngx_http_coord_walk(ngx_http_request_t *r, ngx_http_coord_stage_e stage,
    ngx_uint_t features)
{
    ngx_int_t              rc;
    ngx_http_coord_ctx_t  *ctx;

    ctx = ngx_http_coord_ctx(r);
    if (ctx == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (ctx->walk == NGX_HTTP_COORD_WALK_IDLE) {

        if ((features & ~ctx->decided) == 0) {
            return NGX_DECLINED;
        }

        ctx->request = r;
        ctx->stage = stage;
        ctx->walk = NGX_HTTP_COORD_WALK_BEGIN;
        ctx->slot = 0;

    } else if (ctx->request != r) {
        /* a parallel subrequest: the client request is being decided */
        return NGX_DECLINED;
    }

    for ( ;; ) {

        switch (ctx->walk) {

        case NGX_HTTP_COORD_WALK_BEGIN:
            rc = ngx_http_coord_begin(r, ctx, features);

            if (rc == NGX_OK) {
                rc = ngx_http_coord_ask(ctx);
            }

            break;

        case NGX_HTTP_COORD_WALK_ASKED:
            rc = NGX_AGAIN;

            if (ctx->in_flight == 0) {
                ctx->walk = NGX_HTTP_COORD_WALK_DECIDE;
                ctx->slot = 0;
                rc = NGX_OK;
            }

            break;

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
            ctx->slot = 0;

            ngx_http_coord_drop_batches(ctx);

            continue;
        }

        /* rc == NGX_DECLINED || rc == NGX_ERROR || a status */

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

    ngx_http_coord_drop_batches(ctx);

    ctx->walk = NGX_HTTP_COORD_WALK_IDLE;
    ctx->begun = 0;
    ctx->deciding = 0;
    ctx->passed = 0;
    ctx->again = 0;

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
    ngx_uint_t features)
{
    ngx_int_t                        rc;
    ngx_uint_t                       bit;
    ngx_http_coord_main_conf_t      *cmcf;
    const ngx_http_coord_feature_t  *feature;

    cmcf = ngx_http_get_module_main_conf(r, ngx_http_coord_module);

    for ( /* void */ ; ctx->slot < NGX_HTTP_COORD_SLOTS; ctx->slot++) {

        bit = 1 << ctx->slot;

        if ((features & ~ctx->decided & bit) == 0) {
            continue;
        }

        feature = cmcf->features[ctx->slot];

        rc = feature->begin(r, ctx);

        if (rc == NGX_DONE) {
            /* the request may be gone */
            return NGX_DONE;
        }

        ngx_log_debug2(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                       "coord %V begin: %i", &feature->name, rc);

        if (rc == NGX_DECLINED) {
            continue;
        }

        if (rc == NGX_OK) {
            ctx->begun |= bit;
            ctx->ending |= bit;
            continue;
        }

        if (rc == NGX_AGAIN) {
            ctx->ending |= bit;
        }

        return rc;
    }

    return NGX_OK;
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

    if (--ctx->in_flight == 0) {
        ngx_http_coord_resume(ctx);
    }
}


static ngx_int_t
ngx_http_coord_decide(ngx_http_request_t *r, ngx_http_coord_ctx_t *ctx)
{
    ngx_int_t                        rc;
    ngx_uint_t                       bit;
    ngx_http_coord_main_conf_t      *cmcf;
    const ngx_http_coord_feature_t  *feature;

    cmcf = ngx_http_get_module_main_conf(r, ngx_http_coord_module);

    for ( /* void */ ; ctx->slot < NGX_HTTP_COORD_SLOTS; ctx->slot++) {

        bit = 1 << ctx->slot;

        if (((ctx->begun | ctx->deciding) & bit) == 0) {
            continue;
        }

        feature = cmcf->features[ctx->slot];

        ctx->decided |= bit;
        ctx->begun &= ~bit;
        ctx->deciding = 0;

        rc = feature->decide(r, ctx);

        ngx_log_debug2(NGX_LOG_DEBUG_HTTP, r->connection->log, 0,
                       "coord %V decide: %i", &feature->name, rc);

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


/* gives back what was granted to features that did not come to decide */

static void
ngx_http_coord_undo_begun(ngx_http_coord_ctx_t *ctx)
{
    ngx_uint_t           i, j, first;
    ngx_coord_batch_t   *batch, **batches;

    if (ctx->begun == 0) {
        return;
    }

    batches = ctx->batches.elts;

    for (i = 0; i < ctx->batches.nelts; i++) {
        batch = batches[i];

        if (!batch->complete) {
            /* cancelled by ngx_coord_batch_done() */
            continue;
        }

        /* operations stand in the order of slots: the undecided are last */

        for (first = 0; first < batch->nops; first++) {
            if (ctx->begun & (1 << batch->ops[first].tag)) {
                break;
            }
        }

        for (j = first; j < batch->nops; j++) {
            if ((ctx->begun & (1 << batch->ops[j].tag)) == 0) {
                break;
            }
        }

        if (first < j) {
            ngx_coord_batch_undo(batch, first, j);
        }
    }
}


/* has features give back what they kept before another one refused */

static void
ngx_http_coord_undo_passed(ngx_http_request_t *r, ngx_http_coord_ctx_t *ctx)
{
    ngx_uint_t                       i;
    ngx_http_coord_main_conf_t      *cmcf;
    const ngx_http_coord_feature_t  *feature;

    if (ctx->passed == 0) {
        return;
    }

    cmcf = ngx_http_get_module_main_conf(r, ngx_http_coord_module);

    for (i = NGX_HTTP_COORD_SLOTS; i-- > 0; /* void */ ) {

        if ((ctx->passed & (1 << i)) == 0) {
            continue;
        }

        feature = cmcf->features[i];

        if (feature->undo) {
            feature->undo(ctx, ctx->state[i]);
        }
    }
}


static void
ngx_http_coord_drop_batches(ngx_http_coord_ctx_t *ctx)
{
    ngx_uint_t           i;
    ngx_coord_batch_t  **batches;

    batches = ctx->batches.elts;

    for (i = 0; i < ctx->batches.nelts; i++) {
        ngx_coord_batch_done(batches[i]);
    }

    ctx->batches.nelts = 0;
    ctx->in_flight = 0;
}


/*
 * Waits as ngx_http_limit_req_handler() does: the read side watches for a
 * client that leaves, the write side is quiet.
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

    ctx->waiting = 1;

    return NGX_AGAIN;
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


void
ngx_http_coord_cleanup(void *data)
{
    ngx_http_coord_ctx_t *ctx = data;

    ngx_uint_t                       i;
    ngx_http_coord_main_conf_t      *cmcf;
    const ngx_http_coord_feature_t  *feature;

    ctx->waiting = 0;

    ngx_http_coord_undo_begun(ctx);
    ngx_http_coord_drop_batches(ctx);

    if (ctx->ending == 0) {
        return;
    }

    cmcf = ngx_http_get_module_main_conf(ctx->request, ngx_http_coord_module);

    for (i = NGX_HTTP_COORD_SLOTS; i-- > 0; /* void */ ) {

        if ((ctx->ending & (1 << i)) == 0) {
            continue;
        }

        feature = cmcf->features[i];

        if (feature->end) {
            feature->end(ctx, ctx->state[i]);
        }
    }
}
