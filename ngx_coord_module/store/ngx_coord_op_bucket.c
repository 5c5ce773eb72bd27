
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Buckets: a number of ngx_coord_tat.h, in Redis in a BITFIELD, in memory in
 * payload[0] of an entry.  Behind it stand the largest capacity of all callers
 * (what is above it cannot be true) and the time of the last one, in Redis at
 * the bits 64 and 96, in memory in the lower and upper half of payload[1].
 */


#include "ngx_coord_op_arg.h"
#include "ngx_coord_tat.h"


/*
 * The clock of a TAT in Redis starts in 2020, so that it has enough bits until
 * 2091; a server whose clock was never set counts from its own start.
 */
#define NGX_COORD_BUCKET_EPOCH  (1577836800LL * NGX_COORD_NSEC_PER_SEC)

#define ngx_coord_bucket_clock(now)                                           \
    ((now) < NGX_COORD_BUCKET_EPOCH ? (now) : (now) - NGX_COORD_BUCKET_EPOCH)

/* a bucket that others keep changing is given up after so many questions */
#define NGX_COORD_BUCKET_TRIES  32


/* what the BITFIELD of each script answers: the elements that are read */
enum {
    NGX_COORD_BUCKET_HELD = 3,
    NGX_COORD_BUCKET_CAP = 5,
    NGX_COORD_BUCKET_STAMP,
    NGX_COORD_BUCKET_OPENED,
    NGX_COORD_BUCKET_CLOSED,
    NGX_COORD_BUCKET_NUMBER,
    NGX_COORD_BUCKET_ELEMENTS
};

enum {
    NGX_COORD_SWAP_PUT = 4,
    NGX_COORD_SWAP_NUMBER,
    NGX_COORD_SWAP_ELEMENTS
};

enum {
    NGX_COORD_PEEK_NUMBER = 0,
    NGX_COORD_PEEK_STAMP,
    NGX_COORD_PEEK_ELEMENTS
};


#define ngx_coord_bucket_int(v, n, i)                                         \
    ngx_coord_resp_integer(ngx_coord_resp_element(v, n), i)


static ngx_int_t ngx_coord_bucket_take_known(ngx_coord_op_t *op,
    ngx_coord_nsec_t now);
