/* neon_matmul.h: the matrix products of the two Arm levels, which differ in
 *     block_sum(type, code, q)   the int32 sums of 4 rows over a block, from its eight groups'
 * codes (0 to 31, or -128 to 127) and 32 activations half_sum(type, code, q)    the same of half a
 * block, whose codes go to 63 */

/* Rows of activations that share one pass over a panel. */
enum { TILE = 4, ANY_ROWS = 0, VALUES_TILE = 4 };

INLINE void store_quarter(float* y, size_t o, size_t n_out, float32x4_t v) {
    if (o + 4 <= n_out) {
        vst1q_f32(y + o, v);
    } else if (o < n_out) {
        float part[4];
        vst1q_f32(part, v);
        memcpy(y + o, part, (n_out - o) * sizeof *y);
    }
}

INLINE float32x4_t load_fp16(const uint8_t* p) {
    return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16((const uint16_t*)(const void*)p)));
}

/* 16 bits -> 16 bytes of 16 or 0. */
INLINE uint8x16_t fifth_bits(const uint8_t* masks) {
    static const uint8_t bit_of[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    const uint8x16_t spread = vcombine_u8(vdup_n_u8(masks[0]), vdup_n_u8(masks[1]));
    return vandq_u8(vtstq_u8(spread, vld1q_u8(bit_of)), vdupq_n_u8(16));
}

/* The upper two bits of six-bit codes: two bits of each byte, those from bit 2 k on. */
INLINE uint8x16_t upper_bits(uint8x16_t v, int k) {
    const uint8x16_t moved = k == 0   ? vshlq_n_u8(v, 4)
                             : k == 1 ? vshlq_n_u8(v, 2)
                             : k == 2 ? v
                                      : vshrq_n_u8(v, 2);
    return vandq_u8(moved, vdupq_n_u8(0x30));
}

/* The codes of a quarter of a panel (4 rows) in one block. */
INLINE void unpack_codes(rwkv_type type, const rwkv_block16* block, size_t quarter,
                         int8x16_t code[8]) {
    static const int8_t iq4_nl[16] = {RWKV_IQ4_NL};
    const int is_q8 = type == RWKV_TYPE_Q8_0;
    for (int g = 0; g < (is_q8 ? 8 : 4); ++g) {
        const uint8_t* p = block->codes + 64 * g + 16 * quarter;
        const uint8x16_t bytes = vld1q_u8(p);
        if (quarter == 0) rwkv_prefetch(p, 0);
        code[g] = vreinterpretq_s8_u8(is_q8 ? bytes : vandq_u8(bytes, vdupq_n_u8(15)));
        if (!is_q8) code[g + 4] = vreinterpretq_s8_u8(vshrq_n_u8(bytes, 4));
    }
    for (int g = 0; g < 8; ++g) {
        if (type == RWKV_TYPE_IQ4_NL) {
            code[g] = vqtbl1q_s8(vld1q_s8(iq4_nl), vreinterpretq_u8_s8(code[g]));
        }
        if (rwkv_high_bits(type) == 1) {
            const uint8x16_t high = fifth_bits(block->high + 8 * g + 2 * quarter);
            code[g] = vorrq_s8(code[g], vreinterpretq_s8_u8(high));
        } else if (rwkv_high_bits(type) == 2) {
            const uint8_t* p = block->high + 64 * (g / 4) + 16 * quarter;
            if (quarter == 0 && g % 4 == 0) rwkv_prefetch(p, 0);
            code[g] = vorrq_s8(code[g], vreinterpretq_s8_u8(upper_bits(vld1q_u8(p), g % 4)));
        }
    }
}

/* d_w and m_w of the 4 rows from o on. */
INLINE float32x4_t load_d(rwkv_type type, const uint8_t* d, const uint8_t* s, size_t o) {
    const float32x4_t dw = load_fp16(d + 2 * o);
    if (rwkv_block_type_of(type)->n_scales != 1) return dw;
    const uint8x8_t s8 = vreinterpret_u8_u32(vdup_n_u32(rwkv_load_u32(s + o)));
    return vmulq_f32(dw, vcvtq_f32_u32(vmovl_u16(vget_low_u16(vmovl_u8(s8)))));
}

INLINE float32x4_t load_m(rwkv_type type, const uint8_t* m, const uint8_t* t, size_t o) {
    return rwkv_has_m(type) ? load_d(type, m, t, o) : vdupq_n_f32(0.0f);
}

/* The first and the second s of 4 rows of q6_K. */
INLINE int32x4x2_t load_s(const uint8_t* s) {
    const int16x8_t both = vmovl_s8(vreinterpret_s8_u8(vld1_u8(s)));
    const int32x4x2_t halves = {{vmovl_s16(vget_low_s16(vuzp1q_s16(both, both))),
                                 vmovl_s16(vget_low_s16(vuzp2q_s16(both, both)))}};
    return halves;
}

/* The sums of a block of q6_K, each half's times its s; a code stands for 32 less than it is. */
INLINE int32x4_t scaled_sums(const int8x16_t code[8], int32x4x2_t s, const rwkv_q8* x) {
    int32x4_t isum = vdupq_n_s32(0);
    for (int half = 0; half < 2; ++half) {
        const int32x4_t offset = vdupq_n_s32(4 * x->minus_8_sums[half]);
        const int32x4_t sum = half_sum(RWKV_TYPE_Q6_K, code + 4 * half, x->q + 16 * half);
        isum = vmlaq_s32(isum, vaddq_s32(sum, offset), s.val[half]);
    }
    return isum;
}

/* Quantised: a quarter of a panel (4 rows) times n_rows rows in one block, added to their sums. */
INLINE void add_block(rwkv_type type, const rwkv_block16* block, size_t quarter, const rwkv_q8* x,
                      size_t n_rows, float32x4_t* sum) {
    const int is_q6_k = type == RWKV_TYPE_Q6_K;
    /* The codes of q4_0 and q5_0 stand for 8 and 16 less. */
    const int32_t minus_8_sums = type == RWKV_TYPE_Q4_0 ? 1 : type == RWKV_TYPE_Q5_0 ? 2 : 0;
    int8x16_t code[8];
    unpack_codes(type, block, quarter, code);
    const float32x4_t dw = load_d(type, block->d, block->s, 4 * quarter);
    const float32x4_t mw = load_m(type, block->m, block->t, 4 * quarter);
    int32x4x2_t s = {{vdupq_n_s32(0), vdupq_n_s32(0)}};
    if (is_q6_k) s = load_s(block->s + 8 * quarter);
    UNROLL
    for (size_t i = 0; i < n_rows; ++i) {
        const int32x4_t offset = vdupq_n_s32(x[i].minus_8_sum * minus_8_sums);
        const int32x4_t isum = is_q6_k ? scaled_sums(code, s, &x[i])
                                       : vaddq_s32(block_sum(type, code, x[i].q), offset);
        sum[i] = vfmaq_f32(sum[i], vmulq_n_f32(dw, x[i].d), vcvtq_f32_s32(isum));
        if (rwkv_has_m(type)) sum[i] = vfmaq_n_f32(sum[i], mw, x[i].s);
    }
}

/* Quantised panel times n_rows (<= TILE) rows: all quarters together where few rows make that a
 * matter of reading memory evenly, one after the other where many share the unpacked codes. */
INLINE void panel_blocks(rwkv_type type, const rwkv_matrix* w, size_t panel, const rwkv_rows* x,
                         size_t row, size_t n_rows, float* y, size_t ldy) {
    const uint8_t* base = rwkv_panel16_at(type, w, panel);
    const size_t n_blocks = w->n_in / RWKV_BLOCK;
    const size_t together = n_rows <= 2 ? 4 : 1;
    for (size_t first = 0; first < 4; first += together) {
        const rwkv_q8* xb = rwkv_q8_row(x, row);
        float32x4_t sum[4][TILE];
        for (size_t q = 0; q < 4; ++q) {
            for (size_t i = 0; i < n_rows; ++i) sum[q][i] = vdupq_n_f32(0.0f);
        }
        for (size_t b = 0; b < n_blocks; ++b, xb += x->tile) {
            const rwkv_block16 block = rwkv_block16_at(type, base, b);
            if (first == 0) rwkv_prefetch_head(type, &block, b, 0);
            for (size_t q = 0; q < together; ++q) {
                add_block(type, &block, first + q, xb, n_rows, sum[q]);
            }
        }
        for (size_t q = 0; q < together; ++q) {
            for (size_t i = 0; i < n_rows; ++i) {
                store_quarter(y + i * ldy, (first + q) * 4, w->n_out - panel * RWKV_PANEL,
                              sum[q][i]);
            }
        }
    }
}

#ifdef HAS_VALUES

INLINE float32x4_t load_values(rwkv_type type, const uint8_t* p) {
    if (type == RWKV_TYPE_FP32) return vld1q_f32((const float*)(const void*)p);
    if (type == RWKV_TYPE_FP16) return load_fp16(p);
    const uint16x4_t v = vld1_u16((const uint16_t*)(const void*)p);
    return vreinterpretq_f32_u32(vshll_n_u16(v, 16)); /* bf16 */
}

/* Values: a quarter of a panel times n_rows rows in one column of weights at p, added to the
 * sums `to` of each. */
INLINE void add_column(rwkv_type type, const uint8_t* p, const float* x, size_t ld, size_t n_rows,
                       float32x4_t (*sum)[4], size_t to) {
    const float32x4_t w = load_values(type, p);
    UNROLL
    for (size_t i = 0; i < n_rows; ++i) sum[i][to] = vfmaq_n_f32(sum[i][to], w, x[i * ld]);
}

/* A panel of values times n_rows (<= TILE) rows, by quarters as above. Each sum is that of four:
 * columns 4 i, 4 i + 1, 4 i + 2, 4 i + 3. */
INLINE void panel_values(rwkv_type type, const rwkv_matrix* w, size_t panel, const rwkv_rows* x,
                         size_t row, size_t n_rows, float* y, size_t ldy) {
    const size_t size = rwkv_block_bytes(type);
    const size_t column = RWKV_PANEL * size;
    const size_t together = n_rows == 1 ? 4 : 1;
    for (size_t first = 0; first < 4; first += together) {
        const uint8_t* p = (const uint8_t*)w->data + panel * w->n_in * column + first * 4 * size;
        const float* xc = x->x + row * x->ld;
        float32x4_t sum[4][TILE][4];
        for (size_t q = 0; q < 4; ++q) {
            for (size_t i = 0; i < n_rows; ++i) {
                for (size_t k = 0; k < 4; ++k) sum[q][i][k] = vdupq_n_f32(0.0f);
            }
        }
        size_t c = 0;
        for (; c + 4 <= w->n_in; c += 4, xc += 4) {
            for (size_t k = 0; k < 4; ++k, p += column) {
                if (first == 0) rwkv_prefetch(p, 0);
                for (size_t q = 0; q < together; ++q) {
                    add_column(type, p + q * 4 * size, xc + k, x->ld, n_rows, sum[q], k);
                }
            }
        }
        for (size_t k = 0; k < 4 && c < w->n_in; ++c, ++k, ++xc, p += column) {
            for (size_t q = 0; q < together; ++q) {
                add_column(type, p + q * 4 * size, xc, x->ld, n_rows, sum[q], k);
            }
        }
        for (size_t q = 0; q < together; ++q) {
            for (size_t i = 0; i < n_rows; ++i) {
                const float32x4_t even = vaddq_f32(sum[q][i][0], sum[q][i][1]);
                store_quarter(y + i * ldy, (first + q) * 4, w->n_out - panel * RWKV_PANEL,
                              vaddq_f32(even, vaddq_f32(sum[q][i][2], sum[q][i][3])));
            }
        }
    }
}

#endif

#include "panel_matmul.h"
