
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The operations on sessions and users: both stores do and tell the same,
 * Redis being a real one on a unix socket, and no reply is trusted.
 */


#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "test_redis.h"
#include "ngx_coord_store.h"
#include "ngx_coord_op_arg.h"
#include "ngx_coord_op_script.h"


#define SEC       1000000000LL
#define SESSIONS  5
#define USERS     3


static ngx_shm_zone_t     shm;
static ngx_coord_store_t  store;
static ngx_coord_zone_t   zone;
static u_char             blobs[2][sizeof(ngx_coord_session_item_t)
                                   * NGX_COORD_SESSION_LIST];


/* nobody gives back here */

ngx_uint_t
ngx_coord_redis_ready(ngx_coord_redis_t *redis)
{
    return 1;
}


void
ngx_coord_wake(ngx_coord_zone_t *z, u_char *key, size_t len)
{
}


static ngx_int_t
parse(ngx_coord_op_t *op, ngx_coord_resp_value_t *v, ngx_coord_nsec_t now)
{
    ngx_uint_t               i;
    ngx_coord_resp_value_t  *values[NGX_COORD_OP_VALUES];

    assert_int_equal(v->type, NGX_COORD_RESP_ARRAY);
    assert_int_equal(v->integer, ngx_coord_op_ncommands(op));

    v++;

    for (i = 0; i < ngx_coord_op_ncommands(op); i++) {
        assert_int_not_equal(v->type, NGX_COORD_RESP_ERROR);
        values[i] = v;
        v += v->next;
    }

    return ngx_coord_op_fits(op, values) ? op->type->parse(op, values, now)
                                         : NGX_ERROR;
}


static ngx_int_t
in_redis(ngx_coord_op_t *op)
{
    size_t                      size;
    u_char                     *data, *end;
    ngx_uint_t                  i;
    ngx_coord_batch_t           batch;
    ngx_coord_command_t         cmd;
    const ngx_coord_op_type_t  *type;

    ngx_memzero(&batch, sizeof(batch));
    batch.ops = op;
    batch.nops = 1;

    assert_int_equal(ngx_coord_op_prepare(&batch), NGX_OK);

    size = ngx_coord_op_bound(op);
    data = malloc(size);

    type = ngx_coord_op_type(op);
    cmd.last = ngx_coord_op_words();

    type->build(&cmd, op, ngx_stub_clock);

    end = ngx_coord_script_encode(data, &ngx_coord_scripts[type->script],
                                  cmd.args);
    assert_true((size_t) (end - data) <= size);

    (void) raw("MULTI");
    put(data, end - data);
    free(data);

    for (i = 0; i < ngx_coord_op_ncommands(op); i++) {
        assert_int_equal(reply()->type, NGX_COORD_RESP_STATUS);
    }

    return parse(op, raw("EXEC"), ngx_stub_clock);
}


static int
setup(void **state)
{
    ngx_memzero(&store, sizeof(store));
    ngx_memzero(&zone, sizeof(zone));
    ngx_memzero(&shm, sizeof(shm));

    ngx_stub_clock = 1700000000 * SEC;

    ngx_str_set(&store.key_prefix, "t:");
    ngx_str_set(&zone.name, "z");
    ngx_str_set(&zone.type, "ss");
    ngx_str_set(&zone.key_head, "t:ss:z:{");
    zone.store = &store;

    ngx_stub_shm(&shm, 1 << 20);
    shm.data = &zone;

    assert_int_equal(ngx_coord_zone_init(&shm, NULL), NGX_OK);

    raw("FLUSHALL");

    return 0;
}


static int
teardown(void **state)
{
    free(shm.shm.addr);
    ngx_stub_clock = 0;

    return 0;
}


