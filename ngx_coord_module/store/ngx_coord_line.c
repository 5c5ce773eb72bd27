
/*
 * Copyright (C) ngx_coord_module contributors
 */


#include "ngx_coord_line.h"


/*
 * Who is alive asks at least once a second; who is first and has not taken a
 * free place for so long is dead.
 */
#define NGX_COORD_LINE_DEAD   1500            /* milliseconds */

/* lines that a worker remembers */
#define NGX_COORD_LINES       64


typedef struct {
    ngx_coord_zone_t          *zone;          /* NULL: free */
    ngx_coord_nsec_t           since;         /* there is room, and the same */
    ngx_coord_nsec_t           seen;          /* head; last looked at */
    size_t                     key_len;
    u_char                     key[NGX_COORD_KEY_LEN];
    u_char                     head[NGX_COORD_ID_LEN];
} ngx_coord_line_t;


static ngx_coord_line_t *ngx_coord_line_find(ngx_coord_op_t *op);
static ngx_coord_line_t *ngx_coord_line_new(ngx_coord_op_t *op);


/* of this worker */
static ngx_coord_line_t  ngx_coord_lines[NGX_COORD_LINES];


ngx_uint_t
ngx_coord_line_stuck(ngx_coord_op_t *op, ngx_coord_waiter_t *waiter)
{
    ngx_coord_nsec_t    now, left;
    ngx_coord_line_t   *line;
    ngx_coord_lease_t  *lease;

    lease = &op->u.lease;
    line = ngx_coord_line_find(op);

    if (lease->waiting == 0
        || lease->current >= lease->limit
        || ngx_memcmp(lease->head, op->id, NGX_COORD_ID_LEN) == 0)
    {
        if (line) {
            line->zone = NULL;
        }

        return 0;
    }

    if (line == NULL) {
        line = ngx_coord_line_new(op);
    }

    now = ngx_coord_monotonic();

    if (ngx_memcmp(line->head, lease->head, NGX_COORD_ID_LEN) != 0) {
        line->since = now;
        ngx_memcpy(line->head, lease->head, NGX_COORD_ID_LEN);
    }

    line->seen = now;

    left = line->since - now + NGX_COORD_LINE_DEAD * NGX_COORD_NSEC_PER_MSEC;

    if (left > 0) {
        ngx_coord_wait_hurry(waiter, ngx_coord_ceil_msec(left));
        return 0;
    }

    line->zone = NULL;

    ngx_log_error(NGX_LOG_NOTICE, ngx_cycle->log, 0,
                  "coord zone \"%V\": removing a line of %ui, the first of "
                  "which is gone", &op->zone->name, lease->waiting);

    return 1;
}


static ngx_coord_line_t *
ngx_coord_line_find(ngx_coord_op_t *op)
{
    ngx_uint_t         i;
    ngx_coord_line_t  *line;

    for (i = 0; i < NGX_COORD_LINES; i++) {
        line = &ngx_coord_lines[i];

        if (line->zone == op->zone
            && line->key_len == op->key_len
            && ngx_memcmp(line->key, op->key, op->key_len) == 0)
        {
            return line;
        }
    }

    return NULL;
}


/* takes a free one, or that which was looked at least recently */

static ngx_coord_line_t *
ngx_coord_line_new(ngx_coord_op_t *op)
{
    ngx_uint_t         i;
    ngx_coord_line_t  *line, *oldest;

    oldest = &ngx_coord_lines[0];

    for (i = 0; i < NGX_COORD_LINES; i++) {
        line = &ngx_coord_lines[i];

        if (line->zone == NULL) {
            oldest = line;
            break;
        }

        if (line->seen < oldest->seen) {
            oldest = line;
        }
    }

    ngx_memzero(oldest, sizeof(ngx_coord_line_t));

    oldest->zone = op->zone;
    oldest->key_len = op->key_len;
    oldest->since = ngx_coord_monotonic();

    ngx_memcpy(oldest->key, op->key, op->key_len);
    ngx_memcpy(oldest->head, op->u.lease.head, NGX_COORD_ID_LEN);

    return oldest;
}
