
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Key tracking: the server remembers which keys were read for us and tells of
 * each that is written.  In RESP2 it does so on a connection of its own, that
 * of the tracker, to which CLIENT TRACKING redirects.  A tracker also listens
 * to a channel on which others may name keys.
 *
 *          all confirmed          the calls' connection is ready
 *   OFF --------------> LISTENING -----------------------> ASKED
 *    ^                      ^                              |   |
 *    | the tracker's        | the calls' connection   OK   |   | no
 *    | connection is lost   | is lost                      v   v
 *    +--- any               +--------------------- TRACKING   REFUSED
 */


#include "ngx_coord_redis_track.h"


#define NGX_COORD_TRACK_LISTEN                                                \
    "*2" CRLF "$6" CRLF "CLIENT" CRLF "$2" CRLF "ID" CRLF                     \
    "*2" CRLF "$9" CRLF "SUBSCRIBE" CRLF                                      \
    "$20" CRLF "__redis__:invalidate" CRLF                                    \
    "*2" CRLF "$9" CRLF "SUBSCRIBE" CRLF

#define NGX_COORD_TRACK_ON                                                    \
    "*6" CRLF "$6" CRLF "CLIENT" CRLF "$8" CRLF "TRACKING" CRLF               \
    "$2" CRLF "ON" CRLF "$8" CRLF "REDIRECT" CRLF

#define NGX_COORD_TRACK_TRY                                                   \
    "$5" CRLF "OPTIN" CRLF                                                    \
    "*3" CRLF "$6" CRLF "CLIENT" CRLF "$7" CRLF "CACHING" CRLF                \
    "$3" CRLF "YES" CRLF


static void ngx_coord_redis_track_ready(ngx_coord_redis_conn_t *conn,
    ngx_coord_resp_value_t *value, ngx_coord_nsec_t start);
static ngx_uint_t ngx_coord_redis_track_expect(ngx_coord_redis_conn_t *conn);
static ngx_coord_fail_e ngx_coord_redis_track_reply(
    ngx_coord_redis_conn_t *conn, ngx_coord_resp_value_t *value);
static ngx_uint_t ngx_coord_redis_track_pong(ngx_coord_resp_value_t *kind,
    ngx_coord_resp_value_t *value);
static ngx_coord_fail_e ngx_coord_redis_track_step(
    ngx_coord_redis_track_t *track, ngx_coord_resp_value_t *value);
static void ngx_coord_redis_track_listening(ngx_coord_redis_track_t *track);
static void ngx_coord_redis_track_message(ngx_coord_redis_track_t *track,
    ngx_coord_resp_value_t *value);
static void ngx_coord_redis_track_closed(ngx_coord_redis_conn_t *conn,
    ngx_coord_fail_e failure, ngx_uint_t ready);
static void ngx_coord_redis_track_ask(ngx_coord_redis_track_t *track);
static u_char *ngx_coord_redis_track_encode(ngx_coord_redis_call_t *call,
    u_char *p);
static void ngx_coord_redis_track_answered(ngx_coord_redis_call_t *call,
    ngx_int_t rc, ngx_coord_resp_value_t *reply);
static ngx_uint_t ngx_coord_redis_track_elsewhere(ngx_str_t *text);
static void ngx_coord_redis_track_refused(ngx_coord_redis_track_t *track,
    ngx_str_t *text);
static void ngx_coord_redis_track_lost(ngx_coord_redis_track_t *track,
    ngx_coord_track_state_e state);
static void ngx_coord_redis_track_set(ngx_coord_redis_track_t *track,
    ngx_coord_track_state_e state);
static ngx_uint_t ngx_coord_redis_track_is(ngx_coord_resp_value_t *value,
    const char *text);


static const ngx_coord_conn_actions_t  ngx_coord_redis_track_actions = {
    ngx_coord_redis_track_ready,
    ngx_coord_redis_track_expect,
    ngx_coord_redis_track_reply,
    ngx_coord_redis_track_closed
};


