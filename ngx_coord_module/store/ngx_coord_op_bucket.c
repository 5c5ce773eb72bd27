
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Buckets: what is taken.  In Redis a take is one command where the key is
 * known to be there and to live long enough (ngx_coord_lives.h), and another
 * script where it is not; both may find that there is more to do.
 *
 *            +-- lives ------> STEADY -- gone, or odd --> ANEW
 *   TAKE ----+                   |                         |
 *            +-- not known ------|-------------------------+--> SWAP
 *                                v                         v
 *                             answered <---- LIFE <---- shortened
 */


#include "ngx_coord_giveback.h"
#include "ngx_coord_lives.h"
#include "ngx_coord_op_bucket.h"


/* what the BITFIELD of each script answers: the elements that are read */
enum {
    NGX_COORD_TAKE_STAMP = 0,
    NGX_COORD_TAKE_HELD = 2,
    NGX_COORD_TAKE_STEPS,                /* two for each request */
    NGX_COORD_TAKE_NUMBER = 1            /* behind those */
};

enum {
    NGX_COORD_OPEN_CAP = 3,
    NGX_COORD_OPEN_TAKE                  /* from here on as of a take */
};

/* the arguments that both scripts of a take have */
typedef struct {
    int64_t                    at;
    int64_t                    open;
    int64_t                    close;     /* of a take that charges nothing */
    ngx_coord_bucket_t         bucket;
} ngx_coord_bucket_steps_t;


/* and what both answer */
typedef struct {
    int64_t                    held;
    int64_t                    stamp;
    int64_t                    number;
    ngx_int_t                  opened;    /* NGX_OK, or NGX_DECLINED */
} ngx_coord_bucket_found_t;


static int64_t ngx_coord_bucket_charge(ngx_coord_zone_t *zone,
    const ngx_coord_bucket_t *bucket);
static void ngx_coord_bucket_steps(ngx_coord_op_t *op, ngx_coord_nsec_t now,
    ngx_coord_bucket_steps_t *steps);
static void ngx_coord_bucket_steady_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_bucket_steady_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static void ngx_coord_bucket_open_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_bucket_open_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static void ngx_coord_bucket_relive(ngx_coord_op_t *op, int64_t left);
static ngx_int_t ngx_coord_bucket_read(ngx_coord_resp_value_t *v,
    ngx_uint_t first, ngx_uint_t nth, ngx_coord_bucket_found_t *found);
