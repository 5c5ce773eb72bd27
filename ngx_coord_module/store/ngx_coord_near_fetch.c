
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Reading what a near cache has not.  Several who ask for the same wait for
 * one call.  A call outlives its deadline, and those who waited for it.
 *
 *   FOLLOWING -- another worker has it, or late --> ANSWERED
 *     |
 *     +-- it has not --> ASKED
 *
 *   ASKED ----- reply -----> ANSWERED -- all waiters told --> freed
 *     |                         ^
 *     +-- deadline --> LATE ----+ reply, before they are told
 *                        |
 *                        +-- all told --> TOLD -- reply --> freed
 */


#include "ngx_coord_near_worker.h"
#include "ngx_coord_script.h"
#include "ngx_coord_store_redis.h"


#define NGX_COORD_NEAR_CACHING                                                \
    "*3" CRLF "$6" CRLF "CLIENT" CRLF "$7" CRLF "CACHING" CRLF                \
    "$3" CRLF "YES" CRLF
#define NGX_COORD_NEAR_GET   "*2" CRLF "$3" CRLF "GET" CRLF
#define NGX_COORD_NEAR_HGET  "*3" CRLF "$4" CRLF "HGET" CRLF
#define NGX_COORD_NEAR_PTTL  "*2" CRLF "$4" CRLF "PTTL" CRLF

/* milliseconds: for what another worker asks */
#define NGX_COORD_NEAR_FOLLOW  1


typedef enum {
    NGX_COORD_NEAR_ASKED = 0,
    NGX_COORD_NEAR_LATE,
    NGX_COORD_NEAR_TOLD,
    NGX_COORD_NEAR_ANSWERED,
    NGX_COORD_NEAR_FOLLOWING       /* another worker of the node asks */
} ngx_coord_near_fetch_e;


struct ngx_coord_near_fetch_s {
    ngx_coord_near_fetch_e     state;
    ngx_queue_t                queue;         /* fetches, or done */
    ngx_queue_t                waits;
    ngx_coord_near_worker_t   *worker;
    ngx_coord_near_item_t      item;          /* with a key of its own */
    ngx_coord_near_answer_t    answer;        /* the value: on the heap */
    ngx_coord_redis_call_t     call;
    ngx_atomic_uint_t          epoch;         /* when it was sent; 0: none */
    ngx_atomic_uint_t          told;          /* and of what changes by then */
    ngx_coord_nsec_t           sent;          /* monotonic */
    ngx_atomic_uint_t          shared;        /* others wait for it; or 0 */
    ngx_coord_timer_t          timer;         /* FOLLOWING */
};


static ngx_coord_near_fetch_t *ngx_coord_near_find(
    ngx_coord_near_worker_t *worker, ngx_coord_near_item_t *item);
static ngx_coord_near_fetch_t *ngx_coord_near_ask(
    ngx_coord_near_worker_t *worker, ngx_coord_near_item_t *item);
static void ngx_coord_near_call(ngx_coord_near_fetch_t *fetch);
static void ngx_coord_near_follow(ngx_event_t *ev);
static void ngx_coord_near_shared(ngx_coord_near_fetch_t *fetch);
static void ngx_coord_near_prepare(ngx_coord_redis_call_t *call);
static ngx_atomic_uint_t ngx_coord_near_word(
    ngx_coord_near_worker_t *worker);
static u_char *ngx_coord_near_encode(ngx_coord_redis_call_t *call, u_char *p);
static void ngx_coord_near_expired(ngx_coord_redis_call_t *call);
static void ngx_coord_near_answered(ngx_coord_redis_call_t *call,
    ngx_int_t rc, ngx_coord_resp_value_t *reply);
static void ngx_coord_near_untold(ngx_coord_near_fetch_t *fetch,
    ngx_coord_resp_value_t *error);
static void ngx_coord_near_expires(ngx_coord_near_fetch_t *fetch,
    ngx_coord_resp_value_t *left);
static void ngx_coord_near_read(ngx_coord_near_fetch_t *fetch,
    ngx_coord_resp_value_t *value);
static void ngx_coord_near_bad(ngx_coord_near_fetch_t *fetch,
    const char *reason);
static void ngx_coord_near_post(ngx_coord_near_fetch_t *fetch);
static void ngx_coord_near_free(ngx_coord_near_fetch_t *fetch);


