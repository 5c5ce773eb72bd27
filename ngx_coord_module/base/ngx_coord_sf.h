
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Structured fields (RFC 9651): dictionaries.
 */


#ifndef _NGX_COORD_SF_H_INCLUDED_
#define _NGX_COORD_SF_H_INCLUDED_


#include "ngx_coord.h"


typedef enum {
    NGX_COORD_SF_BOOLEAN = 0,
    NGX_COORD_SF_INTEGER,
    NGX_COORD_SF_DECIMAL,
    NGX_COORD_SF_STRING,
    NGX_COORD_SF_TOKEN,
    NGX_COORD_SF_BYTES,
    NGX_COORD_SF_DATE,
    NGX_COORD_SF_DISPLAY,
    NGX_COORD_SF_LIST                        /* an inner one */
} ngx_coord_sf_e;


/* a member of a dictionary; its strings point into the text */
typedef struct {
    ngx_str_t                  key;
    ngx_coord_sf_e             type;
    int64_t                    number;       /* a boolean, integer or date */
    ngx_str_t                  value;        /* a string, between its quotes,
                                              * with its escapes; a token */
} ngx_coord_sf_t;


/*
 * Takes the next member of a dictionary off text; its parameters are passed
 * over.  Of several lines of a field the text has to be all, with commas
 * between them.  NGX_DONE: there is no more.  NGX_ERROR: text is no dictionary,
 * and what was taken before is not to be used, either.
 */
ngx_int_t ngx_coord_sf_next(ngx_str_t *text, ngx_coord_sf_t *member);


#endif /* _NGX_COORD_SF_H_INCLUDED_ */
