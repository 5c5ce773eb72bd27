
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The text that a node leaves for the others:
 *
 *   coord 1 <node> <nginx> <time> <uptime> <workers> <trouble> <master>
 *   <upgrades>
 *   zone <feature> <total> <refused> <bypassed> <of the last minute: the
 *   same three> <name>
 */


#include "ngx_coord_summary.h"


#define NGX_COORD_SUMMARY_DIGITS  18         /* of a number that is read */


static ngx_int_t ngx_coord_summary_word(u_char **pos, u_char *last,
    ngx_str_t *word);
static ngx_int_t ngx_coord_summary_number(u_char **pos, u_char *last,
    uint64_t *value);
static ngx_int_t ngx_coord_summary_line(ngx_coord_summary_t *s,
    ngx_str_t *line);


u_char *
ngx_coord_summary_write(u_char *p, u_char *last, const ngx_coord_summary_t *s)
{
    return ngx_slprintf(p, last, "coord 1 %V %V %uL %uL %ui %ui %ui %ui\n",
                        &s->node, &s->nginx, s->time, s->uptime, s->workers,
                        s->trouble, s->master, s->upgrades);
}


u_char *
ngx_coord_summary_write_zone(u_char *p, u_char *last,
    const ngx_coord_summary_zone_t *zone)
{
    u_char  *end;

    end = ngx_slprintf(p, last, "zone %V %uL %uL %uL %uL %uL %uL %V\n",
                       &zone->feature, zone->total, zone->refused,
                       zone->bypassed, zone->minute, zone->minute_refused,
                       zone->minute_bypassed, &zone->name);

    /* ngx_slprintf() cuts; what is full may be cut */

    return end == last ? p : end;
}


ngx_int_t
ngx_coord_summary_read(ngx_str_t *text, ngx_coord_summary_t *s)
{
    u_char     *pos, *last;
    uint64_t    version, workers, trouble, master, upgrades;
    ngx_str_t   line, word;

    ngx_memzero(s, sizeof(ngx_coord_summary_t));

    s->pos = text->data;
    s->last = text->data + text->len;

    if (ngx_coord_summary_line(s, &line) != NGX_OK) {
        return NGX_ERROR;
    }

    pos = line.data;
    last = line.data + line.len;

    if (ngx_coord_summary_word(&pos, last, &word) != NGX_OK
        || word.len != 5
        || ngx_memcmp(word.data, "coord", 5) != 0
        || ngx_coord_summary_number(&pos, last, &version) != NGX_OK
        || version != 1
        || ngx_coord_summary_word(&pos, last, &s->node) != NGX_OK
        || ngx_coord_summary_word(&pos, last, &s->nginx) != NGX_OK
        || ngx_coord_summary_number(&pos, last, &s->time) != NGX_OK
        || ngx_coord_summary_number(&pos, last, &s->uptime) != NGX_OK
        || ngx_coord_summary_number(&pos, last, &workers) != NGX_OK
        || ngx_coord_summary_number(&pos, last, &trouble) != NGX_OK)
    {
        return NGX_ERROR;
    }

    s->workers = (ngx_uint_t) workers;
    s->trouble = (ngx_uint_t) trouble;

    /* an earlier version does not tell them */

    if (ngx_coord_summary_number(&pos, last, &master) == NGX_OK
        && ngx_coord_summary_number(&pos, last, &upgrades) == NGX_OK)
    {
        s->master = (ngx_uint_t) master;
        s->upgrades = (ngx_uint_t) upgrades;
    }

    return NGX_OK;
}


ngx_int_t
ngx_coord_summary_zone(ngx_coord_summary_t *s, ngx_coord_summary_zone_t *zone)
{
    u_char     *pos, *last;
    ngx_str_t   line, word;

    do {
        if (ngx_coord_summary_line(s, &line) != NGX_OK) {
            return NGX_DONE;
        }

        pos = line.data;
        last = line.data + line.len;

        if (ngx_coord_summary_word(&pos, last, &word) != NGX_OK) {
            return NGX_ERROR;
        }

    } while (word.len != 4 || ngx_memcmp(word.data, "zone", 4) != 0);

    if (ngx_coord_summary_word(&pos, last, &zone->feature) != NGX_OK
        || ngx_coord_summary_number(&pos, last, &zone->total) != NGX_OK
        || ngx_coord_summary_number(&pos, last, &zone->refused) != NGX_OK
        || ngx_coord_summary_number(&pos, last, &zone->bypassed) != NGX_OK
        || ngx_coord_summary_number(&pos, last, &zone->minute) != NGX_OK
        || ngx_coord_summary_number(&pos, last, &zone->minute_refused)
           != NGX_OK
        || ngx_coord_summary_number(&pos, last, &zone->minute_bypassed)
           != NGX_OK
        || pos >= last)
    {
        return NGX_ERROR;
    }

    /* the name is the rest: it may hold spaces */

    zone->name.data = pos;
    zone->name.len = last - pos;

    return NGX_OK;
}


/* the next line, of printable characters only; NGX_DONE: there is none */

static ngx_int_t
ngx_coord_summary_line(ngx_coord_summary_t *s, ngx_str_t *line)
{
    u_char  *p;

    if (s->pos >= s->last) {
        return NGX_DONE;
    }

    for (p = s->pos; p < s->last && *p != LF; p++) {

        if (*p < ' ' || *p > '~') {
            s->pos = s->last;
            return NGX_DONE;
        }
    }

    line->data = s->pos;
    line->len = p - s->pos;

    s->pos = ngx_min(p + 1, s->last);

    return NGX_OK;
}


static ngx_int_t
ngx_coord_summary_word(u_char **pos, u_char *last, ngx_str_t *word)
{
    u_char  *p;

    for (p = *pos; p < last && *p != ' '; p++) {
        /* void */
    }

    word->data = *pos;
    word->len = p - *pos;

    *pos = ngx_min(p + 1, last);

    return word->len && word->len <= NGX_COORD_SUMMARY_WORD
           ? NGX_OK : NGX_ERROR;
}


static ngx_int_t
ngx_coord_summary_number(u_char **pos, u_char *last, uint64_t *value)
{
    ngx_uint_t  i;
    ngx_str_t   word;

    if (ngx_coord_summary_word(pos, last, &word) != NGX_OK
        || word.len > NGX_COORD_SUMMARY_DIGITS)
    {
        return NGX_ERROR;
    }

    *value = 0;

    for (i = 0; i < word.len; i++) {

        if (word.data[i] < '0' || word.data[i] > '9') {
            return NGX_ERROR;
        }

        *value = *value * 10 + (word.data[i] - '0');
    }

    return NGX_OK;
}
