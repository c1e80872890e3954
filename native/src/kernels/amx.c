/* amx.c: quantised matrices times many rows, by tiles of bf16 (AMX-TILE, AMX-BF16; AVX512-BF16 for
 * the conversions).
 *
 * An int8 product would have to be rescaled for each block of 32 columns, which costs more than the
 * tiles themselves. So weights are turned into bf16, a panel pair at a time, and that is paid for
 * by the rows that share it: a product of 32 rows and 32 outputs is four tile instructions for
 * every 32 columns. Sums are fp32. bf16 keeps 8 bits of weights that have 4 to 8, and of
 * activations that the integer path cuts to 8 bits as well. */
#include <immintrin.h>

#include "packing.h"

enum {
    TILE_ROWS = 16,
    TILE_FLOATS = 16 * 16, /* a tile of sums: 16 rows of activations x 16 outputs */
    TILE_BF16 = 16 * 32,   /* a tile of operands: 32 columns */
    CHUNK = 32, /* blocks of columns that are unpacked at a time: 64 KiB for two panels */
};

/* Eight tiles of 16 rows of 64 bytes: sums 0-3, activations 4 and 5, weights 6 and 7. */
static void configure_tiles(void) {
    _Alignas(64) struct {
        uint8_t palette;
        uint8_t start_row;
        uint8_t reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } config;
    memset(&config, 0, sizeof config);
    config.palette = 1;
    for (int t = 0; t < 8; ++t) {
        config.row_bytes[t] = 64;
        config.rows[t] = TILE_ROWS;
    }
    _tile_loadconfig(&config);
}

static void to_bf16(const float* x, size_t n, uint16_t* y) {
    for (size_t i = 0; i < n; i += 16) {
        const __mmask16 lanes = n - i >= 16 ? 0xffff : (__mmask16)((1u << (n - i)) - 1);
        const __m256i v = (__m256i)_mm512_cvtneps_pbh(_mm512_maskz_loadu_ps(lanes, x + i));
        _mm256_mask_storeu_epi16(y + i, lanes, v);
    }
}

#include "avx512_codes.h"

/* Byte c of each dword as a number: unsigned codes, but for those with a sign. */
INLINE __m512 byte_of(rwkv_type type, __m512i code, int c) {
    const __m512i v =
        rwkv_is_signed(type)
            ? _mm512_srai_epi32(_mm512_slli_epi32(code, 24 - 8 * c), 24)
            : _mm512_and_si512(_mm512_srli_epi32(code, 8 * c), _mm512_set1_epi32(255));
    return _mm512_cvtepi32_ps(v);
}

/* Blocks [first, first + n) of a panel as tiles of bf16, as tdpbf16ps wants them: row i of a tile
 * holds columns 2 i and 2 i + 1 of its block, side by side for each of the 16 outputs. */
INLINE void unpack(rwkv_type type, const rwkv_matrix* w, size_t panel, size_t first, size_t n,
                   uint16_t* tiles) {
    const uint8_t* base = rwkv_panel16_at(type, w, panel);
    const __m512 minus_zero = _mm512_set1_ps(-(float)rwkv_block_type_of(type)->zero);
    for (size_t b = first; b < first + n; ++b, tiles += TILE_BF16) {
        const rwkv_block16 block = rwkv_block16_at(type, base, b);
        __m512i code[8];
        rwkv_prefetch_head(type, &block, b, 0);
        unpack_codes(type, &block, 0, code);
        /* Of each half of a block, which differ in q6_K. */
        __m512 dw[2];
        __m512 base_value[2];
        for (int half = 0; half < 2; ++half) {
            dw[half] = load_d(type, block.d, block.s, 0);
            if (type == RWKV_TYPE_Q6_K) {
                dw[half] = _mm512_mul_ps(dw[half], _mm512_cvtepi32_ps(load_s(block.s, half)));
            }
            base_value[half] = rwkv_has_m(type) ? load_m(type, block.m, block.t, 0)
                                                : _mm512_mul_ps(dw[half], minus_zero);
        }
        for (int g = 0; g < 8; ++g) {
            const __m512 d = dw[g / 4];
            const __m512 zero = base_value[g / 4];
            for (int c = 0; c < 4; c += 2) {
                const __m512 even = _mm512_fmadd_ps(byte_of(type, code[g], c), d, zero);
                const __m512 odd = _mm512_fmadd_ps(byte_of(type, code[g], c + 1), d, zero);
                const __m512i low = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(even));
                const __m512i high = _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(odd));
                _mm512_storeu_si512(tiles + (4 * g + c) * 16,
                                    _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
            }
        }
    }
}

/* A corner of y that a tile may cover only in part: the tile is kept in a buffer of its own. */
typedef struct corner {
    float* y;
    size_t ldy;
    size_t n_rows; /* of the tile that are in y: 0 to 16 */
    size_t n_out;
} corner;

