
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Telling and hearing what the nodes of a store are at.  One worker of a node
 * does it for all, every NGX_COORD_FLEET_INTERVAL: it leaves the summary of
 * its node, asks who there is, and reads what those tell.
 */


#include "ngx_coord_fleet_shm.h"
#include "ngx_coord_script.h"
#include "ngx_coord_store_redis.h"


#define NGX_COORD_FLEET_INTERVAL  3000       /* milliseconds */
#define NGX_COORD_FLEET_KEY       256        /* bytes of "<prefix>st:<node>" */


/* a question on its way */
typedef struct {
    ngx_coord_redis_call_t     call;
    const ngx_coord_script_t  *script;
    ngx_coord_arg_t            args[NGX_COORD_NODE_LIST_NARGS];
    ngx_str_t                  name;         /* READ: of the node */
    size_t                     key_len;
    unsigned                   busy:1;
    u_char                     key[NGX_COORD_FLEET_KEY];
    u_char                     name_data[NGX_COORD_SUMMARY_WORD];
} ngx_coord_fleet_ask_t;


/* of this worker */
typedef struct {
    ngx_coord_metrics_t       *metrics;
    ngx_coord_store_t         *store;
    ngx_coord_timer_t          timer;
    ngx_coord_fleet_ask_t      tell;
    ngx_coord_fleet_ask_t      list;
    ngx_coord_fleet_ask_t     *reads;        /* NGX_COORD_FLEET_NODES */
    u_char                    *text;
} ngx_coord_fleet_t;


static void ngx_coord_fleet_tick(ngx_event_t *ev);
static void ngx_coord_fleet_tell(void);
static void ngx_coord_fleet_list(void);
static void ngx_coord_fleet_read(ngx_coord_fleet_ask_t *ask, ngx_str_t *name);
static ngx_int_t ngx_coord_fleet_ask(ngx_coord_fleet_ask_t *ask,
    ngx_uint_t script, ngx_str_t *name);
static void ngx_coord_fleet_send(ngx_coord_fleet_ask_t *ask);
static u_char *ngx_coord_fleet_encode(ngx_coord_redis_call_t *call,
    u_char *p);
static void ngx_coord_fleet_told(ngx_coord_redis_call_t *call, ngx_int_t rc,
    ngx_coord_resp_value_t *reply);
static void ngx_coord_fleet_listed(ngx_coord_redis_call_t *call,
    ngx_int_t rc, ngx_coord_resp_value_t *reply);
static void ngx_coord_fleet_heard(ngx_coord_redis_call_t *call, ngx_int_t rc,
    ngx_coord_resp_value_t *reply);


static ngx_coord_fleet_t  ngx_coord_fleet;


ngx_int_t
ngx_coord_fleet_start(ngx_coord_metrics_t *metrics, ngx_cycle_t *cycle)
{
    ngx_coord_fleet_stop();

    if (metrics->fleet == NULL) {
        return NGX_OK;
    }

    ngx_coord_fleet.text = ngx_alloc(NGX_COORD_SUMMARY_SIZE, cycle->log);
    ngx_coord_fleet.reads = ngx_calloc(NGX_COORD_FLEET_NODES
                                       * sizeof(ngx_coord_fleet_ask_t),
                                       cycle->log);

    if (ngx_coord_fleet.text == NULL || ngx_coord_fleet.reads == NULL) {
        return NGX_ERROR;
    }

    ngx_coord_fleet.metrics = metrics;
    ngx_coord_fleet.store = ngx_coord_fleet_store(metrics);
    ngx_coord_fleet.store->nodes = &metrics->fleet->nodes;

    ngx_coord_timer_init(&ngx_coord_fleet.timer, ngx_coord_fleet_tick, NULL,
                         cycle->log);
    ngx_coord_fleet.timer.event.cancelable = 1;

    ngx_coord_timer_start(&ngx_coord_fleet.timer, 1);

    return NGX_OK;
}


void
ngx_coord_fleet_stop(void)
{
    ngx_coord_timer_stop(&ngx_coord_fleet.timer);

    if (ngx_coord_fleet.text) {
        ngx_free(ngx_coord_fleet.text);
    }

    if (ngx_coord_fleet.reads) {
        ngx_free(ngx_coord_fleet.reads);
    }

    ngx_memzero(&ngx_coord_fleet, sizeof(ngx_coord_fleet_t));
}


