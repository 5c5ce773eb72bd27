
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Sliding logs in Redis: several places at once, each an entry of its own.
 */


#include "ngx_coord_op_log.h"
#include "ngx_coord_op_set.h"


static void ngx_coord_log_list(ngx_coord_command_t *cmd, ngx_uint_t n,
    ngx_coord_op_t *op, int64_t at);
static void ngx_coord_log_many_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_log_many_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static void ngx_coord_log_back_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);


static const ngx_coord_op_type_t  ngx_coord_op_log_back = {
    ngx_string("log_back"),
    NGX_COORD_OP_JOINS,
    NGX_COORD_KIND_LOG,
    NGX_COORD_SCRIPT_SLIDING_LOG_BACK,
    ngx_coord_log_back_build,
    ngx_coord_window_give_parse,
    NULL,
    ngx_coord_log_give_run,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL
};


const ngx_coord_op_type_t  ngx_coord_op_log_many = {
    ngx_string("log_many"),
    NGX_COORD_OP_TAKES|NGX_COORD_OP_JOINS|NGX_COORD_OP_FULL_BUSY,
    NGX_COORD_KIND_LOG,
    NGX_COORD_SCRIPT_SLIDING_LOG_MANY,
    ngx_coord_log_many_build,
    ngx_coord_log_many_parse,
    ngx_coord_window_take_known,
    ngx_coord_log_take_run,
    &ngx_coord_op_log_back,
    &ngx_coord_op_log_peek,
    &ngx_coord_op_log_forget,
    NULL,
    NULL
};


/* the ids of all places of op, each behind a time unless that is negative */

static void
ngx_coord_log_list(ngx_coord_command_t *cmd, ngx_uint_t n, ngx_coord_op_t *op,
    int64_t at)
{
    u_char      id[NGX_COORD_ID_LEN], text[NGX_COORD_ENTRY_LEN + 2], *p;
    ngx_str_t   src, dst;
    ngx_uint_t  i, count;

    count = ngx_min(op->u.rate.cost, NGX_COORD_LOG_COST);

    p = cmd->last;

    for (i = 0; i < count; i++) {
        ngx_coord_log_id(op, i, id);

        src.data = id;
        src.len = NGX_COORD_ID_LEN;
        dst.data = text;

        ngx_encode_base64url(&dst, &src);

        if (at >= 0) {
            p = ngx_coord_script_number(p, at);
        }

        p = ngx_coord_script_string(p, text, dst.len);
    }

    ngx_coord_arg_list(&cmd->args[n], cmd->last, p - cmd->last,
                       at >= 0 ? 2 * count : count);

    cmd->last = p;
}


static void
ngx_coord_log_many_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_arg_t     *a;
    ngx_coord_window_t   window;

    (void) ngx_coord_window_init(&window, &op->u.rate);

    a = cmd->args;

    ngx_coord_arg_key(cmd, NGX_COORD_SLIDING_LOG_MANY_K, op, "}");
    ngx_coord_arg_key(cmd, NGX_COORD_SLIDING_LOG_MANY_TMP, op, "}:tmp");
    ngx_coord_arg_num(&a[NGX_COORD_SLIDING_LOG_MANY_OLD],
                      (now - window.length) / NGX_COORD_NSEC_PER_USEC);
    ngx_coord_log_list(cmd, NGX_COORD_SLIDING_LOG_MANY_ENTRIES, op,
                       ngx_max(now, 0) / NGX_COORD_NSEC_PER_USEC);
    ngx_coord_log_list(cmd, NGX_COORD_SLIDING_LOG_MANY_IDS, op, -1);
    ngx_coord_arg_num(&a[NGX_COORD_SLIDING_LOG_MANY_LIMIT],
                      window.room + window.cost);
    ngx_coord_arg_num(&a[NGX_COORD_SLIDING_LOG_MANY_RANK], -window.room - 1);
    ngx_coord_arg_num(&a[NGX_COORD_SLIDING_LOG_MANY_WINDOW],
                      ngx_coord_ttl(window.length));
}


static ngx_int_t
ngx_coord_log_many_parse(ngx_coord_op_t *op, ngx_coord_resp_value_t **values,
    ngx_coord_nsec_t now)
{
    int64_t                  used;
    ngx_int_t                rc;
    ngx_coord_nsec_t         last;
    ngx_coord_window_t       window;
    ngx_coord_resp_value_t  *v;

    rc = ngx_coord_set_parse(ngx_coord_reply(SLIDING_LOG_MANY, GRANTED),
                             ngx_coord_reply(SLIDING_LOG_MANY, REFUSED));
    used = ngx_coord_reply(SLIDING_LOG_MANY, USED)->integer;

    if (rc == NGX_ERROR || used < 0) {
        return NGX_ERROR;
    }

    v = ngx_coord_reply(SLIDING_LOG_MANY, LAST);

    last = now;

    if (v->integer == 2
        && ngx_coord_time_parse(ngx_coord_resp_element(v, 1), &last) != NGX_OK)
    {
        return NGX_ERROR;
    }

    (void) ngx_coord_window_init(&window, &op->u.rate);

    op->u.rate.mark = now;

    return ngx_coord_log_answer(&window, &op->u.rate, rc, used, last, now,
                                now);
}


static void
ngx_coord_log_back_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_arg_key(cmd, NGX_COORD_SLIDING_LOG_BACK_K, op, "}");
    ngx_coord_log_list(cmd, NGX_COORD_SLIDING_LOG_BACK_IDS, op, -1);
}
