
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_limit_req: what is done when it is known what became of a request.
 */


#include "ngx_http_coord_limit_req.h"


ngx_int_t
ngx_http_coord_limit_req_log(ngx_http_request_t *r)
{
    ngx_http_coord_ctx_t              *ctx;
    ngx_http_coord_limiter_t          *limiter;
    ngx_http_coord_limit_req_conf_t   *lrcf, *conf;
    ngx_http_coord_limit_req_state_t  *state;

    if (r != r->main) {
        return NGX_OK;
    }

    ctx = ngx_http_coord_get_ctx(r);
    state = ctx ? ctx->state[ngx_http_coord_limit_req_feature.slot] : NULL;

    /* where the request ended, and where it was decided */

    lrcf = ngx_http_get_module_loc_conf(r, ngx_http_coord_limit_req_module);

    ngx_http_coord_limit_req_holds(r, lrcf, state);

    limiter = (ngx_http_coord_limiter_t *) state;

    for ( /* void */ ; limiter; limiter = limiter->previous) {
        conf = (ngx_http_coord_limit_req_conf_t *) limiter->conf;

        if (conf->holds.elts != lrcf->holds.elts) {
            ngx_http_coord_limit_req_holds(r, conf, state);
            break;
        }
    }

    return NGX_OK;
}
