
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * load=: a location that knows what Redis does not.  It is asked by a
 * subrequest of one of the requests that want the value, of all nodes: who has
 * the lease of the key reads once more, and then loads.
 *
 *        granted          absent              200, 404, ..
 *   LOCK -------> CHECK ----------> SUBREQUEST -----------> finished
 *    ^ | busy       |
 *    | v            +-- there by now ---------------------> finished
 *   WAIT, which reads: still absent
 */


#include "ngx_http_coord_lookup.h"
#include "ngx_coord_lease.h"


#define NGX_HTTP_COORD_LOAD_LEASE  (30 * NGX_COORD_NSEC_PER_SEC)
#define NGX_HTTP_COORD_LOAD_POLL   50         /* milliseconds */
#define NGX_HTTP_COORD_LOAD_WAIT   5000


typedef enum {
    NGX_HTTP_COORD_LOAD_LOCK = 0,
    NGX_HTTP_COORD_LOAD_CHECK,
    NGX_HTTP_COORD_LOAD_WAITING,
    NGX_HTTP_COORD_LOAD_SUBREQUEST,
    NGX_HTTP_COORD_LOAD_FINISHED
} ngx_http_coord_load_e;


/* one key; on the heap, as the requests that want it may go */
struct ngx_http_coord_lookup_load_s {
    ngx_http_coord_load_e            state;
    ngx_queue_t                      queue;   /* in loads */
    ngx_queue_t                      wants;   /* the first one asks */
    ngx_http_coord_lookup_t         *lookup;
    ngx_coord_near_item_t            item;    /* with a key of its own */
    ngx_coord_near_wait_t            wait;
    ngx_coord_near_answer_t          answer;
    ngx_coord_batch_t               *batch;
    ngx_coord_op_t                   lease;
    ngx_coord_timer_t                timer;   /* and the posted end */
    ngx_msec_t                       began;
    ngx_log_t                        log;
    unsigned                         held:1;
};


static ngx_http_coord_lookup_load_t *ngx_http_coord_lookup_load_find(
    ngx_http_coord_lookup_want_t *want);
static ngx_http_coord_lookup_load_t *ngx_http_coord_lookup_load_create(
    ngx_http_coord_lookup_want_t *want);
static void ngx_http_coord_lookup_load_lock(
    ngx_http_coord_lookup_load_t *load);
static void ngx_http_coord_lookup_load_locked(ngx_coord_batch_t *batch);
static void ngx_http_coord_lookup_load_decide(
    ngx_http_coord_lookup_load_t *load);
static void ngx_http_coord_lookup_load_read(
    ngx_http_coord_lookup_load_t *load);
static void ngx_http_coord_lookup_load_told(ngx_coord_near_wait_t *wait,
    ngx_coord_near_answer_t *answer);
static void ngx_http_coord_lookup_load_timer(ngx_event_t *ev);
static void ngx_http_coord_lookup_load_ask(
    ngx_http_coord_lookup_load_t *load);
static ngx_int_t ngx_http_coord_lookup_load_done(ngx_http_request_t *sr,
    void *data, ngx_int_t rc);
static ngx_uint_t ngx_http_coord_lookup_load_failed(ngx_http_request_t *sr,
    ngx_int_t rc);
static ngx_uint_t ngx_http_coord_lookup_load_whole(ngx_http_request_t *sr,
    size_t len);
static void ngx_http_coord_lookup_load_body(
    ngx_http_coord_lookup_load_t *load, ngx_http_request_t *sr);
static void ngx_http_coord_lookup_load_finish(
    ngx_http_coord_lookup_load_t *load, ngx_coord_near_answer_t *answer);
static void ngx_http_coord_lookup_load_free(
    ngx_http_coord_lookup_load_t *load);
static ngx_int_t ngx_http_coord_lookup_load_filter(ngx_http_request_t *r);


/* of this worker; those that are at work */
static ngx_queue_t  ngx_http_coord_lookup_loads;

