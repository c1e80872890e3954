/* avx512.c: 512-bit vectors (AVX-512 F, BW, DQ, VL), one for the 16 rows of a panel. */
#include <immintrin.h>
#include <math.h>

#include "packing.h"

/* ---- vectors -------------------------------------------------------------------------------- */

typedef __m512 vec;
enum { LANES = 16, WKV7_VECTORS = 4 };

/* A mask for the first min(n, 16) lanes. */
INLINE __mmask16 lanes(size_t n) { return n >= 16 ? 0xffff : (__mmask16)((1u << n) - 1); }

INLINE vec vload(const float* p, size_t n) {
    return n >= 16 ? _mm512_loadu_ps(p) : _mm512_maskz_loadu_ps(lanes(n), p);
}

INLINE void vstore(float* p, size_t n, vec v) {
    if (n >= 16) {
        _mm512_storeu_ps(p, v);
    } else {
        _mm512_mask_storeu_ps(p, lanes(n), v);
    }
}

INLINE vec vset1(float s) { return _mm512_set1_ps(s); }
INLINE vec vadd(vec a, vec b) { return _mm512_add_ps(a, b); }
INLINE vec vsub(vec a, vec b) { return _mm512_sub_ps(a, b); }
INLINE vec vmul(vec a, vec b) { return _mm512_mul_ps(a, b); }
INLINE vec vdiv(vec a, vec b) { return _mm512_div_ps(a, b); }
INLINE vec vfma(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }
INLINE vec vfnma(vec a, vec b, vec c) { return _mm512_fnmadd_ps(a, b, c); }
INLINE vec vmax(vec a, vec b) { return _mm512_max_ps(a, b); }
INLINE vec vmin(vec a, vec b) { return _mm512_min_ps(a, b); }
INLINE vec vround(vec v) {
    return _mm512_roundscale_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
INLINE vec vless(vec a, vec b, vec x, vec y) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), y, x);
}
INLINE vec vkeep(vec v, size_t n) { return _mm512_maskz_mov_ps(lanes(n), v); }
INLINE vec vpow2(vec p, vec n) { return _mm512_scalef_ps(p, n); }
INLINE vec vscale(vec p, vec n) { return _mm512_scalef_ps(p, n); }

typedef __mmask16 vmask;
INLINE vmask vwithin(vec a, vec x, vec b) {
    return _mm512_mask_cmp_ps_mask(_mm512_cmp_ps_mask(a, x, _CMP_LE_OQ), x, b, _CMP_LE_OQ);
}
INLINE vec vwhere(vmask m, vec v) { return _mm512_maskz_mov_ps(m, v); }
INLINE size_t vpack(vmask m, vec x, vec w, float* y, float* z) {
    _mm512_storeu_ps(y, _mm512_maskz_compress_ps(m, x));
    _mm512_storeu_ps(z, _mm512_maskz_compress_ps(m, w));
    return (size_t)__builtin_popcount(m);
}

INLINE float vsum(vec v) {
    __m256 s = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps(v, 1));
    __m128 t = _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
    t = _mm_add_ps(t, _mm_movehl_ps(t, t));
    t = _mm_add_ss(t, _mm_movehdup_ps(t));
    return _mm_cvtss_f32(t);
}

#include "vector_kernels.h"
#include "vector_sampler.h"

/* ---- rows ------------------------------------------------------------------------------------ */

/* The magnitudes' bits of 32 values, the larger of each pair. */
INLINE __m512i magnitudes(const float* x) {
    const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
    return _mm512_max_epi32(
        _mm512_and_epi32(_mm512_castps_si512(_mm512_loadu_ps(x)), magnitude),
        _mm512_and_epi32(_mm512_castps_si512(_mm512_loadu_ps(x + 16)), magnitude));
}

/* Lane i: the largest lane of v[i]. */
INLINE __m128i largest_of_each(const __m512i v[4]) {
    const __m512i ab =
        _mm512_max_epi32(_mm512_unpacklo_epi32(v[0], v[1]), _mm512_unpackhi_epi32(v[0], v[1]));
    const __m512i cd =
        _mm512_max_epi32(_mm512_unpacklo_epi32(v[2], v[3]), _mm512_unpackhi_epi32(v[2], v[3]));
    const __m512i all =
        _mm512_max_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
    const __m256i half =
        _mm256_max_epi32(_mm512_castsi512_si256(all), _mm512_extracti64x4_epi64(all, 1));
    return _mm_max_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}

