// The recurrent state of one sequence.
#pragma once

#include <atomic>
#include <cstddef>
#include <memory>

#include "memory.h"
#include "model.h"
#include "recent_rows.h"

namespace rwkv {

// The level's kernel of that name.
using Transpose = decltype(rwkv_kernels::transpose);

// Layer after layer, as the public layout of rwkv.h says, but for the heads of version 7, which are
// kept transposed (row = key, column = value, like those of versions 5 and 6), as the kernels want
// them; read and write convert. Behind the last layer stands the hidden state.
//
// Where rows can be taken back, recent rows are pending, and shifts and hidden state stand with them: so
// nobody but this and HeadState gets at the memory.
class State {
  public:
    explicit State(const Model& model);  // as reset makes it
    // One that lies in memory of the caller's, as soon as `lie_at` says where.
    struct OfCaller {};
    State(const Model& model, OfCaller);
    // A copy has all that is pending applied, and takes nothing back. One that is assigned to, of the
    // same shape, can take back what it reads from then on, as before.
    State(const State& other);
    State& operator=(const State& other);

    void reset() noexcept;  // all that a state holds before the first token, without heads
    void set_heads(size_t layer, const float* heads) noexcept;  // of a fresh one, (H, N, N)
    void read(float* out) const;                                // (config.state_size())
    // (config.state_size()), and the hidden state, (C); nullptr: none.
    void write(const float* in, const float* hidden) noexcept;

    // The state is from now on what is at `from`, (config.state_size()) in the public layout, and the
    // next pass of a step leaves what it makes of it at `to`, which may be `from`. For steps that
    // nobody cancels: a copy has none of it, and cannot bring it back.
    void lie_at(const float* from, float* to) noexcept;

    size_t n_bytes() const noexcept { return memory_.size(); }

    // Whether a token was read since the state was fresh or written, and what the last one left
    // behind: the final hidden state, normed (C), of which the head makes logits.
    bool has_hidden() const noexcept { return has_hidden_ || last_hidden() != nullptr; }
    const float* hidden() const noexcept {
        return last_hidden() != nullptr ? last_hidden() : hidden_;
    }

    // While a step computes, the state is neither that before it nor that after it; and it stays
    // so in a child that is forked meanwhile. Reading it, or stepping on, then fails with
    // INVALID_ARGUMENT. To replace it as a whole is always right.
    void begin_change() noexcept {
        keep_all();
        changing_.store(true, std::memory_order_relaxed);
    }
    void end_step() noexcept { end_change(); }
    void end_layers() noexcept {  // which leave no hidden state behind
        has_hidden_ = false;
        end_change();
    }
    void require_whole() const;

    // ---- taking rows back

    // Steps of up to `most` rows (0 to RecentRows::kMost) can be, from now on. Fails before anything has
    // changed. `model` must stay.
    void allow_take_back(const Model& model, size_t most);
    size_t most_taken_back() const noexcept { return recent_ == nullptr ? 0 : recent_->most(); }
    // Of how many rows of the last step `keep` can still take some back.
    size_t n_undecided() const noexcept { return recent_ == nullptr ? 0 : recent_->n_undecided(); }
    void keep(size_t n) noexcept {  // only the first n of these
        if (recent_ != nullptr) recent_->keep(n);
    }
    void keep_all() noexcept {
        if (recent_ != nullptr) recent_->keep_all();
    }

    // ---- for passes

    // Where a pass leaves what becomes of the rows of a step of n_rows; nullptr: in the state, because
    // they cannot be taken back.
    RecentRows* recent_for(size_t n_rows) noexcept {
        return n_rows <= most_taken_back() ? recent_.get() : nullptr;
    }
    // The normed row of the last token before the pass, (C); and, where rows cannot be taken back,
    // the place for that of the pass's last, which may be the same, and for its hidden state.
    const float* shift(Shift shift, size_t layer) const noexcept;
    float* next_shift(Shift shift, size_t layer) noexcept { return own_shift(shift, layer); }
    float* next_hidden() noexcept { return hidden_; }
    // `recent` is what recent_for gave.
    void end_pass(RecentRows* recent, size_t n_rows) noexcept;

  private:
    friend class HeadState;
    void end_change() noexcept { changing_.store(false, std::memory_order_relaxed); }
    const float* last_hidden() const noexcept {
        return recent_ == nullptr ? nullptr : recent_->last_hidden();
    }
    float* layer_begin(size_t i) const noexcept { return values_ + i * config_.layer_state_size(); }
    float* own_shift(Shift shift, size_t layer) const noexcept {
        return layer_begin(layer) + static_cast<size_t>(shift) * config_.n_embd;
    }
    float* own_wkv(size_t layer) const noexcept { return layer_begin(layer) + 2 * config_.n_embd; }
    float* wkv(size_t layer) const noexcept {  // where heads stand
        float* const own = own_wkv(layer);
        return recent_ == nullptr ? own : recent_->heads(layer, own);
    }
    void become(const State& other) noexcept;
    void copy_layer(size_t layer, float* to) const noexcept;
    void transpose_heads(float* layer) const noexcept;

    Config config_;
    Transpose transpose_;
    Memory memory_;  // the hidden state, and before it the values if they are not the caller's
    float* values_;
    const float* from_ = nullptr;  // the caller's: where heads of version 7 are read
    float* hidden_;
    std::unique_ptr<RecentRows> recent_;  // if steps can be taken back
    const bool is_callers_ = false;
    bool has_hidden_ = false;
    std::atomic<bool> changing_{false};
};

}  // namespace rwkv
