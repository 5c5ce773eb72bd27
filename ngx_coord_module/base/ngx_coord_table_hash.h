
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * For the files of the table: where a key stands.
 */


#ifndef _NGX_COORD_TABLE_HASH_H_INCLUDED_
#define _NGX_COORD_TABLE_HASH_H_INCLUDED_


#include "ngx_coord_table.h"


/*
 * The hash of a tag and a key, by the seed of the table.  The last ones are
 * kept: a key is inserted after it was looked for, and one that is hot comes
 * again and again.
 */
uint32_t ngx_coord_table_hash(ngx_coord_table_t *table, ngx_uint_t tag,
    const u_char *key, size_t len);


#endif /* _NGX_COORD_TABLE_HASH_H_INCLUDED_ */
