
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Private to the bus: what a store has of it, and its parts.
 *
 *   ngx_coord_bus.c          configuration, and which part answers
 *   ngx_coord_bus_shm.c      shared memory: who listens, names
 *   ngx_coord_bus_memory.c   messages of a memory store
 *   ngx_coord_bus_bell.c     which tells the workers of them
 *   ngx_coord_bus_publish.c  messages on their way to Redis
 *   ngx_coord_bus_read.c     a look back
 *   ngx_coord_bus_redis.c    listening to channels and streams of Redis
 */


#ifndef _NGX_COORD_BUS_STORE_H_INCLUDED_
#define _NGX_COORD_BUS_STORE_H_INCLUDED_


#include "ngx_coord_bus.h"
#include "ngx_coord_script.h"
#include "ngx_coord_store_redis.h"


#define NGX_COORD_BUS_ROWS     2048
#define NGX_COORD_BUS_RING     (4 * 1024 * 1024)      /* a power of 2 */

/* a page from memory holds about as many bytes at most */
#define NGX_COORD_BUS_COPY     (512 * 1024)


/* how many listen to a channel in one worker */
typedef struct {
    ngx_atomic_t               pid;           /* 0: free */
    ngx_atomic_t               count;
    uint64_t                   name;          /* of the channel */
} ngx_coord_bus_row_t;


/*
 * In shared memory, without pointers.  Messages of a memory store stand in a
 * ring behind it: they are written first and count when head has moved, so that
 * a process that is killed leaves whole messages only.
 */
typedef struct {
    ngx_coord_bus_row_t        rows[NGX_COORD_BUS_ROWS];

    ngx_atomic_t               head;          /* bytes ever written */
    ngx_atomic_t               tail;          /* ever dropped */
    ngx_coord_event_id_t       last;          /* of a message that is kept */
} ngx_coord_bus_shm_t;


typedef struct ngx_coord_bus_message_s  ngx_coord_bus_message_t;


typedef struct {
    ngx_coord_store_t         *store;
    ngx_shm_zone_t            *shm_zone;
    ngx_coord_bus_shm_t       *shm;
    ngx_pool_t                *pool;          /* of the cycle */
    int                        bell;          /* eventfd; -1: there is none */

    /* of this worker */

    ngx_rbtree_t               tree;          /* of listeners: memory */
    ngx_rbtree_node_t          sentinel;
    ngx_uint_t                 nlisteners;
    ngx_atomic_uint_t          position;      /* in the ring */
    ngx_coord_timer_t          poll;
    ngx_connection_t          *watch;         /* of the bell */

    ngx_queue_t                messages;      /* with the client, or kept */
    ngx_queue_t                kept;          /* to be sent again, in order */
    ngx_coord_bus_message_t   *alone;         /* tried again; others wait */
    ngx_uint_t                 published;     /* messages, ever */
    ngx_uint_t                 nmessages;
    size_t                     size;          /* of all of them */
    ngx_coord_timer_t          again;
    ngx_coord_log_limit_t      lost;

    unsigned                   started:1;     /* in this worker */
} ngx_coord_bus_t;


/* --- ngx_coord_bus_shm.c --- */

/* the initializer of the memory, as ngx_shm_zone_init_pt */
ngx_int_t ngx_coord_bus_shm_init(ngx_shm_zone_t *shm_zone, void *data);

/* a channel as a number that tells it from others */
uint64_t ngx_coord_bus_name(ngx_str_t *channel);

/* as ngx_coord_bus_count() and ngx_coord_bus_listeners() */
void ngx_coord_bus_row(ngx_coord_bus_t *bus,
    ngx_coord_bus_listener_t *listener, ngx_uint_t n);
ngx_uint_t ngx_coord_bus_rows(ngx_coord_bus_t *bus, ngx_str_t *channel);

/* the client of a Redis store in this worker; NULL: not yet, no more */
#define ngx_coord_bus_client(store)  ngx_coord_store_redis(store)->client

