/* A level for tests alone: the reference's products, and the wide ones of bf16 that only amx has,
 * in plain C, so that what wide arithmetic promises can be seen on every machine. It is as slow as
 * it is plain. */
#include "kernels/kernels.h"

static float from_bits(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static uint16_t bf16_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if ((bits & 0x7fffffff) > 0x7f800000) return (uint16_t)(bits >> 16 | 0x40); /* a quiet NaN */
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);                /* halves to even */
}

static void to_bf16(const float* x, size_t n, uint16_t* y) {
    for (size_t i = 0; i < n; ++i) y[i] = bf16_of(x[i]);
}

/* The reference's matrices are as in a file: of the row's block that holds it, one value. */
static float weight(const rwkv_matrix* w, size_t out, size_t in) {
    float values[RWKV_SUPER];
    const size_t n = rwkv_block_values(w->type);
    const uint8_t* row = (const uint8_t*)w->data + out * rwkv_row_bytes(w->type, w->n_in);
    rwkv_dequantize_row(w->type, row + in / n * rwkv_block_bytes(w->type), n, values);
    return values[in % n];
}

static void matmul_wide(const rwkv_matrix* w, const rwkv_rows* x, size_t row_begin, size_t row_end,
                        size_t panel_begin, size_t panel_end, float* y, size_t ldy) {
    const size_t first = panel_begin * RWKV_PANEL;
    const size_t end = panel_end * RWKV_PANEL < w->n_out ? panel_end * RWKV_PANEL : w->n_out;
    for (size_t out = first; out < end; ++out) {
        for (size_t row = row_begin; row < row_end; ++row) {
            y[(row - row_begin) * ldy + out - first] = 0.0f;
        }
        for (size_t in = 0; in < w->n_in; ++in) {
            const float wi = from_bits((uint32_t)bf16_of(weight(w, out, in)) << 16);
            for (size_t row = row_begin; row < row_end; ++row) {
                const float xi = from_bits((uint32_t)x->bf16[row * x->n_cols + in] << 16);
                y[(row - row_begin) * ldy + out - first] += wi * xi;
            }
        }
    }
}

void rwkv_kernels_reference_wide(rwkv_kernels* k) {
    for (int type = 0; type < RWKV_TYPE_COUNT; ++type) {
        if (!rwkv_is_quantised((rwkv_type)type)) continue;
        k->matrix[type].matmul_wide = matmul_wide;
    }
    k->to_bf16 = to_bf16;
}
