
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_cache, private to its folder: responses that nodes share.
 *
 *   ngx_http_coord_cache.c          the feature: deciding, waiting, answering
 *   ngx_http_coord_cache_ask.c      what it asks the store
 *   ngx_http_coord_cache_near.c     what is often asked for, in shared memory
 *   ngx_http_coord_cache_conf.c     directives, variable
 *   ngx_http_coord_cache_filter.c   a response on its way is kept
 *   ngx_http_coord_cache_store.c    ... in the store
 *   ngx_http_coord_cache_client.c   under what conditions a client wants it
 *   ngx_http_coord_cache_range.c    what part of it
 *   ngx_http_coord_cache_revalidate.c   whether it has changed
 *   ngx_http_coord_cache_update.c   ... asked in the background
 *   ngx_http_coord_cache_unsafe.c   requests that change it
 *   ngx_http_coord_cache_purge.c    ... is told to all nodes
 *   ngx_http_coord_cache_policy.c   what the origin says of it
 *   ngx_http_coord_cache_rules.c    what may be kept, and how long
 *   ngx_http_coord_cache_error.c    what is the response of another location
 *   ngx_http_coord_cache_fields.c   fields and directives
 *   ngx_http_coord_cache_tags.c     tags of a response
 *   ngx_http_coord_cache_stored.c   a stored response with its times
 *   ngx_http_coord_cache_api.c      the route of coord_api
 */


#ifndef _NGX_HTTP_COORD_CACHE_H_INCLUDED_
#define _NGX_HTTP_COORD_CACHE_H_INCLUDED_


#include "ngx_http_coord_api.h"
#include "ngx_http_coord_capture.h"
#include "ngx_http_coord_fields.h"
#include "ngx_http_coord_conf.h"
#include "ngx_coord_near.h"


#define NGX_HTTP_COORD_CACHE_TAGS      64       /* of a response */
#define NGX_HTTP_COORD_CACHE_TAG       128      /* bytes of one */
#define NGX_HTTP_COORD_CACHE_META      8192     /* bytes of times and tags */
#define NGX_HTTP_COORD_CACHE_YEAR      31536000 /* seconds */
#define NGX_HTTP_COORD_CACHE_WITHHELD  4        /* directives with names */

/* the longest life of a response, and so that of the note of a purge */
#define NGX_HTTP_COORD_CACHE_LIFE                                             \
    ((ngx_coord_nsec_t) 30 * 86400 * NGX_COORD_NSEC_PER_SEC)

/*
 * What was asked for so shortly after a purge is not used where the times are
 * those of several servers: their clocks are as far apart.
 */
#define NGX_HTTP_COORD_CACHE_SLACK     (50 * NGX_COORD_NSEC_PER_MSEC)


typedef struct {
    ngx_coord_zone_t          *zone;         /* NULL: no cache */
    ngx_coord_near_t          *near;         /* of the zone */
    ngx_http_complex_value_t  *key;
    ngx_coord_nsec_t           valid;        /* without a word of the origin */
    ngx_coord_nsec_t           stale;
    size_t                     max;          /* bytes of a body */
    unsigned                   lock:1;
    unsigned                   user:1;       /* the key names a user, */
    unsigned                   credentials:1;  /* ... or proves it */
    unsigned                   off:1;
} ngx_http_coord_cache_conf_t;


/* a stored response, decoded: its strings point into the blob */
typedef struct {
    ngx_coord_nsec_t           started;      /* asked for; the store's clock */
    ngx_coord_nsec_t           stored;       /* its header came; the same */
    ngx_coord_nsec_t           fresh;        /* lifetime, from its birth */
    ngx_coord_nsec_t           stale;        /* after that: while one asks, */
    ngx_coord_nsec_t           error;        /* ... in place of an error */
    ngx_coord_nsec_t           keep;         /* then it is of no use; birth */
    ngx_coord_nsec_t           age;          /* when its header came */
    ngx_coord_nsec_t           allowed;      /* 1: stale by its own word */
    u_char                     variant[NGX_COORD_DIGEST_LEN];
    ngx_uint_t                 varies;       /* 1: there is a variant */
    ngx_uint_t                 unvaried;     /* 1: whatever Vary says */
    ngx_str_t                  tags;         /* each ends with LF */
    ngx_coord_record_t         record;
} ngx_http_coord_stored_t;


