
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Messages on their way to Redis.  One that was not sent, or that a server
 * has refused for the time being, is tried again for some seconds, with all
 * that came later behind it; of one that was sent, and not answered, nobody
 * knows, and it is not sent twice.
 *
 * A server may refuse the first of those that are sent together and take the
 * next ones, so that one is tried alone.  Not in a cluster, where those behind
 * it may be for other servers.
 */


#include "ngx_coord_bus_store.h"


#define NGX_COORD_BUS_TICK      100       /* milliseconds */
#define NGX_COORD_BUS_STAY      5000      /* a message is tried for so long */
#define NGX_COORD_BUS_MESSAGES  8192
#define NGX_COORD_BUS_BYTES     (16 * 1024 * 1024)


struct ngx_coord_bus_message_s {
    ngx_coord_redis_call_t     call;
    ngx_queue_t                queue;
    ngx_coord_bus_t           *bus;
    ngx_msec_t                 since;
    ngx_uint_t                 number;        /* messages before it */
    ngx_uint_t                 history;
    ngx_msec_t                 ttl;
    ngx_str_t                  channel;
    ngx_str_t                  text;
    ngx_str_t                  stream;        /* with history */
    u_char                     mark[NGX_COORD_BUS_MARK_LEN];
};


static ngx_coord_bus_message_t *ngx_coord_bus_message_create(
    ngx_coord_bus_t *bus, ngx_str_t *channel, ngx_str_t *text,
    ngx_uint_t history);
static void ngx_coord_bus_message_free(ngx_coord_bus_message_t *m);
static ngx_int_t ngx_coord_bus_message_send(ngx_coord_bus_message_t *m);
static const ngx_coord_script_t *ngx_coord_bus_message_script(
    ngx_coord_bus_message_t *m);
static u_char *ngx_coord_bus_message_encode(ngx_coord_redis_call_t *call,
    u_char *p);
static void ngx_coord_bus_message_handler(ngx_coord_redis_call_t *call,
    ngx_int_t rc, ngx_coord_resp_value_t *reply);
static void ngx_coord_bus_message_failed(ngx_coord_bus_message_t *m);
static void ngx_coord_bus_publish_tick(ngx_event_t *ev);


void
ngx_coord_bus_publish_start(ngx_coord_bus_t *bus)
{
    ngx_queue_init(&bus->messages);
    ngx_queue_init(&bus->kept);

    /* it holds a worker that exits, for no longer than a message is tried */

    ngx_coord_timer_init(&bus->again, ngx_coord_bus_publish_tick, bus,
                         ngx_cycle->log);
}


void
ngx_coord_bus_publish_message(ngx_coord_bus_t *bus, ngx_str_t *channel,
    ngx_str_t *text, ngx_uint_t history, ngx_msec_t ttl)
{
    ngx_coord_bus_message_t  *m;

    if (bus->nmessages >= NGX_COORD_BUS_MESSAGES
        || bus->size + text->len > NGX_COORD_BUS_BYTES)
    {
        ngx_coord_bus_lost(bus, 1, "too many are still to be sent");
        return;
    }

    m = ngx_coord_bus_message_create(bus, channel, text, history);

    if (m == NULL) {
        ngx_coord_bus_lost(bus, 1, "no memory");
        return;
    }

    m->ttl = ttl;

    if (bus->alone || !ngx_queue_empty(&bus->kept)) {
        ngx_queue_insert_tail(&bus->kept, &m->queue);
        return;
    }

    if (ngx_coord_bus_message_send(m) != NGX_OK) {
        ngx_coord_bus_message_failed(m);
    }
}


static ngx_coord_bus_message_t *
ngx_coord_bus_message_create(ngx_coord_bus_t *bus, ngx_str_t *channel,
    ngx_str_t *text, ngx_uint_t history)
{
    size_t                    size;
    u_char                   *p;
    ngx_coord_bus_message_t  *m;

    size = sizeof(ngx_coord_bus_message_t) + channel->len + text->len;

    if (history) {
        size += ngx_coord_bus_stream_size(bus->store);
    }

    m = ngx_alloc(size, ngx_cycle->log);
    if (m == NULL) {
        return NULL;
    }

    ngx_memzero(m, sizeof(ngx_coord_bus_message_t));

    p = (u_char *) m + sizeof(ngx_coord_bus_message_t);

    m->channel.data = p;
    m->channel.len = channel->len;
    p = ngx_cpymem(p, channel->data, channel->len);

    m->text.data = p;
    m->text.len = text->len;
    p = ngx_cpymem(p, text->data, text->len);

    if (history) {
        m->stream.data = p;
        m->stream.len = ngx_coord_bus_stream(bus->store, channel, p);

        if (m->stream.len == 0) {
            ngx_free(m);
            return NULL;
        }

        (void) ngx_coord_bus_mark(m->mark, text);
    }

    m->bus = bus;
    m->since = ngx_current_msec;
    m->number = bus->published++;
    m->history = history;

    bus->nmessages++;
    bus->size += text->len;

    return m;
}


