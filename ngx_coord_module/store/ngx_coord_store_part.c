
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The Redis store: what is sent, in parts of a batch for the nodes that have
 * the keys.  Parts of a single operation that others may ask as well are held
 * until the end of the turn of the event loop; those that ask the same of one
 * key are one call, of the first of them, whose reply is read by each.
 *
 * How the single operations look as commands stands in ngx_coord_op_*.c, what
 * becomes of the replies in ngx_coord_store_reply.c.
 */


#include "ngx_coord_store_redis.h"
#include "ngx_coord_op_arg.h"
#include "ngx_coord_op_script.h"


/* calls that are looked at for one that asks the same, the last found first */
#define NGX_COORD_TURN_LOOKS  16


static ngx_uint_t ngx_coord_part_knows(ngx_coord_op_t *op,
    ngx_coord_nsec_t now);
static ngx_coord_part_t *ngx_coord_part_of(ngx_coord_batch_t *batch,
    ngx_uint_t slot, ngx_uint_t *n);
static ngx_int_t ngx_coord_part_room(ngx_coord_batch_t *batch);
static void ngx_coord_part_add(ngx_coord_part_t *part, ngx_coord_op_t *op);
static ngx_coord_call_form_e ngx_coord_part_form(ngx_coord_part_t *part,
    ngx_coord_op_t *op);
static void ngx_coord_part_send(ngx_coord_part_t *part);
static ngx_uint_t ngx_coord_part_follows(ngx_coord_op_t *op);
static void ngx_coord_part_writes(ngx_coord_part_t *part);
static u_char *ngx_coord_part_encode(ngx_coord_redis_call_t *call, u_char *p);
static ngx_int_t ngx_coord_turn_hold(ngx_coord_part_t *part);
static ngx_coord_part_t *ngx_coord_turn_find(ngx_coord_part_t *part);
static void ngx_coord_turn_handler(ngx_event_t *ev);
static ngx_coord_op_t *ngx_coord_part_op(ngx_coord_part_t *part);


ngx_int_t
ngx_coord_parts_send(ngx_coord_batch_t *batch)
{
    ngx_str_t           tag;
    ngx_uint_t          i, n, slot;
    ngx_coord_op_t     *op;
    ngx_coord_part_t   *part;
    ngx_coord_redis_t  *client;

    n = 0;
    client = ngx_coord_store_redis(batch->store)->client;

    for (i = 0; i < batch->nops; i++) {
        op = &batch->ops[i];

        if (batch->state == NGX_COORD_BATCH_AGAIN && !op->sent) {
            continue;
        }

        if (ngx_coord_op_local(op)) {
            ngx_coord_near_run(op);
            continue;
        }

        if (batch->silent) {
            ngx_coord_op_fail(batch, op, NGX_COORD_FAIL_TIMEOUT);
            continue;
        }

        op->sent = 0;
        op->gone = 0;

        if (client == NULL) {
            ngx_coord_op_fail(batch, op, NGX_COORD_FAIL_CONNECT);
            continue;
        }

        tag.data = op->key;
        tag.len = op->key_len;

        slot = ngx_coord_redis_slot(client, &tag);

        if (op->type->known
            && ngx_coord_part_knows(op,
                                           ngx_coord_redis_now(client, slot)))
        {
            continue;
        }

        part = ngx_coord_part_of(batch, slot, &n);

        if (part) {
            ngx_coord_part_add(part, op);

        } else {
            ngx_coord_op_fail(batch, op, NGX_COORD_FAIL_CONNECT);
        }
    }

    batch->waits = 0;

    for (i = 0; i < n; i++) {
        ngx_coord_part_send(&batch->parts[i]);
    }

    batch->held = batch->waits;

    return batch->held ? NGX_AGAIN : NGX_OK;
}


/* 1 if Redis is not to be asked: the operation has its result */

static ngx_uint_t
ngx_coord_part_knows(ngx_coord_op_t *op, ngx_coord_nsec_t now)
{
    op->rc = op->type->known(op, now);

    if (op->rc == NGX_AGAIN) {
        return 0;
    }

    if (op->source == NGX_COORD_SOURCE_NONE) {
        op->source = NGX_COORD_SOURCE_REDIS;
    }

    return 1;
}


/*
 * The node for a slot: the part of the batch that its operations go with,
 * which is one of the first *n, or becomes the next one.  NULL: no memory.
 */