/* Lane i: the sum of all lanes of v[i]. */
INLINE __m128i sum_of_each(const __m512i v[4]) {
    const __m512i ab =
        _mm512_add_epi32(_mm512_unpacklo_epi32(v[0], v[1]), _mm512_unpackhi_epi32(v[0], v[1]));
    const __m512i cd =
        _mm512_add_epi32(_mm512_unpacklo_epi32(v[2], v[3]), _mm512_unpackhi_epi32(v[2], v[3]));
    const __m512i all =
        _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
    const __m256i half =
        _mm256_add_epi32(_mm512_castsi512_si256(all), _mm512_extracti64x4_epi64(all, 1));
    return _mm_add_epi32(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
}

/* 16 codes, x id to the nearest. */
INLINE __m512i codes(const float* x, __m512 id) {
    return _mm512_cvtps_epi32(_mm512_mul_ps(_mm512_loadu_ps(x), id));
}

INLINE void quantize_one(const float* x, rwkv_q8* y) {
    const float id = rwkv_q8_begin((uint32_t)_mm512_reduce_max_epi32(magnitudes(x)), y);
    /* Infinities and NaN stay outside: their products with an id of 0 are NaN. */
    const __mmask16 usable = id != 0.0f ? 0xffff : 0;
    const __m512i low = _mm512_maskz_mov_epi32(usable, codes(x, _mm512_set1_ps(id)));
    const __m512i high = _mm512_maskz_mov_epi32(usable, codes(x + 16, _mm512_set1_ps(id)));
    _mm_storeu_si128((__m128i*)y->q, _mm512_cvtepi32_epi8(low));
    _mm_storeu_si128((__m128i*)(y->q + 16), _mm512_cvtepi32_epi8(high));
    rwkv_q8_end(_mm512_reduce_add_epi32(low), _mm512_reduce_add_epi32(high), y);
}

/* Four blocks; the same as rwkv_q8_begin in four lanes. */
INLINE void quantize_four(const float* x, rwkv_q8* y, size_t stride) {
    __m512i v[4];
    for (int b = 0; b < 4; ++b) v[b] = magnitudes(x + RWKV_BLOCK * b);
    const __m128i bits = largest_of_each(v);
    if (_mm_cmpgt_epi32_mask(bits, _mm_set1_epi32(0x7f7fffff)) != 0) {
        for (int b = 0; b < 4; ++b) quantize_one(x + RWKV_BLOCK * b, y + b * stride);
        return;
    }
    const __m128 amax = _mm_castsi128_ps(bits);
    const __m128 id = _mm_div_ps(_mm_set1_ps(127.0f), amax);
    const __mmask8 usable = _mm_cmp_ps_mask(id, _mm_set1_ps(3.402823466e38f), _CMP_LE_OQ);
    const __m128 d = _mm_maskz_div_ps(usable, amax, _mm_set1_ps(127.0f));
    float ids[4];
    _mm_storeu_ps(ids, _mm_maskz_mov_ps(usable, id));

    /* Packing leaves, in each 128-bit lane, 4 codes of a block's low half, of its high half, then
     * the same of the next block. */
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    __m512i sums[2][4]; /* of the first and the last 16 of each block */
    for (int b = 0; b < 4; b += 2) {
        __m512i pairs[2];
        for (int i = 0; i < 2; ++i) {
            const float* xi = x + RWKV_BLOCK * (b + i);
            const __m512i low = codes(xi, _mm512_set1_ps(ids[b + i]));
            const __m512i high = codes(xi + 16, _mm512_set1_ps(ids[b + i]));
            sums[0][b + i] = low;
            sums[1][b + i] = high;
            pairs[i] = _mm512_packs_epi32(low, high);
        }
        const __m512i q = _mm512_permutexvar_epi32(order, _mm512_packs_epi16(pairs[0], pairs[1]));
        _mm256_storeu_si256((__m256i*)y[b * stride].q, _mm512_castsi512_si256(q));
        _mm256_storeu_si256((__m256i*)y[(b + 1) * stride].q, _mm512_extracti64x4_epi64(q, 1));
    }
    float ds[4];
    int32_t first[4];
    int32_t last[4];
    _mm_storeu_ps(ds, d);
    _mm_storeu_si128((__m128i*)first, sum_of_each(sums[0]));
    _mm_storeu_si128((__m128i*)last, sum_of_each(sums[1]));
    for (int b = 0; b < 4; ++b) {
        y[b * stride].d = ds[b];
        rwkv_q8_end(first[b], last[b], y + b * stride);
    }
}

static void quantize(const float* x, size_t n, rwkv_q8* y, size_t stride) {
    for (; n >= 4 * RWKV_BLOCK; n -= 4 * RWKV_BLOCK, x += 4 * RWKV_BLOCK, y += 4 * stride) {
        quantize_four(x, y, stride);
    }
    for (; n > 0; n -= RWKV_BLOCK, x += RWKV_BLOCK, y += stride) quantize_one(x, y);
}

/* ---- matrices -------------------------------------------------------------------------------- */

/* Rows of activations that share one pass over a panel. */
enum { TILE = 4, ANY_ROWS = 0, VALUES_TILE = 4, CHAINS = 4, FAR_ROWS = 2 };

INLINE __m512 load_values(rwkv_type type, const uint8_t* p) {
    if (type == RWKV_TYPE_FP32) return _mm512_loadu_ps(p);
    const __m256i v = _mm256_loadu_si256((const __m256i*)p);
    if (type == RWKV_TYPE_FP16) return _mm512_cvtph_ps(v);
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(v), 16)); /* bf16 */
}

