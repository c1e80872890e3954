// ggml's block types for the rest of the library: names, numbers in files, and the reference
// quantisation and dequantisation, exact to the bit. The types themselves are in
// kernels/block_type.h; the layouts and rounding rules are those of docs/formats.md.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/kernels.h"

namespace rwkv {

// "fp32", "fp16", "q4_0" ...
const char* type_name(rwkv_type type) noexcept;

// The type with this number in ggmf files, or in GGUF files; RWKV_TYPE_COUNT if there is none.
rwkv_type type_in_ggmf(int32_t number) noexcept;
rwkv_type type_in_gguf(int32_t number) noexcept;

// Whether rows of `n` values can be of this type: a multiple of 32 or 256 for the quantised ones.
bool row_fits(rwkv_type type, size_t n) noexcept;

// Turns a row of n values, as it lies in a file, into floats.
void dequantize_row(rwkv_type type, const uint8_t* row, size_t n, float* out) noexcept;

// Turns n floats into a row of the type, rwkv_row_bytes(type, n) bytes. Not for iq4_nl and the
// types of super-blocks, which only rwkv-convert quantises.
void quantize_row(rwkv_type type, const float* x, size_t n, uint8_t* row) noexcept;

}  // namespace rwkv
