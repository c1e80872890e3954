/* avx2.c: 256-bit vectors, with FMA and F16C. All matrices are packed as panel16; a panel's 16 rows
 * are two vectors of 8 ("halves"). */
#include <immintrin.h>
#include <math.h>

#include "packing.h"

/* ---- vectors -------------------------------------------------------------------------------- */

typedef __m256 vec;
enum { LANES = 8, WKV7_VECTORS = 2 };

/* A mask for the first min(n, 8) lanes. */
INLINE __m256i lanes(size_t n) {
    static const int32_t ones_then_zeros[16] = {-1, -1, -1, -1, -1, -1, -1, -1};
    return _mm256_loadu_si256((const __m256i*)(ones_then_zeros + 8 - (n < 8 ? n : 8)));
}

INLINE vec vload(const float* p, size_t n) {
    return n >= 8 ? _mm256_loadu_ps(p) : _mm256_maskload_ps(p, lanes(n));
}

INLINE void vstore(float* p, size_t n, vec v) {
    if (n >= 8) {
        _mm256_storeu_ps(p, v);
    } else {
        _mm256_maskstore_ps(p, lanes(n), v);
    }
}

INLINE vec vset1(float s) { return _mm256_set1_ps(s); }
INLINE vec vadd(vec a, vec b) { return _mm256_add_ps(a, b); }
INLINE vec vsub(vec a, vec b) { return _mm256_sub_ps(a, b); }
INLINE vec vmul(vec a, vec b) { return _mm256_mul_ps(a, b); }
INLINE vec vdiv(vec a, vec b) { return _mm256_div_ps(a, b); }
INLINE vec vfma(vec a, vec b, vec c) { return _mm256_fmadd_ps(a, b, c); }
INLINE vec vfnma(vec a, vec b, vec c) { return _mm256_fnmadd_ps(a, b, c); }
INLINE vec vmax(vec a, vec b) { return _mm256_max_ps(a, b); }
INLINE vec vmin(vec a, vec b) { return _mm256_min_ps(a, b); }
INLINE vec vround(vec v) {
    return _mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
INLINE vec vless(vec a, vec b, vec x, vec y) {
    return _mm256_blendv_ps(y, x, _mm256_cmp_ps(a, b, _CMP_LT_OQ));
}
INLINE vec vkeep(vec v, size_t n) { return _mm256_and_ps(v, _mm256_castsi256_ps(lanes(n))); }

/* In two factors, since 2^128 is no float. */
INLINE vec vpow2(vec p, vec n) {
    const __m256i e = _mm256_cvtps_epi32(n);
    const __m256i half = _mm256_srai_epi32(e, 1);
    const __m256i bias = _mm256_set1_epi32(127);
    const __m256i f1 = _mm256_slli_epi32(_mm256_add_epi32(half, bias), 23);
    const __m256i f2 = _mm256_slli_epi32(_mm256_add_epi32(_mm256_sub_epi32(e, half), bias), 23);
    return _mm256_mul_ps(_mm256_mul_ps(p, _mm256_castsi256_ps(f1)), _mm256_castsi256_ps(f2));
}

INLINE vec vscale(vec p, vec n) {
    const __m256i e = _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23);
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), e));
}

typedef __m256 vmask; /* lanes of ones or zeros */
INLINE vmask vwithin(vec a, vec x, vec b) {
    return _mm256_and_ps(_mm256_cmp_ps(a, x, _CMP_LE_OQ), _mm256_cmp_ps(x, b, _CMP_LE_OQ));
}
INLINE vec vwhere(vmask m, vec v) { return _mm256_and_ps(m, v); }

