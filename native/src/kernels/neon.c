/* neon.c: 128-bit vectors of every 64-bit Arm processor. A panel's 16 rows are four vectors. */
#include <arm_neon.h>
#include <math.h>

#include "packing.h"

/* ---- vectors -------------------------------------------------------------------------------- */

typedef float32x4_t vec;
enum { LANES = 4, WKV7_VECTORS = 4 };

INLINE vec vload(const float* p, size_t n) {
    if (n >= 4) return vld1q_f32(p);
    float part[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    memcpy(part, p, n * sizeof *p);
    return vld1q_f32(part);
}

INLINE void vstore(float* p, size_t n, vec v) {
    if (n >= 4) {
        vst1q_f32(p, v);
    } else {
        float part[4];
        vst1q_f32(part, v);
        memcpy(p, part, n * sizeof *p);
    }
}

INLINE vec vset1(float s) { return vdupq_n_f32(s); }
INLINE vec vadd(vec a, vec b) { return vaddq_f32(a, b); }
INLINE vec vsub(vec a, vec b) { return vsubq_f32(a, b); }
INLINE vec vmul(vec a, vec b) { return vmulq_f32(a, b); }
INLINE vec vdiv(vec a, vec b) { return vdivq_f32(a, b); }
INLINE vec vfma(vec a, vec b, vec c) { return vfmaq_f32(c, a, b); }
INLINE vec vfnma(vec a, vec b, vec c) { return vfmsq_f32(c, a, b); }
INLINE vec vmax(vec a, vec b) { return vmaxq_f32(a, b); }
INLINE vec vmin(vec a, vec b) { return vminq_f32(a, b); }
INLINE vec vround(vec v) { return vrndnq_f32(v); }
INLINE vec vless(vec a, vec b, vec x, vec y) { return vbslq_f32(vcltq_f32(a, b), x, y); }

INLINE vec vkeep(vec v, size_t n) {
    static const uint32_t ones_then_zeros[8] = {~0u, ~0u, ~0u, ~0u};
    const uint32x4_t mask = vld1q_u32(ones_then_zeros + 4 - (n < 4 ? n : 4));
    return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(v), mask));
}

/* In two factors, since 2^128 is no float. */
INLINE vec vpow2(vec p, vec n) {
    const int32x4_t e = vcvtq_s32_f32(n);
    const int32x4_t half = vshrq_n_s32(e, 1);
    const int32x4_t bias = vdupq_n_s32(127);
    const int32x4_t f1 = vshlq_n_s32(vaddq_s32(half, bias), 23);
    const int32x4_t f2 = vshlq_n_s32(vaddq_s32(vsubq_s32(e, half), bias), 23);
    return vmulq_f32(vmulq_f32(p, vreinterpretq_f32_s32(f1)), vreinterpretq_f32_s32(f2));
}

INLINE vec vscale(vec p, vec n) {
    const int32x4_t e = vshlq_n_s32(vcvtq_s32_f32(n), 23);
    return vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(p), e));
}

typedef uint32x4_t vmask; /* lanes of ones or zeros */
INLINE vmask vwithin(vec a, vec x, vec b) { return vandq_u32(vcleq_f32(a, x), vcleq_f32(x, b)); }
INLINE vec vwhere(vmask m, vec v) {
    return vreinterpretq_f32_u32(vandq_u32(m, vreinterpretq_u32_f32(v)));
}

/* Each mask has a row: the places, in bytes, of the lanes that are kept. */
INLINE size_t vpack(vmask m, vec x, vec w, float* y, float* z) {
#define LANE(i) 4 * (i), 4 * (i) + 1, 4 * (i) + 2, 4 * (i) + 3
    static const uint8_t places[16][16] = {{0},
                                           {LANE(0)},
                                           {LANE(1)},
                                           {LANE(0), LANE(1)},
                                           {LANE(2)},
                                           {LANE(0), LANE(2)},
                                           {LANE(1), LANE(2)},
                                           {LANE(0), LANE(1), LANE(2)},
                                           {LANE(3)},
                                           {LANE(0), LANE(3)},
                                           {LANE(1), LANE(3)},
                                           {LANE(0), LANE(1), LANE(3)},
                                           {LANE(2), LANE(3)},
                                           {LANE(0), LANE(2), LANE(3)},
                                           {LANE(1), LANE(2), LANE(3)},
                                           {LANE(0), LANE(1), LANE(2), LANE(3)}};
#undef LANE
    static const uint32_t bit_of_lane[4] = {1, 2, 4, 8};
    const uint32_t bits = vaddvq_u32(vandq_u32(m, vld1q_u32(bit_of_lane)));
    const uint8x16_t row = vld1q_u8(places[bits]);
    vst1q_f32(y, vreinterpretq_f32_u8(vqtbl1q_u8(vreinterpretq_u8_f32(x), row)));
    vst1q_f32(z, vreinterpretq_f32_u8(vqtbl1q_u8(vreinterpretq_u8_f32(w), row)));
    return (size_t)__builtin_popcount(bits);
}

INLINE float vsum(vec v) {
    const float32x2_t s = vadd_f32(vget_low_f32(v), vget_high_f32(v));
    return vget_lane_f32(vpadd_f32(s, s), 0);
}

#include "vector_kernels.h"
#include "vector_sampler.h"

/* ---- rows ------------------------------------------------------------------------------------ */

