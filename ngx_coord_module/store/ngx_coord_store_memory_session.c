
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Sessions in the shared memory of a zone: those of the memory store, and
 * copies of what this node saw in Redis.
 *
 *   session   payload[0]: created; blob: flags, length of user, user, value
 *   user      slots: last activity and name of each session
 */


#include "ngx_coord_store_memory.h"


#define NGX_COORD_SESSION_BOUND    0x01
#define NGX_COORD_SESSION_REVOKED  0x02

#define NGX_COORD_SESSION_HEAD     2
#define NGX_COORD_SESSION_BLOB                                                \
    (NGX_COORD_SESSION_HEAD + NGX_COORD_DIGEST_HEX_LEN                        \
     + NGX_COORD_SESSION_VALUE_LEN)

/* as what Redis is told: an index outlives its sessions */
#define NGX_COORD_USER_SLACK       NGX_COORD_NSEC_PER_SEC


/* a session of a user; at counts, and is therefore written last */
typedef struct {
    ngx_coord_nsec_t           at;        /* last activity; 0: free */
    u_char                     id[NGX_COORD_ID_LEN];
} ngx_coord_user_slot_t;


#define NGX_COORD_USER_SLOTS                                                  \
    (NGX_COORD_CELL_DATA / sizeof(ngx_coord_user_slot_t))


typedef struct {
    ngx_uint_t                 used;
    ngx_coord_user_slot_t     *own;       /* the slot with the id */
    ngx_coord_user_slot_t     *free;
    ngx_coord_user_slot_t     *oldest;    /* but own */
    ngx_coord_data_t          *tail;
} ngx_coord_user_slots_t;


