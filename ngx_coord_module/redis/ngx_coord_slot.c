
/*
 * Copyright (C) ngx_coord_module contributors
 */


#include "ngx_coord_slot.h"


static uint16_t ngx_coord_crc16(u_char *p, size_t len);
static ngx_int_t ngx_coord_slot_meta(ngx_coord_resp_value_t *v,
    ngx_coord_slot_node_t *node);
static ngx_int_t ngx_coord_slot_host(ngx_coord_resp_value_t *v,
    ngx_str_t *host);


/* CRC-16/XMODEM: polynomial 0x1021, by nibbles */

static uint16_t
ngx_coord_crc16(u_char *p, size_t len)
{
    uint16_t  crc;

    static const uint16_t  table[16] = {
        0x0000, 0x1021, 0x2042, 0x3063, 0x4084, 0x50a5, 0x60c6, 0x70e7,
        0x8108, 0x9129, 0xa14a, 0xb16b, 0xc18c, 0xd1ad, 0xe1ce, 0xf1ef
    };

    for (crc = 0; len--; p++) {
        crc = (uint16_t) (crc << 4) ^ table[(crc >> 12) ^ (*p >> 4)];
        crc = (uint16_t) (crc << 4) ^ table[(crc >> 12) ^ (*p & 0x0f)];
    }

    return crc;
}


ngx_uint_t
ngx_coord_slot(ngx_str_t *key)
{
    u_char  *p, *open, *last;

    last = key->data + key->len;
    open = NULL;

    for (p = key->data; p < last; p++) {

        if (open == NULL) {

            if (*p == '{') {
                open = p + 1;
            }

            continue;
        }

        if (*p == '}') {

            if (p == open) {
                break;
            }

            return ngx_coord_crc16(open, p - open) % NGX_COORD_SLOTS;
        }
    }

    return ngx_coord_crc16(key->data, key->len) % NGX_COORD_SLOTS;
}


ngx_int_t
ngx_coord_slots_check(ngx_coord_resp_value_t *reply)
{
    u_char                   seen[NGX_COORD_SLOTS / 8];
    ngx_int_t                i;
    ngx_uint_t               n, slot;
    ngx_coord_slot_node_t    node;
    ngx_coord_slot_range_t   range;
    ngx_coord_resp_value_t  *v, *e;

    if (reply->type != NGX_COORD_RESP_ARRAY) {
        return NGX_ERROR;
    }

    if (reply->integer == 0) {
        return NGX_DECLINED;
    }

    ngx_memzero(seen, sizeof(seen));

    v = reply + 1;

    for (i = 0; i < reply->integer; i++, v += v->next) {

        if (ngx_coord_slot_range(v, &range) != NGX_OK) {
            return NGX_ERROR;
        }

        for (slot = range.first; slot <= range.last; slot++) {

            if (seen[slot / 8] & (1 << (slot % 8))) {
                return NGX_ERROR;
            }

            seen[slot / 8] |= (u_char) (1 << (slot % 8));
        }

        e = range.master;

        for (n = 0; n < range.nnodes; n++, e += e->next) {
            if (ngx_coord_slot_node(e, &node) != NGX_OK) {
                return NGX_ERROR;
            }
        }
    }

    return NGX_OK;
}


ngx_int_t
ngx_coord_slot_range(ngx_coord_resp_value_t *v, ngx_coord_slot_range_t *range)
{
    int64_t                  first, last;
    ngx_coord_resp_value_t  *a, *b;

    if (v->type != NGX_COORD_RESP_ARRAY || v->integer < 3) {
        return NGX_ERROR;
    }

    a = ngx_coord_resp_element(v, 0);
    b = ngx_coord_resp_element(v, 1);

    if (ngx_coord_resp_integer(a, &first) != NGX_OK
        || ngx_coord_resp_integer(b, &last) != NGX_OK
        || first < 0 || last < first || last >= NGX_COORD_SLOTS)
    {
        return NGX_ERROR;
    }

    range->first = first;
    range->last = last;
    range->nnodes = v->integer - 2;
    range->master = ngx_coord_resp_element(v, 2);

    return NGX_OK;
}


