/* kernels.h: everything that costs time, as one table of function pointers.
 *
 * A level (reference, avx2, ...) is one file that fills in what it does better than the levels
 * below it; registry.cpp holds the list. Kernel files are C, see only the headers of
 * this folder, keep everything static and export one function, so that no instruction of a level
 * can leak into code that runs without it.
 *
 * Promises of every level
 *   - Each element of a result is computed by one thread, from the same operations in the same
 *     order however the work is split: callers cut element ranges at multiples of RWKV_LANES and
 *     matrices at whole panels. So results do not depend on the number of threads.
 *   - Each row of activations is computed as if it were alone. So results do not depend on the
 *     neighbours in a batch.
 *   - Element-wise results agree with the reference level to 1e-5 relative (of the terms that are
 *     added, where terms cancel).
 *
 * Arrays need no alignment unless said otherwise. n is a number of elements and may be anything. */
#ifndef RWKV_KERNELS_H
#define RWKV_KERNELS_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "block_type.h"
#include "compiler.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    RWKV_PANEL = 16,           /* rows of a matrix that are packed, and computed, together */
    RWKV_COLUMN = 128,         /* the same in matrices by columns */
    RWKV_TILE = 16,            /* rows of activations that lie together, at most */
    RWKV_WIDE = 32,            /* rows from which a sequence may take matmul_wide */
    RWKV_LANES = 16,           /* widest vector, in floats */
    RWKV_PREFETCH = 4096,      /* bytes ahead that weights are fetched: see rwkv_prefetch */
    RWKV_PREFETCH_FAR = 16384, /* the same into the second-level cache */
};

/* A packed matrix: y = W x, W of shape (n_out, n_in). `data` is aligned to 64 bytes. */
typedef struct rwkv_matrix {
    const void* data;
    size_t n_out;
    size_t n_in;
    rwkv_type type;
    int by_columns; /* packed by pack_columns, else by pack */
} rwkv_matrix;

/* A block of 32 quantised activations: x ~ d * q. */
typedef struct rwkv_q8 {
    float d;
    float s;                 /* d * sum of q: what the minimum m of a block of weights is times */
    int32_t minus_8_sum;     /* -8 * sum of q: what makes of a product with unsigned codes that with
                              * q4_0's, which stand for 8 less */
    int16_t minus_8_sums[2]; /* the same of the first 16 and of the last 16 */
    int8_t q[RWKV_BLOCK];
} rwkv_q8;

/* Activations, as matrices take them: fp32 rows, and the same rows quantised in blocks of 32, or,
 * for products of many rows at levels that have them, as bf16. x is read by products with fp
 * matrices, q8 or bf16 by those with quantised ones.
 *
 * q8 lies tile after tile: the same block of a tile's rows side by side, then their next block, so
 * that a product of a tile's rows reads one run of memory. Its memory goes on to whole tiles, that
 * of bf16 to a multiple of 32 rows. */
typedef struct rwkv_rows {
    float* x;       /* (n, n_cols), rows `ld` floats apart */
    rwkv_q8* q8;    /* (n / tile, n_cols / 32, tile) */
    uint16_t* bf16; /* (n, n_cols) */
    size_t n_cols;
    size_t ld;
    size_t tile; /* rows of a tile, 1 to RWKV_TILE */
} rwkv_rows;

/* Where block 0 of a row lies; its next blocks follow `tile` apart. */
static inline rwkv_q8* rwkv_q8_row(const rwkv_rows* x, size_t row) {
    const size_t in_tile = row % x->tile;
    return x->q8 + (row - in_tile) * (x->n_cols / RWKV_BLOCK) + in_tile;
}

/* What a level does for one type of weights. Panel p holds the rows 16 p .. 16 p + 15 of the
 * matrix (fewer in the last). A level that replaces `pack` replaces `matmul` and
 * `unpack_columns` with it. */
