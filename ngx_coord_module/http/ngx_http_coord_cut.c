
/*
 * Copyright (C) ngx_coord_module contributors
 */


#include "ngx_http_coord_cut.h"


void
ngx_http_coord_cut(ngx_http_request_t *r)
{
    ngx_connection_t  *c;

    c = r->connection;

    if (r->http_version < NGX_HTTP_VERSION_20) {

        /* whoever listens, to the client or to its writes, hears of it */

        if (ngx_shutdown_socket(c->fd, SHUT_RDWR) == -1) {
            ngx_log_error(NGX_LOG_INFO, c->log, ngx_socket_errno,
                          ngx_shutdown_socket_n " failed");
        }

        return;
    }

    /* what a frame that resets the stream does; nginx sends one in turn */

    c->error = 1;
    c->read->error = 1;

    ngx_post_event(c->read, &ngx_posted_events);
}