static ngx_http_output_header_filter_pt  ngx_http_next_header_filter;


void
ngx_http_coord_lookup_load_init(void)
{
    ngx_http_next_header_filter = ngx_http_top_header_filter;
    ngx_http_top_header_filter = ngx_http_coord_lookup_load_filter;
}


/* nobody but us waits for the subrequest, and its turn never comes */

static ngx_int_t
ngx_http_coord_lookup_load_filter(ngx_http_request_t *r)
{
    if (r != r->main
        && r->post_subrequest
        && r->post_subrequest->handler == ngx_http_coord_lookup_load_done
        && r->upstream
        && r->upstream->buffering
        && ngx_http_coord_take(r) != NGX_OK)
    {
        return NGX_ERROR;
    }

    return ngx_http_next_header_filter(r);
}


ngx_int_t
ngx_http_coord_lookup_load(ngx_http_coord_lookup_want_t *want)
{
    ngx_http_coord_lookup_load_t  *load;

    if (ngx_http_coord_lookup_loads.next == NULL) {
        ngx_queue_init(&ngx_http_coord_lookup_loads);
    }

    load = ngx_http_coord_lookup_load_find(want);

    if (load) {
        ngx_queue_insert_tail(&load->wants, &want->queue);
        want->load = load;
        return NGX_OK;
    }

    load = ngx_http_coord_lookup_load_create(want);
    if (load == NULL) {
        return NGX_ERROR;
    }

    ngx_queue_insert_tail(&load->wants, &want->queue);
    want->load = load;

    ngx_http_coord_lookup_load_lock(load);

    return NGX_OK;
}


static ngx_http_coord_lookup_load_t *
ngx_http_coord_lookup_load_find(ngx_http_coord_lookup_want_t *want)
{
    ngx_queue_t                   *q;
    ngx_http_coord_lookup_load_t  *load;

    for (q = ngx_queue_head(&ngx_http_coord_lookup_loads);
         q != ngx_queue_sentinel(&ngx_http_coord_lookup_loads);
         q = ngx_queue_next(q))
    {
        load = ngx_queue_data(q, ngx_http_coord_lookup_load_t, queue);

        if (load->lookup == want->lookup
            && load->item.key.len == want->item.key.len
            && ngx_memcmp(load->item.key.data, want->item.key.data,
                          load->item.key.len)
               == 0)
        {
            return load;
        }
    }

    return NULL;
}


static ngx_http_coord_lookup_load_t *
ngx_http_coord_lookup_load_create(ngx_http_coord_lookup_want_t *want)
{
    ngx_http_coord_lookup_load_t  *load;

    load = ngx_calloc(sizeof(ngx_http_coord_lookup_load_t)
                      + want->item.key.len, ngx_cycle->log);
    if (load == NULL) {
        return NULL;
    }

    ngx_queue_init(&load->wants);
    ngx_queue_insert_tail(&ngx_http_coord_lookup_loads, &load->queue);

    load->lookup = want->lookup;
    load->item = want->item;
    load->item.key.data = (u_char *) (load + 1);
    ngx_memcpy(load->item.key.data, want->item.key.data,
               want->item.key.len);

    load->wait.handler = ngx_http_coord_lookup_load_told;
    load->wait.data = load;
    load->began = ngx_current_msec;
    load->log = *ngx_cycle->log;

    ngx_coord_timer_init(&load->timer, ngx_http_coord_lookup_load_timer, load,
                         &load->log);

    return load;
}