typedef struct rwkv_matrix_kernels {
    /* Bytes of a packed matrix. */
    size_t (*packed_size)(rwkv_type type, size_t n_out, size_t n_in);

    /* Packs panels [panel_begin, panel_end) of the matrix `src` (n_out rows as they lie in a file,
     * any alignment) into `dst`, the start of the whole packed matrix. */
    void (*pack)(rwkv_type type, const uint8_t* src, size_t n_out, size_t n_in, size_t panel_begin,
                 size_t panel_end, uint8_t* dst);

    /* y[i - row_begin][o - 16 panel_begin] = sum over c of W[o][c] x[i][c], for the rows i in
     * [row_begin, row_end) of x and the rows o of W in panels [panel_begin, panel_end). The rows of
     * y are ldy apart; only the elements named are written.
     *
     * Quantised W:  sum over blocks of 32, in order, of  d_w d_x isum  (+ m_w s_x  with a minimum),
     *               isum = sum of q_w q_x, exact, in int32; q_w is a code less its type's zero, or
     *               what it stands for in iq4_nl.
     *     q4_K, q5_K  d_w = d s and m_w = m t, each rounded once
     *     q6_K        d_w = d;  isum = s_1 (sum over the first 16) + s_2 (over the last 16), below
     *                 2^24, so that floats hold it as well */
    void (*matmul)(const rwkv_matrix* w, const rwkv_rows* x, size_t row_begin, size_t row_end,
                   size_t panel_begin, size_t panel_end, float* y, size_t ldy);

    /* The same for rows of sequences that contribute many rows to a step (RWKV_WIDE or more), from
     * their bf16: W's values and x are rounded to bf16, their products added in fp32. NULL where a
     * level has nothing wider than matmul. */
    void (*matmul_wide)(const rwkv_matrix* w, const rwkv_rows* x, size_t row_begin, size_t row_end,
                        size_t panel_begin, size_t panel_end, float* y, size_t ldy);

    /* Matrices by columns: the same products, to the bit (but for a NaN's), but only the weights of
     * inputs whose q, or x, is not 0 are read, if that saves time. NULL where a level has none. n_out is a
     * multiple of RWKV_COLUMN, and panel p holds that many rows, from RWKV_COLUMN p on. A packed
     * matrix has the size that it has by panels.
     *
     * pack_columns     as `pack`
     * matmul_columns   as `matmul`, of one panel
     * unpack_columns   makes of a panel the matrix (RWKV_COLUMN, n_in) that `pack` makes of its
     *                  rows: the way to `matmul` and `matmul_wide` for more than a tile of rows.
     *                  dst is aligned to 64 bytes. */
    void (*pack_columns)(rwkv_type type, const uint8_t* src, size_t n_out, size_t n_in,
                         size_t panel_begin, size_t panel_end, uint8_t* dst);
    void (*matmul_columns)(const rwkv_matrix* w, const rwkv_rows* x, size_t row_begin,
                           size_t row_end, size_t panel, float* y, size_t ldy);
    void (*unpack_columns)(const rwkv_matrix* w, size_t panel, uint8_t* dst);
} rwkv_matrix_kernels;

/* One head's part of version 7's element-wise weights and rows, each n floats. */
typedef struct rwkv_weights_v7 {
    const float *w0, *a0, *v0, *k_k, *k_a, *r_k;
    const float *ln_x_weight, *ln_x_bias;
    float ln_x_eps;
} rwkv_weights_v7;

typedef struct rwkv_head_v7 {
    float *r, *w, *k, *v, *a, *g; /* products of the matrices */
    float *v_mix, *v_first;
    float *minus_kappa, *a_kappa;
    float* y;
} rwkv_head_v7;

