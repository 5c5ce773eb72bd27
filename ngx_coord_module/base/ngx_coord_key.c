
/*
 * Copyright (C) ngx_coord_module contributors
 */


#include "ngx_coord_key.h"

#include <openssl/evp.h>


/* bytes of a digest that stand in a key, and in a log line */
#define NGX_COORD_KEY_DIGEST_BYTES  16
#define NGX_COORD_KEY_TAG_BYTES     4

/* keys whose encoding a worker keeps, a power of two, and their length */
#define NGX_COORD_KEY_KEPT          256
#define NGX_COORD_KEY_KEPT_LEN      16


typedef struct {
    size_t                     len;      /* 0: there is none */
    u_char                     key[NGX_COORD_KEY_KEPT_LEN];
    u_char                     encoded[NGX_COORD_DIGEST_HEX_LEN];
} ngx_coord_key_kept_t;


static ngx_int_t ngx_coord_digest_create(void);
static ngx_inline ngx_uint_t ngx_coord_key_place(const ngx_str_t *key);
static ngx_inline ngx_uint_t ngx_coord_key_is_kept(
    const ngx_coord_key_kept_t *kept, const ngx_str_t *key);
static ngx_uint_t ngx_coord_key_is_plain(const ngx_str_t *key);
static ngx_int_t ngx_coord_key_sha256(u_char *digest, const ngx_str_t *key);


/* one computation at a time in a process, so one context is enough */
static EVP_MD_CTX    *ngx_coord_digest_ctx;
static const EVP_MD  *ngx_coord_digest_md;

/* short ones come again: addresses are keys of limits */
static ngx_coord_key_kept_t  ngx_coord_key_kept[NGX_COORD_KEY_KEPT];


/* [A-Za-z0-9._@:/-], a bit per character */

static const uint32_t  ngx_coord_key_plain[] = {
    0x00000000, /* control characters */

                /* ?>=< ;:98 7654 3210  /.-, +*)( '&%$ #"!  */
    0x07ffe000, /* 0000 0111 1111 1111  1110 0000 0000 0000 */

                /* _^]\ [ZYX WVUT SRQP  ONML KJIH GFED CBA@ */
    0x87ffffff, /* 1000 0111 1111 1111  1111 1111 1111 1111 */

                /*  ~}| {zyx wvut srqp  onml kjih gfed cba` */
    0x07fffffe, /* 0000 0111 1111 1111  1111 1111 1111 1110 */

    0x00000000,
    0x00000000,
    0x00000000,
    0x00000000
};


/* what a hex digit stands for, and 16; 0: it is none */

static const u_char  ngx_coord_key_hex[] = {
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,

    16, 17, 18, 19, 20, 21, 22, 23,                 /* 0 to 7 */
    24, 25, 0, 0, 0, 0, 0, 0,                       /* 8, 9 */

    0, 26, 27, 28, 29, 30, 31, 0,                   /* A to F */
    0, 0, 0, 0, 0, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,

    0, 26, 27, 28, 29, 30, 31, 0                    /* a to f */
};

#define ngx_coord_nibble(ch)                                                  \
    ((ch) < sizeof(ngx_coord_key_hex) ? ngx_coord_key_hex[ch] : 0)


