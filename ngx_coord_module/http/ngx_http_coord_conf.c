
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Parts of directives that several features share: zones, stores, failure
 * policy.
 */


#include "ngx_http_coord.h"
#include "ngx_http_coord_conf.h"
#include "ngx_coord_deny.h"
#include "ngx_coord_wake.h"
#include "ngx_coord_parse.h"


/* buckets that a variable of ours may take in the hash of all */
#define NGX_HTTP_COORD_VARIABLE_ROOM  16


static void ngx_http_coord_warn_cookie(ngx_conf_t *cf, ngx_str_t *value);
static ngx_int_t ngx_http_coord_zone_head(ngx_conf_t *cf,
    ngx_coord_zone_t *zone);
static ngx_http_coord_zone_conf_t *ngx_http_coord_zone_conf(ngx_conf_t *cf,
    const ngx_coord_kind_t *kind, ngx_str_t *name);
static ngx_int_t ngx_http_coord_zone_used(ngx_conf_t *cf,
    ngx_http_coord_zone_conf_t *zcf);
static ngx_int_t ngx_http_coord_conf_text(ngx_conf_t *cf, ngx_str_t *text);
static ngx_int_t ngx_http_coord_zone_name(ngx_str_t *name);
static void ngx_http_coord_zone_unknown(ngx_conf_t *cf,
    ngx_http_coord_zone_conf_t *zcf);
static ngx_int_t ngx_http_coord_zone_memory(ngx_conf_t *cf,
    ngx_coord_zone_t *zone, size_t size);


ngx_conf_enum_t  ngx_http_coord_failure_enum[] = {
    { ngx_string("open"), NGX_COORD_FAILURE_OPEN },
    { ngx_string("closed"), NGX_COORD_FAILURE_CLOSED },
    { ngx_string("local"), NGX_COORD_FAILURE_LOCAL },
    { ngx_null_string, 0 }
};


ngx_conf_enum_t  ngx_http_coord_log_levels[] = {
    { ngx_string("info"), NGX_LOG_INFO },
    { ngx_string("notice"), NGX_LOG_NOTICE },
    { ngx_string("warn"), NGX_LOG_WARN },
    { ngx_string("error"), NGX_LOG_ERR },
    { ngx_null_string, 0 }
};


ngx_conf_num_bounds_t  ngx_http_coord_status_bounds = {
    ngx_conf_check_num_bounds, 400, 599
};


ngx_coord_zone_t *
ngx_http_coord_zone_get(ngx_conf_t *cf, const ngx_coord_kind_t *kind,
    ngx_str_t *name)
{
    ngx_http_coord_zone_conf_t  *zcf;

    if (name->len == 0) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0, "empty zone name");
        return NULL;
    }

    zcf = ngx_http_coord_zone_conf(cf, kind, name);

    if (zcf == NULL || ngx_http_coord_zone_used(cf, zcf) != NGX_OK) {
        return NULL;
    }

    return &zcf->zone;
}


/* notes the directive that is being read as one that uses the zone */

static ngx_int_t
ngx_http_coord_zone_used(ngx_conf_t *cf, ngx_http_coord_zone_conf_t *zcf)
{
    ngx_str_t   text;
    ngx_uint_t  i;

    if (zcf->nuses == NGX_HTTP_COORD_ZONE_USES) {
        return NGX_OK;
    }

    if (ngx_http_coord_conf_text(cf, &text) != NGX_OK) {
        return NGX_ERROR;
    }

    for (i = 0; i < zcf->nuses; i++) {
        if (zcf->uses[i].len == text.len
            && ngx_memcmp(zcf->uses[i].data, text.data, text.len) == 0)
        {
            return NGX_OK;
        }
    }

    zcf->uses[zcf->nuses++] = text;

    return NGX_OK;
}