ngx_int_t
ngx_coord_near_fetch(ngx_coord_near_item_t *item, ngx_coord_near_wait_t *wait)
{
    ngx_coord_near_fetch_t   *fetch;
    ngx_coord_near_worker_t  *worker;

    worker = item->near->zone->store->nearby;

    fetch = ngx_coord_near_find(worker, item);

    if (fetch == NULL) {
        fetch = ngx_coord_near_ask(worker, item);

        if (fetch == NULL) {
            return NGX_ERROR;
        }
    }

    ngx_queue_insert_tail(&fetch->waits, &wait->queue);
    wait->fetch = fetch;

    return NGX_OK;
}


void
ngx_coord_near_leave(ngx_coord_near_wait_t *wait)
{
    if (wait->fetch) {
        ngx_queue_remove(&wait->queue);
        wait->fetch = NULL;
    }
}


static ngx_coord_near_fetch_t *
ngx_coord_near_find(ngx_coord_near_worker_t *worker,
    ngx_coord_near_item_t *item)
{
    ngx_queue_t             *q;
    ngx_coord_near_fetch_t  *fetch;

    for (q = ngx_queue_head(&worker->fetches);
         q != ngx_queue_sentinel(&worker->fetches);
         q = ngx_queue_next(q))
    {
        fetch = ngx_queue_data(q, ngx_coord_near_fetch_t, queue);

        if (fetch->item.near == item->near
            && fetch->item.field == item->field
            && fetch->item.key.len == item->key.len
            && ngx_memcmp(fetch->item.key.data, item->key.data, item->key.len)
               == 0)
        {
            return fetch;
        }
    }

    return NULL;
}


static ngx_coord_near_fetch_t *
ngx_coord_near_ask(ngx_coord_near_worker_t *worker,
    ngx_coord_near_item_t *item)
{
    ngx_coord_near_fetch_t  *fetch;

    fetch = ngx_calloc(sizeof(ngx_coord_near_fetch_t) + item->key.len,
                       ngx_cycle->log);
    if (fetch == NULL) {
        return NULL;
    }

    fetch->worker = worker;
    fetch->item = *item;
    fetch->item.key.data = (u_char *) (fetch + 1);

    ngx_memcpy(fetch->item.key.data, item->key.data, item->key.len);

    ngx_queue_init(&fetch->waits);
    ngx_queue_insert_tail(&worker->fetches, &fetch->queue);

    if (ngx_coord_store_is_memory(worker->store)) {

        /* there is nothing but what is near */

        fetch->state = NGX_COORD_NEAR_ANSWERED;
        fetch->answer.state = NGX_COORD_NEAR_NONE;
        ngx_coord_near_post(fetch);

        return fetch;
    }

    /* nobody waits for a copy, or uses what one has read who is told nothing */

    if (!item->copy && worker->epoch) {
        fetch->shared = ngx_coord_near_share_begin(&fetch->item);

        if (fetch->shared == 0) {
            ngx_coord_timer_init(&fetch->timer, ngx_coord_near_follow, fetch,
                                 ngx_cycle->log);

            fetch->state = NGX_COORD_NEAR_FOLLOWING;
            ngx_coord_timer_start(&fetch->timer, NGX_COORD_NEAR_FOLLOW);

            return fetch;
        }
    }

    ngx_coord_near_call(fetch);

    return fetch;
}


/* another worker asks */

static void
ngx_coord_near_follow(ngx_event_t *ev)
{
    ngx_coord_near_fetch_t *fetch = ngx_coord_timer_data(ev);

    ngx_int_t  rc;

    rc = ngx_coord_near_share_look(&fetch->item, &fetch->answer);

    if (rc == NGX_AGAIN) {
        ngx_coord_timer_start(&fetch->timer, NGX_COORD_NEAR_FOLLOW);
        return;
    }

    if (rc == NGX_DECLINED) {
        fetch->state = NGX_COORD_NEAR_ASKED;
        ngx_coord_near_call(fetch);
        return;
    }

    if (rc == NGX_BUSY) {
        /* its time is over, and that of those who wait here */
        fetch->answer.late = 1;
    }

    fetch->state = NGX_COORD_NEAR_ANSWERED;
    ngx_coord_near_post(fetch);
}