static ngx_int_t ngx_coord_bucket_decide(ngx_coord_rate_t *rate,
    const ngx_coord_bucket_found_t *found, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_bucket_once_more(ngx_coord_op_t *op,
    const ngx_coord_op_type_t *type);


const ngx_coord_op_type_t  ngx_coord_op_bucket_take = {
    ngx_string("bucket_take"),
    NGX_COORD_OP_TAKES|NGX_COORD_OP_JOINS|NGX_COORD_OP_FULL_BUSY,
    NGX_COORD_KIND_BUCKET,
    NGX_COORD_SCRIPT_GCRA_OPEN,
    ngx_coord_bucket_open_build,
    ngx_coord_bucket_open_parse,
    ngx_coord_bucket_take_known,
    ngx_coord_bucket_take_run,
    &ngx_coord_op_bucket_give,
    &ngx_coord_op_bucket_peek,
    &ngx_coord_op_bucket_forget,
    NULL,
    NULL
};


/*
 * A take of one command, and one that comes after it.  Should its answer be
 * lost, it may have left a key without a life.
 */

const ngx_coord_op_type_t  ngx_coord_op_bucket_steady = {
    ngx_string("bucket_steady"),
    NGX_COORD_OP_TAKES|NGX_COORD_OP_JOINS|NGX_COORD_OP_FULL_BUSY,
    NGX_COORD_KIND_BUCKET,
    NGX_COORD_SCRIPT_GCRA_TAKE,
    ngx_coord_bucket_steady_build,
    ngx_coord_bucket_steady_parse,
    NULL,
    ngx_coord_bucket_take_run,
    &ngx_coord_op_bucket_left,
    NULL,
    NULL,
    NULL,
    ngx_coord_take_same
};


static const ngx_coord_op_type_t  ngx_coord_op_bucket_anew = {
    ngx_string("bucket_anew"),
    NGX_COORD_OP_TAKES|NGX_COORD_OP_JOINS|NGX_COORD_OP_FULL_BUSY,
    NGX_COORD_KIND_BUCKET,
    NGX_COORD_SCRIPT_GCRA_OPEN,
    ngx_coord_bucket_open_build,
    ngx_coord_bucket_open_parse,
    NULL,
    ngx_coord_bucket_take_run,
    &ngx_coord_op_bucket_left,
    NULL,
    NULL,
    NULL,
    NULL
};


/*
 * The microseconds that a take charges; what is less than one is charged with
 * one of the next takes.
 */

static int64_t
ngx_coord_bucket_charge(ngx_coord_zone_t *zone,
    const ngx_coord_bucket_t *bucket)
{
    ngx_coord_nsec_t  charge;

    charge = bucket->charge + zone->rest;
    zone->rest = charge % NGX_COORD_NSEC_PER_USEC;

    return ngx_coord_tat_usec(charge);
}


static void
ngx_coord_bucket_steps(ngx_coord_op_t *op, ngx_coord_nsec_t now,
    ngx_coord_bucket_steps_t *steps)
{
    int64_t              tau;
    ngx_coord_bucket_t  *bucket;

    bucket = &steps->bucket;

    (void) ngx_coord_bucket_init(bucket, &op->u.rate);

    op->u.rate.life = ngx_coord_bucket_life(bucket);

    tau = ngx_coord_tat_usec(bucket->limit);

    steps->at = ngx_coord_tat_empty(bucket->interval,
                                    ngx_coord_bucket_clock(now));
    steps->open = INT64_MAX - tau;
    steps->close = tau - INT64_MAX;
}


static void
ngx_coord_bucket_steady_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    u_char                    *p;
    ngx_uint_t                 i, n;
    ngx_coord_arg_t           *a;
    ngx_coord_bucket_steps_t   steps;

    ngx_coord_bucket_steps(op, now, &steps);

    a = cmd->args;

    ngx_coord_arg_key(cmd, NGX_COORD_GCRA_TAKE_K, op, "}");

    n = op->behind + 1;
    p = cmd->last;

    for (i = 0; i < n; i++) {
        p = ngx_coord_arg_step(p, "u63", steps.open);
        p = ngx_coord_arg_step(p, "u63",
                               steps.close
                               + ngx_coord_bucket_charge(op->zone,
                                                         &steps.bucket));
    }

    ngx_coord_arg_list(&a[NGX_COORD_GCRA_TAKE_STEPS], cmd->last,
                       p - cmd->last, 2 * NGX_COORD_OP_STEP_WORDS * n);
    cmd->last = p;

    ngx_coord_arg_num(&a[NGX_COORD_GCRA_TAKE_STAMP], ngx_coord_tat_stamp(now));
    ngx_coord_arg_num(&a[NGX_COORD_GCRA_TAKE_FROM],
                      NGX_COORD_TAT_HALF - steps.at);
    ngx_coord_arg_num(&a[NGX_COORD_GCRA_TAKE_AT], steps.at);
}


static void
ngx_coord_bucket_open_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    int64_t                    cap;
    ngx_coord_arg_t           *a;
    ngx_coord_bucket_steps_t   steps;

    ngx_coord_bucket_steps(op, now, &steps);

    a = cmd->args;
    cap = ngx_coord_tat_code(ngx_coord_bucket_capacity(&op->u.rate));

    ngx_coord_arg_key(cmd, NGX_COORD_GCRA_OPEN_K, op, "}");
    ngx_coord_arg_num(&a[NGX_COORD_GCRA_OPEN_FRESH], steps.at - INT64_MAX);
    ngx_coord_arg_num(&a[NGX_COORD_GCRA_OPEN_MINUS_CAP], -cap);
    ngx_coord_arg_num(&a[NGX_COORD_GCRA_OPEN_CAP], cap);
    ngx_coord_arg_num(&a[NGX_COORD_GCRA_OPEN_STAMP], ngx_coord_tat_stamp(now));
    ngx_coord_arg_num(&a[NGX_COORD_GCRA_OPEN_FROM],
                      NGX_COORD_TAT_HALF - steps.at);
    ngx_coord_arg_num(&a[NGX_COORD_GCRA_OPEN_OPEN], steps.open);
    ngx_coord_arg_num(&a[NGX_COORD_GCRA_OPEN_CLOSE],
                      steps.close + ngx_coord_bucket_charge(op->zone,
                                                            &steps.bucket));
    ngx_coord_arg_num(&a[NGX_COORD_GCRA_OPEN_AT], steps.at);
    ngx_coord_arg_num(&a[NGX_COORD_GCRA_OPEN_TTL],
                      ngx_coord_ceil_msec(op->u.rate.life));
}


/*
 * What the request nth of those that were asked for together has found: the
 * bucket with what was charged for those before it.  The number is that behind
 * all of them: who is refused is refused as those behind it are.
 */

