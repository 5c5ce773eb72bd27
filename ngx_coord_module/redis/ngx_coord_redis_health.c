
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * What a node knows of its server: the breaker, what it refuses, and the clock.
 * Breaker and clock ask with the same TIME, which is a call like any other.
 */


#include "ngx_coord_redis_conn.h"


#define NGX_COORD_CLOCK_AGE          (10 * NGX_COORD_NSEC_PER_SEC)

/* all decisions of a second may be off by half of a first sample this long */
#define NGX_COORD_CLOCK_ROUGH        (5 * NGX_COORD_NSEC_PER_MSEC)


static void ngx_coord_redis_breaker_cooldown(ngx_event_t *ev);
static void ngx_coord_redis_clock_expired(ngx_coord_redis_call_t *call);
static void ngx_coord_redis_clock_handler(ngx_coord_redis_call_t *call,
    ngx_int_t rc, ngx_coord_resp_value_t *reply);
static void ngx_coord_redis_clock_sample(ngx_coord_redis_node_t *node,
    ngx_coord_nsec_t server, ngx_coord_nsec_t start, ngx_coord_nsec_t end);
static ngx_coord_nsec_t ngx_coord_redis_clock_choice(ngx_coord_nsec_t middle,
    ngx_coord_nsec_t rtt);
static ngx_coord_nsec_t ngx_coord_redis_wall_offset(void);


static const ngx_str_t  ngx_coord_redis_ask_time =
    ngx_string("*1" CRLF "$4" CRLF "TIME" CRLF);


void
ngx_coord_redis_health_init(ngx_coord_redis_node_t *node)
{
    ngx_coord_redis_call_t  *call;

    ngx_coord_timer_init(&node->cooldown, ngx_coord_redis_breaker_cooldown,
                         node, &node->conn->log);
    node->cooldown.event.cancelable = 1;

    /* until the server has told its own time */

    node->clock.offset = ngx_coord_redis_wall_offset();

    call = &node->clock.call;

    ngx_coord_redis_command(call, &ngx_coord_redis_ask_time);

    /* it is for this server, whatever it says of slots */
    call->slot = (ngx_uint_t) -1;

    call->expired = ngx_coord_redis_clock_expired;
    call->handler = ngx_coord_redis_clock_handler;
    call->data = node;
}


/* one more failure in a row: too many open the breaker */

void
ngx_coord_redis_node_failed(ngx_coord_redis_node_t *node)
{
    ngx_coord_redis_conf_t  *conf;

    conf = node->redis->conf;

    node->failures++;

    if (conf->breaker_failures && node->failures >= conf->breaker_failures) {
        ngx_coord_redis_breaker_open(node, conf->breaker_cooldown);
    }
}


void
ngx_coord_redis_breaker_open(ngx_coord_redis_node_t *node,
    ngx_msec_t cooldown)
{
    ngx_coord_store_stats_t  *stats;

    if (node->breaker == NGX_COORD_BREAKER_CLOSED) {
        stats = node->stats;

        (void) ngx_atomic_fetch_add(&stats->breaker_open, 1);
        (void) ngx_atomic_fetch_add(&stats->breaker_opens, 1);

        node->breaker = NGX_COORD_BREAKER_OPEN;
        node->ending = 0;

        ngx_coord_redis_conn_log(node->conn, NGX_COORD_FAIL_BREAKER, 0,
                                 "breaker opened", NULL);

        ngx_coord_timer_start(&node->cooldown, cooldown);
    }
}


void
ngx_coord_redis_breaker_close(ngx_coord_redis_node_t *node,
    ngx_uint_t failures)
{
    (void) ngx_atomic_fetch_add(&node->stats->breaker_open, -1);

    node->breaker = NGX_COORD_BREAKER_CLOSED;
    node->failures = failures;

    ngx_coord_timer_stop(&node->cooldown);

    node->ending = 1;

    if (node->lobby) {
        /* its calls are answered by others */
        ngx_coord_redis_breaker_ends(node);
    }
}


