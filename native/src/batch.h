// The rows of one pass: which tokens, which sequence each belongs to, which logits are wanted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "state.h"

namespace rwkv {

// Consecutive rows that belong to one sequence, in its order.
struct Sequence {
    State* state;
    size_t first_row;
    size_t n_rows;
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

    // Rows [0, n_wide) belong to sequences of RWKV_WIDE rows or more, which come first.
    size_t n_wide = 0;

    size_t n_rows() const noexcept { return tokens.size(); }
};

}  // namespace rwkv
