
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * What an origin says of its response to this cache: in X-Accel-Expires, which
 * is for nginx, in CDN-Cache-Control, the field for caches that stand before an
 * origin (RFC 9213), or else in Cache-Control.
 */


#include "ngx_http_coord_cache.h"
#include "ngx_coord_sf.h"


typedef enum {
    NGX_HTTP_COORD_CACHE_FLAG = 0,
    NGX_HTTP_COORD_CACHE_SECONDS,
    NGX_HTTP_COORD_CACHE_FIELDS              /* or none: as a flag */
} ngx_http_coord_cache_argument_e;


typedef struct {
    ngx_str_t                  name;
    ngx_http_coord_cache_argument_e   argument;
    size_t                     offset;       /* in the policy */
} ngx_http_coord_cache_directive_t;


static void ngx_http_coord_cache_accel(ngx_http_request_t *r,
    ngx_http_coord_cache_policy_t *policy);
static ngx_int_t ngx_http_coord_cache_general(ngx_http_request_t *r,
    ngx_http_coord_cache_policy_t *policy);
static ngx_int_t ngx_http_coord_cache_targeted(ngx_http_request_t *r,
    ngx_str_t *field);
static ngx_int_t ngx_http_coord_cache_dictionary(ngx_str_t *field,
    ngx_http_coord_cache_policy_t *policy);
static ngx_int_t ngx_http_coord_cache_typed(ngx_coord_sf_t *member,
    ngx_http_coord_cache_policy_t *policy);
static void ngx_http_coord_cache_control(ngx_list_t *headers,
    ngx_http_coord_cache_policy_t *policy);
static void ngx_http_coord_cache_told(ngx_str_t *name, ngx_str_t *value,
    ngx_http_coord_cache_policy_t *policy);
static const ngx_http_coord_cache_directive_t *
    ngx_http_coord_cache_known(ngx_str_t *name);
static ngx_uint_t ngx_http_coord_cache_withhold(ngx_str_t *names,
    ngx_http_coord_cache_policy_t *policy);
static void ngx_http_coord_cache_silent(ngx_http_coord_cache_policy_t *policy);
static ngx_uint_t ngx_http_coord_cache_same_name(const ngx_str_t *one,
    const ngx_str_t *other);


#define ngx_http_coord_cache_flag(name, member)                               \
    { ngx_string(name), NGX_HTTP_COORD_CACHE_FLAG,                            \
      offsetof(ngx_http_coord_cache_policy_t, member) }

#define ngx_http_coord_cache_time(name, member)                               \
    { ngx_string(name), NGX_HTTP_COORD_CACHE_SECONDS,                         \
      offsetof(ngx_http_coord_cache_policy_t, member) }

#define ngx_http_coord_cache_names(name, member)                              \
    { ngx_string(name), NGX_HTTP_COORD_CACHE_FIELDS,                          \
      offsetof(ngx_http_coord_cache_policy_t, member) }


static const ngx_http_coord_cache_directive_t
    ngx_http_coord_cache_directives[] =
{
    ngx_http_coord_cache_time("max-age", max_age),
    ngx_http_coord_cache_time("s-maxage", s_maxage),
    ngx_http_coord_cache_time("stale-while-revalidate", stale_while),
    ngx_http_coord_cache_time("stale-if-error", stale_if_error),
    ngx_http_coord_cache_flag("no-store", no_store),
    ngx_http_coord_cache_names("no-cache", no_cache),
    ngx_http_coord_cache_names("private", private),
    ngx_http_coord_cache_flag("public", public),
    ngx_http_coord_cache_flag("must-revalidate", must_revalidate),
    ngx_http_coord_cache_flag("proxy-revalidate", proxy_revalidate),
    { ngx_null_string, 0, 0 }
};


/* of one transfer, or one client */

static const ngx_str_t  ngx_http_coord_cache_hidden[] = {
    ngx_string("age"),
    ngx_string("set-cookie"),
    ngx_string("server"),
    ngx_null_string
};


/* without them the rest is another response, or is for others */

static const ngx_str_t  ngx_http_coord_cache_needed[] = {
    ngx_string("content-encoding"),
    ngx_string("content-type"),
    ngx_string("vary"),
    ngx_null_string
};


ngx_int_t
ngx_http_coord_cache_policy(ngx_http_request_t *r,
    ngx_http_coord_cache_policy_t *policy)
{
    ngx_uint_t  ignored;

    /* as the directives proxy_ignore_headers and the like want it */

    ignored = ngx_http_coord_capture_live(r) ? r->upstream->conf->ignore_headers
                                             : 0;

    ngx_http_coord_cache_silent(policy);

    if (!(ignored & NGX_HTTP_UPSTREAM_IGN_CACHE_CONTROL)
        && ngx_http_coord_cache_general(r, policy) != NGX_OK)
    {
        return NGX_ERROR;
    }

    policy->ignored = ignored;

    if (ngx_http_coord_capture_live(r)
        && !(ignored & NGX_HTTP_UPSTREAM_IGN_XA_EXPIRES))
    {
        ngx_http_coord_cache_accel(r, policy);
    }

    return NGX_OK;
}