static void
ngx_coord_fleet_tick(ngx_event_t *ev)
{
    ngx_atomic_uint_t       turn, now;
    ngx_coord_fleet_shm_t  *shm;

    shm = ngx_coord_fleet.metrics->fleet;

    turn = shm->turn;
    now = ngx_current_msec / NGX_COORD_FLEET_INTERVAL;

    /* who cannot ask leaves it to another */

    if (turn != now
        && !ngx_exiting
        && !ngx_coord_fleet.tell.busy
        && !ngx_coord_fleet.list.busy
        && ngx_coord_store_ready(ngx_coord_fleet.store)
        && ngx_atomic_cmp_set(&shm->turn, turn, now))
    {
        ngx_coord_fleet_tell();
        ngx_coord_fleet_list();
    }

    if (!ngx_exiting) {
        ngx_add_timer(ev, 500 + ngx_random() % 500);
    }
}


static void
ngx_coord_fleet_tell(void)
{
    ngx_str_t               name;
    ngx_coord_fleet_ask_t  *ask;

    ask = &ngx_coord_fleet.tell;

    name.data = ngx_coord_fleet.metrics->fleet->name;
    name.len = ngx_coord_fleet.metrics->fleet->name_len;

    if (ngx_coord_fleet_ask(ask, NGX_COORD_SCRIPT_NODE_TELL, &name) != NGX_OK) {
        return;
    }

    ngx_coord_arg_str(&ask->args[NGX_COORD_NODE_TELL_TEXT],
                      ngx_coord_fleet.text,
                      ngx_coord_fleet_write(ngx_coord_fleet.metrics,
                                            ngx_coord_fleet.text));
    ngx_coord_arg_num(&ask->args[NGX_COORD_NODE_TELL_TTL],
                      NGX_COORD_FLEET_GONE);

    ask->call.handler = ngx_coord_fleet_told;

    ngx_coord_fleet_send(ask);
}


static void
ngx_coord_fleet_list(void)
{
    ngx_coord_nsec_t        now;
    ngx_coord_fleet_ask_t  *ask;
    ngx_coord_fleet_shm_t  *shm;

    ask = &ngx_coord_fleet.list;
    shm = ngx_coord_fleet.metrics->fleet;

    if (ngx_coord_fleet_ask(ask, NGX_COORD_SCRIPT_NODE_LIST, NULL) != NGX_OK) {
        return;
    }

    now = ngx_coord_redis_now(ngx_coord_store_redis(ngx_coord_fleet.store)
                              ->client, ask->call.slot)
          / NGX_COORD_NSEC_PER_USEC;

    ngx_coord_arg_str(&ask->args[NGX_COORD_NODE_LIST_NODE], shm->name,
                      shm->name_len);
    ngx_coord_arg_num(&ask->args[NGX_COORD_NODE_LIST_NOW], now);
    ngx_coord_arg_num(&ask->args[NGX_COORD_NODE_LIST_OLD],
                      now - NGX_COORD_FLEET_GONE * 1000);
    ngx_coord_arg_num(&ask->args[NGX_COORD_NODE_LIST_TTL],
                      NGX_COORD_FLEET_GONE);
    ngx_coord_arg_num(&ask->args[NGX_COORD_NODE_LIST_LAST],
                      NGX_COORD_FLEET_NODES);

    ask->call.handler = ngx_coord_fleet_listed;

    ngx_coord_fleet_send(ask);
}


static void
ngx_coord_fleet_read(ngx_coord_fleet_ask_t *ask, ngx_str_t *name)
{
    if (ask->busy
        || ngx_coord_fleet_ask(ask, NGX_COORD_SCRIPT_NODE_READ, name)
           != NGX_OK)
    {
        return;
    }

    ngx_memcpy(ask->name_data, name->data, name->len);
    ask->name.data = ask->name_data;
    ask->name.len = name->len;

    ask->call.handler = ngx_coord_fleet_heard;

    ngx_coord_fleet_send(ask);
}


/* a question about the node of a name, or, NULL, about all of them */

