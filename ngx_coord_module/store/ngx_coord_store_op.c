
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The arguments of the scripts.  Buckets count in nanoseconds, logs and
 * leases in microseconds: their times are scores, which are doubles.
 */


#include "ngx_coord_store_op.h"
#include "ngx_coord_rate.h"


/* a fixed window that has less left may end before a give arrives */
#define NGX_COORD_STORE_OP_MARGIN  (100 * NGX_COORD_NSEC_PER_MSEC)

/* what follows a key: "}:tmp", or "}:" and the index of a window */
#define NGX_COORD_STORE_OP_SUFFIX  (2 + NGX_INT64_LEN)

#define NGX_COORD_STORE_OP_KEYS  4
#define NGX_COORD_STORE_OP_WORDS                                              \
    (2 * NGX_COORD_ID_LEN + 4 * NGX_COORD_FINGERPRINT_LEN + 16)


static const ngx_coord_store_op_t *ngx_coord_store_op(ngx_coord_op_t *op);
static void ngx_coord_store_op_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);

static void ngx_coord_bucket_take_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static void ngx_coord_bucket_give_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static void ngx_coord_window_take_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static void ngx_coord_window_give_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static void ngx_coord_sliding_take_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static void ngx_coord_sliding_give_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static void ngx_coord_log_take_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static void ngx_coord_log_give_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static void ngx_coord_lease_acquire_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static void ngx_coord_lease_renew_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static void ngx_coord_lease_release_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);


/* in the order of ngx_coord_op_e, up to LEASE_RELEASE */

static const ngx_coord_store_op_t  ngx_coord_store_ops[] = {

    { NGX_COORD_SCRIPT_GCRA_TAKE,
      ngx_coord_bucket_take_build,
      ngx_coord_bucket_take_parse },

    { NGX_COORD_SCRIPT_GCRA_GIVE,
      ngx_coord_bucket_give_build,
      ngx_coord_give_parse },

    { NGX_COORD_SCRIPT_WINDOW_TAKE,
      ngx_coord_window_take_build,
      ngx_coord_window_take_parse },

    { NGX_COORD_SCRIPT_WINDOW_GIVE,
      ngx_coord_window_give_build,
      ngx_coord_give_parse },

    { NGX_COORD_SCRIPT_SLIDING_WINDOW_TAKE,
      ngx_coord_sliding_take_build,
      ngx_coord_sliding_take_parse },

    { NGX_COORD_SCRIPT_SLIDING_WINDOW_GIVE,
      ngx_coord_sliding_give_build,
      ngx_coord_give_parse },

    { NGX_COORD_SCRIPT_SLIDING_LOG_TAKE,
      ngx_coord_log_take_build,
      ngx_coord_log_take_parse },

    { NGX_COORD_SCRIPT_SLIDING_LOG_GIVE,
      ngx_coord_log_give_build,
      ngx_coord_give_parse },

    { NGX_COORD_SCRIPT_LEASE_ACQUIRE,
      ngx_coord_lease_acquire_build,
      ngx_coord_lease_acquire_parse },

    { NGX_COORD_SCRIPT_LEASE_RENEW,
      ngx_coord_lease_renew_build,
      ngx_coord_lease_renew_parse },

    { NGX_COORD_SCRIPT_LEASE_RELEASE,
      ngx_coord_lease_release_build,
      ngx_coord_give_parse }
};


/* of this worker: the keys and words of the operation being encoded */
static u_char               *ngx_coord_scratch;
static size_t                ngx_coord_scratch_size;

/* the arguments that stand there, and whose they are */
static ngx_coord_command_t   ngx_coord_built;
static ngx_coord_op_t       *ngx_coord_built_op;