/* The places of the lanes that are kept, a byte each, come from those of each half of 4. */
INLINE size_t vpack(vmask m, vec x, vec w, float* y, float* z) {
    static const uint32_t places[16] = {0,      0x00,     0x01,     0x0100,    0x02,   0x0200,
                                        0x0201, 0x020100, 0x03,     0x0300,    0x0301, 0x030100,
                                        0x0302, 0x030200, 0x030201, 0x03020100};
    const unsigned bits = (unsigned)_mm256_movemask_ps(m);
    const unsigned n_low = (unsigned)__builtin_popcount(bits & 15);
    const uint64_t upper = (uint64_t)places[bits >> 4] + 0x04040404;
    const uint64_t order8 = places[bits & 15] | upper << (8 * n_low);
    const __m256i order = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128((int64_t)order8));
    _mm256_storeu_ps(y, _mm256_permutevar8x32_ps(x, order));
    _mm256_storeu_ps(z, _mm256_permutevar8x32_ps(w, order));
    return (size_t)__builtin_popcount(bits);
}

INLINE float vsum(vec v) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    s = _mm_add_ss(s, _mm_movehdup_ps(s));
    return _mm_cvtss_f32(s);
}

#include "vector_kernels.h"
#include "vector_sampler.h"

/* ---- rows ------------------------------------------------------------------------------------ */

static void quantize(const float* x, size_t n, rwkv_q8* y, size_t stride) {
    const __m256i magnitude = _mm256_set1_epi32(0x7fffffff);
    /* packs_epi32 and packs_epi16 interleave 128-bit lanes: this puts the dwords in order again. */
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    for (size_t b = 0; b < n / RWKV_BLOCK; ++b, x += RWKV_BLOCK, y += stride) {
        __m256 v[4];
        __m256i top = _mm256_setzero_si256();
        for (int i = 0; i < 4; ++i) {
            v[i] = _mm256_loadu_ps(x + 8 * i);
            top = _mm256_max_epi32(top, _mm256_and_si256(_mm256_castps_si256(v[i]), magnitude));
        }
        __m128i top4 = _mm_max_epi32(_mm256_castsi256_si128(top), _mm256_extracti128_si256(top, 1));
        top4 = _mm_max_epi32(top4, _mm_shuffle_epi32(top4, 0x4e));
        top4 = _mm_max_epi32(top4, _mm_shuffle_epi32(top4, 0xb1));
        const __m256 factor = _mm256_set1_ps(rwkv_q8_begin((uint32_t)_mm_cvtsi128_si32(top4), y));
        const __m256 usable = _mm256_cmp_ps(factor, _mm256_setzero_ps(), _CMP_NEQ_OQ);
        __m256i i32[4];
        for (int i = 0; i < 4; ++i) {
            i32[i] = _mm256_cvtps_epi32(_mm256_mul_ps(_mm256_and_ps(v[i], usable), factor));
        }
        const __m256i i16a = _mm256_packs_epi32(i32[0], i32[1]);
        const __m256i i16b = _mm256_packs_epi32(i32[2], i32[3]);
        const __m256i i8 = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(i16a, i16b), order);
        _mm256_storeu_si256((__m256i*)y->q, i8);
        /* The sums of the first and the last 16 end in the lower and the upper half of s2. */
        const __m256i s =
            _mm256_hadd_epi32(_mm256_add_epi32(i32[0], i32[1]), _mm256_add_epi32(i32[2], i32[3]));
        __m128i s2 = _mm_add_epi32(_mm256_castsi256_si128(s), _mm256_extracti128_si256(s, 1));
        s2 = _mm_add_epi32(s2, _mm_shuffle_epi32(s2, 0xb1));
        rwkv_q8_end(_mm_cvtsi128_si32(s2), _mm_extract_epi32(s2, 2), y);
    }
}

/* ---- matrices -------------------------------------------------------------------------------- */

/* Rows of activations that share one pass over a panel: of quantised weights, whose sums are in
 * memory where they are many, and of values, whose sums fit the registers. */
enum { TILE = 16, ANY_ROWS = 1, VALUES_TILE = 4, CHAINS = 2, FAR_ROWS = 2 };

/* Stores the 8 sums of a half panel, leaving out rows beyond n_out. */
INLINE void store_half(float* y, size_t o, size_t n_out, __m256 v) {
    if (o < n_out) vstore(y + o, n_out - o, v);
}

