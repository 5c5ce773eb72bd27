
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * What a node of the fleet tells the others of itself: a small text, one thing
 * a line, that is written here and read again without trust.
 */


#ifndef _NGX_COORD_SUMMARY_H_INCLUDED_
#define _NGX_COORD_SUMMARY_H_INCLUDED_


#include "ngx_coord.h"


#define NGX_COORD_SUMMARY_SIZE  6144         /* bytes, at most */
#define NGX_COORD_SUMMARY_HEAD  256          /* of its first line */
#define NGX_COORD_SUMMARY_WORD  64           /* of a name in its head */


/* of a node; the texts stand in the summary that was read */
typedef struct {
    ngx_str_t                  node;         /* its name in the fleet */
    ngx_str_t                  nginx;        /* version */
    uint64_t                   time;         /* ms since 1970, on its clock */
    uint64_t                   uptime;       /* seconds */
    ngx_uint_t                 workers;
    ngx_uint_t                 trouble;      /* sentences on its page */
    ngx_uint_t                 master;       /* process on its host */
    ngx_uint_t                 upgrades;     /* the one that it upgrades */

    /* where the lines of zones are; ngx_coord_summary_zone() reads them */
    u_char                    *pos;
    u_char                    *last;
} ngx_coord_summary_t;


/* decisions of a zone: ever, and in the last minute */
typedef struct {
    ngx_str_t                  feature;
    ngx_str_t                  name;
    uint64_t                   total;
    uint64_t                   refused;
    uint64_t                   bypassed;
    uint64_t                   minute;
    uint64_t                   minute_refused;
    uint64_t                   minute_bypassed;
} ngx_coord_summary_zone_t;


/*
 * Writes the head of a summary to p, whose room ends at last; returns the end
 * of what was written.  pos and last of s are not used.
 */
u_char *ngx_coord_summary_write(u_char *p, u_char *last,
    const ngx_coord_summary_t *s);

/*
 * Writes the line of a zone, or, if there is no room for all of it, nothing:
 * returns p then.
 */
u_char *ngx_coord_summary_write_zone(u_char *p, u_char *last,
    const ngx_coord_summary_zone_t *zone);

/*
 * Reads the head of a text from anywhere: fills s, whose strings point into
 * text; the processes are 0 if it does not tell them.  NGX_ERROR: this is no
 * summary of a version that is known, or a name in it is not printable, or
 * longer than NGX_COORD_SUMMARY_WORD.
 */
ngx_int_t ngx_coord_summary_read(ngx_str_t *text, ngx_coord_summary_t *s);

/*
 * Reads the next zone of s.  NGX_DONE: there is none; NGX_ERROR: what stands
 * there is no zone.  Lines of other kinds are skipped: a later version may
 * write more.
 */
ngx_int_t ngx_coord_summary_zone(ngx_coord_summary_t *s,
    ngx_coord_summary_zone_t *zone);


#endif /* _NGX_COORD_SUMMARY_H_INCLUDED_ */
