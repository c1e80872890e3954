/* The limits of AVX-512 F and BW. */
#include <immintrin.h>

#include "limits.h"

typedef __m512i vec;

static inline vec vload(const uint8_t* p) { return _mm512_loadu_si512(p); }
static inline vec vxor(vec a, vec b) { return _mm512_xor_si512(a, b); }
static inline uint64_t vfold(vec v) { return (uint64_t)_mm512_reduce_add_epi64(v); }

#include "limits_read.h"

#define OPAQUE(v) __asm__ volatile("" : "+v"(v))

/* As in limits_avx2.c: sums of 16 bits. */
static double multiply_int8(size_t rounds) {
    enum { SUMS = 12 };
    vec a = _mm512_set1_epi8(3);
    const vec b = _mm512_set1_epi8(-5);
    vec sums[SUMS];
    for (int i = 0; i < SUMS; ++i) sums[i] = _mm512_setzero_si512();
    for (size_t r = 0; r < rounds; ++r) {
        for (int i = 0; i < SUMS; ++i) {
            OPAQUE(a);
            sums[i] = _mm512_add_epi16(sums[i], _mm512_maddubs_epi16(a, b));
        }
    }
    for (int i = 1; i < SUMS; ++i) sums[0] = _mm512_add_epi16(sums[0], sums[i]);
    OPAQUE(sums[0]);
    return (double)rounds * SUMS * 64;
}

static double multiply_fp32(size_t rounds) {
    enum { SUMS = 16 };
    __m512 a = _mm512_set1_ps(0.5f);
    __m512 sums[SUMS];
    for (int i = 0; i < SUMS; ++i) sums[i] = _mm512_set1_ps((float)i);
    for (size_t r = 0; r < rounds; ++r) {
        OPAQUE(a);
        for (int i = 0; i < SUMS; ++i) sums[i] = _mm512_fmadd_ps(sums[i], a, a);
    }
    for (int i = 1; i < SUMS; ++i) sums[0] = _mm512_add_ps(sums[0], sums[i]);
    OPAQUE(sums[0]);
    return (double)rounds * SUMS * 16;
}

void limits_avx512(limits* l) {
    l->read = read_bytes;
    l->multiply_int8 = multiply_int8;
    l->multiply_fp32 = multiply_fp32;
}
