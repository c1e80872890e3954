/* avx2.c: 256-bit vectors, with FMA and F16C. All matrices are packed as panel16; a panel's 16 rows
 * are two vectors of 8 ("halves"). */
#include <immintrin.h>
#include <math.h>

#include "kernels.h"

#define INLINE static inline __attribute__((always_inline))

/* ---- vectors and their tails ----------------------------------------------------------------- */

/* A mask for the first `n` of 8 lanes. */
INLINE __m256i lanes(size_t n) {
    static const int32_t ones_then_zeros[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
    return _mm256_loadu_si256((const __m256i*)(ones_then_zeros + 8 - (n < 8 ? n : 8)));
}

/* Loads or stores up to 8 of the n elements left; the other lanes are zeros. The same arithmetic
 * then serves whole vectors and tails, so an element's value does not depend on where it stands. */
INLINE __m256 load(const float* p, size_t n) {
    return n >= 8 ? _mm256_loadu_ps(p) : _mm256_maskload_ps(p, lanes(n));
}

INLINE void store(float* p, size_t n, __m256 v) {
    if (n >= 8) {
        _mm256_storeu_ps(p, v);
    } else {
        _mm256_maskstore_ps(p, lanes(n), v);
    }
}

INLINE float sum_of(__m256 v) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    s = _mm_add_ss(s, _mm_movehdup_ps(s));
    return _mm_cvtss_f32(s);
}

/* ---- exp and its relatives ------------------------------------------------------------------- */

/* exp(x) to 2 ulp: x = n ln 2 + r, |r| <= ln 2 / 2, exp(x) = 2^n (1 + r + r^2 P(r)); P is Cephes'
 * polynomial for expf. Below -87.3 (2^-126) the result is 0, above 88.72 infinity; NaN stays. */
INLINE __m256 exp8(__m256 x) {
    /* max and min return their second operand where one is NaN. */
    const __m256 c =
        _mm256_max_ps(_mm256_set1_ps(-87.33654f), _mm256_min_ps(_mm256_set1_ps(88.72284f), x));
    const __m256 n = _mm256_round_ps(_mm256_mul_ps(c, _mm256_set1_ps(1.44269504f)),
                                     _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    __m256 r = _mm256_fnmadd_ps(n, _mm256_set1_ps(0.693359375f), c);
    r = _mm256_fnmadd_ps(n, _mm256_set1_ps(-2.12194440e-4f), r);
    __m256 p = _mm256_set1_ps(1.9875691500e-4f);
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.3981999507e-3f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(8.3334519073e-3f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(4.1665795894e-2f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(1.6666665459e-1f));
    p = _mm256_fmadd_ps(p, r, _mm256_set1_ps(5.0000001201e-1f));
    p = _mm256_fmadd_ps(_mm256_mul_ps(r, r), p, _mm256_add_ps(r, _mm256_set1_ps(1.0f)));
    /* 2^n in two factors, since n may be 128. */
    const __m256i e = _mm256_cvtps_epi32(n);
    const __m256i half = _mm256_srai_epi32(e, 1);
    const __m256i bias = _mm256_set1_epi32(127);
    const __m256 f1 = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23));
    const __m256 f2 = _mm256_castsi256_ps(
        _mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(e, half), bias), 23));
    __m256 y = _mm256_mul_ps(_mm256_mul_ps(p, f1), f2);
    y = _mm256_andnot_ps(_mm256_cmp_ps(x, _mm256_set1_ps(-87.33654f), _CMP_LT_OQ), y);
    return _mm256_blendv_ps(y, _mm256_set1_ps(INFINITY),
                            _mm256_cmp_ps(x, _mm256_set1_ps(88.72284f), _CMP_GT_OQ));
}

INLINE __m256 negate(__m256 x) { return _mm256_xor_ps(x, _mm256_set1_ps(-0.0f)); }

INLINE __m256 sigmoid8(__m256 x) {
    const __m256 one = _mm256_set1_ps(1.0f);
    return _mm256_div_ps(one, _mm256_add_ps(one, exp8(negate(x))));
}

