/* The limits of NEON. */
#include <arm_neon.h>

#include "limits.h"

typedef uint8x16_t vec;

static inline vec vload(const uint8_t* p) { return vld1q_u8(p); }
static inline vec vxor(vec a, vec b) { return veorq_u8(a, b); }
static inline uint64_t vfold(vec v) {
    const uint64x2_t u = vreinterpretq_u64_u8(v);
    return vgetq_lane_u64(u, 0) ^ vgetq_lane_u64(u, 1);
}

#include "limits_read.h"

#define OPAQUE(v) __asm__ volatile("" : "+w"(v))

static double multiply_int8(size_t rounds) {
    enum { SUMS = 16 };
    int8x8_t a = vdup_n_s8(3);
    const int8x8_t b = vdup_n_s8(-5);
    int16x8_t sums[SUMS];
    for (int i = 0; i < SUMS; ++i) sums[i] = vdupq_n_s16(0);
    for (size_t r = 0; r < rounds; ++r) {
        OPAQUE(a);
        for (int i = 0; i < SUMS; ++i) sums[i] = vmlal_s8(sums[i], a, b);
    }
    for (int i = 1; i < SUMS; ++i) sums[0] = vaddq_s16(sums[0], sums[i]);
    OPAQUE(sums[0]);
    return (double)rounds * SUMS * 8;
}

static double multiply_fp32(size_t rounds) {
    enum { SUMS = 16 };
    float32x4_t a = vdupq_n_f32(0.5f);
    float32x4_t sums[SUMS];
    for (int i = 0; i < SUMS; ++i) sums[i] = vdupq_n_f32((float)i);
    for (size_t r = 0; r < rounds; ++r) {
        OPAQUE(a);
        for (int i = 0; i < SUMS; ++i) sums[i] = vfmaq_f32(a, sums[i], a);
    }
    for (int i = 1; i < SUMS; ++i) sums[0] = vaddq_f32(sums[0], sums[i]);
    OPAQUE(sums[0]);
    return (double)rounds * SUMS * 4;
}

void limits_neon(limits* l) {
    l->read = read_bytes;
    l->multiply_int8 = multiply_int8;
    l->multiply_fp32 = multiply_fp32;
}
