// The recurrent state of one sequence.
#pragma once

#include <atomic>
#include <cstddef>

#include "memory.h"
#include "model.h"

namespace rwkv {

// Layer after layer, as the public layout of rwkv.h says, but for the heads of version 7, which are
// kept transposed (row = key, column = value, like those of versions 5 and 6), as the kernels want
// them; read and write convert.
class State {
  public:
    explicit State(const Model& model);  // fresh
    State(const State& other);
    State& operator=(const State& other);  // both of one shape

    void reset(const Model& model) noexcept;  // fresh again; of the same model
    void read(float* out) const;              // (config.state_size())
    void write(const float* in) noexcept;

    // While a step computes, the state is neither that before it nor that after it; and it stays
    // so in a child that is forked meanwhile. Reading it, or stepping on, then fails with
    // INVALID_ARGUMENT. To replace it as a whole is always right.
    void begin_change() noexcept { changing_.store(true, std::memory_order_relaxed); }
    void end_change() noexcept { changing_.store(false, std::memory_order_relaxed); }
    void require_whole() const;

    float* ffn_shift(size_t layer) noexcept { return layer_begin(layer); }                   // (C)
    float* att_shift(size_t layer) noexcept { return layer_begin(layer) + config_.n_embd; }  // (C)
    // v4: aa, bb, pp (3, C); later versions: (H, N, N), row = key, column = value.
    float* wkv(size_t layer) noexcept { return layer_begin(layer) + 2 * config_.n_embd; }

  private:
    float* values() const noexcept { return reinterpret_cast<float*>(memory_.data()); }
    float* layer_begin(size_t i) noexcept { return values() + i * config_.layer_state_size(); }

    Config config_;
    Memory memory_;
    std::atomic<bool> changing_{false};
};

}  // namespace rwkv