/* tanh(x) = 1 - 2 / (exp(2x) + 1) for |x| >= 0.625, Cephes' odd polynomial below, where the first
 * form would cancel. */
INLINE __m256 tanh8(__m256 x) {
    const __m256 one = _mm256_set1_ps(1.0f);
    const __m256 sign = _mm256_and_ps(x, _mm256_set1_ps(-0.0f));
    const __m256 a = _mm256_xor_ps(x, sign);
    const __m256 e = exp8(_mm256_add_ps(a, a));
    const __m256 large =
        _mm256_sub_ps(one, _mm256_div_ps(_mm256_set1_ps(2.0f), _mm256_add_ps(e, one)));
    const __m256 z = _mm256_mul_ps(a, a);
    __m256 p = _mm256_set1_ps(-5.70498872745e-3f);
    p = _mm256_fmadd_ps(p, z, _mm256_set1_ps(2.06390887954e-2f));
    p = _mm256_fmadd_ps(p, z, _mm256_set1_ps(-5.37397155531e-2f));
    p = _mm256_fmadd_ps(p, z, _mm256_set1_ps(1.33314422036e-1f));
    p = _mm256_fmadd_ps(p, z, _mm256_set1_ps(-3.33332819422e-1f));
    const __m256 small = _mm256_fmadd_ps(_mm256_mul_ps(p, z), a, a);
    const __m256 is_small = _mm256_cmp_ps(a, _mm256_set1_ps(0.625f), _CMP_LT_OQ);
    return _mm256_or_ps(_mm256_blendv_ps(large, small, is_small), sign);
}

/* ---- element-wise ---------------------------------------------------------------------------- */

static void lerp(const float* x, const float* prev, const float* mix, size_t n, float* y) {
    for (size_t i = 0; i < n; i += 8) {
        const __m256 xi = load(x + i, n - i);
        const __m256 diff = _mm256_sub_ps(load(prev + i, n - i), xi);
        store(y + i, n - i, _mm256_fmadd_ps(diff, load(mix + i, n - i), xi));
    }
}

static void add(const float* x, const float* z, size_t n, float* y) {
    for (size_t i = 0; i < n; i += 8) {
        store(y + i, n - i, _mm256_add_ps(load(x + i, n - i), load(z + i, n - i)));
    }
}

static void mul(const float* x, const float* z, size_t n, float* y) {
    for (size_t i = 0; i < n; i += 8) {
        store(y + i, n - i, _mm256_mul_ps(load(x + i, n - i), load(z + i, n - i)));
    }
}

static void add_mul(const float* x, const float* z, size_t n, float* y) {
    for (size_t i = 0; i < n; i += 8) {
        store(y + i, n - i,
              _mm256_fmadd_ps(load(x + i, n - i), load(z + i, n - i), load(y + i, n - i)));
    }
}

static void scale(const float* x, float s, size_t n, float* y) {
    for (size_t i = 0; i < n; i += 8) {
        store(y + i, n - i, _mm256_mul_ps(load(x + i, n - i), _mm256_set1_ps(s)));
    }
}

static void add_scaled(const float* x, float s, size_t n, float* y) {
    for (size_t i = 0; i < n; i += 8) {
        store(y + i, n - i,
              _mm256_fmadd_ps(load(x + i, n - i), _mm256_set1_ps(s), load(y + i, n - i)));
    }
}

static void sigmoid(const float* x, size_t n, float* y) {
    for (size_t i = 0; i < n; i += 8) store(y + i, n - i, sigmoid8(load(x + i, n - i)));
}

static void tanh_(const float* x, size_t n, float* y) {
    for (size_t i = 0; i < n; i += 8) store(y + i, n - i, tanh8(load(x + i, n - i)));
}

static void silu(const float* x, size_t n, float* y) {
    for (size_t i = 0; i < n; i += 8) {
        const __m256 xi = load(x + i, n - i);
        store(y + i, n - i, _mm256_mul_ps(xi, sigmoid8(xi)));
    }
}

