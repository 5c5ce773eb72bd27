
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Sliding logs: a set of times, each with an id; in Redis in microseconds,
 * since scores are doubles.
 */


#include "ngx_coord_op_arg.h"
#include "ngx_coord_op_log.h"
#include "ngx_coord_op_set.h"
#include "ngx_coord_deny.h"


/* a log in memory */
typedef struct {
    ngx_coord_table_t         *table;
    ngx_coord_entry_t         *entry;
    ngx_uint_t                 used;
    ngx_coord_nsec_t           first;     /* the earliest time, or 0 */
    ngx_coord_nsec_t           last;      /* the latest of the tail, or 0 */
    ngx_coord_data_t          *tail;      /* the last cell */
} ngx_coord_log_t;


static void ngx_coord_log_take_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_log_take_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_log_look_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static ngx_coord_nsec_t ngx_coord_log_time(ngx_coord_log_t *log,
    ngx_uint_t n);
static void ngx_coord_log_trim(ngx_coord_log_t *log, ngx_coord_nsec_t gone);
static void ngx_coord_log_tail(ngx_coord_log_t *log, ngx_coord_data_t *data,
    ngx_uint_t all);
static void ngx_coord_log_save(ngx_coord_log_t *log);
static ngx_int_t ngx_coord_log_append(ngx_coord_log_t *log, u_char *id,
    ngx_coord_nsec_t now);
static ngx_coord_slot_t *ngx_coord_log_find(ngx_coord_log_t *log, u_char *id);
static ngx_coord_slot_t *ngx_coord_log_slot(ngx_coord_data_t *data,
    u_char *id);
