
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * What the operations on sessions and on users share.
 */


#ifndef _NGX_COORD_OP_SESSION_H_INCLUDED_
#define _NGX_COORD_OP_SESSION_H_INCLUDED_


#include "ngx_coord_op_arg.h"
#include "ngx_coord_op_set.h"


#define NGX_COORD_SESSION_HEAD     2
#define NGX_COORD_SESSION_BLOB                                                \
    (NGX_COORD_SESSION_HEAD + NGX_COORD_DIGEST_HEX_LEN                        \
     + NGX_COORD_SESSION_VALUE_LEN)

/* a life of more than ten years would overflow on the way */
#define NGX_COORD_SESSION_LIFE  (315360000 * NGX_COORD_NSEC_PER_SEC)


/* the life of a session in milliseconds, within its bounds */
int64_t ngx_coord_session_ttl(ngx_coord_op_t *op);

/* the session in memory; NULL: none, or expired */
ngx_coord_entry_t *ngx_coord_session_find(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);

/* the same, and reads it into op, with the value where op has a blob */
ngx_coord_entry_t *ngx_coord_session_load(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);

/* 1 if the session at an entry has been ended */
ngx_uint_t ngx_coord_session_is_ended(ngx_coord_table_t *table,
    ngx_coord_entry_t *entry);

/* op as it stands in memory, in NGX_COORD_SESSION_BLOB bytes; returns len */
size_t ngx_coord_session_pack(ngx_coord_op_t *op, u_char *buf);

/*
 * Writes what op holds to an entry, or where that is NULL to a new one;
 * NGX_ERROR: the zone is full.
 */
ngx_int_t ngx_coord_session_save(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_entry_t *entry, ngx_coord_nsec_t now);


/* an index outlives its sessions, so that none of them seems to be ended */
#define NGX_COORD_USER_SLACK  NGX_COORD_NSEC_PER_SEC

/*
 * The index of the user that op names, as an argument: users have keys of their
 * own, "us" in place of the "ss" of the zone.
 */
void ngx_coord_arg_user(ngx_coord_command_t *cmd, ngx_uint_t n,
    ngx_coord_op_t *op, const char *suffix);

/* the life of an index in milliseconds */
int64_t ngx_coord_user_ttl(ngx_coord_op_t *op);

/*
 * Finds the index of a user in memory and walks its slots; those of sessions
 * that have expired are freed.  NULL: there is none.
 */
ngx_coord_entry_t *ngx_coord_user_slots(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_slots_t *slots, ngx_coord_nsec_t now);


#endif /* _NGX_COORD_OP_SESSION_H_INCLUDED_ */
