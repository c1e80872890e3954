/* avx512_emulation.h: AVX-512 for processors without it, so that the levels that need it are tested
 * everywhere. SIMDe (the Debian package libsimde-dev) has most instructions in plain C; those that
 * it lacks, or rounds differently, follow. Included before a level's file is compiled (-include),
 * with the compiler's own intrinsics kept out. */
#define SIMDE_NO_NATIVE
#define SIMDE_ENABLE_NATIVE_ALIASES
/* NOLINTBEGIN(bugprone-reserved-identifier): these names are the compilers'. */
#define _IMMINTRIN_H_INCLUDED /* gcc's */
#define __IMMINTRIN_H         /* clang's */
/* NOLINTEND(bugprone-reserved-identifier) */
#include <math.h>
#include <simde/x86/avx512.h>
#include <simde/x86/f16c.h>
#include <simde/x86/fma.h>
#include <string.h>

/* Functions of their own: a kernel has hundreds of them in a row, and inline they would take the
 * compiler minutes. */
#define EMULATED static __attribute__((noinline, unused))

/* NOLINTBEGIN(bugprone-reserved-identifier) */
typedef uint8_t __mmask8;
typedef uint16_t __mmask16;
typedef uint64_t __mmask64;
#define _MM_FROUND_NO_EXC SIMDE_MM_FROUND_NO_EXC
/* NOLINTEND(bugprone-reserved-identifier) */
#define _mm512_mask_cmp_ps_mask(mask, a, b, op) ((mask) & simde_mm512_cmp_ps_mask(a, b, op))

typedef struct emulated_16 {
    union {
        float f[16];
        int32_t i[16];
    } u;
} emulated_16;

EMULATED emulated_16 emulated_from(const void* vector) {
    emulated_16 v;
    memcpy(&v, vector, sizeof v);
    return v;
}

EMULATED __m512 emulated_ps(const emulated_16* v) { return simde_mm512_loadu_ps(v); }
EMULATED __m512i emulated_si(const emulated_16* v) { return simde_mm512_loadu_si512(v); }

/* c + sign a b, rounded once, as SIMDe does not. */
EMULATED __m512 emulated_fma(__m512 a, __m512 b, __m512 c, float sign) {
    const emulated_16 x = emulated_from(&a);
    const emulated_16 y = emulated_from(&b);
    emulated_16 z = emulated_from(&c);
    for (int i = 0; i < 16; ++i) z.u.f[i] = fmaf(sign * x.u.f[i], y.u.f[i], z.u.f[i]);
    return emulated_ps(&z);
}

#undef _mm512_fmadd_ps
#undef _mm512_fnmadd_ps
#define _mm512_fmadd_ps(a, b, c) emulated_fma(a, b, c, 1.0f)
#define _mm512_fnmadd_ps(a, b, c) emulated_fma(a, b, c, -1.0f)

/* Products of bytes or int16, added in pairs or fours. */
typedef union emulated_64 {
    uint8_t u8[64];
    int8_t i8[64];
    int16_t i16[32];
    int32_t i32[16];
} emulated_64;

EMULATED __m512i emulated_dpbusd(__m512i sum, __m512i a, __m512i b) {
    emulated_64 s;
    emulated_64 x;
    emulated_64 y;
    memcpy(&s, &sum, sizeof s);
    memcpy(&x, &a, sizeof x);
    memcpy(&y, &b, sizeof y);
    for (int i = 0; i < 64; ++i) s.i32[i / 4] += x.u8[i] * y.i8[i];
    return simde_mm512_loadu_si512(&s);
}
EMULATED __m512i emulated_maddubs(__m512i a, __m512i b) {
    emulated_64 x;
    emulated_64 y;
    emulated_64 s;
    memcpy(&x, &a, sizeof x);
    memcpy(&y, &b, sizeof y);
    for (int i = 0; i < 32; ++i) {
        const int pair = x.u8[2 * i] * y.i8[2 * i] + x.u8[2 * i + 1] * y.i8[2 * i + 1];
        s.i16[i] = (int16_t)(pair > 32767 ? 32767 : pair < -32768 ? -32768 : pair);
    }
    return simde_mm512_loadu_si512(&s);
}
EMULATED __m512i emulated_madd(__m512i a, __m512i b) {
    emulated_64 x;
    emulated_64 y;
    emulated_64 s;
    memcpy(&x, &a, sizeof x);
    memcpy(&y, &b, sizeof y);
    for (int i = 0; i < 16; ++i) {
        s.i32[i] = x.i16[2 * i] * y.i16[2 * i] + x.i16[2 * i + 1] * y.i16[2 * i + 1];
    }
    return simde_mm512_loadu_si512(&s);
}
#undef _mm512_dpbusd_epi32
#undef _mm512_maddubs_epi16
#undef _mm512_madd_epi16
#define _mm512_dpbusd_epi32(sum, a, b) emulated_dpbusd(sum, a, b)
#define _mm512_maddubs_epi16(a, b) emulated_maddubs(a, b)
#define _mm512_madd_epi16(a, b) emulated_madd(a, b)

