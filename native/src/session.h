// One sequence being read or written, and the step that moves many of them on.
#pragma once

#include <memory>
#include <vector>

#include "model.h"
#include "rwkv/rwkv.h"
#include "state.h"

namespace rwkv {

// Rows of one sequence in a pass, at most: enough for a matrix that is unpacked once to serve many
// tokens, few enough for their activations to stay in the cache.
constexpr size_t kPieceRows = 256;

class Session {
  public:
    explicit Session(std::shared_ptr<const Model> model);

    // rwkv_session_feed.
    void feed(const int32_t* tokens, size_t n_tokens, float* logits_out);

    const std::shared_ptr<const Model> model;
    State state;
};

// What one sequence contributes to a step. Tokens have been checked.
struct Work {
    State* state;
    const int32_t* tokens;
    size_t n_tokens;  // >= 1
    rwkv_logits wanted;
    float* logits;
};

// Computes all of it. A sequence's tokens are cut into pieces of kPieceRows from its start,
// whatever its company, and each piece goes through the model whole, together with pieces of other
// sequences.
void step(const Model& model, const std::vector<Work>& work);

// Fails with TOKEN_OUT_OF_RANGE, naming the first token that is not in the vocabulary.
void check_tokens(const Model& model, const int32_t* tokens, size_t n_tokens);

// rwkv_batch.
class StepBatch {
  public:
    explicit StepBatch(std::shared_ptr<const Model> model) : model_(std::move(model)) {}

    void add(Session& session, const int32_t* tokens, size_t n_tokens, rwkv_logits wanted,
             float* logits_out);
    void run();
    void clear() noexcept { entries_.clear(); }

  private:
    struct Entry {
        Session* session;
        std::vector<int32_t> tokens;
        rwkv_logits wanted;
        float* logits;
    };
    const std::shared_ptr<const Model> model_;
    std::vector<Entry> entries_;
};

}  // namespace rwkv