ngx_int_t
ngx_coord_redis_track(ngx_coord_redis_t *redis,
    ngx_coord_redis_tracking_t *tracking)
{
    redis->tracking = tracking;

    ngx_queue_init(&tracking->tracks);

    if (redis->cluster) {
        /* with each server that is found */
        return NGX_OK;
    }

    return ngx_coord_redis_track_node(
                                  &redis->nodes[NGX_COORD_LANE_DECISIONS]);
}


ngx_int_t
ngx_coord_redis_track_node(ngx_coord_redis_node_t *node)
{
    ngx_coord_redis_track_t  *track;

    track = ngx_calloc(sizeof(ngx_coord_redis_track_t),
                       node->redis->cycle->log);
    if (track == NULL) {
        return NGX_ERROR;
    }

    track->conn = ngx_coord_redis_conn_create(node->redis,
                                              node->conn->endpoint,
                                              &ngx_coord_redis_track_actions,
                                              track);
    if (track->conn == NULL) {
        ngx_free(track);
        return NGX_ERROR;
    }

    track->node = node;
    track->tracking = node->redis->tracking;

    ngx_coord_timer_init(&track->ping, ngx_coord_redis_track_ping, track,
                         &track->conn->log);
    track->ping.event.cancelable = 1;

    track->conn->log.action = "tracking keys";

    node->track = track;

    ngx_queue_insert_tail(&track->tracking->tracks, &track->queue);

    if (node->redis->cluster == NULL) {
        ngx_coord_redis_conn_start(track->conn);
    }

    return NGX_OK;
}


void
ngx_coord_redis_track_use(ngx_coord_redis_node_t *node)
{
    if (node->track && node->track->conn->state == NGX_COORD_CONN_UNUSED) {
        ngx_coord_redis_conn_connect(node->track->conn);
    }
}


void
ngx_coord_redis_track_free(ngx_coord_redis_node_t *node)
{
    ngx_coord_redis_track_t  *track;

    track = node->track;

    if (track == NULL) {
        return;
    }

    node->track = NULL;
    node->trust = NGX_COORD_TRUST_NONE;

    ngx_queue_remove(&track->queue);

    /* keys of a server that is left are tracked elsewhere from now on */

    track->tracking->lost(track->tracking->data);

    ngx_coord_timer_stop(&track->ping);
    ngx_coord_redis_conn_destroy(track->conn);

    ngx_free(track);
}


void
ngx_coord_redis_track_begin(ngx_coord_redis_node_t *node)
{
    if (node->track && node->track->state == NGX_COORD_TRACK_LISTENING) {
        ngx_coord_redis_track_ask(node->track);
    }
}


void
ngx_coord_redis_track_end(ngx_coord_redis_node_t *node)
{
    if (node->track && node->track->state > NGX_COORD_TRACK_LISTENING) {
        ngx_coord_redis_track_lost(node->track, NGX_COORD_TRACK_LISTENING);
    }
}


/* the connection of the tracker */

static void
ngx_coord_redis_track_ready(ngx_coord_redis_conn_t *conn,
    ngx_coord_resp_value_t *value, ngx_coord_nsec_t start)
{
    u_char                   *p;
    ngx_str_t                *channel;
    ngx_coord_fail_e          failure;
    ngx_coord_redis_track_t  *track;

    track = conn->data;
    channel = &track->tracking->channel;

    track->last = ngx_current_msec;
    track->asked = ngx_current_msec;
    track->step = NGX_COORD_TRACK_ID;
    track->id = 0;
    track->waiting = 1;

    p = ngx_coord_redis_conn_room(conn,
                                  sizeof(NGX_COORD_TRACK_LISTEN)
                                  + ngx_coord_redis_bulk_size(channel->len),
                                  &failure);

    /* without memory nothing is sent, and the reply is overdue */

    if (p != NULL) {
        p = ngx_cpymem(p, NGX_COORD_TRACK_LISTEN,
                       sizeof(NGX_COORD_TRACK_LISTEN) - 1);
        p = ngx_coord_redis_bulk(p, channel->data, channel->len);

        ngx_coord_redis_conn_queue(conn, p);
    }

    ngx_coord_timer_start(&track->ping, NGX_COORD_TRACK_OVERDUE);
}


