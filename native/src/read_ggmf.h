// ggmf, the container of rwkv.cpp.
#pragma once

#include <string_view>

#include "model_file.h"

namespace rwkv {

inline constexpr std::string_view kGgmfMagic = "fmgg";

// Fills the table. Fails with FILE_TRUNCATED, FILE_FORMAT, FILE_VERSION, TENSOR_TYPE, TENSOR_SHAPE.
void read_ggmf(ModelFile& file);

}  // namespace rwkv
