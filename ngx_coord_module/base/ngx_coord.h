
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Types that every layer shares.  Files named ngx_coord_* know nothing of
 * HTTP; files named ngx_http_coord_* do.  Includes point downwards only:
 * http -> store -> (redis | memory) -> script, resp, key.
 */


#ifndef _NGX_COORD_H_INCLUDED_
#define _NGX_COORD_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>

#include <signal.h>


#if (__GNUC__)
#define ngx_coord_cold                   __attribute__((cold))
#define ngx_coord_apart                  __attribute__((noinline))
#else
#define ngx_coord_cold
#define ngx_coord_apart
#endif

/*
 * ngx_coord_apart: the common case does not come here, and is not to have the
 * registers to save, and the guard of the stack, that this needs.
 */

/*
 * nginx's: what is seldom called, and the code that leads there, stands aside,
 * so that less of the cache is needed for what each request runs through.
 */
ngx_coord_cold void ngx_log_error_core(ngx_uint_t level, ngx_log_t *log,
    ngx_err_t err, const char *fmt, ...);


/* nanoseconds: a duration, or a point on the clock of the store */
typedef int64_t                          ngx_coord_nsec_t;

typedef struct ngx_coord_zone_s          ngx_coord_zone_t;
typedef struct ngx_coord_store_s         ngx_coord_store_t;
typedef struct ngx_coord_op_s            ngx_coord_op_t;
typedef struct ngx_coord_batch_s         ngx_coord_batch_t;
typedef struct ngx_coord_redis_s         ngx_coord_redis_t;
typedef struct ngx_coord_redis_conf_s    ngx_coord_redis_conf_t;
typedef struct ngx_coord_redis_call_s    ngx_coord_redis_call_t;
typedef struct ngx_coord_resp_s          ngx_coord_resp_t;
typedef struct ngx_coord_resp_value_s    ngx_coord_resp_value_t;
typedef struct ngx_coord_script_s        ngx_coord_script_t;
typedef struct ngx_coord_counts_s        ngx_coord_counts_t;
typedef struct ngx_coord_store_counts_s  ngx_coord_store_counts_t;


#define NGX_COORD_NSEC_PER_SEC           1000000000LL
#define NGX_COORD_NSEC_PER_MSEC          1000000LL
#define NGX_COORD_NSEC_PER_USEC          1000LL

/* ten years, in milliseconds */
#define NGX_COORD_MSEC_MAX               315360000000LL


/*
 * Cuts a time of a configuration, in milliseconds, to ten years, so that it
 * can be added to any other; one of 32 bits never is as long.
 */

static ngx_inline int64_t
ngx_coord_msec_cut(int64_t ms)
{
    return ngx_min(ms, NGX_COORD_MSEC_MAX);
}


/*
 * ngx_coord_monotonic() returns CLOCK_MONOTONIC in nanoseconds: one clock for
 * all processes of a node, untouched by steps of the wall clock.
 */

static ngx_inline ngx_coord_nsec_t
ngx_coord_monotonic(void)
{
    struct timespec  ts;

    (void) clock_gettime(CLOCK_MONOTONIC, &ts);

    return (ngx_coord_nsec_t) ts.tv_sec * NGX_COORD_NSEC_PER_SEC + ts.tv_nsec;
}


/*
 * The same when this turn of the event loop began, to the millisecond: for what
 * need not be exact, without a call.
 */
#define ngx_coord_turn_time()                                                 \
    ((ngx_coord_nsec_t) ngx_current_msec * NGX_COORD_NSEC_PER_MSEC)


/* CLOCK_REALTIME in nanoseconds: what the calendar of this node says */

static ngx_inline ngx_coord_nsec_t
ngx_coord_realtime(void)
{
    struct timespec  ts;

    (void) clock_gettime(CLOCK_REALTIME, &ts);

    return (ngx_coord_nsec_t) ts.tv_sec * NGX_COORD_NSEC_PER_SEC + ts.tv_nsec;
}


/* rounds a duration up to whole milliseconds; a negative one gives 0 */

static ngx_inline int64_t
ngx_coord_ceil_msec(ngx_coord_nsec_t ns)
{
    return ns <= 0 ? 0 : (ns + NGX_COORD_NSEC_PER_MSEC - 1)
                         / NGX_COORD_NSEC_PER_MSEC;
}


/* the same in seconds */

static ngx_inline time_t
ngx_coord_ceil_sec(ngx_coord_nsec_t ns)
{
    return ns <= 0 ? 0 : (time_t) ((ns + NGX_COORD_NSEC_PER_SEC - 1)
                                   / NGX_COORD_NSEC_PER_SEC);
}


/* 1 if a process lives, whosever it is; pid 0 does not */

static ngx_inline ngx_uint_t
ngx_coord_alive(ngx_pid_t pid)
{
    return pid > 0 && (kill(pid, 0) == 0 || ngx_errno != ESRCH);
}


#endif /* _NGX_COORD_H_INCLUDED_ */