void
ngx_http_coord_lookup_load_leave(ngx_http_coord_lookup_want_t *want)
{
    ngx_uint_t                     first;
    ngx_http_coord_lookup_load_t  *load;

    load = want->load;

    if (load == NULL) {
        return;
    }

    first = (ngx_queue_head(&load->wants) == &want->queue);

    ngx_queue_remove(&want->queue);
    want->load = NULL;

    if (load->state == NGX_HTTP_COORD_LOAD_FINISHED) {
        return;
    }

    if (ngx_queue_empty(&load->wants)) {
        ngx_http_coord_lookup_load_free(load);
        return;
    }

    /* the subrequest goes with the request: the next one asks */

    if (first && load->state == NGX_HTTP_COORD_LOAD_SUBREQUEST) {
        load->state = NGX_HTTP_COORD_LOAD_CHECK;
        ngx_coord_timer_start(&load->timer, 1);
    }
}


static void
ngx_http_coord_lookup_load_lock(ngx_http_coord_lookup_load_t *load)
{
    size_t                    len;
    u_char                    key[NGX_COORD_KEY_LEN];
    ngx_coord_op_t           *op;
    ngx_coord_zone_t         *zone;
    ngx_coord_near_answer_t   none;

    zone = load->item.near->zone;
    op = NULL;

    load->state = NGX_HTTP_COORD_LOAD_LOCK;
    load->batch = ngx_coord_batch_create(zone->store);

    len = ngx_coord_key_encode(key, &load->item.key);

    if (load->batch && len) {
        op = ngx_coord_batch_add(load->batch, &ngx_coord_op_lease_acquire,
                                 zone, key, len);
    }

    if (op) {
        op->u.lease.limit = 1;
        op->u.lease.lease = NGX_HTTP_COORD_LOAD_LEASE;
    }

    if (op == NULL || ngx_coord_lease_name(op) != NGX_OK) {
        ngx_memzero(&none, sizeof(ngx_coord_near_answer_t));
        ngx_http_coord_lookup_load_finish(load, &none);
        return;
    }

    load->batch->handler = ngx_http_coord_lookup_load_locked;
    load->batch->data = load;

    if (ngx_coord_batch_send(load->batch) == NGX_OK) {
        ngx_http_coord_lookup_load_decide(load);
    }
}


static void
ngx_http_coord_lookup_load_locked(ngx_coord_batch_t *batch)
{
    ngx_http_coord_lookup_load_decide(batch->data);
}


static void
ngx_http_coord_lookup_load_decide(ngx_http_coord_lookup_load_t *load)
{
    ngx_int_t                rc;
    ngx_coord_near_answer_t  none;

    load->lease = load->batch->ops[0];
    load->lease.blob = NULL;
    rc = load->lease.rc;

    ngx_coord_batch_done(load->batch);
    load->batch = NULL;

    if (rc == NGX_OK) {
        load->held = 1;
        load->state = NGX_HTTP_COORD_LOAD_CHECK;
        ngx_http_coord_lookup_load_read(load);
        return;
    }

    if (rc == NGX_BUSY) {
        ngx_coord_journal_remove(&load->lease);
    }

    if (rc == NGX_BUSY
        && ngx_current_msec - load->began < NGX_HTTP_COORD_LOAD_WAIT)
    {
        load->state = NGX_HTTP_COORD_LOAD_WAITING;
        ngx_coord_timer_start(&load->timer, NGX_HTTP_COORD_LOAD_POLL);
        return;
    }

    ngx_memzero(&none, sizeof(ngx_coord_near_answer_t));
    ngx_http_coord_lookup_load_finish(load, &none);
}


static void
ngx_http_coord_lookup_load_read(ngx_http_coord_lookup_load_t *load)
{
    ngx_coord_near_answer_t  none;

    if (ngx_coord_near_fetch(&load->item, &load->wait) != NGX_OK) {
        ngx_memzero(&none, sizeof(ngx_coord_near_answer_t));
        ngx_http_coord_lookup_load_finish(load, &none);
    }
}


static void
ngx_http_coord_lookup_load_told(ngx_coord_near_wait_t *wait,
    ngx_coord_near_answer_t *answer)
{
    ngx_http_coord_lookup_load_t *load = wait->data;

    if (answer->state != NGX_COORD_NEAR_NONE) {
        ngx_http_coord_lookup_load_finish(load, answer);
        return;
    }

    if (load->state == NGX_HTTP_COORD_LOAD_WAITING) {
        ngx_http_coord_lookup_load_lock(load);
        return;
    }

    ngx_http_coord_lookup_load_ask(load);
}


