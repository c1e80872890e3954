// The stages that the forward passes are made of. Each is called by every thread of a team and ends
// when all threads are done with it.
//
// n = rows of the pass. Buffers are (n, columns), row after row, unless said otherwise.
#pragma once

#include <initializer_list>

#include "batch.h"
#include "model.h"

namespace rwkv {

// What the stages of a pass have in common.
struct Pass {
    const Model& model;
    const Batch& batch;
    Team& team;

    const rwkv_kernels& kernels() const noexcept { return model.kernels; }
    size_t n_rows() const noexcept { return batch.n_rows(); }
};

// Whether a matrix takes its activations quantised.
inline bool quantised(const Matrix& m) noexcept {
    return m.type != RWKV_TYPE_FP32 && m.type != RWKV_TYPE_FP16;
}

// x = ln0(embedding of the row's token).
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

// xx = norm(x); takes the shift of every sequence from its state and leaves the new one there.
// `shift` is &State::att_shift or &State::ffn_shift.
void norm_and_shift(Pass& pass, const Norm& norm, const float* x, const ShiftedRows& xx,
                    float* (State::*shift)(size_t) noexcept, size_t layer);

// out = xx + (previous - xx) mix, and quantised if a matrix that reads it is.
struct Mix {
    Vector mix;  // (n_cols)
    const rwkv_rows& out;
    bool quantised;
};
void mix_rows(Pass& pass, const ShiftedRows& xx, std::initializer_list<Mix> mixes);

// Quantises rows whose x is complete, if the matrix that reads them is quantised (or makes bf16 of
// them, where the level has wide products and the row's sequence is wide enough).
struct Ready {
    const rwkv_rows& rows;
    bool quantised;
};
void quantize_rows(Pass& pass, std::initializer_list<Ready> all);

// y = f(W x) for each row, then, if `residual` is set, residual += gate y (gate = 1 if not set).
// y, gate and residual have W.n_out columns.
struct Product {
    const Matrix& w;
    const rwkv_rows& x;
    float* y;
    void (*f)(const float* x, size_t n, float* y) = nullptr;
    const float* gate = nullptr;
    float* residual = nullptr;
    size_t ldy = 0;  // distance of y's rows; 0: n_out
};
void products(Pass& pass, std::initializer_list<Product> all);

// The same for n_rows other rows than the pass's, of which the first n_wide may take the wide way.
void products(Pass& pass, size_t n_rows, size_t n_wide, std::initializer_list<Product> all);

// Calls body(row, first column, columns) for all elements of (n, n_cols), in pieces that keep every
// thread busy and begin at multiples of RWKV_LANES columns.
template <class Body>
void for_each_span(Pass& pass, size_t n_rows, size_t n_cols, Body&& body) {
    constexpr size_t kSpan = 512;
    const size_t spans = (n_cols + kSpan - 1) / kSpan;
    pass.team.for_each(n_rows * spans, 1, [&](size_t begin, size_t end) {
        for (size_t i = begin; i < end; ++i) {
            const size_t column = i % spans * kSpan;
            body(i / spans, column, n_cols - column < kSpan ? n_cols - column : kSpan);
        }
    });
}

// Calls body(sequence, head) for all of them.
template <class Body>
void for_each_head(Pass& pass, Body&& body) {
    const size_t n_head = pass.model.config.n_head;
    pass.team.for_each(pass.batch.sequences.size() * n_head, 1, [&](size_t begin, size_t end) {
        for (size_t i = begin; i < end; ++i) body(pass.batch.sequences[i / n_head], i % n_head);
    });
}

// The channel mix of versions 4, 5 and 6 with its buffers:
//     r = sigmoid(R lerp(xx, mix_r)), k = relu(K lerp(xx, mix_k))^2, x += r (V k)
struct ChannelMixBuffers {
    ChannelMixBuffers(Scratch& scratch, const Config& c, size_t n);
    rwkv_rows xk, xr;  // (n, C)
    rwkv_rows k;       // (n, F)
    float* r;          // (n, C)
    float* v;          // (n, C)
};
void channel_mix(Pass& pass, const ChannelMix& weights, const ShiftedRows& xx,
                 const ChannelMixBuffers& buffers, float* x);

// The logits that the batch asks for: head(ln_out(x)).
struct HeadBuffers {
    HeadBuffers(Scratch& scratch, const Config& c, const Batch& batch);
    size_t n;        // rows at a time
    rwkv_rows rows;  // (n, C)
    float* logits;   // (n, V), unless one row is wanted, which is written where it belongs
};
void head(Pass& pass, const float* x, const HeadBuffers& buffers);

}  // namespace rwkv
