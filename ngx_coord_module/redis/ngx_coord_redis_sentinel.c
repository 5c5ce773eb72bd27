
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Sentinel: who the master is.  It is asked before each attempt to connect, on
 * a connection that is kept; a second connection hears of a switch at once,
 * which only makes everybody ask again.
 *
 *            find()             an address
 *     IDLE ---------> ASKING ----------------> IDLE, all who wait go on
 *                      |  ^
 *       no answer, or  v  | the next sentinel
 *       it knows none  +--+
 *                      |
 *                      v  all of them were asked
 *                     IDLE, the last master is kept, if there is one: of this
 *                     worker, or of any before it
 */


#include "ngx_coord_redis_conn.h"
#include "ngx_coord_redis_master.h"
#include "ngx_coord_redis_known.h"
#include "ngx_coord_slot.h"


#define NGX_COORD_SWITCH_MASTER                                               \
    "*2" CRLF "$9" CRLF "SUBSCRIBE" CRLF "$14" CRLF "+switch-master" CRLF


struct ngx_coord_redis_sentinel_s {
    ngx_coord_redis_t         *redis;

    ngx_coord_redis_conn_t    *ask;
    ngx_uint_t                 current;       /* whom: of conf->servers */
    ngx_uint_t                 left;          /* to be asked in this round */
    ngx_uint_t                 unknown;       /* who know no such master */
    ngx_coord_timer_t          timer;         /* for an answer */

    ngx_coord_redis_conn_t    *hear;          /* of +switch-master */
    ngx_uint_t                 heard;         /* from whom */

    ngx_coord_redis_master_t  *master;        /* NULL: not known yet */
    ngx_queue_t                masters;       /* and who was it just now */
    ngx_queue_t                waiting;       /* conn->wait, of a round */
    ngx_queue_t                members;       /* conn->member: all */

    unsigned                   asking:1;
    unsigned                   asked:1;       /* and the question is sent */
    unsigned                   refused:1;     /* this one was no use */
    unsigned                   doubted:1;     /* nor is who it has named */
    unsigned                   again:1;       /* a switch was told meanwhile */
};


static ngx_coord_endpoint_t *ngx_coord_redis_sentinel_at(
    ngx_coord_redis_sentinel_t *sentinel, ngx_uint_t n);
static void ngx_coord_redis_sentinel_turn(
    ngx_coord_redis_sentinel_t *sentinel);
static void ngx_coord_redis_sentinel_question(
    ngx_coord_redis_sentinel_t *sentinel);
static void ngx_coord_redis_sentinel_send(
    ngx_coord_redis_sentinel_t *sentinel);
static void ngx_coord_redis_sentinel_overdue(ngx_event_t *ev);
static void ngx_coord_redis_sentinel_next(
    ngx_coord_redis_sentinel_t *sentinel);
static void ngx_coord_redis_sentinel_done(
    ngx_coord_redis_sentinel_t *sentinel, ngx_int_t rc);
static ngx_int_t ngx_coord_redis_sentinel_learn(
    ngx_coord_redis_sentinel_t *sentinel, ngx_coord_resp_value_t *value);
static ngx_coord_redis_master_t *ngx_coord_redis_sentinel_recall(
    ngx_coord_redis_sentinel_t *sentinel);
static void ngx_coord_redis_sentinel_switch(
    ngx_coord_redis_sentinel_t *sentinel, ngx_coord_redis_master_t *master);

static void ngx_coord_redis_ask_ready(ngx_coord_redis_conn_t *conn,
    ngx_coord_resp_value_t *value, ngx_coord_nsec_t start);
static ngx_uint_t ngx_coord_redis_ask_expect(ngx_coord_redis_conn_t *conn);
static ngx_coord_fail_e ngx_coord_redis_ask_reply(
    ngx_coord_redis_conn_t *conn, ngx_coord_resp_value_t *value);
static void ngx_coord_redis_ask_closed(ngx_coord_redis_conn_t *conn,
    ngx_coord_fail_e failure, ngx_uint_t ready);

static void ngx_coord_redis_hear_ready(ngx_coord_redis_conn_t *conn,
    ngx_coord_resp_value_t *value, ngx_coord_nsec_t start);
static ngx_coord_fail_e ngx_coord_redis_hear_reply(
    ngx_coord_redis_conn_t *conn, ngx_coord_resp_value_t *value);
static ngx_uint_t ngx_coord_redis_hear_is_ours(
    ngx_coord_redis_sentinel_t *sentinel, ngx_coord_resp_value_t *value);
