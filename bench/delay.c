
/*
 * Copyright (C) ngx_coord_module contributors
 */


/*
 * delay <port> <to port> <round trip in us>
 *
 * A relay on 127.0.0.1 for "make bench": what comes is sent on half a round
 * trip later, in either direction, the end of a stream as well.  The delay is
 * the same for all, so all that is under way stands in one queue, and its head
 * is what is due next.  The relay ends with the process that started it.
 */


#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>


#define DELAY_EVENTS   128
#define DELAY_BUFFER   65536
#define DELAY_BACKLOG  511

#define DELAY_SECOND   1000000000


typedef struct delay_end_s    delay_end_t;
typedef struct delay_pair_s   delay_pair_t;
typedef struct delay_chunk_s  delay_chunk_t;


/* size 0: the end of the stream */

struct delay_chunk_s {
    delay_chunk_t   *next;
    delay_end_t     *to;
    uint64_t         due;
    size_t           sent;
    size_t           size;
    char             data[];
};


typedef struct {
    delay_chunk_t   *first;
    delay_chunk_t   *last;
} delay_queue_t;


struct delay_end_s {
    delay_end_t     *peer;
    delay_pair_t    *pair;
    delay_queue_t    out;         /* what is due and waits for the socket */
    int              fd;
    unsigned         ended:1;     /* nothing more comes from here */
    unsigned         broken:1;    /* what goes here is dropped */
    unsigned         shut:1;      /* nothing more goes here */
};


struct delay_pair_s {
    delay_end_t      ends[2];     /* the client, Redis */
    delay_pair_t    *next;
};


static int delay_listen(const char *port);
static void delay_accept(int listener, in_port_t port);
static int delay_connect(in_port_t port);
static void delay_watch(delay_end_t *end);
static int delay_wait(struct epoll_event *events);
static void delay_event(delay_end_t *end, uint32_t events);
static void delay_read(delay_end_t *from, unsigned whole);
static void delay_take(delay_end_t *from, const char *data, size_t size);
static void delay_deliver(void);
static void delay_write(delay_end_t *to);
static int delay_send(delay_end_t *to, delay_chunk_t *chunk);
static void delay_free(void);
static void delay_push(delay_queue_t *queue, delay_chunk_t *chunk);
static delay_chunk_t *delay_pop(delay_queue_t *queue);
static uint64_t delay_now(void);
static void *delay_alloc(size_t size);
static void delay_die(const char *what);


static int             delay_epoll;
static uint64_t        delay_half;     /* ns */
static delay_queue_t   delay_line;

/* closed, but events of this turn may still name them */
static delay_pair_t   *delay_closed;


int
main(int argc, char *argv[])
{
    int                  n, i, listener;
    in_port_t            port;
    struct epoll_event   event, events[DELAY_EVENTS];

    if (argc != 4) {
        fprintf(stderr, "usage: delay port to_port round_trip_us\n");
        return 2;
    }

    prctl(PR_SET_PDEATHSIG, SIGKILL);

    /* else each wait may last 50 us longer */
    prctl(PR_SET_TIMERSLACK, 1);

    port = htons((in_port_t) atoi(argv[2]));
    delay_half = strtoull(argv[3], NULL, 10) * 1000 / 2;

    listener = delay_listen(argv[1]);

    event.events = EPOLLIN;
    event.data.ptr = NULL;

    delay_epoll = epoll_create1(EPOLL_CLOEXEC);

    if (delay_epoll == -1
        || epoll_ctl(delay_epoll, EPOLL_CTL_ADD, listener, &event) == -1)
    {
        delay_die("epoll");
    }

    for ( ;; ) {
        n = delay_wait(events);

        for (i = 0; i < n; i++) {

            if (events[i].data.ptr == NULL) {
                delay_accept(listener, port);

            } else {
                delay_event(events[i].data.ptr, events[i].events);
            }
        }

        delay_deliver();
        delay_free();
    }
}