static ngx_int_t
ngx_http_coord_conf_text(ngx_conf_t *cf, ngx_str_t *text)
{
    u_char      *p;
    size_t       len;
    ngx_str_t   *value;
    ngx_uint_t   i;

    len = 0;
    value = cf->args->elts;

    for (i = 0; i < cf->args->nelts; i++) {
        len += value[i].len + 1;
    }

    p = ngx_pnalloc(cf->pool, len);
    if (p == NULL) {
        return NGX_ERROR;
    }

    text->data = p;

    for (i = 0; i < cf->args->nelts; i++) {
        p = ngx_cpymem(p, value[i].data, value[i].len);
        *p++ = ' ';
    }

    text->len = len - 1;

    return NGX_OK;
}


ngx_coord_zone_t *
ngx_http_coord_zone_arg(ngx_conf_t *cf, ngx_command_t *cmd,
    const ngx_coord_kind_t *kind)
{
    ngx_str_t   *value, name;
    ngx_uint_t   i;

    value = cf->args->elts;

    for (i = 1; i < cf->args->nelts; i++) {
        if (ngx_http_coord_param(&value[i], "zone=", &name) && name.len) {
            return ngx_http_coord_zone_get(cf, kind, &name);
        }
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "\"%V\" must have \"zone\" parameter", &cmd->name);

    return NULL;
}


static ngx_http_coord_zone_conf_t *
ngx_http_coord_zone_conf(ngx_conf_t *cf, const ngx_coord_kind_t *kind,
    ngx_str_t *name)
{
    ngx_uint_t                    i;
    ngx_http_coord_main_conf_t   *mcf;
    ngx_http_coord_zone_conf_t   *zcf, **zones;

    mcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_coord_module);

    zones = mcf->zones.elts;

    for (i = 0; i < mcf->zones.nelts; i++) {
        zcf = zones[i];

        if (zcf->zone.kind == kind
            && zcf->zone.name.len == name->len
            && ngx_strncmp(zcf->zone.name.data, name->data, name->len) == 0)
        {
            return zcf;
        }
    }

    zcf = ngx_pcalloc(cf->pool, sizeof(ngx_http_coord_zone_conf_t));
    if (zcf == NULL) {
        return NULL;
    }

    zones = ngx_array_push(&mcf->zones);
    if (zones == NULL) {
        return NULL;
    }

    *zones = zcf;

    zcf->zone.kind = kind;
    zcf->zone.type = kind->type;
    zcf->zone.name = *name;
    zcf->file = cf->conf_file->file.name.data;
    zcf->line = cf->conf_file->line;

    return zcf;
}


ngx_coord_zone_t *
ngx_http_coord_zone_declare(ngx_conf_t *cf, const ngx_coord_kind_t *kind,
    ngx_str_t *value)
{
    u_char                      *p;
    ssize_t                      size;
    ngx_str_t                    name, s;
    ngx_http_coord_zone_conf_t  *zcf;

    name = *value;
    size = NGX_HTTP_COORD_ZONE_SIZE;

    p = (u_char *) ngx_strlchr(value->data, value->data + value->len, ':');

    if (p) {
        name.len = p - value->data;

        s.data = p + 1;
        s.len = value->data + value->len - s.data;

        size = ngx_parse_size(&s);

        if (size == NGX_ERROR) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid zone size \"%V\"", value);
            return NULL;
        }

        if (size < (ssize_t) (8 * ngx_pagesize)) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "zone \"%V\" is too small, "
                               "at least %uzk is needed",
                               value, 8 * ngx_pagesize / 1024);
            return NULL;
        }
    }

    if (ngx_http_coord_zone_name(&name) != NGX_OK) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid zone name in \"zone=%V\", it must be of "
                           "printable ASCII characters without quotes, "
                           "backslashes and braces", value);
        return NULL;
    }

    zcf = ngx_http_coord_zone_conf(cf, kind, &name);
    if (zcf == NULL) {
        return NULL;
    }

    if (zcf->declared) {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "zone \"%V\" is already declared in %s:%ui",
                           &name, zcf->file, zcf->line);
        return NULL;
    }

    zcf->declared = 1;
    zcf->file = cf->conf_file->file.name.data;
    zcf->line = cf->conf_file->line;

    if (ngx_http_coord_conf_text(cf, &zcf->text) != NGX_OK
        || ngx_http_coord_zone_memory(cf, &zcf->zone, size) != NGX_OK)
    {
        return NULL;
    }

    return &zcf->zone;
}


