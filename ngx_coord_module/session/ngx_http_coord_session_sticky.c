
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_sticky: the peer of a session, in front of any balancer that keeps
 * its peers in a round robin list.  A balancer that takes a hint (nginx 1.29.6
 * and newer) is told whom to choose and does the rest; for others, and for a
 * peer of the backup group, the peer is taken from the list here.
 */


#include "ngx_http_coord_conf.h"
#include "ngx_http_coord_session.h"


/* what nginx has since 1.29.6 */

#ifndef NGX_HTTP_UPSTREAM_SID
#define NGX_HTTP_UPSTREAM_SID     0
#endif

#ifndef NGX_HTTP_UPSTREAM_STICKY
#define NGX_HTTP_UPSTREAM_STICKY  0
#endif


/* in place of the balancer's data in r->upstream->peer */
typedef struct {
    ngx_http_upstream_rr_peer_data_t    rrp;     /* of the sticky peer */

    ngx_http_request_t                 *request;
    ngx_http_upstream_srv_conf_t       *upstream;
    ngx_http_coord_sticky_conf_t       *conf;
    ngx_str_t                           value;
    ngx_str_t                          *failed;  /* its name: only compared */
    unsigned                            tried:1; /* once is enough */
    unsigned                            chosen:1; /* rrp is what is used */

#if (NGX_HTTP_UPSTREAM_SID)
    unsigned                            hinted:1; /* and it was taken */
    ngx_str_t                          *name;    /* only compared */
    ngx_str_t                           sid;
    u_char                              sid_data[NGX_HTTP_UPSTREAM_SID_LEN];
#endif

    void                               *data;
    ngx_event_get_peer_pt               get;
    ngx_event_free_peer_pt              free;
    ngx_event_notify_peer_pt            notify;
#if (NGX_HTTP_SSL)
    ngx_event_set_peer_session_pt       set_session;
    ngx_event_save_peer_session_pt      save_session;
#endif
} ngx_http_coord_sticky_data_t;


static ngx_int_t ngx_http_coord_sticky_init_upstream(ngx_conf_t *cf,
    ngx_http_upstream_srv_conf_t *us);
static ngx_int_t ngx_http_coord_sticky_init_peer(ngx_http_request_t *r,
    ngx_http_upstream_srv_conf_t *us);
static void ngx_http_coord_sticky_wrap(ngx_peer_connection_t *pc,
    ngx_http_coord_sticky_data_t *sticky);
static ngx_int_t ngx_http_coord_sticky_get_peer(ngx_peer_connection_t *pc,
    void *data);
static ngx_int_t ngx_http_coord_sticky_other(ngx_peer_connection_t *pc,
    ngx_http_coord_sticky_data_t *sticky);
static void ngx_http_coord_sticky_give_back(ngx_peer_connection_t *pc,
    ngx_http_coord_sticky_data_t *sticky);
static ngx_int_t ngx_http_coord_sticky_search(ngx_peer_connection_t *pc,
    ngx_http_coord_sticky_data_t *sticky);
static ngx_int_t ngx_http_coord_sticky_find(ngx_peer_connection_t *pc,
    ngx_http_coord_sticky_data_t *sticky,
    ngx_http_upstream_rr_peers_t *peers);
static ngx_int_t ngx_http_coord_sticky_usable(
    ngx_http_upstream_rr_peer_t *peer);
static void ngx_http_coord_sticky_use(ngx_peer_connection_t *pc,
    ngx_http_coord_sticky_data_t *sticky, ngx_http_upstream_rr_peers_t *peers,
    ngx_http_upstream_rr_peer_t *peer);
static ngx_uint_t ngx_http_coord_sticky_equal(ngx_str_t *a, ngx_str_t *b);
#if (NGX_HTTP_UPSTREAM_SID)
static ngx_uint_t ngx_http_coord_sticky_note(
    ngx_http_coord_sticky_data_t *sticky, ngx_http_upstream_rr_peers_t *peers,
    ngx_http_upstream_rr_peer_t *peer);
static ngx_int_t ngx_http_coord_sticky_hint(ngx_peer_connection_t *pc,
    ngx_http_coord_sticky_data_t *sticky);
#endif
static void ngx_http_coord_sticky_free_peer(ngx_peer_connection_t *pc,
    void *data, ngx_uint_t state);
static void ngx_http_coord_sticky_notify(ngx_peer_connection_t *pc,
    void *data, ngx_uint_t type);
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


