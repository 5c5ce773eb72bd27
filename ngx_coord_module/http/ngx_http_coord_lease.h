
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * What features that hold leases have in common: zones, parameters, asking,
 * waiting in line, releasing.
 */


#ifndef _NGX_HTTP_COORD_LEASE_H_INCLUDED_
#define _NGX_HTTP_COORD_LEASE_H_INCLUDED_


#include "ngx_http_coord.h"
#include "ngx_coord_lease.h"
#include "ngx_http_coord_lease_state.h"
#include "ngx_coord_timer.h"
#include "ngx_coord_wake.h"


/* the data of a zone of leases */
typedef struct {
    ngx_http_complex_value_t  *key;
    ngx_coord_nsec_t           lease;
} ngx_http_coord_lease_zone_t;


/* a zone as a location uses it */
typedef struct {
    ngx_coord_zone_t          *zone;
    ngx_msec_t                 wait;          /* 0: no waiting */
    ngx_uint_t                 queue;         /* 0: the default */
    ngx_uint_t                 on_failure;    /* or unset */
} ngx_http_coord_lease_limit_t;


typedef struct ngx_http_coord_lease_s   ngx_http_coord_lease_t;
typedef struct ngx_http_coord_leases_s  ngx_http_coord_leases_t;


/* a lease as a request asks for it */
struct ngx_http_coord_lease_s {
    ngx_http_coord_leases_t       *leases;
    ngx_http_coord_lease_limit_t  *limit;
    ngx_http_coord_ref_t           ref;
    ngx_http_coord_ref_t           token_ref;
    ngx_uint_t                     number;    /* at most so many at once */
    ngx_coord_op_t                 op;        /* as last answered */
    int64_t                        token;
    ngx_coord_held_t              *held;
    unsigned                       rest:1;    /* to be asked for again */
};


/* those of a request: all or none of them */
struct ngx_http_coord_leases_s {
    ngx_http_coord_ctx_t      *ctx;
    ngx_array_t                items;         /* ngx_http_coord_lease_t */
    void                     (*lost)(ngx_http_coord_lease_t *lease);
    void                      *data;          /* the feature's */
    unsigned                   tokens:1;      /* with fencing numbers */
    unsigned                   nowait:1;      /* dry run */

    /* how it went */
    ngx_http_coord_lease_t    *refused;       /* NULL: none did */
    ngx_http_coord_lease_t    *turn;          /* waited for */
    unsigned                   delayed:1;     /* has waited */
    unsigned                   timedout:1;    /* refused: wait= is over */
    unsigned                   full:1;        /* refused: queue= wait */

    /* private */
    ngx_http_coord_leases_e    state;
    ngx_coord_waiter_t         waiter;
    ngx_coord_batch_t         *batch;         /* of .._ASKED */
    ngx_coord_batch_handler_pt  answered;
    ngx_coord_timer_t          deadline;
    ngx_coord_nsec_t           since;         /* it arrived */
    ngx_coord_op_t             place;         /* in line: an enter */
    ngx_uint_t                 places;        /* a bit for each source */
    unsigned                   doubt:1;       /* Redis may have granted turn */
    unsigned                   again:1;       /* news while it asked */
    unsigned                   clear:1;       /* the line is of the dead */
};


/* --- configuration --- */

/*
 * The directive "name key zone=name[:size] [lease=time] [store=name]" for
 * zones of a kind.
 */
char *ngx_http_coord_lease_zone(ngx_conf_t *cf, ngx_command_t *cmd,
    const ngx_coord_kind_t *kind);

/*
 * Parses "wait=", "queue=" or "on_failure=" of a limit whose zone is known.
 * NGX_DECLINED: it is another parameter; NGX_ERROR: logged.
 */
ngx_int_t ngx_http_coord_lease_param(ngx_conf_t *cf,
    ngx_http_coord_lease_limit_t *limit, ngx_str_t *value);


/* --- requests --- */

/* for begin(): prepares an empty set; NGX_ERROR: no memory */
ngx_int_t ngx_http_coord_leases_init(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx, ngx_http_coord_leases_t *leases, ngx_uint_t n);

/*
 * Adds one of at most number leases on key to what the stage asks.  NGX_ERROR:
 * no memory, or OpenSSL failed.
 */
ngx_int_t ngx_http_coord_leases_add(ngx_http_request_t *r,
    ngx_http_coord_leases_t *leases, ngx_http_coord_lease_limit_t *limit,
    ngx_str_t *key, ngx_uint_t number);

/*
 * For decide().  NGX_OK: settled: leases->refused tells whether and by whom,
 * and then op.rc of that one why; others may still be held.  NGX_AGAIN: the
 * request stands in line for leases->turn, holds nothing, and is resumed.
 * NGX_ERROR: no memory.
 */
ngx_int_t ngx_http_coord_leases_decide(ngx_http_coord_leases_t *leases);

/* why a wait has ended without a lease, for the log; NULL: there was none */
const char *ngx_http_coord_leases_reason(ngx_http_coord_leases_t *leases);

/* releases all, leaves the line; for undo() and end(), and after a refusal */
void ngx_http_coord_leases_release(ngx_http_coord_leases_t *leases);


/* --- between ngx_http_coord_lease.c and ngx_http_coord_lease_wait.c --- */

/* what is done in a state; returns the next one */
typedef ngx_http_coord_leases_e (*ngx_http_coord_leases_step_pt)(
    ngx_http_coord_leases_t *leases);

/*
 * An answer to lease->op has come: what was granted is held from now on.
 * NGX_ERROR: no memory, it was given back.
 */
ngx_int_t ngx_http_coord_leases_take(ngx_http_coord_leases_t *leases,
    ngx_http_coord_lease_t *lease);

/* gives back all that is held */
void ngx_http_coord_leases_give(ngx_http_coord_leases_t *leases);

/* the steps of LINE, TURN, TURN_ANSWERED, REST and REST_ANSWERED */
ngx_http_coord_leases_e ngx_http_coord_leases_line(
    ngx_http_coord_leases_t *leases);
ngx_http_coord_leases_e ngx_http_coord_leases_turn(
    ngx_http_coord_leases_t *leases);
ngx_http_coord_leases_e ngx_http_coord_leases_turn_answered(
    ngx_http_coord_leases_t *leases);
ngx_http_coord_leases_e ngx_http_coord_leases_rest(
    ngx_http_coord_leases_t *leases);
ngx_http_coord_leases_e ngx_http_coord_leases_rest_answered(
    ngx_http_coord_leases_t *leases);

/*
 * The end of a wait, whatever it was for: leaves the line; what is held stays
 * held.  Does nothing to who does not wait.
 */
void ngx_http_coord_leases_stop(ngx_http_coord_leases_t *leases);


#endif /* _NGX_HTTP_COORD_LEASE_H_INCLUDED_ */