/*
 * A name is a part of keys, whose hash tag begins with a brace, and a string
 * in RateLimit fields and JSON.
 */

static ngx_int_t
ngx_http_coord_zone_name(ngx_str_t *name)
{
    size_t  i;

    for (i = 0; i < name->len; i++) {
        if (name->data[i] < 0x20
            || name->data[i] > 0x7e
            || ngx_strchr("\"\\{}", name->data[i]))
        {
            return NGX_ERROR;
        }
    }

    return name->len ? NGX_OK : NGX_ERROR;
}


static ngx_int_t
ngx_http_coord_zone_memory(ngx_conf_t *cf, ngx_coord_zone_t *zone, size_t size)
{
    ngx_str_t        name;
    ngx_shm_zone_t  *shm_zone;

    /* zones of different features may bear one name */

    name.len = sizeof("coord_") - 1 + zone->type.len + 1 + zone->name.len;

    name.data = ngx_pnalloc(cf->pool, name.len);
    if (name.data == NULL) {
        return NGX_ERROR;
    }

    ngx_sprintf(name.data, "coord_%V_%V", &zone->type, &zone->name);

    shm_zone = ngx_shared_memory_add(cf, &name, size, &ngx_http_coord_module);
    if (shm_zone == NULL) {
        return NGX_ERROR;
    }

    shm_zone->init = ngx_coord_zone_init;
    shm_zone->data = zone;

    zone->shm_zone = shm_zone;

    return NGX_OK;
}


ngx_int_t
ngx_http_coord_zones_resolve(ngx_conf_t *cf)
{
    ngx_uint_t                    i;
    ngx_http_coord_main_conf_t   *mcf;
    ngx_http_coord_zone_conf_t   *zcf, **zones;

    mcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_coord_module);

    zones = mcf->zones.elts;

    for (i = 0; i < mcf->zones.nelts; i++) {
        zcf = zones[i];

        if (!zcf->declared) {
            ngx_http_coord_zone_unknown(cf, zcf);
            return NGX_ERROR;
        }

        zcf->zone.store = ngx_http_coord_store_find(cf,
                                                    &zcf->zone.store_name);

        if (zcf->zone.store == NULL) {
            ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                          "unknown store \"%V\" of zone \"%V\" in %s:%ui",
                          &zcf->zone.store_name, &zcf->zone.name, zcf->file,
                          zcf->line);
            return NGX_ERROR;
        }

        if (ngx_http_coord_zone_head(cf, &zcf->zone) != NGX_OK) {
            return NGX_ERROR;
        }

        if (zcf->zone.wake
            && ngx_coord_wake_zone(cf->pool, &zcf->zone) != NGX_OK)
        {
            return NGX_ERROR;
        }

        if (zcf->zone.deny
            && ngx_coord_deny_zone(cf->pool, &zcf->zone) != NGX_OK)
        {
            return NGX_ERROR;
        }
    }

    return NGX_OK;
}


static void
ngx_http_coord_zone_unknown(ngx_conf_t *cf, ngx_http_coord_zone_conf_t *zcf)
{
    ngx_uint_t                    i;
    ngx_http_coord_main_conf_t   *mcf;
    ngx_http_coord_zone_conf_t  **zones;

    mcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_coord_module);

    zones = mcf->zones.elts;

    for (i = 0; i < mcf->zones.nelts; i++) {
        if (zones[i]->declared
            && zones[i]->zone.name.len == zcf->zone.name.len
            && ngx_strncmp(zones[i]->zone.name.data, zcf->zone.name.data,
                           zcf->zone.name.len)
               == 0)
        {
            ngx_log_error(NGX_LOG_EMERG, cf->log, 0,
                          "unknown zone \"%V\" in %s:%ui: that of %s:%ui is "
                          "one of \"coord_%V_zone\", not of "
                          "\"coord_%V_zone\"",
                          &zcf->zone.name, zcf->file, zcf->line,
                          zones[i]->file, zones[i]->line,
                          &zones[i]->zone.kind->name, &zcf->zone.kind->name);
            return;
        }
    }

    ngx_log_error(NGX_LOG_EMERG, cf->log, 0, "unknown zone \"%V\" in %s:%ui",
                  &zcf->zone.name, zcf->file, zcf->line);
}