static void ngx_coord_redis_hear_closed(ngx_coord_redis_conn_t *conn,
    ngx_coord_fail_e failure, ngx_uint_t ready);


static const ngx_coord_conn_actions_t  ngx_coord_redis_ask_actions = {
    ngx_coord_redis_ask_ready,
    ngx_coord_redis_ask_expect,
    ngx_coord_redis_ask_reply,
    ngx_coord_redis_ask_closed
};


static const ngx_coord_conn_actions_t  ngx_coord_redis_hear_actions = {
    ngx_coord_redis_hear_ready,
    ngx_coord_redis_ask_expect,
    ngx_coord_redis_hear_reply,
    ngx_coord_redis_hear_closed
};


ngx_coord_redis_sentinel_t *
ngx_coord_redis_sentinel_create(ngx_coord_redis_t *redis)
{
    ngx_coord_redis_sentinel_t  *sentinel;

    sentinel = ngx_calloc(sizeof(ngx_coord_redis_sentinel_t),
                          redis->cycle->log);
    if (sentinel == NULL) {
        return NULL;
    }

    sentinel->redis = redis;

    /* workers do not all ask the same */

    sentinel->current = ngx_random() % redis->conf->servers->nelts;
    sentinel->heard = sentinel->current;

    ngx_queue_init(&sentinel->masters);
    ngx_queue_init(&sentinel->waiting);
    ngx_queue_init(&sentinel->members);

    ngx_coord_timer_init(&sentinel->timer, ngx_coord_redis_sentinel_overdue,
                         sentinel, redis->cycle->log);
    sentinel->timer.event.cancelable = 1;

    sentinel->ask = ngx_coord_redis_conn_create(redis,
                        ngx_coord_redis_sentinel_at(sentinel, 0),
                        &ngx_coord_redis_ask_actions, sentinel);

    sentinel->hear = ngx_coord_redis_conn_create(redis,
                         ngx_coord_redis_sentinel_at(sentinel,
                                                     sentinel->heard),
                         &ngx_coord_redis_hear_actions, sentinel);

    if (sentinel->ask == NULL || sentinel->hear == NULL) {
        ngx_coord_redis_sentinel_destroy(sentinel);
        return NULL;
    }

    sentinel->ask->sentinel = 1;
    sentinel->ask->on_demand = 1;
    sentinel->ask->again = NGX_LOG_DEBUG;
    sentinel->ask->log.action = "asking a sentinel";
    sentinel->hear->sentinel = 1;
    sentinel->hear->log.action = "listening to a sentinel";

    ngx_coord_redis_conn_connect(sentinel->hear);

    return sentinel;
}


void
ngx_coord_redis_sentinel_destroy(ngx_coord_redis_sentinel_t *sentinel)
{
    ngx_coord_timer_stop(&sentinel->timer);

    if (sentinel->ask != NULL) {
        ngx_coord_redis_conn_destroy(sentinel->ask);
    }

    if (sentinel->hear != NULL) {
        ngx_coord_redis_conn_destroy(sentinel->hear);
    }

    ngx_coord_redis_masters_drop(&sentinel->masters, NULL, NULL);

    ngx_free(sentinel);
}


static ngx_coord_endpoint_t *
ngx_coord_redis_sentinel_at(ngx_coord_redis_sentinel_t *sentinel,
    ngx_uint_t n)
{
    ngx_coord_endpoint_t  **endpoints;

    endpoints = sentinel->redis->conf->servers->elts;

    return endpoints[n % sentinel->redis->conf->servers->nelts];
}


void
ngx_coord_redis_sentinel_find(ngx_coord_redis_conn_t *conn)
{
    ngx_coord_redis_sentinel_t  *sentinel;

    sentinel = conn->redis->sentinel;

    if (conn->member.next == NULL) {
        ngx_queue_insert_tail(&sentinel->members, &conn->member);
    }

    ngx_queue_insert_tail(&sentinel->waiting, &conn->wait);

    if (!sentinel->asking) {
        ngx_coord_redis_sentinel_question(sentinel);
    }
}


