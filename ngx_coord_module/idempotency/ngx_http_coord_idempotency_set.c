
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_idempotency: arguments of the directives.
 */


#include "ngx_http_coord_idempotency.h"
#include "ngx_http_coord_conf.h"


#define NGX_HTTP_COORD_IDEMPOTENCY_ZONE  "16m"


static ngx_coord_zone_t *ngx_http_coord_idempotency_zone(ngx_conf_t *cf,
    ngx_str_t *store, ngx_str_t *size);


/* the zone of a store, by its name; one for all locations that use it */

static ngx_coord_zone_t *
ngx_http_coord_idempotency_zone(ngx_conf_t *cf, ngx_str_t *store,
    ngx_str_t *size)
{
    u_char                                  *p;
    ngx_str_t                                value;
    ngx_uint_t                               i;
    ngx_coord_zone_t                        *zone, **zones;
    ngx_http_coord_idempotency_main_conf_t  *imcf;

    imcf = ngx_http_conf_get_module_main_conf(cf,
                                           ngx_http_coord_idempotency_module);

    zones = imcf->zones.elts;

    for (i = 0; i < imcf->zones.nelts; i++) {
        if (zones[i]->store_name.len == store->len
            && ngx_strncmp(zones[i]->store_name.data, store->data, store->len)
               == 0)
        {
            return zones[i];
        }
    }

    value.data = ngx_pnalloc(cf->pool, sizeof("idempotency_:") + store->len
                                       + size->len);
    if (value.data == NULL) {
        return NULL;
    }

    p = ngx_sprintf(value.data, "idempotency%s%V:%V", store->len ? "_" : "",
                    store, size);

    value.len = p - value.data;

    zone = ngx_http_coord_zone_declare(cf,
                                     &ngx_http_coord_idempotency_feature.kind,
                                     &value);
    if (zone == NULL) {
        return NULL;
    }

    zone->data = ngx_pcalloc(cf->pool, NGX_HTTP_COORD_TROUBLES
                                       * sizeof(ngx_coord_log_limit_t));
    if (zone->data == NULL) {
        return NULL;
    }

    zone->store_name = *store;
    zone->journal = 1;

    zones = ngx_array_push(&imcf->zones);
    if (zones == NULL) {
        return NULL;
    }

    *zones = zone;

    return zone;
}


char *
ngx_http_coord_idempotency(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_coord_idempotency_conf_t *icf = conf;

    ngx_str_t  *value, rest, store, size;
    ngx_uint_t  i;

    if (icf->mode != NGX_CONF_UNSET_UINT) {
        return "is duplicate";
    }

    value = cf->args->elts;

    icf->file = cf->conf_file->file.name.data;
    icf->line = cf->conf_file->line;

    if (ngx_strcmp(value[1].data, "off") == 0) {
        icf->mode = NGX_HTTP_COORD_IDEMPOTENCY_OFF;

    } else if (ngx_strcmp(value[1].data, "on") == 0) {
        icf->mode = NGX_HTTP_COORD_IDEMPOTENCY_ON;

    } else if (ngx_strcmp(value[1].data, "required") == 0) {
        icf->mode = NGX_HTTP_COORD_IDEMPOTENCY_REQUIRED;

    } else {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid value \"%V\" in \"%V\", it must be "
                           "\"off\", \"on\" or \"required\"",
                           &value[1], &cmd->name);
        return NGX_CONF_ERROR;
    }

    for (i = 2; i < cf->args->nelts; i++) {

        if (ngx_strcmp(value[i].data, "shadow") == 0) {
            icf->shadow = 1;
            continue;
        }

        if (ngx_http_coord_param(&value[i], "on_failure=", &rest)) {

            if (ngx_http_coord_parse_on_failure(cf, &rest, &icf->on_failure)
                != NGX_OK)
            {
                return NGX_CONF_ERROR;
            }

            continue;
        }

        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid parameter \"%V\", allowed are \"shadow\" "
                           "and \"on_failure=\"", &value[i]);
        return NGX_CONF_ERROR;
    }

    ngx_str_null(&store);
    ngx_str_set(&size, NGX_HTTP_COORD_IDEMPOTENCY_ZONE);

    if (icf->mode != NGX_HTTP_COORD_IDEMPOTENCY_OFF
        && ngx_http_coord_idempotency_zone(cf, &store, &size) == NULL)
    {
        return NGX_CONF_ERROR;
    }

    return NGX_CONF_OK;
}


char *
ngx_http_coord_idempotency_key_value(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf)
{
    ngx_http_coord_idempotency_conf_t *icf = conf;

    size_t      i;
    ngx_str_t  *value, name;

    if (icf->key) {
        return "is duplicate";
    }

    value = cf->args->elts;

    icf->key = ngx_http_coord_complex_value(cf, &value[1]);
    if (icf->key == NULL) {
        return NGX_CONF_ERROR;
    }

    icf->key_body = ngx_http_coord_body_used(&value[1]);
    icf->key_constant = (icf->key->lengths == NULL);

    /* of a header field alone all lines are looked at */

    if (!ngx_http_coord_param(&value[1], "$http_", &name)) {
        return NGX_CONF_OK;
    }

    for (i = 0; i < name.len; i++) {
        if (!((name.data[i] >= 'a' && name.data[i] <= 'z')
              || (name.data[i] >= '0' && name.data[i] <= '9')
              || name.data[i] == '_'))
        {
            return NGX_CONF_OK;
        }
    }

    icf->header = name;

    return NGX_CONF_OK;
}


