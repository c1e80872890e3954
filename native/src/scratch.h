// Activation buffers: taken one after another at the beginning of a pass, all given back at once
// before the next.
#pragma once

#include <algorithm>
#include <cstddef>
#include <stdexcept>

#include "kernels/kernels.h"
#include "memory.h"

namespace rwkv {

// A step must not run out of memory half-way, when it has changed states: so what its passes will
// take is counted, and reserved, before the first of them begins.
class Scratch {
  public:
    // From now on buffers are only counted: take() returns a null pointer.
    void count() noexcept { counting_ = true; }
    bool is_counting() const noexcept { return counting_; }

    // Ends counting, and makes room for n bytes. Throws std::bad_alloc.
    void reserve(size_t n) {
        counting_ = false;
        if (n <= memory_.size()) return;
        memory_ = Memory();  // first, so that both are never there at once
        memory_ = Memory(n);
    }

    // Gives back all buffers.
    void begin() noexcept { used_ = 0; }

    // Bytes that were taken since.
    size_t used() const noexcept { return used_; }

    // Takes n values, aligned to 64 bytes, of any content.
    template <class T>
    T* take(size_t n) {
        const size_t begin = used_;
        used_ += round_up(n * sizeof(T), 64);
        if (counting_) return nullptr;
        if (used_ > memory_.size()) throw std::logic_error("scratch: more taken than reserved");
        return reinterpret_cast<T*>(memory_.data() + begin);
    }

    float* floats(size_t n) { return take<float>(n); }

    // Takes n_rows rows of activations.
    rwkv_rows rows(size_t n_rows, size_t n_cols) {
        rwkv_rows rows;
        rows.x = take<float>(n_rows * n_cols);
        rows.tile = std::clamp<size_t>(n_rows, 1, RWKV_TILE);
        rows.q8 = take<rwkv_q8>(round_up(n_rows, rows.tile) * (n_cols / RWKV_BLOCK));
        rows.bf16 = take<uint16_t>(round_up(n_rows, 32) * n_cols);
        rows.n_cols = n_cols;
        rows.ld = n_cols;
        return rows;
    }

  private:
    Memory memory_;
    size_t used_ = 0;
    bool counting_ = false;
};

}  // namespace rwkv
