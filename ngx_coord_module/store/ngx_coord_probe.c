
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * INFO in the background.
 */


#include "ngx_coord_probe.h"
#include "ngx_coord_store_redis.h"
#include "ngx_coord_timer.h"


#define NGX_COORD_PROBE_INTERVAL  1000       /* milliseconds */


typedef enum {
    NGX_COORD_PROBE_IDLE = 0,
    NGX_COORD_PROBE_ASKING,
    NGX_COORD_PROBE_OVERDUE,       /* and reported */
    NGX_COORD_PROBE_DENIED         /* the user may not ask: for ever */
} ngx_coord_probe_state_e;


typedef struct {
    ngx_coord_store_t         *store;
    ngx_coord_redis_call_t     call;
    ngx_coord_probe_state_e    state;
} ngx_coord_probe_t;


typedef struct {
    ngx_coord_probe_t         *probes;
    ngx_uint_t                 n;
    ngx_coord_timer_t          timer;
} ngx_coord_probes_t;


/* a line of INFO and where its value goes */
typedef struct {
    ngx_str_t                  name;
    ngx_uint_t                 offset;
    unsigned                   text:1;
} ngx_coord_probe_field_t;


static void ngx_coord_probe_tick(ngx_event_t *ev);
static ngx_uint_t ngx_coord_probe_able(ngx_coord_probe_t *probe);
static void ngx_coord_probe_ask(ngx_coord_probe_t *probe);
static void ngx_coord_probe_expired(ngx_coord_redis_call_t *call);
static void ngx_coord_probe_handler(ngx_coord_redis_call_t *call,
    ngx_int_t rc, ngx_coord_resp_value_t *reply);
static void ngx_coord_probe_failed(ngx_coord_probe_t *probe,
    ngx_coord_fail_e failure);
static void ngx_coord_probe_replica(ngx_coord_store_info_t *info,
    u_char *line, size_t len);
static ngx_int_t ngx_coord_probe_part(u_char *line, size_t len,
    const char *name, ngx_str_t *value);
static void ngx_coord_probe_topology(ngx_coord_probe_t *probe,
    ngx_coord_store_info_t *info);
static void ngx_coord_probe_address(ngx_coord_info_addr_t *addr,
    ngx_str_t *text);
static void ngx_coord_probe_policy(ngx_coord_probe_t *probe,
    ngx_coord_store_info_t *info);
static ngx_uint_t ngx_coord_probe_full(ngx_coord_store_info_t *info);
static void ngx_coord_probe_publish(ngx_coord_store_counts_t *counts,
    ngx_coord_store_info_t *info);
static void ngx_coord_probe_parse(ngx_coord_store_info_t *info,
    ngx_str_t *text);
static void ngx_coord_probe_line(ngx_coord_store_info_t *info, u_char *line,
    size_t len);
static void ngx_coord_probe_value(ngx_coord_store_info_t *info,
    const ngx_coord_probe_field_t *field, u_char *value, size_t len);


#define ngx_coord_info(field)  offsetof(ngx_coord_store_info_t, field)


static const ngx_coord_probe_field_t  ngx_coord_probe_fields[] = {
    { ngx_string("redis_version"), ngx_coord_info(version), 1 },
    { ngx_string("role"), ngx_coord_info(role), 1 },
    { ngx_string("maxmemory_policy"), ngx_coord_info(policy), 1 },
    { ngx_string("master_repl_offset"), ngx_coord_info(offset), 0 },
    { ngx_string("used_memory"), ngx_coord_info(used_memory), 0 },
    { ngx_string("maxmemory"), ngx_coord_info(max_memory), 0 },
    { ngx_string("mem_not_counted_for_evict"),
      ngx_coord_info(uncounted), 0 },
    { ngx_string("connected_clients"), ngx_coord_info(clients), 0 },
    { ngx_string("keyspace_hits"), ngx_coord_info(hits), 0 },
    { ngx_string("keyspace_misses"), ngx_coord_info(misses), 0 },
    { ngx_string("evicted_keys"), ngx_coord_info(evicted), 0 },
    { ngx_string("uptime_in_seconds"), ngx_coord_info(uptime), 0 },
    { ngx_string("loading"), ngx_coord_info(loading), 0 },
    { ngx_null_string, 0, 0 }
};


static const ngx_str_t  ngx_coord_probe_info =
    ngx_string("*1" CRLF "$4" CRLF "INFO" CRLF);

/* of this worker */
static ngx_coord_probes_t  ngx_coord_probes;


