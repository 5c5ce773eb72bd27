
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * The journal of owners: each lease that a worker holds, each place in line,
 * each claim and all that it may have been granted has an entry in the shared
 * memory of its zone, so that its successor can give back what a killed worker
 * had, and a worker that exits at once what it has only asked for.
 *
 * The key of an entry is the id of the lease and the encoded key behind it,
 * or, where that is too long, the id alone with the key as data.  The payload
 * tells the owner: its process id, and a random number against the reuse of
 * process ids.  The entry may be evicted: a lease without one ends by expiry.
 *
 * The entry of a claim has its fingerprint as data, and tells whether its
 * request has begun to run: then nobody knows what became of it, and the claim
 * is not given back but lapses.
 */


#include "ngx_coord_lease.h"
#include "ngx_coord_op_claim.h"


/* the tags of these entries; operations have theirs below */
#define NGX_COORD_JOURNAL_LEASE  240
#define NGX_COORD_JOURNAL_PLACE  241
#define NGX_COORD_JOURNAL_CLAIM  242

/* the second word of the payload: source; of a claim more, ttl in ms */
#define NGX_COORD_JOURNAL_SOURCE  0xff
#define NGX_COORD_JOURNAL_BEGUN   0x100
#define NGX_COORD_JOURNAL_KEEP    0x200
#define NGX_COORD_JOURNAL_TTL     16

/* cells that are looked at while the lock is held */
#define NGX_COORD_JOURNAL_CELLS  1024


static ngx_coord_table_t *ngx_coord_journal_lock(ngx_coord_zone_t *zone);
static ngx_uint_t ngx_coord_journal_tag(ngx_coord_op_t *op);
static uint64_t ngx_coord_journal_what(ngx_coord_op_t *op);
static void ngx_coord_journal_data(ngx_coord_table_t *table,
    ngx_coord_entry_t *entry, ngx_coord_op_t *op, ngx_coord_nsec_t now);
static size_t ngx_coord_journal_key(ngx_coord_op_t *op, u_char *key);
static uint64_t ngx_coord_journal_owner(void);
static ngx_uint_t ngx_coord_journal_left(ngx_coord_entry_t *entry,
    ngx_coord_journal_e whose);
static void ngx_coord_journal_type(ngx_coord_entry_t *entry,
    ngx_coord_op_t *op, ngx_coord_nsec_t left);
static ngx_int_t ngx_coord_journal_read(ngx_coord_table_t *table,
    ngx_coord_entry_t *entry, ngx_coord_op_t *op);


/* this process: process id in the high half, then the random number */
static uint64_t  ngx_coord_journal_self;


void
ngx_coord_journal_add(ngx_coord_op_t *op, ngx_coord_nsec_t life)
{
    u_char              key[NGX_COORD_KEY_LEN];
    size_t              len;
    uint64_t            payload[2];
    ngx_coord_nsec_t    now;
    ngx_coord_entry_t  *entry;
    ngx_coord_table_t  *table;

    payload[0] = ngx_coord_journal_owner();
    payload[1] = ngx_coord_journal_what(op);

    if (payload[0] == 0 || ngx_coord_journal_tag(op) == 0) {
        return;
    }

    table = ngx_coord_journal_lock(op->zone);

    if (table == NULL) {
        return;
    }

    now = ngx_coord_monotonic();
    len = ngx_coord_journal_key(op, key);

    entry = ngx_coord_table_find(table, ngx_coord_journal_tag(op), key, len,
                                 now);

    if (entry) {
        entry->expires = now + life;
        entry->payload[1] = payload[1];

    } else {
        entry = ngx_coord_table_insert(table, ngx_coord_journal_tag(op),
                                       NGX_COORD_ENTRY_EVICT, key, len,
                                       payload, now + life, now);

        if (entry) {
            ngx_coord_journal_data(table, entry, op, now);
        }
    }

    ngx_coord_zone_unlock(op->zone);
}


void
ngx_coord_journal_remove(ngx_coord_op_t *op)
{
    u_char              key[NGX_COORD_KEY_LEN];
    size_t              len;
    ngx_coord_entry_t  *entry;
    ngx_coord_table_t  *table;

    table = ngx_coord_journal_tag(op) ? ngx_coord_journal_lock(op->zone)
                                      : NULL;

    if (table == NULL) {
        return;
    }

    len = ngx_coord_journal_key(op, key);

    entry = ngx_coord_table_find(table, ngx_coord_journal_tag(op), key, len,
                                 ngx_coord_monotonic());

    if (entry) {
        ngx_coord_table_remove(table, entry);
    }

    ngx_coord_zone_unlock(op->zone);
}