typedef struct rwkv_kernels {
    const char* name; /* of the highest level that this table holds */

    rwkv_matrix_kernels matrix[RWKV_TYPE_COUNT];

    /* Quantises a row to blocks of 32 (n is a multiple of 32), `stride` apart in y. For each block,
     * with amax = max |x|:
     *     id = 127 / amax,  d = amax / 127,  q = round_half_even(x * id)
     * amax = 0, or so small that id overflows: d = 0, q = 0.
     * A value that is not finite: d = s = NaN, q = 0, so that every product with it is NaN. */
    void (*quantize)(const float* x, size_t n, rwkv_q8* y, size_t stride);

    /* Rounds to bf16, halves to even. NULL at levels without matmul_wide. */
    void (*to_bf16)(const float* x, size_t n, uint16_t* y);

    /* y = (x - mean) / sqrt(variance + eps) * w + b; variance = mean of (x - mean)^2. y may be x.
     */
    void (*layer_norm)(const float* x, const float* w, const float* b, float eps, size_t n,
                       float* y);

    /* Element-wise; y may be any of the inputs. */
    void (*lerp)(const float* x, const float* prev, const float* mix, size_t n,
                 float* y);                                              /* x + (prev - x) mix */
    void (*add)(const float* x, const float* z, size_t n, float* y);     /* x + z */
    void (*mul)(const float* x, const float* z, size_t n, float* y);     /* x z */
    void (*add_mul)(const float* x, const float* z, size_t n, float* y); /* y + x z */
    void (*sigmoid)(const float* x, size_t n, float* y);                 /* 1 / (1 + exp(-x)) */
    void (*tanh)(const float* x, size_t n, float* y);
    void (*silu)(const float* x, size_t n, float* y);     /* x sigmoid(x) */
    void (*relu2)(const float* x, size_t n, float* y);    /* max(x, 0)^2 */
    void (*decay_v6)(const float* x, size_t n, float* y); /* exp(-exp(x)) */

    /* Version 7, one head of n channels of one token, in place; the equations of forward_v7.cpp.
     * Before WKV7:
     *     w = exp(-exp(-1/2) sigmoid(w0 + w)),  a = sigmoid(a0 + a)
     *     kappa = k k_k / max(|k k_k|, 1e-12);  minus_kappa = -kappa,  a_kappa = a kappa
     *     k = k (1 + (a - 1) k_a)
     *     v = lerp(v, v_first, sigmoid(v0 + v_mix)), or, where v0 is NULL (layer 0), v_first = v
     * After it:
     *     y = g (layer_norm(y) + (sum of r k r_k) v) */
    void (*before_wkv7)(const rwkv_weights_v7* weights, const rwkv_head_v7* head, size_t n);
    void (*after_wkv7)(const rwkv_weights_v7* weights, const rwkv_head_v7* head, size_t n);

    /* The recurrences. Rows of r, w, k, v, y are `ld` floats apart, one for each of n_tokens
     * tokens, of which there is one at least. The state is read from S and left at S_after, which
     * may be S and else does not overlap it. y may be NULL: then what is left, the same to the bit,
     * is all that is wanted, and neither r nor u is read.
     *
     * WKV4, for each of n channels, in a numerically safe form (all exponents <= 0 after p is taken
     * out; u = time_first, w = time_decay = -exp(.)):
     *     p = max(pp, u + k)
     *     y = (exp(pp - p) aa + exp(u + k - p) v) / (exp(pp - p) bb + exp(u + k - p))
     *     p = max(pp + w, k)
     *     aa = exp(pp + w - p) aa + exp(k - p) v;  bb = exp(pp + w - p) bb + exp(k - p);  pp = p
     * S holds aa, bb and pp, (n) each, ldS floats apart; S_after likewise, and is S only with the same. */
    void (*wkv4)(size_t n_tokens, size_t ld, size_t n, const float* u, const float* w,
                 const float* k, const float* v, const float* S, size_t ldS, float* S_after,
                 size_t ldS_after, float* y);

    /* WKV5 (versions 5 and 6) for one head of n channels; S (n, n), row = key j, column = value i:
     *     y_i = sum_j r_j (u_j k_j v_i + S_ji)
     *     S_ji = w_j S_ji + k_j v_i
     * Row t of w is w + t * ldw: ldw = 0 where the decay does not depend on the token. */
    void (*wkv5)(size_t n_tokens, size_t ld, size_t n, const float* r, const float* k,
                 const float* v, const float* u, const float* w, size_t ldw, const float* S,
                 float* S_after, float* y);

    /* WKV7 for one head of n channels; S (n, n), row = key j, column = value i (the transpose of
     * the official layout, so that a vector holds values that share a key):
     *     s_i = sum_j S_ji a_j                       a = -kappa, b = kappa * iclr
     *     S_ji = w_j S_ji + s_i b_j + v_i k_j
     *     y_i = sum_j S_ji r_j */
    void (*wkv7)(size_t n_tokens, size_t ld, size_t n, const float* r, const float* w,
                 const float* k, const float* v, const float* a, const float* b, const float* S,
                 float* S_after, float* y);

    /* to := from, (n), past the caches where the level can: for what is read when it would have left
     * them. Other threads see it after `end_streams` of the thread that wrote it. */
    void (*stream)(const float* from, float* to, size_t n);
    void (*end_streams)(void);

    /* The way from the official layout of such a head to ours, and back: to (n, n) := the transpose
     * of from (n, n). `to` may be `from`. */
    void (*transpose)(const float* from, float* to, size_t n);

    /* The sampler's; n is a multiple of RWKV_LANES. Every level gives the same bits, so that the
     * same seed gives the same tokens: no product is fused with a sum, and element i is added to
     * lane i % 16, then the upper half of the lanes to the lower until one is left. */

    /* The largest of x; NaN where one is NaN or +infinity. */
    float (*largest)(const float* x, size_t n);

    /* y = exp((x - top) scale) where low <= x <= high, else 0; returns the sum of y. Where x is
     * between them, (x - top) scale is in [-85, 0]. Relative error of y: 3e-7. */
    float (*exp_sum)(const float* x, size_t n, float top, float scale, float low, float high,
                     float* y);

    /* w := 0 where x < low. sums[0] := the sum of w, sums[1] := that of w (x - top) where w > 0. */
    void (*keep_from)(float low, const float* x, size_t n, float top, float* w, float sums[2]);

    /* Copies x and w where low <= key <= high to x_out and w_out, in order, and returns how many
     * they are; up to RWKV_LANES elements after them are overwritten. sums[0] := the sum of w where
     * high < key, sums[1] := that of those copied. The key is x, or -|x - *middle| if middle is not
     * NULL. */
    size_t (*split)(const float* x, const float* w, size_t n, const float* middle, float low,
                    float high, float* x_out, float* w_out, float sums[2]);
} rwkv_kernels;

