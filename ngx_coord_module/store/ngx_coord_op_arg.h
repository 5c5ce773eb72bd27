
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * For the files of operations: arguments of scripts, replies, and entries in
 * memory.
 */


#ifndef _NGX_COORD_OP_ARG_H_INCLUDED_
#define _NGX_COORD_OP_ARG_H_INCLUDED_


#include "ngx_coord_store.h"
#include "ngx_coord_resp.h"
#include "ngx_coord_script.h"


#define NGX_COORD_OP_ARGS      12

/* added to the life of keys: as far may the clocks of workers be apart */
#define NGX_COORD_OP_SLACK     1000

/* the id of an entry of a lease set or a log in Redis: 16 bytes in base64url */
#define NGX_COORD_ENTRY_LEN    22


/* an addition to the number at 0 of a BITFIELD, and with what is added */

#define NGX_COORD_OP_STEP(type)                                               \
    "$6" CRLF "INCRBY" CRLF "$3" CRLF type CRLF "$1" CRLF "0" CRLF

#define NGX_COORD_OP_STEP_LEN                                                 \
    (sizeof(NGX_COORD_OP_STEP("u63") "$20" CRLF CRLF) - 1 + NGX_INT64_LEN)

#define NGX_COORD_OP_STEP_WORDS  4

/* a number and an id in a list */
#define NGX_COORD_OP_ASKER_LEN                                                \
    (NGX_INT64_LEN + NGX_COORD_ENTRY_LEN + 2 * (sizeof("$20" CRLF CRLF) - 1))


/* for parse(): the reply that the header of a script gives a name */
#define ngx_coord_reply(script, name)                                         \
    values[NGX_COORD_##script##_##name##_REPLY]


/* an operation on its way to be encoded */
struct ngx_coord_command_s {
    ngx_uint_t                 script;
    u_char                    *last;      /* of the scratch memory */
    ngx_coord_arg_t            args[NGX_COORD_OP_ARGS];
};


/*
 * The key of op with what follows it, and the id of op, as arguments in the
 * scratch memory.  redis-cli shows an id in hex, or, where it is a member of a
 * large set and its length counts, in base64url.
 */
void ngx_coord_arg_key(ngx_coord_command_t *cmd, ngx_uint_t n,
    ngx_coord_op_t *op, const char *suffix);
void ngx_coord_arg_id(ngx_coord_command_t *cmd, ngx_uint_t n,
    ngx_coord_op_t *op);
void ngx_coord_arg_entry(ngx_coord_command_t *cmd, ngx_uint_t n,
    ngx_coord_op_t *op);

/*
 * Two lists, for the scripts of lease_acquire's steps: of those that travel as
 * one the ids as members of a set, each behind -1, -2, .., and again, each
 * behind the score that it shall have.  Tells all of them how many they are, in
 * op->behind.
 */
void ngx_coord_arg_askers(ngx_coord_command_t *cmd, ngx_uint_t asks,
    ngx_uint_t entries, ngx_coord_op_t *op, int64_t score);

/* the channel on which waiters of all nodes listen */
void ngx_coord_arg_wake(ngx_coord_command_t *cmd, ngx_uint_t n,
    ngx_coord_op_t *op);

/*
 * Writes an addition at p, which has room for NGX_COORD_OP_STEP_LEN; type is a
 * literal.  Gives the end.
 */
#define ngx_coord_arg_step(p, type, n)                                        \
    ngx_coord_script_number(ngx_cpymem(p, NGX_COORD_OP_STEP(type),            \
                                       sizeof(NGX_COORD_OP_STEP(type)) - 1), n)

/* the key of a window of a sliding window counter */
void ngx_coord_arg_window(ngx_coord_command_t *cmd, ngx_uint_t n,
    ngx_coord_op_t *op, int64_t index);

/* the life of a key, in milliseconds, that is of use for so long */
int64_t ngx_coord_ttl(ngx_coord_nsec_t ns);


/* the same() of a take of a rate */
ngx_uint_t ngx_coord_take_same(const ngx_coord_op_t *a,
    const ngx_coord_op_t *b);

/* of one whose first reply is how many were removed: NGX_OK or NGX_DECLINED */
ngx_int_t ngx_coord_removed_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);

/* the parse of what has nothing to tell: whatever it was, it is done */
ngx_int_t ngx_coord_give_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);

/* the parse of [1], a score: NGX_OK, or NGX_BUSY where there is none */
ngx_int_t ngx_coord_score_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);

/*
 * A score that is a time in microseconds, in nanoseconds.  NGX_DECLINED: there
 * is none; NGX_ERROR: it is no time.
 */
ngx_int_t ngx_coord_time_parse(ngx_coord_resp_value_t *value,
    ngx_coord_nsec_t *time);

/* the functions of a forget of one key; NGX_BUSY: there was nothing */
void ngx_coord_forget_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now);
ngx_int_t ngx_coord_forget_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
ngx_int_t ngx_coord_forget_run(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now);

/* the known() of a take of any window: it never fits, or is refused */
ngx_int_t ngx_coord_window_take_known(ngx_coord_op_t *op,
    ngx_coord_nsec_t now);

/*
 * A forget of a window algorithm, which is told to all nodes; its build may be
 * followed by other keys in B and C.
 */
void ngx_coord_window_forget_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
ngx_int_t ngx_coord_window_forget_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);

/* the parse of what gives places of a window back: refusals may be over */
ngx_int_t ngx_coord_window_give_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);


/* the entry of the kind and the key of op; NULL: none, or expired */
ngx_coord_entry_t *ngx_coord_entry_find(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);

/* a new one, flags as NGX_COORD_ENTRY_EVICT; NULL: the zone is full */
ngx_coord_entry_t *ngx_coord_entry_insert(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_uint_t flags, uint64_t *payload,
    ngx_coord_nsec_t expires, ngx_coord_nsec_t now);


#endif /* _NGX_COORD_OP_ARG_H_INCLUDED_ */
