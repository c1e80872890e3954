/* reference.c: plain loops. The oracle that every other level is tested against, always built,
 * always selectable with RWKV_KERNELS=reference. Matrices stay as they lie in the file. */
#include <math.h>

#include "kernels.h"

/* ---- matrices -------------------------------------------------------------------------------- */

static size_t packed_size(rwkv_type type, size_t n_out, size_t n_in) {
    return n_out * rwkv_row_bytes(type, n_in);
}

static void pack(rwkv_type type, const uint8_t* src, size_t n_out, size_t n_in, size_t panel_begin,
                 size_t panel_end, uint8_t* dst) {
    const size_t begin = panel_begin * RWKV_PANEL;
    const size_t end = panel_end * RWKV_PANEL < n_out ? panel_end * RWKV_PANEL : n_out;
    const size_t stride = rwkv_row_bytes(type, n_in);
    memcpy(dst + begin * stride, src + begin * stride, (end - begin) * stride);
}

static float dot_fp32(const uint8_t* w, const float* x, size_t n) {
    double sum = 0.0;
    for (size_t c = 0; c < n; ++c) {
        float value;
        memcpy(&value, w + 4 * c, sizeof value);
        sum += (double)value * x[c];
    }
    return (float)sum;
}

static float dot_fp16(const uint8_t* w, const float* x, size_t n) {
    double sum = 0.0;
    for (size_t c = 0; c < n; ++c) {
        sum += (double)rwkv_fp16_to_fp32(rwkv_load_u16(w + 2 * c)) * x[c];
    }
    return (float)sum;
}

static float dot_bf16(const uint8_t* w, const float* x, size_t n) {
    double sum = 0.0;
    for (size_t c = 0; c < n; ++c) {
        sum += (double)rwkv_bf16_to_fp32(rwkv_load_u16(w + 2 * c)) * x[c];
    }
    return (float)sum;
}

/* The sums of the codes' products, over the first and over the last 16. */
static void dot_codes(rwkv_type type, const rwkv_block* w, const rwkv_q8* x, int32_t sums[2]) {
    static const int8_t iq4_nl[16] = {RWKV_IQ4_NL};
    const rwkv_block_type* t = rwkv_block_type_of(type);
    sums[0] = sums[1] = 0;
    for (int j = 0; j < RWKV_BLOCK; ++j) {
        const int32_t q = t->table            ? iq4_nl[w->codes[j]]
                          : t->code_bits == 8 ? (int8_t)w->codes[j]
                                              : w->codes[j] - t->zero;
        sums[j / 16] += q * x->q[j];
    }
}

static float dot_blocks(rwkv_type type, const uint8_t* w, const rwkv_rows* x, size_t row) {
    const rwkv_block_type* t = rwkv_block_type_of(type);
    const rwkv_q8* xb = rwkv_q8_row(x, row);
    float sum = 0.0f;
    for (size_t b = 0; b < x->n_cols / RWKV_BLOCK; ++b, xb += x->tile) {
        const rwkv_block wb = rwkv_block_at(type, w, b);
        float d = rwkv_fp16_to_fp32(wb.d);
        float m = rwkv_fp16_to_fp32(wb.m);
        int32_t sums[2];
        dot_codes(type, &wb, xb, sums);
        int32_t isum = sums[0] + sums[1];
        if (t->n_scales == 1) {
            d *= (float)wb.s[0];
            m *= (float)wb.t;
        } else if (t->n_scales == 2) {
            isum = (int8_t)wb.s[0] * sums[0] + (int8_t)wb.s[1] * sums[1];
        }
        sum += d * xb->d * (float)isum;
        if (t->has_m) sum += m * xb->s;
    }
    return sum;
}