static void
make(ngx_coord_op_t *op, const ngx_coord_op_type_t *type, ngx_uint_t session,
    ngx_uint_t user)
{
    ngx_memzero(op, sizeof(*op));

    op->type = type;
    op->zone = &zone;
    op->u.session.ttl = 1000 * SEC;

    ngx_memset(op->id, '0' + session, NGX_COORD_ID_LEN);

    op->key_len = sprintf((char *) op->key, "~%032x",
                          (int) (type->kind == NGX_COORD_KIND_USER
                                 ? 100 + user : session));
}


static void
bind_to(ngx_coord_op_t *op, const char *value, ngx_uint_t user)
{
    char  key[64];

    if (value) {
        op->u.session.bound = 1;
        op->u.session.value_len = strlen(value);
        ngx_memcpy(blobs[0], value, strlen(value));
        ngx_memcpy(blobs[1], value, strlen(value));
    }

    if (user != NGX_CONF_UNSET_UINT) {
        op->u.session.user_len = sprintf(key, "~%032x", (int) (100 + user));
        ngx_memcpy(op->u.session.user, key, op->u.session.user_len);
    }
}


/* what an answer says, as text */

static void
told(ngx_coord_op_t *op, char *buf)
{
    ngx_uint_t                 i;
    ngx_coord_session_t       *s;
    ngx_coord_session_item_t  *items;

    s = &op->u.session;
    items = (ngx_coord_session_item_t *) op->blob;

    if (op->type == &ngx_coord_op_session_get
        || op->type == &ngx_coord_op_session_bind)
    {
        if (!s->found) {
            strcpy(buf, "none");
            return;
        }

        sprintf(buf, "value %d %.*s user %.*s revoked %d created %d age %d%s",
                s->bound, (int) s->value_len, op->blob, (int) s->user_len,
                s->user, s->revoked, s->created, (int) (s->age / 1000),
                s->moved ? " moved" : "");

    } else if (op->type == &ngx_coord_op_session_revoke) {
        sprintf(buf, "found %d user %.*s", s->found, (int) s->user_len,
                s->user);

    } else if (op->type == &ngx_coord_op_user_check
               || op->type == &ngx_coord_op_user_drop)
    {
        sprintf(buf, "found %d", s->found);

    } else if (op->type == &ngx_coord_op_user_list) {
        buf += sprintf(buf, "%d:", (int) s->count);

        for (i = 0; i < s->count; i++) {
            buf += sprintf(buf, " %c %d", items[i].id[0],
                           (int) (items[i].idle / 1000));
        }

    } else if (op->type == &ngx_coord_op_user_revoke) {
        sprintf(buf, "%d", (int) s->count);

    } else {
        strcpy(buf, "done");
    }
}


static void
both(ngx_coord_op_t *op, char *answer)
{
    char            text[2][4096];
    ngx_coord_op_t  copy;

    copy = *op;

    op->blob = blobs[0];
    copy.blob = blobs[1];

    op->rc = in_redis(op);

    ngx_coord_near_run(&copy);
    assert_int_equal(copy.rc, op->rc);

    if (op->type != &ngx_coord_op_user_seat
        && op->type != &ngx_coord_op_user_unseat)
    {
        assert_int_equal(op->rc, NGX_OK);
    }

    told(op, text[0]);
    told(&copy, text[1]);

    assert_string_equal(text[0], text[1]);

    if (answer) {
        strcpy(answer, text[0]);
    }
}


