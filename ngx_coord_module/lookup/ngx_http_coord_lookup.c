
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * A look-up is a variable that is read from shared memory.  What is not there
 * is noted while the features of a stage evaluate their keys and rates; then
 * it is fetched and they evaluate anew.  So the look-ups of a location are
 * those that its limits use, and one whose key holds another one follows by
 * itself.  Before the content all that the configuration refers to are read in
 * the same way.
 */


#include "ngx_http_coord_lookup.h"


/* look-ups whose keys hold look-ups whose keys hold .. */
#define NGX_HTTP_COORD_LOOKUP_ROUNDS  8


static void ngx_http_coord_lookup_item(ngx_http_coord_lookup_t *lookup,
    ngx_coord_near_item_t *item);
static void ngx_http_coord_lookup_ahead(ngx_coord_near_item_t *item);
static ngx_int_t ngx_http_coord_lookup_default(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, ngx_http_coord_lookup_t *lookup);
static void ngx_http_coord_lookup_value(ngx_http_variable_value_t *v,
    ngx_str_t *value);
static ngx_http_coord_lookup_state_t *ngx_http_coord_lookup_collecting(
    ngx_http_coord_ctx_t *ctx);
static ngx_http_coord_lookup_want_t *ngx_http_coord_lookup_find(
    ngx_http_coord_lookup_state_t *state, ngx_http_coord_lookup_t *lookup,
    ngx_str_t *key);
static ngx_int_t ngx_http_coord_lookup_miss(ngx_http_request_t *r,
    ngx_http_coord_lookup_state_t *state, ngx_coord_near_item_t *item,
    ngx_http_coord_lookup_t *lookup);
static ngx_uint_t ngx_http_coord_lookup_ready(ngx_http_request_t *r);
static ngx_uint_t ngx_http_coord_lookup_all(ngx_http_request_t *r);
static ngx_int_t ngx_http_coord_lookup_open(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx);
static ngx_int_t ngx_http_coord_lookup_fetch(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx);
static void ngx_http_coord_lookup_void(ngx_http_request_t *r,
    ngx_http_coord_lookup_state_t *state);
static void ngx_http_coord_lookup_told(ngx_coord_near_wait_t *wait,
    ngx_coord_near_answer_t *answer);
static ngx_int_t ngx_http_coord_lookup_begin(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx);
static ngx_uint_t ngx_http_coord_lookup_try(ngx_http_request_t *r);
static void ngx_http_coord_lookup_forget(ngx_http_request_t *r);
static ngx_int_t ngx_http_coord_lookup_decide(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx);
static void ngx_http_coord_lookup_end(ngx_http_coord_ctx_t *ctx, void *data);


/* all are tried at once; how many were missing for who tries or collects */
static ngx_uint_t  ngx_http_coord_lookup_trying;
static ngx_uint_t  ngx_http_coord_lookup_missing;


const ngx_http_coord_supply_t  ngx_http_coord_lookup_supply = {
    &ngx_http_coord_lookup_feature,
    ngx_http_coord_lookup_ready,
    ngx_http_coord_lookup_open,
    ngx_http_coord_lookup_fetch
};


ngx_http_coord_feature_t  ngx_http_coord_lookup_feature = {

    { ngx_string("lookup"),
      ngx_string("lu"),
      ngx_coord_outcome_bit(HIT)
      | ngx_coord_outcome_bit(MISS)
      | ngx_coord_outcome_bit(NONE)
      | ngx_coord_outcome_bit(INVALID)
      | ngx_coord_outcome_bit(STALE)
      | ngx_coord_outcome_bit(BYPASSED),
      0,
      0 },

    {
        ngx_http_coord_no_step,            /* preaccess: by the supply */

        { 5,                               /* precontent: before all */
          ngx_http_coord_lookup_begin,
          ngx_http_coord_lookup_decide,
          NULL,
          NGX_HTTP_COORD_STEP_FIRST }
    },

    ngx_http_coord_lookup_end,
    NULL,
    ngx_http_coord_lookup_routes,
    0
};