static void matmul(const rwkv_matrix* w, const rwkv_rows* x, size_t row_begin, size_t row_end,
                   size_t panel_begin, size_t panel_end, float* y, size_t ldy) {
    const size_t begin = panel_begin * RWKV_PANEL;
    const size_t end = panel_end * RWKV_PANEL < w->n_out ? panel_end * RWKV_PANEL : w->n_out;
    const size_t stride = rwkv_row_bytes(w->type, w->n_in);
    for (size_t o = begin; o < end; ++o) {
        const uint8_t* row = (const uint8_t*)w->data + o * stride;
        for (size_t i = row_begin; i < row_end; ++i) {
            const float* xi = x->x + i * x->ld;
            y[(i - row_begin) * ldy + o - begin] =
                rwkv_is_quantised(w->type)  ? dot_blocks(w->type, row, x, i)
                : w->type == RWKV_TYPE_FP32 ? dot_fp32(row, xi, w->n_in)
                : w->type == RWKV_TYPE_FP16 ? dot_fp16(row, xi, w->n_in)
                                            : dot_bf16(row, xi, w->n_in);
        }
    }
}

/* ---- rows ------------------------------------------------------------------------------------ */

static void quantize(const float* x, size_t n, rwkv_q8* y, size_t stride) {
    for (size_t b = 0; b < n / RWKV_BLOCK; ++b, x += RWKV_BLOCK, y += stride) {
        float amax = 0.0f;
        int finite = 1;
        for (int j = 0; j < RWKV_BLOCK; ++j) {
            finite &= isfinite(x[j]) != 0;
            amax = fmaxf(amax, fabsf(x[j]));
        }
        const float id = finite && amax > 0.0f ? 127.0f / amax : 0.0f;
        const int usable = finite && isfinite(id);
        int32_t sums[2] = {0, 0};
        for (int j = 0; j < RWKV_BLOCK; ++j) {
            /* rintf rounds half to even; |x id| <= 127 (1 + 2^-23), which rounds to 127. */
            y->q[j] = usable ? (int8_t)rintf(x[j] * id) : 0;
            sums[j / 16] += y->q[j];
        }
        y->d = !finite ? NAN : id > 0.0f && usable ? amax / 127.0f : 0.0f;
        rwkv_q8_end(sums[0], sums[1], y);
    }
}

static void layer_norm(const float* x, const float* w, const float* b, float eps, size_t n,
                       float* y) {
    double mean = 0.0;
    double variance = 0.0;
    for (size_t i = 0; i < n; ++i) mean += x[i];
    mean /= (double)n;
    for (size_t i = 0; i < n; ++i) variance += (x[i] - mean) * (x[i] - mean);
    const double scale = 1.0 / sqrt(variance / (double)n + eps);
    for (size_t i = 0; i < n; ++i) y[i] = (float)((x[i] - mean) * scale * w[i] + b[i]);
}

/* ---- element-wise ---------------------------------------------------------------------------- */

/* In double precision, where the C libraries of all systems agree to the last bit of a float but for
 * one argument in millions: those for floats differ in one of hundreds. */
static float rounded_exp(float x) { return (float)exp((double)x); }
static float rounded_tanh(float x) { return (float)tanh((double)x); }

static float sigmoid1(float x) { return 1.0f / (1.0f + rounded_exp(-x)); }

static void lerp(const float* x, const float* prev, const float* mix, size_t n, float* y) {
    for (size_t i = 0; i < n; ++i) y[i] = x[i] + (prev[i] - x[i]) * mix[i];
}

static void add(const float* x, const float* z, size_t n, float* y) {
    for (size_t i = 0; i < n; ++i) y[i] = x[i] + z[i];
}

static void mul(const float* x, const float* z, size_t n, float* y) {
    for (size_t i = 0; i < n; ++i) y[i] = x[i] * z[i];
}

static void add_mul(const float* x, const float* z, size_t n, float* y) {
    for (size_t i = 0; i < n; ++i) y[i] += x[i] * z[i];
}

static void sigmoid(const float* x, size_t n, float* y) {
    for (size_t i = 0; i < n; ++i) y[i] = sigmoid1(x[i]);
}