static void
ngx_http_coord_lookup_load_timer(ngx_event_t *ev)
{
    ngx_http_coord_lookup_load_t  *load = ngx_coord_timer_data(ev);

    if (load->state == NGX_HTTP_COORD_LOAD_SUBREQUEST) {

        /* it has answered */

        ngx_http_coord_lookup_load_finish(load, &load->answer);
        return;
    }

    ngx_http_coord_lookup_load_read(load);
}


static void
ngx_http_coord_lookup_load_ask(ngx_http_coord_lookup_load_t *load)
{
    ngx_queue_t                   *q;
    ngx_connection_t              *c;
    ngx_http_request_t            *r;
    ngx_coord_near_answer_t        none;
    ngx_http_coord_lookup_want_t  *want;

    q = ngx_queue_head(&load->wants);
    want = ngx_queue_data(q, ngx_http_coord_lookup_want_t, queue);

    r = want->state->ctx->request;
    c = r->connection;

    load->state = NGX_HTTP_COORD_LOAD_SUBREQUEST;

    /* that of one before, whose client left when it was there */

    if (load->answer.value.data) {
        ngx_free(load->answer.value.data);
        ngx_str_null(&load->answer.value);
    }

    if (ngx_http_coord_lookup_subrequest(r, load->lookup->load,
                                         ngx_http_coord_lookup_load_done,
                                         load)
        != NGX_OK)
    {
        ngx_memzero(&none, sizeof(ngx_coord_near_answer_t));
        ngx_http_coord_lookup_load_finish(load, &none);
        return;
    }

    ngx_http_run_posted_requests(c);
}


/* the end comes from an event: the subrequest is still being finalized */

static ngx_int_t
ngx_http_coord_lookup_load_done(ngx_http_request_t *sr, void *data,
    ngx_int_t rc)
{
    ngx_http_coord_lookup_load_t *load = data;

    ngx_int_t                      end;
    ngx_uint_t                     status, failed;
    ngx_queue_t                   *q;
    ngx_http_coord_lookup_want_t  *want;

    failed = ngx_http_coord_lookup_load_failed(sr, rc);

    /* what its filters still have is for nobody: it has ended */

    if (failed) {
        sr->buffered = 0;
    }

    /* that would end the request, which goes on without it */

    end = (failed && rc == NGX_ERROR) ? NGX_OK : rc;

    /* this one may have been given up meanwhile */

    for (q = ngx_queue_head(&ngx_http_coord_lookup_loads);
         q != ngx_queue_sentinel(&ngx_http_coord_lookup_loads);
         q = ngx_queue_next(q))
    {
        if (ngx_queue_data(q, ngx_http_coord_lookup_load_t, queue) == load) {
            break;
        }
    }

    if (q == ngx_queue_sentinel(&ngx_http_coord_lookup_loads)
        || load->state != NGX_HTTP_COORD_LOAD_SUBREQUEST)
    {
        return end;
    }

    q = ngx_queue_head(&load->wants);
    want = ngx_queue_data(q, ngx_http_coord_lookup_want_t, queue);

    if (want->state->ctx->request != sr->parent) {
        return end;
    }

    status = (rc >= NGX_HTTP_SPECIAL_RESPONSE) ? (ngx_uint_t) rc
                                               : sr->headers_out.status;

    load->answer.state = NGX_COORD_NEAR_UNKNOWN;

    if (status == NGX_HTTP_OK && !failed) {
        ngx_http_coord_lookup_load_body(load, sr);

    } else if (status == NGX_HTTP_NOT_FOUND) {
        load->answer.state = NGX_COORD_NEAR_NONE;
    }

    ngx_coord_timer_start(&load->timer, 0);

    return end;
}