ngx_int_t
ngx_coord_store_op_known(ngx_coord_op_t *op, ngx_coord_nsec_t now)
{
    ngx_coord_rate_t     *rate;
    ngx_coord_bucket_t    bucket;
    ngx_coord_window_t    window;
    ngx_coord_sliding_t   sliding;

    rate = &op->u.rate;

    switch (op->type) {

    case NGX_COORD_OP_BUCKET_TAKE:
        return ngx_coord_bucket_init(&bucket, rate) == NGX_OK
               ? NGX_AGAIN : ngx_coord_rate_never(rate);

    case NGX_COORD_OP_WINDOW_TAKE:
    case NGX_COORD_OP_SLIDING_TAKE:
    case NGX_COORD_OP_LOG_TAKE:
        return ngx_coord_window_init(&window, rate) == NGX_OK
               ? NGX_AGAIN : ngx_coord_rate_never(rate);

    case NGX_COORD_OP_BUCKET_GIVE:
        return ngx_coord_bucket_refund(rate, now) ? NGX_AGAIN : NGX_OK;

    case NGX_COORD_OP_WINDOW_GIVE:
        return rate->mark - now > NGX_COORD_STORE_OP_MARGIN
               && rate->mark - now > (ngx_coord_nsec_t)
                                     op->zone->store->redis.timeout
                                     * NGX_COORD_NSEC_PER_MSEC
               ? NGX_AGAIN : NGX_OK;

    case NGX_COORD_OP_SLIDING_GIVE:
        (void) ngx_coord_window_init(&window, rate);
        ngx_coord_sliding_init(&sliding, &window, now);

        return rate->mark >= sliding.index - 1 ? NGX_AGAIN : NGX_OK;

    case NGX_COORD_OP_LEASE_ACQUIRE:
    case NGX_COORD_OP_LEASE_TURN:
        op->u.lease.current = 0;

        return op->u.lease.limit ? NGX_AGAIN : NGX_BUSY;

    default:
        return NGX_AGAIN;
    }
}


static const ngx_coord_store_op_t *
ngx_coord_store_op(ngx_coord_op_t *op)
{
    if (op->type >= NGX_COORD_OP_BUCKET_PEEK) {
        return &ngx_coord_peek_ops[op->type - NGX_COORD_OP_BUCKET_PEEK];
    }

    if (op->type >= NGX_COORD_OP_CLAIM) {
        return &ngx_coord_claim_ops[op->type - NGX_COORD_OP_CLAIM];
    }

    if (op->type >= NGX_COORD_OP_SESSION_GET) {
        return &ngx_coord_session_ops[op->type - NGX_COORD_OP_SESSION_GET];
    }

    if (op->type >= NGX_COORD_OP_LEASE_TURN) {
        return &ngx_coord_wait_ops[op->type - NGX_COORD_OP_LEASE_TURN];
    }

    if (op->type == NGX_COORD_OP_LEASE_RELEASE && op->zone->wake) {
        return &ngx_coord_release_wake_op;
    }

    return &ngx_coord_store_ops[op->type];
}


ngx_uint_t
ngx_coord_store_op_ncommands(ngx_coord_op_t *op)
{
    return ngx_coord_scripts[ngx_coord_store_op(op)->script].ncommands;
}


ngx_uint_t
ngx_coord_store_op_joins(ngx_coord_op_t *op)
{
    return op->type < NGX_COORD_OP_CLAIM && op->type != NGX_COORD_OP_USER_LIST;
}


ngx_int_t
ngx_coord_store_op_prepare(ngx_coord_batch_t *batch, ngx_coord_op_t *op,
    ngx_str_t *key)
{
    size_t               len, size;
    ngx_uint_t           i;
    ngx_coord_command_t  cmd;

    len = 0;

    for (i = 0; i < batch->nops; i++) {
        len = ngx_max(len, batch->ops[i].zone->key_head.len);
    }

    size = NGX_COORD_STORE_OP_KEYS
           * (len + NGX_COORD_KEY_LEN + NGX_COORD_STORE_OP_SUFFIX)
           + NGX_COORD_STORE_OP_WORDS;

    /* it never shrinks: a call may be encoded later than it is sent */

    if (size > ngx_coord_scratch_size) {

        if (ngx_coord_scratch) {
            ngx_free(ngx_coord_scratch);
        }

        ngx_coord_scratch_size = 0;
        ngx_coord_scratch = ngx_alloc(size, ngx_cycle->log);

        if (ngx_coord_scratch == NULL) {
            return NGX_ERROR;
        }

        ngx_coord_scratch_size = size;
    }

    /* any suffix would do: the hash tag decides */

    ngx_coord_built_op = NULL;

    cmd.last = ngx_coord_scratch;
    ngx_coord_arg_key(&cmd, 0, op, "}");

    key->data = cmd.args[0].data;
    key->len = cmd.args[0].len;

    return NGX_OK;
}


