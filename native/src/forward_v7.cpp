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

#include "forward.h"
#include "stages.h"

namespace rwkv {

namespace {

// A head's part of the layer's element-wise weights.
rwkv_weights_v7 head_weights(const Config& c, const LayerV7& l, size_t head) {
    const size_t h = head * c.head_size;
    const float* v0 = l.v0 == nullptr ? nullptr : l.v0 + h;
    return {l.w0 + h,          l.a0 + h,        v0,        l.k_k + h, l.k_a + h, l.r_k + h,
            l.ln_x.weight + h, l.ln_x.bias + h, c.ln_x_eps};
}

// The rows from element `at` on.
rwkv_head_v7 rows_at(const rwkv_head_v7& b, size_t at) {
    return {b.r + at,     b.w + at,       b.k + at,           b.v + at,       b.a + at, b.g + at,
            b.v_mix + at, b.v_first + at, b.minus_kappa + at, b.a_kappa + at, b.y + at};
}

// One head of one sequence, from the products to what the output matrix reads.
void time_mix_head(const Model& model, const LayerV7& l, const Sequence& s, size_t head,
                   const rwkv_head_v7& all, const HeadState& S) {
    const rwkv_kernels& k = model.kernels;
    const size_t C = model.config.n_embd;
    const size_t N = model.config.head_size;
    const rwkv_weights_v7 weights = head_weights(model.config, l, head);
    const auto part = [&](size_t row) { return rows_at(all, row * C + head * N); };
    // A few rows at a time, which stay in the first-level cache from product to output.
    constexpr size_t kRows = 16;
    const size_t end = s.first_row + s.n_rows;
    const float* before = S.before();
    for (size_t first = s.first_row; first < end; first += kRows) {
        const size_t last = std::min(first + kRows, end);
        for (size_t row = first; row < last; ++row) {
            const rwkv_head_v7 b = part(row);
            k.before_wkv7(&weights, &b, N);
        }
        const rwkv_head_v7 b = part(first);
        const size_t n = last - first;
        S.take(first - s.first_row, n, C, {b.k, b.v, b.w, b.minus_kappa, b.a_kappa});
        k.wkv7(n, C, N, b.r, b.w, b.k, b.v, b.minus_kappa, b.a_kappa, before, S.after(), b.y);
        before = S.after();
        for (size_t row = first; row < last; ++row) {
            const rwkv_head_v7 b = part(row);
            k.after_wkv7(&weights, &b, N);
        }
    }
}

// The rows of a low-rank pair's middle, whose width is the layer's own.
rwkv_rows middle(const rwkv_rows& widest, const Matrix& second) {
    rwkv_rows rows = widest;
    rows.n_cols = rows.ld = second.n_in;
    return rows;
}

}  // namespace

void forward_v7(const Model& model, Executor& executor, const Batch& batch) {
    const Config& c = model.config;
    const rwkv_kernels& k = model.kernels;
    const size_t n = batch.n_rows();
    const size_t C = c.n_embd;
    const auto& layers = std::get<std::vector<LayerV7>>(model.layers);
    size_t rank = 0;
    for (const LayerV7& l : layers) {
        rank = std::max({rank, l.w2.n_in, l.a2.n_in, l.v2.n_in, l.g2.n_in});
    }

    Scratch& scratch = executor.scratch;
    scratch.begin();
    float* x = residual(scratch, batch, C);
    const RowPairs pairs(scratch, model, C);
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
    rwkv_head_v7 b = {};
    for (float** const buffer :
         {&b.r, &b.w, &b.k, &b.v, &b.a, &b.g, &b.v_mix, &b.v_first, &b.minus_kappa, &b.a_kappa}) {
        *buffer = scratch.floats(n * C);
    }
    // Layers that do not begin with the first are told what it left.
    if (batch.layer_rows != nullptr) b.v_first = batch.layer_rows->v_first;
    b.y = y.x;
    const rwkv_rows ffn_k = scratch.rows(n, c.n_ffn);
    const HeadRooms rooms(scratch, model);
    const HeadBuffers head_buffers(scratch, c, batch.logits.size());
    const ProductBuffers buffers(scratch, model, batch);
    if (scratch.is_counting()) return;

    executor.pool.run([&](Team& team) {
        Pass pass{model, batch, buffers, team};
        embed(pass, x);
        for (size_t i = 0; i < layers.size(); ++i) {
            const LayerV7& l = layers[i];
            const rwkv_rows w1 = middle(w_widest, l.w2);
            const rwkv_rows a1 = middle(a_widest, l.a2);
            const rwkv_rows v1 = middle(v_widest, l.v2);
            const rwkv_rows g1 = middle(g_widest, l.g2);

            norm_and_mix(pass, l.ln1, x, pairs, Shift::att, i,
                         {{l.x_r, xr, form_for(l.receptance)},
                          {l.x_w, xw, form_for(l.w1)},
                          {l.x_k, xk, form_for(l.key)},
                          {l.x_v, xv, form_for(l.value, l.v1)},
                          {l.x_a, xa, form_for(l.a1)},
                          {l.x_g, xg, form_for(l.g1)}});
            // In layer 0, v1 and v2 are empty matrices: their products do nothing.
            products(pass, {{l.receptance, xr, b.r},
                            {l.key, xk, b.k},
                            {l.value, xv, b.v},
                            product_for(l.w2, l.w1, xw, w1, k.tanh),
                            product_for(l.a2, l.a1, xa, a1),
                            product_for(l.v2, l.v1, xv, v1),
                            product_for(l.g2, l.g1, xg, g1, k.sigmoid)});
            products(pass,
                     {{l.w2, w1, b.w}, {l.a2, a1, b.a}, {l.v2, v1, b.v_mix}, {l.g2, g1, b.g}});
            for_each_head(pass, i, rooms, y, l.output,
                          [&](const Sequence& s, size_t head, const HeadState& S) {
                              time_mix_head(model, l, s, head, b, S);
                          });
            products(pass, {product_added(l.output, y, x)});

            norm_and_mix(pass, l.ln2, x, pairs, Shift::ffn, i,
                         {{l.ffn_x_k, xk, form_for(l.ffn_key)}});
            products(pass, {product_for(l.ffn_value, l.ffn_key, xk, ffn_k, k.relu2)});
            products(pass, {product_added(l.ffn_value, ffn_k, x)});
        }
        head(pass, x, head_buffers);
    });
}

}  // namespace rwkv
