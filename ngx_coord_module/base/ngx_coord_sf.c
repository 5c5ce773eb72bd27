
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Structured fields, read as RFC 9651, 4.2 does: what is not exactly one is
 * none.  Each function takes what it knows from the beginning of the text, or
 * returns NGX_ERROR.
 */


#include "ngx_coord_sf.h"


#define NGX_COORD_SF_DIGITS    15            /* of an integer */
#define NGX_COORD_SF_WHOLE     12            /* of a decimal, before the dot */
#define NGX_COORD_SF_FRACTION  3


/* what may come next of a character of UTF-8 */
typedef struct {
    ngx_uint_t                 left;         /* bytes */
    u_char                     low;
    u_char                     high;
} ngx_coord_sf_utf8_t;


static ngx_int_t ngx_coord_sf_key(ngx_str_t *text, ngx_str_t *key);
static ngx_int_t ngx_coord_sf_parameters(ngx_str_t *text);
static ngx_int_t ngx_coord_sf_list(ngx_str_t *text, ngx_coord_sf_t *item);
static ngx_int_t ngx_coord_sf_item(ngx_str_t *text, ngx_coord_sf_t *item);
static ngx_int_t ngx_coord_sf_number(ngx_str_t *text, ngx_coord_sf_t *item);
static ngx_int_t ngx_coord_sf_string(ngx_str_t *text, ngx_coord_sf_t *item);
static ngx_int_t ngx_coord_sf_token(ngx_str_t *text, ngx_coord_sf_t *item);
static ngx_int_t ngx_coord_sf_bytes(ngx_str_t *text, ngx_coord_sf_t *item);
static ngx_int_t ngx_coord_sf_marked(ngx_str_t *text, ngx_coord_sf_t *item);
static ngx_int_t ngx_coord_sf_display(ngx_str_t *text, ngx_coord_sf_t *item);
static ngx_int_t ngx_coord_sf_utf8(ngx_coord_sf_utf8_t *utf8, u_char c);
static u_char ngx_coord_sf_octet(const u_char *p);
static ngx_uint_t ngx_coord_sf_take(ngx_str_t *text, u_char c);
static ngx_uint_t ngx_coord_sf_skip(ngx_str_t *text, const char *chars);
static ngx_uint_t ngx_coord_sf_among(u_char c, const char *chars);
static ngx_uint_t ngx_coord_sf_lower(u_char c);
static ngx_uint_t ngx_coord_sf_alpha(u_char c);
static ngx_uint_t ngx_coord_sf_digit(u_char c);


ngx_int_t
ngx_coord_sf_next(ngx_str_t *text, ngx_coord_sf_t *member)
{
    ngx_int_t  rc;

    (void) ngx_coord_sf_skip(text, " ");

    if (text->len == 0) {
        return NGX_DONE;
    }

    if (ngx_coord_sf_key(text, &member->key) != NGX_OK) {
        return NGX_ERROR;
    }

    if (ngx_coord_sf_take(text, '=')) {
        rc = (text->len && text->data[0] == '(')
             ? ngx_coord_sf_list(text, member)
             : ngx_coord_sf_item(text, member);

        if (rc != NGX_OK) {
            return NGX_ERROR;
        }

    } else {
        member->type = NGX_COORD_SF_BOOLEAN;
        member->number = 1;
    }

    if (ngx_coord_sf_parameters(text) != NGX_OK) {
        return NGX_ERROR;
    }

    (void) ngx_coord_sf_skip(text, " \t");

    if (text->len == 0) {
        return NGX_OK;
    }

    /* another one has to be behind a comma */

    if (!ngx_coord_sf_take(text, ',')) {
        return NGX_ERROR;
    }

    (void) ngx_coord_sf_skip(text, " \t");

    return text->len ? NGX_OK : NGX_ERROR;
}


static ngx_int_t
ngx_coord_sf_key(ngx_str_t *text, ngx_str_t *key)
{
    u_char  *p, *last;

    p = text->data;
    last = p + text->len;

    if (p == last || !(ngx_coord_sf_lower(*p) || *p == '*')) {
        return NGX_ERROR;
    }

    while (p < last
           && (ngx_coord_sf_lower(*p)
               || ngx_coord_sf_digit(*p)
               || ngx_coord_sf_among(*p, "_-.*")))
    {
        p++;
    }

    key->data = text->data;
    key->len = p - text->data;

    text->data = p;
    text->len = last - p;

    return NGX_OK;
}


