
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The block coord_store name { ... }.
 */


#include "ngx_http_coord.h"
#include "ngx_http_coord_store_conf.h"


#define NGX_HTTP_COORD_TIMEOUT_MIN       1
#define NGX_HTTP_COORD_TIMEOUT_MAX       60000
#define NGX_HTTP_COORD_TIMEOUT_LONG      1000     /* milliseconds */
#define NGX_HTTP_COORD_MAX_REPLY         (16 * 1024 * 1024)
#define NGX_HTTP_COORD_TLS_DEPTH         10


typedef struct {
    ngx_str_t                  name;
    ngx_uint_t                 min;           /* arguments */
    ngx_uint_t                 max;
    char                    *(*set)(ngx_conf_t *cf, ngx_coord_store_t *store,
                                    ngx_str_t *value, void *data);
    size_t                     offset;        /* of data, in the store */
} ngx_http_coord_store_command_t;


#define ngx_http_coord_store_tls_at(field)                                    \
    (offsetof(ngx_http_coord_store_conf_t, tls)                               \
     + offsetof(ngx_http_coord_store_tls_t, field))


static char *ngx_http_coord_store_line(ngx_conf_t *cf, ngx_command_t *dummy,
    void *conf);
static ngx_uint_t ngx_http_coord_store_again(ngx_coord_store_t *store,
    ngx_http_coord_store_command_t *cmd);
static char *ngx_http_coord_store_finish(ngx_conf_t *cf,
    ngx_http_coord_store_conf_t *scf);

static char *ngx_http_coord_store_mode(ngx_conf_t *cf,
    ngx_coord_store_t *store, ngx_str_t *value, void *data);
static char *ngx_http_coord_store_str(ngx_conf_t *cf,
    ngx_coord_store_t *store, ngx_str_t *value, void *data);
static char *ngx_http_coord_store_prefix(ngx_conf_t *cf,
    ngx_coord_store_t *store, ngx_str_t *value, void *data);
static char *ngx_http_coord_store_password(ngx_conf_t *cf,
    ngx_coord_store_t *store, ngx_str_t *value, void *data);
static char *ngx_http_coord_store_msec(ngx_conf_t *cf,
    ngx_coord_store_t *store, ngx_str_t *value, void *data);
static char *ngx_http_coord_store_pending(ngx_conf_t *cf,
    ngx_coord_store_t *store, ngx_str_t *value, void *data);
static char *ngx_http_coord_store_breaker(ngx_conf_t *cf,
    ngx_coord_store_t *store, ngx_str_t *value, void *data);

static ngx_int_t ngx_http_coord_read_password(ngx_conf_t *cf,
    ngx_str_t *path, ngx_str_t *password);


static ngx_http_coord_store_command_t  ngx_http_coord_store_commands[] = {

    { ngx_string("server"), 1, 1, ngx_http_coord_store_server, 0 },
    { ngx_string("mode"), 1, 1, ngx_http_coord_store_mode, 0 },
    { ngx_string("username"), 1, 1, ngx_http_coord_store_str,
      offsetof(ngx_http_coord_store_conf_t, auth.username) },
    { ngx_string("password_file"), 1, 1, ngx_http_coord_store_password,
      offsetof(ngx_http_coord_store_conf_t, auth) },
    { ngx_string("sentinel_username"), 1, 1, ngx_http_coord_store_str,
      offsetof(ngx_http_coord_store_conf_t, sentinel.username) },
    { ngx_string("sentinel_password_file"), 1, 1,
      ngx_http_coord_store_password,
      offsetof(ngx_http_coord_store_conf_t, sentinel) },
    { ngx_string("key_prefix"), 1, 1, ngx_http_coord_store_prefix, 0 },
    { ngx_string("timeout"), 1, 1, ngx_http_coord_store_msec,
      offsetof(ngx_http_coord_store_conf_t, redis.conf.timeout) },
    { ngx_string("connect_timeout"), 1, 1, ngx_http_coord_store_msec,
      offsetof(ngx_http_coord_store_conf_t, redis.conf.connect_timeout) },
    { ngx_string("max_pending"), 1, 1, ngx_http_coord_store_pending, 0 },
    { ngx_string("breaker"), 1, 2, ngx_http_coord_store_breaker, 0 },
    { ngx_string("ssl_trusted_certificate"), 1, 1,
      ngx_http_coord_store_tls_str, ngx_http_coord_store_tls_at(trusted) },
    { ngx_string("ssl_certificate"), 1, 1, ngx_http_coord_store_tls_str,
      ngx_http_coord_store_tls_at(certificate) },
    { ngx_string("ssl_certificate_key"), 1, 1, ngx_http_coord_store_tls_str,
      ngx_http_coord_store_tls_at(key) },
    { ngx_string("ssl_name"), 1, 1, ngx_http_coord_store_tls_str,
      ngx_http_coord_store_tls_at(name) },
    { ngx_string("ssl_ciphers"), 1, 1, ngx_http_coord_store_tls_str,
      ngx_http_coord_store_tls_at(ciphers) },
    { ngx_string("ssl_crl"), 1, 1, ngx_http_coord_store_tls_str,
      ngx_http_coord_store_tls_at(crl) },
    { ngx_string("ssl_verify"), 1, 1, ngx_http_coord_store_tls_verify,
      offsetof(ngx_http_coord_store_conf_t, tls) },
    { ngx_string("ssl_verify_depth"), 1, 1, ngx_http_coord_store_tls_depth,
      offsetof(ngx_http_coord_store_conf_t, tls) },
    { ngx_string("ssl_protocols"), 1, 8, ngx_http_coord_store_tls_protocols,
      offsetof(ngx_http_coord_store_conf_t, tls) },
    { ngx_null_string, 0, 0, NULL, 0 }
};


