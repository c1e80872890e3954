/* kernels.h: everything that costs time, as one table of function pointers.
 *
 * A level (reference, avx2, ...) is one file that fills in what it does better than the levels
 * below it; registry.cpp holds the list. Kernel files are C, see only this header, keep everything
 * static and export one function, so that no instruction of a level can leak into code that runs
 * without it.
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

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Types of a matrix's weights. Block layouts: block_types.h and docs/formats.md. */
typedef enum rwkv_type {
    RWKV_TYPE_FP32 = 0,
    RWKV_TYPE_FP16,
    RWKV_TYPE_Q4_0,
    RWKV_TYPE_Q4_1,
    RWKV_TYPE_Q5_0,
    RWKV_TYPE_Q5_1,
    RWKV_TYPE_Q8_0,
    RWKV_TYPE_COUNT
} rwkv_type;

enum {
    RWKV_BLOCK = 32,      /* values in a quantised block */
    RWKV_PANEL = 16,      /* rows of a matrix that are packed, and computed, together */
    RWKV_WIDE = 32,       /* rows from which a sequence may take matmul_wide */
    RWKV_LANES = 16,      /* widest vector, in floats */
    RWKV_PREFETCH = 4096, /* bytes ahead that weights are fetched: see rwkv_prefetch */
};

/* Bytes of a block of each type in a file (d, m, fifth bits, codes), and its values. */
static inline size_t rwkv_block_bytes(rwkv_type type) {
    static const uint8_t bytes[RWKV_TYPE_COUNT] = {4, 2, 18, 20, 22, 24, 34};
    return bytes[type];
}

static inline size_t rwkv_block_values(rwkv_type type) {
    return type == RWKV_TYPE_FP32 || type == RWKV_TYPE_FP16 ? 1 : RWKV_BLOCK;
}

/* Bytes of a row of n_in values in a file. */
static inline size_t rwkv_row_bytes(rwkv_type type, size_t n_in) {
    return n_in / rwkv_block_values(type) * rwkv_block_bytes(type);
}

/* A packed matrix: y = W x, W of shape (n_out, n_in). `data` is aligned to 64 bytes. */
typedef struct rwkv_matrix {
    const void* data;
    size_t n_out;
    size_t n_in;
    rwkv_type type;
} rwkv_matrix;

/* Activations, as matrices take them: fp32 rows, and the same rows quantised in blocks of 32, or,
 * for products of many rows at levels that have them, as bf16. x is read by products with fp
 * matrices, q, d and sum or bf16 by those with quantised ones. Memory of bf16 goes on to a multiple
 * of 32 rows. */
typedef struct rwkv_rows {
    float* x;       /* (n, n_cols), rows `ld` floats apart */
    int8_t* q;      /* (n, n_cols): x ~ d * q */
    float* d;       /* (n, n_cols / 32) */
    float* sum;     /* (n, n_cols / 32): the sum of the block's q, a whole number */
    uint16_t* bf16; /* (n, n_cols) */
    size_t n_cols;
    size_t ld;
} rwkv_rows;

/* What a level does for one type of weights. Panel p holds the rows 16 p .. 16 p + 15 of the matrix
 * (fewer in the last). A level that replaces `pack` replaces `matmul` with it. */
