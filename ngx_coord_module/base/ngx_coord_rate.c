
/*
 * Copyright (C) ngx_coord_module contributors
 */


#include "ngx_coord_rate.h"


static ngx_coord_nsec_t ngx_coord_rate_span(ngx_coord_nsec_t interval,
    ngx_uint_t n);
static ngx_uint_t ngx_coord_rate_part(ngx_uint_t whole, ngx_uint_t cost,
    ngx_uint_t nodes);
static ngx_uint_t ngx_coord_bucket_left(const ngx_coord_bucket_t *bucket,
    ngx_coord_nsec_t backlog);
static ngx_coord_nsec_t ngx_coord_sliding_fits(ngx_coord_nsec_t length,
    int64_t room, int64_t count);


/* interval * n, cut to NGX_COORD_RATE_SPAN */

static ngx_coord_nsec_t
ngx_coord_rate_span(ngx_coord_nsec_t interval, ngx_uint_t n)
{
    uint64_t  span;

    /* what one more would take beyond it is cut as well */

    if (__builtin_mul_overflow((uint64_t) interval, (uint64_t) n, &span)
        || span > (uint64_t) NGX_COORD_RATE_SPAN
        || span + (uint64_t) interval > (uint64_t) NGX_COORD_RATE_SPAN)
    {
        return NGX_COORD_RATE_SPAN;
    }

    return (ngx_coord_nsec_t) span;
}


ngx_uint_t
ngx_coord_rate_same(const ngx_coord_rate_t *a, const ngx_coord_rate_t *b)
{
    return a->interval == b->interval
           && a->burst == b->burst
           && a->window == b->window
           && a->limit == b->limit
           && a->align == b->align
           && a->tz == b->tz
           && a->cost == b->cost
           && a->look == b->look
           && a->force == b->force
           && a->extra == 0
           && b->extra == 0;
}


void
ngx_coord_rate_share(ngx_coord_rate_t *rate, ngx_uint_t nodes)
{
    ngx_uint_t  whole;

    nodes = ngx_max(nodes, 1);

    rate->interval = ngx_coord_rate_span(ngx_max(rate->interval, 1), nodes);

    whole = ngx_min(rate->burst, NGX_COORD_RATE_LIMIT - 1) + 1;

    rate->burst = ngx_coord_rate_part(whole, rate->cost, nodes) - 1;
    rate->limit = ngx_coord_rate_part(rate->limit, rate->cost, nodes);
}


/* of places */

static ngx_uint_t
ngx_coord_rate_part(ngx_uint_t whole, ngx_uint_t cost, ngx_uint_t nodes)
{
    ngx_uint_t  part;

    part = whole / nodes + (whole % nodes ? 1 : 0);

    return (cost > part && cost <= whole) ? cost : part;
}


int64_t
ngx_coord_bucket_capacity(const ngx_coord_rate_t *rate)
{
    if (rate->force) {
        return NGX_COORD_RATE_LIMIT;
    }

    return (int64_t) ngx_min(rate->burst, NGX_COORD_RATE_LIMIT - 1) + 1;
}


ngx_coord_nsec_t
ngx_coord_bucket_span(const ngx_coord_bucket_t *bucket, int64_t places)
{
    return ngx_coord_rate_span(bucket->interval, ngx_max(places, 0));
}


ngx_int_t
ngx_coord_bucket_init(ngx_coord_bucket_t *bucket,
    const ngx_coord_rate_t *rate)
{
    ngx_uint_t        capacity;
    ngx_coord_nsec_t  needed;

    capacity = ngx_min(rate->burst, NGX_COORD_RATE_LIMIT - 1) + 1;

    bucket->interval = ngx_max(rate->interval, 1);
    bucket->interval = ngx_min(bucket->interval, NGX_COORD_RATE_SPAN);
    bucket->total = ngx_coord_rate_span(bucket->interval, capacity);
    bucket->slack = ngx_min(bucket->interval / 2, NGX_COORD_RATE_SLACK);

    if (rate->force) {
        needed = ngx_coord_rate_span(bucket->interval, rate->cost);

        bucket->charge = ngx_min(needed, NGX_COORD_RATE_DEBT);
        bucket->limit = NGX_COORD_RATE_DEBT;

        return NGX_OK;
    }

    if (rate->cost > capacity) {
        bucket->charge = bucket->total;
        bucket->limit = 0;

        return NGX_DECLINED;
    }

    needed = ngx_coord_rate_span(bucket->interval, rate->cost);

    bucket->charge = rate->look ? 0 : needed;
    bucket->limit = bucket->total - needed + bucket->slack;

    return NGX_OK;
}