void
ngx_coord_redis_sentinel_distrust(ngx_coord_redis_conn_t *conn)
{
    ngx_coord_redis_sentinel_t  *sentinel;

    sentinel = conn->redis->sentinel;

    /* once for each answer, whatever number of connections goes by it */

    if (!sentinel->asking && !sentinel->doubted && sentinel->master != NULL
        && conn->endpoint == &sentinel->master->endpoint)
    {
        sentinel->doubted = 1;
        sentinel->current++;

        /* the connection is to the one who has said it */

        if (sentinel->ask->state == NGX_COORD_CONN_READY) {
            ngx_coord_redis_conn_close(sentinel->ask,
                                       NGX_COORD_FAIL_UNAVAILABLE);
        }
    }
}


/* who tells of a switch is asked: others may not know of it yet */

static void
ngx_coord_redis_sentinel_turn(ngx_coord_redis_sentinel_t *sentinel)
{
    ngx_coord_redis_conn_t  *ask;

    if (sentinel->asking) {
        sentinel->again = 1;
        return;
    }

    ask = sentinel->ask;

    if (ask->state == NGX_COORD_CONN_READY
        && ask->endpoint != sentinel->hear->endpoint)
    {
        ngx_coord_redis_conn_close(ask, NGX_COORD_FAIL_UNAVAILABLE);
    }

    sentinel->current = sentinel->heard;

    ngx_coord_redis_sentinel_question(sentinel);
}


/* begins a round */

static void
ngx_coord_redis_sentinel_question(ngx_coord_redis_sentinel_t *sentinel)
{
    sentinel->asking = 1;
    sentinel->doubted = 0;
    sentinel->unknown = 0;
    sentinel->left = sentinel->redis->conf->servers->nelts;

    ngx_coord_redis_sentinel_send(sentinel);
}


/* asks one: the question is the end of the handshake, too */

static void
ngx_coord_redis_sentinel_send(ngx_coord_redis_sentinel_t *sentinel)
{
    u_char                  *p;
    ngx_coord_fail_e         failure;
    ngx_coord_redis_conn_t  *ask;

    ask = sentinel->ask;
    sentinel->refused = 0;

    ngx_coord_timer_start(&sentinel->timer,
                          sentinel->redis->conf->connect_timeout);

    if (ask->state != NGX_COORD_CONN_READY) {
        ngx_coord_redis_conn_move(ask, ngx_coord_redis_sentinel_at(sentinel,
                                                      sentinel->current));
        ngx_coord_redis_conn_again(ask);
        return;
    }

    p = ngx_coord_redis_conn_room(ask,
                              ngx_coord_redis_question_size(ask), &failure);

    if (p != NULL) {
        sentinel->asked = 1;
        ngx_coord_redis_conn_queue(ask, ngx_coord_redis_question(ask, p));
    }
}


static void
ngx_coord_redis_sentinel_overdue(ngx_event_t *ev)
{
    ngx_coord_redis_sentinel_t  *sentinel = ngx_coord_timer_data(ev);

    if (!sentinel->asking) {

        ngx_coord_redis_sentinel_turn(sentinel);
        return;
    }

    if (!sentinel->refused) {
        ngx_coord_redis_conn_log(sentinel->ask, NGX_COORD_FAIL_TIMEOUT,
                                 NGX_ETIMEDOUT, "a sentinel does not answer",
                                 NULL);
    }

    ngx_coord_redis_conn_close(sentinel->ask, NGX_COORD_FAIL_TIMEOUT);
}


static void
ngx_coord_redis_sentinel_next(ngx_coord_redis_sentinel_t *sentinel)
{
    ngx_str_t               *name;
    ngx_coord_redis_conn_t  *ask;

    sentinel->current++;
    sentinel->left--;

    if (sentinel->left) {
        ngx_coord_redis_sentinel_send(sentinel);
        return;
    }

    ask = sentinel->ask;
    name = &sentinel->redis->conf->master;

    if (sentinel->master == NULL) {
        sentinel->master = ngx_coord_redis_sentinel_recall(sentinel);
    }

    if (sentinel->unknown) {
        ngx_coord_redis_conn_log(ask, NGX_COORD_FAIL_ERROR, 0,
                                 "sentinels do not know a master", name);

    } else {
        ngx_coord_redis_conn_log(ask, NGX_COORD_FAIL_UNAVAILABLE, 0,
                                 "no sentinel answers; the last master",
                                 sentinel->master
                                 ? &sentinel->master->addr.name : name);
    }

    ngx_coord_redis_sentinel_done(sentinel, sentinel->master ? NGX_OK
                                                             : NGX_ERROR);
}


