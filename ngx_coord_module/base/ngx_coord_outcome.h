
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * What becomes of a request in a zone, and what is to be known of a feature
 * to count and show that.
 */


#ifndef _NGX_COORD_OUTCOME_H_INCLUDED_
#define _NGX_COORD_OUTCOME_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>


/*
 * One table for the words of the variables $coord_*_status, of log lines, of
 * metrics and of JSON.
 */

typedef enum {
    NGX_COORD_OUTCOME_UNDECIDED = 0,
    NGX_COORD_OUTCOME_PASSED,
    NGX_COORD_OUTCOME_ACQUIRED,
    NGX_COORD_OUTCOME_DELAYED,
    NGX_COORD_OUTCOME_REJECTED,
    NGX_COORD_OUTCOME_DELAYED_DRY_RUN,
    NGX_COORD_OUTCOME_REJECTED_DRY_RUN,
    NGX_COORD_OUTCOME_BYPASSED,      /* no answer: the request went on */
    NGX_COORD_OUTCOME_UNAVAILABLE,   /* no answer: 503 */
    NGX_COORD_OUTCOME_LOST,          /* and the request went on */
    NGX_COORD_OUTCOME_NEW,
    NGX_COORD_OUTCOME_REPLAYED,
    NGX_COORD_OUTCOME_CONFLICT,
    NGX_COORD_OUTCOME_MISMATCH,
    NGX_COORD_OUTCOME_MISSING,
    NGX_COORD_OUTCOME_INVALID,
    NGX_COORD_OUTCOME_UNSCOPED,      /* without a scope: unprotected */
    NGX_COORD_OUTCOME_BOUND,
    NGX_COORD_OUTCOME_REVOKED,
    NGX_COORD_OUTCOME_NONE,
    NGX_COORD_OUTCOME_DAMAGED,       /* a stored record was no good */
    NGX_COORD_OUTCOME_MISMATCH_PASSED,
    NGX_COORD_OUTCOME_MISMATCH_DRY_RUN,
    NGX_COORD_OUTCOME_MISSING_DRY_RUN,
    NGX_COORD_OUTCOME_REVOKED_DRY_RUN,
    NGX_COORD_OUTCOME_HIT,
    NGX_COORD_OUTCOME_MISS,
    NGX_COORD_OUTCOME_STALE,
    NGX_COORD_OUTCOME_EXPIRED,
    NGX_COORD_OUTCOME_UPDATING,
    NGX_COORD_OUTCOME_BYPASS,        /* BYPASSED, of a cache */
    NGX_COORD_OUTCOME_REVALIDATED,   /* EXPIRED, and has not changed */
    NGX_COORD_OUTCOME_CUT,           /* REVOKED, while it was under way */
    NGX_COORD_OUTCOME_MAX
} ngx_coord_outcome_e;


typedef struct {
    ngx_str_t                  status;       /* "PASSED" */
    ngx_str_t                  name;         /* "passed", of metrics */
    unsigned                   refused:1;
} ngx_coord_outcome_t;


extern const ngx_coord_outcome_t  ngx_coord_outcomes[NGX_COORD_OUTCOME_MAX];


/* for ngx_coord_kind_t.outcomes */
#define ngx_coord_outcome_bit(name)                                           \
    ((uint64_t) 1 << NGX_COORD_OUTCOME_##name)

/* those of a limit */
#define NGX_COORD_OUTCOMES_LIMIT                                              \
    (ngx_coord_outcome_bit(DELAYED) | ngx_coord_outcome_bit(REJECTED)         \
     | ngx_coord_outcome_bit(REJECTED_DRY_RUN)                                \
     | ngx_coord_outcome_bit(BYPASSED) | ngx_coord_outcome_bit(UNAVAILABLE))


/* present states of a zone, one set per process */
typedef enum {
    NGX_COORD_GAUGE_LEASES = 0,
    NGX_COORD_GAUGE_WAITERS,
    NGX_COORD_GAUGE_MAX
} ngx_coord_gauge_e;


/* those of leases */
#define NGX_COORD_GAUGES_LEASE                                                \
    (1 << NGX_COORD_GAUGE_LEASES | 1 << NGX_COORD_GAUGE_WAITERS)


/*
 * What zones of a feature are: static, one for each feature, which its zones
 * point to.
 */

typedef struct {
    ngx_str_t                  name;         /* of the feature: "limit_req" */
    ngx_str_t                  type;         /* of its zones: "rl" */
    uint64_t                   outcomes;     /* bits: what may become of it */
    uint32_t                   gauges;       /* bits */
    unsigned                   keys:1;       /* no secrets, may be shown */
} ngx_coord_kind_t;


#endif /* _NGX_COORD_OUTCOME_H_INCLUDED_ */