static void
both_stores_do_the_same(void **state)
{
    char                        value[16];
    ngx_uint_t                  i, session, user;
    ngx_coord_op_t              op;
    const ngx_coord_op_type_t  *type;

    static const ngx_coord_op_type_t  *types[] = {
        &ngx_coord_op_session_get,
        &ngx_coord_op_session_bind,
        &ngx_coord_op_session_set,
        &ngx_coord_op_session_touch,
        &ngx_coord_op_session_revoke,
        &ngx_coord_op_user_check,
        &ngx_coord_op_user_add,
        &ngx_coord_op_user_seen,
        &ngx_coord_op_user_drop,
        &ngx_coord_op_user_list,
        &ngx_coord_op_user_revoke
    };

    for (i = 0; i < 6000; i++) {
        session = any(SESSIONS);
        user = any(USERS);
        type = types[any(sizeof(types) / sizeof(types[0]))];

        if ((type == &ngx_coord_op_session_revoke
             || type == &ngx_coord_op_user_revoke
             || type == &ngx_coord_op_user_drop)
            && any(4))
        {
            type = &ngx_coord_op_user_list;
        }

        make(&op, type, session, user);
        sprintf(value, "value%d", (int) any(1000));

        if (type == &ngx_coord_op_session_bind) {
            bind_to(&op, any(3) ? value : NULL,
                    any(2) ? user : NGX_CONF_UNSET_UINT);

        } else if (type == &ngx_coord_op_session_set) {
            bind_to(&op, any(2) ? value : NULL, user);

        } else if (type == &ngx_coord_op_user_add) {
            op.u.session.max = any(4);
        }

        both(&op, NULL);

        /* no two activities at one time */

        ngx_stub_clock += (1 + any(1000)) * 1000;

        if (any(500) == 0) {
            raw("FLUSHALL");

            /* an end is forgotten only for a session that is there */

            for (session = 0; session < SESSIONS; session++) {
                make(&op, &ngx_coord_op_session_keep, session, 0);
                op.u.session.found = 1;
                op.u.session.left = SEC;
                ngx_coord_near_run(&op);

                op.u.session.found = 0;
                ngx_coord_near_run(&op);
            }

            for (user = 0; user < USERS; user++) {
                make(&op, &ngx_coord_op_user_revoke, 0, user);
                ngx_coord_near_run(&op);
            }
        }
    }
}


static void
the_first_to_bind_decides(void **state)
{
    char            text[4096];
    ngx_coord_op_t  op;

    make(&op, &ngx_coord_op_session_bind, 1, 0);
    bind_to(&op, NULL, NGX_CONF_UNSET_UINT);
    both(&op, text);
    assert_string_equal(text, "value 0  user  revoked 0 created 1 age 0");

    make(&op, &ngx_coord_op_session_bind, 1, 0);
    bind_to(&op, "one", NGX_CONF_UNSET_UINT);
    both(&op, text);
    assert_string_equal(text, "value 1 one user  revoked 0 created 0 age 0");

    make(&op, &ngx_coord_op_session_bind, 1, 0);
    bind_to(&op, "two", NGX_CONF_UNSET_UINT);
    both(&op, text);
    assert_string_equal(text, "value 1 one user  revoked 0 created 0 age 0");

    make(&op, &ngx_coord_op_session_revoke, 1, 0);
    both(&op, text);
    assert_string_equal(text, "found 1 user ");

    make(&op, &ngx_coord_op_session_get, 1, 0);
    both(&op, text);
    assert_string_equal(text, "value 0  user  revoked 1 created 0 age 0");
}


static void
a_user_has_the_most_active(void **state)
{
    char            text[4096];
    ngx_uint_t      i;
    ngx_coord_op_t  op;

    for (i = 1; i <= 3; i++) {
        make(&op, &ngx_coord_op_user_add, i, 0);
        op.u.session.max = 3;
        both(&op, NULL);
        ngx_stub_clock += SEC;
    }

    make(&op, &ngx_coord_op_user_seen, 1, 0);
    both(&op, NULL);
    ngx_stub_clock += SEC;

    make(&op, &ngx_coord_op_user_add, 4, 0);
    op.u.session.max = 3;
    both(&op, NULL);

    make(&op, &ngx_coord_op_user_list, 0, 0);
    both(&op, text);
    assert_string_equal(text, "3: 4 0 1 1000000 3 2000000");

    make(&op, &ngx_coord_op_user_seen, 2, 0);
    both(&op, NULL);
    make(&op, &ngx_coord_op_user_check, 2, 0);
    both(&op, text);
    assert_string_equal(text, "found 0");

    /* what is older than the life of a session has expired */

    ngx_stub_clock += 998 * SEC;
    make(&op, &ngx_coord_op_user_list, 0, 0);
    both(&op, text);
    assert_string_equal(text, "3: 4 998000000 1 999000000 3 1000000000");

    ngx_stub_clock += 2 * SEC;
    make(&op, &ngx_coord_op_user_add, 5, 0);
    both(&op, NULL);
    make(&op, &ngx_coord_op_user_list, 0, 0);
    both(&op, text);
    assert_string_equal(text, "2: 5 0 4 1000000000");

    make(&op, &ngx_coord_op_user_revoke, 0, 0);
    both(&op, text);
    assert_string_equal(text, "2");
    both(&op, text);
    assert_string_equal(text, "0");
}