ngx_int_t
ngx_coord_probe_start(ngx_coord_metrics_t *metrics, ngx_cycle_t *cycle)
{
    ngx_uint_t           i;
    ngx_coord_store_t  **stores;

    ngx_coord_probe_stop();

    if (metrics->stores->nelts == 0) {
        return NGX_OK;
    }

    ngx_coord_probes.probes = ngx_calloc(metrics->stores->nelts
                                         * sizeof(ngx_coord_probe_t),
                                         cycle->log);
    if (ngx_coord_probes.probes == NULL) {
        return NGX_ERROR;
    }

    stores = metrics->stores->elts;

    for (i = 0; i < metrics->stores->nelts; i++) {
        if (!ngx_coord_store_is_memory(stores[i]) && stores[i]->counts) {
            ngx_coord_probes.probes[ngx_coord_probes.n++].store = stores[i];
        }
    }

    if (ngx_coord_probes.n == 0) {
        return NGX_OK;
    }

    ngx_coord_timer_init(&ngx_coord_probes.timer, ngx_coord_probe_tick, NULL,
                         cycle->log);
    ngx_coord_probes.timer.event.cancelable = 1;

    ngx_coord_timer_start(&ngx_coord_probes.timer, 1);

    return NGX_OK;
}


void
ngx_coord_probe_stop(void)
{
    ngx_coord_timer_stop(&ngx_coord_probes.timer);

    if (ngx_coord_probes.probes) {
        ngx_free(ngx_coord_probes.probes);
    }

    ngx_memzero(&ngx_coord_probes, sizeof(ngx_coord_probes_t));
}


static void
ngx_coord_probe_tick(ngx_event_t *ev)
{
    ngx_uint_t                 i;
    ngx_coord_probe_t         *probe;
    ngx_atomic_uint_t          asked, now;
    ngx_coord_store_counts_t  *counts;

    now = ngx_current_msec / NGX_COORD_PROBE_INTERVAL;

    for (i = 0; i < ngx_coord_probes.n; i++) {
        probe = &ngx_coord_probes.probes[i];
        counts = probe->store->counts;
        asked = counts->asked;

        /* who cannot ask leaves it to another, if there is one */

        if (asked == now
            || (!ngx_coord_probe_able(probe) && now - asked < 2))
        {
            continue;
        }

        if (ngx_atomic_cmp_set(&counts->asked, asked, now)) {
            ngx_coord_metrics_sample(probe->store);
            ngx_coord_probe_ask(probe);
        }
    }

    if (!ngx_exiting) {
        ngx_add_timer(ev, NGX_COORD_PROBE_INTERVAL
                          - ngx_current_msec % NGX_COORD_PROBE_INTERVAL
                          + ngx_random() % 100);
    }
}


static ngx_uint_t
ngx_coord_probe_able(ngx_coord_probe_t *probe)
{
    return probe->state == NGX_COORD_PROBE_IDLE
           && ngx_coord_store_ready(probe->store);
}


static void
ngx_coord_probe_ask(ngx_coord_probe_t *probe)
{
    ngx_coord_redis_t       *client;
    ngx_coord_redis_call_t  *call;

    if (probe->state != NGX_COORD_PROBE_IDLE) {
        return;
    }

    call = &probe->call;

    ngx_coord_redis_command(call, &ngx_coord_probe_info);

    call->expired = ngx_coord_probe_expired;
    call->handler = ngx_coord_probe_handler;
    call->data = probe;

    client = ngx_coord_store_redis(probe->store)->client;
    call->slot = ngx_coord_redis_live_slot(client);

    if (ngx_coord_redis_send(client, call) == NGX_AGAIN) {
        probe->state = NGX_COORD_PROBE_ASKING;
        return;
    }

    ngx_coord_probe_failed(probe, call->failure);
}


static void
ngx_coord_probe_expired(ngx_coord_redis_call_t *call)
{
    ngx_coord_probe_t *probe = call->data;

    probe->state = NGX_COORD_PROBE_OVERDUE;

    ngx_coord_probe_failed(probe, NGX_COORD_FAIL_TIMEOUT);
}


