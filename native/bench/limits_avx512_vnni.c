/* The limits of AVX-512 VNNI: vpdpbusd multiplies 64 pairs of bytes and adds in 32 bits. */
#include <immintrin.h>

#include "limits.h"

#define OPAQUE(v) __asm__ volatile("" : "+v"(v))

static double multiply_int8(size_t rounds) {
    enum { SUMS = 16 };
    __m512i a = _mm512_set1_epi8(3);
    const __m512i b = _mm512_set1_epi8(-5);
    __m512i sums[SUMS];
    for (int i = 0; i < SUMS; ++i) sums[i] = _mm512_setzero_si512();
    for (size_t r = 0; r < rounds; ++r) {
        OPAQUE(a);
        for (int i = 0; i < SUMS; ++i) sums[i] = _mm512_dpbusd_epi32(sums[i], a, b);
    }
    for (int i = 1; i < SUMS; ++i) sums[0] = _mm512_add_epi32(sums[0], sums[i]);
    OPAQUE(sums[0]);
    return (double)rounds * SUMS * 64;
}

void limits_avx512_vnni(limits* l) { l->multiply_int8 = multiply_int8; }
