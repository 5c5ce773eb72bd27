
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Passwords that are rotated: the file is read again when the server refuses
 * what was read before.
 */


#include "ngx_coord_redis_conn.h"


#define NGX_COORD_AUTH_SIZE  4096


static void ngx_coord_auth_set(ngx_coord_auth_t *auth, u_char *data,
    size_t len, ngx_log_t *log);


ngx_int_t
ngx_coord_auth_read(ngx_str_t *file, u_char *buf, size_t size, size_t *len)
{
    ssize_t    n;
    size_t     i;
    ngx_fd_t   fd;
    ngx_err_t  err;

    fd = ngx_open_file(file->data, NGX_FILE_RDONLY, NGX_FILE_OPEN, 0);

    if (fd == NGX_INVALID_FILE) {
        return NGX_ERROR;
    }

    n = ngx_read_fd(fd, buf, size);
    err = ngx_errno;

    (void) ngx_close_file(fd);

    if (n == -1) {
        ngx_set_errno(err);
        return NGX_ERROR;
    }

    for (i = 0; i < (size_t) n && buf[i] != CR && buf[i] != LF; i++) {
        /* void */
    }

    *len = i;

    return i == 0 || i == size ? NGX_DECLINED : NGX_OK;
}


ngx_uint_t
ngx_coord_redis_auth_changed(ngx_coord_redis_conn_t *conn)
{
    u_char             buf[NGX_COORD_AUTH_SIZE];
    size_t             len;
    ngx_int_t          rc;
    ngx_coord_auth_t  *auth;

    auth = conn->endpoint->auth;

    if (auth->generation != conn->generation) {

        /* another connection has found it */

        return 1;
    }

    if (auth->file.len == 0) {
        return 0;
    }

    rc = ngx_coord_auth_read(&auth->file, buf, sizeof(buf), &len);

    if (rc != NGX_OK) {
        ngx_coord_redis_conn_log(conn, NGX_COORD_FAIL_CONNECT,
                                 rc == NGX_ERROR ? ngx_errno : 0,
                                 "password cannot be read again from",
                                 &auth->file);

    } else if (len != auth->password.len
               || ngx_memcmp(buf, auth->password.data, len) != 0)
    {
        ngx_coord_auth_set(auth, buf, len, &conn->log);
    }

    ngx_explicit_memzero(buf, sizeof(buf));

    return auth->generation != conn->generation;
}


static void
ngx_coord_auth_set(ngx_coord_auth_t *auth, u_char *data, size_t len,
    ngx_log_t *log)
{
    u_char  *p;

    p = ngx_alloc(len, log);
    if (p == NULL) {
        return;
    }

    ngx_memcpy(p, data, len);

    ngx_coord_auth_forget(auth);

    auth->password.data = p;
    auth->password.len = len;
    auth->again = 1;
    auth->generation++;

    ngx_log_error(NGX_LOG_NOTICE, log, 0,
                  "coord redis: password read again from \"%V\"", &auth->file);
}


void
ngx_coord_auth_forget(ngx_coord_auth_t *auth)
{
    if (auth->again) {
        ngx_explicit_memzero(auth->password.data, auth->password.len);
        ngx_free(auth->password.data);

        auth->again = 0;
        auth->password.len = 0;
    }
}
