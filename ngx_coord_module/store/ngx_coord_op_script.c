
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


static const ngx_coord_op_type_t *ngx_coord_op_type(ngx_coord_op_t *op);
static size_t ngx_coord_op_key_len(ngx_coord_op_t *op);
static size_t ngx_coord_op_lists(ngx_coord_op_t *op, ngx_uint_t together);


/* of this worker: the keys and words of the operation being encoded */
static u_char  *ngx_coord_scratch;
static size_t   ngx_coord_scratch_size;


static const ngx_coord_op_type_t *
ngx_coord_op_type(ngx_coord_op_t *op)
{
    return (op->zone->wake && op->type->wake) ? op->type->wake : op->type;
}


ngx_int_t
ngx_coord_op_known(ngx_coord_op_t *op, ngx_coord_nsec_t now)
{
    return op->type->known ? op->type->known(op, now) : NGX_AGAIN;
}


const ngx_coord_script_t *
ngx_coord_op_script(ngx_coord_op_t *op)
{
    return &ngx_coord_scripts[ngx_coord_op_type(op)->script];
}


/* of any key that an operation may write, at most */

static size_t
ngx_coord_op_key_len(ngx_coord_op_t *op)
{
    return op->zone->key_head.len + NGX_COORD_KEY_LEN + NGX_COORD_OP_SUFFIX;
}


/*
 * Of the lists of an operation, at most: a time and two ids for each place of a
 * log, and two steps for each of so many who take together.
 */

static size_t
ngx_coord_op_lists(ngx_coord_op_t *op, ngx_uint_t together)
{
    if (op->type->kind == NGX_COORD_KIND_BUCKET
        || op->type->kind == NGX_COORD_KIND_WINDOW)
    {
        return together * 2 * NGX_COORD_OP_STEP_LEN;
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

    /* leases that could not be waited for would be half of them */

    script = &ngx_coord_scripts[op->type == &ngx_coord_op_lease_acquire
                                ? ngx_coord_op_lease_turn.script
                                : op->type->script];

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
    size_t      len, lists, size;
    ngx_uint_t  i;

    len = 0;
    lists = 0;

    for (i = 0; i < batch->nops; i++) {
        len = ngx_max(len, ngx_coord_op_key_len(&batch->ops[i]));
        lists = ngx_max(lists, ngx_coord_op_lists(&batch->ops[i],
                                                  NGX_COORD_OP_TOGETHER));
    }

    size = NGX_COORD_SCRIPT_KEYS * len + NGX_COORD_OP_WORDS + lists;

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
    size_t  more;

    more = op->zone->store->wake.len + op->record.len
           + ngx_coord_op_lists(op, op->u.rate.behind + 1);

    if (op->type->kind <= NGX_COORD_KIND_LOG) {
        more += op->zone->store->deny.len + ngx_coord_op_key_len(op);
    }

    if (op->type->kind == NGX_COORD_KIND_SESSION) {
        more += op->u.session.value_len;
    }

    return ngx_coord_script_bound(ngx_coord_op_script(op),
                                  ngx_coord_op_key_len(op), more);
}


u_char *
ngx_coord_op_encode(u_char *p, ngx_coord_op_t *op, ngx_coord_nsec_t now)
{
    ngx_coord_command_t         cmd;
    const ngx_coord_op_type_t  *type;

    type = ngx_coord_op_type(op);

    cmd.last = ngx_coord_scratch;

    type->build(&cmd, op, now);

    return ngx_coord_script_encode(p, &ngx_coord_scripts[type->script],
                                   cmd.args);
}


ngx_int_t
ngx_coord_op_parse(ngx_coord_op_t *op, ngx_coord_resp_value_t **values,
    ngx_coord_nsec_t now)
{
    ngx_uint_t     i;
    const u_char  *replies;

    static const u_char  kinds[] = {
        NGX_COORD_REPLY_STATUS,
        0,                                   /* an error */
        NGX_COORD_REPLY_INTEGER,
        NGX_COORD_REPLY_STRING,
        NGX_COORD_REPLY_NIL,
        NGX_COORD_REPLY_ARRAY
    };

    replies = ngx_coord_op_script(op)->replies;

    for (i = 0; i < ngx_coord_op_ncommands(op); i++) {
        if (!(kinds[values[i]->type] & replies[i])) {
            return NGX_ERROR;
        }
    }

    return op->type->parse(op, values, now);
}
