
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The decoder of records, fed with anything: "make fuzz" (clang).  The sum is
 * made right first, or nothing would get past it; what is accepted has to be
 * a response, and has to come out of the encoder as it went in.
 */


#include "ngx_coord_record.h"

#include <stdint.h>
#include <stdlib.h>


static void
check(ngx_coord_record_t *record, ngx_str_t *blob)
{
    u_char        *copy;
    ngx_int_t      rc;
    ngx_buf_t      b;
    ngx_str_t      left;
    ngx_uint_t     n;
    ngx_chain_t    cl;
    ngx_keyval_t   fields[NGX_COORD_RECORD_FIELDS + 1];

    n = 0;
    left = record->fields;

    for ( ;; ) {
        rc = ngx_coord_record_next(&left, &fields[n]);

        if (rc != NGX_OK) {
            break;
        }

        if (!ngx_coord_record_field(&fields[n].key, &fields[n].value)) {
            abort();
        }

        n++;
    }

    if (rc != NGX_DONE || n != record->nfields
        || record->status < 200 || record->status > 599
        || ngx_coord_record_size(record, fields) != blob->len)
    {
        abort();
    }

    ngx_memzero(&b, sizeof(ngx_buf_t));

    b.start = record->body;
    b.last = record->body + record->body_len;

    cl.buf = &b;
    cl.next = NULL;

    copy = malloc(blob->len);

    if (copy == NULL
        || ngx_coord_record_encode(copy, record, fields, &cl) != NGX_OK)
    {
        abort();
    }

    /* flags that mean nothing are not kept */

    if (blob->data[16] < 4 && memcmp(copy, blob->data, blob->len) != 0) {
        abort();
    }

    free(copy);
}


int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    u_char              sum[NGX_COORD_DIGEST_LEN];
    size_t              n;
    ngx_str_t           blob, key;
    ngx_coord_record_t  record;

    blob.len = size;
    blob.data = malloc(size ? size : 1);

    if (blob.data == NULL) {
        return 0;
    }

    memcpy(blob.data, data, size);

    key.data = (u_char *) "";
    key.len = 0;

    if (size >= 68) {
        key.data = blob.data + 68;
        key.len = ngx_min((size_t) blob.data[17], size - 68);

        /* lengths that fit are hard to guess */

        n = blob.data[17] + blob.data[20] + blob.data[21]
            + (blob.data[22] << 8) + blob.data[23] + (blob.data[30] << 8)
            + blob.data[31];

        blob.data[28] = 0;
        blob.data[29] = 0;
        blob.data[12] = size >> 24;
        blob.data[13] = size >> 16;
        blob.data[14] = size >> 8;
        blob.data[15] = size;

        if (n <= size - 68) {
            n = size - 68 - n;
            blob.data[32] = n >> 24;
            blob.data[33] = n >> 16;
            blob.data[34] = n >> 8;
            blob.data[35] = n;
        }

        (void) ngx_coord_digest_init();
        (void) ngx_coord_digest_update(blob.data + 12, size - 12);
        (void) ngx_coord_digest_final(sum);

        memcpy(blob.data, "crd\1", 4);
        memcpy(blob.data + 4, sum, 8);
    }

    if (ngx_coord_record_decode(&record, &blob, &key) == NGX_OK) {
        check(&record, &blob);
    }

    free(blob.data);

    return 0;
}
