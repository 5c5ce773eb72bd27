
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The subrequest of load=.  Its answer is for all that want the value, so it is
 * asked without what the client wants of the response to its own request.
 */


#include "ngx_http_coord_lookup.h"


static ngx_int_t ngx_http_coord_lookup_subrequest_variables(
    ngx_http_request_t *sr);
static ngx_int_t ngx_http_coord_lookup_subrequest_headers(
    ngx_http_request_t *sr);
static ngx_uint_t ngx_http_coord_lookup_subrequest_hides(ngx_table_elt_t *h);


static const ngx_str_t  ngx_http_coord_lookup_subrequest_hidden[] = {
    ngx_string("range"),
    ngx_string("if-range"),
    ngx_string("if-match"),
    ngx_string("if-none-match"),
    ngx_string("if-modified-since"),
    ngx_string("if-unmodified-since"),
    ngx_string("accept-encoding"),
    ngx_string("content-length"),
    ngx_string("transfer-encoding"),
    ngx_string("expect"),
    ngx_null_string
};


ngx_int_t
ngx_http_coord_lookup_subrequest(ngx_http_request_t *r,
    ngx_http_complex_value_t *load, ngx_http_post_subrequest_pt handler,
    void *data)
{
    u_char                      *p;
    ngx_str_t                    uri, args;
    ngx_http_request_t          *sr;
    ngx_http_post_subrequest_t  *ps;

    ps = ngx_palloc(r->pool, sizeof(ngx_http_post_subrequest_t));

    if (ps == NULL || ngx_http_complex_value(r, load, &uri) != NGX_OK) {
        return NGX_ERROR;
    }

    ps->handler = handler;
    ps->data = data;

    ngx_str_null(&args);

    p = (u_char *) ngx_strlchr(uri.data, uri.data + uri.len, '?');

    if (p) {
        args.data = p + 1;
        args.len = uri.data + uri.len - args.data;
        uri.len = p - uri.data;
    }

    /*
     * It has no place in the output of r: others would end only when it is
     * their turn, and that never comes if r has no body, or no client.
     */

    if (ngx_http_subrequest(r, &uri, &args, &sr, ps,
                            NGX_HTTP_SUBREQUEST_IN_MEMORY
                            |NGX_HTTP_SUBREQUEST_BACKGROUND)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    /* it has no body, and that of the request stays where it is */

    sr->request_body = ngx_pcalloc(r->pool, sizeof(ngx_http_request_body_t));

    if (sr->request_body == NULL) {
        return NGX_ERROR;
    }

    sr->headers_in.content_length_n = -1;
    sr->headers_in.content_length = NULL;
    sr->headers_in.chunked = 0;

    if (ngx_http_coord_lookup_subrequest_variables(sr) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_http_coord_lookup_subrequest_headers(sr);
}


/* what "set" of the server or of its location sets is for itself */

static ngx_int_t
ngx_http_coord_lookup_subrequest_variables(ngx_http_request_t *sr)
{
    size_t                      size;
    ngx_http_core_main_conf_t  *cmcf;
    ngx_http_variable_value_t  *variables;

    cmcf = ngx_http_get_module_main_conf(sr, ngx_http_core_module);

    size = cmcf->variables.nelts * sizeof(ngx_http_variable_value_t);

    variables = ngx_palloc(sr->pool, size);
    if (variables == NULL) {
        return NGX_ERROR;
    }

    ngx_memcpy(variables, sr->variables, size);

    sr->variables = variables;

    return NGX_OK;
}


/* a list of its own: that of the request is shared as it is copied */

static ngx_int_t
ngx_http_coord_lookup_subrequest_headers(ngx_http_request_t *sr)
{
    ngx_uint_t              i;
    ngx_list_t              headers;
    ngx_list_part_t        *part;
    ngx_table_elt_t        *h, *copy;
    ngx_http_headers_in_t  *in;

    in = &sr->headers_in;

    if (ngx_list_init(&headers, sr->pool, 20, sizeof(ngx_table_elt_t))
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    for (part = &in->headers.part; part; part = part->next) {
        h = part->elts;

        for (i = 0; i < part->nelts; i++) {

            if (ngx_http_coord_lookup_subrequest_hides(&h[i])) {
                continue;
            }

            copy = ngx_list_push(&headers);
            if (copy == NULL) {
                return NGX_ERROR;
            }

            *copy = h[i];
        }
    }

    in->headers = headers;

    /* its last part may be the first one, which has moved */

    if (headers.part.next == NULL) {
        in->headers.last = &in->headers.part;
    }

    in->range = NULL;
    in->if_range = NULL;
    in->if_match = NULL;
    in->if_none_match = NULL;
    in->if_modified_since = NULL;
    in->if_unmodified_since = NULL;
    in->transfer_encoding = NULL;
    in->expect = NULL;

#if (NGX_HTTP_GZIP)
    in->accept_encoding = NULL;
#endif

    return NGX_OK;
}


static ngx_uint_t
ngx_http_coord_lookup_subrequest_hides(ngx_table_elt_t *h)
{
    const ngx_str_t  *name;

    for (name = ngx_http_coord_lookup_subrequest_hidden; name->len; name++) {

        if (h->key.len == name->len
            && ngx_strncasecmp(h->key.data, name->data, name->len) == 0)
        {
            return 1;
        }
    }

    return 0;
}
