/* neon_matmul.h: the matrix products of the two Arm levels, which differ in block_sum(type, code,
 * q): the int32 sums of 4 rows over a block, from its eight groups' signed codes and 32
 * activations. */

/* Rows of activations that share one pass over a panel. */
enum { TILE = 4 };

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

/* fp32 or fp16: a quarter of a panel (4 rows) times n_rows (<= TILE) rows. Each sum is that of the
 * even columns plus that of the odd ones. */
INLINE void quarter_values(rwkv_type type, const rwkv_matrix* w, size_t panel, size_t quarter,
                           const rwkv_rows* x, size_t row, size_t n_rows, float* y, size_t ldy) {
    const size_t size = type == RWKV_TYPE_FP32 ? 4 : 2;
    const uint8_t* p =
        (const uint8_t*)w->data + panel * RWKV_PANEL * w->n_in * size + quarter * 4 * size;
    float32x4_t sum[TILE][2];
    for (size_t i = 0; i < n_rows; ++i) sum[i][0] = sum[i][1] = vdupq_n_f32(0.0f);
    for (size_t c = 0; c < w->n_in; ++c, p += RWKV_PANEL * size) {
        const float32x4_t wc =
            type == RWKV_TYPE_FP32 ? vld1q_f32((const float*)(const void*)p) : load_fp16(p);
        UNROLL
        for (size_t i = 0; i < n_rows; ++i) {
            const float xc = x->x[(row + i) * x->ld + c];
            sum[i][c % 2] = vfmaq_n_f32(sum[i][c % 2], wc, xc);
        }
    }
    for (size_t i = 0; i < n_rows; ++i) {
        store_quarter(y + (row + i) * ldy, panel * RWKV_PANEL + quarter * 4, w->n_out,
                      vaddq_f32(sum[i][0], sum[i][1]));
    }
}

