// RWKV-6, "Finch" (Peng et al. 2024, arXiv:2404.05892).
//
// Time mix, with the row before in place of x':
//     (d_w, d_k, d_v, d_r, d_g) = maa_w2 tanh(maa_w1 lerp(x, x', maa_x))    each in its own fifth
//     x_c = lerp(x, x', maa_c + d_c)                                        for c in w k v r g
//     r, k, v = R x_r, K x_k, V x_v,   g = silu(G x_g)
//     w = exp(-exp(time_decay + decay_w2 tanh(decay_w1 x_w)))
//     y = wkv5(r, k, v), with w of the token:  y = r (diag(u) k^T v + S),  S = diag(w) S + k^T v
//     x += O (ln_x(y) g)
#include <algorithm>

#include "forward.h"
#include "stages.h"

namespace rwkv {

void forward_v6(const Model& model, Executor& executor, const Batch& batch) {
    const Config& c = model.config;
    const rwkv_kernels& k = model.kernels;
    const size_t n = batch.n_rows();
    const size_t C = c.n_embd;
    const size_t N = c.head_size;
    const auto& layers = std::get<std::vector<LayerV6>>(model.layers);
    size_t maa_rank = 0;
    size_t decay_rank = 0;
    for (const LayerV6& l : layers) {  // ranks may differ from layer to layer
        maa_rank = std::max(maa_rank, l.maa_w2[0].n_in);
        decay_rank = std::max(decay_rank, l.decay_w2.n_in);
    }

    Scratch& scratch = executor.scratch;
    scratch.begin();
    float* x = residual(scratch, batch, C);
    const ShiftedRows xx(scratch, batch, C);
    const RowPairs pairs(scratch, model, C);
    const rwkv_rows xxx = scratch.rows(n, C);
    float* maa_hidden = scratch.floats(n * 5 * maa_rank);
    rwkv_rows maa_parts[5];  // the fifths of maa_hidden, each to be quantised by itself
    float* maa[5];           // maa_c + d_c
    for (size_t p = 0; p < 5; ++p) {
        maa_parts[p] = scratch.rows(n, maa_rank);
        maa[p] = scratch.floats(n * C);
    }
    const rwkv_rows xw = scratch.rows(n, C);
    rwkv_rows decay_hidden = scratch.rows(n, decay_rank);
    float* w = scratch.floats(n * C);
    const TimeMixBuffers b(scratch, c, n);
    const rwkv_rows* const xs[5] = {&xw, &b.xk, &b.xv, &b.xr, &b.xg};
    const ChannelMixBuffers ffn(scratch, c, n);
    const HeadRooms rooms(scratch, model);
    const HeadBuffers head_buffers(scratch, c, batch.logits.size());
    const ProductBuffers buffers(scratch, model, batch);
    if (scratch.is_counting()) return;

    executor.pool.run([&](Team& team) {
        Pass pass{model, batch, buffers, team};
        embed(pass, x);
        for (size_t i = 0; i < layers.size(); ++i) {
            const LayerV6& l = layers[i];
            const size_t rank = l.maa_w2[0].n_in;
            rwkv_rows parts[5];
            for (size_t p = 0; p < 5; ++p) {
                parts[p] = maa_parts[p];
                parts[p].x = maa_hidden + p * rank;
                parts[p].ld = 5 * rank;
                parts[p].n_cols = rank;
            }
            rwkv_rows decay = decay_hidden;
            decay.n_cols = decay.ld = l.decay_w2.n_in;

            norm_and_shift(pass, l.ln1, x, xx, Shift::att, i);
            mix_rows(pass, xx, {{l.maa_x, xxx, form_for(l.maa_w1)}});
            products(pass, {{l.maa_w1, xxx, maa_hidden, k.tanh}});
            for (size_t p = 0; p < 5; ++p) {
                if (quantised(l.maa_w2[p])) quantize_rows(pass, {&parts[p]});
            }
            products(pass, {{l.maa_w2[0], parts[0], maa[0]},
                            {l.maa_w2[1], parts[1], maa[1]},
                            {l.maa_w2[2], parts[2], maa[2]},
                            {l.maa_w2[3], parts[3], maa[3]},
                            {l.maa_w2[4], parts[4], maa[4]}});
            const Matrix* const readers[5] = {&l.decay_w1, &l.key, &l.value, &l.receptance,
                                              &l.gate};
            for_each_span(pass, n, C, [&](size_t row, size_t column, size_t width) {
                for (size_t p = 0; p < 5; ++p) {
                    float* mix = maa[p] + row * C + column;
                    k.add(mix, l.maa[p] + column, width, mix);
                    k.lerp(xx.row(row) + column, xx.before(row) + column, mix, width,
                           xs[p]->x + row * C + column);
                    if (quantised(*readers[p])) quantize_part(pass, *xs[p], row, column, width);
                }
            });
            products(pass, {{l.receptance, b.xr, b.r},
                            {l.key, b.xk, b.k},
                            {l.value, b.xv, b.v},
                            {l.gate, b.xg, b.g, k.silu},
                            product_for(l.decay_w2, l.decay_w1, xw, decay, k.tanh)});
            products(pass, {{l.decay_w2, decay, w}});
            const auto time_mix_head = [&](const Sequence& s, size_t head, const HeadState& S) {
                const size_t h = head * N;
                const size_t at = s.first_row * C + h;
                for (size_t row = at; row < at + s.n_rows * C; row += C) {
                    k.add(w + row, l.time_decay + h, N, w + row);
                    k.decay_v6(w + row, N, w + row);
                }
                S.take(0, s.n_rows, C, {b.k + at, b.v + at, w + at});
                k.wkv5(s.n_rows, C, N, b.r + at, b.k + at, b.v + at, l.time_faaaa + h, w + at, C,
                       S.before(), S.after(), b.y.x + at);
                for (size_t row = at; row < at + s.n_rows * C; row += C) {
                    k.layer_norm(b.y.x + row, l.ln_x.weight + h, l.ln_x.bias + h, c.ln_x_eps, N,
                                 b.y.x + row);
                    k.mul(b.y.x + row, b.g + row, N, b.y.x + row);
                }
            };
            for_each_head(pass, i, rooms, b.y, l.output, time_mix_head);
            products(pass, {product_added(l.output, b.y, x)});

            channel_mix(pass, l.ffn, l.ln2, i, pairs, ffn, x);
            // A file whose output and value matrices were divided by 2 after every so many layers,
            // so that fp16 holds the residual stream.
            const size_t n_done = c.first_layer + i + 1;
            if (c.rescale_every != 0 && n_done % c.rescale_every == 0) halve(pass, x);
        }
        head(pass, x, head_buffers);
    });
}

}  // namespace rwkv