ngx_int_t
ngx_http_coord_lookup_variable(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, uintptr_t data)
{
    ngx_http_coord_lookup_t *lookup = (ngx_http_coord_lookup_t *) data;

    ngx_int_t                       rc;
    ngx_uint_t                      missing;
    ngx_http_coord_ctx_t           *ctx;
    ngx_coord_near_item_t           item;
    ngx_coord_near_answer_t         answer;
    ngx_http_coord_lookup_want_t   *want;
    ngx_http_coord_lookup_state_t  *state;

    ctx = ngx_http_coord_get_ctx(r);
    state = ngx_http_coord_lookup_collecting(ctx);
    missing = ngx_http_coord_lookup_missing;

    /* too early, or its key is yet to be known: not for the whole request */

    v->no_cacheable = 1;

    if (ngx_http_coord_value(r, lookup->key, &item.key) != NGX_OK) {
        return NGX_ERROR;
    }

    if (ngx_http_coord_lookup_missing != missing) {
        v->not_found = 1;
        return NGX_OK;
    }

    if (item.key.len == 0) {
        return ngx_http_coord_lookup_default(r, v, lookup);
    }

    want = ctx ? ngx_http_coord_lookup_find(
                        ctx->state[ngx_http_coord_lookup_feature.slot],
                        lookup, &item.key)
               : NULL;

    if (want && want->done) {
        answer = want->answer;
        rc = NGX_OK;

    } else {
        ngx_http_coord_lookup_item(lookup, &item);

        rc = ngx_coord_near_get(&item, r->pool, &answer);

        if (rc == NGX_ERROR) {
            return NGX_ERROR;
        }

        if (rc == NGX_AGAIN && (state || ngx_http_coord_lookup_trying)) {
            ngx_http_coord_lookup_missing++;
            v->not_found = 1;

            return state ? ngx_http_coord_lookup_miss(r, state, &item, lookup)
                         : NGX_OK;
        }

        if (rc == NGX_OK) {
            ngx_http_coord_lookup_count(lookup, answer.state, 1);

        } else {
            ngx_http_coord_lookup_ahead(&item);
        }
    }

    /* too late, or of a subrequest: not for the whole client request */

    v->no_cacheable = (rc == NGX_AGAIN || r != r->main);

    if (answer.state == NGX_COORD_NEAR_VALUE) {
        ngx_http_coord_lookup_value(v, &answer.value);
        return NGX_OK;
    }

    return ngx_http_coord_lookup_default(r, v, lookup);
}


/* what is asked for, but for its key */

static void
ngx_http_coord_lookup_item(ngx_http_coord_lookup_t *lookup,
    ngx_coord_near_item_t *item)
{
    item->near = lookup->near;
    item->field = lookup->field;
    item->ttl = lookup->ttl;
    item->negative_ttl = lookup->negative_ttl;
    item->made = (lookup->load != NULL);
    item->copy = 0;
}


/*
 * Where nobody can wait, as in "if" and "return": it is asked for all the same,
 * so that those who come later have it.
 */

static void
ngx_http_coord_lookup_ahead(ngx_coord_near_item_t *item)
{
    ngx_coord_near_wait_t  wait;

    if (ngx_coord_near_useful(item->near)
        && ngx_coord_near_fetch(item, &wait) == NGX_OK)
    {
        ngx_coord_near_leave(&wait);
    }
}


static ngx_int_t
ngx_http_coord_lookup_default(ngx_http_request_t *r,
    ngx_http_variable_value_t *v, ngx_http_coord_lookup_t *lookup)
{
    ngx_str_t  value;

    if (lookup->value == NULL) {
        v->not_found = 1;
        return NGX_OK;
    }

    if (ngx_http_complex_value(r, lookup->value, &value) != NGX_OK) {
        return NGX_ERROR;
    }

    ngx_http_coord_lookup_value(v, &value);

    return NGX_OK;
}


static void
ngx_http_coord_lookup_value(ngx_http_variable_value_t *v, ngx_str_t *value)
{
    v->valid = 1;
    v->not_found = 0;
    v->len = value->len;
    v->data = value->data;
}


/* NULL: what is missing now is not fetched */

static ngx_http_coord_lookup_state_t *
ngx_http_coord_lookup_collecting(ngx_http_coord_ctx_t *ctx)
{
    ngx_http_coord_lookup_state_t  *state;

    if (ctx == NULL || ctx->walk != NGX_HTTP_COORD_WALK_BEGIN) {
        return NULL;
    }

    state = ctx->state[ngx_http_coord_lookup_feature.slot];

    if (state == NULL || state->waiting
        || state->rounds == NGX_HTTP_COORD_LOOKUP_ROUNDS)
    {
        return NULL;
    }

    return state;
}


