
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * An operation of a store: what is asked and what is answered, and for each
 * kind of operation one descriptor with all that there is to know of it.
 */


#ifndef _NGX_COORD_OP_H_INCLUDED_
#define _NGX_COORD_OP_H_INCLUDED_


#include "ngx_coord.h"
#include "ngx_coord_id.h"
#include "ngx_coord_key.h"
#include "ngx_coord_rate.h"
#include "ngx_coord_stats.h"
#include "ngx_coord_table.h"


typedef struct ngx_coord_op_type_s  ngx_coord_op_type_t;
typedef struct ngx_coord_command_s  ngx_coord_command_t;


/* granted, it holds something that undo gives back */
#define NGX_COORD_OP_TAKES      0x01

/*
 * Its replies are few and short, so that the transaction may be shared with
 * other requests; not so the list of a user, or a stored response.
 */
#define NGX_COORD_OP_JOINS      0x02

/* gives back what is named by an id, and does no harm when done twice */
#define NGX_COORD_OP_TWICE      0x04

/*
 * A zone without room for its key refuses, as the stock limits do; others have
 * no answer then.
 */
#define NGX_COORD_OP_FULL_BUSY  0x20


/* looks at what limits: where the store has no answer memory may have one */
#define NGX_COORD_OP_LOOKS      0x40


/*
 * Drops what stands in memory: who is full does that, but nothing that is in a
 * transaction.  So it goes without one, where it can, and without others.
 */
#define NGX_COORD_OP_FREES      0x80


/* those that travel as one: see same() */
#define NGX_COORD_OP_TOGETHER   32

/* its reply may be large or slow: no decision waits behind it */
#define NGX_COORD_OP_BULK       0x08

/*
 * Bytes of a record that come with the answer to a claim, and that travel in
 * the order of decisions.  Redis does not read what is above the first in one
 * go, and takes others' commands in between.
 */
#define NGX_COORD_RECORD_INLINE  4096
#define NGX_COORD_RECORD_BULK    65536


/* the states that a key may have in memory; each is an entry of its own */
typedef enum {
    NGX_COORD_KIND_BUCKET = 0,
    NGX_COORD_KIND_WINDOW,
    NGX_COORD_KIND_SLIDING,
    NGX_COORD_KIND_LOG,
    NGX_COORD_KIND_LEASE,
    NGX_COORD_KIND_LINE,           /* who waits for leases */
    NGX_COORD_KIND_TOKEN,
    NGX_COORD_KIND_SESSION,
    NGX_COORD_KIND_USER,
    NGX_COORD_KIND_CLAIM,
    NGX_COORD_KIND_RECORD,
    NGX_COORD_KIND_HOLD,
    NGX_COORD_KIND_DENY,           /* copies of what Redis told of rates: */
    NGX_COORD_KIND_BLOCK,          /* places taken in advance */
    NGX_COORD_KIND_CACHED,
    NGX_COORD_KIND_PURGED,         /* when */
    NGX_COORD_KIND_DENY_HOLD       /* a copy of a hold that Redis told of */
} ngx_coord_kind_e;


/*
 * A kind of operation.  Features name it and may follow undo, peek and
 * forget; the functions are called by the stores.
 */

struct ngx_coord_op_type_s {
    ngx_str_t                   name;
    ngx_uint_t                  flags;
    ngx_coord_kind_e            kind;

    /*
     * In Redis: build() fills the arguments of the script, on the clock of
     * the server; parse() reads the replies of what was built at now, none of
     * them an error reply, and returns rc, or NGX_ERROR: this is not what the
     * script answers, or NGX_AGAIN: it has put another type into op, which is
     * asked next.  build NULL: the operation is of memory only.
     */
    ngx_uint_t                  script;
    void                      (*build)(ngx_coord_command_t *cmd,
                                       ngx_coord_op_t *op,
                                       ngx_coord_nsec_t now);
    ngx_int_t                 (*parse)(ngx_coord_op_t *op,
                                       ngx_coord_resp_value_t **values,
                                       ngx_coord_nsec_t now);

    /*
     * Tells before Redis is asked: NGX_OK or NGX_BUSY where the result needs
     * no asking (its cost never fits, there is nothing left to give back);
     * NGX_AGAIN: ask.  NULL: always ask.
     */
    ngx_int_t                 (*known)(ngx_coord_op_t *op,
                                       ngx_coord_nsec_t now);