ngx_int_t
ngx_coord_slot_node(ngx_coord_resp_value_t *v, ngx_coord_slot_node_t *node)
{
    int64_t                  port;
    ngx_coord_resp_value_t  *e;

    ngx_memzero(node, sizeof(ngx_coord_slot_node_t));

    if (v->type != NGX_COORD_RESP_ARRAY || v->integer < 2) {
        return NGX_ERROR;
    }

    if (ngx_coord_slot_host(ngx_coord_resp_element(v, 0), &node->host)
        != NGX_OK)
    {
        return NGX_ERROR;
    }

    if (ngx_coord_resp_integer(ngx_coord_resp_element(v, 1), &port) != NGX_OK
        || port < 1 || port > 65535)
    {
        return NGX_ERROR;
    }

    node->port = (in_port_t) port;

    e = ngx_coord_resp_element(v, 3);

    return e ? ngx_coord_slot_meta(e, node) : NGX_OK;
}


/* pairs of a name and a value, or what somebody will think of one day */

static ngx_int_t
ngx_coord_slot_meta(ngx_coord_resp_value_t *v, ngx_coord_slot_node_t *node)
{
    ngx_int_t                i;
    ngx_str_t                name, *value;
    ngx_coord_resp_value_t  *e;

    /* looked for element by element: none has so many */

    if (v->type != NGX_COORD_RESP_ARRAY || v->integer > 64) {
        return NGX_OK;
    }

    for (i = 0; i + 1 < v->integer; i += 2) {
        e = ngx_coord_resp_element(v, i);

        if (ngx_coord_resp_string(e, &name) != NGX_OK) {
            continue;
        }

        if (name.len == 2 && ngx_memcmp(name.data, "ip", 2) == 0) {
            value = &node->ip;

        } else if (name.len == 8 && ngx_memcmp(name.data, "hostname", 8) == 0)
        {
            value = &node->hostname;

        } else {
            continue;
        }

        e = ngx_coord_resp_element(v, i + 1);

        if (ngx_coord_slot_host(e, value) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_coord_slot_host(ngx_coord_resp_value_t *v, ngx_str_t *host)
{
    ngx_int_t  rc;

    rc = ngx_coord_resp_string(v, host);

    if (rc == NGX_DECLINED) {
        ngx_str_null(host);
        return NGX_OK;
    }

    if (rc != NGX_OK) {
        return NGX_ERROR;
    }

    if (host->len == 1 && host->data[0] == '?') {
        host->len = 0;
    }

    return ngx_coord_slot_host_good(host) ? NGX_OK : NGX_ERROR;
}


ngx_uint_t
ngx_coord_slot_host_good(ngx_str_t *host)
{
    size_t  i;
    u_char  ch, c;

    if (host->len > NGX_COORD_SLOT_HOST_LEN) {
        return 0;
    }

    for (i = 0; i < host->len; i++) {
        ch = host->data[i];
        c = ch | 0x20;

        if ((c < 'a' || c > 'z')
            && (ch < '0' || ch > '9')
            && ch != '.' && ch != '-' && ch != ':' && ch != '_' && ch != '%')
        {
            return 0;
        }
    }

    return 1;
}


/* MOVED 3999 127.0.0.1:6381 */

ngx_int_t
ngx_coord_slot_moved(ngx_str_t *text, ngx_coord_slot_moved_t *moved)
{
    u_char     *p, *last, *colon;
    ngx_int_t   n;

    ngx_memzero(moved, sizeof(ngx_coord_slot_moved_t));

    p = text->data;
    last = p + text->len;

    if (text->len > 6 && ngx_memcmp(p, "MOVED ", 6) == 0) {
        p += 6;

    } else if (text->len > 4 && ngx_memcmp(p, "ASK ", 4) == 0) {
        moved->ask = 1;
        p += 4;

    } else {
        return NGX_DECLINED;
    }

    moved->node.host.data = ngx_strlchr(p, last, ' ');

    if (moved->node.host.data == NULL) {
        return NGX_DECLINED;
    }

    n = ngx_atoi(p, moved->node.host.data - p);

    if (n < 0 || n >= NGX_COORD_SLOTS) {
        return NGX_DECLINED;
    }

    moved->slot = n;
    p = ++moved->node.host.data;

    for (colon = NULL; p < last; p++) {
        if (*p == ':') {
            colon = p;
        }
    }

    if (colon == NULL) {
        return NGX_DECLINED;
    }

    n = ngx_atoi(colon + 1, last - colon - 1);

    if (n < 1 || n > 65535) {
        return NGX_DECLINED;
    }

    moved->node.port = (in_port_t) n;
    moved->node.host.len = colon - moved->node.host.data;

    if (moved->node.host.len == 1 && moved->node.host.data[0] == '?') {
        moved->node.host.len = 0;
    }

    return ngx_coord_slot_host_good(&moved->node.host) ? NGX_OK : NGX_DECLINED;
}