static void ngx_coord_bucket_take_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_bucket_take_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_bucket_take_run(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static int64_t ngx_coord_bucket_charge(ngx_coord_zone_t *zone,
    const ngx_coord_bucket_t *bucket);
static void ngx_coord_bucket_life_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_bucket_life_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static void ngx_coord_bucket_swap_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_bucket_swap_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_bucket_swap_answer(ngx_coord_rate_t *rate,
    ngx_coord_nsec_t now);
static ngx_coord_nsec_t ngx_coord_bucket_held(const ngx_coord_rate_t *rate,
    const ngx_coord_bucket_t *bucket, ngx_coord_nsec_t now,
    ngx_coord_nsec_t clock);
static ngx_int_t ngx_coord_bucket_give_known(ngx_coord_op_t *op,
    ngx_coord_nsec_t now);
static void ngx_coord_bucket_give_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_bucket_give_run(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static void ngx_coord_bucket_peek_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_bucket_peek_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_bucket_peek_run(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);


const ngx_coord_op_type_t  ngx_coord_op_bucket_take = {
    ngx_string("bucket_take"),
    NGX_COORD_OP_TAKES|NGX_COORD_OP_JOINS|NGX_COORD_OP_FULL_BUSY,
    NGX_COORD_KIND_BUCKET,
    NGX_COORD_SCRIPT_GCRA_TAKE,
    ngx_coord_bucket_take_build,
    ngx_coord_bucket_take_parse,
    ngx_coord_bucket_take_known,
    ngx_coord_bucket_take_run,
    &ngx_coord_op_bucket_give,
    &ngx_coord_op_bucket_peek,
    &ngx_coord_op_bucket_forget,
    NULL
};


/* a take once more: it has found a bucket that has to be converted first */

static const ngx_coord_op_type_t  ngx_coord_op_bucket_swap = {
    ngx_string("bucket_swap"),
    NGX_COORD_OP_TAKES|NGX_COORD_OP_JOINS,
    NGX_COORD_KIND_BUCKET,
    NGX_COORD_SCRIPT_GCRA_SWAP,
    ngx_coord_bucket_swap_build,
    ngx_coord_bucket_swap_parse,
    NULL,
    ngx_coord_bucket_take_run,
    &ngx_coord_op_bucket_give,
    NULL,
    NULL,
    NULL
};


/* a take that is answered, and has found more than its life covers */

static const ngx_coord_op_type_t  ngx_coord_op_bucket_life = {
    ngx_string("bucket_life"),
    NGX_COORD_OP_TAKES|NGX_COORD_OP_JOINS,
    NGX_COORD_KIND_BUCKET,
    NGX_COORD_SCRIPT_GCRA_LIFE,
    ngx_coord_bucket_life_build,
    ngx_coord_bucket_life_parse,
    NULL,
    ngx_coord_bucket_take_run,
    &ngx_coord_op_bucket_give,
    NULL,
    NULL,
    NULL
};


const ngx_coord_op_type_t  ngx_coord_op_bucket_give = {
    ngx_string("bucket_give"),
    NGX_COORD_OP_JOINS,
    NGX_COORD_KIND_BUCKET,
    NGX_COORD_SCRIPT_GCRA_GIVE,
    ngx_coord_bucket_give_build,
    ngx_coord_give_parse,
    ngx_coord_bucket_give_known,
    ngx_coord_bucket_give_run,
    NULL,
    NULL,
    NULL,
    NULL
};


const ngx_coord_op_type_t  ngx_coord_op_bucket_peek = {
    ngx_string("bucket_peek"),
    0,
    NGX_COORD_KIND_BUCKET,
    NGX_COORD_SCRIPT_GCRA_PEEK,
    ngx_coord_bucket_peek_build,
    ngx_coord_bucket_peek_parse,
    NULL,
    ngx_coord_bucket_peek_run,
    NULL,
    NULL,
    NULL,
    NULL
};


const ngx_coord_op_type_t  ngx_coord_op_bucket_forget = {
    ngx_string("bucket_forget"),
    0,
    NGX_COORD_KIND_BUCKET,
    NGX_COORD_SCRIPT_FORGET,
    ngx_coord_forget_build,
    ngx_coord_forget_parse,
    NULL,
    ngx_coord_forget_run,
    NULL,
    NULL,
    NULL,
    NULL
};


static ngx_int_t
ngx_coord_bucket_take_known(ngx_coord_op_t *op, ngx_coord_nsec_t now)
{
    ngx_coord_bucket_t  bucket;

    return ngx_coord_bucket_init(&bucket, &op->u.rate) == NGX_OK
           ? NGX_AGAIN : ngx_coord_rate_never(&op->u.rate);
}


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
ngx_coord_bucket_take_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    int64_t              at, tau, cap;
    ngx_coord_arg_t     *a;
    ngx_coord_bucket_t   bucket;

    (void) ngx_coord_bucket_init(&bucket, &op->u.rate);

    a = cmd->args;

    at = ngx_coord_tat_empty(bucket.interval, ngx_coord_bucket_clock(now));
    tau = ngx_coord_tat_usec(bucket.limit);
    cap = ngx_coord_bucket_capacity(&op->u.rate);

    ngx_coord_arg_key(cmd, NGX_COORD_GCRA_TAKE_K, op, "}");
    ngx_coord_arg_num(&a[NGX_COORD_GCRA_TAKE_FRESH], at - INT64_MAX);
    ngx_coord_arg_num(&a[NGX_COORD_GCRA_TAKE_FROM], NGX_COORD_TAT_HALF - at);
    ngx_coord_arg_num(&a[NGX_COORD_GCRA_TAKE_MINUS_CAP], -cap);
    ngx_coord_arg_num(&a[NGX_COORD_GCRA_TAKE_CAP], cap);
    ngx_coord_arg_num(&a[NGX_COORD_GCRA_TAKE_STAMP], ngx_coord_tat_stamp(now));
    ngx_coord_arg_num(&a[NGX_COORD_GCRA_TAKE_OPEN], INT64_MAX - tau);
    ngx_coord_arg_num(&a[NGX_COORD_GCRA_TAKE_CLOSE],
                      tau + ngx_coord_bucket_charge(op->zone, &bucket)
                      - INT64_MAX);
    ngx_coord_arg_num(&a[NGX_COORD_GCRA_TAKE_AT], at);
    ngx_coord_arg_num(&a[NGX_COORD_GCRA_TAKE_TTL],
                      ngx_coord_ttl(bucket.total));
}


/*
 * The answer stands unless the bucket is one of another class, or holds more
 * than can be true.
 */

static ngx_int_t
ngx_coord_bucket_take_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now)
{
    int64_t                  held, cap, stamp, number, sum;
    ngx_int_t                opened, closed, rc;
    ngx_coord_rate_t        *rate;
    ngx_coord_nsec_t         most;
    ngx_coord_bucket_t       bucket;
    ngx_coord_resp_value_t  *v;

    rate = &op->u.rate;
    v = values[0];

    if (v->type != NGX_COORD_RESP_ARRAY
        || v->integer != NGX_COORD_BUCKET_ELEMENTS)
    {
        return NGX_ERROR;
    }

    opened = ngx_coord_bucket_int(v, NGX_COORD_BUCKET_OPENED, &sum);
    closed = ngx_coord_bucket_int(v, NGX_COORD_BUCKET_CLOSED, &sum);

    if (opened == NGX_ERROR
        || opened != closed
        || ngx_coord_bucket_int(v, NGX_COORD_BUCKET_HELD, &held) != NGX_OK
        || ngx_coord_bucket_int(v, NGX_COORD_BUCKET_CAP, &cap) != NGX_OK
        || ngx_coord_bucket_int(v, NGX_COORD_BUCKET_STAMP, &stamp) != NGX_OK
        || ngx_coord_bucket_int(v, NGX_COORD_BUCKET_NUMBER, &number) != NGX_OK
        || held < 0 || cap < 0 || number < 0)
    {
        return NGX_ERROR;
    }

    (void) ngx_coord_bucket_init(&bucket, rate);

    most = ngx_coord_bucket_span(&bucket, cap) + bucket.slack;

    if (held >= NGX_COORD_TAT_HALF || held > ngx_coord_tat_usec(most)) {

        if (opened == NGX_OK || ++rate->tries > NGX_COORD_BUCKET_TRIES) {
            return NGX_ERROR;
        }

        rate->found = number;
        rate->capacity = cap;
        rate->stamp = (uint32_t) stamp;
        op->type = &ngx_coord_op_bucket_swap;

        return NGX_AGAIN;
    }

    rc = ngx_coord_bucket_answer(&bucket, rate,
                                 held * NGX_COORD_NSEC_PER_USEC);

    rate->mark = now + rate->reset;

    if ((rc == NGX_OK) != (opened == NGX_OK)) {
        return NGX_ERROR;
    }

    /* of a caller with a larger burst, or one who takes in any case */

    if (rate->reset > bucket.total + bucket.slack) {
        op->type = &ngx_coord_op_bucket_life;
        return NGX_AGAIN;
    }

    return rc;
}


