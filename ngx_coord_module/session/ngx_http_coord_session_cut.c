
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_session: a request that is under way is cut when its session ends.
 * Whoever ends one tells all workers; they ask the store what has become of it.
 */


#include "ngx_http_coord_session_state.h"
#include "ngx_http_coord_cut.h"
#include "ngx_coord_wake.h"


/* how often the store is asked if nobody tells, in milliseconds */
#define NGX_HTTP_COORD_SESSION_LOOK         1000
#define NGX_HTTP_COORD_SESSION_LOOK_REDIS  30000


struct ngx_http_coord_session_watch_s {
    ngx_http_request_t        *request;
    ngx_coord_waiter_t         waiter;
    ngx_coord_batch_t         *batch;     /* the store is asked; or NULL */
    ngx_coord_timer_t          timer;     /* until it ends by itself */
};


static ngx_int_t ngx_http_coord_session_news(ngx_coord_waiter_t *waiter);
static void ngx_http_coord_session_look(ngx_http_coord_session_state_t *state);
static ngx_coord_batch_t *ngx_http_coord_session_question(
    ngx_http_coord_session_state_t *state);
static void ngx_http_coord_session_looked(ngx_coord_batch_t *batch);
static void ngx_http_coord_session_found(
    ngx_http_coord_session_state_t *state, ngx_coord_session_t *session,
    ngx_int_t owned);
static void ngx_http_coord_session_due(ngx_http_coord_session_state_t *state,
    ngx_coord_nsec_t left);
static void ngx_http_coord_session_over(ngx_event_t *ev);
static void ngx_http_coord_session_cut(ngx_http_coord_session_state_t *state);


void
ngx_http_coord_session_watch(ngx_http_request_t *r,
    ngx_http_coord_session_state_t *state)
{
    ngx_coord_zone_t                *zone;
    ngx_http_coord_session_zone_t   *sz;
    ngx_http_coord_session_watch_t  *watch;

    if (!state->use->cut || state->text.len == 0 || state->watch) {
        return;
    }

    watch = ngx_pcalloc(r->pool, sizeof(ngx_http_coord_session_watch_t));
    if (watch == NULL) {
        return;
    }

    zone = state->use->zone;
    sz = zone->data;

    watch->request = r;
    watch->waiter.handler = ngx_http_coord_session_news;
    watch->waiter.data = state;

    ngx_coord_timer_init(&watch->timer, ngx_http_coord_session_over, state,
                         ngx_cycle->log);
    watch->timer.event.cancelable = 1;

    if (ngx_coord_wait_add(&watch->waiter, zone, state->key,
                           NGX_COORD_DIGEST_HEX_LEN,
                           ngx_coord_store_is_memory(zone->store)
                           ? NGX_HTTP_COORD_SESSION_LOOK
                           : NGX_HTTP_COORD_SESSION_LOOK_REDIS)
        != NGX_OK)
    {
        return;
    }

    state->watch = watch;

    if (sz->absolute && state->record.found) {
        ngx_http_coord_session_due(state, sz->absolute
                                          - ngx_http_coord_session_age(state));
    }
}


void
ngx_http_coord_session_unwatch(ngx_http_coord_session_state_t *state)
{
    ngx_http_coord_session_watch_t  *watch;

    watch = state->watch;

    if (watch == NULL) {
        return;
    }

    state->watch = NULL;

    ngx_coord_wait_remove(&watch->waiter);
    ngx_coord_timer_stop(&watch->timer);

    if (watch->batch) {
        ngx_coord_batch_done(watch->batch);
    }
}


/* each request asks for itself: their users may be seen differently */

static ngx_int_t
ngx_http_coord_session_news(ngx_coord_waiter_t *waiter)
{
    ngx_http_coord_session_look(waiter->data);

    return NGX_DECLINED;
}


static void
ngx_http_coord_session_look(ngx_http_coord_session_state_t *state)
{
    ngx_coord_batch_t               *batch;
    ngx_http_coord_session_watch_t  *watch;

    watch = state->watch;

    if (watch->batch) {

        /* it may have been read before what the news are about */

        ngx_coord_batch_done(watch->batch);
        watch->batch = NULL;
    }

    batch = ngx_http_coord_session_question(state);
    if (batch == NULL) {
        return;
    }

    batch->handler = ngx_http_coord_session_looked;
    batch->data = state;

    watch->batch = batch;

    if (ngx_coord_batch_send(batch) == NGX_OK) {
        ngx_http_coord_session_looked(batch);
    }
}


/* for its record, and whether the user who has it still does */

