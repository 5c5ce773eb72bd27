
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * What several parts of the page are made of: charts, rows, times.
 */


#include "ngx_http_coord_status.h"


static void ngx_http_coord_status_html_line(ngx_http_coord_out_t *out,
    const char *class, ngx_http_coord_status_rates_t *rates, size_t offset,
    ngx_uint_t most);


/* what it shows: decisions, refused ones, those that passed unprotected */

void
ngx_http_coord_status_html_chart(ngx_http_coord_out_t *out,
    ngx_http_coord_status_rates_t *rates, const char *path, ngx_uint_t n)
{
    ngx_uint_t  i, most;

    most = 1;

    for (i = 0; i < NGX_HTTP_COORD_STATUS_HISTORY; i++) {
        most = ngx_max(most, rates->seconds[i].all);
    }

    ngx_http_coord_out_text(out, "<span class=\"chart\" data-s=\"");
    ngx_http_coord_out_printf(out, path, n);
    ngx_http_coord_out_text(out, "\"><svg viewBox=\"0 0 59 31\" role=\"img\" "
                            "preserveAspectRatio=\"none\" aria-label="
                            "\"decisions in each second of the last minute, "
                            "refused and unprotected ones\"><polyline "
                            "class=\"base\" points=\"0,30 59,30\"/>");

    ngx_http_coord_status_html_line(out, "all", rates,
                                    offsetof(ngx_coord_second_t, all), most);
    ngx_http_coord_status_html_line(out, "no", rates,
                                    offsetof(ngx_coord_second_t, refused),
                                    most);
    ngx_http_coord_status_html_line(out, "by", rates,
                                    offsetof(ngx_coord_second_t, bypassed),
                                    most);

    ngx_http_coord_out_printf(out, "</svg><small class=\"top\">%ui</small>"
                              "<span class=\"axis\"><small>60 s ago</small>",
                              most);
    ngx_http_coord_out_text(out, "<small class=\"legend\"><i class=\"all\">"
                            "decisions</i>, <i class=\"no\">refused</i>, "
                            "<i class=\"by\">unprotected</i></small>"
                            "<small>now</small></span>"
                            "<small class=\"at\"></small></span>");
}


static void
ngx_http_coord_status_html_line(ngx_http_coord_out_t *out, const char *class,
    ngx_http_coord_status_rates_t *rates, size_t offset, ngx_uint_t most)
{
    ngx_uint_t  i, n, y, sum;

    sum = 0;

    for (i = 0; i < NGX_HTTP_COORD_STATUS_HISTORY; i++) {
        sum += *(ngx_uint_t *) ((u_char *) &rates->seconds[i] + offset);
    }

    /* no line for what has not happened, but the first one */

    ngx_http_coord_out_printf(out, "<polyline class=\"%s%s\" points=\"", class,
                              sum || offset == 0 ? "" : " rest");

    if (sum == 0) {
        ngx_http_coord_out_text(out, "0,30.0 59,30.0\"/>");
        return;
    }

    for (i = 0; i < NGX_HTTP_COORD_STATUS_HISTORY; i++) {
        n = *(ngx_uint_t *) ((u_char *) &rates->seconds[i] + offset);
        y = 300 - n * 290 / most;

        ngx_http_coord_out_printf(out, "%s%ui,%ui.%ui", i ? " " : "", i,
                                  y / 10, y % 10);
    }

    ngx_http_coord_out_text(out, "\"/>");
}


void
ngx_http_coord_status_html_lasting(ngx_http_coord_out_t *out, uint64_t seconds)
{
    if (seconds >= 2 * 86400) {
        ngx_http_coord_out_printf(out, "%uL days", seconds / 86400);

    } else if (seconds >= 2 * 3600) {
        ngx_http_coord_out_printf(out, "%uL hours", seconds / 3600);

    } else if (seconds >= 2 * 60) {
        ngx_http_coord_out_printf(out, "%uL min", seconds / 60);

    } else {
        ngx_http_coord_out_printf(out, "%uL s", seconds);
    }
}


void
ngx_http_coord_status_html_row(ngx_http_coord_out_t *out, const char *label,
    const char *path, const char *form, ngx_uint_t n, const char *fmt, ...)
{
    u_char      buf[NGX_INT64_LEN * 2], *p;
    va_list     args;
    ngx_uint_t  fold;

    va_start(args, fmt);
    p = ngx_vslprintf(buf, buf + sizeof(buf), fmt, args);
    va_end(args);

    /* a count of nothing is folded away, but a store without workers is not */

    fold = (form[0] == '\0' && ngx_strstr(path, ".up") == NULL);

    ngx_http_coord_out_printf(out, "<dt>%s</dt><dd data-f=\"%s\" %s%sdata-v=\"",
                              label, form, fold ? "data-z=\"1\" " : "",
                              fold && p - buf == 1 && buf[0] == '0'
                              ? "class=\"zero\" " : "");
    ngx_http_coord_out_printf(out, path, n);
    ngx_http_coord_out_printf(out, "\">%*s</dd>", p - buf, buf);
}