static void relu2(const float* x, size_t n, float* y) {
    for (size_t i = 0; i < n; i += 8) {
        const __m256 positive = _mm256_max_ps(_mm256_setzero_ps(), load(x + i, n - i));
        store(y + i, n - i, _mm256_mul_ps(positive, positive));
    }
}

static void decay_v6(const float* x, size_t n, float* y) {
    for (size_t i = 0; i < n; i += 8) {
        store(y + i, n - i, exp8(negate(exp8(load(x + i, n - i)))));
    }
}

static void decay_v7(const float* x, size_t n, float* y) {
    for (size_t i = 0; i < n; i += 8) {
        const __m256 s = sigmoid8(load(x + i, n - i));
        store(y + i, n - i, exp8(_mm256_mul_ps(_mm256_set1_ps(-0.606531f), s)));
    }
}

static void key_v7(const float* k, const float* a, const float* k_a, size_t n, float* y) {
    const __m256 one = _mm256_set1_ps(1.0f);
    for (size_t i = 0; i < n; i += 8) {
        const __m256 f =
            _mm256_fmadd_ps(_mm256_sub_ps(load(a + i, n - i), one), load(k_a + i, n - i), one);
        store(y + i, n - i, _mm256_mul_ps(load(k + i, n - i), f));
    }
}

/* ---- rows ------------------------------------------------------------------------------------ */

