
/*
 * Copyright (C) ngx_coord_module contributors
 */


#include "ngx_coord_outcome.h"


/* a lock that was acquired has passed, for the metrics */

const ngx_coord_outcome_t  ngx_coord_outcomes[NGX_COORD_OUTCOME_MAX] = {
    { ngx_null_string, ngx_null_string, 0 },
    { ngx_string("PASSED"), ngx_string("passed"), 0 },
    { ngx_string("ACQUIRED"), ngx_string("passed"), 0 },
    { ngx_string("DELAYED"), ngx_string("delayed"), 0 },
    { ngx_string("REJECTED"), ngx_string("rejected"), 1 },
    { ngx_string("DELAYED_DRY_RUN"), ngx_string("delayed_dry_run"), 0 },
    { ngx_string("REJECTED_DRY_RUN"), ngx_string("rejected_dry_run"), 0 },
    { ngx_string("BYPASSED"), ngx_string("bypassed"), 0 },
    { ngx_string("UNAVAILABLE"), ngx_string("unavailable"), 1 },
    { ngx_string("LOST"), ngx_string("lost"), 0 },
    { ngx_string("NEW"), ngx_string("new"), 0 },
    { ngx_string("REPLAYED"), ngx_string("replayed"), 0 },
    { ngx_string("CONFLICT"), ngx_string("conflict"), 1 },
    { ngx_string("MISMATCH"), ngx_string("mismatch"), 1 },
    { ngx_string("MISSING"), ngx_string("missing"), 1 },
    { ngx_string("INVALID"), ngx_string("invalid"), 1 },
    { ngx_string("UNSCOPED"), ngx_string("unscoped"), 0 },
    { ngx_string("BOUND"), ngx_string("bound"), 0 },
    { ngx_string("REVOKED"), ngx_string("revoked"), 1 },
    { ngx_string("NONE"), ngx_string("none"), 0 },
    { ngx_string("DAMAGED"), ngx_string("damaged"), 0 },
    { ngx_string("MISMATCH_PASSED"), ngx_string("mismatch_passed"), 0 },
    { ngx_string("MISMATCH_DRY_RUN"), ngx_string("mismatch_dry_run"), 0 },
    { ngx_string("MISSING_DRY_RUN"), ngx_string("missing_dry_run"), 0 },
    { ngx_string("REVOKED_DRY_RUN"), ngx_string("revoked_dry_run"), 0 },
    { ngx_string("HIT"), ngx_string("hit"), 0 },
    { ngx_string("MISS"), ngx_string("miss"), 0 },
    { ngx_string("STALE"), ngx_string("stale"), 0 },
    { ngx_string("EXPIRED"), ngx_string("expired"), 0 },
    { ngx_string("UPDATING"), ngx_string("updating"), 0 },
    { ngx_string("BYPASS"), ngx_string("bypassed"), 0 },
    { ngx_string("REVALIDATED"), ngx_string("revalidated"), 0 },
    { ngx_string("REVOKED"), ngx_string("cut"), 1 }
};