/*
 * X-Accel-Expires: seconds, or after "@" a time; 0: it is not to be kept.  Of
 * other directives only those that tell what is stale are left.
 */

static void
ngx_http_coord_cache_accel(ngx_http_request_t *r,
    ngx_http_coord_cache_policy_t *policy)
{
    time_t                          n, now;
    ngx_str_t                      *line, value;
    ngx_uint_t                      i, at;
    ngx_http_coord_cache_policy_t   told;

    i = 0;
    line = ngx_http_coord_field_line(&r->upstream->headers_in.headers,
                                     "X-Accel-Expires", &i);

    if (line == NULL || line->len == 0) {
        return;
    }

    value = *line;
    at = (value.data[0] == '@');

    n = ngx_atotm(value.data + at, value.len - at);

    if (n == NGX_ERROR) {
        return;
    }

    now = at ? ngx_time() : 0;
    told = *policy;

    ngx_http_coord_cache_silent(policy);

    policy->stale_while = told.stale_while;
    policy->stale_if_error = told.stale_if_error;
    policy->ignored = told.ignored;
    policy->targeted = 1;
    policy->accel = 1;
    policy->no_store = (n == 0);
    policy->max_age = ngx_min(ngx_max(n - now, 0), NGX_HTTP_COORD_CACHE_YEAR);
}


static ngx_int_t
ngx_http_coord_cache_general(ngx_http_request_t *r,
    ngx_http_coord_cache_policy_t *policy)
{
    ngx_str_t  field;

    if (ngx_http_coord_cache_targeted(r, &field) != NGX_OK) {
        return NGX_ERROR;
    }

    if (ngx_http_coord_cache_dictionary(&field, policy) == NGX_OK) {
        policy->targeted = 1;
        return NGX_OK;
    }

    ngx_http_coord_cache_silent(policy);
    ngx_http_coord_cache_control(&r->headers_out.headers, policy);

    return NGX_OK;
}


static void
ngx_http_coord_cache_silent(ngx_http_coord_cache_policy_t *policy)
{
    ngx_memzero(policy, sizeof(ngx_http_coord_cache_policy_t));

    policy->max_age = -1;
    policy->s_maxage = -1;
    policy->stale_while = -1;
    policy->stale_if_error = -1;
}


/* the lines of the targeted field as one; empty: there are none */

static ngx_int_t
ngx_http_coord_cache_targeted(ngx_http_request_t *r, ngx_str_t *field)
{
    u_char      *p;
    ngx_str_t   *line;
    ngx_uint_t   i;

    ngx_str_null(field);

    for (i = 0; /* void */ ; /* void */ ) {
        line = ngx_http_coord_field_line(&r->headers_out.headers,
                                         "CDN-Cache-Control", &i);
        if (line == NULL) {
            return NGX_OK;
        }

        if (field->data == NULL) {
            *field = *line;
            continue;
        }

        p = ngx_pnalloc(r->pool, field->len + sizeof(", ") - 1 + line->len);
        if (p == NULL) {
            return NGX_ERROR;
        }

        field->len = ngx_sprintf(p, "%V, %V", field, line) - p;
        field->data = p;
    }
}


/* NGX_ERROR: it is none with at least one member, as RFC 9213, 2.1 has them */

static ngx_int_t
ngx_http_coord_cache_dictionary(ngx_str_t *field,
    ngx_http_coord_cache_policy_t *policy)
{
    ngx_int_t       rc;
    ngx_str_t       left;
    ngx_uint_t      n;
    ngx_coord_sf_t  member;

    left = *field;

    for (n = 0; /* void */ ; n++) {
        rc = ngx_coord_sf_next(&left, &member);

        if (rc == NGX_DONE) {
            return n ? NGX_OK : NGX_ERROR;
        }

        if (rc != NGX_OK
            || ngx_http_coord_cache_typed(&member, policy) != NGX_OK)
        {
            return NGX_ERROR;
        }
    }
}


/* of members with the same name the last one counts */