static int
delay_listen(const char *port)
{
    int                  s, on;
    struct sockaddr_in   sin;

    memset(&sin, 0, sizeof(struct sockaddr_in));

    sin.sin_family = AF_INET;
    sin.sin_port = htons((in_port_t) atoi(port));
    sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);

    on = 1;
    s = socket(AF_INET, SOCK_STREAM|SOCK_NONBLOCK|SOCK_CLOEXEC, 0);

    if (s == -1
        || setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(int)) == -1
        || bind(s, (struct sockaddr *) &sin, sizeof(struct sockaddr_in)) == -1
        || listen(s, DELAY_BACKLOG) == -1)
    {
        delay_die("listen");
    }

    return s;
}


static void
delay_accept(int listener, in_port_t port)
{
    int            fd, to;
    delay_pair_t  *pair;

    fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK|SOCK_CLOEXEC);
    if (fd == -1) {
        return;
    }

    to = delay_connect(port);
    if (to == -1) {
        close(fd);
        return;
    }

    pair = delay_alloc(sizeof(delay_pair_t));

    pair->ends[0].fd = fd;
    pair->ends[1].fd = to;
    pair->ends[0].peer = &pair->ends[1];
    pair->ends[1].peer = &pair->ends[0];
    pair->ends[0].pair = pair;
    pair->ends[1].pair = pair;

    delay_watch(&pair->ends[0]);
    delay_watch(&pair->ends[1]);
}


/* connect() to loopback does not wait; an error is seen by the first read */

static int
delay_connect(in_port_t port)
{
    int                  s, rc;
    struct sockaddr_in   sin;

    memset(&sin, 0, sizeof(struct sockaddr_in));

    sin.sin_family = AF_INET;
    sin.sin_port = port;
    sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);

    s = socket(AF_INET, SOCK_STREAM|SOCK_NONBLOCK|SOCK_CLOEXEC, 0);
    if (s == -1) {
        return -1;
    }

    rc = connect(s, (struct sockaddr *) &sin, sizeof(struct sockaddr_in));

    if (rc == -1 && errno != EINPROGRESS) {
        close(s);
        return -1;
    }

    return s;
}


static void
delay_watch(delay_end_t *end)
{
    int                  on;
    struct epoll_event   event;

    on = 1;
    setsockopt(end->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(int));

    event.events = EPOLLIN|EPOLLOUT|EPOLLRDHUP|EPOLLET;
    event.data.ptr = end;

    if (epoll_ctl(delay_epoll, EPOLL_CTL_ADD, end->fd, &event) == -1) {
        delay_die("epoll_ctl()");
    }
}


/* until something comes, or is due */

static int
delay_wait(struct epoll_event *events)
{
    int              n;
    uint64_t         now, left;
    struct timespec  ts, *timeout;

    timeout = NULL;

    if (delay_line.first != NULL) {
        now = delay_now();
        left = delay_line.first->due;
        left = left > now ? left - now : 0;

        ts.tv_sec = (time_t) (left / DELAY_SECOND);
        ts.tv_nsec = (long) (left % DELAY_SECOND);
        timeout = &ts;
    }

    n = epoll_pwait2(delay_epoll, events, DELAY_EVENTS, timeout, NULL);

    if (n == -1 && errno != EINTR) {
        delay_die("epoll_pwait2()");
    }

    return n;
}


static void
delay_event(delay_end_t *end, uint32_t events)
{
    if (events & EPOLLOUT) {
        delay_write(end);
    }

    if (events & (EPOLLIN|EPOLLRDHUP|EPOLLHUP|EPOLLERR)) {
        delay_read(end, events & (EPOLLRDHUP|EPOLLHUP|EPOLLERR));
    }
}


/* whole: the end of the stream is there, and no other event will tell */