INLINE __m256 load_values(rwkv_type type, const uint8_t* p) {
    if (type == RWKV_TYPE_FP32) return _mm256_loadu_ps((const float*)p);
    const __m128i v = _mm_loadu_si128((const __m128i*)p);
    if (type == RWKV_TYPE_FP16) return _mm256_cvtph_ps(v);
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(v), 16)); /* bf16 */
}

/* Values: half a panel (8 rows) times n_rows rows in one column of weights at p, added to the
 * sums `to` of each. */
INLINE void add_column(rwkv_type type, const uint8_t* p, const float* x, size_t ld, size_t n_rows,
                       __m256 (*sum)[2], size_t to) {
    const __m256 w = load_values(type, p);
    UNROLL
    for (size_t i = 0; i < n_rows; ++i) {
        sum[i][to] = _mm256_fmadd_ps(w, _mm256_broadcast_ss(x + i * ld), sum[i][to]);
    }
}

/* A panel of values times VALUES_TILE rows, as panel_values has it. Sums of both halves for the even and
 * the odd columns would be 16 registers; one half at a time loads an activation for each product, and
 * loads are what a core does two of in a cycle, as products. So a chunk's even columns come first, then
 * its odd ones: 8 sums, and two products to an activation. */
INLINE void panel_of_four(rwkv_type type, const rwkv_matrix* w, size_t panel, const rwkv_rows* x,
                          size_t row, float* y, size_t ldy) {
    enum { COLUMNS = 128 }; /* of a chunk: 4 KiB of fp16 */
    const size_t size = rwkv_block_bytes(type);
    const size_t column = RWKV_PANEL * size;
    const uint8_t* at = (const uint8_t*)w->data + panel * w->n_in * column;
    const float* xr = x->x + row * x->ld;
    __m256 sum[CHAINS][2][VALUES_TILE];
    for (size_t k = 0; k < CHAINS; ++k) {
        for (size_t i = 0; i < VALUES_TILE; ++i) sum[k][0][i] = sum[k][1][i] = _mm256_setzero_ps();
    }
    for (size_t begin = 0; begin < w->n_in; begin += COLUMNS) {
        const size_t end = w->n_in - begin < COLUMNS ? w->n_in : begin + COLUMNS;
        for (size_t k = 0; k < CHAINS; ++k) {
            __m256 a[2][VALUES_TILE];
            for (size_t i = 0; i < VALUES_TILE; ++i) {
                a[0][i] = sum[k][0][i];
                a[1][i] = sum[k][1][i];
            }
            for (size_t c = begin + k; c < end; c += CHAINS) {
                const uint8_t* p = at + c * column;
                if (column == 64 || k == 0) rwkv_prefetch(p, 1);
                const __m256 low = load_values(type, p);
                const __m256 high = load_values(type, p + column / 2);
                UNROLL
                for (size_t i = 0; i < VALUES_TILE; ++i) {
                    const __m256 xc = _mm256_broadcast_ss(xr + i * x->ld + c);
                    a[0][i] = _mm256_fmadd_ps(low, xc, a[0][i]);
                    a[1][i] = _mm256_fmadd_ps(high, xc, a[1][i]);
                }
            }
            for (size_t i = 0; i < VALUES_TILE; ++i) {
                sum[k][0][i] = a[0][i];
                sum[k][1][i] = a[1][i];
            }
        }
    }
    for (size_t h = 0; h < 2; ++h) {
        for (size_t i = 0; i < VALUES_TILE; ++i) {
            store_half(y + i * ldy, h * 8, w->n_out - panel * RWKV_PANEL,
                       _mm256_add_ps(sum[0][h][i], sum[1][h][i]));
        }
    }
}

/* A panel of values times n_rows (<= VALUES_TILE) rows. Each sum is that of the even columns plus that of
 * the odd ones. */
