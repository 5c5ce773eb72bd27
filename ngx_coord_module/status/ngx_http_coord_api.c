
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_api: who may ask, what is asked, and waiting for the store.
 */


#include "ngx_http_coord_api.h"
#include "ngx_http_coord_api_guard.h"
#include "ngx_http_coord_conf.h"
#include "ngx_http_coord_status.h"


#define NGX_HTTP_COORD_API_KEY    4096       /* bytes of a key, decoded */
#define NGX_HTTP_COORD_API_PARTS  3


typedef struct {
    ngx_flag_t                 write;
    ngx_flag_t                 public;
} ngx_http_coord_api_conf_t;


/* a location with coord_api */
typedef struct {
    ngx_http_core_srv_conf_t   *server;
    ngx_http_core_loc_conf_t   *location;
    ngx_http_coord_api_conf_t  *conf;
} ngx_http_coord_api_place_t;


typedef struct {
    ngx_array_t                places;       /* of .._api_place_t */
} ngx_http_coord_api_main_conf_t;


extern ngx_module_t  ngx_http_coord_api_module;


static ngx_int_t ngx_http_coord_api_handler(ngx_http_request_t *r);
static ngx_int_t ngx_http_coord_api_path(ngx_http_request_t *r,
    ngx_http_coord_api_t *api);
static ngx_int_t ngx_http_coord_api_route(ngx_http_coord_api_t *api,
    ngx_str_t *name);
static ngx_int_t ngx_http_coord_api_parts(ngx_http_request_t *r,
    ngx_str_t *parts, ngx_uint_t *n);
static ngx_uint_t ngx_http_coord_api_equal(ngx_str_t *a, const ngx_str_t *b);
static ngx_int_t ngx_http_coord_api_zone(ngx_http_request_t *r,
    ngx_http_coord_api_t *api, ngx_str_t *name);
static ngx_int_t ngx_http_coord_api_method(ngx_http_request_t *r,
    ngx_http_coord_api_t *api);
static ngx_int_t ngx_http_coord_api_send(ngx_http_coord_api_t *api);
static void ngx_http_coord_api_done(ngx_coord_batch_t *batch);
static ngx_int_t ngx_http_coord_api_respond(ngx_http_coord_api_t *api);
static void ngx_http_coord_api_tag(ngx_http_coord_api_t *api);
static void ngx_http_coord_api_log(ngx_http_coord_api_t *api);
static void ngx_http_coord_api_cleanup(void *data);

static void *ngx_http_coord_api_create_main_conf(ngx_conf_t *cf);
static void *ngx_http_coord_api_create_conf(ngx_conf_t *cf);
static char *ngx_http_coord_api(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);


static ngx_command_t  ngx_http_coord_api_commands[] = {

    { ngx_string("coord_api"),
      NGX_HTTP_LOC_CONF|NGX_CONF_NOARGS|NGX_CONF_TAKE12,
      ngx_http_coord_api,
      NGX_HTTP_LOC_CONF_OFFSET,
      0,
      NULL },

      ngx_null_command
};


static ngx_http_module_t  ngx_http_coord_api_module_ctx = {
    NULL,                                  /* preconfiguration */
    NULL,                                  /* postconfiguration */

    ngx_http_coord_api_create_main_conf,   /* create main configuration */
    NULL,                                  /* init main configuration */

    NULL,                                  /* create server configuration */
    NULL,                                  /* merge server configuration */

    ngx_http_coord_api_create_conf,        /* create location configuration */
    NULL                                   /* merge location configuration */
};