static ngx_int_t
ngx_coord_fleet_ask(ngx_coord_fleet_ask_t *ask, ngx_uint_t script,
    ngx_str_t *name)
{
    u_char     *p;
    ngx_str_t   key, *prefix;

    prefix = &ngx_coord_fleet.store->key_prefix;

    if (prefix->len + sizeof("st:") + (name ? name->len : 0)
        > NGX_COORD_FLEET_KEY)
    {
        return NGX_DECLINED;
    }

    ngx_memzero(ask, sizeof(ngx_coord_fleet_ask_t));

    p = ngx_sprintf(ask->key, "%Vst", prefix);

    if (name) {
        p = ngx_sprintf(p, ":%V", name);
    }

    key.data = ask->key;
    key.len = p - ask->key;

    ask->key_len = key.len;
    ask->call.slot = ngx_coord_redis_slot(
                        ngx_coord_store_redis(ngx_coord_fleet.store)->client,
                        &key);
    ask->script = &ngx_coord_scripts[script];

    /* the only key of these scripts is their first argument */

    ngx_coord_arg_str(&ask->args[0], ask->key, ask->key_len);

    return NGX_OK;
}


static void
ngx_coord_fleet_send(ngx_coord_fleet_ask_t *ask)
{
    ngx_coord_redis_t       *client;
    ngx_coord_redis_call_t  *call;

    call = &ask->call;

    call->encode = ngx_coord_fleet_encode;
    call->room = ngx_coord_script_bound(ask->script, ask->key_len,
                                        NGX_COORD_SUMMARY_SIZE);
    call->ncommands = ask->script->ncommands;
    call->form = (call->ncommands > 1) ? NGX_COORD_CALL_ALONE
                                       : NGX_COORD_CALL_PLAIN;
    call->writes = ask->script->writes;
    call->data = ask;

    client = ngx_coord_store_redis(ngx_coord_fleet.store)->client;

    ask->busy = (ngx_coord_redis_send(client, call) == NGX_AGAIN);
}


static u_char *
ngx_coord_fleet_encode(ngx_coord_redis_call_t *call, u_char *p)
{
    ngx_coord_fleet_ask_t *ask = call->data;

    return ngx_coord_script_encode(p, ask->script, ask->args);
}


static void
ngx_coord_fleet_told(ngx_coord_redis_call_t *call, ngx_int_t rc,
    ngx_coord_resp_value_t *reply)
{
    ngx_coord_fleet_ask_t *ask = call->data;

    /* what was not told now is told the next time */

    ask->busy = 0;
}


static void
ngx_coord_fleet_listed(ngx_coord_redis_call_t *call, ngx_int_t rc,
    ngx_coord_resp_value_t *reply)
{
    ngx_coord_fleet_ask_t *ask = call->data;

    ngx_str_t                name;
    ngx_uint_t               i, n;
    ngx_coord_fleet_shm_t   *shm;
    ngx_coord_resp_value_t  *v;

    ask->busy = 0;

    if (rc != NGX_OK || ngx_exiting) {
        return;
    }

    for (i = 0; i < NGX_COORD_NODE_LIST_NAMES_REPLY; i++) {
        reply += reply->next;
    }

    shm = ngx_coord_fleet.metrics->fleet;
    n = 0;

    ngx_coord_fleet_count(shm);

    for (i = 0; n < NGX_COORD_FLEET_NODES; i++) {
        v = ngx_coord_resp_element(reply, i);

        if (v == NULL) {
            return;
        }

        if (ngx_coord_resp_string(v, &name) != NGX_OK
            || name.len == 0
            || name.len > NGX_COORD_SUMMARY_WORD
            || (name.len == shm->name_len
                && ngx_memcmp(name.data, shm->name, name.len) == 0))
        {
            continue;
        }

        ngx_coord_fleet_read(&ngx_coord_fleet.reads[n++], &name);
    }
}


static void
ngx_coord_fleet_heard(ngx_coord_redis_call_t *call, ngx_int_t rc,
    ngx_coord_resp_value_t *reply)
{
    ngx_coord_fleet_ask_t *ask = call->data;

    ngx_str_t               text;
    ngx_coord_summary_t     s;
    ngx_coord_fleet_shm_t  *shm;

    ask->busy = 0;

    if (rc != NGX_OK
        || ngx_coord_resp_string(reply, &text) != NGX_OK
        || text.len > NGX_COORD_SUMMARY_SIZE
        || ngx_coord_summary_read(&text, &s) != NGX_OK
        || s.node.len != ask->name.len
        || ngx_memcmp(s.node.data, ask->name.data, ask->name.len) != 0)
    {
        return;
    }

    shm = ngx_coord_fleet.metrics->fleet;

    ngx_coord_fleet_keep(shm, &ask->name, &text, s.time);
    ngx_coord_fleet_count(shm);
}