void
ngx_http_coord_sticky_check(ngx_conf_t *cf)
{
    ngx_uint_t                       i;
    ngx_http_coord_sticky_conf_t    *scf;
    ngx_http_upstream_srv_conf_t   **uscfp;
    ngx_http_upstream_main_conf_t   *umcf;

    umcf = ngx_http_conf_get_module_main_conf(cf, ngx_http_upstream_module);
    uscfp = umcf->upstreams.elts;

    for (i = 0; i < umcf->upstreams.nelts; i++) {

        if (uscfp[i]->srv_conf == NULL) {
            continue;
        }

        scf = ngx_http_conf_upstream_srv_conf(uscfp[i],
                                              ngx_http_coord_session_module);

        if (scf->value && scf->original_init_peer == NULL) {
            ngx_log_error(NGX_LOG_WARN, cf->log, 0,
                          "\"coord_sticky\" does nothing in upstream \"%V\" "
                          "in %s:%ui: it has to stand behind the directive of "
                          "the balancer", &uscfp[i]->host,
                          uscfp[i]->file_name, uscfp[i]->line);
        }
    }
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
    ngx_http_coord_sticky_conf_t  *scf;
    ngx_http_coord_sticky_data_t  *sticky;

    scf = ngx_http_conf_upstream_srv_conf(us, ngx_http_coord_session_module);

    if (scf->original_init_peer(r, us) != NGX_OK) {
        return NGX_ERROR;
    }

    if (ngx_http_coord_value(r, scf->value, &value) != NGX_OK) {
        return NGX_ERROR;
    }

    if (value.len == 0 || us->peer.data == NULL) {
        return NGX_OK;
    }

    sticky = ngx_pcalloc(r->pool, sizeof(ngx_http_coord_sticky_data_t));
    if (sticky == NULL) {
        return NGX_ERROR;
    }

    sticky->request = r;
    sticky->upstream = us;
    sticky->conf = scf;
    sticky->value = value;

    ngx_http_coord_sticky_wrap(&r->upstream->peer, sticky);

    return NGX_OK;
}


static void
ngx_http_coord_sticky_wrap(ngx_peer_connection_t *pc,
    ngx_http_coord_sticky_data_t *sticky)
{
    sticky->data = pc->data;
    sticky->get = pc->get;
    sticky->free = pc->free;

    pc->data = sticky;
    pc->get = ngx_http_coord_sticky_get_peer;
    pc->free = ngx_http_coord_sticky_free_peer;

    if (pc->notify) {
        sticky->notify = pc->notify;
        pc->notify = ngx_http_coord_sticky_notify;
    }

#if (NGX_HTTP_SSL)
    sticky->set_session = pc->set_session;
    sticky->save_session = pc->save_session;

    pc->set_session = ngx_http_coord_sticky_set_session;
    pc->save_session = ngx_http_coord_sticky_save_session;
#endif
}


