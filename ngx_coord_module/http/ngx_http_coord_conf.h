
/*
 * Copyright (C) ngx_coord_module contributors
 */


#ifndef _NGX_HTTP_COORD_CONF_H_INCLUDED_
#define _NGX_HTTP_COORD_CONF_H_INCLUDED_


#include "ngx_http_coord.h"


#define NGX_HTTP_COORD_ZONE_SIZE   (1024 * 1024)    /* zone=name */
#define NGX_HTTP_COORD_ZONE_USES   8                /* that are shown */


/* a zone as the configuration knows it */
typedef struct {
    ngx_coord_zone_t           zone;          /* first: read as its pointer */
    ngx_flag_t                 declared;
    u_char                    *file;          /* of its first use */
    ngx_uint_t                 line;

    /* directives as they are written, for the status page */
    ngx_str_t                  text;          /* that declares it */
    ngx_str_t                  uses[NGX_HTTP_COORD_ZONE_USES];
    ngx_uint_t                 nuses;         /* different ones */
} ngx_http_coord_zone_conf_t;


/* a shared enum: open, closed, local */
extern ngx_conf_enum_t         ngx_http_coord_failure_enum[];
extern ngx_conf_enum_t         ngx_http_coord_log_levels[];
extern ngx_conf_num_bounds_t   ngx_http_coord_status_bounds;


/*
 * Finds the zone of a feature by name, or makes a place for it: zones may be
 * used before they are declared.  The pointer stays valid.  NULL: no memory.
 */
ngx_coord_zone_t *ngx_http_coord_zone_get(ngx_conf_t *cf,
    const ngx_coord_kind_t *kind, ngx_str_t *name);

/*
 * The same by the argument "zone=" of a directive, which must have one.  NULL:
 * logged, or no memory.
 */
ngx_coord_zone_t *ngx_http_coord_zone_arg(ngx_conf_t *cf, ngx_command_t *cmd,
    const ngx_coord_kind_t *kind);

/*
 * Declares a zone from "name[:size]", the text after "zone=".  NULL: logged
 * (bad name or size, declared twice).
 */
ngx_coord_zone_t *ngx_http_coord_zone_declare(ngx_conf_t *cf,
    const ngx_coord_kind_t *kind, ngx_str_t *value);

/*
 * Gives every zone its store and the head of its Redis keys; refuses zones
 * that were used but never declared.  From postconfiguration.
 */
ngx_int_t ngx_http_coord_zones_resolve(ngx_conf_t *cf);

/*
 * Notes what the keys of a zone are from its parameter, as it is written: if
 * they are client addresses, pages and API tell and take them as such.
 */
void ngx_http_coord_zone_named_by(ngx_coord_zone_t *zone, ngx_str_t *key);

/* finds a store by name; an empty name: the default store.  NULL: unknown */
ngx_coord_store_t *ngx_http_coord_store_find(ngx_conf_t *cf,
    ngx_str_t *name);

/* compiles a value that may hold variables; NULL: logged */
ngx_http_complex_value_t *ngx_http_coord_complex_value(ngx_conf_t *cf,
    ngx_str_t *value);

/*
 * Parses "open", "closed" or "local", the text after "on_failure=".
 * NGX_ERROR: logged, with what is allowed.
 */
ngx_int_t ngx_http_coord_parse_on_failure(ngx_conf_t *cf, ngx_str_t *value,
    ngx_uint_t *on_failure);

/*
 * Defines variables from a table that ends with ngx_http_null_variable; from
 * preconfiguration.  Until ngx_http_coord_hash_variables() they are found by
 * index only, that is, where the configuration names them.  NGX_ERROR: logged.
 */
ngx_int_t ngx_http_coord_add_variables(ngx_conf_t *cf,
    ngx_http_variable_t *table);

/*
 * Has the variables found by name at run time as well (SSI, njs, perl).  Only
 * for a configuration that uses the module: another one must not outgrow
 * variables_hash_max_size because the module is loaded.
 */
void ngx_http_coord_hash_variables(ngx_conf_t *cf);

/* 1 if s starts with prefix; *rest is what follows it */
ngx_uint_t ngx_http_coord_param(ngx_str_t *s, const char *prefix,
    ngx_str_t *rest);

/*
 * The milliseconds of a time that is long, written as nginx has times: those
 * in milliseconds and those in seconds, which have months and years.
 * NGX_ERROR: it is none.
 */
ngx_int_t ngx_http_coord_long_time(ngx_str_t *value);

/* a directive with such a time, which is an ngx_msec_t */
char *ngx_http_coord_long_time_slot(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);


/* --- ngx_http_coord_store_conf.c --- */

/* the directive coord_store name { ... } */
char *ngx_http_coord_store_block(ngx_conf_t *cf, ngx_command_t *cmd,
    void *conf);

/* --- ngx_http_coord_store_server.c --- */

/*
 * Has the host names of stores looked up: by the resolver of http {}, in the
 * workers, or else now.  From postconfiguration.  NGX_ERROR: logged.
 */
ngx_int_t ngx_http_coord_stores_resolve(ngx_conf_t *cf);


#endif /* _NGX_HTTP_COORD_CONF_H_INCLUDED_ */