static ngx_coord_part_t *
ngx_coord_part_of(ngx_coord_batch_t *batch, ngx_uint_t slot, ngx_uint_t *n)
{
    ngx_uint_t          i;
    ngx_coord_part_t   *part;
    ngx_coord_redis_t  *client;

    client = ngx_coord_store_redis(batch->store)->client;

    for (i = 0; i < *n; i++) {
        part = &batch->parts[i];

        if (part->call.slot == slot && !ngx_coord_redis_apart(client)) {
            return part;
        }
    }

    if (*n == 0 && ngx_coord_op_prepare(batch) != NGX_OK) {
        return NULL;
    }

    if (*n == batch->nparts && ngx_coord_part_room(batch) != NGX_OK) {
        return NULL;
    }

    part = &batch->parts[*n];

    ngx_memzero(part, sizeof(ngx_coord_part_t));

    part->batch = batch;
    part->index = (*n)++;

    part->call.slot = slot;
    part->call.form = NGX_COORD_CALL_BARE;
    part->call.lane = NGX_COORD_LANE_DECISIONS;

    return part;
}


/* nothing points to parts before they are sent */

static ngx_int_t
ngx_coord_part_room(ngx_coord_batch_t *batch)
{
    ngx_uint_t         n;
    ngx_coord_part_t  *parts;

    n = batch->nparts ? ngx_max(2 * batch->nparts, batch->nops) : 1;

    parts = ngx_alloc(n * sizeof(ngx_coord_part_t), ngx_cycle->log);

    if (parts == NULL) {
        return NGX_ERROR;
    }

    if (batch->parts) {
        ngx_memcpy(parts, batch->parts,
                   batch->nparts * sizeof(ngx_coord_part_t));
        ngx_free(batch->parts);
    }

    batch->parts = parts;
    batch->nparts = n;

    return NGX_OK;
}


/* sets op->sent, or the result of the operation, if the server is too old */

static void
ngx_coord_part_add(ngx_coord_part_t *part, ngx_coord_op_t *op)
{
    ngx_uint_t               ncommands;
    ngx_coord_redis_t       *client;
    ngx_coord_store_t       *store;
    ngx_coord_redis_call_t  *call;

    call = &part->call;
    store = part->batch->store;
    client = ngx_coord_store_redis(store)->client;

    op->rc = NGX_AGAIN;

    if (!ngx_coord_redis_serves(client, call->slot)
        && ngx_coord_op_uses(op, NGX_COORD_STORE_NEWEST))
    {
        (void) ngx_atomic_fetch_add(
                   &store->stats->failures[NGX_COORD_FAIL_UNAVAILABLE], 1);

        ngx_coord_op_fail(part->batch, op, NGX_COORD_FAIL_UNAVAILABLE);
        return;
    }

    /* who claims a key may have a large record to store soon */

    if (op->type->kind == NGX_COORD_KIND_CLAIM) {
        ngx_coord_redis_open_bulk(client, call->slot);
    }

    op->sent = 1;
    op->asked = op->type;
    op->part = part->index;

    op->nth = 0;
    op->behind = 0;
    op->with = NULL;

    ncommands = ngx_coord_op_ncommands(op);

    part->nops++;
    call->ncommands += ncommands;
    call->room += ngx_coord_op_bound(op);
    call->writes |= ngx_coord_op_script(op)->writes;
    call->form = ngx_coord_part_form(part, op);

    /* who goes where nobody waits behind it */

    if ((op->type->flags & NGX_COORD_OP_BULK)
        || op->record.len > NGX_COORD_RECORD_BULK
        || ngx_coord_part_follows(op))
    {
        call->lane = NGX_COORD_LANE_BULK;
    }
}


/* who travels with others, with one operation more */

static ngx_coord_call_form_e
ngx_coord_part_form(ngx_coord_part_t *part, ngx_coord_op_t *op)
{
    ngx_coord_call_form_e  form;

    form = part->call.form;

    if (ngx_coord_op_script(op)->bare
        && (form == NGX_COORD_CALL_BARE || form == NGX_COORD_CALL_PLAIN))
    {
        if (op->type->flags & NGX_COORD_OP_JOINS) {
            return form;
        }

        if (op->type->flags & NGX_COORD_OP_FREES) {
            return NGX_COORD_CALL_PLAIN;
        }
    }

    return (op->type->flags & NGX_COORD_OP_JOINS)
           && form != NGX_COORD_CALL_PLAIN
           && form != NGX_COORD_CALL_ALONE
           ? NGX_COORD_CALL_SHARED : NGX_COORD_CALL_ALONE;
}