static ngx_http_coord_lookup_want_t *
ngx_http_coord_lookup_find(ngx_http_coord_lookup_state_t *state,
    ngx_http_coord_lookup_t *lookup, ngx_str_t *key)
{
    ngx_http_coord_lookup_want_t  *want;

    if (state == NULL) {
        return NULL;
    }

    for (want = state->wants; want; want = want->next) {
        if (want->lookup == lookup
            && want->item.key.len == key->len
            && ngx_memcmp(want->item.key.data, key->data, key->len) == 0)
        {
            return want;
        }
    }

    return NULL;
}


static ngx_int_t
ngx_http_coord_lookup_miss(ngx_http_request_t *r,
    ngx_http_coord_lookup_state_t *state, ngx_coord_near_item_t *item,
    ngx_http_coord_lookup_t *lookup)
{
    ngx_http_coord_lookup_want_t  *want;

    state->ctx->missing = 1;

    if (ngx_http_coord_lookup_find(state, lookup, &item->key)) {
        return NGX_OK;
    }

    want = ngx_pcalloc(r->pool, sizeof(ngx_http_coord_lookup_want_t));
    if (want == NULL) {
        return NGX_ERROR;
    }

    want->state = state;
    want->lookup = lookup;
    want->item = *item;

    want->item.key.data = ngx_pstrdup(r->pool, &item->key);
    if (want->item.key.data == NULL) {
        return NGX_ERROR;
    }

    want->next = state->wants;
    state->wants = want;

    return NGX_OK;
}


/*
 * Variables that the features evaluate from now on may hold what is missing,
 * through a map or another variable, and nginx keeps them for the request:
 * those are evaluated anew with the features.
 */

static ngx_int_t
ngx_http_coord_lookup_open(ngx_http_request_t *r, ngx_http_coord_ctx_t *ctx)
{
    ngx_uint_t                       i, n, slot;
    ngx_http_core_main_conf_t       *cmcf;
    ngx_http_coord_lookup_state_t   *state;

    cmcf = ngx_http_get_module_main_conf(r, ngx_http_core_module);

    n = cmcf->variables.nelts;
    slot = ngx_http_coord_lookup_feature.slot;
    state = ctx->state[slot];

    if (state == NULL) {
        state = ngx_pcalloc(r->pool, sizeof(ngx_http_coord_lookup_state_t)
                                     + n);
        if (state == NULL) {
            return NGX_ERROR;
        }

        state->ctx = ctx;
        state->valid = (u_char *) (state + 1);

        ctx->state[slot] = state;
    }

    if (r != r->main) {
        ngx_http_coord_lookup_forget(r);
    }

    if (state->request != r || state->stage != ctx->stage) {
        state->request = r;
        state->stage = ctx->stage;
        state->rounds = 0;
    }

    for (i = 0; i < n; i++) {
        state->valid[i] = r->variables[i].valid | r->variables[i].not_found;
    }

    return NGX_OK;
}


static void
ngx_http_coord_lookup_void(ngx_http_request_t *r,
    ngx_http_coord_lookup_state_t *state)
{
    ngx_uint_t                  i;
    ngx_http_core_main_conf_t  *cmcf;

    cmcf = ngx_http_get_module_main_conf(r, ngx_http_core_module);

    for (i = 0; i < cmcf->variables.nelts; i++) {
        if (!state->valid[i]) {
            r->variables[i].valid = 0;
            r->variables[i].not_found = 0;
        }
    }
}


static ngx_int_t
ngx_http_coord_lookup_fetch(ngx_http_request_t *r, ngx_http_coord_ctx_t *ctx)
{
    ngx_uint_t                      slot;
    ngx_http_coord_lookup_want_t   *want;
    ngx_http_coord_lookup_state_t  *state;

    slot = ngx_http_coord_lookup_feature.slot;
    state = ctx->state[slot];

    state->rounds++;

    ngx_http_coord_lookup_void(r, state);

    ctx->ending |= 1 << slot;

    for (want = state->wants; want; want = want->next) {

        if (want->asked) {
            continue;
        }

        want->asked = 1;

        if (ngx_http_coord_is_silent(ctx, want->lookup->near->zone->store)) {
            ngx_http_coord_lookup_unasked(want);
            continue;
        }

        want->wait.handler = ngx_http_coord_lookup_told;
        want->wait.data = want;

        if (ngx_coord_near_fetch(&want->item, &want->wait) != NGX_OK) {
            return NGX_ERROR;
        }

        state->waiting++;
    }

    return state->waiting ? NGX_AGAIN : NGX_OK;
}


