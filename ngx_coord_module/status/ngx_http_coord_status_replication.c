
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Which server a store uses, who follows it, and who has named it.
 */


#include "ngx_http_coord_status.h"


static void ngx_http_coord_status_html_term(ngx_http_coord_out_t *out,
    const char *term, ngx_str_t *text);


void
ngx_http_coord_status_json_replication(ngx_coord_store_info_t *info,
    ngx_http_coord_out_t *out)
{
    ngx_str_t                  text;
    ngx_uint_t                 i;
    ngx_coord_info_replica_t  *replica;

    text.data = info->policy.data;
    text.len = info->policy.len;
    ngx_http_coord_json_string(out, "maxmemory_policy", &text);

    /* a server that is alone is that of the configuration */

    if (info->nreplicas || info->sentinels) {
        text.data = info->address.data;
        text.len = info->address.len;
        ngx_http_coord_json_string(out, "address", &text);
    }

    ngx_http_coord_json_open(out, "replicas", '[');

    for (i = 0; i < info->nreplicas; i++) {
        replica = &info->replicas[i];

        ngx_http_coord_json_open(out, NULL, '{');

        text.data = replica->address.data;
        text.len = replica->address.len;
        ngx_http_coord_json_string(out, "address", &text);

        ngx_http_coord_json_bool(out, "online", replica->online);
        ngx_http_coord_json_number(out, "lag_seconds", replica->lag);
        ngx_http_coord_json_number(out, "lag_bytes", replica->behind);

        ngx_http_coord_json_close(out, '}');
    }

    ngx_http_coord_json_close(out, ']');

    if (info->sentinels == 0) {
        return;
    }

    ngx_http_coord_json_open(out, "sentinel", '{');

    text.data = info->master.data;
    text.len = info->master.len;
    ngx_http_coord_json_string(out, "master", &text);

    ngx_http_coord_json_number(out, "sentinels", info->sentinels);

    text.data = info->sentinel.data;
    text.len = info->sentinel.len;
    ngx_http_coord_json_string(out, "asked", &text);

    if (info->switched) {
        ngx_http_coord_json_number(out, "last_failover", info->switched);

    } else {
        ngx_http_coord_json_null(out, "last_failover");
    }

    ngx_http_coord_json_close(out, '}');
}


void
ngx_http_coord_status_html_replication(ngx_coord_store_info_t *info,
    ngx_http_coord_out_t *out)
{
    u_char                     buf[NGX_COORD_INFO_ADDR + 64], *last;
    ngx_str_t                  text;
    ngx_uint_t                 i;
    ngx_coord_info_replica_t  *replica;

    text.data = info->address.data;
    text.len = info->address.len;

    if (info->nreplicas || info->sentinels) {
        ngx_http_coord_status_html_term(out, "server", &text);
    }

    text.data = buf;

    for (i = 0; i < info->nreplicas; i++) {
        replica = &info->replicas[i];

        last = ngx_snprintf(buf, sizeof(buf), "%*s%s, %uL s behind",
                            replica->address.len, replica->address.data,
                            replica->online ? "" : " (not online)",
                            replica->lag);
        text.len = last - buf;

        ngx_http_coord_status_html_term(out, "replica", &text);
    }

    if (info->sentinels) {
        text.data = info->sentinel.data;
        text.len = info->sentinel.len;

        ngx_http_coord_status_html_term(out, "sentinel asked", &text);
    }
}


static void
ngx_http_coord_status_html_term(ngx_http_coord_out_t *out, const char *term,
    ngx_str_t *text)
{
    ngx_http_coord_out_printf(out, "<dt>%s</dt><dd>", term);
    ngx_http_coord_out_html(out, text);
    ngx_http_coord_out_text(out, "</dd>");
}