static float dot(const float* x, const float* y, size_t n) {
    __m256 sum[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    for (size_t i = 0; i < n; i += 8) {
        sum[i / 8 % 2] = _mm256_fmadd_ps(load(x + i, n - i), load(y + i, n - i), sum[i / 8 % 2]);
    }
    return sum_of(_mm256_add_ps(sum[0], sum[1]));
}

static void layer_norm(const float* x, const float* w, const float* b, float eps, size_t n,
                       float* y) {
    __m256 sum[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    for (size_t i = 0; i < n; i += 8) {
        sum[i / 8 % 2] = _mm256_add_ps(sum[i / 8 % 2], load(x + i, n - i));
    }
    const __m256 mean = _mm256_set1_ps(sum_of(_mm256_add_ps(sum[0], sum[1])) / (float)n);
    sum[0] = sum[1] = _mm256_setzero_ps();
    for (size_t i = 0; i < n; i += 8) {
        __m256 diff = _mm256_sub_ps(load(x + i, n - i), mean);
        if (n - i < 8) diff = _mm256_and_ps(diff, _mm256_castsi256_ps(lanes(n - i)));
        sum[i / 8 % 2] = _mm256_fmadd_ps(diff, diff, sum[i / 8 % 2]);
    }
    const float variance = sum_of(_mm256_add_ps(sum[0], sum[1])) / (float)n;
    const __m256 factor = _mm256_set1_ps(1.0f / sqrtf(variance + eps));
    for (size_t i = 0; i < n; i += 8) {
        const __m256 diff = _mm256_sub_ps(load(x + i, n - i), mean);
        store(y + i, n - i,
              _mm256_fmadd_ps(_mm256_mul_ps(diff, factor), load(w + i, n - i), load(b + i, n - i)));
    }
}

static void quantize(const float* x, size_t n, int8_t* q, float* d, int32_t* sum) {
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    /* packs_epi32 and packs_epi16 interleave 128-bit lanes: this puts the dwords in order again. */
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    for (size_t b = 0; b < n / RWKV_BLOCK; ++b, x += RWKV_BLOCK, q += RWKV_BLOCK) {
        __m256 v[4];
        __m256i top = _mm256_setzero_si256();
        for (int i = 0; i < 4; ++i) {
            /* Magnitudes compare like their bits, and NaN above infinity above all numbers. */
            v[i] = _mm256_loadu_ps(x + 8 * i);
            top = _mm256_max_epi32(top, _mm256_and_si256(_mm256_castps_si256(v[i]), magnitude));
        }
        __m128i t = _mm_max_epi32(_mm256_castsi256_si128(top), _mm256_extracti128_si256(top, 1));
        t = _mm_max_epi32(t, _mm_shuffle_epi32(t, 0x4e));
        t = _mm_max_epi32(t, _mm_shuffle_epi32(t, 0xb1));
        const int32_t bits = _mm_cvtsi128_si32(t);
        const float amax = _mm_cvtss_f32(_mm_castsi128_ps(t));
        const int finite = bits < 0x7f800000;
        const float id = finite && bits > 0 ? 127.0f / amax : 0.0f;
        if (!finite || id > 3.402823466e38f) {
            _mm256_storeu_si256((__m256i*)q, _mm256_setzero_si256());
            d[b] = finite ? 0.0f : NAN;
            sum[b] = 0;
            continue;
        }
        const __m256 factor = _mm256_set1_ps(id);
        __m256i i32[4];
        for (int i = 0; i < 4; ++i) i32[i] = _mm256_cvtps_epi32(_mm256_mul_ps(v[i], factor));
        const __m256i i16a = _mm256_packs_epi32(i32[0], i32[1]);
        const __m256i i16b = _mm256_packs_epi32(i32[2], i32[3]);
        const __m256i i8 = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(i16a, i16b), order);
        _mm256_storeu_si256((__m256i*)q, i8);
        __m256i s =
            _mm256_add_epi32(_mm256_add_epi32(i32[0], i32[1]), _mm256_add_epi32(i32[2], i32[3]));
        __m128i s4 = _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
        s4 = _mm_add_epi32(s4, _mm_shuffle_epi32(s4, 0x4e));
        s4 = _mm_add_epi32(s4, _mm_shuffle_epi32(s4, 0xb1));
        sum[b] = _mm_cvtsi128_si32(s4);
        d[b] = bits > 0 ? amax / 127.0f : 0.0f;
    }
}

/* ---- matrices -------------------------------------------------------------------------------- */

/* Rows of activations that share one pass over a panel. */
enum { TILE = 4 };

/* Stores the 8 sums of a half panel, leaving out rows beyond n_out. */
INLINE void store_half(float* y, size_t o, size_t n_out, __m256 v) {
    if (o < n_out) store(y + o, n_out - o, v);
}

/* fp32 or fp16 panel times n_rows (<= TILE) rows. Each sum is that of the even columns plus that of
 * the odd ones. */
INLINE void panel_values(rwkv_type type, const rwkv_matrix* w, size_t panel, const rwkv_rows* x,
                         size_t row, size_t n_rows, float* y, size_t ldy) {
    const size_t size = type == RWKV_TYPE_FP32 ? 4 : 2;
    const uint8_t* base = (const uint8_t*)w->data + panel * RWKV_PANEL * w->n_in * size;
    for (int half = 0; half < 2; ++half) {
        const uint8_t* p = base + half * 8 * size;
        __m256 sum[TILE][2];
        for (size_t i = 0; i < n_rows; ++i) sum[i][0] = sum[i][1] = _mm256_setzero_ps();
        for (size_t c = 0; c < w->n_in; c += 2) {
            const size_t n = w->n_in - c < 2 ? 1 : 2;
            for (size_t k = 0; k < n; ++k, p += RWKV_PANEL * size) {
                const __m256 wc = type == RWKV_TYPE_FP32
                                      ? _mm256_loadu_ps((const float*)p)
                                      : _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p));
                for (size_t i = 0; i < n_rows; ++i) {
                    const __m256 xc = _mm256_broadcast_ss(x->x + (row + i) * x->ld + c + k);
                    sum[i][k] = _mm256_fmadd_ps(wc, xc, sum[i][k]);
                }
            }
        }
        for (size_t i = 0; i < n_rows; ++i) {
            store_half(y + (row + i) * ldy, panel * RWKV_PANEL + (size_t)half * 8, w->n_out,
                       _mm256_add_ps(sum[i][0], sum[i][1]));
        }
    }
}

