
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Looking at the state of a key, and dropping it, in shared memory; and what
 * both stores answer to a look.
 */


#include "ngx_coord_store_memory.h"
#include "ngx_coord_rate.h"


static ngx_uint_t ngx_coord_memory_peek_tag(ngx_coord_op_t *op);
static ngx_int_t ngx_coord_memory_peek_sliding(ngx_coord_op_t *op,
    ngx_coord_entry_t *entry, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_memory_peek_set(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_entry_t *entry, ngx_coord_nsec_t now);


ngx_int_t
ngx_coord_memory_peek(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_nsec_t    end;
    ngx_coord_entry_t  *entry;

    if (op->type == NGX_COORD_OP_FORGET && op->taken == NGX_COORD_OP_CLAIM) {
        return ngx_coord_memory_claim_forget(table, op, now);
    }

    entry = ngx_coord_table_find(table, ngx_coord_memory_peek_tag(op),
                                 op->key, op->key_len, now);

    switch (op->type) {

    case NGX_COORD_OP_BUCKET_PEEK:
        end = entry ? (ngx_coord_nsec_t) entry->payload[0] : now;
        return ngx_coord_peek_bucket(&op->u.rate, end - now);

    case NGX_COORD_OP_WINDOW_PEEK:
        if (entry == NULL) {
            return ngx_coord_peek_window(&op->u.rate, 0, 0);
        }

        end = (ngx_coord_nsec_t) entry->payload[0];
        return ngx_coord_peek_window(&op->u.rate,
                                     (int64_t) entry->payload[1], end - now);

    case NGX_COORD_OP_SLIDING_PEEK:
        return ngx_coord_memory_peek_sliding(op, entry, now);

    case NGX_COORD_OP_LOG_PEEK:
    case NGX_COORD_OP_LEASE_PEEK:
        return ngx_coord_memory_peek_set(table, op, entry, now);

    default: /* NGX_COORD_OP_FORGET */

        if (entry == NULL) {
            return NGX_BUSY;
        }

        ngx_coord_table_remove(table, entry);

        return NGX_OK;
    }
}


/* see ngx_coord_memory_find() */

static ngx_uint_t
ngx_coord_memory_peek_tag(ngx_coord_op_t *op)
{
    switch (op->type) {

    case NGX_COORD_OP_BUCKET_PEEK:
        return NGX_COORD_OP_BUCKET_TAKE;

    case NGX_COORD_OP_WINDOW_PEEK:
        return NGX_COORD_OP_WINDOW_TAKE;

    case NGX_COORD_OP_SLIDING_PEEK:
        return NGX_COORD_OP_SLIDING_TAKE;

    case NGX_COORD_OP_LOG_PEEK:
        return NGX_COORD_OP_LOG_TAKE;

    case NGX_COORD_OP_LEASE_PEEK:
        return NGX_COORD_OP_LEASE_ACQUIRE;

    default: /* NGX_COORD_OP_FORGET */
        return op->taken;
    }
}


static ngx_int_t
ngx_coord_memory_peek_sliding(ngx_coord_op_t *op, ngx_coord_entry_t *entry,
    ngx_coord_nsec_t now)
{
    ngx_coord_window_t   window;
    ngx_coord_sliding_t  sliding;

    if (entry == NULL) {
        return ngx_coord_peek_sliding(&op->u.rate, 0, 0, now);
    }

    (void) ngx_coord_window_init(&window, &op->u.rate);
    ngx_coord_sliding_init(&sliding, &window, now);

    return ngx_coord_peek_sliding(&op->u.rate,
                                  ngx_coord_memory_count(entry->payload,
                                                         sliding.index),
                                  ngx_coord_memory_count(entry->payload,
                                                         sliding.index - 1),
                                  now);
}


static ngx_int_t
ngx_coord_memory_peek_set(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_entry_t *entry, ngx_coord_nsec_t now)
{
    ngx_uint_t          used;
    ngx_coord_nsec_t    gone, first;
    ngx_coord_window_t  window;

    used = 0;
    gone = now;
    first = now;

    if (op->type == NGX_COORD_OP_LOG_PEEK) {
        (void) ngx_coord_window_init(&window, &op->u.rate);
        gone = now - window.length;
    }

    if (entry) {
        used = ngx_coord_memory_set_count(table, entry, gone, &first);
    }

    if (op->type == NGX_COORD_OP_LOG_PEEK) {
        return ngx_coord_peek_log(&op->u.rate, used, used ? first : now, now);
    }

    op->u.lease.current = used;
    op->u.lease.first = used ? ngx_max(first - now, 0) : 0;

    return NGX_OK;
}