static ngx_uint_t
ngx_coord_redis_track_expect(ngx_coord_redis_conn_t *conn)
{
    return 1;
}


static ngx_coord_fail_e
ngx_coord_redis_track_reply(ngx_coord_redis_conn_t *conn,
    ngx_coord_resp_value_t *value)
{
    ngx_coord_resp_value_t   *kind;
    ngx_coord_redis_track_t  *track;

    track = conn->data;
    track->last = ngx_current_msec;

    kind = ngx_coord_resp_element(value, 0);

    if (kind != NULL && ngx_coord_redis_track_is(kind, "message")) {
        ngx_coord_redis_track_message(track, value);
        return NGX_COORD_FAIL_NONE;
    }

    if (track->step != NGX_COORD_TRACK_DONE) {
        return ngx_coord_redis_track_step(track, value);
    }

    if (track->waiting && ngx_coord_redis_track_pong(kind, value)) {
        ngx_coord_redis_track_heard(track);
        ngx_coord_redis_track_tell(track->tracking);
        return NGX_COORD_FAIL_NONE;
    }

    ngx_coord_redis_conn_log(conn, NGX_COORD_FAIL_PROTOCOL, 0,
                             "unexpected message", NULL);

    return NGX_COORD_FAIL_PROTOCOL;
}


/*
 * ["pong", ""]; without a subscription it is a status.  Who may not ask for it,
 * or not now, is told that, which is as good a sign of life.
 */

static ngx_uint_t
ngx_coord_redis_track_pong(ngx_coord_resp_value_t *kind,
    ngx_coord_resp_value_t *value)
{
    if (value->type == NGX_COORD_RESP_ERROR) {
        return !ngx_coord_redis_error(&value->str)->close;
    }

    return value->type == NGX_COORD_RESP_STATUS
           || (kind != NULL && ngx_coord_redis_track_is(kind, "pong"));
}


static ngx_coord_fail_e
ngx_coord_redis_track_step(ngx_coord_redis_track_t *track,
    ngx_coord_resp_value_t *value)
{
    const ngx_coord_redis_error_t  *e;

    if (value->type == NGX_COORD_RESP_ERROR) {
        e = ngx_coord_redis_error(&value->str);

        if (e->close || e->failure == NGX_COORD_FAIL_UNAVAILABLE) {
            return e->failure;
        }

        /* not allowed, or not known: without it */

        if (track->step != NGX_COORD_TRACK_CHANNEL) {
            ngx_coord_redis_track_refused(track, &value->str);
            track->id = 0;
        }

    } else if (track->step == NGX_COORD_TRACK_ID) {

        if (value->type != NGX_COORD_RESP_INTEGER) {
            return NGX_COORD_FAIL_PROTOCOL;
        }

        track->id = value->integer;

    } else if (value->type != NGX_COORD_RESP_ARRAY) {
        return NGX_COORD_FAIL_PROTOCOL;
    }

    track->step++;

    if (track->step == NGX_COORD_TRACK_DONE) {
        ngx_coord_redis_track_heard(track);
        ngx_coord_redis_track_listening(track);
    }

    return NGX_COORD_FAIL_NONE;
}


static void
ngx_coord_redis_track_listening(ngx_coord_redis_track_t *track)
{
    ngx_log_debug1(NGX_LOG_DEBUG_CORE, &track->conn->log, 0,
                   "coord redis: tracker %L", track->id);

    ngx_coord_redis_track_set(track, NGX_COORD_TRACK_LISTENING);

    if (track->node->conn->state == NGX_COORD_CONN_READY) {
        ngx_coord_redis_track_ask(track);
    }
}


/* ["message", channel, key], or [.., [key, ..]] or [.., nil] of the server */

