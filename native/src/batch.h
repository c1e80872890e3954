// The rows of one pass: which tokens, which sequence each belongs to, which logits are wanted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/kernels.h"
#include "state.h"

namespace rwkv {

// Consecutive rows that belong to one sequence, in its order.
struct Sequence {
    State* state;
    size_t first_row;
    size_t n_rows;
    RecentRows* recent;  // what State::recent_for gave: nullptr where rows cannot be taken back
};

// Where to write a matrix's input rows, (n_rows, n_in).
struct Tap {
    const rwkv_matrix* matrix;
    float* rows;
};

// The residual stream of rows that enter a model's layers from elsewhere, in the caller's memory:
// what layers add is added there. One sequence, no logits, no hidden states.
struct LayerRows {
    float* x;        // (n_rows, n_embd)
    float* v_first;  // likewise: v of the first layer, which those of version 7 after it read
    std::vector<Tap> taps;
};

struct Batch {
    std::vector<int32_t> tokens;      // one for each row
    std::vector<size_t> sequence_of;  // likewise: index into sequences
    std::vector<Sequence> sequences;

    // Logits wanted: after the token of `row`, to `out`, (n_vocab).
    struct Logits {
        size_t row;
        float* out;
    };
    std::vector<Logits> logits;

    // Hidden states wanted: the normed row, to `out`, (n_embd).
    struct Hidden {
        size_t row;
        float* out;
    };
    std::vector<Hidden> hidden;

    LayerRows* layer_rows = nullptr;  // these instead of the embedding's

    // Rows [0, n_wide) belong to sequences of RWKV_WIDE rows or more, which come first.
    size_t n_wide = 0;

    size_t n_rows() const noexcept { return tokens.size(); }
};

}  // namespace rwkv
