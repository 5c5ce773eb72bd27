
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Lines of those who wait for a lease: a set of arrivals beside the leases.
 */


#include "ngx_coord_op_arg.h"
#include "ngx_coord_op_set.h"


/* an arrival that this node knows of is dropped only when it is surely over */
#define NGX_COORD_WAIT_SLACK  (5 * NGX_COORD_NSEC_PER_SEC)


static void ngx_coord_lease_turn_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_lease_turn_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_entry_id(u_char *id, ngx_str_t *s);
static ngx_int_t ngx_coord_lease_turn_run(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static void ngx_coord_wait_enter_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_wait_enter_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static int64_t ngx_coord_wait_ttl(ngx_coord_op_t *op);
static ngx_int_t ngx_coord_wait_enter_run(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static void ngx_coord_wait_leave_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_wait_leave_run(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static void ngx_coord_wait_clear_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_wait_clear_run(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_coord_entry_t *ngx_coord_line(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);


const ngx_coord_op_type_t  ngx_coord_op_lease_turn = {
    ngx_string("lease_turn"),
    NGX_COORD_OP_TAKES|NGX_COORD_OP_JOINS|NGX_COORD_OP_FULL_BUSY,
    NGX_COORD_KIND_LEASE,
    NGX_COORD_SCRIPT_LEASE_TURN,
    ngx_coord_lease_turn_build,
    ngx_coord_lease_turn_parse,
    ngx_coord_lease_known,
    ngx_coord_lease_turn_run,
    &ngx_coord_op_lease_release,
    NULL,
    NULL,
    NULL,
    NULL
};


const ngx_coord_op_type_t  ngx_coord_op_wait_enter = {
    ngx_string("wait_enter"),
    NGX_COORD_OP_TAKES|NGX_COORD_OP_JOINS|NGX_COORD_OP_FULL_BUSY,
    NGX_COORD_KIND_LINE,
    NGX_COORD_SCRIPT_WAIT_ENTER,
    ngx_coord_wait_enter_build,
    ngx_coord_wait_enter_parse,
    NULL,
    ngx_coord_wait_enter_run,
    &ngx_coord_op_wait_leave,
    NULL,
    NULL,
    NULL,
    NULL
};


const ngx_coord_op_type_t  ngx_coord_op_wait_leave = {
    ngx_string("wait_leave"),
    NGX_COORD_OP_JOINS|NGX_COORD_OP_TWICE,
    NGX_COORD_KIND_LINE,
    NGX_COORD_SCRIPT_WAIT_LEAVE,
    ngx_coord_wait_leave_build,
    ngx_coord_removed_parse,
    NULL,
    ngx_coord_wait_leave_run,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL
};


const ngx_coord_op_type_t  ngx_coord_op_wait_clear = {
    ngx_string("wait_clear"),
    NGX_COORD_OP_JOINS,
    NGX_COORD_KIND_LINE,
    NGX_COORD_SCRIPT_WAIT_CLEAR,
    ngx_coord_wait_clear_build,
    ngx_coord_give_parse,
    NULL,
    ngx_coord_wait_clear_run,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL
};


static void
ngx_coord_lease_turn_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
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
    ngx_coord_arg_num(&a[NGX_COORD_LEASE_TURN_TTL], ngx_coord_ttl(span));
}


static ngx_int_t
ngx_coord_lease_turn_parse(ngx_coord_op_t *op, ngx_coord_resp_value_t **values,
    ngx_coord_nsec_t now)
{
    int64_t                  kept, dropped, used, waiting;
    ngx_str_t                head;
    ngx_coord_resp_value_t  *v;

    v = ngx_coord_reply(LEASE_TURN, HEAD);
    kept = ngx_coord_reply(LEASE_TURN, GRANTED)->integer;
    dropped = ngx_coord_reply(LEASE_TURN, REFUSED)->integer;
    used = ngx_coord_reply(LEASE_TURN, USED)->integer;
    waiting = ngx_coord_reply(LEASE_TURN, WAITING)->integer;

    if ((kept != 0) == (dropped != 0) || used < 0 || waiting < 0) {
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


static ngx_int_t
ngx_coord_lease_turn_run(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_slots_t   slots;
    ngx_coord_lease_t  *lease;
    ngx_coord_entry_t  *entry;

    lease = &op->u.lease;
    lease->waiting = 0;

    entry = ngx_coord_line(table, op, now);

    if (entry) {
        ngx_coord_slots(table, entry, op->id, now - op->zone->wait,
                               &slots);

        if (slots.used == 0) {
            ngx_coord_table_remove(table, entry);

        } else {
            lease->waiting = slots.used;
            ngx_memcpy(lease->head, slots.head->id, NGX_COORD_ID_LEN);
        }
    }

    if (lease->waiting == 0
        || ngx_memcmp(lease->head, op->id, NGX_COORD_ID_LEN) == 0)
    {
        return ngx_coord_lease_acquire_run(table, op, now);
    }

    lease->current = 0;

    entry = ngx_coord_entry_find(table, op, now);

    if (entry) {
        ngx_coord_slots(table, entry, op->id, now, &slots);

        lease->current = slots.used;

        if (slots.used == 0) {
            ngx_coord_table_remove(table, entry);
        }
    }

    return NGX_BUSY;
}


static void
ngx_coord_wait_enter_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
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
ngx_coord_wait_enter_parse(ngx_coord_op_t *op, ngx_coord_resp_value_t **values,
    ngx_coord_nsec_t now)
{
    int64_t  kept, dropped;

    kept = ngx_coord_reply(WAIT_ENTER, GRANTED)->integer;
    dropped = ngx_coord_reply(WAIT_ENTER, REFUSED)->integer;

    if ((kept != 0) == (dropped != 0)) {
        return NGX_ERROR;
    }

    return dropped ? NGX_BUSY : NGX_OK;
}


static int64_t
ngx_coord_wait_ttl(ngx_coord_op_t *op)
{
    return ngx_coord_ceil_msec(op->zone->wait + NGX_COORD_WAIT_SLACK)
           + NGX_COORD_OP_SLACK;
}


static ngx_int_t
ngx_coord_wait_enter_run(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_nsec_t    expires;
    ngx_coord_slots_t   slots;
    ngx_coord_entry_t  *entry;

    expires = now + op->zone->wait;

    entry = ngx_coord_line(table, op, now);

    if (entry == NULL) {
        entry = ngx_coord_table_insert(table, NGX_COORD_KIND_LINE, 0,
                                       op->key, op->key_len, NULL, expires,
                                       now);
        if (entry == NULL) {
            return NGX_ERROR;
        }
    }

    ngx_coord_slots(table, entry, op->id, now - op->zone->wait, &slots);

    entry->expires = ngx_max(entry->expires, expires);

    if (slots.own) {
        return NGX_OK;
    }

    if (slots.used >= op->u.lease.limit) {
        return NGX_BUSY;
    }

    if (ngx_coord_slot_add(table, entry, op, &slots,
                                  ngx_max(now - op->u.lease.waited, 1), now)
        != NGX_OK)
    {
        if (slots.used == 0) {
            ngx_coord_table_remove(table, entry);
        }

        return NGX_ERROR;
    }

    return NGX_OK;
}


static void
ngx_coord_wait_leave_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
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


static ngx_int_t
ngx_coord_wait_leave_run(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    return ngx_coord_slot_remove(table, ngx_coord_line(table, op, now), op,
                                 now - op->zone->wait);
}


static void
ngx_coord_wait_clear_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_str_t  *channel;

    channel = &op->zone->store->wake;

    ngx_coord_arg_key(cmd, NGX_COORD_WAIT_CLEAR_W, op, "}:w");
    ngx_coord_arg_key(cmd, NGX_COORD_WAIT_CLEAR_K, op, "}");
    ngx_coord_arg_str(&cmd->args[NGX_COORD_WAIT_CLEAR_CHANNEL], channel->data,
                      channel->len);
}


static ngx_int_t
ngx_coord_wait_clear_run(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_entry_t  *entry;

    entry = ngx_coord_line(table, op, now);

    if (entry) {
        ngx_coord_table_remove(table, entry);
    }

    return NGX_OK;
}


/* who waits for leases of a key, by arrival; beside the entry of the leases */

static ngx_coord_entry_t *
ngx_coord_line(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    return ngx_coord_table_find(table, NGX_COORD_KIND_LINE, op->key,
                                op->key_len, now);
}