char *
ngx_http_coord_store_block(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_coord_main_conf_t  *mcf = conf;

    char                         *rv;
    ngx_str_t                    *value;
    ngx_conf_t                    save;
    ngx_coord_store_t            *store, **stores;
    ngx_coord_store_conf_t       *sc;
    ngx_http_coord_store_conf_t  *scf;

    value = cf->args->elts;

    if ((value[1].len == mcf->local->name.len
         && ngx_strncmp(value[1].data, mcf->local->name.data, value[1].len)
            == 0)
        || (mcf->stores.nelts && ngx_http_coord_store_find(cf, &value[1])))
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "duplicate store name \"%V\"", &value[1]);
        return NGX_CONF_ERROR;
    }

    scf = ngx_pcalloc(cf->pool, sizeof(ngx_http_coord_store_conf_t));
    if (scf == NULL) {
        return NGX_CONF_ERROR;
    }

    store = &scf->store;
    store->data = &scf->redis;
    scf->tls.verify = 1;
    scf->tls.depth = NGX_HTTP_COORD_TLS_DEPTH;

    if (ngx_array_init(&scf->servers, cf->pool, 1,
                       sizeof(ngx_coord_endpoint_t *))
        != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    store->stats = ngx_pcalloc(cf->pool, sizeof(ngx_coord_store_stats_t));
    if (store->stats == NULL) {
        return NGX_CONF_ERROR;
    }

    store->name = value[1];
    sc = &scf->redis.conf;
    sc->store = value[1];
    ngx_str_set(&store->key_prefix, "coord:");
    sc->timeout = 50;
    sc->connect_timeout = 200;
    sc->max_pending = 4096;
    sc->breaker_failures = 5;
    sc->breaker_cooldown = 500;
    sc->max_reply = NGX_HTTP_COORD_MAX_REPLY;

    save = *cf;
    cf->handler = ngx_http_coord_store_line;
    cf->handler_conf = (void *) store;

    rv = ngx_conf_parse(cf, NULL);

    *cf = save;

    if (rv != NGX_CONF_OK) {
        return rv;
    }

    stores = ngx_array_push(&mcf->stores);
    if (stores == NULL) {
        return NGX_CONF_ERROR;
    }

    *stores = store;
    store->number = mcf->stores.nelts - 1;

    return ngx_http_coord_store_finish(cf, scf);
}


static char *
ngx_http_coord_store_line(ngx_conf_t *cf, ngx_command_t *dummy, void *conf)
{
    ngx_coord_store_t *store = conf;

    ngx_str_t                       *value;
    ngx_http_coord_store_command_t  *cmd;

    value = cf->args->elts;

    if (cf->args->nelts == 2 && ngx_strcmp(value[0].data, "include") == 0) {
        return ngx_conf_include(cf, dummy, conf);
    }

    for (cmd = ngx_http_coord_store_commands; cmd->name.len; cmd++) {

        if (cmd->name.len != value[0].len
            || ngx_strcmp(cmd->name.data, value[0].data) != 0)
        {
            continue;
        }

        if (cf->args->nelts - 1 < cmd->min || cf->args->nelts - 1 > cmd->max) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid number of arguments in "
                               "\"%V\" of coord_store", &value[0]);
            return NGX_CONF_ERROR;
        }

        if (ngx_http_coord_store_again(store, cmd)) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "\"%V\" of store \"%V\" is duplicate",
                               &value[0], &store->name);
            return NGX_CONF_ERROR;
        }

        return cmd->set(cf, store, value, (u_char *) store + cmd->offset);
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "unknown directive \"%V\" in coord_store", &value[0]);

    return NGX_CONF_ERROR;
}


