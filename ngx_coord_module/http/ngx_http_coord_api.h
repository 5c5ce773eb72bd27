
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_api as a feature sees it: looking at the state of single keys, and
 * taking it away.  A feature has a table of routes; the dispatcher, in status/,
 * says who may ask, finds route, zone and key, and waits for the store.
 */


#ifndef _NGX_HTTP_COORD_API_H_INCLUDED_
#define _NGX_HTTP_COORD_API_H_INCLUDED_


#include "ngx_http_coord.h"
#include "ngx_http_coord_out.h"


#define NGX_HTTP_COORD_API_READ      (NGX_HTTP_GET|NGX_HTTP_HEAD)

/* any_zone: ... and the feature has none */
#define NGX_HTTP_COORD_API_NO_ZONE   2

/* any_zone: no key in the path, but a zone */
#define NGX_HTTP_COORD_API_ALL_KEYS  3


/* room for the digits that name a key in the log */
#define NGX_HTTP_COORD_API_TAG       16


typedef struct ngx_http_coord_api_s  ngx_http_coord_api_t;


/*
 * A request for <name>/<zone>/<key>: an element of the routes of a feature,
 * which end with one without a name.
 *
 * ask: fills api->batch with operations on api->zone and api->key, by
 *     ngx_http_coord_api_op() and its like.  api->write tells a DELETE.
 *     NGX_OK: the batch is to be sent, or, if there is none, answer() has all;
 *     a status: a problem, of which api->detail may say more.
 * answer: the operations stand and none has failed.  Writes the members of
 *     the JSON object.  NGX_OK: send it; NGX_AGAIN: a new api->batch is to be
 *     sent and answer called again; a status: a problem.
 */
struct ngx_http_coord_route_s {
    ngx_str_t                  name;         /* first part of the path */
    ngx_uint_t                 methods;      /* with "write" */
    unsigned                   any_zone:2;   /* no zone in the path, ... */

    ngx_int_t                (*ask)(ngx_http_coord_api_t *api);
    ngx_int_t                (*answer)(ngx_http_coord_api_t *api,
                                       ngx_http_coord_out_t *out);
};


/* a request; lives in its pool */
struct ngx_http_coord_api_s {
    ngx_http_request_t                *request;
    const ngx_http_coord_route_t      *route;
    const ngx_coord_kind_t            *kind;     /* of whose zones */
    ngx_coord_zone_t                  *zone;
    ngx_str_t                          key;      /* as the client means it */
    ngx_coord_batch_t                 *batch;
    ngx_uint_t                         stage;    /* how many were sent */
    u_char                             tag[NGX_HTTP_COORD_API_TAG];
    size_t                             tag_len;  /* 0: no key was asked for */
    const char                        *detail;   /* of a problem */
    unsigned                           waiting:1;  /* the request, for us */

    /* sessions: between two batches */
    ngx_coord_session_t                session;
    ngx_str_t                          value;
    unsigned                           write:1;  /* DELETE */
    unsigned                           deleted:1;  /* by a batch before */
};


/*
 * How many keys of the store api->key may stand for: 2 for an IPv4 address in
 * a zone of client addresses, which sockets for both families know by its
 * IPv6 form; else 1.
 */
ngx_uint_t ngx_http_coord_api_forms(ngx_http_coord_api_t *api);

/*
 * Adds an operation on the key of the request, in one of its forms from 0, to
 * its batch, which is made if there is none.  secret: the key stands as a
 * digest.  A key in the form of a digest, as the status page shows it, stands
 * for itself.  The pointer is valid until the next call.  NULL: no memory, or
 * no such form.
 */
ngx_coord_op_t *ngx_http_coord_api_op(ngx_http_coord_api_t *api,
    const ngx_coord_op_type_t *type, ngx_uint_t secret, ngx_uint_t form);

/*
 * Gives an argument of the request, decoded as that of a form ("+" is a space),
 * in its pool.  NGX_DECLINED: it is not there, value is untouched; NGX_ERROR:
 * no memory.
 */
ngx_int_t ngx_http_coord_api_arg(ngx_http_coord_api_t *api, const char *name,
    ngx_str_t *value);

/*
 * Adds operations that drop what "taken" has left on the key, in the store
 * and in the memory of the zone; rate, or NULL, is copied.  NGX_ERROR: no
 * memory.
 */
ngx_int_t ngx_http_coord_api_forget(ngx_http_coord_api_t *api,
    const ngx_coord_op_type_t *taken, ngx_uint_t secret,
    ngx_coord_rate_t *rate);

/*
 * 1 if an operation of the batch, or of one before that has set api->deleted,
 * found something to drop.
 */
ngx_uint_t ngx_http_coord_api_was_there(ngx_http_coord_api_t *api);

/*
 * Writes "zone" and "deleted": what a reset answers, as a route's answer().
 * Always NGX_OK.
 */
ngx_int_t ngx_http_coord_api_forgotten(ngx_http_coord_api_t *api,
    ngx_http_coord_out_t *out);

/*
 * NGX_DECLINED: all operations of the batch have their answers.  Otherwise a
 * problem document with the reason has been sent, and this is the result of the
 * handler.
 */
ngx_int_t ngx_http_coord_api_failed(ngx_http_coord_api_t *api);

/* ends the batch, so that the next ngx_http_coord_api_op() makes another */
void ngx_http_coord_api_next(ngx_http_coord_api_t *api);


#endif /* _NGX_HTTP_COORD_API_H_INCLUDED_ */