static void tanh_(const float* x, size_t n, float* y) {
    for (size_t i = 0; i < n; ++i) y[i] = rounded_tanh(x[i]);
}

static void silu(const float* x, size_t n, float* y) {
    for (size_t i = 0; i < n; ++i) y[i] = x[i] * sigmoid1(x[i]);
}

static void relu2(const float* x, size_t n, float* y) {
    /* Written so that NaN stays NaN. */
    for (size_t i = 0; i < n; ++i) y[i] = x[i] < 0.0f ? 0.0f : x[i] * x[i];
}

static void decay_v6(const float* x, size_t n, float* y) {
    for (size_t i = 0; i < n; ++i) y[i] = rounded_exp(-rounded_exp(x[i]));
}

static void before_wkv7(const rwkv_weights_v7* p, const rwkv_head_v7* h, size_t n) {
    double squares = 0.0;
    for (size_t i = 0; i < n; ++i) {
        h->minus_kappa[i] = h->k[i] * p->k_k[i];
        squares += (double)h->minus_kappa[i] * h->minus_kappa[i];
    }
    const float length = (float)sqrt(squares);
    const float to_unit = 1.0f / (length < 1e-12f ? 1e-12f : length);
    for (size_t i = 0; i < n; ++i) {
        const float a = sigmoid1(p->a0[i] + h->a[i]);
        const float kappa = h->minus_kappa[i] * to_unit;
        h->minus_kappa[i] = -kappa;
        h->a_kappa[i] = a * kappa;
        h->a[i] = a;
        h->k[i] *= 1.0f + (a - 1.0f) * p->k_a[i];
        /* 0.606531 stands in the official code for exp(-1/2) = 0.60653066. */
        h->w[i] = rounded_exp(-0.606531f * sigmoid1(p->w0[i] + h->w[i]));
        if (p->v0 == NULL) {
            h->v_first[i] = h->v[i];
        } else {
            h->v[i] += (h->v_first[i] - h->v[i]) * sigmoid1(p->v0[i] + h->v_mix[i]);
        }
    }
}

static void after_wkv7(const rwkv_weights_v7* p, const rwkv_head_v7* h, size_t n) {
    double bonus = 0.0;
    for (size_t i = 0; i < n; ++i) bonus += (double)h->r[i] * h->k[i] * p->r_k[i];
    layer_norm(h->y, p->ln_x_weight, p->ln_x_bias, p->ln_x_eps, n, h->y);
    for (size_t i = 0; i < n; ++i) h->y[i] = h->g[i] * (h->y[i] + (float)bonus * h->v[i]);
}

/* ---- recurrences ----------------------------------------------------------------------------- */

static void wkv4(size_t n_tokens, size_t ld, size_t n, const float* u, const float* w,
                 const float* k, const float* v, const float* S, size_t ldS, float* S_after,
                 size_t ldS_after, float* y) {
    for (size_t t = 0; t < n_tokens; ++t, k += ld, v += ld, S = S_after, ldS = ldS_after) {
        for (size_t i = 0; i < n; ++i) {
            const float aa = S[i];
            const float bb = S[ldS + i];
            const float pp = S[2 * ldS + i];
            if (y != NULL) {
                const float p = fmaxf(pp, u[i] + k[i]);
                const float e1 = rounded_exp(pp - p);
                const float e2 = rounded_exp(u[i] + k[i] - p);
                y[t * ld + i] = (e1 * aa + e2 * v[i]) / (e1 * bb + e2);
            }
            const float p = fmaxf(pp + w[i], k[i]);
            const float e1 = rounded_exp(pp + w[i] - p);
            const float e2 = rounded_exp(k[i] - p);
            S_after[i] = e1 * aa + e2 * v[i];
            S_after[ldS_after + i] = e1 * bb + e2;
            S_after[2 * ldS_after + i] = p;
        }
    }
}

