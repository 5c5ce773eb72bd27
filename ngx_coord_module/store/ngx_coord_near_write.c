
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * What near caches write: a value that was made for a key that had none, and
 * the message that a key has changed.
 */


#include "ngx_coord_near_worker.h"
#include "ngx_coord_script.h"
#include "ngx_coord_store_redis.h"


#define NGX_COORD_NEAR_SET  "*6" CRLF "$3" CRLF "SET" CRLF
#define NGX_COORD_NEAR_PX   "$2" CRLF "PX" CRLF
#define NGX_COORD_NEAR_NX   "$2" CRLF "NX" CRLF

#define NGX_COORD_NEAR_PUBLISH  "*3" CRLF "$7" CRLF "PUBLISH" CRLF


typedef struct {
    ngx_coord_redis_call_t     call;
    ngx_str_t                  channel;       /* empty: it is a value */
    ngx_str_t                  key;
    ngx_str_t                  value;
    ngx_msec_t                 ttl;
} ngx_coord_near_write_t;


static void ngx_coord_near_send(ngx_coord_redis_t *client, ngx_str_t *prefix,
    ngx_str_t *key, ngx_str_t *value, ngx_msec_t ttl);
static u_char *ngx_coord_near_write_encode(ngx_coord_redis_call_t *call,
    u_char *p);
static void ngx_coord_near_written(ngx_coord_redis_call_t *call, ngx_int_t rc,
    ngx_coord_resp_value_t *reply);


void
ngx_coord_near_write(ngx_coord_near_item_t *item, ngx_str_t *value)
{
    ngx_coord_redis_t        *client;
    ngx_coord_store_t        *store;
    ngx_coord_near_answer_t   answer;

    store = item->near->zone->store;

    if (ngx_coord_store_is_memory(store)) {
        answer.state = NGX_COORD_NEAR_VALUE;
        answer.value = *value;

        ngx_coord_near_keep(item, &answer, NGX_COORD_NEAR_ALWAYS,
                            ngx_coord_near_news(item));
        return;
    }

    client = ngx_coord_store_redis(store)->client;

    if (client == NULL) {
        return;
    }

    ngx_coord_near_send(client, NULL, &item->key, value, item->ttl);
}


void
ngx_coord_near_tell_all(ngx_coord_store_t *store, ngx_str_t *key)
{
    ngx_str_t           none;
    ngx_coord_redis_t  *client;

    if (ngx_coord_store_is_memory(store)) {
        return;
    }

    client = ngx_coord_store_redis(store)->client;

    if (client) {
        ngx_str_null(&none);
        ngx_coord_near_send(client, &store->key_prefix, key, &none, 0);
    }
}


/* prefix: of the channel that hears of the key; NULL: it is a value */

static void
ngx_coord_near_send(ngx_coord_redis_t *client, ngx_str_t *prefix,
    ngx_str_t *key, ngx_str_t *value, ngx_msec_t ttl)
{
    u_char                  *p;
    ngx_str_t                tag;
    ngx_coord_near_write_t  *w;

    w = ngx_calloc(sizeof(ngx_coord_near_write_t) + key->len + value->len
                   + (prefix ? prefix->len + sizeof(NGX_COORD_NEAR_CHANNEL) - 1
                             : 0),
                   ngx_cycle->log);
    if (w == NULL) {
        return;
    }

    w->key.len = key->len;
    w->key.data = (u_char *) (w + 1);
    w->value.len = value->len;
    w->value.data = ngx_cpymem(w->key.data, key->data, key->len);
    p = ngx_cpymem(w->value.data, value->data, value->len);

    if (prefix) {
        w->channel.data = p;
        p = ngx_cpymem(p, prefix->data, prefix->len);
        p = ngx_cpymem(p, NGX_COORD_NEAR_CHANNEL,
                       sizeof(NGX_COORD_NEAR_CHANNEL) - 1);
        w->channel.len = p - w->channel.data;
    }

    w->ttl = ttl;

    w->call.encode = ngx_coord_near_write_encode;
    w->call.room = sizeof(NGX_COORD_NEAR_SET NGX_COORD_NEAR_PX
                          NGX_COORD_NEAR_NX)
                   + sizeof(NGX_COORD_NEAR_PUBLISH) + 3 * NGX_COORD_NEAR_BULK
                   + w->key.len + w->value.len + NGX_INT64_LEN
                   + w->channel.len;
    w->call.handler = ngx_coord_near_written;
    w->call.data = w;
    w->call.ncommands = 1;
    w->call.form = NGX_COORD_CALL_PLAIN;
    w->call.foreign = 1;
    w->call.writes = (prefix == NULL);

    tag = ngx_coord_near_tag(&w->key);
    w->call.slot = ngx_coord_redis_slot(client, &tag);

    if (ngx_coord_redis_send(client, &w->call) == NGX_ERROR) {
        ngx_free(w);
    }
}


static u_char *
ngx_coord_near_write_encode(ngx_coord_redis_call_t *call, u_char *p)
{
    u_char                   buf[NGX_INT64_LEN];
    ngx_str_t                ttl;
    ngx_coord_near_write_t  *w;

    w = call->data;

    if (w->channel.len) {
        p = ngx_cpymem(p, NGX_COORD_NEAR_PUBLISH,
                       sizeof(NGX_COORD_NEAR_PUBLISH) - 1);
        p = ngx_coord_script_string(p, w->channel.data, w->channel.len);
        return ngx_coord_script_string(p, w->key.data, w->key.len);
    }

    ttl.data = buf;
    ttl.len = ngx_sprintf(buf, "%M", w->ttl) - buf;

    p = ngx_cpymem(p, NGX_COORD_NEAR_SET, sizeof(NGX_COORD_NEAR_SET) - 1);
    p = ngx_coord_script_string(p, w->key.data, w->key.len);
    p = ngx_coord_script_string(p, w->value.data, w->value.len);
    p = ngx_cpymem(p, NGX_COORD_NEAR_PX, sizeof(NGX_COORD_NEAR_PX) - 1);
    p = ngx_coord_script_string(p, ttl.data, ttl.len);

    return ngx_cpymem(p, NGX_COORD_NEAR_NX, sizeof(NGX_COORD_NEAR_NX) - 1);
}


/* what is not written is loaded again */

static void
ngx_coord_near_written(ngx_coord_redis_call_t *call, ngx_int_t rc,
    ngx_coord_resp_value_t *reply)
{
    ngx_free(call->data);
}
