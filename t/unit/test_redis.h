
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * A real Redis on a unix socket for a unit test, which sends its commands and
 * reads the replies itself.
 */


#ifndef _TEST_REDIS_H_INCLUDED_
#define _TEST_REDIS_H_INCLUDED_


#include "ngx_stub.h"
#include "ngx_coord_resp.h"


/* group setup and teardown of cmocka: the server and the connection to it */
int start_redis(void **state);
int stop_redis(void **state);

/* what parses the replies; a test may feed it as well */
extern ngx_coord_resp_t  *resp;

/* bytes of a command */
void put(const void *data, size_t len);

/* the next reply, valid until the one after it; none fails the test */
ngx_coord_resp_value_t *reply(void);

/* sends an inline command and returns its reply */
ngx_coord_resp_value_t *raw(const char *command);


#endif /* _TEST_REDIS_H_INCLUDED_ */