INLINE void panel_values(rwkv_type type, const rwkv_matrix* w, size_t panel, const rwkv_rows* x,
                         size_t row, size_t n_rows, float* y, size_t ldy) {
    if (n_rows == VALUES_TILE) {
        panel_of_four(type, w, panel, x, row, y, ldy);
        return;
    }
    const size_t size = rwkv_block_bytes(type);
    const size_t column = RWKV_PANEL * size;
    const int far_ahead = n_rows >= FAR_ROWS;
    const uint8_t* p = (const uint8_t*)w->data + panel * w->n_in * column;
    const float* xc = x->x + row * x->ld;
    __m256 sum[2][2][CHAINS];
    for (size_t h = 0; h < 2; ++h) {
        for (size_t i = 0; i < n_rows; ++i) sum[h][i][0] = sum[h][i][1] = _mm256_setzero_ps();
    }
    size_t c = 0;
    for (; c + 2 <= w->n_in; c += 2, xc += 2, p += 2 * column) {
        rwkv_prefetch(p, far_ahead);
        if (column == 64) rwkv_prefetch(p + 64, far_ahead);
        for (size_t h = 0; h < 2; ++h) {
            add_column(type, p + h * 8 * size, xc, x->ld, n_rows, sum[h], 0);
            add_column(type, p + column + h * 8 * size, xc + 1, x->ld, n_rows, sum[h], 1);
        }
    }
    for (size_t h = 0; h < 2; ++h) {
        if (c < w->n_in) add_column(type, p + h * 8 * size, xc, x->ld, n_rows, sum[h], 0);
        for (size_t i = 0; i < n_rows; ++i) {
            store_half(y + i * ldy, h * 8, w->n_out - panel * RWKV_PANEL,
                       _mm256_add_ps(sum[h][i][0], sum[h][i][1]));
        }
    }
}

/* 32 bits -> 32 bytes of 16 or 0. */
INLINE __m256i fifth_bits(const uint8_t* masks) {
    const __m256i spread = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2,
                                            2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3);
    const __m256i bit = _mm256_set1_epi64x((int64_t)0x8040201008040201);
    const __m256i m = _mm256_shuffle_epi8(_mm256_set1_epi32((int32_t)rwkv_load_u32(masks)), spread);
    return _mm256_and_si256(_mm256_cmpeq_epi8(_mm256_and_si256(m, bit), bit), _mm256_set1_epi8(16));
}

/* Two bits of each byte, those from bit 2 k on, as a code's upper two of six. */
INLINE __m256i upper_bits(__m256i v, int k) {
    const __m256i moved = k == 0   ? _mm256_slli_epi16(v, 4)
                          : k == 1 ? _mm256_slli_epi16(v, 2)
                          : k == 2 ? v
                                   : _mm256_srli_epi16(v, 2);
    return _mm256_and_si256(moved, _mm256_set1_epi8(0x30));
}

/* The numbers that nibbles stand for in iq4_nl. */
INLINE __m256i look_up(__m256i nibbles) {
    static const int8_t iq4_nl[16] = {RWKV_IQ4_NL};
    const __m128i table = _mm_loadu_si128((const __m128i*)iq4_nl);
    return _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table), nibbles);
}

/* The codes of a block's first or last 16 columns, for both halves of a panel (8 rows each): vector
 * g holds those of the columns 4 g .. 4 g + 3. */
INLINE void unpack_codes(rwkv_type type, const rwkv_block16* block, int last, int far_ahead,
                         __m256i code[2][4]) {
    const int is_q8 = type == RWKV_TYPE_Q8_0;
    const __m256i low = _mm256_set1_epi8(15);
    for (int half = 0; half < 2; ++half) {
        for (int g = 0; g < 4; ++g) {
            const uint8_t* p = block->codes + 256 * (is_q8 && last) + 64 * g + 32 * half;
            const __m256i bytes = _mm256_loadu_si256((const __m256i*)p);
            if (half == 0 && (is_q8 || !last)) rwkv_prefetch(p, far_ahead);
            __m256i v = is_q8  ? bytes
                        : last ? _mm256_and_si256(_mm256_srli_epi16(bytes, 4), low)
                               : _mm256_and_si256(bytes, low);
            if (type == RWKV_TYPE_IQ4_NL) v = look_up(v);
            if (rwkv_high_bits(type) == 1) {
                v = _mm256_or_si256(v, fifth_bits(block->high + 32 * last + 8 * g + 4 * half));
            } else if (rwkv_high_bits(type) == 2) {
                const uint8_t* bits = block->high + 64 * last + 32 * half;
                if (half == 0 && g == 0) rwkv_prefetch(bits, far_ahead);
                v = _mm256_or_si256(v, upper_bits(_mm256_loadu_si256((const __m256i*)bits), g));
            }
            code[half][g] = v;
        }
    }
}

