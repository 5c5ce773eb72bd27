
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * conns/<zone>/<key> of coord_api.
 */


#include "ngx_http_coord_api.h"
#include "ngx_http_coord_limit_conn.h"


static ngx_int_t ngx_http_coord_limit_conn_api_ask(ngx_http_coord_api_t *api);
static ngx_int_t ngx_http_coord_limit_conn_api_answer(
    ngx_http_coord_api_t *api, ngx_http_coord_out_t *out);


const ngx_http_coord_route_t  ngx_http_coord_limit_conn_routes[] = {

    { ngx_string("conns"),
      NGX_HTTP_COORD_API_READ, 0,
      ngx_http_coord_limit_conn_api_ask,
      ngx_http_coord_limit_conn_api_answer },

    { ngx_null_string, 0, 0, NULL, NULL }
};


static ngx_int_t
ngx_http_coord_limit_conn_api_ask(ngx_http_coord_api_t *api)
{
    ngx_uint_t  i;

    for (i = 0; i < ngx_http_coord_api_forms(api); i++) {
        if (ngx_http_coord_api_op(api, &ngx_coord_op_lease_peek, 0, i)
            == NULL)
        {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_coord_limit_conn_api_answer(ngx_http_coord_api_t *api,
    ngx_http_coord_out_t *out)
{
    ngx_uint_t       i;
    ngx_coord_op_t  *op, *ops;

    ops = api->batch->ops;
    op = &ops[0];

    for (i = 1; i < api->batch->nops; i++) {
        if (ops[i].u.lease.current > op->u.lease.current) {
            op = &ops[i];
        }
    }

    ngx_http_coord_json_string(out, "zone", &api->zone->name);
    ngx_http_coord_json_string(out, "key", &api->key);
    ngx_http_coord_json_bool(out, "known", op->u.lease.current > 0);
    ngx_http_coord_json_number(out, "current", op->u.lease.current);
    ngx_http_coord_json_seconds(out, "first_expiry_seconds",
                                op->u.lease.first / NGX_COORD_NSEC_PER_USEC);
    ngx_http_coord_json_string(out, "source",
                               &ngx_coord_source_names[op->source]);

    return NGX_OK;
}