/*
 * 1 if there was an error of the subrequest.  What is too large for its buffer
 * is one of the connection to nginx, which has none: what was written to it was
 * written to memory.
 */

static ngx_uint_t
ngx_http_coord_lookup_load_failed(ngx_http_request_t *sr, ngx_int_t rc)
{
    ngx_connection_t  *c;

    c = sr->connection;

    if (!c->error) {
        return rc == NGX_ERROR;
    }

    if (!c->read->error && !c->write->error && !c->timedout
        && !c->write->timedout)
    {
        c->error = 0;
    }

    return 1;
}


/* 1 if the body is all of what the origin was to send */

static ngx_uint_t
ngx_http_coord_lookup_load_whole(ngx_http_request_t *sr, size_t len)
{
    off_t                 left;
    ngx_http_upstream_t  *u;

    if (sr->headers_out.content_length_n != -1) {
        return sr->headers_out.content_length_n == (off_t) len;
    }

    u = sr->upstream;

    if (u == NULL) {
        return 1;
    }

    left = (u->buffering && u->pipe) ? u->pipe->length : u->length;

    return left <= 0;
}


static void
ngx_http_coord_lookup_load_body(ngx_http_coord_lookup_load_t *load,
    ngx_http_request_t *sr)
{
    ngx_buf_t  *b;
    ngx_str_t   s;

    ngx_str_null(&s);

    if (sr->out && sr->out->buf) {
        b = sr->out->buf;
        s.data = b->pos;
        s.len = b->last - b->pos;
    }

    if (!ngx_http_coord_lookup_load_whole(sr, s.len)) {
        return;
    }

    while (s.len && (s.data[0] <= ' ')) {
        s.data++;
        s.len--;
    }

    while (s.len && s.data[s.len - 1] <= ' ') {
        s.len--;
    }

    if (s.len > NGX_COORD_NEAR_VALUE_MAX || !ngx_coord_near_text(&s)) {
        return;
    }

    load->answer.value.data = ngx_alloc(s.len + 1, &load->log);

    if (load->answer.value.data == NULL) {
        return;
    }

    ngx_memcpy(load->answer.value.data, s.data, s.len);
    load->answer.value.len = s.len;
    load->answer.state = NGX_COORD_NEAR_VALUE;

    ngx_coord_near_write(&load->item, &load->answer.value);
}


static void
ngx_http_coord_lookup_load_finish(ngx_http_coord_lookup_load_t *load,
    ngx_coord_near_answer_t *answer)
{
    ngx_queue_t                   *q;
    ngx_http_coord_lookup_want_t  *want;

    /* nobody joins any more */

    load->state = NGX_HTTP_COORD_LOAD_FINISHED;

    ngx_queue_remove(&load->queue);
    ngx_queue_init(&load->queue);

    if (answer == &load->answer && answer->state == NGX_COORD_NEAR_NONE) {
        ngx_coord_near_absent(&load->item);
    }

    while (!ngx_queue_empty(&load->wants)) {
        q = ngx_queue_head(&load->wants);
        want = ngx_queue_data(q, ngx_http_coord_lookup_want_t, queue);

        ngx_queue_remove(&want->queue);
        want->load = NULL;

        ngx_http_coord_lookup_answered(want, answer);
    }

    ngx_http_coord_lookup_load_free(load);
}


static void
ngx_http_coord_lookup_load_free(ngx_http_coord_lookup_load_t *load)
{
    ngx_queue_remove(&load->queue);

    ngx_coord_near_leave(&load->wait);
    ngx_coord_timer_stop(&load->timer);

    if (load->batch) {
        ngx_coord_batch_done(load->batch);
    }

    if (load->held) {
        ngx_coord_op_undo(&load->lease);
    }

    if (load->answer.value.data) {
        ngx_free(load->answer.value.data);
    }

    ngx_free(load);
}
