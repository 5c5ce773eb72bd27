
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * A stored response as bytes.  What comes back from a store is checked as a
 * whole before any of it is used: a record that was cut, altered or made up
 * is no record.
 */


#ifndef _NGX_COORD_RECORD_H_INCLUDED_
#define _NGX_COORD_RECORD_H_INCLUDED_


#include "ngx_coord.h"
#include "ngx_coord_key.h"


#define NGX_COORD_RECORD_VERSION   1

/* bytes in front of the strings, and where the fingerprint stands in them */
#define NGX_COORD_RECORD_HEAD         68
#define NGX_COORD_RECORD_FINGERPRINT  36

#define NGX_COORD_RECORD_FIELDS    65535
#define NGX_COORD_RECORD_NAME      65535      /* bytes of a field name */
#define NGX_COORD_RECORD_VALUE     65535      /* of a value, Content-Type */


typedef struct {
    ngx_uint_t                 status;        /* 200 to 599, not 204 with body,
                                               * 206 or 304 */
    unsigned                   omitted:1;     /* the body was too large */
    unsigned                   location:1;    /* nginx made the Location, and
                                               * makes it absolute */
    unsigned                   override:1;    /* the charset is one that is to
                                               * be: X-Accel-Charset */
    u_char                     fingerprint[NGX_COORD_DIGEST_LEN];
    ngx_str_t                  key;           /* encoded, of the operation */
    ngx_str_t                  status_line;   /* "201 Made", or empty */
    ngx_str_t                  content_type;
    size_t                     content_type_len;  /* without parameters */
    ngx_str_t                  charset;
    ngx_uint_t                 nfields;
    size_t                     body_len;

    /* decoded only */
    ngx_str_t                  fields;        /* ngx_coord_record_next() */
    u_char                    *body;
} ngx_coord_record_t;


/*
 * 1 if a field may stand in a record: a token as name that does not frame the
 * message or belong to one connection, and a value without control characters.
 */
ngx_uint_t ngx_coord_record_field(ngx_str_t *name, ngx_str_t *value);

/* 1 if a value holds no control characters but tabs */
ngx_uint_t ngx_coord_record_value(ngx_str_t *value);

/* 1 if the field frames the message or belongs to one connection */
ngx_uint_t ngx_coord_record_hop(ngx_str_t *name);

/*
 * How long a record is of which the beginning stands in blob; 0: it is too
 * short to tell, or no record.
 */
size_t ngx_coord_record_length(ngx_str_t *blob);

/* bytes that ngx_coord_record_encode() writes */
size_t ngx_coord_record_size(ngx_coord_record_t *record,
    ngx_keyval_t *fields);

/*
 * Writes a record with its fields, each of which ngx_coord_record_field()
 * accepts or separates the trailers, and the body from the memory of a chain:
 * body_len bytes.  NGX_ERROR: OpenSSL failed.
 */
ngx_int_t ngx_coord_record_encode(u_char *p, ngx_coord_record_t *record,
    ngx_keyval_t *fields, ngx_chain_t *body);

/*
 * Reads a record: its strings point into blob.  NGX_ERROR: it is not one, or
 * not that of the key.
 */
ngx_int_t ngx_coord_record_decode(ngx_coord_record_t *record,
    ngx_str_t *blob, ngx_str_t *key);

/*
 * Makes a record one without its body and trailers: omitted.  It becomes
 * shorter where it stands.  NGX_DECLINED: there is nothing to leave out, or
 * it is no record; NGX_ERROR: OpenSSL failed.
 */
ngx_int_t ngx_coord_record_omit(ngx_str_t *blob);

/*
 * Takes the next field off left, at first record->fields; NGX_DONE: no more.
 * Behind a field without name and value, which may stand once, are trailers.
 */
ngx_int_t ngx_coord_record_next(ngx_str_t *left, ngx_keyval_t *field);


#endif /* _NGX_COORD_RECORD_H_INCLUDED_ */
