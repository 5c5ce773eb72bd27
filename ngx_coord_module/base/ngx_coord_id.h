
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Random ids: of leases, claims, sessions and entries of a log.
 */


#ifndef _NGX_COORD_ID_H_INCLUDED_
#define _NGX_COORD_ID_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>


#define NGX_COORD_ID_LEN  16                  /* bytes */


/* fills id with NGX_COORD_ID_LEN random bytes; NGX_ERROR: OpenSSL failed */
ngx_int_t ngx_coord_id(u_char *id);


#endif /* _NGX_COORD_ID_H_INCLUDED_ */
