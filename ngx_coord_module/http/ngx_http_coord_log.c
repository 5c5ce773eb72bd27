
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The log line of a decision: first what the stock directive would have
 * written, with all that nginx appends to it, then what only we know.  Who
 * reads the one (fail2ban does) reads the other.
 */


#include "ngx_http_coord.h"


#define NGX_HTTP_COORD_LOG_TAIL  256


typedef struct {
    ngx_log_handler_pt         handler;       /* nginx's */
    void                      *data;
    size_t                     len;           /* of the tail */
    u_char                     tail[NGX_HTTP_COORD_LOG_TAIL];
} ngx_http_coord_log_line_t;


static u_char *ngx_http_coord_log_handler(ngx_log_t *log, u_char *buf,
    size_t len);
static size_t ngx_http_coord_log_tail(u_char *buf,
    ngx_http_coord_log_fields_t *fields);


const ngx_str_t  ngx_coord_source_names[] = {
    ngx_null_string,
    ngx_string("redis"),
    ngx_string("memory"),
    ngx_string("fallback"),
    ngx_string("hold"),
    ngx_string("deny_cache"),
    ngx_string("prefetch")
};


void
ngx_http_coord_log_core(ngx_http_request_t *r, ngx_uint_t level,
    ngx_http_coord_log_fields_t *fields, const char *fmt, ...)
{
    u_char                     *p, text[NGX_MAX_ERROR_STR];
    va_list                     args;
    ngx_log_t                  *log;
    ngx_coord_log_limit_t      *limit;
    ngx_http_coord_log_line_t   line;

    log = r->connection->log;
    limit = fields->limit;

    if (limit == NULL && fields->op && fields->op->zone
        && (fields->outcome == NGX_COORD_OUTCOME_BYPASSED
            || fields->outcome == NGX_COORD_OUTCOME_UNAVAILABLE))
    {
        limit = &fields->op->zone->unanswered;
    }

    fields->requests = 0;

    if (limit) {
        fields->requests = ngx_coord_log_due(limit, NGX_COORD_LOG_INTERVAL);

        if (fields->requests == 0) {
            return;
        }
    }

    va_start(args, fmt);
    p = ngx_vslprintf(text, text + sizeof(text), fmt, args);
    va_end(args);

    line.len = ngx_http_coord_log_tail(line.tail, fields);

    line.handler = log->handler;
    line.data = log->data;

    log->handler = ngx_http_coord_log_handler;
    log->data = &line;

    ngx_log_error(level, log, 0, "%*s", (size_t) (p - text), text);

    log->handler = line.handler;
    log->data = line.data;
}


/* a long request line cuts what nginx tells, not what follows it */

static u_char *
ngx_http_coord_log_handler(ngx_log_t *log, u_char *buf, size_t len)
{
    u_char                     *last;
    ngx_http_coord_log_line_t  *line;

    line = log->data;
    last = buf + (len > NGX_LINEFEED_SIZE ? len - NGX_LINEFEED_SIZE : 0);

    len = last - buf;
    len = (len > line->len) ? len - line->len : 0;

    if (line->handler) {
        log->data = line->data;
        buf = line->handler(log, buf, len);
        log->data = line;
    }

    return ngx_cpymem(buf, line->tail,
                      ngx_min(line->len, (size_t) (last - buf)));
}


static size_t
ngx_http_coord_log_tail(u_char *buf, ngx_http_coord_log_fields_t *fields)
{
    u_char           tag[2 * sizeof(uint64_t)], *p, *last;
    size_t           len;
    ngx_str_t        key;
    ngx_coord_op_t  *op;

    p = buf;
    last = buf + NGX_HTTP_COORD_LOG_TAIL;
    op = fields->op;

    if (op && op->key_len) {
        key.data = op->key;
        key.len = op->key_len;

        len = ngx_coord_key_tag(tag, &key);

        p = ngx_slprintf(p, last, ", key: %*s", len, tag);
    }

    if (fields->wait) {
        p = ngx_slprintf(p, last, ", wait: %Mms", fields->wait);
    }

    p = ngx_slprintf(p, last, ", outcome: %V",
                     &ngx_coord_outcomes[fields->outcome].status);

    if (op && op->zone) {
        p = ngx_slprintf(p, last, ", store: %V", &op->zone->store->name);
    }

    if (op && op->source) {
        p = ngx_slprintf(p, last, " (%V)", &ngx_coord_source_names[op->source]);
    }

    if (op && op->failure) {
        p = ngx_slprintf(p, last, ", reason: %V",
                         &ngx_coord_fail_names[op->failure]);

    } else if (fields->why) {
        p = ngx_slprintf(p, last, ", %s", fields->why);
    }

    if (fields->requests) {
        p = ngx_slprintf(p, last, ", %ui requests", fields->requests);
    }

    return p - buf;
}