ngx_int_t
ngx_coord_digest_init(void)
{
    if (ngx_coord_digest_ctx == NULL && ngx_coord_digest_create() != NGX_OK) {
        return NGX_ERROR;
    }

    if (EVP_DigestInit_ex(ngx_coord_digest_ctx, ngx_coord_digest_md, NULL)
        != 1)
    {
        return NGX_ERROR;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_coord_digest_create(void)
{
    EVP_MD_CTX    *ctx;
    const EVP_MD  *md;

    /* EVP_sha256() in OpenSSL 3 would be looked up at each computation */

#if (OPENSSL_VERSION_NUMBER >= 0x30000000L)
    md = EVP_MD_fetch(NULL, "SHA256", NULL);
#else
    md = EVP_sha256();
#endif

    if (md == NULL) {
        return NGX_ERROR;
    }

    ctx = EVP_MD_CTX_new();

    if (ctx == NULL) {
#if (OPENSSL_VERSION_NUMBER >= 0x30000000L)
        EVP_MD_free((EVP_MD *) md);
#endif
        return NGX_ERROR;
    }

    ngx_coord_digest_ctx = ctx;
    ngx_coord_digest_md = md;

    return NGX_OK;
}


ngx_int_t
ngx_coord_digest_update(const void *data, size_t len)
{
    if (EVP_DigestUpdate(ngx_coord_digest_ctx, data, len) != 1) {
        return NGX_ERROR;
    }

    return NGX_OK;
}


ngx_int_t
ngx_coord_digest_field(const ngx_str_t *field)
{
    u_char      length[8];
    uint64_t    n;
    ngx_uint_t  i;

    n = field->len;

    /* the same on every node of a mixed cluster: big-endian */

    for (i = 8; i > 0; i--) {
        length[i - 1] = (u_char) (n & 0xff);
        n >>= 8;
    }

    if (ngx_coord_digest_update(length, 8) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_coord_digest_update(field->data, field->len);
}


ngx_int_t
ngx_coord_digest_final(u_char *digest)
{
    if (EVP_DigestFinal_ex(ngx_coord_digest_ctx, digest, NULL) != 1) {
        return NGX_ERROR;
    }

    return NGX_OK;
}


ngx_coord_hash_t *
ngx_coord_hash_create(void)
{
    EVP_MD_CTX  *ctx;

    if (ngx_coord_digest_ctx == NULL && ngx_coord_digest_create() != NGX_OK) {
        return NULL;
    }

    ctx = EVP_MD_CTX_new();

    if (ctx && EVP_DigestInit_ex(ctx, ngx_coord_digest_md, NULL) != 1) {
        EVP_MD_CTX_free(ctx);
        return NULL;
    }

    return (ngx_coord_hash_t *) ctx;
}


ngx_int_t
ngx_coord_hash_update(ngx_coord_hash_t *hash, const void *data, size_t len)
{
    return (EVP_DigestUpdate((EVP_MD_CTX *) hash, data, len) == 1)
           ? NGX_OK : NGX_ERROR;
}


ngx_int_t
ngx_coord_hash_final(ngx_coord_hash_t *hash, u_char *digest)
{
    ngx_int_t  rc;

    rc = (EVP_DigestFinal_ex((EVP_MD_CTX *) hash, digest, NULL) == 1)
         ? NGX_OK : NGX_ERROR;

    ngx_coord_hash_free(hash);

    return rc;
}


void
ngx_coord_hash_free(ngx_coord_hash_t *hash)
{
    EVP_MD_CTX_free((EVP_MD_CTX *) hash);
}


size_t
ngx_coord_key_encode(u_char *dst, const ngx_str_t *key)
{
    ngx_coord_key_kept_t  *kept;

    if (ngx_coord_key_is_plain(key)) {
        ngx_memcpy(dst, key->data, key->len);
        return key->len;
    }

    if (key->len == 0 || key->len > NGX_COORD_KEY_KEPT_LEN) {
        return ngx_coord_key_digest(dst, key);
    }

    kept = &ngx_coord_key_kept[ngx_coord_key_place(key)];

    if (!ngx_coord_key_is_kept(kept, key)) {
        kept->len = 0;

        if (ngx_coord_key_digest(kept->encoded, key) == 0) {
            return 0;
        }

        ngx_memcpy(kept->key, key->data, key->len);
        kept->len = key->len;
    }

    ngx_memcpy(dst, kept->encoded, NGX_COORD_DIGEST_HEX_LEN);

    return NGX_COORD_DIGEST_HEX_LEN;
}


/* of a key by both of its ends */

static ngx_inline ngx_uint_t
ngx_coord_key_place(const ngx_str_t *key)
{
    uint32_t  first, last;
    uint64_t  word;

    first = key->data[0];
    last = key->data[key->len - 1];

    if (key->len >= sizeof(uint32_t)) {
        ngx_memcpy(&first, key->data, sizeof(uint32_t));
        ngx_memcpy(&last, key->data + key->len - sizeof(uint32_t),
                   sizeof(uint32_t));
    }

    word = (uint64_t) first << 32 | last;

    return (word * 0x9e3779b97f4a7c15ULL) >> 56 & (NGX_COORD_KEY_KEPT - 1);
}


static ngx_inline ngx_uint_t
ngx_coord_key_is_kept(const ngx_coord_key_kept_t *kept, const ngx_str_t *key)
{
    if (kept->len != key->len) {
        return 0;
    }

    /* an address: of a length that the compiler knows, without a call */

    if (key->len == sizeof(in_addr_t)) {
        return ngx_memcmp(kept->key, key->data, sizeof(in_addr_t)) == 0;
    }

    return ngx_memcmp(kept->key, key->data, key->len) == 0;
}


static ngx_uint_t
ngx_coord_key_is_plain(const ngx_str_t *key)
{
    u_char  *p, *last;

    if (key->len == 0 || key->len > NGX_COORD_KEY_LEN) {
        return 0;
    }

    last = key->data + key->len;

    for (p = key->data; p < last; p++) {
        if (!(ngx_coord_key_plain[*p >> 5] & (1U << (*p & 0x1f)))) {
            return 0;
        }
    }

    return 1;
}


size_t
ngx_coord_key_digest(u_char *dst, const ngx_str_t *key)
{
    u_char  digest[NGX_COORD_DIGEST_LEN];

    if (ngx_coord_key_sha256(digest, key) != NGX_OK) {
        return 0;
    }

    *dst++ = '~';
    (void) ngx_hex_dump(dst, digest, NGX_COORD_KEY_DIGEST_BYTES);

    return NGX_COORD_DIGEST_HEX_LEN;
}


size_t
ngx_coord_key_tag(u_char *dst, const ngx_str_t *key)
{
    u_char  digest[NGX_COORD_DIGEST_LEN];

    if (key->len == NGX_COORD_DIGEST_HEX_LEN && key->data[0] == '~') {
        ngx_memcpy(dst, key->data + 1, NGX_COORD_KEY_TAG_BYTES * 2);
        return NGX_COORD_KEY_TAG_BYTES * 2;
    }

    if (ngx_coord_key_sha256(digest, key) != NGX_OK) {
        return 0;
    }

    (void) ngx_hex_dump(dst, digest, NGX_COORD_KEY_TAG_BYTES);

    return NGX_COORD_KEY_TAG_BYTES * 2;
}


ngx_int_t
ngx_coord_unhex(u_char *dst, const u_char *src, size_t n)
{
    ngx_uint_t  high, low;

    while (n--) {
        high = ngx_coord_nibble(src[0]);
        low = ngx_coord_nibble(src[1]);
        src += 2;

        if ((high & low) == 0) {
            return NGX_ERROR;
        }

        *dst++ = (u_char) (high << 4 | (low & 0xf));
    }

    return NGX_OK;
}


ngx_uint_t
ngx_coord_is_hex(const u_char *p, size_t len)
{
    while (len--) {
        if (!((*p >= '0' && *p <= '9') || (*p >= 'a' && *p <= 'f'))) {
            return 0;
        }

        p++;
    }

    return 1;
}


static ngx_int_t
ngx_coord_key_sha256(u_char *digest, const ngx_str_t *key)
{
    if (ngx_coord_digest_init() != NGX_OK
        || ngx_coord_digest_update(key->data, key->len) != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_coord_digest_final(digest);
}
