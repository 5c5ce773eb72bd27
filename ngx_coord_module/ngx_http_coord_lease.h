
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * What features that hold leases have in common.
 */


#ifndef _NGX_HTTP_COORD_LEASE_H_INCLUDED_
#define _NGX_HTTP_COORD_LEASE_H_INCLUDED_


#include "ngx_http_coord.h"


/* the data of a zone of leases */
typedef struct {
    ngx_http_complex_value_t  *key;
    ngx_coord_nsec_t           lease;
} ngx_http_coord_lease_zone_t;


/*
 * The directive "name key zone=name[:size] [lease=time] [store=name]" of a
 * zone type.
 */
char *ngx_http_coord_lease_zone(ngx_conf_t *cf, ngx_command_t *cmd,
    ngx_str_t *type);


#endif /* _NGX_HTTP_COORD_LEASE_H_INCLUDED_ */