ngx_int_t
ngx_coord_bucket_answer(const ngx_coord_bucket_t *bucket,
    ngx_coord_rate_t *rate, ngx_coord_nsec_t backlog)
{
    ngx_coord_nsec_t  whole, part;

    backlog = ngx_max(backlog, 0);

    whole = backlog / bucket->interval;
    part = backlog % bucket->interval;

    if (whole > NGX_MAX_INT_T_VALUE / 1000 - 1) {
        rate->excess = NGX_MAX_INT_T_VALUE;

    } else if (bucket->interval > INT64_MAX / 1000) {
        rate->excess = whole * 1000
                       + ngx_min(part / (bucket->interval / 1000), 999);

    } else {
        rate->excess = whole * 1000 + part * 1000 / bucket->interval;
    }

    if (backlog > bucket->limit) {
        rate->retry = backlog - bucket->limit;
        rate->reset = backlog;
        rate->remaining = ngx_coord_bucket_left(bucket, backlog);

        return NGX_BUSY;
    }

    backlog += bucket->charge;

    rate->retry = 0;
    rate->reset = backlog;
    rate->remaining = ngx_coord_bucket_left(bucket, backlog);

    return NGX_OK;
}


/* how many requests of cost 1 would be granted now */

static ngx_uint_t
ngx_coord_bucket_left(const ngx_coord_bucket_t *bucket,
    ngx_coord_nsec_t backlog)
{
    ngx_coord_nsec_t  left;

    left = bucket->total + bucket->slack - backlog;

    return left > 0 ? left / bucket->interval : 0;
}


ngx_coord_nsec_t
ngx_coord_bucket_refund(const ngx_coord_rate_t *rate, ngx_coord_nsec_t now)
{
    ngx_coord_nsec_t    left;
    ngx_coord_bucket_t  bucket;

    if (now < 0 || rate->mark <= now) {
        return 0;
    }

    (void) ngx_coord_bucket_init(&bucket, rate);

    left = rate->mark - now;

    return ngx_min(left, bucket.charge);
}


ngx_int_t
ngx_coord_window_init(ngx_coord_window_t *window,
    const ngx_coord_rate_t *rate)
{
    window->length = ngx_max(rate->window, NGX_COORD_NSEC_PER_MSEC);
    window->length = ngx_min(window->length, NGX_COORD_RATE_SPAN);
    window->limit = ngx_min(rate->limit, NGX_COORD_RATE_LIMIT);
    window->cost = ngx_min(rate->cost, NGX_COORD_RATE_LIMIT);
    window->take = rate->look ? 0 : window->cost;

    if (rate->force) {
        window->room = NGX_COORD_RATE_LIMIT - window->cost;
        return NGX_OK;
    }

    window->room = window->limit - window->cost;

    return window->room < 0 ? NGX_DECLINED : NGX_OK;
}


ngx_coord_nsec_t
ngx_coord_window_begins(ngx_coord_rate_t *rate, ngx_coord_nsec_t now,
    ngx_coord_nsec_t *most)
{
    ngx_coord_window_t  window;
    ngx_coord_period_t  period;

    if (rate->align == NGX_COORD_ALIGN_NONE) {
        (void) ngx_coord_window_init(&window, rate);

        *most = window.length + NGX_COORD_NSEC_PER_MSEC;

        return window.length;
    }

    now = ngx_max(now, 0);

    ngx_coord_period(&period, rate->align, rate->tz,
                     now + NGX_COORD_WINDOW_EARLY);

    rate->window = period.end - period.begin;

    *most = period.end - now + NGX_COORD_WINDOW_EARLY;

    return period.end - now;
}


ngx_int_t
ngx_coord_window_answer(const ngx_coord_window_t *window,
    ngx_coord_rate_t *rate, ngx_int_t rc, int64_t used, ngx_coord_nsec_t left)
{
    /* a TTL in milliseconds is rounded up, past the window at its start */

    left = ngx_min(ngx_max(left, 0), window->length);
    used = ngx_max(used, 0);

    rate->excess = 0;
    rate->remaining = used < window->limit ? window->limit - used : 0;
    rate->retry = (rc == NGX_BUSY) ? left : 0;
    rate->reset = left;

    return rc;
}


void
ngx_coord_sliding_init(ngx_coord_sliding_t *sliding,
    const ngx_coord_window_t *window, ngx_coord_nsec_t now)
{
    int64_t           digits;
    ngx_uint_t        i;
    ngx_coord_nsec_t  rest;

    now = ngx_max(now, 0);

    sliding->index = now / window->length;
    sliding->elapsed = now % window->length;

    /* nine digits of (length - elapsed) / length, by long division */

    rest = window->length - sliding->elapsed;
    digits = rest / window->length;
    rest %= window->length;

    for (i = 0; i < 9; i++) {
        rest *= 10;
        digits = digits * 10 + rest / window->length;
        rest %= window->length;
    }

    sliding->weight = rest ? digits + 1 : digits;
}


ngx_int_t
ngx_coord_sliding_decide(const ngx_coord_sliding_t *sliding,
    const ngx_coord_window_t *window, int64_t current, int64_t previous)
{
    int64_t  room;

    room = window->room - current;

    if (room < 0) {
        return NGX_BUSY;
    }

    previous = ngx_min(previous, NGX_COORD_RATE_LIMIT);

    return previous * sliding->weight <= room * NGX_COORD_RATE_WEIGHT
           ? NGX_OK : NGX_BUSY;
}


/*
 * The shortest time into a window at which count in the window before weighs
 * no more than room.
 */

