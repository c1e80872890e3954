/* avx512_vnni.c: quantised matrices by vpdpbusd, which multiplies 64 unsigned bytes with 64 signed
 * ones and adds them, four by four, to 16 int32: a group of panel16 in one instruction. */
#include <immintrin.h>

#include "kernels.h"

#define INLINE static inline __attribute__((always_inline))

/* For loops over the rows of a tile, whose sums are to stay in registers. */
#define UNROLL _Pragma("GCC unroll 16")

/* Rows of activations that share one pass over a panel: their sums, the eight vectors of a block's
 * codes and what else is at hand fill the 32 registers. */
enum { TILE = 16 };

/* What makes of a block's product with unsigned codes that with signed ones: the codes of q4_0 and
 * q5_0 stand for 8 and 16 less, and q8_0's signed bytes become unsigned by adding 128. */
INLINE __m512i offset_of(rwkv_type type, const rwkv_q8* x) {
    const __m512i minus_8_sum = _mm512_set1_epi32(x->minus_8_sum);
    return type == RWKV_TYPE_Q4_0   ? minus_8_sum
           : type == RWKV_TYPE_Q5_0 ? _mm512_slli_epi32(minus_8_sum, 1)
           : type == RWKV_TYPE_Q8_0 ? _mm512_slli_epi32(minus_8_sum, 4)
                                    : _mm512_setzero_si512();
}

/* A panel times n_rows (<= TILE) rows. */
INLINE void panel_blocks(rwkv_type type, const rwkv_matrix* w, size_t panel, const rwkv_rows* x,
                         size_t row, size_t n_rows, float* y, size_t ldy) {
    const int is_q8 = type == RWKV_TYPE_Q8_0;
    const uint8_t* base = rwkv_panel16_at(type, w, panel);
    const size_t n_blocks = w->n_in / RWKV_BLOCK;
    const __m512i low = _mm512_set1_epi8(15);

    __m512 sum[TILE];
    for (size_t i = 0; i < n_rows; ++i) sum[i] = _mm512_setzero_ps();
    const rwkv_q8* xb = rwkv_q8_row(x, row);
    for (size_t b = 0; b < n_blocks; ++b, xb += x->tile) {
        const rwkv_block16 block = rwkv_block16_at(type, base, b);
        __m512i code[8];
        for (int g = 0; g < (is_q8 ? 8 : 4); ++g) {
            const uint8_t* p = block.codes + 64 * g;
            const __m512i bytes = _mm512_loadu_si512(p);
            rwkv_prefetch(p);
            if (is_q8) {
                code[g] = _mm512_xor_si512(bytes, _mm512_set1_epi8(-128));
            } else {
                code[g] = _mm512_and_si512(bytes, low);
                code[g + 4] = _mm512_and_si512(_mm512_srli_epi16(bytes, 4), low);
            }
        }
        if (rwkv_has_fifth(type)) {
            for (int g = 0; g < 8; ++g) {
                __mmask64 bits;
                memcpy(&bits, block.fifth + 8 * g, sizeof bits);
                code[g] = _mm512_mask_add_epi8(code[g], bits, code[g], _mm512_set1_epi8(16));
            }
        }
        const __m512 dw = _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)(block.d)));
        const __m512 mw = rwkv_has_m(type)
                              ? _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)(block.m)))
                              : _mm512_setzero_ps();
        UNROLL
        for (size_t i = 0; i < n_rows; ++i) {
            const uint8_t* q = (const uint8_t*)xb[i].q;
            /* Two chains, since each instruction waits for the one before in its chain. */
            __m512i isum = offset_of(type, &xb[i]);
            __m512i odd = _mm512_setzero_si512();
            for (int g = 0; g < 8; g += 2) {
                const __m512i xq0 = _mm512_set1_epi32((int32_t)rwkv_load_u32(q + 4 * g));
                const __m512i xq1 = _mm512_set1_epi32((int32_t)rwkv_load_u32(q + 4 * g + 4));
                isum = _mm512_dpbusd_epi32(isum, code[g], xq0);
                odd = _mm512_dpbusd_epi32(odd, code[g + 1], xq1);
            }
            isum = _mm512_add_epi32(isum, odd);
            const __m512 dx = _mm512_set1_ps(xb[i].d);
            sum[i] = _mm512_fmadd_ps(_mm512_mul_ps(dw, dx), _mm512_cvtepi32_ps(isum), sum[i]);
            if (rwkv_has_m(type)) sum[i] = _mm512_fmadd_ps(mw, _mm512_set1_ps(xb[i].s), sum[i]);
        }
    }
    const size_t left = w->n_out - panel * RWKV_PANEL;
    const __mmask16 lanes = left >= RWKV_PANEL ? 0xffff : (__mmask16)((1u << left) - 1);
    for (size_t i = 0; i < n_rows; ++i) {
        _mm512_mask_storeu_ps(y + i * ldy, lanes, sum[i]);
    }
}

