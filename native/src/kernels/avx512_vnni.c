/* avx512_vnni.c: quantised matrices by vpdpbusd, which multiplies 64 unsigned bytes with 64 signed
 * ones and adds them, four by four, to 16 int32: a group of panel16 in one instruction. */
#include <immintrin.h>

#include "packing.h"

/* Rows of activations that share one pass over a panel: their sums, the eight vectors of a block's
 * codes and what else is at hand fill the 32 registers where their number is a constant; else the
 * sums are in memory, which takes less than a second pass over the weights. */
enum { TILE = 16, ANY_ROWS = 1, FAR_ROWS = 4 };

#include "avx512_codes.h"

/* What makes of a block's product with unsigned codes that with signed ones: the codes of q4_0 and
 * q5_0 stand for 8 and 16 less, and signed bytes become unsigned by adding 128. */
INLINE __m512i offset_of(rwkv_type type, const rwkv_q8* x) {
    const __m512i minus_8_sum = _mm512_set1_epi32(x->minus_8_sum);
    return type == RWKV_TYPE_Q4_0   ? minus_8_sum
           : type == RWKV_TYPE_Q5_0 ? _mm512_slli_epi32(minus_8_sum, 1)
           : rwkv_is_signed(type)   ? _mm512_slli_epi32(minus_8_sum, 4)
                                    : _mm512_setzero_si512();
}

/* The same for half a block of q6_K, whose codes stand for 32 less. */
INLINE __m512i offset_of_half(const rwkv_q8* x, int half) {
    return _mm512_set1_epi32(4 * x->minus_8_sums[half]);
}

INLINE __m512i to_unsigned(rwkv_type type, __m512i code) {
    return rwkv_is_signed(type) ? _mm512_xor_si512(code, _mm512_set1_epi8(-128)) : code;
}

/* The sums of a block, as floats; `s` holds those of each half of q6_K. Of q6_K, all numbers but
 * the result's factors are below 2^24: nothing is rounded. Two chains, since each instruction waits
 * for the one before in its chain. */
INLINE __m512 block_sums(rwkv_type type, const __m512i code[8], const __m512 s[2],
                         const rwkv_q8* x) {
    if (type == RWKV_TYPE_Q6_K) {
        __m512i first = offset_of_half(x, 0);
        __m512i last = offset_of_half(x, 1);
        for (int g = 0; g < 4; ++g) {
            first = _mm512_dpbusd_epi32(first, code[g], broadcast(x->q + 4 * g));
            last = _mm512_dpbusd_epi32(last, code[g + 4], broadcast(x->q + 4 * g + 16));
        }
        const __m512 times_s = _mm512_mul_ps(_mm512_cvtepi32_ps(first), s[0]);
        return _mm512_fmadd_ps(_mm512_cvtepi32_ps(last), s[1], times_s);
    }
    __m512i even = offset_of(type, x);
    __m512i odd = _mm512_setzero_si512();
    for (int g = 0; g < 8; g += 2) {
        even = _mm512_dpbusd_epi32(even, code[g], broadcast(x->q + 4 * g));
        odd = _mm512_dpbusd_epi32(odd, code[g + 1], broadcast(x->q + 4 * g + 4));
    }
    return _mm512_cvtepi32_ps(_mm512_add_epi32(even, odd));
}