static void
ngx_coord_redis_track_message(ngx_coord_redis_track_t *track,
    ngx_coord_resp_value_t *value)
{
    ngx_str_t                    key;
    ngx_uint_t                   i;
    ngx_coord_resp_value_t      *channel, *keys, *v;
    ngx_coord_redis_tracking_t  *tracking;

    tracking = track->tracking;

    channel = ngx_coord_resp_element(value, 1);
    keys = ngx_coord_resp_element(value, 2);

    if (channel == NULL || keys == NULL) {
        return;
    }

    if (keys->type == NGX_COORD_RESP_NIL) {
        tracking->changed(tracking->data, NULL);
        return;
    }

    if (keys->type == NGX_COORD_RESP_STRING) {
        tracking->changed(tracking->data, &keys->str);
        return;
    }

    for (i = 0; /* void */ ; i++) {
        v = ngx_coord_resp_element(keys, i);

        if (v == NULL) {
            break;
        }

        if (ngx_coord_resp_string(v, &key) == NGX_OK) {
            tracking->changed(tracking->data, &key);
        }
    }
}


static void
ngx_coord_redis_track_closed(ngx_coord_redis_conn_t *conn,
    ngx_coord_fail_e failure, ngx_uint_t ready)
{
    ngx_coord_redis_track_t  *track;

    track = conn->data;

    ngx_coord_timer_stop(&track->ping);

    if (track->state != NGX_COORD_TRACK_OFF) {
        ngx_coord_redis_track_lost(track, NGX_COORD_TRACK_OFF);
    }

    /* where the calls go now */

    if (track->node->conn && conn->endpoint != track->node->conn->endpoint) {
        ngx_coord_redis_conn_move(conn, track->node->conn->endpoint);
    }
}


/* what was read before is not known to be true any more */

static void
ngx_coord_redis_track_lost(ngx_coord_redis_track_t *track,
    ngx_coord_track_state_e state)
{
    ngx_coord_redis_track_set(track, state);
    track->tracking->lost(track->tracking->data);
}


/* the connection of the calls: what is read behind this is tracked */

static void
ngx_coord_redis_track_ask(ngx_coord_redis_track_t *track)
{
    ngx_coord_redis_call_t  *call;

    if (track->id == 0) {
        ngx_coord_redis_track_set(track, NGX_COORD_TRACK_REFUSED);
        return;
    }

    call = &track->call;

    /* one that is still on its way comes back here */

    if (call->state != NGX_COORD_CALL_IDLE) {
        return;
    }

    ngx_memzero(call, sizeof(ngx_coord_redis_call_t));

    /* it is for this server, whatever it says of slots */
    call->slot = (ngx_uint_t) -1;
    call->encode = ngx_coord_redis_track_encode;
    call->room = sizeof(NGX_COORD_TRACK_ON) + sizeof(NGX_COORD_TRACK_TRY)
                 + ngx_coord_redis_bulk_size(NGX_INT64_LEN);
    call->handler = ngx_coord_redis_track_answered;
    call->data = track;
    call->ncommands = 2;
    call->form = NGX_COORD_CALL_PLAIN;
    call->foreign = 1;
    call->start = ngx_coord_monotonic();
    call->deadline = ngx_current_msec + track->node->redis->conf->timeout;

    if (ngx_coord_redis_encode(track->node, call) != NGX_COORD_FAIL_NONE) {
        return;
    }

    ngx_coord_redis_track_set(track, NGX_COORD_TRACK_ASKED);

    ngx_coord_redis_enqueue(track->node, call);
    (void) ngx_atomic_fetch_add(&track->node->redis->stats->pending, 1);
}


static u_char *
ngx_coord_redis_track_encode(ngx_coord_redis_call_t *call, u_char *p)
{
    ngx_coord_redis_track_t *track = call->data;

    u_char  *last, id[NGX_INT64_LEN];

    last = ngx_sprintf(id, "%L", track->id);

    p = ngx_cpymem(p, NGX_COORD_TRACK_ON, sizeof(NGX_COORD_TRACK_ON) - 1);
    p = ngx_coord_redis_bulk(p, id, last - id);

    return ngx_cpymem(p, NGX_COORD_TRACK_TRY, sizeof(NGX_COORD_TRACK_TRY) - 1);
}