    /* in memory, with the table entered; returns rc, NGX_ERROR: it is full */
    ngx_int_t                 (*run)(ngx_coord_table_t *table,
                                     ngx_coord_op_t *op,
                                     ngx_coord_nsec_t now);

    /* NULL where there is none */
    const ngx_coord_op_type_t  *undo;      /* gives back what this took */
    const ngx_coord_op_type_t  *peek;      /* its answer, without taking */
    const ngx_coord_op_type_t  *forget;    /* drops the state of the key */
    const ngx_coord_op_type_t  *wake;      /* in a zone that is waited for */

    /*
     * For one operation of this kind and another one, of the same key: 1 if
     * they ask the same.  Those that do so in one turn of the event loop, at
     * most NGX_COORD_OP_TOGETHER, travel as one: build() is called for the
     * first, which tells by op->behind how many there are behind it, op->with
     * being the next of them, and parse() for each, by its place op->nth.
     */
    ngx_uint_t                (*same)(const ngx_coord_op_t *a,
                                      const ngx_coord_op_t *b);
};


/* what a feature does when its store has no answer: coord_on_failure */
typedef enum {
    NGX_COORD_FAILURE_OPEN = 0,
    NGX_COORD_FAILURE_CLOSED,
    NGX_COORD_FAILURE_LOCAL,
    NGX_COORD_FAILURE_MAX
} ngx_coord_failure_e;


/* where an answer came from */
typedef enum {
    NGX_COORD_SOURCE_NONE = 0,
    NGX_COORD_SOURCE_REDIS,
    NGX_COORD_SOURCE_MEMORY,
    NGX_COORD_SOURCE_FALLBACK,     /* the zone's memory, in place of Redis */
    NGX_COORD_SOURCE_HOLD,         /* a hold, wherever it stands */
    NGX_COORD_SOURCE_DENY_CACHE,   /* known of Redis: ngx_coord_deny.h */
    NGX_COORD_SOURCE_PREFETCH      /* of a block: ngx_coord_prefetch.h */
} ngx_coord_source_e;


#define NGX_COORD_ADDRESS_LEN  16      /* bytes of an IPv6 address */


/* lease operations */
typedef struct {
    ngx_uint_t                 limit;     /* leases that may be held at once;
                                           * ENTER: how many may wait */
    ngx_coord_nsec_t           lease;     /* length */
    ngx_coord_nsec_t           waited;    /* ENTER: since its arrival */

    /* answered */
    ngx_uint_t                 current;   /* leases held, this one included */
    ngx_coord_nsec_t           first;     /* PEEK: until the first is over */
    int64_t                    token;     /* LOCK_TOKEN */

    /* answered by TURN: who is first in line, unless nobody waits */
    ngx_uint_t                 waiting;
    u_char                     head[NGX_COORD_ID_LEN];

    ngx_uint_t                 tries;     /* the store's: of an acquire */
} ngx_coord_lease_t;


#define NGX_COORD_SESSION_VALUE_LEN  512  /* bytes of a bound value */
#define NGX_COORD_SESSION_LIST       100  /* sessions that a list tells */
#define NGX_COORD_SESSION_ANY  1000000000  /* more than a user has */


/* one of the sessions of a user, as USER_LIST leaves them in the blob */
typedef struct {
    u_char                     id[NGX_COORD_ID_LEN];
    ngx_coord_nsec_t           idle;      /* since its last activity */
} ngx_coord_session_item_t;


/*
 * Session operations; the value stands in the blob, which has room for
 * NGX_COORD_SESSION_VALUE_LEN bytes (LIST: for NGX_COORD_SESSION_LIST items).
 *
 * GET: reads.  BIND: creates what is not there, value and user only where none
 * stand, and reads what stands then.  SET: replaces the value, or the user.
 * TOUCH: slides the life.  REVOKE: ends the session, and has that remembered
 * for ttl, whatever comes; answers found and user.
 * CHECK: found if the session is one of the user's.  ADD: makes it one, and
 * ends the least recently active beyond max, where max is not 0: count and the
 * blob, as of LIST, tell the newest of them.  SEAT: makes it one, if there are
 * less than max; NGX_BUSY: there are not.  UNSEAT: undoes that of seated, if
 * nothing has become of it since.  SEEN: it was active.  DROP:
 * ends it.  LIST: its newest sessions; count: all of them.  REVOKE: ends all.
 * KEEP: copies an answer of GET or BIND into the memory of the zone, as it
 * stands in the operation; left may become longer, where the life was slid
 * from this node just now.  That there is none does not undo an end: found and
 * revoked are answered then; nor what Redis did not take: unsent is.
 */