/* What to subtract from the unsigned code of a type to get its signed one. */
INLINE int32_t offset_of(rwkv_type type) {
    return type == RWKV_TYPE_Q4_0 ? 8 : type == RWKV_TYPE_Q5_0 ? 16 : 0;
}

/* 32 bits -> 32 bytes of 16 or 0. */
INLINE __m256i fifth_bits(const uint8_t* masks) {
    const __m256i spread = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2,
                                            2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3);
    const __m256i bit = _mm256_set1_epi64x((int64_t)0x8040201008040201);
    const __m256i m = _mm256_shuffle_epi8(_mm256_set1_epi32((int32_t)rwkv_load_u32(masks)), spread);
    return _mm256_and_si256(_mm256_cmpeq_epi8(_mm256_and_si256(m, bit), bit), _mm256_set1_epi8(16));
}

/* Quantised panel times n_rows (<= TILE) rows.
 *
 * A group's product is maddubs (unsigned codes x signed activations, adjacent pairs added in
 * int16), whose eight results of a block are added before they are widened to int32. No int16
 * overflows: 4-bit codes   8 groups x 2 x 15 x 127 = 30480 5-bit codes   4 groups x 2 x 31 x 127 =
 * 31496, so they are widened after four groups q8_0          1 group  x 2 x 128 x 127 = 32512, as
 * |w| times the activation with w's sign */
INLINE void panel_blocks(rwkv_type type, const rwkv_matrix* w, size_t panel, const rwkv_rows* x,
                         size_t row, size_t n_rows, float* y, size_t ldy) {
    const int is_q8 = type == RWKV_TYPE_Q8_0;
    const int has_fifth = type == RWKV_TYPE_Q5_0 || type == RWKV_TYPE_Q5_1;
    const int has_m = type == RWKV_TYPE_Q4_1 || type == RWKV_TYPE_Q5_1;
    const size_t n_blocks = w->n_in / RWKV_BLOCK;
    const size_t code_bytes = is_q8 ? 512 : 256;
    const uint8_t* base =
        (const uint8_t*)w->data + panel * RWKV_PANEL * rwkv_row_bytes(type, w->n_in);
    const uint8_t* fifth = base + n_blocks * code_bytes;
    const uint8_t* d = fifth + (has_fifth ? n_blocks * 64 : 0);
    const uint8_t* m = d + n_blocks * 32;
    const __m256i low = _mm256_set1_epi8(15);
    const __m256i ones = _mm256_set1_epi16(1);

    for (int half = 0; half < 2; ++half) {
        __m256 sum[TILE];
        for (size_t i = 0; i < n_rows; ++i) sum[i] = _mm256_setzero_ps();
        for (size_t b = 0; b < n_blocks; ++b) {
            const uint8_t* p = base + b * code_bytes + half * 32;
            __m256i code[8];
            for (int g = 0; g < (is_q8 ? 8 : 4); ++g) {
                const __m256i bytes = _mm256_loadu_si256((const __m256i*)(p + 64 * g));
                if (is_q8) {
                    code[g] = bytes;
                } else {
                    code[g] = _mm256_and_si256(bytes, low);
                    code[g + 4] = _mm256_and_si256(_mm256_srli_epi16(bytes, 4), low);
                }
            }
            if (has_fifth) {
                for (int g = 0; g < 8; ++g) {
                    code[g] =
                        _mm256_or_si256(code[g], fifth_bits(fifth + b * 64 + 8 * g + 4 * half));
                }
            }
            const __m256 dw =
                _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)(d + b * 32 + half * 16)));
            const __m256 mw =
                has_m ? _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)(m + b * 32 + half * 16)))
                      : _mm256_setzero_ps();
            for (size_t i = 0; i < n_rows; ++i) {
                const size_t at = (row + i) * n_blocks + b;
                const uint8_t* q = (const uint8_t*)x->q + at * RWKV_BLOCK;
                const int32_t xsum = x->sum[at];
                __m256i isum;
                if (is_q8) {
                    isum = _mm256_setzero_si256();
                    for (int g = 0; g < 8; ++g) {
                        const __m256i xq = _mm256_set1_epi32((int32_t)rwkv_load_u32(q + 4 * g));
                        const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(code[g]),
                                                                   _mm256_sign_epi8(xq, code[g]));
                        isum = _mm256_add_epi32(isum, _mm256_madd_epi16(pairs, ones));
                    }
                } else {
                    __m256i pairs[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
                    for (int g = 0; g < 8; ++g) {
                        const __m256i xq = _mm256_set1_epi32((int32_t)rwkv_load_u32(q + 4 * g));
                        pairs[g / 4] =
                            _mm256_add_epi16(pairs[g / 4], _mm256_maddubs_epi16(code[g], xq));
                    }
                    isum = has_fifth
                               ? _mm256_add_epi32(_mm256_madd_epi16(pairs[0], ones),
                                                  _mm256_madd_epi16(pairs[1], ones))
                               : _mm256_madd_epi16(_mm256_add_epi16(pairs[0], pairs[1]), ones);
                    if (offset_of(type)) {
                        isum = _mm256_sub_epi32(isum, _mm256_set1_epi32(offset_of(type) * xsum));
                    }
                }
                const __m256 dx = _mm256_broadcast_ss(x->d + at);
                sum[i] = _mm256_fmadd_ps(_mm256_mul_ps(dw, dx), _mm256_cvtepi32_ps(isum), sum[i]);
                if (has_m) {
                    sum[i] =
                        _mm256_fmadd_ps(_mm256_mul_ps(mw, dx), _mm256_set1_ps((float)xsum), sum[i]);
                }
            }
        }
        for (size_t i = 0; i < n_rows; ++i) {
            store_half(y + (row + i) * ldy, panel * RWKV_PANEL + (size_t)half * 8, w->n_out,
                       sum[i]);
        }
    }
}

