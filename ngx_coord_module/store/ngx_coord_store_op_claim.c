
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Claims and results in Redis: a sorted set with the claim and the mark of a
 * result, times in microseconds as scores, and the record in a key beside it.
 *
 *   claim   fingerprint and token, 64 hex digits
 *   mark    fingerprint, 32 hex digits, and "d"
 */


#include "ngx_coord_store_op.h"
#include "ngx_coord_key.h"


#define NGX_COORD_CLAIM_MEMBER                                                \
    (2 * NGX_COORD_FINGERPRINT_LEN + 2 * NGX_COORD_ID_LEN)
#define NGX_COORD_CLAIM_MARK  (2 * NGX_COORD_FINGERPRINT_LEN + 1)

/* the mark goes so much before the record: a result is never without one */
#define NGX_COORD_CLAIM_EARLY  (10 * NGX_COORD_NSEC_PER_MSEC)

/* added to the life of the set: clocks of workers may be apart */
#define NGX_COORD_CLAIM_SLACK  1000

/* scores beyond this are no times */
#define NGX_COORD_CLAIM_USEC_MAX  9e15


static void ngx_coord_claim_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static void ngx_coord_claim_renew_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static void ngx_coord_claim_complete_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static void ngx_coord_claim_release_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static void ngx_coord_claim_discard_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_claim_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_claim_complete_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static void ngx_coord_arg_member(ngx_coord_command_t *cmd, ngx_uint_t n,
    ngx_coord_op_t *op);
static void ngx_coord_arg_mark(ngx_coord_command_t *cmd, ngx_uint_t n,
    ngx_coord_op_t *op);
static void ngx_coord_arg_channel(ngx_coord_command_t *cmd, ngx_uint_t n,
    ngx_coord_op_t *op);
static int64_t ngx_coord_claim_ttl(ngx_coord_op_t *op);
static ngx_int_t ngx_coord_claim_twin(ngx_coord_claim_t *claim,
    ngx_coord_resp_value_t *value, ngx_coord_nsec_t now);


const ngx_coord_store_op_t  ngx_coord_claim_ops[] = {

    { NGX_COORD_SCRIPT_IDEMPOTENCY_CLAIM,
      ngx_coord_claim_build,
      ngx_coord_claim_parse },

    { NGX_COORD_SCRIPT_IDEMPOTENCY_RENEW,
      ngx_coord_claim_renew_build,
      ngx_coord_lease_renew_parse },

    { NGX_COORD_SCRIPT_IDEMPOTENCY_COMPLETE,
      ngx_coord_claim_complete_build,
      ngx_coord_claim_complete_parse },

    { NGX_COORD_SCRIPT_IDEMPOTENCY_RELEASE,
      ngx_coord_claim_release_build,
      ngx_coord_give_parse },

    { NGX_COORD_SCRIPT_IDEMPOTENCY_DISCARD,
      ngx_coord_claim_discard_build,
      ngx_coord_give_parse }
};


static void
ngx_coord_arg_member(ngx_coord_command_t *cmd, ngx_uint_t n,
    ngx_coord_op_t *op)
{
    u_char  *p;

    p = ngx_hex_dump(cmd->last, op->u.claim.fingerprint,
                     NGX_COORD_FINGERPRINT_LEN);
    p = ngx_hex_dump(p, op->id, NGX_COORD_ID_LEN);

    ngx_coord_arg_str(&cmd->args[n], cmd->last, p - cmd->last);

    cmd->last = p;
}


static void
ngx_coord_arg_mark(ngx_coord_command_t *cmd, ngx_uint_t n, ngx_coord_op_t *op)
{
    u_char  *p;

    p = ngx_hex_dump(cmd->last, op->u.claim.fingerprint,
                     NGX_COORD_FINGERPRINT_LEN);
    *p++ = 'd';

    ngx_coord_arg_str(&cmd->args[n], cmd->last, p - cmd->last);

    cmd->last = p;
}


static void
ngx_coord_arg_channel(ngx_coord_command_t *cmd, ngx_uint_t n,
    ngx_coord_op_t *op)
{
    u_char     *p;
    ngx_str_t  *prefix;

    prefix = &op->zone->store->key_prefix;

    p = ngx_cpymem(cmd->last, prefix->data, prefix->len);
    p = ngx_cpymem(p, "wake", sizeof("wake") - 1);

    ngx_coord_arg_str(&cmd->args[n], cmd->last, p - cmd->last);

    cmd->last = p;
}


