/* columns.c: packing by columns, which vector levels share; the layout is described in
 * packing.h. */
#include "packing.h"

/* A block of row o < 64 of a panel, and of row o + 64. `to` is theirs in the packed panel that
 * begins at `panel`, its high bits zero so far. `type` is a constant to the compiler. */
INLINE void pack_two(rwkv_type type, const rwkv_block* low, const rwkv_block* high, size_t o,
                     const rwkv_columns_block* to, uint8_t* panel) {
    const size_t half = RWKV_COLUMN / 2;
    const size_t byte = rwkv_column_byte(o);
    const size_t n_scales = rwkv_block_type_of(type)->n_scales;
    const rwkv_block* two[2] = {low, high};
    for (size_t i = 0; i < 2; ++i) {
        const size_t row = o + half * i;
        memcpy(panel + (to->d - panel) + 2 * row, &two[i]->d, 2);
        if (rwkv_has_m(type)) memcpy(panel + (to->m - panel) + 2 * row, &two[i]->m, 2);
        if (n_scales != 0) {
            memcpy(panel + (to->s - panel) + n_scales * row, two[i]->s, n_scales);
        }
        if (n_scales == 1) panel[to->t - panel + (ptrdiff_t)row] = two[i]->t;
    }
    uint8_t* bits = panel + (to->high - panel);
    uint8_t* codes = panel + (to->codes - panel) + byte;
    for (size_t c = 0; c < RWKV_BLOCK; ++c) {
        const unsigned p = low->codes[c];
        const unsigned q = high->codes[c];
        if (type == RWKV_TYPE_Q8_0) {
            codes[RWKV_COLUMN * c] = (uint8_t)p;
            codes[RWKV_COLUMN * c + 64] = (uint8_t)q;
            continue;
        }
        codes[64 * c] = (uint8_t)((p & 15) | q << 4);
        if (rwkv_high_bits(type) == 1) {
            bits[16 * c + byte / 8] |= (uint8_t)((p >> 4) << byte % 8);
            bits[16 * c + 8 + byte / 8] |= (uint8_t)((q >> 4) << byte % 8);
        } else if (rwkv_high_bits(type) == 2) {
            bits[32 * c + byte % 32] |= (uint8_t)((p >> 4 | (q >> 4) << 2) << byte / 32 * 4);
        }
    }
}

INLINE void pack_panel(rwkv_type type, const uint8_t* src, size_t n_in, uint8_t* dst) {
    const size_t row_bytes = rwkv_row_bytes(type, n_in);
    const size_t half = RWKV_COLUMN / 2;
    for (size_t b = 0; b < n_in / RWKV_BLOCK; ++b) {
        const rwkv_columns_block at = rwkv_columns_block_at(type, dst, b);
        /* For the high bits, which are or-ed in, and for q6_K's m. */
        memset(dst + (at.begin - dst), 0, (size_t)(at.end - at.begin));
        for (size_t o = 0; o < half; ++o) {
            const rwkv_block low = rwkv_block_at(type, src + o * row_bytes, b);
            const rwkv_block high = rwkv_block_at(type, src + (o + half) * row_bytes, b);
            pack_two(type, &low, &high, o, &at, dst);
        }
    }
}

void rwkv_columns_pack(rwkv_type type, const uint8_t* src, size_t n_out, size_t n_in,
                       size_t panel_begin, size_t panel_end, uint8_t* dst) {
    (void)n_out; /* a multiple of RWKV_COLUMN: all panels are whole */
    for (size_t panel = panel_begin; panel < panel_end; ++panel) {
        const uint8_t* from = src + panel * RWKV_COLUMN * rwkv_row_bytes(type, n_in);
        uint8_t* to = dst + panel * rwkv_columns_bytes(type, n_in);
        switch (type) {
#define CASE(type)                        \
    case type:                            \
        pack_panel(type, from, n_in, to); \
        break;
            RWKV_FOR_QUANTISED(CASE)
#undef CASE
            default: /* values: below */
                break;
        }
    }
}

void rwkv_columns_pack_values(rwkv_type type, size_t width, const uint8_t* src, size_t n_in,
                              size_t panel_begin, size_t panel_end, uint8_t* dst) {
    const size_t size = rwkv_block_bytes(type);
    const size_t stripe = width * n_in * size;
    const size_t stripes = RWKV_COLUMN / width;
    for (size_t i = panel_begin * stripes; i < panel_end * stripes; ++i) {
        rwkv_pack_values(src + i * stripe, size, width, width, n_in, dst + i * stripe);
    }
}

void rwkv_columns_unpack_values(const rwkv_matrix* w, size_t width, size_t panel, uint8_t* dst) {
    const size_t size = rwkv_block_bytes(w->type);
    const size_t together = RWKV_PANEL * size;
    for (size_t p = 0; p < RWKV_COLUMN / RWKV_PANEL; ++p) {
        const size_t row = panel * RWKV_COLUMN + p * RWKV_PANEL;
        const size_t first = row - row % width; /* of the stripe */
        const uint8_t* from = (const uint8_t*)w->data + (first * w->n_in + row % width) * size;
        for (size_t c = 0; c < w->n_in; ++c, dst += together, from += width * size) {
            memcpy(dst, from, together);
        }
    }
}