static void
ngx_coord_probe_handler(ngx_coord_redis_call_t *call, ngx_int_t rc,
    ngx_coord_resp_value_t *reply)
{
    ngx_coord_probe_t *probe = call->data;

    ngx_str_t                text;
    ngx_coord_store_info_t   info;
    ngx_coord_probe_state_e  state;

    state = probe->state;
    probe->state = NGX_COORD_PROBE_IDLE;

    if (state == NGX_COORD_PROBE_OVERDUE) {
        return;
    }

    if (rc != NGX_OK) {

        if (call->failure == NGX_COORD_FAIL_AUTH) {
            probe->state = NGX_COORD_PROBE_DENIED;
        }

        ngx_coord_probe_failed(probe, call->failure);
        return;
    }

    if (ngx_coord_resp_string(reply, &text) != NGX_OK) {
        probe->state = NGX_COORD_PROBE_DENIED;
        ngx_coord_probe_failed(probe, NGX_COORD_FAIL_ERROR);
        return;
    }

    ngx_memzero(&info, sizeof(ngx_coord_store_info_t));

    ngx_coord_probe_parse(&info, &text);
    ngx_coord_probe_topology(probe, &info);
    ngx_coord_probe_policy(probe, &info);

    info.rtt_usec = (ngx_coord_monotonic() - call->start)
                    / NGX_COORD_NSEC_PER_USEC;
    info.taken = ngx_max(ngx_current_msec, 1);

    if (!ngx_coord_redis_serves(ngx_coord_store_redis(probe->store)->client,
                                call->slot)
        || ngx_coord_probe_full(&info)
        || info.loading)
    {
        info.failure = NGX_COORD_FAIL_UNAVAILABLE;
        info.failed = ngx_current_msec;
    }

    ngx_coord_probe_publish(probe->store->counts, &info);
}


static void
ngx_coord_probe_failed(ngx_coord_probe_t *probe, ngx_coord_fail_e failure)
{
    ngx_coord_store_info_t  info;

    info = probe->store->counts->info;

    /* with an open breaker nobody was asked: the last answer stands */

    if (failure != NGX_COORD_FAIL_BREAKER
        || info.failure == NGX_COORD_FAIL_NONE)
    {
        info.failure = failure;
    }

    info.failed = ngx_current_msec;

    ngx_coord_probe_publish(probe->store->counts, &info);
}


/* "slave0:ip=127.0.0.1,port=6380,state=online,offset=42,lag=1" */

static void
ngx_coord_probe_replica(ngx_coord_store_info_t *info, u_char *line,
    size_t len)
{
    u_char                    *last;
    off_t                      n;
    ngx_str_t                  ip, port, state, value;
    ngx_coord_info_replica_t  *replica;

    if (info->nreplicas == NGX_COORD_INFO_REPLICAS) {
        return;
    }

    if (ngx_coord_probe_part(line, len, "ip=", &ip) != NGX_OK
        || ngx_coord_probe_part(line, len, "port=", &port) != NGX_OK
        || ngx_coord_probe_part(line, len, "state=", &state) != NGX_OK)
    {
        return;
    }

    replica = &info->replicas[info->nreplicas++];

    last = ngx_snprintf(replica->address.data, NGX_COORD_INFO_ADDR, "%V:%V",
                        &ip, &port);
    replica->address.len = last - replica->address.data;
    replica->online = (state.len == 6
                       && ngx_memcmp(state.data, "online", 6) == 0);

    if (ngx_coord_probe_part(line, len, "lag=", &value) == NGX_OK) {
        n = ngx_atoof(value.data, value.len);
        replica->lag = n > 0 ? n : 0;
    }

    if (ngx_coord_probe_part(line, len, "offset=", &value) == NGX_OK) {
        n = ngx_atoof(value.data, value.len);
        replica->behind = n > 0 ? n : 0;
    }
}


/* the value behind name in a list with commas */

static ngx_int_t
ngx_coord_probe_part(u_char *line, size_t len, const char *name,
    ngx_str_t *value)
{
    u_char  *p, *last;
    size_t   n;

    n = ngx_strlen(name);
    last = line + len;

    for (p = line; (size_t) (last - p) > n; p++) {

        if (p != line && p[-1] != ',' && p[-1] != ':') {
            continue;
        }

        if (ngx_memcmp(p, name, n) == 0) {
            value->data = p + n;
            p = ngx_strlchr(value->data, last, ',');
            value->len = (p ? p : last) - value->data;

            return NGX_OK;
        }
    }

    return NGX_DECLINED;
}


/* what is not in INFO: who was asked, and how it was found */

static void
ngx_coord_probe_topology(ngx_coord_probe_t *probe,
    ngx_coord_store_info_t *info)
{
    ngx_uint_t                i;
    ngx_coord_redis_conf_t   *conf;
    ngx_coord_redis_where_t   where;

    conf = ngx_coord_store_conf(probe->store);

    ngx_coord_redis_where(ngx_coord_store_redis(probe->store)->client,
                          probe->call.slot, &where);

    ngx_coord_probe_address(&info->address, &where.address);

    for (i = 0; i < info->nreplicas; i++) {
        info->replicas[i].behind = info->offset > info->replicas[i].behind
                                   ? info->offset - info->replicas[i].behind
                                   : 0;
    }

    if (conf->mode == NGX_COORD_MODE_SENTINEL) {
        ngx_coord_probe_address(&info->master, &conf->master);
        info->sentinels = conf->servers->nelts;
        info->switched = where.switched;

        ngx_coord_probe_address(&info->sentinel, &where.sentinel);
    }

    /* another worker may have seen it */

    info->switched = ngx_max(info->switched,
                             probe->store->counts->info.switched);
}