typedef struct rwkv_matrix_kernels {
    /* Bytes of a packed matrix. */
    size_t (*packed_size)(rwkv_type type, size_t n_out, size_t n_in);

    /* Packs panels [panel_begin, panel_end) of the matrix `src` (n_out rows as they lie in a file,
     * any alignment) into `dst`, the start of the whole packed matrix. */
    void (*pack)(rwkv_type type, const uint8_t* src, size_t n_out, size_t n_in, size_t panel_begin,
                 size_t panel_end, uint8_t* dst);

    /* y[i][o] = sum over c of W[o][c] x[i][c], for the rows i in [row_begin, row_end) of x and the
     * rows o of W in panels [panel_begin, panel_end). y has n_out columns used and rows ldy apart;
     * only the elements named are written.
     *
     * Quantised W:  sum over blocks, in order, of  d_w d_x isum (+ m_w d_x xsum for q4_1, q5_1),
     *               isum = sum of q_w q_x, xsum = sum of q_x, both exact: whole
     *               numbers below 2^24, in int32 or float;
     *               q_w is signed for q4_0 (q - 8), q5_0 (q - 16), q8_0. */
    void (*matmul)(const rwkv_matrix* w, const rwkv_rows* x, size_t row_begin, size_t row_end,
                   size_t panel_begin, size_t panel_end, float* y, size_t ldy);

    /* The same for rows of sequences that contribute many rows to a step (RWKV_WIDE or more), from
     * their bf16: W's values and x are rounded to bf16, their products added in fp32. NULL where a
     * level has nothing wider than matmul. */
    void (*matmul_wide)(const rwkv_matrix* w, const rwkv_rows* x, size_t row_begin, size_t row_end,
                        size_t panel_begin, size_t panel_end, float* y, size_t ldy);
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

    /* Quantises a row to blocks of 32 (n is a multiple of 32). For each block, with amax = max |x|:
     *     id = 127 / amax,  d = amax / 127,  q = round_half_even(x * id),  sum = sum of q
     * amax = 0, or so small that id overflows: d = 0, q = 0.
     * A value that is not finite: d = NaN, q = 0, so that every product with it is NaN. */
    void (*quantize)(const float* x, size_t n, int8_t* q, float* d, float* sum);

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
     * tokens; the state is read and written.
     *
     * WKV4, for each of n channels, in a numerically safe form (all exponents <= 0 after p is taken
     * out; u = time_first, w = time_decay = -exp(.)):
     *     p = max(pp, u + k)
     *     y = (exp(pp - p) aa + exp(u + k - p) v) / (exp(pp - p) bb + exp(u + k - p))
     *     p = max(pp + w, k)
     *     aa = exp(pp + w - p) aa + exp(k - p) v;  bb = exp(pp + w - p) bb + exp(k - p);  pp = p */
    void (*wkv4)(size_t n_tokens, size_t ld, size_t n, const float* u, const float* w,
                 const float* k, const float* v, float* aa, float* bb, float* pp, float* y);

    /* WKV5 (versions 5 and 6) for one head of n channels; S (n, n), row = key j, column = value i:
     *     y_i = sum_j r_j (u_j k_j v_i + S_ji)
     *     S_ji = w_j S_ji + k_j v_i
     * Row t of w is w + t * ldw: ldw = 0 where the decay does not depend on the token. */
    void (*wkv5)(size_t n_tokens, size_t ld, size_t n, const float* r, const float* k,
                 const float* v, const float* u, const float* w, size_t ldw, float* S, float* y);

    /* WKV7 for one head of n channels; S (n, n), row = key j, column = value i (the transpose of
     * the official layout, so that a vector holds values that share a key):
     *     s_i = sum_j S_ji a_j                       a = -kappa, b = kappa * iclr
     *     S_ji = w_j S_ji + s_i b_j + v_i k_j
     *     y_i = sum_j S_ji r_j */
    void (*wkv7)(size_t n_tokens, size_t ld, size_t n, const float* r, const float* w,
                 const float* k, const float* v, const float* a, const float* b, float* S,
                 float* y);
} rwkv_kernels;

/* ---- packing for vector levels (panel16.c) --------------------------------------------------- */

/* Layout "panel16", for all levels above reference. In a panel the 16 rows are interleaved so that
 * one 512-bit vector (or two of 256, or four of 128) holds the same columns of all 16 rows:
 *     fp32, fp16   column after column, 16 values each
 *     quantised    codes: for each block of 32 columns, groups of 4 columns, 16 rows x 4 bytes:
 *                    4-bit part: 4 groups of 64 bytes; byte j of a row's 16 holds column j in its
 *                      low and column j + 16 in its high half, as in the file
 *                    8-bit part: 8 groups of 64 bytes
 *                  fifth bits (q5): after all 4-bit parts, for each block and each of the 8 groups
 *                    a uint64, whose bit 4 row + c belongs to column c of the group; columns 0-15
 *                    (low halves) are groups 0-3, columns 16-31 are groups 4-7
 *                  d, then m: after that, for each block 16 x fp16
 * Rows beyond n_out are zeros. A matrix takes the bytes of its file, rounded up to whole panels. */
