
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_api: looking at the state of single keys, and taking it away.
 *
 *   ngx_http_coord_api.c           directive, who may ask, path, waiting
 *   ngx_http_coord_api_limits.c    limits, conns, locks
 *   ngx_http_coord_api_records.c   sessions, users, idempotency
 */


#ifndef _NGX_HTTP_COORD_API_H_INCLUDED_
#define _NGX_HTTP_COORD_API_H_INCLUDED_


#include "ngx_http_coord.h"
#include "ngx_http_coord_conf.h"
#include "ngx_http_coord_out.h"


typedef struct ngx_http_coord_api_s  ngx_http_coord_api_t;


/*
 * ask: fills api->batch with operations on api->zone and api->key.  NGX_OK:
 *     it is to be sent; a status: a problem, api->detail may say more.
 * answer: the operations stand and none has failed.  Writes the members of
 *     the JSON object.  NGX_OK: send it; NGX_AGAIN: a new api->batch is to be
 *     sent and answer called again; a status: a problem.
 */
typedef struct {
    ngx_str_t                  name;         /* first part of the path */
    ngx_str_t                  type;         /* of its zones */
    ngx_uint_t                 methods;      /* with "write" */
    unsigned                   any_zone:1;   /* no zone in the path */

    ngx_int_t                (*ask)(ngx_http_coord_api_t *api);
    ngx_int_t                (*answer)(ngx_http_coord_api_t *api,
                                       ngx_http_coord_out_t *out);
} ngx_http_coord_api_route_t;


struct ngx_http_coord_api_s {
    ngx_http_request_t                *request;
    const ngx_http_coord_api_route_t  *route;
    ngx_coord_zone_t                  *zone;
    ngx_str_t                          key;      /* as the client means it */
    ngx_coord_batch_t                 *batch;
    ngx_uint_t                         stage;    /* how many were sent */
    const char                        *detail;   /* of a problem */

    /* sessions: between two batches */
    ngx_coord_session_t                session;
    ngx_str_t                          value;
    unsigned                           write:1;  /* DELETE */
};


extern ngx_module_t  ngx_http_coord_api_module;

/* ends with a route without a name */
extern const ngx_http_coord_api_route_t  ngx_http_coord_api_routes[];


/*
 * Adds an operation on the key of the request to its batch, which is made if
 * there is none.  secret: the key stands as a digest.  A key in the form of a
 * digest, as the status page shows it, stands for itself.  NULL: no memory.
 */
ngx_coord_op_t *ngx_http_coord_api_op(ngx_http_coord_api_t *api,
    ngx_coord_op_e type, ngx_uint_t secret);

/*
 * Adds operations that drop what "taken" has left on the key, in the store
 * and in the memory of the zone.  NGX_ERROR: no memory.
 */
ngx_int_t ngx_http_coord_api_forget(ngx_http_coord_api_t *api,
    ngx_coord_op_e taken, ngx_uint_t secret, ngx_coord_rate_t *rate);

/* writes "zone" and "deleted": what a reset answers */
ngx_int_t ngx_http_coord_api_forgotten(ngx_http_coord_api_t *api,
    ngx_http_coord_out_t *out);

/* ends the batch, for another one */
void ngx_http_coord_api_next(ngx_http_coord_api_t *api);


/* --- ngx_http_coord_api_limits.c --- */

ngx_int_t ngx_http_coord_api_limit_ask(ngx_http_coord_api_t *api);
ngx_int_t ngx_http_coord_api_limit_answer(ngx_http_coord_api_t *api,
    ngx_http_coord_out_t *out);
ngx_int_t ngx_http_coord_api_lease_ask(ngx_http_coord_api_t *api);
ngx_int_t ngx_http_coord_api_lease_answer(ngx_http_coord_api_t *api,
    ngx_http_coord_out_t *out);


/* --- ngx_http_coord_api_records.c --- */

ngx_int_t ngx_http_coord_api_session_ask(ngx_http_coord_api_t *api);
ngx_int_t ngx_http_coord_api_session_answer(ngx_http_coord_api_t *api,
    ngx_http_coord_out_t *out);
ngx_int_t ngx_http_coord_api_user_ask(ngx_http_coord_api_t *api);
ngx_int_t ngx_http_coord_api_user_answer(ngx_http_coord_api_t *api,
    ngx_http_coord_out_t *out);
ngx_int_t ngx_http_coord_api_idempotency_ask(ngx_http_coord_api_t *api);
ngx_int_t ngx_http_coord_api_idempotency_answer(ngx_http_coord_api_t *api,
    ngx_http_coord_out_t *out);


#endif /* _NGX_HTTP_COORD_API_H_INCLUDED_ */