INLINE void panel_tile(rwkv_type type, const rwkv_matrix* w, size_t panel, const rwkv_rows* x,
                       size_t row, size_t n_rows, float* y, size_t ldy) {
    if (type == RWKV_TYPE_FP32 || type == RWKV_TYPE_FP16) {
        panel_values(type, w, panel, x, row, n_rows, y, ldy);
    } else {
        panel_blocks(type, w, panel, x, row, n_rows, y, ldy);
    }
}

/* The type and the number of rows of a tile are constants to the compiler. */
INLINE void matmul_of(rwkv_type type, const rwkv_matrix* w, const rwkv_rows* x, size_t row_begin,
                      size_t row_end, size_t panel_begin, size_t panel_end, float* y, size_t ldy) {
    for (size_t panel = panel_begin; panel < panel_end; ++panel) {
        size_t row = row_begin;
        for (; row + TILE <= row_end; row += TILE) {
            panel_tile(type, w, panel, x, row, TILE, y, ldy);
        }
        for (; row < row_end; ++row) panel_tile(type, w, panel, x, row, 1, y, ldy);
    }
}

static void matmul(const rwkv_matrix* w, const rwkv_rows* x, size_t r0, size_t r1, size_t p0,
                   size_t p1, float* y, size_t ldy) {
    switch (w->type) {
        case RWKV_TYPE_FP32:
            matmul_of(RWKV_TYPE_FP32, w, x, r0, r1, p0, p1, y, ldy);
            break;
        case RWKV_TYPE_FP16:
            matmul_of(RWKV_TYPE_FP16, w, x, r0, r1, p0, p1, y, ldy);
            break;
        case RWKV_TYPE_Q4_0:
            matmul_of(RWKV_TYPE_Q4_0, w, x, r0, r1, p0, p1, y, ldy);
            break;
        case RWKV_TYPE_Q4_1:
            matmul_of(RWKV_TYPE_Q4_1, w, x, r0, r1, p0, p1, y, ldy);
            break;
        case RWKV_TYPE_Q5_0:
            matmul_of(RWKV_TYPE_Q5_0, w, x, r0, r1, p0, p1, y, ldy);
            break;
        case RWKV_TYPE_Q5_1:
            matmul_of(RWKV_TYPE_Q5_1, w, x, r0, r1, p0, p1, y, ldy);
            break;
        case RWKV_TYPE_Q8_0:
            matmul_of(RWKV_TYPE_Q8_0, w, x, r0, r1, p0, p1, y, ldy);
            break;
        default:
            break;
    }
}

