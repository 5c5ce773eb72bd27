
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_sticky: the peer of a session, in front of any balancer that keeps
 * its peers in a round robin list.
 */


#include "ngx_http_coord_conf.h"
#include "ngx_http_coord_session.h"


/* in place of the balancer's data in r->upstream->peer */
typedef struct {
    ngx_http_upstream_rr_peer_data_t    rrp;     /* of the sticky peer */

    ngx_http_request_t                 *request;
    ngx_http_upstream_srv_conf_t       *upstream;
    ngx_str_t                           value;
    unsigned                            tried:1; /* once is enough */
    unsigned                            chosen:1; /* rrp is what is used */

    void                               *data;
    ngx_event_get_peer_pt               get;
    ngx_event_free_peer_pt              free;
#if (NGX_HTTP_SSL)
    ngx_event_set_peer_session_pt       set_session;
    ngx_event_save_peer_session_pt      save_session;
#endif
} ngx_http_coord_sticky_data_t;


static ngx_int_t ngx_http_coord_sticky_init_upstream(ngx_conf_t *cf,
    ngx_http_upstream_srv_conf_t *us);
static ngx_int_t ngx_http_coord_sticky_init_peer(ngx_http_request_t *r,
    ngx_http_upstream_srv_conf_t *us);
static ngx_int_t ngx_http_coord_sticky_get_peer(ngx_peer_connection_t *pc,
    void *data);
static ngx_int_t ngx_http_coord_sticky_find(ngx_peer_connection_t *pc,
    ngx_http_coord_sticky_data_t *sticky,
    ngx_http_upstream_rr_peers_t *peers);
static ngx_int_t ngx_http_coord_sticky_use(ngx_peer_connection_t *pc,
    ngx_http_coord_sticky_data_t *sticky, ngx_http_upstream_rr_peers_t *peers,
    ngx_http_upstream_rr_peer_t *peer);
static ngx_uint_t ngx_http_coord_sticky_equal(ngx_str_t *a, ngx_str_t *b);
static void ngx_http_coord_sticky_free_peer(ngx_peer_connection_t *pc,
    void *data, ngx_uint_t state);
#if (NGX_HTTP_SSL)
static ngx_int_t ngx_http_coord_sticky_set_session(ngx_peer_connection_t *pc,
    void *data);
static void ngx_http_coord_sticky_save_session(ngx_peer_connection_t *pc,
    void *data);
#endif


char *
ngx_http_coord_sticky(ngx_conf_t *cf, ngx_command_t *cmd, void *conf)
{
    ngx_http_coord_sticky_conf_t *scf = conf;

    ngx_str_t                     *value;
    ngx_http_upstream_srv_conf_t  *uscf;

    if (scf->value) {
        return "is duplicate";
    }

    value = cf->args->elts;

    scf->value = ngx_http_coord_complex_value(cf, &value[1]);
    if (scf->value == NULL) {
        return NGX_CONF_ERROR;
    }

    uscf = ngx_http_conf_get_module_srv_conf(cf, ngx_http_upstream_module);

    scf->original_init_upstream = uscf->peer.init_upstream
                                  ? uscf->peer.init_upstream
                                  : ngx_http_upstream_init_round_robin;

    uscf->peer.init_upstream = ngx_http_coord_sticky_init_upstream;

    return NGX_CONF_OK;
}


static ngx_int_t
ngx_http_coord_sticky_init_upstream(ngx_conf_t *cf,
    ngx_http_upstream_srv_conf_t *us)
{
    ngx_http_coord_sticky_conf_t  *scf;

    scf = ngx_http_conf_upstream_srv_conf(us, ngx_http_coord_session_module);

    if (scf->original_init_upstream(cf, us) != NGX_OK) {
        return NGX_ERROR;
    }

    scf->original_init_peer = us->peer.init;
    us->peer.init = ngx_http_coord_sticky_init_peer;

    return NGX_OK;
}


static ngx_int_t
ngx_http_coord_sticky_init_peer(ngx_http_request_t *r,
    ngx_http_upstream_srv_conf_t *us)
{
    ngx_str_t                      value;
    ngx_http_upstream_t           *u;
    ngx_http_coord_sticky_conf_t  *scf;
    ngx_http_coord_sticky_data_t  *sticky;

    scf = ngx_http_conf_upstream_srv_conf(us, ngx_http_coord_session_module);

    if (scf->original_init_peer(r, us) != NGX_OK) {
        return NGX_ERROR;
    }

    if (ngx_http_complex_value(r, scf->value, &value) != NGX_OK) {
        return NGX_ERROR;
    }

    if (value.len == 0 || us->peer.data == NULL) {
        return NGX_OK;
    }

    sticky = ngx_pcalloc(r->pool, sizeof(ngx_http_coord_sticky_data_t));
    if (sticky == NULL) {
        return NGX_ERROR;
    }

    u = r->upstream;

    sticky->request = r;
    sticky->upstream = us;
    sticky->value = value;

    sticky->data = u->peer.data;
    sticky->get = u->peer.get;
    sticky->free = u->peer.free;

    u->peer.data = sticky;
    u->peer.get = ngx_http_coord_sticky_get_peer;
    u->peer.free = ngx_http_coord_sticky_free_peer;

#if (NGX_HTTP_SSL)
    sticky->set_session = u->peer.set_session;
    sticky->save_session = u->peer.save_session;

    u->peer.set_session = ngx_http_coord_sticky_set_session;
    u->peer.save_session = ngx_http_coord_sticky_save_session;
#endif

    return NGX_OK;
}