static void
ngx_coord_bucket_life_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_arg_key(cmd, NGX_COORD_GCRA_LIFE_K, op, "}");
    ngx_coord_arg_num(&cmd->args[NGX_COORD_GCRA_LIFE_TTL],
                      ngx_coord_ttl(op->u.rate.reset));
}


/* the answer is that of the take; nothing is lost if the key is gone */

static ngx_int_t
ngx_coord_bucket_life_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now)
{
    op->type = &ngx_coord_op_bucket_take;

    return op->u.rate.retry ? NGX_BUSY : NGX_OK;
}


/*
 * What the bucket that was found holds for this caller.  Above the capacity
 * of all callers it cannot be true: the clock of the store was set back.
 */

static ngx_coord_nsec_t
ngx_coord_bucket_held(const ngx_coord_rate_t *rate,
    const ngx_coord_bucket_t *bucket, ngx_coord_nsec_t now,
    ngx_coord_nsec_t clock)
{
    ngx_coord_nsec_t  held, most;

    held = ngx_coord_tat_backlog(rate->found, bucket->interval, clock,
                                 ngx_coord_tat_idle(rate->stamp, now));

    most = ngx_coord_bucket_span(bucket, rate->capacity) + bucket->slack;

    return ngx_min(held, most);
}


static ngx_int_t
ngx_coord_bucket_swap_answer(ngx_coord_rate_t *rate, ngx_coord_nsec_t now)
{
    ngx_int_t           rc;
    ngx_coord_bucket_t  bucket;

    (void) ngx_coord_bucket_init(&bucket, rate);

    rc = ngx_coord_bucket_answer(&bucket, rate,
              ngx_coord_bucket_held(rate, &bucket, now,
                                    ngx_coord_bucket_clock(now)));

    rate->mark = now + rate->reset;

    return rc;
}