static void
ngx_coord_near_call(ngx_coord_near_fetch_t *fetch)
{
    ngx_str_t                 tag, *field;
    ngx_coord_redis_t        *client;
    ngx_coord_near_worker_t  *worker;

    worker = fetch->worker;
    field = fetch->item.near->fields.elts;

    fetch->call.prepare = ngx_coord_near_prepare;
    fetch->call.encode = ngx_coord_near_encode;
    fetch->call.room = sizeof(NGX_COORD_NEAR_CACHING)
                       + sizeof(NGX_COORD_NEAR_HGET)
                       + sizeof(NGX_COORD_NEAR_PTTL)
                       + 3 * NGX_COORD_NEAR_BULK + 2 * fetch->item.key.len
                       + field[fetch->item.field].len;
    fetch->call.expired = ngx_coord_near_expired;
    fetch->call.handler = ngx_coord_near_answered;
    fetch->call.data = fetch;
    fetch->call.ncommands = 1;
    fetch->call.form = NGX_COORD_CALL_PLAIN;
    fetch->call.foreign = 1;
    fetch->call.reads = 1;

    client = ngx_coord_store_redis(worker->store)->client;

    if (client) {
        tag = ngx_coord_near_tag(&fetch->item.key);
        fetch->call.slot = ngx_coord_redis_slot(client, &tag);
    }

    if (client == NULL
        || ngx_coord_redis_send(client, &fetch->call) == NGX_ERROR)
    {
        ngx_coord_near_shared(fetch);

        fetch->state = NGX_COORD_NEAR_ANSWERED;
        ngx_coord_near_post(fetch);
    }
}


/* others need not wait any more */

static void
ngx_coord_near_shared(ngx_coord_near_fetch_t *fetch)
{
    if (fetch->shared) {
        ngx_coord_near_share_end(&fetch->item, fetch->shared);
        fetch->shared = 0;
    }
}


static void
ngx_coord_near_prepare(ngx_coord_redis_call_t *call)
{
    if (call->ask) {
        /* the server is about to get the key: ASKING is for one command */
        call->trust = NGX_COORD_TRUST_NONE;
    }

    switch (call->trust) {

    case NGX_COORD_TRUST_TRACKED:
        call->ncommands = 3;
        break;

    case NGX_COORD_TRUST_NONE:
        call->ncommands = 1;
        break;

    default: /* NGX_COORD_TRUST_TTL */
        call->ncommands = 2;
        break;
    }
}


/* of what is asked for now: another one, if that of before was revoked */

static ngx_atomic_uint_t
ngx_coord_near_word(ngx_coord_near_worker_t *worker)
{
    if (!ngx_coord_near_stands(worker->store, worker->epoch)) {
        ngx_coord_near_taint(worker, NULL);
        ngx_coord_near_renew(worker);
    }

    return worker->epoch;
}


static u_char *
ngx_coord_near_encode(ngx_coord_redis_call_t *call, u_char *p)
{
    ngx_str_t               *key, *field;
    ngx_coord_near_fetch_t  *fetch;

    fetch = call->data;
    key = &fetch->item.key;
    field = fetch->item.near->fields.elts;
    field += fetch->item.field;

    fetch->epoch = (call->trust == NGX_COORD_TRUST_NONE)
                   ? 0 : ngx_coord_near_word(fetch->worker);
    fetch->told = ngx_coord_near_news(&fetch->item);

    if (call->trust == NGX_COORD_TRUST_TRACKED) {
        p = ngx_cpymem(p, NGX_COORD_NEAR_CACHING,
                       sizeof(NGX_COORD_NEAR_CACHING) - 1);
    }

    if (fetch->item.field == 0) {
        p = ngx_cpymem(p, NGX_COORD_NEAR_GET, sizeof(NGX_COORD_NEAR_GET) - 1);
        p = ngx_coord_script_string(p, key->data, key->len);

    } else {
        p = ngx_cpymem(p, NGX_COORD_NEAR_HGET,
                       sizeof(NGX_COORD_NEAR_HGET) - 1);
        p = ngx_coord_script_string(p, key->data, key->len);
        p = ngx_coord_script_string(p, field->data, field->len);
    }

    if (call->ncommands == 1) {
        return p;
    }

    /* the server tells of an expired key when it removes it, which is later */

    fetch->sent = ngx_coord_monotonic();

    p = ngx_cpymem(p, NGX_COORD_NEAR_PTTL, sizeof(NGX_COORD_NEAR_PTTL) - 1);

    return ngx_coord_script_string(p, key->data, key->len);
}


static void
ngx_coord_near_expired(ngx_coord_redis_call_t *call)
{
    ngx_coord_near_fetch_t  *fetch;

    fetch = call->data;

    fetch->state = NGX_COORD_NEAR_LATE;
    ngx_coord_near_post(fetch);
}


