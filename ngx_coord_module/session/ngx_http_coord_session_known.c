
/*
 * Copyright (C) ngx_coord_module contributors
 *
 * coord_session: sessions that a worker has just read.  As long as the record
 * stays what it was, neither is its life asked for, nor what this node
 * remembers of it written anew; whether it stands, and to what it is bound, is
 * asked each time.
 *
 * For a second at most, so that a session in use is one for the memory of the
 * zone, too, and not beyond the moment from which on its life is to be slid:
 * others may have done that.
 */


#include "ngx_http_coord_session_state.h"


#define NGX_HTTP_COORD_SESSION_NOTES  512

/* milliseconds */
#define NGX_HTTP_COORD_SESSION_NOTED  1000


struct ngx_http_coord_session_note_s {
    u_char                         id[NGX_COORD_ID_LEN];
    uint32_t                       sum;       /* of the record */
    ngx_msec_t                     until;     /* ngx_current_msec */
    ngx_coord_nsec_t               dies;      /* at least */
};


/* the bytes of an id are those of a digest */
#define ngx_http_coord_session_place(sz, state)                               \
    &(sz)->notes[((state)->id[0] << 8 | (state)->id[1])                       \
                 % NGX_HTTP_COORD_SESSION_NOTES]


static ngx_http_coord_session_note_t *ngx_http_coord_session_noted(
    ngx_http_coord_session_state_t *state);
static uint32_t ngx_http_coord_session_sum(
    ngx_http_coord_session_state_t *state);


/* NULL: it was not read just now */

static ngx_http_coord_session_note_t *
ngx_http_coord_session_noted(ngx_http_coord_session_state_t *state)
{
    ngx_http_coord_session_note_t  *note;
    ngx_http_coord_session_zone_t  *sz;

    sz = state->use->zone->data;

    if (sz->notes == NULL) {
        return NULL;
    }

    note = ngx_http_coord_session_place(sz, state);

    if ((ngx_msec_int_t) (note->until - ngx_current_msec) <= 0
        || ngx_memcmp(note->id, state->id, NGX_COORD_ID_LEN) != 0)
    {
        return NULL;
    }

    return note;
}


static uint32_t
ngx_http_coord_session_sum(ngx_http_coord_session_state_t *state)
{
    uint32_t  sum;

    sum = state->record.bound;

    if (state->value.len) {
        sum ^= ngx_coord_key_hash(state->value.data, state->value.len);
    }

    if (state->record.user_len) {
        sum ^= ngx_coord_key_hash(state->record.user, state->record.user_len);
    }

    return sum;
}


ngx_uint_t
ngx_http_coord_session_known(ngx_http_coord_session_state_t *state)
{
    return ngx_http_coord_session_noted(state) != NULL;
}


ngx_uint_t
ngx_http_coord_session_unchanged(ngx_http_coord_session_state_t *state)
{
    ngx_coord_session_t             *record;
    ngx_http_coord_session_note_t   *note;

    record = &state->record;

    if (!record->found || record->revoked || record->damaged) {
        return 0;
    }

    note = ngx_http_coord_session_noted(state);

    if (note == NULL || note->sum != ngx_http_coord_session_sum(state)) {
        return 0;
    }

    record->left = ngx_max(record->left, note->dies - state->read_at);

    return 1;
}


void
ngx_http_coord_session_note(ngx_http_coord_session_state_t *state)
{
    ngx_msec_t                      time;
    ngx_coord_nsec_t                due;
    ngx_coord_zone_t               *zone;
    ngx_coord_session_t            *record;
    ngx_http_coord_session_note_t  *note;
    ngx_http_coord_session_zone_t  *sz;

    zone = state->use->zone;
    sz = zone->data;
    record = &state->record;

    due = record->left - ngx_http_coord_session_life(state)
          + sz->ttl / NGX_HTTP_COORD_SESSION_SLIDE;

    if (!record->found || record->revoked || record->damaged || record->unsent
        || due <= 0
        || ngx_coord_store_is_memory(zone->store))
    {
        return;
    }

    if (sz->notes == NULL) {
        sz->notes = ngx_pcalloc(ngx_cycle->pool,
                                NGX_HTTP_COORD_SESSION_NOTES
                                * sizeof(ngx_http_coord_session_note_t));
        if (sz->notes == NULL) {
            return;
        }
    }

    time = ngx_min(due / NGX_COORD_NSEC_PER_MSEC,
                   NGX_HTTP_COORD_SESSION_NOTED);

    note = ngx_http_coord_session_place(sz, state);

    ngx_memcpy(note->id, state->id, NGX_COORD_ID_LEN);

    note->sum = ngx_http_coord_session_sum(state);
    note->until = ngx_current_msec + time;
    note->dies = state->read_at + record->left;
}
