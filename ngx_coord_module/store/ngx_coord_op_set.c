
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * Sets of times, each with an id: what logs, leases, lines and the sessions of
 * a user have in common.
 */


#include "ngx_coord_op_arg.h"
#include "ngx_coord_op_set.h"


ngx_int_t
ngx_coord_set_parse(ngx_coord_resp_value_t *granted,
    ngx_coord_resp_value_t *refused)
{
    if ((granted->integer != 0) == (refused->integer != 0)) {
        return NGX_ERROR;
    }

    return refused->integer ? NGX_BUSY : NGX_OK;
}


ngx_int_t
ngx_coord_set_peek_parse(ngx_coord_resp_value_t **values, int64_t *used,
    ngx_coord_nsec_t *first)
{
    ngx_coord_resp_value_t  *v;

    v = ngx_coord_reply(SET_PEEK, FIRST);
    *used = ngx_coord_reply(SET_PEEK, USED)->integer;

    if (*used < 0) {
        return NGX_ERROR;
    }

    if (v->integer != 2) {
        return NGX_OK;
    }

    return ngx_coord_time_parse(ngx_coord_resp_element(v, 1), first) == NGX_OK
           ? NGX_OK : NGX_ERROR;
}


void
ngx_coord_slots(ngx_coord_table_t *table, ngx_coord_entry_t *entry,
    const u_char *id, ngx_coord_nsec_t gone, ngx_coord_slots_t *slots)
{
    ngx_uint_t         i, used;
    ngx_coord_data_t  *data;
    ngx_coord_slot_t  *slot, *free;

    ngx_memzero(slots, sizeof(ngx_coord_slots_t));

    data = ngx_coord_table_first(table, entry);

    while (data) {
        slot = (ngx_coord_slot_t *) data->data;
        free = NULL;
        used = 0;

        for (i = 0; i < NGX_COORD_SLOTS; i++, slot++) {

            if (slot->at <= gone) {
                slot->at = 0;
            }

            if (slot->at == 0) {
                free = slot;
                continue;
            }

            if (slots->used + used == 0 || slot->at < slots->first) {
                slots->first = slot->at;
                slots->head = slot;
            }

            slots->last = ngx_max(slots->last, slot->at);

            if (ngx_memcmp(slot->id, id, NGX_COORD_ID_LEN) == 0) {
                slots->own = slot;

            } else if (slots->other == NULL || slot->at < slots->other->at) {
                slots->other = slot;
            }

            used++;
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
}


ngx_int_t
ngx_coord_slot_add(ngx_coord_table_t *table, ngx_coord_entry_t *entry,
    ngx_coord_op_t *op, ngx_coord_slots_t *slots, ngx_coord_nsec_t at,
    ngx_coord_nsec_t now)
{
    ngx_coord_data_t  *data;
    ngx_coord_slot_t  *slot;

    slot = slots->free;

    if (slot == NULL) {
        data = ngx_coord_table_add(table, entry, slots->tail, now);

        if (data == NULL) {
            return NGX_ERROR;
        }

        slot = (ngx_coord_slot_t *) data->data;
    }

    ngx_memcpy(slot->id, op->id, NGX_COORD_ID_LEN);

    ngx_coord_table_commit();

    slot->at = at;

    return NGX_OK;
}


ngx_int_t
ngx_coord_slot_remove(ngx_coord_table_t *table, ngx_coord_entry_t *entry,
    ngx_coord_op_t *op, ngx_coord_nsec_t gone)
{
    ngx_coord_slots_t  slots;

    if (entry == NULL) {
        return NGX_DECLINED;
    }

    ngx_coord_slots(table, entry, op->id, gone, &slots);

    if (slots.own) {
        slots.own->at = 0;
        slots.used--;
    }

    if (slots.used == 0) {
        ngx_coord_table_remove(table, entry);
    }

    return slots.own ? NGX_OK : NGX_DECLINED;
}
