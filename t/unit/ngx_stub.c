
/*
 * Copyright (C) ngx_coord_module contributors
 */


#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>

#include "ngx_stub.h"

#include <ngx_channel.h>


static ngx_log_t    stub_log = { .log_level = NGX_LOG_INFO };
static ngx_cycle_t  stub_cycle = { .log = &stub_log };
static ngx_time_t   stub_time;
static uint64_t     stub_random = 0x123456789abcdefULL;

volatile ngx_cycle_t  *ngx_cycle = &stub_cycle;
volatile ngx_time_t   *ngx_cached_time = &stub_time;
volatile ngx_msec_t    ngx_current_msec;
ngx_queue_t            ngx_posted_events = { &ngx_posted_events,
                                             &ngx_posted_events };
ngx_uint_t             ngx_pagesize = 4096;
ngx_pid_t              ngx_pid = 1;
sig_atomic_t           ngx_terminate;
ngx_rbtree_t           ngx_event_timer_rbtree;

ngx_process_t          ngx_processes[NGX_MAX_PROCESSES];
ngx_int_t              ngx_last_process;

static ngx_event_t  *stub_timers[16];

ngx_uint_t  ngx_stub_ntimers;
ngx_uint_t  ngx_stub_logged;
char        ngx_stub_line[512];
int         ngx_stub_locked;
ngx_uint_t  ngx_stub_locks;
int64_t     ngx_stub_clock;


int
clock_gettime(clockid_t id, struct timespec *ts)
{
    if (ngx_stub_clock == 0) {
        return syscall(SYS_clock_gettime, id, ts);
    }

    ts->tv_sec = ngx_stub_clock / 1000000000;
    ts->tv_nsec = ngx_stub_clock % 1000000000;

    return 0;
}


void *
ngx_alloc(size_t size, ngx_log_t *log)
{
    return malloc(size);
}


void *
ngx_calloc(size_t size, ngx_log_t *log)
{
    return calloc(1, size);
}


void
ngx_shmtx_lock(ngx_shmtx_t *mtx)
{
    if (ngx_stub_locked++) {
        abort();
    }

    ngx_stub_locks++;
}


void
ngx_shmtx_unlock(ngx_shmtx_t *mtx)
{
    if (--ngx_stub_locked) {
        abort();
    }
}


void
ngx_stub_shm(ngx_shm_zone_t *shm_zone, size_t size)
{
    ngx_slab_pool_t  *pool;

    shm_zone->shm.addr = calloc(1, size);
    shm_zone->shm.size = size;
    shm_zone->shm.log = &stub_log;

    pool = (ngx_slab_pool_t *) shm_zone->shm.addr;
    pool->start = ngx_align_ptr((u_char *) (pool + 1), 64);
    pool->end = shm_zone->shm.addr + size;
    pool->pfree = (size - 1024) / ngx_pagesize;
}


void *
ngx_slab_alloc(ngx_slab_pool_t *pool, size_t size)
{
    void  *p;

    size = ngx_align(size, 64);

    if (size > (size_t) (pool->end - pool->start)) {
        return NULL;
    }

    p = pool->start;
    pool->start += size;

    return p;
}


void
ngx_stub_run_posted(void)
{
    ngx_queue_t  *q;
    ngx_event_t  *ev;

    while (!ngx_queue_empty(&ngx_posted_events)) {
        q = ngx_queue_head(&ngx_posted_events);
        ev = ngx_queue_data(q, ngx_event_t, queue);

        ngx_delete_posted_event(ev);
        ev->handler(ev);
    }
}


/* of the conversions: %V %s %Z %L %uL %d %ui %i, a width with zeros */

u_char *
ngx_vslprintf(u_char *buf, u_char *last, const char *fmt, va_list args)
{
    int           width;
    char          tmp[32];
    size_t        len;
    ngx_str_t    *v;
    const char   *s;

    while (*fmt && buf < last) {

        if (*fmt != '%') {
            *buf++ = *fmt++;
            continue;
        }

        fmt++;
        width = (int) strtol(fmt, (char **) &fmt, 10);
        s = tmp;
        len = 1;

        switch (*fmt++) {

        case 'V':
            v = va_arg(args, ngx_str_t *);
            s = (char *) v->data;
            len = v->len;
            break;

        case 's':
            s = va_arg(args, char *);
            len = strlen(s);
            break;

        case 'Z':
            tmp[0] = '\0';
            break;

        case 'L':
            len = sprintf(tmp, "%0*lld", width, va_arg(args, long long));
            break;

        case 'd':
            len = sprintf(tmp, "%0*d", width, va_arg(args, int));
            break;

        case 'i':
            len = sprintf(tmp, "%0*ld", width, (long) va_arg(args, ngx_int_t));
            break;

        case 'u':
            len = sprintf(tmp, "%0*llu", width,
                          (*fmt == 'L')
                          ? (unsigned long long) va_arg(args, uint64_t)
                          : (unsigned long long) va_arg(args, ngx_uint_t));
            fmt++;
            break;

        default:
            abort();
        }

        len = ngx_min(len, (size_t) (last - buf));
        memcpy(buf, s, len);
        buf += len;
    }

    return buf;
}


u_char *
ngx_sprintf(u_char *buf, const char *fmt, ...)
{
    u_char   *p;
    va_list   args;

    va_start(args, fmt);
    p = ngx_vslprintf(buf, (u_char *) -1, fmt, args);
    va_end(args);

    return p;
}


