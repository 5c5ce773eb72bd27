
/*
 * Copyright (C) ngx_coord_module contributors
 */


#define NGX_COORD_SCRIPT_TABLE  1

#include "ngx_coord_decimal.h"
#include "ngx_coord_script.h"


static ngx_inline u_char *ngx_coord_script_length(u_char *p, u_char type,
    size_t len);
static u_char *ngx_coord_script_part(u_char *p, ngx_uint_t part,
    const ngx_coord_arg_t *args);


u_char *
ngx_coord_script_encode(u_char *p, const ngx_coord_script_t *script,
    const ngx_coord_arg_t *args)
{
    ngx_uint_t                      i;
    const ngx_coord_arg_t          *arg;
    const ngx_coord_script_part_t  *part;

    part = script->parts;

    for (i = 0; i < script->nparts; i++) {

        p = ngx_cpymem(p, part[i].text, part[i].len);

        if (part[i].arg < 0) {
            continue;
        }

        if (part[i].arg > 0xff) {
            p = ngx_coord_script_part(p, part[i].arg, args);
            continue;
        }

        arg = &args[part[i].arg];

        if (arg->data == NULL) {
            p = ngx_coord_script_number(p, arg->number);

        } else {
            p = ngx_coord_script_string(p, arg->data, arg->len);
        }
    }

    return p;
}


/* the head of a command with a list, or the list */

static u_char *
ngx_coord_script_part(u_char *p, ngx_uint_t part, const ngx_coord_arg_t *args)
{
    const ngx_coord_arg_t  *arg;

    arg = &args[part & 0xff];

    if (part & NGX_COORD_SCRIPT_LIST(0)) {
        return ngx_cpymem(p, arg->data, arg->len);
    }

    return ngx_coord_script_length(p, '*', (part >> 8 & 0x1f) + arg->number);
}


static ngx_inline u_char *
ngx_coord_script_length(u_char *p, u_char type, size_t len)
{
    *p++ = type;

    p = ngx_coord_decimal(p, len);

    *p++ = CR;
    *p++ = LF;

    return p;
}


u_char *
ngx_coord_script_number(u_char *p, int64_t n)
{
    u_char    *start, digits[NGX_INT64_LEN];
    uint64_t   abs;

    /* the negation is that of an unsigned: INT64_MIN has no positive twin */
    abs = (n < 0) ? 0 - (uint64_t) n : (uint64_t) n;

    start = ngx_coord_digits(digits + NGX_INT64_LEN, abs);

    if (n < 0) {
        *--start = '-';
    }

    return ngx_coord_script_string(p, start, digits + NGX_INT64_LEN - start);
}


u_char *
ngx_coord_script_string(u_char *p, const u_char *data, size_t len)
{
    p = ngx_coord_script_length(p, '$', len);
    p = ngx_cpymem(p, data, len);

    *p++ = CR;
    *p++ = LF;

    return p;
}