/* what an origin says of its response; seconds: -1, it does not say */
typedef struct {
    time_t                     max_age;
    time_t                     s_maxage;
    time_t                     stale_while;
    time_t                     stale_if_error;
    ngx_uint_t                 no_store;
    ngx_uint_t                 no_cache;
    ngx_uint_t                 private;
    ngx_uint_t                 public;
    ngx_uint_t                 must_revalidate;
    ngx_uint_t                 proxy_revalidate;
    ngx_uint_t                 targeted;     /* Expires is not for us */
    ngx_uint_t                 accel;        /* max_age counts from now */
    ngx_uint_t                 ignored;      /* NGX_HTTP_UPSTREAM_IGN_... */
    ngx_uint_t                 nwithheld;
    ngx_str_t                  withheld[NGX_HTTP_COORD_CACHE_WITHHELD];
} ngx_http_coord_cache_policy_t;


/* what the origin is not asked; empty: the client does not ask it, either */
typedef struct {
    ngx_str_t                  none_match;
    ngx_str_t                  since;
    ngx_str_t                  match;
    ngx_str_t                  unmodified;
    ngx_table_elt_t            range;
    ngx_table_elt_t            if_range;
    off_t                      begin;        /* of the range, in the body */
    off_t                      end;          /* behind it; 0: all is sent */
    off_t                      passed;       /* of the body, until now */
    void                      *several;      /* nginx knows which; or NULL */
} ngx_http_coord_cache_client_t;


typedef enum {
    NGX_HTTP_COORD_CACHE_ASKED = 0,          /* in the batch of the walk */
    NGX_HTTP_COORD_CACHE_AGAIN,              /* the same, after a wait */
    NGX_HTTP_COORD_CACHE_VARIANT,            /* for another response */
    NGX_HTTP_COORD_CACHE_TAGS_ASKED,
    NGX_HTTP_COORD_CACHE_CLAIMED,            /* may this request fill it? */
    NGX_HTTP_COORD_CACHE_CHECKED,            /* is it there by now? */
    NGX_HTTP_COORD_CACHE_WAITING,            /* another one does */
    NGX_HTTP_COORD_CACHE_FILLING,
    NGX_HTTP_COORD_CACHE_KEEPING,            /* its response is captured */
    NGX_HTTP_COORD_CACHE_UNSAFE,             /* it may change what is kept */
    NGX_HTTP_COORD_CACHE_SETTLED
} ngx_http_coord_cache_e;


/* of a request; in its pool */
typedef struct ngx_http_coord_cache_s  ngx_http_coord_cache_t;

struct ngx_http_coord_cache_s {
    ngx_http_request_t        *request;
    ngx_http_coord_ctx_t      *ctx;
    ngx_http_coord_cache_conf_t  *conf;
    ngx_http_coord_cache_e     state;
    ngx_coord_outcome_e        status;       /* HIT, MISS, EXPIRED, ... */
    ngx_http_coord_ref_t       ref;

    size_t                     key_len;      /* encoded */
    u_char                     key[NGX_COORD_KEY_LEN];
    size_t                     asked_len;    /* that, or of a variant */
    u_char                     asked[NGX_COORD_KEY_LEN];
    ngx_uint_t                 on_failure;

    ngx_coord_batch_t         *batch;        /* its own, behind the first */
    ngx_coord_timer_t          timer;        /* WAITING */
    ngx_msec_t                 waited;       /* since */

    ngx_coord_nsec_t           now;          /* the store's clock, when ... */
    ngx_coord_nsec_t           taken;        /* ... ours was this */
    ngx_coord_nsec_t           purged;       /* the key, last */

    ngx_str_t                  lent;         /* near: the record, in r->pool */
    ngx_str_t                  blob;         /* on the heap, unless pooled */
    ngx_http_coord_stored_t    stored;       /* of blob; unless it is empty */
    ngx_coord_nsec_t           old;          /* its age when asked for */

    /* when it began, for what an error page is */
    ngx_uint_t                 err_status;
    ngx_uint_t                 nstates;      /* of upstreams */

