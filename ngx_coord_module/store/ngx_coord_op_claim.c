
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Claims and results: in Redis a sorted set with the claim and the mark of a
 * result, times in microseconds as scores, and the record in a key beside it;
 * in memory two entries of one key.
 *
 *   claim   fingerprint and token, 64 hex digits
 *   mark    fingerprint, 32 hex digits, and "d"
 *
 * A token begins with the time of the claim, on the clock of its store.
 */


#include "ngx_coord_op_claim.h"
#include "ngx_coord_record.h"


#define NGX_COORD_CLAIM_MEMBER                                                \
    (2 * NGX_COORD_FINGERPRINT_LEN + 2 * NGX_COORD_ID_LEN)

/* the mark goes so much before the record: a result is never without one */
#define NGX_COORD_CLAIM_EARLY  (10 * NGX_COORD_NSEC_PER_MSEC)


/* bytes of a token that tell its time, in milliseconds */
#define NGX_COORD_CLAIM_TIME   6
#define NGX_COORD_CLAIM_APART  1000
#define NGX_COORD_CLAIM_LONG   (7 * 24 * 3600 * 1000)


/* the blob of a claim in memory */
typedef struct {
    ngx_coord_nsec_t           expires;   /* the lease */
    u_char                     fingerprint[NGX_COORD_FINGERPRINT_LEN];
    u_char                     id[NGX_COORD_ID_LEN];
} ngx_coord_stored_claim_t;


static void ngx_coord_arg_member(ngx_coord_command_t *cmd, ngx_uint_t n,
    ngx_coord_op_t *op);
static int64_t ngx_coord_claim_ttl(ngx_coord_op_t *op);
static ngx_coord_nsec_t ngx_coord_claim_ran(const u_char *id,
    ngx_coord_nsec_t now);