static ngx_coord_nsec_t
ngx_coord_sliding_fits(ngx_coord_nsec_t length, int64_t room, int64_t count)
{
    int64_t  weight;

    if (count <= room) {
        return 0;
    }

    weight = room * NGX_COORD_RATE_WEIGHT / count;

    return length - length / NGX_COORD_RATE_WEIGHT * weight
           - length % NGX_COORD_RATE_WEIGHT * weight / NGX_COORD_RATE_WEIGHT;
}


ngx_int_t
ngx_coord_sliding_answer(const ngx_coord_sliding_t *sliding,
    const ngx_coord_window_t *window, ngx_coord_rate_t *rate, ngx_int_t rc,
    int64_t current, int64_t previous)
{
    int64_t           room, weighed;
    ngx_coord_nsec_t  left, at;

    current = ngx_max(current, 0);
    current = ngx_min(current, NGX_COORD_RATE_LIMIT);
    previous = ngx_max(previous, 0);
    previous = ngx_min(previous, NGX_COORD_RATE_LIMIT);

    left = window->length - sliding->elapsed;
    weighed = previous * sliding->weight;
    room = (window->limit - current) * NGX_COORD_RATE_WEIGHT - weighed;

    rate->excess = 0;
    rate->remaining = room > 0 ? room / NGX_COORD_RATE_WEIGHT : 0;
    rate->reset = current ? left + window->length : previous ? left : 0;
    rate->retry = 0;

    if (rc != NGX_BUSY) {
        return rc;
    }

    room = window->limit - window->cost;

    if (room < 0) {
        return rc;
    }

    if (current <= room) {
        at = ngx_coord_sliding_fits(window->length, room - current, previous);
        rate->retry = ngx_max(at - sliding->elapsed, 1);

    } else {
        at = ngx_coord_sliding_fits(window->length, room, current);
        rate->retry = left + at;
    }

    return rc;
}


ngx_int_t
ngx_coord_log_answer(const ngx_coord_window_t *window,
    ngx_coord_rate_t *rate, ngx_int_t rc, int64_t used,
    ngx_coord_nsec_t oldest, ngx_coord_nsec_t newest, ngx_coord_nsec_t now)
{
    ngx_coord_nsec_t  first, last;

    now = ngx_max(now, 0);
    used = ngx_max(used, 0);

    first = now - ngx_min(ngx_max(oldest, 0), now);
    first = ngx_min(first, window->length);

    last = now - ngx_min(ngx_max(newest, 0), now);
    last = ngx_min(last, window->length);

    rate->excess = 0;
    rate->remaining = used < window->limit ? window->limit - used : 0;
    rate->retry = (rc == NGX_BUSY) ? ngx_max(window->length - first, 1) : 0;
    rate->reset = used ? window->length - last : 0;

    return rc;
}


ngx_int_t
ngx_coord_rate_never(ngx_coord_rate_t *rate)
{
    rate->excess = 0;
    rate->remaining = 0;
    rate->retry = 0;
    rate->reset = 0;

    return NGX_BUSY;
}


ngx_int_t
ngx_coord_peek_bucket(ngx_coord_rate_t *rate, ngx_coord_nsec_t backlog)
{
    ngx_int_t           rc;
    ngx_coord_bucket_t  bucket;

    backlog = ngx_max(backlog, 0);

    rate->cost = 1;

    (void) ngx_coord_bucket_init(&bucket, rate);

    rc = ngx_coord_bucket_answer(&bucket, rate, backlog);

    rate->reset = backlog;

    if (rc == NGX_OK) {
        rate->remaining++;
    }

    return rc;
}


ngx_int_t
ngx_coord_peek_window(ngx_coord_rate_t *rate, int64_t used,
    ngx_coord_nsec_t left)
{
    ngx_int_t           rc;
    ngx_coord_window_t  window;

    rate->cost = 1;

    (void) ngx_coord_window_init(&window, rate);

    rc = (used < window.limit) ? NGX_OK : NGX_BUSY;

    (void) ngx_coord_window_answer(&window, rate, rc, used, left);

    rate->reset = used ? left : 0;

    return rc;
}


ngx_int_t
ngx_coord_peek_sliding(ngx_coord_rate_t *rate, int64_t current,
    int64_t previous, ngx_coord_nsec_t now)
{
    ngx_int_t            rc;
    ngx_coord_window_t   window;
    ngx_coord_sliding_t  sliding;

    rate->cost = 1;

    (void) ngx_coord_window_init(&window, rate);
    ngx_coord_sliding_init(&sliding, &window, now);

    rc = ngx_coord_sliding_decide(&sliding, &window, current, previous);

    return ngx_coord_sliding_answer(&sliding, &window, rate, rc, current,
                                    previous);
}


ngx_int_t
ngx_coord_peek_log(ngx_coord_rate_t *rate, int64_t used,
    ngx_coord_nsec_t oldest, ngx_coord_nsec_t now)
{
    ngx_int_t           rc;
    ngx_coord_window_t  window;

    rate->cost = 1;

    (void) ngx_coord_window_init(&window, rate);

    rc = (used < window.limit) ? NGX_OK : NGX_BUSY;

    return ngx_coord_log_answer(&window, rate, rc, used, oldest, now, now);
}