EMULATED __m512 emulated_cvtepi32_ps(__m512i a) {
    emulated_16 v = emulated_from(&a);
    for (int i = 0; i < 16; ++i) v.u.f[i] = (float)v.u.i[i];
    return emulated_ps(&v);
}
#undef _mm512_cvtepi32_ps
#define _mm512_cvtepi32_ps(a) emulated_cvtepi32_ps(a)

/* To the nearest, halves to even; what is no int32 becomes the smallest. */
EMULATED __m512i emulated_cvtps_epi32(__m512 a) {
    emulated_16 v = emulated_from(&a);
    for (int i = 0; i < 16; ++i) {
        const float f = rintf(v.u.f[i]);
        v.u.i[i] = f >= -0x1p31f && f < 0x1p31f ? (int32_t)f : INT32_MIN;
    }
    return emulated_si(&v);
}
#undef _mm512_cvtps_epi32
#define _mm512_cvtps_epi32(a) emulated_cvtps_epi32(a)

EMULATED __m512i emulated_srai_epi32(__m512i a, unsigned count) {
    emulated_16 v = emulated_from(&a);
    for (int i = 0; i < 16; ++i) v.u.i[i] >>= count;
    return emulated_si(&v);
}
#undef _mm512_srai_epi32
#define _mm512_srai_epi32(a, count) emulated_srai_epi32(a, count)

EMULATED __m256 emulated_extractf32x8(__m512 a, int half) {
    const emulated_16 v = emulated_from(&a);
    return simde_mm256_loadu_ps(v.u.f + 8 * half);
}
#undef _mm512_extractf32x8_ps
#define _mm512_extractf32x8_ps(a, half) emulated_extractf32x8(a, half)

/* 16 integers of one or two bytes, without a sign, to 32 bits. */
EMULATED __m512i emulated_widen(const void* from, size_t bytes) {
    emulated_16 v;
    for (size_t i = 0; i < 16; ++i) {
        v.u.i[i] = 0;
        memcpy(&v.u.i[i], (const uint8_t*)from + i * bytes, bytes);
    }
    return emulated_si(&v);
}
EMULATED __m512i emulated_cvtepu8_epi32(__m128i a) { return emulated_widen(&a, 1); }
EMULATED __m512i emulated_cvtepu16_epi32(__m256i a) { return emulated_widen(&a, 2); }
#undef _mm512_cvtepu8_epi32
#undef _mm512_cvtepu16_epi32
#define _mm512_cvtepu8_epi32(a) emulated_cvtepu8_epi32(a)
#define _mm512_cvtepu16_epi32(a) emulated_cvtepu16_epi32(a)

EMULATED __m128i emulated_cvtepi32_epi8(__m512i a) {
    const emulated_16 v = emulated_from(&a);
    uint8_t bytes[16];
    for (int i = 0; i < 16; ++i) bytes[i] = (uint8_t)v.u.i[i];
    return simde_mm_loadu_si128(bytes);
}
#undef _mm512_cvtepi32_epi8
#define _mm512_cvtepi32_epi8(a) emulated_cvtepi32_epi8(a)

EMULATED __m512 emulated_cvtph_ps(__m256i a) {
    return simde_mm512_insertf32x8(
        simde_mm512_castps256_ps512(simde_mm256_cvtph_ps(simde_mm256_castsi256_si128(a))),
        simde_mm256_cvtph_ps(simde_mm256_extracti128_si256(a, 1)), 1);
}
#undef _mm512_cvtph_ps
#define _mm512_cvtph_ps(a) emulated_cvtph_ps(a)

