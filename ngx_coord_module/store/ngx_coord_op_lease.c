
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Leases: a set of times at which they end, each with the id of its holder.
 */


#include "ngx_coord_op_arg.h"
#include "ngx_coord_op_set.h"


/* what is asked again so often finds no place that ends all the time */
#define NGX_COORD_LEASE_TRIES  8

/* a fencing number is kept for a day, in milliseconds */
#define NGX_COORD_TOKEN_TTL  86400000


static ngx_uint_t ngx_coord_lease_same(const ngx_coord_op_t *a,
    const ngx_coord_op_t *b);
static void ngx_coord_lease_acquire_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_lease_acquire_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static void ngx_coord_lease_renew_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_lease_renew_run(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static void ngx_coord_lease_release_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static void ngx_coord_lease_wake_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_lease_release_run(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static void ngx_coord_lease_peek_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_lease_peek_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_lease_peek_run(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static void ngx_coord_lock_token_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_lock_token_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_lock_token_run(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);


const ngx_coord_op_type_t  ngx_coord_op_lease_acquire = {
    ngx_string("lease_acquire"),
    NGX_COORD_OP_TAKES|NGX_COORD_OP_JOINS|NGX_COORD_OP_FULL_BUSY,
    NGX_COORD_KIND_LEASE,
    NGX_COORD_SCRIPT_LEASE_ACQUIRE,
    ngx_coord_lease_acquire_build,
    ngx_coord_lease_acquire_parse,
    ngx_coord_lease_known,
    ngx_coord_lease_acquire_run,
    &ngx_coord_op_lease_release,
    &ngx_coord_op_lease_peek,
    &ngx_coord_op_lease_forget,
    NULL,
    ngx_coord_lease_same
};


const ngx_coord_op_type_t  ngx_coord_op_lease_renew = {
    ngx_string("lease_renew"),
    NGX_COORD_OP_JOINS,
    NGX_COORD_KIND_LEASE,
    NGX_COORD_SCRIPT_LEASE_RENEW,
    ngx_coord_lease_renew_build,
    ngx_coord_score_parse,
    NULL,
    ngx_coord_lease_renew_run,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL
};


const ngx_coord_op_type_t  ngx_coord_op_lease_release = {
    ngx_string("lease_release"),
    NGX_COORD_OP_JOINS|NGX_COORD_OP_TWICE,
    NGX_COORD_KIND_LEASE,
    NGX_COORD_SCRIPT_LEASE_RELEASE,
    ngx_coord_lease_release_build,
    ngx_coord_removed_parse,
    NULL,
    ngx_coord_lease_release_run,
    NULL,
    NULL,
    NULL,
    &ngx_coord_op_lease_wake,
    NULL
};


const ngx_coord_op_type_t  ngx_coord_op_lease_wake = {
    ngx_string("lease_wake"),
    NGX_COORD_OP_JOINS|NGX_COORD_OP_TWICE,
    NGX_COORD_KIND_LEASE,
    NGX_COORD_SCRIPT_LEASE_RELEASE_WAKE,
    ngx_coord_lease_wake_build,
    ngx_coord_removed_parse,
    NULL,
    ngx_coord_lease_release_run,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL
};


const ngx_coord_op_type_t  ngx_coord_op_lease_peek = {
    ngx_string("lease_peek"),
    0,
    NGX_COORD_KIND_LEASE,
    NGX_COORD_SCRIPT_SET_PEEK,
    ngx_coord_lease_peek_build,
    ngx_coord_lease_peek_parse,
    NULL,
    ngx_coord_lease_peek_run,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL
};


const ngx_coord_op_type_t  ngx_coord_op_lease_forget = {
    ngx_string("lease_forget"),
    NGX_COORD_OP_FREES,
    NGX_COORD_KIND_LEASE,
    NGX_COORD_SCRIPT_FORGET,
    ngx_coord_forget_build,
    ngx_coord_forget_parse,
    NULL,
    ngx_coord_forget_run,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL
};


const ngx_coord_op_type_t  ngx_coord_op_lock_token = {
    ngx_string("lock_token"),
    NGX_COORD_OP_JOINS,
    NGX_COORD_KIND_TOKEN,
    NGX_COORD_SCRIPT_LOCK_TOKEN,
    ngx_coord_lock_token_build,
    ngx_coord_lock_token_parse,
    NULL,
    ngx_coord_lock_token_run,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL
};


ngx_int_t
ngx_coord_lease_known(ngx_coord_op_t *op, ngx_coord_nsec_t now)
{
    op->u.lease.current = 0;

    return op->u.lease.limit ? NGX_AGAIN : NGX_BUSY;
}


ngx_coord_nsec_t
ngx_coord_lease_span(ngx_coord_op_t *op)
{
    return ngx_min(ngx_max(op->u.lease.lease, NGX_COORD_NSEC_PER_MSEC),
                   NGX_COORD_RATE_SPAN);
}


/* a holder that asks again asks alone */

static ngx_uint_t
ngx_coord_lease_same(const ngx_coord_op_t *a, const ngx_coord_op_t *b)
{
    return !a->again
           && !b->again
           && a->u.lease.limit == b->u.lease.limit
           && a->u.lease.lease == b->u.lease.lease;
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
    ngx_coord_arg_askers(cmd, NGX_COORD_LEASE_ACQUIRE_ASKS,
                         NGX_COORD_LEASE_ACQUIRE_LEASES, op,
                         (now + span) / NGX_COORD_NSEC_PER_USEC);
    ngx_coord_arg_num(&a[NGX_COORD_LEASE_ACQUIRE_NOW],
                      now / NGX_COORD_NSEC_PER_USEC);
    ngx_coord_arg_num(&a[NGX_COORD_LEASE_ACQUIRE_LAST], op->behind);
    ngx_coord_arg_num(&a[NGX_COORD_LEASE_ACQUIRE_FROM],
                      -(int64_t) ngx_min(op->u.lease.limit,
                                         NGX_COORD_RATE_LIMIT));
    ngx_coord_arg_num(&a[NGX_COORD_LEASE_ACQUIRE_TTL],
                      ngx_coord_ttl(span));
}


static ngx_int_t
ngx_coord_lease_acquire_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now)
{
    int64_t  granted, refused, dropped, used;

    granted = ngx_coord_reply(LEASE_ACQUIRE, GRANTED)->integer;
    dropped = ngx_coord_reply(LEASE_ACQUIRE, DROPPED)->integer;
    used = ngx_coord_reply(LEASE_ACQUIRE, USED)->integer;

    if (granted != ngx_coord_reply(LEASE_ACQUIRE, ROOM)->integer
        || granted < 0
        || granted > op->behind + 1
        || used < granted)
    {
        return NGX_ERROR;
    }

    refused = op->behind + 1 - granted;

    if (dropped < refused) {
        return NGX_ERROR;
    }

    op->u.lease.current = (ngx_uint_t) used;

    if (op->nth < granted) {
        op->u.lease.current -= granted - 1 - op->nth;
        return NGX_OK;
    }

    if (dropped == refused) {
        return NGX_BUSY;
    }

    /* others that were over had places, which are free now */

    return ++op->u.lease.tries < NGX_COORD_LEASE_TRIES ? NGX_AGAIN : NGX_ERROR;
}


ngx_int_t
ngx_coord_lease_acquire_run(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_nsec_t    expires;
    ngx_coord_lease_t  *lease;
    ngx_coord_slots_t   slots;
    ngx_coord_entry_t  *entry;

    lease = &op->u.lease;
    lease->current = 0;

    if (lease->limit == 0) {
        return NGX_BUSY;
    }

    expires = now + ngx_min(ngx_max(lease->lease, NGX_COORD_NSEC_PER_MSEC),
                            NGX_COORD_RATE_SPAN);

    entry = ngx_coord_entry_find(table, op, now);

    if (entry == NULL) {
        entry = ngx_coord_entry_insert(table, op, 0, NULL, expires, now);

        if (entry == NULL) {
            return NGX_ERROR;
        }
    }

    ngx_coord_slots(table, entry, op->id, now, &slots);

    if (slots.used - (slots.own != NULL) >= lease->limit) {

        /* a limit that has been lowered may end the lease of who asks again */

        if (slots.own) {
            slots.own->at = 0;
            slots.used--;
        }

        lease->current = slots.used;
        return NGX_BUSY;
    }

    entry->expires = ngx_max(entry->expires, expires);

    ngx_coord_table_commit();

    if (slots.own) {
        slots.own->at = expires;
        lease->current = slots.used;
        return NGX_OK;
    }

    if (ngx_coord_slot_add(table, entry, op, &slots, expires, now)
        != NGX_OK)
    {
        if (slots.used == 0) {
            ngx_coord_table_remove(table, entry);
        }

        return NGX_ERROR;
    }

    lease->current = slots.used + 1;

    return NGX_OK;
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
                      ngx_coord_ttl(span));
}


static ngx_int_t
ngx_coord_lease_renew_run(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_nsec_t    expires;
    ngx_coord_slots_t   slots;
    ngx_coord_entry_t  *entry;

    entry = ngx_coord_entry_find(table, op, now);

    if (entry == NULL) {
        return NGX_BUSY;
    }

    /* a lease that has run out goes on if nobody has dropped it yet */

    ngx_coord_slots(table, entry, op->id, 0, &slots);

    if (slots.own == NULL) {
        return NGX_BUSY;
    }

    expires = now + ngx_min(ngx_max(op->u.lease.lease,
                                    NGX_COORD_NSEC_PER_MSEC),
                            NGX_COORD_RATE_SPAN);

    entry->expires = ngx_max(entry->expires, expires);

    ngx_coord_table_commit();

    slots.own->at = expires;

    return NGX_OK;
}


static void
ngx_coord_lease_release_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_arg_key(cmd, NGX_COORD_LEASE_RELEASE_K, op, "}");
    ngx_coord_arg_entry(cmd, NGX_COORD_LEASE_RELEASE_ID, op);
}


