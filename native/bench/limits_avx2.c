/* The limits of AVX2 with FMA. */
#include <immintrin.h>

#include "limits.h"

typedef __m256i vec;

static inline vec vload(const uint8_t* p) { return _mm256_loadu_si256((const vec*)p); }
static inline vec vxor(vec a, vec b) { return _mm256_xor_si256(a, b); }
static inline uint64_t vfold(vec v) {
    return (uint64_t)_mm256_extract_epi64(v, 0) ^ (uint64_t)_mm256_extract_epi64(v, 1) ^
           (uint64_t)_mm256_extract_epi64(v, 2) ^ (uint64_t)_mm256_extract_epi64(v, 3);
}

#include "limits_read.h"

/* A register that the compiler must not know the value of. */
#define OPAQUE(v) __asm__ volatile("" : "+x"(v))

/* 4-bit codes times signed bytes: 8 products of pairs fit in 16 bits (8 * 2 * 15 * 127 < 32768 does
 * with signs), so widening to 32 bits is rare and is left out. */
static double multiply_int8(size_t rounds) {
    enum { SUMS = 8 };
    vec a = _mm256_set1_epi8(3);
    const vec b = _mm256_set1_epi8(-5);
    vec sums[SUMS];
    for (int i = 0; i < SUMS; ++i) sums[i] = _mm256_setzero_si256();
    for (size_t r = 0; r < rounds; ++r) {
        for (int i = 0; i < SUMS; ++i) {
            OPAQUE(a);
            sums[i] = _mm256_add_epi16(sums[i], _mm256_maddubs_epi16(a, b));
        }
    }
    for (int i = 1; i < SUMS; ++i) sums[0] = _mm256_add_epi16(sums[0], sums[i]);
    OPAQUE(sums[0]);
    return (double)rounds * SUMS * 32;
}

static double multiply_fp32(size_t rounds) {
    enum { SUMS = 12 };
    __m256 a = _mm256_set1_ps(0.5f);
    __m256 sums[SUMS];
    for (int i = 0; i < SUMS; ++i) sums[i] = _mm256_set1_ps((float)i);
    for (size_t r = 0; r < rounds; ++r) {
        OPAQUE(a);
        for (int i = 0; i < SUMS; ++i) sums[i] = _mm256_fmadd_ps(sums[i], a, a);
    }
    for (int i = 1; i < SUMS; ++i) sums[0] = _mm256_add_ps(sums[0], sums[i]);
    OPAQUE(sums[0]);
    return (double)rounds * SUMS * 8;
}

void limits_avx2(limits* l) {
    l->read = read_bytes;
    l->multiply_int8 = multiply_int8;
    l->multiply_fp32 = multiply_fp32;
}