/* whoever was active before may have had a faster clock */

static void
the_new_one_stays(void **state)
{
    char            text[4096];
    ngx_uint_t      i;
    ngx_coord_op_t  op;

    for (i = 1; i <= 5; i++) {
        make(&op, &ngx_coord_op_user_add, i, 0);
        op.u.session.max = 2;
        both(&op, NULL);

        make(&op, &ngx_coord_op_user_check, i, 0);
        both(&op, text);
        assert_string_equal(text, "found 1");

        ngx_stub_clock -= SEC / 100;
    }

    /* with the time of its caller; of the others the first had the least */

    make(&op, &ngx_coord_op_user_list, 0, 0);
    both(&op, text);
    assert_string_equal(text, "2: 1 0 5 0");
}


static void
a_long_list_tells_the_newest(void **state)
{
    ngx_uint_t                 i, n;
    ngx_coord_op_t             op[2];
    ngx_coord_session_item_t  *items;

    for (i = 0; i < 150; i++) {
        make(&op[0], &ngx_coord_op_user_add, 0, 0);
        op[0].id[0] = (i * 37) % 150;
        both(&op[0], NULL);
        ngx_stub_clock += 1000;
    }

    for (n = 0; n < 2; n++) {
        make(&op[n], &ngx_coord_op_user_list, 0, 0);
        op[n].blob = blobs[n];
    }

    assert_int_equal(in_redis(&op[0]), NGX_OK);
    ngx_coord_near_run(&op[1]);

    for (n = 0; n < 2; n++) {
        items = (ngx_coord_session_item_t *) blobs[n];

        assert_int_equal(op[n].u.session.count, 150);

        for (i = 0; i < NGX_COORD_SESSION_LIST; i++) {
            assert_int_equal(items[i].id[0], ((149 - i) * 37) % 150);
            assert_int_equal(items[i].idle, (i + 1) * 1000);
        }
    }
}


static void
what_redis_said_is_kept(void **state)
{
    char            text[4096];
    ngx_coord_op_t  op;

    make(&op, &ngx_coord_op_session_keep, 1, 0);
    op.blob = blobs[0];
    op.u.session.found = 1;
    op.u.session.age = 5 * SEC;
    op.u.session.left = 10 * SEC;
    bind_to(&op, "one", 2);
    ngx_coord_near_run(&op);

    make(&op, &ngx_coord_op_session_get, 1, 0);
    op.blob = blobs[0];
    ngx_coord_near_run(&op);
    told(&op, text);
    assert_string_equal(text, "value 1 one user ~0000000000000000000000000000"
                              "0066 revoked 0 created 0 age 5000000");
    assert_int_equal(op.u.session.left, 10 * SEC);

    /* a life that this node slid is told, not cut */

    make(&op, &ngx_coord_op_session_keep, 1, 0);
    op.blob = blobs[0];
    op.u.session.found = 1;
    op.u.session.left = 4 * SEC;
    op.u.session.revoked = 1;
    ngx_coord_near_run(&op);
    assert_int_equal(op.u.session.left, 10 * SEC);

    make(&op, &ngx_coord_op_session_get, 1, 0);
    op.blob = blobs[0];
    ngx_coord_near_run(&op);
    told(&op, text);
    assert_string_equal(text, "value 0  user  revoked 1 created 0 age 0");

    ngx_stub_clock += 10 * SEC;
    ngx_coord_near_run(&op);
    assert_int_equal(op.u.session.found, 0);

    /* what is not in Redis any more is forgotten */

    make(&op, &ngx_coord_op_session_keep, 1, 0);
    op.blob = blobs[0];
    op.u.session.found = 1;
    op.u.session.left = 4 * SEC;
    ngx_coord_near_run(&op);
    make(&op, &ngx_coord_op_session_keep, 1, 0);
    ngx_coord_near_run(&op);
    make(&op, &ngx_coord_op_session_get, 1, 0);
    ngx_coord_near_run(&op);
    assert_int_equal(op.u.session.found, 0);

    /* but not that it has ended */

    make(&op, &ngx_coord_op_session_revoke, 1, 0);
    ngx_coord_near_run(&op);
    make(&op, &ngx_coord_op_session_keep, 1, 0);
    ngx_coord_near_run(&op);
    assert_int_equal(op.u.session.found, 1);
    assert_int_equal(op.u.session.revoked, 1);
    assert_int_equal(op.u.session.left, 1000 * SEC);
}