static void ngx_coord_log_give_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static void ngx_coord_log_peek_build(ngx_coord_command_t *cmd,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_log_peek_parse(ngx_coord_op_t *op,
    ngx_coord_resp_value_t **values, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_log_peek_run(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);


const ngx_coord_op_type_t  ngx_coord_op_log_take = {
    ngx_string("log_take"),
    NGX_COORD_OP_TAKES|NGX_COORD_OP_JOINS|NGX_COORD_OP_FULL_BUSY,
    NGX_COORD_KIND_LOG,
    NGX_COORD_SCRIPT_SLIDING_LOG_TAKE,
    ngx_coord_log_take_build,
    ngx_coord_log_take_parse,
    ngx_coord_window_take_known,
    ngx_coord_log_take_run,
    &ngx_coord_op_log_give,
    &ngx_coord_op_log_peek,
    &ngx_coord_op_log_forget,
    NULL,
    ngx_coord_take_same
};


const ngx_coord_op_type_t  ngx_coord_op_log_give = {
    ngx_string("log_give"),
    NGX_COORD_OP_JOINS,
    NGX_COORD_KIND_LOG,
    NGX_COORD_SCRIPT_SLIDING_LOG_GIVE,
    ngx_coord_log_give_build,
    ngx_coord_window_give_parse,
    NULL,
    ngx_coord_log_give_run,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL
};


/* a take that takes nothing, or of no places */

static const ngx_coord_op_type_t  ngx_coord_op_log_look = {
    ngx_string("log_look"),
    NGX_COORD_OP_JOINS|NGX_COORD_OP_LOOKS,
    NGX_COORD_KIND_LOG,
    NGX_COORD_SCRIPT_SET_PEEK,
    ngx_coord_log_peek_build,
    ngx_coord_log_look_parse,
    ngx_coord_window_take_known,
    ngx_coord_log_take_run,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL
};


const ngx_coord_op_type_t  ngx_coord_op_log_peek = {
    ngx_string("log_peek"),
    0,
    NGX_COORD_KIND_LOG,
    NGX_COORD_SCRIPT_SET_PEEK,
    ngx_coord_log_peek_build,
    ngx_coord_log_peek_parse,
    NULL,
    ngx_coord_log_peek_run,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL
};


const ngx_coord_op_type_t  ngx_coord_op_log_forget = {
    ngx_string("log_forget"),
    NGX_COORD_OP_FREES,
    NGX_COORD_KIND_LOG,
    NGX_COORD_SCRIPT_WINDOW_FORGET,
    ngx_coord_window_forget_build,
    ngx_coord_window_forget_parse,
    NULL,
    ngx_coord_forget_run,
    NULL,
    NULL,
    NULL,
    NULL,
    NULL
};


const ngx_coord_op_type_t *
ngx_coord_op_log(ngx_coord_rate_t *rate)
{
    if (rate->look || rate->cost == 0) {
        return &ngx_coord_op_log_look;
    }

    return (rate->cost == 1 && !rate->force) ? &ngx_coord_op_log_take
                                             : &ngx_coord_op_log_many;
}


static void
ngx_coord_log_take_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_arg_t     *a;
    ngx_coord_window_t   window;

    (void) ngx_coord_window_init(&window, &op->u.rate);

    a = cmd->args;

    ngx_coord_arg_key(cmd, NGX_COORD_SLIDING_LOG_TAKE_K, op, "}");
    ngx_coord_arg_num(&a[NGX_COORD_SLIDING_LOG_TAKE_OLD],
                      (now - window.length) / NGX_COORD_NSEC_PER_USEC);
    ngx_coord_arg_askers(cmd, NGX_COORD_SLIDING_LOG_TAKE_ASKS,
                         NGX_COORD_SLIDING_LOG_TAKE_ENTRIES, op,
                         ngx_max(now, 0) / NGX_COORD_NSEC_PER_USEC);
    ngx_coord_arg_num(&a[NGX_COORD_SLIDING_LOG_TAKE_FROM], -window.limit);
    ngx_coord_arg_num(&a[NGX_COORD_SLIDING_LOG_TAKE_LAST], op->behind);
    ngx_coord_arg_num(&a[NGX_COORD_SLIDING_LOG_TAKE_WINDOW],
                      ngx_coord_ttl(window.length));
}


static ngx_int_t
ngx_coord_log_take_parse(ngx_coord_op_t *op, ngx_coord_resp_value_t **values,
    ngx_coord_nsec_t now)
{
    int64_t                  granted, used;
    ngx_int_t                rc;
    ngx_coord_nsec_t         first;
    ngx_coord_window_t       window;
    ngx_coord_resp_value_t  *v;

    granted = ngx_coord_reply(SLIDING_LOG_TAKE, GRANTED)->integer;
    used = ngx_coord_reply(SLIDING_LOG_TAKE, USED)->integer;
    v = ngx_coord_reply(SLIDING_LOG_TAKE, FIRST);

    if (granted != ngx_coord_reply(SLIDING_LOG_TAKE, ROOM)->integer
        || granted < 0
        || granted > op->behind + 1
        || ngx_coord_reply(SLIDING_LOG_TAKE, REFUSED)->integer
           != op->behind + 1 - granted
        || used < granted)
    {
        return NGX_ERROR;
    }

    rc = NGX_BUSY;

    if (op->nth < granted) {
        used -= granted - 1 - op->nth;
        rc = NGX_OK;
    }

    first = now;

    if (v->integer == 2
        && ngx_coord_time_parse(ngx_coord_resp_element(v, 1), &first)
           != NGX_OK)
    {
        return NGX_ERROR;
    }

    (void) ngx_coord_window_init(&window, &op->u.rate);

    op->u.rate.mark = now;

    /* the newest entry is not told: now is the latest it can be */

    rc = ngx_coord_log_answer(&window, &op->u.rate, rc, used, first, now,
                              now);

    return ngx_coord_deny_window_keep(op, rc, now);
}


ngx_int_t
ngx_coord_log_take_run(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    u_char               id[NGX_COORD_ID_LEN];
    ngx_int_t            rc;
    ngx_uint_t           i, used;
    ngx_coord_log_t      log;
    ngx_coord_rate_t    *rate;
    ngx_coord_window_t   window;

    rate = &op->u.rate;

    if (ngx_coord_window_init(&window, rate) != NGX_OK) {
        return ngx_coord_rate_never(rate);
    }

    log.table = table;
    log.entry = ngx_coord_entry_find(table, op, now);

    if (log.entry == NULL && window.take == 0) {
        return ngx_coord_log_answer(&window, rate, NGX_OK, 0, now, now, now);
    }

    if (log.entry == NULL) {
        log.entry = ngx_coord_entry_insert(table, op, NGX_COORD_ENTRY_EVICT,
                                           NULL, now + window.length, now);
        if (log.entry == NULL) {
            return NGX_ERROR;
        }
    }

    ngx_coord_log_trim(&log, now - window.length);

    rate->mark = now;
    used = log.used;

    if ((int64_t) used > window.room) {
        return ngx_coord_log_answer(&window, rate, NGX_BUSY, used,
                                    ngx_coord_log_time(&log,
                                                       used - window.room),
                                    log.last ? log.last : now, now);
    }

    if (window.take == 0) {
        return ngx_coord_log_answer(&window, rate, NGX_OK, used, log.first,
                                    log.last ? log.last : now, now);
    }

    /* the entry first: it must outlive what it holds */

    log.entry->expires = ngx_max(log.entry->expires, now + window.length);

    for (i = 0; i < (ngx_uint_t) window.take; i++) {
        ngx_coord_log_id(op, i, id);

        rc = ngx_coord_log_append(&log, id, now);

        if (rc != NGX_OK) {
            rate->cost = i;

            (void) ngx_coord_log_give_run(table, op, now);

            return NGX_ERROR;
        }
    }

    return ngx_coord_log_answer(&window, rate, NGX_OK, used + window.take,
                                used ? log.first : now, now, now);
}


/* the time of the n-th entry, from 1 */

static ngx_coord_nsec_t
ngx_coord_log_time(ngx_coord_log_t *log, ngx_uint_t n)
{
    ngx_uint_t         i;
    ngx_coord_data_t  *data;
    ngx_coord_slot_t  *slot;

    for (data = ngx_coord_table_first(log->table, log->entry);
         data;
         data = ngx_coord_table_next(log->table, data))
    {
        slot = (ngx_coord_slot_t *) data->data;

        for (i = 0; i < NGX_COORD_SLOTS; i++, slot++) {
            if (slot->at && --n == 0) {
                return slot->at;
            }
        }
    }

    return log->last;
}


void
ngx_coord_log_id(ngx_coord_op_t *op, ngx_uint_t n, u_char *id)
{
    u_char  *p;

    ngx_memcpy(id, op->id, NGX_COORD_ID_LEN);

    for (p = id + NGX_COORD_ID_LEN - 1; n; p--, n >>= 8) {
        *p ^= (u_char) n;
    }
}


/*
 * Drops what is over, at the head of the log: its slots stand in the order of
 * time, so that a request costs the same however long the log is.  The count
 * stands in the entry; after a repair of the table it is counted anew.
 */

static void
ngx_coord_log_trim(ngx_coord_log_t *log, ngx_coord_nsec_t gone)
{
    ngx_uint_t         i, all;
    ngx_coord_data_t  *data;
    ngx_coord_slot_t  *slot;

    all = (log->entry->payload[0] >> 32 != (uint32_t) log->table->repairs);

    log->used = all ? 0 : (uint32_t) log->entry->payload[0];
    log->first = 0;
    log->last = 0;
    log->tail = NULL;

    data = ngx_coord_table_first(log->table, log->entry);

    while (data) {
        slot = (ngx_coord_slot_t *) data->data;

        for (i = 0; i < NGX_COORD_SLOTS && log->first == 0; i++, slot++) {

            if (slot->at > gone) {
                log->first = slot->at;

            } else if (slot->at) {
                slot->at = 0;
                log->used -= !all;
            }
        }

        if (log->first) {
            break;
        }

        data = ngx_coord_table_drop(log->table, log->entry, NULL);
    }

    ngx_coord_log_tail(log, data, all);
}


/* finds the last cell, and counts the slots from data on where asked to */

static void
ngx_coord_log_tail(ngx_coord_log_t *log, ngx_coord_data_t *data,
    ngx_uint_t all)
{
    ngx_uint_t         i;
    ngx_coord_slot_t  *slot;

    if (data && !all) {
        data = &ngx_coord_table_cells(log->table)[log->entry->payload[1]].data;
    }

    for ( /* void */ ; data; data = ngx_coord_table_next(log->table, data)) {
        log->tail = data;
        slot = (ngx_coord_slot_t *) data->data;

        for (i = 0; i < NGX_COORD_SLOTS; i++, slot++) {
            log->last = ngx_max(log->last, slot->at);
            log->used += (all && slot->at);
        }
    }

    ngx_coord_log_save(log);
}


static void
ngx_coord_log_save(ngx_coord_log_t *log)
{
    ngx_coord_cell_t  *cell;

    cell = (ngx_coord_cell_t *) log->tail;

    log->entry->payload[0] = (uint64_t) (uint32_t) log->table->repairs << 32
                             | (uint32_t) log->used;
    log->entry->payload[1] = cell ? cell - ngx_coord_table_cells(log->table)
                                  : 0;
}


/* behind all others: never into a slot that was given back */

static ngx_int_t
ngx_coord_log_append(ngx_coord_log_t *log, u_char *id, ngx_coord_nsec_t now)
{
    ngx_uint_t         n;
    ngx_coord_data_t  *data;
    ngx_coord_slot_t  *slot;

    n = NGX_COORD_SLOTS;
    data = log->tail;

    if (data) {
        slot = (ngx_coord_slot_t *) data->data;

        while (n && slot[n - 1].at == 0) {
            n--;
        }
    }

    if (n == NGX_COORD_SLOTS) {
        data = ngx_coord_table_add(log->table, log->entry, log->tail, now);

        if (data == NULL) {
            return NGX_ERROR;
        }

        n = 0;
    }

    slot = (ngx_coord_slot_t *) data->data + n;

    ngx_memcpy(slot->id, id, NGX_COORD_ID_LEN);

    ngx_coord_table_commit();

    slot->at = now;

    log->tail = data;
    log->used++;

    ngx_coord_log_save(log);

    return NGX_OK;
}


static void
ngx_coord_log_give_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_arg_key(cmd, NGX_COORD_SLIDING_LOG_GIVE_K, op, "}");
    ngx_coord_arg_entry(cmd, NGX_COORD_SLIDING_LOG_GIVE_ID, op);
}


