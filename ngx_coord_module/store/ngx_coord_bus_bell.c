
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * How the workers of a node are told that there is a message of a memory store:
 * by one eventfd for all of them, made before they are.  It is never read: with
 * EPOLLET each write is an event in each worker that watches it.  The next
 * generation of workers has the same one, so that those that are leaving are
 * told, too.
 */


#include "ngx_coord_bus_store.h"


#if (NGX_HAVE_EVENTFD)

static void ngx_coord_bus_bell_close(void *data);
static void ngx_coord_bus_bell_handler(ngx_event_t *ev);


ngx_int_t
ngx_coord_bus_bell_init(ngx_coord_bus_t *bus, ngx_coord_bus_t *obus)
{
    ngx_pool_cleanup_t  *cln;

    cln = ngx_pool_cleanup_add(bus->pool, 0);
    if (cln == NULL) {
        return NGX_ERROR;
    }

    bus->bell = (obus && obus->bell != -1)
                ? fcntl(obus->bell, F_DUPFD_CLOEXEC, 0)
                : eventfd(0, EFD_NONBLOCK|EFD_CLOEXEC);

    if (bus->bell == -1) {
        ngx_log_error(NGX_LOG_EMERG, ngx_cycle->log, ngx_errno,
                      "eventfd() failed");
        return NGX_ERROR;
    }

    cln->handler = ngx_coord_bus_bell_close;
    cln->data = bus;

    return NGX_OK;
}


static void
ngx_coord_bus_bell_close(void *data)
{
    ngx_coord_bus_t *bus = data;

    (void) close(bus->bell);

    bus->bell = -1;
}


ngx_int_t
ngx_coord_bus_bell_watch(ngx_coord_bus_t *bus)
{
    ngx_connection_t  *c;

    if (!(ngx_event_flags & NGX_USE_EPOLL_EVENT)) {
        return NGX_DECLINED;
    }

    c = ngx_get_connection(bus->bell, ngx_cycle->log);
    if (c == NULL) {
        return NGX_DECLINED;
    }

    c->data = bus;
    c->read->handler = ngx_coord_bus_bell_handler;
    c->read->log = ngx_cycle->log;

    /* no client's: it does not keep a worker */

    c->read->channel = 1;
    c->write->channel = 1;

    if (ngx_add_event(c->read, NGX_READ_EVENT, NGX_CLEAR_EVENT) != NGX_OK) {
        ngx_free_connection(c);
        return NGX_DECLINED;
    }

    bus->watch = c;

    return NGX_OK;
}


void
ngx_coord_bus_bell_leave(ngx_coord_bus_t *bus)
{
    if (bus->watch == NULL) {
        return;
    }

    (void) ngx_del_event(bus->watch->read, NGX_READ_EVENT, 0);

    if (bus->watch->read->posted) {
        ngx_delete_posted_event(bus->watch->read);
    }

    ngx_free_connection(bus->watch);

    bus->watch->fd = (ngx_socket_t) -1;
    bus->watch = NULL;
}


void
ngx_coord_bus_bell_ring(ngx_coord_bus_t *bus)
{
    ssize_t   n;
    uint64_t  one;

    one = 1;
    n = write(bus->bell, &one, sizeof(uint64_t));

    /* full, after as many messages as there are numbers */

    if (n == -1 && ngx_errno == NGX_EAGAIN) {
        n = read(bus->bell, &one, sizeof(uint64_t));

        one = 1;
        n = write(bus->bell, &one, sizeof(uint64_t));
    }

    if (n == -1) {
        ngx_log_error(NGX_LOG_ALERT, ngx_cycle->log, ngx_errno,
                      "write() to eventfd %d failed", bus->bell);
    }
}


static void
ngx_coord_bus_bell_handler(ngx_event_t *ev)
{
    ngx_connection_t *c = ev->data;

    ngx_coord_bus_t *bus = c->data;

    ngx_post_event(&bus->poll.event, &ngx_posted_events);
}

#else

ngx_int_t
ngx_coord_bus_bell_init(ngx_coord_bus_t *bus, ngx_coord_bus_t *obus)
{
    bus->bell = -1;

    return NGX_OK;
}


ngx_int_t
ngx_coord_bus_bell_watch(ngx_coord_bus_t *bus)
{
    return NGX_DECLINED;
}


void
ngx_coord_bus_bell_leave(ngx_coord_bus_t *bus)
{
}


void
ngx_coord_bus_bell_ring(ngx_coord_bus_t *bus)
{
}

#endif