/* ---- recurrences ----------------------------------------------------------------------------- */

static void wkv4(size_t n_tokens, size_t ld, size_t n, const float* u, const float* w,
                 const float* k, const float* v, float* aa, float* bb, float* pp, float* y) {
    for (size_t i = 0; i < n; i += 8) {
        const size_t left = n - i;
        const __m256 ui = load(u + i, left);
        const __m256 wi = load(w + i, left);
        __m256 a = load(aa + i, left);
        __m256 b = load(bb + i, left);
        __m256 p = load(pp + i, left);
        for (size_t t = 0; t < n_tokens; ++t) {
            const __m256 ki = load(k + t * ld + i, left);
            const __m256 vi = load(v + t * ld + i, left);
            const __m256 uk = _mm256_add_ps(ui, ki);
            __m256 top = _mm256_max_ps(p, uk);
            __m256 e1 = exp8(_mm256_sub_ps(p, top));
            __m256 e2 = exp8(_mm256_sub_ps(uk, top));
            store(y + t * ld + i, left,
                  _mm256_div_ps(_mm256_fmadd_ps(e1, a, _mm256_mul_ps(e2, vi)),
                                _mm256_fmadd_ps(e1, b, e2)));
            const __m256 pw = _mm256_add_ps(p, wi);
            top = _mm256_max_ps(pw, ki);
            e1 = exp8(_mm256_sub_ps(pw, top));
            e2 = exp8(_mm256_sub_ps(ki, top));
            a = _mm256_fmadd_ps(e1, a, _mm256_mul_ps(e2, vi));
            b = _mm256_fmadd_ps(e1, b, e2);
            p = top;
        }
        store(aa + i, left, a);
        store(bb + i, left, b);
        store(pp + i, left, p);
    }
}

/* V vectors of 8 values i, of one token. y_i = (sum_j r_j u_j k_j) v_i + sum_j r_j S_ji. */
INLINE void wkv5_values(int V, size_t n, size_t left, float ruk, const float* r, const float* k,
                        const float* v, const float* w, float* S, float* y) {
    __m256 vi[4], sum[4];
    for (int c = 0; c < V; ++c) {
        vi[c] = load(v + 8 * c, left - (size_t)c * 8);
        sum[c] = _mm256_mul_ps(_mm256_set1_ps(ruk), vi[c]);
    }
    for (size_t j = 0; j < n; ++j) {
        const __m256 rj = _mm256_broadcast_ss(r + j);
        const __m256 kj = _mm256_broadcast_ss(k + j);
        const __m256 wj = _mm256_broadcast_ss(w + j);
        for (int c = 0; c < V; ++c) {
            float* Sj = S + j * n + 8 * c;
            const __m256 s = load(Sj, left - (size_t)c * 8);
            sum[c] = _mm256_fmadd_ps(rj, s, sum[c]);
            store(Sj, left - (size_t)c * 8, _mm256_fmadd_ps(wj, s, _mm256_mul_ps(kj, vi[c])));
        }
    }
    for (int c = 0; c < V; ++c) store(y + 8 * c, left - (size_t)c * 8, sum[c]);
}