ngx_uint_t
ngx_coord_journal_take(ngx_coord_zone_t *zone, ngx_coord_journal_e whose,
    uint32_t *cell, ngx_coord_op_t *ops, ngx_uint_t n)
{
    uint32_t            last, ncells;
    ngx_uint_t          found;
    ngx_coord_nsec_t    now;
    ngx_coord_entry_t  *entry;
    ngx_coord_table_t  *table;

    if (ngx_coord_journal_owner() == 0) {
        return 0;
    }

    found = 0;

    do {
        table = ngx_coord_journal_lock(zone);

        if (table == NULL) {
            return found;
        }

        now = ngx_coord_monotonic();
        ncells = table->nused;
        last = (uint32_t) ngx_min(ncells, *cell + NGX_COORD_JOURNAL_CELLS);

        while (*cell < last && found < n) {

            entry = &ngx_coord_table_cells(table)[++*cell].head;

            if (entry->state != NGX_COORD_CELL_HEAD
                || entry->tag < NGX_COORD_JOURNAL_LEASE
                || entry->tag > NGX_COORD_JOURNAL_CLAIM
                || entry->expires <= now
                || !ngx_coord_journal_left(entry, whose))
            {
                continue;
            }

            ngx_memzero(&ops[found], sizeof(ngx_coord_op_t));

            ops[found].zone = zone;

            ngx_coord_journal_type(entry, &ops[found], entry->expires - now);

            if (ngx_coord_journal_read(table, entry, &ops[found]) == NGX_OK) {
                found++;
            }

            ngx_coord_table_remove(table, entry);
        }

        ngx_coord_zone_unlock(zone);

    } while (*cell < ncells && found < n);

    return found;
}


static void
ngx_coord_journal_type(ngx_coord_entry_t *entry, ngx_coord_op_t *op,
    ngx_coord_nsec_t left)
{
    switch (entry->tag) {

    case NGX_COORD_JOURNAL_PLACE:
        op->type = &ngx_coord_op_wait_enter;
        op->u.lease.lease = left;
        break;

    case NGX_COORD_JOURNAL_CLAIM:
        op->type = (entry->payload[1] & NGX_COORD_JOURNAL_BEGUN)
                   ? &ngx_coord_op_claim_renew : &ngx_coord_op_claim;
        op->u.claim.lease = left;
        op->u.claim.keep = ((entry->payload[1] & NGX_COORD_JOURNAL_KEEP) != 0);
        op->u.claim.ttl = (entry->payload[1] >> NGX_COORD_JOURNAL_TTL)
                          * NGX_COORD_NSEC_PER_MSEC;
        break;

    default: /* NGX_COORD_JOURNAL_LEASE */
        op->type = &ngx_coord_op_lease_acquire;
        op->u.lease.lease = left;
        break;
    }
}


static ngx_int_t
ngx_coord_journal_read(ngx_coord_table_t *table, ngx_coord_entry_t *entry,
    ngx_coord_op_t *op)
{
    size_t  len;

    if (entry->key_len < NGX_COORD_ID_LEN
        || entry->key_len > NGX_COORD_KEY_LEN)
    {
        return NGX_ERROR;
    }

    op->source = (ngx_coord_source_e) (entry->payload[1]
                                       & NGX_COORD_JOURNAL_SOURCE);

    ngx_memcpy(op->id, entry->key, NGX_COORD_ID_LEN);

    len = (entry->tag == NGX_COORD_JOURNAL_CLAIM) ? NGX_COORD_FINGERPRINT_LEN
                                                  : 0;

    if (ngx_coord_table_read(table, entry, op->u.claim.fingerprint, 0, len)
        != len)
    {
        return NGX_ERROR;
    }

    if (entry->key_len == NGX_COORD_ID_LEN) {
        op->key_len = ngx_coord_table_read(table, entry, op->key, len,
                                           NGX_COORD_KEY_LEN);

        return op->key_len ? NGX_OK : NGX_ERROR;
    }

    op->key_len = entry->key_len - NGX_COORD_ID_LEN;

    ngx_memcpy(op->key, entry->key + NGX_COORD_ID_LEN, op->key_len);

    return NGX_OK;
}


