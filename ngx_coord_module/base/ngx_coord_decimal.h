
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Numbers as text where it is written for each request: what ngx_sprintf()
 * does, without reading a format.
 */


#ifndef _NGX_COORD_DECIMAL_H_INCLUDED_
#define _NGX_COORD_DECIMAL_H_INCLUDED_


#include "ngx_coord.h"


/* a literal, at p; gives the end */
#define ngx_coord_literal(p, text)  ngx_cpymem(p, text, sizeof(text) - 1)


/* two digits for each number below 100 */
extern const u_char  ngx_coord_pairs[];


/*
 * Writes the digits of n, at most NGX_INT64_LEN, so that they end at end;
 * returns their start.
 */

static ngx_inline u_char *
ngx_coord_digits(u_char *end, uint64_t n)
{
    const u_char  *pair;

    while (n >= 100) {
        pair = &ngx_coord_pairs[2 * (n % 100)];
        n /= 100;

        *--end = pair[1];
        *--end = pair[0];
    }

    pair = &ngx_coord_pairs[2 * n];

    *--end = pair[1];

    if (n >= 10) {
        *--end = pair[0];
    }

    return end;
}


/* writes n at p, at most NGX_INT64_LEN bytes, and returns the end */
u_char *ngx_coord_decimal(u_char *p, uint64_t n);


#endif /* _NGX_COORD_DECIMAL_H_INCLUDED_ */