/* 16 bits -> 16 bytes of 16 or 0. */
INLINE uint8x16_t fifth_bits(const uint8_t* masks) {
    static const uint8_t bit_of[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    const uint8x16_t spread = vcombine_u8(vdup_n_u8(masks[0]), vdup_n_u8(masks[1]));
    return vandq_u8(vtstq_u8(spread, vld1q_u8(bit_of)), vdupq_n_u8(16));
}

/* Quantised: a quarter of a panel times n_rows (<= TILE) rows. */
INLINE void quarter_blocks(rwkv_type type, const rwkv_matrix* w, size_t panel, size_t quarter,
                           const rwkv_rows* x, size_t row, size_t n_rows, float* y, size_t ldy) {
    const int is_q8 = type == RWKV_TYPE_Q8_0;
    const int has_fifth = type == RWKV_TYPE_Q5_0 || type == RWKV_TYPE_Q5_1;
    const int has_m = type == RWKV_TYPE_Q4_1 || type == RWKV_TYPE_Q5_1;
    const int8_t offset = type == RWKV_TYPE_Q4_0 ? 8 : type == RWKV_TYPE_Q5_0 ? 16 : 0;
    const size_t n_blocks = w->n_in / RWKV_BLOCK;
    const size_t code_bytes = is_q8 ? 512 : 256;
    const uint8_t* base =
        (const uint8_t*)w->data + panel * RWKV_PANEL * rwkv_row_bytes(type, w->n_in);
    const uint8_t* fifth = base + n_blocks * code_bytes;
    const uint8_t* d = fifth + (has_fifth ? n_blocks * 64 : 0);
    const uint8_t* m = d + n_blocks * 32;

    float32x4_t sum[TILE];
    for (size_t i = 0; i < n_rows; ++i) sum[i] = vdupq_n_f32(0.0f);
    for (size_t b = 0; b < n_blocks; ++b) {
        int8x16_t code[8];
        for (int g = 0; g < (is_q8 ? 8 : 4); ++g) {
            const uint8x16_t bytes = vld1q_u8(base + b * code_bytes + 64 * g + 16 * quarter);
            code[g] = vreinterpretq_s8_u8(is_q8 ? bytes : vandq_u8(bytes, vdupq_n_u8(15)));
            if (!is_q8) code[g + 4] = vreinterpretq_s8_u8(vshrq_n_u8(bytes, 4));
        }
        if (!is_q8) {
            for (int g = 0; g < 8; ++g) {
                if (has_fifth) {
                    const uint8x16_t high = fifth_bits(fifth + b * 64 + 8 * g + 2 * quarter);
                    code[g] = vorrq_s8(code[g], vreinterpretq_s8_u8(high));
                }
                if (offset) code[g] = vsubq_s8(code[g], vdupq_n_s8(offset));
            }
        }
        const float32x4_t dw = load_fp16(d + b * 32 + 8 * quarter);
        const float32x4_t mw = has_m ? load_fp16(m + b * 32 + 8 * quarter) : vdupq_n_f32(0.0f);
        UNROLL
        for (size_t i = 0; i < n_rows; ++i) {
            const size_t at = (row + i) * n_blocks + b;
            const float dx = x->d[at];
            const float32x4_t isum = vcvtq_f32_s32(block_sum(type, code, x->q + at * RWKV_BLOCK));
            sum[i] = vfmaq_f32(sum[i], vmulq_n_f32(dw, dx), isum);
            if (has_m) sum[i] = vfmaq_n_f32(sum[i], vmulq_n_f32(mw, dx), x->sum[at]);
        }
    }
    for (size_t i = 0; i < n_rows; ++i) {
        store_quarter(y + (row + i) * ldy, panel * RWKV_PANEL + quarter * 4, w->n_out, sum[i]);
    }
}

/* The type and the number of rows of a tile are constants to the compiler. */
INLINE void matmul_of(rwkv_type type, const rwkv_matrix* w, const rwkv_rows* x, size_t row_begin,
                      size_t row_end, size_t panel_begin, size_t panel_end, float* y, size_t ldy) {
    const int is_float = type == RWKV_TYPE_FP32 || type == RWKV_TYPE_FP16;
    for (size_t panel = panel_begin; panel < panel_end; ++panel) {
        for (size_t quarter = 0; quarter < 4; ++quarter) {
            size_t row = row_begin;
            for (; row + TILE <= row_end; row += TILE) {
                if (is_float) {
                    quarter_values(type, w, panel, quarter, x, row, TILE, y, ldy);
                } else {
                    quarter_blocks(type, w, panel, quarter, x, row, TILE, y, ldy);
                }
            }
            for (; row < row_end; ++row) {
                if (is_float) {
                    quarter_values(type, w, panel, quarter, x, row, 1, y, ldy);
                } else {
                    quarter_blocks(type, w, panel, quarter, x, row, 1, y, ldy);
                }
            }
        }
    }
}

static void matmul(const rwkv_matrix* w, const rwkv_rows* x, size_t r0, size_t r1, size_t p0,
                   size_t p1, float* y, size_t ldy) {
    switch (w->type) {
        case RWKV_TYPE_FP32:
            matmul_of(RWKV_TYPE_FP32, w, x, r0, r1, p0, p1, y, ldy);
            break;
        case RWKV_TYPE_FP16:
            matmul_of(RWKV_TYPE_FP16, w, x, r0, r1, p0, p1, y, ldy);
            break;
        case RWKV_TYPE_Q4_0:
            matmul_of(RWKV_TYPE_Q4_0, w, x, r0, r1, p0, p1, y, ldy);
            break;
        case RWKV_TYPE_Q4_1:
            matmul_of(RWKV_TYPE_Q4_1, w, x, r0, r1, p0, p1, y, ldy);
            break;
        case RWKV_TYPE_Q5_0:
            matmul_of(RWKV_TYPE_Q5_0, w, x, r0, r1, p0, p1, y, ldy);
            break;
        case RWKV_TYPE_Q5_1:
            matmul_of(RWKV_TYPE_Q5_1, w, x, r0, r1, p0, p1, y, ldy);
            break;
        case RWKV_TYPE_Q8_0:
            matmul_of(RWKV_TYPE_Q8_0, w, x, r0, r1, p0, p1, y, ldy);
            break;
        default:
            break;
    }
}