static void wkv5(size_t n_tokens, size_t ld, size_t n, const float* r, const float* k,
                 const float* v, const float* u, const float* w, size_t ldw, float* S, float* y) {
    for (size_t t = 0; t < n_tokens; ++t, r += ld, k += ld, v += ld, w += ldw, y += ld) {
        __m256 sum = _mm256_setzero_ps();
        for (size_t j = 0; j < n; j += 8) {
            const __m256 rk = _mm256_mul_ps(load(r + j, n - j), load(k + j, n - j));
            sum = _mm256_fmadd_ps(rk, load(u + j, n - j), sum);
        }
        const float ruk = sum_of(sum);
        size_t i = 0;
        for (; i + 32 <= n; i += 32) wkv5_values(4, n, 32, ruk, r, k, v + i, w, S + i, y + i);
        for (; i < n; i += 8) wkv5_values(1, n, n - i, ruk, r, k, v + i, w, S + i, y + i);
    }
}

/* V vectors of 8 values i, of one token. */
INLINE void wkv7_values(int V, size_t n, size_t left, const float* r, const float* w,
                        const float* k, const float* v, const float* a, const float* b, float* S,
                        float* y) {
    __m256 vi[4], s[4], sum[4];
    for (int c = 0; c < V; ++c) {
        vi[c] = load(v + 8 * c, left - (size_t)c * 8);
        s[c] = sum[c] = _mm256_setzero_ps();
    }
    for (size_t j = 0; j < n; ++j) {
        const __m256 aj = _mm256_broadcast_ss(a + j);
        for (int c = 0; c < V; ++c) {
            s[c] = _mm256_fmadd_ps(load(S + j * n + 8 * c, left - (size_t)c * 8), aj, s[c]);
        }
    }
    for (size_t j = 0; j < n; ++j) {
        const __m256 rj = _mm256_broadcast_ss(r + j);
        const __m256 wj = _mm256_broadcast_ss(w + j);
        const __m256 kj = _mm256_broadcast_ss(k + j);
        const __m256 bj = _mm256_broadcast_ss(b + j);
        for (int c = 0; c < V; ++c) {
            float* Sj = S + j * n + 8 * c;
            __m256 x = _mm256_mul_ps(load(Sj, left - (size_t)c * 8), wj);
            x = _mm256_fmadd_ps(s[c], bj, x);
            x = _mm256_fmadd_ps(vi[c], kj, x);
            store(Sj, left - (size_t)c * 8, x);
            sum[c] = _mm256_fmadd_ps(x, rj, sum[c]);
        }
    }
    for (int c = 0; c < V; ++c) store(y + 8 * c, left - (size_t)c * 8, sum[c]);
}

static void wkv7(size_t n_tokens, size_t ld, size_t n, const float* r, const float* w,
                 const float* k, const float* v, const float* a, const float* b, float* S,
                 float* y) {
    for (size_t t = 0; t < n_tokens; ++t) {
        size_t i = 0;
        for (; i + 32 <= n; i += 32) wkv7_values(4, n, 32, r, w, k, v + i, a, b, S + i, y + i);
        for (; i < n; i += 8) wkv7_values(1, n, n - i, r, w, k, v + i, a, b, S + i, y + i);
        r += ld, w += ld, k += ld, v += ld, a += ld, b += ld, y += ld;
    }
}

void rwkv_kernels_avx2(rwkv_kernels* k) {
    for (int type = 0; type < RWKV_TYPE_COUNT; ++type) {
        k->matrix[type] = (rwkv_matrix_kernels){rwkv_panel16_size, rwkv_panel16_pack, matmul};
    }
    k->quantize = quantize;
    k->layer_norm = layer_norm;
    k->dot = dot;
    k->lerp = lerp;
    k->add = add;
    k->mul = mul;
    k->add_mul = add_mul;
    k->scale = scale;
    k->add_scaled = add_scaled;
    k->sigmoid = sigmoid;
    k->tanh = tanh_;
    k->silu = silu;
    k->relu2 = relu2;
    k->decay_v6 = decay_v6;
    k->decay_v7 = decay_v7;
    k->key_v7 = key_v7;
    k->wkv4 = wkv4;
    k->wkv5 = wkv5;
    k->wkv7 = wkv7;
}