/* A panel times n_rows (<= TILE) rows. */
INLINE void panel_rows(rwkv_type type, const rwkv_matrix* w, size_t panel, const rwkv_rows* x,
                       size_t row, size_t n_rows, float* y, size_t ldy) {
    const uint8_t* base = rwkv_panel16_at(type, w, panel);
    const size_t n_blocks = w->n_in / RWKV_BLOCK;
    const int far_ahead = n_rows >= FAR_ROWS;

    __m512 sum[TILE];
    for (size_t i = 0; i < n_rows; ++i) sum[i] = _mm512_setzero_ps();
    const rwkv_q8* xb = rwkv_q8_row(x, row);
    for (size_t b = 0; b < n_blocks; ++b, xb += x->tile) {
        const rwkv_block16 block = rwkv_block16_at(type, base, b);
        __m512i code[8];
        rwkv_prefetch_head(type, &block, b, far_ahead);
        unpack_codes(type, &block, far_ahead, code);
        for (int g = 0; g < 8; ++g) code[g] = to_unsigned(type, code[g]);
        const __m512 dw = load_d(type, block.d, block.s, 0);
        const __m512 mw = load_m(type, block.m, block.t, 0);
        __m512 s[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
        for (int half = 0; type == RWKV_TYPE_Q6_K && half < 2; ++half) {
            s[half] = _mm512_cvtepi32_ps(load_s(block.s, half));
        }
        UNROLL
        for (size_t i = 0; i < n_rows; ++i) {
            const __m512 isum = block_sums(type, code, s, &xb[i]);
            const __m512 dx = _mm512_set1_ps(xb[i].d);
            sum[i] = _mm512_fmadd_ps(_mm512_mul_ps(dw, dx), isum, sum[i]);
            if (rwkv_has_m(type)) sum[i] = _mm512_fmadd_ps(mw, _mm512_set1_ps(xb[i].s), sum[i]);
        }
    }
    const size_t left = w->n_out - panel * RWKV_PANEL;
    const __mmask16 lanes = left >= RWKV_PANEL ? 0xffff : (__mmask16)((1u << left) - 1);
    for (size_t i = 0; i < n_rows; ++i) {
        _mm512_mask_storeu_ps(y + i * ldy, lanes, sum[i]);
    }
}

/* The same, with the numbers that come most often as constants: 1 and 2 are, from panel_matmul.h. */
INLINE void panel_blocks(rwkv_type type, const rwkv_matrix* w, size_t panel, const rwkv_rows* x,
                         size_t row, size_t n_rows, float* y, size_t ldy) {
    if (n_rows == 4) {
        panel_rows(type, w, panel, x, row, 4, y, ldy);
    } else if (n_rows == 8) {
        panel_rows(type, w, panel, x, row, 8, y, ldy);
    } else if (n_rows == 16) {
        panel_rows(type, w, panel, x, row, 16, y, ldy);
    } else {
        panel_rows(type, w, panel, x, row, n_rows, y, ldy);
    }
}

#include "panel_matmul.h"

/* ---- matrices by columns -------------------------------------------------------------------- */

typedef __m512i bytes;
typedef __m512i dots;
typedef __m512i ints;
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

/* The bytes of the outputs' lower and upper halves have their bits in the lower and the upper four
 * of each byte: turned left by 4 or 0 for the low halves of codes, by 2 or -2 for the high. */
INLINE bytes two_bits(const uint8_t* p, size_t part, int high) {
    (void)part; /* there is one */
    const __m512i v = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i*)p));
    const __m512i lower = _mm512_set1_epi32(high ? 2 : 4);
    const __m512i upper = _mm512_set1_epi32(high ? -2 : 0);
    const __m512i turned = _mm512_rolv_epi32(v, _mm512_mask_blend_epi64(0xf0, lower, upper));
    return _mm512_and_si512(turned, _mm512_set1_epi8(0x30));
}
INLINE bytes numbers(rwkv_type type, bytes code) {
    return to_unsigned(type, type == RWKV_TYPE_IQ4_NL ? look_up(code) : code);
}

INLINE dots begin_dots(rwkv_type type, const rwkv_q8* x, int half) {
    return type == RWKV_TYPE_Q6_K ? offset_of_half(x, half) : offset_of(type, x);
}
INLINE dots add_dots(rwkv_type type, dots sum, bytes code, int32_t q) {
    (void)type;
    return _mm512_dpbusd_epi32(sum, code, _mm512_set1_epi32(q));
}
INLINE ints end_dots(rwkv_type type, dots sum, const rwkv_q8* x) {
    (void)type, (void)x;
    return sum;
}
INLINE ints zero_ints(void) { return _mm512_setzero_si512(); }
INLINE ints add_ints(ints a, ints b) { return _mm512_add_epi32(a, b); }
INLINE ints scaled(ints sum, const uint8_t* s, int half) {
    return _mm512_mullo_epi32(sum, load_s(s, half));
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
INLINE vec vfrom_int32(ints v) { return _mm512_cvtepi32_ps(v); }

#include "columns_matmul.h"

void rwkv_kernels_avx512_vnni(rwkv_kernels* k) {
    use_matmul_blocks(k);
    use_columns(k);
}
