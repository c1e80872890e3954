/* panel_matmul.h: the products of a vector level, written once: over panels, tiles of rows and
 * types. A level's file defines, then includes this file:
 *
 *     panel_blocks   INLINE: a panel of a quantised matrix times n_rows rows from `row` on
 *     TILE           how many rows may share one such pass: 4, 8 or 16
 *     ANY_ROWS       whether it takes any number of them up to TILE, else powers of two
 *     HAS_VALUES, panel_values, VALUES_TILE    the same for fp32, fp16 and bf16, in powers of two, if
 *                    the level has its own
 *
 * Both take (type, w, panel, x, row, n_rows, y, ldy), of which type and n_rows, but beyond 2 where
 * any number is taken, are constants to the compiler and y is where the panel's results for `row`
 * belong. What they compute for a row must not depend on n_rows. */

/* How many rows from `row` on to take together: as many as lie together in x, at most `tile`, and a
 * power of two, or (any) any number. */
INLINE size_t tile_rows(const rwkv_rows* x, size_t row, size_t row_end, size_t tile, int any) {
    const size_t together = x->tile - row % x->tile;
    const size_t left = row_end - row < together ? row_end - row : together;
    if (any) return left < tile ? left : tile;
    size_t n = tile;
    while (n > left) n /= 2;
    return n;
}

#define FOR_PANELS(panel_tile, type, n_rows)                                          \
    for (size_t panel = panel_begin; panel < panel_end; ++panel) {                    \
        float* at = y + (row - row_begin) * ldy + (panel - panel_begin) * RWKV_PANEL; \
        panel_tile(type, w, panel, x, row, n_rows, at, ldy);                          \
    }

/* Tile after tile, so that a tile's activations stay in the first-level cache while the few panels
 * of a call, which fit the second, pass by. */
#define FOR_TILES(panel_tile, type, tile, any)                    \
    for (size_t row = row_begin, n; row < row_end; row += n) {    \
        n = tile_rows(x, row, row_end, tile, any);                \
        if (n == 1) {                                             \
            FOR_PANELS(panel_tile, type, 1)                       \
        } else if (n == 2) {                                      \
            FOR_PANELS(panel_tile, type, 2)                       \
        } else if (any) {                                         \
            FOR_PANELS(panel_tile, type, n)                       \
        } else if (n == 4) {                                      \
            FOR_PANELS(panel_tile, type, 4)                       \
        } else if (n == 8) {                                      \
            FOR_PANELS(panel_tile, type, ((tile) >= 8 ? 8 : 1))   \
        } else {                                                  \
            FOR_PANELS(panel_tile, type, ((tile) >= 16 ? 16 : 1)) \
        }                                                         \
    }

static void matmul_blocks(const rwkv_matrix* w, const rwkv_rows* x, size_t row_begin,
                          size_t row_end, size_t panel_begin, size_t panel_end, float* y,
                          size_t ldy) {
    switch (w->type) {
#define CASE(type)                                    \
    case type:                                        \
        FOR_TILES(panel_blocks, type, TILE, ANY_ROWS) \
        break;
        RWKV_FOR_QUANTISED(CASE)
#undef CASE
        default: /* values: below */
            break;
    }
}

static void use_matmul_blocks(rwkv_kernels* k) {
    for (int type = 0; type < RWKV_TYPE_COUNT; ++type) {
        if (!rwkv_is_quantised((rwkv_type)type)) continue;
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
        FOR_TILES(panel_values, RWKV_TYPE_FP32, VALUES_TILE, 0)
    } else if (w->type == RWKV_TYPE_FP16) {
        FOR_TILES(panel_values, RWKV_TYPE_FP16, VALUES_TILE, 0)
    } else {
        FOR_TILES(panel_values, RWKV_TYPE_BF16, VALUES_TILE, 0)
    }
}

static void use_matmul_values(rwkv_kernels* k) {
    for (int type = 0; type < RWKV_TYPE_COUNT; ++type) {
        if (rwkv_is_quantised((rwkv_type)type)) continue;
        k->matrix[type].packed_size = rwkv_panel16_size;
        k->matrix[type].pack = rwkv_panel16_pack;
        k->matrix[type].matmul = matmul_values;
    }
}

#endif

#undef FOR_TILES
#undef FOR_PANELS
