
/*
 * Copyright (C) ngx_coord_module contributors
 */


#include "ngx_coord_op_arg.h"
#include "ngx_coord_op_script.h"


/* what follows a key: "}:tmp", or "}:" and the index of a window */
#define NGX_COORD_OP_SUFFIX  (2 + NGX_INT64_LEN)

#define NGX_COORD_OP_KEYS  4
#define NGX_COORD_OP_WORDS                                                    \
    (2 * NGX_COORD_ID_LEN + 4 * NGX_COORD_FINGERPRINT_LEN + 16)


static const ngx_coord_op_type_t *ngx_coord_op_type(ngx_coord_op_t *op);
static void ngx_coord_op_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now);


/* of this worker: the keys and words of the operation being encoded */
static u_char               *ngx_coord_scratch;
static size_t                ngx_coord_scratch_size;

/* the arguments that stand there, and whose they are */
static ngx_coord_command_t   ngx_coord_built;
static ngx_coord_op_t       *ngx_coord_built_op;


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


ngx_uint_t
ngx_coord_op_ncommands(ngx_coord_op_t *op)
{
    return ngx_coord_scripts[ngx_coord_op_type(op)->script].ncommands;
}


ngx_int_t
ngx_coord_op_prepare(ngx_coord_batch_t *batch, ngx_coord_op_t *op,
    ngx_str_t *key)
{
    size_t               len, size;
    ngx_uint_t           i;
    ngx_coord_command_t  cmd;

    len = 0;

    for (i = 0; i < batch->nops; i++) {
        len = ngx_max(len, batch->ops[i].zone->key_head.len);
    }

    size = NGX_COORD_OP_KEYS
           * (len + NGX_COORD_KEY_LEN + NGX_COORD_OP_SUFFIX)
           + NGX_COORD_OP_WORDS;

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
ngx_coord_op_size(ngx_coord_op_t *op, ngx_coord_nsec_t now)
{
    ngx_coord_command_t  *cmd;

    cmd = &ngx_coord_built;

    ngx_coord_op_build(cmd, op, now);
    ngx_coord_built_op = op;

    return ngx_coord_script_size(&ngx_coord_scripts[cmd->script], cmd->args);
}


u_char *
ngx_coord_op_encode(u_char *p, ngx_coord_op_t *op, ngx_coord_nsec_t now)
{
    ngx_coord_command_t  *cmd;

    cmd = &ngx_coord_built;

    /* where a batch has one operation size() has just built it */

    if (ngx_coord_built_op != op) {
        ngx_coord_op_build(cmd, op, now);
    }

    ngx_coord_built_op = NULL;

    return ngx_coord_script_encode(p, &ngx_coord_scripts[cmd->script],
                                   cmd->args);
}


ngx_int_t
ngx_coord_op_parse(ngx_coord_op_t *op, ngx_coord_resp_value_t **values,
    ngx_coord_nsec_t now)
{
    return op->type->parse(op, values, now);
}


static void
ngx_coord_op_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    const ngx_coord_op_type_t  *type;

    type = ngx_coord_op_type(op);

    cmd->script = type->script;
    cmd->last = ngx_coord_scratch;

    type->build(cmd, op, now);
}
