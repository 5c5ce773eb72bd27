
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * A subrequest in the background: no client waits for its response.  The pipe
 * of an upstream waits for the connection of the client, until it is the turn
 * of its request, and its buffers may be all that there is for the response.
 * So it has a client of its own, which takes everything at once.
 */


#include "ngx_http_coord.h"


typedef struct {
    ngx_connection_t    connection;
    ngx_event_t         write;
    ngx_int_t         (*init)(void *data);   /* input_filter_init */
} ngx_http_coord_taker_t;


static ngx_int_t ngx_http_coord_take_init(void *data);


ngx_int_t
ngx_http_coord_take(ngx_http_request_t *r)
{
    ngx_http_upstream_t     *u;
    ngx_http_coord_taker_t  *taker;

    u = r->upstream;

    if (u == NULL || u->pipe == NULL || u->pipe->input_ctx != r) {
        return NGX_OK;
    }

    taker = ngx_pcalloc(r->pool, sizeof(ngx_http_coord_taker_t));
    if (taker == NULL) {
        return NGX_ERROR;
    }

    taker->write.ready = 1;

    taker->connection.fd = (ngx_socket_t) -1;
    taker->connection.data = r;
    taker->connection.write = &taker->write;

    /* the last that is called before the pipe is used */

    taker->init = u->input_filter_init;
    u->input_filter_init = ngx_http_coord_take_init;

    ngx_http_set_ctx(r, taker, ngx_http_coord_filter_module);

    if (!u->buffering) {
        u->buffering = 1;
        u->cacheable = 0;
        u->store = 0;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_http_coord_take_init(void *data)
{
    ngx_http_request_t *r = data;

    ngx_http_upstream_t     *u;
    ngx_http_coord_taker_t  *taker;

    u = r->upstream;
    taker = ngx_http_get_module_ctx(r, ngx_http_coord_filter_module);

    u->pipe->downstream = &taker->connection;
    u->input_filter_init = taker->init;

    return taker->init ? taker->init(data) : NGX_OK;
}