static void
ngx_coord_bucket_swap_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    int64_t            put;
    ngx_coord_arg_t   *a;
    ngx_coord_rate_t  *rate;

    a = cmd->args;
    rate = &op->u.rate;

    (void) ngx_coord_bucket_swap_answer(rate, now);

    put = ngx_coord_tat_empty(rate->interval, ngx_coord_bucket_clock(now))
          + ngx_coord_tat_usec(rate->reset);

    ngx_coord_arg_key(cmd, NGX_COORD_GCRA_SWAP_K, op, "}");
    ngx_coord_arg_num(&a[NGX_COORD_GCRA_SWAP_ABOVE], INT64_MAX - rate->found);
    ngx_coord_arg_num(&a[NGX_COORD_GCRA_SWAP_BELOW], rate->found - INT64_MAX);
    ngx_coord_arg_num(&a[NGX_COORD_GCRA_SWAP_PLACE], put - INT64_MAX);
    ngx_coord_arg_num(&a[NGX_COORD_GCRA_SWAP_TTL], ngx_coord_ttl(rate->reset));
}


static ngx_int_t
ngx_coord_bucket_swap_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now)
{
    int64_t                  put, number;
    ngx_int_t                rc;
    ngx_coord_rate_t        *rate;
    ngx_coord_resp_value_t  *v;

    rate = &op->u.rate;
    v = values[0];

    if (v->type != NGX_COORD_RESP_ARRAY
        || v->integer != NGX_COORD_SWAP_ELEMENTS)
    {
        return NGX_ERROR;
    }

    rc = ngx_coord_bucket_int(v, NGX_COORD_SWAP_PUT, &put);

    if (rc == NGX_ERROR
        || ngx_coord_bucket_int(v, NGX_COORD_SWAP_NUMBER, &number) != NGX_OK
        || number < 0)
    {
        return NGX_ERROR;
    }

    if (rc == NGX_OK) {
        op->type = &ngx_coord_op_bucket_take;
        return ngx_coord_bucket_swap_answer(rate, now);
    }

    /* somebody else was faster */

    if (++rate->tries > NGX_COORD_BUCKET_TRIES) {
        return NGX_ERROR;
    }

    if (ngx_coord_tat_fits(number, rate->interval)) {
        op->type = &ngx_coord_op_bucket_take;
    }

    rate->found = number;

    return NGX_AGAIN;
}


static ngx_int_t
ngx_coord_bucket_take_run(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    uint64_t             payload[2];
    ngx_int_t            rc;
    ngx_coord_rate_t    *rate;
    ngx_coord_nsec_t     held, expires;
    ngx_coord_entry_t   *entry;
    ngx_coord_bucket_t   bucket;

    rate = &op->u.rate;

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

    payload[0] = ngx_coord_tat_empty(bucket.interval, now)
                 + ngx_coord_tat_usec(held);

    if (rc == NGX_OK) {
        payload[0] += ngx_coord_bucket_charge(op->zone, &bucket);
    }

    if (entry) {
        entry->payload[1] = payload[1];
        entry->expires = expires;
        entry->payload[0] = payload[0];
        return rc;
    }

    entry = ngx_coord_entry_insert(table, op, NGX_COORD_ENTRY_EVICT, payload,
                                   expires, now);

    return entry ? rc : NGX_ERROR;
}