/* d_w and m_w of the 8 rows from o on. */
INLINE __m256 load_d(rwkv_type type, const uint8_t* d, const uint8_t* s, size_t o) {
    const __m256 dw = _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)(d + 2 * o)));
    if (rwkv_block_type_of(type)->n_scales != 1) return dw;
    const __m256i s32 = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i*)(s + o)));
    return _mm256_mul_ps(dw, _mm256_cvtepi32_ps(s32));
}

INLINE __m256 load_m(rwkv_type type, const uint8_t* m, const uint8_t* t, size_t o) {
    return rwkv_has_m(type) ? load_d(type, m, t, o) : _mm256_setzero_ps();
}

INLINE __m256i broadcast(const int8_t* q) {
    return _mm256_set1_epi32((int32_t)rwkv_load_u32((const uint8_t*)q));
}

/* The two s of a block of q6_K, of 8 rows, as int16. */
INLINE __m256i load_s(const rwkv_block16* block, size_t half) {
    return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)(block->s + 16 * half)));
}

/* That of the first or of the last 16 columns, twice. */
INLINE __m256i twice(__m256i s, int last) {
    const __m256i first = _mm256_setr_epi8(0, 1, 0, 1, 4, 5, 4, 5, 8, 9, 8, 9, 12, 13, 12, 13, 0, 1,
                                           0, 1, 4, 5, 4, 5, 8, 9, 8, 9, 12, 13, 12, 13);
    return _mm256_shuffle_epi8(s, _mm256_add_epi8(first, _mm256_set1_epi8((char)(2 * last))));
}

/* The sums over 16 columns for a row of activations and the 8 rows of each half of a panel, as
 * int32 or, of 4-bit codes, as two int16 for each row, which are still to be added.
 *
 * A group's product is maddubs (unsigned codes x signed activations, adjacent pairs added in
 * int16). Products are added in int16 as long as none overflows:
 *     4-bit codes   all of a block, 8 groups x 2 x 15 x 127 = 30480
 *     5-bit codes   4 groups x 2 x 31 x 127 = 31496
 *     q6_K          2 groups x 2 x 63 x 127 = 32004; s times them is what madd adds up
 *     signed codes  1 group  x 2 x 128 x 127 = 32512, as |w| times the activation with w's sign */
INLINE void add_up_16(rwkv_type type, __m256i code[2][4], const __m256i s[2], const int8_t* q,
                      __m256i sums[2]) {
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i pairs[2];
    for (int g = 0; g < 4; ++g) {
        const __m256i xq = broadcast(q + 4 * g);
        for (int half = 0; half < 2; ++half) {
            const __m256i w = code[half][g];
            if (rwkv_is_signed(type)) {
                const __m256i products =
                    _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(xq, w));
                const __m256i sum = _mm256_madd_epi16(products, ones);
                sums[half] = g == 0 ? sum : _mm256_add_epi32(sums[half], sum);
                continue;
            }
            const int begins = type == RWKV_TYPE_Q6_K ? g % 2 == 0 : g == 0;
            const __m256i products = _mm256_maddubs_epi16(w, xq);
            pairs[half] = begins ? products : _mm256_add_epi16(pairs[half], products);
            if (type == RWKV_TYPE_Q6_K && !begins) {
                const __m256i sum = _mm256_madd_epi16(pairs[half], s[half]);
                sums[half] = g == 1 ? sum : _mm256_add_epi32(sums[half], sum);
            }
        }
    }
    for (int half = 0; half < 2 && !rwkv_is_signed(type) && type != RWKV_TYPE_Q6_K; ++half) {
        sums[half] = rwkv_high_bits(type) != 0 ? _mm256_madd_epi16(pairs[half], ones) : pairs[half];
    }
}

