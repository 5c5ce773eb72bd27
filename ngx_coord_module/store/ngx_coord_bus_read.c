
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * A look back at what a channel has kept.
 */


#include "ngx_coord_bus_store.h"


typedef struct {
    ngx_coord_bus_read_t       read;          /* must be first */
    ngx_coord_redis_call_t     call;
    ngx_str_t                  key;           /* of the stream */
    unsigned                   flying:1;      /* the client has the call */
    unsigned                   dead:1;        /* nobody waits any more */
} ngx_coord_bus_look_t;


static void ngx_coord_bus_read_redis(ngx_coord_bus_look_t *look);
static u_char *ngx_coord_bus_read_encode(ngx_coord_redis_call_t *call,
    u_char *p);
static void ngx_coord_bus_read_handler(ngx_coord_redis_call_t *call,
    ngx_int_t rc, ngx_coord_resp_value_t *reply);
static ngx_int_t ngx_coord_bus_read_page(ngx_coord_bus_read_t *read,
    ngx_coord_resp_value_t *head, ngx_coord_resp_value_t *page);
static ngx_int_t ngx_coord_bus_read_entry(ngx_coord_resp_value_t *value,
    ngx_coord_event_t *ev);
static void ngx_coord_bus_read_done(ngx_event_t *ev);


ngx_coord_bus_read_t *
ngx_coord_bus_read_create(ngx_coord_store_t *store, ngx_str_t *channel)
{
    size_t                 size;
    ngx_coord_bus_look_t  *look;
    ngx_coord_bus_read_t  *read;

    size = sizeof(ngx_coord_bus_look_t) + channel->len
           + ngx_coord_bus_stream_size(store);

    look = ngx_calloc(size, ngx_cycle->log);
    if (look == NULL) {
        return NULL;
    }

    read = &look->read;

    read->store = store;

    read->channel.data = (u_char *) look + sizeof(ngx_coord_bus_look_t);
    read->channel.len = channel->len;

    look->key.data = ngx_cpymem(read->channel.data, channel->data,
                                channel->len);
    look->key.len = ngx_coord_bus_stream(store, channel, look->key.data);

    if (look->key.len == 0) {
        ngx_free(look);
        return NULL;
    }

    read->post.handler = ngx_coord_bus_read_done;
    read->post.data = read;
    read->post.log = ngx_cycle->log;

    return read;
}


void
ngx_coord_bus_read_free(ngx_coord_bus_read_t *read)
{
    ngx_coord_bus_look_t  *look;

    look = (ngx_coord_bus_look_t *) read;

    if (look->flying) {
        look->dead = 1;
        return;
    }

    if (read->post.posted) {
        ngx_delete_posted_event(&read->post);
    }

    ngx_free(look);
}


void
ngx_coord_bus_read_key(ngx_coord_bus_read_t *read, ngx_str_t *key)
{
    *key = ((ngx_coord_bus_look_t *) read)->key;
}


void
ngx_coord_bus_read(ngx_coord_bus_read_t *read)
{
    read->busy = 1;

    if (ngx_coord_store_is_memory(read->store)) {
        read->rc = ngx_coord_bus_memory_read(read->store->bus, read);
        ngx_post_event(&read->post, &ngx_posted_events);
        return;
    }

    ngx_coord_bus_read_redis((ngx_coord_bus_look_t *) read);
}


static void
ngx_coord_bus_read_redis(ngx_coord_bus_look_t *look)
{
    ngx_coord_redis_t         *client;
    ngx_coord_redis_call_t    *call;
    const ngx_coord_script_t  *script;

    call = &look->call;
    script = &ngx_coord_scripts[NGX_COORD_SCRIPT_EVENT_READ];
    client = ngx_coord_bus_client(look->read.store);

    ngx_memzero(call, sizeof(ngx_coord_redis_call_t));

    call->encode = ngx_coord_bus_read_encode;
    call->room = ngx_coord_script_bound(script, look->key.len, 0);
    call->ncommands = script->ncommands;
    call->form = NGX_COORD_CALL_ALONE;
    call->lane = NGX_COORD_LANE_BULK;
    call->handler = ngx_coord_bus_read_handler;
    call->data = look;

    if (client) {
        call->slot = ngx_coord_bus_slot(look->read.store, look->key.data,
                                        look->key.len);
    }

    if (client == NULL || ngx_coord_redis_send(client, call) == NGX_ERROR) {
        look->read.rc = NGX_ERROR;
        ngx_post_event(&look->read.post, &ngx_posted_events);
        return;
    }

    look->flying = 1;
}