    ngx_coord_op_t             claim;        /* a lease */
    unsigned                   claimed:1;
    unsigned                   near:1;       /* last answers: from memory */
    unsigned                   pooled:1;     /* blob is: in r->pool */
    unsigned                   missed:1;     /* the store was asked */
    unsigned                   far:1;        /* memory was of no use */
    unsigned                   marked:1;     /* nothing to wait for */
    unsigned                   error_page:1;
    unsigned                   conditional:1;  /* the origin may say 304 */
    unsigned                   same:1;       /* ... and has, of this one */
    unsigned                   background:1;   /* nobody is sent what it says */
    unsigned                   serving:1;    /* stored, in place of an error
                                              * or a 304 */

    ngx_http_coord_cache_client_t   client;  /* FILLING */
    ngx_http_coord_capture_t   capture;
    ngx_http_coord_cache_policy_t   policy;  /* of what is to be stored */
    ngx_http_coord_stored_t    fill;         /* what is to be stored */
    u_char                    *meta;

    ngx_http_coord_cache_t    *update;       /* in the background */

    /* of what has changed it */
    unsigned                   purging:1;    /* its response waits for that */
    unsigned                   unpurged:1;   /* told in the log: no answer */
};


extern ngx_module_t               ngx_http_coord_cache_module;
extern ngx_http_coord_feature_t   ngx_http_coord_cache_feature;


/* --- ngx_http_coord_cache.c --- */

/* as of ngx_http_coord_step_t */
ngx_int_t ngx_http_coord_cache_begin(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx);
ngx_int_t ngx_http_coord_cache_decide(ngx_http_request_t *r,
    ngx_http_coord_ctx_t *ctx);
void ngx_http_coord_cache_end(ngx_http_coord_ctx_t *ctx, void *data);

/* the state of a request, or NULL */
ngx_http_coord_cache_t *ngx_http_coord_cache_get(ngx_http_request_t *r);


/* --- ngx_http_coord_cache_conf.c --- */

/* the near cache of a zone, or NULL: no location has it */
ngx_coord_near_t *ngx_http_coord_cache_near_of(ngx_http_request_t *r,
    ngx_coord_zone_t *zone);


/* --- ngx_http_coord_cache_ask.c --- */

/*
 * Make cache->batch, which asks for a response by its encoded key, for the
 * times when its tags were purged, and for the claim of a fill.  NGX_ERROR: no
 * memory; the batch, if there is one, is for the end of the request.
 */
ngx_int_t ngx_http_coord_cache_ask_get(ngx_http_coord_cache_t *cache,
    u_char *key, size_t len);
ngx_int_t ngx_http_coord_cache_ask_tags(ngx_http_coord_cache_t *cache);
ngx_int_t ngx_http_coord_cache_ask_claim(ngx_http_coord_cache_t *cache);

/*
 * The same as ngx_http_coord_cache_ask_get() for the key of the request, if
 * shared memory has the answer: NGX_OK, it is there; NGX_DECLINED: it has not;
 * NGX_ERROR: no memory.
 */
ngx_int_t ngx_http_coord_cache_ask_near(ngx_http_coord_cache_t *cache);

/*
 * Sends it, in this state, unless shared memory has all of it.  NGX_OK: the
 * answers are there; NGX_AGAIN: decide() is called when they are.
 */
ngx_int_t ngx_http_coord_cache_ask(ngx_http_coord_cache_t *cache,
    ngx_http_coord_cache_e state);

/*
 * Nothing more will be stored by this request: others that wait for it need not
 * wait for its end.  Counts what has become of it.
 */
void ngx_http_coord_cache_settle(ngx_http_coord_cache_t *cache);


/* --- ngx_http_coord_cache_near.c --- */

/*
 * Answers a cache_get from shared memory, as the store would; of a tag only
 * when it was purged is asked.  The record is cache->lent, in the pool of the
 * request, and none of the operation, with which it would be freed.
 * NGX_DECLINED: the store is to be asked.
 */
ngx_int_t ngx_http_coord_cache_near_get(ngx_http_coord_cache_t *cache,
    ngx_coord_op_t *op, ngx_uint_t tag);

/*
 * A key, or a tag, is about to be purged: this node does not wait for the news
 * of that, it asks the store from now on.
 */