size_t rwkv_panel16_size(rwkv_type type, size_t n_out, size_t n_in);
void rwkv_panel16_pack(rwkv_type type, const uint8_t* src, size_t n_out, size_t n_in,
                       size_t panel_begin, size_t panel_end, uint8_t* dst);

/* Where the parts of panel `panel` lie; fifth and m only for types that have them. */
typedef struct rwkv_panel16 {
    const uint8_t* codes; /* code_bytes for each block */
    const uint8_t* fifth; /* 64 bytes for each block */
    const uint8_t* d;     /* 32 bytes for each block */
    const uint8_t* m;     /* likewise */
    size_t code_bytes;
} rwkv_panel16;

static inline int rwkv_has_fifth(rwkv_type type) {
    return type == RWKV_TYPE_Q5_0 || type == RWKV_TYPE_Q5_1;
}

static inline int rwkv_has_m(rwkv_type type) {
    return type == RWKV_TYPE_Q4_1 || type == RWKV_TYPE_Q5_1;
}

static inline rwkv_panel16 rwkv_panel16_at(rwkv_type type, const void* packed, size_t n_in,
                                           size_t panel) {
    const size_t n_blocks = n_in / RWKV_BLOCK;
    rwkv_panel16 p;
    p.code_bytes = type == RWKV_TYPE_Q8_0 ? 512 : 256;
    p.codes = (const uint8_t*)packed + panel * RWKV_PANEL * rwkv_row_bytes(type, n_in);
    p.fifth = p.codes + n_blocks * p.code_bytes;
    p.d = p.fifth + (rwkv_has_fifth(type) ? n_blocks * 64 : 0);
    p.m = p.d + n_blocks * 32;
    return p;
}

/* ---- the levels' own functions; see registry.cpp ----------------------------------------------
 */

void rwkv_kernels_reference(rwkv_kernels* k);
void rwkv_kernels_avx2(rwkv_kernels* k);
void rwkv_kernels_avx512(rwkv_kernels* k);
void rwkv_kernels_avx512_vnni(rwkv_kernels* k);
void rwkv_kernels_amx(rwkv_kernels* k);
void rwkv_kernels_neon(rwkv_kernels* k);
void rwkv_kernels_neon_dotprod(rwkv_kernels* k);

/* ---- small shared pieces ----------------------------------------------------------------------
 */

/* IEEE half to float, exact (also for subnormals, infinities and NaN). */
static inline float rwkv_fp16_to_fp32(uint16_t h) {
    const uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    const uint32_t rest = h & 0x7fffu;
    uint32_t bits;
    float f;
    if (rest >= 0x7c00u) { /* infinity or NaN: keep the payload */
        bits = sign | 0x7f800000u | (rest & 0x3ffu) << 13;
    } else if (rest >= 0x400u) { /* normal: rebias the exponent from 15 to 127 */
        bits = sign | ((rest << 13) + (112u << 23));
    } else { /* subnormal or zero: rest * 2^-24, exact in fp32 */
        f = (float)rest * 0x1p-24f;
        memcpy(&bits, &f, sizeof bits);
        bits |= sign;
    }
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* Asks for the cache line RWKV_PREFETCH bytes after p. Packed weights are read in order, and where
 * few rows share them, from memory; a core's own prefetchers and its window of instructions keep
 * too few lines under way to reach the memory's rate while it computes. Prefetching beyond the end
 * of the weights is harmless. */
static inline void rwkv_prefetch(const uint8_t* p) { __builtin_prefetch(p + RWKV_PREFETCH, 0, 3); }

static inline uint16_t rwkv_load_u16(const uint8_t* p) {
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline uint32_t rwkv_load_u32(const uint8_t* p) {
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

#ifdef __cplusplus
}
#endif

#endif /* RWKV_KERNELS_H */