static u_char *
ngx_coord_bus_read_encode(ngx_coord_redis_call_t *call, u_char *p)
{
    ngx_coord_bus_look_t *look = call->data;

    u_char                *last, after[1 + NGX_COORD_EVENT_ID_LEN];
    ngx_coord_arg_t        args[NGX_COORD_EVENT_READ_NARGS];
    ngx_coord_bus_read_t  *read;

    read = &look->read;
    last = after;

    /* nothing can be behind the last of all ids, and Redis says so */

    if (read->after.ms != UINT64_MAX || read->after.seq != UINT64_MAX) {
        *last++ = '(';
    }

    last = ngx_coord_event_id_print(last, &read->after);

    ngx_coord_arg_str(&args[NGX_COORD_EVENT_READ_K], look->key.data,
                      look->key.len);
    ngx_coord_arg_str(&args[NGX_COORD_EVENT_READ_AFTER], after, last - after);
    ngx_coord_arg_num(&args[NGX_COORD_EVENT_READ_N], NGX_COORD_BUS_PAGE);

    return ngx_coord_script_encode(p,
                              &ngx_coord_scripts[NGX_COORD_SCRIPT_EVENT_READ],
                              args);
}


static void
ngx_coord_bus_read_handler(ngx_coord_redis_call_t *call, ngx_int_t rc,
    ngx_coord_resp_value_t *reply)
{
    ngx_coord_bus_look_t *look = call->data;

    ngx_coord_bus_read_t  *read;

    read = &look->read;
    look->flying = 0;

    if (look->dead) {
        ngx_free(look);
        return;
    }

    read->rc = NGX_ERROR;

    if (rc == NGX_OK) {
        read->rc = ngx_coord_bus_read_page(read, reply, reply + reply->next);
    }

    ngx_post_event(&read->post, &ngx_posted_events);
}


static ngx_int_t
ngx_coord_bus_read_page(ngx_coord_bus_read_t *read,
    ngx_coord_resp_value_t *head, ngx_coord_resp_value_t *page)
{
    ngx_uint_t               i;
    ngx_coord_event_t        ev;
    ngx_coord_resp_value_t  *value;

    ngx_memzero(&read->head, sizeof(ngx_coord_event_id_t));

    if (head->type != NGX_COORD_RESP_ARRAY
        || page->type != NGX_COORD_RESP_ARRAY)
    {
        return NGX_ERROR;
    }

    value = ngx_coord_resp_element(head, 0);

    if (value) {

        if (ngx_coord_bus_read_entry(value, &ev) != NGX_OK) {
            return NGX_ERROR;
        }

        read->head = ev.id;
    }

    for (i = 0; /* void */ ; i++) {
        value = ngx_coord_resp_element(page, i);

        if (value == NULL) {
            break;
        }

        if (ngx_coord_bus_read_entry(value, &ev) != NGX_OK) {
            return NGX_ERROR;
        }

        /* in order, or these are not the replies of a stream */

        if (ngx_coord_event_id_cmp(&ev.id, &read->after) <= 0) {
            return NGX_ERROR;
        }

        read->after = ev.id;
        read->event(read, &ev);
    }

    return i == NGX_COORD_BUS_PAGE ? NGX_AGAIN : NGX_OK;
}


/* an id and fields; the message is the value of the first one */

static ngx_int_t
ngx_coord_bus_read_entry(ngx_coord_resp_value_t *value, ngx_coord_event_t *ev)
{
    ngx_str_t                id;
    ngx_coord_resp_value_t  *fields;

    if (value->type != NGX_COORD_RESP_ARRAY
        || ngx_coord_resp_string(ngx_coord_resp_element(value, 0), &id)
           != NGX_OK
        || ngx_coord_event_id_parse(id.data, id.len, &ev->id) != NGX_OK)
    {
        return NGX_ERROR;
    }

    fields = ngx_coord_resp_element(value, 1);

    if (fields == NULL
        || ngx_coord_resp_string(ngx_coord_resp_element(fields, 1), &ev->text)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    ev->plain = 0;
    ev->kept = 1;

    return NGX_OK;
}


static void
ngx_coord_bus_read_done(ngx_event_t *ev)
{
    ngx_coord_bus_read_t *read = ev->data;

    read->busy = 0;
    read->done(read, read->rc);
}