char *
ngx_http_coord_idempotency_scope(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf)
{
    ngx_http_coord_idempotency_conf_t *icf = conf;

    ngx_str_t  *value;

    if (icf->scope || icf->global) {
        return "is duplicate";
    }

    value = cf->args->elts;

    if (ngx_strcmp(value[1].data, "off") == 0) {
        icf->global = 1;
        return NGX_CONF_OK;
    }

    icf->scope = ngx_http_coord_complex_value(cf, &value[1]);
    icf->scope_body = ngx_http_coord_body_used(&value[1]);

    return icf->scope ? NGX_CONF_OK : NGX_CONF_ERROR;
}


char *
ngx_http_coord_idempotency_store_status(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf)
{
    ngx_http_coord_idempotency_conf_t *icf = conf;

    ngx_int_t                           n;
    ngx_str_t                          *value;
    ngx_uint_t                          i;
    ngx_http_coord_idempotency_code_t  *code;

    if (icf->store_status != NGX_CONF_UNSET_PTR) {
        return "is duplicate";
    }

    icf->store_status = ngx_array_create(cf->pool, 4,
                                   sizeof(ngx_http_coord_idempotency_code_t));
    if (icf->store_status == NULL) {
        return NGX_CONF_ERROR;
    }

    value = cf->args->elts;

    for (i = 1; i < cf->args->nelts; i++) {

        if (value[i].len == 3 && ngx_strcmp(value[i].data + 1, "xx") == 0) {
            n = ngx_atoi(value[i].data, 1);
            n = (n >= 2 && n <= 5) ? n : NGX_ERROR;

        } else {
            n = ngx_atoi(value[i].data, value[i].len);
            n = (n >= 200 && n <= 599 && n != 206 && n != 304) ? n : NGX_ERROR;
        }

        if (n == NGX_ERROR) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "invalid status \"%V\", it must be like "
                               "\"2xx\" or \"201\", and not 206 or 304",
                               &value[i]);
            return NGX_CONF_ERROR;
        }

        code = ngx_array_push(icf->store_status);
        if (code == NULL) {
            return NGX_CONF_ERROR;
        }

        *code = n;
    }

    return NGX_CONF_OK;
}


char *
ngx_http_coord_idempotency_store(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf)
{
    ngx_http_coord_idempotency_conf_t *icf = conf;

    ngx_str_t  *value, size, none;

    if (icf->zone) {
        return "is duplicate";
    }

    value = cf->args->elts;

    ngx_str_null(&none);
    ngx_str_set(&size, NGX_HTTP_COORD_IDEMPOTENCY_ZONE);

    if (cf->args->nelts == 3
        && !ngx_http_coord_param(&value[2], "size=", &size))
    {
        ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                           "invalid parameter \"%V\", allowed is \"size=\"",
                           &value[2]);
        return NGX_CONF_ERROR;
    }

    /* that of the default store is the first */

    if (ngx_http_coord_idempotency_zone(cf, &none, &size) == NULL) {
        return NGX_CONF_ERROR;
    }

    icf->zone = ngx_http_coord_idempotency_zone(cf, &value[1], &size);

    if (icf->zone == NULL) {
        return NGX_CONF_ERROR;
    }

    if (cf->args->nelts == 3) {
        icf->size = icf->zone->shm_zone->shm.size;
    }

    return NGX_CONF_OK;
}


char *
ngx_http_coord_idempotency_check_value(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf)
{
    ngx_http_coord_idempotency_conf_t *icf = conf;

    ngx_str_t  *value;

    if (icf->check != NGX_CONF_UNSET_UINT) {
        return "is duplicate";
    }

    value = cf->args->elts;

    if (ngx_strcmp(value[1].data, "default") == 0) {
        icf->check = NGX_HTTP_COORD_FINGERPRINT_DEFAULT;
        return NGX_CONF_OK;
    }

    if (ngx_strcmp(value[1].data, "off") == 0) {
        icf->check = NGX_HTTP_COORD_FINGERPRINT_OFF;
        return NGX_CONF_OK;
    }

    icf->check = NGX_HTTP_COORD_FINGERPRINT_VALUE;
    icf->fingerprint_body = ngx_http_coord_body_used(&value[1]);
    icf->fingerprint = ngx_http_coord_complex_value(cf, &value[1]);

    if (icf->fingerprint == NULL) {
        return NGX_CONF_ERROR;
    }

    if (icf->fingerprint->lengths == NULL) {
        ngx_conf_log_error(NGX_LOG_WARN, cf, 0,
                           "\"%V\" is constant: requests with one key are "
                           "not compared, as with \"%V off\"",
                           &cmd->name, &cmd->name);
    }

    return NGX_CONF_OK;
}


char *
ngx_http_coord_idempotency_names(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf)
{
    char *p = conf;

    ngx_str_t     *value, *name;
    ngx_uint_t     i;
    ngx_array_t  **names;

    names = (ngx_array_t **) (p + cmd->offset);

    if (*names == NGX_CONF_UNSET_PTR) {
        *names = ngx_array_create(cf->pool, 4, sizeof(ngx_str_t));
        if (*names == NULL) {
            return NGX_CONF_ERROR;
        }
    }

    value = cf->args->elts;

    for (i = 1; i < cf->args->nelts; i++) {

        if (ngx_coord_record_hop(&value[i])) {
            ngx_conf_log_error(NGX_LOG_EMERG, cf, 0,
                               "field \"%V\" belongs to a connection and is "
                               "never stored", &value[i]);
            return NGX_CONF_ERROR;
        }

        name = ngx_array_push(*names);
        if (name == NULL) {
            return NGX_CONF_ERROR;
        }

        *name = value[i];
    }

    return NGX_CONF_OK;
}