static void
ngx_coord_part_send(ngx_coord_part_t *part)
{
    ngx_uint_t               i;
    ngx_coord_op_t          *op;
    ngx_coord_batch_t       *batch;
    ngx_coord_redis_call_t  *call;

    batch = part->batch;
    call = &part->call;

    if (call->ncommands == 0) {
        return;
    }

    call->encode = ngx_coord_part_encode;
    call->expired = ngx_coord_part_expired;
    call->handler = ngx_coord_part_handler;
    call->data = part;
    call->more = 0;

    if (ngx_coord_turn_hold(part) == NGX_OK) {
        batch->waits++;
        return;
    }

    if (ngx_coord_redis_send(ngx_coord_store_redis(batch->store)->client, call)
        == NGX_AGAIN)
    {
        batch->waits++;
        ngx_coord_part_writes(part);
        return;
    }

    for (i = 0; i < batch->nops; i++) {
        op = &batch->ops[i];

        if (op->sent && op->part == part->index) {
            op->sent = 0;
            ngx_coord_op_fail(batch, op, call->failure);
        }
    }
}


/*
 * 1 if a large record of the same key is on its way: who asks for the key, as
 * the client does that has just got the response, stays behind it.
 */

static ngx_uint_t
ngx_coord_part_follows(ngx_coord_op_t *op)
{
    ngx_uint_t          i;
    ngx_queue_t        *q, *writes;
    ngx_coord_op_t     *other;
    ngx_coord_part_t   *part;
    ngx_coord_batch_t  *batch;

    writes = &ngx_coord_store_redis(op->zone->store)->writes;

    for (q = ngx_queue_head(writes);
         q != ngx_queue_sentinel(writes);
         q = ngx_queue_next(q))
    {
        part = ngx_queue_data(q, ngx_coord_part_t, write);
        batch = part->batch;

        for (i = 0; i < batch->nops; i++) {
            other = &batch->ops[i];

            if (other->part == part->index
                && other->zone == op->zone
                && other->key_len == op->key_len
                && ngx_memcmp(other->key, op->key, op->key_len) == 0)
            {
                return 1;
            }
        }
    }

    return 0;
}


/* a part that carries a large record is found by those who ask for the key */

static void
ngx_coord_part_writes(ngx_coord_part_t *part)
{
    ngx_uint_t                i;
    ngx_coord_op_t           *op;
    ngx_coord_batch_t        *batch;
    ngx_coord_store_redis_t  *redis;

    if (part->call.lane != NGX_COORD_LANE_BULK) {
        return;
    }

    batch = part->batch;
    redis = ngx_coord_store_redis(batch->store);

    for (i = 0; i < batch->nops; i++) {
        op = &batch->ops[i];

        if (op->sent
            && op->part == part->index
            && op->record.len > NGX_COORD_RECORD_BULK)
        {
            part->writes = 1;
            ngx_queue_insert_tail(&redis->writes, &part->write);
            return;
        }
    }
}


static u_char *
ngx_coord_part_encode(ngx_coord_redis_call_t *call, u_char *p)
{
    ngx_uint_t                  i;
    ngx_coord_op_t             *op;
    ngx_coord_part_t           *part, *other;
    ngx_coord_batch_t          *batch;
    ngx_coord_command_t         cmd;
    const ngx_coord_op_type_t  *type;

    part = call->data;
    batch = part->batch;

    /* one time for all operations and for reading the replies */

    for (other = part->next; other; other = other->next) {
        other->call.now = call->now;
        ngx_coord_part_op(other)->gone = 1;
    }

    for (i = 0; i < batch->nops; i++) {
        op = &batch->ops[i];

        if (!op->sent || op->part != part->index) {
            continue;
        }

        op->gone = 1;

        type = ngx_coord_op_type(op);
        cmd.last = ngx_coord_op_words();

        type->build(&cmd, op, call->now);

        p = ngx_coord_script_encode(p, &ngx_coord_scripts[type->script],
                                    cmd.args);
    }

    return p;
}


void
ngx_coord_turn_init(ngx_coord_store_t *store)
{
    ngx_coord_store_redis_t  *redis;

    redis = ngx_coord_store_redis(store);

    ngx_queue_init(&redis->turn);
    ngx_memzero(&redis->turned, sizeof(ngx_event_t));

    redis->turned.handler = ngx_coord_turn_handler;
    redis->turned.data = store;
    redis->turned.log = store->cycle->log;
}


