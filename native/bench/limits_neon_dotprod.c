/* The limits of NEON with dot products: sdot multiplies 16 pairs of bytes and adds in 32 bits. */
#include <arm_neon.h>

#include "limits.h"

#define OPAQUE(v) __asm__ volatile("" : "+w"(v))

static double multiply_int8(size_t rounds) {
    enum { SUMS = 16 };
    int8x16_t a = vdupq_n_s8(3);
    const int8x16_t b = vdupq_n_s8(-5);
    int32x4_t sums[SUMS];
    for (int i = 0; i < SUMS; ++i) sums[i] = vdupq_n_s32(0);
    for (size_t r = 0; r < rounds; ++r) {
        OPAQUE(a);
        for (int i = 0; i < SUMS; ++i) sums[i] = vdotq_s32(sums[i], a, b);
    }
    for (int i = 1; i < SUMS; ++i) sums[0] = vaddq_s32(sums[0], sums[i]);
    OPAQUE(sums[0]);
    return (double)rounds * SUMS * 16;
}

void limits_neon_dotprod(limits* l) { l->multiply_int8 = multiply_int8; }