static ngx_coord_table_t *
ngx_coord_journal_lock(ngx_coord_zone_t *zone)
{
    return zone->journal ? ngx_coord_zone_lock(zone) : NULL;
}


/* 0: what becomes of the operation is not for a successor */

static ngx_uint_t
ngx_coord_journal_tag(ngx_coord_op_t *op)
{
    switch (op->type->kind) {

    case NGX_COORD_KIND_LINE:
        return NGX_COORD_JOURNAL_PLACE;

    case NGX_COORD_KIND_CLAIM:
        return NGX_COORD_JOURNAL_CLAIM;

    case NGX_COORD_KIND_LEASE:
        return NGX_COORD_JOURNAL_LEASE;

    default:
        return 0;
    }
}


/* a claim that is to lapse has begun, all others are to be given back */

static uint64_t
ngx_coord_journal_what(ngx_coord_op_t *op)
{
    uint64_t  what;

    what = op->source;

    if (op->type->kind != NGX_COORD_KIND_CLAIM) {
        return what;
    }

    if (op->type == &ngx_coord_op_claim_renew) {
        what |= NGX_COORD_JOURNAL_BEGUN;
    }

    if (op->u.claim.keep) {
        what |= NGX_COORD_JOURNAL_KEEP;
    }

    return what | (uint64_t) (op->u.claim.ttl / NGX_COORD_NSEC_PER_MSEC)
                  << NGX_COORD_JOURNAL_TTL;
}


/* what has no room in the head of an entry */

static void
ngx_coord_journal_data(ngx_coord_table_t *table, ngx_coord_entry_t *entry,
    ngx_coord_op_t *op, ngx_coord_nsec_t now)
{
    u_char  data[NGX_COORD_FINGERPRINT_LEN + NGX_COORD_KEY_LEN], *p;

    p = data;

    if (entry->tag == NGX_COORD_JOURNAL_CLAIM) {
        p = ngx_cpymem(p, op->u.claim.fingerprint, NGX_COORD_FINGERPRINT_LEN);
    }

    if (entry->key_len == NGX_COORD_ID_LEN) {
        p = ngx_cpymem(p, op->key, op->key_len);
    }

    if (p > data) {
        (void) ngx_coord_table_write(table, entry, data, p - data, now);
    }
}


static size_t
ngx_coord_journal_key(ngx_coord_op_t *op, u_char *key)
{
    ngx_memcpy(key, op->id, NGX_COORD_ID_LEN);

    if (op->key_len > NGX_COORD_KEY_LEN - NGX_COORD_ID_LEN) {
        return NGX_COORD_ID_LEN;
    }

    ngx_memcpy(key + NGX_COORD_ID_LEN, op->key, op->key_len);

    return NGX_COORD_ID_LEN + op->key_len;
}


/* 0: no random bytes, no journal */

static uint64_t
ngx_coord_journal_owner(void)
{
    u_char    id[NGX_COORD_ID_LEN];
    uint32_t  incarnation;

    if (ngx_coord_journal_self == 0 && ngx_coord_id(id) == NGX_OK) {
        ngx_memcpy(&incarnation, id, sizeof(uint32_t));

        ngx_coord_journal_self = (uint64_t) ngx_pid << 32 | incarnation;
    }

    return ngx_coord_journal_self;
}


/*
 * A process id that is in use again is that of another program, whose leases
 * nobody can claim before they expire, or that of this very worker.
 */

static ngx_uint_t
ngx_coord_journal_left(ngx_coord_entry_t *entry, ngx_coord_journal_e whose)
{
    uint64_t   owner;
    ngx_pid_t  pid;

    owner = entry->payload[0];

    if (whose == NGX_COORD_JOURNAL_OWN) {
        return owner == ngx_coord_journal_self
               && !(entry->payload[1] & NGX_COORD_JOURNAL_BEGUN);
    }

    pid = (ngx_pid_t) (owner >> 32);

    if (pid == ngx_pid) {
        return owner != ngx_coord_journal_self;
    }

    return pid > 0 && !ngx_coord_alive(pid);
}