static ngx_int_t ngx_coord_memory_session_get(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_memory_session_bind(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_memory_session_set(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_memory_session_touch(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_memory_session_revoke(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_memory_session_keep(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_memory_user_check(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_memory_user_add(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_memory_user_seen(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_memory_user_drop(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_memory_user_list(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_memory_user_revoke(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);

static ngx_coord_entry_t *ngx_coord_session_find(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_coord_entry_t *ngx_coord_session_load(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_nsec_t now);
static ngx_int_t ngx_coord_session_save(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_entry_t *entry, ngx_coord_nsec_t now);
static size_t ngx_coord_session_pack(ngx_coord_op_t *op, u_char *buf);
static ngx_coord_entry_t *ngx_coord_user_slots(ngx_coord_table_t *table,
    ngx_coord_op_t *op, ngx_coord_user_slots_t *slots, ngx_coord_nsec_t now);
static void ngx_coord_user_item(ngx_coord_session_item_t *items,
    ngx_uint_t n, ngx_coord_user_slot_t *slot, ngx_coord_nsec_t now);


const ngx_coord_memory_op_pt  ngx_coord_memory_session_ops[] = {
    ngx_coord_memory_session_get,
    ngx_coord_memory_session_bind,
    ngx_coord_memory_session_set,
    ngx_coord_memory_session_touch,
    ngx_coord_memory_session_revoke,
    ngx_coord_memory_user_check,
    ngx_coord_memory_user_add,
    ngx_coord_memory_user_seen,
    ngx_coord_memory_user_drop,
    ngx_coord_memory_user_list,
    ngx_coord_memory_user_revoke,
    ngx_coord_memory_session_keep
};


static ngx_coord_entry_t *
ngx_coord_session_find(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    return ngx_coord_table_find(table, NGX_COORD_OP_SESSION_GET, op->key,
                                op->key_len, now);
}


/* finds a session and reads it into the operation */

static ngx_coord_entry_t *
ngx_coord_session_load(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    u_char                head[NGX_COORD_SESSION_HEAD];
    ngx_coord_entry_t    *entry;
    ngx_coord_session_t  *session;

    session = &op->u.session;

    session->found = 0;
    session->bound = 0;
    session->revoked = 0;
    session->user_len = 0;
    session->value_len = 0;

    entry = ngx_coord_session_find(table, op, now);

    if (entry == NULL
        || ngx_coord_table_read(table, entry, head, 0, sizeof(head))
           != sizeof(head)
        || head[1] > NGX_COORD_DIGEST_HEX_LEN)
    {
        return NULL;
    }

    session->found = 1;
    session->bound = (head[0] & NGX_COORD_SESSION_BOUND) != 0;
    session->revoked = (head[0] & NGX_COORD_SESSION_REVOKED) != 0;

    session->user_len = ngx_coord_table_read(table, entry, session->user,
                                             sizeof(head), head[1]);

    if (op->blob) {
        session->value_len = ngx_coord_table_read(table, entry, op->blob,
                                                  sizeof(head) + head[1],
                                                  NGX_COORD_SESSION_VALUE_LEN);
    }

    session->age = ngx_max(now - (ngx_coord_nsec_t) entry->payload[0], 0);
    session->left = entry->expires - now;

    return entry;
}


static size_t
ngx_coord_session_pack(ngx_coord_op_t *op, u_char *buf)
{
    u_char               *p;
    ngx_coord_session_t  *session;

    session = &op->u.session;

    p = buf;

    *p++ = (u_char) ((session->bound ? NGX_COORD_SESSION_BOUND : 0)
                     | (session->revoked ? NGX_COORD_SESSION_REVOKED : 0));
    *p++ = (u_char) session->user_len;

    p = ngx_cpymem(p, session->user, session->user_len);

    if (session->bound) {
        p = ngx_cpymem(p, op->blob, session->value_len);
    }

    return p - buf;
}


/* writes what the operation holds to an entry, or to a new one */

static ngx_int_t
ngx_coord_session_save(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_entry_t *entry, ngx_coord_nsec_t now)
{
    u_char                buf[NGX_COORD_SESSION_BLOB];
    size_t                len;
    uint64_t              payload[2];
    ngx_coord_session_t  *session;

    session = &op->u.session;

    len = ngx_coord_session_pack(op, buf);

    if (entry == NULL) {
        payload[0] = (uint64_t) (now - session->age);
        payload[1] = 0;

        entry = ngx_coord_table_insert(table, NGX_COORD_OP_SESSION_GET,
                                       NGX_COORD_ENTRY_EVICT, op->key,
                                       op->key_len, payload,
                                       now + session->left, now);
        if (entry == NULL) {
            return NGX_ERROR;
        }
    }

    return ngx_coord_table_write(table, entry, buf, len, now);
}


static ngx_int_t
ngx_coord_memory_session_get(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    (void) ngx_coord_session_load(table, op, now);

    return NGX_OK;
}


static ngx_int_t
ngx_coord_memory_session_bind(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    u_char                value[NGX_COORD_SESSION_VALUE_LEN];
    ngx_uint_t            changed;
    ngx_coord_entry_t    *entry;
    ngx_coord_session_t  *session, asked;

    session = &op->u.session;
    asked = *session;

    if (asked.bound) {
        ngx_memcpy(value, op->blob, asked.value_len);
    }

    entry = ngx_coord_session_load(table, op, now);

    changed = 0;

    if (entry == NULL) {
        session->created = 1;
        session->found = 1;
        session->age = 0;
        session->left = asked.ttl;
        changed = 1;

    } else {
        entry->expires = now + asked.ttl;
        session->left = asked.ttl;
    }

    if (asked.bound && !session->bound) {
        session->bound = 1;
        session->value_len = asked.value_len;
        ngx_memcpy(op->blob, value, asked.value_len);
        changed = 1;
    }

    if (asked.user_len && session->user_len == 0) {
        session->user_len = asked.user_len;
        ngx_memcpy(session->user, asked.user, asked.user_len);
        changed = 1;
    }

    return changed ? ngx_coord_session_save(table, op, entry, now) : NGX_OK;
}


static ngx_int_t
ngx_coord_memory_session_set(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    u_char                value[NGX_COORD_SESSION_VALUE_LEN];
    ngx_coord_entry_t    *entry;
    ngx_coord_session_t  *session, asked;

    session = &op->u.session;
    asked = *session;

    if (asked.bound) {
        ngx_memcpy(value, op->blob, asked.value_len);
    }

    entry = ngx_coord_session_load(table, op, now);

    if (entry == NULL) {
        session->age = 0;

    } else {
        entry->expires = now + asked.ttl;
    }

    session->left = asked.ttl;

    if (asked.bound) {
        session->bound = 1;
        session->value_len = asked.value_len;
        ngx_memcpy(op->blob, value, asked.value_len);

    } else {
        session->user_len = asked.user_len;
        ngx_memcpy(session->user, asked.user, asked.user_len);
    }

    return ngx_coord_session_save(table, op, entry, now);
}


static ngx_int_t
ngx_coord_memory_session_touch(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_entry_t  *entry;

    entry = ngx_coord_session_find(table, op, now);

    if (entry) {
        entry->expires = now + op->u.session.ttl;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_coord_memory_session_revoke(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_int_t             rc;
    ngx_coord_nsec_t      ttl;
    ngx_coord_entry_t    *entry;
    ngx_coord_session_t  *session;

    session = &op->u.session;
    ttl = session->ttl;

    entry = ngx_coord_session_load(table, op, now);

    if (entry == NULL) {
        session->age = 0;

    } else {
        entry->expires = now + ttl;
    }

    session->left = ttl;
    session->bound = 0;
    session->value_len = 0;
    session->revoked = 1;

    rc = ngx_coord_session_save(table, op, entry, now);

    session->found = (entry != NULL);

    return rc;
}


static ngx_int_t
ngx_coord_memory_session_keep(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    u_char                buf[NGX_COORD_SESSION_BLOB];
    u_char                old[NGX_COORD_SESSION_BLOB + 1];
    size_t                len;
    ngx_coord_entry_t    *entry;
    ngx_coord_session_t  *session;

    session = &op->u.session;

    entry = ngx_coord_session_find(table, op, now);

    if (!session->found) {

        if (entry) {
            ngx_coord_table_remove(table, entry);
        }

        return NGX_OK;
    }

    if (entry == NULL) {
        return ngx_coord_session_save(table, op, NULL, now);
    }

    session->left = ngx_max(session->left, entry->expires - now);

    entry->payload[0] = (uint64_t) (now - session->age);
    entry->expires = now + session->left;

    len = ngx_coord_session_pack(op, buf);

    if (ngx_coord_table_read(table, entry, old, 0, sizeof(old)) == len
        && ngx_memcmp(old, buf, len) == 0)
    {
        return NGX_OK;
    }

    return ngx_coord_table_write(table, entry, buf, len, now);
}


/*
 * Finds the index of a user, walks its slots, and frees those of sessions
 * that have expired and cells without a slot in use.
 */

static ngx_coord_entry_t *
ngx_coord_user_slots(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_user_slots_t *slots, ngx_coord_nsec_t now)
{
    ngx_uint_t              i, used;
    ngx_coord_data_t       *data;
    ngx_coord_nsec_t        gone;
    ngx_coord_entry_t      *entry;
    ngx_coord_user_slot_t  *slot, *free;

    ngx_memzero(slots, sizeof(ngx_coord_user_slots_t));

    entry = ngx_coord_table_find(table, NGX_COORD_OP_USER_CHECK, op->key,
                                 op->key_len, now);
    if (entry == NULL) {
        return NULL;
    }

    gone = op->u.session.ttl
           ? now - op->u.session.ttl - NGX_COORD_USER_SLACK : 0;

    data = ngx_coord_table_first(table, entry);

    while (data) {
        slot = (ngx_coord_user_slot_t *) data->data;
        free = NULL;
        used = 0;

        for (i = 0; i < NGX_COORD_USER_SLOTS; i++, slot++) {

            if (slot->at <= gone) {
                slot->at = 0;
            }

            if (slot->at == 0) {
                free = slot;
                continue;
            }

            used++;

            if (ngx_memcmp(slot->id, op->id, NGX_COORD_ID_LEN) == 0) {
                slots->own = slot;

            } else if (slots->oldest == NULL || slot->at < slots->oldest->at) {
                slots->oldest = slot;
            }
        }

        if (used == 0) {
            data = ngx_coord_table_drop(table, entry, slots->tail);
            continue;
        }

        if (free) {
            slots->free = free;
        }

        slots->used += used;
        slots->tail = data;

        data = ngx_coord_table_next(table, data);
    }

    return entry;
}


static ngx_int_t
ngx_coord_memory_user_check(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_user_slots_t  slots;

    (void) ngx_coord_user_slots(table, op, &slots, now);

    op->u.session.found = (slots.own != NULL);

    return NGX_OK;
}


static ngx_int_t
ngx_coord_memory_user_add(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_data_t        *data;
    ngx_coord_nsec_t         expires;
    ngx_coord_entry_t       *entry;
    ngx_coord_session_t     *session;
    ngx_coord_user_slots_t   slots;

    session = &op->u.session;
    expires = now + session->ttl + NGX_COORD_USER_SLACK;

    entry = ngx_coord_user_slots(table, op, &slots, now);

    if (entry == NULL) {

        /* not to be evicted: its sessions would seem to be ended */

        entry = ngx_coord_table_insert(table, NGX_COORD_OP_USER_CHECK, 0,
                                       op->key, op->key_len, NULL, expires,
                                       now);
        if (entry == NULL) {
            return NGX_ERROR;
        }
    }

    entry->expires = ngx_max(entry->expires, expires);

    if (slots.own) {
        slots.own->at = now;

    } else {

        if (slots.free == NULL) {
            data = ngx_coord_table_add(table, entry, slots.tail, now);

            if (data == NULL) {
                return NGX_ERROR;
            }

            slots.free = (ngx_coord_user_slot_t *) data->data;
        }

        ngx_memcpy(slots.free->id, op->id, NGX_COORD_ID_LEN);

        ngx_coord_table_commit();

        slots.free->at = now;
        slots.used++;
    }

    while (session->max && slots.used > session->max) {

        (void) ngx_coord_user_slots(table, op, &slots, now);

        if (slots.used <= session->max || slots.oldest == NULL) {
            break;
        }

        slots.oldest->at = 0;
        slots.used--;
    }

    return NGX_OK;
}


static ngx_int_t
ngx_coord_memory_user_seen(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_entry_t       *entry;
    ngx_coord_user_slots_t   slots;

    entry = ngx_coord_user_slots(table, op, &slots, now);

    if (entry && slots.own) {
        slots.own->at = now;
        entry->expires = ngx_max(entry->expires, now + op->u.session.ttl
                                                 + NGX_COORD_USER_SLACK);
    }

    return NGX_OK;
}


static ngx_int_t
ngx_coord_memory_user_drop(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_user_slots_t  slots;

    (void) ngx_coord_user_slots(table, op, &slots, now);

    op->u.session.found = (slots.own != NULL);

    if (slots.own) {
        slots.own->at = 0;
    }

    return NGX_OK;
}


/* keeps the newest ones in order */

static void
ngx_coord_user_item(ngx_coord_session_item_t *items, ngx_uint_t n,
    ngx_coord_user_slot_t *slot, ngx_coord_nsec_t now)
{
    ngx_uint_t        i;
    ngx_coord_nsec_t  idle;

    idle = ngx_max(now - slot->at, 0);

    i = ngx_min(n, NGX_COORD_SESSION_LIST);

    if (i == NGX_COORD_SESSION_LIST && items[i - 1].idle <= idle) {
        return;
    }

    i -= (i == NGX_COORD_SESSION_LIST);

    for ( /* void */ ; i > 0 && items[i - 1].idle > idle; i--) {
        items[i] = items[i - 1];
    }

    ngx_memcpy(items[i].id, slot->id, NGX_COORD_ID_LEN);
    items[i].idle = idle;
}


static ngx_int_t
ngx_coord_memory_user_list(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_uint_t                 i;
    ngx_coord_data_t          *data;
    ngx_coord_entry_t         *entry;
    ngx_coord_session_t       *session;
    ngx_coord_user_slot_t     *slot;
    ngx_coord_user_slots_t     slots;
    ngx_coord_session_item_t  *items;

    session = &op->u.session;
    items = (ngx_coord_session_item_t *) op->blob;

    session->count = 0;

    entry = ngx_coord_user_slots(table, op, &slots, now);

    if (entry == NULL) {
        return NGX_OK;
    }

    for (data = ngx_coord_table_first(table, entry);
         data;
         data = ngx_coord_table_next(table, data))
    {
        slot = (ngx_coord_user_slot_t *) data->data;

        for (i = 0; i < NGX_COORD_USER_SLOTS; i++, slot++) {
            if (slot->at) {
                ngx_coord_user_item(items, session->count++, slot, now);
            }
        }
    }

    return NGX_OK;
}


static ngx_int_t
ngx_coord_memory_user_revoke(ngx_coord_table_t *table, ngx_coord_op_t *op,
    ngx_coord_nsec_t now)
{
    ngx_coord_entry_t       *entry;
    ngx_coord_user_slots_t   slots;

    entry = ngx_coord_user_slots(table, op, &slots, now);

    op->u.session.count = slots.used;

    if (entry) {
        ngx_coord_table_remove(table, entry);
    }

    return NGX_OK;
}