static void
ngx_coord_redis_sentinel_done(ngx_coord_redis_sentinel_t *sentinel,
    ngx_int_t rc)
{
    ngx_queue_t             *q, waiting;
    ngx_coord_redis_conn_t  *conn;

    ngx_coord_timer_stop(&sentinel->timer);

    sentinel->asking = 0;
    sentinel->asked = 0;

    ngx_queue_init(&waiting);

    if (!ngx_queue_empty(&sentinel->waiting)) {
        ngx_queue_add(&waiting, &sentinel->waiting);
        ngx_queue_init(&sentinel->waiting);
    }

    while (!ngx_queue_empty(&waiting)) {
        q = ngx_queue_head(&waiting);
        conn = ngx_queue_data(q, ngx_coord_redis_conn_t, wait);

        ngx_queue_remove(q);
        q->next = NULL;

        ngx_coord_redis_conn_found(conn, rc == NGX_OK
                                         ? &sentinel->master->endpoint : NULL);
    }

    /* connections that are to be made anew may still have an old one */

    ngx_coord_redis_masters_drop(&sentinel->masters, &sentinel->members,
                                 sentinel->master);

    if (sentinel->again) {
        sentinel->again = 0;
        ngx_coord_timer_start(&sentinel->timer, 1);
    }
}


static ngx_int_t
ngx_coord_redis_sentinel_learn(ngx_coord_redis_sentinel_t *sentinel,
    ngx_coord_resp_value_t *value)
{
    ngx_int_t                  n;
    ngx_str_t                  port;
    ngx_coord_slot_node_t      node;
    ngx_coord_resp_value_t    *v;
    ngx_coord_redis_known_t    list;
    ngx_coord_redis_master_t  *master;

    ngx_memzero(&node, sizeof(ngx_coord_slot_node_t));

    v = ngx_coord_resp_element(value, 1);

    if (v == NULL
        || ngx_coord_resp_string(ngx_coord_resp_element(value, 0), &node.host)
           != NGX_OK
        || ngx_coord_resp_string(v, &port) != NGX_OK)
    {
        return NGX_DECLINED;
    }

    n = ngx_atoi(port.data, port.len);

    node.port = (in_port_t) n;

    master = (n < 1 || n > 65535 || node.host.len == 0
              || !ngx_coord_slot_host_good(&node.host)) ? NULL
             : ngx_coord_redis_master_get(&sentinel->masters, sentinel->ask,
                                          &node.host, node.port);

    if (master == NULL) {
        return NGX_DECLINED;
    }

    ngx_coord_redis_known_init(&list);
    ngx_coord_redis_known_add(&list, &node);
    ngx_coord_redis_known_keep(sentinel->redis, &list);

    if (master != sentinel->master) {
        ngx_coord_redis_sentinel_switch(sentinel, master);
    }

    return NGX_OK;
}


/* whom sentinels have named to another worker, maybe to one before this */

static ngx_coord_redis_master_t *
ngx_coord_redis_sentinel_recall(ngx_coord_redis_sentinel_t *sentinel)
{
    ngx_coord_slot_node_t    node;
    ngx_coord_redis_known_t  list;

    ngx_coord_redis_known_read(sentinel->redis, &list);

    if (ngx_coord_redis_known_next(&list, &node) != NGX_OK) {
        return NULL;
    }

    return ngx_coord_redis_master_get(&sentinel->masters, sentinel->ask,
                                      &node.host, node.port);
}


/* there is another master: nobody stays with the last one */

static void
ngx_coord_redis_sentinel_switch(ngx_coord_redis_sentinel_t *sentinel,
    ngx_coord_redis_master_t *master)
{
    ngx_queue_t             *q;
    ngx_coord_redis_conn_t  *conn;

    if (sentinel->master != NULL) {
        sentinel->redis->switched = ngx_time();

        ngx_log_error(NGX_LOG_WARN, &sentinel->ask->log, 0,
                      "coord redis: the master is %V now, it was %V",
                      &master->addr.name, &sentinel->master->addr.name);
    }

    sentinel->master = master;

    for (q = ngx_queue_head(&sentinel->members);
         q != ngx_queue_sentinel(&sentinel->members);
         q = ngx_queue_next(q))
    {
        conn = ngx_queue_data(q, ngx_coord_redis_conn_t, member);

        if (conn->state > NGX_COORD_CONN_FINDING
            && conn->endpoint != &master->endpoint)
        {
            ngx_coord_redis_conn_close(conn, NGX_COORD_FAIL_UNAVAILABLE);
        }

        if (conn->state == NGX_COORD_CONN_DISCONNECTED) {
            ngx_coord_redis_conn_soon(conn);
        }
    }
}


