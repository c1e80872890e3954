// ggmf, the container of rwkv.cpp.
#pragma once

#include <cstdint>
#include <string_view>

#include "model_file.h"

namespace rwkv {

inline constexpr std::string_view kGgmfMagic = "fmgg";
inline constexpr int32_t kGgmfVersion = 101;  // what is written; 100 is read too

// Fills the table. Fails with FILE_TRUNCATED, FILE_FORMAT, FILE_VERSION, TENSOR_TYPE, TENSOR_SHAPE.
void read_ggmf(ModelFile& file);

}  // namespace rwkv
