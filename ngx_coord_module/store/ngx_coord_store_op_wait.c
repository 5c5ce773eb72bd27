
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Lines of those who wait for a lease, and fencing numbers: scripts and
 * replies.
 */


#include "ngx_coord_store_op.h"
#include "ngx_coord_rate.h"


/* a fencing number is kept for a day, in milliseconds */
#define NGX_COORD_TOKEN_TTL  86400000

/* an arrival that this node knows of is dropped only when it is surely over */
#define NGX_COORD_WAIT_SLACK  (5 * NGX_COORD_NSEC_PER_SEC)


static void ngx_coord_turn_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_turn_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static void ngx_coord_enter_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_enter_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static void ngx_coord_leave_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static void ngx_coord_release_wake_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static void ngx_coord_token_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_token_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static int64_t ngx_coord_wait_ttl(ngx_coord_op_t *op);
static ngx_int_t ngx_coord_entry_id(u_char *id, ngx_str_t *s);


/* in the order of ngx_coord_op_e, from LEASE_TURN on */

const ngx_coord_store_op_t  ngx_coord_wait_ops[] = {

    { NGX_COORD_SCRIPT_LEASE_TURN,
      ngx_coord_turn_build,
      ngx_coord_turn_parse },

    { NGX_COORD_SCRIPT_WAIT_ENTER,
      ngx_coord_enter_build,
      ngx_coord_enter_parse },

    { NGX_COORD_SCRIPT_WAIT_LEAVE,
      ngx_coord_leave_build,
      ngx_coord_give_parse },

    { NGX_COORD_SCRIPT_LOCK_TOKEN,
      ngx_coord_token_build,
      ngx_coord_token_parse }
};


const ngx_coord_store_op_t  ngx_coord_release_wake_op = {
    NGX_COORD_SCRIPT_LEASE_RELEASE_WAKE,
    ngx_coord_release_wake_build,
    ngx_coord_give_parse
};


static void
ngx_coord_turn_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_arg_t   *a;
    ngx_coord_nsec_t   span, old;

    a = cmd->args;
    span = ngx_coord_lease_span(op);
    old = now - op->zone->wait - NGX_COORD_WAIT_SLACK;

    ngx_coord_arg_key(cmd, NGX_COORD_LEASE_TURN_K, op, "}");
    ngx_coord_arg_key(cmd, NGX_COORD_LEASE_TURN_TMP, op, "}:tmp");
    ngx_coord_arg_key(cmd, NGX_COORD_LEASE_TURN_W, op, "}:w");
    ngx_coord_arg_key(cmd, NGX_COORD_LEASE_TURN_HEAD, op, "}:head");
    ngx_coord_arg_entry(cmd, NGX_COORD_LEASE_TURN_ID, op);
    ngx_coord_arg_num(&a[NGX_COORD_LEASE_TURN_NOW],
                      now / NGX_COORD_NSEC_PER_USEC);
    ngx_coord_arg_num(&a[NGX_COORD_LEASE_TURN_EXPIRY],
                      (now + span) / NGX_COORD_NSEC_PER_USEC);
    ngx_coord_arg_num(&a[NGX_COORD_LEASE_TURN_LIMIT],
                      (int64_t) ngx_min(op->u.lease.limit,
                                        NGX_COORD_RATE_LIMIT));
    ngx_coord_arg_num(&a[NGX_COORD_LEASE_TURN_OLD],
                      old / NGX_COORD_NSEC_PER_USEC);
    ngx_coord_arg_num(&a[NGX_COORD_LEASE_TURN_TTL], ngx_coord_ttl(op, span));
}


static ngx_int_t
ngx_coord_turn_parse(ngx_coord_op_t *op, ngx_coord_resp_value_t **values,
    ngx_coord_nsec_t now)
{
    int64_t                  kept, dropped, used, waiting;
    ngx_str_t                head;
    ngx_coord_resp_value_t  *v;

    v = values[14];

    if (ngx_coord_resp_integer(values[8], &kept) != NGX_OK
        || ngx_coord_resp_integer(values[9], &dropped) != NGX_OK
        || ngx_coord_resp_integer(values[13], &used) != NGX_OK
        || ngx_coord_resp_integer(values[15], &waiting) != NGX_OK
        || (kept != 0) == (dropped != 0)
        || used < 0
        || waiting < 0
        || v->type != NGX_COORD_RESP_ARRAY)
    {
        return NGX_ERROR;
    }

    op->u.lease.current = (ngx_uint_t) used;
    op->u.lease.waiting = 0;

    if (v->integer == 1
        && ngx_coord_resp_string(ngx_coord_resp_element(v, 0), &head)
           == NGX_OK
        && ngx_coord_entry_id(op->u.lease.head, &head) == NGX_OK)
    {
        op->u.lease.waiting = (ngx_uint_t) waiting;
    }

    return dropped ? NGX_BUSY : NGX_OK;
}