/* ---- the levels' own functions; see registry.cpp -------------------------------------------- */

void rwkv_kernels_reference(rwkv_kernels* k);
void rwkv_kernels_reference_wide(rwkv_kernels* k); /* in the libraries of test builds */
void rwkv_kernels_avx2(rwkv_kernels* k);
void rwkv_kernels_avx512(rwkv_kernels* k);
void rwkv_kernels_avx512_vnni(rwkv_kernels* k);
void rwkv_kernels_amx(rwkv_kernels* k);
void rwkv_kernels_neon(rwkv_kernels* k);
void rwkv_kernels_neon_dotprod(rwkv_kernels* k);

/* ---- small shared pieces -------------------------------------------------------------------- */

/* Asks for the cache line RWKV_PREFETCH bytes after p. Packed weights are read in order, and where
 * few rows share them, from memory; so are the states of many sequences; a core's own prefetchers
 * and its window of instructions keep too few lines under way to reach the memory's rate while it
 * computes. Prefetching beyond the end of the weights is harmless.
 *
 * far_ahead: and for one RWKV_PREFETCH_FAR bytes after p, into the second-level cache, whose misses wait
 * apart from the first's. Where several rows share the weights, computing takes about as long as
 * memory does, and the two overlap better; where one does, memory gives no more than it gave. */
static inline void rwkv_prefetch(const uint8_t* p, int far_ahead) {
    __builtin_prefetch(p + RWKV_PREFETCH, 0, 3);
    if (far_ahead) __builtin_prefetch(p + RWKV_PREFETCH_FAR, 0, 2);
}

/* rwkv_kernels.transpose, number by number. */
static inline void rwkv_transpose(const float* from, float* to, size_t n) {
    for (size_t i = 0; i < n; ++i) {
        for (size_t j = 0; j <= i; ++j) {
            const float below = from[i * n + j];
            to[i * n + j] = from[j * n + i];
            to[j * n + i] = below;
        }
    }
}

/* Begins a quantised block whose largest magnitude has these bits (magnitudes compare like their
 * bits, and NaN above infinity above all numbers): sets d and returns id, 0 where q is to be 0. */
static inline float rwkv_q8_begin(uint32_t bits, rwkv_q8* y) {
    float amax;
    memcpy(&amax, &bits, sizeof amax);
    const int finite = bits < 0x7f800000u;
    const float id = finite && bits > 0 ? 127.0f / amax : 0.0f;
    const int usable = id > 0.0f && id <= 3.402823466e38f;
    y->d = !finite ? NAN : usable ? amax / 127.0f : 0.0f;
    return usable ? id : 0.0f;
}

/* Ends it: `first` and `last` are the sums of its first 16 and its last 16 q. */
static inline void rwkv_q8_end(int32_t first, int32_t last, rwkv_q8* y) {
    y->s = y->d * (float)(first + last);
    y->minus_8_sum = -8 * (first + last);
    y->minus_8_sums[0] = (int16_t)(-8 * first);
    y->minus_8_sums[1] = (int16_t)(-8 * last);
}

#ifdef __cplusplus
}
#endif

#endif /* RWKV_KERNELS_H */
