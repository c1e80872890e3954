// Rows of any type, as they lie in a file, for tests that need some.
#pragma once

#include <cstdint>
#include <cstring>
#include <vector>

#include "block_types.h"

namespace tests {

inline uint16_t fp16(float value) {
    uint8_t bytes[2];
    rwkv::quantize_row(RWKV_TYPE_FP16, &value, 1, bytes);
    return rwkv_load_u16(bytes);
}

// Sets d, and m of types that have one, of all blocks of a quantised row of n values.
inline void set_scales(rwkv_type type, float d, float m, size_t n, uint8_t* row) {
    const uint16_t halves[2] = {fp16(d), fp16(m)};
    for (size_t at = 0; at < rwkv_row_bytes(type, n); at += rwkv_block_bytes(type)) {
        std::memcpy(row + at + rwkv_block_type_of(type)->d_at, halves, rwkv_has_m(type) ? 4 : 2);
    }
}

// A row of n values between -0.6 and 1.1: x quantised, or, for types that are not quantised here,
// any codes and small scales with scales so chosen. `random_bits()` gives 32 of them.
template <class Random>
void random_row(rwkv_type type, size_t n, Random&& random_bits, uint8_t* row) {
    const bool quantised_here = !rwkv_is_super(type) && type != RWKV_TYPE_IQ4_NL;
    if (quantised_here) {
        std::vector<float> x(n);
        for (float& v : x) v = -0.5f + 1.5f * static_cast<float>(random_bits()) * 0x1p-32f;
        rwkv::quantize_row(type, x.data(), n, row);
        return;
    }
    for (size_t i = 0; i < rwkv_row_bytes(type, n); ++i) {
        row[i] = static_cast<uint8_t>(random_bits() >> 9);
    }
    // The largest code times the largest small scale.
    const float largest = type == RWKV_TYPE_IQ4_NL ? 127.0f
                          : type == RWKV_TYPE_Q4_K ? 15.0f * 63.0f
                          : type == RWKV_TYPE_Q5_K ? 31.0f * 63.0f
                                                   : 32.0f * 128.0f;
    set_scales(type, 1.0f / largest, 0.5f / 63.0f, n, row);
}

}  // namespace tests