void
ngx_coord_redis_breaker_ends(ngx_coord_redis_node_t *node)
{
    node->ending = 0;

    if (ngx_coord_redis_conn_log_ends(node->conn, &node->ended)) {
        ngx_log_error(NGX_LOG_ERR, &node->conn->log, 0,
                      "coord redis: breaker closed, asking again");
    }
}


/*
 * The server answers, and refuses what it is asked, or what writes: INFO may
 * tell nothing of it.  So it is so until a call is answered that would be
 * refused.
 */

void
ngx_coord_redis_refused(ngx_coord_redis_node_t *node,
    const ngx_coord_redis_error_t *e)
{
    ngx_coord_refusal_t  *refusal;

    refusal = node->redis->refusal;

    if (refusal == NULL || e->failure != NGX_COORD_FAIL_UNAVAILABLE || e->slot)
    {
        return;
    }

    node->refuses = 1;

    refusal->word = ngx_coord_redis_error_number(e);
    refusal->when = ngx_max(ngx_current_msec, 1);
}


void
ngx_coord_redis_answered(ngx_coord_redis_node_t *node,
    ngx_coord_redis_call_t *call)
{
    ngx_coord_refusal_t      *refusal;
    ngx_coord_redis_needs_e   needs;

    refusal = node->redis->refusal;

    /* a command by itself is of no key */

    needs = call->command ? NGX_COORD_NEEDS_NOTHING
                          : call->writes ? NGX_COORD_NEEDS_WRITES
                                         : NGX_COORD_NEEDS_DATA;

    if (needs < ngx_coord_redis_error_of(refusal->word)->needs) {
        return;
    }

    /* of several servers another one may be it */

    if (node->redis->routing != NULL && !node->refuses) {
        return;
    }

    node->refuses = 0;
    refusal->when = 0;
}


/*
 * Half-open: TIME asks a live connection.  Without one there is nothing to do:
 * the next handshake decides.
 */

static void
ngx_coord_redis_breaker_cooldown(ngx_event_t *ev)
{
    ngx_coord_redis_node_t  *node = ngx_coord_timer_data(ev);

    if (node->conn->state != NGX_COORD_CONN_READY || node->lobby) {
        return;
    }

    ngx_coord_redis_clock_ask(node);

    if (node->clock.call.state != NGX_COORD_CALL_SENT) {
        ngx_coord_redis_breaker_reopen(node);
        return;
    }

    node->breaker = NGX_COORD_BREAKER_PROBING;
}


void
ngx_coord_redis_breaker_reopen(ngx_coord_redis_node_t *node)
{
    node->breaker = NGX_COORD_BREAKER_OPEN;

    if (!node->cooldown.event.timer_set) {
        ngx_coord_timer_start(&node->cooldown,
                              node->redis->conf->breaker_cooldown);
    }
}


void
ngx_coord_redis_clock_ask(ngx_coord_redis_node_t *node)
{
    ngx_coord_redis_call_t  *call;

    call = &node->clock.call;

    if (call->state != NGX_COORD_CALL_IDLE) {
        return;
    }

    call->failure = NGX_COORD_FAIL_NONE;
    call->start = ngx_coord_monotonic();
    call->deadline = ngx_current_msec + node->redis->conf->timeout;

    if (ngx_coord_redis_encode(node, call) != NGX_COORD_FAIL_NONE) {
        return;
    }

    node->clock.asked = ngx_current_msec;

    ngx_coord_redis_enqueue(node, call);
}


static void
ngx_coord_redis_clock_expired(ngx_coord_redis_call_t *call)
{
    ngx_coord_redis_node_t  *node = call->data;

    if (node->breaker == NGX_COORD_BREAKER_PROBING) {
        ngx_coord_redis_breaker_reopen(node);
    }
}


