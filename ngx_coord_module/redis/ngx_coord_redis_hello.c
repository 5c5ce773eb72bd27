
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The handshake: what is said when a connection is made, and the replies.
 */


#include "ngx_coord_redis_conn.h"


#define NGX_COORD_CONN_INFO          "*2" CRLF "$4" CRLF "INFO" CRLF          \
                                     "$6" CRLF "server" CRLF
#define NGX_COORD_CONN_ROLE          "*1" CRLF "$4" CRLF "ROLE" CRLF
#define NGX_COORD_CONN_TIME          "*1" CRLF "$4" CRLF "TIME" CRLF
#define NGX_COORD_CONN_MASTER        "*3" CRLF "$8" CRLF "SENTINEL" CRLF      \
                                     "$23" CRLF "get-master-addr-by-name" CRLF
#define NGX_COORD_CONN_VERSION       "redis_version:"
#define NGX_COORD_CONN_PROCESS       "\nrun_id:"


static ngx_uint_t ngx_coord_redis_conn_is_master(
    ngx_coord_redis_conn_t *conn, ngx_coord_resp_value_t *value);
static void ngx_coord_redis_conn_version(ngx_coord_redis_conn_t *conn,
    ngx_coord_resp_value_t *value);
static void ngx_coord_redis_conn_process(ngx_coord_redis_conn_t *conn,
    ngx_coord_resp_value_t *value);
static ngx_coord_fail_e ngx_coord_redis_conn_rejected(
    ngx_coord_redis_conn_t *conn, ngx_coord_resp_value_t *value);


size_t
ngx_coord_redis_conn_hello_size(ngx_coord_redis_conn_t *conn)
{
    ngx_coord_auth_t        *auth;
    ngx_coord_redis_conf_t  *conf;

    conf = conn->conf;
    auth = conn->endpoint->auth;

    return sizeof("*3" CRLF "$4" CRLF "AUTH" CRLF) - 1
           + ngx_coord_redis_bulk_size(auth->username.len)
           + ngx_coord_redis_bulk_size(auth->password.len)
           + sizeof("*2" CRLF "$6" CRLF "SELECT" CRLF) - 1
           + ngx_coord_redis_bulk_size(NGX_INT_T_LEN)
           + sizeof("*3" CRLF "$6" CRLF "CLIENT" CRLF
                    "$7" CRLF "SETNAME" CRLF) - 1
           + ngx_coord_redis_bulk_size(sizeof("ngx_coord::") - 1
                                       + conf->store.len + NGX_INT64_LEN)
           + sizeof(NGX_COORD_CONN_INFO NGX_COORD_CONN_ROLE) - 1
           + ngx_coord_redis_question_size(conn);
}


u_char *
ngx_coord_redis_conn_hello(ngx_coord_redis_conn_t *conn, u_char *p)
{
    u_char                  *last, number[NGX_INT_T_LEN];
    u_char                   pid[NGX_INT64_LEN];
    ngx_coord_auth_t        *auth;
    ngx_coord_redis_conf_t  *conf;

    conf = conn->conf;
    auth = conn->endpoint->auth;

    if (auth->password.len) {
        p = ngx_sprintf(p, "*%d" CRLF "$4" CRLF "AUTH" CRLF,
                        auth->username.len ? 3 : 2);

        if (auth->username.len) {
            p = ngx_coord_redis_bulk(p, auth->username.data,
                                     auth->username.len);
        }

        p = ngx_coord_redis_bulk(p, auth->password.data, auth->password.len);
    }

    if (conf->db && !conn->sentinel) {
        last = ngx_sprintf(number, "%ui", conf->db);

        p = ngx_cpymem(p, "*2" CRLF "$6" CRLF "SELECT" CRLF,
                       sizeof("*2" CRLF "$6" CRLF "SELECT" CRLF) - 1);
        p = ngx_coord_redis_bulk(p, number, last - number);
    }

    last = ngx_sprintf(pid, "%P", ngx_pid);

    p = ngx_sprintf(p, "*3" CRLF "$6" CRLF "CLIENT" CRLF
                    "$7" CRLF "SETNAME" CRLF
                    "$%uz" CRLF "ngx_coord:%V:%*s" CRLF,
                    sizeof("ngx_coord::") - 1 + conf->store.len
                    + (last - pid),
                    &conf->store, (size_t) (last - pid), pid);

    p = ngx_cpymem(p, NGX_COORD_CONN_INFO, sizeof(NGX_COORD_CONN_INFO) - 1);

    if (conn->located) {
        p = ngx_cpymem(p, NGX_COORD_CONN_ROLE,
                       sizeof(NGX_COORD_CONN_ROLE) - 1);
    }

    return ngx_coord_redis_question(conn, p);
}


