
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_status and coord_health: which form of the status is asked for.
 */


#include "ngx_http_coord_status.h"


typedef enum {
    NGX_HTTP_COORD_STATUS_JSON = 0,
    NGX_HTTP_COORD_STATUS_PROM,
    NGX_HTTP_COORD_STATUS_HTML,
    NGX_HTTP_COORD_STATUS_FORMS
} ngx_http_coord_status_form_e;


typedef struct {
    ngx_str_t                  name;         /* of ?format= */
    ngx_str_t                  ending;       /* of the URI */
    ngx_str_t                  type;         /* of the response */
    ngx_int_t                (*write)(ngx_http_coord_status_t *st,
                                      ngx_http_coord_out_t *out);
} ngx_http_coord_status_form_t;


/* a media range that asks for a form; less special ones have a wildcard */
typedef struct {
    ngx_str_t                  range;
    ngx_uint_t                 forms;        /* bits */
    ngx_uint_t                 special;
} ngx_http_coord_status_range_t;


typedef struct {
    ngx_uint_t                 keys;
} ngx_http_coord_status_conf_t;


static ngx_int_t ngx_http_coord_status_handler(ngx_http_request_t *r);
static ngx_uint_t ngx_http_coord_status_form(ngx_http_request_t *r);
static ngx_uint_t ngx_http_coord_status_accept(ngx_http_request_t *r);
static void ngx_http_coord_status_accept_range(ngx_str_t *part, ngx_uint_t *q,
    ngx_uint_t *special);
static ngx_uint_t ngx_http_coord_status_quality(u_char *p, u_char *last);
static ngx_int_t ngx_http_coord_health_handler(ngx_http_request_t *r);
static ngx_int_t ngx_http_coord_status_begin(ngx_http_request_t *r,
    ngx_http_coord_status_t *st);

static void *ngx_http_coord_status_create_conf(ngx_conf_t *cf);
static char *ngx_http_coord_status(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);
static char *ngx_http_coord_health(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);


static const ngx_http_coord_status_form_t  ngx_http_coord_status_forms[] = {

    { ngx_string("json"), ngx_string(".json"),
      ngx_string("application/json"),
      ngx_http_coord_status_json },

    { ngx_string("prometheus"), ngx_string(".prom"),
      ngx_string("text/plain; version=0.0.4; charset=utf-8"),
      ngx_http_coord_status_prom },

    { ngx_string("html"), ngx_string(".html"),
      ngx_string("text/html; charset=utf-8"),
      ngx_http_coord_status_html }
};


#define ngx_http_coord_form(form)  (1 << NGX_HTTP_COORD_STATUS_##form)


static const ngx_http_coord_status_range_t  ngx_http_coord_status_ranges[] = {
    { ngx_string("application/json"), ngx_http_coord_form(JSON), 3 },
    { ngx_string("text/plain"), ngx_http_coord_form(PROM), 3 },
    { ngx_string("application/openmetrics-text"), ngx_http_coord_form(PROM),
      3 },
    { ngx_string("text/html"), ngx_http_coord_form(HTML), 3 },
    { ngx_string("application/*"), ngx_http_coord_form(JSON), 2 },
    { ngx_string("text/*"),
      ngx_http_coord_form(PROM) | ngx_http_coord_form(HTML), 2 },
    { ngx_string("*/*"),
      ngx_http_coord_form(JSON) | ngx_http_coord_form(PROM)
      | ngx_http_coord_form(HTML), 1 },
    { ngx_null_string, 0, 0 }
};


