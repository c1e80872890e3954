#include "stages.h"

#include <algorithm>
#include <cstring>

#include "block_types.h"

namespace rwkv {

namespace {

// Prepares part of a row, whose values are at x, for products with quantised matrices: as bf16
// where the level has wide products and the row is one of `n_wide` that take them, else quantised.
void quantize_span(const rwkv_kernels& k, const rwkv_rows& rows, const float* x, size_t n_wide,
                   size_t row, size_t column, size_t n) {
    if (k.to_bf16 != nullptr && row < n_wide) {
        return k.to_bf16(x, n, rows.bf16 + row * rows.n_cols + column);
    }
    k.quantize(x, n, rwkv_q8_row(&rows, row) + column / RWKV_BLOCK * rows.tile, rows.tile);
}

bool is_tapped(const Pass& pass) {
    return pass.batch.layer_rows != nullptr && !pass.batch.layer_rows->taps.empty();
}

// What is shared out of a product: a panel of a matrix by columns; else two panels, whose outputs
// are a whole block for who reads them.
size_t unit_of(const Matrix& m) { return m.by_columns ? size_t{RWKV_COLUMN} : size_t{RWKV_BLOCK}; }
size_t units_of(const Matrix& m) { return (m.n_out + unit_of(m) - 1) / unit_of(m); }
size_t panels_of(const Matrix& m) { return (m.n_out + RWKV_PANEL - 1) / RWKV_PANEL; }

// Where the results of a piece of a product go first, for the rows from `row` on.
struct Place {
    float* y;
    size_t ldy;
};
Place place_of(const Pass& pass, const Product& p, size_t row, size_t column) {
    if (p.y == nullptr) return {pass.buffers.values(pass.team), ProductBuffers::kColumns};
    return {p.y + row * p.w.n_out + column, p.w.n_out};
}

// What becomes of columns [column, column + width) of n rows of a product.
void finish_rows(const Pass& pass, const Product& p, size_t n_wide, size_t row, size_t n,
                 size_t column, size_t width, const Place& place) {
    const rwkv_kernels& k = pass.kernels();
    float* y = place.y;
    for (; n > 0; --n, ++row, y += place.ldy) {
        const size_t at = row * p.w.n_out + column;
        if (p.f != nullptr) p.f(y, width, y);
        if (p.copies != nullptr) std::memcpy(p.copies[row] + column, y, width * sizeof *y);
        if (p.next != nullptr) {
            if (is_tapped(pass)) std::copy_n(y, width, p.next->x + row * p.next->ld + column);
            quantize_span(k, *p.next, y, n_wide, row, column, width);
        }
        if (p.residual == nullptr) continue;
        if (p.gate != nullptr) {
            k.add_mul(p.gate + at, y, width, p.residual + at);
        } else {
            k.add(p.residual + at, y, width, p.residual + at);
        }
    }
}

// Columns [column, column + width) of one product, from the panels [first, last) of w, which is its
// matrix or the part of it that gives these columns.
void product_by_panels(const Pass& pass, const Product& p, size_t n_rows, size_t n_wide,
                       const Matrix& w, size_t first, size_t last, size_t column, size_t width) {
    const rwkv_matrix_kernels& m = pass.kernels().matrix[w.type];
    const size_t wide = m.matmul_wide != nullptr ? n_wide : 0;
    for (size_t row = 0, n; row < n_rows; row += n) {
        // All that take the wide way, which unpacks weights in each call; of the others a tile.
        n = row < wide ? wide : std::min(n_rows - row, RWKV_TILE - row % RWKV_TILE);
        const Place place = place_of(pass, p, row, column);
        const auto matmul = row < wide ? m.matmul_wide : m.matmul;
        matmul(&w, &p.x, row, row + n, first, last, place.y, place.ldy);
        finish_rows(pass, p, n_wide, row, n, column, width, place);
    }
}

// The inputs of one product, where its matrix is tapped.
void write_inputs(Pass& pass, const Product& p) {
    for (const Tap& tap : pass.batch.layer_rows->taps) {
        if (tap.matrix != &p.w) continue;
        const size_t n = p.w.n_in;
        pass.team.for_each(pass.n_rows(), 1, [&](size_t row, size_t) {
            std::copy_n(p.x.x + row * p.x.ld, n, tap.rows + row * n);
        });
    }
}

// The units [begin, end) of one product.
void product_piece(const Pass& pass, const Product& p, size_t n_rows, size_t n_wide, size_t begin,
                   size_t end) {
    const rwkv_matrix_kernels& m = pass.kernels().matrix[p.w.type];
    if (!p.w.by_columns) {
        constexpr size_t kPanels = RWKV_BLOCK / RWKV_PANEL;
        const size_t column = begin * RWKV_BLOCK;
        const size_t width = std::min(end * RWKV_BLOCK, p.w.n_out) - column;
        product_by_panels(pass, p, n_rows, n_wide, p.w, begin * kPanels,
                          std::min(end * kPanels, panels_of(p.w)), column, width);
        return;
    }
    for (size_t panel = begin; panel < end; ++panel) {
        const size_t column = panel * RWKV_COLUMN;
        if (n_rows <= RWKV_TILE) {
            const Place place = place_of(pass, p, 0, column);
            m.matmul_columns(&p.w, &p.x, 0, n_rows, panel, place.y, place.ldy);
            finish_rows(pass, p, n_wide, 0, n_rows, column, RWKV_COLUMN, place);
        } else {
            uint8_t* unpacked = pass.buffers.panel(pass.team);
            m.unpack_columns(&p.w, panel, unpacked);
            const Matrix w = {unpacked, RWKV_COLUMN, p.w.n_in, p.w.type, 0};
            product_by_panels(pass, p, n_rows, n_wide, w, 0, panels_of(w), column, RWKV_COLUMN);
        }
    }
}

// out = lerp(xx, before, mix) for columns [column, column + n) of a row, at most kSpan of them, in
// the form that its readers want.
void mix_span(const Pass& pass, const Mix& m, const float* xx, const float* before, size_t row,
              size_t column, size_t n) {
    const rwkv_kernels& k = pass.kernels();
    float* out = m.out.x + row * m.out.ld + column;
    float part[kSpan];
    if (!m.form.fp && !is_tapped(pass)) out = part;
    k.lerp(xx, before, m.mix + column, n, out);
    if (m.form.blocks) quantize_span(k, m.out, out, pass.batch.n_wide, row, column, n);
}

}  // namespace

ProductBuffers::ProductBuffers(Scratch& scratch, const Model& model, const Batch& batch)
    : size_(std::max<size_t>(RWKV_TILE, model.kernels.to_bf16 != nullptr ? batch.n_wide : 0) *
            kColumns),
      values_(scratch.floats(model.n_threads * size_)),
      panel_bytes_(batch.n_rows() > RWKV_TILE ? model.column_panel_bytes : 0),
      panels_(scratch.take<uint8_t>(model.n_threads * panel_bytes_)) {}

float* residual(Scratch& scratch, const Batch& batch, size_t n_cols) {
    if (batch.layer_rows != nullptr) return batch.layer_rows->x;
    return scratch.floats(batch.n_rows() * n_cols);
}

void embed(Pass& pass, float* x) {
    if (pass.batch.layer_rows != nullptr) return;
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
                    Shift shift, size_t layer) {
    const size_t C = pass.model.config.n_embd;
    pass.team.for_each(pass.n_rows(), 1, [&](size_t row, size_t) {
        pass.kernels().layer_norm(x + row * C, norm.weight, norm.bias, kLayerNormEps, C,
                                  xx.row(row));
        const Sequence& s = pass.batch.sequences[pass.batch.sequence_of[row]];
        // The last row of a sequence changes the shift, so it is the one that takes the old value.
        const bool is_last = row + 1 == s.first_row + s.n_rows;
        if (is_last) {
            std::memcpy(xx.before(s.first_row), s.state->shift(shift, layer), C * sizeof *x);
        }
        if (s.recent != nullptr) {
            s.recent->leave_shift(shift, layer, row - s.first_row, xx.row(row));
        } else if (is_last) {
            std::memcpy(s.state->next_shift(shift, layer), xx.row(row), C * sizeof *x);
        }
    });
}

void mix_rows(Pass& pass, const ShiftedRows& xx, std::initializer_list<Mix> mixes) {
    for_each_span(
        pass, pass.n_rows(), pass.model.config.n_embd, [&](size_t row, size_t column, size_t n) {
            for (const Mix& m : mixes) {
                mix_span(pass, m, xx.row(row) + column, xx.before(row) + column, row, column, n);
            }
        });
}

void norm_and_mix(Pass& pass, const Norm& norm, const float* x, const RowPairs& pairs, Shift shift,
                  size_t layer, std::initializer_list<Mix> mixes) {
    const size_t C = pass.model.config.n_embd;
    const size_t n = pass.n_rows();
    const auto norm_row = [&](size_t row, float* to) {
        pass.kernels().layer_norm(x + row * C, norm.weight, norm.bias, kLayerNormEps, C, to);
    };
    // Each piece begins with the norm of the row above it, which is computed twice; so pieces are
    // as long as leaves two for each thread, up to a tile.
    constexpr size_t kRows = RowPairs::kRows;
    size_t grain = kRows;
    while (grain > 1 && n < 2 * grain * pass.model.n_threads) grain /= 2;
    pass.team.for_each(n, grain, [&](size_t begin, size_t end) {
        const float* before[kRows];
        for (size_t row = begin; row < end; ++row) {
            const size_t i = row - begin;
            float* xx = pairs.row(pass.team, i);
            float* above = pairs.before(pass.team, i);
            const Sequence& s = pass.batch.sequences[pass.batch.sequence_of[row]];
            norm_row(row, xx);
            before[i] = above;
            if (row == s.first_row) {
                std::memcpy(above, s.state->shift(shift, layer), C * sizeof *above);
            } else if (i == 0) {
                norm_row(row - 1, above);
            } else {
                before[i] = pairs.row(pass.team, i - 1);
            }
            if (s.recent != nullptr) {
                s.recent->leave_shift(shift, layer, row - s.first_row, xx);
            } else if (row == s.first_row) {
                // Who takes the shift also leaves the new one, that of the sequence's last row.
                const size_t last = s.first_row + s.n_rows - 1;
                float* const next = s.state->next_shift(shift, layer);
                if (row == last) {
                    std::memcpy(next, xx, C * sizeof *next);
                } else {
                    norm_row(last, next);
                }
            }
        }
        // Rows are the innermost loop, because the blocks of a tile's rows lie side by side.
        constexpr size_t kColumns = 4 * RWKV_BLOCK;
        for (const Mix& m : mixes) {
            for (size_t column = 0; column < C; column += kColumns) {
                const size_t width = std::min(C - column, kColumns);
                for (size_t row = begin; row < end; ++row) {
                    const float* xx = pairs.row(pass.team, row - begin);
                    mix_span(pass, m, xx + column, before[row - begin] + column, row, column,
                             width);
                }
            }
        }
    });
}

void quantize_part(Pass& pass, const rwkv_rows& rows, size_t row, size_t column, size_t n) {
    const float* x = rows.x + row * rows.ld + column;
    quantize_span(pass.kernels(), rows, x, pass.batch.n_wide, row, column, n);
}

void quantize_rows(Pass& pass, std::initializer_list<const rwkv_rows*> all) {
    for (const rwkv_rows* rows : all) {
        for_each_span(pass, pass.n_rows(), rows->n_cols, [&](size_t row, size_t column, size_t n) {
            quantize_part(pass, *rows, row, column, n);
        });
    }
}

void products(Pass& pass, std::initializer_list<Product> all) {
    if (is_tapped(pass)) {
        for (const Product& p : all) write_inputs(pass, p);
    }
    products(pass, pass.n_rows(), pass.batch.n_wide, all);
}

void products(Pass& pass, size_t n_rows, size_t n_wide, std::initializer_list<Product> all) {
    size_t n_units = 0;
    for (const Product& p : all) n_units += units_of(p.w);
    // Pieces small enough to share evenly and large enough that taking them costs nothing.
    // A piece fits the buffers; one of a matrix by columns is worked on panel by panel.
    constexpr size_t kMost = ProductBuffers::kColumns / RWKV_BLOCK;
    const size_t grain = std::clamp<size_t>(n_units / (4 * pass.model.n_threads), 1, kMost);
    pass.team.for_each(n_units, grain, [&](size_t begin, size_t end) {
        size_t first = 0;  // the first unit of p among all
        for (const Product& p : all) {
            const size_t last = first + units_of(p.w);
            if (begin < last && end > first) {
                product_piece(pass, p, n_rows, n_wide, std::max(begin, first) - first,
                              std::min(end, last) - first);
            }
            first = last;
        }
    });
}

TimeMixBuffers::TimeMixBuffers(Scratch& scratch, const Config& c, size_t n)
    : xr(scratch.rows(n, c.n_embd)),
      xk(scratch.rows(n, c.n_embd)),
      xv(scratch.rows(n, c.n_embd)),
      xg(scratch.rows(n, c.n_embd)),
      r(scratch.floats(n * c.n_embd)),
      k(scratch.floats(n * c.n_embd)),
      v(scratch.floats(n * c.n_embd)),
      g(scratch.floats(n * c.n_embd)),
      y(scratch.rows(n, c.n_embd)) {}

ChannelMixBuffers::ChannelMixBuffers(Scratch& scratch, const Config& c, size_t n)
    : xk(scratch.rows(n, c.n_embd)),
      xr(scratch.rows(n, c.n_embd)),
      k(scratch.rows(n, c.n_ffn)),
      r(scratch.floats(n * c.n_embd)) {}

void channel_mix(Pass& pass, const ChannelMix& w, const Norm& norm, size_t layer,
                 const RowPairs& pairs, const ChannelMixBuffers& b, float* x) {
    const rwkv_kernels& k = pass.kernels();
    norm_and_mix(pass, norm, x, pairs, Shift::ffn, layer,
                 {{w.mix_k, b.xk, form_for(w.key)}, {w.mix_r, b.xr, form_for(w.receptance)}});
    products(pass, {product_for(w.value, w.key, b.xk, b.k, k.relu2),
                    {w.receptance, b.xr, b.r, k.sigmoid}});
    products(pass, {product_added(w.value, b.k, x, b.r)});
}

void halve(Pass& pass, float* x) {
    const size_t C = pass.model.config.n_embd;
    for_each_span(pass, pass.n_rows(), C, [&](size_t row, size_t column, size_t n) {
        for (size_t i = 0; i < n; ++i) x[row * C + column + i] *= 0.5f;
    });
}

HeadBuffers::HeadBuffers(Scratch& scratch, const Config& c, size_t n_logits)
    : n(std::min(n_logits, kRows)), rows(scratch.rows(n, c.n_embd)) {}

namespace {

// The head's product with the first n of the rows, which are prepared.
//
// Always the narrow way: rows here are those that want logits, whatever their sequences' sizes.
void head_product(Pass& pass, const HeadBuffers& b, size_t n, float* const* logits) {
    Product product{pass.model.head, b.rows};
    product.copies = logits;
    products(pass, n, 0, {product});
}

// What the head reads, of the values in row i.
void prepare_for_head(const Pass& pass, const HeadBuffers& b, size_t i) {
    const size_t C = pass.model.config.n_embd;
    if (!quantised(pass.model.head)) return;
    quantize_span(pass.kernels(), b.rows, b.rows.x + i * C, 0, i, 0, C);
}

}  // namespace

void head(Pass& pass, const float* x, const HeadBuffers& b) {
    const Model& model = pass.model;
    const size_t C = model.config.n_embd;
    const auto norm = [&](size_t row, float* out) {
        model.kernels.layer_norm(x + row * C, model.ln_out.weight, model.ln_out.bias, kLayerNormEps,
                                 C, out);
    };
    pass.kernels().end_streams();  // of the layers, for the pass that follows
    const std::vector<Batch::Hidden>& hidden = pass.batch.hidden;
    pass.team.for_each(hidden.size(), 1,
                       [&](size_t i, size_t) { norm(hidden[i].row, hidden[i].out); });
    const std::vector<Batch::Logits>& wanted = pass.batch.logits;
    float* logits[HeadBuffers::kRows];
    for (size_t first = 0; first < wanted.size(); first += b.n) {
        const size_t n = std::min(b.n, wanted.size() - first);
        pass.team.for_each(n, 1, [&](size_t i, size_t) {
            norm(wanted[first + i].row, b.rows.x + i * C);
            prepare_for_head(pass, b, i);
        });
        for (size_t i = 0; i < n; ++i) logits[i] = wanted[first + i].out;
        head_product(pass, b, n, logits);
    }
}

void logits_of(Pass& pass, const float* hidden, const HeadBuffers& b, float* out) {
    pass.team.for_each(1, 1, [&](size_t, size_t) {
        std::copy_n(hidden, pass.model.config.n_embd, b.rows.x);
        prepare_for_head(pass, b, 0);
    });
    head_product(pass, b, 1, &out);
}

}  // namespace rwkv