static void
ngx_http_coord_lookup_told(ngx_coord_near_wait_t *wait,
    ngx_coord_near_answer_t *answer)
{
    ngx_http_coord_lookup_want_t *want = wait->data;

    if (answer->state == NGX_COORD_NEAR_NONE
        && want->lookup->load
        && ngx_http_coord_lookup_load(want) == NGX_OK)
    {
        return;
    }

    ngx_http_coord_lookup_answered(want, answer);
}


/*
 * Before the content, where nobody waits for anything: all that are at hand
 * need no walk.  Otherwise nothing has been evaluated.
 */

static ngx_uint_t
ngx_http_coord_lookup_ready(ngx_http_request_t *r)
{
    ngx_uint_t  ready;

    ngx_http_coord_lookup_trying = 1;
    ready = ngx_http_coord_lookup_try(r);
    ngx_http_coord_lookup_trying = 0;

    return ready ? 1 << ngx_http_coord_lookup_feature.slot : 0;
}


static ngx_int_t
ngx_http_coord_lookup_begin(ngx_http_request_t *r, ngx_http_coord_ctx_t *ctx)
{
    (void) ngx_http_coord_lookup_try(r);

    return NGX_DECLINED;
}


/*
 * Evaluates all; 0: some are missing.  A subrequest shares the variables of
 * its client request, which has arguments of its own: it evaluates what it
 * uses, and then finds it.
 */

static ngx_uint_t
ngx_http_coord_lookup_try(ngx_http_request_t *r)
{
    size_t                              size;
    ngx_uint_t                          ready;
    ngx_http_core_main_conf_t          *cmcf;
    ngx_http_coord_lookup_main_conf_t  *lmcf;

    cmcf = ngx_http_get_module_main_conf(r, ngx_http_core_module);
    lmcf = ngx_http_get_module_main_conf(r, ngx_http_coord_lookup_module);

    size = cmcf->variables.nelts * sizeof(ngx_http_variable_value_t);

    if (lmcf->saved == NULL) {
        lmcf->saved = ngx_palloc(ngx_cycle->pool, size);

        if (lmcf->saved == NULL) {
            return 0;
        }
    }

    if (r != r->main) {
        ngx_http_coord_lookup_forget(r);
    }

    ngx_memcpy(lmcf->saved, r->variables, size);

    ready = ngx_http_coord_lookup_all(r);

    if (!ready || r != r->main) {
        ngx_memcpy(r->variables, lmcf->saved, size);
    }

    return ready;
}


/* the values that another request has evaluated, whose variables these are */

static void
ngx_http_coord_lookup_forget(ngx_http_request_t *r)
{
    ngx_uint_t                           i;
    ngx_http_variable_value_t           *v;
    ngx_http_coord_lookup_t            **lookups;
    ngx_http_coord_lookup_main_conf_t   *lmcf;

    lmcf = ngx_http_get_module_main_conf(r, ngx_http_coord_lookup_module);

    lookups = lmcf->lookups.elts;

    for (i = 0; i < lmcf->lookups.nelts; i++) {

        if (lookups[i]->index == -1) {
            continue;
        }

        v = &r->variables[lookups[i]->index];

        v->valid = 0;
        v->not_found = 0;
    }
}


/* evaluates all that the configuration refers to; 0: some are missing */

static ngx_uint_t
ngx_http_coord_lookup_all(ngx_http_request_t *r)
{
    ngx_uint_t                           i, missing;
    ngx_http_coord_lookup_t            **lookups;
    ngx_http_coord_lookup_main_conf_t   *lmcf;

    lmcf = ngx_http_get_module_main_conf(r, ngx_http_coord_lookup_module);

    missing = ngx_http_coord_lookup_missing;
    lookups = lmcf->lookups.elts;

    for (i = 0; i < lmcf->lookups.nelts; i++) {

        if (lookups[i]->index == -1) {
            continue;
        }

        (void) ngx_http_get_flushed_variable(r, lookups[i]->index);
    }

    return ngx_http_coord_lookup_missing == missing;
}


/* never called: it adds nothing to a stage */

static ngx_int_t
ngx_http_coord_lookup_decide(ngx_http_request_t *r, ngx_http_coord_ctx_t *ctx)
{
    return NGX_DECLINED;
}


static void
ngx_http_coord_lookup_end(ngx_http_coord_ctx_t *ctx, void *data)
{
    ngx_http_coord_lookup_state_t *state = data;

    ngx_http_coord_lookup_want_t  *want;

    for (want = state->wants; want; want = want->next) {
        ngx_coord_near_leave(&want->wait);
        ngx_http_coord_lookup_load_leave(want);
    }
}