size_t
ngx_coord_store_op_size(ngx_coord_op_t *op, ngx_coord_nsec_t now)
{
    ngx_coord_command_t  *cmd;

    cmd = &ngx_coord_built;

    ngx_coord_store_op_build(cmd, op, now);
    ngx_coord_built_op = op;

    return ngx_coord_script_size(&ngx_coord_scripts[cmd->script], cmd->args);
}


u_char *
ngx_coord_store_op_encode(u_char *p, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_command_t  *cmd;

    cmd = &ngx_coord_built;

    /* where a batch has one operation size() has just built it */

    if (ngx_coord_built_op != op) {
        ngx_coord_store_op_build(cmd, op, now);
    }

    ngx_coord_built_op = NULL;

    return ngx_coord_script_encode(p, &ngx_coord_scripts[cmd->script],
                                   cmd->args);
}


ngx_int_t
ngx_coord_store_op_parse(ngx_coord_op_t *op, ngx_coord_resp_value_t **values,
    ngx_coord_nsec_t now)
{
    return ngx_coord_store_op(op)->parse(op, values, now);
}


static void
ngx_coord_store_op_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    const ngx_coord_store_op_t  *sop;

    sop = ngx_coord_store_op(op);

    cmd->script = sop->script;
    cmd->last = ngx_coord_scratch;

    sop->build(cmd, op, now);
}


void
ngx_coord_arg_key(ngx_coord_command_t *cmd, ngx_uint_t n, ngx_coord_op_t *op,
    const char *suffix)
{
    u_char  *p;

    p = cmd->last;

    p = ngx_cpymem(p, op->zone->key_head.data, op->zone->key_head.len);
    p = ngx_cpymem(p, op->key, op->key_len);
    p = ngx_cpymem(p, suffix, ngx_strlen(suffix));

    ngx_coord_arg_str(&cmd->args[n], cmd->last, p - cmd->last);

    cmd->last = p;
}


void
ngx_coord_arg_window(ngx_coord_command_t *cmd, ngx_uint_t n,
    ngx_coord_op_t *op, int64_t index)
{
    u_char  *p;

    ngx_coord_arg_key(cmd, n, op, "}:");

    p = ngx_sprintf(cmd->last, "%L", index);

    cmd->args[n].len += p - cmd->last;
    cmd->last = p;
}


void
ngx_coord_arg_id(ngx_coord_command_t *cmd, ngx_uint_t n, ngx_coord_op_t *op)
{
    u_char  *p;

    p = ngx_hex_dump(cmd->last, op->id, NGX_COORD_ID_LEN);

    ngx_coord_arg_str(&cmd->args[n], cmd->last, p - cmd->last);

    cmd->last = p;
}


void
ngx_coord_arg_entry(ngx_coord_command_t *cmd, ngx_uint_t n,
    ngx_coord_op_t *op)
{
    ngx_str_t  id, text;

    id.data = op->id;
    id.len = NGX_COORD_ID_LEN;

    text.data = cmd->last;

    ngx_encode_base64url(&text, &id);

    ngx_coord_arg_str(&cmd->args[n], text.data, text.len);

    cmd->last += text.len;
}


/*
 * The life of a key in milliseconds: that of the longest seen in the zone, as
 * callers with shorter ones must not cut it.
 */

int64_t
ngx_coord_ttl(ngx_coord_op_t *op, ngx_coord_nsec_t ns)
{
    op->zone->longest = ngx_max(op->zone->longest, ns);

    return (int64_t) ngx_coord_ceil_msec(op->zone->longest)
           + NGX_COORD_STORE_OP_SLACK;
}


ngx_coord_nsec_t
ngx_coord_lease_span(ngx_coord_op_t *op)
{
    return ngx_min(ngx_max(op->u.lease.lease, NGX_COORD_NSEC_PER_MSEC),
                   NGX_COORD_RATE_SPAN);
}