void
ngx_coord_turn_exit(ngx_coord_store_t *store)
{
    ngx_queue_t              *q;
    ngx_coord_part_t         *part;
    ngx_coord_store_redis_t  *redis;

    redis = ngx_coord_store_redis(store);

    if (redis->turned.posted) {
        ngx_delete_posted_event(&redis->turned);
    }

    while (!ngx_queue_empty(&redis->turn)) {
        q = ngx_queue_head(&redis->turn);
        part = ngx_queue_data(q, ngx_coord_part_t, turn);

        ngx_queue_remove(q);

        part->call.failure = NGX_COORD_FAIL_CONNECT;
        ngx_coord_part_handler(&part->call, NGX_ERROR, NULL);
    }
}


/*
 * Holds a part until the end of the turn, or has it travel with one that is
 * held, and returns NGX_OK: it is in flight then, and its handler tells, if it
 * could not be sent.  NGX_DECLINED: it is one that travels alone, now.
 */

static ngx_int_t
ngx_coord_turn_hold(ngx_coord_part_t *part)
{
    ngx_coord_op_t           *op;
    ngx_coord_part_t         *first;
    ngx_coord_store_redis_t  *redis;

    redis = ngx_coord_store_redis(part->batch->store);

    /* where there is no answer to be had that is told at once */

    if (part->nops != 1 || !ngx_coord_redis_ready(redis->client)) {
        return NGX_DECLINED;
    }

    op = ngx_coord_part_op(part);

    if (op->type->same == NULL) {
        return NGX_DECLINED;
    }

    part->last = part;

    first = ngx_coord_turn_find(part);

    if (first) {
        ngx_coord_part_op(first->last)->with = op;

        first->last->next = part;
        first->last = part;

        first->call.more++;
        first->call.room += ngx_coord_op_along(op);

        op->nth = ++ngx_coord_part_op(first)->behind;

        return NGX_OK;
    }

    ngx_queue_insert_head(&redis->turn, &part->turn);

    if (!redis->turned.posted) {
        ngx_post_event(&redis->turned, &ngx_posted_events);
    }

    return NGX_OK;
}


/* who is found is looked at first by the next one */

static ngx_coord_part_t *
ngx_coord_turn_find(ngx_coord_part_t *part)
{
    ngx_uint_t                i;
    ngx_queue_t              *q;
    ngx_coord_op_t           *op, *other;
    ngx_coord_part_t         *first;
    ngx_coord_store_redis_t  *redis;

    op = ngx_coord_part_op(part);
    redis = ngx_coord_store_redis(part->batch->store);

    for (q = ngx_queue_head(&redis->turn), i = 0;
         q != ngx_queue_sentinel(&redis->turn) && i < NGX_COORD_TURN_LOOKS;
         q = ngx_queue_next(q), i++)
    {
        first = ngx_queue_data(q, ngx_coord_part_t, turn);
        other = ngx_coord_part_op(first);

        if (other->type == op->type
            && other->zone == op->zone
            && other->key_len == op->key_len
            && ngx_memcmp(other->key, op->key, op->key_len) == 0
            && other->behind + 1 < NGX_COORD_OP_TOGETHER
            && op->type->same(other, op))
        {
            ngx_queue_remove(q);
            ngx_queue_insert_head(&redis->turn, q);

            return first;
        }
    }

    return NULL;
}


static void
ngx_coord_turn_handler(ngx_event_t *ev)
{
    ngx_coord_turn_send(ev->data);
}


void
ngx_coord_turn_send(ngx_coord_store_t *store)
{
    ngx_queue_t              *q;
    ngx_coord_part_t         *part;
    ngx_coord_store_redis_t  *redis;

    redis = ngx_coord_store_redis(store);

    while (!ngx_queue_empty(&redis->turn)) {
        q = ngx_queue_last(&redis->turn);
        part = ngx_queue_data(q, ngx_coord_part_t, turn);

        ngx_queue_remove(q);

        if (ngx_coord_redis_send(redis->client, &part->call) != NGX_AGAIN) {
            ngx_coord_part_handler(&part->call, NGX_ERROR, NULL);
        }
    }
}


/* the one operation of a part that is held */

static ngx_coord_op_t *
ngx_coord_part_op(ngx_coord_part_t *part)
{
    ngx_uint_t       i;
    ngx_coord_op_t  *op;

    op = part->batch->ops;

    for (i = 0; i + 1 < part->batch->nops; i++, op++) {

        if (op->sent && op->part == part->index) {
            break;
        }
    }

    return op;
}
