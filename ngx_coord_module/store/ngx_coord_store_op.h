
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * One operation of the store as a script of lua-free-scripts/ and back.
 */


#ifndef _NGX_COORD_STORE_OP_H_INCLUDED_
#define _NGX_COORD_STORE_OP_H_INCLUDED_


#include "ngx_coord_store.h"
#include "ngx_coord_script.h"


/* the replies of one operation, at most */
#define NGX_COORD_STORE_OP_VALUES  20

#define NGX_COORD_STORE_OP_ARGS  12

/* added to the life of keys: as far may the clocks of workers be apart */
#define NGX_COORD_STORE_OP_SLACK  1000


/* an operation on its way to be encoded */
typedef struct {
    ngx_uint_t                 script;
    u_char                    *last;      /* of the scratch memory */
    ngx_coord_arg_t            args[NGX_COORD_STORE_OP_ARGS];
} ngx_coord_command_t;


/* build: fills the arguments; parse: as ngx_coord_store_op_parse() */
typedef struct {
    ngx_uint_t                 script;
    void                     (*build)(ngx_coord_command_t *cmd,
                                      ngx_coord_op_t *op,
                                      ngx_coord_nsec_t now);
    ngx_int_t                (*parse)(ngx_coord_op_t *op,
                                      ngx_coord_resp_value_t **values,
                                      ngx_coord_nsec_t now);
} ngx_coord_store_op_t;


/* from LEASE_TURN to LOCK_TOKEN; in ngx_coord_store_op_wait.c */
extern const ngx_coord_store_op_t  ngx_coord_wait_ops[];

/* LEASE_RELEASE in a zone that is waited for */
extern const ngx_coord_store_op_t  ngx_coord_release_wake_op;

/* from SESSION_GET to USER_REVOKE; in ngx_coord_store_op_session.c */
extern const ngx_coord_store_op_t  ngx_coord_session_ops[];

/* from CLAIM to CLAIM_DISCARD; in ngx_coord_store_op_claim.c */
extern const ngx_coord_store_op_t  ngx_coord_claim_ops[];

/* from BUCKET_PEEK to FORGET; in ngx_coord_store_op_peek.c */
extern const ngx_coord_store_op_t  ngx_coord_peek_ops[];


/*
 * The result of an operation that needs no asking, NGX_OK or NGX_BUSY: its
 * cost never fits, or there is nothing left to give back.  NGX_AGAIN: ask.
 */
ngx_int_t ngx_coord_store_op_known(ngx_coord_op_t *op, ngx_coord_nsec_t now);

/* the commands, and so the replies, of an operation */
ngx_uint_t ngx_coord_store_op_ncommands(ngx_coord_op_t *op);

/*
 * 1: its replies are few and short, so that the transaction may be shared
 * with other requests; not so the list of a user, or a stored response.
 */
ngx_uint_t ngx_coord_store_op_joins(ngx_coord_op_t *op);

/*
 * Makes room for what the encoding of the operations of a batch needs, and
 * stores a Redis key of op in *key, valid until the next encoding.
 * NGX_ERROR: no memory.
 */
ngx_int_t ngx_coord_store_op_prepare(ngx_coord_batch_t *batch,
    ngx_coord_op_t *op, ngx_str_t *key);

/* as size() and encode() of a call, now on the clock of the server */
size_t ngx_coord_store_op_size(ngx_coord_op_t *op, ngx_coord_nsec_t now);
u_char *ngx_coord_store_op_encode(u_char *p, ngx_coord_op_t *op,
    ngx_coord_nsec_t now);

/*
 * Reads the replies of an operation that was encoded at now; none of them is
 * an error reply.  Fills the answer and returns NGX_OK or NGX_BUSY, or
 * NGX_ERROR: this is not what the script answers.
 */
ngx_int_t ngx_coord_store_op_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);


/* the id of an entry of a lease set or a log in Redis: 16 bytes in base64url */
#define NGX_COORD_ENTRY_LEN  22

/*
 * For builders: the key of op with what follows it, and the id of op, as
 * arguments in the scratch memory.  redis-cli shows an id in hex, or, where
 * it is a member of a large set and its length counts, in base64url.
 */
void ngx_coord_arg_key(ngx_coord_command_t *cmd, ngx_uint_t n,
    ngx_coord_op_t *op, const char *suffix);
void ngx_coord_arg_id(ngx_coord_command_t *cmd, ngx_uint_t n,
    ngx_coord_op_t *op);
void ngx_coord_arg_entry(ngx_coord_command_t *cmd, ngx_uint_t n,
    ngx_coord_op_t *op);

/* the key of a window of a sliding window counter */
void ngx_coord_arg_window(ngx_coord_command_t *cmd, ngx_uint_t n,
    ngx_coord_op_t *op, int64_t index);

/* the length of a lease, and the life of its key in milliseconds */
ngx_coord_nsec_t ngx_coord_lease_span(ngx_coord_op_t *op);
int64_t ngx_coord_ttl(ngx_coord_op_t *op, ngx_coord_nsec_t ns);


/*
 * The readers of each kind of replies, to the same contract; in
 * ngx_coord_store_reply.c.
 */
ngx_int_t ngx_coord_count_parse(ngx_coord_resp_value_t *value, int64_t *n);
ngx_int_t ngx_coord_give_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
ngx_int_t ngx_coord_bucket_take_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
ngx_int_t ngx_coord_window_take_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
ngx_int_t ngx_coord_sliding_take_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
ngx_int_t ngx_coord_log_take_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
ngx_int_t ngx_coord_lease_acquire_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
ngx_int_t ngx_coord_lease_renew_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);


#endif /* _NGX_COORD_STORE_OP_H_INCLUDED_ */
