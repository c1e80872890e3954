// The recurrent state of one sequence.
#pragma once

#include <atomic>
#include <cstddef>

#include "memory.h"
#include "model.h"

namespace rwkv {

// The level's kernel of that name.
using Transpose = decltype(rwkv_kernels::transpose);

// Layer after layer, as the public layout of rwkv.h says, but for the heads of version 7, which are
// kept transposed (row = key, column = value, like those of versions 5 and 6), as the kernels want
// them; read and write convert. Behind the last layer stands the hidden state.
class State {
  public:
    explicit State(const Model& model);  // as reset makes it
    // One that lies in memory of the caller's, as soon as `lie_at` says where.
    struct OfCaller {};
    State(const Model& model, OfCaller);
    State(const State& other);
    State& operator=(const State& other);  // both of one shape

    void reset() noexcept;        // all that a state holds before the first token, without heads
    void read(float* out) const;  // (config.state_size())
    void write(const float* in) noexcept;

    // The state is from now on what is at `from`, (config.state_size()) in the public layout, and the
    // next pass of a step leaves what it makes of it at `to`, which may be `from`. For steps that
    // nobody cancels: a copy has none of it, and cannot bring it back.
    void lie_at(const float* from, float* to) noexcept;

    size_t n_bytes() const noexcept { return memory_.size(); }

    // Whether a token was read since the state was fresh or written, and what the last one left
    // behind: the final hidden state, normed (C), of which the head makes logits.
    bool has_hidden() const noexcept { return has_hidden_; }
    float* hidden() noexcept { return hidden_; }
    const float* hidden() const noexcept { return hidden_; }
    void set_hidden(const float* hidden) noexcept;  // (C); nullptr: none

    // While a step computes, the state is neither that before it nor that after it; and it stays
    // so in a child that is forked meanwhile. Reading it, or stepping on, then fails with
    // INVALID_ARGUMENT. To replace it as a whole is always right.
    void begin_change() noexcept { changing_.store(true, std::memory_order_relaxed); }
    void end_step() noexcept {
        has_hidden_ = true;
        end_change();
    }
    void end_layers() noexcept {  // which leave no hidden state behind
        has_hidden_ = false;
        end_change();
    }
    void require_whole() const;

    float* ffn_shift(size_t layer) noexcept { return layer_begin(layer); }                   // (C)
    float* att_shift(size_t layer) noexcept { return layer_begin(layer) + config_.n_embd; }  // (C)
    // v4: aa, bb, pp (3, C); later versions: (H, N, N), row = key, column = value; in the caller's
    // memory those of version 7 are as HeadV7 finds them.
    float* wkv(size_t layer) noexcept { return layer_begin(layer) + 2 * config_.n_embd; }

  private:
    friend class HeadV7;
    void end_change() noexcept { changing_.store(false, std::memory_order_relaxed); }
    float* values() const noexcept { return values_; }
    float* layer_begin(size_t i) noexcept { return values() + i * config_.layer_state_size(); }

    Config config_;
    Transpose transpose_;
    Memory memory_;  // the hidden state, and before it the values if they are not the caller's
    float* values_;
    const float* from_ = nullptr;  // the caller's: where heads of version 7 are read
    float* hidden_;
    const bool is_callers_ = false;
    bool has_hidden_ = false;
    std::atomic<bool> changing_{false};
};

// A head's matrix of version 7, as kernels want it for as long as this lives.
class HeadV7 {
  public:
    static constexpr size_t kMostChannels = 64;  // of a head that is worked on beside the caller's

    HeadV7(State& state, size_t layer, size_t head) noexcept;
    ~HeadV7();
    HeadV7(const HeadV7&) = delete;
    HeadV7& operator=(const HeadV7&) = delete;

    float* matrix() const noexcept { return matrix_; }  // (N, N), row = key, column = value

  private:
    const Transpose transpose_;  // nullptr: it is so already
    const size_t n_;
    float* const values_;
    float* const matrix_;
    alignas(64) float buffer_[kMostChannels * kMostChannels];
};

}  // namespace rwkv