/* notes a line; 1 if there was one already, and there may be only one */

static ngx_uint_t
ngx_http_coord_store_again(ngx_coord_store_t *store,
    ngx_http_coord_store_command_t *cmd)
{
    ngx_uint_t                    bit;
    ngx_http_coord_store_conf_t  *scf;

    scf = (ngx_http_coord_store_conf_t *) store;

    if (cmd->set == ngx_http_coord_store_server) {
        return 0;
    }

    bit = (ngx_uint_t) 1 << (cmd - ngx_http_coord_store_commands);

    if (scf->lines & bit) {
        return 1;
    }

    scf->lines |= bit;

    return 0;
}


static char *
ngx_http_coord_store_finish(ngx_conf_t *cf, ngx_http_coord_store_conf_t *scf)
{
    ngx_coord_store_t  *store;

    store = &scf->store;

    if (scf->servers.nelts == 0) {

        if (scf->redis.conf.mode != NGX_COORD_MODE_STANDALONE
            || scf->tls.used)
        {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "store \"%V\" has \"mode\" or \"ssl_...\" "
                               "but no \"server\"", &store->name);
            return NGX_CONF_ERROR;
        }

        if (scf->auth.username.len || scf->auth.password.len) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "store \"%V\" has a user but no \"server\"",
                               &store->name);
            return NGX_CONF_ERROR;
        }

        store->actions = &ngx_coord_store_memory_actions;

        return NGX_CONF_OK;
    }

    store->actions = &ngx_coord_store_redis_actions;
    store->timeout = scf->redis.conf.timeout;
    store->cooldown = scf->redis.conf.breaker_cooldown;

    return ngx_http_coord_store_servers(cf, scf);
}


static char *
ngx_http_coord_store_mode(ngx_conf_t *cf, ngx_coord_store_t *store,
    ngx_str_t *value, void *data)
{
    ngx_str_t  master;

    if (ngx_strcmp(value[1].data, "standalone") == 0) {
        ngx_coord_store_conf(store)->mode = NGX_COORD_MODE_STANDALONE;
        return NGX_CONF_OK;
    }

    if (ngx_strcmp(value[1].data, "cluster") == 0) {
        ngx_coord_store_conf(store)->mode = NGX_COORD_MODE_CLUSTER;
        return NGX_CONF_OK;
    }

    if (ngx_http_coord_param(&value[1], "sentinel=", &master)) {

        if (master.len == 0
            || ngx_strlchr(master.data, master.data + master.len, ' '))
        {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "no name of a master in \"%V\" of store "
                               "\"%V\"", &value[1], &store->name);
            return NGX_CONF_ERROR;
        }

        ngx_coord_store_conf(store)->mode = NGX_COORD_MODE_SENTINEL;
        ngx_coord_store_conf(store)->master = master;

        return NGX_CONF_OK;
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid mode \"%V\" of store \"%V\", it must be "
                       "\"standalone\", \"sentinel=<master>\" or \"cluster\"",
                       &value[1], &store->name);

    return NGX_CONF_ERROR;
}


static char *
ngx_http_coord_store_str(ngx_conf_t *cf, ngx_coord_store_t *store,
    ngx_str_t *value, void *data)
{
    ngx_str_t *field = data;

    *field = value[1];

    return NGX_CONF_OK;
}


static char *
ngx_http_coord_store_prefix(ngx_conf_t *cf, ngx_coord_store_t *store,
    ngx_str_t *value, void *data)
{
    size_t  i;

    for (i = 0; i < value[1].len; i++) {
        if (value[1].data[i] <= ' '
            || value[1].data[i] >= 0x7f
            || value[1].data[i] == '{'
            || value[1].data[i] == '}')
        {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid key_prefix \"%V\": blanks, braces and "
                               "non-ASCII characters are not allowed",
                               &value[1]);
            return NGX_CONF_ERROR;
        }
    }

    store->key_prefix = value[1];

    return NGX_CONF_OK;
}