/* what others put in line: an id only if it looks like one */

static ngx_int_t
ngx_coord_entry_id(u_char *id, ngx_str_t *s)
{
    ngx_str_t  decoded;

    if (s->len != NGX_COORD_ENTRY_LEN) {
        return NGX_ERROR;
    }

    decoded.data = id;

    return ngx_decode_base64url(&decoded, s);
}


static void
ngx_coord_enter_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_arg_t  *a;

    a = cmd->args;

    ngx_coord_arg_key(cmd, NGX_COORD_WAIT_ENTER_W, op, "}:w");
    ngx_coord_arg_key(cmd, NGX_COORD_WAIT_ENTER_TMP, op, "}:tmp");
    ngx_coord_arg_entry(cmd, NGX_COORD_WAIT_ENTER_ID, op);
    ngx_coord_arg_num(&a[NGX_COORD_WAIT_ENTER_ARRIVAL],
                      (now - op->u.lease.waited) / NGX_COORD_NSEC_PER_USEC);
    ngx_coord_arg_num(&a[NGX_COORD_WAIT_ENTER_LIMIT],
                      (int64_t) ngx_min(op->u.lease.limit,
                                        NGX_COORD_RATE_LIMIT));
    ngx_coord_arg_num(&a[NGX_COORD_WAIT_ENTER_TTL], ngx_coord_wait_ttl(op));
}


static ngx_int_t
ngx_coord_enter_parse(ngx_coord_op_t *op, ngx_coord_resp_value_t **values,
    ngx_coord_nsec_t now)
{
    int64_t  kept, dropped;

    if (ngx_coord_resp_integer(values[2], &kept) != NGX_OK
        || ngx_coord_resp_integer(values[3], &dropped) != NGX_OK
        || (kept != 0) == (dropped != 0))
    {
        return NGX_ERROR;
    }

    return dropped ? NGX_BUSY : NGX_OK;
}


static int64_t
ngx_coord_wait_ttl(ngx_coord_op_t *op)
{
    return (int64_t) ngx_coord_ceil_msec(op->zone->wait + NGX_COORD_WAIT_SLACK)
           + NGX_COORD_STORE_OP_SLACK;
}


static void
ngx_coord_leave_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_str_t        *channel;
    ngx_coord_arg_t  *a;

    a = cmd->args;
    channel = &op->zone->store->wake;

    ngx_coord_arg_key(cmd, NGX_COORD_WAIT_LEAVE_W, op, "}:w");
    ngx_coord_arg_key(cmd, NGX_COORD_WAIT_LEAVE_K, op, "}");
    ngx_coord_arg_entry(cmd, NGX_COORD_WAIT_LEAVE_ID, op);
    ngx_coord_arg_str(&a[NGX_COORD_WAIT_LEAVE_CHANNEL], channel->data,
                      channel->len);
}


static void
ngx_coord_release_wake_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_str_t        *channel;
    ngx_coord_arg_t  *a;

    a = cmd->args;
    channel = &op->zone->store->wake;

    ngx_coord_arg_key(cmd, NGX_COORD_LEASE_RELEASE_WAKE_K, op, "}");
    ngx_coord_arg_entry(cmd, NGX_COORD_LEASE_RELEASE_WAKE_ID, op);
    ngx_coord_arg_str(&a[NGX_COORD_LEASE_RELEASE_WAKE_CHANNEL], channel->data,
                      channel->len);
}


static void
ngx_coord_token_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_arg_t  *a;

    a = cmd->args;

    ngx_coord_arg_key(cmd, NGX_COORD_LOCK_TOKEN_T, op, "}:t");
    ngx_coord_arg_num(&a[NGX_COORD_LOCK_TOKEN_NOW],
                      now / NGX_COORD_NSEC_PER_USEC);
    ngx_coord_arg_num(&a[NGX_COORD_LOCK_TOKEN_TTL], NGX_COORD_TOKEN_TTL);
}


static ngx_int_t
ngx_coord_token_parse(ngx_coord_op_t *op, ngx_coord_resp_value_t **values,
    ngx_coord_nsec_t now)
{
    return ngx_coord_resp_integer(values[1], &op->u.lease.token);
}
