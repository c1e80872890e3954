// Activation buffers: taken one after another during a pass, all given back at once before the
// next.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

#include "kernels/kernels.h"
#include "memory.h"

namespace rwkv {

class Scratch {
  public:
    // Gives back all buffers. If the last pass needed more than there was, the memory grows to fit.
    void reset() {
        if (!extra_.empty()) {
            extra_.clear();
            memory_ = Memory();
            memory_ = Memory(used_);
        }
        used_ = 0;
    }

    // Takes n values, aligned to 64 bytes, of any content.
    template <class T>
    T* take(size_t n) {
        const size_t begin = used_;
        const size_t n_bytes = round_up(n * sizeof(T), 64);
        used_ += n_bytes;
        if (used_ <= memory_.size()) return reinterpret_cast<T*>(memory_.data() + begin);
        extra_.emplace_back(n_bytes);
        return reinterpret_cast<T*>(extra_.back().data());
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
    std::vector<Memory> extra_;
    size_t used_ = 0;
};

}  // namespace rwkv