static char *
ngx_http_coord_store_password(ngx_conf_t *cf, ngx_coord_store_t *store,
    ngx_str_t *value, void *data)
{
    ngx_coord_auth_t *auth = data;

    if (ngx_conf_full_name(cf->cycle, &value[1], 1) != NGX_OK) {
        return NGX_CONF_ERROR;
    }

    if (ngx_http_coord_read_password(cf, &value[1], &auth->password)
        != NGX_OK)
    {
        return NGX_CONF_ERROR;
    }

    auth->file = value[1];

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_coord_read_password(ngx_conf_t *cf, ngx_str_t *path,
    ngx_str_t *password)
{
    u_char           buf[4096];
    ngx_int_t        rc;
    ngx_file_info_t  fi;

    rc = ngx_coord_auth_read(path, buf, sizeof(buf), &password->len);

    if (rc == NGX_ERROR) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, ngx_errno,
                           ngx_open_file_n " \"%V\" failed", path);
        return NGX_ERROR;
    }

    if (ngx_file_info(path->data, &fi) != NGX_FILE_ERROR
        && (fi.st_mode & 0007))
    {
        ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                           "password file \"%V\" is open to everybody, "
                           "mode 0600 or 0640 is advised", path);
    }

    if (rc == NGX_DECLINED) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "no password in the first line of \"%V\"", path);

    } else {
        password->data = ngx_pnalloc(cf->pool, password->len);

        if (password->data) {
            ngx_memcpy(password->data, buf, password->len);
        }
    }

    ngx_explicit_memzero(buf, sizeof(buf));

    return password->data ? NGX_OK : NGX_ERROR;
}


static char *
ngx_http_coord_store_msec(ngx_conf_t *cf, ngx_coord_store_t *store,
    ngx_str_t *value, void *data)
{
    ngx_msec_t *field = data;

    ngx_int_t  ms;

    ms = ngx_parse_time(&value[1], 0);

    if (ms == NGX_ERROR
        || ms < NGX_HTTP_COORD_TIMEOUT_MIN
        || ms > NGX_HTTP_COORD_TIMEOUT_MAX)
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid %V \"%V\" of store \"%V\", it must be "
                           "from 1ms to 60s",
                           &value[0], &value[1], &store->name);
        return NGX_CONF_ERROR;
    }

    *field = ms;

    if (field == &ngx_coord_store_conf(store)->timeout
        && ms > NGX_HTTP_COORD_TIMEOUT_LONG)
    {
        ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                           "%V \"%V\" of store \"%V\" lets requests wait "
                           "%Mms for a store that does not answer, "
                           "a number alone is seconds, as in \"50ms\" it is "
                           "milliseconds",
                           &value[0], &value[1], &store->name, *field);
    }

    return NGX_CONF_OK;
}


static char *
ngx_http_coord_store_pending(ngx_conf_t *cf, ngx_coord_store_t *store,
    ngx_str_t *value, void *data)
{
    ngx_int_t  n;

    n = ngx_atoi(value[1].data, value[1].len);

    if (n < 1 || n > 1000000) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid max_pending \"%V\" of store \"%V\", "
                           "it must be from 1 to 1000000",
                           &value[1], &store->name);
        return NGX_CONF_ERROR;
    }

    ngx_coord_store_conf(store)->max_pending = n;

    return NGX_CONF_OK;
}


static char *
ngx_http_coord_store_breaker(ngx_conf_t *cf, ngx_coord_store_t *store,
    ngx_str_t *value, void *data)
{
    ngx_int_t   n;
    ngx_str_t   s;
    ngx_uint_t  i;

    for (i = 1; i < cf->args->nelts; i++) {

        if (ngx_http_coord_param(&value[i], "failures=", &s)) {
            n = ngx_atoi(s.data, s.len);

            if (n >= 1 && n <= 1000000) {
                ngx_coord_store_conf(store)->breaker_failures = n;
                continue;
            }

        } else if (ngx_http_coord_param(&value[i], "cooldown=", &s)) {
            n = ngx_parse_time(&s, 0);

            if (n >= 1 && n <= 3600000) {
                ngx_coord_store_conf(store)->breaker_cooldown = n;
                continue;
            }
        }

        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid breaker parameter \"%V\" of store "
                           "\"%V\", allowed are \"failures=\" 1 to 1000000 "
                           "and \"cooldown=\" 1ms to 1h",
                           &value[i], &store->name);
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}