static void quantize(const float* x, size_t n, rwkv_q8* y, size_t stride) {
    for (size_t b = 0; b < n / RWKV_BLOCK; ++b, x += RWKV_BLOCK, y += stride) {
        float32x4_t v[8];
        uint32x4_t top = vdupq_n_u32(0);
        for (int i = 0; i < 8; ++i) {
            v[i] = vld1q_f32(x + 4 * i);
            top = vmaxq_u32(top, vreinterpretq_u32_f32(vabsq_f32(v[i])));
        }
        const float id = rwkv_q8_begin(vmaxvq_u32(top), y);
        if (id == 0.0f) {
            memset(y->q, 0, sizeof y->q);
            rwkv_q8_end(0, 0, y);
            continue;
        }
        int32_t sums[2];
        for (int i = 0; i < 8; i += 4) {
            int32x4_t i32[4];
            int32x4_t total = vdupq_n_s32(0);
            for (int k = 0; k < 4; ++k) {
                i32[k] = vcvtnq_s32_f32(vmulq_n_f32(v[i + k], id)); /* halves to even */
                total = vaddq_s32(total, i32[k]);
            }
            const int16x8_t low = vcombine_s16(vmovn_s32(i32[0]), vmovn_s32(i32[1]));
            const int16x8_t high = vcombine_s16(vmovn_s32(i32[2]), vmovn_s32(i32[3]));
            vst1q_s8(y->q + 4 * i, vcombine_s8(vmovn_s16(low), vmovn_s16(high)));
            sums[i / 4] = vaddvq_s32(total);
        }
        rwkv_q8_end(sums[0], sums[1], y);
    }
}

/* ---- matrices -------------------------------------------------------------------------------- */

/* A quarter of a group, 4 rows x 4 columns, added to the sums of those rows: in two int16 vectors
 * (rows 0 and 1, rows 2 and 3) that `finish` turns into four int32. No int16 overflows:
 *     4- and 5-bit codes   8 groups x 31 x 127 = 31496
 *     6-bit codes          4 groups x 63 x 127 = 32004, finished in each half of a block
 *     signed codes         2 groups x 128 x 127 = 32512, finished every two groups */
typedef struct sums {
    int16x8_t low;
    int16x8_t high;
} sums;

INLINE sums sums_zero(void) {
    const sums s = {vdupq_n_s16(0), vdupq_n_s16(0)};
    return s;
}

INLINE sums add_group(sums s, int8x16_t code, int8x16_t xq) {
    s.low = vmlal_s8(s.low, vget_low_s8(code), vget_low_s8(xq));
    s.high = vmlal_s8(s.high, vget_high_s8(code), vget_high_s8(xq));
    return s;
}

INLINE int32x4_t finish(sums s) { return vpaddq_s32(vpaddlq_s16(s.low), vpaddlq_s16(s.high)); }

INLINE int32x4_t half_sum(rwkv_type type, const int8x16_t code[4], const int8_t* q) {
    int32x4_t isum = vdupq_n_s32(0);
    sums s = sums_zero();
    for (int g = 0; g < 4; ++g) {
        s = add_group(s, code[g],
                      vreinterpretq_s8_u32(vdupq_n_u32(rwkv_load_u32((const uint8_t*)q + 4 * g))));
        if (rwkv_is_signed(type) && g == 1) {
            isum = finish(s);
            s = sums_zero();
        }
    }
    return vaddq_s32(isum, finish(s));
}

INLINE int32x4_t block_sum(rwkv_type type, const int8x16_t code[8], const int8_t* q) {
    if (rwkv_is_signed(type)) {
        return vaddq_s32(half_sum(type, code, q), half_sum(type, code + 4, q + 16));
    }
    sums s = sums_zero();
    for (int g = 0; g < 8; ++g) {
        s = add_group(s, code[g],
                      vreinterpretq_s8_u32(vdupq_n_u32(rwkv_load_u32((const uint8_t*)q + 4 * g))));
    }
    return finish(s);
}

#define HAS_VALUES
#include "neon_matmul.h"

/* ---- squares --------------------------------------------------------------------------------- */

enum { SQUARE = 4 };

typedef struct square {
    vec row[4];
} square;

INLINE square load_square(const float* p, size_t ld) {
    return (square){
        {vld1q_f32(p), vld1q_f32(p + ld), vld1q_f32(p + 2 * ld), vld1q_f32(p + 3 * ld)}};
}

INLINE void store_transposed(square x, float* p, size_t ld) {
    const float32x4x2_t a = vzipq_f32(x.row[0], x.row[2]);
    const float32x4x2_t b = vzipq_f32(x.row[1], x.row[3]);
    const float32x4x2_t low = vzipq_f32(a.val[0], b.val[0]);
    const float32x4x2_t high = vzipq_f32(a.val[1], b.val[1]);
    vst1q_f32(p, low.val[0]);
    vst1q_f32(p + ld, low.val[1]);
    vst1q_f32(p + 2 * ld, high.val[0]);
    vst1q_f32(p + 3 * ld, high.val[1]);
}

#include "transpose.h"

void rwkv_kernels_neon(rwkv_kernels* k) {
    use_matmul_blocks(k);
    use_matmul_values(k);
    k->quantize = quantize;
    use_vector_kernels(k);
    use_vector_sampler(k);
    k->transpose = transpose;
}
