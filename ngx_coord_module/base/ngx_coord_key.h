
/*
 * Copyright (C) ngx_coord_module contributors
 */


#ifndef _NGX_COORD_KEY_H_INCLUDED_
#define _NGX_COORD_KEY_H_INCLUDED_


#include "ngx_coord.h"


/* the longest encoded key: a plain key of 64 bytes; a digest takes 33 */
#define NGX_COORD_KEY_LEN          64

#define NGX_COORD_DIGEST_LEN       32
#define NGX_COORD_DIGEST_HEX_LEN   33     /* '~' and 128 bits in hex */


/*
 * Where a key stands in a small table of a worker.  Any bytes: in those above
 * 127 ngx_murmur_hash2() shifts an int too far.
 */

static ngx_inline uint32_t
ngx_coord_key_hash(const u_char *key, size_t len)
{
    uint64_t  hash, word;

    hash = len;

    for ( /* void */ ; len >= 8; len -= 8) {
        ngx_memcpy(&word, key, 8);
        key += 8;

        hash = (hash ^ word) * 0x9e3779b97f4a7c15ULL;
        hash ^= hash >> 32;
    }

    for ( /* void */ ; len; len--) {
        hash = hash << 8 ^ hash >> 56 ^ *key++;
    }

    hash *= 0x9e3779b97f4a7c15ULL;

    return (uint32_t) (hash >> 32);
}


/*
 * Incremental SHA-256 (OpenSSL EVP).  One context serves one computation at a
 * time in a worker; it needs no release.  Fields are added with their length
 * in front, so that ("ab", "c") and ("a", "bc") differ.
 */

/* starts a computation; NGX_ERROR: OpenSSL failed, nothing to release */
ngx_int_t ngx_coord_digest_init(void);

/* adds raw bytes, without a length; for the parts of one long field */
ngx_int_t ngx_coord_digest_update(const void *data, size_t len);

/* adds one field: 8 bytes of length, then the bytes */
ngx_int_t ngx_coord_digest_field(const ngx_str_t *field);

/* ends the computation and stores NGX_COORD_DIGEST_LEN bytes at digest */
ngx_int_t ngx_coord_digest_final(u_char *digest);


/*
 * SHA-256 over several turns of the event loop, any number at a time.  On the
 * heap, the caller's until ngx_coord_hash_final() or ngx_coord_hash_free().
 */
typedef struct ngx_coord_hash_s  ngx_coord_hash_t;

/* starts a computation; NULL: no memory, or OpenSSL failed */
ngx_coord_hash_t *ngx_coord_hash_create(void);

/* adds raw bytes; NGX_ERROR: OpenSSL failed, the computation is of no use */
ngx_int_t ngx_coord_hash_update(ngx_coord_hash_t *hash, const void *data,
    size_t len);

/*
 * Stores NGX_COORD_DIGEST_LEN bytes at digest and releases the computation,
 * also when OpenSSL failed: NGX_ERROR.
 */
ngx_int_t ngx_coord_hash_final(ngx_coord_hash_t *hash, u_char *digest);

/* releases a computation without its result; NULL: there is none */
void ngx_coord_hash_free(ngx_coord_hash_t *hash);


/*
 * ngx_coord_key_encode() writes the form in which a client's key stands in a
 * Redis key, at most NGX_COORD_KEY_LEN bytes at dst, and returns its length.
 * A key of 1 to 64 bytes of [A-Za-z0-9._@:/-] stands as it is; any other
 * stands as '~' and the first 128 bits of its SHA-256 in hex, so that neither
 * its content nor its length can change the command or the hash tag.
 * Returns 0 if OpenSSL failed.
 */
size_t ngx_coord_key_encode(u_char *dst, const ngx_str_t *key);

/* the digest form whatever the key holds: for keys that are secrets */
size_t ngx_coord_key_digest(u_char *dst, const ngx_str_t *key);

/*
 * ngx_coord_key_tag() writes the 8 hex digits that name an encoded key in a
 * log line without telling it, and returns their number: those that a key
 * which does not stand plain begins with, else those of its SHA-256.
 */
size_t ngx_coord_key_tag(u_char *dst, const ngx_str_t *key);

/*
 * ngx_coord_unhex() reads 2 * n hex digits at src into n bytes at dst;
 * NGX_ERROR: something else is among them, dst may have changed.
 */
ngx_int_t ngx_coord_unhex(u_char *dst, const u_char *src, size_t n);

/* true if all len bytes are what ngx_hex_dump() writes: 0-9 and a-f */
ngx_uint_t ngx_coord_is_hex(const u_char *p, size_t len);


#endif /* _NGX_COORD_KEY_H_INCLUDED_ */
