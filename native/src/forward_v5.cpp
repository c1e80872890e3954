// RWKV-5.1 and 5.2, "Eagle" (Peng et al. 2024, arXiv:2404.05892).
//
// Time mix, for each head, with the row before in place of x' and mix m:
//     r, k, v = R lerp(x, x', m_r), K lerp(x, x', m_k), V lerp(x, x', m_v)
//     y = wkv5(r, k, v): y = r (diag(u) k^T v + S),  S = diag(w) S + k^T v
//     x += O (ln_x(y) g),  g = silu(G lerp(x, x', m_g)); version 5.1 has no g
// u (time_first) and w (time_decay) do not depend on the token; in 5.1 they are one value a head.
#include "forward.h"
#include "stages.h"

namespace rwkv {

void forward_v5(const Model& model, Executor& executor, const Batch& batch) {
    const Config& c = model.config;
    const rwkv_kernels& k = model.kernels;
    const size_t n = batch.n_rows();
    const size_t C = c.n_embd;
    const size_t N = c.head_size;
    const bool gated = c.version == Version::v5_2;
    const auto& layers = std::get<std::vector<LayerV5>>(model.layers);

    Scratch& scratch = executor.scratch;
    scratch.begin();
    float* x = residual(scratch, batch, C);
    const RowPairs pairs(scratch, model, C);
    const TimeMixBuffers b(scratch, c, n);
    const ChannelMixBuffers ffn(scratch, c, n);
    const HeadRooms rooms(scratch, model);
    const HeadBuffers head_buffers(scratch, c, batch.logits.size());
    const ProductBuffers buffers(scratch, model, batch);
    if (scratch.is_counting()) return;

    executor.pool.run([&](Team& team) {
        Pass pass{model, batch, buffers, team};
        embed(pass, x);
        for (size_t i = 0; i < layers.size(); ++i) {
            const LayerV5& l = layers[i];

            if (gated) {
                norm_and_mix(pass, l.ln1, x, pairs, Shift::att, i,
                             {{l.mix_r, b.xr, form_for(l.receptance)},
                              {l.mix_k, b.xk, form_for(l.key)},
                              {l.mix_v, b.xv, form_for(l.value)},
                              {l.mix_g, b.xg, form_for(l.gate)}});
                products(pass, {{l.receptance, b.xr, b.r},
                                {l.key, b.xk, b.k},
                                {l.value, b.xv, b.v},
                                {l.gate, b.xg, b.g, k.silu}});
            } else {
                norm_and_mix(pass, l.ln1, x, pairs, Shift::att, i,
                             {{l.mix_r, b.xr, form_for(l.receptance)},
                              {l.mix_k, b.xk, form_for(l.key)},
                              {l.mix_v, b.xv, form_for(l.value)}});
                products(pass,
                         {{l.receptance, b.xr, b.r}, {l.key, b.xk, b.k}, {l.value, b.xv, b.v}});
            }
            const auto time_mix_head = [&](const Sequence& s, size_t head, const HeadState& S) {
                const size_t h = head * N;
                const size_t at = s.first_row * C + h;
                S.take(0, s.n_rows, C, {b.k + at, b.v + at});
                k.wkv5(s.n_rows, C, N, b.r + at, b.k + at, b.v + at, l.time_first + h,
                       l.time_decay + h, 0, S.before(), S.after(), b.y.x + at);
                for (size_t row = at; row < at + s.n_rows * C; row += C) {
                    k.layer_norm(b.y.x + row, l.ln_x.weight + h, l.ln_x.bias + h, c.ln_x_eps, N,
                                 b.y.x + row);
                    if (gated) k.mul(b.y.x + row, b.g + row, N, b.y.x + row);
                }
            };
            for_each_head(pass, i, rooms, b.y, l.output, time_mix_head);
            products(pass, {product_added(l.output, b.y, x)});

            channel_mix(pass, l.ffn, l.ln2, i, pairs, ffn, x);
        }
        head(pass, x, head_buffers);
    });
}

}  // namespace rwkv