/* The sums of a block, from those of its first and its last 16 columns. */
INLINE __m256i block_sums(rwkv_type type, __m256i first, __m256i last) {
    if (rwkv_is_signed(type) || rwkv_high_bits(type) != 0) return _mm256_add_epi32(first, last);
    return _mm256_madd_epi16(_mm256_add_epi16(first, last), _mm256_set1_epi16(1));
}

/* What makes of a block's sums with unsigned codes those with signed ones: the codes of q4_0 and
 * q5_0 stand for 8 and 16 less. */
INLINE __m256i offset_of(rwkv_type type, const rwkv_q8* x) {
    const __m256i minus_8_sum = _mm256_set1_epi32(x->minus_8_sum);
    return type == RWKV_TYPE_Q4_0   ? minus_8_sum
           : type == RWKV_TYPE_Q5_0 ? _mm256_slli_epi32(minus_8_sum, 1)
                                    : _mm256_setzero_si256();
}

/* The same for q6_K, whose codes stand for 32 less; `s` holds the two of each row as int16. */
INLINE __m256i offset_of_q6_k(__m256i s, const rwkv_q8* x) {
    int32_t minus_8_sums;
    memcpy(&minus_8_sums, x->minus_8_sums, sizeof minus_8_sums);
    return _mm256_slli_epi32(_mm256_madd_epi16(s, _mm256_set1_epi32(minus_8_sums)), 2);
}

/* Quantised: a panel times n_rows rows in one block, added to their sums.
 *
 * What limits this are loads, of which there are two a cycle: so each four activations are
 * broadcast once for both halves of the panel. Their codes of 16 columns are eight vectors, which
 * with what one row needs fill the registers; the sums of the first 16 columns wait in memory. */
INLINE void add_block(rwkv_type type, const rwkv_block16* block, const rwkv_q8* x, size_t n_rows,
                      __m256 (*sum)[2]) {
    const int is_q6_k = type == RWKV_TYPE_Q6_K;
    __m256i code[2][4];
    __m256i s[2];       /* of q6_K: both of each row, */
    __m256i s_of_16[2]; /* and those of these columns */
    __m256 dw[2];
    __m256 mw[2];
    for (size_t half = 0; half < 2; ++half) {
        s[half] = is_q6_k ? load_s(block, half) : _mm256_setzero_si256();
        s_of_16[half] = twice(s[half], 0);
    }
    __m256i first[TILE][2];
    unpack_codes(type, block, 0, n_rows >= FAR_ROWS, code);
    for (size_t i = 0; i < n_rows; ++i) add_up_16(type, code, s_of_16, x[i].q, first[i]);

    unpack_codes(type, block, 1, n_rows >= FAR_ROWS, code);
    for (size_t half = 0; half < 2; ++half) {
        s_of_16[half] = twice(s[half], 1);
        dw[half] = load_d(type, block->d, block->s, 8 * half);
        mw[half] = load_m(type, block->m, block->t, 8 * half);
    }
    for (size_t i = 0; i < n_rows; ++i) {
        __m256i last[2];
        add_up_16(type, code, s_of_16, x[i].q + 16, last);
        const __m256 dx = _mm256_broadcast_ss(&x[i].d);
        for (int half = 0; half < 2; ++half) {
            const __m256i isum =
                _mm256_add_epi32(block_sums(type, first[i][half], last[half]),
                                 is_q6_k ? offset_of_q6_k(s[half], &x[i]) : offset_of(type, &x[i]));
            const __m256 d = _mm256_mul_ps(dw[half], dx);
            __m256 v = _mm256_fmadd_ps(d, _mm256_cvtepi32_ps(isum), sum[i][half]);
            if (rwkv_has_m(type)) v = _mm256_fmadd_ps(mw[half], _mm256_broadcast_ss(&x[i].s), v);
            sum[i][half] = v;
        }
    }
}

