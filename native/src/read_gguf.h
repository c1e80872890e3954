// GGUF, the container of llama.cpp, versions 2 and 3, with its models rwkv6 and rwkv7.
#pragma once

#include <string_view>

#include "model_file.h"

namespace rwkv {

inline constexpr std::string_view kGgufMagic = "GGUF";

// Fills the table, with the names and shapes that tensors have in a ggmf file. Fails with
// FILE_UNREADABLE (a file that the model is split into), FILE_TRUNCATED, FILE_FORMAT, FILE_VERSION,
// MODEL_VERSION (another architecture), TENSOR_TYPE, TENSOR_SHAPE.
void read_gguf(ModelFile& file);

}  // namespace rwkv