static void
ngx_coord_lease_wake_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
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


static ngx_int_t
ngx_coord_lease_release_run(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    return ngx_coord_slot_remove(table, ngx_coord_entry_find(table, op, now),
                                 op, now);
}


static void
ngx_coord_lease_peek_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_arg_key(cmd, NGX_COORD_SET_PEEK_K, op, "}");
    ngx_coord_arg_num(&cmd->args[NGX_COORD_SET_PEEK_FROM],
                      now / NGX_COORD_NSEC_PER_USEC + 1);
}


static ngx_int_t
ngx_coord_lease_peek_parse(ngx_coord_op_t *op, ngx_coord_resp_value_t **values,
    ngx_coord_nsec_t now)
{
    int64_t           used;
    ngx_coord_nsec_t  first;

    first = now;

    if (ngx_coord_set_peek_parse(values, &used, &first) != NGX_OK) {
        return NGX_ERROR;
    }

    op->u.lease.current = (ngx_uint_t) used;
    op->u.lease.first = ngx_max(first - now, 0);

    return NGX_OK;
}


static ngx_int_t
ngx_coord_lease_peek_run(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_lease_t  *lease;
    ngx_coord_slots_t   slots;
    ngx_coord_entry_t  *entry;

    lease = &op->u.lease;

    lease->current = 0;
    lease->first = 0;

    entry = ngx_coord_entry_find(table, op, now);

    if (entry == NULL) {
        return NGX_OK;
    }

    ngx_coord_slots(table, entry, op->id, now, &slots);

    lease->current = slots.used;
    lease->first = slots.used ? ngx_max(slots.first - now, 0) : 0;

    return NGX_OK;
}