/* Quantised panel times n_rows (<= TILE) rows. The sums of many rows are in memory, in the
 * first-level cache. */
INLINE void panel_blocks(rwkv_type type, const rwkv_matrix* w, size_t panel, const rwkv_rows* x,
                         size_t row, size_t n_rows, float* y, size_t ldy) {
    const uint8_t* base = rwkv_panel16_at(type, w, panel);
    const size_t n_blocks = w->n_in / RWKV_BLOCK;
    const rwkv_q8* xb = rwkv_q8_row(x, row);
    __m256 sum[TILE][2];
    for (size_t i = 0; i < n_rows; ++i) sum[i][0] = sum[i][1] = _mm256_setzero_ps();
    for (size_t b = 0; b < n_blocks; ++b, xb += x->tile) {
        const rwkv_block16 block = rwkv_block16_at(type, base, b);
        rwkv_prefetch_head(type, &block, b, n_rows >= FAR_ROWS);
        add_block(type, &block, xb, n_rows, sum);
    }
    const size_t o_end = w->n_out - panel * RWKV_PANEL;
    for (size_t i = 0; i < n_rows; ++i) {
        store_half(y + i * ldy, 0, o_end, sum[i][0]);
        store_half(y + i * ldy, 8, o_end, sum[i][1]);
    }
}

#define HAS_VALUES
#include "panel_matmul.h"
#include "value_columns.h"

/* ---- matrices by columns -------------------------------------------------------------------- */

typedef __m256i bytes;
typedef __m256i dots; /* in int32, or, for 4-bit codes, two int16 for each output, which hold the
                       * sums of a block: see block_sums */
typedef __m256i ints;
enum { BYTES = 32 };

INLINE bytes load_bytes(const uint8_t* p) { return _mm256_loadu_si256((const __m256i*)p); }
INLINE void store_bytes(uint8_t* p, bytes v) { _mm256_storeu_si256((__m256i*)p, v); }
INLINE bytes or_bytes(bytes a, bytes b) { return _mm256_or_si256(a, b); }
INLINE bytes low_halves(bytes v) { return _mm256_and_si256(v, _mm256_set1_epi8(15)); }
INLINE bytes high_halves(bytes v) { return low_halves(_mm256_srli_epi16(v, 4)); }
INLINE bytes join_halves(bytes low, bytes high) {
    const __m256i up = _mm256_andnot_si256(_mm256_set1_epi8(15), _mm256_slli_epi16(high, 4));
    return _mm256_or_si256(low_halves(low), up);
}
INLINE bytes zip8(bytes a, bytes b, int upper) {
    return upper ? _mm256_unpackhi_epi8(a, b) : _mm256_unpacklo_epi8(a, b);
}
INLINE bytes zip16(bytes a, bytes b, int upper) {
    return upper ? _mm256_unpackhi_epi16(a, b) : _mm256_unpacklo_epi16(a, b);
}
INLINE void store_fifth(uint8_t* p, bytes codes) {
    const int bits = _mm256_movemask_epi8(_mm256_slli_epi16(codes, 3));
    memcpy(p, &bits, sizeof bits);
}

INLINE uint32_t not_zero(const int8_t* q) {
    const __m256i v = _mm256_loadu_si256((const __m256i*)q);
    return ~(uint32_t)_mm256_movemask_epi8(_mm256_cmpeq_epi8(v, _mm256_setzero_si256()));
}

INLINE bytes two_bits(const uint8_t* p, size_t part, int high) {
    return upper_bits(load_bytes(p), 2 * (int)part + high);
}
INLINE bytes numbers(rwkv_type type, bytes code) {
    return type == RWKV_TYPE_IQ4_NL ? look_up(code) : code;
}

