// ggml's block types: sizes, and the reference quantisation and dequantisation, exact to the bit.
// The layouts and rounding rules are those of docs/formats.md.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/kernels.h"

namespace rwkv {

// "fp32", "fp16", "q4_0" ...
const char* type_name(rwkv_type type) noexcept;

// Whether rows of `n` values can be of this type: a multiple of 32 for the quantised ones.
bool row_fits(rwkv_type type, size_t n) noexcept;

// Turns a row of n values, as it lies in a file, into floats.
void dequantize_row(rwkv_type type, const uint8_t* row, size_t n, float* out) noexcept;

// Turns n floats into a row of the type, rwkv_row_bytes(type, n) bytes.
void quantize_row(rwkv_type type, const float* x, size_t n, uint8_t* row) noexcept;

}  // namespace rwkv
