// The recurrent state of one sequence.
#pragma once

#include <atomic>
#include <cstddef>

#include "memory.h"
#include "model.h"

namespace rwkv {

// Layer after layer, as the public layout of rwkv.h says, but for the heads of version 7, which are
// kept transposed (row = key, column = value, like those of versions 5 and 6), as the kernels want
// them; read and write convert. Behind the last layer stands the hidden state.
class State {
  public:
    explicit State(const Model& model);  // as reset makes it
    State(const State& other);
    State& operator=(const State& other);  // both of one shape

    void reset() noexcept;        // all that a state holds before the first token, without heads
    void read(float* out) const;  // (config.state_size())
    void write(const float* in) noexcept;

    size_t n_bytes() const noexcept { return memory_.size(); }

    // Whether a token was read since the state was fresh or written, and what the last one left
    // behind: the final hidden state, normed (C), of which the head makes logits.
    bool has_hidden() const noexcept { return has_hidden_; }
    float* hidden() noexcept { return values() + config_.state_size(); }
    const float* hidden() const noexcept { return values() + config_.state_size(); }
    void set_hidden(const float* hidden) noexcept;  // (C); nullptr: none

    // While a step computes, the state is neither that before it nor that after it; and it stays
    // so in a child that is forked meanwhile. Reading it, or stepping on, then fails with
    // INVALID_ARGUMENT. To replace it as a whole is always right.
    void begin_change() noexcept { changing_.store(true, std::memory_order_relaxed); }
    void end_step() noexcept {
        has_hidden_ = true;
        end_change();
    }
    void require_whole() const;

    float* ffn_shift(size_t layer) noexcept { return layer_begin(layer); }                   // (C)
    float* att_shift(size_t layer) noexcept { return layer_begin(layer) + config_.n_embd; }  // (C)
    // v4: aa, bb, pp (3, C); later versions: (H, N, N), row = key, column = value.
    float* wkv(size_t layer) noexcept { return layer_begin(layer) + 2 * config_.n_embd; }

  private:
    void end_change() noexcept { changing_.store(false, std::memory_order_relaxed); }
    float* values() const noexcept { return reinterpret_cast<float*>(memory_.data()); }
    float* layer_begin(size_t i) noexcept { return values() + i * config_.layer_state_size(); }

    Config config_;
    Memory memory_;
    bool has_hidden_ = false;
    std::atomic<bool> changing_{false};
};

}  // namespace rwkv