static void wkv5(size_t n_tokens, size_t ld, size_t n, const float* r, const float* k,
                 const float* v, const float* u, const float* w, size_t ldw, const float* S,
                 float* S_after, float* y) {
    for (size_t t = 0; t < n_tokens; ++t, k += ld, v += ld, w += ldw, S = S_after) {
        for (size_t i = 0; i < n && y != NULL; ++i) y[t * ld + i] = 0.0f;
        for (size_t j = 0; j < n; ++j) {
            for (size_t i = 0; i < n; ++i) {
                const float s = S[j * n + i];
                const float kv = k[j] * v[i];
                if (y != NULL) y[t * ld + i] += r[t * ld + j] * (u[j] * kv + s);
                S_after[j * n + i] = w[j] * s + kv;
            }
        }
    }
}

static void wkv7(size_t n_tokens, size_t ld, size_t n, const float* r, const float* w,
                 const float* k, const float* v, const float* a, const float* b, const float* S,
                 float* S_after, float* y) {
    for (size_t t = 0; t < n_tokens; ++t, S = S_after) {
        for (size_t i = 0; i < n; ++i) {
            float s = 0.0f;
            for (size_t j = 0; j < n; ++j) s += S[j * n + i] * a[j];
            float out = 0.0f;
            for (size_t j = 0; j < n; ++j) {
                const float after = w[j] * S[j * n + i] + s * b[j] + v[i] * k[j];
                S_after[j * n + i] = after;
                if (y != NULL) out += after * r[t * ld + j];
            }
            if (y != NULL) y[t * ld + i] = out;
        }
        w += ld, k += ld, v += ld, a += ld, b += ld;
    }
}

static void stream(const float* from, float* to, size_t n) { memcpy(to, from, n * sizeof *to); }
static void end_streams(void) {}

static void transpose(const float* from, float* to, size_t n) { rwkv_transpose(from, to, n); }

/* ---- the sampler's -------------------------------------------------------------------------- */

static float sum_lanes(float* lanes) {
    for (int half = RWKV_LANES / 2; half > 0; half /= 2) {
        for (int i = 0; i < half; ++i) lanes[i] += lanes[i + half];
    }
    return lanes[0];
}

static float largest(const float* x, size_t n) {
    float top[RWKV_LANES];
    float bad[RWKV_LANES] = {0.0f}; /* NaN once an element is not below infinity */
    for (size_t lane = 0; lane < RWKV_LANES; ++lane) top[lane] = -INFINITY;
    for (size_t i = 0; i < n; i += RWKV_LANES) {
        for (size_t lane = 0; lane < RWKV_LANES; ++lane) {
            const float xi = x[i + lane];
            top[lane] = top[lane] < xi ? xi : top[lane];
            bad[lane] = xi < INFINITY ? bad[lane] : NAN;
        }
    }
    for (size_t lane = 1; lane < RWKV_LANES; ++lane) {
        top[0] = top[0] < top[lane] ? top[lane] : top[0];
    }
    return top[0] + sum_lanes(bad);
}

/* exp(c) for c in [-85, 0]: c = n ln 2 + r, |r| <= ln(2) / 2, exp(c) = 2^n p(r). p is the
 * polynomial of degree 5, beginning 1 + r, with the least relative error: 1.1e-7. */
static float exp1(float c) {
    const float shift = 12582912.0f; /* 1.5 * 2^23: adding it rounds to a whole number */
    const float shifted = c * 1.44269504f + shift;
    const float n = shifted - shift;
    const float r = (c - n * 0.693359375f) - n * -2.12194440e-4f;
    float p = 0.00831250101f;
    p = p * r + 0.0418903306f;
    p = p * r + 0.166671157f;
    p = p * r + 0.499992311f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    /* The last bits of `shifted` hold n: moved up, they are added to p's exponent. */
    uint32_t bits;
    uint32_t n_bits;
    memcpy(&bits, &p, sizeof bits);
    memcpy(&n_bits, &shifted, sizeof n_bits);
    bits += n_bits << 23;
    memcpy(&p, &bits, sizeof p);
    return p;
}