static int64_t
ngx_coord_claim_ttl(ngx_coord_op_t *op)
{
    ngx_coord_nsec_t    longest;
    ngx_coord_claim_t  *claim;

    claim = &op->u.claim;

    /* locations with other times must not cut what stands in the set */

    longest = ngx_max(claim->ttl, claim->lease);
    op->zone->longest = ngx_max(op->zone->longest, longest);

    return (int64_t) ngx_coord_ceil_msec(op->zone->longest)
           + NGX_COORD_CLAIM_SLACK;
}


static void
ngx_coord_claim_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_arg_t    *a;
    ngx_coord_nsec_t    gone;
    ngx_coord_claim_t  *claim;

    a = cmd->args;
    claim = &op->u.claim;
    gone = claim->keep ? now - claim->ttl : now;

    ngx_coord_arg_key(cmd, NGX_COORD_IDEMPOTENCY_CLAIM_R, op, "}:r");
    ngx_coord_arg_key(cmd, NGX_COORD_IDEMPOTENCY_CLAIM_K, op, "}");
    ngx_coord_arg_num(&a[NGX_COORD_IDEMPOTENCY_CLAIM_GONE],
                      ngx_max(gone, 0) / NGX_COORD_NSEC_PER_USEC);
    ngx_coord_arg_member(cmd, NGX_COORD_IDEMPOTENCY_CLAIM_MEMBER, op);
    ngx_coord_arg_num(&a[NGX_COORD_IDEMPOTENCY_CLAIM_EXPIRY],
                      (now + claim->lease) / NGX_COORD_NSEC_PER_USEC);
    ngx_coord_arg_num(&a[NGX_COORD_IDEMPOTENCY_CLAIM_TTL],
                      ngx_coord_claim_ttl(op));
}


static void
ngx_coord_claim_renew_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_arg_t  *a;

    a = cmd->args;

    ngx_coord_arg_key(cmd, NGX_COORD_IDEMPOTENCY_RENEW_K, op, "}");
    ngx_coord_arg_num(&a[NGX_COORD_IDEMPOTENCY_RENEW_EXPIRY],
                      (now + op->u.claim.lease) / NGX_COORD_NSEC_PER_USEC);
    ngx_coord_arg_member(cmd, NGX_COORD_IDEMPOTENCY_RENEW_MEMBER, op);
    ngx_coord_arg_num(&a[NGX_COORD_IDEMPOTENCY_RENEW_TTL],
                      ngx_coord_claim_ttl(op));
}


static void
ngx_coord_claim_complete_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_arg_t   *a;
    ngx_coord_nsec_t   ttl;

    a = cmd->args;
    ttl = ngx_max(op->u.claim.ttl, NGX_COORD_NSEC_PER_MSEC);

    ngx_coord_arg_key(cmd, NGX_COORD_IDEMPOTENCY_COMPLETE_R, op, "}:r");
    ngx_coord_arg_str(&a[NGX_COORD_IDEMPOTENCY_COMPLETE_BLOB], op->record.data,
                      op->record.len);
    ngx_coord_arg_num(&a[NGX_COORD_IDEMPOTENCY_COMPLETE_TTL],
                      ngx_coord_ceil_msec(ttl));
    ngx_coord_arg_num(&a[NGX_COORD_IDEMPOTENCY_COMPLETE_LIFE],
                      ngx_coord_claim_ttl(op));
    ngx_coord_arg_key(cmd, NGX_COORD_IDEMPOTENCY_COMPLETE_K, op, "}");
    ngx_coord_arg_member(cmd, NGX_COORD_IDEMPOTENCY_COMPLETE_MEMBER, op);
    ngx_coord_arg_num(&a[NGX_COORD_IDEMPOTENCY_COMPLETE_EXPIRY],
                      (now + ttl - ngx_min(ttl / 2, NGX_COORD_CLAIM_EARLY))
                      / NGX_COORD_NSEC_PER_USEC);
    ngx_coord_arg_mark(cmd, NGX_COORD_IDEMPOTENCY_COMPLETE_DONE, op);
    ngx_coord_arg_channel(cmd, NGX_COORD_IDEMPOTENCY_COMPLETE_CHANNEL, op);
}


