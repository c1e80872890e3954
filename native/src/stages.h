// The stages that the forward passes are made of. Each is called by every thread of a team and ends
// when all threads are done with it.
//
// n = rows of the pass. Buffers are (n, columns), row after row, unless said otherwise.
#pragma once

#include <initializer_list>

#include "batch.h"
#include "executor.h"
#include "head_state.h"
#include "model.h"

namespace rwkv {

// For each thread, memory for what it works on in a product and nobody else reads.
class ProductBuffers {
  public:
    static constexpr size_t kColumns = RWKV_COLUMN;

    ProductBuffers(Scratch& scratch, const Model& model, const Batch& batch);

    // Results, (a tile of rows or all that take the wide way, kColumns): as parts of whole rows, 4
    // or 16 KiB apart, they would push each other out of the first-level cache.
    float* values(const Team& team) const noexcept { return values_ + team.thread() * size_; }

    // A panel of a matrix by columns, unpacked; only in passes of more than a tile of rows.
    uint8_t* panel(const Team& team) const noexcept {
        return panels_ + team.thread() * panel_bytes_;
    }

  private:
    size_t size_;
    float* values_;
    size_t panel_bytes_;
    uint8_t* panels_;
};

// What the stages of a pass have in common.
struct Pass {
    const Model& model;
    const Batch& batch;
    const ProductBuffers& buffers;
    Team& team;

    const rwkv_kernels& kernels() const noexcept { return model.kernels; }
    size_t n_rows() const noexcept { return batch.n_rows(); }
};

// Whether a matrix takes its activations quantised.
inline bool quantised(const Matrix& m) noexcept { return rwkv_is_quantised(m.type) != 0; }

// The residual stream, (n, n_cols).
float* residual(Scratch& scratch, const Batch& batch, size_t n_cols);

// x = ln0(embedding of the row's token); where rows enter from elsewhere, it is there already.
void embed(Pass& pass, float* x);

// Layer-normed rows with the token before each at hand: before the rows of each sequence stands one
// more, its shift (the normed last row of the step before), so that "the previous row" is always
// the row above.
class ShiftedRows {
  public:
    ShiftedRows(Scratch& scratch, const Batch& batch, size_t n_cols)
        : batch_(batch),
          n_cols_(n_cols),
          rows_(scratch.floats((batch.n_rows() + batch.sequences.size()) * n_cols)) {}

    float* row(size_t i) const noexcept {
        return rows_ + (i + batch_.sequence_of[i] + 1) * n_cols_;
    }
    float* before(size_t i) const noexcept { return row(i) - n_cols_; }

  private:
    const Batch& batch_;
    size_t n_cols_;
    float* rows_;
};

// In which form the matrices that read some rows want them: fp32, quantised, or both.
struct Form {
    bool fp;
    bool blocks;
};
template <class... M>
Form form_for(const M&... readers) noexcept {
    return {(!quantised(readers) || ...), (quantised(readers) || ...)};
}

// out = lerp(xx, the row before, mix), in the form that its readers want.
struct Mix {
    Vector mix;  // (n_cols)
    const rwkv_rows& out;
    Form form;
};

// For each thread, the rows of a piece and, for each of them, one that may come before it.
class RowPairs {
  public:
    static constexpr size_t kRows = RWKV_TILE;

    RowPairs(Scratch& scratch, const Model& model, size_t n_cols)
        : n_cols_(n_cols), rows_(scratch.floats(2 * kRows * model.n_threads * n_cols)) {}

    float* row(const Team& team, size_t i) const noexcept {
        return rows_ + 2 * (team.thread() * kRows + i) * n_cols_;
    }
    float* before(const Team& team, size_t i) const noexcept { return row(team, i) + n_cols_; }

