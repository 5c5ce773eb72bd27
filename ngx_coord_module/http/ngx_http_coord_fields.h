
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Fields of a message: their lines, and the members of lists (RFC 9110, 5.6.1).
 */


#ifndef _NGX_HTTP_COORD_FIELDS_H_INCLUDED_
#define _NGX_HTTP_COORD_FIELDS_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>
#include <ngx_http.h>


/* 1 if s is the name, in letters of any case */
ngx_uint_t ngx_http_coord_field_is(ngx_str_t *s, const char *name);

/*
 * The next line of the field of that name from *i on, which becomes the place
 * behind it; 0 at first.  NULL: no more.  It points into the list.
 */
ngx_str_t *ngx_http_coord_field_line(ngx_list_t *headers, const char *name,
    ngx_uint_t *i);

/* The lines of the field of that name, in letters of any case, are not sent */
void ngx_http_coord_field_remove(ngx_list_t *headers, const ngx_str_t *name);

/*
 * Takes the next member of a list off value: what is between commas that do not
 * stand in quotes, without blanks around.  NGX_DONE: no more.
 */
ngx_int_t ngx_http_coord_field_member(ngx_str_t *value, ngx_str_t *member);

/* 1 if an entity tag is a weak one (RFC 9110, 8.8.3) */
ngx_uint_t ngx_http_coord_field_weak(ngx_str_t *etag);


#endif /* _NGX_HTTP_COORD_FIELDS_H_INCLUDED_ */
