
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * What the two files of the fleet share.
 *
 *   ngx_coord_fleet.c       shared memory: this node's summary, the others'
 *   ngx_coord_fleet_ask.c   telling and asking in the background
 */


#ifndef _NGX_COORD_FLEET_SHM_H_INCLUDED_
#define _NGX_COORD_FLEET_SHM_H_INCLUDED_


#include "ngx_coord_fleet.h"


#define NGX_COORD_FLEET_SILENT  8000         /* ms without news: a mark */
#define NGX_COORD_FLEET_GONE    15000        /* TTL: it is not there */
#define NGX_COORD_FLEET_LOST    3600000      /* ms it is remembered */


/* of another node, in shared memory */
typedef struct {
    ngx_atomic_t               version;      /* odd: is being written */
    ngx_msec_t                 heard;        /* its last news */
    uint64_t                   time;         /* of them, on its clock */
    size_t                     name_len;     /* 0: the place is free */
    size_t                     len;
    u_char                     name[NGX_COORD_SUMMARY_WORD];
    u_char                     text[NGX_COORD_SUMMARY_SIZE];
} ngx_coord_fleet_slot_t;


struct ngx_coord_fleet_shm_s {
    ngx_atomic_t               turn;         /* of the last worker at it */
    ngx_atomic_t               nodes;        /* that were there lately, when
                                              * the store was last heard */
    ngx_msec_t                 start;        /* of this node */
    ngx_uint_t                 upgrades;     /* the master whose binary is
                                              * upgraded, or 0 */
    size_t                     name_len;
    u_char                     name[NGX_COORD_SUMMARY_WORD];
    ngx_coord_fleet_slot_t     slots[NGX_COORD_FLEET_NODES];
};


/* the first Redis store, that of the fleet; NULL: there is none */
ngx_coord_store_t *ngx_coord_fleet_store(ngx_coord_metrics_t *metrics);

/*
 * Writes the summary of this node to text, NGX_COORD_SUMMARY_SIZE bytes, and
 * returns its length.
 */
size_t ngx_coord_fleet_write(ngx_coord_metrics_t *metrics, u_char *text);

/*
 * Keeps what the node of a name has told, at time on its clock.  Text that was
 * known is no news.  Where all places are taken it is not kept.
 */
void ngx_coord_fleet_keep(ngx_coord_fleet_shm_t *shm, ngx_str_t *name,
    ngx_str_t *text, uint64_t time);

/* counts the nodes; for whoever has heard of the store just now */
void ngx_coord_fleet_count(ngx_coord_fleet_shm_t *shm);


#endif /* _NGX_COORD_FLEET_SHM_H_INCLUDED_ */