void ngx_http_coord_cache_near_forget(ngx_coord_near_t *near, u_char *key,
    size_t len);

/* it was purged: all workers of all nodes are told, whoever has copied it */
void ngx_http_coord_cache_near_tell(ngx_coord_zone_t *zone, u_char *key,
    size_t len);

/* the stored response was found in the store: if that is often it is copied */
void ngx_http_coord_cache_near_found(ngx_http_coord_cache_t *cache);


/* --- ngx_http_coord_cache_filter.c --- */

ngx_int_t ngx_http_coord_cache_filter_init(ngx_conf_t *cf);


/* --- ngx_http_coord_cache_store.c --- */

/*
 * Stores the captured response under its key, and under that of its variant.
 * The claim is given back when it is stored.
 */
void ngx_http_coord_cache_store(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache);

/*
 * What the origin has sent is not kept: tells those who wait for it, if this
 * request has the claim, and those who would for some time.
 */
void ngx_http_coord_cache_mark(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache);


/* --- ngx_http_coord_cache_client.c --- */

/*
 * Takes conditions, and Range as well, out of a request that has not run yet;
 * the bytes are those of the request.
 */
void ngx_http_coord_cache_client_take(ngx_http_request_t *r,
    ngx_http_coord_cache_client_t *client);

/* 1 if the client does not want a response at all: 412 takes its place */
ngx_uint_t ngx_http_coord_cache_client_refuses(ngx_http_request_t *r,
    ngx_http_coord_cache_client_t *client);

/*
 * Applies them to a response whose header is known, and is not sent yet.  1: it
 * is a 304 now, the client has it and is sent no body.
 */
ngx_uint_t ngx_http_coord_cache_client_apply(ngx_http_request_t *r,
    ngx_http_coord_cache_client_t *client);

/* 1 if an ETag is among those of a line; weak ones are as good */
ngx_uint_t ngx_http_coord_cache_client_etag(ngx_str_t line, ngx_str_t *etag);


/* --- ngx_http_coord_cache_range.c --- */

/*
 * Lets the range filter of nginx look at what the client wants of a response,
 * whose header goes to it next.  whole: its body will be in one buffer.
 */
void ngx_http_coord_cache_range_allow(ngx_http_request_t *r,
    ngx_http_coord_cache_client_t *client, ngx_uint_t whole);

/*
 * Behind that: 1 if it is a part.  The body is not cut by nginx then, and has
 * to be by ngx_http_coord_cache_range_cut().
 */
ngx_uint_t ngx_http_coord_cache_range_take(ngx_http_request_t *r,
    ngx_http_coord_cache_client_t *client);

/*
 * Sends what the client wants of a body that is in one buffer, the last one, to
 * the next filter.
 */
ngx_int_t ngx_http_coord_cache_range_send(ngx_http_request_t *r,
    ngx_http_coord_cache_client_t *client, ngx_buf_t *b,
    ngx_http_output_body_filter_pt next);

/*
 * Cuts the next buffers of the body, which are in memory and nobody else's, to
 * what the client wants; those of which nothing is left are taken out.
 */
void ngx_http_coord_cache_range_cut(ngx_http_coord_cache_client_t *client,
    ngx_chain_t **chain);


/* --- ngx_http_coord_cache_unsafe.c --- */

/* 1 if a method may change what it is for */
ngx_uint_t ngx_http_coord_cache_unsafe(ngx_http_request_t *r);

/*
 * The header of an unsafe request has come: if it is no error what was asked
 * for until now under its key, or is in the groups that the response names in
 * Cache-Group-Invalidation (RFC 9875), is not used any more.  While that is not
 * known to all nodes its response is kept back, for the timeout of the store at
 * most.
 */
void ngx_http_coord_cache_changed(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache);

/* the pool ends: what has no answer yet is asked for without the request */
void ngx_http_coord_cache_changed_end(ngx_http_coord_cache_t *cache);


/* --- ngx_http_coord_cache_purge.c --- */

/*
 * The first round of a purge drops the response and notes the time that this
 * worker knows; the second, of the batch that purge_note() makes when the
 * answers of the first stand, notes that of the server.  If there was a
 * response all workers of all nodes are told with the second; the server writes
 * that in no certain order beside the answer, so there is a third one like it.
 */

