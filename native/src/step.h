// A step: many sequences read tokens together, in passes through the model.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "batch.h"
#include "model.h"
#include "rwkv/rwkv.h"
#include "state.h"

namespace rwkv {

// Rows of one sequence in a pass, at most: enough for a matrix that is unpacked once to serve many
// tokens, few enough for their activations to stay in the cache.
//
// This is where prompts are cut, and the only place: a sequence's tokens are cut into pieces of
// this length from the first that it brings to the step, whatever its company. A caller who brings
// them piece by piece gets the same numbers.
constexpr size_t kPieceRows = 256;

// Whether somebody wants a call to end early.
using Cancelled = std::atomic<bool>;

// What one sequence contributes to a step. The tokens are a copy: callers may change theirs, and
// other threads may, while the step waits for its turn.
struct Work {
    State* state;
    std::vector<int32_t> tokens;  // at least one, checked
    rwkv_logits wanted;
    float* out;
    const Cancelled* cancelled;  // ends the whole step
};

// Copies tokens and checks the copy. Fails with TOKEN_OUT_OF_RANGE, naming the first that is not in
// the vocabulary.
std::vector<int32_t> checked_tokens(const Model& model, const int32_t* tokens, size_t n_tokens);

// Waits for its turn and computes all of it. After a failure no state has changed; one of them is
// CANCELLED, which is looked for before each pass, here and in all work.
void step(const Model& model, const std::vector<Work>& work, const Cancelled& cancelled);

// Lets the model's layers, all that it has, work on rows of one sequence, in place of a step, which
// cuts them likewise. Fails before anything has changed.
void run_layers(const Model& model, State& state, size_t n_rows, const LayerRows& rows);

// Writes the logits of a hidden state, (n_embd), to `out`, (n_vocab): to the bit those of the step
// that left it behind.
void logits_of(const Model& model, const float* hidden, float* out);

}  // namespace rwkv