static ngx_int_t
ngx_http_coord_cache_typed(ngx_coord_sf_t *member,
    ngx_http_coord_cache_policy_t *policy)
{
    u_char                                  *p;
    const ngx_http_coord_cache_directive_t  *directive;

    directive = ngx_http_coord_cache_known(&member->key);

    if (directive == NULL) {
        return NGX_OK;
    }

    p = (u_char *) policy + directive->offset;

    switch (directive->argument) {

    case NGX_HTTP_COORD_CACHE_SECONDS:

        if (member->type != NGX_COORD_SF_INTEGER || member->number < 0) {
            return NGX_ERROR;
        }

        *(time_t *) p = (time_t) ngx_min(member->number,
                                         NGX_HTTP_COORD_CACHE_YEAR);
        return NGX_OK;

    case NGX_HTTP_COORD_CACHE_FIELDS:

        if (member->type == NGX_COORD_SF_STRING) {
            *(ngx_uint_t *) p |= !ngx_http_coord_cache_withhold(&member->value,
                                                                policy);
            return NGX_OK;
        }

        /* fall through */

    default: /* NGX_HTTP_COORD_CACHE_FLAG */

        if (member->type != NGX_COORD_SF_BOOLEAN || !member->number) {
            return NGX_ERROR;
        }

        *(ngx_uint_t *) p = 1;

        return NGX_OK;
    }
}


static void
ngx_http_coord_cache_control(ngx_list_t *headers,
    ngx_http_coord_cache_policy_t *policy)
{
    ngx_str_t   *line, left, name, value;
    ngx_uint_t   i;

    for (i = 0; /* void */ ; /* void */ ) {
        line = ngx_http_coord_field_line(headers, "Cache-Control", &i);

        if (line == NULL) {
            return;
        }

        left = *line;

        while (ngx_http_coord_cache_argument(&left, &name, &value) == NGX_OK) {
            ngx_http_coord_cache_told(&name, &value, policy);
        }
    }
}


/* of several with the same name the first one counts */

static void
ngx_http_coord_cache_told(ngx_str_t *name, ngx_str_t *value,
    ngx_http_coord_cache_policy_t *policy)
{
    u_char                                  *p;
    const ngx_http_coord_cache_directive_t  *directive;

    directive = ngx_http_coord_cache_known(name);

    if (directive == NULL) {
        return;
    }

    p = (u_char *) policy + directive->offset;

    switch (directive->argument) {

    case NGX_HTTP_COORD_CACHE_SECONDS:

        if (*(time_t *) p == -1) {
            *(time_t *) p = ngx_http_coord_cache_number(value);
        }

        return;

    case NGX_HTTP_COORD_CACHE_FIELDS:
        *(ngx_uint_t *) p |= !ngx_http_coord_cache_withhold(value, policy);
        return;

    default: /* NGX_HTTP_COORD_CACHE_FLAG */
        *(ngx_uint_t *) p = 1;
    }
}


/* 0 if it cannot be these fields only */

static ngx_uint_t
ngx_http_coord_cache_withhold(ngx_str_t *names,
    ngx_http_coord_cache_policy_t *policy)
{
    ngx_str_t         left, name;
    const ngx_str_t  *needed;

    if (names->len == 0
        || policy->nwithheld == NGX_HTTP_COORD_CACHE_WITHHELD)
    {
        return 0;
    }

    left = *names;

    while (ngx_http_coord_field_member(&left, &name) == NGX_OK) {
        for (needed = ngx_http_coord_cache_needed; needed->len; needed++) {

            if (ngx_http_coord_cache_same_name(needed, &name)) {
                return 0;
            }
        }
    }

    policy->withheld[policy->nwithheld++] = *names;

    return 1;
}


ngx_uint_t
ngx_http_coord_cache_withheld(ngx_http_coord_cache_policy_t *policy,
    ngx_str_t *name)
{
    ngx_str_t   left, member;
    ngx_uint_t  i;

    for (i = 0; i < policy->nwithheld; i++) {
        left = policy->withheld[i];

        while (ngx_http_coord_field_member(&left, &member) == NGX_OK) {
            if (ngx_http_coord_cache_same_name(&member, name)) {
                return 1;
            }
        }
    }

    return 0;
}


ngx_uint_t
ngx_http_coord_cache_keep(void *data, ngx_str_t *name)
{
    ngx_http_coord_cache_t *cache = data;

    const ngx_str_t  *hidden;

    for (hidden = ngx_http_coord_cache_hidden; hidden->len; hidden++) {
        if (ngx_http_coord_cache_same_name(hidden, name)) {
            return 0;
        }
    }

    return !ngx_http_coord_cache_withheld(&cache->policy, name);
}


static const ngx_http_coord_cache_directive_t *
ngx_http_coord_cache_known(ngx_str_t *name)
{
    const ngx_http_coord_cache_directive_t  *known;

    for (known = ngx_http_coord_cache_directives; known->name.len; known++) {

        if (ngx_http_coord_cache_same_name(&known->name, name)) {
            return known;
        }
    }

    return NULL;
}


static ngx_uint_t
ngx_http_coord_cache_same_name(const ngx_str_t *one, const ngx_str_t *other)
{
    return one->len == other->len
           && ngx_strncasecmp(one->data, other->data, one->len) == 0;
}