/*
 * Adds the purge of an encoded key, or of that of a tag.  near: that of the
 * zone, or NULL.  NGX_ERROR: no memory.
 */
ngx_int_t ngx_http_coord_cache_purge_add(ngx_coord_batch_t *batch,
    ngx_coord_zone_t *zone, ngx_coord_near_t *near, u_char *key, size_t len,
    ngx_uint_t tag);

/*
 * The batch of the next round; NULL: there is none, as behind the last one or
 * in a memory store, or there is no memory.
 */
ngx_coord_batch_t *ngx_http_coord_cache_purge_note(ngx_coord_batch_t *batch);


/* --- ngx_http_coord_cache_revalidate.c --- */

/*
 * Puts the conditions of the stored response, not fresh any more, into the
 * request, which goes to its origin; sets cache->conditional if there are any.
 * NGX_ERROR: no memory.
 */
ngx_int_t ngx_http_coord_cache_ask_origin(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache);

/* 1 unless the 304 of the origin is about another response: by its ETag */
ngx_uint_t ngx_http_coord_cache_same(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache);

/*
 * The origin has said 304: makes r->headers_out that of the stored response,
 * with what is new if news is not 0, and the capture as if all of it had come
 * from the origin.  NGX_ERROR: no memory.
 */
ngx_int_t ngx_http_coord_cache_revalidate(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache, ngx_uint_t news);


/* --- ngx_http_coord_cache_policy.c --- */

/*
 * Reads what the origin of the response of r, whose header is known, says to a
 * shared cache.  NGX_ERROR: no memory.
 */
ngx_int_t ngx_http_coord_cache_policy(ngx_http_request_t *r,
    ngx_http_coord_cache_policy_t *policy);

/* 1 if all but this field of it may be used again (RFC 9111, 5.2.2.4) */
ngx_uint_t ngx_http_coord_cache_withheld(ngx_http_coord_cache_policy_t *policy,
    ngx_str_t *name);

/*
 * What is kept of a response, whose policy is known, as
 * ngx_http_coord_capture_keep_pt: data is the cache.
 */
ngx_uint_t ngx_http_coord_cache_keep(void *data, ngx_str_t *name);


/* --- ngx_http_coord_cache_update.c --- */

/*
 * Makes cache->update of a request that has the claim of a stale response, and
 * with it the claim.  NGX_ERROR: no memory, nothing has changed.
 */
ngx_int_t ngx_http_coord_cache_update(ngx_http_coord_cache_t *cache);

/* starts it, as a subrequest of r, which is in its phases */
void ngx_http_coord_cache_update_start(ngx_http_request_t *r,
    ngx_http_coord_cache_t *update);


/* --- ngx_http_coord_cache_rules.c --- */

/*
 * Tells whether the response of r, whose header is known, may be kept; fills
 * cache->fill and cache->meta.  NGX_DECLINED: it may not; NGX_ERROR: no memory.
 */
ngx_int_t ngx_http_coord_cache_rules(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache);


/* --- ngx_http_coord_cache_error.c --- */

/* notes what error has brought r here, if any, before the cache is asked */
void ngx_http_coord_cache_arrived(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache);

/*
 * The status of the response of r, or, if that is the page of an error since
 * then, of the error; 0: that is not known.
 */
ngx_uint_t ngx_http_coord_cache_failure(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache);

/* 1: the response of r is the page of an error that came since then */
ngx_uint_t ngx_http_coord_cache_error_page(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache);

/* 1: the origin has sent r elsewhere by X-Accel-Redirect since then */
ngx_uint_t ngx_http_coord_cache_redirected(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache);


/* --- ngx_http_coord_cache_fields.c --- */

/*
 * Takes the next directive off a line of Cache-Control: its name, and its
 * argument without quotes, or empty.  NGX_DONE: no more.
 */
ngx_int_t ngx_http_coord_cache_argument(ngx_str_t *line, ngx_str_t *name,
    ngx_str_t *value);

/* 1 if a directive is among those of the request */
ngx_uint_t ngx_http_coord_cache_asked(ngx_http_request_t *r,
    const char *directive);