ngx_str_t *
ngx_coord_redis_sentinel_asked(ngx_coord_redis_sentinel_t *sentinel)
{
    return sentinel->ask->peer.name;
}


static void
ngx_coord_redis_ask_ready(ngx_coord_redis_conn_t *conn,
    ngx_coord_resp_value_t *value, ngx_coord_nsec_t start)
{
    ngx_coord_redis_sentinel_t  *sentinel = conn->data;

    if (!sentinel->asking) {
        return;
    }

    if (ngx_coord_redis_sentinel_learn(sentinel, value) == NGX_OK) {
        ngx_coord_redis_sentinel_done(sentinel, NGX_OK);
        return;
    }

    sentinel->unknown++;
    sentinel->refused = 1;
    ngx_coord_timer_start(&sentinel->timer, 1);
}


static ngx_uint_t
ngx_coord_redis_ask_expect(ngx_coord_redis_conn_t *conn)
{
    ngx_coord_redis_sentinel_t  *sentinel = conn->data;

    /* what is heard comes unasked */

    return conn == sentinel->hear || sentinel->asked;
}


static ngx_coord_fail_e
ngx_coord_redis_ask_reply(ngx_coord_redis_conn_t *conn,
    ngx_coord_resp_value_t *value)
{
    ngx_coord_redis_sentinel_t  *sentinel = conn->data;

    sentinel->asked = 0;

    if (ngx_coord_redis_sentinel_learn(sentinel, value) != NGX_OK) {
        sentinel->unknown++;
        return NGX_COORD_FAIL_ERROR;
    }

    ngx_coord_redis_sentinel_done(sentinel, NGX_OK);

    return NGX_COORD_FAIL_NONE;
}


static void
ngx_coord_redis_ask_closed(ngx_coord_redis_conn_t *conn,
    ngx_coord_fail_e failure, ngx_uint_t ready)
{
    ngx_coord_redis_sentinel_t  *sentinel = conn->data;

    sentinel->asked = 0;

    if (sentinel->asking) {
        ngx_coord_redis_sentinel_next(sentinel);
    }
}


static void
ngx_coord_redis_hear_ready(ngx_coord_redis_conn_t *conn,
    ngx_coord_resp_value_t *value, ngx_coord_nsec_t start)
{
    u_char            *p;
    ngx_coord_fail_e   failure;

    p = ngx_coord_redis_conn_room(conn, sizeof(NGX_COORD_SWITCH_MASTER) - 1,
                                  &failure);
    if (p != NULL) {
        ngx_coord_redis_conn_queue(conn,
                                   ngx_cpymem(p, NGX_COORD_SWITCH_MASTER,
                                        sizeof(NGX_COORD_SWITCH_MASTER) - 1));
    }
}


static ngx_coord_fail_e
ngx_coord_redis_hear_reply(ngx_coord_redis_conn_t *conn,
    ngx_coord_resp_value_t *value)
{
    ngx_coord_redis_sentinel_t  *sentinel = conn->data;

    if (value->type == NGX_COORD_RESP_ERROR) {

        /* it may not listen: reconnecting asks as well */

        return ngx_coord_redis_failure(value);
    }

    if (ngx_coord_redis_hear_is_ours(sentinel, value)) {
        ngx_coord_redis_sentinel_turn(sentinel);
    }

    return NGX_COORD_FAIL_NONE;
}


/* "message", "+switch-master", "name ip port ip port" */

static ngx_uint_t
ngx_coord_redis_hear_is_ours(ngx_coord_redis_sentinel_t *sentinel,
    ngx_coord_resp_value_t *value)
{
    ngx_str_t                text, *name;
    ngx_coord_resp_value_t  *v;

    name = &sentinel->redis->conf->master;
    v = ngx_coord_resp_element(value, 2);

    return v != NULL
           && ngx_coord_resp_string(v, &text) == NGX_OK
           && text.len > name->len
           && text.data[name->len] == ' '
           && ngx_memcmp(text.data, name->data, name->len) == 0;
}


static void
ngx_coord_redis_hear_closed(ngx_coord_redis_conn_t *conn,
    ngx_coord_fail_e failure, ngx_uint_t ready)
{
    ngx_coord_redis_sentinel_t  *sentinel = conn->data;

    sentinel->heard++;
    ngx_coord_redis_conn_move(conn, ngx_coord_redis_sentinel_at(sentinel,
                                                          sentinel->heard));
}