static void
an_end_is_not_undone(void **state)
{
    char            text[4096];
    ngx_uint_t      i, n;
    ngx_coord_op_t  op;

    make(&op, &ngx_coord_op_session_bind, 1, 0);
    bind_to(&op, "one", 2);
    both(&op, NULL);

    make(&op, &ngx_coord_op_session_revoke, 1, 0);
    both(&op, text);
    assert_string_equal(text, "found 1 user ~0000000000000000000000000000"
                              "0066");

    /* whatever comes, the end is remembered for as long as was said */

    make(&op, &ngx_coord_op_session_bind, 1, 0);
    op.u.session.ttl = SEC;
    bind_to(&op, "two", 1);
    both(&op, NULL);

    make(&op, &ngx_coord_op_session_set, 1, 0);
    op.u.session.ttl = SEC;
    bind_to(&op, "three", 1);
    both(&op, NULL);

    make(&op, &ngx_coord_op_session_touch, 1, 0);
    op.u.session.ttl = SEC;
    both(&op, NULL);

    make(&op, &ngx_coord_op_session_get, 1, 0);
    both(&op, text);
    assert_string_equal(text, "value 0  user  revoked 1 created 0 age 0");
    assert_true(op.u.session.left > 999 * SEC);

    make(&op, &ngx_coord_op_session_revoke, 1, 0);
    both(&op, text);
    assert_string_equal(text, "found 0 user ");

    /* and nobody pushes it out of a zone */

    for (i = 0, n = 0; i < 100000; i++) {
        make(&op, &ngx_coord_op_session_bind, 0, 0);
        op.key_len = sprintf((char *) op.key, "~%032x", (int) (1000 + i));
        op.blob = blobs[0];
        ngx_coord_near_run(&op);
        n += (op.rc == NGX_OK);
    }

    assert_int_equal(n, 100000);

    make(&op, &ngx_coord_op_session_get, 1, 0);
    op.blob = blobs[0];
    ngx_coord_near_run(&op);
    assert_int_equal(op.u.session.revoked, 1);
}


static void
those_beyond_the_most_are_told(void **state)
{
    ngx_uint_t                  i, n;
    ngx_coord_op_t              op[2];
    ngx_coord_session_item_t   *items;

    for (i = 0; i < 5; i++) {
        make(&op[0], &ngx_coord_op_user_add, i, 0);
        op[0].u.session.max = (i < 4) ? 0 : 3;
        op[1] = op[0];

        op[0].blob = blobs[0];
        op[1].blob = blobs[1];

        assert_int_equal(in_redis(&op[0]), NGX_OK);
        ngx_coord_near_run(&op[1]);

        ngx_stub_clock += SEC;
    }

    for (n = 0; n < 2; n++) {
        items = (ngx_coord_session_item_t *) blobs[n];

        assert_int_equal(op[n].u.session.count, 2);
        assert_int_equal(items[0].id[0] + items[1].id[0], '0' + '1');
    }
}