/* a number of seconds, at most a year; what is no number is 0 */
time_t ngx_http_coord_cache_number(ngx_str_t *value);

/*
 * Digests what of the request the response names in Vary, whose lines are
 * names[0 .. n - 1], and its credentials where the key has no more than the
 * name of a user.  NGX_DECLINED: there are none of them; NGX_BUSY: Vary is "*",
 * or too long; NGX_ERROR: OpenSSL, or the name of a field is too long.
 */
ngx_int_t ngx_http_coord_cache_variant(ngx_http_request_t *r,
    ngx_http_coord_cache_conf_t *ccf, ngx_str_t *names, ngx_uint_t n,
    u_char *digest);

/* writes the key of a variant, encoded; 0: OpenSSL failed */
size_t ngx_http_coord_cache_variant_key(u_char *dst,
    ngx_http_coord_cache_t *cache, u_char *variant);


/* the Date of the origin of the response of r; NULL: it has told none */
ngx_table_elt_t *ngx_http_coord_cache_dated_by(ngx_http_request_t *r);

/*
 * Gives the response of r the Date of its origin, or else of now: what is
 * stored has one that does not change (RFC 9110, 6.6.1).  NGX_ERROR: no memory.
 */
ngx_int_t ngx_http_coord_cache_dated(ngx_http_request_t *r);


/* --- ngx_http_coord_cache_tags.c --- */

/*
 * Writes the tags of the response of r, also those of fields of its upstream
 * that are not passed on, at p, each with LF behind it, before last.  NULL:
 * they are too many, too long, or not printable, or there is no memory.
 */
u_char *ngx_http_coord_cache_tags(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache, u_char *p, u_char *last);

/*
 * Makes the member of a list of groups its name: a string without quotes and
 * escapes, in buf of NGX_HTTP_COORD_CACHE_TAG + 1 bytes.
 */
void ngx_http_coord_cache_group(ngx_str_t *member, u_char *buf);

/* the encoded key of a tag; 0: OpenSSL failed */
size_t ngx_http_coord_cache_tag_key(u_char *dst, ngx_str_t *tag);


/* --- ngx_http_coord_cache_stored.c --- */

/* writes the times of a response at p; returns the end; tags follow */
u_char *ngx_http_coord_stored_meta(u_char *p, ngx_http_coord_stored_t *stored);

/*
 * Puts together what is stored: meta and record, which it frees.  NGX_ERROR:
 * no memory.
 */
ngx_int_t ngx_http_coord_stored_join(ngx_str_t *meta, ngx_str_t *record,
    ngx_str_t *blob);

/*
 * What stands in place of a response that is not kept, on the heap, for the
 * caller to free; NGX_ERROR: no memory.  And whether a blob is that.
 */
ngx_int_t ngx_http_coord_stored_mark(ngx_str_t *blob);
ngx_uint_t ngx_http_coord_stored_is_mark(ngx_str_t *blob);

/*
 * Reads it again.  NGX_DECLINED: it is of another version of this module;
 * NGX_ERROR: it is not that of the key, or was changed.
 */
ngx_int_t ngx_http_coord_stored_decode(ngx_http_coord_stored_t *stored,
    ngx_str_t *blob, ngx_str_t *key);

/* the field of a record by name, its lines as names[0 ..]; returns how many */
ngx_uint_t ngx_http_coord_stored_field(ngx_coord_record_t *record,
    const char *name, ngx_str_t *lines, ngx_uint_t max);

/* 1 if there is one that may be used while another request asks the origin */
ngx_uint_t ngx_http_coord_stored_while(ngx_http_coord_cache_t *cache);

/* the clock of the store, as far as this request knows it */
ngx_coord_nsec_t ngx_http_coord_cache_now(ngx_http_coord_cache_t *cache);

/* the field Age of the stored response; NGX_ERROR: no memory */
ngx_int_t ngx_http_coord_cache_age(ngx_http_request_t *r,
    ngx_http_coord_cache_t *cache, ngx_keyval_t *field);


/* --- ngx_http_coord_cache_api.c --- */

extern const ngx_http_coord_route_t  ngx_http_coord_cache_routes[];


#endif /* _NGX_HTTP_COORD_CACHE_H_INCLUDED_ */
