// What users of the library hold: sessions, and batches of them.
#pragma once

#include <atomic>
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
    Session(const Session& other);  // rwkv_session_fork
    Session& operator=(const Session&) = delete;

    // A step of one sequence. `read` is one of several in a call: it does not forget that somebody
    // has cancelled the call meanwhile.
    void feed(const int32_t* tokens, size_t n_tokens, rwkv_logits wanted, float* out);
    void read(const int32_t* tokens, size_t n_tokens, rwkv_logits wanted, float* out);

    // Lets the model's layers work on rows in place of tokens.
    void run_layers(size_t n_rows, const LayerRows& rows);

    // Fails with INVALID_ARGUMENT if nothing was read.
    void logits(float* out) const;
    const float* hidden() const;

    void reset() noexcept;
    void set_state(const State& other) { state = other; }  // of the same model

    // (n_layer, n_head, head_size, head_size), row = value; nullptr: the file's, or zeros.
    void set_time_state(const float* heads);

    // Steps of up to `most` tokens can be taken back. `keep` fails with INVALID_ARGUMENT.
    void allow_take_back(size_t most) { state.allow_take_back(*model, most); }
    void keep(size_t n_kept);

    const std::shared_ptr<const Model> model;
    State state;
    Cancelled cancelled{false};

    // Its part of a step.
    Work work(const int32_t* tokens, size_t n_tokens, rwkv_logits wanted, float* out);

  private:
    // The heads of the fresh state, (n_layer, n_head, head_size, head_size), row = key.
    std::vector<float> time_state_;
};

// rwkv_batch: a step that is put together call by call.
class StepBatch {
  public:
    explicit StepBatch(std::shared_ptr<const Model> model) : model_(std::move(model)) {}

    void add(Session& session, const int32_t* tokens, size_t n_tokens, rwkv_logits wanted,
             float* out);

    // Clears it too, unless it fails: then no state has changed, and it can be run again.
    void run();
    void clear() noexcept;

    Cancelled cancelled{false};

  private:
    const std::shared_ptr<const Model> model_;
    std::vector<Session*> sessions_;  // of each work
    std::vector<Work> work_;
};

}  // namespace rwkv
