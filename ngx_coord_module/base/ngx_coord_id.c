
/*
 * Copyright (C) ngx_coord_module contributors
 */


#include "ngx_coord_id.h"

#include <openssl/rand.h>


/* what OpenSSL asks for a call is more than for the bytes of many ids */
#define NGX_COORD_ID_STOCK  32


/* of a process: the bytes of the ids to come are its last ones */
static u_char      ngx_coord_id_stock[NGX_COORD_ID_STOCK * NGX_COORD_ID_LEN];
static ngx_uint_t  ngx_coord_id_left;
static ngx_pid_t   ngx_coord_id_pid;


ngx_int_t
ngx_coord_id(u_char *id)
{
    u_char  *p;

    /* a process that was forked has the stock of its parent */

    if (ngx_coord_id_left == 0 || ngx_coord_id_pid != ngx_pid) {

        if (RAND_bytes(ngx_coord_id_stock, sizeof(ngx_coord_id_stock)) != 1) {
            return NGX_ERROR;
        }

        ngx_coord_id_left = NGX_COORD_ID_STOCK;
        ngx_coord_id_pid = ngx_pid;
    }

    p = ngx_coord_id_stock + --ngx_coord_id_left * NGX_COORD_ID_LEN;

    ngx_memcpy(id, p, NGX_COORD_ID_LEN);
    ngx_memzero(p, NGX_COORD_ID_LEN);

    return NGX_OK;
}