static void
no_reply_is_trusted(void **state)
{
    ngx_uint_t      i;
    ngx_coord_op_t  op;

    static const struct {
        const ngx_coord_op_type_t *type;
        const char      *reply;
    } bad[] = {
        { &ngx_coord_op_session_get, "*3\r\n:1\r\n$-1\r\n:5\r\n" },
        { &ngx_coord_op_session_get, "*3\r\n*2\r\n$1\r\n1\r\n$-1\r\n"
                                    "$-1\r\n:5\r\n" },
        { &ngx_coord_op_session_get, "*3\r\n*3\r\n$1\r\n1\r\n$-1\r\n$-1\r\n"
                                    "$-1\r\n$1\r\nx\r\n" },
        { &ngx_coord_op_session_peek, "*2\r\n:1\r\n$-1\r\n" },
        { &ngx_coord_op_session_peek, "*2\r\n*2\r\n$1\r\n1\r\n$-1\r\n"
                                     "$-1\r\n" },
        { &ngx_coord_op_session_bind, "*7\r\n$1\r\nx\r\n:1\r\n:1\r\n:1\r\n"
                                     "*3\r\n$1\r\n1\r\n$-1\r\n$-1\r\n$-1\r\n"
                                     ":5\r\n" },
        { &ngx_coord_op_session_revoke, "*4\r\n$-1\r\n$-1\r\n$-1\r\n"
                                       ":1\r\n" },
        { &ngx_coord_op_user_add, "*6\r\n:0\r\n:1\r\n:1\r\n:1\r\n:0\r\n"
                                 ":1\r\n" },
        { &ngx_coord_op_user_check, "*1\r\n*0\r\n" },
        { &ngx_coord_op_user_drop, "*1\r\n$-1\r\n" },
        { &ngx_coord_op_user_revoke, "*2\r\n:-1\r\n:1\r\n" },
        { &ngx_coord_op_user_list, "*3\r\n:0\r\n:1\r\n*1\r\n$1\r\na\r\n" },
        { &ngx_coord_op_user_list, "*3\r\n:0\r\n:1\r\n*2\r\n$1\r\na\r\n$1\r\n"
                                  "1\r\n" },
        { &ngx_coord_op_user_list, "*3\r\n:0\r\n:1\r\n*2\r\n$32\r\n"
                                  "0123456789abcdef0123456789abcdeg\r\n"
                                  "$1\r\n1\r\n" },
        { &ngx_coord_op_user_list, "*3\r\n:0\r\n:1\r\n*2\r\n$32\r\n"
                                  "0123456789abcdef0123456789abcdef\r\n"
                                  "$3\r\nnan\r\n" },
        { &ngx_coord_op_user_list, "*3\r\n:0\r\n:1\r\n:1\r\n" }
    };

    for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        ngx_coord_resp_value_t  *v;

        make(&op, bad[i].type, 1, 1);
        op.blob = blobs[0];

        assert_int_equal(ngx_coord_resp_feed(resp, (u_char *) bad[i].reply,
                                             strlen(bad[i].reply)), NGX_OK);
        assert_int_equal(ngx_coord_resp_next(resp, &v), NGX_OK);

        if (parse(&op, v, ngx_stub_clock) != NGX_ERROR) {
            fail_msg("reply %d was taken", (int) i);
        }
    }
}


/* an end tells whether the session lives on under another id */