static ngx_coord_batch_t *
ngx_http_coord_session_question(ngx_http_coord_session_state_t *state)
{
    ngx_coord_op_t        *op;
    ngx_coord_batch_t     *batch;
    ngx_coord_session_t   *record;
    ngx_http_coord_ref_t   ref;

    batch = ngx_coord_batch_create(state->use->zone->store);
    if (batch == NULL) {
        return NULL;
    }

    record = &state->record;
    state->batch = batch;

    op = ngx_http_coord_session_op(NULL, state, &ngx_coord_op_session_get,
                                   &ref);

    if (op && ngx_coord_op_blob(op, NGX_COORD_SESSION_VALUE_LEN) != NGX_OK) {
        op = NULL;
    }

    if (op) {
        op->on_failure = NGX_COORD_FAILURE_OPEN;
    }

    if (op && record->user_len) {
        op = ngx_http_coord_session_user_op(NULL, state,
                                            &ngx_coord_op_user_check,
                                            record->user, record->user_len,
                                            &ref);
        if (op) {
            op->on_failure = NGX_COORD_FAILURE_OPEN;
        }
    }

    state->batch = NULL;

    if (op == NULL) {
        ngx_coord_batch_done(batch);
        return NULL;
    }

    return batch;
}


static void
ngx_http_coord_session_looked(ngx_coord_batch_t *batch)
{
    ngx_http_coord_session_state_t *state = batch->data;

    ngx_int_t             owned;
    ngx_coord_op_t       *get, *check;
    ngx_coord_session_t   session;

    state->watch->batch = NULL;

    get = &batch->ops[0];
    check = (batch->nops > 1) ? &batch->ops[1] : NULL;

    if (get->rc != NGX_OK || (check && check->rc != NGX_OK)) {

        /* no news */

        ngx_coord_batch_done(batch);
        return;
    }

    session = get->u.session;
    owned = NGX_DECLINED;

    if (check
        && session.user_len == check->key_len
        && ngx_memcmp(session.user, check->key, check->key_len) == 0)
    {
        owned = check->u.session.found ? NGX_OK : NGX_ERROR;
    }

    ngx_coord_batch_done(batch);

    ngx_http_coord_session_found(state, &session, owned);
}


/*
 * What stands in the store.  owned: NGX_OK, it is one of its user's; NGX_ERROR:
 * it is not any more; NGX_DECLINED: nobody has asked that user.
 */

static void
ngx_http_coord_session_found(ngx_http_coord_session_state_t *state,
    ngx_coord_session_t *session, ngx_int_t owned)
{
    ngx_http_coord_session_zone_t  *sz;

    sz = state->use->zone->data;

    if (session->revoked) {

        /* one that lives on under another id is answered before it ends */

        ngx_http_coord_session_due(state,
                                   ngx_http_coord_session_flight(sz, session));
        return;
    }

    if (!session->found) {
        return;
    }

    if (session->user_len && owned == NGX_DECLINED) {

        state->record.user_len = session->user_len;
        ngx_memcpy(state->record.user, session->user, session->user_len);

        ngx_http_coord_session_look(state);
        return;
    }

    if (session->user_len && owned == NGX_ERROR) {
        ngx_http_coord_session_mark(state);
        ngx_http_coord_session_due(state, 0);
        return;
    }

    if (sz->absolute) {
        ngx_http_coord_session_due(state, sz->absolute - session->age);
    }
}


/* the request is cut when so much time has passed */

static void
ngx_http_coord_session_due(ngx_http_coord_session_state_t *state,
    ngx_coord_nsec_t left)
{
    if (left <= 0) {
        ngx_http_coord_session_cut(state);
        return;
    }

    ngx_coord_timer_start(&state->watch->timer, ngx_coord_ceil_msec(left));
}


static void
ngx_http_coord_session_over(ngx_event_t *ev)
{
    ngx_http_coord_session_cut(ngx_coord_timer_data(ev));
}


static void
ngx_http_coord_session_cut(ngx_http_coord_session_state_t *state)
{
    ngx_http_request_t  *r;

    r = state->watch->request;

    ngx_http_coord_session_unwatch(state);

    state->outcome = NGX_COORD_OUTCOME_REVOKED;

    ngx_http_coord_session_log(r, state, NGX_HTTP_COORD_SESSION_CUT);

    if (state->conf->limiter.dry_run) {
        ngx_coord_metrics_decision(state->use->zone,
                                   NGX_COORD_OUTCOME_REVOKED_DRY_RUN);
        return;
    }

    ngx_coord_metrics_decision(state->use->zone, NGX_COORD_OUTCOME_CUT);

    ngx_http_coord_cut(r);
}
