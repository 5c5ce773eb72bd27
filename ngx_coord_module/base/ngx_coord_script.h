
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The operations of lua-free-scripts/ as a C table.  The table itself,
 * ngx_coord_script_table.h, is generated from the files by
 * lua-free-scripts/generate.sh and checked in; "make lint" compares.
 */


#ifndef _NGX_COORD_SCRIPT_H_INCLUDED_
#define _NGX_COORD_SCRIPT_H_INCLUDED_


#include "ngx_coord.h"


/* what a reply may be */
#define NGX_COORD_REPLY_INTEGER  0x01
#define NGX_COORD_REPLY_STRING   0x02
#define NGX_COORD_REPLY_STATUS   0x04
#define NGX_COORD_REPLY_NIL      0x08
#define NGX_COORD_REPLY_ARRAY    0x10


/*
 * A script is a sequence of parts: RESP text that is sent as it is, followed
 * by one argument as a bulk string.  The last part has arg == -1: text only.
 * MULTI and EXEC are not among the parts: the client wraps what one request
 * asks for in one transaction.
 */

typedef struct {
    const char                *text;
    uint16_t                   len;
    int16_t                    arg;     /* index into the arguments, or -1,
                                         * or one of those below */
} ngx_coord_script_part_t;


/*
 * A command with a list of any length: its head, where n tokens stand beside
 * the list, and the list itself.
 */
#define NGX_COORD_SCRIPT_COUNT(n, arg)  (0x2000 | (n) << 8 | (arg))
#define NGX_COORD_SCRIPT_LIST(arg)      (0x4000 | (arg))


struct ngx_coord_script_s {
    ngx_str_t                  name;
    ngx_uint_t                 nargs;
    ngx_uint_t                 ncommands;
    ngx_uint_t                 bare;    /* 1: without MULTI */
    ngx_uint_t                 writes;  /* 0: it only reads, or tells */
    ngx_uint_t                 nkeys;
    ngx_uint_t                 nrefs;   /* how often keys are written */
    size_t                     bound;   /* of the rest, see below */
    const u_char              *replies; /* what each may be */
    ngx_uint_t                 nparts;
    const ngx_coord_script_part_t  *parts;
};


/*
 * One argument: a string, or, where data is NULL, the number in decimal; or a
 * list, data being its strings as they are sent and number how many they are.
 * Strings are not copied before ngx_coord_script_encode() runs.
 */

typedef struct {
    u_char                    *data;
    size_t                     len;
    int64_t                    number;
} ngx_coord_arg_t;


/*
 * An upper bound of the bytes that ngx_coord_script_encode() writes, without
 * looking at the arguments: key is that of the length of a key, and more the
 * length of strings above 100 bytes.
 */
#define ngx_coord_script_bound(s, key, more)                                  \
    ((s)->bound + (s)->nrefs * ((key) + 28) + (more))

#define ngx_coord_arg_str(a, d, l)   (a)->data = (d); (a)->len = (l)
#define ngx_coord_arg_num(a, n)      (a)->data = NULL; (a)->number = (n)
#define ngx_coord_arg_list(a, d, l, n)                                        \
    (a)->data = (d); (a)->len = (l); (a)->number = (n)


/*
 * Writes the commands of a script in RESP at p, which has room for
 * ngx_coord_script_bound() bytes, and returns the end.
 */
u_char *ngx_coord_script_encode(u_char *p, const ngx_coord_script_t *script,
    const ngx_coord_arg_t *args);


/* writes a string as an element of a list, at p; returns the end */
u_char *ngx_coord_script_string(u_char *p, const u_char *data, size_t len);

/* the same of a number */
u_char *ngx_coord_script_number(u_char *p, int64_t n);


/* defines the enum of scripts, the enums of arguments, ngx_coord_scripts[] */
#include "ngx_coord_script_table.h"


#endif /* _NGX_COORD_SCRIPT_H_INCLUDED_ */