static void
an_end_may_be_a_move(void **state)
{
    ngx_uint_t      i;
    ngx_coord_op_t  op;

    for (i = 0; i < 4; i++) {
        make(&op, &ngx_coord_op_session_revoke, 1, 1);
        op.u.session.moved = i % 2;
        both(&op, NULL);

        make(&op, &ngx_coord_op_session_get, 1, 1);
        both(&op, NULL);
        assert_int_equal(op.u.session.revoked, 1);
        assert_int_equal(op.u.session.moved, i % 2);
        assert_int_equal(op.u.session.damaged, 0);
        assert_true(op.u.session.left > 999 * SEC);
    }

    /* and what moves keeps its age */

    make(&op, &ngx_coord_op_session_bind, 2, 1);
    op.u.session.age = 77 * SEC;
    both(&op, NULL);

    make(&op, &ngx_coord_op_session_get, 2, 1);
    both(&op, NULL);
    assert_int_equal(op.u.session.age, 77 * SEC);
}


/* numbered places: who has one keeps it */

static void
those_who_sit_stay(void **state)
{
    ngx_uint_t      i;
    ngx_coord_op_t  op;

    static const struct {
        ngx_uint_t  session, max;
        ngx_int_t   rc;
    } seats[] = {
        { 1, 2, NGX_OK }, { 2, 2, NGX_OK }, { 3, 2, NGX_BUSY },
        { 1, 2, NGX_OK }, { 3, 2, NGX_BUSY }, { 3, 3, NGX_OK },
        { 4, 2, NGX_BUSY }, { 4, 1, NGX_BUSY }
    };

    for (i = 0; i < sizeof(seats) / sizeof(seats[0]); i++) {
        ngx_stub_clock += SEC;

        make(&op, &ngx_coord_op_user_seat, seats[i].session, 1);
        op.u.session.max = seats[i].max;
        both(&op, NULL);
        assert_int_equal(op.rc, seats[i].rc);
    }

    make(&op, &ngx_coord_op_user_list, 0, 1);
    both(&op, NULL);
    assert_int_equal(op.u.session.count, 3);

    make(&op, &ngx_coord_op_user_drop, 2, 1);
    both(&op, NULL);

    make(&op, &ngx_coord_op_user_seat, 4, 1);
    op.u.session.max = 3;
    both(&op, NULL);
    assert_int_equal(op.rc, NGX_OK);
}


/* a seat is given back as it was taken, and not when it was used since */

static void
what_was_used_is_not_given_back(void **state)
{
    int64_t         at;
    ngx_uint_t      i;
    ngx_coord_op_t  op;

    static const struct {
        const ngx_coord_op_type_t  *between;
        ngx_uint_t                  late;    /* us */
        ngx_int_t                   rc;
    } seats[] = {
        { NULL, 1, NGX_DECLINED },
        { NULL, 0, NGX_OK },
        { NULL, 0, NGX_OK },
        { &ngx_coord_op_user_check, 0, NGX_OK },
        { &ngx_coord_op_user_seat, 0, NGX_OK },
        { &ngx_coord_op_user_seen, 0, NGX_DECLINED },
        { &ngx_coord_op_user_add, 0, NGX_DECLINED },
        { &ngx_coord_op_user_drop, 0, NGX_DECLINED }
    };

    for (i = 0; i < sizeof(seats) / sizeof(seats[0]); i++) {
        ngx_stub_clock += SEC;

        make(&op, &ngx_coord_op_user_revoke, 0, 1);
        both(&op, NULL);

        make(&op, &ngx_coord_op_user_seat, 1, 1);
        op.u.session.max = 2;
        both(&op, NULL);
        at = op.u.session.seated;
        assert_int_equal(at, ngx_stub_clock / 1000);

        ngx_stub_clock += SEC;

        if (seats[i].between) {
            make(&op, seats[i].between, 1, 1);
            op.u.session.max = 2;
            both(&op, NULL);
        }

        make(&op, &ngx_coord_op_user_unseat, 1, 1);
        op.u.session.seated = at + seats[i].late;
        both(&op, NULL);
        assert_int_equal(op.rc, seats[i].rc);

        make(&op, &ngx_coord_op_user_list, 0, 1);
        both(&op, NULL);
        assert_int_equal(op.u.session.count, i == 0 || i == 5 || i == 6);
    }
}