static void ngx_coord_claim_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_claim_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_claim_twin(ngx_coord_claim_t *claim,
    ngx_coord_resp_value_t *value, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_claim_run(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_coord_entry_t *ngx_coord_claim_get(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_stored_claim_t *stored, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_claim_set(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_entry_t *entry, ngx_coord_nsec_t now);
static void ngx_coord_claim_renew_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_claim_renew_run(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static void ngx_coord_claim_complete_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_claim_complete_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_claim_complete_run(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static void ngx_coord_claim_release_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_claim_release_run(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static void ngx_coord_claim_forget_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_claim_forget_run(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);


const ngx_coord_op_type_t  ngx_coord_op_claim = {
    ngx_string("claim"),
    NGX_COORD_OP_TAKES,
    NGX_COORD_KIND_CLAIM,
    NGX_COORD_SCRIPT_IDEMPOTENCY_CLAIM,
    ngx_coord_claim_build,
    ngx_coord_claim_parse,
    NULL,
    ngx_coord_claim_run,
    &ngx_coord_op_claim_release,
    NULL,
    &ngx_coord_op_claim_forget,
    NULL,
    NULL
};


const ngx_coord_op_type_t  ngx_coord_op_claim_renew = {
    ngx_string("claim_renew"),
    NGX_COORD_OP_TWICE,
    NGX_COORD_KIND_CLAIM,
    NGX_COORD_SCRIPT_IDEMPOTENCY_RENEW,
    ngx_coord_claim_renew_build,
    ngx_coord_score_parse,
    NULL,
    ngx_coord_claim_renew_run,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL
};


const ngx_coord_op_type_t  ngx_coord_op_claim_complete = {
    ngx_string("claim_complete"),
    0,
    NGX_COORD_KIND_CLAIM,
    NGX_COORD_SCRIPT_IDEMPOTENCY_COMPLETE,
    ngx_coord_claim_complete_build,
    ngx_coord_claim_complete_parse,
    NULL,
    ngx_coord_claim_complete_run,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL
};


const ngx_coord_op_type_t  ngx_coord_op_claim_release = {
    ngx_string("claim_release"),
    NGX_COORD_OP_TWICE,
    NGX_COORD_KIND_CLAIM,
    NGX_COORD_SCRIPT_IDEMPOTENCY_RELEASE,
    ngx_coord_claim_release_build,
    ngx_coord_removed_parse,
    NULL,
    ngx_coord_claim_release_run,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL
};


const ngx_coord_op_type_t  ngx_coord_op_claim_forget = {
    ngx_string("claim_forget"),
    NGX_COORD_OP_FREES,
    NGX_COORD_KIND_CLAIM,
    NGX_COORD_SCRIPT_FORGET,
    ngx_coord_claim_forget_build,
    ngx_coord_forget_parse,
    NULL,
    ngx_coord_claim_forget_run,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL
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


static int64_t
ngx_coord_claim_ttl(ngx_coord_op_t *op)
{
    ngx_coord_claim_t  *claim;

    claim = &op->u.claim;

    return ngx_coord_ttl(ngx_max(claim->ttl, claim->lease));
}


void
ngx_coord_claim_stamp(ngx_coord_op_t *op, ngx_coord_nsec_t now)
{
    uint64_t    msec;
    ngx_uint_t  i;

    /* a claim that is asked for anew keeps the time of its first question */

    if (ngx_coord_claim_ran(op->id, now)) {
        return;
    }

    msec = now / NGX_COORD_NSEC_PER_MSEC;

    for (i = NGX_COORD_CLAIM_TIME; i > 0; i--) {
        op->id[i - 1] = (u_char) (msec & 0xff);
        msec >>= 8;
    }
}


/* how long ago a claim was made, at least 1 ms; 0: that is not known */

static ngx_coord_nsec_t
ngx_coord_claim_ran(const u_char *id, ngx_coord_nsec_t now)
{
    int64_t     msec;
    ngx_uint_t  i;

    msec = 0;

    for (i = 0; i < NGX_COORD_CLAIM_TIME; i++) {
        msec = msec << 8 | id[i];
    }

    msec = now / NGX_COORD_NSEC_PER_MSEC - msec;

    /* clocks of workers are a little apart; a run that long is none */

    if (msec < -NGX_COORD_CLAIM_APART || msec > NGX_COORD_CLAIM_LONG) {
        return 0;
    }

    return ngx_max(msec, 1) * NGX_COORD_NSEC_PER_MSEC;
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

    ngx_coord_claim_stamp(op, now);

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


static ngx_int_t
ngx_coord_claim_parse(ngx_coord_op_t *op, ngx_coord_resp_value_t **values,
    ngx_coord_nsec_t now)
{
    ngx_str_t           blob;
    ngx_coord_claim_t  *claim;

    claim = &op->u.claim;

    if (ngx_coord_resp_string(ngx_coord_reply(IDEMPOTENCY_CLAIM, RECORD),
                              &blob)
        != NGX_OK
        || ngx_coord_claim_twin(claim,
                                ngx_coord_reply(IDEMPOTENCY_CLAIM, HOLDER),
                                now)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    claim->lapsed = (ngx_coord_reply(IDEMPOTENCY_CLAIM, LAPSED)->integer > 0);

    if (ngx_coord_record_keep(op, &blob) != NGX_OK) {
        return NGX_ERROR;
    }

    if (ngx_coord_reply(IDEMPOTENCY_CLAIM, GRANTED)->integer) {
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
    u_char            id[NGX_COORD_CLAIM_TIME];
    ngx_str_t         member;
    ngx_coord_nsec_t  expires;

    if (value->type != NGX_COORD_RESP_ARRAY
        || value->integer != 2
        || ngx_coord_resp_string(ngx_coord_resp_element(value, 0), &member)
           != NGX_OK
        || ngx_coord_time_parse(ngx_coord_resp_element(value, 1), &expires)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    claim->remaining = expires - now;

    if (member.len == NGX_COORD_CLAIM_MEMBER) {
        claim->state = (claim->remaining > 0) ? NGX_COORD_CLAIM_RUNNING
                                              : NGX_COORD_CLAIM_LAPSED;

        if (ngx_coord_unhex(id, member.data + 2 * NGX_COORD_FINGERPRINT_LEN,
                            NGX_COORD_CLAIM_TIME)
            != NGX_OK)
        {
            return NGX_ERROR;
        }

        claim->ran = ngx_coord_claim_ran(id, now);

    } else if (member.len == NGX_COORD_CLAIM_MARK) {
        claim->state = NGX_COORD_CLAIM_DONE;

    } else {
        return NGX_ERROR;
    }

    return ngx_coord_unhex(claim->twin, member.data,
                           NGX_COORD_FINGERPRINT_LEN);
}


static ngx_int_t
ngx_coord_claim_run(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_int_t                  rc;
    ngx_coord_nsec_t           gone;
    ngx_coord_claim_t         *claim;
    ngx_coord_entry_t         *entry;
    ngx_coord_stored_claim_t   stored;

    claim = &op->u.claim;
    claim->state = NGX_COORD_CLAIM_NONE;
    claim->lapsed = 0;

    ngx_coord_claim_stamp(op, now);

    rc = ngx_coord_record_find(table, op, now);

    if (rc != NGX_DECLINED) {
        return rc;
    }

    entry = ngx_coord_claim_get(table, op, &stored, now);

    if (entry && ngx_memcmp(stored.id, op->id, NGX_COORD_ID_LEN) != 0) {
        gone = claim->keep ? now - claim->ttl : now;

        if (stored.expires > gone) {
            claim->remaining = stored.expires - now;
            claim->ran = ngx_coord_claim_ran(stored.id, now);
            claim->state = (claim->remaining > 0) ? NGX_COORD_CLAIM_RUNNING
                                                  : NGX_COORD_CLAIM_LAPSED;

            ngx_memcpy(claim->twin, stored.fingerprint,
                       NGX_COORD_FINGERPRINT_LEN);

            return NGX_BUSY;
        }

        claim->lapsed = 1;
    }

    return ngx_coord_claim_set(table, op, entry, now);
}


static ngx_coord_entry_t *
ngx_coord_claim_get(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_stored_claim_t *stored, ngx_coord_nsec_t now)
{
    ngx_coord_entry_t  *entry;

    entry = ngx_coord_table_find(table, NGX_COORD_KIND_CLAIM, op->key,
                                 op->key_len, now);

    if (entry == NULL) {
        return NULL;
    }

    if (ngx_coord_table_read(table, entry, (u_char *) stored, 0,
                             sizeof(ngx_coord_stored_claim_t))
        != sizeof(ngx_coord_stored_claim_t))
    {
        ngx_coord_table_remove(table, entry);
        return NULL;
    }

    return entry;
}


/* the claim is op's, from now on */

static ngx_int_t
ngx_coord_claim_set(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_entry_t *entry, ngx_coord_nsec_t now)
{
    ngx_coord_nsec_t           expires;
    ngx_coord_claim_t         *claim;
    ngx_coord_stored_claim_t   stored;

    claim = &op->u.claim;

    stored.expires = now + claim->lease;

    ngx_memcpy(stored.fingerprint, claim->fingerprint,
               NGX_COORD_FINGERPRINT_LEN);
    ngx_memcpy(stored.id, op->id, NGX_COORD_ID_LEN);

    /* a lapsed claim has to be seen as such */

    expires = claim->keep ? now + claim->lease + claim->ttl : stored.expires;

    if (entry == NULL) {
        entry = ngx_coord_table_insert(table, NGX_COORD_KIND_CLAIM, 0,
                                       op->key, op->key_len, NULL, expires,
                                       now);
        if (entry == NULL) {
            return NGX_ERROR;
        }
    }

    entry->expires = expires;

    return ngx_coord_table_write(table, entry, (u_char *) &stored,
                                 sizeof(ngx_coord_stored_claim_t), now);
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


static ngx_int_t
ngx_coord_claim_renew_run(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_entry_t         *entry;
    ngx_coord_stored_claim_t   stored;

    entry = ngx_coord_claim_get(table, op, &stored, now);

    if (entry == NULL || ngx_memcmp(stored.id, op->id, NGX_COORD_ID_LEN) != 0)
    {
        return NGX_BUSY;
    }

    return ngx_coord_claim_set(table, op, entry, now);
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
    ngx_coord_arg_wake(cmd, NGX_COORD_IDEMPOTENCY_COMPLETE_CHANNEL, op);
}


static ngx_int_t
ngx_coord_claim_complete_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now)
{
    ngx_coord_resp_value_t  *v;

    v = ngx_coord_reply(IDEMPOTENCY_COMPLETE, STORED);

    return v->type == NGX_COORD_RESP_NIL ? NGX_BUSY : NGX_OK;
}


/*
 * The claim goes when the result stands.  Where there is no room for it, not
 * even without its body, the claim lapses: the key must not look as if nothing
 * had run.
 */

static ngx_int_t
ngx_coord_claim_complete_run(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_int_t           rc;
    ngx_coord_entry_t  *entry;

    entry = ngx_coord_table_find(table, NGX_COORD_KIND_RECORD, op->key,
                                 op->key_len, now);

    if (entry && entry->length) {
        rc = NGX_BUSY;

    } else {
        rc = ngx_coord_record_store(table, op, now);

        if (rc == NGX_ERROR && ngx_coord_record_omit(&op->record) == NGX_OK) {
            rc = ngx_coord_record_store(table, op, now);
        }
    }

    if (rc != NGX_ERROR) {
        (void) ngx_coord_claim_release_run(table, op, now);
    }

    return rc;
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

    ngx_coord_arg_wake(cmd, NGX_COORD_IDEMPOTENCY_RELEASE_CHANNEL, op);
}


static ngx_int_t
ngx_coord_claim_release_run(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_entry_t         *entry;
    ngx_coord_stored_claim_t   stored;

    if (op->u.claim.done) {
        return ngx_coord_claim_discard_run(table, op, now);
    }

    entry = ngx_coord_claim_get(table, op, &stored, now);

    if (entry == NULL
        || ngx_memcmp(stored.id, op->id, NGX_COORD_ID_LEN) != 0)
    {
        return NGX_DECLINED;
    }

    ngx_coord_table_remove(table, entry);

    return NGX_OK;
}


static void
ngx_coord_claim_forget_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_forget_build(cmd, op, now);
    ngx_coord_arg_key(cmd, NGX_COORD_FORGET_B, op, "}:r");
}


static ngx_int_t
ngx_coord_claim_forget_run(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_int_t           rc;
    ngx_coord_entry_t  *entry;

    rc = ngx_coord_forget_run(table, op, now);

    entry = ngx_coord_table_find(table, NGX_COORD_KIND_RECORD, op->key,
                                 op->key_len, now);
    if (entry == NULL) {
        return rc;
    }

    ngx_coord_table_remove(table, entry);

    return NGX_OK;
}
