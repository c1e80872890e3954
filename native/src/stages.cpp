#include "stages.h"

#include <algorithm>
#include <cstring>

#include "block_types.h"

namespace rwkv {

namespace {

// Prepares part of a row for products with quantised matrices: as bf16 where the level has wide
// products and the row is one of `n_wide` that take them, else quantised.
void quantize_span(const rwkv_kernels& k, const rwkv_rows& rows, size_t n_wide, size_t row,
                   size_t column, size_t n) {
    const float* x = rows.x + row * rows.ld + column;
    if (k.to_bf16 != nullptr && row < n_wide) {
        return k.to_bf16(x, n, rows.bf16 + row * rows.n_cols + column);
    }
    k.quantize(x, n, rwkv_q8_row(&rows, row) + column / RWKV_BLOCK * rows.tile, rows.tile);
}

size_t panels_of(const Matrix& m) { return (m.n_out + RWKV_PANEL - 1) / RWKV_PANEL; }

// The panels [begin, end) of one product.
void product_piece(const rwkv_kernels& k, const Product& p, size_t n_rows, size_t n_wide,
                   size_t begin, size_t end) {
    const size_t ldy = p.ldy == 0 ? p.w.n_out : p.ldy;
    const rwkv_matrix_kernels& m = k.matrix[p.w.type];
    const size_t wide = m.matmul_wide != nullptr ? n_wide : 0;
    if (wide > 0) m.matmul_wide(&p.w, &p.x, 0, wide, begin, end, p.y, ldy);
    if (wide < n_rows) m.matmul(&p.w, &p.x, wide, n_rows, begin, end, p.y, ldy);
    if (p.f == nullptr && p.residual == nullptr) return;
    const size_t column = begin * RWKV_PANEL;
    const size_t n = std::min(end * RWKV_PANEL, p.w.n_out) - column;
    for (size_t row = 0; row < n_rows; ++row) {
        float* y = p.y + row * ldy + column;
        if (p.f != nullptr) p.f(y, n, y);
        if (p.residual == nullptr) continue;
        float* residual = p.residual + row * p.w.n_out + column;
        if (p.gate != nullptr) {
            k.add_mul(p.gate + row * p.w.n_out + column, y, n, residual);
        } else {
            k.add(residual, y, n, residual);
        }
    }
}

}  // namespace

void embed(Pass& pass, float* x) {
    const Model& model = pass.model;
    const size_t C = model.config.n_embd;
    const size_t row_bytes = rwkv_row_bytes(model.embedding.type, C);
    pass.team.for_each(pass.n_rows(), 1, [&](size_t row, size_t) {
        const size_t token = static_cast<size_t>(pass.batch.tokens[row]);
        float* to = x + row * C;
        dequantize_row(model.embedding.type, model.embedding.rows.data() + token * row_bytes, C,
                       to);
        model.kernels.layer_norm(to, model.ln0.weight, model.ln0.bias, kLayerNormEps, C, to);
    });
}

void norm_and_shift(Pass& pass, const Norm& norm, const float* x, const ShiftedRows& xx,
                    float* (State::*shift)(size_t) noexcept, size_t layer) {
    const size_t C = pass.model.config.n_embd;
    pass.team.for_each(pass.n_rows(), 1, [&](size_t row, size_t) {
        pass.kernels().layer_norm(x + row * C, norm.weight, norm.bias, kLayerNormEps, C,
                                  xx.row(row));
        // The last row of a sequence changes the shift, so it is the one that takes the old value.
        const Sequence& s = pass.batch.sequences[pass.batch.sequence_of[row]];
        if (row + 1 != s.first_row + s.n_rows) return;
        float* state = (s.state->*shift)(layer);
        std::memcpy(xx.before(s.first_row), state, C * sizeof *state);
        std::memcpy(state, xx.row(row), C * sizeof *state);
    });
}

void mix_rows(Pass& pass, const ShiftedRows& xx, std::initializer_list<Mix> mixes) {
    const rwkv_kernels& k = pass.kernels();
    for_each_span(pass, pass.n_rows(), pass.model.config.n_embd,
                  [&](size_t row, size_t column, size_t n) {
                      for (const Mix& m : mixes) {
                          k.lerp(xx.row(row) + column, xx.before(row) + column, m.mix + column, n,
                                 m.out.x + row * m.out.ld + column);
                          if (m.quantised) {
                              quantize_span(k, m.out, pass.batch.n_wide, row, column, n);
                          }
                      }
                  });
}

void quantize_rows(Pass& pass, std::initializer_list<Ready> all) {
    for (const Ready& ready : all) {
        if (!ready.quantised) continue;
        for_each_span(
            pass, pass.n_rows(), ready.rows.n_cols, [&](size_t row, size_t column, size_t n) {
                quantize_span(pass.kernels(), ready.rows, pass.batch.n_wide, row, column, n);
            });
    }
}

void products(Pass& pass, std::initializer_list<Product> all) {
    products(pass, pass.n_rows(), pass.batch.n_wide, all);
}

void products(Pass& pass, size_t n_rows, size_t n_wide, std::initializer_list<Product> all) {
    size_t n_panels = 0;
    for (const Product& p : all) n_panels += panels_of(p.w);
    // Pieces small enough to share evenly and large enough that taking them costs nothing.
    const size_t grain = std::clamp<size_t>(n_panels / (16 * pass.model.pool.size()), 1, 8);
    pass.team.for_each(n_panels, grain, [&](size_t begin, size_t end) {
        size_t first = 0;  // the first panel of p among all
        for (const Product& p : all) {
            const size_t last = first + panels_of(p.w);
            if (begin < last && end > first) {
                product_piece(pass.kernels(), p, n_rows, n_wide, std::max(begin, first) - first,
                              std::min(end, last) - first);
            }
            first = last;
        }
    });
}

ChannelMixBuffers::ChannelMixBuffers(Scratch& scratch, const Config& c, size_t n)
    : xk(scratch.rows(n, c.n_embd)),
      xr(scratch.rows(n, c.n_embd)),
      k(scratch.rows(n, c.n_ffn)),
      r(scratch.floats(n * c.n_embd)),
      v(scratch.floats(n * c.n_embd)) {}

void channel_mix(Pass& pass, const ChannelMix& w, const ShiftedRows& xx, const ChannelMixBuffers& b,
                 float* x) {
    const rwkv_kernels& k = pass.kernels();
    mix_rows(pass, xx,
             {{w.mix_k, b.xk, quantised(w.key)}, {w.mix_r, b.xr, quantised(w.receptance)}});
    products(pass, {{w.key, b.xk, b.k.x, k.relu2}, {w.receptance, b.xr, b.r, k.sigmoid}});
    quantize_rows(pass, {{b.k, quantised(w.value)}});
    products(pass, {{w.value, b.k, b.v, nullptr, b.r, x}});
}

HeadBuffers::HeadBuffers(Scratch& scratch, const Config& c, const Batch& batch)
    : n(std::min<size_t>(batch.logits.size(), 64)),
      rows(scratch.rows(n, c.n_embd)),
      logits(n > 1 ? scratch.floats(n * c.n_vocab) : nullptr) {}

void head(Pass& pass, const float* x, const HeadBuffers& b) {
    const Model& model = pass.model;
    const size_t C = model.config.n_embd;
    const size_t V = model.config.n_vocab;
    const std::vector<Batch::Logits>& wanted = pass.batch.logits;
    for (size_t first = 0; first < wanted.size(); first += b.n) {
        const size_t n = std::min(b.n, wanted.size() - first);
        pass.team.for_each(n, 1, [&](size_t i, size_t) {
            model.kernels.layer_norm(x + wanted[first + i].row * C, model.ln_out.weight,
                                     model.ln_out.bias, kLayerNormEps, C, b.rows.x + i * C);
            if (quantised(model.head)) quantize_span(model.kernels, b.rows, 0, i, 0, C);
        });
        float* logits = b.n > 1 ? b.logits : wanted[first].out;
        // Always the narrow way: rows here are those that want logits, whatever their sequences'
        // sizes.
        products(pass, n, 0, {{model.head, b.rows, logits}});
        if (b.n == 1) continue;
        pass.team.for_each(n, 1, [&](size_t i, size_t) {
            std::memcpy(wanted[first + i].out, logits + i * V, V * sizeof *logits);
        });
    }
}

}  // namespace rwkv
