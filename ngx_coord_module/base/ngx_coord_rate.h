
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The arithmetic of rate limits, shared by both stores: pure functions of
 * their arguments, no clock, no memory, no overflow for any argument.
 *
 * What the answers mean, for every algorithm:
 *
 *   remaining   how many further requests of cost 1 would be granted right now
 *   retry       refused: the shortest wait after which the same request is
 *               granted if nobody else asks; 0: its cost never fits
 *   reset       how long until the state is that of a key never seen
 */


#ifndef _NGX_COORD_RATE_H_INCLUDED_
#define _NGX_COORD_RATE_H_INCLUDED_


#include "ngx_coord.h"
#include "ngx_coord_calendar.h"


/* rate operations: what is asked and what is answered */
typedef struct {
    /* asked */
    ngx_coord_nsec_t           interval;  /* bucket: between two requests */
    ngx_uint_t                 burst;     /* bucket: requests above the rate */
    ngx_uint_t                 limit;     /* windows: requests per window */
    ngx_coord_nsec_t           window;    /* windows: length; answered, too,
                                           * where it has an align */
    ngx_coord_align_e          align;     /* fixed window: where it begins */
    ngx_coord_nsec_t           tz;        /* of align: east of Greenwich */
    ngx_uint_t                 cost;      /* places to take: 0 takes none,
                                           * and is granted unless more than
                                           * all are taken */
    unsigned                   look:1;    /* decide, but take nothing */
    unsigned                   force:1;   /* take in any case, beyond the
                                           * places that there are, too */

    /* answered, for NGX_OK and NGX_BUSY alike */
    ngx_uint_t                 excess;    /* bucket: before this request, in
                                           * 1/1000 request, as limit_req */
    ngx_uint_t                 remaining; /* places left after this request */
    ngx_coord_nsec_t           retry;     /* refused: until cost would fit */
    ngx_coord_nsec_t           reset;     /* until all places are free */

    /*
     * What the give operation needs of the take: bucket: the new theoretical
     * arrival time; fixed window: its end; sliding window: its index; on the
     * clock of the store that answered.
     */
    ngx_coord_nsec_t           mark;

    /* a bucket on the way from one question of a take to the next */
    int64_t                    found;     /* a number of ngx_coord_tat.h */
    int64_t                    capacity;  /* the largest of all callers */
    uint32_t                   stamp;     /* of the caller before, ms */
    ngx_uint_t                 tries;
    ngx_coord_nsec_t           life;      /* that its key shall have */
    ngx_uint_t                 extra;     /* of cost: taken in advance */
} ngx_coord_rate_t;


/* durations above are cut to this: 18 years; two of them still add up */
#define NGX_COORD_RATE_SPAN    ((ngx_coord_nsec_t) 1 << 59)

/* what a forced take charges, and what it may find, are cut to this */
#define NGX_COORD_RATE_DEBT    (NGX_COORD_RATE_SPAN / 2)

/* how far the clocks of two workers may differ: see ngx_coord_bucket_t */
#define NGX_COORD_RATE_SLACK   (5 * NGX_COORD_NSEC_PER_MSEC)

/* limits of windows and costs above are cut to this */
#define NGX_COORD_RATE_LIMIT   0x7fffffff

/* the weight of a previous window is counted in parts of this */
#define NGX_COORD_RATE_WEIGHT  1000000000LL


/*
 * A bucket as GCRA (virtual scheduling).  A request of cost c moves the
 * theoretical arrival time (TAT) by charge = c * interval; it is granted if
 * TAT - now, the backlog, is at most limit = (burst + 1 - c) * interval
 * + slack.
 *
 * slack is for the clocks of workers, which agree with the server's only up to
 * half a round trip: without it the last place of a burst would go to nobody
 * when a worker with a late clock asks for it.  A request may come early by
 * so much, but the TAT moves by the whole charge: the rate stays, and since
 * slack is at most half an interval, so does the number of places.
 */

typedef struct {
    ngx_coord_nsec_t           interval;
    ngx_coord_nsec_t           charge;    /* of a look: 0 */
    ngx_coord_nsec_t           limit;
    ngx_coord_nsec_t           total;     /* (burst + 1) * interval */
    ngx_coord_nsec_t           slack;
} ngx_coord_bucket_t;


/*
 * How many places may be taken: burst + 1, at most NGX_COORD_RATE_LIMIT, which
 * it is where places are taken in any case.
 */
int64_t ngx_coord_bucket_capacity(const ngx_coord_rate_t *rate);

/* how long so many places take to drain, at most NGX_COORD_RATE_SPAN */
ngx_coord_nsec_t ngx_coord_bucket_span(const ngx_coord_bucket_t *bucket,
    int64_t places);

/*
 * Computes the bucket of a rate.  NGX_DECLINED: the cost is above burst + 1
 * and never fits, unless it is forced.
 */
ngx_int_t ngx_coord_bucket_init(ngx_coord_bucket_t *bucket,
    const ngx_coord_rate_t *rate);

/*
 * Decides on a request that found backlog nanoseconds in the bucket: returns
 * NGX_OK or NGX_BUSY and fills the answer of rate, but for mark.
 */
ngx_int_t ngx_coord_bucket_answer(const ngx_coord_bucket_t *bucket,
    ngx_coord_rate_t *rate, ngx_coord_nsec_t backlog);