static void
ngx_coord_bucket_take_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_arg_t     *a;
    ngx_coord_nsec_t     open;
    ngx_coord_bucket_t   bucket;

    (void) ngx_coord_bucket_init(&bucket, &op->u.rate);

    a = cmd->args;
    open = INT64_MAX - bucket.limit;

    ngx_coord_arg_key(cmd, NGX_COORD_GCRA_TAKE_K, op, "}");
    ngx_coord_arg_num(&a[NGX_COORD_GCRA_TAKE_MINUS_NOW], -now);
    ngx_coord_arg_num(&a[NGX_COORD_GCRA_TAKE_OPEN], open);
    ngx_coord_arg_num(&a[NGX_COORD_GCRA_TAKE_CLOSE], bucket.charge - open);
    ngx_coord_arg_num(&a[NGX_COORD_GCRA_TAKE_NOW], now);
    ngx_coord_arg_num(&a[NGX_COORD_GCRA_TAKE_TTL],
                      ngx_coord_ttl(op, bucket.total));
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
                      -ngx_coord_bucket_refund(&op->u.rate, now));
    ngx_coord_arg_num(&a[NGX_COORD_GCRA_GIVE_TTL],
                      ngx_coord_ttl(op, bucket.total));
}


static void
ngx_coord_window_take_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_arg_t     *a;
    ngx_coord_window_t   window;

    (void) ngx_coord_window_init(&window, &op->u.rate);

    a = cmd->args;

    ngx_coord_arg_key(cmd, NGX_COORD_WINDOW_TAKE_K, op, "}");
    ngx_coord_arg_str(&a[NGX_COORD_WINDOW_TAKE_ZERO], (u_char *) "\0\0\0", 4);
    ngx_coord_arg_num(&a[NGX_COORD_WINDOW_TAKE_WINDOW],
                      ngx_coord_ceil_msec(window.length));
    ngx_coord_arg_num(&a[NGX_COORD_WINDOW_TAKE_OPEN],
                      0xffffffffLL - (window.limit - window.cost));
    ngx_coord_arg_num(&a[NGX_COORD_WINDOW_TAKE_CLOSE],
                      window.limit - 0xffffffffLL);
}


static void
ngx_coord_window_give_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_arg_t     *a;
    ngx_coord_nsec_t     left;
    ngx_coord_window_t   window;

    (void) ngx_coord_window_init(&window, &op->u.rate);

    a = cmd->args;
    left = (op->u.rate.mark - now) / NGX_COORD_NSEC_PER_MSEC;

    ngx_coord_arg_key(cmd, NGX_COORD_WINDOW_GIVE_K, op, "}");
    ngx_coord_arg_str(&a[NGX_COORD_WINDOW_GIVE_ZERO], (u_char *) "\0\0\0", 4);
    ngx_coord_arg_num(&a[NGX_COORD_WINDOW_GIVE_REMAINING], ngx_max(left, 1));
    ngx_coord_arg_num(&a[NGX_COORD_WINDOW_GIVE_MINUS_COST],
                      left > 0 ? -window.cost : 0);
}


static void
ngx_coord_sliding_take_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    u_char               *p;
    ngx_coord_arg_t      *a;
    ngx_coord_window_t    window;
    ngx_coord_sliding_t   sliding;

    (void) ngx_coord_window_init(&window, &op->u.rate);
    ngx_coord_sliding_init(&sliding, &window, now);

    a = cmd->args;

    ngx_coord_arg_key(cmd, NGX_COORD_SLIDING_WINDOW_TAKE_TMP, op, "}:tmp");
    ngx_coord_arg_window(cmd, NGX_COORD_SLIDING_WINDOW_TAKE_PREV, op,
                         sliding.index - 1);
    ngx_coord_arg_window(cmd, NGX_COORD_SLIDING_WINDOW_TAKE_CUR, op,
                         sliding.index);

    p = ngx_sprintf(cmd->last, "%L.%09L",
                    sliding.weight / NGX_COORD_RATE_WEIGHT,
                    sliding.weight % NGX_COORD_RATE_WEIGHT);

    ngx_coord_arg_str(&a[NGX_COORD_SLIDING_WINDOW_TAKE_F], cmd->last,
                      p - cmd->last);
    cmd->last = p;

    ngx_coord_arg_num(&a[NGX_COORD_SLIDING_WINDOW_TAKE_FIT],
                      window.limit - window.cost);
    ngx_coord_arg_num(&a[NGX_COORD_SLIDING_WINDOW_TAKE_COST], window.cost);
    ngx_coord_arg_num(&a[NGX_COORD_SLIDING_WINDOW_TAKE_TTL],
                      ngx_coord_ttl(op, 2 * window.length));
}