static void
ngx_coord_claim_release_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_arg_key(cmd, NGX_COORD_IDEMPOTENCY_RELEASE_K, op, "}");

    if (op->u.claim.done) {
        ngx_coord_arg_mark(cmd, NGX_COORD_IDEMPOTENCY_RELEASE_MEMBER, op);

    } else {
        ngx_coord_arg_member(cmd, NGX_COORD_IDEMPOTENCY_RELEASE_MEMBER, op);
    }

    ngx_coord_arg_channel(cmd, NGX_COORD_IDEMPOTENCY_RELEASE_CHANNEL, op);
}


static void
ngx_coord_claim_discard_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_arg_key(cmd, NGX_COORD_IDEMPOTENCY_DISCARD_R, op, "}:r");
    ngx_coord_arg_key(cmd, NGX_COORD_IDEMPOTENCY_DISCARD_K, op, "}");
    ngx_coord_arg_mark(cmd, NGX_COORD_IDEMPOTENCY_DISCARD_DONE, op);
}


static ngx_int_t
ngx_coord_claim_parse(ngx_coord_op_t *op, ngx_coord_resp_value_t **values,
    ngx_coord_nsec_t now)
{
    int64_t             dropped, granted;
    ngx_int_t           rc;
    ngx_str_t           blob;
    ngx_coord_claim_t  *claim;

    claim = &op->u.claim;

    rc = ngx_coord_resp_string(values[0], &blob);

    if (rc == NGX_ERROR
        || ngx_coord_resp_integer(values[1], &dropped) != NGX_OK
        || ngx_coord_resp_integer(values[4], &granted) != NGX_OK
        || ngx_coord_claim_twin(claim, values[5], now) != NGX_OK)
    {
        return NGX_ERROR;
    }

    claim->lapsed = (dropped > 0);

    if (rc == NGX_OK && blob.len) {
        op->record.data = ngx_alloc(blob.len, ngx_cycle->log);

        if (op->record.data == NULL) {
            return NGX_ERROR;
        }

        op->record.len = blob.len;

        ngx_memcpy(op->record.data, blob.data, blob.len);
    }

    if (granted) {
        claim->state = NGX_COORD_CLAIM_NONE;
        return NGX_OK;
    }

    return NGX_BUSY;
}


/* who stands in the set: never nobody, an empty one was for the asker */

static ngx_int_t
ngx_coord_claim_twin(ngx_coord_claim_t *claim, ngx_coord_resp_value_t *value,
    ngx_coord_nsec_t now)
{
    double     score;
    ngx_str_t  member;

    if (value->type != NGX_COORD_RESP_ARRAY
        || value->integer != 2
        || ngx_coord_resp_string(ngx_coord_resp_element(value, 0), &member)
           != NGX_OK
        || ngx_coord_resp_double(ngx_coord_resp_element(value, 1), &score)
           != NGX_OK
        || !(score >= 0 && score <= NGX_COORD_CLAIM_USEC_MAX))
    {
        return NGX_ERROR;
    }

    claim->remaining = (ngx_coord_nsec_t) score * NGX_COORD_NSEC_PER_USEC
                       - now;

    if (member.len == NGX_COORD_CLAIM_MEMBER) {
        claim->state = (claim->remaining > 0) ? NGX_COORD_CLAIM_RUNNING
                                              : NGX_COORD_CLAIM_LAPSED;

    } else if (member.len == NGX_COORD_CLAIM_MARK) {
        claim->state = NGX_COORD_CLAIM_DONE;

    } else {
        return NGX_ERROR;
    }

    return ngx_coord_unhex(claim->twin, member.data,
                           NGX_COORD_FINGERPRINT_LEN);
}


static ngx_int_t
ngx_coord_claim_complete_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now)
{
    if (values[0]->type == NGX_COORD_RESP_NIL) {
        return NGX_BUSY;
    }

    return (values[0]->type == NGX_COORD_RESP_STATUS) ? NGX_OK : NGX_ERROR;
}
