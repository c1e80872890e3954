// RWKV-7, "Goose" (Peng et al. 2025, arXiv:2503.14456).
//
// Time mix, with the row before in place of x' and x_c = lerp(x, x', mix_c):
//     r, k, v = R x_r, K x_k, V x_v
//     w = exp(-exp(-1/2) sigmoid(w0 + w2 tanh(w1 x_w)))     decay of the state, for each key
//     a = sigmoid(a0 + a2 (a1 x_a))                         in-context learning rate
//     g = g2 sigmoid(g1 x_g)                                gate
//     layer 0: v_first = v; later: v = lerp(v, v_first, sigmoid(v0 + v2 (v1 x_v)))
//     kappa = k k_k / |k k_k|  in each head                 the key to be replaced
//     k = k (1 + (a - 1) k_a)
//     S = S (diag(w) - kappa^T (a kappa)) + v^T k,  y = S r          wkv7, in each head
//     x += O (g (ln_x(y) + (sum of r k r_k) v))
// Channel mix: x += V relu(K lerp(x, x', x_k))^2
#include <algorithm>
#include <cmath>
#include <cstring>

#include "forward.h"
#include "stages.h"

namespace rwkv {

namespace {

// What a head's part of the time mix reads and writes; all (n, C).
struct HeadRows {
    float *r, *w, *k, *v, *a, *g;  // products; w, a, k, v are changed in place
    float* v_mix;                  // v2 (v1 x_v)
    float* v_first;
    float *minus_kappa, *a_kappa;
    float* y;
};

// One head of one sequence, from the products to what the output matrix reads.
void time_mix_head(const Model& model, const LayerV7& l, bool first_layer, const Sequence& s,
                   size_t head, const HeadRows& b, float* S) {
    const rwkv_kernels& k = model.kernels;
    const size_t C = model.config.n_embd;
    const size_t N = model.config.head_size;
    const size_t h = head * N;
    const size_t begin = s.first_row * C + h;
    const size_t end = begin + s.n_rows * C;
    for (size_t at = begin; at < end; at += C) {
        k.add(b.w + at, l.w0 + h, N, b.w + at);
        k.decay_v7(b.w + at, N, b.w + at);
        k.add(b.a + at, l.a0 + h, N, b.a + at);
        k.sigmoid(b.a + at, N, b.a + at);

        float* kappa = b.minus_kappa + at;
        k.mul(b.k + at, l.k_k + h, N, kappa);
        const float length = std::sqrt(k.dot(kappa, kappa, N));
        k.scale(kappa, -1.0f / std::max(length, 1e-12f), N, kappa);
        k.mul(b.a + at, kappa, N, b.a_kappa + at);
        k.scale(b.a_kappa + at, -1.0f, N, b.a_kappa + at);
        k.key_v7(b.k + at, b.a + at, l.k_a + h, N, b.k + at);

        if (first_layer) {
            std::memcpy(b.v_first + at, b.v + at, N * sizeof *b.v);
        } else {
            k.add(b.v_mix + at, l.v0 + h, N, b.v_mix + at);
            k.sigmoid(b.v_mix + at, N, b.v_mix + at);
            k.lerp(b.v + at, b.v_first + at, b.v_mix + at, N, b.v + at);
        }
    }
    k.wkv7(s.n_rows, C, N, b.r + begin, b.w + begin, b.k + begin, b.v + begin,
           b.minus_kappa + begin, b.a_kappa + begin, S, b.y + begin);
    for (size_t at = begin; at < end; at += C) {
        k.layer_norm(b.y + at, l.ln_x.weight + h, l.ln_x.bias + h, model.config.ln_x_eps, N,
                     b.y + at);
        k.mul(b.k + at, l.r_k + h, N, b.k + at);
        k.add_scaled(b.v + at, k.dot(b.r + at, b.k + at, N), N, b.y + at);
        k.mul(b.y + at, b.g + at, N, b.y + at);
    }
}

// The rows of a low-rank pair's middle, whose width is the layer's own.
rwkv_rows middle(const rwkv_rows& widest, const Matrix& second) {
    rwkv_rows rows = widest;
    rows.n_cols = rows.ld = second.n_in;
    return rows;
}

}  // namespace

void forward_v7(const Model& model, const Batch& batch) {
    const Config& c = model.config;
    const rwkv_kernels& k = model.kernels;
    const size_t n = batch.n_rows();
    const size_t C = c.n_embd;
    const auto& layers = std::get<std::vector<LayerV7>>(model.layers);
    size_t rank = 0;
    for (const LayerV7& l : layers) {
        rank = std::max({rank, l.w2.n_in, l.a2.n_in, l.v2.n_in, l.g2.n_in});
    }

    Scratch& scratch = model.scratch;
    scratch.reset();
    float* x = scratch.floats(n * C);
    const ShiftedRows xx(scratch, batch, C);
    const rwkv_rows xr = scratch.rows(n, C);
    const rwkv_rows xw = scratch.rows(n, C);
    const rwkv_rows xk = scratch.rows(n, C);
    const rwkv_rows xv = scratch.rows(n, C);
    const rwkv_rows xa = scratch.rows(n, C);
    const rwkv_rows xg = scratch.rows(n, C);
    const rwkv_rows w_widest = scratch.rows(n, rank);
    const rwkv_rows a_widest = scratch.rows(n, rank);
    const rwkv_rows v_widest = scratch.rows(n, rank);
    const rwkv_rows g_widest = scratch.rows(n, rank);
    const rwkv_rows y = scratch.rows(n, C);
    float* const rest = scratch.floats(10 * n * C);
    const auto buffer = [&](size_t i) { return rest + i * n * C; };
    const HeadRows b = {buffer(0), buffer(1), buffer(2), buffer(3), buffer(4), buffer(5),
                        buffer(6), buffer(7), buffer(8), buffer(9), y.x};
    float* out = scratch.floats(n * C);
    const rwkv_rows ffn_k = scratch.rows(n, c.n_ffn);
    const HeadBuffers head_buffers(scratch, c, batch);

    model.pool.run([&](Team& team) {
        Pass pass{model, batch, team};
        embed(pass, x);
        for (size_t i = 0; i < layers.size(); ++i) {
            const LayerV7& l = layers[i];
            const rwkv_rows w1 = middle(w_widest, l.w2);
            const rwkv_rows a1 = middle(a_widest, l.a2);
            const rwkv_rows v1 = middle(v_widest, l.v2);
            const rwkv_rows g1 = middle(g_widest, l.g2);

            norm_and_shift(pass, l.ln1, x, xx, &State::att_shift, i);
            mix_rows(pass, xx,
                     {{l.x_r, xr, quantised(l.receptance)},
                      {l.x_w, xw, quantised(l.w1)},
                      {l.x_k, xk, quantised(l.key)},
                      {l.x_v, xv, quantised(l.value) || quantised(l.v1)},
                      {l.x_a, xa, quantised(l.a1)},
                      {l.x_g, xg, quantised(l.g1)}});
            // In layer 0, v1 and v2 are empty matrices: their products do nothing.
            products(pass, {{l.receptance, xr, b.r},
                            {l.key, xk, b.k},
                            {l.value, xv, b.v},
                            {l.w1, xw, w1.x, k.tanh},
                            {l.a1, xa, a1.x},
                            {l.v1, xv, v1.x},
                            {l.g1, xg, g1.x, k.sigmoid}});
            quantize_rows(pass, {{w1, quantised(l.w2)},
                                 {a1, quantised(l.a2)},
                                 {v1, quantised(l.v2)},
                                 {g1, quantised(l.g2)}});
            products(pass,
                     {{l.w2, w1, b.w}, {l.a2, a1, b.a}, {l.v2, v1, b.v_mix}, {l.g2, g1, b.g}});
            for_each_head(pass, [&](const Sequence& s, size_t head) {
                float* S = s.state->wkv(i) + head * c.head_size * c.head_size;
                time_mix_head(model, l, i == 0, s, head, b, S);
            });
            quantize_rows(pass, {{y, quantised(l.output)}});
            products(pass, {{l.output, y, out, nullptr, nullptr, x}});

            norm_and_shift(pass, l.ln2, x, xx, &State::ffn_shift, i);
            mix_rows(pass, xx, {{l.ffn_x_k, xk, quantised(l.ffn_key)}});
            products(pass, {{l.ffn_key, xk, ffn_k.x, k.relu2}});
            quantize_rows(pass, {{ffn_k, quantised(l.ffn_value)}});
            products(pass, {{l.ffn_value, ffn_k, out, nullptr, nullptr, x}});
        }
        head(pass, x, head_buffers);
    });
}

}  // namespace rwkv
