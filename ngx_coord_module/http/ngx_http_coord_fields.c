
/*
 * Copyright (C) ngx_coord_module contributors
 */


#include "ngx_http_coord_fields.h"


ngx_uint_t
ngx_http_coord_field_is(ngx_str_t *s, const char *name)
{
    return s->len == ngx_strlen(name)
           && ngx_strncasecmp(s->data, (u_char *) name, s->len) == 0;
}


ngx_str_t *
ngx_http_coord_field_line(ngx_list_t *headers, const char *name,
    ngx_uint_t *i)
{
    ngx_uint_t        k, n;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h;

    n = 0;

    for (part = &headers->part; part; part = part->next) {
        h = part->elts;

        for (k = 0; k < part->nelts; k++) {

            if (n++ < *i) {
                continue;
            }

            if (h[k].hash && ngx_http_coord_field_is(&h[k].key, name)) {
                *i = n;
                return &h[k].value;
            }
        }
    }

    return NULL;
}


void
ngx_http_coord_field_remove(ngx_list_t *headers, const ngx_str_t *name)
{
    ngx_uint_t        i;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h;

    for (part = &headers->part; part; part = part->next) {
        h = part->elts;

        for (i = 0; i < part->nelts; i++) {

            if (h[i].key.len == name->len
                && ngx_strncasecmp(h[i].key.data, name->data, name->len) == 0)
            {
                h[i].hash = 0;
            }
        }
    }
}


ngx_int_t
ngx_http_coord_field_member(ngx_str_t *value, ngx_str_t *member)
{
    u_char      *p, *last, *end;
    ngx_uint_t   quoted;

    p = value->data;
    last = p + value->len;

    while (p < last && (*p == ' ' || *p == '\t' || *p == ',')) {
        p++;
    }

    if (p == last) {
        return NGX_DONE;
    }

    member->data = p;
    quoted = 0;

    for ( /* void */ ; p < last; p++) {

        if (*p == '\\' && quoted && p + 1 < last) {
            p++;

        } else if (*p == '"') {
            quoted = !quoted;

        } else if (*p == ',' && !quoted) {
            break;
        }
    }

    end = p;

    while (end > member->data && (end[-1] == ' ' || end[-1] == '\t')) {
        end--;
    }

    member->len = end - member->data;

    value->data = p;
    value->len = last - p;

    return NGX_OK;
}


ngx_uint_t
ngx_http_coord_field_weak(ngx_str_t *etag)
{
    return etag->len > 2 && etag->data[0] == 'W' && etag->data[1] == '/';
}