static void
ngx_coord_near_answered(ngx_coord_redis_call_t *call, ngx_int_t rc,
    ngx_coord_resp_value_t *reply)
{
    ngx_coord_near_fetch_e   state;
    ngx_coord_near_fetch_t  *fetch;
    ngx_coord_resp_value_t  *value;

    fetch = call->data;
    state = fetch->state;

    /* a change that was told meanwhile was not noted for a late one */

    if (state != NGX_COORD_NEAR_ASKED) {
        fetch->epoch = 0;
    }

    if (rc == NGX_OK) {
        value = reply;

        if (call->trust == NGX_COORD_TRUST_TRACKED) {

            if (reply->type == NGX_COORD_RESP_ERROR) {
                ngx_coord_near_untold(fetch, reply);
            }

            value += value->next;
        }

        if (call->ncommands > 1) {
            ngx_coord_near_expires(fetch, value + value->next);
        }

        ngx_coord_near_read(fetch, value);
    }

    ngx_coord_near_shared(fetch);

    switch (state) {

    case NGX_COORD_NEAR_ASKED:
        fetch->state = NGX_COORD_NEAR_ANSWERED;
        ngx_coord_near_post(fetch);
        break;

    case NGX_COORD_NEAR_LATE:
        fetch->state = NGX_COORD_NEAR_ANSWERED;
        break;

    default: /* NGX_COORD_NEAR_TOLD */
        ngx_coord_near_free(fetch);
        break;
    }
}


/* it is not tracked: what was read is for those who wait, and is not kept */

static void
ngx_coord_near_untold(ngx_coord_near_fetch_t *fetch,
    ngx_coord_resp_value_t *error)
{
    u_char              buf[NGX_COORD_LOG_TEXT], reason[NGX_COORD_LOG_TEXT];
    ngx_str_t           key, text;
    ngx_uint_t          n;
    ngx_coord_store_t  *store;

    fetch->epoch = 0;

    store = fetch->worker->store;
    n = ngx_coord_log_due(&fetch->worker->bad, NGX_COORD_LOG_INTERVAL);

    if (n == 0) {
        return;
    }

    key = ngx_coord_log_text(buf, &fetch->item.key);
    text = ngx_coord_redis_error_text(ngx_coord_store_conf(store), reason,
                                      &error->str);

    ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0,
                  "coord store \"%V\": changes of \"%V\" are not told, it is "
                  "read each time: %V (%ui times)",
                  &store->name, &key, &text, n);
}


/* no longer than the key: it was there so long when the call was sent */

static void
ngx_coord_near_expires(ngx_coord_near_fetch_t *fetch,
    ngx_coord_resp_value_t *left)
{
    int64_t  msec;

    if (left->type != NGX_COORD_RESP_INTEGER) {
        fetch->epoch = 0;
        return;
    }

    if (left->integer == -1) {
        return;
    }

    /* -2: it has gone since it was read */

    msec = left->integer - (ngx_coord_monotonic() - fetch->sent)
                           / NGX_COORD_NSEC_PER_MSEC - 1;
    msec = ngx_max(msec, 0);

    if (msec < (int64_t) fetch->item.ttl) {
        fetch->item.ttl = (ngx_msec_t) msec;
    }
}


static void
ngx_coord_near_read(ngx_coord_near_fetch_t *fetch,
    ngx_coord_resp_value_t *value)
{
    ngx_coord_near_answer_t  *answer;

    answer = &fetch->answer;

    switch (value->type) {

    case NGX_COORD_RESP_NIL:
        answer->state = NGX_COORD_NEAR_NONE;
        break;

    case NGX_COORD_RESP_STRING:

        if (value->str.len > NGX_COORD_NEAR_VALUE_MAX) {
            ngx_coord_near_bad(fetch, "it is too large");
            break;
        }

        if (!fetch->item.copy && !ngx_coord_near_text(&value->str)) {
            ngx_coord_near_bad(fetch, "it is no text");
            break;
        }

        answer->value.data = ngx_alloc(value->str.len + 1, ngx_cycle->log);

        if (answer->value.data == NULL) {
            return;
        }

        answer->state = NGX_COORD_NEAR_VALUE;
        answer->value.len = value->str.len;
        ngx_memcpy(answer->value.data, value->str.data, value->str.len);
        break;

    case NGX_COORD_RESP_ERROR:

        if (value->str.len < sizeof("WRONGTYPE") - 1
            || ngx_strncmp(value->str.data, "WRONGTYPE",
                           sizeof("WRONGTYPE") - 1)
               != 0)
        {
            return;
        }

        ngx_coord_near_bad(fetch, "it is of another type");
        break;

    default:
        return;
    }

    if (fetch->item.copy
        && (fetch->epoch == 0
            || fetch->call.trust != NGX_COORD_TRUST_TRACKED))
    {
        return;
    }

    if (answer->state == NGX_COORD_NEAR_NONE && fetch->item.made) {
        ngx_coord_near_note(&fetch->item, fetch->epoch, fetch->told);
        return;
    }

    ngx_coord_near_keep(&fetch->item, answer, fetch->epoch, fetch->told);
}