ngx_int_t
ngx_coord_log_give_run(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    u_char               id[NGX_COORD_ID_LEN];
    ngx_uint_t           i;
    ngx_coord_log_t      log;
    ngx_coord_slot_t    *slot;
    ngx_coord_window_t   window;

    log.table = table;
    log.entry = ngx_coord_entry_find(table, op, now);

    if (log.entry == NULL) {
        return NGX_OK;
    }

    (void) ngx_coord_window_init(&window, &op->u.rate);

    ngx_coord_log_trim(&log, now - window.length);

    for (i = 0; i < (ngx_uint_t) window.take; i++) {
        ngx_coord_log_id(op, i, id);

        slot = ngx_coord_log_find(&log, id);

        if (slot) {
            slot->at = 0;
            log.used--;
        }
    }

    ngx_coord_log_save(&log);

    if (log.used == 0) {
        ngx_coord_table_remove(table, log.entry);
    }

    return NGX_OK;
}


/* what is given back was mostly taken just now: the last cell first */

static ngx_coord_slot_t *
ngx_coord_log_find(ngx_coord_log_t *log, u_char *id)
{
    ngx_coord_data_t  *data;
    ngx_coord_slot_t  *slot;

    slot = log->tail ? ngx_coord_log_slot(log->tail, id) : NULL;
    data = slot ? NULL : ngx_coord_table_first(log->table, log->entry);

    while (data && slot == NULL) {
        slot = ngx_coord_log_slot(data, id);
        data = ngx_coord_table_next(log->table, data);
    }

    return slot;
}