/* who wrote it there is not known: it is not used, and that is told */

static void
what_is_no_good_is_absent(void **state)
{
    char            text[2048], reply[2048];
    size_t          len;
    ngx_uint_t      i;
    ngx_coord_op_t  op;

    static const struct {
        const char  *c, *v, *u, *x, *answer;
    } parts[] = {
        { "1", "good", NULL, NULL, "value 1 good user  revoked 0" },
        { "1", "a\tb", NULL, NULL, "value 1 a\tb user  revoked 0" },
        { "x", "one", NULL, NULL, "none" },
        { "-1", "one", NULL, NULL, "none" },
        { "9223372036854775807", "one", NULL, NULL, "none" },
        { "1", "a\r\nX: y", NULL, NULL, "value 0  user  revoked 0" },
        { "1", "a\x7f", NULL, NULL, "value 0  user  revoked 0" },
        { "1", "%513", NULL, NULL, "value 0  user  revoked 0" },
        { "1", "one", "~x", NULL, "value 1 one user  revoked 0" },
        { "1", "one", "~0123456789abcdef0123456789abcdeg", NULL,
          "value 1 one user  revoked 0" },
        { "1", "one", "}0123456789abcdef0123456789abcdef", NULL,
          "value 1 one user  revoked 0" },
        { "1", "one", NULL, "soon", "value 0  user  revoked 1" },
        { NULL, NULL, NULL, "-9223372036854775807",
          "value 0  user  revoked 1" },
        { NULL, NULL, NULL, "-", "value 0  user  revoked 1" }
    };

    for (i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        const char              *part[4] = { parts[i].c, parts[i].v,
                                             parts[i].u, parts[i].x };
        ngx_uint_t               k;
        ngx_coord_resp_value_t  *v;

        len = sprintf(reply, "*3\r\n*3\r\n");

        for (k = 0; k < 4; k++) {
            if (part[k] == NULL) {
                len += sprintf(reply + len, "$-1\r\n");

            } else if (part[k][0] == '%') {
                len += sprintf(reply + len, "$%d\r\n%0*d\r\n",
                               atoi(part[k] + 1), atoi(part[k] + 1), 0);

            } else {
                len += sprintf(reply + len, "$%d\r\n%s\r\n",
                               (int) strlen(part[k]), part[k]);
            }
        }

        len += sprintf(reply + len, ":5\r\n");

        make(&op, &ngx_coord_op_session_get, 1, 1);
        op.blob = malloc(NGX_COORD_SESSION_VALUE_LEN);

        ngx_coord_resp_feed(resp, (u_char *) reply, len);
        assert_int_equal(ngx_coord_resp_next(resp, &v), NGX_OK);
        assert_int_equal(parse(&op, v, ngx_stub_clock), NGX_OK);

        told(&op, text);
        text[strlen(parts[i].answer)] = '\0';
        assert_string_equal(text, parts[i].answer);
        assert_int_equal(op.u.session.damaged, i > 1);

        free(op.blob);
    }
}


int
main(void)
{
    const struct CMUnitTest  tests[] = {
        cmocka_unit_test_setup_teardown(both_stores_do_the_same,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(the_first_to_bind_decides,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(a_user_has_the_most_active,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(the_new_one_stays, setup, teardown),
        cmocka_unit_test_setup_teardown(a_long_list_tells_the_newest,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(what_redis_said_is_kept,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(an_end_is_not_undone,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(those_beyond_the_most_are_told,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(no_reply_is_trusted, setup, teardown),
        cmocka_unit_test_setup_teardown(an_end_may_be_a_move, setup, teardown),
        cmocka_unit_test_setup_teardown(those_who_sit_stay, setup, teardown),
        cmocka_unit_test_setup_teardown(what_was_used_is_not_given_back, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(what_is_no_good_is_absent,
                                        setup, teardown)
    };

    return cmocka_run_group_tests(tests, start_redis, stop_redis);
}
