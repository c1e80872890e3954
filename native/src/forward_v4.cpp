// RWKV-4 (Peng et al. 2023, arXiv:2305.13048).
//
// Time mix, for each channel, with the row before in place of x' and mix m:
//     r = sigmoid(R lerp(x, x', m_r)),  k = K lerp(x, x', m_k),  v = V lerp(x, x', m_v)
//     y = wkv4(k, v): a weighted mean of all v so far, whose weights exp(k) fade by exp(w) with
//                     every token, the present one counting exp(u + k)
//     x += O (r y)
#include "forward.h"
#include "stages.h"

namespace rwkv {

void forward_v4(const Model& model, Executor& executor, const Batch& batch) {
    const Config& c = model.config;
    const rwkv_kernels& k = model.kernels;
    const size_t n = batch.n_rows();
    const size_t C = c.n_embd;
    const Heads heads(c);
    const auto& layers = std::get<std::vector<LayerV4>>(model.layers);

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
            const LayerV4& l = layers[i];

            norm_and_mix(pass, l.ln1, x, pairs, Shift::att, i,
                         {{l.mix_r, b.xr, form_for(l.receptance)},
                          {l.mix_k, b.xk, form_for(l.key)},
                          {l.mix_v, b.xv, form_for(l.value)}});
            products(
                pass,
                {{l.receptance, b.xr, b.r, k.sigmoid}, {l.key, b.xk, b.k}, {l.value, b.xv, b.v}});
            // Channels are independent: some of each sequence are worked on as a head.
            team.for_each(batch.sequences.size() * heads.n, 1, [&](size_t piece, size_t) {
                const Sequence& s = batch.sequences[piece / heads.n];
                const size_t head = piece % heads.n;
                const size_t channel = head * heads.width;
                const size_t width = heads.width_of(head);
                const size_t at = s.first_row * C + channel;
                const HeadState S(*s.state, s.recent, i, head, rooms.of(team));
                S.take(0, s.n_rows, C, {b.k + at, b.v + at});
                k.wkv4(s.n_rows, C, width, l.time_first + channel, l.time_decay + channel, b.k + at,
                       b.v + at, S.before(), S.ld_before(), S.after(), S.ld_after(), b.y.x + at);
                for (size_t t = 0; t < s.n_rows; ++t) {
                    float* row = b.y.x + at + t * C;
                    k.mul(row, b.r + at + t * C, width, row);
                    if (quantised(l.output)) {
                        quantize_part(pass, b.y, s.first_row + t, channel, width);
                    }
                }
            });
            products(pass, {product_added(l.output, b.y, x)});

            channel_mix(pass, l.ffn, l.ln2, i, pairs, ffn, x);
        }
        head(pass, x, head_buffers);
    });
}

}  // namespace rwkv