static ngx_command_t  ngx_http_coord_status_commands[] = {

    { ngx_string("coord_status"),
      NGX_HTTP_LOC_CONF|NGX_CONF_NOARGS|NGX_CONF_TAKE1,
      ngx_http_coord_status,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

    { ngx_string("coord_health"),
      NGX_HTTP_LOC_CONF|NGX_CONF_NOARGS,
      ngx_http_coord_health,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

      ngx_null_command
};


static ngx_http_module_t  ngx_http_coord_status_module_ctx = {
    NULL,                                  /* preconfiguration */
    NULL,                                  /* postconfiguration */

    NULL,                                  /* create main configuration */
    NULL,                                  /* init main configuration */

    NULL,                                  /* create server configuration */
    NULL,                                  /* merge server configuration */

    ngx_http_coord_status_create_conf,     /* create location configuration */
    NULL                                   /* merge location configuration */
};


ngx_module_t  ngx_http_coord_status_module = {
    NGX_MODULE_V1,
    &ngx_http_coord_status_module_ctx,     /* module context */
    ngx_http_coord_status_commands,        /* module directives */
    NGX_HTTP_MODULE,                       /* module type */
    NULL,                                  /* init master */
    NULL,                                  /* init module */
    NULL,                                  /* init process */
    NULL,                                  /* init thread */
    NULL,                                  /* exit thread */
    NULL,                                  /* exit process */
    NULL,                                  /* exit master */
    NGX_MODULE_V1_PADDING
};


static ngx_int_t
ngx_http_coord_status_handler(ngx_http_request_t *r)
{
    ngx_int_t                      rc;
    ngx_str_t                      type, vary;
    ngx_uint_t                     form;
    ngx_http_coord_out_t           out;
    ngx_http_coord_status_t        st;
    ngx_http_coord_status_conf_t  *scf;

    rc = ngx_http_coord_status_begin(r, &st);

    if (rc == NGX_DECLINED) {
        return ngx_http_coord_out_not_allowed(r, "GET, HEAD");
    }

    if (rc != NGX_OK) {
        return rc;
    }

    form = ngx_http_coord_status_form(r);

    if (form == NGX_HTTP_COORD_STATUS_FORMS) {
        return ngx_http_coord_out_problem(r, NGX_HTTP_BAD_REQUEST,
                                          "The argument \\\"format\\\" is one "
                                          "of html, json and prometheus.");
    }

    scf = ngx_http_get_module_loc_conf(r, ngx_http_coord_status_module);

    st.keys = scf->keys;

    ngx_http_coord_out_init(&out, r->pool);

    if (ngx_http_coord_status_forms[form].write(&st, &out) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    ngx_str_set(&vary, "Accept");

    if (ngx_http_coord_out_header(r, "Vary", &vary) != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    type = ngx_http_coord_status_forms[form].type;

    return ngx_http_coord_out_send(r, &out, NGX_HTTP_OK, &type);
}


/* NGX_DECLINED: this method is not allowed */

static ngx_int_t
ngx_http_coord_status_begin(ngx_http_request_t *r,
    ngx_http_coord_status_t *st)
{
    ngx_int_t  rc;

    rc = ngx_http_discard_request_body(r);

    if (rc != NGX_OK) {
        return rc;
    }

    if (!(r->method & (NGX_HTTP_GET|NGX_HTTP_HEAD))) {
        return NGX_DECLINED;
    }

    return ngx_http_coord_status_look(st, r) == NGX_OK
           ? NGX_OK : NGX_HTTP_INTERNAL_SERVER_ERROR;
}


/*
 * ?format=, then the ending of the URI, then Accept; a format that there is
 * not gives NGX_HTTP_COORD_STATUS_FORMS.
 */

static ngx_uint_t
ngx_http_coord_status_form(ngx_http_request_t *r)
{
    ngx_str_t                            value;
    ngx_uint_t                           i;
    const ngx_http_coord_status_form_t  *f;

    if (ngx_http_arg(r, (u_char *) "format", 6, &value) == NGX_OK) {

        for (i = 0; i < NGX_HTTP_COORD_STATUS_FORMS; i++) {
            f = &ngx_http_coord_status_forms[i];

            if (f->name.len == value.len
                && ngx_memcmp(f->name.data, value.data, value.len) == 0)
            {
                return i;
            }
        }

        return NGX_HTTP_COORD_STATUS_FORMS;
    }

    for (i = 0; i < NGX_HTTP_COORD_STATUS_FORMS; i++) {
        f = &ngx_http_coord_status_forms[i];

        if (r->uri.len > f->ending.len
            && ngx_memcmp(r->uri.data + r->uri.len - f->ending.len,
                          f->ending.data, f->ending.len)
               == 0)
        {
            return i;
        }
    }

    return ngx_http_coord_status_accept(r);
}


/* the form of the highest quality; JSON if nothing is said */

static ngx_uint_t
ngx_http_coord_status_accept(ngx_http_request_t *r)
{
    u_char           *p, *last;
    ngx_str_t         part;
    ngx_uint_t        i, best;
    ngx_uint_t        q[NGX_HTTP_COORD_STATUS_FORMS];
    ngx_uint_t        special[NGX_HTTP_COORD_STATUS_FORMS];
    ngx_list_part_t  *lp;
    ngx_table_elt_t  *h;

    ngx_memzero(q, sizeof(q));
    ngx_memzero(special, sizeof(special));

    lp = &r->headers_in.headers.part;
    h = lp->elts;

    for (i = 0; /* void */ ; i++) {

        if (i >= lp->nelts) {
            if (lp->next == NULL) {
                break;
            }

            lp = lp->next;
            h = lp->elts;
            i = 0;
        }

        if (h[i].key.len != 6
            || ngx_strncasecmp(h[i].key.data, (u_char *) "accept", 6) != 0)
        {
            continue;
        }

        p = h[i].value.data;
        last = p + h[i].value.len;

        while (p < last) {
            part.data = p;

            p = ngx_strlchr(p, last, ',');
            p = p ? p : last;

            part.len = p - part.data;
            p++;

            ngx_http_coord_status_accept_range(&part, q, special);
        }
    }

    best = 0;

    for (i = 1; i < NGX_HTTP_COORD_STATUS_FORMS; i++) {
        if (q[i] > q[best]) {
            best = i;
        }
    }

    return best;
}


/* one media range: "text/html;q=0.9"; the most special one counts */

static void
ngx_http_coord_status_accept_range(ngx_str_t *part, ngx_uint_t *q,
    ngx_uint_t *special)
{
    u_char                               *p, *last, *end;
    ngx_uint_t                            i, quality;
    const ngx_http_coord_status_range_t  *range;

    p = part->data;
    last = p + part->len;

    while (p < last && (*p == ' ' || *p == '\t')) {
        p++;
    }

    end = p;

    while (end < last && *end != ';' && *end != ' ' && *end != '\t') {
        end++;
    }

    quality = ngx_http_coord_status_quality(end, last);

    for (range = ngx_http_coord_status_ranges; range->range.len; range++) {

        if (range->range.len != (size_t) (end - p)
            || ngx_strncasecmp(range->range.data, p, end - p) != 0)
        {
            continue;
        }

        for (i = 0; i < NGX_HTTP_COORD_STATUS_FORMS; i++) {

            if (!(range->forms & (1 << i)) || range->special < special[i]) {
                continue;
            }

            if (range->special > special[i] || quality > q[i]) {
                q[i] = quality;
            }

            special[i] = range->special;
        }
    }
}


/* the parameter q in thousandths; what stands behind it says nothing here */

static ngx_uint_t
ngx_http_coord_status_quality(u_char *p, u_char *last)
{
    u_char     *end;
    ngx_int_t   q;

    for ( ;; ) {
        p = ngx_strlchr(p, last, ';');

        if (p == NULL) {
            return 1000;
        }

        p++;

        while (p < last && (*p == ' ' || *p == '\t')) {
            p++;
        }

        if (last - p >= 2 && (*p == 'q' || *p == 'Q') && p[1] == '=') {
            break;
        }
    }

    p += 2;

    end = ngx_strlchr(p, last, ';');
    end = end ? end : last;

    while (end > p && (end[-1] == ' ' || end[-1] == '\t')) {
        end--;
    }

    q = ngx_atofp(p, end - p, 3);

    return (q == NGX_ERROR || q > 1000) ? 0 : q;
}


static ngx_int_t
ngx_http_coord_health_handler(ngx_http_request_t *r)
{
    ngx_int_t                      rc;
    ngx_str_t                      type;
    ngx_uint_t                     i;
    ngx_http_coord_out_t           out, stores;
    ngx_coord_store_state_e        worst;
    ngx_http_coord_status_t        st;

    rc = ngx_http_coord_status_begin(r, &st);

    if (rc == NGX_DECLINED) {
        return ngx_http_coord_out_not_allowed(r, "GET, HEAD");
    }

    if (rc != NGX_OK) {
        return rc;
    }

    worst = NGX_COORD_STORE_UP;

    ngx_http_coord_out_init(&out, r->pool);
    ngx_http_coord_out_init(&stores, r->pool);

    for (i = 0; i < st.nstores; i++) {
        worst = ngx_min(worst, st.stores[i].state);

        ngx_http_coord_json_open(&stores, NULL, '{');
        ngx_http_coord_status_json_store(&st.stores[i], &stores);
        ngx_http_coord_json_close(&stores, '}');
    }

    ngx_http_coord_json_open(&out, NULL, '{');
    ngx_http_coord_json_string(&out, "status", &ngx_coord_store_states[worst]);
    ngx_http_coord_json_number(&out, "workers", st.view.workers);
    ngx_http_coord_json_open(&out, "stores", '[');
    ngx_http_coord_out_join(&out, &stores);
    ngx_http_coord_json_close(&out, ']');
    ngx_http_coord_json_close(&out, '}');
    ngx_http_coord_out_text(&out, "\n");

    ngx_str_set(&type, "application/json");

    return ngx_http_coord_out_send(r, &out,
                                   worst == NGX_COORD_STORE_DOWN
                                   ? NGX_HTTP_SERVICE_UNAVAILABLE
                                   : NGX_HTTP_OK, &type);
}


static void *
ngx_http_coord_status_create_conf(ngx_conf_t *cf)
{
    return ngx_pcalloc(cf->pool, sizeof(ngx_http_coord_status_conf_t));
}


static char *
ngx_http_coord_status(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_coord_status_conf_t *scf = conf;

    ngx_str_t                   *value;
    ngx_http_core_loc_conf_t    *clcf;
    ngx_http_coord_main_conf_t  *mcf;

    mcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_coord_module);
    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    if (clcf->handler == ngx_http_coord_status_handler) {
        return "is duplicate";
    }

    if (cf->args->nelts == 2) {
        value = cf->args->elts;

        if (ngx_strcmp(value[1].data, "keys") != 0) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid parameter \"%V\", allowed is "
                               "\"keys\"", &value[1]);
            return NGX_CONF_ERROR;
        }

        scf->keys = 1;
        mcf->metrics.keys = 1;
    }

    mcf->metrics.status = 1;
    clcf->handler = ngx_http_coord_status_handler;
    ngx_http_coord_exempt(cf);

    return NGX_CONF_OK;
}


static char *
ngx_http_coord_health(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_core_loc_conf_t    *clcf;
    ngx_http_coord_main_conf_t  *mcf;

    mcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_coord_module);
    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    if (clcf->handler == ngx_http_coord_health_handler) {
        return "is duplicate";
    }

    mcf->metrics.status = 1;
    clcf->handler = ngx_http_coord_health_handler;
    ngx_http_coord_exempt(cf);

    return NGX_CONF_OK;
}