  private:
    size_t n_cols_;
    float* rows_;
};

// The mixes of xx = norm(x) with the token before each: with the row above or, for the first row of
// a sequence, the shift in its state, which becomes the last row's xx.
void norm_and_mix(Pass& pass, const Norm& norm, const float* x, const RowPairs& pairs, Shift shift,
                  size_t layer, std::initializer_list<Mix> mixes);

// The same in two stages, for who needs xx again later (version 6).
void norm_and_shift(Pass& pass, const Norm& norm, const float* x, const ShiftedRows& xx,
                    Shift shift, size_t layer);
void mix_rows(Pass& pass, const ShiftedRows& xx, std::initializer_list<Mix> mixes);

// Quantises columns [column, column + n) of a row, whole blocks whose x is complete, for products
// with quantised matrices (or makes bf16 of them, where the level has wide products and the row's
// sequence is wide enough).
void quantize_part(Pass& pass, const rwkv_rows& rows, size_t row, size_t column, size_t n);

// Quantises all rows.
void quantize_rows(Pass& pass, std::initializer_list<const rwkv_rows*> all);

// y = f(W x) for each row, and what becomes of it, if set:
//     y         is kept
//     copies    is copied to these places, one for each row
//     next      is quantised; its n_cols is W.n_out, whole blocks; its x is left as it is
//     residual  += gate y (gate = 1 if not set)
// y, gate and residual are (n, W.n_out).
struct Product {
    const Matrix& w;
    const rwkv_rows& x;
    float* y = nullptr;
    void (*f)(const float* x, size_t n, float* y) = nullptr;
    float* const* copies = nullptr;
    const rwkv_rows* next = nullptr;
    const float* gate = nullptr;
    float* residual = nullptr;
};

// f(W x) for a second matrix, in the form that it reads.
inline Product product_for(const Matrix& second, const Matrix& w, const rwkv_rows& x,
                           const rwkv_rows& y,
                           void (*f)(const float* x, size_t n, float* y) = nullptr) noexcept {
    if (quantised(second)) return {w, x, nullptr, f, nullptr, &y};
    return {w, x, y.x, f};
}

// residual += gate (W x); gate = 1 if not set.
inline Product product_added(const Matrix& w, const rwkv_rows& x, float* residual,
                             const float* gate = nullptr) noexcept {
    Product product{w, x};
    product.gate = gate;
    product.residual = residual;
    return product;
}
//
// Writes the matrices' inputs for who has tapped them. They are those in fp32: where a matrix is
// quantised, those before that.
void products(Pass& pass, std::initializer_list<Product> all);

// The same for n_rows other rows than the pass's, of which the first n_wide, no more than in the
// pass, may take the wide way. If n_rows is more than a tile, so are the pass's.
void products(Pass& pass, size_t n_rows, size_t n_wide, std::initializer_list<Product> all);

// Columns of a row that are worked on together: whole vectors and blocks.
constexpr size_t kSpan = 512;

// Calls body(row, first column, columns) for all elements of (n, n_cols), in pieces of kSpan
// columns.
template <class Body>
void for_each_span(Pass& pass, size_t n_rows, size_t n_cols, Body&& body) {
    const size_t spans = (n_cols + kSpan - 1) / kSpan;
    pass.team.for_each(n_rows * spans, 1, [&](size_t begin, size_t end) {
        for (size_t i = begin; i < end; ++i) {
            const size_t column = i % spans * kSpan;
            body(i / spans, column, n_cols - column < kSpan ? n_cols - column : kSpan);
        }
    });
}

// For each thread, room for a head of a state.
class HeadRooms {
  public:
    HeadRooms(Scratch& scratch, const Model& model)
        : size_(round_up(Heads(model.config).size(), RWKV_LANES)),
          rooms_(scratch.floats(model.n_threads * size_)) {}

    float* of(const Team& team) const noexcept { return rooms_ + team.thread() * size_; }

  private:
    size_t size_;
    float* rooms_;
};

// Calls body(sequence, head, its HeadState) for all heads of a layer, which completes the head's
// channels of y in the sequence's rows; y is then quantised if its reader is.
template <class Body>
void for_each_head(Pass& pass, size_t layer, const HeadRooms& rooms, const rwkv_rows& y,
                   const Matrix& reader, Body&& body) {
    const size_t n_head = pass.model.config.n_head;
    const size_t N = pass.model.config.head_size;
    const bool in_blocks = N % RWKV_BLOCK == 0;  // else a block is that of several heads
    pass.team.for_each(pass.batch.sequences.size() * n_head, 1, [&](size_t i, size_t) {
        const Sequence& s = pass.batch.sequences[i / n_head];
        const size_t head = i % n_head;
        body(s, head, HeadState(*s.state, s.recent, layer, head, rooms.of(pass.team)));
        if (!quantised(reader) || !in_blocks) return;
        for (size_t row = s.first_row; row < s.first_row + s.n_rows; ++row) {
            quantize_part(pass, y, row, head * N, N);
        }
    });
    if (quantised(reader) && !in_blocks) quantize_rows(pass, {&y});
}

// What the time mixes of versions 4 to 6 compute, each (n, C): the mixed rows that r, k, v and g
// are products of, these products, and what the output matrix reads.
struct TimeMixBuffers {
    TimeMixBuffers(Scratch& scratch, const Config& c, size_t n);
    rwkv_rows xr, xk, xv, xg;
    float *r, *k, *v, *g;
    rwkv_rows y;
};

// The channel mix of versions 4, 5 and 6 with its buffers:
//     xx = norm(x)
//     r = sigmoid(R lerp(xx, mix_r)), k = relu(K lerp(xx, mix_k))^2, x += r (V k)
struct ChannelMixBuffers {
    ChannelMixBuffers(Scratch& scratch, const Config& c, size_t n);
    rwkv_rows xk, xr;  // (n, C)
    rwkv_rows k;       // (n, F)
    float* r;          // (n, C)
};
void channel_mix(Pass& pass, const ChannelMix& weights, const Norm& norm, size_t layer,
                 const RowPairs& pairs, const ChannelMixBuffers& buffers, float* x);

// x /= 2, (n, C).
void halve(Pass& pass, float* x);

// What the batch asks for: hidden states h = ln_out(x), and logits, head(h).
struct HeadBuffers {
    HeadBuffers(Scratch& scratch, const Config& c, size_t n_logits);
    static constexpr size_t kRows = 64;  // at a time, at most
    size_t n;
    rwkv_rows rows;  // (n, C)
};
void head(Pass& pass, const float* x, const HeadBuffers& buffers);

// The logits of one hidden state, (C), to `out`.
void logits_of(Pass& pass, const float* hidden, const HeadBuffers& buffers, float* out);

}  // namespace rwkv