static ngx_int_t
ngx_coord_sf_parameters(ngx_str_t *text)
{
    ngx_str_t       key;
    ngx_coord_sf_t  item;

    while (ngx_coord_sf_take(text, ';')) {
        (void) ngx_coord_sf_skip(text, " ");

        if (ngx_coord_sf_key(text, &key) != NGX_OK) {
            return NGX_ERROR;
        }

        if (ngx_coord_sf_take(text, '=')
            && ngx_coord_sf_item(text, &item) != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


/* its items are not kept */

static ngx_int_t
ngx_coord_sf_list(ngx_str_t *text, ngx_coord_sf_t *item)
{
    ngx_uint_t  blank;

    (void) ngx_coord_sf_take(text, '(');

    for (blank = 1; /* void */ ; /* void */ ) {
        blank |= ngx_coord_sf_skip(text, " ");

        if (ngx_coord_sf_take(text, ')')) {
            item->type = NGX_COORD_SF_LIST;
            return NGX_OK;
        }

        if (!blank
            || ngx_coord_sf_item(text, item) != NGX_OK
            || ngx_coord_sf_parameters(text) != NGX_OK)
        {
            return NGX_ERROR;
        }

        blank = 0;
    }
}


static ngx_int_t
ngx_coord_sf_item(ngx_str_t *text, ngx_coord_sf_t *item)
{
    u_char  c;

    if (text->len == 0) {
        return NGX_ERROR;
    }

    c = text->data[0];

    if (c == '-' || ngx_coord_sf_digit(c)) {
        return ngx_coord_sf_number(text, item);
    }

    if (c == '"') {
        return ngx_coord_sf_string(text, item);
    }

    if (c == '*' || ngx_coord_sf_alpha(c)) {
        return ngx_coord_sf_token(text, item);
    }

    if (c == ':') {
        return ngx_coord_sf_bytes(text, item);
    }

    return ngx_coord_sf_marked(text, item);
}


static ngx_int_t
ngx_coord_sf_number(ngx_str_t *text, ngx_coord_sf_t *item)
{
    int64_t      sign;
    ngx_uint_t   whole, fraction;

    sign = ngx_coord_sf_take(text, '-') ? -1 : 1;

    item->type = NGX_COORD_SF_INTEGER;
    item->number = 0;

    for (whole = 0; text->len && ngx_coord_sf_digit(text->data[0]); whole++) {

        if (whole == NGX_COORD_SF_DIGITS) {
            return NGX_ERROR;
        }

        item->number = item->number * 10 + (text->data[0] - '0');

        text->data++;
        text->len--;
    }

    item->number *= sign;

    if (whole == 0) {
        return NGX_ERROR;
    }

    if (!ngx_coord_sf_take(text, '.')) {
        return NGX_OK;
    }

    for (fraction = 0; text->len && ngx_coord_sf_digit(text->data[0]);
         fraction++)
    {
        text->data++;
        text->len--;
    }

    item->type = NGX_COORD_SF_DECIMAL;

    return (whole <= NGX_COORD_SF_WHOLE
            && fraction
            && fraction <= NGX_COORD_SF_FRACTION) ? NGX_OK : NGX_ERROR;
}


static ngx_int_t
ngx_coord_sf_string(ngx_str_t *text, ngx_coord_sf_t *item)
{
    u_char  *p, *last;

    p = text->data + 1;
    last = text->data + text->len;

    item->type = NGX_COORD_SF_STRING;
    item->value.data = p;

    for ( /* void */ ; p < last; p++) {

        if (*p == '"') {
            item->value.len = p - item->value.data;

            text->data = p + 1;
            text->len = last - text->data;

            return NGX_OK;
        }

        if (*p == '\\') {
            p++;

            if (p == last || !ngx_coord_sf_among(*p, "\"\\")) {
                return NGX_ERROR;
            }
        }

        if (*p < 0x20 || *p > 0x7e) {
            return NGX_ERROR;
        }
    }

    return NGX_ERROR;
}


static ngx_int_t
ngx_coord_sf_token(ngx_str_t *text, ngx_coord_sf_t *item)
{
    u_char  *p, *last;

    p = text->data;
    last = p + text->len;

    while (p < last
           && (ngx_coord_sf_alpha(*p)
               || ngx_coord_sf_digit(*p)
               || ngx_coord_sf_among(*p, "!#$%&'*+-.^_`|~:/")))
    {
        p++;
    }

    item->type = NGX_COORD_SF_TOKEN;
    item->value.data = text->data;
    item->value.len = p - text->data;

    text->data = p;
    text->len = last - p;

    return NGX_OK;
}


/* base64, which need not be padded (4.2.7) */

static ngx_int_t
ngx_coord_sf_bytes(ngx_str_t *text, ngx_coord_sf_t *item)
{
    ngx_uint_t  n;

    item->type = NGX_COORD_SF_BYTES;

    (void) ngx_coord_sf_take(text, ':');

    for (n = 0;
         text->len
         && (ngx_coord_sf_alpha(text->data[0])
             || ngx_coord_sf_digit(text->data[0])
             || ngx_coord_sf_among(text->data[0], "+/"));
         n++)
    {
        text->data++;
        text->len--;
    }

    if (n % 4 == 1) {
        return NGX_ERROR;
    }

    while (n % 4 && ngx_coord_sf_take(text, '=')) {
        n++;
    }

    return ngx_coord_sf_take(text, ':') ? NGX_OK : NGX_ERROR;
}


/* what a character in front tells: a boolean, a date, a display string */

static ngx_int_t
ngx_coord_sf_marked(ngx_str_t *text, ngx_coord_sf_t *item)
{
    if (ngx_coord_sf_take(text, '?')) {
        item->type = NGX_COORD_SF_BOOLEAN;
        item->number = ngx_coord_sf_take(text, '1');

        return (item->number || ngx_coord_sf_take(text, '0')) ? NGX_OK
                                                              : NGX_ERROR;
    }

    if (ngx_coord_sf_take(text, '@')) {

        if (ngx_coord_sf_number(text, item) != NGX_OK
            || item->type != NGX_COORD_SF_INTEGER)
        {
            return NGX_ERROR;
        }

        item->type = NGX_COORD_SF_DATE;

        return NGX_OK;
    }

    if (ngx_coord_sf_take(text, '%') && ngx_coord_sf_take(text, '"')) {
        return ngx_coord_sf_display(text, item);
    }

    return NGX_ERROR;
}


static ngx_int_t
ngx_coord_sf_display(ngx_str_t *text, ngx_coord_sf_t *item)
{
    u_char               *p, *last, c;
    ngx_coord_sf_utf8_t   utf8;

    p = text->data;
    last = p + text->len;

    item->type = NGX_COORD_SF_DISPLAY;
    utf8.left = 0;

    for ( /* void */ ; p < last && *p != '"'; p++) {
        c = *p;

        if (c < 0x20 || c > 0x7e) {
            return NGX_ERROR;
        }

        if (c == '%') {

            if (last - p < 3
                || !ngx_coord_sf_among(p[1], "0123456789abcdef")
                || !ngx_coord_sf_among(p[2], "0123456789abcdef"))
            {
                return NGX_ERROR;
            }

            c = ngx_coord_sf_octet(p);
            p += 2;
        }

        if (ngx_coord_sf_utf8(&utf8, c) != NGX_OK) {
            return NGX_ERROR;
        }
    }

    text->data = p;
    text->len = last - p;

    return (utf8.left == 0 && ngx_coord_sf_take(text, '"')) ? NGX_OK
                                                            : NGX_ERROR;
}


/* NGX_ERROR: this byte cannot come next (RFC 3629, 4) */

static ngx_int_t
ngx_coord_sf_utf8(ngx_coord_sf_utf8_t *utf8, u_char c)
{
    if (utf8->left) {

        if (c < utf8->low || c > utf8->high) {
            return NGX_ERROR;
        }

        utf8->left--;
        utf8->low = 0x80;
        utf8->high = 0xbf;

        return NGX_OK;
    }

    if (c < 0x80) {
        return NGX_OK;
    }

    if (c < 0xc2 || c > 0xf4) {
        return NGX_ERROR;
    }

    utf8->left = 1 + (c >= 0xe0) + (c >= 0xf0);

    /* nothing that could be shorter, no surrogates, nothing above U+10FFFF */

    utf8->low = (c == 0xe0) ? 0xa0 : (c == 0xf0) ? 0x90 : 0x80;
    utf8->high = (c == 0xed) ? 0x9f : (c == 0xf4) ? 0x8f : 0xbf;

    return NGX_OK;
}


/* of "%" and two hexadecimal digits */

static u_char
ngx_coord_sf_octet(const u_char *p)
{
    ngx_uint_t  i, n;

    for (n = 0, i = 1; i <= 2; i++) {
        n = n * 16 + p[i] - (ngx_coord_sf_digit(p[i]) ? '0' : 'a' - 10);
    }

    return n;
}


/* 1 if the text began with this character, which is taken off */

static ngx_uint_t
ngx_coord_sf_take(ngx_str_t *text, u_char c)
{
    if (text->len == 0 || text->data[0] != c) {
        return 0;
    }

    text->data++;
    text->len--;

    return 1;
}


/* 1 if there was any of them */

static ngx_uint_t
ngx_coord_sf_skip(ngx_str_t *text, const char *chars)
{
    ngx_uint_t  any;

    for (any = 0; text->len && ngx_coord_sf_among(text->data[0], chars);
         any = 1)
    {
        text->data++;
        text->len--;
    }

    return any;
}


static ngx_uint_t
ngx_coord_sf_among(u_char c, const char *chars)
{
    for ( /* void */ ; *chars; chars++) {
        if (c == (u_char) *chars) {
            return 1;
        }
    }

    return 0;
}


static ngx_uint_t
ngx_coord_sf_lower(u_char c)
{
    return c >= 'a' && c <= 'z';
}


static ngx_uint_t
ngx_coord_sf_alpha(u_char c)
{
    return ngx_coord_sf_lower(c | 0x20);
}


static ngx_uint_t
ngx_coord_sf_digit(u_char c)
{
    return c >= '0' && c <= '9';
}