static ngx_int_t
ngx_coord_bucket_read(ngx_coord_resp_value_t *v, ngx_uint_t first,
    ngx_uint_t nth, ngx_coord_bucket_found_t *found)
{
    int64_t     held, sum;
    ngx_int_t   opened, closed;
    ngx_uint_t  i, n;

    n = first + NGX_COORD_TAKE_STEPS + NGX_COORD_TAKE_NUMBER;

    if (v->type != NGX_COORD_RESP_ARRAY
        || v->integer < (int64_t) (n + 2 * nth + 2)
        || (v->integer - n) % 2
        || ngx_coord_bucket_int(v, first + NGX_COORD_TAKE_STAMP,
                                &found->stamp) != NGX_OK
        || ngx_coord_bucket_int(v, first + NGX_COORD_TAKE_HELD,
                                &held) != NGX_OK
        || ngx_coord_bucket_int(v, v->integer - 1, &found->number) != NGX_OK
        || held < 0 || found->number < 0)
    {
        return NGX_ERROR;
    }

    v = ngx_coord_resp_element(v, first + NGX_COORD_TAKE_STEPS);

    for (i = 0; i <= nth; i++) {

        opened = ngx_coord_resp_integer(v, &sum);
        v += v->next;
        closed = ngx_coord_resp_integer(v, &sum);
        v += v->next;

        if (opened == NGX_ERROR
            || opened != closed
            || (opened == NGX_OK
                && (sum < held || sum >= 2 * NGX_COORD_TAT_HALF)))
        {
            return NGX_ERROR;
        }

        found->held = held;
        found->opened = opened;

        if (opened == NGX_OK) {
            held = sum;
        }
    }

    return NGX_OK;
}


/*
 * The answer, NGX_OK or NGX_BUSY, unless the bucket is one of another class,
 * or there is none, or it holds more than can be true: NGX_AGAIN.
 */

static ngx_int_t
ngx_coord_bucket_decide(ngx_coord_rate_t *rate,
    const ngx_coord_bucket_found_t *found, ngx_coord_nsec_t now)
{
    ngx_int_t           rc;
    ngx_coord_nsec_t    most;
    ngx_coord_bucket_t  bucket;

    (void) ngx_coord_bucket_init(&bucket, rate);

    rate->found = found->number;

    if (rate->stamp == 0) {
        rate->stamp = (uint32_t) found->stamp;
    }

    most = ngx_coord_bucket_span(&bucket, rate->capacity) + bucket.slack;

    if (found->held >= NGX_COORD_TAT_HALF
        || found->held > ngx_coord_tat_usec(most))
    {
        return found->opened == NGX_OK ? NGX_ERROR : NGX_AGAIN;
    }

    rc = ngx_coord_bucket_answer(&bucket, rate,
                                 found->held * NGX_COORD_NSEC_PER_USEC);

    rate->mark = now + rate->reset;

    return (rc == NGX_OK) == (found->opened == NGX_OK) ? rc : NGX_ERROR;
}


static ngx_int_t
ngx_coord_bucket_once_more(ngx_coord_op_t *op, const ngx_coord_op_type_t *type)
{
    ngx_coord_rate_t  *rate;

    rate = &op->u.rate;

    if (++rate->tries > NGX_COORD_BUCKET_TRIES) {
        return NGX_ERROR;
    }

    rate->cost -= rate->extra;
    rate->extra = 0;

    ngx_coord_lives_drop(op, ngx_coord_bucket_kind(rate));

    op->type = type;

    return NGX_AGAIN;
}


static ngx_int_t
ngx_coord_bucket_steady_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now)
{
    ngx_int_t                  rc;
    ngx_coord_rate_t          *rate;
    ngx_coord_bucket_found_t   found;

    rate = &op->u.rate;

    if (ngx_coord_bucket_read(values[0], 0, op->nth, &found) != NGX_OK) {
        return NGX_ERROR;
    }

    if (op->nth) {
        found.stamp = ngx_coord_tat_stamp(now);
    }

    rc = ngx_coord_bucket_decide(rate, &found, now);

    if (rc == NGX_AGAIN) {
        return ngx_coord_bucket_once_more(op, &ngx_coord_op_bucket_anew);
    }

    op->type = &ngx_coord_op_bucket_take;

    if (rate->extra && rc != NGX_ERROR) {
        rc = ngx_coord_bucket_block(op, found.held, rc, now);
    }

    if (rc == NGX_BUSY) {
        ngx_coord_bucket_deny(op, now);
    }

    return rc;
}