static void
ngx_coord_bus_message_free(ngx_coord_bus_message_t *m)
{
    m->bus->nmessages--;
    m->bus->size -= m->text.len;

    ngx_free(m);
}


u_char *
ngx_coord_bus_mark(u_char *p, ngx_str_t *text)
{
    return ngx_sprintf(p, "%08xD", ngx_crc32_long(text->data, text->len));
}


/* NGX_ERROR: it was not sent, m->call.failure says why */

static ngx_int_t
ngx_coord_bus_message_send(ngx_coord_bus_message_t *m)
{
    ngx_coord_redis_t         *client;
    ngx_coord_redis_call_t    *call;
    const ngx_coord_script_t  *script;

    call = &m->call;
    script = ngx_coord_bus_message_script(m);

    ngx_memzero(call, sizeof(ngx_coord_redis_call_t));

    call->failure = NGX_COORD_FAIL_CONNECT;
    client = ngx_coord_bus_client(m->bus->store);

    if (client == NULL) {
        return NGX_ERROR;
    }

    call->slot = m->history
                 ? ngx_coord_bus_slot(m->bus->store, m->stream.data,
                                      m->stream.len)
                 : ngx_coord_redis_slot(client, &m->channel);

    call->encode = ngx_coord_bus_message_encode;
    call->room = ngx_coord_script_bound(script, m->stream.len,
                                        m->channel.len + 2 * m->text.len);
    call->ncommands = script->ncommands;
    call->form = NGX_COORD_CALL_SHARED;
    call->writes = script->writes;
    call->lane = NGX_COORD_LANE_DECISIONS;
    call->handler = ngx_coord_bus_message_handler;
    call->data = m;

    if (ngx_coord_redis_send(client, call) == NGX_ERROR) {
        return NGX_ERROR;
    }

    ngx_queue_insert_tail(&m->bus->messages, &m->queue);

    return NGX_OK;
}


static const ngx_coord_script_t *
ngx_coord_bus_message_script(ngx_coord_bus_message_t *m)
{
    return &ngx_coord_scripts[m->history ? NGX_COORD_SCRIPT_EVENT_APPEND
                                         : NGX_COORD_SCRIPT_EVENT_PUBLISH];
}


static u_char *
ngx_coord_bus_message_encode(ngx_coord_redis_call_t *call, u_char *p)
{
    ngx_coord_bus_message_t *m = call->data;

    ngx_coord_arg_t  args[NGX_COORD_EVENT_APPEND_NARGS];

    if (m->history == 0) {
        ngx_coord_arg_str(&args[NGX_COORD_EVENT_PUBLISH_CHANNEL],
                          m->channel.data, m->channel.len);
        ngx_coord_arg_str(&args[NGX_COORD_EVENT_PUBLISH_TEXT],
                          m->text.data, m->text.len);

    } else {
        ngx_coord_arg_str(&args[NGX_COORD_EVENT_APPEND_K],
                          m->stream.data, m->stream.len);
        ngx_coord_arg_num(&args[NGX_COORD_EVENT_APPEND_N], m->history);
        ngx_coord_arg_str(&args[NGX_COORD_EVENT_APPEND_TEXT],
                          m->text.data, m->text.len);
        ngx_coord_arg_num(&args[NGX_COORD_EVENT_APPEND_TTL], m->ttl);
        ngx_coord_arg_str(&args[NGX_COORD_EVENT_APPEND_MARK],
                          m->mark, NGX_COORD_BUS_MARK_LEN);
        ngx_coord_arg_str(&args[NGX_COORD_EVENT_APPEND_CHANNEL],
                          m->channel.data, m->channel.len);
    }

    return ngx_coord_script_encode(p, ngx_coord_bus_message_script(m), args);
}