/* A panel of values times n_rows (<= TILE) rows. Each sum is that of four: columns 4 i, 4 i + 1,
 * 4 i + 2, 4 i + 3, and those beyond a multiple of 4 with the first. */
INLINE void panel_values(rwkv_type type, const rwkv_matrix* w, size_t panel, const rwkv_rows* x,
                         size_t row, size_t n_rows, float* y, size_t ldy) {
    const size_t size = rwkv_block_bytes(type);
    const uint8_t* p = (const uint8_t*)w->data + panel * RWKV_PANEL * w->n_in * size;
    __m512 sum[TILE][4];
    for (size_t i = 0; i < n_rows; ++i) {
        for (int k = 0; k < 4; ++k) sum[i][k] = _mm512_setzero_ps();
    }
    size_t c = 0;
    for (; c + 4 <= w->n_in; c += 4) {
        for (size_t k = 0; k < 4; ++k, p += RWKV_PANEL * size) {
            rwkv_prefetch(p, n_rows >= FAR_ROWS);
            const __m512 wc = load_values(type, p);
            UNROLL
            for (size_t i = 0; i < n_rows; ++i) {
                const __m512 xc = _mm512_set1_ps(x->x[(row + i) * x->ld + c + k]);
                sum[i][k] = _mm512_fmadd_ps(wc, xc, sum[i][k]);
            }
        }
    }
    for (; c < w->n_in; ++c, p += RWKV_PANEL * size) {
        const __m512 wc = load_values(type, p);
        UNROLL
        for (size_t i = 0; i < n_rows; ++i) {
            const __m512 xc = _mm512_set1_ps(x->x[(row + i) * x->ld + c]);
            sum[i][0] = _mm512_fmadd_ps(wc, xc, sum[i][0]);
        }
    }
    for (size_t i = 0; i < n_rows; ++i) {
        vstore(y + i * ldy, w->n_out - panel * RWKV_PANEL,
               _mm512_add_ps(_mm512_add_ps(sum[i][0], sum[i][1]),
                             _mm512_add_ps(sum[i][2], sum[i][3])));
    }
}

/* What makes of a block's product with unsigned codes that with signed ones: those of q4_0 and q5_0
 * stand for 8 and 16 less. */
INLINE __m512i offset_of(rwkv_type type, const rwkv_q8* x) {
    const __m512i minus_8_sum = _mm512_set1_epi32(x->minus_8_sum);
    return type == RWKV_TYPE_Q4_0   ? minus_8_sum
           : type == RWKV_TYPE_Q5_0 ? _mm512_slli_epi32(minus_8_sum, 1)
                                    : _mm512_setzero_si512();
}

#include "avx512_codes.h"

/* The sums of a block of q6_K, each half's times its s; see scaled_sums in avx2.c. */
INLINE __m512i scaled_sums(const __m512i code[8], const uint8_t* s, const rwkv_q8* x) {
    const __m512i both = _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i*)s));
    const __m512i half_s[2] = {
        _mm512_or_si512(_mm512_slli_epi32(both, 16),
                        _mm512_and_si512(both, _mm512_set1_epi32(0xffff))),
        _mm512_or_si512(_mm512_srli_epi32(both, 16),
                        _mm512_andnot_si512(_mm512_set1_epi32(0xffff), both))};
    int32_t minus_8_sums;
    memcpy(&minus_8_sums, x->minus_8_sums, sizeof minus_8_sums);
    const __m512i offset = _mm512_madd_epi16(both, _mm512_set1_epi32(minus_8_sums));
    __m512i isum = _mm512_slli_epi32(offset, 2);
    for (int g = 0; g < 8; g += 2) {
        const __m512i pairs =
            _mm512_add_epi16(_mm512_maddubs_epi16(code[g], broadcast(x->q + 4 * g)),
                             _mm512_maddubs_epi16(code[g + 1], broadcast(x->q + 4 * g + 4)));
        isum = _mm512_add_epi32(isum, _mm512_madd_epi16(pairs, half_s[g / 4]));
    }
    return isum;
}