typedef struct {
    ngx_coord_nsec_t           ttl;       /* asked: life from now on */
    ngx_uint_t                 max;       /* asked: ADD; 0: any number */
    int64_t                    seated;    /* us, told by SEAT: when it was */

    size_t                     value_len; /* asked and answered */
    size_t                     user_len;
    u_char                     user[NGX_COORD_DIGEST_HEX_LEN];

    /* answered; BIND: also asked, of one that is created */
    ngx_coord_nsec_t           age;
    ngx_coord_nsec_t           left;      /* of its life */
    ngx_uint_t                 count;     /* LIST, REVOKE of a user */
    unsigned                   bound:1;   /* has a value; asked as well */
    unsigned                   found:1;
    unsigned                   created:1; /* by this operation */
    unsigned                   revoked:1;
    unsigned                   moved:1;   /* REVOKE, asked: it lives on under
                                           * another id; answered as well */
    unsigned                   damaged:1; /* a part was no good: absent */
    unsigned                   unsent:1;  /* in memory: Redis did not take it */
} ngx_coord_session_t;


/* 1 if a value may be bound: its length, and no control characters but tabs */
ngx_uint_t ngx_coord_session_value_good(ngx_str_t *value);


/* what stands at a key that was to be claimed */
typedef enum {
    NGX_COORD_CLAIM_NONE = 0,
    NGX_COORD_CLAIM_RUNNING,       /* another one holds the claim */
    NGX_COORD_CLAIM_LAPSED,        /* and did not end it: outcome unknown */
    NGX_COORD_CLAIM_DONE           /* there is a result */
} ngx_coord_claim_e;


#define NGX_COORD_FINGERPRINT_LEN  16


/*
 * Claims: one holder a key, named by id, and then one result.  CLAIM: NGX_OK
 * granted, NGX_BUSY refused; the record of a result comes with either answer
 * if it is of the same fingerprint and not large.  RECORD: the record, however
 * large; NGX_BUSY: there is none.  RENEW: lease 0 lets the claim lapse in
 * place; NGX_BUSY: it is lost.
 * COMPLETE stores blob; NGX_BUSY: another result stood there already.
 * RELEASE ends the claim, or with done removes the mark of a result that is
 * no good.  DISCARD removes a result.
 */
typedef struct {
    /* asked */
    u_char                     fingerprint[NGX_COORD_FINGERPRINT_LEN];
    ngx_coord_nsec_t           lease;
    ngx_coord_nsec_t           ttl;       /* of the result */
    unsigned                   keep:1;    /* CLAIM: lapsed claims block */
    unsigned                   done:1;    /* RELEASE: see above */

    /* answered by CLAIM */
    unsigned                   lapsed:1;  /* one that had lapsed is dropped */
    ngx_coord_claim_e          state;     /* of whom refused this one */
    u_char                     twin[NGX_COORD_FINGERPRINT_LEN];
    ngx_coord_nsec_t           remaining; /* of the lease or the result */
    ngx_coord_nsec_t           ran;       /* RUNNING: so far; 0: not known */
} ngx_coord_claim_t;


/*
 * Stored responses.  GET: the record, or NGX_BUSY: none; both with the time of
 * the last purge.  PUT: stores it.  PURGE: from now on nothing that was asked
 * for before is used; it becomes PURGED, which notes the time that the server
 * has told, unless the caller asks for that by itself (apart).
 */
typedef struct {
    ngx_coord_nsec_t           ttl;       /* asked: PUT, PURGE, PURGED */

    /* answered by GET and PURGE, asked by PURGED: on the clock of the store */
    ngx_coord_nsec_t           now;
    ngx_coord_nsec_t           purged;    /* 0: never; PURGE: as was noted */

    unsigned                   apart:1;   /* asked: PURGE */
    unsigned                   found:1;   /* set by PURGE: one was there */
} ngx_coord_cached_t;