/*
 * How far the TAT may be set back for a take whose TAT was rate->mark: only
 * the part of the charge that has not drained yet, so that giving back never
 * admits more than not having asked; 0: nothing.
 */
ngx_coord_nsec_t ngx_coord_bucket_refund(const ngx_coord_rate_t *rate,
    ngx_coord_nsec_t now);


/* 1 if of two takes of one key, in any order, the first gets the same */
ngx_uint_t ngx_coord_rate_same(const ngx_coord_rate_t *a,
    const ngx_coord_rate_t *b);


/*
 * Makes of what is asked for the share of one of so many nodes, each of which
 * decides by itself: the rate, and so many places at once, but never less than
 * one place, nor less than the cost where that fits into the whole.
 */
void ngx_coord_rate_share(ngx_coord_rate_t *rate, ngx_uint_t nodes);


/* the parameters of a window within their bounds */
typedef struct {
    ngx_coord_nsec_t           length;
    int64_t                    limit;
    int64_t                    cost;
    int64_t                    take;      /* cost, or 0 of a look */
    int64_t                    room;      /* granted if no more are used */
} ngx_coord_window_t;


/*
 * A window of the calendar that would begin so short a time before it ends is
 * the next one: the clocks of workers agree with that of the store only so far,
 * and what is counted in one that is gone is counted nowhere.
 */
#define NGX_COORD_WINDOW_EARLY  (100 * NGX_COORD_NSEC_PER_MSEC)

/*
 * Of a fixed window at a moment of the calendar, nanoseconds since 1970 in
 * UTC: how long one lasts that begins now, and in *most how much may be left
 * of one that has begun, by the clock of another worker.  With align
 * rate->window becomes the length of the period that the first belongs to.
 */
ngx_coord_nsec_t ngx_coord_window_begins(ngx_coord_rate_t *rate,
    ngx_coord_nsec_t now, ngx_coord_nsec_t *most);

/*
 * NGX_DECLINED: the cost is above the limit and never fits, unless it is
 * forced.
 */
ngx_int_t ngx_coord_window_init(ngx_coord_window_t *window,
    const ngx_coord_rate_t *rate);

/*
 * Fills the answer of a fixed window: used places after the request, left
 * nanoseconds until the window ends.  Returns rc.
 */
ngx_int_t ngx_coord_window_answer(const ngx_coord_window_t *window,
    ngx_coord_rate_t *rate, ngx_int_t rc, int64_t used,
    ngx_coord_nsec_t left);


/*
 * A sliding window counter sees windows that start at multiples of their
 * length.  The estimate is the count of the current window and that of the
 * previous one times the part of it that still lies within one length.
 */

typedef struct {
    int64_t                    index;     /* of the current window */
    ngx_coord_nsec_t           elapsed;   /* since it began */
    int64_t                    weight;    /* of the previous one, rounded up */
} ngx_coord_sliding_t;


/* where a moment of the server's clock stands between two windows */
void ngx_coord_sliding_init(ngx_coord_sliding_t *sliding,
    const ngx_coord_window_t *window, ngx_coord_nsec_t now);

/*
 * Decides on a request by the counts of both windows without it: NGX_OK or
 * NGX_BUSY.
 */
ngx_int_t ngx_coord_sliding_decide(const ngx_coord_sliding_t *sliding,
    const ngx_coord_window_t *window, int64_t current, int64_t previous);

/*
 * Fills the answer: rc was decided; current and previous are the counts
 * after the request.  Returns rc.
 */
ngx_int_t ngx_coord_sliding_answer(const ngx_coord_sliding_t *sliding,
    const ngx_coord_window_t *window, ngx_coord_rate_t *rate, ngx_int_t rc,
    int64_t current, int64_t previous);


/*
 * Fills the answer of a sliding log: used entries after the request; oldest
 * and newest are the times of the first and the last one.  Returns rc.
 */
ngx_int_t ngx_coord_log_answer(const ngx_coord_window_t *window,
    ngx_coord_rate_t *rate, ngx_int_t rc, int64_t used,
    ngx_coord_nsec_t oldest, ngx_coord_nsec_t newest, ngx_coord_nsec_t now);


/* the answer to a request whose cost never fits; returns NGX_BUSY */
ngx_int_t ngx_coord_rate_never(ngx_coord_rate_t *rate);


/*
 * The answers to a look: what a request of cost 1 would get now, NGX_OK or
 * NGX_BUSY; remaining counts the places that are free, and reset is the time
 * until all are.
 */
ngx_int_t ngx_coord_peek_bucket(ngx_coord_rate_t *rate,
    ngx_coord_nsec_t backlog);
ngx_int_t ngx_coord_peek_window(ngx_coord_rate_t *rate, int64_t used,
    ngx_coord_nsec_t left);
ngx_int_t ngx_coord_peek_sliding(ngx_coord_rate_t *rate, int64_t current,
    int64_t previous, ngx_coord_nsec_t now);
ngx_int_t ngx_coord_peek_log(ngx_coord_rate_t *rate, int64_t used,
    ngx_coord_nsec_t oldest, ngx_coord_nsec_t now);


#endif /* _NGX_COORD_RATE_H_INCLUDED_ */