/* Rounded to bf16, halves to even; what is not finite is not tested. */
EMULATED __m256i emulated_cvtneps_pbh(__m512 a) {
    const emulated_16 v = emulated_from(&a);
    uint16_t half[16];
    for (int i = 0; i < 16; ++i) {
        const uint32_t bits = (uint32_t)v.u.i[i];
        half[i] = (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
    }
    return simde_mm256_loadu_si256(half);
}
#undef _mm512_cvtneps_pbh
#define _mm512_cvtneps_pbh(a) emulated_cvtneps_pbh(a)

EMULATED int32_t emulated_reduce_add(__m512i a) {
    const emulated_16 v = emulated_from(&a);
    int32_t sum = 0;
    for (int i = 0; i < 16; ++i) sum += v.u.i[i];
    return sum;
}
EMULATED int32_t emulated_reduce_max(__m512i a) {
    const emulated_16 v = emulated_from(&a);
    int32_t top = v.u.i[0];
    for (int i = 1; i < 16; ++i) top = v.u.i[i] > top ? v.u.i[i] : top;
    return top;
}
#undef _mm512_reduce_add_epi32
#undef _mm512_reduce_max_epi32
#define _mm512_reduce_add_epi32(a) emulated_reduce_add(a)
#define _mm512_reduce_max_epi32(a) emulated_reduce_max(a)

/* Loads and stores of some lanes touch no others' memory. */
EMULATED __m512 emulated_maskz_loadu(uint32_t mask, const float* p) {
    emulated_16 v;
    for (int i = 0; i < 16; ++i) v.u.f[i] = mask >> i & 1 ? p[i] : 0.0f;
    return emulated_ps(&v);
}
EMULATED void emulated_mask_storeu(float* p, uint32_t mask, __m512 a) {
    const emulated_16 v = emulated_from(&a);
    for (int i = 0; i < 16; ++i) {
        if (mask >> i & 1) p[i] = v.u.f[i];
    }
}
EMULATED void emulated_mask_storeu_16(uint16_t* p, uint32_t mask, __m256i a) {
    uint16_t v[16];
    memcpy(v, &a, sizeof v);
    for (int i = 0; i < 16; ++i) {
        if (mask >> i & 1) p[i] = v[i];
    }
}
#undef _mm512_maskz_loadu_ps
#undef _mm512_mask_storeu_ps
#undef _mm256_mask_storeu_epi16
#define _mm512_maskz_loadu_ps(mask, p) emulated_maskz_loadu(mask, p)
#define _mm512_mask_storeu_ps(p, mask, a) emulated_mask_storeu(p, mask, a)
#define _mm256_mask_storeu_epi16(p, mask, a) emulated_mask_storeu_16(p, mask, a)

EMULATED uint32_t emulated_test_epi8(__m256i a, __m256i b) {
    uint8_t x[32];
    uint8_t y[32];
    memcpy(x, &a, sizeof x);
    memcpy(y, &b, sizeof y);
    uint32_t mask = 0;
    for (int i = 0; i < 32; ++i) mask |= (uint32_t)((x[i] & y[i]) != 0) << i;
    return mask;
}
EMULATED uint32_t emulated_cmpgt_epi32(__m128i a, __m128i b) {
    int32_t x[4];
    int32_t y[4];
    memcpy(x, &a, sizeof x);
    memcpy(y, &b, sizeof y);
    uint32_t mask = 0;
    for (int i = 0; i < 4; ++i) mask |= (uint32_t)(x[i] > y[i]) << i;
    return mask;
}
EMULATED __m128 emulated_maskz_div(uint32_t mask, __m128 a, __m128 b) {
    float x[4];
    float y[4];
    memcpy(x, &a, sizeof x);
    memcpy(y, &b, sizeof y);
    for (int i = 0; i < 4; ++i) x[i] = mask >> i & 1 ? x[i] / y[i] : 0.0f;
    return simde_mm_loadu_ps(x);
}
#undef _mm256_test_epi8_mask
#undef _mm_cmpgt_epi32_mask
#undef _mm_maskz_div_ps
#define _mm256_test_epi8_mask(a, b) emulated_test_epi8(a, b)
#define _mm_cmpgt_epi32_mask(a, b) emulated_cmpgt_epi32(a, b)
#define _mm_maskz_div_ps(mask, a, b) emulated_maskz_div(mask, a, b)
