// A head of a state, as its recurrence works on it.
#pragma once

#include <cstddef>
#include <initializer_list>

#include "recent_rows.h"
#include "state.h"

namespace rwkv {

// What is pending has been applied to it. Where rows can be taken back, what they make of it is left in
// `room`, the thread's own, of Heads::size() floats, which RecentRows is told of when this ends, and the
// state stays as it was before them; else in the state, at the latest then. One thread works on a head
// of a state at a time.
class HeadState {
  public:
    HeadState(State& state, RecentRows* recent, size_t layer, size_t head, float* room) noexcept;
    ~HeadState();
    HeadState(const HeadState&) = delete;
    HeadState& operator=(const HeadState&) = delete;

    // Where the kernels read it, and where they leave it, which may be the same: (N, N), row = key,
    // column = value. In version 4 aa, bb and pp, so many floats apart.
    const float* before() const noexcept { return before_; }
    float* after() const noexcept { return after_; }
    size_t ld_before() const noexcept { return ld_before_; }
    size_t ld_after() const noexcept { return ld_after_; }

    // Is told what the recurrence reads, before it does, as RecentRows::take wants it; `row` is the
    // first's place among the sequence's.
    void take(size_t row, size_t n_rows, size_t ld,
              std::initializer_list<const float*> inputs) const noexcept {
        if (recent_ != nullptr) recent_->take(layer_, head_, row, n_rows, ld, inputs);
    }

  private:
    State& state_;
    RecentRows* const recent_;
    const size_t layer_;
    const size_t head_;
    float* const in_state_;  // where it stands
    const float* before_;
    float* after_;
    size_t ld_before_;
    size_t ld_after_;
    const size_t n_;
    Transpose transpose_ = nullptr;  // the way from after_ to in_state_, if there is one
};

}  // namespace rwkv