ngx_module_t  ngx_http_coord_api_module = {
    NGX_MODULE_V1,
    &ngx_http_coord_api_module_ctx,        /* module context */
    ngx_http_coord_api_commands,           /* module directives */
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
ngx_http_coord_api_handler(ngx_http_request_t *r)
{
    ngx_int_t                   rc;
    ngx_uint_t                  body;
    const char                 *why;
    ngx_http_cleanup_t         *cln;
    ngx_http_coord_api_t       *api;
    ngx_http_coord_api_conf_t  *acf;

    acf = ngx_http_get_module_loc_conf(r, ngx_http_coord_api_module);

    body = (r->headers_in.content_length_n > 0 || r->headers_in.chunked);

    rc = ngx_http_discard_request_body(r);

    if (rc != NGX_OK) {
        return rc;
    }

    why = acf->public ? NULL : ngx_http_coord_api_stranger(r);

    if (why) {
        return ngx_http_coord_out_problem(r, NGX_HTTP_FORBIDDEN, why);
    }

    cln = ngx_http_cleanup_add(r, sizeof(ngx_http_coord_api_t));
    if (cln == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    api = cln->data;

    ngx_memzero(api, sizeof(ngx_http_coord_api_t));

    api->request = r;
    cln->handler = ngx_http_coord_api_cleanup;

    rc = ngx_http_coord_api_path(r, api);

    if (rc == NGX_OK) {
        rc = ngx_http_coord_api_method(r, api);

        if (rc == NGX_DECLINED) {
            return ngx_http_coord_out_not_allowed(r, api->detail);
        }
    }

    if (rc == NGX_OK && body) {
        api->detail = "No request here has a body.";
        rc = NGX_HTTP_BAD_REQUEST;
    }

    if (rc == NGX_OK) {
        rc = api->route->ask(api);
    }

    if (rc != NGX_OK) {
        return ngx_http_coord_out_problem(r, rc, api->detail);
    }

    ngx_http_coord_api_tag(api);

    if (api->write) {
        ngx_http_coord_api_log(api);
    }

    return ngx_http_coord_api_send(api);
}


/*
 * The path behind the location: <route>/<zone>/<key>.  It is taken from the
 * request as it was sent, so that an encoded slash belongs to a key.
 */

static ngx_int_t
ngx_http_coord_api_path(ngx_http_request_t *r, ngx_http_coord_api_t *api)
{
    ngx_int_t   rc;
    ngx_str_t   parts[NGX_HTTP_COORD_API_PARTS];
    ngx_uint_t  n;

    rc = ngx_http_coord_api_parts(r, parts, &n);

    if (rc != NGX_OK) {
        api->detail = "This path is too long, or not well formed.";
        return rc;
    }

    api->detail = "Ask for <what>/<zone>/<key>.";

    if (n == 0) {
        return NGX_HTTP_NOT_FOUND;
    }

    if (ngx_http_coord_api_route(api, &parts[0]) != NGX_OK
        || n != (api->route->any_zone ? 2 : 3)
        || parts[n - 1].len == 0)
    {
        return NGX_HTTP_NOT_FOUND;
    }

    if (parts[n - 1].len > NGX_HTTP_COORD_API_KEY) {
        api->detail = "This key is too long.";
        return NGX_HTTP_REQUEST_URI_TOO_LARGE;
    }

    api->key = parts[n - 1];

    if (api->route->any_zone == NGX_HTTP_COORD_API_NO_ZONE) {
        return NGX_OK;
    }

    if (api->route->any_zone == NGX_HTTP_COORD_API_ALL_KEYS) {
        ngx_str_null(&api->key);
        return ngx_http_coord_api_zone(r, api, &parts[1]);
    }

    return ngx_http_coord_api_zone(r, api,
                                   api->route->any_zone ? NULL : &parts[1]);
}


/* NGX_DECLINED: no feature has a route of that name */

static ngx_int_t
ngx_http_coord_api_route(ngx_http_coord_api_t *api, ngx_str_t *name)
{
    ngx_uint_t                      i;
    ngx_http_coord_feature_t      **features;
    ngx_http_coord_main_conf_t     *mcf;
    const ngx_http_coord_route_t   *route;

    mcf = ngx_http_get_module_main_conf(api->request, ngx_http_coord_module);
    features = mcf->features.elts;

    for (i = 0; i < mcf->features.nelts; i++) {

        for (route = features[i]->routes; route && route->name.len; route++) {

            if (ngx_http_coord_api_equal(name, &route->name)) {
                api->route = route;
                api->kind = &features[i]->kind;
                return NGX_OK;
            }
        }
    }

    return NGX_DECLINED;
}


/* the decoded parts of the path behind the location, at most three */

static ngx_int_t
ngx_http_coord_api_parts(ngx_http_request_t *r, ngx_str_t *parts,
    ngx_uint_t *n)
{
    u_char                    *p, *last, *start, *src, *dst;
    ngx_uint_t                 i, skip;
    ngx_http_core_loc_conf_t  *clcf;

    clcf = ngx_http_get_module_loc_conf(r, ngx_http_core_module);

    skip = 0;

    for (i = 0; i < clcf->name.len; i++) {
        if (clcf->name.data[i] == '/' && i + 1 < clcf->name.len) {
            skip++;
        }
    }

    p = r->unparsed_uri.data;
    last = p + r->unparsed_uri.len;

    start = ngx_strlchr(p, last, '?');
    last = start ? start : last;

    *n = 0;

    while (p < last && *p == '/') {
        start = ++p;

        while (p < last && *p != '/') {
            p++;
        }

        if (skip) {
            skip--;
            continue;
        }

        if (*n == NGX_HTTP_COORD_API_PARTS) {
            return NGX_HTTP_NOT_FOUND;
        }

        dst = ngx_pnalloc(r->pool, p - start);
        if (dst == NULL) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }

        src = start;
        parts[*n].data = dst;

        ngx_unescape_uri(&dst, &src, p - start, 0);

        parts[*n].len = dst - parts[*n].data;

        if (ngx_strlchr(parts[*n].data, dst, '\0')) {
            return NGX_HTTP_BAD_REQUEST;
        }

        (*n)++;
    }

    return (p == last) ? NGX_OK : NGX_HTTP_BAD_REQUEST;
}


static ngx_uint_t
ngx_http_coord_api_equal(ngx_str_t *a, const ngx_str_t *b)
{
    return a->len == b->len && ngx_memcmp(a->data, b->data, a->len) == 0;
}


/* name NULL: the first zone of the feature */

static ngx_int_t
ngx_http_coord_api_zone(ngx_http_request_t *r, ngx_http_coord_api_t *api,
    ngx_str_t *name)
{
    ngx_uint_t                    i;
    ngx_coord_zone_t             *zone;
    ngx_http_coord_main_conf_t   *mcf;
    ngx_http_coord_zone_conf_t  **zones;

    mcf = ngx_http_get_module_main_conf(r, ngx_http_coord_module);
    zones = mcf->zones.elts;

    for (i = 0; i < mcf->zones.nelts; i++) {
        zone = &zones[i]->zone;

        if (zone->kind == api->kind
            && (name == NULL || ngx_http_coord_api_equal(name, &zone->name)))
        {
            api->zone = zone;
            return NGX_OK;
        }
    }

    api->detail = "There is no such zone.";

    return NGX_HTTP_NOT_FOUND;
}


/* NGX_DECLINED: not allowed, api->detail is the field Allow */

static ngx_int_t
ngx_http_coord_api_method(ngx_http_request_t *r, ngx_http_coord_api_t *api)
{
    ngx_uint_t                  methods;
    ngx_http_coord_api_conf_t  *acf;

    acf = ngx_http_get_module_loc_conf(r, ngx_http_coord_api_module);

    methods = api->route->methods;

    if (!acf->write) {
        methods &= NGX_HTTP_COORD_API_READ;
    }

    if (r->method & methods) {
        api->write = (r->method == NGX_HTTP_DELETE);
        return NGX_OK;
    }

    if (!(methods & NGX_HTTP_GET)) {
        api->detail = (methods & NGX_HTTP_DELETE) ? "DELETE" : "";

    } else {
        api->detail = (methods & NGX_HTTP_DELETE) ? "GET, HEAD, DELETE"
                                                  : "GET, HEAD";
    }

    return NGX_DECLINED;
}


static ngx_int_t
ngx_http_coord_api_send(ngx_http_coord_api_t *api)
{
    ngx_http_request_t  *r;

    r = api->request;
    api->stage++;

    if (api->batch == NULL) {
        return ngx_http_coord_api_respond(api);
    }

    api->batch->handler = ngx_http_coord_api_done;
    api->batch->data = api;

    if (ngx_coord_batch_send(api->batch) == NGX_OK) {
        return ngx_http_coord_api_respond(api);
    }

    /* a batch before this one may have had its answers at once */

    if (!api->waiting) {
        api->waiting = 1;

        r->read_event_handler = ngx_http_test_reading;
        r->write_event_handler = ngx_http_request_empty_handler;
        r->main->count++;
    }

    return NGX_DONE;
}


/* from a posted event */

static void
ngx_http_coord_api_done(ngx_coord_batch_t *batch)
{
    ngx_int_t              rc;
    ngx_connection_t      *c;
    ngx_http_request_t    *r;
    ngx_http_coord_api_t  *api;

    api = batch->data;
    r = api->request;
    c = r->connection;

    ngx_http_set_log_request(c->log, r);

    rc = ngx_http_coord_api_respond(api);

    if (rc == NGX_DONE) {
        return;
    }

    ngx_http_finalize_request(r, rc);
    ngx_http_run_posted_requests(c);
}


/* NGX_DONE: there is another batch to wait for */

static ngx_int_t
ngx_http_coord_api_respond(ngx_http_coord_api_t *api)
{
    ngx_int_t              rc;
    ngx_str_t              type, digest;
    ngx_http_coord_out_t   out;

    rc = ngx_http_coord_api_failed(api);

    if (rc != NGX_DECLINED) {
        return rc;
    }

    ngx_http_coord_out_init(&out, api->request->pool);

    ngx_http_coord_json_open(&out, NULL, '{');

    if (api->tag_len) {
        digest.data = api->tag;
        digest.len = api->tag_len;

        ngx_http_coord_json_string(&out, "digest", &digest);
    }

    rc = api->route->answer(api, &out);

    if (rc == NGX_AGAIN) {
        return ngx_http_coord_api_send(api);
    }

    if (rc != NGX_OK) {
        return ngx_http_coord_out_problem(api->request, rc, api->detail);
    }

    ngx_http_coord_json_close(&out, '}');
    ngx_http_coord_out_text(&out, "\n");

    ngx_str_set(&type, "application/json");

    return ngx_http_coord_out_send(api->request, &out, NGX_HTTP_OK, &type);
}


/* of the key that is asked for first: others may have to be asked, too */

static void
ngx_http_coord_api_tag(ngx_http_coord_api_t *api)
{
    ngx_str_t  key;

    if (api->batch == NULL) {
        return;
    }

    key.data = api->batch->ops[0].key;
    key.len = api->batch->ops[0].key_len;

    api->tag_len = ngx_coord_key_tag(api->tag, &key);
}


/* that somebody was here; which key only to those who know it */

static void
ngx_http_coord_api_log(ngx_http_coord_api_t *api)
{
    ngx_log_error(NGX_LOG_NOTICE, api->request->connection->log, 0,
                  "coord api: deleting from %V of zone \"%V\", key: %*s, "
                  "store: %V", &api->route->name, &api->zone->name,
                  api->tag_len, api->tag, &api->zone->store->name);
}


static void
ngx_http_coord_api_cleanup(void *data)
{
    ngx_http_coord_api_t *api = data;

    if (api->batch) {
        ngx_coord_batch_done(api->batch);
        api->batch = NULL;
    }
}


ngx_int_t
ngx_http_coord_api_place(ngx_http_request_t *r, ngx_str_t *path,
    ngx_uint_t *write)
{
    ngx_uint_t                       i;
    ngx_http_core_srv_conf_t        *cscf;
    ngx_http_coord_api_place_t      *place;
    ngx_http_coord_api_main_conf_t  *amcf;

    amcf = ngx_http_get_module_main_conf(r, ngx_http_coord_api_module);
    cscf = ngx_http_get_module_srv_conf(r, ngx_http_core_module);

    place = amcf->places.elts;

    for (i = 0; i < amcf->places.nelts; i++) {

        if (place[i].server == cscf
            && (place[i].conf->public
                || ngx_http_coord_api_stranger(r) == NULL))
        {
            *path = place[i].location->name;
            *write = place[i].conf->write;
            return NGX_OK;
        }
    }

    return NGX_DECLINED;
}


static void *
ngx_http_coord_api_create_main_conf(ngx_conf_t *cf)
{
    ngx_http_coord_api_main_conf_t  *amcf;

    amcf = ngx_pcalloc(cf->pool, sizeof(ngx_http_coord_api_main_conf_t));

    if (amcf == NULL
        || ngx_array_init(&amcf->places, cf->pool, 1,
                          sizeof(ngx_http_coord_api_place_t))
           != NGX_OK)
    {
        return NULL;
    }

    return amcf;
}


static void *
ngx_http_coord_api_create_conf(ngx_conf_t *cf)
{
    return ngx_pcalloc(cf->pool, sizeof(ngx_http_coord_api_conf_t));
}


static char *
ngx_http_coord_api(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_coord_api_conf_t *acf = conf;

    ngx_str_t                       *value;
    ngx_uint_t                       i;
    ngx_http_core_loc_conf_t        *clcf;
    ngx_http_coord_api_place_t      *place;
    ngx_http_coord_api_main_conf_t  *amcf;

    amcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_coord_api_module);
    clcf = ngx_http_conf_get_module_loc_conf(cf, ngx_http_core_module);

    if (clcf->handler == ngx_http_coord_api_handler) {
        return "is duplicate";
    }

    if (clcf->name.len == 0 || clcf->name.data[0] != '/'
#if (NGX_PCRE)
        || clcf->regex
#endif
        || clcf->exact_match)
    {
        return "is allowed in a location with a prefix only";
    }

    value = cf->args->elts;

    for (i = 1; i < cf->args->nelts; i++) {

        if (ngx_strcmp(value[i].data, "write") == 0) {
            acf->write = 1;
            continue;
        }

        if (ngx_strcmp(value[i].data, "public") == 0) {
            acf->public = 1;
            continue;
        }

        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid parameter \"%V\", allowed are \"write\" "
                           "and \"public\"", &value[i]);
        return NGX_CONF_ERROR;
    }

    place = ngx_array_push(&amcf->places);
    if (place == NULL) {
        return NGX_CONF_ERROR;
    }

    place->server = ngx_http_conf_get_module_srv_conf(cf,
                                                      ngx_http_core_module);
    place->location = clcf;
    place->conf = acf;

    clcf->handler = ngx_http_coord_api_handler;
    ngx_http_coord_exempt(cf);

    return NGX_CONF_OK;
}
