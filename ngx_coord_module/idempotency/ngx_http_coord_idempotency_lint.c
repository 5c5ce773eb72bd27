
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_idempotency: what nginx -t says of directives of others beside it.
 * Their structures are private, but their directives tell where a value is.
 * Stock modules are merged before this one, but for filters.
 */


#include "ngx_http_coord_idempotency.h"


/* a location whose responses may come in parts */
typedef struct {
    ngx_http_coord_idempotency_conf_t  *conf;
    void                              **loc_conf;
} ngx_http_coord_idempotency_lint_t;


static void ngx_http_coord_idempotency_lint_next(ngx_conf_t *cf,
    ngx_http_coord_idempotency_conf_t *conf);
static ngx_command_t *ngx_http_coord_idempotency_next_command(
    ngx_module_t *module);
static ngx_uint_t ngx_http_coord_idempotency_sliced(ngx_conf_t *cf,
    void **loc_conf);
static ngx_command_t *ngx_http_coord_idempotency_slice_command(
    ngx_module_t *module);


ngx_int_t
ngx_http_coord_idempotency_lint_create(ngx_conf_t *cf,
    ngx_http_coord_idempotency_main_conf_t *imcf)
{
    return ngx_array_init(&imcf->lint, cf->pool, 1,
                          sizeof(ngx_http_coord_idempotency_lint_t));
}


ngx_int_t
ngx_http_coord_idempotency_lint(ngx_conf_t *cf,
    ngx_http_coord_idempotency_conf_t *conf)
{
    ngx_http_conf_ctx_t                     *ctx;
    ngx_http_coord_idempotency_lint_t       *lint;
    ngx_http_coord_idempotency_main_conf_t  *imcf;

    ngx_http_coord_idempotency_lint_next(cf, conf);

    if (!(conf->methods & NGX_HTTP_GET)) {
        return NGX_OK;
    }

    imcf = ngx_http_conf_get_module_main_conf(cf,
                                            ngx_http_coord_idempotency_module);

    lint = ngx_array_push(&imcf->lint);
    if (lint == NULL) {
        return NGX_ERROR;
    }

    ctx = cf->ctx;

    lint->conf = conf;
    lint->loc_conf = ctx->loc_conf;

    return NGX_OK;
}


void
ngx_http_coord_idempotency_lint_merged(ngx_conf_t *cf,
    ngx_http_coord_idempotency_main_conf_t *imcf)
{
    ngx_uint_t                          i;
    ngx_http_coord_idempotency_lint_t  *lint;

    lint = imcf->lint.elts;

    for (i = 0; i < imcf->lint.nelts; i++) {

        if (ngx_http_coord_idempotency_sliced(cf, lint[i].loc_conf)) {
            ngx_log_error(NGX_LOG_WARN, cf->log, 0,
                          "of a response that \"slice\" puts together "
                          "\"coord_idempotency\" in %s:%ui keeps nothing",
                          lint[i].conf->file, lint[i].conf->line);
        }
    }
}


/* warns if nginx may run a request of the location twice */

static void
ngx_http_coord_idempotency_lint_next(ngx_conf_t *cf,
    ngx_http_coord_idempotency_conf_t *conf)
{
    u_char                    *p;
    ngx_uint_t                 i;
    ngx_command_t             *cmd, *found;
    ngx_module_t             **modules;
    ngx_http_conf_ctx_t       *ctx;
    ngx_http_core_loc_conf_t  *clcf;
    ngx_http_upstream_conf_t  *u;

    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    if (clcf->handler == NULL || clcf->noname) {
        return;
    }

    ctx = cf->ctx;
    modules = cf->cycle->modules;
    found = NULL;

    for (i = 0; modules[i]; i++) {

        cmd = ngx_http_coord_idempotency_next_command(modules[i]);

        if (cmd == NULL) {
            continue;
        }

        p = ctx->loc_conf[modules[i]->ctx_index];

        u = (ngx_http_upstream_conf_t *)
                (p + cmd->offset
                 - offsetof(ngx_http_upstream_conf_t, next_upstream));

        if (u->next_upstream & NGX_HTTP_UPSTREAM_FT_NON_IDEMPOTENT) {
            found = cmd;
        }

        if (u->upstream) {

            /* this module it is that the location passes requests to */

            if (found != cmd) {
                return;
            }

            break;
        }
    }

    if (found) {
        ngx_log_error(NGX_LOG_WARN, cf->log, 0,
                      "\"%V\" with \"non_idempotent\" may run a request "
                      "twice in location \"%V\", in spite of "
                      "\"coord_idempotency\" in %s:%ui",
                      &found->name, &clcf->name, conf->file, conf->line);
    }
}


/* the directive of a module that is like proxy_next_upstream, or NULL */

static ngx_command_t *
ngx_http_coord_idempotency_next_command(ngx_module_t *module)
{
    ngx_str_t            suffix;
    ngx_command_t       *cmd;
    ngx_conf_bitmask_t  *mask;

    if (module->type != NGX_HTTP_MODULE || module->commands == NULL) {
        return NULL;
    }

    ngx_str_set(&suffix, "_next_upstream");

    for (cmd = module->commands; cmd->name.len; cmd++) {

        if (cmd->name.len <= suffix.len
            || cmd->set != ngx_conf_set_bitmask_slot
            || cmd->conf != NGX_HTTP_LOC_CONF_OFFSET
            || cmd->offset < offsetof(ngx_http_upstream_conf_t, next_upstream)
            || ngx_strcmp(cmd->name.data + cmd->name.len - suffix.len,
                          suffix.data)
               != 0)
        {
            continue;
        }

        for (mask = cmd->post; mask->name.len; mask++) {
            if (mask->mask == NGX_HTTP_UPSTREAM_FT_NON_IDEMPOTENT) {
                return cmd;
            }
        }
    }

    return NULL;
}


/* 1 if responses of a location may come in parts */

static ngx_uint_t
ngx_http_coord_idempotency_sliced(ngx_conf_t *cf, void **loc_conf)
{
    u_char         *p;
    ngx_uint_t      i;
    ngx_command_t  *cmd;
    ngx_module_t  **modules;

    modules = cf->cycle->modules;

    for (i = 0; modules[i]; i++) {

        cmd = ngx_http_coord_idempotency_slice_command(modules[i]);

        if (cmd == NULL) {
            continue;
        }

        p = loc_conf[modules[i]->ctx_index];

        if (*(size_t *) (p + cmd->offset)) {
            return 1;
        }
    }

    return 0;
}


static ngx_command_t *
ngx_http_coord_idempotency_slice_command(ngx_module_t *module)
{
    ngx_command_t  *cmd;

    if (module->type != NGX_HTTP_MODULE || module->commands == NULL) {
        return NULL;
    }

    for (cmd = module->commands; cmd->name.len; cmd++) {

        if (cmd->name.len == sizeof("slice") - 1
            && ngx_strncmp(cmd->name.data, "slice", cmd->name.len) == 0
            && cmd->set == ngx_conf_set_size_slot
            && cmd->conf == NGX_HTTP_LOC_CONF_OFFSET)
        {
            return cmd;
        }
    }

    return NULL;
}