static ngx_int_t
ngx_coord_bucket_give_known(ngx_coord_op_t *op, ngx_coord_nsec_t now)
{
    return ngx_coord_bucket_refund(&op->u.rate, now) ? NGX_AGAIN : NGX_OK;
}


static void
ngx_coord_bucket_give_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_arg_t     *a;
    ngx_coord_bucket_t   bucket;

    (void) ngx_coord_bucket_init(&bucket, &op->u.rate);

    a = cmd->args;

    ngx_coord_arg_key(cmd, NGX_COORD_GCRA_GIVE_K, op, "}");
    ngx_coord_arg_num(&a[NGX_COORD_GCRA_GIVE_MINUS_REFUND],
                      -ngx_coord_tat_usec(ngx_coord_bucket_refund(&op->u.rate,
                                                                  now)));
    ngx_coord_arg_num(&a[NGX_COORD_GCRA_GIVE_TTL],
                      ngx_coord_ttl(bucket.total));
}


static ngx_int_t
ngx_coord_bucket_give_run(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    int64_t              refund;
    ngx_coord_rate_t    *rate;
    ngx_coord_nsec_t     held;
    ngx_coord_entry_t   *entry;

    rate = &op->u.rate;
    entry = ngx_coord_entry_find(table, op, now);

    if (entry == NULL) {
        return NGX_OK;
    }

    refund = ngx_coord_bucket_refund(rate, now);
    held = ngx_coord_tat_backlog(entry->payload[0], rate->interval, now,
               ngx_coord_tat_idle((uint32_t) (entry->payload[1] >> 32), now));

    if (refund >= held) {
        ngx_coord_table_remove(table, entry);
        return NGX_OK;
    }

    /* of a bucket of another class the give is as exact as the class is */

    entry->payload[0] = ngx_coord_tat_empty(rate->interval, now)
                        + ngx_coord_tat_usec(held)
                        - ngx_coord_tat_usec(refund);
    entry->expires = now + held - refund + NGX_COORD_NSEC_PER_USEC;

    return NGX_OK;
}


static void
ngx_coord_bucket_peek_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_arg_key(cmd, NGX_COORD_GCRA_PEEK_K, op, "}");
}


static ngx_int_t
ngx_coord_bucket_peek_parse(ngx_coord_op_t *op, ngx_coord_resp_value_t **values,
    ngx_coord_nsec_t now)
{
    int64_t                  number, stamp;
    ngx_coord_rate_t        *rate;
    ngx_coord_resp_value_t  *v;

    rate = &op->u.rate;
    v = values[0];

    if (v->type != NGX_COORD_RESP_ARRAY
        || v->integer != NGX_COORD_PEEK_ELEMENTS
        || ngx_coord_bucket_int(v, NGX_COORD_PEEK_NUMBER, &number) != NGX_OK
        || ngx_coord_bucket_int(v, NGX_COORD_PEEK_STAMP, &stamp) != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_coord_peek_bucket(rate,
               ngx_coord_tat_backlog(number, rate->interval,
                                     ngx_coord_bucket_clock(now),
                                     ngx_coord_tat_idle((uint32_t) stamp,
                                                        now)));
}


static ngx_int_t
ngx_coord_bucket_peek_run(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_rate_t   *rate;
    ngx_coord_entry_t  *entry;

    rate = &op->u.rate;
    entry = ngx_coord_entry_find(table, op, now);

    if (entry == NULL) {
        return ngx_coord_peek_bucket(rate, 0);
    }

    return ngx_coord_peek_bucket(rate,
               ngx_coord_tat_backlog(entry->payload[0], rate->interval, now,
                   ngx_coord_tat_idle((uint32_t) (entry->payload[1] >> 32),
                                      now)));
}