/* the slot of an id in a cell; NULL: there is none */

static ngx_coord_slot_t *
ngx_coord_log_slot(ngx_coord_data_t *data, u_char *id)
{
    ngx_uint_t         i;
    ngx_coord_slot_t  *slot;

    slot = (ngx_coord_slot_t *) data->data;

    for (i = 0; i < NGX_COORD_SLOTS; i++, slot++) {
        if (slot->at && ngx_memcmp(slot->id, id, NGX_COORD_ID_LEN) == 0) {
            return slot;
        }
    }

    return NULL;
}


static void
ngx_coord_log_peek_build(ngx_coord_command_t *cmd, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_window_t  window;

    (void) ngx_coord_window_init(&window, &op->u.rate);

    ngx_coord_arg_key(cmd, NGX_COORD_SET_PEEK_K, op, "}");
    ngx_coord_arg_num(&cmd->args[NGX_COORD_SET_PEEK_FROM],
                      (now - window.length) / NGX_COORD_NSEC_PER_USEC + 1);
}


static ngx_int_t
ngx_coord_log_peek_parse(ngx_coord_op_t *op, ngx_coord_resp_value_t **values,
    ngx_coord_nsec_t now)
{
    int64_t           used;
    ngx_coord_nsec_t  first;

    first = now;

    if (ngx_coord_set_peek_parse(values, &used, &first) != NGX_OK) {
        return NGX_ERROR;
    }

    return ngx_coord_peek_log(&op->u.rate, used, first, now);
}


static ngx_int_t
ngx_coord_log_look_parse(ngx_coord_op_t *op, ngx_coord_resp_value_t **values,
    ngx_coord_nsec_t now)
{
    int64_t             used;
    ngx_int_t           rc;
    ngx_coord_nsec_t    first;
    ngx_coord_window_t  window;

    first = now;

    if (ngx_coord_set_peek_parse(values, &used, &first) != NGX_OK) {
        return NGX_ERROR;
    }

    (void) ngx_coord_window_init(&window, &op->u.rate);

    rc = (used <= window.room) ? NGX_OK : NGX_BUSY;

    rc = ngx_coord_log_answer(&window, &op->u.rate, rc, used, first, now, now);

    return ngx_coord_deny_window_keep(op, rc, now);
}


static ngx_int_t
ngx_coord_log_peek_run(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_log_t     log;
    ngx_coord_window_t  window;

    (void) ngx_coord_window_init(&window, &op->u.rate);

    log.table = table;
    log.entry = ngx_coord_entry_find(table, op, now);

    if (log.entry == NULL) {
        return ngx_coord_peek_log(&op->u.rate, 0, now, now);
    }

    ngx_coord_log_trim(&log, now - window.length);

    return ngx_coord_peek_log(&op->u.rate, log.used,
                              log.used ? log.first : now, now);
}