/* The sums of a block of other types. As in avx2.c, the products of a block's groups are added in
 * int16 where they fit:
 *     4-bit codes   8 groups x 2 x 15 x 127 = 30480
 *     5-bit codes   4 groups x 2 x 31 x 127 = 31496, so they are widened after four groups
 *     signed codes  even and odd columns apart, as int16 times int16 into int32 */
INLINE __m512i block_sums(rwkv_type type, const __m512i code[8], const rwkv_q8* x) {
    const __m512i ones = _mm512_set1_epi16(1);
    if (rwkv_is_signed(type)) {
        __m512i isum = _mm512_setzero_si512();
        for (int g = 0; g < 8; ++g) {
            const __m512i xq = broadcast(x->q + 4 * g);
            const __m512i even =
                _mm512_madd_epi16(_mm512_srai_epi16(_mm512_slli_epi16(code[g], 8), 8),
                                  _mm512_srai_epi16(_mm512_slli_epi16(xq, 8), 8));
            const __m512i odd =
                _mm512_madd_epi16(_mm512_srai_epi16(code[g], 8), _mm512_srai_epi16(xq, 8));
            isum = _mm512_add_epi32(isum, _mm512_add_epi32(even, odd));
        }
        return isum;
    }
    __m512i pairs[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
    for (int g = 0; g < 8; ++g) {
        const __m512i products = _mm512_maddubs_epi16(code[g], broadcast(x->q + 4 * g));
        pairs[g / 4] = _mm512_add_epi16(pairs[g / 4], products);
    }
    const __m512i isum =
        rwkv_high_bits(type) != 0
            ? _mm512_add_epi32(_mm512_madd_epi16(pairs[0], ones), _mm512_madd_epi16(pairs[1], ones))
            : _mm512_madd_epi16(_mm512_add_epi16(pairs[0], pairs[1]), ones);
    return _mm512_add_epi32(isum, offset_of(type, x));
}

/* Quantised panel times n_rows (<= TILE) rows. */
INLINE void panel_blocks(rwkv_type type, const rwkv_matrix* w, size_t panel, const rwkv_rows* x,
                         size_t row, size_t n_rows, float* y, size_t ldy) {
    const uint8_t* base = rwkv_panel16_at(type, w, panel);
    const size_t n_blocks = w->n_in / RWKV_BLOCK;
    __m512 sum[TILE];
    for (size_t i = 0; i < n_rows; ++i) sum[i] = _mm512_setzero_ps();
    const rwkv_q8* xb = rwkv_q8_row(x, row);
    for (size_t b = 0; b < n_blocks; ++b, xb += x->tile) {
        const rwkv_block16 block = rwkv_block16_at(type, base, b);
        __m512i code[8];
        rwkv_prefetch_head(type, &block, b, n_rows >= FAR_ROWS);
        unpack_codes(type, &block, n_rows >= FAR_ROWS, code);
        const __m512 dw = load_d(type, block.d, block.s, 0);
        const __m512 mw = load_m(type, block.m, block.t, 0);
        UNROLL
        for (size_t i = 0; i < n_rows; ++i) {
            const __m512i isum = type == RWKV_TYPE_Q6_K ? scaled_sums(code, block.s, &xb[i])
                                                        : block_sums(type, code, &xb[i]);
            const __m512 dx = _mm512_set1_ps(xb[i].d);
            sum[i] = _mm512_fmadd_ps(_mm512_mul_ps(dw, dx), _mm512_cvtepi32_ps(isum), sum[i]);
            if (rwkv_has_m(type)) sum[i] = _mm512_fmadd_ps(mw, _mm512_set1_ps(xb[i].s), sum[i]);
        }
    }
    for (size_t i = 0; i < n_rows; ++i) {
        vstore(y + i * ldy, w->n_out - panel * RWKV_PANEL, sum[i]);
    }
}

#define HAS_VALUES
#include "panel_matmul.h"
#include "value_columns.h"

void rwkv_kernels_avx512(rwkv_kernels* k) {
    use_matmul_blocks(k);
    use_matmul_values(k);
    use_value_columns(k);
    k->quantize = quantize;
    use_vector_kernels(k);
    use_vector_sampler(k);
}
