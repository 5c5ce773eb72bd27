
/*
 * Copyright (C) ngx_coord_module contributors
 */


#include "ngx_coord_lives.h"


/* a power of two; memory is touched as slots are used */
#define NGX_COORD_LIVES_SLOTS  4096

/* slots that a key may be in, next to each other */
#define NGX_COORD_LIVES_WAYS   2


typedef struct {
    ngx_coord_zone_t          *zone;      /* NULL: free */
    ngx_coord_nsec_t           until;
    ngx_uint_t                 epoch;
    uint32_t                   kind;
    uint32_t                   note;
    size_t                     key_len;
    u_char                     key[NGX_COORD_KEY_LEN];
} ngx_coord_life_t;


static ngx_coord_life_t *ngx_coord_lives_set(ngx_coord_op_t *op,
    uint32_t kind);
static ngx_coord_life_t *ngx_coord_lives_slot(ngx_coord_op_t *op,
    uint32_t kind);


static ngx_coord_life_t  ngx_coord_lives[NGX_COORD_LIVES_SLOTS];
static ngx_uint_t        ngx_coord_lives_epoch;


/* the first of the slots that a key may be in */

static ngx_coord_life_t *
ngx_coord_lives_set(ngx_coord_op_t *op, uint32_t kind)
{
    uint32_t  hash;

    hash = ngx_murmur_hash2(op->key, op->key_len) ^ (kind * 2654435761U);

    return &ngx_coord_lives[hash & (NGX_COORD_LIVES_SLOTS - 1)
                            & ~(NGX_COORD_LIVES_WAYS - 1)];
}


static ngx_coord_life_t *
ngx_coord_lives_slot(ngx_coord_op_t *op, uint32_t kind)
{
    ngx_uint_t         i;
    ngx_coord_life_t  *life;

    life = ngx_coord_lives_set(op, kind);

    for (i = 0; i < NGX_COORD_LIVES_WAYS; i++, life++) {

        if (life->zone == op->zone
            && life->kind == kind
            && life->epoch == ngx_coord_lives_epoch
            && life->key_len == op->key_len
            && ngx_memcmp(life->key, op->key, op->key_len) == 0)
        {
            return life;
        }
    }

    return NULL;
}


ngx_coord_nsec_t
ngx_coord_lives_find(ngx_coord_op_t *op, uint32_t kind, ngx_coord_nsec_t now,
    uint32_t *note)
{
    ngx_coord_life_t  *life;

    life = ngx_coord_lives_slot(op, kind);

    if (life == NULL || life->until <= now) {
        return 0;
    }

    *note = life->note;

    return life->until;
}


void
ngx_coord_lives_keep(ngx_coord_op_t *op, uint32_t kind, ngx_coord_nsec_t until,
    uint32_t note)
{
    ngx_uint_t         i;
    ngx_coord_life_t  *life, *set;

    life = ngx_coord_lives_slot(op, kind);

    if (life == NULL) {
        set = ngx_coord_lives_set(op, kind);
        life = set;

        for (i = 1; i < NGX_COORD_LIVES_WAYS; i++) {
            if (set[i].until < life->until) {
                life = &set[i];
            }
        }

        life->zone = op->zone;
        life->kind = kind;
        life->epoch = ngx_coord_lives_epoch;
        life->key_len = op->key_len;

        ngx_memcpy(life->key, op->key, op->key_len);
    }

    life->until = until;
    life->note = note;
}


void
ngx_coord_lives_drop(ngx_coord_op_t *op, uint32_t kind)
{
    ngx_coord_life_t  *life;

    life = ngx_coord_lives_slot(op, kind);

    if (life) {
        life->zone = NULL;
        life->until = 0;
    }
}


void
ngx_coord_lives_reset(void)
{
    ngx_coord_lives_epoch++;
}