static ngx_int_t
ngx_http_coord_sticky_get_peer(ngx_peer_connection_t *pc, void *data)
{
    ngx_http_coord_sticky_data_t *sticky = data;

    ngx_int_t                      rc;
    ngx_http_upstream_rr_peers_t  *peers, *group;

    sticky->chosen = 0;

    if (sticky->tried) {
        return sticky->get(pc, sticky->data);
    }

    sticky->tried = 1;

    peers = sticky->upstream->peer.data;

    rc = NGX_DECLINED;

    for (group = peers; group && rc == NGX_DECLINED; group = group->next) {
        ngx_http_upstream_rr_peers_wlock(group);
        rc = ngx_http_coord_sticky_find(pc, sticky, group);
        ngx_http_upstream_rr_peers_unlock(group);
    }

    if (rc == NGX_OK) {
        ngx_log_debug1(NGX_LOG_DEBUG_HTTP, pc->log, 0,
                       "coord sticky peer \"%V\"", pc->name);
        return NGX_OK;
    }

    /* a peer that has all the connections it may have comes back soon */

    if (rc != NGX_BUSY) {
        ngx_http_coord_session_unusable(sticky->request);
    }

    return sticky->get(pc, sticky->data);
}


/*
 * NGX_DECLINED: not in this group; NGX_BUSY: it has max_conns connections;
 * NGX_ABORT: down.
 */

static ngx_int_t
ngx_http_coord_sticky_find(ngx_peer_connection_t *pc,
    ngx_http_coord_sticky_data_t *sticky,
    ngx_http_upstream_rr_peers_t *peers)
{
    ngx_int_t                     rc, result;
    ngx_http_upstream_rr_peer_t  *peer;

    result = NGX_DECLINED;

    /* a name may stand for several peers: the first that is usable */

    for (peer = peers->peer; peer; peer = peer->next) {

        if (!ngx_http_coord_sticky_equal(&peer->name, &sticky->value)
            && !ngx_http_coord_sticky_equal(&peer->server, &sticky->value))
        {
            continue;
        }

        ngx_http_upstream_rr_peer_lock(peers, peer);
        rc = ngx_http_coord_sticky_use(pc, sticky, peers, peer);
        ngx_http_upstream_rr_peer_unlock(peers, peer);

        if (rc == NGX_OK) {
            return NGX_OK;
        }

        if (result != NGX_BUSY) {
            result = rc;
        }
    }

    return result;
}


static ngx_uint_t
ngx_http_coord_sticky_equal(ngx_str_t *a, ngx_str_t *b)
{
    return a->len == b->len && ngx_memcmp(a->data, b->data, a->len) == 0;
}


static ngx_int_t
ngx_http_coord_sticky_use(ngx_peer_connection_t *pc,
    ngx_http_coord_sticky_data_t *sticky, ngx_http_upstream_rr_peers_t *peers,
    ngx_http_upstream_rr_peer_t *peer)
{
    time_t  now;

    now = ngx_time();

    if (peer->down
        || (peer->max_fails
            && peer->fails >= peer->max_fails
            && now - peer->checked <= peer->fail_timeout))
    {
        return NGX_ABORT;
    }

    if (peer->max_conns && peer->conns >= peer->max_conns) {
        return NGX_BUSY;
    }

    pc->cached = 0;
    pc->connection = NULL;

    pc->sockaddr = peer->sockaddr;
    pc->socklen = peer->socklen;
    pc->name = &peer->name;

    peer->conns++;

    if (now - peer->checked > peer->fail_timeout) {
        peer->checked = now;
    }

#if (NGX_HTTP_UPSTREAM_ZONE && nginx_version >= 1027003)
    ngx_http_upstream_rr_peer_ref(peers, peer);
#endif

    sticky->rrp.peers = peers;
    sticky->rrp.current = peer;
    sticky->chosen = 1;

    return NGX_OK;
}


static void
ngx_http_coord_sticky_free_peer(ngx_peer_connection_t *pc, void *data,
    ngx_uint_t state)
{
    ngx_http_coord_sticky_data_t *sticky = data;

    if (!sticky->chosen) {
        sticky->free(pc, sticky->data, state);
        return;
    }

    sticky->chosen = 0;

    if (state & NGX_PEER_FAILED) {
        ngx_http_coord_session_unusable(sticky->request);
    }

    ngx_http_upstream_free_round_robin_peer(pc, &sticky->rrp, state);
}


#if (NGX_HTTP_SSL)

static ngx_int_t
ngx_http_coord_sticky_set_session(ngx_peer_connection_t *pc, void *data)
{
    ngx_http_coord_sticky_data_t *sticky = data;

    if (sticky->chosen) {
        return ngx_http_upstream_set_round_robin_peer_session(pc,
                                                              &sticky->rrp);
    }

    return sticky->set_session(pc, sticky->data);
}


static void
ngx_http_coord_sticky_save_session(ngx_peer_connection_t *pc, void *data)
{
    ngx_http_coord_sticky_data_t *sticky = data;

    if (sticky->chosen) {
        ngx_http_upstream_save_round_robin_peer_session(pc, &sticky->rrp);
        return;
    }

    sticky->save_session(pc, sticky->data);
}

#endif