/*
 * One operation.  Result rc: NGX_OK granted (or done); NGX_BUSY refused,
 * nothing was consumed; NGX_DECLINED there was nothing to give back;
 * NGX_ERROR no answer, failure says why.
 */

struct ngx_coord_op_s {
    const ngx_coord_op_type_t  *type;
    ngx_coord_zone_t          *zone;

    /* the encoded key: ngx_coord_key_encode() or ngx_coord_key_digest() */
    size_t                     key_len;
    u_char                     key[NGX_COORD_KEY_LEN];

    /* in a zone by address: of which one, to show it; 0 bytes: none */
    u_char                     address_len;
    u_char                     address[NGX_COORD_ADDRESS_LEN];

    /* logs and leases: names the entry; random, from ngx_coord_id() */
    u_char                     id[NGX_COORD_ID_LEN];

    ngx_coord_failure_e        on_failure;

    union {
        ngx_coord_rate_t       rate;
        ngx_coord_lease_t      lease;
        ngx_coord_session_t    session;
        ngx_coord_claim_t      claim;
        ngx_coord_cached_t     cache;
    } u;

    /* strings of the question and the answer: ngx_coord_op_blob() */
    u_char                    *blob;

    /*
     * CLAIM: answered; COMPLETE: asked.  On the heap, freed with the batch;
     * whoever takes it sets data to NULL.
     */
    ngx_str_t                  record;

    ngx_int_t                  rc;
    ngx_coord_fail_e           failure;

    /*
     * Where the answer came from.  For GIVE, RENEW and RELEASE also asked:
     * the source of the take or the lease; MEMORY and FALLBACK are served by
     * the zone's memory whatever the store.
     */
    ngx_coord_source_e         source;

    ngx_uint_t                 tag;       /* the caller's: whose it is */
    void                      *data;      /* the caller's */

    /*
     * Asked with an id that the caller goes on with: what it may have taken is
     * given back by the caller and not by the store.
     */
    unsigned                   again:1;

    /* the store's */
    unsigned                   sent:1;    /* it asks, */
    unsigned                   gone:1;    /* the server may have done it, */
    unsigned                   doubt:1;   /* and may have granted it */
    unsigned                   begun:1;   /* one of its questions was answered,
                                           * others are left */
    unsigned                   part:16;   /* of the batch, that it is in */
    const ngx_coord_op_type_t  *asked;    /* whose script was sent */

    /* of those that travel as one, until they are answered: see same() */
    uint16_t                   nth;
    uint16_t                   behind;
    ngx_coord_op_t            *with;
};


/*
 * Rates: u.rate.  A take takes cost places, or with look set decides and takes
 * none; with force set it is granted and takes them in any case.  A give gives
 * back cost places, at most those of the take that told mark, and of these
 * what has not drained.  A peek answers what a take of one place would, and a
 * forget NGX_BUSY where there was nothing to drop.
 */
extern const ngx_coord_op_type_t  ngx_coord_op_bucket_take;
extern const ngx_coord_op_type_t  ngx_coord_op_bucket_give;
extern const ngx_coord_op_type_t  ngx_coord_op_bucket_peek;
extern const ngx_coord_op_type_t  ngx_coord_op_bucket_forget;
extern const ngx_coord_op_type_t  ngx_coord_op_window_take;
extern const ngx_coord_op_type_t  ngx_coord_op_window_give;
extern const ngx_coord_op_type_t  ngx_coord_op_window_peek;
extern const ngx_coord_op_type_t  ngx_coord_op_window_forget;
extern const ngx_coord_op_type_t  ngx_coord_op_sliding_take;
extern const ngx_coord_op_type_t  ngx_coord_op_sliding_give;
extern const ngx_coord_op_type_t  ngx_coord_op_sliding_peek;
extern const ngx_coord_op_type_t  ngx_coord_op_sliding_forget;
extern const ngx_coord_op_type_t  ngx_coord_op_log_take;
extern const ngx_coord_op_type_t  ngx_coord_op_log_many;
extern const ngx_coord_op_type_t  ngx_coord_op_log_give;
extern const ngx_coord_op_type_t  ngx_coord_op_log_peek;
extern const ngx_coord_op_type_t  ngx_coord_op_log_forget;

