
/*
 * Copyright (C) ngx_coord_module contributors
 */


#include "ngx_coord_table_hash.h"


/* hashes that a process keeps, a power of two */
#define NGX_COORD_TABLE_KEPT  16

#define ngx_coord_rotl(v, n)  ((v) << (n) | (v) >> (64 - (n)))


typedef struct {
    uint64_t                   seed[2];
    ngx_uint_t                 tag;
    size_t                     len;      /* 0: there is none */
    u_char                     key[NGX_COORD_KEY_LEN];
    uint32_t                   hash;
} ngx_coord_table_kept_t;


static uint32_t ngx_coord_table_sip(ngx_coord_table_t *table,
    ngx_uint_t tag, const u_char *key, size_t len);
static ngx_inline void ngx_coord_sip_round(uint64_t *v);


static ngx_coord_table_kept_t  ngx_coord_table_kept[NGX_COORD_TABLE_KEPT];


uint32_t
ngx_coord_table_hash(ngx_coord_table_t *table, ngx_uint_t tag,
    const u_char *key, size_t len)
{
    ngx_coord_table_kept_t  *kept;

    if (len == 0 || len > NGX_COORD_KEY_LEN) {
        return ngx_coord_table_sip(table, tag, key, len);
    }

    kept = &ngx_coord_table_kept[(tag ^ key[0] ^ key[len - 1])
                                 & (NGX_COORD_TABLE_KEPT - 1)];

    if (kept->len != len
        || kept->tag != tag
        || kept->seed[0] != table->seed[0]
        || kept->seed[1] != table->seed[1]
        || ngx_memcmp(kept->key, key, len) != 0)
    {
        kept->seed[0] = table->seed[0];
        kept->seed[1] = table->seed[1];
        kept->tag = tag;
        kept->len = len;
        ngx_memcpy(kept->key, key, len);

        kept->hash = ngx_coord_table_sip(table, tag, key, len);
    }

    return kept->hash;
}


/*
 * SipHash-1-3: clients choose the keys and must not be able to choose the
 * bucket.
 */

static uint32_t
ngx_coord_table_sip(ngx_coord_table_t *table, ngx_uint_t tag,
    const u_char *key, size_t len)
{
    size_t    n;
    uint64_t  v[4], word;

    v[0] = table->seed[0] ^ 0x736f6d6570736575ULL;
    v[1] = table->seed[1] ^ 0x646f72616e646f6dULL;
    v[2] = table->seed[0] ^ 0x6c7967656e657261ULL;
    v[3] = table->seed[1] ^ 0x7465646279746573ULL;

    n = len;

    while (n >= 8) {
        ngx_memcpy(&word, key, 8);

        v[3] ^= word;
        ngx_coord_sip_round(v);
        v[0] ^= word;

        key += 8;
        n -= 8;
    }

    word = 0;
    ngx_memcpy(&word, key, n);
    word ^= (uint64_t) len << 56 ^ (uint64_t) tag << 48;

    v[3] ^= word;
    ngx_coord_sip_round(v);
    v[0] ^= word;

    v[2] ^= 0xff;
    ngx_coord_sip_round(v);
    ngx_coord_sip_round(v);
    ngx_coord_sip_round(v);

    word = v[0] ^ v[1] ^ v[2] ^ v[3];

    return (uint32_t) (word ^ word >> 32);
}


static ngx_inline void
ngx_coord_sip_round(uint64_t *v)
{
    v[0] += v[1];
    v[2] += v[3];
    v[1] = ngx_coord_rotl(v[1], 13) ^ v[0];
    v[3] = ngx_coord_rotl(v[3], 16) ^ v[2];
    v[0] = ngx_coord_rotl(v[0], 32);

    v[2] += v[1];
    v[0] += v[3];
    v[1] = ngx_coord_rotl(v[1], 17) ^ v[2];
    v[3] = ngx_coord_rotl(v[3], 21) ^ v[0];
    v[2] = ngx_coord_rotl(v[2], 32);
}