static ngx_int_t
ngx_coord_bucket_open_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now)
{
    int64_t                    cap;
    ngx_int_t                  rc;
    ngx_coord_rate_t          *rate;
    ngx_coord_bucket_t         bucket;
    ngx_coord_resp_value_t    *v;
    ngx_coord_bucket_found_t   found;

    rate = &op->u.rate;
    v = ngx_coord_reply(GCRA_OPEN, BUCKET);

    if (ngx_coord_bucket_read(v, NGX_COORD_OPEN_TAKE, 0, &found) != NGX_OK
        || ngx_coord_bucket_int(v, NGX_COORD_OPEN_CAP, &cap) != NGX_OK)
    {
        return NGX_ERROR;
    }

    rate->capacity = ngx_coord_tat_places(cap);

    rc = ngx_coord_bucket_decide(rate, &found, now);

    if (rc == NGX_AGAIN) {
        return ngx_coord_bucket_once_more(op, &ngx_coord_op_bucket_swap);
    }

    if (rc == NGX_ERROR) {
        return NGX_ERROR;
    }

    (void) ngx_coord_bucket_init(&bucket, rate);

    ngx_coord_lives_keep(op, ngx_coord_bucket_kind(rate),
                         now + rate->life - ngx_coord_bucket_need(&bucket),
                         cap);

    op->type = &ngx_coord_op_bucket_take;

    if (rate->extra) {
        rc = ngx_coord_bucket_block(op, found.held, rc, now);
    }

    if (rc == NGX_AGAIN) {
        ngx_coord_bucket_relive(op, ngx_coord_reply(GCRA_OPEN, LEFT)->integer);
        return NGX_AGAIN;
    }

    if (rc == NGX_BUSY) {
        ngx_coord_bucket_deny(op, now);
    }

    /* of a caller with a larger burst, or one who takes in any case */

    if (ngx_coord_bucket_shortened(rate,
                                ngx_coord_reply(GCRA_OPEN, LEFT)->integer))
    {
        op->type = &ngx_coord_op_bucket_life;
    }

    if (rate->reset > bucket.total + bucket.slack) {
        rate->life = ngx_max(rate->life,
                             rate->reset + ngx_coord_bucket_need(&bucket)
                             - bucket.total);
        op->type = &ngx_coord_op_bucket_life;
    }

    return op->type == &ngx_coord_op_bucket_life ? NGX_AGAIN : rc;
}


/* what asks once more for something else does not mend the life itself */

static void
ngx_coord_bucket_relive(ngx_coord_op_t *op, int64_t left)
{
    ngx_coord_op_t  mend;

    mend = *op;
    mend.type = &ngx_coord_op_bucket_mend;

    if (ngx_coord_bucket_shortened(&mend.u.rate, left)) {
        ngx_coord_giveback_op(&mend, mend.u.rate.life);
    }
}


ngx_int_t
ngx_coord_bucket_take_run(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    uint64_t             payload[2];
    ngx_int_t            rc;
    ngx_coord_rate_t    *rate;
    ngx_coord_nsec_t     held, expires, kept;
    ngx_coord_entry_t   *entry;
    ngx_coord_bucket_t   bucket;

    rate = &op->u.rate;

    op->type = &ngx_coord_op_bucket_take;

    /* Redis was asked for more than for this request, and has not answered */

    rate->cost -= rate->extra;
    rate->extra = 0;

    if (ngx_coord_bucket_init(&bucket, rate) != NGX_OK) {
        return ngx_coord_rate_never(rate);
    }

    entry = ngx_coord_entry_find(table, op, now);

    rate->capacity = ngx_coord_bucket_capacity(rate);
    rate->found = 0;
    rate->stamp = ngx_coord_tat_stamp(now);

    payload[1] = (uint64_t) rate->stamp << 32;

    if (entry) {
        rate->capacity = ngx_max(rate->capacity,
                                 (int64_t) (entry->payload[1] & 0xffffffff));
        rate->found = (int64_t) entry->payload[0];
        rate->stamp = (uint32_t) (entry->payload[1] >> 32);
    }

    payload[1] |= (uint64_t) rate->capacity;

    held = ngx_coord_bucket_held(rate, &bucket, now, now);

    rc = ngx_coord_bucket_answer(&bucket, rate, held);

    rate->mark = now + rate->reset;
    expires = rate->mark + NGX_COORD_NSEC_PER_USEC;

    /* a rate that is lowered drains it from its last use on, as in limit_req */

    kept = now + ngx_coord_bucket_life(&bucket);

    payload[0] = ngx_coord_tat_empty(bucket.interval, now)
                 + ngx_coord_tat_usec(held);

    if (rc == NGX_OK) {
        payload[0] += ngx_coord_bucket_charge(op->zone, &bucket);
    }

    if (entry) {
        entry->payload[1] = payload[1];
        entry->expires = expires;
        entry->kept = ngx_max(entry->kept, kept);
        entry->payload[0] = payload[0];
        return rc;
    }

    entry = ngx_coord_entry_insert(table, op, NGX_COORD_ENTRY_EVICT, payload,
                                   expires, now);
    if (entry == NULL) {
        return NGX_ERROR;
    }

    entry->kept = kept;

    return rc;
}
