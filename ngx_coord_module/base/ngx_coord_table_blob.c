
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Blobs: bytes of any number in the data cells of an entry.
 */


#include "ngx_coord_table.h"


ngx_int_t
ngx_coord_table_write(ngx_coord_table_t *table, ngx_coord_entry_t *entry,
    const u_char *src, size_t len, ngx_coord_nsec_t now)
{
    size_t             n, left;
    ngx_coord_data_t  *data, *last;

    if (len > (size_t) table->ncells * NGX_COORD_CELL_DATA) {

        /* nobody makes room for what never fits */

        ngx_coord_table_remove(table, entry);
        return NGX_ERROR;
    }

    entry->flags |= NGX_COORD_ENTRY_WRITING;
    entry->length = 0;

    ngx_coord_table_commit();

    last = NULL;
    data = ngx_coord_table_first(table, entry);
    left = len;

    while (left) {

        if (data == NULL) {
            data = ngx_coord_table_add(table, entry, last, now);

            if (data == NULL || len > 0x7fffffff) {
                ngx_coord_table_remove(table, entry);
                return NGX_ERROR;
            }
        }

        n = ngx_min(left, NGX_COORD_CELL_DATA);

        ngx_memcpy(data->data, src, n);

        src += n;
        left -= n;
        last = data;
        data = ngx_coord_table_next(table, data);
    }

    while (data) {
        data = ngx_coord_table_drop(table, entry, last);
    }

    entry->length = (uint32_t) len;

    ngx_coord_table_commit();

    entry->flags &= ~NGX_COORD_ENTRY_WRITING;

    return NGX_OK;
}


size_t
ngx_coord_table_read(ngx_coord_table_t *table, ngx_coord_entry_t *entry,
    u_char *dst, size_t offset, size_t len)
{
    size_t             n, done;
    ngx_coord_data_t  *data;

    if (offset >= entry->length) {
        return 0;
    }

    len = ngx_min(len, entry->length - offset);
    done = 0;

    for (data = ngx_coord_table_first(table, entry);
         data && done < len;
         data = ngx_coord_table_next(table, data))
    {
        if (offset >= NGX_COORD_CELL_DATA) {
            offset -= NGX_COORD_CELL_DATA;
            continue;
        }

        n = ngx_min(len - done, NGX_COORD_CELL_DATA - offset);

        ngx_memcpy(dst + done, (u_char *) data->data + offset, n);

        done += n;
        offset = 0;
    }

    return done;
}