size_t
ngx_coord_redis_question_size(ngx_coord_redis_conn_t *conn)
{
    return sizeof(NGX_COORD_CONN_MASTER) - 1
           + ngx_coord_redis_bulk_size(conn->conf->master.len);
}


u_char *
ngx_coord_redis_question(ngx_coord_redis_conn_t *conn, u_char *p)
{
    if (conn->sentinel) {
        p = ngx_cpymem(p, NGX_COORD_CONN_MASTER,
                       sizeof(NGX_COORD_CONN_MASTER) - 1);

        return ngx_coord_redis_bulk(p, conn->conf->master.data,
                                    conn->conf->master.len);
    }

    return ngx_cpymem(p, NGX_COORD_CONN_TIME, sizeof(NGX_COORD_CONN_TIME) - 1);
}


/* the first step from the given one on that was sent to this server */

ngx_coord_conn_step_e
ngx_coord_redis_conn_step(ngx_coord_redis_conn_t *conn, ngx_uint_t step)
{
    if (step == NGX_COORD_STEP_AUTH
        && conn->endpoint->auth->password.len == 0)
    {
        step = NGX_COORD_STEP_SELECT;
    }

    if (step == NGX_COORD_STEP_SELECT
        && (conn->conf->db == 0 || conn->sentinel))
    {
        step = NGX_COORD_STEP_NAME;
    }

    if (step == NGX_COORD_STEP_ROLE && !conn->located) {
        step = NGX_COORD_STEP_TIME;
    }

    return step;
}


ngx_coord_fail_e
ngx_coord_redis_conn_greeted(ngx_coord_redis_conn_t *conn,
    ngx_coord_resp_value_t *value)
{
    ngx_coord_fail_e  failure;
    ngx_coord_nsec_t  time;

    if (value->type == NGX_COORD_RESP_ERROR) {
        failure = ngx_coord_redis_conn_rejected(conn, value);

        if (failure != NGX_COORD_FAIL_NONE) {
            return failure;
        }

    } else if (conn->step == NGX_COORD_STEP_VERSION) {
        ngx_coord_redis_conn_version(conn, value);
        ngx_coord_redis_conn_process(conn, value);

    } else if (conn->step == NGX_COORD_STEP_ROLE) {

        if (ngx_coord_redis_conn_is_master(conn, value) == 0) {
            return NGX_COORD_FAIL_UNAVAILABLE;
        }

    } else if (conn->step == NGX_COORD_STEP_TIME) {

        if (!conn->sentinel && ngx_coord_resp_time(value, &time) != NGX_OK) {
            goto unexpected;
        }

    } else if (value->type != NGX_COORD_RESP_STATUS) {
        goto unexpected;
    }

    conn->step = ngx_coord_redis_conn_step(conn, conn->step + 1);

    return NGX_COORD_FAIL_NONE;

unexpected:

    ngx_coord_redis_conn_log(conn, NGX_COORD_FAIL_PROTOCOL, 0,
                             "unexpected reply in the handshake", NULL);

    return NGX_COORD_FAIL_PROTOCOL;
}


/* sentinels may be late to know, and a master may come back as one */

static ngx_uint_t
ngx_coord_redis_conn_is_master(ngx_coord_redis_conn_t *conn,
    ngx_coord_resp_value_t *value)
{
    u_char                   buf[NGX_COORD_LOG_TEXT];
    ngx_str_t                role;
    ngx_coord_resp_value_t  *v;

    v = ngx_coord_resp_element(value, 0);

    if (v == NULL || ngx_coord_resp_string(v, &role) != NGX_OK) {
        ngx_str_set(&role, "server");
    }

    if (role.len == 6 && ngx_memcmp(role.data, "master", 6) == 0) {
        return 1;
    }

    role = ngx_coord_log_text(buf, &role);

    ngx_coord_redis_conn_log(conn, NGX_COORD_FAIL_UNAVAILABLE, 0,
                             "the sentinels name a server that is no master "
                             "but a", &role);

    conn->redis->distrust(conn);

    return 0;
}


