
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * A line is "port host hostname ip"; what is empty is "-", which no host is.
 */


#include "ngx_coord_redis_known.h"


static ngx_int_t ngx_coord_redis_known_word(ngx_str_t *line, ngx_str_t *word);


void
ngx_coord_redis_known_add(ngx_coord_redis_known_t *list,
    ngx_coord_slot_node_t *node)
{
    u_char     *p, *last;
    ngx_str_t   none;

    ngx_str_set(&none, "-");

    p = list->text.data + list->text.len;
    last = list->buf + NGX_COORD_KNOWN_SIZE;

    if ((size_t) (last - p) < sizeof("65535 - - -" CRLF) + node->host.len
                              + node->hostname.len + node->ip.len)
    {
        return;
    }

    p = ngx_slprintf(p, last, "%ui %V %V %V\n", (ngx_uint_t) node->port,
                     node->host.len ? &node->host : &none,
                     node->hostname.len ? &node->hostname : &none,
                     node->ip.len ? &node->ip : &none);

    list->text.len = p - list->text.data;
}


ngx_int_t
ngx_coord_redis_known_next(ngx_coord_redis_known_t *list,
    ngx_coord_slot_node_t *node)
{
    u_char     *p;
    ngx_int_t   port;
    ngx_str_t   line, word;

    line = list->text;

    p = ngx_strlchr(line.data, line.data + line.len, '\n');
    if (p == NULL) {
        return NGX_DONE;
    }

    line.len = p - line.data;

    list->text.data += line.len + 1;
    list->text.len -= line.len + 1;

    if (ngx_coord_redis_known_word(&line, &word) != NGX_OK) {
        return NGX_DONE;
    }

    port = ngx_atoi(word.data, word.len);

    if (port < 1 || port > 65535
        || ngx_coord_redis_known_word(&line, &node->host) != NGX_OK
        || ngx_coord_redis_known_word(&line, &node->hostname) != NGX_OK
        || ngx_coord_redis_known_word(&line, &node->ip) != NGX_OK
        || node->host.len == 0)
    {
        return NGX_DONE;
    }

    node->port = (in_port_t) port;

    return NGX_OK;
}


/* "-" is an empty one */

static ngx_int_t
ngx_coord_redis_known_word(ngx_str_t *line, ngx_str_t *word)
{
    u_char  *p, *last;

    last = line->data + line->len;

    p = ngx_strlchr(line->data, last, ' ');
    if (p == NULL) {
        p = last;
    }

    word->data = line->data;
    word->len = p - line->data;

    line->data = ngx_min(p + 1, last);
    line->len = last - line->data;

    if (word->len == 0) {
        return NGX_DECLINED;
    }

    if (word->len == 1 && word->data[0] == '-') {
        word->len = 0;
        return NGX_OK;
    }

    return ngx_coord_slot_host_good(word) ? NGX_OK : NGX_DECLINED;
}


void
ngx_coord_redis_known_keep(ngx_coord_redis_t *redis,
    ngx_coord_redis_known_t *list)
{
    ngx_coord_known_put(redis->known, ngx_coord_redis_conf_sum(redis->conf),
                        &list->text);
}


void
ngx_coord_redis_known_read(ngx_coord_redis_t *redis,
    ngx_coord_redis_known_t *list)
{
    if (ngx_coord_known_get(redis->known,
                            ngx_coord_redis_conf_sum(redis->conf), list->buf,
                            &list->text)
        != NGX_OK)
    {
        ngx_coord_redis_known_init(list);
    }
}


uint32_t
ngx_coord_redis_conf_sum(ngx_coord_redis_conf_t *conf)
{
    uint32_t                sum;
    ngx_str_t              *host;
    ngx_uint_t              i;
    ngx_coord_endpoint_t  **servers;

    servers = conf->servers->elts;

    ngx_crc32_init(sum);

    ngx_crc32_update(&sum, (u_char *) &conf->mode, sizeof(conf->mode));
    ngx_crc32_update(&sum, (u_char *) &conf->db, sizeof(conf->db));
    ngx_crc32_update(&sum, conf->master.data, conf->master.len);

    for (i = 0; i < conf->servers->nelts; i++) {

        /* a path of a socket has no host */

        host = servers[i]->host.len ? &servers[i]->host
                                    : &servers[i]->addrs[0].name;

        ngx_crc32_update(&sum, host->data, host->len);
        ngx_crc32_update(&sum, (u_char *) &servers[i]->port,
                         sizeof(in_port_t));
    }

    ngx_crc32_final(sum);

    return sum;
}