/* bytes that ngx_coord_bus_stream() may write */
#define ngx_coord_bus_stream_size(store)                                      \
    ((store)->key_prefix.len + sizeof("ev:{}") - 1 + NGX_COORD_KEY_LEN)

/* writes the key of the stream of a channel; 0: OpenSSL failed */
size_t ngx_coord_bus_stream(ngx_coord_store_t *store, ngx_str_t *channel,
    u_char *p);

/* the slot of such a key */
ngx_uint_t ngx_coord_bus_slot(ngx_coord_store_t *store, u_char *key,
    size_t len);


/* --- ngx_coord_bus_memory.c --- */

/* as the functions of the bus, in the memory of one node */
void ngx_coord_bus_memory_start(ngx_coord_bus_t *bus);
void ngx_coord_bus_memory_publish(ngx_coord_bus_t *bus, ngx_str_t *channel,
    ngx_str_t *text, ngx_uint_t history, ngx_msec_t ttl);
void ngx_coord_bus_memory_listen(ngx_coord_bus_t *bus,
    ngx_coord_bus_listener_t *listener);
void ngx_coord_bus_memory_follow(ngx_coord_bus_t *bus,
    ngx_coord_bus_listener_t *listener);
void ngx_coord_bus_memory_leave(ngx_coord_bus_t *bus,
    ngx_coord_bus_listener_t *listener);

/* calls read->event() for a page and returns what done() is to be told */
ngx_int_t ngx_coord_bus_memory_read(ngx_coord_bus_t *bus,
    ngx_coord_bus_read_t *read);


/* --- ngx_coord_bus_bell.c --- */

/*
 * Before the workers are made: the bell is that of the bus before a reload, or
 * a new one, closed with bus->pool.  NGX_ERROR: no memory, or descriptor.
 */
ngx_int_t ngx_coord_bus_bell_init(ngx_coord_bus_t *bus,
    ngx_coord_bus_t *obus);

/*
 * In a worker: has bus->poll posted when somebody rings.  NGX_DECLINED: it is
 * not to be had, with other methods than epoll.
 */
ngx_int_t ngx_coord_bus_bell_watch(ngx_coord_bus_t *bus);

/* ends that; does nothing without */
void ngx_coord_bus_bell_leave(ngx_coord_bus_t *bus);

/* tells all workers that watch */
void ngx_coord_bus_bell_ring(ngx_coord_bus_t *bus);


/* --- ngx_coord_bus_publish.c --- */

void ngx_coord_bus_publish_start(ngx_coord_bus_t *bus);

/* as ngx_coord_bus_publish(), and at the end of the worker */
void ngx_coord_bus_publish_message(ngx_coord_bus_t *bus, ngx_str_t *channel,
    ngx_str_t *text, ngx_uint_t history, ngx_msec_t ttl);
void ngx_coord_bus_publish_exit(ngx_coord_bus_t *bus);

/* counts n messages that nobody will hear; why: a constant text */
void ngx_coord_bus_lost(ngx_coord_bus_t *bus, ngx_uint_t n, const char *why);

/* a message by its text, in hex; returns the end */
u_char *ngx_coord_bus_mark(u_char *p, ngx_str_t *text);

#define NGX_COORD_BUS_MARK_LEN  8


/* --- ngx_coord_bus_read.c --- */

/* the key of the stream that is read; lives as long as the read */
void ngx_coord_bus_read_key(ngx_coord_bus_read_t *read, ngx_str_t *key);


/* --- ngx_coord_bus_redis.c --- */

/* as the functions of the bus */
ngx_int_t ngx_coord_bus_redis_listen(ngx_coord_bus_t *bus,
    ngx_coord_bus_listener_t *listener);
ngx_int_t ngx_coord_bus_redis_follow(ngx_coord_bus_t *bus,
    ngx_coord_bus_listener_t *listener);
void ngx_coord_bus_redis_leave(ngx_coord_bus_t *bus,
    ngx_coord_bus_listener_t *listener);


#endif /* _NGX_COORD_BUS_STORE_H_INCLUDED_ */
