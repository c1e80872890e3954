/* panel_matmul.h: the products of a vector level, written once: over panels, tiles of rows and
 * types. A level's file defines, then includes this file:
 *
 *     TILE           rows of activations that share one pass over a panel: 4, 8 or 16
 *     panel_blocks   INLINE: a panel of a quantised matrix times n_rows rows from `row` on
 *     HAS_VALUES and panel_values    the same for fp32 and fp16, if the level has its own
 *
 * Both take (type, w, panel, x, row, n_rows, y, ldy), of which type and n_rows are constants to the
 * compiler. What they compute for a row must not depend on n_rows. */

/* Rows that do not fill a tile are taken in smaller ones. */
#define FOR_TILES(panel_tile, type)                                       \
    for (size_t panel = panel_begin; panel < panel_end; ++panel) {        \
        size_t row = row_begin;                                           \
        for (; row + TILE <= row_end; row += TILE) {                      \
            panel_tile(type, w, panel, x, row, TILE, y, ldy);             \
        }                                                                 \
        if (TILE > 8 && row + 8 <= row_end) {                             \
            panel_tile(type, w, panel, x, row, 8, y, ldy);                \
            row += 8;                                                     \
        }                                                                 \
        if (TILE > 4 && row + 4 <= row_end) {                             \
            panel_tile(type, w, panel, x, row, 4, y, ldy);                \
            row += 4;                                                     \
        }                                                                 \
        if (row + 2 <= row_end) {                                         \
            panel_tile(type, w, panel, x, row, 2, y, ldy);                \
            row += 2;                                                     \
        }                                                                 \
        if (row < row_end) panel_tile(type, w, panel, x, row, 1, y, ldy); \
    }

static void matmul_blocks(const rwkv_matrix* w, const rwkv_rows* x, size_t row_begin,
                          size_t row_end, size_t panel_begin, size_t panel_end, float* y,
                          size_t ldy) {
    switch (w->type) {
        case RWKV_TYPE_Q4_0:
            FOR_TILES(panel_blocks, RWKV_TYPE_Q4_0) break;
        case RWKV_TYPE_Q4_1:
            FOR_TILES(panel_blocks, RWKV_TYPE_Q4_1) break;
        case RWKV_TYPE_Q5_0:
            FOR_TILES(panel_blocks, RWKV_TYPE_Q5_0) break;
        case RWKV_TYPE_Q5_1:
            FOR_TILES(panel_blocks, RWKV_TYPE_Q5_1) break;
        default:
            FOR_TILES(panel_blocks, RWKV_TYPE_Q8_0) break;
    }
}

static void use_matmul_blocks(rwkv_kernels* k) {
    for (int type = RWKV_TYPE_Q4_0; type <= RWKV_TYPE_Q8_0; ++type) {
        k->matrix[type].packed_size = rwkv_panel16_size;
        k->matrix[type].pack = rwkv_panel16_pack;
        k->matrix[type].matmul = matmul_blocks;
    }
}

#ifdef HAS_VALUES

static void matmul_values(const rwkv_matrix* w, const rwkv_rows* x, size_t row_begin,
                          size_t row_end, size_t panel_begin, size_t panel_end, float* y,
                          size_t ldy) {
    if (w->type == RWKV_TYPE_FP32) {
        FOR_TILES(panel_values, RWKV_TYPE_FP32)
    } else {
        FOR_TILES(panel_values, RWKV_TYPE_FP16)
    }
}

static void use_matmul_values(rwkv_kernels* k) {
    for (int type = RWKV_TYPE_FP32; type <= RWKV_TYPE_FP16; ++type) {
        k->matrix[type].packed_size = rwkv_panel16_size;
        k->matrix[type].pack = rwkv_panel16_pack;
        k->matrix[type].matmul = matmul_values;
    }
}

#endif

#undef FOR_TILES