static void
ngx_coord_sliding_give_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_window_t  window;

    (void) ngx_coord_window_init(&window, &op->u.rate);

    ngx_coord_arg_window(cmd, NGX_COORD_SLIDING_WINDOW_GIVE_CUR, op,
                         op->u.rate.mark);
    ngx_coord_arg_num(&cmd->args[NGX_COORD_SLIDING_WINDOW_GIVE_MINUS_COST],
                      -window.cost);
}


static void
ngx_coord_log_take_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_arg_t     *a;
    ngx_coord_window_t   window;

    (void) ngx_coord_window_init(&window, &op->u.rate);

    a = cmd->args;

    ngx_coord_arg_key(cmd, NGX_COORD_SLIDING_LOG_TAKE_K, op, "}");
    ngx_coord_arg_key(cmd, NGX_COORD_SLIDING_LOG_TAKE_TMP, op, "}:tmp");
    ngx_coord_arg_entry(cmd, NGX_COORD_SLIDING_LOG_TAKE_ID, op);
    ngx_coord_arg_num(&a[NGX_COORD_SLIDING_LOG_TAKE_OLD],
                      (now - window.length) / NGX_COORD_NSEC_PER_USEC);
    ngx_coord_arg_num(&a[NGX_COORD_SLIDING_LOG_TAKE_NOW],
                      now / NGX_COORD_NSEC_PER_USEC);
    ngx_coord_arg_num(&a[NGX_COORD_SLIDING_LOG_TAKE_LIMIT], window.limit);
    ngx_coord_arg_num(&a[NGX_COORD_SLIDING_LOG_TAKE_WINDOW],
                      ngx_coord_ttl(op, window.length));
}


static void
ngx_coord_log_give_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_arg_key(cmd, NGX_COORD_SLIDING_LOG_GIVE_K, op, "}");
    ngx_coord_arg_entry(cmd, NGX_COORD_SLIDING_LOG_GIVE_ID, op);
}


static void
ngx_coord_lease_acquire_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_arg_t   *a;
    ngx_coord_nsec_t   span;

    a = cmd->args;
    span = ngx_coord_lease_span(op);

    ngx_coord_arg_key(cmd, NGX_COORD_LEASE_ACQUIRE_K, op, "}");
    ngx_coord_arg_key(cmd, NGX_COORD_LEASE_ACQUIRE_TMP, op, "}:tmp");
    ngx_coord_arg_entry(cmd, NGX_COORD_LEASE_ACQUIRE_ID, op);
    ngx_coord_arg_num(&a[NGX_COORD_LEASE_ACQUIRE_NOW],
                      now / NGX_COORD_NSEC_PER_USEC);
    ngx_coord_arg_num(&a[NGX_COORD_LEASE_ACQUIRE_EXPIRY],
                      (now + span) / NGX_COORD_NSEC_PER_USEC);
    ngx_coord_arg_num(&a[NGX_COORD_LEASE_ACQUIRE_LIMIT],
                      (int64_t) ngx_min(op->u.lease.limit,
                                        NGX_COORD_RATE_LIMIT));
    ngx_coord_arg_num(&a[NGX_COORD_LEASE_ACQUIRE_TTL],
                      ngx_coord_ttl(op, span));
}


static void
ngx_coord_lease_renew_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_arg_t   *a;
    ngx_coord_nsec_t   span;

    a = cmd->args;
    span = ngx_coord_lease_span(op);

    ngx_coord_arg_key(cmd, NGX_COORD_LEASE_RENEW_K, op, "}");
    ngx_coord_arg_entry(cmd, NGX_COORD_LEASE_RENEW_ID, op);
    ngx_coord_arg_num(&a[NGX_COORD_LEASE_RENEW_EXPIRY],
                      (now + span) / NGX_COORD_NSEC_PER_USEC);
    ngx_coord_arg_num(&a[NGX_COORD_LEASE_RENEW_TTL],
                      ngx_coord_ttl(op, span));
}


static void
ngx_coord_lease_release_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_arg_key(cmd, NGX_COORD_LEASE_RELEASE_K, op, "}");
    ngx_coord_arg_entry(cmd, NGX_COORD_LEASE_RELEASE_ID, op);
}
