
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * A request to listen: what it may ask, and where it was before.
 */


#include "ngx_http_coord_events.h"


static ngx_int_t ngx_http_coord_events_channels(ngx_http_request_t *r,
    ngx_http_coord_events_conf_t *conf, ngx_str_t *channels, ngx_uint_t *n,
    const char **why);
static ngx_uint_t ngx_http_coord_events_twice(ngx_str_t *channels,
    ngx_uint_t n, ngx_str_t *channel);
static ngx_int_t ngx_http_coord_events_invalid(ngx_http_request_t *r,
    const char *why);
static ngx_int_t ngx_http_coord_events_join(ngx_http_request_t *r,
    ngx_http_coord_events_conf_t *conf, ngx_str_t *channels, ngx_uint_t n);
static void ngx_http_coord_events_returns(ngx_http_request_t *r,
    ngx_http_coord_client_t *client);
static ngx_int_t ngx_http_coord_events_last_id(ngx_http_request_t *r,
    ngx_str_t *value);


static ngx_str_t  ngx_http_coord_events_last = ngx_string("last-event-id");


ngx_int_t
ngx_http_coord_events_handler(ngx_http_request_t *r)
{
    ngx_int_t                      rc;
    ngx_str_t                      channels[NGX_HTTP_COORD_EVENTS_CHANNELS];
    ngx_uint_t                     n;
    const char                    *why;
    ngx_http_coord_events_conf_t  *conf;

    conf = ngx_http_get_module_loc_conf(r, ngx_http_coord_events_module);

    if (r != r->main) {
        ngx_log_error(NGX_LOG_ERR, r->connection->log, 0,
                      "coord_subscribe in a subrequest: it would never end");
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    rc = ngx_http_discard_request_body(r);

    if (rc != NGX_OK) {
        return rc;
    }

    if (!(r->method & (NGX_HTTP_GET|NGX_HTTP_HEAD))) {
        return ngx_http_coord_out_not_allowed(r, "GET, HEAD");
    }

    rc = ngx_http_coord_events_channels(r, conf, channels, &n, &why);

    if (rc == NGX_DECLINED) {
        return ngx_http_coord_events_invalid(r, why);
    }

    if (rc != NGX_OK) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    if (r->method == NGX_HTTP_HEAD) {
        return ngx_http_coord_client_header(r);
    }

    return ngx_http_coord_events_join(r, conf, channels, n);
}


/* those that are not empty; NGX_DECLINED: no good, *why tells */

static ngx_int_t
ngx_http_coord_events_channels(ngx_http_request_t *r,
    ngx_http_coord_events_conf_t *conf, ngx_str_t *channels, ngx_uint_t *n,
    const char **why)
{
    ngx_str_t                   value;
    ngx_uint_t                  i;
    ngx_http_complex_value_t  **cv;

    *n = 0;
    cv = conf->channels->elts;

    for (i = 0; i < conf->channels->nelts; i++) {

        if (ngx_http_complex_value(r, cv[i], &value) != NGX_OK) {
            return NGX_ERROR;
        }

        if (value.len == 0
            || ngx_http_coord_events_twice(channels, *n, &value))
        {
            continue;
        }

        *why = ngx_coord_bus_check(conf->use->store, &value);

        if (*why) {
            return NGX_DECLINED;
        }

        channels[(*n)++] = value;
    }

    if (*n == 0) {
        *why = "channel is empty";
        return NGX_DECLINED;
    }

    return NGX_OK;
}


static ngx_uint_t
ngx_http_coord_events_twice(ngx_str_t *channels, ngx_uint_t n,
    ngx_str_t *channel)
{
    ngx_uint_t  i;

    for (i = 0; i < n; i++) {
        if (channels[i].len == channel->len
            && ngx_memcmp(channels[i].data, channel->data, channel->len) == 0)
        {
            return 1;
        }
    }

    return 0;
}


static ngx_int_t
ngx_http_coord_events_invalid(ngx_http_request_t *r, const char *why)
{
    u_char  *p, detail[128];

    p = ngx_snprintf(detail, sizeof(detail) - 1, "The %s.", why);
    *p = '\0';

    ngx_log_error(NGX_LOG_INFO, r->connection->log, 0,
                  "coord_subscribe: the %s", why);

    return ngx_http_coord_out_problem(r, NGX_HTTP_BAD_REQUEST,
                                      (char *) detail);
}


static ngx_int_t
ngx_http_coord_events_join(ngx_http_request_t *r,
    ngx_http_coord_events_conf_t *conf, ngx_str_t *channels, ngx_uint_t n)
{
    ngx_int_t                   rc;
    ngx_uint_t                  i;
    ngx_http_coord_client_t    *client;
    ngx_http_coord_loc_conf_t  *lcf;

    client = ngx_http_coord_client_create(r, n);
    if (client == NULL) {
        return NGX_HTTP_INTERNAL_SERVER_ERROR;
    }

    lcf = ngx_http_get_module_loc_conf(r, ngx_http_coord_module);

    client->store = conf->use->store;
    client->heartbeat = conf->heartbeat;
    client->history = conf->history;
    client->on_failure = lcf->on_failure;

    if (client->history) {
        ngx_http_coord_events_returns(r, client);
    }

    for (i = 0; i < n; i++) {
        rc = ngx_http_coord_hub_join(&client->links[i], &channels[i]);

        if (rc == NGX_ERROR) {
            return NGX_HTTP_INTERNAL_SERVER_ERROR;
        }
    }

    for (i = 0; i < n; i++) {
        if (client->links[i].hub->listener.heard) {
            ngx_http_coord_link_ready(&client->links[i]);
        }
    }

    ngx_http_coord_client_start(client);

    return NGX_DONE;
}


/*
 * Where the client was: an id, or one for each channel.  What is no id is none,
 * as with a client that comes for the first time.
 */

static void
ngx_http_coord_events_returns(ngx_http_request_t *r,
    ngx_http_coord_client_t *client)
{
    u_char                *p, *last, *comma;
    ngx_str_t              value;
    ngx_uint_t             i, n;
    ngx_coord_event_id_t   ids[NGX_HTTP_COORD_EVENTS_CHANNELS];

    if (ngx_http_coord_events_last_id(r, &value) != NGX_OK) {
        return;
    }

    n = 0;
    last = value.data + value.len;

    for (p = value.data; /* void */ ; p = comma + 1) {

        if (n == client->nlinks) {
            return;
        }

        comma = ngx_strlchr(p, last, ',');

        if (ngx_coord_event_id_parse(p, (comma ? comma : last) - p, &ids[n++])
            != NGX_OK)
        {
            return;
        }

        if (comma == NULL) {
            break;
        }
    }

    if (n != 1 && n != client->nlinks) {
        return;
    }

    for (i = 0; i < client->nlinks; i++) {
        client->links[i].position = ids[n == 1 ? 0 : i];
        client->links[i].returns = 1;
    }
}


/* the field that a browser sends, or the argument of one that cannot */

static ngx_int_t
ngx_http_coord_events_last_id(ngx_http_request_t *r, ngx_str_t *value)
{
    u_char           *src, *dst;
    ngx_str_t         arg;
    ngx_uint_t        i;
    ngx_list_part_t  *part;
    ngx_table_elt_t  *h;

    part = &r->headers_in.headers.part;
    h = part->elts;

    for (i = 0; /* void */ ; i++) {

        if (i >= part->nelts) {
            if (part->next == NULL) {
                break;
            }

            part = part->next;
            h = part->elts;
            i = 0;
        }

        if (h[i].key.len == ngx_http_coord_events_last.len
            && ngx_strncasecmp(h[i].key.data, ngx_http_coord_events_last.data,
                               h[i].key.len)
               == 0)
        {
            *value = h[i].value;
            return NGX_OK;
        }
    }

    if (ngx_http_arg(r, (u_char *) "last_event_id",
                     sizeof("last_event_id") - 1, &arg)
        != NGX_OK)
    {
        return NGX_DECLINED;
    }

    dst = ngx_pnalloc(r->pool, arg.len);
    if (dst == NULL) {
        return NGX_DECLINED;
    }

    src = arg.data;
    value->data = dst;

    ngx_unescape_uri(&dst, &src, arg.len, 0);

    value->len = dst - value->data;

    return NGX_OK;
}