INLINE int in_int16(rwkv_type type) {
    return rwkv_block_type_of(type)->code_bits == 4 && !rwkv_is_signed(type);
}
INLINE dots begin_dots(rwkv_type type, const rwkv_q8* x, int half) {
    if (type == RWKV_TYPE_Q6_K) return _mm256_set1_epi32(4 * x->minus_8_sums[half]);
    return in_int16(type) ? _mm256_setzero_si256() : offset_of(type, x);
}
INLINE dots add_dots(rwkv_type type, dots sum, bytes code, int32_t q) {
    const __m256i xq = _mm256_set1_epi32(q);
    const __m256i pairs = rwkv_is_signed(type) ? _mm256_maddubs_epi16(_mm256_abs_epi8(code),
                                                                      _mm256_sign_epi8(xq, code))
                                               : _mm256_maddubs_epi16(code, xq);
    if (in_int16(type)) return _mm256_add_epi16(sum, pairs);
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
INLINE ints end_dots(rwkv_type type, dots sum, const rwkv_q8* x) {
    if (!in_int16(type)) return sum;
    return _mm256_add_epi32(_mm256_madd_epi16(sum, _mm256_set1_epi16(1)), offset_of(type, x));
}
INLINE ints scaled(ints sum, const uint8_t* s, int half) {
    const __m256i both = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)s));
    const __m256i one = _mm256_srai_epi32(half == 0 ? _mm256_slli_epi32(both, 16) : both, 16);
    return _mm256_mullo_epi32(sum, one);
}
INLINE ints zero_ints(void) { return _mm256_setzero_si256(); }
INLINE ints add_ints(ints a, ints b) { return _mm256_add_epi32(a, b); }
INLINE vec vfrom_int32(ints v) { return _mm256_cvtepi32_ps(v); }

#include "columns_matmul.h"

/* ---- squares --------------------------------------------------------------------------------- */

enum { SQUARE = 8 };

/* Its left half, then its right: beside row r stands row r + 4. */
typedef struct square {
    vec half[2][4];
} square;

INLINE square load_square(const float* p, size_t ld) {
    square x;
    for (size_t h = 0; h < 2; ++h) {
        for (size_t r = 0; r < 4; ++r) {
            const float* row = p + r * ld + 4 * h;
            x.half[h][r] = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(row)),
                                                _mm_loadu_ps(row + 4 * ld), 1);
        }
    }
    return x;
}

INLINE void store_transposed(square x, float* p, size_t ld) {
    for (size_t h = 0; h < 2; ++h) {
        const vec* row = x.half[h];
        const vec low01 = _mm256_unpacklo_ps(row[0], row[1]);
        const vec high01 = _mm256_unpackhi_ps(row[0], row[1]);
        const vec low23 = _mm256_unpacklo_ps(row[2], row[3]);
        const vec high23 = _mm256_unpackhi_ps(row[2], row[3]);
        float* to = p + 4 * h * ld;
        _mm256_storeu_ps(to, _mm256_shuffle_ps(low01, low23, 0x44));
        _mm256_storeu_ps(to + ld, _mm256_shuffle_ps(low01, low23, 0xee));
        _mm256_storeu_ps(to + 2 * ld, _mm256_shuffle_ps(high01, high23, 0x44));
        _mm256_storeu_ps(to + 3 * ld, _mm256_shuffle_ps(high01, high23, 0xee));
    }
}

#include "transpose.h"

/* A line that is written as a whole, without being read before. */
static void stream(const float* from, float* to, size_t n) {
    if ((uintptr_t)to % 32 != 0 || n % 8 != 0) {
        memcpy(to, from, n * sizeof *to);
        return;
    }
    for (size_t i = 0; i < n; i += 8) _mm256_stream_ps(to + i, _mm256_loadu_ps(from + i));
}

static void end_streams(void) { _mm_sfence(); }

void rwkv_kernels_avx2(rwkv_kernels* k) {
    use_matmul_blocks(k);
    use_columns(k);
    use_matmul_values(k);
    use_value_columns(k);
    k->quantize = quantize;
    use_vector_kernels(k);
    use_vector_sampler(k);
    k->stream = stream;
    k->end_streams = end_streams;
    k->transpose = transpose;
}