u_char *
ngx_slprintf(u_char *buf, u_char *last, const char *fmt, ...)
{
    u_char   *p;
    va_list   args;

    va_start(args, fmt);
    p = ngx_vslprintf(buf, last, fmt, args);
    va_end(args);

    return p;
}


u_char *
ngx_snprintf(u_char *buf, size_t max, const char *fmt, ...)
{
    u_char   *p;
    va_list   args;

    va_start(args, fmt);
    p = ngx_vslprintf(buf, buf + max, fmt, args);
    va_end(args);

    return p;
}


u_char *
ngx_hex_dump(u_char *dst, u_char *src, size_t len)
{
    static const char  hex[] = "0123456789abcdef";

    while (len--) {
        *dst++ = hex[*src >> 4];
        *dst++ = hex[*src++ & 0xf];
    }

    return dst;
}


static const char  base64url[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";


void
ngx_encode_base64url(ngx_str_t *dst, ngx_str_t *src)
{
    size_t    i;
    u_char   *p;
    uint32_t  bits, n;

    p = dst->data;
    bits = 0;
    n = 0;

    for (i = 0; i < src->len; i++) {
        bits = bits << 8 | src->data[i];

        for (n += 8; n >= 6; n -= 6) {
            *p++ = base64url[bits >> (n - 6) & 63];
        }
    }

    if (n) {
        *p++ = base64url[bits << (6 - n) & 63];
    }

    dst->len = p - dst->data;
}


ngx_int_t
ngx_decode_base64url(ngx_str_t *dst, ngx_str_t *src)
{
    size_t       i;
    u_char      *p;
    uint32_t     bits, n;
    const char  *c;

    p = dst->data;
    bits = 0;
    n = 0;

    for (i = 0; i < src->len; i++) {
        c = src->data[i] ? strchr(base64url, src->data[i]) : NULL;

        if (c == NULL) {
            return NGX_ERROR;
        }

        bits = bits << 6 | (uint32_t) (c - base64url);
        n += 6;

        if (n >= 8) {
            n -= 8;
            *p++ = (u_char) (bits >> n);
        }
    }

    dst->len = p - dst->data;

    return src->len % 4 == 1 ? NGX_ERROR : NGX_OK;
}


void
ngx_log_error_core(ngx_uint_t level, ngx_log_t *log, ngx_err_t err,
    const char *fmt, ...)
{
    u_char   *p;
    va_list   args;

    va_start(args, fmt);
    p = ngx_vslprintf((u_char *) ngx_stub_line,
                      (u_char *) ngx_stub_line + sizeof(ngx_stub_line) - 1,
                      fmt, args);
    va_end(args);

    *p = '\0';
    ngx_stub_logged++;
}


ngx_int_t
ngx_strncasecmp(u_char *s1, u_char *s2, size_t n)
{
    return strncasecmp((char *) s1, (char *) s2, n);
}


ngx_int_t
ngx_atoi(u_char *line, size_t n)
{
    ngx_int_t  value;

    if (n == 0 || n > 18) {
        return NGX_ERROR;
    }

    for (value = 0; n--; line++) {
        if (*line < '0' || *line > '9') {
            return NGX_ERROR;
        }

        value = value * 10 + (*line - '0');
    }

    return value;
}


ngx_int_t
ngx_hextoi(u_char *line, size_t n)
{
    char       digits[16];
    ngx_int_t  value;

    if (n == 0 || n > 15) {
        return NGX_ERROR;
    }

    memcpy(digits, line, n);
    digits[n] = '\0';

    value = strtoll(digits, NULL, 16);

    return strspn(digits, "0123456789abcdefABCDEF") == n ? value : NGX_ERROR;
}


uint64_t
any(uint64_t n)
{
    stub_random ^= stub_random << 13;
    stub_random ^= stub_random >> 7;
    stub_random ^= stub_random << 17;

    return (stub_random >> 11) % n;
}


uint32_t
ngx_murmur_hash2(u_char *data, size_t len)
{
    uint32_t  h;

    for (h = 5381; len; len--) {
        h = h * 33 + *data++;
    }

    return h;
}


void
ngx_debug_point(void)
{
}


/* the only trees here are those of timers */

void
ngx_rbtree_insert(ngx_rbtree_t *tree, ngx_rbtree_node_t *node)
{
    stub_timers[ngx_stub_ntimers++] =
        (ngx_event_t *) ((u_char *) node - offsetof(ngx_event_t, timer));
}


void
ngx_rbtree_delete(ngx_rbtree_t *tree, ngx_rbtree_node_t *node)
{
    ngx_uint_t  i;

    for (i = 0; i < ngx_stub_ntimers; i++) {
        if (&stub_timers[i]->timer == node) {
            stub_timers[i] = stub_timers[--ngx_stub_ntimers];
            return;
        }
    }

    abort();
}


ngx_event_t *
ngx_stub_timer(ngx_uint_t n)
{
    return n < ngx_stub_ntimers ? stub_timers[n] : NULL;
}


void
ngx_stub_pass(ngx_msec_t msec)
{
    ngx_uint_t    i;
    ngx_event_t  *ev;

    ngx_stub_clock += (int64_t) msec * 1000000;
    ngx_current_msec += msec;

    for (i = 0; i < ngx_stub_ntimers; /* void */ ) {
        ev = stub_timers[i];

        if ((ngx_msec_int_t) (ev->timer.key - ngx_current_msec) > 0) {
            i++;
            continue;
        }

        ngx_rbtree_delete(NULL, &ev->timer);

        ev->timer_set = 0;
        ev->handler(ev);

        i = 0;
    }

    ngx_stub_run_posted();
}