static void
ngx_coord_bus_message_handler(ngx_coord_redis_call_t *call, ngx_int_t rc,
    ngx_coord_resp_value_t *reply)
{
    ngx_coord_bus_message_t *m = call->data;

    ngx_uint_t        i;
    ngx_coord_bus_t  *bus;

    bus = m->bus;

    ngx_queue_remove(&m->queue);

    for (i = 0; rc == NGX_OK && i < call->ncommands; i++) {

        if (reply->type == NGX_COORD_RESP_ERROR) {
            call->failure = ngx_coord_redis_failure(reply);
            call->refused = (call->failure == NGX_COORD_FAIL_UNAVAILABLE
                             && call->ncommands == 1);
            rc = NGX_ERROR;
        }

        reply += reply->next;
    }

    if (bus->alone == m) {
        bus->alone = NULL;

        if (!ngx_queue_empty(&bus->kept)) {
            ngx_coord_timer_start(&bus->again,
                                  rc == NGX_OK ? 0 : NGX_COORD_BUS_TICK);
        }
    }

    if (rc != NGX_OK) {
        ngx_coord_bus_message_failed(m);
        return;
    }

    (void) ngx_atomic_fetch_add(&bus->store->stats->events_published, 1);

    ngx_coord_bus_message_free(m);
}


static void
ngx_coord_bus_message_failed(ngx_coord_bus_message_t *m)
{
    ngx_queue_t              *q;
    ngx_coord_bus_t          *bus;
    ngx_coord_bus_message_t  *other;

    bus = m->bus;

    if ((m->call.sent && !m->call.refused)
        || ngx_coord_bus_client(bus->store) == NULL
        || ngx_current_msec - m->since >= NGX_COORD_BUS_STAY)
    {
        ngx_coord_bus_lost(bus, 1,
                         (char *) ngx_coord_fail_names[m->call.failure].data);
        ngx_coord_bus_message_free(m);
        return;
    }

    /* several that fail at once keep their order */

    for (q = ngx_queue_last(&bus->kept);
         q != ngx_queue_sentinel(&bus->kept);
         q = ngx_queue_prev(q))
    {
        other = ngx_queue_data(q, ngx_coord_bus_message_t, queue);

        if ((ngx_int_t) (other->number - m->number) < 0) {
            break;
        }
    }

    ngx_queue_insert_after(q, &m->queue);

    if (!bus->again.event.timer_set) {
        ngx_coord_timer_start(&bus->again, NGX_COORD_BUS_TICK);
    }
}


static void
ngx_coord_bus_publish_tick(ngx_event_t *ev)
{
    ngx_coord_bus_t *bus = ngx_coord_timer_data(ev);

    ngx_queue_t              *q, again;
    ngx_coord_bus_message_t  *m;

    ngx_queue_init(&again);

    if (!ngx_queue_empty(&bus->kept)) {
        ngx_queue_add(&again, &bus->kept);
        ngx_queue_init(&bus->kept);
    }

    /* what fails goes back, and so does all behind it */

    while (!ngx_queue_empty(&again)) {
        q = ngx_queue_head(&again);
        m = ngx_queue_data(q, ngx_coord_bus_message_t, queue);

        ngx_queue_remove(q);

        if (ngx_current_msec - m->since < NGX_COORD_BUS_STAY
            && (bus->alone || !ngx_queue_empty(&bus->kept)))
        {
            ngx_queue_insert_tail(&bus->kept, &m->queue);
            continue;
        }

        if (ngx_coord_bus_message_send(m) != NGX_OK) {
            ngx_coord_bus_message_failed(m);

        } else if (!bus->store->several) {
            bus->alone = m;
        }
    }

    if (!bus->alone && !ngx_queue_empty(&bus->kept) && !ev->timer_set) {
        ngx_add_timer(ev, NGX_COORD_BUS_TICK);
    }
}


void
ngx_coord_bus_publish_exit(ngx_coord_bus_t *bus)
{
    ngx_queue_t              *q;
    ngx_coord_bus_message_t  *m;

    ngx_coord_timer_stop(&bus->again);

    while (!ngx_queue_empty(&bus->kept)) {
        q = ngx_queue_head(&bus->kept);
        m = ngx_queue_data(q, ngx_coord_bus_message_t, queue);

        ngx_queue_remove(q);

        if (ngx_coord_bus_message_send(m) != NGX_OK) {
            ngx_coord_bus_lost(bus, 1, "the worker has ended");
            ngx_coord_bus_message_free(m);
        }
    }
}


void
ngx_coord_bus_lost(ngx_coord_bus_t *bus, ngx_uint_t n, const char *why)
{
    ngx_uint_t  told;

    (void) ngx_atomic_fetch_add(&bus->store->stats->events_lost, n);

    told = ngx_coord_log_due(&bus->lost, NGX_COORD_LOG_INTERVAL);

    if (told) {
        ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0,
                      "coord store \"%V\": %ui messages of coord_publish may "
                      "be lost: %s", &bus->store->name, told, why);
    }
}