static void load_corner(const corner* c, float* tile) {
    memset(tile, 0, TILE_FLOATS * sizeof *tile);
    for (size_t i = 0; i < c->n_rows; ++i) {
        memcpy(tile + 16 * i, c->y + i * c->ldy, c->n_out * sizeof *tile);
    }
}

static void store_corner(const corner* c, const float* tile) {
    for (size_t i = 0; i < c->n_rows; ++i) {
        memcpy(c->y + i * c->ldy, tile + 16 * i, c->n_out * sizeof *tile);
    }
}

static size_t at_most_16(size_t begin, size_t end) {
    return begin >= end ? 0 : end - begin < 16 ? end - begin : 16;
}

/* The sums of 32 rows and 32 outputs over n blocks; `b0`, `b1` are the weights of two panels. */
static void tile_square(const uint16_t* a, size_t lda, const uint16_t* b0, const uint16_t* b1,
                        size_t n, const corner corners[4], int first) {
    float part[4][TILE_FLOATS];
    if (first) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    } else {
        for (int i = 0; i < 4; ++i) load_corner(&corners[i], part[i]);
        _tile_loadd(0, part[0], 64);
        _tile_loadd(1, part[1], 64);
        _tile_loadd(2, part[2], 64);
        _tile_loadd(3, part[3], 64);
    }
    for (size_t b = 0; b < n; ++b) {
        _tile_loadd(4, a + b * RWKV_BLOCK, (int)(lda * 2));
        _tile_loadd(5, a + b * RWKV_BLOCK + 16 * lda, (int)(lda * 2));
        _tile_loadd(6, b0 + b * TILE_BF16, 64);
        _tile_loadd(7, b1 + b * TILE_BF16, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, part[0], 64);
    _tile_stored(1, part[1], 64);
    _tile_stored(2, part[2], 64);
    _tile_stored(3, part[3], 64);
    for (int i = 0; i < 4; ++i) store_corner(&corners[i], part[i]);
}

INLINE void matmul_of(rwkv_type type, const rwkv_matrix* w, const rwkv_rows* x, size_t row_begin,
                      size_t row_end, size_t panel_begin, size_t panel_end, float* y, size_t ldy) {
    _Alignas(64) uint16_t weights[2][CHUNK * TILE_BF16];
    const size_t n_blocks = w->n_in / RWKV_BLOCK;
    configure_tiles();
    for (size_t panel = panel_begin; panel < panel_end; panel += 2) {
        /* Columns of y: where the two panels begin, and where those asked for end. */
        const size_t out[2] = {(panel - panel_begin) * RWKV_PANEL,
                               (panel + 1 - panel_begin) * RWKV_PANEL};
        const size_t end_out =
            (panel_end * RWKV_PANEL < w->n_out ? panel_end * RWKV_PANEL : w->n_out) -
            panel_begin * RWKV_PANEL;
        for (size_t first = 0; first < n_blocks; first += CHUNK) {
            const size_t n = n_blocks - first < CHUNK ? n_blocks - first : CHUNK;
            unpack(type, w, panel, first, n, weights[0]);
            /* An odd panel at the end is multiplied twice, and kept once. */
            unpack(type, w, panel + 1 < panel_end ? panel + 1 : panel, first, n, weights[1]);
            for (size_t row = row_begin; row < row_end; row += 2 * TILE_ROWS) {
                corner corners[4];
                for (int i = 0; i < 4; ++i) {
                    const size_t r = row + (i < 2 ? 0 : TILE_ROWS);
                    const size_t o = out[i % 2];
                    corners[i] = (corner){y + (r - row_begin) * ldy + o, ldy,
                                          at_most_16(r, row_end), at_most_16(o, end_out)};
                }
                tile_square(x->bf16 + row * x->n_cols + first * RWKV_BLOCK, x->n_cols, weights[0],
                            weights[1], n, corners, first == 0);
            }
        }
    }
    _tile_release();
}

static void matmul_wide(const rwkv_matrix* w, const rwkv_rows* x, size_t r0, size_t r1, size_t p0,
                        size_t p1, float* y, size_t ldy) {
    switch (w->type) {
#define CASE(type)                                     \
    case type:                                         \
        matmul_of(type, w, x, r0, r1, p0, p1, y, ldy); \
        break;
        RWKV_FOR_QUANTISED(CASE)
#undef CASE
        default:
            break;
    }
}

void rwkv_kernels_amx(rwkv_kernels* k) {
    for (int type = 0; type < RWKV_TYPE_COUNT; ++type) {
        if (!rwkv_is_quantised((rwkv_type)type)) continue;
        k->matrix[type].matmul_wide = matmul_wide;
    }
    k->to_bf16 = to_bf16;
}
