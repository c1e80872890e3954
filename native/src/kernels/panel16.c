/* panel16.c: the packing that all vector levels share; the layout is described in packing.h.
 *
 * Packing moves bytes and is bound by memory, so plain C serves every level. */
#include "packing.h"

size_t rwkv_panel16_size(rwkv_type type, size_t n_out, size_t n_in) {
    return (n_out + RWKV_PANEL - 1) / RWKV_PANEL * rwkv_panel16_bytes(type, n_in);
}

void rwkv_pack_values(const uint8_t* src, size_t size, size_t width, size_t n_rows, size_t n_in,
                      uint8_t* dst) {
    for (size_t row = 0; row < n_rows; ++row) {
        const uint8_t* from = src + row * n_in * size;
        for (size_t c = 0; c < n_in; ++c) {
            memcpy(dst + (c * width + row) * size, from + c * size, size);
        }
    }
}

/* Blocks of 32. `dst` is the start of a panel, already zeroed. Their codes lie in the file as they
 * do here, four columns side by side, so they are moved and not taken apart. */
static void pack_blocks(rwkv_type type, const uint8_t* src, size_t n_rows, size_t n_in,
                        uint8_t* dst) {
    const size_t n_groups = type == RWKV_TYPE_Q8_0 ? 8 : 4;
    for (size_t row = 0; row < n_rows; ++row) {
        const uint8_t* p = src + row * rwkv_row_bytes(type, n_in);
        for (size_t b = 0; b < n_in / RWKV_BLOCK; ++b) {
            const rwkv_block16 at = rwkv_block16_at(type, dst, b);
            memcpy(dst + (at.d - dst) + 2 * row, p, 2);
            p += 2;
            if (rwkv_has_m(type)) {
                memcpy(dst + (at.m - dst) + 2 * row, p, 2);
                p += 2;
            }
            if (rwkv_high_bits(type) != 0) {
                const uint32_t bits = rwkv_load_u32(p);
                for (size_t g = 0; g < 8; ++g) {
                    uint8_t* to = dst + (at.high - dst) + 8 * g;
                    uint64_t mask;
                    memcpy(&mask, to, sizeof mask);
                    mask |= (uint64_t)(bits >> 4 * g & 15) << 4 * row;
                    memcpy(to, &mask, sizeof mask);
                }
                p += 4;
            }
            uint8_t* codes = dst + (at.codes - dst) + 4 * row;
            for (size_t g = 0; g < n_groups; ++g) memcpy(codes + 64 * g, p + 4 * g, 4);
            p += 4 * n_groups;
        }
    }
}

/* Super-blocks, likewise. */
static void pack_supers(rwkv_type type, const uint8_t* src, size_t n_rows, size_t n_in,
                        uint8_t* dst) {
    const size_t n_scales = rwkv_block_type_of(type)->n_scales;
    for (size_t row = 0; row < n_rows; ++row) {
        const uint8_t* from = src + row * rwkv_row_bytes(type, n_in);
        for (size_t b = 0; b < n_in / RWKV_BLOCK; ++b) {
            const rwkv_block block = rwkv_block_at(type, from, b);
            const rwkv_block16 at = rwkv_block16_at(type, dst, b);
            memcpy(dst + (at.d - dst) + 2 * row, &block.d, 2);
            memcpy(dst + (at.m - dst) + 2 * row, &block.m, 2);
            memcpy(dst + (at.s - dst) + n_scales * row, block.s, n_scales);
            if (n_scales == 1) dst[at.t - dst + (ptrdiff_t)row] = block.t;
            uint8_t nibbles[16];
            for (size_t j = 0; j < 16; ++j) {
                nibbles[j] = (uint8_t)((block.codes[j] & 15) | block.codes[j + 16] << 4);
            }
            uint8_t* codes = dst + (at.codes - dst) + 4 * row;
            for (size_t g = 0; g < 4; ++g) memcpy(codes + 64 * g, nibbles + 4 * g, 4);
            uint8_t* high = dst + (at.high - dst);
            for (size_t j = 0; rwkv_high_bits(type) != 0 && j < RWKV_BLOCK; ++j) {
                const unsigned bits = block.codes[j] >> 4;
                const size_t g = j / 4;
                const size_t c = j % 4;
                if (type == RWKV_TYPE_Q6_K) {
                    high[64 * (g / 4) + 4 * row + c] |= (uint8_t)(bits << 2 * (g % 4));
                } else {
                    high[8 * g + row / 2] |= (uint8_t)(bits << (4 * (row % 2) + c));
                }
            }
        }
    }
}

void rwkv_panel16_pack(rwkv_type type, const uint8_t* src, size_t n_out, size_t n_in,
                       size_t panel_begin, size_t panel_end, uint8_t* dst) {
    const size_t row_bytes = rwkv_row_bytes(type, n_in);
    const size_t panel_bytes = rwkv_panel16_bytes(type, n_in);
    for (size_t panel = panel_begin; panel < panel_end; ++panel) {
        const size_t row = panel * RWKV_PANEL;
        const size_t n_rows = n_out - row < RWKV_PANEL ? n_out - row : RWKV_PANEL;
        const uint8_t* from = src + row * row_bytes;
        uint8_t* to = dst + panel * panel_bytes;
        /* Rows beyond n_out, and the high bits that are or-ed in, start from zero. */
        memset(to, 0, panel_bytes);
        if (rwkv_is_super(type)) {
            pack_supers(type, from, n_rows, n_in, to);
        } else if (rwkv_is_quantised(type)) {
            pack_blocks(type, from, n_rows, n_in, to);
        } else {
            rwkv_pack_values(from, rwkv_block_bytes(type), RWKV_PANEL, n_rows, n_in, to);
        }
    }
}