static void
ngx_coord_redis_track_answered(ngx_coord_redis_call_t *call, ngx_int_t rc,
    ngx_coord_resp_value_t *reply)
{
    ngx_coord_redis_track_t *track = call->data;

    ngx_uint_t               i;
    ngx_coord_resp_value_t  *v;

    ngx_str_t  text = ngx_string("CLIENT TRACKING is not permitted");

    if (track->state != NGX_COORD_TRACK_ASKED) {

        /* that was for a connection which is gone */

        if (rc == NGX_OK) {
            ngx_coord_redis_track_begin(track->node);
        }

        return;
    }

    if (rc != NGX_OK && call->failure != NGX_COORD_FAIL_AUTH) {
        ngx_coord_redis_track_set(track, NGX_COORD_TRACK_LISTENING);
        return;
    }

    if (rc != NGX_OK) {
        ngx_coord_redis_track_refused(track, &text);
        ngx_coord_redis_track_set(track, NGX_COORD_TRACK_REFUSED);
        return;
    }

    for (i = 0, v = reply; i < 2; i++, v += v->next) {

        if (v->type == NGX_COORD_RESP_ERROR) {

            if (ngx_coord_redis_track_elsewhere(&v->str)) {
                ngx_coord_redis_conn_close(track->conn,
                                           NGX_COORD_FAIL_CONNECT);
                return;
            }

            ngx_coord_redis_track_refused(track, &v->str);
            ngx_coord_redis_track_set(track, NGX_COORD_TRACK_REFUSED);
            return;
        }
    }

    switch (ngx_coord_redis_conn_same(track->conn, track->node->conn)) {

    case NGX_OK:
        break;

    case NGX_DECLINED:

        /* the id that was told may be that of anybody there */

        ngx_coord_redis_conn_close(track->conn, NGX_COORD_FAIL_CONNECT);
        return;

    default: /* NGX_ERROR */
        ngx_str_set(&text, "the server does not tell its run_id");
        ngx_coord_redis_track_refused(track, &text);
        ngx_coord_redis_track_set(track, NGX_COORD_TRACK_REFUSED);
        return;
    }

    ngx_coord_redis_track_set(track, NGX_COORD_TRACK_TRACKING);

    ngx_log_debug0(NGX_LOG_DEBUG_CORE, &track->conn->log, 0,
                   "coord redis: keys are tracked");
}


/* the connection is to another server, which has taken over or is about to */

static ngx_uint_t
ngx_coord_redis_track_elsewhere(ngx_str_t *text)
{
    static const char  start[] = "ERR The client ID";

    return text->len >= sizeof(start) - 1
           && ngx_strncmp(text->data, start, sizeof(start) - 1) == 0;
}


/* told once by a worker: it stays so */

static void
ngx_coord_redis_track_refused(ngx_coord_redis_track_t *track, ngx_str_t *text)
{
    u_char     buf[NGX_COORD_LOG_TEXT];
    ngx_str_t  reason;

    if (track->tracking->told) {
        return;
    }

    track->tracking->told = 1;

    reason = ngx_coord_redis_error_text(track->conn->conf, buf, text);

    ngx_log_error(NGX_LOG_WARN, &track->conn->log, 0,
                  "coord redis: keys are not tracked, what is cached is good "
                  "for its ttl and until a message to \"%V\": %V",
                  &track->tracking->channel, &reason);
}


/* what is read from now on may be kept, or not */

static void
ngx_coord_redis_track_set(ngx_coord_redis_track_t *track,
    ngx_coord_track_state_e state)
{
    track->state = state;
    track->node->trust = NGX_COORD_TRUST_NONE;

    if (state == NGX_COORD_TRACK_TRACKING) {
        track->node->trust = NGX_COORD_TRUST_TRACKED;

    } else if (state == NGX_COORD_TRACK_REFUSED) {
        track->node->trust = NGX_COORD_TRUST_TTL;
    }

    if (track->node->trust != NGX_COORD_TRUST_NONE) {
        ngx_coord_redis_track_tell(track->tracking);
    }
}


static ngx_uint_t
ngx_coord_redis_track_is(ngx_coord_resp_value_t *value, const char *text)
{
    return value->type == NGX_COORD_RESP_STRING
           && value->str.len == ngx_strlen(text)
           && ngx_memcmp(value->str.data, text, value->str.len) == 0;
}
