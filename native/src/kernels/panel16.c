/* panel16.c: the packing that all vector levels share; the layout is described in kernels.h.
 *
 * Packing moves bytes and is bound by memory, so plain C serves every level. */
#include "kernels.h"

size_t rwkv_panel16_size(rwkv_type type, size_t n_out, size_t n_in) {
    const size_t n_panels = (n_out + RWKV_PANEL - 1) / RWKV_PANEL;
    return n_panels * RWKV_PANEL * rwkv_row_bytes(type, n_in);
}

/* Values of `size` bytes: column after column, 16 rows each. */
static void pack_values(const uint8_t* src, size_t size, size_t n_rows, size_t n_in, uint8_t* dst) {
    for (size_t row = 0; row < n_rows; ++row) {
        const uint8_t* from = src + row * n_in * size;
        for (size_t c = 0; c < n_in; ++c) {
            memcpy(dst + (c * RWKV_PANEL + row) * size, from + c * size, size);
        }
    }
}

/* `dst` is the start of a panel, already zeroed. */
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
            if (rwkv_has_fifth(type)) {
                const uint32_t bits = rwkv_load_u32(p);
                for (size_t g = 0; g < 8; ++g) {
                    uint8_t* to = dst + (at.fifth - dst) + 8 * g;
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

void rwkv_panel16_pack(rwkv_type type, const uint8_t* src, size_t n_out, size_t n_in,
                       size_t panel_begin, size_t panel_end, uint8_t* dst) {
    const size_t row_bytes = rwkv_row_bytes(type, n_in);
    for (size_t panel = panel_begin; panel < panel_end; ++panel) {
        const size_t row = panel * RWKV_PANEL;
        const size_t n_rows = n_out - row < RWKV_PANEL ? n_out - row : RWKV_PANEL;
        const uint8_t* from = src + row * row_bytes;
        uint8_t* to = dst + row * row_bytes;
        /* Rows beyond n_out, and the fifth bits that are or-ed in, start from zero. */
        memset(to, 0, RWKV_PANEL * row_bytes);
        if (type == RWKV_TYPE_FP32) {
            pack_values(from, 4, n_rows, n_in, to);
        } else if (type == RWKV_TYPE_FP16) {
            pack_values(from, 2, n_rows, n_in, to);
        } else {
            pack_blocks(type, from, n_rows, n_in, to);
        }
    }
}