static void
delay_read(delay_end_t *from, unsigned whole)
{
    ssize_t      n;
    static char  buffer[DELAY_BUFFER];

    while (!from->ended) {
        n = recv(from->fd, buffer, DELAY_BUFFER, 0);

        if (n > 0) {
            delay_take(from, buffer, (size_t) n);

            if (n < DELAY_BUFFER && !whole) {
                return;
            }

            continue;
        }

        if (n == -1 && errno == EAGAIN) {
            return;
        }

        if (n == -1 && errno == EINTR) {
            continue;
        }

        from->ended = 1;
        delay_take(from, NULL, 0);
    }
}


static void
delay_take(delay_end_t *from, const char *data, size_t size)
{
    delay_chunk_t  *chunk;

    chunk = delay_alloc(sizeof(delay_chunk_t) + size);

    chunk->to = from->peer;
    chunk->due = delay_now() + delay_half;
    chunk->size = size;

    if (size != 0) {
        memcpy(chunk->data, data, size);
    }

    delay_push(&delay_line, chunk);
}


static void
delay_deliver(void)
{
    uint64_t        now;
    unsigned        waits;
    delay_end_t    *to;
    delay_chunk_t  *chunk;

    if (delay_line.first == NULL) {
        return;
    }

    now = delay_now();

    while (delay_line.first != NULL && delay_line.first->due <= now) {
        chunk = delay_pop(&delay_line);
        to = chunk->to;

        waits = to->out.first != NULL;
        delay_push(&to->out, chunk);

        if (!waits) {
            delay_write(to);
        }
    }
}


static void
delay_write(delay_end_t *to)
{
    delay_chunk_t  *chunk;

    while (to->out.first != NULL) {
        chunk = to->out.first;

        if (chunk->size == 0) {
            shutdown(to->fd, SHUT_WR);
            to->shut = 1;

        } else if (!to->broken && delay_send(to, chunk) == EAGAIN) {
            return;
        }

        free(delay_pop(&to->out));
    }

    /* the end is the last that goes anywhere: nothing names the pair then */

    if (to->shut && to->peer->shut && to->fd != -1) {
        close(to->fd);
        close(to->peer->fd);
        to->fd = -1;
        to->peer->fd = -1;

        to->pair->next = delay_closed;
        delay_closed = to->pair;
    }
}


static int
delay_send(delay_end_t *to, delay_chunk_t *chunk)
{
    ssize_t  n;

    while (chunk->sent < chunk->size) {
        n = send(to->fd, chunk->data + chunk->sent, chunk->size - chunk->sent,
                 MSG_NOSIGNAL);

        if (n >= 0) {
            chunk->sent += (size_t) n;
            continue;
        }

        if (errno == EAGAIN) {
            return EAGAIN;
        }

        if (errno != EINTR) {
            to->broken = 1;
            break;
        }
    }

    return 0;
}


static void
delay_free(void)
{
    delay_pair_t  *pair;

    while (delay_closed != NULL) {
        pair = delay_closed;
        delay_closed = pair->next;
        free(pair);
    }
}


static void
delay_push(delay_queue_t *queue, delay_chunk_t *chunk)
{
    chunk->next = NULL;

    if (queue->first == NULL) {
        queue->first = chunk;

    } else {
        queue->last->next = chunk;
    }

    queue->last = chunk;
}


static delay_chunk_t *
delay_pop(delay_queue_t *queue)
{
    delay_chunk_t  *chunk;

    chunk = queue->first;
    queue->first = chunk->next;

    return chunk;
}


static uint64_t
delay_now(void)
{
    struct timespec  ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);

    return (uint64_t) ts.tv_sec * DELAY_SECOND + (uint64_t) ts.tv_nsec;
}


static void *
delay_alloc(size_t size)
{
    void  *p;

    p = calloc(1, size);

    if (p == NULL) {
        delay_die("calloc()");
    }

    return p;
}


static void
delay_die(const char *what)
{
    fprintf(stderr, "delay: %s: %s\n", what, strerror(errno));
    exit(1);
}