static ngx_int_t
ngx_http_coord_sticky_get_peer(ngx_peer_connection_t *pc, void *data)
{
    ngx_http_coord_sticky_data_t *sticky = data;

    ngx_int_t  rc;

    if (sticky->tried) {
        return ngx_http_coord_sticky_other(pc, sticky);
    }

    sticky->tried = 1;

    rc = ngx_http_coord_sticky_search(pc, sticky);

#if (NGX_HTTP_UPSTREAM_SID)

    if (rc == NGX_OK && !sticky->chosen) {
        rc = ngx_http_coord_sticky_hint(pc, sticky);

        if (rc != NGX_DECLINED) {
            return rc;
        }

        rc = ngx_http_coord_sticky_search(pc, sticky);
    }

#endif

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


/* the balancer does not know of a peer that was tried without it */

static ngx_int_t
ngx_http_coord_sticky_other(ngx_peer_connection_t *pc,
    ngx_http_coord_sticky_data_t *sticky)
{
    ngx_int_t  rc;

    rc = sticky->get(pc, sticky->data);

    if (rc != NGX_OK
        || sticky->failed == NULL
        || pc->name != sticky->failed)
    {
        return rc;
    }

    sticky->failed = NULL;

    ngx_http_coord_sticky_give_back(pc, sticky);

    return sticky->get(pc, sticky->data);
}


/* the balancer's choice is not used; this is no try */

static void
ngx_http_coord_sticky_give_back(ngx_peer_connection_t *pc,
    ngx_http_coord_sticky_data_t *sticky)
{
    ngx_uint_t  tries;

    tries = pc->tries;

    sticky->free(pc, sticky->data, 0);

    pc->tries = tries;
}


/*
 * NGX_OK: the peer is chosen, or it is known how to hint at it; NGX_BUSY: it
 * has max_conns connections; NGX_ABORT: it is down; NGX_DECLINED: unknown.
 */

static ngx_int_t
ngx_http_coord_sticky_search(ngx_peer_connection_t *pc,
    ngx_http_coord_sticky_data_t *sticky)
{
    ngx_int_t                      rc;
    ngx_http_upstream_rr_peers_t  *peers;

    rc = NGX_DECLINED;

    for (peers = sticky->upstream->peer.data;
         peers && rc == NGX_DECLINED;
         peers = peers->next)
    {
        ngx_http_upstream_rr_peers_wlock(peers);
        rc = ngx_http_coord_sticky_find(pc, sticky, peers);
        ngx_http_upstream_rr_peers_unlock(peers);
    }

    return rc;
}


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

        rc = ngx_http_coord_sticky_usable(peer);

        if (rc == NGX_OK) {
            ngx_http_coord_sticky_use(pc, sticky, peers, peer);
        }

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
ngx_http_coord_sticky_usable(ngx_http_upstream_rr_peer_t *peer)
{
    ngx_uint_t  down;

    down = peer->down;

#if (NGX_HTTP_UPSTREAM_STICKY)

    /* a peer that is being drained keeps the sessions that it has */

    down &= ~NGX_HTTP_UPSTREAM_DRAINING;
#endif

    if (down
        || (peer->max_fails
            && peer->fails >= peer->max_fails
            && ngx_time() - peer->checked <= peer->fail_timeout))
    {
        return NGX_ABORT;
    }

    if (peer->max_conns && peer->conns >= peer->max_conns) {
        return NGX_BUSY;
    }

    return NGX_OK;
}


static void
ngx_http_coord_sticky_use(ngx_peer_connection_t *pc,
    ngx_http_coord_sticky_data_t *sticky, ngx_http_upstream_rr_peers_t *peers,
    ngx_http_upstream_rr_peer_t *peer)
{
    time_t  now;

#if (NGX_HTTP_UPSTREAM_SID)

    if (ngx_http_coord_sticky_note(sticky, peers, peer)) {
        return;
    }

    pc->sid = &peer->sid;
#endif

    now = ngx_time();

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
}


#if (NGX_HTTP_UPSTREAM_SID)

/* whether the balancer can be told of the peer: its hint is copied then */

static ngx_uint_t
ngx_http_coord_sticky_note(ngx_http_coord_sticky_data_t *sticky,
    ngx_http_upstream_rr_peers_t *peers, ngx_http_upstream_rr_peer_t *peer)
{
    if (sticky->conf->no_hints
        || peers != sticky->upstream->peer.data
        || peer->sid.len == 0
        || peer->sid.len > NGX_HTTP_UPSTREAM_SID_LEN)
    {
        return 0;
    }

    sticky->name = &peer->name;
    sticky->sid.len = peer->sid.len;
    sticky->sid.data = sticky->sid_data;

    ngx_memcpy(sticky->sid_data, peer->sid.data, peer->sid.len);

    return 1;
}


/* NGX_DECLINED: the balancer does not take hints; else as peer.get() */

static ngx_int_t
ngx_http_coord_sticky_hint(ngx_peer_connection_t *pc,
    ngx_http_coord_sticky_data_t *sticky)
{
    ngx_int_t   rc;
    ngx_str_t  *hint;

    hint = pc->hint;
    pc->hint = &sticky->sid;

    rc = sticky->get(pc, sticky->data);

    pc->hint = hint;

    if (rc == NGX_OK && pc->sid == NULL) {
        sticky->conf->no_hints = 1;
        ngx_http_coord_sticky_give_back(pc, sticky);

        return NGX_DECLINED;
    }

    if (pc->name == sticky->name) {
        sticky->hinted = 1;

    } else {
        ngx_http_coord_session_unusable(sticky->request);
    }

    return rc;
}

#endif


static void
ngx_http_coord_sticky_free_peer(ngx_peer_connection_t *pc, void *data,
    ngx_uint_t state)
{
    ngx_http_coord_sticky_data_t *sticky = data;

#if (NGX_HTTP_UPSTREAM_SID)

    if (sticky->hinted) {
        sticky->hinted = 0;

        if (state & NGX_PEER_FAILED) {
            ngx_http_coord_session_unusable(sticky->request);
        }
    }

#endif

    if (!sticky->chosen) {
        sticky->free(pc, sticky->data, state);
        return;
    }

    sticky->chosen = 0;
    sticky->failed = pc->name;

    if (state & NGX_PEER_FAILED) {
        ngx_http_coord_session_unusable(sticky->request);
    }

    ngx_http_upstream_free_round_robin_peer(pc, &sticky->rrp, state);
}


/* of a peer that was chosen without it the balancer knows nothing */

static void
ngx_http_coord_sticky_notify(ngx_peer_connection_t *pc, void *data,
    ngx_uint_t type)
{
    ngx_http_coord_sticky_data_t *sticky = data;

    if (!sticky->chosen) {
        sticky->notify(pc, sticky->data, type);
    }
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