static float sum(const float* x, size_t n) {
    float lanes[RWKV_LANES] = {0.0f};
    for (size_t i = 0; i < n; i += RWKV_LANES) {
        for (size_t lane = 0; lane < RWKV_LANES; ++lane) lanes[lane] += x[i + lane];
    }
    return sum_lanes(lanes);
}

static float exp_sum(const float* x, size_t n, float top, float scale, float low, float high,
                     float* y) {
    for (size_t i = 0; i < n; ++i) y[i] = exp1((x[i] - top) * scale);
    for (size_t i = 0; i < n; ++i) {
        /* Without a branch: and-ed with ones or zeros. */
        const uint32_t kept = (uint32_t)(low <= x[i]) & (uint32_t)(x[i] <= high);
        uint32_t bits;
        memcpy(&bits, y + i, sizeof bits);
        bits &= 0u - kept;
        memcpy(y + i, &bits, sizeof bits);
    }
    return sum(y, n);
}

static void keep_from(float low, const float* x, size_t n, float top, float* w, float sums[2]) {
    float of_w[RWKV_LANES] = {0.0f};
    float of_products[RWKV_LANES] = {0.0f};
    for (size_t i = 0; i < n; i += RWKV_LANES) {
        for (size_t lane = 0; lane < RWKV_LANES; ++lane) {
            const float wi = x[i + lane] < low ? 0.0f : w[i + lane];
            const float product = wi * (x[i + lane] - top);
            w[i + lane] = wi;
            of_w[lane] += wi;
            of_products[lane] += 0.0f < wi ? product : 0.0f;
        }
    }
    sums[0] = sum_lanes(of_w);
    sums[1] = sum_lanes(of_products);
}

static size_t split(const float* x, const float* w, size_t n, const float* middle, float low,
                    float high, float* x_out, float* w_out, float sums[2]) {
    float above[RWKV_LANES] = {0.0f};
    float within[RWKV_LANES] = {0.0f};
    size_t count = 0;
    for (size_t i = 0; i < n; i += RWKV_LANES) {
        for (size_t lane = 0; lane < RWKV_LANES; ++lane) {
            const float xi = x[i + lane];
            const float wi = w[i + lane];
            const float key = middle == NULL ? xi : -fabsf(xi - *middle);
            const float not_above = key <= high ? wi : 0.0f;
            above[lane] += high < key ? wi : 0.0f;
            within[lane] += low <= key ? not_above : 0.0f;
            /* Which are copied is as good as random: a branch on it would be mispredicted. */
            x_out[count] = xi;
            w_out[count] = wi;
            count += (size_t)((low <= key) & (key <= high));
        }
    }
    sums[0] = sum_lanes(above);
    sums[1] = sum_lanes(within);
    return count;
}

void rwkv_kernels_reference(rwkv_kernels* k) {
    *k = (rwkv_kernels){
        .name = "reference",
        .quantize = quantize,
        .layer_norm = layer_norm,
        .lerp = lerp,
        .add = add,
        .mul = mul,
        .add_mul = add_mul,
        .sigmoid = sigmoid,
        .tanh = tanh_,
        .silu = silu,
        .relu2 = relu2,
        .decay_v6 = decay_v6,
        .before_wkv7 = before_wkv7,
        .after_wkv7 = after_wkv7,
        .wkv4 = wkv4,
        .wkv5 = wkv5,
        .wkv7 = wkv7,
        .stream = stream,
        .end_streams = end_streams,
        .transpose = transpose,
        .largest = largest,
        .exp_sum = exp_sum,
        .keep_from = keep_from,
        .split = split,
    };
    for (int type = 0; type < RWKV_TYPE_COUNT; ++type) {
        k->matrix[type] =
            (rwkv_matrix_kernels){.packed_size = packed_size, .pack = pack, .matmul = matmul};
    }
}
