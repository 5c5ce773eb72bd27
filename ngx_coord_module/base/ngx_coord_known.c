
/*
 * Copyright (C) ngx_coord_module contributors
 */


#include "ngx_coord_known.h"


static uint32_t ngx_coord_known_sum(uint32_t about, ngx_str_t *text);


void
ngx_coord_known_put(ngx_coord_known_t *known, uint32_t about, ngx_str_t *text)
{
    u_char     buf[NGX_COORD_KNOWN_SIZE];
    ngx_str_t  stands;

    if (known == NULL || text->len == 0 || text->len > NGX_COORD_KNOWN_SIZE) {
        return;
    }

    if (ngx_coord_known_get(known, about, buf, &stands) == NGX_OK
        && stands.len == text->len
        && ngx_memcmp(stands.data, text->data, text->len) == 0)
    {
        return;
    }

    known->len = text->len;
    known->sum = ngx_coord_known_sum(about, text);
    ngx_memcpy(known->text, text->data, text->len);
}


ngx_int_t
ngx_coord_known_get(ngx_coord_known_t *known, uint32_t about, u_char *buf,
    ngx_str_t *text)
{
    uint32_t  sum;

    if (known == NULL) {
        return NGX_DECLINED;
    }

    /* each is read once: others may be writing */

    sum = *(volatile uint32_t *) &known->sum;

    text->data = buf;
    text->len = *(volatile uint32_t *) &known->len;

    if (text->len == 0 || text->len > NGX_COORD_KNOWN_SIZE) {
        return NGX_DECLINED;
    }

    ngx_memcpy(buf, known->text, text->len);

    return sum == ngx_coord_known_sum(about, text) ? NGX_OK : NGX_DECLINED;
}


static uint32_t
ngx_coord_known_sum(uint32_t about, ngx_str_t *text)
{
    uint32_t  sum;

    ngx_crc32_init(sum);
    ngx_crc32_update(&sum, (u_char *) &about, sizeof(uint32_t));
    ngx_crc32_update(&sum, text->data, text->len);
    ngx_crc32_final(sum);

    return sum;
}