static ngx_int_t
ngx_http_coord_zone_head(ngx_conf_t *cf, ngx_coord_zone_t *zone)
{
    ngx_str_t  *prefix, *layout;

    prefix = &zone->store->key_prefix;
    layout = zone->layout.len ? &zone->layout : &zone->type;

    zone->key_head.len = prefix->len + layout->len + 1 + zone->name.len + 2;

    zone->key_head.data = ngx_pnalloc(cf->pool, zone->key_head.len);
    if (zone->key_head.data == NULL) {
        return NGX_ERROR;
    }

    ngx_sprintf(zone->key_head.data, "%V%V:%V:{", prefix, layout,
                &zone->name);

    return NGX_OK;
}


void
ngx_http_coord_zone_named_by(ngx_coord_zone_t *zone, ngx_str_t *key)
{
    size_t  len;

    static const char  plain[] = "$binary_remote_addr";
    static const char  braced[] = "${binary_remote_addr}";

    len = key->len;

    zone->address = (len == sizeof(plain) - 1
                     && ngx_strncmp(key->data, plain, len) == 0)
                    || (len == sizeof(braced) - 1
                        && ngx_strncmp(key->data, braced, len) == 0);
}


ngx_coord_store_t *
ngx_http_coord_store_find(ngx_conf_t *cf, ngx_str_t *name)
{
    ngx_uint_t                    i;
    ngx_coord_store_t           **stores;
    ngx_http_coord_main_conf_t   *mcf;

    mcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_coord_module);

    stores = mcf->stores.elts;

    if (name->len == 0) {
        return mcf->stores.nelts ? stores[0] : mcf->local;
    }

    for (i = 0; i < mcf->stores.nelts; i++) {
        if (stores[i]->name.len == name->len
            && ngx_strncmp(stores[i]->name.data, name->data, name->len) == 0)
        {
            return stores[i];
        }
    }

    if (name->len == mcf->local->name.len
        && ngx_strncmp(name->data, mcf->local->name.data, name->len) == 0)
    {
        return mcf->local;
    }

    return NULL;
}


ngx_http_complex_value_t *
ngx_http_coord_complex_value(ngx_conf_t *cf, ngx_str_t *value)
{
    ngx_http_complex_value_t          *cv;
    ngx_http_compile_complex_value_t   ccv;

    cv = ngx_palloc(cf->pool, sizeof(ngx_http_complex_value_t));
    if (cv == NULL) {
        return NULL;
    }

    ngx_memzero(&ccv, sizeof(ngx_http_compile_complex_value_t));

    ccv.cf = cf;
    ccv.value = value;
    ccv.complex_value = cv;

    ngx_http_coord_warn_cookie(cf, value);

    if (ngx_http_compile_complex_value(&ccv) != NGX_OK) {
        return NULL;
    }

    return cv;
}


/* "$cookie_connect.sid" is the cookie "connect", and ".sid" for all clients */

