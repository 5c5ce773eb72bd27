
/*
 * Copyright (C) ngx_coord_module contributors
 */


#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "test_redis.h"


ngx_coord_resp_t  *resp;

static char   dir[] = "/tmp/coord-unit-XXXXXX";
static pid_t  server;
static int    fd;


int
start_redis(void **state)
{
    int                 i;
    char                path[64];
    const char         *name;
    struct sockaddr_un  sa;

    assert_non_null(mkdtemp(dir));
    sprintf(path, "%s/s", dir);

    server = fork();

    if (server == 0) {

        /* not even a crash of the test leaves it behind */

        prctl(PR_SET_PDEATHSIG, SIGKILL);

        if (freopen("/dev/null", "w", stdout) == NULL) {
            _exit(1);
        }

        for (i = 0; i < 2; i++) {
            name = getenv("REDIS_SERVER");

            if (name == NULL || *name == '\0') {
                name = i == 0 ? "redis-server" : "valkey-server";
            }

            execlp(name, name, "--port", "0", "--unixsocket", path, "--save",
                   "", "--appendonly", "no", "--dir", dir, NULL);
        }

        _exit(1);
    }

    ngx_memzero(&sa, sizeof(sa));
    sa.sun_family = AF_UNIX;
    strcpy(sa.sun_path, path);

    for (i = 0; i < 1000; i++) {
        fd = socket(AF_UNIX, SOCK_STREAM, 0);

        if (connect(fd, (struct sockaddr *) &sa, sizeof(sa)) == 0) {
            resp = ngx_coord_resp_create(1 << 20, ngx_cycle->log);
            return 0;
        }

        close(fd);
        usleep(20000);
    }

    return 1;
}


int
stop_redis(void **state)
{
    char  path[64];

    ngx_coord_resp_destroy(resp);
    close(fd);

    kill(server, SIGKILL);
    waitpid(server, NULL, 0);

    sprintf(path, "%s/s", dir);
    unlink(path);
    rmdir(dir);

    return 0;
}


void
put(const void *data, size_t len)
{
    assert_int_equal(write(fd, data, len), len);
}


ngx_coord_resp_value_t *
reply(void)
{
    u_char                   buf[4096];
    ssize_t                  n;
    ngx_coord_resp_value_t  *v;

    for ( ;; ) {
        switch (ngx_coord_resp_next(resp, &v)) {
        case NGX_OK:
            return v;
        case NGX_ERROR:
            fail_msg("%s", ngx_coord_resp_error(resp));
        }

        n = read(fd, buf, sizeof(buf));
        assert_true(n > 0);
        assert_int_equal(ngx_coord_resp_feed(resp, buf, n), NGX_OK);
    }
}


ngx_coord_resp_value_t *
raw(const char *command)
{
    put(command, strlen(command));
    put("\r\n", 2);

    return reply();
}
