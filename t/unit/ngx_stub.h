
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The little of nginx that a unit test needs in place of nginx itself.
 */


#ifndef _NGX_STUB_H_INCLUDED_
#define _NGX_STUB_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_event.h>


/* lines that would have gone to the error log, and the last of them */
extern ngx_uint_t  ngx_stub_logged;
extern char        ngx_stub_line[512];

/* mutexes held: 0 outside of the code under test */
extern int         ngx_stub_locked;

/* how often one was locked */
extern ngx_uint_t  ngx_stub_locks;

/* nanoseconds that clock_gettime() tells; 0: the real clock */
extern int64_t     ngx_stub_clock;

/* timers that are set, and the n-th of them, or NULL */
extern ngx_uint_t  ngx_stub_ntimers;
ngx_event_t *ngx_stub_timer(ngx_uint_t n);

/*
 * Lets so many milliseconds pass, by the clock that the test has set: runs the
 * timers that are due then, and the posted events.
 */
void ngx_stub_pass(ngx_msec_t msec);

/* runs the posted events until there are none */
void ngx_stub_run_posted(void);

/*
 * Makes shm look like a fresh shared memory of size bytes, with a slab pool
 * that only hands out and never takes back.
 */
void ngx_stub_shm(ngx_shm_zone_t *shm_zone, size_t size);

/* a number below n; each run of a test sees the same ones */
uint64_t any(uint64_t n);


#endif /* _NGX_STUB_H_INCLUDED_ */
