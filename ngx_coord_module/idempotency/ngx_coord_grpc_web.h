
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The trailers of gRPC-Web: a frame at the end of the body, which is read as it
 * passes.  A frame has a byte of flags, four of its length, and that.
 */


#ifndef _NGX_COORD_GRPC_WEB_H_INCLUDED_
#define _NGX_COORD_GRPC_WEB_H_INCLUDED_


#include <ngx_config.h>
#include <ngx_core.h>


#define NGX_COORD_GRPC_WEB_HEAD   5
#define NGX_COORD_GRPC_WEB_LINE   32


typedef enum {
    NGX_COORD_GRPC_WEB_BEGIN = 0,         /* of a frame, or none follows */
    NGX_COORD_GRPC_WEB_MESSAGE,           /* within what is passed over */
    NGX_COORD_GRPC_WEB_TRAILERS,
    NGX_COORD_GRPC_WEB_END,               /* nothing may follow */
    NGX_COORD_GRPC_WEB_BAD                /* it cannot be read */
} ngx_coord_grpc_web_e;


/* zeroed at first; text is set by the caller */
typedef struct {
    ngx_coord_grpc_web_e       state;
    ngx_uint_t                 text;      /* 1: in base64 */
    ngx_uint_t                 found;     /* 1: there was a grpc-status */
    ngx_int_t                  status;    /* NGX_ERROR: no number */

    size_t                     left;      /* bytes of the frame */
    size_t                     nhead;
    u_char                     head[NGX_COORD_GRPC_WEB_HEAD];

    size_t                     nline;     /* of a line, which may be longer */
    u_char                     line[NGX_COORD_GRPC_WEB_LINE];

    ngx_uint_t                 nbits;     /* of base64 */
    ngx_uint_t                 npad;
    uint32_t                   bits;
} ngx_coord_grpc_web_t;


/* takes the next bytes of the body, however it is cut */
void ngx_coord_grpc_web_read(ngx_coord_grpc_web_t *web, u_char *p, size_t len);

/*
 * When the body is over: NGX_OK: web->status is the first grpc-status of the
 * trailers; NGX_ERROR: there was none, or not all of the body could be read.
 */
ngx_int_t ngx_coord_grpc_web_status(ngx_coord_grpc_web_t *web);


#endif /* _NGX_COORD_GRPC_WEB_H_INCLUDED_ */
