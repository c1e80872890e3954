// What users of the library hold: sessions, and batches of them.
#pragma once

#include <memory>
#include <vector>

#include "model.h"
#include "rwkv/rwkv.h"
#include "state.h"
#include "step.h"

namespace rwkv {

// One sequence: a state, and the model that it is kept alive by.
class Session {
  public:
    explicit Session(std::shared_ptr<const Model> model);

    // rwkv_session_feed: a step of one sequence.
    void feed(const int32_t* tokens, size_t n_tokens, float* logits_out);

    const std::shared_ptr<const Model> model;
    State state;
};

// rwkv_batch: a step that is put together call by call.
class StepBatch {
  public:
    explicit StepBatch(std::shared_ptr<const Model> model) : model_(std::move(model)) {}

    void add(Session& session, const int32_t* tokens, size_t n_tokens, rwkv_logits wanted,
             float* logits_out);

    // Clears it too, unless it fails: then no state has changed, and it can be run again.
    void run();
    void clear() noexcept { work_.clear(); }

  private:
    const std::shared_ptr<const Model> model_;
    std::vector<Work> work_;
};

}  // namespace rwkv