static void
ngx_coord_probe_address(ngx_coord_info_addr_t *addr, ngx_str_t *text)
{
    addr->len = ngx_min(text->len, NGX_COORD_INFO_ADDR);

    ngx_memcpy(addr->data, text->data, addr->len);
}


/* a server that drops what it has promised to keep is told of once */

static void
ngx_coord_probe_policy(ngx_coord_probe_t *probe, ngx_coord_store_info_t *info)
{
    u_char                 buf[NGX_COORD_LOG_TEXT];
    ngx_str_t              text;
    ngx_coord_info_str_t  *last;

    text.data = info->policy.data;
    text.len = info->policy.len;
    last = &probe->store->counts->info.policy;

    if (text.len == 0
        || (text.len == last->len
            && ngx_memcmp(text.data, last->data, text.len) == 0)
        || (text.len == sizeof("noeviction") - 1
            && ngx_memcmp(text.data, "noeviction", text.len) == 0)
        || (text.len == sizeof("volatile-ttl") - 1
            && ngx_memcmp(text.data, "volatile-ttl", text.len) == 0))
    {
        return;
    }

    text = ngx_coord_log_text(buf, &text);

    ngx_log_error(NGX_LOG_WARN, probe->store->cycle->log, 0,
                  "coord store \"%V\": the server has \"maxmemory-policy "
                  "%V\", under which limits, leases and sessions may be "
                  "evicted, \"noeviction\" or \"volatile-ttl\" is advised",
                  &probe->store->name, &text);
}


/* 1 if the server refuses whatever may need memory, and makes no room */

static ngx_uint_t
ngx_coord_probe_full(ngx_coord_store_info_t *info)
{
    return info->max_memory
           && info->used_memory > info->max_memory + info->uncounted
           && info->policy.len == sizeof("noeviction") - 1
           && ngx_memcmp(info->policy.data, "noeviction", info->policy.len)
              == 0;
}


/* readers see the version change; see ngx_coord_metrics_info() */

static void
ngx_coord_probe_publish(ngx_coord_store_counts_t *counts,
    ngx_coord_store_info_t *info)
{
    ngx_atomic_uint_t  version;

    version = counts->version | 1;
    counts->version = version;

    ngx_memory_barrier();

    counts->info = *info;

    ngx_memory_barrier();

    counts->version = version + 1;
}


static void
ngx_coord_probe_parse(ngx_coord_store_info_t *info, ngx_str_t *text)
{
    u_char  *p, *line, *last;

    p = text->data;
    last = text->data + text->len;

    while (p < last) {
        line = p;

        while (p < last && *p != CR && *p != LF) {
            p++;
        }

        ngx_coord_probe_line(info, line, p - line);

        p++;
    }
}


static void
ngx_coord_probe_line(ngx_coord_store_info_t *info, u_char *line, size_t len)
{
    const ngx_coord_probe_field_t  *field;

    if (len > 6 && ngx_memcmp(line, "slave", 5) == 0
        && line[5] >= '0' && line[5] <= '9')
    {
        ngx_coord_probe_replica(info, line, len);
        return;
    }

    for (field = ngx_coord_probe_fields; field->name.len; field++) {
        if (len > field->name.len
            && line[field->name.len] == ':'
            && ngx_memcmp(line, field->name.data, field->name.len) == 0)
        {
            ngx_coord_probe_value(info, field, line + field->name.len + 1,
                                  len - field->name.len - 1);
            return;
        }
    }
}


static void
ngx_coord_probe_value(ngx_coord_store_info_t *info,
    const ngx_coord_probe_field_t *field, u_char *value, size_t len)
{
    off_t                  n;
    uint64_t              *number;
    ngx_coord_info_str_t  *str;

    if (field->text) {
        str = (ngx_coord_info_str_t *) ((u_char *) info + field->offset);

        str->len = ngx_min(len, NGX_COORD_INFO_STR);
        ngx_memcpy(str->data, value, str->len);
        return;
    }

    n = ngx_atoof(value, len);

    if (n != NGX_ERROR) {
        number = (uint64_t *) ((u_char *) info + field->offset);
        *number = n;
    }
}