ngx_uint_t
ngx_coord_near_text(ngx_str_t *value)
{
    size_t  i;

    for (i = 0; i < value->len; i++) {
        if ((value->data[i] < 0x20 && value->data[i] != '\t')
            || value->data[i] == 0x7f)
        {
            return 0;
        }
    }

    return 1;
}


static void
ngx_coord_near_bad(ngx_coord_near_fetch_t *fetch, const char *reason)
{
    u_char      buf[NGX_COORD_LOG_TEXT];
    ngx_str_t   key;
    ngx_uint_t  n;

    fetch->answer.state = NGX_COORD_NEAR_BAD;

    n = ngx_coord_log_due(&fetch->worker->bad, NGX_COORD_LOG_INTERVAL);

    if (n == 0) {
        return;
    }

    key = ngx_coord_log_text(buf, &fetch->item.key);

    ngx_log_error(NGX_LOG_ERR, ngx_cycle->log, 0,
                  "coord store \"%V\": the value of \"%V\" is not used, %s "
                  "(%ui times)",
                  &fetch->worker->store->name, &key, reason, n);
}


void
ngx_coord_near_taint(ngx_coord_near_worker_t *worker, ngx_str_t *key)
{
    ngx_queue_t             *q;
    ngx_coord_near_fetch_t  *fetch;

    for (q = ngx_queue_head(&worker->fetches);
         q != ngx_queue_sentinel(&worker->fetches);
         q = ngx_queue_next(q))
    {
        fetch = ngx_queue_data(q, ngx_coord_near_fetch_t, queue);

        if (key == NULL
            || (fetch->item.key.len == key->len
                && ngx_memcmp(fetch->item.key.data, key->data, key->len) == 0))
        {
            fetch->epoch = 0;
        }
    }
}


/* nobody may join any more */

static void
ngx_coord_near_post(ngx_coord_near_fetch_t *fetch)
{
    ngx_queue_remove(&fetch->queue);
    ngx_queue_insert_tail(&fetch->worker->done, &fetch->queue);

    ngx_post_event(&fetch->worker->event, &ngx_posted_events);
}


void
ngx_coord_near_tell(ngx_event_t *ev)
{
    ngx_coord_near_worker_t *worker = ev->data;

    ngx_queue_t              *q;
    ngx_coord_near_wait_t    *wait;
    ngx_coord_near_fetch_t   *fetch;
    ngx_coord_near_answer_t   none;

    ngx_memzero(&none, sizeof(ngx_coord_near_answer_t));
    none.late = 1;

    while (!ngx_queue_empty(&worker->done)) {
        q = ngx_queue_head(&worker->done);
        fetch = ngx_queue_data(q, ngx_coord_near_fetch_t, queue);

        while (!ngx_queue_empty(&fetch->waits)) {
            q = ngx_queue_head(&fetch->waits);
            wait = ngx_queue_data(q, ngx_coord_near_wait_t, queue);

            ngx_coord_near_leave(wait);

            wait->handler(wait, fetch->state == NGX_COORD_NEAR_ANSWERED
                                ? &fetch->answer : &none);
        }

        ngx_queue_remove(&fetch->queue);

        if (fetch->state == NGX_COORD_NEAR_ANSWERED) {
            ngx_coord_near_free(fetch);

        } else {
            fetch->state = NGX_COORD_NEAR_TOLD;
        }
    }
}


static void
ngx_coord_near_free(ngx_coord_near_fetch_t *fetch)
{
    if (fetch->answer.value.data) {
        ngx_free(fetch->answer.value.data);
    }

    ngx_free(fetch);
}