static void
ngx_http_coord_warn_cookie(ngx_conf_t *cf, ngx_str_t *value)
{
    u_char     *p;
    ngx_str_t   rest, name;

    rest = *value;

    while (ngx_coord_parse_variable(&rest, &name) == NGX_OK) {

        p = rest.data;

        if (rest.len > 1
            && p[0] == '.'
            && ((p[1] >= 'a' && p[1] <= 'z') || (p[1] >= 'A' && p[1] <= 'Z'))
            && ngx_strlcasestrn(name.data, name.data + name.len,
                                (u_char *) "cookie_", sizeof("cookie_") - 2))
        {
            ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                               "\"$%V\" in \"%V\" ends at the \".\": a "
                               "cookie with such a name is found by a \"map\" "
                               "of $http_cookie or $upstream_http_set_cookie",
                               &name, value);
        }
    }
}


ngx_int_t
ngx_http_coord_parse_on_failure(ngx_conf_t *cf, ngx_str_t *value,
    ngx_uint_t *on_failure)
{
    ngx_conf_enum_t  *e;

    for (e = ngx_http_coord_failure_enum; e->name.len; e++) {
        if (e->name.len == value->len
            && ngx_strncmp(e->name.data, value->data, value->len) == 0)
        {
            *on_failure = e->value;
            return NGX_OK;
        }
    }

    ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                       "invalid value \"%V\" in \"on_failure=\", "
                       "it must be \"open\", \"closed\" or \"local\"", value);

    return NGX_ERROR;
}


ngx_int_t
ngx_http_coord_add_variables(ngx_conf_t *cf, ngx_http_variable_t *table)
{
    ngx_http_variable_t         *var, *v, **added;
    ngx_http_coord_main_conf_t  *mcf;

    mcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_coord_module);

    for (v = table; v->name.len; v++) {
        var = ngx_http_add_variable(cf, &v->name,
                                    v->flags|NGX_HTTP_VAR_NOHASH);
        if (var == NULL) {
            return NGX_ERROR;
        }

        var->get_handler = v->get_handler;
        var->data = v->data;

        added = ngx_array_push(&mcf->variables);
        if (added == NULL) {
            return NGX_ERROR;
        }

        *added = var;
    }

    return NGX_OK;
}


void
ngx_http_coord_hash_variables(ngx_conf_t *cf)
{
    ngx_uint_t                    i;
    ngx_http_variable_t         **vars;
    ngx_http_core_main_conf_t    *cmcf;
    ngx_http_coord_main_conf_t   *mcf;

    cmcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_core_module);
    mcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_coord_module);

    /* the default is just enough for the variables of nginx */
    cmcf->variables_hash_max_size += NGX_HTTP_COORD_VARIABLE_ROOM
                                     * mcf->variables.nelts;

    vars = mcf->variables.elts;

    for (i = 0; i < mcf->variables.nelts; i++) {
        vars[i]->flags &= ~NGX_HTTP_VAR_NOHASH;
    }
}


ngx_uint_t
ngx_http_coord_param(ngx_str_t *s, const char *prefix, ngx_str_t *rest)
{
    size_t  len;

    len = ngx_strlen(prefix);

    if (s->len < len || ngx_strncmp(s->data, prefix, len) != 0) {
        return 0;
    }

    rest->data = s->data + len;
    rest->len = s->len - len;

    return 1;
}


ngx_int_t
ngx_http_coord_long_time(ngx_str_t *value)
{
    ngx_int_t  n;

    n = ngx_parse_time(value, 0);

    if (n != NGX_ERROR) {
        return n;
    }

    n = ngx_parse_time(value, 1);

    if (n == NGX_ERROR) {
        return NGX_ERROR;
    }

    return ngx_min(n, NGX_MAX_INT_T_VALUE / 1000) * 1000;
}


char *
ngx_http_coord_long_time_slot(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_int_t    ms;
    ngx_str_t   *value;
    ngx_msec_t  *field;

    field = (ngx_msec_t *) ((char *) conf + cmd->offset);

    if (*field != NGX_CONF_UNSET_MSEC) {
        return "is duplicate";
    }

    value = cf->args->elts;

    ms = ngx_http_coord_long_time(&value[1]);

    if (ms == NGX_ERROR) {
        return "invalid value";
    }

    *field = ms;

    return NGX_CONF_OK;
}