static void
ngx_coord_redis_clock_handler(ngx_coord_redis_call_t *call, ngx_int_t rc,
    ngx_coord_resp_value_t *reply)
{
    ngx_coord_redis_node_t  *node = call->data;

    ngx_coord_nsec_t         time;

    if (node->conn == NULL) {
        /* the node goes */
        return;
    }

    if (rc == NGX_OK
        && ngx_coord_resp_time(reply, &time) == NGX_OK)
    {
        ngx_coord_redis_clock_sample(node, time, call->start,
                                     ngx_coord_monotonic());

        if (node->breaker == NGX_COORD_BREAKER_PROBING) {
            ngx_coord_redis_breaker_close(node, 0);
        }

        return;
    }

    if (node->breaker == NGX_COORD_BREAKER_PROBING) {
        ngx_coord_redis_breaker_reopen(node);
    }
}


void
ngx_coord_redis_clock_first(ngx_coord_redis_node_t *node,
    ngx_coord_resp_value_t *value, ngx_coord_nsec_t start,
    ngx_coord_nsec_t end)
{
    ngx_coord_nsec_t  time;

    /* this may be another server: samples of the last connection are void */

    node->clock.sampled = 0;

    if (ngx_coord_resp_time(value, &time) == NGX_OK) {
        ngx_coord_redis_clock_sample(node, time, start, end);
    }

    node->clock.asked = ngx_current_msec;
}


void
ngx_coord_redis_clock_refine(ngx_coord_redis_node_t *node)
{
    if (node->clock.sampled && node->clock.rtt > NGX_COORD_CLOCK_ROUGH) {
        ngx_coord_redis_clock_ask(node);
    }
}


/*
 * A sample is wrong by half its round trip at most.  The shortest one of the
 * last seconds counts, unless a newer one contradicts it: then the server's
 * clock was set.
 */

static void
ngx_coord_redis_clock_sample(ngx_coord_redis_node_t *node,
    ngx_coord_nsec_t server, ngx_coord_nsec_t start, ngx_coord_nsec_t end)
{
    ngx_coord_nsec_t          rtt, middle, step, slack;
    ngx_coord_redis_clock_t  *clock;

    clock = &node->clock;

    rtt = end - start;
    middle = server - (start + rtt / 2);

    node->stats->rtt_usec = rtt / NGX_COORD_NSEC_PER_USEC;

    step = middle - clock->middle;
    slack = (rtt + clock->rtt) / 2 + NGX_COORD_NSEC_PER_MSEC;

    if (clock->sampled
        && rtt > clock->rtt
        && end - clock->taken < NGX_COORD_CLOCK_AGE
        && step < slack
        && step > -slack)
    {
        return;
    }

    clock->sampled = 1;
    clock->middle = middle;
    clock->offset = ngx_coord_redis_clock_choice(middle, rtt);
    clock->rtt = rtt;
    clock->taken = end;
}


/*
 * What a sample leaves open the machine's own clock may know: if it is one of
 * the times that the server may have, it is that one.  It is for a server on
 * this machine, and nearly so where both are told the time, and then all
 * workers, of other machines too, agree on it, however busy they were.
 */

static ngx_coord_nsec_t
ngx_coord_redis_clock_choice(ngx_coord_nsec_t middle, ngx_coord_nsec_t rtt)
{
    ngx_coord_nsec_t  wall, most;

    wall = ngx_coord_redis_wall_offset();

    /* the server tells microseconds, rounded down */

    most = rtt / 2 + NGX_COORD_NSEC_PER_USEC;

    return (wall - middle <= most && middle - wall <= most) ? wall : middle;
}


static ngx_coord_nsec_t
ngx_coord_redis_wall_offset(void)
{
    struct timespec  ts;

    (void) clock_gettime(CLOCK_REALTIME, &ts);

    return (ngx_coord_nsec_t) ts.tv_sec * NGX_COORD_NSEC_PER_SEC + ts.tv_nsec
           - ngx_coord_monotonic();
}
