
/*
 * Copyright (C) ngx_coord_module contributors
 */


#include "ngx_coord_id.h"

#include <openssl/rand.h>


ngx_int_t
ngx_coord_id(u_char *id)
{
    return RAND_bytes(id, NGX_COORD_ID_LEN) == 1 ? NGX_OK : NGX_ERROR;
}