/* a log has an entry for each place, at most so many in one take */
#define NGX_COORD_LOG_COST  1000

/* the take of a log for what rate asks for: it is of several types */
const ngx_coord_op_type_t *ngx_coord_op_log(ngx_coord_rate_t *rate);

/*
 * Holds of the keys of rates: u.rate.  PUT refuses the key until mark, a time
 * of ngx_coord_monotonic(), or leaves a longer hold as it is; PEEK answers
 * NGX_BUSY and retry, how long that is, or NGX_OK.
 */
extern const ngx_coord_op_type_t  ngx_coord_op_hold_put;
extern const ngx_coord_op_type_t  ngx_coord_op_hold_peek;
extern const ngx_coord_op_type_t  ngx_coord_op_hold_forget;

/*
 * Leases: u.lease.  TURN is an acquire, if nobody else is ahead; ENTER stands
 * in line for a lease; TOKEN is the next fencing number.  WAKE is the release
 * of a zone that is waited for.
 */
extern const ngx_coord_op_type_t  ngx_coord_op_lease_acquire;
extern const ngx_coord_op_type_t  ngx_coord_op_lease_renew;
extern const ngx_coord_op_type_t  ngx_coord_op_lease_release;
extern const ngx_coord_op_type_t  ngx_coord_op_lease_wake;
extern const ngx_coord_op_type_t  ngx_coord_op_lease_peek;
extern const ngx_coord_op_type_t  ngx_coord_op_lease_forget;
extern const ngx_coord_op_type_t  ngx_coord_op_lease_turn;
extern const ngx_coord_op_type_t  ngx_coord_op_wait_enter;
extern const ngx_coord_op_type_t  ngx_coord_op_wait_leave;
extern const ngx_coord_op_type_t  ngx_coord_op_wait_clear;
extern const ngx_coord_op_type_t  ngx_coord_op_lock_token;

/* sessions: u.session */
extern const ngx_coord_op_type_t  ngx_coord_op_session_get;
extern const ngx_coord_op_type_t  ngx_coord_op_session_peek;
extern const ngx_coord_op_type_t  ngx_coord_op_session_bind;
extern const ngx_coord_op_type_t  ngx_coord_op_session_set;
extern const ngx_coord_op_type_t  ngx_coord_op_session_touch;
extern const ngx_coord_op_type_t  ngx_coord_op_session_revoke;
extern const ngx_coord_op_type_t  ngx_coord_op_session_keep;
extern const ngx_coord_op_type_t  ngx_coord_op_user_check;
extern const ngx_coord_op_type_t  ngx_coord_op_user_add;
extern const ngx_coord_op_type_t  ngx_coord_op_user_seat;
extern const ngx_coord_op_type_t  ngx_coord_op_user_unseat;
extern const ngx_coord_op_type_t  ngx_coord_op_user_seen;
extern const ngx_coord_op_type_t  ngx_coord_op_user_drop;
extern const ngx_coord_op_type_t  ngx_coord_op_user_list;
extern const ngx_coord_op_type_t  ngx_coord_op_user_revoke;

/* claims and results: u.claim */
extern const ngx_coord_op_type_t  ngx_coord_op_claim;
extern const ngx_coord_op_type_t  ngx_coord_op_claim_record;
extern const ngx_coord_op_type_t  ngx_coord_op_claim_renew;
extern const ngx_coord_op_type_t  ngx_coord_op_claim_complete;
extern const ngx_coord_op_type_t  ngx_coord_op_claim_release;
extern const ngx_coord_op_type_t  ngx_coord_op_claim_discard;
extern const ngx_coord_op_type_t  ngx_coord_op_claim_forget;

/* stored responses: u.cache */
extern const ngx_coord_op_type_t  ngx_coord_op_cache_get;
extern const ngx_coord_op_type_t  ngx_coord_op_cache_put;
extern const ngx_coord_op_type_t  ngx_coord_op_cache_mark;
extern const ngx_coord_op_type_t  ngx_coord_op_cache_purge;
extern const ngx_coord_op_type_t  ngx_coord_op_cache_purged;


#endif /* _NGX_COORD_OP_H_INCLUDED_ */