#include "panel_matmul.h"

/* ---- matrices by columns ----------------------------------------------------------------------
 */

typedef __m512i bytes;
typedef __m512i dots;
typedef __m512 vec;
enum { BYTES = 64 };

INLINE bytes load_bytes(const uint8_t* p) { return _mm512_loadu_si512(p); }
INLINE void store_bytes(uint8_t* p, bytes v) { _mm512_storeu_si512(p, v); }
INLINE bytes or_bytes(bytes a, bytes b) { return _mm512_or_si512(a, b); }
INLINE bytes low_halves(bytes v) { return _mm512_and_si512(v, _mm512_set1_epi8(15)); }
INLINE bytes high_halves(bytes v) { return low_halves(_mm512_srli_epi16(v, 4)); }
INLINE bytes join_halves(bytes low, bytes high) {
    const __m512i up = _mm512_andnot_si512(_mm512_set1_epi8(15), _mm512_slli_epi16(high, 4));
    return _mm512_or_si512(low_halves(low), up);
}
INLINE bytes zip8(bytes a, bytes b, int upper) {
    return upper ? _mm512_unpackhi_epi8(a, b) : _mm512_unpacklo_epi8(a, b);
}
INLINE bytes zip16(bytes a, bytes b, int upper) {
    return upper ? _mm512_unpackhi_epi16(a, b) : _mm512_unpacklo_epi16(a, b);
}
INLINE bytes fifth_bits(const uint8_t* p) {
    __mmask64 bits;
    memcpy(&bits, p, sizeof bits);
    return _mm512_maskz_set1_epi8(bits, 16);
}
INLINE void store_fifth(uint8_t* p, bytes codes) {
    const __mmask64 bits = _mm512_test_epi8_mask(codes, _mm512_set1_epi8(16));
    memcpy(p, &bits, sizeof bits);
}

INLINE uint32_t not_zero(const int8_t* q) {
    const __m256i v = _mm256_loadu_si256((const __m256i*)q);
    return _mm256_test_epi8_mask(v, v);
}

INLINE dots begin_dots(rwkv_type type, const rwkv_q8* x) { return offset_of(type, x); }
INLINE dots add_dots(rwkv_type type, dots sum, bytes code, int32_t q) {
    if (type == RWKV_TYPE_Q8_0) code = _mm512_xor_si512(code, _mm512_set1_epi8(-128));
    return _mm512_dpbusd_epi32(sum, code, _mm512_set1_epi32(q));
}
INLINE __m512i end_dots(rwkv_type type, dots sum, const rwkv_q8* x) {
    (void)type, (void)x;
    return sum;
}
INLINE vec vload(const float* p, size_t n) {
    (void)n; /* 16 */
    return _mm512_loadu_ps(p);
}
INLINE void vstore(float* p, size_t n, vec v) {
    (void)n;
    _mm512_storeu_ps(p, v);
}
INLINE vec vset1(float s) { return _mm512_set1_ps(s); }
INLINE vec vmul(vec a, vec b) { return _mm512_mul_ps(a, b); }
INLINE vec vfma(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }
INLINE vec vload_fp16(const uint8_t* p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p));
}
INLINE vec vfrom_int32(__m512i v) { return _mm512_cvtepi32_ps(v); }

#include "columns_matmul.h"

void rwkv_kernels_avx512_vnni(rwkv_kernels* k) {
    use_matmul_blocks(k);
    use_columns(k);
}
