
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * What a connection tells the error log, and how often.
 */


#include "ngx_coord_redis_conn.h"


#define NGX_COORD_CONN_LOG_SELDOM    60000    /* milliseconds */


u_char *
ngx_coord_redis_conn_log_error(ngx_log_t *log, u_char *buf, size_t len)
{
    u_char                  *p;
    ngx_coord_redis_conn_t  *conn;

    p = buf;
    conn = log->data;

    if (log->action) {
        p = ngx_snprintf(buf, len, " while %s", log->action);
        len -= p - buf;
        buf = p;
    }

    p = ngx_snprintf(buf, len, ", coord store: \"%V\"", &conn->conf->store);
    len -= p - buf;
    buf = p;

    if (conn->peer.name != NULL) {
        p = ngx_snprintf(buf, len, ", server: %V", conn->peer.name);
    }

    return p;
}


void
ngx_coord_redis_conn_log(ngx_coord_redis_conn_t *conn,
    ngx_coord_fail_e failure, ngx_err_t err, const char *text,
    ngx_str_t *detail)
{
    u_char                    *p, more[NGX_INT_T_LEN + sizeof(",  more")];
    ngx_msec_t                 interval;
    ngx_uint_t                 n, level;
    ngx_coord_redis_limits_t  *limits;

    limits = conn->limits;

    level = NGX_LOG_ERR;
    interval = NGX_COORD_LOG_INTERVAL;

    if (failure == NGX_COORD_FAIL_AUTH) {
        level = NGX_LOG_EMERG;
        interval = NGX_COORD_CONN_LOG_SELDOM;

    } else if (conn->failed && limits->text[failure] == text) {

        /* the same as of the attempt before: its end is told, too */

        interval = NGX_COORD_CONN_LOG_SELDOM;
    }

    n = ngx_coord_log_due(&limits->lines[failure], interval);

    if (n == 0) {
        return;
    }

    limits->text[failure] = text;
    limits->written++;

    p = more;

    if (n > 1) {
        p = ngx_sprintf(more, ", %ui more", n - 1);
    }

    if (detail != NULL) {
        ngx_log_error(level, &conn->log, err, "coord redis: %s: %V%*s", text,
                      detail, (size_t) (p - more), more);
        return;
    }

    ngx_log_error(level, &conn->log, err, "coord redis: %s%*s", text,
                  (size_t) (p - more), more);
}


ngx_uint_t
ngx_coord_redis_conn_log_ends(ngx_coord_redis_conn_t *conn, ngx_uint_t *ended)
{
    if (*ended == conn->limits->written) {
        return 0;
    }

    *ended = conn->limits->written;

    return 1;
}