static void
ngx_coord_lock_token_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
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
ngx_coord_lock_token_parse(ngx_coord_op_t *op, ngx_coord_resp_value_t **values,
    ngx_coord_nsec_t now)
{
    op->u.lease.token = ngx_coord_reply(LOCK_TOKEN, TOKEN)->integer;

    return NGX_OK;
}


/* from the wall clock on, so that a restart of the node does not go back */

static ngx_int_t
ngx_coord_lock_token_run(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    int64_t             token;
    uint64_t            payload[2];
    ngx_time_t         *tp;
    ngx_coord_nsec_t    expires;
    ngx_coord_entry_t  *entry;

    tp = ngx_timeofday();

    token = (int64_t) tp->sec * 1000000 + tp->msec * 1000;
    expires = now + 86400 * NGX_COORD_NSEC_PER_SEC;

    entry = ngx_coord_table_find(table, NGX_COORD_KIND_TOKEN, op->key,
                                 op->key_len, now);

    if (entry) {
        token = ngx_max(token, (int64_t) entry->payload[0] + 1);

        entry->payload[0] = (uint64_t) token;
        entry->expires = expires;

    } else {
        payload[0] = (uint64_t) token;
        payload[1] = 0;

        (void) ngx_coord_table_insert(table, NGX_COORD_KIND_TOKEN,
                                      NGX_COORD_ENTRY_EVICT, op->key,
                                      op->key_len, payload, expires, now);
    }

    op->u.lease.token = token;

    return NGX_OK;
}
