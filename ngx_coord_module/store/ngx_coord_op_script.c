
/*
 * Copyright (C) ngx_coord_module contributors
 */


#include "ngx_coord_op_bucket.h"
#include "ngx_coord_op_script.h"


/* what follows a key: "}:tmp", or "}:" and the index of a window */
#define NGX_COORD_OP_SUFFIX  (2 + NGX_INT64_LEN)

/* the ids, fingerprints and decimals of one operation */
#define NGX_COORD_OP_WORDS                                                    \
    (2 * NGX_COORD_ID_LEN + 4 * NGX_COORD_FINGERPRINT_LEN + 16)


static size_t ngx_coord_op_key_len(ngx_coord_op_t *op);
static size_t ngx_coord_op_lists(ngx_coord_op_t *op, ngx_uint_t together);


/* of this worker: the keys and words of the operation being encoded */
static u_char  *ngx_coord_scratch;
static size_t   ngx_coord_scratch_size;


/* of any key that an operation may write, at most */

static size_t
ngx_coord_op_key_len(ngx_coord_op_t *op)
{
    return op->zone->key_head.len + NGX_COORD_KEY_LEN + NGX_COORD_OP_SUFFIX;
}


/*
 * Of the lists of an operation, at most: a time and two ids for each place of a
 * log, and two steps, or two ids, each behind a number, for each of so many who
 * take together.
 */

static size_t
ngx_coord_op_lists(ngx_coord_op_t *op, ngx_uint_t together)
{
    if (op->type->kind == NGX_COORD_KIND_BUCKET
        || op->type->kind == NGX_COORD_KIND_WINDOW)
    {
        return together * 2 * NGX_COORD_OP_STEP_LEN;
    }

    if (op->type == &ngx_coord_op_lease_acquire
        || op->type == &ngx_coord_op_log_take)
    {
        return together * 2 * NGX_COORD_OP_ASKER_LEN;
    }

    if (op->type->kind != NGX_COORD_KIND_LOG) {
        return 0;
    }

    return ngx_min(op->u.rate.cost, NGX_COORD_LOG_COST)
           * (NGX_INT64_LEN + 2 * NGX_COORD_ENTRY_LEN + 3 * sizeof("$22rnrn"));
}


ngx_uint_t
ngx_coord_op_uses(ngx_coord_op_t *op, const char *command)
{
    ngx_uint_t                 i;
    const ngx_coord_script_t  *script;

    /*
     * Leases that could not be waited for would be half of them, and so would
     * logs without costs.
     */

    if (op->type == &ngx_coord_op_lease_acquire) {
        script = &ngx_coord_scripts[ngx_coord_op_lease_turn.script];

    } else if (op->type == &ngx_coord_op_log_take) {
        script = &ngx_coord_scripts[ngx_coord_op_log_many.script];

    } else {
        script = &ngx_coord_scripts[op->type->script];
    }

    for (i = 0; i < script->nparts; i++) {
        if (ngx_strstr(script->parts[i].text, command)) {
            return 1;
        }
    }

    return 0;
}


ngx_int_t
ngx_coord_op_prepare(ngx_coord_batch_t *batch)
{
    size_t      size, need;
    ngx_uint_t  i;

    size = 0;

    for (i = 0; i < batch->nops; i++) {
        need = NGX_COORD_SCRIPT_KEYS * ngx_coord_op_key_len(&batch->ops[i])
               + ngx_coord_op_lists(&batch->ops[i], NGX_COORD_OP_TOGETHER)
               + NGX_COORD_OP_WORDS;

        size = ngx_max(size, need);
    }

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

    return NGX_OK;
}


size_t
ngx_coord_op_bound(ngx_coord_op_t *op)
{
    size_t                     more, key;
    const ngx_coord_script_t  *script;

    script = ngx_coord_op_script(op);
    key = ngx_coord_op_key_len(op);

    more = op->zone->store->wake.len + op->record.len
           + ngx_coord_op_lists(op, 1);

    if (op->type->kind <= NGX_COORD_KIND_LOG) {
        more += op->zone->store->deny.len + key;
    }

    if (op->type->kind == NGX_COORD_KIND_SESSION) {
        more += op->u.session.value_len;
    }

    return ngx_coord_script_bound(script, key, more);
}


size_t
ngx_coord_op_along(ngx_coord_op_t *op)
{
    return ngx_coord_op_lists(op, 1);
}


u_char *
ngx_coord_op_words(void)
{
    return ngx_coord_scratch;
}


ngx_uint_t
ngx_coord_op_fits(ngx_coord_op_t *op, ngx_coord_resp_value_t **values)
{
    ngx_uint_t                 i;
    const ngx_coord_script_t  *script;

    static const u_char  kinds[] = {
        NGX_COORD_REPLY_STATUS,
        0,                                   /* an error */
        NGX_COORD_REPLY_INTEGER,
        NGX_COORD_REPLY_STRING,
        NGX_COORD_REPLY_NIL,
        NGX_COORD_REPLY_ARRAY
    };

    script = ngx_coord_op_script(op);

    for (i = 0; i < script->ncommands; i++) {
        if (!(kinds[values[i]->type] & script->replies[i])) {
            return 0;
        }
    }

    return 1;
}
