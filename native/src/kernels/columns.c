/* columns.c: packing by columns, which vector levels share; the layout is described in kernels.h.
 */
#include "kernels.h"

/* A block of row o < 64 of a panel, at p, and of row o + 64, at q, in the file. `block` is theirs
 * in the packed panel, its fifth bits zero so far. */
static void pack_two(rwkv_type type, const uint8_t* p, const uint8_t* q, size_t o, uint8_t* block) {
    const rwkv_columns_block at = rwkv_columns_block_at(type, block);
    const size_t byte = rwkv_column_byte(o);
    uint8_t* d = block + (at.d - block) + 2 * o;
    uint8_t* codes = block + (at.codes - block) + byte;
    memcpy(d, p, 2);
    memcpy(d + RWKV_COLUMN, q, 2);
    p += 2, q += 2;
    if (rwkv_has_m(type)) {
        uint8_t* m = block + (at.m - block) + 2 * o;
        memcpy(m, p, 2);
        memcpy(m + RWKV_COLUMN, q, 2);
        p += 2, q += 2;
    }
    if (rwkv_has_fifth(type)) {
        uint8_t* fifth = block + (at.fifth - block) + byte / 8;
        const uint32_t p_bits = rwkv_load_u32(p);
        const uint32_t q_bits = rwkv_load_u32(q);
        for (size_t c = 0; c < RWKV_BLOCK; ++c) {
            fifth[16 * c] |= (uint8_t)((p_bits >> c & 1) << byte % 8);
            fifth[16 * c + 8] |= (uint8_t)((q_bits >> c & 1) << byte % 8);
        }
        p += 4, q += 4;
    }
    if (type == RWKV_TYPE_Q8_0) {
        for (size_t c = 0; c < RWKV_BLOCK; ++c) {
            codes[RWKV_COLUMN * c] = p[c];
            codes[RWKV_COLUMN * c + 64] = q[c];
        }
        return;
    }
    for (size_t c = 0; c < 16; ++c) {
        codes[64 * c] = (uint8_t)((p[c] & 15) | q[c] << 4);
        codes[64 * (c + 16)] = (uint8_t)(p[c] >> 4 | (q[c] & 0xf0));
    }
}

void rwkv_columns_pack(rwkv_type type, const uint8_t* src, size_t n_out, size_t n_in,
                       size_t panel_begin, size_t panel_end, uint8_t* dst) {
    (void)n_out; /* a multiple of RWKV_COLUMN: all panels are whole */
    const size_t row_bytes = rwkv_row_bytes(type, n_in);
    const size_t half = RWKV_COLUMN / 2;
    for (size_t panel = panel_begin; panel < panel_end; ++panel) {
        const uint8_t* from = src + panel * RWKV_COLUMN * row_bytes;
        uint8_t* block = dst + panel * RWKV_COLUMN * row_bytes;
        for (size_t b = 0; b < n_in / RWKV_BLOCK; ++b) {
            const size_t size = rwkv_columns_block_bytes(type);
            memset(block, 0, size); /* for the fifth bits, which are or-ed in */
            for (size_t o = 0; o < half; ++o) {
                pack_two(type, from + o * row_bytes, from + (o + half) * row_bytes, o, block);
            }
            from += rwkv_block_bytes(type);
            block += size;
        }
    }
}