/* what is no version is none: all is tried */

static void
ngx_coord_redis_conn_version(ngx_coord_redis_conn_t *conn,
    ngx_coord_resp_value_t *value)
{
    u_char      *p, *last;
    ngx_int_t    major, minor;
    ngx_uint_t   dots;

    conn->version = 0;

    if (value->type != NGX_COORD_RESP_STRING) {
        return;
    }

    p = ngx_strnstr(value->str.data, NGX_COORD_CONN_VERSION, value->str.len);
    if (p == NULL) {
        return;
    }

    last = value->str.data + value->str.len;
    p += sizeof(NGX_COORD_CONN_VERSION) - 1;

    major = 0;
    minor = 0;

    for (dots = 0; p < last && dots < 2; p++) {

        if (*p == '.') {
            dots++;

        } else if (*p >= '0' && *p <= '9' && minor < 100 && major < 100) {

            if (dots) {
                minor = minor * 10 + (*p - '0');

            } else {
                major = major * 10 + (*p - '0');
            }

        } else {
            break;
        }
    }

    if (dots) {
        conn->version = major * 100 + ngx_min(minor, 99);
    }
}


/* which server it is, whatever name or address has led there */

static void
ngx_coord_redis_conn_process(ngx_coord_redis_conn_t *conn,
    ngx_coord_resp_value_t *value)
{
    u_char  *p, *last;
    size_t   len;

    if (value->type != NGX_COORD_RESP_STRING) {
        return;
    }

    p = ngx_strnstr(value->str.data, NGX_COORD_CONN_PROCESS, value->str.len);
    if (p == NULL) {
        return;
    }

    last = value->str.data + value->str.len;
    p += sizeof(NGX_COORD_CONN_PROCESS) - 1;

    for (len = 0; p + len < last && p[len] > ' '; len++) {

        if (len == NGX_COORD_CONN_RUN_ID) {
            return;
        }
    }

    ngx_memcpy(conn->run_id, p, len);
    conn->run_id_len = len;
}


ngx_int_t
ngx_coord_redis_conn_same(ngx_coord_redis_conn_t *a, ngx_coord_redis_conn_t *b)
{
    if (a->run_id_len == 0 || b->run_id_len == 0) {
        return NGX_ERROR;
    }

    return a->run_id_len == b->run_id_len
           && ngx_memcmp(a->run_id, b->run_id, a->run_id_len) == 0
           ? NGX_OK : NGX_DECLINED;
}


/* an error reply in the handshake; NONE: one that does not matter */

static ngx_coord_fail_e
ngx_coord_redis_conn_rejected(ngx_coord_redis_conn_t *conn,
    ngx_coord_resp_value_t *value)
{
    u_char                          buf[NGX_COORD_LOG_TEXT];
    ngx_str_t                       reason;
    const char                     *text;
    ngx_coord_fail_e                failure;
    const ngx_coord_redis_error_t  *e;

    e = ngx_coord_redis_error(&value->str);
    reason = ngx_coord_redis_error_text(conn->conf, buf, &value->str);
    failure = e->failure;

    switch (conn->step) {

    case NGX_COORD_STEP_AUTH:
        text = "AUTH failed";

        if (failure == NGX_COORD_FAIL_UNAVAILABLE) {
            break;
        }

        if (ngx_coord_redis_auth_changed(conn)) {
            return NGX_COORD_FAIL_CONNECT;
        }

        failure = NGX_COORD_FAIL_AUTH;
        break;

    case NGX_COORD_STEP_SELECT:
        text = "SELECT failed";
        break;

    case NGX_COORD_STEP_NAME:
    case NGX_COORD_STEP_VERSION:
        text = "connection refused by the server";

        if (!e->close) {
            return NGX_COORD_FAIL_NONE;
        }

        break;

    case NGX_COORD_STEP_ROLE:
        text = "ROLE failed";
        break;

    default:
        text = conn->sentinel ? "SENTINEL failed" : "TIME failed";
        break;
    }

    ngx_coord_redis_conn_log(conn, failure, 0, text, &reason);

    return failure;
}
